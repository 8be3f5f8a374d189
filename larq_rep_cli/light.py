"""The modules of larq_rep that do not need TensorFlow, for help and messages that should not wait for it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType


def _module(name: str) -> ModuleType:
    """Loads a module from its file: an import would import `larq_rep` first, and with it TensorFlow."""
    package = importlib.util.find_spec("larq_rep")
    assert package and package.origin
    spec = importlib.util.spec_from_file_location(f"{__name__}.{name}", Path(package.origin).with_name(f"{name}.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


datasets = _module("datasets")
did_you_mean = _module("checks").did_you_mean
