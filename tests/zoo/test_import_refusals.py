"""What an import says of files that do not fit, and which names and numbers it takes without asking."""

import functools
import re

import authors
import numpy as np
import pytest
import tensorflow as tf
import torch_files
from mxnet_files import params

from larq_rep import zoo
from larq_rep.layers import Mirror
from larq_rep.zoo.checkpoint import CheckpointError
from larq_rep.zoo.families import load_state_dict
from larq_rep.zoo.importing import identify
from larq_rep.zoo.wrapped import read_weights

# What a ResNet-20 of IR-Net has, as the review of the field found it in files.
WRAPPERS = ["model.", "net.", "student.", "backbone.", "encoder.", "_orig_mod.", "module.module.", "a.b.c.d."]
MORE = ["module.model.", "model.module.", "_orig_mod.module.", "Net1."]


@functools.cache
def irnet():
    state = authors.NETWORKS["irnet_resnet20"].state_dict(seed=3)
    return {key.removeprefix("module."): array for key, array in state.items()}


def prefixed(prefix, state=None):
    return {f"{prefix}{key}": array for key, array in (state or irnet()).items()}


def save(folder, state, name="model.pth"):
    tensors = {key: torch_files.tensor(array, str(i)) for i, (key, array) in enumerate(state.items())}
    (folder / name).write_bytes(torch_files.zip_file({"state_dict": tensors}))
    return folder / name


@pytest.fixture(scope="module")
def resnet20():
    return zoo.ResNet20(method="irnet", input_tensor=Mirror(name="mirror")(tf.keras.Input((32, 32, 3))))


def profiled(state, prefix=""):
    """With the counts that thop adds to every module, the whole one included."""
    modules = {""} | {key.rpartition(".")[0] for key in state}
    parts = {".".join(name.split(".")[:n]) for name in modules for n in range(10)}
    counts = {f"{part}.{kind}".lstrip("."): np.zeros(1) for part in parts for kind in ("total_ops", "total_params")}
    return {f"{prefix}{key}": array for key, array in {**state, **counts}.items()}


def refused(model, state, *lines, ignored=None):
    """The lines of a refusal, which has these in this order."""
    with pytest.raises(CheckpointError) as error:
        load_state_dict(model, state, ignored)
    found = str(error.value).splitlines()
    assert len(found) <= 25 and found[0].endswith("nothing was loaded:")
    places = [next(i for i, line in enumerate(found) if text in line) for text in lines]
    assert places == sorted(places)
    return found


# Prefixes (C4).


@pytest.mark.parametrize("prefix", [*WRAPPERS, *MORE])
def test_a_prefix_that_all_keys_share_is_left_out(tmp_path, prefix):
    path = save(tmp_path, {**prefixed(prefix), f"{prefix}bn1.num_batches_tracked": np.array(3)})
    contents = read_weights(path)
    # The one `module.` that DataParallel adds was never in the way.
    assert {key.removeprefix("module.") for key in contents.arrays} == {*irnet(), "bn1.num_batches_tracked"}
    said = prefix.removesuffix("module.") if prefix in ("model.module.", "_orig_mod.module.") else prefix
    said = "module." if prefix == "module.module." else said
    assert contents.notes == [f"All keys begin with {said!r}, which was left out."]
    assert identify(contents.arrays)[0] == "ResNet20"


@pytest.mark.parametrize("prefix", ["", "module."])
def test_known_keys_stay_as_they_are(tmp_path, prefix):
    contents = read_weights(save(tmp_path, prefixed(prefix)))
    assert list(contents.arrays) == list(prefixed(prefix)) and not contents.notes


def test_a_first_part_that_a_network_has_stays(tmp_path):
    """ReActNet-A without its classifier is called `feature`, and a network of BMXNet may be called `features`."""
    state = {key: array for key, array in authors.NETWORKS["adambnn"].state_dict().items() if "fc." not in key}
    small = {key: array.reshape(-1)[:1] if "move11" not in key else array for key, array in state.items()}
    assert all("feature." in key for key in small)
    assert not read_weights(save(tmp_path, small)).notes
    (tmp_path / "net.params").write_bytes(params({"features.0.weight": np.ones((2, 2), np.float32)}))
    assert list(read_weights(tmp_path / "net.params").arrays) == ["features.0.weight"]


