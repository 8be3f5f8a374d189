"""Stores the weights of a converted model that are not binary in fewer bytes, where possible without loss."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from larq_compute_engine.mlir.python import tflite_schema as schema

from larq_rep.converters.flatbuffer import Flatbuffer, Operator

StorageType = Literal["float32", "float16", "int8"]

# Operators whose weights (input 1) are worth storing smaller, and the axis of their output channels.
# The other real-valued constants of a binary network are vectors of its channels.
OUTPUT_CHANNELS = {
    "CONV_2D": 0,
    "DEPTHWISE_CONV_2D": 3,
    "FULLY_CONNECTED": 0,
    "TRANSPOSE_CONV": 0,
    "CONV_3D": 4,
    "CONV_3D_TRANSPOSE": 3,
}
# The first version of DEQUANTIZE that reads int8 with a scale for each channel; float16 needs 3.
_DEQUANTIZE_VERSION = 5
_FLOAT16 = np.finfo(np.float16)
# What a DEQUANTIZE operator and its tensor take, beside values and scales.
_OVERHEAD = 256


def weights_of(op: Operator) -> Sequence[int]:
    """The inputs of an operator that may be weights: if a matrix stands in front of a map, it is the first."""
    if op.name not in OUTPUT_CHANNELS:
        return ()
    return op.inputs[:2] if op.name == "FULLY_CONNECTED" else op.inputs[1:2]


@dataclass(frozen=True)
class CompressedConstant:
    """A float32 weight tensor and what `compress` made of it.

    # Attributes
        name: Its name in the flatbuffer.
        shape: Its shape.
        storage: Its element type now; `"float32"` if it was left alone.
        bytes_before: Its bytes as float32.
        bytes_after: Its bytes now, with scales and zero points (12 bytes for each scale of an int8 tensor).
        exact: Whether it was stored as int8 without loss.
        max_error: Largest absolute difference between a weight and its stored value.
        reason: Why it was left alone, or empty.
    """

    name: str
    shape: tuple[int, ...]
    storage: str
    bytes_before: int
    bytes_after: int
    exact: bool = False
    max_error: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class CompressionReport:
    """The result of `compress`: the weight tensors in the order of their use, and the bytes of the file."""

    constants: tuple[CompressedConstant, ...]
    size_before: int
    size_after: int


@dataclass(frozen=True)
class Stored:
    """Weights in float16, or in int8 with one scale for each index of `axis` (or one for all).

    # Attributes
        values: float16 or int8.
        scales: float32, for int8.
        axis: Axis of the scales.
    """

    values: np.ndarray
    scales: np.ndarray | None = None
    axis: int = 0

    @classmethod
    def quantized(cls, weights: np.ndarray, axis: int) -> Stored:
        """`q = round(w / s)` with `s = max|w| / 127` of the output channel."""
        others = tuple(i for i in range(weights.ndim) if i != axis)
        # A channel of zeros needs a scale too: the smallest normal number keeps its rounding bound near zero.
        scales = np.maximum(np.abs(weights).max(axis=others) / np.float32(127), np.finfo(np.float32).tiny)
        # Divided in float64, so that the only error is rounding to an integer.
        quotients = weights / np.expand_dims(scales, others).astype(np.float64)
        return cls(np.clip(np.rint(quotients), -127, 127).astype(np.int8), scales, axis)

    @classmethod
    def exact(cls, weights: np.ndarray, axis: int) -> Stored | None:
        """`q = w / s` without rounding, `s·q` being `w` to the bit (but for the sign of a zero), if there are such `s`.

        The channels may be those of any axis; those of `axis` are tried first. They must be long enough for the scales
        to take less than the weights save: channels of one weight each always have one.
        """
        if weights.size == 0 or not np.isfinite(weights).all():
            return None
        for channels in dict.fromkeys((axis, *range(weights.ndim))):
            scales = exact_scales(np.moveaxis(weights, channels, 0))
            if scales is not None:
                quotients = np.rint(weights / _along(scales, channels, weights.ndim))
                small = cls(quotients.astype(np.int8), scales, channels)
                if small.nbytes < weights.nbytes:
                    return small
        return None

    @property
    def nbytes(self) -> int:
        # Beside each float32 scale the file holds an int64 zero point.
        return self.values.nbytes + (0 if self.scales is None else len(self.scales) * (4 + 8))

    def _steps(self) -> np.ndarray:
        assert self.scales is not None
        return _along(self.scales, self.axis, self.values.ndim)

    def dequantized(self) -> np.ndarray:
        """The result of the DEQUANTIZE kernel, to the bit."""
        values = self.values.astype(np.float32)
        return values if self.scales is None else values * self._steps()

    def rounds(self, weights: np.ndarray) -> np.ndarray:
        """Which channels have the scale to which `quantized` rounds these weights, broadcastable to their shape."""
        return self._steps() == Stored.quantized(weights, self.axis)._steps()

    def bound(self) -> np.ndarray:
        """Bound of |w − dequantized|, broadcastable to the shape of the weights."""
        if self.scales is None:  # half a unit in the last place; 2⁻²⁵ for subnormal numbers
            return np.maximum(np.abs(self.dequantized()) * np.float32(2**-11), np.float32(2**-25))
        # Half a step, and the rounding of the float32 product s·q: at most 127·2⁻²⁴ < 2⁻¹⁷ steps.
        return self._steps() * np.float32(0.5 + 2**-17)


def _along(scales: np.ndarray, axis: int, rank: int) -> np.ndarray:
    return scales.reshape([-1 if i == axis else 1 for i in range(rank)])


def needed_bits(values: np.ndarray) -> int:
    """Bits that tell the levels of weights apart: 1 for -s and +s, 2 for -s, 0 and +s.

    # Arguments
        values: Weights as the file holds them. Floats whose channels (of whatever axis) have no common step need all
            bits of their type.
    """
    small = Stored(values) if values.dtype == np.int8 else Stored.exact(values.astype(np.float32), 0)
    return values.dtype.itemsize * 8 if small is None else max(1, (len(np.unique(small.values)) - 1).bit_length())


def exact_scales(channels: np.ndarray) -> np.ndarray | None:
    """A scale for each entry of the first axis, or one for all, of which its values are multiples from -127 to 127."""
    magnitudes, scales = [], []
    for channel in channels:
        # Real weights show it by a few of them; to sort all takes long.
        if len(np.unique(np.abs(channel.flat[:512]))) > 128:
            return None
        magnitudes.append(np.unique(np.abs(channel)))
        scale = _common_step(magnitudes[-1])
        if scale is None:
            return None
        scales.append(scale)
    shared = _common_step(np.unique(np.concatenate(magnitudes)))
    return np.array(scales if shared is None else [shared], np.float32)


def _common_step(magnitudes: np.ndarray) -> np.float32 | None:
    """The largest `s` with which all magnitudes, given in ascending order, are float32 products `s·q`, q up to 127."""
    magnitudes = magnitudes[magnitudes > 0]
    if not len(magnitudes):
        return np.float32(1)
    if len(magnitudes) > 127:
        return None
    # Products round to the largest magnitude only for the quotient and the floats next to it.
    quotients = magnitudes[-1] / np.arange(1, 128, dtype=np.float32)
    steps = np.stack([quotients, np.nextafter(quotients, np.float32(0)), np.nextafter(quotients, np.float32(np.inf))])
    steps = steps.T.reshape(-1, 1)
    with np.errstate(all="ignore"):  # steps may be 0 or infinite
        exact = (np.rint(magnitudes / steps) * steps == magnitudes).all(axis=1)
    exact &= (steps >= np.finfo(np.float32).tiny)[:, 0]  # some runtimes take smaller numbers for 0
    return steps[exact.argmax(), 0] if exact.any() else None


def compress(
    content: bytes, dtype: StorageType = "float32", *, exact: bool = True, minimum_size: int = 1024
) -> tuple[bytes, CompressionReport]:
    """Stores the weights of the real-valued convolutions and dense layers in half or a quarter of their size.

    The weights of `CONV_2D`, `DEPTHWISE_CONV_2D`, `FULLY_CONNECTED`, `TRANSPOSE_CONV`, `CONV_3D` and
    `CONV_3D_TRANSPOSE` become a float16 or int8 constant and a `DEQUANTIZE` operator before their first use. int8 is
    symmetric with a scale for each channel.

    - Weights of few levels, as binary, ternary and other quantized ones are, become int8 *exactly*: if there are scales
      `s` so that every weight is the float32 product `s·q` with an integer `|q| ≤ 127`. The channels are those of the
      axis that allows it. If one scale does for all channels, the file holds one.
    - The others become what `dtype` says: `w ≈ s·q` with `q = round(w / s)` and `s = max|w| / 127` of the output
      channel, the nearest float16, or nothing.

    The runtime dequantizes a constant once, at the first inference, and goes on in float32. So the file is smaller,
    while memory and speed at run time stay the same. Its output equals, to the bit, the output of the float32 file with
    the rounded weights, `expand(content)`. (TFLite's hybrid int8 kernels, which quantize the activations too, have
    twice the error; LCE's runtime has none with channel scales for dense layers.)

    Packed binary filters, the multipliers and biases of `LceBconv2d` and all other constants stay as they are.

    # Arguments
        content: The bytes of a `.tflite` file as converted.
        dtype: Storage of the weights that are not exact: `"float32"`, `"float16"` or `"int8"`.
        exact: Whether to store weights of few levels exactly.
        minimum_size: Weights of fewer bytes stay float32: the DEQUANTIZE operator itself takes some 200 bytes.

    # Returns
        The bytes of the compressed file (of `content` itself if nothing is stored smaller), and a `CompressionReport`.
        Weights that overflow float16, that are all subnormal in it, or that are not finite stay float32; their `reason`
        in the report says so.

    # Raises
        ValueError: For another `dtype`, or if weights of the file are to be rounded that are compressed already.
        InvalidFlatbufferError: If `content` is not a TFLite model.
    """
    flatbuffer = Flatbuffer(content)
    constants = compress_in_place(flatbuffer, dtype, exact=exact, minimum_size=minimum_size)
    result = flatbuffer.pack() if any(constant.storage != "float32" for constant in constants) else content
    return result, CompressionReport(constants, len(content), len(result))


def compress_in_place(
    flatbuffer: Flatbuffer, dtype: StorageType, *, exact: bool = True, minimum_size: int = 1024
) -> tuple[CompressedConstant, ...]:
    """`compress` for a parsed file; returns the constants of its report."""
    if dtype not in get_args(StorageType):
        raise ValueError(f"dtype should be one of {get_args(StorageType)}, found {dtype!r}.")
    if dtype != "float32" and (stored := stored_constants(flatbuffer)):
        found = next(iter(stored.values())).values.dtype
        raise ValueError(f"The weights of this file are {found} already. Compress the float32 file instead.")
    constants: dict[int, CompressedConstant] = {}
    operators = {op.index: [flatbuffer.subgraph.operators[op.index]] for op in flatbuffer.operators}
    buffers: dict[bytes, int] = {}
    for tensor, name in [(t, op.name) for op in flatbuffer.operators for t in weights_of(op)]:
        weights = None if tensor in constants or tensor in flatbuffer.producers else flatbuffer.constant(tensor)
        if weights is None or weights.dtype != np.float32:
            continue
        about, before = (flatbuffer.name(tensor), weights.shape), weights.nbytes
        small, reason = _smaller(weights, name, dtype, exact, minimum_size)
        if small is None:
            constants[tensor] = CompressedConstant(*about, "float32", before, before, reason=reason)
            continue
        error = float(np.abs(weights - small.dequantized()).max())
        storage = small.values.dtype.name
        lossless = small.scales is not None and error == 0
        constants[tensor] = CompressedConstant(*about, storage, before, small.nbytes, lossless, error)
        first = flatbuffer.consumers[tensor][0].index
        operators[first].insert(0, _store(flatbuffer, tensor, small, buffers))
    if buffers:
        flatbuffer.subgraph.operators = [op for ops in operators.values() for op in ops]
        flatbuffer.forget()
        flatbuffer.drop_unused_buffers()
    return tuple(constants.values())


def expand(content: bytes) -> tuple[bytes, dict[int, np.ndarray]]:
    """Undoes `compress`, up to the rounding of the weights.

    Every stored constant becomes float32 with its dequantized values, and its DEQUANTIZE operator is removed.
    Operators keep their order and tensors their indices, so the result compares constant by constant with the
    file that was compressed. It computes exactly the same as the compressed file.

    # Arguments
        content: The bytes of a `.tflite` file, compressed or not.

    # Returns
        The bytes of the float32 file, and for each tensor that was stored smaller the bound of its rounding
        error, `|original − expanded| ≤ bound`, as a float32 array that broadcasts to the tensor's shape: half
        a unit in the last place for float16, half a step of the channel for int8, which does not tell whether it was
        stored exactly.

    # Raises
        InvalidFlatbufferError: If `content` is not a TFLite model.
    """
    flatbuffer = Flatbuffer(content)
    stored = stored_constants(flatbuffer)
    if not stored:
        return content, {}
    subgraph = flatbuffer.subgraph
    removed = {tensor: flatbuffer.producers[tensor] for tensor in stored}
    indices = {op.index for op in removed.values()}
    subgraph.operators = [op for index, op in enumerate(subgraph.operators) if index not in indices]
    for tensor, small in stored.items():
        flatbuffer.set_constant(tensor, small.dequantized())
    # `compress` appended the stored constants, so removing them leaves all indices as they were.
    unused = {op.inputs[0] for op in removed.values()}
    while len(subgraph.tensors) - 1 in unused:
        subgraph.tensors.pop()
    flatbuffer.drop_unused_buffers()
    return flatbuffer.pack(), {tensor: small.bound() for tensor, small in stored.items()}


def storage(content: bytes) -> str:
    """The type in which a file stores its real-valued weights: `"float32"`, `"float16"` or `"int8"`, the smallest
    found.

    # Raises
        InvalidFlatbufferError: If `content` is not a TFLite model.
    """
    found = {small.values.dtype.name for small in stored_constants(Flatbuffer(content)).values()}
    return next((dtype for dtype in ("int8", "float16") if dtype in found), "float32")


def exactly(weights: np.ndarray, operator: str, minimum_size: int = 1024) -> Stored | None:
    """The weights of an operator as int8 without loss, if that is possible and makes the file smaller."""
    if weights.nbytes < minimum_size:
        return None
    small = Stored.exact(weights, OUTPUT_CHANNELS[operator])
    return None if small is None or weights.nbytes - small.nbytes <= _OVERHEAD else small


def _smaller(
    weights: np.ndarray, operator: str, dtype: StorageType, exact: bool, minimum_size: int
) -> tuple[Stored | None, str]:
    """The weights of an operator as they are stored smaller, or why they stay float32."""
    if weights.nbytes < minimum_size:
        return None, f"smaller than {minimum_size} bytes"
    if exact and (small := exactly(weights, operator, minimum_size)) is not None:
        return small, ""
    if dtype == "float32":
        return None, "more than 127 magnitudes, or no common step"
    if reason := _obstacle(weights, dtype):
        return None, reason
    if dtype == "float16":
        return Stored(weights.astype(np.float16)), ""
    return Stored.quantized(weights, OUTPUT_CHANNELS[operator]), ""


def _obstacle(weights: np.ndarray, dtype: StorageType) -> str:
    """Why these weights cannot be rounded to a smaller type; empty if they can."""
    largest = np.abs(weights).max()
    if not np.isfinite(largest):
        return "not finite"
    if dtype == "float16" and largest > _FLOAT16.max:
        return f"largest magnitude {largest:.4g} is above float16's {_FLOAT16.max:g}"
    if dtype == "float16" and 0 < largest < _FLOAT16.tiny:
        return f"largest magnitude {largest:.4g} is subnormal in float16 (below {_FLOAT16.tiny:.4g})"
    return ""


def _store(flatbuffer: Flatbuffer, tensor: int, small: Stored, buffers: dict[bytes, int]) -> schema.OperatorT:
    """Appends the small constant and returns the operator that writes its values to `tensor`.

    `buffers` holds the indices of buffers by their bytes: tensors of equal values share one.
    """
    model, tensors = flatbuffer.model, flatbuffer.subgraph.tensors
    data = small.values.tobytes()
    if data not in buffers:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(data, np.uint8)
        buffers[data] = len(model.buffers)
        model.buffers.append(buffer)
    constant = copy.copy(tensors[tensor])
    constant.buffer = buffers[data]
    constant.name = f"{flatbuffer.name(tensor)}_{small.values.dtype}".encode()
    constant.type = getattr(schema.TensorType, small.values.dtype.name.upper())
    if small.scales is not None:
        constant.quantization = schema.QuantizationParametersT()
        constant.quantization.scale = small.scales
        constant.quantization.zeroPoint = np.zeros(len(small.scales), np.int64)
        constant.quantization.quantizedDimension = small.axis
    tensors.append(constant)
    tensors[tensor].buffer = 0  # TFLite's empty buffer: this tensor is computed now

    operator = schema.OperatorT()
    operator.opcodeIndex = flatbuffer.operator_code(schema.BuiltinOperator.DEQUANTIZE, _DEQUANTIZE_VERSION)
    operator.inputs = np.array([len(tensors) - 1], np.int32)
    operator.outputs = np.array([tensor], np.int32)
    operator.builtinOptionsType = schema.BuiltinOptions.DequantizeOptions
    operator.builtinOptions = schema.DequantizeOptionsT()
    return operator


def stored_constants(flatbuffer: Flatbuffer) -> dict[int, Stored]:
    """The weights that DEQUANTIZE operators read, by the tensor that each operator writes."""
    stored = {}
    for op in flatbuffer.operators:
        values = flatbuffer.constant(op.inputs[0]) if op.name == "DEQUANTIZE" else None
        if values is None or values.dtype not in (np.float16, np.int8):
            continue
        quantization = flatbuffer.subgraph.tensors[op.inputs[0]].quantization
        if values.dtype == np.float16:
            stored[op.outputs[0]] = Stored(values)
        elif not np.any(quantization.zeroPoint):
            scales = np.asarray(quantization.scale, np.float32)
            stored[op.outputs[0]] = Stored(values, scales, quantization.quantizedDimension)
    return stored
