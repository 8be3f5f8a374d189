import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images
from sklearn.utils import Bunch

from larq_rep import data


def _rows(images):
    return [image.tobytes() for image in images]


def test_digits_splits_are_the_whole_set():
    train, train_labels = data.digits("train")
    test, test_labels = data.digits("test")
    assert train.shape == (1437, 8, 8, 1) and test.shape == (360, 8, 8, 1)
    assert train.dtype == test.dtype == np.float32
    images, labels = load_digits(return_X_y=True)
    original = sorted(zip(_rows((images / 16).astype(np.float32)), labels, strict=True))
    ours = zip(_rows(train) + _rows(test), [*train_labels, *test_labels], strict=True)
    # As multisets, so no image is in both parts (all 1797 are different) and each kept its label.
    assert sorted(ours) == original
    assert len(set(_rows(images))) == 1797


def test_digits_split_is_fixed_and_stratified():
    first, labels = data.digits("test")
    again, _ = data.digits("test")
    np.testing.assert_array_equal(first, again)
    share = 360 / 1797 * np.bincount(load_digits().target)
    assert np.abs(np.bincount(labels) - share).max() <= 1


def test_digits_are_resized_bilinearly():
    small, _ = data.digits("test")
    large, _ = data.digits("test", 16)
    # Pixel 2i + 1 of the doubled image lies a quarter of the way from pixel i to i + 1.
    rows = 0.75 * small[:, :-1] + 0.25 * small[:, 1:]
    both = 0.75 * rows[:, :, :-1] + 0.25 * rows[:, :, 1:]
    np.testing.assert_allclose(large[:, 1:-1:2, 1:-1:2], both, atol=1e-6)
    assert data.digits("test", (12, 16))[0].shape == (360, 12, 16, 1)


def test_digits_unknown_split():
    with pytest.raises(ValueError, match="'train' or 'test', found 'validation'"):
        data.digits("validation")


def _save(path, pixels):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def test_image_folder_normalises_with_imagenet(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 6, 3))
    _save(tmp_path / "a.png", pixels)
    images, labels, names = data.image_folder(tmp_path, 6)
    assert labels is None and names == ["a.png"] and images.dtype == np.float32
    expected = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(images[0], expected, rtol=1e-5, atol=1e-5)


def test_image_folder_grey_is_between_0_and_1(tmp_path):
    pixels = np.arange(36).reshape(6, 6) * 7
    _save(tmp_path / "a.png", pixels)
    images, _, _ = data.image_folder(tmp_path, 6, channels=1)
    np.testing.assert_allclose(images[0, :, :, 0], pixels / 255, rtol=1e-6)


def test_image_folder_covers_the_size_and_crops_the_middle(tmp_path):
    pixels = np.zeros((8, 24), np.uint8)
    pixels[:, 6:18] = 255  # the middle, and what interpolation sees around it
    _save(tmp_path / "wide.png", pixels)
    images, _, _ = data.image_folder(tmp_path, 4, channels=1)
    np.testing.assert_array_equal(images, np.ones((1, 4, 4, 1)))
    _save(tmp_path / "wide.png", pixels.T)
    images, _, _ = data.image_folder(tmp_path, (4, 8), channels=1)
    np.testing.assert_array_equal(images, np.ones((1, 4, 8, 1)))


def test_image_folder_turns_images_upright(tmp_path):
    pixels = np.arange(16).reshape(4, 4) * 16
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated clockwise by a quarter
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "a.png", exif=exif)
    images, _, _ = data.image_folder(tmp_path, 4, channels=1)
    np.testing.assert_allclose(images[0, :, :, 0], np.rot90(pixels, -1) / 255, rtol=1e-6)


def test_image_folder_of_classes(tmp_path):
    for name in ("dog/2.png", "cat/1.png", "cat/0.png"):
        _save(tmp_path / name, np.full((4, 4), len(name)))
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "cat" / "._0.png").write_text("left by another system")
    images, labels, names = data.image_folder(tmp_path, 4, channels=1)
    assert names == ["cat/0.png", "cat/1.png", "dog/2.png"]
    np.testing.assert_array_equal(labels, [0, 0, 1])
    assert images.shape == (3, 4, 4, 1)


def test_image_folder_errors(tmp_path):
    with pytest.raises(NotADirectoryError, match="missing is not a folder"):
        data.image_folder(tmp_path / "missing", 4)
    with pytest.raises(ValueError, match="holds no images"):
        data.image_folder(tmp_path, 4)
    with pytest.raises(ValueError, match="1 .grey. or 3 .RGB., found 4"):
        data.image_folder(tmp_path, 4, channels=4)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n, and then nothing")
    with pytest.raises(ValueError, match=r"broken\.png cannot be read"):
        data.image_folder(tmp_path, 4)
    _save(tmp_path / "class" / "a.png", np.zeros((4, 4)))
    with pytest.raises(ValueError, match=r"holds images \(broken\.png, \.\.\.\) and folders of images \(class"):
        data.image_folder(tmp_path, 4)


def test_sample_photographs_are_normalised_crops_of_both(monkeypatch):
    ramp = np.zeros((427, 640, 3), np.uint8)
    ramp[:] = np.linspace(0, 255, 640)[None, :, None]
    plain = np.full((427, 640, 3), 51, np.uint8)
    monkeypatch.setattr("sklearn.datasets.load_sample_images", lambda: Bunch(images=[ramp, plain]))
    images = data.sample_photographs(32, count=8)
    assert images.shape == (8, 32, 32, 3) and images.dtype == np.float32
    grey = images * [0.229, 0.224, 0.225] + [0.485, 0.456, 0.406]
    np.testing.assert_allclose(grey[1::2], 0.2, atol=1e-6)
    # A crop as wide as a share of the photograph spans the same share of the ramp, in one direction or the other.
    widths = 640 / 427 * (grey[::2, 0, -1, 0] - grey[::2, 0, 0, 0]) * 32 / 31
    assert np.all((np.abs(widths) > 0.48) & (np.abs(widths) < 1.02)) and len(np.unique(widths)) == 4
    assert widths.min() < 0 < widths.max()


def test_sample_photographs_are_those_of_scikit_learn():
    images = data.sample_photographs(8, count=2)
    np.testing.assert_array_equal(images, data.sample_photographs(8, count=2))
    assert not np.array_equal(images, data.sample_photographs(8, count=2, seed=1))
    colours = images * [0.229, 0.224, 0.225] + [0.485, 0.456, 0.406]
    for crop, photograph in zip(colours, load_sample_images().images, strict=True):
        assert photograph.min() / 255 - 1e-6 <= crop.min() < crop.max() <= photograph.max() / 255 + 1e-6
