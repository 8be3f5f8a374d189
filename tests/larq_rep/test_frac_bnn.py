import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from support import with_gradients

from larq_rep import cost
from larq_rep.converters import convert, verify
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.layers import PrecisionGate, ThermometerEncoding
from larq_rep.quantizers import LowBitSign, QuantSign


def gated_model(**gate):
    """The fractional convolution of FracBNN."""
    tf.keras.utils.set_random_seed(0)
    x = tf.keras.Input((6, 6, 16))
    conv = lq.layers.QuantConv2D(
        8,
        3,
        padding="same",
        use_bias=False,
        input_quantizer=lq.quantizers.NoOp(precision=1),
        kernel_quantizer=lq.quantizers.SteSign(clip_value=1.3),
    )
    y = PrecisionGate(**gate)([conv(QuantSign(bits=1)(x)), conv(LowBitSign()(x))])
    return tf.keras.Model(x, y)


def encoded_model():
    """The first layers of FracBNN."""
    tf.keras.utils.set_random_seed(0)
    x = tf.keras.Input((6, 6, 3))
    conv = lq.layers.QuantConv2D(
        8,
        3,
        padding="same",
        use_bias=False,
        input_quantizer=lq.quantizers.NoOp(precision=1),
        kernel_quantizer=lq.quantizers.SteSign(clip_value=1.3),
    )
    return tf.keras.Model(x, conv(ThermometerEncoding()(x)))


def one_bit_model():
    tf.keras.utils.set_random_seed(0)
    conv = lq.layers.QuantConv2D(
        8, 3, use_bias=False, input_quantizer=QuantSign(bits=1), kernel_quantizer=lq.quantizers.SteSign(clip_value=1.3)
    )
    return tf.keras.Sequential([tf.keras.Input((6, 6, 16)), conv])


def images(model):
    return np.random.default_rng(1).uniform(0, 1, (3, *model.input_shape[1:])).astype("float32")


def quarters(x):
    """The authors' activations of two bits."""
    step = 2 / 3
    return np.rint((np.clip(x, -1, 1) + 1) / step) * step - 1


@pytest.mark.parametrize("bits", [1, 2])
def test_quant_sign_matches_formula(bits):
    rng = np.random.default_rng(2)
    x, dy = rng.uniform(-1.5, 1.5, (3, 4, 5)), rng.normal(size=(3, 4, 5))
    x[0, 0] = 0.0, 1.0, -1.0, 2.0, -0.0
    y, dx, _ = with_gradients(QuantSign(bits, dtype="float64"), x, dy)
    np.testing.assert_allclose(y, np.where(x >= 0, 1, -1) if bits == 1 else quarters(x), atol=1e-15)
    np.testing.assert_array_equal(dx, np.where((x > -1) & (x < 1), dy, 0))


def test_quant_sign_has_the_levels_of_its_bits():
    x = np.linspace(-2, 2, 1001)
    assert np.unique(QuantSign(bits=1)(x)).tolist() == [-1, 1]
    np.testing.assert_allclose(np.unique(QuantSign()(x)), [-1, -1 / 3, 1 / 3, 1], rtol=1e-6)
    assert [QuantSign(bits).precision for bits in (1, 2)] == [1, 2]


def test_two_bits_are_two_signs_in_value_and_gradient():
    rng = np.random.default_rng(3)
    x, dy = rng.uniform(-1.5, 1.5, 1000), rng.normal(size=1000)
    two, one, low = (
        with_gradients(quantizer, x, dy)[:2]
        for quantizer in (QuantSign(dtype="float64"), QuantSign(1, dtype="float64"), LowBitSign(dtype="float64"))
    )
    assert np.unique(low[0]).tolist() == [-1, 1]
    for q, high_bit, low_bit in zip(two, one, low, strict=True):
        np.testing.assert_allclose((2 * high_bit + low_bit) / 3, q, atol=1e-12)


@pytest.mark.parametrize("bits", [0, 1.0, None])
def test_bits_must_be_a_positive_integer(bits):
    with pytest.raises(ValueError, match=f"QuantSign 'q' needs an integer bits >= 1, but got bits={bits}"):
        QuantSign(bits, name="q")


@pytest.mark.parametrize("divide", [lambda p: p / np.float32(255), lambda p: p * np.float32(1 / 255)])
def test_thermometer_encodes_every_pixel(divide):
    """All 256 values as red and, backwards, as blue, also where they were scaled by a rounded 1 / 255."""
    p = np.arange(256, dtype="float32")
    image = np.stack([p, np.full(256, 100, "float32"), p[::-1]], axis=-1).reshape(16, 16, 3)
    y = ThermometerEncoding()(divide(image)[None]).numpy()
    assert y.shape == (1, 16, 16, 96)
    # Thresholds of the authors' encoder, tried out for all pixels.
    expected = np.array([[1 if pixel >= 8 * j + 4 + (j % 2 == 0) else -1 for j in range(32)] for pixel in range(256)])
    np.testing.assert_array_equal(y[..., :32].reshape(256, 32), expected)
    np.testing.assert_array_equal(y[..., 32:64], np.broadcast_to(expected[100], (1, 16, 16, 32)))
    np.testing.assert_array_equal(y[..., 64:].reshape(256, 32), expected[::-1])


