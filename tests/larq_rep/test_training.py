import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from larq_rep import data
from larq_rep.quantizers import EDESign, LibraSign
from larq_rep.training import EDESchedule, calibrate_batch_norm, train
from larq_rep.zoo import ResNet20


def _model(t):
    inputs = tf.keras.Input((4, 4, 1))
    x = lq.layers.QuantConv2D(2, 3, input_quantizer=EDESign(t=t), kernel_quantizer=LibraSign(t=t))(inputs)
    return tf.keras.Model(inputs, tf.keras.layers.Flatten()(x))


# Published start, epoch at which t is 1, and t in the last epoch: ResNet-20 and VGG-small of IR-Net.
@pytest.mark.parametrize("t_min, epochs, reaches_1, last", [(1e-3, 400, 300, 9.772), (1e-1, 300, 150, 9.848)])
def test_ede_schedule_is_the_published_one(t_min, epochs, reaches_1, last):
    model = _model(t_min)
    schedule = EDESchedule()
    schedule.set_model(model)
    schedule.set_params({"epochs": epochs})
    schedule.on_train_begin()
    convolution = model.layers[1]
    for epoch, expected in ((0, t_min), (reaches_1, 1.0), (epochs - 1, last)):
        schedule.on_epoch_begin(epoch)
        for quantizer in (convolution.input_quantizer, convolution.kernel_quantizer):
            assert quantizer.t.numpy() == pytest.approx(expected, rel=1e-4)


def test_ede_schedule_reaches_all_quantizers_of_a_network():
    model = ResNet20(width=2, input_shape=(12, 12, 1))
    seen = []

    class Record(tf.keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            convolutions = [layer for layer in model.layers if hasattr(layer, "kernel_quantizer")]
            seen.append([float(c.input_quantizer.t) for c in convolutions])
            seen.append([float(c.kernel_quantizer.t) for c in convolutions])

    images, labels = data.digits("train", 12)
    train(model, images[:4], labels[:4], epochs=2, batch_size=4, callbacks=[Record()])
    np.testing.assert_allclose(seen, np.repeat([[1e-3], [1e-3], [0.1], [0.1]], 18, axis=1), rtol=1e-4)


def test_ede_schedule_needs_a_quantizer():
    schedule = EDESchedule()
    schedule.set_model(tf.keras.Sequential([tf.keras.layers.Dense(1, input_shape=(1,))], name="plain"))
    with pytest.raises(ValueError, match="'plain' has no EDESign or LibraSign"):
        schedule.on_train_begin()


def _linear(w):
    model = tf.keras.Sequential([tf.keras.layers.Flatten(input_shape=(2, 2, 1)), tf.keras.layers.Dense(3)])
    model.layers[1].set_weights([w, np.zeros(3, np.float32)])
    return model


def test_train_is_sgd_with_momentum_and_cosine():
    """Two epochs of one step against the formulas; the weight decay only up to its own first order."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, 2, 2, 1)).astype(np.float32)
    y = rng.integers(0, 3, 8)
    w = rng.standard_normal((4, 3)).astype(np.float32)
    model = _linear(w)
    history = train(model, x, y, validation_data=(x, y), epochs=2, batch_size=8, learning_rate=0.5, weight_decay=0.0)

    flat, hot = x.reshape(8, 4), np.eye(3)[y]
    b, dw, db = np.zeros(3), np.zeros((4, 3)), np.zeros(3)
    losses = []
    for step in range(2):
        z = flat @ w + b
        p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        losses.append(-np.log((p * hot).sum(axis=1)).mean())
        rate = 0.5 * (1 + np.cos(np.pi * step / 2)) / 2
        dw = 0.9 * dw - rate * flat.T @ (p - hot) / 8
        db = 0.9 * db - rate * (p - hot).mean(axis=0)
        w, b = w + dw, b + db
    np.testing.assert_allclose(model.layers[1].kernel.numpy(), w, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.layers[1].bias.numpy(), b, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(history.history["loss"], losses, rtol=1e-5)
    assert {"loss", "accuracy", "val_loss", "val_accuracy"} <= set(history.history)


def test_train_ends_with_the_average_of_the_weights():
    x, y = np.zeros((1, 2, 2, 1), np.float32), np.zeros(1, int)
    seen = []

    class Record(tf.keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(self.model.layers[1].bias.numpy())

    model = _linear(np.zeros((4, 3), np.float32))
    train(model, x, y, epochs=5, batch_size=1, average=0.75, callbacks=[Record()])
    average = np.zeros(3)
    for bias in seen:
        average = 0.75 * average + 0.25 * bias
    assert np.abs(average - seen[-1]).max() > 0.01
    np.testing.assert_allclose(model.layers[1].bias.numpy(), average, rtol=1e-5)


def test_weight_decay_adds_up_as_through_the_momentum():
    # Zero images give the kernel no gradient: only the decay moves it. At a constant rate r and through a
    # momentum of 0.9, each of its steps adds up to 10 r decay w in the end.
    model = _linear(np.ones((4, 3), np.float32))
    rate, decay, steps = 0.1, 1e-3, 50
    train(
        model,
        np.zeros((1, 2, 2, 1), np.float32),
        np.zeros(1, int),
        epochs=steps,
        batch_size=1,
        learning_rate=rate,
        weight_decay=decay,
    )
    # The mean of the cosine is half of where it starts.
    expected = np.exp(-10 * decay * rate * steps / 2)
    np.testing.assert_allclose(model.layers[1].kernel.numpy(), expected, rtol=2e-3)


def test_train_repeats_itself_with_a_seed():
    images, labels = data.digits("train", 12)

    def weights(seed):
        tf.keras.utils.set_random_seed(0)
        model = tf.keras.Sequential([tf.keras.layers.Flatten(input_shape=(12, 12, 1)), tf.keras.layers.Dense(10)])
        train(model, images[:64], labels[:64], epochs=2, batch_size=16, shift=1, seed=seed)
        return model.get_weights()[0]

    np.testing.assert_allclose(weights(1), weights(1), atol=1e-6)
    assert np.abs(weights(1) - weights(2)).max() > 1e-3


def test_train_shifts_images_by_whole_pixels_and_fills_with_zeros():
    seen = []

    class Record(tf.keras.layers.Layer):
        def call(self, inputs):
            tf.py_function(lambda x: seen.append(x.numpy()[0, :, :, 0].copy()), [inputs], [])
            return inputs

    image = np.arange(1, 17, dtype=np.float32).reshape(4, 4)
    model = tf.keras.Sequential(
        [tf.keras.Input((4, 4, 1)), Record(), tf.keras.layers.Flatten(), tf.keras.layers.Dense(2)]
    )
    train(model, image[None, :, :, None], np.zeros(1, int), epochs=100, batch_size=1, shift=1)
    padded = np.pad(image, 1)
    shifted = {padded[i : i + 4, j : j + 4].tobytes() for i in range(3) for j in range(3)}
    assert {x.tobytes() for x in seen} == shifted


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
