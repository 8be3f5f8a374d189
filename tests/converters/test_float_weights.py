import larq as lq
import larq_compute_engine as lce
import numpy as np
import pytest
import tensorflow as tf
from larq_compute_engine.tflite.python.interpreter import Interpreter

from larq_rep.converters.flatbuffer import Flatbuffer, InvalidFlatbufferError
from larq_rep.converters.float_weights import compress, expand, storage

layers = tf.keras.layers

MODES = {
    "default": {},
    "indirect": {"use_indirect_bgemm": True},
    "xnnpack": {"use_xnnpack": True},
    "indirect+xnnpack": {"use_indirect_bgemm": True, "use_xnnpack": True},
}
# Axes over which a weight tensor is reduced to its output channels.
INSIDE = {"CONV_2D": (1, 2, 3), "DEPTHWISE_CONV_2D": (0, 1, 2), "FULLY_CONNECTED": (1,)}


@pytest.fixture(scope="module")
def content():
    tf.keras.utils.set_random_seed(0)
    image = layers.Input((8, 8, 16))
    x = layers.Conv2D(32, 3, padding="same")(image)
    x = lq.layers.QuantConv2D(
        64, 3, padding="same", input_quantizer="approx_sign", kernel_quantizer="magnitude_aware_sign"
    )(x)
    x = layers.DepthwiseConv2D(3, strides=2, padding="same")(x)
    x = layers.Conv2D(24, 1)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(5)(layers.Dense(40)(x))
    model = tf.keras.Model(image, x)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, (layers.Conv2D, layers.Dense)) and not isinstance(layer, lq.layers.QuantConv2D):
            # Channels of very different size show whether each has its own scale.
            kernel, bias = layer.get_weights()
            depthwise = isinstance(layer, layers.DepthwiseConv2D)
            scales = 10 ** rng.uniform(-2, 1, kernel.shape[2:] if depthwise else kernel.shape[-1])
            layer.set_weights([kernel * scales, bias])
    return lce.convert_keras_model(model)


def weights(content):
    """Operator name and weight tensor of every operator with real-valued weights."""
    return [(op.name, op.inputs[1]) for op in Flatbuffer(content).operators if op.name in INSIDE]


def rounded(value, dtype, inside):
    if dtype == "float16":
        return value.astype(np.float16).astype(np.float32)
    scale = np.abs(value).max(axis=inside, keepdims=True) / np.float32(127)
    return np.rint(value / scale) * scale


