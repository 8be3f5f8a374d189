"""Verification passes what is right and fails what is wrong, whether the network is trained or not."""

import functools
import sys
import types

import larq as lq
import larq_rep_runtime
import numpy as np
import pytest
import tensorflow as tf
from support import bit_output_model, first_quick, images, one_padded, others_slow, randomize, shallow_resnet20

from larq_rep import layers
from larq_rep.converters import convert, executor, float_weights, lce, verify
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.converters.verification import delegate
from larq_rep.quantizers import RSign

keras = tf.keras.layers


@pytest.fixture(scope="module")
def converted(bits, rep_resnet):
    """Each model with its file."""
    resnet = randomize(shallow_resnet20(width=8, input_shape=(16, 16, 1)))
    models = {"bits": bits, "rep_resnet": rep_resnet, "resnet": resnet}
    return {name: (model, convert(model)[0]) for name, model in models.items()}


def reactnet_block() -> tf.keras.Model:
    """A channel-doubling block of Rep-ReActNet: two branches behind one shared RSign."""
    x = image = tf.keras.Input((8, 8, 3), name="image")
    x = layers.Repeat(2)(keras.Conv2D(16, 3, padding="same", name="stem")(x))
    sign = layers.RPReLU(name="rprelu1")(x)
    v = RSign(name="rsign")(sign)
    branches = []
    for branch in (1, 2):
        y = layers.RepQuantConv2D(
            16,
            1,
            input_quantizer=lq.quantizers.NoOp(precision=1),
            kernel_quantizer="scaled_sign",
            kernel_initializer=tf.keras.initializers.RandomUniform(0, 1e-3),
            use_bias=False,
            name=f"branch{branch}",
        )(v)
        y = keras.BatchNormalization(name=f"bn{branch}")(y)
        branches.append(keras.Add()([y, sign]))
    x = layers.RPReLU(name="rprelu2")(keras.Concatenate()(branches))
    return tf.keras.Model(image, keras.Dense(4, name="fc")(keras.GlobalAveragePooling2D()(x)), name="block")


# What is right passes


@pytest.mark.parametrize("name", others_slow(["bits", "rep_resnet", "resnet"], 1))
def test_the_delegate_gives_the_same_of_float16(converted, name):
    model, _ = converted[name]
    content, _ = convert(model, float_weights="float16")
    result = verify(model, content, images(model), runtime="delegate")
    assert result.ok, result.differences


def wrong_interpreter(wrong):
    """The delegate, but for what `wrong(arrays, result, whole)` makes of its results."""

    class Wrong(larq_rep_runtime.Interpreter):
        def invoke(self, arrays):
            whole = len(self.inputs) == 1 and self.inputs[0]["shape"][-1] == 1  # images have one channel here
            return [wrong(arrays, result, whole) for result in super().invoke(arrays)]

    return Wrong


def test_another_output_of_the_compiled_model_is_found(converted, monkeypatch):
    """One value of one image, by its last bit. Here the interpreter stands in for the CompiledModel."""
    of_compiled, wrong = larq_rep_runtime.interpreter.ENGINES, []

    def compiled(content, num_threads, **options):
        made = of_compiled["interpreter"](content, num_threads, **options)

        class Standin:
            def __getattr__(self, name):
                return getattr(made, name)

            def get_tensor(self, index):
                values = made.get_tensor(index)
                values[0, 3] = np.nextafter(values[0, 3], wrong.pop()) if wrong else values[0, 3]
                return values

        return Standin()

    monkeypatch.setitem(of_compiled, "compiled", compiled)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", types.SimpleNamespace(__version__="2.9"))
    monkeypatch.setattr(larq_rep_runtime.interpreter, "PACKAGES", ("tensorflow",))
    model, content = converted["resnet"]
    result = verify(model, content, images(model), runtime="compiled")
    assert result.ok and result.engines["compiled"].version == "2.9"
    assert result.engines["compiled"].bit_equal and result.engines["compiled"].images == 2
    wrong.append(np.float32(1e9))
    result = verify(model, content, images(model), runtime="compiled")
    assert [(d.stage, d.image) for d in result.differences] == [("compiled", 0)]
    assert "in 1 of 10 values" in str(result.differences[0])
    assert not result.engines["compiled"].bit_equal and result.engines["delegate"].bit_equal


