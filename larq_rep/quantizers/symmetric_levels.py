"""Input quantizers of several levels around 0, which deploy as sums of binary convolutions."""

from typing import ClassVar

import larq as lq
import tensorflow as tf
from larq.quantizers import ste_sign

from larq_rep.quantizers.base import MovingQuantizer, straight_through


@lq.utils.register_alias("ternary_input")
@lq.utils.register_keras_custom_object
class TernaryInput(MovingQuantizer):
    r"""Input quantizer of TBN: -1, 0 or 1.

    \\[
    q(x) = 1_{x \geq D} - 1_{x \leq -D}
    \qquad
    \frac{\partial q(x)}{\partial x} = \begin{cases}
      1 & \left|x\right| \leq 1 \\\
      0 & \left|x\right| > 1
    \end{cases}
    \\]

    \\(D\\) is the weight `threshold`. It starts at \\(0.7979\, \delta\\), as normal activations have it. A step of
    training takes

    \\[ D \leftarrow (1 - m)\, D + m\, \delta \operatorname{mean}\left|x\right| \\]

    after it has used the \\(D\\) of before.

    # Arguments
        delta: \\(\delta > 0\\), 0.4 as in the paper. The authors' code has 0.5.
        momentum: \\(m\\), the share of a batch, from 0, which keeps \\(D\\), to 1.
        metrics: An array of metrics to add to the layer, as for Larq's quantizers.

    # Input shape
        Any shape.

    # Output shape
        Same as the input.

    # Raises
        ValueError: if `delta` is not positive, or `momentum` not from 0 to 1.

    # References
        - [TBN: Convolutional Neural Network with Ternary Inputs and Binary
            Weights](https://openaccess.thecvf.com/content_ECCV_2018/html/Diwen_Wan_TBN_Convolutional_Neural_ECCV_2018_paper.html),
            and its code
    """

    precision = 2

    def __init__(self, delta: float = 0.4, momentum: float = 0.1, **kwargs):
        super().__init__(**kwargs)
        if not delta > 0 or not 0 <= momentum <= 1:
            raise ValueError(
                f"TernaryInput '{self.name}' needs delta > 0 and a momentum from 0 to 1, but got delta={delta} and "
                f"momentum={momentum}."
            )
        self.delta, self.momentum = delta, momentum

    def build(self, input_shape):
        self.threshold = self._add_moving("threshold", (), tf.keras.initializers.Constant(0.7979 * self.delta))
        super().build(input_shape)

    def _signs(self, x):
        threshold = tf.cast(self.threshold, x.dtype)
        return lq.math.sign(x - threshold), lq.math.sign(-x - threshold)

    def call(self, inputs, training=None):
        above, below = self._signs(inputs)
        outputs = straight_through(inputs, lambda x: (above - below) / 2, lambda x: tf.abs(x) <= 1)
        magnitudes = tf.abs(tf.cast(inputs, self.threshold.dtype))
        self._follow(lambda: self.delta * tf.reduce_mean(magnitudes), self.momentum, training)
        return super().call(outputs)

    def planes(self, x):
        above, below = self._signs(x)
        return 0.0, [(0.5, above), (-0.5, below)]

    def get_config(self):
        return {**super().get_config(), "delta": self.delta, "momentum": self.momentum}


@lq.utils.register_alias("residual_signs")
@lq.utils.register_keras_custom_object
class ResidualSigns(MovingQuantizer):
    r"""Input quantizer of HORQ and ReBNet: the sign, plus the sign of what is left, and so on.

    \\[
    q(x) = \sum_{i=1}^N b_i H_i \qquad
    H_i = \operatorname{sign}(r_i) \qquad r_i = x - \sum_{j < i} b_j H_j
    \qquad
    \frac{\partial H_i}{\partial r_i} = \begin{cases}
      1 & \left|r_i\right| \leq 1 \\\
      0 & \left|r_i\right| > 1
    \end{cases}
    \\]

    The scales \\(b\\) are those of a layer, the weight `scales`. They start at \\(b_i = 2^{-i}\\), the mean magnitude
    of \\(r_i\\) if x is spread evenly from -1 to 1. `"ema"` takes

    \\[ b_i \leftarrow 0.9\, b_i + 0.1 \operatorname{mean}\left|r_i\right| \\]

    in a step of training, after it has used the \\(b\\) of before. HORQ has one mean for each window of a convolution,
    which is no convolution of signs. `"trained"` are trained, as in ReBNet. The gradient passes through the residuals.

    # Arguments
        stages: \\(N \geq 2\\).
        scale: `"ema"` or `"trained"`.

    # Input shape
        Any shape.

    # Output shape
        Same as the input.

    # Raises
        ValueError: if `stages` is not an integer of at least 2, or `scale` is neither.

    # References
        - [Performance Guaranteed Network Acceleration via High-Order Residual
            Quantization](https://arxiv.org/abs/1708.08687)
        - [ReBNet: Residual Binarized Neural Network](https://arxiv.org/abs/1711.01243)
    """

    # `scales` scale.
    coefficients: ClassVar[dict] = {}

    def __init__(self, stages: int = 2, scale: str = "ema", **kwargs):
        super().__init__(**kwargs)
        if not isinstance(stages, int) or stages < 2 or scale not in ("ema", "trained"):
            raise ValueError(
                f"ResidualSigns '{self.name}' needs an integer stages >= 2 and the scale 'ema' or 'trained', but got "
                f"stages={stages!r} and scale={scale!r}."
            )
        self.precision, self.scale = stages, scale

    def build(self, input_shape):
        initializer = tf.keras.initializers.Constant([2.0**-stage for stage in range(1, self.precision + 1)])
        if self.scale == "ema":
            self.scales = self._add_moving("scales", (self.precision,), initializer)
        else:
            self.scales = self.add_weight("scales", (self.precision,), initializer=initializer)
        super().build(input_shape)

    def _stages(self, x):
        """The scale, the residual and its sign of each stage."""
        for scale in tf.unstack(tf.cast(self.scales, x.dtype)):
            sign = ste_sign(x)
            yield scale, x, sign
            x -= scale * sign

    def call(self, inputs, training=None):
        stages = [*self._stages(inputs)]
        if self.scale == "ema":
            dtype = self.scales.dtype
            self._follow(
                lambda: tf.stack([tf.reduce_mean(tf.abs(tf.cast(rest, dtype))) for _, rest, _ in stages]), 0.1, training
            )
        return tf.add_n([scale * sign for scale, _, sign in stages])

    def planes(self, x):
        return 0.0, [(scale, sign) for scale, _, sign in self._stages(x)]

    def get_config(self):
        return {**super().get_config(), "stages": self.precision, "scale": self.scale}
