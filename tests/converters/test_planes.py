"""Convolutions of quantized maps become bitpacked ones, exactly: in ties, at borders, for every kind of quantizer."""

import json
from collections import Counter

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from commands import run
from flatbuffers import flexbuffers
from support import first_quick, images, others_slow, randomize

from larq_rep import quantizers
from larq_rep.converters import ConversionError, convert, verify
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.converters.graph import FrozenGraph
from larq_rep.converters.lce import interpreter
from larq_rep.converters.marks import mark_of

keras, quant = tf.keras.layers, lq.layers
DoReFa = lq.quantizers.DoReFa


class Shifted(lq.quantizers.Quantizer):
    """Signs of the input plus a number for each channel, times numbers that do not add up to 0."""

    def __init__(self, count=3, **kwargs):
        super().__init__(**kwargs)
        self.precision = count

    def planes(self, x):
        shifts = np.linspace(-1, 1, x.shape[-1], dtype=np.float32)
        return 0.0, [(0.5 + i, lq.math.sign(x + i * shifts)) for i in range(self.precision)]

    def call(self, x):
        _, planes = Shifted.planes(self, x)
        return tf.add_n([c * n for c, n in planes or [(1.0, x)]])


class Lifted(Shifted):
    """The same, but 0 is no level and cannot be padded."""

    def planes(self, x):
        return 0.25, super().planes(x)[1]

    def call(self, x):
        return super().call(x) + 0.25


class Bases(lq.quantizers.Quantizer):
    """A kernel of several binary ones, with numbers of both signs for the filters."""

    def __init__(self, count=2, **kwargs):
        super().__init__(**kwargs)
        self.precision = count

    def bases(self, w):
        scales = np.linspace(-0.7, 0.9, w.shape[-1], dtype=np.float32)
        return [(scales + i, lq.math.sign(w + i * 0.1)) for i in range(self.precision)]

    def call(self, w):
        return tf.add_n([a * b for a, b in self.bases(w)])


QUANTIZERS = {
    **{f"DoReFa({k})": (lambda k=k: DoReFa(k)) for k in (1, 2, 3, 4)},
    "Uniform": quantizers.Uniform,
    "Thermometer": quantizers.Thermometer,
    "LearnedLevels": quantizers.LearnedLevels,
    "SteTern": lambda: lq.quantizers.SteTern(threshold_value=0.3),
    "TernaryInput": quantizers.TernaryInput,
    "ZeroOneSign": quantizers.ZeroOneSign,
    "ResidualSigns": quantizers.ResidualSigns,
    "Shifted(1)": lambda: Shifted(1),
    "Shifted(3)": lambda: Shifted(3),
}
KERNELS = {
    "ste_sign": lambda: "ste_sign",
    "scaled_sign": lambda: "scaled_sign",
    **{f"Bases({m})": (lambda m=m: Bases(m)) for m in (1, 2, 3)},
}


def convolution(filters=8, size=3, **arguments):
    defaults = {"input_quantizer": DoReFa(2), "kernel_quantizer": "scaled_sign", "use_bias": False, "name": "own"}
    return quant.QuantConv2D(filters, size, **{**defaults, **arguments})


def model_of(*layers, shape=(8, 8, 32)):
    x = i = tf.keras.Input(shape)
    for layer in layers:
        x = layer(x)
    return randomize(tf.keras.Model(i, x))


def operators(content):
    return Counter(op.name for op in Flatbuffer(content).operators)


def check(model, convolutions, x=None):
    """The model converts to so many bitpacked convolutions, and the file computes what the model computes."""
    content, report = convert(model)
    assert report.bitpacked == report.binary == convolutions == operators(content)["LceBconv2d"]
    x = images(model) if x is None else x
    found, expected = interpreter(content, use_indirect_bgemm=True).predict(x), model.predict(x, verbose=0)
    for a, b in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * np.abs(b).max())
    result = verify(model, content, x)
    assert result.ok, result.differences
    assert result.convolutions == convolutions and not [note for note in result.notes if "not forced" in note]
    return content, report, result


