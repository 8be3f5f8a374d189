"""Blocks, stem and head of ReActNet-A and ResNet-20 against float64 numpy forwards written from their formulas."""

import numpy as np
import pytest
from forward import Calibrated, Float64, assert_close, batch_norm, conv, hard_tanh, rprelu, rsign, sign, tile, weights
from support import others_slow

from larq_rep import zoo


def react_conv(model, layer, x, stride, beta):
    """sign(W) times the mean of |W| of each filter, then the tile of RepConv."""
    kernel = weights(model, layer)["kernel"]
    kernel = sign(kernel) * np.abs(kernel).mean(axis=(0, 1, 2))
    return tile(conv(x, kernel, stride), beta**2)


def react_block(model, name, x, stride, beta):
    channels = x.shape[-1]
    shortcut = x
    if stride == 2:
        shortcut = (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4
    u = react_conv(model, f"{name}_conv3x3", rsign(model, f"{name}_rsign1", x), stride, beta)
    a = rprelu(model, f"{name}_rprelu1", shortcut + batch_norm(model, f"{name}_bn1", u))
    v = rsign(model, f"{name}_rsign2", a)
    if model.get_layer(f"{name}_rprelu2").output.shape[-1] == channels:
        branches = [(f"{name}_conv1x1", f"{name}_bn2")]
    else:
        branches = [(f"{name}_down{i}_conv", f"{name}_down{i}_bn") for i in (1, 2)]
    w = [batch_norm(model, bn, react_conv(model, layer, v, 1, beta)) + a for layer, bn in branches]
    return rprelu(model, f"{name}_rprelu2", np.concatenate(w, axis=-1))


def libra_conv(model, layer, x, stride, beta):
    w = weights(model, layer)["kernel"]
    z = (w - w.mean(axis=(0, 1, 2))) / w.std(axis=(0, 1, 2), ddof=1)
    scale = 2 ** np.round(np.log2(np.abs(z).mean(axis=(0, 1, 2))))
    return tile(conv(sign(x), scale * sign(z), stride), beta**2)


def resnet_block(model, name, x, stride, beta):
    shortcut = x
    if stride == 2:
        half = np.zeros_like(x[:, 1::2, 1::2, : x.shape[-1] // 2])
        shortcut = np.concatenate([half, x[:, 1::2, 1::2], half], axis=-1)
    u = libra_conv(model, f"{name}_conv1", x, stride, beta)
    y = hard_tanh(batch_norm(model, f"{name}_bn1", u) + shortcut)
    u = libra_conv(model, f"{name}_conv2", y, 1, beta)
    return hard_tanh(batch_norm(model, f"{name}_bn2", u) + y)


@pytest.fixture(scope="module", params=[1, 2], ids=["base", "rep"])
def reactnet(request):
    constructor, kwargs = (zoo.ReActNetA, {}) if request.param == 1 else (zoo.RepReActNetA, {"beta": 2})
    blocks = [f"block{i}_rprelu2" for i in (1, 2, 3, 13)]
    entry = "stem_bn" if request.param == 1 else "stem_conv_repeat"
    # Not square: rows and columns must not be mixed up.
    net = Float64(constructor, [entry, *blocks, "fc"], (64, 32, 3), **kwargs)
    net.beta, net.entry = request.param, entry
    return net


def test_reactnet_stem(reactnet):
    kernel = weights(reactnet.model, "stem_conv")["kernel"]
    expected = batch_norm(reactnet.model, "stem_bn", conv(reactnet.image, kernel, 2))
    assert expected.shape == (2, 32, 16, 32)
    assert_close(reactnet.after[reactnet.entry], tile(expected, reactnet.beta))


@pytest.mark.parametrize("number, stride", [(1, 1), (2, 2), (3, 1)], ids=["double", "double_strided", "plain"])
def test_reactnet_block(reactnet, number, stride):
    x = reactnet.after[reactnet.entry if number == 1 else f"block{number - 1}_rprelu2"]
    expected = react_block(reactnet.model, f"block{number}", x, stride, reactnet.beta)
    assert_close(reactnet.after[f"block{number}_rprelu2"], expected)


def test_reactnet_head(reactnet):
    w = weights(reactnet.model, "fc")
    features = reactnet.after["block13_rprelu2"].mean(axis=(1, 2))
    assert_close(reactnet.after["fc"], features @ w["kernel"] + w["bias"])


@pytest.fixture(scope="module", params=others_slow([(1, 1), (2, 3), (2, 1), (2, 2)], 2), ids=str)
def resnet20(request):
    beta, last_layer = request.param
    kwargs = {} if beta == 1 else {"beta": beta, "last_layer": last_layer}
    constructor = zoo.ResNet20 if beta == 1 else zoo.RepResNet20
    layers = ["layer1_0_conv1", "layer1_1_conv1", "layer2_0_conv1", "layer2_1_conv1", "pool", "linear"]
    net = Calibrated(constructor, layers, np.random.default_rng(0).standard_normal((2, 16, 8, 3)), width=4, **kwargs)
    net.beta, net.last_layer = request.param
    return net


def test_resnet20_stem(resnet20):
    u = tile(conv(resnet20.image, weights(resnet20.model, "conv1")["kernel"]), resnet20.beta)
    assert_close(resnet20.before["layer1_0_conv1"], hard_tanh(batch_norm(resnet20.model, "bn1", u)))


def test_resnet20_block(resnet20):
    expected = resnet_block(resnet20.model, "layer1_0", resnet20.before["layer1_0_conv1"], 1, resnet20.beta)
    assert_close(resnet20.before["layer1_1_conv1"], expected)


def test_resnet20_downsampling_block(resnet20):
    expected = resnet_block(resnet20.model, "layer2_0", resnet20.before["layer2_0_conv1"], 2, resnet20.beta)
    assert_close(resnet20.before["layer2_1_conv1"], expected)


def test_resnet20_head_takes_the_first_channels(resnet20):
    features = resnet20.before["pool"].mean(axis=(1, 2))
    # 16 channels in the original network; solutions 1, 2 and 3 of RepBNN take all, 16 and 16 / beta.
    taken = {1: 16 * resnet20.beta, 2: 16, 3: 16 // resnet20.beta}[resnet20.last_layer]
    features = batch_norm(resnet20.model, "bn2", features[:, :taken])
    w = weights(resnet20.model, "linear")
    assert_close(resnet20.after["linear"], features @ w["kernel"] + w["bias"])
