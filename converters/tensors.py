"""Looks up tensors of a frozen graph through operators that do not change their values."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import graph_pb2
from tensorflow.core.framework.node_def_pb2 import NodeDef

# Values by the names of placeholders in a definition.
Weights = dict[str, np.ndarray]
# Bytes of the largest weights that a definition holds itself.
LARGEST_INSIDE = 2**16

PADS = ("Pad", "PadV2", "MirrorPad")
LAYOUT = ("ExpandDims", "Reshape", "Squeeze", "Transpose")
_BEFORE_CONVOLUTION = (*PADS, "SpaceToBatchND")  # the latter is how TensorFlow dilates
PASS_THROUGH = ("Identity", "IdentityN", "StopGradient", "PreventGradient", "Snapshot", "EnsureShape")


def resolve(tensor: tf.Tensor) -> tf.Tensor:
    """The tensor behind identities."""
    while tensor.op.type in PASS_THROUGH:
        tensor = tensor.op.inputs[tensor.value_index]
    return tensor


class Graph(tf.Graph):
    """A graph with placeholders for its large weights.

    # Attributes
        weights: Their values by the names of the nodes.
    """

    def __init__(self, weights: Weights):
        super().__init__()
        self.weights = weights


def imported(definition: graph_pb2.GraphDef, weights: Weights) -> Graph:
    """The graph of a definition, with its names."""
    graph = Graph(weights)
    with graph.as_default():
        tf.import_graph_def(definition, name="")
    return graph


class Session(tf.compat.v1.Session):
    """Computes exactly what is written in a graph, with its weights; without rewriting, it also starts much faster."""

    def __init__(self, graph: Graph):
        config = tf.compat.v1.ConfigProto()
        config.graph_options.optimizer_options.opt_level = -1
        config.graph_options.rewrite_options.disable_meta_optimizer = True
        super().__init__(graph=graph, config=config)

    def run(self, fetches: Any, feed_dict: dict[Any, np.ndarray] | None = None) -> Any:
        """Values of tensors, which may be given by name like those that are fed."""
        feeds = {_name(x): value for x, value in (feed_dict or {}).items()}
        pending, seen = [_name(x) for x in tf.nest.flatten(fetches)], set()
        while pending:
            name = pending.pop()
            if name in seen or name in feeds:
                continue
            seen.add(name)
            node = self.graph.get_tensor_by_name(name).op
            if node.name in self.graph.weights:
                feeds[name] = self.graph.weights[node.name]
            pending += [x.name for x in node.inputs]
        return super().run(fetches, feeds)


def _name(tensor: tf.Tensor | str) -> str:
    return tensor if isinstance(tensor, str) else tensor.name


def is_constant(tensor: tf.Tensor) -> bool:
    """Whether a tensor is a constant or a weight, as it is."""
    node = resolve(tensor).op
    return node.type == "Const" or node.name in node.graph.weights


def operands(node: tf.Operation) -> tuple[tf.Tensor, tf.Tensor]:
    """Data and kernel of a convolution or matrix product."""
    transposed = node.type in ("Conv2DBackpropInput", "Conv3DBackpropInputV2")
    return node.inputs[2 if transposed else 0], node.inputs[1]


def inputs_first(node: tf.Operation, kernel: np.ndarray) -> np.ndarray:
    """The kernel of a convolution or matrix product with its input and output channels as the last axes."""
    match node.type:
        case "MatMul" if node.get_attr("transpose_b"):
            return kernel.T
        case "Conv2DBackpropInput":
            return kernel.swapaxes(2, 3)
    return kernel


def constant_value(tensor: tf.Tensor) -> np.ndarray | None:
    tensor = resolve(tensor)
    weight = tensor.graph.weights.get(tensor.op.name)
    return tf.get_static_value(tensor) if weight is None else weight


def unpadded(tensor: tf.Tensor) -> tf.Tensor:
    """The tensor before padding and identities."""
    tensor = resolve(tensor)
    while tensor.op.type in _BEFORE_CONVOLUTION:
        tensor = resolve(tensor.op.inputs[0])
    return tensor


def laid_out(tensor: tf.Tensor) -> tf.Tensor:
    """The tensor before padding, identities, and operators that only rearrange its values."""
    tensor = unpadded(tensor)
    while tensor.op.type in LAYOUT:
        tensor = unpadded(tensor.op.inputs[0])
    return tensor


def add_constant(graph_def: graph_pb2.GraphDef, name: str, value: np.ndarray | np.generic) -> None:
    """Adds a constant node."""
    _make_constant(graph_def.node.add(name=name), value)


def add_weight(graph_def: graph_pb2.GraphDef, name: str, value: np.ndarray) -> None:
    """Adds the placeholder of a weight."""
    node = graph_def.node.add(name=name, op="Placeholder")
    node.attr["dtype"].type = tf.as_dtype(value.dtype).as_datatype_enum
    node.attr["shape"].shape.CopyFrom(tf.TensorShape(value.shape).as_proto())


def put_weights(graph_def: graph_pb2.GraphDef, weights: Weights) -> None:
    """Makes the placeholders of weights constants."""
    for node in graph_def.node:
        if node.name in weights:
            node.attr.clear()
            _make_constant(node, weights[node.name])


def _make_constant(node: NodeDef, value: np.ndarray | np.generic) -> None:
    node.op = "Const"
    node.attr["dtype"].type = tf.as_dtype(value.dtype).as_datatype_enum
    # Its parts one by one: `tf.make_tensor_proto` would take two more copies, of the largest data there are.
    tensor = node.attr["value"].tensor
    tensor.dtype = node.attr["dtype"].type
    for size in value.shape:
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = value.tobytes()
