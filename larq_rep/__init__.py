"""larq-rep: binary networks of RepBNN, ReActNet and their peers for Larq.

Larq needs Keras 2. Importing this package tells TensorFlow to use it (the `tf-keras` package), so import
`larq_rep` before TensorFlow; nothing needs to be set by hand.
"""

import gc
import os
import sys

_LEGACY = ("1", "true", "True")

if os.environ.get("TF_USE_LEGACY_KERAS") not in _LEGACY:
    # TensorFlow reads the variable once, on its import, and then imports Keras 3 if it is not set.
    if sys.modules.get("keras") is not None and sys.modules["keras"].__version__.startswith("3."):
        raise ImportError(
            "larq_rep needs Keras 2, but Keras 3 was imported first: import larq_rep before tensorflow and "
            "keras (or set the environment variable TF_USE_LEGACY_KERAS=1)."
        )
    os.environ["TF_USE_LEGACY_KERAS"] = "1"

# To look for garbage among all that TensorFlow makes, which stays, takes a sixth of the import.
_collects = gc.isenabled()
gc.disable()
try:
    from larq_rep import cost, layers, lazy, quantizers
    from larq_rep.reptran import ReptranError, reptran
finally:
    if _collects:
        gc.enable()

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

# Imported on first use: the core does not depend on modules built on it, and layers do not need the training code.
__getattr__, __dir__ = lazy.modules(__name__, "converters", "data", "losses", "plots", "training", "zoo")
