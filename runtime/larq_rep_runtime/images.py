"""Reads and prepares images with the numbers of larq-rep's evaluation, without TensorFlow."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from larq_rep_runtime.library import DelegateError


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """The preparation of images for a file: resize, central crop, scaling, normalisation.

    An image is turned as its EXIF data say and made RGB or grey. It is resized in proportion, bilinearly with
    antialiasing and to whole levels, until it just covers `size * resize / min(size)`, and cropped in the middle to
    `size`. The result is `(low + level / 255 * (high - low) - mean) / std`.

    # Attributes
        size: Height and width of the file's input.
        channels: 3 for RGB, 1 for grey.
        resize: Shorter side before the crop; at least that of `size`.
        range: What the levels 0 and 255 become, `(low, high)`.
        mean, std: Mean and standard deviation of each channel; `None` leaves images in their range.
        mirrored: Whether the file takes images turned by 180 degrees.
        assumed: Why this preparation is assumed; empty if the file says it.
    """

    size: tuple[int, int]
    channels: int
    resize: float
    range: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    mirrored: bool = False
    assumed: str = ""

    @property
    def least(self) -> tuple[int, int]:
        """Height and width that the resized image just covers."""
        height, width = (round(side * self.resize / min(self.size)) for side in self.size)
        return height, width

    @property
    def text(self) -> str:
        """What it does, in words."""
        (low, high), least, size = self.range, self.least, self.size
        text = f"resized to cover {least[0]}x{least[1]}, cropped to {size[0]}x{size[1]}, in {low:g}..{high:g}"
        if self.mean is not None and self.std is not None:
            mean, std = (" ".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
            text += f", less {mean}, over {std}"
        return text + ", turned by 180 degrees" * self.mirrored

    def __call__(self, path: str) -> np.ndarray:
        """An image file as float32 `(height, width, channels)`.

        # Raises
            DelegateError: If Pillow is missing or the image cannot be read.
        """
        low, high = map(np.float32, self.range)
        x = covering(read_levels(path, self.channels), self.least, self.size) * (high - low) / np.float32(255) + low
        if self.mean is not None and self.std is not None:
            x = (x - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return np.ascontiguousarray(x[::-1, ::-1]) if self.mirrored else x


def read_levels(path: str, channels: int) -> np.ndarray:
    """An image file, upright, as uint8 `(height, width, channels)` with 1 or 3 channels.

    # Raises
        DelegateError: If Pillow is missing or the image cannot be read.
    """
    try:
        from PIL import Image, ImageOps
    except ModuleNotFoundError:
        raise DelegateError("Images need Pillow: pip install pillow.") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                upright = ImageOps.exif_transpose(image).convert("L" if channels == 1 else "RGB")
    except Exception as error:  # For half a file PIL raises errors of many classes.
        raise DelegateError(f"{path} cannot be read as an image: {error or repr(error)}.") from error
    return np.asarray(upright).reshape(upright.height, upright.width, channels)


def covering(image: np.ndarray, least: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Resizes an image in proportion until it just covers `least`, and crops it in the middle to `size`.

    All steps and roundings are those of `larq_rep.images.covering`; only the pixels within the crop are computed.

    # Arguments
        image: uint8 `(height, width, channels)`.
        least, size: Heights and widths.

    # Returns
        float32 `(height, width, channels)`, whole levels from 0 to 255.
    """
    height, width = image.shape[:2]
    if height * least[1] >= width * least[0]:
        cover = (height * least[1] // width, least[1])
    else:
        cover = (least[0], width * least[0] // height)
    for axis in (0, 1):
        first = round((cover[axis] - size[axis]) / 2)
        places, weights = _taps(image.shape[axis], cover[axis], first, size[axis])
        weights = weights[..., None, None] if axis == 0 else weights[:, None, :, None]
        total = weights[0] * image.take(places[0], axis)
        for place, weight in zip(places[1:], weights[1:], strict=True):
            total += weight * image.take(place, axis)
        image = total
    return np.round(image)


def _taps(source: int, scaled: int, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The taps of `count` pixels, from `first` on, of a line of `source` pixels that is resized to `scaled`.

    The filter is a triangle, on each side as wide as a pixel of the line or of the result, whichever is wider. All is
    computed in float32 and in TensorFlow's order, so that the same values are rounded to the same levels.

    # Returns
        Places in the line and their weights, both `(taps, count)`.

    # References
        - [TensorFlow: ScaleAndTranslate](https://www.tensorflow.org/api_docs/python/tf/raw_ops/ScaleAndTranslate)
    """
    one, half = np.float32(1), np.float32(0.5)
    step = np.float32(1 / np.float64(np.float32(scaled / source)))
    radius = max(step, one)
    centres = (np.arange(first, first + count).astype(np.float32) + half) * step
    starts = np.clip(np.ceil(centres - radius - half), 0, source - 1).astype(int)
    ends = np.clip(np.floor(centres + radius - half), 0, source - 1).astype(int)
    places = starts + np.arange((ends - starts).max() + 1)[:, None]
    distances = np.abs(places.astype(np.float32) + half - centres) * (one / radius)
    weights = np.where(places <= ends, np.maximum(one - distances, 0), np.float32(0))
    # A running sum, because numpy's other sums have another order.
    return np.minimum(places, source - 1), weights * (one / np.cumsum(weights, axis=0)[-1])


def quantization(detail: dict[str, Any]) -> tuple[float, int]:
    """Scale and zero point of an integer input; without a scale its integers are levels, in int8 from -128."""
    scale, zero_point = detail["quantization"]
    return (scale, zero_point) if scale else (1.0, -128 if detail["dtype"] == np.int8 else 0)


def as_input(x: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    """Prepared images in the type of an input, as `Interpreter.inputs` describes it: quantized if it takes integers."""
    dtype = np.dtype(detail["dtype"])
    if dtype.kind == "f":
        return x.astype(dtype)
    (scale, zero_point), info = quantization(detail), np.iinfo(dtype)
    return np.clip(np.round(x / np.float32(scale)) + zero_point, info.min, info.max).astype(dtype)
