r"""Training of the networks in this package with `model.fit`."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from larq_rep.quantizers import EDESign, LibraSign

_MOMENTUM = 0.9


class EDESchedule(tf.keras.callbacks.Callback):
    r"""Sharpens the error decay estimator of IR-Net at the start of each epoch.

    \\[
    t(e) = 10^{\log_{10} t_{\min} + (\log_{10} t_{\max} - \log_{10} t_{\min})\, e / E}
    \\]

    for epoch \\(e = 0 \dots E - 1\\) of the \\(E\\) that `fit` was told. It is given to all `EDESign` and
    `LibraSign` of the model. \\(t_{\min}\\) is what each was made with: 0.001 in `ResNet20`.

    # Arguments
        t_max: Where the schedule would arrive after the last epoch.

    # Raises
        ValueError: When training begins, if the model has no such quantizer.

    # References
        - [Forward and Backward Information Retention for Accurate Binary Neural
          Networks](https://arxiv.org/abs/1909.10788), equation 8
    """

    def __init__(self, t_max: float = 10.0):
        super().__init__()
        self.t_max = t_max

    def on_train_begin(self, logs=None):
        if not _ede_quantizers(self.model):
            raise ValueError(
                f"EDESchedule: model '{self.model.name}' has no EDESign or LibraSign whose t it could set. "
                "Leave it out."
            )

    def on_epoch_begin(self, epoch, logs=None):
        for quantizer in _ede_quantizers(self.model):
            start, end = np.log10(quantizer.initial_t), np.log10(self.t_max)
            quantizer.t.assign(10 ** (start + (end - start) * epoch / self.params["epochs"]))


def _ede_quantizers(model: tf.keras.Model) -> list[EDESign | LibraSign]:
    return [module for module in model.submodules if isinstance(module, (EDESign, LibraSign))]


def train(
    model: tf.keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    validation_data: tuple[np.ndarray, np.ndarray] | None = None,
    epochs: int = 20,
    batch_size: int = 32,
    learning_rate: float = 0.1,
    weight_decay: float = 1e-4,
    shift: int = 0,
    average: float | None = None,
    seed: int = 0,
    callbacks: Sequence[tf.keras.callbacks.Callback] = (),
) -> tf.keras.callbacks.History:
    r"""Trains a classifier by the recipe of IR-Net: SGD with momentum 0.9, a cosine from `learning_rate` to 0.

    The loss is the cross-entropy of the logits. Networks with IR-Net's estimator get an `EDESchedule`.

    # Arguments
        model: A network whose outputs are logits `(N, classes)`.
        images: Float array `(N, height, width, channels)`.
        labels: Class numbers `(N,)`.
        validation_data: Images and labels to evaluate after each epoch.
        epochs, batch_size: As in `fit`.
        learning_rate: Where the cosine starts.
        weight_decay: L2 penalty of all weights, as PyTorch's SGD counts it (its gradient goes through the
            momentum).
        shift: Largest random shift of a training image in either direction, in pixels; zeros move in. IR-Net
            takes 4 for the 32 x 32 pixels of CIFAR-10 (and mirrors, which digits do not bear).
        average: Momentum of a moving average of the weights over the steps, such as 0.99, which takes their place
            in the end: latent weights near 0 swing from sign to sign until the last step. The statistics of
            the batch normalisations are then those of other weights: call `calibrate_batch_norm`. By default
            the weights of the last step stay.
        seed: Seed of everything random in the training. The initial weights are older: call
            `tf.keras.utils.set_random_seed` before the network is built.
        callbacks: More callbacks of `fit`.

    # Returns
        The `History` of `fit`, with `loss`, `accuracy`, `val_loss` and `val_accuracy`.

    # References
        - [Forward and Backward Information Retention for Accurate Binary Neural
          Networks](https://arxiv.org/abs/1909.10788)
    """
    tf.keras.utils.set_random_seed(seed)
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(images))
    if shift:
        # Random numbers drawn inside of `map` would be the same in each epoch.
        seeds = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).batch(2)
        dataset = tf.data.Dataset.zip(dataset, seeds).map(
            lambda example, pair: (_shifted(example[0], shift, pair), example[1])
        )
    dataset = dataset.batch(batch_size).prefetch(1)
    steps = epochs * len(dataset)
    model.compile(
        tf.keras.optimizers.SGD(
            tf.keras.optimizers.schedules.CosineDecay(learning_rate, steps),
            momentum=_MOMENTUM,
            # Keras takes it from the weights directly; through the momentum it would add up to so much.
            weight_decay=weight_decay / (1 - _MOMENTUM),
            use_ema=average is not None,
            ema_momentum=average or 0.0,
        ),
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    schedule = [EDESchedule()] if _ede_quantizers(model) else []
    return model.fit(
        dataset,
        epochs=epochs,
        validation_data=validation_data,
        callbacks=[*schedule, *callbacks],
        verbose=0,
    )


def _shifted(image: tf.Tensor, shift: int, seed: tf.Tensor) -> tf.Tensor:
    padded = tf.pad(image, [[shift, shift], [shift, shift], [0, 0]])
    return tf.image.stateless_random_crop(padded, image.shape, seed)


def calibrate_batch_norm(model: tf.keras.Model, images: np.ndarray) -> None:
    """Sets the statistics of all batch normalisations to those of the images.

    One pass in training mode with all images as one batch: each layer gets the mean and variance of its own
    input, while the layers before it normalise with theirs. The model then answers in inference mode as it
    did in this pass, up to Keras' correction of the variance by N / (N - 1). Dropout acts as in training;
    layers that are not trainable keep their statistics. The weights stay as they are.

    # Arguments
        model: A model of one input.
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


def plot_history(histories: Mapping[str, tf.keras.callbacks.History], path: str | os.PathLike[str]) -> None:
    """Draws the loss and the accuracy of each epoch, training dashed and validation solid.

    # Arguments
        histories: What `train` returned, by name.
        path: Where to write the PNG file. It appears there complete or not at all.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for number, (name, history) in enumerate(histories.items()):
            epochs = np.arange(len(history.epoch)) + 1
            color = f"C{number % 10}"
            axes.plot(epochs, history.history[metric], ".--", color=color, label=f"{name}, training")
            if f"val_{metric}" in history.history:
                values = history.history[f"val_{metric}"]
                axes.plot(epochs, values, ".-", color=color, label=f"{name}, validation")
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylabel("cross-entropy" if metric == "loss" else metric)
        axes.grid(alpha=0.3)
        axes.legend()
    unfinished = Path(path).with_name(f"{Path(path).name}.unfinished")
    try:
        figure.savefig(unfinished, format="png", dpi=120)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
