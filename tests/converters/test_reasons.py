"""What does not convert is refused with the layer, the cause, and a way out that works."""

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from support import images, randomize

from larq_rep.converters import ConversionError, convert
from larq_rep.converters.lce import interpreter

keras, quant = tf.keras.layers, lq.layers
SIGNS = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "use_bias": False}


def model_of(*layers, shape=(6, 6, 32)):
    x = i = tf.keras.Input(shape)
    for layer in layers:
        x = layer(x)
    return randomize(tf.keras.Model(i, x))


def refusal(*layers, shape=(6, 6, 32)):
    with pytest.raises(ConversionError) as caught:
        convert(model_of(*layers, shape=shape))
    (finding,) = caught.value.findings
    return finding


def agrees(*layers, shape=(6, 6, 32)):
    """The model converts, to a file that computes what it computes; returns the report."""
    model = model_of(*layers, shape=shape)
    content, report = convert(model)
    x = images(model)
    np.testing.assert_allclose(interpreter(content).predict(x), model.predict(x, verbose=0), atol=1e-4, rtol=1e-4)
    return report


# Binary convolutions

SILENT = {
    "QuantConv3D": (lambda: quant.QuantConv3D(8, 3, name="own", **SIGNS), (4, 4, 4, 32), "2-D convolutions only"),
    "QuantConv3DTranspose": (
        lambda: quant.QuantConv3DTranspose(8, 3, name="own", **SIGNS),
        (4, 4, 4, 32),
        "2-D convolutions only",
    ),
    "QuantSeparableConv2D": (
        lambda: quant.QuantSeparableConv2D(
            8, 3, input_quantizer="ste_sign", depthwise_quantizer="ste_sign", use_bias=False, name="own"
        ),
        (6, 6, 32),
        "groups of a multiple of 32",
    ),
    "QuantSeparableConv1D": (
        lambda: quant.QuantSeparableConv1D(
            8, 3, input_quantizer="ste_sign", depthwise_quantizer="ste_sign", use_bias=False, name="own"
        ),
        (9, 32),
        "write it as QuantConv1D, with groups=channels // 32",
    ),
    "QuantDepthwiseConv2D": (
        lambda: quant.QuantDepthwiseConv2D(
            3, input_quantizer="ste_sign", depthwise_quantizer="ste_sign", use_bias=False, name="own"
        ),
        (6, 6, 32),
        "write it as QuantConv2D, with groups=channels // 32",
    ),
    "heaviside input": (
        lambda: quant.QuantConv2D(8, 3, name="own", **{**SIGNS, "input_quantizer": "ste_heaviside"}),
        (6, 6, 32),
        "values 0 and 1; they are not -1 and +1, with which LCE computes (ste_heaviside gives 0 and 1): use "
        "input_quantizer='zero_one_sign' or DoReFa(1)",
    ),
    "heaviside weights": (
        lambda: quant.QuantConv2D(8, 3, name="own", **{**SIGNS, "kernel_quantizer": "ste_heaviside"}),
        (6, 6, 32),
        "use kernel_quantizer='ste_sign'",
    ),
    "DoReFa(1) weights": (
        lambda: quant.QuantConv2D(8, 3, name="own", **{**SIGNS, "kernel_quantizer": lq.quantizers.DoReFa(1)}),
        (6, 6, 32),
        "its weights are 0 and +s",
    ),
    "channels_first": (
        lambda: quant.QuantConv2D(8, 3, data_format="channels_first", name="own", **SIGNS),
        (32, 6, 6),
        "channels_last",
    ),
    "channels_first, same": (
        lambda: quant.QuantConv2D(
            8, 3, data_format="channels_first", padding="same", pad_values=1.0, name="own", **SIGNS
        ),
        (32, 6, 6),
        "channels_last",
    ),
}


@pytest.mark.parametrize("make, shape, words", SILENT.values(), ids=SILENT)
def test_binary_layers_that_stay_float(make, shape, words):
    finding = refusal(make(), shape=shape)
    assert (finding.rule, finding.where) == ("silent-float", "own") and words in finding.message
    for foreign in ("ExpandDims", "PadV2", "gave no reason", "quantizer of larq"):
        assert foreign not in finding.message


