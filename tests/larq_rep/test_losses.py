import numpy as np
import pytest
import tensorflow as tf

from larq_rep.losses import CrossEntropy, DistributionalLoss, SquaredHinge, distribution_loss


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


def test_squared_hinge_is_the_formula():
    """With a margin of exactly 1, where neither value nor gradient jumps, and labels of shape (batch, 1)."""
    z, labels = _logits(4) / 3, np.array([0, 1, 2, 3, 4, 0])
    z[0, 0], z[1, 0] = 1.0, -1.0
    t = np.where(np.arange(5) == labels[:, None], 1, -1)
    margins = np.maximum(1 - t * z, 0)
    for y in (labels, labels[:, None]):
        logits = tf.constant(z)
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = SquaredHinge()(y, logits)
        np.testing.assert_allclose(loss, (margins**2).mean(), rtol=1e-12)
        np.testing.assert_allclose(tape.gradient(loss, logits), -2 * t * margins / 30, rtol=1e-12)


def _penalty(x):
    """As the authors' code computes it, channel by channel."""
    terms = []
    for values in x.reshape(-1, x.shape[-1]).T:
        mean, deviation = values.mean(), values.std()
        degenerate = max(min(2 - mean - deviation, 2 + mean - deviation), 0) ** 2
        terms.append([degenerate, max(deviation - 4, 0) ** 2, max(mean**2 - deviation**2, 0)])
    return np.array(terms)


@pytest.mark.parametrize("shape", [(64, 5), (8, 4, 2, 5)])
def test_distribution_loss_is_the_formula(shape):
    """Channels with too small values, too large ones, one sign (two times), and with nothing to penalise."""
    means, deviations = np.array([0.0, 1.0, 3.0, -5.0, 0.1]), np.array([0.2, 6.0, 1.0, 0.5, 2.5])
    x = np.random.default_rng(5).normal(size=shape)
    x = (x - x.mean(axis=tuple(range(x.ndim - 1)))) / x.std(axis=tuple(range(x.ndim - 1))) * deviations + means
    terms = _penalty(x)
    np.testing.assert_array_equal(terms > 0, np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1], [0, 0, 0]]))
    np.testing.assert_allclose(distribution_loss(tf.constant(x)), terms.sum() / 5, rtol=1e-5)


def test_distribution_loss_has_its_gradient():
    """By central differences; a channel without any deviation has a finite one."""
    x = np.random.default_rng(6).normal(0.3, 0.8, (7, 3))

    def gradient(x):
        values = tf.constant(x, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(values)
            loss = distribution_loss(values)
        return tape.gradient(loss, values).numpy()

    expected = np.empty_like(x)
    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = 1e-6
        expected[index] = (_penalty(x + step).sum() - _penalty(x - step).sum()) / 3 / 2e-6
    np.testing.assert_allclose(gradient(x), expected, rtol=1e-3, atol=1e-5)
    x[:, 0] = 1.5
    assert np.isfinite(gradient(x)).all()
