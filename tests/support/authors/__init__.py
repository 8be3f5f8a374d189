"""The networks of the authors' PyTorch code: state dicts in the layout of their files, and what PyTorch computes.

A second source, apart from this project's networks and importers: written from the specifications, in numpy or
PyTorch, in float64, on NCHW images, with PyTorch's own padding and alignment. `primitives.backend` chooses the
arithmetic, `primitives.sign_of_zero` the sign of 0. A module of this folder that has `networks()` is found.
"""

import importlib
import pkgutil
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from . import cifar
from .network import Network

_modules = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
NETWORKS: dict[str, Network] = {
    name: network for module in _modules if hasattr(module, "networks") for name, network in module.networks()
}

# The keys that ReCU's first release wrote; its forward is not reproduced.
OLD_RECU_STATES: dict[str, Callable[..., dict[str, np.ndarray]]] = {
    "recu_resnet20": partial(cifar.resnet_state, cifar.ReCU, [16, 32, 64], 3, prelu=True),
    "recu_resnet18_cifar": partial(cifar.resnet_state, cifar.ReCU, [64, 128, 256, 512], 2, shortcut=("shortcut", True)),
}


def small_first() -> list:
    """The names of all networks, the large ones for the slow tests."""
    return [name if network.small else pytest.param(name, marks=pytest.mark.slow) for name, network in NETWORKS.items()]


def images(name: str, batch: int = 1, size: int | None = None, seed: int = 0) -> np.ndarray:
    """Random images for a network: colours of 0 to 255 divided by 255 for FracBNN, else normalised ones."""
    channels, height, width = NETWORKS[name].input_shape
    shape = batch, channels, size or height, size or width
    rng = np.random.default_rng(seed)
    return rng.integers(256, size=shape) / 255 if name.startswith("fracbnn") else rng.standard_normal(shape)
