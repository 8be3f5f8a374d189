"""The layers of RepBNN, which repeat their outputs."""

import larq as lq
import tensorflow as tf


def _tile_channels(x, times: int):
    return tf.tile(x, [1] * (x.shape.rank - 1) + [times])


def _positive_int(value, argument: str, layer: tf.keras.layers.Layer) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(
            f"{type(layer).__name__} '{layer.name}' needs an integer {argument} >= 1, but got {argument}={value!r}."
        )
    return value


@lq.utils.register_keras_custom_object
class Repeat(tf.keras.layers.Layer):
    r"""Repeats all channels in whole blocks: `[y, y, ..., y]`.

    \\[ y_{n,h,w,j} = x_{n,h,w,\,j \bmod C} \\]

    This is `tf.tile` (PyTorch's `Tensor.repeat`), never the interleaving `tf.repeat`.

    # Arguments
        times: How often the channels are repeated, an integer of at least 1.

    # Input shape
        `(..., channels)`, usually NHWC.

    # Output shape
        `(..., times * channels)`

    # Raises
        ValueError: if `times` is not a positive integer.

    # References
        - RepBNN: towards a precise Binary Neural Network with Enhanced Feature Map via Repeating, section 3
    """

    def __init__(self, times: int, **kwargs):
        super().__init__(**kwargs)
        self.times = _positive_int(times, "times", self)

    def call(self, inputs):
        return _tile_channels(inputs, self.times)

    def compute_output_shape(self, input_shape):
        *rest, channels = tf.TensorShape(input_shape)
        return tf.TensorShape([*rest, channels and channels * self.times])

    def get_config(self):
        return {**super().get_config(), "times": self.times}


class RepLayer(tf.keras.layers.Layer):
    """Base class of the Rep layers; it precedes the layer that it changes in the list of bases.

    The attribute named by `_outputs` holds that layer's number of outputs.
    """

    _outputs = "filters"

    def __init__(self, *args, beta: int = 2, **kwargs):
        super().__init__(*args, **kwargs)
        self.beta = _positive_int(beta, "beta", self)
        described = f"{type(self).__name__} '{self.name}'"
        if getattr(self, "data_format", "channels_last") != "channels_last":
            raise ValueError(f"{described} supports data_format='channels_last' only, but got '{self.data_format}'.")
        groups = getattr(self, "groups", 1)
        outputs = getattr(self, self._outputs)
        if outputs % (beta * groups):
            raise ValueError(
                f"{described} needs {self._outputs} divisible by beta * groups, but got {self._outputs}={outputs}, "
                f"beta={beta}, groups={groups}: choose a smaller beta or another number of {self._outputs}."
            )
        setattr(self, self._outputs, outputs // beta)
        self._untiled = False

    def call(self, inputs):
        # Keras' convolution takes the static shape of its untiled output from compute_output_shape.
        self._untiled = True
        try:
            outputs = super().call(inputs)
        finally:
            self._untiled = False
        return _tile_channels(outputs, self.beta**2) if self.beta > 1 else outputs

    def compute_output_shape(self, input_shape):
        shape = super().compute_output_shape(input_shape)
        return shape if self._untiled else shape[:-1].concatenate([shape[-1] * self.beta**2])

    def get_config(self):
        return {**super().get_config(), self._outputs: getattr(self, self._outputs) * self.beta, "beta": self.beta}


@lq.utils.register_keras_custom_object
class RepQuantConv2D(RepLayer, lq.layers.QuantConv2D):
    r"""RepBNN's convolution: more input channels, fewer filters, and the output repeated.

    It replaces a `lq.layers.QuantConv2D` with `filters` filters on \\(C\\) input channels. With an
    input of \\(\beta C\\) channels its kernel is `(kh, kw, beta * C, filters / beta)`, with as many weights and
    operations as the original. The convolution's output, `filters / beta` channels, is repeated
    \\(\beta^2\\) times in whole blocks:

    \\[ y_{n,h,w,j} = \operatorname{conv}(x)_{n,h,w,\,j \bmod (\texttt{filters}/\beta)} \\]

    The number of input channels is taken from the input. Bias and activation belong to the convolution,
    before the repeating. With `beta=1` this is a `QuantConv2D`.

    # Arguments
        filters: Number of filters of the *original* convolution. (As for any Keras convolution, the layer's attribute
            `filters` is the number in its kernel: `filters / beta`.)
        kernel_size: Height and width of the kernel.
        beta: The repeating factor, an integer of at least 1.
        *args, **kwargs: All other arguments of `lq.layers.QuantConv2D`, with its defaults; `data_format`
            must be `"channels_last"`.

    # Input shape
        `(batch, height, width, channels)`

    # Output shape
        `(batch, new_height, new_width, beta * filters)`

    # Raises
        ValueError: if `beta` is not a positive integer, `beta * groups` does not divide `filters`, or the
            data format is not `"channels_last"`.

    # References
        - RepBNN: towards a precise Binary Neural Network with Enhanced Feature Map via Repeating, section 3
    """


@lq.utils.register_keras_custom_object
class RepConv2D(RepLayer, tf.keras.layers.Conv2D):
    """`RepQuantConv2D` for a real-valued convolution, such as the 1x1 convolution of a downsampling shortcut.

    # Arguments
        filters: Number of filters of the *original* convolution.
        kernel_size: Height and width of the kernel.
        beta: The repeating factor, an integer of at least 1.
        *args, **kwargs: All other arguments of `tf.keras.layers.Conv2D`, with its defaults; `data_format`
            must be `"channels_last"`.

    # Input shape
        `(batch, height, width, channels)`

    # Output shape
        `(batch, new_height, new_width, beta * filters)`

    # Raises
        ValueError: as for `RepQuantConv2D`.
    """


@lq.utils.register_keras_custom_object
class RepQuantDense(RepLayer, lq.layers.QuantDense):
    r"""`RepQuantConv2D` for a hidden dense layer, which is a 1x1 convolution of a 1x1 map.

    It replaces a `lq.layers.QuantDense` with `units` units on \\(C\\) features. With
    \\(\beta C\\) features its kernel is `(beta * C, units / beta)`, and its outputs are repeated
    \\(\beta^2\\) times in whole blocks.

    # Arguments
        units: Number of units of the *original* layer. (The attribute `units` is the number in the kernel.)
        beta: The repeating factor, an integer of at least 1.
        *args, **kwargs: All other arguments of `lq.layers.QuantDense`, with its defaults.

    # Input shape
        `(batch, features)`

    # Output shape
        `(batch, beta * units)`

    # Raises
        ValueError: if `beta` is not a positive integer or does not divide `units`.
    """

    _outputs = "units"


@lq.utils.register_keras_custom_object
class RepDense(RepLayer, tf.keras.layers.Dense):
    """`RepQuantDense` for a real-valued hidden dense layer, such as those of a squeeze-and-excitation block.

    # Arguments
        units: Number of units of the *original* layer.
        beta: The repeating factor, an integer of at least 1.
        *args, **kwargs: All other arguments of `tf.keras.layers.Dense`, with its defaults.

    # Input shape
        `(batch, features)`

    # Output shape
        `(batch, beta * units)`

    # Raises
        ValueError: as for `RepQuantDense`.
    """

    _outputs = "units"
