"""LCE's operators in numpy, written from their definition and independent of LCE's kernels.

A bit is 1 for a negative value and 0 for the others. With acc the number of differing bits and K the number
of weights of an output, the sum of the ±1 products is y = K - 2 acc. Taps outside the image read +1.
"""

from __future__ import annotations

import numpy as np

from larq_rep.converters import matching
from larq_rep.converters.flatbuffer import Flatbuffer, Operator

_RANGES = {0: (-np.inf, np.inf), 1: (0, np.inf), 2: (-1, 1), 3: (0, 6)}  # TFLite's fused activations


def quantize(x: np.ndarray) -> np.ndarray:
    """Packed signs of a float tensor's last axis (LceQuantize)."""
    bits = np.packbits(x < 0, axis=-1, bitorder="little")
    padding = [(0, 0)] * (bits.ndim - 1) + [(0, -bits.shape[-1] % 4)]
    return np.pad(bits, padding).view("<i4")


def max_pool(words: np.ndarray, options: dict[str, int]) -> np.ndarray:
    """LceBMaxPool2d: a window is negative where all its taps are, so the packed words are and-ed."""
    return pool(words, options, np.bitwise_and)


def pool(x: np.ndarray, options: dict[str, int], reduce: np.ufunc) -> np.ndarray:
    """Reduces the windows of an LceBMaxPool2d; taps outside the image are left out."""
    windows = (options["filter_height"], options["filter_width"])
    strides = (options["stride_height"], options["stride_width"])
    pads = [
        pad_sizes(x.shape[axis + 1], window, stride, 1, options["padding"])
        for axis, (window, stride) in enumerate(zip(windows, strides, strict=True))
    ]
    neutral = -1 if reduce is np.bitwise_and else np.iinfo(x.dtype).max
    padded = np.pad(x, [(0, 0), *pads, (0, 0)], constant_values=neutral)
    return reduce.reduce(windowed(padded, windows, strides, (1, 1)), axis=3)


def accumulators(flatbuffer: Flatbuffer, op: Operator, words: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Popcounts acc (N, H, W, O) of an `LceBconv2d`, exactly, and the correction of its zero padding.

    # Returns
        acc as int64, and for zero padding the sum of the weights on taps outside the image, otherwise `None`.
    """
    options = op.options
    weights = matching.filter_signs(flatbuffer, op).astype(np.float32)
    height, width, per_group, filters = weights.shape
    x = matching.unpack(words, options["channels_in"]).astype(np.float32)
    strides = (options["stride_height"], options["stride_width"])
    dilations = (options["dilation_height_factor"], options["dilation_width_factor"])
    pads = [
        pad_sizes(x.shape[axis + 1], kernel, strides[axis], dilations[axis], options["padding"])
        for axis, kernel in enumerate((height, width))
    ]
    padding = [(0, 0), *pads, (0, 0)]
    groups = matching.groups(flatbuffer, op)

    def convolve(values: np.ndarray) -> np.ndarray:
        outputs = []
        for group in range(groups):
            part = values[..., group * per_group : (group + 1) * per_group]
            kernel = weights[..., group * filters // groups : (group + 1) * filters // groups]
            columns = windowed(part, (height, width), strides, dilations)
            # Sums of ±1 below 2^24 are exact in float32, in any order.
            outputs.append(columns.reshape(*columns.shape[:3], -1) @ kernel.reshape(-1, kernel.shape[-1]))
        return np.concatenate(outputs, axis=-1)

    y = convolve(np.pad(x, padding, constant_values=1))
    acc = ((height * width * per_group - y) / 2).astype(np.int64)
    if options["padding"] != 0 or options["pad_values"] != 0:
        return acc, None
    outside = np.pad(np.zeros((1, *x.shape[1:]), np.float32), padding, constant_values=1)
    return acc, convolve(outside)


def bconv2d(flatbuffer: Flatbuffer, op: Operator, words: np.ndarray) -> np.ndarray:
    """Output of an `LceBconv2d`: float32, int8 or packed words, as its output tensor says.

    # Arguments
        flatbuffer: The file.
        op: The operator.
        words: Packed input (N, H, W, ceil(channels / 32)).
    """
    acc, outside = accumulators(flatbuffer, op, words)
    threshold = flatbuffer.constant(op.inputs[4]) if len(op.inputs) > 4 else None
    if threshold is not None:
        return quantize(np.where(acc > threshold, -1.0, 1.0))
    multiplier = flatbuffer.constant(op.inputs[2])
    bias = flatbuffer.constant(op.inputs[3])
    assert multiplier is not None and bias is not None
    height, width, per_group, _ = matching.filter_signs(flatbuffer, op).shape
    count = height * width * per_group
    low, high = _RANGES[op.options["fused_activation_function"]]
    value = np.clip(2 * acc, count - min(high, count), count - max(low, -count)).astype(np.float32)
    exact_multiplier, exact_bias = multiplier.astype(np.float64), bias.astype(np.float64)
    if flatbuffer.dtype(op.outputs[0]) == "int8":
        quantization = flatbuffer.subgraph.tensors[op.outputs[0]].quantization
        scale, zero = float(quantization.scale[0]), int(quantization.zeroPoint[0])
        m = (-exact_multiplier / scale).astype(np.float32)
        b = ((exact_bias + count * exact_multiplier) / scale + zero).astype(np.float32)
        rounded = value * m + b
        return np.clip(np.trunc(rounded + np.copysign(np.float32(0.5), rounded)), -128, 127).astype(np.int8)
    result = value * -multiplier + (exact_bias + count * exact_multiplier).astype(np.float32)
    return result if outside is None else result - multiplier * outside


def pad_sizes(size: int, kernel: int, stride: int, dilation: int, padding: int) -> tuple[int, int]:
    """Rows before and after, for SAME (0) and VALID (1)."""
    if padding == 1:
        return 0, 0
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, (total + 1) // 2


def windowed(
    x: np.ndarray, kernel: tuple[int, int], strides: tuple[int, int], dilations: tuple[int, int]
) -> np.ndarray:
    """Windows of an already padded image: (N, out height, out width, taps, channels)."""
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    windows = x
    for axis, span in enumerate(spans, start=1):
        windows = np.lib.stride_tricks.sliding_window_view(windows, span, axis=axis)
    windows = windows[:, :: strides[0], :: strides[1], :, :: dilations[0], :: dilations[1]]
    return windows.transpose(0, 1, 2, 4, 5, 3).reshape(*windows.shape[:3], -1, x.shape[-1])
