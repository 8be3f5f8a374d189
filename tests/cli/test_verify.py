"""`lce verify` and `lce benchmark` on networks of every kind of input, and what they say of each engine."""

import json

import larq as lq
import larq_compute_engine
import larq_rep_runtime
import numpy as np
import pytest
import tensorflow as tf
from commands import refused, run

from larq_rep.converters import convert

keras = tf.keras.layers
SIGNS = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "use_bias": False}


def files(folder, name, model, content=None):
    model.save(folder / f"{name}.keras")
    (folder / f"{name}.tflite").write_bytes(content or convert(model)[0])
    return folder / f"{name}.keras", folder / f"{name}.tflite"


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    a, b = tf.keras.Input((4, 4, 32), name="picture"), tf.keras.Input((16,), name="words", dtype="int32")
    y = keras.Reshape((4, 4, 32))(keras.Embedding(9, 32)(b))
    x = lq.layers.QuantConv2D(8, 1, **SIGNS)(a * y)
    model = tf.keras.Model([a, b], [x, keras.Dense(3)(keras.Flatten()(x))])
    return files(tmp_path_factory.mktemp("several"), "several", model)


@pytest.fixture(scope="module")
def batched(tmp_path_factory):
    """Images of one channel, seven at a time."""
    image = tf.keras.Input((8, 8, 1), batch_size=7)
    x = keras.BatchNormalization()(keras.Conv2D(32, 3, kernel_initializer="random_normal")(image))
    x = keras.Flatten()(lq.layers.QuantConv2D(16, 3, **SIGNS)(x))
    return files(tmp_path_factory.mktemp("batched"), "batched", tf.keras.Model(image, keras.Dense(10)(x)))


def test_several_inputs(several):
    result = run("verify", *several, "--random", 2)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    implementation = larq_rep_runtime.available_implementations()[0]
    assert lines[-3].startswith("LCE ") and "2 operators as they are defined (bits equal, " in lines[-3]
    assert lines[-2].startswith("Delegate ") and f"({implementation}, fused)" in lines[-2]
    assert lines[-1] == "The delegate on stock TFLite computes what LCE's interpreter computes."
    report = json.loads(run("verify", *several, "--json").stdout)
    assert report["ok"] and list(report["engines"]) == ["lce", "delegate"]
    assert report["engines"]["delegate"]["implementation"] == implementation
    only = json.loads(run("verify", *several, "--json", "--runtime", "lce").stdout)
    assert only["ok"] and list(only["engines"]) == ["lce"]
    message = refused("verify", *several, "--digits")
    assert "takes float32 (None, 4, 4, 32), int32 (None, 16)" in message and "--random N" in message
    modes = [argument for mode in ("default", "delegate") for argument in ("--mode", mode)]
    found = run("benchmark", several[1], *modes, "--keras", several[0], "--num_runs", 1, "--profile", "--json")
    assert [r["mode"] for r in json.loads(found.stdout)["results"]] == ["default", "delegate", "keras"]
    assert all(r["median_ms"] for r in json.loads(found.stdout)["results"])


def test_delegate_that_was_not_built(several, monkeypatch, tmp_path):
    monkeypatch.setattr("larq_rep_runtime.library.__file__", str(tmp_path / "library.py"))
    result = run("verify", *several, "--random", 1)
    assert result.exit_code == 0
    assert result.stdout.startswith("The delegate was not compared: ") and "was not built" in result.stdout
    assert "The delegate on stock TFLite" not in result.stdout
    assert "was not built" in refused("verify", *several, "--random", 1, "--runtime", "delegate")


def test_fixed_batch_and_all_its_answers(batched):
    result = run("verify", *batched, "--digits", "--proof-images", 14, "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == 0 and report["ok"] and report["images"] == 2
    # 360 is no multiple of 7.
    assert report["images_compared"] == 360 and not report["disagreements"]
    model = tf.keras.models.load_model(batched[0], compile=False)
    from larq_rep.data import digits

    images, labels = digits("test", 8)
    padded = np.concatenate([images, images[-4:]])
    answers = model.predict(padded, batch_size=7, verbose=0).argmax(axis=1)[:360]
    assert report["accuracy"]["keras"] == report["accuracy"]["tflite"] == np.mean(answers == labels)


def test_file_with_integer_ends(tmp_path):
    def fake(x):
        return keras.Lambda(lambda y: tf.quantization.fake_quant_with_min_max_args(y, -6, 6))(x)

    image = tf.keras.Input((8, 8, 1))
    x = fake(keras.Conv2D(32, 3, kernel_initializer="random_normal")(fake(image)))
    x = keras.Flatten()(lq.layers.QuantConv2D(16, 3, **SIGNS)(x))
    model = tf.keras.Model(image, fake(keras.Dense(10)(fake(x))))
    content = larq_compute_engine.convert_keras_model(
        model, inference_input_type=tf.int8, inference_output_type=tf.int8
    )
    (tmp_path / "f.tflite").write_bytes(content)
    model.save(tmp_path / "f.h5")
    for options in (("--random", 2), ("--digits",)):
        result = run("verify", tmp_path / "f.h5", tmp_path / "f.tflite", *options)
        assert result.exit_code == 0, result.output
    assert "Different answers:" in result.stdout and "integers of 8 bits" in result.stdout
