r"""RepTran: RepBNN's transformation of a network, as one function."""

import inspect
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import larq as lq
import numpy as np
import tensorflow as tf

from larq_rep.layers.repeat import (
    RepConv2D,
    RepDense,
    Repeat,
    RepLayer,
    RepQuantConv2D,
    RepQuantDense,
)

_keras = tf.keras.layers
# Layers that mix channels, and what takes their place.
_REP = {
    lq.layers.QuantConv2D: RepQuantConv2D,
    _keras.Conv2D: RepConv2D,
    lq.layers.QuantDense: RepQuantDense,
    _keras.Dense: RepDense,
    **{rep: rep for rep in (RepQuantConv2D, RepConv2D, RepQuantDense, RepDense)},
}
# Convolutions of each channel by itself, which follow like any other layer.
_DEPTHWISE = (_keras.DepthwiseConv2D,)
_CONV = (
    *(_keras.Conv1D, _keras.Conv2D, _keras.Conv3D, _keras.Dense),
    *(_keras.Conv1DTranspose, _keras.Conv2DTranspose, _keras.Conv3DTranspose),
    *(_keras.SeparableConv1D, _keras.SeparableConv2D, _keras.DepthwiseConv1D),
)
# Layers that give the same before and after a repetition; it is cheaper after them.
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
    """A layer that RepTran cannot transform: the message has its name and the reason."""


