"""Pairs the integers of the file with the model's rounding to 8 bits, and compares the values that are rounded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from larq_rep.converters import quantized
from larq_rep.converters.verification.forced import ForcedModel
from larq_rep.converters.verification.image import Image
from larq_rep.converters.verification.result import Verification
from larq_rep.converters.verification.rounding import TOLERANCE, Rounding, at, relative_error
from larq_rep.converters.verification.upstream import Upstream


def integers(model: ForcedModel) -> list[int]:
    """Tensors of the file that stand for real numbers, if the model rounds any."""
    flatbuffer = model.flatbuffer
    return [
        tensor
        for tensor in sorted({*flatbuffer.inputs, *flatbuffer.producers})
        if model.fake and quantized.quantization(flatbuffer, tensor) is not None
    ]


def pair_integers(
    model: ForcedModel,
    tensors: Sequence[int],
    inputs: Sequence[np.ndarray],
    values: dict[int, np.ndarray],
    result: Verification,
) -> None:
    """Sets `model.stored`: the integers that each rounding became, one after the other, found by their values."""
    for name, node in model.fake.items():
        expected = model.run(inputs, values, [node.outputs[0]]).values[name]
        apart = {}
        for tensor in tensors:
            if values[tensor].size == expected.size:
                found = quantized.real(model.flatbuffer, tensor, values[tensor]).reshape(expected.shape)
                apart[tensor] = float(np.abs(found - expected).mean())
        if apart:
            model.stored[name] = min(apart, key=lambda t: apart[t])
        else:
            result.notes.append(f"{model.graph.layer_of(node)}: its rounding stayed out of the file")


def compare_integers(
    model: ForcedModel, image: Image, rounding: Rounding, upstream: Upstream, result: Verification
) -> None:
    """Compares the integers of the file with the values that the model is about to round."""
    flatbuffer = model.flatbuffer
    for name, tensor in model.stored.items():
        front, noise = model.fake[name].inputs[0], image.noise(tensor)
        expected = quantized.in_range(flatbuffer, tensor, image.forced.values[front.name])
        found = quantized.real(flatbuffer, tensor, image.values[tensor]).reshape(expected.shape)
        error, where = relative_error(found, expected, 1.0)
        largest = rounding.magnitude(front, image.peaks) + float(np.abs(expected).max())
        if tensor in flatbuffer.inputs or error <= noise + TOLERANCE * largest:  # false for NaN
            continue
        message = (
            f"in front of its rounding the model has {at(expected, where)}, the file {at(found, where)} at "
            f"{tuple(int(i) for i in where[1:])}, where rounding explains {noise:.2g}, computed since the last "
            f"comparison by {upstream.layers(front)}"
        )
        operator = flatbuffer.producers[tensor].index
        result.differ("quantization", model.graph.layer_of(model.fake[name]), operator, message, image.index)
