"""Imports modules of a package on first use; `dir` lists them before."""

import importlib
import sys
from collections.abc import Callable
from typing import Any


def modules(package: str, *names: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Makes `__getattr__` and `__dir__` for a package with these modules."""

    def getter(name: str) -> Any:
        if name in names:
            return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return getter, lambda: sorted({*vars(sys.modules[package]), *names})
