"""What is real becomes int8 where that saves time: ranges, islands and the file."""

import math
from collections import Counter

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from support import others_slow, randomize

from larq_rep import converters
from larq_rep.converters import lce
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.converters.inputs import IncomparableError
from larq_rep.converters.int8 import QuantizationError, islands, quantize
from larq_rep.converters.int8.ranges import Histogram, Scale

keras = tf.keras.layers
WITH_XNNPACK = tf.lite.experimental.OpResolverType.AUTO
WITHOUT_XNNPACK = tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES


@pytest.fixture(scope="module")
def network():
    """A small binary network with a stem, a transition with a pool, a residual stream and a classifier."""
    x = i = tf.keras.Input((24, 24, 3))
    x = keras.Conv2D(32, 3, 2, "same", use_bias=False)(x)
    x = keras.MaxPool2D(2)(keras.ReLU()(keras.BatchNormalization()(x)))
    for strides, filters in ((1, 32), (2, 64)):
        y = keras.BatchNormalization()(binary(filters, strides)(x))
        if strides == 2:
            x = keras.BatchNormalization()(keras.Conv2D(filters, 1, use_bias=False)(keras.AvgPool2D(2)(x)))
        x = keras.add([x, y])
    x = keras.Dense(10, name="logits")(keras.GlobalAvgPool2D()(x))
    return randomize(tf.keras.Model(i, x))


def binary(filters, strides):
    signs = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
    return lq.layers.QuantConv2D(filters, 3, strides, "same", pad_values=1, use_bias=False, **signs)


@pytest.fixture
def free_borders(monkeypatch):
    """int8 is worth it everywhere."""
    for name in ("_QUANTIZE", "_DEQUANTIZE", "_PASS"):
        monkeypatch.setattr(islands, name, 0.0)
    for name in ("_MACS", "_VALUES"):
        monkeypatch.setattr(islands, name, dict.fromkeys(getattr(islands, name), (1.0, 0.1)))


def images(shape, count=8, seed=0):
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)


def runs(content, x, **options):
    engine = lce.interpreter(content, **options).interpreter
    return np.concatenate([engine.predict([row[None]])[0] for row in x])


def types(content):
    flatbuffer = Flatbuffer(content)
    return [(op.name, flatbuffer.dtype(op.outputs[0])) for op in flatbuffer.operators]


class TestRanges:
    @pytest.mark.parametrize("values", ["normal", "relu", "one sided", "outliers", "constant", "zeros"])
    def test_methods(self, values):
        """Against all values: minmax, quantiles, and an exhaustive search for the least squared error."""
        rng = np.random.default_rng(0)
        x = rng.standard_normal(30_000).astype(np.float32)
        x = {
            "normal": x,
            "relu": np.maximum(x, 0),
            "one sided": -np.abs(x) - 3,
            "outliers": np.concatenate([x, [90, -60]]).astype(np.float32),
            "constant": np.full(100, 2.5, np.float32),
            "zeros": np.zeros(100, np.float32),
        }[values]
        histogram = Histogram()
        for part in np.array_split(x, 7):
            histogram.add(part)
        assert (histogram.low, histogram.high) == (x.min(), x.max())

        def ends(scale):
            return [(q - scale.zero) * float(scale.scale) for q in (-128, 127)]

        def error(scale):
            real = (scale.quantized(x).astype(np.float64) - scale.zero) * float(scale.scale)
            return float(np.mean((real - x) ** 2))

        low, high = min(x.min(), 0.0), max(x.max(), 0.0)
        widest = histogram.scale("minmax")
        step = float(widest.scale)
        if values == "zeros":
            assert widest.quantized(x).tolist() == [widest.zero] * 100
            return
        np.testing.assert_allclose(ends(widest), [low, high], atol=step)
        counted = x[x != 0]
        np.testing.assert_allclose(
            ends(histogram.scale("percentile")),
            [min(np.quantile(counted, 1e-4), 0), max(np.quantile(counted, 1 - 1e-4), 0)],
            atol=step + 128 / 2048,
        )
        tried = [
            error(Scale.of_range(low * a, high * b, (0, 0)))
            for a in np.linspace(0.1, 1, 19)
            for b in np.linspace(0.1, 1, 19)
        ]
        assert error(histogram.scale("mse")) <= 1.05 * min(tried) + 1e-12

    def test_zero_is_a_level(self):
        rng = np.random.default_rng(1)
        for _ in range(200):
            low, high = np.sort(rng.standard_normal(2) * 10.0 ** rng.integers(-6, 6))
            scale = Scale.of_range(low, high, (low, high))
            assert -128 <= scale.zero <= 127
            assert scale.quantized(np.zeros(1, np.float32)) == scale.zero
            ends = [(q - scale.zero) * float(scale.scale) for q in (-128, 127)]
            np.testing.assert_allclose(ends, [min(low, 0), max(high, 0)], atol=1.01 * float(scale.scale))


