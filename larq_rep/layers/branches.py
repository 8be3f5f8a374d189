"""Layers that join the branches of Group-Net and the members of an ensemble."""

import larq as lq
import tensorflow as tf

_VOTES = ("soft", "majority")


@lq.utils.register_keras_custom_object
class SoftGate(tf.keras.layers.Layer):
    r"""Mixes what a branch takes from the same branch before and from all of them, in a learned proportion.

    \\[ y = g \, x_1 + (1 - g) \, x_2 \qquad g = \operatorname{sigmoid}(\theta) \\]

    The branches of one block of Group-Net share the gate: it is called once for each. The weight is `theta`, a number.

    # Arguments
        theta_initializer: Initializer of `theta`, by default uniform between 0 and 1.

    # Input shape
        A list of two tensors of the same shape: the output of the branch before, and the sum of all.

    # Output shape
        Same as one input.

    # References
        - [Structured Binary Neural Networks for Accurate Image Classification and Semantic
            Segmentation](https://arxiv.org/abs/1811.10413), section 3.2.2
    """

    def __init__(self, theta_initializer=None, **kwargs):
        super().__init__(**kwargs)
        self.theta_initializer = _uniform(theta_initializer)

    def build(self, input_shape):
        self.theta = self.add_weight("theta", (), initializer=self.theta_initializer)
        super().build(input_shape)

    def call(self, inputs):
        own, shared = inputs
        gate = tf.sigmoid(self.theta)
        return gate * own + (1 - gate) * shared

    def compute_output_shape(self, input_shape):
        return tf.TensorShape(input_shape[0])

    def get_config(self):
        initializer = tf.keras.initializers.serialize(self.theta_initializer)
        return {**super().get_config(), "theta_initializer": initializer}


def _uniform(initializer):
    # One for each object: without a seed an initializer gives the same numbers every time.
    return tf.keras.initializers.get(initializer or tf.keras.initializers.RandomUniform(0.0, 1.0))


@lq.utils.register_keras_custom_object
class WeightedSum(tf.keras.layers.Layer):
    r"""The sum of its inputs, each multiplied by a number that is learned.

    \\[ y = \sum_k c_k x_k \\]

    The weight is `factors` \\(c\\), one number for each input.

    # Arguments
        factors_initializer: Initializer of `factors`, by default uniform between 0 and 1.

    # Input shape
        A list of tensors of the same shape.

    # Output shape
        Same as one input.

    # References
        - [Structured Binary Neural Networks for Accurate Image Classification and Semantic
            Segmentation](https://arxiv.org/abs/1811.10413), equation 5
    """

    _learned = True

    def __init__(self, factors_initializer=None, **kwargs):
        super().__init__(**kwargs)
        self.factors_initializer = _uniform(factors_initializer)

    def build(self, input_shape):
        self.factors = self.add_weight(
            "factors", (len(input_shape),), initializer=self.factors_initializer, trainable=self._learned
        )
        super().build(input_shape)

    def call(self, inputs):
        return tf.add_n([factor * x for factor, x in zip(tf.unstack(self.factors), inputs, strict=True)])

    def compute_output_shape(self, input_shape):
        return tf.TensorShape(input_shape[0])

    def get_config(self):
        initializer = tf.keras.initializers.serialize(self.factors_initializer)
        return {**super().get_config(), "factors_initializer": initializer}


@lq.utils.register_keras_custom_object
class Vote(WeightedSum):
    r"""The vote of an ensemble: the sum of its members' logits, or of their votes for a class.

    \\[ y = \sum_k a_k x_k \qquad \text{or} \qquad y = \sum_k a_k \operatorname{onehot}(\arg\max x_k) \\]

    The weight is `factors` \\(a\\), one number for each member, at first 1. No gradient changes it: boosting sets it.
    A majority of votes passes no gradient.

    # Arguments
        kind: `"soft"`, the sum of logits, or `"majority"`; of equal logits the first counts.
        factors_initializer: Initializer of `factors`.

    # Input shape
        A list of logits, `(batch, classes)`.

    # Output shape
        `(batch, classes)`

    # Raises
        ValueError: if `kind` is neither.

    # References
        - [Binary Ensemble Neural Network: More Bits per Network or More Networks per
            Bit?](https://arxiv.org/abs/1806.07550)
    """

    _learned = False

    def __init__(self, kind: str = "soft", factors_initializer="ones", **kwargs):
        super().__init__(factors_initializer, **kwargs)
        if kind not in _VOTES:
            raise ValueError(f"Vote '{self.name}' should be 'soft' or 'majority', but got kind={kind!r}.")
        self.kind = kind

    def call(self, inputs):
        if self.kind == "majority":
            inputs = [tf.one_hot(tf.argmax(x, axis=-1), x.shape[-1], dtype=x.dtype) for x in inputs]
        return super().call(inputs)

    def get_config(self):
        return {**super().get_config(), "kind": self.kind}
