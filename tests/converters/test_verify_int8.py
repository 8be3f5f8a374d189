"""Files quantized to int8 after training: what is right passes, and each planted fault is found where it is."""

import functools
import re

import larq as lq
import larq_rep_runtime
import numpy as np
import pytest
import tensorflow as tf
from support import first_quick, randomize

from larq_rep.converters import convert, float_weights, integer_executor, verification, verify
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.converters.int8 import islands

keras = tf.keras.layers
PRODUCTS = ["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"]


def images(count=3, seed=5, scale=1.0):
    return (scale * np.random.default_rng(seed).standard_normal((count, 16, 16, 3))).astype(np.float32)


def network() -> tf.keras.Model:
    """Real layers of all kinds around a binary one."""
    signs = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
    x = image = tf.keras.Input((16, 16, 3), name="image")
    x = keras.Conv2D(16, 3, 2, "same", name="stem")(x)
    x = keras.ReLU()(keras.BatchNormalization()(x))
    x = keras.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = keras.MaxPool2D(2)(x)
    x = lq.layers.QuantConv2D(32, 3, padding="same", pad_values=1, name="binary", **signs)(x)
    x = keras.BatchNormalization(name="bn")(x)
    x = keras.Conv2D(16, 1, activation="relu", name="first")(x)
    x = keras.Concatenate()([x, keras.Conv2D(16, 1, name="second")(x)])
    gate = keras.Dense(8, activation="relu", name="squeeze")(keras.GlobalAveragePooling2D(keepdims=True)(x))
    x = x * keras.Dense(32, activation="sigmoid", name="excite")(gate)
    x = keras.Conv2DTranspose(8, 3, 2, "same", name="transposed")(x)
    x = keras.Dense(10, name="logits")(keras.GlobalAveragePooling2D()(x))
    return randomize(tf.keras.Model(image, x))


@pytest.fixture(scope="module", autouse=True)
def converted_once():
    """Saves time: the float file and the graph of a model are the same in each verification."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("convert", "FrozenGraph"):
            patch.setattr(verification, name, functools.cache(getattr(verification, name)))
        yield


@pytest.fixture(scope="module")
def files():
    """The network and its file, in which everything real is in int8, by the method of calibration."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(islands, "choose", lambda file, *_: ({op.index for op in file.operators if not op.custom}, []))
        model = network()
        contents = {
            "float": convert(model)[0],
            "mse": convert(model, int8=images(40, 1))[0],
            "minmax": convert(model, int8=images(40, 1), calibration="minmax")[0],
            "bytes": convert(model, int8=images(40, 1), inference_input_type=tf.uint8, inference_output_type=tf.int8)[
                0
            ],
        }
    return model, contents


@pytest.mark.parametrize("name", ["mse", "minmax", "bytes"])
def test_a_right_file_passes(files, name):
    model, contents = files
    result = verify(model, contents[name], images())
    assert result.ok and not result.notes, result
    flatbuffer = Flatbuffer(contents[name])
    integers = [op.name for op in flatbuffer.operators if flatbuffer.dtype(op.outputs[0]) == "int8"]
    assert set(PRODUCTS) < set(integers)
    assert result.int8.operators == len(integers) - integers.count("QUANTIZE")
    assert result.engines["lce"].operators == len(flatbuffer.operators)
    assert result.engines["lce"].bit_equal and set(result.engines) == {"lce", "delegate"}
    assert 0 < result.int8.mean_change <= 0.3 and 0 < result.int8.flips < 0.05
    # 8 bits give 6 dB each; the range is 3 to 4 times the root mean square.
    assert 15 < min(result.int8.signal_to_noise.values()) < max(result.int8.signal_to_noise.values()) < 45
    assert result.to_dict()["int8"]["agreement"] == result.int8.agreement


# Faults


def float_biases(flatbuffer):
    """The biases of a float file, by kind and number of the operator."""
    found = {kind: [op for op in flatbuffer.operators if op.name == kind] for kind in PRODUCTS}
    return {kind: [flatbuffer.constant(op.inputs[-1]) for op in operators] for kind, operators in found.items()}


