import functools
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from commands import run
from PIL import Image

from larq_rep import training
from larq_rep.zoo.runs import arguments
from larq_rep_cli import ablation, runs
from larq_rep_cli.lce import main as lce
from larq_rep_cli.lqr import main

NETWORK = ("RepVGGSmall", "--set", "width=8", "--input-size", "16", "--data", "digits")
SMALL = ("--recipe", "irnet", "--set", "epochs=2", "--set", "batch_size=512")


_run = functools.partial(run, program=main)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    result = _run("train", *NETWORK, "--out", folder, *SMALL, "--seed", 1)
    assert result.exit_code == 0, result.output
    return folder, result


def _accuracy(folder, which):
    """On the images as the run prepares them: with so little training a rounded grey level turns an answer."""
    crop = training.Config.read(folder).recipe.augmentation
    source = training.datasets.load("digits")
    [(images, labels)] = training.datasets.batches(source, crop, 16, source.test_size, training=False)
    return (runs.load(folder, which).predict(images, verbose=0).argmax(axis=1) == labels.numpy()).mean()


def test_train_makes_a_run(trained):
    folder, result = trained
    config = training.Config.read(folder)
    assert (config.network, config.seed, config.num_classes) == ("RepVGGSmall", 1, 10)
    assert config.arguments == {"width": 8, "input_size": [16, 16]}
    assert (config.recipe.name, config.recipe.epochs, config.recipe.phases[0].batch_size) == ("irnet", 2, 512)
    rows = training.read_metrics(folder)
    last, best = rows[-1]["val_accuracy"], max(row["val_accuracy"] for row in rows)
    line = result.stdout.splitlines()[-1]
    assert line.startswith(f"{folder}: accuracy {last:.2%} on the test images, best {best:.2%} in epoch ")
    assert [said.split(":")[0] for said in result.stderr.splitlines() if said.startswith("epoch ")] == [
        "epoch 1 of 2",
        "epoch 2 of 2",
    ]


@pytest.mark.parametrize("which", ["best", "last"])
def test_evaluate_counts_what_the_run_gets_right(trained, which):
    folder, _ = trained
    found = json.loads(_run("evaluate", folder, "--weights", which, "--json").stdout)
    assert (found["images"], found["data"]) == (360, "digits")
    assert found["top1"] == pytest.approx(_accuracy(folder, which), abs=1e-6)
    assert found["right"] == round(found["top1"] * 360) and found["top5"] >= found["top1"]
    rows = training.read_metrics(folder)
    expected = rows[-1] if which == "last" else max(rows, key=lambda row: row["val_accuracy"])
    assert found["top1"] == pytest.approx(expected["val_accuracy"], abs=1e-6)
    assert found["top5"] == pytest.approx(expected["val_top5"], abs=1e-6)


def test_evaluate_takes_a_file(trained, tmp_path):
    folder, _ = trained
    runs.load(folder, "last").save(tmp_path / "model.h5")
    top1 = training.read_metrics(folder)[-1]["val_accuracy"]
    assert f"{round(top1 * 360)} of 360 images" in _run("evaluate", tmp_path / "model.h5", "--data", "digits").stdout


def test_a_run_is_converted_and_verified(trained, tmp_path):
    folder, _ = trained
    file = tmp_path / "rep.tflite"
    result = _run("export", folder, "-o", file)
    assert result.exit_code == 0 and "5 of 5 binary convolutions bitpacked" in result.stdout
    assert f"use `lce convert {folder} -o {file}`" in result.stderr
    same = tmp_path / "same.tflite"
    assert _run("convert", folder, "-o", same, program=lce).exit_code == 0
    for converted in (file, same):
        result = _run("verify", folder, converted, "--random", 1, program=lce)
        assert result.exit_code == 0, result.output
    result = _run("export", folder, "-o", file)
    assert result.exit_code == 2 and "exists already" in result.stderr


@pytest.mark.parametrize("kind", ["history", "activations", "features", "ops"])
def test_plot_writes_a_picture(trained, tmp_path, kind):
    file = tmp_path / "plot.png"
    result = _run("plot", trained[0], "--kind", kind, "-o", file)
    assert result.exit_code == 0, result.output
    with Image.open(file) as image:
        assert image.format == "PNG" and min(image.size) > 200
    assert np.ptp(np.asarray(Image.open(file).convert("L"))) > 100


def test_resume_goes_on(trained, tmp_path):
    """The last epoch is forgotten, as if the process had been killed in it, and trained again."""
    folder = tmp_path / "run"
    shutil.copytree(trained[0], folder)
    for file in (folder / "1-binary" / "checkpoints").glob("epoch-2*"):
        file.unlink()
    state = folder / "1-binary" / "checkpoints" / "checkpoint"
    state.write_text('model_checkpoint_path: "epoch-1"\nall_model_checkpoint_paths: "epoch-1"\n')
    result = _run("resume", folder)
    assert result.exit_code == 0, result.output
    assert "going on after epoch 1 of 2" in result.stderr
    assert (folder / "1-binary" / "last.h5").stat().st_size > 0
    for old, new in zip(training.read_metrics(trained[0]), training.read_metrics(folder), strict=True):
        assert (old["loss"], old["val_loss"]) == (new["loss"], new["val_loss"])
    assert "accuracy" in _run("resume", folder).stdout  # nothing is left to do


