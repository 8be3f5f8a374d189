"""Constants behind a binary convolution, whose shape LCE's converter ignores.

It moves a constant that is added to or multiplied with the output of a binary convolution into the multiplier and bias
of the operator, or into its thresholds, as if it were one number for each channel. A map of numbers then gives wrong
bits, and so does a factor of shape (1, 1, 1, C) with negative entries; a factor of shape (H, W, C) ends the process. So
the graph is changed to one that LCE converts correctly:

- a constant that amounts to one number for each channel, whatever its shape, becomes a vector;
- for any other constant, the tensor that it is applied to also becomes an output of the graph. LCE leaves an operator
  alone whose input has a second reader. `drop_outputs` removes the output again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import graph_pb2

from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.converters.graph import FrozenGraph
from larq_rep.converters.tensors import add_constant, constant_value, resolve

# The constant comes second: LCE leaves c - x and c / x alone.
_RIGHT = ("Sub", "RealDiv", "Div", "DivNoNan", "MulNoNan", "BroadcastTo")
# LCE turns a comparison into a subtraction, and a broadcast into a multiplication by a map of ones.
_OPERATORS = (
    *("Add", "AddV2", "Mul", *_RIGHT),
    *("Greater", "GreaterEqual", "Less", "LessEqual"),
)
# LCE takes these apart, together with what they say about shapes, so they are not changed.
_LEFT_ALONE = ("BroadcastTo", "DivNoNan", "MulNoNan")
# Their value is known if the shape of their input is.
_OF_SHAPES = ("Shape", "ShapeN", "Size", "Rank", "OnesLike", "ZerosLike")


@dataclass(frozen=True)
class _Use:
    """An operator on data and a constant; the constant is input number `position`."""

    node: tf.Operation
    position: int

    @property
    def constant(self) -> tf.Tensor:
        return self.node.inputs[self.position]

    @property
    def data(self) -> tf.Tensor:
        return self.node.inputs[1 - self.position]


def settle(graph: FrozenGraph, graph_def: graph_pb2.GraphDef) -> list[str]:
    """Makes the constants of a graph safe for LCE's converter, without changing what the graph computes.

    # Arguments
        graph: The model.
        graph_def: Its graph for the converter; it is changed in place.

    # Returns
        Names of the nodes that must also be outputs.
    """
    fixed = _fixed_nodes(graph)
    uses = list(_uses(graph, fixed))
    doubtful = [use for use in uses if not _broadcasts_as_it_is(use) and not _is_slope(use)]
    computable = [use for use in doubtful if use.node.type not in _LEFT_ALONE and not _fake(use.constant)]
    values = dict(zip(computable, _values(graph, [use.constant for use in computable]), strict=True))
    by_name = {node.name: node for node in graph_def.node}
    inputs = {x.ref() for x in graph.inputs}
    kept: dict[str, str] = {}
    for use in doubtful:
        vector = _vector(values[use], use.data.shape) if use in values else None
        source = resolve(use.data)
        if vector is not None:
            name = f"{use.node.name}/channels"
            add_constant(graph_def, name, vector)
            by_name[use.node.name].input[use.position] = name
        elif source.name not in kept and source.ref() not in inputs:
            # An output is named after its node, which may have several outputs.
            kept[source.name] = f"{source.op.name}/kept_{source.value_index}"
            node = graph_def.node.add(name=kept[source.name], op="Identity", input=[source.name])
            node.attr["T"].type = source.dtype.as_datatype_enum
    return list(kept.values())


def drop_outputs(flatbuffer: Flatbuffer, count: int) -> None:
    """Leaves a file its first `count` outputs only."""
    flatbuffer.subgraph.outputs = flatbuffer.subgraph.outputs[:count]
    flatbuffer.drop_unused()


def _fixed_nodes(graph: FrozenGraph) -> set[str]:
    """Names of the nodes whose value no input changes."""
    fixed = {node.name for node in graph.nodes} - graph.data_dependent
    for node in graph.nodes:
        of_shape = node.type in _OF_SHAPES and all(x.shape.is_fully_defined() for x in node.inputs)
        if of_shape or (node.inputs and all(x.op.name in fixed for x in node.inputs)):
            fixed.add(node.name)
    return fixed


def _uses(graph: FrozenGraph, fixed: set[str]) -> Iterator[_Use]:
    for node in graph.nodes:
        if node.type not in _OPERATORS or node.inputs[0].dtype != tf.float32:
            continue
        constant = [x.op.name in fixed for x in node.inputs]
        if sum(constant) == 1 and not (node.type in _RIGHT and constant[0]):
            yield _Use(node, constant.index(True))


def _broadcasts_as_it_is(use: _Use) -> bool:
    """Whether the constant is a number, or a vector of one number for each channel."""
    constant, data = use.constant.shape, use.data.shape
    if use.node.type == "BroadcastTo" or not constant.is_fully_defined() or constant.rank > 1:
        return False
    if data.rank is None:
        return bool(constant.num_elements() == 1)
    return data.rank > 0 and constant.as_list() in ([], [1], [data[-1]])


def _is_slope(use: _Use) -> bool:
    """Whether it is the slope of a PReLU, c * relu(-x), which LCE makes one operator if the slope has rank 3."""
    relu = resolve(use.data).op
    negative = resolve(relu.inputs[0]).op if use.node.type == "Mul" and relu.type == "Relu" else None
    return negative is not None and negative.type == "Neg" and resolve(negative.inputs[0]).op.type != "Neg"


def _fake(constant: tf.Tensor) -> bool:
    """Whether a constant passes a fake quantization, which the converter must see."""
    pending, seen = [constant.op], set()
    while pending:
        node = pending.pop()
        if "FakeQuant" in node.type or "QuantizeAndDequantize" in node.type:
            return True
        if node.name not in seen:
            seen.add(node.name)
            pending += [x.op for x in node.inputs]
    return False


def _values(graph: FrozenGraph, tensors: list[tf.Tensor]) -> list[np.ndarray]:
    known = [constant_value(tensor) for tensor in tensors]
    unknown = {t.name: t for t, value in zip(tensors, known, strict=True) if value is None}
    # Values that depend only on the shape of the data can be computed from any data.
    feeds = {x: np.zeros(x.shape, x.dtype.as_numpy_dtype) for x in graph.inputs} if unknown else {}
    computed = dict(zip(unknown, graph.run(list(unknown.values()), feeds), strict=True))
    return [computed[t.name] if value is None else value for t, value in zip(tensors, known, strict=True)]


def _vector(value: np.ndarray, data: tf.TensorShape) -> np.ndarray | None:
    """The constant as a vector, if it is one number for each channel of data of this shape."""
    if not data.is_fully_defined() or data.rank == 0 or value.size == 0:
        return None
    shape, value = tuple(data.as_list()), np.atleast_1d(value)
    if np.broadcast_shapes(shape, value.shape) != shape:
        return None
    rows = np.ascontiguousarray(value).reshape(-1, value.shape[-1])
    bits = rows.view(np.int32)  # a zero has a sign
    return rows[0] if (bits == bits[0]).all() else None
