"""The preparation of images for a network of which only the input range is known."""

from __future__ import annotations

from larq_rep.datasets import IMAGENET_STATISTICS
from larq_rep.images import Evaluation, Preparation


def by_range(shape: tuple[int, int, int], low: float, high: float) -> Preparation:
    """The usual preparation whose range comes closest: 0..1, -1..1, 0..255, or ImageNet's mean and deviation for RGB.

    # Arguments
        shape: Height, width and channels.
        low, high: The range of the input.
    """
    height, width, channels = shape
    ways = {
        values: Preparation(size=(height, width), channels=channels, range=values)
        for values in ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))
    }
    if channels == 3:
        ways[-2.1, 2.6] = Evaluation(**IMAGENET_STATISTICS._asdict()).at((height, width), channels)
    nearest = min(ways, key=lambda way: abs(low - way[0]) + abs(high - way[1]))
    return ways[nearest]
