"""SGD, Adam and RAdam with PyTorch's L2 penalty, the rules for which weights the recipes penalise, and Bop."""

from collections.abc import Sequence

import larq as lq
import tensorflow as tf

from larq_rep import _keras
from larq_rep.quantizers.base import coefficients_of

_RULES = ("all", "conv_and_shifts", "conv_and_fc")
_register = tf.keras.utils.register_keras_serializable(package="larq_rep")


def _float64(value: float | tf.Tensor) -> float | tf.Tensor:
    # A cast would first round a Python number to float32.
    return value if isinstance(value, (int, float)) else tf.cast(value, tf.float64)


class _Exact:
    """A number in float64, beside the variable (float32 by default) in which Keras keeps and saves it.

    If the variable has another value, Keras has restored or set it; the variable's value then counts.
    """

    def __init__(self, value: float | tf.Tensor, kept: tf.Variable):
        self._kept = kept
        self._value = tf.Variable(_float64(value), dtype=tf.float64, trainable=False)

    def assign(self, value: float | tf.Tensor) -> None:
        self._kept.assign(value)
        self._value.assign(_float64(value))

    def read(self) -> tf.Tensor:
        same = tf.cast(self._value, self._kept.dtype) == self._kept
        return tf.where(same, self._value, tf.cast(self._kept, tf.float64))


class _Penalised(_keras.Optimizer):
    """Adds `l2` times the weight to a gradient that is already clipped and summed over the replicas.

    Python numbers stay in float64, whatever the dtype of the weights; Keras would first cast them to float32.
    """

    def __init__(self, *, l2: float, decayed: Sequence[tf.Variable | str | int] | None, **kwargs):
        super().__init__(**kwargs)
        if l2 < 0:
            raise ValueError(f"{type(self).__name__} needs l2 >= 0, but got l2={l2}.")
        self._l2 = self.make_number(l2)
        self._exact_l2 = _Exact(l2, self._l2)
        # Variables are kept as keys: they themselves would become part of the optimizer's checkpoints.
        self._decayed: list[str | int] | None = None
        self._names: dict[str | int, str] = {}
        if decayed is not None:
            self._names = {self.key(d): d.name for d in decayed if not isinstance(d, (str, int))}
            self._decayed = [d if isinstance(d, (str, int)) else self.key(d) for d in decayed]

    @property
    def l2(self) -> tf.Variable:
        """Factor of the penalty. It can be set to a number."""
        return self._l2

    @l2.setter
    def l2(self, value: float):
        self._exact_l2.assign(value)

    def rate_made(self, value, made):
        self._exact_rate = _Exact(value, made) if isinstance(made, tf.Variable) else None

    @property
    def learning_rate(self):
        return super().learning_rate

    @learning_rate.setter
    def learning_rate(self, value):
        if self._exact_rate is None or callable(value):
            tf.keras.optimizers.Optimizer.learning_rate.fset(self, value)
        else:
            self._exact_rate.assign(value)

    def _rate(self) -> tf.Tensor:
        if self._exact_rate is None:
            return tf.cast(self.learning_rate, tf.float64)  # The rate of a Keras schedule.
        return self._exact_rate.read()

    def build(self, var_list):
        if not self.is_built:
            self._positions = self._find(var_list)
        super().build(var_list)

    def _find(self, var_list):
        """Finds the positions of the penalised variables: a loaded model has the same order, but other names."""
        if self._decayed is None:
            return list(range(len(var_list)))
        positions: dict[str | int, list[int]] = {}
        for position, variable in enumerate(var_list):
            positions[position] = positions[self.key(variable)] = [position]
            positions[variable.name] = [*positions.get(variable.name, []), position]
        found = [positions.get(d, []) for d in self._decayed]
        for decayed, places in zip(self._decayed, found, strict=True):
            if len(places) != 1:
                raise ValueError(
                    f"{type(self).__name__}: the weight decay should act on the variable "
                    f"{self._names.get(decayed, decayed)!r}, but {len(places) or 'none'} of the {len(var_list)} "
                    "variables to train match it. Choose variables among model.trainable_variables, as "
                    "decayed_weights(model, rule) does, from the same model and after layers are frozen."
                )
        return [place for places in found for place in places]

    def _penalised(self, gradient, variable):
        if self.position(variable) not in self._positions:
            return gradient
        return tf.convert_to_tensor(gradient) + tf.cast(self._exact_l2.read(), variable.dtype) * variable

    def get_config(self):
        decayed = self._decayed
        if decayed is not None:
            # From the first step on the positions are known, before it only the names.
            decayed = list(self._positions) if self.is_built else [self._names.get(d, d) for d in decayed]
        numbers = {"l2": float(self._exact_l2.read())}
        if self._exact_rate is not None:
            numbers["learning_rate"] = float(self._exact_rate.read())
        return {**super().get_config(), **numbers, "decayed": decayed}


