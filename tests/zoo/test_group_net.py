"""Group-Net: published counts, and its blocks against float64 numpy forwards of their formulas."""

import numpy as np
import pytest
from forms import check_conversion, check_training_and_saving, without_gradient
from forward import Float64, assert_close, batch_norm, conv, max_pool, sign, weights
from support import built, first_quick, images, randomize

from larq_rep import reptran
from larq_rep.cost import count
from larq_rep.zoo import GroupNet18, get_network, group_net

SCALES, SCALES_ONLY = {"scales": True}, {"scales": True, "gates": False}
STEM_AND_FC = 118013952 + 512000


def row(total, binary, bops, ops):
    return {"trainable_params": total, "binary_params": binary, "bops": bops, "ops": ops, "flops": STEM_AND_FC}


FOUR, FIVE = (44113920, 6782189568, 224497664), (55099392, 8477736960, 250990592)
PUBLISHED = [
    ("GroupNet18", {"bases": 4}, {**row(44668975, *FOUR), "MiB": 7.376}),
    ("GroupNet18", {"bases": 4, **SCALES}, row(44669071, *FOUR)),
    ("GroupNet18", {"bases": 4, **SCALES_ONLY}, row(44669064, 44113920, 6724386816, 223594496)),
    # A real shortcut for each branch, and one for all.
    ("GroupNet18", {"bases": 4, "shortcut": "real"}, {"ops": 300363776, "binary_params": 4 * 10985472}),
    ("GroupNet18", {"bases": 4, "shortcut": "real", **SCALES_ONLY}, {"ops": 242561024}),
    ("GroupNet18", {"bases": 5}, {**row(55662127, *FIVE), "MiB": 8.715}),
    ("GroupNet18", {"bases": 5, **SCALES}, row(55662231, *FIVE)),
    ("GroupNet18", {"bases": 5, **SCALES_ONLY}, row(55662224, 55099392, 8400666624, 249786368)),
    ("GroupNet34", {"bases": 4}, row(85101623, 84516864, 14180941824, 340103168)),
    ("GroupNet34", {"bases": 5}, row(106202935, 105603072, 17726177280, 395497472)),
]


@pytest.mark.parametrize("name, arguments, expected", first_quick(PUBLISHED, 1), ids=str)
def test_counts(name, arguments, expected):
    cost = count(built(name, **arguments))
    found = {key: getattr(cost, key) for key in expected if key != "MiB"}
    assert found == {key: value for key, value in expected.items() if key != "MiB"}
    assert "MiB" not in expected or round(cost.trainable_bits / 2**23, 3) == expected["MiB"]
    assert not cost.uncounted


def binary_conv(model, layer, x, stride=1):
    """Behind a border of +1: 1 less everywhere leaves zeros there."""
    w = weights(model, layer)["kernel"]
    signs = sign(w)
    return np.abs(w).mean() * (conv(sign(x) - 1, signs, stride) + signs.sum((0, 1, 2)))


def half(model, name, number, x, shortcut, stride=1):
    y = np.maximum(binary_conv(model, f"{name}_conv{number}", x, stride), 0)
    return batch_norm(model, f"{name}_bn{number}", y) + shortcut


def downsampled(net, name, x):
    w = weights(net.model, f"{name}_downsample_0")["kernel"]
    if net.shortcut == "binary":
        x, w = sign(x), np.abs(w).mean() * sign(w)
    return batch_norm(net.model, f"{name}_downsample_1", conv(x, w, 2))


def branch(net, name, number, x, stride):
    shortcut = downsampled(net, name, x) if stride == 2 else x
    y = half(net.model, f"{name}_branch{number}", 1, x, shortcut, stride)
    return half(net.model, f"{name}_branch{number}", 2, y, y)


FORMS = {
    "gates": {},
    "gates-real": {"shortcut": "real"},
    "scales": {"scales": True, "gates": False},
    "gates-scales-real": {"scales": True, "shortcut": "real"},
}
BLOCKS = {"layer1_0": None, "layer1_1": "layer1_0", "layer2_0": "layer1_1"}


