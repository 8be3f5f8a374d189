"""Measures the top-1 and top-5 accuracy of a classifier."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Accuracy:
    """Counts of correctly classified images.

    # Attributes
        images: Number of images.
        right: Number of images whose class has the largest score.
        among5: Number of images whose class has one of the five largest scores.
    """

    images: int
    right: int
    among5: int

    @property
    def top1(self) -> float:
        return self.right / self.images

    @property
    def top5(self) -> float:
        return self.among5 / self.images


def best_classes(scores: np.ndarray, count: int = 1) -> np.ndarray:
    """The classes with the largest scores, best first; with equal scores the first class wins.

    # Arguments
        scores: A number for each class, `(images, classes)`, of any real type.
        count: Number of classes to return. There are fewer columns if there are fewer classes.

    # Returns
        Integers `(images, count)`.
    """
    return np.argsort(-np.asarray(scores, np.float64), axis=1, kind="stable")[:, :count]


def measure(batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> Accuracy:
    """Measures the accuracy over all batches.

    # Arguments
        batches: Pairs of scores `(images, classes)` and the true classes `(images,)`.
    """
    images = right = among5 = 0
    for scores, labels in batches:
        matches = best_classes(scores, 5) == np.asarray(labels)[:, None]
        images, right, among5 = images + len(matches), right + int(matches[:, 0].sum()), among5 + int(matches.sum())
    return Accuracy(images, right, among5)
