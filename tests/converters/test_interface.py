"""Inputs and outputs of a file: in the order of the model, with its names, as tensors and as a signature."""

import collections
import itertools

import larq_compute_engine
import larq_rep_runtime
import numpy as np
import pytest
import tensorflow as tf
from support import one_padded, randomize

from larq_rep.converters import convert, describe, fold
from larq_rep.converters.float_weights import expand
from larq_rep.converters.lce import interpreter
from larq_rep.layers import Mirror

keras = tf.keras.layers
Pair = collections.namedtuple("Pair", "z a")


def image(name=None, channels=32):
    return tf.keras.Input((4, 4, channels), name=name)


def binary(x, filters=32):
    return keras.BatchNormalization()(one_padded(filters)(x))


def body(x):
    return keras.GlobalAveragePooling2D()(binary(x))


def head(name, x, units=3):
    return keras.Dense(units, name=name)(x)


def dictionary():
    x = body(i := image("photo"))
    return i, {"logits": head("a", x), "boxes": head("b", x)}, ["photo"], ["boxes", "logits"]


def of_layers():
    x = body(i := image("photo"))
    names = ["zeta", "alpha", "mid"]
    return i, [head(name, x) for name in names], ["photo"], names


def nested():
    x = body(i := image("photo"))
    structure = {"z": [head("1", x), head("2", x)], "a": {"y": head("3", x), "b": head("4", x)}, "m": Pair(x, x)}
    return i, structure, ["photo"], ["a_b", "a_y", "m_z", "m_a", "z_0", "z_1"]


def list_of_dictionaries():
    x = body(i := image("photo"))
    return i, [{"k": head("1", x)}, head("2", x), {"k": head("3", x)}], ["photo"], ["k", "2", "k_1"]


def named_tuple():
    x = body(i := image("photo"))
    return i, Pair(head("1", x), head("2", x)), ["photo"], ["z", "a"]


def intermediate():
    x = body(i := image("photo"))
    return i, [x, head("top", x), keras.ReLU(name="cut")(x)], ["photo"], [x.node.layer.name, "top", "cut"]


def twice():
    y = head("same", body(i := image("photo")))
    return i, [y, head("other", y), y], ["photo"], ["same", "other", "same_1"]


def input_as_output():
    i = image("photo")
    return i, {"copy": i, "answer": head("1", body(i))}, ["photo"], ["answer", "copy"]


def one_layer_twice():
    x, layer = body(i := image("photo")), keras.Dense(3, name="shared")
    outputs = [layer(x), layer(-x), head("shared_1", x)]
    return i, outputs, ["photo"], ["shared", "shared_1", "shared_1_1"]


def odd_names():
    x = body(i := image("the/photo"))
    structure = {key: head(f"layer{n}", x) for n, key in enumerate(("a/b", "a:0", "ü λ", "", "a b"))}
    return i, structure, ["the/photo"], ["layer3", "a b", "a/b", "a:0", "ü λ"]


def several_inputs():
    b, a = image("right"), image("left")
    return (
        [b, a],
        [keras.Subtract(name="difference")([binary(b), a]), binary(a)],
        ["right", "left"],
        ["difference", None],
    )


def dictionary_of_inputs():
    x, w = image("first"), image("second")
    return {"x": x, "w": w}, {"o": keras.Subtract()([binary(x), w])}, ["w", "x"], ["o"]


def unet():
    i = image("photo")
    a = binary(i)
    b = binary(keras.MaxPool2D()(a))
    c = keras.Concatenate()([keras.UpSampling2D()(b), a])
    return (
        i,
        [keras.Conv2D(2, 1, name="mask")(c), b, keras.Conv2D(2, 1, name="depth")(c)],
        ["photo"],
        ["mask", None, "depth"],
    )


MODELS = [
    dictionary,
    of_layers,
    nested,
    list_of_dictionaries,
    named_tuple,
    intermediate,
    twice,
    input_as_output,
    one_layer_twice,
    odd_names,
    several_inputs,
    dictionary_of_inputs,
    unet,
]


