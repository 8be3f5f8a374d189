"""Checks the arguments of public functions and commands."""

import difflib
from collections.abc import Iterable
from typing import Any


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Asks about up to three `known` names that are closest, ignoring case; empty if none is close."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=3)
    return f"Did you mean {' or '.join(by_lower[found] for found in close)}?" if close else ""


def require_model(function: str, value: Any) -> None:
    """Checks that a value is a Keras model.

    # Raises
        TypeError: If it is not. The message says what was found, and how to get a Keras 2 model in place of Keras 3.
    """
    import tensorflow as tf  # `did_you_mean` must not wait for it

    if isinstance(value, tf.keras.Model):
        return
    kind = type(value)
    if any(base.__module__.startswith("keras.") for base in kind.__mro__):
        raise TypeError(
            f"{function}: expected a model of Keras 2, found one of Keras 3 "
            f"({kind.__module__}.{kind.__qualname__}). Build it with tf_keras: tf.keras, after `import larq_rep`."
        )
    raise TypeError(f"{function}: expected a Keras model, found {kind.__name__}: {value!r:.80}.")
