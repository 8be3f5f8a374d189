"""What a .tflite file says of itself: where it comes from, and how its image is to be given."""

from __future__ import annotations

import json
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


def as_taken(values: dict[str, Any], images: np.ndarray) -> np.ndarray:
    """Images as the file takes them: mirrored, top to bottom and left to right, if it says so."""
    return np.ascontiguousarray(images[:, ::-1, ::-1]) if values.get("mirrored_input") else images


def read(flatbuffer: Flatbuffer) -> dict[str, Any]:
    """The values that `attach` put into a file; none if it is another's."""
    for entry in flatbuffer.model.metadata or []:
        if entry.name == _NAME:
            try:
                values = json.loads(bytes(bytearray(flatbuffer.model.buffers[entry.buffer].data)))
            except (ValueError, TypeError, IndexError):
                return {}
            return values if isinstance(values, dict) else {}
    return {}
