"""Metadata of a .tflite file: where it comes from, and how it takes images.

On a board, without this package, `larq_rep_runtime.metadata.read_metadata` reads it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from larq_compute_engine.mlir.python import tflite_schema as schema

from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.images import Preparation

_NAME = b"larq_rep"


def of_network(
    network: str, preparation: Preparation | None, classes: Sequence[str] | None, mirrored: bool
) -> dict[str, Any]:
    """The values for the file of a network; what is not known is left out.

    # Arguments
        network: Its name.
        preparation: How its images are prepared.
        classes: The names of its classes.
        mirrored: Whether the file takes mirrored images.
    """
    from larq_rep import __version__  # what only reads must not wait for all of larq_rep

    values: dict[str, Any] = {"version": __version__, "network": network}
    if preparation is not None:
        values["input"] = {**preparation.to_dict(), "mirrored": mirrored}
    if classes is not None:
        values["classes"] = list(classes)
    # Where versions before 0.2 look for it.
    return {**values, "mirrored_input": True} if mirrored else values


def attach(content: bytes, values: dict[str, Any]) -> bytes:
    """The file with these values, as JSON in a metadata buffer named `larq_rep`."""
    flatbuffer = Flatbuffer(content)
    add_values(flatbuffer, values)
    return flatbuffer.pack()


def add_values(flatbuffer: Flatbuffer, values: dict[str, Any]) -> None:
    """Adds these values, as `attach` does, to those that the file has."""
    for entry in flatbuffer.model.metadata or []:
        if entry.name == _NAME:
            buffer = flatbuffer.model.buffers[entry.buffer]
            known = json.loads(np.asarray(buffer.data, np.uint8).tobytes())
            buffer.data = np.frombuffer(json.dumps({**known, **values}).encode(), np.uint8)
            return
    add(flatbuffer, _NAME, json.dumps(values).encode())


def add(flatbuffer: Flatbuffer, name: bytes, data: bytes) -> None:
    """Adds a metadata buffer."""
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(data, np.uint8)
    flatbuffer.model.buffers.append(buffer)
    entry.name, entry.buffer = name, len(flatbuffer.model.buffers) - 1
    flatbuffer.model.metadata = [*(flatbuffer.model.metadata or []), entry]


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


def is_mirrored(values: dict[str, Any]) -> bool:
    """Whether the file takes images that are mirrored, top to bottom and left to right."""
    images = values.get("input")
    said = images.get("mirrored") if isinstance(images, dict) else None
    return (values.get("mirrored_input") if said is None else said) is True


def as_taken(values: dict[str, Any], images: np.ndarray) -> np.ndarray:
    """Images as the file takes them, which says whether it wants them mirrored."""
    return np.ascontiguousarray(images[:, ::-1, ::-1]) if is_mirrored(values) else images


def preparation(values: dict[str, Any], shape: tuple[int, ...]) -> Preparation | None:
    """The preparation of images that the file says; `None` if it says none.

    # Arguments
        values: What `read` returns.
        shape: Height, width and channels of the file's input.

    # Raises
        ValueError: If it is not a preparation for this input.
    """
    said = values.get("input")
    if said is None:
        return None
    if isinstance(said, dict):
        if not isinstance(said.get("mirrored", False), bool | None):
            raise ValueError(f"preparation: mirrored should be true or false, found {said['mirrored']!r}.")
        # What is left out follows from the input.
        said = {"size": list(shape[:2]), "channels": shape[2], **{k: v for k, v in said.items() if v is not None}}
    found = Preparation.from_dict(said)
    if (*found.size, found.channels) != tuple(shape):
        raise ValueError(f"preparation: it is for {(*found.size, found.channels)}, the input is {tuple(shape)}.")
    return found


def classes(values: dict[str, Any], count: int) -> tuple[str, ...] | None:
    """The names of the classes that the file says; `None` if it does not, or there are not `count` of them."""
    names = values.get("classes")
    if not isinstance(names, list) or len(names) != count or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names)
