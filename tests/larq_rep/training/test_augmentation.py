import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_sample_images

from larq_rep.images import evaluation_image
from larq_rep.training import get_recipe
from larq_rep.training.augmentation import (
    Augmentation,
    _erased,
    _jitter,
    random_box,
    training_image,
)

TEMPLE = load_sample_images().images[0]  # 427 x 640
COUNT = 1500


def _many(function, count=COUNT):
    """function(seed) for many seeds, in one compiled loop."""
    seeds = tf.stack([tf.range(count, dtype=tf.int64), tf.fill([count], np.int64(7))], 1)
    spec = tf.function(function).get_concrete_function(tf.TensorSpec([2], tf.int64)).structured_outputs
    outputs = tf.nest.map_structure(lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype), spec)
    loop = tf.function(lambda all: tf.map_fn(function, all, fn_output_signature=outputs))
    return tf.nest.map_structure(lambda tensor: tensor.numpy(), loop(seeds))


def _augmented(image, size, count=COUNT, **values):
    return _many(lambda seed: training_image(tf.constant(image), Augmentation(**values), size, seed), count)


def test_augmentation_goes_to_json_and_back():
    augmentation = Augmentation("resized", lighting="truncated", jitter=(0.2, 0.2, 0.2, 0.1), mean=(0.5,), std=(0.2,))
    values = json.loads(json.dumps(dataclasses.asdict(augmentation)))
    assert values["crop"] == "resized" and values["scale"] == [0.08, 1.0] and values["test_resize"] is None
    assert Augmentation(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}) == augmentation


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (dict(crop="centre"), "crop should be 'pad', 'resized' or None, found 'centre'"),
        (dict(lighting="pca"), "lighting should be 'truncated', a standard deviation or None, found 'pca'"),
        (dict(scale=(0.0, 1.0)), "scale should be \\(least, greatest\\)"),
        (dict(ratio=(2.0, 1.0)), "ratio should be \\(least, greatest\\)"),
        (dict(jitter=(0.1, 0.1)), "brightness, contrast, saturation, hue"),
        (dict(mean=(0.5,)), "mean and std go together"),
        (dict(test_resize=200), "at least 224, found 200"),
    ],
)
def test_augmentation_wrong_values(values, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**values)


def test_padded_crop_is_a_part_of_the_padded_image():
    # All levels are different, so the first pixel inside tells where a crop begins.
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    crops = np.round(255 * _augmented(image, 16, 500, crop="pad", padding=4)).astype(int)
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))  # 4 pixels of 32 are 2 of 16.
    windows = {padded[y : y + 16, x : x + 16].tobytes(): (y, x) for y in range(5) for x in range(5)}
    places = [windows[crop.astype(np.uint8).tobytes()] for crop in crops]
    counts = np.bincount([5 * y + x for y, x in places], minlength=25)
    # 20 each; a deviation of 5 sigma has a probability below 1e-5.
    assert counts.min() > 0 and np.abs(counts - 20).max() < 5 * np.sqrt(20)


def test_padding_is_zero_before_the_normalisation():
    crops = _augmented(
        np.full((32, 32, 3), 255, np.uint8), 32, 50, crop="pad", mean=(0.5, 0.4, 0.3), std=(0.5, 0.2, 0.1)
    )
    values = np.unique(crops.reshape(-1, 3), axis=0)
    np.testing.assert_allclose(values, [[-1, -2, -3], [1, 3, 7]], rtol=1e-5)


def test_half_of_the_images_are_mirrored():
    image = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    images = np.round(255 * _augmented(image, 6, flip=True))
    same = (images == image).all((1, 2, 3))
    mirrored = (images == image[:, ::-1]).all((1, 2, 3))
    assert (same ^ mirrored).all()
    assert abs(mirrored.mean() - 0.5) < 5 * 0.5 / np.sqrt(COUNT)


