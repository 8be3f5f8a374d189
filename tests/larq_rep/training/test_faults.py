"""Runs that something happened to: ended by a callback, damaged files, weights that were given, half precision."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import authors
import larq as lq
import numpy as np
import pytest
import tensorflow as tf
import torch_files
from PIL import Image
from run_files import arrays, metrics
from support import others_slow

from larq_rep import training, zoo
from larq_rep.quantizers import EDESign, ReCUSign
from larq_rep.training import phases
from larq_rep.training.augmentation import Augmentation
from larq_rep.training.run import _network
from larq_rep.training.schedules import Steps

_PHASE = training.Phase(epochs=4, batch_size=512, optimizer="sgd", learning_rate=0.05, schedule=Steps(()))
_RECIPE = training.Recipe("test", "none", "digits", "inferred", "none", Augmentation(), (_PHASE,))
CONFIG = training.Config("small", "digits", _RECIPE, seed=1)
_TWO = replace(CONFIG, recipe=replace(_RECIPE, phases=(replace(_PHASE, weights="real"), _PHASE)))


def small(config):
    inputs = tf.keras.Input((8, 8, 1))
    x = tf.keras.layers.Flatten(name="flatten")(inputs)
    x = lq.layers.QuantDense(12, kernel_quantizer="ste_sign", use_bias=False, name="binary")(x)
    x = tf.keras.layers.BatchNormalization(name="bn")(x)
    return tf.keras.Model(inputs, tf.keras.layers.Dense(config.num_classes, name="dense")(x), name="small")


def _train(folder, config=CONFIG, resume=False, **arguments):
    lines = []
    config = training.Config.read(folder) if resume else config
    training.train(small, folder, config, resume=resume, report=lines.append, **arguments)
    return " ".join(lines)


def _same(folder, other):
    """Whether two runs have the same metrics and the same weights."""
    assert metrics(folder) == metrics(other)
    files = sorted(path.relative_to(other) for path in other.glob("*/*.h5"))
    assert files == sorted(path.relative_to(folder) for path in folder.glob("*/*.h5"))
    for file in files:
        expected, found = arrays(other / file), arrays(folder / file)
        assert expected.keys() == found.keys()
        for key, values in expected.items():
            np.testing.assert_array_equal(found[key], values, err_msg=f"{file} {key}")


class _EndAfter(tf.keras.callbacks.Callback):
    """Ends each phase after an epoch of it."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch + 1 == self.epoch


