"""Kernel quantizers of networks whose activations are real: TWN, TTQ, INQ, SYQ."""

import itertools

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from support import with_gradients

from larq_rep import cost
from larq_rep.converters import convert, verify
from larq_rep.converters.float_weights import compress
from larq_rep.quantizers import PositionScaled, PowerOfTwo, TernaryWeight, TrainedTernary
from larq_rep.quantizers.callbacks import INQ_FRACTIONS
from larq_rep.reptran import reptran
from larq_rep.training import transfer, with_real_weights
from larq_rep.training.schedules import INQSchedule


def kernel_and_upstream():
    rng = np.random.default_rng(2)
    return rng.uniform(-1.5, 1.5, (3, 3, 4, 5)), rng.normal(size=(3, 3, 4, 5))


def conv_model(kernel_quantizer, input_quantizer=None):
    """A convolution with quantized weights, of real inputs by default."""
    tf.keras.utils.set_random_seed(0)
    quantizers = {"input_quantizer": input_quantizer, "kernel_quantizer": kernel_quantizer}
    conv = lq.layers.QuantConv2D(8, 3, padding="same", **quantizers, name="conv")
    return tf.keras.Sequential([tf.keras.Input((6, 6, 16)), conv], name="net")


def images():
    return np.random.default_rng(1).normal(size=(3, 6, 6, 16)).astype("float32")


def test_ternary_weight_matches_formula():
    w, dy = kernel_and_upstream()
    y, dw, _ = with_gradients(TernaryWeight(dtype="float64"), w, dy)
    threshold = 0.7 * np.abs(w).mean()
    beyond = np.abs(w) > threshold
    assert 0.1 < beyond.mean() < 0.9
    np.testing.assert_allclose(y, np.abs(w)[beyond].mean() * np.sign(w) * beyond, rtol=1e-7)
    np.testing.assert_array_equal(dw, dy)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_at_the_threshold(dtype):
    """TWN takes them for 0, TTQ does not. Thresholds of half the mean, 1, and half the maximum, 2."""
    w = np.array([4, 1, -1, 2], dtype)
    np.testing.assert_allclose(TernaryWeight(0.5, dtype=dtype)(w), [3, 0, 0, 3], rtol=1e-6)
    np.testing.assert_array_equal(TrainedTernary(0.5, dtype=dtype)(w), [1, 0, 0, 1])
    np.testing.assert_array_equal(TernaryWeight(dtype=dtype)(np.zeros(3, dtype)), np.zeros(3))


def test_ternary_weight_in_half_precision_has_the_scale_of_the_kernel():
    """Of 90,000 weights, more than float16 can count."""
    w = np.random.default_rng(0).normal(size=(3, 3, 100, 100)).astype("float16")
    beyond = np.abs(w).astype("float64")
    beyond = beyond[beyond > 0.7 * beyond.mean()].mean()
    for training in (True, False):
        y = TernaryWeight(dtype="float16")(w, training=training)
        assert y.dtype == tf.float16
        assert float(tf.reduce_max(y)) == pytest.approx(beyond, rel=2e-3)


def test_trained_ternary_matches_formula():
    w, dy = kernel_and_upstream()
    quantizer = TrainedTernary(0.3, dtype="float64")
    quantizer(w)
    assert [float(weight) for weight in quantizer.weights] == [1, 1]
    quantizer.set_weights([2.0, 0.5])
    y, dw, scales = with_gradients(quantizer, w, dy)
    threshold = 0.3 * np.abs(w).max()
    above, below = w >= threshold, w <= -threshold
    assert above.any() and below.any() and not (above | below).all()
    np.testing.assert_array_equal(y, 2 * above - 0.5 * below)
    np.testing.assert_array_equal(dw, dy * np.where(above, 2, np.where(below, 0.5, 1)))
    np.testing.assert_allclose(scales, [dy[above].sum(), -dy[below].sum()], rtol=1e-12)


@pytest.mark.parametrize("quantizer", [TernaryWeight, TrainedTernary])
def test_factor_must_not_be_negative(quantizer):
    with pytest.raises(ValueError, match=f"{quantizer.__name__} 'q' needs factor >= 0, but got factor=-0.1"):
        quantizer(-0.1, name="q")


