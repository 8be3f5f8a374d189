"""Reads image files and prepares images for evaluation. All images are (height, width, channels)."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf
    from PIL import Image

Size = int | tuple[int, int]

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
MODES = {1: "L", 3: "RGB"}  # of PIL, by the number of channels
_TAIL = 64  # The end mark of a JPEG should be among this many last bytes.
_LARGEST = 10_000  # More pixels a side than this need gigabytes.
_CROPPED = 224  # The crop size that `test_resize` refers to.


def images_in(folder: Path) -> list[Path]:
    """The image files of a folder, sorted by name, without hidden ones.

    # Raises
        FileNotFoundError: If anything in the folder is a broken link.
    """
    return sorted(file for file in _shown(folder) if file.suffix.lower() in SUFFIXES and file.is_file())


def folders_in(folder: Path) -> list[Path]:
    """The subfolders of a folder, sorted by name, without hidden ones.

    # Raises
        FileNotFoundError: If anything in the folder is a broken link.
    """
    return sorted(child for child in _shown(folder) if child.is_dir())


def _shown(folder: Path) -> Iterator[Path]:
    for child in folder.iterdir():
        if child.name.startswith("."):
            continue
        if child.is_symlink() and not child.exists():
            raise FileNotFoundError(
                f"{child} is a link to {os.readlink(child)}, which is not there. Mend or remove it."
            )
        yield child


def open_upright(file: str | os.PathLike[str], mode: str = "RGB") -> Image.Image:
    """Reads an image with PIL and turns it as its EXIF data say.

    # Raises
        ValueError: If it cannot be read.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as image:
            return ImageOps.exif_transpose(image).convert(mode)
    except Exception as error:  # For half a file PIL raises errors of many classes.
        raise ValueError(
            f"{os.fspath(file)} cannot be read as an image: {error or repr(error)}. Repair or remove it."
        ) from error


def check_image(file: str | os.PathLike[str]) -> None:
    """Finds most images that cannot be read, without decoding those that look complete.

    JPEGs with an end mark and PNGs with correct checksums look complete. All others are decoded.

    # Raises
        ValueError: If it cannot be read.
    """
    from PIL import Image

    try:
        with Image.open(file) as image:
            whole = image.format == "PNG"
            if whole:
                image.verify()
            elif image.format == "JPEG":
                with open(file, "rb") as content:
                    content.seek(-min(_TAIL, os.path.getsize(file)), os.SEEK_END)
                    whole = b"\xff\xd9" in content.read()
    except Exception:  # As above; the next line raises the error.
        whole = False
    if not whole:
        open_upright(file)


