"""Input quantizers of several levels: formulas, and the planes that give them."""

import subprocess
import sys

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from support import with_gradients

from larq_rep.quantizers import LearnedLevels, ResidualSigns, TernaryInput, Thermometer, Uniform, ZeroOneSign
from larq_rep.quantizers.base import bases_of, planes_of

THRESHOLDS, LEVELS = (0.0, 0.807, 1.345), (0.0, 0.538, 1.076, 1.614)
START = 0.6745 * 2 / 3 * np.array([1, 2])


def numbers(*borders, dtype="float32"):
    """Random ones, the borders and their two neighbours, of both signs, and zeros of both."""
    # TensorFlow takes numbers that are not normal for 0.
    tiny = np.finfo(dtype).tiny
    borders = np.array([*borders, 1, 0.3], dtype)
    near = [borders, *(np.nextafter(borders, np.array(far, dtype)) for far in (-9, 9)), [tiny, 0.01]]
    near = np.concatenate(near)
    near = near[(near == 0) | (np.abs(near) >= tiny)]
    x = np.concatenate([near, -near, [0.0, -0.0, -50, 50], np.random.default_rng(0).normal(0, 1.2, 400)]).astype(dtype)
    return x[: len(x) // 4 * 4].reshape(1, -1, 2, 2)


def upstream(x):
    return np.random.default_rng(1).normal(size=x.shape)


def levels_of(x, v):
    """As LQ-Nets has it: the sorted levels, and the thresholds in their middles."""
    levels = np.array([0, *sorted(v), sum(v)])
    return levels[(x[..., np.newaxis] > (levels[1:] + levels[:-1]) / 2).sum(-1)]


def test_thermometer_matches_formula():
    """At the thresholds of the code exactly, too, which belong to the level below."""
    x = numbers(*THRESHOLDS, 1.614).astype("float32")
    dy = upstream(x).astype("float32")
    y, dx, _ = with_gradients(Thermometer(), x, dy)
    expected = np.zeros_like(x)
    for threshold, level in zip(THRESHOLDS, LEVELS[1:], strict=True):
        expected[x > np.float32(threshold)] = level
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    np.testing.assert_array_equal(dx, dy * (x > 0) * (x <= np.float32(1.614)))


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_uniform_matches_formula(bits):
    x = numbers(*((np.arange(2**bits) + 0.5) / (2**bits - 1)), dtype="float64")
    dy = upstream(x)
    y, dx, _ = with_gradients(Uniform(bits, dtype="float64"), x, dy)
    np.testing.assert_allclose(y, np.round(np.clip(x, 0, 1) * (2**bits - 1)) / (2**bits - 1), rtol=1e-12)
    np.testing.assert_array_equal(dx, dy * (x >= 0) * (x <= 1))


def test_learned_levels_match_formula():
    quantizer = LearnedLevels(dtype="float64")
    for v in (START, np.array([0.5, 2.0]), np.array([2.0, 0.5])):
        x = numbers(*v / 2, v.mean(), v.max() + v.min() / 2, v.sum(), dtype="float64")
        dy = upstream(x)
        quantizer.build(x.shape)
        quantizer.set_weights([v])
        y, dx, trained = with_gradients(quantizer, x, dy)
        np.testing.assert_allclose(y, levels_of(x, v), rtol=1e-12)
        np.testing.assert_array_equal(dx, dy * (x <= v.sum()))
        assert trained == []


def test_learned_levels_start_as_in_the_code():
    quantizer = LearnedLevels()
    quantizer.build((1, 2, 2, 3))
    np.testing.assert_allclose(quantizer.levels, START, rtol=1e-6)


def test_learned_levels_move_to_the_least_squares():
    """Against the solution of numpy for the rows of B and x, with sqrt(1e-4) (v - v_old) as two more."""
    rng = np.random.default_rng(2)
    x = np.maximum(rng.normal(0.2, 1, (4, 5, 5, 3)), 0)
    quantizer = LearnedLevels(dtype="float64")
    v = START
    for training in (True, True, False, tf.constant(True), None):
        y = quantizer(x, training=training)
        np.testing.assert_allclose(y, levels_of(x, v), rtol=1e-9)
        if training is not None and training:
            codes = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
            levels = codes @ v
            rows = codes[np.argmin(abs(x.reshape(-1, 1) - levels), axis=1)]
            system = np.concatenate([rows, 1e-2 * np.eye(2)])
            fitted = np.linalg.lstsq(system, np.concatenate([x.reshape(-1), 1e-2 * v]), rcond=None)[0]
            v = 0.9 * v + 0.1 * fitted
        np.testing.assert_allclose(quantizer.levels, v, rtol=1e-9)


def test_learned_levels_converge_to_those_of_a_normal_distribution():
    """The optimum of two bits for half of a normal distribution, whose levels 0, v1, v2, v1 + v2 reach this error."""
    x = np.maximum(np.random.default_rng(3).normal(size=(1, 100, 100)), 0).astype("float32")
    quantizer = LearnedLevels()

    def error(v):
        return ((levels_of(x, v) - x) ** 2).mean()

    quantizer(x)
    before = error(quantizer.levels.numpy())
    step = tf.function(lambda: quantizer(x, training=True))
    for _ in range(600):
        step()
    found = quantizer.levels.numpy()
    assert error(found) < before
    for step in ([0.05, 0], [-0.05, 0], [0, 0.05], [0, -0.05]):
        assert error(found) < error(found + step)


def test_learned_levels_of_nothing_stay():
    """A batch with no x in a level has a system without a solution but for the added numbers."""
    quantizer = LearnedLevels()
    for x in (0.0, 0.4, 5.0):
        quantizer(np.full((2, 2, 2, 3), x, "float32"), training=True)
        assert np.all(np.isfinite(quantizer.levels))


def test_learned_levels_of_large_maps_whose_bits_are_all_1():
    """The sums of counts hide the added numbers in float32. The levels then grow by the same amount."""
    quantizer = LearnedLevels()
    quantizer(np.full((4, 24, 24, 64), 5, "float32"), training=True)
    expected = START + 0.1 * (5 - START.sum()) / 2
    np.testing.assert_allclose(quantizer.levels, expected, rtol=1e-5)


def test_ternary_input_matches_formula():
    threshold = 0.4 * 0.7979
    x = numbers(threshold, dtype="float64")
    dy = upstream(x)
    y, dx, trained = with_gradients(TernaryInput(dtype="float64"), x, dy)
    np.testing.assert_array_equal(y, 1.0 * (x >= threshold) - 1.0 * (x <= -threshold))
    np.testing.assert_array_equal(dx, dy * (abs(x) <= 1))
    assert trained == []


@pytest.mark.parametrize("momentum", [0, 0.1, 1])
def test_ternary_threshold_follows_the_batch(momentum):
    x = np.random.default_rng(4).normal(1, 2, (3, 4, 4, 2))
    quantizer = TernaryInput(0.5, momentum, dtype="float64")
    threshold = 0.5 * 0.7979
    for training in (True, False, True):
        np.testing.assert_array_equal(quantizer(x, training=training), np.sign(x) * (abs(x) >= threshold))
        if training:
            threshold += momentum * (0.5 * abs(x).mean() - threshold)
        np.testing.assert_allclose(quantizer.threshold, threshold, rtol=1e-9)


def test_zero_one_sign_matches_formula():
    x = numbers(0.3).astype("float32")
    dy = upstream(x).astype("float32")
    y, dx, _ = with_gradients(ZeroOneSign(), x, dy)
    np.testing.assert_array_equal(y, x > 0)
    np.testing.assert_array_equal(dx, dy * (x > np.float32(-0.3)) * (x < 1))


def residual(x, scales, dy):
    """By hand: q, and the gradients of its product with dy, from the last stage to the first."""
    rests, signs = [x], []
    for scale in scales:
        signs.append(np.where(rests[-1] >= 0, 1.0, -1.0))
        rests.append(rests[-1] - scale * signs[-1])
    to_rest, to_scales = np.zeros_like(x), []
    for scale, rest, sign in reversed([*zip(scales, rests[:-1], signs, strict=True)]):
        to_product = dy - to_rest
        to_scales.insert(0, (to_product * sign).sum())
        to_rest = to_rest + scale * to_product * (abs(rest) <= 1)
    return x - rests[-1], to_rest, to_scales


@pytest.mark.parametrize("scale", ["ema", "trained"])
@pytest.mark.parametrize("stages", [2, 3])
def test_residual_signs_match_formula(stages, scale):
    x = numbers(0.5, 0.25, 0.75, dtype="float64")
    dy = upstream(x)
    quantizer = ResidualSigns(stages, scale, dtype="float64")
    y, dx, trained = with_gradients(quantizer, x, dy)
    expected = residual(x, 0.5 ** np.arange(1, stages + 1), dy)
    np.testing.assert_allclose(y, expected[0], rtol=1e-12)
    np.testing.assert_allclose(dx, expected[1], rtol=1e-12, atol=1e-14)
    if scale == "trained":
        np.testing.assert_allclose(trained[0], expected[2], rtol=1e-9)
    else:
        assert trained == []


def test_residual_scales_follow_the_batch():
    x = np.random.default_rng(5).normal(0, 2, (3, 4, 4, 2))
    quantizer = ResidualSigns(3, dtype="float64")
    scales = np.array([0.5, 0.25, 0.125])
    for training in (True, False, True):
        y = quantizer(x, training=training)
        np.testing.assert_allclose(y, residual(x, scales, x)[0], rtol=1e-9)
        if training:
            rest, means = x, []
            for scale in scales:
                means.append(abs(rest).mean())
                rest = rest - scale * np.where(rest >= 0, 1, -1)
            scales = 0.9 * scales + 0.1 * np.array(means)
        np.testing.assert_allclose(quantizer.scales, scales, rtol=1e-9)


def test_residual_scales_become_those_of_the_paper():
    """The mean magnitude of x, and that of what is left of it."""
    x = np.random.default_rng(6).normal(0, 1.7, (2, 50, 50, 4)).astype("float32")
    quantizer = ResidualSigns()
    for _ in range(200):
        quantizer(x, training=True)
    first = abs(x).mean()
    np.testing.assert_allclose(quantizer.scales, [first, abs(x - first * np.sign(x)).mean()], rtol=1e-4)


QUANTIZERS = {
    "Thermometer": (Thermometer, (*THRESHOLDS, 1.614)),
    "Thermometer-uneven": (lambda **k: Thermometer((0.1, 0.7, 1.9), (0, 0.3, 1.1, 1.4), **k), (0.1, 0.7, 1.9)),
    **{f"Uniform-{bits}": (lambda bits=bits, **k: Uniform(bits, **k), None) for bits in (1, 2, 3, 4, 8)},
    "Larq's DoReFa-2": (lambda **k: lq.quantizers.DoReFa(2, **k), None),
    "Larq's DoReFa-4": (lambda **k: lq.quantizers.DoReFa(4, mode="activations", **k), None),
    "Larq's SteTern": (lambda **k: lq.quantizers.SteTern(0.3, **k), (0.3,)),
    "Larq's SteTern-negative": (lambda **k: lq.quantizers.SteTern(-0.3, **k), (0.3,)),
    "LearnedLevels": (LearnedLevels, (0.6745 / 3, 0.6745, 0.6745 * 5 / 3)),
    "TernaryInput": (TernaryInput, (0.4 * 0.7979,)),
    "ZeroOneSign": (ZeroOneSign, ()),
    "ResidualSigns": (ResidualSigns, (0.5, 0.25, 0.75)),
    "ResidualSigns-trained": (lambda **k: ResidualSigns(3, "trained", **k), (0.5, 0.25, 0.75)),
}


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("name", QUANTIZERS)
def test_planes_give_the_result_in_ties_too(name, dtype, compiled):
    """A wrong sign makes a difference of a step; of that, the last bits of a sum are far away."""
    make, borders = QUANTIZERS[name]
    quantizer = make(dtype=dtype)
    steps = 2**quantizer.precision - 1
    borders = [(i + 0.5) / steps for i in range(steps + 1)] if borders is None else borders
    x = tf.constant(numbers(*borders, dtype=dtype))
    quantizer(x)
    planes = planes_of(quantizer)

    def both(x):
        return quantizer(x), planes(x)

    y, (offset, parts) = (tf.function(both) if compiled else both)(x)
    assert len(parts) == quantizer.precision
    for factor, signs in parts:
        assert signs.shape == x.shape and signs.dtype == x.dtype and np.ndim(factor) == 0
        assert set(np.unique(signs)) == {-1, 1}
    total = np.float64(offset) + sum(np.float64(factor) * np.asarray(signs, "float64") for factor, signs in parts)
    y = np.asarray(y, "float64")
    step = (y.max() - y.min()) / steps
    np.testing.assert_allclose(total, y, atol=(0.2 if dtype == "float16" else 1e-4) * step)
    at_zero = np.float64(offset) + sum(np.float64(factor) for factor, _ in parts)
    assert offset == 0 or abs(at_zero) < 1e-2 * step


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_half_is_rounded_to_even_in_planes(bits):
    """Inputs whose product with the number of steps is exactly a half in float32, and those around it."""
    steps = 2**bits - 1
    x = ((np.arange(steps) + 0.5) / steps).astype("float32")
    for _ in range(3):
        x = np.unique([x, np.nextafter(x, np.float32(-1)), np.nextafter(x, np.float32(2))])
    products = x * np.float32(steps)
    assert np.sum(products % 1 == 0.5) >= steps
    offset, parts = planes_of(Uniform(bits))(tf.constant(x))
    found = (offset + sum(factor * signs.numpy().astype("float64") for factor, signs in parts)) * steps
    np.testing.assert_allclose(found, np.round(products), atol=1e-9)


@pytest.mark.parametrize(
    "quantizer",
    [
        lq.quantizers.SteSign(),
        lq.quantizers.DoReFa(2, mode="weights"),
        lq.quantizers.SteTern(ternary_weight_networks=True),
        lq.quantizers.NoOp(precision=1),
        None,
    ],
)
def test_others_have_no_planes(quantizer):
    assert planes_of(quantizer) is None and bases_of(quantizer) is None


def test_planes_and_bases_belong_to_a_call():
    class Sums(lq.quantizers.Quantizer):
        def call(self, inputs):
            return 2 * lq.math.sign(inputs)

        def bases(self, w):
            return [(2.0, lq.math.sign(w))]

    class Renamed(Sums):
        pass

    class Changed(Sums):
        call = Sums.call

    class ChangedThermometer(Thermometer):
        def call(self, inputs):
            return super().call(inputs - 1)

    ((factor, signs),) = bases_of(Renamed())(tf.constant([-3.0, 0.0]))
    np.testing.assert_array_equal(factor * signs, [-2, 2])
    assert bases_of(Changed()) is None and planes_of(Sums()) is None and planes_of(ChangedThermometer()) is None


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Thermometer((0, 1), (0, 1, 2, 3), name="q"), r"'q' needs three ascending thresholds and four"),
        (lambda: Thermometer((0, 2, 1), (0, 1, 2, 3)), "ascending"),
        (lambda: Thermometer((0, 1, 2), (0, 2, 1, 3)), "ascending"),
        (lambda: Thermometer((0, 1, 2), (0, 1, 2, 4)), "last the sum of the two before"),
        (lambda: Thermometer((0, 1, 2), (1, 2, 3, 5)), "the first 0"),
        (lambda: Uniform(0, name="q"), "Uniform 'q' needs an integer bits >= 1, but got bits=0"),
        (lambda: Uniform(1.5), "got bits=1.5"),
        (lambda: Uniform(True), "got bits=True"),
        (lambda: TernaryInput(delta=float("nan")), "needs delta > 0"),
        (lambda: LearnedLevels(3, name="q"), "LearnedLevels 'q' has 2 bits, but got bits=3"),
        (lambda: TernaryInput(0, name="q"), "TernaryInput 'q' needs delta > 0"),
        (lambda: TernaryInput(momentum=1.5), "momentum=1.5"),
        (lambda: ResidualSigns(1, name="q"), "ResidualSigns 'q' needs an integer stages >= 2"),
        (lambda: ResidualSigns(2, "mean"), "scale='mean'"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


STATEFUL = {
    "LearnedLevels": (LearnedLevels, "levels"),
    "TernaryInput": (TernaryInput, "threshold"),
    "ResidualSigns": (ResidualSigns, "scales"),
}


def network(quantizer, **arguments):
    conv = lq.layers.QuantConv2D(4, 3, input_quantizer=quantizer, kernel_quantizer="ste_sign", **arguments)
    return tf.keras.Sequential([tf.keras.Input((6, 6, 3)), tf.keras.layers.ReLU(), conv])


def images():
    return np.random.default_rng(7).normal(1, 2, (8, 6, 6, 3)).astype("float32")


@pytest.mark.parametrize("name", STATEFUL)
def test_state_moves_only_in_training(name):
    make, attribute = STATEFUL[name]
    quantizer, alone = make(), make()
    model, x = network(quantizer), images()
    model.compile("sgd", "mse")
    model.fit(x, np.zeros((8, 4, 4, 4)), batch_size=8, verbose=0)
    alone(np.maximum(x, 0), training=True)
    np.testing.assert_allclose(getattr(quantizer, attribute), getattr(alone, attribute), rtol=1e-5)
    state = getattr(quantizer, attribute).numpy()
    model.evaluate(x, np.zeros((8, 4, 4, 4)), verbose=0)
    model.predict(x, verbose=0)
    model.trainable = False
    model(x, training=True)
    np.testing.assert_array_equal(getattr(quantizer, attribute), state)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("name", STATEFUL)
def test_half_precision_keeps_the_state_in_full(name, policy):
    make, attribute = STATEFUL[name]
    x = tf.cast(np.maximum(images(), 0), policy.removeprefix("mixed_"))
    quantizer, full = make(dtype=tf.keras.mixed_precision.Policy(policy)), make()
    for _ in range(3):
        y = quantizer(x, training=True)
        full(tf.cast(x, tf.float32), training=True)
    assert y.dtype == x.dtype and getattr(quantizer, attribute).dtype == tf.float32
    np.testing.assert_allclose(getattr(quantizer, attribute), getattr(full, attribute), rtol=0.02)


_DEVICES = """
import larq_rep

import numpy as np
import tensorflow as tf

from larq_rep.quantizers import ScaledBinary, TernaryInput

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
x = np.random.default_rng(0).normal(1, 2, (2, 8, 8)).astype("float32")

with strategy.scope():
    quantizer, kernel = TernaryInput(0.5), ScaledBinary("ema", "layer")
    quantizer.build((None, 8))
    kernel.build((8, 8))
    before = kernel.alpha.numpy()
values = strategy.experimental_distribute_values_from_function(
    lambda context: tf.constant(x[context.replica_id_in_sync_group])
)


@tf.function
def step(x):
    quantizer(x, training=True)
    kernel(tf.ones((8, 8)), training=True)


for _ in range(2):
    strategy.run(step, [values])
# Each device follows its own part of the batch, and the mean of them is kept.
expected = 0.81 * 0.5 * 0.7979 + 0.19 * 0.5 * abs(x).mean()
np.testing.assert_allclose(quantizer.threshold.numpy(), expected, rtol=1e-5)
np.testing.assert_allclose(kernel.alpha.numpy(), 0.81 * before + 0.19, rtol=1e-5)
quantizer.threshold.assign(3.0)
np.testing.assert_allclose(quantizer.threshold.numpy(), 3.0)
print("equal")
"""


@pytest.mark.slow
def test_devices_follow_their_parts_of_a_batch():
    """In a process of its own: how many devices there are is settled when TensorFlow starts."""
    run = subprocess.run([sys.executable, "-c", _DEVICES], capture_output=True, text=True)
    assert run.stdout.endswith("equal\n"), run.stderr[-3000:]


def test_uniform_is_of_activations_alone():
    """Its config has no mode: one for weights would be lost in a file."""
    with pytest.raises(TypeError, match="multiple values for keyword argument 'mode'"):
        Uniform(2, mode="weights")
