"""What several tests share: random weights and small models."""

import functools
import gc
from unittest import mock

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import ops

import larq_rep
from larq_rep import zoo
from larq_rep.zoo import methods, resnet20

keras = tf.keras.layers


def built(name: str, **arguments) -> tf.keras.Model:
    """A network as its constructor leaves it, for tests that do not change it; those of a module share it."""
    defaults = {key: parameter.default for key, parameter in zoo.get_network(name).parameters.items()}
    return _built(name, tuple(sorted({**defaults, **arguments}.items())))


@functools.cache
def _built(name: str, arguments: tuple) -> tf.keras.Model:
    return zoo.get_model(name, **dict(arguments))


def few_blocks(*blocks: int):
    """Within it the stages of a ResNet-20 have so many blocks; by default 2, 1 and 1, 8 of its 18 binary layers."""

    def stages(x, block, widths, _):
        return methods.stages(x, block, widths, blocks or (2, 1, 1))

    return mock.patch.object(resnet20, "stages", stages)


def shallow_resnet20(rep: bool = False, **arguments) -> tf.keras.Model:
    """ResNet-20, or Rep-ResNet-20, of few blocks."""
    with few_blocks():
        return zoo.get_model("RepResNet20" if rep else "ResNet20", **arguments)


def forget() -> None:
    """Frees the models that nothing refers to any more.

    TensorFlow keeps the gradient of each call of a quantizer for ever, and with it the graph that Keras builds
    models in, and the weights of all of them.
    """
    _built.cache_clear()
    tf.keras.backend.clear_session()
    gradients = ops.gradient_registry._registry
    for name in [name for name in gradients if name.startswith("CustomGradient")]:
        del gradients[name]
    gc.collect()


def first_quick(cases: list[tuple], count: int) -> list:
    """The cases of a parametrised test, the first of which are quick ones; `make test-all` runs all."""
    return [*cases[:count], *(pytest.param(*case, marks=pytest.mark.slow) for case in cases[count:])]


def others_slow(cases: list, count: int) -> list:
    """The same for the values of a fixture."""
    return [*cases[:count], *(pytest.param(case, marks=pytest.mark.slow) for case in cases[count:])]


def with_gradients(layer: tf.keras.layers.Layer, x: np.ndarray, dy: np.ndarray) -> tuple:
    """The output, and the gradients of its product with `dy` to the input and to each trained weight."""
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
        loss = tf.reduce_sum(y * dy)
    dx, dw = tape.gradient(loss, [x, layer.trainable_weights])
    return y.numpy(), dx.numpy(), dw


def randomize(model: tf.keras.Model, seed: int = 0) -> tf.keras.Model:
    """Random weights, statistics, factors of both signs, shifts and slopes, as after training."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.BatchNormalization):
            n = layer.moving_mean.shape[0]
            # A quarter of the factors is negative.
            factor = rng.normal(1, 0.4, n) * np.where(rng.random(n) < 0.25, -1, 1)
            factors = [factor] * layer.scale + [rng.normal(0, 0.4, n)] * layer.center
            layer.set_weights([*factors, rng.normal(0, 2, n), rng.uniform(0.5, 2, n)])
        elif isinstance(layer, larq_rep.layers.RPReLU):
            layer.set_weights([rng.normal(0.1, 0.2, w.shape) for w in layer.weights])
        elif layer.weights:
            # Levels and thresholds of activations of several bits are positive.
            values = [rng.normal(0, 0.3, w.shape) for w in layer.weights]
            positive = ["/levels:" in w.name or "/ternary_input" in w.name for w in layer.weights]
            layer.set_weights([0.1 + abs(v) if p else v for v, p in zip(values, positive, strict=True)])
    return model


def one_padded(filters: int = 32, **arguments) -> lq.layers.QuantConv2D:
    """A binary 3x3 convolution of a map padded with +1, which LCE computes without a correction."""
    return lq.layers.QuantConv2D(
        filters,
        3,
        padding="same",
        pad_values=1.0,
        input_quantizer="ste_sign",
        kernel_quantizer="ste_sign",
        use_bias=False,
        **arguments,
    )


def bit_output_model() -> tf.keras.Model:
    """One-padded convolutions, of which LCE writes the outputs of two as bits, one through a max-pool."""
    x = image = tf.keras.Input((12, 12, 3), name="image")
    x = keras.Conv2D(32, 3, padding="same", use_bias=False, name="stem")(x)
    x = keras.BatchNormalization(name="stem_bn")(x)
    for number, filters in enumerate((32, 48, 64), start=1):
        x = one_padded(filters, name=f"conv{number}")(x)
        x = keras.BatchNormalization(name=f"bn{number}")(x)
        if number == 2:
            x = keras.MaxPool2D()(x)
    x = keras.GlobalAveragePooling2D()(x)
    return tf.keras.Model(image, keras.Dense(5, name="logits")(x), name="bits")


def images(model: tf.keras.Model, count: int = 2, seed: int = 0) -> np.ndarray:
    shape = (count, *model.input_shape[1:])
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