def reptran(
    model: tf.keras.Model,
    beta: int = 2,
    *,
    last_layer: int = 1,
    stem: str = "after_bn",
    bn: str = "after",
    first: str | Sequence[str] | None = None,
    last: str | Sequence[str] | None = None,
    input_tensor: tf.Tensor | None = None,
    name: str | None = None,
) -> tf.keras.Model:
    r"""Transforms a network into its Rep network, in which every feature map has beta times the channels.

    By the rules of RepBNN, section 3.3:

    | original | becomes |
    |---|---|
    | first layer | itself, its output repeated \\(\beta\\) times |
    | binary or real convolution `(kh, kw, C, D)` | `RepQuantConv2D`, `RepConv2D`: kernel `(kh, kw, beta C, D / beta)` |
    | hidden dense layer `(C, D)` | `RepQuantDense`, `RepDense`: kernel `(beta C, D / beta)` |
    | batch normalisation, PReLU, RSign, any layer with weights for each channel | itself, beta times the weights |
    | layer with `belongs_to_convolution = True`, such as `PrecisionGate` | itself, before the repetition |
    | shortcut, pooling, concatenation, shuffle, activation | itself |
    | slice or padding of channels | the same with \\(\beta\\) times the numbers |
    | last layer `(C, N)` | `(beta C, N)`, or less by `last_layer` |

    A convolution has as many weights and operations for every \\(\beta\\). The names of the layers stay; the
    only new ones are the repetitions (`<first>_repeat`, and `<convolution>_repeat` where it does not follow
    directly). Weights have initial values, since their shapes differ. With `beta=1` the network computes the
    same and has the weights of the original.

    Any functional (or sequential) model of Keras and Larq layers can be transformed, also one with nested
    models. A layer of another kind is built again from its config on the repeated channels; where that does
    not give \\(\beta\\) times the channels it is refused.

    ```python
    model = larq_rep.reptran(larq_zoo.literature.BiRealNet(weights=None), beta=2)
    ```

    # Arguments
        model: A model with a graph of layers. It stays as it is.
        beta: The repeating factor, an integer of at least 1 that divides the filters of every convolution.
        last_layer: What the last layer takes: 1 (the paper's choice) all \\(\beta C\\) channels, 2 the first
            \\(C\\), 3 the first \\(C / \beta\\), one unrepeated block. The paper does not say which
            channels.
        stem: Where the first layer is repeated: `"after_bn"` (default, as in the authors' code) behind the
            batch normalisation that follows it, `"before_bn"` (as in the paper) directly behind it.
        bn: Where the batch normalisation of a convolution stands: `"after"` its repetition (default), or
            `"before"` it, the ablation of Table 4.
        first: Name(s) of the first layer(s), those that are repeated instead of transformed. By default the
            last real convolution that every path from the image to a binary convolution passes, or the
            first convolution if there is none. Layers before it stay as they are.
        last: Name(s) of the last layer(s), which keep their number of outputs. By default the dense layer, or
            convolution of a 1x1 map, that each output comes from. A network without (`include_top=False`)
            has no last layer, and outputs of \\(\beta\\) times the channels.
        input_tensor: A Keras tensor that the new network starts from, instead of an input of its own.
        name: Name of the new model, by default `rep_` and the old name.

    # Returns
        A functional Keras model.

    # Raises
        ReptranError: If a layer cannot be transformed, with its name and the reason. It is a `ValueError`.
        ValueError: If an argument is not one of those above or there is no layer of that name.

    # References
        - [RepBNN: towards a precise Binary Neural Network with Enhanced Feature Map via
          Repeating](https://arxiv.org/abs/2207.09049), sections 3 and 4.3, Table 4
    """
    for argument, value, choices in (
        ("last_layer", last_layer, (1, 2, 3)),
        ("stem", stem, ("after_bn", "before_bn")),
        ("bn", bn, ("after", "before")),
    ):
        if value not in choices:
            raise ValueError(f"reptran: {argument} must be one of {', '.join(map(repr, choices))}, found {value!r}.")
    if not isinstance(beta, int) or isinstance(beta, bool) or beta < 1:
        raise ValueError(f"reptran: beta must be an integer of at least 1, found {beta!r}.")
    graph = _Graph(model)
    firsts = graph.named(first, "first") if first is not None else graph.find_first()
    lasts = graph.named(last, "last") if last is not None else graph.find_last()
    if input_tensor is not None:
        _check_input_tensor(model, input_tensor)
    if beta != 1 and (both := {call.layer.name for call in firsts} & {call.layer.name for call in lasts}):
        raise ReptranError(
            f"reptran: layer {min(both)!r} is the first layer as well as the last, so there is nothing to transform "
            "between. (Layers within others, such as TimeDistributed, are not seen.)"
        )
    if last_layer != 1 and not lasts:
        raise ValueError(f"reptran: last_layer={last_layer}, but {model.name!r} has no last layer. Name it with last=.")
    transformer = _Transformer(
        beta,
        firsts={id(call.layer) for call in firsts},
        lasts={id(call.layer) for call in lasts},
        repeated={graph.end_of_stem(call, stem).outputs[0]: f"{call.layer.name}_repeat" for call in firsts},
        cuts={graph.start_of_head(call).outputs[0]: beta ** (last_layer - 1) for call in lasts},
        unrepeated=graph.owned(),
        bn_before=bn == "before",
        names={call.layer.name for call in graph.calls},
    )
    result, _ = transformer.visit(model, [Fraction(1)] * len(model.inputs), name or f"rep_{model.name}", input_tensor)
    for old, new in transformer.layers.values():
        # What a normalisation of the image has from `adapt` is no initial value.
        adapted = isinstance(old, _keras.Normalization) and _count(old) == _count(new)
        if beta == 1 or adapted:
            new.set_weights(old.get_weights())
    return result


def _check_input_tensor(model: tf.keras.Model, tensor) -> None:
    if len(model.inputs) != 1:
        raise ValueError(
            f"reptran: input_tensor is for models of one input, but {model.name!r} has {len(model.inputs)}."
        )
    if not hasattr(tensor, "node"):
        raise ValueError(f"reptran: input_tensor must be a Keras tensor, found {type(tensor).__name__}.")
    if not model.inputs[0].shape.is_compatible_with(tensor.shape):
        expected, found = tuple(model.inputs[0].shape), tuple(tensor.shape)
        raise ValueError(f"reptran: input_tensor must have the shape {expected} of the model's input, found {found}.")


class _Call(NamedTuple):
    """One call of a layer; tensors are keys of the tensors of the graph, those of nested models included."""

    layer: tf.keras.layers.Layer
    inputs: list[int]
    outputs: list[int]
    input_shapes: list[tf.TensorShape]
    output_shapes: list[tf.TensorShape]


