"""What the commands have in common that train, or use what was trained."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from larq_rep_cli import common

if TYPE_CHECKING:
    import tensorflow as tf

    from larq_rep.training import Config

_DIGITS_SIZE = 16
# The forms for CIFAR have a first layer for small images.
FORMS = {"digits": "cifar10", "cifar10": "cifar10", "cifar100": "cifar100", "imagenet2012": "imagenet"}

data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Folder of tensorflow_datasets.  [default: $TFDS_DATA_DIR or ~/tensorflow_datasets]",
)
# Exit status of a training that can go on in a new process; EX_TEMPFAIL of sysexits.h.
WORKER_LOST = 75
_PAUSE_SECONDS = 5.0
# Of linux/prctl.h.
_PR_SET_PDEATHSIG = 1
restarts_option = click.option(
    "--restarts",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="With --strategy multiworker: how often to go on by itself from the last checkpoint after another worker "
    "was lost, counted since the last finished epoch.",
)
wait_option = click.option(
    "--wait",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="With --strategy multiworker: how long to wait until all workers are there.  [default: for ever]",
)
weights_option = click.option(
    "--weights",
    type=click.Choice(("best", "last")),
    default="best",
    show_default=True,
    help="Weights of the epoch with the best accuracy on the test images, or of the last epoch.",
)


def absolute(name: str) -> str:
    """A file or folder by its whole path, for the run is used from elsewhere, too; another name as it is."""
    return str(Path(name).resolve()) if Path(name).exists() and name not in FORMS else name


def is_run(source: str | Path) -> bool:
    return (Path(source) / "config.json").is_file()


def strategy(run: Path) -> str | None:
    """The strategy of a run, without TensorFlow; `None` for what is no run, which is told later."""
    try:
        return json.loads((run / "config.json").read_text(encoding="utf-8")).get("strategy")
    except (OSError, ValueError, AttributeError):
        return None


def interrupted(folder: Path, how: str = "Interrupted") -> common.InputError:
    return common.InputError(f"{how}. {_how_to_go_on(folder)}")


def _how_to_go_on(folder: Path) -> str:
    if is_run(folder):
        return f"`lqr resume {folder}` goes on after the last whole epoch."
    return f"`lqr resume {folder}` goes on with a run that has begun; this one had not: start the same command again."


def _finished(folder: Path) -> tuple[int, int]:
    """Phase and epoch of the last checkpoint of a run."""
    found = [
        (int(match[1]), int(match[2]))
        for path in folder.glob("*/checkpoints/*.index")
        if (match := re.search(r"(\d+)-[^/]*/checkpoints/epoch-(\d+)\.index$", path.as_posix()))
    ]
    return max(found, default=(0, 0))


def supervise(folder: Path, restarts: int) -> int:
    """Goes on in a new process, and in another one when that ends because a worker was lost.

    A TensorFlow whose workers were connected cannot connect them again, and it may abort its process. It must not be
    imported before: its threads would not live on in the new process. This process waits, and ends as the last of
    the others does.

    # Arguments
        folder: That of the run.
        restarts: How many more processes there may be in which no epoch is finished.

    # Returns
        In the new process: how many there were before it.

    # Raises
        InputError: In this process, if it is interrupted.
    """
    child = number = in_vain = 0
    try:
        while True:
            parent, finished = os.getpid(), _finished(folder)
            child = os.fork()
            if child == 0:
                # While TensorFlow waits for a worker Python reacts to no signal: the other process ends this one.
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                _end_with(parent)
                return number
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            child = 0
            if code >= 0 and code != WORKER_LOST:
                raise SystemExit(code)
            if code < 0:
                common.note(f"The training was ended by {signal.Signals(-code).name}.")
            if _finished(folder) > finished:
                in_vain = 0
            if in_vain == restarts:
                break
            number, in_vain = number + 1, in_vain + 1
            common.note(
                f"Restart {in_vain} of {restarts}: going on from the last checkpoint as soon as all workers are there."
            )
            time.sleep(_PAUSE_SECONDS)
    except (KeyboardInterrupt, common.Terminated) as ending:
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        if isinstance(ending, common.Terminated):
            raise
        raise interrupted(folder) from None
    common.note(f"No restart is left. {_how_to_go_on(folder)} That has to be done on all workers.")
    raise SystemExit(1)


def _end_with(parent: int) -> None:
    """Lets Linux kill this process when its parent ends. Python could not: TensorFlow holds its lock while it waits."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)


def network(config: Config) -> tf.keras.Model:
    """The network of a run with its initial values."""
    from larq_rep import zoo

    return zoo.get_model(config.network, **arguments(config))


def arguments(config: Config) -> dict[str, Any]:
    """The keywords of the network's constructor: those of the run, and those that follow from its data."""
    from larq_rep import zoo
    from larq_rep.zoo.registry import DATASETS, choose

    record = zoo.get_network(config.network)
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in config.arguments.items()}
    given.setdefault("num_classes", config.num_classes)
    form = str(given.get("dataset") or FORMS.get(config.data, ""))
    if form:
        choose(config.network, "dataset", form, DATASETS)
    if form and "dataset" in record.parameters:
        given["dataset"] = form
    else:
        form = record.variants[0].dataset
    size = given.pop("input_size", None)
    if size is None:
        size = (_DIGITS_SIZE, _DIGITS_SIZE) if config.data == "digits" else DATASETS[form].input_shape[:2]
    return {**given, "input_shape": (*size[:2], config.channels)}


def load(folder: str | Path, weights: str = "best") -> tf.keras.Model:
    """The trained network of a run.

    # Raises
        InputError: If there is none yet, or it cannot be built any more.
    """
    common.quiet_tensorflow()
    from larq_rep import training

    with common.refusing(ValueError, FileNotFoundError, OSError, ImportError):
        return training.load(network, folder, weights)