def test_position_scaled_matches_formula():
    w, dy = kernel_and_upstream()
    w[0, 0, :, 0] = 0.0, -0.0, 1.0, -1.0
    quantizer = PositionScaled(dtype="float64")
    quantizer(w)
    np.testing.assert_allclose(quantizer.scale, np.full((3, 3), 1 / (2 * np.sqrt(3 * 3 * 4))), rtol=1e-6)
    scale = np.arange(1.0, 10).reshape(3, 3)
    quantizer.set_weights([scale])
    y, dw, (dscale,) = with_gradients(quantizer, w, dy)
    signs = np.where(w >= 0, 1, -1)
    np.testing.assert_array_equal(y, scale[:, :, None, None] * signs)
    np.testing.assert_array_equal(dw, dy)
    np.testing.assert_allclose(dscale, np.einsum("yxio,yxio->yx", dy, signs), rtol=1e-12)
    quantizer.start_from(w)
    np.testing.assert_allclose(quantizer.scale, np.abs(w).mean((2, 3)), rtol=1e-12)


def test_position_scaled_of_a_dense_layer_has_one_scale():
    quantizer = PositionScaled(dtype="float64")
    np.testing.assert_allclose(quantizer(np.array([[1.0, -2], [3, 4], [5, 6], [7, 8]]))[0], [0.25, -0.25])


def test_scales_start_from_the_kernel_of_the_first_phase_only():
    """Of a phase with real weights, but not of one that has trained them."""
    real = with_real_weights(conv_model("position_scaled"), left_behind=(".*/scale:0",))
    real.get_layer("conv").kernel.assign(np.random.default_rng(3).normal(size=(3, 3, 16, 8)))
    model = conv_model("position_scaled")
    transfer(real, model, (".*/scale:0",))
    quantizer = model.get_layer("conv").kernel_quantizer
    expected = np.abs(real.get_layer("conv").kernel.numpy()).mean((2, 3))
    np.testing.assert_allclose(quantizer.scale, expected, rtol=1e-6)
    quantizer.scale.assign(2 * expected)
    later = conv_model("position_scaled")
    transfer(model, later)
    np.testing.assert_array_equal(later.get_layer("conv").kernel_quantizer.scale, quantizer.scale)


def rounded(w, bits, largest):
    """The nearest of the levels in the sense of INQ's equation 4, by its comparisons, one after the other."""
    exponent = np.floor(np.log2(4 / 3 * largest))
    powers = 2.0 ** (exponent - np.arange(2 ** (bits - 2)))
    levels = np.concatenate([powers, [0]])  # from large to small
    result = np.zeros_like(w)
    for higher, lower in itertools.pairwise(levels):
        here = ((lower + higher) / 2 <= np.abs(w)) & (np.abs(w) < 3 * higher / 2)
        result[here] = (np.sign(w) * higher)[here]
    return result


@pytest.mark.parametrize("bits", [2, 3, 4, 5])
def test_power_of_two_matches_formula(bits):
    w = np.random.default_rng(bits).laplace(0, 0.3, (3, 3, 4, 50))
    quantizer = PowerOfTwo(bits, dtype="float64")
    np.testing.assert_array_equal(quantizer(w), w)
    quantizer.freeze(w, 1.0)
    expected = rounded(w, bits, np.abs(w).max())
    np.testing.assert_array_equal(quantizer(w), expected)
    assert len(np.unique(np.abs(expected))) == 2 ** (bits - 2) + 1
    # The latent weights of frozen ones do not matter.
    np.testing.assert_array_equal(quantizer(np.zeros_like(w)), expected)


def test_power_of_two_at_the_borders():
    """Levels 4, 2, 1, 1/2 and 0: each border belongs to the level above it."""
    w = np.array([5.9, 3, 2.9, 1.5, -1.5, 0.75, 0.74, 0.25, -0.25, 0.2499, -0.2499, 0])
    quantizer = PowerOfTwo(4, dtype="float64")
    quantizer(w)
    quantizer.freeze(w, 1)
    np.testing.assert_array_equal(quantizer(w), [4, 4, 2, 2, -2, 1, 0.5, 0.5, -0.5, 0, 0, 0])


def test_a_weight_of_zero_changes_no_power_of_two():
    """The others are much smaller than 1, as in a trained layer of many channels."""
    w = np.array([0, 0.03, -0.02, 0.001, 0])
    quantizer = PowerOfTwo(2, dtype="float64")
    quantizer(w)
    quantizer.freeze(w, 1)
    np.testing.assert_array_equal(quantizer(w), [0, 2.0**-5, -(2.0**-5), 0, 0])


