"""Modules of larq_rep without TensorFlow, for help, messages and commands that should not wait for it."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# What their `__init__.py` imports needs TensorFlow; many of their modules do not.
_PACKAGES = ("larq_rep", "larq_rep.converters", "larq_rep.zoo", "larq_compute_engine")


@contextmanager
def without_tensorflow() -> Iterator[None]:
    """Within it, imports of modules of larq_rep do not run the `__init__.py` of the packages that they are in.

    Afterwards these modules are forgotten: the next import finds the whole package, with Keras' classes registered. A
    package that was imported before is left as it is. Warnings, which are noise in a command, are silenced.
    """
    before = {*sys.modules}
    for name in _PACKAGES:
        if name.split(".")[0] not in before and (spec := importlib.util.find_spec(name)):
            sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name in {*sys.modules} - before:
            if name.split(".")[0] in ("larq_rep", "larq_compute_engine"):
                del sys.modules[name]


with without_tensorflow():
    from larq_rep import datasets
    from larq_rep.checks import did_you_mean

__all__ = ["datasets", "did_you_mean", "without_tensorflow"]
