"""Losses of the published recipes. The classes take logits, `distribution_loss` takes what a sign is taken of."""

import tensorflow as tf

_register = tf.keras.utils.register_keras_serializable(package="larq_rep")


@_register
class DistributionalLoss(tf.keras.losses.Loss):
    r"""Cross-entropy of a teacher's class probabilities and the network's.

    \\[
    L = -\frac{T^2}{B} \sum_b \sum_c \operatorname{softmax}(t_b / T)_c \, \log \operatorname{softmax}(z_b / T)_c
    \\]

    with the teacher's logits \\(t\\) in place of the labels and the network's logits \\(z\\). It exceeds the
    Kullback-Leibler divergence of the two by the entropy of the teacher's probabilities, so the gradients are equal.
    No gradient passes to the teacher.

    # Arguments
        temperature: \\(T\\), 1 in ReActNet; \\(T^2\\) keeps the size of the gradients.
        **kwargs: `reduction` and `name` of a Keras loss.

    # Input shape
        Both `(batch, classes)`.

    # Raises
        ValueError: If the temperature is not positive.

    # References
        - [ReActNet: Towards Precise Binary Neural Network with Generalized Activation
            Functions](https://arxiv.org/abs/2003.03488), equation 10, and its code
        - [Distilling the Knowledge in a Neural Network](https://arxiv.org/abs/1503.02531), for temperatures
    """

    def __init__(self, temperature: float = 1.0, name: str = "distributional_loss", **kwargs):
        super().__init__(name=name, **kwargs)
        if temperature <= 0:
            raise ValueError(f"DistributionalLoss needs a temperature > 0, but got {temperature}.")
        self.temperature = temperature

    def call(self, y_true, y_pred):
        logits = tf.convert_to_tensor(y_pred)
        teacher = tf.stop_gradient(tf.cast(y_true, logits.dtype))
        loss = tf.nn.softmax_cross_entropy_with_logits(
            tf.nn.softmax(teacher / self.temperature), logits / self.temperature
        )
        return self.temperature**2 * loss

    def get_config(self):
        return {**super().get_config(), "temperature": self.temperature}


@_register
class CrossEntropy(tf.keras.losses.Loss):
    r"""Cross-entropy of class numbers, which may be smoothed, and logits.

    \\[
    L = -\frac{1}{B} \sum_b \sum_{c=1}^{K} \left((1 - \epsilon)\, 1_{c = y_b} + \frac{\epsilon}{K}\right)
    \log \operatorname{softmax}(z_b)_c
    \\]

    # Arguments
        label_smoothing: \\(\epsilon\\), 0.1 in Bi-Real-Net and PresB-Net.
        **kwargs: `reduction` and `name` of a Keras loss.

    # Input shape
        Class numbers `(batch,)` or `(batch, 1)` and logits `(batch, classes)`.

    # Raises
        ValueError: If the smoothing is negative or more than 1.

    # References
        - [Rethinking the Inception Architecture for Computer Vision](https://arxiv.org/abs/1512.00567), section 7
    """

    def __init__(self, label_smoothing: float = 0.0, name: str = "cross_entropy", **kwargs):
        super().__init__(name=name, **kwargs)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"CrossEntropy needs 0 <= label_smoothing <= 1, but got {label_smoothing}.")
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        logits = tf.convert_to_tensor(y_pred)
        labels = tf.reshape(tf.cast(y_true, tf.int64), tf.shape(logits)[:-1])
        # Not with one-hot targets, which would be 0 for a label that is not a class: here it is an error.
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        if self.label_smoothing:
            uniform = -tf.reduce_mean(tf.nn.log_softmax(logits), axis=-1)
            loss = (1 - self.label_smoothing) * loss + self.label_smoothing * uniform
        return loss

    def get_config(self):
        return {**super().get_config(), "label_smoothing": self.label_smoothing}


@_register
class SquaredHinge(tf.keras.losses.Loss):
    r"""Squared hinge loss of class numbers and logits.

    \\[ L = \frac{1}{B K} \sum_b \sum_{c=1}^{K} \max(0, 1 - t_{bc} z_{bc})^2 \qquad t_{bc} = \begin{cases}
      1 & c = y_b \\\
      -1 & c \neq y_b
    \end{cases} \\]

    # Arguments
        **kwargs: `reduction` and `name` of a Keras loss.

    # Input shape
        Class numbers `(batch,)` or `(batch, 1)` and logits `(batch, classes)`.

    # References
        - [BinaryConnect: Training Deep Neural Networks with binary weights during
            propagations](https://arxiv.org/abs/1511.00363), its code
    """

    def __init__(self, name: str = "squared_hinge", **kwargs):
        super().__init__(name=name, **kwargs)

    def call(self, y_true, y_pred):
        logits = tf.convert_to_tensor(y_pred)
        labels = tf.reshape(tf.cast(y_true, tf.int64), tf.shape(logits)[:-1])
        targets = tf.one_hot(labels, tf.shape(logits)[-1], 1.0, -1.0, dtype=logits.dtype)
        return tf.reduce_mean(tf.maximum(1 - targets * logits, 0) ** 2, axis=-1)


def distribution_loss(x: tf.Tensor) -> tf.Tensor:
    r"""Penalises channels whose signs would all be equal, whose values are far from 0, or both.

    With the mean \\(\mu_c\\) and deviation \\(\sigma_c\\) of each of \\(C\\) channels over the batch and all pixels,

    \\[
    L = \frac{1}{C} \sum_c \max(0, 2 - \left|\mu_c\right| - \sigma_c)^2 + \max(0, \sigma_c - 4)^2
    + \max(0, \mu_c^2 - \sigma_c^2)
    \\]

    The three terms are large if the values do not reach the window \\(\pm 1\\) of the sign's gradient on both sides,
    lie outside of it, or have one sign.

    # Arguments
        x: What is binarized, `(batch, ..., channels)`. In a functional model,
            `model.add_loss(distribution_loss(x))` adds it to the loss.

    # Returns
        A scalar.

    # References
        - [Regularizing Activation Distribution for Training Binarized Deep
            Networks](https://arxiv.org/abs/1904.02823), and its code
    """
    mean, variance = tf.nn.moments(tf.cast(x, tf.float32), list(range(x.shape.rank - 1)))
    # The root of 0 has no gradient.
    deviation = tf.sqrt(variance + 1e-10)
    degenerate = tf.nn.relu(2 - tf.abs(mean) - deviation) ** 2
    saturated = tf.nn.relu(deviation - 4) ** 2
    one_sided = tf.nn.relu(mean**2 - variance)
    return tf.reduce_mean(degenerate + saturated + one_sided)
