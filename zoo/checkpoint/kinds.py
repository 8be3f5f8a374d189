"""Says what a file is that is not a checkpoint, and what to do with it."""

from __future__ import annotations

import codecs
import io
import os
import re
import shlex
import zlib
from collections.abc import Collection
from pathlib import Path

from larq_rep.zoo.checkpoint.mxnet import MAGIC
from larq_rep.zoo.checkpoint.tensors import DAMAGED, LEGACY_MAGIC, RESAVE, CheckpointError, short
from larq_rep.zoo.checkpoint.unpickle import unpickle

EXPECTED = "expected a checkpoint of torch.save or a .safetensors file"
UNPACKED = (
    "Give the file as it was downloaded (.pth, .pt, .tar), do not unpack it: PyTorch's checkpoints are zip archives"
)
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(?!/)|[A-Za-z][A-Za-z0-9+.-]+://|www\.[\w-]+\.\w+")
_MEMBERS = ("version", "byteorder", ".format_version", ".storage_alignment")
_OTHERS = {
    b"%PDF-": "a PDF document",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"GIF8": "an image",
    b"\x7fELF": "a program",
    b"MZ": "a program",
}
_TENSORFLOW = re.compile(r".*\.(index|meta|data-\d+-of-\d+)")
_KERAS = (
    "it is a file of Keras, {expected}. It needs no import: give it to `lce convert`, or to the constructor of its "
    "network, weights='...'"
)
_SAVED_MODEL = f"a SavedModel, {EXPECTED}. It needs no import: give its folder to `lce convert`"
_NPZ = (
    "If its keys are those of the network, write them as safetensors: "
    "safetensors.numpy.save_file(dict(numpy.load(file)), 'weights.safetensors')"
)


def url(name: str) -> str | None:
    """The address that a name is, with the slash that `pathlib` takes from it."""
    match = _URL.match(name)
    if not match or os.path.exists(name):
        return None
    return f"{match[1]}://{name[match.end() :]}" if match[1] else name


def address(name: str) -> str:
    """What to say of an address."""
    return f"{name}: it is an address, expected a file. Download it, and give the name of the file."


def missing(name: str) -> CheckpointError:
    """What to say of a name without a file."""
    if os.path.exists(f"{name}.index"):
        return CheckpointError(_tensorflow("checkpoint"))
    return CheckpointError("there is no such file. Check the name")


def folder(name: str) -> CheckpointError:
    """What to say of a folder."""
    path = Path(name)
    if any((place / "data.pkl").is_file() for place in (path, path.absolute().parent, *_folders(path))):
        return CheckpointError(f"it is the unpacked folder of a checkpoint, expected a file. {UNPACKED}")
    if any((place / "saved_model.pb").is_file() for place in (path, path.absolute().parent)):
        return CheckpointError(f"it is {_SAVED_MODEL}")
    return CheckpointError("it is a folder, expected a file. Give the name of the checkpoint in it")


def _folders(path: Path) -> list[Path]:
    try:
        return [entry for entry in path.iterdir() if entry.is_dir()]
    except OSError:
        return []


def what_else(name: str, head: bytes, read: io.BufferedIOBase) -> str | None:
    """Says what a file is, by its first 512 bytes, its name and, for pickles, its content; `None` if nothing tells."""
    wide = head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    text = (head[2:].replace(b"\0", b"") if wide else head.removeprefix(codecs.BOM_UTF8)).lstrip()
    if re.match(rb"<[!?a-zA-Z]", text):
        return f"it is a web page, {EXPECTED}. Open the link in a browser: the file is behind a button of that page"
    if head.startswith(b"version https://git-lfs"):
        return f"it is a pointer of Git LFS, {EXPECTED}. Run `git lfs pull` in its repository"
    if head[257:262] == b"ustar":
        return (
            f"it is a tar archive, {EXPECTED}. If the checkpoint is inside, unpack it: tar xf FILE. If PyTorch before "
            "0.1.10 wrote it, and you trust it, load it with torch.load(path, weights_only=False) and save its state "
            "dict again"
        )
    if head.startswith(b"\x1f\x8b"):
        return _gzip(name, head)
    if head.startswith((b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"\x28\xb5\x2f\xfd")):
        return f"it is a compressed archive, {EXPECTED}. Unpack it first"
    if head.startswith(b"PK"):
        return f"it is an empty or divided zip archive, {EXPECTED}. {DAMAGED}"
    if head.startswith(b"\x89HDF"):
        return f"{_KERAS.format(expected=EXPECTED)}. Weights alone are loaded with model.load_weights"
    if head.startswith(b"\x93NUMPY"):
        return f"it is one array of NumPy, {EXPECTED}. Give the whole network's checkpoint"
    if other := next((text for start, text in _OTHERS.items() if head.startswith(start)), None):
        return f"it is {other}, {EXPECTED}. Check that it is the right file"
    if head[4:8] == b"TFL3":
        return f"it is a .tflite file, {EXPECTED}. It is converted already: run it with `lce-run`, or `lce inspect` it"
    return _by_name(name, head) or _by_content(head, text, read)


