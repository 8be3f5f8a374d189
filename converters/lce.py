"""LCE's interpreter, with its explanations."""

from __future__ import annotations

import importlib.metadata

from larq_compute_engine.tflite.python.interpreter import Interpreter

# LCE's converter and interpreter explain themselves there.
from larq_rep_runtime.profile import captured_stderr as standard_error


class RefusedError(ValueError):
    """LCE's interpreter does not run this file."""


def interpreter(content: bytes, **options: bool) -> Interpreter:
    """LCE's interpreter of one thread for a file.

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
    return importlib.metadata.version("larq-compute-engine")