def test_another_output_of_the_delegate_is_found(converted, monkeypatch):
    def of_whole_files(arrays, result, whole):
        return result * np.float32(1.001) if whole and arrays[0][0, 0, 0, 0] > 0 else result

    def of_its_part(arrays, result, whole):
        wrong = not whole and result.dtype == np.float32
        return result + np.float32(0.001) * (np.arange(result.size).reshape(result.shape) == 5 * wrong) * wrong

    model, content = converted["resnet"]
    batch = images(model)
    batch[:, 0, 0, 0] = -1, 1
    monkeypatch.setattr(larq_rep_runtime, "Interpreter", wrong_interpreter(of_whole_files))
    assert verify(model, content, batch, runtime="lce").ok
    for runtime in ({"runtime": "delegate"}, {}):
        result = verify(model, content, batch, **runtime)
        assert [(d.stage, d.image) for d in result.differences] == [("delegate", 1)]
        assert "on image 1 the delegate's output differs by 0.001" in str(result.differences[0])
    monkeypatch.setattr(larq_rep_runtime, "Interpreter", wrong_interpreter(of_its_part))
    result = verify(model, content, batch[:1], runtime="delegate")
    assert [d.stage for d in result.differences] == ["delegate"]
    assert result.differences[0].operator >= 0
    assert "gives another result than LCE's interpreter on image 0, in 1 values" in str(result.differences[0])
    assert not result.engines["delegate"].bit_equal and result.engines["lce"].bit_equal
    with pytest.raises(ValueError, match="runtime should be one of 'both', 'lce', 'delegate', 'compiled'"):
        verify(model, content, batch, runtime="tflite")


@pytest.mark.parametrize("fused", [True, False], ids=["where it is fused only", "everywhere"])
def test_a_wrong_convolution_of_the_delegate_is_found_by_plain_verify_and_located(converted, monkeypatch, fused):
    """As a clamp of packed sums would be, wrong in LCE's interpreter for nobody."""

    class Wrong(larq_rep_runtime.Interpreter):
        def __init__(self, *args, fuse=None, **kwargs):
            super().__init__(*args, fuse=fuse, **kwargs)
            self.wrong = fuse is not False or not fused

        def invoke(self, arrays):
            results = super().invoke(arrays)
            return [r ^ 64 if r.dtype == np.int32 and self.wrong else r for r in results]

    model, content = converted["bits"]
    # The packed output of the second convolution, so that a test of one engine alone can see it.
    flatbuffer = Flatbuffer(content)
    packed = bconvs(flatbuffer)[1]
    monkeypatch.setattr(larq_rep_runtime, "Interpreter", Wrong)
    monkeypatch.setattr(delegate, "exact_part", functools.partial(with_output, delegate.exact_part, packed.outputs[0]))
    result = verify(model, content, images(model, 1))
    (difference,) = result.differences
    assert difference.stage == "delegate" and not result.engines["delegate"].bit_equal
    if fused:
        assert (difference.layer, difference.operator) == ("conv2", packed.index)
        assert difference.message.endswith("only where it is fused with its neighbours")
    else:
        assert difference.message.endswith(f"operator {difference.operator} (LceQuantize) is the first, fused or not")
        assert difference.operator < packed.index


def with_output(exact_part, tensor, flatbuffer, outputs=None):
    if outputs is None:
        outputs = sorted({*exact_part(flatbuffer)[2], tensor})
    return exact_part(flatbuffer, outputs)


