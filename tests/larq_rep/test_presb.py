import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from support import with_gradients

from larq_rep.converters import convert, verify
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.layers import BiasedPReLU, RPReLU
from larq_rep.quantizers import AresSign, LeakyRSign, LeakySign

# The next numbers inwards and outwards of the corners.
CORNERS = [0.0, -0.0, 1.0, -1.0, np.nextafter(1, 0), -np.nextafter(1, 0), np.nextafter(1, 2), 7.0]


def sign(x):
    return np.where(x >= 0, 1.0, -1.0)


@pytest.mark.parametrize("slope", [None, 0.0, 0.3])
def test_leaky_sign_matches_formula(slope):
    rng = np.random.default_rng(0)
    x, dy = rng.uniform(-3, 3, (5, 8)), rng.normal(size=(5, 8))
    x[0] = CORNERS
    quantizer = LeakySign(dtype="float64") if slope is None else LeakySign(slope, dtype="float64")
    y, dx, _ = with_gradients(quantizer, x, dy)
    np.testing.assert_array_equal(y, sign(x))
    np.testing.assert_allclose(dx, dy * np.where(np.abs(x) < 1, 1, 0.01 if slope is None else slope), rtol=1e-12)


def test_leaky_r_sign_matches_formula():
    rng = np.random.default_rng(1)
    x, dy, shift = rng.uniform(-3, 3, (2, 3, 8, 4)), rng.normal(size=(2, 3, 8, 4)), np.array([0.0, 0.5, -0.3, 2.0])
    x[0, 0, :, 0] = CORNERS
    quantizer = LeakyRSign(dtype="float64")
    quantizer.build(x.shape)
    np.testing.assert_array_equal(quantizer.bias, np.zeros(4))
    quantizer.bias.assign(shift)
    y, dx, (dshift,) = with_gradients(quantizer, x, dy)
    expected = dy * np.where(np.abs(x + shift) < 1, 1, 0.01)
    np.testing.assert_array_equal(y, sign(x + shift))
    np.testing.assert_allclose(dx, expected, rtol=1e-12)
    np.testing.assert_allclose(dshift, expected.sum((0, 1, 2)), rtol=1e-12)


def test_leaky_r_sign_refuses_other_channels():
    quantizer = LeakyRSign()
    quantizer(tf.zeros((1, 2, 2, 8)))
    with pytest.raises(ValueError, match=f"{quantizer.name}.* axis -1 .* 8"):
        quantizer(tf.zeros((1, 2, 2, 1)))


def test_ares_sign_matches_formula():
    """Each output channel and weight by itself: the authors' rule of five lines."""
    rng = np.random.default_rng(2)
    w, g = rng.uniform(-1.5, 1.5, (3, 3, 4, 5)), rng.normal(size=(3, 3, 4, 5))
    w[0, 0, :, 0] = 0.0, 1.0, -1.0, 3.0
    y, dw, _ = with_gradients(AresSign(dtype="float64"), w, g)
    for o in range(5):
        kernel, dy = w[..., o].ravel(), g[..., o].ravel()
        alpha = sum(min(abs(x), 1) for x in kernel) / 36
        mean = sum(sign(x) * d for x, d in zip(kernel, dy, strict=True)) / 36
        expected = [
            (alpha * (abs(x) <= 1) * d + sign(x) * mean) * (1 - 1 / 4) * 36 for x, d in zip(kernel, dy, strict=True)
        ]
        np.testing.assert_allclose(y[..., o].ravel(), alpha * sign(kernel), rtol=1e-12)
        np.testing.assert_allclose(dw[..., o].ravel(), expected, rtol=1e-9)


def test_gradient_of_ares_sign_is_that_of_scale_times_straight_through_sign():
    """Where no weight is clipped, by automatic differentiation, times the authors' factor."""
    rng = np.random.default_rng(3)
    w = tf.constant(rng.uniform(-0.9, 0.9, (3, 3, 4, 5)))
    g = rng.normal(size=w.shape)
    with tf.GradientTape() as tape:
        tape.watch(w)
        scale = tf.reduce_mean(tf.abs(w), axis=[0, 1, 2])
        loss = tf.reduce_sum(g * scale * lq.quantizers.SteSign(dtype="float64")(w))
    expected = tape.gradient(loss, w) * (1 - 1 / 4) * 36
    np.testing.assert_allclose(with_gradients(AresSign(dtype="float64"), w.numpy(), g)[1], expected, rtol=1e-9)


def test_biased_prelu_matches_formula():
    rng = np.random.default_rng(4)
    x, dy = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(2, 3, 4, 5))
    b, a = rng.normal(size=(2, 5))
    b[0] = x[..., 0] = 0.0  # the corner, where PyTorch takes the lower branch
    layer = BiasedPReLU(dtype="float64")
    layer.build(x.shape)
    layer.set_weights([b, a.reshape(1, 1, 5)])
    y, dx, (db, da) = with_gradients(layer, x, dy)
    u = x + b
    np.testing.assert_allclose(y, np.where(u > 0, u, a * u), rtol=1e-12)
    np.testing.assert_allclose(dx, np.where(u > 0, dy, a * dy), rtol=1e-12)
    np.testing.assert_allclose(db, np.where(u > 0, dy, a * dy).sum((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(tf.squeeze(da), np.where(u > 0, 0, dy * u).sum((0, 1, 2)), rtol=1e-12)


def test_biased_prelu_starts_as_rprelu_does():
    x = np.random.default_rng(5).normal(size=(1, 2, 2, 3)).astype("float32")
    np.testing.assert_array_equal(BiasedPReLU()(x), RPReLU()(x))


def test_biased_prelu_refuses_unknown_channels():
    with pytest.raises(ValueError, match=r"BiasedPReLU 'act' has weights per channel.*is unknown"):
        BiasedPReLU(name="act")(tf.keras.Input((4, 4, None)))


@pytest.fixture(params=["presb", "ares"])
def model(request):
    """A convolution of each network with random weights."""
    x = image = tf.keras.Input((6, 6, 32))
    if request.param == "presb":
        kwargs = {"input_quantizer": LeakyRSign(0.2, shift_regularizer="l2"), "kernel_quantizer": "scaled_sign"}
    else:
        kwargs = {"input_quantizer": LeakySign(0.2), "kernel_quantizer": AresSign()}
    x = lq.layers.QuantConv2D(16, 3, padding="same", use_bias=False, name="conv", **kwargs)(x)
    model = tf.keras.Model(image, BiasedPReLU(alpha_regularizer="l2")(x))
    rng = np.random.default_rng(6)
    model.set_weights([rng.uniform(-0.9, 0.9, w.shape) for w in model.get_weights()])
    return model


def images(seed=7):
    return np.random.default_rng(seed).normal(size=(2, 6, 6, 32)).astype("float32")


def test_conversion(model):
    content, report = convert(model)
    assert report.bitpacked == report.binary == 1
    names = [op.name for op in Flatbuffer(content).operators]
    shift = ["ADD"] if isinstance(model.get_layer("conv").input_quantizer, LeakyRSign) else []
    # The bias may merge with the scale of the convolution.
    assert names[: len(shift) + 2] == [*shift, "LceQuantize", "LceBconv2d"]
    assert [name for name in names[len(shift) + 2 :] if name != "ADD"] == ["PRELU"]
    result = verify(model, content, images())
    assert result.ok, result.differences