# Layers on a map of 12 x 12 x 8, and the operators in int8 that they become.
LAYERS = {
    "conv": lambda: keras.Conv2D(12, 3, padding="same"),
    "valid": lambda: keras.Conv2D(12, 3, activation="relu"),
    "strided": lambda: keras.Conv2D(12, (3, 2), (2, 1), padding="same", activation=tf.nn.relu6),
    "dilated": lambda: keras.Conv2D(12, 3, dilation_rate=2, padding="same", use_bias=False),
    "grouped": lambda: keras.Conv2D(12, 3, groups=4, padding="same"),
    "depthwise": lambda: keras.DepthwiseConv2D(3, padding="same"),
    "multiplier": lambda: keras.DepthwiseConv2D(3, 2, depth_multiplier=2),
    "transposed": lambda: keras.Conv2DTranspose(12, 3, 2, padding="same"),
    "max pool": lambda: keras.MaxPool2D(3, 2, "same"),
    "average pool": lambda: keras.AvgPool2D(2, padding="same"),
    "pad": lambda: keras.ZeroPadding2D(((1, 0), (2, 1))),
    "excite": lambda: squeeze_and_excite,
    "swish": lambda: lambda x: x * tf.nn.relu6(x + 3) / 6,
    "dense": lambda: keras.Dense(9),
    "branches": lambda: lambda x: tf.concat([keras.Conv2D(6, 1)(x), keras.Conv2D(6, 3, padding="same")(x)], -1),
    "sum": lambda: lambda x: keras.Conv2D(8, 1)(x) + keras.Conv2D(8, 1)(x),
    "softmax": lambda: keras.Softmax(),
}


def test_channels_of_all_sizes(free_borders):
    """Folding leaves the factors that even out the channels in front of a convolution: one scale holds for all."""
    sizes = np.geomspace(1, 400, 16).astype(np.float32)
    i = tf.keras.Input((8, 8, 16))
    norm = keras.BatchNormalization()
    x = keras.MaxPool2D(2)(keras.ReLU()(norm(i)))
    model = tf.keras.Model(i, keras.Conv2D(8, 1)(x))
    norm.set_weights([np.ones(16), np.full(16, 0.1), np.zeros(16), sizes**2])
    x = images((8, 8, 16)) * sizes
    content, report = converters.convert(model, int8=x)
    assert report.int8.operators == 1
    expected = model.predict(x, verbose=0)
    assert np.abs(runs(content, x) - expected).mean() < 0.02 * np.abs(expected).mean()
    assert converters.verify(model, content, x[:2]).ok
    # The file that is folded already has them in its weights: there the convolution stays float.
    again, found = quantize(converters.convert(model)[0], x)
    assert not found.operators and "too different" in str(found.kept[0])
    np.testing.assert_allclose(runs(again, x), expected, atol=1e-4 * np.abs(expected).max())


def squeeze_and_excite(x):
    y = keras.GlobalAvgPool2D(keepdims=True)(x)
    y = keras.Conv2D(x.shape[-1], 1, activation="sigmoid")(keras.Conv2D(4, 1, activation="relu")(y))
    return x * y


@pytest.mark.parametrize("seed", others_slow(list(range(24)), 6))
def test_random_layers(free_borders, seed):
    """The file computes the model's values up to the noise of 8 bits, no worse than what TFLite's converter makes."""
    rng = np.random.default_rng(seed)
    x = i = tf.keras.Input((12, 12, 8))
    names = [*rng.choice([*LAYERS], rng.integers(1, 4)), "conv"]
    rng.shuffle(names)
    for name in names:
        x = LAYERS[name]()(x)
    model = randomize(tf.keras.Model(i, x), seed)
    given = images((12, 12, 8), 12, seed)
    content, report = converters.convert(model, int8=given)
    assert report.int8.operators > 0 and not report.int8.kept
    expected = model.predict(given, verbose=0)
    noise = [
        np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2))
        for found in (runs(content, given), lite(theirs(model, given), given), lite(content, given, WITH_XNNPACK))
    ]
    assert noise[0] <= 1.3 * noise[1] + 0.003, (names, noise)
    # Other kernels round otherwise, by a step.
    assert noise[2] <= 1.3 * noise[0] + 0.003, (names, noise)


