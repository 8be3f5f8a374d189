"""Activations of the published networks, on NHWC tensors."""

import larq as lq
import tensorflow as tf

_QUARTER = tf.keras.initializers.Constant(0.25)


def _prelu(u, alpha, training):
    @tf.custom_gradient
    def prelu(u, alpha):
        one = tf.ones((), u.dtype)

        # The backward pass needs only u. BiasAddGrad sums faster than tf.reduce_sum.
        def grad(dy):
            d_alpha = tf.raw_ops.BiasAddGrad(out_backprop=dy * tf.minimum(u, 0))
            return dy * tf.where(u > 0, one, alpha), tf.reshape(d_alpha, alpha.shape)

        if training is True:
            # Equal to the form below, and faster. With u > 0 TensorFlow would keep the slopes for the backward pass.
            return u * tf.where(u < 0, alpha, one), grad
        # The only form that Larq Compute Engine turns into a PRELU.
        return tf.nn.relu(u) + (-alpha) * tf.nn.relu(-u), grad

    return prelu(u, tf.convert_to_tensor(alpha))


@lq.utils.register_keras_custom_object
class RPReLU(tf.keras.layers.Layer):
    r"""ReAct-PReLU: a PReLU whose input and output are shifted, all per channel.

    \\[
    y = \operatorname{PReLU}_a(x + b_1) + b_2 \qquad
    \operatorname{PReLU}_a(u) = \begin{cases}
      u & u > 0 \\\
      a u & u \leq 0
    \end{cases}
    \\]

    The weights are, in this order, `shift_in` \\(b_1\\) of shape `(channels,)`, `alpha` \\(a\\) of shape
    `(1, 1, channels)` and `shift_out` \\(b_2\\) of shape `(channels,)`: the ranks that Larq Compute Engine
    needs to make one `PRELU` and two `ADD`. In the paper's symbols \\(\gamma = -b_1\\), \\(\beta = a\\),
    \\(\zeta = b_2\\). At \\(u = 0\\) the lower branch gives the gradient, as in PyTorch.

    # Arguments
        shift_in_initializer: Initializer of `shift_in`.
        alpha_initializer: Initializer of `alpha`, by default the constant 0.25.
        shift_out_initializer: Initializer of `shift_out`.
        shift_in_regularizer: Regularizer of `shift_in`.
        alpha_regularizer: Regularizer of `alpha`.
        shift_out_regularizer: Regularizer of `shift_out`.

    # Input shape
        `(batch, height, width, channels)`

    # Output shape
        Same as the input.

    # Raises
        ValueError: if the number of channels is unknown, or the input is not of rank 4.

    # References
        - [ReActNet: Towards Precise Binary Neural Network with Generalized Activation
            Functions](https://arxiv.org/abs/2003.03488), equation 4
    """

    def __init__(
        self,
        shift_in_initializer="zeros",
        alpha_initializer=_QUARTER,
        shift_out_initializer="zeros",
        shift_in_regularizer=None,
        alpha_regularizer=None,
        shift_out_regularizer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.shift_in_initializer = tf.keras.initializers.get(shift_in_initializer)
        self.alpha_initializer = tf.keras.initializers.get(alpha_initializer)
        self.shift_out_initializer = tf.keras.initializers.get(shift_out_initializer)
        self.shift_in_regularizer = tf.keras.regularizers.get(shift_in_regularizer)
        self.alpha_regularizer = tf.keras.regularizers.get(alpha_regularizer)
        self.shift_out_regularizer = tf.keras.regularizers.get(shift_out_regularizer)
        self.input_spec = tf.keras.layers.InputSpec(ndim=4)

    def build(self, input_shape):
        channels = input_shape[-1]
        if channels is None:
            raise ValueError(
                f"RPReLU '{self.name}' has weights per channel, but the last axis of its input, shape "
                f"{tuple(input_shape)}, is unknown: give the model's Input a fixed number of channels."
            )
        self.shift_in = self.add_weight(
            "shift_in",
            (channels,),
            initializer=self.shift_in_initializer,
            regularizer=self.shift_in_regularizer,
        )
        self.alpha = self.add_weight(
            "alpha", (1, 1, channels), initializer=self.alpha_initializer, regularizer=self.alpha_regularizer
        )
        self.shift_out = self.add_weight(
            "shift_out",
            (channels,),
            initializer=self.shift_out_initializer,
            regularizer=self.shift_out_regularizer,
        )
        self.input_spec = tf.keras.layers.InputSpec(ndim=4, axes={-1: channels})
        super().build(input_shape)

    def call(self, inputs, training=None):
        # bias_add instead of +, because the gradient of + sums more slowly.
        y = _prelu(tf.nn.bias_add(inputs, self.shift_in), self.alpha, training)
        return tf.nn.bias_add(y, self.shift_out)

    @property
    def coefficients(self):
        """The weights by their kind, for `larq_rep.plots.coefficients` and the rules of weight decay."""
        return {"shift in": self.shift_in, "slope": self.alpha, "shift out": self.shift_out}

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        initializers, regularizers = tf.keras.initializers, tf.keras.regularizers
        return {
            **super().get_config(),
            "shift_in_initializer": initializers.serialize(self.shift_in_initializer),
            "alpha_initializer": initializers.serialize(self.alpha_initializer),
            "shift_out_initializer": initializers.serialize(self.shift_out_initializer),
            "shift_in_regularizer": regularizers.serialize(self.shift_in_regularizer),
            "alpha_regularizer": regularizers.serialize(self.alpha_regularizer),
            "shift_out_regularizer": regularizers.serialize(self.shift_out_regularizer),
        }


@lq.utils.register_keras_custom_object
class BiasedPReLU(tf.keras.layers.Layer):
    r"""PReLU behind a learnable bias, both per channel: an `RPReLU` without the second shift.

    \\[
    y = \operatorname{PReLU}_a(x + b) \qquad
    \operatorname{PReLU}_a(u) = \begin{cases}
      u & u > 0 \\\
      a u & u \leq 0
    \end{cases}
    \\]

    The weights are, in this order, `bias` \\(b\\) of shape `(channels,)` and `alpha` \\(a\\) of shape
    `(1, 1, channels)`: the ranks that Larq Compute Engine needs to make an `ADD` and a `PRELU`. In the paper's
    symbols \\(\gamma = -b\\), \\(\beta = a\\); they are per channel, as in the authors' code (in the paper, per
    group). At \\(u = 0\\) the lower branch gives the gradient, as in PyTorch.

    # Arguments
        bias_initializer: Initializer of `bias`.
        alpha_initializer: Initializer of `alpha`, by default the constant 0.25.
        bias_regularizer: Regularizer of `bias`.
        alpha_regularizer: Regularizer of `alpha`.

    # Input shape
        `(batch, height, width, channels)`

    # Output shape
        Same as the input.

    # Raises
        ValueError: if the number of channels is unknown, or the input is not of rank 4.

    # References
        - [PresB-Net: parametric binarized neural network with learnable activations and shuffled grouped
            convolution](https://doi.org/10.7717/peerj-cs.842), equation 7
    """

    def __init__(
        self,
        bias_initializer="zeros",
        alpha_initializer=_QUARTER,
        bias_regularizer=None,
        alpha_regularizer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.bias_initializer = tf.keras.initializers.get(bias_initializer)
        self.alpha_initializer = tf.keras.initializers.get(alpha_initializer)
        self.bias_regularizer = tf.keras.regularizers.get(bias_regularizer)
        self.alpha_regularizer = tf.keras.regularizers.get(alpha_regularizer)
        self.input_spec = tf.keras.layers.InputSpec(ndim=4)

    def build(self, input_shape):
        channels = input_shape[-1]
        if channels is None:
            raise ValueError(
                f"BiasedPReLU '{self.name}' has weights per channel, but the last axis of its input, shape "
                f"{tuple(input_shape)}, is unknown: give the model's Input a fixed number of channels."
            )
        self.bias = self.add_weight(
            "bias", (channels,), initializer=self.bias_initializer, regularizer=self.bias_regularizer
        )
        self.alpha = self.add_weight(
            "alpha", (1, 1, channels), initializer=self.alpha_initializer, regularizer=self.alpha_regularizer
        )
        self.input_spec = tf.keras.layers.InputSpec(ndim=4, axes={-1: channels})
        super().build(input_shape)

    def call(self, inputs, training=None):
        return _prelu(tf.nn.bias_add(inputs, self.bias), self.alpha, training)

    @property
    def coefficients(self):
        """The weights by their kind, for `larq_rep.plots.coefficients` and the rules of weight decay."""
        return {"shift in": self.bias, "slope": self.alpha}

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        initializers, regularizers = tf.keras.initializers, tf.keras.regularizers
        return {
            **super().get_config(),
            "bias_initializer": initializers.serialize(self.bias_initializer),
            "alpha_initializer": initializers.serialize(self.alpha_initializer),
            "bias_regularizer": regularizers.serialize(self.bias_regularizer),
            "alpha_regularizer": regularizers.serialize(self.alpha_regularizer),
        }
