"""Images for training, verification and statistics. All arrays are NHWC and float32.

Networks always see the same form: grey images are scaled to [0, 1], RGB images are then also normalised
with the mean and standard deviation of ImageNet, channel by channel.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from larq_rep.datasets import IMAGENET_STATISTICS
from larq_rep.images import (
    MODES,
    SUFFIXES,
    Preparation,
    Size,
    folders_in,
    height_width,
    images_in,
    normalised,
    open_upright,
)

if TYPE_CHECKING:
    from PIL import Image

IMAGENET_MEAN, IMAGENET_STD = IMAGENET_STATISTICS

_HELD_OUT_DIGITS = 360


def digits(split: str = "train", size: Size = 8) -> tuple[np.ndarray, np.ndarray]:
    """The 1797 handwritten digits of scikit-learn, 8 x 8 pixels with 17 levels of grey.

    The levels 0 to 16 become 0 to 1. The split is always the same (`random_state=0`) and stratified: 1437
    images to train on, 360 held out. They come with scikit-learn, so no download is needed.

    # Arguments
        split: `"train"` or `"test"`.
        size: Height and width, or `(height, width)`. Other sizes than 8 are interpolated bilinearly.

    # Returns
        Images of shape `(N, height, width, 1)` and labels 0 to 9 of shape `(N,)`.

    # Raises
        ValueError: If there is no such split.

    # References
        - E. Alpaydin and C. Kaynak, [Optical Recognition of Handwritten
          Digits](https://doi.org/10.24432/C50P49), UCI Machine Learning Repository, 1998
    """
    if split not in ("train", "test"):
        raise ValueError(f"digits: split should be 'train' or 'test', found {split!r}.")
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images, labels, test_size=_HELD_OUT_DIGITS, stratify=labels, random_state=0)
    images, labels = parts[split == "test"], parts[2 + (split == "test")]
    images = (images / 16).astype(np.float32).reshape(-1, 8, 8, 1)
    return tf.image.resize(images, height_width(size)).numpy(), labels


def image_folder(
    path: str | os.PathLike[str], size: Size, channels: int = 3, preparation: Preparation | None = None
) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Reads a folder of images, or a folder with one folder of images per class.

    Each image is turned upright as its EXIF data say, resized until it just covers the size, and cropped in
    the middle.

    # Arguments
        path: The folder. BMP, GIF, JPEG, PNG, TIFF and WebP files count as images; other files and all names that
            begin with a dot are skipped.
        size: Height and width of the result, or `(height, width)`.
        channels: 3 for RGB, normalised, or 1 for grey, in [0, 1].
        preparation: Another preparation, for this size and these channels.

    # Returns
        Images of shape `(N, height, width, channels)`; labels of shape `(N,)`, which are the positions of the
        class folders in alphabetical order, or `None` if the images lie in `path` itself; and the names of
        the files relative to `path`. Sorted by name.

    # Raises
        ValueError: If there are no images, if some are in `path` and some in its folders, if an image cannot be read,
            or if `channels` is not 1 or 3.
        NotADirectoryError: If `path` is not a folder.
    """
    if channels not in MODES:
        raise ValueError(f"image_folder: channels should be 1 (grey) or 3 (RGB), found {channels}.")
    files, labels = image_files(path)
    if preparation is not None:
        images = np.concatenate([preparation([open_upright(file, MODES[channels])]) for file in files])
    else:
        images = np.stack([_read(file, height_width(size), channels) for file in files])
    names = [file.relative_to(path).as_posix() for file in files]
    return images, None if labels is None else np.array(labels), names


def image_files(path: str | os.PathLike[str]) -> tuple[list[Path], list[int] | None]:
    """The files and labels of `image_folder`, without reading an image.

    # Raises
        ValueError: If there are no images, or if some are in `path` and some in its folders.
        NotADirectoryError: If `path` is not a folder.
    """
    root = Path(path)
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is not a folder. Expected a folder of images, or of class folders.")
    flat = images_in(root)
    classes = folders_in(root)
    labelled = [(file, label) for label, folder in enumerate(classes) for file in images_in(folder)]
    if flat and labelled:
        raise ValueError(
            f"{root} holds images ({flat[0].name}, ...) and folders of images ({labelled[0][0].parent.name}, "
            "...). Expected either images without labels or one folder for each class: move one kind away."
        )
    files = flat or [file for file, _ in labelled]
    if not files:
        raise ValueError(f"{root} holds no images, nor do the folders in it. Expected {', '.join(SUFFIXES)}.")
    return files, None if flat else [label for _, label in labelled]


def sample_photographs(size: int, count: int = 16, seed: int = 0) -> np.ndarray:
    """Takes random square crops of scikit-learn's two photographs, a temple and a flower (427 x 640 pixels).

    They are real images for the statistics of an untrained network. A crop has between half and all of the height, is
    randomly mirrored, and is resized; the two photographs take turns.

    # Arguments
        size: Height and width.
        count: Number of crops.
        seed: Seed of the crops.

    # Returns
        Images of shape `(count, size, size, 3)`, normalised.
    """
    from PIL import Image, ImageOps
    from sklearn.datasets import load_sample_images

    photographs = [Image.fromarray(photograph) for photograph in load_sample_images().images]
    rng = np.random.default_rng(seed)
    crops = []
    for i in range(count):
        photograph = photographs[i % 2]
        side = int(rng.integers(photograph.height // 2, photograph.height, endpoint=True))
        left = int(rng.integers(0, photograph.width - side, endpoint=True))
        top = int(rng.integers(0, photograph.height - side, endpoint=True))
        box = (left, top, left + side, top + side)
        crop = photograph.resize((size, size), Image.Resampling.BILINEAR, box=box)
        crops.append(_to_array(ImageOps.mirror(crop) if rng.random() < 0.5 else crop))
    return np.stack(crops)


def _read(file: Path, size: tuple[int, int], channels: int) -> np.ndarray:
    from PIL import Image, ImageOps

    return _to_array(ImageOps.fit(open_upright(file, MODES[channels]), size[::-1], Image.Resampling.BILINEAR))


def _to_array(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image, np.float32) / 255
    return pixels[:, :, None] if pixels.ndim == 2 else normalised(pixels, IMAGENET_MEAN, IMAGENET_STD)
