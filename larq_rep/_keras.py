"""Every private name of Keras, Larq and TensorFlow that this package uses: an update has to look only here."""

from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from larq.quantizers import _BaseQuantizer as BaseQuantizer

__all__ = ["BaseQuantizer", "frozen", "has_graph", "nodes"]


def has_graph(model: tf.keras.Model) -> bool:
    """Whether a model is functional, or sequential and knows its input shape."""
    return getattr(model, "_nodes_by_depth", None) is not None


def nodes(model: tf.keras.Model) -> Iterator[Any]:
    """The calls of the layers of a model that has a graph, inputs first."""
    for _, nodes in sorted(model._nodes_by_depth.items(), reverse=True):
        yield from (node for node in nodes if not node.is_input)


def frozen(function: Any) -> Any:
    """The graph of a concrete function (a `GraphDef`) with constants for its variables.

    `convert_variables_to_constants_v2` does these two steps, and then makes a function of the result, which takes
    several times as long.
    """
    from tensorflow.python.framework import convert_to_constants as constants

    data = constants._FunctionConverterDataInEager(func=function, lower_control_flow=False, aggressive_inlining=False)
    return constants._replace_variables_by_constants(converter_data=data)[0]
