"""TFLite's operators of 8 bits in numpy, written from the TFLite quantization specification, not from its kernels.

An integer q of a tensor stands for the real number scale * (q - zero point). An operator sums products of integers
exactly, and its result is that real number divided by the scale of its output, plus the zero point of its output,
rounded once and clipped to [-128, 127] and to its fused activation. Kernels compute with multipliers of 31 bits, tables
or fixed-point numbers instead, so they round twice: `Definition.bound` says how far they may be off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from larq_rep.converters import quantized
from larq_rep.converters.executor import pad_sizes, windowed
from larq_rep.converters.flatbuffer import Flatbuffer, Operator

# In steps of the output: float32 multipliers have a relative error of 2^-24, for numbers of up to 2^9 steps.
_FLOAT = 1e-4
_NO_ACTIVATION = 0
_ENDS: dict[int, tuple[float, float]] = {  # TFLite's fused activations
    _NO_ACTIVATION: (-np.inf, np.inf),
    1: (0, np.inf),
    2: (-1, 1),
    3: (0, 6),
}


@dataclass(frozen=True)
class Definition:
    """What an operator of 8 bits should give.

    # Attributes
        values: The integers before rounding, as float64 and clipped; the real numbers that DEQUANTIZE gives, as
            float32.
        bound: How far a kernel's result may be from these, as a number or one for each channel: 0 where only numbers
            are copied or compared, half a step and what the kernel's way of computing adds otherwise.
    """

    values: np.ndarray
    bound: float | np.ndarray = 0.0


def is_integer(flatbuffer: Flatbuffer, op: Operator) -> bool:
    """Whether an operator, none of LCE's, reads or writes integers that stand for real numbers."""
    if op.name.startswith("Lce"):
        return False
    return any(t >= 0 and quantized.quantization(flatbuffer, t) is not None for t in (*op.inputs, *op.outputs))


def defined(flatbuffer: Flatbuffer, op: Operator, values: Mapping[int, np.ndarray]) -> Definition | None:
    """The definition's result of an operator for which `is_integer` holds; `None` for a kind without one here.

    # Arguments
        flatbuffer: The file.
        op: The operator.
        values: The computed tensors that it reads.
    """
    compute = _KINDS.get(op.name)
    activation = getattr(op.options, "fusedActivationFunction", _NO_ACTIVATION)
    if compute is None or activation not in _ENDS:
        return None
    return compute(_Call(flatbuffer, op, values))


@dataclass(frozen=True)
class _Call:
    """An operator with the values of its inputs."""

    flatbuffer: Flatbuffer
    op: Operator
    values: Mapping[int, np.ndarray]

    @property
    def options(self) -> Any:
        return self.op.options

    def raw(self, position: int) -> np.ndarray:
        tensor = self.op.inputs[position]
        constant = self.flatbuffer.constant(tensor)
        return self.values[tensor] if constant is None else constant

    def centred(self, position: int) -> np.ndarray:
        """The integers of an input less their zero point, as float64, in which their sums of products are exact."""
        return self.raw(position).astype(np.float64) - self.zero(self.op.inputs[position])

    def has(self, position: int) -> bool:
        return len(self.op.inputs) > position and self.op.inputs[position] >= 0

    def scale(self, tensor: int) -> float:
        found = quantized.quantization(self.flatbuffer, tensor)
        assert found is not None, self.flatbuffer.name(tensor)
        return found[0]

    def zero(self, tensor: int) -> int:
        found = quantized.quantization(self.flatbuffer, tensor)
        return 0 if found is None else found[1]

    @property
    def output(self) -> int:
        return self.op.outputs[0]

    @property
    def steps(self) -> float:
        """The scale of the output."""
        return self.scale(self.output)

    def ratio(self, position: int = 0) -> float:
        return self.scale(self.op.inputs[position]) / self.steps

    def clipped(self, centred: np.ndarray, bound: float | np.ndarray) -> Definition:
        """A result in steps of the output, from its zero point; the bound is beside half a step."""
        low, high = self.limits()
        return Definition(np.clip(centred + self.zero(self.output), low, high), 0.5 + bound)

    def limits(self, low: float = -np.inf, high: float = np.inf) -> tuple[float, float]:
        """The smallest and the largest integer of the output, for real results from `low` to `high`."""
        info = np.iinfo(self.flatbuffer.dtype(self.output))
        least, most = _ENDS[getattr(self.options, "fusedActivationFunction", _NO_ACTIVATION)]
        step, zero = np.float32(self.steps), self.zero(self.output)

        def integer(end: float) -> float:
            scaled = np.float32(end) / step
            return float(np.trunc(scaled + np.copysign(np.float32(0.5), scaled))) + zero  # half away from zero

        return max(info.min, integer(max(low, least))), min(info.max, integer(min(high, most)))


