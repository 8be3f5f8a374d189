"""Training on several devices and in several processes, some of which are killed."""

import larq_rep  # noqa: F401  (before TensorFlow: this file is also the program of the workers)

# isort: split
import contextlib
import functools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from larq_rep import training
from larq_rep.training import folder as runs_folder
from larq_rep.training import workers
from larq_rep.training.augmentation import Augmentation
from larq_rep.training.schedules import Steps

# 1437 images: eleven batches of 128, and one of 29 that cannot be halved; seven of 205, and one of 2 for 3 devices.
_PHASE = training.Phase(
    epochs=1, batch_size=128, optimizer="sgd", learning_rate=0.05, schedule=Steps(()), weight_decay=1e-3
)
_PHASES = (replace(_PHASE, weights="real"), replace(_PHASE, batch_size=205))
_RECIPE = training.Recipe("test", "none", "digits", "inferred", "none", Augmentation(crop="pad"), _PHASES)


def smooth(config):
    """Without signs, which would turn a difference in the last digit into one of the first; with many shapes."""
    inputs = tf.keras.Input((8, 8, 1))
    x = tf.keras.layers.Conv2D(8, 3, strides=2, use_bias=False, name="conv")(inputs)
    x = tf.keras.layers.Activation("tanh", name="tanh")(tf.keras.layers.BatchNormalization(name="bn")(x))
    for width in (5, 8, 7, 8, 3):
        name = f"{width}_{x.name.partition('/')[0]}"
        x = lq.layers.QuantConv2D(
            width, 1, kernel_quantizer=lq.quantizers.NoOp(precision=1), use_bias=False, name=f"conv_{name}"
        )(x)
        x = tf.keras.layers.BatchNormalization(name=f"bn_{name}")(x)
    x = tf.keras.layers.Flatten(name="flatten")(x)
    return tf.keras.Model(inputs, tf.keras.layers.Dense(config.num_classes, name="dense")(x), name="smooth")


def _train(folder, strategy=None):
    config = training.Config("smooth", "digits", _RECIPE, strategy=strategy, sync_batch_norm=True)
    return training.train(smooth, folder, config, report=lambda line: None)


_started = []


@pytest.fixture(autouse=True)
def none_is_left():
    """A test that fails leaves workers that wait for each other."""
    yield
    for process in _started:
        if process.poll() is None:
            process.kill()
            process.communicate()
    _started.clear()


def _start(command, environment=None):
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _started.append(process)
    return process


def _environment(index, ports):
    cluster = {"worker": [f"localhost:{port}" for port in ports]}
    config = {"cluster": cluster, "task": {"type": "worker", "index": index}}
    # No two processes go through a set of strings in the same order.
    hashes = {"PYTHONHASHSEED": str(1 + index)}
    return {**os.environ, **hashes, "CUDA_VISIBLE_DEVICES": "-1", "TF_CONFIG": json.dumps(config)}


def _free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("localhost", 0))
        return [each.getsockname()[1] for each in sockets]


def _ended(process, seconds=300):
    _, errors = process.communicate(timeout=seconds)
    return process.returncode, errors


