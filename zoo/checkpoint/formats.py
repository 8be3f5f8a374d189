"""Opens the files that PyTorch and safetensors write: their content, and how to read their storages."""

from __future__ import annotations

import io
import re
import struct
import zipfile
from typing import Any

from larq_rep.zoo.checkpoint import kinds
from larq_rep.zoo.checkpoint.tensors import (
    BFLOAT16,
    BOOL,
    DAMAGED,
    DTYPES,
    LEGACY_MAGIC,
    RESAVE,
    CheckpointError,
    ReadStorage,
    Storage,
    make_tensor,
    short,
)
from larq_rep.zoo.checkpoint.unpickle import MAX_PICKLE, unpickle

_LEGACY_VERSION = 1001

_MAX_DIRECTORY = 4 * 2**20  # A real file has a thousand members of 100 bytes each.
_ZIP_ERRORS = (
    EOFError,
    IndexError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
)

_SAFETENSORS = {
    "F64": "torch DoubleStorage",
    "F32": "torch FloatStorage",
    "F16": "torch HalfStorage",
    "BF16": BFLOAT16,
    "I64": "torch LongStorage",
    "I32": "torch IntStorage",
    "I16": "torch ShortStorage",
    "I8": "torch CharStorage",
    "U8": "torch ByteStorage",
    "BOOL": BOOL,
}


class LimitedFile(io.BufferedReader):
    """A file that reads at most `limit` bytes at once.

    zipfile reads a whole directory before anyone can look at its size.
    """

    limit = _MAX_DIRECTORY

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            size = self.limit
        if size > self.limit:
            raise CheckpointError(
                f"a part of it claims {size:,} bytes, expected at most {self.limit:,}. Do not use the file"
            )
        return super().read(size)


def open_zip(file: LimitedFile, size: int) -> tuple[Any, ReadStorage]:
    """A file of PyTorch 1.6 or newer: stored members `NAME/data.pkl` and `NAME/data/KEY`."""
    try:
        archive = zipfile.ZipFile(file)
    except CheckpointError:
        raise
    except _ZIP_ERRORS as error:
        raise CheckpointError(f"it is not a complete zip archive: {error}. {DAMAGED}") from error
    file.limit = size
    infos = archive.infolist()
    if other := kinds.archive([info.orig_filename for info in infos]):
        raise CheckpointError(other)
    members = _check_members(infos, size)
    pickles = [name for name in members if re.fullmatch(r"[^/]+/data\.pkl", name)]
    if len(pickles) != 1:
        raise CheckpointError(
            f"it is a zip archive with {len(pickles)} members NAME/data.pkl, expected 1. If the checkpoint is a file "
            "in the archive, unpack that first"
        )
    folder = pickles[0].removesuffix("data.pkl")

    def read(name: str, length: int) -> bytes:
        info = members.get(name)
        if info is None or info.file_size != length:
            found = f"found {info.file_size:,}" if info else "but is missing"
            raise CheckpointError(f"its member {short(name)} should have {length:,} bytes, {found}. {DAMAGED}")
        try:
            with archive.open(info) as member:
                content = member.read()
        except _ZIP_ERRORS as error:
            raise CheckpointError(f"its member {short(name)} is damaged: {error}. {DAMAGED}") from error
        if len(content) != length:
            raise CheckpointError(f"its member {short(name)} ends after {len(content):,} bytes. {DAMAGED}")
        return content

    if f"{folder}byteorder" in members and read(f"{folder}byteorder", len(b"little")) != b"little":
        raise CheckpointError(f"its byte order is not b'little'. {RESAVE}, on a little-endian machine")
    length = members[pickles[0]].file_size
    if length > MAX_PICKLE:
        raise CheckpointError(f"its pickle has {length:,} bytes, expected at most {MAX_PICKLE:,}. {RESAVE}")
    content, _ = unpickle(io.BytesIO(read(pickles[0], length)))
    return content, lambda storage: read(f"{folder}data/{storage.key}", storage.bytes)


