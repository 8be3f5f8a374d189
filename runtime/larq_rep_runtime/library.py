"""Finds the delegate's library and lists its implementations for this processor."""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path


class DelegateError(RuntimeError):
    """The delegate is missing, or does not accept an option or a file."""


def delegate_path() -> str:
    """Path of the shared library, for `load_delegate` of TFLite or LiteRT.

    An `Interpreter` takes the delegate; for LiteRT's `CompiledModel` there is `litert_environment`.

    # Raises
        DelegateError: If the library could not be built when the package was installed.
    """
    path = Path(__file__).with_name("liblarq_rep_delegate.so")
    if not path.exists():
        raise DelegateError(
            f"The delegate {path.name} was not built when larq-rep-runtime was installed: most often make or a C "
            "compiler is missing (Debian: apt install make gcc). In the sources `make -C runtime` shows what it was; "
            "then install the package again, or install a wheel."
        )
    return str(path)


def delegate_options(**given: bool | int | str | None) -> dict[str, str]:
    """The options that are given, as the delegate takes them. `None` leaves one to the environment (`LARQ_REP_*`).

    # Raises
        DelegateError: If the library is missing, or refuses an option or the environment's.
    """
    options = {
        key: str(int(value)) if isinstance(value, bool) else str(value)
        for key, value in given.items()
        if value is not None
    }
    if refusal := _refusal(options):
        raise DelegateError(f"The delegate refuses its options or the environment's (LARQ_REP_*): {refusal}")
    return options


def _refusal(options: dict[str, str]) -> str:
    """What the delegate says against options; empty if it takes them."""
    library = ctypes.CDLL(delegate_path())
    create, destroy = library.tflite_plugin_create_delegate, library.tflite_plugin_destroy_delegate
    strings = ctypes.c_char_p * max(len(options), 1)
    report = ctypes.CFUNCTYPE(None, ctypes.c_char_p)
    create.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, report]
    create.restype = ctypes.c_void_p
    destroy.argtypes = [ctypes.c_void_p]
    destroy.restype = None
    said: list[str] = []
    keys, values = strings(*map(str.encode, options)), strings(*map(str.encode, options.values()))
    delegate = create(keys, values, len(options), report(lambda message: said.append(message.decode())))
    destroy(delegate)
    return "" if delegate else " ".join(said)


@functools.cache
def available_implementations() -> tuple[str, ...]:
    """Names of the instruction sets that this processor runs, the default first.

    # Raises
        DelegateError: If the library is missing.
    """
    # A delegate also refuses wrong values of the environment, which says nothing about the processor.
    environment = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("LARQ_REP_")}
    try:
        # The delegate lists them where it refuses one that does not exist.
        listed = _refusal({"implementation": "?"}).rpartition("implementations of this processor: ")[2]
        return tuple(listed.rstrip(".").split(","))
    finally:
        os.environ.update(environment)
