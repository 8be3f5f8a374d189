"""The delegate's library: where it lies and what it can do on this processor."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

_NAMES = ("avx512", "avx2", "popcnt", "neon", "portable")


class DelegateError(RuntimeError):
    """The delegate is not there, or does not accept an option or a file."""


def delegate_path() -> str:
    """Path of the shared library, for `load_delegate` of TFLite or LiteRT.

    # Raises
        DelegateError: If the package was installed without a compiler.
    """
    path = Path(__file__).with_name("liblarq_rep_delegate.so")
    if not path.exists():
        raise DelegateError(
            f"The delegate {path.name} was not built: installing larq-rep-runtime found no make or C compiler. "
            "Install them (Debian: apt install make gcc) and install the package again, or install a wheel."
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
    for name in _NAMES:
        if delegate := create(strings(b"implementation"), strings(name.encode()), 1, None):
            destroy(delegate)
            available.append(name)
    return tuple(available)
