"""Where the delegate spends its time."""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from larq_rep_runtime.interpreter import Interpreter

_PREFIX = "larq-rep profile: "


def random_inputs(details: list[dict[str, Any]]) -> list[np.ndarray]:
    """Standard normal numbers for inputs as `Interpreter.inputs` describes them; for integers any of their type."""
    rng = np.random.default_rng(0)
    arrays = []
    for detail in details:
        dtype = np.dtype(detail["dtype"])
        if dtype.kind == "f":
            arrays.append(rng.normal(size=detail["shape"]).astype(dtype))
        elif dtype.kind == "b":
            arrays.append(rng.integers(0, 2, detail["shape"]).astype(dtype))
        else:
            info = np.iinfo(dtype)
            arrays.append(rng.integers(info.min, info.max, detail["shape"], dtype, endpoint=True))
    return arrays


def profile(
    model: str | os.PathLike[str] | bytes,
    num_threads: int = 1,
    *,
    num_runs: int = 50,
    x: list[np.ndarray] | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """Runs a file and tells the time of every step of the delegate.

    # Arguments
        model, num_threads, **options: As of `Interpreter`.
        num_runs: How many runs the times are means of.
        x: The inputs; random ones if they are not given.

    # Returns
        For each part of the graph that the delegate has taken over its `steps`, with the `operator` that a step ends
        with, its `name`, the mean `ms`, the first run with cold caches included, and the shortest `best_ms`; and the
        bytes of its packed weights (`packed_bytes`) and of its buffers (`memory_bytes`).

    # Raises
        DelegateError: As `Interpreter`.
    """
    interpreter = Interpreter(model, num_threads, profile=True, **options)
    inputs = random_inputs(interpreter.inputs) if x is None else x
    for _ in range(num_runs):
        interpreter.predict(inputs)
    # The delegate prints when its interpreter ends.
    with captured_stderr() as lines:
        del interpreter
        gc.collect()
    return [json.loads(line[len(_PREFIX) :]) for line in lines if line.startswith(_PREFIX)]


@contextmanager
def captured_stderr() -> Iterator[list[str]]:
    """Collects what C code writes to standard error meanwhile."""
    lines: list[str] = []
    sys.stderr.flush()
    with tempfile.TemporaryFile() as file:
        saved = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            lines += file.read().decode("utf-8", "replace").splitlines()