# What is right


def random_network(seed):
    """A network, and the number of its binary convolutions."""
    rng = np.random.default_rng(seed)
    x = image = tf.keras.Input((*rng.integers(9, 15, 2), 3))
    x = keras.Conv2D(int(rng.choice([5, 32, 40, 64])), 3, padding="same")(x)
    count = 0
    for _ in range(3):
        name, kernel = rng.choice([*QUANTIZERS]), rng.choice([*KERNELS])
        quantizer, shared = QUANTIZERS[name](), rng.random() < 0.3
        size, channels = int(rng.choice([1, 2, 3, 5])), x.shape[-1]
        strides, dilation = ((2, 1), (1, 2), (1, 1))[rng.choice(3)]
        padding = rng.choice(["same", "valid", "explicit"])
        if min(x.shape[1:3]) < (size - 1) * dilation + 1:
            size = 1
        if padding == "explicit" and name.startswith(("Shifted", "ResidualSigns")):
            padding = "same"
        x = quantizer(x)
        if padding == "explicit":
            x = keras.ZeroPadding2D(tuple(tuple(int(a) for a in rng.integers(0, 3, 2)) for _ in range(2)))(x)
        filters = int(rng.choice([7, 32, 64]))
        branches = [
            quant.QuantConv2D(
                filters,
                size,
                strides=strides,
                dilation_rate=dilation,
                padding="same" if padding == "same" else "valid",
                groups=2 if channels == 64 and filters % 2 == 0 and rng.random() < 0.5 else 1,
                kernel_quantizer=KERNELS[kernel](),
                use_bias=bool(rng.integers(2)),
            )(x)
            for _ in range(1 + shared)
        ]
        branches = [keras.BatchNormalization()(y) for y in branches]
        x = keras.Add()(branches) if shared else branches[0]
        count += len(branches) * quantizer.precision * getattr(KERNELS[kernel](), "precision", 1)
    return randomize(tf.keras.Model(image, x), seed), count


@pytest.mark.parametrize("seed", first_quick([(seed,) for seed in range(40)], 2))
def test_random_network(seed):
    check(*random_network(seed))


def ties(quantize):
    """The numbers where a function of each number changes its value: the last before and the first behind."""
    grid = np.linspace(-3, 3, 6001, dtype=np.float32)
    values = quantize(grid)
    at = np.flatnonzero(values[1:] != values[:-1])
    low, high = grid[at], grid[at + 1]
    while np.any(np.nextafter(low, high) < high):
        middle = low + (high - low) / 2
        middle = np.where(middle == high, low, middle)
        middle = np.where((middle == low) & (np.nextafter(low, high) < high), np.nextafter(low, high), middle)
        below = quantize(middle) == values[at]
        low, high = np.where(below, middle, low), np.where(below, high, np.maximum(middle, np.nextafter(low, high)))
    return np.concatenate([low, high])


@pytest.mark.parametrize("name", QUANTIZERS)
def test_ties(name):
    quantizer = QUANTIZERS[name]()
    channels = 32
    found = ties(lambda x: quantizer(np.repeat(x[:, np.newaxis], channels, 1))[:, 0].numpy())
    assert len(found) >= 2
    candidates = np.concatenate([found, np.nextafter(found, -9), np.nextafter(found, 9), [-0.0, 0.5, 1, 9, -9]])
    # Engines flush the smallest numbers to 0.
    candidates = np.where(np.abs(candidates) < 1e-30, np.sign(candidates) * 1e-30, candidates)
    model = model_of(convolution(input_quantizer=quantizer, padding="same"), shape=(9, 9, channels))
    x = np.random.default_rng(0).choice(candidates.astype(np.float32), (2, 9, 9, channels))
    check(model, quantizer.precision, x)


@pytest.mark.parametrize("bits", [2, 4])
def test_planes_that_differ_in_ties_only_are_told_apart(bits):
    """Half of the highest number is a tie of the highest plane; elsewhere all planes are the same here."""
    x = np.random.default_rng(0).integers(-2, 4, (2, 8, 8, 32)).astype(np.float32) / 2
    check(model_of(convolution(input_quantizer=DoReFa(bits))), bits, x)


