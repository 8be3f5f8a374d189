"""Compares the outputs, and measures how far off an ordinary run of the model is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from larq_rep.converters import quantized
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.converters.graph import FrozenGraph
from larq_rep.converters.inputs import IncomparableError
from larq_rep.converters.tensors import resolve
from larq_rep.converters.verification.forced import ForcedModel
from larq_rep.converters.verification.image import Image
from larq_rep.converters.verification.result import Verification
from larq_rep.converters.verification.rounding import OUTPUT_TOLERANCE, at, relative_error
from larq_rep.converters.verification.upstream import Upstream

_SATURATING = {"Softmax": "SOFTMAX", "Sigmoid": "LOGISTIC", "Tanh": "TANH"}


def check_interfaces(graph: FrozenGraph, flatbuffer: Flatbuffer) -> None:
    """Checks that the file has the inputs and outputs of the model.

    # Raises
        IncomparableError: If it does not.
    """
    for what, theirs, ours in (
        ("input", flatbuffer.inputs, graph.inputs),
        ("output", flatbuffer.outputs, graph.outputs),
    ):
        found = [flatbuffer.shape(t) for t in theirs]
        expected = [tuple(x.shape.as_list()) for x in ours]
        if len(found) != len(expected) or not all(map(_fits, found, expected)):
            raise IncomparableError(
                f"The file has {what} shapes {found}, the model {expected}: it was made from another network."
            )
    for tensor, x in zip(flatbuffer.inputs, graph.inputs, strict=True):
        stored = x.dtype.is_floating and quantized.quantization(flatbuffer, tensor) is not None
        if flatbuffer.dtype(tensor) != x.dtype.name and not stored:
            raise IncomparableError(
                f"The file takes {flatbuffer.dtype(tensor)}, the model {x.dtype.name}: it was made from "
                "another network."
            )


def compared_outputs(graph: FrozenGraph, flatbuffer: Flatbuffer) -> list[tuple[tf.Tensor, int]]:
    """The outputs of the model and of the file, and also the values in front of an output activation that saturates."""
    outputs = list(zip(graph.outputs, flatbuffer.outputs, strict=True))
    for output, tensor in tuple(outputs):
        node, producer = resolve(output).op, flatbuffer.producers.get(tensor)
        if producer is not None and _SATURATING.get(node.type) == producer.name:
            outputs.append((node.inputs[0], producer.inputs[0]))
    return outputs


def compare_outputs(
    outputs: Sequence[tuple[tf.Tensor, int]],
    model: ForcedModel,
    image: Image,
    upstream: Upstream,
    result: Verification,
) -> None:
    """Compares the outputs of the file with those of the model run with the file's bits."""
    for output, tensor in outputs:
        expected = image.forced.values[output.name]
        found = quantized.real(model.flatbuffer, tensor, image.values[tensor])
        error, where = relative_error(found, expected)
        noise = image.noise(tensor) / (float(np.abs(expected).max()) or 1.0)
        if not error <= OUTPUT_TOLERANCE + noise:
            error, where = relative_error(found, expected, explained=image.moved(tensor))
        result.output_error = max(result.output_error, error)
        result.engines["lce"].output_error = result.output_error
        if not error <= OUTPUT_TOLERANCE + noise:
            message = (
                f"model {at(expected, where)}, file {at(found, where)} at {where[1:]}, made "
                f"since the last sign by {upstream.layers(output)}"
            )
            result.differ("output", model.graph.layer_of(resolve(output).op), -1, message, image.index)


def compare_prediction(model: ForcedModel, image: Image, inputs: Sequence[np.ndarray], result: Verification) -> None:
    """Measures by how much an ordinary run of the model differs."""
    expected = model.graph.run(model.graph.outputs, dict(zip(model.graph.inputs, inputs, strict=True)))
    found = [quantized.real(model.flatbuffer, t, image.values[t]) for t in model.flatbuffer.outputs]
    apart = max(relative_error(a, b)[0] for a, b in zip(found, expected, strict=True))
    result.predict_error = max(result.predict_error, apart)


def _fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    return len(shape) == len(expected) and all(b in (a, None) for a, b in zip(shape, expected, strict=True))