@pytest.mark.parametrize("resolution", [1, 2, 5, 8, 16, 100, 255])
def test_thermometer_of_other_resolutions_rounds_halves_to_even(resolution):
    p = np.arange(256)
    layer = ThermometerEncoding(resolution)
    y = layer((p / 255).astype("float32").reshape(1, 16, 16, 1)).numpy()
    assert y.shape == layer.compute_output_shape((1, 16, 16, 1))
    counts = np.array([round(pixel / resolution) for pixel in range(256)])  # Python rounds like PyTorch
    np.testing.assert_array_equal((y.reshape(256, -1) > 0).sum(-1), counts)
    assert y.shape[-1] == counts.max()


@pytest.mark.parametrize("resolution", [0, 256, 8.0])
def test_resolution_must_be_an_integer_in_range(resolution):
    with pytest.raises(ValueError, match=f"'code' needs an integer resolution from 1 to 255.*={resolution}"):
        ThermometerEncoding(resolution, name="code")


def test_gated_convolution_is_the_authors():
    """Against the layer as the authors write it, with one convolution of the full activations."""
    rng = np.random.default_rng(4)
    x, w = rng.uniform(-1.5, 1.5, (2, 3, 3, 4)), rng.normal(size=(1, 1, 4, 5))
    threshold, dy = rng.uniform(-1, 1, 5), rng.normal(size=(2, 3, 3, 5))
    conv = lq.layers.QuantConv2D(
        5,
        1,
        use_bias=False,
        kernel_quantizer=lq.quantizers.SteSign(clip_value=1.3, dtype="float64"),
        dtype="float64",
    )
    gate = PrecisionGate(dtype="float64")
    high, low = QuantSign(1, dtype="float64"), LowBitSign(dtype="float64")
    inputs = tf.constant(x)
    gate([conv(inputs), conv(inputs)])
    conv.set_weights([w])
    gate.set_weights([threshold])
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        y = gate([conv(high(inputs)), conv(low(inputs))])
        loss = tf.reduce_sum(y * dy)
    dx, dw, dthreshold = tape.gradient(loss, [inputs, *conv.trainable_weights, gate.threshold])

    binary, q = np.sign(w[0, 0]), quarters(x)
    msb, full = 2 / 3 * np.sign(q) @ binary, q @ binary
    mask = msb > threshold
    assert 0 < mask.mean() < 1
    np.testing.assert_allclose(y, np.where(mask, full, msb), atol=1e-12)
    opened = 1 / (1 + np.exp(-5 * (msb - threshold)))
    through_mask = dy * (full - msb) * 5 * opened * (1 - opened) * mask
    np.testing.assert_allclose(dthreshold, -through_mask.sum((0, 1, 2)), rtol=1e-10)
    dmsb, dfull = dy * ~mask + through_mask, dy * mask
    expected = (2 / 3 * dmsb + dfull) @ binary.T * (np.abs(x) < 1)
    np.testing.assert_allclose(dx, expected, rtol=1e-10, atol=1e-12)
    expected = np.einsum("nhwi,nhwo->io", 2 / 3 * np.sign(q), dmsb) + np.einsum("nhwi,nhwo->io", q, dfull)
    np.testing.assert_allclose(dw[0, 0], expected * (np.abs(w[0, 0]) <= 1.3), rtol=1e-10, atol=1e-12)


def test_gate_starts_at_minus_one_and_is_regularized():
    model = gated_model(threshold_regularizer=tf.keras.regularizers.L2(0.5e-5))
    np.testing.assert_array_equal(model.layers[-1].threshold, -np.ones(8))
    assert float(sum(model.losses)) == pytest.approx(8 * 0.5e-5)


def test_gate_refuses_unknown_channels():
    x = tf.keras.Input((4, 4, None))
    with pytest.raises(ValueError, match=r"PrecisionGate 'gate' has one threshold per channel.*is unknown"):
        PrecisionGate(name="gate")([x, x])


def test_gated_convolution_counts_twice_and_its_kernel_once():
    found = cost.count(gated_model())
    assert found.bops == 2 * 6 * 6 * 3 * 3 * 16 * 8
    assert found.binary_params == 3 * 3 * 16 * 8
    assert found.trainable_params == 3 * 3 * 16 * 8 + 8
    assert (found.flops, found.uncounted) == (0, ())


def test_encoded_convolution_counts_as_binary():
    found = cost.count(encoded_model())
    assert (found.bops, found.flops) == (6 * 6 * 3 * 3 * 96 * 8, 0)


@pytest.mark.parametrize("make, binary", [(gated_model, 2), (encoded_model, 1), (one_bit_model, 1)])
def test_converts_to_binary_convolutions(make, binary):
    model = make()
    content, report = convert(model)
    assert report.bitpacked == report.binary
    operators = [operator.name for operator in Flatbuffer(content).operators]
    assert operators.count("LceBconv2d") == binary
    assert "CONV_2D" not in operators
    result = verify(model, content, 2 * images(model) - 1 if make is not encoded_model else images(model))
    assert result.ok, result.differences
