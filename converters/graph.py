"""A Keras model as one frozen TensorFlow graph, and the places in it that matter to a converter.

Both conversion and verification look at this graph and not at Keras layers: it says what a model computes,
whatever classes, nested models or lambdas it was written with.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import graph_pb2
from tensorflow.python.framework.convert_to_constants import (
    _FunctionConverterDataInEager,
    _replace_variables_by_constants,
)

CONVOLUTIONS = {
    "Conv2D": "convolution",
    "DepthwiseConv2dNative": "depthwise convolution",
    "Conv2DBackpropInput": "transposed convolution",
    "Conv3D": "3-D convolution",
    "MatMul": "dense layer",
}
_PADS = ("Pad", "PadV2", "MirrorPad")
_PASS_THROUGH = ("Identity", "IdentityN", "StopGradient", "PreventGradient", "Snapshot")


@dataclass(frozen=True)
class Site:
    """A convolution or matrix product of the graph.

    # Attributes
        layer: Path of the Keras layer, nested models included (`"inner/conv"`).
        kind: What it is, in words (`"convolution"`, `"dense layer"`, ...).
        node: The graph's node.
        x: Its input tensor, quantized and padded as the node sees it.
        kernel: Its kernel tensor, quantized.
    """

    layer: str
    kind: str
    node: tf.Operation
    x: tf.Tensor
    kernel: tf.Tensor


@dataclass(frozen=True)
class Sign:
    """A binary activation of the graph.

    # Attributes
        output: The tensor of -1 and +1.
        compared: The tensor whose sign is taken.
        threshold: What `compared` is compared with; `None` for zero.
    """

    output: tf.Tensor
    compared: tf.Tensor
    threshold: tf.Tensor | None


class FrozenGraph:
    """A Keras model with constants for variables, in inference mode and at a fixed batch size.

    # Arguments
        model: A built `tf.keras.Model` whose inputs have fixed sizes; a free batch size becomes 1.
    """

    def __init__(self, model: tf.keras.Model):
        specs = [
            tf.TensorSpec([x.shape[0] or 1, *x.shape[1:]], x.dtype, name=name)
            for x, name in zip(tf.nest.flatten(model.inputs), model.input_names, strict=True)
        ]

        @tf.function(input_signature=specs)
        def forward(*args: tf.Tensor) -> list[tf.Tensor]:
            outputs = model(tf.nest.pack_sequence_as(model.input, args), training=False)
            return tf.nest.flatten(outputs)

        # Keras compiles grouped convolutions in a function of their own, which freezing would not inline.
        eagerly = tf.config.functions_run_eagerly()
        tf.config.run_functions_eagerly(True)
        try:
            concrete = forward.get_concrete_function()
        finally:
            tf.config.run_functions_eagerly(eagerly)
        # convert_variables_to_constants_v2 does these two steps, and then makes a function of the result, which
        # takes several times as long and is not needed.
        data = _FunctionConverterDataInEager(func=concrete, lower_control_flow=False, aggressive_inlining=False)
        self.definition, _ = _replace_variables_by_constants(converter_data=data)
        self.graph = tf.Graph()
        with self.graph.as_default():
            tf.import_graph_def(self.definition, name="")
        captured = {x.name for x in concrete.graph.internal_captures}
        self.inputs = [self.graph.get_tensor_by_name(x.name) for x in concrete.inputs if x.name not in captured]
        self.outputs = [self.graph.get_tensor_by_name(y.name) for y in concrete.outputs]
        self.model_name = model.name

    @functools.cached_property
    def _session(self) -> tf.compat.v1.Session:
        # Without rewriting the graph computes what is written, and starts in a fraction of the time.
        config = tf.compat.v1.ConfigProto()
        config.graph_options.optimizer_options.opt_level = -1
        config.graph_options.rewrite_options.disable_meta_optimizer = True
        return tf.compat.v1.Session(graph=self.graph, config=config)

    def run(self, fetches: Sequence[tf.Tensor], feeds: dict[tf.Tensor, np.ndarray] | None = None) -> list[np.ndarray]:
        """Values of tensors. A fed tensor, an inner one too, is replaced for everything that depends on it."""
        return self._session.run(list(fetches), feeds) if fetches else []

    @functools.cached_property
    def nodes(self) -> list[tf.Operation]:
        """All nodes, producers before consumers."""
        order: dict[str, tf.Operation] = {}
        stack = [(node, False) for node in reversed(self.graph.get_operations())]
        while stack:
            node, ready = stack.pop()
            if node.name in order:
                continue
            if ready:
                order[node.name] = node
            else:
                stack.append((node, True))
                stack += [(x.op, False) for x in node.inputs if x.op.name not in order]
        return list(order.values())

    @functools.cached_property
    def data_dependent(self) -> set[str]:
        """Names of the nodes whose value depends on the model's inputs."""
        names = {x.op.name for x in self.inputs}
        for node in self.nodes:
            if any(x.op.name in names for x in node.inputs):
                names.add(node.name)
        return names

    @functools.cached_property
    def sites(self) -> list[Site]:
        """Convolutions and dense layers with a constant kernel, in execution order."""
        found = []
        for node in self.nodes:
            if node.type not in CONVOLUTIONS or node.name not in self.data_dependent:
                continue
            data, kernel = node.inputs[0], node.inputs[1]
            if node.type == "Conv2DBackpropInput":
                kernel, data = node.inputs[1], node.inputs[2]
            if kernel.op.name not in self.data_dependent:
                found.append(Site(self.layer_of(node), CONVOLUTIONS[node.type], node, data, kernel))
        return found

    def layer_of(self, node: tf.Operation) -> str:
        """Path of the Keras layer that made a node."""
        parts = node.name.split("/")
        if parts[0] == self.model_name and len(parts) > 1:
            parts = parts[1:]
        return "/".join(parts[:-1]) or parts[0]

    @functools.cached_property
    def signs(self) -> list[Sign]:
        """Binary activations, in execution order, in the spellings that LCE's converter recognises."""
        found = []
        for node in self.nodes:
            if node.name in self.data_dependent:
                sign = _sign(node)
                if sign is not None:
                    found.append(sign)
        return found

    def sign_of(self, tensor: tf.Tensor) -> Sign | None:
        """The binary activation that a tensor carries, looked up through padding and identities."""
        tensor = resolve(tensor)
        while tensor.op.type in _PADS:
            tensor = resolve(tensor.op.inputs[0])
        return next((sign for sign in self.signs if sign.output is tensor), None)

    def graph_def(self) -> tuple[graph_pb2.GraphDef, list[str]]:
        """The graph for a converter, and the names of the nodes whose padding was trimmed.

        LCE 0.16 turns explicit symmetric padding before a strided convolution into `SAME`, which pads other
        rows. Padding that no window reads is therefore cut off here: what is left either equals `SAME` or is
        not symmetric and stays as it is. The function that the graph computes does not change.
        """
        graph_def = graph_pb2.GraphDef()
        graph_def.CopyFrom(self.definition)
        by_name = {node.name: node for node in graph_def.node}
        trimmed = []
        for site in self.sites:
            if site.node.type not in ("Conv2D", "DepthwiseConv2dNative"):
                continue
            explicit = site.node.get_attr("padding") == b"EXPLICIT"
            pad = resolve(site.x).op
            before_after = _explicit_padding(site.node) if explicit else _pad_amounts(pad)
            if before_after is None or (not explicit and site.node.get_attr("padding") != b"VALID"):
                continue
            data = site.x if explicit else pad.inputs[0]
            if not explicit and len(pad.outputs[0].consumers()) > 1:
                continue  # the converter leaves padding with several readers alone
            wanted = _trim(site, data, before_after)
            if wanted == before_after:
                continue
            if explicit:
                by_name[site.node.name].attr["explicit_paddings"].list.i[:] = [
                    0,
                    0,
                    *wanted[0],
                    *wanted[1],
                    0,
                    0,
                ]
            else:
                constant = graph_def.node.add()
                constant.name = f"{pad.name}/trimmed"
                constant.op = "Const"
                amounts = np.array([[0, 0], *wanted, [0, 0]], np.int32)
                constant.attr["dtype"].type = tf.int32.as_datatype_enum
                constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(amounts))
                by_name[pad.name].input[1] = constant.name
                by_name[pad.name].attr["Tpaddings"].type = tf.int32.as_datatype_enum
                _forget_shape(by_name[pad.name])
            trimmed.append(site.layer)
        return graph_def, trimmed


