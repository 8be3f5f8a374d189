r"""What changes from epoch to epoch: the learning rate, the weight decay, and numbers inside of quantizers.

All of it is a function of the epoch \\(e = 0 \dots E - 1\\) of the \\(E\\) that `fit` was told, so a training that
continues with `initial_epoch` goes on as if it had not been interrupted.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import tensorflow as tf

from larq_rep._keras import TensorCallback
from larq_rep.quantizers import EDESign, LibraSign, ReCUSign, RotatedSign, StandardizedSign


class Schedule:
    """A learning rate as a function of the epoch; the others are dataclasses of this kind.

    # Attributes
        per_step: Whether it changes within an epoch. `epoch` is then a fraction.
    """

    per_step: ClassVar[bool] = False

    def __call__(self, learning_rate: float, epoch: float, epochs: int) -> float:
        """The learning rate of epoch `epoch` (the first is 0) of `epochs`, in a training of rate `learning_rate`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Linear(Schedule):
    r"""Falls on a line.

    \\[ \eta(e) = \eta_0 \left(1 - \frac{e + 1}{E}\right) \\]

    The code of ReActNet, AdamBNN, Bi-Real-Net and PresB-Net takes the step before the epoch, so the first epoch
    has already less than \\(\eta_0\\) and the last one has 0: there only the statistics of the batch
    normalisations change.

    # Arguments
        ahead: `False` for \\(\eta_0 (1 - e / E)\\), as in the first phase of FracBNN.

    # References
        - [ReActNet: Towards Precise Binary Neural Network with Generalized Activation
            Functions](https://arxiv.org/abs/2003.03488), its code
        - [FracBNN: Accurate and FPGA-Efficient Binary Neural Networks with Fractional
            Activations](https://arxiv.org/abs/2012.12206), its code
    """

    ahead: bool = True

    def __call__(self, learning_rate: float, epoch: float, epochs: int) -> float:
        return learning_rate * (1 - (epoch + self.ahead) / epochs)


@dataclass(frozen=True)
class Cosine(Schedule):
    r"""Falls along half a cosine, after a linear warm-up of \\(W\\) epochs.

    \\[
    \eta(e) = \begin{cases}
      \eta_0\, (e + 1) / W & e < W \\\
      \frac{\eta_0}{2} \left(1 + \cos \frac{\pi (e - o)}{E + l}\right) & e \geq W
    \end{cases}
    \\]

    | as in the code of | warmup \\(W\\) | offset \\(o\\) | length \\(l\\) |
    |---|---|---|---|
    | IR-Net; RBNN on ImageNet | 0 | 0 | 0 |
    | ReCU | 5 | 4 | -4 |
    | RBNN on CIFAR-10, whose scheduler begins at -5 | 5 | 8 | -4 |

    # Arguments
        warmup: Epochs of the warm-up.
        offset: Epoch at which the cosine begins. If it is after the warm-up, the rate rises until then.
        length: What is added to the number of epochs.

    # Raises
        ValueError: When called, if no epoch remains for the cosine.

    # References
        - [Forward and Backward Information Retention for Accurate Binary Neural
            Networks](https://arxiv.org/abs/1909.10788), its code
        - [Rotated Binary Neural Network](https://arxiv.org/abs/2009.13055), its code
        - [ReCU: Reviving the Dead Weights in Binary Neural Networks](https://arxiv.org/abs/2103.12369), its code
    """

    warmup: int = 0
    offset: int = 0
    length: int = 0

    def __call__(self, learning_rate: float, epoch: float, epochs: int) -> float:
        if epoch < self.warmup:
            return learning_rate * (epoch + 1) / self.warmup
        if epochs + self.length <= 0:
            raise ValueError(
                f"{self} leaves no epoch for the cosine: {epochs} epochs {self.length:+d} are none. "
                f"Train for more than {-self.length} epochs, or take another length."
            )
        return learning_rate * (1 + math.cos(math.pi * (epoch - self.offset) / (epochs + self.length))) / 2


@dataclass(frozen=True)
class Steps(Schedule):
    r"""Is multiplied at certain epochs.

    \\[ \eta(e) = \eta_0\, f^{\left|\{a : a \leq e\}\right|} \\]

    # Arguments
        at: The epochs \\(a\\), those with the new rate first.
        factor: \\(f\\), 0.1 in most recipes.
    """

    at: tuple[int, ...]
    factor: float = 0.1

    def __call__(self, learning_rate: float, epoch: float, epochs: int) -> float:
        return learning_rate * self.factor ** sum(epoch >= at for at in self.at)


