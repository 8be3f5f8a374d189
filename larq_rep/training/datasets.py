"""Loads the data sets of `larq_rep.datasets` by name, and folders of images."""

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from larq_rep.checks import did_you_mean
from larq_rep.data import digits
from larq_rep.datasets import Dataset, find, names
from larq_rep.images import MODES, check_image, folders_in, images_in, open_upright
from larq_rep.training.augmentation import Augmentation
from larq_rep.training.folder import RunError
from larq_rep.training.monitor import PipelineMonitor
from larq_rep.training.pipeline import Source, batches, in_memory, steps_per_epoch
from larq_rep.training.prepared import load_prepared

__all__ = ["Augmentation", "PipelineMonitor", "Source", "batches", "check_files", "load", "steps_per_epoch"]

_MANY_FILES = 20_000
_NAMED_FILES = 10


def load(name: str, data_dir: str | os.PathLike[str] | None = None, channels: int = 3) -> Source:
    """Loads a data set by name, or a folder of images. Nothing is ever downloaded.

    # Arguments
        name: A name of `larq_rep.datasets`, such as `"cifar10"` or `"imagenet2012"`, prepared by
            `tensorflow_datasets`, or `"digits"`, see `larq_rep.data.digits`; or the path of a folder that holds the
            folders `train` and `test` (or `val`), each with one folder of images for each class.
        data_dir: The folder of `tensorflow_datasets`. By default `$TFDS_DATA_DIR` or `~/tensorflow_datasets`.
        channels: 3 or 1, whether the images of a folder are read as RGB or grey.

    # Returns
        A `Source`. Small images are kept in memory; the files of ImageNet and of folders are opened when needed.

    # Raises
        FileNotFoundError: If the data set was not prepared, or one of its files is missing; it says how to prepare it.
            Also if a folder of images contains a broken link.
        ValueError: If there is no such data set or folder, the folder is not arranged like this, or a prepared
            data set is damaged.
        ImportError: If `tensorflow_datasets` is needed and not installed.
    """
    if record := find(name):
        return load_prepared(name, record, data_dir) if record.builder else _digits(record)
    if Path(name).is_dir():
        return _folder(Path(name), channels)
    hint = f" {did_you_mean(name, names())}".rstrip()
    raise ValueError(
        f"There is no data set and no folder {name!r}.{hint} Expected {', '.join(names())} or the path of a folder "
        "with the folders train and test."
    )


def check_files(source: Source, report: Callable[[str], None] = print) -> None:
    """Checks each image of a folder before training, which would stop at an unreadable one.

    See `larq_rep.images.check_image` for the damage that is found without decoding.

    # Raises
        RunError: If some cannot be read; it names the first of them.
    """
    if len(source.files) > _MANY_FILES:
        report(f"Looking at {len(source.files)} images before the training begins.")

    def why(file: str) -> str | None:
        try:
            check_image(file)
        except ValueError as error:
            return str(error)
        return None

    with ThreadPoolExecutor() as pool:
        damaged = [text for text in pool.map(why, source.files) if text]
    if damaged:
        more = [f"{len(damaged) - _NAMED_FILES} more cannot be read either."] if len(damaged) > _NAMED_FILES else []
        raise RunError("\n".join([*damaged[:_NAMED_FILES], *more]))


def _digits(record: Dataset) -> Source:
    splits = {}
    for split in ("train", "test"):
        images, labels = digits(split)
        splits[split] = np.round(255 * images).astype(np.uint8), labels.astype(np.int64)
    known: dict[str, Any] = dict(name=record.name, num_classes=record.num_classes, mirrors=record.mirrors)
    return in_memory(splits, decode=tf.identity, channels=record.input_shape[2], **known)


def _folder(root: Path, channels: int) -> Source:
    folders_in(root)  # raises on broken links
    folders = {"train": root / "train", "test": root / "test"}
    if not folders["test"].is_dir():
        folders["test"] = root / "val"
    for split, folder in folders.items():
        if not folder.is_dir():
            wanted = f"{root / 'test'} or {folder}" if split == "test" else folder
            raise ValueError(
                f"{root} has no {split} images: {wanted} is not there. Expected the folders train and test (or val), "
                "each with one folder of images for each class."
            )
    classes = {split: _classes(folder) for split, folder in folders.items()}
    unknown = sorted(set(classes["test"]) - set(classes["train"]))
    if unknown:
        raise ValueError(
            f"{folders['test']} has the class {unknown[0]!r} ({len(unknown)} such), of which {folders['train']} has no "
            f"images. Expected the classes of {folders['train']}: {', '.join(sorted(classes['train']))}."
        )
    files, labels = {}, {}
    for split in folders:
        listed = [
            (os.fspath(file), label)
            for label, name in enumerate(sorted(classes["train"]))
            for file in classes[split].get(name, [])
        ]
        files[split] = np.array([file for file, _ in listed])
        labels[split] = np.array([label for _, label in listed], np.int64)
    return in_memory(
        {split: (files[split], labels[split]) for split in folders},
        name=os.fspath(root),
        num_classes=len(classes["train"]),
        channels=channels,
        mirrors=True,
        decode=functools.partial(_picture, channels=channels),
        files=tuple(file for split in folders for file in files[split].tolist()),
    )


def _classes(folder: Path) -> dict[str, list[Path]]:
    classes = {child.name: images for child in folders_in(folder) if (images := images_in(child))}
    if not classes:
        raise ValueError(f"{folder} holds no images. Expected one folder of images for each class.")
    return classes


def _picture(file: tf.Tensor, channels: int) -> tf.Tensor:
    read = functools.partial(_read, mode=MODES[channels])
    image = tf.numpy_function(read, [file], tf.uint8, stateful=False)
    return tf.ensure_shape(image, (None, None, channels))


def _read(file: bytes, mode: str) -> np.ndarray:
    """Reads with PIL, as `larq_rep.data.image_folder` does: all its formats, and upright."""
    return np.atleast_3d(np.asarray(open_upright(os.fsdecode(file), mode)))
