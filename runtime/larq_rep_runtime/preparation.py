"""What the metadata of a file say of its images and classes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from larq_rep_runtime.images import Preparation, quantization
from larq_rep_runtime.interpreter import Interpreter
from larq_rep_runtime.library import DelegateError

# Images normalised with the mean and the deviation of ImageNet are about -2.1 to 2.6.
_IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
# Numbers beyond these are damage.
_LARGEST, _LEAST = 1e6, 1e-6

# For the name of a value: what is expected of it, and whether it is that.
_Rules = dict[str, tuple[str, Callable[[Any], bool]]]

_BOOLEAN = ("true or false", lambda value: isinstance(value, bool))
_RULES: _Rules = {
    "input": ("an object", lambda value: isinstance(value, dict)),
    "mirrored_input": _BOOLEAN,  # Files of larq-rep 0.1 say no more of their input.
    "classes": ("a list of names", lambda value: isinstance(value, list) and all(isinstance(n, str) for n in value)),
}
_OPTIONS = {"classes": "--labels", "mean": "--mean", "std": "--std", "resize": "--resize"}


def class_names(interpreter: Interpreter, labels: str | None = None) -> list[str] | None:
    """The names of the classes of a file; `None` if it does not know them.

    # Arguments
        interpreter: The interpreter of the file.
        labels: A text file with a name a line, in place of the names in the metadata.

    # Raises
        DelegateError: If they are not a list of names, or no output has as many numbers for an image.
        OSError: If `labels` cannot be read.
    """
    names: list[str] | None
    if labels is not None:
        names, place = _read_labels(labels), labels
    else:
        known = _checked({"classes": interpreter.metadata.get("classes")}, _RULES)
        names, place = known.get("classes") or None, "The metadata"
    shape = list(interpreter.inputs[0]["shape"]) if interpreter.inputs else []
    images = int(shape[0]) if len(shape) == 4 else 1
    shapes = [of_one(detail["shape"], images) for detail in interpreter.outputs]
    counts = [math.prod(shape) for shape in shapes]
    # A map of scores has names for its last axis.
    if names is not None and len(names) not in [*counts, *(shape[-1] for shape in shapes if shape)]:
        raise DelegateError(
            f"{place} should name {' or '.join(map(str, counts))} classes, one for each number of an output, found "
            f"{len(names)} names. Give the right ones with --labels."
        )
    return names


def _read_labels(file: str) -> list[str]:
    try:
        lines = Path(file).read_text("utf-8-sig").rstrip().split("\n")
    except UnicodeDecodeError as error:
        raise DelegateError(f"{file} is not a text in UTF-8: {error}.") from error
    return [line.strip() for line in lines] if lines != [""] else []


def of_one(shape: Sequence[int], images: int) -> tuple[int, ...]:
    """The shape of an output for one of a batch of images."""
    return tuple(int(side) for side in (shape[1:] if tuple(shape[:1]) == (images,) else shape))


def preparation(
    about: dict[str, Any],
    detail: dict[str, Any],
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    resize: float | None = None,
) -> Preparation:
    """The preparation of images for a file.

    For a file whose metadata have no `input`, pixels in 0..1 are assumed. If it takes integers, that is the usual
    preparation whose range comes closest to its input's: 0..1, -1..1, 0..255, or ImageNet's mean and deviation.

    # Arguments
        about: The metadata of the file, as `Interpreter.metadata`.
        detail: Its input, as in `Interpreter.inputs`.
        mean, std: One number for all channels or one for each, of pixels in 0..1, in place of the file's.
        resize: Shorter side before the crop, in place of the file's.

    # Raises
        DelegateError: If the input does not take images, or a value of the metadata or an argument is wrong.
    """
    shape, dtype = [int(side) for side in detail["shape"]], np.dtype(detail["dtype"])
    if len(shape) != 4 or shape[3] not in (1, 3) or dtype.kind not in "fiu":
        raise DelegateError(
            "Images need an input of numbers of the shape (N, height, width, 1 or 3), the model has "
            f"{tuple(shape)} of {dtype}."
        )
    size, channels = shape[1:3], shape[3]
    rules = _rules(size, channels)
    given: dict[str, Any] = {"mean": mean and _each(mean, channels), "std": std and _each(std, channels)}
    given = _checked({**given, "resize": resize}, rules, "--")
    stated, assumed = _checked({**about, "classes": None}, _RULES), ""
    if "input" not in stated:
        stated["input"], assumed = _assumption(detail, channels, given)
    values = _checked({**stated["input"], **given}, rules, "input.")
    if "mean" in given or "std" in given:
        values = _of_unit_range(values, given)
    if ("mean" in values) != ("std" in values):
        raise DelegateError("Only one of mean and std is known, and they go together: give --mean and --std.")
    low, high = values.get("range", (0, 1))
    return Preparation(
        size=(size[0], size[1]),
        channels=channels,
        resize=values.get("resize", min(size)),
        range=(low, high),
        mean=tuple(values["mean"]) if "mean" in values else None,
        std=tuple(values["std"]) if "std" in values else None,
        mirrored=values.get("mirrored", stated.get("mirrored_input", False)),
        assumed=assumed,
    )


def _of_unit_range(values: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The values for pixels in 0..1, as the options mean them, in place of the file's range."""
    low, high = values.get("range", (0, 1))
    if "mean" in values and "mean" not in given:
        values = {**values, "mean": [(mean - low) / (high - low) for mean in values["mean"]]}
    if "std" in values and "std" not in given:
        values = {**values, "std": [std / (high - low) for std in values["std"]]}
    return {**values, "range": (0, 1)}


