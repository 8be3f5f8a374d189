"""Images are prepared as files say, with the pixels of larq-rep's evaluation in TensorFlow."""

import json
import warnings

import numpy as np
import pytest
import tensorflow as tf
from larq_rep_runtime import DelegateError, folders
from larq_rep_runtime.images import Preparation, as_input
from larq_rep_runtime.preparation import preparation
from PIL import Image

from larq_rep import images
from larq_rep.images import Evaluation, evaluation_image, open_upright

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def detail(shape, dtype=np.float32, quantization=(0.0, 0)):
    return {"name": "x", "shape": np.array(shape), "dtype": dtype, "quantization": quantization}


def levels(rng, height, width, kind):
    """Pixels that show the smallest shift, or that lie between two levels when they are resized."""
    if kind == "noise":
        return rng.integers(0, 256, (height, width, 3), np.uint8)
    if kind == "checkers":
        return (np.indices((height, width, 3)).sum(axis=0) % 2 * 255).astype(np.uint8)
    return (np.indices((height, width, 3)).sum(axis=0) % 256).astype(np.uint8)


def same_pixels(path, size, channels, test_resize):
    """Compares what a file says, with the pixels of TensorFlow, in levels."""
    evaluation = Evaluation(test_resize=test_resize)
    pixels = np.asarray(open_upright(path, "L" if channels == 1 else "RGB"))
    expected = evaluation_image(tf.constant(pixels.reshape(*pixels.shape[:2], channels)), evaluation, size).numpy()
    said = {"input": json.loads(json.dumps(evaluation.at(size, channels).to_dict()))}
    found = preparation(said, detail((1, *size, channels)))(str(path))
    assert found.shape == expected.shape == (*size, channels) and found.dtype == np.float32
    levels = np.abs(found - expected) * 255
    # Pillow's own resize differs in a tenth of the pixels.
    assert levels.max() < 1.01 and (levels > 0.01).mean() < 1e-3


@pytest.mark.parametrize("test_resize", [None, 256, 248])
@pytest.mark.parametrize("kind", ["noise", "checkers", "slope"])
def test_pixels_are_those_of_training(kind, test_resize, tmp_path):
    rng = np.random.default_rng(len(kind) + (test_resize or 0))
    file = tmp_path / "image.png"
    for number in range(8):
        sides = [int(side) for side in np.exp(rng.uniform(0, 6, 2))]  # 1 to 400
        size = tuple(int(side) for side in rng.integers(3, 40, 2)) if number % 2 else (28, 28)
        if number == 0:
            sides = list(size)
        Image.fromarray(levels(rng, *sides, kind)).save(file)
        same_pixels(file, size, 3, test_resize)


def test_pixels_of_a_photograph(tmp_path):
    """The sizes of ImageNet."""
    Image.fromarray(levels(np.random.default_rng(0), 375, 500, "noise")).save(tmp_path / "image.png")
    same_pixels(tmp_path / "image.png", (224, 224), 3, 256)


