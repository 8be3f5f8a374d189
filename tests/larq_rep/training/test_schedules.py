import dataclasses
import json
import math

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from larq_rep.layers import RepQuantConv2D
from larq_rep.quantizers import EDESign, LibraSign, ReCUInputSign, ReCUSign, RotatedSign, StandardizedSign
from larq_rep.training.optimizers import SGD
from larq_rep.training.schedules import (
    Cosine,
    EDESchedule,
    Exponential,
    INQSchedule,
    LearningRate,
    Linear,
    RBNNSchedule,
    ReCUSchedule,
    Schedule,
    Steps,
    WarmupSteps,
    WeightDecay,
    recu_tau,
    schedules_for,
    steepness,
)


@pytest.mark.parametrize(
    "schedule, rate, epochs, expected",
    [
        # ReActNet, printed by its code.
        (Linear(), 1.25e-3, 128, {0: 1.240234375e-3, 1: 1.23046875e-3, 126: 9.765625e-6, 127: 0.0}),
        (Linear(ahead=False), 1e-3, 250, {0: 1e-3, 125: 5e-4, 249: 4e-6}),
        # Bop: Adam's rate, which would end after the last epoch.
        (Linear(ahead=False, final=5e-6), 2.5e-3, 300, {0: 2.5e-3, 150: 1.2525e-3, 300: 5e-6}),
        (Linear(final=1.0), 3.0, 4, {0: 2.5, 1: 2.0, 3: 1.0}),
        # BinaryConnect on CIFAR-10: its square root after half of the epochs.
        (Exponential(2e-6), 3e-3, 500, {0: 3e-3, 250: math.sqrt(3e-3 * 2e-6), 500: 2e-6}),
        (Cosine(), 0.1, 400, {0: 0.1, 100: 0.05 + 0.05 * math.sqrt(0.5), 200: 0.05}),
        # RBNN: its scheduler counts from -5.
        (
            Cosine(warmup=5, offset=8, length=-4),
            0.1,
            1000,
            {0: 0.02, 1: 0.04, 4: 0.1, 5: 0.05 * (1 + math.cos(3 * math.pi / 996)), 8: 0.1, 506: 0.05},
        ),
        # ReCU on CIFAR-10 and on ImageNet.
        (Cosine(warmup=5, offset=4, length=-4), 0.1, 600, {0: 0.02, 4: 0.1, 302: 0.05, 600: 0.0}),
        (Cosine(warmup=5, offset=4, length=-4), 0.1, 200, {3: 0.08, 102: 0.05, 200: 0.0}),
        # AresB-Net on CIFAR-100.
        (Steps((160, 200, 260, 320), 0.2), 0.1, 360, {0: 0.1, 159: 0.1, 160: 0.02, 259: 4e-3, 260: 8e-4, 359: 1.6e-4}),
        (Steps((60,), 0.0), 1e-4, 90, {0: 1e-4, 59: 1e-4, 60: 0.0, 89: 0.0}),
    ],
)
def test_learning_rates_are_the_published_ones(schedule, rate, epochs, expected):
    assert not schedule.per_step
    for epoch, value in expected.items():
        assert schedule(rate, epoch, epochs) == pytest.approx(value, rel=1e-12, abs=1e-12), epoch


