"""Chooses the operators of a file that are worth computing in int8.

An island is a set of connected operators in int8. Around it QUANTIZE and DEQUANTIZE pass over all values of a tensor,
so an island is worth it only if its operators save more. `choose` looks for the least time, in nanoseconds:

| operator | float | int8 |
|---|---|---|
| convolution, dense layer: for each multiply-accumulate | 0.018 | 0.0046 |
| at least, for each weight | 0.07 | 0.014 |
| and for each value of the output | 0.15 | 0.10 |
| grouped convolution: for each multiply-accumulate | 0.05 | 0.17 |
| depthwise convolution: for each multiply-accumulate | 0.055 | 0.055 |
| other operators: for each value | `_VALUES` | |
| QUANTIZE, DEQUANTIZE: for each value, and 100 each | | 0.06, 0.05 |

A convolution computes 16 output channels, and in int8 8 input channels, at a time, or a part of them in the same time.
Each byte of the file counts a nanosecond too, as a cold start reads it. The figures are XNNPACK's on x86-64 with
AVX-512, one thread (docs/benchmarks.md), those of grouped convolutions from the slowest processor measured: there int8
is slower on most.

Operators that only move or pool values may open and close an island. Those that compute value by value join only if
all that they read and all that read them is in int8: what is added to a residual stream, and the stream itself, stay
float, and so do what leads to a sign and the factors and shifts of a batch normalization.
"""

from __future__ import annotations

import math
from collections.abc import Set
from dataclasses import dataclass

import numpy as np

from larq_rep.converters.flatbuffer import Flatbuffer, Operator
from larq_rep.converters.float_weights import OUTPUT_CHANNELS

# The versions of TFLite's operators that compute in int8.
PRODUCTS = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4, "TRANSPOSE_CONV": 3}
# Their outputs have the scale of their inputs.
SAME_SCALE = {
    "MAX_POOL_2D": 2,
    "AVERAGE_POOL_2D": 2,
    "RESHAPE": 1,
    "SQUEEZE": 1,
    "PAD": 2,
    "TRANSPOSE": 2,
    "STRIDED_SLICE": 2,
    "SPACE_TO_DEPTH": 2,
    "DEPTH_TO_SPACE": 1,
    "CONCATENATION": 2,
}
OWN_SCALE = {"MEAN": 2, "ADD": 2, "SUB": 2, "MUL": 2, "RELU": 2, "RELU6": 2, "LEAKY_RELU": 2, "HARD_SWISH": 1}
# Scale and zero point are those of TFLite's specification.
FIXED_SCALE = {"LOGISTIC": (2, 1 / 256, -128), "TANH": (2, 1 / 128, 0), "SOFTMAX": (2, 1 / 256, -128)}
VERSIONS = PRODUCTS | SAME_SCALE | OWN_SCALE | {name: version for name, (version, _, _) in FIXED_SCALE.items()}
_INSIDE = {"CONCATENATION", *OWN_SCALE, *FIXED_SCALE} - {"MEAN"}

# Nanoseconds in float and in int8: for each multiply-accumulate, weight, value of a convolution's output, and value of
# the largest tensor of another operator. int8 has no fast kernel for average pools and activations of their own.
_MACS = {"dense": (0.018, 0.0046), "grouped": (0.05, 0.17), "DEPTHWISE_CONV_2D": (0.055, 0.055)}
_WEIGHT = (0.07, 0.014)
_OUTPUT = (0.15, 0.10)
_MOVED = (0.10, 0.03)
_VALUES = {
    "MAX_POOL_2D": (0.17, 0.04),
    "AVERAGE_POOL_2D": (0.08, 0.91),
    "MEAN": (0.05, 0.03),
    "ADD": (0.13, 0.16),
    "SUB": (0.13, 0.16),
    "MUL": (0.13, 0.22),
    "PAD": (0.2, 0.16),
    "LOGISTIC": (0.2, 0.1),
    "TANH": (0.2, 0.1),
    "LEAKY_RELU": (0.13, 0.16),
    "RELU": (0.1, 7.8),
    "RELU6": (0.1, 7.8),
    "HARD_SWISH": (0.2, 7.8),
    "SOFTMAX": (0.7, 2.2),
}
_QUANTIZE, _DEQUANTIZE, _PASS = 0.06, 0.05, 100.0
_BYTE = 1.0


@dataclass(frozen=True)
class Kept:
    """A convolution or dense layer that stays float.

    # Attributes
        operator: Index of the operator in the float file.
        name: Its name.
        tensor: Name of its output.
        reason: Why.
    """

    operator: int
    name: str
    tensor: str
    reason: str

    def __str__(self) -> str:
        return f"{self.tensor}: {self.name} stays float: {self.reason}"


