"""Verification of gates, which multiply the rounding of large sums with large values."""

import numpy as np
import pytest
import tensorflow as tf
from support import one_padded, randomize

from larq_rep.converters import convert, verify

keras = tf.keras.layers
IMAGE = np.random.default_rng(0).standard_normal((1, 8, 8, 3)).astype(np.float32)


def gated(activation: str, behind_sign: bool) -> tf.keras.Model:
    """A squeeze-and-excite layer whose gates are sums of about 0 of terms of about 10,000 on `IMAGE`."""
    x = image = tf.keras.Input((8, 8, 3))
    x = keras.Conv2D(32, 3, padding="same", name="stem")(x)
    squeezed = keras.GlobalAveragePooling2D()(x)
    gate = keras.Dense(32, activation=activation, name="gate")(squeezed)
    x = keras.Multiply()([x, keras.Reshape((1, 1, 32))(gate)])
    if behind_sign:
        x = keras.BatchNormalization(name="shift")(x)
        x = keras.BatchNormalization()(one_padded()(x))
    model = randomize(tf.keras.Model(image, keras.GlobalAveragePooling2D()(x)))
    kernel, bias = model.get_layer("stem").get_weights()
    model.get_layer("stem").set_weights([100 * kernel, 100 * bias])
    if behind_sign:  # The signs have to depend on the gates.
        *others, mean, variance = model.get_layer("shift").get_weights()
        model.get_layer("shift").set_weights([*others, 100 * mean, variance])
    means = tf.keras.Model(image, squeezed).predict(IMAGE, verbose=0)[0].astype(np.float64)
    weights = np.random.default_rng(1).normal(0, 100, (32, 32))
    weights -= np.outer(means, means @ weights) / (means @ means)
    model.get_layer("gate").set_weights([weights, np.zeros(32)])
    return model


@pytest.mark.parametrize("behind_sign", [True, False], ids=["in front of a sign", "at the output"])
@pytest.mark.parametrize("activation", ["sigmoid", "softmax", "tanh"])
def test_rounding_in_front_of_a_gate_passes_and_a_fault_does_not(activation, behind_sign):
    model = gated(activation, behind_sign)
    how = {} if behind_sign else {"allow_float": True}
    content, _ = convert(model, **how)
    gate = model.get_layer("gate")
    kernel, bias = gate.get_weights()
    # As an engine that adds in another order.
    gate.set_weights([kernel * np.random.default_rng(2).choice([1 - 1e-7, 1 + 1e-7], kernel.shape), bias])
    result = verify(model, content, IMAGE)
    assert result.ok, result.differences

    gate.set_weights([np.where(np.arange(32 * 32).reshape(32, 32) == 37, 1.01, 1) * kernel, bias])
    assert not verify(model, content, IMAGE, runtime="lce").ok