class File:
    """A file to plant a fault in."""

    def __init__(self, content, reference):
        self.flatbuffer = Flatbuffer(content)
        self.biases = float_biases(Flatbuffer(reference))

    def op(self, name, number=0):
        return [op for op in self.flatbuffer.operators if op.name == name][number]

    def about(self, tensor):
        """The quantization of a tensor, whose arrays may be changed."""
        return self.flatbuffer.subgraph.tensors[tensor].quantization

    def constant(self, tensor, change):
        value = self.flatbuffer.constant(tensor).copy()
        change(value)
        self.flatbuffer.set_constant(tensor, value)

    def weights(self, op):
        return op.inputs[1]

    def data(self, op):
        return op.inputs[2 if op.name == "TRANSPOSE_CONV" else 0]

    def bias(self, op):
        return op.inputs[3 if op.name == "TRANSPOSE_CONV" else 2]

    def change_range(self, tensor, factor=1.0, shift=0, seen=1.0):
        """Another range of an activation and of all tensors that share it, with the biases that follow from it."""
        same, operators = {tensor}, self.flatbuffer.operators
        for op in (*operators, *reversed(operators)):
            around = {t for t in (*op.inputs, *op.outputs) if self.flatbuffer.dtype(t) == "int8"}
            if op.name in ("CONCATENATION", "MAX_POOL_2D") and same & around:
                same |= around
        for each in same:
            about = self.about(each)
            about.scale, about.zeroPoint = about.scale * np.float32(factor), about.zeroPoint + shift
            about.min, about.max = about.min * np.float32(seen), about.max * np.float32(seen)
        for kind in PRODUCTS:
            for op, bias in zip([op for op in operators if op.name == kind], self.biases[kind], strict=True):
                if self.data(op) in same:
                    about = self.about(self.bias(op))
                    about.scale = about.scale * np.float32(factor)
                    value = np.rint(bias / about.scale.astype(np.float64)).astype(np.int32)
                    self.flatbuffer.set_constant(self.bias(op), value)
        return same


def zero_point_of_weights(file, op):
    file.about(file.weights(op)).zeroPoint = file.about(file.weights(op)).zeroPoint + 1


def zero_point_of_bias(file, op):
    file.about(file.bias(op)).zeroPoint = file.about(file.bias(op)).zeroPoint + 3


def scale_of_the_next_channel(file, op):
    found = file.about(file.weights(op))
    found.scale = np.roll(found.scale, 1) if len(found.scale) > 1 else found.scale * np.float32(1.01)


def scale_of_bias(file, op):
    file.about(file.bias(op)).scale = file.about(file.bias(op)).scale * np.float32(2)


def bias_in_another_scale(file, op):
    file.constant(file.bias(op), lambda value: np.multiply(value, 2, out=value))


def a_channel_off_by_one(file, op):
    def change(value):
        channel = np.moveaxis(value, float_weights.OUTPUT_CHANNELS[op.name], 0)[1]
        channel += np.where(channel > 0, -1, 1).astype(np.int8)

    file.constant(file.weights(op), change)


FAULTS = [
    (zero_point_of_weights, "quantization", "its weights have the zero point 1, expected 0"),
    (zero_point_of_bias, "quantization", "its bias has the zero point 3, expected 0"),
    (scale_of_the_next_channel, "quantization", "the scale of channel . of its weights is"),
    (scale_of_bias, "quantization", "the scale of its bias for channel 0 is"),
    (bias_in_another_scale, "quantization", "the bias of channel . is .* steps"),
    (a_channel_off_by_one, "weights", "weight 0 of channel . is .* steps, where the float weight is"),
]
LAYERS = {
    "CONV_2D": "stem",
    "DEPTHWISE_CONV_2D": "depthwise",
    "FULLY_CONNECTED": "squeeze",
    "TRANSPOSE_CONV": "transposed",
}


def differences(files, change, calibration="mse", **options):
    model, contents = files
    file = File(contents[calibration], contents["float"])
    change(file)
    return verify(model, file.flatbuffer.pack(), images(**options), runtime="lce")


@pytest.mark.parametrize("fault, stage, message", FAULTS, ids=[fault.__name__ for fault, _, _ in FAULTS])
@pytest.mark.parametrize("kind", PRODUCTS)
def test_faults_of_constants(files, kind, fault, stage, message):
    result = differences(files, lambda file: fault(file, file.op(kind)))
    found = [d for d in result.differences if d.stage == stage]
    op = File(files[1]["mse"], files[1]["float"]).op(kind)
    assert [(d.layer, d.operator) for d in found] == [(LAYERS[kind], op.index)], result.differences
    assert re.search(message, found[0].message), found[0]