def test_counters_and_ignored_keys_need_no_prefix(tmp_path):
    state = {**prefixed("model."), **profiled(irnet(), "model."), "total_ops": np.zeros(1), "n_averaged": np.array(3)}
    contents = read_weights(save(tmp_path, {**state, "loss.weight": np.ones(3)}), ignore=["loss.*"])
    assert set(irnet()) < set(contents.arrays) and contents.ignored == {"loss.weight": "loss.*"}
    assert contents.notes == ["All keys begin with 'model.', which was left out."]


def test_prefixes_when_the_network_is_named(tmp_path):
    path = save(tmp_path, profiled(irnet(), "net."))
    model, report = zoo.import_checkpoint(path, "ResNet20", method="irnet")
    assert report.notes == ["All keys begin with 'net.', which was left out."]
    assert report.unused["layer1.0.conv1.total_ops"] == report.unused["total_params"] == "a count of a profiler (thop)"
    assert report.to_dict()["notes"] == report.notes
    kernel = irnet()["conv1.weight"].transpose(2, 3, 1, 0)[::-1, ::-1]
    np.testing.assert_array_equal(model.get_layer("conv1").kernel, kernel)


@pytest.mark.parametrize("outer", ["", "model."])
@pytest.mark.parametrize("inner", ["", "module."])
def test_two_networks_side_by_side(tmp_path, outer, inner):
    state = {**prefixed(f"{outer}student.{inner}"), **prefixed(f"{outer}teacher.")}
    path = save(tmp_path, {**state, "total_ops": np.zeros(1)})
    with pytest.raises(CheckpointError) as error:
        read_weights(path)
    message = str(error.value)
    assert len(message.splitlines()) == 3
    for name, other in (("student", "teacher"), ("teacher", "student")):
        pattern = f"'{outer}{other}.*'"
        assert f"{outer}{name}. ({len(irnet())} keys): ignore=[{pattern}] (lce import: --ignore {pattern})" in message
    left = read_weights(path, ignore=[f"{outer}teacher.*"]).arrays
    assert {key.removeprefix("module.") for key in left} == {*irnet(), "total_ops"}


def test_a_wrapped_network_with_its_loss(tmp_path):
    state = {**prefixed("model."), "criterion.weight": np.ones(3), "temperature": np.ones(1)}
    with pytest.raises(CheckpointError, match=r"for model\. .*--ignore 'criterion\.\*' --ignore temperature\)"):
        read_weights(save(tmp_path, state))


# Ignored keys.


def test_patterns_take_names_with_and_without_the_prefix(tmp_path):
    path = save(tmp_path, {**prefixed("model."), "model.aux.weight": np.ones(3)})
    for pattern in ("model.aux.*", "aux.*", "*.aux.weight", "aux.[vw]eight"):
        contents = read_weights(path, ignore=[pattern])
        assert set(contents.arrays) == set(irnet()) and contents.ignored == {"aux.weight": pattern}
    assert read_weights(path, ignore="aux.*").ignored == {"aux.weight": "aux.*"}


@pytest.mark.parametrize("pattern", ["teacher.*", "AUX.*", "aux", ""])
def test_a_pattern_without_a_key_is_refused(tmp_path, pattern):
    path = save(tmp_path, {**irnet(), "aux.weight": np.ones(3)})
    with pytest.raises(CheckpointError, match=rf"no key for ignore={re.escape(repr(pattern))}.*aux\.\* \(1 keys\)"):
        read_weights(path, ignore=["aux.*", pattern])
    with pytest.raises(CheckpointError, match="nothing is left"):
        read_weights(path, ignore=["*"])


def test_a_pattern_that_takes_what_a_weight_needs_is_refused(resnet20):
    state = {key: array for key, array in irnet().items() if not key.startswith("layer1.0.bn")}
    ignored = {key: "layer1.0.b*" for key in irnet() if key.startswith("layer1.0.bn")}
    refused(
        resnet20,
        state,
        "ignore=['layer1.0.b*'] (lce import: --ignore 'layer1.0.b*') takes. Mend the pattern",
        "ignored: layer1.0.bn1.bias by 'layer1.0.b*', but layer1_0_bn1/beta needs it",
        ignored=ignored,
    )


def test_ignored_keys_are_reported(resnet20):
    report = load_state_dict(resnet20, prefixed("module."), {"module.aux.weight": "*aux*"})
    assert report.unused["aux.weight"] == "ignored by '*aux*'"


# Short refusals (C3).


def test_counts_of_profilers_are_known(resnet20):
    for prefix in ("", "module."):
        report = load_state_dict(resnet20, profiled(irnet(), prefix) | profiled({}))
        assert {"total_ops", "conv1.total_params", "layer1.total_ops"} <= set(report.unused)


