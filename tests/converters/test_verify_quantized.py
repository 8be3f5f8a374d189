"""Networks with fake quantization, which LCE turns into operators of 8 bits, and files with integers at their ends."""

import larq as lq
import larq_compute_engine
import numpy as np
import pytest
import tensorflow as tf
from support import randomize

from larq_rep.converters import ConversionError, convert, describe, lce, verify
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


@pytest.mark.parametrize("dtype", ["lce", "int8", "uint8"])
def test_file_that_takes_and_gives_integers(dtype):
    """Asked for here, or as LCE's own converter writes it."""
    model = network(fake_args)
    by_lce, int8 = dtype == "lce", tf.as_dtype(dtype.replace("lce", "int8"))
    types = {"inference_input_type": int8, "inference_output_type": int8}
    content = larq_compute_engine.convert_keras_model(model, **types) if by_lce else convert(model, **types)[0]
    flatbuffer = Flatbuffer(content)
    assert {flatbuffer.dtype(t) for t in (*flatbuffer.inputs, *flatbuffer.outputs)} == {int8.name}
    result = verify(model, content, images(), runtime="both")
    assert result.ok, result.differences
    # What the integers stand for is what the file with real ends gives.
    real = lce.interpreter(convert(model)[0]).predict(images())
    step, zero = 8 / 255, 0 if int8 == tf.int8 else 128
    stored = (np.round(images() / step) + zero).clip(int8.min, int8.max).astype(int8.as_numpy_dtype)
    integers = lce.interpreter(content).predict(stored)
    np.testing.assert_allclose((integers - np.float32(zero)) * np.float32(step), real, atol=1e-5)


def test_islands():
    """What `lce inspect` shows of such a file."""
    about = describe(convert(network(fake_args), inference_input_type=tf.uint8, inference_output_type=tf.int8)[0])
    assert [(island.entered, island.operators, island.left) for island in about.islands] == [
        (("0 QUANTIZE",), ("1 CONV_2D",), ("2 LceQuantize",)),
        (("5 LceBconv2d",), ("6 RESHAPE", "7 FULLY_CONNECTED"), (f"output {about.outputs[0].name}",)),
    ]


def test_types_of_one_end():
    """An index stays one; the outputs stay real, and one of them is also used on."""
    a, b = tf.keras.Input((4, 4, 3), name="a"), tf.keras.Input((), dtype="int32", name="b")
    y = fake_args(keras.Conv2D(8, 1)(fake_args(a)))
    z = keras.Dense(2)(keras.GlobalAveragePooling2D()(y) + keras.Embedding(5, 8)(b))
    model = randomize(tf.keras.Model([a, b], [y, fake_args(z)]))
    flatbuffer = Flatbuffer(convert(model, inference_input_type=tf.uint8)[0])
    assert [flatbuffer.dtype(t) for t in (*flatbuffer.inputs, *flatbuffer.outputs)] == [
        *("uint8", "int32"),
        *("float32", "float32"),
    ]
    content = convert(model, inference_output_type=tf.int8)[0]
    flatbuffer = Flatbuffer(content)
    assert [flatbuffer.dtype(t) for t in (*flatbuffer.inputs, *flatbuffer.outputs)] == [
        *("float32", "int32"),
        *("int8", "int8"),
    ]
    rng = np.random.default_rng(0)
    x = [rng.standard_normal((2, 4, 4, 3)).astype(np.float32), np.array([0, 4], np.int32)]
    result = verify(model, content, x, runtime="both")
    assert result.ok, result.differences


class PerChannel(keras.Conv2D):
    """A convolution whose weights are rounded with a scale for each channel, as int8 holds them."""

    def call(self, x):
        largest = tf.reduce_max(tf.abs(self.kernel), axis=[0, 1, 2])
        kernel = tf.quantization.fake_quant_with_min_max_vars_per_channel(
            self.kernel, -largest, largest, narrow_range=True
        )
        return tf.nn.bias_add(tf.nn.convolution(x, kernel, padding="VALID"), self.bias)