def check(content, model, inputs, outputs):
    """The file gives the outputs of the model, in their order and under their names, on both runtimes."""
    rng = np.random.default_rng(0)
    x = [rng.standard_normal((1, *x.shape[1:])).astype(np.float32) for x in model.inputs]
    expected = tf.nest.flatten(model(tf.nest.pack_sequence_as(model.input, x), training=False))
    for found, y in zip(interpreter(content).interpreter.predict(x), expected, strict=True):
        np.testing.assert_allclose(found, y, atol=2e-4)
    delegate = tf.lite.experimental.load_delegate(str(larq_rep_runtime.delegate_path()))
    runtime = tf.lite.Interpreter(model_content=content, experimental_delegates=[delegate])
    signatures = runtime.get_signature_list()
    assert list(signatures) == ["serving_default"]
    assert signatures["serving_default"] == {"inputs": sorted(inputs), "outputs": sorted(outputs)}
    found = runtime.get_signature_runner()(**dict(zip(inputs, x, strict=True)))
    for name, y in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(found[name], y, atol=2e-4, err_msg=name)


@pytest.mark.parametrize("build", MODELS)
def test_order_and_names(build):
    structure, outputs, input_names, output_names = build()
    model = randomize(tf.keras.Model(structure, outputs))
    names = [name or layer for name, layer in zip(output_names, model.output_names, strict=True)]
    content, _ = convert(model)
    check(content, model, input_names, names)
    about = describe(content)
    assert [tensor.name for tensor in about.inputs] == input_names
    single = {"m_a": "m_z", "same_1": "same", "copy": "photo"}  # one tensor of two names has the first
    assert [tensor.name for tensor in about.outputs] == [single.get(name, name) for name in names]


def test_names_are_kept():
    """By folding, by every storage of weights and by what leaves out the mirror."""
    i = image("photo", 3)
    x = body(keras.Conv2D(32, 3, padding="same")(Mirror()(i)))
    model = randomize(tf.keras.Model(i, {"logits": head("a", x, 300), "boxes": head("b", x)}))
    files = {storage: convert(model, float_weights=storage)[0] for storage in ("float32", "float16", "int8")}
    files["mirrored"], _ = convert(model, mirrored_input=True)
    files["folded"], _ = fold(convert(model, fold=False)[0])
    files["expanded"], _ = expand(files["int8"])
    for kind, content in files.items():
        runner = tf.lite.Interpreter(
            model_content=content,
            experimental_delegates=[tf.lite.experimental.load_delegate(str(larq_rep_runtime.delegate_path()))],
        ).get_signature_runner()
        found = runner(photo=np.zeros((1, 4, 4, 3), np.float32))
        assert {name: y.shape for name, y in found.items()} == {"logits": (1, 300), "boxes": (1, 3)}, kind
        assert [tensor.name for tensor in describe(content).outputs] == ["boxes", "logits"], kind


def test_fold_keeps_the_signature_of_other_files():
    x = body(i := image("photo"))
    model = randomize(tf.keras.Model(i, [head("one", x), head("two", x)]))
    content, _ = fold(larq_compute_engine.convert_keras_model(model))
    x = np.random.default_rng(0).standard_normal((1, 4, 4, 32)).astype(np.float32)
    delegate = tf.lite.experimental.load_delegate(str(larq_rep_runtime.delegate_path()))
    runner = tf.lite.Interpreter(model_content=content, experimental_delegates=[delegate]).get_signature_runner()
    for name, y in zip(("one", "two"), model(x), strict=True):
        np.testing.assert_allclose(runner(photo=x)[name], y, atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30))
def test_random_structures(seed):
    """Outputs of one shape, so that only their values tell them apart, in any structure and order."""
    rng = np.random.default_rng(seed)
    inputs = [image(f"in{n}") for n in rng.permutation(rng.integers(1, 4))]
    tensors = [binary(x) for x in inputs]
    tensors += [keras.Add()([binary(a), b]) for a, b in itertools.pairwise([*tensors, *tensors])]
    tensors += [*inputs, tensors[0]]
    keys = iter(rng.permutation(["a", "b/c", "d:0", "Z", "é", "1", "10", "2", "same", "photo", "x", "y", "w", "v"]))

    def structure(parts):
        if len(parts) == 1:
            return parts[0]
        cut = rng.integers(1, len(parts))
        left, right = structure(parts[:cut]), structure(parts[cut:])
        return [left, right] if rng.random() < 0.5 else {str(next(keys)): left, str(next(keys)): right}

    chosen = [tensors[i] for i in rng.permutation(len(tensors))[: rng.integers(1, 7)]]
    model = randomize(tf.keras.Model(inputs, structure(chosen)), seed)
    content, _ = convert(model)
    outputs = [entry.name.decode() for entry in signature(content).outputs]
    assert len({*outputs}) == len(chosen)
    check(content, model, [x.node.layer.name for x in inputs], outputs)


def signature(content):
    from larq_rep.converters.flatbuffer import Flatbuffer

    return Flatbuffer(content).model.signatureDefs[0]
