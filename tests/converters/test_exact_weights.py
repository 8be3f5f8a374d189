"""Weights of few levels are stored as int8 without loss: what is exact, what the file computes, what verify finds."""

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from larq_compute_engine.tflite.python.interpreter import Interpreter
from support import images, randomize

from larq_rep.converters import convert, describe, float_weights, fold, verify
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.converters.float_weights import compress, exact_scales, expand, stored_constants

keras, quant = tf.keras.layers, lq.layers


def powers_of_two(w):
    """INQ's levels: 0 and ±2^-4 to ±2^-1."""
    size = tf.abs(w)
    power = tf.cast(tf.clip_by_value(tf.round(tf.math.log(size) / np.log(2)), -4, -1), tf.int32)
    return tf.sign(w) * tf.where(size > 2**-5, tf.gather([2.0**-4, 2.0**-3, 2.0**-2, 2.0**-1], power + 4), 0.0)


def by_channel(w):
    """Signs of a depthwise convolution with the scale of each channel."""
    scale = tf.reduce_mean(tf.abs(w), (0, 1), keepdims=True)
    return tf.where(w >= 0, scale, -scale)


QUANTIZERS = {
    "binary": ("ste_sign", 1),
    "scaled binary": ("magnitude_aware_sign", 1),
    "ternary": (lq.quantizers.SteTern(0.2), 2),
    "powers of two": (powers_of_two, 4),  # nine levels
}
# name -> layer for a quantizer, input
LAYERS = {
    "convolution": (lambda q: quant.QuantConv2D(16, 3, kernel_quantizer=q, padding="same"), (6, 6, 32)),
    "groups": (lambda q: quant.QuantConv2D(32, 3, kernel_quantizer=q, groups=4), (6, 6, 32)),
    "depthwise": (lambda q: quant.QuantDepthwiseConv2D(3, depthwise_quantizer=q, depth_multiplier=2), (6, 6, 64)),
    "dense": (lambda q: quant.QuantDense(24, kernel_quantizer=q), (64,)),
    "1-D": (lambda q: quant.QuantConv1D(16, 3, kernel_quantizer=q), (9, 32)),
    "transposed": (lambda q: quant.QuantConv2DTranspose(16, 3, strides=2, kernel_quantizer=q), (4, 4, 32)),
    "3-D": (lambda q: quant.QuantConv3D(16, 3, kernel_quantizer=q), (4, 4, 4, 8)),
    "3-D, transposed": (lambda q: quant.QuantConv3DTranspose(8, 3, kernel_quantizer=q), (4, 4, 4, 8)),
}


def made(layer, shape):
    """The layer between a ReLU, which makes its input real, and a batch norm with factors of both signs."""
    i = tf.keras.Input(shape)
    return randomize(tf.keras.Model(i, keras.BatchNormalization()(layer(keras.ReLU()(i)))))


# A transposed kernel's last axis is that of the inputs: scales of these beside the batch norm's are too many.
CASES = [(layer, q) for layer in LAYERS for q in QUANTIZERS if (layer, q) != ("transposed", "scaled binary")]


@pytest.mark.parametrize("layer, quantizer", CASES)
def test_layers(layer, quantizer):
    make, shape = LAYERS[layer]
    levels, bits = QUANTIZERS[quantizer]
    model = made(make(levels), shape)
    content, report = convert(model)
    large, other = convert(model, exact_int8=False)
    (operator,) = describe(content).real_operators
    count = int(np.prod(operator.weights_shape))
    assert (operator.weight_bits, operator.needed_bits) == (8, bits)
    assert [(op.weight_bits, op.needed_bits) for op in describe(large).real_operators] == [(32, bits)]
    assert (report.exact, report.exact_bytes_before, other.exact, other.exact_bytes) == (1, 4 * count, 0, 0)
    assert describe(content).constants["int8"] == count and "int8" not in describe(large).constants
    assert len(content) < len(large) - (report.exact_bytes_before - report.exact_bytes) + 400
    assert report.size_float32 - other.size < 1000  # without the metadata
    x = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
    for mode in ({}, {"use_indirect_bgemm": True}, {"use_xnnpack": True}):
        found, expected = (Interpreter(file, num_threads=1, **mode).predict(x) for file in (content, large))
        assert found.tobytes() == expected.tobytes()
    assert verify(model, content, x).ok


