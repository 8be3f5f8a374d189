"""The networks with real activations: counts, shapes, and float64 numpy forwards of their formulas."""

import larq_rep.zoo as zoo  # before TensorFlow

# isort: split
import numpy as np
import pytest
import tensorflow as tf
from forward import Calibrated, assert_close, batch_norm, conv, max_pool, sign, weights
from support import built, first_quick, others_slow

from larq_rep.cost import count
from larq_rep.quantizers import DoReFaSign, PowerOfTwo, Uniform
from larq_rep.training import schedules_for, transfer, with_real_weights
from larq_rep.training.schedules import INQSchedule
from larq_rep.zoo.dorefa import resnet18
from larq_rep.zoo.methods import Method

# Sixteen 3x3 convolutions and three shortcuts, the first convolution, the classifier; the normalisations and the bias.
QUANTIZED, STEM, DENSE, REST = 11157504, 9408, 512000, 9600 + 1000
ALL = QUANTIZED + STEM + DENSE + REST
WIDE = 25104384
FLOPS, WIDE_FLOPS = 1814073344, 3814981632 + 177020928 + 768000


def bits(quantized, each, total):
    return {"trainable_params": total, "trainable_bits": each * quantized + 32 * (total - quantized), "bops": 0}


PUBLISHED = [
    ("BWNResNet18", {}, {"binary_params": QUANTIZED, "ops": FLOPS, **bits(QUANTIZED, 1, ALL)}),
    ("BinaryConnectVGG", {}, {"binary_params": 14022016, "ops": 616966144, **bits(14022016, 1, 14022016 + 7700)}),
    ("TTQResNet18", {}, {"ops": WIDE_FLOPS, **bits(WIDE, 2, 25901896), "trainable_params": 25901896 + 2 * 19}),
    ("TWNResNet18", {}, {"ops": FLOPS, **bits(QUANTIZED, 2, ALL)}),
    ("TWNResNet18", {"width": 96}, {"ops": WIDE_FLOPS, **bits(WIDE, 2, 25901896)}),
    ("INQResNet18", {"bits": 2}, {"ops": FLOPS, **bits(QUANTIZED + STEM + DENSE, 2, ALL)}),
    ("INQResNet18", {"bits": 5}, {"ops": FLOPS, **bits(QUANTIZED + STEM + DENSE, 5, ALL)}),
]
# Sixteen 3x3 convolutions and four shortcuts, each with the operations of two binary ones.
BITS = {
    "binary_params": 11161600,
    "bops": 2 * 1708392448,
    "flops": 118525952,
    "trainable_params": 11691880 + 16 * 9 + 4,
}
PUBLISHED.append(("SYQResNet18", {}, BITS))
PUBLISHED[2][2]["trainable_bits"] += 32 * 2 * 19


@pytest.mark.parametrize("name, arguments, expected", first_quick(PUBLISHED, 3), ids=str)
def test_published_counts(name, arguments, expected):
    cost = count(built(name, **arguments))
    assert {attribute: getattr(cost, attribute) for attribute in expected} == expected
    assert not cost.uncounted


def test_published_sizes():
    """In MiB, the trainable weights of quantized layers with 1 or 2 bits."""
    for name, expected in (("BWNResNet18", "3.360"), ("TTQResNet18", "9.028")):
        assert f"{count(built(name)).trainable_bits / 2**23:.3f}" == expected


def relu(x):
    return np.maximum(x, 0)


def bwn(w):
    return sign(w["kernel"]) * np.abs(w["kernel"]).mean(axis=(0, 1, 2))


def twn(w):
    magnitude = np.abs(w["kernel"])
    beyond = magnitude > 0.7 * magnitude.mean()
    return np.sign(w["kernel"]) * beyond * magnitude[beyond].sum() / (beyond.sum() + 1e-6)


def ttq(w):
    threshold = 0.05 * np.abs(w["kernel"]).max()
    return (w["kernel"] >= threshold) * w["positive"] - (w["kernel"] <= -threshold) * w["negative"]


def inq(w):
    """Of two bits, one power: its codes are 1 and -1, that of 0 is 2 or -2."""
    levels = np.array([0, -w["largest"], 0, w["largest"], 0])
    return np.where(w["codes"] == 0, w["kernel"], levels[w["codes"] + 2])


def real(w):
    return w["kernel"]


RESNETS = {"BWNResNet18": bwn, "INQResNet18": inq, "TTQResNet18": ttq, "TWNResNet18": twn}
# Not square: rows and columns must not be mixed up.
IMAGE = np.random.default_rng(0).standard_normal((2, 64, 32, 3))


