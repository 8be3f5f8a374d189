r"""Schedules for the learning rate, the weight decay, and parameters of quantizers.

Each is a function of the epoch \\(e = 0 \dots E - 1\\), with \\(E\\) the number of epochs given to `fit`, so a training
that continues with `initial_epoch` goes on as if it had not been interrupted.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import larq as lq
import tensorflow as tf

from larq_rep._keras import TensorCallback
from larq_rep.quantizers.base import schedule_of
from larq_rep.quantizers.callbacks import (
    EDESchedule,
    INQSchedule,
    QuantizerSchedule,
    RBNNSchedule,
    ReCUSchedule,
    recu_tau,
    steepness,
)

__all__ = [
    "Cosine",
    "EDESchedule",
    "Exponential",
    "Gamma",
    "INQSchedule",
    "LearningRate",
    "Linear",
    "RBNNSchedule",
    "ReCUSchedule",
    "Schedule",
    "Steps",
    "WarmupSteps",
    "WeightDecay",
    "recu_tau",
    "schedules_for",
    "steepness",
]


class Schedule:
    """Base class of the schedules: a learning rate as a function of the epoch. The others are dataclasses.

    # Attributes
        per_step: Whether it changes within an epoch. `epoch` then has a fractional part.
    """

    per_step: ClassVar[bool] = False

    def __call__(self, learning_rate: float, epoch: float, epochs: int) -> float:
        """The learning rate of epoch `epoch` (the first is 0) of `epochs`, in a training of rate `learning_rate`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Linear(Schedule):
    r"""Falls linearly to \\(\eta_1\\).

    \\[ \eta(e) = \eta_1 + (\eta_0 - \eta_1) \left(1 - \frac{e + 1}{E}\right) \\]

    The code of ReActNet, AdamBNN, Bi-Real-Net and PresB-Net takes the step before the epoch, so the rate of the first
    epoch is already less than \\(\eta_0\\) and that of the last one is 0: only the statistics of the batch
    normalisations then change.

    # Arguments
        ahead: `False` for \\(e\\) in place of \\(e + 1\\), as in the first phase of FracBNN.
        final: \\(\eta_1\\), 0 in most recipes.

    # References
        - [ReActNet: Towards Precise Binary Neural Network with Generalized Activation
            Functions](https://arxiv.org/abs/2003.03488), its code
        - [FracBNN: Accurate and FPGA-Efficient Binary Neural Networks with Fractional
            Activations](https://arxiv.org/abs/2012.12206), its code
    """

    ahead: bool = True
    final: float = 0.0

    def __call__(self, learning_rate: float, epoch: float, epochs: int) -> float:
        return self.final + (learning_rate - self.final) * (1 - (epoch + self.ahead) / epochs)


@dataclass(frozen=True)
class Exponential(Schedule):
    r"""Falls by the same factor in each epoch.

    \\[ \eta(e) = \eta_0 \left(\frac{\eta_1}{\eta_0}\right)^{e / E} \\]

    # Arguments
        final: \\(\eta_1\\), the rate that the epoch after the last one would have.

    # Raises
        ValueError: When called, if one of the two rates is not positive.

    # References
        - [BinaryConnect: Training Deep Neural Networks with binary weights during
            propagations](https://arxiv.org/abs/1511.00363), its code
    """

    final: float

    def __call__(self, learning_rate: float, epoch: float, epochs: int) -> float:
        if learning_rate <= 0 or self.final <= 0:
            raise ValueError(f"{self} falls from {learning_rate} to {self.final}: both should be more than 0.")
        return learning_rate * (self.final / learning_rate) ** (epoch / epochs)


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
        length: This number is added to the number of epochs.

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
    r"""Multiplies the rate by a factor at certain epochs.

    \\[ \eta(e) = \eta_0\, f^{\left|\{a : a \leq e\}\right|} \\]

    # Arguments
        at: The epochs \\(a\\), each the first one with a new rate.
        factor: \\(f\\), 0.1 in most recipes.
    """

    at: tuple[int, ...]
    factor: float = 0.1

    def __call__(self, learning_rate: float, epoch: float, epochs: int) -> float:
        return learning_rate * self.factor ** sum(epoch >= at for at in self.at)


@dataclass(frozen=True)
class WarmupSteps(Schedule):
    r"""Rises linearly from step to step, then multiplies the rate by a factor at certain points of the training.

    With the part \\(p = e / E\\) of the training that is over, where \\(e\\) has a fractional part,

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
        # The step at which 0.3 of the training is over must not depend on how e + batch / steps was rounded.
        part = round(epoch / epochs, 9)
        if part < self.warmup:
            return learning_rate * (self.start + (1 - self.start) * part / self.warmup)
        return learning_rate * self.factor ** sum(part >= at for at in self.at)


class _OfOptimizer(TensorCallback):
    """Sets a number of the optimizer, before the first batch of an epoch or before each batch."""

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
                f"{type(self).__name__}: {self.schedule} changes from step to step, but the number of steps in an "
                f"epoch is not known (steps={self.params['steps']}). Give fit its steps_per_epoch."
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

    With a schedule that changes from step to step, `lr` is the rate of the epoch's last step.

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

    BNN's weight decay ends after 60 epochs: `WeightDecay(Steps((60,), 0.0), 1e-4)`.

    # Arguments
        schedule: One of the schedules of this module.
        l2: The factor that it changes.

    # Raises
        ValueError: When training begins, if the optimizer has no `l2`, so it is not from
            `larq_rep.training.optimizers`.
    """

    attribute = "l2"
    log = "l2"

    def __init__(self, schedule: Schedule, l2: float):
        super().__init__(schedule, l2)


class Gamma(_OfOptimizer):
    """Sets the adaptivity rate `gamma` of `Bop` in each epoch, and writes it to the logs as `gamma`.

    # Arguments
        schedule: One of the schedules of this module.
        gamma: The rate that it changes.

    # Raises
        ValueError: When training begins, if the optimizer has no `gamma`.
    """

    attribute = "gamma"
    log = "gamma"

    def __init__(self, schedule: Schedule, gamma: float):
        super().__init__(schedule, gamma)


def schedules_for(model: tf.keras.Model) -> list[tf.keras.callbacks.Callback]:
    """Makes callbacks, with the values of the papers, for the quantizers of a model that need one.

    Each quantizer names its callback as its `schedule`: `EDESchedule`, `INQSchedule`, `ReCUSchedule` or `RBNNSchedule`,
    or any class of callbacks that can be made without arguments.

    # Raises
        ValueError: If a quantizer has variables that no gradient changes, and names no schedule for them.
    """
    quantizers = [module for module in model.submodules if isinstance(module, lq.quantizers.Quantizer)]
    kinds = {kind for quantizer in quantizers if (kind := schedule_of(quantizer)) is not None}
    # Each changes different quantizers, so the order has no effect, but it should always be the same.
    return [kind() for kind in sorted(kinds, key=lambda kind: kind.__name__, reverse=True)]


def check_schedules(model: tf.keras.Model, epochs: int) -> None:
    """Finds out before a training, not when its last phase begins, whether the schedules of a model suit its epochs.

    # Raises
        ValueError: As `schedules_for`, or if there are too few epochs.
    """
    for schedule in schedules_for(model):
        if isinstance(schedule, QuantizerSchedule):
            schedule.check(model, epochs)
