"""Converts a Keras model to a bitpacked flatbuffer, and reports every problem."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import tensorflow as tf
from larq_compute_engine.mlir.python.converter import convert_graphdef_to_tflite_flatbuffer
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.types_pb2 import DataType

from larq_rep._keras import has_graph, nodes
from larq_rep.converters import (
    classifier,
    constants,
    finite,
    integer_ends,
    interface,
    lce,
    loading,
    metadata,
    quantized,
    reasons,
    standard_metadata,
)
from larq_rep.converters import float_weights as storage
from larq_rep.converters.audit import audit_binary, audit_classes, audit_model
from larq_rep.converters.control_flow import needed_for
from larq_rep.converters.findings import Finding, audit_flatbuffer
from larq_rep.converters.flatbuffer import Flatbuffer, InvalidFlatbufferError
from larq_rep.converters.folding import fold_in_place
from larq_rep.converters.graph import FrozenGraph
from larq_rep.converters.inputs import Inputs, batches, in_batches
from larq_rep.converters.int8 import Quantization, quantized_file
from larq_rep.converters.lce_graph import definition_for_lce, unknown_padding
from larq_rep.converters.unpacked import audit_unpacked
from larq_rep.images import Preparation
from larq_rep.layers import Mirror

FLOAT_WEIGHTS = get_args(storage.StorageType)


class ConversionError(ValueError):
    """A model that cannot be converted faithfully; `findings` says why."""

    def __init__(self, findings: list[Finding]):
        self.findings = findings
        super().__init__("\n".join(str(finding) for finding in findings))


@dataclass
class Report:
    """The result of a conversion.

    # Attributes
        size: Bytes of the flatbuffer.
        seconds: Time it took.
        bitpacked: Convolutions that became `LceBconv2d`.
        binary: Convolutions with binary input and binary weights, among them those that a convolution of several bits
            becomes.
        float_weights: Storage of the weights that are neither binary nor exact.
        exact: Number of weight tensors of few levels that the file holds as int8 without loss.
        exact_bytes_before: Bytes of these as float32.
        exact_bytes: Bytes that they take in the file, with their scales.
        size_float32: Bytes that the file would take with all these weights as float32.
        mirrored_input: Whether the file takes mirrored images.
        logit_change: Largest change of an output that this storage makes on four random inputs, divided by the
            largest output; 0 for float32.
        folded_away: Operators that folding left out.
        unpacked_weights: Number of two-valued weights that the file holds as numbers, not bits, because LCE packs no
            layer with a real input or of their kind.
        unpacked_bytes: Bytes that these take in the file.
        int8: What quantization to int8 did, if it was asked for.
        findings: What is worth knowing about the result.
    """

    size: int
    seconds: float
    bitpacked: int
    binary: int
    float_weights: str
    exact: int
    exact_bytes_before: int
    exact_bytes: int
    size_float32: int
    logit_change: float
    mirrored_input: bool
    folded_away: int
    unpacked_weights: int
    unpacked_bytes: int
    int8: Quantization | None = None
    findings: list[Finding] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {
            **vars(self),
            "int8": self.int8 and self.int8.to_dict(),
            "findings": [finding.to_dict() for finding in self.findings],
        }


def convert(
    model: tf.keras.Model | str | Path,
    *,
    example: Inputs | None = None,
    allow_float: bool = False,
    float_weights: str = "float32",
    exact_int8: bool = True,
    int8: Inputs | Iterable[Inputs] | None = None,
    calibration: str = "mse",
    mirrored_input: bool = False,
    fold: bool = True,
    preparation: Preparation | None = None,
    classes: Sequence[str] | None = None,
    inference_input_type: tf.DType = tf.float32,
    inference_output_type: tf.DType = tf.float32,
    target: str = "arm",
    experimental_default_int8_range: tuple[float, float] | None = None,
    progress: Callable[[Iterable[int]], Iterable[int]] = lambda x: x,
) -> tuple[bytes, Report]:
    """Converts a Keras model to a flatbuffer of Larq Compute Engine (LCE).

    The model is traced once, frozen and given to LCE's converter as a graph. The result has the operators of
    `larq_compute_engine.convert_keras_model` and the same outputs to the last bit, in a fraction of the time. Then
    constants are folded (`larq_rep.converters.fold`), which leaves the outputs equal up to float rounding. Where LCE's
    converter gets constants or padding wrong, the graph is first changed to one that it converts correctly.

    A convolution with binary weights whose input has K bits, that is, whose quantizer has `planes` (see
    `larq_rep.quantizers`), becomes K bitpacked convolutions of signs and their sum; one whose kernel is a sum of M
    binary kernels (`bases`) becomes M of them, or K M. Kernels may be larger than the 128 MiB that LCE itself folds.

    !!! example
        ```python
        model = larq_rep.zoo.RepReActNetA()
        content, report = larq_rep.converters.convert(model)
        ```

    # Arguments
        model: A Keras model, the file or folder of one (`.h5`, `.keras`, SavedModel), the folder of a run, or the name
            of a network of the zoo, see `larq_rep.converters.loading.load`. A free batch size becomes 1. A model that
            begins with Rescaling, Normalization or Resizing takes levels 0 to 255: as real numbers, or as bytes if
            its `Input` has the dtype uint8; the file's input has the type of the model's.
        example: An input as the model takes it, which a subclassed model that was never called needs, and which
            chooses the free sizes of any model. Only shapes and types matter, and not the batch.
        allow_float: Report a binary convolution that stayed float instead of raising.
        float_weights: Storage of the weights that are not binary, `"float32"`, `"float16"` or `"int8"`.
        exact_int8: Store weights of few levels, such as binary or ternary ones of a layer with a real input, as int8
            without loss (`larq_rep.converters.float_weights.compress`), whatever `float_weights` is.
        int8: Images on which the ranges of real values are measured, to compute what is not binary in int8 where that
            saves time, see `larq_rep.converters.quantize`: an array, list or dictionary as the model takes them, or an
            iterable of batches. About 100, not those on which accuracy is measured.
        calibration: How a range follows from the values: `"mse"`, `"percentile"` or `"minmax"`.
        mirrored_input: Leave out the `larq_rep.layers.Mirror` with which an imported network begins: the file then
            takes images that are mirrored already, top to bottom and left to right, which a camera may do at no cost.
            The file says so in its metadata.
        fold: Fold constants; `False` keeps the operators of LCE's converter.
        preparation: How images are prepared for the model, which the file then says; by default as the model's record
            tells, levels 0 to 255 for a model that begins with layers that scale these, otherwise nothing.
        classes: The names of its classes, in the order of its outputs; by default those of the record's data set. With
            `()` the file names none.

        inference_input_type, inference_output_type: `tf.float32`, `tf.int8` or `tf.uint8`, the type of the file's
            inputs and outputs in the place of real numbers. The scale of integers is that of the ranges on `int8`, or
            of fake quantization behind the input and at the output.
        target, experimental_default_int8_range: Further arguments of `larq_compute_engine.convert_keras_model`, of
            which only the defaults are taken; others are refused with what to do.
        progress: Wraps the loop over the images of `int8`, to show a bar.

    # Returns
        The bytes of the `.tflite` file and a `Report`.

    # Raises
        ValueError: If `float_weights` is none of these, there is no `Mirror` to leave out, `preparation` or `classes`
            do not fit the model, an input or output of integers would have no scale, or a file cannot be loaded
            (`LoadingError`).
        ConversionError: If the result would not compute what the model computes, would not run, or has binary
            convolutions that stayed float; with every finding.
    """
    if float_weights not in FLOAT_WEIGHTS:
        raise ValueError(f"float_weights should be one of {', '.join(FLOAT_WEIGHTS)}, found {float_weights!r}.")
    if int8 is not None and float_weights != "float32":
        raise ValueError(
            f"int8 has no use for float_weights={float_weights!r}: it stores the weights that it takes in 8 bits, and "
            "the others stay float32. Leave one of both out."
        )
    types = inference_input_type, inference_output_type
    _check_arguments_of_lce(*types, target, experimental_default_int8_range)
    start = time.perf_counter()
    model = loading.load(model, example)
    if findings := audit_model(model):
        raise ConversionError(findings)
    given, names, network = model, interface.Interface.of(model), model.name
    preparation, classes = classifier.known_images(model, preparation, classes)
    if mirrored_input:
        model = without_mirror(model)
    graph = _traced(model)
    _refuse(graph)
    if int8 is not None and (rounding := quantized.fake_quantizers(graph)):
        raise ValueError(
            f"int8: {network} says itself what is in 8 bits and with which ranges, by the fake quantization in "
            f"{graph.layer_of(rounding[0])}: leave int8 out, the file computes so without it. To have other ranges "
            "measured, take the fake quantization out of the model."
        )
    flatbuffer, content, log, findings = _by_lce(graph)
    findings += audit_classes(graph)
    binary = audit_binary(graph, flatbuffer, log)
    for finding in binary.findings:
        findings.append(Finding(**{**vars(finding), "error": finding.error and not allow_float}))
    findings += audit_flatbuffer(flatbuffer, content, binary.layers | _foreign_layers(graph, flatbuffer))
    # The planes of one convolution have the same.
    findings = list(dict.fromkeys(findings))
    if any(finding.error for finding in findings):
        raise ConversionError([finding for finding in findings if finding.error])
    operators = len(flatbuffer.operators)
    if fold:
        fold_in_place(flatbuffer, int8=int8 is not None)
    folded_away = operators - len(flatbuffer.operators)
    if overflows := finite.audit_constants(flatbuffer, graph):
        raise ConversionError(overflows)
    quantization = None
    if int8 is not None:
        runs = in_batches(int8, len(given.inputs), lambda batch: batches(batch, given, graph))
        if mirrored_input:
            runs = [[np.ascontiguousarray(x[:, ::-1, ::-1]) for x in arrays] for arrays in runs]
        content, quantization = quantized_file(flatbuffer.pack(), runs, calibration, *types, progress)
        flatbuffer = Flatbuffer(content)
    rounded, change = float_weights != "float32", 0.0
    reference = flatbuffer.pack() if rounded else b""
    stored = storage.compress_in_place(flatbuffer, cast(storage.StorageType, float_weights), exact=exact_int8)
    if rounded:
        change = logit_change(reference, flatbuffer.pack())
        findings += _kept_float32(stored)
    exact = [constant for constant in stored if constant.exact]
    unpacked = audit_unpacked(graph, binary, stored, exact_int8)
    if int8 is None:
        integer_ends.set_types(flatbuffer, *types)
    interface.attach(flatbuffer, names)
    metadata.add_values(flatbuffer, metadata.of_network(network, preparation, classes, mirrored_input))
    standard_metadata.add(flatbuffer, network, preparation, classes)
    content = flatbuffer.pack()
    failed = sum(1 for finding in binary.findings if finding.where in binary.meant)
    report = Report(
        size=len(content),
        seconds=time.perf_counter() - start,
        bitpacked=len(binary.meant) - failed,
        binary=len(binary.meant),
        float_weights=float_weights,
        exact=len(exact),
        exact_bytes_before=sum(constant.bytes_before for constant in exact),
        exact_bytes=sum(constant.bytes_after for constant in exact),
        size_float32=len(content) + sum(constant.bytes_before - constant.bytes_after for constant in stored),
        logit_change=change,
        mirrored_input=mirrored_input,
        folded_away=folded_away,
        unpacked_weights=unpacked.weights,
        unpacked_bytes=unpacked.bytes,
        int8=quantization and dataclasses.replace(quantization, size_after=len(content)),
        findings=findings + unpacked.findings,
    )
    return content, report


def convert_keras_model(model: tf.keras.Model | str | Path, **how: Any) -> bytes:
    """The file of `convert`, in the place of `larq_compute_engine.convert_keras_model`: findings become warnings."""
    content, report = convert(model, **how)
    for finding in report.findings:
        warnings.warn(str(finding), stacklevel=2)
    return content


def _check_arguments_of_lce(
    input_type: tf.DType, output_type: tf.DType, target: str, default_range: tuple[float, float] | None
) -> None:
    """Refuses arguments of LCE's converter that have no meaning here."""
    theirs = "larq_compute_engine.convert_keras_model"
    integer_ends.check_types(input_type, output_type)
    if target == "xcore":
        raise ValueError(
            f"target: files for xcore are not made here, as nothing here could prove or run them: use {theirs} with "
            "target='xcore', or leave it out for 'arm', which is for x86 as well."
        )
    if target != "arm":
        raise ValueError(f"target should be 'arm', which is for x86 as well, found {target!r}.")
    if default_range is not None:
        raise ValueError(
            "experimental_default_int8_range: with one range for all tensors a file does not compute what the model "
            f"does. Give images, int8=images, or train with fake quantization; {theirs} makes such files to time them."
        )


