"""ResNet18 with each of its methods against float64 numpy forwards of their formulas."""

import numpy as np
import pytest
from forward import Calibrated, assert_close, average_pool, batch_norm, conv, hard_tanh, max_pool, sign, tile, weights

from larq_rep.zoo.resnet18 import RepResNet18, ResNet18

# The forms that the authors' forwards lack; test_import.py compares all others with those.
pytestmark = pytest.mark.slow


def standardized(kernel):
    return (kernel - kernel.mean(axis=(0, 1, 2))) / kernel.std(axis=(0, 1, 2), ddof=1)


def rbnn(w, x, stride=1):
    height, width, inputs, outputs = w["kernel"].shape
    z = np.moveaxis(standardized(w["kernel"]), (3, 2), (0, 1)).reshape(outputs, len(w["R1"]), len(w["R2"]))
    rotated = np.einsum("ka,okl,lb->oab", w["R1"], z, w["R2"], optimize=True)
    u = z + np.abs(np.sin(w["rotate"])).reshape(-1, 1, 1) * (rotated - z)
    kernel = np.moveaxis(sign(u).reshape(outputs, inputs, height, width), (0, 1), (3, 2))
    samples = x.reshape(len(x), -1)
    mean, deviation = samples.mean(axis=1), samples.std(axis=1, ddof=1)
    x = (x - mean.reshape(-1, 1, 1, 1)) / deviation.reshape(-1, 1, 1, 1)
    return w["alpha"] * conv(sign(x), kernel, stride)


def recu(w, x, stride=1):
    kernel = standardized(w["kernel"]) * 2 * np.sqrt(2)
    limit = -np.abs(kernel).mean() * np.log(2 - 2 * 0.85)
    return w["alpha"] * conv(sign(x), sign(np.clip(kernel, -limit, limit)), stride)


def bnn(w, x, stride=1):
    return conv(sign(x), sign(w["kernel"]), stride)


def xnor(w, x, stride=1):
    return conv(sign(x), sign(w["kernel"]) * np.abs(w["kernel"]).mean(axis=(0, 1, 2)), stride)


def real(w, x, stride=1):
    return conv(x, w["kernel"], stride)


def relu(x):
    return np.maximum(x, 0)


CONVOLUTIONS = {"rbnn": rbnn, "recu": recu, "bnn": bnn, "xnor": xnor, "real": real}
NETWORKS = {
    "imagenet-bnn": {"method": "bnn"},
    "imagenet-bnn-binary_classifier": {"method": "bnn", "binary_classifier": True},
    "imagenet-xnor": {"method": "xnor"},
    "imagenet-xnor-scale": {"method": "xnor", "scale": True},
    "imagenet-real": {"method": "real"},
    "imagenet-recu-rep": {"method": "recu", "beta": 2},
    "cifar10-rbnn-rep": {"method": "rbnn", "dataset": "cifar10", "beta": 2, "last_layer": 2},
    "cifar100-real": {"method": "real", "dataset": "cifar100"},
}
# A block and the one that takes its output.
BLOCKS = [("layer1_0", "layer1_1"), ("layer1_1", "layer2_0"), ("layer2_0", "layer2_1"), ("layer4_1", "head")]


@pytest.fixture(scope="module", params=NETWORKS)
def net(request):
    kwargs = NETWORKS[request.param]
    cifar, method = "dataset" in kwargs, kwargs["method"]
    names = ["layer1_0", "layer1_1", "layer2_0", "layer2_1", "layer4_1"]
    entries = [*(f"{name}_bn1" if method == "xnor" else f"{name}_conv1" for name in names), "pool"]
    logits = "bn3" if "binary_classifier" in kwargs else "linear" if cifar else "fc"
    constructor = RepResNet18 if "beta" in kwargs else ResNet18
    # Not square: rows and columns must not be mixed up.
    image = np.random.default_rng(0).standard_normal((2, 16, 8, 3) if cifar else (2, 64, 32, 3))
    net = Calibrated(constructor, [*entries, logits], image, **kwargs)
    net.x = dict(zip([*names, "head"], (net.before[layer] for layer in entries), strict=True))
    net.logits = net.after[logits]
    net.cifar, net.method, net.convolve = cifar, method, CONVOLUTIONS[method]
    net.activation = relu if method in ("real", "xnor") else hard_tanh
    net.beta, net.last_layer = kwargs.get("beta", 1), kwargs.get("last_layer", 1)
    net.scale, net.binary_classifier = kwargs.get("scale", False), kwargs.get("binary_classifier", False)
    return net


def conv_norm(net, layer, norm, x, stride=1, convolve=None):
    u = (convolve or net.convolve)(weights(net.model, layer), x, stride)
    return batch_norm(net.model, norm, tile(u, net.beta**2))


