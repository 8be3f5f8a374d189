"""Finds the delegate's library and lists its implementations for this processor."""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path

_NAMES = ("avx512", "avx2", "popcnt", "neon", "portable")


class DelegateError(RuntimeError):
    """The delegate is missing, or does not accept an option or a file."""


def delegate_path() -> str:
    """Path of the shared library, for `load_delegate` of TFLite or LiteRT.

    An `Interpreter` takes the delegate. LiteRT's `CompiledModel` takes no delegate, and does not run the files of LCE.

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


@functools.cache
def available_implementations() -> tuple[str, ...]:
    """Names of the instruction sets that this processor runs, the fastest first.

    # Raises
        DelegateError: If the library is missing.
    """
    library = ctypes.CDLL(delegate_path())
    create, destroy = library.tflite_plugin_create_delegate, library.tflite_plugin_destroy_delegate
    strings = ctypes.c_char_p * 1
    create.argtypes = [strings, strings, ctypes.c_size_t, ctypes.c_void_p]
    create.restype = ctypes.c_void_p
    destroy.argtypes = [ctypes.c_void_p]
    destroy.restype = None
    available = []
    # A delegate also refuses wrong values of the environment, which says nothing about the processor.
    environment = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("LARQ_REP_")}
    try:
        for name in _NAMES:
            if delegate := create(strings(b"implementation"), strings(name.encode()), 1, None):
                destroy(delegate)
                available.append(name)
    finally:
        os.environ.update(environment)
    return tuple(available)
