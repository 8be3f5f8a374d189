"""The forwards that imported checkpoints are compared with are themselves compared, with what the specifications print.

Most networks run in the slow tests only; each kind of block runs in a fast one.
"""

import importlib.util
import re

import authors
import numpy as np
import pytest
import tensorflow as tf
from authors import cifar, presbnet, primitives
from authors.tensors import Tensors, Writer

FAST = {
    "reactnet_a_step2", "rep_adambnn", "react_resnet18", "bireal18", "bireal50", "irnet_vgg", "irnet_resnet20",
    "irnet_resnet18", "rbnn_resnet20", "rbnn_resnet20_bireal", "rbnn_resnet18_cifar", "recu_vgg", "recu_resnet20",
    "fracbnn", "fracbnn_1bit", "resnet20", "presb10", "aresb10", "aresb10_imagenet", "binarydensenet28", "meliusnet22",
}  # fmt: skip

# Entries of the state dict (None where the specification prints no number) and parameters.
COUNTS = {
    "reactnet_a_step1": (298, 29343592),
    "reactnet_a_step2": (298, 29343592),
    "adambnn": (298, 29343592),
    "rep_adambnn": (298, 30432072),
    "react_resnet18": (186, 11704424),
    "react_resnet34": (346, 21827432),
    "bireal18": (122, 11689512),
    "bireal34": (218, 21797672),
    "bireal50": (324, 25730088),
    "irnet_vgg": (38, 4660106),
    "rbnn_vgg": (58, 4663434),
    "recu_vgg": (48, 4661770),
    "irnet_resnet20": (121, 269850),
    "rbnn_resnet20": (193, 271194),
    "rbnn_resnet20_bireal": (193, 271194),
    "recu_resnet20": (157, 270522),
    "irnet_resnet18_cifar": (127, 11174986),
    "rbnn_resnet18_cifar": (203, 11184458),
    "recu_resnet18_cifar": (141, 11005002),
    "irnet_resnet18": (132, 11692536),
    "rbnn_resnet18": (196, 11700216),
    "recu_resnet18": (159, 11694376),
    "fracbnn": (279, 287146),
    "fracbnn_1bit": (None, 286474),
    "resnet20": (None, 269722),
    # Here the parameters that are used, and the number of those that are not.
    "presb10": (None, 4718592 + 688128 + 143460, None),
    "presb10_cifar10": (None, 4718592 + 688128 + 51210, None),
    "presb18": (None, 11851620, 25088),
    "presb18_cifar10": (None, 10985472 + 688128 + 85770, 25088),
    "presb34": (None, 22019172, None),
    "presb34_cifar10": (None, 21086208 + 688128 + 152586, None),
    "aresb10": (None, 4718592 + 60964, 1024),
    "aresb10_cifar10": (None, 4718592 + 14794, 1024),
    "aresb10_imagenet": (None, 4718592 + 530472, 0),
    "aresb18": (None, 10985472 + 68644, 1024),
    "aresb18_cifar10": (None, 10985472 + 22474, 1024),
    "aresb18_imagenet": (None, 10985472 + 538152, 0),
    "aresb34": (None, 21086208 + 83492, 1024),
    "aresb34_cifar10": (None, 21086208 + 37322, 1024),
    "aresb34_imagenet": (None, 21086208 + 553000, 0),
    "react_resnet18_cifar100": (None, 10985472 + 172032 + 77540),
    "binarydensenet28": (None, 5131496),
    "meliusnet22": (None, 6944584),
    "resnete18_v1": (None, 11689646),
    # Without the norms behind the start, the blocks and the downsampling; with those in front of blocks, and the last.
    "resnete18_v2": (None, 11689646 - 128 - 7680 - 1792 + 6784 + 1024),
}

