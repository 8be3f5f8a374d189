"""Finds where a network binarizes its activations, and the values whose signs it takes."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import larq as lq
import tensorflow as tf

from larq_rep.graph import has_graph, nodes
from larq_rep.quantizers.base import binarizes, precision_of, saturates, value_of, window_of


class Sign(NamedTuple):
    """A place where a network binarizes activations.

    # Attributes
        name: Name of the layer that has the quantizer as `input_quantizer` or `activation`, or is the quantizer;
            preceded by the names of the models it is nested in (`model/layer`), followed by `:1`, `:2` for further
            calls of the same layer.
        quantizer: The quantizer.
        inputs: The tensor of the model's graph that is binarized.
    """

    name: str
    quantizer: lq.quantizers.Quantizer
    inputs: Any


def signs(model: tf.keras.Model) -> list[Sign]:
    """Finds where a network binarizes activations, from input to output.

    It finds all quantizers of precision 1 except `lq.quantizers.NoOp`, which only marks values already binary.
    `tf.keras.Model(model.inputs, [sign.inputs for sign in signs(model)])` computes all values that are binarized.

    # Arguments
        model: A functional model, or a sequential one that knows its input shape.

    # Raises
        ValueError: If the model has no graph of layers, or a quantizer does not say its precision.
    """
    found: list[Sign] = []
    calls: dict[str, int] = {}
    for node in graph_nodes(model):
        layer = node.layer
        number = calls[layer.name] = calls.get(layer.name, -1) + 1
        name = f"{layer.name}:{number}" if number else layer.name
        if isinstance(layer, tf.keras.Model):
            nested = signs(layer)
            if nested:
                inner = tf.keras.Model(layer.inputs, [sign.inputs for sign in nested])
                tensors = tf.nest.flatten(inner(node.keras_inputs))
                found += [Sign(f"{name}/{s.name}", s.quantizer, x) for s, x in zip(nested, tensors, strict=True)]
            continue
        quantizer = input_quantizer(layer)
        if quantizer is not None and node.keras_inputs:
            found.append(Sign(name, quantizer, node.keras_inputs[0]))
    return found


def graph_nodes(model: tf.keras.Model) -> Iterator[Any]:
    if not has_graph(model):
        raise ValueError(
            f"Model '{model.name}' ({type(model).__name__}) has no graph of layers to look for its tensors in. "
            "Give a functional model, or a sequential one that knows its input shape."
        )
    return nodes(model)


def input_quantizer(layer: tf.keras.layers.Layer) -> lq.quantizers.Quantizer | None:
    """The quantizer that binarizes the input of a layer.

    # Raises
        ValueError: If the layer has an input quantizer that does not say its precision.
    """
    quantizer = getattr(layer, "input_quantizer", None)
    if isinstance(layer, lq.quantizers.Quantizer):
        quantizer = layer
    if quantizer is not None:
        precision_of(quantizer)
    elif isinstance(layer, tf.keras.layers.Activation):
        quantizer = layer.activation
    return quantizer if binarizes(quantizer) else None


def shifted(quantizer: lq.quantizers.Quantizer, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    r"""The value whose sign a quantizer takes, and the distance from 0 at which its gradient vanishes.

    With `RSign` the value is \\(x + b\\), with `lq.quantizers.SteSign` it is \\(x\\). The window is 1 if the
    gradient vanishes nowhere (`LeakySign`, `EDESign`, `clip_value=None`).

    # Arguments
        quantizer: A quantizer of precision 1.
        x: Its input, `(batch, ...)`.

    # Returns
        The value, of the shape of `x`, and the window, a scalar, both `float32`.

    # Raises
        ValueError: If it is not a quantizer of precision 1, or is a custom one whose class does not say this.
    """
    x = tf.cast(x, tf.float32)
    value, window = value_of(quantizer)(x), window_of(quantizer)(x)
    return tf.cast(value, tf.float32), tf.cast(1.0 if window is None else window, tf.float32)


def saturated(quantizer: lq.quantizers.Quantizer, x: tf.Tensor) -> tf.Tensor:
    """Marks where no gradient passes a quantizer of precision 1; if it passes everywhere, values of 1 or more."""
    x = tf.cast(x, tf.float32)
    return saturates(quantizer, x, *shifted(quantizer, x))


def named_layers(model: tf.keras.Model, prefix: str = "") -> Iterator[tuple[str, tf.keras.layers.Layer]]:
    """Yields a model's layers from input to output with their names; in nested models, these are `model/layer`."""
    for layer in model.layers:
        if isinstance(layer, tf.keras.Model):
            yield from named_layers(layer, f"{prefix}{layer.name}/")
        else:
            yield prefix + layer.name, layer
