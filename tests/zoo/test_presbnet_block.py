"""Blocks, stems and head of PresB-Net against float64 numpy forwards written from their formulas."""

import numpy as np
import pytest
from forward import (
    Float64,
    assert_close,
    average_pool,
    batch_norm,
    conv,
    halves,
    max_pool,
    rprelu,
    shuffle,
    sign,
    tile,
    weights,
)

from larq_rep.reptran import reptran
from larq_rep.zoo.presbnet import PresBNet10

# The forms that the authors' forwards lack; test_import.py compares all others with those.
pytestmark = pytest.mark.slow

# Not square: rows and columns must not be mixed up.
IMAGE = (64, 32, 3)
DEFAULTS = {"act1": "biased_prelu", "norm1": "layer", "act2": "biased_prelu", "norm2": "batch"}
# The rows of the paper's Table 5.
ABLATIONS = [
    {"act1": "prelu", "act2": "prelu"},
    {"act2": "prelu"},
    {"norm1": None},
    {"norm2": None},
    {"act1": "rprelu", "act2": "rprelu"},
    {"act1": "relu", "act2": "relu"},
]


def prelu(u, slope):
    return np.where(u > 0, u, slope.reshape(-1) * u)


def activation(model, layer, x, kind):
    if kind == "relu":
        return np.maximum(x, 0)
    if kind == "rprelu":
        return rprelu(model, layer, x)
    w = weights(model, layer)
    assert set(w) == {"alpha"} | ({"bias"} if kind == "biased_prelu" else set())
    return prelu(x + w.get("bias", 0), w["alpha"])


def group_norm(model, layer, x):
    """Each half of the channels of each sample, over rows, columns and its channels."""
    w = weights(model, layer)
    normed = [
        (t - t.mean((1, 2, 3), keepdims=True)) / np.sqrt(t.var((1, 2, 3), keepdims=True) + 1e-5) for t in halves(x)
    ]
    return np.concatenate(normed, axis=-1) * w["gamma"] + w["beta"]


def binary_conv(model, layer, x, stride, beta):
    """The signs of the kernel, then the mean magnitude of each filter, then the tile of RepConv."""
    kernel = weights(model, layer)["kernel"]
    return tile(conv(x, sign(kernel), stride) * np.abs(kernel).mean(axis=(0, 1, 2)), beta**2)


def unit(model, name, number, x, stride, beta, act1, norm1, act2, norm2):
    """Steps 3 to 5, or 10 to 12, of the block."""
    group = f"{name}_{'Grouped3x3' if number == 1 else 'Grouped1x1'}"
    out = []
    for i, t in enumerate(halves(x)):
        layer = f"{group}_conv_list_{i}"
        out.append(binary_conv(model, layer, sign(t + weights(model, layer)["bias"]), stride, beta))
    a = activation(model, f"{group}_active", np.concatenate(out, axis=-1), act1)
    if norm1 == "layer":
        a = group_norm(model, f"{group}_bn", a)
    a = activation(model, f"{name}_prelu{2 * number - 1}", a, act2)
    return batch_norm(model, f"{name}_bn{2 * number - 1}", a) if norm2 == "batch" else a


def block(model, name, x, stride, beta=1, **options):
    options = DEFAULTS | options
    shortcut = x
    x = shuffle(x)
    u, v = (average_pool(x),) * 2 if stride == 2 else halves(x)
    u = u + unit(model, name, 1, x, stride, beta, **options)
    y = shuffle(rprelu(model, f"{name}_rprelu2", np.concatenate([u, v], axis=-1)))
    u, v = halves(y)
    u = u + unit(model, name, 2, y, 1, beta, **options)
    z = rprelu(model, f"{name}_rprelu4", np.concatenate([u, v], axis=-1))
    if stride == 2:
        shortcut = binary_conv(model, f"{name}_res_layer_1", average_pool(shortcut), 1, beta)
        shortcut = batch_norm(model, f"{name}_res_layer_2", shortcut)
    return batch_norm(model, f"{name}_bn_bottom", z + shortcut)


def rep_presbnet10(input_shape):
    return reptran(PresBNet10(dataset="cifar10", input_shape=input_shape), 2)


NETWORKS = {
    "rep10": (rep_presbnet10, 2, "conv1_repeat", ["layer1_0", "layer2_0", "layer3_0", "layer4_0"]),
}
INNER = ["layer1_0_shuffle1", "layer2_0_Grouped3x3_active", "layer2_0_Grouped3x3_bn", "layer2_0_shuffle2"]


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    constructor, beta, entry, blocks = NETWORKS[request.param]
    head = ["fc"] if blocks[-1] == "layer4_0" else []
    net = Float64(constructor, [entry, *INNER, *(f"{name}_bn_bottom" for name in blocks), *head], IMAGE)
    net.beta, net.entry, net.blocks, net.head = beta, entry, blocks, head
    return net


