"""BinaryDenseNet and MeliusNet, as MXNet stores them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from larq_rep.layers import PopCount
from larq_rep.zoo.checkpoint import CheckpointError
from larq_rep.zoo.keys import Keys
from larq_rep.zoo.mapping import Importer

NETWORKS = (
    "BinaryDenseNet13",
    "BinaryDenseNet21",
    "BinaryDenseNet28",
    "BinaryDenseNet37",
    "BinaryDenseNet37Ablation",
    "BinaryDenseNet37Dilated",
    "BinaryDenseNet45",
    "MeliusNet22",
    "MeliusNet29",
    "MeliusNet42",
    "MeliusNet59",
)


def recognises(keys: Keys) -> tuple[str, dict[str, Any]] | None:
    """Recognises nothing: Gluon's names are numbers, which tell nothing."""
    return None


def port(weights: Importer) -> dict[str, str]:
    return in_order(weights, layers_of(weights))


def in_order(weights: Importer, layers: Iterable[str]) -> dict[str, str]:
    """The layers of a network of BMXNet, in the order of its code, each with the next name of the file.

    The names themselves are numbers in the nested blocks of Gluon, which tell nothing.
    """
    modules = iter(weights.modules())
    unused = {}
    for layer in layers:
        key = next(modules, f"(nothing is left for {layer})")
        found = weights.layer(layer)
        if isinstance(found, tf.keras.layers.BatchNormalization):
            weights.norm(layer, key)
            if not found.scale:
                unused[rf"{re.escape(key)}\.weight"] = "always 1"
        elif isinstance(found, tf.keras.layers.Dense):
            weights.dense(layer, key)
        else:
            weights.conv(layer, key)
    return unused


def layers_of(weights: Importer) -> list[str]:
    if not any(isinstance(layer, PopCount) or "_scale" in layer.name for layer in weights.model.layers):
        raise CheckpointError(
            f"it cannot be imported: this {weights.model.name} pads with 0, while BMXNet pads with -1 and counts. "
            "Build it with padding='bmxnet'."
        )
    kinds = (tf.keras.layers.Conv2D, tf.keras.layers.Dense, tf.keras.layers.BatchNormalization)
    return [layer.name for layer in weights.model.layers if isinstance(layer, kinds)]
