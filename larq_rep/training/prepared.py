"""Loads data sets that `tensorflow_datasets` has prepared: TFRecords and their description in a folder."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from larq_rep.datasets import Dataset
from larq_rep.training.pipeline import Source, in_memory

# The number of examples mixed at a time in a data set that does not fit into memory: about 1 GB of JPEGs.
_SHUFFLED_RECORDS = 8192
_SHUFFLED_FILES = 16


def load_prepared(name: str, record: Dataset, data_dir: str | os.PathLike[str] | None) -> Source:
    """Loads the data set of a record that has a `builder`. `larq_rep.training.datasets.load` describes the errors.

    # Arguments
        name: The name that the user asked for.
        data_dir: As in `larq_rep.training.datasets.load`.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            f"{record.builder} is read with tensorflow_datasets, which is not installed ({error}). "
            "Expected the result of `pip install tensorflow-datasets importlib_resources`."
        ) from error
    root = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser().absolute()
    folder = _newest(record, root)

    def damaged(how: str) -> str:
        return f"{folder} is damaged: {how}. Remove that folder and prepare it again. {_remedy(record, root)}"

    try:
        info = tfds.builder_from_directory(folder).info
        num_classes = info.features["label"].num_classes
        splits = {"train": info.splits["train"], "test": info.splits[record.test_split]}
    except Exception as error:  # Reading half a JSON file raises errors of many classes.
        raise ValueError(damaged(f"its description or one of its splits is missing or broken ({error})")) from error
    if info.file_format.value != "tfrecord":
        raise ValueError(
            f"{folder}: expected files of the format tfrecord, found {info.file_format.value}. Remove the folder and "
            f"prepare it in the default format. {_remedy(record, root)}"
        )
    _check_whole(splits, damaged)
    decoders = {"image": tfds.decode.SkipDecoding()} if record.encoded else None
    examples = _examples(splits, info.features, decoders)
    known: dict[str, Any] = dict(
        name=name, num_classes=num_classes, channels=record.input_shape[2], mirrors=record.mirrors
    )
    if record.encoded:
        sizes = {f"{split}_size": splits[split].num_examples for split in splits}
        return Source(examples=examples, decode=_decoded_jpeg, **sizes, **known)
    arrays = {}
    for split in splits:
        whole = examples(split, None).batch(splits[split].num_examples)
        try:
            arrays[split] = next(whole.as_numpy_iterator())
        except tf.errors.OpError as error:
            raise ValueError(damaged(f"split {split} cannot be read ({error.message})")) from error
    return in_memory(arrays, decode=tf.identity, **known)


def _newest(record: Dataset, root: Path) -> Path:
    name = record.builder
    versions = [file.parent for file in (root / str(name)).glob("[0-9]*/dataset_info.json")]
    if not versions:
        raise FileNotFoundError(
            f"{name} is not prepared in {root}: no {name}/*/dataset_info.json. {_remedy(record, root)}"
        )
    return max(versions, key=lambda version: [int(number) for number in version.name.split(".") if number.isdigit()])


def _check_whole(splits: dict[str, Any], damaged: Callable[[str], str]) -> None:
    for split in splits.values():
        missing = [file for file in split.filepaths if not file.exists()]
        if missing:
            raise FileNotFoundError(
                damaged(f"{missing[0].name} is missing ({len(missing)} of {split.num_shards} files)")
            )
        # A record has 16 bytes of lengths and checksums; 0 stands for an unknown number of bytes.
        expected = int(split.num_bytes) + 16 * split.num_examples
        found = sum(file.stat().length for file in split.filepaths)
        if split.num_bytes and found != expected:
            raise ValueError(damaged(f"split {split.name} should have {expected} bytes, it has {found}"))


def _examples(
    splits: dict[str, Any], features: Any, decoders: dict[str, Any] | None
) -> Callable[[str, tf.Tensor | None], tf.data.Dataset]:
    def parsed(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        example = features.deserialize_example(record, decoders=decoders)
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

    return examples


def _decoded_jpeg(image: tf.Tensor) -> tf.Tensor:
    # The transform that PIL uses; the published networks were trained with it.
    return tf.image.decode_jpeg(image, channels=3, dct_method="INTEGER_ACCURATE")


def _remedy(record: Dataset, root: Path) -> str:
    name = record.builder
    # In some versions the program `tfds` only starts if Apache Beam is installed; the call from Python always works.
    build = (
        f"`tfds build {name} --data_dir {root}`, or from Python "
        f"`import tensorflow_datasets; tensorflow_datasets.builder('{name}', data_dir='{root}').download_and_prepare()`"
    )
    if not record.archives:
        return f"To download and prepare it, run {build}."
    return (
        f"To prepare it, register at {record.page}, put {' and '.join(record.archives)} into "
        f"{root / 'downloads' / 'manual'} and run {build}."
    )
