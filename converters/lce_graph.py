"""Prepares a frozen graph for LCE's converter: removes padding that no window reads, and makes kernels constants."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import graph_pb2

from larq_rep.converters.control_flow import needed_for
from larq_rep.converters.graph import FrozenGraph, Site
from larq_rep.converters.sign_patterns import double_sign
from larq_rep.converters.tensors import PADS, add_constant, constant_value, is_constant, put_weights, resolve

_Padding = list[list[int]]


def definition_for_lce(graph: FrozenGraph) -> tuple[graph_pb2.GraphDef, list[str]]:
    """The graph for LCE's converter, and the names of the layers whose padding was trimmed.

    LCE 0.16 turns explicit symmetric padding before a strided convolution into `SAME`, which pads other
    rows. Padding that no window reads is therefore cut off here: what is left either equals `SAME` or is
    not symmetric and stays as it is. The function that the graph computes does not change.

    Quantized kernels are computed here and become constants. LCE would compute them too, but with its own rounding,
    which may differ where a weight is near its threshold, and some large ones not at all.

    LCE takes `sign(sign(x) + y)` for `sign(x)`, whatever y is. Twice the sum has the same sign, and LCE computes it.
    """
    ends = [x.op.name for x in (*graph.inputs, *graph.outputs)]
    folded = [
        (site, kernel) for site, kernel in zip(graph.sites, graph.kernels, strict=True) if not is_constant(site.kernel)
    ]
    # Replaced nodes are left out: the converter may stumble over them.
    graph_def = needed_for(graph.definition, ends, {site.node.name for site, _ in folded})
    if graph_def is graph.definition:
        graph_def = graph_pb2.GraphDef()
        graph_def.CopyFrom(graph.definition)
    _fold_kernels(folded, graph_def)
    _double_sums(graph, graph_def)
    trimmed = _trim_padding(graph, graph_def)
    graph_def = needed_for(graph_def, ends)
    put_weights(graph_def, graph.weights)
    return graph_def, trimmed


def unknown_padding(graph: FrozenGraph) -> list[str]:
    """Strided layers behind explicit padding whose amounts are not known before the graph runs."""
    return [site.layer for site, amounts in _padded_sites(graph) if amounts is None]


def _fold_kernels(folded: list[tuple[Site, np.ndarray]], graph_def: graph_pb2.GraphDef) -> None:
    by_name = {node.name: node for node in graph_def.node}
    # One constant for each output of a node.
    names = {site.kernel.name: site.kernel.name.replace(":", "/folded_") for site, _ in folded}
    for name, value in {site.kernel.name: kernel for site, kernel in folded}.items():
        add_constant(graph_def, names[name], value)
    for site, _ in folded:
        # The second input, also in a transposed convolution.
        by_name[site.node.name].input[1] = names[site.kernel.name]


def _double_sums(graph: FrozenGraph, graph_def: graph_pb2.GraphDef) -> None:
    by_name = {node.name: node for node in graph_def.node}
    for node in graph.nodes:
        inner = resolve(node.inputs[0]).op if node.type == "Sign" and node.name in by_name else None
        if inner is None or inner.type not in ("Add", "AddV2") or double_sign(node) is not None:
            continue
        if any(resolve(x).op.type == "Sign" for x in inner.inputs):
            name = f"{node.name}/doubled"
            add_constant(graph_def, f"{name}/two", np.array(2, node.inputs[0].dtype.as_numpy_dtype))
            doubled = graph_def.node.add(name=name, op="Mul", input=[by_name[node.name].input[0], f"{name}/two"])
            doubled.attr["T"].type = node.inputs[0].dtype.as_datatype_enum
            by_name[node.name].input[0] = name


def _trim_padding(graph: FrozenGraph, graph_def: graph_pb2.GraphDef) -> list[str]:
    by_name = {node.name: node for node in graph_def.node}
    trimmed = []
    for site, amounts in _padded_sites(graph):
        explicit = site.node.get_attr("padding") == b"EXPLICIT"
        data = site.x if explicit else resolve(site.x).op.inputs[0]
        wanted = None if amounts is None else _trim(site, data, amounts)
        if wanted is None or wanted == amounts:
            continue
        node = by_name[site.node.name]
        if explicit:
            node.attr["explicit_paddings"].list.i[:] = [0, 0, *wanted[0], *wanted[1], 0, 0]
        else:
            # A copy, since others may read the padded tensor.
            pad = graph_def.node.add()
            pad.CopyFrom(by_name[resolve(site.x).op.name])
            pad.name = f"{site.node.name}/padding"
            pad.attr.pop("_output_shapes", None)
            pad.attr["Tpaddings"].type = tf.int32.as_datatype_enum
            pad.input[1] = f"{site.node.name}/amounts"
            add_constant(graph_def, pad.input[1], np.array([[0, 0], *wanted, [0, 0]], np.int32))
            node.input[0] = pad.name
        trimmed.append(site.layer)
    return trimmed


def _padded_sites(graph: FrozenGraph) -> list[tuple[Site, _Padding | None]]:
    """Strided convolutions behind explicit padding, with its amounts where they are known."""
    found: list[tuple[Site, _Padding | None]] = []
    for site in graph.sites:
        if site.node.type not in ("Conv2D", "DepthwiseConv2dNative"):
            continue
        if site.node.get_attr("strides")[1:3] == [1, 1]:
            continue
        pad = resolve(site.x).op
        if site.node.get_attr("padding") == b"EXPLICIT":
            found.append((site, _explicit_padding(site.node)))
        elif site.node.get_attr("padding") == b"VALID" and pad.type in PADS:
            known = None not in pad.inputs[0].shape.as_list()[1:3]
            found.append((site, _pad_amounts(pad) if known else None))
    return found


def _pad_amounts(node: tf.Operation) -> _Padding | None:
    """Rows and columns ((top, bottom), (left, right)) of a pad node of an NHWC tensor."""
    if node.type not in PADS:
        return None
    amounts = constant_value(node.inputs[1])
    if amounts is None or amounts.shape != (4, 2) or amounts[[0, 3]].any():
        return None
    return [[int(a) for a in row] for row in amounts[1:3]]


def _explicit_padding(node: tf.Operation) -> _Padding:
    amounts = [int(a) for a in node.get_attr("explicit_paddings")]
    return [amounts[2:4], amounts[4:6]]


def _trim(site: Site, data: tf.Tensor, amounts: _Padding) -> _Padding:
    strides = site.node.get_attr("strides")
    dilations = site.node.get_attr("dilations")
    result = []
    for axis, (before, after) in enumerate(amounts):
        size, kernel = data.shape[axis + 1], site.kernel.shape[axis]
        if size is None or strides[axis + 1] == 1:
            result.append([before, after])
            continue
        window = (kernel - 1) * dilations[axis + 1] + 1
        outputs = (size + before + after - window) // strides[axis + 1] + 1
        read = (outputs - 1) * strides[axis + 1] + window
        result.append([before, min(after, max(0, read - size - before))])
    return result
