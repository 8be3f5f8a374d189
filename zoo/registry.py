"""The names that this module had in 0.1.0; they are in `larq_rep.zoo.records` now."""

from larq_rep.datasets import CIFAR10_STATISTICS, CIFAR100_STATISTICS, IMAGENET_STATISTICS
from larq_rep.zoo.records import (
    DATASETS,
    Network,
    Preprocessing,
    Result,
    Variant,
    choose,
    get_model,
    get_network,
    list_models,
)

__all__ = [
    "CIFAR10_STATISTICS",
    "CIFAR100_STATISTICS",
    "DATASETS",
    "IMAGENET_STATISTICS",
    "Network",
    "Preprocessing",
    "Result",
    "Variant",
    "choose",
    "get_model",
    "get_network",
    "list_models",
]