@pytest.mark.parametrize("size", others_slow([8, 9], 1))
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("padding", [1, 2, ((1, 0), (1, 0)), ((0, 1), (0, 1))])
def test_explicit_padding(size, strides, padding):
    """Also where LCE takes the padding of a sign for that of 'same' though it is another."""
    layers = DoReFa(2), keras.ZeroPadding2D(padding), convolution(input_quantizer=None, strides=strides)
    check(model_of(*layers, shape=(size, size, 32)), 2)


@pytest.mark.parametrize("quantizer, packs", [(DoReFa(2), True), (Shifted(2), True), (Lifted(2), False)])
def test_what_pads(quantizer, packs):
    check(model_of(convolution(input_quantizer=quantizer, padding="valid")), 2)
    model = model_of(convolution(input_quantizer=quantizer, padding="same"))
    if packs:
        content, _, _ = check(model, 2)
        pads = {op.options["pad_values"] for op in Flatbuffer(content).operators if op.name == "LceBconv2d"}
        assert pads == {int(isinstance(quantizer, DoReFa))}
    else:
        with pytest.raises(
            ConversionError, match="own: this binary convolution stayed float: .* no level of its quant"
        ):
            convert(model)


def test_map_that_several_layers_read():
    """They share its signs; what does not multiply it gets the map itself."""
    x = i = tf.keras.Input((8, 8, 32))
    q = DoReFa(2)(x)
    strided = [convolution(8, k, input_quantizer=None, strides=2, padding="same", name=f"k{k}")(q) for k in (1, 3)]
    summed = convolution(32, input_quantizer=None, padding="same", kernel_quantizer=Bases(2))(q)
    model = randomize(tf.keras.Model(i, [*strided, summed + q]))
    content, _, _ = check(model, 2 + 2 + 4)
    assert operators(content)["LceQuantize"] == 2


def test_sum_of_kernels_of_a_sign():
    content, _, _ = check(
        model_of(convolution(input_quantizer="ste_sign", kernel_quantizer=Bases(3), padding="valid")), 3
    )
    assert operators(content) == {"LceQuantize": 1, "LceBconv2d": 3, "ADD": 2}
    one_padded = convolution(input_quantizer="ste_sign", kernel_quantizer=Bases(3), padding="same", pad_values=1.0)
    check(model_of(one_padded), 3)


@pytest.mark.parametrize("ending", [".h5", ".keras", ""])
def test_files(tmp_path, ending):
    inner = tf.keras.Sequential([tf.keras.Input((8, 8, 32)), convolution(32, name="inside")], name="inner")
    model = model_of(inner, DoReFa(3), convolution(input_quantizer=None, padding="same"))
    model.save(tmp_path / f"model{ending}")
    content, _, _ = check(model, 5)
    loaded, report = convert(tmp_path / f"model{ending}")
    assert report.bitpacked == 5
    x = images(model)
    np.testing.assert_array_equal(interpreter(loaded).predict(x), interpreter(content).predict(x))


def test_nothing_is_left_of_marks():
    quantizer = DoReFa(2)
    model = model_of(convolution(input_quantizer=quantizer), quantizer, keras.GlobalAveragePooling2D())
    graph = FrozenGraph(model)
    assert len(graph.lowering.results) == 1 and not graph.lowering.reasons
    assert not [node for node in graph.definition.node if mark_of(node)]
    assert "call" not in vars(quantizer)
    unread = FrozenGraph(model_of(DoReFa(2), keras.GlobalAveragePooling2D()))
    assert not unread.signs and not unread.lowering.results


class Unregistered(DoReFa):
    def call(self, x):
        return super().call(x)