def _nodes(model: tf.keras.Model) -> Iterator[Any]:
    """The calls of the layers of a model, inputs first."""
    # Keras has no public name for this.
    for _, nodes in sorted(model._nodes_by_depth.items(), reverse=True):
        yield from (node for node in nodes if not node.is_input)


def _require_graph(model: tf.keras.Model) -> None:
    if getattr(model, "_nodes_by_depth", None) is None:
        raise ReptranError(
            f"reptran: model {model.name!r} ({type(model).__name__}) has no graph of layers. Expected a functional "
            "model, or a sequential one that knows its input shape."
        )


class _Graph:
    """The calls of all layers, those of nested models in their places; finds where the backbone begins and ends."""

    def __init__(self, model: tf.keras.Model):
        self.name = model.name
        self.calls: list[_Call] = []
        self.outputs = self._collect(model, [id(tensor) for tensor in model.inputs or []])
        self.makers = {tensor: call for call in self.calls for tensor in call.outputs}
        self.users: dict[int, list[_Call | None]] = {tensor: [None] for tensor in self.outputs}
        for call in self.calls:
            for tensor in call.inputs:
                self.users.setdefault(tensor, []).append(call)

    def _collect(self, model: tf.keras.Model, inputs: list[int]) -> list[int]:
        _require_graph(model)
        keys = dict(zip(map(id, model.inputs), inputs, strict=True))
        for node in _nodes(model):
            before = [keys[id(tensor)] for tensor in node.keras_inputs]
            outputs = tf.nest.flatten(node.outputs)
            if isinstance(node.layer, tf.keras.Model):
                after = self._collect(node.layer, before)
            else:
                after = [id(tensor) for tensor in outputs]
                shapes = [[tensor.shape for tensor in tensors] for tensors in (node.keras_inputs, outputs)]
                self.calls.append(_Call(node.layer, before, after, *shapes))
            keys.update(zip(map(id, outputs), after, strict=True))
        return [keys[id(tensor)] for tensor in model.outputs]

    def named(self, names: str | Sequence[str], argument: str) -> list[_Call]:
        found = []
        for name in [names] if isinstance(names, str) else names:
            calls = [call for call in self.calls if call.layer.name == name]
            if not calls:
                raise ValueError(f"reptran: {argument}={name!r}, but {self.name!r} has no layer of that name.")
            found += calls
        return found

    def find_first(self) -> list[_Call]:
        """The last real convolution that each path to a binary one passes, or the first convolution of all."""
        passed: dict[int, frozenset[int]] = {}
        quantized: set[int] = set()
        to_binary: list[frozenset[int]] = []
        convolutions = []
        # Calls of a shared layer count as one.
        numbers: dict[int, int] = {}
        for number, call in enumerate(self.calls):
            through = [passed.get(tensor, frozenset()) for tensor in call.inputs]
            every = frozenset.intersection(*through) if through else frozenset()
            if isinstance(call.layer, (*_CONV, *_DEPTHWISE)):
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
            keeps = _operation(call.layer) in _KEEP_VALUES and quantized.issuperset(call.inputs)
            if quantizes or keeps:
                quantized.update(call.outputs)
            passed.update(dict.fromkeys(call.outputs, every))
        if not convolutions:
            raise ReptranError(f"reptran: {self.name!r} has no convolution and no dense layer.")
        before = frozenset.intersection(*to_binary) if to_binary else frozenset()
        first = self.calls[max(before)].layer if before else convolutions[0].layer
        return [call for call in self.calls if call.layer is first]

    def find_last(self) -> list[_Call]:
        """The dense layers that the outputs come from, of those outputs that come from nothing else."""
        lasts: list[_Call] = []
        for output in self.outputs:
            found, pending, seen = [], [output], set()
            while pending:
                tensor = pending.pop()
                call = self.makers.get(tensor)
                if call is None or tensor in seen:
                    continue
                seen.add(tensor)
                if isinstance(call.layer, _CONV):
                    found.append(call)
                else:
                    pending += call.inputs
            if all(_is_vector(call.output_shapes[0]) for call in found):
                lasts += [call for call in found if call not in lasts]
        return lasts

    def owned(self) -> set[int]:
        """Convolutions with a layer behind them that stands before the repetition."""
        calls = [call for call in self.calls if isinstance(call.layer, _CONV)]
        users = {id(call.layer): [self.users.get(tensor, []) for tensor in call.outputs] for call in calls}
        return {
            layer
            for layer, lists in users.items()
            if all(u is not None and _is_owned(u.layer) for us in lists for u in us)
        }

    def end_of_stem(self, call: _Call, stem: str) -> _Call:
        """The call behind which the first layer is repeated."""
        end = call
        if stem == "before_bn":
            return end
        while True:
            users = self.users.get(call.outputs[0], [])
            if len(users) != 1 or users[0] is None or len(users[0].inputs) != 1:
                return end
            call = users[0]
            if _is_norm(call.layer) and not _is_norm(end.layer):
                end = call
            elif not _commutes(call.layer):
                return end
            elif _is_norm(end.layer) or _commutes(end.layer):
                end = call

    def start_of_head(self, call: _Call) -> _Call:
        """The call whose input is cut for the last layer: behind the pooling, before what has weights."""
        while True:
            maker = self.makers.get(call.inputs[0])
            if maker is None or len(self.users[call.inputs[0]]) > 1 or len(maker.inputs) != 1:
                return call
            if isinstance(maker.layer, (*_CONV, *_DEPTHWISE)) or not _is_vector(maker.output_shapes[0]):
                return call
            if not _is_vector(maker.input_shapes[0]):
                pooled = maker.input_shapes[0][-1] == maker.output_shapes[0][-1]
                return call if pooled else maker
            call = maker


