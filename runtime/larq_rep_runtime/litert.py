"""LiteRT's CompiledModel with the delegate."""

from __future__ import annotations

import ctypes
import functools
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from larq_rep_runtime.library import DelegateError, delegate_options, delegate_path
from larq_rep_runtime.messages import captured_stderr

_KNOWN = "2.1.6, 2.2 and 2.3"
_INSTALL = "pip install 'ai-edge-litert>=2.2'"


def litert_environment(
    *,
    num_threads: int | None = None,
    implementation: str | None = None,
    fuse: bool | None = None,
    profile: bool | None = None,
) -> Any:
    """An environment in which the `CompiledModel` of LiteRT 2.2 or newer runs the files of Larq Compute Engine.

    !!! example
        ```python
        from ai_edge_litert.compiled_model import CompiledModel

        environment = larq_rep_runtime.litert_environment()
        model = CompiledModel.from_file("network.tflite", environment=environment)
        ```

    Any number of models may share it. In it LiteRT loads no GPU accelerator, for the delegate stands in its place.

    Arguments that are not given come from the process's environment (`LARQ_REP_NUM_THREADS`, ...); without a variable
    there, the default applies.

    # Arguments
        num_threads: Threads of the delegate, at most 64; by default, and for 0, those of the model's `CpuOptions`.
        implementation: One of `available_implementations()`; by default the fastest.
        fuse: Whether the delegate also takes over the neighbours of binary convolutions; by default it does.
        profile: Whether the delegate prints the times of its steps to standard error when the model ends.

    # Returns
        An `ai_edge_litert.environment.Environment`.

    # Raises
        DelegateError: If the delegate is missing or refuses an option, or if LiteRT is not installed or one of those
            that do not take the delegate.
    """
    options = delegate_options(num_threads=num_threads, implementation=implementation, fuse=fuse, profile=profile)
    package, version = _package()
    from ai_edge_litert.environment import Environment

    library = ctypes.CDLL(delegate_path())
    runtime = Path(package.__file__).with_name("libLiteRt.so")
    with tempfile.TemporaryDirectory(prefix="larq-rep-") as folder:
        # The accelerator reads its options from this name.
        own = Path(folder) / ",".join(["larq_rep", *(f"{key}={value}" for key, value in options.items())])
        own.mkdir()
        if version < (2, 2):  # Its Python takes the runtime from here, which defines accelerators in another way.
            (own / runtime.name).symlink_to(runtime)
            library.larq_rep_litert_install(ctypes.c_void_p(ctypes.CDLL(str(runtime))._handle))
        else:
            (own / "libLiteRtGpuAccelerator.so").symlink_to(delegate_path())
        before = library.larq_rep_litert_asked()
        environment = Environment.create(runtime_path=str(own))
    if library.larq_rep_litert_asked() == before:
        raise DelegateError(
            f"LiteRT {package.__version__} does not take the delegate into its environment; {_KNOWN} do. Install one "
            "of them, or use larq_rep_runtime.Interpreter."
        )
    return environment


def _package() -> tuple[Any, tuple[int, ...]]:
    """The package ai_edge_litert and its version.

    # Raises
        DelegateError: If it is missing, too old or incomplete.
    """
    try:
        import ai_edge_litert
    except ModuleNotFoundError as error:
        if error.name != "ai_edge_litert":
            raise
        raise DelegateError(f"CompiledModel needs LiteRT, which is not installed: {_INSTALL}.") from error
    found = getattr(ai_edge_litert, "__version__", "1")
    version = tuple(int(number) for number in re.findall(r"\d+", found)[:3])
    if version < (2, 1, 6):
        raise DelegateError(f"The CompiledModel of LiteRT {found} takes no delegate; {_KNOWN} do: {_INSTALL}.")
    try:
        import ai_edge_litert.compiled_model
    except ModuleNotFoundError as error:  # The wheel of 2.1.6 does not ask for ml_dtypes.
        raise DelegateError(
            f"The CompiledModel of LiteRT {found} needs {error.name}, which is not installed: pip install {error.name}."
        ) from error
    return ai_edge_litert, version


# Models share an environment, because LiteRT reports the end of each; it takes its delegates' options anew.
_environment = functools.cache(litert_environment)


