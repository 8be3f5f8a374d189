"""Every private name of Keras, Larq and TensorFlow that this package uses: an update has to look only here."""

from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from larq.quantizers import _BaseQuantizer as BaseQuantizer

__all__ = ["BaseQuantizer", "has_graph", "nodes", "random_generators"]


def has_graph(model: tf.keras.Model) -> bool:
    """Whether a model is functional, or sequential and knows its input shape."""
    return getattr(model, "_nodes_by_depth", None) is not None


def nodes(model: tf.keras.Model) -> Iterator[Any]:
    """The calls of the layers of a model that has a graph, inputs first."""
    for _, nodes in sorted(model._nodes_by_depth.items(), reverse=True):
        yield from (node for node in nodes if not node.is_input)


def random_generators(model: tf.keras.Model) -> dict[str, tf.random.Generator]:
    """By layer the random generator of layers such as dropout."""
    random = {layer.name: getattr(layer, "_random_generator", None) for layer in model.submodules}
    return {name: generator._generator for name, generator in random.items() if generator is not None}
