"""Kernel quantizer of CBCN, the circulant binary network."""

import larq as lq
import tensorflow as tf

from larq_rep._keras import BaseQuantizer
from larq_rep.quantizers.reactnet import _approx_sign

ORIENTATIONS = 4


def quarter_turn(kernel: tf.Tensor) -> tf.Tensor:
    """Turns filters of shape `(size, size, inputs, 4, outputs)` by 90 degrees clockwise, each orientation to the next.

    Four such turns are the identity.
    """
    turned = tf.reverse(tf.transpose(kernel, [1, 0, 2, 3, 4]), [1])
    return tf.concat([turned[..., -1:, :], turned[..., :-1, :]], axis=3)


def _expanded(kernel):
    """The kernel of all four turns of each filter, which stand side by side in the outputs."""
    size, _, inputs, outputs = kernel.shape
    turns = [tf.reshape(kernel, [size, size, inputs // ORIENTATIONS, ORIENTATIONS, outputs])]
    for _ in range(ORIENTATIONS - 1):
        turns.append(quarter_turn(turns[-1]))
    return tf.reshape(tf.stack(turns, axis=-1), [size, size, inputs, ORIENTATIONS * outputs])


@lq.utils.register_alias("circulant_kernel")
@lq.utils.register_keras_custom_object
class CirculantKernel(BaseQuantizer):
    r"""Kernel quantizer of CBCN: four turns of each latent filter, their signs times the mean magnitude.

    \\[
    q(w)_{4o+k} = s \operatorname{sign}\left(R^k(w_o)\right) \quad k = 0, \ldots, 3 \qquad
    s = \operatorname{mean}\left|w\right| \qquad
    \frac{\partial \operatorname{sign}(w)}{\partial w} = \begin{cases}
      2 - 2 \left|w\right| & \left|w\right| \leq 1 \\\
      0 & \left|w\right| > 1
    \end{cases}
    \\]

    Each four successive input channels are four orientations of one feature. \\(R\\) turns the taps of a filter by 90
    degrees clockwise, and takes orientation \\(i\\) to \\(i + 1\\), the last one to the first. The gradient of a latent
    weight is the sum of those of its four places; it also passes through \\(s\\), the mean over the whole kernel.
    Larq Compute Engine evaluates all of it at conversion: one binary kernel and its scale remain.

    The result has four times the outputs of the latent kernel. `larq_rep.layers.CirculantConv2D` is the convolution
    with that many.

    # Arguments
        metrics: An array of metrics to add to the layer. If `None` the metrics set in
            `larq.context.metrics_scope` are used. `flip_ratio` counts flipped signs.

    # Input shape
        `(size, size, inputs, outputs)` with a multiple of 4 inputs.

    # Output shape
        `(size, size, inputs, 4 * outputs)`

    # Raises
        ValueError: if the kernel has another shape.

    # References
        - [Circulant Binary Convolutional Networks: Enhancing the Performance of 1-bit DCNNs with Circulant Back
            Propagation](https://arxiv.org/abs/1910.10853), and its code
    """

    precision = 1
    # The filters that it makes of a latent one.
    turns = ORIENTATIONS

    def call(self, inputs):
        shape = inputs.shape
        if shape.rank != 4 or shape[0] != shape[1] or shape[2] % ORIENTATIONS:
            raise ValueError(
                f"CirculantKernel '{self.name}' turns kernels of shape (size, size, inputs, outputs) with a multiple "
                f"of {ORIENTATIONS} inputs, but got {tuple(shape)}."
            )
        # The turn of a sign is the sign of the turn.
        return _expanded(tf.reduce_mean(tf.abs(inputs)) * super().call(_approx_sign(inputs)))

    def value(self, x):
        return x

    def window(self, x):
        # Every weight is in the scale.
        return None
