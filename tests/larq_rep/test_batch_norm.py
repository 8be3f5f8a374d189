import subprocess
import sys

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from larq_rep import reptran
from larq_rep.converters import convert
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.layers import BatchNormalization
from larq_rep.training.phases import with_synchronized_norms

KERAS = tf.keras.layers.BatchNormalization


def numbers(shape):
    return np.random.default_rng(0).normal(1, 2, shape)


def moved(layer, x, axes, kept=None, start=1.0):
    """The part of the moving variance that a step brought, over the biased variance of the numbers."""
    kept = x if kept is None else kept
    found = layer.moving_variance.numpy() - layer.momentum * start
    return found / (1 - layer.momentum) / np.var(kept, axis=axes)


@pytest.mark.parametrize(
    "shape, axis, dtype",
    [
        ((16, 8), -1, "float32"),
        ((16, 8), -1, "float64"),
        ((2, 3), -1, "float32"),
        ((4, 5, 2), -1, "float32"),
        ((4, 5, 2), 1, "float32"),
        ((2, 3, 4, 5), -1, "float32"),  # Keras' fused operation
        ((2, 3, 4, 5), -1, "float64"),
        ((2, 3, 4, 5), 1, "float64"),
        ((2, 3, 4, 5, 6), -1, "float32"),
    ],
)
def test_moving_variance_is_unbiased(shape, axis, dtype):
    x = numbers(shape)
    layer, plain = (kind(axis, momentum=0.75, epsilon=1e-5, dtype=dtype) for kind in (BatchNormalization, KERAS))
    y, expected = (each(tf.constant(x, dtype), training=True) for each in (layer, plain))
    axes = tuple(i for i in range(len(shape)) if i != axis % len(shape))
    count = x.size // shape[axis]
    tolerance = 1e-9 if dtype == "float64" else 2e-4
    np.testing.assert_allclose(moved(layer, x, axes), np.full(shape[axis], count / (count - 1)), rtol=tolerance)
    # All else is as in Keras.
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_allclose(layer.moving_mean, plain.moving_mean, rtol=1e-7)


def test_statistics_in_float64():
    """Neither 0.9 nor 0.1 is a number of float32."""
    x = numbers((16, 8))
    layer = BatchNormalization(momentum=0.9, dtype="float64")
    mean, variance = np.zeros(8), np.ones(8)
    for _ in range(3):
        layer(tf.constant(x), training=True)
        mean, variance = 0.9 * mean + 0.1 * x.mean(0), 0.9 * variance + 0.1 * x.var(0, ddof=1)
    np.testing.assert_allclose(layer.moving_mean, mean, rtol=1e-13)
    np.testing.assert_allclose(layer.moving_variance, variance, rtol=1e-13)


@pytest.mark.parametrize("training", [tf.constant(True), tf.constant(False)])
def test_training_may_be_a_tensor(training):
    x = numbers((16, 8))
    layer = BatchNormalization()
    step = tf.function(lambda x, training: layer(x, training=training))
    for _ in range(2):
        step(tf.constant(x, tf.float32), training)
    expected = 0.99**2 + (1 - 0.99**2) * np.var(x, axis=0, ddof=1)
    np.testing.assert_allclose(layer.moving_variance, expected if training else np.ones(8), rtol=1e-5)


def test_masked_numbers_do_not_count():
    x = numbers((4, 5, 3))
    mask = np.zeros((4, 5), bool)
    mask[:, :3] = True
    layer = BatchNormalization(momentum=0.9)
    layer(tf.constant(x, tf.float32), training=True, mask=tf.constant(mask))
    np.testing.assert_allclose(moved(layer, x, (0, 1), x[:, :3]), np.full(3, 12 / 11), rtol=1e-5)


def test_a_single_number_has_no_variance():
    layer = BatchNormalization(momentum=0.9)
    layer(tf.constant(numbers((1, 8)), tf.float32), training=True)
    np.testing.assert_allclose(layer.moving_variance, np.full(8, 0.9), rtol=1e-6)


def test_a_frozen_layer_stays():
    model = tf.keras.Sequential([tf.keras.Input((8,)), BatchNormalization(momentum=0.9)])
    model.trainable = False
    for inner in (False, True):
        # Keras normalises with the batch in the second case, and learns nothing of it.
        model.layers[0].trainable = inner
        x = tf.constant(numbers((16, 8)), tf.float32)
        plain = tf.keras.models.clone_model(model, clone_function=lambda layer: KERAS.from_config(layer.get_config()))
        plain.trainable = False
        plain.layers[0].trainable = inner
        np.testing.assert_array_equal(model(x, training=True), plain(x, training=True))
        if not inner:
            np.testing.assert_array_equal(model.layers[0].moving_variance, np.ones(8))


