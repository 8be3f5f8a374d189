"""The command lce-run on an image: what it prepares, says and prints."""

import io
import json
import re
import sys

import graphs
import numpy as np
import pytest
from larq_rep_runtime import run
from PIL import Image

from larq_rep.converters import metadata


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


def test_an_output_of_other_numbers_has_no_names(tmp_path, capfd):
    graph = graphs.Graph()
    outputs = [graph.add("RELU", [graph.input(shape)], shape) for shape in ((1, 4), (1, 7))]
    (tmp_path / "two.tflite").write_bytes(metadata.attach(graph.content(*outputs), {"classes": list("abcdefg")}))
    assert run.main([str(tmp_path / "two.tflite"), "--num_runs", "1", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)["outputs"]
    assert [["class" in entry for entry in output["top"]] for output in found] == [[False] * 4, [True] * 5]


def test_names_that_the_terminal_cannot_show(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    assert run.main([str(pooled(tmp_path, classes=["größter"] * 12)), "--num_runs", "1"]) == 0
    assert sys.stdout.buffer.getvalue().splitlines()[0].endswith(b"  gr\\xf6\\xdfter")


def test_numbers_that_are_none(capfd):
    for value in ("", "a", "1;2;3", "1,,2"):
        with pytest.raises(SystemExit) as stopped:
            run.main(["x.tflite", "--image", "x.png", "--mean", value])
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


def test_image_for_a_batch(tmp_path, quarters, capfd):
    graph = graphs.Graph()
    graph.content(graph.add("RELU", [graph.input((5, 4, 4, 3))], (5, 4, 4, 3)))
    (tmp_path / "batch.tflite").write_bytes(graph.content(*graph.graph.outputs))
    command = [str(tmp_path / "batch.tflite"), "--image", str(quarters), "--num_runs", "1", "--json", "--top", "48"]
    assert run.main(command) == 0
    found = sorted(json.loads(capfd.readouterr().out)["top"], key=lambda entry: entry["index"])
    expected = np.asarray(Image.open(quarters)).reshape(-1) / 255
    np.testing.assert_array_equal([entry["value"] for entry in found], expected)
