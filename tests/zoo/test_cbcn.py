"""CBCN: published counts, and a block against a float64 numpy forward of its formula."""

import numpy as np
import pytest
from forward import Float64, assert_close, average_pool, batch_norm, conv, max_pool, sign, weights
from support import built

from larq_rep.cost import count
from larq_rep.quantizers import CirculantKernel
from larq_rep.zoo import CBCNResNet18


def test_counts():
    cost = count(built("CBCNResNet18"))
    assert cost.trainable_params == 48835048
    assert cost.binary_params == 43941888 == 175767552 / 4
    assert cost.bops == 26820476928
    assert cost.flops == 472055808 + 1233125376 + 2048000
    assert cost.ops == 2126299136
    assert round(cost.trainable_bits / 2**23, 2) == 23.90
    assert not cost.uncounted


def prelu(model, layer, x):
    return np.where(x > 0, x, weights(model, layer)["alpha"] * x)


@pytest.fixture(scope="module")
def net():
    return Float64(CBCNResNet18, ["layer1_0_conv", "layer2_0_conv", "layer2_1_conv", "layer2_2_conv"], (64, 32, 3))


@pytest.mark.slow
def test_stem(net):
    x = batch_norm(net.model, "bn1", conv(net.image, weights(net.model, "conv1")["kernel"], 2))
    assert_close(net.before["layer1_0_conv"], max_pool(prelu(net.model, "prelu", x)))


@pytest.mark.slow
@pytest.mark.parametrize("name, stride, following", [("layer2_0", 2, "layer2_1"), ("layer2_1", 1, "layer2_2")])
def test_block(net, name, stride, following):
    """The kernels of all turns are those of test_circulant.py."""
    x, model = net.before[f"{name}_conv"], net.model
    kernel = CirculantKernel(dtype="float64")(weights(model, f"{name}_conv")["kernel"]).numpy()
    assert kernel.shape == (3, 3, x.shape[-1], 512)
    y = batch_norm(model, f"{name}_bn", conv(sign(x), kernel, stride))
    if stride == 2:
        x = conv(x, weights(model, f"{name}_downsample_0")["kernel"])
        x = average_pool(batch_norm(model, f"{name}_downsample_1", x))
    assert_close(net.before[f"{following}_conv"], prelu(model, f"{name}_prelu", y + x))
