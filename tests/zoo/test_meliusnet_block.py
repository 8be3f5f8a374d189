"""Stem, dense and improvement layers, transition, head and logits of MeliusNet-22 against float64 numpy forwards."""

import numpy as np
import pytest
from bmxnet_forward import (
    Network,
    batch_norm,
    binary_conv,
    conv,
    dense_head,
    dense_layer,
    grouped_conv,
    max_pool,
    relu,
    transition,
)
from forward import assert_close, tile, weights
from support import others_slow

from larq_rep import reptran
from larq_rep.zoo.meliusnet import MeliusNet22


def stem(net):
    x = relu(batch_norm(net, "stem_bn1", conv(net.image, weights(net.model, "stem_conv1")["kernel"], 2)))
    x = relu(batch_norm(net, "stem_bn2", grouped_conv(x, weights(net.model, "stem_conv2")["kernel"], 4)))
    x = relu(batch_norm(net, "stem_bn3", grouped_conv(x, weights(net.model, "stem_conv3")["kernel"], 8)))
    return tile(max_pool(x, 3, 2), net.beta)


def improvement_layer(net, name, x):
    y = binary_conv(net, f"{name}_conv", batch_norm(net, f"{name}_bn", x))
    assert y.shape[-1] == 64 * net.beta
    # Numbers from the front: the channels that the dense layer has added.
    old = x.shape[-1] - y.shape[-1]
    return np.concatenate([x[..., :old], x[..., old:] + y], axis=-1)


def block(net, name, x):
    return improvement_layer(net, f"{name}_improvement", dense_layer(net, f"{name}_dense", x))


@pytest.fixture(scope="module", params=others_slow([("zero", 1), ("bmxnet", 2), ("zero", 2)], 2), ids=str)
def net(request):
    padding, beta = request.param

    def constructor(**kwargs):
        model = MeliusNet22(**kwargs)
        return model if beta == 1 else reptran(model, beta=beta)

    names = ("stage1_block1", "stage1_block4", "stage4_block4")
    layers = [f"{name}_{kind}_concat" for name in names for kind in ("dense", "improvement")]
    layers += ["transition1_conv", "stage2_block1_dense_concat", "stage4_block3_improvement_concat"]
    return Network(constructor, layers, padding=padding, beta=beta)


def test_stem_and_dense_layer(net):
    expected = stem(net)
    assert expected.shape == (2, 16, 8, 64 * net.beta)
    assert_close(net.after["stage1_block1_dense_concat"], dense_layer(net, "stage1_block1_dense", expected))


@pytest.mark.parametrize("name", ["stage1_block1", "stage1_block4", "stage4_block4"])
def test_improvement_layer(net, name):
    expected = improvement_layer(net, f"{name}_improvement", net.after[f"{name}_dense_concat"])
    assert_close(net.after[f"{name}_improvement_concat"], expected)


def test_last_block(net):
    expected = block(net, "stage4_block4", net.after["stage4_block3_improvement_concat"])
    assert_close(net.after["stage4_block4_improvement_concat"], expected)


def test_transition(net):
    expected = transition(net, "transition1", net.after["stage1_block4_improvement_concat"])
    assert expected.shape == (2, 8, 4, 160 * net.beta)
    assert_close(net.after["transition1_conv"], expected)
    assert_close(net.after["stage2_block1_dense_concat"], dense_layer(net, "stage2_block1_dense", expected))


def test_head(net):
    assert_close(net.after["output"], dense_head(net, net.after["stage4_block4_improvement_concat"]))


def test_logits(net):
    x, channels = stem(net), []
    for stage, blocks in enumerate((4, 5, 4, 4), start=1):
        if stage > 1:
            x = transition(net, f"transition{stage - 1}", x)
            channels.append(x.shape[-1])
        for number in range(1, blocks + 1):
            x = block(net, f"stage{stage}_block{number}", x)
    assert [n // net.beta for n in channels] == [160, 224, 256]
    assert_close(net.after["output"], dense_head(net, x))
