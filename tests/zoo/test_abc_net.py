"""ABC-Net: published counts, and its blocks against float64 numpy forwards of their formulas."""

import numpy as np
import pytest
from forms import check_conversion, check_training_and_saving, without_gradient
from forward import Float64, assert_close, batch_norm, conv, max_pool, sign, weights
from support import built, first_quick, images, randomize

from larq_rep import reptran
from larq_rep.cost import count
from larq_rep.zoo import ABCNet18, abc_net, get_network
from larq_rep.zoo.methods import stages

BINARY, FLOPS = 11157504, 118013952 + 512000
ONE = {"weight_bases": 1, "input_bases": 1}
PUBLISHED = [
    (ONE, {"trainable_params": 11689550, "binary_params": BINARY, "bops": 1695547392, "ops": 145018880}),
    ({}, {"trainable_params": 11689702, "binary_params": BINARY, "bops": 42388684800, "ops": 780849152}),
]


@pytest.mark.parametrize("arguments, expected", first_quick(PUBLISHED, 1), ids=str)
def test_counts(arguments, expected):
    cost = count(built("ABCNet18", **arguments))
    assert {key: getattr(cost, key) for key in expected} == expected
    assert cost.flops == FLOPS
    # Five binary kernels of a convolution have 5 x 11157504 = 55787520 bits.
    bits = BINARY if arguments else 55787520
    assert cost.trainable_bits == bits + 32 * (cost.trainable_params - BINARY)
    assert not cost.uncounted


def approximated(model, layer, x, stride=1):
    """Every binary convolution by itself, added last."""
    w = weights(model, layer)
    shifts, scales, kernel = w["shifts"], w["scales"], w["kernel"]
    assert len(shifts) == 2
    kernels = [sign(kernel - kernel.mean() + u * kernel.std()) for u in (-1, 0, 1)]
    columns = np.stack([binary.ravel() for binary in kernels], axis=1)
    alphas = np.linalg.lstsq(columns, kernel.ravel(), rcond=None)[0]
    return sum(
        a * b * conv(sign(x + v - 0.5), binary, stride)
        for a, binary in zip(alphas, kernels, strict=True)
        for b, v in zip(scales, shifts, strict=True)
    )


@pytest.fixture(scope="module")
def net():
    taps = ["layer1_0_bn1", "layer1_1_bn1", "layer2_0_bn1", "layer2_1_bn1", "pool", "layer4_1_add2"]
    # Not square: rows and columns must not be mixed up.
    return Float64(ABCNet18, taps, (64, 32, 3), weight_bases=3, input_bases=2)


def test_stem_and_end(net):
    expected = max_pool(conv(net.image, weights(net.model, "conv1")["kernel"], 2))
    assert_close(net.before["layer1_0_bn1"], expected)
    assert_close(net.before["pool"], np.maximum(batch_norm(net.model, "bn", net.after["layer4_1_add2"]), 0))


@pytest.mark.parametrize("name, stride, following", [("layer1_0", 1, "layer1_1"), ("layer2_0", 2, "layer2_1")])
def test_block(net, name, stride, following):
    model, x = net.model, net.before[f"{name}_bn1"]
    normed = batch_norm(model, f"{name}_bn1", x)
    y = approximated(model, f"{name}_conv1", normed, stride)
    y = approximated(model, f"{name}_conv2", batch_norm(model, f"{name}_bn2", y))
    if stride == 2:
        x = batch_norm(model, f"{name}_downsample_1", approximated(model, f"{name}_downsample_0", normed, 2))
    assert_close(net.before[f"{following}_bn1"], y + x)


def check_form(bases, size, file):
    model = randomize(ABCNet18(weight_bases=bases, input_bases=bases, input_shape=(size, size, 3), num_classes=10))
    check_training_and_saving(model, str(file))
    check_conversion(model, get_network("ABCNet18").variants[0])


def test_a_small_form(tmp_path, monkeypatch):
    """Four binary convolutions for each layer, of one block without and one with a shortcut of its own."""
    monkeypatch.setattr(abc_net, "stages", lambda x, block, filters, blocks: stages(x, block, (64, 40), 1))
    check_form(2, 32, tmp_path / "model.h5")


@pytest.mark.slow
@pytest.mark.parametrize("bases", [1, 2])
def test_forms_of_all_blocks(bases, tmp_path):
    """The published ones are in test_registry.py."""
    check_form(bases, 96, tmp_path / "model.h5")


@pytest.mark.slow
def test_rep_network_trains():
    model = ABCNet18(weight_bases=2, input_bases=2, input_shape=(64, 32, 3), num_classes=10)
    rep = reptran(model)
    assert without_gradient(rep, images(rep, 4), 10) == []
    before, after = count(model), count(rep)
    assert (after.bops, after.binary_params) == (before.bops, before.binary_params) and after.bops > 0
    np.testing.assert_allclose(reptran(model, 1)(images(model)), model(images(model)), rtol=1e-4, atol=1e-4)
