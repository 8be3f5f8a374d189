"""Reads the weights of a checkpoint of PyTorch or MXNet, without either and without trusting the file."""

from __future__ import annotations

import fnmatch
import io
import os
import stat
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from larq_rep.zoo.checkpoint import dictionaries, kinds, mxnet
from larq_rep.zoo.checkpoint.dictionaries import STATE_DICT_KEYS
from larq_rep.zoo.checkpoint.formats import LimitedFile, is_safetensors, open_legacy, open_safetensors, open_zip
from larq_rep.zoo.checkpoint.tensors import (
    DAMAGED,
    LEGACY_MAGIC,
    RESAVE,
    CheckpointError,
    ReadStorage,
    to_arrays,
)

__all__ = ["READERS", "STATE_DICT_KEYS", "CheckpointError", "read_state_dict"]

READERS = ("ours", "torch")  # Until 0.3: there is one reader.

MAX_BYTES = 4 * 10**9


@dataclass(frozen=True)
class Contents:
    """The weights of a file.

    # Attributes
        arrays: They by their keys, in the order of the file.
        notes: What should be said of their choice.
        ignored: The keys that were left out, with the pattern that each has.
    """

    arrays: dict[str, np.ndarray]
    notes: list[str] = field(default_factory=list)
    ignored: dict[str, str] = field(default_factory=dict)


def read_state_dict(
    path: str | os.PathLike[str], *, key: str | None = None, reader: str | None = None, max_bytes: int = MAX_BYTES
) -> dict[str, np.ndarray]:
    """Reads the weights of a PyTorch checkpoint, or of MXNet's `save_parameters`, as numpy arrays.

    Nothing in the file is executed. It may be a zip archive as `torch.save` writes it since PyTorch 1.6, a file of
    the format before that (both are often called `.pth.tar`; neither is a tar archive), a file of safetensors, read
    with the library of that name (`pip install safetensors`), or one of MXNet (`.params`). The first bytes tell which,
    whatever its name.

    The weights are the only dictionary of tensors in the file, at any depth; of several, that under one of
    `STATE_DICT_KEYS` or the only one that is not called an average (`ema`, `swa`); or what `key` names. Other
    entries (epoch, accuracy, optimizer, objects of any class) are read over. Keys and their order are those of the
    file, with the prefix `module.` of `DataParallel` where it has one.

    !!! example
        ```python
        weights = read_state_dict("model_best.pth.tar")
        weights["module.fc.weight"].shape  # (1000, 1024)
        ```

    # Arguments
        path: The file.
        key: Name of the dictionary of the weights, `a.b` for `b` in `a`.
        reader: Deprecated and without effect: PyTorch's own loader is no longer used. Goes with 0.3.
        max_bytes: Largest file, and most bytes of all arrays together.

    # Returns
        The arrays by key, each one a copy in C order. Types are those of the file, except that bfloat16 becomes
        float32.

    # Raises
        CheckpointError: If the file is none of these, is damaged, is larger than allowed, has no weights or several
            dictionaries of them, or its weights are objects of a program. No array is returned then.
        ValueError: If there is no such reader.
    """
    check_reader("read_state_dict", reader)
    return read(path, key=key, max_bytes=max_bytes).arrays


def read(
    path: str | os.PathLike[str], *, key: str | None = None, ignore: Sequence[str] = (), max_bytes: int = MAX_BYTES
) -> Contents:
    """The same, with what should be said of it and without the keys that have one of the shell patterns `ignore`."""
    name = os.fsdecode(path)
    if address := kinds.url(name):
        raise CheckpointError(kinds.address(address))
    try:
        size = _file_size(name, max_bytes)
        with LimitedFile(io.FileIO(name)) as file:
            head = file.read(512)
            file.seek(0)
            if head.startswith(mxnet.MAGIC):
                return _of_mxnet(mxnet.read_params(Path(name).read_bytes()), key, ignore)
            content, read_storage = _open(name, file, head, size)
            weights, notes = dictionaries.find(content, key)
            ignored = matches(weights, ignore)
            weights = {key: value for key, value in weights.items() if key not in ignored}
            dictionaries.check_tensors(weights)
            return Contents(to_arrays(weights, read_storage, max_bytes), notes, ignored)
    except CheckpointError as error:
        end = "" if "\n" in str(error) else "."
        raise CheckpointError(f"{name}: {error}{end}") from error.__cause__
    except OSError as error:
        raise CheckpointError(f"{name}: it cannot be read: {error}. Check that it is yours to read.") from error


def _open(name: str, file: LimitedFile, head: bytes, size: int) -> tuple[Any, ReadStorage]:
    if head.startswith(b"PK\x03\x04"):
        return open_zip(file, size)
    if head.startswith(LEGACY_MAGIC):
        return open_legacy(file, size)
    if is_safetensors(head, size):
        return open_safetensors(file, size)
    if other := kinds.what_else(name, head, file):
        raise CheckpointError(other)
    if name.lower().endswith(".safetensors"):
        return open_safetensors(file, size)
    raise CheckpointError(
        f"it begins with the bytes {head[:8].hex(' ')}, {kinds.EXPECTED}. Check that it is the right file. {DAMAGED}"
    )


def _of_mxnet(arrays: dict[str, np.ndarray], key: str | None, ignore: Sequence[str]) -> Contents:
    if key is not None:
        raise CheckpointError(f"it is a file of MXNet, which has no dictionaries, found key={key!r}. Leave that out")
    ignored = matches(arrays, ignore)
    return Contents({key: array for key, array in arrays.items() if key not in ignored}, [], ignored)


def matches(keys: Iterable[Any], patterns: Iterable[str]) -> dict[str, str]:
    """The keys that have one of these shell patterns, with the first that each has."""
    found = {}
    for key in keys:
        pattern = next((x for x in patterns if isinstance(key, str) and fnmatch.fnmatchcase(key, x)), None)
        if pattern is not None:
            found[key] = pattern
    return found


def check_reader(function: str, reader: str | None) -> None:
    """Warns of the argument `reader` of a function, which goes with 0.3."""
    if reader is None:
        return
    if reader not in READERS:
        raise ValueError(f"{function}: reader must be one of {', '.join(map(repr, READERS))}, found {reader!r}.")
    message = f"{function}: the argument reader has no effect and goes with 0.3. Leave it out."
    warnings.warn(message, DeprecationWarning, stacklevel=3)


def _file_size(path: str, max_bytes: int) -> int:
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise kinds.missing(path) from None
    except ValueError as error:  # a null byte
        raise CheckpointError(f"this is not the name of a file: {error}. Check the name") from error
    if stat.S_ISDIR(status.st_mode):
        raise kinds.folder(path)
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError("it is a pipe or a device, expected a file. Save its content to a file first")
    if status.st_size == 0:
        raise CheckpointError(f"it is empty. {DAMAGED}")
    if status.st_size > max_bytes:
        raise CheckpointError(
            f"it has {status.st_size:,} bytes, expected at most max_bytes={max_bytes:,}. {RESAVE}. Or raise "
            "max_bytes in Python, larq_rep.zoo.import_checkpoint(file, max_bytes=...)"
        )
    return status.st_size