def test_recipes_are_listed():
    result = _run("recipes")
    assert result.exit_code == 0 and set(training.RECIPES) <= set(result.stdout.split())
    one = json.loads(_run("recipes", "adambnn").stdout)
    assert [phase["weight_decay"] for phase in one["phases"]] == [5e-6, 0.0]
    assert len(json.loads(_run("recipes", "--json").stdout)) == len(training.RECIPES)


@pytest.mark.parametrize(
    "args, message",
    [
        (("train", "RepVGGSmal", *NETWORK[1:], "--out", "x", *SMALL), "Did you mean RepVGGSmall"),
        (("train", *NETWORK, "--out", "x", "--recipe", "irnett"), "Did you mean irnet"),
        (("train", *NETWORK, "--out", "x"), "Missing option '--recipe'"),
        (("train", *NETWORK, *SMALL), "Missing option '--out'"),
        (("train", *NETWORK, "--out", "x", *SMALL, "--set", "epoch=3"), "has a value 'epoch'"),
        (("train", *NETWORK, "--out", "x", *SMALL, "--set", "3.epochs=3"), "has 1 phase"),
        (("train", *NETWORK, "--out", "x", *SMALL, "--set", "epochs=many"), "epochs: expected int"),
        (("train", *NETWORK, "--out", "x", *SMALL, "--set", "network.epochs=3"), "has a value 'epochs'"),
        (("train", "ResNet20", *NETWORK[1:], "--out", "x", *SMALL, "--set", "width=3"), "a positive even number"),
        (("train", "ResNet20", *NETWORK[1:], "--out", "x", *SMALL, "--beta", "2"), "has a value 'beta'"),
        (("train", "ResNet20", "--data", "digits", "--out", "x", *SMALL, "--input-size", "14"), "multiples of 4"),
        (("train", "ResNet20", "--data", "cifar", "--out", "x", *SMALL), "There is no data set and no folder 'cifar'"),
        (("train", "ResNet20", "--data", "cifar10", "--data-dir", ".", "--out", "x", *SMALL), "tfds build cifar10"),
        (("train", *NETWORK, "--out", "x", "--recipe", "adambnn"), "learns the logits of a teacher"),
        (("train", *NETWORK, "--out", "missing.h5/x", *SMALL), "cannot be written to"),
        (("resume", "missing"), "missing is not a run"),
        (("evaluate", "missing.h5"), "There is no file or folder missing.h5"),
        (("evaluate", "RepResNet20"), "expected a network from (None, height, width, 1)"),
        (("export", "missing", "-o", "x.tflite"), "missing is not a run"),
        (("plot", "missing", "-o", "x.png"), "missing is not a run"),
        (("plot", "missing", "-o", "x.jpg"), "expected the name of a .png file"),
        (("plot", "a", "b", "-o", "x.png", "--kind", "features"), "draws one run, found 2"),
        (("recipes", "irnett"), "Did you mean irnet"),
        (("ablate", "--out", "x", "--rows", "nothing"), "No row matches nothing"),
        (("tran",), "Did you mean train"),
    ],
)
def test_bad_input_is_refused_with_code_2(tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    if "missing.h5/x" in args:
        (tmp_path / "missing.h5").touch()
    before = sorted(tmp_path.iterdir())
    result = _run(*args)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())
    assert sorted(tmp_path.iterdir()) == before


def test_train_overwrites_a_run_only_by_force(trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained[0], folder)
    before = (folder / "config.json").read_bytes()
    command = ("train", *NETWORK, "--out", folder, *SMALL, "--set", "epochs=1")
    result = _run(*command)
    assert result.exit_code == 2 and "exists already" in result.stderr
    assert (folder / "config.json").read_bytes() == before
    assert _run(*command, "--force").exit_code == 0
    assert len(training.read_metrics(folder)) == 1
    # Nothing else than a run is ever removed.
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine").touch()
    result = _run("train", *NETWORK, "--out", other, *SMALL, "--force")
    assert result.exit_code == 2 and os.listdir(other) == ["mine"]


