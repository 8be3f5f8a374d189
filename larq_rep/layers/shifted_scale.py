"""Shift and scale of the channels, which SiBNN learns before its activations are binarized."""

import larq as lq
import tensorflow as tf


@lq.utils.register_keras_custom_object
class ShiftedScale(tf.keras.layers.Layer):
    r"""Shift and scale per channel.

    \\[ y = (x - b)\, s \\]

    The weights are, in this order, `shift` \\(b\\), initially 0, and `scale` \\(s\\), initially 1, of shape
    `(channels,)`.

    # Input shape
        Any shape whose last axis is the channels.

    # Output shape
        Same as the input.

    # Raises
        ValueError: if the number of channels is unknown.

    # References
        - [Sparsity-Inducing Binarized Neural Networks](https://doi.org/10.1609/aaai.v34i07.6900), the code
    """

    def build(self, input_shape):
        channels = input_shape[-1]
        if channels is None:
            raise ValueError(
                f"ShiftedScale '{self.name}' has weights per channel, but the last axis of its input, shape "
                f"{tuple(input_shape)}, is unknown: give the model's Input a fixed number of channels."
            )
        self.shift = self.add_weight("shift", (channels,), initializer="zeros")
        self.scale = self.add_weight("scale", (channels,), initializer="ones")
        self.input_spec = tf.keras.layers.InputSpec(axes={-1: channels})
        super().build(input_shape)

    def call(self, inputs):
        return (inputs - self.shift) * self.scale

    def compute_output_shape(self, input_shape):
        return input_shape
