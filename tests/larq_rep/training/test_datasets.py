import io
import os
import time
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from larq_rep import datasets
from larq_rep.training import monitor
from larq_rep.training.datasets import Augmentation, PipelineMonitor, batches, load, steps_per_epoch

tfds = pytest.importorskip("tensorflow_datasets")

FULL = Augmentation("resized", flip=True, lighting=0.1, jitter=(0.2, 0.2, 0.2, 0.1), erasing=True)
PAD = Augmentation("pad")
PLAIN = Augmentation()
VERSIONS = {"cifar10": "3.0.2", "cifar100": "3.0.2", "imagenet2012": "5.1.0"}


def _prepare(root, name, splits, shards=1):
    """Writes examples as `tfds build` leaves them: TFRecords and their description."""
    folder = root / name / VERSIONS.get(name, "1.0.0")
    folder.mkdir(parents=True)
    record = datasets.find(name)
    jpeg = record.encoded
    image = tfds.features.Image(encoding_format="jpeg") if jpeg else tfds.features.Image(shape=record.input_shape)
    label = tfds.features.ClassLabel(num_classes=record.num_classes)
    text = "file_name" if jpeg else "id"
    features = tfds.features.FeaturesDict({text: tfds.features.Text(), "image": image, "label": label})
    infos = []
    for split, examples in splits.items():
        lengths, size = [], 0
        for shard in range(shards):
            part = examples[shard::shards]
            file = folder / f"{name}-{split}.tfrecord-{shard:05d}-of-{shards:05d}"
            with tf.io.TFRecordWriter(os.fspath(file)) as writer:
                for number, (pixels, number_of_class) in enumerate(part):
                    example = {text: f"{split}{number}", "image": pixels, "label": number_of_class}
                    record = features.serialize_example(features.encode_example(example))
                    size += len(record)
                    writer.write(record)
            lengths.append(len(part))
        template = tfds.core.ShardedFileTemplate(folder, dataset_name=name, filetype_suffix="tfrecord")
        infos.append(tfds.core.SplitInfo(split, lengths, size, template))
    tfds.folder_dataset.write_metadata(data_dir=folder, features=features, split_infos=infos, check_data=False)
    return folder


