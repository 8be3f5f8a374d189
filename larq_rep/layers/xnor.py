"""The layer of XNOR-Net."""

import larq as lq
import tensorflow as tf


@lq.utils.register_keras_custom_object
class XNORScale(tf.keras.layers.Layer):
    r"""The scales K of XNOR-Net's activations: mean magnitude of the input under each window of a convolution.

    \\[
    K_{n,h,w} = \frac{1}{k_h k_w} \sum_{i,j \,\in\, \text{window}} \; \operatorname{mean}_c
    \left|x_{n,i,j,c}\right|
    \\]

    The output of the binary convolution is multiplied by it. Taps on padding count as 0, and no gradient passes:

    ```python
    y = lq.layers.QuantConv2D(64, 3, strides=2, padding="same", input_quantizer="ste_sign", ...)(x)
    y = tf.keras.layers.multiply([y, XNORScale(3, strides=2)(x)])
    ```

    The paper has this factor, the authors' code does not. On a device it costs a mean, a convolution and a
    multiplication in floating point.

    # Arguments
        kernel_size: Height and width of the convolution's kernel, one integer or two.
        strides: Its strides, one integer or two.
        padding: Its padding, `"same"` or `"valid"`.

    # Input shape
        `(batch, height, width, channels)`: the real-valued input of the convolution, before its sign.

    # Output shape
        `(batch, new_height, new_width, 1)`

    # References
        - [XNOR-Net: ImageNet Classification Using Binary Convolutional Neural
            Networks](https://arxiv.org/abs/1603.05279), section 3.2
    """

    def __init__(self, kernel_size, strides=1, padding="same", **kwargs):
        super().__init__(**kwargs)
        self.kernel_size = self._pair(kernel_size)
        self.strides = self._pair(strides)
        self.padding = padding

    @staticmethod
    def _pair(value) -> tuple[int, int]:
        height, width = (value, value) if isinstance(value, int) else value
        return height, width

    def call(self, inputs):
        magnitude = tf.reduce_mean(tf.abs(inputs), axis=-1, keepdims=True)
        height, width = self.kernel_size
        # Not average pooling, because that leaves out the taps on padding.
        box = tf.constant(1 / (height * width), magnitude.dtype, [height, width, 1, 1])
        return tf.stop_gradient(tf.nn.conv2d(magnitude, box, self.strides, self.padding.upper()))

    def compute_output_shape(self, input_shape):
        batch, *sizes, _ = tf.TensorShape(input_shape)
        valid = self.padding == "valid"
        for axis, (size, kernel, stride) in enumerate(zip(sizes, self.kernel_size, self.strides, strict=True)):
            sizes[axis] = size and -(-(size - (kernel - 1) * valid) // stride)
        return tf.TensorShape([batch, *sizes, 1])

    def get_config(self):
        return {
            **super().get_config(),
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
        }
