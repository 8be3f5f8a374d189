"""The kernel quantizer of SYQ."""

from typing import ClassVar

import larq as lq
import tensorflow as tf
from larq.quantizers import ste_sign

from larq_rep.quantizers.base import QuantizerWithVariables


@tf.custom_gradient
def _scaled(signs, scale):
    def grad(dy):
        return dy, tf.reduce_sum(dy * signs, axis=[-2, -1])

    return scale[..., tf.newaxis, tf.newaxis] * signs, grad


@lq.utils.register_alias("position_scaled")
@lq.utils.register_keras_custom_object
class PositionScaled(QuantizerWithVariables):
    r"""Kernel quantizer of SYQ: the sign times a learned scale for each position of the window.

    \\[
    q(w_{yxio}) = s_{yx} \operatorname{sign}(w_{yxio}) \qquad
    \frac{\partial q(w)}{\partial w} = 1 \qquad
    \frac{\partial q}{\partial s_{yx}} = \sum_{i,o} \operatorname{sign}(w_{yxio})
    \\]

    `scale` \\(s\\) has the height and width of the kernel; all input and output channels share it. A dense layer
    has one scale. The gradient of the kernel is that of its sign: the scale does not scale it.

    \\(s\\) starts at \\(1 / (2 \sqrt{N})\\), with \\(N\\) weights of an output channel: the expected magnitude of
    PyTorch's default initial values. In the authors' code it starts at the mean magnitude of a trained kernel at this
    position: `start_from` does that, and `larq_rep.training.transfer` calls it where a phase with real weights ends.

    The scales belong to one kernel: give each convolution its own object. They are no factors of output channels, so
    Larq Compute Engine does not pack the convolution: it stays float, whatever its input, unless the window has one
    position or all scales are equal.

    # Arguments
        metrics: An array of metrics to add to the layer. If `None` the metrics set in
            `larq.context.metrics_scope` are used. `flip_ratio` counts flipped signs.

    # Input shape
        A kernel whose last two axes are the input and the output channels, usually HWIO.

    # Output shape
        Same as the input.

    # References
        - [SYQ: Learning Symmetric Quantization For Efficient Deep Neural
            Networks](https://arxiv.org/abs/1807.00301), and its code
    """

    schedule = None
    scales_channels = False
    # `scale` scales.
    coefficients: ClassVar[dict] = {}

    def build(self, input_shape):
        *window, inputs, _ = input_shape
        size = inputs * tf.TensorShape(window).num_elements()
        self.scale = self.add_weight("scale", window, initializer=tf.keras.initializers.Constant(0.5 * size**-0.5))
        super().build(input_shape)

    def call(self, inputs):
        return _scaled(super().call(ste_sign(inputs, clip_value=None)), tf.cast(self.scale, inputs.dtype))

    def start_from(self, kernel) -> None:
        """Sets each scale to the mean magnitude of the latent weights `kernel` at its position."""
        self.scale.assign(tf.reduce_mean(tf.abs(tf.convert_to_tensor(kernel)), axis=[-2, -1]))

    def value(self, x):
        return x

    def window(self, x):
        return None
