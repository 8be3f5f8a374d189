"""Default modes for measuring files, and the delegate's time for each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from larq_rep.converters import describe
from larq_rep.converters.flatbuffer import Flatbuffer, InvalidFlatbufferError
from larq_rep.converters.inputs import random_inputs
from larq_rep.converters.runtime import needed_runtime


def default_modes(contents: Mapping[str, bytes]) -> tuple[str, ...]:
    """LCE's modes, and stock TFLite if a file has no LCE operators.

    # Arguments
        contents: Files by name.

    # Raises
        InvalidFlatbufferError: If a file is not a TFLite model; the message begins with its name.
    """
    stock = False
    for file, content in contents.items():
        try:
            stock |= not any(name.startswith("Lce") for name in describe(content).operators)
        except InvalidFlatbufferError as error:
            raise InvalidFlatbufferError(f"{file}: {error}") from error
    return "default", "indirect", "xnnpack", *(["tflite"] if stock else [])


def with_delegate(modes: Sequence[str], implementation: str | None, asked: str | None) -> list[str]:
    """The modes and the delegate's mode, for one implementation if it is given.

    # Arguments
        modes: Modes of `benchmark`.
        implementation: Instruction set of the delegate; `None` for the best.
        asked: `"delegate"` or `"compiled"`, to be added if `modes` lacks it; `None` for neither.
    """
    names = [*modes, asked] if asked and asked not in modes else modes
    ours = ("delegate", "compiled") if implementation else ()
    return [f"{name}:{implementation}" if name in ours else name for name in names]


def profile(content: bytes, num_threads: int, num_runs: int, implementation: str | None = None) -> list[dict[str, Any]]:
    """The delegate's time for every step of a file on random inputs, as `larq_rep_runtime.profile` returns it."""
    x = random_inputs(Flatbuffer(content))
    return needed_runtime().profile(content, num_threads, num_runs=num_runs, x=x, implementation=implementation)
