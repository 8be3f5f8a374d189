"""Conversion: equal to LCE's own, right where LCE's own is wrong, and never silent."""

from collections import Counter

import keras as keras3
import larq as lq
import larq_compute_engine as lce
import numpy as np
import pytest
import tensorflow as tf
from support import images, others_slow, randomize

from larq_rep import layers, zoo
from larq_rep.converters import ConversionError, convert, describe, graph, graph_copy, verify
from larq_rep.converters.findings import audit_flatbuffer
from larq_rep.converters.flatbuffer import Flatbuffer, InvalidFlatbufferError
from larq_rep.converters.lce import interpreter

keras = tf.keras.layers


def binary_conv(filters=32, kernel_size=3, **arguments):
    arguments = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "use_bias": False, **arguments}
    return lq.layers.QuantConv2D(filters, kernel_size, name="binary", **arguments)


def model_of(*steps, size=8, channels=32):
    x = image = tf.keras.Input((size, size, channels), name="image")
    for step in steps:
        x = step(x)
    return tf.keras.Model(image, x)


def outputs(content, x):
    return tf.nest.flatten(interpreter(content).predict(x))


def names(content):
    return Counter(op.name for op in Flatbuffer(content).operators)


# The same file as LCE's own route gives


def two_heads():
    x = image = tf.keras.Input((8, 8, 3), name="image")
    x = keras.Conv2D(32, 3, padding="same")(x)
    x = binary_conv(padding="same")(x)
    pooled = keras.GlobalAveragePooling2D()(x)
    return tf.keras.Model(image, [keras.Dense(3, name="b")(pooled), keras.Dense(5, name="a")(pooled)])


@pytest.mark.parametrize("name", others_slow(["bits", "fresh", "rep_resnet"], 2))
def test_equals_the_route_of_lce(name, request):
    model = zoo.VGGSmall(width=8, input_shape=(16, 16, 3)) if name == "fresh" else request.getfixturevalue(name)
    content, report = convert(model, fold=False)
    theirs = lce.convert_keras_model(model)
    assert names(content) == names(theirs)
    x = images(model, 3)
    for ours, other in zip(outputs(content, x), outputs(theirs, x), strict=True):
        np.testing.assert_array_equal(ours, other)
    assert report.bitpacked == report.binary == names(content)["LceBconv2d"]
    assert report.size == len(content) and not report.findings


def test_outputs_keep_the_order_of_the_model():
    model = two_heads()
    assert [y.shape for y in outputs(convert(model)[0], images(model))] == [(2, 3), (2, 5)]


@pytest.mark.parametrize("nested", [False, True])
def test_nested_models_and_several_inputs(nested):
    a, b = tf.keras.Input((8, 8, 32), name="a"), tf.keras.Input((8, 8, 32), name="b")
    inner = model_of(binary_conv(padding="same"))
    x = inner(a) if nested else binary_conv(padding="same")(a)
    model = tf.keras.Model([a, b], keras.Add()([x, b]))
    content, report = convert(model)
    assert (report.bitpacked, report.binary) == (1, 1)
    x = list(np.random.default_rng(0).standard_normal((2, 1, 8, 8, 32)).astype(np.float32))
    np.testing.assert_allclose(outputs(content, x)[0], model.predict(x, verbose=0), atol=1e-4)


BINARY = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
LAYERS = {
    "several bits": lq.layers.QuantConv2D(8, 3, input_quantizer=lq.quantizers.DoReFa(2), kernel_quantizer="ste_sign"),
    "transposed": lq.layers.QuantConv2DTranspose(8, 3, 2, **BINARY),
    "dense": lq.layers.QuantDense(8, **BINARY),
    "real": keras.Conv2D(8, 3),
}


