"""Trains the members of an ensemble one after the other: bagging and boosting, as in BENN."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from larq_rep.layers import Vote

# Trains a member with a weight for each training image; the mean of the weights is 1.
Fit = Callable[[tf.keras.Model, np.ndarray], None]


def _vote(model: tf.keras.Model) -> Vote:
    for layer in model.layers:
        if isinstance(layer, Vote):
            return layer
    raise ValueError(f"Model '{model.name}' is no ensemble: it has no layer Vote. `larq_rep.zoo.Ensemble` makes one.")


def members(model: tf.keras.Model) -> list[tf.keras.Model]:
    """The members of an ensemble, as models of an image's logits. They have its layers, so training them trains it.

    # Raises
        ValueError: If the model has no layer `Vote`.
    """
    outputs = tf.nest.flatten(_vote(model).input)
    return [tf.keras.Model(model.input, logits, name=f"member{n}") for n, logits in enumerate(outputs, start=1)]


def bagging(model: tf.keras.Model, fit: Fit, size: int, *, seed: int = 0) -> None:
    """Trains each member of an ensemble on images drawn with replacement, as many as there are.

    ```python
    def fit(member, weights):
        member.compile("adam", tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        member.fit(images, labels, sample_weight=weights, epochs=80)

    bagging(model, fit, len(images))
    ```

    All votes count the same.

    # Arguments
        model: A model of `larq_rep.zoo.Ensemble`, or another that ends with the layer `Vote`.
        fit: `fit(member, weights)` trains a model; the weight of an image is how often it was drawn.
        size: Number of training images.
        seed: Seed of the draws.

    # References
        - [Binary Ensemble Neural Network: More Bits per Network or More Networks per
          Bit?](https://arxiv.org/abs/1806.07550)
    """
    vote, rng = _vote(model), np.random.default_rng(seed)
    for member in members(model):
        fit(member, rng.multinomial(size, np.full(size, 1 / size)).astype(np.float32))
    vote.set_weights([np.ones(vote.factors.shape)])


def boosting(
    model: tf.keras.Model, fit: Fit, images: np.ndarray | tf.data.Dataset, labels: np.ndarray, *, start: str = "indep"
) -> np.ndarray:
    r"""Trains each member of an ensemble with larger weights for the images that the members before get wrong.

    With \\(C\\) classes, \\(w_i\\) the weight of an image, and \\(e_k\\) the sum of those that member \\(k\\) gets
    wrong over the sum of all,

    \\[
    a_k = \ln\frac{1 - e_k}{e_k} + \ln(C - 1) \qquad
    w_i \leftarrow w_i \exp(\pm a_k)
    \\]

    with the plus for images that it gets wrong, and then a mean of 1. Its logits or votes are multiplied by \\(a_k\\).
    An error of 0 or 1 counts as that of half an image.

    # Arguments
        model: A model of `larq_rep.zoo.Ensemble`, or another that ends with the layer `Vote`.
        fit: `fit(member, weights)` trains a model, as in `bagging`.
        images: The training images as `predict` takes them: an array, or batches in a `tf.data.Dataset`.
        labels: Their classes as numbers, `(images,)` or `(images, 1)`.
        start: Whether a member starts with initial values of its own, `"indep"`, or with the weights of the member
            before, `"seq"`.

    # Returns
        The weights of the images that a further member would be trained with.

    # Raises
        ValueError: If `start` is neither, or a member does not answer each label.

    # References
        - [Binary Ensemble Neural Network: More Bits per Network or More Networks per
          Bit?](https://arxiv.org/abs/1806.07550)
    """
    if start not in ("indep", "seq"):
        raise ValueError(f"boosting: start should be 'indep' or 'seq', found {start!r}.")
    labels = np.ravel(labels)
    vote, size, classes = _vote(model), len(labels), model.output_shape[-1]
    weights, factors = np.ones(size), []
    previous: tf.keras.Model | None = None
    for member in members(model):
        if previous is not None and start == "seq":
            member.set_weights(previous.get_weights())
        fit(member, weights.astype(np.float32))
        answers = member.predict(images, verbose=0).argmax(axis=-1)
        if answers.shape != labels.shape:
            raise ValueError(
                f"boosting: {len(answers)} images have {size} labels. Give each image the number of its class."
            )
        wrong = answers != labels
        error = np.clip(weights[wrong].sum() / size, 0.5 / size, 1 - 0.5 / size)
        factors.append(np.log((1 - error) / error) + np.log(classes - 1))
        weights *= np.exp(np.where(wrong, factors[-1], -factors[-1]))
        weights *= size / weights.sum()
        previous = member
    vote.set_weights([np.array(factors)])
    return weights
