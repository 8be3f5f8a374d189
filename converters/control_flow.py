"""Removes the branches of a frozen graph that are already decided; other branches and loops must be reported."""

from __future__ import annotations

from collections.abc import Collection

from tensorflow.core.framework import graph_pb2
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2
from tensorflow.python.grappler import tf_optimizer

from larq_rep.converters.tensors import Session, Weights, imported

BRANCHES = ("If", "StatelessIf", "Case", "StatelessCase")
LOOPS = ("While", "StatelessWhile")
# Control flow of TensorFlow 1, where order decides which branch a constant belongs to.
_ORDERED = ("Switch", "RefSwitch", "Merge", "RefMerge", "Enter", "RefEnter")


def straighten(
    definition: graph_pb2.GraphDef, weights: Weights, inputs: list[str], outputs: list[str]
) -> graph_pb2.GraphDef:
    """The graph without control inputs, branches whose condition does not depend on the inputs, and unused nodes.

    A layer that acts only in training, such as `RandomCrop`, may keep both branches in the graph. No variable is left
    whose order control inputs could keep. In a function that a SavedModel restored, they make even the constants wait
    for the inputs, so that nothing could be computed without an image.

    # Arguments
        definition: A graph with constants for variables; it is changed.
        weights: Its large weights.
        inputs: Names of its input nodes.
        outputs: Names of its output nodes.
    """
    if any(node.op in _ORDERED for node in definition.node):
        return definition
    while True:
        for node in definition.node:
            kept = [name for name in node.input if not name.startswith("^")]
            if len(kept) < len(node.input):
                node.input[:] = kept
        if not _decide(definition, weights):
            break
        definition = _inlined(definition, inputs, outputs)
    # In place: a copy would double the memory of the weights.
    needed = _behind([*inputs, *outputs], {node.name: node for node in definition.node})
    for index in reversed(range(len(definition.node))):
        if definition.node[index].name not in needed:
            del definition.node[index]
    return definition


def _decide(definition: graph_pb2.GraphDef, weights: Weights) -> bool:
    """Turns each decided branch into a call of the function that it takes; returns whether there were any."""
    nodes = {node.name: node for node in definition.node}
    decided = [
        node
        for node in definition.node
        if node.op in ("If", "StatelessIf")
        and not any(nodes[name].op == "Placeholder" and name not in weights for name in _behind(node.input[:1], nodes))
    ]
    if not decided:
        return False
    graph = imported(definition, weights)
    with Session(graph) as session:
        conditions = session.run([graph.get_operation_by_name(node.name).inputs[0] for node in decided])
    for node, condition in zip(decided, conditions, strict=True):
        taken = node.attr["then_branch" if condition.any() else "else_branch"]
        node.attr["f"].CopyFrom(taken)
        node.op = "PartitionedCall" if node.op == "StatelessIf" else "StatefulPartitionedCall"
        del node.input[0]
        for name in set(node.attr) - {"Tin", "Tout", "f"}:
            del node.attr[name]
    return True


def needed_for(definition: graph_pb2.GraphDef, names: list[str], replaced: Collection[str] = ()) -> graph_pb2.GraphDef:
    """The part of a graph that computes some of its nodes, which is the graph itself if all of it does.

    # Arguments
        definition: The graph.
        names: Names of the nodes.
        replaced: Names of the nodes whose second input is not needed.
    """
    needed = _behind(names, {node.name: node for node in definition.node}, replaced)
    if len(needed) == len(definition.node):
        return definition
    result = graph_pb2.GraphDef(library=definition.library, versions=definition.versions)
    result.node.extend(node for node in definition.node if node.name in needed)
    return result


def _behind(tensors: list[str], nodes: dict[str, NodeDef], replaced: Collection[str] = ()) -> set[str]:
    """Names of the nodes that compute these tensors, without the second input of those `replaced`."""
    stack, found = list(tensors), set()
    while stack:
        name = stack.pop().removeprefix("^").split(":")[0]
        if name not in found:
            found.add(name)
            inputs = nodes[name].input
            stack += [inputs[0], *inputs[2:]] if name in replaced else inputs
    return found


def _inlined(definition: graph_pb2.GraphDef, inputs: list[str], outputs: list[str]) -> graph_pb2.GraphDef:
    """The graph with the bodies of functions in place of their calls."""
    meta_graph = meta_graph_pb2.MetaGraphDef()
    meta_graph.graph_def.CopyFrom(definition)
    meta_graph.collection_def["train_op"].node_list.value[:] = [*inputs, *outputs]
    config = config_pb2.ConfigProto()
    config.graph_options.rewrite_options.min_graph_nodes = -1
    config.graph_options.rewrite_options.optimizers.append("function")
    return tf_optimizer.OptimizeGraph(config, meta_graph)
