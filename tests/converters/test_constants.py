"""Constants of every shape behind a binary convolution, against Keras."""

from collections import Counter

import larq as lq
import larq_compute_engine as lce
import numpy as np
import pytest
import tensorflow as tf
from larq_rep_runtime.metadata import read_metadata
from random_networks import ARITHMETIC, COMPARISONS, Network, WithConstant
from support import forget

import larq_rep
from larq_rep.converters import ConversionError, convert, fold, verify
from larq_rep.converters.faults import audit_old_faults
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.converters.float_weights import compress
from larq_rep.converters.lce import any_interpreter

keras = tf.keras.layers


def binary(filters, kernel=3, **options):
    quantizers = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "use_bias": False}
    convolution = lq.layers.QuantConv2D(filters, kernel, **{**quantizers, **options})
    convolution.kernel_initializer = tf.keras.initializers.RandomNormal(seed=filters)
    return convolution


def model_of(*steps, size=(6, 5), channels=32):
    x = image = tf.keras.Input((*size, channels), name="image")
    for step in steps:
        x = step(x)
    return tf.keras.Model(image, x)


def with_constant(operator, shape, seed=0, **options):
    """Both signs, and off the sums of signs."""
    rng = np.random.default_rng(seed)
    value = rng.choice([-1, 1], shape) * (rng.integers(0, 4, shape) + rng.uniform(0.2, 0.8, shape))
    return WithConstant(operator, value, **options)


def operators(content):
    return Counter(op.name for op in Flatbuffer(content).operators)


def assert_computes(content, model, seed=0):
    engine = any_interpreter(content).interpreter
    for x in np.random.default_rng(seed).standard_normal((2, 1, *model.input_shape[1:])).astype(np.float32):
        expected = [y.numpy() for y in tf.nest.flatten(model(x))]
        for actual, y in zip(engine.predict([x]), expected, strict=True):
            assert actual.shape == y.shape
            np.testing.assert_allclose(actual, y, atol=1e-4 * max(1, np.abs(y).max()))


# One number a channel, a row, a column or a place.
SHAPES = [(1, 1, 1, 32), (4, 3, 32), (1, 4, 3, 32), (4, 1, 32), (3, 32), (4, 3, 1), (1, 3, 1)]
OTHER_SHAPES = [(), (1,), (32,), (1, 32), (1, 1, 32), (1, 1, 1, 1), (1, 3, 32), (4, 1, 1), (3, 1)]
OTHER_OPERATORS = ["add left", "multiply left", "divide no nan", "multiply no nan", "affine", "<= left", ">"]


def check_shapes(operator, shapes, last=None):
    x = tf.keras.Input((6, 5, 32), name="image")
    outputs = []
    for seed, shape in enumerate(shapes):
        y = with_constant(operator, shape, seed)(binary(32)(x))
        outputs.append(last(y) if last else y)
    model = tf.keras.Model(x, outputs)
    assert_computes(convert(model)[0], model)


@pytest.mark.parametrize("operator", ["add", "subtract", "subtract from", "multiply", "divide", "normalise", ">=", "<"])
def test_constants_in_front_of_a_sign(operator):
    check_shapes(operator, SHAPES, binary(4, 1))


@pytest.mark.parametrize("operator", ["add", "multiply", ">="])
def test_constants_in_front_of_nothing(operator):
    check_shapes(operator, [*SHAPES, (2, 1, 1, 32)])


@pytest.mark.slow
@pytest.mark.parametrize("last", [None, binary(4, 1)])
@pytest.mark.parametrize("operator", [*ARITHMETIC, *COMPARISONS])
def test_other_shapes_and_operators(operator, last):
    check_shapes(operator, [*OTHER_SHAPES, *(SHAPES if operator in OTHER_OPERATORS else [])], last)


@pytest.mark.parametrize("source", ["constant", "computed", "like"])
def test_constants_from_elsewhere(source):
    model = model_of(
        binary(32),
        with_constant("multiply", (1, 1, 1, 32), source=source),
        with_constant("add", (4, 3, 32), source=source),
        binary(4, 1),
    )
    content, _ = convert(model)
    assert_computes(content, model)


@pytest.mark.parametrize("operator", ["add", "multiply", "divide", ">="])
def test_vector_of_any_shape_costs_no_operator(operator):
    """Equal at each position, or laid out otherwise than a vector: the file is that of the vector."""
    values = np.random.default_rng(0).uniform(0.2, 0.8, 32) * np.tile([-1, 1], 16)
    files = []
    for value in (values, values.reshape(1, 1, 1, 32), np.broadcast_to(values, (4, 3, 32))):
        quantizer = {"input_quantizer": None} if operator == ">=" else {}
        files.append(
            operators(convert(model_of(binary(32), WithConstant(operator, value), binary(4, 1, **quantizer)))[0])
        )
    assert files[0] == files[1] == files[2]
    assert not files[0].keys() & {"ADD", "SUB", "MUL", "DIV"}