@dataclass(frozen=True)
class WarmupSteps(Schedule):
    r"""Rises on a line from step to step, then is multiplied at certain points of the training.

    With the part \\(p = e / E\\) of the training that is over, where \\(e\\) counts parts of epochs,

    \\[
    \eta(p) = \begin{cases}
      \eta_0 \left(s + (1 - s)\, p / w\right) & p < w \\\
      \eta_0\, f^{\left|\{a : a \leq p\}\right|} & p \geq w
    \end{cases}
    \\]

    The defaults are those of IR-Net on ImageNet, with \\(\eta_0 = 0.8\\): 2,500 of 62,500 steps from 0.2 to 0.8,
    then times 0.1 at 18,750, 37,500 and 56,250.

    # Arguments
        warmup: Part \\(w\\) of the training in which the rate rises.
        start: Part \\(s\\) of the rate with which it begins.
        at: Parts \\(a\\) of the training after which the rate is multiplied.
        factor: \\(f\\).

    # References
        - [Forward and Backward Information Retention for Accurate Binary Neural
            Networks](https://arxiv.org/abs/1909.10788), its code
    """

    per_step: ClassVar[bool] = True

    warmup: float = 0.04
    start: float = 0.25
    at: tuple[float, ...] = (0.3, 0.6, 0.9)
    factor: float = 0.1

    def __call__(self, learning_rate: float, epoch: float, epochs: int) -> float:
        # Where 0.3 of the training is over must not depend on how e + batch / steps was rounded.
        part = round(epoch / epochs, 9)
        if part < self.warmup:
            return learning_rate * (self.start + (1 - self.start) * part / self.warmup)
        return learning_rate * self.factor ** sum(part >= at for at in self.at)


class _OfOptimizer(TensorCallback):
    """Sets one number of the optimizer, before the first batch of an epoch or before each batch."""

    attribute: str
    log: str

    def __init__(self, schedule: Schedule, value: float):
        super().__init__()
        self.schedule = schedule
        self.initial_value = value

    def on_train_begin(self, logs=None):
        if not hasattr(self.model.optimizer, self.attribute):
            raise ValueError(
                f"{type(self).__name__}: the optimizer of model '{self.model.name}', "
                f"{type(self.model.optimizer).__name__}, has no {self.attribute} to set. Compile the model with one "
                "of larq_rep.training.optimizers."
            )
        if self.schedule.per_step and not self.params["steps"]:
            raise ValueError(
                f"{type(self).__name__}: {self.schedule} changes from step to step, but how many steps an epoch has "
                f"is not known (steps={self.params['steps']}). Give fit its steps_per_epoch."
            )

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        self._set(epoch)

    def on_train_batch_begin(self, batch, logs=None):
        if self.schedule.per_step:
            self._set(self._epoch + batch / self.params["steps"])

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs[self.log] = self._value

    def _set(self, epoch):
        self._value = self.schedule(self.initial_value, epoch, self.params["epochs"])
        setattr(self.model.optimizer, self.attribute, self._value)


class LearningRate(_OfOptimizer):
    """Sets the learning rate of each epoch, or of each step, and writes it to the logs as `lr`.

    With a schedule that changes from step to step `lr` is that of the epoch's last step.

    # Arguments
        schedule: One of the schedules of this module.
        learning_rate: The rate that it changes.

    # Raises
        ValueError: When training begins, if the schedule changes from step to step and the length of an epoch is
            not known.
    """

    attribute = "learning_rate"
    log = "lr"

    def __init__(self, schedule: Schedule, learning_rate: float):
        super().__init__(schedule, learning_rate)


class WeightDecay(_OfOptimizer):
    """Sets the factor `l2` of the weight decay in each epoch, and writes it to the logs as `l2`.

    That of BNN ends after 60 epochs: `WeightDecay(Steps((60,), 0.0), 1e-4)`.

    # Arguments
        schedule: One of the schedules of this module.
        l2: The factor that it changes.

    # Raises
        ValueError: When training begins, if the optimizer has no `l2`: it is none of `larq_rep.training.optimizers`.
    """

    attribute = "l2"
    log = "l2"

    def __init__(self, schedule: Schedule, l2: float):
        super().__init__(schedule, l2)


def steepness(epoch: float, epochs: int, t_min: float, t_max: float = 10.0) -> float:
    r"""Steepness \\(t\\) of the estimators of IR-Net and RBNN; their gain is \\(k = \max(1/t, 1)\\).

    \\[
    t(e) = 10^{\log_{10} t_{\min} + (\log_{10} t_{\max} - \log_{10} t_{\min})\, e / E}
    \\]
    """
    return t_min * (t_max / t_min) ** (epoch / epochs)


def recu_tau(epoch: float, epochs: int, tau_min: float = 0.85, tau_max: float = 0.99) -> float:
    r"""Quantile \\(\tau\\) up to which ReCU leaves weights as they are.

    \\[
    \tau(e) = A \exp(e / E) + B \qquad
    A = \frac{\tau_{\max} - \tau_{\min}}{\exp(1) - 1} \qquad B = \tau_{\min} - A
    \\]
    """
    return tau_min + (tau_max - tau_min) * math.expm1(epoch / epochs) / math.expm1(1)


