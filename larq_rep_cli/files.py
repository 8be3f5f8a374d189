"""The files that commands read and write."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from larq_rep_cli.errors import InputError, refusing


def check_suffix(path: Path, option: str, suffix: str) -> None:
    """Refuses a file name, given with an option, that has another suffix."""
    if path.suffix != suffix:
        raise InputError(f"{option} {path}: expected the name of a {suffix} file.")


def check_output(path: Path, force: bool) -> None:
    """Refuses a file that could not be written, before the long work starts.

    # Raises
        InputError: If its folder does not exist or cannot be written to, if it is a folder itself, or if it
            exists and `force` is not set.
    """
    if not path.parent.is_dir():
        raise InputError(f"{path} cannot be written: there is no folder {path.parent}. Create it first.")
    if path.is_dir():
        raise InputError(f"{path} cannot be written: it is a folder. Expected the name of a file.")
    if path.exists() and not force:
        raise InputError(f"{path} exists already. Give --force to overwrite it, or another name.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(f"{path} cannot be written: no permission to write to the folder {path.parent}.")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Like `larq_rep.files.replacing`, for a command.

    # Raises
        InputError: If the file cannot be written.
    """
    from larq_rep import files

    with refusing(OSError, prefix=f"{path} cannot be written: "), files.replacing(path) as unfinished:
        yield unfinished


def read_file(path: Path) -> bytes:
    """The bytes of a file.

    # Raises
        InputError: If it cannot be read.
    """
    if not path.exists():
        raise InputError(f"There is no file {path}.")
    if path.is_dir():
        raise InputError(f"{path} is a folder. Expected a file.")
    with refusing(OSError, prefix=f"{path} cannot be read: "):
        return path.read_bytes()
