"""The numpy operators against LCE's interpreter, bit for bit."""

import larq as lq
import larq_compute_engine as lce
import numpy as np
import pytest
import tensorflow as tf
from support import randomize

from larq_rep.converters import executor, matching
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.converters.lce import interpreter

keras = tf.keras.layers

CASES = {
    "zero padding": dict(padding="same", pad_values=0.0),
    "zero padding, stride 2": dict(padding="same", pad_values=0.0, strides=2),
    "one padding": dict(padding="same", pad_values=1.0),
    "one padding, stride (2, 1)": dict(padding="same", pad_values=1.0, strides=(2, 1)),
    "valid": dict(padding="valid"),
    "dilation": dict(padding="same", pad_values=1.0, dilation_rate=2),
    "zero padding, dilation": dict(padding="same", pad_values=0.0, dilation_rate=(2, 1)),
    "5x3": dict(padding="same", pad_values=0.0, kernel_size=(5, 3)),
    "1x1": dict(padding="valid", kernel_size=1),
}


def run(model, seed=1, **options):
    """Every LCE operator of the converted model, with the tensors that went in and came out."""
    flatbuffer = Flatbuffer(lce.convert_keras_model(model))
    operators = [op for op in flatbuffer.operators if op.name.startswith("Lce") and op.name != "LceDequantize"]
    tensors = sorted({t for op in operators for t in (op.inputs[0], op.outputs[0])})
    engine = interpreter(flatbuffer.with_outputs(tensors), **options)
    x = np.random.default_rng(seed).standard_normal((1, *model.input_shape[1:])).astype(np.float32)
    values = dict(zip(tensors, engine.interpreter.predict([x]), strict=True))
    return flatbuffer, [(op, values[op.inputs[0]], values[op.outputs[0]]) for op in operators]


def check(flatbuffer, results):
    """The operators' names, after comparing each of them."""
    for op, source, result in results:
        if op.name == "LceQuantize":
            np.testing.assert_array_equal(result, executor.quantize(source))
        elif op.name == "LceBMaxPool2d":
            np.testing.assert_array_equal(result, executor.max_pool(source, op.options))
        else:
            np.testing.assert_array_equal(result, executor.bconv2d(flatbuffer, op, source))
    return [op.name for op, _, _ in results]


@pytest.mark.parametrize("arguments", CASES.values(), ids=CASES)
@pytest.mark.parametrize("channels", [33, 64])
def test_float_output(arguments, channels):
    arguments = {"kernel_size": 3, **arguments}
    x = image = tf.keras.Input((9, 8, channels))
    x = lq.layers.QuantConv2D(
        7, input_quantizer="ste_sign", kernel_quantizer="magnitude_aware_sign", use_bias=True, **arguments
    )(x)
    x = keras.BatchNormalization()(x)
    assert check(*run(randomize(tf.keras.Model(image, x)))) == ["LceQuantize", "LceBconv2d"]


@pytest.mark.parametrize("activation", ["relu", tf.nn.relu6])
def test_fused_activation(activation):
    x = image = tf.keras.Input((6, 6, 32))
    x = lq.layers.QuantConv2D(
        8, 3, input_quantizer="ste_sign", kernel_quantizer="ste_sign", use_bias=False, activation=activation
    )(x)
    flatbuffer, results = run(randomize(tf.keras.Model(image, keras.BatchNormalization()(x))))
    check(flatbuffer, results)
    assert results[-1][0].options["fused_activation_function"] in (1, 3)


def test_groups():
    x = image = tf.keras.Input((6, 6, 128))
    x = lq.layers.QuantConv2D(
        8, 3, groups=2, padding="same", input_quantizer="ste_sign", kernel_quantizer="ste_sign", use_bias=False
    )(x)
    model = randomize(tf.keras.Model(image, keras.BatchNormalization()(x)))
    flatbuffer, results = run(model, use_indirect_bgemm=True)
    check(flatbuffer, results)
    assert matching.groups(flatbuffer, results[-1][0]) == 2


def test_packed_output_and_max_pool(bits):
    """Thresholds of both signs of gamma, through a max-pool too."""
    names = check(*run(bits))
    assert names.count("LceBMaxPool2d") == 1 and names.count("LceBconv2d") == 3


def test_channels_beyond_a_word():
    """Example of the operator's definition: channels 0, 31 and 33 of 40 are negative."""
    x = np.ones((1, 40), np.float32)
    x[0, [0, 31, 33]] = -1
    words = executor.quantize(x)
    assert words.astype(np.uint32).tolist() == [[0x80000001, 0x00000002]]
    np.testing.assert_array_equal(matching.unpack(words, 40), x)


def test_int8_output():
    """FakeQuant behind a valid binary convolution makes it write int8."""
    x = image = tf.keras.Input((6, 6, 32))
    x = tf.quantization.fake_quant_with_min_max_vars(x, -3.0, 3.0)
    x = lq.layers.QuantConv2D(8, 3, input_quantizer="ste_sign", kernel_quantizer="ste_sign", use_bias=False)(x)
    x = keras.BatchNormalization()(x)
    x = tf.quantization.fake_quant_with_min_max_vars(x, -200.0, 200.0)
    x = keras.Conv2D(4, 1)(x)
    x = tf.quantization.fake_quant_with_min_max_vars(x, -200.0, 200.0)
    flatbuffer, results = run(randomize(tf.keras.Model(image, x)))
    op, source, result = results[-1]
    assert op.name == "LceBconv2d" and result.dtype == np.int8
    np.testing.assert_array_equal(result, executor.bconv2d(flatbuffer, op, source))
