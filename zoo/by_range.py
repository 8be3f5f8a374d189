"""Prepares images for a model of which only the input range is known."""

from __future__ import annotations

from dataclasses import replace

import tensorflow as tf

from larq_rep.datasets import IMAGENET_STATISTICS
from larq_rep.images import Evaluation
from larq_rep.zoo.preprocess import Preparation, by_recipe


def by_range(shape: tuple[int, int, int], low: float, high: float) -> Preparation:
    """The usual preparation whose range comes closest: 0..1, -1..1, 0..255, or ImageNet's mean and deviation for RGB.

    # Arguments
        shape: Height, width and channels.
        low, high: The range of the input.
    """
    plain = by_recipe(Evaluation(), shape)
    ways = {
        (0.0, 1.0): plain,
        (-1.0, 1.0): replace(
            plain, one=lambda image: 2 * plain.one(image) - 1, text=plain.text.replace("in 0..1", "in -1..1")
        ),
        (0.0, 255.0): replace(
            # The levels are whole numbers, which a division and a product in float32 need not preserve.
            plain,
            one=lambda image: tf.round(255 * plain.one(image)),
            text=plain.text.replace("in 0..1", "in 0..255"),
        ),
    }
    if shape[2] == 3:
        ways[-2.1, 2.6] = by_recipe(Evaluation(**IMAGENET_STATISTICS._asdict()), shape)
    nearest = min(ways, key=lambda way: abs(low - way[0]) + abs(high - way[1]))
    return ways[nearest]
