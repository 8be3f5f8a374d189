"""The accuracy of a classifier on a folder that holds one folder of images for each class."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from larq_rep_runtime.images import Preparation, as_input
from larq_rep_runtime.interpreter import Interpreter
from larq_rep_runtime.library import DelegateError
from larq_rep_runtime.preparation import of_one

_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_BAR = 30  # Characters.


def note(message: str) -> None:
    """Prints a line on standard error, if that is open."""
    if sys.stderr is not None:  # `print` would take standard output in its place.
        print(message, file=sys.stderr)


def labelled(folder: Path, outputs: int, names: list[str] | None) -> list[tuple[Path, int]]:
    """The image files of a folder of class folders, each with its class.

    The folders are named as the classes, or with the numbers of classes, or are as many as the classes and in
    alphabetical order. Hidden files and folders do not count.

    # Arguments
        folder: The folder of folders.
        outputs: Number of classes.
        names: Their names, if they have names.

    # Raises
        DelegateError: If the folders do not match the classes, or anything in them is a broken link.
    """
    if not folder.is_dir():
        raise DelegateError(f"{folder} is not a folder. Expected one that holds a folder of images for each class.")
    found = {child: _images(child) for child in _shown(folder) if child.is_dir()}
    if not any(found.values()):
        raise DelegateError(f"{folder} has no folders with images. Expected one for each class.")
    classes = _named(folder, found, names) if names else None
    if classes is None:
        classes = _numbered(folder, list(found), outputs, say=names is not None)
    return [(file, classes[child]) for child, files in found.items() for file in files]


def _shown(folder: Path) -> list[Path]:
    """What is in a folder, sorted by name, without hidden files."""
    children = sorted(child for child in folder.iterdir() if not child.name.startswith("."))
    for child in children:
        if child.is_symlink() and not child.exists():
            raise DelegateError(f"{child} is a link to {os.readlink(child)}, which is not there. Mend or remove it.")
    return children


def _images(folder: Path) -> list[Path]:
    return [file for file in _shown(folder) if file.suffix.lower() in _SUFFIXES and file.is_file()]


def _named(folder: Path, found: dict[Path, list[Path]], names: list[str]) -> dict[Path, int] | None:
    """The class of each folder by its name; `None` if no folder has the name of a class."""
    strange = [child.name for child in found if found[child] and child.name not in names]
    known = {child: names.index(child.name) for child in found if child.name in names}
    if not known:
        return None
    if strange:
        raise DelegateError(
            f"{folder} has the folder {strange[0]!r} ({len(strange)} such), which is not the name of a class. "
            f"Expected {_some(names)}."
        )
    twice = [child.name for child in known if names.count(child.name) > 1]
    if twice:
        raise DelegateError(
            f"Several classes are called {twice[0]!r}: name the folders of {folder} with their numbers."
        )
    return known


def _numbered(folder: Path, folders: list[Path], outputs: int, say: bool) -> dict[Path, int]:
    """The class of each folder: its name if all names are numbers of classes, otherwise its place.

    `say`: Print a line if it is its place.
    """
    numbers = [int(child.name) for child in folders if child.name.isdecimal()]
    if len(numbers) == len(folders):
        if len(set(numbers)) < len(numbers):
            raise DelegateError(f"{folder} has two folders with the same number. Expected one for each class.")
        if max(numbers) < outputs:
            return dict(zip(folders, numbers, strict=True))
    if len(folders) != outputs:
        raise DelegateError(
            f"{folder} has {len(folders)} folders, the file knows {outputs} classes. Expected a folder for each class, "
            "or folders whose names are those of classes or their numbers, from 0."
        )
    if say or len(numbers) == len(folders):
        order = _some([child.name for child in folders])
        note(f"The folders of {folder} are taken as the classes in alphabetical order: {order}.")
    return {child: place for place, child in enumerate(folders)}


def _some(names: list[str]) -> str:
    return ", ".join([*names[:8], *["..."] * (len(names) > 8)])


def accuracy(
    interpreter: Interpreter, prepare: Preparation, folder: Path, names: list[str] | None, limit: int | None = None
) -> dict[str, Any]:
    """The shares of images whose class has the largest score, and one of the five largest.

    Of equal scores the first class has the larger one.

    # Arguments
        interpreter: The interpreter of the file.
        prepare: The preparation of its images.
        folder, names: As `labelled` takes them.
        limit: At most this many images, evenly from all classes.

    # Returns
        The number of `images`, `top1` and `top5` from 0 to 1, and the number of `classes`.

    # Raises
        DelegateError: If the file is no classifier, the folders do not match its classes, or an image cannot be read.
    """
    detail = interpreter.inputs[0]
    batch, shapes = int(detail["shape"][0]), [tuple(int(side) for side in y["shape"]) for y in interpreter.outputs]
    classes = max(of_one(shapes[0], batch), default=1) if len(shapes) == 1 else 1
    if classes < 2 or math.prod(shapes[0]) != batch * classes:
        raise DelegateError(
            f"A classifier has one output with a number for each of two or more classes. The outputs of this file for "
            f"{batch} image{'s' * (batch > 1)} have the shapes {' and '.join(map(str, shapes))}."
        )
    images = labelled(folder, classes, names)
    if limit is not None and limit < len(images):
        images = [images[i * len(images) // limit] for i in range(limit)]
    right = among5 = 0
    for start in _tracked(len(images), batch):
        part = images[start : start + batch]
        x = np.stack([prepare(str(file)) for file, _ in part])
        # The last image is repeated to fill the batch.
        x = x.take(np.minimum(np.arange(batch), len(part) - 1), axis=0)
        scores = interpreter.invoke([as_input(x, detail)])[0].reshape(batch, -1)[: len(part)]
        best = np.argsort(-scores.astype(np.float64), axis=1, kind="stable")[:, :5]
        matches = best == np.array([[label] for _, label in part])
        right, among5 = right + int(matches[:, 0].sum()), among5 + int(matches.sum())
    return {"images": len(images), "top1": right / len(images), "top5": among5 / len(images), "classes": classes}


def _tracked(count: int, step: int) -> Iterator[int]:
    """Counts from 0 to `count` and shows a bar on standard error, if that is a terminal."""
    shown = sys.stderr is not None and sys.stderr.isatty()
    try:
        for done in range(0, count, step):
            if shown:
                print(f"\r[{'#' * (_BAR * done // count):<{_BAR}}] {done}/{count}", end="", file=sys.stderr, flush=True)
            yield done
    finally:
        if shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