def _each(values: Sequence[float], channels: int) -> list[float]:
    return list(values) * (channels if len(values) == 1 else 1)


def _rules(size: list[int], channels: int) -> _Rules:
    """The rules for `input` in the metadata of a file that takes images of this size."""
    each = f"a number for each channel ({channels})"
    as_it_is = (f"{size}, as the file's input has", lambda value: value == size)
    return {
        "size": as_it_is,
        "crop": as_it_is,
        "channels": (f"{channels}, as the file's input has", lambda value: value == channels),
        "range": ("two numbers, the smaller first", lambda value: _are_numbers(value, 2) and value[0] < value[1]),
        "mean": (each, lambda value: _are_numbers(value, channels)),
        "std": (f"{each}, all above 0", lambda value: _are_numbers(value, channels) and min(value) > _LEAST),
        "resize": (f"a number from {min(size)} on", lambda value: _are_numbers([value], 1) and value >= min(size)),
        "mirrored": _BOOLEAN,
    }


def _are_numbers(values: Any, count: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        and all(type(value) in (int, float) and abs(value) < _LARGEST for value in values)
    )


def _checked(values: dict[str, Any], rules: _Rules, place: str = "") -> dict[str, Any]:
    """The values that have rules, without nulls.

    # Raises
        DelegateError: If one breaks its rule.
    """
    found = {name: values[name] for name in rules if values.get(name) is not None}
    for name, value in found.items():
        expected, fits = rules[name]
        if fits(value):
            continue
        if place == "--":
            raise DelegateError(f"--{name} should be {expected}, found {value}.")
        text, option = json.dumps(value), f" or give {_OPTIONS[name]}" if name in _OPTIONS else ""
        raise DelegateError(
            f"The metadata of the file say {place}{name} = {text[:60]}{'...' * (len(text) > 60)}, expected {expected}. "
            f"Convert the file again{option}."
        )
    return found


def _assumption(detail: dict[str, Any], channels: int, given: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """What is assumed of a file that says nothing, and why."""
    dtype = np.dtype(detail["dtype"])
    if dtype.kind == "f" or "mean" in given or "std" in given:
        return {}, "assumed"
    (scale, zero_point), info = quantization(detail), np.iinfo(dtype)
    low, high = (info.min - zero_point) * scale, (info.max - zero_point) * scale
    ways: list[tuple[float, float, dict[str, Any]]] = [
        (a, b, {"range": [a, b]}) for a, b in ((0, 1), (-1, 1), (0, 255))
    ]
    if channels == 3:
        ways.append((-2.1, 2.6, _IMAGENET))
    nearest = min(ways, key=lambda way: abs(low - way[0]) + abs(high - way[1]))
    return nearest[2], f"assumed, from the range of its input, {low:.3g} to {high:.3g}"
