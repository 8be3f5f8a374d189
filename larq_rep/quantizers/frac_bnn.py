"""Quantizers of FracBNN's activations. Its kernels use `lq.quantizers.SteSign(clip_value=1.3)`."""

import larq as lq
import tensorflow as tf

from larq_rep._keras import BaseQuantizer


def _passed_inside(x, dy):
    return tf.where(tf.abs(x) < 1, dy, tf.zeros_like(dy))


@tf.custom_gradient
def _sign(x):
    return lq.math.sign(x), lambda dy: _passed_inside(x, dy)


@tf.custom_gradient
def _low_bit(x):
    return lq.math.sign(x - 2 / 3 * lq.math.sign(x)), lambda dy: _passed_inside(x, dy)


@lq.utils.register_alias("quant_sign")
@lq.utils.register_keras_custom_object
class QuantSign(BaseQuantizer):
    r"""Input quantizer of FracBNN: \\(2^b\\) levels from -1 to 1.

    \\[
    q(x) = \delta \operatorname{round}\left(\frac{\operatorname{clip}(x, -1, 1) + 1}{\delta}\right) - 1
    \qquad \delta = \frac{2}{2^b - 1}
    \qquad
    \frac{\partial q(x)}{\partial x} = \begin{cases}
      1 & \left|x\right| < 1 \\\
      0 & \left|x\right| \geq 1
    \end{cases}
    \\]

    Halves are rounded to even. With one bit this is the sign, and 0 becomes +1 as everywhere in Larq (-1 in
    the authors' code). With two bits the levels are -1, -1/3, 1/3 and 1. No published code has the network
    with one bit; we assume that its gradient follows this formula.

    Two bits are two signs, \\((2 b_1 + b_0) / 3\\); `QuantSign(bits=1)` gives \\(b_1\\), `LowBitSign` \\(b_0\\).

    # Arguments
        bits: Number of bits, an integer of at least 1.
        metrics: An array of metrics to add to the layer, as for Larq's quantizers.

    # Input shape
        Any shape.

    # Output shape
        Same as the input.

    # Raises
        ValueError: if `bits` is not a positive integer.

    # References
        - [FracBNN: Accurate and FPGA-Efficient Binary Neural Networks with Fractional
            Activations](https://arxiv.org/abs/2012.12206)
    """

    def __init__(self, bits: int = 2, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(bits, int) or bits < 1:
            raise ValueError(f"QuantSign '{self.name}' needs an integer bits >= 1, but got bits={bits!r}.")
        self.precision = bits

    def call(self, inputs):
        if self.precision == 1:
            return super().call(_sign(inputs))

        @tf.custom_gradient
        def quantize(x):
            steps = 2**self.precision - 1
            levels = tf.round((tf.clip_by_value(x, -1.0, 1.0) + 1) * (steps / 2))
            return 2 * levels / steps - 1, lambda dy: _passed_inside(x, dy)

        return super().call(quantize(inputs))

    def value(self, x):
        return x

    def window(self, x):
        return 1.0

    def get_config(self):
        return {**super().get_config(), "bits": self.precision}


@lq.utils.register_alias("low_bit_sign")
@lq.utils.register_keras_custom_object
class LowBitSign(BaseQuantizer):
    r"""The lower of the two bits of FracBNN's activations, as a sign.

    \\[
    b_0 = \operatorname{sign}\left(x - \tfrac{2}{3} b_1\right) \qquad b_1 = \operatorname{sign}(x)
    \qquad
    \frac{\partial b_0}{\partial x} = \begin{cases}
      1 & \left|x\right| < 1 \\\
      0 & \left|x\right| \geq 1
    \end{cases}
    \\]

    \\((2 b_1 + b_0) / 3\\) equals `QuantSign(bits=2)`, in value and gradient, except where that rounds
    a half: at \\(\left|x\right| = 2/3\\) and, to the last bit, around 0. `larq_rep.layers.PrecisionGate` has
    an example.

    # Arguments
        metrics: An array of metrics to add to the layer, as for Larq's quantizers.

    # Input shape
        Any shape.

    # Output shape
        Same as the input.

    # References
        - [FracBNN: Accurate and FPGA-Efficient Binary Neural Networks with Fractional
            Activations](https://arxiv.org/abs/2012.12206)
    """

    precision = 1

    def call(self, inputs):
        return super().call(_low_bit(inputs))

    def value(self, x):
        return x - 2 / 3 * lq.math.sign(x)

    def window(self, x):
        # A value beyond 1/3 may come from an x near 0 or from an x beyond 1.
        return 2 / 3

    def saturated(self, x):
        return tf.abs(x) >= 1
