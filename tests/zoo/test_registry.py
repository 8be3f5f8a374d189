"""Every network of the zoo in every published form, and the records of them."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import larq as lq
import pytest
import tensorflow as tf
import typing_extensions
from forms import build, check_conversion, check_training_and_saving, forms
from support import forget

from larq_rep import zoo
from larq_rep.layers import BatchNormalization
from larq_rep.quantizers import CentredClip
from larq_rep.zoo import (
    aresbnet,
    binarydensenet,
    bireal,
    catalog,
    meliusnet,
    methods,
    presbnet,
    resnet18,
    resnet20,
    resnet_e,
    stored,
    tbn,
)

FORMS = forms(not_family="larq_zoo")
# More layers of what another network of the builder, or a small form beside it, has already, the same repeated, or by
# far more weights; `make test-all` runs these too.
DEEPER = [
    "ABCNet18",
    "AlexNet",
    "AresBNet18",
    "AresBNet34",
    "BiRealNet34",
    "BiRealNet50",
    "BiRealNet101",
    "BiRealNet152",
    "BinaryDenseNet21",
    "BinaryDenseNet37",
    "BinaryDenseNet37Ablation",
    "BinaryDenseNet37Dilated",
    "BinaryDenseNet45",
    "BENN18",
    "CBCNResNet18",
    "GroupNet18",
    "GroupNet34",
    "INQResNet18",
    "LQNetResNet34",
    "MeliusNet29",
    "MeliusNet42",
    "MeliusNet59",
    "PresBNet18",
    "PresBNet34",
    "ReActNet18",
    "ReActNet34",
    "ReActNetB",
    "ReActNetC",
    "ReCUResNet18",
    "ReCUResNet34",
    "RepBiRealNet34",
    "RepBiRealNet18",
    "RepBinaryDenseNet28",
    "RepReActNet18",
    "RepReCUResNet18",
    "RepReCUResNet34",
    "RepReActNetB",
    "RepReActNetC",
    "RepResNet18",
    "RepResNet34",
    "ResNet34",
    "ResNetE34",
    "SYQResNet18",
    "TBNResNet34",
    "TTQResNet18",
    "TWNResNet18",
]
# Forms of the quantizers and shortcuts of quick ones; the tests of the command line use the last.
ALIKE = [
    "BWNResNet18()",
    "DoReFaResNet18()",
    "HWGQResNet18()",
    "LQNetResNet18()",
    "MobileNetV1(alpha=1.0)",
    "SiBNNResNet18()",
    "ResNet20(method='fracbnn')",
    "ResNet20(method='irnet_real')",
    "ResNet20(method='rbnn_bireal')",
    "ResNet20(method='real_bireal')",
    "VGGSmall(method='irnet')",
    "VGGSmall(method='recu')",
    "RepVGGSmall(method='irnet')",
]


def is_quick(name, variant):
    """The first form of each builder's smallest network, and of the smallest networks all that are not Rep networks."""
    network = zoo.get_network(name)
    small = network.family in ("resnet20", "vgg") and not name.startswith("Rep")
    quick = name not in DEEPER and (variant is network.variants[0] or small)
    return quick and catalog.key(name, variant) not in ALIKE


def each_form(is_quick):
    marks = [[] if is_quick(*form) else [pytest.mark.slow] for form in FORMS]
    params = [pytest.param(*form, id=catalog.key(*form), marks=m) for form, m in zip(FORMS, marks, strict=True)]
    return pytest.mark.parametrize("name, variant", params)


def check_clips_and_statistics(model, name, variant):
    """Which authors keep latent weights in a range, by the specifications; statistics are PyTorch's or Keras' own."""
    expected = type(None)
    if "AresBNet" in name or "SiBNN" in name or name == "BinaryConnectVGG":
        expected = lq.constraints.WeightClip
    elif variant.arguments.get("method") == "xnor" or name in ("BENN18", "BWNResNet18"):
        expected = CentredClip
    for layer in model.layers:
        if getattr(layer, "kernel_quantizer", None) is not None:
            assert type(layer.kernel_constraint) is expected, layer.name
            # BinaryConnect's learning rates are in these.
            assert getattr(layer.kernel_constraint, "clip_value", 1) == 1 or name == "BinaryConnectVGG"
        if isinstance(layer, tf.keras.layers.BatchNormalization) and name != "MobileNetV1":
            assert type(layer) is BatchNormalization, layer.name


