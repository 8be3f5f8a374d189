"""Runs: what is in their folders, and that they end the same whenever they were stopped."""

import csv
import fcntl
import functools
import json
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from run_files import arrays, metrics
from support import others_slow

from larq_rep import training
from larq_rep.quantizers import EDESign, LibraSign, PowerOfTwo, ReCURSign, ReCUSign
from larq_rep.training import folder as folder_module
from larq_rep.training.augmentation import Augmentation
from larq_rep.training.phases import with_real_weights
from larq_rep.training.published import RECIPES
from larq_rep.training.schedules import Linear, Steps

_PHASE = training.Phase(epochs=3, batch_size=512, optimizer="adam", learning_rate=0.01, schedule=Steps((1, 2), 0.5))
_RECIPE = training.Recipe(
    "test",
    "none",
    "digits",
    "inferred",
    "none",
    Augmentation(crop="pad"),
    (
        replace(_PHASE, weights="real", weight_decay=1e-3, decayed="conv_and_shifts", schedule=Linear(ahead=False)),
        replace(_PHASE, optimizer="sgd", weight_decay=1e-4, start="best"),
    ),
)
CONFIG = training.Config("tiny", "digits", _RECIPE, seed=3)


def tiny(config, broken=False, quantizers=(EDESign, LibraSign)):
    """All that a checkpoint has to hold: quantizers with schedules, statistics, random masks."""
    inputs = tf.keras.Input((8, 8, 1))
    x = tf.keras.layers.Conv2D(6, 3, strides=2, use_bias=False, name="stem")(inputs)
    x = tf.keras.layers.BatchNormalization(name="bn1")(x)
    of_inputs, of_kernels = quantizers
    x = lq.layers.QuantConv2D(
        8, 3, input_quantizer=of_inputs(), kernel_quantizer=of_kernels(), use_bias=False, name="conv"
    )(x)
    x = tf.keras.layers.BatchNormalization(name="bn2")(x)
    x = tf.keras.layers.Dropout(0.3, name="dropout")(tf.keras.layers.Flatten(name="flatten")(x))
    if broken:
        x = tf.keras.layers.Rescaling(np.inf, name="broken")(x)
    return tf.keras.Model(inputs, tf.keras.layers.Dense(config.num_classes, name="dense")(x), name="tiny")


def _weights(folder):
    """All arrays of all weight files of a run."""
    return {
        (str(file.relative_to(folder)), name): array
        for file in sorted(folder.rglob("*.h5"))
        for name, array in arrays(file).items()
    }


def _optimizer(folder):
    latest = tf.train.load_checkpoint(tf.train.latest_checkpoint(folder / "2-binary" / "checkpoints"))
    return {name: latest.get_tensor(name) for name in latest.get_variable_to_shape_map() if "GRAPH" not in name}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return folder, training.train(tiny, folder, CONFIG)


def test_a_run_holds_all(uninterrupted):
    folder, model = uninterrupted
    for phase in ("1-real", "2-binary"):
        assert {path.name for path in (folder / phase).iterdir()} == {"best.h5", "last.h5", "checkpoints"}
        assert any((folder / "tensorboard" / phase).rglob("events*"))
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert not list(folder.rglob("*unfinished*"))

    written = json.loads((folder / "config.json").read_text())
    assert written["num_classes"] == 10 and written["seed"] == 3
    assert set(written["versions"]) >= {"larq_rep", "larq", "tensorflow", "tf_keras", "python"}
    assert training.Config.read(folder) == replace(CONFIG, num_classes=10, channels=1)

    with open(folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["phase"], row["epoch"]) for row in rows] == [(p, e) for p in "12" for e in "123"]
    columns = {"loss", "accuracy", "top5", "val_loss", "val_accuracy", "val_top5", "lr", "flip_ratio", "saturated"}
    assert columns | {"seconds", "images_per_second"} <= set(rows[-1])
    assert [float(row["lr"]) for row in rows] == pytest.approx([0.01, 0.02 / 3, 0.01 / 3, 0.01, 0.005, 0.0025])

    # Weights and metrics are those of the epochs that they say.
    images, labels = next(
        iter(training.datasets.batches(training.datasets.load("digits"), _RECIPE.augmentation, 8, 360, training=False))
    )
    for which, expected in (("last", rows[-1]), ("best", max(rows[3:], key=lambda row: float(row["val_accuracy"])))):
        network = training.load(tiny, folder, which)
        accuracy = (network.predict(images, verbose=0).argmax(axis=1) == labels.numpy()).mean()
        assert accuracy == pytest.approx(float(expected["val_accuracy"]), abs=1e-6)
    np.testing.assert_array_equal(model.get_weights()[0], training.load(tiny, folder, "last").get_weights()[0])