def test_what_was_proved_for_each_engine(converted):
    model, content = converted["bits"]
    result = verify(model, content, images(model, 3))
    assert result.ok and list(result.engines) == ["lce", "delegate"]
    assert [engine.images for engine in result.engines.values()] == [3, 3]
    names = [op.name for op in Flatbuffer(content).operators]
    ours = sum(name.startswith("Lce") for name in names)
    assert result.engines["lce"].operators == ours
    assert ours <= result.engines["delegate"].operators < len(names)
    assert result.engines["lce"].output_error == result.output_error
    assert result.engines["delegate"].implementation == larq_rep_runtime.available_implementations()[0]
    assert result.to_dict()["engines"]["delegate"]["bit_equal"]
    assert list(verify(model, content, images(model, 1), runtime="lce").engines) == ["lce"]


def test_missing_delegate(converted, monkeypatch, tmp_path):
    monkeypatch.setattr("larq_rep_runtime.library.__file__", str(tmp_path / "library.py"))
    model, content = converted["bits"]
    result = verify(model, content, images(model, 1))
    assert result.ok and list(result.engines) == ["lce"]
    assert any("was not compared" in note and "was not built" in note for note in result.notes)
    with pytest.raises(larq_rep_runtime.DelegateError, match="was not built"):
        verify(model, content, images(model, 1), runtime="delegate")


def test_lce_runs_once_an_image(converted, monkeypatch):
    """Both proofs take what one interpreter gives."""
    opened = []
    right = lce.any_interpreter
    monkeypatch.setattr(lce, "any_interpreter", lambda content: opened.append(content) or right(content))
    model, content = converted["bits"]
    assert verify(model, content, images(model, 1)).ok
    assert len(opened) == 1


@pytest.mark.parametrize(
    "build, trained",
    first_quick(
        [
            (bit_output_model, False),
            (bit_output_model, True),
            (reactnet_block, False),
            (reactnet_block, True),
            (functools.partial(shallow_resnet20, width=8, input_shape=(16, 16, 3)), False),
            (functools.partial(shallow_resnet20, rep=True, width=8, input_shape=(12, 16, 3), beta=4), True),
            (functools.partial(shallow_resnet20, width=8, input_shape=(16, 16, 3)), True),
            (functools.partial(shallow_resnet20, rep=True, width=8, input_shape=(12, 16, 3), beta=4), False),
        ],
        6,
    ),
)
def test_correct_conversion_passes(build, trained):
    model = randomize(build(), seed=3) if trained else build()
    result = verify(model, convert(model)[0], images(model, 3), runtime="delegate")
    assert result.ok, result.differences
    assert result.images == 3 and result.activations > 0
    assert result.convolutions == sum("conv" in layer.name or "branch" in layer.name for layer in binary(model))


def binary(model):
    return [layer for layer in model.layers if getattr(layer, "kernel_quantizer", None)]


@pytest.mark.parametrize(
    "sign",
    [
        lambda x: tf.where(x >= 0, 1.0, -1.0),
        lambda x: tf.where(x < 0, -1.0, 1.0),
        lambda x: tf.where(x >= tf.range(32.0) / 16 - 1, 1.0, -1.0),
        lambda x: tf.where(x > 0, 1.0, -1.0),
        lambda x: tf.where(x >= 0, -1.0, 1.0),
        lambda x: tf.where(tf.less_equal(0.0, x), 1.0, -1.0),
        lambda x: tf.where(x >= 0, tf.ones_like(x), -tf.ones_like(x)),
        lambda x: tf.where(tf.nn.relu(x) > 0, 1.0, -1.0),
        lambda x: tf.where(tf.nn.relu(x) >= 0.5, 1.0, -1.0),
    ],
)
def test_other_spellings_of_the_sign(sign):
    x = image = tf.keras.Input((6, 6, 32))
    x = lq.layers.QuantConv2D(32, 3, input_quantizer=sign, kernel_quantizer="ste_sign", use_bias=False)(x)
    model = randomize(tf.keras.Model(image, keras.BatchNormalization()(x)))
    result = verify(model, convert(model)[0], images(model))
    assert result.ok, result.differences
    assert result.activations == 2 * 6 * 6 * 32


