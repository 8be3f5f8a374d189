"""Models as people have them: by name, as a run, without sizes, subclassed, with raw images, with LCE's arguments."""

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from support import one_padded, randomize

from larq_rep import training, zoo
from larq_rep.converters import ConversionError, convert, convert_keras_model, metadata, verify
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.converters.lce import interpreter
from larq_rep.converters.loading import LoadingError, load
from larq_rep.layers import Mirror
from larq_rep.training.augmentation import Augmentation
from larq_rep.training.schedules import Cosine
from larq_rep.zoo.runs import network

keras = tf.keras.layers


def images(*shape, seed=0):
    """Raw images, as a camera gives them."""
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def body(x):
    x = keras.BatchNormalization()(keras.Conv2D(32, 3, padding="same")(x))
    return keras.Dense(5)(keras.GlobalAveragePooling2D()(one_padded()(x)))


def model_of(*layers, shape=(12, 14, 3), dtype="float32"):
    x = image = tf.keras.Input(shape, dtype=dtype, name="image")
    for layer in layers:
        x = layer(x)
    return randomize(tf.keras.Model(image, body(x)))


def agrees(model, content, x, **tolerance):
    """The file computes what the model does, and the proof says so."""
    for one in x:
        found = interpreter(content).predict(one[np.newaxis])
        expected = model.predict(one[np.newaxis], verbose=0)
        np.testing.assert_allclose(found, expected, **{"atol": 2e-4, "rtol": 1e-5, **tolerance})
    assert verify(model, content, x, runtime="lce").ok


# Names and runs


def test_name_of_the_zoo():
    """It has one set of initial values, whatever was random before."""
    content, report = convert("RepVGGSmall")
    assert report.bitpacked == report.binary == 5
    assert metadata.read(content)["network"] == "RepVGGSmall"
    x = images(1, 32, 32, 3) / 255.0
    tf.keras.utils.set_random_seed(1)
    assert verify("RepVGGSmall", content, x, runtime="lce").ok
    others = zoo.RepVGGSmall().get_weights()
    assert any(np.any(w != other) for w, other in zip(load("RepVGGSmall").get_weights(), others, strict=True))


