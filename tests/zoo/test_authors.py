"""The forwards that imported checkpoints are compared with are themselves compared, with what the specifications print.

Most networks run in the slow tests only; each kind of block runs in a fast one.
"""

import importlib.util
import re

import authors
import numpy as np
import pytest
import tensorflow as tf
from authors import cifar, fracbnn, presbnet, primitives
from authors.tensors import Tensors, Writer


def unused(network):
    """The expression for the keys of a network's tensors that its forward never reads."""
    return rf"(module\.)?(.*num_batches_tracked|{network.unused})"


def networks(names):
    return [pytest.param(n, marks=[] if authors.NETWORKS[n].fast else pytest.mark.slow) for n in names]


def small_images(name):
    return authors.images(name, size=32)


def trained(state):
    """Elements of the tensors that are parameters and no buffers, by key."""
    buffer = re.compile(r".*(running_mean|running_var|num_batches_tracked|R1|R2|tau|placeholder)")
    return {key: values.size for key, values in state.items() if not buffer.fullmatch(key)}


@pytest.fixture(autouse=True)
def in_numpy(monkeypatch):
    monkeypatch.setattr(primitives, "backend", "numpy")


@pytest.mark.parametrize("name", networks(authors.NETWORKS))
def test_counts_and_use(name, monkeypatch):
    """Entries and parameters are the printed ones, and the forward reads all but what is said to be unused."""
    network = authors.NETWORKS[name]
    state = network.state_dict(zeros=True)
    sizes = trained(state)
    dead = sum(size for key, size in sizes.items() if re.fullmatch(unused(network), key))
    assert sum(sizes.values()) - dead * network.without_unused == network.parameters
    assert network.unused_parameters in (None, dead)
    assert network.entries in (None, len(state))
    for key, values in state.items():
        assert values.dtype == (np.int64 if key.endswith("num_batches_tracked") else np.float32)

    read = set()
    get = Tensors.__getitem__
    monkeypatch.setattr(Tensors, "__getitem__", lambda self, key: read.add(self.name + key) or get(self, key))
    logits = network.forward(state, small_images(name))
    assert logits.shape[0] == 1 and logits.dtype == np.float64 and np.isfinite(logits).all()
    keys = {key.removeprefix("module.") for key in state}
    assert read <= keys
    left = {key for key in keys if re.fullmatch(unused(network), key)}
    assert keys - read == left

    monkeypatch.setattr(primitives, "sign_of_zero", 0.0)
    has_zeros = not np.array_equal(network.forward(state, small_images(name)), logits)
    assert has_zeros == (name not in ("resnet20", "irnet_real_resnet20") and "step1" not in name)


@pytest.mark.parametrize(
    "name",
    [
        "irnet_resnet20",
        "rbnn_resnet20",
        *(
            pytest.param(n, marks=pytest.mark.slow)
            for n in ("fracbnn", "adambnn", "bireal18", "presb10", "binarydensenet28")
        ),
    ],
)
def test_every_tensor_shows(name):
    """A tensor that is used moves the logits by far more than 1e-9 where its elements are one place off."""
    network = authors.NETWORKS[name]
    state, images = network.state_dict(), small_images(name)
    logits = network.forward(state, images)
    for key, values in state.items():
        if not re.fullmatch(unused(network), key):
            moved = network.forward({**state, key: np.roll(values, 1)}, images)
            assert np.abs(moved - logits).max() > 1e-4 * np.abs(logits).max(), key


@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="PyTorch is not installed")
@pytest.mark.parametrize("name", networks(authors.NETWORKS))
def test_both_implementations(name, monkeypatch):
    network = authors.NETWORKS[name]
    state, images = network.state_dict(zeros=True), small_images(name)
    logits = network.forward(state, images)
    monkeypatch.setattr(primitives, "backend", "torch")
    other = network.forward(state, images)
    assert np.abs(logits - other).max() <= 1e-12 * np.abs(other).max()


@pytest.mark.parametrize(
    "name", networks([name for name, network in authors.NETWORKS.items() if network.macs is not None])
)
def test_multiply_accumulates(name, monkeypatch):
    """Strides and sizes: the convolutions are counted in place of computed."""
    macs = 0

    def count(x, weight, stride, padding, groups):
        nonlocal macs
        height, width = (
            (n + 2 * padding - k) // stride + 1 for n, k in zip(x.shape[2:], weight.shape[2:], strict=True)
        )
        assert x.shape[1] == weight.shape[1] * groups
        macs += len(x) * height * width * weight.size
        return np.zeros((len(x), len(weight), height, width))

    monkeypatch.setattr(primitives.Numpy, "conv2d", count)
    network = authors.NETWORKS[name]
    network.forward(network.state_dict(), authors.images(name))
    assert macs == network.macs