def _box_by_numpy(rng, height, width, scale, ratio):
    """torchvision's documented rule: ten draws, then the central crop."""
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = np.exp(rng.uniform(*np.log(ratio)))
        w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return rng.integers(0, height - h + 1), rng.integers(0, width - w + 1), h, w
    if width / height < ratio[0]:
        h, w = round(width / ratio[0]), width
    elif width / height > ratio[1]:
        h, w = height, round(height * ratio[1])
    else:
        h, w = height, width
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize(
    ("shape", "scale"), [((375, 500), (0.08, 1.0)), ((64, 300), (0.08, 1.25)), ((90, 90), (0.446, 0.875))]
)
def test_random_box_is_distributed_as_torchvision_documents(shape, scale):
    ratio = (3 / 4, 4 / 3)
    boxes = _many(lambda seed: random_box(tf.constant(shape), seed, scale, ratio))
    assert (boxes[:, :2] >= 0).all() and (boxes[:, :2] + boxes[:, 2:] <= shape).all() and (boxes[:, 2:] > 0).all()
    rng = np.random.default_rng(1)
    expected = np.array([_box_by_numpy(rng, *shape, scale, ratio) for _ in range(4 * COUNT)])
    for ours, theirs in (
        (boxes, expected),
        (boxes[:, 2] * boxes[:, 3], expected[:, 2] * expected[:, 3]),
        (np.log(boxes[:, 3] / boxes[:, 2]), np.log(expected[:, 3] / expected[:, 2])),
    ):
        error = theirs.std(0) * np.sqrt(1.25 / COUNT)
        assert (np.abs(ours.mean(0) - theirs.mean(0)) <= 5 * error + 1e-6).all()
        assert (np.abs(ours.std(0) / np.maximum(theirs.std(0), 1e-9) - 1) < 0.12).all()


@pytest.mark.parametrize(
    ("shape", "box"),
    [((40, 400), (0, 173, 40, 53)), ((400, 40), (173, 0, 53, 40)), ((50, 60), (0, 0, 50, 60))],
)
def test_random_box_falls_back_to_the_middle(shape, box):
    # Never fits, being larger than the image. By hand: 40 * 4 / 3 = 53.3, (400 - 53) // 2 = 173.
    found = random_box(tf.constant(shape), tf.constant([1, 2], tf.int64), (50.0, 60.0), (3 / 4, 4 / 3)).numpy()
    assert tuple(found) == box


def test_resized_crop_is_that_of_pil():
    size = 32
    for number in range(4):
        seed = tf.constant([number, 3], tf.int64)
        ours = 255 * training_image(tf.constant(TEMPLE), Augmentation("resized"), size, seed).numpy()
        box_seed = tf.random.split(seed, 6)[0]
        top, left, height, width = random_box(
            tf.constant(TEMPLE.shape[:2]), box_seed, (0.08, 1.0), (3 / 4, 4 / 3)
        ).numpy()
        crop = Image.fromarray(TEMPLE[top : top + height, left : left + width])
        theirs = np.asarray(crop.resize((size, size), Image.Resampling.BILINEAR), float)
        assert np.abs(ours - theirs).max() <= 1.01


@pytest.mark.parametrize("image", [TEMPLE, TEMPLE[:, 150:400]], ids=["wide", "high"])
def test_evaluation_is_resize_and_central_crop_of_pil(image):
    size, resized = 56, 64  # 224 and 256 in proportion.
    values = dict(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    ours = evaluation_image(tf.constant(image), Augmentation("resized", test_resize=256, **values), size).numpy()
    height, width = image.shape[:2]
    if width > height:
        shape = resized, resized * width // height
    else:
        shape = resized * height // width, resized
    small = Image.fromarray(image).resize(shape[::-1], Image.Resampling.BILINEAR)
    top, left = round((shape[0] - size) / 2), round((shape[1] - size) / 2)
    theirs = np.asarray(small, float)[top : top + size, left : left + size]
    levels = 255 * (ours * values["std"] + values["mean"])
    assert np.abs(levels - theirs).max() <= 1.01


def test_evaluation_without_resize_covers_the_size():
    image = np.repeat(np.repeat(np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6, 1), 4, 0), 4, 1)
    np.testing.assert_allclose(
        255 * evaluation_image(tf.constant(image), Augmentation(), 16), image[:, 4:20], atol=1e-4
    )
    assert evaluation_image(tf.constant(image), Augmentation("pad"), (16, 24)).shape == (16, 24, 1)
    same = training_image(tf.constant(image), Augmentation(), 16, tf.constant([1, 2], tf.int64))
    np.testing.assert_allclose(255 * same, image[:, 4:20], atol=1e-4)