def test_grouped_convolution():
    x = image = tf.keras.Input((6, 6, 64))
    x = lq.layers.QuantConv2D(
        8, 3, groups=2, input_quantizer="ste_sign", kernel_quantizer="ste_sign", use_bias=False, name="grouped"
    )(x)
    model = randomize(tf.keras.Model(image, keras.BatchNormalization()(x)))
    content, report = convert(model)
    assert [(f.rule, f.error) for f in report.findings] == [("does-not-load", False)]
    assert verify(model, content, images(model)).ok


def test_equal_weights_are_told_apart_by_their_data():
    """Parallel layers with the same kernel: only what flows through them shows which is which."""
    x = image = tf.keras.Input((6, 6, 32))
    branches = []
    for number in range(4):
        y = keras.BatchNormalization(name=f"bn{number}")(x)
        y = lq.layers.QuantConv2D(
            32, 3, padding="same", input_quantizer="ste_sign", kernel_quantizer="ste_sign", name=f"conv{number}"
        )(y)
        branches.append(y)
    model = randomize(tf.keras.Model(image, keras.Concatenate()(branches[::-1])))
    for number in range(1, 4):
        model.get_layer(f"conv{number}").set_weights(model.get_layer("conv0").get_weights())
    result = verify(model, convert(model)[0], images(model))
    assert result.ok, result.differences
    assert result.activations == 2 * 4 * 6 * 6 * 32


def bits_to_pool(x):
    x = lq.quantizers.SteSign()(keras.BatchNormalization()(one_padded()(x)))
    return keras.Dense(4)(keras.GlobalAveragePooling2D()(x))


def bits_to_output(x):
    return lq.quantizers.SteSign()(keras.BatchNormalization()(one_padded()(one_padded()(x))))


def flat_binary_dense(x):
    return lq.layers.QuantDense(4, input_quantizer="ste_sign", kernel_quantizer="ste_sign")(
        keras.Flatten()(one_padded(8)(x))
    )


def dilated(x):
    return one_padded(strides=2)(one_padded(dilation_rate=2)(x))


def normalized_offset(x):
    """A batch norm that takes a large mean away."""
    x = keras.Conv2D(32, 3)(x + 20.0)
    return one_padded()(keras.LayerNormalization()(x))


@pytest.mark.parametrize("build", [bits_to_pool, bits_to_output, flat_binary_dense, dilated, normalized_offset])
def test_other_structures(build):
    image = tf.keras.Input((8, 8, 32))
    model = randomize(tf.keras.Model(image, build(image)))
    result = verify(model, convert(model)[0], images(model))
    assert result.ok, result.differences
    assert not [note for note in result.notes if "not forced" in note]


def test_batch_norm_of_images_without_contrast():
    x = image = tf.keras.Input((8, 8, 3))
    x = keras.BatchNormalization(name="bn")(keras.Conv2D(32, 3, name="stem")(x))
    model = randomize(tf.keras.Model(image, one_padded()(x)))
    dull = 100 + images(model, 4)
    features = tf.keras.Model(image, model.get_layer("stem").output).predict(dull, verbose=0)
    gamma, beta, *_ = model.get_layer("bn").get_weights()
    model.get_layer("bn").set_weights([gamma, beta, features.mean((0, 1, 2)), features.var((0, 1, 2))])
    result = verify(model, convert(model)[0], dull)
    assert result.ok, result.differences


# What is wrong fails


def bconvs(flatbuffer):
    return [op for op in flatbuffer.operators if op.name == "LceBconv2d"]


def change(number, constant, edit):
    def apply(flatbuffer):
        op = bconvs(flatbuffer)[number]
        value = flatbuffer.constant(op.inputs[constant]).copy()
        edit(value)
        flatbuffer.set_constant(op.inputs[constant], value)

    return apply


def flip_weight(words):
    words[1, 0, 2, 0] ^= 1 << 5


def next_threshold(threshold):
    threshold[3] += 1


def lose_scale(multiplier):
    multiplier[2] = 1.0