def height_width(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The preparation of an image before a network classifies it: resize, central crop, scaling to 0..1, normalisation.

    # Arguments
        mean, std: Mean and standard deviation of each channel of images in 0..1; `None` leaves them in 0..1, where grey
            images always stay.
        test_resize: Shorter side before the central crop, for a crop of 224 pixels, in proportion at other sizes.
            `None`: the size itself.

    # Raises
        ValueError: If only one of `mean` and `std` is given, or `test_resize` is less than the crop.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    test_resize: int | None = None

    def __post_init__(self) -> None:
        name = type(self).__name__
        if (self.mean is None) != (self.std is None):
            raise ValueError(
                f"{name}: mean and std go together, found mean={self.mean} and std={self.std}. Give both or neither."
            )
        if self.test_resize is not None and self.test_resize < _CROPPED:
            raise ValueError(
                f"{name}: test_resize is the shorter side before a crop of {_CROPPED} pixels, so at least "
                f"{_CROPPED}, found {self.test_resize}."
            )

    def at(self, size: Size, channels: int) -> Preparation:
        """The preparation for a network that takes images of this size and number of channels."""
        height, width = map(int, height_width(size))
        grey = channels == 1
        return Preparation(
            size=(height, width),
            channels=channels,
            resize=round(min(height, width) * (self.test_resize or _CROPPED) / _CROPPED),
            mean=None if grey else self.mean,
            std=None if grey else self.std,
        )


@dataclass(frozen=True, kw_only=True)
class Preparation:
    r"""The preparation of an image for one network, as a .tflite file says it.

    The image is resized in proportion, bilinearly with antialiasing and to whole levels, until it covers
    \(s\ r / \min(s)\) for the size \(s\) and the shorter side \(r\), and cropped in the middle to the size. A level
    \(p\) of 0 to 255 becomes \(x = (a + (b - a)\ p / 255 - \text{mean}) / \text{std}\).

    !!! example
        ```python
        preparation = larq_rep.training.get_recipe("fracbnn").augmentation.at(32, channels=3)
        content, report = larq_rep.converters.convert(model, preparation=preparation)
        ```

    # Arguments
        size: Height and width of the network's images, in pixels.
        channels: 1 for grey images, 3 for RGB.
        resize: Shorter side r before the crop, in pixels. `None`: that of the size.
        range: The values a and b of black and white, before the normalisation.
        mean, std: One number a channel; `None` leaves the pixels in `range`.
        others: The published forms of the network that are prepared otherwise, if nothing says which form it is and the
            first one is assumed.

    # Raises
        ValueError: If a value is not one of these.
    """

    size: tuple[int, int]
    channels: int
    resize: int = None  # type: ignore[assignment]  # `__post_init__` sets it
    range: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    others: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise ValueError(f"preparation: channels should be 1 (grey) or 3 (RGB), found {self.channels!r}.")
        for name, count, positive in (("size", 2, True), ("range", 2, False), ("mean", 0, False), ("std", 0, True)):
            value, count = getattr(self, name), count or self.channels
            if value is None and name in ("mean", "std"):
                continue
            if isinstance(value, np.ndarray | list | tuple):
                value = tuple(x.item() if isinstance(x, np.generic) else x for x in value)
            if not isinstance(value, tuple) or len(value) != count or not all(map(_is_finite, value)):
                raise ValueError(f"preparation: {name} should be {count} number{'s'[: count - 1]}, found {value!r}.")
            if positive and min(value) <= 0:
                raise ValueError(f"preparation: {name} should be positive, found {value!r}.")
            object.__setattr__(self, name, value)
        if not all(isinstance(side, int) for side in self.size):
            raise ValueError(f"preparation: size should be two whole numbers, found {self.size!r}.")
        if self.resize is None:
            object.__setattr__(self, "resize", min(self.size))
        if isinstance(self.resize, float | np.number) and float(self.resize).is_integer():
            object.__setattr__(self, "resize", int(self.resize))
        least, most = min(self.size), max(_LARGEST, *self.size)
        if not isinstance(self.resize, int) or not least <= self.resize <= most:
            raise ValueError(
                f"preparation: resize is the shorter side before a crop of {self.size[0]}x{self.size[1]} pixels, so at "
                f"least {least} and at most {most}, found {self.resize!r}."
            )
        if self.range[0] >= self.range[1]:
            raise ValueError(f"preparation: range should be the values of black and white, found {self.range!r}.")
        if (self.mean is None) != (self.std is None):
            raise ValueError(
                f"preparation: mean and std go together, found mean={self.mean} and std={self.std}. Give both or "
                "neither."
            )

    @classmethod
    def from_dict(cls, values: Any) -> Preparation:
        """The preparation that `to_dict` wrote.

        # Raises
            ValueError: If the values are not of that form.
        """
        if not isinstance(values, dict) or not {"size", "channels"} <= set(values):
            raise ValueError(f"preparation: expected at least size and channels by name, found {values!r:.80}.")
        if values.get("crop", values["size"]) != values["size"]:
            raise ValueError(f"preparation: crop should be the size {values['size']}, found {values['crop']!r}.")
        known = ("size", "channels", "resize", "range", "mean", "std")
        return cls(**{name: values[name] for name in known if values.get(name) is not None})

    def to_dict(self) -> dict[str, Any]:
        """The preparation in values that JSON knows; `mean` and `std` only if there are any."""
        values = {"size": self.size, "channels": self.channels, "range": self.range, "mean": self.mean, "std": self.std}
        values |= {"resize": self.resize, "crop": self.size}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return {name: value for name, value in plain.items() if value is not None}

    @property
    def covered(self) -> tuple[int, int]:
        """Height and width that a resized image covers."""
        height, width = (round(side * self.resize / min(self.size)) for side in self.size)
        return height, width

    @property
    def text(self) -> str:
        """The preparation in words."""
        (top, left), (height, width), (low, high) = self.covered, self.size, self.range
        text = f"resized to cover {top}x{left}, cropped to {height}x{width}, in {low:g}..{high:g}"
        if self.mean is not None and self.std is not None:
            less, over = (" ".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
            text += f", less {less}, over {over}"
        return text

    def one(self, image: tf.Tensor) -> tf.Tensor:
        """Prepares one image, uint8 `(height, width, channels)`; the result is float32."""
        low, high = self.range
        image = covering(image, *self.covered, *self.size)
        # Exact for 0..1 and 0..255.
        image = image * (high - low) / 255 + low
        if self.mean is None:
            return image
        return (image - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)

    def __call__(self, images: np.ndarray | Sequence[Any]) -> np.ndarray:
        """Prepares uint8 arrays or PIL images; the result is float32 `(N, height, width, channels)`.

        # Raises
            ValueError: If there are none, or they are not uint8 with these channels.
        """
        import tensorflow as tf  # what only describes a preparation must not wait for it

        if len(images) == 0:
            raise ValueError("preprocess_input: expected at least one image.")
        return np.stack([self.one(tf.constant(_pixels(image, self.channels))).numpy() for image in images])


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _pixels(image: Any, channels: int) -> np.ndarray:
    pixels = np.asarray(image)
    if channels == 1 and pixels.ndim == 2:  # PIL's grey images
        pixels = pixels[:, :, None]
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] != channels:
        raise ValueError(
            f"preprocess_input: expected uint8 images (height, width, {channels}) with pixels from 0 to 255, found "
            f"{pixels.dtype} {pixels.shape}. Convert it, with PIL by image.convert({MODES[channels]!r})."
        )
    return pixels


def evaluation_image(image: tf.Tensor, evaluation: Evaluation, size: Size) -> tf.Tensor:
    """Prepares one image as a network sees it in evaluation.

    # Arguments
        image: uint8 `(height, width, channels)`.
        evaluation: The preparation.
        size: Height and width of the result, or `(height, width)`.

    # Returns
        float32 `(height, width, channels)`.
    """
    return evaluation.at(size, image.shape[-1]).one(image)


def resized(image: tf.Tensor, height: tf.Tensor | int, width: tf.Tensor | int) -> tf.Tensor:
    """Resizes an image bilinearly with antialiasing; the result is float32."""
    import tensorflow as tf

    # PIL, and so every recipe, continues with whole levels.
    return tf.round(tf.cast(tf.image.resize(image, (height, width), antialias=True), tf.float32))


def covering(image: tf.Tensor, least_height: int, least_width: int, height: int, width: int) -> tf.Tensor:
    """Resizes in proportion until the image just covers the least size, and crops in the middle."""
    import tensorflow as tf

    if image.shape[:2] == (height, width) == (least_height, least_width):
        return tf.cast(image, tf.float32)
    shape = tf.shape(image)
    if_high = tf.stack([shape[0] * least_width // shape[1], least_width])
    if_wide = tf.stack([least_height, shape[1] * least_height // shape[0]])
    high = shape[0] * least_width >= shape[1] * least_height
    cover = tf.where(high, if_high, if_wide)
    image = resized(image, cover[0], cover[1])
    top, left = tf.unstack(tf.cast(tf.round((cover - [height, width]) / 2), tf.int32))
    return tf.ensure_shape(image[top : top + height, left : left + width], (height, width, image.shape[-1]))


def normalised(image: Any, mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> Any:
    """Computes `(x - mean) / std` per channel of a float32 array or tensor in 0..1. Grey images are not changed."""
    if mean is None or image.shape[-1] == 1:
        return image
    return (image - np.array(mean, np.float32)) / np.array(std, np.float32)
