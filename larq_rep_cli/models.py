"""Loads models by the name of a network or a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from larq_rep_cli import terminal
from larq_rep_cli.errors import InputError, refusing
from larq_rep_cli.options import of_zoo

if TYPE_CHECKING:
    import tensorflow as tf


def load_model(
    source: str,
    *,
    weights: Path | None = None,
    beta: int | None = None,
    keywords: tuple[tuple[str, Any], ...] = (),
    input_size: tuple[int, ...] | None = None,
    num_classes: int | None = None,
    seed: int = 0,
) -> tf.keras.Model:
    """The model of a Keras file, of a SavedModel folder, of a run of `lqr train` or of a name of the zoo.

    A name of the zoo means that network even if a file has the same name: write `./name` for the file. Without
    weights it has its initial values, which `seed` determines, so that two processes have the same ones.

    `input_size` (height, width and perhaps channels) is that of a network of the zoo, or takes the place of the free
    sizes of another model.

    # Raises
        InputError: If there is no such model, if it cannot be read, or if the options do not fit it.
    """
    terminal.quiet_tensorflow()
    from larq_rep import zoo

    options = {"beta": beta, "num_classes": num_classes, **dict(keywords)}
    if source not in zoo.list_models():
        model = _load_file(source)
        if any(value is not None for value in (weights, *options.values())):
            raise InputError(
                f"{source} is a file and comes with its weights and sizes: leave out --weights, --beta, --set and "
                "--num-classes, which are for networks of the zoo."
            )
        return model if input_size is None else _sized(source, model, input_size)

    import tensorflow as tf

    known = zoo.get_network(source).parameters
    options = {name: value for name, value in options.items() if value is not None or name in dict(keywords)}
    if input_size is not None:
        options["input_shape"] = of_zoo(input_size)
    for name in options:
        if name not in known:
            raise InputError(f"{source} has no argument {name!r}. It has: {', '.join(known)}.")
    tf.keras.utils.set_random_seed(seed)
    with refusing(ValueError, FileNotFoundError, ImportError):
        return zoo.get_model(source, weights=weights, **options)


def _load_file(source: str) -> tf.keras.Model:
    from larq_rep.converters import loading

    with refusing(loading.LoadingError):
        return loading.load(source)


def _sized(source: str, model: tf.keras.Model, size: tuple[int, ...]) -> tf.keras.Model:
    """The model with an input of images of this size, where its own is free."""
    import numpy as np

    from larq_rep.converters import loading

    shapes = [tuple(x.shape) for x in model.inputs or []] or [(None, None, None, None)]
    if len(shapes) != 1 or len(shapes[0]) != 4:
        raise InputError(
            f"--input-size is for one input of images, but {source} takes {' and '.join(map(str, shapes))}. In Python "
            "larq_rep.converters.convert(model, example=...) chooses the free sizes of any inputs."
        )
    example = np.zeros((1, *size, shapes[0][3] or 3)[:4], np.float32)
    with refusing(loading.LoadingError, prefix="--input-size: "):
        return loading.load(model, example)


def load(source: str, seed: int, options: dict[str, Any]) -> tf.keras.Model:
    """Like `load_model`; prints a note if the model is untrained."""
    model = load_model(source, seed=seed, **options)
    from larq_rep.zoo import list_models

    if source in list_models() and options.get("weights") is None:
        terminal.note(f"{source} without --weights is untrained: it has the initial values of seed {seed}.")
    return model