def theirs(model, given):
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([row[None]] for row in given)
    return converter.convert()


# XNNPACK refuses some of the files of TFLite's own converter: those with a channel of zeros.
def lite(content, given, kernels=WITHOUT_XNNPACK):
    engine = tf.lite.Interpreter(model_content=content, experimental_op_resolver_type=kernels)
    engine.allocate_tensors()
    results = []
    for row in given:
        engine.set_tensor(engine.get_input_details()[0]["index"], row[None])
        engine.invoke()
        results.append(engine.get_tensor(engine.get_output_details()[0]["index"]))
    return np.concatenate(results)


class TestIslands:
    def test_stream_stays_float(self, network, free_borders):
        """Sums of the stream and signs stay as they are; pools join; what is not next to int8 has no QUANTIZE."""
        content, report = converters.convert(network, int8=images((24, 24, 3)))
        found = types(content)
        assert Counter(name for name, dtype in found if dtype == "int8" and name != "QUANTIZE") == {
            "CONV_2D": 2,
            "MAX_POOL_2D": 1,
            "AVERAGE_POOL_2D": 1,
            "MEAN": 1,
            "FULLY_CONNECTED": 1,
        }
        assert all(dtype == "float32" for name, dtype in found if name == "ADD")
        assert report.int8.operators == 3 and report.bitpacked == 2
        for op in Flatbuffer(content).operators:
            producer = Flatbuffer(content).producers.get(op.inputs[0])
            assert not (op.name == "QUANTIZE" and producer is not None and producer.name == "DEQUANTIZE")

    def test_a_gate_has_the_scale_that_tflite_demands(self, free_borders):
        """Next to a pool, which would give it that of its other tensors, it stays float."""
        x = i = tf.keras.Input((8, 8, 4))
        x = keras.Conv2D(8, 1, activation="sigmoid")(x)
        x = keras.Concatenate()([keras.MaxPool2D(2)(x), keras.Conv2D(4, 2, 2)(x)])
        model = tf.keras.Model(i, keras.Conv2D(4, 1)(x))
        content, _ = converters.convert(model, int8=images((8, 8, 4)))
        assert ("LOGISTIC", "float32") in types(content)
        assert converters.verify(model, content, images((8, 8, 4), 1)).ok

    def test_what_costs_more_stays_float(self, network, monkeypatch):
        monkeypatch.setattr(islands, "_PASS", 1e9)
        content, report = converters.convert(network, int8=images((24, 24, 3)))
        assert not report.int8.operators and len(report.int8.kept) == 3
        assert all("longer" in str(kept) for kept in report.int8.kept)
        assert content == converters.convert(network)[0] or "int8" not in [dtype for _, dtype in types(content)]

    @pytest.mark.parametrize("seed", range(4))
    def test_least_time(self, seed, monkeypatch):
        """Against all subsets of the operators of small graphs."""
        rng = np.random.default_rng(seed)
        x = i = tf.keras.Input((8, 8, 8))
        for name in rng.choice(["conv", "max pool", "pad", "excite", "average pool", "grouped"], 3):
            x = LAYERS[name]()(x)
        flatbuffer = Flatbuffer(converters.convert(tf.keras.Model(i, keras.Conv2D(16, 1)(x)))[0])
        for name, value in (("_QUANTIZE", 0.3), ("_DEQUANTIZE", 0.2), ("_PASS", 5.0), ("_BYTE", 0.01)):
            monkeypatch.setattr(islands, name, value * float(rng.uniform(0.2, 3)))
        monkeypatch.setattr(islands, "_VALUES", {"AVERAGE_POOL_2D": (0.1, rng.uniform(0, 0.2))})
        graph = islands._Graph(flatbuffer)
        able = sorted(graph.able)
        every = [{a for bit, a in enumerate(able) if number >> bit & 1} for number in range(2 ** len(able))]
        least = min(graph.time(graph.able, subset) for subset in every if graph.closed(subset) == subset)
        chosen, _ = islands.choose(flatbuffer)
        assert graph.closed(chosen) == chosen
        assert graph.time(graph.able, chosen) <= least * 1.02


