"""Folds constants of each channel into the convolutions of a converted model."""

from __future__ import annotations

import collections
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from larq_compute_engine.mlir.python import tflite_schema as schema

from larq_rep.converters.flatbuffer import Flatbuffer, InvalidFlatbufferError, Operator
from larq_rep.converters.folding import offsets, scales
from larq_rep.converters.folding.channels import CONVOLUTIONS, ChannelGraph


@dataclass(frozen=True)
class FoldingReport:
    """The result of `fold`.

    # Attributes
        size_before: Bytes of the file as it was.
        size_after: Bytes of the folded file.
        operators_before: Count of each operator, the most frequent first.
        operators_after: The same for the folded file.
    """

    size_before: int
    size_after: int
    operators_before: dict[str, int]
    operators_after: dict[str, int]

    @property
    def folded_away(self) -> int:
        """How many fewer operators the folded file has."""
        return sum(self.operators_before.values()) - sum(self.operators_after.values())

    def to_dict(self) -> dict[str, Any]:
        """Everything, in types that JSON knows."""
        return asdict(self) | {"folded_away": self.folded_away}


def fold(content: bytes, *, int8: bool = False) -> tuple[bytes, FoldingReport]:
    """Moves additions and multiplications of constants into the convolutions of a file.

    A constant for each channel commutes with the operators between it and a convolution: `(x + c) + y = (x + y) + c`
    at a shortcut, `pool(x + c) = pool(x) + c`, `concat(x, y + c) = concat(x, y) + (0, c)`. So most can be taken
    over by the bias of a binary or real-valued convolution before them, by the bias of the convolution or dense layer
    behind, or by the one addition that a sign or PReLU needs in front of it; `folding.offsets` has the rules. Likewise
    for factors (`folding.scales`), where a sign ignores positive ones; and clipping to [-1, 1] goes where only signs
    see it. The filter of a binary convolution whose weights all have one sign, which LCE's converter writes as a FILL
    operator, is stored. What would gain nothing stays as it is, as do weights that the file stores in a smaller type.

    The outputs stay equal up to float32 rounding. As ever, a binary activation within rounding of zero may flip, after
    which the two files differ as two runtimes do; in untrained networks, where sums of signs are often exactly 0,
    that is common. A folded file folds to itself.

    !!! example
        ```python
        content = larq_compute_engine.convert_keras_model(model)
        folded, report = larq_rep.converters.fold(content)
        ```

    # Arguments
        content: The bytes of a `.tflite` file, of this package or of LCE's converter.
        int8: Prepare the file for `quantize`: factors of channels that differ by more than four times stay in front of
            a real-valued convolution or dense layer. Inside its weights they would cost int8 the smaller channels.

    # Returns
        The bytes of the folded file, the same ones if there is nothing to gain, and a `FoldingReport`.

    # Raises
        InvalidFlatbufferError: If `content` is not a TFLite model.
    """
    flatbuffer = Flatbuffer(content)
    before = _counts(flatbuffer)
    try:
        result = flatbuffer.pack() if fold_in_place(flatbuffer, int8) else content
    # Errors that a damaged option, type or shape leads to.
    except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError) as error:
        raise InvalidFlatbufferError(f"The TFLite file is damaged: {error!r}.") from error
    return result, FoldingReport(len(content), len(result), before, _counts(flatbuffer))


def fold_in_place(flatbuffer: Flatbuffer, int8: bool = False) -> bool:
    """`fold` for a parsed file; returns whether there was anything to gain."""
    if not all(op.outputs for op in flatbuffer.operators) or any(t.isVariable for t in flatbuffer.subgraph.tensors):
        return False  # operators that act on a variable: their effect cannot be seen here
    changed = False
    while True:
        if not _leave_out_fills(flatbuffer):
            graph = ChannelGraph(flatbuffer)
            if not _leave_out_factors(graph, int8):
                if (plan := offsets.best_plan(graph)) is None:
                    return changed
                _add_elsewhere(graph, plan)
        flatbuffer.drop_unused()
        changed = True


def _counts(flatbuffer: Flatbuffer) -> dict[str, int]:
    return dict(collections.Counter(op.name for op in flatbuffer.operators).most_common())


def _leave_out_fills(flatbuffer: Flatbuffer) -> bool:
    """Stores the values that FILL operators would compute at every inference; returns whether there were any."""
    fills = {op.index: op.outputs[0] for op in flatbuffer.operators if op.name == "FILL"}
    values = {index: flatbuffer.constant(t) for index, t in fills.items() if t not in flatbuffer.outputs}
    stored = {index: value for index, value in values.items() if value is not None and value.size}
    for index, value in stored.items():
        flatbuffer.set_constant(fills[index], value)
    flatbuffer.subgraph.operators = [op for i, op in enumerate(flatbuffer.subgraph.operators) if i not in stored]
    return bool(stored)


