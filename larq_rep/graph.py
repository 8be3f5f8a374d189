"""Reads the graph of a model: its layer calls, and which layers are convolutions and norms."""

import tensorflow as tf

from larq_rep._keras import has_graph, nodes

__all__ = ["CONV", "DEPTHWISE", "has_graph", "is_norm", "nodes", "operation"]

_keras = tf.keras.layers
# Convolutions of single channels, which are treated like any other layer.
DEPTHWISE = (_keras.DepthwiseConv2D,)
CONV = (
    *(_keras.Conv1D, _keras.Conv2D, _keras.Conv3D, _keras.Dense),
    *(_keras.Conv1DTranspose, _keras.Conv2DTranspose, _keras.Conv3DTranspose),
    *(_keras.SeparableConv1D, _keras.SeparableConv2D, _keras.DepthwiseConv1D),
)


def is_norm(layer: tf.keras.layers.Layer) -> bool:
    return isinstance(layer, _keras.BatchNormalization)


def operation(layer: tf.keras.layers.Layer) -> str:
    """The name of a layer's TensorFlow operation, or otherwise of its class."""
    return getattr(layer, "symbol", type(layer).__name__).split(".")[-1]