def _is_norm(layer: tf.keras.layers.Layer) -> bool:
    return isinstance(layer, _keras.BatchNormalization)


def _operation(layer: tf.keras.layers.Layer) -> str:
    """Name of the operation of TensorFlow, or of the class, that a layer is."""
    return getattr(layer, "symbol", type(layer).__name__).split(".")[-1]


def _count(layer: tf.keras.layers.Layer) -> int:
    return sum(math.prod(weight.shape) for weight in layer.weights)


def _is_owned(layer: tf.keras.layers.Layer) -> bool:
    """Whether the weights of a layer belong to the convolution before it, one for each of its filters."""
    return getattr(layer, "belongs_to_convolution", False)


def _commutes(layer: tf.keras.layers.Layer) -> bool:
    return isinstance(layer, _COMMUTES) and not isinstance(getattr(layer, "activation", None), lq.quantizers.Quantizer)


def _is_vector(shape: tf.TensorShape) -> bool:
    return shape.rank == 2 or (shape.rank == 4 and shape[1] == shape[2] == 1)


class _Tensor(NamedTuple):
    """A tensor of the new network."""

    tensor: Any
    # Number of its channels over those of the original.
    width: Fraction
    # The convolution that still has to be repeated.
    unrepeated: str | None = None


class _Transformer:
    """Builds the new network along the graph of the old one.

    Layers are known by their `id`, calls (in `repeated` and `cuts`) by that of their first output.
    """

    def __init__(
        self,
        beta: int,
        *,
        firsts: set[int],
        lasts: set[int],
        repeated: dict[int, str],
        cuts: dict[int, int],
        unrepeated: set[int],
        bn_before: bool,
        names: set[str],
    ):
        self.beta = beta
        self.firsts = firsts
        self.lasts = lasts
        self.repeated = repeated
        self.cuts = cuts
        self.unrepeated = unrepeated if beta != 1 else set()
        self.bn_before = bn_before and beta != 1
        self.layers: dict[int, tuple[tf.keras.layers.Layer, tf.keras.layers.Layer]] = {}
        self.models: dict[int, tuple[tf.keras.Model, list[Fraction]]] = {}
        self.names = names
        self.repeats: dict[str, Repeat] = {}
        # What each tensor became, next to the tensor itself: it must live as long as its `id` is used.
        self.tiled: dict[int, tuple[Any, Any]] = {}

    def visit(
        self, model: tf.keras.Model, widths: list[Fraction], name: str, input_tensor: tf.Tensor | None = None
    ) -> tuple[tf.keras.Model, list[Fraction]]:
        """The new model for inputs of these widths, and the widths of its outputs."""
        inputs = []
        for tensor, width in zip(model.inputs, widths, strict=True):
            shape = [*tensor.shape[1:-1], tensor.shape[-1] and int(tensor.shape[-1] * width)]
            inputs.append(tf.keras.Input(shape, tensor.shape[0], name=tensor.node.layer.name, dtype=tensor.dtype))
        if input_tensor is not None:
            inputs = [input_tensor]
        known = {id(old): _Tensor(new, width) for old, new, width in zip(model.inputs, inputs, widths, strict=True)}
        for node in _nodes(model):
            outputs = self._call(node, [known[id(tensor)] for tensor in node.keras_inputs])
            known.update(zip(map(id, tf.nest.flatten(node.outputs)), outputs, strict=True))
        outputs = [self._repeat(known[id(tensor)]) for tensor in model.outputs]
        # Dictionaries stay such.
        tensors = tf.nest.pack_sequence_as(model.output, [output.tensor for output in outputs])
        if input_tensor is not None:
            sources = tf.keras.utils.get_source_inputs(input_tensor)
        else:
            sources = tf.nest.pack_sequence_as(model.input, inputs)
        return tf.keras.Model(sources, tensors, name=name), [output.width for output in outputs]

    def _call(self, node, before: list[_Tensor]) -> list[_Tensor]:
        """What the new network has for one call of a layer."""
        layer = node.layer
        call = id(tf.nest.flatten(node.outputs)[0])
        if type(layer).__name__ in ("AddLoss", "AddMetric"):
            raise _refusal(layer, "add_loss and add_metric of a model are not carried over. Call them on the result")
        # Between a convolution and what stands before its repetition.
        owned = _is_owned(layer)
        stays = owned or (len(before) == 1 and (_is_norm(layer) or _commutes(layer)))
        kept = before[0].unrepeated if stays else None
        if kept is None:
            before = [self._repeat(state) for state in before]
        if self.cuts.get(call, 1) != 1:
            state, divisor = before[0], self.cuts[call]
            axis = _channel_axis(node.keras_inputs[0].shape, state.tensor.shape)
            channels = int(state.tensor.shape[axis] / divisor)
            # Not `[..., :channels]`: Keras cannot write an ellipsis to a .keras file.
            pieces = (*[slice(None)] * axis, slice(channels), *[slice(None)] * (state.tensor.shape.rank - 1 - axis))
            before = [_Tensor(state.tensor[pieces], state.width / divisor)]
        width = self._common_width(node, before)
        if isinstance(layer, tf.keras.Model):
            new_layer, expected = self._nested(layer, [state.width for state in before])
        else:
            axis = _target_axis(node, before[0].tensor.shape) if width != 1 else None
            new_layer, out = self._layer(layer, width, axis)
            expected = [out] * len(tf.nest.flatten(node.outputs))
        replacements = {id(old): new.tensor for old, new in zip(node.keras_inputs, before, strict=True)}
        args, kwargs = tf.nest.map_structure(
            lambda value: replacements.get(id(value), value), (node.call_args, node.call_kwargs)
        )
        try:
            if width != 1:
                args, kwargs = _widen_arguments(node, args, kwargs, before[0].tensor.shape, width)
            results = tf.nest.flatten(new_layer(*args, **kwargs))
        except Exception as error:
            if isinstance(error, ReptranError):
                raise
            raise _refusal(
                layer, f"it cannot be called on inputs with {width} times the channels: {_reason(error)}"
            ) from error
        if len(results) != len(expected):
            raise _refusal(layer, f"it has {len(results)} outputs now, instead of {len(expected)}")
        mixes = isinstance(layer, (*_CONV, tf.keras.Model))
        if not mixes and width != 1 and _count(new_layer) > max(width, 1) * _count(layer):
            raise _refusal(
                layer,
                f"it has {_count(new_layer)} weights instead of {_count(layer)}, more than {width} times as many, so "
                f"it mixes channels. {_USE_OTHERS}",
            )
        states = [
            _Tensor(result, _checked_width(node, old, result, want))
            for old, result, want in zip(tf.nest.flatten(node.outputs), results, expected, strict=True)
        ]
        if isinstance(layer, tuple(_REP)) and self._is_folded(layer, width):
            states = [state._replace(unrepeated=layer.name) for state in states]
        elif kept is not None:
            states = [state._replace(unrepeated=kept) for state in states]
            if _is_norm(layer) or (owned and not self.bn_before):
                states = [self._repeat(state) for state in states]
        if call in self.repeated and self.beta != 1:
            states = [self._tiled(state, self.beta, self.repeated[call]) for state in states]
        return states

    def _is_folded(self, layer: tf.keras.layers.Layer, width: Fraction) -> bool:
        return width != 1 and id(layer) not in self.lasts and (self.bn_before or id(layer) in self.unrepeated)

    def _repeat(self, state: _Tensor) -> _Tensor:
        if state.unrepeated is None:
            return state
        return self._tiled(state, self.beta**2, f"{state.unrepeated}_repeat")

    def _tiled(self, state: _Tensor, times: int, name: str) -> _Tensor:
        """The repetition of a tensor, once for all that take it, and by one layer for all calls of a shared layer."""
        if id(state.tensor) not in self.tiled:
            if name not in self.repeats:
                free = name
                while free in self.names:
                    free += "_"
                # By default a layer casts to the dtype of the global policy.
                self.repeats[name] = Repeat(times, name=free, dtype=state.tensor.dtype)
            self.tiled[id(state.tensor)] = state.tensor, self.repeats[name](state.tensor)
        return _Tensor(self.tiled[id(state.tensor)][1], state.width * times)

    def _common_width(self, node, before: list[_Tensor]) -> Fraction:
        # A scalar or a single channel, such as a map of weights for each pixel, is broadcast to any number; numbers
        # such as those of a shape are no channels.
        widths = {
            state.width
            for old, state in zip(node.keras_inputs, before, strict=True)
            if state.width != 1 or (old.shape.rank != 0 and old.shape[-1:] != [1] and old.dtype.is_floating)
        }
        if len(widths) > 1 and not isinstance(node.layer, tf.keras.Model):
            found = " and ".join(f"{width}" for width in sorted(widths))
            raise _refusal(
                node.layer,
                f"its inputs have {found} times their channels. A path to it does not pass the first layer: name all "
                "first layers with first=",
            )
        return max(widths, default=Fraction(1))

    def _nested(self, model: tf.keras.Model, widths: list[Fraction]) -> tuple[tf.keras.Model, list[Fraction]]:
        if id(model) not in self.models:
            self.models[id(model)] = self.visit(model, widths, model.name)
        return self.models[id(model)]

    def _layer(
        self, layer: tf.keras.layers.Layer, width: Fraction, axis: int | None
    ) -> tuple[tf.keras.layers.Layer, Fraction]:
        """The layer that takes the place of a layer on inputs of a width, and the width of its outputs.

        `axis` is where the channels are in the output, if the layer reshapes.
        """
        mixes = isinstance(layer, _CONV) and not isinstance(layer, _DEPTHWISE)
        stays = width == 1 or id(layer) in self.lasts
        out = Fraction(1) if mixes else width
        if mixes and not stays:
            if id(layer) in self.firsts:
                raise _refusal(layer, "it is a first layer, but its input is repeated already by another one")
            if type(layer) not in _REP:
                known = ", ".join(sorted(original.__name__ for original in _REP))
                raise _refusal(layer, f"only layers of exactly these classes have a Rep form: {known}")
            outputs = getattr(layer, _REP[type(layer)]._outputs)
            if outputs % (self.beta * getattr(layer, "groups", 1)):
                raise _refusal(
                    layer,
                    f"beta={self.beta} does not divide its {outputs} outputs (of each group). If it is a last layer, "
                    "name it with last=",
                )
            out = Fraction(1, self.beta) if self._is_folded(layer, width) else Fraction(self.beta)
        if isinstance(layer, RepLayer) and layer.beta != 1 and self.beta != 1:
            raise _refusal(layer, f"it is a Rep layer already, with beta={layer.beta}")
        if id(layer) not in self.layers:
            new = self._rebuilt(layer, width, axis, rep=mixes and not stays)
            self.layers[id(layer)] = layer, new
        return self.layers[id(layer)][1], out

    def _rebuilt(
        self, layer: tf.keras.layers.Layer, width: Fraction, axis: int | None, rep: bool
    ) -> tf.keras.layers.Layer:
        if type(layer) is _keras.Lambda:
            # Its config would hold the byte code of the function, without what it refers to.
            return _keras.Lambda(layer.function, arguments=layer.arguments, name=layer.name, dtype=layer.dtype_policy)
        try:
            config = layer.get_config()
        except NotImplementedError as error:
            raise _refusal(layer, "its class has no get_config, so it cannot be built again") from error
        except Exception as error:
            raise _refusal(layer, f"it has no config to be built again from: {_reason(error)}") from error
        if not hasattr(layer, "symbol"):
            # Functions that are not registered cannot be found by the name that the config has.
            config |= {key: vars(layer)[key] for key in config if inspect.isfunction(vars(layer).get(key))}
        kind = type(layer)
        if rep and self._is_folded(layer, width):
            config[_REP[kind]._outputs] //= self.beta
        elif rep:
            kind = _REP[kind]
            config["beta"] = self.beta
        elif kind is _keras.Reshape and axis is not None:
            config["target_shape"] = _widened(config["target_shape"], axis - 1, width)
        elif id(layer) in self.lasts and width != 1:
            config = _with_wider_bias(config, layer, width)
        try:
            return kind.from_config(config)
        except Exception as error:
            raise _refusal(layer, f"it cannot be built again from its config: {_reason(error)}") from error


