"""An interpreter for whichever TFLite is installed, with the delegate."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from larq_rep_runtime.library import DelegateError, available_implementations, delegate_path

_ENGINES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter", "tensorflow")


def _engine() -> tuple[Any, Any]:
    """Interpreter and load_delegate of the first engine that is installed."""
    for name in _ENGINES:
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


class Interpreter:
    """Runs a file of Larq Compute Engine, or any other TFLite file, on stock TFLite or LiteRT.

    !!! example
        ```python
        interpreter = Interpreter("network.tflite", num_threads=4)
        logits = interpreter.predict(np.zeros((8, 224, 224, 3), np.float32))
        ```

    # Arguments
        model: Path of a `.tflite` file, or its bytes.
        num_threads: Threads of the delegate and of TFLite's own operators.
        implementation: One of `available_implementations()`; `None` for the fastest.
        fuse: Whether the delegate takes over the neighbours of binary convolutions, too.
        profile: Whether the delegate prints the times of its steps to standard error in the end.

    # Attributes
        inputs: A description of each input: `name`, `shape`, `dtype`, `index`.
        outputs: The same of the outputs.

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
        fuse: bool = True,
        profile: bool = False,
    ):
        if num_threads < 1:
            raise DelegateError(f"num_threads should be at least 1, found {num_threads}.")
        content = bytes(model) if isinstance(model, bytes | bytearray) else Path(model).read_bytes()
        if implementation is not None and implementation not in available_implementations():
            raise DelegateError(
                f"implementation should be one of {', '.join(available_implementations())} on this processor, "
                f"found {implementation!r}."
            )
        interpreter, load_delegate = _engine()
        options = {"fuse": str(int(fuse)), "profile": str(int(profile)), "num_threads": str(min(num_threads, 64))}
        if implementation is not None:
            options["implementation"] = implementation
        try:
            delegate = load_delegate(delegate_path(), options)
            self._interpreter = interpreter(
                model_content=content, num_threads=num_threads, experimental_delegates=[delegate]
            )
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            name = "the given bytes" if isinstance(model, bytes | bytearray) else str(model)
            raise DelegateError(f"TFLite does not run {name}: {error}") from error
        self.inputs: list[dict[str, Any]] = self._interpreter.get_input_details()
        self.outputs: list[dict[str, Any]] = self._interpreter.get_output_details()

    def predict(self, x: np.ndarray | list[np.ndarray]) -> np.ndarray | list[np.ndarray]:
        """Outputs for a batch of any size.

        # Arguments
            x: The input, or a list of the inputs where the model has several; the first axis is the batch.

        # Returns
            The output, or a list of the outputs where the model has several.

        # Raises
            ValueError: If number, shapes or types of the inputs are not the model's.
        """
        arrays = [np.asarray(array) for array in (x if isinstance(x, list | tuple) else [x])]
        if len(arrays) != len(self.inputs):
            raise ValueError(f"The model has {len(self.inputs)} inputs, found {len(arrays)}.")
        for detail, array in zip(self.inputs, arrays, strict=True):
            shape = tuple(detail["shape"])
            if array.ndim != len(shape) or array.shape[1:] != shape[1:] or len(array) != len(arrays[0]):
                raise ValueError(
                    f"Input {detail['name']!r} should have the shape {('N', *shape[1:])}, with one N for all inputs, "
                    f"found {array.shape}."
                )
            if array.dtype != detail["dtype"]:
                raise ValueError(
                    f"Input {detail['name']!r} should be {np.dtype(detail['dtype'])}, found {array.dtype}: "
                    "convert it with astype."
                )
        self._resize([array.shape for array in arrays])
        for detail, array in zip(self.inputs, arrays, strict=True):
            self._interpreter.set_tensor(detail["index"], array)
        self._interpreter.invoke()
        results = [self._interpreter.get_tensor(detail["index"]) for detail in self.outputs]
        return results[0] if len(results) == 1 else results

    def _resize(self, shapes: list[tuple[int, ...]]) -> None:
        if all(tuple(detail["shape"]) == shape for detail, shape in zip(self.inputs, shapes, strict=True)):
            return
        for detail, shape in zip(self.inputs, shapes, strict=True):
            self._interpreter.resize_tensor_input(detail["index"], shape)
        self._interpreter.allocate_tensors()
        self.inputs = self._interpreter.get_input_details()
        self.outputs = self._interpreter.get_output_details()
