"""Transposed convolutions of signs become bitpacked convolutions, one for each phase, exactly, borders included."""

import dataclasses
from collections import Counter

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from support import first_quick, images, randomize

from larq_rep.converters import ConversionError, convert, graph, transposed, verify
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.converters.lce import interpreter
from larq_rep.quantizers import ResidualSigns, ScaledBinary, TernaryInput

keras, quant = tf.keras.layers, lq.layers
BOTH = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
BN, DoReFa = keras.BatchNormalization, lq.quantizers.DoReFa


def up(filters=6, size=3, strides=2, name="own", **arguments):
    """A layer with two phases along each axis."""
    return quant.QuantConv2DTranspose(filters, size, strides, name=name, **{**BOTH, **arguments})


def model_of(*layers, shape):
    x = i = tf.keras.Input(shape)
    for layer in layers:
        x = layer(x)
    return randomize(tf.keras.Model(i, x))


def operators(content):
    return Counter(op.name for op in Flatbuffer(content).operators)


def by_definition(x, kernel, strides, same, shape):
    """A transposed convolution as it is defined: each number of the map adds its multiple of the kernel."""
    rows, columns = x.shape[1:3]
    (height, width), (down, right) = kernel.shape[:2], strides
    whole = np.zeros(
        (len(x), (rows - 1) * down + height + shape[1], (columns - 1) * right + width + shape[2], shape[3])
    )
    for i in range(rows):
        for j in range(columns):
            part = np.einsum("ni,hwoi->nhwo", x[:, i, j], kernel)
            whole[:, i * down : i * down + height, j * right : j * right + width] += part
    cut = [
        max((n - 1) * s + k - size, 0) // 2 if same else 0
        for n, s, k, size in zip((rows, columns), strides, kernel.shape, shape[1:3], strict=False)
    ]
    return whole[:, cut[0] :, cut[1] :][:, : shape[1], : shape[2]]


def random_layer(seed):
    rng = np.random.default_rng(seed)

    def choose(*values):
        return values[rng.integers(len(values))]

    strides = choose((1, 1), (2, 2), (2, 2), (2, 1), (3, 3), (1, 3))
    size = tuple(int(n) for n in rng.integers(1, 6, 2))
    padding, extra = choose("same", "valid"), None
    if rng.random() < 0.3 and (padding == "valid" or all(k % 2 for k in size)):
        extra = tuple(int(rng.integers(s)) for s in strides)
    shape = tuple(int(n) for n in rng.integers(1, 7, 2)), choose(1, 3, 32, 40)
    return quant.QuantConv2DTranspose(
        choose(1, 5, 33), size, strides, padding, output_padding=extra, use_bias=False, name="own", **BOTH
    ), (*shape[0], shape[1])


@pytest.mark.parametrize("seed", first_quick([(seed,) for seed in range(200)], 12))
def test_random_layer(seed):
    layer, shape = random_layer(seed)
    model = model_of(layer, shape=shape)
    x = np.random.default_rng(seed).integers(-2, 3, (2, *shape)).astype("f")
    expected = model.predict(x, verbose=0)
    kernel = np.where(layer.get_weights()[0] < 0, -1, 1)
    same = layer.padding == "same"
    np.testing.assert_array_equal(
        expected, by_definition(np.where(x < 0, -1, 1), kernel, layer.strides, same, expected.shape)
    )
    content, report = convert(model)
    # Phases of few weights may have the same ones, and share an operator.
    assert report.bitpacked == report.binary >= operators(content)["LceBconv2d"] > 0
    assert not report.findings and "TRANSPOSE_CONV" not in operators(content)
    for indirect in (False, True):
        found = interpreter(content, use_indirect_bgemm=indirect)
        np.testing.assert_array_equal(found.predict(x), expected)
    result = verify(model, content, x)
    assert result.ok and not result.flips, result.differences
    assert result.engines.keys() == {"lce", "delegate"}


def check(model, convolutions, x=None):
    """The model converts to so many bitpacked convolutions, and both engines compute what the model computes."""
    content, report = convert(model)
    assert report.bitpacked == report.binary == operators(content)["LceBconv2d"] == convolutions
    assert not report.findings
    x = images(model) if x is None else x
    result = verify(model, content, x)
    assert result.ok, result.differences
    if not result.flips:
        found, expected = interpreter(content).predict(x), model.predict(x, verbose=0)
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    return content, report