def test_matrix_in_front_of_a_map():
    """It mixes places instead of channels; LCE's converter writes a dense layer whose first input it is."""
    weights = np.random.default_rng(0).choice([-0.5, 0.0, 0.5], (2, 40, 16)).astype("f")
    i = tf.keras.Input((2, 16, 9))
    model = tf.keras.Model(i, keras.Lambda(lambda x: tf.matmul(weights, x))(i))
    content, report = convert(model)
    large, _ = convert(model, exact_int8=False)
    assert (report.exact, report.exact_bytes_before) == (2, 4 * weights.size)
    assert describe(content).constants["int8"] == weights.size and len(content) < len(large) - 2 * weights.size
    x = images(model)
    found, expected = (Interpreter(file, num_threads=1).predict(x) for file in (content, large))
    assert found.tobytes() == expected.tobytes()
    assert verify(model, content, x).ok


# Whether weights are exact


@pytest.fixture(scope="module")
def files():
    """A file with real weights for each operator that takes weights; the tensor of the weights."""
    found = {}
    for name, (make, shape) in LAYERS.items():
        flatbuffer = Flatbuffer(convert(made(make(None), shape))[0])
        (op,) = (op for op in flatbuffer.operators if op.name in float_weights.OUTPUT_CHANNELS)
        found[name] = flatbuffer.pack(), op.inputs[1]
    return found


def with_weights(file, change):
    content, tensor = file
    flatbuffer = Flatbuffer(content)
    flatbuffer.set_constant(tensor, change(flatbuffer.constant(tensor)).astype(np.float32))
    return flatbuffer.pack(), flatbuffer.constant(tensor)


def level_weights(rng, shape, axis, shared):
    """Random multiples of random steps, one for each index of an axis or one for all."""
    levels = np.unique(rng.integers(-127, 128, rng.integers(2, 12)))
    steps = np.exp(rng.normal(0, 4, 1 if shared else shape[axis])).astype(np.float32)
    return rng.choice(levels, shape).astype(np.float32) * steps.reshape(
        [-1 if i == axis else 1 for i in range(len(shape))]
    )


@pytest.mark.parametrize("name", LAYERS)
def test_random_levels(files, name):
    rng = np.random.default_rng(list(LAYERS).index(name))
    for axis in range(Flatbuffer(files[name][0]).constant(files[name][1]).ndim):
        for shared in (True, False):
            content, before = with_weights(files[name], lambda w, a=axis, s=shared: level_weights(rng, w.shape, a, s))
            small, report = compress(content)
            (constant,) = report.constants
            # A scale takes 12 bytes, and the operator some 200.
            if not shared and before.size + 12 * before.shape[axis] > before.nbytes - 256:
                continue
            assert (constant.storage, constant.exact, constant.max_error) == ("int8", True, 0)
            assert constant.bytes_after == before.size + 12 * (1 if shared else before.shape[axis])
            ((tensor, stored),) = stored_constants(Flatbuffer(small)).items()
            assert Flatbuffer(expand(small)[0]).constant(tensor).tobytes() == (before + 0).tobytes()
            # What the runtime computes: the integer, widened, times the float32 scale.
            steps = stored.scales.reshape([-1 if i == stored.axis else 1 for i in range(before.ndim)])
            np.testing.assert_array_equal(stored.values.astype(np.float32) * steps, before)