@pytest.mark.slow
def test_several_replicas_learn_what_one_device_does(tmp_path):
    """The same global batches lead to the same weights and metrics, on three devices and with two workers.

    In two phases, the second of which begins with what the first has learned.

    With the gradient of each replica weighted alike, so that the odd image of the last batch counts for too much,
    weights differ by 6e-4; a gradient that is summed up or a batch that both see moves them by more than 1e-2.
    """
    from run_files import arrays  # not found by the program that this file is

    program, ports = [sys.executable, __file__], _free_ports(2)
    mirrored = [*program, "mirrored", tmp_path / "mirrored"]
    processes = [_start(mirrored, _environment(0, ports))]
    for index in (0, 1):
        command = [*program, "multiworker", tmp_path / "multiworker"]
        processes.append(_start(command, _environment(index, ports)))
    _train(tmp_path / "one")
    for process in processes:
        code, errors = _ended(process)
        assert code == 0, errors

    for name in ("mirrored", "multiworker"):
        for phase in ("1-real", "2-binary"):
            expected = arrays(tmp_path / "one" / phase / "last.h5")
            found = arrays(tmp_path / name / phase / "last.h5")
            assert found.keys() == expected.keys()
            for key in expected:
                np.testing.assert_allclose(found[key], expected[key], atol=1e-5, err_msg=f"{name} {phase} {key}")
        rows = zip(training.read_metrics(tmp_path / "one"), training.read_metrics(tmp_path / name), strict=True)
        for row, metrics in rows:
            for key in ("loss", "accuracy", "top5", "val_loss", "val_accuracy", "val_top5", "lr"):
                assert metrics[key] == pytest.approx(row[key], abs=1e-5), f"{name} {key}"
    # What one worker writes, and no second one beside it.
    files = {path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if "events" not in path.name}
    workers = tmp_path / "multiworker"
    assert {path.relative_to(workers) for path in workers.rglob("*") if "events" not in path.name} == files
    assert len(list(workers.rglob("events*"))) == len(list((tmp_path / "one").rglob("events*")))


@pytest.mark.parametrize(
    ("cluster", "task", "chief"),
    [
        ({"worker": ["a:1", "b:1"]}, ("worker", 0), True),
        ({"worker": ["a:1", "b:1"]}, ("worker", 1), False),
        ({"chief": ["a:1"], "worker": ["b:1"]}, ("chief", 0), True),
        ({"chief": ["a:1"], "worker": ["b:1"]}, ("worker", 0), False),
    ],
)
def test_one_worker_is_the_chief(monkeypatch, cluster, task, chief):
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": task[0], "index": task[1]}}))
    assert workers.is_chief("multiworker") is chief
    assert workers.is_chief("mirrored") and workers.is_chief(None)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "TF_CONFIG is not set"),
        ("{", "does not say which worker"),
        ('{"cluster": {"worker": ["a:1"]}}', "does not say which worker"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "does not say which worker"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "evaluator", "index": 0}}', "does not say which worker"),
    ],
)
def test_tf_config_is_refused_before_anything_waits(monkeypatch, tmp_path, value, message):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if value is not None:
        monkeypatch.setenv("TF_CONFIG", value)
    with pytest.raises(training.RunError, match=message):
        _train(tmp_path / "run", "multiworker")
    assert not (tmp_path / "run").exists()


class _Strategy:
    """So many workers of so many devices, of which only the data matter."""

    def __init__(self, count, devices):
        self.num_replicas_in_sync = count * devices
        self.contexts = [tf.distribute.InputContext(count, i, count * devices) for i in range(count)]

    def distribute_datasets_from_function(self, of_worker):
        return [of_worker(context) for context in self.contexts]


@pytest.mark.parametrize(
    ("images", "batch", "count", "devices"),
    [
        (36, 27, 1, 4),  # 9 left for 4: TensorFlow makes 3, 3, 3 and none of them
        (13, 11, 1, 4),  # 2 for 4
        (14, 11, 2, 4),  # 3 for 8
        (11, 10, 3, 1),
        (5, 8, 2, 3),  # a batch that is larger than all
        (7, 3, 5, 1),  # more workers than images in any batch
        (2 * 256 + 1_281_167 % 256, 256, 4, 8),  # ImageNet
        (2 * 128 + 10_000 % 128, 128, 3, 8),  # the test images of CIFAR
    ],
)
def test_every_share_of_a_batch_has_images(images, batch, count, devices):
    dataset = tf.data.Dataset.range(images).map(lambda i: (i, -i)).batch(batch)
    dealt = [list(part.as_numpy_iterator()) for part in workers.deal(dataset, _Strategy(count, devices))]
    steps = -(-images // batch)
    assert [len(part) for part in dealt] == [steps * devices] * count
    for step in range(steps):
        shares = [share for part in dealt for share in part[step * devices : (step + 1) * devices]]
        sizes = [len(numbers) for numbers, _, _ in shares]
        assert min(sizes) > 0 and max(sizes) - min(sizes) <= 1
        numbers, labels, weights = (np.concatenate(values) for values in zip(*shares, strict=True))
        np.testing.assert_array_equal(labels, -numbers)
        # Each image once, or so often that its weights are those of one.
        expected = np.arange(step * batch, min(images, (step + 1) * batch))
        once, times = np.unique(numbers, return_counts=True)
        np.testing.assert_array_equal(once, expected)
        assert len(set(times)) == 1
        np.testing.assert_allclose(weights, 1 / times[0])


def _cluster(monkeypatch, addresses):
    config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))