def without_mirror(model: tf.keras.Model) -> tf.keras.Model:
    """The model without its `Mirror`, which takes mirrored images.

    # Raises
        ValueError: If it does not begin with one.
    """
    # Its call in this model: there may be others of other sizes.
    calls = nodes(model) if has_graph(model) else ()
    mirror = next((node for node in calls if isinstance(node.layer, Mirror)), None)
    if mirror is None or mirror.keras_inputs[0] is not model.input:
        raise ValueError(
            f"mirrored_input: {model.name} does not begin with a Mirror layer, so it takes images as they are. Only "
            "the networks of imported PyTorch checkpoints do."
        )
    return tf.keras.Model(mirror.outputs, model.output, name=model.name)


def logit_change(reference: bytes, content: bytes) -> float:
    """Largest change of an output between two files on four random inputs, over the largest output."""
    engines = [lce.interpreter(c, use_indirect_bgemm=True) for c in (reference, content)]
    rng = np.random.default_rng(0)
    changes = []
    for _ in range(4):
        inputs = [
            rng.standard_normal(shape).astype(dtype)
            if np.dtype(dtype).kind == "f"
            else rng.integers(0, 128, shape, dtype)
            for shape, dtype in zip(engines[0].input_shapes, engines[0].input_types, strict=True)
        ]
        before, after = (engine.interpreter.predict(inputs) for engine in engines)
        for a, b in zip(after, before, strict=True):
            largest = float(np.abs(b).max())
            changes.append(float(np.abs(a - b).max()) / largest if largest else float(np.abs(a).max()))
    return max(changes)


