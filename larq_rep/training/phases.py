"""Makes the network of a phase from another one, and transfers weights between the networks of two phases."""

import contextlib
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf

from larq_rep.layers import BatchNormalization, CirculantConv2D
from larq_rep.quantizers.base import binarizes
from larq_rep.record import recorded
from larq_rep.signs import input_quantizer

_UNIFORM_FAN_IN = {
    "class_name": "VarianceScaling",
    "config": {"scale": 1 / 3, "mode": "fan_in", "distribution": "uniform", "seed": None},
}


def with_real_weights(
    model: tf.keras.Model,
    initializer: str | None = None,
    given: Collection[str] = (),
    left_behind: Sequence[str] = (),
    activations: str = "binary",
) -> tf.keras.Model:
    """Makes the network of the first phase: latent weights are used as they are, activations stay binary or not.

    The result is a new model with the same layers and weights, in which no layer has a kernel quantizer or the weights
    of one.

    # Arguments
        model: A functional model.
        initializer: `"uniform_fan_in"` gives kernels that had a quantizer new values between
            \\(\\pm 1 / \\sqrt{\\text{fan in}}\\), as in PyTorch's real convolutions; with `None` they keep theirs.
        given: Names of layers whose kernels keep their values in any case.
        left_behind: Regular expressions for names of weights of the quantizers that the next phase learns from their
            initial values, as in `transfer`.
        activations: `"real"` also removes what takes the signs of activations, with nothing in its place: an input
            quantizer, a layer that is a quantizer, an activation. Then no layer has the weights of these either.
            `"tanh"` puts the hyperbolic tangent in the place of such layers.

    # Raises
        ValueError: If no layer has a kernel quantizer, a quantizer has other weights of its own, which a network
            without it could not learn, a layer cannot do without its kernel quantizer, or other `activations` than
            `"binary"` are asked for where activations have several bits or with `"tanh"` an input quantizer is no
            layer.
    """
    quantized = [layer for layer in model.layers if getattr(layer, "kernel_quantizer", None) is not None]
    if not quantized:
        raise ValueError(f"with_real_weights: no layer of model '{model.name}' has a kernel quantizer.")
    for layer in quantized:
        if isinstance(layer, CirculantConv2D):
            raise ValueError(
                f"with_real_weights: '{layer.name}' is a CirculantConv2D, whose filters its kernel quantizer makes. "
                "Networks with it are trained in one phase."
            )
    if activations != "binary":
        _check_no_several_bits(model, activations)
    signed = {
        layer.name: sign for layer in model.layers if (sign := input_quantizer(layer)) and activations != "binary"
    }
    removed = [(f"kernel quantizer of '{layer.name}'", layer.kernel_quantizer) for layer in quantized]
    removed += [(f"input quantizer of '{name}'", quantizer) for name, quantizer in signed.items()]
    for place, quantizer in removed:
        # A quantizer that is a function has no weights.
        weights = getattr(quantizer, "weights", [])
        if _unexpected([_numberless(weight.name) for weight in weights], left_behind):
            raise ValueError(
                f"with_real_weights: the {place}, {type(quantizer).__name__}, has weights of its own "
                f"({', '.join(weight.name for weight in weights)}), which a network without it could not learn. "
                "Networks with it are trained in one phase, or left_behind names them."
            )

    anew = [layer for layer in quantized if layer.name not in given] if initializer == "uniform_fan_in" else []

    def change(layer, config):
        if layer in quantized:
            config["kernel_quantizer"] = None
        if layer in anew:
            config["kernel_initializer"] = _UNIFORM_FAN_IN
        if layer.name in signed and "input_quantizer" not in config:
            function = "tanh" if activations == "tanh" else "linear"
            return tf.keras.layers.Activation(function, name=layer.name, dtype=layer.dtype_policy)
        if layer.name in signed:
            if activations == "tanh":
                raise ValueError(
                    f"with_real_weights: '{layer.name}' takes the sign of its input itself. The hyperbolic tangent can "
                    "only take the place of signs that are layers."
                )
            config["input_quantizer"] = None
        return config

    return rebuilt(model, change, anew=[layer.name for layer in anew])