@pytest.mark.parametrize("size, padding", [(2, "valid"), (3, "same"), (4, "same"), (5, "valid")])
def test_bias_and_batch_normalization_are_taken_up(size, padding):
    """Nothing but corrections of borders is left, before an activation and after it."""
    model = model_of(up(32, size, padding=padding), BN(), keras.ReLU(), up(5, name="second"), BN(), shape=(4, 3, 32))
    content, _ = check(model, 8)
    assert not {"MUL", "ADD", "TRANSPOSE_CONV"} & operators(content).keys()


@pytest.mark.parametrize("size, strides, convolutions", [(1, 2, 1), (2, 3, 4), ((1, 3), 2, 2)])
def test_kernel_smaller_than_its_stride(size, strides, convolutions):
    """Phases without taps are 0 before the batch normalization, which stays behind."""
    content, _ = check(model_of(up(5, size, strides), BN(), shape=(3, 4, 32)), convolutions)
    assert {"MUL", "ADD"} <= operators(content).keys()


@pytest.mark.parametrize("quantizer", [DoReFa(2), TernaryInput()], ids=["DoReFa", "ternary"])
@pytest.mark.parametrize("size, padding", [(3, "same"), (4, "same"), (3, "valid")])
def test_several_bits(size, padding, quantizer):
    check(model_of(up(7, size, padding=padding, input_quantizer=quantizer), BN(), shape=(4, 5, 32)), 8)


def of_filters(w):
    """A scale for each output channel, which is not the last axis."""
    return tf.reduce_mean(tf.abs(w), (0, 1, 3), keepdims=True) * lq.math.sign(w)


@pytest.mark.parametrize("quantizer", [of_filters, ScaledBinary(per="layer")], ids=["filter", "layer"])
def test_scales(quantizer):
    check(model_of(up(7, padding="same", kernel_quantizer=quantizer), BN(), shape=(4, 5, 33)), 4)


@pytest.mark.parametrize(
    "shape, padding",
    [((7, 9, 5), "SAME"), ((8, 10, 5), "SAME"), ((9, 11, 5), "VALID"), ((10, 12, 5), "VALID")],
)
def test_operator_of_tensorflow(shape, padding):
    """Of a map of 4 times 5 places, all shapes that it may have."""
    kernel = np.random.default_rng(0).choice([-1.0, 1.0], (3, 3, 5, 32)).astype("f")

    def transpose(x):
        return tf.nn.conv2d_transpose(lq.quantizers.SteSign()(x), kernel, (tf.shape(x)[0], *shape), 2, padding)

    check(model_of(keras.Lambda(transpose), BN(), shape=(4, 5, 32)), 4)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_sequence(padding):
    kernel = np.random.default_rng(0).choice([-1.0, 1.0], (4, 5, 32)).astype("f")
    length = 12 if padding == "SAME" else 14

    def transpose(x):
        return tf.nn.conv1d_transpose(lq.quantizers.SteSign()(x), kernel, (tf.shape(x)[0], length, 5), 2, padding)

    check(model_of(keras.Lambda(transpose), BN(), shape=(6, 32)), 2)


def test_signs_between_layers():
    """A decoder, with a shortcut of the map that the first layer reads."""
    i = tf.keras.Input((4, 4, 32))
    x = up(32, 4, padding="same")(i)
    x = keras.Add()([BN()(x), keras.UpSampling2D()(i)])
    x = quant.QuantConv2D(32, 3, padding="same", pad_values=1.0, **BOTH)(x)
    x = quant.QuantConv2DTranspose(3, 2, 2, **BOTH)(BN()(x))
    check(randomize(tf.keras.Model(i, x)), 9)


def test_batch_and_shared_layer():
    i, layer = tf.keras.Input((4, 5, 32), 3), up(32, padding="same")
    model = randomize(tf.keras.Model(i, BN()(layer(layer(i)))))
    content, report = convert(model)
    assert report.bitpacked == 8
    result = verify(model, content, images(model, 3))
    assert result.ok and result.images == 1, result.differences


# What is wrong fails


