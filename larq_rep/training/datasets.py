"""The data sets of the recipes as `tf.data` pipelines whose epochs depend on nothing but seed and number."""

import difflib
import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from larq_rep._keras import TensorCallback
from larq_rep.data import check_image, digits, folders_in, images_in, open_upright
from larq_rep.training.augmentation import Augmentation, Size, evaluation_image, height_width, training_image
from larq_rep.training.folder import RunError

__all__ = ["Augmentation", "PipelineMonitor", "Source", "batches", "check_files", "load", "steps_per_epoch"]

# Prepared by tensorflow_datasets, with the split that is tested on: the test labels of ImageNet are secret.
_PREPARED = {"cifar10": "test", "cifar100": "test", "imagenet2012": "validation"}

# Examples that are mixed at a time, of a data set that does not fit into memory: about 1 GB of JPEGs.
_SHUFFLED_RECORDS = 8192
_SHUFFLED_FILES = 16

_MANY_FILES = 20_000
_NAMED_FILES = 10

_MONITOR_SECONDS = 3.0
_BOTTLENECK = 0.8


@dataclass(frozen=True)
class Source:
    """A data set to train and test on; `load` makes it.

    # Attributes
        name: What `load` was asked for.
        num_classes, channels: What a network for it needs.
        train_size, test_size: Numbers of images.
        mirrors: Whether a mirrored image is of the same class. Digits are not, so they are never flipped.
        examples: `examples(split, seed)` is a dataset of (stored image, int64 label) of `"train"` or `"test"`, in
            the stored order if `seed` is `None`, else shuffled.
        decode: From a stored image to uint8 `(height, width, channels)`.
        files: Those of a folder of images.
    """

    name: str
    num_classes: int
    channels: int
    train_size: int
    test_size: int
    mirrors: bool
    examples: Callable[[str, tf.Tensor | None], tf.data.Dataset] = field(repr=False)
    decode: Callable[[tf.Tensor], tf.Tensor] = field(repr=False)
    files: tuple[str, ...] = field(default=(), repr=False)

    @property
    def train(self) -> tf.data.Dataset:
        """All images to train on, uint8 `(height, width, channels)`, and their labels, in the stored order."""
        return self._decoded("train")

    @property
    def test(self) -> tf.data.Dataset:
        """All images to test on, as `train`."""
        return self._decoded("test")

    def _decoded(self, split: str) -> tf.data.Dataset:
        examples = self.examples(split, None)
        return examples.map(lambda image, label: (self.decode(image), label), tf.data.AUTOTUNE)


def load(name: str, data_dir: str | os.PathLike[str] | None = None) -> Source:
    """A data set by name, or a folder of images. Nothing is ever downloaded.

    # Arguments
        name: `"cifar10"`, `"cifar100"` or `"imagenet2012"`, prepared by `tensorflow_datasets`; `"digits"`, see
            `larq_rep.data.digits`; or the path of a folder that holds the folders `train` and `test` (or `val`),
            each with one folder of images for each class.
        data_dir: The folder of `tensorflow_datasets`. By default `$TFDS_DATA_DIR` or `~/tensorflow_datasets`.

    # Returns
        A `Source`. CIFAR and digits are in memory, of the others the files are opened as they are needed.

    # Raises
        FileNotFoundError: If the data set was not prepared, or a file of it is missing; it says how to prepare it.
            If a file or folder of a folder of images is a link to nowhere.
        ValueError: If there is no such data set or folder, the folder is arranged otherwise, or a prepared
            data set is damaged.
        ImportError: If `tensorflow_datasets` is needed and not installed.
    """
    if name == "digits":
        return _digits()
    if name in _PREPARED:
        return _prepared(name, data_dir)
    if Path(name).is_dir():
        return _folder(Path(name))
    names = ["digits", *_PREPARED]
    close = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise ValueError(
        f"There is no data set and no folder {name!r}.{hint} Expected {', '.join(names)} or the path of a folder "
        "with the folders train and test."
    )


def check_files(source: Source, report: Callable[[str], None] = print) -> None:
    """Looks at each image of a folder, before a training that would end at one that cannot be read.

    See `larq_rep.data.check_image` for what is found without decoding them.

    # Raises
        RunError: If some cannot be read; it names the first of them.
    """
    if len(source.files) > _MANY_FILES:
        report(f"Looking at {len(source.files)} images before the training begins.")

    def why(file: str) -> str | None:
        try:
            check_image(file)
        except ValueError as error:
            return str(error)
        return None

    with ThreadPoolExecutor() as pool:
        damaged = [text for text in pool.map(why, source.files) if text]
    if damaged:
        more = [f"{len(damaged) - _NAMED_FILES} more cannot be read either."] if len(damaged) > _NAMED_FILES else []
        raise RunError("\n".join([*damaged[:_NAMED_FILES], *more]))


