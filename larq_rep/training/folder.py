"""Reads and writes the folder of a run, and keeps it consistent."""

import contextlib
import csv
import dataclasses
import fcntl
import json
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tensorflow as tf

import larq_rep
from larq_rep.files import replacing
from larq_rep.training import checkpoints
from larq_rep.training.recipe import Recipe, from_json, to_json

_STOPPED = "stopped.json"


class RunError(ValueError):
    """A run cannot begin or go on. The message says what is wrong, where, and what to do."""


@dataclass(frozen=True)
class Config:
    """Everything that a run depends on, as stored in its folder's `config.json`.

    # Attributes
        network: The trained network, in words or by its name in the zoo.
        arguments: The keyword arguments it was built with.
        num_classes, channels: Number of classes and of image channels of the data; `train` fills them in.
        data: Name of a data set or path of a folder, see `larq_rep.training.datasets.load`.
        data_dir: Where `tensorflow_datasets` finds it.
        recipe: How it is trained; if it has statistics of several data sets, those of `data` are used.
        seed: Seed of everything random.
        teacher: Where the teacher came from.
        strategy: `None`, `"mirrored"` or `"multiworker"`, see `tf.distribute`.
        sync_batch_norm: Whether batch normalisations take their statistics over all replicas.
        deterministic: Whether TensorFlow is told to compute the same values every time.
        versions: The versions the run was begun with, see `versions`.
    """

    network: str
    data: str
    recipe: Recipe
    arguments: dict[str, Any] = field(default_factory=dict)
    num_classes: int | None = None
    channels: int | None = None
    data_dir: str | None = None
    seed: int = 0
    teacher: str | None = None
    strategy: str | None = None
    sync_batch_norm: bool = False
    deterministic: bool = True
    versions: dict[str, str] = field(default_factory=lambda: versions())

    def __post_init__(self) -> None:
        object.__setattr__(self, "recipe", self.recipe.on(self.data))

    def values(self) -> dict[str, Any]:
        """Returns the configuration as plain values, ready for JSON."""
        return {**dataclasses.asdict(self), "recipe": to_json(self.recipe)}

    def write(self, folder: Path) -> None:
        with replacing(folder / "config.json") as unfinished:
            unfinished.write_text(json.dumps(self.values(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> "Config":
        """Reads the configuration of a run, from its newest whole checkpoint if `config.json` is damaged.

        # Raises
            RunError: If the folder is not a run, or its configuration cannot be read.
        """
        path = Path(folder) / "config.json"
        if not path.is_file():
            raise RunError(f"{folder} is not a run: there is no config.json in it. `lqr train` makes one.")
        try:
            return cls._of(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if state := kept_state(path.parent):
                return cls._of(state["config"])
            raise RunError(f"{path} cannot be read: {error!r}. Restore it, or begin a new run.") from error

    @classmethod
    def _of(cls, values: dict[str, Any]) -> "Config":
        return cls(**{**values, "recipe": from_json(values["recipe"])})


def versions() -> dict[str, str]:
    """The versions of the packages that training depends on, and the kind of machine."""
    import larq
    import tf_keras

    return {
        "larq_rep": larq_rep.__version__,
        "larq": getattr(larq, "__version__", "0.14"),
        "tensorflow": tf.__version__,
        "tf_keras": tf_keras.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
    }


def in_common(config: Config) -> str:
    """The values that must agree between all workers of a run. Paths and the recipe's texts may differ."""
    values = dataclasses.asdict(dataclasses.replace(config, data_dir=None, teacher=None, versions={}))
    recipe = dataclasses.replace(config.recipe, networks="", spec="", note="")
    return json.dumps({**values, "recipe": to_json(recipe)}, sort_keys=True)


def holds(folder: Path, config: Config) -> bool:
    """Returns whether the folder holds a run of this configuration."""
    if not (folder / "config.json").is_file():
        return False
    begun = Config.read(folder)
    config = dataclasses.replace(config, num_classes=begun.num_classes, channels=begun.channels)
    return in_common(config) == in_common(begun)


def is_readable(folder: Path) -> bool:
    """Returns whether `config.json` itself can be read."""
    try:
        Config._of(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return True


def phase_folder(folder: str | os.PathLike[str], recipe: Recipe, number: int) -> Path:
    """The folder with the weights of a phase; the first phase has number 0."""
    return Path(folder) / f"{number + 1}-{recipe.phases[number].weights}"


def a_later_has_begun(folder: Path, recipe: Recipe, number: int) -> bool:
    """Returns whether a later phase than this one has a checkpoint; the first phase has number 0."""
    later = range(number + 1, len(recipe.phases))
    return any(checkpoints.epochs(phase_folder(folder, recipe, other) / "checkpoints") for other in later)


def read_metrics(folder: str | os.PathLike[str]) -> list[dict[str, float]]:
    """The rows of `metrics.csv`, one an epoch; empty before the first one.

    # Raises
        RunError: If the file is damaged.
    """
    path = Path(folder) / "metrics.csv"
    if not path.is_file():
        return []
    rows: list[dict[str, float]] = []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file, strict=True):
                values = {key: float(value) for key, value in row.items() if value}
                # val_accuracy must be there as well: it tells which epoch is best.
                numbers = {"phase": int(values["phase"]), "epoch": int(values["epoch"])}
                rows.append({**values, **numbers, "val_accuracy": values["val_accuracy"]})
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise RunError(
            f"{path} is damaged: row {len(rows) + 1} cannot be read ({error!r}). `lqr resume {folder}` writes it anew "
            "from the checkpoint."
        ) from error
    return rows


def kept_state(folder: Path, until: tuple[int, int] | None = None) -> dict[str, Any] | None:
    """Reads the state kept with a run's newest whole checkpoint, see `checkpoints.write_state`; `None` without one.

    # Arguments
        until: Phase and epoch; the first phase has number 1. Later checkpoints are ignored.
    """
    found = [
        (int(path.parent.name.partition("-")[0]), epoch, path)
        for path in folder.glob("[0-9]*-*/checkpoints")
        for epoch in checkpoints.epochs(path)
    ]
    for phase, epoch, path in sorted(found, reverse=True):
        prefix = checkpoints.prefix(path, epoch)
        counts = (until is None or (phase, epoch) <= until) and checkpoints.damage(prefix) is None
        if counts and (state := checkpoints.read_state(prefix)):
            return state
    return None


def stopped_at(path: Path) -> int | None:
    """The epoch after which a callback ended the phase with this folder; `None` if none did."""
    file = path / _STOPPED
    if not file.is_file():
        return None
    try:
        return int(json.loads(file.read_text(encoding="utf-8"))["epoch"])
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{file} cannot be read: {error!r}. It says after which epoch a callback ended the phase: restore it, or "
            "remove it to go on with the phase."
        ) from error


def write_stopped(path: Path, epoch: int) -> None:
    with replacing(path / _STOPPED) as unfinished:
        unfinished.write_text(json.dumps({"epoch": epoch}) + "\n", encoding="utf-8")


def write_metrics(rows: Sequence[dict[str, float]], folder: Path) -> None:
    """Writes `metrics.csv`."""
    with (
        replacing(folder / "metrics.csv") as unfinished,
        open(unfinished, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, dict.fromkeys(key for row in rows for key in row))
        writer.writeheader()
        writer.writerows(rows)


@contextlib.contextmanager
def reserved(folder: Path, resume: bool, force: bool) -> Iterator[None]:
    """Prepares the folder, and keeps other processes from using it. A run that cannot begin leaves nothing behind."""
    if not resume and folder.exists() and not _is_free(folder) and not (force and _is_run(folder)):
        raise RunError(
            f"{folder} exists already. `lqr resume {folder}` goes on with a run; for a new one give another folder."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".lock", "w", encoding="utf-8")  # noqa: SIM115  (as long as the run)
    except OSError as error:
        raise RunError(f"{folder} cannot be written to: {error}. Give another folder.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(f"{folder} is in use by another process. Wait for it, or stop it.") from error
        try:
            yield
        except Exception:
            if not resume and not (folder / "metrics.csv").exists():
                clear(folder)
                with contextlib.suppress(OSError):
                    (folder / ".lock").unlink()
                    folder.rmdir()
            raise


def _is_free(folder: Path) -> bool:
    """Returns whether a run may begin here. A killed process may have left its lock or an unfinished file."""
    return folder.is_dir() and all(path.name.startswith(".") for path in folder.iterdir())


def _is_run(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def clear(folder: Path) -> None:
    """Removes everything of a run except its lock."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != ".lock":
            path.unlink()


def check_space(folder: Path, network: tf.keras.Model, optimizer: tf.keras.optimizers.Optimizer, phases: int) -> None:
    """Raises if the disk cannot hold the remaining phases."""

    def size(variables):
        return sum(variable.shape.num_elements() * variable.dtype.size for variable in variables)

    # Two checkpoints and the next one; weights of the last and best epoch and the next one; curves and metrics.
    needed = phases * (3 * size([*network.variables, *optimizer.variables]) + 3 * size(network.variables)) + 5e6
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise RunError(
            f"{folder}: a run of this network needs {needed / 1e6:.0f} MB, but only {free / 1e6:.0f} MB are free. Make "
            "room, or give a folder on another disk."
        )