def _random_images(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def _cifar(root, name="cifar10", train=40, test=20):
    splits = {"train": _random_images(train), "test": _random_images(test, 1)}
    folder = _prepare(root, name, {key: [(x, i % 10) for i, x in enumerate(images)] for key, images in splits.items()})
    return folder, splits


def _jpegs(count, seed=0):
    """Parts of a photograph, of different sizes, and their labels."""
    photograph = load_sample_images().images[seed]
    found = []
    for number in range(count):
        file = io.BytesIO()
        part = photograph[10 * number : 10 * number + 60, : 80 + number]
        Image.fromarray(part).save(file, "JPEG", quality=95)
        found.append((file.getvalue(), number * 7 % 1000))
    return found


def _imagenet(root, train=24, test=5, **arguments):
    splits = {"train": _jpegs(train), "validation": _jpegs(test, 1)}
    encoded = {split: [(io.BytesIO(jpeg), label) for jpeg, label in examples] for split, examples in splits.items()}
    return _prepare(root, "imagenet2012", encoded, **arguments), splits


def _folder(root, splits=("train", "test"), classes=("cat", "dog"), count=3):
    rng = np.random.default_rng(0)
    for split in splits:
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (20 + number, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def _run(source, augmentation=PLAIN, size=8, batch_size=500, **arguments):
    return list(batches(source, augmentation, size, batch_size, training=True, **arguments).as_numpy_iterator())


def _same(first, second):
    return len(first) == len(second) and all(
        np.array_equal(a, b) and np.array_equal(x, y) for (a, x), (b, y) in zip(first, second, strict=True)
    )


def test_digits(digits):
    assert (digits.num_classes, digits.channels, digits.mirrors) == (10, 1, False)
    assert (digits.train_size, digits.test_size) == (1437, 360)
    images, labels = next(digits.train.concatenate(digits.test).batch(1797).as_numpy_iterator())
    assert images.dtype == np.uint8 and images.shape == (1797, 8, 8, 1) and labels.dtype == np.int64
    originals, classes = load_digits(return_X_y=True)
    levels = np.round(originals * 255 / 16).astype(np.uint8)
    ours = sorted((image.tobytes(), label) for image, label in zip(images, labels, strict=True))
    assert ours == sorted((image.tobytes(), label) for image, label in zip(levels, classes, strict=True))


def test_digits_are_interpolated_to_the_size_of_the_network(digits):
    small = next(iter(batches(digits, PLAIN, 8, 360, training=False)))[0].numpy()
    large = next(iter(batches(digits, PLAIN, 16, 360, training=False)))[0].numpy()
    rows = 0.75 * small[:, :-1] + 0.25 * small[:, 1:]
    both = 0.75 * rows[:, :, :-1] + 0.25 * rows[:, :, 1:]
    assert np.abs(large[:, 1:-1:2, 1:-1:2] - both).max() <= 0.51 / 255


def test_an_epoch_is_the_whole_set_with_its_last_small_batch(digits):
    run = _run(digits, epochs=2)
    assert steps_per_epoch(digits, 500) == 3 and [len(labels) for _, labels in run] == [500, 500, 437] * 2
    originals = next(digits.train.batch(2000).as_numpy_iterator())
    for epoch in (run[:3], run[3:]):
        images = np.round(255 * np.concatenate([images for images, _ in epoch])).astype(np.uint8)
        labels = np.concatenate([labels for _, labels in epoch])
        found = sorted((image.tobytes(), label) for image, label in zip(images, labels, strict=True))
        assert found == sorted((image.tobytes(), label) for image, label in zip(*originals, strict=True))
    assert not _same(run[:3], run[3:])
    # Shuffled wholly: the first batch has images of the end of the set.
    places = {image.tobytes(): place for place, image in enumerate(originals[0])}
    first = np.array([places[image.tobytes()] for image in np.round(255 * run[0][0]).astype(np.uint8)])
    assert abs(first.mean() - 718) < 5 * 415 / np.sqrt(500)


@pytest.mark.parametrize("batch_size, steps", [(500, 2), (479, 3), (1437, 1)])
def test_a_small_last_batch_can_be_left_out(digits, batch_size, steps):
    """1437 images; others are left out in each epoch."""
    assert steps_per_epoch(digits, batch_size, drop_last=True) == steps
    arguments = dict(training=True, seed=5, epochs=2)
    run = [y.numpy() for _, y in batches(digits, PLAIN, 8, batch_size, drop_last=True, **arguments)]
    assert [len(labels) for labels in run] == [batch_size] * steps * 2
    whole = [y.numpy() for _, y in batches(digits, PLAIN, 8, batch_size, **arguments)]
    # Those that are seen are the same as without.
    for kept, seen in zip(run, [labels for labels in whole if len(labels) == batch_size], strict=True):
        np.testing.assert_array_equal(kept, seen)
    assert sum(len(y) for _, y in batches(digits, PLAIN, 8, 500, training=False, drop_last=True)) == 360


def test_a_set_smaller_than_its_batch_is_refused(digits):
    with pytest.raises(ValueError, match=r"digits has 1437 images .*less than a batch of 1438.*batch_size=.*drop_last"):
        steps_per_epoch(digits, 1438, drop_last=True)
    assert steps_per_epoch(digits, 1438) == 1
    assert steps_per_epoch(replace(digits, train_size=50000), 128) == 391
    assert steps_per_epoch(replace(digits, train_size=50000), 128, drop_last=True) == 390


def test_imagenet_at_256_has_5005_steps(digits):
    assert steps_per_epoch(replace(digits, train_size=1281167), 256) == 5005
    assert steps_per_epoch(replace(digits, train_size=1281167), 512) == 2503


@pytest.mark.parametrize("kind", ["digits", "cifar10", "imagenet2012", "folder"])
def test_resumed_runs_see_the_same_batches(kind, tmp_path, digits):
    if kind == "cifar10":
        _cifar(tmp_path)
    elif kind == "imagenet2012":
        _imagenet(tmp_path, shards=3)
    name = os.fspath(_folder(tmp_path / "pets")) if kind == "folder" else kind
    source = digits if kind == "digits" else load(name, tmp_path)
    batch_size = 500 if kind == "digits" else 5
    steps = steps_per_epoch(source, batch_size)
    changes = FULL if kind == "digits" else Augmentation("resized", flip=True)
    whole = _run(source, changes, 12, batch_size, epochs=2, seed=5)
    assert len(whole) == 2 * steps
    tf.random.set_seed(77)
    assert _same(_run(source, changes, 12, batch_size, first_epoch=1, epochs=2, seed=5), whole[steps:])
    assert not _same(whole[:steps], whole[steps:])


def test_seeds_differ(digits):
    assert not _same(_run(digits, seed=5), _run(digits, seed=6))


def test_threads_change_nothing(digits):
    dataset = batches(digits, FULL, 12, 300, training=True).take(2)
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.threading.max_intra_op_parallelism = 1
    options.autotune.enabled = False
    assert _same(list(dataset.as_numpy_iterator()), list(dataset.with_options(options).as_numpy_iterator()))


def test_a_dataset_can_be_run_through_again(digits):
    dataset = batches(digits, PAD, 12, 300, training=True)
    assert _same(list(dataset.as_numpy_iterator()), list(dataset.as_numpy_iterator()))


def test_digits_are_never_mirrored(digits):
    run = _run(digits, Augmentation(flip=True), batch_size=2000)
    originals = {image.tobytes() for image in next(digits.train.batch(2000).as_numpy_iterator())[0]}
    assert {image.tobytes() for image in np.round(255 * run[0][0]).astype(np.uint8)} == originals


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar(name, classes, tmp_path):
    _, splits = _cifar(tmp_path, name)
    source = load(name, tmp_path)
    assert (source.train_size, source.test_size, source.num_classes) == (40, 20, classes)
    assert source.mirrors and source.channels == 3
    for dataset, images in ((source.train, splits["train"]), (source.test, splits["test"])):
        found, labels = next(dataset.batch(100).as_numpy_iterator())
        np.testing.assert_array_equal(found, images)
        np.testing.assert_array_equal(labels, np.arange(len(images)) % 10)
    augmentation = Augmentation("pad", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    images, _ = next(batches(source, augmentation, 32, 20, training=False).as_numpy_iterator())
    np.testing.assert_allclose(images, (splits["test"] / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4], atol=1e-5)


@pytest.mark.parametrize(
    "record", [each for each in datasets.DATASETS if each.builder and not each.encoded], ids=lambda each: each.name
)
def test_every_prepared_set_in_memory(record, tmp_path):
    shape = (4, *record.input_shape)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    examples = [(image, number % record.num_classes) for number, image in enumerate(images)]
    _prepare(tmp_path, record.builder, {"train": examples, record.test_split: examples[:2]})
    for name in {record.name, record.key}:
        source = load(name, tmp_path)
        assert (source.name, source.train_size, source.test_size) == (name, 4, 2)
        assert (source.num_classes, source.channels) == (record.num_classes, record.input_shape[2])
        assert source.mirrors == record.mirrors
        np.testing.assert_array_equal(next(source.train.batch(9).as_numpy_iterator())[0], images)


def test_the_newest_version_and_the_variable_of_tfds(tmp_path, monkeypatch):
    folder, _ = _cifar(tmp_path)
    (folder.parent / "2.0.0").mkdir()
    (folder.parent / "2.0.0" / "dataset_info.json").write_text("old")
    (folder.parent / "incomplete.X_3.0.9").mkdir()
    (folder.parent / "incomplete.X_3.0.9" / "dataset_info.json").write_text("torn")
    monkeypatch.setenv("TFDS_DATA_DIR", os.fspath(tmp_path))
    assert load("cifar10").train_size == 40


def test_imagenet(tmp_path):
    _, splits = _imagenet(tmp_path, shards=2)
    source = load("imagenet2012", tmp_path)
    assert (source.train_size, source.test_size, source.num_classes) == (24, 5, 1000)
    # JPEGs travel as bytes, so that shuffling them takes little memory.
    assert source.examples("train", None).element_spec[0] == tf.TensorSpec((), tf.string)
    found = list(source.test.as_numpy_iterator())
    jpegs = splits["validation"][0::2] + splits["validation"][1::2]
    assert [label for _, label in found] == [label for _, label in jpegs]
    for (image, _), (jpeg, _) in zip(found, jpegs, strict=True):
        theirs = np.asarray(Image.open(io.BytesIO(jpeg)), int)
        assert image.shape == theirs.shape and np.abs(image - theirs).max() <= 1
    run = _run(source, size=16, batch_size=10)
    assert [images.shape for images, _ in run] == [(10, 16, 16, 3), (10, 16, 16, 3), (4, 16, 16, 3)]
    labels = np.concatenate([labels for _, labels in run]).tolist()
    assert sorted(labels) == sorted(label for _, label in splits["train"])
    assert labels != [label for _, label in splits["train"][0::2] + splits["train"][1::2]]


def test_not_prepared(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        load("cifar10", tmp_path)
    assert f"`tfds build cifar10 --data_dir {tmp_path}`" in str(error.value)
    with pytest.raises(FileNotFoundError) as error:
        load("imagenet2012", tmp_path)
    for part in (
        "https://image-net.org/download.php",
        "ILSVRC2012_img_train.tar",
        "ILSVRC2012_img_val.tar",
        os.fspath(tmp_path / "downloads" / "manual"),
        f"tfds build imagenet2012 --data_dir {tmp_path}",
    ):
        assert part in str(error.value)


def _delete(folder):
    next(folder.glob("*-train.*")).unlink()


def _shorten(folder):
    file = next(folder.glob("*-train.*"))
    file.write_bytes(file.read_bytes()[:-100])


def _flip_bits(folder):
    file = next(folder.glob("*-train.*"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)


def _tear(folder):
    file = folder / "dataset_info.json"
    file.write_text(file.read_text()[:50])


@pytest.mark.parametrize(
    ("damage", "kind", "message"),
    [
        (_delete, FileNotFoundError, "cifar10-train.tfrecord-00000-of-00001 is missing \\(1 of 1 files\\)"),
        (_shorten, ValueError, "split train should have [0-9]+ bytes, it has [0-9]+"),
        (_flip_bits, ValueError, "split train cannot be read"),
        (_tear, ValueError, "its description or one of its splits is missing or broken"),
    ],
)
def test_damaged(damage, kind, message, tmp_path):
    folder, _ = _cifar(tmp_path)
    damage(folder)
    with pytest.raises(kind, match=message) as error:
        load("cifar10", tmp_path)
    assert f"{folder} is damaged" in str(error.value) and "tfds build cifar10" in str(error.value)


def test_imagenet_without_validation_images(tmp_path):
    _prepare(tmp_path, "imagenet2012", {"train": [(io.BytesIO(jpeg), label) for jpeg, label in _jpegs(3)]})
    with pytest.raises(ValueError, match="validation"):
        load("imagenet2012", tmp_path)


def test_folder(tmp_path):
    root = _folder(tmp_path / "pets", ("train", "val"))
    (root / "train" / "cat" / "notes.txt").write_text("no image")
    source = load(os.fspath(root))
    assert (source.train_size, source.test_size, source.num_classes, source.channels) == (6, 6, 2, 3)
    found = list(source.train.as_numpy_iterator())
    assert [label for _, label in found] == [0, 0, 0, 1, 1, 1]
    for (image, _), file in zip(found, sorted((root / "train").glob("*/*.png")), strict=True):
        np.testing.assert_array_equal(image, np.asarray(Image.open(file)))
    assert [images.shape for images, _ in _run(source, FULL, 16, 4)] == [(4, 16, 16, 3), (2, 16, 16, 3)]


def test_folder_images_are_upright(tmp_path):
    root = _folder(tmp_path / "pets", count=1)
    exif = Image.Exif()
    exif[0x0112] = 6  # To be turned by 90 degrees.
    pixels = np.zeros((10, 30, 3), np.uint8)
    Image.fromarray(pixels).save(root / "train" / "cat" / "0.png", exif=exif)
    assert next(iter(load(os.fspath(root)).train))[0].shape == (30, 10, 3)


def test_folder_without_splits(tmp_path):
    _folder(tmp_path, ("",))
    with pytest.raises(ValueError, match="has no train images: .*train is not there. Expected the folders train and"):
        load(os.fspath(tmp_path))
    with pytest.raises(ValueError, match="has no test images: .*test or .*val is not there"):
        load(os.fspath(_folder(tmp_path / "half", ("train",))))


def test_folder_with_an_unknown_class(tmp_path):
    root = _folder(tmp_path / "pets")
    (root / "test" / "cat").rename(root / "test" / "cow")
    with pytest.raises(ValueError, match="has the class 'cow' .*Expected the classes of .*train: cat, dog"):
        load(os.fspath(root))


def test_folder_without_images(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split / "cat").mkdir(parents=True)
    with pytest.raises(ValueError, match="train holds no images"):
        load(os.fspath(tmp_path))


def test_folder_with_a_broken_image(tmp_path):
    root = _folder(tmp_path / "pets")
    (root / "train" / "dog" / "1.png").write_bytes(b"no image")
    with pytest.raises(tf.errors.OpError, match="dog/1.png cannot be read as an image.*Repair or remove it"):
        _run(load(os.fspath(root)), size=16)


def test_unknown_name():
    with pytest.raises(ValueError, match="no data set and no folder 'cifar_10'. Did you mean cifar10?"):
        load("cifar_10")


def _model(size=12):
    image = tf.keras.Input((size, size, 1))
    logits = tf.keras.layers.Dense(10)(tf.keras.layers.Flatten()(image))
    model = tf.keras.Model(image, logits)
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf.keras.optimizers.SGD(0.1), loss, metrics=["accuracy"])
    return model


def test_fit_from_an_epoch_to_an_epoch(digits):
    arguments = dict(steps_per_epoch=steps_per_epoch(digits, 500), verbose=0)

    def train(model, first_epoch, epochs):
        data = batches(digits, Augmentation("pad"), 12, 500, training=True, first_epoch=first_epoch, epochs=epochs)
        validation = batches(digits, PLAIN, 12, 500, training=False)
        fit = model.fit(data, initial_epoch=first_epoch, epochs=epochs, validation_data=validation, **arguments)
        assert fit.epoch == list(range(first_epoch, epochs))

    whole, parts = _model(), _model()
    parts.set_weights(whole.get_weights())
    train(whole, 0, 3)
    train(parts, 0, 2)
    train(parts, 2, 3)
    for a, b in zip(whole.get_weights(), parts.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_distributed_batches_are_the_same_images(digits):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    data = batches(digits, PAD, 12, 500, training=True)
    assert data.options().experimental_distribute.auto_shard_policy == tf.data.experimental.AutoShardPolicy.DATA
    distributed = [(x.numpy(), y.numpy()) for x, y in strategy.experimental_distribute_dataset(data)]
    assert _same(distributed, _run(digits, PAD, 12))


def test_sharded_by_data(digits):
    # What each of two workers gets after tf.distribute has divided the batches.
    from tensorflow.python.data.experimental.ops import distribute

    data = batches(digits, PAD, 12, 500, training=True)
    shards = [list(distribute._AutoShardDataset(data, 2, worker).unbatch().as_numpy_iterator()) for worker in range(2)]
    found = sorted(image.tobytes() for shard in shards for image, _ in shard)
    assert found == sorted(image.tobytes() for images, _ in _run(digits, PAD, 12) for image in images)
    assert all(shards)


class _Slow(tf.keras.layers.Layer):
    """A model's work, without work."""

    def call(self, inputs):
        def wait(x):
            time.sleep(0.02)
            return x

        outputs = tf.py_function(wait, [inputs], inputs.dtype)
        outputs.set_shape(inputs.shape)
        return inputs + tf.stop_gradient(outputs - inputs)


def _monitored(data, steps, slow_model):
    image = x = tf.keras.Input((4,))
    if slow_model:
        x = _Slow()(x)
    model = tf.keras.Model(image, tf.keras.layers.Dense(2)(x))
    model.compile("sgd", tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    lines = []
    monitor = PipelineMonitor(data.prefetch(2), 8, lines.append)
    logged = []
    later = tf.keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: logged.append(dict(logs)))
    history = model.fit(
        data.prefetch(2).repeat(), epochs=2, steps_per_epoch=steps, callbacks=[monitor, later], verbose=0
    )
    assert [logs["images_per_second"] for logs in logged] == history.history["images_per_second"]
    return lines, history.history["images_per_second"]


def _vectors():
    return tf.data.Dataset.from_tensor_slices((np.ones((160, 4), np.float32), np.zeros(160, np.int64))).batch(8)


def test_monitor_says_that_the_pipeline_is_the_bottleneck():
    def wait(x, y):
        time.sleep(0.02)
        return x, y

    def slow(x, y):
        x, y = tf.numpy_function(wait, [x, y], (tf.float32, tf.int64))
        return tf.ensure_shape(x, (None, 4)), tf.ensure_shape(y, (None,))

    lines, speeds = _monitored(_vectors().map(slow), 20, slow_model=False)
    assert len(lines) == 1 and lines[0].startswith("The input pipeline is the bottleneck: ")
    # 8 images every 20 ms or longer; the second epoch begins with a few that were ready.
    assert all(20 < speed < 8 / 0.02 * 1.5 for speed in speeds)


def test_monitor_is_silent_if_the_model_is_slow():
    lines, speeds = _monitored(_vectors(), 20, slow_model=True)
    assert not lines
    assert all(20 < speed <= 8 / 0.02 for speed in speeds)


def test_monitor_draws_for_three_seconds_at_most(monkeypatch):
    monkeypatch.setattr(monitor, "_SECONDS", 0.2)
    begin = time.perf_counter()
    assert monitor._images_per_second(_vectors().repeat()) > 0
    assert time.perf_counter() - begin < 2