WRITERS = [
    ("QUANTIZE", 0, "image"),
    ("CONV_2D", 0, "stem"),
    ("DEPTHWISE_CONV_2D", 0, "depthwise"),
    ("CONCATENATION", 0, "concatenate"),
    ("FULLY_CONNECTED", 0, "squeeze"),
    ("MUL", 0, "tf.math.multiply"),
    ("TRANSPOSE_CONV", 0, "transposed"),
    ("FULLY_CONNECTED", -1, "logits"),
]
# The method "mse" may clip, so that the file does not tell of a clipped range, but the images do.
RANGES = [
    ("minmax", dict(shift=3), "quantization"),
    ("mse", dict(factor=0.5, seen=0.5), "range"),
    ("mse", dict(factor=0.5), "range"),
    ("mse", dict(shift=80), "quantization|range"),
    ("mse", dict(factor=2), "quantization"),
    ("minmax", dict(factor=0.5), "quantization|range"),
    ("minmax", dict(factor=0.5, seen=0.5), "range"),
]


@pytest.mark.parametrize("calibration, change, stage", first_quick(RANGES, 2))
@pytest.mark.parametrize("writer, number, layer", WRITERS)
def test_faults_of_ranges(files, writer, number, layer, calibration, change, stage):
    """The bounds of a range are wrong, by scale or zero point, and all that follows from it is as wrong."""
    writers = {}

    def plant(file):
        for tensor in file.change_range(file.op(writer, number).outputs[0], **change):
            writers[file.flatbuffer.producers[tensor].index] = tensor

    result = differences(files, plant, calibration, count=8)
    assert result.differences
    assert all(d.operator in writers and re.fullmatch(stage, d.stage) for d in result.differences), result.differences
    if len(writers) == 1:
        assert {d.layer for d in result.differences} == {layer}


def test_a_wrong_scale_of_quantize(files):
    def plant(file):
        about = file.about(file.op("QUANTIZE").outputs[0])
        about.scale = about.scale * np.float32(1.3)

    result = differences(files, plant)
    first, second = result.differences
    assert (first.stage, first.layer, first.operator) == ("quantization", "image", 0)
    assert (second.stage, second.layer, second.operator) == ("quantization", "stem", 1)
    assert "where those of input and weights give" in second.message


def test_scales_that_tflite_demands(files):
    def plant(file):
        gate, joined = (file.about(file.op(name).outputs[0]) for name in ("LOGISTIC", "CONCATENATION"))
        gate.zeroPoint, joined.zeroPoint = gate.zeroPoint + 1, joined.zeroPoint + 1

    result = differences(files, plant)
    gate, joined = (File(files[1]["mse"], files[1]["float"]).op(name).index for name in ("LOGISTIC", "CONCATENATION"))
    found = [d for d in result.differences if d.stage == "quantization"]
    assert [d.operator for d in found] == [joined, gate]
    assert "TFLite demands (0.00390625, -128)" in found[1].message and found[1].layer == "excite"
    assert "they should be the same" in found[0].message and found[0].layer == "concatenate"


def test_swapped_tensors(files):
    def plant(file):
        operator = file.flatbuffer.subgraph.operators[file.op("CONCATENATION").index]
        operator.inputs = operator.inputs[::-1]

    (difference,) = differences(files, plant).differences
    assert (difference.stage, difference.layer) == ("structure", "concatenate")
    assert "reads 'model/second/BiasAdd" in difference.message and "as its input 0" in difference.message


def test_another_option(files):
    def plant(file):
        file.op("CONV_2D").options.fusedActivationFunction = 3  # ReLU6 for ReLU

    (difference,) = differences(files, plant).differences
    assert (difference.stage, difference.layer, difference.operator) == ("structure", "stem", 1)


def test_a_float_constant(files):
    """The binary layer stays as it was, to the bit."""

    def plant(file):
        file.constant(file.op("LceBconv2d").inputs[2], lambda value: np.multiply(value, 1 + 1e-6, out=value))

    found = differences(files, plant).differences
    assert [(d.stage, d.layer) for d in found] == [("weights", "binary")]


