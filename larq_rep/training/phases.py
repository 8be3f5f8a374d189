"""Makes the network of a phase from another one, and transfers weights between the networks of two phases."""

import contextlib
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import larq as lq
import tensorflow as tf

from larq_rep.layers import BatchNormalization
from larq_rep.record import recorded

_UNIFORM_FAN_IN = {
    "class_name": "VarianceScaling",
    "config": {"scale": 1 / 3, "mode": "fan_in", "distribution": "uniform", "seed": None},
}


def with_real_weights(
    model: tf.keras.Model,
    initializer: str | None = None,
    given: Collection[str] = (),
    left_behind: Sequence[str] = (),
) -> tf.keras.Model:
    """Makes the network of the first phase: activations stay binary, latent weights are used as they are.

    The result is a new model with the same layers and weights, in which no layer has a kernel quantizer or the weights
    of one.

    # Arguments
        model: A functional model.
        initializer: `"uniform_fan_in"` gives kernels that had a quantizer new values between
            \\(\\pm 1 / \\sqrt{\\text{fan in}}\\), as in PyTorch's real convolutions; with `None` they keep theirs.
        given: Names of layers whose kernels keep their values in any case.
        left_behind: Regular expressions for names of weights of the quantizers that the next phase learns from their
            initial values, as in `transfer`.

    # Raises
        ValueError: If no layer has a kernel quantizer, or a quantizer has other weights of its own, which a network
            without it could not learn.
    """
    quantized = [layer for layer in model.layers if getattr(layer, "kernel_quantizer", None) is not None]
    if not quantized:
        raise ValueError(f"with_real_weights: no layer of model '{model.name}' has a kernel quantizer.")
    for layer in quantized:
        # A quantizer that is a function has no weights.
        weights = getattr(layer.kernel_quantizer, "weights", [])
        if _unexpected([_numberless(weight.name) for weight in weights], left_behind):
            raise ValueError(
                f"with_real_weights: the kernel quantizer of '{layer.name}', {type(layer.kernel_quantizer).__name__}, "
                f"has weights of its own ({', '.join(weight.name for weight in weights)}), which a network without it "
                "could not learn. Networks with it are trained in one phase."
            )

    anew = [layer for layer in quantized if layer.name not in given] if initializer == "uniform_fan_in" else []

    def change(layer, config):
        if layer in quantized:
            config["kernel_quantizer"] = None
        if layer in anew:
            config["kernel_initializer"] = _UNIFORM_FAN_IN
        return config

    return rebuilt(model, change, anew=[layer.name for layer in anew])


def with_synchronized_norms(model: tf.keras.Model) -> tf.keras.Model:
    """Makes a model with the same weights whose batch normalisations take their statistics over all replicas.

    Keras' layers become `larq_rep.layers.BatchNormalization`, whose moving variance is unbiased, as in PyTorch and
    in Keras' fused operation on each replica.
    """

    def change(layer, config):
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            config["synchronized"] = True
        return config

    return rebuilt(model, change, others={tf.keras.layers.BatchNormalization: BatchNormalization})


def rebuilt(
    model: tf.keras.Model,
    change: Callable[[tf.keras.layers.Layer, dict], dict],
    *,
    anew: Collection[str] = (),
    others: Mapping[type[tf.keras.layers.Layer], type[tf.keras.layers.Layer]] | None = None,
) -> tf.keras.Model:
    """Makes a new model of the same layers with changed configs, and copies everything they have learned.

    # Arguments
        change: Takes a layer and its config, returns the config of the new layer, which has the same weights.
        anew: Names of layers whose kernels get initial values.
        others: Maps a layer class to the class that replaces it.

    # Raises
        ValueError: If a layer is itself a model: its layers would not be changed.
    """
    for layer in model.layers:
        if isinstance(layer, tf.keras.Model):
            raise ValueError(f"Layer '{layer.name}' of '{model.name}' is a model itself. Build one flat model instead.")

    def clone(layer):
        kind = (others or {}).get(type(layer), type(layer))
        return kind.from_config(change(layer, layer.get_config()))

    result = tf.keras.models.clone_model(model, clone_function=clone)
    # Layer by layer: all processes must use the same order, because they read moving statistics together.
    for layer in model.layers:
        copy = result.get_layer(layer.name)
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
