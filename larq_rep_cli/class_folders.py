"""Reads a folder that holds one folder of images for each class, for `lce evaluate`."""

from __future__ import annotations

from pathlib import Path

from larq_rep_cli import terminal
from larq_rep_cli.errors import InputError


def folders_in(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def labelled(folder: Path, source: str, classes: int, names: list[str] | None) -> tuple[list[Path], list[int]]:
    """Image files and their classes.

    # Arguments
        folder: The folder of folders.
        source: The name of the evaluated model, for messages.
        classes: The number of its classes.
        names: The names of its classes, if they have names.

    # Raises
        InputError: If the folders do not match the classes.
    """
    from larq_rep.images import images_in

    if not folder.is_dir():
        raise InputError(f"--images: {folder} is not a folder. Expected a folder that holds one folder for each class.")
    folders = folders_in(folder)
    found = {child: images_in(child) for child in folders}
    numbered = all(child.name.isdecimal() for child in folders)
    if numbered and not names and len({int(child.name) for child in folders}) < len(folders):
        raise InputError(f"--images: {folder} has two folders with the same number. Expected one for each class.")
    if not any(found.values()):
        raise InputError(f"--images: {folder} has no folders with images. Expected one for each class.")
    if names:
        strange = [child.name for child in folders if child.name not in names and found[child]]
        if strange:
            raise InputError(
                f"--images: {folder} has the folder {strange[0]!r} ({len(strange)} such), but {source} was trained on "
                f"the classes {_some(names)}."
            )
        number = {child: names.index(child.name) for child in folders if child.name in names}
    else:
        number = _numbers(folder, folders, source, classes)
    labelled = [(file, number[child]) for child in folders for file in found[child]]
    files, labels = zip(*labelled, strict=True)
    return list(files), list(labels)


def _numbers(folder: Path, folders: list[Path], source: str, classes: int) -> dict[Path, int]:
    """The class of each folder: its name if all names are class numbers, otherwise its place."""
    numbered = all(child.name.isdecimal() for child in folders)
    if numbered and max(int(child.name) for child in folders) < classes:
        return {child: int(child.name) for child in folders}
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


def _some(names: list[str]) -> str:
    return ", ".join([*names[:8], *["..."] * (len(names) > 8)])
