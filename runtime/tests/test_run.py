"""The command lce-run."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import graphs
import numpy as np
import pytest
from larq_rep_runtime import DelegateError, run
from larq_rep_runtime.profile import random_inputs
from PIL import Image

from larq_rep.converters import metadata


@pytest.fixture
def file(tmp_path):
    rng = np.random.default_rng(0)
    graph = graphs.Graph()
    y = graph.bconv(graph.quantize(graph.input((1, 6, 6, 3))), rng, 3, 32, kernel=(6, 6), padding=1)
    path = tmp_path / "network.tflite"
    path.write_bytes(graph.content(y))
    return path


def test_json_with_profile(file, capfd):
    arguments = ["--random", "--json", "--profile", "--num_runs", "7", "--warmup_runs", "1", "--top", "3"]
    assert run.main([str(file), *arguments]) == 0
    printed = json.loads(capfd.readouterr().out)
    x = np.random.default_rng(0).normal(size=(1, 6, 6, 3)).astype(np.float32)
    expected = graphs.run(file.read_bytes(), x)[0].reshape(-1)
    assert [entry["index"] for entry in printed["top"]] == list(np.argsort(-expected)[:3])
    assert printed["p10_ms"] <= printed["median_ms"] <= printed["p90_ms"]
    (partition,) = printed["profile"]
    assert partition["invocations"] == 7
    assert [step["name"] for step in partition["steps"]] == ["LceQuantize", "LceBconv2d"]
    # 32 filters of 6x6 taps with a word each.
    assert partition["packed_bytes"] == 32 * 36 * 4


def test_text_of_an_image(file, tmp_path, capfd):
    Image.new("RGB", (30, 20), (255, 0, 0)).save(tmp_path / "red.png")
    assert run.main([str(file), "--image", str(tmp_path / "red.png"), "--num_runs", "2", "--profile"]) == 0
    printed = capfd.readouterr().out.splitlines()
    assert "LceBconv2d" in "".join(printed) and "network.tflite" in printed[-1] and "of 2 runs" in printed[-1]


def pooled(tmp_path, dtype=np.float32, quantization=None, **about):
    """A file that takes an image of 4x4 and gives the means of its quarters."""
    graph = graphs.Graph()
    x = graph.input((1, 4, 4, 3), dtype, quantization)
    options = graphs.schema.Pool2DOptionsT()
    options.padding = 1
    options.strideH = options.strideW = options.filterHeight = options.filterWidth = 2
    kind = graphs.schema.BuiltinOptions.Pool2DOptions
    y = graph.add("AVERAGE_POOL_2D", [x], (1, 2, 2, 3), dtype, (kind, options), quantization)
    path = tmp_path / "pooled.tflite"
    path.write_bytes(metadata.attach(graph.content(y), about) if about else graph.content(y))
    return path


def answer(path, image, capfd):
    assert run.main([str(path), "--image", str(image), "--num_runs", "1", "--json", "--top", "12"]) == 0
    top = json.loads(capfd.readouterr().out)["top"]
    assert top == sorted(top, key=lambda entry: (-entry["value"], entry["index"]))
    return np.array([entry["value"] for entry in sorted(top, key=lambda entry: entry["index"])]).reshape(2, 2, 3)


@pytest.fixture
def quarters(tmp_path):
    """An image whose quarters are white, red, green and black."""
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[:2, :2] = pixels[:2, 2:, 0] = pixels[2:, :2, 1] = 255
    Image.fromarray(pixels).save(tmp_path / "quarters.png")
    return tmp_path / "quarters.png"


STATISTICS = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def test_image_for_a_quantized_input(tmp_path, quarters, capfd):
    real = answer(pooled(tmp_path, input=STATISTICS), quarters, capfd)
    white, black = [(1 - 0.485) / 0.229, 0.544 / 0.224, 0.594 / 0.225], [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225]
    np.testing.assert_allclose([real[0, 0], real[1, 1]], [white, black], rtol=1e-5)
    # The second scale is so small that most values are clipped; -128 is the least of the type.
    for dtype, scale, zero_point in ((np.int8, 0.025, -14), (np.int8, 0.004, 3)):
        found = answer(pooled(tmp_path, dtype, (scale, zero_point), input=STATISTICS), quarters, capfd)
        np.testing.assert_array_equal(found, np.clip(np.rint(real / scale) + zero_point, -128, 127))
    # Of integers without a scale the values are levels.
    found = answer(pooled(tmp_path, np.int8), quarters, capfd)
    np.testing.assert_array_equal(found[:, :, 0], [[127, 127], [-128, -128]])


def test_a_file_that_says_nothing_takes_pixels_in_0_to_1_and_the_command_says_so(
    tmp_path, quarters, monkeypatch, capfd
):
    command = [str(pooled(tmp_path)), "--image", str(quarters), "--num_runs", "1", "--json", "--top", "12"]
    assert run.main(command) == 0
    printed = capfd.readouterr()
    assert {entry["value"] for entry in json.loads(printed.out)["top"]} == {0, 1}
    assert printed.err == (
        f"lce-run: {tmp_path}/pooled.tflite does not say how images are prepared. Assumed: resized to cover 4x4, "
        "cropped to 4x4, in 0..1. Change it with --mean, --std and --resize.\n"
    )
    assert run.main([*command, "--mean", "0.5", "--std", "0.5,0.25,0.125"]) == 0
    printed = capfd.readouterr()
    values = {entry["index"]: entry["value"] for entry in json.loads(printed.out)["top"]}
    assert [values[i] for i in range(3)] == [1, 2, 4] and "less 0.5 0.5 0.5, over 0.5 0.25 0.125" in printed.err
    with monkeypatch.context() as closed:
        closed.setattr(sys, "stderr", None)
        assert run.main(command) == 0
    printed = capfd.readouterr()
    assert json.loads(printed.out)["preparation"].startswith("assumed: ") and printed.err == ""
    pooled(tmp_path, input={})
    assert run.main(command) == 0
    printed = capfd.readouterr()
    assert printed.err == "" and json.loads(printed.out)["preparation"].endswith("in 0..1")


def test_resize_shows_more_of_an_image(tmp_path, capfd):
    """Of an image of 8 x 8 whose middle is red, the crop after a resize to 8 sees only the middle."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[2:6, 2:6, 0] = 255
    Image.fromarray(pixels).save(tmp_path / "image.png")
    command = [str(pooled(tmp_path, input={"resize": 8})), "--image", str(tmp_path / "image.png"), "--json"]
    assert run.main([*command, "--num_runs", "1", "--top", "12"]) == 0
    red = {entry["index"]: entry["value"] for entry in json.loads(capfd.readouterr().out)["top"] if entry["value"]}
    assert red == {0: 1, 3: 1, 6: 1, 9: 1}
    assert run.main([*command, "--num_runs", "1", "--top", "12", "--resize", "4"]) == 0
    top = json.loads(capfd.readouterr().out)["top"]
    assert sum(entry["value"] for entry in top) < 2


