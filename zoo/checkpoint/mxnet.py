"""Reads files of parameters that MXNet, and with it BMXNet, wrote with `save_parameters`, without MXNet.

The layout, all numbers little endian: a head of 16 bytes (0x112 and 0), the number of arrays (8 bytes) and each array,
the number of names (8) and each name behind its length (8). An array has a magic number (4), from version 2 on a
storage type (4, 0 if it is dense), the number of its axes (4) and their sizes (8 each), the device (4 and 4), the type
(4), and its elements.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np

from larq_rep.zoo.checkpoint.tensors import DAMAGED, CheckpointError, short

MAGIC = struct.pack("<QQ", 0x112, 0)
_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
_DTYPES: dict[int, np.dtype[Any]] = {
    number: np.dtype(name) for number, name in enumerate(("<f4", "<f8", "<f2", "u1", "<i4", "i1", "<i8"))
}
_MAX_RANK = 32  # numpy's
_MAX_ARRAYS = 100_000


def read_params(content: bytes) -> dict[str, np.ndarray]:
    """The arrays by name, in the order of the file; prefixes `arg:` and `aux:` are left out.

    # Raises
        CheckpointError: If the file is damaged, has sparse arrays or ones without names.
    """
    reader = _Reader(content)
    reader.take(len(MAGIC))
    arrays = [reader.array() for _ in range(reader.count("arrays"))]
    names = [reader.name() for _ in range(reader.count("names"))]
    if len(names) != len(arrays):
        raise CheckpointError(
            f"it has {len(arrays)} arrays and {len(names)} names, expected a name for each. Save it with "
            "net.save_parameters"
        )
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise CheckpointError(f"it has two arrays named {short(twice)}. {DAMAGED}")
    return dict(zip(names, arrays, strict=True))


class _Reader:
    def __init__(self, content: bytes):
        self.content, self.position = content, 0

    def take(self, size: int) -> bytes:
        end = self.position + size
        if end > len(self.content):
            raise CheckpointError(
                f"it ends at byte {len(self.content):,}, but what begins at {self.position:,} has {size:,} bytes. "
                f"{DAMAGED}"
            )
        part, self.position = self.content[self.position : end], end
        return part

    def numbers(self, kind: str) -> tuple[int, ...]:
        return struct.unpack(f"<{kind}", self.take(struct.calcsize(f"<{kind}")))

    def count(self, what: str) -> int:
        (count,) = self.numbers("Q")
        if count > _MAX_ARRAYS:
            raise CheckpointError(f"it claims to have {count:,} {what}, expected at most {_MAX_ARRAYS:,}. {DAMAGED}")
        return count

    def name(self) -> str:
        (length,) = self.numbers("Q")
        try:
            name = self.take(length).decode()
        except UnicodeDecodeError as error:
            raise CheckpointError(f"the name of an array is not text. {DAMAGED}") from error
        return name.removeprefix("arg:").removeprefix("aux:")

    def array(self) -> np.ndarray:
        (magic,) = self.numbers("I")
        if magic not in (_V1, _V2, _V3):
            raise CheckpointError(
                f"an array begins with {magic:#x}, expected {_V1:#x}, {_V2:#x} or {_V3:#x}. {DAMAGED}"
            )
        if magic != _V1 and (storage := self.numbers("i")[0]) != 0:
            raise CheckpointError(f"an array has the storage type {storage}, expected 0, dense. Save dense arrays")
        (rank,) = self.numbers("i")
        if not 0 <= rank <= _MAX_RANK:
            raise CheckpointError(f"an array has {rank} axes, expected at most {_MAX_RANK}. {DAMAGED}")
        shape = self.numbers(f"{rank}q")
        self.numbers("ii")
        (kind,) = self.numbers("i")
        if kind not in _DTYPES:
            raise CheckpointError(f"an array has the type {kind}, expected one of {list(_DTYPES)}. {DAMAGED}")
        if any(size < 0 for size in shape):
            raise CheckpointError(f"an array has the shape {short(shape)}. {DAMAGED}")
        dtype = _DTYPES[kind]
        elements = np.frombuffer(self.take(math.prod(shape) * dtype.itemsize), dtype)
        try:
            return elements.reshape(shape).copy()
        except ValueError as error:  # An axis of 0 beside others that are beyond numpy.
            raise CheckpointError(f"an array has the shape {short(shape)}. {DAMAGED}") from error
