"""Describes a TFLite file: operators, sizes of its constants, multiply-accumulates of its convolutions."""

from __future__ import annotations

import collections
import math
from dataclasses import asdict, dataclass
from typing import Any

from larq_rep.converters import metadata, quantized
from larq_rep.converters.flatbuffer import Flatbuffer, InvalidFlatbufferError, Operator
from larq_rep.converters.float_weights import OUTPUT_CHANNELS, Stored, needed_bits, stored_constants
from larq_rep.converters.matching import groups

_ACTIVATIONS = {0: "none", 1: "relu", 2: "relu_n1_to_1", 3: "relu6"}


@dataclass(frozen=True)
class Tensor:
    """An input or output of the model. Images are NHWC."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class BinaryConvolution:
    """An `LceBconv2d`.

    # Attributes
        index: Position in the execution order.
        kernel: Height and width of the kernel.
        strides: Vertical and horizontal.
        dilations: Vertical and horizontal.
        padding: `"valid"`, `"same_zero"` or `"same_one"` (the map padded with 0 or +1).
        groups: Number of groups.
        input_shape: NHWC, counting channels, not the words that they are packed in.
        output_shape: NHWC, counting channels even if the output is packed.
        output: `"float32"`, `"int8"`, or `"bits"` where the operator also computes the next sign.
        activation: `"none"`, `"relu"`, `"relu_n1_to_1"` or `"relu6"`, fused before the multiplier.
        macs: Binary multiply-accumulates, KH · KW · C_in / groups for each element of the output.
        weight_bits: Bits of a weight in the file.
        needed_bits: Bits that a weight needs.
    """

    index: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    padding: str
    groups: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    output: str
    activation: str
    macs: int
    weight_bits: int = 1
    needed_bits: int = 1


@dataclass(frozen=True)
class RealOperator:
    """A convolution or dense layer of TFLite, transposed, depthwise and 3-D ones included, in float or int8.

    # Attributes
        index: Position in the execution order.
        name: TFLite's name of the operator.
        weights_shape: OHWI; (1, H, W, C) for the depthwise convolution; (out, in) for the dense layer; DHWIO in 3-D,
            DHWOI if transposed.
        input_shape: Shape of the input.
        output_shape: Shape of the output.
        macs: Multiply-accumulates.
        weight_bits: Bits of a weight in the file: 32, 16 or 8; `None` if the weights are computed.
        needed_bits: Bits that tell the levels of its weights apart, with a scale for each channel: 1 for -s and +s, 2
            for -s, 0 and +s, those of its type for real weights.
        output: Type of its output: `"int8"` for one that computes with integers, otherwise `"float32"`.
    """

    index: int
    name: str
    weights_shape: tuple[int, ...]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    macs: int
    weight_bits: int | None
    needed_bits: int | None
    output: str


@dataclass(frozen=True)
class Island:
    """Connected operators that compute with integers for real numbers, each as its position and name, `"4 CONV_2D"`.

    # Attributes
        operators: In execution order.
        entered: The operators outside that write what these read, or `"input"` and its name.
        left: The operators outside that read what these write, or `"output"` and its name.
    """

    operators: tuple[str, ...]
    entered: tuple[str, ...]
    left: tuple[str, ...]


@dataclass(frozen=True)
class Description:
    """The contents of a file, as `describe` returns them.

    # Attributes
        size: Bytes of the file.
        inputs: Inputs of the model.
        outputs: Outputs of the model.
        operators: Count of each operator, the most frequent first.
        constants: Bytes of the constants: `"binary"` for the packed filters of the binary convolutions, the others by
            element type. The rest of `size` is the graph itself.
        binary_convolutions: The binary convolutions in execution order.
        real_operators: The real-valued convolutions and dense layers in execution order.
        islands: What computes with integers in the place of real numbers.
        metadata: What `larq_rep.converters.convert` recorded about the file: the `version` of this package that
            converted it (0.1.0 did not say so), the `network` it comes from, how images are prepared (`input`) and
            what its `classes` are called, where that is known, and `mirrored_input` if it takes mirrored images. Empty
            for files that others made.
    """

    size: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    operators: dict[str, int]
    constants: dict[str, int]
    binary_convolutions: tuple[BinaryConvolution, ...]
    real_operators: tuple[RealOperator, ...]
    islands: tuple[Island, ...]
    metadata: dict[str, Any]

    @property
    def binary_macs(self) -> int:
        """Binary multiply-accumulates of the model."""
        return sum(conv.macs for conv in self.binary_convolutions)

    @property
    def real_macs(self) -> int:
        """Multiply-accumulates of the real-valued convolutions and dense layers."""
        return sum(op.macs for op in self.real_operators)

    def to_dict(self) -> dict[str, Any]:
        """Everything, totals included, in types that JSON knows."""
        return asdict(self) | {"binary_macs": self.binary_macs, "real_macs": self.real_macs}


def describe(content: bytes) -> Description:
    """Describes a TFLite file, with or without the operators of Larq Compute Engine.

    Multiply-accumulates are counted for one inference at the batch size of the file, padding included, in convolutions
    and dense layers; other products of two activations are not counted, nor are the elementwise operators.

    # Arguments
        content: The bytes of a `.tflite` file.

    # Raises
        InvalidFlatbufferError: If `content` is not a TFLite model.
    """
    return describe_parsed(Flatbuffer(content), content)


def describe_parsed(flatbuffer: Flatbuffer, content: bytes) -> Description:
    """`describe` for a parsed file."""
    try:
        return _describe(flatbuffer, metadata.read(content))
    # Errors that a damaged option or shape leads to.
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise InvalidFlatbufferError(f"The TFLite file is damaged: {error!r}.") from error


def _describe(flatbuffer: Flatbuffer, about: dict[str, Any]) -> Description:
    stored = stored_constants(flatbuffer)
    return Description(
        size=flatbuffer.size,
        inputs=tuple(_tensor(flatbuffer, i) for i in flatbuffer.inputs),
        outputs=tuple(_tensor(flatbuffer, i) for i in flatbuffer.outputs),
        operators=dict(collections.Counter(op.name for op in flatbuffer.operators).most_common()),
        constants=_constant_bytes(flatbuffer),
        binary_convolutions=tuple(
            _binary_convolution(flatbuffer, op) for op in flatbuffer.operators if op.name == "LceBconv2d"
        ),
        real_operators=tuple(
            _real_operator(flatbuffer, op, stored) for op in flatbuffer.operators if op.name in OUTPUT_CHANNELS
        ),
        islands=_islands(flatbuffer),
        metadata=about,
    )


def _tensor(flatbuffer: Flatbuffer, index: int) -> Tensor:
    return Tensor(flatbuffer.name(index), flatbuffer.shape(index), flatbuffer.dtype(index))


def _constant_bytes(flatbuffer: Flatbuffer) -> dict[str, int]:
    filters = {op.inputs[1] for op in flatbuffer.operators if op.name == "LceBconv2d"}
    sizes: collections.Counter[str] = collections.Counter()
    seen = set()
    for index, tensor in enumerate(flatbuffer.subgraph.tensors):
        # Equal constants may share a buffer, which the file holds once.
        if tensor.buffer not in seen and (size := flatbuffer.constant_bytes(index)):
            seen.add(tensor.buffer)
            sizes["binary" if index in filters else flatbuffer.dtype(index)] += size
    return dict(sizes.most_common())


def _binary_convolution(flatbuffer: Flatbuffer, op: Operator) -> BinaryConvolution:
    options = op.options
    filters, height, width, _ = flatbuffer.shape(op.inputs[1])
    channels_in, group_count = options["channels_in"], groups(flatbuffer, op)
    # Where the output is packed, its last dimension counts words of 32 channels.
    output_shape = (*flatbuffer.shape(op.outputs[0])[:-1], filters)
    output = flatbuffer.dtype(op.outputs[0])
    if options["padding"] == 1:
        padding = "valid"
    else:
        padding = "same_one" if options["pad_values"] == 1 else "same_zero"
    return BinaryConvolution(
        index=op.index,
        kernel=(height, width),
        strides=(options["stride_height"], options["stride_width"]),
        dilations=(options["dilation_height_factor"], options["dilation_width_factor"]),
        padding=padding,
        groups=group_count,
        input_shape=(*flatbuffer.shape(op.inputs[0])[:-1], channels_in),
        output_shape=output_shape,
        output="bits" if output == "int32" else output,
        activation=_ACTIVATIONS[options["fused_activation_function"]],
        macs=height * width * channels_in // group_count * math.prod(output_shape),
    )


def _real_operator(flatbuffer: Flatbuffer, op: Operator, stored: dict[int, Stored]) -> RealOperator:
    transposed = op.name in ("TRANSPOSE_CONV", "CONV_3D_TRANSPOSE")
    data = op.inputs[2 if transposed else 0]
    inputs, weights, output = (flatbuffer.shape(tensor) for tensor in (data, op.inputs[1], op.outputs[0]))
    if transposed:  # each element of the input meets all weights of its channel
        macs = math.prod(inputs) * math.prod(weights[:-1])
    else:  # each element of the output uses all weights of its output channel
        macs = math.prod(output) * math.prod(weights) // weights[OUTPUT_CHANNELS[op.name]]
    small = stored.get(op.inputs[1])
    values = flatbuffer.constant(op.inputs[1]) if small is None else small.values
    bits, needed = (None, None) if values is None else (values.dtype.itemsize * 8, needed_bits(values))
    dtype = flatbuffer.dtype(op.outputs[0])
    return RealOperator(op.index, op.name, weights, inputs, output, macs, bits, needed, dtype)


def _islands(flatbuffer: Flatbuffer) -> tuple[Island, ...]:
    """The sets of operators that tensors of integers connect, apart from those that only convert."""
    integers = {
        tensor
        for tensor in {*flatbuffer.inputs, *flatbuffer.producers}
        if quantized.quantization(flatbuffer, tensor) is not None
    }
    left = {
        op.index: op
        for op in flatbuffer.operators
        if op.name != "QUANTIZE" and integers.intersection(op.inputs) and integers.intersection(op.outputs)
    }
    found = []
    while left:
        members, tensors = set[int](), set[int]()
        near = {min(left)}
        while near:
            tensors |= {t for index in near for t in (*left[index].inputs, *left[index].outputs)} & integers
            members |= near
            near = {index for index, op in left.items() if tensors.intersection((*op.inputs, *op.outputs))} - members
        found.append(_island(flatbuffer, members, sorted(tensors)))
        left = {index: op for index, op in left.items() if index not in members}
    return tuple(found)


def _island(flatbuffer: Flatbuffer, members: set[int], tensors: list[int]) -> Island:
    def named(op: Operator) -> str:
        return f"{op.index} {op.name}"

    entered = [f"input {flatbuffer.name(t)}" for t in tensors if t in flatbuffer.inputs]
    left = [f"output {flatbuffer.name(t)}" for t in tensors if t in flatbuffer.outputs]
    writers = {op.index: op for t in tensors if (op := flatbuffer.producers.get(t)) and op.index not in members}
    readers = {op.index: op for t in tensors for op in flatbuffer.consumers.get(t, []) if op.index not in members}
    return Island(
        tuple(named(flatbuffer.operators[index]) for index in sorted(members)),
        tuple(entered + [named(writers[index]) for index in sorted(writers)]),
        tuple([named(readers[index]) for index in sorted(readers)] + left),
    )