def test_names_of_classes(tmp_path, quarters, capfd):
    """Of the file or of --labels, in words and in JSON."""
    names = [f"class {number}" for number in range(11)] + ["größter"]
    file = pooled(tmp_path, input={}, classes=names)
    command = [str(file), "--image", str(quarters), "--num_runs", "1", "--top", "12"]
    assert run.main([*command, "--json"]) == 0
    top = json.loads(capfd.readouterr().out)["top"]
    assert [entry["class"] for entry in top] == [names[entry["index"]] for entry in top]
    labels = tmp_path / "labels.txt"
    labels.write_bytes("\ufeff".encode() + b"".join(b"name %d \r\n" % number for number in range(12)) + b"\n\n")
    assert run.main([*command, "--labels", str(labels)]) == 0
    lines = [line.split() for line in capfd.readouterr().out.splitlines()[:12]]
    assert [line[2:] for line in lines] == [["name", line[0]] for line in lines]
    assert run.main([str(file), "--num_runs", "1", "--top", "1"]) == 0  # Noise
    place, _, name = capfd.readouterr().out.splitlines()[0].split(maxsplit=2)
    assert name == names[int(place)]
    # An output of other numbers has no names.
    (tmp_path / "numbers.tflite").write_bytes(metadata.attach(numbers(np.float32, None), {"classes": list("1234567")}))
    assert run.main([str(tmp_path / "numbers.tflite"), "--num_runs", "1", "--json"]) == 0
    outputs = json.loads(capfd.readouterr().out)["outputs"]
    assert [["class" in entry for entry in output["top"]] for output in outputs] == [
        [False] * 5,
        [True] * 5,
        [False] * 5,
    ]


