"""Binary weights that stay float are lines of the report, with their size and the way out; real ones are not."""

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from support import randomize

from larq_rep.converters import convert, describe

keras, quant = tf.keras.layers, lq.layers
SIGNS = {"kernel_quantizer": "ste_sign", "use_bias": False}
BOTH = {"input_quantizer": "ste_sign", **SIGNS}


class ScaledInput(quant.QuantConv2D):
    """XNOR-Net's convolution: signs times a scale for each pixel."""

    def call(self, x):
        return super().call(lq.math.sign(x) * tf.reduce_mean(tf.abs(x), axis=-1, keepdims=True))


class Product(keras.Layer):
    """A layer of the user's own, with weights of -s and +s in an operation of TensorFlow."""

    def __init__(self, operation, **kwargs):
        super().__init__(**kwargs)
        self.operation = operation

    def build(self, shape):
        self.weight = self.add_weight(shape=(shape[-1], 12), name="weight")

    def call(self, x):
        scale = tf.reduce_mean(tf.abs(self.weight), axis=0)
        return self.operation(x, tf.where(self.weight >= 0, scale, -scale))


# layer, shape of its input, weights of two values, words of the way out
BINARY = {
    "BinaryConnect": (lambda: quant.QuantConv2D(16, 3, **SIGNS), (6, 6, 32), 4608, "input_quantizer='ste_sign'"),
    "BWN": (
        lambda: quant.QuantConv2D(16, 3, kernel_quantizer="magnitude_aware_sign"),
        (6, 6, 32),
        4608,
        "input_quantizer='ste_sign'",
    ),
    "XNOR-Net": (lambda: ScaledInput(16, 3, **SIGNS), (6, 6, 32), 4608, "behind the convolution"),
    "dense": (lambda: quant.QuantDense(16, **SIGNS), (32,), 512, "input_quantizer='ste_sign'"),
    "dense on a sequence": (lambda: quant.QuantDense(16, **SIGNS), (5, 32), 512, "input_quantizer='ste_sign'"),
    "1-D": (lambda: quant.QuantConv1D(16, 3, **SIGNS), (8, 32), 1536, "input_quantizer='ste_sign'"),
    "3-D": (lambda: quant.QuantConv3D(8, 3, **SIGNS), (4, 4, 4, 8), 1728, "write it as QuantConv2D"),
    "3-D transposed": (
        lambda: quant.QuantConv3DTranspose(8, 3, **SIGNS),
        (4, 4, 4, 8),
        1728,
        "write it as QuantConv2D",
    ),
    "depthwise": (
        lambda: quant.QuantDepthwiseConv2D(3, depthwise_quantizer="ste_sign"),
        (6, 6, 32),
        288,
        "groups",
    ),
    "separable, depthwise": (
        lambda: quant.QuantSeparableConv2D(16, 3, depthwise_quantizer="ste_sign"),
        (6, 6, 32),
        288,
        "groups",
    ),
    "separable, pointwise": (
        lambda: quant.QuantSeparableConv2D(16, 3, pointwise_quantizer="ste_sign"),
        (6, 6, 32),
        512,
        "input_quantizer='ste_sign'",
    ),
    "transposed": (
        lambda: quant.QuantConv2DTranspose(16, 3, **SIGNS),
        (6, 6, 32),
        4608,
        "input_quantizer='ste_sign'",
    ),
    "locally connected": (lambda: quant.QuantLocallyConnected2D(8, 3, **SIGNS), (5, 5, 8), 5184, "QuantConv2D"),
    "locally connected, both binary": (
        lambda: quant.QuantLocallyConnected2D(8, 3, **BOTH),
        (5, 5, 8),
        5184,
        "QuantConv2D",
    ),
    "locally connected, one product": (
        lambda: quant.QuantLocallyConnected2D(4, 3, padding="same", implementation=2, **BOTH),
        (4, 4, 4),
        (4 * 4 * 4) ** 2,  # with zeros where nothing is connected
        "QuantConv2D",
    ),
    "locally connected, 1-D": (lambda: quant.QuantLocallyConnected1D(8, 3, **BOTH), (9, 8), 1344, "QuantConv2D"),
    "matmul": (lambda: Product(tf.matmul), (32,), 384, "its input is real"),
    "matmul, transposed": (
        lambda: Product(lambda x, w: tf.matmul(x, tf.transpose(w), transpose_b=True)),
        (32,),
        384,
        "its input is real",
    ),
    "matmul on a sequence": (lambda: Product(tf.matmul), (5, 32), 384, "its input is real"),
    "einsum": (lambda: Product(lambda x, w: tf.einsum("bij,jk->bik", x, w)), (5, 32), 384, "its input is real"),
    "conv2d": (lambda: Product(lambda x, w: tf.nn.conv2d(x, w[None, None], 1, "SAME")), (4, 4, 32), 384, "real"),
}


