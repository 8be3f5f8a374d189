"""`lce convert --int8` and `lce quantize`: the images that they measure ranges on, what they write and refuse."""

import json
import re

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from commands import refused, run
from PIL import Image
from support import randomize

from larq_rep import data, training
from larq_rep.converters import convert, lce, metadata
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.images import Preparation
from larq_rep_cli import calibrating

keras = tf.keras.layers
SIGNS = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}


def network(channels=1, batch=None):
    x = image = tf.keras.Input((8, 8, channels), batch, name="image")
    x = keras.BatchNormalization()(keras.Conv2D(32, 3, padding="same")(x))
    x = keras.BatchNormalization()(lq.layers.QuantConv2D(128, 3, **SIGNS)(x))
    # Large enough for int8 to be faster.
    x = keras.GlobalAveragePooling2D()(keras.Conv2D(256, 1)(keras.ReLU()(keras.Conv2D(256, 3)(x))))
    return randomize(tf.keras.Model(image, keras.Dense(10)(x), name="mine"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The network and its float file."""
    folder = tmp_path_factory.mktemp("int8")
    model = network()
    model.save(folder / "mine.h5")
    (folder / "mine.tflite").write_bytes(convert(model)[0])
    return folder / "mine.h5", folder / "mine.tflite"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two classes of four images, each of one level of grey: 0, 1, ... 7 tens."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(8):
        (folder / "ab"[number // 4]).mkdir(exist_ok=True)
        Image.new("L", (20, 12), 10 * number).save(folder / "ab"[number // 4] / f"{number}.png")
    return folder


def calibration(calibrate, images=None, **changes):
    given = {"mean": None, "std": None, "resize": None, **changes}
    return calibrating.Calibration(calibrate, images, None, **given)


# Which images


def levels(arrays):
    return [float(x) for x in arrays[:, 0, 0, 0]]


def test_images_of_a_folder_are_from_all_classes(files, pictures, capsys):
    [found], _ = calibrating.of_file(calibration(str(pictures), 4), "mine", files[1].read_bytes())
    assert found.shape == (4, 8, 8, 1) and found.dtype == np.float32
    np.testing.assert_allclose(levels(found), np.array([0, 20, 40, 60]) / 255, rtol=1e-6)
    assert "Calibration with 4 images" in capsys.readouterr().err
    [found], _ = calibrating.of_file(calibration(str(pictures / "b")), "mine", files[1].read_bytes())
    assert len(found) == 4
    assert "There are only 4 images, not 100: all are used." in capsys.readouterr().err


def test_images_are_prepared_as_the_file_says_or_the_options(files, pictures):
    content = files[1].read_bytes()
    said = Preparation(size=(8, 8), channels=1, range=(0, 255), mean=(10.0,), std=(2.0,))
    knowing = metadata.attach(content, metadata.of_network("mine", said, None, True))
    # `quantize` mirrors them.
    [found], _ = calibrating.of_file(calibration(str(pictures)), "mine", knowing)
    np.testing.assert_allclose(levels(found), (10 * np.arange(8) - 10) / 2, atol=1e-5)
    [found], _ = calibrating.of_file(calibration(str(pictures), mean=(0.5,), std=(0.25,)), "mine", content)
    np.testing.assert_allclose(levels(found), (10 * np.arange(8) / 255 - 0.5) / 0.25, atol=1e-5)


def test_digits_are_not_those_of_tests():
    [found], _ = calibrating.of_model(calibration("digits", 200), "mine", network(), seed=3)
    train, test = (np.round(255 * data.digits(part)[0]).reshape(-1, 64) for part in ("train", "test"))
    known = {tuple(image) for image in train} - {tuple(image) for image in test}
    assert {tuple(image) for image in np.round(255 * found).reshape(-1, 64)} <= known and len(found) == 200


def test_a_run_knows_its_images(tmp_path, pictures):
    """Those of training, without augmentation."""
    (tmp_path / "data").mkdir()
    for part in ("train", "test"):
        (tmp_path / "data" / part).symlink_to(pictures)
    recipe = training.get_recipe("recu")
    training.Config("ResNet20", str(tmp_path / "data"), recipe, channels=1, num_classes=2).write(tmp_path)
    [found], prepare = calibrating.of_model(calibration(None), str(tmp_path), network(), seed=0)
    assert sorted(levels(found)) == pytest.approx(10 * np.arange(8) / 255) and prepare.range == (0, 1)


def test_whole_batches_and_integers(pictures):
    [found], _ = calibrating.of_model(calibration(str(pictures), 7), "mine", network(batch=3), seed=0)
    assert len(found) == 6
    [found], _ = calibrating.of_model(calibration(str(pictures), 2), "mine", network(batch=3), seed=0)
    assert levels(found) == pytest.approx([0, 40 / 255, 0])
    raw = tf.keras.Input((8, 8, 1), dtype="uint8")
    model = tf.keras.Model(raw, keras.Flatten()(tf.cast(raw, "float32")))
    [found], _ = calibrating.of_model(calibration(str(pictures)), "mine", model, seed=0)
    assert found.dtype == np.uint8 and levels(found) == [0, 10, 20, 30, 40, 50, 60, 70]


def test_noise_for_any_inputs(capsys):
    a, b = tf.keras.Input((4,)), tf.keras.Input((6,), dtype="int32")
    model = tf.keras.Model([a, b], keras.Dense(4)(a) + keras.Embedding(3, 4)(b)[:, 0])
    found, prepare = calibrating.of_model(calibration("random", 5), "mine", model, seed=0)
    assert [(x.shape, x.dtype) for x in found] == [((5, 4), np.float32), ((5, 6), np.int32)] and prepare is None
    assert "Noise says little" in capsys.readouterr().err
    found, _ = calibrating.of_file(calibration("random", 40), "mine", convert(model)[0])
    assert found[1].max() == 2 and found[1].shape == (40, 6)


# What is written


def test_convert_and_quantize_do_the_same(files, tmp_path):
    """And to as much as they say."""
    model, file = files
    converted, quantized = tmp_path / "a.tflite", tmp_path / "b.tflite"
    result = run("convert", model, "-o", converted, "--int8", "--calibrate", "digits", "--seed", 0)
    assert result.exit_code == 0, result.stderr
    options = ("--calibrate", "digits", "--json")
    found = json.loads(run("quantize", file, "-o", quantized, *options).stdout)
    a, b = (Flatbuffer(path.read_bytes()) for path in (converted, quantized))
    said = [metadata.preparation(metadata.read(path.read_bytes()), (8, 8, 1)) for path in (converted, quantized)]
    assert said == [Preparation(size=(8, 8), channels=1)] * 2
    assert [(op.name, op.inputs, op.outputs) for op in a.operators] == [
        (op.name, op.inputs, op.outputs) for op in b.operators
    ]
    for tensor in range(len(a.subgraph.tensors)):
        np.testing.assert_array_equal(a.constant(tensor), b.constant(tensor))
    said = f"int8: {found['operators']} of 4 real convolutions and dense layers on {found['islands']} island"
    assert found["operators"] >= 2 and said in result.stderr
    assert (len(found["kept"]), found["images"], found["calibration"]) == (4 - found["operators"], 100, "mse")
    assert (found["size_before"], found["size_after"]) == tuple(path.stat().st_size for path in (file, quantized))
    [x], _ = calibrating.of_file(calibration("digits"), "mine", file.read_bytes())
    before, after = (lce.interpreter(path.read_bytes()).predict(x) for path in (file, quantized))
    assert found["change"] == pytest.approx(np.abs(after - before).max() / np.abs(before).max(), rel=1e-5)
    assert found["agreement"] == pytest.approx((after.argmax(1) == before.argmax(1)).mean())
    assert "Computed with integers" in run("inspect", quantized).stdout
    shown = json.loads(run("inspect", quantized, "--json").stdout)
    layers = [f"{layer['index']} {layer['name']}" for layer in shown["real_operators"] if layer["output"] == "int8"]
    inside = {operator for island in shown["islands"] for operator in island["operators"]}
    assert len(shown["islands"]) == found["islands"] and len(layers) == found["operators"] and inside >= set(layers)
    report = run("convert", model, "-o", converted, "--int8", *options, "--force", "--calibration-images", 5)
    assert json.loads(report.stdout)["int8"]["images"] == 5


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_ends_of_integers(dtype, files, pictures, tmp_path):
    """The other commands take such a file, and the record says how its images are prepared."""
    path, real = tmp_path / "a.tflite", tmp_path / "real.tflite"
    how = ("--int8", "--calibrate", pictures, "--calibration", "minmax", "--mean", 0.5, "--std", 0.25)
    types = ("--input-type", dtype, "--output-type", dtype)
    for output, options in ((path, types), (real, ())):
        assert run("convert", files[0], "-o", output, *how, *options).exit_code == 0
    flatbuffer = Flatbuffer(path.read_bytes())
    assert [flatbuffer.dtype(t) for t in (*flatbuffer.inputs, *flatbuffer.outputs)] == [dtype, dtype]
    scale = flatbuffer.subgraph.tensors[flatbuffer.inputs[0]].quantization.scale[0]
    # From the black picture to 0.
    assert scale == pytest.approx(0.5 / 0.25 / 255, rel=1e-6)
    assert metadata.preparation(metadata.read(path.read_bytes()), (8, 8, 1)).mean == (0.5,)
    images = tmp_path / "images"
    for number, (name, level) in enumerate(zip("0123456789", range(5, 75, 7), strict=True)):
        (images / name).mkdir(parents=True)
        Image.new("L", (8, 8), level).save(images / name / f"{number}.png")
    top = [json.loads(run("evaluate", file, "--images", images, "--json").stdout) for file in (path, real)]
    assert top[0]["top1"] == top[1]["top1"] and top[0]["top5"] == top[1]["top5"]
    measured = json.loads(run("benchmark", path, "--num_runs", 1, "--runtime", "delegate", "--json").stdout)
    assert all(result["median_ms"] for result in measured["results"])
    assert "already" in refused("quantize", path, "-o", tmp_path / "b.tflite", "--calibrate", "digits")


# What is refused


def test_verify_proves_it_and_says_what_int8_costs(files, tmp_path):
    model, file = files
    path = tmp_path / "a.tflite"
    run("quantize", file, "-o", path, "--calibrate", "digits")
    result = run("verify", model, path, "--digits", "--proof-images", 2)
    assert result.exit_code == 0, result.output
    assert f"{path} computes what {model} computes, rounded to int8: 1 binary convolutions" in result.output
    assert re.search(
        r"int8: \d operators; beside float, outputs change by up to \d+\.\d% of the largest, .* of the largest outputs "
        r"stay, .* of the binary activations flip; signal to noise at least \d+ dB, at ",
        result.output,
    )
    report = json.loads(run("verify", model, path, "--json").stdout)
    assert report["ok"] and report["int8"]["agreement"] is not None
    # Nothing is wrong with the file.
    assert any("these images are not like those" in note for note in report["notes"])
    flatbuffer = Flatbuffer(path.read_bytes())
    op = next(op for op in flatbuffer.operators if op.name == "CONV_2D")
    bias = flatbuffer.constant(op.inputs[2]).copy()
    bias[5] += 2
    flatbuffer.set_constant(op.inputs[2], bias)
    path.write_bytes(flatbuffer.pack())
    result = run("verify", model, path)
    assert result.exit_code == 1 and "the bias of channel 5 is" in result.output


@pytest.mark.parametrize(
    "options, message",
    [
        (["--int8"], "Which images show what values .* --calibrate FOLDER .with images., digits or random"),
        (["--calibrate", "digits", "--resize", "9"], "--int8 is missing, which takes --calibrate and --resize"),
        (["--int8", "--calibrate", "digits", "--float-weights", "float16"], "leave one of both out"),
        (["--int8", "--calibrate", "nowhere"], "--calibrate: nowhere is not a folder"),
        (["--int8", "--calibrate", "digits", "--calibration-images", "0"], "0 is not in the range"),
        (["--input-type", "int8"], "Calibrate it .int8=images, --int8., or leave inference_input_type out"),
    ],
)
def test_convert_refuses(options, message, files, tmp_path):
    text = " ".join(refused("convert", files[0], "-o", tmp_path / "a.tflite", *options).split())
    assert re.search(message, text), text
    assert not list(tmp_path.iterdir())


def test_networks_that_images_do_not_fit(files, pictures, tmp_path):
    with pytest.raises(calibrating.InputError, match="digits: they are grey, but mine takes 3 channels"):
        calibrating.of_model(calibration("digits"), "mine", network(3), seed=0)
    image = tf.keras.Input((4,))
    with pytest.raises(calibrating.InputError, match=r"mine takes float32 \(None, 4\): images need one input"):
        calibrating.of_model(calibration("digits"), "mine", tf.keras.Model(image, keras.Dense(2)(image)), seed=0)
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(calibrating.InputError, match="--calibrate: .*broken.png cannot be read"):
        calibrating.of_model(calibration(str(tmp_path)), "mine", network(), seed=0)


def test_quantize_refuses(files, tmp_path):
    output = tmp_path / "a.tflite"
    assert "should be b'TFL3'" in refused("quantize", files[0], "-o", output, "--calibrate", "digits")
    assert "Missing option '--calibrate'" in refused("quantize", files[1], "-o", output)
    small = tmp_path / "small.tflite"
    small.write_bytes(convert(network(), float_weights="float16")[0])
    assert "float16" in refused("quantize", small, "-o", output, "--calibrate", "digits")
    assert not output.exists()
