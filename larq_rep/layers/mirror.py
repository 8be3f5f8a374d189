"""Rotates images by half a turn, which aligns TensorFlow's strided layers like PyTorch's."""

import larq as lq
import tensorflow as tf


@lq.utils.register_keras_custom_object
class Mirror(tf.keras.layers.Layer):
    r"""Mirrors images top to bottom and left to right.

    \\[ y_{i, j} = x_{H - 1 - i,\; W - 1 - j} \\]

    A strided convolution or pooling with an odd window pads an even size at one end only: PyTorch pads at the top
    and left, TensorFlow's `"same"` at the bottom and right. On mirrored images and with mirrored kernels TensorFlow
    computes PyTorch's result, mirrored. So this layer comes first in a network with the weights of its PyTorch
    authors, whose kernels are stored mirrored.

    Larq Compute Engine turns it into one operator, `STRIDED_SLICE` with steps of -1. (`REVERSE_V2` of two axes would
    also work, but TFLite 2.14 computes it wrongly.)

    It has one weight that no computation uses, so Keras' `load_weights` does not load an `.h5` file of mirrored
    kernels into a network without this layer, or vice versa. (In its newer formats Keras does not check for
    leftover layers; `larq_rep.zoo.load_weights` does.)

    # Input shape
        `(batch, height, width, channels)`

    # Output shape
        Same as the input.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.input_spec = tf.keras.layers.InputSpec(ndim=4)

    def build(self, input_shape):
        self.mirrored = self.add_weight("mirrored", shape=(), initializer="ones", trainable=False)
        super().build(input_shape)

    def call(self, inputs):
        return inputs[:, ::-1, ::-1]

    def compute_output_shape(self, input_shape):
        return input_shape
