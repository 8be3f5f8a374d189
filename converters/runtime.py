"""The package `larq_rep_runtime`, which runs files with the delegate: imported only where the delegate is asked for."""

from __future__ import annotations

import importlib
from types import ModuleType


class RuntimeMissingError(ImportError):
    """The package `larq_rep_runtime` is not installed."""


def needed_runtime() -> ModuleType:
    """The package `larq_rep_runtime`.

    # Raises
        RuntimeMissingError: If it is not installed.
    """
    try:
        return importlib.import_module("larq_rep_runtime")
    except ModuleNotFoundError as error:
        if error.name != "larq_rep_runtime":
            raise
        raise RuntimeMissingError(
            "The delegate is in the package larq-rep-runtime, which is not installed. Install it from the sources of "
            "larq-rep, pip install ./runtime, or from its wheel."
        ) from error


def delegate_errors() -> tuple[type[Exception], ...]:
    """The errors of a delegate that is missing, or that refuses a file or an option: for `except`."""
    try:
        return (RuntimeMissingError, needed_runtime().DelegateError)
    except RuntimeMissingError:
        return (RuntimeMissingError,)
