"""CBCN's kernels and convolutions against the authors' table of cells."""

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from support import with_gradients

from larq_rep import reptran
from larq_rep.converters import convert, verify
from larq_rep.cost import count
from larq_rep.layers import CirculantConv2D
from larq_rep.quantizers import CirculantKernel
from larq_rep.quantizers.base import value_of, window_of
from larq_rep.quantizers.cbcn import quarter_turn
from larq_rep.reptran import ReptranError

# Where each of the nine cells of a filter comes to, counted by rows from 1.
CELLS = {
    0: [1, 2, 3, 4, 5, 6, 7, 8, 9],
    1: [3, 6, 9, 2, 5, 8, 1, 4, 7],
    2: [9, 8, 7, 6, 5, 4, 3, 2, 1],
    3: [7, 4, 1, 8, 5, 2, 9, 6, 3],
}


def expanded(latent):
    """All turns of a latent kernel `(3, 3, 4 * inputs, outputs)`, cell by cell."""
    _, _, channels, outputs = latent.shape
    result = np.full((3, 3, channels, 4 * outputs), np.nan)
    for out in range(outputs):
        for k, cells in CELLS.items():
            for feature in range(channels // 4):
                for i in range(4):
                    for j, to in enumerate(cells):
                        row, column = divmod(to - 1, 3)
                        value = latent[j // 3, j % 3, 4 * feature + i, out]
                        result[row, column, 4 * feature + (i + k) % 4, 4 * out + k] = value
    return result


def sign(x):
    return np.where(x >= 0, 1.0, -1.0)


def test_circulant_kernel_matches_formula():
    rng = np.random.default_rng(0)
    w, g = rng.uniform(-1.5, 1.5, (3, 3, 8, 2)), rng.normal(size=(3, 3, 8, 8))
    w[0, 0, :4, 0] = 0.0, -0.0, 1.0, -1.0
    y, dw, _ = with_gradients(CirculantKernel(dtype="float64"), w, g)
    scale = np.abs(w).mean()
    np.testing.assert_allclose(y, scale * sign(expanded(w)), rtol=1e-12)
    # A weight has the gradients of its four places; `places` says which weight stands where.
    places = expanded(np.arange(w.size).reshape(w.shape)).astype(int)
    gathered = np.bincount(places.ravel(), g.ravel(), w.size).reshape(w.shape)
    through_scale = np.sign(w) / w.size * (g * sign(expanded(w))).sum()
    expected = scale * gathered * np.maximum(2 - 2 * np.abs(w), 0) + through_scale
    np.testing.assert_allclose(dw, expected, rtol=1e-9)


def test_what_it_answers():
    w = tf.constant(np.random.default_rng(5).normal(size=(3, 3, 4, 2)))
    quantizer = CirculantKernel(dtype="float64")
    np.testing.assert_array_equal(np.sign(quantizer(w)[..., ::4]), np.sign(value_of(quantizer)(w)))
    assert window_of(quantizer)(w) is None


def test_four_quarter_turns_are_the_identity():
    kernel = tf.random.stateless_normal((3, 3, 2, 4, 5), (1, 2))
    turns = [kernel]
    for _ in range(4):
        turns.append(quarter_turn(turns[-1]))
    np.testing.assert_array_equal(turns[4], kernel)
    assert all(np.any(turn != kernel) for turn in turns[1:4])


def test_a_turned_image_gives_turned_features():
    """Orientations of the image's features move on by one with each turn, and so do those of the output."""
    x = np.random.default_rng(1).normal(size=(1, 7, 7, 8)).astype("float32")
    conv = CirculantConv2D(12, 3, use_bias=False)
    y = conv(x).numpy()

    def turn(image):
        features = np.rot90(image, -1, axes=(1, 2)).reshape(*image.shape[:3], -1, 4)
        return np.roll(features, 1, axis=-1).reshape(image.shape)

    np.testing.assert_allclose(conv(turn(x)), turn(y), atol=1e-4)


@pytest.mark.parametrize("shape", [(3, 1, 4, 1), (3, 3, 6, 1), (4, 1)])
def test_refuses_other_kernels(shape):
    with pytest.raises(ValueError, match=r"CirculantKernel 'q' turns kernels of shape .*, but got"):
        CirculantKernel(name="q")(tf.zeros(shape))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"filters": 6}, "needs a multiple of 4 filters, but got filters=6"),
        ({"groups": 4}, "groups=1 only, but got 'channels_last' and 4"),
        ({"kernel_quantizer": None}, "needs the kernel quantizer CirculantKernel, which .* but got None"),
        ({"kernel_quantizer": "ste_sign"}, "needs the kernel quantizer CirculantKernel, which .* but got 'ste_sign'"),
        ({"data_format": "channels_first"}, "but got 'channels_first'"),
    ],
)
def test_layer_refuses_other_arguments(arguments, message):
    with pytest.raises(ValueError, match=f"CirculantConv2D 'conv' .*{message}"):
        CirculantConv2D(**{"filters": 8, "kernel_size": 3, "name": "conv", **arguments})