def test_surplus_keys_are_grouped(resnet20):
    # Counters have a place everywhere.
    teacher = {key: array for key, array in prefixed("teacher.").items() if "num_batches" not in key}
    lines = refused(
        resnet20,
        {**irnet(), **teacher, "loss.a": np.ones(3), "loss.b": np.ones(3), "single": np.ones(1)},
        "does not need: ignore=['loss.*', 'single', 'teacher.*'] (lce import: --ignore 'loss.*' --ignore single",
        "left over: loss.a (3,)",
        "left over: loss.b (3,)",
        "left over: single (1,)",
        f"left over: teacher.*: {len(teacher)} keys, such as teacher.bn1.bias (16,)",
    )
    assert len(lines) == 6


def test_surplus_keys_at_every_level_are_grouped(resnet20):
    masks = {key.replace(".weight", ".mask"): np.ones(3) for key in irnet() if key.endswith(".weight")}
    lines = refused(
        resnet20,
        {**irnet(), **masks},
        "ignore=['*.mask'] (lce import: --ignore '*.mask').",
        f"left over: *.mask: {len(masks)} keys, such as bn1.mask (3,)",
    )
    assert len(lines) == 3


def test_problems_of_one_kind_have_a_remedy(resnet20):
    lost = {key: array for key, array in irnet().items() if "layer2.0.bn1" not in key}
    refused(resnet20, lost, "the arguments that it was trained with (lce import: --set", "missing: layer2.0.bn1.bias")
    holes = {**irnet(), "linear.bias": np.full(10, np.nan, "f4")}
    refused(resnet20, holes, "Take a checkpoint from before", "not finite: linear.bias")
    integers = {**irnet(), "linear.bias": np.ones(10, "i4")}
    refused(resnet20, integers, "from before its weights were made integers", "wrong type: linear.bias int32")


def test_another_network_is_named_first_and_the_rest_is_short(resnet20):
    image = Mirror(name="mirror")(tf.keras.Input((32, 32, 3)))
    other = zoo.ResNet18(method="irnet", dataset="cifar10", input_tensor=image)
    lines = refused(other, irnet(), "Its keys are those of ResNet20. If it is that: network='ResNet20'", "left over")
    assert lines[1].startswith("Its keys are those of ResNet20.")
    assert any(line.startswith("  missing: layer4.0.conv1.weight") or "missing: ... and" in line for line in lines)
    # What is left over are the scales of another method, which are not to be ignored.
    recu = authors.NETWORKS["recu_resnet20"].state_dict()
    lines = refused(
        resnet20, recu, "Its keys are those of ResNet20 with method='recu'", "left over: layer1.0.conv1.alpha"
    )
    assert "(lce import: --set method=recu)" in lines[1] and "--ignore" not in "".join(lines)
    # Of several forms that it may be, each is named.
    lines = refused(resnet20, authors.NETWORKS["rbnn_resnet20"].state_dict(), "with method='rbnn' or method='rbnn_bi")
    assert "(lce import: --set method=rbnn or --set method=rbnn_bireal)" in lines[1]
    assert "--ignore" not in "".join(lines)
    strange = {f"p{i}.q{j}": np.ones(1) for i in range(60) for j in range(3)}
    refused(resnet20, {**strange, "a\nb\nc" * 50: np.ones(1)}, "left over: ... and", "missing: ... and")


# Numbers and shapes that can only mean one thing (C8).


def changed(key, array):
    state = dict(irnet())
    state.pop("layer1.0.conv1.weight")
    return {**state, key: array}


KERNEL = "layer1.0.conv1.weight"


@pytest.mark.parametrize("shape", [(2304, 1), (2304,), (1, 2304), (16, 16, 3, 3)])
@pytest.mark.parametrize("name", ["weight", "weights"])
def test_kernels_by_either_name_in_either_shape(resnet20, name, shape):
    array = irnet()[KERNEL]
    load_state_dict(resnet20, changed(f"layer1.0.conv1.{name}", array.reshape(shape)))
    expected = array.transpose(2, 3, 1, 0)[::-1, ::-1]
    np.testing.assert_array_equal(resnet20.get_layer("layer1_0_conv1").kernel, expected)


@pytest.mark.parametrize("shape", [(2305, 1), (1152,), (48, 48), (16, 3, 16, 3), (3, 3, 16, 16)])
@pytest.mark.parametrize("name", ["weight", "weights"])
def test_kernels_of_other_shapes_are_refused(resnet20, name, shape):
    refused(resnet20, changed(f"layer1.0.conv1.{name}", np.ones(shape, "f4")), f"wrong shape: layer1.0.conv1.{name}")


