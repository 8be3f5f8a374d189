"""The batches of a data set, in epochs that depend on nothing but seed and number."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tensorflow as tf

from larq_rep.images import Size, evaluation_image, height_width
from larq_rep.training.augmentation import Augmentation, training_image


@dataclass(frozen=True)
class Source:
    """A data set to train and test on; `larq_rep.training.datasets.load` makes it.

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


def in_memory(splits: dict[str, tuple[np.ndarray, np.ndarray]], **record: Any) -> Source:
    """A data set of whole arrays of stored images and labels, one pair a split; `record` has the other attributes."""
    sizes = {split: len(labels) for split, (_, labels) in splits.items()}
    with tf.device("CPU"):
        datasets = {split: tf.data.Dataset.from_tensor_slices(arrays) for split, arrays in splits.items()}

    def examples(split: str, seed: tf.Tensor | None) -> tf.data.Dataset:
        if seed is None:
            return datasets[split]
        return datasets[split].shuffle(sizes[split], seed, reshuffle_each_iteration=False)

    return Source(examples=examples, train_size=sizes["train"], test_size=sizes["test"], **record)


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
        source: See `larq_rep.training.datasets.load`.
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
