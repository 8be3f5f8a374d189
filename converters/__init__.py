"""From Keras to a file for Larq Compute Engine, and what can be said about that file.

`convert`, `verify`, `describe` and `benchmark` are functions here, although each lives in a module of its
name: all modules are imported first, so the names stay the functions'. The rest of a module is imported from
it, as in `from larq_rep.converters.convert import ConversionError`.
"""

from larq_rep.converters.benchmark import benchmark
from larq_rep.converters.convert import convert
from larq_rep.converters.describe import describe
from larq_rep.converters.verify import verify

__all__ = ["benchmark", "convert", "describe", "verify"]
