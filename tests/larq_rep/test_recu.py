import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from larq_rep.converters import convert, verify
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.quantizers import ReCUInputSign, ReCURSign, ReCUSign


def conv_model(**quantizer):
    """A binary convolution behind which the sign of alpha matters."""
    tf.keras.utils.set_random_seed(0)
    conv = lq.layers.QuantConv2D(
        8,
        3,
        padding="same",
        use_bias=False,
        input_quantizer=ReCUInputSign(),
        kernel_quantizer=ReCUSign(**quantizer),
    )
    model = tf.keras.Sequential([tf.keras.Input((6, 6, 16)), conv, tf.keras.layers.MaxPool2D(2)])
    conv.kernel_quantizer.alpha.assign(np.linspace(-1.5, 1.4, 8))
    return model


def images():
    return np.random.default_rng(1).normal(size=(3, 6, 6, 16)).astype("float32")


def test_matches_official_module():
    """Inputs and results of the ReCU authors' convolution in training mode, run in PyTorch."""
    w = np.array([[0.10, -0.20, 0.40, 0.50], [2, -1, 0, 0.5]])
    conv = lq.layers.QuantConv2D(
        2,
        1,
        use_bias=False,
        input_quantizer=ReCUInputSign(dtype="float64"),
        kernel_quantizer=ReCUSign(dtype="float64"),
        dtype="float64",
    )
    x = tf.constant([0.3, -0.7, 0.05, 2.0], tf.float64, shape=(1, 1, 1, 4))
    conv(x)
    conv.set_weights([w.T.reshape(1, 1, 4, 2), np.array([0.5, -0.25])])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = conv(x)
        loss = tf.reduce_sum(y)
    dw, dalpha, dx = tape.gradient(loss, [*conv.trainable_weights, x])

    np.testing.assert_array_equal(tf.squeeze(y), [1, -0.5])
    expected = [[2.385005, -1.639761, 1.937859, -2.683103], [0.233816, 0.324325, -0.271528, -0.286613]]
    np.testing.assert_allclose(tf.transpose(tf.squeeze(dw)), expected, atol=1e-6)
    np.testing.assert_allclose(tf.squeeze(dx), [-0.972435, -0.200508, 1.247440, 0.044501], atol=1e-6)
    np.testing.assert_allclose(dalpha, [2, 2])  # y / alpha