def test_truncated_lighting_takes_a_level_or_none():
    image = np.full((1, 1, 3), 100, np.uint8)
    count = 20000
    change = np.round(255 * _augmented(image, 1, count, lighting="truncated")).reshape(-1, 3) - 100
    assert set(np.unique(change)) == {-1, 0}
    darker = (change == -1).sum(1)
    # ReActNet's own code changed no channel in 46.5 %, all three in 46.4 % and some in 7 % of the draws.
    sigma = np.sqrt(0.25 / count)
    assert abs((darker == 0).mean() - 0.465) < 5 * sigma
    assert abs((darker == 3).mean() - 0.464) < 5 * sigma
    assert abs(np.isin(darker, [1, 2]).mean() - 0.071) < 5 * sigma


def test_lighting_of_reacts_and_recus_authors(monkeypatch):
    """All levels 100 and r = (0.1, 0, 0): the eigenvector times 0.02 is below 0, and 99.99 is truncated to 99."""
    monkeypatch.setattr(tf.random, "stateless_normal", lambda shape, seed, stddev: tf.constant([0.1, 0.0, 0.0]))
    image = tf.constant(np.full((2, 2, 3), 100, np.uint8))
    for name in ("reactnet", "recu-imagenet"):
        lighting = get_recipe(name).augmentation.lighting
        found = 255 * training_image(image, Augmentation(lighting=lighting), 2, tf.constant([1, 2], tf.int64))
        np.testing.assert_allclose(found, np.full((2, 2, 3), 99), atol=1e-4)


def test_truncated_lighting_clips_black():
    assert not _augmented(np.zeros((1, 1, 3), np.uint8), 1, 100, lighting="truncated").any()


def test_lighting_has_the_covariance_of_its_eigenvectors():
    change = _augmented(np.full((1, 1, 3), 51, np.uint8), 1, 20000, lighting=0.1).reshape(-1, 3) - 0.2
    vectors = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
    values = np.array([0.2175, 0.0188, 0.0045])
    expected = vectors @ np.diag((0.1 * values) ** 2) @ vectors.T
    np.testing.assert_allclose(np.cov(change.T), expected, rtol=0.06)
    assert np.abs(change.mean(0)).max() < 5 * 0.013 / np.sqrt(20000)


def _grey(image):
    return image @ [0.2989, 0.587, 0.114]


@pytest.mark.parametrize("kind", ["brightness", "contrast", "saturation"])
def test_jitter_blends_as_torchvision_documents(kind):
    rng = np.random.default_rng(0)
    image = rng.uniform(90, 160, (5, 5, 3)).astype(np.float32)  # The middle, so that nothing is clipped.
    index = ["brightness", "contrast", "saturation"].index(kind)
    strengths = tuple(0.4 if i == index else 0.0 for i in range(4))
    images = _many(lambda seed: _jitter(tf.constant(image), strengths, seed), 400)
    other = [0 * image, np.full_like(image, _grey(image).mean()), np.repeat(_grey(image)[:, :, None], 3, 2)][index]
    # image' = f image + (1 - f) other: solve for f, which must do for all pixels.
    direction = image - other
    factors = ((images - other) * direction).sum((1, 2, 3)) / (direction**2).sum()
    np.testing.assert_allclose(images, factors[:, None, None, None] * direction + other, atol=0.02)
    assert 0.6 <= factors.min() < 0.62 and 1.38 < factors.max() <= 1.4
    assert abs(factors.mean() - 1) < 5 * 0.8 / np.sqrt(12 * 400)