def _traced(model: tf.keras.Model) -> FrozenGraph:
    try:
        return FrozenGraph(model)
    # The code of a layer may raise anything.
    except Exception as error:
        message = f"it cannot be computed in inference at a batch size of 1: {type(error).__name__}: {error}"
        raise ConversionError([Finding("converter-failed", model.name, message)]) from error


def _refuse(graph: FrozenGraph) -> None:
    """Raises if no LCE file can hold the graph."""
    if control_flow := reasons.why_control_flow(graph):
        raise ConversionError([Finding("converter-failed", layer, why) for layer, why in control_flow.items()])
    if findings := finite.audit_weights(graph):
        raise ConversionError(findings)
    if layers := unknown_padding(graph):
        message = "strided behind explicit padding whose amounts are computed; use constants, or padding='same'"
        raise ConversionError([Finding("symmetric-pad", layer, message) for layer in layers])


def _by_lce(graph: FrozenGraph) -> tuple[Flatbuffer, bytes, str, list[Finding]]:
    """The file of LCE's converter, its bytes, the converter's output, and findings about what was changed for it."""
    graph_def, trimmed = definition_for_lce(graph)
    kept = constants.settle(graph, graph_def)
    content, log = _convert_graph(graph, graph_def, kept)
    try:
        flatbuffer = Flatbuffer(content)
    except InvalidFlatbufferError as error:
        raise ConversionError([Finding("converter-failed", graph.model_name, str(error))]) from error
    if kept:
        constants.drop_outputs(flatbuffer, len(graph.outputs))
        content = flatbuffer.pack()
    message = "the padding that no window reads was left out"
    return flatbuffer, content, log, [Finding("symmetric-pad", layer, message, error=False) for layer in trimmed]