def _with_wider_bias(config: dict, layer: tf.keras.layers.Layer, width: Fraction) -> dict:
    """PyTorch's initial values of a bias are uniform within 1 / sqrt(inputs), and the inputs are more now."""
    initial = getattr(layer, "bias_initializer", None)
    features = getattr(layer, "kernel", np.ones(1)).shape[0]
    if not isinstance(initial, tf.keras.initializers.RandomUniform) or initial.maxval != features**-0.5:
        return config
    bound = float(features * width) ** -0.5
    return {**config, "bias_initializer": tf.keras.initializers.RandomUniform(-bound, bound, initial.seed)}


def _channel_axis(old: tf.TensorShape, new: tf.TensorShape) -> int:
    """The axis of the channels: that in which the new network differs."""
    sizes = zip(old, new, strict=True)
    axes = [axis for axis, (size, found) in enumerate(sizes) if None not in (size, found) and size != found]
    return axes[0] if axes else old.rank - 1


def _target_axis(node, found: tf.TensorShape) -> int | None:
    """Where the channels are after a reshape: in the axis that has the fastest part of them."""
    if _operation(node.layer) not in ("Reshape", "reshape"):
        return None
    before, after = node.keras_inputs[0].shape, node.outputs.shape
    behind = before[_channel_axis(before, found) + 1 :]
    if None in behind or after.rank is None:
        raise _refusal(
            node.layer, "its channels are not in the last axis, and the sizes of the axes behind are unknown"
        )
    inner, stride = math.prod(behind), 1
    for axis in reversed(range(after.rank)):
        if after[axis] is None or stride * after[axis] > inner:
            return axis
        stride *= after[axis]
    return after.rank - 1


