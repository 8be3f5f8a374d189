"""Bagging and boosting against the formulas, on members whose answers are known."""

import numpy as np
import pytest
import tensorflow as tf

from larq_rep.layers import Vote
from larq_rep.training import bagging, boosting, members

# Eight images of three numbers, of three classes.
IMAGES = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
LABELS = IMAGES.argmax(-1)


def ensemble(count=3):
    image = tf.keras.Input((3,))
    dense = [tf.keras.layers.Dense(3, use_bias=False, name=f"dense{n}") for n in range(1, count + 1)]
    return tf.keras.Model(image, Vote(name="vote")([layer(image) for layer in dense]))


def test_members_share_the_weights():
    model = ensemble()
    three = members(model)
    assert [member.name for member in three] == ["member1", "member2", "member3"]
    for number, member in enumerate(three, start=1):
        assert [w is v for w, v in zip(member.weights, model.get_layer(f"dense{number}").weights, strict=True)] == [
            True
        ]
    np.testing.assert_allclose(sum(member(IMAGES) for member in three), model(IMAGES), rtol=1e-5)
    with pytest.raises(ValueError, match="Model 'plain' is no ensemble: it has no layer Vote"):
        members(tf.keras.Sequential([tf.keras.layers.Dense(3, input_shape=(3,))], name="plain"))


def test_bagging_draws_as_many_images_as_there_are():
    drawn = []
    model = ensemble()
    model.get_layer("vote").set_weights([np.array([3.0, 2.0, 1.0])])
    bagging(model, lambda member, weights: drawn.append((member.name, weights)), 1000)
    assert [name for name, _ in drawn] == ["member1", "member2", "member3"]
    for _, weights in drawn:
        assert weights.sum() == 1000 and np.all(weights == weights.round())
        # The part that is never drawn is 1 / e.
        assert 0.32 < np.mean(weights == 0) < 0.42
    assert np.any(drawn[0][1] != drawn[1][1])
    np.testing.assert_array_equal(model.get_layer("vote").get_weights()[0], [1, 1, 1])
    again = []
    bagging(model, lambda member, weights: again.append(weights), 1000)
    np.testing.assert_array_equal(again, [weights for _, weights in drawn])


def kernel_that_is_wrong_about(count):
    """A kernel, and the images that it gets wrong: it mixes up classes."""
    for seed in range(10_000):
        kernel = np.random.default_rng(seed).normal(size=(3, 3)) + np.eye(3)
        wrong = (IMAGES @ kernel).argmax(-1) != LABELS
        if wrong.sum() == count:
            return kernel, wrong
    raise AssertionError


@pytest.mark.parametrize("start", ["indep", "seq"])
def test_boosting_matches_the_formulas(start):
    model, seen, starts = ensemble(), [], []
    answers = [kernel_that_is_wrong_about(count) for count in (2, 0, 3)]

    def fit(member, weights):
        seen.append(weights)
        starts.append(member.get_weights()[0])
        member.set_weights([answers[len(seen) - 1][0]])

    initial = [member.get_weights()[0] for member in members(model)]
    left = boosting(model, fit, IMAGES, LABELS, start=start)

    # Two of eight images are wrong, each with a weight of 1.
    first = np.log(6 / 2) + np.log(2)
    w = np.where(answers[0][1], np.exp(first), np.exp(-first))
    w *= 8 / w.sum()
    # Then none, which is half an image: all weights change by the same factor.
    second = np.log(7.5 / 0.5) + np.log(2)
    error = w[answers[2][1]].sum() / 8
    third = np.log((1 - error) / error) + np.log(2)
    np.testing.assert_array_equal(seen[0], np.ones(8))
    np.testing.assert_allclose(seen[1], w, rtol=1e-5)
    np.testing.assert_allclose(seen[2], w, rtol=1e-5)
    np.testing.assert_allclose(model.get_layer("vote").get_weights()[0], [first, second, third], rtol=1e-5)
    w = w * np.where(answers[2][1], np.exp(third), np.exp(-third))
    np.testing.assert_allclose(left, 8 * w / w.sum(), rtol=1e-5)
    expected = initial if start == "indep" else [initial[0], answers[0][0], answers[1][0]]
    np.testing.assert_allclose(starts, expected, rtol=1e-5)


def test_boosting_takes_labels_as_keras_data_sets_have_them():
    expected, found = ensemble(), ensemble()
    found.set_weights(expected.get_weights())
    weights = boosting(expected, lambda member, weights: None, IMAGES, LABELS)
    np.testing.assert_array_equal(boosting(found, lambda member, weights: None, IMAGES, LABELS[:, None]), weights)
    with pytest.raises(ValueError, match="boosting: 8 images have 24 labels. Give each image the number of its class"):
        boosting(found, lambda member, weights: None, IMAGES, np.eye(3)[LABELS])


def test_boosting_refuses_another_start():
    with pytest.raises(ValueError, match="boosting: start should be 'indep' or 'seq', found 'warm'"):
        boosting(ensemble(), lambda member, weights: None, IMAGES, LABELS, start="warm")
