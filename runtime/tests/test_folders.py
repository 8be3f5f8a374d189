"""lce-run --images: the accuracy on a folder of class folders."""

import io
import json
import sys

import graphs
import numpy as np
import pytest
import tensorflow as tf
from larq_rep_runtime import DelegateError, run
from larq_rep_runtime.folders import labelled
from PIL import Image

from larq_rep import accuracy
from larq_rep.converters import metadata
from larq_rep.images import Evaluation, evaluation_image, images_in, open_upright

STATISTICS = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def classifier(path, batch=1, dtype=np.float32, quantization=None, shape=None, **about):
    """A file whose 12 classes are the 12 means of the quarters of an image of 4 x 4."""
    graph = graphs.Graph()
    options = graphs.schema.Pool2DOptionsT()
    options.padding = 1
    options.strideH = options.strideW = options.filterHeight = options.filterWidth = 2
    kind = graphs.schema.BuiltinOptions.Pool2DOptions
    x = graph.input((batch, 4, 4, 3), dtype, quantization)
    x = graph.add("AVERAGE_POOL_2D", [x], (batch, 2, 2, 3), dtype, (kind, options), quantization)
    shape = shape or (batch, 12)
    kind, options = graphs.schema.BuiltinOptions.ReshapeOptions, graphs.schema.ReshapeOptionsT()
    y = graph.add("RESHAPE", [x, graph.constant(np.int32(shape))], shape, dtype, (kind, options), quantization)
    path.write_bytes(metadata.attach(graph.content(y), about))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images in folders named with the numbers of classes; some classes have none. Two scores are often equal."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(26):
        label = int(rng.integers(12))
        pixels = rng.integers(0, 128, (7, 5, 3)) if number % 2 else np.full((5, 9, 3), rng.integers(256))
        (folder / str(label)).mkdir(exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / str(label) / f"{number}.png")
    assert len(list(folder.iterdir())) < 12
    return folder


def expected(folder, evaluation=None, files=slice(None)):
    """As `lce evaluate` counts, with TensorFlow's images."""
    evaluation = evaluation or Evaluation()
    pairs = [(file, int(child.name)) for child in sorted(folder.iterdir()) for file in images_in(child)][files]
    x = [evaluation_image(tf.constant(np.asarray(open_upright(file))), evaluation, 4).numpy() for file, _ in pairs]
    scores = np.reshape(x, (-1, 2, 2, 2, 2, 3)).mean(axis=(2, 4), dtype=np.float32).reshape(-1, 12)
    return accuracy.measure([(scores, np.array([label for _, label in pairs]))])


def evaluated(capfd, *arguments):
    assert run.main([*map(str, arguments), "--json"]) == 0
    return json.loads(capfd.readouterr().out)


