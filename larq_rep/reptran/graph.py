"""Collects a network's layer calls, including nested models, and finds where its backbone begins and ends."""

from collections.abc import Sequence
from typing import NamedTuple

import larq as lq
import tensorflow as tf

from larq_rep.graph import CONV, DEPTHWISE, has_graph, is_norm, nodes, operation

_keras = tf.keras.layers
# Layers that give the same result before and after a repetition; repeating after them is cheaper.
_COMMUTES = (_keras.Activation, _keras.ReLU, _keras.LeakyReLU, _keras.MaxPooling2D, _keras.AveragePooling2D)
# Layers and operations that leave quantized values quantized.
_KEEP_VALUES = (
    "ZeroPadding2D",
    "MaxPooling2D",
    "Flatten",
    "Concatenate",
    "pad",
    "pad_v2",
    "concat",
    "getitem",
    "split",
)
_WEIGHT_QUANTIZERS = ("kernel_quantizer", "depthwise_quantizer", "pointwise_quantizer")


class ReptranError(ValueError):
    """RepTran cannot transform a layer: the message has its name and the reason."""


class Call(NamedTuple):
    """One call of a layer; tensors are keys of the graph's tensors, including those of nested models."""

    layer: tf.keras.layers.Layer
    inputs: list[int]
    outputs: list[int]
    input_shapes: list[tf.TensorShape]
    output_shapes: list[tf.TensorShape]


def _require_graph(model: tf.keras.Model) -> None:
    if not has_graph(model):
        raise ReptranError(
            f"reptran: model {model.name!r} ({type(model).__name__}) has no graph of layers. Expected a functional "
            "model, or a sequential one that knows its input shape."
        )


