"""The layers that join branches and members, against their formulas."""

import numpy as np
import pytest
import tensorflow as tf

from larq_rep.layers import SoftGate, Vote, WeightedSum


def with_gradients(layer, inputs, dy):
    inputs = [tf.constant(x) for x in inputs]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        y = layer(inputs)
        loss = tf.reduce_sum(y * dy)
    return y, *tape.gradient(loss, [inputs, layer.trainable_weights])


def test_soft_gate_matches_formula():
    rng = np.random.default_rng(0)
    own, shared, dy = rng.normal(size=(3, 2, 4, 4, 5))
    layer = SoftGate(dtype="float64")
    layer.build([own.shape, shared.shape])
    assert 0 <= float(layer.theta) <= 1
    layer.set_weights([np.array(0.3)])
    y, (down, dshared), (dtheta,) = with_gradients(layer, [own, shared], dy)
    g = 1 / (1 + np.exp(-0.3))
    np.testing.assert_allclose(y, g * own + (1 - g) * shared, rtol=1e-12)
    np.testing.assert_allclose(down, g * dy, rtol=1e-12)
    np.testing.assert_allclose(dshared, (1 - g) * dy, rtol=1e-12)
    np.testing.assert_allclose(dtheta, g * (1 - g) * ((own - shared) * dy).sum(), rtol=1e-12)


def test_weighted_sum_matches_formula():
    rng = np.random.default_rng(1)
    inputs, dy = rng.normal(size=(3, 2, 4, 5)), rng.normal(size=(2, 4, 5))
    layer = WeightedSum(dtype="float64")
    layer.build([x.shape for x in inputs])
    start = layer.factors.numpy()
    assert np.all((start >= 0) & (start <= 1)) and len(set(start)) == 3
    factors = np.array([0.5, -2.0, 1.5])
    layer.set_weights([factors])
    y, dx, (df,) = with_gradients(layer, list(inputs), dy)
    np.testing.assert_allclose(y, np.tensordot(factors, inputs, 1), rtol=1e-12)
    np.testing.assert_allclose(dx, factors[:, None, None, None] * dy, rtol=1e-12)
    np.testing.assert_allclose(df, (inputs * dy).sum((1, 2, 3)), rtol=1e-12)


def test_vote_adds_logits_or_votes():
    a, b, c = np.array([[[3.0, 1, 2]], [[0, 1, 0]], [[0, 0.5, 0.5]]])
    soft, majority = Vote(), Vote("majority")
    np.testing.assert_array_equal(soft([a, b, c]), [[3, 2.5, 2.5]])
    np.testing.assert_array_equal(majority([a, b, c]), [[1, 2, 0]])  # of equal logits the first
    majority.set_weights([np.array([3, 1, 1])])
    np.testing.assert_array_equal(majority([a, b, c]), [[3, 2, 0]])
    assert soft.trainable_weights == [] and Vote.from_config(majority.get_config()).kind == "majority"


def test_vote_refuses_another_kind():
    with pytest.raises(ValueError, match="Vote 'vote' should be 'soft' or 'majority', but got kind='hard'"):
        Vote("hard", name="vote")
