import numpy as np
import pytest
import tensorflow as tf

from larq_rep.losses import CrossEntropy, DistributionalLoss


def _log_softmax(z):
    shifted = z - z.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def _logits(seed, shape=(6, 5)):
    return np.random.default_rng(seed).normal(0, 3, shape)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_distributional_loss_is_the_formula(temperature):
    teacher, student = _logits(0), _logits(1)
    p = np.exp(_log_softmax(teacher / temperature))
    expected = -(p * _log_softmax(student / temperature)).sum() / 6 * temperature**2
    loss = DistributionalLoss(temperature)(teacher, student)
    assert loss.dtype == tf.float64
    np.testing.assert_allclose(loss, expected, rtol=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_distributional_loss_has_the_gradient_of_kl(temperature):
    """By central differences of the divergence; the teacher gets none."""
    teacher, student = _logits(2), _logits(3)
    log_p = _log_softmax(teacher / temperature)

    def divergence(z):
        log_q = _log_softmax(z / temperature)
        return (np.exp(log_p) * (log_p - log_q)).sum() / 6 * temperature**2

    expected = np.empty_like(student)
    for index in np.ndindex(student.shape):
        step = np.zeros_like(student)
        step[index] = 1e-5
        expected[index] = (divergence(student + step) - divergence(student - step)) / 2e-5
    t, z = tf.constant(teacher), tf.constant(student)
    with tf.GradientTape() as tape:
        tape.watch([t, z])
        loss = DistributionalLoss(temperature)(t, z)
    to_teacher, to_student = tape.gradient(loss, [t, z])
    assert to_teacher is None
    np.testing.assert_allclose(to_student, expected, atol=1e-9)


def test_losses_are_finite_for_extreme_logits():
    z = tf.constant([[1e4, -1e4, 0.0]])
    t = tf.constant([[-1e4, 1e4, 0.0]])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(z)
        distance = DistributionalLoss()(t, z)
        entropy = CrossEntropy(0.1)(tf.constant([1]), z)
    np.testing.assert_allclose(distance, 2e4)
    # (0.9 + 0.1 / 3) * 2e4 + 0.1 / 3 * 1e4
    np.testing.assert_allclose(entropy, 19000.0, rtol=1e-6)
    np.testing.assert_allclose(tape.gradient(distance, z), [[1, -1, 0]], atol=1e-6)
    np.testing.assert_allclose(tape.gradient(entropy, z), [[1 - 0.1 / 3, -0.9 - 0.1 / 3, -0.1 / 3]], atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
@pytest.mark.parametrize("shape, dtype", [((6,), np.int64), ((6, 1), np.uint8), ((6,), np.float32)])
def test_cross_entropy_is_that_of_smoothed_targets(smoothing, shape, dtype):
    z, labels = _logits(4), np.array([0, 4, 2, 1, 1, 3])
    target = (1 - smoothing) * np.eye(5)[labels] + smoothing / 5
    expected = -(target * _log_softmax(z)).sum() / 6
    np.testing.assert_allclose(CrossEntropy(smoothing)(labels.reshape(shape).astype(dtype), z), expected, rtol=1e-12)
    keras = tf.keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
    np.testing.assert_allclose(keras(np.eye(5)[labels], z), expected, rtol=1e-12)


@pytest.mark.parametrize("label", [-1, 5])
def test_a_label_that_is_no_class_is_an_error(label):
    with pytest.raises(tf.errors.InvalidArgumentError):
        CrossEntropy()(np.array([0, label]), _logits(5, (2, 5)))


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"temperature > 0, but got 0"):
        DistributionalLoss(0)
    with pytest.raises(ValueError, match=r"label_smoothing <= 1, but got 1\.5"):
        CrossEntropy(1.5)


@pytest.mark.parametrize(
    "loss, attribute", [(DistributionalLoss(4.0), "temperature"), (CrossEntropy(0.1), "label_smoothing")]
)
@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_a_saved_model_keeps_its_loss(loss, attribute, suffix, tmp_path):
    model = tf.keras.Sequential([tf.keras.layers.Dense(3, input_shape=(2,))])
    model.compile("sgd", loss)
    path = str(tmp_path / f"model.{suffix}")
    model.save(path)
    loaded = tf.keras.models.load_model(path)
    assert type(loaded.loss) is type(loss)
    assert getattr(loaded.loss, attribute) == getattr(loss, attribute)


def test_the_loss_of_compiled_training_is_the_mean_over_the_batch():
    x, labels = np.ones((4, 2), np.float32), np.array([0, 1, 2, 0])
    model = tf.keras.Sequential([tf.keras.layers.Dense(3, kernel_initializer="zeros", input_shape=(2,))])
    model.compile("sgd", CrossEntropy(0.1))
    np.testing.assert_allclose(model.fit(x, labels, batch_size=4, verbose=0).history["loss"], [np.log(3)], rtol=1e-6)
