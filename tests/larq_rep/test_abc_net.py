"""The quantizers of ABC-Net against their formulas."""

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from support import with_gradients

from larq_rep.quantizers import BasisWeights, ShiftedSigns


def sign(x):
    return np.where(x >= 0, 1.0, -1.0)


def shifted(shifts, scales, **kwargs):
    quantizer = ShiftedSigns(len(shifts), **kwargs)
    quantizer.build((None, 4))
    quantizer.set_weights([np.array(shifts), np.array(scales)])
    return quantizer


@pytest.mark.parametrize("bits, shifts", [(1, [0]), (2, [-1, 1]), (5, [-1, -0.5, 0, 0.5, 1])])
def test_shifts_start_evenly_spread(bits, shifts):
    quantizer = ShiftedSigns(bits)
    quantizer.build((None, 4))
    np.testing.assert_array_equal(quantizer.shifts, shifts)
    np.testing.assert_array_equal(quantizer.scales, np.ones(bits))
    assert quantizer.precision == bits


def test_shifted_signs_match_formula():
    """Also where a sign changes (x + v = 0.5) and where its gradient vanishes (x + v = 0 and 1)."""
    rng = np.random.default_rng(0)
    x, dy = rng.uniform(-2, 2, (6, 8)), rng.normal(size=(6, 8))
    shifts, scales = np.array([-1.0, 0.0, 0.75]), np.array([0.5, 2.0, -1.5])
    # Exact numbers, so that no rounding moves them.
    x[0] = [0.5, -0.0, 1.0, 1.5, 2.0, -0.75, 0.25, -0.25]
    x[1] = [0.5 - 2**-20, -(2**-20), 1 + 2**-20, -0.5, 0.0, 0.75, 1.25, 3.0]
    y, dx, (dv, db) = with_gradients(shifted(shifts, scales, dtype="float64"), x, dy)
    value = x[None] + shifts[:, None, None]
    signs = sign(value - 0.5)
    passes = (value >= 0) & (value <= 1)
    np.testing.assert_array_equal(y, np.tensordot(scales, signs, 1))
    np.testing.assert_allclose(dx, dy * np.tensordot(scales, passes, 1), rtol=1e-12)
    np.testing.assert_allclose(dv, scales * (dy * passes).sum((1, 2)), rtol=1e-12)
    np.testing.assert_allclose(db, (dy * signs).sum((1, 2)), rtol=1e-12)


def test_planes_of_shifted_signs_are_its_terms():
    x = np.random.default_rng(1).uniform(-2, 2, (3, 5)).astype("float32")
    x[0] = [1.5, 0.5, 0.0, -0.25, 0.25]  # ties
    quantizer = shifted([-1.0, 0.0, 0.25], [0.5, 2.0, -1.5])
    offset, planes = quantizer.planes(tf.constant(x))
    assert offset == 0 and [float(scale) for scale, _ in planes] == [0.5, 2.0, -1.5]
    assert all(set(np.unique(signs)) == {-1, 1} for _, signs in planes)
    expected = sum(scale * signs for scale, signs in planes)
    for call in (quantizer, tf.function(quantizer)):
        np.testing.assert_array_equal(call(x), expected)


@pytest.mark.parametrize("cls", [ShiftedSigns, BasisWeights])
@pytest.mark.parametrize("bits", [0, 1.5, True])
def test_bits_must_be_a_positive_integer(cls, bits):
    with pytest.raises(ValueError, match=f"{cls.__name__} 'q' needs an integer bits >= 1, but got bits={bits}"):
        cls(bits, name="q")


def least_squares(w, bits):
    """By numpy's own solver, and the binary kernels."""
    u = np.linspace(-1, 1, bits) if bits > 1 else [0.0]
    kernels = [sign(w - w.mean() + number * w.std()) for number in u]
    scales = np.linalg.lstsq(np.stack([k.ravel() for k in kernels], axis=1), w.ravel(), rcond=None)[0]
    return scales, kernels


@pytest.mark.parametrize("bits", [1, 2, 3, 5])
def test_basis_weights_match_formula(bits):
    rng = np.random.default_rng(2)
    w, g = rng.normal(0.02, 0.1, (3, 3, 8, 4)), rng.normal(size=(3, 3, 8, 4))
    scales, kernels = least_squares(w, bits)
    y, dw, _ = with_gradients(BasisWeights(bits, dtype="float64"), w, g)
    np.testing.assert_allclose(y, np.tensordot(scales, kernels, 1), rtol=1e-12)
    np.testing.assert_allclose(dw, scales.sum() * g, rtol=1e-12)
    bases = BasisWeights(bits).bases(tf.constant(w, tf.float32))
    assert len(bases) == bits == BasisWeights(bits).precision
    for (scale, kernel), a, b in zip(bases, scales, kernels, strict=True):
        np.testing.assert_allclose(scale, a, rtol=1e-5)
        np.testing.assert_array_equal(kernel, b)


def test_one_basis_is_a_sign_with_one_scale():
    w = np.random.default_rng(3).integers(-8, 8, (3, 3, 4, 2)).astype("float64")
    w[0, 0, 0, 0] -= w.sum() - w.size  # now some weights are the mean, whose sign is +1
    assert w.mean() == 1 and np.any(w == 1)
    signs = sign(w - 1)
    quantized = BasisWeights(dtype="float64")(tf.constant(w))
    np.testing.assert_allclose(quantized, (w * signs).mean() * signs, rtol=1e-12)


@pytest.mark.parametrize("kernel", [[1.0, 1.0, 1.0, 1.0], [1.0, -1.0, 1.0, -1.0], [0.0, 0.0, 0.0, 0.0]])
def test_equal_bases_share_a_scale(kernel):
    """Their least squares solution is that of the smallest norm: no scale is infinite."""
    w = np.reshape(kernel, (1, 1, 2, 2))
    quantizer = BasisWeights(3, dtype="float64")
    scales, kernels = least_squares(w, 3)
    np.testing.assert_allclose([a for a, _ in quantizer.bases(tf.constant(w))], scales, atol=1e-12)
    np.testing.assert_allclose(quantizer(tf.constant(w)), np.tensordot(scales, kernels, 1), atol=1e-12)


def test_every_call_gives_a_weight_the_same_sign():
    """Weights next to the thresholds, in eager calls, compiled and quantized by a layer."""
    rng = np.random.default_rng(4)
    w = rng.normal(0, 1, (3, 3, 16, 32)).astype("float32")
    u = w.mean(dtype=np.float64) + w.std(dtype=np.float64) * np.array([-1, 0, 1])
    w.reshape(-1)[:3] = u.astype("float32")
    conv = lq.layers.QuantConv2D(32, 3, kernel_quantizer=BasisWeights(3), use_bias=False)
    conv.build((None, 8, 8, 16))
    conv.set_weights([w])
    with lq.context.quantized_scope(True):
        layer = tf.convert_to_tensor(conv.kernel)
    bases = BasisWeights(3).bases(tf.constant(w))
    for result in (layer, BasisWeights(3)(w), tf.function(BasisWeights(3))(w)):
        np.testing.assert_allclose(result, sum(a * b for a, b in bases), rtol=1e-6)
