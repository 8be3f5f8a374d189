"""Checks that the model turns its sign at the integer threshold that the file holds for a channel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from larq_rep.converters import matching
from larq_rep.converters.graph import FrozenGraph, Site
from larq_rep.converters.sign_patterns import BinaryActivation
from larq_rep.converters.verification.forced import ForcedModel
from larq_rep.converters.verification.result import Verification
from larq_rep.converters.verification.rounding import TOLERANCE
from larq_rep.converters.verification.weights import Convolutions

# A function of the popcounts of the channels.
_OfPopcounts = Callable[[np.ndarray], np.ndarray]


def compare_thresholds(
    model: ForcedModel, convolutions: Convolutions, inputs: Sequence[np.ndarray], result: Verification
) -> None:
    """Compares the integer threshold of each channel with the model's own sign on both sides of it.

    Between a convolution of packed output and its sign a model has functions of one channel only, batch
    normalisations and activations that rise or fall, so the sign as a function of the popcount changes at most once.
    The model is run from the convolution on, with the sum of the same popcount everywhere.
    """
    feeds = dict(zip(model.graph.inputs, inputs, strict=True))
    for name, tensor in model.bits.items():
        op = model.flatbuffer.producers[tensor]
        while op.name == "LceBMaxPool2d":
            op = model.flatbuffer.producers[op.inputs[0]]
        threshold = model.flatbuffer.constant(op.inputs[4]) if op.name == "LceBconv2d" else None
        if threshold is None:
            continue
        behind = {node.name for node in model.behind(model.signs[name].compared)}
        pairs = convolutions.match.pairs.items()
        position = next((i for i, o in pairs if o is op and convolutions.sites[i].node.name in behind), None)
        if position is None:
            continue
        site, kernel = convolutions.sites[position], convolutions.kernels[position]
        filters = matching.filter_signs(model.flatbuffer, op)
        values = _values(model.graph, site, model.signs[name], _sums(kernel, filters), len(threshold), feeds)
        if message := _difference(values, int(np.prod(filters.shape[:3])), threshold):
            result.differ("threshold", convolutions.layers.get(op.index, op.name), op.index, message)


def _sums(kernel: np.ndarray, filters: np.ndarray) -> _OfPopcounts:
    """The sums of a convolution with popcounts, in the model."""
    # The converter negates the filters of channels with a negative factor.
    scale = np.where(kernel < 0, -1, 1)[0, 0, 0] * filters[0, 0, 0] * np.abs(kernel).mean(axis=(0, 1, 2))
    count = int(np.prod(filters.shape[:3]))
    return lambda popcounts: (scale * (count - 2 * popcounts)).astype(kernel.dtype)


def _values(
    graph: FrozenGraph,
    site: Site,
    sign: BinaryActivation,
    sums: _OfPopcounts,
    channels: int,
    feeds: dict[tf.Tensor, np.ndarray],
) -> _OfPopcounts:
    """The smallest and the largest value in front of the sign of each channel, of shape (2, channels)."""
    node = site.node.outputs[0]
    tensors = [sign.compared, *([] if sign.threshold is None else [sign.threshold])]

    def values(popcounts: np.ndarray) -> np.ndarray:
        value, *shift = graph.run(tensors, {**feeds, node: np.broadcast_to(sums(popcounts), node.shape)})
        value = (value - shift[0] if shift else value).reshape(-1, channels)
        return np.stack([value.min(axis=0), value.max(axis=0)]) * (-1 if sign.negated else 1)

    return values


def _difference(values: _OfPopcounts, count: int, threshold: np.ndarray) -> str:
    """The first channel whose threshold is not where the sign turns, in words; empty if there is none."""
    last = np.clip(threshold.astype(np.int64), -1, count)  # the largest popcount that gives +1
    ends = (np.zeros_like(last), np.full_like(last, count))
    points = [np.clip(p, 0, count) for p in (last, last + 1, *ends, last // 2, (last + count + 1) // 2)]
    found = [values(p) for p in points]
    tolerance = TOLERANCE * max(float(np.abs(v).max()) for v in found)
    wrong = np.zeros(len(threshold), bool)
    for p, (low, high) in zip(points, found, strict=True):
        wrong |= np.where(p <= last, low < -tolerance, high > tolerance)
    if not wrong.any():
        return ""
    channel = int(np.argmax(wrong))
    turn = int(_turns(values, count, last)[channel])
    turns = f"turns negative above a popcount of {turn}" if turn < count else "is never negative"
    return (
        f"channel {channel} of the model {turns if turn >= 0 else 'is always negative'} (of {count}), the "
        f"file's threshold is {threshold[channel]}"
    )


def _turns(values: _OfPopcounts, count: int, like: np.ndarray) -> np.ndarray:
    """The largest popcount of each channel at which the model's value is not negative; -1 if there is none."""
    low, high = np.full_like(like, -1), np.full_like(like, count + 1)
    while np.any(high - low > 1):
        middle = (low + high) // 2
        positive = values(np.clip(middle, 0, count))[0] >= 0
        low, high = np.where(positive, middle, low), np.where(positive, high, middle)
    return low
