"""Blocks, stem and head of Bi-Real-Net and of ReActNet-18 against float64 numpy forwards of their formulas."""

import numpy as np
import pytest
from forward import Float64, assert_close, batch_norm, conv, rprelu, rsign, sign, tile, weights

from larq_rep.zoo.bireal import BiRealNet18, BiRealNet50, ReActNet18, RepBiRealNet18, RepReActNet18

# `make test` compares whole networks with the authors' forwards instead (test_import.py).
pytestmark = pytest.mark.slow


def average_pool(x):
    return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4


def max_pool(x):
    """3 x 3 with stride 2. Not padded with zeros: without a ReLU before, those could be the maximum."""
    height, width = x.shape[1:3]
    x = np.pad(x, [(0, 0), (0, 1), (0, 1), (0, 0)], constant_values=-np.inf)
    return np.max([x[:, i : i + height - 1 : 2, j : j + width - 1 : 2] for i in range(3) for j in range(3)], axis=0)


def real_conv(model, layer, x, stride=1, beta=1):
    return tile(conv(x, weights(model, layer)["kernel"], stride), beta**2)


def binary_conv(model, layer, x, stride=1, beta=1):
    """The signs of the filters; the mean of |W| of each scales its output channel."""
    w = weights(model, layer)["kernel"]
    return tile(conv(x, sign(w), stride) * np.abs(w).mean(axis=(0, 1, 2)), beta**2)


def block(net, name, x, stride):
    """One convolution with the shortcut around it."""
    model = net.model
    signs = rsign(model, f"{name}_rsign", x) if net.react else sign(x)
    u = batch_norm(model, f"{name}_bn1", binary_conv(model, f"{name}_binary_conv", signs, stride, net.beta))
    if stride == 2:
        bypass = binary_conv if net.shortcut == "binary" else real_conv
        x = bypass(model, f"{name}_downsample_1", average_pool(x), beta=net.beta)
        x = batch_norm(model, f"{name}_downsample_2", x)
    return rprelu(model, f"{name}_rprelu", u + x) if net.react else u + x


def bottleneck(model, number, x1, x2):
    """BiRealNet50's block of three convolutions: the next x1 and x2."""

    def bn(i, u):
        return batch_norm(model, f"layers_{number}_bn{i}", u)

    def bconv(i, x, stride=1):
        return binary_conv(model, f"layers_{number}_conv{i}", sign(x), stride)

    strided = number in (3, 7, 13)
    pool = average_pool if strided else lambda x: x
    if number == 0:
        clipped = np.where(x2 < -1, 0.1 * x2 - 0.9, np.where(x2 > 1, 0.1 * x2 + 0.9, x2))
        o1 = bn(1, real_conv(model, "layers_0_conv1", clipped))
    elif strided:
        o1 = bn(1, bconv(1, x2)) + real_conv(model, f"layers_{number}_down_conv1x1", x1)
    else:
        o1 = bn(1, bconv(1, x2)) + x1
    o2 = bn(2, bconv(2, o1, 2 if strided else 1)) + pool(o1)
    shortcut = x2
    if strided or number == 0:
        shortcut = real_conv(model, f"layers_{number}_downsample_1", pool(x2))
        shortcut = batch_norm(model, f"layers_{number}_downsample_2", shortcut)
    return o2, bn(3, bconv(3, o2)) + shortcut


NETWORKS = {
    "bireal": (BiRealNet18, {}),
    "bireal-rep": (RepBiRealNet18, {"beta": 2}),
    "bireal-rep-before_bn": (RepBiRealNet18, {"beta": 2, "stem": "before_bn", "last_layer": 2}),
    "react": (ReActNet18, {}),
    "react-binary": (ReActNet18, {"shortcut": "binary"}),
    "react-cifar100": (ReActNet18, {"dataset": "cifar100"}),
    "react-cifar100-binary": (ReActNet18, {"dataset": "cifar100", "shortcut": "binary"}),
    "react-rep": (RepReActNet18, {"beta": 2}),
    "react-rep-cifar100-binary": (
        RepReActNet18,
        {"beta": 2, "dataset": "cifar100", "shortcut": "binary", "last_layer": 3},
    ),
}
# A block: its stride, and the layer that takes its output.
BLOCKS = {"layer1_0": (1, "layer1_1"), "layer2_0": (2, "layer2_1"), "layer4_3": (1, "pool")}