def _check_members(infos: list[zipfile.ZipInfo], size: int) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.orig_filename
        what = f"its member {short(name)}"
        if name.startswith("/") or ".." in name.split("/") or set(name) & set("\\:\0"):
            raise CheckpointError(f"{what} has a path that may lead out of the archive. Do not use the file")
        if name in members:
            raise CheckpointError(f"{what} is there twice, expected once. Do not use the file")
        if info.flag_bits & 1:
            raise CheckpointError(f"{what} is encrypted, expected none to be. Unpack it, and read the file in it")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise CheckpointError(
                f"{what} is compressed, expected it stored, as torch.save writes it. If the checkpoint is a file in "
                f"the archive, unpack that first; if it was unpacked and packed again: {kinds.UNPACKED}"
            )
        members[name] = info
    # Overlapping members can make a small archive expand to any size.
    total = sum(info.file_size for info in infos)
    if total > size:
        raise CheckpointError(f"its members claim {total:,} bytes, but the file has {size:,}. {DAMAGED}")
    return members


def open_legacy(file: LimitedFile, size: int) -> tuple[Any, ReadStorage]:
    """A file of PyTorch 0.1.10 to 1.5: five pickles (the first is `LEGACY_MAGIC`), then the storages."""
    file.limit = size
    stream = io.BytesIO(file.read(min(size, MAX_PICKLE)))
    stream.seek(len(LEGACY_MAGIC))
    version, _ = unpickle(stream)
    if version != _LEGACY_VERSION:
        raise CheckpointError(f"its protocol version is {short(version)}, expected {_LEGACY_VERSION}. {DAMAGED}")
    system, _ = unpickle(stream)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise CheckpointError(f"its byte order is not little-endian. {RESAVE}, on a little-endian machine")
    content, storages = unpickle(stream)
    keys, _ = unpickle(stream)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or set(keys) != set(storages):
        raise CheckpointError(f"its list of storages is not that of its tensors. {DAMAGED}")
    places = {}
    position = stream.tell()
    for key in keys:
        storage = storages[key]
        if storage.kind not in DTYPES:
            raise CheckpointError(f"its storage {short(key)} has type {short(storage.kind)}, of unknown size. {RESAVE}")
        file.seek(position)
        numel = file.read(8)
        if numel != storage.numel.to_bytes(8, "little") or position + 8 + storage.bytes > size:
            raise CheckpointError(
                f"its storage {short(key)} at byte {position:,} should have {storage.numel:,} numbers in "
                f"{storage.bytes:,} bytes, found {int.from_bytes(numel, 'little', signed=True):,} numbers and "
                f"{max(size - position - 8, 0):,} bytes to the end of the file. {DAMAGED}"
            )
        places[key] = position + 8
        position += 8 + storage.bytes

    def read(storage: Storage) -> bytes:
        file.seek(places[storage.key])
        return file.read(storage.bytes)

    return content, read


def is_safetensors(head: bytes, size: int) -> bool:
    """Whether a file begins as safetensors do: the length of a JSON object, and the object."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8


def open_safetensors(file: LimitedFile, size: int) -> tuple[Any, ReadStorage]:
    """A file of safetensors, which its own library parses."""
    try:
        import safetensors
    except ImportError as error:
        raise CheckpointError("it needs the library of its format. Run `pip install safetensors`") from error
    file.limit = size
    try:
        parts = dict(safetensors.deserialize(file.read(size)))
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"the safetensors library refuses it: {error}. {DAMAGED}") from error
    tensors = {}
    for name, part in parts.items():
        if part["dtype"] not in _SAFETENSORS:
            known = ", ".join(_SAFETENSORS)
            raise CheckpointError(
                f"its tensor {short(name)} has type {part['dtype']}, expected one of {known}. Convert it to F32"
            )
        kind = _SAFETENSORS[part["dtype"]]
        shape = tuple(part["shape"])
        strides = [1] * len(shape)
        for axis in range(len(shape) - 1, 0, -1):
            strides[axis - 1] = strides[axis] * max(shape[axis], 1)
        storage = Storage(kind, name, len(part["data"]) // DTYPES[kind].itemsize)
        tensors[name] = make_tensor(storage, 0, shape, tuple(strides))
    return tensors, lambda storage: parts[storage.key]["data"]
