r"""Turns convolutions of quantized maps into convolutions of signs, which LCE packs.

A map of several levels is a sum of K planes of signs, \\(q = o + \sum_j c_j n_j\\), and a kernel may be a sum of M
binary ones, \\(W = \sum_i a_i B_i\\) with a number \\(a_i\\) for each filter. Convolution is linear, so

\\[
W * q = \sum_{i,j} a_i c_j (B_i * n_j) + o \sum_i a_i \sum B_i
\\]

with K M convolutions of signs; the numbers stand behind them, where LCE makes them multipliers and biases. Where zeros
pad the map, +1 pads its signs if \\(o + \sum_j c_j = 0\\), and 0 if \\(o = 0\\): borders are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import graph_pb2
from tensorflow.core.framework.node_def_pb2 import NodeDef

from larq_rep.converters.graph_copy import GraphCopy
from larq_rep.converters.marks import BASES, PLANES, mark_of
from larq_rep.converters.sign_patterns import binary_activation
from larq_rep.converters.tensors import (
    LAYOUT,
    PADS,
    PASS_THROUGH,
    Weights,
    constant_value,
    operands,
    resolve,
    unpadded,
)

# Operators behind which a map has the same levels.
_REARRANGING = (
    *(*PADS, *LAYOUT, "SpaceToBatchND", "StridedSlice", "Slice", "GatherV2", "Tile", "ReverseV2", "MaxPool", "Relu"),
    *("ConcatV2", "Split", "SplitV", "ResizeNearestNeighbor", "SpaceToDepth", "DepthToSpace"),
)
# How far the sum of float32 coefficients may be from 0, and the magnitudes of the weights of a filter apart.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Planes:
    """A quantized map.

    # Attributes
        levels: Name of the tensor of its values.
        offset: The offset o.
        signs: Names of the tensors n.
        coefficients: The numbers c.
    """

    levels: str
    offset: float
    signs: list[str]
    coefficients: list[float]

    @property
    def padding(self) -> int | None:
        """What pads the signs where 0 pads the map; `None` if it is neither +1 nor 0."""
        allowed = _ROUNDING * max(map(abs, self.coefficients))
        if abs(self.offset + sum(self.coefficients)) <= allowed:
            return 1
        return 0 if abs(self.offset) <= allowed else None


@dataclass
class Lowering:
    """A graph whose convolutions of quantized maps are convolutions of signs.

    # Attributes
        definition: The graph.
        original: The graph before.
        results: The quantized map that each replaced convolution reads, by the name of the node that gives its result
            in both graphs; `None` for a plain sign, where only the kernel is a sum.
        reasons: Why another layer that reads a quantized map stays as it is, by the name of its node; empty if it is
            of another kind than those that LCE packs, or has other weights.
    """

    definition: graph_pb2.GraphDef
    original: graph_pb2.GraphDef
    results: dict[str, Planes | None] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


def lower(definition: graph_pb2.GraphDef, inputs: Sequence[str], weights: Weights, products: Sequence[str]) -> Lowering:
    """Rewrites each convolution of a marked map, or of a sign and a marked kernel, and removes the marks.

    # Arguments
        definition: The frozen graph.
        inputs: Names of its input nodes.
        weights: Its large weights.
        products: Types of the nodes that multiply data and a kernel.
    """
    result = Lowering(definition, definition)
    if not any(mark_of(node) for node in definition.node):
        return result
    rewriting = _Rewriting(definition, inputs, weights)
    result.definition = rewriting.definition
    for node in rewriting.graph.get_operations():
        if node.type in products and node.name in rewriting.data_dependent:
            try:
                if rewriting.concerns(node):
                    name, planes = rewriting.lower(node)
                    result.results[name] = planes
            except _NotLoweredError as reason:
                result.reasons[node.name] = str(reason)
    for mark in result.definition.node:
        if mark_of(mark):
            dtype = mark.attr["T"].list.type[0]
            mark.op = "Identity"
            mark.attr.clear()
            mark.attr["T"].type = dtype
            del mark.input[1:]
    return result


class _NotLoweredError(Exception):
    """Why a layer stays as it is."""


@dataclass(frozen=True)
class _Window:
    """Where a convolution reads a map.

    # Attributes
        result: The node that gives its result.
        padding: Rows before and after, and columns.
        as_same: Whether `padding="same"` gives these.
        dilations: Distances of the taps.
    """

    result: tf.Operation
    padding: list[list[int]]
    as_same: bool
    dilations: list[int]


class _Rewriting(GraphCopy):
    """Replaces convolutions in a copy of a graph with marks."""

    def concerns(self, node: tf.Operation) -> bool:
        """Whether a product reads a marked map, or a sign and a marked kernel."""
        data, kernel = operands(node)
        if kernel.op.name in self.data_dependent:
            return False
        if mark_of(_route(data)[0].op) == PLANES:
            return True
        return mark_of(_route(kernel)[0].op) == BASES and binary_activation(unpadded(data).op) is not None

    def lower(self, node: tf.Operation) -> tuple[str, Planes | None]:
        """Replaces a convolution; returns the name of the node that gives its result, and the map that it reads."""
        data, kernel = operands(node)
        if node.type != "Conv2D" or node.get_attr("data_format") != b"NHWC":
            raise _NotLoweredError
        bases = self._bases(kernel)
        if data.shape[-1] != kernel.shape[2] and kernel.shape[2] % 32:
            raise _NotLoweredError
        convolution = NodeDef()
        convolution.CopyFrom(self._nodes[node.name])
        convolution.attr.pop("_output_shapes", None)
        levels, between = _route(data)
        planes, result = None, node
        offset, coefficients, signs = 0.0, [1.0], [convolution.input[0]]
        if mark_of(levels.op) == PLANES:
            planes, window = self._planes(levels), _window(node, levels, between)
            offset, coefficients, result = planes.offset, planes.coefficients, window.result
            signs = self._padded(convolution, planes, window)
        terms = []
        for i, (scale, weights) in enumerate(bases):
            kernel_name = self._constant(f"{node.name}/kernel_{i}", weights)
            for j, (coefficient, sign) in enumerate(zip(coefficients, signs, strict=True)):
                term = self.definition.node.add()
                term.CopyFrom(convolution)
                term.name = f"{node.name}/signs_{i}_{j}"
                term.input[:] = [sign, kernel_name]
                factor = self._constant(f"{node.name}/factor_{i}_{j}", (coefficient * scale).astype(np.float32))
                terms.append(self._add("Mul", f"{node.name}/scaled_{i}_{j}", term.name, factor))
        constant = sum(offset * scale * weights.sum(axis=(0, 1, 2)) for scale, weights in bases)
        if np.any(constant):
            # First, so that LCE makes it a bias.
            constant_name = self._constant(f"{node.name}/constant", constant.astype(np.float32))
            terms[0] = self._add("AddV2", f"{node.name}/biased", terms[0], constant_name)
        total, *others = terms
        for number, term in enumerate(others):
            total = self._add("AddV2", f"{node.name}/sum_{number}", total, term)
        replaced = self._nodes[result.name]
        replaced.op, replaced.input[:] = "Identity", [total]
        replaced.attr.clear()
        replaced.attr["T"].type = tf.float32.as_datatype_enum
        return result.name, planes

    def _bases(self, kernel: tf.Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
        """The number of each filter, and the signs, of the binary kernels that a kernel is the sum of."""
        filters = kernel.shape[-1]
        source, between = _route(kernel)
        if mark_of(source.op) == BASES and all(op.type == "Reshape" for op in between):
            values = self._session.run(list(source.op.inputs)[1:])
            pairs = [*zip(values[::2], values[1::2], strict=True)]
            if any(np.size(scale) not in (1, filters) for scale, _ in pairs):
                raise _NotLoweredError("the `bases` of its kernel need one number each, or one for each filter")
            if any(signs.shape != source.shape or np.any(np.abs(signs) != 1) for _, signs in pairs):
                raise _NotLoweredError("the `bases` of its kernel are not all -1 and +1 in the shape of the kernel")
            shape = kernel.shape.as_list()
            pairs = [(scale, signs.reshape(shape)) for scale, signs in pairs]
        else:
            weights = self._session.run(kernel)
            magnitude = np.abs(weights.reshape(-1, weights.shape[-1])).astype(np.float64)
            mean = magnitude.mean(axis=0)
            # A single weight has a magnitude of its own, so it is binary only if it is a sign.
            single = len(magnitude) < 2 and np.any(mean != 1)
            if single or not np.isfinite(mean).all() or np.any(np.abs(magnitude - mean) > _ROUNDING * mean):
                raise _NotLoweredError
            pairs = [(mean, weights)]
        return [
            (np.broadcast_to(np.reshape(scale, -1), filters).astype(np.float64), np.where(signs < 0, -1, 1).astype("f"))
            for scale, signs in pairs
        ]

    def _planes(self, levels: tf.Tensor) -> Planes:
        _, offset, *parts = levels.op.inputs
        numbers, signs = [offset, *parts[::2]], [resolve(x) for x in parts[1::2]]
        if any(x.op.name in self.data_dependent for x in numbers):
            raise _NotLoweredError("the levels of its quantizer depend on the data")
        if any(binary_activation(x.op) is None for x in signs):
            raise _NotLoweredError("its quantizer writes its planes in a form that LCE does not take for signs")
        if any(x.shape.num_elements() != 1 for x in numbers):
            raise _NotLoweredError("the `planes` of its quantizer need one number each, the same for all channels")
        if not signs or any(x.shape != levels.shape for x in signs):
            raise _NotLoweredError("the `planes` of its quantizer are no signs in the shape of its input")
        first, *others = (float(np.reshape(x, ())) for x in self._session.run(numbers))
        return Planes(levels.name, first, [x.name for x in signs], others)

    def _padded(self, convolution: NodeDef, planes: Planes, window: _Window) -> list[str]:
        """The planes as a convolution reads them, with what stands for 0 around them; sets how it pads and dilates."""
        signs = [name.removesuffix(":0") for name in planes.signs]
        convolution.attr["dilations"].list.i[:] = [1, *window.dilations, 1]
        convolution.attr["padding"].s = b"VALID"
        convolution.attr["explicit_paddings"].list.i[:] = []
        if not np.any(window.padding):
            return signs
        if planes.padding is None:
            raise _NotLoweredError("zeros pad the map, and are no level of its quantizer; use padding='valid'")
        if planes.padding == 0:
            if not window.as_same:
                raise _NotLoweredError(
                    "its zero padding is explicit, and LCE packs that of padding='same' only; use that or 'valid', and "
                    "in a transposed layer a kernel of the size of its strides"
                )
            convolution.attr["padding"].s = b"SAME"
            return signs
        prefix = f"{convolution.name}/padding"
        amounts = self._constant(f"{prefix}/amounts", np.array([[0, 0], *window.padding, [0, 0]], np.int32))
        one = self._constant(f"{prefix}/one", np.float32(1))
        padded = []
        for j, sign in enumerate(signs):
            name = self._add("PadV2", f"{prefix}/{j}", sign, amounts, one)
            self.definition.node[-1].attr["Tpaddings"].type = tf.int32.as_datatype_enum
            if not window.as_same:
                # LCE takes other amounts for those of 'same', or makes a float convolution, unless a sign follows.
                name = self._signed_again(name)
            padded.append(name)
        return padded


def _route(tensor: tf.Tensor) -> tuple[tf.Tensor, list[tf.Operation]]:
    """The tensor behind operators that only rearrange values, up to a mark, and these operators, the last first."""
    between = []
    while not mark_of(tensor.op):
        if tensor.op.type in _REARRANGING:
            first, *others = _sources(tensor.op)
            if any(mark_of(_route(x)[0].op) != PLANES for x in others):
                break
            between.append(tensor.op)
            tensor = first
        elif tensor.op.type in PASS_THROUGH:
            tensor = tensor.op.inputs[tensor.value_index]
        else:
            break
    return tensor, between


def _sources(node: tf.Operation) -> list[tf.Tensor]:
    """The tensors whose values an operator rearranges."""
    match node.type:
        case "ConcatV2":
            return list(node.inputs)[:-1]
        case "Split":
            return [node.inputs[1]]
    return [node.inputs[0]]


def _window(node: tf.Operation, levels: tf.Tensor, between: list[tf.Operation]) -> _Window:
    """Where a convolution reads a map behind operators."""
    result, dilations = node, node.get_attr("dilations")[1:3]
    padding = np.zeros((2, 2), np.int64)
    if between and between[0].type == "SpaceToBatchND":  # how TensorFlow dilates
        dilation, *between = between
        block, amounts = map(constant_value, dilation.inputs[1:])
        readers = node.outputs[0].consumers()
        if block is None or amounts is None or [reader.type for reader in readers] != ["BatchToSpaceND"]:
            raise _NotLoweredError("its dilation is not known")
        (result,) = readers
        padding, dilations = padding + amounts - constant_value(result.inputs[2]), [int(b) for b in block]
    for op in between:
        amounts = constant_value(op.inputs[1]) if op.type in ("Pad", "PadV2") else None
        filled = constant_value(op.inputs[2]) if op.type == "PadV2" else 0
        if amounts is None or amounts.shape != (4, 2) or amounts[[0, 3]].any():
            raise _NotLoweredError(
                f"{op.type} stands between the quantizer and the convolution; put it before the quantizer"
            )
        if filled != 0:
            raise _NotLoweredError("its quantized input is padded with other numbers than 0; use pad_values=0")
        padding += amounts[1:3]
    sizes, strides = levels.shape.as_list()[1:3], node.get_attr("strides")[1:3]
    windows = [(k - 1) * d + 1 for k, d in zip(node.inputs[1].shape[:2], dilations, strict=True)]
    own = node.get_attr("padding")
    if own == b"SAME":
        padding += same_padding([size + sum(p) for size, p in zip(sizes, padding, strict=True)], windows, strides)
    elif own == b"EXPLICIT":
        padding += np.reshape(node.get_attr("explicit_paddings")[2:6], (2, 2))
    as_same = np.array_equal(padding, same_padding(sizes, windows, strides))
    return _Window(result, padding.tolist(), as_same, dilations)


def same_padding(sizes: Sequence[int], windows: Sequence[int], strides: Sequence[int]) -> np.ndarray:
    """The rows and columns, before and after, that `padding="same"` adds."""
    totals = [
        max((-(-size // stride) - 1) * stride + window - size, 0)
        for size, window, stride in zip(sizes, windows, strides, strict=True)
    ]
    return np.array([[total // 2, total - total // 2] for total in totals])
