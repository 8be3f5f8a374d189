"""Verification of whatever converts: inputs and outputs of any number, rank, type and batch."""

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from networks import random_network
from support import bit_output_model, first_quick, randomize

from larq_rep.converters import convert, lce, verify
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.converters.inputs import IncomparableError, random_inputs
from larq_rep.converters.latency import benchmark

keras = tf.keras.layers
SIGNS = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "use_bias": False}


def conv(filters, kernel=1):
    return lq.layers.QuantConv2D(filters, kernel, **SIGNS)


def as_map(x):
    """Anything of 16 x 32 numbers as an image."""
    return conv(8)(keras.Reshape((4, 4, 32))(x))


def two_inputs():
    a, b = tf.keras.Input((4, 4, 32), name="picture"), tf.keras.Input((32,), name="condition")
    x = conv(8)(a * keras.Reshape((1, 1, 32))(b))
    return tf.keras.Model([a, b], [x, keras.Dense(3)(b), tf.reduce_mean(x), x > 0])


def one_input(shape, function, **arguments):
    def build():
        image = tf.keras.Input(shape, **arguments)
        return tf.keras.Model(image, function(image))

    return build


MODELS = {
    "two inputs, four outputs": two_inputs,
    "vector": one_input((512,), as_map),
    "sequence": one_input((16, 32), lambda x: as_map(keras.Conv1D(32, 3, padding="same")(x))),
    "volume": one_input((4, 4, 4, 8), as_map),
    "5-D": one_input((2, 2, 2, 2, 32), as_map),
    "recurrent": one_input((16, 8), lambda x: as_map(keras.SimpleRNN(32, return_sequences=True, unroll=True)(x))),
    "uint8": one_input((4, 4, 3), lambda x: conv(8)(keras.Conv2D(32, 1)(tf.cast(x, tf.float32))), dtype="uint8"),
    "int8": one_input((4, 4, 3), lambda x: conv(8)(keras.Conv2D(32, 1)(tf.cast(x, tf.float32))), dtype="int8"),
    "indices": one_input((16,), lambda x: as_map(keras.Embedding(7, 32)(x)), dtype="int32"),
    "bool": one_input((4, 4, 32), lambda x: conv(8)(tf.cast(x, tf.float32) - 0.5), dtype="bool"),
    "batch of 3": one_input(
        (4, 4, 32), lambda x: keras.Dense(2)(keras.Flatten()(conv(8)(x - tf.reduce_mean(x, 0)))), batch_size=3
    ),
    "mean of the batch": one_input((4, 4, 32), lambda x: conv(8)(x - tf.reduce_mean(x))),
    "layer normalization": one_input((4, 4, 32), lambda x: conv(8)(keras.LayerNormalization()(conv(32)(x)))),
}


@pytest.fixture(scope="module")
def built():
    """Each model with its file, made when it is first asked for."""
    made = {}

    def get(name):
        if name not in made:
            model = MODELS[name]()
            made[name] = (model, convert(model)[0])
        return made[name]

    return get


@pytest.mark.parametrize("name", MODELS)
def test_it_is_verified_and_measured(built, name):
    model, content = built(name)
    flatbuffer = Flatbuffer(content)
    inputs = random_inputs(flatbuffer, 2, dtypes=[np.dtype(x.dtype.as_numpy_dtype) for x in model.inputs])
    result = verify(model, content, inputs)
    assert result.ok, result.differences
    assert result.images == 2 and list(result.engines) == ["lce", "delegate"]
    # A wrong weight is found on the same inputs.
    op = next(op for op in flatbuffer.operators if op.name == "LceBconv2d")
    words = flatbuffer.constant(op.inputs[1]).copy()
    words.flat[0] ^= 1
    flatbuffer.set_constant(op.inputs[1], words)
    assert [d.stage for d in verify(model, flatbuffer.pack(), inputs, runtime="lce").differences] == ["weights"]
    modes = ("default", "indirect", "delegate")
    results = benchmark({name: content}, modes=modes, keras_models={name: model}, warmup_runs=0, num_runs=1)
    assert all(r.median_ms for r in results), results


def test_stock_file_of_several_inputs_is_measured():
    a, b = tf.keras.Input((4,)), tf.keras.Input((3,), dtype="int64")
    model = tf.keras.Model([a, b], keras.Dense(2)(tf.concat([a, keras.Flatten()(keras.Embedding(5, 2)(b))], -1)))
    content = convert(model)[0]
    assert all(r.median_ms for r in benchmark({"f": content}, modes=("default", "tflite"), warmup_runs=0, num_runs=1))
    assert verify(model, content, random_inputs(Flatbuffer(content), 2)).ok


def test_indices_stay_in_their_table(built):
    (found,) = random_inputs(Flatbuffer(built("indices")[1]), 20)
    assert found.dtype == np.int32 and set(np.unique(found)) == set(range(7))
    (found,) = random_inputs(Flatbuffer(built("uint8")[1]), 20)
    assert found.dtype == np.uint8 and found.min() < 20 and found.max() > 235