def steps_per_epoch(source: Source, batch_size: int, drop_last: bool = False) -> int:
    """Number of batches of an epoch of training; the last one may be smaller, or with `drop_last` is left out then.

    # Raises
        ValueError: If no batch is left.
    """
    if not drop_last:
        return math.ceil(source.train_size / batch_size)
    if source.train_size < batch_size:
        raise ValueError(
            f"{source.name} has {source.train_size} images to train on, less than a batch of {batch_size}, and what "
            "fills no batch is left out. Choose a smaller batch size (--set batch_size=...), or keep the last batch "
            "(--set drop_last=false)."
        )
    return source.train_size // batch_size


def batches(
    source: Source,
    augmentation: Augmentation,
    size: Size,
    batch_size: int,
    *,
    training: bool,
    drop_last: bool = False,
    seed: int = 0,
    first_epoch: int = 0,
    epochs: int = 1,
) -> tf.data.Dataset:
    """Batches to train on or to evaluate, of float32 images `(N, height, width, channels)` and int64 labels.

    Training runs through the epochs `first_epoch` to `epochs - 1`, each of `steps_per_epoch` batches: give
    `fit` the same two numbers and `steps_per_epoch`. Order and augmentation of an epoch are a pure
    function of `seed` and its number, whatever the number of threads and wherever the run began, so that a
    resumed run sees what an uninterrupted one would. Sets in memory and lists of files are shuffled wholly; of
    ImageNet the files are shuffled, 16 read at a time, and 8192 examples mixed.

    # Arguments
        source: See `load`.
        augmentation: What is done to the images. Flips are left out if the source bears none.
        size: Height and width of the images, or `(height, width)`.
        batch_size: Images in a batch, of all replicas together. The last batch of an epoch may be smaller.
        training: Whether to shuffle and augment the training images, or to go through the test images once.
        drop_last: Whether a smaller last batch of an epoch of training is left out. No test image ever is.
        seed: Of everything random.
        first_epoch: Where training begins.
        epochs: Where it ends.

    # Returns
        A dataset that may be given to `strategy.experimental_distribute_dataset`. Each worker then prepares the
        whole batch and takes its share: that keeps an epoch the same on any number of workers, but the pipeline
        gets no faster by them.
    """
    height, width = height_width(size)

    def batched(
        examples: tf.data.Dataset, image_of: Callable[..., tf.Tensor], drop_last: bool = False
    ) -> tf.data.Dataset:
        def prepared(index: tf.Tensor, example: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
            image = image_of(source.decode(example[0]), index)
            return tf.ensure_shape(image, (height, width, source.channels)), example[1]

        images = examples.enumerate().map(prepared, tf.data.AUTOTUNE, deterministic=True)
        return images.batch(batch_size, drop_remainder=drop_last)

    def epoch_of(epoch: tf.Tensor) -> tf.data.Dataset:
        # `shuffle` mixes the global seed into its own; within this function it is always the same one.
        tf.random.set_seed(1)
        shuffling, drawing = tf.unstack(tf.random.split(tf.random.fold_in(tf.constant([seed, 0], tf.int64), epoch), 2))
        order = tf.random.stateless_uniform([], shuffling, 0, 2**31 - 1, tf.int64)
        return batched(
            source.examples("train", order),
            lambda image, index: training_image(image, changes, size, tf.random.fold_in(drawing, index)),
            drop_last,
        )

    if training:
        changes = replace(augmentation, flip=augmentation.flip and source.mirrors)
        dataset = tf.data.Dataset.range(first_epoch, epochs).flat_map(epoch_of)
    else:
        dataset = batched(source.examples("test", None), lambda image, _: evaluation_image(image, augmentation, size))
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)