def _doubled(multiplier: float | np.ndarray) -> float | np.ndarray:
    """What rounding twice adds to half a step.

    A kernel multiplies by m 2^e, 1/2 <= m < 1: first by m, rounded to an integer, then by 2^e, rounded again. For e < 0
    the first rounding is up to 2^e / 2 steps.
    """
    exponent = np.frexp(multiplier)[1]
    return np.where(exponent < 0, np.exp2(exponent - 1.0), 0.0) + _FLOAT


# Sums of products


def _weighted(call: _Call, acc: np.ndarray, kernel: int, data: int, bias: int) -> Definition:
    """acc scale_x scale_w / scale_y with the bias added to acc, for the scale of each output channel."""
    weights = call.flatbuffer.subgraph.tensors[call.op.inputs[kernel]].quantization
    if call.has(bias):
        acc = acc + call.raw(bias).astype(np.float64)
    multiplier = np.asarray(weights.scale, np.float64) * call.ratio(data)
    return call.clipped(acc * multiplier, _doubled(multiplier))


def _grouped(x: np.ndarray, kernel: np.ndarray, options: Any) -> np.ndarray:
    """Convolves with a kernel (groups, height, width, inputs, outputs) of each group; padding is 0."""
    groups, height, width, inputs, outputs = kernel.shape
    strides, dilations = (options.strideH, options.strideW), (options.dilationHFactor, options.dilationWFactor)
    padding = [
        pad_sizes(x.shape[axis + 1], size, strides[axis], dilations[axis], options.padding)
        for axis, size in enumerate((height, width))
    ]
    columns = windowed(np.pad(x, [(0, 0), *padding, (0, 0)]), (height, width), strides, dilations)
    rows = columns.reshape(-1, height * width, groups, inputs).transpose(2, 0, 1, 3)
    y = rows.reshape(groups, -1, height * width * inputs) @ kernel.reshape(groups, -1, outputs)
    return y.transpose(1, 0, 2).reshape(*columns.shape[:3], groups * outputs)


