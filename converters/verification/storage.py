"""Checks that a file with float16 or int8 weights differs from the model's float32 file only as this allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from larq_rep.converters import float_weights, lce
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.converters.verification.result import Difference


def compare_storage(content: bytes, reference: bytes, inputs: Sequence[np.ndarray]) -> list[Difference]:
    """Differences between a file with float16 or int8 weights and the float32 file of the same model.

    A weight may differ by its rounding: to float16, or to int8 with the scale of its channel that the float32 file
    gives. Behind any other scale it must be exact, and nothing else may differ: then the proof of one file holds for
    the other. The file also runs on one run's inputs, and must give the same outputs as with unpacked weights.
    """
    expanded, bounds = float_weights.expand(content)
    found, expected = Flatbuffer(expanded), Flatbuffer(reference)

    def outline(file: Flatbuffer) -> list[Any]:
        operators = [(op.name, op.inputs, op.outputs, plain(op.options)) for op in file.operators]
        tensors = sorted({t for op in file.operators for t in (*op.inputs, *op.outputs) if t >= 0})
        return [file.inputs, file.outputs, operators, [(t, file.shape(t), file.dtype(t)) for t in tensors]]

    if outline(found) != outline(expected):
        message = "its operators are not those of a fresh conversion of the model: convert it again with this version"
        return [Difference("structure", "file", 0, message)]
    for tensor, small in float_weights.stored_constants(Flatbuffer(content)).items():
        weights = expected.constant(tensor)
        if weights is not None and small.scales is not None:
            bounds[tensor] = bounds[tensor] * small.rounds(weights)
    differences = []
    for op in expected.operators:
        for tensor in op.inputs:
            ours, theirs = expected.constant(tensor), found.constant(tensor)
            if ours is None and theirs is None:
                continue
            error = np.inf if ours is None or theirs is None else np.abs(theirs.astype(np.float64) - ours)
            bound = bounds.get(tensor, 0.0)
            if not np.all(error <= bound):  # false for NaN too
                message = (
                    f"a constant of {op.name} differs by {np.max(error):.3g} where its storage allows "
                    f"{np.max(bound):.3g}"
                )
                differences.append(Difference("weights", expected.name(tensor).split(";")[0], op.index, message))
    return differences or compare_unpacked(content, expanded, inputs)


def holds_exactly(content: bytes, reference: bytes) -> bool:
    """Whether all weights that a file stores smaller are, to the bit, weights of the float32 file of the same model."""
    expected = Flatbuffer(reference)
    weights = (expected.constant(t) for op in expected.operators for t in float_weights.weights_of(op))
    known = {_key(value) for value in weights if value is not None}
    stored = float_weights.stored_constants(Flatbuffer(content))
    return all(_key(small.dequantized()) in known for small in stored.values())


def _key(weights: np.ndarray) -> tuple[tuple[int, ...], bytes]:
    return weights.shape, (weights + 0).tobytes()  # a zero loses its sign


def compare_unpacked(content: bytes, expanded: bytes, inputs: Sequence[np.ndarray]) -> list[Difference]:
    """Compares the outputs of a file on one run's inputs with those of the same file with unpacked weights."""
    if [x.shape for x in inputs] == [Flatbuffer(content).shape(t) for t in Flatbuffer(content).inputs]:
        ours, theirs = (lce.any_interpreter(f).interpreter.predict(list(inputs)) for f in (content, expanded))
        if not all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True)):
            message = "it does not compute what it computes with its weights unpacked"
            return [Difference("output", "file", -1, message)]
    return []


def plain(options: Any) -> Any:
    """Options of an operator as values that can be compared."""
    if options is None or isinstance(options, dict):
        return options
    return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in vars(options).items()}