def test_inputs_by_name_and_in_a_list(built):
    model, content = built("two inputs, four outputs")
    pictures, conditions = random_inputs(Flatbuffer(content), 2)
    by_name = verify(model, content, {"condition": conditions, "picture": pictures}, runtime="lce")
    assert by_name.ok and by_name.to_dict() == verify(model, content, [pictures, conditions], runtime="lce").to_dict()
    for inputs, message in (
        (pictures, r"2 inputs \(picture, condition\).* found 1"),
        ({"picture": pictures, "text": conditions}, "named picture, condition, found picture, text"),
        ([pictures, conditions[:1]], "found 2 for 'picture', 1 for 'condition'"),
        ([pictures, conditions[:, :31]], r"input 'condition' of shape \(N, 32\), found \(2, 31\)"),
    ):
        with pytest.raises(IncomparableError, match=message):
            verify(model, content, inputs)


@pytest.mark.parametrize(
    "name, array, message",
    [
        ("sequence", np.zeros((2, 16, 31)), r"images of shape \(N, 16, 32\), found \(2, 16, 31\)"),
        ("batch of 3", np.zeros((4, 4, 4, 32)), r"shape \(a multiple of 3, 4, 4, 32\), found \(4, 4, 4, 32\)"),
        ("uint8", np.zeros((1, 4, 4, 3)), "Expected uint8 for the input .*, found float64"),
        ("int8", np.full((1, 4, 4, 3), 200), "Expected int8 for the input .*, found int64"),
        ("vector", np.zeros((0, 512)), r"found \(0, 512\)"),
    ],
)
def test_inputs_that_do_not_fit(built, name, array, message):
    model, content = built(name)
    with pytest.raises(IncomparableError, match=message):
        verify(model, content, array)


def test_integers_that_fit_are_taken(built):
    model, content = built("uint8")
    array = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3))
    assert verify(model, content, array, runtime="lce").ok


# Untrained networks


def test_why_an_untrained_network_predicts_something_else():
    """Its sums of exactly 0 at a zero-padded border become numbers next to 0 in LCE, some below 0."""
    x = image = tf.keras.Input((5, 5, 32))
    for number, filters in enumerate((64, 64, 8)):
        x = lq.layers.QuantConv2D(
            filters,
            3,
            padding="same",
            input_quantizer="ste_sign",
            kernel_quantizer="magnitude_aware_sign",
            use_bias=False,
            name=f"conv{number}",
        )(x)
    model = tf.keras.Model(image, keras.Dense(3)(keras.GlobalAveragePooling2D()(x)))
    for layer in model.layers[1:4]:
        layer.set_weights([np.random.default_rng(3).normal(0, 0.3, layer.kernel.shape)])
    content = convert(model)[0]
    batch = np.random.default_rng(0).standard_normal((2, 5, 5, 32)).astype(np.float32)
    result = verify(model, content, batch)
    assert result.ok and result.flips
    # Image by image, as verify predicts: at another batch, other sums of 0 may fall below 0.
    expected = np.concatenate([model.predict(batch[i : i + 1], verbose=0) for i in range(2)])
    found = lce.interpreter(content).predict(batch)
    error = max(np.abs(f - e).max() / np.abs(e).max() for f, e in zip(found, expected, strict=True))
    assert result.predict_error == pytest.approx(error, rel=1e-4) and error > 0.001
    (note,) = result.notes
    assert f"differs from the file by up to {error:.1%}" in note and "the zero-padded border of conv0, conv1" in note

    # What flips is at the border, and 0 in integers.
    flatbuffer = Flatbuffer(content)
    quantize = [op for op in flatbuffer.operators if op.name == "LceQuantize"][1]
    inner = lce.interpreter(flatbuffer.with_outputs([quantize.inputs[0]])).predict(batch)
    kernel = np.where(model.get_layer("conv0").kernel.numpy() < 0, -1.0, 1.0)
    sums = tf.nn.conv2d(np.where(batch < 0, -1.0, 1.0), kernel, 1, "SAME").numpy()
    flips = (sums == 0) & (inner < 0)
    assert flips.any() and not flips[:, 1:-1, 1:-1].any()
    assert np.abs(inner[sums == 0]).max() < 1e-4

    # With signs that do not flip there is nothing to explain.
    trained = randomize(bit_output_model())
    x = np.random.default_rng(0).standard_normal((1, 12, 12, 3)).astype(np.float32)
    result = verify(trained, convert(trained)[0], x)
    assert not result.notes and result.predict_error == 0


# Random networks


@pytest.mark.parametrize(["seed"], first_quick([(seed,) for seed in range(100)], 6))
def test_random_network(seed):
    model = random_network(seed)
    content, _ = convert(model, allow_float=True)
    batch = np.random.default_rng(seed).standard_normal((2, *model.input_shape[1:])).astype(np.float32)
    result = verify(model, content, batch)
    assert result.ok, result.differences
    assert not [note for note in result.notes if "model.predict" not in note and "stayed float" not in note]
