"""Looks up tensors of a frozen graph through operators that do not change their values."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import graph_pb2

PADS = ("Pad", "PadV2", "MirrorPad")
LAYOUT = ("ExpandDims", "Reshape", "Squeeze", "Transpose")
_BEFORE_CONVOLUTION = (*PADS, "SpaceToBatchND")  # the latter is how TensorFlow dilates
PASS_THROUGH = ("Identity", "IdentityN", "StopGradient", "PreventGradient", "Snapshot", "EnsureShape")


def resolve(tensor: tf.Tensor) -> tf.Tensor:
    """The tensor behind identities."""
    while tensor.op.type in PASS_THROUGH:
        tensor = tensor.op.inputs[tensor.value_index]
    return tensor


def imported(definition: graph_pb2.GraphDef) -> tf.Graph:
    """The graph of a definition, with its names."""
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(definition, name="")
    return graph


def session(graph: tf.Graph) -> tf.compat.v1.Session:
    """A session that computes exactly what is written in a graph; without rewriting, it also starts much faster."""
    config = tf.compat.v1.ConfigProto()
    config.graph_options.optimizer_options.opt_level = -1
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    return tf.compat.v1.Session(graph=graph, config=config)


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
    return tf.get_static_value(resolve(tensor))


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
    constant = graph_def.node.add(name=name, op="Const")
    constant.attr["dtype"].type = tf.as_dtype(value.dtype).as_datatype_enum
    # Its parts one by one: `tf.make_tensor_proto` would take two more copies, of the largest data there are.
    tensor = constant.attr["value"].tensor
    tensor.dtype = constant.attr["dtype"].type
    for size in value.shape:
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = value.tobytes()