def test_who_is_missing_is_said(monkeypatch):
    own, missing, there = _free_ports(3)
    _cluster(monkeypatch, [f"localhost:{port}" for port in (own, there, missing)])
    monkeypatch.setattr(workers, "_FIRST_SAID", 0.0)
    lines = []
    with socket.create_server(("", there)):
        with pytest.raises(training.WorkerMissing, match=rf"in vain for worker 2 \(localhost:{missing}\)"):
            workers.await_workers(0.5, lines.append)
        assert len(lines) == 1 and re.match(rf"Waiting for worker 2 \(localhost:{missing}\), since [\d:]+ ", lines[0])
        with socket.create_server(("", missing)):
            workers.await_workers(None, lines.append)
    assert len(lines) == 1


def test_a_port_in_use_is_called_so(monkeypatch):
    own, other = _free_ports(2)
    _cluster(monkeypatch, [f"localhost:{own}", f"localhost:{other}"])
    for address in ("", "localhost"):
        message = rf"This is worker 0, localhost:{own}, but port {own} of this machine is in use.*another port"
        with socket.create_server((address, own)), pytest.raises(training.RunError, match=message):
            workers.await_workers(None, print)


@pytest.mark.parametrize("address", ["host", "host:", ":1", "host:port", "host:70000", "host:0"])
def test_an_address_without_a_port_is_refused(monkeypatch, address):
    _cluster(monkeypatch, ["localhost:1", address])
    with pytest.raises(training.RunError, match="worker 1 has the address.*Expected HOST:PORT"):
        workers.await_workers(None, print)


def test_a_worker_knows_its_run_again(tmp_path):
    """A lost worker is started as it was at first; another configuration is another run."""
    config = training.Config("smooth", "digits", _RECIPE, arguments={"width": (1, 2)}, strategy="multiworker")
    assert not runs_folder.holds(tmp_path, config)
    kept = replace(config, num_classes=10, channels=1, data_dir="elsewhere", versions={"python": "3"})
    kept.write(tmp_path)
    assert runs_folder.holds(tmp_path, config)
    for change in (dict(seed=1), dict(sync_batch_norm=True), dict(arguments={}), dict(network="other")):
        assert not runs_folder.holds(tmp_path, replace(config, **change))


# The supervisor, of programs without TensorFlow

_SUPERVISED = """
import ctypes, os, signal, sys, time
from dataclasses import replace
from pathlib import Path
from larq_rep_cli import errors, supervision
supervision._PAUSE_SECONDS = 0
signal.signal(signal.SIGINT, signal.default_int_handler)  # Background jobs of a shell ignore it.
try:
    attempt = supervision.supervise(Path("RUN"), int(sys.argv[1]))
except errors.InputError as error:
    error.show()
    sys.exit(error.exit_code)
print(attempt, os.getpid(), flush=True)
what = sys.argv[2 + attempt]
if what == "wait":
    ctypes.PyDLL(None).sleep(60)  # Without giving up Python's lock, as TensorFlow waits for the others.
if what == "abort":
    os.abort()
if what.startswith("epoch"):
    folder = Path("RUN/1-binary/checkpoints")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{what}.index").touch()
    sys.exit(75)
sys.exit(int(what))
"""


def _supervised(*arguments):
    return _start([sys.executable, "-c", _SUPERVISED, *map(str, arguments)])


