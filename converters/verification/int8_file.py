"""A file with operators in int8 beside the float file that it was made from."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from larq_rep.converters import float_weights, integer_executor, metadata, quantized
from larq_rep.converters.flatbuffer import Flatbuffer, Operator
from larq_rep.converters.graph import FrozenGraph
from larq_rep.converters.verification.result import Difference, Verification
from larq_rep.converters.verification.storage import plain

_PASSES = ("QUANTIZE", "DEQUANTIZE")
# Operators with weights, which are input 1: the positions of data and bias.
PRODUCTS = {"CONV_2D": (0, 2), "DEPTHWISE_CONV_2D": (0, 2), "FULLY_CONNECTED": (0, 2), "TRANSPOSE_CONV": (2, 3)}


class Int8File:
    """Pairs the operators and tensors of a file with those of a float file, and finds where their structure differs.

    Without the QUANTIZE and DEQUANTIZE of activations the file should have the operators, options and tensors of the
    float file, in its order.

    # Arguments
        content: The bytes of the file.
        reference: The bytes of the float file.
        graph: The model, for the names of layers.

    # Attributes
        flatbuffer: The file, with float32 weights where only their storage is smaller.
        reference: The float file.
        about: What the file says of its quantization.
        passes: Its QUANTIZE and DEQUANTIZE operators of activations.
        means: The tensor of the float file that each computed tensor of the file stands for.
        operators: Pairs of an operator of the file and one of the float file; empty if they do not match.
        in_int8: The operators in int8, beside `passes`.
        activations: The tensors of integers, in the order in which they are computed.
        convolutions: The layers of the binary convolutions, by the index of the operator in the float file.
        result: The differences.
    """

    def __init__(self, content: bytes, reference: bytes, graph: FrozenGraph):
        self.flatbuffer, self.reference = Flatbuffer(float_weights.expand(content)[0]), Flatbuffer(reference)
        self.result, self.convolutions, self._graph = Verification(), dict[int, str](), graph
        said = metadata.read(content).get("int8")
        self.about: Mapping[str, Any] = said if isinstance(said, dict) else {}
        ours, theirs = self.flatbuffer, self.reference
        self.passes = [op for op in ours.operators if op.name in _PASSES and ours.is_computed(op.inputs[0])]
        passes = {op.index for op in self.passes}
        found = [op for op in ours.operators if op.index not in passes]
        self.means = dict(zip(ours.inputs, theirs.inputs, strict=False))
        for op, expected in zip(found, theirs.operators, strict=False):
            self.means |= zip(op.outputs, expected.outputs, strict=False)
        for op in self.passes:  # in execution order
            self.means[op.outputs[0]] = self.means.get(op.inputs[0], -1)
        self.operators: list[tuple[Operator, Operator]] = []
        if self._outline_agrees(found):
            self.operators = list(zip(found, theirs.operators, strict=True))
        self.in_int8 = [op for op, _ in self.operators if integer_executor.is_integer(ours, op)]
        written = [t for op in ours.operators for t in op.outputs]
        self.activations = [t for t in (*ours.inputs, *written) if quantized.quantization(ours, t)]

    def _outline_agrees(self, found: list[Operator]) -> bool:
        """Whether operators and tensors are those of the float file; says where they are not."""
        ours, theirs = self.flatbuffer, self.reference
        whole = "its operators are not those of a fresh conversion of the model: convert it again with this version"
        if [(op.name, len(op.outputs)) for op in found] != [(op.name, len(op.outputs)) for op in theirs.operators]:
            self.result.differ("structure", "file", 0, whole)
        elif [self.means.get(t) for t in ours.outputs] != theirs.outputs:
            self.result.differ("structure", "file", -1, "its outputs are not those of a fresh conversion of the model")
        else:
            for op, expected in zip(found, theirs.operators, strict=True):
                if wrong := self._wrong_outline(op, expected):
                    message = f"{op.name} {wrong} in a fresh conversion of the model"
                    self.result.differ("structure", self._layer(expected), op.index, message)
        return not self.result.differences

    def _wrong_outline(self, op: Operator, expected: Operator) -> str:
        ours, theirs = self.flatbuffer, self.reference
        if plain(op.options) != plain(expected.options):
            return f"has the options {plain(op.options)}, but {plain(expected.options)}"
        for tensor, meant in zip(op.outputs, expected.outputs, strict=True):
            if ours.shape(tensor) != theirs.shape(meant):
                return f"writes shape {ours.shape(tensor)}, but {theirs.shape(meant)}"
            kinds = ours.dtype(tensor), theirs.dtype(meant)
            if kinds[0] != kinds[1] and (kinds != ("int8", "float32") or op.custom):
                return f"writes {kinds[0]}, but {kinds[1]}"
        if len(op.inputs) != len(expected.inputs):
            return f"has {len(op.inputs)} inputs, but {len(expected.inputs)}"
        for position, (tensor, meant) in enumerate(zip(op.inputs, expected.inputs, strict=True)):
            if meant < 0 or not theirs.is_computed(meant):
                if ours.is_computed(tensor) or (tensor < 0) != (meant < 0):
                    return f"computes its input {position}, which is constant"
            elif self.means.get(tensor) != meant:
                return f"reads {ours.name(tensor)!r} as its input {position}, but {theirs.name(meant)!r}"
        return ""

    def in_file(self, difference: Difference) -> Difference:
        """A difference of the float file, at the same operator of this one."""
        known = {expected.index: op.index for op, expected in self.operators}
        return replace(difference, operator=known.get(difference.operator, difference.operator))

    def _layer(self, op: Operator) -> str:
        """The Keras layer of an operator of the float file, or the name of its output."""
        if (known := self.convolutions.get(op.index)) is not None:
            return known
        # Where a normalization was fused with it, a convolution has the name of that, but its weights have its own.
        weights = op.inputs[1:2] if op.name in PRODUCTS else ()
        names = [self.reference.name(t) for t in (*weights, *op.outputs)]
        for name in names:
            for part in name.split(";"):
                if part in self._nodes:
                    return self._graph.layer_of(self._nodes[part])
        return names[-1].split(";")[0]

    @functools.cached_property
    def _nodes(self) -> dict[str, tf.Operation]:
        return {node.name: node for node in self._graph.nodes}

    @functools.cached_property
    def layers(self) -> dict[int, str]:
        """The layers of the file's operators, by their index."""
        found = {op.index: self._layer(expected) for op, expected in self.operators}
        return found | {op.index: self._layer_at(self.means[op.outputs[0]]) for op in self.passes}

    def _layer_at(self, tensor: int) -> str:
        op = self.reference.producers.get(tensor)
        return self.reference.name(tensor) if op is None else self._layer(op)

    def differ(self, stage: str, op: Operator, message: str, image: int | None = None) -> None:
        """Adds a difference at an operator of the file."""
        self.result.differ(stage, self.layers[op.index], op.index, message, image)

    def at(self, tensor: int) -> Operator:
        """The operator that writes a tensor, or the first that reads it."""
        return self.flatbuffer.producers.get(tensor) or self.flatbuffer.consumers[tensor][0]

    def name(self, tensor: int) -> str:
        """The name of a tensor in the float file."""
        return self.reference.name(self.means[tensor])

    def label(self, tensor: int) -> str:
        """The same in short."""
        return self.name(tensor).split(";")[0]

    def range(self, tensor: int) -> tuple[float, float, float]:
        """The step of a tensor of integers, and the real numbers of its smallest and largest one."""
        step, zero = quantized.quantization(self.flatbuffer, tensor) or (0.0, 0)
        info = np.iinfo(self.flatbuffer.dtype(tensor))
        return step, step * (info.min - zero), step * (info.max - zero)

    def seen(self, tensor: int) -> tuple[float, float] | None:
        """The smallest and largest value in calibration, and 0, as far as the file records them."""
        found = self.flatbuffer.subgraph.tensors[tensor].quantization
        if any(end is None or len(end) != 1 or not np.isfinite(end[0]) for end in (found.min, found.max)):
            return None
        return min(float(found.min[0]), 0.0), max(float(found.max[0]), 0.0)
