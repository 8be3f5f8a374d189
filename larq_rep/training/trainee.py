"""Training steps that learn from labels or a teacher, and stop at the first loss that is not finite."""

import re

import tensorflow as tf

from larq_rep.graph import nodes

_NOT_FINITE = "the loss is not finite"


class Trainee(tf.keras.Model):
    """A classifier in training: the model's layers and weights, with its own training steps.

    ```python
    trainee = Trainee(model.inputs, model.outputs, teacher=teacher)
    trainee.compile(optimizer, larq_rep.losses.DistributionalLoss(), metrics=["accuracy"])
    trainee.fit(dataset)  # trains the layers of `model`
    ```

    With a teacher the loss gets the teacher's logits in place of the labels: the teacher sees the same images in
    inference mode, and is neither trained nor saved. Metrics always use the labels. So does the loss of
    `evaluate` and `validation_data`: it is the cross-entropy, whatever the network learns from.

    Constraints also act before the first step: authors who clip latent weights do so before each step, Keras after it.

    A loss that is not finite raises `tf.errors.InvalidArgumentError` in the step in which it occurs, before it
    changes a trainable weight; `first_not_finite` says where it comes from.

    # Arguments
        inputs, outputs: Inputs and outputs of a functional model whose only output is its logits.
        teacher: A model for the same images with the same number of classes, which returns logits or ends with a
            softmax.

    # Raises
        ValueError: If the teacher's images or classes differ from the network's.
    """

    def __init__(self, inputs, outputs, teacher: tf.keras.Model | None = None, **kwargs):
        super().__init__(inputs, outputs, **kwargs)
        # A function, because Keras would treat a model as one of the layers.
        self._teach = None if teacher is None else _teaching(teacher, self)
        self._cross_entropy = tf.keras.metrics.SparseCategoricalCrossentropy(name="cross_entropy", from_logits=True)

    def fit(self, *args, **kwargs):
        # Not if steps were already taken: a constraint may change weights again that it has already changed.
        if self.optimizer.iterations == 0:
            for weight in self.trainable_weights:
                if weight.constraint is not None:
                    weight.assign(weight.constraint(weight))
        return super().fit(*args, **kwargs)

    def train_step(self, data):
        images, labels, weights = tf.keras.utils.unpack_x_y_sample_weight(data)
        learned = labels if self._teach is None else self._teach(images)
        with tf.GradientTape() as tape:
            logits = self(images, training=True)
            loss = self.compute_loss(images, learned, logits, weights)
        # Nothing may be assigned before the check; the gradients alone would not wait for it.
        with tf.control_dependencies([tf.debugging.check_numerics(loss, _NOT_FINITE)]):
            self.optimizer.minimize(loss, self.trainable_variables, tape=tape)
        results = self.compute_metrics(images, labels, logits, weights)
        del results["cross_entropy"]
        return results

    def test_step(self, data):
        images, labels, weights = tf.keras.utils.unpack_x_y_sample_weight(data)
        logits = self(images, training=False)
        self._cross_entropy.update_state(labels, logits, weights)
        results = self.compute_metrics(images, labels, logits, weights)
        results["loss"] = results.pop("cross_entropy")
        return results


def logits_of(network: tf.keras.Model) -> list[tf.Tensor]:
    """The outputs of a network, or what they are the softmax of if a layer for it is the last one."""
    last = network.layers[-1]
    if isinstance(last, (tf.keras.layers.Activation, tf.keras.layers.Softmax)) and _is_softmax(last):
        return [last.input]
    return network.outputs


def _is_softmax(layer: tf.keras.layers.Layer) -> bool:
    activation = getattr(layer, "activation", None)
    return activation is tf.keras.activations.softmax or isinstance(layer, tf.keras.layers.Softmax)


def _teaching(teacher: tf.keras.Model, student: tf.keras.Model):
    expected, found = student.input_shape[1:], teacher.input_shape[1:]
    if not tf.TensorShape(found).is_compatible_with(expected):
        raise ValueError(f"The teacher '{teacher.name}' takes images of shape {found}, the network {expected}.")
    if teacher.output_shape[-1:] != student.output_shape[-1:] or len(teacher.output_shape) != 2:
        raise ValueError(
            f"The teacher '{teacher.name}' answers with shape {teacher.output_shape}, but the network has "
            f"{student.output_shape[-1]} classes."
        )
    is_softmax = _is_softmax(teacher.layers[-1])

    def logits(images):
        answers = tf.stop_gradient(teacher(images, training=False))
        # The logarithms of probabilities are logits of these probabilities.
        return tf.math.log(answers + 1e-30) if is_softmax else answers

    return logits


def is_not_finite(error: Exception) -> bool:
    """Returns whether this is the error of a `Trainee` whose loss is not finite."""
    return isinstance(error, tf.errors.InvalidArgumentError) and _NOT_FINITE in str(error)


def explained(error: tf.errors.OpError) -> str:
    """The line of a TensorFlow error that says what is wrong; the Python function's own message if it has one."""
    lines = error.message.strip().splitlines() or [type(error).__name__]
    own = [line for line in lines if re.match(r"(\w+\.)*\w*Error: ", line)]
    if own:
        return own[-1].partition(": ")[2]
    if not lines[0].startswith("Graph execution error"):
        return lines[0]
    # The lines of a Python traceback come first: they say where the operation was made.
    made = re.compile(r"\s*(Detected at|File \"|\d+ root error|\[\[|$)")
    told = [line.strip() for line in lines[1:] if not made.match(line)]
    return told[0] if told else lines[0]


def first_not_finite(model: tf.keras.Model, images: tf.Tensor) -> str:
    """Names the first layer whose weights are not finite or, if all weights are, whose outputs in training are not.

    # Returns
        A clause for a message, such as `"the output of layer 'bn1' (BatchNormalization)"`.
    """
    for layer in model.layers:
        for weight in layer.trainable_weights:
            if not _is_finite(weight):
                return f"weight {weight.name} of layer {_called(layer)}"
    if not _is_finite(images):
        return "the images"
    calls = list(nodes(model))
    outputs = tf.keras.Model(model.inputs, [tf.nest.flatten(node.outputs) for node in calls])(images, training=True)
    for node, values in zip(calls, outputs, strict=True):
        if not all(_is_finite(value) for value in values):
            return f"the output of layer {_called(node.layer)}"
    return "the loss itself: all layers' outputs are finite"


def _called(layer: tf.keras.layers.Layer) -> str:
    return f"'{layer.name}' ({type(layer).__name__})"


def _is_finite(values) -> bool:
    values = tf.convert_to_tensor(values)
    return not values.dtype.is_floating or bool(tf.reduce_all(tf.math.is_finite(values)))