def run(content, image, **options):
    return Interpreter(content, num_threads=1, **options).predict(image)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_computes_what_the_float32_file_with_rounded_weights_computes(content, dtype, mode):
    reference = Flatbuffer(content)
    for name, tensor in weights(content)[:-1]:  # the last dense layer is below the minimum size
        reference.set_constant(tensor, rounded(reference.constant(tensor), dtype, INSIDE[name]))
    image = np.random.default_rng(1).standard_normal((2, 8, 8, 16)).astype(np.float32)
    small, _ = compress(content, dtype)
    expected = run(reference.pack(), image, **MODES[mode])
    np.testing.assert_allclose(run(small, image, **MODES[mode]), expected, rtol=1e-5, atol=1e-5)
    assert not np.allclose(run(content, image, **MODES[mode]), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_expand_undoes_compress_within_its_bounds(content, dtype):
    small, _ = compress(content, dtype)
    expanded, bounds = expand(small)
    before, after = Flatbuffer(content), Flatbuffer(expanded)

    assert [(op.name, op.inputs, op.outputs) for op in after.operators] == [
        (op.name, op.inputs, op.outputs) for op in before.operators
    ]
    assert len(after.subgraph.tensors) == len(before.subgraph.tensors)
    assert (after.inputs, after.outputs) == (before.inputs, before.outputs)
    kinds = {tensor: name for name, tensor in weights(content)[:-1]}
    assert set(bounds) == set(kinds)
    for tensor in range(len(before.subgraph.tensors)):
        value, found = before.constant(tensor), after.constant(tensor)
        assert (value is None) == (found is None)
        if tensor not in kinds:
            np.testing.assert_array_equal(found, value)
            continue
        np.testing.assert_array_less(np.abs(found - value), np.broadcast_to(bounds[tensor] * 1.000001, value.shape))
        # Not looser than the format: half of the last of 11 bits, or half of one of 127 steps.
        if dtype == "float16":
            limit = np.maximum(np.abs(value) * 2**-11 * 1.001, 2**-25)
        else:
            limit = np.abs(value).max(axis=INSIDE[kinds[tensor]], keepdims=True) / 127 * 0.5001
        assert np.all(bounds[tensor] <= limit)
    image = np.random.default_rng(1).standard_normal((2, 8, 8, 16)).astype(np.float32)
    np.testing.assert_array_equal(run(expanded, image), run(small, image))


def test_expand_leaves_a_float32_file_alone(content):
    assert expand(content) == (content, {})


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_report_and_size(content, dtype):
    small, report = compress(content, dtype)
    # Kernel elements and output channels of the layers of the model, in order.
    sizes = [(3 * 3 * 16 * 32, 32), (3 * 3 * 64, 64), (64 * 24, 24), (4 * 4 * 24 * 40, 40), (40 * 5, 5)]
    assert [c.bytes_before for c in report.constants] == [4 * elements for elements, _ in sizes]
    expected = [2 * n if dtype == "float16" else n + 12 * channels for n, channels in sizes[:-1]] + [4 * 40 * 5]
    assert [c.bytes_after for c in report.constants] == expected
    assert [c.storage for c in report.constants] == [dtype] * 4 + ["float32"]
    assert report.constants[-1].reason == "smaller than 1024 bytes"

    flatbuffer = Flatbuffer(content)
    for (name, tensor), constant in zip(weights(content)[:-1], report.constants, strict=False):
        value = flatbuffer.constant(tensor)
        assert constant.name == flatbuffer.name(tensor)
        assert constant.shape == value.shape
        error = np.abs(value - rounded(value, dtype, INSIDE[name])).max()
        assert constant.max_error == pytest.approx(error, rel=1e-3)
    assert (report.size_before, report.size_after) == (len(content), len(small))
    # Nothing of the float32 weights is left behind.
    saved = sum(c.bytes_before - c.bytes_after for c in report.constants)
    assert len(small) < len(content) - saved + 400 * len(report.constants)


def test_storage(content):
    assert storage(content) == "float32"
    assert storage(compress(content, "float16")[0]) == "float16"
    assert storage(compress(content, "int8")[0]) == "int8"
    assert storage(compress(content, "int8", minimum_size=10**9)[0]) == "float32"


@pytest.mark.parametrize(
    ("factor", "dtype", "stored", "reason"),
    [
        (1e6, "float16", "float32", "above float16's 65504"),
        (1e6, "int8", "int8", ""),
        (1e-8, "float16", "float32", "subnormal"),
        (1e-8, "int8", "int8", ""),
        (np.inf, "float16", "float32", "not finite"),
        (np.nan, "int8", "float32", "not finite"),
        (0, "float16", "int8", ""),  # zeros are exact
        (0, "int8", "int8", ""),
    ],
)
def test_weights_out_of_range_stay_float32(content, factor, dtype, stored, reason):
    flatbuffer = Flatbuffer(content)
    _, tensor = weights(content)[-2]
    value = flatbuffer.constant(tensor) * np.float32(factor)
    flatbuffer.set_constant(tensor, value)
    small, report = compress(flatbuffer.pack(), dtype)
    constant = report.constants[-2]
    assert constant.storage == stored
    assert reason in constant.reason
    assert bool(constant.reason) == bool(reason)
    expanded, bounds = expand(small)
    assert (tensor in bounds) == (stored != "float32")
    np.testing.assert_allclose(
        Flatbuffer(expanded).constant(tensor),
        value,
        rtol=0,
        atol=np.abs(value).max() / 250 if tensor in bounds else 0,
    )


def test_weights_used_twice_are_stored_once():
    tf.keras.utils.set_random_seed(0)
    x = layers.Input((32,))
    dense = layers.Dense(32)
    content = lce.convert_keras_model(tf.keras.Model(x, dense(layers.ReLU()(dense(x)))))
    (_, tensor), (_, same) = weights(content)
    assert tensor == same
    small, report = compress(content, "float16")
    assert len(report.constants) == 1
    assert [op.name for op in Flatbuffer(small).operators].count("DEQUANTIZE") == 1
    data = np.random.default_rng(0).standard_normal((1, 32)).astype(np.float32)
    np.testing.assert_allclose(run(small, data), run(content, data), atol=1e-2)


def test_errors(content):
    with pytest.raises(ValueError, match=r"dtype should be one of .*'float16', 'int8'.*found 'bfloat16'"):
        compress(content, "bfloat16")
    with pytest.raises(ValueError, match="weights of this file are float16 already"):
        compress(compress(content, "float16")[0], "int8")
    with pytest.raises(InvalidFlatbufferError):
        storage(b"not a model")
