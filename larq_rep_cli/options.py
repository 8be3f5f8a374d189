"""The options and arguments that several commands share."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)


def examples(*lines: str) -> str:
    """An epilog of examples of a command's use, one on each line."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def force_option(function: _F) -> _F:
    return click.option("--force", is_flag=True, help="Overwrite files that exist.")(function)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")


def output_option(text: str) -> Callable[[_F], _F]:
    return click.option("-o", "--output", type=PATH, required=True, help=text)


def count_option(*names: str, default: int, least: int = 1, text: str | None = None) -> Callable[[_F], _F]:
    return click.option(*names, type=click.IntRange(min=least), default=default, show_default=True, help=text)


class InputSize(click.ParamType):
    name = "size"

    def convert(self, value, param, ctx) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d+)(?:x(\d+)(?:x(\d+))?)?", value.strip().lower())
        if match is None:
            self.fail(f"{value!r} is not a size. Expected N, HxW or HxWxC: 224, 240x320 or 16x16x1.", param, ctx)
        height, width, channels = match.groups()
        return int(height), int(width or height), *([int(channels)] if channels else [])


def of_zoo(size: tuple[int, ...]) -> tuple[int, int, int]:
    """The image size of a network of the zoo: RGB, unless the number of channels is given."""
    return size[0], size[1], size[2] if len(size) > 2 else 3


class Keyword(click.ParamType):
    """KEY=VALUE, for a constructor's argument that has no option."""

    name = "key=value"

    def convert(self, value, param, ctx) -> tuple[str, Any]:
        if isinstance(value, tuple):
            return value
        key, equals, text = value.partition("=")
        if not equals or not re.fullmatch(r"((\d+|network)\.)?[A-Za-z_]\w*", key):
            self.fail(f"{value!r} is not a keyword argument. Expected KEY=VALUE, such as method=recu.", param, ctx)
        try:
            return key, ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return key, text


def set_option(function: _F) -> _F:
    """The option for constructor arguments that only some networks have."""
    text = "Another argument of the network's constructor, such as method=recu; may be repeated."
    return click.option("--set", "keywords", type=Keyword(), multiple=True, metavar="KEY=VALUE", help=text)(function)


def size_options(function: _F) -> _F:
    """The options that determine the size of a network of the zoo; `load_model` takes them."""
    size = (
        "Image size of a network of the zoo, or in place of the free sizes of a file: N, HxW or HxWxC.  "
        "[default: as published]"
    )
    options = [
        click.option("--beta", type=click.IntRange(min=1), help="Repeat factor of a network of the zoo."),
        set_option,
        click.option("--input-size", type=InputSize(), help=size),
        click.option("--num-classes", type=click.IntRange(min=1), help="Classes of a network of the zoo."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def model_options(function: _F) -> _F:
    """The options that choose a model; `load_model` takes them."""
    text = "Weights file of a network of the zoo."
    return click.option("--weights", type=PATH, help=text)(size_options(function))


class Numbers(click.ParamType):
    """A number for each channel: `R,G,B`, or one number for grey images."""

    name = "R,G,B"

    def convert(self, value, param, ctx) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(float(part) for part in value.split(","))
        except ValueError:
            numbers = ()
        if len(numbers) not in (1, 3):
            self.fail(f"{value!r} is not a number a channel. Expected R,G,B, or one for grey images.", param, ctx)
        return numbers


def preparation_options(function: _F) -> _F:
    """The options that change how images are prepared; `preparing` takes them."""
    options = [
        click.option("--mean", type=Numbers(), help="Mean that is taken from the pixels in 0..1, R,G,B or one number."),
        click.option("--std", type=Numbers(), help="Standard deviation by which they are divided then."),
        click.option("--resize", type=click.IntRange(min=1), metavar="N", help="Shorter side before the central crop."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def image_options(function: _F) -> _F:
    """The options that change how images are prepared and what classes are called; `preparing` takes them."""
    text = "A text file of the names of the classes, one a line, from class 0."
    return preparation_options(click.option("--labels", type=PATH, help=text)(function))


def calibration_options(of_file: bool = False) -> Callable[[_F], _F]:
    """The options of 8-bit integers, for a model or a file; `calibrating` takes them."""
    types = click.Choice(("float32", "int8", "uint8"))
    text = (
        "Images whose values give the ranges of the integers: a folder of images or of class folders, the training "
        "part of scikit-learn's digits, or noise."
    )
    options = [
        click.option(
            "--calibrate",
            metavar="FOLDER|digits|random",
            required=of_file,
            help=text if of_file else f"{text}  [default: the training images of a run]",
        ),
        click.option("--calibration-images", type=click.IntRange(min=1), help="How many of them.  [default: 100]"),
        click.option(
            "--calibration",
            type=click.Choice(("mse", "percentile", "minmax")),
            help="How a range is chosen: with the least squared error, without rare values, or the whole one.  "
            "[default: mse]",
        ),
        click.option("--input-type", type=types, default="float32", show_default=True, help="Type of real inputs."),
        click.option("--output-type", type=types, default="float32", show_default=True, help="Type of real outputs."),
        preparation_options,
    ]

    def decorate(function: _F) -> _F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def seed_option(function: _F) -> _F:
    text = "Seed of everything random, including the initial values of a network without --weights."
    return click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help=text)(function)


data_dir_option = click.option(
    "--data-dir",
    type=PATH,
    help="Folder of tensorflow_datasets.  [default: $TFDS_DATA_DIR or ~/tensorflow_datasets]",
)
restarts_option = click.option(
    "--restarts",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="With --strategy multiworker: how often to restart from the last checkpoint after another worker was lost, "
    "counted since the last finished epoch.",
)
wait_option = click.option(
    "--wait",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="With --strategy multiworker: how long to wait for all workers.  [default: forever]",
)
weights_option = click.option(
    "--weights",
    type=click.Choice(("best", "last")),
    default="best",
    show_default=True,
    help="Weights of the epoch with the best accuracy on the test images, or of the last epoch.",
)
