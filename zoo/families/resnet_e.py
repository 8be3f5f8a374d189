"""ResNetE, as MXNet stores it."""

from __future__ import annotations

import re
from typing import Any

from larq_rep.zoo.families.bmxnet import in_order, layers_of
from larq_rep.zoo.keys import Keys
from larq_rep.zoo.mapping import Importer

NETWORKS = ("ResNetE18", "ResNetE34")


def recognises(keys: Keys) -> tuple[str, dict[str, Any]] | None:
    """Recognises nothing: Gluon's names are numbers, which tell nothing."""
    return None


def port(weights: Importer) -> dict[str, str]:
    """In the file the shortcut of a block follows the layers that it goes around."""
    layers = layers_of(weights)

    def place(layer: str) -> tuple[int, ...]:
        stage, block = (int(number) for number in re.findall(r"\d+", layer)) if "block" in layer else (0, 0)
        return stage, block, "_down_" in layer

    blocks = [layer for layer in layers if "block" in layer]
    start = layers.index(blocks[0])
    end = len(layers) - 1 - layers[::-1].index(blocks[-1])
    return in_order(weights, [*layers[:start], *sorted(blocks, key=place), *layers[end + 1 :]])
