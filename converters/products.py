r"""Turns dense and one-dimensional layers of signs into convolutions of maps, the only layers that LCE packs.

A dense layer is a 1x1 convolution, of a map of one place or of all those that it is applied to. Behind a flattened map
whose channels fill words of 32 bits it is a convolution of that map with a filter as large, so that the signs stay
packed on the way. A 1-D convolution is one of a map of height 1.

LCE packs a convolution only if nothing stands between it and its sign, and takes up the bias and the batch
normalization only if nothing stands between these. So no reshape may be left there: operators that treat every place
alike are computed on maps, too, from the convolution on as far as possible, and back from it to the number whose sign
is taken. The results of consecutive layers then stay maps.

Where 0 pads the sequence in other amounts than those of "same", `borders` takes off what +1 adds there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import graph_pb2

from larq_rep.converters.borders import SHAPES, BorderedCopy, Windows
from larq_rep.converters.marks import PLANES, mark_of
from larq_rep.converters.matrix_products import MATRIX_PRODUCTS, matrix_product
from larq_rep.converters.planes import same_padding
from larq_rep.converters.sign_patterns import binary_activation
from larq_rep.converters.tensors import PASS_THROUGH, Weights, constant_value

_Shape = tuple[int, ...]
# The last shape is that of all operands, or of one number for each channel.
_ELEMENTWISE = {
    *("Add", "AddV2", "BiasAdd", "Sub", "Mul", "RealDiv", "Maximum", "Minimum", "SquaredDifference", "Pow"),
    *("Abs", "Neg", "Sign", "Square", "Sqrt", "Rsqrt", "Exp", "Log", "Round", "Floor", "Cast", "OnesLike", "ZerosLike"),
    *("Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Sigmoid", "Tanh", "Softplus", "ClipByValue"),
    *("Greater", "GreaterEqual", "Less", "LessEqual", "Select", "SelectV2", "LogicalNot", "LogicalAnd", "LogicalOr"),
    *("FakeQuantWithMinMaxArgs", "FakeQuantWithMinMaxVars", "FusedBatchNormV3"),
}
# The conditions of LCE's converter for the weights of a filter.
_SMALLEST_SCALE, _APART = 1.2e-7, 0.005
_WORD = 32
_OTHER_THRESHOLDS = "its sign compares with other numbers than one for each channel; add them in front of it"


@dataclass(frozen=True)
class Replaced:
    """A layer of which a graph has another form.

    # Attributes
        layer: The name of its node.
        read: The tensor of signs that it reads.
        map: The tensor that the other form reads.
    """

    layer: str
    read: str
    map: str


@dataclass
class Convolved:
    """A graph whose layers of signs are convolutions of maps.

    # Attributes
        definition: The graph.
        original: The graph before.
        results: The replaced layers, by the name of the node that gives the result in both graphs, which is a layer's
            own or that of an operator that it takes up.
        reasons: Why another one stays as it is, by the name of its node.
    """

    definition: graph_pb2.GraphDef
    original: graph_pb2.GraphDef
    results: dict[str, Replaced] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


def convolve(definition: graph_pb2.GraphDef, inputs: Sequence[str], weights: Weights) -> Convolved:
    """Rewrites each dense and each 1-D layer that multiplies signs, or a marked map, and binary weights.

    # Arguments
        definition: The frozen graph.
        inputs: Names of its input nodes.
        weights: Its large weights.
    """
    result = Convolved(definition, definition)
    if _may_have_any(definition):
        _Convolving(definition, inputs, weights, result).rewrite()
    return result


def _may_have_any(definition: graph_pb2.GraphDef) -> bool:
    """Whether a dense or 1-D layer reads a sign or a mark; most graphs have none and need not be looked at again."""
    nodes = {node.name: node for node in definition.node}
    between = {*PASS_THROUGH, *SHAPES, "Pad", "PadV2", "SpaceToBatchND"}
    for node in definition.node:
        product = node.op in MATRIX_PRODUCTS
        for name in node.input[: 2 if product else node.op == "Conv2D"]:
            shaped, source = product, nodes[name.partition(":")[0]]
            while source.op in between and not mark_of(source):
                shaped |= source.op in SHAPES
                source = nodes[source.input[0].partition(":")[0]]
            if shaped and (source.op in ("Sign", "Select", "SelectV2") or mark_of(source) == PLANES):
                return True
    return False


class StaysError(Exception):
    """Why a layer stays as it is; empty if `audit` says it."""


@dataclass(frozen=True)
class _Sequence:
    """How a 1-D convolution reads a sequence.

    # Attributes
        read: The sequence without padding.
        source: The sign or marked map that it is.
        result: The node that gives its result.
        padding: Places before and after.
        fill: What pads.
        dilation: Distance of the taps.
    """

    read: tf.Tensor
    source: tf.Tensor
    result: tf.Operation
    padding: tuple[int, int]
    fill: float
    dilation: int


class _Convolving(BorderedCopy):
    def __init__(self, definition: graph_pb2.GraphDef, inputs: Sequence[str], weights: Weights, result: Convolved):
        super().__init__(definition, inputs, weights)
        self._result = result
        result.definition = self.definition
        # The name and the shape of the map that holds the numbers of a tensor, from a convolution on.
        self._maps: dict[str, tuple[str, _Shape]] = {}
        # The same for tensors in front of one, by their names and these shapes.
        self._reshaped: dict[tuple[str, _Shape], str] = {}

    def rewrite(self) -> None:
        for node in self.graph.get_operations():
            if node.name not in self.data_dependent:
                continue
            try:
                if node.type in MATRIX_PRODUCTS:
                    self._dense(node)
                elif node.type == "Conv2D":
                    self._sequence(node)
                elif any(x.name in self._maps for x in node.inputs):
                    self._follow(node)
            except StaysError as reason:
                if str(reason):
                    self._result.reasons[node.name] = str(reason)

    def _dense(self, node: tf.Operation) -> None:
        product = matrix_product(node, self.data_dependent)
        if product is None or not packed(source := behind(product.data)[-1]):
            raise StaysError
        data, kernel = product.data, product.kernel
        if product.reason:
            raise StaysError(product.reason)
        if not data.shape.is_fully_defined():
            raise StaysError("the shape of its input is not known")
        name, weights = name_of(kernel), product.matrix(self._session.run(kernel))
        self._check(weights, kernel)
        features, units = weights.shape
        if list(product.order) != sorted(product.order):
            name = self._constant(f"{node.name}/kernel", weights)
        for shape in _map_shapes(data, source, data.shape.rank - product.summed, features):
            if (x := self._reshape(data, shape, _compared(source))) is not None:
                size = (1, 1) if shape[3] == features else shape[1:3]
                filters = self._shaped(name, (*size, shape[3], units))
                convolution = self._conv2d(f"{node.name}/convolution", x, filters)
                places = shape[1:3] if shape[3] == features else (1, 1)
                self._replace(node.outputs[0], convolution, (shape[0], *places, units))
                self._result.results[node.name] = Replaced(node.name, data.name, x)
                return
        raise StaysError(_OTHER_THRESHOLDS)

    def _sequence(self, node: tf.Operation) -> None:
        sequence = _sequence(node)
        kernel = node.inputs[1]
        if sequence is None or not packed(sequence.source) or kernel.op.name in self.data_dependent:
            raise StaysError
        weights = self._session.run(kernel)
        self._check(weights, kernel)
        batch, steps, channels = sequence.source.shape.as_list()
        if channels != weights.shape[2] and weights.shape[2] % _WORD:
            raise StaysError
        x = self._reshape(sequence.source, (batch, 1, steps, channels), _compared(sequence.source))
        if x is None:
            raise StaysError(_OTHER_THRESHOLDS)
        before, after = sequence.padding
        stride, dilation = node.get_attr("strides")[2], sequence.dilation
        window = (weights.shape[1] - 1) * dilation + 1
        as_same = np.array_equal(same_padding([steps], [window], [stride])[0], sequence.padding)
        outputs = (steps + before + after - window) // stride + 1
        shape = (batch, 1, outputs, weights.shape[3])
        arguments = name_of(kernel), [1, stride], [1, dilation]
        name, around = f"{node.name}/convolution", [(0, 0), sequence.padding]
        y = sequence.result.outputs[0]
        if sequence.fill not in (-1, 0, 1):
            raise StaysError("its input is padded with other numbers than -1, 0 or 1")
        if not (before or after):
            result = self._conv2d(name, x, *arguments)
        elif mark_of(sequence.source.op):
            if sequence.fill:
                raise StaysError("its quantized input is padded with other numbers than 0; use pad_values=0")
            result = self._conv2d(name, self._padded(f"{node.name}/padding", x, around, 0), *arguments)
        elif sequence.fill == 0 and as_same and steps >= window:
            result = self._conv2d(name, x, *arguments, b"SAME")
        else:
            data = self._padded(f"{node.name}/padding", x, around, sequence.fill or 1.0)
            if not as_same or sequence.fill != 1:
                # LCE takes other amounts for those of 'same', or makes a float convolution, unless a sign follows.
                data = self._signed_again(data)
            if sequence.fill:
                result = self._conv2d(name, data, *arguments)
            else:
                row = Windows(1, 0, 1, 1, 1)
                column = Windows(steps, -before, weights.shape[1], outputs, outputs, stride, dilation)
                y, *taken_up = self._taken_up(y)
                result = self._convolution(name, data, around, (row, column), name_of(kernel), weights, *taken_up)
        self._replace(y, result, shape)
        self._result.results[y.op.name] = Replaced(node.name, sequence.read.name, x)

    def _check(self, weights: np.ndarray, kernel: tf.Tensor) -> None:
        """Raises if LCE does not pack a kernel."""
        if not mark_of(behind(kernel)[-1].op) and not packable(weights):
            raise StaysError

    def _follow(self, node: tf.Operation) -> None:
        """Computes a node on maps if that gives the same."""
        if node.type in PASS_THROUGH and not mark_of(node):
            pairs = zip(node.inputs, node.outputs, strict=True)
            self._maps |= {y.name: self._maps[x.name] for x, y in pairs if x.name in self._maps}
        elif node.type in SHAPES:
            (x, *_), (y,) = node.inputs, node.outputs
            if x.name in self._maps and y.shape.rank and y.shape[-1] == x.shape[-1]:
                self._maps[y.name] = self._maps[x.name]
        else:
            shape = next(self._maps[x.name][1] for x in node.inputs if x.name in self._maps)
            if (name := self._on_maps(node, shape)) is not None:
                self._replace(node.outputs[0], name, shape)

    def _on_maps(self, node: tf.Operation, shape: _Shape, until: tf.Tensor | None = None) -> str | None:
        """The copy of an operator that computes its result in another shape; `None` if it cannot be."""
        y, copy = node.outputs[0], node.node_def
        if (node.type not in _ELEMENTWISE and not mark_of(node)) or not y.shape.is_fully_defined():
            return None
        if "data_format" in copy.attr:
            if copy.attr["data_format"].s.startswith(b"NC"):
                return None
            copy.attr["data_format"].s = b"NHWC"
        if node.type == "Select":  # TensorFlow 1's, without broadcasting
            if node.inputs[0].shape != y.shape:
                return None
            copy.op = "SelectV2"
        constants: dict[str, str] = {}
        names = []
        for x in node.inputs:
            if x.op.name not in self.data_dependent:
                if (aligned := self._aligned(x, y.shape, shape)) is None:
                    return None
                constants[x.name] = aligned
            elif x.shape != y.shape:
                return None
        for number, x in enumerate(node.inputs):
            within = _compared(behind_identities(x)) if number and mark_of(node) else until
            name = constants.get(x.name) or self._reshape(x, shape, within)
            if name is None:
                return None
            names.append(name)
        copy.attr.pop("_output_shapes", None)
        # The last part of its name tells a mark.
        copy.name, copy.input[:] = f"{node.name}/{_written(shape)}/{node.name.rpartition('/')[2]}", names
        self.definition.node.append(copy)
        return copy.name

    def _aligned(self, constant: tf.Tensor, shape: tf.TensorShape, wanted: _Shape) -> str | None:
        """A constant operand as one of maps: a number, or a number for each channel."""
        if not constant.shape.is_fully_defined():
            return None
        size = constant.shape.num_elements()
        of_channels = size == constant.shape[-1:].num_elements() == wanted[-1] == shape[-1]
        if constant.shape.rank <= 1 and (size == 1 or of_channels):
            return name_of(constant)
        if (number := self._repeated(constant)) is not None or not of_channels:
            return number
        return self._shaped(name_of(constant), (size,), constant.dtype)

    def _repeated(self, constant: tf.Tensor) -> str | None:
        """The number that a constant consists of, as that of `tf.ones_like`."""
        name = f"{constant.op.name}/number_{constant.value_index}"
        if name not in self._nodes:
            number, *others = np.unique(self._session.run(constant))
            if others:
                return None
            self._constant(name, number)
            self._nodes[name] = self.definition.node[-1]
        return name

    def _reshape(self, tensor: tf.Tensor, shape: _Shape, until: tf.Tensor | None = None) -> str | None:
        """The name of a tensor with the numbers of another, which is given its shape as early as possible.

        # Arguments
            tensor: The tensor.
            shape: The new shape.
            until: A tensor behind which all have to be computed in this shape, since nothing may stand between the
                operators of a sign; the result is `None` if they cannot be.
        """
        until = None if tensor is until else until
        own = tuple(tensor.shape.as_list()) if tensor.shape.rank else ()
        name, found = self._maps.get(tensor.name, (name_of(tensor), own))
        # A reshape between the sign and its convolution may give this shape, too.
        if found == shape and (until is None or not _keeps_numbers(tensor.op)):
            return name
        if tensor.name in self._maps and until is None:
            return self._shaped(name, shape, tensor.dtype)
        if (tensor.name, shape) not in self._reshaped:
            node, reshaped = tensor.op, None
            if _keeps_numbers(node):
                reshaped = self._reshape(node.inputs[tensor.value_index], shape, until)
            elif until is not None or len(tensor.consumers()) == 1:
                reshaped = self._on_maps(node, shape, until)
            if reshaped is None and until is not None:
                return None
            self._reshaped[tensor.name, shape] = reshaped or self._shaped(name_of(tensor), shape, tensor.dtype)
        return self._reshaped[tensor.name, shape]

    def _replace(self, tensor: tf.Tensor, name: str, shape: _Shape) -> None:
        """Gives a tensor the numbers of a map."""
        self._maps[tensor.name] = name, shape
        node = self._nodes[tensor.op.name]
        amounts = self._constant(f"{node.name}/shape_of_result", _any_batch(tensor.shape.as_list()))
        node.op, node.input[:] = "Reshape", [name, amounts]
        node.attr.clear()
        node.attr["T"].type = tensor.dtype.as_datatype_enum
        node.attr["Tshape"].type = tf.int32.as_datatype_enum

    def _shaped(self, x: str, shape: _Shape, dtype: tf.DType = tf.float32) -> str:
        name = f"{x.replace(':', '/output_')}/{_written(shape)}"
        if name not in self._nodes:
            amounts = self._constant(f"{name}/shape", _any_batch(shape))
            self._add("Reshape", name, x, amounts)
            self._nodes[name] = node = self.definition.node[-1]
            node.attr["T"].type = dtype.as_datatype_enum
            node.attr["Tshape"].type = tf.int32.as_datatype_enum
        return name


def packable(weights: np.ndarray) -> bool:
    """Whether LCE packs the weights of a filter, whose last axis is that of the output channels."""
    magnitude = np.abs(weights.reshape(-1, weights.shape[-1]))
    # A single weight has a magnitude of its own, so it is binary only if it is a sign.
    apart = 0 if len(magnitude) == 1 else _APART
    scale = magnitude[0] if apart else 1.0
    return bool(magnitude.min(initial=np.inf) > _SMALLEST_SCALE and np.all(np.abs(magnitude / scale - 1) <= apart))


def name_of(tensor: tf.Tensor) -> str:
    """The name of a tensor as the input of a node."""
    return tensor.name.removesuffix(":0")


def _written(shape: _Shape) -> str:
    return "as_" + "x".join(map(str, shape))


def _any_batch(shape: Sequence[int]) -> np.ndarray:
    """The shape for a reshape, which leaves the first size open."""
    return np.array([-1, *shape[1:]], np.int32)


def _keeps_numbers(node: tf.Operation) -> bool:
    """Whether the results of a node have the numbers of its inputs in the same order."""
    return node.type in (*SHAPES, *PASS_THROUGH) and not mark_of(node)


def behind(tensor: tf.Tensor) -> list[tf.Tensor]:
    """A tensor, and those with the same numbers in the same order that it is made of, the nearest first."""
    found = [tensor]
    while _keeps_numbers(tensor.op):
        tensor = tensor.op.inputs[tensor.value_index]
        found.append(tensor)
    return found


def behind_identities(tensor: tf.Tensor) -> tf.Tensor:
    while tensor.op.type in PASS_THROUGH and not mark_of(tensor.op):
        tensor = tensor.op.inputs[tensor.value_index]
    return tensor


def packed(tensor: tf.Tensor) -> bool:
    """Whether a tensor is one of signs, or of a sum of signs."""
    return mark_of(tensor.op) == PLANES or binary_activation(tensor.op) is not None


def _compared(source: tf.Tensor) -> tf.Tensor | None:
    """Where a sign begins; for a mark its value, of which it is a copy."""
    sign = binary_activation(source.op)
    return sign.compared if sign is not None else source.op.inputs[0] if mark_of(source.op) else None


def _map_shapes(data: tf.Tensor, source: tf.Tensor, rank: int, features: int) -> list[_Shape]:
    """The shapes that the map of a dense layer of so many axes of places may have, the best first."""
    sign = binary_activation(source.op)
    found = []
    for tensor in [*behind(data), *(behind(sign.compared) if sign else [])]:
        if not tensor.shape.is_fully_defined() or tensor.shape.rank < 2:
            continue
        batch, *places, channels = tensor.shape.as_list()
        size = places if len(places) == 2 else [1, int(np.prod(places))]
        flattened = batch == data.shape[0] and int(np.prod(size)) * channels == features
        if channels == features or (flattened and channels % _WORD == 0):
            found.append((batch, *size, channels))
    # Without reshapes behind the map where it comes from.
    return [*dict.fromkeys(reversed(found)), (data.shape[0], 1, int(np.prod(data.shape[1:rank])), features)]


def _sequence(node: tf.Operation) -> _Sequence | None:
    """How a convolution reads a sequence that was given a height of 1."""
    expanded, result = behind_identities(node.inputs[0]), node
    if expanded.op.type != "ExpandDims" or constant_value(expanded.op.inputs[1]) not in (1, -3):
        return None
    if node.get_attr("padding") == b"EXPLICIT":
        return None
    read = expanded.op.inputs[0]
    source = behind_identities(read)
    padding, dilation, fill = np.zeros(2, np.int64), node.get_attr("dilations")[2], 0.0
    if source.op.type == "SpaceToBatchND":  # how TensorFlow dilates
        block, amounts = map(constant_value, source.op.inputs[1:])
        for kind in ("Squeeze", "BatchToSpaceND"):
            readers = result.outputs[0].consumers()
            if [reader.type for reader in readers] != [kind]:
                return None
            (result,) = readers
        crops = constant_value(result.inputs[2])
        if block is None or amounts is None or crops is None or len(block) != 1:
            return None
        padding, dilation = padding + (amounts - crops)[0], int(block[0])
        read = source.op.inputs[0]
        source = behind_identities(read)
    if source.op.type in ("Pad", "PadV2"):
        amounts = constant_value(source.op.inputs[1])
        value = constant_value(source.op.inputs[2]) if source.op.type == "PadV2" else np.zeros(())
        if amounts is None or value is None or amounts[[0, 2]].any() or (padding.any() and value):
            return None
        padding, fill = padding + amounts[1], float(value)
        read = source.op.inputs[0]
        source = behind_identities(read)
    if not source.shape.is_fully_defined() or source.shape.rank != 3:
        return None
    if node.get_attr("padding") == b"SAME":
        if padding.any():
            return None
        window = (node.inputs[1].shape[1] - 1) * dilation + 1
        padding = same_padding([source.shape[1]], [window], [node.get_attr("strides")[2]])[0]
    return _Sequence(read, source, result, (int(padding[0]), int(padding[1])), fill, dilation)
