"""Finds binary weights that a file holds as floats, though nobody asked for it.

LCE packs a convolution only if its input is also binary. Weights of -s and +s with a real input, or in a layer that is
not a 2-D convolution, take thirty-two times the bytes that a user may expect.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from larq_rep.converters import matching, reasons
from larq_rep.converters.audit import BinaryAudit, declared_binary
from larq_rep.converters.findings import Finding
from larq_rep.converters.float_weights import CompressedConstant, exact_scales
from larq_rep.converters.graph import CONVOLUTIONS, FrozenGraph
from larq_rep.converters.matrix_products import MATRIX_PRODUCTS, matrix_product
from larq_rep.converters.tensors import resolve, unpadded

# Products of data and weights other than convolutions: locally connected layers, attention, the user's own layers.
_PRODUCTS = {*CONVOLUTIONS, *MATRIX_PRODUCTS, "SparseMatMul"}
# A layer with fewer weights is not worth packing, and they could be signs by chance.
_FEWEST = 16
_BYTES = {"float32": 4, "float16": 2, "int8": 1}


@dataclass(frozen=True)
class Unpacked:
    """The result of `audit_unpacked`.

    # Attributes
        weights: Number of two-valued weights that the file does not hold as bits.
        bytes: Bytes that they take there.
        findings: One for each layer that has no finding yet, none of them an error.
    """

    weights: int
    bytes: int
    findings: list[Finding]


def audit_unpacked(
    graph: FrozenGraph, binary: BinaryAudit, stored: Sequence[CompressedConstant], exact_int8: bool
) -> Unpacked:
    """Looks for weights of two values that did not become bits.

    Weights count as binary if their layer declares a quantizer of precision 1, or if they are -s and +s with one s
    for each channel. Ternary weights get a finding of their own, and are not counted.

    # Arguments
        graph: The model as a graph.
        binary: How its binary convolutions fared.
        stored: The weights of the file and their storage.
        exact_int8: Whether weights of few levels were to be stored without loss.
    """
    found: dict[str, tuple[tf.Operation, tf.Tensor]] = {}
    for node in graph.nodes:
        if node.type in _PRODUCTS and node.name in graph.data_dependent and node.name not in binary.packed:
            for x in node.inputs:
                if x.op.name not in graph.data_dependent and x.dtype.is_floating:
                    found.setdefault(x.name, (node, x))
    values = graph.run([x for _, x in found.values()])
    constants = {(math.prod(constant.shape), constant.exact): constant for constant in stored}
    weights = size = 0
    findings: dict[str, Finding] = {}
    for (node, _), value in zip(found.values(), values, strict=True):
        layer = graph.layer_of(node)
        signs = declared_binary(graph, node) or is_signs(value, node.type)
        if not signs and not is_ternary(value, node.type):
            continue
        # Their order in the file, and factors of the channels, make no difference to whether they are exact.
        exact = any(exact_scales(channels.T) is not None for channels in _by_channel(value, node.type))
        # A batch of products, as of a locally connected layer, may have become as many dense layers.
        sizes = [value.size] if node.type in CONVOLUTIONS else [value.size, value[0].size]
        keys = [(n, same) for n in sizes for same in (exact, not exact)]
        constant = next((constants[key] for key in keys if key in constants), None)
        dtype = "float32" if constant is None else constant.storage
        takes = f"its {value.size:,} weights take {value.size * _BYTES[dtype]:,} bytes in the file, as {dtype}"
        smaller = ""
        if constant is not None and dtype == "float32" and constant.bytes_before >= 1024 and not (exact and exact_int8):
            option = "exact_int8=True" if exact else "float_weights='int8'"
            smaller = f", or store the weights smaller ({option})"
        if signs:
            weights, size = weights + value.size, size + value.size * _BYTES[dtype]
            if node.name not in binary.unpacked:
                message = (
                    f"{takes}, though they are signs, {-(-value.size // 8):,} bytes as bits: {_why(graph, node, value)}"
                )
                message += smaller
                findings.setdefault(layer, Finding("binary-weight-float", layer, message, error=False))
        else:
            message = (
                f"{takes}: they have three values, -s, 0 and +s, and LCE packs two; they are ternary, not binary. Take "
                f"kernel_quantizer='ste_sign'{smaller}"
            )
            findings.setdefault(layer, Finding("ternary-weight-float", layer, message, error=False))
    return Unpacked(weights, size, list(findings.values()))


def is_signs(value: np.ndarray, node_type: str = "") -> bool:
    """Whether weights are -s and +s, both, with one s for all or for each channel of some axis."""
    return _enough(value) and any(matching.two_valued(channels) for channels in _by_channel(value, node_type))


def is_ternary(value: np.ndarray, node_type: str = "") -> bool:
    """Whether weights are -s, 0 and +s with one s for all or for each channel of some axis."""
    if not _enough(value) or not 0 < np.mean(value == 0) <= 0.95:
        return False
    for channels in _by_channel(value, node_type):
        magnitude = np.abs(channels)
        largest = magnitude.max(axis=0)
        alive = largest > 0
        ratio = magnitude[:, alive] / largest[alive]
        if np.all((ratio == 0) | (ratio > 0.995)) and (ratio > 0).sum() > 2 * alive.sum():
            return True
    return False


def _enough(value: np.ndarray) -> bool:
    return value.size >= _FEWEST and bool((value > 0).any() and (value < 0).any())


def _by_channel(value: np.ndarray, node_type: str) -> list[np.ndarray]:
    """The weights as matrices whose columns are channels, for each axis that may hold these."""
    columns = [value.reshape(-1, 1)]
    if node_type == "DepthwiseConv2dNative":
        columns.append(value.reshape(-1, value.shape[-2] * value.shape[-1]))
    columns += [np.moveaxis(value, axis, -1).reshape(-1, value.shape[axis]) for axis in range(value.ndim)]
    return columns


def _why(graph: FrozenGraph, node: tf.Operation, value: np.ndarray) -> str:
    product = matrix_product(node, graph.data_dependent) if node.type in MATRIX_PRODUCTS else None
    site = next((site for site in graph.sites if site.node.name == node.name), None)
    if reason := graph.convolved.reasons.get(node.name) or (product.reason if product else ""):
        return reason
    if site is not None:
        if advice := reasons.other_convolution(site.kind):
            return f"{advice}, with a binary input (input_quantizer='ste_sign')"
        reason, data = reasons.why_kernel(site, value), site.x
    elif product is not None:
        reason, data = reasons.why_weights(product.matrix(value)), product.data
    else:
        reason = (
            "LCE packs convolutions only, whose weights are the same at each place; write it as QuantConv2D or "
            "QuantConv1D, or leave the weights real"
        )
    if reason:
        return reason
    source = resolve(unpadded(data)).op
    while source.type == "BatchToSpaceND":  # TensorFlow's way of dilating
        source = resolve(source.inputs[0]).op
    if source.type == "DepthwiseConv2dNative":
        return (
            "its input is real, the sums of a depthwise convolution; write both as layers of their own, this one as "
            "QuantConv2D or QuantConv1D with input_quantizer='ste_sign', and train it like that"
        )
    outputs = {sign.output.op.name for sign in graph.signs}
    if source.type in ("Mul", "RealDiv") and any(resolve(x).op.name in outputs for x in source.inputs):
        return (
            "its input is a sign times factors (those of XNOR-Net for each pixel?), and LCE packs a convolution of "
            "bare signs; multiply by the factors behind the convolution, and train it like that"
        )
    return (
        "its input is real, or has levels that no known quantizer makes of signs (`planes`), and LCE packs a "
        "layer only if both are binary; give it input_quantizer='ste_sign', or 'dorefa_quantizer' for several "
        "bits, and train it like that"
    )
