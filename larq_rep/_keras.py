"""Wraps every private name of Keras, Larq and TensorFlow that this package uses, so updates concern only this file."""

from collections.abc import Iterator, Sequence
from typing import Any

import larq as lq
import numpy as np
import tensorflow as tf
from larq.optimizers import _var_key
from larq.quantizers import _BaseQuantizer as BaseQuantizer

__all__ = [
    "BaseQuantizer",
    "CaseOptimizer",
    "Optimizer",
    "TensorCallback",
    "frozen",
    "has_graph",
    "is_revived",
    "nodes",
    "random_generators",
]


def has_graph(model: tf.keras.Model) -> bool:
    """Returns whether a model is functional, or sequential with a known input shape."""
    return getattr(model, "_nodes_by_depth", None) is not None


def is_revived(layer: tf.keras.layers.Layer) -> bool:
    """Whether a layer or model came from a SavedModel without its class, so that only its functions are known."""
    return any(base.__name__ == "RevivedLayer" for base in type(layer).__mro__)


def nodes(model: tf.keras.Model) -> Iterator[Any]:
    """Yields the layer calls of a model that has a graph, inputs first."""
    for _, nodes in sorted(model._nodes_by_depth.items(), reverse=True):
        yield from (node for node in nodes if not node.is_input)


def frozen(function: Any, largest: int) -> tuple[Any, dict[str, np.ndarray]]:
    """The graph of a concrete function (a `GraphDef`) with constants for its variables, and the large ones beside it.

    Real ones of more than `largest` bytes become placeholders, whose values are returned by their names: TensorFlow
    copies a graph with every step that it takes. `convert_variables_to_constants_v2` does these two steps and then
    turns the result into a function, which takes several times as long.
    """
    from tensorflow.python.framework import convert_to_constants as constants

    data = constants._FunctionConverterDataInEager(func=function, lower_control_flow=False, aggressive_inlining=False)
    values = {name: entry.numpy for name, entry in data.tensor_data.items()}
    large = {name: x for name, x in values.items() if x.nbytes > largest and x.dtype.kind == "f"}
    for name, x in large.items():
        data.tensor_data[name] = data.tensor_data[name]._replace(numpy=np.empty(0, x.dtype))
    definition = constants._replace_variables_by_constants(converter_data=data)[0]
    for node in definition.node:
        if node.name in large:
            node.op = "Placeholder"
            del node.attr["value"]
            node.attr["shape"].shape.CopyFrom(tf.TensorShape(large[node.name].shape).as_proto())
    return definition, large


def random_generators(model: tf.keras.Model) -> dict[str, tf.random.Generator]:
    """Maps the names of layers such as dropout to their random generators."""
    random = {layer.name: getattr(layer, "_random_generator", None) for layer in model.submodules}
    return {name: generator._generator for name, generator in random.items() if generator is not None}


class TensorCallback(tf.keras.callbacks.Callback):
    """Base class of callbacks that take tensors as logs: to give numbers, Keras would wait for the device each step."""

    def __init__(self):
        super().__init__()
        self._supports_tf_logs = True


class Optimizer(tf.keras.optimizers.Optimizer):
    """Base class that gives public names to private members of Keras' optimizers."""

    def key(self, variable: tf.Variable) -> str:
        """The key by which the optimizer knows a variable."""
        return self._var_key(variable)

    def position(self, variable: tf.Variable) -> int:
        """The position of a variable among the trained ones."""
        return self._index_dict[self._var_key(variable)]

    @property
    def is_built(self) -> bool:
        return getattr(self, "_built", False)

    def make_number(self, value: float) -> tf.Variable:
        """Makes a variable like that of the learning rate, so compiled steps see it change."""
        return super()._build_learning_rate(value)

    def rate_made(self, value: Any, made: Any) -> None:
        """Called with a learning rate and the object that Keras made from it."""

    def _build_learning_rate(self, learning_rate):
        made = super()._build_learning_rate(learning_rate)
        self.rate_made(learning_rate, made)
        return made

    def adam_moments(self, variable: tf.Variable) -> tuple[tf.Variable, tf.Variable, tf.Variable | None]:
        """Adam's first and second moment of a variable, and with `amsgrad` the largest second one so far."""
        at = self.position(variable)
        return self._momentums[at], self._velocities[at], self._velocity_hats[at] if self.amsgrad else None


class CaseOptimizer(lq.optimizers.CaseOptimizer):
    """Base class that makes all variables before the first step, as Keras' newer optimizers do."""

    def build(self, var_list: Sequence[tf.Variable]) -> None:
        self._compute_var_opt_mapping([(None, variable) for variable in var_list])
        for number, optimizer in enumerate(self.optimizers):
            optimizer._create_all_weights([v for v in var_list if self.var_opt_mapping[_var_key(v)] == number])

    @property
    def variables(self) -> list[tf.Variable]:
        return self.weights
