r"""Callbacks that change parameters of quantizers during training; the quantizers name them as their `schedule`.

Each is a function of the epoch \\(e = 0 \dots E - 1\\), with \\(E\\) the number of epochs given to `fit`.
"""

import math
from collections.abc import Sequence
from typing import ClassVar

import tensorflow as tf


def steepness(epoch: float, epochs: int, t_min: float, t_max: float = 10.0) -> float:
    r"""Steepness \\(t\\) of the estimators of IR-Net and RBNN; their gain is \\(k = \max(1/t, 1)\\).

    \\[
    t(e) = 10^{\log_{10} t_{\min} + (\log_{10} t_{\max} - \log_{10} t_{\min})\, e / E}
    \\]
    """
    return t_min * (t_max / t_min) ** (epoch / epochs)


def recu_tau(epoch: float, epochs: int, tau_min: float = 0.85, tau_max: float = 0.99) -> float:
    r"""Quantile \\(\tau\\) up to which ReCU leaves weights unchanged.

    \\[
    \tau(e) = A \exp(e / E) + B \qquad
    A = \frac{\tau_{\max} - \tau_{\min}}{\exp(1) - 1} \qquad B = \tau_{\min} - A
    \\]
    """
    return tau_min + (tau_max - tau_min) * math.expm1(epoch / epochs) / math.expm1(1)


class QuantizerSchedule(tf.keras.callbacks.Callback):
    """Sets a variable of all quantizers whose `schedule` is this class, at the start of each epoch.

    A subclass names the variable and computes its value.

    # Attributes
        attribute: Name of the variable.
        quantizers: Names of the quantizers, for messages.

    # Raises
        ValueError: When training begins, if the model has no such quantizer.
    """

    attribute: ClassVar[str]
    quantizers: ClassVar[str]

    def on_train_begin(self, logs=None):
        self._quantizers = [module for module in self.model.submodules if self._changes(module)]
        if not self._quantizers:
            raise ValueError(
                f"{type(self).__name__}: model '{self.model.name}' has no {self.quantizers} whose {self.attribute} it "
                "could set. Leave it out."
            )

    def on_epoch_begin(self, epoch, logs=None):
        for quantizer in self._quantizers:
            getattr(quantizer, self.attribute).assign(self.value(quantizer, epoch, self.params["epochs"]))

    def check(self, model: tf.keras.Model, epochs: int) -> None:
        """Raises what training the model for so many epochs would raise in its first one."""
        for quantizer in filter(self._changes, model.submodules):
            self.value(quantizer, 0, epochs)

    def _changes(self, module: tf.Module) -> bool:
        schedule = getattr(module, "schedule", None)
        return isinstance(schedule, type) and isinstance(self, schedule)

    def value(self, quantizer, epoch: int, epochs: int) -> float:
        """The value for a quantizer in epoch `epoch` (the first is 0) of `epochs`."""
        raise NotImplementedError

    def _layer_of(self, quantizer) -> tf.keras.layers.Layer:
        """The layer whose kernel a quantizer needs to know."""
        layers = [layer for layer in self.model.submodules if getattr(layer, "kernel_quantizer", None) is quantizer]
        if len(layers) != 1:
            kind = type(quantizer).__name__
            raise ValueError(
                f"{type(self).__name__}: {kind} '{quantizer.name}' of model '{self.model.name}' has to be the "
                f"kernel_quantizer of one layer, to whose kernel it belongs, but it belongs to "
                f"{sorted(layer.name for layer in layers) or 'none'}. Give each convolution its own {kind}()."
            )
        return layers[0]


# The part of the weights that is frozen in each round of INQ, by the number of bits.
INQ_FRACTIONS = {
    2: (0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.975, 1.0),
    3: (0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0),
    4: (0.3, 0.5, 0.8, 0.9, 0.95, 1.0),
    5: (0.5, 0.75, 0.875, 1.0),
}