def resolve(tensor: tf.Tensor) -> tf.Tensor:
    """The tensor behind identities."""
    while tensor.op.type in _PASS_THROUGH:
        tensor = tensor.op.inputs[tensor.value_index]
    return tensor


def constant_value(tensor: tf.Tensor) -> np.ndarray | None:
    return tf.get_static_value(resolve(tensor))


def _sign(node: tf.Operation) -> Sign | None:
    if node.type == "Sign":  # larq: sign(sign(x) + 0.1)
        inner = resolve(node.inputs[0]).op
        if inner.type in ("AddV2", "Add"):
            for x, c in (inner.inputs, reversed(inner.inputs)):
                source = resolve(x).op
                if source.type == "Sign" and constant_value(c) is not None:
                    return Sign(node.outputs[0], source.inputs[0], None)
    elif node.type in ("Select", "SelectV2"):  # tf.where(x >= 0, 1, -1)
        condition = resolve(node.inputs[0]).op
        values = {float(v) for x in node.inputs[1:] if (c := constant_value(x)) is not None for v in np.unique(c)}
        if condition.type in ("GreaterEqual", "Less", "Greater", "LessEqual") and values == {1.0, -1.0}:
            threshold = condition.inputs[1]
            value = constant_value(threshold)
            zero = value is not None and not np.any(value)
            return Sign(node.outputs[0], condition.inputs[0], None if zero else threshold)
    return None


_Padding = list[list[int]]


def _pad_amounts(node: tf.Operation) -> _Padding | None:
    """Rows and columns ((top, bottom), (left, right)) of a pad node of an NHWC tensor."""
    if node.type not in _PADS:
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


def _forget_shape(node: graph_pb2.NodeDef) -> None:
    node.attr.pop("_output_shapes", None)
