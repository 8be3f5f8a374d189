import numpy as np
import pytest
import tensorflow as tf

from larq_rep.training import calibrate_batch_norm


def test_calibrate_batch_norm_sets_the_statistics_of_each_input():
    rng = np.random.default_rng(0)
    inputs = tf.keras.Input((5, 5, 3))
    x = tf.keras.layers.BatchNormalization(name="first")(inputs)
    x = tf.keras.layers.ReLU()(x)
    frozen = tf.keras.layers.BatchNormalization(name="frozen", trainable=False)(x)
    x = tf.keras.layers.GlobalAveragePooling2D()(frozen)
    outputs = tf.keras.layers.BatchNormalization(name="last", momentum=0.5)(x)
    model = tf.keras.Model(inputs, outputs)
    for layer in model.layers:  # nothing of what was there before may remain
        layer.set_weights([rng.uniform(5, 9, w.shape) for w in layer.get_weights()])
    gamma, beta, _, _ = model.get_layer("first").get_weights()
    of_frozen = model.get_layer("frozen").get_weights()
    images = rng.normal(3, 2, (7, 5, 5, 3)).astype(np.float32)

    calibrate_batch_norm(model, images)

    n = 7 * 5 * 5
    mean, variance = images.mean(axis=(0, 1, 2)), images.var(axis=(0, 1, 2))
    first = model.get_layer("first")
    np.testing.assert_allclose(first.moving_mean.numpy(), mean, rtol=1e-4)
    np.testing.assert_allclose(first.moving_variance.numpy(), variance * n / (n - 1), rtol=1e-4)
    x = np.maximum(gamma * (images - mean) / np.sqrt(variance + first.epsilon) + beta, 0)
    for before, after in zip(of_frozen, model.get_layer("frozen").get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    scale, offset, moving_mean, moving_variance = of_frozen
    x = scale * (x - moving_mean) / np.sqrt(moving_variance + 1e-3) + offset
    x = x.mean(axis=(1, 2))
    last = model.get_layer("last")
    np.testing.assert_allclose(last.moving_mean.numpy(), x.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(last.moving_variance.numpy(), x.var(axis=0), rtol=1e-3)
    assert (first.momentum, last.momentum) == (0.99, 0.5)


def test_calibrate_batch_norm_needs_one():
    model = tf.keras.Sequential([tf.keras.layers.Dense(1, input_shape=(1,))], name="plain")
    with pytest.raises(ValueError, match="'plain' has no trainable BatchNormalization"):
        calibrate_batch_norm(model, np.zeros((1, 1)))
