"""Quantizers of ReCU."""

import math
from typing import ClassVar

import larq as lq
import tensorflow as tf

from larq_rep._keras import BaseQuantizer
from larq_rep.quantizers.base import QuantizerWithVariables, decisive, sample_moments
from larq_rep.quantizers.callbacks import ReCUSchedule
from larq_rep.quantizers.reactnet import RSign

_EPSILON = 1e-5


@tf.custom_gradient
def _sign_within(x, limit):
    return lq.math.sign(x), lambda dy: (tf.where(tf.abs(x) <= limit, dy, tf.zeros_like(dy)), None)


@lq.utils.register_alias("recu_sign")
@lq.utils.register_keras_custom_object
class ReCUSign(QuantizerWithVariables):
    r"""Kernel quantizer of ReCU: revives dead weights, with a learned scale per output channel.

    \\[
    w_1 = 2 \sqrt{2}\, \frac{w - \operatorname{mean}_o(w)}{\sqrt{\operatorname{var}_o(w) + 10^{-5}}} \qquad
    Q = -\operatorname{mean}\left|w_1\right| \ln(2 - 2 \tau) \qquad
    q(w) = \alpha_o \operatorname{sign}\left(\operatorname{clip}(w_1, -Q, Q)\right)
    \\]
    \\[
    \frac{\partial \operatorname{sign}(w_1)}{\partial w_1} = \begin{cases}
      1 & \left|w_1\right| \leq Q \\\
      0 & \left|w_1\right| > Q
    \end{cases}
    \\]

    Mean and (unbiased) variance are taken over an output channel, the mean in \\(Q\\) over the whole
    kernel. \\(Q\\) is a constant in the backward pass, which passes through the standardisation and to
    \\(\alpha\\), the weight `alpha` of shape `(channels,)`. Larq Compute Engine evaluates all of it at
    conversion: a binary kernel and a scale per output channel, which may be negative, remain. Signs are decided in
    float64, except in training: see `larq_rep.quantizers`.

    \\(\tau\\) grows during training, from 0.85 to 0.99 in the paper. It is a scalar variable that a callback
    sets, `quantizer.tau.assign(0.9)`, to \\(\tau(e) = A \exp(e / E) + B\\) before epoch \\(e\\) of \\(E\\), with
    \\(A = (\tau_{max} - \tau_{min}) / (\exp(1) - 1)\\) and \\(B = \tau_{min} - A\\). It is not a weight of the
    layer: `get_config`, `.h5` and `.keras` files keep only the constructor's value.

    The scales belong to one kernel: give each convolution its own object. `lq.models.summary` counts
    them as multiplications of the convolution, `larq_rep.cost.count` does not.

    # Arguments
        tau: Initial \\(\tau\\), greater than 0.5 and at most 1, which means \\(Q = \infty\\).
        alpha_initializer: Initializer of `alpha`; if `None`, uniform between 0 and 1.
        alpha_regularizer: Regularizer of `alpha`.
        metrics: An array of metrics to add to the layer. If `None` the metrics set in
            `larq.context.metrics_scope` are used. `flip_ratio` counts flipped signs.

    # Input shape
        A kernel whose last axis is the output channels, usually HWIO.

    # Output shape
        Same as the input.

    # Raises
        ValueError: if `tau` is out of its range, or the output channels differ from those of an earlier call.

    # References
        - [ReCU: Reviving the Dead Weights in Binary Neural Networks](https://arxiv.org/abs/2103.12369)
    """

    schedule = ReCUSchedule
    # `alpha` scales.
    coefficients: ClassVar[dict] = {}

    def __init__(self, tau: float = 0.85, alpha_initializer=None, alpha_regularizer=None, **kwargs):
        super().__init__(**kwargs)
        if not 0.5 < tau <= 1:
            raise ValueError(f"ReCUSign '{self.name}' needs 0.5 < tau <= 1, but got tau={tau}.")
        self.initial_tau = tau
        self.tau = self._add_scheduled("tau", tau)
        # One for each object: without a seed an initializer gives the same numbers every time.
        initializer = alpha_initializer or tf.keras.initializers.RandomUniform(0.0, 1.0)
        self.alpha_initializer = tf.keras.initializers.get(initializer)
        self.alpha_regularizer = tf.keras.regularizers.get(alpha_regularizer)

    def build(self, input_shape):
        self.alpha = self.add_weight(
            "alpha", (input_shape[-1],), initializer=self.alpha_initializer, regularizer=self.alpha_regularizer
        )
        super().build(input_shape)

    def call(self, inputs, training=None):
        if inputs.shape[-1] != self.alpha.shape[0]:
            raise ValueError(
                f"ReCUSign '{self.name}' has scales for {self.alpha.shape[0]} output channels, but was called "
                f"on a kernel of shape {tuple(inputs.shape)}: give each convolution a ReCUSign() of its own."
            )
        w1 = self.value(decisive(inputs, training))
        signs = _sign_within(w1, self._limit(w1))
        return self.alpha * super().call(tf.cast(signs, inputs.dtype))

    def _limit(self, w1):
        return -tf.reduce_mean(tf.abs(w1)) * tf.math.log(2 - 2 * tf.cast(self.tau, w1.dtype))

    def value(self, x):
        axes = list(range(x.shape.rank - 1))
        centred = x - tf.reduce_mean(x, axes)
        freedom = x.shape[:-1].num_elements() - 1
        variance = tf.reduce_sum(centred**2, axes) / freedom
        return centred * (2 * math.sqrt(2)) / tf.sqrt(variance + _EPSILON)

    def window(self, x):
        return self._limit(self.value(x))

    def get_config(self):
        return {
            **super().get_config(),
            "tau": self.initial_tau,
            "alpha_initializer": tf.keras.initializers.serialize(self.alpha_initializer),
            "alpha_regularizer": tf.keras.regularizers.serialize(self.alpha_regularizer),
        }


