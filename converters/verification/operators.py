"""Checks that each operator of LCE computes in LCE's interpreter what its definition says."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from larq_rep.converters import executor, quantized
from larq_rep.converters.flatbuffer import Flatbuffer, Operator
from larq_rep.converters.verification.result import Verification
from larq_rep.converters.verification.rounding import OPERATOR_TOLERANCE, at, relative_error


def lce_operators(flatbuffer: Flatbuffer) -> list[Operator]:
    return [op for op in flatbuffer.operators if op.name.startswith("Lce")]


def compare_operators(
    flatbuffer: Flatbuffer,
    layers: Mapping[int, str],
    index: int,
    values: Mapping[int, np.ndarray],
    result: Verification,
) -> None:
    """Compares every operator of LCE with its definition in numpy, given the input that LCE gave it.

    # Arguments
        flatbuffer: The file.
        layers: The Keras layers of its binary convolutions, by the index of the operator.
        index: Number of the image.
        values: Tensors of the file in LCE's interpreter.
        result: Gets the differences, and the proof for the engine `"lce"`.
    """
    engine, compared = result.engines["lce"], 0
    for op in lce_operators(flatbuffer):
        source, found = values[op.inputs[0]], values[op.outputs[0]]
        expected = _defined(flatbuffer, op, source)
        if expected is None:
            continue
        compared += 1
        where: tuple[int, ...]
        if found.dtype == np.float32:
            error, where = relative_error(found, expected)
            wrong = not error <= OPERATOR_TOLERANCE
        else:
            different = np.argwhere(found != expected)
            wrong, where = len(different) > 0, tuple(different[0]) if len(different) else ()
        if wrong:
            message = (
                f"{op.name} gives {at(found, where)} where its definition gives {at(expected, where)}, at "
                f"{tuple(int(i) for i in where[1:])}"
            )
            result.differ("operator", layers.get(op.index, op.name), op.index, message, index)
            engine.bit_equal = False
    engine.operators = compared


def _defined(flatbuffer: Flatbuffer, op: Operator, source: np.ndarray) -> np.ndarray | None:
    """The correct output of an operator of LCE; `None` for one without a definition here."""
    if op.name == "LceBconv2d":
        return executor.bconv2d(flatbuffer, op, source)
    if op.name == "LceQuantize":
        return executor.quantize(_signed(source, quantized.quantization(flatbuffer, op.inputs[0])))
    if op.name == "LceBMaxPool2d":
        return executor.max_pool(source, op.options)
    return None


def _signed(values: np.ndarray, stands: tuple[float, int] | None) -> np.ndarray:
    """Numbers with the signs that LceQuantize gives to a tensor's elements."""
    if values.dtype == np.bool_:
        return np.where(values, 1, -1)
    return values if stands is None else values.astype(np.int32) - stands[1]
