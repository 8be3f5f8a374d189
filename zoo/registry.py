"""The networks by name, and what all their constructors have in common: input, repeated features, weights."""

import difflib
import fnmatch
import os
from collections.abc import Callable
from typing import TypeVar

import tensorflow as tf

_Constructor = TypeVar("_Constructor", bound=Callable[..., tf.keras.Model])
_MODELS: dict[str, Callable[..., tf.keras.Model]] = {}


def register_model(constructor: _Constructor) -> _Constructor:
    """Decorator that lists a constructor under its own name."""
    _MODELS[constructor.__name__] = constructor
    return constructor


def list_models(pattern: str = "*") -> list[str]:
    """Names of the networks that match a shell pattern, whatever the case: `list_models("*react*")`."""
    return sorted(name for name in _MODELS if fnmatch.fnmatchcase(name.lower(), pattern.lower()))


def get_model(name: str, **kwargs) -> tf.keras.Model:
    """Builds the network of a name of `list_models()`; the other arguments go to its constructor.

    # Raises
        ValueError: If there is no such network.
    """
    if name not in _MODELS:
        by_lower = {known.lower(): known for known in _MODELS}
        close = difflib.get_close_matches(name.lower(), by_lower, n=3)
        hint = f"Did you mean {' or '.join(by_lower[c] for c in close)}?" if close else "list_models() names all."
        raise ValueError(f"There is no network named {name!r}. {hint}")
    return _MODELS[name](**kwargs)


def image_input(name: str, input_shape, input_tensor, default: tuple[int, int, int], multiple: int) -> tf.Tensor:
    """The tensor a network of the zoo starts from, shape (N, H, W, C).

    # Raises
        ValueError: If H or W is not known or no multiple of `multiple`, or if shape and tensor disagree.
    """
    if input_tensor is None:
        shape = tuple(default if input_shape is None else input_shape)
    else:
        shape = tuple(input_tensor.shape[1:])
        if input_shape is not None and tuple(input_shape) != shape:
            raise ValueError(
                f"{name}: input_shape is {tuple(input_shape)} but input_tensor has {shape}. Leave out one of them."
            )
    if len(shape) != 3 or not all(isinstance(size, int) and size > 0 for size in shape):
        raise ValueError(f"{name}: expected an input of (height, width, channels) with all sizes known, found {shape}.")
    if shape[0] % multiple or shape[1] % multiple:
        raise ValueError(
            f"{name}: height and width of the input must be multiples of {multiple}, so that shortcuts and "
            f"strided convolutions meet at the same size; found {shape[0]} x {shape[1]}."
        )
    return tf.keras.Input(shape, name="image") if input_tensor is None else input_tensor


def last_features(x: tf.Tensor, name: str, beta: int, last_layer: int) -> tf.Tensor:
    r"""Global average pooling, then the channels that the last layer of a Rep network takes.

    With \\(C\\) channels in the original network there are \\(\beta C\\) here. The solutions of RepBNN,
    section 4.3, are 1: all of them, 2: \\(C\\), 3: \\(C/\beta\\). The paper does not say which; these are the
    first ones. They are taken after the pooling and before everything with parameters.
    """
    if last_layer not in (1, 2, 3):
        raise ValueError(f"{name}: last_layer must be 1, 2 or 3 (the solutions of RepBNN), found {last_layer!r}.")
    x = tf.keras.layers.GlobalAveragePooling2D(name="pool")(x)
    kept = x.shape[-1] // beta ** (last_layer - 1)
    return x if kept == x.shape[-1] else x[:, :kept]


def finish(name: str, inputs: tf.Tensor, outputs: tf.Tensor, weights: str | os.PathLike | None) -> tf.keras.Model:
    """The model from `inputs` to `outputs`, with the weights of a file if one is given.

    # Raises
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read or does not fit the network.
    """
    model = tf.keras.Model(tf.keras.utils.get_source_inputs(inputs), outputs, name=name)
    if weights is None:
        return model
    if not os.path.isfile(weights):
        raise FileNotFoundError(
            f"{name}: there is no weights file {os.fspath(weights)!r}. Expected a file that Keras' "
            "`model.save_weights` wrote."
        )
    try:
        model.load_weights(weights)
    except (ValueError, KeyError, OSError) as error:
        raise ValueError(
            f"{name}: the weights in {os.fspath(weights)!r} do not fit the network. The file must come from "
            f"the same constructor with the same arguments (beta, num_classes, include_top, ...): {error}"
        ) from error
    return model
