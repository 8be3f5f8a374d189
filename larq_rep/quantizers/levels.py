"""Input quantizers of several levels from 0 on, which deploy as one binary convolution for each bit."""

import math
from collections.abc import Sequence
from itertools import pairwise

import larq as lq
import numpy as np
import tensorflow as tf

from larq_rep._keras import BaseQuantizer
from larq_rep.quantizers.base import MovingQuantizer, straight_through


def _bits(x, thresholds):
    """The two bits of the number of thresholds below x, the higher one first, as signs: +1 for the bit 0.

    Each threshold meets x in one subtraction, because the sign of more than that depends on TensorFlow's order.
    """
    low, middle, high = thresholds
    higher = lq.math.sign(middle - x)
    # Up to the middle, the last argument is -1 and `high - x` positive; above it, 1 and `low - x` negative.
    return higher, lq.math.sign(tf.maximum(low - x, tf.minimum(high - x, -higher)))


def _planes(weights, signs):
    """The planes of the sum of weights over the bits that are 1."""
    factors = [-weight / 2 for weight in weights]
    return -sum(factors), [*zip(factors, signs, strict=True)]


def _level(weights, signs):
    return sum(weight / 2 * (1 - sign) for weight, sign in zip(weights, signs, strict=True))


@lq.utils.register_alias("thermometer")
@lq.utils.register_keras_custom_object
class Thermometer(BaseQuantizer):
    r"""Input quantizer of HWGQ: the level whose number is that of the thresholds below the input.

    \\[
    q(x) = l_i \qquad i = \sum_j 1_{x > t_j}
    \qquad
    \frac{\partial q(x)}{\partial x} = \begin{cases}
      1 & 0 < x \leq l_{\max} \\\
      0 & \text{otherwise}
    \end{cases}
    \\]

    The default is HWGQ's for two bits, the best for half of a normal distribution. The last level is the sum of the two
    before, so that each bit adds a number of its own.

    # Arguments
        thresholds: Three ascending numbers.
        levels: Four ascending numbers, of which the first is 0 and the last the sum of the second and the third.

    # Input shape
        Any shape.

    # Output shape
        Same as the input.

    # Raises
        ValueError: if thresholds or levels are not such numbers.

    # References
        - [Deep Learning with Low Precision by Half-wave Gaussian Quantization](https://arxiv.org/abs/1702.00953), and
            its code
    """

    precision = 2

    def __init__(
        self,
        thresholds: Sequence[float] = (0.0, 0.807, 1.345),
        levels: Sequence[float] = (0.0, 0.538, 1.076, 1.614),
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.thresholds, self.levels = tuple(thresholds), tuple(levels)
        if (
            (len(self.thresholds), len(self.levels)) != (3, 4)
            or not all(a < b for ascending in (self.thresholds, self.levels) for a, b in pairwise(ascending))
            or self.levels[0] != 0
            or not math.isclose(self.levels[3], self.levels[1] + self.levels[2], rel_tol=1e-6)
        ):
            raise ValueError(
                f"Thermometer '{self.name}' needs three ascending thresholds and four ascending levels, the first 0 "
                f"and the last the sum of the two before, but got {self.thresholds} and {self.levels}."
            )
        self._weights = self.levels[2], self.levels[1]

    def call(self, inputs):
        return straight_through(
            inputs,
            lambda x: _level(self._weights, _bits(x, self.thresholds)),
            lambda x: (x > 0) & (x <= self.levels[-1]),
        )

    def planes(self, x):
        return _planes(self._weights, _bits(x, self.thresholds))

    def get_config(self):
        return {**super().get_config(), "thresholds": self.thresholds, "levels": self.levels}


@lq.utils.register_alias("uniform_quantizer")
@lq.utils.register_keras_custom_object
class Uniform(lq.quantizers.DoReFa):
    r"""Input quantizer of DoReFa-Net: \\(2^b\\) levels from 0 to 1.

    \\[
    q(x) = \frac{\operatorname{round}\left((2^b - 1) \operatorname{clip}(x, 0, 1)\right)}{2^b - 1}
    \qquad
    \frac{\partial q(x)}{\partial x} = \begin{cases}
      1 & 0 \leq x \leq 1 \\\
      0 & \text{otherwise}
    \end{cases}
    \\]

    Halves are rounded to even. It is `lq.quantizers.DoReFa(b, mode="activations")` under the name of its function.

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
        - [DoReFa-Net: Training Low Bitwidth Convolutional Neural Networks with Low Bitwidth
            Gradients](https://arxiv.org/abs/1606.06160), equations 5 and 11
    """

    def __init__(self, bits: int = 2, **kwargs):
        super().__init__(k_bit=bits, mode="activations", **kwargs)
        if not isinstance(bits, int) or isinstance(bits, bool) or bits < 1:
            raise ValueError(f"Uniform '{self.name}' needs an integer bits >= 1, but got bits={bits!r}.")

    def get_config(self):
        return {**BaseQuantizer.get_config(self), "bits": self.precision}


@lq.utils.register_alias("learned_levels")
@lq.utils.register_keras_custom_object
class LearnedLevels(MovingQuantizer):
    r"""Input quantizer of LQ-Nets for two bits: four levels that follow the activations in training.

    \\[
    q(x) = \text{the nearest of } 0,\; v_1,\; v_2,\; v_1 + v_2
    \qquad
    \frac{\partial q(x)}{\partial x} = \begin{cases}
      1 & x \leq v_1 + v_2 \\\
      0 & x > v_1 + v_2
    \end{cases}
    \\]

    \\(v_1 < v_2\\) are the weight `levels`, and an x in the middle of two levels takes the lower. With
    the bits \\(B\\) of a batch, one row for each x, a step of training takes

    \\[
    v \leftarrow 0.9\, v + 0.1 \left(B^\top B + 10^{-4}\right)^{-1} \left(B^\top x + 10^{-4} v\right)
    \\]

    after it has used the \\(v\\) of before: least squares, of the whole layer. Use it behind a ReLU: an x below 0
    becomes 0, but its gradient passes.

    # Arguments
        bits: 2. With more, the order of the levels would depend on \\(v\\), and so would which signs give them.

    # Input shape
        Any shape.

    # Output shape
        Same as the input.

    # Raises
        ValueError: if `bits` is not 2.

    # References
        - [LQ-Nets: Learned Quantization for Highly Accurate and Compact Deep Neural
            Networks](https://arxiv.org/abs/1807.10029), its code
    """

    precision = 2

    def __init__(self, bits: int = 2, **kwargs):
        super().__init__(**kwargs)
        if bits != 2:
            raise ValueError(f"LearnedLevels '{self.name}' has 2 bits, but got bits={bits!r}.")

    def build(self, input_shape):
        # 0.6745 is the median magnitude of normal activations.
        self.levels = self._add_moving(
            "levels", (2,), tf.keras.initializers.Constant(0.6745 * 2 / 3 * np.array([1.0, 2.0]))
        )
        super().build(input_shape)

    def _ordered(self, dtype):
        """The numbers of the higher and of the lower bit, and the thresholds."""
        first, second = tf.unstack(tf.cast(self.levels, dtype))
        low, high = tf.minimum(first, second), tf.maximum(first, second)
        return (high, low), (low / 2, (low + high) / 2, high + low / 2)

    def call(self, inputs, training=None):
        weights, thresholds = self._ordered(inputs.dtype)
        signs = _bits(tf.stop_gradient(inputs), thresholds)
        outputs = straight_through(inputs, lambda x: _level(weights, signs), lambda x: x <= weights[0] + weights[1])
        self._follow(lambda: self._fitted(tf.stop_gradient(inputs), signs), 0.1, training)
        return outputs

    def _fitted(self, x, signs):
        """The least squares of the levels for these bits of x."""
        dtype = self.levels.dtype
        high, low = (tf.cast(sign < 0, dtype) for sign in signs)
        both, x = low * high, tf.cast(x, dtype)
        # In float32 the added number is lost beside the sums: if all bits are 1, there is no solution then.
        n_low, n_both, n_high, x_low, x_high = (
            tf.cast(tf.reduce_sum(part), tf.float64) for part in (low, both, high, low * x, high * x)
        )
        gram = tf.stack([[n_low, n_both], [n_both, n_high]]) + 1e-4 * tf.eye(2, dtype=tf.float64)
        sums = tf.stack([x_low, x_high]) + 1e-4 * tf.cast(tf.sort(self.levels), tf.float64)
        return tf.cast(tf.squeeze(tf.linalg.solve(gram, sums[:, tf.newaxis]), axis=1), dtype)

    def planes(self, x):
        weights, thresholds = self._ordered(x.dtype)
        return _planes(weights, _bits(x, thresholds))

    def get_config(self):
        return {**super().get_config(), "bits": self.precision}


@lq.utils.register_alias("zero_one_sign")
@lq.utils.register_keras_custom_object
class ZeroOneSign(BaseQuantizer):
    r"""Input quantizer of SiBNN: 1 above 0, otherwise 0.

    \\[
    q(x) = 1_{x > 0}
    \qquad
    \frac{\partial q(x)}{\partial x} = \begin{cases}
      1 & -0.3 < x < 1 \\\
      0 & \text{otherwise}
    \end{cases}
    \\]

    # Arguments
        metrics: An array of metrics to add to the layer, as for Larq's quantizers.

    # Input shape
        Any shape.

    # Output shape
        Same as the input.

    # References
        - SiBNN's code, https://github.com/peiswang/SiBNN
    """

    precision = 1
    zero_is_positive = False

    def _signs(self, x):
        # Not -x, which makes -0.0 of the 0 of a ReLU: to LCE on phones that is negative.
        return [lq.math.sign(0.0 - x)]

    def call(self, inputs):
        outputs = straight_through(inputs, lambda x: _level([1], self._signs(x)), lambda x: ~self.saturated(x))
        return super().call(outputs)

    def planes(self, x):
        return _planes([1], self._signs(x))

    def value(self, x):
        return x

    def window(self, x):
        return 1.0

    def saturated(self, x):
        return (x <= -0.3) | (x >= 1)
