import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from support import with_gradients

from larq_rep.converters import convert, verify
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.layers import XNORScale
from larq_rep.quantizers import CentredClip, DoReFaSign, XNORSign


def conv_model(kernel_quantizer, scaled=False):
    tf.keras.utils.set_random_seed(0)
    x = tf.keras.Input((7, 7, 16))
    y = lq.layers.QuantConv2D(
        8,
        3,
        strides=2,
        padding="same",
        use_bias=False,
        input_quantizer="ste_sign",
        kernel_quantizer=kernel_quantizer,
        kernel_constraint="centred_clip",
    )(x)
    if scaled:
        y = tf.keras.layers.multiply([y, XNORScale(3, strides=2)(x)])
    return tf.keras.Model(x, y)


def images():
    return np.random.default_rng(1).normal(size=(3, 7, 7, 16)).astype("float32")


def kernel_and_upstream():
    rng = np.random.default_rng(2)
    w, dy = rng.uniform(-1.5, 1.5, (3, 3, 4, 5)), rng.normal(size=(3, 3, 4, 5))
    w[0, 0, :, 0] = 0.0, 1.0, -1.0, -0.0
    return w, dy


def test_xnor_sign_matches_formula():
    w, dy = kernel_and_upstream()
    y, dw, _ = with_gradients(XNORSign(dtype="float64"), w, dy)
    scale, n, inputs = np.abs(w).mean((0, 1, 2)), 3 * 3 * 4, 4
    np.testing.assert_allclose(y, scale * np.where(w >= 0, 1, -1), rtol=1e-12)
    # As in the authors' training code, in this order.
    m = np.broadcast_to(scale, w.shape).copy()
    m[w <= -1] = 0
    m[w >= 1] = 0
    m = (m + 1 / n) * (1 - 1 / inputs) * n
    np.testing.assert_allclose(dw, dy * m, rtol=1e-12)


def test_dorefa_sign_matches_formula():
    w, dy = kernel_and_upstream()
    y, dw, _ = with_gradients(DoReFaSign(dtype="float64"), w, dy)
    np.testing.assert_allclose(y, np.abs(w).mean() * np.where(w >= 0, 1, -1), rtol=1e-12)
    np.testing.assert_array_equal(dw, dy)


def test_larqs_dorefa_is_another_function():
    """What the documentation says of it: no scale, and not the identity as gradient."""
    w, dy = kernel_and_upstream()
    y, dw, _ = with_gradients(lq.quantizers.DoReFa(k_bit=1, mode="weights", dtype="float64"), w, dy)
    assert np.unique(y).tolist() == [-1, 1]
    np.testing.assert_allclose(dw, dy * (1 - np.tanh(w) ** 2) / np.abs(np.tanh(w)).max(), rtol=1e-12)


def test_larqs_unclipped_sign_is_that_of_bnn():
    w, dy = kernel_and_upstream()
    y, dw, _ = with_gradients(lq.quantizers.SteSign(clip_value=None, dtype="float64"), w, dy)
    np.testing.assert_array_equal(y, np.where(w >= 0, 1, -1))
    np.testing.assert_array_equal(dw, dy)


def test_centred_clip_matches_formula():
    w = np.random.default_rng(3).normal(0.5, 1, (3, 3, 4, 5))
    found = CentredClip()(tf.constant(w)).numpy()
    for i, j, o in np.ndindex(3, 3, 5):
        taps = w[i, j, :, o]
        np.testing.assert_allclose(found[i, j, :, o], np.clip(taps - taps.mean(), -1, 1), rtol=1e-12)
    assert isinstance(tf.keras.constraints.get("centred_clip"), CentredClip)


def test_constraint_holds_after_a_training_step():
    model = conv_model("xnor_sign")
    model.compile(tf.keras.optimizers.SGD(1e-3), "mse")
    before = model.get_weights()[0]
    model.train_on_batch(images(), np.ones((3, 4, 4, 8)))
    (kernel,) = model.get_weights()
    assert np.any(before != kernel)
    assert np.abs(kernel).max() <= 1
    # Without clipping the mean over the input channels would be exactly 0.
    unclipped = np.all(np.abs(kernel) < 1, axis=2)
    assert unclipped.any()
    np.testing.assert_allclose(kernel.mean(axis=2)[unclipped], 0, atol=1e-6)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("size, strides", [(3, 1), (3, 2), ((1, 3), (2, 1)), (1, 2)])
def test_scale_is_the_mean_of_the_window(size, strides, padding):
    """Against a convolution of |x| with ones, whose padding is that of the binary convolution."""
    x = np.random.default_rng(4).normal(size=(2, 8, 7, 5))
    layer = XNORScale(size, strides, padding, dtype="float64")
    ones = tf.keras.layers.Conv2D(1, size, strides, padding, use_bias=False, kernel_initializer="ones", dtype="float64")
    inputs = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        y = layer(inputs)
    expected = ones(np.abs(x)) / (np.prod(layer.kernel_size) * 5)
    np.testing.assert_allclose(y, expected, rtol=1e-12)
    assert layer.compute_output_shape(x.shape) == expected.shape
    assert tape.gradient(y, inputs) is None


def test_scale_of_one_window_by_hand():
    x = np.arange(18.0).reshape(1, 3, 3, 2) * np.array([1, -1])
    k = XNORScale(3)(x).numpy()
    assert k.shape == (1, 3, 3, 1)
    assert k[0, 1, 1, 0] == pytest.approx(8.5)  # the mean of all
    assert k[0, 0, 0, 0] == pytest.approx((0 + 1 + 2 + 3 + 6 + 7 + 8 + 9) / 2 / 9)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("quantizer", ["xnor_sign", "dorefa_sign"])
def test_converts_to_binary_convolution(quantizer, scaled):
    model = conv_model(quantizer, scaled)
    content, report = convert(model)
    assert report.bitpacked == report.binary == 1
    operators = [operator.name for operator in Flatbuffer(content).operators]
    assert operators.count("LceBconv2d") == 1
    assert operators.count("CONV_2D") == int(scaled)
    result = verify(model, content, images())
    assert result.ok, result.differences
