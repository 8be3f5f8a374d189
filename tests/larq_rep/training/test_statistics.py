import itertools

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from larq.quantizers import ApproxSign, DoReFa, NoOp, SteSign

from larq_rep.quantizers import (
    EDESign,
    LeakyRSign,
    LeakySign,
    LibraSign,
    LowBitSign,
    QuantSign,
    ReCUInputSign,
    RotatedSign,
    RSign,
    StandardizedSign,
)
from larq_rep.training.statistics import BinaryStatistics

keras = tf.keras.layers
_SHAPE = (4, 4, 3)


def _images(seed=0, scale=1.0):
    return np.random.default_rng(seed).normal(0.2, scale, (5, *_SHAPE)).astype(np.float32)


def _fit(model, *callbacks, epochs=1, **kwargs):
    """A training that changes nothing: what changes is what callbacks do."""
    model.compile(tf.keras.optimizers.SGD(0.0), "mse")
    targets = np.zeros((2, *model.output_shape[1:]), np.float32)
    return model.fit(
        np.zeros((2, *_SHAPE), np.float32), targets, epochs=epochs, callbacks=callbacks, verbose=0, **kwargs
    )


def _after(values):
    """Gives weights their values of each epoch, as if they were trained."""

    def assign(epoch, logs):
        for variable, epochs in values:
            variable.assign(epochs[epoch])

    return tf.keras.callbacks.LambdaCallback(on_epoch_begin=assign)


def _scalars(folder):
    """Step and value of all scalars in the event files of a folder, by tag."""
    found = {}
    for file in sorted(folder.iterdir()):
        for record in tf.data.TFRecordDataset(str(file)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, float(tf.make_ndarray(value.tensor))))
    return found


def _binary_model():
    """Convolution with the plain sign, one with a centred one, and a dense layer with a rotated one."""
    inputs = tf.keras.Input(_SHAPE)
    x = lq.layers.QuantConv2D(4, 3, kernel_quantizer=SteSign(), use_bias=False, name="plain")(inputs)
    x = lq.layers.QuantConv2D(4, 2, kernel_quantizer=LibraSign(), use_bias=False, name="centred")(x)
    x = keras.Conv2D(8, 1, name="real")(x)
    x = lq.layers.QuantDense(4, kernel_quantizer=RotatedSign(), use_bias=False, name="rotated")(keras.Flatten()(x))
    return tf.keras.Model(inputs, x)


def test_flip_ratio_is_that_of_the_quantized_weights(tmp_path):
    rng = np.random.default_rng(1)
    model = _binary_model()
    plain, centred, rotated = (model.get_layer(name) for name in ("plain", "centred", "rotated"))
    quantizer = rotated.kernel_quantizer
    # Before the training and after each of three epochs.
    shapes = [layer.kernel.shape for layer in (plain, centred, rotated)]
    kernels = [[rng.normal(0.5, 1, shape).astype(np.float32) for _ in range(4)] for shape in shapes]
    kernels[1][2] = kernels[1][1] + 10  # the mean of an output channel alone changes
    kernels[2] = [kernels[2][0]] * 4
    rotations = [np.linalg.qr(rng.normal(size=(2, 2)))[0].astype(np.float32) for _ in range(4)]
    assert quantizer.R1.shape == (2, 2) and quantizer.R2.shape == (4, 4)
    second = quantizer.R2.numpy()
    values = [
        (layer.kernel.latent_variable, epochs) for layer, epochs in zip((plain, centred, rotated), kernels, strict=True)
    ]
    values.append((quantizer.R1, rotations))
    for variable, epochs in values:
        variable.assign(epochs[0])

    statistics = BinaryStatistics(_images(), tmp_path)
    trained = _after([(variable, epochs[1:]) for variable, epochs in values])
    history = _fit(model, trained, statistics, epochs=3)

    def rotated_signs(kernel, rotation):
        z = (kernel - kernel.mean(0)) / kernel.std(0, ddof=1)
        matrices = z.T.reshape(4, 2, 4)  # an output channel each
        return np.stack([rotation.T @ matrix @ second for matrix in matrices]) >= 0

    signs = {
        "plain": [w >= 0 for w in kernels[0]],
        "centred": [w >= w.mean((0, 1, 2)) for w in kernels[1]],
        "rotated": [rotated_signs(*pair) for pair in zip(kernels[2], rotations, strict=True)],
    }
    expected = {
        name: [np.mean(now != before) for before, now in itertools.pairwise(epochs)] for name, epochs in signs.items()
    }
    assert expected["centred"][1] < 0.05 < min(expected["rotated"])
    scalars = _scalars(tmp_path)
    assert set(scalars) == {f"flip_ratio/{name}" for name in expected}
    for name, ratios in expected.items():
        assert [step for step, _ in scalars[f"flip_ratio/{name}"]] == [0, 1, 2]
        np.testing.assert_allclose([value for _, value in scalars[f"flip_ratio/{name}"]], ratios, atol=1e-6)
    np.testing.assert_allclose(history.history["flip_ratio"], np.mean(list(expected.values()), axis=0), atol=1e-6)
    assert "saturated" not in history.history


def test_resumed_training_counts_from_the_weights_it_began_with():
    model = _binary_model()
    kernel = model.get_layer("plain").kernel.latent_variable
    ones = np.ones(kernel.shape, np.float32)
    kernel.assign(ones)
    statistics = BinaryStatistics(_images())
    history = _fit(model, _after([(kernel, [-ones])]), statistics)
    assert history.history["flip_ratio"] == [pytest.approx(1 / 3)]
    kernel.assign(ones)  # as a checkpoint that is loaded
    history = _fit(model, _after([(kernel, {7: ones})]), statistics, epochs=8, initial_epoch=7)
    assert history.epoch == [7]
    assert history.history["flip_ratio"] == [0.0]