@pytest.mark.parametrize("tau, factor", [(0.85, 1.2040), (0.99, 3.9120), (1.0, np.inf)])
def test_kernel_quantizer_matches_formula(tau, factor):
    """Weights of the Laplace distribution, of which some lie beyond Q."""
    rng = np.random.default_rng(2)
    w, dy = rng.laplace(size=(3, 3, 4, 5)), rng.normal(size=(3, 3, 4, 5))
    quantizer = ReCUSign(tau, alpha_initializer="ones", dtype="float64")
    kernel = tf.constant(w)
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        y = quantizer(kernel)
        loss = tf.reduce_sum(y * dy)
    dw, dalpha = tape.gradient(loss, [kernel, quantizer.alpha])

    centred = w - w.mean((0, 1, 2))
    std = np.sqrt(centred.var((0, 1, 2), ddof=1) + 1e-5)
    w1 = centred * 2 * np.sqrt(2) / std
    inside = np.abs(w1) <= factor * np.abs(w1).mean()
    assert inside.all() == (tau == 1)
    np.testing.assert_array_equal(y, np.sign(centred))
    np.testing.assert_allclose(dalpha, (dy * np.sign(centred)).sum((0, 1, 2)), rtol=1e-12)
    g = dy * inside * 2 * np.sqrt(2)
    along = centred * (g * centred).sum((0, 1, 2)) / (std**2 * (3 * 3 * 4 - 1))
    np.testing.assert_allclose(dw, (g - g.mean((0, 1, 2)) - along) / std, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shift", [None, [0.5, -1.0, 2.0]])
def test_input_quantizer_matches_formula(shift):
    """The gradient against central differences of the integral of 2 - 2|x|, which is clipped x (2 - |x|)."""
    rng = np.random.default_rng(3)
    x, dy = rng.normal(0.3, 2, size=(2, 2, 3, 3)), rng.normal(size=(2, 2, 3, 3))
    x[0, 0, 0, 0] = -0.5 if shift else 0.0
    quantizer = ReCURSign(dtype="float64") if shift else ReCUInputSign(dtype="float64")
    inputs = tf.constant(x)
    quantizer(inputs)
    quantizer.set_weights([np.array(shift)] if shift else [])
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        y = quantizer(inputs)
        loss = tf.reduce_sum(y * dy)
    dx, *dshift = tape.gradient(loss, [inputs, *quantizer.trainable_weights])

    def smooth(x):
        z = x / np.sqrt(x.var((1, 2, 3), ddof=1, keepdims=True) + 1e-5)
        z = np.clip(z, -1, 1)
        return (z * (2 - np.abs(z)) * dy).sum()

    x += shift or 0
    np.testing.assert_array_equal(y, np.where(x >= 0, 1, -1))
    expected = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        step = np.zeros_like(x)
        step[index] = 1e-6
        expected[index] = (smooth(x + step) - smooth(x - step)) / 2e-6
    np.testing.assert_allclose(dx, expected, atol=1e-5)
    for gradient in dshift:
        np.testing.assert_allclose(gradient, expected.sum((0, 1, 2)), atol=1e-4)


def test_alpha_starts_between_0_and_1_differently_in_each_layer():
    quantizers = ReCUSign(), ReCUSign()
    for quantizer in quantizers:
        quantizer(tf.random.stateless_normal((1, 1, 4, 1000), (0, 1)))
        alpha = quantizer.alpha.numpy()
        assert 0 <= alpha.min() < 0.01
        assert 0.99 < alpha.max() <= 1
        assert abs(alpha.mean() - 0.5) < 0.05
    assert np.all(quantizers[0].alpha.numpy() != quantizers[1].alpha.numpy())


def test_compiled_training_step_follows_assigned_tau():
    """With one tau the upper weights are beyond Q and get a different gradient than with the other."""
    model = conv_model()
    step = tf.function(lambda: tf.gradients(tf.reduce_sum(model(images()) ** 2), model.layers[0].kernel))
    (early,) = step()
    model.layers[0].kernel_quantizer.tau.assign(0.99)
    (late,) = step()
    assert np.any(early != late)


def test_config_of_a_called_layer_fits_another_kernel():
    """As RepTran needs it: more input channels, fewer filters."""
    conv = lq.layers.QuantConv2D.from_config({**conv_model().layers[0].get_config(), "filters": 4})
    conv(tf.ones((1, 4, 4, 32)))
    assert [w.shape for w in conv.weights] == [(3, 3, 32, 4), (4,)]


def test_converts_to_binary_convolution():
    model = conv_model()
    content, report = convert(model)
    assert report.bitpacked == report.binary == 1
    result = verify(model, content, images())
    assert result.ok, result.differences
    found = [operator.name for operator in Flatbuffer(content).operators]
    assert found == ["LceQuantize", "LceBconv2d", "MAX_POOL_2D"]


@pytest.mark.parametrize("tau", [0.5, 1.01])
def test_tau_must_be_in_range(tau):
    with pytest.raises(ValueError, match=f"ReCUSign 'q' needs 0.5 < tau <= 1, but got tau={tau}"):
        ReCUSign(tau, name="q")


def test_one_object_for_two_kernels_is_refused():
    quantizer = ReCUSign(name="q")
    quantizer(tf.ones((3, 3, 4, 5)))
    with pytest.raises(ValueError, match=r"'q' has scales for 5 output channels.*\(3, 3, 4, 6\).*of its own"):
        quantizer(tf.ones((3, 3, 4, 6)))