def _check_no_several_bits(model: tf.keras.Model, activations: str) -> None:
    for layer in model.layers:
        own = layer if isinstance(layer, lq.quantizers.Quantizer) else getattr(layer, "activation", None)
        quantizer: Any = getattr(layer, "input_quantizer", None) or own
        if 1 < (getattr(quantizer, "precision", None) or 32) < 32:
            raise ValueError(
                f"with_real_weights: activations={activations!r} takes the place of signs alone, but "
                f"{type(quantizer).__name__} of '{layer.name}' has {quantizer.precision} bits. Leave activations as "
                "they are: activations='binary'."
            )


def with_binary_weights(model: tf.keras.Model) -> tf.keras.Model:
    """Makes the network that Bop trains: its binary kernels are +1 and -1 themselves.

    They have no constraint and no regularizer, and begin as the signs of the given latent weights. For
    `larq.optimizers.Bop` to find them, their quantizer is `lq.quantizers.NoOp(precision=1)`. The network with its own
    quantizers gives the same results with these weights.

    # Arguments
        model: A functional model.

    # Raises
        ValueError: If no layer has a binary kernel, or a quantizer changes weights that are already +1 and -1, so the
            two networks would differ.
    """
    signs = {}
    for layer in model.layers:
        quantizer: Any = getattr(layer, "kernel_quantizer", None)
        if binarizes(quantizer):
            signs[layer.name] = tf.where(quantizer(tf.convert_to_tensor(layer.kernel)) < 0, -1.0, 1.0)
            # A quantizer that centres would answer all ones differently.
            probes = signs[layer.name], -tf.ones_like(signs[layer.name])
            if getattr(quantizer, "weights", []) or any(np.any(quantizer(probe) != probe) for probe in probes):
                raise ValueError(
                    f"with_binary_weights: the kernel quantizer of '{layer.name}', {type(quantizer).__name__}, changes "
                    "weights of +1 and -1, or has weights of its own. Bop trains networks in which it takes their "
                    "signs, perhaps times their mean magnitude."
                )
    if not signs:
        raise ValueError(f"with_binary_weights: no layer of model '{model.name}' has a binary kernel.")

    def change(layer, config):
        if layer.name in signs:
            own = lq.quantizers.NoOp(precision=1)
            config.update(kernel_quantizer=own, kernel_constraint=None, kernel_regularizer=None)
        return config

    result = rebuilt(model, change)
    for name, values in signs.items():
        result.get_layer(name).kernel.assign(values)
    return result


def with_synchronized_norms(model: tf.keras.Model) -> tf.keras.Model:
    """Makes a model with the same weights whose batch normalisations take their statistics over all replicas.

    Keras' layers become `larq_rep.layers.BatchNormalization`, whose moving variance is unbiased, as in PyTorch and
    in Keras' fused operation on each replica.
    """

    def change(layer, config):
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            config["synchronized"] = True
        return BatchNormalization.from_config(config) if type(layer) is tf.keras.layers.BatchNormalization else config

    return rebuilt(model, change)


def rebuilt(
    model: tf.keras.Model,
    change: Callable[[tf.keras.layers.Layer, dict], dict | tf.keras.layers.Layer],
    *,
    anew: Collection[str] = (),
) -> tf.keras.Model:
    """Makes a new model of the same layers with changed configs, and copies everything they have learned.

    # Arguments
        change: Takes a layer and its config, returns the config of the new layer, or a layer of another class with
            the same name and the same weights (none if only it is not a quantizer).
        anew: Names of layers whose kernels get initial values.

    # Raises
        ValueError: If a layer is itself a model: its layers would not be changed.
    """
    for layer in model.layers:
        if isinstance(layer, tf.keras.Model):
            raise ValueError(f"Layer '{layer.name}' of '{model.name}' is a model itself. Build one flat model instead.")

    def clone(layer):
        changed = change(layer, layer.get_config())
        return type(layer).from_config(changed) if isinstance(changed, dict) else changed

    result = tf.keras.models.clone_model(model, clone_function=clone)
    # Layer by layer: all processes must use the same order, because they read moving statistics together.
    for layer in model.layers:
        copy = result.get_layer(layer.name)
        if isinstance(layer, lq.quantizers.Quantizer) and not isinstance(copy, lq.quantizers.Quantizer):
            continue
        kernel = copy.kernel.name if layer.name in anew else None
        quantizers = {name: value for name, value in vars(layer).items() if isinstance(value, lq.quantizers.Quantizer)}
        gone = {
            id(weight) for name, value in quantizers.items() if getattr(copy, name) is None for weight in value.weights
        }
        kept = [weight for weight in layer.weights if id(weight) not in gone]
        for old, new in zip(kept, copy.weights, strict=True):
            if new.name != kernel:
                new.assign(old)
        for name, quantizer in quantizers.items():
            if getattr(copy, name) is not None:
                _copy_numbers(quantizer, getattr(copy, name))
        _copy_numbers(layer, copy)
    return recorded(result, getattr(model, "record", None))


