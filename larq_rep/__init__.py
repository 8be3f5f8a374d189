"""larq-rep: binary networks of RepBNN, ReActNet and their peers for Larq.

Larq needs Keras 2. Importing this package tells TensorFlow to use it (the `tf-keras` package), so import
`larq_rep` before TensorFlow; nothing needs to be set by hand.
"""

import os
import sys

_LEGACY = ("1", "true", "True")

if os.environ.get("TF_USE_LEGACY_KERAS") not in _LEGACY:
    # TensorFlow reads the variable once, when it is imported, and imports Keras 3 then if it is not set.
    if sys.modules.get("keras") is not None and sys.modules["keras"].__version__.startswith("3."):
        raise ImportError(
            "larq_rep needs Keras 2, but Keras 3 was imported first: import larq_rep before tensorflow and "
            "keras (or set the environment variable TF_USE_LEGACY_KERAS=1)."
        )
    os.environ["TF_USE_LEGACY_KERAS"] = "1"

from larq_rep import cost, layers, lazy, quantizers  # noqa: E402  (the variable must be set first)
from larq_rep.reptran import ReptranError, reptran  # noqa: E402  (likewise)

__version__ = "0.2.0"

__all__ = [
    "ReptranError",
    "converters",
    "cost",
    "data",
    "layers",
    "losses",
    "plots",
    "quantizers",
    "reptran",
    "training",
    "zoo",
]

# Looked up on first use: the core does not depend on what is built on it, nor do layers need what trains them.
__getattr__, __dir__ = lazy.modules(__name__, "converters", "data", "losses", "plots", "training", "zoo")
