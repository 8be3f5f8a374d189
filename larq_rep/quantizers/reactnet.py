"""Quantizers of ReActNet and Bi-Real-Net."""

from typing import Any, ClassVar

import larq as lq
import tensorflow as tf

from larq_rep.quantizers.base import QuantizerWithVariables
from larq_rep.quantizers.scaled_binary import ScaledBinaryForm


# Same as Larq's `approx_sign`, with half as many passes over the activations.
@tf.custom_gradient
def _approx_sign(x):
    return lq.math.sign(x), lambda dy: dy * tf.maximum(2 - 2 * tf.abs(x), 0)


@lq.utils.register_alias("r_sign")
@lq.utils.register_keras_custom_object
class RSign(QuantizerWithVariables):
    r"""ReAct-Sign: the sign of the input shifted by one learnable number per channel.

    \\[
    q(x) = \begin{cases}
      -1 & x + b_c < 0 \\\
      1 & x + b_c \geq 0
    \end{cases}
    \qquad
    \frac{\partial q(x)}{\partial x} = \begin{cases}
      2 - 2 \left|x + b_c\right| & \left|x + b_c\right| \leq 1 \\\
      0 & \left|x + b_c\right| > 1
    \end{cases}
    \\]

    The gradient of `bias` \\(b\\), shape `(channels,)`, is the gradient of the input summed over all axes except the
    channels, as in the authors' code (equation 6 of the paper, in \\(\alpha = -b\\), omits the factor above).

    As `input_quantizer` the shift belongs to the weights of that convolution. Where two convolutions share a
    binary input, use `RSign` as a layer. Their input quantizer then only marks the precision, so that
    `lq.models.summary` counts binary operations (with `None` it would count them as 32-bit):

    ```python
    binary = RSign()(x)
    a = lq.layers.QuantConv2D(64, 1, input_quantizer=lq.quantizers.NoOp(precision=1), ...)(binary)
    b = lq.layers.QuantConv2D(64, 1, input_quantizer=lq.quantizers.NoOp(precision=1), ...)(binary)
    ```

    One `RSign` object given to several convolutions also shares its shift. But the config describes each
    convolution alone: only a SavedModel keeps the sharing, a clone or a model loaded from `.h5` has separate
    shifts, and a `.keras` file does not load.

    # Arguments
        shift_initializer: Initializer of `bias`.
        shift_regularizer: Regularizer of `bias`.
        metrics: An array of metrics to add to the layer, as for Larq's quantizers.

    # Input shape
        Any shape whose last axis is the channels, usually NHWC.

    # Output shape
        Same as the input.

    # Raises
        ValueError: if the number of channels is unknown, or differs from that of an earlier call.

    # References
        - [ReActNet: Towards Precise Binary Neural Network with Generalized Activation
            Functions](https://arxiv.org/abs/2003.03488), equations 3, 5 and 6
    """

    _sign = staticmethod(_approx_sign)

    def __init__(self, shift_initializer="zeros", shift_regularizer=None, **kwargs):
        super().__init__(**kwargs)
        self.shift_initializer = tf.keras.initializers.get(shift_initializer)
        self.shift_regularizer = tf.keras.regularizers.get(shift_regularizer)

    def build(self, input_shape):
        channels = input_shape[-1]
        if channels is None:
            raise ValueError(
                f"{type(self).__name__} '{self.name}' has one shift per channel, but the last axis of its input, shape "
                f"{tuple(input_shape)}, is unknown: give the model's Input a fixed number of channels."
            )
        # Unless it is called "bias", lq.models.summary counts a weight of a convolution as multiplications.
        self.bias = self.add_weight(
            "bias", shape=(channels,), initializer=self.shift_initializer, regularizer=self.shift_regularizer
        )
        super().build(input_shape)

    def call(self, inputs):
        if inputs.shape[-1] != self.bias.shape[0]:
            raise ValueError(
                f"{type(self).__name__} '{self.name}' has shifts for {self.bias.shape[0]} channels, but was called on "
                f"an input of shape {tuple(inputs.shape)}: give each convolution one of its own."
            )
        # The gradient of bias_add is a faster sum than the gradient of +.
        return super().call(self._sign(tf.nn.bias_add(inputs, self.bias)))

    def value(self, x):
        return x + tf.cast(self.bias, x.dtype)

    def window(self, x):
        return 1.0

    @property
    def coefficients(self):
        return {"shift of the sign": self.bias}

    def get_config(self):
        return {
            **super().get_config(),
            "shift_initializer": tf.keras.initializers.serialize(self.shift_initializer),
            "shift_regularizer": tf.keras.regularizers.serialize(self.shift_regularizer),
        }


@lq.utils.register_alias("scaled_sign")
@lq.utils.register_keras_custom_object
class ScaledSign(ScaledBinaryForm):
    r"""Kernel quantizer of the ReActNet and Bi-Real-Net code: sign times mean magnitude per output channel.

    \\[
    q(w) = s_o \operatorname{sign}(w) \qquad s_o = \operatorname{mean}\left|w_{:,:,:,o}\right|
    \qquad
    \frac{\partial q(w)}{\partial w} = \begin{cases}
      1 & \left|w\right| \leq 1 \\\
      0 & \left|w\right| > 1
    \end{cases}
    \\]

    It is `ScaledBinary(gradient="clipped")`. \\(s_o\\) is a constant in the backward pass and, unlike in
    `lq.quantizers.MagnitudeAwareSign`, does not scale the gradient either. The authors do not clip the latent weights.

    # Arguments
        metrics: An array of metrics to add to the layer. If `None` the metrics set in
            `larq.context.metrics_scope` are used. `flip_ratio` counts flipped signs.

    # Input shape
        A kernel whose last axis is the output channels, usually HWIO.

    # Output shape
        Same as the input.

    # References
        - [ReActNet: Towards Precise Binary Neural Network with Generalized Activation
            Functions](https://arxiv.org/abs/2003.03488), equation 2
        - [Bi-Real Net: Enhancing the Performance of 1-bit CNNs With Improved Representational Capability and
            Advanced Training Algorithm](https://arxiv.org/abs/1808.00278)
    """

    form: ClassVar[dict[str, Any]] = {"gradient": "clipped"}
