"""The names of the classes that a network answers with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from larq_rep.checks import require_model
from larq_rep.datasets import names_of
from larq_rep.zoo.records import DATASETS, Network, get_network


def decode_predictions(
    model: tf.keras.Model,
    predictions: np.ndarray,
    top: int = 5,
    *,
    network: str | Network | None = None,
    classes: Sequence[str] | None = None,
) -> list[list[tuple[str, float]]]:
    """The names and outputs of the most likely classes of each image.

    !!! example
        ```python
        logits = model.predict(larq_rep.zoo.preprocess_input(model, images))
        larq_rep.zoo.decode_predictions(model, logits, top=1)  # [[("cat", 7.3)], ...]
        ```

    # Arguments
        model: The network, whose `record` tells the data set that it is for.
        predictions: Its outputs, `(images, classes)`.
        top: How many classes to name for each image.
        network: The network that `model` is, if it has lost its record.
        classes: Names of the classes, if it was trained on other data.

    # Returns
        For each image `top` pairs of name and output, the largest output first.

    # Raises
        TypeError: If `model` is not a Keras model.
        ValueError: If `model` has no record and neither `network` nor `classes` is given, or the number of names is
            not that of the outputs.
        FileNotFoundError: If Keras does not have the names of ImageNet's classes and cannot download them.
    """
    require_model("decode_predictions", model)
    predictions = np.asarray(predictions)
    if predictions.ndim != 2:
        raise ValueError(f"decode_predictions: expected predictions (images, classes), found {predictions.shape}.")
    names = tuple(classes) if classes is not None else _names(model, network)
    if len(names) != predictions.shape[1]:
        raise ValueError(
            f"decode_predictions: {model.name} answers with {predictions.shape[1]} classes, but there are {len(names)} "
            "names. Give the names of its own data: classes=[...]."
        )
    order = np.argsort(-predictions, axis=1, kind="stable")[:, :top]
    return [[(names[i], float(row[i])) for i in best] for row, best in zip(predictions, order, strict=True)]


def _names(model: tf.keras.Model, network: str | Network | None) -> Sequence[str]:
    arguments = {}
    if network is None:
        record = getattr(model, "record", None)
        if record is None:
            raise ValueError(
                f"decode_predictions: {model.name} has no record that says which network of the zoo it is. Name the "
                "network, network='ResNet20', or the classes, classes=[...]."
            )
        if record.classes:
            return record.classes
        network, arguments = record.network, record.arguments
    known = network if isinstance(network, Network) else get_network(network)
    dataset = DATASETS[arguments.get("dataset", known.variants[0].dataset)]
    if model.input_shape[-1] != dataset.input_shape[-1]:
        raise ValueError(
            f"decode_predictions: {model.name} takes images of {model.input_shape[-1]} channels, so it was not "
            f"trained on {dataset.name}. Give the names of its own data: classes=[...]."
        )
    return dataset.classes or _imagenet()


def known(model: tf.keras.Model) -> tuple[str, ...] | None:
    """The names of the classes of a model that carries a record, without a download; `None` if they are not known.

    They are those of the run that trained it, or of the record's data set if images and outputs are as many as it has.
    """
    if (record := getattr(model, "record", None)) is None:
        return None
    if record.preparation is not None:  # of a run
        return record.classes or None
    outputs = model.output_shape
    try:
        dataset = DATASETS[record.arguments.get("dataset") or get_network(record.network).variants[0].dataset]
    except (ValueError, KeyError):  # The record of another version.
        return None
    if not isinstance(outputs, tuple) or len(outputs) != 2:
        return None
    if (model.input_shape[-1], outputs[-1]) != (dataset.input_shape[-1], dataset.num_classes):
        return None
    return names_of(dataset)


def _imagenet() -> Sequence[str]:
    try:
        (rows,) = tf.keras.applications.imagenet_utils.decode_predictions(-np.arange(1000.0)[None], top=1000)
    except Exception as error:  # whatever stops the download
        raise FileNotFoundError(
            "decode_predictions: the names of ImageNet's classes are neither at ~/.keras/models/"
            f"imagenet_class_index.json nor could Keras download them: {error}"
        ) from error
    return [name for _, name, _ in rows]
