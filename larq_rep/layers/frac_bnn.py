"""Layers of FracBNN."""

import larq as lq
import numpy as np
import tensorflow as tf

_MINUS_ONE = tf.keras.initializers.Constant(-1.0)


@lq.utils.register_keras_custom_object
class ThermometerEncoding(tf.keras.layers.Layer):
    r"""Encodes an image in binary channels that are on up to the pixel's brightness, like a thermometer.

    \\[
    y_{c \cdot P + j} = \begin{cases}
      1 & j < \operatorname{round}(p_c / R) \\\
      -1 & \text{else}
    \end{cases}
    \qquad p = \operatorname{round}(255 x) \qquad j = 0, \ldots, P - 1
    \\]

    \\(P\\) is the largest count, \\(\operatorname{round}(255 / R)\\): 32 channels for each colour with the
    authors' resolution \\(R = 8\\). Halves \\(p / R\\) are rounded to even. The pixels are first rounded to integers
    (by thresholds halfway between integers), so it does not matter whether they were
    divided by 255 or multiplied by its inverse.

    The result is binary: the next convolution takes `input_quantizer=lq.quantizers.NoOp(precision=1)`,
    and Larq Compute Engine bitpacks it. No gradient passes.

    # Arguments
        resolution: How many of the 255 steps of a pixel one channel stands for, a positive integer.

    # Input shape
        `(batch, height, width, colours)`, the pixels from 0 to 1.

    # Output shape
        `(batch, height, width, colours * P)`

    # Raises
        ValueError: if `resolution` is not an integer from 1 to 255.

    # References
        - [FracBNN: Accurate and FPGA-Efficient Binary Neural Networks with Fractional
            Activations](https://arxiv.org/abs/2012.12206), section 3.2
    """

    def __init__(self, resolution: int = 8, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(resolution, int) or not 1 <= resolution <= 255:
            raise ValueError(
                f"ThermometerEncoding '{self.name}' needs an integer resolution from 1 to 255, but got "
                f"resolution={resolution!r}."
            )
        self.resolution = resolution

    def _first_pixels(self) -> np.ndarray:
        """The darkest pixel that turns on each channel of a colour."""
        counts = np.rint(np.arange(256) / self.resolution)
        return np.searchsorted(counts, np.arange(1, counts[-1] + 1))

    def call(self, inputs):
        first = self._first_pixels()
        colours = inputs.shape[-1]
        channels = tf.gather(inputs, np.repeat(np.arange(colours), len(first)), axis=-1)
        thresholds = tf.constant(np.tile((first - 0.5) / 255, colours), channels.dtype)
        return lq.math.sign(channels - thresholds)

    def compute_output_shape(self, input_shape):
        *rest, colours = tf.TensorShape(input_shape)
        return tf.TensorShape([*rest, colours and colours * len(self._first_pixels())])

    def get_config(self):
        return {**super().get_config(), "resolution": self.resolution}


@tf.custom_gradient
def _gate(x):
    def grad(dy):
        opened = tf.sigmoid(5 * x)
        return tf.where(x >= 0, dy * 5 * opened * (1 - opened), tf.zeros_like(dy))

    return tf.cast(x > 0, x.dtype), grad


@lq.utils.register_keras_custom_object
class PrecisionGate(tf.keras.layers.Layer):
    r"""Adds the low bit's convolution to the high bit's where the latter is large: fractional activations.

    \\[
    y = \tfrac{2}{3} h + g \cdot \tfrac{1}{3} l \qquad
    g = \begin{cases} 1 & \tfrac{2}{3} h > \vartheta_o \\\ 0 & \text{else} \end{cases}
    \qquad
    \frac{\partial g}{\partial \left(\tfrac{2}{3} h - \vartheta_o\right)} = \begin{cases}
      5 \sigma (1 - \sigma) & g = 1 \\\ 0 & \text{else}
    \end{cases}
    \qquad \sigma = \operatorname{sigmoid}\left(5 \left(\tfrac{2}{3} h - \vartheta_o\right)\right)
    \\]

    \\(h\\) and \\(l\\) are the results of one convolution on the high and the low bit of the activations. Both
    are binary convolutions with the same kernel:

    ```python
    conv = lq.layers.QuantConv2D(
        16,
        3,
        padding="same",
        use_bias=False,
        input_quantizer=lq.quantizers.NoOp(precision=1),
        kernel_quantizer=lq.quantizers.SteSign(clip_value=1.3),
    )
    y = PrecisionGate()([conv(QuantSign(bits=1)(x)), conv(LowBitSign()(x))])
    ```

    This has the value and the gradients of the authors' layer, which chooses between the convolutions of
    \\(\tfrac{2}{3} h\\) and of the activations of two bits. The weight is `threshold` \\(\vartheta\\), shape
    `(channels,)`. The authors add \\(0.5 \cdot 10^{-5} \sum_o \vartheta_o^2\\) to the loss:
    `threshold_regularizer=tf.keras.regularizers.L2(0.5e-5)`.

    # Arguments
        threshold_initializer: Initializer of `threshold`, by default the constant -1.
        threshold_regularizer: Regularizer of `threshold`.

    # Input shape
        A list of two tensors `(..., channels)`, the convolutions of the high and of the low bit.

    # Output shape
        Same as one input.

    # Raises
        ValueError: if the number of channels is unknown.

    # References
        - [FracBNN: Accurate and FPGA-Efficient Binary Neural Networks with Fractional
            Activations](https://arxiv.org/abs/2012.12206), section 3.3
    """

    # After RepTran a convolution has fewer filters and is repeated, so it has that many thresholds.
    belongs_to_convolution = True

    def __init__(self, threshold_initializer=_MINUS_ONE, threshold_regularizer=None, **kwargs):
        super().__init__(**kwargs)
        self.threshold_initializer = tf.keras.initializers.get(threshold_initializer)
        self.threshold_regularizer = tf.keras.regularizers.get(threshold_regularizer)

    def build(self, input_shape):
        channels = input_shape[0][-1]
        if channels is None:
            raise ValueError(
                f"PrecisionGate '{self.name}' has one threshold per channel, but the last axis of its input, "
                f"shape {tuple(input_shape[0])}, is unknown: give the model's Input a fixed number of channels."
            )
        self.threshold = self.add_weight(
            "threshold", (channels,), initializer=self.threshold_initializer, regularizer=self.threshold_regularizer
        )
        super().build(input_shape)

    def call(self, inputs):
        high, low = inputs
        high = high * (2 / 3)
        return high + _gate(high - self.threshold) * (low * (1 / 3))

    def compute_output_shape(self, input_shape):
        return input_shape[0]

    def get_config(self):
        return {
            **super().get_config(),
            "threshold_initializer": tf.keras.initializers.serialize(self.threshold_initializer),
            "threshold_regularizer": tf.keras.regularizers.serialize(self.threshold_regularizer),
        }
