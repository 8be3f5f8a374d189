"""The checkpoints of a phase: which are there, which are whole, and what was written beside them."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from larq_rep.files import replacing

NAME = "epoch"


def prefix(folder: Path, epoch: int) -> str:
    """What the names of the files of a checkpoint begin with."""
    return str(folder / f"{NAME}-{epoch}")


def epochs(folder: Path) -> list[int]:
    """The epochs of which there is a file of a checkpoint, the last one first."""
    found = {re.fullmatch(rf"{NAME}-(\d+)\.(index|data-\d+-of-\d+)", path.name) for path in folder.glob(f"{NAME}-*")}
    return sorted({int(match.group(1)) for match in found if match}, reverse=True)


def damage(prefix: str) -> str | None:
    """What is wrong with a checkpoint, if anything is. TensorFlow has check sums, which are compared in reading."""
    try:
        reader = tf.train.load_checkpoint(prefix)
        names = list(reader.get_variable_to_shape_map())
        for name in names:
            reader.get_tensor(name)
    except Exception as error:  # Reading half a file raises errors of all classes.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return lines[0]
    return None if names else "it is empty"


def write_state(prefix: str, config: dict[str, Any], rows: Sequence[dict[str, float]]) -> None:
    """Writes beside a checkpoint what its run knows, should that be lost elsewhere.

    # Arguments
        config: The values of `config.json`.
        rows: Those of `metrics.csv` up to the epoch of the checkpoint.
    """
    with replacing(Path(f"{prefix}.json")) as unfinished:
        unfinished.write_text(json.dumps({"config": config, "rows": list(rows)}), encoding="utf-8")


def read_state(prefix: str) -> dict[str, Any] | None:
    """What `write_state` has written; `None` if that is damaged or, as in version 0.1.0, not there."""
    try:
        state = json.loads(Path(f"{prefix}.json").read_text(encoding="utf-8"))
        return {"config": state["config"], "rows": state["rows"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remove_states(folder: Path) -> None:
    """Removes what was written beside checkpoints that are not there any more."""
    for path in folder.glob(f"{NAME}-*.json"):
        if path.stem.removeprefix(f"{NAME}-") not in map(str, epochs(folder)):
            path.unlink()