def _by_name(name: str, head: bytes) -> str | None:
    """The kinds that no first bytes tell for sure."""
    stem = Path(name).name.lower()
    folder, outer, *_ = [*Path(name).absolute().parents, Path()]
    if (stem in _MEMBERS and (folder / "data.pkl").is_file()) or (
        folder.name in ("data", ".data") and (outer / "data.pkl").is_file()
    ):
        return f"it is a part of an unpacked checkpoint, {EXPECTED}. {UNPACKED}"
    if stem == "saved_model.pb":
        return f"it is a part of {_SAVED_MODEL}"
    if stem.endswith(".onnx") or re.match(rb"\x08[\x01-\x20]\x12[\x01-\x40][a-zA-Z][\w.:-]{2}", head):
        return f"it is an ONNX graph, {EXPECTED}. Give the checkpoint that it was exported from"
    if _TENSORFLOW.fullmatch(stem) or head.startswith(b"model_checkpoint_path:"):
        return _tensorflow("checkpoint")
    if stem.endswith((".pb", ".pbtxt")):
        return _tensorflow("graph")
    return None


def _tensorflow(kind: str) -> str:
    return (
        f"it is a {kind} of TensorFlow, {EXPECTED}. Load it in the program that wrote it, save the model with "
        "model.save, and give that file to `lce convert`"
    )


def _by_content(head: bytes, text: bytes, read: io.BufferedIOBase) -> str | None:
    if head.startswith(b"\x80"):
        if _storages(read):
            return f"it is the data.pkl of an unpacked checkpoint, {EXPECTED}. {UNPACKED}"
        return f"it is a pickle, but not one of torch.save, {EXPECTED}. Nothing was executed. {RESAVE}"
    try:
        words = codecs.getincrementaldecoder("utf-8")().decode(text)
    except UnicodeDecodeError:
        return None
    if not all(letter.isprintable() or letter in "\t\n\r\f" for letter in words):
        return None
    return f"it is a text that begins {short(words[:40])}, {EXPECTED}. Check the link, and get the file again"


def _storages(read: io.BufferedIOBase) -> bool:
    read.seek(0)
    try:
        return bool(unpickle(io.BytesIO(read.read()))[1])
    except CheckpointError:
        return False


def _gzip(name: str, head: bytes) -> str:
    """What is in a file of gzip, by its first bytes."""
    try:
        inner = zlib.decompressobj(31).decompress(head, 512)
    except zlib.error:
        inner = b""
    if re.match(rb"(\xef\xbb\xbf)?\s*<[!?a-zA-Z]", inner):
        return f"it is a web page, compressed, {EXPECTED}. Open the link in a browser: the file is behind a button"
    if inner.startswith((b"PK\x03\x04", LEGACY_MAGIC, MAGIC)):
        command = f"gunzip -c {shlex.quote(name)} > checkpoint.pth"
        return f"it is a checkpoint compressed with gzip, expected it as it was. Unpack it: {command}"
    how = "tar xf FILE" if inner[257:262] == b"ustar" else f"gunzip -c {shlex.quote(name)} > FILE"
    return f"it is a compressed archive, {EXPECTED}. Unpack it first: {how}"


def archive(members: Collection[str]) -> str | None:
    """What a zip archive is, by the names of its members, if it is not a checkpoint."""
    names = {member.partition("/")[2] for member in members}
    if "constants.pkl" in names and ("data.pkl" in names or any(name.startswith("code/") for name in names)):
        return (
            f"it is a TorchScript program, expected weights. {RESAVE.split(':')[0]}: "
            "torch.save(torch.jit.load(file).state_dict(), path)"
        )
    if any(name.endswith("models/model.json") or name == "serialized_exported_program.json" for name in members):
        return f"it is a program of torch.export, expected weights. {RESAVE}"
    if {"config.json", "model.weights.h5"} <= set(members):
        return _KERAS.format(expected=EXPECTED)
    if members and all(member.endswith(".npy") for member in members):
        return f"it is an archive of NumPy's arrays (.npz), {EXPECTED}. {_NPZ}"
    pickles = [member for member in members if member == "data.pkl" or member.endswith("/data.pkl")]
    if pickles and not any(member.count("/") == 1 for member in pickles):
        return f"it is a checkpoint that was unpacked and packed again, expected it as it was. {UNPACKED}"
    inner = [m for m in members if re.fullmatch(r"(?!__MACOSX/).*\.(pth|pt|tar|pkl|bin|ckpt|safetensors|params)", m)]
    if inner and not pickles:
        return f"it is a zip archive, {EXPECTED}. Unpack it first, and give {' or '.join(map(short, inner[:3]))}"
    return None