@pytest.mark.parametrize("name", LAYERS)
def test_large_weights_beside_the_graph(name, monkeypatch):
    """The file is the same as with all of them in the graph, and they are nowhere in it meanwhile."""
    model = randomize(model_of(binary_conv(padding="same"), keras.BatchNormalization(), LAYERS[name]))
    inside = convert(model)[0]
    for module in (graph, graph_copy):
        monkeypatch.setattr(module, "LARGEST_INSIDE", 64)
    assert convert(model)[0] == inside
    assert verify(model, inside, images(model)).ok
    frozen = graph.FrozenGraph(model)
    assert len(frozen.weights) > 2
    assert all(frozen.constant(node).nbytes <= 64 for node in frozen.nodes if node.type == "Const")


# Explicit padding before a strided convolution

PADDINGS = [  # size, kernel, stride, (before, after), wrong in LCE 0.16
    (8, 3, 2, (1, 1), True),
    (8, 5, 2, (2, 2), True),
    (14, 7, 2, (3, 3), True),
    (8, 3, 2, (1, 0), False),
    (8, 3, 2, (0, 1), False),
    (9, 3, 2, (1, 1), False),
    (8, 3, 1, (1, 1), False),
]


def padded_model(kind, size, kernel, stride, pad):
    amounts = [[0, 0], list(pad), list(pad), [0, 0]]
    if kind == "explicit":
        weights = tf.random.stateless_normal((kernel, kernel, 4, 6), (1, 2))
        return model_of(lambda x: tf.nn.conv2d(x, weights, stride, amounts), size=size, channels=4)
    if kind == "depthwise":
        convolution = keras.DepthwiseConv2D(kernel, stride)
    else:
        convolution = keras.Conv2D(6, kernel, stride)
    if kind == "tf.pad":
        return model_of(lambda x: tf.pad(x, amounts), convolution, size=size, channels=4)
    return model_of(keras.ZeroPadding2D((pad, pad)), convolution, size=size, channels=4)


@pytest.mark.parametrize("size, kernel, stride, pad, wrong", PADDINGS)
@pytest.mark.parametrize("kind", ["layer", "tf.pad", "explicit", "depthwise"])
def test_explicit_padding(kind, size, kernel, stride, pad, wrong):
    model = padded_model(kind, size, kernel, stride, pad)
    x = images(model)
    expected = model.predict(x, verbose=0)
    content, report = convert(model)
    np.testing.assert_allclose(outputs(content, x)[0], expected, atol=1e-4)
    assert [finding.rule for finding in report.findings] == ["symmetric-pad"] * wrong
    if wrong:  # without the rewriting the converter's result is another function
        theirs = outputs(lce.convert_keras_model(model), x)[0]
        assert np.abs(theirs - expected).max() > 0.1