def sixteen(pixels):
    return Image.fromarray(pixels[..., 0].astype(np.uint16) * 2)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("suffix", "make"),
    [
        ("png", lambda pixels: Image.fromarray(pixels[..., 0])),
        ("png", lambda pixels: Image.fromarray(pixels).quantize(16)),
        ("png", lambda pixels: Image.fromarray(np.dstack([pixels, pixels[..., :1]]))),
        ("png", sixteen),
        ("png", lambda pixels: Image.fromarray(pixels[..., 0]).convert("1")),
        ("tif", lambda pixels: Image.fromarray(pixels).convert("CMYK")),
        ("tif", lambda pixels: Image.fromarray(pixels[..., 0].astype(np.float32))),
        ("jpg", lambda pixels: Image.fromarray(pixels)),
        ("gif", lambda pixels: Image.fromarray(pixels).quantize(8)),
    ],
    ids=["grey", "palette", "RGBA", "16-bit", "black and white", "CMYK", "float", "JPEG", "GIF"],
)
def test_pixels_of_all_modes(channels, suffix, make, tmp_path):
    file = tmp_path / f"image.{suffix}"
    make(levels(np.random.default_rng(channels), 31, 45, "noise")).save(file)
    same_pixels(file, (20, 24), channels, 256)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_images(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(levels(np.random.default_rng(0), 17, 40, "noise")).save(tmp_path / "image.png", exif=exif)
    same_pixels(tmp_path / "image.png", (12, 9), 3, None)


def test_longest_images(tmp_path):
    """A line of 30,000 pixels would be 2,000,000 wide, of which only the crop is computed."""
    Image.fromarray(np.full((1, 30000), 77, np.uint8)).save(tmp_path / "line.png")
    found = preparation({"input": {"range": [0, 255]}}, detail((1, 64, 32, 3)))(str(tmp_path / "line.png"))
    np.testing.assert_array_equal(found, np.full((64, 32, 3), 77))


@pytest.fixture
def image(tmp_path):
    """An image of 2 x 3 pixels that fits an input of its size: no pixel changes."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    return str(tmp_path / "image.png"), pixels.astype(np.float64)


FULL = {"size": [2, 3], "channels": 3, "range": [0, 1], "mean": MEAN, "std": STD, "crop": [2, 3], "mirrored": False}


@pytest.mark.parametrize(
    ("said", "options", "formula"),
    [
        ({}, {}, lambda p: p / 255),
        ({"input": {}}, {}, lambda p: p / 255),
        ({"input": None}, {}, lambda p: p / 255),
        ({"input": dict.fromkeys(FULL)}, {}, lambda p: p / 255),
        ({"input": FULL}, {}, lambda p: (p / 255 - MEAN) / STD),
        ({"input": {"range": [0, 255]}}, {}, lambda p: p),
        ({"input": {"range": [-1, 1]}}, {}, lambda p: p / 127.5 - 1),
        ({"input": {"range": [-1, 3], "mean": [1, 2, 3], "std": [4] * 3}}, {}, lambda p: (p / 63.75 - [2, 3, 4]) / 4),
        ({"input": {**FULL, "mirrored": True}}, {}, lambda p: ((p / 255 - MEAN) / STD)[::-1, ::-1]),
        ({"input": {}, "mirrored_input": True}, {}, lambda p: p[::-1, ::-1] / 255),
        ({"input": {"mirrored": False}, "mirrored_input": True}, {}, lambda p: p / 255),
        ({"mirrored_input": True}, {}, lambda p: p[::-1, ::-1] / 255),
        ({}, {"mean": MEAN, "std": STD}, lambda p: (p / 255 - MEAN) / STD),
        ({}, {"mean": [0.5], "std": [0.25]}, lambda p: p / 255 * 4 - 2),
        ({"input": FULL}, {"mean": [0.5]}, lambda p: (p / 255 - 0.5) / STD),
        ({"input": {**FULL, "mean": "x"}}, {"mean": [0, 0, 0]}, lambda p: p / 255 / STD),
        ({"input": {"range": [0, 255]}}, {"mean": MEAN, "std": STD}, lambda p: (p / 255 - MEAN) / STD),
        ({"input": {"range": [-1, 3], "mean": [1, 2, 3], "std": [4] * 3}}, {"mean": MEAN}, lambda p: p / 255 - MEAN),
        ({"input": {"range": [-1, 3], "mean": [1] * 3, "std": [9] * 3}}, {"std": STD}, lambda p: (p / 255 - 0.5) / STD),
        ({"input": FULL}, {"resize": 2}, lambda p: (p / 255 - MEAN) / STD),
        ({"input": {"resize": 2.0, "others": 1}}, {}, lambda p: p / 255),
    ],
)  # fmt: skip
def test_what_a_file_says(said, options, formula, image):
    file, pixels = image
    prepare = preparation(json.loads(json.dumps(said)), detail((1, 2, 3, 3)), **options)
    np.testing.assert_allclose(prepare(file), formula(pixels), rtol=1e-6, atol=1e-6)
    assert bool(prepare.assumed) == (said.get("input") is None)


def test_grey_statistics(tmp_path):
    Image.fromarray(np.uint8([[0, 51], [102, 255]])).save(tmp_path / "grey.png")
    prepare = preparation({"input": {"mean": [0.2], "std": [0.5]}}, detail((1, 2, 2, 1)))
    np.testing.assert_allclose(prepare(str(tmp_path / "grey.png"))[..., 0], [[-0.4, 0], [0.4, 1.6]], atol=1e-6)
    assert prepare.text == "resized to cover 2x2, cropped to 2x2, in 0..1, less 0.2, over 0.5"


def test_resize_of_sizes_that_are_not_square():
    """As `round(side * 256 / 224)` for each side."""
    prepare = Preparation(size=(33, 200), channels=3, resize=33 * 256 / 224)
    assert prepare.least == (round(33 * 256 / 224), round(200 * 256 / 224)) == (38, 229)
    assert Preparation(size=(224, 112), channels=3, resize=128).least == (256, 128)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("size", [[3, 2], 2, [2], "2x3", [2, 3, 3]]),
        ("crop", [[1, 1], True, {}]),
        ("channels", [1, "3", [3]]),
        ("range", [[1, 0], [0, 0], 1, [0], "01", [0, None], [0, float("nan")], [0, float("inf")], [0, 10**400]]),
        ("mean", [0.5, [0.5], [0, 0], ["a", "b", "c"], [0, 0, None], [True, 0, 0], {"r": 1}, [float("nan")] * 3]),
        ("std", [[1, 1, 0], [1, 1, -1], [1e-30] * 3, 1, "1,1,1", [[1], [1], [1]]]),
        ("resize", [1, -256, "256", [256], True, float("inf"), 1e300, 10**400]),
        ("mirrored", ["yes", 1, 0, []]),
    ],
)
def test_wrong_values_are_named(name, values):
    for value in values:
        said = {"input": {"mean": MEAN, "std": STD, name: value}}
        with pytest.raises(DelegateError, match=f"metadata of the file say input.{name} = .*, expected .*Convert"):
            preparation(said, detail((1, 2, 3, 3)))
    for value in ([], "text", 3, True):
        with pytest.raises(DelegateError, match="metadata of the file say input = .*, expected an object"):
            preparation({"input": value}, detail((1, 2, 3, 3)))
    with pytest.raises(DelegateError, match="say mirrored_input = .*, expected true or false"):
        preparation({"mirrored_input": "yes"}, detail((1, 2, 3, 3)))


@pytest.mark.parametrize(
    ("said", "options", "words"),
    [
        ({}, {"mean": [0.5]}, "Only one of mean and std"),
        ({}, {"std": [0.5]}, "Only one of mean and std"),
        ({"input": {"mean": MEAN}}, {}, "Only one of mean and std"),
        ({}, {"mean": [0, 0], "std": [1]}, "--mean should be a number for each channel"),
        ({}, {"mean": [0], "std": [1, 1, 0]}, "--std should be .*all above 0"),
        ({}, {"mean": [float("nan")], "std": [1]}, "--mean should be"),
        ({}, {"resize": 1}, "--resize should be a number from 2 on, found 1"),
        ({}, {"resize": 10**9}, "--resize should be"),
    ],
)
def test_wrong_options_are_named(said, options, words):
    with pytest.raises(DelegateError, match=words):
        preparation(said, detail((1, 2, 3, 3)), **options)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (detail((1, 4)), "the model has \\(1, 4\\) of float32"),
        (detail((1, 4, 4, 2)), "the model has \\(1, 4, 4, 2\\)"),
        (detail((1, 4, 4, 3), np.bool_), "of bool"),
    ],
)
def test_inputs_that_take_no_images(given, words):
    with pytest.raises(DelegateError, match=words):
        preparation({}, given)


@pytest.mark.parametrize(
    ("dtype", "quantization", "channels", "said"),
    [
        (np.uint8, (1 / 255, 0), 3, "in 0..1"),
        (np.int8, (1 / 255, -128), 1, "in 0..1"),
        (np.int8, (2 / 255, -1), 3, "in -1..1"),
        (np.uint8, (1.0, 0), 3, "in 0..255"),
        (np.uint8, (0.0186, 114), 3, "over 0.229 0.224 0.225"),
        (np.uint8, (0.0186, 114), 1, "in -1..1"),
        (np.uint8, (0.0, 0), 3, "in 0..255"),
        (np.int8, (0.0, 0), 3, "in 0..255"),
    ],
)
def test_integers_that_say_nothing_are_prepared_by_their_range(dtype, quantization, channels, said):
    prepare = preparation({}, detail((1, 2, 2, channels), dtype, quantization))
    assert prepare.text.endswith(said) and "range of its input" in prepare.assumed


def test_integers():
    """Of those without a scale the values are levels, in int8 from -128."""
    x = np.float32([0, 0.4, 1, 7])
    np.testing.assert_array_equal(as_input(x, detail((4,), np.int8, (0.5, 2))), np.int8([2, 3, 4, 16]))
    np.testing.assert_array_equal(as_input(x, detail((4,), np.uint8, (0.001, 0))), np.uint8([0, 255, 255, 255]))
    np.testing.assert_array_equal(as_input(x * 30, detail((4,), np.int8)), np.int8([-128, -116, -98, 82]))
    np.testing.assert_array_equal(as_input(x * 30, detail((4,), np.uint8)), np.uint8([0, 12, 30, 210]))


def test_images_that_cannot_be_read(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8)).save(tmp_path / "whole.png")
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "half.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.png").mkdir()
    prepare = preparation({}, detail((1, 2, 3, 3)))
    for name in ("half.png", "text.jpg", "empty.jpg", "folder.png", "none.png"):
        with pytest.raises(DelegateError, match=f"{name} cannot be read as an image"):
            prepare(str(tmp_path / name))


def test_warnings_of_pillow_are_not_shown(tmp_path, monkeypatch):
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        preparation({}, detail((1, 2, 3, 3)))(str(tmp_path / "large.png"))


def test_image_files_are_those_of_training():
    assert folders._SUFFIXES == images.SUFFIXES
