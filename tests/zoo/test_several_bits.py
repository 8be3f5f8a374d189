"""The networks of several bits, and SiBNN: published integers, and float64 numpy forwards of their formulas."""

import larq_rep.zoo as zoo  # before TensorFlow

# isort: split
import itertools

import numpy as np
import pytest
import tensorflow as tf
from forms import without_gradient
from forward import Calibrated, assert_close, average_pool, conv, max_pool, sign, weights
from support import built, first_quick, forget, images, others_slow, with_gradients

from larq_rep import reptran
from larq_rep.cost import count
from larq_rep.layers import ShiftedScale
from larq_rep.quantizers import TernaryInput

STEM, FC, SHORTCUTS = 118013952, 512000, 19267584
TERNARY = {"shortcut": "ternary"}

# BOPs are those of the bitpacked convolutions.
PUBLISHED = [
    (
        "DoReFaResNet18",
        {},
        {
            "trainable_params": 11691880,
            "binary_params": 11161600,
            "bops": 6833569792,
            "flops": STEM + FC,
            "ops": 225300480,
        },
        3.353,
    ),
    (
        "HWGQResNet18",
        {},
        {
            "trainable_params": 11685608,
            "binary_params": 11157504,
            "bops": 3391094784,
            "flops": STEM + FC,
            "ops": 171511808,
        },
        3.345,
    ),
    (
        "LQNetResNet18",
        {},
        {
            "trainable_params": 11693352,
            # The statistics, the scales of the filters, and the levels of 16 quantizers.
            "non_trainable_params": 13440 + 4736 + 16 * 2,
            "binary_params": 11157504,
            "bops": 3391094784,
            "flops": STEM + FC,
            "ops": 171511808,
        },
        3.374,
    ),
    (
        "SiBNNResNet18",
        {},
        {
            "trainable_params": 11703080,
            "binary_params": 10985472,
            "bops": 1676279808,
            # The 1x1 convolutions of the shortcuts are not on the pooled map.
            "flops": STEM + FC + 4 * SHORTCUTS,
            "ops": 221788160,
        },
        4.047,
    ),
    (
        "TBNResNet18",
        {},
        {
            "trainable_params": 11693416,
            "binary_params": 10985472,
            "bops": 3352559616,
            "flops": STEM + FC + SHORTCUTS,
            "ops": 190177280,
        },
        4.010,
    ),
    (
        "TBNResNet18",
        TERNARY,
        {
            "trainable_params": 11693416,
            "binary_params": 11157504,
            "bops": 3391094784,
            "flops": STEM + FC,
            "ops": 171511808,
        },
        3.374,
    ),
    (
        "TBNResNet34",
        {},
        {
            "trainable_params": 21805288,
            "binary_params": 21086208,
            "bops": 7051935744,
            "flops": STEM + FC + SHORTCUTS,
            "ops": 247980032,
        },
        5.257,
    ),
    (
        "TBNResNet34",
        TERNARY,
        {
            "trainable_params": 21805288,
            "binary_params": 21258240,
            "bops": 7090470912,
            "flops": STEM + FC,
            "ops": 229314560,
        },
        4.621,
    ),
    # 12288 channels are normalised.
    (
        "LQNetResNet34",
        {},
        {
            "trainable_params": 21258240 + 9408 + 513000 + 2 * 12288,
            "binary_params": 21258240,
            "bops": 7090470912,
            "ops": 229314560,
        },
        None,
    ),
]


@pytest.mark.parametrize("name, arguments, expected, size", first_quick(PUBLISHED, 5), ids=str)
def test_counts(name, arguments, expected, size):
    cost = count(built(name, **arguments))
    assert {key: getattr(cost, key) for key in expected} == expected
    assert size is None or round(cost.trainable_bits / 2**23, 3) == size
    assert not cost.uncounted
    if name == "LQNetResNet18":
        # With the levels, which no gradient changes, and without the statistics, it is 3.392 MiB.
        assert round((cost.bits - 32 * 13440) / 2**23, 3) == 3.392


# BinaryDenseNet, Figure 4: BOPs / 32 and the real operations of convolutions.
@pytest.mark.parametrize("name, operations", [("TBNResNet18", 242049024), ("DoReFaResNet18", 331563008)])
def test_operations_of_the_figure(name, operations):
    cost = count(built(name))
    assert cost.bops / 32 + cost.conv_flops == operations


def binary(net, layer):
    """A kernel of signs times the mean magnitude of each filter."""
    kernel = weights(net.model, layer)["kernel"]
    return np.abs(kernel).mean(axis=(0, 1, 2)) * sign(kernel)


def norm(net, layer, x):
    w = weights(net.model, layer)
    return (x - w["moving_mean"]) / np.sqrt(w["moving_variance"] + 1e-5) * w.get("gamma", 1) + w.get("beta", 0)


def relu(x):
    return np.maximum(x, 0)


def early_max_pool(x):
    """As Caffe's and PyTorch's with a padding of 1: windows begin at row -1."""
    return max_pool(x[:, ::-1, ::-1])[:, ::-1, ::-1]