def _copy_numbers(source: tf.Module, target: tf.Module) -> None:
    """Copies variables that are not weights, such as the steepness of an estimator."""
    weights = {weight.name for weight in source.weights}
    for name, variable in vars(source).items():
        if isinstance(variable, tf.Variable) and variable.name not in weights:
            getattr(target, name).assign(variable)


@contextlib.contextmanager
def noting_initial_values() -> Iterator[Callable[[tf.Variable], bool]]:
    """Yields a function that tells whether a kernel made within the block still has its initial values."""
    initial = set()

    def fingerprint(kernel):
        return tuple(kernel.shape), zlib.crc32(tf.convert_to_tensor(kernel).numpy().tobytes())

    def noted(next_creator, **arguments):
        variable = next_creator(**arguments)
        if variable.trainable and variable.shape.rank > 1:
            initial.add(fingerprint(variable))
        return variable

    with tf.variable_creator_scope(noted):
        yield lambda kernel: fingerprint(kernel) in initial


def transfer(source: tf.keras.Model, target: tf.keras.Model, left_behind: Sequence[str] = ()) -> None:
    """Gives every weight of `target` the value of the weight with the same name in `source`.

    A kernel quantizer with weights that `source` does not have begins with the kernel of its layer, if it can: see
    `start_from` in `larq_rep.quantizers`.

    # Arguments
        left_behind: Regular expressions for names that only one of the two has.

    # Raises
        ValueError: If any other weight exists in only one of them, or the shapes differ; all such weights are named.
    """
    old, new = _by_name(source), _by_name(target)
    problems = [f"{name} is in '{source.name}' only" for name in _unexpected(old.keys() - new.keys(), left_behind)]
    problems += [f"{name} is in '{target.name}' only" for name in _unexpected(new.keys() - old.keys(), left_behind)]
    problems += [
        f"{name} has shape {tuple(old[name].shape)} in '{source.name}', {tuple(new[name].shape)} in '{target.name}'"
        for name in new
        if name in old and old[name].shape != new[name].shape
    ]
    if problems:
        raise ValueError("transfer: not all weights have a place:\n  " + "\n  ".join(sorted(problems)))
    # In the model's order. The order of a set differs between processes, but workers read a moving statistic
    # together: each would get the mean of different statistics.
    for name, weight in new.items():
        if name in old:
            weight.assign(old[name])
    for layer in target.layers:
        quantizer: Any = getattr(layer, "kernel_quantizer", None)
        start = getattr(quantizer, "start_from", None)
        if start and not {_numberless(weight.name) for weight in quantizer.weights} & old.keys():
            start(layer.kernel)


def _unexpected(names: Iterable[str], left_behind: Sequence[str]) -> list[str]:
    return [name for name in names if not any(re.fullmatch(pattern, name) for pattern in left_behind)]


def _numberless(name: str) -> str:
    """The name of a weight without the number that Keras gives to the quantizer within its layer."""
    layer, slash, rest = name.partition("/")
    return layer + slash + re.sub(r"_\d+(?=/)", "", rest)


def _by_name(model: tf.keras.Model) -> dict[str, tf.Variable]:
    """Maps names to weights, without the numbers that Keras gives to the quantizers within layers."""
    named = {}
    for weight in model.weights:
        name = _numberless(weight.name)
        if name in named:
            raise ValueError(f"transfer: '{model.name}' has two weights named {name}. Give its layers names.")
        named[name] = weight
    return named