def test_map_stays_one_operator():
    content, report = convert(
        model_of(binary(32), keras.BatchNormalization(), with_constant("add", (4, 3, 32)), binary(4))
    )
    assert operators(content) == {"LceQuantize": 2, "LceBconv2d": 2, "ADD": 1}
    assert (report.bitpacked, report.binary, report.findings) == (2, 2, [])
    assert len(Flatbuffer(content).outputs) == 1


@pytest.mark.parametrize("alpha", [(1, 1, 32), (4, 3, 32)])
def test_slope_stays_one_operator(alpha):
    layer = keras.PReLU(shared_axes=[1, 2] if alpha[0] == 1 else None, alpha_initializer="normal")
    model = model_of(binary(32), layer, binary(4, 1))
    content, _ = convert(model)
    assert operators(content) == {"LceQuantize": 2, "LceBconv2d": 2, "PRELU": 1}
    assert_computes(content, model)


# What stands between the convolution and the constant, and LCE's converter looks through.
BETWEEN = {
    "relu": tf.nn.relu,
    "relu6": tf.nn.relu6,
    "hard_tanh": lq.activations.hard_tanh,
    "negated twice": lambda x: tf.nn.relu(tf.negative(-x)),
    "reshape": lambda x: tf.reshape(x, x.shape),
    "squeeze": lambda x: tf.squeeze(x, 0),
    "batch in front": lambda x: tf.reshape(x, [1, 1, *x.shape[1:]]),
    "stop_gradient": tf.stop_gradient,
    "maximum": lambda x: tf.maximum(x, 0.0),
    "broadcast": lambda x: tf.broadcast_to(x, [2, *x.shape[1:]]),
    "sum of several": lambda x: tf.add_n([x, tf.reshape(tf.linspace(-3.1, 4.2, 4 * 3 * 32), [1, 4, 3, 32])]),
    "norm of rows": keras.BatchNormalization(axis=[1], gamma_initializer="normal", beta_initializer="normal"),
    "norm of places": keras.BatchNormalization(axis=[1, 2], gamma_initializer="normal", beta_initializer="normal"),
}


@pytest.mark.parametrize("between", BETWEEN.values(), ids=BETWEEN)
def test_constant_behind_something_else(between):
    x = tf.keras.Input((6, 5, 32), batch_size=1, name="image")
    outputs = []
    for seed, (operator, shape) in enumerate([("multiply", (1, 1, 1, 32)), ("add", (4, 3, 32)), ("multiply", (3, 32))]):
        y = between(binary(32)(x))
        if len(y.shape) != 4:
            shape = tuple(y.shape) if seed else (1,) * (len(y.shape) - 1) + (32,)
        outputs.append(with_constant(operator, shape, seed)(y))
    model = tf.keras.Model(x, outputs)
    assert_computes(convert(model)[0], model)


@pytest.mark.parametrize("size, filters", [((3, 3), 31), ((3, 6), 1), ((6, 3), 33)])
def test_maps_of_one_row_and_one_channel(size, filters):
    """Where the constant is larger than the map, it makes the map larger."""
    x = tf.keras.Input((*size, 32))
    height, width = size[0] - 2, size[1] - 2
    outputs = []
    larger = [(4 if height == 1 else height, 4 if width == 1 else width, 4 if filters == 1 else filters)]
    for seed, shape in enumerate([(height, width, filters), (1, 1, 1, filters), *larger]):
        for operator in ("multiply", "subtract"):
            outputs.append(binary(4, 1)(with_constant(operator, shape, seed)(binary(filters)(x))))
    model = tf.keras.Model(x, outputs)
    assert_computes(convert(model)[0], model)


def test_fake_quantized_constant():
    """Its quantization is the converter's business; what it is added to is not."""

    def quantize(x):
        return tf.quantization.fake_quant_with_min_max_vars(x, -8.0, 8.0)

    shift = tf.constant(np.random.default_rng(0).uniform(-4, 4, (1, 1, 1, 32)).astype(np.float32))
    model = model_of(binary(32), quantize, lambda x: quantize(x + quantize(shift)), keras.GlobalAveragePooling2D())
    content, _ = convert(model)
    x = np.ones((1, 6, 5, 32), np.float32)
    np.testing.assert_allclose(any_interpreter(content).predict(x), model(x), atol=0.1)  # a step is 16 / 255


