"""Quantizers of RBNN."""

import math
from typing import ClassVar

import larq as lq
import tensorflow as tf

from larq_rep.quantizers.base import SteepenedQuantizer, decisive, sample_moments, standardized
from larq_rep.quantizers.callbacks import RBNNSchedule

_RIGHT_ANGLE = tf.keras.initializers.Constant(math.pi / 2)


def _slope(x, t):
    """Derivative of the approximated sign over its gain k."""
    return tf.maximum(math.sqrt(2) * t - t**2 * tf.abs(x), 0)


@tf.custom_gradient
def _triangular_sign(x, t):
    return lq.math.sign(x), lambda dy: (dy * tf.maximum(1 / t, 1) * _slope(x, t), None)


def _standardized_sign(x, t, crop):
    axes = list(range(1, x.shape.rank))
    rows, columns = crop

    @tf.custom_gradient
    def signs(x, t):
        # The sign needs no division by the standard deviation, so neither does the converted network.
        centred = x - tf.reduce_mean(x, axes, keepdims=True)

        def grad(dy):
            if rows or columns:
                dy = tf.pad(dy, [[0, 0], [rows, 0], [columns, 0], [0, 0]])
            freedom = tf.cast(tf.reduce_prod(tf.shape(x)[1:]) - 1, x.dtype)
            std = tf.sqrt(tf.reduce_sum(centred**2, axes, keepdims=True) / freedom)
            z = centred / std
            dz = dy * _slope(z, tf.maximum(t, 1))
            along_z = z * tf.reduce_sum(dz * z, axes, keepdims=True) / freedom
            return (dz - tf.reduce_mean(dz, axes, keepdims=True) - along_z) / std, None

        # Cropped before the sign, because Larq Compute Engine makes no binary convolution of a part of a sign's result.
        return lq.math.sign(centred[:, rows:, columns:] if rows or columns else centred), grad

    return signs(x, t)


@lq.utils.register_alias("standardized_sign")
@lq.utils.register_keras_custom_object
class StandardizedSign(SteepenedQuantizer):
    r"""Input quantizer of RBNN: the sign of each sample's standardised activations.

    \\[
    \hat{x} = \frac{x - m}{\sigma} \qquad
    q(x) = \operatorname{sign}(x - m) \qquad
    \frac{\partial q}{\partial \hat{x}} = \max\left(0,\; \sqrt{2}\, t' - t'^2 \left|\hat{x}\right|\right)
    \qquad t' = \max(t, 1)
    \\]

    \\(m\\) and \\(\sigma\\) are mean and (unbiased) standard deviation of one sample over all its pixels and
    channels, in training *and* in evaluation: the threshold depends on the input. The gradient passes
    through the standardisation. Larq Compute Engine computes a mean and a difference before it binarizes; an
    activation that equals the mean up to rounding may get the other sign there.

    `t` grows during training. It is a scalar variable that a callback sets, `quantizer.t.assign(0.2)`, to
    \\(t(e) = 10^{-2 + 3 e / E}\\) before epoch \\(e\\) of \\(E\\). It is not a weight of the layer: `get_config`,
    `.h5` and `.keras` files keep only the constructor's value. A sample whose activations are all equal has
    no standard deviation and its gradient is NaN, as in the authors' code.

    # Arguments
        t: Initial steepness of the gradient, greater than 0.
        crop: Rows at the top and columns on the left to leave out of the result, but not of mean and deviation.
            A convolution with stride 2 and a 1x1 kernel then takes every second pixel from there on.
        metrics: An array of metrics to add to the layer, as for Larq's quantizers.

    # Input shape
        `(batch, ...)`, usually NHWC; with `crop` it must be NHWC.

    # Output shape
        Same as the input, less `crop`.

    # Raises
        ValueError: if `t` is not positive, or `crop` are not two integers of at least 0.

    # References
        - [Rotated Binary Neural Network](https://arxiv.org/abs/2009.13055), section 3.4, and its code, which
            standardises
    """

    schedule = RBNNSchedule

    def __init__(self, t: float = 0.01, crop: tuple[int, int] = (0, 0), **kwargs):
        super().__init__(t, **kwargs)
        if len(crop) != 2 or not all(isinstance(size, int) and size >= 0 for size in crop):
            raise ValueError(f"StandardizedSign '{self.name}' needs two integers >= 0 as crop, but got crop={crop!r}.")
        self.crop = tuple(crop)

    def call(self, inputs):
        return super().call(_standardized_sign(inputs, tf.cast(self.t, inputs.dtype), self.crop))

    def value(self, x):
        centred, variance = sample_moments(x)
        return centred * tf.math.rsqrt(variance)

    def window(self, x):
        return math.sqrt(2) / tf.maximum(self.t, 1)

    def get_config(self):
        return {**super().get_config(), "crop": self.crop}


