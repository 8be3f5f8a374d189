"""`larq_rep.converters.latency` under its name of 0.1.0, until 0.3."""

import warnings

from larq_rep.converters.latency import MODES, Result, benchmark, measure, plot

__all__ = ["MODES", "Result", "benchmark", "measure", "plot"]

warnings.warn(
    "larq_rep.converters.benchmark is now larq_rep.converters.latency; the old name goes in 0.3.",
    DeprecationWarning,
    stacklevel=2,
)
