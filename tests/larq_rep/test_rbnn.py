import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from larq_rep.converters import convert, verify
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.quantizers import RotatedSign, StandardizedSign
from larq_rep.quantizers.rbnn import _rotation_sizes


def slope(v, t, k):
    return np.maximum(0, k * (np.sqrt(2) * t - t**2 * np.abs(v)))


def rotation(angle):
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def orthogonal(size, rng):
    return np.linalg.qr(rng.normal(size=(size, size)))[0]


def conv_model(**quantizer):
    """A binary convolution behind which the sign of alpha matters."""
    tf.keras.utils.set_random_seed(0)
    conv = lq.layers.QuantConv2D(
        8,
        3,
        padding="same",
        use_bias=False,
        input_quantizer=StandardizedSign(t=0.2),
        kernel_quantizer=RotatedSign(**quantizer),
    )
    model = tf.keras.Sequential([tf.keras.Input((6, 6, 16)), conv, tf.keras.layers.MaxPool2D(2)])
    conv.kernel_quantizer.alpha.assign(np.linspace(-1.5, 1.4, 8))
    conv.kernel_quantizer.rotate.assign(np.linspace(-0.7, 2.0, 8))
    return model


def images():
    return np.random.default_rng(1).normal(size=(3, 6, 6, 16)).astype("float32")


def test_matches_official_module():
    """Inputs and results of the RBNN authors' convolution, run in PyTorch."""
    w = np.array([[0.10, -0.20, 0.40, 0.50], [2, -1, 0, 0.5]])
    conv = lq.layers.QuantConv2D(
        2,
        1,
        use_bias=False,
        input_quantizer=StandardizedSign(t=0.1, dtype="float64"),
        kernel_quantizer=RotatedSign(t=0.1, dtype="float64"),
        dtype="float64",
    )
    x = tf.constant([0.3, -0.7, 0.05, 2.0], tf.float64, shape=(1, 1, 1, 4))
    conv(x)
    alpha, rotate = np.array([[0.5, -0.25], [1.0, -0.4]])
    conv.set_weights([w.T.reshape(1, 1, 4, 2), alpha, rotate, rotation(0.5), rotation(-0.8)])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = conv(x)
        loss = tf.reduce_sum(y)
    dw, dalpha, drotate, dx = tape.gradient(loss, [*conv.trainable_weights, x])

    assert [v.name.split("/")[-1] for v in conv.weights] == ["kernel:0", "alpha:0", "rotate:0", "R1:0", "R2:0"]
    u = [[0.36046, -0.56915, -0.35408, 1.42056], [1.32054, -0.64202, -0.59554, -0.01970]]
    with lq.context.quantized_scope(True):
        kernel = conv.get_weights()[0].squeeze().T
    np.testing.assert_array_equal(kernel, np.sign(u) * [[0.5], [-0.25]])
    np.testing.assert_array_equal(tf.squeeze(y), [1, 0])
    expected = [[-0.101624, 0.100779, -0.298956, 0.299801], [0.097331, 0.069878, 0.082359, -0.249569]]
    np.testing.assert_allclose(tf.transpose(tf.squeeze(dw)), expected, atol=1e-6)
    np.testing.assert_allclose(tf.squeeze(dx), [0.302095, -0.035087, -0.214783, -0.052225], atol=1e-6)
    np.testing.assert_allclose(drotate, [0.026839, -0.244396], atol=1e-6)
    np.testing.assert_allclose(dalpha, [2, 0], atol=1e-6)


@pytest.mark.parametrize(
    "size, expected",
    # The first convolutions of the published networks, and a prime.
    [
        *[(64, (8, 8)), (128, (8, 16)), (144, (12, 12)), (256, (16, 16)), (288, (16, 18)), (512, (16, 32))],
        *[(576, (24, 24)), (1152, (32, 36)), (2304, (48, 48)), (4608, (64, 72)), (9216, (96, 96))],
        *[(18432, (128, 144)), (36864, (192, 192)), (1024, (32, 32)), (2048, (32, 64)), (7, (1, 7))],
    ],
)
def test_rotations_have_the_sizes_nearest_to_each_other(size, expected):
    assert _rotation_sizes(size) == expected