def test_run(tmp_path):
    """Its best weights, prepared images and classes."""
    run = tmp_path / "run"
    phase = training.Phase(epochs=1, batch_size=512, optimizer="adam", learning_rate=0.01, schedule=Cosine())
    recipe = training.Recipe("test", "none", "digits", "inferred", "none", Augmentation(), (phase,))
    config = training.Config("VGGSmall", "digits", recipe, {"width": 4, "input_size": [16, 16]}, channels=1)
    (run / "1-binary").mkdir(parents=True)
    config.write(run)
    for seed, name in enumerate(("last", "best")):
        randomize(network(config), seed).save_weights(run / "1-binary" / f"{name}.h5")
    model = load(str(run))
    for found, expected in zip(model.get_weights(), training.load(network, run).get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
    content, _ = convert(run)
    about = metadata.read(content)
    assert metadata.preparation(about, (16, 16, 1)) == Augmentation().at((16, 16), 1)
    assert about["classes"] == list("0123456789")
    assert verify(run, content, images(1, 16, 16, 1) / 255.0, runtime="lce").ok
    next(run.rglob("best.h5")).unlink()
    with pytest.raises(LoadingError, match="folder of a run, but .*there is no .*best.h5 yet.*lqr resume"):
        convert(run)


# Raw images

BEGINNINGS = {
    "Rescaling": lambda: [keras.Rescaling(1 / 127.5, -1)],
    "Normalization": lambda: [keras.Normalization(mean=[120.0, 110.0, 100.0], variance=[3000.0, 3500.0, 4000.0])],
    "Resizing": lambda: [keras.Resizing(8, 8), keras.Rescaling(1 / 255)],
    "Resizing behind": lambda: [keras.Rescaling(1 / 255), keras.Resizing(15, 16)],
    "nearest": lambda: [keras.Resizing(8, 8, interpolation="nearest"), keras.Rescaling(1 / 255)],
    "cropped": lambda: [keras.Resizing(8, 8, crop_to_aspect_ratio=True), keras.Rescaling(1 / 255)],
}


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("name", BEGINNINGS)
def test_raw_images(name, dtype):
    """A model of bytes becomes a file of bytes, without a scale: they are the levels."""
    model = model_of(*BEGINNINGS[name](), dtype=dtype)
    content, report = convert(model)
    assert (report.bitpacked, report.binary, report.findings) == (1, 1, [])
    flatbuffer = Flatbuffer(content)
    assert flatbuffer.dtype(flatbuffer.inputs[0]) == dtype and flatbuffer.shape(flatbuffer.inputs[0]) == (1, 12, 14, 3)
    x = images(2, 12, 14, 3)
    assert verify(model, content, x, runtime="lce").ok
    assert metadata.preparation(metadata.read(content), (12, 14, 3)).range == (0, 255)


# Free sizes


def saved(model, path):
    model.save(path)
    return path


@pytest.mark.parametrize("kind", ["model", "m.h5", "m.keras", "folder", "export"])
def test_free_size(kind, tmp_path, capsys):
    model = model_of(keras.Rescaling(1 / 255), shape=(None, None, 3))
    source = model
    if kind == "export":
        source = tmp_path / kind
        model.export(source)
    elif kind != "model":
        source = saved(model, tmp_path / kind)
    with pytest.raises(ConversionError, match="dynamic-size.*--input-size.*example="):
        convert(source)
    x = images(2, 10, 9, 3).astype(np.float32)
    content, report = convert(source, example=x)
    flatbuffer = Flatbuffer(content)
    assert flatbuffer.shape(flatbuffer.inputs[0]) == (1, 10, 9, 3) and report.bitpacked == report.binary == 1
    np.testing.assert_allclose(
        interpreter(content).predict(x[:1]), model.predict(x[:1], verbose=0), atol=2e-4, rtol=1e-5
    )
    assert verify(source, content, x, runtime="lce").ok


def test_free_sizes_of_several_inputs():
    a, b = tf.keras.Input((None, 3), name="a"), tf.keras.Input((4,), 2, name="b")
    model = tf.keras.Model([a, b], keras.GlobalAveragePooling1D()(keras.Conv1D(4, 2)(a))[:2] + b)
    x = {"b": np.ones((2, 4), np.float32), "a": np.arange(30, dtype=np.float32).reshape(2, 5, 3)}
    fixed = load(model, x)
    assert [tuple(y.shape) for y in fixed.inputs] == [(None, 5, 3), (2, 4)]
    assert fixed.input_names == ["a", "b"]
    np.testing.assert_allclose(fixed([x["a"], x["b"]]), model([x["a"], x["b"]]))
    assert load(fixed, x) is fixed


def test_example_that_does_not_fit():
    model = model_of(shape=(None, 12, 3))
    with pytest.raises(LoadingError, match=r"takes \(None, None, 12, 3\) as image, found \(1, 8, 8, 3\). Only free"):
        convert(model, example=images(1, 8, 8, 3))
    with pytest.raises(LoadingError, match=r"found \(1, 8, 8, 3\)"):
        convert(model_of(), example=images(1, 8, 8, 3))
    with pytest.raises(ValueError, match="arrays for 1 inputs .image., in a list or by name, found 2"):
        convert(model, example=[images(1, 8, 12, 3)] * 2)
    image = tf.keras.Input((None, None, 3))
    valid = tf.keras.Model(image, keras.Conv2D(2, 5)(image))
    with pytest.raises(LoadingError, match="cannot be called with it: .* of sizes that all its layers fit"):
        convert(valid, example=images(1, 3, 3, 3))


# Models without inputs


class Subclassed(tf.keras.Model):
    def __init__(self):
        super().__init__()
        self.conv, self.pool, self.dense = one_padded(), keras.GlobalAveragePooling2D(), keras.Dense(3)

    def call(self, inputs, training=None):
        y = self.conv(inputs["image"]) * inputs["scale"]
        return {"logits": self.dense(self.pool(y)), "map": y}


def test_subclassed_model_that_was_never_called():
    model = Subclassed()
    with pytest.raises(ConversionError, match="not-built.*example="):
        convert(model)
    rng = np.random.default_rng(0)
    x = {"image": rng.standard_normal((1, 6, 6, 32)), "scale": rng.standard_normal((1, 1, 1, 32))}
    content, report = convert(model, example=x)
    assert (report.bitpacked, report.binary, report.findings) == (1, 1, [])
    x = {name: array.astype(np.float32) for name, array in x.items()}
    found = interpreter(content).predict([x["image"], x["scale"]])
    expected = model(x)
    for y, name in zip(found, ("logits", "map"), strict=True):
        np.testing.assert_allclose(y, expected[name], rtol=4e-6, atol=2e-4)
    assert verify(Subclassed(), content, x, runtime="lce").ok is False  # Its weights are others.
    assert verify(model, content, x, runtime="lce").ok


class TwoArguments(tf.keras.Model):
    def __init__(self):
        super().__init__()
        self.conv, self.pool = one_padded(), keras.GlobalAveragePooling2D()

    def call(self, image, scale, training=None):
        return self.pool(self.conv(image)) * scale


@pytest.mark.parametrize("how", ["list", "names", "called", "keyword"])
def test_call_of_several_arguments(how):
    """They become inputs of their names, in their order."""
    model = TwoArguments()
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((2, *shape)).astype(np.float32) for shape in ((6, 6, 32), (32,)))
    example = {"list": [x, y], "names": {"scale": y, "image": x}}.get(how)
    if how == "called":
        model(x, y, training=False)
    elif how == "keyword":
        model(x, scale=y)
    content, report = convert(model, example=example)
    flatbuffer = Flatbuffer(content)
    assert [flatbuffer.name(tensor) for tensor in flatbuffer.inputs] == ["image", "scale"] and report.bitpacked == 1
    found = interpreter(content).interpreter.predict([x[:1], y[:1]])[0]
    np.testing.assert_allclose(found, model(x, y)[:1], rtol=4e-6, atol=2e-4)


