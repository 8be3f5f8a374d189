"""Checks of what the public functions are given."""

from typing import Any

import tensorflow as tf


def require_model(function: str, value: Any) -> None:
    """Refuses what is no Keras model.

    # Raises
        TypeError: With what was found, and where a model of Keras 3 comes from.
    """
    if isinstance(value, tf.keras.Model):
        return
    kind = type(value)
    if any(base.__module__.startswith("keras.") for base in kind.__mro__):
        raise TypeError(
            f"{function}: expected a model of Keras 2, found one of Keras 3 "
            f"({kind.__module__}.{kind.__qualname__}). Build it with tf_keras: tf.keras, after `import larq_rep`."
        )
    raise TypeError(f"{function}: expected a Keras model, found {kind.__name__}: {value!r:.80}.")
