"""The runs of `lqr train`: their folders, and their networks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from larq_rep_cli import light, terminal
from larq_rep_cli.errors import InputError, refusing

if TYPE_CHECKING:
    import tensorflow as tf

    from larq_rep.training import Config


def absolute(name: str) -> str:
    """The absolute path of a file or folder, as the run is also used from elsewhere; other names unchanged."""
    return str(Path(name).resolve()) if Path(name).exists() and not light.datasets.find(name) else name


def is_run(source: str | Path) -> bool:
    return (Path(source) / "config.json").is_file()


def strategy(run: Path) -> str | None:
    """The strategy of a run, without TensorFlow; `None` if this is not a run, which is reported later."""
    try:
        return json.loads((run / "config.json").read_text(encoding="utf-8")).get("strategy")
    except (OSError, ValueError, AttributeError):
        return None


def interrupted(folder: Path, how: str = "Interrupted") -> InputError:
    return InputError(f"{how}. {how_to_go_on(folder)}")


def how_to_go_on(folder: Path) -> str:
    if is_run(folder):
        return f"`lqr resume {folder}` goes on after the last whole epoch."
    return (
        f"`lqr resume {folder}` goes on only with a run that has begun; this one had not: start the same command again."
    )


def config(run: Path, devices: bool = True) -> Config:
    """The configuration that a run was started with.

    # Raises
        InputError: If it is not a run.
    """
    terminal.quiet_tensorflow(devices=devices)
    from larq_rep import training

    with refusing(training.RunError):
        return training.Config.read(run)


def network(config: Config) -> tf.keras.Model:
    """The network of a run with its initial values."""
    from larq_rep.zoo import runs

    return runs.network(config)


def load(folder: str | Path, weights: str = "best") -> tf.keras.Model:
    """The trained network of a run.

    # Raises
        InputError: If there is none yet, or it can no longer be built.
    """
    terminal.quiet_tensorflow()
    from larq_rep.zoo import runs

    with refusing(ValueError, FileNotFoundError, OSError, ImportError):
        return runs.load(folder, weights)


@contextmanager
def explained() -> Iterator[None]:
    """Turns TensorFlow's errors about damaged images, which it reads only when they are needed, into `InputError`."""
    import tensorflow as tf

    from larq_rep.training.trainee import explained

    try:
        yield
    except tf.errors.OpError as error:
        raise InputError(explained(error)) from error
