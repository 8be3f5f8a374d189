"""Kernel quantizers of XNOR-Net and DoReFa-Net.

BNN uses Larq's `lq.quantizers.SteSign(clip_value=None)`, the sign with the identity as gradient.
"""

from typing import Any, ClassVar

import larq as lq
import tensorflow as tf

from larq_rep.quantizers.scaled_binary import ScaledBinaryForm


@lq.utils.register_alias("xnor_sign")
@lq.utils.register_keras_custom_object
class XNORSign(ScaledBinaryForm):
    r"""Kernel quantizer of XNOR-Net: sign times mean magnitude per output channel, with its own gradient.

    \\[
    q(w) = s_o \operatorname{sign}(w) \qquad s_o = \operatorname{mean}\left|w_{:,:,:,o}\right|
    \qquad
    \frac{\partial q(w)}{\partial w} = \left(1 - \frac{1}{I}\right) \cdot \begin{cases}
      1 + n s_o & \left|w\right| < 1 \\\
      1 & \left|w\right| \geq 1
    \end{cases}
    \\]

    It is `ScaledBinary(gradient="xnor")`. \\(I\\) is the number of input channels, \\(n\\) the number of weights of an
    output channel. The gradient follows the authors' code for stochastic gradient descent: \\(n\\) times that of the
    paper. (For Adam, which such factors do not affect, their code multiplies by \\(10^9\\) instead.) With a single
    input channel it is 0. The authors also centre and clip the latent weights: `kernel_constraint="centred_clip"`.

    # Arguments
        metrics: An array of metrics to add to the layer. If `None` the metrics set in
            `larq.context.metrics_scope` are used. `flip_ratio` counts flipped signs.

    # Input shape
        A kernel whose last two axes are the input and the output channels, usually HWIO.

    # Output shape
        Same as the input.

    # References
        - [XNOR-Net: ImageNet Classification Using Binary Convolutional Neural
            Networks](https://arxiv.org/abs/1603.05279), and its code
    """

    form: ClassVar[dict[str, Any]] = {"gradient": "xnor"}


@lq.utils.register_alias("centred_clip")
@lq.utils.register_keras_custom_object
class CentredClip(tf.keras.constraints.Constraint):
    r"""Kernel constraint of XNOR-Net: no mean over the input channels, magnitudes up to 1.

    \\[ w \leftarrow \operatorname{clip}\left(w - \operatorname{mean}_I(w), -1, 1\right) \\]

    The mean is taken over the input channels, for one tap and one output channel. The authors do this before
    each training step, Keras after it: the weights of each step are the same if the initial ones are constrained,
    as `larq_rep.training` does. The weights tested and saved after a step are constrained here, but not in the
    authors' code.

    # References
        - [XNOR-Net: ImageNet Classification Using Binary Convolutional Neural
            Networks](https://arxiv.org/abs/1603.05279), its code
    """

    def __call__(self, w):
        return tf.clip_by_value(w - tf.reduce_mean(w, axis=-2, keepdims=True), -1.0, 1.0)


@lq.utils.register_alias("dorefa_sign")
@lq.utils.register_keras_custom_object
class DoReFaSign(ScaledBinaryForm):
    r"""Kernel quantizer of DoReFa-Net for one bit: sign times mean magnitude of the whole kernel.

    \\[
    q(w) = s \operatorname{sign}(w) \qquad s = \operatorname{mean}\left|w\right| \qquad
    \frac{\partial q(w)}{\partial w} = 1
    \\]

    It is `ScaledBinary(per="layer")`. `lq.quantizers.DoReFa(k_bit=1, mode="weights")` is a different function: it has
    no scale, and its gradient is that of the hyperbolic tangent, which DoReFa-Net uses for more than one bit.

    # Arguments
        metrics: An array of metrics to add to the layer. If `None` the metrics set in
            `larq.context.metrics_scope` are used. `flip_ratio` counts flipped signs.

    # Input shape
        Any shape.

    # Output shape
        Same as the input.

    # References
        - [DoReFa-Net: Training Low Bitwidth Convolutional Neural Networks with Low Bitwidth
            Gradients](https://arxiv.org/abs/1606.06160), equation 8
    """

    form: ClassVar[dict[str, Any]] = {"per": "layer"}