class TestFile:
    def test_constants(self, network, free_borders):
        """Weights and biases are the real ones, rounded to a step of their channel."""
        reference = Flatbuffer(converters.convert(network)[0])
        content, _ = converters.convert(network, int8=images((24, 24, 3)))
        flatbuffer = Flatbuffer(content)
        products = [[op for op in f.operators if op.name in islands.PRODUCTS] for f in (reference, flatbuffer)]
        assert len(products[0]) == 3
        for before, op in zip(*products, strict=True):
            weights, bias = (reference.constant(t) for t in before.inputs[1:3])
            found = [flatbuffer.constant(t) for t in op.inputs[1:3]]
            steps, zeros = (
                np.asarray(getattr(flatbuffer.subgraph.tensors[op.inputs[1]].quantization, each))
                for each in ("scale", "zeroPoint")
            )
            assert not zeros.any() and len(steps) == (1 if op.name == "FULLY_CONNECTED" else len(weights))
            along = steps.reshape(-1, *[1] * (weights.ndim - 1))
            assert (np.abs(found[0] * along - weights) <= along * 0.5001).all()
            into = flatbuffer.subgraph.tensors[op.inputs[0]].quantization.scale[0]
            if bias is not None:
                assert (np.abs(found[1] * (steps * into) - bias) <= steps * into * 0.5001).all()

    def test_dead_channel(self, free_borders):
        """A channel without weights keeps its bias, and its scale stays in what kernels take."""
        layer = keras.Conv2D(4, 1)
        model = tf.keras.Sequential([keras.Input((6, 6, 8)), layer, keras.Conv2D(8, 1)])
        kernel, _ = layer.get_weights()
        kernel[..., 1], kernel[..., 2] = 0, kernel[..., 2] * 1e-30
        layer.set_weights([kernel, np.array([0.5, -2, 1e-3, 3], np.float32)])
        x = images((6, 6, 8))
        content, report = converters.convert(model, int8=x)
        assert report.int8.operators == 2
        expected = model.predict(x, verbose=0)
        for found in (runs(content, x), lite(content, x, WITH_XNNPACK)):
            np.testing.assert_allclose(found, expected, atol=0.03 * np.abs(expected).max())

    @pytest.mark.parametrize("dtype", ["int8", "uint8"])
    @pytest.mark.parametrize("stem", [True, False])
    def test_integer_interface(self, network, dtype, stem, monkeypatch, free_borders):
        """The file takes and gives integers of the same numbers, whether its ends are in int8 or float."""
        if not stem:
            monkeypatch.setattr(islands, "_PASS", 1e9)
        x = images((24, 24, 3))
        real, _ = converters.convert(network, int8=x)
        wanted = getattr(tf, dtype)
        types = {"inference_input_type": wanted, "inference_output_type": wanted}
        if stem:
            content, _ = converters.convert(network, int8=x, **types)
        else:  # The same of a file, which keeps its signature.
            content, _ = quantize(converters.convert(network)[0], x, **types)
        flatbuffer = Flatbuffer(content)
        (source,), (result,) = flatbuffer.inputs, flatbuffer.outputs
        assert (flatbuffer.dtype(source), flatbuffer.dtype(result)) == (dtype, dtype)
        assert [flatbuffer.name(source), flatbuffer.name(result)] == [network.input_names[0], "logits"]
        assert flatbuffer.model.signatureDefs[0].outputs[0].tensorIndex == result
        meanings = [flatbuffer.subgraph.tensors[t].quantization for t in (source, result)]
        steps, zero = [float(q.scale[0]) for q in meanings], [int(q.zeroPoint[0]) for q in meanings]
        info = np.iinfo(dtype)
        integers = np.clip(np.round(x / steps[0]) + zero[0], info.min, info.max)
        found = runs(content, integers.astype(dtype))
        expected = runs(real, ((integers - zero[0]) * steps[0]).astype(np.float32))
        assert np.abs((found - float(zero[1])) * steps[1] - expected).max() <= (0.51 if stem else 1) * steps[1]

    def test_exact_weights_stay_exact(self, free_borders):
        """Ternary weights are integers times a step before and after, in int8 layers and in those that stay float."""
        layer = keras.Conv2D(16, 3, use_bias=False)
        model = tf.keras.Sequential([keras.Input((8, 8, 16)), layer])
        kernel = np.random.default_rng(0).integers(-1, 2, layer.kernel.shape) * np.linspace(0.1, 2, 16)
        layer.set_weights([kernel.astype(np.float32)])
        content, _ = converters.convert(model, int8=images((8, 8, 16)))
        flatbuffer = Flatbuffer(content)
        op = next(op for op in flatbuffer.operators if op.name == "CONV_2D")
        step = np.asarray(flatbuffer.subgraph.tensors[op.inputs[1]].quantization.scale, np.float32)
        values = flatbuffer.constant(op.inputs[1]).astype(np.float32) * step.reshape(-1, 1, 1, 1)
        np.testing.assert_array_equal(values, np.moveaxis(kernel.astype(np.float32), -1, 0))

    def test_shared_weights(self, free_borders):
        """The float ones do not stay in the file when all that read them are in int8."""
        a, b = keras.Input((6, 6, 16)), keras.Input((6, 6, 16))
        layer = keras.Conv2D(64, 3)
        model = tf.keras.Model([a, b], [layer(a), layer(b)])
        content, report = converters.convert(model, int8=[images((6, 6, 16)), images((6, 6, 16), seed=1)])
        assert report.int8.operators == 2
        assert not [c for c in converters.describe(content).constants if c == "float32"]

    def test_batches_of_a_file(self, free_borders):
        """Images count, not runs."""
        image = keras.Input((6, 6, 16), 4)
        model = tf.keras.Model(image, keras.Dense(3)(keras.Flatten()(image)))
        x = images((6, 6, 16))
        content, report = converters.convert(model, int8=x)
        assert report.int8.images == 8 and converters.describe(content).metadata["int8"]["images"] == 8
        assert converters.verify(model, content, x).int8.operators

    def test_quantize_of_a_file(self, network, free_borders):
        """`quantize` makes of the float file what `convert` makes of the model."""
        x = images((24, 24, 3))
        content, report = converters.convert(network, int8=x)
        again, found = converters.quantize(converters.convert(network)[0], x)
        assert types(content) == types(again)
        assert np.array_equal(runs(content, x), runs(again, x))
        assert (found.operators, found.islands, found.images) == (report.int8.operators, report.int8.islands, 8)
        ends = [[float(x.min()), float(x.max())]]
        assert converters.describe(again).metadata["int8"] == {"calibration": "mse", "images": 8, "inputs": ends}

    def test_report(self, network, free_borders):
        x = images((24, 24, 3))
        float_file, _ = converters.convert(network)
        content, report = converters.convert(network, int8=x)
        before, after = runs(float_file, x), runs(content, x)
        found = report.int8
        assert found.change == pytest.approx(np.abs(before - after).max() / np.abs(before).max(), rel=1e-5)
        assert found.mean_change == pytest.approx(np.abs(before - after).mean() / np.abs(before).mean(), rel=1e-5)
        assert found.agreement == np.mean(before.argmax(-1) == after.argmax(-1))
        assert report.size == found.size_after == len(content)
        assert 0 <= len(float_file) - found.size_before < 1000  # names and metadata
        assert math.isfinite(found.change) and report.to_dict()["int8"]["images"] == 8


