"""Image normalisation, stems, blocks, heads and logits of ResNetE18 against float64 numpy forwards."""

from functools import partial

import pytest
from bmxnet_forward import (
    Network,
    batch_norm,
    binary_conv,
    dense,
    imagenet_stem,
    real_conv,
    relu,
)
from forward import assert_close, average_pool, weights

from larq_rep.zoo.resnet_e import ResNetE18

# The forms that the authors' forwards lack; test_import.py compares all others with those.
pytestmark = pytest.mark.slow


def down_conv(net, name, x):
    layer = f"{name}_down_conv"
    return real_conv(net, layer, x) if net.downsampling == "real" else binary_conv(net, layer, x)


def block(net, name, x, stride):
    if net.version == 1:
        out = batch_norm(net, f"{name}_bn", binary_conv(net, f"{name}_conv", x, stride))
        if stride == 1:
            return out + x
        return out + batch_norm(net, f"{name}_down_bn", down_conv(net, name, average_pool(x)))
    b = batch_norm(net, f"{name}_bn", x)
    shortcut = x if stride == 1 else down_conv(net, name, average_pool(b))
    return binary_conv(net, f"{name}_conv", b, stride) + shortcut


def stem(net):
    """What the first block takes. The factor of the image's normalisation is 1."""
    assert set(weights(net.model, "image_bn")) == {"beta", "moving_mean", "moving_variance"}
    x = batch_norm(net, "image_bn", net.image, epsilon=2e-5)
    x = imagenet_stem(net, x) if net.dataset == "imagenet" else real_conv(net, "stem_conv", x)
    return batch_norm(net, "initial_bn", x) if net.version == 1 else x


def head(net, x):
    if net.version == 2:
        x = batch_norm(net, "final_bn", x)
    return dense(net, "output", relu(x).mean(axis=(1, 2)))


# The published networks are version 1 on ImageNet and 2 on CIFAR-10; scaling has no popcount, but the border of -1.
PUBLISHED = [(1, "imagenet"), (2, "cifar10")]
PLAIN = [(*p, down, False, padding) for p in PUBLISHED for down in ("real", "binary") for padding in ("zero", "bmxnet")]
SCALED = [(*p, *kind) for p in PUBLISHED for kind in (("real", True, "zero"), ("binary", True, "bmxnet"))]
# The authors' own form.
PLAIN.remove((1, "imagenet", "real", False, "bmxnet"))
OTHERS = [(1, "cifar10", "real", False, "zero"), (2, "imagenet", "binary", False, "bmxnet")]


@pytest.fixture(scope="module", params=PLAIN + SCALED + OTHERS, ids=str)
def net(request):
    version, dataset, downsampling, scaling, padding = request.param
    constructor = partial(ResNetE18, version=version, dataset=dataset, downsampling=downsampling)
    entry = {1: "initial_bn", 2: "stem_pool" if dataset == "imagenet" else "stem_conv"}[version]
    layers = [entry, *[f"stage{i}_block{j}_add" for i, j in ((1, 1), (1, 4), (2, 1), (4, 3), (4, 4))]]
    net = Network(constructor, layers, padding=padding, scaling=scaling)
    net.version, net.dataset, net.downsampling, net.entry = version, dataset, downsampling, entry
    return net


def test_stem(net):
    expected = stem(net)
    assert expected.shape == ((2, 16, 8, 64) if net.dataset == "imagenet" else (2, 64, 32, 64))
    assert_close(net.after[net.entry], expected)


@pytest.mark.parametrize(
    "name, before, stride",
    [("stage1_block1", None, 1), ("stage2_block1", "stage1_block4", 2), ("stage4_block4", "stage4_block3", 1)],
    ids=["first", "downsampling", "last"],
)
def test_block(net, name, before, stride):
    x = net.after[f"{before}_add" if before else net.entry]
    assert_close(net.after[f"{name}_add"], block(net, name, x, stride))


def test_head(net):
    assert_close(net.after["output"], head(net, net.after["stage4_block4_add"]))


def test_logits(net):
    x = stem(net)
    for stage, channels in enumerate((64, 128, 256, 512), start=1):
        for number in range(1, 5):
            x = block(net, f"stage{stage}_block{number}", x, 2 if stage > 1 and number == 1 else 1)
            assert x.shape[-1] == channels
    logits = head(net, x)
    assert logits.shape == (2, 1000 if net.dataset == "imagenet" else 10)
    assert_close(net.after["output"], logits)