class _Interrupt(tf.keras.callbacks.Callback):
    def __init__(self, phase, epoch):
        super().__init__()
        self.place, self.phase = (phase, epoch), 0

    def on_train_begin(self, logs=None):
        self.phase += 1

    def on_epoch_begin(self, epoch, logs=None):
        if (self.phase, epoch + 1) == self.place:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    _train(folder)
    return folder


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A run that has finished three of four epochs."""
    folder = tmp_path_factory.mktemp("runs") / "interrupted"
    with pytest.raises(KeyboardInterrupt):
        _train(folder, callbacks=[_Interrupt(1, 4)])
    return folder


# Ended by a callback


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ended") / "run"
    return folder, _train(folder, _TWO, callbacks=[_EndAfter(2)])


def test_a_phase_that_a_callback_ended_stays_ended(ended, tmp_path):
    folder, said = ended
    assert "1-real: ended by a callback after epoch 2 of 4." in said
    epochs = [(row["phase"], row["epoch"]) for row in metrics(folder)]
    assert epochs == [(1, 1), (1, 2), (2, 1), (2, 2)]
    # Neither phase goes on.
    shutil.copytree(folder, tmp_path / "again")
    assert _train(tmp_path / "again", resume=True) == ""
    _same(tmp_path / "again", folder)


@pytest.mark.parametrize("place", others_slow([1, 2], 1))  # before and after the first checkpoint of the second phase
def test_an_interruption_after_a_phase_that_a_callback_ended_changes_nothing(ended, tmp_path, place):
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "run", _TWO, callbacks=[_EndAfter(2), _Interrupt(2, place)])
    _train(tmp_path / "run", resume=True, callbacks=[_EndAfter(2)])
    _same(tmp_path / "run", ended[0])


# Damaged files


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _overwrite(path):
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(value ^ 0xFF for value in content[middle : middle + 64])
    path.write_bytes(content)


_DAMAGES = {
    "cut": _cut,
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "garbage": lambda path: path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size)),
    "overwritten": _overwrite,
    "missing": Path.unlink,
}


def _of_checkpoint(folder, epoch, kind):
    [path] = (folder / "1-binary" / "checkpoints").glob(f"epoch-{epoch}.{kind}*")
    return path


@pytest.mark.parametrize("kind", ["index", "data"])
@pytest.mark.parametrize("how", _DAMAGES)
def test_a_damaged_checkpoint_is_found(interrupted, tmp_path, kind, how):
    shutil.copytree(interrupted / "1-binary", tmp_path / "1-binary")
    _DAMAGES[how](_of_checkpoint(tmp_path, 3, kind))
    said = []
    assert training.mending.newest_whole(tmp_path / "1-binary", said.append) == (2, True)
    assert "the checkpoint of epoch 3" in said[0] and "Going on after epoch 2" in said[0]
    _DAMAGES[how](_of_checkpoint(tmp_path, 2, kind))
    with pytest.raises(training.RunError, match="no checkpoint is whole: the checkpoint of epoch 3.*epoch 2.*last.h5"):
        training.mending.newest_whole(tmp_path / "1-binary", said.append)


def test_a_run_goes_on_from_the_newest_whole_checkpoint(interrupted, whole, tmp_path):
    """Also if TensorFlow's list of checkpoints and the configuration are damaged, and ends the same."""
    folder = tmp_path / "run"
    shutil.copytree(interrupted, folder)
    _cut(_of_checkpoint(folder, 3, "data"))
    (folder / "1-binary" / "checkpoints" / "checkpoint").write_bytes(b"\xff\x00")
    _cut(folder / "config.json")
    said = _train(folder, resume=True)
    assert "the checkpoint of epoch 3" in said and "going on after epoch 2 of 4" in said
    assert "config.json was damaged. It is written anew" in said
    _same(folder, whole)
    assert json.loads((folder / "config.json").read_text())["seed"] == 1
    assert {path.stem for path in (folder / "1-binary" / "checkpoints").glob("epoch-*")} == {"epoch-3", "epoch-4"}


@pytest.mark.parametrize("how", ["few", "none", "cut", "bytes", "column"])
def test_metrics_are_those_of_the_checkpoint(interrupted, whole, tmp_path, how):
    folder = tmp_path / "run"
    shutil.copytree(interrupted, folder)
    path = folder / "metrics.csv"
    lines = path.read_text().splitlines(keepends=True)
    if how == "none":
        path.unlink()
    elif how == "bytes":
        path.write_bytes(b"\xff\x00\xfe" * 20)
    else:
        texts = {
            "few": "".join(lines[:2]),
            "cut": "".join(lines)[:-40],
            "column": "".join(lines).replace("val_acc", "v"),
        }
        path.write_text(texts[how])
    if how in ("bytes", "column"):
        with pytest.raises(training.RunError, match="metrics.csv is damaged.*lqr resume"):
            training.read_metrics(folder)
    # An epoch that is worse than the best does not replace it.
    said = _train(folder, resume=True)
    assert "metrics.csv was damaged or lacked rows. Its 3 rows are written anew" in said
    _same(folder, whole)


def test_weights_are_made_anew_or_missed(interrupted, whole, tmp_path):
    accuracies = [row["val_accuracy"] for row in metrics(whole)]
    assert np.argmax(accuracies) == 3  # The best epoch until 3 has a checkpoint.
    folder = tmp_path / "run"
    shutil.copytree(interrupted, folder)
    for name in ("best", "last"):
        _cut(folder / "1-binary" / f"{name}.h5")
        with pytest.raises(training.RunError, match=rf"{name}\.h5 cannot be read.*--weights"):
            training.load(small, folder, name)
    said = []
    with pytest.raises(KeyboardInterrupt):
        config = training.Config.read(folder)
        training.train(small, folder, config, resume=True, report=said.append, callbacks=[_Interrupt(1, 4)])
    assert sum("is written anew from the checkpoint of epoch 3" in line for line in said) == 2
    _same(folder, interrupted)

    # As if the first epoch had been the best: its checkpoint is gone.
    for epoch in (2, 3):
        state = json.loads(_of_checkpoint(folder, epoch, "json").read_text())
        state["rows"][0]["val_accuracy"] = 2.0
        _of_checkpoint(folder, epoch, "json").write_text(json.dumps(state))
    _cut(folder / "1-binary" / "best.h5")
    with pytest.raises(training.RunError, match="best.h5 cannot be read.*no checkpoint is of epoch 1.*copy .*last.h5"):
        _train(folder, resume=True)