class TestImages:
    def test_batches(self, network, free_borders):
        """An array, batches of any size, tensors and a data set are the same images."""
        x = images((24, 24, 3))
        expected, _ = converters.convert(network, int8=x)
        float_file, _ = converters.convert(network)
        for given in ([x[:3], x[3:]], iter([x]), tf.data.Dataset.from_tensor_slices(x).batch(5), {"input": x}):
            if isinstance(given, dict):
                given = {network.input_names[0]: x}
            assert types(quantize(float_file, given)[0]) == types(expected)

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (np.zeros((0, 24, 24, 3), np.float32), "shape"),
            ([], "no images"),
            (np.zeros((2, 24, 24, 4), np.float32), "shape"),
            ([(np.zeros((2, 24, 24, 3), np.float32), np.zeros(2))], "labels"),
            (np.full((1, 24, 24, 3), np.nan, np.float32), "not finite"),
        ],
    )
    def test_refused(self, network, given, message):
        with pytest.raises((QuantizationError, IncomparableError), match=message):
            converters.convert(network, int8=given)

    def test_refused_files(self, network, free_borders):
        x = images((24, 24, 3), 2)
        content, _ = converters.convert(network, int8=x)
        with pytest.raises(QuantizationError, match="already"):
            quantize(content, x)
        with pytest.raises(QuantizationError, match="float16"):
            quantize(converters.convert(network, float_weights="float16")[0], x)
        with pytest.raises(ValueError, match="float_weights"):
            converters.convert(network, int8=x, float_weights="int8")
        with pytest.raises(QuantizationError, match="calibration should be one of"):
            quantize(content, x, calibration="entropy")
        with pytest.raises(ValueError, match="inference_input_type should be tf.float32, tf.int8 or tf.uint8"):
            quantize(content, x, inference_input_type=tf.int16)