@_register
class SGD(_Penalised, tf.keras.optimizers.SGD):
    r"""Gradient descent with momentum in PyTorch's form, with an L2 penalty of some weights.

    \\[
    g \leftarrow g + \lambda w \qquad v \leftarrow \mu v + g \qquad
    w \leftarrow w - \eta \begin{cases}
      v & \text{momentum} \\\
      g + \mu v & \text{Nesterov's}
    \end{cases}
    \\]

    The momentum \\(v\\) does not contain the learning rate \\(\eta\\), so a new rate acts at once (Keras' momentum
    contains the rates of earlier steps). The penalty goes through the momentum (in Keras `weight_decay` does
    not).

    # Arguments
        learning_rate: \\(\eta\\).
        momentum: \\(\mu\\).
        nesterov: Whether the momentum is Nesterov's.
        l2: Factor \\(\lambda\\) of the penalty; `optimizer.l2` can be set between steps.
        decayed: The penalised variables, such as `decayed_weights(model, rule)`, or their names or their positions
            among the model's trainable variables; all if `None`. The config keeps the positions.
        **kwargs: As for Keras' optimizers: `use_ema`, `ema_momentum`, `clipnorm`, `name` and so on.

    # Raises
        ValueError: If `l2` is negative; in the first step if one of `decayed` is not trained, or is the name of
            several.
    """

    def __init__(
        self,
        learning_rate: float = 0.1,
        momentum: float = 0.9,
        nesterov: bool = False,
        l2: float = 0.0,
        decayed: Sequence[tf.Variable | str | int] | None = None,
        **kwargs,
    ):
        super().__init__(
            learning_rate=learning_rate, momentum=momentum, nesterov=nesterov, l2=l2, decayed=decayed, **kwargs
        )

    def update_step(self, gradient, variable):
        gradient = self._penalised(tf.convert_to_tensor(gradient), variable)
        rate, momentum = tf.cast(self._rate(), variable.dtype), tf.constant(self.momentum, variable.dtype)
        velocity = self.momentums[self.position(variable)]
        velocity.assign(momentum * velocity + gradient)
        variable.assign_sub(rate * (gradient + momentum * velocity if self.nesterov else velocity))