def test_layers_keep_their_names_when_a_size_is_chosen():
    """Those of models in the model, too, and the inputs and outputs; a Mirror at the beginning is still found."""
    x = image = tf.keras.Input((None, None, 32), name="image")
    inner = tf.keras.Model(image, one_padded(name="signs")(x), name="inner")
    x = photo = tf.keras.Input((None, None, 32), name="photo")
    x = keras.GlobalAveragePooling2D(name="pool")(inner(Mirror()(x)))
    model = tf.keras.Model(photo, {"mean": x}, name="outer")
    fixed = load(model, images(1, 6, 7, 32))
    assert [layer.name for layer in fixed.layers] == [layer.name for layer in model.layers]
    content, _ = convert(model, example=images(1, 6, 7, 32), mirrored_input=True)
    flatbuffer = Flatbuffer(content)
    assert [flatbuffer.name(tensor) for tensor in (*flatbuffer.inputs, *flatbuffer.outputs)] == ["photo", "mean"]
    x = np.random.default_rng(0).standard_normal((1, 6, 7, 32)).astype(np.float32)
    found = interpreter(content).predict(np.ascontiguousarray(x[:, ::-1, ::-1]))
    np.testing.assert_allclose(found, model(x)["mean"], rtol=4e-6, atol=2e-4)


def test_sequential_model_without_a_shape():
    model = tf.keras.Sequential([keras.Rescaling(1 / 255), one_padded(), keras.Flatten(), keras.Dense(2)])
    x = images(1, 6, 6, 32)
    content, report = convert(model, example=x)
    assert (report.bitpacked, report.binary) == (1, 1)
    agrees(model, content, x)


def test_size_of_the_example_wins_over_that_of_a_call():
    class Pooled(tf.keras.Model):
        def call(self, x):
            return tf.reduce_mean(x, [1, 2])

    model = Pooled()
    model(np.zeros((1, 4, 4, 3), np.float32))
    flatbuffer = Flatbuffer(convert(model, example=np.zeros((1, 5, 7, 3), np.float32))[0])
    assert flatbuffer.shape(flatbuffer.inputs[0]) == (1, 5, 7, 3)


