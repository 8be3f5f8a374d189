"""Findings that LCE's converter does not report, about a model and what of it the flatbuffer holds.

The converter accepts nearly everything. A binary convolution that it does not recognise becomes a float one,
thirty-two times as large. Each of these is a named finding here; `findings` has those about a file alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from larq_rep._keras import is_revived
from larq_rep.converters import matching, reasons
from larq_rep.converters.findings import Finding
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.converters.graph import FrozenGraph, Site
from larq_rep.converters.loading import SavedFunction
from larq_rep.converters.tensors import inputs_first, laid_out
from larq_rep.quantizers.base import bases_of, binarizes, scales_channels


def audit_model(model: Any) -> list[Finding]:
    """Findings that are known before conversion."""
    if not isinstance(model, tf.keras.Model):
        if any(base.__module__.split(".")[0] == "keras" for base in type(model).__mro__):
            return [
                Finding(
                    "keras-3",
                    type(model).__name__,
                    "expected a model of tf-keras, found one of Keras 3: build it after `import larq_rep`",
                )
            ]
        raise TypeError(f"Expected a tf.keras.Model, found {type(model).__name__}.")
    if not model.built or getattr(model, "inputs", None) is None:
        return [
            Finding(
                "not-built",
                model.name,
                "it has no Input layer: give example=..., an input as it takes it (--input-size for images), or make "
                "one, x = tf.keras.Input(shape), and convert tf.keras.Model(x, model(x))",
            )
        ]
    findings = [
        Finding(
            "dynamic-size",
            name,
            f"its shape is {tuple(x.shape)}; LCE would make every free size 1: choose one with --input-size, in Python "
            "with example=..., an input of that size, or build the model with it",
        )
        for name, x in zip(model.input_names, tf.nest.flatten(model.inputs), strict=True)
        if None in x.shape[1:]
    ]
    half: dict[str, list[str]] = {}
    for layer in dict.fromkeys([*model.layers, *model.submodules]):  # in the order of the model
        if isinstance(layer, tf.keras.layers.Layer) and layer.compute_dtype in ("float16", "bfloat16", "float64"):
            half.setdefault(layer.compute_dtype, []).append(layer.name)
    for dtype, layers in half.items():
        names = ", ".join(layers[:3]) + (f" and {len(layers) - 3} more" if len(layers) > 3 else "")
        message = f"computes in {dtype}; rebuild the model with the float32 policy and load its weights"
        findings.append(Finding("mixed-precision", names, message))
    return findings


def audit_classes(graph: FrozenGraph) -> list[Finding]:
    """A finding about layers of which a SavedModel holds the graph, but no class."""
    names = dict.fromkeys(type(layer).__name__ for layer in graph.layers if is_revived(layer))
    names |= dict.fromkeys("its signature" for layer in graph.layers if isinstance(layer, SavedFunction))
    if not names:
        return []
    message = (
        f"{', '.join(names)}: the SavedModel holds the graph, but no class is registered, so only the graph was "
        "audited: layers count as binary by their values, and quantizers of several bits are not known. Register the "
        "classes before loading (larq.utils.register_keras_custom_object) to have their own word"
    )
    return [Finding("graph-only", graph.model_name, message, error=False)]


@dataclass(frozen=True)
class BinaryAudit:
    """The outcome for the binary convolutions of a model.

    # Attributes
        meant: Names of the layers that are binary by the values that flow through them.
        layers: Names, by operator index, of the layers that became `LceBconv2d`.
        findings: One for each that did not.
        packed: Nodes of the graph that became `LceBconv2d`.
        unpacked: Nodes of the graph that did not; each has a finding.
    """

    meant: list[str]
    layers: dict[int, str]
    findings: list[Finding]
    packed: set[str]
    unpacked: set[str]


def audit_binary(graph: FrozenGraph, flatbuffer: Flatbuffer, log: str = "") -> BinaryAudit:
    """Looks for every convolution with binary input and binary weights in the file.

    # Arguments
        graph: The Keras model as a graph.
        flatbuffer: The converted file.
        log: What the converter printed.
    """
    meant, kernels = meant_binary(graph)
    convolutions = [i for i, site in enumerate(meant) if site.kind == "convolution"]
    matched = matching.match([kernels[i] for i in convolutions], flatbuffer)
    layers = {op.index: meant[convolutions[position]].layer for position, op in matched.pairs.items()}
    failed = {convolutions[position] for position in matched.unmatched}
    # Equal kernels share operators, so one that stayed float may hide behind a twin that did not.
    for position in matched.pairs:
        site, kernel = meant[convolutions[position]], kernels[convolutions[position]]
        unpacked = reasons.operators_between(site, graph) or graph.sign_of(site.x) is None
        if unpacked and matching.stayed_float(kernel, flatbuffer):
            failed.add(convolutions[position])
    failed |= {i for i, site in enumerate(meant) if site.kind != "convolution"}
    findings = [
        Finding(
            "silent-float",
            site.layer,
            f"this binary {site.kind} stayed float: {reasons.why_float(site, kernel, graph, log)}",
        )
        for i, (site, kernel) in enumerate(zip(meant, kernels, strict=True))
        if i in failed
    ]
    levels = [
        (site, kernel)
        for site, kernel in zip(graph.sites, graph.kernels, strict=True)
        if site.node.name in graph.lowering.reasons and site not in meant
    ]
    findings += [
        Finding(
            "levels-float",
            site.layer,
            f"its input is a sum of signs, but it stayed float: {reasons.why_float(site, kernel, graph, log)}",
            error=False,
        )
        for site, kernel in levels
    ]
    findings += [
        Finding("misread-sign", layer, f"sign(sign(x) + {c:g}) is not -1 and +1 everywhere; use c between 0 and 1")
        for layer, c in graph.misread_signs
    ]
    return BinaryAudit(
        meant=[site.layer for site in meant],
        layers=layers,
        findings=findings,
        packed={site.node.name for i, site in enumerate(meant) if i not in failed},
        unpacked={site.node.name for site in [*(meant[i] for i in failed), *(site for site, _ in levels)]},
    )


def meant_binary(graph: FrozenGraph) -> tuple[list[Site], list[np.ndarray]]:
    """The convolutions and dense layers that were meant to be binary, and their kernels.

    The input counts as binary if a sign made it, if it is a sum of signs, or if it has two values only on random data.
    The kernel counts as binary if its layer declares a quantizer of precision 1, other than one with several scales in
    an output channel, or one that is a sum of such, or if nearly all weights of each output channel have one magnitude;
    if such a kernel cannot be packed, the reason becomes a finding.
    """
    candidates = [
        (site, kernel)
        for site, kernel in zip(graph.sites, graph.kernels, strict=True)
        if (declared_binary(graph, site.node) and scales_channels(kernel_quantizer(graph, site.node)))
        or bases_of(kernel_quantizer(graph, site.node)) is not None
        or matching.two_valued(inputs_first(site.node, kernel))
    ]
    # Values are needed only for an input that no known spelling of the sign made.
    known = graph.lowering.reasons
    unknown = [site for site, _ in candidates if site.node.name not in known and graph.sign_of(site.x) is None]
    values = graph.on_noise([laid_out(site.x) for site in unknown])
    real = {site.node.name for site, x in zip(unknown, values, strict=True) if len(np.unique(x)) != 2}
    meant = [(site, kernel) for site, kernel in candidates if site.node.name not in real]
    return [site for site, _ in meant], [kernel for _, kernel in meant]


def declared_binary(graph: FrozenGraph, node: tf.Operation) -> bool:
    """Whether the layer of a convolution or another product declares that its weights have two values."""
    return binarizes(kernel_quantizer(graph, node))


def kernel_quantizer(graph: FrozenGraph, node: tf.Operation) -> Any:
    """The quantizer of the weights of a product, if its layer has one."""
    layer = graph.layer_at(graph.layer_of(node))
    # A separable convolution has one quantizer for each of its two convolutions.
    own = "depthwise_quantizer" if node.type == "DepthwiseConv2dNative" else "pointwise_quantizer"
    return getattr(layer, own if hasattr(layer, own) else "kernel_quantizer", None)