def _conv_2d(call: _Call) -> Definition:
    x, kernel = call.centred(0), call.centred(1)
    outputs, height, width, inputs = kernel.shape
    groups = x.shape[-1] // inputs
    kernel = kernel.reshape(groups, outputs // groups, height, width, inputs).transpose(0, 2, 3, 4, 1)
    return _weighted(call, _grouped(x, kernel, call.options), 1, 0, 2)


def _depthwise_conv_2d(call: _Call) -> Definition:
    x, kernel = call.centred(0), call.centred(1)[0]
    height, width, _ = kernel.shape
    kernel = kernel.reshape(height, width, x.shape[-1], 1, -1).transpose(2, 0, 1, 3, 4)
    return _weighted(call, _grouped(x, kernel, call.options), 1, 0, 2)


def _fully_connected(call: _Call) -> Definition:
    kernel = call.centred(1)
    acc = call.centred(0).reshape(-1, kernel.shape[1]) @ kernel.T
    result = _weighted(call, acc, 1, 0, 2)
    return Definition(result.values.reshape(call.flatbuffer.shape(call.output)), result.bound)


def _transpose_conv(call: _Call) -> Definition:
    """Adds x times the kernel where a convolution of the output would read it."""
    kernel, x = call.centred(1), call.centred(2)
    outputs, height, width, _ = kernel.shape
    batch, rows, columns, _ = x.shape
    down, right = call.options.strideH, call.options.strideW
    wanted = call.flatbuffer.shape(call.output)[1:3]
    top = pad_sizes(wanted[0], height, down, 1, call.options.padding)[0]
    left = pad_sizes(wanted[1], width, right, 1, call.options.padding)[0]
    size = max(rows * down + height, wanted[0] + top), max(columns * right + width, wanted[1] + left)
    acc = np.zeros((batch, *size, outputs))
    for i in range(height):
        for j in range(width):
            acc[:, i : i + rows * down : down, j : j + columns * right : right] += x @ kernel[:, i, j].T
    return _weighted(call, acc[:, top : top + wanted[0], left : left + wanted[1]], 1, 2, 3)


def _add(call: _Call, sign: int = 1) -> Definition:
    """x + y; kernels round x and y to 2^-20 of twice the larger scale first."""
    total = call.centred(0) * call.ratio(0) + sign * call.centred(1) * call.ratio(1)
    return call.clipped(total, 2.0**-18 * max(call.ratio(0), call.ratio(1)) + _FLOAT)


def _mul(call: _Call) -> Definition:
    multiplier = call.ratio(0) * call.scale(call.op.inputs[1])
    return call.clipped(call.centred(0) * call.centred(1) * multiplier, _doubled(multiplier))


def _mean(call: _Call) -> Definition:
    """Kernels also round the zero point of the input in steps of the output: half a step more."""
    axes = tuple(int(axis) for axis in np.ravel(call.raw(1)))
    mean = call.centred(0).mean(axis=axes).reshape(call.flatbuffer.shape(call.output))
    same = call.ratio() == 1 and call.zero(call.op.inputs[0]) == call.zero(call.output)
    return call.clipped(mean * call.ratio(), _FLOAT if same else 0.5 + _doubled(call.ratio()))


def _average_pool_2d(call: _Call) -> Definition:
    total = _windows(call, 0.0, np.add)
    count = _windows(call, 0.0, np.add, np.ones_like(call.centred(0)))
    return call.clipped(total / count * call.ratio(), 0.0)


# Functions of one number


def _requantized(call: _Call, low: float = -np.inf, high: float = np.inf) -> Definition:
    """The same number in another scale, clipped to an activation."""
    least, most = call.limits(low, high)
    values = call.centred(0) * call.ratio() + call.zero(call.output)
    same = call.ratio() == 1
    return Definition(np.clip(values, least, most), 0.0 if same else 0.5 + _doubled(call.ratio()))


def _scaled_below_zero(call: _Call, slope: np.ndarray | float, step: float) -> Definition:
    """x where it is not negative, x times `slope` in steps of `step` elsewhere."""
    x, steep = call.centred(0), call.ratio() * step
    bound = np.where(x >= 0, _doubled(call.ratio()), _doubled(steep))
    return call.clipped(np.where(x >= 0, x * call.ratio(), x * slope * steep), bound)


def _of_real(function: Callable[[np.ndarray], np.ndarray], bound: float) -> Callable[[_Call], Definition]:
    """A function of the real number; the bound is beside half a step."""

    def compute(call: _Call) -> Definition:
        x = call.centred(0) * call.scale(call.op.inputs[0])
        return call.clipped(function(x) / call.steps, bound)

    return compute


def _hard_swish(call: _Call) -> Definition:
    """x relu6(x + 3) / 6; kernels multiply numbers of 16 bits, each wrong by 2^-15 of up to 255 steps."""
    x = call.centred(0) * call.scale(call.op.inputs[0])
    return call.clipped(x * np.clip(x + 3, 0, 6) / 6 / call.steps, 4 * 255 * 2.0**-15 + _doubled(call.ratio() / 128))


def _softmax(call: _Call) -> Definition:
    x = call.centred(0) * (call.scale(call.op.inputs[0]) * call.options.beta)
    exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
    return call.clipped(exponentials / exponentials.sum(axis=-1, keepdims=True) / call.steps, 10 * _FLOAT)


def _quantize(call: _Call) -> Definition:
    if quantized.quantization(call.flatbuffer, call.op.inputs[0]) is not None:
        return _requantized(call)
    return call.clipped(call.raw(0).astype(np.float64) / call.steps, _FLOAT)


def _dequantize(call: _Call) -> Definition:
    """The real number; kernels round scale * q and scale * zero point to float32 first."""
    values = quantized.real(call.flatbuffer, call.op.inputs[0], call.raw(0))
    return Definition(values, call.scale(call.op.inputs[0]) * 2.0**-15)


# Copies


def _copy(rearranged: Callable[[_Call, np.ndarray], np.ndarray]) -> Callable[[_Call], Definition]:
    """An operator that copies numbers, or takes the largest, which have the same scale before and behind."""

    def compute(call: _Call) -> Definition:
        low, high = call.limits()
        centred = rearranged(call, call.centred(0) * call.ratio())
        return Definition(np.clip(centred + call.zero(call.output), low, high))

    return compute


def _windows(call: _Call, neutral: float, reduce: np.ufunc, x: np.ndarray | None = None) -> np.ndarray:
    """Reduces the windows of a pooling operator; taps outside the image are neutral."""
    x = call.centred(0) if x is None else x
    options = call.options
    size, strides = (options.filterHeight, options.filterWidth), (options.strideH, options.strideW)
    padding = [pad_sizes(x.shape[axis + 1], size[axis], strides[axis], 1, options.padding) for axis in (0, 1)]
    padded = np.pad(x, [(0, 0), *padding, (0, 0)], constant_values=neutral)
    return reduce.reduce(windowed(padded, size, strides, (1, 1)), axis=3)


def _reshaped(call: _Call, x: np.ndarray) -> np.ndarray:
    return x.reshape(call.flatbuffer.shape(call.output))


def _padded(call: _Call, x: np.ndarray) -> np.ndarray:
    value = call.centred(2).item() * call.ratio(2) if call.has(2) else 0.0
    return np.pad(x, call.raw(1).tolist(), constant_values=value)


def _strided_slice(call: _Call, x: np.ndarray) -> np.ndarray:
    """Slices of whole and cut axes; axes of one element that vanish are seen from the output's shape."""
    begin, end, stride = (np.ravel(call.raw(i)).tolist() for i in (1, 2, 3))
    options, index = call.options, []
    for axis, step in enumerate(stride):
        if options.shrinkAxisMask >> axis & 1:
            first = begin[axis] % x.shape[axis]
            index.append(slice(first, first + 1))
            continue
        first = None if options.beginMask >> axis & 1 else begin[axis]
        last = None if options.endMask >> axis & 1 else end[axis]
        index.append(slice(first, last, step))
    return _reshaped(call, x[tuple(index)])


def _concatenated(call: _Call, _: np.ndarray) -> np.ndarray:
    parts = [call.centred(i) * call.ratio(i) for i in range(len(call.op.inputs))]
    return np.concatenate(parts, axis=call.options.axis)


def _depth_to_space(call: _Call, x: np.ndarray) -> np.ndarray:
    batch, height, width, channels = x.shape
    size = call.options.blockSize
    blocks = x.reshape(batch, height, width, size, size, channels // size**2).transpose(0, 1, 3, 2, 4, 5)
    return _reshaped(call, blocks)


def _space_to_depth(call: _Call, x: np.ndarray) -> np.ndarray:
    batch, height, width, channels = x.shape
    size = call.options.blockSize
    blocks = x.reshape(batch, height // size, size, width // size, size, channels).transpose(0, 1, 3, 2, 4, 5)
    return _reshaped(call, blocks)


_KINDS: dict[str, Callable[[_Call], Definition]] = {
    "CONV_2D": _conv_2d,
    "DEPTHWISE_CONV_2D": _depthwise_conv_2d,
    "FULLY_CONNECTED": _fully_connected,
    "TRANSPOSE_CONV": _transpose_conv,
    "ADD": _add,
    "SUB": lambda call: _add(call, -1),
    "MUL": _mul,
    "MEAN": _mean,
    "AVERAGE_POOL_2D": _average_pool_2d,
    "RELU": lambda call: _requantized(call, 0),
    "RELU6": lambda call: _requantized(call, 0, 6),
    "RELU_N1_TO_1": lambda call: _requantized(call, -1, 1),
    "PRELU": lambda call: _scaled_below_zero(call, call.centred(1), call.scale(call.op.inputs[1])),
    "LEAKY_RELU": lambda call: _scaled_below_zero(call, 1.0, call.options.alpha),
    "LOGISTIC": _of_real(lambda x: 1 / (1 + np.exp(-x)), _FLOAT),
    "TANH": _of_real(np.tanh, _FLOAT),
    "HARD_SWISH": _hard_swish,
    "SOFTMAX": _softmax,
    "QUANTIZE": _quantize,
    "DEQUANTIZE": _dequantize,
    "MAX_POOL_2D": _copy(lambda call, x: _windows(call, -np.inf, np.maximum, x)),
    "RESHAPE": _copy(_reshaped),
    "SQUEEZE": _copy(_reshaped),
    "PAD": _copy(_padded),
    "PADV2": _copy(_padded),
    "TRANSPOSE": _copy(lambda call, x: x.transpose(call.raw(1).tolist())),
    "STRIDED_SLICE": _copy(_strided_slice),
    "CONCATENATION": _copy(_concatenated),
    "DEPTH_TO_SPACE": _copy(_depth_to_space),
    "SPACE_TO_DEPTH": _copy(_space_to_depth),
}