@pytest.mark.parametrize("name", others_slow([*RESNETS], 2))
def test_resnet_is_that_of_the_formulas(name):
    quantized = RESNETS[name]
    ends = quantized if name == "INQResNet18" else real
    net = Calibrated(getattr(zoo, name), ["fc"], IMAGE, width=4, num_classes=10)

    def conv_norm(x, layer, norm, stride=1, kernel=quantized):
        return batch_norm(net.model, norm, conv(x, kernel(weights(net.model, layer)), stride))

    x = max_pool(relu(conv_norm(IMAGE, "conv1", "bn1", 2, ends)))
    for stage in (1, 2, 3, 4):
        for block in (f"layer{stage}_0", f"layer{stage}_1"):
            stride = 2 if stage > 1 and block.endswith("0") else 1
            y = relu(conv_norm(x, f"{block}_conv1", f"{block}_bn1", stride))
            y = conv_norm(y, f"{block}_conv2", f"{block}_bn2")
            if stride == 2:
                x = conv_norm(x, f"{block}_downsample_0", f"{block}_downsample_1", 2)
            x = relu(x + y)
    assert x.shape == (2, 2, 1, 32)
    w = weights(net.model, "fc")
    assert_close(net.after["fc"], x.mean(axis=(1, 2)) @ ends(w) + w["bias"])


def test_binary_connect_is_that_of_the_formulas():
    image = IMAGE[:, :16, :8]
    net = Calibrated(zoo.BinaryConnectVGG, ["bn9"], image, width=4)

    def norm(x, number):
        w = weights(net.model, f"bn{number}")
        return (x - w["moving_mean"]) / np.sqrt(w["moving_variance"] + 1e-4) * w["gamma"] + w["beta"]

    x = image
    for number, filters in enumerate((4, 4, 8, 8, 16, 16), start=1):
        x = conv(x, sign(weights(net.model, f"conv{number}")["kernel"]))
        assert x.shape[-1] == filters
        if number in (2, 4, 6):
            x = x.reshape(2, x.shape[1] // 2, 2, x.shape[2] // 2, 2, filters).max(axis=(2, 4))
        x = relu(norm(x, number))
    assert x.shape == (2, 2, 1, 16)
    x = x.reshape(2, -1)
    for number in (1, 2, 3):
        x = norm(x @ sign(weights(net.model, f"fc{number}")["kernel"]), 6 + number)
        x = relu(x) if number < 3 else x
    assert_close(net.after["bn9"], x)


def test_latent_weights_of_binary_connect():
    """Their range is that of uniform initial values whose variance is 1 / (2 (fan in + fan out))."""
    model = built("BinaryConnectVGG")
    for name, fans in (("conv4", 9 * (256 + 256)), ("fc2", 1024 + 1024), ("fc3", 1024 + 10)):
        layer = model.get_layer(name)
        kernel = layer.kernel.numpy()
        assert kernel.std() == pytest.approx(np.sqrt(1 / (2 * fans)), rel=0.02)
        assert layer.kernel_constraint.clip_value == pytest.approx(np.sqrt(3) * np.sqrt(1 / (2 * fans)))
        assert np.abs(layer.kernel_constraint(tf.constant([-1.0, 1]))).max() >= np.abs(kernel).max()


def test_inq_begins_with_a_real_network():
    """It computes the same, and has a schedule that quantizes all convolutions and the classifier."""
    arguments = {"width": 4, "input_shape": (32, 32, 3), "num_classes": 10}
    network = zoo.get_network("INQResNet18")
    assert network.first_phase({}) == "real weights"
    target = zoo.INQResNet18(**arguments)
    real = with_real_weights(zoo.INQResNet18(**arguments), left_behind=network.left_behind)
    assert {w.name for w in real.weights} < {w.name for w in target.weights}
    transfer(real, target, network.left_behind)
    image = IMAGE[:, :32].astype("float32")
    np.testing.assert_array_equal(target(image), real(image))
    assert [type(schedule) for schedule in schedules_for(target)] == [INQSchedule]
    assert sum(isinstance(module, PowerOfTwo) for module in target.submodules) == 16 + 3 + 2


@pytest.mark.slow
def test_syq_with_equal_scales_is_dorefas():
    """With two bits, and the mean magnitudes of the kernels as scales of all positions."""
    image = tf.keras.Input((64, 32, 3))
    method = Method(kernel_quantizer=DoReFaSign)
    expected = tf.keras.Model(image, resnet18(image, 10, lambda name: Uniform(2, name=name), method))
    model = zoo.SYQResNet18(input_tensor=image, num_classes=10)
    scaled = 0
    for layer in model.layers:
        quantizer = getattr(layer, "kernel_quantizer", None)
        old = expected.get_layer(layer.name).get_weights() if layer.weights else []
        if quantizer is None:
            layer.set_weights(old)
        else:
            layer.set_weights([*old, np.full(quantizer.scale.shape, np.abs(old[0]).mean())])
            scaled += 1
    assert scaled == 16 + 4
    x = IMAGE.astype("float32")
    np.testing.assert_allclose(model(x), expected(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [*RESNETS, "BinaryConnectVGG"])
@pytest.mark.parametrize("width", [0, 1.5])
def test_width_must_be_a_positive_integer(name, width):
    with pytest.raises(ValueError, match=f"{name}: width must be a positive number of channels, found {width}"):
        zoo.get_model(name, width=width)


def test_bits_must_be_2_to_5():
    with pytest.raises(ValueError, match="needs 2 to 5 bits, but got bits=6"):
        zoo.INQResNet18(bits=6)
