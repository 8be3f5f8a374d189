"""Ranges of a file's tensors on images, from which int8 takes scale and zero point."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from larq_rep.converters import lce
from larq_rep.converters.flatbuffer import Flatbuffer

CALIBRATIONS = ("mse", "percentile", "minmax")

_BINS = 2048  # on each side of 0
# Share of the values beyond each end of a range that "percentile" gives up.
_BEYOND = 1e-4
# Shares of the range of all values that "mse" tries for each end.
_SHARES = np.linspace(0.2, 1.0, 33)
_LEVELS = 255
TYPES = {"int8": np.int8, "uint8": np.uint8}


@dataclass(frozen=True)
class Scale:
    """The meaning of the integers of a tensor, real = scale * (integer - zero).

    # Attributes
        scale: A positive float32.
        zero: The integer that stands for 0, -128 to 127.
        seen: The smallest and largest value in calibration.
    """

    scale: np.float32
    zero: int
    seen: tuple[float, float]

    @classmethod
    def of_range(cls, low: float, high: float, seen: tuple[float, float]) -> Scale:
        """The scale of 255 steps from `low` to `high`, moved by less than a step so that 0 is an integer."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = np.float32((high - low) / _LEVELS)
        if scale < np.finfo(np.float32).tiny:
            return cls(np.float32(1), -128, seen)
        return cls(scale, int(np.clip(np.rint(-128 - low / float(scale)), -128, 127)), seen)

    def quantized(self, values: np.ndarray) -> np.ndarray:
        """The nearest integers."""
        quotients = np.rint(values.astype(np.float64) / float(self.scale)) + self.zero
        return np.clip(quotients, -128, 127).astype(np.int8)


class Histogram:
    """Counts the values of a tensor in equal bins from -limit to limit, a power of two that grows with them.

    # Attributes
        low: The smallest value.
        high: The largest one.
        squares: The sum of the squares of all values.
        count: How many there are.
    """

    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf
        self.squares, self.count = 0.0, 0
        self._limit = 0.0
        # 0 stays 0 in int8, whatever the scale, so it is not counted.
        self._counts = np.zeros(2 * _BINS, np.int64)

    def add(self, values: np.ndarray) -> None:
        """Counts further values.

        # Raises
            ValueError: If one is not finite.
        """
        low, high = float(values.min()), float(values.max())
        if not np.isfinite(low) or not np.isfinite(high):
            raise ValueError("it has values that are not finite")
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.squares += float(np.square(values, dtype=np.float64).sum())
        self.count += values.size
        largest = max(-low, high)
        if largest > self._limit:
            self._grow(2.0 ** np.ceil(np.log2(largest)))
        if self._limit:
            self._counts += np.histogram(values[values != 0], 2 * _BINS, (-self._limit, self._limit))[0]

    def _grow(self, limit: float) -> None:
        # Many bins become one around 0.
        merged = np.zeros_like(self._counts)
        if self._limit:
            factor = int(min(limit / self._limit, 2 * _BINS))
            at = np.arange(2 * _BINS) - _BINS
            np.add.at(merged, at // factor + _BINS, self._counts)
        self._limit, self._counts = limit, merged

    def scale(self, calibration: str) -> Scale:
        """The scale that a method of calibration chooses.

        # Arguments
            calibration: `"minmax"`, all values; `"percentile"`, all but a ten-thousandth at each end; `"mse"`, the
                range with the smallest mean squared error of rounding and clipping.
        """
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        if calibration == "percentile":
            low, high = self._percentile(low, high)
        elif calibration == "mse":
            low, high = self._least_squares(low, high)
        return Scale.of_range(low, high, (self.low, self.high))

    def _edges(self) -> np.ndarray:
        return np.linspace(-self._limit, self._limit, 2 * _BINS + 1)

    def _percentile(self, low: float, high: float) -> tuple[float, float]:
        total, edges = np.cumsum(self._counts), self._edges()
        if not total[-1]:
            return low, high
        first = np.searchsorted(total, _BEYOND * total[-1], "right")
        last = np.searchsorted(total, (1 - _BEYOND) * total[-1], "left")
        return max(low, min(edges[first], 0.0)), min(high, max(edges[last + 1], 0.0))

    def _least_squares(self, low: float, high: float) -> tuple[float, float]:
        edges = self._edges()
        centres = (edges[1:] + edges[:-1]) / 2
        lows, highs = (np.unique(_SHARES * end) for end in (low, high))
        # Squared distances to the range, for each of its ends.
        below = np.maximum(lows[:, None] - centres, 0) ** 2 @ self._counts
        above = np.maximum(centres - highs[:, None], 0) ** 2 @ self._counts
        steps = (highs - lows[:, None]) / _LEVELS
        errors = below[:, None] + above + steps**2 / 12 * self._counts.sum()
        i, j = np.unravel_index(np.argmin(errors), errors.shape)
        return float(lows[i]), float(highs[j])


def collect(
    content: bytes,
    tensors: Sequence[int],
    runs: Sequence[Sequence[np.ndarray]],
    progress: Callable[[Iterable[int]], Iterable[int]],
) -> dict[int, Histogram]:
    """The values that tensors of a file take in LCE's interpreter.

    # Arguments
        content: The bytes of the file.
        tensors: Their indices.
        runs: The inputs of the file, for each run.
        progress: Wraps the loop over the runs, to show a bar.

    # Raises
        ValueError: If a tensor has values that are not finite.
    """
    flatbuffer = Flatbuffer(content)
    inputs = flatbuffer.inputs
    inside = [tensor for tensor in tensors if tensor not in inputs]
    # Without outputs the interpreter has nothing to compute.
    engine = lce.interpreter(flatbuffer.with_outputs(inside), use_indirect_bgemm=True) if inside else None
    histograms = {tensor: Histogram() for tensor in tensors}
    for index in progress(range(len(runs))):
        values = dict(zip(inputs, runs[index], strict=True))
        if engine is not None:
            values |= dict(zip(inside, engine.interpreter.predict(list(runs[index])), strict=True))
        for tensor in tensors:
            try:
                histograms[tensor].add(values[tensor])
            except ValueError as error:
                raise ValueError(f"int8: {flatbuffer.name(tensor)!r} on image {index}: {error}.") from None
    return histograms