def test_jitter_of_hue_turns_colours():
    image = np.array([[[200, 100, 100], [100, 100, 100]]], np.float32)
    images = _many(lambda seed: _jitter(tf.constant(image), (0.0, 0.0, 0.0, 0.1), seed), 300)
    np.testing.assert_allclose(images[:, 0, 1], 100, atol=0.01)  # Grey has no hue.
    np.testing.assert_allclose(images[:, 0, 0, 0], 200, atol=0.01)
    # A hue h of [-0.1, 0.1] from red makes green (h > 0) or blue (h < 0) 100 + 100 * 6 |h|.
    turn = (images[:, 0, 0, 1] - images[:, 0, 0, 2]) / 600
    assert -0.1 <= turn.min() < -0.095 and 0.095 < turn.max() <= 0.1001
    assert abs(turn.mean()) < 5 * 0.2 / np.sqrt(12 * 300)


def test_jitter_changes_in_random_order():
    image = np.array([[[40.0], [250.0]]], np.float32)
    both, orders = (1.0, 1.0, 0.0, 0.0), []
    for number in range(40):
        seed = tf.constant([number, 0], tf.int64)
        f, c = 2 * tf.random.stateless_uniform([4], tf.random.split(seed, 2)[1]).numpy()[:2]

        def brighter(x, f=f):
            return np.clip(f * x, 0, 255)

        def contrasted(x, c=c):
            return np.clip(c * x + (1 - c) * x.mean(), 0, 255)

        found = _jitter(tf.constant(image), both, seed).numpy()
        first = np.allclose(found, contrasted(brighter(image)), atol=0.01)
        last = np.allclose(found, brighter(contrasted(image)), atol=0.01)
        assert first or last
        orders.append((first, last))
    # Where nothing was clipped the two are the same.
    assert (True, False) in orders and (False, True) in orders


def test_erasing_is_a_rectangle_of_half_of_the_images():
    images = _many(lambda seed: _erased(tf.ones((40, 60, 2)), seed))
    assert (images[..., 0] == images[..., 1]).all()
    gone = images[..., 0] == 0
    erased = gone.any((1, 2))
    assert abs(erased.mean() - 0.5) < 5 * 0.5 / np.sqrt(COUNT)
    heights, widths = gone.any(2).sum(1)[erased], gone.any(1).sum(1)[erased]
    areas = gone.sum((1, 2))[erased]
    np.testing.assert_array_equal(areas, heights * widths)
    # The documented rule in numpy, its roundings included.
    rng = np.random.default_rng(2)
    expected = []
    while len(expected) < 20000:
        area, aspect = 2400 * rng.uniform(0.02, 0.33), np.exp(rng.uniform(*np.log([0.3, 3.3])))
        h, w = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if h < 40 and w < 60:
            expected.append((h, w, h * w, rng.integers(0, 40 - h + 1), rng.integers(0, 60 - w + 1)))
    tops, lefts = gone.any(2).argmax(1)[erased], gone.any(1).argmax(1)[erased]
    ours, theirs = np.array([heights, widths, areas, tops, lefts]).T, np.array(expected)
    error = theirs.std(0) / np.sqrt(len(ours))
    assert (np.abs(ours.mean(0) - theirs.mean(0)) < 5 * error).all()
    assert (np.abs(ours.std(0) / theirs.std(0) - 1) < 0.1).all()


def test_erasing_comes_after_the_normalisation():
    image = np.full((16, 16, 3), 255, np.uint8)
    images = _augmented(image, 16, 50, erasing=True, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    assert set(np.unique(images)) == {0.0, 2.0}


def test_grey_images_stay_between_0_and_1():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 1), dtype=np.uint8)
    values = dict(lighting=0.5, mean=(0.5, 0.4, 0.3), std=(0.5, 0.4, 0.3))
    np.testing.assert_allclose(_augmented(image, 8, 3, **values), np.stack([image / 255] * 3), atol=1e-6)
    np.testing.assert_allclose(evaluation_image(tf.constant(image), Augmentation(**values), 8), image / 255, atol=1e-6)
    assert _augmented(image, 8, 20, jitter=(0.2, 0.2, 0.2, 0.1), **values).std(0).max() > 0


def test_seed_decides_everything():
    values = dict(crop="resized", flip=True, lighting=0.1, jitter=(0.2, 0.2, 0.2, 0.1), erasing=True)
    first, again = (_augmented(TEMPLE, 12, 20, **values) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert len({image.tobytes() for image in first}) == 20
