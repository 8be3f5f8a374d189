"""Measures how far the values of a file move if its sums round differently."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence

import numpy as np
from larq_compute_engine.mlir.python import tflite_schema as schema

from larq_rep.converters import lce, quantized
from larq_rep.converters.flatbuffer import Flatbuffer, Operator
from larq_rep.converters.verification.rounding import front_tensors

# These round the same way in every engine: single products and sums, and copies. Convolutions and means do not.
_EXACT = {"ADD", "SUB", "MUL", "PRELU", "RELU", "RELU6", "RELU_N1_TO_1", "TILE", "CONCATENATION", "FILL"}
_MEANS = {"AVERAGE_POOL_2D", "MEAN", "SUM"}
_WEIGHTED = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"}
# One unit in the last place of float32: twice what rounding a number to nearest may cost.
_ERROR = 2.0**-23
_DRAWS = 4


class Amplification:
    """Adds random errors of the size of rounding to all results of real-valued operators of a file at once.

    No bound on magnitudes explains the rounding behind a gate, a softmax or a division: squeeze-and-excite layers
    multiply the rounding of a mean by large weights, and then by large values. Correct engines differ by no more than
    what comes out here, and a wrong constant by more, unless it is as small as rounding. The bits of all signs stay
    those of LCE's interpreter.

    # Arguments
        flatbuffer: The file.
    """

    def __init__(self, flatbuffer: Flatbuffer):
        self._flatbuffer = flatbuffer
        writes = [(op, t) for op in flatbuffer.operators for t in op.outputs if t not in flatbuffer.inputs]
        self._bits = [t for op, t in writes if op.name.startswith("Lce") and flatbuffer.dtype(t) == "int32"]
        self._sums = [
            op for op, t in writes if not is_exact(flatbuffer, op) and flatbuffer.dtype(t) == "float32" and op.inputs
        ]
        # What is compared: the values in front of each sign, and the outputs.
        fronts = [t for bits in self._bits for t in front_tensors(flatbuffer, bits)]
        results = {*fronts, *(op.outputs[0] for op in self._sums), *flatbuffer.outputs} & flatbuffer.producers.keys()
        self._results = sorted(t for t in results if flatbuffer.dtype(t) == "float32")
        self._last: tuple[Sequence[np.ndarray], dict[int, np.ndarray]] | None = None

    def moved(self, inputs: Sequence[np.ndarray]) -> dict[int, np.ndarray]:
        """The largest change in each channel of every real-valued tensor that is compared.

        # Arguments
            inputs: The inputs as the file takes them.
        """
        if self._last is None or self._last[0] is not inputs:
            self._last = inputs, self._measured(inputs)
        return self._last[1]

    def _measured(self, inputs: Sequence[np.ndarray]) -> dict[int, np.ndarray]:
        exact, disturbed = self._interpreters
        watched = dict(zip(self._watched, exact.predict(list(inputs)), strict=True))
        values = watched | dict(zip(self._flatbuffer.inputs, inputs, strict=True))
        bits, sizes = [values[t] for t in self._bits], [self._size(op, values) for op in self._sums]
        rng, found = np.random.default_rng(0), []
        for error in (0.0, *[_ERROR] * _DRAWS):
            errors = [
                (error * size * rng.choice((-1.0, 1.0), self._flatbuffer.shape(op.outputs[0]))).astype(np.float32)
                for op, size in zip(self._sums, sizes, strict=True)
            ]
            found.append(disturbed.predict([*inputs, *bits, *errors]))
        moved = {}
        for i, tensor in enumerate(self._results):
            change = np.abs(np.stack([run[i] for run in found[1:]]).astype(np.float64) - found[0][i])
            # An overflow explains nothing.
            change = np.nan_to_num(change, nan=0, posinf=0)
            moved[tensor] = change.max(axis=tuple(range(max(change.ndim - 1, 1))), initial=0)
        return moved

    def _size(self, op: Operator, values: dict[int, np.ndarray]) -> float:
        """Where an operator adds n numbers one after the other: about the error of the sum, divided by that of one."""
        result = values[op.outputs[0]]
        largest = float(np.abs(result).max(initial=0))
        if op.name not in _WEIGHTED | _MEANS:
            return max([largest, *(float(np.abs(values[t]).max(initial=0)) for t in self._data(op))])
        x = np.square(values[self._data(op)[0]], dtype=np.float64)
        weights = self._flatbuffer.constant(op.inputs[1]) if op.name in _WEIGHTED else None
        if weights is None:
            count = x.size / max(result.size, 1)
            return np.sqrt(x.mean()) * (count if op.name == "SUM" else 1) + np.sqrt(count) * largest
        rows = weights.reshape(-1, weights.shape[-1]).T if op.name == "DEPTHWISE_CONV_2D" else weights
        rows = rows.reshape(len(rows), -1)
        return float(np.sqrt(x.mean() * rows.shape[1] * np.square(rows).sum(axis=1).max(initial=0)))

    def _data(self, op: Operator) -> list[int]:
        """The real-valued inputs of an operator that are computed."""
        computed = {*self._flatbuffer.inputs, *self._flatbuffer.producers}
        return [t for t in op.inputs if t in computed and self._flatbuffer.dtype(t) == "float32"]

    @functools.cached_property
    def _watched(self) -> list[int]:
        watched = {*self._bits, *(t for op in self._sums for t in (*self._data(op), op.outputs[0]))}
        return sorted(watched - {*self._flatbuffer.inputs})

    @functools.cached_property
    def _interpreters(self) -> tuple[lce.Interpreter, lce.Interpreter]:
        """The file with other outputs; and the same with its bits and the errors of its sums as inputs."""
        exact = lce.any_interpreter(self._flatbuffer.with_outputs(self._watched))
        disturbed = copy.deepcopy(self._flatbuffer)
        graph, errors, written = disturbed.subgraph, [], []
        added = disturbed.operator_code(schema.BuiltinOperator.ADD, 1)
        sums = {op.index for op in self._sums}
        for index, operator in enumerate(graph.operators):
            if not {*map(int, operator.outputs)}.isdisjoint(self._bits):
                continue
            written.append(operator)
            if index in sums:
                result = int(operator.outputs[0])
                plain, error = disturbed.add_tensor(result, "/exact"), disturbed.add_tensor(result, "/error")
                operator.outputs = np.array([plain, *operator.outputs[1:]], np.int32)
                total = schema.OperatorT()
                total.opcodeIndex, total.outputs = added, np.array([result], np.int32)
                total.inputs = np.array([plain, error], np.int32)
                total.builtinOptionsType, total.builtinOptions = schema.BuiltinOptions.AddOptions, schema.AddOptionsT()
                written.append(total)
                errors.append(error)
        graph.operators, graph.inputs = written, np.array([*disturbed.inputs, *self._bits, *errors], np.int32)
        return exact.interpreter, lce.any_interpreter(disturbed.with_outputs(self._results)).interpreter


def is_exact(flatbuffer: Flatbuffer, op: Operator) -> bool:
    """Whether an operator has only one right result; each engine rounds 8-bit results as it likes."""
    if op.name.startswith("Lce"):
        return True
    return op.name in _EXACT and quantized.quantization(flatbuffer, op.outputs[0]) is None