# Multiply-accumulates of all convolutions at the full size of the images, real and binary ones.
MACS = {
    "adambnn": 4816896000 + 10838016,
    "rep_adambnn": 4816896000 + 10838016,
    "react_resnet18": 1676279808 + 137793536 - 512000,
    "react_resnet34": 3525967872 + 137793536 - 512000,
    "bireal18": 1676279808 + 137793536 - 512000,
    "bireal50": 3596615680 + 569638912 - 2048000,
    "irnet_vgg": 603979776 + 3620864 - 81920,
    "irnet_resnet20": 40108032 + 442368,
    "rbnn_resnet20": 40108032 + 442368,
    "fracbnn_1bit": 54263808,
    "fracbnn": 94371840,
    "resnet20": 40551040 - 640,
    "rbnn_resnet18_cifar": 553648128 + 1774592 - 5120,
    "recu_resnet18_cifar": 547356672 + 1774592 - 5120,
    "irnet_resnet18_cifar": 547356672 + 8066048 - 5120,
    "recu_resnet18": 1676279808 + 137793536 - 512000,
    # Printed in units of 10,000 to 1,000,000.
    "presb10": pytest.approx(245.37e6 + 25.17e6 + 3538944, abs=1e4),
    "presb18": pytest.approx(547.36e6 + 25.17e6 + 3538944, abs=1e4),
    "presb34": pytest.approx(1151.34e6 + 25.17e6 + 3538944, abs=1e4),
    "aresb18": pytest.approx(547.4e6 + 1769472, abs=1e5),
    "aresb10_imagenet": pytest.approx(751.4e6 + 118013952, abs=1e5),
    "aresb18_imagenet": pytest.approx(1676.3e6 + 118013952, abs=1e5),
    "aresb34_imagenet": pytest.approx(3526.0e6 + 118013952, abs=1e5),
    "binarydensenet28": pytest.approx(201.9e6 + 3.587e9, abs=6e5),
    "resnete18_v1": 1676279808 + 137793536 - 512000,
    "resnete18_v2": 1676279808 + 137793536 - 512000,
}

UNUSED = {
    "bireal50": r"layers\.0\.down_conv1x1\.weight",
    "irnet_resnet18": r"bn3\..*",
    "rbnn_resnet18": r"bn3\..*",
    "fracbnn": r"encoder\.placeholder",
    "presb": r"layer\d\.\d\.(bn0\..*|bn_mid\..*|move5_[12]\.bias|prelu5\.weight)",
    "aresb": r"bn2\..*",
}


def unused(name):
    """The expression for the keys of a network's tensors that its forward never reads."""
    found = "" if "aresb" in name and "imagenet" in name else next((n for n in UNUSED if name.startswith(n)), "")
    return rf"(module\.)?(.*num_batches_tracked|{UNUSED.get(found, '')})"


def networks(names):
    return [pytest.param(n, marks=[] if n in FAST else pytest.mark.slow) for n in names]


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
    entries, parameters, *unread = COUNTS.get(name) or COUNTS[name.removesuffix("_step1")]
    sizes = trained(state)
    dead = sum(size for key, size in sizes.items() if re.fullmatch(unused(name), key))
    if unread:
        assert sum(sizes.values()) - dead == parameters
        assert unread[0] in (None, dead)
    else:
        assert sum(sizes.values()) == parameters
    assert entries in (None, len(state))
    for key, values in state.items():
        assert values.dtype == (np.int64 if key.endswith("num_batches_tracked") else np.float32)

    read = set()
    get = Tensors.__getitem__
    monkeypatch.setattr(Tensors, "__getitem__", lambda self, key: read.add(self.name + key) or get(self, key))
    logits = network.forward(state, small_images(name))
    assert logits.shape[0] == 1 and logits.dtype == np.float64 and np.isfinite(logits).all()
    keys = {key.removeprefix("module.") for key in state}
    assert read <= keys
    left = {key for key in keys if re.fullmatch(unused(name), key)}
    assert keys - read == left

    monkeypatch.setattr(primitives, "sign_of_zero", 0.0)
    has_zeros = not np.array_equal(network.forward(state, small_images(name)), logits)
    assert has_zeros == (name != "resnet20" and "step1" not in name)


@pytest.mark.parametrize(
    "name",
    [
        "irnet_resnet20",
        "rbnn_resnet20",
        "fracbnn",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("adambnn", "bireal18", "presb10", "binarydensenet28")),
    ],
)
def test_every_tensor_shows(name):
    """A tensor that is used moves the logits by far more than 1e-9 where its elements are one place off."""
    network = authors.NETWORKS[name]
    state, images = network.state_dict(), small_images(name)
    logits = network.forward(state, images)
    for key, values in state.items():
        if not re.fullmatch(unused(name), key):
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


@pytest.mark.parametrize("name", networks(MACS))
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
    assert macs == MACS[name]


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
    bits = cifar.thermometer(images)
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
    found = cifar.gated_conv(x, Tensors({"weight": weight, "threshold": threshold}))
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