def test_binary_layers_as_the_reasons_say():
    assert agrees(keras.Reshape((1, 8, 32)), quant.QuantConv2D(8, (1, 3), **SIGNS), shape=(8, 32)).bitpacked == 1
    assert agrees(keras.UpSampling2D(), quant.QuantConv2D(8, 3, **SIGNS)).bitpacked == 1
    assert convert(model_of(quant.QuantConv2D(64, 3, groups=2, **SIGNS), shape=(6, 6, 64)))[1].bitpacked == 1
    assert convert(model_of(quant.QuantConv1D(64, 3, groups=2, **SIGNS), shape=(9, 64)))[1].bitpacked == 1
    for quantizer in ("zero_one_sign", lq.quantizers.DoReFa(1)):
        assert agrees(quant.QuantConv2D(8, 3, **{**SIGNS, "input_quantizer": quantizer})).bitpacked == 1
    dense = agrees(keras.Reshape((1, 1, 32)), quant.QuantConv2D(8, 1, **SIGNS), keras.Flatten(), shape=(32,))
    assert dense.bitpacked == 1


def faked(x):
    return tf.quantization.fake_quant_with_min_max_vars(x, -60.0, 60.0)


def test_zero_padding_with_int8_output():
    def layers(**padding):
        binary = quant.QuantConv2D(8, 3, padding="same", name="own", **padding, **SIGNS)
        return binary, keras.Lambda(faked), keras.Conv2D(4, 1)

    finding = refusal(*layers())
    assert (finding.rule, finding.where) == ("does-not-load", "own") and "pad_values=1" in finding.message
    assert "bconv2d.cc" not in finding.message
    assert convert(model_of(*layers(pad_values=1.0)))[1].bitpacked == 1


# Loops and branches


@pytest.mark.parametrize("name", ["LSTM", "GRU", "SimpleRNN"])
def test_recurrent_layers(name):
    recurrent = getattr(keras, name)
    finding = refusal(recurrent(4, name="own"), shape=(5, 6))
    assert (finding.rule, finding.where) == ("converter-failed", "own") and "unroll=True" in finding.message
    assert convert(model_of(recurrent(4, unroll=True), shape=(5, 6)))[1].findings == []


def test_recurrent_layer_in_both_directions():
    with pytest.raises(ConversionError) as caught:
        convert(model_of(keras.Bidirectional(keras.GRU(4, name="own")), shape=(5, 6)))
    assert all("own" in f.where and "unroll=True" in f.message for f in caught.value.findings)


class StepByStep(keras.Layer):
    """A recurrent convolution as the reason says: its cell, once for each step."""

    def __init__(self, layer, **kwargs):
        super().__init__(**kwargs)
        self.layer = layer

    def build(self, shape):
        self.layer.cell.build(shape[:1] + shape[2:])

    def call(self, x):
        states = [tf.zeros((1, *x.shape[2:-1], self.layer.filters))] * 2
        for step in range(x.shape[1]):
            y, states = self.layer.cell(x[:, step], states)
        return y


def test_recurrent_convolution():
    shape = (3, 6, 6, 2)
    finding = refusal(keras.ConvLSTM2D(4, 3, padding="same", name="own"), shape=shape)
    assert (finding.rule, finding.where) == ("converter-failed", "own") and "layer.cell" in finding.message
    recurrent = keras.ConvLSTM2D(4, 3, padding="same")
    model = model_of(StepByStep(recurrent), shape=shape)
    x = images(model, 1)
    expected = keras.ConvLSTM2D(4, 3, padding="same")
    expected.build((None, *shape))
    expected.set_weights(recurrent.cell.get_weights())
    np.testing.assert_allclose(interpreter(convert(model)[0]).predict(x), expected(x), atol=1e-5)


class Loop(keras.Layer):
    def call(self, x):
        return tf.while_loop(lambda i, y: tf.reduce_sum(y) < 100.0, lambda i, y: (i + 1, y + 1.0), (0, x))[1]