class _Stop(BaseException):
    """Like a signal, it is no error that anything catches."""


class _StopAt(tf.keras.callbacks.Callback):
    def __init__(self, phase, epoch, batch=None):
        super().__init__()
        self.place = phase, epoch, batch
        self.phase = 0

    def on_train_begin(self, logs=None):
        self.phase += 1

    def on_train_batch_end(self, batch, logs=None):
        if (self.phase, self.epoch, batch) == self.place:
            raise _Stop

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        if (self.phase, epoch, None) == self.place:
            raise _Stop


@pytest.mark.parametrize("place", others_slow([(2, 1, 2), (1, 0, 1), (1, 1, None), (1, 2, None)], 1))
def test_a_stopped_run_ends_as_an_uninterrupted_one(uninterrupted, tmp_path, place):
    folder = tmp_path / "run"
    with pytest.raises(_Stop):
        training.train(tiny, folder, CONFIG, callbacks=[_StopAt(*place)])
    lines = []
    training.train(tiny, folder, training.Config.read(folder), resume=True, report=lines.append)
    expected, found = _weights(uninterrupted[0]), _weights(folder)
    assert expected.keys() == found.keys() and len(expected) > 20
    for key, values in expected.items():
        np.testing.assert_array_equal(values, found[key], err_msg=str(key))
    assert metrics(folder) == metrics(uninterrupted[0])
    expected, found = _optimizer(uninterrupted[0]), _optimizer(folder)
    assert sum(name.startswith("optimizer/_variables") for name in expected) > 5
    for name, values in expected.items():
        if "save_counter" not in name:
            np.testing.assert_array_equal(values, found[name], err_msg=name)
    assert any("going on after epoch" in line for line in lines) == (place in [(1, 1, None), (2, 1, 2)])


@pytest.mark.parametrize("number", others_slow([1, 2], 1))
def test_metrics_of_an_epoch_without_a_checkpoint_do_not_count(uninterrupted, tmp_path, monkeypatch, number):
    """Killed after the metrics and the weights of an epoch were written, before its checkpoint was."""
    folder = tmp_path / "run"
    save = tf.train.CheckpointManager.save

    def killed(self, checkpoint_number):
        if checkpoint_number == number:
            raise _Stop
        return save(self, checkpoint_number=checkpoint_number)

    with monkeypatch.context() as patch, pytest.raises(_Stop):
        patch.setattr(tf.train.CheckpointManager, "save", killed)
        training.train(tiny, folder, CONFIG)
    assert len(training.read_metrics(folder)) == number
    # The second phase would tell no more.
    with pytest.raises(_Stop):
        training.train(tiny, folder, training.Config.read(folder), resume=True, callbacks=[_StopAt(2, 0, 0)])
    assert metrics(folder) == metrics(uninterrupted[0])[:3]
    expected, found = _weights(uninterrupted[0] / "1-real"), _weights(folder / "1-real")
    assert expected.keys() == found.keys() and len(expected) > 10
    for key, values in expected.items():
        np.testing.assert_array_equal(values, found[key], err_msg=str(key))


@pytest.mark.slow
def test_a_killed_process_loses_at_most_an_epoch(tmp_path):
    """SIGKILL in the real program, at another time in each round, until the run is done."""
    lqr = [sys.executable, "-m", "larq_rep_cli.lqr"]
    settings = ["epochs=4", "batch_size=128", "width=2", "method=rbnn"]
    options = ["--recipe", "irnet", "--data", "digits", "--input-size", "12"]
    options += [part for setting in settings for part in ("--set", setting)]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*lqr, "train", "ResNet20", *options, "--out", whole], check=True, capture_output=True)
    command = [*lqr, "train", "ResNet20", *options, "--out", killed]
    for round in range(2):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for line in process.stderr:
            if line.startswith(f"epoch {round + 1} of 4"):
                process.send_signal(signal.SIGKILL)
                break
        process.stderr.close()
        assert process.wait() == -signal.SIGKILL
        assert len(training.read_metrics(killed)) >= round + 1
        command = [*lqr, "resume", killed]
    subprocess.run(command, check=True, capture_output=True)
    assert metrics(killed) == metrics(whole)
    for key, values in _weights(whole).items():
        np.testing.assert_array_equal(values, _weights(killed)[key], err_msg=str(key))