def one_percent(multiplier):
    multiplier[2] *= 1.01


def add_little(bias):
    bias[2] += 0.01


def other_padding(number):
    def apply(flatbuffer):
        op = bconvs(flatbuffer)[number]
        flatbuffer.set_options(op, {**op.options, "pad_values": 1 - op.options["pad_values"]})

    return apply


def shift_dense_bias(flatbuffer):
    (op,) = (op for op in flatbuffer.operators if op.name == "FULLY_CONNECTED")
    bias = flatbuffer.constant(op.inputs[2]).copy()
    bias[1] += 0.01
    flatbuffer.set_constant(op.inputs[2], bias)


FAULTS = {
    "flipped weight": ("rep_resnet", change(2, 1, flip_weight), "weights", "layer1_1_conv1"),
    "flipped weight, bits": ("bits", change(1, 1, flip_weight), "weights", "conv2"),
    "padding": ("rep_resnet", other_padding(2), "sign", "layer1_1_conv2"),
    "threshold": ("bits", change(0, 4, next_threshold), "threshold", "conv1"),
    "threshold before a max-pool": ("bits", change(1, 4, next_threshold), "threshold", "conv2"),
    "lost scale": ("resnet", change(2, 2, lose_scale), "sign", "layer1_1_conv2"),
    "scale": ("resnet", change(2, 2, one_percent), "sign", "layer1_1_conv2"),
    "scale of the last convolution": ("bits", change(2, 2, one_percent), "output", "logits"),
    "bias": ("resnet", change(2, 3, add_little), "sign", "layer1_1_conv2"),
    "bias of the classifier": ("rep_resnet", shift_dense_bias, "output", "linear"),
}


@pytest.mark.parametrize("name, plant, stage, layer", FAULTS.values(), ids=FAULTS)
def test_planted_fault_is_found_where_it_is(converted, name, plant, stage, layer):
    model, content = converted[name]
    flatbuffer = Flatbuffer(content)
    plant(flatbuffer)
    result = verify(model, flatbuffer.pack(), images(model, 4))
    assert not result.ok
    assert (stage, layer) in [(d.stage, d.layer) for d in result.differences[:2]]


def test_flipped_weight_is_named(converted):
    model, content = converted["rep_resnet"]
    flatbuffer = Flatbuffer(content)
    change(2, 1, flip_weight)(flatbuffer)
    (difference,) = verify(model, flatbuffer.pack(), images(model)).differences
    size = int(np.prod(model.get_layer("layer1_1_conv1").kernel.shape))
    assert f"1 of {size} binary weights differ" in difference.message
    assert "row 0, column 2, input channel 5, output channel 1" in difference.message


def test_a_difference_says_what_lies_between(converted):
    model, content = converted["resnet"]
    flatbuffer = Flatbuffer(content)
    change(2, 2, one_percent)(flatbuffer)
    first = verify(model, flatbuffer.pack(), images(model)).differences[0]
    assert first.message.endswith("since the last comparison by layer1_1_conv1, layer1_1_bn1")


def test_classifier_behind_a_saturated_softmax():
    image = tf.keras.Input((6, 6, 32))
    x = keras.GlobalAveragePooling2D()(one_padded()(image))
    model = randomize(tf.keras.Model(image, keras.Dense(4, activation="softmax", name="logits")(x)))
    model.get_layer("logits").bias.assign([100.0, 0.0, 0.0, 0.0])
    flatbuffer = Flatbuffer(convert(model)[0])
    assert verify(model, flatbuffer.pack(), images(model)).ok
    shift_dense_bias(flatbuffer)
    assert {d.stage for d in verify(model, flatbuffer.pack(), images(model)).differences} == {"output"}