def test_stem(network):
    u = conv(network.image, weights(network.model, "conv1")["kernel"])
    expected = tile(batch_norm(network.model, "bn1", u), network.beta)
    assert expected.shape == (2, 64, 32, 128 * network.beta)
    assert_close(network.after[network.entry], expected)


def test_layers_of_a_block(network):
    before, after, model = network.before, network.after, network.model
    for name in ("layer1_0_shuffle1", "layer2_0_shuffle2"):
        assert_close(after[name], shuffle(before[name]))
    name = "layer2_0_Grouped3x3_active"
    assert_close(after[name], activation(model, name, before[name], "biased_prelu"))
    name = "layer2_0_Grouped3x3_bn"
    assert_close(after[name], group_norm(model, name, before[name]))


def test_block_of_equal_channels(network):
    x = network.after[network.entry]
    assert_close(network.after["layer1_0_bn_bottom"], block(network.model, "layer1_0", x, 1, network.beta))


def test_other_blocks(network):
    for previous, name in zip(network.blocks, network.blocks[1:], strict=False):
        x = network.after[f"{previous}_bn_bottom"]
        expected = block(network.model, name, x, 2 if name.endswith("_0") else 1, network.beta)
        assert_close(network.after[f"{name}_bn_bottom"], expected)


def test_head(network):
    if network.head:
        w = weights(network.model, "fc")
        features = network.after["layer4_0_bn_bottom"].mean(axis=(1, 2))
        assert features.shape == (2, 1024 * network.beta)
        assert_close(network.after["fc"], features @ w["kernel"] + w["bias"])


def test_each_kernel_sees_half_of_the_channels(network):
    """Repeated channels, too, in a Rep network; only the shortcut's kernel sees all."""
    beta = network.beta
    for name, size, inputs, filters in (
        ("layer1_0_Grouped3x3_conv_list_0", 3, 64, 32),
        ("layer2_0_Grouped1x1_conv_list_1", 3, 128, 64),
        ("layer2_0_res_layer_1", 1, 128, 256),
    ):
        assert network.model.get_layer(name).kernel.shape == (size, size, beta * inputs, filters // beta)


def test_stem_activation():
    net = Float64(PresBNet10, ["bn1"], IMAGE, stem_activation="leaky_relu")
    u = conv(net.image, weights(net.model, "conv1")["kernel"])
    # TensorFlow keeps this slope in 32 bits.
    u = np.where(u > 0, u, np.float64(np.float32(0.01)) * u)
    assert_close(net.after["bn1"], batch_norm(net.model, "bn1", u))


def test_imagenet():
    net = Float64(PresBNet10, ["maxpool", "layer1_0_bn_bottom"], IMAGE, dataset="imagenet")
    u = conv(net.image, weights(net.model, "conv1")["kernel"], 2)
    expected = max_pool(batch_norm(net.model, "bn1", u))
    assert expected.shape == (2, 16, 8, 128)
    assert_close(net.after["maxpool"], expected)
    assert_close(net.after["layer1_0_bn_bottom"], block(net.model, "layer1_0", expected, 1))


@pytest.mark.parametrize("options", ABLATIONS, ids=str)
def test_ablations(options):
    """With the stem for ImageNet, whose feature maps are smaller."""
    blocks = ["layer1_0_bn_bottom", "layer2_0_bn_bottom"]
    net = Float64(PresBNet10, ["maxpool", *blocks], IMAGE, dataset="imagenet", **options)
    for name, tap, stride in (("layer1_0", "maxpool", 1), ("layer2_0", "layer1_0_bn_bottom", 2)):
        assert_close(net.after[f"{name}_bn_bottom"], block(net.model, name, net.after[tap], stride, **options))


def test_signs_of_zero_are_positive():
    net = Float64(PresBNet10, [], (32, 32, 3))
    layer = net.model.get_layer("layer1_0_Grouped3x3_conv_list_0")
    kernel = layer.kernel.numpy()
    kernel[:, :, ::3] = 0
    layer.kernel.assign(kernel)
    bias = weights(net.model, layer.name)["bias"]
    x = np.tile(-bias, (1, 8, 8, 1))
    expected = conv(np.ones_like(x), np.where(kernel < 0, -1, 1)) * np.abs(kernel).mean(axis=(0, 1, 2))
    assert_close(layer(x).numpy(), expected)
