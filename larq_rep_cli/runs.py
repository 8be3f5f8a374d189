"""What the commands have in common that train, or use what was trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from larq_rep_cli import common

if TYPE_CHECKING:
    import tensorflow as tf

    from larq_rep.training import Config

_DIGITS_SIZE = 16
# The forms for CIFAR have a first layer for small images.
FORMS = {"digits": "cifar10", "cifar10": "cifar10", "cifar100": "cifar100", "imagenet2012": "imagenet"}

data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Folder of tensorflow_datasets.  [default: $TFDS_DATA_DIR or ~/tensorflow_datasets]",
)
weights_option = click.option(
    "--weights",
    type=click.Choice(("best", "last")),
    default="best",
    show_default=True,
    help="Weights of the epoch with the best accuracy on the test images, or of the last epoch.",
)


def is_run(source: str | Path) -> bool:
    return (Path(source) / "config.json").is_file()


def network(config: Config) -> tf.keras.Model:
    """The network of a run with its initial values."""
    from larq_rep import zoo

    return zoo.get_model(config.network, **arguments(config))


def arguments(config: Config) -> dict[str, Any]:
    """The keywords of the network's constructor: those of the run, and those that follow from its data."""
    import inspect

    from larq_rep import zoo
    from larq_rep.zoo.registry import DATASETS

    record = zoo.get_network(config.network)
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in config.arguments.items()}
    given.setdefault("num_classes", config.num_classes)
    form = given.get("dataset", FORMS.get(config.data))
    if "dataset" in inspect.signature(record.constructor).parameters and form:
        given["dataset"] = form
    else:
        form = record.variants[0].dataset
    size = given.pop("input_size", None)
    if size is None:
        size = (_DIGITS_SIZE, _DIGITS_SIZE) if config.data == "digits" else DATASETS[form].input_shape[:2]
    return {**given, "input_shape": (*size[:2], config.channels)}


def load(folder: str | Path, weights: str = "best") -> tf.keras.Model:
    """The trained network of a run.

    # Raises
        InputError: If there is none yet, or it cannot be built any more.
    """
    common.quiet_tensorflow()
    from larq_rep import training

    with common.refusing(ValueError, FileNotFoundError, OSError, ImportError):
        return training.load(network, folder, weights)