def test_a_wrong_kernel_is_found(files, monkeypatch):
    """An operator whose integers are not those of its definition, at one place by one."""
    right = integer_executor._KINDS["DEPTHWISE_CONV_2D"]

    def wrong(call):
        definition = right(call)
        definition.values[0, 3, 2, 1] += 1.1
        return definition

    monkeypatch.setitem(integer_executor._KINDS, "DEPTHWISE_CONV_2D", wrong)
    result = differences(files, lambda file: None)
    (difference,) = result.differences
    assert (difference.stage, difference.layer, difference.operator) == ("operator", "depthwise", 2)
    assert "at (3, 2, 1)" in difference.message and not result.engines["lce"].bit_equal
    monkeypatch.delitem(integer_executor._KINDS, "DEPTHWISE_CONV_2D")
    (difference,) = differences(files, lambda file: None).differences
    assert "has no definition here" in difference.message


def test_a_wrong_kernel_beside_the_delegate_is_found(files, monkeypatch):
    """XNNPACK computes these operators there."""
    index = File(files[1]["mse"], files[1]["float"]).op("DEPTHWISE_CONV_2D").index

    class Wrong(larq_rep_runtime.Interpreter):
        def invoke(self, arrays):
            right = super().invoke(arrays)
            return [x + 2 if self.outputs[i]["name"].startswith("model/depthwise") else x for i, x in enumerate(right)]

    monkeypatch.setattr(larq_rep_runtime, "Interpreter", Wrong)
    result = verify(files[0], files[1]["mse"], images(1), runtime="delegate")
    assert ("delegate", "depthwise", index) in [(d.stage, d.layer, d.operator) for d in result.differences]
    assert any("beside the delegate DEPTHWISE_CONV_2D gives" in d.message for d in result.differences)


def test_images_unlike_those_of_calibration(files):
    result = differences(files, lambda file: None, scale=3.0)
    assert result.ok
    assert any("these images are not like those" in note and "image" in note for note in result.notes)


def test_a_wrong_model_is_found_at_the_operator_of_the_file(files):
    """The float file is proved against the model, and its operators have other numbers than those of the file."""
    model, contents = files
    other = tf.keras.models.clone_model(model)
    other.set_weights(model.get_weights())
    binary = other.get_layer("bn")
    binary.set_weights([value * 1.01 for value in binary.get_weights()])
    result = verify(other, contents["mse"], images(), runtime="lce")
    op = File(contents["mse"], contents["float"]).op("LceBconv2d")
    assert (result.differences[0].layer, result.differences[0].operator) == ("binary", op.index)


# The delegate


@pytest.fixture(scope="module")
def shortcut():
    """A network whose float sums are made of integers and become integers again, and its file."""
    signs = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
    x = image = tf.keras.Input((16, 16, 3))
    x = shortcut = keras.Conv2D(32, 3, 2, "same", name="stem")(x)
    x = lq.layers.QuantConv2D(32, 3, padding="same", pad_values=1, name="binary", **signs)(x)
    x = keras.Add(name="sum")([keras.BatchNormalization()(x), shortcut])
    x = keras.Conv2D(16, 1, name="transition")(x)
    model = randomize(tf.keras.Model(image, keras.GlobalAveragePooling2D()(x)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            islands, "choose", lambda file, *_: ({op.index for op in file.operators if op.name in PRODUCTS}, [])
        )
        return model, convert(model, int8=images(8, 1))[0]


@pytest.mark.parametrize("wrong", ["results", "integers", "nothing"])
def test_integers_in_the_passes_of_the_delegate(shortcut, monkeypatch, wrong):
    """Wrong only where QUANTIZE or DEQUANTIZE is fused with other operators."""

    class Wrong(larq_rep_runtime.Interpreter):
        def invoke(self, arrays):
            fused = len(self.inputs) == 1 and self.inputs[0]["dtype"] == np.int8
            if fused and wrong == "integers":
                arrays = [array + np.int8(1) for array in arrays]
            results = super().invoke(arrays)
            return [r ^ (fused and wrong == "results") if r.dtype == np.int8 else r for r in results]

    monkeypatch.setattr(larq_rep_runtime, "Interpreter", Wrong)
    model, content = shortcut
    result = verify(model, content, images(1), runtime="delegate")
    if wrong == "nothing":
        assert result.ok and result.engines["delegate"].bit_equal
        return
    (difference,) = result.differences
    assert (difference.stage, difference.image) == ("delegate", 0)
    assert "(QUANTIZE), where QUANTIZE or DEQUANTIZE is part of its pass" in str(difference)
    assert not result.engines["delegate"].bit_equal and result.engines["lce"].bit_equal
