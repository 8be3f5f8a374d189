"""Converts Keras models to files for Larq Compute Engine, and folds, describes and verifies these files.

Everything else is imported from its module, as in `from larq_rep.converters.verification import Verification` or
`from larq_rep.converters.latency import benchmark`.
"""

from larq_rep import lazy
from larq_rep.converters.conversion import ConversionError, convert, convert_keras_model
from larq_rep.converters.description import describe
from larq_rep.converters.folding import fold
from larq_rep.converters.int8 import quantize
from larq_rep.converters.verification import verify

__all__ = ["ConversionError", "convert", "convert_keras_model", "describe", "fold", "quantize", "verify"]

__getattr__, __dir__ = lazy.modules(__name__, "benchmark", "latency")
