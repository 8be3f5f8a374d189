"""Training without latent weights: the optimizer, the networks that it trains, and runs."""

import functools
from dataclasses import replace

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from run_files import arrays, metrics

from larq_rep import training
from larq_rep.quantizers import EDESign, LibraSign, ReCUSign, ScaledSign
from larq_rep.training.augmentation import Augmentation
from larq_rep.training.optimizers import BopAndAdam
from larq_rep.training.phases import with_binary_weights
from larq_rep.training.schedules import Gamma, Linear, Steps

_PHASE = training.Phase(
    epochs=3, batch_size=512, optimizer="bop", learning_rate=0.01, gamma=(0.1, 0.01), schedule=Steps((1, 2), 0.5)
)
_RECIPE = training.Recipe("test", "none", "digits", "inferred", "none", Augmentation(crop="pad"), (_PHASE,))
_CONFIG = training.Config("small", "digits", _RECIPE, seed=3)


def small(config, kernel_quantizer=ScaledSign):
    inputs = tf.keras.Input((8, 8, 1))
    x = tf.keras.layers.Conv2D(6, 3, use_bias=False, name="stem")(inputs)
    x = tf.keras.layers.BatchNormalization(name="bn1")(x)
    x = lq.layers.QuantConv2D(
        8,
        3,
        strides=2,
        input_quantizer=EDESign(),
        kernel_quantizer=kernel_quantizer(),
        kernel_constraint="weight_clip",
        kernel_regularizer="l2",
        use_bias=False,
        name="conv",
    )(x)
    x = tf.keras.layers.BatchNormalization(name="bn2")(x)
    x = tf.keras.layers.Flatten(name="flatten")(x)
    return tf.keras.Model(inputs, tf.keras.layers.Dense(config.num_classes, name="dense")(x), name="small")


def test_updates_are_those_of_the_papers():
    """Bop flips the binary kernel where w m > tau, Adam (Keras' form) trains the rest."""
    rng = np.random.default_rng(0)
    model = with_binary_weights(small(replace(_CONFIG, num_classes=10)))
    kernel, other = model.get_layer("conv").kernel, model.get_layer("stem").kernel
    optimizer = BopAndAdam(0.01, gamma=0.3, threshold=0.05)
    optimizer.build([kernel, other])
    w, v = kernel.numpy(), other.numpy().astype(np.float64)
    assert set(np.unique(w)) == {-1.0, 1.0}
    mean = first = second = 0.0
    flips = []
    for step, (gamma, rate) in enumerate([(0.3, 0.01), (0.3, 0.02), (0.2, 0.005), (0.1, 0.01)], start=1):
        optimizer.gamma, optimizer.learning_rate = gamma, rate
        g, h = (rng.normal(size=x.shape).astype(np.float32) for x in (w, v))
        optimizer.apply_gradients([(tf.constant(g), kernel), (tf.constant(h), other)])
        mean = (1 - gamma) * mean + gamma * g
        flips.append((w * mean > 0.05).mean())
        w = np.where(w * mean > 0.05, -w, w)
        first, second = 0.9 * first + 0.1 * h, 0.999 * second + 0.001 * h**2
        v -= rate * np.sqrt(1 - 0.999**step) / (1 - 0.9**step) * first / (np.sqrt(second) + 1e-7)
        np.testing.assert_array_equal(kernel, w)
        np.testing.assert_allclose(other, v, rtol=1e-4, atol=1e-6)
    assert all(0.02 < share < 0.98 for share in flips), flips
    assert int(optimizer.iterations) == 4
    again = tf.keras.optimizers.deserialize(tf.keras.optimizers.serialize(optimizer), use_legacy_optimizer=True)
    assert type(again) is BopAndAdam
    assert again.get_config() == pytest.approx({"learning_rate": 0.01, "gamma": 0.1, "threshold": 0.05})


def test_the_networks_own_quantizers_give_the_same():
    """Also where a learned latent weight is 0, and beyond the constraint."""
    model = small(replace(_CONFIG, num_classes=10))
    kernel = np.random.default_rng(1).normal(size=model.get_layer("conv").kernel.shape).astype(np.float32)
    kernel[0, 0, 0] = 0
    model.get_layer("conv").kernel.assign(kernel)
    binary = with_binary_weights(model)
    np.testing.assert_array_equal(binary.get_layer("conv").kernel, np.where(kernel < 0, -1, 1))
    assert len(model.losses) == 1 and binary.losses == []
    assert binary.get_layer("conv").kernel_constraint is None and model.get_layer("conv").kernel_constraint is not None
    images = np.random.default_rng(2).normal(size=(4, 8, 8, 1)).astype(np.float32)
    model.set_weights(binary.get_weights())
    np.testing.assert_array_equal(model(images), binary(images))


