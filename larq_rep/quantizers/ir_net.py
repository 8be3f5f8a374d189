"""Quantizers of IR-Net."""

import larq as lq
import tensorflow as tf

from larq_rep.quantizers.base import SteepenedQuantizer, decisive, standardized
from larq_rep.quantizers.callbacks import EDESchedule


@tf.custom_gradient
def _ede_sign(x, t):
    def grad(dy):
        k = tf.maximum(1 / t, 1)
        return dy * k * t * (1 - tf.tanh(t * x) ** 2), None

    return lq.math.sign(x), grad


class _EDEQuantizer(SteepenedQuantizer):
    """Base class of quantizers with the error decay estimator as gradient of the sign."""

    schedule = EDESchedule

    def __init__(self, t: float = 0.1, **kwargs):
        super().__init__(t, **kwargs)

    def _sign(self, x, dtype):
        return super().call(tf.cast(_ede_sign(x, tf.cast(self.t, x.dtype)), dtype))


@lq.utils.register_alias("ede_sign")
@lq.utils.register_keras_custom_object
class EDESign(_EDEQuantizer):
    r"""Sign with the gradient of IR-Net's error decay estimator (EDE).

    \\[
    q(x) = \begin{cases}
      -1 & x < 0 \\\
      1 & x \geq 0
    \end{cases}
    \qquad
    \frac{\partial q(x)}{\partial x} = k t \left(1 - \tanh^2(t x)\right) \qquad k = \max(1/t, 1)
    \\]

    `t` grows during training, from nearly the identity to nearly the sign. It is a scalar variable that a
    callback sets, `quantizer.t.assign(0.2)`. It is not a weight of the layer: `get_config`, `.h5` and `.keras`
    files keep only the constructor's value.

    # Arguments
        t: Initial steepness, greater than 0.
        metrics: An array of metrics to add to the layer, as for Larq's quantizers.

    # Input shape
        Any shape.

    # Output shape
        Same as the input.

    # Raises
        ValueError: if `t` is not positive.

    # References
        - [Forward and Backward Information Retention for Accurate Binary Neural
            Networks](https://arxiv.org/abs/1909.10788)
    """

    def call(self, inputs):
        return self._sign(inputs, inputs.dtype)

    def value(self, x):
        return x

    def window(self, x):
        return None


@lq.utils.register_alias("libra_sign")
@lq.utils.register_keras_custom_object
class LibraSign(_EDEQuantizer):
    r"""Kernel quantizer of IR-Net: balanced (Libra) binarization with the error decay estimator as gradient.

    \\[
    z = \frac{w - \operatorname{mean}_o(w)}{\operatorname{std}_o(w)} \qquad
    s_o = 2^{\operatorname{round}(\log_2 \operatorname{mean}_o\left|z\right|)} \qquad
    q(w) = s_o \operatorname{sign}(z)
    \\]

    Mean and (unbiased) standard deviation are those of an output channel. The gradient passes through the
    standardisation; the sign has the gradient of `EDESign` at \\(z\\), and \\(s_o\\) is a constant. Larq Compute
    Engine evaluates all of it at conversion: a binary kernel and a positive scale per output channel remain.
    Signs and scales are decided in float64, except in training: see `larq_rep.quantizers`.

    A channel whose weights are all equal has no standard deviation and gives NaN, as in the authors' code.
    Quantizing quantized weights again can give another scale: save the latent weights, not (in
    `lq.context.quantized_scope(True)`) the binary ones.

    # Arguments
        t: Initial steepness of the gradient, greater than 0; see `EDESign`.
        metrics: An array of metrics to add to the layer. If `None` the metrics set in
            `larq.context.metrics_scope` are used. `flip_ratio` counts flipped signs.

    # Input shape
        A kernel whose last axis is the output channels, usually HWIO.

    # Output shape
        Same as the input.

    # Raises
        ValueError: if `t` is not positive.

    # References
        - [Forward and Backward Information Retention for Accurate Binary Neural
            Networks](https://arxiv.org/abs/1909.10788)
    """

    def call(self, inputs, training=None):
        axes = list(range(inputs.shape.rank - 1))
        z = self.value(decisive(inputs, training))
        # tf.round rounds halves to even, like the authors' code.
        exponent = tf.round(tf.math.log(tf.reduce_mean(tf.abs(z), axis=axes)) / tf.math.log(tf.cast(2, z.dtype)))
        return tf.stop_gradient(tf.cast(2.0**exponent, inputs.dtype)) * self._sign(z, inputs.dtype)

    def value(self, x):
        return standardized(x)

    def window(self, x):
        return None
