"""Every command prepares the same images in the same way: that of the run, of the file, of the record."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
from commands import refused, run
from PIL import Image
from support import first_quick

from larq_rep import training, zoo
from larq_rep.converters import metadata
from larq_rep_cli import lqr, runs

SIZE = 8


def linear(channels, scale=1.0, offset=0.0):
    """A network that is none of the zoo, of `scale * x + offset` for images x in 0..1; its scores are linear in x."""
    weights, bias = scores(channels)
    inputs = tf.keras.Input((SIZE, SIZE, channels))
    dense = tf.keras.layers.Dense(3)
    model = tf.keras.Model(inputs, dense(tf.keras.layers.GlobalAveragePooling2D()(inputs)), name="mine")
    dense.set_weights([weights / scale, bias - offset * (weights / scale).sum(axis=0)])
    return model


def scores(channels):
    """Weights and bias of the class whose colour is next, of three."""
    colours = np.array([[0.5, 0.9, 0.1], [0.9, 0.3, 0.2], [0.1, 0.5, 0.7]])[:channels]
    return 2 * colours, -np.square(colours).sum(axis=0)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """By channels folders `train` and `test` of class folders, as `linear` answers; the names are not in its order.

    Some are grey, some upright by EXIF only, none of the network's size.
    """
    found = {}
    for channels in (1, 3):
        root = found[channels] = tmp_path_factory.mktemp(f"pictures{channels}")
        rng, (weights, bias) = np.random.default_rng(10 * channels), scores(channels)
        seen = set()
        for number in range(30):
            colours = rng.integers(0, 256, 3 if number % 3 else 1)
            pixels = np.uint8(np.broadcast_to(colours, (11, 17, len(colours))))
            image = Image.fromarray(pixels if len(colours) == 3 else pixels[:, :, 0])
            levels = np.asarray(image.convert({1: "L", 3: "RGB"}[channels])).reshape(-1, channels)[0] / 255
            answers = levels @ weights + bias
            if np.diff(np.sort(answers))[-1] < 0.03:
                continue
            label = int(answers.argmax())
            seen.add(label)
            for split in ("train", "test"):
                (root / split / "abc"[label]).mkdir(parents=True, exist_ok=True)
                image.save(root / split / "abc"[label] / f"{number}.png")
        assert len(seen) == 3
    return found


def top1(*command, program=None):
    result = run(*command, "--json", **({} if program is None else {"program": program}))
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    return found["top1"] if "top1" in found else found["accuracy"]


@pytest.mark.parametrize("channels", [1, 3])
def test_networks_of_the_users_own(channels, pictures, tmp_path):
    """All commands take images in 0..1, and say so; with another preparation the options give it."""
    images = pictures[channels] / "test"
    for name, network in (("mine", linear(channels)), ("other", linear(channels, 4.0, -2.0))):
        keras, file = tmp_path / f"{name}.keras", tmp_path / f"{name}.tflite"
        network.save(keras)
        assert run("convert", keras, "-o", file).exit_code == 0
        assert set(metadata.read(file.read_bytes())) == {"version", "network"}
    mine = tmp_path / "mine.keras", tmp_path / "mine.tflite"
    assert top1("evaluate", mine[0], "--data", pictures[channels], program=lqr.main) == 1
    assert [top1("evaluate", source, "--images", images) for source in mine] == [1, 1]
    assert top1("verify", *mine, "--images", images, "--runtime", "lce") == {"keras": 1, "tflite": 1}
    shown = run("verify", *mine, "--images", images, "--runtime", "lce").stderr
    assert "Images: assumed" in shown and "in 0..1" in shown
    # 4 x - 2 is (x - 0.5) / 0.25.
    other, options = (tmp_path / "other.keras", tmp_path / "other.tflite"), []
    assert top1("evaluate", other[1], "--images", images) < 1
    for name, value in (("--mean", 0.5), ("--std", 0.25)):
        options += [name, ",".join([str(value)] * channels)]
    assert [top1("evaluate", source, "--images", images, *options) for source in other] == [1, 1]
    assert top1("verify", *other, "--images", images, *options, "--runtime", "lce") == {"keras": 1, "tflite": 1}


def test_names_of_classes(pictures, tmp_path):
    """`--labels` gives them in the order of the outputs; fewer folders than classes are fine then."""
    model = tmp_path / "mine.keras"
    linear(3).save(model)
    (tmp_path / "images").mkdir()
    for old, new in (("c", "cat"), ("a", "zebra")):
        (tmp_path / "images" / new).symlink_to(pictures[3] / "test" / old)
    (tmp_path / "labels.txt").write_text("zebra\nbird\ncat\n")
    command = ("evaluate", model, "--images", tmp_path / "images")
    assert "knows 3" in refused(*command)
    assert top1(*command, "--labels", tmp_path / "labels.txt") == 1
    run("convert", model, "-o", tmp_path / "mine.tflite")
    compared = ("verify", model, tmp_path / "mine.tflite", "--images", tmp_path / "images", "--runtime", "lce")
    assert top1(*compared, "--labels", tmp_path / "labels.txt") == {"keras": 1, "tflite": 1}
    (tmp_path / "labels.txt").write_text("zebra\nbird\n")
    assert "has 2 names" in refused(*command, "--labels", tmp_path / "labels.txt")
    (tmp_path / "labels.txt").write_text("zebra\nbird\ndog\n")
    assert "folder 'cat'" in refused(*command, "--labels", tmp_path / "labels.txt")
    assert "cannot be read" in refused(*command, "--labels", tmp_path / "none.txt")


@pytest.mark.parametrize(
    "options, message",
    [
        (["--mean", "0.5"], "mean and std go together"),
        (["--mean", "0.5", "--std", "nan"], "std should be 3 numbers, found (nan, nan, nan)"),
        (["--mean", "0.5,0.5,0.5"], "mean and std go together"),
        (["--std", "1,1"], "not a number a channel"),
        (["--mean", "1,1,x"], "not a number a channel"),
        (["--mean", "0,0,0", "--std", "1,0,1"], "std should be positive"),
        (["--resize", "4"], "at least 8 and at most 10000, found 4"),
        (["--resize", "100000000"], "at most 10000, found 100000000"),
    ],
)
def test_options_that_do_not_fit(options, message, pictures, tmp_path):
    linear(3).save(tmp_path / "mine.keras")
    assert message in refused("evaluate", tmp_path / "mine.keras", "--images", pictures[3] / "test", *options)


def test_verify_takes_them_with_images_only(tmp_path):
    (tmp_path / "x.tflite").write_bytes(b"")
    assert "are for --images" in refused("verify", "ResNet20", tmp_path / "x.tflite", "--mean", "0")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of a recipe with pixels in 0..1, as `lqr train` leaves it, whose answers depend on the preparation."""
    root = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in "abcd":
            (root / "data" / split / name).mkdir(parents=True)
            for i in range(8):
                pixels = rng.integers(0, 256, (rng.integers(12, 30), rng.integers(12, 30), 3), np.uint8)
                Image.fromarray(pixels).save(root / "data" / split / name / f"{i}.png")
    arguments = {"width": 4, "method": "recu", "input_size": [16, 16]}
    recipe = training.get_recipe("fracbnn")
    recipe = dataclasses.replace(recipe, phases=recipe.phases[1:])
    config = training.Config("VGGSmall", str(root / "data"), recipe, arguments, num_classes=4, channels=3)
    (root / "run" / "1-binary").mkdir(parents=True)
    config.write(root / "run")
    tf.keras.utils.set_random_seed(2)
    network = runs.network(config)
    for variable in network.variables:  # Otherwise sums of signs are exactly 0, whose sign rounding decides.
        if "bn" in variable.name or "beta" in variable.name:
            variable.assign(np.abs(variable.numpy() + rng.normal(0, 0.3, variable.shape)) + 0.01)
    network.save_weights(root / "run" / "1-binary" / "best.h5")
    assert run("convert", root / "run", "-o", root / "run.tflite").exit_code == 0
    return root