@_register
class Adam(_Penalised, tf.keras.optimizers.Adam):
    r"""Adam in PyTorch's form, with an L2 penalty of some weights (not AdamW).

    \\[
    g \leftarrow g + \lambda w \qquad
    m \leftarrow \beta_1 m + (1 - \beta_1) g \qquad
    v \leftarrow \beta_2 v + (1 - \beta_2) g^2
    \\]
    \\[
    w \leftarrow w - \eta\, \frac{m / (1 - \beta_1^s)}{\sqrt{v / (1 - \beta_2^s)} + \epsilon}
    \\]

    in step \\(s = 1, 2, \dots\\) The penalty goes through both moments, and \\(\epsilon\\) is added after the
    correction of \\(v\\) (in Keras before).

    # Arguments
        learning_rate: \\(\eta\\).
        beta_1: Decay \\(\beta_1\\) of the first moment.
        beta_2: Decay \\(\beta_2\\) of the second moment.
        epsilon: \\(\epsilon\\).
        l2: Factor \\(\lambda\\) of the penalty; `optimizer.l2` can be set between steps.
        decayed: The penalised variables, such as `decayed_weights(model, rule)`, or their names or their positions
            among the model's trainable variables; all if `None`. The config keeps the positions.
        **kwargs: As for Keras' optimizers: `use_ema`, `ema_momentum`, `clipnorm`, `name` and so on.

    # Raises
        ValueError: If `l2` is negative; in the first step if one of `decayed` is not trained, or is the name of
            several.

    # References
        - [Adam: A Method for Stochastic Optimization](https://arxiv.org/abs/1412.6980), algorithm 1
    """

    def __init__(
        self,
        learning_rate: float = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        l2: float = 0.0,
        decayed: Sequence[tf.Variable | str | int] | None = None,
        **kwargs,
    ):
        super().__init__(
            learning_rate=learning_rate,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            adaptive_epsilon=True,
            l2=l2,
            decayed=decayed,
            **kwargs,
        )

    def update_step(self, gradient, variable):
        m, v = self._moments(gradient, variable)
        step = tf.cast(self.iterations + 1, tf.float64)
        first = 1 - tf.constant(self.beta_1, tf.float64) ** step
        second = tf.sqrt(1 - tf.constant(self.beta_2, tf.float64) ** step)
        rate = tf.cast(self._rate() * second / first, variable.dtype)
        variable.assign_sub(m * rate / (tf.sqrt(v) + tf.cast(self.epsilon * second, variable.dtype)))

    def _moments(self, gradient, variable):
        """Updates both moments with this step's gradient; with `amsgrad` the second is the largest one so far."""
        gradient = tf.convert_to_tensor(self._penalised(gradient, variable))
        m, v, largest = self.adam_moments(variable)
        m.assign_add((gradient - m) * (1 - self.beta_1))
        v.assign_add((gradient**2 - v) * (1 - self.beta_2))
        if largest is not None:
            largest.assign(tf.maximum(largest, v))
            v = largest
        return m, v


@_register
class RAdam(Adam):
    r"""Rectified Adam in PyTorch's form, with an L2 penalty of some weights.

    The moments are those of `Adam`. With \\(\rho_\infty = 2 / (1 - \beta_2) - 1\\) and
    \\(\rho_s = \rho_\infty - 2 s \beta_2^s / (1 - \beta_2^s)\\), step \\(s\\) is

    \\[
    w \leftarrow w - \eta\, \frac{m}{1 - \beta_1^s} \begin{cases}
      r_s \frac{\sqrt{1 - \beta_2^s}}{\sqrt{v} + \epsilon} & \rho_s > 5 \\\
      1 & \rho_s \leq 5
    \end{cases}
    \qquad
    r_s = \sqrt{\frac{(\rho_s - 4) (\rho_s - 2)\, \rho_\infty}{(\rho_\infty - 4) (\rho_\infty - 2)\, \rho_s}}
    \\]

    # Arguments
        learning_rate: \\(\eta\\).
        **kwargs: As for `Adam`.

    # Raises
        ValueError: As for `Adam`.

    # References
        - [On the Variance of the Adaptive Learning Rate and Beyond](https://arxiv.org/abs/1908.03265), with the
            bound 5 from the authors' code (the paper has 4)
    """

    def __init__(self, learning_rate: float = 1e-3, *, name: str = "RAdam", **kwargs):
        super().__init__(learning_rate, name=name, **kwargs)

    def update_step(self, gradient, variable):
        m, v = self._moments(gradient, variable)
        # In float64, because rho is the difference of two numbers near 2,000, and close to 5 in the fifth step.
        step = tf.cast(self.iterations + 1, tf.float64)
        power = tf.constant(self.beta_2, tf.float64) ** step
        largest = 2 / (1 - self.beta_2) - 1
        rho = largest - 2 * step * power / (1 - power)
        # Below the bound the root may not exist; the other branch is taken there.
        safe = tf.maximum(rho, 5.0)
        rectified = tf.sqrt((1 - power) * (safe - 4) * (safe - 2) * largest / ((largest - 4) * (largest - 2) * safe))
        corrected = m / tf.cast(1 - tf.constant(self.beta_1, tf.float64) ** step, variable.dtype)
        factor = tf.where(rho > 5, tf.cast(rectified, variable.dtype) / (tf.sqrt(v) + self.epsilon), 1)
        variable.assign_sub(tf.cast(self._rate(), variable.dtype) * corrected * factor)