def test_every_step_is_found():
    """Completeness: whatever the step and the multiples, the largest magnitude leads back to them."""
    rng = np.random.default_rng(0)
    for _ in range(2000):
        multiples = np.unique(rng.integers(1, 128, rng.integers(1, 128))).astype(np.float32)
        step = np.float32(np.exp(rng.normal(0, 10)))
        values = multiples * step * rng.choice([-1, 1], multiples.shape).astype(np.float32)
        (found,) = exact_scales(values[None])
        quotients = np.rint(values.astype(np.float64) / found)
        assert np.abs(quotients).max() <= 127
        assert (quotients.astype(np.float32) * found).tobytes() == values.tobytes()


STEP = np.float32(0.1)


@pytest.mark.parametrize(
    "values, exact",
    [
        (np.arange(-127, 128), True),  # 255 levels
        (np.arange(-128, 127), False),
        ([-0.1, 0.1, 0.1, -0.1], True),
        ([-0.1, 0.1, np.nextafter(STEP, np.float32(1)), -0.1], False),  # an ulp apart
        ([1, 2, 2**7], False),  # two powers of two are too far apart
        ([1, 2, 2**6], True),
        ([-1, 1, 0.7071067], False),  # TTQ's two magnitudes
        ([0, 0, 0, 0], True),
        ([-0.0, 0.0, 3, -3], True),
        ([1e-39, -1e-39], False),  # a subnormal step
        ([3e38, -3e38], True),
        ([np.inf, -np.inf], False),
        ([np.nan, 1], False),
    ],
)
def test_borders(files, values, exact):
    rng = np.random.default_rng(0)  # no channel of any axis has one magnitude only
    some = np.asarray(values, np.float32)
    content, before = with_weights(
        files["convolution"], lambda w: rng.permutation(np.resize(some, w.size)).reshape(w.shape)
    )
    small, report = compress(content)
    assert report.constants[0].exact == exact
    assert report.constants[0].storage == ("int8" if exact else "float32") and bool(report.constants[0].reason) != exact
    if not exact:
        assert small == content
    else:
        np.testing.assert_array_equal(next(iter(stored_constants(Flatbuffer(small)).values())).dequantized(), before)


@pytest.mark.parametrize("name", LAYERS)
def test_real_weights_stay(files, name):
    content, _ = files[name]
    small, report = compress(content)
    assert small == content
    assert [constant.storage for constant in report.constants] == ["float32"]
    assert [(op.weight_bits, op.needed_bits) for op in describe(content).real_operators] == [(32, 32)]


def test_small_weights_stay(files):
    content, _ = with_weights(files["depthwise"], np.sign)
    assert compress(content)[1].constants[0].storage == "int8"
    assert compress(content, minimum_size=10_000)[1].constants[0].storage == "float32"
    # One scale for each channel of few weights takes more than it saves.
    i = tf.keras.Input((4, 4, 512))
    layer = quant.QuantDepthwiseConv2D((1, 2), depthwise_quantizer=by_channel)
    _, report = convert(randomize(tf.keras.Model(i, layer(i))))
    assert report.exact == 0


def test_rounding_is_for_the_others():
    i = tf.keras.Input((6, 6, 32))
    x = quant.QuantConv2D(16, 3, kernel_quantizer="ste_sign", name="signs")(i)
    model = randomize(tf.keras.Model(i, keras.Conv2D(16, 3, name="real")(keras.ReLU()(x))))
    large, _ = convert(model, exact_int8=False)
    signs, real = (op.inputs[1] for op in Flatbuffer(large).operators if op.name == "CONV_2D")
    for dtype in ("float16", "int8"):
        content, report = convert(model, float_weights=dtype)
        stored = stored_constants(Flatbuffer(content))
        assert (stored[signs].values.dtype, stored[real].values.dtype) == (np.int8, np.dtype(dtype))
        np.testing.assert_array_equal(stored[signs].dequantized(), Flatbuffer(large).constant(signs))
        assert (report.exact, report.exact_bytes) == (1, 9 * 32 * 16 + 12)
        assert verify(model, content, images(model, 1)).ok
        rounded, _ = convert(model, float_weights=dtype, exact_int8=False)
        stored = stored_constants(Flatbuffer(rounded))
        assert (stored[signs].values.dtype, stored[real].values.dtype) == (dtype, dtype)
        assert verify(model, rounded, images(model, 1)).ok