def test_a_run_and_its_file_agree(trained):
    """Though the record of the network tells another preparation, ImageNet's mean, and four other classes."""
    expected = json.loads(run("evaluate", trained / "run", "--json", program=lqr.main).stdout)
    images = trained / "data" / "test"
    for source in (trained / "run", trained / "run.tflite"):
        found = json.loads(run("evaluate", source, "--images", images, "--json").stdout)
        assert (found["images"], found["top1"]) == (32, expected["top1"])
        assert found["preparation"].endswith("in 0..1")
    options = ("--json", "--runtime", "lce", "--proof-images", 1)
    result = run("verify", trained / "run", trained / "run.tflite", "--images", images, *options)
    found = json.loads(result.stdout)
    assert found["accuracy"] == {"keras": expected["top1"], "tflite": expected["top1"]}
    assert found["preparation"].endswith("in 0..1") and not found["disagreements"]
    # So the test can tell.
    imagenet = ("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225")
    assert top1("evaluate", trained / "run.tflite", "--images", images, *imagenet) != expected["top1"]


@pytest.mark.parametrize(["suffix"], first_quick([(".keras",), (".h5",), ("",)], 1))
def test_a_keras_file_of_a_run_knows_it_too(suffix, trained, tmp_path):
    network = training.load(runs.network, trained / "run")
    network.save(tmp_path / f"mine{suffix}")
    images = trained / "data" / "test"
    found = json.loads(run("evaluate", tmp_path / f"mine{suffix}", "--images", images, "--json").stdout)
    assert found["preparation"].endswith("in 0..1") and "the run that trained" in found["preparation"]
    assert found["top1"] == top1("evaluate", trained / "run.tflite", "--images", images)
    pixels = np.full((1, 16, 16, 3), 51, np.uint8)
    np.testing.assert_allclose(zoo.preprocess_input(network, pixels), 0.2, rtol=1e-6)
    assert run("convert", tmp_path / f"mine{suffix}", "-o", tmp_path / "mine.tflite").exit_code == 0
    said = metadata.read((tmp_path / "mine.tflite").read_bytes())
    assert said["classes"] == ["a", "b", "c", "d"]
    assert said == metadata.read((trained / "run.tflite").read_bytes())


