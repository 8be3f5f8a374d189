"""Findings that LCE's converter does not report, about a model and about the flatbuffer made from it.

The converter accepts nearly everything. A binary convolution that it does not recognise becomes a float one,
thirty-two times as large; constants of a wrong shape make a file that does not load; zero padding on a map
smaller than the filter gives wrong sums. Each of these is a named finding here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from larq_rep._keras import is_revived
from larq_rep.converters import lce, matching, reasons
from larq_rep.converters.flatbuffer import Flatbuffer, Operator
from larq_rep.converters.graph import FrozenGraph, Site
from larq_rep.converters.loading import SavedFunction
from larq_rep.converters.tensors import inputs_first, laid_out
from larq_rep.quantizers.base import bases_of, binarizes, scales_channels

RULES = {
    "keras-3": "the model is one of Keras 3; Larq and LCE need tf-keras",
    "not-built": "the model has no known input shape yet",
    "mixed-precision": "a layer computes in another type than float32",
    "graph-only": "layers of a SavedModel whose classes are not known, so that only their graph was audited",
    "dynamic-size": "an input has a free height, width or channel count",
    "symmetric-pad": "explicit padding before a strided convolution, which LCE 0.16 converts wrongly",
    "not-finite": "weights that are NaN or infinite, or that overflow",
    "converter-failed": "LCE's converter gave up",
    "silent-float": "a binary layer that stayed float",
    "levels-float": "a layer whose input has few levels, but whose weights LCE does not pack, so that it stayed float",
    "binary-weight-float": "two-valued weights not stored as bits, as their layer's input is real or LCE packs none",
    "ternary-weight-float": "weights of three values, which LCE does not pack",
    "misread-sign": "sign(sign(x) + c) where c makes it something other than a sign, though LCE takes it for one",
    "foreign-operator": "a TensorFlow operator that no TFLite runtime has",
    "constant-shape": "a multiplier, bias or threshold that is not one number for each output channel",
    "small-map": "zero padding on a map smaller than the filter, which LCE computes wrongly",
    "does-not-load": "LCE's interpreter refuses the file",
    "double-clamp": "packed output behind an activation, which the delegate of larq-rep-runtime 0.1.0 computes wrongly",
    "unknown-constants": "packed output whose thresholds an older version may have made of a wrong constant",
    "kept-float32": "weights that cannot be stored in float16 or int8",
}


_FLOAT = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing.

    # Attributes
        rule: A key of `RULES`.
        where: Keras layer, or operator of the file.
        message: What was found, what was expected and what to do.
        error: Whether the file must not be used.
    """

    rule: str
    where: str
    message: str
    error: bool = True

    def __str__(self) -> str:
        return f"{self.rule}: {self.where}: {self.message}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


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


def audit_flatbuffer(flatbuffer: Flatbuffer, content: bytes, layers: dict[int, str] | None = None) -> list[Finding]:
    """Findings about a file alone.

    # Arguments
        flatbuffer: The parsed file.
        content: Its bytes.
        layers: Names of Keras layers by operator index, where they are known.
    """
    findings = []
    foreign: dict[str, dict[str, None]] = {}
    for op in flatbuffer.operators:
        where = (layers or {}).get(op.index, f"operator {op.index} ({op.name})")
        if op.custom and not op.name.startswith("Lce"):
            foreign.setdefault(where, {})[op.name] = None
        if op.name == "LceBconv2d":
            findings += _audit_bconv(flatbuffer, op, where)
        source = flatbuffer.producers.get(op.inputs[0]) if op.inputs else None
        if layers is None and op.name in _FLOAT and source is not None and source.name == "LceDequantize":
            message = "a float operator reads -1 and +1 that are unpacked for it: meant to be binary?"
            findings.append(Finding("silent-float", where, message, error=False))
    for where, names in foreign.items():
        operators = [name for name in names if name != "Placeholder" or len(foreign) == 1]  # a lookup table's
        if not operators:
            continue
        message = (
            f"{', '.join(operators)} is not an operator of TFLite or LCE, so the file cannot run: "
            f"{reasons.instead_of(operators)}"
        )
        findings.append(Finding("foreign-operator", where, message))
    return findings if any(finding.error for finding in findings) else findings + _audit_loading(content)


def _audit_bconv(flatbuffer: Flatbuffer, op: Operator, where: str) -> list[Finding]:
    findings = []
    filters, height, width, _ = flatbuffer.shape(op.inputs[1])
    for what, tensor in zip(("multiplier", "bias", "threshold"), op.inputs[2:5], strict=False):
        if tensor >= 0 and flatbuffer.shape(tensor) != (filters,):
            findings.append(
                Finding(
                    "constant-shape",
                    where,
                    f"its {what} should have shape ({filters},), found {flatbuffer.shape(tensor)}: constants added "
                    "to or multiplied with a binary convolution must be vectors of one number for each channel",
                )
            )
    options = op.options
    if options["padding"] == 0 and options["pad_values"] == 0:
        if flatbuffer.dtype(op.outputs[0]) == "int8":
            message = (
                "LCE has no kernel for zero padding with int8 output: give the layer pad_values=1 (or 'valid' padding "
                "behind a pad before the sign), or remove the fake quantization behind it, so that its output "
                "stays float"
            )
            findings.append(Finding("does-not-load", where, message))
        _, rows, columns, _ = flatbuffer.shape(op.inputs[0])
        needs = (
            (height - 1) * options["dilation_height_factor"] + 1,
            (width - 1) * options["dilation_width_factor"] + 1,
        )
        if rows < needs[0] or columns < needs[1]:
            findings.append(
                Finding(
                    "small-map",
                    where,
                    f"zero padding needs a map of at least {needs[0]}x{needs[1]}, found {rows}x{columns}: LCE would "
                    "compute wrong sums; use a larger input or pad_values=1",
                )
            )
    return findings


def _audit_loading(content: bytes) -> list[Finding]:
    problems = {}
    for kernel, indirect in (("default", False), ("indirect", True)):
        try:
            lce.interpreter(content, use_indirect_bgemm=indirect)
        except lce.RefusedError as error:
            problems[kernel] = str(error)
    if not problems:
        return []
    message = "; ".join(f"{kernel} kernel: {problem}" for kernel, problem in problems.items())
    if len(problems) == 1:
        message += " (the other kernel runs it)"
    return [Finding("does-not-load", "file", message, error=len(problems) == 2)]


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