def converted(layer, shape, **options):
    i = tf.keras.Input(shape)
    layer._name = "layer"
    model = randomize(tf.keras.Model(i, layer(i)))
    return convert(model, **options)


PRODUCTS = {
    "others at each place": (tf.matmul, (4, 5, 8), (4, 8, 12), "write it as QuantConv2D, QuantConv1D or QuantDense"),
    "others for each row": (
        lambda x, w: tf.einsum("bhwc,hcd->bhwd", x, w),
        (4, 5, 8),
        (4, 8, 12),
        "write it as QuantConv2D, QuantConv1D or QuantDense",
    ),
    "over rows": (lambda x, w: tf.einsum("bij,ik->bkj", x, w), (32, 5), (32, 12), "transpose it in front of the sign"),
    "matmul over rows": (
        lambda x, w: tf.matmul(x, w, transpose_a=True),
        (32, 5),
        (32, 12),
        "transpose it in front of the sign",
    ),
    "scales of inputs": (
        lambda x, w: tf.einsum("bij,jk->bik", x, w * np.linspace(1, 2, 32, dtype="f")[:, None]),
        (5, 32),
        (32, 12),
        "none for input channels",
    ),
}


@pytest.mark.parametrize("product, shape, of_weights, remedy", PRODUCTS.values(), ids=PRODUCTS)
def test_products_of_signs_that_stay_float(product, shape, of_weights, remedy):
    weights = np.random.default_rng(0).choice([-1.0, 1.0], of_weights).astype("f")
    _, report = converted(keras.Lambda(lambda x: product(lq.math.sign(x), weights)), shape)
    (finding,) = report.findings
    assert (finding.rule, finding.where) == ("binary-weight-float", "layer") and remedy in finding.message
    assert report.unpacked_weights == weights.size


# Seven dense layers, each of them too small to be worth it.
SMALL = ["locally connected, 1-D"]


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("exact", [True, False])
def test_binary_weights(name, exact):
    make, shape, weights, remedy = BINARY[name]
    content, report = converted(make(), shape, exact_int8=exact)
    dtype, size = ("int8", 1) if exact and name not in SMALL else ("float32", 4)
    (finding,) = report.findings
    assert (finding.rule, finding.where, finding.error) == ("binary-weight-float", "layer", False)
    assert f"its {weights:,} weights take {size * weights:,} bytes in the file, as {dtype}" in finding.message
    assert f"{-(-weights // 8):,} bytes as bits" in finding.message and remedy in finding.message
    assert ("exact_int8=True" in finding.message) == (not exact and name not in SMALL)
    assert (report.unpacked_weights, report.unpacked_bytes) == (weights, size * weights)
    assert report.to_dict()["unpacked_bytes"] == size * weights
    assert describe(content).constants[dtype] >= size * weights  # they really are in the file


@pytest.mark.parametrize("storage, size", [("float16", 2), ("int8", 1)])
def test_size_in_smaller_storage(storage, size):
    layer = quant.QuantConv2D(16, 3, **SIGNS)
    content, report = converted(layer, (6, 6, 32), float_weights=storage, exact_int8=False)
    assert report.unpacked_bytes == 4608 * size == describe(content).constants[storage]
    assert f"{4608 * size:,} bytes in the file, as {storage}" in report.findings[0].message
    assert "smaller" not in report.findings[0].message


