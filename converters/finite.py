"""Finds weights that are not finite: NaN and infinity reach a file silently and make its answers arbitrary."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from larq_rep.converters.findings import Finding
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.converters.graph import FrozenGraph


def audit_weights(graph: FrozenGraph) -> list[Finding]:
    """Findings about the values, other than inputs, that the graph computes with.

    A variable must not hold NaN or infinity, nor may anything computed from variables: a zero variance
    without epsilon, a negative one, a scale that overflows. Infinity that the code of a layer holds as a constant is
    intended, as in a mask before a softmax or the padding of a maximum; NaN never is.
    """
    found = []
    for node in _constants(graph):
        variable, value = graph.variables.get(node.name), graph.constant(node)
        wrong = np.isnan(value) if variable is None else ~np.isfinite(value)
        if wrong.any():
            found.append(_finding(_readers(graph, node), variable or "a constant", value, wrong))
    return found or _audit_computed(graph)


def _audit_computed(graph: FrozenGraph) -> list[Finding]:
    endless = infinite_on_purpose(graph)
    edges = {
        x.name: (x, node)
        for node in graph.nodes
        if node.name in graph.data_dependent
        for x in node.inputs
        if x.op.name not in graph.data_dependent and x.op.name not in endless and x.dtype.is_floating
    }
    values = {site.kernel.name: kernel for site, kernel in zip(graph.sites, graph.kernels, strict=True)}
    others = [x for name, (x, _) in edges.items() if name not in values]
    values |= zip((x.name for x in others), graph.run(others), strict=True)
    found = []
    for name, (_, node) in edges.items():
        value = values[name]
        if not np.isfinite(value).all():
            what = "what it computes from its weights"
            found.append(_finding(graph.layer_of(node), what, value, ~np.isfinite(value)))
    norms = [
        node
        for node in graph.nodes
        if node.type.startswith("FusedBatchNorm")
        and not node.get_attr("is_training")
        and all(x.name in edges for x in node.inputs[1:5])
    ]
    for node in norms:
        gamma, beta, mean, variance = (values[x.name] for x in node.inputs[1:5])
        with np.errstate(all="ignore"):
            scale = gamma / np.sqrt(variance + np.float32(node.get_attr("epsilon")))
            wrong = ~np.isfinite(beta - mean * scale)
        if wrong.any():
            what = "gamma / sqrt(variance + epsilon) and what it adds"
            found.append(_finding(graph.layer_of(node), what, scale, wrong))
    return found


def infinite_on_purpose(graph: FrozenGraph) -> set[str]:
    """Nodes that read a constant with infinity from the code of a layer."""
    constants = [node for node in _constants(graph) if node.name not in graph.variables]
    found = {node.name for node in constants if np.isinf(graph.constant(node)).any()}
    for node in graph.nodes if found else []:
        if any(x.op.name in found for x in node.inputs):
            found.add(node.name)
    return found


def _constants(graph: FrozenGraph) -> list[tf.Operation]:
    constants = (node for node in graph.nodes if node.type == "Const" or node.name in graph.weights)
    return [node for node in constants if node.outputs[0].dtype.is_floating]


def audit_constants(flatbuffer: Flatbuffer, graph: FrozenGraph) -> list[Finding]:
    """Findings about finite weights that are not finite in a file: products of scales that overflow float32."""
    found = []
    for tensor in range(len(flatbuffer.subgraph.tensors)):
        value = flatbuffer.constant(tensor) if flatbuffer.dtype(tensor) == "float32" else None
        if value is None or np.isfinite(value).all():
            continue
        wrong = np.isnan(value) if infinite_on_purpose(graph) else ~np.isfinite(value)
        if wrong.any():
            where = flatbuffer.name(tensor).split(";")[0]
            found.append(_finding(where, "a constant of the file", value, wrong))
    return found


def _finding(where: str, what: str, value: np.ndarray, wrong: np.ndarray) -> Finding:
    first = tuple(int(i) for i in np.argwhere(wrong)[0])
    kinds = "NaN" if np.isnan(value[wrong]).all() else "NaN or infinite" if np.isnan(value).any() else "infinite"
    message = (
        f"{int(wrong.sum())} of {value.size} values of {what} are {kinds}, the first at index {first}; go back to a "
        "checkpoint from before the training diverged, or fix the layer"
    )
    return Finding("not-finite", where, message)


def _readers(graph: FrozenGraph, node: tf.Operation) -> str:
    """The layers that read a constant first."""
    names: dict[str, None] = {}
    stack = [reader for x in node.outputs for reader in x.consumers()]
    while stack:
        reader = stack.pop()
        if reader.type == "Identity" and reader.name not in graph.data_dependent:
            stack += [r for x in reader.outputs for r in x.consumers()]
        else:
            names[graph.layer_of(reader)] = None
    return ", ".join(sorted(names)) or graph.layer_of(node)
