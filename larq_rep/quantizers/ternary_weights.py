"""Kernel quantizers of the networks with ternary weights, TWN and TTQ."""

from typing import ClassVar

import larq as lq
import tensorflow as tf

from larq_rep._keras import BaseQuantizer
from larq_rep.quantizers.base import QuantizerWithVariables, decisive, scale_forward_only


@tf.custom_gradient
def _ternary(w, is_zero):
    return tf.where(is_zero, tf.zeros_like(w), tf.sign(w)), lambda dy: (dy, None)


@lq.utils.register_alias("ternary_weight")
@lq.utils.register_keras_custom_object
class TernaryWeight(BaseQuantizer):
    r"""Kernel quantizer of TWN: \\(-a\\), 0 or \\(a\\), with one threshold and one scale for the whole kernel.

    \\[
    \Delta = f \operatorname{mean}\left|w\right| \qquad
    T = \begin{cases}
      -1 & w < -\Delta \\\
      0 & \left|w\right| \leq \Delta \\\
      1 & w > \Delta
    \end{cases}
    \qquad
    a = \frac{\sum T w}{\sum T^2 + 10^{-6}} \qquad
    q(w) = a T \qquad
    \frac{\partial q(w)}{\partial w} = 1
    \\]

    \\(a\\) is the mean magnitude of the weights beyond the threshold, and a constant in the backward pass. What is
    beyond is decided in float64, except in training: see `larq_rep.quantizers`. Larq Compute Engine packs two values,
    so a convolution with ternary weights stays float; stored in int8 (`float_weights="int8"`) its weights are exact.

    # Arguments
        factor: \\(f\\), 0.7 in the paper, not negative.
        metrics: An array of metrics to add to the layer. If `None` the metrics set in
            `larq.context.metrics_scope` are used. `flip_ratio` counts changes of \\(T\\).

    # Input shape
        Any shape.

    # Output shape
        Same as the input.

    # Raises
        ValueError: if `factor` is negative.

    # References
        - [Ternary Weight Networks](https://arxiv.org/abs/1605.04711), and its code
    """

    precision = 2

    def __init__(self, factor: float = 0.7, **kwargs):
        super().__init__(**kwargs)
        self.factor = _not_negative(self, factor)

    def call(self, inputs, training=None):
        w = decisive(inputs, training)
        # Sums over a kernel are beyond half precision.
        w = tf.cast(w, tf.float32) if w.dtype.size < 4 else w
        magnitude = tf.abs(w)
        is_zero = magnitude <= self.factor * tf.reduce_mean(magnitude)
        signs = super().call(tf.cast(_ternary(w, is_zero), inputs.dtype))
        beyond = tf.reduce_sum(tf.where(is_zero, tf.zeros_like(w), magnitude))
        count = tf.reduce_sum(tf.cast(~is_zero, w.dtype))
        return scale_forward_only(signs, tf.cast(beyond / (count + 1e-6), inputs.dtype))

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


@tf.custom_gradient
def _two_scales(signs, positive, negative):
    above, below = (tf.cast(signs == side, signs.dtype) for side in (1, -1))

    def grad(dy):
        slope = above * positive + below * negative + (1 - above - below)
        return dy * slope, tf.reduce_sum(dy * above), -tf.reduce_sum(dy * below)

    return above * positive - below * negative, grad


@lq.utils.register_alias("trained_ternary")
@lq.utils.register_keras_custom_object
class TrainedTernary(QuantizerWithVariables):
    r"""Kernel quantizer of TTQ: \\(-W_n\\), 0 or \\(W_p\\), two learned scales for the whole kernel.

    \\[
    \Delta = f \max\left|w\right| \qquad
    q(w) = \begin{cases}
      -W_n & w \leq -\Delta \\\
      0 & \left|w\right| < \Delta \\\
      W_p & w \geq \Delta
    \end{cases}
    \qquad
    \frac{\partial q(w)}{\partial w} = \begin{cases}
      W_n & w \leq -\Delta \\\
      1 & \left|w\right| < \Delta \\\
      W_p & w \geq \Delta
    \end{cases}
    \\]

    The gradient of `positive` \\(W_p\\) is the sum of the gradient over the weights of the last zone, that of
    `negative` \\(W_n\\) minus the sum over those of the first. Both are scalars that start at 1. The threshold follows
    the latent weights in each step, and is a constant in the backward pass.

    The scales belong to one kernel: give each convolution its own object. Larq Compute Engine packs two values, so a
    convolution with ternary weights stays float.

    # Arguments
        factor: \\(f\\), 0.05 in the paper, not negative.
        metrics: An array of metrics to add to the layer. If `None` the metrics set in
            `larq.context.metrics_scope` are used. `flip_ratio` counts weights that change their zone.

    # Input shape
        Any shape.

    # Output shape
        Same as the input.

    # Raises
        ValueError: if `factor` is negative.

    # References
        - [Trained Ternary Quantization](https://arxiv.org/abs/1612.01064), equations 6 to 9, and its code
    """

    precision = 2
    schedule = None
    # Both weights scale.
    coefficients: ClassVar[dict] = {}

    def __init__(self, factor: float = 0.05, **kwargs):
        super().__init__(**kwargs)
        self.factor = _not_negative(self, factor)

    def build(self, input_shape):
        self.positive = self.add_weight("positive", (), initializer="ones")
        self.negative = self.add_weight("negative", (), initializer="ones")
        super().build(input_shape)

    def call(self, inputs):
        # A maximum and one product: they round alike wherever they are computed.
        magnitude = tf.abs(inputs)
        signs = super().call(_ternary(inputs, magnitude < self.factor * tf.reduce_max(magnitude)))
        return _two_scales(signs, *(tf.cast(scale, inputs.dtype) for scale in (self.positive, self.negative)))

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


def _not_negative(quantizer, factor: float) -> float:
    if factor < 0:
        raise ValueError(f"{type(quantizer).__name__} '{quantizer.name}' needs factor >= 0, but got factor={factor}.")
    return factor