@contextmanager
def _explained() -> Iterator[None]:
    """LiteRT writes what it does, and the reason of an exception, to standard error: the exception gets the reason.

    Lines of LiteRT itself begin with a place in its code, those of TFLite within it with their text.
    """
    try:
        with captured_stderr() as lines:
            yield
    except RuntimeError as error:
        reasons = [line for line in lines if "larq-rep:" in line]
        reasons = reasons or [line for line in lines if re.match(r"ERROR: [^\[]", line)] or str(error).splitlines()
        reason = " ".join(line.removeprefix("└ ").removeprefix("ERROR: ") for line in reasons)
        raise RuntimeError(reason) from error


class CompiledInterpreter:
    """A CompiledModel with those methods of TFLite's interpreter that `Interpreter` calls.

    # Raises
        DelegateError: As `litert_environment`.
        RuntimeError, ValueError: If LiteRT does not run the file.
    """

    def __init__(self, content: bytes, num_threads: int, **options: Any):
        with captured_stderr():
            environment = _environment(**options)
        from ai_edge_litert.compiled_model import CompiledModel
        from ai_edge_litert.interpreter import Interpreter
        from ai_edge_litert.options import CpuOptions, HardwareAccelerator, Options

        cpu = Options(HardwareAccelerator.CPU, CpuOptions(num_threads=num_threads))
        with _explained():
            self._model = CompiledModel.from_buffer(content, environment=environment, options=cpu)
        self._content = content  # The model may read its weights there.
        # It knows what CompiledModel does not tell: the order in the file, and the quantization.
        described = Interpreter(model_content=content)
        self._described = described.get_input_details(), described.get_output_details()
        inputs, outputs = ({detail["index"] for detail in details} for details in self._described)
        if inputs & outputs:  # LiteRT would not read the input.
            raise ValueError("LiteRT's CompiledModel has no outputs that are inputs")
        self._signature = self._model.get_signature_by_index(0)
        for detail in self._described[0]:
            self.resize_tensor_input(detail["index"], detail["shape"])

    @_explained()
    def _details(self, outputs: bool) -> dict[int, dict[str, Any]]:
        """What CompiledModel tells about its inputs or outputs, by the tensors' numbers in the file, with places.

        If a tensor is several outputs, its place is the last, the only one that LiteRT writes.
        """
        tell = self._model.get_output_tensor_details if outputs else self._model.get_input_tensor_details
        told = tell(self._signature["key"])
        names = self._signature["outputs" if outputs else "inputs"]
        return {told[name]["index"]: {**told[name], "place": place} for place, name in enumerate(names)}

    def _current(self, outputs: bool) -> list[dict[str, Any]]:
        told = self._details(outputs)
        return [
            {**detail, "shape": np.array(told[detail["index"]]["shape"], np.int32)}
            for detail in self._described[outputs]
        ]

    def get_input_details(self) -> list[dict[str, Any]]:
        return self._current(False)

    def get_output_details(self) -> list[dict[str, Any]]:
        return self._current(True)

    @_explained()
    def resize_tensor_input(self, index: int, shape: Sequence[int]) -> None:
        told = self._details(False)[index]
        if list(shape) != list(told["shape"]):
            self._model.resize_input_tensor(told["place"], [int(size) for size in shape], strict=False)

    @_explained()
    def allocate_tensors(self) -> None:
        self._buffers = self._model.create_input_buffers(0), self._model.create_output_buffers(0)
        self._inputs, self._results = self._details(False), self._details(True)
        for index, told in self._inputs.items():  # The first write of a process is one that LiteRT reports.
            self.set_tensor(index, np.zeros(told["shape"], told["dtype"]))

    def set_tensor(self, index: int, value: np.ndarray) -> None:
        told = self._inputs[index]
        if value.dtype != told["dtype"]:  # LiteRT would take its bytes.
            raise ValueError(f"the input {told['name']!r} should be {np.dtype(told['dtype'])}, found {value.dtype}")
        self._buffers[0][told["place"]].write(value)

    def invoke(self) -> None:
        self._model.run_by_index(0, *self._buffers)

    def get_tensor(self, index: int) -> np.ndarray:
        result = self._results[index]
        shape = result["shape"]
        return self._buffers[1][result["place"]].read(int(np.prod(shape)), np.dtype(result["dtype"])).reshape(shape)