class INQSchedule(QuantizerSchedule):
    r"""Freezes the weights of INQ in rounds, which share the epochs.

    At the start of each epoch it calls `freeze` of each `PowerOfTwo` with the latent kernel of its layer and the
    fraction of round \\(\left\lfloor e R / E \right\rfloor\\) of \\(R\\). In the last round all weights are frozen and
    the other parameters of the network are trained on.

    # Arguments
        fractions: The part that is frozen in each round, by default that of the paper for the quantizer's bits.

    # Raises
        ValueError: When training begins, if the model has no such quantizer, a `PowerOfTwo` is not the
            `kernel_quantizer` of exactly one layer, or there are fewer epochs than rounds.

    # References
        - [Incremental Network Quantization: Towards Lossless CNNs with Low-Precision
            Weights](https://arxiv.org/abs/1702.03044), section 3
    """

    attribute = "codes"
    quantizers = "PowerOfTwo"

    def __init__(self, fractions: Sequence[float] | None = None):
        super().__init__()
        self.fractions = fractions

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._layers = [self._layer_of(quantizer) for quantizer in self._quantizers]

    def on_epoch_begin(self, epoch, logs=None):
        for quantizer, layer in zip(self._quantizers, self._layers, strict=True):
            quantizer.freeze(layer.kernel, self.value(quantizer, epoch, self.params["epochs"]))

    def value(self, quantizer, epoch, epochs):
        fractions = self.fractions or INQ_FRACTIONS[quantizer.precision]
        if epochs < len(fractions):
            raise ValueError(
                f"INQSchedule: {epochs} epochs are too few for the {len(fractions)} rounds in which PowerOfTwo "
                f"'{quantizer.name}' freezes its weights. Train for more, or give it other fractions."
            )
        return fractions[epoch * len(fractions) // epochs]


class EDESchedule(QuantizerSchedule):
    r"""Sharpens the error decay estimator of IR-Net at the start of each epoch.

    Sets `t` of all `EDESign` and `LibraSign` of the model to `steepness(epoch, epochs, t_min, t_max)`.
    \\(t_{\min}\\) is each quantizer's initial `t`: 0.001 in `ResNet20`, 0.1 in `VGGSmall`.

    # Arguments
        t_max: The value that the schedule would reach after the last epoch.

    # Raises
        ValueError: When training begins, if the model has no such quantizer.

    # References
        - [Forward and Backward Information Retention for Accurate Binary Neural
            Networks](https://arxiv.org/abs/1909.10788), equation 8
    """

    attribute = "t"
    quantizers = "EDESign or LibraSign"

    def __init__(self, t_max: float = 10.0):
        super().__init__()
        self.t_max = t_max

    def value(self, quantizer, epoch, epochs):
        return steepness(epoch, epochs, quantizer.initial_t, self.t_max)


class ReCUSchedule(QuantizerSchedule):
    r"""Lets ReCU leave more weights unchanged with each epoch.

    Sets `tau` of all `ReCUSign` of the model to `recu_tau(epoch, epochs, tau_min, tau_max)`.

    # Arguments
        tau_min: \\(\tau\\) of the first epoch.
        tau_max: The value that the schedule would reach after the last epoch.

    # Raises
        ValueError: When training begins, if the model has no `ReCUSign`.

    # References
        - [ReCU: Reviving the Dead Weights in Binary Neural Networks](https://arxiv.org/abs/2103.12369), equation 14
    """

    attribute = "tau"
    quantizers = "ReCUSign"

    def __init__(self, tau_min: float = 0.85, tau_max: float = 0.99):
        super().__init__()
        self.tau_min = tau_min
        self.tau_max = tau_max

    def value(self, quantizer, epoch, epochs):
        return recu_tau(epoch, epochs, self.tau_min, self.tau_max)


class RBNNSchedule(QuantizerSchedule):
    r"""Sharpens RBNN's approximation of the sign and turns its rotations, at the start of each epoch.

    Sets `t` of all `StandardizedSign` and `RotatedSign` of the model to `steepness(epoch, epochs, t_min, t_max)`.
    Then it calls `update_rotations` of each `RotatedSign` with the latent kernel of its layer. The authors do that
    in the epoch's first batch before they use the rotations, which is equivalent.

    # Arguments
        t_min: \\(t\\) of the first epoch.
        t_max: The value that the schedule would reach after the last epoch.

    # Raises
        ValueError: When training begins, if the model has no such quantizer, or a `RotatedSign` is not the
            `kernel_quantizer` of exactly one layer.

    # References
        - [Rotated Binary Neural Network](https://arxiv.org/abs/2009.13055), sections 3.3 and 3.4, and its code
    """

    attribute = "t"
    quantizers = "StandardizedSign or RotatedSign"

    def __init__(self, t_min: float = 1e-2, t_max: float = 10.0):
        super().__init__()
        self.t_min = t_min
        self.t_max = t_max

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._rotated = []
        for quantizer in self._quantizers:
            if hasattr(quantizer, "update_rotations"):
                self._rotated.append((quantizer, self._layer_of(quantizer)))

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        for quantizer, layer in self._rotated:
            quantizer.update_rotations(layer.kernel)

    def value(self, quantizer, epoch, epochs):
        return steepness(epoch, epochs, self.t_min, self.t_max)
