"""A Keras model as one frozen TensorFlow graph, and the places in it that matter to a converter.

Both conversion and verification look at this graph and not at Keras layers: it says what a model computes,
whatever classes, nested models or lambdas it was written with.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import graph_pb2
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.python.framework.convert_to_constants import (
    _FunctionConverterDataInEager,
    _replace_variables_by_constants,
)

from larq_rep.converters import control_flow

CONVOLUTIONS = {
    "Conv2D": "convolution",
    "DepthwiseConv2dNative": "depthwise convolution",
    "Conv2DBackpropInput": "transposed convolution",
    "Conv3D": "3-D convolution",
    "Conv3DBackpropInputV2": "transposed 3-D convolution",
    "MatMul": "dense layer",
}
_PADS = ("Pad", "PadV2", "MirrorPad")
_LAYOUT = ("ExpandDims", "Reshape", "Squeeze", "Transpose")
_BEFORE_CONVOLUTION = (*_PADS, "SpaceToBatchND")  # the latter is how TensorFlow dilates
# The call of a function, which is how a SavedModel holds a layer of an unknown class.
_CALL = re.compile(r"(Stateful)?PartitionedCall(_\d+)?")
_PASS_THROUGH = ("Identity", "IdentityN", "StopGradient", "PreventGradient", "Snapshot", "EnsureShape")

_Padding = list[list[int]]


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
        negated: Whether the output is +1 below the threshold.
        positive_at_zero: Whether the output is +1 where both are equal.
    """

    output: tf.Tensor
    compared: tf.Tensor
    threshold: tf.Tensor | None = None
    negated: bool = False
    positive_at_zero: bool = True


