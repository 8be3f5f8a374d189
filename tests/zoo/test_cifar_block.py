"""ResNet20 and VGGSmall with each of their methods against float64 numpy forwards of their formulas."""

import numpy as np
import pytest
from forward import Calibrated, assert_close, average_pool, batch_norm, conv, hard_tanh, rprelu, sign, tile, weights
from support import others_slow

from larq_rep.zoo.resnet20 import RepResNet20, ResNet20
from larq_rep.zoo.vgg import RepVGGSmall

# The forms that the authors' forwards lack; test_import.py compares all others with those.

# Every value a pixel can have. Not square: rows and columns must not be mixed up.
PIXELS = np.random.default_rng(0).permutation(np.arange(2 * 16 * 8 * 3) % 256).reshape(2, 16, 8, 3)


def ir_net(w, x, stride=1):
    kernel = w["kernel"] - w["kernel"].mean(axis=(0, 1, 2))
    magnitude = np.abs(kernel).mean(axis=(0, 1, 2)) / kernel.std(axis=(0, 1, 2), ddof=1)
    return conv(sign(x), sign(kernel), stride) * 2 ** np.round(np.log2(magnitude))


def rbnn(w, x, stride=1):
    height, width, inputs, outputs = w["kernel"].shape
    z = (w["kernel"] - w["kernel"].mean(axis=(0, 1, 2))) / w["kernel"].std(axis=(0, 1, 2), ddof=1)
    size = height * width * inputs
    rows = max(n for n in range(1, int(size**0.5) + 1) if size % n == 0)
    z = z.transpose(3, 2, 0, 1).reshape(outputs, rows, size // rows)
    part = np.abs(np.sin(w["rotate"]))[:, np.newaxis, np.newaxis]
    u = (1 - part) * z + part * (w["R1"].T @ z @ w["R2"])
    signs = sign(u).reshape(outputs, inputs, height, width).transpose(2, 3, 1, 0)
    return conv(sign(x - x.mean(axis=(1, 2, 3), keepdims=True)), signs, stride) * w["alpha"]


def recu(w, x, stride=1):
    return conv(sign(x), sign(w["kernel"] - w["kernel"].mean(axis=(0, 1, 2))), stride) * w["alpha"]


def plain(w, x, stride=1):
    return conv(sign(x), sign(w["kernel"]), stride)


def real(w, x, stride=1):
    return conv(x, w["kernel"], stride)


def relu(x):
    return np.maximum(x, 0)


def padded(x):
    zeros = np.zeros_like(x[..., : x.shape[-1] // 2])
    return np.concatenate([zeros, x, zeros], axis=-1)


# The convolution, the activation, whether each convolution has its own shortcut, and the shortcut that halves the map.
METHODS = {
    "irnet": (ir_net, hard_tanh, True, lambda x: padded(x[:, 1::2, 1::2])),
    "rbnn": (rbnn, hard_tanh, False, lambda x: padded(x[:, 1::2, 1::2])),
    "recu": (recu, hard_tanh, True, lambda x: padded(average_pool(x))),
    "real": (real, relu, False, lambda x: padded(x[:, 1::2, 1::2])),
    "real_bireal": (real, relu, True, lambda x: padded(x[:, 1::2, 1::2])),
    "fracbnn": (plain, None, True, lambda x: tile(average_pool(x), 2)),
}
NETWORKS = {
    "irnet-rep": {"method": "irnet", "beta": 2},
    "irnet-rep-3": {"method": "irnet", "beta": 2, "last_layer": 3},
    "irnet-rep-2": {"method": "irnet", "beta": 2, "last_layer": 2},
    "real_bireal": {"method": "real_bireal"},
    "rbnn-rep": {"method": "rbnn", "beta": 2},
    "recu-rep": {"method": "recu", "beta": 2, "last_layer": 3},
    "recu-rep-bn_before": {"method": "recu", "beta": 2, "bn": "before", "stem": "after_bn"},
    "fracbnn-rep": {"method": "fracbnn", "beta": 2},
    "fracbnn-rep-after_bn": {"method": "fracbnn", "beta": 2, "stem": "after_bn", "last_layer": 2},
    "real-rep": {"method": "real", "beta": 2, "last_layer": 2},
}
BLOCKS = [f"layer{stage}_{number}" for stage in (1, 2, 3) for number in (0, 1, 2)]


@pytest.fixture(scope="module", params=others_slow([*NETWORKS], 2))
def resnet20(request):
    kwargs = NETWORKS[request.param]
    method = kwargs["method"]
    entries = [*(f"{block}_conv1" for block in BLOCKS), "pool"]
    stem = ["encoder", "conv1"] if method == "fracbnn" else ["conv1"]
    net = Calibrated(
        RepResNet20 if "beta" in kwargs else ResNet20, [*entries, *stem, "linear"], PIXELS / 255, width=4, **kwargs
    )
    net.x = dict(zip([*BLOCKS, "head"], (net.before[layer] for layer in entries), strict=True))
    net.method, net.beta, net.bn = method, kwargs.get("beta", 1), kwargs.get("bn", "after")
    net.stem, net.last_layer = kwargs.get("stem", "before_bn"), kwargs.get("last_layer", 1)
    net.convolve, net.activation, net.bireal, net.halve = METHODS[method]
    return net


def conv_norm(net, block, i, x, stride=1):
    w = weights(net.model, f"{block}_conv{i}")
    y = net.convolve(w, x, stride)
    if net.bn == "before":
        return tile(batch_norm(net.model, f"{block}_bn{i}", y), net.beta**2)
    return batch_norm(net.model, f"{block}_bn{i}", tile(y, net.beta**2))


def residual_block(net, block, x, stride):
    shortcut = x if stride == 1 else net.halve(x)
    y = conv_norm(net, block, 1, x, stride)
    if net.bireal:
        y = shortcut = net.activation(y + shortcut)
    else:
        y = net.activation(y)
    return net.activation(conv_norm(net, block, 2, y) + shortcut)


def fracbnn_block(net, block, x, stride):
    model, shortcut = net.model, x if stride == 1 else net.halve(x)
    y = rprelu(model, f"{block}_rprelu1", conv_norm(net, block, 1, x, stride))
    y = batch_norm(model, f"{block}_bn3", y + shortcut)
    out = rprelu(model, f"{block}_rprelu2", conv_norm(net, block, 2, y))
    return batch_norm(model, f"{block}_bn4", out + y)


def test_stem(resnet20):
    model, beta, x = resnet20.model, resnet20.beta, resnet20.image
    convolve = real
    if resnet20.method == "fracbnn":
        levels = np.arange(32)
        # Plane j of a colour is +1 from 8j + 4 on, and a tie goes to the even count of planes.
        planes = PIXELS[..., np.newaxis] >= 8 * levels + 4 + (levels % 2 == 0)
        x, convolve = np.where(planes, 1.0, -1.0).reshape(2, 16, 8, 96), plain
        assert_close(resnet20.after["encoder"], x)
    u = convolve(weights(model, "conv1"), x)
    if resnet20.stem == "before_bn":
        u = batch_norm(model, "bn1", tile(u, beta))
    else:
        u = tile(batch_norm(model, "bn1", u), beta)
    assert u.shape == (2, 16, 8, 4 * beta)
    assert_close(resnet20.x["layer1_0"], resnet20.activation(u) if resnet20.activation else u)


@pytest.mark.parametrize("block, following", list(zip(BLOCKS, [*BLOCKS[1:], "head"], strict=True)))
def test_block(resnet20, block, following):
    stride = 2 if block in ("layer2_0", "layer3_0") else 1
    forward = fracbnn_block if resnet20.method == "fracbnn" else residual_block
    expected = forward(resnet20, block, resnet20.x[block], stride)
    assert expected.shape[1:3] == {"1": (16, 8), "2": (8, 4), "3": (4, 2)}[block[5]]
    if resnet20.activation is hard_tanh:
        assert 0.3 < np.mean(np.abs(expected) < 1) < 1
    assert_close(resnet20.x[following], expected)


def test_head(resnet20):
    features = resnet20.x["head"].mean(axis=(1, 2))
    # Solutions 1, 2 and 3 of RepBNN for the last layer: all channels, 1 / beta and 1 / beta**2 of them.
    features = features[:, : 16 * resnet20.beta // resnet20.beta ** (resnet20.last_layer - 1)]
    if resnet20.activation is hard_tanh:
        features = batch_norm(resnet20.model, "bn2", features)
    w = weights(resnet20.model, "linear")
    assert_close(resnet20.after["linear"], features @ w["kernel"] + w["bias"])


def max_pool(x):
    return np.max([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], axis=0)


VGG = {
    "recu-rep": {"method": "recu", "beta": 2},
    "recu-rep-last_layer": {"method": "recu", "beta": 2, "last_layer": 3, "stem": "after_bn"},
}


@pytest.fixture(scope="module", params=others_slow([*VGG], 0))
def vgg(request):
    kwargs = VGG[request.param]
    layers = [*(f"conv{i}" for i in range(6)), "bn5", "fc"]
    net = Calibrated(RepVGGSmall, layers, PIXELS / 255, **kwargs)
    net.convolve, net.beta = METHODS[kwargs["method"]][0], kwargs.get("beta", 1)
    net.stem, net.last_layer = kwargs.get("stem", "before_bn"), kwargs.get("last_layer", 1)
    return net


def test_vgg_stem(vgg):
    u = conv(vgg.image, weights(vgg.model, "conv0")["kernel"])
    if vgg.stem == "before_bn":
        u = batch_norm(vgg.model, "bn0", tile(u, vgg.beta))
    else:
        u = tile(batch_norm(vgg.model, "bn0", u), vgg.beta)
    assert_close(vgg.before["conv1"], hard_tanh(u))


def vgg_layer(vgg, i):
    u = vgg.convolve(weights(vgg.model, f"conv{i}"), vgg.before[f"conv{i}"])
    if i in (1, 3, 5):
        u = max_pool(u)
    return batch_norm(vgg.model, f"bn{i}", tile(u, vgg.beta**2))


@pytest.mark.parametrize("i", [1, 2, 3, 4])
def test_vgg_layer(vgg, i):
    expected = hard_tanh(vgg_layer(vgg, i))
    assert 0.3 < np.mean(np.abs(expected) < 1) < 1
    assert_close(vgg.before[f"conv{i + 1}"], expected)


def test_vgg_head(vgg):
    u = vgg_layer(vgg, 5)
    assert_close(vgg.after["bn5"], u)
    features = hard_tanh(u)[..., : 512 * vgg.beta // vgg.beta ** (vgg.last_layer - 1)].reshape(2, -1)
    w = weights(vgg.model, "fc")
    assert_close(vgg.after["fc"], features @ w["kernel"] + w["bias"])