class _Graph:
    """The operators of a file that could be in int8, and what they cost."""

    def __init__(self, flatbuffer: Flatbuffer, noisy: Set[int] = frozenset()):
        self.flatbuffer = flatbuffer
        self.obstacles = {op.index: obstacle(flatbuffer, op) for op in flatbuffer.operators if op.name in VERSIONS}
        self.obstacles |= dict.fromkeys(noisy, "the channels that it reads are too different for one scale")
        self.able = {index for index, reason in self.obstacles.items() if not reason}
        self.costs = {index: _costs(flatbuffer, flatbuffer.operators[index]) for index in self.able}
        self.reads = {index: set(data_inputs(flatbuffer, flatbuffer.operators[index])) for index in self.able}
        self.writes = {index: flatbuffer.operators[index].outputs[0] for index in self.able}
        tensors = {t for index in self.able for t in (*self.reads[index], self.writes[index])}
        self.sizes = {tensor: math.prod(flatbuffer.shape(tensor)) for tensor in tensors}
        self.readers = {t: [op.index for op in flatbuffer.consumers.get(t, [])] for t in tensors}
        # An operator that reads or writes what another one does is its neighbour.
        writers = {tensor: index for index, tensor in self.writes.items()}
        around = {t: self.able & {*self.readers[t], writers.get(t, -1)} for t in tensors}
        self.neighbours = {
            index: set().union(*(around[t] for t in (*self.reads[index], self.writes[index]))) - {index}
            for index in self.able
        }

    def components(self, members: Set[int]) -> list[set[int]]:
        left, found = set(members), []
        while left:
            stack, component = [left.pop()], set[int]()
            while stack:
                index = stack.pop()
                component.add(index)
                near = left & self.neighbours[index]
                left -= near
                stack += near
            found.append(component)
        return found

    def time(self, component: Set[int], chosen: Set[int]) -> float:
        """Time of the component's operators if some are in int8, with the passes around these."""
        total = sum(self.costs[index][index in chosen] for index in component)
        operators, outputs = self.flatbuffer.operators, self.flatbuffer.outputs
        written = {self.writes[index] for index in chosen}
        read = set[int]().union(*(self.reads[index] for index in chosen))
        total += sum(_PASS + _QUANTIZE * self.sizes[tensor] for tensor in read - written)
        for tensor in written:
            others = (r for r in self.readers[tensor] if r not in chosen and operators[r].name != "LceQuantize")
            if tensor in outputs or any(True for _ in others):
                total += _PASS + _DEQUANTIZE * self.sizes[tensor]
        return total

    def closed(self, chosen: Set[int]) -> set[int]:
        """Without the operators that may only be inside an island but are not, and islands that multiply nothing."""
        chosen = set(chosen)
        operators = self.flatbuffer.operators
        while True:
            written = {self.writes[index] for index in chosen}
            outside = {index for index in chosen if not self._may_join(index, chosen, written)}
            if not outside:
                islands = self.components(chosen)
                return set[int]().union(*(i for i in islands if any(operators[op].name in PRODUCTS for op in i)))
            chosen -= outside

    def _may_join(self, index: int, chosen: Set[int], written: Set[int]) -> bool:
        """Whether an operator may be in int8 if the chosen ones are, which write these tensors."""
        name, readers = self.flatbuffer.operators[index].name, self.readers[self.writes[index]]
        if name in FIXED_SCALE and any(self.flatbuffer.operators[r].name in SAME_SCALE for r in chosen & set(readers)):
            return False  # Its output has one scale of its own and one of other tensors.
        return name not in _INSIDE or bool(self.reads[index] <= written and readers and chosen >= set(readers))


def choose(flatbuffer: Flatbuffer, noisy: Set[int] = frozenset()) -> tuple[set[int], list[Kept]]:
    """The operators to compute in int8, and the convolutions and dense layers that stay float, as those of `noisy` do.

    From all operators that int8 has, the ones are taken away, alone or as an island, whose removal saves most time, and
    then those added that save some, until nothing does.
    """
    graph = _Graph(flatbuffer, noisy)
    chosen: set[int] = set()
    reasons = {index: reason for index, reason in graph.obstacles.items() if reason}
    for component in graph.components(graph.able):
        products = {index for index in component if flatbuffer.operators[index].name in PRODUCTS}
        if not products:
            continue
        best = min(
            (_improved(graph, component, start) for start in (component, products, set[int]())),
            key=lambda found: graph.time(component, found),
        )
        chosen |= best
        for index in products - best:
            alone = graph.time(component, best | {index}) - graph.time(component, best)
            reasons[index] = f"int8 would take {alone / 1e3:.2g} us longer, with the passes around it"
    kept = [
        Kept(op.index, op.name, flatbuffer.name(op.outputs[0]).split(";")[0], reasons[op.index])
        for op in flatbuffer.operators
        if op.name in PRODUCTS and op.index not in chosen
    ]
    return chosen, kept


