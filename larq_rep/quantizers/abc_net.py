"""Quantizers of ABC-Net: activations and weights as weighted sums of several binary ones."""

from typing import ClassVar

import larq as lq
import numpy as np
import tensorflow as tf

from larq_rep._keras import BaseQuantizer
from larq_rep.quantizers.base import QuantizerWithVariables, straight_through


def _spread(count: int) -> list[float]:
    """Numbers from -1 to 1 at equal distances; 0 if there is one."""
    return np.linspace(-1, 1, count).tolist() if count > 1 else [0.0]


def _check_bits(quantizer, bits) -> int:
    if not isinstance(bits, int) or isinstance(bits, bool) or bits < 1:
        raise ValueError(
            f"{type(quantizer).__name__} '{quantizer.name}' needs an integer bits >= 1, but got bits={bits!r}."
        )
    return bits


def _sign(x):
    return straight_through(x, lq.math.sign, lambda x: tf.abs(x) <= 0.5)


@lq.utils.register_alias("shifted_signs")
@lq.utils.register_keras_custom_object
class ShiftedSigns(QuantizerWithVariables):
    r"""Input quantizer of ABC-Net: a weighted sum of the signs of the input at several learned shifts.

    \\[
    q(x) = \sum_{j=1}^N b_j A_j(x) \qquad
    A_j(x) = \operatorname{sign}\left(x + v_j - \tfrac{1}{2}\right) \qquad
    \frac{\partial A_j(x)}{\partial x} = \begin{cases}
      1 & 0 \leq x + v_j \leq 1 \\\
      0 & \text{else}
    \end{cases}
    \\]

    The weights are `shifts` \\(v\\) and `scales` \\(b\\), shape `(N,)` each. The gradient of \\(v_j\\) is that of the
    input of \\(A_j\\), summed. Shifts begin at equal distances between -1 and 1 (0 if there is one) and scales with 1:
    equal shifts would get equal gradients and stay equal. They belong to one layer: give each convolution an object
    of its own.

    A convolution of this input is N binary convolutions, whose results are scaled by \\(b_j\\) and added.

    # Arguments
        bits: Number of signs N.
        metrics: An array of metrics to add to the layer, as for Larq's quantizers; only of one sign.

    # Input shape
        Any shape.

    # Output shape
        Same as the input.

    # Raises
        ValueError: if `bits` is not a positive integer.

    # References
        - [Towards Accurate Binary Convolutional Neural Network](https://arxiv.org/abs/1711.11294), section 3.2
    """

    # There is one shift for each sign, and none for a channel.
    coefficients: ClassVar[dict] = {}

    def __init__(self, bits: int = 1, **kwargs):
        super().__init__(**kwargs)
        self.precision = _check_bits(self, bits)

    def build(self, input_shape):
        start = tf.keras.initializers.Constant(_spread(self.precision))
        self.shifts = self.add_weight("shifts", (self.precision,), initializer=start)
        self.scales = self.add_weight("scales", (self.precision,), initializer="ones")
        super().build(input_shape)

    def call(self, inputs):
        _, planes = self.planes(inputs)
        if self.precision == 1:
            super().call(planes[0][1])
        return tf.add_n([scale * signs for scale, signs in planes])

    def planes(self, x):
        """The offset 0, and the pairs of a scale and the signs that are multiplied by it."""
        # In half precision outside of `call`, Keras does not cast weights.
        shifts = tf.unstack(tf.cast(self.shifts, x.dtype) - 0.5)
        scales = tf.unstack(tf.cast(self.scales, x.dtype))
        return 0.0, [(scale, _sign(x + shift)) for scale, shift in zip(scales, shifts, strict=True)]

    def value(self, x):
        return x + (tf.cast(self.shifts, x.dtype) - 0.5)

    def window(self, x):
        return 0.5

    def get_config(self):
        return {**super().get_config(), "bits": self.precision}


@tf.custom_gradient
def _replaced(w, quantized, slope):
    return tf.identity(quantized), lambda dy: (slope * dy, None, None)


@lq.utils.register_alias("basis_weights")
@lq.utils.register_keras_custom_object
class BasisWeights(BaseQuantizer):
    r"""Kernel quantizer of ABC-Net: the weights as a sum of binary kernels, each with a scale.

    \\[
    q(w) = \sum_{i=1}^M a_i B_i \qquad
    B_i = \operatorname{sign}\left(w - \operatorname{mean}(w) + u_i \operatorname{std}(w)\right) \qquad
    u_i = -1 + 2 \frac{i - 1}{M - 1} \qquad
    \frac{\partial B_i}{\partial w} = 1
    \\]

    Mean and deviation are those of the whole kernel; with \\(M = 1\\), \\(u_1 = 0\\). The scales \\(a\\) are one number
    for each binary kernel: the least squares solution of \\(w \approx \sum_i a_i B_i\\), that of the smallest norm if
    binary kernels are equal. They are constants in the backward pass, which multiplies the gradient by
    \\(\sum_i a_i\\). Everything is computed in float64, see `larq_rep.quantizers`.

    A convolution with this kernel is M convolutions with binary kernels, whose results are scaled and added.

    # Arguments
        bits: Number of binary kernels M.
        metrics: An array of metrics to add to the layer. If `None` the metrics set in
            `larq.context.metrics_scope` are used. `flip_ratio` counts flipped signs; only of one binary kernel.

    # Input shape
        Any shape.

    # Output shape
        Same as the input.

    # Raises
        ValueError: if `bits` is not a positive integer.

    # References
        - [Towards Accurate Binary Convolutional Neural Network](https://arxiv.org/abs/1711.11294), section 3.1
    """

    def __init__(self, bits: int = 1, **kwargs):
        super().__init__(**kwargs)
        self.precision = _check_bits(self, bits)

    def call(self, inputs):
        bases = self.bases(tf.stop_gradient(inputs))
        if self.precision == 1:
            super().call(bases[0][1])
        return _replaced(inputs, tf.add_n([a * b for a, b in bases]), tf.add_n([a for a, _ in bases]))

    def bases(self, w):
        """The pairs of a scale and the binary kernel that is multiplied by it."""
        exact = tf.cast(w, tf.float64)
        centred = exact - tf.reduce_mean(exact)
        deviation = tf.sqrt(tf.reduce_mean(centred**2))
        kernels = [lq.math.sign(centred + u * deviation) for u in _spread(self.precision)]
        rows = tf.stack([tf.reshape(kernel, [-1]) for kernel in kernels])
        count = tf.cast(tf.size(w), tf.float64)
        gram = tf.matmul(rows, rows, transpose_b=True) / count
        products = tf.linalg.matvec(rows, tf.reshape(exact, [-1])) / count
        # Equal binary kernels make the matrix singular.
        scales = tf.linalg.matvec(tf.linalg.pinv(gram, rcond=1e-9), products)
        return [(tf.cast(a, w.dtype), tf.cast(b, w.dtype)) for a, b in zip(tf.unstack(scales), kernels, strict=True)]

    def value(self, x):
        return x - tf.reduce_mean(x)

    def window(self, x):
        return None

    def get_config(self):
        return {**super().get_config(), "bits": self.precision}
