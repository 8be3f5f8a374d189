"""Finds out how the operators of a file change each channel (the last axis) of a float tensor."""

from __future__ import annotations

import math

import numpy as np

from larq_rep.converters.flatbuffer import Flatbuffer, Operator
from larq_rep.converters.float_weights import stored_constants

CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_POOLS = ("AVERAGE_POOL_2D", "MAX_POOL_2D", "MEAN")
_ELEMENTWISE = ("ADD", "SUB", "MUL")
# Only a damaged file has larger tensors, and should not take all memory.
_MOST_ELEMENTS = 2**26


class ChannelGraph:
    """A file and the effects of its operators on channels, each found once."""

    def __init__(self, flatbuffer: Flatbuffer):
        self.flatbuffer = flatbuffer
        self.shapes = [flatbuffer.shape(tensor) for tensor in range(len(flatbuffer.subgraph.tensors))]
        self.floats = {
            tensor
            for tensor in range(len(self.shapes))
            if flatbuffer.dtype(tensor) == "float32" and self.elements(tensor) <= _MOST_ELEMENTS
        }
        self.biases = {op.index: self._bias(op) for op in flatbuffer.operators}
        self.inner = {op.index for op in flatbuffer.operators if self._plain(op)}
        self.stored = stored_constants(flatbuffer)
        self.unpadded = {op.index for op in flatbuffer.operators if op.name in CONVOLUTIONS and self._unpadded(op)}
        vectors = {op.index: self._vector(op) for op in flatbuffer.operators if op.name in _ELEMENTWISE}
        self.vectors = {index: vector for index, vector in vectors.items() if vector is not None}
        self.maps = {op.index: [self._channels(op, y) for y in op.outputs] for op in flatbuffer.operators}

    def is_float(self, tensor: int) -> bool:
        return tensor in self.floats

    def is_data(self, tensor: int) -> bool:
        return self.is_float(tensor) and self.flatbuffer.constant(tensor) is None

    def plain(self, op: Operator) -> bool:
        """Whether the operator has a float output inside the graph, and no activation of its own."""
        return op.index in self.inner

    def _plain(self, op: Operator) -> bool:
        return (
            self.is_float(op.outputs[0])
            and not getattr(op.options, "fusedActivationFunction", 0)
            and not set(op.outputs) & set(self.flatbuffer.outputs)
        )

    def elements(self, tensor: int) -> int:
        return math.prod(self.shapes[tensor])

    def width(self, tensor: int) -> int:
        return self.shapes[tensor][-1]

    def same_width(self, op: Operator) -> bool:
        """Whether an operator on two tensors broadcasts neither along the channels."""
        width = self.shapes[op.outputs[0]][-1:]
        return len(width) == 1 and all(self.shapes[t][-1:] == width for t in op.inputs)

    def bias(self, op: Operator) -> np.ndarray | None:
        """The bias of a convolution or dense layer, as far as it can be changed."""
        return self.biases[op.index]

    def _bias(self, op: Operator) -> np.ndarray | None:
        position = 3 if op.name == "LceBconv2d" else 2
        if op.name not in (*CONVOLUTIONS, "LceBconv2d") or not self.is_float(op.outputs[0]):
            return None
        width = self.width(op.outputs[0])
        if len(op.inputs) <= position or op.inputs[position] < 0:
            return None if op.name == "LceBconv2d" else np.zeros(width, np.float32)
        bias = self.flatbuffer.constant(op.inputs[position])
        if bias is None or bias.shape != (width,) or not np.isfinite(bias).all():
            return None
        return bias if bias.dtype == np.float32 else None

    def adds_constant(self, op: Operator) -> bool:
        """Whether `op` is x + c or x - c, with one number for each channel."""
        return op.index in self.vectors and op.name != "MUL"

    def _vector(self, op: Operator) -> tuple[int, np.ndarray] | None:
        """Position of the data and the constant of each channel, of an operator on both."""
        for position in (0, 1):
            data, constant = op.inputs[position], self.flatbuffer.constant(op.inputs[1 - position])
            if constant is None or not self.is_data(data) or (op.name == "SUB" and position == 1):
                continue
            shape = self.flatbuffer.shape(data)
            if not shape or shape != self.flatbuffer.shape(op.outputs[0]) or constant.size not in (1, shape[-1]):
                continue
            if (constant.shape and constant.shape[-1] != constant.size) or not np.isfinite(constant).all():
                continue
            return position, np.broadcast_to(constant.reshape(-1).astype(np.float64), shape[-1:])
        return None

    def _weights(self, op: Operator) -> np.ndarray | None:
        stored = self.stored.get(op.inputs[1])
        weights = self.flatbuffer.constant(op.inputs[1]) if stored is None else stored.dequantized()
        return None if weights is None or weights.dtype != np.float32 else weights

    def _unpadded(self, op: Operator) -> bool:
        """Whether a float convolution without groups, or a dense layer, reads no padding."""
        weights = self._weights(op)
        if weights is None or not self.is_data(op.inputs[0]):
            return False
        shape = self.flatbuffer.shape(op.inputs[0])
        if op.name == "FULLY_CONNECTED":
            return not op.options.weightsFormat and shape[-1] == weights.shape[1]
        if op.options.padding == 0:
            sizes = zip(shape[1:3], weights.shape[1:3], (op.options.strideH, op.options.strideW), strict=True)
            dilated = op.options.dilationHFactor != 1 or op.options.dilationWFactor != 1
            if dilated or any((-(-size // stride) - 1) * stride + window > size for size, window, stride in sizes):
                return False
        return op.name == "DEPTHWISE_CONV_2D" or weights.shape[3] == shape[-1]

    def kernel(self, op: Operator) -> np.ndarray:
        """Weights of one of `unpadded`, as (inputs, outputs) summed over the window."""
        weights = self._weights(op)
        assert weights is not None
        if op.name == "FULLY_CONNECTED":
            return weights.T.astype(np.float64)
        if op.name == "CONV_2D":
            return weights.sum(axis=(1, 2), dtype=np.float64).T
        inputs, summed = self.width(op.inputs[0]), weights[0].sum(axis=(0, 1), dtype=np.float64)
        matrix = np.zeros((inputs, len(summed)))
        matrix[np.arange(len(summed)) // (len(summed) // inputs), np.arange(len(summed))] = summed
        return matrix

    def _channels(self, op: Operator, output: int) -> np.ndarray | None:
        """The channel of the input that each channel of an output holds, -1 for zeros; `None` for anything else."""
        fb, name = self.flatbuffer, op.name
        if name not in (*_POOLS, "TILE", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", "SPLIT", "SLICE", "PAD"):
            return None
        data = op.inputs[1] if name == "SPLIT" else op.inputs[0]
        if not self.is_data(data) or not self.is_float(output) or not fb.shape(data) or not fb.shape(output):
            return None
        shape, channels = fb.shape(data), np.arange(fb.shape(data)[-1])
        if name in ("AVERAGE_POOL_2D", "MAX_POOL_2D"):
            return channels
        if name in ("RESHAPE", "SQUEEZE", "EXPAND_DIMS"):
            return _same_everywhere(np.broadcast_to(channels, shape).reshape(fb.shape(output)))
        arguments = [fb.constant(t) for t in (op.inputs[:1] if name == "SPLIT" else op.inputs[1:])]
        if any(argument is None for argument in arguments) or not arguments:
            return None
        values = [np.atleast_1d(argument) for argument in arguments if argument is not None]
        last = len(shape) - 1
        if name == "MEAN":
            return None if last in values[0] % len(shape) else channels
        if name == "TILE":
            return np.arange(self.width(output)) % len(channels)
        if name == "TRANSPOSE":
            return _same_everywhere(np.broadcast_to(channels, shape).transpose(values[0]))
        if name == "SPLIT":
            if values[0][0] % len(shape) != last:
                return channels
            return np.split(channels, len(op.outputs))[op.outputs.index(output)]
        if name == "SLICE":
            return channels[values[0][-1] :][: fb.shape(output)[-1]]
        source = np.arange(self.width(output)) - values[0][-1, 0]
        return None if values[0][:-1].any() else np.where((source >= 0) & (source < len(channels)), source, -1)


def close(values: np.ndarray, expected: np.ndarray | float) -> bool:
    """Whether finite float64 numbers are equal up to rounding; `np.allclose` takes several times as long."""
    return bool((np.abs(values - expected) <= 1e-9 * np.abs(expected)).all())


def _same_everywhere(channels: np.ndarray) -> np.ndarray | None:
    rows = channels.reshape(-1, channels.shape[-1])
    return rows[0] if (rows == rows[0]).all() else None