def test_power_of_two_freezes_the_largest_first_and_passes_gradients_to_the_others():
    w, dy = kernel_and_upstream()
    quantizer = PowerOfTwo(3, dtype="float64")
    quantizer(w)
    order = np.argsort(-np.abs(w).ravel())
    quantizer.freeze(w, 0.3)
    first = np.zeros(w.size, bool)
    first[order[: round(0.3 * w.size)]] = True
    y, dw, _ = with_gradients(quantizer, w, dy)
    frozen = first.reshape(w.shape)
    np.testing.assert_array_equal(y, np.where(frozen, rounded(w, 3, np.abs(w).max()), w))
    np.testing.assert_array_equal(dw, np.where(frozen, 0, dy))
    # The others grow beyond the largest level; those that are frozen stay.
    quantizer.freeze(4 * w, 0.3)
    np.testing.assert_array_equal(quantizer(w), y)
    quantizer.freeze(4 * w, 0.6)
    z = quantizer(w).numpy()
    np.testing.assert_array_equal(z[frozen], y[frozen])
    assert (z != w).sum() == round(0.6 * w.size)
    assert np.abs(z[~frozen & (z != w)]).max() == np.abs(y[frozen]).max()


@pytest.mark.parametrize("bits", [1, 6, "2", 2.0])
def test_bits_must_be_2_to_5(bits):
    with pytest.raises(ValueError, match=f"PowerOfTwo 'q' needs 2 to 5 bits, but got bits={bits!r}"):
        PowerOfTwo(bits, name="q")


def test_one_object_for_two_kernels_is_refused():
    quantizer = PowerOfTwo(name="q")
    quantizer(tf.ones((3, 3, 4, 5)))
    with pytest.raises(ValueError, match=r"'q' has codes for a kernel of shape \(3, 3, 4, 5\).*\(3, 3, 4, 6\).*own"):
        quantizer(tf.ones((3, 3, 4, 6)))


