"""One image, as it flows through the file and through the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from larq_rep.converters.verification.forced import ForcedRun


@dataclass(frozen=True)
class Image:
    """The values that file and model compute on one image.

    # Attributes
        index: Its number.
        values: Tensors of the file in LCE's interpreter.
        forced: The model with the file's bits.
        peaks: The values that `Rounding.magnitude` needs.
        noise: How far rounding to 8 bits may move a tensor of the file.
        moved: How far the rounding of sums may move each channel of a tensor of the file.
    """

    index: int
    values: dict[int, np.ndarray]
    forced: ForcedRun
    peaks: list[float]
    noise: Callable[[int], float]
    moved: Callable[[int], np.ndarray | float]