def _saturated(quantizer, images):
    inputs = tf.keras.Input(_SHAPE)
    model = tf.keras.Model(inputs, quantizer(inputs))
    return _fit(model, BinaryStatistics(images)).history["saturated"][0]


@pytest.mark.parametrize(
    "quantizer",
    [
        ApproxSign,
        lambda: SteSign(clip_value=1.3),
        lambda: RSign(shift_initializer="random_normal"),
        lambda: LeakyRSign(slope=0.0, shift_initializer="ones"),
        lambda: LeakySign(slope=0.0),
        lambda: QuantSign(bits=1),
        LowBitSign,
        lambda: DoReFa(1),
    ],
)
def test_saturated_is_where_no_gradient_passes(quantizer):
    quantizer, images = quantizer(), _images()
    saturated = _saturated(quantizer, images)
    x = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = quantizer(x)
    without = np.mean(tape.gradient(y, x).numpy() == 0)
    assert 0.1 < without < 0.9
    assert saturated == pytest.approx(without, abs=1e-6)


@pytest.mark.parametrize("quantizer", [SteSign(clip_value=None), LeakySign(), EDESign(t=0.1)])
def test_saturated_without_a_window_is_beyond_1(quantizer):
    images = _images()
    assert _saturated(quantizer, images) == pytest.approx(np.mean(np.abs(images) > 1), abs=1e-6)


def test_what_a_hard_tanh_has_clipped_is_saturated():
    images = _images()
    assert _saturated(EDESign(), np.clip(images, -1, 1)) == pytest.approx(np.mean(np.abs(images) >= 1), abs=1e-6)


def test_saturated_of_standardized_activations():
    images = _images(scale=3.0)
    deviation = images.std((1, 2, 3), ddof=1, keepdims=True)
    recu = np.mean(np.abs(images) / np.sqrt(deviation**2 + 1e-5) > 1)
    assert _saturated(ReCUInputSign(), images) == pytest.approx(recu, abs=1e-6)
    standardized = np.abs(images - images.mean((1, 2, 3), keepdims=True)) / deviation
    for t, window in ((0.01, np.sqrt(2)), (4.0, np.sqrt(2) / 4)):
        expected = np.mean(standardized > window)
        assert _saturated(StandardizedSign(t=t), images) == pytest.approx(expected, abs=1e-6)


def test_saturated_follows_the_shift_during_training(tmp_path):
    images = _images()
    inputs = tf.keras.Input(_SHAPE)
    conv = lq.layers.QuantConv2D(2, 1, input_quantizer=RSign(), kernel_quantizer=None, name="conv")
    model = tf.keras.Model(inputs, keras.Activation(SteSign(), name="after")(keras.ReLU()(conv(inputs))))
    shifts = np.array([[0, 0.5, -0.5], [3, 0, 0]], np.float32)
    conv.kernel.assign(np.zeros((1, 1, 3, 2)))
    conv.bias.assign([0.5, 2.0])
    writer = tf.summary.create_file_writer(str(tmp_path))
    history = _fit(model, _after([(conv.input_quantizer.bias, shifts)]), BinaryStatistics(images, writer), epochs=2)
    # The second sign sees 0.5 in one channel and 2 in the other.
    expected = [np.mean(np.abs(images + shift) > 1) for shift in shifts]
    np.testing.assert_allclose(history.history["saturated"], (np.array(expected) + 0.5) / 2, atol=1e-6)
    assert "flip_ratio" not in history.history
    with writer.as_default(2):
        tf.summary.scalar("mine", 1.0)  # the writer that was given is still open
    writer.close()
    scalars = _scalars(tmp_path)
    assert scalars["mine"] == [(2, 1.0)]
    assert scalars["saturated/conv"] == [
        (epoch, pytest.approx(share, abs=1e-6)) for epoch, share in enumerate(expected)
    ]
    assert scalars["saturated/after"] == [(0, 0.5), (1, 0.5)]


def test_names_of_nested_and_shared_layers(tmp_path):
    inner = tf.keras.Input(_SHAPE)
    conv = lq.layers.QuantConv2D(
        3, 1, input_quantizer=SteSign(), kernel_quantizer=NoOp(precision=1), use_bias=False, name="conv"
    )
    nested = tf.keras.Model(inner, conv(conv(inner * 2)), name="nested")
    inputs = tf.keras.Input(_SHAPE)
    model = tf.keras.Model(inputs, nested(inputs))
    conv.set_weights([np.eye(3)[None, None] * 3])
    images = _images()
    _fit(model, BinaryStatistics(images, str(tmp_path)))
    # Behind the first call all is -3 or 3.
    assert _scalars(tmp_path) == {
        "flip_ratio/nested/conv": [(0, 0.0)],
        "saturated/nested/conv": [(0, pytest.approx(np.mean(np.abs(images) > 0.5), abs=1e-6))],
        "saturated/nested/conv:1": [(0, 1.0)],
    }


def test_real_network_has_no_statistics(tmp_path):
    model = tf.keras.Sequential([keras.Dense(1, input_shape=_SHAPE)])
    assert set(_fit(model, BinaryStatistics(_images(), tmp_path)).history) == {"loss"}
    assert _scalars(tmp_path) == {}


def test_model_without_a_graph():
    model = tf.keras.Sequential([keras.Dense(1)], name="shapeless")
    callback = BinaryStatistics(_images())
    callback.set_model(model)
    with pytest.raises(ValueError, match="'shapeless'"):
        callback.on_train_begin()
