import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from larq_rep_runtime import preparation

from larq_rep import data, datasets, zoo
from larq_rep.checks import did_you_mean
from larq_rep.training import RECIPES, Config
from larq_rep.zoo import bmxnet, registry
from larq_rep.zoo.runs import arguments
from larq_rep_cli import light, lqr, runs
from larq_rep_cli.lce import main as lce

RECORDS = {record.name: record for record in datasets.DATASETS}
README = Path(__file__).parents[2] / "README.md"


def test_numbers_as_published():
    """As the authors of the data sets, torchvision and the networks' code print them."""
    sizes = {"imagenet": (224, 224, 3), "cifar10": (32, 32, 3), "cifar100": (32, 32, 3)}
    assert {name: RECORDS[name].input_shape for name in sizes} == sizes
    classes = {"digits": 10, "imagenet": 1000, "cifar10": 10, "cifar100": 100}
    assert {name: RECORDS[name].num_classes for name in classes} == classes
    assert RECORDS["digits"].statistics is None
    assert RECORDS["imagenet"].statistics == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert RECORDS["cifar10"].statistics == ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
    assert RECORDS["cifar100"].statistics == ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
    assert [round(255 * value, 9) for value in datasets.BMXNET_STATISTICS.mean] == [123.68, 116.779, 103.939]
    assert [round(255 * value, 9) for value in datasets.BMXNET_STATISTICS.std] == [58.393, 57.12, 57.375]


def test_the_runtime_has_the_same_numbers():
    """It imports nothing of larq_rep, so it has a copy of its own."""
    said = preparation._IMAGENET
    assert (tuple(said["mean"]), tuple(said["std"])) == datasets.IMAGENET_STATISTICS


def test_names_of_before_have_the_numbers_of_the_table():
    assert (data.IMAGENET_MEAN, data.IMAGENET_STD) == datasets.IMAGENET_STATISTICS
    assert registry.DATASETS == datasets.PUBLISHED
    assert {"imagenet", "cifar10", "cifar100"} <= {*registry.DATASETS} and "digits" not in registry.DATASETS
    assert bmxnet.IMAGENET == datasets.BMXNET_STATISTICS
    for name in ("IMAGENET", "CIFAR10", "CIFAR100"):
        assert getattr(registry, f"{name}_STATISTICS") == RECORDS[name.lower()].statistics


@pytest.mark.parametrize("record", datasets.DATASETS, ids=lambda record: record.name)
def test_a_record_is_complete(record):
    for name in (record.name, record.key):
        assert datasets.find(name) is record and name in datasets.names()
    assert RECORDS[record.form].form == record.form  # networks are published for it
    assert (record.statistics is None) == (not record.source)
    assert bool(record.archives) == bool(record.page)
    assert record.statistics is None or record.input_shape[2] == 3
    # Where a network has forms for several data sets, it gets a form that exists.
    config = Config("ReActNet18", record.key, RECIPES["irnet"], num_classes=3, channels=record.input_shape[2])
    found = arguments(config)
    assert found["dataset"] == record.form
    assert found["input_shape"][2] == record.input_shape[2] and found["num_classes"] == 3


def test_no_name_has_two_meanings():
    names = [name for record in datasets.DATASETS for name in {record.name, record.key}]
    assert sorted(names) == sorted(datasets.names())
    assert datasets.find("imagenet") is datasets.find("imagenet2012") is RECORDS["imagenet"]
    assert datasets.find("mnist") is None


def test_data_sets_of_networks_and_recipes_are_in_the_table():
    assert {form.dataset for name in zoo.list_models() for form in zoo.get_network(name).variants} <= {*RECORDS}
    assert all(datasets.find(recipe.dataset) for recipe in RECIPES.values())


@pytest.mark.parametrize("record", datasets.DATASETS, ids=lambda record: record.name)
def test_the_commands_and_the_readme_name_each(record):
    assert f"`{record.key}`" in README.read_text(encoding="utf-8")
    text = " ".join(CliRunner().invoke(lqr.main, ["train", "--help"]).stdout.split())
    assert record.name in text and record.key in text
    if record.name in datasets.PUBLISHED:
        assert record.name in CliRunner().invoke(lce, ["zoo", "list", "--help"]).stdout
        zoo.list_models(dataset=record.name)


def test_the_table_of_the_commands_is_the_same():
    theirs = [dataclasses.astuple(record) for record in light.datasets.DATASETS]
    assert theirs == [dataclasses.astuple(record) for record in datasets.DATASETS]


def test_a_folder_has_its_name_before_an_alias(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("imagenet", "imagenet2012", "digits"):
        (tmp_path / name).mkdir()
    assert datasets.find("imagenet") is None
    assert runs.absolute("imagenet") == str(tmp_path / "imagenet")
    for name in ("imagenet2012", "digits"):
        assert runs.absolute(name) == name and datasets.find(name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("vgg1", "Did you mean VGG?"), ("resnet2", "Did you mean ResNet20 or ResNet?"), ("xyz", ""), ("", "")],
)
def test_did_you_mean(name, expected):
    assert did_you_mean(name, ("ResNet", "ResNet20", "VGG")) == expected


def test_what_only_some_functions_need_is_not_imported():
    code = """
import sys
sys.modules.update(dict.fromkeys(("sklearn", "PIL", "tensorflow_datasets")))
import larq_rep, larq_rep.data, larq_rep.datasets, larq_rep.images, larq_rep.zoo, larq_rep.converters
import numpy as np
images = np.zeros((2, 40, 32, 3), np.uint8)
assert larq_rep.zoo.preprocess_input("ReActNetA", images).shape == (2, 224, 224, 3)
assert "larq_rep.training" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
