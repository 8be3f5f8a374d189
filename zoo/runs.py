"""The networks of runs whose networks are of the zoo, as those of `lqr train` are."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from larq_rep import datasets
from larq_rep.zoo.records import get_model, get_network
from larq_rep.zoo.registry import DATASETS, choose

if TYPE_CHECKING:
    from larq_rep.training import Config


def load(folder: str | os.PathLike[str], weights: str = "best") -> tf.keras.Model:
    """The trained network of a run, with the weights of its `"best"` or `"last"` epoch.

    # Raises
        ValueError, OSError, ImportError: If there is none yet, or it can no longer be built.
    """
    from larq_rep import training

    return training.load(network, folder, weights)


def network(config: Config) -> tf.keras.Model:
    """The network of a run with its initial values."""
    return get_model(config.network, **arguments(config))


def arguments(config: Config) -> dict[str, Any]:
    """The keywords of the network's constructor: the run's own, and others that follow from its data."""
    record = get_network(config.network)
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in config.arguments.items()}
    given.setdefault("num_classes", config.num_classes)
    data = datasets.find(config.data)
    form = str(given.get("dataset") or (data.form if data else ""))
    if form:
        choose(config.network, "dataset", form, DATASETS)
    if form and "dataset" in record.parameters:
        given["dataset"] = form
    else:
        form = record.variants[0].dataset
    size = given.pop("input_size", None)
    if size is None:
        size = (data if data and data.name not in DATASETS else DATASETS[form]).input_shape
    return {**given, "input_shape": (*size[:2], config.channels)}