def _widened(sizes, axis: int, width: Fraction):
    """Sizes with that of one axis multiplied; a tensor of sizes that are known at run time only stays."""
    if isinstance(sizes, tf.Tensor):
        sizes = sizes.numpy()
    if not isinstance(sizes, (list, tuple, np.ndarray)):
        return sizes
    sizes = [int(size) if isinstance(size, (int, np.integer)) else size for size in sizes]
    if isinstance(sizes[axis], int) and sizes[axis] != -1:
        sizes[axis] = int(sizes[axis] * width)
    return sizes


def _widen_arguments(node, args, kwargs, found: tf.TensorShape, width: Fraction):
    """The arguments of an operation that hold numbers of channels, for inputs of a width."""
    symbol = getattr(node.layer, "symbol", None)
    if symbol is None:
        return args, kwargs
    shape = node.keras_inputs[0].shape
    args, kwargs = list(args), dict(kwargs)

    def change(position: int, key: str, how) -> None:
        if len(args) > position:
            args[position] = how(args[position])
        elif key in kwargs:
            kwargs[key] = how(kwargs[key])

    def widened_split(sizes):
        if isinstance(sizes, int):
            return sizes
        for number in range(len(sizes)):
            sizes = _widened(sizes, number, width)
        return sizes

    def widened_slice(spec):
        items = list(spec) if isinstance(spec, (tuple, list)) else [spec]
        # `None` inserts an axis.
        axes = [position for position, item in enumerate(items) if item is not None]
        if Ellipsis not in items and len(axes) < shape.rank:
            return spec
        piece = items[axes[-1]]
        if isinstance(piece, int):
            raise _refusal(node.layer, "it takes a single channel, of which there are several now")
        if isinstance(piece, dict):
            ends = {key: piece[key] and int(piece[key] * width) for key in ("start", "stop")}
            items[axes[-1]] = {**piece, **ends}
        return tuple(items)

    operation = _operation(node.layer)
    axis = kwargs.get("axis", args[2] if operation == "split" and len(args) > 2 else None)
    if operation == "reshape":
        change(1, "shape", lambda sizes: _widened(sizes, _target_axis(node, found), width))
    elif _channel_axis(shape, found) != shape.rank - 1:
        return args, kwargs
    elif operation in ("pad", "pad_v2"):
        change(
            1,
            "paddings",
            lambda rows: [*np.array(rows)[:-1].tolist(), _widened(_widened(rows[-1], 0, width), 1, width)],
        )
    elif operation == "getitem":
        change(1, "slice_spec", widened_slice)
    elif operation == "split" and axis in (-1, shape.rank - 1):
        change(1, "num_or_size_splits", widened_split)
    elif operation == "gather" and axis in (-1, shape.rank - 1):
        raise _refusal(node.layer, "it takes channels by their numbers")
    elif width.denominator == 1 and (
        symbol.startswith(("math.", "__operators__.")) or operation in ("where", "clip_by_value", "bias_add")
    ):

        def tiled(value):
            is_array = isinstance(value, (np.ndarray, tf.Tensor)) and len(value.shape) > 0
            if not is_array or value.shape[-1] == 1 or value.shape[-1] != shape[-1]:
                return value
            return np.tile(value, int(width))

        args = [tiled(value) for value in args]
        kwargs = {key: tiled(value) for key, value in kwargs.items()}
    return args, kwargs