def test_signs_may_be_integers(resnet20):
    signs = np.where(irnet()[KERNEL] < 0, -1, 1)
    report = load_state_dict(resnet20, changed(KERNEL, signs.astype("i1")))
    kernel = resnet20.get_layer("layer1_0_conv1").kernel.numpy()
    np.testing.assert_array_equal(kernel, signs.transpose(2, 3, 1, 0)[::-1, ::-1])
    assert kernel.dtype == np.float32 and "layer1_0_conv1" not in report.zeros
    load_state_dict(resnet20, changed("layer1.0.conv1.weights", signs.astype("i1").reshape(-1, 1)))


@pytest.mark.parametrize("kind, least", [("i1", 0), ("i1", -128), ("i1", 3), ("i8", -1), ("u1", 1), ("b1", 1)])
def test_other_integers_are_refused(resnet20, kind, least):
    kernel = np.ones((16, 16, 3, 3)).astype(kind)
    kernel[0, 0, 0, 0] = least
    text = f"int8 with {least}, expected numbers with a fraction, or +1 and -1" if kind == "i1" else str(kernel.dtype)
    refused(resnet20, changed(KERNEL, kernel), f"wrong type: {KERNEL} {text}")


@pytest.mark.parametrize("key", ["conv1.weight", "bn1.weight", "linear.weight", "layer1.0.bn1.running_var"])
def test_integers_for_real_weights_are_refused(resnet20, key):
    refused(resnet20, {**irnet(), key: np.ones(irnet()[key].shape, "i1")}, f"wrong type: {key} int8, expected numbers")


# Errors that know the cure (C9).


def test_a_missing_classifier(resnet20):
    headless = {key: array for key, array in irnet().items() if not key.startswith("linear.")}
    cure = "no classifier 'linear'. Build the network without: include_top=False (lce import: --set include_top=False)"
    for state in (headless, {key: array for key, array in irnet().items() if key != "linear.bias"}):
        cure = cure if state is headless else "Its classifier 'linear' is not one layer. Build the network without"
        refused(resnet20, state, cure, "missing: linear.bias (10,)")
    refused(
        resnet20,
        {**headless, "head.0.weight": np.ones((9, 64))},
        "It has no classifier 'linear'",
        "ignore=['head.*'] (lce import: --ignore 'head.*')",
        "left over: head.0.weight",
    )


@pytest.mark.parametrize("prefix", ["", "module.", "model."])
@pytest.mark.parametrize("place", [0, 1, 12])
@pytest.mark.parametrize("name", ["fc", "linear"])
def test_a_classifier_in_a_sequential(tmp_path, prefix, name, place):
    state = {key.replace("linear.", f"{name}.{place}."): array for key, array in irnet().items()}
    contents = read_weights(save(tmp_path, prefixed(prefix, state)))
    network, arguments = identify(contents.arrays)
    assert network == "ResNet20" and "irnet" in arguments["method"].values
    assert {key.removeprefix("module.") for key in contents.arrays} >= {f"{name}.weight", f"{name}.bias"}
    layer = f"{prefix.replace('model.', '')}{name}.{place}"
    assert contents.notes[-1] == f"The classifier is the layer {layer!r} of a Sequential."


def test_a_classifier_of_two_layers(tmp_path, resnet20):
    state = {key.replace("linear.", "linear.1."): array for key, array in irnet().items()}
    state |= {"linear.3.weight": np.ones((10, 10), "f4"), "linear.3.bias": np.ones(10, "f4")}
    contents = read_weights(save(tmp_path, state))
    assert not contents.notes
    lines = refused(resnet20, contents.arrays, "Its classifier 'linear' is not one layer", "left over: linear.1.bias")
    assert "--ignore" not in "".join(lines)
    image = Mirror(name="mirror")(tf.keras.Input((32, 32, 3)))
    assert "linear.3.bias" in load_state_dict(zoo.ResNet20(include_top=False, input_tensor=image), state).unused


def test_another_number_of_classes(resnet20):
    state = {**irnet(), "linear.weight": np.ones((7, 64), "f4"), "linear.bias": np.ones(7, "f4")}
    cure = "It has 7 classes, the network 10: num_classes=7 (lce import: --num-classes 7)."
    refused(resnet20, state, cure, "wrong shape: linear.bias", "wrong shape: linear.weight (7, 64)")