@pytest.mark.parametrize("quantizer", [LibraSign, ReCUSign])
def test_networks_that_would_differ_are_refused(quantizer):
    with pytest.raises(ValueError, match=f"'conv', {quantizer.__name__}, changes weights of"):
        with_binary_weights(small(replace(_CONFIG, num_classes=10), quantizer))


def test_a_network_without_binary_weights_is_refused():
    inputs = tf.keras.Input((3,))
    with pytest.raises(ValueError, match="no layer of model 'real' has a binary kernel"):
        with_binary_weights(tf.keras.Model(inputs, tf.keras.layers.Dense(2)(inputs), name="real"))


def test_gamma_needs_bop():
    model = tf.keras.Sequential([tf.keras.layers.Dense(1, input_shape=(1,))])
    model.compile("sgd", "mse")
    x = np.zeros((1, 1), np.float32)
    with pytest.raises(ValueError, match="SGD, has no gamma to set"):
        model.fit(x, x, callbacks=[Gamma(Linear(), 0.1)], verbose=0)


class _Stop(BaseException):
    pass


class _StopIn(tf.keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (1, 1):
            raise _Stop


def test_a_run_with_bop(tmp_path):
    """Its kernels stay binary, it goes on after an interruption, and the network with its own quantizers loads it."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    training.train(small, whole, _CONFIG, report=lambda line: None)
    rows = training.read_metrics(whole)
    assert [row["lr"] for row in rows] == pytest.approx([0.01, 0.005, 0.0025])
    assert [row["gamma"] for row in rows] == pytest.approx([0.1, 0.07, 0.04])
    assert rows[-1]["loss"] < rows[0]["loss"]

    with pytest.raises(_Stop):
        training.train(small, stopped, _CONFIG, callbacks=[_StopIn()], report=lambda line: None)
    config = training.Config.read(stopped)
    assert config.recipe == _RECIPE
    training.train(small, stopped, config, resume=True, report=lambda line: None)
    assert metrics(stopped) == metrics(whole)
    expected, found = (arrays(folder / "1-binary" / "last.h5") for folder in (whole, stopped))
    assert expected.keys() == found.keys() and len(expected) > 8
    for name, values in expected.items():
        np.testing.assert_array_equal(values, found[name], err_msg=name)

    network = training.load(small, whole, "last")
    kernel = network.get_layer("conv").kernel
    assert set(np.unique(kernel)) == {-1.0, 1.0}
    initial = with_binary_weights(small(replace(_CONFIG, num_classes=10))).get_layer("conv").kernel
    assert np.any(kernel != initial)
    np.testing.assert_array_equal(network.get_layer("conv").kernel_quantizer(tf.convert_to_tensor(kernel)), kernel)


def test_options_that_do_not_go_together():
    phase = functools.partial(replace, _PHASE)
    for changes, message in (
        ({"weights": "real"}, "optimizer='bop' needs weights='binary', found 'real'"),
        ({"weight_decay": 0.1}, "optimizer='bop' needs weight_decay=0, found 0.1"),
        ({"gamma": (0.1, 0.0)}, "gamma should be two numbers"),
        ({"threshold": -0.1}, "threshold should be 0 to inf, found -0.1"),
        ({"optimizer": "adam", "activations": "real"}, "activations='real' needs weights='real', found 'binary'"),
        ({"optimizer": "adam", "activations": "tanh"}, "activations='tanh' needs weights='real', found 'binary'"),
        ({"loss": "squared_hinge", "label_smoothing": 0.1}, "loss='squared_hinge' needs label_smoothing=0"),
        ({"loss": "squared_hinge", "teacher": "a"}, "loss='squared_hinge' needs teacher=None, found 'a'"),
        ({"loss": "distribution", "teacher": "a"}, "loss='distribution' needs teacher=None"),
    ):
        with pytest.raises(ValueError, match=message):
            phase(**changes).check()
    _PHASE.check()
    phase(loss="squared_hinge").check()
