"""Reads a folder that holds one folder of images for each class."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from larq_rep_cli import terminal
from larq_rep_cli.errors import InputError


def folders_in(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def labelled(
    folder: Path, source: str, classes: int, names: Sequence[str] | None, certain: bool = True
) -> tuple[list[Path], list[int]]:
    """Image files and their classes.

    # Arguments
        folder: The folder of folders.
        source: The name of the evaluated model, for messages.
        classes: The number of its classes.
        names: The names of its classes, if they have names.
        certain: Whether it was trained on these names.

    # Raises
        InputError: If the folders do not match the classes.
    """
    from larq_rep.images import images_in

    if not folder.is_dir():
        raise InputError(f"--images: {folder} is not a folder. Expected a folder that holds one folder for each class.")
    folders = folders_in(folder)
    found = {child: images_in(child) for child in folders}
    numbered = all(child.name.isdecimal() for child in folders)
    if numbered and not (names and certain) and len({int(child.name) for child in folders}) < len(folders):
        raise InputError(f"--images: {folder} has two folders with the same number. Expected one for each class.")
    if not any(found.values()):
        raise InputError(f"--images: {folder} has no folders with images. Expected one for each class.")
    used = [child for child in folders if found[child]]
    number = _named(folder, used, source, names, certain) or _numbers(folder, folders, source, classes)
    labelled = [(file, number[child]) for child in used for file in found[child]]
    files, labels = zip(*labelled, strict=True)
    return list(files), list(labels)


def numbers(
    folder: Path, source: str, classes: int, names: Sequence[str] | None, certain: bool = True
) -> dict[str, int]:
    """The class of each folder by its name, as `labelled`, but there may be fewer folders than classes."""
    from larq_rep.images import images_in

    folders = folders_in(folder)
    number = _named(folder, [child for child in folders if images_in(child)], source, names, certain)
    if number is None and _are_numbers(folders, classes):
        number = {child: int(child.name) for child in folders}
    return (
        {child.name: place for place, child in enumerate(folders)}
        if number is None
        else {child.name: place for child, place in number.items()}
    )


def _are_numbers(folders: list[Path], classes: int) -> bool:
    """Whether the names of the folders are numbers of classes."""
    names = [child.name for child in folders]
    return all(name.isdecimal() for name in names) and max(map(int, names)) < classes


def _named(
    folder: Path, folders: list[Path], source: str, names: Sequence[str] | None, certain: bool
) -> dict[Path, int] | None:
    """The class of each folder by its name; `None` if the folders do not have the names of the classes."""
    if not names:
        return None
    strange = [child.name for child in folders if child.name not in names]
    # Numbers of classes, or ImageNet's own names of its classes.
    coded = all(re.fullmatch(r"\d+|n\d{8}", child.name) for child in folders)
    if strange and coded and not any(name.isdecimal() for name in names):
        return None
    if strange and not certain:
        terminal.note(f"{folder} has the folder {strange[0]!r}, which is none of {_some(names)}: names do not count.")
        return None
    if strange:
        raise InputError(
            f"--images: {folder} has the folder {strange[0]!r} ({len(strange)} such), but {source} was trained on the "
            f"classes {_some(names)}."
        )
    names = list(names)
    if twice := [child.name for child in folders if names.count(child.name) > 1]:
        raise InputError(
            f"--images: {source} has several classes {twice[0]!r}. Number the folders of {folder} instead."
        )
    return {child: names.index(child.name) for child in folders}


def _numbers(folder: Path, folders: list[Path], source: str, classes: int) -> dict[Path, int]:
    """The class of each folder: its name if all names are class numbers, otherwise its place."""
    if _are_numbers(folders, classes):
        return {child: int(child.name) for child in folders}
    numbered = all(child.name.isdecimal() for child in folders)
    if len(folders) != classes:
        count = max(int(child.name) for child in folders) + 1 if numbered else len(folders)
        raise InputError(
            f"{folder} has {count} classes, but {source} knows {classes}. Expected a folder for each class, or folders "
            "whose names are class numbers, from 0."
        )
    if numbered:
        terminal.note(
            f"The folders of {folder} are not class numbers from 0, so they are taken in alphabetical order: "
            f"{_some([child.name for child in folders])}."
        )
    return {child: place for place, child in enumerate(folders)}


def _some(names: Sequence[str]) -> str:
    return ", ".join([*names[:8], *["..."] * (len(names) > 8)])