@pytest.mark.parametrize(
    "network, given, data, expected",
    [
        ("ResNet20", {}, "digits", {"input_shape": (16, 16, 1), "num_classes": 10}),
        ("ResNet20", {}, "cifar10", {"input_shape": (32, 32, 3), "num_classes": 10}),
        ("ReActNetA", {}, "imagenet2012", {"input_shape": (224, 224, 3), "num_classes": 10}),
        ("ReActNet18", {}, "cifar100", {"input_shape": (32, 32, 3), "num_classes": 10, "dataset": "cifar100"}),
        ("ReActNet18", {}, "folder", {"input_shape": (224, 224, 3), "num_classes": 10}),
        ("ReActNet18", {"dataset": "cifar10"}, "folder", {"input_shape": (32, 32, 3), "dataset": "cifar10"}),
        ("PresBNet10", {"input_size": [8, 24]}, "digits", {"input_shape": (8, 24, 1), "dataset": "cifar10"}),
    ],
)
def test_a_network_suits_its_data(network, given, data, expected):
    channels = 1 if data == "digits" else 3
    recipe = training.get_recipe("irnet")
    config = training.Config(network, data, recipe, given, num_classes=10, channels=channels)
    assert arguments(config) == {"num_classes": 10, **expected}


def test_ablation_summary():
    """Against the t table: with 3 seeds and deviation 1 of the differences the interval is 2 -+ 4.303 / sqrt(3)."""
    better, worse = "IR-Net: Rep, beta 2", "IR-Net: ResNet-20"
    results = {(worse, 0): 90.0, (worse, 1): 91.0, (worse, 2): 92.0}
    results |= {(better, 0): 91.0, (better, 1): 93.0, (better, 2): 95.0}
    found = ablation.summary(results)
    assert [(row["name"], row["mean"], row["std"]) for row in found["rows"]] == [
        (worse, 91.0, 1.0),
        (better, 93.0, 2.0),
    ]
    [comparison] = found["comparisons"]
    assert comparison["difference"] == pytest.approx(2) and comparison["shows"] == "not decided"
    assert comparison["low"] == pytest.approx(2 - 2.4841, abs=1e-3)
    assert comparison["high"] == pytest.approx(2 + 2.4841, abs=1e-3)
    for shift, shows in ((10, "yes"), (-10, "no, the opposite")):
        moved = {key: value + shift * (key[0] == better) for key, value in results.items()}
        assert ablation.summary(moved)["comparisons"][0]["shows"] == shows


def test_ablation_rows_can_be_trained():
    assert len({row.name for row in ablation.ROWS}) == len(ablation.ROWS) == 20
    names = {row.name for row in ablation.ROWS}
    for comparison in ablation.COMPARISONS:
        assert {comparison.better, comparison.worse} <= names
    for row in ablation.ROWS:
        config = ablation.config(row, 3, 20)
        assert (config.seed, config.recipe.epochs, config.recipe.phases[0].batch_size) == (3, 20, 32)
        assert all(np.isfinite(p.schedule(1.0, e, p.epochs)) for p in config.recipe.phases for e in range(p.epochs))
        for key in row.arguments:
            assert key in arguments(config)


@pytest.mark.slow
def test_short_ablation_resumes(tmp_path):
    command = [sys.executable, "-m", "larq_rep_cli.lqr", "ablate", "--short", "--out", tmp_path, "--json"]
    page = tmp_path / "ablation.md"
    first = subprocess.run([*command, "--write", page], capture_output=True, text=True, check=True)
    found = json.loads(first.stdout)
    assert [row["seeds"] for row in found["rows"]] == [2, 2, 2]
    assert all(row["mean"] > 20 for row in found["rows"])
    assert [c["published"] for c in found["comparisons"]] == [1.09, 4.85]
    assert f"{found['comparisons'][0]['difference']:+.2f}" in page.read_text()
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(again.stdout)["rows"] == found["rows"]


def test_help_shows_examples_and_does_not_import_tensorflow():
    program = (
        "import sys\n"
        "from larq_rep_cli.lqr import main\n"
        "try:\n"
        "    main(['train', '--help'])\n"
        "except SystemExit:\n"
        "    print(sorted({'tensorflow', 'numpy', 'matplotlib'} & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "lqr train RepResNet20 --recipe irnet --data digits" in result.stdout
    assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_a_teacher_is_a_file(tmp_path, trained):
    """The run's own network as teacher of a narrower one; a teacher of other images is refused."""
    command = ("--recipe", "adambnn", "--set", "epochs=1", "--set", "batch_size=512", "--input-size", "8")
    inputs = tf.keras.Input((8, 8, 1))
    outputs = tf.keras.layers.Dense(10, "softmax")(tf.keras.layers.Flatten()(inputs))
    tf.keras.Model(inputs, outputs).save(tmp_path / "teacher.h5")
    base = ("train", "VGGSmall", "--set", "width=2", "--data", "digits")
    result = _run(*base, *command, "--teacher", tmp_path / "teacher.h5", "--out", tmp_path / "taught")
    assert result.exit_code == 0, result.output
    assert [row["phase"] for row in training.read_metrics(tmp_path / "taught")] == [1, 2]
    result = _run(*base, *command, "--teacher", trained[0], "--out", tmp_path / "refused")
    assert result.exit_code == 2 and "takes images of shape (16, 16, 1), the network (8, 8, 1)" in result.stderr
    assert not (tmp_path / "refused").exists()
