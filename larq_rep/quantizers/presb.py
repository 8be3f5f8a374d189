"""Quantizers of PresB-Net and AresB-Net."""

import larq as lq
import tensorflow as tf

from larq_rep._keras import BaseQuantizer
from larq_rep.quantizers.base import scale_forward_only
from larq_rep.quantizers.reactnet import RSign


def _leaky_sign(x, slope):
    @tf.custom_gradient
    def sign(x):
        return lq.math.sign(x), lambda dy: tf.where(tf.abs(x) < 1, dy, slope * dy)

    return sign(x)


@lq.utils.register_alias("leaky_sign")
@lq.utils.register_keras_custom_object
class LeakySign(BaseQuantizer):
    r"""Sign whose gradient does not vanish where the input is large.

    \\[
    q(x) = \begin{cases}
      -1 & x < 0 \\\
      1 & x \geq 0
    \end{cases}
    \qquad
    \frac{\partial q(x)}{\partial x} = \begin{cases}
      1 & \left|x\right| < 1 \\\
      s & \left|x\right| \geq 1
    \end{cases}
    \\]

    With \\(s = 0.01\\) it is the sign of PresB-Net. With \\(s = 0\\) it is the sign of AresB-Net, which is Larq's
    `ste_sign` except for the gradient at -1 and 1.

    # Arguments
        slope: Gradient \\(s\\) from -1 downwards and from 1 upwards.
        metrics: An array of metrics to add to the layer, as for Larq's quantizers.

    # Input shape
        Any shape.

    # Output shape
        Same as the input.

    # References
        - [PresB-Net: parametric binarized neural network with learnable activations and shuffled grouped
            convolution](https://doi.org/10.7717/peerj-cs.842), its code
    """

    precision = 1

    def __init__(self, slope: float = 0.01, **kwargs):
        super().__init__(**kwargs)
        self.slope = slope

    def call(self, inputs):
        return super().call(_leaky_sign(inputs, self.slope))

    def value(self, x):
        return x

    def window(self, x):
        return None if self.slope else 1.0

    def get_config(self):
        return {**super().get_config(), "slope": self.slope}


@lq.utils.register_alias("leaky_r_sign")
@lq.utils.register_keras_custom_object
class LeakyRSign(RSign):
    r"""Sign of the input shifted by one learnable number per channel, with the gradient of `LeakySign`.

    \\[
    q(x) = \begin{cases}
      -1 & x + b_c < 0 \\\
      1 & x + b_c \geq 0
    \end{cases}
    \qquad
    \frac{\partial q(x)}{\partial x} = \begin{cases}
      1 & \left|x + b_c\right| < 1 \\\
      s & \left|x + b_c\right| \geq 1
    \end{cases}
    \\]

    Everything except the gradient is as in `RSign`: the gradient of `bias` \\(b\\), shape `(channels,)`, is the
    gradient of the input summed over all axes except the channels.

    # Arguments
        slope: Gradient \\(s\\) from -1 downwards and from 1 upwards.
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
        - [PresB-Net: parametric binarized neural network with learnable activations and shuffled grouped
            convolution](https://doi.org/10.7717/peerj-cs.842), its code
    """

    def __init__(self, slope: float = 0.01, **kwargs):
        super().__init__(**kwargs)
        self.slope = slope

    def build(self, input_shape):
        super().build(input_shape)
        self.input_spec = tf.keras.layers.InputSpec(axes={-1: input_shape[-1]})

    def call(self, inputs):
        return BaseQuantizer.call(self, _leaky_sign(inputs + self.bias, self.slope))

    value = RSign.value
    coefficients = RSign.coefficients

    def window(self, x):
        return None if self.slope else 1.0

    def get_config(self):
        return {**super().get_config(), "slope": self.slope}


@tf.custom_gradient
def _ares_sign(w, scale):
    axes = list(range(w.shape.rank - 1))
    size, channels = w.shape[:-1].num_elements(), w.shape[-2]
    sign = lq.math.sign(w)

    def grad(dy):
        through_sign = tf.where(tf.abs(w) <= 1, scale * dy, tf.zeros_like(dy))
        through_scale = sign * tf.reduce_mean(sign * dy, axis=axes)
        return (through_sign + through_scale) * (1 - 1 / channels) * size, None

    return sign, grad


@lq.utils.register_alias("ares_sign")
@lq.utils.register_keras_custom_object
class AresSign(BaseQuantizer):
    r"""Kernel quantizer of AresB-Net: sign times mean clipped magnitude per output channel.

    \\[
    q(w) = s_o \operatorname{sign}(w) \qquad
    s_o = \operatorname{mean}\left|\operatorname{clip}(w_{:,:,:,o}, -1, 1)\right|
    \\]

    With \\(g\\) the gradient of the loss with respect to \\(q(w)\\), \\(I\\) input channels (of one group) and \\(n\\)
    weights in an output channel, the gradient with respect to \\(w\\) is

    \\[
    n \left(1 - \frac{1}{I}\right) \left(s_o 1_{\left|w\right| \leq 1} \, g
      + \operatorname{sign}(w) \operatorname{mean}_o(\operatorname{sign}(w) \, g)\right)
    \\]

    The second term comes from the path through \\(s_o\\); the code of XNOR-Net (`XNORSign`) has \\(g / n\\) there.
    With a single input channel the gradient is 0.

    This gradient hardly brings back a weight beyond 1. The authors clip the latent weights before each training
    step and each test, and keep the clipped values: use `kernel_constraint="weight_clip"`, without which the method
    differs.

    # Arguments
        metrics: An array of metrics to add to the layer. If `None` the metrics set in
            `larq.context.metrics_scope` are used. `flip_ratio` counts flipped signs.

    # Input shape
        A kernel whose last two axes are the input and the output channels, usually HWIO.

    # Output shape
        Same as the input.

    # References
        - [AresB-Net: accurate residual binarized neural networks using shortcut concatenation and shuffled
            grouped convolution](https://doi.org/10.7717/peerj-cs.454), its code
    """

    precision = 1

    def call(self, inputs):
        axes = list(range(inputs.shape.rank - 1))
        scale = tf.reduce_mean(tf.abs(tf.clip_by_value(inputs, -1.0, 1.0)), axis=axes)
        return scale_forward_only(super().call(_ares_sign(inputs, scale)), scale)

    def value(self, x):
        return x

    def window(self, x):
        return None