class _OfQuantizers(tf.keras.callbacks.Callback):
    """Sets a variable of all quantizers of some classes at the start of each epoch."""

    classes: tuple[type, ...]
    attribute: str

    def on_train_begin(self, logs=None):
        self._quantizers = _find(self.model, self.classes)
        if not self._quantizers:
            names = " or ".join(cls.__name__ for cls in self.classes)
            raise ValueError(
                f"{type(self).__name__}: model '{self.model.name}' has no {names} whose {self.attribute} it could "
                "set. Leave it out."
            )

    def on_epoch_begin(self, epoch, logs=None):
        for quantizer in self._quantizers:
            getattr(quantizer, self.attribute).assign(self._value(quantizer, epoch, self.params["epochs"]))

    def _value(self, quantizer, epoch: int, epochs: int) -> float:
        raise NotImplementedError


def _find(model: tf.keras.Model, classes: type | tuple[type, ...]) -> list:
    return [module for module in model.submodules if isinstance(module, classes)]


class EDESchedule(_OfQuantizers):
    r"""Sharpens the error decay estimator of IR-Net at the start of each epoch.

    Sets `t` of all `EDESign` and `LibraSign` of the model to `steepness(epoch, epochs, t_min, t_max)`.
    \\(t_{\min}\\) is what each was made with: 0.001 in `ResNet20`, 0.1 in `VGGSmall`.

    # Arguments
        t_max: Where the schedule would arrive after the last epoch.

    # Raises
        ValueError: When training begins, if the model has no such quantizer.

    # References
        - [Forward and Backward Information Retention for Accurate Binary Neural
            Networks](https://arxiv.org/abs/1909.10788), equation 8
    """

    classes = (EDESign, LibraSign)
    attribute = "t"

    def __init__(self, t_max: float = 10.0):
        super().__init__()
        self.t_max = t_max

    def _value(self, quantizer, epoch, epochs):
        return steepness(epoch, epochs, quantizer.initial_t, self.t_max)


class ReCUSchedule(_OfQuantizers):
    r"""Leaves more and more weights as they are, at the start of each epoch.

    Sets `tau` of all `ReCUSign` of the model to `recu_tau(epoch, epochs, tau_min, tau_max)`.

    # Arguments
        tau_min: \\(\tau\\) of the first epoch.
        tau_max: Where the schedule would arrive after the last epoch.

    # Raises
        ValueError: When training begins, if the model has no `ReCUSign`.

    # References
        - [ReCU: Reviving the Dead Weights in Binary Neural Networks](https://arxiv.org/abs/2103.12369), equation 14
    """

    classes = (ReCUSign,)
    attribute = "tau"

    def __init__(self, tau_min: float = 0.85, tau_max: float = 0.99):
        super().__init__()
        self.tau_min = tau_min
        self.tau_max = tau_max

    def _value(self, quantizer, epoch, epochs):
        return recu_tau(epoch, epochs, self.tau_min, self.tau_max)


class RBNNSchedule(_OfQuantizers):
    r"""Sharpens RBNN's approximation of the sign and turns its rotations, at the start of each epoch.

    Sets `t` of all `StandardizedSign` and `RotatedSign` of the model to `steepness(epoch, epochs, t_min, t_max)`.
    Then it calls `update_rotations` of each `RotatedSign` with the latent kernel of its layer. The authors do that
    with the epoch's first batch before they use the rotations, which is the same.

    # Arguments
        t_min: \\(t\\) of the first epoch.
        t_max: Where the schedule would arrive after the last epoch.

    # Raises
        ValueError: When training begins, if the model has no such quantizer, or a `RotatedSign` is not the
            `kernel_quantizer` of exactly one layer.

    # References
        - [Rotated Binary Neural Network](https://arxiv.org/abs/2009.13055), sections 3.3 and 3.4, and its code
    """

    classes = (StandardizedSign, RotatedSign)
    attribute = "t"

    def __init__(self, t_min: float = 1e-2, t_max: float = 10.0):
        super().__init__()
        self.t_min = t_min
        self.t_max = t_max

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._rotated = [
            (layer.kernel_quantizer, layer)
            for layer in _find(self.model, tf.keras.layers.Layer)
            if isinstance(getattr(layer, "kernel_quantizer", None), RotatedSign)
        ]
        for quantizer in _find(self.model, RotatedSign):
            layers = sorted(layer.name for owned, layer in self._rotated if owned is quantizer)
            if len(layers) != 1:
                raise ValueError(
                    f"RBNNSchedule: RotatedSign '{quantizer.name}' of model '{self.model.name}' has to be the "
                    f"kernel_quantizer of one layer, whose kernel it is rotated to, but it is that of "
                    f"{layers or 'none'}. Give each convolution a RotatedSign() of its own."
                )

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        for quantizer, layer in self._rotated:
            quantizer.update_rotations(layer.kernel)

    def _value(self, quantizer, epoch, epochs):
        return steepness(epoch, epochs, self.t_min, self.t_max)


def schedules_for(model: tf.keras.Model) -> list[tf.keras.callbacks.Callback]:
    """New callbacks, with the values of the papers, for the quantizers of a model that need one.

    An `EDESchedule`, a `ReCUSchedule` and an `RBNNSchedule`, each if the model has a quantizer of its kind.
    """
    kinds: tuple[type[_OfQuantizers], ...] = (EDESchedule, ReCUSchedule, RBNNSchedule)
    return [kind() for kind in kinds if _find(model, kind.classes)]