@pytest.mark.parametrize(
    ("name", "shapes"),
    {
        "reactnet_a_step2": {
            "module.feature.1.binary_3x3.weights": (9216, 1),
            "module.feature.1.binary_pw_down2.weights": (1024, 1),
            "module.feature.3.binary_3x3.weights": (147456, 1),
            "module.feature.3.binary_pw.weights": (16384, 1),
            "module.feature.3.move11.bias": (1, 128, 1, 1),
        },
        "rep_adambnn": {
            "module.feature.1.binary_3x3.weight": (16, 64, 3, 3),
            "module.feature.1.binary_pw_down1.weight": (16, 64, 1, 1),
            "module.feature.3.binary_3x3.weight": (64, 256, 3, 3),
            "module.fc.weight": (1000, 2048),
        },
        "presb10": {
            "module.feature.0.conv.weight": (128, 3, 3, 3),
            "module.feature.0.bn.running_mean": (128,),
            "module.feature.1.Grouped3x3.conv_list.1.weight": (32, 64, 3, 3),
            "module.feature.1.Grouped3x3.leanable.0.bias": (1, 32, 1, 1),
            "module.feature.4.Grouped1x1.conv_list.0.weight": (256, 512, 3, 3),
            "module.feature.4.res_layer.1.weight": (1024, 512, 1, 1),
            "module.fc.weight": (100, 1024),
        },
        "presb18_cifar10": {"module.feature.8.bn_bottom.weight": (1024,), "module.fc.weight": (10, 1024)},
        "presb34": {"module.feature.16.act_bias2.bias": (1, 512, 1, 1), "module.fc.bias": (100,)},
        "recu_two_stage18": {
            "conv.weight": (64, 3, 7, 7),
            "bn.running_var": (64,),
            "layer1.0.move0.bias": (1, 64, 1, 1),
            "layer1.0.conv.weight": (64, 64, 3, 3),
            "layer1.0.conv.alpha": (64, 1, 1),
            "layer1.0.conv.tau": (1,),
            "layer1.0.bn.weight": (64,),
            "layer1.0.move1.bias": (1, 64, 1, 1),
            "layer1.0.nonlinear.weight": (64,),
            "layer1.0.move2.bias": (1, 64, 1, 1),
            "layer2.0.downsample.1.weight": (128, 64, 1, 1),
            "layer2.0.downsample.2.running_mean": (128,),
            "layer4.3.conv.weight": (512, 512, 3, 3),
            "fc.weight": (1000, 512),
        },
        "recu_two_stage34": {"layer3.11.conv.alpha": (256, 1, 1), "layer4.5.move2.bias": (1, 512, 1, 1)},
        "bireal50": {"module.layers.0.down_conv1x1.weight": (64, 16, 1, 1)},
        "rbnn_resnet18_cifar": {
            "layer4.0.conv1.alpha": (512, 1, 1),
            "layer4.0.conv1.rotate": (512, 1, 1, 1),
            "layer4.0.conv1.R1": (48, 48),
            "layer4.0.conv1.R2": (48, 48),
            "layer4.1.conv1.R2": (72, 72),
            "layer2.0.shortcut.0.R1": (8, 8),
            "layer3.0.shortcut.0.R2": (16, 16),
        },
        "fracbnn": {"conv1.weight": (16, 96, 3, 3), "layer1.0.conv1.threshold": (1, 16, 1, 1)},
    }.items(),
)
def test_shapes(name, shapes):
    state = authors.NETWORKS[name].state_dict()
    assert {key: state[key].shape for key in shapes} == shapes


@pytest.mark.parametrize(
    ("n", "sizes"),
    [(64, (8, 8)), (128, (8, 16)), (144, (12, 12)), (288, (16, 18)), (1152, (32, 36)), (18432, (128, 144))],
)
def test_rotations(n, sizes):
    w = Writer()
    cifar.RBNN.write(w, "conv", 2, n, 1, 1)
    for name, size in zip(("conv.R1", "conv.R2"), sizes, strict=True):
        matrix = w.state[name].astype(np.float64)
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(size), atol=1e-6)


def test_old_recu():
    """The layout of the first release: its parameters, and the keys by which it is recognised."""
    state = authors.OLD_RECU_STATES["recu_resnet20"]()
    assert sum(trained(state).values()) == 270858
    assert "layer1.0.prelu.weight" in state
    state = authors.OLD_RECU_STATES["recu_resnet18_cifar"]()
    assert sum(trained(state).values()) == 11179722
    assert "layer2.0.shortcut.0.weight" in state


ROWS = np.array([[0.1, -0.2, 0.4, 0.5], [2, -1, 0, 0.5], [0, 0, 0, 1]])[:, :, None, None]
ROTATIONS = {
    "alpha": np.array([0.5, -0.25]).reshape(2, 1, 1),
    "rotate": np.array([1.0, -0.4]).reshape(2, 1, 1, 1),
    "R1": np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]]),
    "R2": np.array([[np.cos(-0.8), -np.sin(-0.8)], [np.sin(-0.8), np.cos(-0.8)]]),
}