@pytest.fixture
def forgetful():
    yield
    forget()


def check_form(name, variant, file, **narrower):
    model = build(name, variant, **narrower)
    check_clips_and_statistics(model, name, variant)
    check_training_and_saving(model, str(file))
    check_conversion(model, variant)


@each_form(lambda name, variant: False)
def test_form(name, variant, tmp_path, forgetful):
    check_form(name, variant, tmp_path / "model.h5")


@pytest.fixture
def shallow(monkeypatch):
    """Networks of one block at the stride 1 and one at 2, which have all layers of the deeper ones."""

    def stages(x, block, widths, blocks):
        return methods.stages(x, block, widths[:2], 1)

    def with_numbers(function, **numbers):
        return lambda *args, **arguments: function(*args, **{**arguments, **numbers})

    for module in (resnet18, resnet20):
        monkeypatch.setattr(module, "stages", stages)
    for module in (aresbnet, bireal, presbnet):
        monkeypatch.setattr(module, "_BLOCKS", {10: (1, 1), 18: (1, 1)})
    monkeypatch.setattr(binarydensenet, "_final", with_numbers(binarydensenet._final, layers=(2, 1, 1, 1)))
    monkeypatch.setattr(meliusnet, "_meliusnet", with_numbers(meliusnet._meliusnet, blocks=(1, 1)))
    monkeypatch.setattr(resnet_e, "_resnet_e", with_numbers(resnet_e._resnet_e, blocks=(1, 1)))
    monkeypatch.setattr(tbn, "_tbn", with_numbers(tbn._tbn, blocks=(1, 1)))


# ReActNet10 has the layers of these two.
QUICK = [form for form in FORMS if is_quick(*form) and form[0] not in ("ReActNetA", "RepReActNetA")]


@pytest.mark.parametrize("name, variant", QUICK, ids=[catalog.key(*form) for form in QUICK])
def test_shallow_form(name, variant, tmp_path, forgetful, shallow):
    """Every kind of layer of the zoo, and of the wide networks fewer channels."""
    narrower = {"width": 32} if name in ("BinaryConnectVGG", "PresBNet10", "ReActNet10", "VGGSmall") else {}
    check_form(name, variant, tmp_path / "model.h5", **narrower)


LARGE = [form for form in FORMS if form[1].dataset == "imagenet"]


@pytest.mark.slow
@pytest.mark.parametrize("name, variant", LARGE, ids=[catalog.key(*form) for form in LARGE])
def test_conversion_at_the_published_size(name, variant, forgetful):
    # Those for CIFAR have it above.
    check_conversion(build(name, variant, size=224), variant)


# Those that take longest to build; their counts are tested beside their builders.
LONG = ["BinaryDenseNet28", "MeliusNet22", "ReActNetA", "RepReActNetA", "RepResNet20"]


@each_form(lambda name, variant: name not in DEEPER + LONG and variant is zoo.get_network(name).variants[0])
def test_costs_are_those_of_the_table(name, variant, forgetful):
    """`lce zoo list` prints the table, and `lce zoo show` the layers."""
    network = zoo.get_network(name)
    cost = catalog.counted(network, variant)
    assert catalog.stored_costs().get(catalog.key(name, variant)) == catalog.costs(cost), "run `make docs`"
    if variant is network.variants[0]:
        assert stored.layers(name) == cost, "run `make docs`"


def test_page_is_that_of_the_records():
    page = Path(__file__).parents[2] / "docs/zoo.md"
    assert page.read_text(encoding="utf-8") == catalog.page(catalog.stored_costs()), "run `make docs`"


