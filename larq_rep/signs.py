"""Where a network binarizes its activations, and what it takes the sign of."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import larq as lq
import tensorflow as tf

from larq_rep.graph import has_graph, nodes
from larq_rep.quantizers import ReCUInputSign, RSign, StandardizedSign


class Sign(NamedTuple):
    """A place where a network binarizes activations.

    # Attributes
        name: Name of the layer that has the quantizer as `input_quantizer` or `activation`, or is it; with the
            names of the models it is nested in before it (`model/layer`) and `:1`, `:2` behind it for further
            calls of the same layer.
        quantizer: The quantizer.
        inputs: What is binarized, a tensor of the model's graph.
    """

    name: str
    quantizer: lq.quantizers.Quantizer
    inputs: Any


def signs(model: tf.keras.Model) -> list[Sign]:
    """Finds where a network binarizes activations, from input to output.

    These are the quantizers of precision 1 but `lq.quantizers.NoOp`, which only marks what is binary already.
    `tf.keras.Model(model.inputs, [sign.inputs for sign in signs(model)])` computes all that is binarized.

    # Arguments
        model: A functional model, or a sequential one that knows its input shape.

    # Raises
        ValueError: If the model has no graph of layers.
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
    """What binarizes the input of a layer."""
    if isinstance(layer, lq.quantizers.Quantizer):
        quantizer = layer
    elif isinstance(layer, tf.keras.layers.Activation):
        quantizer = layer.activation
    else:
        quantizer = getattr(layer, "input_quantizer", None)
    binary = getattr(quantizer, "precision", None) == 1 and not isinstance(quantizer, lq.quantizers.NoOp)
    return quantizer if binary else None


def shifted(quantizer: lq.quantizers.Quantizer, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    r"""What a quantizer takes the sign of, and how far from 0 its gradient vanishes.

    | quantizer | value | window |
    |---|---|---|
    | `RSign`, `LeakyRSign` | \\(x + b\\) | 1 |
    | `StandardizedSign` | \\((x - m) / \sigma\\) | \\(\sqrt 2 / \max(t, 1)\\) |
    | `ReCUInputSign` | \\(x / \sqrt{v + 10^{-5}}\\) | 1 |
    | `lq.quantizers.DoReFa(1)` | \\(2 x - 1\\) | 1 |
    | others | \\(x\\) | their `clip_value`, else 1 |

    The window is 1 also where the gradient vanishes nowhere (`LeakySign`, `EDESign`, `clip_value=None`).

    # Arguments
        quantizer: A quantizer of precision 1.
        x: Its input, `(batch, ...)`.

    # Returns
        The value, of the shape of `x`, and the window, a scalar, both `float32`.
    """
    x = tf.cast(x, tf.float32)
    axes = list(range(1, x.shape.rank))
    window: Any = getattr(quantizer, "clip_value", None) or 1.0
    if isinstance(quantizer, RSign):
        x += tf.cast(quantizer.bias, tf.float32)
    elif isinstance(quantizer, (StandardizedSign, ReCUInputSign)):
        freedom = tf.cast(tf.reduce_prod(tf.shape(x)[1:]) - 1, tf.float32)
        centred = x - tf.reduce_mean(x, axes, keepdims=True)
        variance = tf.reduce_sum(centred**2, axes, keepdims=True) / freedom
        if isinstance(quantizer, ReCUInputSign):
            x *= tf.math.rsqrt(variance + 1e-5)
        else:
            x, window = centred * tf.math.rsqrt(variance), 2**0.5 / tf.maximum(quantizer.t, 1)
    elif isinstance(quantizer, lq.quantizers.DoReFa):
        x = 2 * x - 1
    return x, tf.cast(window, tf.float32)


def named_layers(model: tf.keras.Model, prefix: str = "") -> Iterator[tuple[str, tf.keras.layers.Layer]]:
    """The layers of a model from input to output with their names, those of nested models as `model/layer`."""
    for layer in model.layers:
        if isinstance(layer, tf.keras.Model):
            yield from named_layers(layer, f"{prefix}{layer.name}/")
        else:
            yield prefix + layer.name, layer
