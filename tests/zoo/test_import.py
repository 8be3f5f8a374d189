"""Imported checkpoints against independent float64 forwards of the authors' networks, and what is refused."""

import contextlib
import functools
import json
import struct
import zipfile
from pathlib import Path

import authors
import h5py
import larq as lq
import numpy as np
import pytest
import support
import tensorflow as tf
import torch_files
from authors import OLD_RECU_STATES, cifar
from mxnet_files import params

from larq_rep import zoo
from larq_rep.layers import Mirror
from larq_rep.quantizers import XNORSign
from larq_rep.zoo import importing
from larq_rep.zoo.checkpoint import CheckpointError, Contents, mxnet, read_state_dict
from larq_rep.zoo.families import families, load_state_dict, recognise
from larq_rep.zoo.importing import identify
from larq_rep.zoo.keys import Keys
from larq_rep.zoo.registry import DATASETS

FILES = Path(__file__).parent / "files"


@pytest.mark.parametrize("zeros", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("name", authors.small_first())
def test_outputs_are_those_of_the_authors(name, zeros, monkeypatch):
    network = authors.NETWORKS[name]
    state = network.state_dict(seed=1, zeros=zeros)
    size = min(network.input_shape[1], 64)
    # Read from a file are numbers of the tests below.
    monkeypatch.setattr(importing, "read_weights", lambda file, **how: Contents(state, [], {}))
    told = network.said if not network.untold else {"network": network.constructor, **network.arguments}
    tf.keras.backend.set_floatx("float64")
    try:
        model, report = zoo.import_checkpoint("the.pth", input_shape=(size, size, 3), **told)
    finally:
        tf.keras.backend.set_floatx("float32")
    assert report.network == network.constructor
    assert report.arguments.items() >= network.arguments.items()

    images = authors.images(name, batch=2, size=size)
    expected = network.forward(state, images)
    found = model(images.transpose(0, 2, 3, 1), training=False).numpy()
    assert np.abs(found - expected).max() <= 1e-9 * np.abs(expected).max()
    keys = [key for row in report.rows for key in row.keys]
    assert sorted({*keys, *report.unused}) == sorted(pytorch_key(key) for key in state)
    binary = any(getattr(layer, "kernel_quantizer", None) for layer in model.layers)
    real = network.said.get("step") == 1 or network.arguments.get("method") in ("real", "irnet_real")
    assert binary != real
    assert bool(report.zeros) or not (zeros and binary)
    # Too large to wait for the end of the module.
    del model
    support.forget()


def pytorch_key(key):
    return key.removeprefix("module.").replace(".gamma", ".weight").replace(".beta", ".bias")


@pytest.mark.parametrize("classes", [7, 100])
def test_identify_tells_the_number_of_classes(classes):
    state = {**authors.NETWORKS["recu_resnet20"].state_dict(), "linear.weight": np.zeros((classes, 64), np.float32)}
    assert identify(state) == ("ResNet20", {"method": "recu", "num_classes": classes})


def test_identify_does_not_take_a_bottleneck_for_aresbnet():
    """torchvision's ResNet-50 has the blocks of AresBNet34."""
    shapes = {f"layer{s}.{b}.bn3.weight": (64,) for s, n in enumerate((3, 4, 6, 3), 1) for b in range(n)}
    shapes |= {"layer1.0.conv1.weight": (64, 64, 1, 1), "fc.weight": (1000, 2048)}
    with pytest.raises(CheckpointError, match="not in the zoo"):
        identify({key: np.zeros(shape, np.float32) for key, shape in shapes.items()})


@pytest.mark.parametrize("name", OLD_RECU_STATES)
def test_identify_knows_the_old_networks_of_recu(name):
    with pytest.raises(CheckpointError, match="ReCU's code before 2021-08-08"):
        identify(OLD_RECU_STATES[name]())


def few_blocks(state, prefix):
    return {key: array for key, array in state.items() if not key.removeprefix("module.").startswith(prefix)}


@pytest.mark.parametrize(
    "name, prefix, message",
    [
        ("presb10", "feature.4.", "a PresB-Net with 3 blocks, expected 4, 8, 16"),
        ("recu_two_stage18", "layer4.3.", r"a ResNet of ReCU with \(4, 4, 4, 3\) binary convolutions.*\(6, 8, 12, 6\)"),
    ],
)
def test_identify_counts_blocks(name, prefix, message):
    with pytest.raises(CheckpointError, match=message):
        identify(few_blocks(authors.NETWORKS[name].state_dict(), prefix))


@pytest.mark.parametrize("scales", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_first_stage_of_recu(tmp_path, scales):
    """Whether its file has the parameters of binary convolutions, which it does not use, is not known."""
    first = authors.NETWORKS["recu_two_stage18_step1"]
    state = first.state_dict(seed=1, scales=scales, classes=10)
    (tmp_path / "stage1.pth.tar").write_bytes(torch_files.checkpoint(state))
    model, report = zoo.import_checkpoint(tmp_path / "stage1.pth.tar", step=1, input_shape=(32, 32, 3))
    assert (report.network, report.arguments) == ("ReCUResNet18", {"num_classes": 10})
    assert ("layer1.0.conv.alpha" in report.unused) == scales
    images = authors.images("recu_two_stage18", batch=2, size=32)
    expected = first.forward(state, images)
    found = model.predict(images.transpose(0, 2, 3, 1).astype(np.float32), verbose=0)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


# What is refused, with the smallest network.


def irnet(**options):
    return authors.NETWORKS["irnet_resnet20"].state_dict(**options)


def small(method=cifar.IRNet, **options):
    """With one block in each stage, as `built` builds it."""
    return cifar.resnet_state(method, [16, 32, 64], 1, **options)


def built(constructor=zoo.ResNet20, **arguments):
    with support.few_blocks(1, 1, 1):
        return constructor(**arguments)


@pytest.fixture(scope="module")
def resnet20():
    return built(method="irnet", input_tensor=Mirror(name="mirror")(tf.keras.Input((32, 32, 3))))


def with_kernel_quantizer(model, quantizer):
    """The same network with another quantizer in `layer1_0_conv1`."""

    def clone(layer):
        other = {"kernel_quantizer": quantizer} if layer.name == "layer1_0_conv1" else {}
        return type(layer).from_config({**layer.get_config(), **other})

    return tf.keras.models.clone_model(model, clone_function=clone)


def test_all_problems_are_listed_and_nothing_is_loaded(resnet20):
    before = resnet20.get_weights()
    state = {key.removeprefix("module."): array for key, array in small().items()}
    del state["layer1.0.conv1.weight"], state["bn2.running_var"]
    state["layer1.0.conv3.weight"] = np.zeros((16, 16, 3, 3), np.float32)
    state["layer2.0.conv1.weight"] = state["layer2.0.conv1.weight"].transpose(1, 0, 2, 3)
    state["linear.bias"] = np.full(10, np.nan, np.float32)
    state["bn1.weight"] = np.ones(16, np.int64)
    with pytest.raises(CheckpointError) as error:
        load_state_dict(resnet20, state)
    assert str(error.value).splitlines()[1:] == [
        "  left over: layer1.0.conv3.weight (16, 16, 3, 3)",
        "  missing: bn2.running_var (64,), for bn2/moving_variance",
        "  missing: layer1.0.conv1.weight (16, 16, 3, 3), for layer1_0_conv1/kernel",
        "  not finite: linear.bias has NaN or infinite numbers",
        "  wrong shape: layer2.0.conv1.weight (16, 32, 3, 3), expected (32, 16, 3, 3) for layer2_0_conv1/kernel",
        "  wrong type: bn1.weight int64, expected numbers with a fraction",
    ]
    for old, new in zip(before, resnet20.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("other", ["module.layer1.0.bn1.weight", "layer1.0.bn1.gamma"])
def test_two_keys_for_one_place(resnet20, other):
    state = {key.removeprefix("module."): array for key, array in small().items()}
    with pytest.raises(CheckpointError, match=f"twice: layer1.0.bn1.weight and {other}"):
        load_state_dict(resnet20, {**state, other: state["layer1.0.bn1.weight"]})


def test_networks_without_a_mirror():
    with pytest.raises(CheckpointError, match="does not begin with a Mirror"):
        load_state_dict(built(), small())


@pytest.mark.parametrize("shape", [(1, 16, 1, 1), (16, 1, 1), (16,)])
def test_axes_of_one_element_do_not_matter_for_vectors(resnet20, shape):
    state = small()
    key = next(key for key in state if key.endswith("layer1.0.bn1.weight"))
    load_state_dict(resnet20, {**state, key: state[key].reshape(shape)})
    np.testing.assert_array_equal(resnet20.get_layer("layer1_0_bn1").gamma, state[key].reshape(-1))


@pytest.mark.parametrize("shape", [(4, 4), (1, 8), (16, 2)])
def test_other_shapes_are_refused(resnet20, shape):
    state = small()
    key = next(key for key in state if key.endswith("layer1.0.bn1.weight"))
    with pytest.raises(CheckpointError, match="wrong shape: layer1.0.bn1.weight"):
        load_state_dict(resnet20, {**state, key: np.zeros(shape, np.float32)})


@pytest.mark.parametrize("flat", [False, True])
def test_both_spellings_of_binary_kernels(flat):
    states = [authors.NETWORKS["bireal18"].state_dict(flat=f) for f in (flat, not flat)]
    image = Mirror(name="mirror")(tf.keras.Input((32, 32, 3)))
    model = zoo.BiRealNet18(input_tensor=image)
    load_state_dict(model, states[0])
    kernel = model.get_layer("layer1_0_binary_conv").kernel.numpy()
    load_state_dict(model, states[1])
    np.testing.assert_array_equal(kernel, model.get_layer("layer1_0_binary_conv").kernel)
    both = {**states[0], **states[1]}
    with pytest.raises(CheckpointError, match="left over: layer1.0.binary_conv.weight "):
        load_state_dict(model, both)


def test_without_classifier(resnet20):
    model = built(include_top=False, input_tensor=Mirror(name="mirror")(tf.keras.Input((32, 32, 3))))
    report = load_state_dict(model, small())
    assert "include_top=False" in report.unused["linear.weight"] and "bn2.weight" in report.unused
    with pytest.raises(CheckpointError, match=r"left over: linear\.extra"):
        load_state_dict(resnet20, {**small(), "linear.extra": np.zeros(3, np.float32)})


def test_networks_without_a_published_layout():
    image = Mirror(name="mirror")(tf.keras.Input((32, 32, 3)))
    with pytest.raises(CheckpointError, match="no checkpoint of BinaryConnectVGG has a known layout"):
        load_state_dict(zoo.BinaryConnectVGG(width=4, input_tensor=image), small())
    with pytest.raises(CheckpointError, match="no layer 'block1_rsign1'"):
        load_state_dict(zoo.ReActNetA(sign="sign", input_tensor=image), authors.NETWORKS["adambnn"].state_dict())
    with pytest.raises(CheckpointError, match="Build it with padding='bmxnet'"):
        load_state_dict(zoo.BinaryDenseNet13(input_tensor=image), {})


def test_counts_of_undecided_signs(resnet20):
    state = small()
    key = next(key for key in state if key.endswith("layer1.0.conv1.weight"))
    # Filter 0 has the mean 0 and two weights at it; filter 1 has one that is nearly its mean.
    kernel = state[key] = np.zeros((16, 16, 3, 3), np.float64)
    rows = kernel.reshape(16, -1)
    rows[:] = np.where(np.arange(144) % 2, 1.0, -1.0)
    rows[0, :2] = 0
    rows[1, :2] = 1e-9, -1e-9
    report = load_state_dict(resnet20, state)
    assert report.zeros["layer1_0_conv1"] == 2 and report.close["layer1_0_conv1"] == 2


@pytest.mark.parametrize("quantizer", ["xnor_sign", "magnitude_aware_sign", "approx_sign", "dorefa_sign"])
def test_zeros_of_every_sign_are_counted(resnet20, quantizer):
    """Whatever takes the sign of the kernel itself."""
    model = with_kernel_quantizer(resnet20, quantizer)
    key = "layer1.0.conv1.weight"
    state = {**small(), key: np.where(np.arange(2304).reshape(16, 16, 3, 3) < 3, 0, 1e-12)}
    report = load_state_dict(model, state)
    assert report.zeros["layer1_0_conv1"] == 3 and "layer1_0_conv1" not in report.close


def test_zeros_of_an_imported_xnor_network_are_counted():
    image = Mirror(name="mirror")(tf.keras.Input((32, 32, 3)))
    model = zoo.ResNet18(method="xnor", input_tensor=image, num_classes=10)
    names = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    state = {}
    for layer in model.layers:
        for weight in layer.weights if layer.name != "mirror" else []:
            name = weight.name.split("/")[-1].removesuffix(":0")
            key = f"{layer.name.replace('_', '.')}.{names.get(name, name).replace('kernel', 'weight')}"
            state[key] = np.full(weight.shape[::-1], 0.5, np.float32)
    state["layer1.0.conv1.weight"].reshape(-1)[:3] = 0
    assert type(model.get_layer("layer1_0_conv1").kernel_quantizer) is XNORSign
    assert load_state_dict(model, state).zeros == {"layer1_0_conv1": 3}


@pytest.mark.parametrize("quantizer", [lq.quantizers.DoReFa(1, mode="weights"), lq.quantizers.SteTern(), None])
def test_zeros_that_are_the_same_in_pytorch_are_not_counted(resnet20, quantizer):
    model = with_kernel_quantizer(resnet20, quantizer)
    report = load_state_dict(model, {**small(), "layer1.0.conv1.weight": np.zeros((16, 16, 3, 3))})
    assert "layer1_0_conv1" not in report.zeros


class OwnSign(lq.quantizers.SteSign):
    def call(self, inputs):
        return super().call(inputs - 0.5)


class AnsweringSign(OwnSign):
    call = OwnSign.call

    def value(self, x):
        return x - 0.5


@pytest.mark.parametrize(
    "quantizer", [OwnSign(), lambda x: tf.sign(x), lq.utils.set_precision(1)(lambda x: tf.sign(x))]
)
def test_a_sign_that_is_not_known_is_refused(resnet20, quantizer):
    model = with_kernel_quantizer(resnet20, quantizer)
    before = model.get_weights()
    with pytest.raises(CheckpointError, match="unknown sign: kernel quantizer of layer1_0_conv1: .* does not say"):
        load_state_dict(model, small())
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_sign_of_your_own_says_what_it_is_taken_of(resnet20):
    state = {**small(), "layer1.0.conv1.weight": np.full((16, 16, 3, 3), 0.5)}
    report = load_state_dict(with_kernel_quantizer(resnet20, AnsweringSign()), state)
    assert report.zeros["layer1_0_conv1"] == 2304


# Files.


@pytest.mark.parametrize("name", ["torch-2.15-zip.pth.tar", "torch-2.15-legacy.pth.tar"])
def test_files_that_pytorch_wrote(name):
    """PyTorch 2.15 saved both files, with the state of an optimizer after a step, and printed the numbers."""
    expected = json.loads((FILES / "torch-2.15.json").read_text())
    arrays = read_state_dict(FILES / name)
    assert list(arrays) == list(expected)
    for key, array in arrays.items():
        np.testing.assert_array_equal(array, np.array(expected[key], array.dtype))


@pytest.mark.parametrize("legacy", [False, True])
def test_constructors_take_checkpoints(tmp_path, legacy):
    state = small(seed=3)
    file = tmp_path / "model_best.pth.tar"
    file.write_bytes(torch_files.checkpoint(state, legacy))
    model = built(method="irnet", weights=file)
    images = authors.images("irnet_resnet20", batch=2)
    expected = authors.NETWORKS["irnet_resnet20"].forward(state, images)
    found = model.predict(images.transpose(0, 2, 3, 1).astype(np.float32), verbose=0)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_import_checkpoint(tmp_path):
    """It recognises the network as far as keys and shapes decide, and does the rest as it is told."""
    (tmp_path / "recu.pth").write_bytes(torch_files.checkpoint(authors.NETWORKS["recu_resnet20"].state_dict(seed=3)))
    model, report = zoo.import_checkpoint(tmp_path / "recu.pth")
    assert (report.network, report.arguments) == ("ResNet20", {"method": "recu"})
    known = zoo.ResNet20(method="recu", weights=tmp_path / "recu.pth")
    for found, expected in zip(model.get_weights(), known.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
    model, report = zoo.import_checkpoint(tmp_path / "recu.pth", input_shape=(64, 64, 3), include_top=False)
    assert model.input_shape == (None, 64, 64, 3) and "include_top=False" in report.unused["linear.weight"]
    model, report = zoo.import_checkpoint(tmp_path / "recu.pth", "RepResNet20", beta=1)
    assert (report.network, report.arguments) == ("RepResNet20", {"method": "recu", "beta": 1})


@pytest.mark.parametrize(
    "network, arguments, error, message",
    [
        ("ResNet21", {}, ValueError, "Did you mean ResNet20"),
        ("ResNet18", {}, CheckpointError, r"irnet\.pth: (.|\n)*Its keys are those of ResNet20\."),
        (None, {"weights": "x"}, TypeError, "found weights"),
        (None, {"input_tensor": 3}, TypeError, "found input_tensor"),
        (None, {"step": 3}, ValueError, "step must be 1 or 2, found 3"),
        (None, {"method": "irnet", "step": 1}, CheckpointError, "ResNet20 is trained in one phase"),
        (None, {"max_bytes": 10}, CheckpointError, "max_bytes=10"),
        (None, {"metod": 3}, TypeError, "has no argument 'metod'"),
    ],
)
def test_what_import_checkpoint_refuses(tmp_path, network, arguments, error, message):
    (tmp_path / "irnet.pth").write_bytes(torch_files.checkpoint(irnet()))
    with pytest.raises(error, match=message):
        zoo.import_checkpoint(tmp_path / "irnet.pth", network, **arguments)


def test_import_checkpoint_wants_a_network_that_the_keys_tell(tmp_path):
    (tmp_path / "rbnn.pth").write_bytes(torch_files.checkpoint(authors.NETWORKS["rbnn_resnet20"].state_dict()))
    with pytest.raises(CheckpointError, match=r"rbnn\.pth: its keys .* 2 forms of ResNet20"):
        zoo.import_checkpoint(tmp_path / "rbnn.pth")
    _, report = zoo.import_checkpoint(tmp_path / "rbnn.pth", method="rbnn")
    assert report.arguments == {"method": "rbnn"}


def test_families():
    """Each has what the folder says, for networks that exist and no other family has, and one of them is compared."""
    compared = {network.constructor.removeprefix("Rep") for network in authors.NETWORKS.values()}
    claimed = [name for family in families().values() for name in family.NETWORKS]
    assert len(set(claimed)) == len(claimed) and set(claimed) <= set(zoo.list_models())
    for family in families().values():
        assert compared & set(family.NETWORKS)
        assert family.__doc__ and callable(family.port) and callable(family.recognises)


def test_keys_of_two_families():
    keys = Keys({"feature.1.move11.bias": np.zeros(32), "layers.15.conv3.weight": np.zeros(3)})
    with pytest.raises(CheckpointError, match="several networks, BiRealNet50 and ReActNetA"):
        recognise(keys)


def test_safetensors(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    state = small(seed=3)
    safetensors.save_file(state, tmp_path / "model.safetensors")
    model = built(method="irnet", weights=tmp_path / "model.safetensors")
    key = next(key for key in state if key.endswith("conv1.weight"))
    np.testing.assert_array_equal(model.get_layer("conv1").kernel, state[key].transpose(2, 3, 1, 0)[::-1, ::-1])


@pytest.fixture(scope="module")
def rbnn(tmp_path_factory):
    """RBNN's checkpoint, imported, the network without one, and what the import computes."""
    file = tmp_path_factory.mktemp("rbnn") / "rbnn.pth"
    file.write_bytes(torch_files.checkpoint(small(cifar.RBNN, seed=4)))
    images = authors.images("rbnn_resnet20", batch=2).transpose(0, 2, 3, 1).astype(np.float32)

    @functools.cache
    def models(rep):
        constructor = functools.partial(zoo.RepResNet20, beta=1) if rep else zoo.ResNet20
        build = functools.partial(built, constructor, method="rbnn")
        model = build(weights=file)
        return build, model, build(), model.predict(images, verbose=0)

    return images, models


@pytest.mark.parametrize(
    "suffix, rep",
    support.first_quick(
        [("-only.h5", True), (".h5", False), (".keras", False), ("-only.h5", False), (".weights.h5", False)], 1
    ),
)
def test_saved_imports_are_known_again(tmp_path, rbnn, suffix, rep):
    """RBNN's rotations, too, must be those of kernels that are mirrored."""
    images, models = rbnn
    build, model, plain, expected = models(rep)
    saved = tmp_path / f"saved{suffix}"
    if suffix in (".h5", ".keras"):
        model.save(saved)
        others = [tf.keras.models.load_model(saved, compile=False)]
    else:
        model.save_weights(saved)
        others = []
    for other in (*others, build(weights=saved)):
        np.testing.assert_array_equal(other.predict(images, verbose=0), expected)
    # Without a Mirror the kernels would be the wrong way round.
    with pytest.raises(ValueError, match="are mirrored"):
        zoo.load_weights(plain, saved)
    if suffix in (".h5", "-only.h5"):  # Keras does not look for layers that are left over in its newer files.
        with pytest.raises(ValueError):
            plain.load_weights(saved)


def test_load_weights_warns_of_its_argument_reader(tmp_path, resnet20):
    (tmp_path / "irnet.pth").write_bytes(torch_files.checkpoint(small()))
    with pytest.warns(DeprecationWarning, match="load_weights: the argument reader has no effect"):
        assert zoo.load_weights(resnet20, tmp_path / "irnet.pth", reader="torch").network == "ResNet20"


def test_mirrored_networks_take_no_other_weights(tmp_path, resnet20):
    built().save_weights(tmp_path / "plain.h5")
    with pytest.raises(ValueError, match="not mirrored"):
        zoo.load_weights(resnet20, tmp_path / "plain.h5")


def test_rotations_know_of_the_mirror_before_the_first_prediction(tmp_path):
    """A network that has predicted already computes the same with weights that come later."""
    (tmp_path / "rbnn.pth").write_bytes(torch_files.checkpoint(small(cifar.RBNN, seed=4)))
    images = authors.images("rbnn_resnet20", batch=2).transpose(0, 2, 3, 1).astype(np.float32)
    model = built(method="rbnn", input_tensor=Mirror(name="mirror")(tf.keras.Input((32, 32, 3))))
    model.predict(images, verbose=0)
    zoo.load_weights(model, tmp_path / "rbnn.pth")
    expected = built(method="rbnn", weights=tmp_path / "rbnn.pth").predict(images, verbose=0)
    np.testing.assert_array_equal(model.predict(images, verbose=0), expected)


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_files_of_keras_with_other_weights(tmp_path, suffix):
    """Keras loads what it finds in its newer formats, and leaves the rest."""
    recu = built(method="recu", width=4)
    file = tmp_path / f"recu{suffix}"
    recu.save(file) if suffix == ".keras" else recu.save_weights(file)
    model = built(method="irnet", width=4)
    before = model.get_weights()
    # Of each of the six convolutions behind the first ReCU has a scale.
    assert (len(recu.weights), len(before)) == (47, 41)
    with pytest.raises(ValueError, match="it has 47 weights, the network 41"):
        zoo.load_weights(model, file)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("config", ["[]", '{"config": []}', "{", None])
def test_damaged_files_of_keras(tmp_path, config):
    with zipfile.ZipFile(tmp_path / "x.keras", "w") as archive:
        archive.writestr("metadata.json", "{}")
        if config is not None:
            archive.writestr("config.json", config)
    with pytest.raises(ValueError, match="cannot be read as a file of Keras"):
        zoo.ResNet20(weights=tmp_path / "x.keras")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["layers"] = 3
    with pytest.raises(ValueError, match="cannot be read as a file of Keras"):
        zoo.ResNet20(weights=tmp_path / "x.h5")


def test_bombs_in_files_of_keras(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b" " * (10**8 + 1))
    with pytest.raises(ValueError, match="claims 100,000,001 bytes"):
        zoo.ResNet20(weights=tmp_path / "x.keras")


def test_published_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    folder = tmp_path / "models" / "larq_rep"
    with pytest.raises(FileNotFoundError) as error:
        zoo.RepReActNetA(weights="imagenet")
    message = str(error.value)
    assert "https://github.com/imfinethanks/Rep_AdamBNN" in message
    assert str(folder / "RepReActNetA-imagenet.pth.tar") in message
    with pytest.raises(FileNotFoundError, match="no weights file 'cifar10'"):
        zoo.ResNet20(method="irnet", weights="cifar10")
    with pytest.raises(FileNotFoundError, match="lmbxmu/RBNN"):
        zoo.ResNet20(method="rbnn", weights="cifar10")

    state = authors.NETWORKS["rbnn_resnet20"].state_dict()
    folder.mkdir(parents=True)
    (folder / "ResNet20-rbnn-cifar10.pth.tar").write_bytes(torch_files.checkpoint(state))
    model = zoo.ResNet20(method="rbnn", weights="cifar10")
    with pytest.raises(FileNotFoundError, match="ResNet20-rbnn_bireal-cifar10.pth.tar"):
        zoo.ResNet20(method="rbnn_bireal", weights="cifar10")
    key = next(key for key in state if key.endswith("linear.bias"))
    np.testing.assert_array_equal(model.get_layer("linear").bias, state[key])


def test_published_weights_with_another_hash_are_not_used(tmp_path, monkeypatch):
    from larq_rep.zoo import weights

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    folder = weights.cache_folder()
    folder.mkdir(parents=True)
    (folder / "Net-imagenet.pth.tar").write_bytes(b"abc")
    page, good = "https://example.org", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    published = {"imagenet": ("Net-imagenet", weights.Published(page, good))}
    assert weights.weights_file("Net", "imagenet", published) == folder / "Net-imagenet.pth.tar"
    (folder / "Net-imagenet.pth.tar").write_bytes(b"abd")
    with pytest.raises(ValueError, match=f"was not used: its SHA-256 is .*, expected {good}"):
        weights.weights_file("Net", "imagenet", published)


# MXNet.


@pytest.mark.parametrize("style", ["structure", "export"])
def test_params_of_bmxnet(tmp_path, style):
    """With names in Gluon's manner, in the order of the layers; an export has the statistics behind the rest."""
    state = authors.NETWORKS["resnete18_v2"].state_dict(seed=5)
    modules = list(dict.fromkeys(key.rpartition(".")[0] for key in state))
    named = {}
    for key, array in state.items():
        module, _, part = key.rpartition(".")
        number = modules.index(module)
        if style == "structure":
            named[f"features.{number}.{part}"] = array
        else:
            named[f"{'aux' if 'running' in part else 'arg'}:resnetev20_layer{number}_{part}"] = array
    if style == "export":
        named = dict(sorted(named.items(), key=lambda item: item[0].startswith("aux")))
    (tmp_path / "net.params").write_bytes(params(named))
    tf.keras.backend.set_floatx("float64")
    try:
        model = zoo.ResNetE18(version=2, padding="bmxnet", weights=tmp_path / "net.params", input_shape=(32, 32, 3))
    finally:
        tf.keras.backend.set_floatx("float32")
    images = authors.images("resnete18_v2", batch=2, size=32)
    expected = authors.NETWORKS["resnete18_v2"].forward(state, images)
    found = model(images.transpose(0, 2, 3, 1), training=False).numpy()
    assert np.abs(found - expected).max() <= 1e-9 * np.abs(expected).max()


ARRAYS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b.bias": np.array([7], np.int64)}


@pytest.mark.parametrize("version", [0xF993FAC8, 0xF993FAC9, 0xF993FACA])
def test_versions_of_params(version):
    arrays = mxnet.read_params(params(ARRAYS, version))
    assert list(arrays) == list(ARRAYS)
    for key, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[key], array)
        assert arrays[key].dtype == array.dtype


def test_damaged_params(tmp_path):
    """No change of a byte and no cut gives anything but arrays or one class of errors."""
    content = params(ARRAYS)
    rng = np.random.default_rng(0)
    for end in range(16, len(content)):
        with pytest.raises(CheckpointError):
            mxnet.read_params(content[:end])
    for _ in range(2000):
        damaged = bytearray(content)
        for position in rng.integers(16, len(content), rng.integers(1, 4)):
            damaged[position] = rng.integers(256)
        with contextlib.suppress(CheckpointError):
            mxnet.read_params(bytes(damaged))
    huge = struct.pack("<QQQIiiqqqiii", 0x112, 0, 1, 0xF993FAC9, 0, 3, 0, 2**62, 2**62, 1, 0, 0)
    with pytest.raises(CheckpointError, match="has the shape"):
        mxnet.read_params(huge)
    with pytest.raises(CheckpointError, match="missing"):
        (tmp_path / "x.params").write_bytes(content)
        zoo.MeliusNet22(padding="bmxnet", weights=tmp_path / "x.params", input_shape=(32, 32, 3))


# Images.


def test_preprocess_input():
    image = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    found = zoo.preprocess_input("ResNet20", image, method="recu")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, (image / 255 - mean) / std, atol=1e-5)
    np.testing.assert_allclose(zoo.preprocess_input("ResNet20", image, method="fracbnn"), image / 255, atol=1e-7)
    model = zoo.ResNet20(method="recu")
    np.testing.assert_array_equal(zoo.preprocess_input(model, image), found)
    lost = tf.keras.Model(model.inputs, model.outputs, name=model.name)
    with pytest.raises(ValueError, match="ResNet20 has no record.*network="):
        zoo.preprocess_input(lost, image)
    for network in ("ResNet20", zoo.get_network("ResNet20")):
        with pytest.raises(ValueError, match="prepared differently.*method='fracbnn'"):
            zoo.preprocess_input(lost, image, network=network)
        np.testing.assert_array_equal(zoo.preprocess_input(lost, image, network=network, method="recu"), found)
    # As in 0.1.0.
    np.testing.assert_array_equal(zoo.preprocess_input(network="ResNet20", images=image, method="recu"), found)


def test_forms_are_prepared_as_recorded():
    """Those of every network by its name, and those of one that exists by the arguments of the form."""
    from larq_rep.zoo.preprocess import preparation

    mean_grey = np.full((1, 224, 224, 3), 128, np.uint8)
    for name in zoo.list_models():
        network = zoo.get_network(name)
        if network.family == "larq_zoo":
            continue
        for form in network.variants:
            size = DATASETS[form.dataset].input_shape
            parameters = network.parameters
            arguments = {key: parameters[key].default for other in network.variants for key in other.arguments}
            expected = (128 / 255 - np.array(form.preprocessing.mean)) / np.array(form.preprocessing.std)
            for prepare in (
                preparation(name, form.arguments),
                preparation(name, {**arguments, **form.arguments}, size, DATASETS[form.dataset].num_classes),
            ):
                found = prepare(mean_grey)
                assert found.shape == (1, *size)
                np.testing.assert_allclose(found[0, 0, 0], expected, atol=1e-5)


def test_preparation_of_networks_that_exist():
    from larq_rep.zoo.preprocess import preparation

    noise = np.random.default_rng(0).integers(0, 256, (1, 40, 40, 3), np.uint8)
    imagenet = zoo.preprocess_input("ReActNet18", noise)
    # Fine-tuned for ten or a hundred classes it is still the network for ImageNet.
    for classes in (10, 100):
        np.testing.assert_array_equal(preparation("ReActNet18", {}, (224, 224, 3), classes)(noise), imagenet)
    cifar = zoo.preprocess_input("ReActNet18", noise, dataset="cifar100")
    assert cifar.shape == (1, 32, 32, 3)
    for name in ("ReActNet18", "RepReActNet18"):
        np.testing.assert_array_equal(preparation(name, {}, (32, 32, 3), 100)(noise), cifar)


@pytest.mark.parametrize(
    "network, arguments, message",
    [
        ("ResNet20", {"metod": "fracbnn"}, "has no argument 'metod'. Expected: method"),
        ("ReActNet18", {"dataset": "mnist"}, "no published form with dataset='mnist'"),
        ("RepResNet18", {"method": "real", "dataset": "cifar10"}, "no published form"),
        ("ResNet21", {}, "Did you mean ResNet20"),
    ],
)
def test_preprocess_input_wants_a_form(network, arguments, message):
    with pytest.raises(ValueError, match=message):
        zoo.preprocess_input(network, np.zeros((1, 32, 32, 3), np.uint8), **arguments)
    with pytest.raises(ValueError, match="at least one image"):
        zoo.preprocess_input("ReActNetA", [])


def test_preprocess_input_resizes_and_crops():
    """A grey ramp of twice the size: the middle 224 of 256 pixels."""
    ramp = np.broadcast_to(np.arange(512)[:, None, None] // 2, (512, 700, 3)).astype(np.uint8)
    found = zoo.preprocess_input("ReActNetA", [ramp])
    assert found.shape == (1, 224, 224, 3)
    levels = (found[0, :, 0, 0] * 0.229 + 0.485) * 255
    np.testing.assert_allclose(levels, np.arange(16, 240), atol=1.01)
    assert zoo.preprocess_input("ReActNetA", [ramp], input_shape=(64, 96, 3)).shape == (1, 64, 96, 3)


@pytest.mark.parametrize("image", [np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.uint8)])
def test_preprocess_input_wants_pixels(image):
    with pytest.raises(ValueError, match="expected uint8 images"):
        zoo.preprocess_input("ReActNetA", [image])
