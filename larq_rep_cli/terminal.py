"""Prints the results, notes and progress of commands, and silences TensorFlow."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_T = TypeVar("_T")

# Wide enough for every table; rich would fold them at 80 columns when its output is not a terminal.
_WIDTH_OF_FILES = 160

_is_quiet = False


def console() -> Console:
    """Standard output, for results. Text is printed as it is, and without colours if it goes to a file."""
    from rich.console import Console

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
    """A progress display on standard error, or nothing if that is not a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    if not sys.stderr.isatty():
        with Progress(disable=True) as silent:
            yield silent
        return
    # LCE's explanations are caught by redirecting the file descriptor of standard error: the display needs
    # another one, or its frames would be caught with them.
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
def working(description: str) -> Iterator[Progress]:
    """Shows that work is going on whose steps cannot be counted; bars of its parts may be added."""
    with progress() as bars:
        bars.add_task(description, total=None)
        yield bars


def track(items: Iterable[_T], description: str, total: int) -> Iterator[_T]:
    """Yields the items and shows a progress bar."""
    with progress() as bars:
        yield from bars.track(items, total=total, description=description)


def quiet_tensorflow(devices: bool = True) -> None:
    """Imports TensorFlow without its startup messages, and silences warnings that are noise in a command.

    Every command calls it before it imports anything of larq_rep. Set `TF_CPP_MIN_LOG_LEVEL` to 0 or 1 to see
    everything. Without `devices` TensorFlow is not started yet, because its workers must be connected first.
    """
    global _is_quiet
    if _is_quiet:
        return
    _is_quiet = True
    # If the user's filters turned warnings into errors, TensorFlow could not be imported.
    warnings.simplefilter("ignore")
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "") in ("0", "1"):
        return
    # Exceptions report what goes wrong.
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    # TensorFlow writes some lines before it looks at that variable.
    with _discarded_stderr():
        import larq_rep  # noqa: F401, I001  (first, so that TensorFlow takes Keras 2)
        import tensorflow as tf

        if devices:
            tf.config.list_logical_devices()  # the search for GPUs also prints
    # larq warns of binary kernels without a clip, but published networks leave it out on purpose. matplotlib says
    # where it keeps its cache if there is no home directory.
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
