"""What checkpoints tell of themselves, and what an import asks: the phase of a training, the form of a network."""

import functools
import itertools
import re

import authors
import numpy as np
import pytest
import torch_files

from larq_rep import zoo
from larq_rep.training import get_recipe
from larq_rep.zoo.checkpoint import CheckpointError
from larq_rep.zoo.importing import decide


@pytest.mark.parametrize("name", authors.small_first())
def test_what_a_checkpoint_tells_and_what_is_asked(name):
    network = authors.NETWORKS[name]
    state = network.state_dict()
    if network.untold:
        with pytest.raises(CheckpointError, match=network.untold):
            decide(state, None, {})
        return
    assert choices(decide(state, None, {}).question) == [*network.asked]
    said = dict(network.said)
    step = said.pop("step", None)
    decision = decide(state, None, said, step)
    assert decision.network == network.constructor and not decision.question
    shortcut = {"shortcut": "real"} if "shortcut" in str(network.asked) else {}
    assert decision.arguments == shortcut | network.arguments | said
    told = {"reactnet_a_step2": 2, "recu_two_stage18_step1": 1, "recu_two_stage34_step1": 1}
    assert decision.step == (step or told.get(name))


def choices(message):
    """The options that a message names, as one would add them to the command."""
    return [line[2:].partition("  ")[0] for line in message.splitlines() if line.startswith("  --")]


