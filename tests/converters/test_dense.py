"""Dense and one-dimensional layers of signs become bitpacked convolutions, exactly, for all sizes and orders."""

from collections import Counter

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from larq.models import ModelProfile
from support import first_quick, images, others_slow, randomize

from larq_rep import quantizers
from larq_rep.converters import ConversionError, convert, graph, verify
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.converters.lce import interpreter
from larq_rep.converters.tensors import add_constant

keras, quant = tf.keras.layers, lq.layers
DoReFa = lq.quantizers.DoReFa
BOTH = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
BN, Flatten = keras.BatchNormalization, keras.Flatten


def dense(units=24, **arguments):
    return quant.QuantDense(units, **{**BOTH, **arguments})


def conv1d(filters=24, size=3, **arguments):
    return quant.QuantConv1D(filters, size, **{**BOTH, **arguments})


def model_of(*layers, shape=(40,), batch=None):
    x = i = tf.keras.Input(shape, batch)
    for layer in layers:
        x = layer(x)
    return randomize(tf.keras.Model(i, x))


def operators(content):
    return Counter(op.name for op in Flatbuffer(content).operators)


def check(model, layers, x=None):
    """The model converts to so many bitpacked convolutions, and the file computes what the model computes."""
    content, report = convert(model)
    assert report.bitpacked == report.binary == layers == operators(content)["LceBconv2d"]
    assert not [f for f in report.findings if f.rule != "binary-weight-float"]
    x = images(model, model.input_shape[0] or 2) if x is None else x
    found = interpreter(content, use_indirect_bgemm=True).interpreter
    expected = model.predict(x, verbose=0, batch_size=model.input_shape[0] or 1)
    rows = np.split(x, len(x) // (model.input_shape[0] or 1))
    results = np.concatenate([found.predict([row])[0] for row in rows])
    result = verify(model, content, x)
    assert result.ok, result.differences
    # One activation within the rounding of its threshold changes all that follows.
    if not result.flips:
        np.testing.assert_allclose(results, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    assert result.convolutions == layers and not [note for note in result.notes if "not forced" in note]
    return content, report


def expected_bytes(model):
    """What Larq counts, and the rest of a small file."""
    return 1.05 * ModelProfile(model).memory / 8 + 8000


# What is packed


def test_signs_stay_packed_between_dense_layers():
    """Four layers with their batch normalizations are four operators."""
    sizes = (512, 300, 65, 10)
    layers = [layer for units in sizes for layer in (dense(units, use_bias=False), BN(scale=False))]
    model = model_of(*layers, shape=(784,))
    content, report = check(model, 4)
    assert operators(content) == {"RESHAPE": 2, "LceQuantize": 1, "LceBconv2d": 4}
    assert report.size < expected_bytes(model)


@pytest.mark.slow
def test_size_of_binarynet():
    """The network of Larq's tutorial takes 23 MB if its dense layers stay float."""
    options = {**BOTH, "kernel_constraint": "weight_clip", "use_bias": False}
    x = image = tf.keras.Input((32, 32, 3))
    for number, filters in enumerate((128, 128, 256, 256, 512, 512)):
        first = {"input_quantizer": None} if number == 0 else {"padding": "same"}
        x = quant.QuantConv2D(filters, 3, **{**options, **first})(x)
        if number % 2:
            x = keras.MaxPool2D(2)(x)
        x = BN(scale=False)(x)
    x = Flatten()(x)
    for units in (1024, 1024, 10):
        x = BN(scale=False)(dense(units, **options)(x))
    model = randomize(tf.keras.Model(image, keras.Activation("softmax")(x)))
    content, report = check(model, 8)
    assert report.size < expected_bytes(model)
    # The flattened map stays one: the two BinaryNets differ in 9,437,184 weights.
    assert operators(content)["RESHAPE"] == 1


@pytest.mark.parametrize("inputs, units", first_quick([(2, 1), (1, 3), (33, 5), (31, 32), (4096, 4096)], 3))
def test_sizes(inputs, units):
    check(model_of(dense(units), BN(), shape=(inputs,)), 1)
    check(model_of(dense(units, input_quantizer=DoReFa(2)), BN(), shape=(inputs,)), 2)


def random_network(seed):
    """A network of dense and 1-D layers, and the number of its bitpacked convolutions."""
    rng = np.random.default_rng(seed)

    def choose(*values):
        return values[rng.integers(len(values))]

    batch, count = choose(None, None, 1, 3), 0
    shape = choose((37,), (9, 32), (4, 5, 32), (4, 5, 7), (9, 5))
    x = i = tf.keras.Input(shape, batch)
    for _ in range(4):
        name = choose("ste_sign", "r_sign", "ste_sign", "DoReFa", "TernaryInput")
        quantizer = {"DoReFa": lambda: DoReFa(2), "TernaryInput": quantizers.TernaryInput}.get(name, lambda n=name: n)()
        common = {
            "input_quantizer": quantizer,
            "kernel_quantizer": choose("ste_sign", "scaled_sign", "magnitude_aware_sign"),
            "use_bias": bool(rng.integers(2)),
        }
        if x.shape.rank > 2 and rng.random() < 0.4:
            if rng.random() < 0.5:
                x = choose(BN, quantizers.RSign)()(x)
            x = Flatten()(x)
        if x.shape.rank == 3 and x.shape[1] > 4 and rng.random() < 0.7:
            padding = choose("same", "valid", "causal")
            steps = choose({"strides": 2}, {"dilation_rate": 2}, {})
            x = quant.QuantConv1D(choose(5, 32), choose(2, 3), padding=padding, **steps, **common)(x)
        else:
            x = quant.QuantDense(choose(2, 6, 32, 65), **common)(x)
        count += getattr(quantizer, "precision", 1)
        # A model adds rounded levels, so a sum of several bits is 0 only up to rounding, and its sign may be either.
        if rng.random() < 0.7 or getattr(quantizer, "precision", 1) > 1:
            x = BN()(x)
        if rng.random() < 0.3:
            x = choose(keras.ReLU(), keras.PReLU(), keras.Activation("tanh"), keras.Dropout(0.5))(x)
    return randomize(tf.keras.Model(i, choose(x, keras.Softmax()(x))), seed), count


@pytest.mark.parametrize("seed", first_quick([(seed,) for seed in range(60)], 3))
def test_random_network(seed):
    check(*random_network(seed))


@pytest.mark.parametrize("channels", [32, 7])
@pytest.mark.parametrize("sign_first", [True, False])
def test_order_of_flattened_numbers(channels, sign_first):
    """Also where the map is as high as wide, so that a wrong order has the same shapes."""
    layers = [lq.quantizers.SteSign(), Flatten()] if sign_first else [Flatten(), lq.quantizers.SteSign()]
    content, _ = check(model_of(*layers, dense(9, input_quantizer=None), shape=(4, 4, channels)), 1)
    # Channels that fill words stay where they are.
    assert operators(content)["RESHAPE"] == (1 if channels == 32 else 2)
    model = model_of(conv1d(channels), BN(), *layers, dense(9, input_quantizer=None), shape=(9, 32))
    check(model, 2)


@pytest.mark.parametrize("shape", [(7, 32), (3, 4, 32), (2, 3, 4, 5)])
def test_dense_layer_at_each_place(shape):
    content, _ = check(model_of(dense(33), BN(), dense(6), shape=shape), 2)
    assert operators(content)["LceBconv2d"] == 2 and operators(content)["LceQuantize"] == 1


@pytest.mark.parametrize(
    "layers, shape",
    [
        ((keras.Reshape((2, 4, 128)), dense(6, input_quantizer=None)), (4, 8, 32)),
        ((keras.TimeDistributed(Flatten()), dense(6, input_quantizer=None)), (3, 4, 4, 32)),
    ],
    ids=["other places", "parts"],
)
def test_reshape_behind_the_sign_into_the_map(layers, shape):
    """The reshape gives the very shape of the convolution's map, and would stand behind the sign."""
    check(model_of(lq.quantizers.SteSign(), *layers, shape=shape), 1)


@pytest.mark.parametrize("batch", [1, 3])
def test_batch(batch):
    check(model_of(dense(33), BN(), dense(6), batch=batch), 2)
    check(model_of(Flatten(), dense(33), BN(), dense(6), shape=(2, 3, 32), batch=batch), 2)


@pytest.mark.parametrize("options", [{"strides": 1}, {"strides": 2}, {"dilation_rate": 3}], ids=str)
@pytest.mark.parametrize("steps", others_slow([12, 13], 1))
@pytest.mark.parametrize(
    "padding",
    [{"padding": "valid"}, {"padding": "same"}, {"padding": "same", "pad_values": 1.0}, {"padding": "causal"}],
)
def test_sequence(steps, padding, options):
    check(model_of(conv1d(33, **padding, **options), BN(), conv1d(8, 1), shape=(steps, 40)), 2)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_causal_convolution_of_a_short_sequence(size):
    """Every window reaches over the border."""
    check(model_of(conv1d(8, size, padding="causal"), BN(), shape=(size - 1, 32)), 1)


@pytest.mark.parametrize("amounts", [(0, 2), (3, 1)])
@pytest.mark.parametrize("options", [{}, {"strides": 2}, {"dilation_rate": 2}], ids=str)
def test_explicit_zeros_around_a_sequence(amounts, options):
    layers = lq.quantizers.SteSign(), keras.ZeroPadding1D(amounts), conv1d(8, 3, input_quantizer=None, **options)
    check(model_of(*layers, BN(), shape=(8, 32)), 1)


@pytest.mark.parametrize("options", [{}, {"strides": 2}, {"use_bias": False}], ids=str)
def test_causal_convolution_takes_up_its_batch_normalization(options):
    content, _ = check(model_of(conv1d(8, 3, padding="causal", **options), BN(), keras.ReLU(), shape=(9, 32)), 1)
    assert not {"MUL", "ADD"} & operators(content).keys()


@pytest.mark.parametrize("padding", ["valid", "same", "causal"])
def test_sequence_of_several_bits(padding):
    content, _ = check(model_of(conv1d(input_quantizer=DoReFa(2), padding=padding), BN(), shape=(9, 32)), 2)
    assert operators(content)["CONCATENATION"] == 0


@pytest.mark.parametrize("first", [quantizers.RSign, lq.quantizers.SteSign])
@pytest.mark.parametrize("layer", [dense(8), quant.QuantConv1D(8, 2, **BOTH)], ids=["dense", "1-D"])
def test_sign_of_a_sign(first, layer):
    """The layer has an input quantizer, too."""
    model = model_of(first(), layer, shape=(9, 32))
    x = images(model)
    x[:, ::2] = 0
    check(model, 1, x)


def test_one_sign_at_each_place_and_flattened():
    i = tf.keras.Input((8, 32))
    x = lq.quantizers.SteSign()(i)
    layers = [conv1d(8, input_quantizer=None)], [Flatten(), dense(5, input_quantizer=None)]
    outputs = [keras.Dense(2)(Flatten()(tf.keras.Sequential(branch)(x))) for branch in layers]
    model = tf.keras.Model(i, [*outputs, dense(6, input_quantizer=None)(x)])
    content, report = convert(model)
    assert report.bitpacked == 3 and operators(content)["LceQuantize"] == 1
    result = verify(model, content, images(model))
    assert result.ok, result.differences


def test_shared_sign_and_shortcut():
    x = i = tf.keras.Input((32,))
    for _ in range(3):
        signs = lq.quantizers.SteSign()(x)
        branches = [BN()(dense(32, input_quantizer=None)(signs)) for _ in range(2)]
        x = keras.Add()([x, *branches])
    model = randomize(tf.keras.Model(i, [x, keras.Dense(3)(x)]))
    content, report = convert(model)
    assert report.binary == report.bitpacked == 6 and operators(content)["LceQuantize"] == 3
    assert verify(model, content, images(model)).ok


@pytest.mark.parametrize("threshold", [0.0, np.linspace(-1, 1, 40).astype("f")], ids=["number", "channels"])
def test_products_in_operators_of_tensorflow(threshold):
    weights = np.random.default_rng(0).choice([-0.5, 0.5], (12, 40)).astype("f")

    def product(x):
        return tf.matmul(tf.where(x >= threshold, 1.0, -1.0), weights, transpose_b=True)

    check(model_of(keras.Lambda(product), BN()), 1)


PRODUCTS = {
    "matmul": (tf.matmul, (9, 32), (32, 24)),
    "batch of one matrix": (tf.matmul, (3, 4, 33), (1, 1, 33, 24)),
    "transposed": (lambda x, w: tf.matmul(x, w, transpose_b=True), (9, 32), (24, 32)),
    "einsum": (lambda x, w: tf.einsum("bij,jk->bik", x, w), (9, 32), (32, 24)),
    "any places": (lambda x, w: tf.einsum("...i,ij->...j", x, w), (3, 4, 32), (32, 24)),
    "other order": (lambda x, w: tf.einsum("kj,bij->bik", w, x), (9, 32), (24, 32)),
    "heads": (lambda x, w: tf.einsum("abc,cde->abde", x, w), (9, 32), (32, 4, 6)),
    "heads together": (lambda x, w: tf.einsum("abde,dec->abc", x, w), (9, 4, 6), (4, 6, 24)),
    "heads the other way round": (lambda x, w: tf.einsum("abde,edc->abc", x, w), (9, 4, 6), (6, 4, 24)),
    "whole map": (lambda x, w: tf.einsum("bhwc,hwck->bk", x, w), (3, 4, 32), (3, 4, 32, 24)),
    "tensordot": (lambda x, w: tf.tensordot(x, w, 1), (9, 32), (32, 24)),
}


@pytest.mark.parametrize("product, shape, of_weights", PRODUCTS.values(), ids=PRODUCTS)
def test_products_with_one_matrix(product, shape, of_weights):
    """The order of the numbers is checked by the model itself: `check` compares with its predictions."""
    weights = np.random.default_rng(0).choice([-0.5, 0.5], of_weights).astype("f")
    layer = keras.Lambda(lambda x: product(lq.math.sign(x), weights))
    content, _ = check(model_of(layer, BN(), shape=shape), 1)
    assert not {"BATCH_MATMUL", "FULLY_CONNECTED"} & operators(content).keys()


class BinaryEinsumDense(keras.EinsumDense):
    def call(self, x):
        return tf.einsum(self.equation, lq.math.sign(x), lq.math.sign(self.kernel)) + self.bias


def test_einsum_dense_layers_keep_signs_packed():
    layers = (BinaryEinsumDense("abc,cd->abd", (None, units), bias_axes="d") for units in (64, 33))
    content, _ = check(model_of(*layers, shape=(9, 32)), 2)
    assert operators(content) == {"RESHAPE": 2, "LceQuantize": 1, "LceBconv2d": 2}


@pytest.mark.parametrize("shape, batch", [((1,), None), ((40,), None), ((40,), 3), ((5, 40), None)])
@pytest.mark.parametrize("where", [tf.where, tf.compat.v1.where], ids=["where", "v1.where"])
def test_sign_of_ones_in_the_shape_of_its_map(where, shape, batch):
    sign = keras.Lambda(lambda x: where(x >= 0, tf.ones_like(x), -tf.ones_like(x)))
    check(model_of(sign, dense(9, input_quantizer=None), shape=shape, batch=batch), 1)
    check(model_of(sign, Flatten(), dense(9, input_quantizer=None), shape=shape, batch=batch), 1)


def test_sums_of_zero():
    """Numbers whose sums are exact: a sum of 0 gives +1 in both."""
    rng = np.random.default_rng(0)
    model = model_of(dense(64), dense(48), dense(16), shape=(32,))
    for layer in model.layers[1:]:
        kernel, bias = layer.get_weights()
        layer.set_weights([kernel, rng.choice([0, 2, -2], bias.shape)])
    x = rng.integers(-1, 2, (4, 32)).astype("f")
    sums = tf.keras.Model(model.input, [layer.output for layer in model.layers[1:]])(x)
    assert min(np.sum(y == 0) for y in sums) > 2
    content, _ = check(model, 3, x)
    np.testing.assert_array_equal(interpreter(content).predict(x), model.predict(x, verbose=0))


def test_planes_of_equal_bits():
    """On the first image both planes of the second layer have the same bits, on the second they have not."""
    layers = keras.ReLU(), Flatten(), dense(32, input_quantizer=DoReFa(2)), BN(), dense(5, input_quantizer=DoReFa(2))
    check(randomize(model_of(*layers, shape=(4, 4, 32)), 5), 4)


# What is wrong fails


def test_wrong_multiplier():
    """Any value of the right sign in front of a sign is the right one times a factor, but not with one for all."""
    i = tf.keras.Input((32,))
    x = keras.Add()([BN()(dense(32, name="own")(i)), i])
    model = randomize(tf.keras.Model(i, dense(4)(x)))
    flatbuffer = Flatbuffer(convert(model)[0])
    op = next(op for op in flatbuffer.operators if op.name == "LceBconv2d")
    multiplier = flatbuffer.constant(op.inputs[2])
    assert verify(model, flatbuffer.pack(), images(model, 3)).ok
    flatbuffer.set_constant(op.inputs[2], multiplier * np.float32(1.01))
    result = verify(model, flatbuffer.pack(), images(model, 3))
    (difference,) = result.differences
    assert (difference.stage, difference.image, result.flips) == ("sign", 1, 0) and "by own" in difference.message


def test_flipped_weight():
    model = model_of(Flatten(), dense(9, name="own"), shape=(4, 4, 32))
    flatbuffer = Flatbuffer(convert(model)[0])
    (op,) = (op for op in flatbuffer.operators if op.name == "LceBconv2d")
    words = flatbuffer.constant(op.inputs[1]).copy()
    words[2, 1, 3, 0] ^= 1 << 7
    flatbuffer.set_constant(op.inputs[1], words)
    (difference,) = [d for d in verify(model, flatbuffer.pack(), images(model)).differences if d.stage == "weights"]
    assert difference.layer == "own" and "row 1, column 3, input channel 7, output channel 2" in difference.message


def test_wrong_order_in_the_file():
    model = model_of(Flatten(), dense(9, name="own"), shape=(4, 4, 32))
    flatbuffer = Flatbuffer(convert(model)[0])
    (op,) = (op for op in flatbuffer.operators if op.name == "LceBconv2d")
    flatbuffer.set_constant(op.inputs[1], flatbuffer.constant(op.inputs[1]).transpose(0, 2, 1, 3))
    assert {d.stage for d in verify(model, flatbuffer.pack(), images(model)).differences} >= {"weights"}


@pytest.mark.parametrize(
    "layers, shape",
    [((Flatten(), dense(9, name="own")), (4, 4, 32)), ((conv1d(9, 3, padding="causal", name="own"),), (8, 32))],
)
def test_wrong_order_of_the_conversion(monkeypatch, layers, shape):
    """Model and file agree if both are made of the same wrong convolution, so this is compared with the layer."""
    convolve = graph.convolve

    def wrong(*args):
        result = convolve(*args)
        (node,) = (node for node in result.definition.node if node.name.endswith("/convolution"))
        add_constant(result.definition, "axes", np.array([0, 1], np.int32))
        reverse = result.definition.node.add(name="reversed", op="ReverseV2", input=[node.input[1], "axes"])
        reverse.attr["T"].type, reverse.attr["Tidx"].type = (t.as_datatype_enum for t in (tf.float32, tf.int32))
        node.input[1] = "reversed"
        return result

    model = model_of(*layers, shape=shape)
    monkeypatch.setattr(graph, "convolve", wrong)
    (difference,) = verify(model, convert(model)[0], images(model)).differences
    assert (difference.stage, difference.layer) == ("levels", "own") and "as a convolution" in difference.message


# What stays float says why


def zeros(w):
    return tf.sign(tf.where(tf.abs(w) < 0.004, 0.0, w))


def conv2d_of_height_1(x):
    kernel = np.random.default_rng(0).choice([-1.0, 1.0], (1, 3, 32, 7)).astype("f")
    return tf.nn.conv2d(tf.expand_dims(x, 1), kernel, 1, [[0, 0], [0, 0], [1, 1], [0, 0]])


def product_of_places(x):
    kernel = np.random.default_rng(0).choice([-1.0, 1.0], (4, 7)).astype("f")
    return tf.matmul(tf.reshape(x, (4, 10)), kernel, transpose_a=True)


STAYS = {
    "one input": ((dense(kernel_quantizer="magnitude_aware_sign", name="own"),), (1,), "it has one input"),
    "zeros": ((dense(kernel_quantizer=zeros, name="own"),), (40,), "weights are exactly 0"),
    "spelling": ((dense(input_quantizer=tf.sign, name="own"),), (40,), "a form LCE does not recognise"),
    "transposed": (
        (lq.quantizers.SteSign(), keras.Permute((2, 1)), Flatten(), dense(input_quantizer=None, name="own")),
        (8, 5),
        "Transpose stands between the sign and the dense layer",
    ),
    "read transposed": (
        (keras.Lambda(lambda x: product_of_places(lq.quantizers.SteSign()(x)), name="own"),),
        (40,),
        "transpose it in front of the sign",
    ),
    "explicit zeros on both sides": (
        (keras.Lambda(lambda x: conv2d_of_height_1(lq.quantizers.SteSign()(x)), name="own"),),
        (9, 32),
        "ExpandDims stands between the sign and the convolution",
    ),
    "0 and 1": ((dense(input_quantizer="ste_heaviside", name="own"),), (40,), "zero_one_sign"),
    "3-D": ((quant.QuantConv3D(8, 2, name="own", **BOTH),), (4, 4, 4, 8), "write it as QuantConv2D"),
}


@pytest.mark.parametrize("layers, shape, words", STAYS.values(), ids=STAYS)
def test_what_stays_float(layers, shape, words):
    model = model_of(*layers, shape=shape)
    with pytest.raises(ConversionError) as caught:
        convert(model)
    (finding,) = caught.value.findings
    assert (finding.rule, finding.where) == ("silent-float", "own") and words in finding.message
    content, report = convert(model, allow_float=True)
    assert (report.binary, report.bitpacked) == (1, 0)
    assert verify(model, content, images(model)).ok


def test_real_layers_of_signs_are_no_convolutions():
    model = model_of(dense(kernel_quantizer=None), BN(), lq.quantizers.SteSign(), keras.Dense(5))
    content, report = convert(model)
    assert (report.binary, report.findings) == (0, []) and operators(content)["FULLY_CONNECTED"] == 2
    assert verify(model, content, images(model)).ok
