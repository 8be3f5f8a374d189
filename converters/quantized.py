"""Integers of a file that stand for real numbers, and the errors of rounding to them.

A model says with fake quantization (`tf.quantization.fake_quant_*`, `quantize_and_dequantize`) where LCE must compute
with 8 bits: real = scale * (integer - zero point).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from larq_rep.converters.flatbuffer import Flatbuffer, Operator

if TYPE_CHECKING:
    import tensorflow as tf

    from larq_rep.converters.graph import FrozenGraph

_FAKE = ("FakeQuantWithMinMax", "QuantizeAndDequantize")
_INTEGERS = ("int8", "uint8", "int16")
# Operators of 8 bits that sum products: their weights are rounded, their sums are not.
_SUMS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
# Operators that round once, like the model, and those that only pass numbers on.
_EXACT = ("QUANTIZE", "LceBconv2d", "RESHAPE", "TRANSPOSE", "MAX_POOL_2D", "PAD", "PADV2", "STRIDED_SLICE", "SLICE")


def fake_quantizers(graph: FrozenGraph) -> list[tf.Operation]:
    """The nodes that round values that depend on the inputs, in execution order."""
    return [node for node in graph.nodes if node.type.startswith(_FAKE) and node.name in graph.data_dependent]


def quantization(flatbuffer: Flatbuffer, tensor: int) -> tuple[float, int] | None:
    """Scale and zero point of a tensor of integers; None if they stand for themselves, or channels have their own."""
    found = flatbuffer.subgraph.tensors[tensor].quantization
    if flatbuffer.dtype(tensor) not in _INTEGERS or found is None or found.scale is None or len(found.scale) != 1:
        return None
    return float(found.scale[0]), int(found.zeroPoint[0]) if found.zeroPoint is not None else 0


def real(flatbuffer: Flatbuffer, tensor: int, values: np.ndarray) -> np.ndarray:
    """Values of a tensor as the real numbers that they stand for, or as they are."""
    stands = quantization(flatbuffer, tensor)
    if stands is None:
        return values
    scale, zero = stands
    return ((values.astype(np.int32) - zero) * np.float32(scale)).astype(np.float32)


def integers(flatbuffer: Flatbuffer, tensor: int, values: np.ndarray) -> np.ndarray:
    """Real numbers as the nearest integers of a tensor, or as they are if it has none."""
    stands = quantization(flatbuffer, tensor)
    if stands is None or values.dtype.kind != "f":
        return values
    info, (step, zero) = np.iinfo(flatbuffer.dtype(tensor)), stands
    return np.clip(np.round(values / np.float32(step)) + zero, info.min, info.max).astype(info.dtype)


def in_range(flatbuffer: Flatbuffer, tensor: int, values: np.ndarray) -> np.ndarray:
    """Real numbers clipped to the range of a tensor's integers."""
    info = np.iinfo(flatbuffer.dtype(tensor))
    low, high = (real(flatbuffer, tensor, np.array(end)) for end in (info.min, info.max))
    return np.clip(values, low, high)


def noise(flatbuffer: Flatbuffer, tensor: int, known: set[int], values: dict[int, np.ndarray]) -> float:
    """How far rounding to 8 bits may move a tensor, starting from the tensors whose values are known.

    A weight of step s is wrong by up to s / 2, independently of the others: the sum of n of them, times x, by s *
    norm(x) / sqrt(12) in the root mean square, and never by six times that. The rounding of the result adds half a
    step, and so does each operator that rounds in between.
    """
    found = 0.0
    for op, first in _behind(flatbuffer, tensor, known):
        stands = quantization(flatbuffer, op.outputs[0])
        if stands is not None:
            found += stands[0] * (0.55 if first or op.name in _SUMS else 0.0 if op.name in _EXACT else 1.0)
        if op.name in _SUMS:
            found += _noise_of_weights(flatbuffer, op, values)
    return found


def summed(flatbuffer: Flatbuffer) -> list[int]:
    """The tensors that `noise` needs: those that are multiplied by 8-bit weights."""
    return [op.inputs[_data(op)] for op in flatbuffer.operators if _weight_step(flatbuffer, op)]


def _behind(flatbuffer: Flatbuffer, tensor: int, known: set[int]) -> list[tuple[Operator, bool]]:
    """Operators that compute a tensor from known ones and from bits; the first of them is marked."""
    found: dict[int, tuple[Operator, bool]] = {}
    stack = [(tensor, True)]
    while stack:
        current, first = stack.pop()
        op = flatbuffer.producers.get(current)
        if op is None or op.index in found or (current in known and not first):
            continue
        found[op.index] = (op, first)
        if op.name != "LceBconv2d":
            stack += [(t, False) for t in op.inputs if t >= 0]
    return list(found.values())


def _data(op: Operator) -> int:
    return 2 if op.name == "TRANSPOSE_CONV" else 0


def _weight_step(flatbuffer: Flatbuffer, op: Operator) -> float:
    if op.name not in _SUMS or flatbuffer.dtype(op.inputs[1]) not in _INTEGERS:
        return 0.0
    steps = flatbuffer.subgraph.tensors[op.inputs[1]].quantization.scale
    return float(np.max(steps))


def _noise_of_weights(flatbuffer: Flatbuffer, op: Operator, values: dict[int, np.ndarray]) -> float:
    step = _weight_step(flatbuffer, op)
    if not step:
        return 0.0
    tensor = op.inputs[_data(op)]
    x = real(flatbuffer, tensor, values[tensor]).astype(np.float64)
    if op.name == "FULLY_CONNECTED":
        inner = flatbuffer.shape(op.inputs[1])[-1]
        squares = (x.reshape(-1, inner) ** 2).sum(axis=-1).max()
    else:
        taps = int(np.prod(flatbuffer.shape(op.inputs[1])[1:3]))
        largest = (x**2).max() if op.name == "DEPTHWISE_CONV_2D" else (x**2).sum(axis=-1).max()
        squares = taps * largest
    return float(6 * step * np.sqrt(squares / 12))
