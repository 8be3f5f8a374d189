"""Blocks, stems and head of AresB-Net against float64 numpy forwards written from their formulas."""

import numpy as np
import pytest
from forward import Float64, assert_close, batch_norm, conv, halves, max_pool, shuffle, sign, tile, weights

from larq_rep.reptran import reptran
from larq_rep.zoo.aresbnet import AresBNet10

# The forms that the authors' forwards lack; test_import.py compares all others with those.
pytestmark = pytest.mark.slow

# Not square: rows and columns must not be mixed up.
IMAGE = (64, 32, 3)


def leaky_relu(u):
    # TensorFlow keeps this slope in 32 bits.
    return np.where(u > 0, u, np.float64(np.float32(0.01)) * u)


def unit(model, name, number, x, stride, beta):
    """Each half of the channels with its own kernel: signs, times the mean magnitude of the clipped weights."""
    out = []
    for i, t in enumerate(halves(x)):
        kernel = weights(model, f"{name}_conv{number}_{i}")["kernel"]
        scale = np.minimum(np.abs(kernel), 1).mean(axis=(0, 1, 2))
        out.append(tile(conv(sign(t), sign(kernel), stride) * scale, beta**2))
    return batch_norm(model, f"{name}_bn{2 * number - 1}", leaky_relu(np.concatenate(out, axis=-1)))


def block(model, name, x, stride, beta=1, shuffled=True):
    if shuffled:
        x = shuffle(x)
    u, v = (max_pool(x),) * 2 if stride == 2 else halves(x)
    u = u + unit(model, name, 1, x, stride, beta)
    y = shuffle(batch_norm(model, f"{name}_bn2", np.concatenate([u, v], axis=-1)))
    u, v = halves(y)
    return np.concatenate([u + unit(model, name, 2, y, 1, beta), v], axis=-1)


def rep_aresbnet10(input_shape, **kwargs):
    return reptran(AresBNet10(input_shape=input_shape, **kwargs), 2)


# `dataset` stands for the stem, too.
NETWORKS = {
    "rep10": (rep_aresbnet10, 2, "cifar100", ["1_0", "2_0", "3_0", "4_0"]),
    "rep10-imagenet": (rep_aresbnet10, 2, "imagenet", ["1_0", "2_0", "3_0", "4_0"]),
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    constructor, beta, dataset, numbers = NETWORKS[request.param]
    names = [f"layer{number}" for number in numbers]
    taps = [f"{name}_shuffle{i}" for name in names for i in (1, 2) if (name, i) != ("layer1_0", 1)]
    net = Float64(constructor, ["bn1", *taps, "pool", "linear"], IMAGE, dataset=dataset)
    net.beta, net.dataset, net.names = beta, dataset, names
    # What goes into each block.
    net.entries = [net.after["bn1"], *(net.before[f"{name}_shuffle1"] for name in names[1:])]
    return net


def test_stem(network):
    kernel = weights(network.model, "conv1")["kernel"]
    if network.dataset == "imagenet":
        u = max_pool(leaky_relu(batch_norm(network.model, "bn0", conv(network.image, kernel, 2))))
    else:
        u = leaky_relu(conv(network.image, kernel))
    assert u.shape == (2, *((16, 8) if network.dataset == "imagenet" else (64, 32)), 64)
    # A Rep network repeats the 64 channels, whatever follows them, and then takes them twice like the original.
    assert_close(network.after["bn1"], batch_norm(network.model, "bn1", tile(u, 2 * network.beta)))


def test_shuffle(network):
    for name, value in network.after.items():
        if "_shuffle" in name:
            assert_close(value, shuffle(network.before[name]))


def test_first_block(network):
    assert "layer1_0_shuffle1" not in {layer.name for layer in network.model.layers}
    expected = block(network.model, "layer1_0", network.entries[0], 1, network.beta, shuffled=False)
    assert_close(network.entries[1], expected)


def test_other_blocks(network):
    for i in range(1, len(network.names) - 1):
        stride = 2 if network.names[i].endswith("_0") else 1
        expected = block(network.model, network.names[i], network.entries[i], stride, network.beta)
        assert_close(network.entries[i + 1], expected)


def test_last_block_and_head(network):
    name = network.names[-1]
    features = block(network.model, name, network.entries[-1], 2 if name.endswith("_0") else 1, network.beta)
    assert features.shape[-1] == 1024 * network.beta
    features = features[..., : 512 * network.beta]
    assert_close(network.before["pool"], features)
    w = weights(network.model, "linear")
    assert_close(network.after["linear"], features.mean(axis=(1, 2)) @ w["kernel"] + w["bias"])


def test_signs_of_zero_are_positive():
    net = Float64(AresBNet10, [], (32, 32, 3))
    layer = net.model.get_layer("layer1_0_conv1_0")
    kernel = layer.kernel.numpy()
    kernel[:, :, ::3] = 0
    layer.kernel.assign(kernel)
    scale = np.minimum(np.abs(kernel), 1).mean(axis=(0, 1, 2))
    expected = conv(np.ones((1, 8, 8, 64)), np.where(kernel < 0, -1, 1)) * scale
    assert_close(layer(np.zeros((1, 8, 8, 64))).numpy(), expected)