@pytest.mark.parametrize("between", [lambda x: x, keras.Dropout(0.5), keras.Activation("linear")])
def test_padding_that_two_layers_read(between):
    x = image = tf.keras.Input((8, 8, 4))
    padded = between(keras.ZeroPadding2D(1)(x))
    model = tf.keras.Model(image, [keras.Conv2D(3, 3, 2)(padded), keras.Conv2D(3, 3, 1)(padded)])
    x = images(model)
    for ours, expected in zip(outputs(convert(model)[0], x), model.predict(x, verbose=0), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_computed_padding_is_refused():
    def pad(x):
        p = tf.shape(x)[1] // 8
        return tf.pad(x, [[0, 0], [p, p], [p, p], [0, 0]])

    model = model_of(lambda x: tf.reshape(pad(x), [-1, 10, 10, 32]), keras.Conv2D(4, 3, 1), keras.Conv2D(4, 3, 2))
    assert convert(model)[1].findings == []
    model = model_of(lambda x: tf.ensure_shape(pad(x), [None, 10, 10, 32]), keras.Conv2D(4, 3, 2, name="strided"))
    try:
        content, _ = convert(model)
    except ConversionError as error:
        assert [f.rule for f in error.findings] == ["symmetric-pad"]
    else:  # TensorFlow may know the amounts all the same
        x = images(model)
        np.testing.assert_allclose(outputs(content, x)[0], model.predict(x, verbose=0), atol=1e-4)


def test_one_padding_after_the_sign_is_refused():
    def pad(x):
        return tf.pad(lq.math.sign(x), [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=1.0)

    model = model_of(pad, binary_conv(strides=2, input_quantizer=None))
    with pytest.raises(ConversionError, match=r"silent-float: binary: .*explicit padding stands between"):
        convert(model)


# No silent float


class Weights(lq.quantizers.Quantizer):
    """A kernel quantizer of a given formula."""

    precision = 1

    def __init__(self, formula, **kwargs):
        super().__init__(**kwargs)
        self.formula = formula

    def call(self, inputs):
        return self.formula(inputs)


def kernel(formula, **arguments):
    return binary_conv(kernel_quantizer=Weights(formula), **arguments)


def with_zero(w):
    return tf.sign(tf.tensor_scatter_nd_update(w, [[0, 0, 0, 0]], [0.0]))


def with_dead_channel(w):
    return lq.math.sign(w) * tf.one_hot(3, w.shape[-1], 0.0, 1.0)


def with_jitter(w):
    return lq.math.sign(w) * (1 + 0.01 * tf.one_hot(2, w.shape[-2])[:, None])


def two_signs(x):
    return tf.concat([lq.math.sign(x), lq.math.sign(x)], axis=-1)


FLOAT = {
    "zero weight": ([kernel(with_zero)], "1 weights are exactly 0"),
    "dead channel": ([kernel(with_dead_channel)], "1 output channels have only zero weights"),
    "tiny scale": ([kernel(lambda w: 1e-8 * lq.math.sign(w))], "smallest scale is 1.0e-08"),
    "scale for each input channel": (
        [kernel(lambda w: lq.math.sign(w) * tf.range(1.0, 33.0)[:, None])],
        "differ in magnitude",
    ),
    "1 % jitter": ([kernel(with_jitter)], "differ in magnitude"),
    "groups of 16": ([binary_conv(groups=2)], "groups have 16 input channels"),
    "unknown sign": (
        [lambda x: 2 * tf.cast(x >= 0, tf.float32) - 1, binary_conv(input_quantizer=None)],
        "in a form LCE does not recognise",
    ),
    "bare tf.sign": ([tf.sign, binary_conv(input_quantizer=None)], "in a form LCE does not recognise"),
    "heaviside": ([binary_conv(input_quantizer="ste_heaviside")], "they are not -1 and +1"),
    "scaled sign": ([binary_conv(input_quantizer=lambda x: 2 * lq.math.sign(x))], "Mul stands between"),
    "concatenation after the sign": ([two_signs, binary_conv(input_quantizer=None)], "ConcatV2 stands between"),
    "max-pool after the sign": (
        [lq.quantizers.SteSign(), keras.MaxPool2D(), binary_conv(input_quantizer=None)],
        "MaxPool stands between",
    ),
    "zero padding after the sign": (
        [lq.quantizers.SteSign(), keras.ZeroPadding2D(1), binary_conv(input_quantizer=None)],
        "explicit padding stands between",
    ),
    "depthwise": (
        [
            lq.layers.QuantDepthwiseConv2D(
                3, input_quantizer="ste_sign", depthwise_quantizer="ste_sign", use_bias=False, name="binary"
            )
        ],
        "binary depthwise convolution stayed float",
    ),
}


@pytest.mark.parametrize("steps, reason", FLOAT.values(), ids=FLOAT)
def test_binary_convolution_that_stays_float(steps, reason):
    model = randomize(model_of(*steps))
    with pytest.raises(ConversionError) as caught:
        convert(model)
    (finding,) = caught.value.findings
    assert finding.rule == "silent-float" and finding.where == "binary" and reason in finding.message
    _, report = convert(model, allow_float=True)
    assert (report.bitpacked, report.binary) == (0, 1)
    assert [(f.rule, f.where, f.error) for f in report.findings] == [("silent-float", "binary", False)]


def test_float_twin_of_a_packed_convolution_is_found():
    """Two layers of equal weights, one of them behind a sign that LCE does not recognise."""
    good, bad = binary_conv(padding="same"), binary_conv(padding="same", input_quantizer=None)
    bad._name = "unpacked"
    model = randomize(model_of(good, lq.quantizers.SteSign(), lambda x: tf.reverse(x, [1]), bad))
    model.get_layer("unpacked").set_weights(model.get_layer("binary").get_weights())
    with pytest.raises(ConversionError, match="silent-float"):
        convert(model)


def test_kernel_that_the_converter_would_not_fold():
    """LCE would compute a tiled kernel of several MB at run time, and the convolution in float."""
    tiled = kernel(lambda w: lq.math.sign(tf.tile(w[..., :64], [1, 1, 1, 4])), filters=256)
    _, report = convert(randomize(model_of(tiled, channels=256)))
    assert (report.bitpacked, report.binary) == (1, 1)


@pytest.mark.parametrize(
    "step",
    [
        binary_conv(input_quantizer=lambda x: tf.where(x >= 0, 1.0, -1.0)),
        binary_conv(input_quantizer=lambda x: tf.where(x < 0, -1.0, 1.0)),
        binary_conv(kernel_quantizer="magnitude_aware_sign", input_quantizer="approx_sign"),
        binary_conv(padding="same", pad_values=1.0, strides=2),
        binary_conv(groups=1, dilation_rate=2),
        layers.RepQuantConv2D(
            32, 3, name="binary", input_quantizer="r_sign", kernel_quantizer="scaled_sign", use_bias=False
        ),
        layers.RepQuantConv2D(
            32, 3, name="binary", input_quantizer="ede_sign", kernel_quantizer="libra_sign", use_bias=False
        ),
    ],
)
def test_binary_convolution_in_other_spellings(step):
    _, report = convert(randomize(model_of(step)))
    assert (report.bitpacked, report.binary, report.findings) == (1, 1, [])


def test_ternary_weights_are_not_meant_to_be_binary():
    ternary = binary_conv(kernel_quantizer=lq.quantizers.SteTern(threshold_value=0.3))
    assert convert(randomize(model_of(ternary)))[1].binary == 0


@pytest.mark.parametrize("c", [2.0, -0.1])
def test_sign_that_is_none(c):
    """The converter takes sign(sign(x) + c) for a sign, whatever c is."""
    model = randomize(model_of(lambda x: tf.sign(tf.sign(x) + c), binary_conv(input_quantizer=None)))
    with pytest.raises(ConversionError, match="misread-sign"):
        convert(model)


@pytest.mark.parametrize(
    "call",
    [
        lq.quantizers.SteTern(),
        lq.quantizers.SteTern(ternary_weight_networks=True),
        lambda x: tf.sign(tf.sign(x) + np.linspace(-2, 2, x.shape[-1], dtype=np.float32)),
    ],
    ids=["SteTern", "SteTern-mean", "channels"],
)
def test_sign_of_a_sum_with_a_sign(call):
    """The converter takes it for that sign, too."""
    model = randomize(model_of(call))
    content, _ = convert(model)
    x = images(model, 1)
    np.testing.assert_array_equal(interpreter(content).predict(x), model.predict(x, verbose=0))


# The other findings


def findings_of(model):
    with pytest.raises(ConversionError) as caught:
        convert(model)
    return {finding.rule for finding in caught.value.findings}


@pytest.mark.parametrize("size, fits", [(2, False), (3, True)])
def test_small_map(size, fits):
    model = randomize(model_of(binary_conv(padding="same"), size=size))
    if not fits:
        assert findings_of(model) == {"small-map"}
        return
    content, _ = convert(model)
    x = images(model)
    np.testing.assert_allclose(outputs(content, x)[0], model.predict(x, verbose=0), atol=1e-4)


def test_small_map_really_is_wrong_in_lce():
    model = randomize(model_of(binary_conv(padding="same"), size=2))
    x = images(model)
    assert np.abs(outputs(lce.convert_keras_model(model), x)[0] - model.predict(x, verbose=0)).max() > 1


def test_constant_of_rank_4_behind_a_binary_convolution():
    """LCE's own route gives a file that does not load, and test_constants.py has what ours gives."""
    shift = tf.random.stateless_normal((1, 1, 1, 32), (1, 2))
    model = randomize(model_of(binary_conv(), lambda x: x + shift))
    content = lce.convert_keras_model(model)
    findings = audit_flatbuffer(Flatbuffer(content), content)
    assert {finding.rule for finding in findings} == {"constant-shape"}
    assert convert(model)[1].findings == []


def test_foreign_operator():
    assert findings_of(model_of(tf.math.erfinv)) == {"foreign-operator"}


def test_dynamic_size():
    image = tf.keras.Input((None, None, 32))
    assert findings_of(tf.keras.Model(image, binary_conv()(image))) == {"dynamic-size"}


def test_model_of_keras_3():
    model = keras3.Sequential([keras3.layers.Input((4,)), keras3.layers.Dense(2)])
    assert findings_of(model) == {"keras-3"}


def test_mixed_precision():
    image = tf.keras.Input((8, 8, 3))
    model = tf.keras.Model(image, keras.Conv2D(4, 3, dtype="mixed_float16", name="half")(image))
    assert findings_of(model) == {"mixed-precision"}


def test_model_without_a_shape():
    assert findings_of(tf.keras.Sequential([keras.Dense(2)])) == {"not-built"}


def test_subclass_of_a_keras_3_model():
    class Model(keras3.Model):
        pass

    assert findings_of(Model()) == {"keras-3"}


def test_control_flow_is_refused():
    image = tf.keras.Input((4, 3))
    assert findings_of(tf.keras.Model(image, keras.LSTM(2)(image))) <= {"converter-failed", "foreign-operator"}


def test_something_else():
    with pytest.raises(TypeError, match=r"Expected a tf.keras.Model, found int"):
        convert(7)
    with pytest.raises(ValueError, match="float_weights should be one of float32, float16, int8, found 'int4'"):
        convert(two_heads(), float_weights="int4")


@pytest.mark.parametrize("content", [b"", b"not a flatbuffer at all", b"\x1c\0\0\0TFL3" + b"\xff" * 64])
def test_damaged_file(content):
    with pytest.raises(InvalidFlatbufferError):
        Flatbuffer(content)


def test_bytes_damaged_anywhere():
    """A damaged file is refused, or it is a file of other content; nothing else happens."""
    content = convert(model_of(binary_conv(filters=4)))[0]
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(content)
        for position in rng.integers(8, len(content), 3):
            damaged[position] = rng.integers(256)
        try:
            describe(bytes(damaged))
        except InvalidFlatbufferError:
            refused += 1
    assert 0 < refused < 150


# Storage of what is not binary


@pytest.mark.parametrize("storage, most", [("float16", 0.6), ("int8", 0.35)])
def test_float_weights(storage, most):
    model = randomize(model_of(binary_conv(), keras.GlobalAveragePooling2D(), keras.Dense(500)))
    content, report = convert(model, float_weights=storage)
    assert report.size == len(content) < most * report.size_float32 + 10_000
    assert report.float_weights == storage and 0 < report.logit_change < 0.02


def test_weights_that_overflow_are_kept_and_named():
    model = randomize(model_of(keras.GlobalAveragePooling2D(), keras.Dense(500, name="large")))
    model.get_layer("large").kernel.assign_add(tf.fill((32, 500), 7e4))
    _, report = convert(model, float_weights="float16")
    (finding,) = report.findings
    assert (finding.rule, finding.where, finding.error) == ("kept-float32", "weights of shape (500, 32)", False)
    assert report.size == pytest.approx(report.size_float32, rel=0.01)


def test_edited_file_keeps_constants_aligned():
    """TFLite's schema asks for constants at multiples of 16 bytes."""
    flatbuffer = Flatbuffer(convert(model_of(binary_conv(), keras.Conv2D(7, 3)))[0])
    content = flatbuffer.pack()
    tensors = range(len(flatbuffer.subgraph.tensors))
    values = [value for t in tensors if (value := flatbuffer.constant(t)) is not None and value.nbytes > 200]
    assert len(values) >= 2
    for value in values:
        assert content.index(value.tobytes()) % 16 == 0