class FrozenGraph:
    """A Keras model with constants for variables, in inference mode and at a fixed batch size.

    # Arguments
        model: A built `tf.keras.Model` whose inputs have fixed sizes; a free batch size becomes 1.

    # Attributes
        inputs: Its input tensors, in the order of `model.inputs`.
        outputs: Its output tensors, in the order of `model.outputs`.
        variables: Names of the model's variables by the name of the node that holds the value.
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
        frozen, _ = _replace_variables_by_constants(converter_data=data)
        captured = {x.name for x in concrete.graph.internal_captures}
        inputs = [x for x in concrete.inputs if x.name not in captured]
        self.definition = control_flow.straighten(
            frozen, [x.op.name for x in inputs], [y.op.name for y in concrete.outputs]
        )
        self.graph = tf.Graph()
        with self.graph.as_default():
            tf.import_graph_def(self.definition, name="")
        self.inputs = [self.graph.get_tensor_by_name(x.name) for x in inputs]
        self.outputs = [self.graph.get_tensor_by_name(y.name) for y in concrete.outputs]
        handles = {id(variable.handle): variable.name.removesuffix(":0") for variable in concrete.graph.variables}
        self.variables = {
            inner.op.name: handles[id(outer)] for outer, inner in concrete.graph.captures if id(outer) in handles
        }
        self.model_name = model.name
        self._layers: dict[str, list[tf.keras.layers.Layer]] = {}
        for layer in model.submodules:
            if isinstance(layer, tf.keras.layers.Layer):
                self._layers.setdefault(layer.name, []).append(layer)
        self._layer_names = {part for name in self._layers for part in name.split("/")}

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

    def on_noise(self, fetches: Sequence[tf.Tensor]) -> list[np.ndarray]:
        """Values of tensors for inputs of noise."""
        rng = np.random.default_rng(0)
        feeds = {x: rng.standard_normal(x.shape).astype(x.dtype.as_numpy_dtype) for x in self.inputs} if fetches else {}
        return self.run(fetches, feeds)

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
            if node.type in ("Conv2DBackpropInput", "Conv3DBackpropInputV2"):
                data = node.inputs[2]
            if kernel.op.name not in self.data_dependent:
                kind = CONVOLUTIONS[node.type]
                if kind == "convolution" and resolve(kernel).op.type == resolve(data).op.type == "ExpandDims":
                    kind = "1-D convolution"
                found.append(Site(self.layer_of(node), kind, node, data, kernel))
        return found

    def layer_of(self, node: tf.Operation) -> str:
        """Path of the Keras layer that made a node, as far as layers have names."""
        parts = [part for part in node.name.split("/") if not _CALL.fullmatch(part)]
        if parts[0] == self.model_name and len(parts) > 1:
            parts = parts[1:]
        named: list[str] = []
        for part in parts[:-1]:
            # Behind the first call of a shared layer TensorFlow counts.
            name = part if part in self._layer_names else re.sub(r"_\d+$", "", part)
            if name not in self._layer_names:
                break
            named.append(name)
        return "/".join(named or parts[:-1]) or parts[0]

    def layer_at(self, path: str) -> tf.keras.layers.Layer | None:
        """The Keras layer of a path of `layer_of`, as far as it is known."""
        candidates: list[tf.keras.layers.Layer] = []
        for part in path.split("/"):
            found = self._layers.get(part, [])
            if len(found) > 1 and candidates:  # models in the model may give a name again
                found = [layer for layer in found if layer in candidates[0].submodules] or found
            candidates = found or candidates
        return candidates[0] if candidates else None

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
        tensor = unpadded(tensor)
        return next((sign for sign in self.signs if sign.output is tensor), None)

    @functools.cached_property
    def misread_signs(self) -> list[tuple[str, float]]:
        """Layer and c of each sign(sign(x) + c) that is no sign: LCE's converter does not look at c."""
        found = []
        for node in self.nodes:
            pattern = _double_sign(node) if node.name in self.data_dependent else None
            if pattern is not None and not 0 < pattern[1] < 1:
                found.append((self.layer_of(node), pattern[1]))
        return found

    def graph_def(self) -> tuple[graph_pb2.GraphDef, list[str]]:
        """The graph for a converter, and the names of the nodes whose padding was trimmed.

        LCE 0.16 turns explicit symmetric padding before a strided convolution into `SAME`, which pads other
        rows. Padding that no window reads is therefore cut off here: what is left either equals `SAME` or is
        not symmetric and stays as it is. The function that the graph computes does not change.

        Quantized kernels are computed here and become constants. LCE would compute them too, but with its own
        rounding, which may be another one where a weight is near its threshold, and some large ones not at all.
        """
        graph_def = graph_pb2.GraphDef()
        graph_def.CopyFrom(self.definition)
        by_name = {node.name: node for node in graph_def.node}
        self._fold_kernels(graph_def, by_name)
        trimmed = []
        for site, amounts in self._padded_sites():
            data = site.x if site.node.get_attr("padding") == b"EXPLICIT" else resolve(site.x).op.inputs[0]
            wanted = None if amounts is None else _trim(site, data, amounts)
            if wanted is None or wanted == amounts:
                continue
            node = by_name[site.node.name]
            if site.node.get_attr("padding") == b"EXPLICIT":
                node.attr["explicit_paddings"].list.i[:] = [0, 0, *wanted[0], *wanted[1], 0, 0]
            else:
                # A copy, since others may read the padded tensor.
                pad = graph_def.node.add()
                pad.CopyFrom(by_name[resolve(site.x).op.name])
                pad.name = f"{site.node.name}/padding"
                pad.attr.pop("_output_shapes", None)
                constant = graph_def.node.add()
                constant.name = f"{site.node.name}/amounts"
                constant.op = "Const"
                constant.attr["dtype"].type = tf.int32.as_datatype_enum
                constant.attr["value"].tensor.CopyFrom(
                    tf.make_tensor_proto(np.array([[0, 0], *wanted, [0, 0]], np.int32))
                )
                pad.attr["Tpaddings"].type = tf.int32.as_datatype_enum
                pad.input[1] = constant.name
                node.input[0] = pad.name
            trimmed.append(site.layer)
        # What was replaced is left out: the converter may stumble over it.
        names = [x.op.name for x in (*self.inputs, *self.outputs)]
        return control_flow.needed_for(graph_def, names), trimmed

    def _fold_kernels(self, graph_def: graph_pb2.GraphDef, by_name: dict[str, NodeDef]) -> None:
        computed = {site.kernel.name: site.kernel for site in self.sites if resolve(site.kernel).op.type != "Const"}
        values = dict(zip(computed, self.run(list(computed.values())), strict=True))
        for name, value in values.items():
            constant = graph_def.node.add()
            constant.name = _folded(name)
            constant.op = "Const"
            constant.attr["dtype"].type = computed[name].dtype.as_datatype_enum
            constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
        for site in self.sites:
            if site.kernel.name in values:
                # Second, also in a transposed convolution.
                by_name[site.node.name].input[1] = _folded(site.kernel.name)

    @property
    def unknown_padding(self) -> list[str]:
        """Layers that are strided behind explicit padding of amounts that are not known before the graph runs."""
        return [site.layer for site, amounts in self._padded_sites() if amounts is None]

    def _padded_sites(self) -> list[tuple[Site, _Padding | None]]:
        """Strided convolutions behind explicit padding, with its amounts where they are known."""
        found: list[tuple[Site, _Padding | None]] = []
        for site in self.sites:
            if site.node.type not in ("Conv2D", "DepthwiseConv2dNative"):
                continue
            if site.node.get_attr("strides")[1:3] == [1, 1]:
                continue
            pad = resolve(site.x).op
            if site.node.get_attr("padding") == b"EXPLICIT":
                found.append((site, _explicit_padding(site.node)))
            elif site.node.get_attr("padding") == b"VALID" and pad.type in _PADS:
                known = None not in pad.inputs[0].shape.as_list()[1:3]
                found.append((site, _pad_amounts(pad) if known else None))
        return found