class PipelineMonitor(TensorCallback):
    """Measures images per second, and says so if the input pipeline and not the model sets the pace.

    Each epoch's logs get `images_per_second`, from the end of its first batch to the end of the last but one, so
    without tracing, validation and a smaller last batch. After the first epoch that was run, the pipeline is drawn
    from alone for at most 3 seconds; if that takes 80 % of the time of training or more, one line is reported. Put
    the callback before those that write the logs.

    # Arguments
        dataset: What `fit` was given, of `(images, ...)`.
        batch_size: Images in a batch, of all replicas together.
        report: Is called with the line.
    """

    def __init__(self, dataset: tf.data.Dataset, batch_size: int, report: Callable[[str], None] = print):
        super().__init__()
        self.dataset = dataset
        self.batch_size = batch_size
        self.report = report
        self._measured = False

    def on_epoch_begin(self, epoch, logs=None):
        self._ends: dict[int, float] = {-1: time.perf_counter()}

    def on_train_batch_end(self, batch, logs=None):
        # Steps are begun before those before them have ended: only at the two ends of the measurement it is waited.
        if batch in self._measured_between():
            tf.nest.map_structure(float, logs or {})
        self._ends[batch] = time.perf_counter()

    def _measured_between(self) -> tuple[int, int]:
        """The batches at whose ends the measurement begins and ends; -1 is the beginning of the epoch."""
        steps = self.params.get("steps") or len(self._ends) - 1
        # With three batches or fewer nothing is between the first and the last.
        return (0, steps - 2) if steps > 3 else (-1, steps - 1)

    def on_epoch_end(self, epoch, logs=None):
        first, last = self._measured_between()
        if last not in self._ends:  # The epoch was ended before.
            return
        trained = self.batch_size * (last - first) / (self._ends[last] - self._ends[first])
        if logs is not None:
            logs["images_per_second"] = trained
        if self._measured:
            return
        self._measured = True
        drawn = _images_per_second(self.dataset)
        if drawn is not None and trained >= _BOTTLENECK * drawn:
            # What was drawn alone can be less than in training, where batches were prepared ahead.
            alone = f"{drawn:.0f} images/s" if drawn > trained else "no more"
            self.report(
                f"The input pipeline is the bottleneck: {trained:.0f} images/s in training, {alone} from the pipeline "
                "alone. More CPU cores, a faster disk or a lighter augmentation make training faster."
            )


def _images_per_second(dataset: tf.data.Dataset) -> float | None:
    images = iter(dataset)
    # The first batch waits until everything has been opened and shuffled.
    if next(images, None) is None:
        return None
    count, begin = 0, time.perf_counter()
    seconds = 0.0
    while seconds < _MONITOR_SECONDS and (batch := next(images, None)) is not None:
        count += int(tf.shape(batch[0])[0])
        seconds = time.perf_counter() - begin
    return count / seconds if count else None


def _in_memory(splits: dict[str, tuple[np.ndarray, np.ndarray]], **record: Any) -> Source:
    sizes = {split: len(labels) for split, (_, labels) in splits.items()}
    with tf.device("CPU"):
        datasets = {split: tf.data.Dataset.from_tensor_slices(arrays) for split, arrays in splits.items()}

    def examples(split: str, seed: tf.Tensor | None) -> tf.data.Dataset:
        if seed is None:
            return datasets[split]
        return datasets[split].shuffle(sizes[split], seed, reshuffle_each_iteration=False)

    return Source(examples=examples, train_size=sizes["train"], test_size=sizes["test"], **record)


def _digits() -> Source:
    splits = {}
    for split in ("train", "test"):
        images, labels = digits(split)
        splits[split] = np.round(255 * images).astype(np.uint8), labels.astype(np.int64)
    return _in_memory(splits, name="digits", num_classes=10, channels=1, mirrors=False, decode=tf.identity)


