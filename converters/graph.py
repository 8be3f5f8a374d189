"""A Keras model as one frozen TensorFlow graph, and the places in it that matter to a converter.

Conversion and verification look at this graph, not at Keras layers: it says what a model computes,
whatever classes, nested models or lambdas it was written with.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto

from larq_rep._keras import frozen
from larq_rep.converters.control_flow import needed_for, straighten
from larq_rep.converters.marks import marked
from larq_rep.converters.planes import lower
from larq_rep.converters.products import convolve
from larq_rep.converters.sign_patterns import BinaryActivation, binary_activation, double_sign
from larq_rep.converters.tensors import LARGEST_INSIDE, Session, imported, is_constant, operands, resolve, unpadded
from larq_rep.converters.transposed import split

CONVOLUTIONS = {
    "Conv2D": "convolution",
    "DepthwiseConv2dNative": "depthwise convolution",
    "Conv2DBackpropInput": "transposed convolution",
    "Conv3D": "3-D convolution",
    "Conv3DBackpropInputV2": "transposed 3-D convolution",
    "MatMul": "dense layer",
}
# A function call: a SavedModel holds a layer of an unknown class as one.
_CALL = re.compile(r"(Stateful)?PartitionedCall(_\d+)?")


@dataclass(frozen=True)
class Site:
    """A convolution or matrix product of the graph.

    # Attributes
        layer: Path of the Keras layer, nested models included (`"inner/conv"`).
        kind: Its type, in words (`"convolution"`, `"dense layer"`, ...).
        node: The graph's node.
        x: Its input tensor, quantized and padded as the node sees it.
        kernel: Its kernel tensor, quantized.
    """

    layer: str
    kind: str
    node: tf.Operation
    x: tf.Tensor
    kernel: tf.Tensor


class FrozenGraph:
    """A Keras model with constants for variables, in inference mode and at a fixed batch size.

    # Arguments
        model: A built `tf.keras.Model` whose inputs have fixed sizes; a free batch size becomes 1.

    # Attributes
        weights: Large weights by the names of their placeholders.
        phases: How transposed convolutions of signs became convolutions.
        convolved: How dense and 1-D layers of signs became convolutions of maps.
        lowering: How convolutions of quantized maps became convolutions of signs, as which they count everywhere.
        inputs: Its input tensors, in the order of `model.inputs`.
        outputs: Its output tensors, in the order of `model.outputs`.
        variables: Names of the model's variables by the name of the node that holds the value.
        layers: All layers of the model, also those inside others.
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
        modules = model.submodules
        eagerly = tf.config.functions_run_eagerly()
        tf.config.run_functions_eagerly(True)
        try:
            with marked(modules):
                concrete = forward.get_concrete_function()
        finally:
            tf.config.run_functions_eagerly(eagerly)
        captured = {x.name for x in concrete.graph.internal_captures}
        inputs = [x for x in concrete.inputs if x.name not in captured]
        names = [x.op.name for x in inputs], [y.op.name for y in concrete.outputs]
        definition, self.weights = frozen(concrete, LARGEST_INSIDE)
        self.phases = split(straighten(definition, self.weights, *names), names[0], self.weights)
        self.convolved = convolve(self.phases.definition, names[0], self.weights)
        self.lowering = lower(self.convolved.definition, names[0], self.weights, tuple(CONVOLUTIONS))
        self.definition = needed_for(self.lowering.definition, [*names[0], *names[1]])
        self.graph = imported(self.definition, self.weights)
        self.inputs = [self.graph.get_tensor_by_name(x.name) for x in inputs]
        self.outputs = [self.graph.get_tensor_by_name(y.name) for y in concrete.outputs]
        handles = {id(variable.handle): variable.name.removesuffix(":0") for variable in concrete.graph.variables}
        self.variables = {
            inner.op.name: handles[id(outer)] for outer, inner in concrete.graph.captures if id(outer) in handles
        }
        self.model_name = model.name
        self.layers = [module for module in modules if isinstance(module, tf.keras.layers.Layer)]
        self._layers: dict[str, list[tf.keras.layers.Layer]] = {}
        for layer in self.layers:
            self._layers.setdefault(layer.name, []).append(layer)
        self._layer_names = {part for name in self._layers for part in name.split("/")}

    @functools.cached_property
    def _session(self) -> Session:
        return Session(self.graph)

    def run(self, fetches: Sequence[tf.Tensor], feeds: dict[tf.Tensor, np.ndarray] | None = None) -> list[np.ndarray]:
        """Values of tensors. A fed tensor, even an inner one, is replaced for everything that depends on it."""
        return self._session.run(list(fetches), {**self._computed_kernels, **(feeds or {})}) if fetches else []

    @functools.cached_property
    def kernels(self) -> list[np.ndarray]:
        """The kernels of `sites`."""
        return self._session.run([site.kernel for site in self.sites]) if self.sites else []

    @functools.cached_property
    def _computed_kernels(self) -> dict[tf.Tensor, np.ndarray]:
        """Those that quantizers compute: for some that takes longer than the rest of a run on one image."""
        pairs = ((site.kernel, kernel) for site, kernel in zip(self.sites, self.kernels, strict=True))
        return {x: kernel for x, kernel in pairs if not is_constant(x)}

    def constant(self, node: tf.Operation) -> np.ndarray:
        """The value of a constant node or weight; reading it is far cheaper than `run`."""
        weight = self.weights.get(node.name)
        return tf.make_ndarray(self._constants[node.name]) if weight is None else weight

    @functools.cached_property
    def _constants(self) -> dict[str, TensorProto]:
        return {node.name: node.attr["value"].tensor for node in self.definition.node if node.op == "Const"}

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
            data, kernel = operands(node)
            if kernel.op.name not in self.data_dependent:
                kind = CONVOLUTIONS[node.type]
                if kind == "convolution" and resolve(kernel).op.type == resolve(data).op.type == "ExpandDims":
                    kind = "1-D convolution"
                elif kind == "depthwise convolution" and unpadded(data).op.type == "ExpandDims":
                    kind = "1-D depthwise convolution"
                found.append(Site(self.layer_of(node), kind, node, data, kernel))
        return found

    def layer_of(self, node: tf.Operation) -> str:
        """Path of the Keras layer that made a node, as far as layers have names."""
        parts = [part for part in node.name.split("/") if not _CALL.fullmatch(part)]
        if parts[0] == self.model_name and len(parts) > 1:
            parts = parts[1:]
        named: list[str] = []
        for part in parts[:-1]:
            # TensorFlow numbers the calls of a shared layer after the first.
            name = part if part in self._layer_names else re.sub(r"_\d+$", "", part)
            if name not in self._layer_names:
                break
            named.append(name)
        return "/".join(named or parts[:-1]) or parts[0]

    def layer_at(self, path: str) -> tf.keras.layers.Layer | None:
        """The Keras layer at a path from `layer_of`, if it is known."""
        candidates: list[tf.keras.layers.Layer] = []
        for part in path.split("/"):
            found = self._layers.get(part, [])
            if len(found) > 1 and candidates:  # nested models may reuse a name
                found = [layer for layer in found if layer in candidates[0].submodules] or found
            candidates = found or candidates
        return candidates[0] if candidates else None

    @functools.cached_property
    def layers_with_weights(self) -> set[str]:
        """Names of the Keras layers that have weights."""
        return {name for name, layers in self._layers.items() if any(layer.weights for layer in layers)}

    @functools.cached_property
    def signs(self) -> list[BinaryActivation]:
        """Binary activations, in execution order, in the spellings that LCE's converter recognises."""
        found = [binary_activation(node) for node in self.nodes if node.name in self.data_dependent]
        return [sign for sign in found if sign is not None]

    def sign_of(self, tensor: tf.Tensor) -> BinaryActivation | None:
        """The binary activation that a tensor carries, looked up through padding and identities."""
        tensor = unpadded(tensor)
        return next((sign for sign in self.signs if sign.output is tensor), None)

    @functools.cached_property
    def misread_signs(self) -> list[tuple[str, float]]:
        """Layer and c of each sign(sign(x) + c) that is not a sign: LCE's converter ignores c."""
        found = []
        for node in self.nodes:
            pattern = double_sign(node) if node.name in self.data_dependent else None
            if pattern is not None and not 0 < pattern[1] < 1:
                found.append((self.layer_of(node), pattern[1]))
        return found
