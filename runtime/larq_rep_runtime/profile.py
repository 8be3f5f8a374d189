"""Measures where the delegate spends its time."""

from __future__ import annotations

import gc
import json
import os
from typing import Any

import numpy as np

from larq_rep_runtime.interpreter import Interpreter
from larq_rep_runtime.library import DelegateError
from larq_rep_runtime.messages import captured_stderr

_PREFIX = "larq-rep profile: "


def random_inputs(details: list[dict[str, Any]]) -> list[np.ndarray]:
    """Standard normal numbers for inputs as `Interpreter.inputs` describes them; for integers any values of their type.

    # Raises
        DelegateError: If an input is of another type, such as text.
    """
    rng = np.random.default_rng(0)
    arrays = []
    for detail in details:
        dtype = np.dtype(detail["dtype"])
        if dtype.kind == "f":
            arrays.append(rng.normal(size=detail["shape"]).astype(dtype))
        elif dtype.kind == "b":
            arrays.append(rng.integers(0, 2, detail["shape"]).astype(dtype))
        elif dtype.kind not in "iu":
            raise DelegateError(f"There are no random values of the type of input {detail['name']!r}, {dtype}.")
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
    """Runs a file and measures the time of every step of the delegate.

    # Arguments
        model, num_threads, **options: As for `Interpreter`.
        num_runs: The number of runs over which the times are averaged.
        x: The inputs, as for `Interpreter.predict`; by default random inputs of the file's shapes.

    # Returns
        For each part of the graph that the delegate took over: its `steps`, each with the `operator` that it ends with,
        its `name`, the mean `ms`, which includes the first run with cold caches, the shortest `best_ms`, and the fewest
        `parts` that the threads had to share; and the bytes of its packed weights (`packed_bytes`), of its buffers
        (`memory_bytes`) and of the second-level cache by which it sizes its turns (`cache_bytes`).

    # Raises
        DelegateError: As for `Interpreter`.
    """
    interpreter = Interpreter(model, num_threads, profile=True, **options)
    inputs = random_inputs(interpreter.inputs) if x is None else x
    # The file's own shapes need not have a batch.
    run = interpreter.invoke if x is None else interpreter.predict
    for _ in range(num_runs):
        run(inputs)
    # The delegate prints when its interpreter ends.
    with captured_stderr() as lines:
        del interpreter, run
        gc.collect()
    return [json.loads(line[len(_PREFIX) :]) for line in lines if line.startswith(_PREFIX)]