def test_quantizer_whose_code_a_file_lacks(tmp_path):
    """It shows no planes, so its convolution stays float, and computes the same."""
    model = model_of(convolution(input_quantizer=Unregistered(2)))
    tf.saved_model.save(model, tmp_path / "exported")
    content, report = convert(tmp_path / "exported")
    unknown, finding = report.findings
    assert unknown.rule == "graph-only"
    assert finding.rule == "binary-weight-float" and "`planes`" in finding.message and report.binary == 0
    x = images(model)
    np.testing.assert_allclose(interpreter(content).predict(x), model.predict(x, verbose=0), atol=1e-4)


def test_command_line(tmp_path):
    model = model_of(convolution(padding="same"), keras.GlobalAveragePooling2D(), keras.Dense(10))
    content, _ = convert(model)
    paths = tmp_path / "model.keras", tmp_path / "model.tflite"
    model.save(paths[0])
    paths[1].write_bytes(content)
    result = run("verify", *paths, "--random", 2)
    assert result.exit_code == 0, result.output
    inspected = json.loads(run("inspect", paths[1], "--json").stdout)
    assert inspected["operators"]["LceBconv2d"] == 2 and inspected["findings"] == []
    assert json.loads(run("verify", *paths, "--json", "--random", 1).stdout)["convolutions"] == 2


# What stays float

STAYS = {
    "max-pool": ((DoReFa(2), keras.MaxPool2D(), convolution(input_quantizer=None)), "MaxPool stands between"),
    "upsampling": (
        (DoReFa(2), keras.UpSampling2D(), convolution(input_quantizer=None)),
        "NearestNeighbor stands between",
    ),
    "relu": ((DoReFa(2), keras.ReLU(), convolution(input_quantizer=None)), "Relu stands between"),
    "concatenation": (
        (DoReFa(2), keras.Lambda(lambda q: tf.concat([q, q], -1)), convolution(input_quantizer=None)),
        "ConcatV2 stands between",
    ),
    "split": (
        (DoReFa(2), keras.Lambda(lambda q: tf.split(q, 2, -1)[1]), convolution(input_quantizer=None)),
        "Split stands between",
    ),
    "other padding": ((convolution(padding="same", pad_values=1.0),), "padded with other numbers than 0"),
    "explicit zeros": ((Shifted(2), keras.ZeroPadding2D(2), convolution(input_quantizer=None)), "padding is explicit"),
    "groups": ((convolution(groups=2),), "its groups have 16 input channels"),
    "depthwise": (
        (quant.QuantDepthwiseConv2D(3, input_quantizer=DoReFa(2), depthwise_quantizer="ste_sign", name="own"),),
        "LCE packs ordinary 2-D convolutions only",
    ),
}


@pytest.mark.parametrize("layers, words", STAYS.values(), ids=STAYS)
def test_binary_weights_that_stay_float(layers, words):
    model = model_of(*layers)
    with pytest.raises(ConversionError) as caught:
        convert(model)
    (finding,) = caught.value.findings
    assert (finding.rule, finding.where) == ("silent-float", "own") and words in finding.message
    content, report = convert(model, allow_float=True)
    assert (report.binary, report.bitpacked) == (1, 0) and report.unpacked_weights > 0
    assert verify(model, content, images(model)).ok


def test_map_beside_a_real_one_stays_float():
    image = tf.keras.Input((8, 8, 32))
    joined = keras.Concatenate()([DoReFa(2)(image), image])
    _, report = convert(tf.keras.Model(image, convolution(input_quantizer=None)(joined)))
    assert [finding.rule for finding in report.findings] == ["binary-weight-float"] and report.binary == 0


@pytest.mark.parametrize("kernel_quantizer", [None, DoReFa(2, mode="weights")])
def test_other_weights_stay_float(kernel_quantizer):
    model = model_of(convolution(kernel_quantizer=kernel_quantizer))
    content, report = convert(model)
    (finding,) = report.findings
    assert (finding.rule, finding.where, finding.error) == ("levels-float", "own", False)
    assert "differ in magnitude" in finding.message and report.binary == 0
    assert verify(model, content, images(model)).ok


class Misspelt(DoReFa):
    """Writes its sign as LCE does not know it."""

    def call(self, x):
        return super().call(x)

    def planes(self, x):
        return 0.5, [(-0.5, tf.sign(0.5 - x))]