def test_stored_are_the_forms_in_their_order_and_their_records():
    found = {key: (form["name"], form["family"], form["record"]) for key, form in stored.forms().items()}
    expected = []
    for name, variant in forms():
        record = json.loads(json.dumps(catalog.record(variant)))
        expected.append((catalog.key(name, variant), (name, zoo.get_network(name).family, record)))
    assert list(found.items()) == expected, "run `make docs`"
    assert list(json.loads(stored.LAYERS.read_text())) == list(dict.fromkeys(name for name, _ in FORMS))


@pytest.mark.parametrize("name", zoo.list_models())
def test_record(name):
    network = zoo.get_network(name)
    assert network.constructor.__name__ == name == getattr(zoo, name).__name__
    assert network.constructor.__doc__
    defaults = network.parameters
    assert all(defaults[key].default == value for key, value in network.variants[0].arguments.items())
    assert network.forms({})[0] is network.variants[0]
    for variant in network.variants:
        assert variant.paper.title
        assert variant.source in ("code", "paper", "inferred", "larq_zoo")
        assert all(0 < result.top1 < 100 and result.source for result in variant.results)
        assert json.dumps(catalog.record(variant))


COMMON = ["input_shape", "input_tensor", "weights", "include_top", "num_classes"]


@pytest.mark.parametrize("name", zoo.list_models())
def test_constructors_are_what_they_seem(name):
    """Plain functions whose signatures say what they take; keywords of a Rep network are those of its base."""
    network = zoo.get_network(name)
    constructor = network.constructor
    assert constructor is getattr(zoo, name) and inspect.isfunction(constructor)
    assert not hasattr(constructor, "__wrapped__") and not hasattr(constructor, "__signature__")
    assert constructor.__code__.co_name == name and constructor.__doc__ == constructor.__code__.co_consts[0]
    own = inspect.signature(constructor).parameters
    if network.base is None:
        assert list(own)[-5:] == COMMON and list(own) == list(network.parameters)
        assert all(f"{argument}:" in constructor.__doc__ or f"{argument}," in constructor.__doc__ for argument in own)
        return
    hints = typing_extensions.get_type_hints(constructor)
    (keywords,) = typing_extensions.get_args(hints["arguments"])
    expected = typing_extensions.get_type_hints(network.base.constructor)
    del expected["return"]
    assert typing_extensions.get_type_hints(keywords) == expected
    assert list(network.parameters) == ["beta", "last_layer", "stem", "bn", *network.base.parameters]
    assert f"`{network.base.name}`" in constructor.__doc__


@pytest.mark.parametrize("name", ["ResNet20", "RepResNet20"])
def test_unknown_arguments_are_type_errors(name):
    known = ", ".join([*["beta", "last_layer", "stem", "bn"] * name.startswith("Rep"), "method", "width", *COMMON])
    with pytest.raises(TypeError, match=f"{name} has no argument 'metod'. Expected: {known}"):
        zoo.get_model(name, metod="recu")
    with pytest.raises(TypeError, match=rf"{name}\W.*'metod'"):
        getattr(zoo, name)(metod="recu")


def test_a_type_checker_knows_the_arguments(tmp_path):
    wrong = ["ReActNetA(sgin='rsign')", "RepReActNetA(sgin='rsign')", "RepReActNetA(beta='2')", "ResNet20(width='8')"]
    right = ["ReActNetA(sign='sign', weights='imagenet')", "RepReActNetA(beta=4, activation=None, num_classes=10)"]
    file = tmp_path / "calls.py"
    file.write_text("\n".join(["from larq_rep.zoo import ReActNetA, RepReActNetA, ResNet20", *wrong, *right]))
    root = Path(__file__).parents[2]
    environment = {**os.environ, "MYPYPATH": f"{root}:{root / 'runtime'}"}
    command = [sys.executable, "-m", "mypy", "--config-file", str(root / "pyproject.toml"), str(file)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=root, check=False)
    found = [line.partition("error:")[0].split(":")[-2] for line in done.stdout.splitlines() if "error:" in line]
    assert found == [str(2 + number) for number in range(len(wrong))], done.stdout + done.stderr
