r"""Quantizers of the published networks that Larq itself does not have.

They are used like Larq's own, as objects or by their alias:

```python
lq.layers.QuantConv2D(64, 3, input_quantizer="r_sign", kernel_quantizer="scaled_sign")
lq.layers.QuantConv2D(64, 3, input_quantizer=EDESign(t=0.001), kernel_quantizer=LibraSign(t=0.001))
```

Everywhere \\(\operatorname{sign}(0) = +1\\), as in Larq and Larq Compute Engine (PyTorch has 0 there), and
every forward pass is spelled so that the Larq Compute Engine converter recognises it as binary.
"""

import larq as lq
import tensorflow as tf
from larq.quantizers import _BaseQuantizer, approx_sign, ste_sign

__all__ = ["EDESign", "LibraSign", "RSign", "ScaledSign"]


@lq.utils.register_alias("r_sign")
@lq.utils.register_keras_custom_object
class RSign(_BaseQuantizer):
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

    The gradient of `bias` \\(b\\), shape `(channels,)`, is that of the input summed over all axes but the
    channels, as in the authors' code (equation 6 of the paper, in \\(\alpha = -b\\), omits the factor above).

    As `input_quantizer` the shift belongs to the weights of that convolution. Where two convolutions share a
    binary input, `RSign` is a layer of its own. Their input quantizer then only marks the precision, so that
    `lq.models.summary` counts binary operations (with `None` it would count them as 32-bit):

    ```python
    binary = RSign()(x)
    a = lq.layers.QuantConv2D(64, 1, input_quantizer=lq.quantizers.NoOp(precision=1), ...)(binary)
    b = lq.layers.QuantConv2D(64, 1, input_quantizer=lq.quantizers.NoOp(precision=1), ...)(binary)
    ```

    One `RSign` object given to several convolutions is one shared shift too. But the config describes each
    convolution alone: only a SavedModel keeps the sharing, a clone or a model loaded from `.h5` has separate
    shifts, and a `.keras` file refuses to load.

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

    precision = 1

    def __init__(self, shift_initializer="zeros", shift_regularizer=None, **kwargs):
        super().__init__(**kwargs)
        self.shift_initializer = tf.keras.initializers.get(shift_initializer)
        self.shift_regularizer = tf.keras.regularizers.get(shift_regularizer)

    def build(self, input_shape):
        channels = input_shape[-1]
        if channels is None:
            raise ValueError(
                f"RSign '{self.name}' has one shift per channel, but the last axis of its input, shape "
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
                f"RSign '{self.name}' has shifts for {self.bias.shape[0]} channels, but was called on an "
                f"input of shape {tuple(inputs.shape)}: give each convolution an RSign() of its own."
            )
        return super().call(approx_sign(inputs + self.bias))

    def get_config(self):
        return {
            **super().get_config(),
            "shift_initializer": tf.keras.initializers.serialize(self.shift_initializer),
            "shift_regularizer": tf.keras.regularizers.serialize(self.shift_regularizer),
        }


@tf.custom_gradient
def _scale_forward_only(x, scale):
    return scale * x, lambda dy: (dy, None)