class Branch(keras.Layer):
    def call(self, x):
        return tf.cond(tf.reduce_sum(x) > 0, lambda: x + 1.0, lambda: x - 1.0)


@pytest.mark.parametrize("layer, words", [(Loop, "range, not tf.range"), (Branch, "tf.where")])
def test_loops_and_branches_of_the_data(layer, words):
    finding = refusal(layer(name="own"))
    assert (finding.rule, finding.where) == ("converter-failed", "own") and words in finding.message


class Decided(keras.Layer):
    """Branches that no image decides: in training or not, and one inside the other."""

    def call(self, x, training=None):
        training = tf.cast(False if training is None else training, tf.bool)
        large = tf.shape(x)[1] > 4

        def inner():
            return tf.cond(large, lambda: x * 3.0, lambda: x)

        return tf.cond(training, lambda: x + tf.random.normal(tf.shape(x)), inner)


def test_branches_that_are_decided():
    assert agrees(Decided(), quant.QuantConv2D(8, 3, **SIGNS)).bitpacked == 1


@pytest.mark.parametrize("size", [(4, 4), (8, 8), (10, 6)])
def test_random_crop_is_a_resize_in_inference(size):
    assert agrees(keras.RandomCrop(*size), keras.Conv2D(2, 1), shape=(8, 8, 3)).findings == []


# Operators that no runtime has


@pytest.mark.parametrize(
    "layer, instead, operator",
    [
        (lambda: keras.Activation("gelu", name="own"), lambda x: tf.nn.gelu(x, approximate=True), "Erf"),
        (lambda: keras.Activation("softsign", name="own"), lambda x: x / (1 + tf.abs(x)), "Softsign"),
    ],
)
def test_activations(layer, instead, operator):
    finding = refusal(layer())
    assert (finding.rule, finding.where) == ("foreign-operator", "own") and operator in finding.message
    x = np.linspace(-3, 3, 50, dtype=np.float32)
    np.testing.assert_allclose(instead(x), layer()(x), atol=1e-3)
    assert agrees(keras.Lambda(instead)).findings == []


@pytest.mark.parametrize(
    "layer, shape, dtype, words",
    [
        (lambda: keras.MaxPooling3D(name="own"), (4, 4, 4, 2), "float32", "2-D layer"),
        (lambda: keras.CategoryEncoding(num_tokens=4, output_mode="one_hot", name="own"), (1,), "int32", "tf.one_hot"),
        (lambda: keras.Hashing(4, name="own"), (1,), "int32", "before the model"),
        (lambda: keras.IntegerLookup(vocabulary=[1, 2], name="own"), (1,), "int64", "before the model"),
    ],
)
def test_layers_of_other_operators(layer, shape, dtype, words):
    i = tf.keras.Input(shape, dtype=dtype)
    with pytest.raises(ConversionError) as caught:
        convert(tf.keras.Model(i, layer()(i)))
    (finding,) = caught.value.findings
    assert (finding.rule, finding.where) == ("foreign-operator", "own") and words in finding.message


# The model


def test_mixed_precision_is_one_line():
    layers = [keras.Conv2D(4, 1, dtype="mixed_float16", name=f"half{n}") for n in range(12)]
    finding = refusal(*layers)
    assert (finding.rule, finding.where) == ("mixed-precision", "half0, half1, half2 and 9 more")


class Broken(keras.Layer):
    def call(self, x, training=None):
        if training is False:
            raise RuntimeError("not in inference")
        return x


def test_layer_that_does_not_compute():
    i = tf.keras.Input((4,))
    model = tf.keras.Model(i, Broken(name="own")(i, training=None))
    with pytest.raises(ConversionError, match=r"RuntimeError: .*not in inference"):
        convert(model)


class Scan(keras.Layer):
    def call(self, x):
        return tf.scan(lambda a, b: a + b, x)


def test_scan_is_a_loop():
    assert refusal(Scan(name="own")).where == "own"