def test_a_loss_that_is_not_finite_names_epoch_step_and_layer(tmp_path):
    config = replace(CONFIG, recipe=replace(_RECIPE, phases=_RECIPE.phases[:1]))
    with pytest.raises(training.RunError, match=r"epoch 1 of 3, step 1 of 3.*output of layer 'broken' \(Rescaling\)"):
        training.train(lambda config: tiny(config, broken=True), tmp_path / "a", config)
    phases = (replace(_PHASE, optimizer="sgd", learning_rate=1e30, schedule=Steps((9,))),)
    config = replace(CONFIG, recipe=replace(_RECIPE, phases=phases))
    with pytest.raises(training.RunError, match=r"epoch 1 of 3, step [23] of 3.*(weight|output).* of layer '"):
        training.train(tiny, tmp_path / "b", config)


def test_refusals_before_training(tmp_path, monkeypatch, uninterrupted):
    def start(folder, config=CONFIG, **arguments):
        training.train(tiny, folder, config, callbacks=[_StopAt(1, 0, 0)], **arguments)

    with pytest.raises(training.RunError, match="exists already.*lqr resume"):
        start(uninterrupted[0])
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(training.RunError, match="exists already"):
        start(file)
    with pytest.raises(training.RunError, match="cannot be written to"):
        start(file / "run")
    with pytest.raises(training.RunError, match="is not a run"):
        training.Config.read(tmp_path)

    taught = replace(_RECIPE, phases=(replace(_PHASE, teacher="a ResNet"),))
    with pytest.raises(training.RunError, match="learns the logits of a teacher.*a ResNet.*--teacher"):
        start(tmp_path / "taught", replace(CONFIG, recipe=taught))
    with pytest.raises(training.RunError, match="TF_CONFIG is not set"):
        start(tmp_path / "workers", replace(CONFIG, strategy="multiworker"))
    with pytest.raises(training.RunError, match="expected mirrored or multiworker"):
        start(tmp_path / "strategy", replace(CONFIG, strategy="other"))

    folder = tmp_path / "used"
    folder.mkdir()
    CONFIG.write(folder)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(training.RunError, match="in use by another process"):
            start(folder, resume=True)

    phases = (_PHASE, replace(_PHASE, batch_size=1438, drop_last=True))
    with pytest.raises(ValueError, match="1437 images to train on, less than a batch of 1438"):
        start(tmp_path / "large", replace(CONFIG, recipe=replace(_RECIPE, phases=phases)))
    assert not (tmp_path / "large").exists()

    monkeypatch.setattr(folder_module.shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    with pytest.raises(training.RunError, match=r"needs \d+ MB, but only 1 MB are free"):
        start(tmp_path / "full")


def test_a_damaged_configuration_is_refused(uninterrupted, tmp_path):
    path = tmp_path / "config.json"
    for content in ("{", "{}", '{"recipe": 1}', (uninterrupted[0] / "config.json").read_text().replace("seed", "sead")):
        path.write_text(content)
        with pytest.raises(training.RunError, match="cannot be read"):
            training.Config.read(tmp_path)


@pytest.mark.parametrize("recipe", others_slow(["of irnet", "recu-two-stage"], 1))
def test_second_phase_begins_with_the_weights_of_the_first(tmp_path, recipe):
    """With a learning rate of 0 the second phase ends where it began, but for its statistics."""
    left_behind, build = (), tiny
    if recipe in RECIPES:
        # The scales are learned in the second phase alone.
        left_behind = RECIPES[recipe].phases[0].left_behind
        build = functools.partial(tiny, quantizers=(ReCURSign, ReCUSign))
    first, second = (replace(phase, left_behind=left_behind) for phase in _RECIPE.phases)
    phases = replace(first, epochs=1), replace(second, epochs=1, learning_rate=0.0, start="best")
    model = training.train(build, tmp_path / "run", replace(CONFIG, recipe=replace(_RECIPE, phases=phases)))
    first = with_real_weights(build(replace(CONFIG, num_classes=10)), left_behind=left_behind)
    first.load_weights(tmp_path / "run" / "1-real" / "best.h5")
    found = {re.sub(r"_\d+/", "/", weight.name): weight for weight in model.trainable_weights}
    for weight in first.trainable_weights:
        np.testing.assert_array_equal(weight, found.pop(re.sub(r"_\d+/", "/", weight.name)))
    assert all(name.endswith("/alpha:0") for name in found)


class _Seen(tf.keras.callbacks.Callback):
    """What each epoch ends with: number of batches and of steps of the optimizer, steps that are told, weights."""

    def __init__(self):
        super().__init__()
        self.epochs = []

    def on_epoch_begin(self, epoch, logs=None):
        self.batches = 0

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1

    def on_epoch_end(self, epoch, logs=None):
        steps = int(self.model.optimizer.iterations), self.params["steps"]
        self.epochs.append((self.batches, *steps, self.model.get_weights()[0]))


@pytest.mark.parametrize("best, kept", [("earlier", 0), ("later", 2)])
def test_epochs_that_are_equally_good(tmp_path, best, kept):
    """Steps too small for another answer, in an epoch of two batches of 500; 437 images are left out."""
    phase = replace(_PHASE, batch_size=500, learning_rate=1e-6, drop_last=True, best=best)
    seen = _Seen()

    def build(config):
        inputs = tf.keras.Input((8, 8, 1))
        x = tf.keras.layers.Flatten()(inputs)
        return tf.keras.Model(inputs, tf.keras.layers.Dense(config.num_classes, name="dense")(x))

    config = replace(CONFIG, recipe=replace(_RECIPE, phases=(phase,)))
    training.train(build, tmp_path / "run", config, callbacks=[seen], report=lambda line: None)
    assert len({row["val_accuracy"] for row in training.read_metrics(tmp_path / "run")}) == 1
    assert [epoch[:3] for epoch in seen.epochs] == [(2, 2, 2), (2, 4, 2), (2, 6, 2)]
    found = training.load(build, tmp_path / "run", "best").get_weights()[0]
    np.testing.assert_array_equal(found, seen.epochs[kept][3])
    assert not np.array_equal(seen.epochs[0][3], seen.epochs[2][3])


def test_schedules_are_checked_before_the_first_phase(tmp_path):
    """Not days later, when the phase begins that has too few epochs for them."""
    left = (r".*/power_of_two/(codes|largest):0",)
    phases = tuple(replace(_PHASE, weights=weights, left_behind=left) for weights in ("real", "binary"))
    config = replace(CONFIG, recipe=replace(_RECIPE, phases=phases))
    build = functools.partial(tiny, quantizers=(EDESign, functools.partial(PowerOfTwo, 2)))
    with pytest.raises(ValueError, match="3 epochs are too few for the 10 rounds"):
        training.train(build, tmp_path / "run", config, report=lambda line: None)
    assert not list((tmp_path / "run").rglob("*.h5"))


def test_a_teacher_is_learned_from(tmp_path):
    """The loss is that of the teacher's logits; a teacher that knows nothing teaches log 10."""

    def teacher():
        model = tiny(replace(CONFIG, num_classes=10))
        model.get_layer("dense").set_weights([np.zeros((8, 10)), np.zeros(10)])
        return model

    phases = (replace(_PHASE, epochs=1, teacher="none", learning_rate=0.05, schedule=Steps((9,))),)
    config = replace(CONFIG, recipe=replace(_RECIPE, phases=phases))
    training.train(tiny, tmp_path / "run", config, teacher=teacher)
    [row] = training.read_metrics(tmp_path / "run")
    assert row["loss"] >= np.log(10) - 1e-5


@pytest.mark.parametrize("loss", others_slow(["distribution", "squared_hinge"], 1))
def test_the_loss_of_a_run(tmp_path, loss):
    """With a learning rate of 0: of all images, of the logits before the softmax, and with both signs' penalties."""

    def build(config):
        inputs = tf.keras.Input((8, 8, 1))
        x = tf.keras.layers.Flatten(name="flatten")(inputs)
        for name, units in (("a", 12), ("b", 10)):
            x = lq.layers.QuantDense(
                units, input_quantizer="ste_sign", kernel_quantizer="ste_sign", use_bias=False, name=name
            )(x)
        x = tf.keras.layers.Activation("softmax", name="probabilities")(x)
        return tf.keras.Model(inputs, x, name="two")

    augmentation = Augmentation()
    phase = replace(_PHASE, optimizer="sgd", learning_rate=0.0, epochs=1, batch_size=1437, loss=loss)
    recipe = replace(_RECIPE, augmentation=augmentation, phases=(phase,))
    model = training.train(build, tmp_path / "run", replace(CONFIG, recipe=recipe), report=lambda line: None)
    (row,) = training.read_metrics(tmp_path / "run")
    source = training.datasets.load("digits")
    images, labels = next(iter(training.datasets.batches(source, augmentation, 8, 1437, training=True, seed=3)))
    images, labels = images.numpy(), labels.numpy()

    x = images.reshape(1437, 64).astype(np.float64)
    penalties = []
    for kernel in model.get_weights():
        mean, deviation = x.mean(axis=0), x.std(axis=0)
        terms = np.maximum(np.minimum(2 - mean - deviation, 2 + mean - deviation), 0) ** 2
        terms += np.maximum(deviation - 4, 0) ** 2 + np.maximum(mean**2 - deviation**2, 0)
        penalties.append(terms.mean())
        x = np.where(x >= 0, 1, -1) @ np.where(kernel >= 0, 1, -1)
    logs = x - np.log(np.exp(x - x.max(1, keepdims=True)).sum(1, keepdims=True)) - x.max(1, keepdims=True)
    cross_entropy = -logs[np.arange(1437), labels].mean()
    hinge = np.maximum(1 - np.where(np.arange(10) == labels[:, None], x, -x), 0) ** 2
    expected = {"distribution": cross_entropy + np.mean(penalties), "squared_hinge": hinge.mean()}
    assert row["loss"] == pytest.approx(expected[loss], rel=1e-4)
    assert min(penalties) > 0.1 and penalties[0] != pytest.approx(penalties[1], rel=0.1)


def test_seeds_differ(uninterrupted, tmp_path):
    """That those of one seed are the same is shown by the stopped runs, which begin again."""
    with pytest.raises(_Stop):
        training.train(tiny, tmp_path / "other", replace(CONFIG, seed=4), callbacks=[_StopAt(1, 1, 0)])
    [row] = metrics(tmp_path / "other")
    assert row["loss"] != metrics(uninterrupted[0])[0]["loss"]


def test_force_removes_a_run_only_when_all_is_in_order(uninterrupted, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted[0], folder)
    before = sorted(folder.rglob("*"))
    for config, build, message in (
        (replace(CONFIG, data="nothing"), tiny, "no data set and no folder"),
        (CONFIG, _fails, "no such network"),
        (replace(CONFIG, recipe=replace(_RECIPE, phases=(replace(_PHASE, label_smoothing=2.0),))), tiny, "0 to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            training.train(build, folder, config, force=True)
        assert sorted(folder.rglob("*")) == before
    with pytest.raises(_Stop):
        training.train(tiny, folder, CONFIG, force=True, callbacks=[_StopAt(1, 0, 0)])
    assert not (folder / "metrics.csv").exists()


def _fails(config):
    raise ValueError("no such network")


def test_a_run_that_cannot_begin_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="no such network"):
        training.train(_fails, tmp_path / "run", CONFIG)
    assert list(tmp_path.iterdir()) == []


def test_resume_refuses_other_values_and_lost_checkpoints(uninterrupted, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted[0], folder)
    with pytest.raises(training.RunError, match="holds a run with other values"):
        training.train(tiny, folder, replace(CONFIG, seed=7), resume=True)
    with pytest.raises(training.RunError, match="is not a run"):
        training.train(tiny, tmp_path / "nothing", CONFIG, resume=True)
    assert not (tmp_path / "nothing").exists()
    shutil.rmtree(folder / "1-real" / "checkpoints")
    with pytest.raises(training.RunError, match="1-real: a checkpoint is missing"):
        training.train(tiny, folder, training.Config.read(folder), resume=True)
    assert training.read_metrics(folder) == training.read_metrics(uninterrupted[0])


def test_a_damaged_image_is_named(tmp_path):
    for split, classes in (("train", 2), ("test", 2)):
        for label in range(classes):
            place = tmp_path / "data" / split / str(label)
            place.mkdir(parents=True)
            for number in range(2):
                Image.new("L", (8, 8), 40 * label).save(place / f"{number}.png")
    broken = tmp_path / "data" / "train" / "1" / "0.png"
    broken.write_bytes(broken.read_bytes()[:30])
    phases = (replace(_PHASE, epochs=1, batch_size=4),)
    config = replace(CONFIG, data=str(tmp_path / "data"), recipe=replace(_RECIPE, phases=phases))

    def build(config):
        inputs = tf.keras.Input((8, 8, 3))
        x = tf.keras.layers.Flatten(name="flatten")(inputs)
        return tf.keras.Model(inputs, tf.keras.layers.Dense(config.num_classes, name="dense")(x))

    with pytest.raises(training.RunError, match=r"0\.png cannot be read as an image"):
        training.train(build, tmp_path / "run", config)