def dense(net, x):
    w = weights(net.model, "fc")
    return x.mean(axis=(1, 2)) @ w["kernel"] + w["bias"]


def blocks(first=2):
    """Stage, number, name of each block."""
    return [
        (stage, number, f"layer{stage}_{number}") for stage, number in itertools.product((1, 2, 3, 4), range(first))
    ]


def biased(net, layer, x):
    w = weights(net.model, layer)
    return conv(x, w["kernel"], 2) + w["bias"]


def dorefa(net, x):
    def q(x):
        return np.rint(np.clip(x, 0, 1) * 15) / 15

    def quantized_conv(layer, x):
        kernel = weights(net.model, layer)["kernel"]
        return conv(x, np.abs(kernel).mean() * sign(kernel))

    # Padded by 3 in front and 2 behind: the mirror image of TensorFlow's "same".
    w = weights(net.model, "conv1")
    x = conv(x[:, ::-1, ::-1], w["kernel"][::-1, ::-1], 2)[:, ::-1, ::-1] + w["bias"]
    x = early_max_pool(x)
    for stage, number, name in blocks():
        if stage > 1 and number == 0:
            x = average_pool(x)
        quantized = q(norm(net, f"{name}_bn1", x))
        y = q(norm(net, f"{name}_bn2", quantized_conv(f"{name}_conv1", quantized)))
        y = quantized_conv(f"{name}_conv2", y)
        x = y + (quantized_conv(f"{name}_shortcut", quantized) if number == 0 else x)
    return dense(net, 49 * q(norm(net, "bn", x)))


def hwgq(net, x):
    def q(x):
        return 0.538 * ((x > 0) * 1.0 + (x > 0.807) + (x > 1.345))

    x = norm(net, "bn1", early_max_pool(biased(net, "conv1", x)))
    for stage, number, name in blocks():
        strides = 2 if stage > 1 and number == 0 else 1
        quantized = q(x if name == "layer1_0" else norm(net, f"{name}_bn0", x))
        y = q(norm(net, f"{name}_bn1", conv(quantized, binary(net, f"{name}_conv1"), strides)))
        y = norm(net, f"{name}_bn2", conv(y, binary(net, f"{name}_conv2")))
        if strides == 2:
            x = conv(quantized, binary(net, f"{name}_downsample_0"), 2)
            x = norm(net, f"{name}_downsample_1", x)
        x = y + x
    return dense(net, relu(x))


def lq_net(net, x):
    def q(layer, x):
        low, high = np.sort(net.model.get_layer(layer).get_weights()[0].reshape(-1))
        levels = np.array([0, low, high, low + high])
        return levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, x)]

    def kernel(layer):
        w = weights(net.model, layer)
        return w["alpha"] * sign(w["kernel"])

    x = relu(norm(net, "bn1", conv(x, weights(net.model, "conv1")["kernel"], 2)))
    x = max_pool(x)
    for stage, number, name in blocks():
        if number > 0:
            quantized = q(f"{name}_quantizer1", relu(norm(net, f"{name}_bn0", x)))
        else:
            quantized = q(f"{name}_quantizer1" if stage == 1 else f"layer{stage - 1}_quantizer", x)
        strides = 2 if stage > 1 and number == 0 else 1
        y = relu(norm(net, f"{name}_bn1", conv(quantized, kernel(f"{name}_conv1"), strides)))
        y = norm(net, f"{name}_bn2", conv(q(f"{name}_quantizer2", y), kernel(f"{name}_conv2")))
        if strides == 2:
            x = norm(net, f"{name}_shortcut_bn", quantized[:, ::2, ::2] @ kernel(f"{name}_shortcut")[0, 0])
        x = y + x
        if number == 1:
            x = relu(norm(net, f"layer{stage}_bn", x))
    return dense(net, x)


def tbn(net, x, shortcut="real"):
    def ternary_conv(layer, x, strides=1):
        w = weights(net.model, layer)
        assert w["threshold"] > 0
        ternary = (x >= w["threshold"]) * 1.0 - (x <= -w["threshold"])
        return conv(ternary, binary(net, layer), strides) + w["bias"]

    x = max_pool(biased(net, "conv1", x))
    for stage, number, name in blocks():
        strides = 2 if stage > 1 and number == 0 else 1
        y = ternary_conv(f"{name}_conv1", norm(net, f"{name}_bn1", x), strides)
        y = ternary_conv(f"{name}_conv2", norm(net, f"{name}_bn2", y))
        if strides == 2:
            x = norm(net, f"{name}_down_bn", average_pool(x))
            if shortcut == "ternary":
                x = ternary_conv(f"{name}_down_conv", x)
            else:
                w = weights(net.model, f"{name}_down_conv")
                x = relu(x) @ w["kernel"][0, 0] + w["bias"]
        x = y + x
    return dense(net, relu(norm(net, "bn", x)))


