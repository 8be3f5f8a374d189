"""Builds the new network along the graph of the old one."""

import inspect
import math
from fractions import Fraction
from typing import Any, NamedTuple

import larq as lq
import numpy as np
import tensorflow as tf

from larq_rep.graph import CONV, DEPTHWISE, is_norm, nodes
from larq_rep.layers.repeat import RepConv2D, RepDense, Repeat, RepLayer, RepQuantConv2D, RepQuantDense
from larq_rep.reptran.arguments import channel_axis, reason_of, refusal, target_axis, widen_arguments, widened
from larq_rep.reptran.graph import ReptranError, commutes, is_owned

_keras = tf.keras.layers
# Layers that mix channels, and their replacements.
_REP = {
    lq.layers.QuantConv2D: RepQuantConv2D,
    _keras.Conv2D: RepConv2D,
    lq.layers.QuantDense: RepQuantDense,
    _keras.Dense: RepDense,
    **{rep: rep for rep in (RepQuantConv2D, RepConv2D, RepQuantDense, RepDense)},
}
_USE_OTHERS = "If it mixes channels, use Larq's and Keras' own convolutions and dense layers instead"


def count_weights(layer: tf.keras.layers.Layer) -> int:
    return sum(math.prod(weight.shape) for weight in layer.weights)


class _Tensor(NamedTuple):
    """A tensor of the new network."""

    tensor: Any
    # Number of its channels divided by that of the original.
    width: Fraction
    # The convolution that still has to be repeated.
    unrepeated: str | None = None


