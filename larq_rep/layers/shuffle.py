"""Channel shuffle and the normalisation of its groups, on NHWC tensors."""

import larq as lq
import tensorflow as tf


def _shuffle(x, groups):
    # Rank 3, because Larq Compute Engine's transposition of rank 4 or 5 takes several times as long, as does a gather.
    y = tf.reshape(x, (-1, groups, x.shape[-1] // groups))
    y = tf.reshape(tf.transpose(y, (0, 2, 1)), tf.shape(x))
    return tf.ensure_shape(y, x.shape)


class _Grouped(tf.keras.layers.Layer):
    def __init__(self, groups: int = 2, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(groups, int) or groups < 1:
            raise ValueError(f"{type(self).__name__} '{self.name}' needs an integer groups >= 1, but got {groups!r}.")
        self.groups = groups
        self.input_spec = tf.keras.layers.InputSpec(ndim=4)

    def build(self, input_shape):
        channels = input_shape[-1]
        if channels is None or channels % self.groups:
            raise ValueError(
                f"{type(self).__name__} '{self.name}' needs a number of channels that is a multiple of "
                f"groups={self.groups}, but the input has the shape {tuple(input_shape)}."
            )
        self.input_spec = tf.keras.layers.InputSpec(ndim=4, axes={-1: channels})
        super().build(input_shape)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "groups": self.groups}


@lq.utils.register_keras_custom_object
class ChannelShuffle(_Grouped):
    r"""Mixes groups of channels: the first of each group, then the second of each, and so on.

    With \\(G\\) groups of \\(K\\) channels

    \\[ y_{G k + g} = x_{K g + k} \qquad 0 \leq g < G \qquad 0 \leq k < K \\]

    # Arguments
        groups: Number of groups \\(G\\) of the input.

    # Input shape
        `(batch, height, width, channels)`, a multiple of `groups` channels.

    # Output shape
        Same as the input.

    # Raises
        ValueError: if the number of channels is unknown or not a multiple of `groups`.

    # References
        - [ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile
            Devices](https://arxiv.org/abs/1707.01083)
    """

    def call(self, inputs):
        return _shuffle(inputs, self.groups)


@lq.utils.register_keras_custom_object
class GroupNormShuffle(_Grouped):
    r"""Group normalisation, then a channel shuffle that mixes the groups.

    \\[
    y_c = \gamma_c \frac{x_c - \mu_g}{\sqrt{\sigma^2_g + \epsilon}} + \beta_c
    \\]

    Mean \\(\mu_g\\) and (biased) variance \\(\sigma^2_g\\) are taken for one image over its height, its width and
    the channels of \\(c\\)'s group \\(g\\), so training and inference are the same. This is the layer
    normalisation of PresB-Net, whose authors normalise each group separately. The shuffle is
    `ChannelShuffle(groups)`. The weights are `gamma` and `beta` of shape `(channels,)`.

    # Arguments
        groups: Number of groups.
        shuffle: Whether the channels are shuffled afterwards.
        epsilon: Added to the variance.

    # Input shape
        `(batch, height, width, channels)`, a multiple of `groups` channels.

    # Output shape
        Same as the input.

    # Raises
        ValueError: if the number of channels is unknown or not a multiple of `groups`.

    # References
        - [Group Normalization](https://arxiv.org/abs/1803.08494)
        - [PresB-Net: parametric binarized neural network with learnable activations and shuffled grouped
            convolution](https://doi.org/10.7717/peerj-cs.842), equation 3
    """

    def __init__(self, groups: int = 2, shuffle: bool = True, epsilon: float = 1e-5, **kwargs):
        super().__init__(groups, **kwargs)
        self.shuffle = shuffle
        self.epsilon = epsilon

    def build(self, input_shape):
        super().build(input_shape)
        self.gamma = self.add_weight("gamma", (input_shape[-1],), initializer="ones")
        self.beta = self.add_weight("beta", (input_shape[-1],), initializer="zeros")

    def call(self, inputs):
        shape = (-1, 1, self.groups, inputs.shape[-1] // self.groups)
        # First for each channel, then for the groups of these few numbers: Larq Compute Engine's operators are fast
        # on whole images only where an operand is one number per channel.
        mean = tf.reduce_mean(inputs, axis=[1, 2], keepdims=True)
        variance = tf.reduce_mean(tf.math.squared_difference(inputs, mean), axis=[1, 2], keepdims=True)
        mean, variance = tf.reshape(mean, shape), tf.reshape(variance, shape)
        group_mean = tf.reduce_mean(mean, axis=-1, keepdims=True)
        variance += tf.math.squared_difference(mean, group_mean)
        group_variance = tf.reduce_mean(variance, axis=-1, keepdims=True)

        scale = tf.reshape(self.gamma, shape) * tf.math.rsqrt(group_variance + self.epsilon)
        offset = tf.reshape(self.beta, shape) - group_mean * scale
        scale, offset = (tf.reshape(x, (-1, 1, 1, inputs.shape[-1])) for x in (scale, offset))
        outputs = inputs * scale + offset
        return _shuffle(outputs, self.groups) if self.shuffle else outputs

    def get_config(self):
        return {**super().get_config(), "shuffle": self.shuffle, "epsilon": self.epsilon}