def _checked_width(node, old, new, expected: Fraction) -> Fraction:
    """The width of an output, if it is the expected one."""
    found, original = new.shape, old.shape
    if found.rank is not None and found.rank == original.rank:
        sizes = enumerate(zip(original, found, strict=True))
        # Sizes that the original does not know, an `input_tensor` may.
        changed = {axis: (size, now) for axis, (size, now) in sizes if size is not None and size != now}
        # Numbers without an axis of channels, such as a scalar or a shape, are those of all channels.
        if not changed and (expected == 1 or original.rank < 2 or original[-1] == 1):
            return Fraction(1)
        if not changed and original[-1] is None:
            return expected
        if [now == size * expected for size, now in changed.values() if now is not None] == [True]:
            if original.rank - 1 in changed or not node.layer.weights:
                return expected
            raise _refusal(node.layer, "it has weights, and the channels of its input are not in the last axis")
    raise _refusal(
        node.layer,
        f"its output has the shape {tuple(found)}; expected {expected} times the channels of {tuple(original)}, as "
        f"its input has. {_USE_OTHERS}",
    )


_USE_OTHERS = "If it mixes channels, use Larq's and Keras' own convolutions and dense layers instead"


def _reason(error: BaseException) -> str:
    """The first line of what was wrong first: Keras wraps errors in long ones of its own."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")


def _refusal(layer: tf.keras.layers.Layer, reason: str) -> ReptranError:
    return ReptranError(f"reptran: {type(layer).__name__} '{layer.name}' cannot be transformed: {reason}.")