@lq.utils.register_alias("scaled_sign")
@lq.utils.register_keras_custom_object
class ScaledSign(_BaseQuantizer):
    r"""Kernel quantizer of the ReActNet and Bi-Real-Net code: sign times mean magnitude per output channel.

    \\[
    q(w) = s_o \operatorname{sign}(w) \qquad s_o = \operatorname{mean}\left|w_{:,:,:,o}\right|
    \qquad
    \frac{\partial q(w)}{\partial w} = \begin{cases}
      1 & \left|w\right| \leq 1 \\\
      0 & \left|w\right| > 1
    \end{cases}
    \\]

    \\(s_o\\) is a constant in the backward pass and, unlike in `lq.quantizers.MagnitudeAwareSign`, does not
    scale the gradient either. The authors do not clip the latent weights.

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

    precision = 1

    def call(self, inputs):
        scale = tf.reduce_mean(tf.abs(inputs), axis=list(range(inputs.shape.rank - 1)))
        return _scale_forward_only(super().call(ste_sign(inputs)), scale)


@tf.custom_gradient
def _ede_sign(x, t):
    def grad(dy):
        k = tf.maximum(1 / t, 1)
        return dy * k * t * (1 - tf.tanh(t * x) ** 2), None

    return lq.math.sign(x), grad


class _EDEQuantizer(_BaseQuantizer):
    """Holds `t` of the error decay estimator in a variable, for compiled training steps to see it change."""

    precision = 1

    def __init__(self, t: float = 0.1, **kwargs):
        super().__init__(**kwargs)
        if t <= 0:
            raise ValueError(f"{type(self).__name__} '{self.name}' needs t > 0, but got t={t}.")
        self.initial_t = t
        self.t = self.add_weight("t", shape=(), initializer=tf.keras.initializers.Constant(t), trainable=False)

    def _sign(self, x):
        return super().call(_ede_sign(x, tf.cast(self.t, x.dtype)))

    def get_config(self):
        return {**super().get_config(), "t": self.initial_t}

    # `t` is the schedule's, not a weight. Saving it would also make `.keras` files of models whose layers
    # share one quantizer unreadable, since there each layer restores a quantizer of its own.
    def save_own_variables(self, store):
        pass

    def load_own_variables(self, store):
        pass


@lq.utils.register_alias("ede_sign")
@lq.utils.register_keras_custom_object
class EDESign(_EDEQuantizer):
    r"""Sign with the gradient of IR-Net's error decay estimator (EDE).

    \\[
    q(x) = \begin{cases}
      -1 & x < 0 \\\
      1 & x \geq 0
    \end{cases}
    \qquad
    \frac{\partial q(x)}{\partial x} = k t \left(1 - \tanh^2(t x)\right) \qquad k = \max(1/t, 1)
    \\]

    `t` grows during training, from nearly the identity to nearly the sign. It is a scalar variable that a
    callback sets, `quantizer.t.assign(0.2)`. It is no weight of the layer: `get_config`, `.h5` and `.keras`
    files keep the constructor's value only.

    # Arguments
        t: Initial steepness, greater than 0.
        metrics: An array of metrics to add to the layer, as for Larq's quantizers.

    # Input shape
        Any shape.

    # Output shape
        Same as the input.

    # Raises
        ValueError: if `t` is not positive.

    # References
        - [Forward and Backward Information Retention for Accurate Binary Neural
            Networks](https://arxiv.org/abs/1909.10788)
    """

    def call(self, inputs):
        return self._sign(inputs)


@lq.utils.register_alias("libra_sign")
@lq.utils.register_keras_custom_object
class LibraSign(_EDEQuantizer):
    r"""Kernel quantizer of IR-Net: balanced (Libra) binarization with the error decay estimator as gradient.

    \\[
    z = \frac{w - \operatorname{mean}_o(w)}{\operatorname{std}_o(w)} \qquad
    s_o = 2^{\operatorname{round}(\log_2 \operatorname{mean}_o\left|z\right|)} \qquad
    q(w) = s_o \operatorname{sign}(z)
    \\]

    Mean and (unbiased) standard deviation are those of an output channel. The gradient passes through the
    standardisation; at the sign it is that of `EDESign` in \\(z\\), and \\(s_o\\) is a constant. Larq Compute
    Engine evaluates all of it at conversion: a binary kernel and a positive scale per output channel remain.

    A channel whose weights are all equal has no standard deviation and gives NaN, as in the authors' code.
    Quantizing quantized weights again can give another scale: save the latent weights, not (in
    `lq.context.quantized_scope(True)`) the binary ones.

    # Arguments
        t: Initial steepness of the gradient, greater than 0; see `EDESign`.
        metrics: An array of metrics to add to the layer. If `None` the metrics set in
            `larq.context.metrics_scope` are used. `flip_ratio` counts flipped signs.

    # Input shape
        A kernel whose last axis is the output channels, usually HWIO.

    # Output shape
        Same as the input.

    # Raises
        ValueError: if `t` is not positive.

    # References
        - [Forward and Backward Information Retention for Accurate Binary Neural
            Networks](https://arxiv.org/abs/1909.10788)
    """

    def call(self, inputs):
        axes = list(range(inputs.shape.rank - 1))
        centred = inputs - tf.reduce_mean(inputs, axis=axes)
        freedom = inputs.shape[:-1].num_elements() - 1
        z = centred / tf.sqrt(tf.reduce_sum(centred**2, axis=axes) / freedom)
        # tf.round rounds halves to even, like the authors'.
        exponent = tf.round(tf.math.log(tf.reduce_mean(tf.abs(z), axis=axes)) / tf.math.log(tf.cast(2, z.dtype)))
        return tf.stop_gradient(2.0**exponent) * self._sign(z)
