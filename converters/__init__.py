"""From Keras to a file for Larq Compute Engine, and what can be said about that file.

`convert`, `describe` and `verify` are functions here, although each lives in a module of its name: the modules
are imported first, so the names stay the functions'. Everything else is imported from its module, as in
`from larq_rep.converters.verify import Verification`. That of `benchmark` imports matplotlib, so it is left to
those who measure: `from larq_rep.converters.benchmark import benchmark`.
"""

from larq_rep import lazy
from larq_rep.converters.convert import ConversionError, convert
from larq_rep.converters.describe import describe
from larq_rep.converters.folding import fold
from larq_rep.converters.verify import verify

__all__ = ["ConversionError", "convert", "describe", "fold", "verify"]

__getattr__, __dir__ = lazy.modules(__name__, "benchmark")
