"""The layer of BMXNet's binary convolutions."""

import larq as lq
import tensorflow as tf


@lq.utils.register_keras_custom_object
class PopCount(tf.keras.layers.Layer):
    r"""Turns the sum of a binary convolution into the popcount that BMXNet's convolutions return.

    \\[ y = \frac{h + n}{2} \qquad n = k_h k_w C \\]

    with the sum \\(h\\) of \\(n\\) products of \\(-1\\) and \\(+1\\): \\(y\\) is the number of products that are
    \\(+1\\), an integer in \\(0..n\\). This also holds at the border if the padding is \\(-1\\) or \\(+1\\). Only the
    number of channels \\(C\\) of the second input is used:

    ```python
    y = lq.layers.QuantConv2D(64, 3, input_quantizer="ste_sign", kernel_quantizer="ste_sign", ...)(x)
    y = PopCount(3)([y, x])
    ```

    Larq Compute Engine folds it into the multiplier and the bias of the convolution.

    # Arguments
        kernel_size: Height and width of the convolution's kernel, one integer or two.

    # Input shape
        A list of two tensors: output `(batch, new_height, new_width, filters)` and input
        `(batch, height, width, channels)` of the convolution.

    # Output shape
        Same as the first input.

    # Raises
        ValueError: if the input is not a list of two tensors, or the number of channels is unknown.

    # References
        - BinaryDenseNet: Developing an Architecture for Binary Neural Networks
        - [BMXNet v2](https://github.com/hpi-xnor/BMXNet-v2), the code of the paper
    """

    def __init__(self, kernel_size, **kwargs):
        super().__init__(**kwargs)
        height, width = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        self.kernel_size = (height, width)

    def build(self, input_shape):
        if not isinstance(input_shape, list) or len(input_shape) != 2:
            raise ValueError(
                f"PopCount '{self.name}' takes a list of two tensors, output and input of a convolution, but got a "
                f"shape of {input_shape}."
            )
        if input_shape[1][-1] is None:
            raise ValueError(
                f"PopCount '{self.name}' counts the products of a convolution, but the last axis of its input, shape "
                f"{tuple(input_shape[1])}, is unknown: give the model's Input a fixed number of channels."
            )
        super().build(input_shape)

    def call(self, inputs):
        sums, source = inputs
        height, width = self.kernel_size
        return sums * 0.5 + height * width * source.shape[-1] / 2

    def compute_output_shape(self, input_shape):
        return tf.TensorShape(input_shape[0])

    def get_config(self):
        return {**super().get_config(), "kernel_size": self.kernel_size}
