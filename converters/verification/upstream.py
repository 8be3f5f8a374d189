"""Finds the layers that compute a value since the last comparison of file and model."""

from __future__ import annotations

import tensorflow as tf

from larq_rep.converters.tensors import constant_value, resolve
from larq_rep.converters.verification.forced import ForcedModel


class Upstream:
    """The nodes and layers between two comparisons.

    # Arguments
        model: The model; its signs must be paired with the file first.
    """

    def __init__(self, model: ForcedModel):
        self._model = model
        # If the value in front of a sign also goes on as a shortcut, it has been compared there.
        fronts = {resolve(sign.compared).op for sign in model.graph.signs}
        self._compared = {op.name for op in fronts} | {_unshifted(op).name for op in fronts}

    def nodes(self, tensor: tf.Tensor) -> list[tf.Operation]:
        return self._model.behind(tensor, self._compared)

    def layers(self, tensor: tf.Tensor) -> str:
        """The layers with weights, in words."""
        graph = self._model.graph
        own = {resolve(tensor).op.name, _unshifted(resolve(tensor).op).name}
        paths = {graph.layer_of(node): None for node in self._model.behind(tensor, self._compared - own)}
        names: dict[str, None] = {}
        for path in reversed(paths):
            parts = path.split("/")
            own_weights = [i for i, part in enumerate(parts) if part in graph.layers_with_weights]
            if own_weights:
                names.setdefault("/".join(parts[: own_weights[0] + 1]))
        return ", ".join(names) or "layers without weights"


def _unshifted(op: tf.Operation) -> tf.Operation:
    """The operation before a learned shift, or the operation itself."""
    if op.type in ("AddV2", "Add", "BiasAdd", "Sub"):
        sources = [x for x in op.inputs if constant_value(x) is None]
        if len(sources) == 1:
            return resolve(sources[0]).op
    return op