@pytest.mark.parametrize("per_epoch", [62, 625, 6250])
def test_learning_rate_of_irnet_on_imagenet(per_epoch):
    """62,500 steps, in as many epochs as one likes: 10 of 6,250, 1008.06 of 62, all with the same steps."""
    epochs = 62_500 / per_epoch
    schedule = WarmupSteps()
    assert schedule.per_step

    def rate(step):
        return schedule(0.8, step // per_epoch + step % per_epoch / per_epoch, epochs)

    expected = {0: 0.2, 1250: 0.5, 2500: 0.8, 18_749: 0.8, 18_750: 0.08, 37_499: 0.08, 37_500: 8e-3, 56_250: 8e-4}
    for step, value in expected.items():
        assert rate(step) == pytest.approx(value, rel=1e-9), step
    assert rate(1) - rate(0) == pytest.approx(0.6 / 2500)


def test_schedules_are_records():
    schedule = Cosine(warmup=5, offset=8, length=-4)
    assert isinstance(schedule, Schedule)
    assert repr(schedule) == "Cosine(warmup=5, offset=8, length=-4)"
    assert json.loads(json.dumps(dataclasses.asdict(schedule))) == {"warmup": 5, "offset": 8, "length": -4}
    assert schedule == Cosine(5, 8, -4) and hash(schedule) == hash(Cosine(5, 8, -4))
    with pytest.raises(dataclasses.FrozenInstanceError):
        schedule.warmup = 1
    assert set(dataclasses.asdict(WarmupSteps())) == {"warmup", "start", "at", "factor"}


def test_a_cosine_needs_epochs():
    schedule = Cosine(warmup=1, offset=1, length=-4)
    assert schedule(0.1, 0, 3) == 0.1
    with pytest.raises(ValueError, match=r"Cosine\(warmup=1, offset=1, length=-4\) leaves no epoch.*3 epochs -4"):
        schedule(0.1, 1, 3)


@pytest.mark.parametrize("rate, final", [(0.0, 1e-3), (0.1, 0.0), (0.1, -1.0)])
def test_an_exponential_needs_rates_above_zero(rate, final):
    with pytest.raises(ValueError, match=r"Exponential\(final=.*\) falls from .* to .*: both should be more than 0"):
        Exponential(final)(rate, 0, 3)


def _regression():
    model = tf.keras.Sequential([tf.keras.layers.Dense(1, use_bias=False, kernel_initializer="ones", input_shape=(1,))])
    # Zero inputs: only the weight decay moves the kernel.
    return model, np.zeros((3, 1), np.float32), np.zeros((3, 1), np.float32)


class _Record(tf.keras.callbacks.Callback):
    def __init__(self, read):
        super().__init__()
        self.read = read
        self.before, self.after = [], []

    def on_train_batch_begin(self, batch, logs=None):
        self.before.append(self.read(self.model))

    def on_train_batch_end(self, batch, logs=None):
        self.after.append(self.read(self.model))


@pytest.mark.parametrize("initial_epoch", [0, 3])
def test_the_rate_of_each_epoch_reaches_the_steps_and_the_logs(initial_epoch):
    model, x, y = _regression()
    model.compile(SGD(7.0, momentum=0.0, l2=1.0), "mse")
    kernel = _Record(lambda model: float(model.layers[0].kernel[0, 0]))
    callbacks = [LearningRate(Linear(), 0.5), WeightDecay(Steps((3,), 0.5), 0.4), kernel]
    history = model.fit(
        x, y, batch_size=1, epochs=5, initial_epoch=initial_epoch, callbacks=callbacks, verbose=0, shuffle=False
    )
    rates, penalties = [0.4, 0.3, 0.2, 0.1, 0.0], [0.4, 0.4, 0.4, 0.2, 0.2]
    np.testing.assert_allclose(history.history["lr"], rates[initial_epoch:], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(history.history["l2"], penalties[initial_epoch:], rtol=1e-12)
    factors = np.repeat(1 - np.multiply(rates, penalties), 3)[3 * initial_epoch :]
    np.testing.assert_allclose(kernel.after, np.cumprod(factors), rtol=1e-5)


@pytest.mark.parametrize("initial_epoch", [0, 2])
def test_a_rate_that_changes_from_step_to_step(initial_epoch):
    model, x, y = _regression()
    model.compile(SGD(7.0), "mse")
    rate = _Record(lambda model: float(model.optimizer.learning_rate))
    schedule = WarmupSteps(warmup=0.5, start=0.0, at=(0.75,), factor=0.1)
    history = model.fit(
        x,
        y,
        batch_size=1,
        epochs=4,
        initial_epoch=initial_epoch,
        callbacks=[LearningRate(schedule, 0.6), rate],
        verbose=0,
    )
    expected = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.6, 0.6, 0.06, 0.06, 0.06]
    np.testing.assert_allclose(rate.before, expected[3 * initial_epoch :], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(history.history["lr"], expected[3 * initial_epoch + 2 :: 3], rtol=1e-8)


def test_a_rate_of_each_step_needs_to_know_how_many():
    model, x, y = _regression()
    model.compile(SGD(0.1), "mse")
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(1).filter(lambda x, y: True)
    with pytest.raises(ValueError, match=r"WarmupSteps\(.*\) changes from step to step.*steps=None.*steps_per_epoch"):
        model.fit(dataset, epochs=2, callbacks=[LearningRate(WarmupSteps(), 0.1)], verbose=0)


def test_weight_decay_needs_an_optimizer_with_one():
    model, x, y = _regression()
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"SGD, has no l2 to set.*larq_rep\.training\.optimizers"):
        model.fit(x, y, callbacks=[WeightDecay(Linear(), 0.1)], verbose=0)


# Published: epochs, and t and k = max(1 / t, 1) at some of them.
@pytest.mark.parametrize(
    "t_min, epochs, expected",
    [
        (1e-3, 400, {0: (1e-3, 1000), 300: (1.0, 1), 399: (9.772, 1)}),
        (1e-1, 300, {0: (0.1, 10), 150: (1.0, 1), 299: (9.848, 1)}),
        (
            1e-2,
            1000,
            {0: (0.01, 100), 250: (0.0562, 17.78), 500: (0.316, 3.162), 750: (1.778, 1), 999: (9.931, 1)},
        ),
    ],
)
def test_steepness_is_the_published_one(t_min, epochs, expected):
    for epoch, (t, k) in expected.items():
        value = steepness(epoch, epochs, t_min)
        assert value == pytest.approx(t, rel=1e-3)
        assert max(1 / value, 1) == pytest.approx(k, rel=1e-3)
    if t_min == 1e-2:
        assert steepness(666, 1000, t_min) < 1 <= steepness(667, 1000, t_min)


def test_tau_is_the_published_one():
    taus = [recu_tau(epoch, 600) for epoch in (0, 150, 300, 450, 599)]
    np.testing.assert_allclose(taus, [0.85, 0.873141, 0.902856, 0.941010, 0.989631], atol=5e-7)
    np.testing.assert_allclose(recu_tau(300, 600), 0.0814767 * math.exp(0.5) + 0.7685233, atol=1e-6)


class _Image(tf.keras.layers.Layer):
    """The image as a weight, so that a step of rate 1 tells its gradient."""

    def build(self, input_shape):
        self.image = self.add_weight("image", (1, 1, 1, input_shape[-1]))

    def call(self, inputs):
        return inputs + self.image


ROWS = np.array([[0.10, -0.20, 0.40, 0.50], [2, -1, 0, 0.5], [0, 0, 0, 1]], np.float32)
IMAGE = np.array([0.3, -0.7, 0.05, 2.0], np.float32)


def _unit(input_quantizer, kernel_quantizer, rows=ROWS):
    """A 1x1 convolution of one pixel, whose loss is the sum of its outputs and whose rate is 1."""
    layer = lq.layers.QuantConv2D(
        len(rows), 1, input_quantizer=input_quantizer, kernel_quantizer=kernel_quantizer, use_bias=False
    )
    model = tf.keras.Sequential([tf.keras.Input((1, 1, 4)), _Image(), layer], name="unit")
    layer.kernel.assign(rows.T[None, None])
    model.layers[0].image.assign(IMAGE[None, None, None])
    model.compile(tf.keras.optimizers.SGD(1.0), lambda labels, y: tf.reduce_sum(y))
    return model, layer


def _train(model, epochs, callbacks, initial_epoch=0):
    zero = np.zeros((1, 1, 1, 4), np.float32)
    model.fit(zero, zero[..., :1], epochs=epochs, initial_epoch=initial_epoch, callbacks=callbacks, verbose=0)


def _gradients(model, layer, epochs, initial_epoch, callback):
    """Those of the one step of epoch `initial_epoch`, of the rows and of the image."""
    _train(model, initial_epoch + 1, [_Epochs(epochs), callback], initial_epoch)
    rows = layer.kernel.numpy()[0, 0].T
    return ROWS[: len(rows)] - rows, IMAGE - model.layers[0].image.numpy()[0, 0, 0]


class _Epochs(tf.keras.callbacks.Callback):
    """Stops after the first epoch of a training of so many."""

    def __init__(self, epochs):
        super().__init__()
        self.epochs = epochs

    def on_train_begin(self, logs=None):
        self.params["epochs"] = self.epochs


def test_irnet_trains_with_the_scheduled_gradient():
    """The vectors of the authors' modules at t = 0.1, halfway from 0.001 to 10."""
    model, layer = _unit(EDESign(t=1e-3), LibraSign(t=1e-3))
    rows, image = _gradients(model, layer, 2, 1, EDESchedule())
    expected = [
        [2.409514, -1.362716, -0.099044, -0.947754],
        [-0.181438, -0.277046, 0.286824, 0.171660],
        [1.330005, -2.660011, 1.330005, 0],
    ]
    np.testing.assert_allclose(rows, expected, atol=3e-6)
    np.testing.assert_allclose(image, [-1.498651, -2.487790, -0.499988, 2.402607], atol=3e-6)


def test_rbnn_trains_with_the_scheduled_gradient(monkeypatch):
    """The same at t = 0.1, a third of the way from 0.01 to 10, with rotations that stay."""
    monkeypatch.setattr(RotatedSign, "update_rotations", lambda self, kernel: None)
    quantizer = RotatedSign(t=0.5)
    model, layer = _unit(StandardizedSign(t=0.5), quantizer, ROWS[:2])
    quantizer.alpha.assign([0.5, -0.25])
    quantizer.rotate.assign([1.0, -0.4])
    for variable, angle in ((quantizer.R1, 0.5), (quantizer.R2, -0.8)):
        variable.assign([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    rows, image = _gradients(model, layer, 3, 1, RBNNSchedule())
    expected = [[-0.101624, 0.100779, -0.298956, 0.299801], [0.097331, 0.069878, 0.082359, -0.249569]]
    np.testing.assert_allclose(rows, expected, atol=3e-6)
    np.testing.assert_allclose(image, [0.302095, -0.035087, -0.214783, -0.052225], atol=3e-6)
    np.testing.assert_allclose(quantizer.rotate, [1.0 - 0.026839, -0.4 + 0.244396], atol=3e-6)
    np.testing.assert_allclose(quantizer.alpha, [-1.5, -0.25], atol=3e-6)


def test_recu_trains_with_the_scheduled_gradient():
    """The same at the first epoch's tau = 0.85, at which the quantizer was not made."""
    quantizer = ReCUSign(tau=0.6)
    model, layer = _unit(ReCUInputSign(), quantizer, ROWS[:2])
    quantizer.alpha.assign([0.5, -0.25])
    rows, image = _gradients(model, layer, 600, 0, ReCUSchedule())
    expected = [[2.385005, -1.639761, 1.937859, -2.683103], [0.233816, 0.324325, -0.271528, -0.286613]]
    np.testing.assert_allclose(rows, expected, atol=3e-6)
    np.testing.assert_allclose(image, [-0.972435, -0.200508, 1.247440, 0.044501], atol=3e-6)


def test_the_value_of_each_epoch_reaches_the_compiled_step():
    """Two epochs of one step, with the gradient k t (1 - tanh^2(t x)) of the image, times the weight 0.1 behind it."""
    model, layer = _unit(EDESign(t=0.5), None, np.eye(4, dtype=np.float32) * 0.1)
    layer.trainable = False
    model.compile(tf.keras.optimizers.SGD(1.0), model.loss)
    image = _Record(lambda model: model.layers[0].image.numpy()[0, 0, 0])
    _train(model, 2, [EDESchedule(t_max=8.0), image])
    x = IMAGE.astype(np.float64)
    for t, seen in zip((0.5, 2.0), image.after, strict=True):
        x = x - 0.1 * max(1 / t, 1) * t * (1 - np.tanh(t * x) ** 2)
        np.testing.assert_allclose(seen, x, rtol=1e-5)


def _cosine(quantizer, kernel):
    """Of the rotated weights and their signs, all output channels together."""
    w = np.asarray(kernel, np.float64)
    w = np.transpose(w, (3, 2, 0, 1)).reshape(w.shape[-1], -1)
    z = (w - w.mean(axis=1, keepdims=True)) / w.std(axis=1, ddof=1, keepdims=True)
    r1, r2 = quantizer.R1.numpy(), quantizer.R2.numpy()
    rotated = np.stack([r1.T @ row.reshape(len(r1), len(r2)) @ r2 for row in z])
    return np.abs(rotated).sum() / np.sqrt(rotated.size * (rotated**2).sum())


def _rbnn_network():
    inner = tf.keras.Sequential(
        [
            RepQuantConv2D(
                8, 3, beta=2, kernel_quantizer=RotatedSign(), input_quantizer=StandardizedSign(), padding="same"
            )
        ]
    )
    x = image = tf.keras.Input((6, 6, 4))
    x = inner(x)
    x = lq.layers.QuantConv2D(8, 3, kernel_quantizer=RotatedSign(), input_quantizer=StandardizedSign())(x)
    x = tf.keras.layers.GlobalAveragePooling2D()(x)
    return tf.keras.Model(image, x)


def test_rotations_turn_once_before_the_first_batch_of_each_epoch():
    tf.keras.utils.set_random_seed(1)
    model = _rbnn_network()
    model.compile(tf.keras.optimizers.SGD(0.1), "mse")
    layers = [layer for layer in model.submodules if hasattr(layer, "kernel_quantizer")]
    assert len(layers) == 2

    def state(model):
        return [
            (q.R1.numpy(), q.R2.numpy(), layer.kernel.numpy()) for layer in layers for q in [layer.kernel_quantizer]
        ]

    before, after = [], []

    class Epochs(tf.keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            (before if self is first else after).append(
                [_cosine(layer.kernel_quantizer, layer.kernel) for layer in layers]
            )

    first, last, batches = Epochs(), Epochs(), _Record(state)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 6, 6, 4)).astype(np.float32), rng.normal(size=(6, 8)).astype(np.float32)
    model.fit(x, y, batch_size=2, epochs=2, callbacks=[first, RBNNSchedule(), last, batches], verbose=0)
    # Random rotations become better at once; afterwards they may only be as good.
    assert (np.array(after[0]) > np.array(before[0]) + 0.005).all()
    assert (np.array(after) >= np.array(before) - 1e-6).all()
    # Three batches an epoch: the rotations are those of its beginning.
    for epoch in (0, 3):
        for number in (epoch, epoch + 1, epoch + 2):
            for seen in (batches.before[number], batches.after[number]):
                for (a1, a2, _), (b1, b2, _) in zip(batches.before[epoch], seen, strict=True):
                    np.testing.assert_array_equal(a1, b1)
                    np.testing.assert_array_equal(a2, b2)
    for (a1, *_), (b1, *_) in zip(batches.before[0], batches.before[3], strict=True):
        assert np.abs(a1 - b1).max() > 1e-4
        np.testing.assert_allclose(b1.T @ b1, np.eye(len(b1)), atol=1e-5)


def test_every_rotation_needs_one_kernel():
    shared = RotatedSign()
    layers = [lq.layers.QuantConv2D(4, 1, kernel_quantizer=shared, name=name) for name in ("a", "b")]
    model = tf.keras.Sequential([tf.keras.Input((2, 2, 4)), *layers], name="shared")
    schedule = RBNNSchedule()
    schedule.set_model(model)
    with pytest.raises(ValueError, match=r"model 'shared' has to be the kernel_quantizer of one layer.*\['a', 'b'\]"):
        schedule.on_train_begin()
    layer = tf.keras.layers.Dense(1, input_shape=(1,))
    layer.quantizer = RotatedSign()
    schedule.set_model(tf.keras.Sequential([layer]))
    with pytest.raises(ValueError, match="it belongs to none"):
        schedule.on_train_begin()


@pytest.mark.parametrize(
    "schedule, wanted",
    [
        (EDESchedule(), "EDESign or LibraSign whose t"),
        (INQSchedule(), "PowerOfTwo whose codes"),
        (ReCUSchedule(), "ReCUSign whose tau"),
        (RBNNSchedule(), "StandardizedSign or RotatedSign whose t"),
    ],
)
def test_a_schedule_needs_a_quantizer(schedule, wanted):
    schedule.set_model(tf.keras.Sequential([tf.keras.layers.Dense(1, input_shape=(1,))], name="plain"))
    with pytest.raises(ValueError, match=f"model 'plain' has no {wanted} it could set"):
        schedule.on_train_begin()


def test_schedules_for_a_model():
    def network(*quantizers):
        layers = [lq.layers.QuantConv2D(4, 1, kernel_quantizer=quantizer) for quantizer in quantizers]
        return tf.keras.Sequential([tf.keras.Input((2, 2, 4)), *layers])

    assert schedules_for(network("ste_sign")) == []
    assert [type(s) for s in schedules_for(network("libra_sign"))] == [EDESchedule]
    found = schedules_for(network(RotatedSign(), ReCUSign()))
    assert [type(s) for s in found] == [ReCUSchedule, RBNNSchedule]


@pytest.mark.parametrize("initial_epoch", [0, 2])
def test_schedules_go_on_after_an_interruption(initial_epoch):
    """Each epoch has its own value, whether the training began with it or not."""
    x = image = tf.keras.Input((1, 1, 4))
    quantizers = [EDESign(t=0.1), LibraSign(t=0.01), ReCUSign(), StandardizedSign()]
    x = lq.layers.QuantConv2D(4, 1, input_quantizer=quantizers[0], kernel_quantizer=quantizers[1])(x)
    x = lq.layers.QuantConv2D(4, 1, input_quantizer=quantizers[3], kernel_quantizer=quantizers[2])(x)
    model = tf.keras.Model(image, x)
    model.compile("sgd", "mse")
    seen = _Record(lambda model: [float(getattr(q, "tau", None) or q.t) for q in quantizers])
    _train(model, 4, [*schedules_for(model), seen], initial_epoch)
    assert len(seen.before) == 4 - initial_epoch
    for epoch, values in enumerate(seen.before, start=initial_epoch):
        tau = 0.85 + 0.14 * (math.exp(epoch / 4) - 1) / (math.e - 1)
        expected = [10 ** (-1 + epoch / 2), 10 ** (-2 + 3 * epoch / 4), tau, 10 ** (-2 + 3 * epoch / 4)]
        np.testing.assert_allclose(values, expected, rtol=1e-5)
