"""Which network of the zoo a model is, on the model and in its files."""

import copy

import numpy as np
import pytest
import tensorflow as tf
from commands import run
from support import few_blocks, shallow_resnet20

import larq_rep
from larq_rep import training, zoo
from larq_rep.converters import loading
from larq_rep.record import Record, RecordedModel
from larq_rep_cli import runs

TINY = {"width": 4, "input_shape": (16, 8, 3), "num_classes": 5}  # networks of few layers: VGG-small


@pytest.fixture(scope="module")
def model():
    return zoo.RepVGGSmall(beta=2, method="recu", **TINY)


def test_record_builds_the_same_network(model):
    assert model.record == Record(
        "RepVGGSmall",
        {
            "beta": 2,
            "last_layer": 1,
            "stem": "before_bn",
            "bn": "after",
            "method": "recu",
            "width": 4,
            "input_shape": (16, 8, 3),
            "include_top": True,
            "num_classes": 5,
        },
    )
    again = zoo.get_model(model.record.network, **model.record.arguments)
    assert again.record == model.record
    assert [weight.shape for weight in again.weights] == [weight.shape for weight in model.weights]
    features = zoo.VGGSmall(include_top=False, input_tensor=tf.keras.Input((16, 8, 1)), width=4)
    assert features.record.arguments == {
        **{"method": "irnet", "width": 4, "input_shape": (16, 8, 1), "include_top": False, "num_classes": None}
    }


def test_record_tells_the_published_form(model):
    assert model.record.variant is zoo.get_network("RepVGGSmall").forms({"method": "recu"})[0]
    assert zoo.ResNet18(dataset="cifar100", method="irnet").record.variant is None


@pytest.fixture(scope="module", params=["model.h5", "model.keras", "saved_model"])
def file(request, model, tmp_path_factory):
    path = tmp_path_factory.mktemp("record") / request.param
    model.save(path)
    return path


@pytest.mark.parametrize("load", [tf.keras.models.load_model, loading.load], ids=["keras", "ours"])
def test_files_keep_the_record(load, model, file):
    loaded = load(str(file))
    assert loaded.record == model.record
    x = np.random.default_rng(0).normal(size=(2, 16, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(loaded(x), model(x), rtol=1e-6, atol=1e-6)


def test_what_makes_a_network_of_a_network_passes_the_record_on(model):
    base = zoo.VGGSmall(method="irnet", **TINY)
    for new in (
        larq_rep.reptran(base, 2),
        training.with_real_weights(base),
        training.with_synchronized_norms(base),
        tf.keras.models.clone_model(base),
        tf.keras.models.model_from_json(base.to_json()),
        copy.deepcopy(base),
    ):
        assert new.record == base.record


def test_models_without_a_record_stay_plain(tmp_path):
    """A model of the user's own is Keras' class, and a file of it has nothing of ours."""
    image = tf.keras.Input((8, 8, 3))
    mine = tf.keras.Model(image, tf.keras.layers.Conv2D(4, 3)(image))
    for new in (larq_rep.reptran(mine, 2), training.with_synchronized_norms(mine)):
        assert not isinstance(new, RecordedModel)
    lost = tf.keras.Model(image, zoo.VGGSmall(width=4, input_tensor=image)(image))
    assert not hasattr(lost, "record")


def test_a_run_and_an_import_have_a_record(tmp_path):
    config = training.Config(
        "VGGSmall", "digits", training.get_recipe("recu"), {"width": 4, "method": "recu"}, num_classes=10, channels=1
    )
    assert runs.network(config).record.arguments["method"] == "recu"
    weights = tmp_path / "weights.h5"
    zoo.VGGSmall(method="rbnn", **TINY).save_weights(weights)
    assert zoo.VGGSmall(method="rbnn", weights=weights, **TINY).record.arguments["method"] == "rbnn"


def test_a_file_of_a_form_evaluates_as_that_form(tmp_path):
    """`lce evaluate` needs no --set."""
    from PIL import Image

    shallow_resnet20(method="fracbnn", width=4, num_classes=2, input_shape=(8, 8, 3)).save(tmp_path / "mine.keras")
    for label in ("0", "1"):
        (tmp_path / "images" / label).mkdir(parents=True)
        Image.new("RGB", (8, 8), int(label)).save(tmp_path / "images" / label / "x.png")
    result = run("evaluate", tmp_path / "mine.keras", "--images", tmp_path / "images")
    assert result.exit_code == 0 and "less 0 0 0" in result.stderr and "assumed" not in result.stderr


@pytest.mark.parametrize(
    "name, arguments, expected",
    [
        ("ResNet20", {"method": "fracbnn", "width": 8, "num_classes": 3}, {"method": "fracbnn"}),
        ("RepResNet20", {"method": "fracbnn", "beta": 4, "width": 8}, {"method": "fracbnn"}),
        # Forms that nobody published are prepared as those for the same data set.
        ("ResNetE18", {"dataset": "cifar10", "clip_value": 1.25}, {"dataset": "cifar10", "version": 2}),
        pytest.param(
            *("ResNet18", {"dataset": "cifar100", "method": "irnet"}, {"dataset": "cifar100", "method": "real"}),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("PresBNet10", {"act1": "relu", "dataset": "cifar10"}, {"dataset": "cifar10"}), marks=pytest.mark.slow
        ),
    ],
)
def test_networks_that_exist_are_prepared_by_their_records(name, arguments, expected):
    noise = np.random.default_rng(0).integers(0, 256, (1, 40, 40, 3), np.uint8)
    base, without_beta = name.removeprefix("Rep"), {key: value for key, value in arguments.items() if key != "beta"}
    with few_blocks():
        models = zoo.get_model(name, **arguments), larq_rep.reptran(zoo.get_model(base, **without_beta))
    for model in models:
        found = zoo.preprocess_input(model, noise)
        np.testing.assert_array_equal(found, zoo.preprocess_input(base, noise, **expected))