def test_inspect_shows_it(trained):
    shown = run("inspect", trained / "run.tflite").stdout
    assert "Images: resized to cover 16x16, cropped to 16x16, in 0..1." in shown
    assert "Classes: 4, a, b, c, d." in shown


def test_a_damaged_preparation_is_named(trained, tmp_path):
    content = (trained / "run.tflite").read_bytes()
    (tmp_path / "x.tflite").write_bytes(content.replace(b'"resize": 16', b'"resize": 06'))
    about = metadata.read((tmp_path / "x.tflite").read_bytes())
    assert about == {}  # no JSON
    (tmp_path / "x.tflite").write_bytes(content.replace(b'"resize": 16', b'"resize": 1 '))
    images = ("--images", trained / "data" / "test")
    assert "x.tflite has damaged metadata: preparation: resize" in refused("evaluate", tmp_path / "x.tflite", *images)
    assert "is damaged: preparation: resize" in run("inspect", tmp_path / "x.tflite").stdout


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("classes", ["a", "b"], "classes should be 3 names"),
        ("classes", [1, 2, 3], "classes should be 3 names"),
        ("mirrored", "no", "mirrored should be true or false"),
    ],
)
def test_damage_of_other_fields(name, value, message, tmp_path, pictures):
    """As `lce-run` refuses it."""
    content = tf.lite.TFLiteConverter.from_keras_model(linear(3)).convert()
    said = {"input": {"size": [SIZE, SIZE], "channels": 3}}
    said["input" if name == "mirrored" else name] = {name: value} if name == "mirrored" else value
    (tmp_path / "x.tflite").write_bytes(metadata.attach(content, said))
    assert message in refused("evaluate", tmp_path / "x.tflite", "--images", pictures[3] / "test")


def test_older_files_are_read(tmp_path, pictures):
    """Of 0.1: the name of the network and `mirrored_input` are all that they say."""
    content = tf.lite.TFLiteConverter.from_keras_model(linear(3)).convert()
    (tmp_path / "old.tflite").write_bytes(metadata.attach(content, {"network": "ResNet20"}))
    result = run("evaluate", tmp_path / "old.tflite", "--images", pictures[3] / "test")
    assert result.exit_code == 0 and "assumed to be those of ResNet20 in its first published form" in result.stderr
    assert metadata.is_mirrored({"mirrored_input": True}) and metadata.is_mirrored({"input": {"mirrored": True}})
    assert not metadata.is_mirrored({"mirrored_input": "no"})
    assert not metadata.is_mirrored({"input": {"mirrored": False}}) and not metadata.is_mirrored({})


@pytest.mark.slow
def test_from_training_to_the_file(pictures, tmp_path):
    """`lqr train` on a class folder, with pixels in 0..1."""
    command = ["train", "ResNet20", "--recipe", "recu", "--data", pictures[3], "--input-size", "12"]
    for change in ("width=4", "method=recu", "epochs=2", "mean=none", "drop_last=false"):
        command += ["--set", change]
    result = run(*command, "--out", tmp_path / "run", program=lqr.main)
    assert result.exit_code == 0, result.stderr
    assert run("convert", tmp_path / "run", "-o", tmp_path / "run.tflite").exit_code == 0
    expected = top1("evaluate", tmp_path / "run", program=lqr.main)
    images = ("--images", pictures[3] / "test")
    assert [top1("evaluate", tmp_path / name, *images) for name in ("run", "run.tflite")] == [expected] * 2
    found = top1("verify", tmp_path / "run", tmp_path / "run.tflite", *images)
    assert found == {"keras": expected, "tflite": expected}
    assert metadata.read((tmp_path / "run.tflite").read_bytes())["classes"] == ["a", "b", "c"]