# Weights that were given


def _quantized(config):
    inputs = tf.keras.Input((8, 8, 1))
    x = tf.keras.layers.Conv2D(4, 3, name="stem")(inputs)
    x = tf.keras.layers.BatchNormalization(name="bn")(x)
    options = dict(input_quantizer=EDESign(t=0.5), padding="same", use_bias=False)
    x = lq.layers.QuantConv2D(4, 3, kernel_quantizer="ste_sign", name="conv1", **options)(x)
    options["input_quantizer"] = EDESign(t=0.5)
    x = lq.layers.QuantConv2D(4, 3, kernel_quantizer="ste_sign", name="conv2", **options)(x)
    x = tf.keras.layers.Flatten(name="flatten")(x)
    return tf.keras.Model(inputs, tf.keras.layers.Dense(config.num_classes, name="dense")(x), name="given")


def _given(config):
    """Comes with weights, statistics and a steepness; its second convolution has initial values."""
    model = _quantized(config)
    for layer in ("stem", "bn", "conv1", "dense"):
        layer = model.get_layer(layer)
        layer.set_weights([np.full(weight.shape, 0.25 + i) for i, weight in enumerate(layer.get_weights())])
    model.get_layer("conv1").input_quantizer.t.assign(3.0)
    return model


@pytest.mark.parametrize("initializer", [None, "uniform_fan_in"])
@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize("weights", ["binary", "real"])
def test_weights_given_are_weights_kept(weights, sync, initializer):
    phase = replace(_PHASE, weights=weights, initializer=initializer)
    config = replace(CONFIG, num_classes=10, sync_batch_norm=sync)
    tf.keras.utils.set_random_seed(1)
    network = _network(_given, phase, config)
    tf.keras.utils.set_random_seed(1)
    expected = _given(config)
    for layer in expected.layers[1:]:
        for weight, found in zip(layer.get_weights(), network.get_layer(layer.name).get_weights(), strict=True):
            if layer.name == "conv2" and weights == "real" and initializer:
                # What had initial values has those of the recipe: within 1 / sqrt(3 * 3 * 4).
                assert not np.array_equal(weight, found) and 0.1 < np.abs(found).max() <= 1 / 6
            else:
                np.testing.assert_array_equal(found, weight, err_msg=layer.name)
    assert float(network.get_layer("conv1").input_quantizer.t) == 3.0
    assert network.get_layer("bn").synchronized == sync
    assert (network.get_layer("conv1").kernel_quantizer is None) == (weights == "real")


def test_weights_of_an_imported_checkpoint_are_kept(tmp_path):
    arrays = authors.NETWORKS["irnet_resnet20"].state_dict()
    tensors = {key: torch_files.tensor(array, str(number)) for number, (key, array) in enumerate(arrays.items())}
    (tmp_path / "best.pth.tar").write_bytes(torch_files.zip_file({"state_dict": torch_files.state_dict(tensors)}))

    def imported(config):
        return zoo.ResNet20(method="irnet", weights=tmp_path / "best.pth.tar")

    phase = replace(_PHASE, weights="real", initializer="uniform_fan_in")
    network, expected = _network(imported, phase, CONFIG), imported(CONFIG)
    assert network.get_layer("layer1_0_conv1").kernel_quantizer is None
    layers = [layer for layer in expected.layers if layer.weights]
    assert len(layers) > 30
    for layer in layers:
        for weight, found in zip(layer.get_weights(), network.get_layer(layer.name).get_weights(), strict=True):
            np.testing.assert_array_equal(found, weight, err_msg=layer.name)