def test_names_that_the_terminal_cannot_show(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    assert run.main([str(pooled(tmp_path, classes=["größter"] * 12)), "--num_runs", "1"]) == 0
    assert sys.stdout.buffer.getvalue().splitlines()[0].endswith(b"  gr\\xf6\\xdfter")


def test_numbers_that_are_none(file, capfd):
    for value in ("", "a", "1;2;3", "1,,2"):
        with pytest.raises(SystemExit) as stopped:
            run.main([str(file), "--image", "x.png", "--mean", value])
        assert stopped.value.code == 2 and "expected numbers with commas" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("classes", "labels", "words"),
    [
        (["a", "b"], None, "The metadata should name 12 classes, one for each number of an output, found 2 names"),
        (["a"] * 13, None, "found 13 names"),
        ({"0": "a"}, None, "metadata of the file say classes = .*, expected a list of names.* or give --labels"),
        ([1] * 12, None, "say classes = "),
        (None, b"a\nb\n", "labels.txt should name 12 classes, .* found 2 names"),
        (None, b"", "found 0 names"),
        (None, b"\xff\xfe", "labels.txt is not a text in UTF-8"),
        ([1], b"a", "labels.txt should name 12"),
    ],
)
def test_wrong_names_of_classes(classes, labels, words, tmp_path, capfd):
    arguments = [str(pooled(tmp_path, classes=classes)), "--num_runs", "1"]
    if labels is not None:
        (tmp_path / "labels.txt").write_bytes(labels)
        arguments += ["--labels", str(tmp_path / "labels.txt")]
    assert run.main(arguments) == 2
    message = capfd.readouterr().err
    assert re.search(words, message) and message.count("\n") == 1


def test_damaged_metadata_are_no_traceback(tmp_path, quarters, capfd):
    """A nested list that is too deep for JSON, and every wrong type of every value."""
    values = {"version": 3, "network": [], "input": {"size": "large", "mean": {}}, "classes": None}
    assert run.main([str(pooled(tmp_path, **values)), "--image", str(quarters)]) == 2
    assert 'say input.size = "large", expected [4, 4], as the file' in capfd.readouterr().err
    deep = pooled(tmp_path, key="x" * 30000)
    deep.write_bytes(deep.read_bytes().replace(b'"' + b"x" * 30000 + b'"', b"[" * 15001 + b"]" * 15001))
    assert run.main([str(deep), "--image", str(quarters), "--num_runs", "1"]) == 0


def test_image_for_a_file_that_takes_mirrored_ones(tmp_path, quarters, capfd):
    expected = answer(pooled(tmp_path), quarters, capfd)
    found = answer(pooled(tmp_path, mirrored_input=True), quarters, capfd)
    np.testing.assert_array_equal(found, expected[::-1, ::-1])


def test_names_the_implementation_that_runs(file, monkeypatch, capfd):
    monkeypatch.setenv("LARQ_REP_IMPLEMENTATION", "portable")
    assert run.main([str(file), "--num_runs", "1"]) == 0
    assert capfd.readouterr().out.endswith("portable\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--num_threads", "0"], "--num_threads should be at least 1, found 0"),
        (["--num_threads", "1000"], "num_threads should be at most 64, found 1000"),
        (["--num_runs", "0"], "--num_runs should be at least 1"),
        (["--implementation", "mmx"], "found 'mmx'"),
        (["--image", "no.png"], "no.png cannot be read"),
        (["--image", ""], "cannot be read as an image"),
        (["--images", "nowhere"], "nowhere is not a folder"),
        (["--labels", "none.txt"], "none.txt"),
        (["--mean", "0.5"], "--mean has no effect with --random, only with --image and --images"),
        (["--random", "--std", "0.5"], "--std has no effect with --random"),
        (["--resize", "256"], "--resize has no effect with --random"),
        (["--image", "x.png", "--limit", "3"], "--limit has no effect with --image, only with --images"),
        (["--images", "x", "--limit", "0"], "--limit should be at least 1"),
        (["--images", "x", "--warmup_runs", "0"], "--warmup_runs has no effect with --images"),
        (["--images", "x", "--num_runs", "5"], "--num_runs has no effect with --images"),
        (["--images", "x", "--top", "5"], "--top has no effect with --images"),
        (["--images", "x", "--profile"], "--profile has no effect with --images"),
    ],
)
def test_says_what_is_wrong(file, arguments, words, capfd):
    assert run.main([str(file), *arguments]) == 2
    assert words in capfd.readouterr().err


def test_failure_of_tflite_is_no_traceback(tmp_path, capfd):
    """An index out of range, which only the run finds."""
    graph = graphs.Graph()
    values = graph.constant(np.arange(3, dtype=np.float32))
    options = (graphs.schema.BuiltinOptions.GatherOptions, graphs.schema.GatherOptionsT())
    y = graph.add("GATHER", [values, graph.input((1,), np.int32)], (1,), options=options)
    (tmp_path / "gather.tflite").write_bytes(graph.content(y))
    assert run.main([str(tmp_path / "gather.tflite")]) == 2
    assert "lce-run: TFLite does not run inputs" in capfd.readouterr().err


def test_no_such_file(capfd):
    assert run.main(["no.tflite"]) == 2
    assert "no.tflite" in capfd.readouterr().err


