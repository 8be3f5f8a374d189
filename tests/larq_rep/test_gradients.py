"""The gradients that are written by hand, against automatic ones, and what they keep of the forward pass."""

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from larq_rep.layers import BiasedPReLU, RPReLU
from larq_rep.quantizers import RSign
from larq_rep.quantizers.base import standardized

SHAPE = (2, 3, 4, 5)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


class Plain(tf.keras.layers.Layer):
    """RPReLU, or BiasedPReLU, of Keras' own layers and automatic gradients."""

    def __init__(self, shifts_out: bool, **kwargs):
        super().__init__(**kwargs)
        self.shifts_out = shifts_out
        self.prelu = tf.keras.layers.PReLU(shared_axes=[1, 2], dtype=self.dtype)

    def build(self, input_shape):
        self.shift_in = self.add_weight("shift_in", input_shape[-1:])
        self.prelu.build(input_shape)
        self.shift_out = self.add_weight("shift_out", input_shape[-1:]) if self.shifts_out else 0.0
        super().build(input_shape)

    def call(self, inputs):
        return self.prelu(inputs + self.shift_in) + self.shift_out

    def arguments(self):
        return [self.shift_in, self.prelu.alpha, self.shift_out][: 2 + self.shifts_out]


ACTIVATIONS = {"RPReLU": RPReLU, "BiasedPReLU": BiasedPReLU}


def gradients(function, x, weights, dy):
    x, dy = tf.convert_to_tensor(x), tf.convert_to_tensor(dy)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return y, *tape.gradient(y, [x, *weights], dy)


def assign(weights, values):
    for weight, value in zip(weights, values, strict=True):
        weight.assign(tf.reshape(tf.cast(value, weight.dtype), weight.shape))