def test_a_stored_file_is_stored_once(files):
    content, _ = with_weights(files["convolution"], np.sign)
    small, _ = compress(content)
    assert compress(small)[0] == small


def test_fake_quantized_weights():
    """Weights trained in 8 bits, of a layer with a real input."""

    def eight_bits(w):
        return tf.quantization.fake_quant_with_min_max_args(w, -0.635, 0.635, narrow_range=True)

    i = tf.keras.Input((6, 6, 32))
    x = quant.QuantConv2D(16, 3, kernel_quantizer=eight_bits)(keras.ReLU()(i))
    model = randomize(tf.keras.Model(i, x))
    content, report = convert(model)
    (operator,) = describe(content).real_operators
    assert (report.exact, operator.weight_bits, operator.needed_bits) == (1, 8, 8)
    assert verify(model, content, images(model, 1)).ok


def test_shared_weights_are_stored_once():
    i = tf.keras.Input((6, 6, 32))
    x = quant.QuantConv2D(32, 3, padding="same", kernel_quantizer="ste_sign", name="first")(i)
    x = quant.QuantConv2D(32, 3, padding="same", kernel_quantizer="ste_sign", name="second")(keras.ReLU()(x))
    content, _ = convert(randomize(tf.keras.Model(i, x)), exact_int8=False)
    image = np.random.default_rng(0).standard_normal((1, 6, 6, 32)).astype(np.float32)
    # One tensor of two operators; then two tensors with one buffer.
    for share in ("tensor", "buffer"):
        flatbuffer = Flatbuffer(content)
        first, second = (op for op in flatbuffer.operators if op.name == "CONV_2D")
        if share == "tensor":
            flatbuffer.subgraph.operators[second.index].inputs[1] = first.inputs[1]
        else:
            tensors = flatbuffer.subgraph.tensors
            tensors[second.inputs[1]].buffer = tensors[first.inputs[1]].buffer
        flatbuffer.drop_unused_buffers()
        large = flatbuffer.pack()
        small, report = compress(large)
        assert len(report.constants) == (1 if share == "tensor" else 2)
        names = [op.name for op in Flatbuffer(small).operators]
        assert names.count("DEQUANTIZE") == len(report.constants)
        assert describe(small).constants["int8"] == 9 * 32 * 32
        found, expected = (Interpreter(file, num_threads=1).predict(image) for file in (small, large))
        assert found.tobytes() == expected.tobytes()


# Folding


def scaled(x, factors):
    return keras.Lambda(lambda x: x * tf.constant(factors, tf.float32))(x)


@pytest.mark.parametrize("quantizer, factors_left", [("magnitude_aware_sign", 1), ("ste_sign", 0), (None, 0)])
def test_a_factor_stays_in_front_of_weights_of_few_levels(quantizer, factors_left):
    """Factors of inputs beside scales of outputs would make every weight another number. Signs alone would get scales
    of inputs, and equal factors change the scales only."""
    rng = np.random.default_rng(0)
    for factors, left in ((rng.uniform(0.5, 2, 32), factors_left), (np.full(32, 0.3), 0)):
        i = tf.keras.Input((6, 6, 32))
        x = scaled(keras.PReLU(shared_axes=[1, 2])(i), factors)
        model = randomize(tf.keras.Model(i, quant.QuantConv2D(16, 1, kernel_quantizer=quantizer)(x)))
        content, report = convert(model)
        assert describe(content).operators.get("MUL", 0) == left
        assert report.exact == (quantizer is not None)
        assert verify(model, content, images(model, 1)).ok


