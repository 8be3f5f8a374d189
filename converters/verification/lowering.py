"""Compares the convolutions of maps with the layers that they stand for, and the sums of signs with their maps.

The file is compared with a model whose dense, 1-D and transposed layers are convolutions of maps. That both compute
the same is shown here for random signs: a wrong order of the numbers, or a wrong border, changes nearly every result.

The file is compared with a model whose convolutions of quantized maps are sums of convolutions of signs. That it
computes what the model computed before is shown here: on every image each quantizer gives the sum of its planes, and
each convolution of that sum, for random signs, is the sum of the convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from larq_rep.converters.graph import FrozenGraph
from larq_rep.converters.planes import Planes
from larq_rep.converters.products import Convolved
from larq_rep.converters.tensors import Graph, Session, imported
from larq_rep.converters.verification.result import Verification
from larq_rep.converters.verification.rounding import OUTPUT_TOLERANCE, at, relative_error


class LoweringComparison:
    """Compares image by image.

    # Arguments
        graph: The model.
        result: Gets the differences.
    """

    def __init__(self, graph: FrozenGraph, result: Verification):
        self._graph, self._result = graph, result
        self._planes = {p.levels: p for p in graph.lowering.results.values() if p is not None}
        self._original = imported(graph.lowering.original, graph.weights) if graph.lowering.results else Graph({})
        self._session = Session(self._original)

    def compare_image(self, index: int, inputs: Sequence[np.ndarray]) -> None:
        """Compares the results of the quantizers on an image."""
        fetches = [[name, *planes.signs] for name, planes in self._planes.items()]
        feeds = {x.name: value for x, value in zip(self._graph.inputs, inputs, strict=True)}
        values = self._session.run(fetches, feeds) if fetches else []
        for planes, (expected, *signs) in zip(self._planes.values(), values, strict=True):
            self._differ(planes.levels, _levels(planes, signs), expected, "its quantizer gives", index)

    def compare_layers(self) -> None:
        """Compares the results of layers with those of the convolutions in their place, for random signs."""
        self._compare_layers(self._graph.phases)
        self._compare_layers(self._graph.convolved)

    def _compare_layers(self, convolved: Convolved) -> None:
        rng = np.random.default_rng(0)
        if not convolved.results:
            return
        graphs = [imported(x, self._graph.weights) for x in (convolved.original, convolved.definition)]
        sessions = [*map(Session, graphs)]
        for name, replaced in convolved.results.items():
            # One after the other: layers may read the same map, or parts of one, in several shapes.
            signs: np.ndarray | None = None
            results = []
            for graph, run, read in zip(graphs, sessions, (replaced.read, replaced.map), strict=True):
                x = graph.get_tensor_by_name(read if ":" in read else f"{read}:0")
                signs = rng.choice(np.array([-1, 1], np.float32), x.shape) if signs is None else signs.reshape(x.shape)
                results.append(run.run(f"{name}:0", {x: signs}))
            y, x = results
            error, where = relative_error(x, y)
            if not error <= OUTPUT_TOLERANCE:
                layer = self._graph.layer_of(graphs[0].get_operation_by_name(replaced.layer))
                message = f"it gives {at(y, where)}, as a convolution {at(x, where)} at {where[1:]}"
                self._result.differ("levels", layer, 0, message)

    def compare_convolutions(self) -> None:
        """Compares the results of the convolutions for random signs."""
        rng, graph = np.random.default_rng(0), self._graph.graph
        before: dict[str, np.ndarray] = {}
        after: dict[tf.Tensor, np.ndarray] = {}
        for name, planes in self._graph.lowering.results.items():
            node = self._original.get_operation_by_name(name)
            names = [node.inputs[0].name] if planes is None else planes.signs
            if names[0] in before or (planes is not None and planes.levels in before):
                continue
            signs = [rng.choice(np.array([-1, 1], np.float32), graph.get_tensor_by_name(x).shape) for x in names]
            after |= {graph.get_tensor_by_name(x): sign for x, sign in zip(names, signs, strict=True)}
            before |= {names[0]: signs[0]} if planes is None else {planes.levels: _levels(planes, signs)}
        results = [f"{name}:0" for name in self._graph.lowering.results]
        expected = self._session.run(results, before) if results else []
        found = self._graph.run([graph.get_tensor_by_name(name) for name in results], after)
        for name, x, y in zip(results, found, expected, strict=True):
            self._differ(name, x, y, "its convolution gives")

    def _differ(
        self, tensor: str, found: np.ndarray, expected: np.ndarray, what: str, index: int | None = None
    ) -> None:
        error, where = relative_error(found, expected)
        if not error <= OUTPUT_TOLERANCE:
            layer = self._graph.layer_of(self._original.get_tensor_by_name(tensor).op)
            message = f"{what} {at(expected, where)}, the sum of its signs {at(found, where)} at {where[1:]}"
            self._result.differ("levels", layer, 0, message, index)


def _levels(planes: Planes, signs: Sequence[np.ndarray]) -> np.ndarray:
    products = (c * sign for c, sign in zip(planes.coefficients, signs, strict=True))
    return sum(products, np.full_like(signs[0], planes.offset))