def wrong(monkeypatch, change, size=3, padding="same"):
    """The difference that is found if the conversion is wrong, so that model and file agree."""
    split = graph.split

    def changed(*args):
        result = split(*args)
        change({node.name.rpartition("own/")[2]: node for node in result.definition.node})
        return result

    monkeypatch.setattr(graph, "split", changed)
    model = model_of(up(size=size, padding=padding), BN(), shape=(5, 4, 32))
    (difference,) = verify(model, convert(model)[0], images(model)).differences
    assert (difference.stage, difference.layer) == ("levels", "own")
    return difference.message


def swap(node):
    node.input[0], node.input[1] = node.input[1], node.input[0]


def without(node):
    """Half of an excess."""
    value = tf.make_ndarray(node.attr["value"].tensor) / 2
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))


FAULTS = {
    "phases of a row": (lambda nodes: swap(nodes["conv2d_transpose/row_1"]), 2),
    "phases of a column": (lambda nodes: swap(nodes["conv2d_transpose/rows"]), 2),
    "border": (lambda nodes: without(nodes["conv2d_transpose/phase_0_1/rows_0_columns_0/excess"]), 3),
    "corner": (lambda nodes: without(nodes["conv2d_transpose/phase_0_0/rows_0_columns_0/excess"]), 3),
}


@pytest.mark.parametrize("change, size", FAULTS.values(), ids=FAULTS)
def test_wrong_conversion(monkeypatch, change, size):
    assert "as a convolution" in wrong(monkeypatch, change, size)


@pytest.mark.parametrize("axis", [0, 1])
def test_tap_left_out(monkeypatch, axis):
    phases = transposed._phases

    def fewer(size, *arguments):
        found = phases(size, *arguments)
        if size == (5, 4)[axis]:
            (_, windows), *others = found
            found = [(slice(0, 1), dataclasses.replace(windows, taps=1, first=windows.first + 1)), *others]
        return found

    monkeypatch.setattr(transposed, "_phases", fewer)
    model = model_of(up(size=4, padding="valid"), BN(), shape=(5, 4, 32))
    (difference,) = verify(model, convert(model)[0], images(model)).differences
    assert (difference.stage, difference.layer) == ("levels", "own")


def test_wrong_border_in_the_file():
    model = model_of(up(padding="same"), BN(), shape=(5, 4, 32))
    flatbuffer = Flatbuffer(convert(model)[0])
    op = next(op for op in flatbuffer.operators if op.name == "SUB")
    flatbuffer.set_constant(op.inputs[1], -flatbuffer.constant(op.inputs[1]))
    (difference,) = verify(model, flatbuffer.pack(), images(model, 1)).differences
    assert difference.stage == "output"


def test_flipped_weight():
    model = model_of(up(padding="same"), BN(), shape=(5, 4, 32))
    flatbuffer = Flatbuffer(convert(model)[0])
    op = next(op for op in flatbuffer.operators if op.name == "LceBconv2d")
    words = flatbuffer.constant(op.inputs[1]).copy()
    words[2, 1, 0, 0] ^= 1 << 7
    flatbuffer.set_constant(op.inputs[1], words)
    differences = verify(model, flatbuffer.pack(), images(model, 1)).differences
    assert {(d.stage, d.layer) for d in differences} >= {("weights", "own")}


# What stays float says why


def zeros(w):
    return tf.sign(tf.where(tf.abs(w) < 0.004, 0.0, w))


STAYS = {
    "dilated": (up(strides=1, dilation_rate=2), "dilat"),
    "channels first": (up(data_format="channels_first"), "channels_last"),
    "scale of input channels": (up(kernel_quantizer="magnitude_aware_sign"), "a scale for each input channel"),
    "zeros": (up(kernel_quantizer=zeros), "weights are exactly 0"),
    "levels without a border of 0": (up(input_quantizer=ResidualSigns(2)), "a kernel of the size of its strides"),
    "spelling": (up(input_quantizer=tf.sign), "a form LCE does not recognise"),
}


@pytest.mark.parametrize("layer, words", STAYS.values(), ids=STAYS)
def test_what_stays_float(layer, words):
    model = model_of(layer, shape=(32, 32, 32))
    with pytest.raises(ConversionError) as caught:
        convert(model)
    (finding,) = caught.value.findings
    assert (finding.rule, finding.where) == ("silent-float", "own") and words in finding.message