def _kept_float32(stored: Sequence[storage.CompressedConstant]) -> list[Finding]:
    """Findings about large weights that should be stored smaller but cannot be."""
    return [
        Finding("kept-float32", f"weights of shape {constant.shape}", constant.reason, error=False)
        for constant in stored
        if constant.storage == "float32" and constant.bytes_before >= 1024
    ]


def _foreign_layers(graph: FrozenGraph, flatbuffer: Flatbuffer) -> dict[int, str]:
    """The layers of TensorFlow operators that the converter passed on, by the index of the operator in the file."""
    found: dict[int, str] = {}
    for name in {op.name for op in flatbuffer.operators if op.custom and not op.name.startswith("Lce")}:
        layers = dict.fromkeys(graph.layer_of(node) for node in graph.nodes if node.type == name)
        if layers:
            found |= {op.index: ", ".join(layers) for op in flatbuffer.operators if op.name == name}
    return found


def _convert_graph(graph: FrozenGraph, graph_def: GraphDef, kept: list[str]) -> tuple[bytes, str]:
    """The flatbuffer, with the nodes `kept` as further outputs, and what the converter printed."""
    try:
        return _converted(graph, graph_def, [*map(_output_name, graph.outputs), *kept])
    except _ConverterError as error:
        where, culprit = _culprit(graph, graph_def, kept)
        at = f" at its operator {culprit}; write the layer with others" if culprit else ""
        message = f"LCE's converter gives up{at}. It said: {error}"
        raise ConversionError([Finding("converter-failed", where, message)]) from error


