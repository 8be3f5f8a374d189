"""Stems, dense layers, transitions, heads and logits of BinaryDenseNets against float64 numpy forwards."""

from functools import partial

import numpy as np
import pytest
from bmxnet_forward import (
    Network,
    batch_norm,
    binary_conv,
    dense,
    dense_head,
    dense_layer,
    imagenet_stem,
    max_pool,
    real_conv,
    relu,
    transition,
)
from forward import assert_close, average_pool, tile
from support import others_slow

from larq_rep.zoo import BinaryDenseNet21, BinaryDenseNet28, BinaryDenseNet37Dilated, RepBinaryDenseNet28

PADDINGS = ["zero", "bmxnet"]


def old_transition(net, name, x, downsampling):
    """The order of the ablation: the pooling is last, and an average."""
    x = batch_norm(net, f"{name}_bn", x)
    y = real_conv(net, f"{name}_conv", relu(x)) if downsampling == "real" else binary_conv(net, f"{name}_conv", x)
    return average_pool(y)


def forward(net, x, stages, change, dilations=(1, 1, 1, 1)):
    """All layers from the output of the stem to the logits, and the channels after each stage and transition."""
    channels = []
    for stage, (layers, dilation) in enumerate(zip(stages, dilations, strict=True), start=1):
        if stage > 1:
            x = change(net, f"transition{stage - 1}", x)
            channels.append(x.shape[-1])
        for layer in range(1, layers + 1):
            x = dense_layer(net, f"stage{stage}_layer{layer}", x, dilation)
        channels.append(x.shape[-1])
    return dense_head(net, x), channels


@pytest.fixture(scope="module", params=others_slow([("zero", 1), ("bmxnet", 2), ("zero", 2)], 2), ids=str)
def net28(request):
    padding, beta = request.param
    constructor, kwargs = (BinaryDenseNet28, {}) if beta == 1 else (partial(RepBinaryDenseNet28, beta=2), {"beta": 2})
    entry = "stem_pool" if beta == 1 else "stem_conv_repeat"
    layers = ["stage1_layer6_concat", "transition1_conv", "stage2_layer1_concat", "stage4_layer4_concat"]
    net = Network(constructor, [entry, *layers, "stage4_layer5_concat"], padding=padding, **kwargs)
    net.entry = entry
    return net


def test_imagenet_stem(net28):
    expected = imagenet_stem(net28, net28.image)
    assert expected.shape == (2, 16, 8, 64 * net28.beta)
    assert_close(net28.after[net28.entry], expected)


def test_transition_and_dense_layers(net28):
    x = net28.after["stage1_layer6_concat"]
    expected = transition(net28, "transition1", x)
    assert expected.shape == (2, 8, 4, 160 * net28.beta)
    assert_close(net28.after["transition1_conv"], expected)
    assert_close(net28.after["stage2_layer1_concat"], dense_layer(net28, "stage2_layer1", expected))
    x = net28.after["stage4_layer4_concat"]
    assert_close(net28.after["stage4_layer5_concat"], dense_layer(net28, "stage4_layer5", x))


def test_head(net28):
    assert_close(net28.after["output"], dense_head(net28, net28.after["stage4_layer5_concat"]))


def test_logits(net28):
    logits, channels = forward(net28, imagenet_stem(net28, net28.image), (6, 6, 6, 5), transition)
    assert channels == [n * net28.beta for n in (448, 160, 544, 192, 576, 256, 576)]
    assert_close(net28.after["output"], logits)