def activation(kind, shape=SHAPE, **kwargs):
    layer = ACTIVATIONS[kind](**kwargs)
    layer.build(shape)
    # Slopes below 0, between 0 and 1, and above 1.
    assign(layer.trainable_weights, np.random.default_rng(1).normal(0, 1.5, (len(layer.weights), shape[-1])))
    return layer


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("training", [None, False, True])
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activation_has_the_automatic_gradients_of_the_plain_form(kind, training, compiled, rng):
    x, dy = rng.normal(size=SHAPE), rng.normal(size=SHAPE)
    layer = activation(kind, dtype="float64")
    plain = Plain(kind == "RPReLU", dtype="float64")
    plain.build(SHAPE)
    assign(plain.arguments(), layer.weights)
    assert np.abs(x + layer.weights[0]).min() > 1e-4  # no input is at the corner

    def run(x, dy):
        return gradients(lambda x: layer(x, training=training), x, layer.weights, dy)

    found = (tf.function(run) if compiled else run)(x, dy)
    for one, other in zip(found, gradients(plain, x, plain.arguments(), dy), strict=True):
        np.testing.assert_allclose(tf.reshape(one, other.shape), other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activation_in_training_gives_the_same_bits(kind, rng):
    x = rng.normal(size=(4, 5, 6, 7)).astype(np.float32)
    x[0, 0, 0] = [0.0, -0.0, 1e-45, -1e-45, 1e38, -1e38, np.inf]
    layer = activation(kind, x.shape)
    layer.weights[0].assign([0.0] * 7)
    np.testing.assert_array_equal(layer(x, training=True), layer(x, training=False))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activation_at_zero_has_the_gradient_of_the_lower_branch(kind, training, rng):
    layer = activation(kind, (1, 1, 2, 3), dtype="float64")
    slopes = np.array([-0.5, 0.25, 3.0])
    assign(layer.weights[:2], [np.zeros(3), slopes])
    x = np.stack([np.zeros(3), -np.zeros(3)]).reshape(1, 1, 2, 3)
    dy = rng.normal(size=x.shape)
    _, dx, d_shift, d_alpha, *_ = gradients(lambda x: layer(x, training=training), x, layer.weights, dy)
    np.testing.assert_array_equal(dx, slopes * dy)
    np.testing.assert_allclose(d_shift, (slopes * dy).sum((0, 1, 2)), rtol=1e-12)
    np.testing.assert_array_equal(tf.squeeze(d_alpha), np.zeros(3))


def test_rsign_has_larqs_gradient_and_that_of_its_integral(rng):
    """Between the corners the gradient is that of the piecewise quadratic function that Bi-Real-Net has."""
    x, dy, shift = rng.uniform(-2, 2, SHAPE), rng.normal(size=SHAPE), rng.uniform(-0.5, 0.5, SHAPE[-1])
    x[0, 0] -= shift
    x[0, 0, :, 0] = np.array([0.0, 1.0, -1.0, -0.0]) - shift[0]
    quantizer = RSign(dtype="float64")
    quantizer.build(SHAPE)
    quantizer.bias.assign(shift)
    y, dx, d_shift = gradients(quantizer, x, quantizer.trainable_weights, dy)

    y_larq, dx_larq = gradients(lambda x: lq.quantizers.ApproxSign(dtype="float64")(x + shift), x, [], dy)
    np.testing.assert_array_equal(y, y_larq)
    np.testing.assert_allclose(dx, dx_larq, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(d_shift, tf.reduce_sum(dx_larq, [0, 1, 2]), rtol=1e-12)

    def integral(x):
        u = np.clip(x + shift, -1, 1)
        return 2 * u - u * np.abs(u)

    step = 1e-6
    np.testing.assert_allclose(dx, dy * (integral(x + step) - integral(x - step)) / (2 * step), atol=1e-5)


def test_standardized_has_automatic_gradients(rng):
    w, dz = rng.normal(0.3, 2, (3, 3, 4, 5)), rng.normal(size=(3, 3, 4, 5))

    def plain(w):
        centred = w - tf.reduce_mean(w, [0, 1, 2])
        return centred / tf.sqrt(tf.reduce_sum(centred * centred, [0, 1, 2]) / (3 * 3 * 4 - 1))

    found, expected = gradients(standardized, w, [], dz), gradients(plain, w, [], dz)
    np.testing.assert_allclose(found[0], (w - w.mean((0, 1, 2))) / w.std((0, 1, 2), ddof=1), rtol=1e-12)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-11, atol=1e-13)
    # Shifting or scaling all weights of an output channel changes nothing.
    np.testing.assert_allclose(tf.reduce_sum(found[1], [0, 1, 2]), np.zeros(5), atol=1e-12)
    np.testing.assert_allclose(tf.reduce_sum(found[1] * w, [0, 1, 2]), np.zeros(5), atol=1e-12)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
@pytest.mark.parametrize("make", [RPReLU, BiasedPReLU, RSign], ids=lambda cls: cls.__name__)
def test_gradients_follow_the_dtype_policy(make, policy, rng):
    layer = make(dtype=tf.keras.mixed_precision.Policy(policy))
    dtype = layer.compute_dtype
    layer.build(SHAPE)
    x = tf.cast(rng.uniform(-0.9, 0.9, SHAPE), dtype)
    reference = make(dtype="float64")
    reference.build(SHAPE)

    def run(layer, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True) if make is not RSign else layer(x)
        return tape.gradient(y, [x, *layer.trainable_weights])

    dx, *weights = run(layer, x)
    assert dx.dtype == dtype
    assert {w.dtype.name for w in weights} == {layer.variable_dtype}
    for found, expected in zip([dx, *weights], run(reference, tf.cast(x, "float64")), strict=True):
        np.testing.assert_allclose(tf.cast(found, "float64"), expected, rtol=0.05, atol=0.05)


def kept(function, x) -> set[str]:
    """The tensors as large as the input, or as bits, that the backward pass takes from the forward pass."""

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        boundary.append(len(tf.compat.v1.get_default_graph().get_operations()))
        return tape.gradient(y, x, tf.ones_like(y))

    boundary: list[int] = []
    graph = step.get_concrete_function(x).graph
    operations = graph.get_operations()
    forward = {op.name for op in operations[: boundary[-1]]}

    def source(tensor):
        while tensor.op.type in ("Identity", "IdentityN"):
            tensor = tensor.op.inputs[int(tensor.name.split(":")[1])]
        return tensor

    taken = [source(t) for op in operations[boundary[-1] :] if op.type != "IdentityN" for t in op.inputs]
    return {t.name for t in taken if t.op.name in forward and t.shape == x.shape}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_backward_pass_of_activation_keeps_one_tensor(kind, training):
    x = tf.ones((2, 3, 4, 8))
    layer = activation(kind, x.shape)
    assert len(kept(lambda x: layer(x, training=training), x)) == 1
    plain = Plain(kind == "RPReLU")
    plain.build(x.shape)
    assert len(kept(plain, x)) == 2


def test_backward_pass_of_rsign_keeps_one_tensor():
    x = tf.ones((2, 3, 4, 8))
    quantizer = RSign()
    quantizer.build(x.shape)
    assert len(kept(quantizer, x)) == 1