def _rotation_sizes(size: int) -> tuple[int, int]:
    """The two factors of `size` nearest to each other, the smaller one first."""
    smaller = next(a for a in range(math.isqrt(size), 0, -1) if size % a == 0)
    return smaller, size // smaller


@lq.utils.register_alias("rotated_sign")
@lq.utils.register_keras_custom_object
class RotatedSign(SteepenedQuantizer):
    r"""Kernel quantizer of RBNN: the sign of rotated weights, with a learned scale per output channel.

    \\[
    z = \frac{w - \operatorname{mean}_o(w)}{\operatorname{std}_o(w)} \qquad
    r_o = R_1^\top Z_o R_2 \qquad
    u = z + \left|\sin \theta_o\right| (r - z) \qquad
    q(w) = \alpha_o \operatorname{sign}(u)
    \\]

    Mean and (unbiased) standard deviation are those of an output channel. \\(Z_o\\) holds its
    \\(N = I \cdot k \cdot k\\) weights, in the order \\((I, k, k)\\), as a matrix of \\(a\\) rows and \\(b\\)
    columns, where \\(a\\) is the largest divisor of \\(N\\) up to \\(\sqrt{N}\\). The backward pass takes

    \\[
    \frac{\partial \operatorname{sign}(u)}{\partial u} =
    \max\left(0,\; k \left(\sqrt{2}\, t - t^2 \left|u\right|\right)\right) \qquad k = \max(1/t, 1)
    \\]

    and \\(r\\) as a constant; it passes through the standardisation, and to \\(\alpha\\) and \\(\theta\\).

    The weights are `alpha` \\(\alpha\\) and `rotate` \\(\theta\\), both of shape `(channels,)` and trained,
    and the orthogonal `R1` \\((a, a)\\) and `R2` \\((b, b)\\), which only `update_rotations` changes: the
    authors do that before the first batch of every epoch. `t` grows during training; as in
    `StandardizedSign` it is a variable, not a weight. Larq Compute Engine evaluates all of it at conversion: a binary
    kernel and a scale per output channel, which may be negative, remain. Signs are decided in float64, except in
    training: see `larq_rep.quantizers`.

    `rotate` starts at \\(\pi / 2\\) as in the authors' code. There \\(\left|\sin \theta\right|\\) is exactly 1
    and the kernel's gradient exactly 0, until weight decay has moved `rotate`: add it to the loss, or choose
    another `rotate_initializer`. `alpha` starts at \\(1 / (2 \sqrt{N})\\), whatever the kernel's initial values are.
    In the authors' code it starts at the mean magnitude of a kernel with PyTorch's default initial values (uniform
    within \\(1 / \sqrt{N}\\)), whose expectation is this number.

    A channel whose weights are all equal has no standard deviation and gives NaN, as in the authors' code.
    The weights belong to one kernel: give each convolution its own object. `lq.models.summary` counts
    them as multiplications of the convolution, `larq_rep.cost.count` does not.

    # Arguments
        t: Initial steepness of the gradient, greater than 0.
        alpha_initializer: Initializer of `alpha`; if `None`, the constant \\(1 / (2 \sqrt{N})\\).
        rotate_initializer: Initializer of `rotate`, by default the constant \\(\pi / 2\\).
        regularizer: Regularizer of `alpha` and of `rotate`.
        mirrored: Whether the kernel is mirrored in height and width, as in a network behind a
            `larq_rep.layers.Mirror`. The rotations and \\(Z_o\\) are those of the kernel before mirroring.
        metrics: An array of metrics to add to the layer. If `None` the metrics set in
            `larq.context.metrics_scope` are used. `flip_ratio` counts flipped signs.

    # Input shape
        A kernel whose last two axes are the input and the output channels, usually HWIO.

    # Output shape
        Same as the input.

    # Raises
        ValueError: if `t` is not positive, or the shape of the kernel differs from that of an earlier call.

    # References
        - [Rotated Binary Neural Network](https://arxiv.org/abs/2009.13055)
    """

    schedule = RBNNSchedule
    # `alpha` scales, `rotate` is an angle.
    coefficients: ClassVar[dict] = {}

    def __init__(
        self,
        t: float = 0.01,
        alpha_initializer=None,
        rotate_initializer=_RIGHT_ANGLE,
        regularizer=None,
        mirrored: bool = False,
        **kwargs,
    ):
        super().__init__(t, **kwargs)
        self.mirrored = mirrored
        self.alpha_initializer = tf.keras.initializers.get(alpha_initializer)
        self.rotate_initializer = tf.keras.initializers.get(rotate_initializer)
        self.regularizer = tf.keras.regularizers.get(regularizer)

    def build(self, input_shape):
        *rest, channels = self._kernel_shape = tuple(input_shape)
        size = math.prod(rest)
        a, b = _rotation_sizes(size)
        magnitude = tf.keras.initializers.Constant(0.5 * size**-0.5)
        self.alpha = self.add_weight(
            "alpha", (channels,), initializer=self.alpha_initializer or magnitude, regularizer=self.regularizer
        )
        self.rotate = self.add_weight(
            "rotate", (channels,), initializer=self.rotate_initializer, regularizer=self.regularizer
        )
        self.R1 = self.add_weight("R1", (a, a), initializer=tf.keras.initializers.Orthogonal(), trainable=False)
        self.R2 = self.add_weight("R2", (b, b), initializer=tf.keras.initializers.Orthogonal(), trainable=False)
        super().build(input_shape)

    @property
    def _state(self):
        return [self.R1, self.R2] if self.built else []

    def _mirror(self, kernel):
        return tf.reverse(kernel, list(range(kernel.shape.rank - 2))) if self.mirrored else kernel

    def _matrices(self, kernel):
        """Turns an HWIO kernel into one matrix for each output channel."""
        kernel = self._mirror(kernel)
        last = kernel.shape.rank - 1
        kernel = tf.transpose(kernel, [last, last - 1, *range(last - 1)])
        return tf.reshape(kernel, [-1, self.R1.shape[0], self.R2.shape[0]])

    def _kernel(self, matrices):
        """The inverse of `_matrices`."""
        *spatial, inputs, outputs = self._kernel_shape
        rank = len(self._kernel_shape)
        return self._mirror(tf.transpose(tf.reshape(matrices, [outputs, inputs, *spatial]), [*range(2, rank), 1, 0]))

    def rotated(self, kernel) -> tf.Tensor:
        r"""The rotated weights \\(u\\) of the latent weights `kernel`; their signs are taken."""
        r1, r2, rotate = (tf.cast(weight, kernel.dtype) for weight in (self.R1, self.R2, self.rotate))
        z = standardized(kernel)
        r = self._kernel(tf.matmul(tf.matmul(r1, self._matrices(z), transpose_a=True), r2))
        return z + tf.abs(tf.sin(rotate)) * (tf.stop_gradient(r) - z)

    def call(self, inputs, training=None):
        if tuple(inputs.shape) != self._kernel_shape:
            raise ValueError(
                f"RotatedSign '{self.name}' has rotations for a kernel of shape {self._kernel_shape}, but was "
                f"called on shape {tuple(inputs.shape)}: give each convolution a RotatedSign() of its own."
            )
        u = self.rotated(decisive(inputs, training))
        signs = _triangular_sign(u, tf.cast(self.t, u.dtype))
        return self.alpha * super().call(tf.cast(signs, inputs.dtype))

    def value(self, x):
        return self.rotated(x)

    def window(self, x):
        return math.sqrt(2) / self.t

    def update_rotations(self, kernel) -> None:
        r"""Changes `R1` and `R2` so that the angle between the rotated weights and their signs becomes smaller.

        Three times, it takes in turn the best signs \\(B\\), the best `R1` and the best `R2` for

        \\[ \max \sum_o \operatorname{tr}\left(B_o^\top R_1^\top Z_o R_2\right) \\]

        # Arguments
            kernel: The latent weights that this object quantizes, `layer.kernel`.
        """
        z = self._matrices(standardized(tf.convert_to_tensor(kernel)))
        r1, r2 = tf.convert_to_tensor(self.R1), tf.convert_to_tensor(self.R2)
        for _ in range(3):
            signs = lq.math.sign(tf.matmul(tf.matmul(r1, z, transpose_a=True), r2))
            _, u, v = tf.linalg.svd(tf.einsum("oij,okj->ik", tf.matmul(signs, r2, transpose_b=True), z))
            r1 = tf.matmul(v, u, transpose_b=True)
            _, u, v = tf.linalg.svd(tf.einsum("oij,oik->jk", z, tf.matmul(r1, signs)))
            r2 = tf.matmul(u, v, transpose_b=True)
        self.R1.assign(r1)
        self.R2.assign(r2)

    def get_config(self):
        return {
            **super().get_config(),
            "alpha_initializer": tf.keras.initializers.serialize(self.alpha_initializer),
            "rotate_initializer": tf.keras.initializers.serialize(self.rotate_initializer),
            "regularizer": tf.keras.regularizers.serialize(self.regularizer),
            "mirrored": self.mirrored,
        }