def test_sign_of_zero():
    """Behind a ReLU many values are 0, and what the sign of that is makes the difference."""
    x = image = tf.keras.Input((6, 6, 32))
    x = tf.where(tf.nn.relu(x) > 0, 1.0, -1.0)
    x = lq.layers.QuantConv2D(8, 3, kernel_quantizer="ste_sign", use_bias=False, name="conv")(x)
    strict = randomize(tf.keras.Model(image, x))
    loose_x = lq.quantizers.SteSign()(tf.nn.relu(image))
    loose = tf.keras.Model(image, strict.get_layer("conv")(loose_x))
    content, _ = convert(loose)
    assert verify(loose, content, images(loose)).ok
    assert not verify(strict, content, images(strict)).ok


def test_file_of_another_model(converted):
    _, content = converted["bits"]
    model = bit_output_model()
    result = verify(model, content, images(model))
    assert {d.stage for d in result.differences} == {"weights"}
    other = shallow_resnet20(width=8, input_shape=(16, 16, 3))
    with pytest.raises(ValueError, match="input shapes .* the model .*: it was made from another network"):
        verify(other, content, images(other))


def test_images_that_do_not_fit(converted):
    model, content = converted["bits"]
    with pytest.raises(ValueError, match=r"Expected images of shape \(N, 12, 12, 3\), found \(2, 8, 8, 3\)"):
        verify(model, content, np.zeros((2, 8, 8, 3), np.float32))


def test_wrong_operator_is_found(converted, monkeypatch):
    """A kernel that computes something else than its definition, as LCE's on small maps."""
    model, content = converted["bits"]
    right = executor.bconv2d
    monkeypatch.setattr(executor, "bconv2d", lambda *args: right(*args) + 1)
    stages = {d.stage for d in verify(model, content, images(model, 1)).differences}
    assert stages == {"operator"}


# Smaller storage


@pytest.mark.parametrize("storage", ["float16", "int8"])
def test_compressed_file(storage):
    model = randomize(reactnet_block())
    x = keras.Dense(300, name="wide")(model.output)
    model = randomize(tf.keras.Model(model.input, x))
    content, _ = convert(model, float_weights=storage)
    assert verify(model, content, images(model)).ok
    flatbuffer = Flatbuffer(content)
    dequantize = next(op for op in flatbuffer.operators if op.name == "DEQUANTIZE")
    value = flatbuffer.constant(dequantize.inputs[0]).copy()
    value.reshape(-1)[7] += value.dtype.type(3)
    flatbuffer.set_constant(dequantize.inputs[0], value)
    changed = flatbuffer.pack()
    assert float_weights.storage(changed) == storage
    (difference,) = verify(model, changed, images(model)).differences
    assert difference.stage == "weights" and "where its storage allows" in difference.message

    flatbuffer = Flatbuffer(content)
    pooling = next(op for op in flatbuffer.operators if op.name == "MEAN")
    pooling.options.keepDims = not pooling.options.keepDims
    assert [d.stage for d in verify(model, flatbuffer.pack(), images(model)).differences] == ["structure"]
    flatbuffer = Flatbuffer(content)
    (classifier, *_) = (op for op in flatbuffer.operators if op.name == "FULLY_CONNECTED" and op.inputs[2] >= 0)
    flatbuffer.set_constant(classifier.inputs[2], np.full(flatbuffer.shape(classifier.inputs[2]), np.nan, np.float32))
    assert [d.stage for d in verify(model, flatbuffer.pack(), images(model)).differences] == ["weights"]


def test_convolution_that_was_allowed_to_stay_float():
    x = image = tf.keras.Input((6, 6, 32))
    for number in range(2):
        x = lq.layers.QuantConv2D(
            32, 3, input_quantizer="ste_sign", kernel_quantizer="ste_sign", use_bias=False, name=f"conv{number}"
        )(x)
    x = lq.layers.QuantConv2D(
        8, 1, groups=2, input_quantizer="ste_sign", kernel_quantizer="ste_sign", use_bias=False, name="groups"
    )(x)
    model = randomize(tf.keras.Model(image, x))
    content, _ = convert(model, allow_float=True)
    result = verify(model, content, images(model))
    assert result.ok, result.differences
    assert result.convolutions == 2 and any("groups: stayed float" in note for note in result.notes)