def projected(net, block, x):
    """The shortcut that halves the map and doubles the channels."""
    if net.cifar and net.method == "recu":
        x = average_pool(x)
        zeros = np.zeros_like(x[..., : x.shape[-1] // 2])
        return np.concatenate([zeros, x, zeros], axis=-1)
    name = f"{block}_shortcut" if net.cifar else f"{block}_downsample"
    binary = net.method == "bnn" or (net.cifar and net.method == "rbnn")
    return conv_norm(net, f"{name}_0", f"{name}_1", x, 2, net.convolve if binary else real)


def residual_block(net, block, x, stride):
    shortcut = x if stride == 1 else projected(net, block, x)
    y = conv_norm(net, f"{block}_conv1", f"{block}_bn1", x, stride)
    if net.cifar or net.method == "real":
        y = net.activation(y)
    else:
        # Each convolution has its own shortcut.
        y = shortcut = net.activation(y + shortcut)
    return net.activation(conv_norm(net, f"{block}_conv2", f"{block}_bn2", y) + shortcut)


def bnn_block(net, block, x, stride):
    """The batch norm of the second convolution and its hard tanh come after the addition."""
    model, shortcut = net.model, x if stride == 1 else projected(net, block, x)
    y = hard_tanh(conv_norm(net, f"{block}_conv1", f"{block}_bn1", x, stride))
    return hard_tanh(batch_norm(model, f"{block}_bn2", bnn(weights(model, f"{block}_conv2"), y) + shortcut))


def xnor_norm(net, layer, x):
    """Its epsilon is ten times that of other batch norms."""
    w = weights(net.model, layer)
    return (x - w["moving_mean"]) / np.sqrt(w["moving_variance"] + 1e-4) * w["gamma"] + w["beta"]


def xnor_conv(net, block, i, x, stride=1):
    x = xnor_norm(net, f"{block}_bn{i}", x)
    y = xnor(weights(net.model, f"{block}_conv{i}"), x, stride)
    if net.scale:
        y = y * conv(np.abs(x).mean(axis=-1, keepdims=True), np.full((3, 3, 1, 1), 1 / 9), stride)
    return y


def xnor_block(net, block, x, stride):
    shortcut = x if stride == 1 else projected(net, block, x)
    return xnor_conv(net, block, 2, xnor_conv(net, block, 1, x, stride)) + shortcut


def test_stem(net):
    model, kernel = net.model, weights(net.model, "conv1")["kernel"]
    if net.method == "bnn":
        expected = hard_tanh(batch_norm(model, "bn1", max_pool(conv(net.image, sign(kernel), 2))))
    else:
        u = batch_norm(model, "bn1", tile(conv(net.image, kernel, 1 if net.cifar else 2), net.beta))
        if not net.cifar:
            expected = max_pool(net.activation(u))
        else:
            expected = relu(u) if net.method == "real" else u
    assert expected.shape == (2, 16, 8, 64 * net.beta)
    assert_close(net.x["layer1_0"], expected)


@pytest.mark.parametrize("block, following", BLOCKS)
def test_block(net, block, following):
    forward = {"bnn": bnn_block, "xnor": xnor_block}.get(net.method, residual_block)
    expected = forward(net, block, net.x[block], 2 if block == "layer2_0" else 1)
    assert expected.shape[1:3] == {"1": (16, 8), "2": (8, 4), "4": (2, 1)}[block[5]]
    if net.method == "xnor":
        # Where no scale follows, the signs would not show a wrong epsilon.
        assert_close(net.after[f"{block}_bn1"], xnor_norm(net, f"{block}_bn1", net.x[block]))
    if net.activation is hard_tanh:
        assert 0.3 < np.mean(np.abs(expected) < 1) < 1
    assert_close(net.x[following], expected)


def test_head(net):
    model, features = net.model, net.x["head"].mean(axis=(1, 2))
    # Solutions 1, 2 and 3 of RepBNN for the last layer: all channels, 1 / beta and 1 / beta**2 of them.
    features = features[:, : 512 * net.beta // net.beta ** (net.last_layer - 1)]
    if net.method not in ("real", "xnor"):
        features = batch_norm(model, "bn2", features)
    if net.method == "bnn":
        features = hard_tanh(features)
    if net.binary_classifier:
        w = weights(model, "fc")
        expected = batch_norm(model, "bn3", sign(features) @ sign(w["kernel"]) + w["bias"])
    else:
        w = weights(model, "linear" if net.cifar else "fc")
        expected = features @ w["kernel"] + w["bias"]
    assert_close(net.logits, expected)
