"""Matches the operators of a flatbuffer with the convolutions of a Keras model.

Names do not survive conversion, weights do: an `LceBconv2d` holds the signs of the kernel it was made from.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from larq_rep.converters.flatbuffer import Flatbuffer, Operator


def unpack(words: np.ndarray, channels: int) -> np.ndarray:
    """Bitpacked int32 words as -1 and +1: channel c is bit c % 32 of word c // 32, and a set bit means -1.

    # Arguments
        words: Array of shape (..., ceil(channels / 32)).
        channels: Number of channels.

    # Returns
        int8 array of shape (..., channels).
    """
    bits = np.unpackbits(np.ascontiguousarray(words, "<i4").view(np.uint8), axis=-1, bitorder="little")
    return (1 - 2 * bits[..., :channels].astype(np.int8)).astype(np.int8)


def groups(flatbuffer: Flatbuffer, op: Operator) -> int:
    """Number of groups of an `LceBconv2d`, which the file holds only in the filter's shape."""
    return -(-op.options["channels_in"] // 32) // flatbuffer.shape(op.inputs[1])[3]


def filter_signs(flatbuffer: Flatbuffer, op: Operator) -> np.ndarray:
    """Weights of an `LceBconv2d` as int8 -1 and +1 in TensorFlow's order (height, width, in, out)."""
    words = flatbuffer.constant(op.inputs[1])
    assert words is not None
    return unpack(words, op.options["channels_in"] // groups(flatbuffer, op)).transpose(1, 2, 3, 0)


@dataclass
class Match:
    """The pairing of binary convolutions and `LceBconv2d` operators.

    # Attributes
        pairs: Position of a convolution in the given list -> its operator.
        alternatives: Position -> all operators that hold the same weights, for the caller that can tell them
            apart by the values that flow through them.
        unmatched: Positions of convolutions whose weights no operator holds.
        left_over: Operators whose weights belong to no convolution.
    """

    pairs: dict[int, Operator] = field(default_factory=dict)
    alternatives: dict[int, list[Operator]] = field(default_factory=dict)
    unmatched: list[int] = field(default_factory=list)
    left_over: list[Operator] = field(default_factory=list)


def match(kernels: list[np.ndarray], flatbuffer: Flatbuffer) -> Match:
    """Pairs binary kernels (height, width, in, out), given in execution order, with `LceBconv2d` operators.

    Weights are compared up to a sign for each output channel, since the converter negates the filters of
    channels with a negative scale where it writes bits. Among operators with equal weights the order of
    execution decides. Several convolutions may share one operator, because equal ones on one input are merged.
    """
    operators: dict[bytes, list[Operator]] = defaultdict(list)
    for op in flatbuffer.operators:
        if op.name == "LceBconv2d":
            operators[_key(filter_signs(flatbuffer, op))].append(op)
    result = Match()
    seen: dict[bytes, int] = defaultdict(int)
    for position, kernel in enumerate(kernels):
        key = _key(kernel)
        same = operators.get(key)
        if not same:
            result.unmatched.append(position)
            continue
        result.pairs[position] = same[min(seen[key], len(same) - 1)]
        result.alternatives[position] = same
        seen[key] += 1
    used = {id(op) for ops in result.alternatives.values() for op in ops}
    result.left_over = [op for ops in operators.values() for op in ops if id(op) not in used]
    return result


def nearest(
    kernel: np.ndarray, candidates: list[Operator], flatbuffer: Flatbuffer
) -> tuple[Operator, np.ndarray] | None:
    """The candidate whose weights differ least from a kernel's signs, and where (rows of h, w, in, out)."""
    negative = kernel < 0
    best: tuple[Operator, np.ndarray] | None = None
    for op in candidates:
        weights = filter_signs(flatbuffer, op)
        if weights.shape != kernel.shape:
            continue
        different = (weights < 0) != negative
        negated = different.mean(axis=(0, 1, 2)) > 0.5  # a channel that the converter negated
        if _writes_bits(flatbuffer, op):
            different ^= negated
        where = np.argwhere(different)
        if best is None or len(where) < len(best[1]):
            best = op, where
    return best


def stayed_float(kernel: np.ndarray, flatbuffer: Flatbuffer) -> bool:
    """Whether the file holds a float convolution with a binary kernel (up to a factor for each output channel)."""
    key = _key(kernel)
    for op in flatbuffer.operators:
        weights = flatbuffer.constant(op.inputs[1]) if op.name == "CONV_2D" else None
        if weights is None:
            continue
        weights = weights.transpose(1, 2, 3, 0)
        if two_valued(weights) and _key(weights) == key:
            return True
    return False


def two_valued(kernel: np.ndarray) -> bool:
    """Whether nearly all weights of each output channel (the last axis) have one magnitude, but are not all 0."""
    magnitude = np.abs(kernel.reshape(-1, kernel.shape[-1]))
    typical = np.median(magnitude, axis=0)
    alive = typical > 0
    if len(magnitude) < 2 or not alive.any():
        return False
    return bool(np.mean(np.abs(magnitude[:, alive] / typical[alive] - 1) <= 0.05) >= 0.97)


def _writes_bits(flatbuffer: Flatbuffer, op: Operator) -> bool:
    return flatbuffer.dtype(op.outputs[0]) == "int32"


def _key(kernel: np.ndarray) -> bytes:
    """The same for kernels of equal signs, up to one for each output channel."""
    negative = kernel < 0
    return str(kernel.shape).encode() + np.packbits(negative == negative[:1, :1, :1]).tobytes()