def test_rep_options():
    """Solution 3 takes the first of beta^2 parts; the first layer can be repeated directly, before its BN."""
    constructor = partial(RepBinaryDenseNet28, beta=2, last_layer=3, stem="before_bn")
    net = Network(constructor, ["stem_pool", "stage4_layer5_concat"], beta=2)
    x = tile(real_conv(net, "stem_conv", net.image, 2), 2)
    assert_close(net.after["stem_pool"], max_pool(relu(batch_norm(net, "stem_bn", x)), 3, 2))
    features = net.after["stage4_layer5_concat"]
    features = relu(batch_norm(net, "final_bn", features)).mean(axis=(1, 2))[:, : 576 // 2]
    assert_close(net.after["output"], dense(net, "output", features))


@pytest.fixture(scope="module", params=others_slow(["bmxnet", "zero"], 1))
def dilated(request):
    layers = [f"stage{i}_layer{j}_concat" for i, j in ((2, 8), (3, 1), (3, 12), (4, 1))]
    return Network(BinaryDenseNet37Dilated, [*layers, "transition2_conv", "transition3_conv"], padding=request.param)


@pytest.mark.parametrize("stage, last, channels, dilation", [(3, 8, 192, 2), (4, 12, 256, 4)])
def test_dilated_layer_behind_a_transition_without_pooling(dilated, stage, last, channels, dilation):
    x = dilated.after[f"stage{stage - 1}_layer{last}_concat"]
    expected = transition(dilated, f"transition{stage - 1}", x, pooling=False)
    assert expected.shape == (2, 8, 4, channels)
    assert_close(dilated.after[f"transition{stage - 1}_conv"], expected)
    expected = dense_layer(dilated, f"stage{stage}_layer1", expected, dilation)
    assert_close(dilated.after[f"stage{stage}_layer1_concat"], expected)


def test_dilated_logits(dilated):
    def change(net, name, x):
        return transition(net, name, x, pooling=name == "transition1")

    x = imagenet_stem(dilated, dilated.image)
    logits, channels = forward(dilated, x, (6, 8, 12, 6), change, dilations=(1, 1, 2, 4))
    assert channels == [448, 128, 640, 192, 960, 256, 640]
    assert_close(dilated.after["output"], logits)


# Channels after stages and transitions.
ABLATION = {
    ("imagenet", "binary"): [320, 320, 576, 416, 672, 480, 736],
    ("imagenet", "real"): [320, 160, 416, 192, 448, 224, 480],
    ("cifar10", "binary"): [384, 384, 640, 448, 704, 512, 768],
    ("cifar10", "real"): [384, 192, 448, 224, 480, 256, 512],
}


@pytest.fixture(
    scope="module", params=others_slow([(*kind, padding) for padding in PADDINGS for kind in ABLATION], 4), ids=str
)
def net21(request):
    dataset, downsampling, padding = request.param
    constructor = partial(BinaryDenseNet21, dataset=dataset, downsampling=downsampling)
    entry = "stem_pool" if dataset == "imagenet" else "stem_conv"
    layers = [entry, "stage1_layer1_concat", "stage1_layer2_concat", "transition1_pool", "stage2_layer1_concat"]
    net = Network(constructor, layers, padding=padding)
    net.entry, net.dataset, net.downsampling = entry, dataset, downsampling
    return net


def stem21(net):
    # On CIFAR-10 the convolution is all.
    return imagenet_stem(net, net.image) if net.dataset == "imagenet" else real_conv(net, "stem_conv", net.image)


def test_old_stem(net21):
    expected = stem21(net21)
    assert expected.shape == ((2, 16, 8, 64) if net21.dataset == "imagenet" else (2, 64, 32, 128))
    assert_close(net21.after[net21.entry], expected)


def test_old_transition(net21):
    x = net21.after[net21.entry]
    assert_close(net21.after["stage1_layer1_concat"], dense_layer(net21, "stage1_layer1", x))
    expected = old_transition(net21, "transition1", net21.after["stage1_layer2_concat"], net21.downsampling)
    assert_close(net21.after["transition1_pool"], expected)
    assert_close(net21.after["stage2_layer1_concat"], dense_layer(net21, "stage2_layer1", expected))


def test_old_logits(net21):
    change = partial(old_transition, downsampling=net21.downsampling)
    logits, channels = forward(net21, stem21(net21), (2, 2, 2, 2), change)
    assert channels == ABLATION[net21.dataset, net21.downsampling]
    assert logits.shape == (2, 1000 if net21.dataset == "imagenet" else 10)
    assert_close(net21.after["output"], logits)


def test_statistics_let_both_signs_pass(net28):
    """Else the forwards above would agree whatever the convolutions behind popcounts did."""
    x = batch_norm(net28, "transition1_bn", net28.after["stage1_layer6_concat"])
    positive = (x > 0).mean(axis=(0, 1, 2))
    assert np.mean((positive > 0.05) & (positive < 0.95)) > 0.9