class Batchwise(Shifted):
    """Has levels that depend on the data."""

    def planes(self, x):
        return 0.0, [(tf.reduce_mean(tf.abs(x)), lq.math.sign(x))]


class Uneven(Shifted):
    """Has another number for each channel."""

    def planes(self, x):
        return 0.0, [(np.linspace(1, 2, x.shape[-1], dtype=np.float32), lq.math.sign(x))]


class Narrow(Shifted):
    """Has the signs of one channel."""

    def planes(self, x):
        return 0.0, [(1.0, lq.math.sign(x[..., :1]))]


@pytest.mark.parametrize(
    "quantizer, words",
    [
        (Misspelt(1), "a form that LCE does not take for signs"),
        (Batchwise(1), "depend on the data"),
        (Uneven(1), "one number each"),
        (Narrow(1), "in the shape of its input"),
        (Shifted(0), "in the shape of its input"),
    ],
)
def test_planes_that_are_none(quantizer, words):
    with pytest.raises(ConversionError, match=f"silent-float: own: .*{words}"):
        convert(model_of(convolution(input_quantizer=quantizer)))


def test_maps_that_are_too_small_for_zero_padding():
    """The finding comes once for a convolution, not for each of its planes."""
    with pytest.raises(ConversionError) as caught:
        convert(model_of(convolution(input_quantizer=Shifted(2), padding="same"), shape=(2, 2, 32)))
    assert [(finding.rule, finding.where) for finding in caught.value.findings] == [("small-map", "own")]
    check(model_of(convolution(padding="same"), shape=(2, 2, 32)), 2)


class Ternary(Bases):
    def bases(self, w):
        return [(1.0, tf.sign(tf.where(tf.abs(w) < 0.5, 0.0, w)))]


class InputScaled(Bases):
    def bases(self, w):
        return [(np.linspace(1, 2, w.shape[2], dtype=np.float32)[:, np.newaxis], lq.math.sign(w))]


@pytest.mark.parametrize("input_quantizer", [DoReFa(2), "ste_sign"])
@pytest.mark.parametrize("quantizer, words", [(Ternary(1), "not all -1 and .1"), (InputScaled(1), "for each filter")])
def test_bases_that_are_none(input_quantizer, quantizer, words):
    model = model_of(convolution(input_quantizer=input_quantizer, kernel_quantizer=quantizer))
    with pytest.raises(ConversionError, match=f"silent-float: own: .*{words}"):
        convert(model)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_weights_that_are_no_numbers(number):
    model = model_of(convolution())
    (kernel,) = model.layers[-1].get_weights()
    kernel[0, 0, 0, 0] = number
    model.layers[-1].set_weights([kernel])
    with pytest.raises(ConversionError, match="own: .* are (NaN|inf)") as caught:
        convert(model)
    assert {(f.rule, f.where) for f in caught.value.findings} == {("not-finite", "own")}


# What is wrong fails


@pytest.fixture(scope="module")
def converted():
    """Two convolutions of four planes, one with numbers of both signs for its filters."""
    first = convolution(32, padding="same", kernel_quantizer=Bases(2), name="first")
    second = convolution(16, padding="same", name="second")
    model = model_of(first, keras.BatchNormalization(name="bn"), second, keras.BatchNormalization())
    content, report, result = check(model, 6)
    assert (report.bitpacked, len(result.engines)) == (6, 2)
    return model, content


def bconvs(flatbuffer):
    return [op for op in flatbuffer.operators if op.name == "LceBconv2d"]


def negated(flatbuffer, op):
    """One plane with the other sign."""
    for position in (2, 3):
        flatbuffer.set_constant(op.inputs[position], -flatbuffer.constant(op.inputs[position]))


def flipped(flatbuffer, op):
    words = flatbuffer.constant(op.inputs[1]).copy()
    words[1, 0, 2, 0] ^= 1 << 5
    flatbuffer.set_constant(op.inputs[1], words)


