"""Runs the model with the bits and integers that the file has computed."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from larq_rep.converters import matching, quantized
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.converters.graph import FrozenGraph
from larq_rep.converters.verification.weights import Convolutions


@dataclass(frozen=True)
class ForcedRun:
    """Values of one run of a `ForcedModel`.

    # Attributes
        fronts: The values in front of each sign, by the name of the sign's output.
        values: The values of other tensors, by their names.
    """

    fronts: dict[str, np.ndarray]
    values: dict[str, np.ndarray]


class ForcedModel:
    """The model, with the file's bits for the output of every sign, so that no difference spreads behind one.

    Where the model rounds (fake quantization) and the file holds the integers, it continues with their values.

    # Attributes
        graph, flatbuffer: The model and the file.
        signs: The signs of the model, by the name of their output.
        bits: The packed tensor of the file for each of these, as far as it is known.
        fake: The nodes of the model that round, by the name of their output.
        stored: The tensor of integers of the file for each of these, as far as it is known.
    """

    def __init__(self, graph: FrozenGraph, flatbuffer: Flatbuffer, convolutions: Convolutions):
        self.graph, self.flatbuffer = graph, flatbuffer
        self.signs = {sign.output.name: sign for sign in graph.signs}
        self.bits: dict[str, int] = {}
        self.fake = {node.outputs[0].name: node for node in quantized.fake_quantizers(graph)}
        self.stored: dict[str, int] = {}
        # Sums of thousands of ±s round by more than is allowed; sums of ±1 are exact, and s multiplies them.
        self._exact = [
            (site, np.where(kernel < 0, -1, 1).astype(kernel.dtype), scale)
            for site, kernel in zip(convolutions.sites, convolutions.kernels, strict=True)
            if graph.sign_of(site.x) is not None and (scale := _scale(kernel)) is not None
        ]

    def run(
        self, inputs: Sequence[np.ndarray], values: dict[int, np.ndarray], wanted: Sequence[tf.Tensor] = ()
    ) -> ForcedRun:
        """Runs the model.

        # Arguments
            inputs: Its inputs.
            values: Tensors of the file, as LCE's interpreter computes them.
            wanted: Tensors to return besides those in front of each sign.
        """
        feeds: dict[tf.Tensor, np.ndarray] = dict(zip(self.graph.inputs, inputs, strict=True))
        for name, tensor in self.stored.items():
            output = self.fake[name].outputs[0]
            feeds[output] = quantized.real(self.flatbuffer, tensor, values[tensor]).reshape(output.shape)
        for name, tensor in self.bits.items():
            output = self.signs[name].output
            feeds[output] = matching.unpack(values[tensor], output.shape[-1]).astype(output.dtype.as_numpy_dtype)
        plain = {site.kernel: signs for site, signs, _ in self._exact}
        sums = self.graph.run([site.node.outputs[0] for site, _, _ in self._exact], {**feeds, **plain})
        for (site, _, scale), y in zip(self._exact, sums, strict=True):
            feeds[site.node.outputs[0]] = y * scale
        signs = [self.signs[name] for name in self.bits]
        thresholds = [sign.threshold for sign in signs if sign.threshold is not None]
        fetches = [*(sign.compared for sign in signs), *thresholds, *wanted]
        fetched = dict(zip((x.name for x in fetches), self.graph.run(fetches, feeds), strict=True))
        fronts = {}
        for sign in signs:
            threshold = np.float32(0) if sign.threshold is None else fetched[sign.threshold.name]
            value = fetched[sign.compared.name] - threshold
            fronts[sign.output.name] = -value if sign.negated else value
        return ForcedRun(fronts, {x.name: fetched[x.name] for x in wanted})

    def behind(self, tensor: tf.Tensor, stop: Set[str] = frozenset()) -> list[tf.Operation]:
        """The nodes that compute a tensor, back to those that the file's values replace or `stop` names."""
        signs = {self.signs[name].output.op.name for name in self.bits}
        stop = stop | {self.fake[name].name for name in self.stored}
        found: dict[str, tf.Operation] = {}
        stack = [tensor.op]
        while stack:
            node = stack.pop()
            if node.name in found or node.name in signs or node.name not in self.graph.data_dependent:
                continue
            if node.name in stop and found:
                continue
            found[node.name] = node
            stack += [x.op for x in node.inputs]
        return list(found.values())


def _scale(kernel: np.ndarray) -> np.ndarray | None:
    """The magnitude of each output channel's weights, if they have one."""
    magnitude = np.abs(kernel)
    scale = magnitude[0, 0, 0]
    return scale if np.all(np.abs(magnitude - scale) <= 1e-6 * scale) else None
