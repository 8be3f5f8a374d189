"""The kernel quantizer of INQ."""

from typing import ClassVar

import larq as lq
import numpy as np
import tensorflow as tf

from larq_rep.quantizers.base import QuantizerWithVariables
from larq_rep.quantizers.callbacks import INQ_FRACTIONS, INQSchedule


@lq.utils.register_alias("power_of_two")
@lq.utils.register_keras_custom_object
class PowerOfTwo(QuantizerWithVariables):
    r"""Kernel quantizer of INQ: weights become powers of two or 0, the largest ones first.

    \\[
    q(w) = \begin{cases}
      w & \text{free} \\\
      p & \text{frozen at } p
    \end{cases}
    \qquad
    \frac{\partial q(w)}{\partial w} = \begin{cases}
      1 & \text{free} \\\
      0 & \text{frozen}
    \end{cases}
    \\]

    `freeze` freezes weights, so that at the end of `INQSchedule` all are frozen. With \\(b\\) bits the levels are

    \\[
    p \in \{0, \pm 2^{n_2}, \dots, \pm 2^{n_1}\} \qquad
    n_1 = \left\lfloor \log_2 \left(\tfrac{4}{3} \max\left|w\right|\right) \right\rfloor \qquad
    n_2 = n_1 + 1 - 2^{b - 2}
    \\]

    with the largest weight before any was frozen. A weight goes to \\(\pm 2^i\\) if
    \\(\tfrac{3}{4} 2^i \leq \left|w\right| < \tfrac{3}{2} 2^i\\), to 0 if it is below half of the smallest power, and
    to the smallest or largest power if it is between that and its interval or above all.

    What is frozen is state of the layer, which files keep: `codes`, int8, of the kernel's shape, and `largest`, which
    is \\(2^{n_1}\\). Code 0 is a free weight, \\(\pm m\\) are \\(\pm 2^{n_1 + 1 - m}\\), and the magnitude above that
    of the smallest power is the level 0. Momentum and weight decay may change the latent weights of frozen ones, to no
    effect.

    The codes belong to one kernel: give each convolution its own object. `lq.models.summary` counts them as
    multiplications of the convolution, `larq_rep.cost.count` does not. A convolution with these weights stays float;
    with 2 bits its weights are stored as int8 without loss.

    # Arguments
        bits: 2 to 5.
        metrics: An array of metrics to add to the layer, as for Larq's quantizers. Its `flip_ratio` is of the signs.

    # Input shape
        Any shape.

    # Output shape
        Same as the input.

    # Raises
        ValueError: if `bits` is another number, or the shape of the kernel differs from that of an earlier call.

    # References
        - [Incremental Network Quantization: Towards Lossless CNNs with Low-Precision
            Weights](https://arxiv.org/abs/1702.03044), equations 1 to 4 and 8
    """

    schedule = INQSchedule
    coefficients: ClassVar[dict] = {}

    def __init__(self, bits: int = 5, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(bits, int) or bits not in INQ_FRACTIONS:
            raise ValueError(f"PowerOfTwo '{self.name}' needs 2 to 5 bits, but got bits={bits!r}.")
        self.precision = bits
        self._powers = 2 ** (bits - 2)

    def build(self, input_shape):
        shape = tuple(input_shape)
        self.codes = self.add_weight("codes", shape, "int8", initializer="zeros", trainable=False)
        self.largest = self.add_weight("largest", (), initializer="ones", trainable=False)
        super().build(input_shape)

    @property
    def _state(self):
        return [self.codes, self.largest] if self.built else []

    def call(self, inputs):
        self._check(inputs)
        # No power is computed, which would be rounded.
        magnitudes = tf.constant([0, *(2.0**-m for m in range(self._powers)), 0], inputs.dtype)
        codes = tf.cast(self.codes, tf.int32)
        levels = tf.cast(self.largest, inputs.dtype) * tf.gather(magnitudes, tf.abs(codes))
        results = tf.where(codes == 0, inputs, levels * tf.cast(tf.sign(codes), inputs.dtype))
        super().call(tf.sign(results))
        return results

    def freeze(self, kernel, fraction: float) -> None:
        """Freezes the largest free weights, so that a fraction of all is frozen.

        # Arguments
            kernel: The latent weights that this object quantizes, `layer.kernel`.
            fraction: How many are frozen then; never fewer than before.
        """
        self._check(kernel)
        w = tf.convert_to_tensor(kernel).numpy().astype("float64").ravel()
        codes = tf.convert_to_tensor(self.codes).numpy().ravel()
        magnitude = np.abs(w)
        # Of x = m 2^e with 1/2 <= m < 1, the logarithm is rounded down to e - 1.
        exponents = np.frexp(4 * magnitude / 3)[1] - 1
        if not codes.any():
            # Not the largest exponent: that of a weight of 0 is -1.
            self.largest.assign(2.0 ** exponents[magnitude.argmax()])
        largest = float(self.largest)
        steps = np.clip(np.frexp(largest)[1] - exponents, 1, self._powers)
        steps[magnitude < largest * 2.0**-self._powers] = self._powers + 1
        (free,) = np.nonzero(codes == 0)
        count = max(round(fraction * w.size) - (w.size - free.size), 0)
        chosen = free[np.argsort(-magnitude[free], kind="stable")[:count]]
        codes[chosen] = np.where(w < 0, -steps, steps)[chosen]
        self.codes.assign(codes.reshape(self.codes.shape))

    def _check(self, kernel):
        if kernel.shape != self.codes.shape:
            raise ValueError(
                f"PowerOfTwo '{self.name}' has codes for a kernel of shape {tuple(self.codes.shape)}, but was "
                f"called on shape {tuple(kernel.shape)}: give each convolution a PowerOfTwo() of its own."
            )

    def get_config(self):
        return {**super().get_config(), "bits": self.precision}
