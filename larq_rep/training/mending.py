"""Finds damaged files of a phase when a run goes on, and restores them from its checkpoints."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import tensorflow as tf

from larq_rep.files import replacing
from larq_rep.training import checkpoints, workers
from larq_rep.training import folder as folders
from larq_rep.training.folder import RunError
from larq_rep.training.recipe import Phase
from larq_rep.training.state import State


def newest_whole(path: Path, report: Callable[[str], None]) -> tuple[int, bool]:
    """Finds the checkpoint from which a phase goes on.

    # Arguments
        path: The folder of the phase.

    # Returns
        Its epoch, 0 if there is no checkpoint, and whether a newer one is damaged.

    # Raises
        RunError: If all are damaged.
    """
    place = path / "checkpoints"
    damaged: list[str] = []
    for epoch in checkpoints.epochs(place):
        why = checkpoints.damage(checkpoints.prefix(place, epoch))
        if why is None:
            if damaged:
                report(
                    f"{place}: damaged: {'; '.join(damaged)}. Going on after epoch {epoch}, whose checkpoint is the "
                    "newest that is whole."
                )
            return epoch, bool(damaged)
        damaged.append(f"the checkpoint of epoch {epoch} ({why})")
    if damaged:
        raise RunError(
            f"{place}: no checkpoint is whole: {'; '.join(damaged)}. Put one back from a copy of the run, or begin a "
            f"new run; weights of this one, without what is needed to go on, are in {path / 'last.h5'} and best.h5."
        )
    return 0, False


def known_rows(state: State) -> list[dict[str, float]]:
    """Reads the metrics of a run up to an epoch of a phase, from beside the checkpoint.

    Writes `metrics.csv` anew if it differs.

    # Raises
        RunError: If there are none beside the checkpoint, as in runs of version 0.1.0, and the file has too few rows.
    """
    folder, number, epoch = state.run.folder, state.number, state.epoch
    until = number + 1, epoch
    place = state.path / "checkpoints"
    kept = checkpoints.read_state(checkpoints.prefix(place, epoch)) if epoch else folders.kept_state(folder, until)
    try:
        written = [row for row in folders.read_metrics(folder) if (row["phase"], row["epoch"]) <= until]
    except RunError:
        written = []
    if kept is None:
        if [row["epoch"] for row in written if row["phase"] == number + 1] != list(range(1, epoch + 1)):
            raise RunError(
                f"{folder / 'metrics.csv'} lacks rows of epochs that were trained, or is damaged, so the best epoch is "
                "not known. Put it back from a copy of the run, or begin a new run."
            )
        return written
    rows = kept["rows"]
    if rows != written and state.run.chief:
        folders.write_metrics(rows, folder)
        state.run.report(
            f"{folder / 'metrics.csv'} was damaged or lacked rows. Its {len(rows)} rows are written anew from the "
            "checkpoint."
        )
    return rows


def mend_weights(state: State) -> None:
    """Restores missing or damaged weight files of a phase, if a checkpoint has the weights.

    Several workers have to read their statistics together, so all of them call this; the chief writes.

    # Raises
        RunError: If there is no checkpoint of the epoch.
    """
    run, path, best = state.run, state.path, best_epoch(state.phase, state.accuracies())
    place, wanted = path / "checkpoints", {path / "last.h5": state.epoch, path / "best.h5": best}
    reasons = {file: damage(file) if file.is_file() else "it is not there" for file in wanted}
    workers.gather(run.strategy, 0)  # Waits until all have looked.
    for file, why in reasons.items():
        if why is None:
            continue
        number = wanted[file]
        if number not in checkpoints.epochs(place) or checkpoints.damage(checkpoints.prefix(place, number)):
            raise RunError(
                f"{file} cannot be read ({why}), and no checkpoint is of epoch {number}, whose weights it had. Put it "
                f"back from a copy of the run; or copy {path / 'last.h5'} in its place, which then goes for the best "
                f"until an epoch is better than epoch {number} was."
            )
        state.restore(number)
        with (
            tempfile.TemporaryDirectory() as other,
            replacing(file if run.chief else Path(other, file.name)) as unfinished,
        ):
            state.network.save_weights(unfinished, save_format="h5")
        state.restore(state.epoch)
        run.report(f"{file} cannot be read ({why}). It is written anew from the checkpoint of epoch {number}.")


def damage(file: Path) -> str | None:
    """Says what is wrong with a file of weights, or returns `None`."""

    def read(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            item[()]

    try:
        with h5py.File(file) as content:
            content.visititems(read)
            return None if len(content) else "it is empty"
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        return str(error)


def load_weights(network: tf.keras.Model, file: Path, remedy: str) -> None:
    """Loads weights that a run has written.

    # Raises
        RunError: If they cannot be read.
    """
    if why := damage(file):
        raise RunError(f"{file} cannot be read: {why}. {remedy}")
    network.load_weights(file)


def best_epoch(phase: Phase, accuracies: Sequence[float]) -> int:
    """The number of the best epoch of a phase; the first epoch has number 1."""
    return 1 + max(i for i, accuracy in enumerate(accuracies) if phase.is_best(accuracy, accuracies[:i]))