# Verification


def dequantize(flatbuffer):
    return next(op for op in flatbuffer.operators if op.name == "DEQUANTIZE")


def change_integer(flatbuffer):
    tensor = dequantize(flatbuffer).inputs[0]
    value = flatbuffer.constant(tensor).copy()
    value.reshape(-1)[7] -= np.int8(2) * value.reshape(-1)[7]
    flatbuffer.set_constant(tensor, value)


def change_scale(flatbuffer):
    quantization = flatbuffer.subgraph.tensors[dequantize(flatbuffer).inputs[0]].quantization
    quantization.scale = np.array(quantization.scale, np.float32)
    quantization.scale[3] = np.nextafter(quantization.scale[3], np.float32(9))


def shift_scales(flatbuffer):
    quantization = flatbuffer.subgraph.tensors[dequantize(flatbuffer).inputs[0]].quantization
    quantization.scale = np.roll(np.array(quantization.scale, np.float32), 1)


@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize("storage", ["float32", "float16", "int8"])
@pytest.mark.parametrize("fault", [change_integer, change_scale, shift_scales])
def test_verify_finds_a_wrong_weight(fault, storage, folded):
    i = tf.keras.Input((6, 6, 32))
    x = quant.QuantConv2D(16, 3, kernel_quantizer="magnitude_aware_sign", name="scaled")(i)
    model = randomize(tf.keras.Model(i, keras.Conv2D(16, 3, name="real")(keras.ReLU()(x))))
    content, _ = convert(model, float_weights=storage, fold=folded)
    flatbuffer = Flatbuffer(content)
    fault(flatbuffer)
    (difference,) = verify(model, flatbuffer.pack(), images(model, 1)).differences
    assert difference.stage == "weights" and "where its storage allows 0" in difference.message
    assert "scaled" in difference.layer


def test_the_rest_of_a_file_with_exact_weights_is_proved_as_ever():
    """A file of which no other constant is the one of a fresh conversion, as another version may make it."""
    x = i = tf.keras.Input((8, 8, 32))
    for layer in (
        quant.QuantConv2D(32, 3, kernel_quantizer="ste_sign", name="signs"),
        keras.BatchNormalization(),
        quant.QuantConv2D(32, 3, input_quantizer="ste_sign", kernel_quantizer="ste_sign", use_bias=False),
        keras.GlobalAveragePooling2D(),
        keras.Dense(10),
    ):
        x = layer(x)
    model = randomize(tf.keras.Model(i, x))
    content, report = convert(model)
    assert report.exact == 1
    flatbuffer = Flatbuffer(content)
    bconv = next(op for op in flatbuffer.operators if op.name == "LceBconv2d")
    multiplier = flatbuffer.constant(bconv.inputs[2])
    flatbuffer.set_constant(bconv.inputs[2], np.nextafter(multiplier, np.float32(9)))
    assert verify(model, flatbuffer.pack(), images(model, 1)).ok
    flatbuffer.set_constant(bconv.inputs[2], multiplier * np.float32(1.01))
    assert not verify(model, flatbuffer.pack(), images(model, 1)).ok


def test_a_file_that_is_folded_later_verifies():
    i = tf.keras.Input((6, 6, 32))
    x = quant.QuantConv2D(16, 3, kernel_quantizer="ste_sign", name="signs")(keras.ReLU()(i))
    x = keras.AveragePooling2D(2)(keras.PReLU(shared_axes=[1, 2])(x))
    x = scaled(x, np.random.default_rng(0).uniform(0.5, 2, 16))
    model = randomize(tf.keras.Model(i, keras.Conv2D(16, 1, name="real")(x)))
    content, _ = convert(model, fold=False)
    folded, report = fold(content)
    assert report.folded_away == 1 and "int8" in describe(folded).constants
    assert verify(model, folded, images(model, 1)).ok