class _ConverterError(ValueError):
    """The error and the output of LCE's converter."""


def _output_name(tensor: tf.Tensor) -> str:
    return tensor.name.removesuffix(":0")


def _converted(graph: FrozenGraph, graph_def: GraphDef, outputs: list[str]) -> tuple[bytes, str]:
    failure: Exception | None = None
    with lce.standard_error() as log:
        try:
            content = convert_graphdef_to_tflite_flatbuffer(
                graph_def.SerializeToString(),
                [x.op.name for x in graph.inputs],
                [DataType.Name(x.dtype.as_datatype_enum) for x in graph.inputs],
                [x.shape.as_list() for x in graph.inputs],
                outputs,
                any("FakeQuant" in node.op or "QuantizeAndDequantize" in node.op for node in graph_def.node),
                "arm",
                None,
            )
        except Exception as error:
            failure = error
    messages = [line for line in log if " I " not in line and not line.startswith(("I0000", "To enable"))]
    if failure is not None:
        raise _ConverterError("\n".join([str(failure), *messages])) from failure
    return content, "\n".join(messages)


def _culprit(graph: FrozenGraph, graph_def: GraphDef, kept: list[str]) -> tuple[str, str]:
    """Layer and type of the first operator at which the converter fails; the model if no single one is at fault."""
    nodes = [node for node in graph.nodes if node.name in graph.data_dependent and node.outputs]
    inputs = [x.op.name for x in graph.inputs]
    sources = {node.name: node.input[0].partition(":")[0] for node in graph_def.node if node.name in kept}
    low, high = 0, len(nodes)
    while low < high:
        middle = (low + high) // 2
        there = {node.name for node in needed_for(graph_def, [*inputs, nodes[middle].name]).node}
        outputs = [_output_name(nodes[middle].outputs[0]), *(name for name in kept if sources[name] in there)]
        try:
            _converted(graph, needed_for(graph_def, [*inputs, nodes[middle].name, *outputs[1:]]), outputs)
            low = middle + 1
        except _ConverterError:
            high = middle
    return (graph.layer_of(nodes[low]), nodes[low].type) if low < len(nodes) else (graph.model_name, "")