@_register
class BopAndAdam(_keras.CaseOptimizer):
    r"""`larq.optimizers.Bop` for binary weights, Keras' Adam for all others.

    \\[
    m \leftarrow (1 - \gamma) m + \gamma g \qquad
    w \leftarrow \begin{cases}
      -w & w m > \tau \\\
      w & w m \leq \tau
    \end{cases}
    \\]

    Binary are the kernels \\(w = \pm 1\\) of layers whose quantizer is `lq.quantizers.NoOp(precision=1)`; see
    `larq_rep.training.phases.with_binary_weights`.

    # Arguments
        learning_rate: Of Adam.
        gamma: \\(\gamma\\); `optimizer.gamma` can be set between steps.
        threshold: \\(\tau\\).

    # Raises
        ValueError: If no variable is binary, when it is built.

    # References
        - [Latent Weights Do Not Exist: Rethinking Binarized Neural Network
            Optimization](https://arxiv.org/abs/1906.02107)
    """

    def __init__(self, learning_rate: float = 1e-3, gamma: float = 1e-4, threshold: float = 1e-8):
        self._bop = lq.optimizers.Bop(threshold, gamma)
        self._adam = tf.keras.optimizers.legacy.Adam(learning_rate)
        super().__init__((lq.optimizers.Bop.is_binary_variable, self._bop), default_optimizer=self._adam)

    @property
    def learning_rate(self):
        return self._adam.learning_rate

    @learning_rate.setter
    def learning_rate(self, value):
        self._adam.learning_rate = value

    @property
    def gamma(self):
        return self._bop.gamma

    @gamma.setter
    def gamma(self, value):
        self._bop.gamma = value

    @property
    def iterations(self):
        return self._adam.iterations

    def get_config(self):
        numbers = {name: getattr(self, name) for name in ("learning_rate", "gamma")}
        return {**{name: float(number) for name, number in numbers.items()}, "threshold": float(self._bop.threshold)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**config)


def decayed_weights(model: tf.keras.Model, rule: str) -> list[tf.Variable]:
    """Returns the trainable variables of a model that a recipe penalises, in the model's order.

    | rule | variables | recipes |
    |---|---|---|
    | `"all"` | all | IR-Net, RBNN, ReCU on CIFAR-10, FracBNN, AresB-Net |
    | `"conv_and_shifts"` | kernels of convolutions; shifts of `RSign`, `LeakyRSign`, `RPReLU`, `BiasedPReLU`: \
their `coefficients`, tensors of four dimensions in the authors' code | ReActNet, AdamBNN, PresB-Net |
    | `"conv_and_fc"` | those of layers with "conv" or "fc" in their name, scales of kernel quantizers included \
| ReCU on ImageNet |

    # Arguments
        model: A built model.
        rule: One of the above.

    # Raises
        ValueError: If there is no such rule, the model has no such variable, or a custom quantizer has weights
            but does not say which of them are shifts.
    """
    if rule not in _RULES:
        raise ValueError(f"decayed_weights: there is no rule {rule!r}. Expected one of {', '.join(map(repr, _RULES))}.")
    chosen: set[int] = set()
    for module in model.submodules:
        if rule == "conv_and_shifts":
            chosen.update(id(weight) for kind, weight in coefficients_of(module).items() if kind != "slope")
        elif rule == "conv_and_fc" and _is_named(module, ("conv", "fc")):
            chosen.update(map(id, module.trainable_variables))
    variables = [
        variable
        for variable in model.trainable_variables
        if rule == "all" or id(variable) in chosen or (rule == "conv_and_shifts" and variable.shape.rank == 4)
    ]
    if not variables:
        raise ValueError(
            f"decayed_weights: no trainable variable of model '{model.name}' matches the rule {rule!r}. Build the "
            "model first, or choose another rule."
        )
    return variables


def _is_named(module: tf.Module, parts: tuple[str, ...]) -> bool:
    # The name of a model within the model says nothing about its layers.
    layer = isinstance(module, tf.keras.layers.Layer) and not isinstance(module, tf.keras.Model)
    return layer and any(part in module.name for part in parts)
