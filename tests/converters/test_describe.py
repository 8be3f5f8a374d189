import json

import larq as lq
import larq_compute_engine as lce
import numpy as np
import pytest
import tensorflow as tf

from larq_rep.converters.description import describe
from larq_rep.converters.flatbuffer import InvalidFlatbufferError
from larq_rep.converters.float_weights import compress

layers = tf.keras.layers


def binary(filters, kernel_size, **options):
    quantizers = {"input_quantizer": "approx_sign", "kernel_quantizer": "ste_sign", "use_bias": False}
    return lq.layers.QuantConv2D(filters, kernel_size, **quantizers, **options)


@pytest.fixture(scope="module")
def content():
    tf.keras.utils.set_random_seed(0)
    image = layers.Input((9, 10, 3), name="image")
    x = layers.Conv2D(64, 3, padding="same")(image)
    x = binary(48, 3, strides=(2, 1), padding="same", pad_values=1)(x)
    x = layers.BatchNormalization()(x)  # with the next sign it becomes a threshold: packed output
    x = binary(64, 3, dilation_rate=(1, 2), padding="same")(x)
    x = layers.AveragePooling2D((1, 2))(x)
    x = binary(32, (3, 2), groups=2, padding="valid", activation="relu")(x)
    x = layers.BatchNormalization()(x)
    x = layers.DepthwiseConv2D((3, 2))(x)
    x = layers.Dense(10)(layers.GlobalAveragePooling2D()(x))
    return lce.convert_keras_model(tf.keras.Model(image, x))


def test_binary_convolutions(content):
    first, second, third = describe(content).binary_convolutions
    assert (first.kernel, first.strides, first.dilations, first.groups) == ((3, 3), (2, 1), (1, 1), 1)
    assert (first.padding, first.output, first.activation) == ("same_one", "bits", "none")
    assert (first.input_shape, first.output_shape) == ((1, 9, 10, 64), (1, 5, 10, 48))
    assert first.macs == 1_382_400  # 3·3·64 · 5·10·48
    assert (second.kernel, second.strides, second.dilations, second.groups) == ((3, 3), (1, 1), (1, 2), 1)
    assert (second.padding, second.output, second.activation) == ("same_zero", "float32", "none")
    assert (second.input_shape, second.output_shape) == ((1, 5, 10, 48), (1, 5, 10, 64))
    assert second.macs == 1_382_400  # 3·3·48 · 5·10·64
    assert (third.kernel, third.strides, third.dilations, third.groups) == ((3, 2), (1, 1), (1, 1), 2)
    assert (third.padding, third.output, third.activation) == ("valid", "float32", "relu")
    assert (third.input_shape, third.output_shape) == ((1, 5, 5, 64), (1, 3, 4, 32))
    assert third.macs == 73_728  # 3·2·32 · 3·4·32


def test_real_operators_and_totals(content):
    description = describe(content)
    assert [(op.name, op.weights_shape, op.output_shape, op.macs) for op in description.real_operators] == [
        ("CONV_2D", (64, 3, 3, 3), (1, 9, 10, 64), 155_520),  # 3·3·3 · 9·10·64
        ("DEPTHWISE_CONV_2D", (1, 3, 2, 32), (1, 1, 3, 32), 576),  # 3·2 · 1·3·32
        ("FULLY_CONNECTED", (10, 32), (1, 10), 320),
    ]
    assert description.binary_macs == 1_382_400 + 1_382_400 + 73_728
    assert description.real_macs == 155_520 + 576 + 320


def test_file(content):
    description = describe(content)
    assert description.size == len(content)
    (image,), (logits,) = description.inputs, description.outputs
    assert (image.shape, image.dtype) == ((1, 9, 10, 3), "float32")
    assert "image" in image.name
    assert (logits.shape, logits.dtype) == ((1, 10), "float32")
    # The second sign is computed by the convolution before it.
    assert description.operators["LceBconv2d"] == 3
    assert description.operators["LceQuantize"] == 2
    # 64 and 48 channels take two words of 4 bytes; a group of 32 takes one.
    assert description.constants["binary"] == 48 * 9 * 2 * 4 + 64 * 9 * 2 * 4 + 32 * 6 * 1 * 4
    assert sum(description.constants.values()) < len(content)


@pytest.mark.parametrize(("dtype", "itemsize"), [("float16", 2), ("int8", 1)])
def test_compressed_constants(content, dtype, itemsize):
    before, after = describe(content), describe(compress(content, dtype, minimum_size=1024)[0])
    elements = 64 * 3 * 3 * 3 + 10 * 32  # the depthwise kernel has 768 bytes
    assert after.constants[dtype] == elements * itemsize
    assert after.constants["float32"] == before.constants["float32"] - 4 * elements
    assert after.operators["DEQUANTIZE"] == 2
    assert (after.binary_macs, after.real_macs) == (before.binary_macs, before.real_macs)


def test_to_dict_is_json(content):
    description = describe(content)
    read = json.loads(json.dumps(description.to_dict()))
    assert read["binary_macs"] == description.binary_macs
    assert read["real_macs"] == description.real_macs
    assert read["binary_convolutions"][0]["output_shape"] == [1, 5, 10, 48]
    assert read["inputs"][0]["shape"] == [1, 9, 10, 3]


def test_file_of_stock_tflite():
    x = layers.Input((6, 6, 4))
    y = layers.Dense(3)(layers.Flatten()(layers.Conv2D(8, 3)(x)))
    model = tf.keras.Model(x, y)
    for layer in model.layers:  # biases that are not zero are kept
        layer.set_weights([np.ones_like(value) for value in layer.get_weights()])
    description = describe(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    assert description.binary_convolutions == ()
    assert description.binary_macs == 0
    assert description.real_macs == 3 * 3 * 4 * 4 * 4 * 8 + 4 * 4 * 8 * 3
    assert description.constants["float32"] == 4 * (3 * 3 * 4 * 8 + 8 + 4 * 4 * 8 * 3 + 3)


def test_not_a_model():
    with pytest.raises(InvalidFlatbufferError, match="Not a TFLite file"):
        describe(b"PK\x03\x04 a zip file")
