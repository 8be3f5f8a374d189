import csv
import json
import subprocess
import sys

import pytest
import tensorflow as tf
from click.testing import CliRunner
from PIL import Image

from larq_rep.data import digits
from larq_rep_cli.lqr import main

SMALL = ("--set", "width=2", "--input-size", "12", "--epochs", "2", "--batch-size", "512")


def _run(*args):
    # As in a shell, an unexpected exception is a failure of the test, not an exit code.
    return CliRunner().invoke(main, [str(arg) for arg in args], catch_exceptions=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    result = _run("train", "ResNet20", "--out", folder / "a.h5", *SMALL, "--plot", folder / "a.png")
    return folder, result


def test_train_writes_model_metrics_and_curve(trained):
    folder, result = trained
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in folder.iterdir()) == ["a.csv", "a.h5", "a.png"]
    with open(folder / "a.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert {"loss", "accuracy", "val_loss", "val_accuracy"} <= rows[0].keys()
    with Image.open(folder / "a.png") as image:
        assert image.format == "PNG"

    model = tf.keras.models.load_model(folder / "a.h5", compile=False)
    assert model.input_shape == (None, 12, 12, 1) and model.output_shape == (None, 10)
    images, labels = digits("test", 12)
    accuracy = (model.predict(images, verbose=0).argmax(axis=1) == labels).mean()
    assert float(rows[-1]["val_accuracy"]) == pytest.approx(accuracy, abs=1e-6)
    last = result.stdout.splitlines()[-1]
    assert last.startswith(f"{folder / 'a.h5'}: ") and f"accuracy {accuracy:.2%}" in last


def test_evaluate_prints_the_accuracy_of_the_file(trained):
    folder, _ = trained
    model = tf.keras.models.load_model(folder / "a.h5", compile=False)
    images, labels = digits("test", 12)
    right = int((model.predict(images, verbose=0).argmax(axis=1) == labels).sum())
    assert f"{right} of 360" in _run("evaluate", folder / "a.h5").stdout
    found = json.loads(_run("evaluate", folder / "a.h5", "--json").stdout)
    assert (found["images"], found["accuracy"]) == (360, right / 360)


@pytest.mark.parametrize("name", ["b.keras", "b"])
def test_train_writes_other_formats(tmp_path, name):
    out = tmp_path / name
    result = _run("train", "RepResNet20", "--beta", 2, "--out", out, *SMALL, "--epochs", 1)
    assert result.exit_code == 0, result.output
    model = tf.keras.models.load_model(out, compile=False)
    images, labels = digits("test", 12)
    accuracy = (model.predict(images, verbose=0).argmax(axis=1) == labels).mean()
    assert f"accuracy {accuracy:.2%}" in result.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "b.csv"])


@pytest.mark.parametrize(
    "args, message",
    [
        (("train", "RestNet20", "--out", "x.h5"), "Did you mean ResNet20"),
        (("train", "ResNet20", "--out", "x.tflite"), "suffix .tflite is unknown. Expected .h5, .keras"),
        (("train", "ResNet20", "--out", "missing/x.h5"), "there is no folder missing"),
        (("train", "ResNet20", "--out", "x.h5", "--plot", "missing/x.png"), "there is no folder missing"),
        (("train", "ResNet20", "--out", "x.h5", "--beta", "2"), "ResNet20 has no argument 'beta'"),
        (("train", "ResNet20", "--out", "x.h5", "--set", "width=3"), "width must be a positive even number"),
        (("train", "ResNet20", "--out", "x.h5", "--input-size", "14"), "multiples of 4"),
        (("train", "ResNet20", "--out", "x.h5", "--data", "cifar"), "'cifar' is not"),
        (("train", "ResNet20"), "Missing option '--out'"),
        (("evaluate", "missing.h5"), "There is no file or folder missing.h5"),
        (("evaluate", "RepResNet20"), "expected a network from (None, height, width, 1)"),
        (("tran",), "Did you mean train"),
    ],
)
def test_bad_input_is_refused_with_code_2(tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    result = _run(*args)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.h5", "a.csv", "a.png"])
def test_train_overwrites_only_by_force(tmp_path, name):
    (tmp_path / name).write_text("mine")
    args = ("train", "ResNet20", "--out", tmp_path / "a.h5", "--plot", tmp_path / "a.png", *SMALL, "--epochs", 1)
    result = _run(*args)
    assert result.exit_code == 2 and f"{name} exists already. Give --force" in result.stderr
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_train_overwrites_by_force(tmp_path):
    for name in ("a.h5", "a.csv"):
        (tmp_path / name).write_text("old")
    result = _run("train", "ResNet20", "--out", tmp_path / "a.h5", *SMALL, "--epochs", 1, "--force")
    assert result.exit_code == 0, result.output
    assert tf.keras.models.load_model(tmp_path / "a.h5", compile=False).output_shape == (None, 10)
    assert (tmp_path / "a.csv").read_text().startswith("epoch,")


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
    assert "lqr train RepResNet20 --out rep.h5" in result.stdout
    assert result.stdout.splitlines()[-1] == "[]"