def count(flatbuffer: Flatbuffer, chosen: Set[int]) -> int:
    """The number of islands that operators form."""
    return len(_Graph(flatbuffer).components(chosen))


def _improved(graph: _Graph, component: set[int], start: Set[int]) -> set[int]:
    chosen = graph.closed(start)
    time = graph.time(component, chosen)
    while True:
        moves = [chosen - island for island in graph.components(chosen)]
        moves += [chosen ^ {index} for index in component]
        tried = [(graph.time(component, move), move) for move in map(graph.closed, moves)]
        least, best = min(tried, key=lambda each: each[0], default=(time, chosen))
        if not least < time * (1 - 1e-9):
            return chosen
        chosen, time = best, least


def data_inputs(flatbuffer: Flatbuffer, op: Operator) -> list[int]:
    """The inputs of an operator that are computed."""
    return [t for t in op.inputs if t >= 0 and flatbuffer.constant(t) is None and not _stored(flatbuffer, t)]


def _stored(flatbuffer: Flatbuffer, tensor: int) -> bool:
    op = flatbuffer.producers.get(tensor)
    return op is not None and op.name == "DEQUANTIZE" and flatbuffer.constant(op.inputs[0]) is not None


def obstacle(flatbuffer: Flatbuffer, op: Operator) -> str:
    """Why an operator cannot be in int8; empty if it can."""
    if flatbuffer.dtype(op.outputs[0]) != "float32" or len(op.outputs) != 1:
        return "its output is not float32"
    data = data_inputs(flatbuffer, op)
    if not data or any(flatbuffer.dtype(t) != "float32" for t in data):
        return "its input is not float32"
    if math.prod(flatbuffer.shape(op.outputs[0])) == 0 or any(math.prod(flatbuffer.shape(t)) == 0 for t in data):
        return "it has no values"
    if op.name in PRODUCTS:
        weights = flatbuffer.constant(op.inputs[1])
        if weights is None or weights.dtype != np.float32 or op.inputs[1] in flatbuffer.producers:
            return "its weights are computed"
        has_bias = len(op.inputs) > _bias_at(op) and op.inputs[_bias_at(op)] >= 0
        if has_bias and flatbuffer.constant(op.inputs[_bias_at(op)]) is None:
            return "its bias is computed"
    elif op.name in ("ADD", "SUB", "MUL") and len(data) < 2:
        # The numbers of its channels, often those of a batch normalization, would share one scale.
        return "its operand is constant"
    if getattr(op.options, "fusedActivationFunction", 0) not in (0, 1, 2, 3):
        return "int8 has not its activation"
    return ""


def _bias_at(op: Operator) -> int:
    return 3 if op.name == "TRANSPOSE_CONV" else 2


def _costs(flatbuffer: Flatbuffer, op: Operator) -> tuple[float, float]:
    """Time in float and in int8."""
    data, output = data_inputs(flatbuffer, op), flatbuffer.shape(op.outputs[0])
    values = max(math.prod(shape) for shape in (*map(flatbuffer.shape, data), output))
    if op.name not in PRODUCTS:
        each = _VALUES.get(op.name, _MOVED)
        return values * each[0], values * each[1]
    weights = flatbuffer.shape(op.inputs[1])
    size, channels, inner = math.prod(weights), weights[OUTPUT_CHANNELS[op.name]], weights[-1]
    source = flatbuffer.shape(data[0])
    macs = math.prod(source) * size // inner if op.name == "TRANSPOSE_CONV" else math.prod(output) * size // channels
    if op.name == "DEPTHWISE_CONV_2D":
        float_time, int8_time = (macs * each for each in _MACS[op.name])
    elif op.name == "CONV_2D" and inner != source[-1]:
        float_time, int8_time = (macs * each for each in _MACS["grouped"])
    else:
        macs = macs * _up(channels, 16) // channels
        float_time = max(_MACS["dense"][0] * macs, _WEIGHT[0] * size)
        int8_time = max(_MACS["dense"][1] * macs * _up(inner, 8) / inner, _WEIGHT[1] * size)
    outputs = math.prod(output)
    return (
        float_time + outputs * _OUTPUT[0] + size * 4 * _BYTE,
        int8_time + outputs * _OUTPUT[1] + size * _BYTE,
    )


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
