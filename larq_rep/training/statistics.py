"""Measures how many binary weights flip their sign, and how many activations pass no gradient."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from larq.quantized_variable import QuantizedVariable

from larq_rep.quantizers.base import precision_of
from larq_rep.signs import named_layers, saturated, signs


class BinaryStatistics(tf.keras.callbacks.Callback):
    r"""Reports at the end of each epoch how many binary weights flipped and how many activations are saturated.

    For each binary kernel, with \\(q\\) its quantizer and \\(w_e\\) the latent weights after epoch \\(e\\),

    \\[ \text{flip ratio} = \operatorname{mean}\left[(q(w_e) > 0) \neq (q(w_{e-1}) > 0)\right] \\]

    so changes made by a quantizer also count: the rotations of RBNN, the centring of IR-Net, the sign of
    a learned scale. \\(w_{-1}\\) are the weights when `fit` begins; after a resume, they are those of the previous
    epoch. For each sign of activations, see `larq_rep.signs.signs`,

    \\[ \text{saturated} = \operatorname{mean}\left[\left|v\right| \geq c\right] \\]

    over a few images in inference mode. The sign is taken of \\(v\\), and \\(c\\) is the window beyond which its
    gradient is 0, or 1 where there is none: see `larq_rep.signs.shifted`. (With `LowBitSign` no window of \\(v\\) tells
    this; there it is \\(\left|x\right| \geq 1\\).) Values that a hard tanh before the sign has
    clipped count as saturated, because it lets no gradient through either.

    The callback adds the means over the layers, `flip_ratio` and `saturated`, to the logs of the epoch, for later
    callbacks and for the `History`. A mean is left out if the model has no binary weights, or no binary activations.

    Each of several workers needs this callback, because they read the statistics of the batch normalisations
    together; let one of them write.

    # Arguments
        images: A few images in the form of the model's input.
        writer: A folder for TensorBoard, or a `tf.summary.SummaryWriter`, which stays open: it gets the scalars
            `flip_ratio/LAYER` and `saturated/LAYER` with the number of the epoch, from 0, as step. By default the
            values of single layers are not kept.

    # Raises
        ValueError: When training begins, if the model is not functional, or a quantizer does not say its
            precision, or an input quantizer does not say what it takes the sign of.
    """

    def __init__(
        self, images: np.ndarray | tf.Tensor, writer: str | os.PathLike[str] | tf.summary.SummaryWriter | None = None
    ):
        super().__init__()
        self.images = tf.convert_to_tensor(images)
        self.writer = writer

    def on_train_begin(self, logs=None):
        self._kernels = {
            name if number == 0 else f"{name}:{number}": kernel
            for name, layer in named_layers(self.model)
            for number, kernel in enumerate(_binary_kernels(layer))
        }
        self._signs = self._read_signs()
        self._saturated = _saturation(self.model)
        self._summary: Any = self.writer
        if isinstance(self.writer, (str, os.PathLike)):
            self._summary = tf.summary.create_file_writer(os.fspath(self.writer))

    def _read_signs(self) -> dict[str, np.ndarray]:
        # A tensor, because a quantizer cannot take a variable of several replicas.
        return {
            name: kernel.quantizer(tf.convert_to_tensor(kernel.latent_variable)).numpy() > 0
            for name, kernel in self._kernels.items()
        }

    def on_epoch_end(self, epoch, logs=None):
        before, self._signs = self._signs, self._read_signs()
        flipped = {name: float(np.mean(now != before[name])) for name, now in self._signs.items()}
        saturated = {name: float(share) for name, share in self._saturated(self.images).items()}
        for kind, values in (("flip_ratio", flipped), ("saturated", saturated)):
            if values and logs is not None:
                logs[kind] = float(np.mean(list(values.values())))
            if self._summary is not None:
                with self._summary.as_default(epoch):
                    for name, value in values.items():
                        tf.summary.scalar(f"{kind}/{name}", value)
        if self._summary is not None:
            self._summary.flush()

    def on_train_end(self, logs=None):
        if self._summary is not None and self._summary is not self.writer:
            self._summary.close()


def _binary_kernels(layer: tf.keras.layers.Layer) -> list[QuantizedVariable]:
    kernels = [weight for weight in layer.weights if isinstance(weight, QuantizedVariable)]
    return [kernel for kernel in kernels if precision_of(kernel.quantizer) == 1]


def _saturation(model: tf.keras.Model) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """Makes a function that maps images to the share of saturated activations of each sign."""
    found = signs(model)
    if not found:
        return lambda images: {}
    extractor = tf.keras.Model(model.inputs, [sign.inputs for sign in found])

    # A graph, so activations are freed once they are counted.
    @tf.function
    def shares_of(images):
        shares = {}
        for sign, x in zip(found, tf.nest.flatten(extractor(images, training=False)), strict=True):
            shares[sign.name] = tf.reduce_mean(tf.cast(saturated(sign.quantizer, x), tf.float32))
        return shares

    return shares_of
