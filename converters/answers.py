"""The answers of a classifier and of its file to the same images."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import tensorflow as tf

from larq_rep.converters import lce, metadata
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.converters.inputs import taken

_BATCH = 32


def scores(
    model: tf.keras.Model,
    content: bytes,
    images: np.ndarray,
    progress: Callable[[range], Iterable[int]] = iter,
) -> tuple[np.ndarray, np.ndarray]:
    """The outputs of a model and of its converted file.

    # Arguments
        model: A model of one input and one output, `(batch, classes)`.
        content: The .tflite file.
        images: As the model takes them; whole batches if its batch size is fixed.
        progress: Gets the index of the first image of every batch and yields it, to show progress.

    # Returns
        The scores of the model and of the file, each `(images, classes)`.
    """
    interpreter, flatbuffer, about = lce.any_interpreter(content), Flatbuffer(content), metadata.read(content)
    batch = model.input_shape[0] or 1
    step = batch if batch > 1 else _BATCH
    keras, tflite = [], []
    for start in progress(range(0, len(images), step)):
        part = images[start : start + step]
        keras.append(model.predict_on_batch(part))
        given, _ = taken([metadata.as_taken(about, part)], flatbuffer)
        for i in range(0, len(part), batch):
            (answer,) = interpreter.interpreter.predict([given[0][i : i + batch]])
            tflite.append(answer)
    return np.concatenate(keras), np.concatenate(tflite)
