"""An interpreter for whichever TFLite is installed, with the delegate."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from larq_rep_runtime.library import DelegateError, available_implementations, delegate_options, delegate_path
from larq_rep_runtime.litert import CompiledInterpreter
from larq_rep_runtime.metadata import read_metadata

PACKAGES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter", "tensorflow")


def _engine() -> tuple[Any, Any]:
    """Interpreter and load_delegate of the first engine that is installed."""
    for name in PACKAGES:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in (name, name.split(".")[0]):
                raise
            continue
        if name == "tensorflow":
            return module.lite.Interpreter, module.lite.experimental.load_delegate
        return module.Interpreter, module.load_delegate
    raise DelegateError(
        "No TFLite is installed: expected one of ai-edge-litert, tflite-runtime and tensorflow. "
        "Install one, for instance with pip install ai-edge-litert."
    )


def _open(content: bytes, num_threads: int, **given: Any) -> Any:
    interpreter, load_delegate = _engine()
    delegate = load_delegate(delegate_path(), delegate_options(**given))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\s*Warning: (tf\.lite\.Interpreter is deprecated|Please use the LiteRT)")
        return interpreter(model_content=content, num_threads=num_threads, experimental_delegates=[delegate])


ENGINES: dict[str, Callable[..., Any]] = {"interpreter": _open, "compiled": CompiledInterpreter}


class Interpreter:
    """Runs a file of Larq Compute Engine, or any other TFLite file, on stock TFLite or LiteRT.

    !!! example
        ```python
        interpreter = Interpreter("network.tflite", num_threads=4)
        logits = interpreter.predict(np.zeros((8, 224, 224, 3), np.float32))
        ```

    Arguments that are not given come from the environment (`LARQ_REP_IMPLEMENTATION`, `LARQ_REP_NUM_THREADS`, ...);
    without a variable there, the default applies.

    # Arguments
        model: Path of a `.tflite` file, or its bytes.
        num_threads: Threads of TFLite's own operators, and of the delegate if the environment does not say; at most 64.
        implementation: One of `available_implementations()`; by default the fastest.
        fuse: Whether the delegate also takes over the neighbours of binary convolutions; by default it does.
        profile: Whether the delegate prints the times of its steps to standard error when it ends.
        engine: `"interpreter"` for the interpreter of whichever TFLite is installed, `"compiled"` for the CompiledModel
            of LiteRT 2.2 or newer.

    # Attributes
        inputs: A description of each input: `name`, `shape`, `dtype`, `index`.
        outputs: The same for the outputs.
        implementation: The implementation that runs.
        metadata: What `lce convert` wrote into the file about it; empty for other files.

    # Raises
        DelegateError: If no TFLite is installed, the delegate is missing, or the file or an option is refused.
        FileNotFoundError: If there is no such file.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes,
        num_threads: int = 1,
        *,
        implementation: str | None = None,
        fuse: bool | None = None,
        profile: bool | None = None,
        engine: str = "interpreter",
    ):
        if engine not in ENGINES:
            raise DelegateError(f"engine should be one of {', '.join(ENGINES)}, found {engine!r}.")
        if not 1 <= num_threads <= 64:
            bound = "at least 1" if num_threads < 1 else "at most 64"
            raise DelegateError(f"num_threads should be {bound}, found {num_threads}.")
        content = bytes(model) if isinstance(model, bytes | bytearray) else Path(model).read_bytes()
        # An option beats the environment, so only what the caller gave becomes one. The delegate asks the engine for
        # its number of threads.
        options = {"implementation": implementation, "fuse": fuse, "profile": profile}
        try:
            self._interpreter = ENGINES[engine](content, num_threads, **options)
            self._interpreter.allocate_tensors()
        except DelegateError:
            raise
        except (RuntimeError, ValueError) as error:
            name = "the given bytes" if isinstance(model, bytes | bytearray) else str(model)
            raise DelegateError(f"TFLite does not run {name}: {error}") from error
        self.implementation: str = (
            implementation or os.environ.get("LARQ_REP_IMPLEMENTATION") or available_implementations()[0]
        )
        self.metadata: dict[str, Any] = read_metadata(content)
        self._look()
        self._own = [int(detail["shape"][0]) if len(detail["shape"]) else 1 for detail in self.outputs]
        self._batch = int(self.inputs[0]["shape"][0]) if self.inputs and len(self.inputs[0]["shape"]) else 1
        self._any_batch = True

    def _look(self) -> None:
        self.inputs: list[dict[str, Any]] = self._interpreter.get_input_details()
        self.outputs: list[dict[str, Any]] = self._interpreter.get_output_details()
        self._shapes: list[tuple[int, ...]] | None = [tuple(detail["shape"]) for detail in self.inputs]

    def predict(self, x: np.ndarray | list[np.ndarray]) -> np.ndarray | list[np.ndarray]:
        """Outputs for a batch of any size.

        If TFLite runs a file only with its own batch, mostly of one image, it runs as often as needed and the outputs
        are joined.

        # Arguments
            x: The input, or a list of the inputs if the model has several; the first axis is the batch.

        # Returns
            The output, or a list of the outputs if the model has several.

        # Raises
            ValueError: If the number, shapes or types of the inputs do not match the model.
            DelegateError: If TFLite fails.
        """
        arrays = [np.asarray(array) for array in (x if isinstance(x, list | tuple) else [x])]
        if len(arrays) != len(self.inputs):
            raise ValueError(f"The model has {len(self.inputs)} inputs, found {len(arrays)}.")
        for detail, array in zip(self.inputs, arrays, strict=True):
            shape = tuple(detail["shape"])
            if array.ndim != len(shape) or array.shape[1:] != shape[1:] or array.shape[:1] != arrays[0].shape[:1]:
                raise ValueError(
                    f"Input {detail['name']!r} should have the shape {('N', *shape[1:])}, with one N for all inputs, "
                    f"found {array.shape}."
                )
            if array.dtype != detail["dtype"]:
                raise ValueError(
                    f"Input {detail['name']!r} should be {np.dtype(detail['dtype'])}, found {array.dtype}: "
                    "convert it with astype."
                )
        results = self._run(arrays)
        return results[0] if len(results) == 1 else results

    def _run(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        size = len(arrays[0]) if arrays and arrays[0].ndim else self._batch
        divides = size != self._batch and size > 0 and size % self._batch == 0
        if self._any_batch or not divides:
            try:
                results = self.invoke(arrays)
            except DelegateError:
                if not divides:
                    raise
            else:
                # A file may fold the batch into another axis without an error.
                batched = [r for r, own in zip(results, self._own, strict=True) if own == self._batch]
                if not divides or all(r.shape[:1] in ((), (size,)) for r in batched):
                    return results
        starts = range(0, size, self._batch)
        parts = [self.invoke([array[i : i + self._batch] for array in arrays]) for i in starts]
        self._any_batch = False
        return [np.concatenate(part) for part in zip(*parts, strict=True)]

    def invoke(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """Outputs of one run for inputs of exactly these shapes; no axis is treated as a batch.

        # Raises
            DelegateError: If TFLite refuses the inputs or fails.
        """
        try:
            if self._shapes != [array.shape for array in arrays]:
                self._shapes = None  # Until TFLite has accepted the new ones.
                for detail, array in zip(self.inputs, arrays, strict=True):
                    self._interpreter.resize_tensor_input(detail["index"], array.shape)
                self._interpreter.allocate_tensors()
                self._look()
            for detail, array in zip(self.inputs, arrays, strict=True):
                self._interpreter.set_tensor(detail["index"], array)
            self._interpreter.invoke()
            return [self._interpreter.get_tensor(detail["index"]) for detail in self.outputs]
        except (RuntimeError, ValueError) as error:
            shapes = ", ".join(str(array.shape) for array in arrays)
            raise DelegateError(f"TFLite does not run inputs of the shape {shapes}: {error}") from error