@pytest.mark.parametrize(
    ("method", "state", "expected"),
    [
        (cifar.IRNet, {"weight": ROWS}, [2, 1, 0]),
        (cifar.RBNN, {"weight": ROWS[:2], **ROTATIONS}, [1, 0]),
        (cifar.ReCU, {"weight": ROWS[:2], "alpha": ROTATIONS["alpha"], "tau": np.array([0.85])}, [1, -0.5]),
    ],
    ids=["IR-Net", "RBNN", "ReCU"],
)
def test_printed_vectors(method, state, expected):
    """specs/cifar-bnns.md, 2.7."""
    x = np.array([0.3, -0.7, 0.05, 2.0]).reshape(1, 4, 1, 1)
    np.testing.assert_allclose(method.conv(x, Tensors(state), padding=0).ravel(), expected, atol=1e-12)


def test_thermometer():
    """Channel 32 c + j is +1 for colours of at least 8 j + 4, and 1 more where j is even."""
    colours = np.arange(256).reshape(1, 1, 16, 16)
    images = np.concatenate([colours, 255 - colours, colours], axis=1) / 255
    bits = fracbnn.thermometer(images)
    for j in range(32):
        expected = np.where(colours[0, 0] >= 8 * j + 4 + (j % 2 == 0), 1, -1)
        np.testing.assert_array_equal(bits[0, j], expected)
        np.testing.assert_array_equal(bits[0, 32 + j], expected[::-1, ::-1])


def test_shuffle():
    x = np.arange(6).reshape(1, 6, 1, 1)
    assert presbnet.shuffle(x).ravel().tolist() == [0, 3, 1, 4, 2, 5]


def test_gated_convolution_is_two_binary_ones():
    """y = 2/3 b1 * W + mask 1/3 b0 * W, with b0 = b1 where |x| is at least 2/3, else -b1."""
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 4, 6, 6)), rng.standard_normal((5, 4, 3, 3))
    threshold = rng.standard_normal((1, 5, 1, 1))
    b1 = np.sign(x)
    b0 = np.where(np.abs(x) >= 2 / 3, b1, -b1)
    coarse, fine = (conv_in_tensorflow(b, np.sign(weight), 1, 1) for b in (b1, b0))
    expected = 2 / 3 * coarse + (2 / 3 * coarse > threshold) * fine / 3
    found = fracbnn.gated_conv(x, Tensors({"weight": weight, "threshold": threshold}))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def conv_in_tensorflow(x, weight, stride, padding, groups=1):
    padded = np.pad(x, [(0, 0), (0, 0), (padding, padding), (padding, padding)]).transpose(0, 2, 3, 1)
    parts = zip(np.split(padded, groups, axis=-1), np.split(weight, groups), strict=True)
    out = [tf.nn.conv2d(part, kernel.transpose(2, 3, 1, 0), stride, "VALID") for part, kernel in parts]
    return np.concatenate(out, axis=-1).transpose(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("size", "stride", "padding", "groups"),
    [(3, 1, 1, 1), (3, 2, 1, 1), (7, 2, 3, 1), (1, 1, 0, 1), (1, 2, 0, 1), (3, 2, 1, 2)],
)
def test_convolution(size, stride, padding, groups):
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 6, 12, 14)), rng.standard_normal((4, 6 // groups, size, size))
    found = primitives.conv2d(x, weight, stride, padding, groups)
    np.testing.assert_allclose(found, conv_in_tensorflow(x, weight, stride, padding, groups), atol=1e-12)


def test_pools():
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 10)) - 3
    nhwc = tf.constant(x.transpose(0, 2, 3, 1))
    padded = tf.pad(nhwc, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=-1e9)
    expected = tf.nn.max_pool2d(padded, 3, 2, "VALID").numpy().transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(primitives.max_pool2d(x, 3, 2, 1), expected)
    expected = tf.nn.avg_pool2d(nhwc, 2, 2, "VALID").numpy().transpose(0, 3, 1, 2)
    np.testing.assert_allclose(primitives.avg_pool2d(x), expected, atol=1e-12)


def test_norms():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 4, 3, 5)), Writer()
    w.norm("norm", 4)
    norm = Tensors(w.state).at("norm")
    statistics = (norm[name] for name in ("running_mean", "running_var", "bias", "weight"))
    expected = tf.nn.batch_normalization(x.transpose(0, 2, 3, 1), *statistics, 1e-5).numpy().transpose(0, 3, 1, 2)
    np.testing.assert_allclose(primitives.batch_norm(x, norm), expected, atol=1e-12)
    for sample, found in zip(x, primitives.group_norm(x, norm), strict=True):
        scaled = (sample - sample.mean()) / np.sqrt(sample.var() + 1e-5)
        expected = scaled * norm["weight"][:, None, None] + norm["bias"][:, None, None]
        np.testing.assert_allclose(found, expected, atol=1e-12)
