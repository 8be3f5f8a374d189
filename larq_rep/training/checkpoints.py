"""Lists and checks the checkpoints of a phase, and reads and writes the state beside them."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from larq_rep.files import replacing

NAME = "epoch"


def prefix(folder: Path, epoch: int) -> str:
    """The prefix of the names of a checkpoint's files."""
    return str(folder / f"{NAME}-{epoch}")


def epochs(folder: Path) -> list[int]:
    """The epochs that have at least one checkpoint file, the last epoch first."""
    found = {re.fullmatch(rf"{NAME}-(\d+)\.(index|data-\d+-of-\d+)", path.name) for path in folder.glob(f"{NAME}-*")}
    return sorted({int(match.group(1)) for match in found if match}, reverse=True)


def damage(prefix: str) -> str | None:
    """Says what is wrong with a checkpoint, or returns `None`. TensorFlow compares checksums when it reads."""
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
    """Writes the state of a run beside a checkpoint, in case it is lost elsewhere.

    # Arguments
        config: The values of `config.json`.
        rows: The rows of `metrics.csv` up to the epoch of the checkpoint.
    """
    with replacing(Path(f"{prefix}.json")) as unfinished:
        unfinished.write_text(json.dumps({"config": config, "rows": list(rows)}), encoding="utf-8")


def read_state(prefix: str) -> dict[str, Any] | None:
    """Reads what `write_state` wrote; `None` if it is damaged or, as in version 0.1.0, missing."""
    try:
        state = json.loads(Path(f"{prefix}.json").read_text(encoding="utf-8"))
        return {"config": state["config"], "rows": state["rows"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remove_states(folder: Path) -> None:
    """Removes states whose checkpoints no longer exist."""
    for path in folder.glob(f"{NAME}-*.json"):
        if path.stem.removeprefix(f"{NAME}-") not in map(str, epochs(folder)):
            path.unlink()