def test_one_epoch_of_keras_training():
    x = numbers((16, 8)).astype(np.float32)
    inputs = tf.keras.Input((8,))
    model = tf.keras.Model(inputs, BatchNormalization(momentum=0.9)(inputs))
    model.compile("sgd", "mse")
    model.fit(x, x, batch_size=16, verbose=0)
    np.testing.assert_allclose(moved(model.layers[1], x, 0), np.full(8, 16 / 15), rtol=1e-5)
    before = model.get_weights()
    model.evaluate(x, x, verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("kind", [BatchNormalization, KERAS])
@pytest.mark.parametrize("shape", [(16, 8), (4, 2, 2, 8)])
def test_synchronized_norms_are_unbiased(kind, shape):
    """Keras does not fuse them; on one device they have to be what they were. `test_workers` has several."""
    inputs = tf.keras.Input(shape[1:])
    model = with_synchronized_norms(tf.keras.Model(inputs, kind(momentum=0.9, name="bn")(inputs)))
    norm = model.get_layer("bn")
    assert norm.synchronized and type(norm) is BatchNormalization
    x = numbers(shape)
    model(tf.constant(x, tf.float32), training=True)
    np.testing.assert_allclose(moved(norm, x, tuple(range(len(shape) - 1))), np.full(8, 16 / 15), rtol=1e-5)


_DEVICES = """
import larq_rep

import numpy as np
import tensorflow as tf

from larq_rep.layers import BatchNormalization

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
x = np.random.default_rng(0).normal(1, 2, (16, 8)).astype("float32")


def moved(synchronized):
    # Shares of 12 and 4 numbers: N has to be counted, not multiplied.
    with strategy.scope():
        layer = BatchNormalization(momentum=0.9, synchronized=synchronized)
        layer.build((None, 8))
    shares = [x[:12], x[12:]]
    values = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(shares[context.replica_id_in_sync_group])
    )
    strategy.run(tf.function(lambda x: layer(x, training=True)), [values])
    return (layer.moving_variance.numpy() - 0.9) / 0.1


np.testing.assert_allclose(moved(True), x.var(axis=0, ddof=1), rtol=1e-4)
# Else each device has its own variance, and the mean of them is kept.
expected = (x[:12].var(axis=0, ddof=1) + x[12:].var(axis=0, ddof=1)) / 2
np.testing.assert_allclose(moved(False), expected, rtol=1e-4)
print("equal")
"""


@pytest.mark.slow
def test_numbers_of_all_devices_count():
    """In a process of its own: how many devices there are is settled when TensorFlow starts."""
    run = subprocess.run([sys.executable, "-c", _DEVICES], capture_output=True, text=True)
    assert run.stdout.endswith("equal\n"), run.stderr[-3000:]


def network(kind):
    tf.keras.utils.set_random_seed(0)
    x = image = tf.keras.Input((6, 6, 3))
    x = tf.keras.layers.Conv2D(32, 1, use_bias=False, name="stem")(x)
    for name in ("a", "b"):
        signs = dict(input_quantizer="ste_sign", kernel_quantizer="ste_sign", use_bias=False)
        x = lq.layers.QuantConv2D(32, 3, padding="same", pad_values=1, name=name, **signs)(x)
        x = kind(momentum=0.9, name=f"{name}_bn")(x)
    x = kind(momentum=0.9, name="bn")(tf.keras.layers.GlobalAveragePooling2D()(x))
    model = tf.keras.Model(image, x)
    rng = np.random.default_rng(1)
    model.set_weights([rng.uniform(0.5, 1.5, w.shape) * rng.choice([-1, 1], w.shape) for w in model.get_weights()])
    for layer in model.layers:
        if isinstance(layer, KERAS):
            layer.moving_variance.assign(tf.abs(layer.moving_variance))
    return model


IMAGES = np.random.default_rng(2).normal(size=(2, 6, 6, 3)).astype(np.float32)


@pytest.mark.parametrize("kinds", [(KERAS, BatchNormalization), (BatchNormalization, KERAS)])
@pytest.mark.parametrize("name", ["w.h5", "w.weights.h5"])
def test_files_of_weights_fit_keras_layer(kinds, name, tmp_path):
    writer, reader = map(network, kinds)
    reader.set_weights([np.zeros(w.shape) for w in reader.get_weights()])
    writer.save_weights(tmp_path / name)
    reader.load_weights(tmp_path / name)
    for written, read in zip(writer.get_weights(), reader.get_weights(), strict=True):
        np.testing.assert_array_equal(written, read)


@pytest.mark.parametrize("name", ["model.h5", "model.keras", "saved_model"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_saved_models_keep_the_layers_of_keras(name, tmp_path):
    model = network(KERAS)
    model.save(tmp_path / name)
    loaded = tf.keras.models.load_model(tmp_path / name)
    assert {type(layer) for layer in loaded.layers if isinstance(layer, KERAS)} == {KERAS}
    np.testing.assert_array_equal(loaded(IMAGES), model(IMAGES))


def test_conversion_is_that_of_keras_layer():
    """With the normalisations folded into the binary convolutions, one of which writes bits."""
    contents = [convert(network(kind))[0] for kind in (BatchNormalization, KERAS)]
    ours, expected = ([op.name for op in Flatbuffer(content).operators] for content in contents)
    assert ours == expected and ours.count("LceBconv2d") == 2
    assert len(contents[0]) == len(contents[1])


def test_reptran_keeps_it():
    rep = reptran(network(BatchNormalization), 2)
    norms = [layer for layer in rep.layers if isinstance(layer, KERAS)]
    assert [type(norm) for norm in norms] == [BatchNormalization] * 3
    assert {norm.moving_variance.shape[0] for norm in norms} == {64}
