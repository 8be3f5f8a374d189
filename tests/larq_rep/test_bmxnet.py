import larq_rep

# isort: split
import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from larq_rep.converters import convert, verify
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.layers import PopCount
from larq_rep.zoo.bmxnet import binary_conv

SHAPE = (7, 6, 5)


def images(shape=SHAPE, count=2):
    return np.random.default_rng(0).normal(size=(count, *shape)).astype("float32")


def model_of(shape=SHAPE, filters=4, kernel_size=3, *, clip_value=1.0, padding="bmxnet", scaling=False, **options):
    image = tf.keras.Input(shape)
    conv = binary_conv("net", padding, clip_value, scaling)
    model = tf.keras.Model(image, conv(image, filters, kernel_size, "conv", **options))
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(0, 1.5, w.shape) for w in model.get_weights()])
    return model


def windows(x, kernel_size, strides, dilation_rate, fill):
    """All windows, `(batch, height, width, kh, kw, channels)`, with TensorFlow's alignment of "same"."""
    span = (kernel_size - 1) * dilation_rate + 1
    sizes = [-(-size // strides) for size in x.shape[1:3]]
    totals = [max((n - 1) * strides + span - size, 0) for n, size in zip(sizes, x.shape[1:3], strict=True)]
    x = np.pad(x, [(0, 0), *[(t // 2, t - t // 2) for t in totals], (0, 0)], constant_values=fill)
    rows = []
    for i in range(sizes[0]):
        for j in range(sizes[1]):
            top, left = i * strides, j * strides
            rows.append(x[:, top : top + span : dilation_rate, left : left + span : dilation_rate])
    return np.stack(rows, 1).reshape(x.shape[0], *sizes, kernel_size, kernel_size, x.shape[-1])


@pytest.mark.parametrize(
    "kernel_size, options", [(1, {}), (3, {}), (3, {"strides": 2}), (3, {"dilation_rate": 2}), (5, {"strides": 2})]
)
def test_popcount_is_the_number_of_equal_signs(kernel_size, options):
    model, x = model_of(kernel_size=kernel_size, **options), images()
    seen = windows(x, kernel_size, options.get("strides", 1), options.get("dilation_rate", 1), fill=-1) >= 0
    kernel = model.get_weights()[0] >= 0
    expected = [(seen == kernel[..., filter]).sum((-3, -2, -1)) for filter in range(4)]
    np.testing.assert_array_equal(model(x), np.stack(expected, -1))


def test_zero_padding_is_the_sum():
    model, x = model_of(padding="zero"), images()
    seen = windows(np.where(x >= 0, 1, -1), 3, 1, 1, fill=0)
    kernel = np.where(model.get_weights()[0] >= 0, 1, -1)
    np.testing.assert_array_equal(model(x), np.einsum("nhwijc,ijco->nhwo", seen, kernel))


@pytest.mark.parametrize("padding, fill", [("zero", 0), ("bmxnet", -1)])
def test_scaling_is_k_times_alpha_times_the_sum(padding, fill):
    model, x = model_of(padding=padding, scaling=True, strides=2), images()
    seen = windows(np.where(x >= 0, 1, -1), 3, 2, 1, fill)
    w = model.get_weights()[0]
    k = windows(np.abs(x).mean(-1, keepdims=True), 3, 2, 1, fill=0).mean((3, 4))
    expected = k * np.abs(w).mean((0, 1, 2)) * np.einsum("nhwijc,ijco->nhwo", seen, np.where(w >= 0, 1, -1))
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scaling", [False, True])
def test_gradients(scaling):
    """That of weights is the identity's whatever their size, that of activations up to clip_value, K a constant."""
    model = model_of((1, 1, 3), 2, 1, clip_value=1.3, scaling=scaling)
    w = np.array([[0.5, -3.0], [-0.2, 0.1], [2.0, -0.7]])
    model.set_weights([w.reshape(1, 1, 3, 2)])
    x = tf.constant([1.29, -1.31, -0.4], shape=(1, 1, 1, 3))
    dy = np.array([0.3, -2.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(model(x) * dy)
    dx, (dw,) = tape.gradient(loss, (x, model.trainable_weights))

    # Scaled: K = (1.29 + 1.31 + 0.4) / 3. Else a popcount, half of the sum.
    scale = 1.0 * np.abs(w).mean(0) if scaling else np.array([0.5, 0.5])
    np.testing.assert_allclose(np.squeeze(dw), np.outer([1, -1, -1], dy * scale), rtol=1e-5)
    np.testing.assert_allclose(np.squeeze(dx), np.where(w >= 0, 1, -1) @ (dy * scale) * [1, 0, 1], rtol=1e-5)


@pytest.mark.parametrize("padding", ["zero", "bmxnet"])
@pytest.mark.parametrize(
    "options", [{}, {"strides": 2}, {"dilation_rate": 2}, {"scaling": True, "strides": 2}], ids=str
)
def test_converts(padding, options):
    model = model_of((8, 8, 32), padding=padding, **options)
    content, report = convert(model)
    assert report.bitpacked == report.binary == 1
    result = verify(model, content, images((8, 8, 32)))
    assert result.ok, result.differences
    operators = [operator.name for operator in Flatbuffer(content).operators]
    if "scaling" not in options:
        # The popcount costs nothing.
        assert operators == ["PADV2"] * (padding == "bmxnet") + ["LceQuantize", "LceBconv2d"]


def test_popcount_of_an_oblong_kernel():
    y = PopCount((3, 1))([tf.constant([[[[-6.0, 0.0, 6.0]]]]), tf.zeros((1, 4, 4, 2))])
    np.testing.assert_array_equal(y, [[[[0, 3, 6]]]])
    assert PopCount(3).compute_output_shape([(None, 4, 5, 6), (None, 8, 10, 3)]) == (None, 4, 5, 6)


def test_popcount_follows_reptran():
    """With beta the convolution has beta times the inputs, and so many more products."""
    image = x = tf.keras.Input((4, 4, 3))
    x = tf.keras.layers.Conv2D(8, 3, padding="same", name="stem")(x)
    y = lq.layers.QuantConv2D(6, 1, input_quantizer="ste_sign", kernel_quantizer="ste_sign", use_bias=False)(x)
    model = larq_rep.reptran(tf.keras.Model(image, PopCount(1, name="popcount")([y, x])), beta=2)
    y = model(images((4, 4, 3))).numpy()
    assert y.shape[-1] == 12
    assert np.all((y == np.round(y)) & (y >= 0) & (y <= 16))


def test_popcount_refuses_what_it_cannot_count():
    with pytest.raises(ValueError, match="PopCount 'count' takes a list of two tensors"):
        PopCount(3, name="count")(tf.zeros((1, 4, 4, 2)))
    with pytest.raises(ValueError, match=r"PopCount 'count'.*\(None, 4, 4, None\), is unknown"):
        PopCount(3, name="count")([tf.keras.Input((4, 4, 2)), tf.keras.Input((4, 4, None))])


def test_unknown_padding():
    with pytest.raises(ValueError, match="net: padding must be one of 'zero', 'bmxnet', found 'same'"):
        binary_conv("net", "same", 1.0)