@pytest.mark.parametrize(
    ("restarts", "ends", "code", "message"),
    [
        (3, ["75", "abort", "0"], 0, "ended by SIGABRT.*Restart 2 of 3"),
        (3, ["2"], 2, "^$"),
        (3, ["75", "1"], 1, "Restart 1 of 3"),
        (1, ["75", "75"], 1, "No restart is left.*lqr resume RUN"),
        (0, ["75"], 1, "No restart is left"),
    ],
)
def test_lost_workers_are_waited_for_and_errors_are_not(restarts, ends, code, message):
    process = _supervised(restarts, *ends)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert [line.split()[0] for line in output.splitlines()] == [str(number) for number in range(len(ends))]
    assert re.search(message, errors.replace("\n", " ").strip())


@pytest.mark.parametrize(("ends", "code"), [(["epoch-1", "epoch-2", "epoch-10", "0"], 0), (["epoch-1", "75", "75"], 1)])
def test_restarts_count_since_the_last_finished_epoch(tmp_path, monkeypatch, ends, code):
    monkeypatch.chdir(tmp_path)
    process = _supervised(1, *ends)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code
    assert len(output.splitlines()) == (4 if code == 0 else 2)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_training_ends_with_its_supervisor(sent):
    process = _supervised(3, "wait")
    child = int(process.stdout.readline().split()[1])
    process.send_signal(sent)
    _, errors = process.communicate(timeout=10)
    if sent == signal.SIGINT:
        assert process.returncode == 2
        assert "Interrupted. `lqr resume RUN` goes on" in errors
    else:
        assert process.returncode == -sent
    deadline = time.monotonic() + 5
    while Path(f"/proc/{child}/stat").exists() and " Z " not in Path(f"/proc/{child}/stat").read_text():
        assert time.monotonic() < deadline, "The training lives on without its supervisor."
        time.sleep(0.05)


def _start_lqr(index, folder, ports):
    lqr = [sys.executable, "-m", "larq_rep_cli.lqr", "train", "ResNet20", "--recipe", "rbnn", "--data", "digits"]
    options = ["--input-size", "12", "--strategy", "multiworker", "--sync-batch-norm", "--out", folder]
    for setting in ("method=rbnn", "width=2", "epochs=4", "batch_size=128"):
        options += ["--set", setting]
    return _start([*lqr, *options], _environment(index, ports))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder, ports = tmp_path_factory.mktemp("workers") / "whole", _free_ports(2)
    for process in [_start_lqr(index, folder, ports) for index in (0, 1)]:
        assert _ended(process)[0] == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("victim", [1, 0])
def test_the_run_goes_on_when_a_killed_worker_is_back(tmp_path, uninterrupted, victim):
    """SIGKILL in the middle of an epoch, and the same command again; the rotations of RBNN agree, too."""
    from run_files import arrays, metrics

    ports = _free_ports(2)
    killed = tmp_path / "killed"
    workers = [_start_lqr(index, killed, ports) for index in (0, 1)]
    for line in workers[victim].stderr:
        if line.startswith("epoch 2 of 4"):
            break
    time.sleep(0.5)
    workers[victim].kill()
    workers[victim].communicate()
    workers[victim] = _start_lqr(victim, killed, ports)
    code, errors = _ended(workers[1 - victim])
    assert code == 0 and "Another worker was lost" in errors and "Restart 1 of 3" in errors, errors
    code, errors = _ended(workers[victim])
    assert code == 0 and "going on after epoch" in errors, errors

    assert [row["epoch"] for row in metrics(killed)] == [1, 2, 3, 4]
    assert metrics(killed) == metrics(uninterrupted)
    for file in ("last.h5", "best.h5"):
        expected, found = arrays(uninterrupted / "1-binary" / file), arrays(killed / "1-binary" / file)
        assert any(key.endswith("R1:0") for key in expected)
        for key in expected:
            np.testing.assert_array_equal(found[key], expected[key], err_msg=key)


if __name__ == "__main__":
    if sys.argv[1] == "mirrored":
        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 3)
        # By itself it takes GPUs, or one CPU.
        tf.distribute.MirroredStrategy = functools.partial(tf.distribute.MirroredStrategy, ["CPU:0", "CPU:1", "CPU:2"])
    _train(sys.argv[2], sys.argv[1])