def test_accuracy_is_that_of_lce_evaluate(folder, tmp_path, capfd):
    """Of equal scores the first class counts; batches are filled; `limit` takes images evenly."""
    right = expected(folder)
    assert 0 < right.right < right.among5 < right.images == 26
    for batch in (1, 4):
        found = evaluated(capfd, classifier(tmp_path / "c.tflite", batch, input={}), "--images", folder)
        assert (found["images"], found["top1"], found["top5"]) == (26, right.top1, right.top5)
    normalised = Evaluation(mean=tuple(STATISTICS["mean"]), std=tuple(STATISTICS["std"]), test_resize=280)
    right = expected(folder, normalised)
    file = classifier(tmp_path / "c.tflite", input={**STATISTICS, "resize": 5})
    found = evaluated(capfd, file, "--images", folder)
    assert (found["top1"], found["top5"]) == (right.top1, right.top5)
    assert found["preparation"].startswith("resized to cover 5x5, cropped to 4x4, in 0..1, less 0.485")
    for limit in (5, 26, 100):
        kept = [i * 26 // limit for i in range(limit)] if limit < 26 else range(26)
        found = evaluated(capfd, classifier(tmp_path / "c.tflite"), "--images", folder, "--limit", limit)
        right = sum(expected(folder, files=slice(i, i + 1)).right for i in kept)
        assert (found["images"], found["top1"]) == (len(kept), right / len(kept))


def test_line_of_text(folder, tmp_path, capfd):
    file, right = classifier(tmp_path / "c.tflite", 3, input={}, shape=(3, 1, 1, 12)), expected(folder)
    assert run.main([str(file), "--images", str(folder)]) == 0
    printed = capfd.readouterr()
    assert (
        printed.err == "" and printed.out == f"{file}: top-1 {right.top1:.2%}, top-5 {right.top5:.2%} of 26 images.\n"
    )
    assert run.main([str(classifier(tmp_path / "c.tflite", shape=(12,))), "--images", str(folder)]) == 0
    printed = capfd.readouterr()
    assert printed.out.endswith(f"top-1 {right.top1:.2%}, top-5 {right.top5:.2%} of 26 images.\n")
    assert "does not say how images are prepared. Assumed: " in printed.err


def test_quantized_file(folder, tmp_path, capfd):
    found = evaluated(capfd, classifier(tmp_path / "c.tflite", 1, np.uint8, (1 / 255, 0)), "--images", folder)
    assert found["top1"] == pytest.approx(expected(folder).top1, abs=2 / 26)  # Rounded means may be equal.


def make(folder, *names):
    """A folder with an image for each name; a name without one ends with a slash."""
    for name in names:
        if name.endswith("/"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("names", "classes", "files"),
    [
        # Alphabetical order.
        (None, 3, {"c/1.png": 2, "a/2.JPG": 0, "b/3.webp": 1, "b/1.tiff": 1}),
        (None, 2, {"Z/1.png": 0, "a/1.png": 1}),
        # An empty folder is a class too.
        (None, 3, {"a/": None, "b/1.png": 1, "c/1.png": 2}),
        # Numbers of classes, some of which are missing.
        (None, 12, {"10/1.png": 10, "2/1.png": 2, "003/1.png": 3}),
        # Numbers that are none of classes.
        (None, 3, {"7/1.png": 2, "10/1.png": 0, "5/1.png": 1}),
        # Names of classes, some of which are missing, beside an empty folder.
        (["tench", "shark", "cock"], 3, {"cock/1.png": 2, "tench/1.png": 0, "else/": None}),
        (["2", "0", "1"], 3, {"0/1.png": 1, "1/1.png": 2}),
        # No name of a class: as without names.
        (["tench", "shark"], 2, {"n01/1.png": 0, "n02/1.png": 1}),
        (["crane", "crane", "hen"], 3, {"1/1.png": 1, "2/1.png": 2}),
        # Hidden files, other files, files beside the folders, folders within.
        (None, 2, {"a/1.png": 0, "b/1.bmp": 1, ".c/1.png": None, "a/.2.png": None}),
        (None, 2, {"a/1.png": 0, "b/1.bmp": 1, "a/x.txt": None, "1.png": None, "b/d.png/": None}),
    ],
)  # fmt: skip
def test_classes_of_folders(names, classes, files, tmp_path):
    found = labelled(make(tmp_path, *files), classes, names)
    expected = [(name, label) for name, label in sorted(files.items()) if label is not None]
    assert [(str(file.relative_to(tmp_path)), label) for file, label in found] == expected


def test_alphabetical_order_is_said_where_it_may_surprise(tmp_path, capfd):
    labelled(make(tmp_path / "numbers", "7/1.png", "10/1.png"), 2, None)
    assert "taken as the classes in alphabetical order: 10, 7." in capfd.readouterr().err
    labelled(make(tmp_path / "names", "n01/1.png", "n02/1.png"), 2, ["tench", "shark"])
    assert "alphabetical order: n01, n02." in capfd.readouterr().err
    labelled(tmp_path / "names", 2, None)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("names", "classes", "files", "words"),
    [
        (None, 3, ["a/1.png", "b/1.png"], "has 2 folders, the file knows 3 classes"),
        (None, 3, ["3/1.png", "0/1.png"], "has 2 folders, the file knows 3 classes"),
        (None, 3, ["1/1.png", "01/1.png"], "two folders with the same number"),
        (None, 3, ["a/", "b/", "c/"], "no folders with images"),
        (None, 3, ["1.png"], "no folders with images"),
        (["tench", "shark"], 2, ["tench/1.png", "sharks/1.png"], "the folder 'sharks' .*Expected tench, shark"),
        (["crane", "crane", "hen"], 3, ["crane/1.png", "hen/1.png"], "Several classes are called 'crane'"),
    ],
)
def test_folders_that_do_not_fit(names, classes, files, words, tmp_path):
    with pytest.raises(DelegateError, match=words):
        labelled(make(tmp_path, *files), classes, names)


@pytest.mark.parametrize("name", ["b", "a/2.png", "a/notes"])
def test_broken_links(name, tmp_path):
    make(tmp_path, "a/1.png")
    (tmp_path / name).symlink_to("nowhere")
    with pytest.raises(DelegateError, match=f"{name} is a link to nowhere, which is not there"):
        labelled(tmp_path, 1, None)


def test_unreadable_image_is_named(folder, tmp_path, capfd):
    make(tmp_path / "images", "3/broken.png")
    assert run.main([str(classifier(tmp_path / "c.tflite", input={})), "--images", str(tmp_path / "images")]) == 2
    assert "3/broken.png cannot be read as an image" in capfd.readouterr().err


def test_files_that_are_no_classifiers(folder, tmp_path, capfd):
    for shape in ((1, 2, 6), (1, 2, 2, 3)):
        file = classifier(tmp_path / "c.tflite", shape=shape, input={})
        assert run.main([str(file), "--images", str(folder)]) == 2
        assert "A classifier has one output with a number for each" in capfd.readouterr().err


def test_bar_on_a_terminal(folder, tmp_path, monkeypatch, capfd):
    """It is on standard error and gone at the end, also after an error."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    file = classifier(tmp_path / "c.tflite", 4, input={})
    assert run.main([str(file), "--images", str(folder)]) == 0
    assert capfd.readouterr().out.endswith("of 26 images.\n")
    shown = sys.stderr.getvalue()
    assert f"\r[{' ' * 30}] 0/26\r" in shown and f"\r[{'#' * 27}   ] 24/26\r" in shown and shown.endswith("\r\x1b[K")
    make(tmp_path / "images", "3/broken.png")
    assert run.main([str(file), "--images", str(tmp_path / "images")]) == 2
    assert "0/1\r\x1b[Klce-run: " in sys.stderr.getvalue()