def test_schedule_freezes_in_rounds_and_training_leaves_frozen_weights_alone():
    """By SGD with momentum and weight decay, which move the latent weights of frozen ones, too."""
    model = conv_model(PowerOfTwo(5))
    conv = model.get_layer("conv")
    model.compile(tf.keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.01), "mse")
    seen = []

    class Watch(tf.keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            with lq.context.quantized_scope(True):
                seen.append((conv.kernel_quantizer.codes.numpy() != 0, conv.kernel.numpy()))

    y = np.random.default_rng(3).normal(size=(3, 6, 6, 8))
    model.fit(images(), y, epochs=8, verbose=0, callbacks=[INQSchedule(), Watch()])
    size = conv.kernel_quantizer.codes.shape.num_elements()
    assert [frozen.sum() for frozen, _ in seen] == [round(f * size) for f in (0.5, 0.75, 0.875, 1) for _ in range(2)]
    for (frozen, old), (_, new) in itertools.pairwise(seen):
        np.testing.assert_array_equal(new[frozen], old[frozen])
        assert frozen.all() or np.all(new[~frozen] != old[~frozen])
    assert set(np.log2(np.unique(np.abs(seen[-1][1][seen[-1][1] != 0]))) % 1) == {0}


@pytest.mark.parametrize("bits, rounds", [(2, 10), (3, 8), (4, 6), (5, 4)])
def test_rounds_of_the_schedule(bits, rounds):
    schedule, quantizer = INQSchedule(), PowerOfTwo(bits, name="q")
    assert [schedule.value(quantizer, epoch, rounds) for epoch in range(rounds)] == [*INQ_FRACTIONS[bits]]
    last = [schedule.value(quantizer, epoch, 3 * rounds + 1) for epoch in range(3 * rounds + 1)]
    assert last == sorted(last) and last[-1] == 1 and last[0] < last[-4]
    with pytest.raises(ValueError, match=f"{rounds - 1} epochs are too few for the {rounds} rounds .*'q'"):
        schedule.value(quantizer, 0, rounds - 1)
    assert INQSchedule([0.5, 1]).value(quantizer, 1, 2) == 1


def frozen_model(bits):
    model = conv_model(PowerOfTwo(bits))
    conv = model.get_layer("conv")
    conv.kernel_quantizer.freeze(conv.kernel, 0.8)
    return model


@pytest.mark.parametrize("suffix", [".h5", ".keras", ""])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_frozen_weights_are_saved(suffix, tmp_path):
    model = frozen_model(5)
    model.save(tmp_path / f"model{suffix}")
    loaded = tf.keras.models.load_model(tmp_path / f"model{suffix}", compile=False)
    codes = [m.get_layer("conv").kernel_quantizer.codes for m in (loaded, model)]
    assert codes[0].dtype == tf.int8 and np.count_nonzero(codes[0]) == round(0.8 * 9 * 16 * 8)
    np.testing.assert_array_equal(*codes)
    np.testing.assert_array_equal(loaded(images()), model(images()))


def test_config_of_a_called_layer_fits_another_kernel():
    """As RepTran needs it: more input channels, fewer filters."""
    conv = lq.layers.QuantConv2D.from_config({**frozen_model(2).get_layer("conv").get_config(), "filters": 4})
    conv(tf.ones((1, 4, 4, 32)))
    assert [w.shape for w in conv.weights] == [(3, 3, 32, 4), (4,), (3, 3, 32, 4), ()]


def test_reptran_keeps_frozen_weights_or_begins_with_none():
    """With beta = 1 it computes the same; with more, kernels are others."""
    x = tf.keras.Input((6, 6, 16))
    model = frozen_model(2)
    y = tf.keras.layers.Dense(10, name="fc")(tf.keras.layers.GlobalAveragePooling2D()(model.get_layer("conv")(x)))
    model = tf.keras.Model(x, y)
    same, wide = (reptran(model, beta) for beta in (1, 2))
    np.testing.assert_array_equal(same(images()), model(images()))
    codes = [network.get_layer("conv").kernel_quantizer.codes.numpy() for network in (model, same, wide)]
    np.testing.assert_array_equal(codes[0], codes[1])
    assert codes[0].any() and not codes[2].any() and codes[2].shape == wide.get_layer("conv").kernel.shape


def test_size_counts_codes_as_bytes():
    counted = cost.count(conv_model(PowerOfTwo(2)))
    size = 9 * 16 * 8
    assert counted.trainable_bits == 2 * size + 32 * 8
    assert counted.bits == counted.trainable_bits + 8 * size + 32


CONVERTED = {
    "ternary_weight": ("ternary-weight-float", True),
    "trained_ternary": (None, False),
    "inq-2": ("ternary-weight-float", True),
    "inq-5": (None, False),
    "position_scaled": ("binary-weight-float", False),
}


@pytest.mark.parametrize("name", CONVERTED)
def test_conversion(name):
    """What stays float is told where it is binary or ternary; with one magnitude, int8 keeps the weights."""
    finding, exact = CONVERTED[name]
    if name.startswith("inq"):
        model = conv_model(PowerOfTwo(int(name[-1])))
        conv = model.get_layer("conv")
        conv.kernel_quantizer.freeze(conv.kernel, 1)
    else:
        model = conv_model(name)
        quantizer = model.get_layer("conv").kernel_quantizer
        if name == "trained_ternary":
            quantizer.set_weights([0.7, 1.2345])
        elif name == "position_scaled":
            quantizer.set_weights([np.linspace(0.1, 2, 9).reshape(3, 3)])
    content, report = convert(model, exact_int8=False)
    assert report.bitpacked == 0
    assert [f.rule for f in report.findings] == ([finding] if finding else [])
    result = verify(model, content, images())
    assert result.ok, result.differences
    _, compression = compress(content, "int8")
    (constant,) = compression.constants
    assert constant.storage == "int8"
    with lq.context.quantized_scope(True):
        largest = np.abs(model.get_layer("conv").kernel).max()
    assert (constant.max_error < 1e-6 * largest) == exact


@pytest.mark.parametrize("input_quantizer", ["ste_sign", "uniform_quantizer"])
def test_conversion_of_a_scale_for_each_position(input_quantizer):
    """It is packed only if all are equal: otherwise it is float, which is told and no error."""
    model = conv_model("position_scaled", input_quantizer)
    _, report = convert(model)
    assert report.bitpacked == report.binary == (1 if input_quantizer == "ste_sign" else 2)
    model.get_layer("conv").kernel_quantizer.set_weights([np.linspace(0.1, 2, 9).reshape(3, 3)])
    content, report = convert(model)
    assert report.bitpacked == report.binary == 0
    (finding,) = report.findings
    assert finding.rule == ("binary-weight-float" if input_quantizer == "ste_sign" else "levels-float")
    assert "the weights of an output channel differ in magnitude" in finding.message
    result = verify(model, content, images())
    assert result.ok, result.differences
