"""That mirrored images and kernels align TensorFlow's strided layers as PyTorch's are."""

import numpy as np
import pytest
import tensorflow as tf

from larq_rep.converters import convert, describe
from larq_rep.layers import Mirror

keras = tf.keras.layers


def test_call_and_config():
    x = np.random.default_rng(0).standard_normal((2, 4, 6, 3))
    layer = Mirror(name="mirror", dtype="float64")
    np.testing.assert_array_equal(layer(x), x[:, ::-1, ::-1])
    assert layer.compute_output_shape((2, 4, 6, 3)) == (2, 4, 6, 3)
    np.testing.assert_array_equal(Mirror.from_config(layer.get_config())(x), x[:, ::-1, ::-1])


def torch_windows(x, size, fill):
    """The windows of a strided layer of PyTorch, padded by (size - 1) / 2 on every side."""
    p = (size - 1) // 2
    x = np.pad(x, [(0, 0), (p, p), (p, p), (0, 0)], constant_values=fill)
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
    return windows[:, ::2, ::2]


@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize("height, width", [(8, 12), (7, 9), (8, 9)])
def test_strided_layers_align_as_in_pytorch(size, height, width):
    rng = np.random.default_rng(size)
    x, kernel = rng.standard_normal((2, height, width, 3)), rng.standard_normal((size, size, 3, 4))
    mirrored = Mirror(dtype="float64")(x)

    conv = tf.nn.conv2d(mirrored, kernel[::-1, ::-1], 2, "SAME")
    expected = np.einsum("nhwcij,ijco->nhwo", torch_windows(x, size, 0), kernel)
    np.testing.assert_allclose(conv[:, ::-1, ::-1], expected, rtol=1e-12, atol=1e-12)

    pool = tf.nn.max_pool2d(mirrored, size, 2, "SAME")
    np.testing.assert_array_equal(pool[:, ::-1, ::-1], torch_windows(x, size, -np.inf).max(axis=(-2, -1)))


def test_it_becomes_one_operator_that_old_interpreters_know():
    image = keras.Input((8, 8, 3))
    content, _ = convert(tf.keras.Model(image, keras.Conv2D(4, 3, strides=2, padding="same")(Mirror()(image))))
    assert describe(content).operators == {"STRIDED_SLICE": 1, "CONV_2D": 1}