@tf.custom_gradient
def _scaled_approx_sign(x):
    def grad(dy):
        axes = list(range(1, x.shape.rank))
        freedom = tf.cast(tf.reduce_prod(tf.shape(x)[1:]) - 1, x.dtype)
        centred = x - tf.reduce_mean(x, axes, keepdims=True)
        inverse = tf.math.rsqrt(tf.reduce_sum(centred**2, axes, keepdims=True) / freedom + _EPSILON)
        dz = dy * tf.maximum(2 - 2 * tf.abs(x * inverse), 0)
        through_variance = centred * inverse**3 * tf.reduce_sum(dz * x, axes, keepdims=True) / freedom
        return dz * inverse - through_variance

    return lq.math.sign(x), grad


@lq.utils.register_alias("recu_input_sign")
@lq.utils.register_keras_custom_object
class ReCUInputSign(BaseQuantizer):
    r"""Input quantizer of ReCU: the sign, with a gradient in the activations divided by their deviation.

    \\[
    \hat{x} = \frac{x}{\sqrt{v + 10^{-5}}} \qquad
    q(x) = \operatorname{sign}(x) \qquad
    \frac{\partial q}{\partial \hat{x}} = \begin{cases}
      2 - 2 \left|\hat{x}\right| & \left|\hat{x}\right| \leq 1 \\\
      0 & \left|\hat{x}\right| > 1
    \end{cases}
    \\]

    \\(v\\) is the (unbiased) variance of one sample over all its pixels and channels. The gradient passes
    through the division. The gradient is always that of training; the authors' code in evaluation mode would use
    \\(\hat{x} = x\\).

    # Arguments
        metrics: An array of metrics to add to the layer, as for Larq's quantizers.

    # Input shape
        `(batch, ...)`, usually NHWC.

    # Output shape
        Same as the input.

    # References
        - [ReCU: Reviving the Dead Weights in Binary Neural Networks](https://arxiv.org/abs/2103.12369), and
            its code
    """

    precision = 1

    def call(self, inputs):
        return super().call(_scaled_approx_sign(inputs))

    def value(self, x):
        _, variance = sample_moments(x)
        return x * tf.math.rsqrt(variance + _EPSILON)

    def window(self, x):
        return 1.0


@lq.utils.register_alias("recu_r_sign")
@lq.utils.register_keras_custom_object
class ReCURSign(RSign):
    r"""Sign of the input shifted by one learnable number per channel, with the gradient of `ReCUInputSign`.

    \\[
    q(x) = \begin{cases}
      -1 & x + b_c < 0 \\\
      1 & x + b_c \geq 0
    \end{cases}
    \\]

    It is `ReCUInputSign` of \\(x + b\\): the deviation that the gradient divides by is that of the shifted sample.
    Everything else is as in `RSign`: the gradient of `bias` \\(b\\), shape `(channels,)`, is the gradient of the
    input summed over all axes except the channels.

    # Arguments
        shift_initializer: Initializer of `bias`.
        shift_regularizer: Regularizer of `bias`.
        metrics: An array of metrics to add to the layer, as for Larq's quantizers.

    # Input shape
        `(batch, ..., channels)`, usually NHWC.

    # Output shape
        Same as the input.

    # Raises
        ValueError: if the number of channels is unknown, or differs from that of an earlier call.

    # References
        - [ReCU: Reviving the Dead Weights in Binary Neural Networks](https://arxiv.org/abs/2103.12369), the code of
            its training in two stages
    """

    _sign = staticmethod(_scaled_approx_sign)

    def value(self, x):
        return ReCUInputSign.value(self, RSign.value(self, x))
