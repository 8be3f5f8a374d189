"""A copy of a frozen graph, to which nodes are added, beside the graph as it was."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import graph_pb2

from larq_rep.converters.tensors import LARGEST_INSIDE, Session, Weights, add_constant, add_weight, imported


class GraphCopy:
    """Base class of what rewrites a graph.

    # Attributes
        definition: The copy.
        graph: The graph as it was.
        data_dependent: Names of the nodes of the graph whose values depend on the inputs.
    """

    def __init__(self, definition: graph_pb2.GraphDef, inputs: Sequence[str], weights: Weights):
        self.definition = graph_pb2.GraphDef()
        self.definition.CopyFrom(definition)
        self._nodes = {node.name: node for node in self.definition.node}
        self.graph = imported(definition, weights)
        self._session = Session(self.graph)
        self._weights = weights
        self.data_dependent: set[str] = set()
        pending = [self.graph.get_operation_by_name(name) for name in inputs]
        while pending:
            node = pending.pop()
            if node.name not in self.data_dependent:
                self.data_dependent.add(node.name)
                pending += [reader for x in node.outputs for reader in x.consumers()]

    def _constant(self, name: str, value: np.ndarray | np.generic) -> str:
        # Integers are sizes, which TensorFlow must see.
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.nbytes > LARGEST_INSIDE:
            add_weight(self.definition, name, value)
            self._weights[name] = value
        else:
            add_constant(self.definition, name, value)
        return name

    def _add(self, op: str, name: str, *inputs: str) -> str:
        """Adds a node of floats, the last of the definition."""
        node = self.definition.node.add(name=name, op=op, input=inputs)
        node.attr["T"].type = tf.float32.as_datatype_enum
        return name

    def _signed_again(self, name: str) -> str:
        """The sign of signs, in the spelling that LCE recognises."""
        tenth = self._constant(f"{name}/tenth", np.float32(0.1))
        name = self._add("AddV2", f"{name}/shifted", self._add("Sign", f"{name}/inner", name), tenth)
        return self._add("Sign", f"{name}/sign", name)