class Transformer:
    """Builds the new network along the graph of the old one.

    Layers are identified by their `id`, calls (in `repeated` and `cuts`) by the `id` of their first output.
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
        # Each tensor and its repetition. The tensor must live as long as its `id` is used.
        self.tiled: dict[int, tuple[Any, Any]] = {}

    def visit(
        self, model: tf.keras.Model, widths: list[Fraction], name: str, input_tensor: tf.Tensor | None = None
    ) -> tuple[tf.keras.Model, list[Fraction]]:
        """Builds the new model for inputs of these widths; also returns the widths of its outputs."""
        inputs = []
        for tensor, width in zip(model.inputs, widths, strict=True):
            shape = [*tensor.shape[1:-1], tensor.shape[-1] and int(tensor.shape[-1] * width)]
            inputs.append(tf.keras.Input(shape, tensor.shape[0], name=tensor.node.layer.name, dtype=tensor.dtype))
        if input_tensor is not None:
            inputs = [input_tensor]
        known = {id(old): _Tensor(new, width) for old, new, width in zip(model.inputs, inputs, widths, strict=True)}
        for node in nodes(model):
            outputs = self._call(node, [known[id(tensor)] for tensor in node.keras_inputs])
            known.update(zip(map(id, tf.nest.flatten(node.outputs)), outputs, strict=True))
        outputs = [self._repeat(known[id(tensor)]) for tensor in model.outputs]
        # Dictionaries stay dictionaries.
        tensors = tf.nest.pack_sequence_as(model.output, [output.tensor for output in outputs])
        if input_tensor is not None:
            sources = tf.keras.utils.get_source_inputs(input_tensor)
        else:
            sources = tf.nest.pack_sequence_as(model.input, inputs)
        return tf.keras.Model(sources, tensors, name=name), [output.width for output in outputs]

    def _call(self, node, before: list[_Tensor]) -> list[_Tensor]:
        """Builds the new network's counterpart of one layer call, and returns its outputs."""
        layer = node.layer
        call = id(tf.nest.flatten(node.outputs)[0])
        if type(layer).__name__ in ("AddLoss", "AddMetric"):
            raise refusal(layer, "add_loss and add_metric of a model are not carried over. Call them on the result")
        # Layers between a convolution and its repetition.
        owned = is_owned(layer)
        stays = owned or (len(before) == 1 and (is_norm(layer) or commutes(layer)))
        kept = before[0].unrepeated if stays else None
        if kept is None:
            before = [self._repeat(state) for state in before]
        if self.cuts.get(call, 1) != 1:
            state, divisor = before[0], self.cuts[call]
            axis = channel_axis(node.keras_inputs[0].shape, state.tensor.shape)
            channels = int(state.tensor.shape[axis] / divisor)
            # Not `[..., :channels]`: Keras cannot write an ellipsis to a .keras file.
            pieces = (*[slice(None)] * axis, slice(channels), *[slice(None)] * (state.tensor.shape.rank - 1 - axis))
            before = [_Tensor(state.tensor[pieces], state.width / divisor)]
        width = self._common_width(node, before)
        if isinstance(layer, tf.keras.Model):
            new_layer, expected = self._nested(layer, [state.width for state in before])
        else:
            target = target_axis(node, before[0].tensor.shape) if width != 1 else None
            new_layer, out = self._layer(layer, width, target)
            expected = [out] * len(tf.nest.flatten(node.outputs))
        replacements = {id(old): new.tensor for old, new in zip(node.keras_inputs, before, strict=True)}
        args, kwargs = tf.nest.map_structure(
            lambda value: replacements.get(id(value), value), (node.call_args, node.call_kwargs)
        )
        try:
            if width != 1:
                args, kwargs = widen_arguments(node, args, kwargs, before[0].tensor.shape, width)
            results = tf.nest.flatten(new_layer(*args, **kwargs))
        except Exception as error:
            if isinstance(error, ReptranError):
                raise
            raise refusal(
                layer, f"it cannot be called on inputs with {width} times the channels: {reason_of(error)}"
            ) from error
        if len(results) != len(expected):
            raise refusal(layer, f"it now has {len(results)} outputs instead of {len(expected)}")
        _check_weights(layer, new_layer, width)
        states = [
            _Tensor(result, _checked_width(node, old, result, want))
            for old, result, want in zip(tf.nest.flatten(node.outputs), results, expected, strict=True)
        ]
        if type(layer) in _REP and self._is_folded(layer, width):
            states = [state._replace(unrepeated=layer.name) for state in states]
        elif kept is not None:
            states = [state._replace(unrepeated=kept) for state in states]
            if is_norm(layer) or (owned and not self.bn_before):
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
        """Repeats a tensor, once for all its users, and with one layer for all calls of a shared layer."""
        if id(state.tensor) not in self.tiled:
            if name not in self.repeats:
                free = name
                while free in self.names:
                    free += "_"
                # Without `dtype` a layer casts to the dtype of the global policy.
                self.repeats[name] = Repeat(times, name=free, dtype=state.tensor.dtype)
            self.tiled[id(state.tensor)] = state.tensor, self.repeats[name](state.tensor)
        return _Tensor(self.tiled[id(state.tensor)][1], state.width * times)

    def _common_width(self, node, before: list[_Tensor]) -> Fraction:
        # A scalar or a single channel, such as a map with a weight per pixel, is broadcast to any number of channels;
        # integers, such as those of a shape, are not channels.
        widths = {
            state.width
            for old, state in zip(node.keras_inputs, before, strict=True)
            if state.width != 1 or (old.shape.rank != 0 and old.shape[-1:] != [1] and old.dtype.is_floating)
        }
        if len(widths) > 1 and not isinstance(node.layer, tf.keras.Model):
            found = " and ".join(f"{width}" for width in sorted(widths))
            raise refusal(
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
        """The layer that replaces a layer on inputs of this width, and the width of its outputs.

        `axis` is the channels' axis in the output, if the layer reshapes.
        """
        mixes = isinstance(layer, CONV) and not isinstance(layer, DEPTHWISE)
        stays = width == 1 or id(layer) in self.lasts
        out = Fraction(1) if mixes else width
        if mixes and not stays:
            if id(layer) in self.firsts:
                raise refusal(layer, "it is a first layer, but another first layer already repeats its input")
            if type(layer) not in _REP:
                known = ", ".join(sorted(original.__name__ for original in _REP))
                raise refusal(layer, f"only layers of exactly these classes have a Rep form: {known}")
            outputs = getattr(layer, _REP[type(layer)]._outputs)
            if outputs % (self.beta * getattr(layer, "groups", 1)):
                raise refusal(
                    layer,
                    f"beta={self.beta} does not divide its {outputs} outputs (of each group). If it is a last layer, "
                    "name it with last=",
                )
            out = Fraction(1, self.beta) if self._is_folded(layer, width) else Fraction(self.beta)
        if isinstance(layer, RepLayer) and layer.beta != 1 and self.beta != 1:
            raise refusal(layer, f"it is a Rep layer already, with beta={layer.beta}")
        if id(layer) not in self.layers:
            new = self._rebuilt(layer, width, axis, rep=mixes and not stays)
            self.layers[id(layer)] = layer, new
        return self.layers[id(layer)][1], out

    def _rebuilt(
        self, layer: tf.keras.layers.Layer, width: Fraction, axis: int | None, rep: bool
    ) -> tf.keras.layers.Layer:
        if type(layer) is _keras.Lambda:
            # Its config would hold only the function's byte code, without the objects that it refers to.
            return _keras.Lambda(layer.function, arguments=layer.arguments, name=layer.name, dtype=layer.dtype_policy)
        try:
            config = layer.get_config()
        except NotImplementedError as error:
            raise refusal(layer, "its class has no get_config, so it cannot be built again") from error
        except Exception as error:
            raise refusal(layer, f"it has no config to be built again from: {reason_of(error)}") from error
        if not hasattr(layer, "symbol"):
            # Functions that are not registered cannot be found by the name in the config.
            config |= {key: vars(layer)[key] for key in config if inspect.isfunction(vars(layer).get(key))}
        kind = type(layer)
        if rep and self._is_folded(layer, width):
            config[_REP[kind]._outputs] //= self.beta
        elif rep:
            kind = _REP[kind]
            config["beta"] = self.beta
        elif kind is _keras.Reshape and axis is not None:
            config["target_shape"] = widened(config["target_shape"], axis - 1, width)
        elif id(layer) in self.lasts and width != 1:
            config = _with_wider_bias(config, layer, width)
        try:
            return kind.from_config(config)
        except Exception as error:
            raise refusal(layer, f"it cannot be built again from its config: {reason_of(error)}") from error


def _check_weights(old: tf.keras.layers.Layer, new: tf.keras.layers.Layer, width: Fraction) -> None:
    if isinstance(old, (*CONV, tf.keras.Model)) or width == 1:
        return
    before, now = count_weights(old), count_weights(new)
    if now > before * max(width, Fraction(1)):
        raise refusal(
            old,
            f"it now has {now} weights instead of {before}, more than {width} times as many, so it mixes channels. "
            f"{_USE_OTHERS}",
        )


def _with_wider_bias(config: dict, layer: tf.keras.layers.Layer, width: Fraction) -> dict:
    """Adapts PyTorch's initial bias values, uniform within 1 / sqrt(inputs), to the larger number of inputs."""
    initial = getattr(layer, "bias_initializer", None)
    features = getattr(layer, "kernel", np.ones(1)).shape[0]
    if not isinstance(initial, tf.keras.initializers.RandomUniform) or initial.maxval != features**-0.5:
        return config
    bound = float(features * width) ** -0.5
    return {**config, "bias_initializer": tf.keras.initializers.RandomUniform(-bound, bound, initial.seed)}


def _checked_width(node, old, new, expected: Fraction) -> Fraction:
    """Returns the width of an output, and raises if it is not the expected one."""
    found, original = new.shape, old.shape
    if found.rank is not None and found.rank == original.rank:
        sizes = enumerate(zip(original, found, strict=True))
        # An `input_tensor` may know sizes that the original does not.
        changed = {axis: (size, now) for axis, (size, now) in sizes if size is not None and size != now}
        # Values without an axis of channels, such as a scalar or a shape, belong to all channels.
        if not changed and (expected == 1 or original.rank < 2 or original[-1] == 1):
            return Fraction(1)
        if not changed and original[-1] is None:
            return expected
        if [now == size * expected for size, now in changed.values() if now is not None] == [True]:
            if original.rank - 1 in changed or not node.layer.weights:
                return expected
            raise refusal(node.layer, "it has weights, and the channels of its input are not in the last axis")
    raise refusal(
        node.layer,
        f"its output has the shape {tuple(found)}; expected {expected} times the channels of {tuple(original)}, as "
        f"its input has. {_USE_OTHERS}",
    )