def sibnn(net, x):
    x = max_pool(norm(net, "bn1", conv(x, weights(net.model, "conv1")["kernel"], 2)))
    for stage, number, name in blocks(4):
        strides = 2 if stage > 1 and number == 0 else 1
        w = weights(net.model, f"{name}_shifted_scale")
        y = (norm(net, f"{name}_bn1", x) - w["shift"]) * w["scale"]
        y = norm(net, f"{name}_bn2", conv((y > 0) * 1.0, binary(net, f"{name}_conv"), strides))
        if strides == 2:
            x = x @ weights(net.model, f"{name}_down_conv")["kernel"][0, 0]
            x = average_pool(norm(net, f"{name}_down_bn", x))
        x = y + x
    return dense(net, relu(x))


FORWARDS = {
    "DoReFaResNet18": (dorefa, {}),
    "HWGQResNet18": (hwgq, {}),
    "LQNetResNet18": (lq_net, {}),
    "SiBNNResNet18": (sibnn, {}),
    "TBNResNet18": (tbn, {}),
    "TBNResNet18-ternary": (tbn, TERNARY),
}


@pytest.mark.parametrize("name", others_slow(list(FORWARDS), 5))
def test_logits(name):
    forward, arguments = FORWARDS[name]

    def constructor(**kwargs):
        model = zoo.get_model(name.split("-")[0], num_classes=10, **kwargs)
        for layer in model.layers:
            if isinstance(getattr(layer, "input_quantizer", None), TernaryInput):
                # The threshold becomes that of the batch.
                layer.input_quantizer.momentum = 1.0
        return model

    # Not square: rows and columns must not be mixed up.
    image = np.random.default_rng(0).standard_normal((2, 64, 32, 3))
    net = Calibrated(constructor, ["fc"], image, **arguments)
    assert_close(net.after["fc"], forward(net, image, **arguments))
    forget()


NAMES = ["DoReFaResNet18", "HWGQResNet18", "LQNetResNet18", "SiBNNResNet18", "TBNResNet18"]


@pytest.mark.parametrize("name", others_slow(NAMES, 1))
def test_without_classifier(name):
    model = zoo.get_model(name, input_shape=(64, 96, 3), include_top=False)
    assert model.output_shape == (None, 2, 3, 512)
    y = model(images(model)).numpy()
    assert (y >= 0).all() and y.any()
    if name == "DoReFaResNet18":
        np.testing.assert_allclose(y * 15, np.rint(y * 15), atol=1e-5)


@pytest.mark.parametrize("name", others_slow(list(FORWARDS), 1))
def test_rep_networks_train(name):
    model = zoo.get_model(name.split("-")[0], input_shape=(32, 64, 3), num_classes=10, **FORWARDS[name][1])
    rep = reptran(model)
    assert rep.output_shape == (None, 10)
    assert without_gradient(rep, images(rep, 4), 10) == []
    before, after = count(model), count(rep)
    assert (after.bops, after.binary_params) == (before.bops, before.binary_params) and after.bops > 0
    # Only the classifier has more operations.
    assert after.flops - before.flops == before.dense_flops == 5120
    np.testing.assert_allclose(reptran(model, 1)(images(model)), model(images(model)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["HWGQResNet18", "TBNResNet34"])
def test_sizes_that_are_no_multiples(name):
    with pytest.raises(ValueError, match=f"{name}: height and width of the input must be multiples of 32"):
        zoo.get_model(name, input_shape=(40, 32, 3))


def test_unknown_shortcut():
    with pytest.raises(ValueError, match="TBNResNet34: shortcut must be one of 'real', 'ternary', found 'binary'"):
        zoo.TBNResNet34(shortcut="binary")


def test_images_of_dorefa_and_hwgq_are_levels():
    white = np.full((1, 256, 256, 3), 255, np.uint8)
    np.testing.assert_allclose(zoo.preprocess_input("DoReFaResNet18", white), 255 / 256, rtol=1e-6)
    np.testing.assert_allclose(zoo.preprocess_input("HWGQResNet18", white)[0, 0, 0], [132, 138, 151], rtol=1e-5)


def test_shifted_scale_computes_the_formula():
    rng = np.random.default_rng(0)
    x, dy, shift, scale = (rng.normal(size=shape) for shape in ((2, 3, 4, 5), (2, 3, 4, 5), 5, 5))
    layer = ShiftedScale(dtype="float64")
    np.testing.assert_array_equal(layer(x), x)
    layer.set_weights([shift, scale])
    y, dx, (d_shift, d_scale) = with_gradients(layer, x, dy)
    np.testing.assert_allclose(y, (x - shift) * scale)
    np.testing.assert_allclose(dx, dy * scale)
    np.testing.assert_allclose(d_shift, -(dy * scale).sum((0, 1, 2)))
    np.testing.assert_allclose(d_scale, (dy * (x - shift)).sum((0, 1, 2)))


def test_shifted_scale_refuses_unknown_channels():
    with pytest.raises(ValueError, match=r"ShiftedScale 'it' has weights per channel.*is unknown"):
        ShiftedScale(name="it")(tf.keras.Input((4, 4, None)))