def zero_padded(flatbuffer, op):
    options = {**op.options, "pad_values": 0}
    builder = flexbuffers.Builder()
    with builder.Map():
        for key in sorted(options):
            builder.Key(key)
            builder.Int(options[key])
    flatbuffer.subgraph.operators[op.index].customOptions = np.frombuffer(builder.Finish(), np.uint8)


@pytest.mark.parametrize("number", others_slow([0, 5, 1, 2, 3, 4], 2))
@pytest.mark.parametrize(
    "fault, stages", [(negated, {"sign", "output"}), (flipped, {"weights"}), (zero_padded, {"sign", "output"})]
)
def test_wrong_plane_is_found(converted, fault, stages, number):
    model, content = converted
    flatbuffer = Flatbuffer(content)
    fault(flatbuffer, bconvs(flatbuffer)[number])
    result = verify(model, flatbuffer.pack(), images(model), runtime="lce")
    assert result.differences and {d.stage for d in result.differences} <= stages


def thresholds(flatbuffer):
    """Constants that maps are compared with, or that are added to such numbers."""
    readers = [op for op in flatbuffer.operators if op.name in ("SUB", "ADD", "LESS")]
    return sorted({t for op in readers for t in op.inputs if flatbuffer.constant(t) is not None})


@pytest.mark.parametrize("quantizer", [DoReFa(2), *others_slow([DoReFa(4), quantizers.Thermometer()], 0)])
def test_wrong_threshold_is_found(quantizer):
    """Also of one channel, and where no number is between the right and the wrong threshold."""
    first = convolution(32, padding="same", kernel_quantizer=Bases(2))
    model = model_of(first, keras.BatchNormalization(), convolution(16, input_quantizer=quantizer, name="second"))
    content, _ = convert(model)
    assert verify(model, content, images(model), runtime="lce").ok
    found = thresholds(Flatbuffer(content))
    assert len(found) >= 3
    for tensor in found:
        flatbuffer = Flatbuffer(content)
        constant = flatbuffer.constant(tensor).copy()
        constant.flat[-1] += np.float32(0.02)
        flatbuffer.set_constant(tensor, constant)
        result = verify(model, flatbuffer.pack(), images(model), runtime="lce")
        assert "sign" in {d.stage for d in result.differences}, tensor


class WrongThreshold(DoReFa):
    def call(self, x):
        return super().call(x)

    def planes(self, x):
        return 0.5, [(-1 / 3, lq.math.sign(0.5 - x)), (-1 / 6, lq.math.sign(0.49 - x / 3 * lq.math.sign(0.5 - x)))]


class WrongNumber(quantizers.Thermometer):
    def call(self, x):
        return super().call(x)

    def planes(self, x):
        offset, ((first, a), (second, b)) = super().planes(x)
        return offset + 0.01, [(first - 0.01, a), (second, b)]


@pytest.mark.parametrize("quantizer", [WrongThreshold(2), WrongNumber()])
def test_planes_of_another_function_are_found(quantizer):
    model = model_of(convolution(input_quantizer=quantizer, padding="same"))
    result = verify(model, convert(model)[0], images(model))
    assert [(d.stage, d.layer) for d in result.differences] == [("levels", f"own/{quantizer.name}")]


class WrongBases(Bases):
    def bases(self, w):
        return [(a * 1.01, b) for a, b in super().bases(w)]

    def call(self, w):
        return tf.add_n([a * b for a, b in super().bases(w)])


def test_bases_of_another_kernel_are_found():
    model = model_of(convolution(kernel_quantizer=WrongBases(2), padding="same"))
    result = verify(model, convert(model)[0], images(model))
    assert [(d.stage, d.layer) for d in result.differences] == [("levels", "own")]
    assert "the sum of its signs" in result.differences[0].message


# Size


@pytest.mark.slow
def test_kernel_that_is_larger_than_lce_folds():
    """A kernel of 144 MiB, more than the 128 MiB that LCE computes: here it is computed before, and comes as signs."""
    model = model_of(convolution(2048, padding="same"), shape=(4, 4, 2048))
    _, report, _ = check(model, 2, images(model, 1))
    assert report.size < 10_000_000
