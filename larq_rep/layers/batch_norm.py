"""Batch normalisation with the statistics of PyTorch."""

import contextlib
import threading
from collections.abc import Iterator

import tensorflow as tf

_batch = threading.local()  # Each replica runs in its own thread.


@contextlib.contextmanager
def repeated(times: tf.Tensor) -> Iterator[None]:
    """Within this context each image of a shared batch is present `times` times, and counts once in N."""
    _batch.times = times
    try:
        yield
    finally:
        del _batch.times


@tf.keras.utils.register_keras_serializable(package="larq_rep")
class BatchNormalization(tf.keras.layers.BatchNormalization):
    r"""Keras' batch normalisation with an unbiased moving variance whatever its input.

    With the mean \\(\mu\\) of a channel's \\(N\\) numbers \\(x_i\\) in a batch and the momentum \\(m\\), a
    training step takes

    \\[
    \sigma^2 \leftarrow m\, \sigma^2 + (1 - m)\, \frac{1}{N - 1} \sum_i (x_i - \mu)^2
    \\]

    into `moving_variance`, as PyTorch does. Both normalise the batch itself with \\(1 / N\\) instead of
    \\(1 / (N - 1)\\). Keras uses \\(1 / (N - 1)\\) only with a fused operation, that is for
    feature maps in float32 or shorter, on one device or on several that do not synchronise; otherwise \\(1 / N\\).
    With `synchronized=True`, \\(N\\) counts the numbers of all devices. A single number has no unbiased variance: for
    \\(N = 1\\) it is 0, as in Keras.

    Weights, configuration and inference are those of Keras' layer, and files of either layer fit the other.

    # Arguments
        **kwargs: As for `tf.keras.layers.BatchNormalization`, with its defaults: PyTorch's are `momentum=0.9,
            epsilon=1e-5`.

    # Input shape
        Any shape.

    # Output shape
        Same as the input.

    # References
        - [Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate
            Shift](https://arxiv.org/abs/1502.03167), algorithm 2
    """

    def call(self, inputs, training=None, mask=None):
        if training is None:
            training = tf.keras.backend.learning_phase()
        learns = self.trainable and (tf.is_tensor(training) or training)
        # Renormalisation and parts of a batch have different statistics.
        if not learns or self.fused or self.renorm or self.virtual_batch_size is not None:
            return super().call(inputs, training=training, mask=mask)
        before = tf.identity(self.moving_variance)
        outputs = super().call(inputs, training=training, mask=mask)
        dtype = self.moving_variance.dtype
        others = tf.cast(self._count(inputs, mask) - 1, dtype)

        def correct():
            # Keras has added a term for this batch. Adding 1 / (N - 1) of it again makes it N / (N - 1) times as large.
            added = self.moving_variance - self.momentum * before
            missing = tf.where(others > 0, added / tf.maximum(others, 1), tf.zeros_like(added))
            return self.moving_variance.assign_add(missing * tf.cast(training, dtype))

        self.add_update(correct)
        return outputs

    # Keras has no public name for it, and takes 1 - momentum in float32 whatever the dtype.
    def _assign_moving_average(self, variable, value, momentum, inputs_size):
        step = (variable - tf.cast(value, variable.dtype)) * (1.0 - momentum)
        if inputs_size is not None:
            step = tf.where(inputs_size > 0, step, tf.zeros_like(step))
        return variable.assign_sub(step)

    def _count(self, inputs, mask):
        """Counts the numbers of each channel."""
        if mask is None:
            count = tf.size(inputs, tf.int64) // tf.size(self.moving_variance, tf.int64)
        else:
            kept = tf.broadcast_to(mask[..., tf.newaxis], tf.shape(inputs))
            count = tf.math.count_nonzero(kept) // tf.size(self.moving_variance, tf.int64)
        replica = tf.distribute.get_replica_context()
        if not self.synchronized or not replica:
            return count
        return replica.all_reduce("SUM", count) // getattr(_batch, "times", 1)
