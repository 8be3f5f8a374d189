"""Blocks, stem and head of Bi-Real-Net and of ReActNet-18 against float64 numpy forwards of their formulas."""

import numpy as np
import pytest
from forward import Float64, assert_close, average_pool, batch_norm, conv, max_pool, rprelu, rsign, sign, tile, weights

from larq_rep.zoo import ReActNet18, RepBiRealNet18, RepReActNet18

# The forms that the authors' forwards lack; test_import.py compares all others with those.
pytestmark = pytest.mark.slow


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


NETWORKS = {
    "bireal-rep": (RepBiRealNet18, {"beta": 2}),
    "bireal-rep-before_bn": (RepBiRealNet18, {"beta": 2, "stem": "before_bn", "last_layer": 2}),
    "react-binary": (ReActNet18, {"shortcut": "binary"}),
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
