"""LCE's interpreter, and the messages that it prints."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from larq_compute_engine.tflite.python.interpreter import Interpreter


class RefusedError(ValueError):
    """LCE's interpreter does not run this file."""


@contextmanager
def standard_error() -> Iterator[list[str]]:
    """Collects what LCE's converter and interpreter print meanwhile, which explains their errors."""
    lines: list[str] = []
    sys.stderr.flush()
    with open(os.memfd_create("stderr"), "w+b") if hasattr(os, "memfd_create") else tempfile.TemporaryFile() as file:
        saved = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            lines += file.read().decode("utf-8", "replace").splitlines()


def interpreter(content: bytes, **options: bool) -> Interpreter:
    """LCE's interpreter for a file, with one thread.

    # Raises
        RefusedError: With what LCE printed, if it does not accept the file.
    """
    with standard_error() as log:
        try:
            return Interpreter(content, num_threads=1, **options)
        except (RuntimeError, ValueError) as error:
            refused = error
    printed = [line.removeprefix("ERROR: ") for line in log if line.startswith("ERROR")]
    raise RefusedError("; ".join(printed) or str(refused)) from refused


def any_interpreter(content: bytes) -> Interpreter:
    """LCE's interpreter with its default kernel or, where that refuses grouped convolutions, the indirect one."""
    try:
        return interpreter(content)
    except RefusedError:
        return interpreter(content, use_indirect_bgemm=True)


def version() -> str:
    from importlib import metadata  # what only reads a file must not wait for it

    return metadata.version("larq-compute-engine")