def test_call_that_cannot_be_traced():
    class Eager(tf.keras.Model):
        def call(self, x):
            return x * float(x.numpy().max())

    with pytest.raises(LoadingError, match="example: eager cannot be called with it: .*numpy"):
        convert(Eager(name="eager"), example=np.zeros((1, 4), np.float32))


# The arguments of LCE


def test_defaults_of_lce():
    model = model_of()
    how = dict(inference_input_type=tf.float32, inference_output_type=tf.float32, target="arm")
    content = convert_keras_model(model, **how, experimental_default_int8_range=None)
    assert content == convert(model)[0]


def test_findings_become_warnings():
    dense = lq.layers.QuantDense(32, kernel_quantizer="ste_sign", name="dense")
    image = tf.keras.Input((32,))
    with pytest.warns(UserWarning, match="binary-weight-float: dense: "):
        convert_keras_model(tf.keras.Model(image, dense(image)))


@pytest.mark.parametrize(
    "how, words",
    [
        ({"inference_output_type": tf.float16}, "inference_output_type should be tf.float32, tf.int8 or .* tf.float16"),
        ({"target": "xcore"}, "target: .* larq_compute_engine.convert_keras_model with target='xcore'"),
        ({"target": "x86"}, "target should be 'arm', which is for x86 as well, found 'x86'"),
        ({"experimental_default_int8_range": (-1, 1)}, "one range for all tensors.*int8=images"),
    ],
)
def test_arguments_of_lce_that_are_refused(how, words):
    with pytest.raises(ValueError, match=words):
        convert(tf.keras.Sequential(), **how)


def test_integers_without_a_scale():
    model = model_of()
    with pytest.raises(
        ValueError, match="inference_input_type tf.uint8: the input .* is read by CONV_2D, .*int8=images"
    ):
        convert(model, inference_input_type=tf.uint8)
    with pytest.raises(ValueError, match="inference_output_type tf.int8: the output .* written by FULLY_CONNECTED"):
        convert(model, inference_output_type=tf.int8)
    raw = model_of(keras.Rescaling(1 / 255), dtype="uint8")
    with pytest.raises(ValueError, match="inference_input_type tf.int8: the model itself has uint8: leave it out"):
        convert(raw, inference_input_type=tf.int8)
    assert convert(raw, inference_input_type=tf.uint8)[0] == convert(raw)[0]


# Images to measure ranges on


def test_images_of_several_inputs():
    a, b = tf.keras.Input((8, 8, 32), name="a"), tf.keras.Input((8, 8, 32), name="b")
    model = tf.keras.Model([a, b], body(keras.Concatenate()([a, b])))
    x, y = (images(3, 8, 8, 32, seed=seed) / 255.0 for seed in range(2))
    content = convert(model, int8=[x, y])[0]
    for given in ({"b": y, "a": x}, [[x[:2], y[:2]], [x[2:], y[2:]]], iter([(x, y)]), [{"a": x, "b": y}]):
        assert convert(model, int8=given)[0] == content
    assert convert(model, int8=[y, x])[0] != content


def test_mirrored_images_are_given_as_the_model_takes_them():
    image = tf.keras.Input((12, 14, 3))
    model = randomize(tf.keras.Model(image, body(Mirror()(image))))
    x = images(4, 12, 14, 3) / 255.0
    plain, mirrored = (convert(model, int8=x, mirrored_input=mirrored)[1].int8 for mirrored in (False, True))
    assert (plain.change, plain.mean_change) == pytest.approx((mirrored.change, mirrored.mean_change), rel=1e-4)


@pytest.mark.parametrize("given", [True, "photos"])
def test_what_is_no_images(given):
    with pytest.raises(
        ValueError, match=f"Expected images as an array, .* found {given!r}. .*image_folder reads a folder"
    ):
        convert(model_of(), int8=given)
