"""Makes the batches of a data set, in epochs that depend only on the seed and the epoch's number."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tensorflow as tf

from larq_rep.images import Preparation, Size, height_width
from larq_rep.training.augmentation import Augmentation, training_image


@dataclass(frozen=True)
class Source:
    """A data set to train and test on; `larq_rep.training.datasets.load` makes it.

    # Attributes
        name: The name given to `load`.
        num_classes, channels: Number of classes and of image channels, which a network needs.
        train_size, test_size: Numbers of images.
        mirrors: Whether a mirrored image keeps its class. Mirrored digits do not, so they are never flipped.
        examples: `examples(split, seed)` is a dataset of (stored image, int64 label) of `"train"` or `"test"`, in
            the stored order if `seed` is `None`, otherwise shuffled.
        decode: Turns a stored image into uint8 `(height, width, channels)`.
        files: The image files, if the data set is a folder of images.
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
        """All training images, uint8 `(height, width, channels)`, and their labels, in the stored order."""
        return self._decoded("train")

    @property
    def test(self) -> tf.data.Dataset:
        """All test images, in the form of `train`."""
        return self._decoded("test")

    def _decoded(self, split: str) -> tf.data.Dataset:
        examples = self.examples(split, None)
        return examples.map(lambda image, label: (self.decode(image), label), tf.data.AUTOTUNE)


def in_memory(splits: dict[str, tuple[np.ndarray, np.ndarray]], **record: Any) -> Source:
    """Makes a data set of arrays of stored images and labels, one pair a split; `record` has the other attributes."""
    sizes = {split: len(labels) for split, (_, labels) in splits.items()}
    with tf.device("CPU"):
        datasets = {split: tf.data.Dataset.from_tensor_slices(arrays) for split, arrays in splits.items()}

    def examples(split: str, seed: tf.Tensor | None) -> tf.data.Dataset:
        if seed is None:
            return datasets[split]
        return datasets[split].shuffle(sizes[split], seed, reshuffle_each_iteration=False)

    return Source(examples=examples, train_size=sizes["train"], test_size=sizes["test"], **record)


def steps_per_epoch(source: Source, batch_size: int, drop_last: bool = False) -> int:
    """Number of batches in an epoch of training. A smaller last batch counts, unless `drop_last` leaves it out.

    # Raises
        ValueError: If no batch is left.
    """
    if not drop_last:
        return math.ceil(source.train_size / batch_size)
    if source.train_size < batch_size:
        raise ValueError(
            f"{source.name} has {source.train_size} images to train on, less than a batch of {batch_size}, and images "
            "that do not fill a batch are left out. Choose a smaller batch size (--set batch_size=...), or keep the "
            "last batch (--set drop_last=false)."
        )
    return source.train_size // batch_size


def batches(
    source: Source,
    augmentation: Augmentation | Preparation,
    size: Size,
    batch_size: int,
    *,
    training: bool,
    drop_last: bool = False,
    seed: int = 0,
    first_epoch: int = 0,
    epochs: int = 1,
) -> tf.data.Dataset:
    """Makes batches for training or evaluation: float32 images `(N, height, width, channels)` and int64 labels.

    Training runs through the epochs `first_epoch` to `epochs - 1`, each of `steps_per_epoch` batches: give
    `fit` the same two numbers and `steps_per_epoch`. Order and augmentation of an epoch are a pure
    function of `seed` and its number, whatever the number of threads and wherever the run began, so a
    resumed run sees the same images as an uninterrupted one. Data sets in memory and lists of files are shuffled
    completely. ImageNet's files are shuffled, 16 are read at a time, and 8192 examples are mixed.

    # Arguments
        source: See `larq_rep.training.datasets.load`.
        augmentation: What is done to the images. They are not flipped if the source's `mirrors` is false. For test
            images it may be a `Preparation` of that size.
        size: Height and width of the images, or `(height, width)`.
        batch_size: Images in a global batch, over all replicas. The last batch of an epoch may be smaller.
        training: Whether to shuffle and augment the training images, or to go through the test images once.
        drop_last: Whether a smaller last batch of a training epoch is left out. Test images never are.
        seed: Seed of everything random.
        first_epoch: The epoch at which training begins.
        epochs: The epoch before which it ends.

    # Returns
        A dataset that may be given to `strategy.experimental_distribute_dataset`. Each worker then prepares the
        whole batch and takes its share: an epoch is the same on any number of workers, but more workers do not
        make the pipeline faster.
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
        # `shuffle` mixes the global seed into its own; this function always sets the same one.
        tf.random.set_seed(1)
        shuffling, drawing = tf.unstack(tf.random.split(tf.random.fold_in(tf.constant([seed, 0], tf.int64), epoch), 2))
        order = tf.random.stateless_uniform([], shuffling, 0, 2**31 - 1, tf.int64)
        return batched(
            source.examples("train", order),
            lambda image, index: training_image(image, changes, size, tf.random.fold_in(drawing, index)),
            drop_last,
        )

    if training:
        assert isinstance(augmentation, Augmentation)
        changes = replace(augmentation, flip=augmentation.flip and source.mirrors)
        dataset = tf.data.Dataset.range(first_epoch, epochs).flat_map(epoch_of)
    else:
        preparation = augmentation if isinstance(augmentation, Preparation) else augmentation.at(size, source.channels)
        dataset = batched(source.examples("test", None), lambda image, _: preparation.one(image))
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)