def test_layers_of_one_size_and_two_storages():
    """Signs with noise in their last bits, as straight-through spellings make, are not exact."""

    def noisy(w):
        return tf.where(w >= 0, 0.1, -0.1) * (1 + 1e-6 * w)

    i = tf.keras.Input((6, 6, 16))
    x = quant.QuantConv2D(16, 3, kernel_quantizer=noisy, use_bias=False, name="noisy")(i)
    x = quant.QuantConv2D(16, 3, **SIGNS, name="exact")(tf.keras.layers.ReLU()(x))
    content, report = convert(randomize(tf.keras.Model(i, x)))
    noise, signs = report.findings
    assert (noise.where, signs.where) == ("noisy", "exact")
    assert "take 9,216 bytes in the file, as float32" in noise.message and "float_weights='int8'" in noise.message
    assert "take 2,304 bytes in the file, as int8" in signs.message and "smaller" not in signs.message
    assert describe(content).constants["int8"] == 2304
    assert (report.unpacked_bytes, report.exact) == (9216 + 2304, 1)


def test_binary_layers_that_are_reported_otherwise_count():
    _, report = converted(quant.QuantConv3D(8, 3, **BOTH), (4, 4, 4, 8), allow_float=True)
    assert [finding.rule for finding in report.findings] == ["silent-float"]
    assert (report.unpacked_weights, report.binary, report.bitpacked) == (1728, 1, 0)


def test_packed_weights_do_not():
    _, report = converted(quant.QuantConv2D(16, 3, **BOTH), (6, 6, 32))
    assert (report.unpacked_weights, report.unpacked_bytes, report.findings) == (0, 0, [])


@pytest.mark.parametrize(
    "make, shape",
    [
        (lambda: keras.Conv2D(16, 3), (6, 6, 3)),
        (lambda: keras.Dense(64), (2,)),
        (lambda: keras.Dense(1), (16,)),
        (lambda: keras.DepthwiseConv2D(3), (6, 6, 32)),
        (lambda: keras.LocallyConnected2D(8, 3), (5, 5, 8)),
        (lambda: quant.QuantConv2D(16, 3, kernel_quantizer=lq.quantizers.DoReFa(2, mode="weights")), (6, 6, 32)),
        # A filter that blurs has one value.
        (lambda: keras.Lambda(lambda x: tf.nn.conv2d(x, tf.fill((3, 3, 32, 4), 1 / 9), 1, "SAME")), (6, 6, 32)),
    ],
)
def test_real_weights_are_no_finding(make, shape):
    _, report = converted(make(), shape)
    assert (report.findings, report.unpacked_weights) == ([], 0)


def test_ternary_weights_are_told_from_binary_ones():
    ternary = quant.QuantConv2D(16, 3, kernel_quantizer=lq.quantizers.SteTern(threshold_value=0.3), use_bias=False)
    for exact, size in ((True, "4,608"), (False, "18,432")):
        _, report = converted(ternary, (6, 6, 32), exact_int8=exact)
        (finding,) = report.findings
        assert (finding.rule, finding.where, finding.error) == ("ternary-weight-float", "layer", False)
        assert "ternary, not binary" in finding.message and f"{size} bytes" in finding.message
        assert ("exact_int8=True" in finding.message) == (not exact)
        assert report.unpacked_weights == 0


@pytest.mark.parametrize("seed", range(3))
def test_random_real_weights_of_any_shape(seed):
    """No small real-valued layer is taken for a binary one by chance."""
    from larq_rep.converters.unpacked import is_signs, is_ternary

    rng = np.random.default_rng(seed)
    for _ in range(300):
        shape = rng.integers(1, 9, rng.integers(2, 6))
        weights = rng.normal(size=shape) * np.exp(rng.normal(size=shape[-1]))
        assert not is_signs(weights) and not is_ternary(weights)
        scale = np.exp(rng.normal(size=shape[-1]))
        signs = np.where(weights < 0, -scale, scale)
        assert is_signs(signs) == (weights.size >= 16 and len(np.unique(np.sign(signs))) == 2 and shape[:-1].prod() > 1)