def _folded(tensor: str) -> str:
    """Name of the constant in place of a computed kernel, one for each output of a node."""
    return tensor.replace(":", "/folded_")


def resolve(tensor: tf.Tensor) -> tf.Tensor:
    """The tensor behind identities."""
    while tensor.op.type in _PASS_THROUGH:
        tensor = tensor.op.inputs[tensor.value_index]
    return tensor


def constant_value(tensor: tf.Tensor) -> np.ndarray | None:
    return tf.get_static_value(resolve(tensor))


def unpadded(tensor: tf.Tensor) -> tf.Tensor:
    """The tensor before padding and identities."""
    tensor = resolve(tensor)
    while tensor.op.type in _BEFORE_CONVOLUTION:
        tensor = resolve(tensor.op.inputs[0])
    return tensor


def laid_out(tensor: tf.Tensor) -> tf.Tensor:
    """The tensor before padding, identities, and what only lays its values out otherwise."""
    tensor = unpadded(tensor)
    while tensor.op.type in _LAYOUT:
        tensor = unpadded(tensor.op.inputs[0])
    return tensor


def _double_sign(node: tf.Operation) -> tuple[tf.Tensor, float] | None:
    """x and c of sign(sign(x) + c), larq's sign."""
    inner = resolve(node.inputs[0]).op if node.type == "Sign" else None
    if inner is not None and inner.type in ("AddV2", "Add"):
        for x, c in (inner.inputs, reversed(inner.inputs)):
            source, value = resolve(x).op, constant_value(c)
            if source.type == "Sign" and value is not None and value.size == 1:
                return source.inputs[0], float(value.reshape(()))
    return None


_COMPARISONS = {  # operator -> (whether it holds above the threshold, whether it holds at it), its mirror image
    "GreaterEqual": (True, True, "LessEqual"),
    "Greater": (True, False, "Less"),
    "LessEqual": (False, True, "GreaterEqual"),
    "Less": (False, False, "Greater"),
}


def _sign(node: tf.Operation) -> Sign | None:
    pattern = _double_sign(node)
    if pattern is not None:
        return Sign(node.outputs[0], pattern[0]) if 0 < pattern[1] < 1 else None
    if node.type not in ("Select", "SelectV2"):  # tf.where(x >= 0, 1, -1)
        return None
    condition = resolve(node.inputs[0]).op
    branches = [_plus_minus_one(x) for x in node.inputs[1:]]
    if condition.type not in _COMPARISONS or sorted(b or 0 for b in branches) != [-1, 1]:
        return None
    (compared, threshold), kind = condition.inputs, condition.type
    if constant_value(compared) is not None:
        compared, threshold, kind = threshold, compared, _COMPARISONS[kind][2]
    above, at, _ = _COMPARISONS[kind]
    value = constant_value(threshold)
    return Sign(
        node.outputs[0],
        compared,
        None if value is not None and not np.any(value) else threshold,
        negated=above != (branches[0] == 1),
        positive_at_zero=at == (branches[0] == 1),
    )


def _plus_minus_one(tensor: tf.Tensor) -> int | None:
    """1 or -1 if all elements of a tensor are known to be that."""
    op = resolve(tensor).op
    if op.type == "OnesLike":
        return 1
    if op.type == "Neg":
        inner = _plus_minus_one(op.inputs[0])
        return None if inner is None else -inner
    value = constant_value(tensor)
    return int(value.flat[0]) if value is not None and value.size and np.all(value == value.flat[0]) else None


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
