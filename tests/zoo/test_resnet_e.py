import larq_rep.zoo as zoo  # before TensorFlow

# isort: split
import numpy as np
import pytest
import tensorflow as tf
from support import built, first_quick

from larq_rep.cost import count
from larq_rep.zoo.bmxnet import binary_conv, real_conv
from larq_rep.zoo.resnet_e import _block

BINARY = {"downsampling": "binary"}
CIFAR10 = {"dataset": "cifar10"}
V2 = {"version": 2}
# The authors count the scales of the normalisation of the image, which they keep at 1.
FIXED = 3

# Parameters of version 1 (less those of version 2), binary ones; MiB; real MACs + binary ones / 64 in millions.
REAL = {"params": 11689646, "binary": 10985472, "ops": 163.5}
BIN = {"params": 11689646, "binary": 11157504, "ops": 144.5}
REAL_CIFAR = {"params": 11173968, "binary": 10985472, "ops": 16.6}
BIN_CIFAR = {"params": 11173968, "binary": 11157504, "ops": 10.4}
# Batch normalisations: 64 + four of each stage's channels + three shortcuts, against those of the inputs and 512.
LESS = 2 * ((64 + 4 * 960 + 896) - (4 * 64 + 64 + 3 * 128 + 128 + 3 * 256 + 256 + 3 * 512 + 512))

PUBLISHED = [
    ("ResNetE18", {}, {**REAL, "size": 3.996}),
    ("ResNetE18", BINARY, {**BIN, "size": 3.360}),
    ("ResNetE18", CIFAR10, {**REAL_CIFAR, "size": 2.029}),
    ("ResNetE18", {**V2, **BINARY}, {**BIN, "params": 11689646 - LESS, "size": 3.353}),
    ("ResNetE18", {**V2, **CIFAR10, "scaling": True}, {**REAL_CIFAR, "params": 11173968 - LESS, "size": 2.022}),
    ("ResNetE18", {"clip_value": 1.25}, {**REAL, "size": 3.996}),
    ("ResNetE18", {"scaling": True}, {**REAL, "size": 3.996}),
    ("ResNetE18", {**BINARY, "scaling": True}, {**BIN, "size": 3.360}),
    ("ResNetE18", {**CIFAR10, **BINARY}, {**BIN_CIFAR, "size": 1.393}),
    ("ResNetE18", V2, {**REAL, "params": 11689646 - LESS, "size": 3.989}),
    ("ResNetE18", {**V2, **CIFAR10}, {**REAL_CIFAR, "params": 11173968 - LESS, "size": 2.022}),
    ("ResNetE18", {**V2, **CIFAR10, **BINARY}, {**BIN_CIFAR, "params": 11173968 - LESS, "size": 1.386}),
    ("ResNetE34", {}, {"ops": 192.4, "size": 5.228}),
]


@pytest.mark.parametrize("name, arguments, expected", first_quick(PUBLISHED, 5), ids=str)
def test_counts(name, arguments, expected):
    cost = count(built(name, **arguments))
    found = {
        "params": cost.trainable_params + FIXED,
        "binary": cost.binary_params,
        "size": round((cost.trainable_bits + 32 * FIXED) / 8 / 2**20, 3),
        "ops": round((cost.conv_flops + cost.bops / 64) / 1e6, 1),
    }
    assert {key: found[key] for key in expected} == expected
    assert not cost.uncounted


def test_operations_that_real_downsampling_makes_real():
    """1.06 % of them: 19.27 M of 1813.6 M."""
    real, binary = (count(built("ResNetE18", downsampling=kind)) for kind in ("real", "binary"))
    assert round((real.conv_flops - binary.conv_flops) / 1e6, 2) == 19.27
    assert round((real.conv_flops + real.bops) / 1e6, 1) == 1813.6
    assert binary.conv_flops + binary.bops == real.conv_flops + real.bops


def popcounts(x, w, strides):
    """Of a map padded with -1; TensorFlow pads a map of even size for stride 2 behind only."""
    reach = w.shape[0] - 1
    x = np.pad(x, [(0, reach), (0, reach), (0, 0)], constant_values=-1)
    size = (x.shape[0] - reach) // strides
    windows = [[x[i * strides :, j * strides :][: reach + 1, : reach + 1] for j in range(size)] for i in range(size)]
    return ((np.array(windows) >= 0)[..., None] == (w >= 0)).sum((2, 3, 4))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("downsampling", ["real", "binary"])
def test_strided_block_computes_the_formula(version, downsampling):
    """Also that in version 2 the popcounts stay in the sum, and the shortcut takes what is normalised."""
    conv = binary_conv("net", "bmxnet", 1.0)
    image = tf.keras.Input((4, 4, 5))
    model = tf.keras.Model(image, _block(image, 8, version, conv, conv if downsampling == "binary" else real_conv, "b"))
    rng = np.random.default_rng(0)
    x, w, w_down = (rng.normal(size=shape).astype("float32") for shape in ((4, 4, 5), (3, 3, 5, 8), (1, 1, 5, 8)))
    model.get_layer("b_conv").set_weights([w])
    model.get_layer("b_down_conv").set_weights([w_down])
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            assert layer.epsilon == 1e-5
            layer.set_weights([np.full(v.shape, value) for v, value in zip(layer.weights, (2, 0.5, 1, 3), strict=True)])

    def norm(x):
        return 2 * (x - 1) / np.sqrt(3 + 1e-5) + 0.5

    source = norm(x) if version == 2 else x
    pooled = source.reshape(2, 2, 2, 2, -1).mean((1, 3))
    shortcut = pooled @ w_down[0, 0] if downsampling == "real" else popcounts(pooled, w_down, 1)
    y = popcounts(source, w, 2)
    expected = y + shortcut if version == 2 else norm(y) + norm(shortcut)
    np.testing.assert_allclose(model(x[None])[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("version", [1, 2])
def test_other_blocks_add_what_they_got(version):
    image = tf.keras.Input((4, 4, 8))
    model = tf.keras.Model(image, _block(image, 8, version, binary_conv("net", "zero", 1.0), None, "b"))
    x = np.random.default_rng(0).normal(size=(1, 4, 4, 8)).astype("float32")
    branch = tf.keras.Model(image, model.get_layer("b_conv" if version == 2 else "b_bn").output)
    np.testing.assert_allclose(model(x), branch(x) + x, rtol=1e-5, atol=1e-5)


def test_normalisation_of_the_image():
    norm = built("ResNetE18", **CIFAR10).get_layer("image_bn")
    assert [weight.name for weight in norm.trainable_weights] == ["image_bn/beta:0"]
    assert norm.epsilon == 2e-5


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"version": 3}, "ResNetE18: version must be one of 1, 2, found 3"),
        ({"downsampling": True}, "ResNetE18: downsampling must be one of 'real', 'binary', found True"),
        ({"dataset": "cifar100"}, "ResNetE18: dataset must be one of 'imagenet', 'cifar10'"),
        ({"padding": -1}, "ResNetE18: padding must be one of 'zero', 'bmxnet', found -1"),
    ],
    ids=str,
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        zoo.get_model("ResNetE18", **arguments)
