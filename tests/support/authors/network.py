"""The record of a network of the authors' code."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

CIFAR, IMAGENET = (3, 32, 32), (3, 224, 224)

STEPS = ("--step 1", "--step 2")
FIRST, SECOND = {"asked": STEPS, "said": {"step": 1}}, {"asked": STEPS, "said": {"step": 2}}


class Network(NamedTuple):
    """What the authors' code has, and what is printed of it.

    # Attributes
        state_dict: `state_dict(seed=0, zeros=False, **options)`, in the layout of their files.
        forward: `forward(state, images)`.
        input_shape: The full size (C, H, W).
        constructor: The network of the zoo.
        arguments: Its arguments.
        untold: What the error says if keys and shapes do not tell the constructor.
        asked: The options, one of which the command asks for, since keys and shapes do not tell the phase or the form.
        said: The answer that this network is.
        parameters: Trained parameters, all of them or, `without_unused`, those that the forward reads.
        unused_parameters: How many it does not read, where that is printed and `parameters` is without them.
        unused: Regular expression of the keys that it does not read, but for counters.
        entries: Entries of the state dict, where that is printed.
        macs: Multiply-accumulates of all convolutions at the full size, real and binary ones, where that is printed.
        small: Whether it is imported in the fast tests; one of each kind is.
        fast: Whether its forward is tested in the fast tests.
    """

    state_dict: Callable[..., dict[str, np.ndarray]]
    forward: Callable[..., np.ndarray]
    input_shape: tuple[int, int, int]
    constructor: str
    parameters: int
    arguments: dict[str, Any] = {}  # noqa: RUF012  (never changed)
    untold: str = ""
    asked: tuple[str, ...] = ()
    said: dict[str, Any] = {}  # noqa: RUF012  (never changed)
    without_unused: bool = False
    unused_parameters: int | None = None
    unused: str = ""
    entries: int | None = None
    macs: Any = None
    small: bool = False
    fast: bool = False