def test_first_and_last_layer():
    """Binary layers between them stay float; weights that were rounded in training hardly change any more."""
    x = image = tf.keras.Input((8, 8, 3))
    x = fake_args(PerChannel(32, 3)(fake_vars(image)))
    y = lq.layers.QuantConv2D(32, 3, padding="same", input_quantizer="ste_sign", kernel_quantizer="ste_sign")(x)
    x = keras.GlobalAveragePooling2D()(keras.BatchNormalization()(y) + x)
    model = randomize(tf.keras.Model(image, fake_args(keras.Dense(4)(fake_vars(x)))))
    content, report = convert(model)
    assert (report.bitpacked, report.binary, report.findings) == (1, 1, [])
    flatbuffer = Flatbuffer(content)
    types = {op.name: flatbuffer.dtype(op.outputs[0]) for op in flatbuffer.operators}
    assert (types["CONV_2D"], types["FULLY_CONNECTED"], types["LceBconv2d"]) == ("int8", "int8", "float32")
    result = verify(model, content, images(), runtime="both")
    assert result.ok, result.differences
    expected = model.predict(images(), verbose=0)
    np.testing.assert_allclose(lce.interpreter(content).predict(images()), expected, atol=0.03 * np.abs(expected).max())


def binary_middle(pad_values):
    x = image = tf.keras.Input((6, 6, 32))
    for number in range(2):
        signs = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
        x = lq.layers.QuantConv2D(32, 3, padding="same", pad_values=pad_values, name=f"signs{number}", **signs)(x)
        x = fake_vars(keras.BatchNormalization()(x))
    return randomize(tf.keras.Model(image, x))


def test_binary_layers_of_int8():
    """One-padding works in the middle of int8; LCE loads no zero-padded convolution that writes int8."""
    model = binary_middle(1.0)
    content = convert(model)[0]
    flatbuffer = Flatbuffer(content)
    assert {flatbuffer.dtype(op.outputs[0]) for op in flatbuffer.operators if op.name == "LceBconv2d"} == {"int8"}
    x = np.random.default_rng(0).standard_normal((2, 6, 6, 32)).astype(np.float32)
    result = verify(model, content, x, runtime="both")
    assert result.ok, result.differences
    with pytest.raises(ConversionError, match="signs0: LCE has no kernel for zero padding with int8 output: .*float"):
        convert(binary_middle(0.0))


def test_ranges_are_those_of_training_or_measured():
    """Not both: the file of fake quantization computes in int8 already."""
    with pytest.raises(ValueError, match="int8: .* by the fake quantization in .*: leave int8 out"):
        convert(network(fake_args), int8=images())


def test_weights_that_were_rounded_in_training():
    """They are the file's, to the bit, whether activations are float or have measured ranges."""
    image = tf.keras.Input((16, 16, 32))
    model = randomize(tf.keras.Model(image, PerChannel(128, 3)(image)))
    kernel = model.layers[1].kernel.numpy()
    largest = np.abs(kernel).max(axis=(0, 1, 2))
    expected = np.clip(np.round(kernel / (largest / 127)), -127, 127).transpose(3, 0, 1, 2)
    x = np.random.default_rng(0).standard_normal((2, 16, 16, 32)).astype(np.float32)
    for how in ({}, {"int8": x}):
        content = convert(model, **how)[0]
        flatbuffer = Flatbuffer(content)
        op = next(op for op in flatbuffer.operators if op.name == "CONV_2D")
        assert flatbuffer.dtype(op.outputs[0]) == ("int8" if how else "float32")
        weights = op.inputs[1] if how else flatbuffer.producers[op.inputs[1]].inputs[0]
        np.testing.assert_array_equal(flatbuffer.constant(weights), expected)
        assert verify(model, content, x[:1], runtime="both").ok