def _leave_out_factors(graph: ChannelGraph, int8: bool) -> bool:
    """Leaves out clips and multiplications; returns whether there were any."""
    flatbuffer = graph.flatbuffer
    clips = {op.index for op in flatbuffer.operators if scales.needless_clip(graph, op)}
    scaling = scales.best_scaling(graph, int8)
    if not clips and not scaling.left_out:
        return False
    operators: list[schema.OperatorT] = []
    present: dict[int, int] = {}  # tensor as it was -> tensor that holds it now, up to its scale
    for op in flatbuffer.operators:
        if op.index in scaling.left_out or (op.index in clips and op.name == "RELU_N1_TO_1"):
            data = op.inputs[0] if op.index in clips else offsets.data_of(graph, op)
            present[op.outputs[0]] = present.get(data, data)
            continue
        raw = flatbuffer.subgraph.operators[op.index]
        if op.index in clips:
            raw.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.NONE
        inputs = [present.get(t, t) for t in op.inputs]
        for position, value in _scaled_constants(graph, scaling, op).items():
            inputs[position] = flatbuffer.add_constant(value, flatbuffer.name(op.inputs[position]))
        raw.inputs = np.asarray(inputs, np.int32)
        operators.append(raw)
    flatbuffer.subgraph.operators = operators
    return True


def _scaled_constants(graph: ChannelGraph, scaling: scales.Scaling, op: Operator) -> dict[int, np.ndarray]:
    """New constants of an operator by the position of its input."""
    vector, before = graph.vectors.get(op.index), scaling.scales.get(op.inputs[0])
    after = scaling.convolutions.get(op.index)
    changed: dict[int, np.ndarray] = {}
    if graph.adds_constant(op) and vector is not None:
        scale = scaling.scales.get(op.inputs[vector[0]])
        changed = {} if scale is None else {1 - vector[0]: vector[1] / scale}
    elif op.name == "LceBconv2d" and after is not None:
        changed = {i: graph.flatbuffer.constant(op.inputs[i]) / after for i in (2, 3)}
    elif op.name in CONVOLUTIONS and (before is not None or after is not None):
        weights, bias = scales.scaled_weights(graph, scaling, op), graph.bias(op)
        assert weights is not None and bias is not None
        biased = len(op.inputs) > 2 and op.inputs[2] >= 0
        changed = {1: weights, 2: bias / after} if after is not None and biased else {1: weights}
    return {position: value.astype(np.float32) for position, value in changed.items()}


def _add_elsewhere(graph: ChannelGraph, plan: offsets.Plan) -> None:
    """Rewrites the file according to a plan of its offsets."""
    flatbuffer = graph.flatbuffer
    operators: list[schema.OperatorT] = []
    present: dict[int, int] = {}  # tensor as it was -> tensor that holds it now, up to its offset
    written: set[int] = set()
    sums: dict[tuple[int, bytes], int] = {}
    for op in flatbuffer.operators:
        raw = flatbuffer.subgraph.operators[op.index]
        constant = offsets.new_constant(graph, plan, op) if graph.adds_constant(op) else None
        if constant is not None and (op.index in plan.left_out or (graph.plain(op) and not constant.any())):
            data = offsets.data_of(graph, op)
            present[op.outputs[0]] = present.get(data, data)
            continue
        inputs = [present.get(t, t) for t in op.inputs]
        for position, tensor in enumerate(op.inputs):
            added = plan.added.get((op.index, position))
            if added is None:
                continue
            value = added.astype(np.float32)
            key = inputs[position], value.tobytes()
            if key not in sums:
                # The tensor that a left-out addition wrote is free, and its name tells what it holds.
                free = tensor in present and tensor not in written and tensor in plan.offsets
                sums[key] = tensor if free else flatbuffer.add_tensor(key[0], "_shifted")
                written.add(sums[key])
                operators.append(_addition(flatbuffer, key[0], flatbuffer.add_constant(value, "shift"), sums[key]))
            inputs[position] = sums[key]
        if constant is not None:
            vector = graph.vectors[op.index]
            if not np.array_equal(constant, vector[1]):
                inputs[1 - vector[0]] = flatbuffer.add_constant(constant, flatbuffer.name(op.inputs[1 - vector[0]]))
        elif (old := graph.bias(op)) is not None:
            bias = old - plan.offsets.get(op.outputs[0], 0)
            offset = plan.offsets.get(op.inputs[0])
            if op.index in graph.unpadded and offset is not None:
                bias = bias + offset @ graph.kernel(op)
            bias = bias.astype(np.float32)
            if not np.array_equal(bias, old):
                position = 3 if op.name == "LceBconv2d" else 2
                inputs += [-1] * (position + 1 - len(inputs))
                name = flatbuffer.name(inputs[position]) if inputs[position] >= 0 else "bias"
                inputs[position] = flatbuffer.add_constant(bias, name)
        raw.inputs = np.asarray(inputs, np.int32)
        operators.append(raw)
    flatbuffer.subgraph.operators = operators


def _addition(flatbuffer: Flatbuffer, tensor: int, constant: int, result: int) -> schema.OperatorT:
    operator = schema.OperatorT()
    operator.opcodeIndex = flatbuffer.operator_code(schema.BuiltinOperator.ADD, 1)
    operator.inputs = np.array([tensor, constant], np.int32)
    operator.outputs = np.array([result], np.int32)
    operator.builtinOptionsType = schema.BuiltinOptions.AddOptions
    operator.builtinOptions = schema.AddOptionsT()
    return operator
