"""What quantizers with variables have in common; Larq's own have none."""

import tensorflow as tf

from larq_rep._keras import BaseQuantizer


class QuantizerWithVariables(BaseQuantizer):
    """A quantizer with weights, or with a number that a schedule changes.

    That number is a variable, for compiled training steps to see it change, but no weight. Files hold the weights
    only: saving it would also make `.keras` files of models whose layers share one quantizer unreadable, since
    there each layer restores one of its own.
    """

    precision = 1

    def _add_scheduled(self, name: str, value: float) -> tf.Variable:
        return self.add_weight(name, shape=(), initializer=tf.keras.initializers.Constant(value), trainable=False)

    @property
    def _state(self) -> list[tf.Variable]:
        """The weights that no gradient changes."""
        return []

    @property
    def non_trainable_weights(self):
        return [*([] if self.trainable else self._trainable_weights), *self._state]

    def get_build_config(self):
        # The shape of the kernel is that of the layer, whose config may make a wider one (`reptran`).
        return None

    def save_own_variables(self, store):
        for index, weight in enumerate(self.weights):
            store[str(index)] = weight.numpy()

    def load_own_variables(self, store):
        for index, weight in enumerate(self.weights):
            weight.assign(store[str(index)])


class SteepenedQuantizer(QuantizerWithVariables):
    """Holds `t`, the steepness of an estimator, which grows during training."""

    def __init__(self, t: float, **kwargs):
        super().__init__(**kwargs)
        if t <= 0:
            raise ValueError(f"{type(self).__name__} '{self.name}' needs t > 0, but got t={t}.")
        self.initial_t = t
        self.t = self._add_scheduled("t", t)

    def get_config(self):
        return {**super().get_config(), "t": self.initial_t}


@tf.custom_gradient
def standardized(kernel: tf.Tensor) -> tf.Tensor:
    """Weights without the mean and over the (unbiased) standard deviation of their output channel, the last axis."""
    axes = list(range(kernel.shape.rank - 1))
    centred = kernel - tf.reduce_mean(kernel, axis=axes)
    freedom = kernel.shape[:-1].num_elements() - 1
    deviation = tf.sqrt(tf.reduce_sum(centred**2, axis=axes) / freedom)
    z = centred / deviation

    # In fewer passes than that of the operations above, one after the other.
    def grad(dz):
        along = tf.reduce_sum(dz * z, axis=axes) / freedom
        return (dz - tf.reduce_mean(dz, axis=axes) - along * z) / deviation

    return z, grad
