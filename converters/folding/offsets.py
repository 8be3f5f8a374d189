"""Finds additions of channel constants that the graph can do without, and the constants that replace them.

Every float tensor `t` of the file may hold `t - o` instead, with an offset `o` for each channel (the last axis).
Most operators only carry offsets on:

| operator | offset of the output |
|---|---|
| `ADD`, `SUB` of two tensors | sum, difference |
| `ADD`, `SUB` of a constant `c`, left out | `o + c`, `o - c` |
| `MUL` by a constant `c` | `c * o` |
| pooling, `MEAN` over rows and columns, `TILE`, `CONCATENATION`, ... | the offsets of its channels, in the new order |
| `LceBconv2d`, `CONV_2D`, `DEPTHWISE_CONV_2D`, `FULLY_CONNECTED` | anything: their bias takes it away |
| the others, `PRELU` and `LceQuantize` among them | none, and their input must have none |

So a plan leaves additions of constants out, gives an unknown offset to each output channel of the convolutions, and
solves for those that make the offset vanish where it must. Where none does, one addition is inserted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from larq_rep.converters.flatbuffer import Operator
from larq_rep.converters.folding.channels import ChannelGraph, close

# An offset is divided by the multiplications behind the convolution that takes it: beyond these, rounding grows.
_SMALLEST_FACTOR, _LARGEST_FACTOR = 2.0**-6, 2.0**6
# The sizes of maps decide; this is the fixed cost of any operator.
_OPERATOR_COST = 256


@dataclass(frozen=True)
class _Offset:
    """`constant + sum(factors * unknowns[ids])` for each channel; the unknown 0 is the number 0."""

    constant: np.ndarray
    ids: np.ndarray
    factors: np.ndarray

    @classmethod
    def unknown(cls, first: int, width: int) -> _Offset:
        return cls(np.zeros(width), np.arange(first, first + width)[None], np.ones((1, width)))

    @classmethod
    def none(cls, width: int) -> _Offset:
        return cls(np.zeros(width), np.zeros((0, width), int), np.zeros((0, width)))

    def __add__(self, other: _Offset) -> _Offset:
        constant = self.constant + other.constant
        ids, factors = np.concatenate([self.ids, other.ids]), np.concatenate([self.factors, other.factors])
        rows: dict[bytes, list[int]] = {}
        for index, row in enumerate(ids):
            rows.setdefault(row.tobytes(), []).append(index)
        if len(rows) < len(ids):  # otherwise the terms of sums of sums double each time
            factors = np.array([factors[alike].sum(axis=0) for alike in rows.values()])
            ids = ids[[alike[0] for alike in rows.values()]]
        return _Offset(constant, ids, factors)

    def plus(self, constant: np.ndarray) -> _Offset:
        return _Offset(self.constant + constant, self.ids, self.factors)

    def times(self, factor: np.ndarray | float) -> _Offset:
        return _Offset(self.constant * factor, self.ids, self.factors * factor)

    def at(self, channels: np.ndarray) -> _Offset:
        outside = channels < 0
        return _Offset(
            np.where(outside, 0, self.constant[channels]),
            np.where(outside, 0, self.ids[:, channels]),
            self.factors[:, channels],
        )

    @classmethod
    def concatenate(cls, offsets: list[_Offset]) -> _Offset:
        constant = np.concatenate([offset.constant for offset in offsets])
        shape = max(len(offset.ids) for offset in offsets), len(constant)
        result, end = cls(constant, np.zeros(shape, int), np.zeros(shape)), 0
        for offset in offsets:
            terms, begin = len(offset.ids), end
            end += len(offset.constant)
            result.ids[:terms, begin:end], result.factors[:terms, begin:end] = offset.ids, offset.factors
        return result


@dataclass
class _Demand:
    """An operator input whose offset must vanish; otherwise it is added back in front of the operator."""

    op: Operator
    position: int
    offset: _Offset
    met: bool | None = None


@dataclass
class Plan:
    """The additions of constants to leave out, and the new values of the others and of the biases.

    # Attributes
        left_out: Indices of the operators that are left out.
        cost: Elements that the remaining additions of constants write, plus the fixed cost of the operators.
        offsets: The offset of each tensor that has one.
        added: The constants added in front of inputs, by operator and position of the input.
    """

    left_out: frozenset[int]
    cost: float = 0.0
    offsets: dict[int, np.ndarray] = field(default_factory=dict)
    added: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)


def best_plan(graph: ChannelGraph) -> Plan | None:
    """The cheapest plan found; `None` if the file is already as good."""
    whole, present = Plan(frozenset()), 0.0
    for operators in _parts(graph):
        added = [op for op in operators if graph.adds_constant(op)]
        candidates = [op.index for op in added if graph.plain(op)]
        best = make_plan(graph, frozenset(candidates), operators)
        for index in candidates if best.cost else ():
            # Leaving one addition out may require several behind it, or one on a larger map.
            plan = make_plan(graph, best.left_out - {index}, operators)
            if plan.cost < best.cost:
                best = plan
        whole = Plan(
            whole.left_out | best.left_out,
            whole.cost + best.cost,
            whole.offsets | best.offsets,
            whole.added | best.added,
        )
        present += sum(_cost(graph, op.outputs[0]) for op in added)
    return whole if whole.cost < present else None


def _parts(graph: ChannelGraph) -> list[list[Operator]]:
    """The operators that read or write each set of tensors among which offsets are carried on.

    An offset never leaves its set, so each part of the file has a plan of its own. Sets without an addition of a
    constant are left out.
    """
    sets: dict[int, set[int]] = {}
    for op in graph.flatbuffer.operators:
        moves = any(channels is not None for channels in graph.maps[op.index])
        if moves or op.index in graph.vectors or op.name in ("ADD", "SUB", "CONCATENATION"):
            joined = {t for t in (*op.inputs, *op.outputs) if graph.flatbuffer.is_computed(t)}
            joined = joined.union(*(sets[t] for t in joined if t in sets))
            sets |= dict.fromkeys(joined, joined)
    added = {op.outputs[0] for op in graph.flatbuffer.operators if graph.adds_constant(op)}
    parts: dict[int, list[Operator]] = {id(sets[tensor]): [] for tensor in added}
    for op in graph.flatbuffer.operators:
        for part in {id(sets[t]) for t in (*op.inputs, *op.outputs) if t in sets} & parts.keys():
            parts[part].append(op)
    return list(parts.values())


def _cost(graph: ChannelGraph, tensor: int) -> float:
    return graph.elements(tensor) + _OPERATOR_COST


def make_plan(graph: ChannelGraph, left_out: frozenset[int], operators: list[Operator]) -> Plan:
    """The plan for some operators that leaves out the given additions of constants."""
    offsets, demands, unknowns = _propagate(graph, left_out, operators)
    values = _solve(demands, unknowns)
    plan = Plan(left_out)
    for tensor, offset in offsets.items():
        value = _evaluate(offset, values)
        if value.any():
            plan.offsets[tensor] = value
    inserted = set()
    roots = {op.outputs[0]: data_of(graph, op) for op in operators if op.index in left_out}
    for demand in demands:
        value = _evaluate(demand.offset, values)
        if not demand.met and value.any():
            plan.added[demand.op.index, demand.position] = value
            root = demand.op.inputs[demand.position]
            while root in roots:
                root = roots[root]
            inserted.add((root, value.astype(np.float32).tobytes()))
    plan.cost = sum(_cost(graph, root) for root, _ in inserted)
    for op in operators:
        if graph.adds_constant(op) and op.index not in left_out:
            needless = graph.plain(op) and not new_constant(graph, plan, op).any()
            plan.cost += 0 if needless else _cost(graph, op.outputs[0])
    return plan


def data_of(graph: ChannelGraph, op: Operator) -> int:
    """The tensor that an operator with a constant of each channel is applied to."""
    vector = graph.vectors[op.index]
    return op.inputs[vector[0]]


def new_constant(graph: ChannelGraph, plan: Plan, op: Operator) -> np.ndarray:
    """The constant that a remaining addition must add, as float32."""
    vector = graph.vectors[op.index]
    change = plan.offsets.get(op.inputs[vector[0]], 0) - plan.offsets.get(op.outputs[0], 0)
    result = vector[1] - change if op.name == "SUB" else vector[1] + change
    return result.astype(np.float32)


def _propagate(
    graph: ChannelGraph, left_out: frozenset[int], operators: list[Operator]
) -> tuple[dict[int, _Offset], list[_Demand], int]:
    """The offset of each tensor, where it must vanish, and the number of unknowns."""
    offsets: dict[int, _Offset] = {}
    demands: list[_Demand] = []
    unknowns = 1

    def of(tensor: int) -> _Offset:
        return offsets.get(tensor) or _Offset.none(graph.width(tensor))

    def require(op: Operator) -> None:
        demands.extend(_Demand(op, i, offsets[t]) for i, t in enumerate(op.inputs) if t in offsets)

    for op in operators:
        output, vector, plain = op.outputs[0], graph.vectors.get(op.index), graph.plain(op)
        channels = [c for c in graph.maps[op.index] if c is not None]
        takes_any = graph.adds_constant(op) and op.index not in left_out
        if graph.bias(op) is not None:
            takes_any = True
            if op.index not in graph.unpadded:
                require(op)
        if takes_any:
            if plain:
                offsets[output] = _Offset.unknown(unknowns, graph.width(output))
                unknowns += graph.width(output)
        elif vector is not None and plain:
            offset = of(op.inputs[vector[0]])
            offsets[output] = offset.times(vector[1]) if op.name == "MUL" else offset.plus(_sign(op) * vector[1])
        elif op.name in ("ADD", "SUB") and graph.same_width(op):
            offset = of(op.inputs[0]) + of(op.inputs[1]).times(_sign(op))
            if plain:
                offsets[output] = offset
            else:
                demands.append(_Demand(op, 0, offset))
        elif plain and op.name == "CONCATENATION" and op.options.axis in (-1, len(graph.flatbuffer.shape(output)) - 1):
            offsets[output] = _Offset.concatenate([of(t) for t in op.inputs])
        elif plain and len(channels) == len(op.outputs):
            source = op.inputs[1] if op.name == "SPLIT" else op.inputs[0]
            offsets.update({t: of(source).at(c) for t, c in zip(op.outputs, channels, strict=True)})
        else:
            require(op)
    return offsets, demands, unknowns


def _sign(op: Operator) -> float:
    return -1.0 if op.name == "SUB" else 1.0


def _solve(demands: list[_Demand], unknowns: int) -> np.ndarray:
    """Values of the unknowns that meet the demands where that is possible, in the order of execution."""
    values, fixed = np.zeros(unknowns), np.zeros(unknowns, bool)
    fixed[0] = True
    pending = demands
    while pending:
        for demand in pending:
            demand.met = _meet(demand, values, fixed)
        waiting = [demand for demand in pending if demand.met is None]
        if len(waiting) == len(pending):
            # Each of them leaves a choice: the convolution nearest to the first takes the offset. The others are fixed
            # here, so this ends.
            fixed[waiting[0].offset.ids[_choice(waiting[0].offset, fixed)[1]]] = True
        pending = waiting
    return values


def _choice(offset: _Offset, fixed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The last free unknown of each channel, 0 if there is none, and which terms hold other free ones."""
    free = ~fixed[offset.ids]
    last = np.where(free, offset.ids, 0).max(axis=0, initial=0)
    return last, free & (offset.ids != last)


