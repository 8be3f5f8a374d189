"""Networks with fake quantization, which LCE turns into operators of 8 bits, and files with integers at their ends."""

import larq as lq
import larq_compute_engine
import numpy as np
import pytest
import tensorflow as tf
from support import randomize

from larq_rep.converters import convert, lce, verify
from larq_rep.converters.flatbuffer import Flatbuffer

keras = tf.keras.layers


def fake_args(x):
    return tf.quantization.fake_quant_with_min_max_args(x, -4, 4)


def fake_vars(x):
    return tf.quantization.fake_quant_with_min_max_vars(x, -3.0, 5.0)


def quantize_and_dequantize(x):
    return tf.quantization.quantize_and_dequantize_v2(x, -4.0, 4.0, range_given=True)


def network(fake):
    """8 bits at both ends and between two binary convolutions."""
    x = image = tf.keras.Input((8, 8, 3))
    x = fake(keras.Conv2D(32, 3, name="stem")(fake(x)))
    for number, filters in enumerate((32, 8)):
        x = lq.layers.QuantConv2D(
            filters, 1 + number, input_quantizer="ste_sign", kernel_quantizer="ste_sign", use_bias=False
        )(x)
        x = fake(keras.BatchNormalization()(x))
    x = keras.Dense(4, name="head")(keras.Flatten()(x))
    model = randomize(tf.keras.Model(image, fake(x)))
    head = model.get_layer("head")
    head.set_weights([w / 10 for w in head.get_weights()])  # within the range
    return model


def images(count=2):
    return np.random.default_rng(0).standard_normal((count, 8, 8, 3)).astype(np.float32)


def constant_of(flatbuffer, name, number):
    op = next(op for op in flatbuffer.operators if op.name == name)
    assert flatbuffer.dtype(op.outputs[0]) == "int8"
    return op.inputs[number]


FAULTS = {"bias of the stem": ("CONV_2D", 2, "stem"), "bias of the head": ("FULLY_CONNECTED", 2, "head")}


@pytest.mark.parametrize("fake", [fake_args, fake_vars, quantize_and_dequantize])
def test_fake_quantization(fake):
    model = network(fake)
    content = convert(model)[0]
    result = verify(model, content, images(), runtime="both")
    assert result.ok, result.differences
    assert not [note for note in result.notes if "integers of 8 bits" not in note]
    for name, number, layer in FAULTS.values():
        flatbuffer = Flatbuffer(content)
        tensor = constant_of(flatbuffer, name, number)
        bias = flatbuffer.constant(tensor).copy()
        scale = float(flatbuffer.subgraph.tensors[tensor].quantization.scale[0])
        bias[1] += int(1.0 / scale)  # by about 1, of a range of 8
        flatbuffer.set_constant(tensor, bias)
        differences = verify(model, flatbuffer.pack(), images(), runtime="lce").differences
        assert differences and differences[0].stage == "quantization", layer
        assert differences[0].message.endswith(f"by {layer}")


def test_file_that_takes_and_gives_integers(tmp_path):
    """As LCE's own converter writes it if asked to."""
    model = network(fake_args)
    content = larq_compute_engine.convert_keras_model(
        model, inference_input_type=tf.int8, inference_output_type=tf.int8
    )
    flatbuffer = Flatbuffer(content)
    assert {flatbuffer.dtype(t) for t in (*flatbuffer.inputs, *flatbuffer.outputs)} == {"int8"}
    result = verify(model, content, images())
    assert result.ok, result.differences
    # What the integers stand for is what the file with real ends gives.
    real = lce.interpreter(convert(model)[0]).predict(images())
    step = 8 / 255
    integers = lce.interpreter(content).predict(np.round(images() / step).clip(-128, 127).astype(np.int8))
    np.testing.assert_allclose(integers * np.float32(step), real, atol=1e-5)