def numbers(dtype, quantization):
    """A file of three inputs, none of which shares its first axis with another, and three outputs."""
    graph = graphs.Graph()
    images = graph.input((4, 2, 2, 3))
    line = graph.input((7,))
    volume = graph.input((2, 3, 1, 2, 2), dtype, quantization)
    outputs = [graph.add("RELU", [x], graph.shape(x)) for x in (images, line)]
    outputs.append(graph.add("RELU", [volume], graph.shape(volume), dtype, quantization=quantization))
    return graph.content(*outputs)


@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.uint8])
def test_several_inputs_and_outputs_of_any_shape(dtype, tmp_path, capfd):
    (tmp_path / "numbers.tflite").write_bytes(numbers(dtype, None if dtype == np.float32 else (0.5, 3)))
    arguments = [str(tmp_path / "numbers.tflite"), "--num_runs", "2", "--top", "3"]
    assert run.main([*arguments, "--json"]) == 0
    printed = json.loads(capfd.readouterr().out)
    rng = np.random.default_rng(0)
    images, line = rng.normal(size=(4, 2, 2, 3)).astype("f4"), rng.normal(size=7).astype("f4")
    # Of four images the first one's.
    for found, values in zip(printed["outputs"], (images[0], line), strict=False):
        positive = np.maximum(values.reshape(-1), 0)
        assert [entry["index"] for entry in found["top"]] == list(np.argsort(-positive, kind="stable")[:3])
        assert [entry["value"] for entry in found["top"]] == list(map(float, np.sort(positive)[:-4:-1]))
    assert [output["shape"] for output in printed["outputs"]] == [[4, 2, 2, 3], [7], [2, 3, 1, 2, 2]]
    assert printed["top"] == printed["outputs"][0]["top"] and len(printed["outputs"][2]["top"]) == 3
    assert run.main([*arguments, "--profile"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert sum("of shape" in line for line in lines) == 3 and "numbers.tflite" in lines[-1]


def test_image_for_a_batch(tmp_path, quarters, capfd):
    graph = graphs.Graph()
    graph.content(graph.add("RELU", [graph.input((5, 4, 4, 3))], (5, 4, 4, 3)))
    (tmp_path / "batch.tflite").write_bytes(graph.content(*graph.graph.outputs))
    command = [str(tmp_path / "batch.tflite"), "--image", str(quarters), "--num_runs", "1", "--json", "--top", "48"]
    assert run.main(command) == 0
    found = sorted(json.loads(capfd.readouterr().out)["top"], key=lambda entry: entry["index"])
    expected = np.asarray(Image.open(quarters)).reshape(-1) / 255
    np.testing.assert_array_equal([entry["value"] for entry in found], expected)


def test_no_random_text():
    detail = {"name": "words", "dtype": np.bytes_, "shape": np.array([1])}
    with pytest.raises(DelegateError, match="no random values of the type of input 'words'"):
        random_inputs([detail])


def test_a_fault_of_ours_shows_its_traceback_and_asks_for_a_report(file, monkeypatch, capfd):
    def fault(*arguments, **options):
        print("a word of the engine", file=sys.stderr)
        raise KeyError("nobody expects it")

    monkeypatch.setattr(run, "Interpreter", fault)
    assert run.main([str(file), "--num_runs", "2"]) == 3
    lines = capfd.readouterr().err.splitlines()
    assert "a word of the engine" in lines and "KeyError: 'nobody expects it'" in lines
    assert "Please report it" in lines[-1] and f"command: lce-run {file} --num_runs 2" in lines[-1]


def test_ctrl_c_is_no_fault(file, monkeypatch, capfd):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "random_inputs", interrupt)
    assert run.main([str(file)]) == 130
    assert capfd.readouterr().err == "lce-run: interrupted.\n"


# What people have in their shells, all at once or nothing of it.
VARIABLES = {
    "TF_CPP_MIN_LOG_LEVEL": "0",
    "PYTHONWARNINGS": "error",
    "NO_COLOR": "1",
    "LANG": "C",
    "LC_ALL": "C",
    "CUDA_VISIBLE_DEVICES": "-1",
}


@pytest.mark.parametrize("variables", [{}, VARIABLES], ids=["no variable", "all variables"])
def test_engine_does_not_greet(variables, file):
    """The engine of this environment is TensorFlow."""
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environment.update(variables, PYTHONPATH=str(Path(run.__file__).parents[1]))
    command = [sys.executable, "-m", "larq_rep_runtime.run", file, "--num_runs", "2", "--profile"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "LceBconv2d" in done.stdout and "network.tflite" in done.stdout.splitlines()[-1]


def test_reader_that_reads_no_further():
    code = "import sys; from larq_rep_runtime import run; run.run = vars; sys.exit(run.main(['FILE', '--json']))"
    environment = {**os.environ, "PYTHONPATH": str(Path(run.__file__).parents[1])}
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, env=environment)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")