def layout(*patterns):
    """The keys of names with alternatives in braces, `layer{1,2}.conv.weight`; `bn.*` is a normalisation."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    keys = set()
    for pattern in patterns:
        parts = re.split(r"\{(.*?)\}", re.sub(r"\*$", "{" + ",".join(norm) + "}", pattern))
        options = [part.split(",") if i % 2 else [part] for i, part in enumerate(parts)]
        keys |= {"".join(chosen) for chosen in itertools.product(*options)}
    return keys


# As the specifications and reports of the authors' files write them.
_RESNET20 = ("conv1.weight", "bn1.*", "layer{1,2,3}.{0,1,2}.{conv1,conv2}.weight", "layer{1,2,3}.{0,1,2}.{bn1,bn2}.*")
_IRNET20 = (*_RESNET20, "bn2.*", "linear.{weight,bias}")
_BINARY20 = "layer{1,2,3}.{0,1,2}.{conv1,conv2}"
_RESNET18 = ("conv1.weight", "bn1.*", "layer{1,2,3,4}.{0,1}.{conv1,conv2}.weight", "layer{1,2,3,4}.{0,1}.{bn1,bn2}.*")
_FRACBNN = (
    "encoder.placeholder",
    "conv1.weight",
    "bn1.*",
    "layer{1,2,3}.{0,1,2}.{rprelu1,rprelu2}.{shift_x.bias,shift_y.bias,prelu.weight}",
    "layer{1,2,3}.{0,1,2}.{conv1,conv2}.weight",
    "layer{1,2,3}.{0,1,2}.{bn1,bn2,bn3,bn4}.*",
    "linear.{weight,bias}",
)
_REACTNET = (
    "feature.0.conv1.weight",
    "feature.0.bn1.*",
    "feature.{1,2,3,4,5,6,7,8,9,10,11,12,13}.{move11,move12,move13,move21,move22,move23}.bias",
    "feature.{1,2,3,4,5,6,7,8,9,10,11,12,13}.{prelu1,prelu2}.weight",
    "feature.{1,2,3,4,5,6,7,8,9,10,11,12,13}.bn1.*",
    "feature.{3,5,7,8,9,10,11,13}.bn2.*",
    "feature.{1,2,4,6,12}.{bn2_1,bn2_2}.*",
    "fc.{weight,bias}",
)
_KERNELS = (
    "feature.{1,2,3,4,5,6,7,8,9,10,11,12,13}.binary_3x3.",
    "feature.{3,5,7,8,9,10,11,13}.binary_pw.",
    "feature.{1,2,4,6,12}.{binary_pw_down1,binary_pw_down2}.",
)
_BIREAL = (
    "conv1.weight",
    "bn1.*",
    "layer{1,2,3,4}.{0,1,2,3}.bn1.*",
    "layer{2,3,4}.0.downsample.1.weight",
    "layer{2,3,4}.0.downsample.2.*",
    "fc.{weight,bias}",
)
LAYOUTS = {
    "irnet_resnet20": _IRNET20,
    "irnet_1w32a_resnet20": _IRNET20,
    "irnet_real_resnet20": _IRNET20,
    "rbnn_resnet20": (*_IRNET20, f"{_BINARY20}.{{alpha,rotate,R1,R2}}"),
    "recu_resnet20": (*_IRNET20, f"{_BINARY20}.{{alpha,tau}}"),
    "resnet20": (*_RESNET20, "linear.{weight,bias}"),
    "irnet_vgg": ("conv{0,1,2,3,4,5}.weight", "bn{0,1,2,3,4,5}.*", "fc.{weight,bias}"),
    "irnet_resnet18": (
        *_RESNET18,
        "layer{2,3,4}.0.downsample.0.weight",
        "layer{2,3,4}.0.downsample.1.*",
        "bn2.*",
        "bn3.*",
        "fc.{weight,bias}",
    ),
    "irnet_1w32a_resnet18_cifar": (
        *_RESNET18,
        "layer{2,3,4}.0.shortcut.0.weight",
        "layer{2,3,4}.0.shortcut.1.*",
        "bn2.*",
        "linear.{weight,bias}",
    ),
    "fracbnn_1bit": _FRACBNN,
    "fracbnn": (*_FRACBNN, "layer{1,2,3}.{0,1,2}.{conv1,conv2}.threshold"),
    "reactnet_a_step1": (*_REACTNET, *(f"{kernel}weight" for kernel in _KERNELS)),
    "reactnet_a_step2": (*_REACTNET, *(f"{kernel}weights" for kernel in _KERNELS)),
    "bireal18": (*_BIREAL, "layer{1,2,3,4}.{0,1,2,3}.binary_conv.weights"),
    "react_resnet18": (
        *_BIREAL,
        "layer{1,2,3,4}.{0,1,2,3}.binary_conv.weight",
        "layer{1,2,3,4}.{0,1,2,3}.{move0,move1,move2}.bias",
        "layer{1,2,3,4}.{0,1,2,3}.prelu.weight",
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_keys_are_those_of_the_authors_files(name):
    keys = {key.removeprefix("module.") for key in authors.NETWORKS[name].state_dict()}
    assert keys == layout(*LAYOUTS[name])


@pytest.mark.parametrize(
    "name, step, message",
    [
        # Networks of one phase, and columns, which only second phases store.
        ("irnet_vgg", 1, "VGGSmall is trained in one phase. There is no step 1"),
        ("irnet_vgg", 2, "There is no step 2"),
        ("recu_resnet20", 1, "ResNet20 is trained in one phase"),
        ("bireal18", 1, "BiRealNet18 is trained in one phase"),
        ("aresb10", 1, "AresBNet10 is trained in one phase"),
        ("reactnet_a_step2", 1, "it is not of step 1: binary kernels in it are called 'weights' or are columns"),
    ],
)
def test_steps_that_cannot_be(name, step, message):
    with pytest.raises(CheckpointError, match=message):
        decide(authors.NETWORKS[name].state_dict(), None, {}, step)


@pytest.mark.parametrize("change", [lambda key, w: (key + "s", w), lambda key, w: (key, w.reshape(-1, 1))])
def test_columns_and_kernels_called_weights_are_of_a_second_phase(change):
    state = authors.NETWORKS["react_resnet18"].state_dict()
    state = dict(change(key, w) if ".binary_conv." in key else (key, w) for key, w in state.items())
    assert decide(state, None, {}).step == 2


def test_names_of_networks_do_not_answer_for_a_form():
    state = authors.NETWORKS["irnet_resnet20"].state_dict()
    for network in ("ResNet20", "RepResNet20"):
        given = {"beta": 1} if network == "RepResNet20" else {}
        assert f"3 forms of {network}" in decide(state, network, given).question
    decision = decide(state, "RepResNet20", {"beta": 1, "method": "irnet"})
    assert decision.arguments == {"method": "irnet", "beta": 1} and not decision.question
    # A network is real by its plain name, too.
    assert decide(state, None, {"method": "real"}).arguments == {"method": "irnet_real"}
    decision = decide(state, "ReActNetA", {})
    assert decision.arguments == {} and "--step 1" in decision.question


def test_first_phases_are_those_of_the_recipes():
    """A record says whether its network has one, for its Rep network and forms that were not published, too."""
    recipes = {
        "reactnet": [("ReActNetA", {}), ("ReActNetB", {}), ("ReActNetC", {}), ("ReActNetA", {"sign": "sign"})],
        "react-bireal": [("ReActNet18", {}), ("ReActNet34", {}), ("RepReActNet18", {"beta": 4})],
        "rep-adambnn": [("RepReActNetA", {"beta": 2})],
        "presbnet": [("PresBNet10", {"dataset": "cifar10"}), ("PresBNet34", {}), ("ReActNet10", {})],
        "fracbnn": [("ResNet20", {"method": "fracbnn"}), ("RepResNet20", {"method": "fracbnn_gated", "width": 4})],
        "bireal": [("BiRealNet18", {}), ("BiRealNet34", {})],
        "irnet": [("ResNet20", {}), ("ResNet20", {"method": "irnet_1w32a"}), ("RepResNet20", {"method": "irnet_real"})],
        "rbnn": [("ResNet18", {"method": "rbnn", "dataset": "cifar100"}), ("VGGSmall", {"method": "rbnn"})],
        "aresbnet": [("AresBNet18", {})],
        "binarydensenet": [("BinaryDenseNet28", {})],
        "group-net": [("GroupNet18", {"bases": 5, "scales": True}), ("GroupNet34", {})],
        "abc-net": [("ABCNet18", {}), ("ABCNet18", {"weight_bases": 1, "input_bases": 1})],
        "ttq": [("TTQResNet18", {})],
        "inq": [("INQResNet18", {"bits": 5})],
        "syq": [("SYQResNet18", {})],
        "bwn": [("BWNResNet18", {})],
        "twn": [("TWNResNet18", {"width": 96})],
        "cbcn": [("CBCNResNet18", {})],
        "lq-nets": [("LQNetResNet34", {})],
    }
    for recipe, networks in recipes.items():
        first = get_recipe(recipe).phases[0]
        expected = "real weights" if first.weights == "real" else ""
        for network, arguments in networks:
            assert zoo.get_network(network).first_phase(arguments) == expected, (network, arguments)


def test_constructors_do_not_guess_a_method(tmp_path):
    """The default is no answer, also where the keys are not those of the default."""
    methods = {"irnet": ["irnet", "irnet_1w32a", "irnet_real"], "rbnn": ["rbnn", "rbnn_bireal"]}
    for method, others in methods.items():
        file = tmp_path / f"{method}.pth"
        file.write_bytes(torch_files.checkpoint(authors.NETWORKS[f"{method}_resnet20"].state_dict()))
        for weights in (file, f"{tmp_path}/./{method}.pth"):
            with pytest.raises(
                CheckpointError, match=rf"zoo\.import_checkpoint\(.* with method='{method}' or with"
            ) as error:
                zoo.ResNet20(weights=weights)
            assert choices(str(error.value)) == [f"--set method={other}" for other in others]
    assert zoo.ResNet20(method="rbnn_bireal", weights=file).record.arguments["method"] == "rbnn_bireal"


def test_constructors_do_not_guess_a_phase(tmp_path, monkeypatch):
    """Whatever arguments they are given: none says the phase. Published weights by their name are of the last."""
    (tmp_path / "fracbnn.pth").write_bytes(torch_files.checkpoint(authors.NETWORKS["fracbnn_1bit"].state_dict()))
    for constructor in (zoo.ResNet20, functools.partial(zoo.RepResNet20, beta=1)):
        with pytest.raises(
            CheckpointError, match=r"zoo\.import_checkpoint\(file, \.\.\.\) with step=1 or with step=2\."
        ) as error:
            constructor(method="fracbnn", weights=tmp_path / "fracbnn.pth")
        assert choices(str(error.value)) == ["--step 1", "--step 2"]
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    place = tmp_path / "models" / "larq_rep" / "ResNet20-fracbnn_gated-cifar10.pth.tar"
    place.parent.mkdir(parents=True)
    place.write_bytes(torch_files.checkpoint(authors.NETWORKS["fracbnn"].state_dict()))
    model = zoo.ResNet20(method="fracbnn_gated", weights="cifar10")
    assert model.get_layer("conv1").kernel_quantizer


def test_keys_of_no_known_network_are_not_guessed_either(tmp_path):
    """They fit a form that one names, ReActNet-18 with plain signs, in both phases."""
    state = authors.NETWORKS["bireal18"].state_dict(flat=False)
    (tmp_path / "plain.pth").write_bytes(torch_files.checkpoint(state))
    arguments = {"sign": "sign", "activation": None, "input_shape": (32, 32, 3)}
    with pytest.raises(CheckpointError) as error:
        zoo.import_checkpoint(tmp_path / "plain.pth", "ReActNet18", **arguments)
    assert choices(str(error.value)) == ["--step 1", "--step 2"]
    assert decide(state, "ReActNet18", arguments, step=1)[2:4] == (1, "")
    assert decide(state, None, {})[:1] == ("BiRealNet18",)


def test_files_that_do_not_fit_are_refused_before_anything_is_asked(tmp_path):
    """An answer would be of no use while keys are missing or left over."""
    state = authors.NETWORKS["irnet_resnet20"].state_dict()
    surplus = {**state, "teacher.conv.weight": np.ones(3, "f4")}
    headless = {key: array for key, array in state.items() if not key.startswith("linear.")}
    for name, changed, remedy in (("s", surplus, "--ignore 'teacher.*'"), ("h", headless, "--set include_top=False")):
        (tmp_path / name).write_bytes(torch_files.checkpoint(changed))
        with pytest.raises(CheckpointError) as error:
            zoo.import_checkpoint(tmp_path / name)
        assert remedy in str(error.value) and not choices(str(error.value))
    with pytest.raises(CheckpointError) as error:
        zoo.import_checkpoint(tmp_path / "s", ignore=["teacher.*"])
    assert len(choices(str(error.value))) == 3


def test_kernels_of_signs_are_of_a_second_phase():
    """No first phase, and no real network, has kernels of +1 and -1."""
    state = authors.NETWORKS["react_resnet18"].state_dict()
    signs = {key: np.sign(w).astype("i1") if ".binary_conv." in key else w for key, w in state.items()}
    assert decide(signs, None, {})[2:4] == (2, "")
    with pytest.raises(CheckpointError, match=r"it is not of step 1: .* int8"):
        decide(signs, None, {}, step=1)
    state = authors.NETWORKS["irnet_resnet20"].state_dict()
    signs = {key: np.sign(w).astype("i1") if re.search(r"layer.*conv", key) else w for key, w in state.items()}
    assert choices(decide(signs, None, {}).question) == ["--set method=irnet", "--set method=irnet_1w32a"]
    state = authors.NETWORKS["react_resnet18_cifar100"].state_dict()
    for binary, asked in ((r"binary_conv", ["real", "binary"]), (r"binary_conv|downsample\.1\.", [])):
        signs = {
            key: np.sign(w).astype("i1") if re.search(binary, key) and w.ndim == 4 else w for key, w in state.items()
        }
        decision = decide(signs, None, {})
        assert choices(decision.question) == [f"--set shortcut={value}" for value in asked]
    assert decision.arguments["shortcut"] == "binary" and decision.step == 2


def test_a_rep_network_is_not_its_base(tmp_path):
    """Neither has the keys of the other, so the answer to a question would be of no use."""
    for name, network in (("rep_adambnn", "ReActNetA"), ("adambnn", "RepReActNetA")):
        assert not decide(authors.NETWORKS[name].state_dict(), network, {}).recognised
    assert decide(authors.NETWORKS["adambnn"].state_dict(), "RepReActNetA", {"beta": 1}).recognised
    (tmp_path / "base.pth").write_bytes(torch_files.checkpoint(authors.NETWORKS["irnet_resnet20"].state_dict()))
    with pytest.raises(CheckpointError, match="Its keys are those of ResNet20"):
        zoo.RepResNet20(weights=tmp_path / "base.pth")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", ["net.h5", "net.keras"])
def test_constructors_know_a_checkpoint_by_its_content(tmp_path, name, legacy):
    state = authors.NETWORKS["irnet_resnet20"].state_dict()
    (tmp_path / name).write_bytes(torch_files.checkpoint(state, legacy=legacy))
    with pytest.raises(CheckpointError, match="3 forms of ResNet20"):
        zoo.ResNet20(weights=tmp_path / name)


@pytest.mark.parametrize("wrong", [{"network": 3}, {"key": 3}, {"ignore": [3]}, {"key": b"a"}])
def test_names_are_strings(tmp_path, wrong):
    with pytest.raises(TypeError, match="expected the name of a network|key should be a name and ignore"):
        zoo.import_checkpoint(tmp_path / "net.pth", **wrong)
