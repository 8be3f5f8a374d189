"""Checks of what the public functions and commands are given."""

import difflib
from collections.abc import Iterable
from typing import Any


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question with up to three of the `known` names that come closest, whatever their case; empty if none does."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=3)
    return f"Did you mean {' or '.join(by_lower[found] for found in close)}?" if close else ""


def require_model(function: str, value: Any) -> None:
    """Refuses what is no Keras model.

    # Raises
        TypeError: With what was found, and where a model of Keras 3 comes from.
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