def test_verify_proves_a_file_with_a_map():
    model = model_of(binary(32), with_constant("add", (4, 3, 32)), binary(32, 1), keras.GlobalAveragePooling2D())
    content, _ = convert(model)
    x = np.random.default_rng(0).standard_normal((2, 6, 5, 32)).astype(np.float32)
    result = verify(model, content, x)
    assert result.ok, result.differences
    assert not verify(model, lce.convert_keras_model(model), x).ok


def check_random(seed):
    """Right, or refused by name."""
    network = Network(seed)
    try:
        files = [convert(network.model, fold=folded)[0] for folded in (False, True)]
    except ConversionError as error:
        names = {layer.name for layer in network.model.layers}
        assert all(finding.where in names for finding in error.findings), error
        return False
    for content in files:
        try:
            assert_computes(content, network.model, seed)
        except AssertionError:
            # A sum that is 0 but for rounding has either sign (one network of 300): the proof takes the file's.
            x = np.random.default_rng(seed).standard_normal((2, *network.model.input_shape[1:])).astype(np.float32)
            result = verify(network.model, content, x)
            assert result.ok, result.differences
    return True


def test_random_networks():
    assert sum(check_random(seed) for seed in range(8)) >= 7


@pytest.mark.slow
@pytest.mark.parametrize("first", range(100, 400, 50))
def test_many_random_networks(first):
    assert sum(check_random(seed) for seed in range(first, first + 50)) >= 45
    forget()


# What files of older versions show of it


@pytest.fixture(scope="module")
def wrong():
    """A file of LCE's converter with wrong bits, from a map that it took for a vector, and its model."""
    model = model_of(binary(32), with_constant("add", (4, 3, 32)), binary(32, 1), keras.GlobalAveragePooling2D())
    return lce.convert_keras_model(model), model


def test_wrong_bits_of_older_versions_cannot_be_seen(wrong):
    content, model = wrong
    with pytest.raises(AssertionError):
        assert_computes(content, model)
    (finding,) = audit_old_faults(Flatbuffer(content), content)
    assert (finding.rule, finding.where, finding.error) == ("unknown-constants", "file", False)
    assert "these operators write bits: 1." in finding.message
    right, _ = convert(model)
    assert audit_old_faults(Flatbuffer(right), right) == []


@pytest.mark.parametrize("activation, kernel", [("relu", 3), ("relu6", 3), (lq.activations.hard_tanh, 2), ("relu6", 1)])
@pytest.mark.parametrize("channels", [32, 33])
def test_channels_that_the_older_delegate_gets_wrong(activation, kernel, channels):
    gamma, mean = (tf.keras.initializers.RandomNormal(mean, 2, seed=mean) for mean in (0, 2))
    norm = keras.BatchNormalization(gamma_initializer=gamma, moving_mean_initializer=mean)
    content, _ = convert(model_of(binary(64, kernel, activation=activation), norm, binary(4, 1), channels=channels))
    flatbuffer = Flatbuffer(content)
    op = next(op for op in flatbuffer.operators if op.name == "LceBconv2d")
    taps = kernel * kernel * channels
    low, high = {"relu": (0, taps), "relu6": (0, 6)}.get(activation, (-1, 1))
    # LCE: a bit is set above the threshold. The delegate of 0.1.0: twice the count of unequal signs is clipped before.
    wrong = [
        any((min(max(2 * n, taps - high), taps - low) > 2 * t) != (n > t) for n in range(taps + 1))
        for t in flatbuffer.constant(op.inputs[4]).tolist()
    ]
    findings = audit_old_faults(flatbuffer, content)
    assert [finding.rule for finding in findings] == ["double-clamp"] * any(wrong)
    if any(wrong):
        assert f"wrong bits in {sum(wrong)} of 64 channels" in findings[0].message
    assert any(wrong) or activation not in ("relu", "relu6")


def test_version_is_recorded_and_kept():
    """By folding, which moves the vector behind the shortcut into a bias, and by smaller weights."""
    x = tf.keras.Input((6, 5, 32))
    y = with_constant("add", (32,))(keras.Add()([binary(32)(x), binary(32, padding="valid")(x)]))
    model = tf.keras.Model(x, keras.Dense(50)(binary(32, 1)(y)))
    content, _ = convert(model, fold=False)
    assert read_metadata(content)["version"] == larq_rep.__version__
    folded, report = fold(content)
    assert report.folded_away and read_metadata(folded) == read_metadata(content)
    smaller, report = compress(folded, "int8")
    assert report.size_after < report.size_before and read_metadata(smaller) == read_metadata(content)
    # Folding does not say that the constants were right.
    assert "version" not in read_metadata(fold(lce.convert_keras_model(model))[0])
