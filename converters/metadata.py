"""Metadata of a .tflite file: where it comes from, and how it takes images.

On a board, without this package, `larq_rep_runtime.metadata.read_metadata` reads it.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from larq_compute_engine.mlir.python import tflite_schema as schema

from larq_rep.converters.flatbuffer import Flatbuffer

_NAME = b"larq_rep"


def attach(content: bytes, values: dict[str, Any]) -> bytes:
    """The file with these values, as JSON in a metadata buffer named `larq_rep`."""
    model = (flatbuffer := Flatbuffer(content)).model
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(json.dumps(values).encode(), np.uint8)
    model.buffers.append(buffer)
    entry.name, entry.buffer = _NAME, len(model.buffers) - 1
    model.metadata = [*(model.metadata or []), entry]
    return flatbuffer.pack()


def read(content: bytes) -> dict[str, Any]:
    """The values that `attach` wrote; empty for a file that has none, or whose metadata are damaged."""
    try:
        model = schema.Model.GetRootAsModel(content, 0)
        for entry in map(model.Metadata, range(model.MetadataLength())):
            if entry.Name() == _NAME:
                values = json.loads(model.Buffers(entry.Buffer()).DataAsNumpy().tobytes())
                return values if isinstance(values, dict) else {}
    except (struct.error, AttributeError, IndexError, TypeError, ValueError):
        pass  # Whatever runs the file reports the damage.
    return {}


def as_taken(values: dict[str, Any], images: np.ndarray) -> np.ndarray:
    """Images as the file takes them: mirrored, top to bottom and left to right, if it says so."""
    return np.ascontiguousarray(images[:, ::-1, ::-1]) if values.get("mirrored_input") else images
