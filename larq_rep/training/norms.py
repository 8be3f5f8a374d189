"""Sets the statistics of batch normalisations."""

import numpy as np
import tensorflow as tf


def calibrate_batch_norm(model: tf.keras.Model, images: np.ndarray) -> None:
    """Sets the statistics of all batch normalisations to those of the images.

    One pass in training mode takes all images as one batch: each layer gets the mean and variance of its own
    input, while the layers before it normalise with theirs. In inference mode the model then gives the same outputs
    as in this pass, up to Keras' correction of the variance by N / (N - 1). Dropout acts as in training;
    layers that are not trainable keep their statistics. The weights stay as they are.

    # Arguments
        model: A model with one input.
        images: Float array `(N, height, width, channels)`; all intermediate results must fit into memory.

    # Raises
        ValueError: If no layer is a trainable batch normalisation.
    """
    layers = [
        layer for layer in model.submodules if isinstance(layer, tf.keras.layers.BatchNormalization) and layer.trainable
    ]
    if not layers:
        raise ValueError(
            f"calibrate_batch_norm: model '{model.name}' has no trainable BatchNormalization, so there is "
            "nothing to set."
        )
    momenta = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.momentum = 0.0  # keep nothing of the old statistics
        model(images, training=True)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
