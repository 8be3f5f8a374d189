"""Reads the weights of a checkpoint of PyTorch or MXNet, without either and without trusting the file."""

from __future__ import annotations

import io
import os
import stat
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from larq_rep.zoo.checkpoint import mxnet
from larq_rep.zoo.checkpoint.formats import LEGACY_MAGIC, LimitedFile, open_legacy, open_safetensors, open_zip
from larq_rep.zoo.checkpoint.tensors import (
    DAMAGED,
    RESAVE,
    CheckpointError,
    Tensor,
    short,
    to_arrays,
)

__all__ = ["READERS", "STATE_DICT_KEYS", "CheckpointError", "read_state_dict"]

READERS = ("ours", "torch")  # Until 0.3: there is one reader.

MAX_BYTES = 4 * 10**9

# Where training scripts put the weights. Without one of these the file itself should be the state dict (FracBNN).
STATE_DICT_KEYS = {
    "state_dict": "ReActNet, AdamBNN, Rep_AdamBNN, Bi-Real-Net, RBNN, ReCU, after PyTorch's ImageNet example",
    "model": "torchvision's training scripts",
    "net": "training scripts for CIFAR that descend from pytorch-cifar",
    "net_state_dict": "PyTorch's tutorial on checkpoints, where the network is called net",
    "model_state_dict": "the same tutorial, where it is called model",
}


def read_state_dict(
    path: str | os.PathLike[str], *, reader: str | None = None, max_bytes: int = MAX_BYTES
) -> dict[str, np.ndarray]:
    """Reads the weights of a PyTorch checkpoint, or of MXNet's `save_parameters`, as numpy arrays.

    Nothing in the file is executed. It may be a zip archive as `torch.save` writes it since PyTorch 1.6, a file of
    the format before that (both are often called `.pth.tar`; neither is a tar archive), or `.safetensors`, which is
    recognised by its name and read with the library of that name (`pip install safetensors`). Files of MXNet
    (`.params`) are recognised by their first bytes.

    The state dict is looked for where training scripts put it: under one of `STATE_DICT_KEYS`, or it is the whole
    file. Other entries (epoch, accuracy, optimizer) are left out. Keys and their order are those of the file,
    with the prefix `module.` of `DataParallel` where it has one.

    !!! example
        ```python
        weights = read_state_dict("model_best.pth.tar")
        weights["module.fc.weight"].shape  # (1000, 1024)
        ```

    # Arguments
        path: The file.
        reader: Deprecated and without effect: PyTorch's own loader is no longer used. Goes with 0.3.
        max_bytes: Largest file, and most bytes of all arrays together.

    # Returns
        The arrays by key, each one a copy in C order. Types are those of the file, except that bfloat16 becomes
        float32.

    # Raises
        CheckpointError: If the file is none of these, is damaged, names anything beyond tensors and plain data, or
            is larger than allowed. No array is returned then.
        ValueError: If there is no such reader.
    """
    check_reader("read_state_dict", reader)
    name = os.fsdecode(path)
    try:
        size = _file_size(name, max_bytes)
        safetensors = name.lower().endswith(".safetensors")
        with LimitedFile(io.FileIO(name)) as file:
            head = file.read(512)
            file.seek(0)
            if head.startswith(mxnet.MAGIC):
                return mxnet.read_params(Path(name).read_bytes())
            if safetensors:
                content, read_storage = open_safetensors(file, size)
            elif head.startswith(b"PK\x03\x04"):
                content, read_storage = open_zip(file, size)
            elif head.startswith(LEGACY_MAGIC):
                content, read_storage = open_legacy(file, size)
            else:
                raise CheckpointError(_what_else(head))
            return to_arrays(_find_state_dict(content), read_storage, max_bytes)
    except CheckpointError as error:
        raise CheckpointError(f"{name}: {error}.") from error.__cause__
    except OSError as error:
        raise CheckpointError(f"{name}: it cannot be read: {error}. Check that it is yours to read.") from error


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
        raise CheckpointError("there is no such file. Check the name") from None
    except ValueError as error:  # a null byte
        raise CheckpointError(f"this is not the name of a file: {error}. Check the name") from error
    if stat.S_ISDIR(status.st_mode):
        raise CheckpointError("it is a folder, expected a file. Give the name of the checkpoint in it")
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError("it is a pipe or a device, expected a file. Save its content to a file first")
    if status.st_size == 0:
        raise CheckpointError(f"it is empty. {DAMAGED}")
    if status.st_size > max_bytes:
        raise CheckpointError(
            f"it has {status.st_size:,} bytes, expected at most max_bytes={max_bytes:,}. Raise that if the file is "
            "meant to be that large"
        )
    return status.st_size


def _what_else(head: bytes) -> str:
    """Says what a file is, if it is not a checkpoint."""
    text = head.lstrip().lower()
    expected = "expected a checkpoint of torch.save or a .safetensors file"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--")):
        return f"it is a web page, {expected}. Open the link in a browser: the file is behind a button of that page"
    if head.startswith(b"version https://git-lfs"):
        return f"it is a pointer of Git LFS, {expected}. Run `git lfs pull` in its repository"
    if head[257:262] == b"ustar":
        return (
            f"it is a tar archive, {expected}. If the checkpoint is inside, unpack it. If PyTorch before 0.1.10 wrote "
            "it, and you trust it, load it with torch.load(path, weights_only=False) and save its state dict again"
        )
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!")):
        return f"it is a compressed archive, {expected}. Unpack it first"
    if head.startswith(b"PK"):
        return f"it is an empty or divided zip archive, {expected}. {DAMAGED}"
    if head.startswith(b"\x89HDF"):
        return f"it is an HDF5 file, {expected}. Weights of Keras are loaded with model.load_weights"
    if head.startswith(b"\x80"):
        return f"it is a pickle, but not one of torch.save, {expected}. Nothing was executed. {RESAVE}"
    if all(byte in b"\t\n\r\f" or 32 <= byte < 127 for byte in head):
        return f"it is a text that begins {short(head[:40].decode())}, {expected}. Get the file again"
    return f"it begins with the bytes {head[:8].hex(' ')}, {expected}. {DAMAGED}"


def _find_state_dict(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise CheckpointError(f"it holds a {type(content).__name__}, expected a dictionary. {RESAVE}")
    keys = [key for key in STATE_DICT_KEYS if isinstance(content.get(key), dict)]
    if len(keys) > 1:
        raise CheckpointError(
            f"it has {' and '.join(map(repr, keys))}, expected one state dict. Save the right one alone in PyTorch"
        )
    weights, where = (content[keys[0]], f"its {keys[0]!r}") if keys else (content, "it")
    other = [key for key, value in weights.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if other and not keys:
        found = ", ".join(short(key) for key in list(content)[:10])
        expected = ", ".join(map(repr, STATE_DICT_KEYS))
        raise CheckpointError(f"it has no state dict under {expected} and is not one itself, found {found}. {RESAVE}")
    if other:
        raise CheckpointError(f"{where} has {short(other[0])}: {short(weights[other[0]])}, expected a tensor. {RESAVE}")
    if not weights:
        raise CheckpointError(f"{where} has no tensor, expected weights. Check that it is the right file")
    return weights