@pytest.fixture(scope="module", params=NETWORKS)
def net(request):
    constructor, kwargs = NETWORKS[request.param]
    react = constructor in (ReActNet18, RepReActNet18)
    entry = {name: f"{name}_rsign" if react else f"{name}_sign" for name in ("layer1_0", "layer1_1", "layer2_0")}
    entry |= {name: entry["layer1_0"].replace("layer1_0", name) for name in ("layer2_1", "layer4_3")} | {"pool": "pool"}
    # Not square: rows and columns must not be mixed up.
    net = Float64(constructor, [*entry.values(), "fc"], (64, 32, 3), **kwargs)
    net.entry, net.react = entry, react
    net.beta, net.shortcut = kwargs.get("beta", 1), kwargs.get("shortcut", "real")
    net.cifar, net.stem = "dataset" in kwargs, kwargs.get("stem", "after_bn")
    net.last_layer = kwargs.get("last_layer", 1)
    return net


def test_stem(net):
    u = real_conv(net.model, "conv1", net.image, 1 if net.cifar else 2)
    if net.stem == "before_bn":
        u = batch_norm(net.model, "bn1", tile(u, net.beta))
    else:
        u = tile(batch_norm(net.model, "bn1", u), net.beta)
    expected = u if net.cifar else max_pool(u)
    assert expected.shape == (2, *((64, 32) if net.cifar else (16, 8)), 64 * net.beta)
    assert_close(net.before[net.entry["layer1_0"]], expected)


@pytest.mark.parametrize("name", BLOCKS)
def test_block(net, name):
    stride, following = BLOCKS[name]
    expected = block(net, name, net.before[net.entry[name]], stride)
    assert_close(net.before[net.entry[following]], expected)


def test_head(net):
    features = net.before["pool"].mean(axis=(1, 2))
    # Solutions 1, 2 and 3 of RepBNN for the last layer: all channels, 1 / beta and 1 / beta**2 of them.
    features = features[:, : 512 * net.beta // net.beta ** (net.last_layer - 1)]
    w = weights(net.model, "fc")
    assert_close(net.after["fc"], features @ w["kernel"] + w["bias"])


@pytest.fixture(scope="module")
def bottlenecks():
    first = [f"layers_{k}_sign1" for k in (1, 2, 3, 4, 15)]
    third = [f"layers_{k}_sign3" for k in (0, 1, 2, 3, 14, 15)]
    return Float64(BiRealNet50, ["maxpool", *first, *third, "pool", "fc"], (64, 32, 3))


def test_bottleneck_stem(bottlenecks):
    u = batch_norm(bottlenecks.model, "bn1", real_conv(bottlenecks.model, "conv1", bottlenecks.image, 2))
    assert_close(bottlenecks.after["maxpool"], max_pool(u))


@pytest.mark.parametrize("number", [0, 1, 3, 15], ids=["first", "plain", "strided", "last"])
def test_bottleneck(bottlenecks, number):
    if number == 0:
        x1 = x2 = bottlenecks.after["maxpool"]
        # All three pieces of the clip are met.
        assert np.any(x2 < -1) and np.any(np.abs(x2) < 1) and np.any(x2 > 1)
    else:
        x1, x2 = bottlenecks.before[f"layers_{number - 1}_sign3"], bottlenecks.before[f"layers_{number}_sign1"]
    middle, main = bottleneck(bottlenecks.model, number, x1, x2)
    assert_close(bottlenecks.before[f"layers_{number}_sign3"], middle)
    assert_close(bottlenecks.before["pool" if number == 15 else f"layers_{number + 1}_sign1"], main)


def test_bottleneck_head(bottlenecks):
    w = weights(bottlenecks.model, "fc")
    assert_close(bottlenecks.after["fc"], bottlenecks.before["pool"].mean(axis=(1, 2)) @ w["kernel"] + w["bias"])
