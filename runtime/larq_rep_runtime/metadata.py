"""Reads the metadata that larq-rep writes into a .tflite file."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any


def read_metadata(content: bytes) -> dict[str, Any]:
    """The JSON object in the metadata buffer named `larq_rep`; empty for a file without it.

    Follows the offsets of the flatbuffer itself, so that a board does not need another package.

    # Arguments
        content: The bytes of a `.tflite` file.

    # References
        - [FlatBuffers: Internals](https://flatbuffers.dev/internals/)
    """
    try:
        model = _target(content, 0)
        buffers = list(_vector(content, _field(content, model, 4)))
        for entry in _vector(content, _field(content, model, 6)):
            if _bytes(content, _field(content, entry, 0)) == b"larq_rep":
                (index,) = struct.unpack_from("<I", content, _field(content, entry, 1) or len(content))
                values = json.loads(_bytes(content, _field(content, buffers[index], 0)))
                return values if isinstance(values, dict) else {}
    except (struct.error, IndexError, RecursionError, TypeError, ValueError):
        pass  # Damaged; running the file reports that.
    return {}


def _target(content: bytes, position: int) -> int:
    return position + int(struct.unpack_from("<I", content, position)[0])


def _field(content: bytes, table: int, number: int) -> int | None:
    """Position of a field of a table; None if the field is left out."""
    vtable = table - struct.unpack_from("<i", content, table)[0]
    if 4 + 2 * number >= struct.unpack_from("<H", content, vtable)[0]:
        return None
    offset = struct.unpack_from("<H", content, vtable + 4 + 2 * number)[0]
    return table + offset if offset else None


def _vector(content: bytes, field: int | None) -> Iterator[int]:
    """Positions of the tables in a vector."""
    if field is not None:
        start = _target(content, field)
        for i in range(struct.unpack_from("<I", content, start)[0]):
            yield _target(content, start + 4 + 4 * i)


def _bytes(content: bytes, field: int | None) -> bytes:
    if field is None:
        return b""
    start = _target(content, field)
    return content[start + 4 : start + 4 + struct.unpack_from("<I", content, start)[0]]
