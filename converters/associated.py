"""Files that a .tflite file carries: a ZIP archive behind the flatbuffer, as TFLite's metadata tools expect it."""

from __future__ import annotations

import io
import zipfile


def read(content: bytes) -> dict[str, bytes]:
    """The carried files by name; empty if there are none, or the archive is damaged."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    # Whatever bytes that only look like an archive lead to.
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, RuntimeError, ValueError):
        return {}


def append(content: bytes, files: dict[str, bytes]) -> bytes:
    """The flatbuffer with these files behind it."""
    if not files:
        return content
    stream = io.BytesIO(content)
    with zipfile.ZipFile(stream, "a") as archive:
        for name, data in files.items():
            # Always the same date, so that the same model gives the same bytes.
            archive.writestr(zipfile.ZipInfo(name), data)
    return stream.getvalue()
