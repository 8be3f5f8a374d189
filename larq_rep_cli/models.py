"""Loads models by the name of a network or a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from larq_rep_cli import runs, terminal
from larq_rep_cli.errors import InputError, refusing
from larq_rep_cli.light import did_you_mean

if TYPE_CHECKING:
    import tensorflow as tf


def load_model(
    source: str,
    *,
    weights: Path | None = None,
    beta: int | None = None,
    keywords: tuple[tuple[str, Any], ...] = (),
    input_size: tuple[int, int, int] | None = None,
    num_classes: int | None = None,
    seed: int = 0,
) -> tf.keras.Model:
    """The model of a Keras file, of a SavedModel folder, of a run of `lqr train` or of a name of the zoo.

    A name of the zoo means that network even if a file has the same name: write `./name` for the file. Without
    weights it has its initial values, which `seed` determines, so that two processes have the same ones.

    # Raises
        InputError: If there is no such model, if it cannot be read, or if the options do not fit it.
    """
    terminal.quiet_tensorflow()
    from larq_rep import zoo

    options = {"beta": beta, "input_shape": input_size, "num_classes": num_classes, **dict(keywords)}
    if source not in zoo.list_models():
        model = _load_file(source, zoo.list_models())
        if any(value is not None for value in (weights, *options.values())):
            raise InputError(
                f"{source} is a file and comes with its weights and sizes: leave out --weights, --beta, --set, "
                "--input-size and --num-classes, which are for networks of the zoo."
            )
        return model

    import tensorflow as tf

    known = zoo.get_network(source).parameters
    options = {name: value for name, value in options.items() if value is not None or name in dict(keywords)}
    for name in options:
        if name not in known:
            raise InputError(f"{source} has no argument {name!r}. It has: {', '.join(known)}.")
    tf.keras.utils.set_random_seed(seed)
    with refusing(ValueError, FileNotFoundError, ImportError):
        return zoo.get_model(source, weights=weights, **options)


def _load_file(source: str, names: list[str]) -> tf.keras.Model:
    from larq_rep.converters import loading

    path = Path(source)
    if runs.is_run(path):
        return runs.load(path)
    if not path.exists():
        if os.sep in source or path.suffix:
            raise InputError(f"There is no file or folder {source}.")
        hint = did_you_mean(source, names) or "`lce zoo list` names all networks."
        raise InputError(f"There is neither a network nor a file named {source!r}. {hint}")
    with refusing(loading.LoadingError):
        return loading.load(path)


def load(source: str, seed: int, options: dict[str, Any]) -> tf.keras.Model:
    """Like `load_model`; prints a note if the model is untrained."""
    model = load_model(source, seed=seed, **options)
    from larq_rep.zoo import list_models

    if source in list_models() and options.get("weights") is None:
        terminal.note(f"{source} without --weights is untrained: it has the initial values of seed {seed}.")
    return model
