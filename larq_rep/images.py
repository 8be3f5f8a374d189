"""Reads image files and prepares images for evaluation. All images are (height, width, channels)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

if TYPE_CHECKING:
    from PIL import Image

Size = int | tuple[int, int]

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_TAIL = 64  # The end mark of a JPEG should be among this many last bytes.
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

    @property
    def resize_share(self) -> float:
        """The shorter side before the crop, as a multiple of the crop's side."""
        return (self.test_resize or _CROPPED) / _CROPPED


def evaluation_image(image: tf.Tensor, evaluation: Evaluation, size: Size) -> tf.Tensor:
    """Prepares one image as a network sees it in evaluation.

    # Arguments
        image: uint8 `(height, width, channels)`.
        evaluation: The preparation.
        size: Height and width of the result, or `(height, width)`.

    # Returns
        float32 `(height, width, channels)`.
    """
    height, width = height_width(size)
    share = evaluation.resize_share
    image = covering(image, round(height * share), round(width * share), height, width)
    return normalised(image / 255, evaluation.mean, evaluation.std)


def resized(image: tf.Tensor, height: tf.Tensor | int, width: tf.Tensor | int) -> tf.Tensor:
    """Resizes an image bilinearly with antialiasing; the result is float32."""
    # PIL, and so every recipe, continues with whole levels.
    return tf.round(tf.cast(tf.image.resize(image, (height, width), antialias=True), tf.float32))


def covering(image: tf.Tensor, least_height: int, least_width: int, height: int, width: int) -> tf.Tensor:
    """Resizes in proportion until the image just covers the least size, and crops in the middle."""
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
