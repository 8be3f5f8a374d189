"""What a command prints: results, notes, progress; and that TensorFlow is quiet."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

_T = TypeVar("_T")

# Wide enough for every table; rich would fold them at 80 columns when nobody looks.
_WIDTH_OF_FILES = 160

_is_quiet = False


def console() -> Console:
    """Standard output, for results. Text is printed as it is, and without colours if it goes to a file."""
    # Given the file, rich also looks at its encoding.
    result = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    if not sys.stdout.isatty():
        result.width = _WIDTH_OF_FILES
    return result


def note(message: str) -> None:
    """Prints a line that is not the result, on standard error."""
    click.echo(message, err=True)


def print_json(value: Any) -> None:
    """Prints a result for programs. JSON has no NaN and no infinity; they become null."""
    strict = json.loads(json.dumps(value), parse_constant=lambda _: None)
    click.echo(json.dumps(strict, indent=2))


@contextmanager
def progress() -> Iterator[Progress]:
    """A progress display on standard error, and nothing where that is no terminal."""
    if not sys.stderr.isatty():
        with Progress(disable=True) as silent:
            yield silent
        return
    # LCE's explanations are caught by redirecting the file descriptor of standard error: the display needs
    # another one, or its frames would be caught, too.
    with open(os.dup(2), "w", encoding="utf-8") as file:
        terminal = Console(file=file, force_terminal=True, highlight=False, markup=False, emoji=False)
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=terminal, transient=True, redirect_stderr=False) as bars:
            yield bars


@contextmanager
def working(description: str) -> Iterator[None]:
    """Shows that something takes its time, where no steps can be counted."""
    with progress() as bars:
        bars.add_task(description, total=None)
        yield


def track(items: Iterable[_T], description: str, total: int) -> Iterator[_T]:
    """Shows a progress bar while the items are gone through."""
    with progress() as bars:
        yield from bars.track(items, total=total, description=description)


def quiet_tensorflow(devices: bool = True) -> None:
    """Imports TensorFlow without its greetings, and silences what is noise in a command.

    Every command calls it before it imports anything of larq_rep. Set `TF_CPP_MIN_LOG_LEVEL` to 0 or 1 to see
    everything. Without `devices` TensorFlow is not started yet, for its workers must be connected first.
    """
    global _is_quiet
    if _is_quiet:
        return
    _is_quiet = True
    # Also where the user's filters make errors of them: TensorFlow could not be imported.
    warnings.simplefilter("ignore")
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "") in ("0", "1"):
        return
    # What goes wrong is told by exceptions.
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    # TensorFlow writes some lines before it looks at that variable.
    with _discarded_stderr():
        import larq_rep  # noqa: F401, I001  (first, so that TensorFlow takes Keras 2)
        import tensorflow as tf

        if devices:
            tf.config.list_logical_devices()  # the search for GPUs speaks, too
    # larq warns of binary kernels without a clip; networks of the literature have none on purpose. matplotlib says
    # where it keeps its cache if there is no home.
    for name in ("absl", "tensorflow", "larq", "matplotlib"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def _discarded_stderr() -> Iterator[None]:
    with open(os.devnull, "w") as nowhere:
        saved = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