def _prepared(name: str, data_dir: str | os.PathLike[str] | None) -> Source:
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            f"{name} is read with tensorflow_datasets, which is not installed ({error}). "
            "Expected the result of `pip install tensorflow-datasets importlib_resources`."
        ) from error
    root = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser().absolute()
    versions = [file.parent for file in (root / name).glob("[0-9]*/dataset_info.json")]
    if not versions:
        raise FileNotFoundError(
            f"{name} is not prepared in {root}: no {name}/*/dataset_info.json. {_remedy(name, root)}"
        )
    folder = max(versions, key=lambda version: [int(number) for number in version.name.split(".") if number.isdigit()])

    def damaged(how: str) -> str:
        return f"{folder} is damaged: {how}. Remove that folder and prepare it again. {_remedy(name, root)}"

    try:
        info = tfds.builder_from_directory(folder).info
        num_classes = info.features["label"].num_classes
        splits = {"train": info.splits["train"], "test": info.splits[_PREPARED[name]]}
    except Exception as error:  # Whatever reading half a JSON file raises.
        raise ValueError(damaged(f"its description or one of its splits is missing or broken ({error})")) from error
    if info.file_format.value != "tfrecord":
        raise ValueError(
            f"{folder}: expected files of the format tfrecord, found {info.file_format.value}. Remove the folder and "
            f"prepare it in the default format. {_remedy(name, root)}"
        )
    for split in splits.values():
        missing = [file for file in split.filepaths if not file.exists()]
        if missing:
            raise FileNotFoundError(
                damaged(f"{missing[0].name} is missing ({len(missing)} of {split.num_shards} files)")
            )
        # A record has 16 bytes of lengths and check sums; 0 bytes stand for an unknown number.
        expected = int(split.num_bytes) + 16 * split.num_examples
        found = sum(file.stat().length for file in split.filepaths)
        if split.num_bytes and found != expected:
            raise ValueError(damaged(f"split {split.name} should have {expected} bytes, it has {found}"))

    stays_encoded = name == "imagenet2012"
    decoders = {"image": tfds.decode.SkipDecoding()} if stays_encoded else None

    def parsed(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        example = info.features.deserialize_example(record, decoders=decoders)
        return example["image"], example["label"]

    def examples(split: str, seed: tf.Tensor | None) -> tf.data.Dataset:
        files = tf.data.Dataset.from_tensor_slices([os.fspath(file) for file in splits[split].filepaths])
        if seed is None:
            records = tf.data.TFRecordDataset(files)
        else:
            records = files.shuffle(splits[split].num_shards, seed, reshuffle_each_iteration=False).interleave(
                tf.data.TFRecordDataset, _SHUFFLED_FILES, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
            )
            records = records.shuffle(_SHUFFLED_RECORDS, seed, reshuffle_each_iteration=False)
        records = records.apply(tf.data.experimental.assert_cardinality(splits[split].num_examples))
        return records.map(parsed, tf.data.AUTOTUNE, deterministic=True)

    record: dict[str, Any] = dict(name=name, num_classes=num_classes, channels=3, mirrors=True)
    if stays_encoded:
        sizes = {f"{split}_size": splits[split].num_examples for split in splits}
        return Source(examples=examples, decode=_decoded_jpeg, **sizes, **record)
    arrays = {}
    for split in splits:
        whole = examples(split, None).batch(splits[split].num_examples)
        try:
            arrays[split] = next(whole.as_numpy_iterator())
        except tf.errors.OpError as error:
            raise ValueError(damaged(f"split {split} cannot be read ({error.message})")) from error
    return _in_memory(arrays, decode=tf.identity, **record)


def _decoded_jpeg(image: tf.Tensor) -> tf.Tensor:
    # The transform that PIL takes, with which the published networks were trained.
    return tf.image.decode_jpeg(image, channels=3, dct_method="INTEGER_ACCURATE")


def _remedy(name: str, root: Path) -> str:
    # The program `tfds` of some versions only starts with Apache Beam installed, the same from Python always.
    build = (
        f"`tfds build {name} --data_dir {root}`, or from Python "
        f"`import tensorflow_datasets; tensorflow_datasets.builder('{name}', data_dir='{root}').download_and_prepare()`"
    )
    if name != "imagenet2012":
        return f"To download and prepare it, run {build}."
    return (
        "To prepare it, register at https://image-net.org/download.php, put ILSVRC2012_img_train.tar and "
        f"ILSVRC2012_img_val.tar into {root / 'downloads' / 'manual'} and run {build}."
    )


def _folder(root: Path) -> Source:
    folders_in(root)  # for links to nowhere
    folders = {"train": root / "train", "test": root / "test"}
    if not folders["test"].is_dir():
        folders["test"] = root / "val"
    for split, folder in folders.items():
        if not folder.is_dir():
            wanted = f"{root / 'test'} or {folder}" if split == "test" else folder
            raise ValueError(
                f"{root} has no {split} images: {wanted} is not there. Expected the folders train and test (or val), "
                "each with one folder of images for each class."
            )
    classes = {split: _classes(folder) for split, folder in folders.items()}
    unknown = sorted(set(classes["test"]) - set(classes["train"]))
    if unknown:
        raise ValueError(
            f"{folders['test']} has the class {unknown[0]!r} ({len(unknown)} such), of which {folders['train']} has no "
            f"images. Expected the classes of {folders['train']}: {', '.join(sorted(classes['train']))}."
        )
    files, labels = {}, {}
    for split in folders:
        listed = [
            (os.fspath(file), label)
            for label, name in enumerate(sorted(classes["train"]))
            for file in classes[split].get(name, [])
        ]
        files[split] = np.array([file for file, _ in listed])
        labels[split] = np.array([label for _, label in listed], np.int64)
    return _in_memory(
        {split: (files[split], labels[split]) for split in folders},
        name=os.fspath(root),
        num_classes=len(classes["train"]),
        channels=3,
        mirrors=True,
        decode=_picture,
        files=tuple(file for split in folders for file in files[split].tolist()),
    )


def _classes(folder: Path) -> dict[str, list[Path]]:
    classes = {child.name: images for child in folders_in(folder) if (images := images_in(child))}
    if not classes:
        raise ValueError(f"{folder} holds no images. Expected one folder of images for each class.")
    return classes


def _picture(file: tf.Tensor) -> tf.Tensor:
    image = tf.numpy_function(_read, [file], tf.uint8, stateful=False)
    return tf.ensure_shape(image, (None, None, 3))


def _read(file: bytes) -> np.ndarray:
    """With PIL as `larq_rep.data.image_folder`: all its formats, and upright."""
    return np.asarray(open_upright(os.fsdecode(file)))