@pytest.fixture(scope="module")
def model():
    x = image = tf.keras.Input((8, 8, 64))
    for number, strides in enumerate((1, 2)):
        y = CirculantConv2D(
            64, 3, strides=strides, padding="same", use_bias=False, input_quantizer="ste_sign", name=f"conv{number}"
        )(x)
        x = tf.keras.layers.BatchNormalization()(y)
    model = tf.keras.Model(image, x)
    rng = np.random.default_rng(2)
    signs = [rng.choice([-1, 1], w.shape) if w.ndim > 1 else 1 for w in model.get_weights()]
    model.set_weights([rng.uniform(0.1, 1, w.shape) * s for w, s in zip(model.get_weights(), signs, strict=True)])
    return model


def test_layer_is_a_convolution_with_the_kernel_of_all_turns(model):
    x = np.random.default_rng(3).normal(size=(2, 8, 8, 64)).astype("float32")
    for layer in model.layers:
        if isinstance(layer, CirculantConv2D):
            latent = layer.get_weights()[0]
            assert latent.shape == (3, 3, 64, 16)
            plain = lq.layers.QuantConv2D(
                64, 3, strides=layer.strides, padding="same", use_bias=False, input_quantizer="ste_sign"
            )
            plain.build((None, 8, 8, 64))
            plain.set_weights([np.abs(latent).mean() * sign(expanded(latent))])
            np.testing.assert_allclose(layer(x), plain(x), rtol=1e-5, atol=1e-5)


def test_operations_are_those_of_all_filters_and_weights_the_latent_ones(model):
    cost = count(model)
    assert cost.bops == (64 + 16) * 9 * 64 * 64
    assert cost.binary_params == 2 * 9 * 64 * 16
    assert not cost.uncounted


def test_becomes_one_bitpacked_convolution(model):
    content, report = convert(model)
    assert report.bitpacked == report.binary == 2
    # One bit for each weight of the kernels of all filters.
    assert 2 * 9 * 64 * 64 // 8 < report.size < 2 * 9 * 64 * 64
    x = np.random.default_rng(4).normal(size=(2, 8, 8, 64)).astype("float32")
    assert verify(model, content, x, runtime="delegate").ok


def test_has_no_rep_form(model):
    """Repeated outputs would not be turns of each other."""
    image = tf.keras.Input((8, 8, 4))
    x = tf.keras.layers.Conv2D(64, 3, padding="same", name="stem")(image)
    x = tf.keras.layers.GlobalAveragePooling2D()(model(x))
    with pytest.raises(ReptranError, match="CirculantConv2D 'conv0' cannot be transformed"):
        reptran(tf.keras.Model(image, tf.keras.layers.Dense(2)(x)))
