"""NaN and infinity among weights are refused by name, and only what somebody wrote on purpose passes."""

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from support import images, randomize

from larq_rep.converters import ConversionError, convert, graph
from larq_rep.converters.lce import interpreter

keras = tf.keras.layers


@pytest.fixture(scope="module")
def model():
    i = tf.keras.Input((6, 6, 8))
    x = keras.BatchNormalization(name="first")(i)
    for name in ("conv1", "conv2"):  # the first of them writes bits: its weights become an integer threshold
        x = lq.layers.QuantConv2D(8, 3, input_quantizer="ste_sign", kernel_quantizer="magnitude_aware_sign", name=name)(
            x
        )
        x = keras.BatchNormalization(name=f"{name}_norm")(x)
    x = keras.PReLU(shared_axes=[1, 2], name="slope")(x)
    inner = tf.keras.Sequential([keras.Flatten(), keras.Dense(3, name="out")], name="inner")
    return randomize(tf.keras.Model(i, inner(x)))


def refusals(model, **options):
    with pytest.raises(ConversionError) as caught:
        convert(model, **options)
    assert {finding.rule for finding in caught.value.findings} == {"not-finite"}
    return caught.value.findings


@pytest.mark.parametrize("largest", [0, graph.LARGEST_INSIDE])
def test_every_variable(model, largest, monkeypatch):
    """A value that is no number, anywhere: the layer, the variable, how many, and where the first of them is."""
    monkeypatch.setattr(graph, "LARGEST_INSIDE", largest)
    rng = np.random.default_rng(0)
    for number, variable in enumerate(model.variables):
        value, bad = variable.numpy(), (np.nan, np.inf, -np.inf)[number % 3]
        where = rng.choice(value.size, 2, replace=False)
        spoilt = value.copy()
        spoilt.flat[where] = bad
        variable.assign(spoilt)
        (finding,) = refusals(model)
        name = variable.name.removesuffix(":0")
        assert finding.where.split("/")[-1] == name.split("/")[0]
        first = tuple(int(i) for i in np.unravel_index(min(where), value.shape))
        kind = "NaN" if np.isnan(bad) else "infinite"
        assert f"2 of {value.size} values of {name} are {kind}, the first at index {first};" in finding.message
        variable.assign(value)
    assert convert(model)[1].findings == []


def test_two_variables_are_two_lines(model):
    layer = model.get_layer("first")
    saved = layer.get_weights()
    layer.set_weights([np.full_like(w, np.nan) if n < 2 else w for n, w in enumerate(saved)])
    assert len(refusals(model)) == 2
    layer.set_weights(saved)


@pytest.mark.parametrize("dimensions", [2, 4])  # Keras fuses the normalisation of maps only
@pytest.mark.parametrize("variance, kind", [(0.0, "infinite"), (-1.0, "NaN")])
def test_variance_that_cannot_be_divided_by(dimensions, variance, kind):
    i = tf.keras.Input((5, 5, 4) if dimensions == 4 else (4,))
    layer = keras.BatchNormalization(epsilon=0.0, name="norm")
    model = tf.keras.Model(i, layer(i))
    layer.moving_variance.assign([1.0, variance, 1.0, 1.0])
    assert any(finding.where == "norm" and kind in finding.message for finding in refusals(model))


def test_scales_that_overflow_together():
    i = tf.keras.Input((5, 5, 32))
    x = lq.layers.QuantConv2D(
        4, 3, input_quantizer="ste_sign", kernel_quantizer="magnitude_aware_sign", use_bias=False, name="conv"
    )(i)
    model = randomize(tf.keras.Model(i, keras.BatchNormalization(name="norm")(x)))
    model.get_layer("conv").kernel.assign_add(tf.fill((3, 3, 32, 4), 1e20))
    model.get_layer("norm").gamma.assign(tf.fill((4,), 1e20))
    assert refusals(model)


class Masked(keras.Layer):
    def __init__(self, mask, **kwargs):
        super().__init__(**kwargs)
        self.mask = np.asarray(mask, np.float32)

    def call(self, x):
        return tf.nn.softmax(x + tf.constant(self.mask))


def test_infinity_on_purpose():
    """In a mask before a softmax, and as the padding of a maximum."""
    i = tf.keras.Input((4,))
    model = tf.keras.Model(i, Masked([0, -np.inf, 0, 0])(i))
    content, report = convert(model)
    x = np.array([[1, 9, 2, 3]], np.float32)
    assert report.findings == []
    np.testing.assert_allclose(interpreter(content).predict(x), model(x), atol=1e-6)
    i = tf.keras.Input((4, 4, 2))
    padded = tf.pad(i, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=-np.inf)
    model = tf.keras.Model(i, keras.MaxPool2D(3, 3)(padded))
    np.testing.assert_array_equal(interpreter(convert(model)[0]).predict(images(model)), model(images(model)))


def test_nan_on_purpose_is_none():
    i = tf.keras.Input((2,))
    (finding,) = refusals(tf.keras.Model(i, Masked([0, np.nan], name="mask")(i)))
    assert finding.where == "mask" and "1 of 2 values of a constant are NaN" in finding.message


def test_layer_that_nothing_reads():
    """What does not reach the file harms nobody."""
    i = tf.keras.Input((4, 4, 3))
    model = tf.keras.Model(i, keras.ReLU()(i))
    model.spare = keras.Dense(2)
    model.spare.build((None, 3))
    model.spare.kernel.assign(model.spare.kernel * np.nan)
    assert convert(model)[1].findings == []


@pytest.mark.parametrize("largest", [65504.0, 65519.0, 7e4, 1e38])
def test_float16_never_becomes_infinite(largest):
    i = tf.keras.Input((32,))
    model = tf.keras.Model(i, keras.Dense(32, use_bias=False, name="dense")(i))
    model.get_layer("dense").kernel.assign(tf.fill((32, 32), largest))
    content, _ = convert(model, float_weights="float16")
    x = np.eye(1, 32, dtype=np.float32)
    np.testing.assert_allclose(interpreter(content).predict(x), np.full((1, 32), largest, np.float32), rtol=1e-3)