@pytest.mark.parametrize("initializer", [None, "uniform_fan_in"])
@pytest.mark.parametrize("weights", ["binary", "real"])
def test_a_seed_starts_the_same_with_synchronized_norms(weights, initializer):
    phase, starts = replace(_PHASE, weights=weights, initializer=initializer), []
    for sync in (False, True):
        tf.keras.utils.set_random_seed(5)
        starts.append(_network(_quantized, phase, replace(CONFIG, num_classes=10, sync_batch_norm=sync)).get_weights())
    for one, other in zip(*starts, strict=True):
        np.testing.assert_array_equal(one, other)


def test_numbers_of_quantizers_are_kept():
    inputs = tf.keras.Input((4, 4, 2))
    x = EDESign(t=0.1, name="sign")(inputs)
    model = tf.keras.Model(inputs, lq.layers.QuantConv2D(2, 3, kernel_quantizer=ReCUSign(), name="conv")(x))
    model.get_layer("sign").t.assign(2.0)
    model.get_layer("conv").kernel_quantizer.tau.assign(0.95)
    copy = phases.with_synchronized_norms(model)
    assert float(copy.get_layer("sign").t) == 2.0
    assert float(copy.get_layer("conv").kernel_quantizer.tau) == pytest.approx(0.95)
    np.testing.assert_array_equal(
        copy.get_layer("conv").kernel_quantizer.alpha, model.get_layer("conv").kernel_quantizer.alpha
    )


# Waiting for the device


def test_no_callback_waits_for_the_device_in_each_step(tmp_path, monkeypatch):
    from tf_keras.src.utils import tf_utils

    copies = []
    copy = tf_utils.sync_to_numpy_or_python_type
    monkeypatch.setattr(tf_utils, "sync_to_numpy_or_python_type", lambda logs: copies.append(1) or copy(logs))
    phase = replace(_PHASE, epochs=2, batch_size=32, schedule=training.WarmupSteps())
    _train(tmp_path / "run", replace(CONFIG, recipe=replace(_RECIPE, phases=(phase,))))
    assert len(copies) <= 10  # Of 90 steps.


# Images of a folder


def _images(root, suffix="png", size=40):
    """Two classes of two images to train on and one to test on."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 2), ("test", 1)):
        for label in ("a", "b"):
            place = root / split / label
            place.mkdir(parents=True)
            for number in range(count):
                picture = Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8))
                picture.save(place / f"{number}.{suffix}")
    return root


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "tif", "webp"])
def test_a_damaged_image_is_found_before_the_start(tmp_path, suffix):
    root = _images(tmp_path / "data", suffix)
    training.datasets.check_files(training.datasets.load(str(root)))
    whole = (root / "train" / "a" / "0.png").with_suffix(f".{suffix}").read_bytes()
    for split, name in (("train", "b/1"), ("test", "a/0")):
        path = root / split / f"{name}.{suffix}"
        damages = [whole[: len(whole) // 2], whole[:20], b"", b"no image", bytes(len(whole))]
        if suffix == "png":  # It has check sums.
            damages.append(whole[:2000] + bytes(64) + whole[2064:])
        kept = path.read_bytes()
        for damage in damages:
            path.write_bytes(damage)
            with pytest.raises(training.RunError, match=rf"{split}/{name}.{suffix} cannot be read as an image.*Repair"):
                training.datasets.check_files(training.datasets.load(str(root)))
        path.write_bytes(kept)
    # What a decoder passes over is no damage.
    path = root / "train" / f"a/0.{suffix}"
    path.write_bytes(whole + b"appended" * 20)
    training.datasets.check_files(training.datasets.load(str(root)))


def test_a_training_does_not_begin_with_a_damaged_image(tmp_path):
    root = _images(tmp_path / "data")
    _cut(root / "test" / "b" / "0.png")
    with pytest.raises(training.RunError, match="test/b/0.png cannot be read"):
        _train(tmp_path / "run", replace(CONFIG, data=str(root)))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("link", ["train/a/2.png", "train/c", "test", "test/a/x.JPG"])
def test_a_link_to_nowhere_is_named(tmp_path, link):
    root = _images(tmp_path / "data")
    if link == "test":
        shutil.move(root / "test", root / "val")
    (root / link).symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=rf"{link} is a link to .*nowhere, which is not there. Mend"):
        training.datasets.load(str(root))
    # A link to what is there is as good as that.
    (root / link).unlink()
    (root / "train" / "a" / "2.png").symlink_to(root / "train" / "a" / "1.png")
    assert training.datasets.load(str(root)).train_size == 5