class Graph:
    """The calls of all layers, with nested models expanded in place; finds where the backbone begins and ends."""

    def __init__(self, model: tf.keras.Model):
        self.name = model.name
        self.calls: list[Call] = []
        self.outputs = self._collect(model, [id(tensor) for tensor in model.inputs or []])
        self.makers = {tensor: call for call in self.calls for tensor in call.outputs}
        self.users: dict[int, list[Call | None]] = {tensor: [None] for tensor in self.outputs}
        for call in self.calls:
            for tensor in call.inputs:
                self.users.setdefault(tensor, []).append(call)

    def _collect(self, model: tf.keras.Model, inputs: list[int]) -> list[int]:
        _require_graph(model)
        keys = dict(zip(map(id, model.inputs), inputs, strict=True))
        for node in nodes(model):
            before = [keys[id(tensor)] for tensor in node.keras_inputs]
            outputs = tf.nest.flatten(node.outputs)
            if isinstance(node.layer, tf.keras.Model):
                after = self._collect(node.layer, before)
            else:
                after = [id(tensor) for tensor in outputs]
                shapes = [[tensor.shape for tensor in tensors] for tensors in (node.keras_inputs, outputs)]
                self.calls.append(Call(node.layer, before, after, *shapes))
            keys.update(zip(map(id, outputs), after, strict=True))
        return [keys[id(tensor)] for tensor in model.outputs]

    def named(self, names: str | Sequence[str], argument: str) -> list[Call]:
        found = []
        for name in [names] if isinstance(names, str) else names:
            calls = [call for call in self.calls if call.layer.name == name]
            if not calls:
                raise ValueError(f"reptran: {argument}={name!r}, but {self.name!r} has no layer of that name.")
            found += calls
        return found

    def find_first(self) -> list[Call]:
        """The last real convolution on every path to a binary one, or the very first convolution if there is none."""
        passed: dict[int, frozenset[int]] = {}
        quantized: set[int] = set()
        to_binary: list[frozenset[int]] = []
        convolutions = []
        # Calls of a shared layer count as one.
        numbers: dict[int, int] = {}
        for number, call in enumerate(self.calls):
            through = [passed.get(tensor, frozenset()) for tensor in call.inputs]
            every = frozenset.intersection(*through) if through else frozenset()
            if isinstance(call.layer, (*CONV, *DEPTHWISE)):
                convolutions.append(call)
                quantizes = getattr(call.layer, "input_quantizer", None) or call.inputs[0] in quantized
                if quantizes and any(getattr(call.layer, name, None) for name in _WEIGHT_QUANTIZERS):
                    to_binary.append(every)
                else:
                    every |= {numbers.setdefault(id(call.layer), number)}
            activation = getattr(call.layer, "activation", None)
            quantizes = isinstance(call.layer, lq.quantizers.Quantizer) or isinstance(
                activation, lq.quantizers.Quantizer
            )
            keeps = operation(call.layer) in _KEEP_VALUES and quantized.issuperset(call.inputs)
            if quantizes or keeps:
                quantized.update(call.outputs)
            passed.update(dict.fromkeys(call.outputs, every))
        if not convolutions:
            raise ReptranError(f"reptran: {self.name!r} has no convolution and no dense layer.")
        before = frozenset.intersection(*to_binary) if to_binary else frozenset()
        first = self.calls[max(before)].layer if before else convolutions[0].layer
        return [call for call in self.calls if call.layer is first]

    def find_last(self) -> list[Call]:
        """The dense layers that outputs come from, for outputs that come only from dense layers."""
        lasts: list[Call] = []
        for output in self.outputs:
            found, pending, seen = [], [output], set()
            while pending:
                tensor = pending.pop()
                call = self.makers.get(tensor)
                if call is None or tensor in seen:
                    continue
                seen.add(tensor)
                if isinstance(call.layer, CONV):
                    found.append(call)
                else:
                    pending += call.inputs
            if all(_is_vector(call.output_shapes[0]) for call in found):
                lasts += [call for call in found if call not in lasts]
        return lasts

    def owned(self) -> set[int]:
        """Convolutions followed by a layer that stands before the repetition."""
        calls = [call for call in self.calls if isinstance(call.layer, CONV)]
        users = {id(call.layer): [self.users.get(tensor, []) for tensor in call.outputs] for call in calls}
        return {
            layer
            for layer, lists in users.items()
            if all(u is not None and is_owned(u.layer) for us in lists for u in us)
        }

    def end_of_stem(self, call: Call, stem: str) -> Call:
        """The call after which the first layer is repeated."""
        end = call
        if stem == "before_bn":
            return end
        while True:
            users = self.users.get(call.outputs[0], [])
            if len(users) != 1 or users[0] is None or len(users[0].inputs) != 1:
                return end
            call = users[0]
            if is_norm(call.layer) and not is_norm(end.layer):
                end = call
            elif not commutes(call.layer):
                return end
            elif is_norm(end.layer) or commutes(end.layer):
                end = call

    def start_of_head(self, call: Call) -> Call:
        """The call whose input is cut for the last layer: after the pooling, before any layer with weights."""
        while True:
            maker = self.makers.get(call.inputs[0])
            if maker is None or len(self.users[call.inputs[0]]) > 1 or len(maker.inputs) != 1:
                return call
            if isinstance(maker.layer, (*CONV, *DEPTHWISE)) or not _is_vector(maker.output_shapes[0]):
                return call
            if not _is_vector(maker.input_shapes[0]):
                pooled = maker.input_shapes[0][-1] == maker.output_shapes[0][-1]
                return call if pooled else maker
            call = maker


def is_owned(layer: tf.keras.layers.Layer) -> bool:
    """Returns whether the weights of a layer belong to the convolution before it, one for each of its filters."""
    return getattr(layer, "belongs_to_convolution", False)


def commutes(layer: tf.keras.layers.Layer) -> bool:
    return isinstance(layer, _COMMUTES) and not isinstance(getattr(layer, "activation", None), lq.quantizers.Quantizer)


def _is_vector(shape: tf.TensorShape) -> bool:
    return shape.rank == 2 or (shape.rank == 4 and shape[1] == shape[2] == 1)
