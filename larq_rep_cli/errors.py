"""The exceptions that stop a command: input that it cannot use, and SIGTERM."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click


class InputError(click.ClickException):
    """The input cannot be used. The message says what, where, what was expected, and what to do."""

    exit_code = 2


@contextmanager
def refusing(*errors: type[Exception], prefix: str = "") -> Iterator[None]:
    """Turns errors with which the library refuses its input into an `InputError`; all others pass."""
    try:
        yield
    except errors as error:
        raise InputError(f"{prefix}{error}") from error


class Terminated(BaseException):
    """SIGTERM. Linux does not deliver it to process 1 of a container unless that process asks for it."""
