import numpy as np
import pytest
import tensorflow as tf

from larq_rep.losses import CrossEntropy, DistributionalLoss
from larq_rep.training.trainee import Trainee, first_not_finite, is_not_finite


def _classifier(name, activation=None, shape=(2, 2, 1), classes=3):
    inputs = tf.keras.Input(shape)
    x = tf.keras.layers.Flatten()(inputs)
    return tf.keras.Model(inputs, tf.keras.layers.Dense(classes, activation, name="dense")(x), name=name)


def _data(seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((6, 2, 2, 1)).astype(np.float32), rng.integers(0, 3, 6)


def _softmax(z):
    exponentials = np.exp(z - z.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_a_step_follows_the_teacher(activation):
    """One step of SGD against the gradient of the distributional loss; the teacher stays as it is."""
    x, y = _data()
    student, teacher = _classifier("student"), _classifier("teacher", activation)
    (w, b), (tw, tb) = student.get_weights(), teacher.get_weights()
    trainee = Trainee(student.inputs, student.outputs, teacher)
    trainee.compile(tf.keras.optimizers.SGD(0.5), DistributionalLoss(), metrics=["accuracy"])
    history = trainee.fit(x, y, batch_size=6, verbose=0).history

    flat = x.reshape(6, 4)
    targets, answers = _softmax(flat @ tw + tb), _softmax(flat @ w + b)
    assert history["loss"][0] == pytest.approx(-(targets * np.log(answers)).sum(axis=1).mean(), rel=1e-5)
    assert history["accuracy"][0] == pytest.approx((answers.argmax(axis=1) == y).mean())
    np.testing.assert_allclose(student.get_weights()[0], w - 0.5 * flat.T @ (answers - targets) / 6, atol=1e-6)
    for before, after in zip((tw, tb), teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert len(trainee.trainable_variables) == 2


def test_evaluation_is_of_the_labels_whatever_was_learned():
    x, y = _data()
    student = _classifier("student")
    trainee = Trainee(student.inputs, student.outputs)
    trainee.compile(tf.keras.optimizers.SGD(0.0), CrossEntropy(label_smoothing=0.1), metrics=["accuracy"])
    history = trainee.fit(x, y, batch_size=6, validation_data=(x, y), verbose=0).history
    w, b = student.get_weights()
    logs = np.log(_softmax(x.reshape(6, 4) @ w + b))
    plain = -logs[np.arange(6), y].mean()
    assert history["val_loss"][0] == pytest.approx(plain, rel=1e-5)
    assert history["loss"][0] == pytest.approx(0.9 * plain - 0.1 * logs.mean(), rel=1e-5)
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy"}


@pytest.mark.parametrize(
    "teacher, message",
    [
        (_classifier("teacher", classes=4), "'teacher' answers with shape .*4.*3 classes"),
        (_classifier("teacher", shape=(3, 3, 1)), "'teacher' takes images of shape .*3, 3, 1.*2, 2, 1"),
    ],
)
def test_teachers_of_other_tasks_are_refused(teacher, message):
    student = _classifier("student")
    with pytest.raises(ValueError, match=message):
        Trainee(student.inputs, student.outputs, teacher)


def test_a_loss_that_is_not_finite_changes_no_weight():
    x, y = _data()
    x[3, 0, 0, 0] = np.inf
    student = _classifier("student")
    before = student.get_weights()
    trainee = Trainee(student.inputs, student.outputs)
    trainee.compile(tf.keras.optimizers.SGD(0.1), CrossEntropy())
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        trainee.fit(x, y, batch_size=6, verbose=0)
    assert is_not_finite(error.value)
    for old, new in zip(before, student.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert first_not_finite(student, x) == "the images"


def test_first_not_finite():
    x, _ = _data()
    inputs = tf.keras.Input((2, 2, 1))
    y = tf.keras.layers.Conv2D(2, 1, name="conv")(inputs)
    y = tf.keras.layers.Rescaling(np.inf, name="broken")(y)
    y = tf.keras.layers.Flatten(name="later")(y)
    model = tf.keras.Model(inputs, tf.keras.layers.Dense(3, name="dense")(y))
    assert first_not_finite(model, x) == "the output of layer 'broken' (Rescaling)"
    dense = model.get_layer("dense")
    dense.kernel.assign(dense.kernel * np.nan)
    assert first_not_finite(model, x) == "weight dense/kernel:0 of layer 'dense' (Dense)"
    finite = _classifier("finite")
    assert first_not_finite(finite, x) == "the loss itself: all layers' outputs are finite"


def test_weights_of_images_count():
    x, y = _data()
    student = _classifier("student")
    trainee = Trainee(student.inputs, student.outputs)
    trainee.compile(tf.keras.optimizers.SGD(0.0), CrossEntropy(), metrics=["accuracy"])
    weights = np.array([1, 0, 0, 2, 0, 0], np.float32)
    history = trainee.fit(x, y, sample_weight=weights, batch_size=6, verbose=0).history
    w, b = student.get_weights()
    losses = -np.log(_softmax(x.reshape(6, 4) @ w + b))[np.arange(6), y]
    assert history["loss"][0] == pytest.approx((losses[0] + 2 * losses[3]) / 6, rel=1e-5)
