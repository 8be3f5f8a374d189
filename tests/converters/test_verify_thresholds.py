"""Thresholds of packed outputs against the model's own sign, whatever activation bends what is in front of it."""

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from larq_rep.converters import convert, verify
from larq_rep.converters.flatbuffer import Flatbuffer

keras = tf.keras.layers
SIGNS = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "use_bias": False}
ACTIVATIONS = {
    "linear": (None, lambda y: y),
    "relu": ("relu", lambda y: np.maximum(y, 0)),
    "relu6": ("relu6", lambda y: np.clip(y, 0, 6)),
    "hard_tanh": ("hard_tanh", lambda y: np.clip(y, -1, 1)),
}
FILTERS = 40
# Gamma, beta and mean of channels whose sign never turns, sits on a plateau, or on a plateau of exactly 0.
SPECIAL = [
    (0, 0, 0),
    (0, 1, 0),
    (0, -1, 0),
    (1, 0, 0),
    (-1, 0, 0),
    (1, 0, 6),
    (-1, 0, 6),
    (1, -9, 0),
    (-1, 9, 0),
    (1, 99, 0),
]


def make(activation, size=1, kernel=1, pool=False):
    """A convolution of packed output, and one that reads it; gammas and betas of both signs."""
    x = image = tf.keras.Input((size, size, 32))
    x = lq.layers.QuantConv2D(FILTERS, kernel, activation=ACTIVATIONS[activation][0], name="first", **SIGNS)(x)
    x = keras.BatchNormalization(epsilon=0.0, name="bn")(x)
    x = keras.MaxPool2D()(x) if pool else x
    model = tf.keras.Model(image, lq.layers.QuantConv2D(3, 1, name="second", **SIGNS)(x))
    rng = np.random.default_rng(1)
    for name in ("first", "second"):
        layer = model.get_layer(name)
        layer.set_weights([rng.normal(0, 1, layer.kernel.shape)])
    gamma, beta, mean = (rng.choice(np.arange(-12, 13) / 4, FILTERS) for _ in range(3))
    gamma[: len(SPECIAL)], beta[: len(SPECIAL)], mean[: len(SPECIAL)] = np.transpose(SPECIAL)
    model.get_layer("bn").set_weights([gamma, beta, mean, np.ones(FILTERS)])
    return model


def last_positive(model, activation, negated):
    """By the formula: the largest popcounts of each channel at which its value is above 0, and at least 0; -1 for none.

    Between them it is exactly 0, on a plateau for instance, and LCE's sign is that of a rounded number.
    """
    gamma, beta, mean, _ = (w.astype(np.float64) for w in model.get_layer("bn").get_weights())
    count = int(np.prod(model.get_layer("first").kernel.shape[:3]))
    sums = count - 2 * np.arange(count + 1)[:, None] * np.ones(FILTERS)
    sums = np.where(negated, -sums, sums)
    values = gamma * (ACTIVATIONS[activation][1](sums) - mean) + beta
    assert np.all(np.diff(values, axis=0) <= 0)  # so there is one turn at most
    return (values > 0).sum(axis=0) - 1, (values >= 0).sum(axis=0) - 1, count


def first(flatbuffer):
    return next(op for op in flatbuffer.operators if op.name == "LceBconv2d")


def images(model):
    return np.random.default_rng(2).standard_normal((2, *model.input_shape[1:])).astype(np.float32)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("form", [{}, {"size": 5, "kernel": 3}, {"size": 6, "kernel": 3, "pool": True}], ids=str)
def test_right_thresholds_pass_and_their_neighbours_fail(activation, form):
    model = make(activation, **form)
    content = convert(model)[0]
    flatbuffer = Flatbuffer(content)
    op = first(flatbuffer)
    threshold = flatbuffer.constant(op.inputs[4])
    kernel = model.get_layer("first").kernel.numpy()
    words = flatbuffer.constant(op.inputs[1])
    negated = (kernel[0, 0, 0] < 0) != (words[:, 0, 0, 0] & 1 == 1)
    above, last, count = last_positive(model, activation, negated)
    in_range = np.clip(threshold, -1, count)
    assert np.all((above <= in_range) & (in_range <= last))
    result = verify(model, content, images(model), runtime="lce")
    assert result.ok, result.differences
    assert not [note for note in result.notes if not note.startswith("model.predict")]  # of values of exactly 0

    # One too high or too low, wherever that changes a sign that is not 0; and a plateau of the wrong sign.
    rng = np.random.default_rng(0)
    inside = [c for c in range(len(SPECIAL), FILTERS) if above[c] == last[c] and 1 < last[c] < count - 2]
    never = [c for c, (g, b, _) in enumerate(SPECIAL) if g == 0 and b != 0]
    faults = [(c, threshold[c] + step) for c in rng.choice(inside, 2) for step in (2, -2)]
    faults += [(c, -(2**31) if threshold[c] > 0 else 2**31 - 1) for c in never]
    for channel, wrong in faults:
        changed = threshold.copy()
        changed[channel] = wrong
        flatbuffer.set_constant(op.inputs[4], changed)
        differences = verify(model, flatbuffer.pack(), images(model)[:1], runtime="lce").differences
        found = [d for d in differences if d.stage in ("threshold", "sign")]
        assert found and {d.layer for d in found} <= {"first", "second"}, (channel, wrong)
        said = [d.message for d in found if d.stage == "threshold"]
        assert said and said[0].startswith(f"channel {channel} of the model ")
        assert said[0].endswith(f"(of {count}), the file's threshold is {wrong}")
