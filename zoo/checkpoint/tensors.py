"""Descriptions of tensors in a file, and arrays made from them."""

from __future__ import annotations

import math
import os
import pickle
import reprlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

DAMAGED = "The file is damaged, or its download stopped early: get it again and compare the sizes"
RESAVE = (
    "In PyTorch, where the file loads and if you trust it, save the weights alone: torch.save(model.state_dict(), path)"
)

# The first pickle of a file of PyTorch before 1.6, with a number that nothing else begins with.
LEGACY_MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)

BFLOAT16 = "torch BFloat16Storage"
BOOL = "torch BoolStorage"
# By the name that a file gives the storage. bfloat16 is the upper half of a float32; numpy has no such type, so it is
# read as bits. A bool may be any byte, so it is read as one.
DTYPES: dict[str, np.dtype[Any]] = {
    "torch DoubleStorage": np.dtype("<f8"),
    "torch FloatStorage": np.dtype("<f4"),
    "torch HalfStorage": np.dtype("<f2"),
    BFLOAT16: np.dtype("<u2"),
    "torch LongStorage": np.dtype("<i8"),
    "torch IntStorage": np.dtype("<i4"),
    "torch ShortStorage": np.dtype("<i2"),
    "torch CharStorage": np.dtype("i1"),
    "torch ByteStorage": np.dtype("u1"),
    BOOL: np.dtype("u1"),
    "torch ComplexFloatStorage": np.dtype("<c8"),
    "torch ComplexDoubleStorage": np.dtype("<c16"),
}
_MAX_RANK = 32  # numpy's

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 120
_repr.maxtuple = 8


def short(value: Any) -> str:
    """Like `repr`, but never long and never deep: the content of a file may be both."""
    return _repr.repr(value)


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or must not be."""


@contextmanager
def naming(file: str | os.PathLike[str]) -> Iterator[None]:
    """Puts the name of a file in front of the message of a `CheckpointError`."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{os.fsdecode(file)}: {error}") from error.__cause__


@dataclass(frozen=True)
class Storage:
    """Numbers in a file, without a shape.

    # Attributes
        kind: A key of `DTYPES`.
        key: Its name in the file.
        numel: How many numbers it has.
    """

    kind: str
    key: str
    numel: int

    @property
    def bytes(self) -> int:
        return self.numel * DTYPES[self.kind].itemsize

    def __repr__(self) -> str:
        return f"a storage of {self.numel:,} numbers"


@dataclass(frozen=True)
class Tensor:
    """A view of a storage; offset and strides count numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __repr__(self) -> str:
        return f"a tensor of shape {short(self.shape)}"


ReadStorage = Callable[[Storage], bytes]


def is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def make_tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> Tensor:
    """Describes a tensor that lies inside its storage.

    # Raises
        CheckpointError: If it does not.
    """

    def refuse(problem: str) -> CheckpointError:
        numbers = f"offset {short(offset)}, shape {short(shape)} and strides {short(strides)}"
        return CheckpointError(f"a tensor with {numbers} {problem}")

    if not isinstance(storage, Storage):
        raise refuse(f"has {short(storage)} where its storage should be. {DAMAGED}")
    if not (
        isinstance(shape, tuple)
        and isinstance(strides, tuple)
        and len(shape) == len(strides) <= _MAX_RANK
        and all(map(is_size, (offset, *shape, *strides)))
    ):
        raise refuse(
            f"was found, expected numbers from 0, and a stride for each of at most {_MAX_RANK} axes. {DAMAGED}"
        )
    numel = math.prod(shape)
    if numel:
        end = offset + 1 + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    else:
        end = offset
    if end > storage.numel:
        raise refuse(f"ends at number {end:,} of its storage, which has {storage.numel:,}. {DAMAGED}")
    # A stride of 0 can make terabytes of a single number.
    if numel > storage.numel:
        raise refuse(f"repeats its storage of {storage.numel:,} numbers, expected each once. {RESAVE}, made contiguous")
    return Tensor(storage, offset, shape, strides)


def check_total(total: int, max_bytes: int) -> None:
    if total > max_bytes:
        raise CheckpointError(
            f"its tensors need {total:,} bytes, expected at most max_bytes={max_bytes:,}. Raise that if the file is "
            "meant to have that many"
        )


def to_arrays(tensors: dict[str, Tensor], read_storage: ReadStorage, max_bytes: int) -> dict[str, np.ndarray]:
    """Separate arrays in C order, with each storage read once."""
    # Empty tensors count with their other sizes, which numpy multiplies too.
    sizes = (math.prod(n for n in x.shape if n) * DTYPES[x.storage.kind].itemsize for x in tensors.values())
    check_total(sum(sizes), max_bytes)
    names: dict[Storage, list[str]] = {}
    for name, tensor in tensors.items():
        names.setdefault(tensor.storage, []).append(name)
    arrays = {}
    for storage, users in names.items():
        content = read_storage(storage)
        for name in users:
            arrays[name] = _to_array(tensors[name], content)
    return {name: arrays[name] for name in tensors}


def _to_array(tensor: Tensor, content: bytes) -> np.ndarray:
    kind = tensor.storage.kind
    dtype = DTYPES[kind]
    if 0 in tensor.shape:
        array = np.zeros(tensor.shape, dtype)
    else:
        # The stride of an axis with one element is never taken, and may be anything. numpy checks the bounds again.
        steps = zip(tensor.shape, tensor.strides, strict=True)
        strides = [stride * dtype.itemsize if n > 1 else 0 for n, stride in steps]
        array = np.ndarray(tensor.shape, dtype, content, tensor.offset * dtype.itemsize, strides).copy()
    if kind == BFLOAT16:
        return np.asarray(array.astype("<u4") << 16, "<u4").view("<f4")
    if kind == BOOL:
        return np.asarray(array != 0)
    return array
