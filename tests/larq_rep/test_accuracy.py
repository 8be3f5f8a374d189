import numpy as np
import pytest
import tensorflow as tf

from larq_rep.accuracy import best_classes, measure


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "int8"])
def test_accuracy_is_that_of_tensorflow(dtype):
    """Over batches of different sizes; the numbers of a row differ, so that TensorFlow has no ties to count."""
    rng = np.random.default_rng(0)
    scores = rng.permuted(np.tile(np.arange(0, 120, 10), (50, 1)), axis=1).astype(dtype)
    labels = rng.integers(0, 12, 50)
    found = measure((scores[i : i + 16], labels[i : i + 16]) for i in range(0, 50, 16))
    expected = [tf.math.in_top_k(labels, scores.astype("float32"), k).numpy() for k in (1, 5)]
    assert (found.images, found.right, found.among5) == (50, *(int(hits.sum()) for hits in expected))
    assert (found.top1, found.top5) == (expected[0].mean(), expected[1].mean())


def test_of_equal_scores_the_first_class_is_better():
    np.testing.assert_array_equal(best_classes(np.array([[1, 3, 3, 0], [2, 2, 2, 2]]), 3), [[1, 2, 0], [0, 1, 2]])


def test_few_classes():
    found = measure([(np.array([[0.2, 0.8], [0.6, 0.4]]), np.array([1, 1]))])
    assert (found.right, found.among5) == (1, 2)