def _meet(demand: _Demand, values: np.ndarray, fixed: np.ndarray) -> bool | None:
    """Fixes the unknowns of a demand to meet it; returns whether that worked, `None` while there is a choice."""
    offset = demand.offset
    ids, others = _choice(offset, fixed)
    choice = others.any(axis=0)
    terms = offset.factors * values[offset.ids]
    rest = offset.constant + terms.sum(axis=0)
    rest[np.abs(rest) <= 1e-9 * (np.abs(offset.constant) + np.abs(terms).sum(axis=0))] = 0
    factor = np.where(fixed[offset.ids], 0, offset.factors).sum(axis=0)
    far = (np.abs(factor) < _SMALLEST_FACTOR) | (np.abs(factor) > _LARGEST_FACTOR)
    if np.any((rest != 0) & ~choice & ((ids == 0) | far)):
        return False
    if choice.any():
        return None
    single = (ids > 0) & (factor != 0)  # x - x lets x have any offset
    ids, wanted = ids[single], np.where(rest == 0, 0.0, -rest / np.where(far, 1, factor))[single]
    values[ids] = wanted
    if not close(values[ids], wanted):  # copies of one channel want different offsets
        values[ids] = 0
        return False
    fixed[ids] = True
    return True


def _evaluate(offset: _Offset, values: np.ndarray) -> np.ndarray:
    return offset.constant + (offset.factors * values[offset.ids]).sum(axis=0)