@pytest.mark.parametrize("t", [0.05, 3.0])
def test_rotated_sign_matches_formula(t):
    """A loop over channels, whose weights are matrices in the order (input channel, row, column)."""
    rng = np.random.default_rng(2)
    w, dy = rng.normal(size=(3, 3, 4, 5)), rng.normal(size=(3, 3, 4, 5))
    alpha, rotate = rng.normal(size=5), rng.uniform(-4, 4, 5)
    r1, r2 = orthogonal(6, rng), orthogonal(6, rng)
    quantizer = RotatedSign(t, dtype="float64")
    quantizer(w)
    quantizer.set_weights([alpha, rotate, r1, r2])
    kernel = tf.constant(w)
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        y = quantizer(kernel)
        loss = tf.reduce_sum(y * dy)
    dw, dalpha, drotate = tape.gradient(loss, [kernel, quantizer.alpha, quantizer.rotate])

    for o in range(5):
        channel, upstream = w[..., o], dy[..., o]
        std = channel.std(ddof=1)
        z = (channel - channel.mean()) / std
        rotated = np.zeros_like(z)
        matrix = (
            r1.T @ np.array([z[i, j, c] for c in range(4) for i in range(3) for j in range(3)]).reshape(6, 6)
        ) @ r2
        for n, value in enumerate(matrix.flatten()):
            rotated[n % 9 // 3, n % 3, n // 9] = value
        part = abs(np.sin(rotate[o]))
        u = (1 - part) * z + part * rotated
        np.testing.assert_allclose(y[..., o], alpha[o] * np.sign(u), rtol=1e-12)
        np.testing.assert_allclose(dalpha[o], (upstream * np.sign(u)).sum(), rtol=1e-12)
        g = upstream * alpha[o] * slope(u, t, max(1 / t, 1))
        sine = np.sin(rotate[o])
        expected = np.cos(rotate[o]) * np.sign(sine) * (g * (rotated - z)).sum()
        np.testing.assert_allclose(drotate[o], expected, rtol=1e-10)
        g = (1 - part) * g
        expected = (g - g.mean() - z * (g * z).sum() / (z.size - 1)) / std
        np.testing.assert_allclose(dw[..., o], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("t, crop", [(0.05, (0, 0)), (3.0, (0, 0)), (0.05, (1, 0)), (3.0, (2, 1))])
def test_standardized_sign_matches_formula(t, crop):
    rng = np.random.default_rng(3)
    x, dy = rng.normal(0.7, 2, size=(2, 3, 4, 5)), rng.normal(size=(2, 3, 4, 5))
    # Pixels that are left out have no upstream gradient, but they count for mean and deviation.
    kept = (slice(None), slice(crop[0], None), slice(crop[1], None))
    outside = np.ones_like(dy)
    outside[kept] = 0
    dy[outside == 1] = 0
    inputs = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        y = StandardizedSign(t, crop, dtype="float64")(inputs)
        loss = tf.reduce_sum(y * dy[kept])
    dx = tape.gradient(loss, inputs)

    for sample in range(2):
        std = x[sample].std(ddof=1)
        z = (x[sample] - x[sample].mean()) / std
        np.testing.assert_array_equal(y[sample], np.sign(z)[kept[1:]])
        g = dy[sample] * slope(z, max(t, 1), 1)
        expected = (g - g.mean() - z * (g * z).sum() / (z.size - 1)) / std
        np.testing.assert_allclose(dx[sample], expected, rtol=1e-9, atol=1e-12)


def test_initial_values():
    quantizer = RotatedSign()
    kernel = tf.random.stateless_normal((3, 3, 16, 5), (0, 1))
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        loss = tf.reduce_sum(quantizer(kernel, training=True) ** 2 + quantizer(kernel, training=True))
    # Weights uniform within 1 / sqrt(144) have the mean magnitude 1 / 24.
    np.testing.assert_allclose(quantizer.alpha, np.full(5, 1 / 24), rtol=1e-6)
    np.testing.assert_allclose(quantizer.rotate, np.full(5, np.pi / 2), rtol=1e-6)
    for weight in (quantizer.R1, quantizer.R2):
        assert weight.shape == (12, 12)
        np.testing.assert_allclose(weight @ tf.transpose(weight), np.eye(12), atol=1e-5)
    # As with the authors' initial values.
    np.testing.assert_array_equal(tape.gradient(loss, kernel), np.zeros(kernel.shape))


def test_update_rotations_is_three_alternations():
    rng = np.random.default_rng(4)
    w = rng.normal(size=(3, 3, 8, 7))
    r1, r2 = orthogonal(8, rng), orthogonal(9, rng)
    quantizer = RotatedSign(dtype="float64")
    quantizer(w)
    quantizer.R1.assign(r1)
    quantizer.R2.assign(r2)
    quantizer.update_rotations(w)

    z = (w - w.mean((0, 1, 2))) / w.std((0, 1, 2), ddof=1)
    z = z.transpose(3, 2, 0, 1).reshape(7, 8, 9)
    cosines = [np.abs(r1.T @ z @ r2).sum()]
    for _ in range(3):
        signs = np.sign(r1.T @ z @ r2)
        u, _, vt = np.linalg.svd(sum(b @ r2.T @ x.T for b, x in zip(signs, z, strict=True)))
        r1 = vt.T @ u.T
        u, _, vt = np.linalg.svd(sum(x.T @ r1 @ b for b, x in zip(signs, z, strict=True)))
        r2 = u @ vt
        cosines.append(np.abs(r1.T @ z @ r2).sum())
    assert np.all(np.diff(cosines) > 0)
    np.testing.assert_allclose(quantizer.R1, r1, atol=1e-9)
    np.testing.assert_allclose(quantizer.R2, r2, atol=1e-9)


def test_update_rotations_takes_the_kernel_of_a_layer():
    model = conv_model()
    conv = model.layers[0]
    quantizer = conv.kernel_quantizer
    before = quantizer.R1.numpy()
    quantizer.update_rotations(conv.kernel)
    assert np.any(before != quantizer.R1.numpy())
    np.testing.assert_allclose(quantizer.R1 @ tf.transpose(quantizer.R1), np.eye(12), atol=1e-5)


@pytest.mark.parametrize("quantizer", ["input_quantizer", "kernel_quantizer"])
def test_compiled_training_step_follows_assigned_t(quantizer):
    model = conv_model()
    conv = model.layers[0]
    inputs = tf.constant(images())
    step = tf.function(lambda: tf.gradients(tf.reduce_sum(model(inputs) ** 2), [inputs, conv.kernel]))
    early = step()
    getattr(conv, quantizer).t.assign(2.0)
    changed = [bool(np.any(a != b)) for a, b in zip(early, step(), strict=True)]
    assert changed == [quantizer == "input_quantizer", quantizer == "kernel_quantizer"]


def test_rotations_differ_between_layers():
    quantizers = RotatedSign(), RotatedSign()
    for quantizer in quantizers:
        quantizer(tf.ones((1, 1, 16, 5)))
    assert np.all(quantizers[0].R1.numpy() != quantizers[1].R1.numpy())
    assert np.all(quantizers[0].R1.numpy() != quantizers[0].R2.numpy())


def test_config_of_a_called_layer_fits_another_kernel():
    """As RepTran needs it: more input channels, fewer filters."""
    conv = lq.layers.QuantConv2D.from_config({**conv_model().layers[0].get_config(), "filters": 4})
    conv(tf.ones((1, 4, 4, 32)))
    assert [w.shape for w in conv.weights] == [(3, 3, 32, 4), (4,), (4,), (16, 16), (18, 18)]


def test_converts_to_mean_difference_and_binary_convolution():
    model = conv_model()
    content, report = convert(model)
    assert report.bitpacked == report.binary == 1
    result = verify(model, content, images())
    assert result.ok, result.differences
    assert [operator.name for operator in Flatbuffer(content).operators] == [
        "MEAN",
        "SUB",
        "LceQuantize",
        "LceBconv2d",
        "MAX_POOL_2D",
    ]


@pytest.mark.parametrize("crop", [(1,), (-1, 0), (0.5, 0)])
def test_bad_crop(crop):
    with pytest.raises(ValueError, match="two integers >= 0 as crop"):
        StandardizedSign(crop=crop)


def test_one_rotated_sign_for_two_kernels_is_refused():
    quantizer = RotatedSign(name="q")
    quantizer(tf.ones((3, 3, 4, 5)))
    with pytest.raises(ValueError, match=r"'q' has rotations for a kernel of shape \(3, 3, 4, 5\).*of its own"):
        quantizer(tf.ones((3, 3, 4, 6)))