@pytest.fixture(
    scope="module", params=["gates", *(pytest.param(form, marks=pytest.mark.slow) for form in [*FORMS][1:])]
)
def net(request):
    arguments = FORMS[request.param]
    end = "sum" if arguments.get("scales") else "mean"
    taps = [f"{block}_branch{number}_add2" for block in BLOCKS for number in (1, 2)]
    taps += ["bn1", *(f"{block}_{end}" for block in BLOCKS)]
    # Not square: rows and columns must not be mixed up.
    net = Float64(GroupNet18, taps, (64, 32, 3), bases=2, **arguments)
    net.end, net.gates = end, arguments.get("gates", True)
    net.scales, net.shortcut = arguments.get("scales", False), arguments.get("shortcut", "binary")
    return net


def test_stem(net):
    w = weights(net.model, "conv1")
    assert ("bias" in w) == net.scales
    u = max_pool(conv(net.image, w["kernel"], 2) + w.get("bias", 0))
    assert_close(net.after["bn1"], batch_norm(net.model, "bn1", u))


@pytest.mark.parametrize("name", BLOCKS)
def test_block(net, name):
    before, stride = BLOCKS[name], 2 if name == "layer2_0" else 1
    shared = net.after[f"{before}_{net.end}" if before else "bn1"]
    results = []
    for number in (1, 2):
        x = shared
        if before and net.gates:
            g = 1 / (1 + np.exp(-net.model.get_layer(f"{name}_gate").get_weights()[0]))
            x = g * net.after[f"{before}_branch{number}_add2"] + (1 - g) * shared
        results.append(branch(net, name, number, x, stride))
        assert_close(net.after[f"{name}_branch{number}_add2"], results[-1])
    if net.scales:
        factors = net.model.get_layer(f"{name}_sum").get_weights()[0]
        expected = factors[0] * results[0] + factors[1] * results[1]
    else:
        expected = (results[0] + results[1]) / 2
    assert_close(net.after[f"{name}_{net.end}"], expected)


def test_first_block_and_networks_without_gates_share_one_sign(net):
    names = {layer.name for layer in net.model.layers}
    assert "layer1_0_sign1" in names and "layer1_0_gate" not in names
    assert ("layer2_0_sign1" in names) == (not net.gates)
    assert ("layer2_0_branch2_sign1" in names) == net.gates
    assert len(net.model.get_layer("layer2_0_downsample_0").inbound_nodes) == (2 if net.gates else 1)


def test_branches_are_independent_behind_open_gates():
    model = randomize(GroupNet18(bases=2, input_shape=(32, 32, 3), num_classes=10))
    ends = [model.get_layer(f"layer4_1_branch{number}_add2").output for number in (1, 2)]
    branches = type(model)(model.input, ends)
    x = images(model)

    def changed_by_the_second():
        before = [y.numpy() for y in branches(x)]
        conv = model.get_layer("layer2_1_branch2_conv1")
        conv.set_weights([-w for w in conv.get_weights()])
        return [np.any(y != old) for y, old in zip(branches(x), before, strict=True)]

    assert changed_by_the_second() == [True, True]
    for layer in model.layers:
        if layer.name.endswith("_gate"):
            layer.set_weights([np.array(100.0)])
    assert changed_by_the_second() == [False, True]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"bases": 0}, "bases must be a positive number of branches, found 0"),
        ({"shortcut": "ternary"}, "shortcut must be one of 'binary', 'real', found 'ternary'"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=f"GroupNet18: {message}"):
        GroupNet18(**arguments)


def check_form(size, file):
    """Two branches, which have all layers that four have; the others are in test_registry.py."""
    model = randomize(GroupNet18(bases=2, scales=True, input_shape=(size, size, 3), num_classes=10))
    check_training_and_saving(model, str(file))
    check_conversion(model, get_network("GroupNet18").variants[0])


def test_a_small_form(tmp_path, monkeypatch):
    """Blocks without gates, with gates, and with gates and a shortcut of their own."""
    monkeypatch.setitem(group_net._BLOCKS, 18, (2, 1))
    check_form(32, tmp_path / "model.h5")


@pytest.mark.slow
def test_form_of_all_blocks(tmp_path):
    check_form(96, tmp_path / "model.h5")


@pytest.mark.slow
def test_rep_network_trains():
    model = GroupNet18(bases=2, scales=True, input_shape=(64, 32, 3), num_classes=10)
    rep = reptran(model)
    assert without_gradient(rep, images(rep, 4), 10) == []
    before, after = count(model), count(rep)
    assert (after.bops, after.binary_params) == (before.bops, before.binary_params) and after.bops > 0
    np.testing.assert_allclose(reptran(model, 1)(images(model)), model(images(model)), rtol=1e-5, atol=1e-5)
