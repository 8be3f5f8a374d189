"""The delegate of `larq_rep_runtime` against LCE's interpreter on one file: a step of `larq_rep.converters.verify`."""

from __future__ import annotations

import larq_rep_runtime
import numpy as np

from larq_rep.converters import float_weights, lce
from larq_rep.converters.comparison import Difference
from larq_rep.converters.flatbuffer import Flatbuffer

# What rounds the same way in every engine: single products and sums, and copies. Convolutions and means do not.
_EXACT = {"ADD", "SUB", "MUL", "PRELU", "RELU", "RELU6", "RELU_N1_TO_1", "TILE", "CONCATENATION", "FILL"}
# Between engines whose real-valued operators are other builds of TFLite, as a share of the largest value.
_ROUNDING = 1e-5


def compare_delegate(content: bytes, images: np.ndarray) -> list[Difference]:
    """Where the delegate computes something else than LCE's interpreter.

    LCE's operators and the exact ones around them have to give the same bits for the same values, namely LCE's own.
    The outputs of the whole file have to agree up to rounding, unless the rounding of a real-valued operator, which
    is not the delegate's, turns a sign.
    """
    expanded = content if float_weights.storage(content) == "float32" else float_weights.expand(content)[0]
    flatbuffer = Flatbuffer(expanded)
    part, inputs, outputs = exact_part(flatbuffer)
    inner = [tensor for tensor in inputs if tensor not in flatbuffer.inputs]
    inside = lce.any_interpreter(flatbuffer.with_outputs([*inner, *outputs]))
    of_part = larq_rep_runtime.Interpreter(part)
    by_lce, delegated = lce.any_interpreter(content), larq_rep_runtime.Interpreter(content)
    differences = []
    for index, image in enumerate(images):
        x = image[None]
        values = dict(zip([*inner, *outputs], _all(inside.predict(x)), strict=True))
        found = _all(of_part.predict([values.get(tensor, x) for tensor in inputs]))
        wrong = [
            (flatbuffer.producers[tensor], array)
            for tensor, array in zip(outputs, found, strict=True)
            if not np.array_equal(array, values[tensor], equal_nan=True)
        ]
        if wrong:
            op, array = min(wrong, key=lambda pair: pair[0].index)
            count = int((array != values[op.outputs[0]]).sum())
            message = f"the delegate gives another result than LCE's interpreter on image {index}, in {count} values"
            differences.append(Difference("delegate", flatbuffer.name(op.outputs[0]), op.index, message, index))
            continue
        error = max(map(_apart, _all(delegated.predict(x)), _all(by_lce.predict(x))))
        if not error <= _ROUNDING and not flips_explain(flatbuffer, x):  # true for NaN
            message = f"on image {index} the delegate's output differs by {error:.2g} of the largest"
            differences.append(Difference("delegate", "file", -1, message, index))
    return differences


def exact_part(flatbuffer: Flatbuffer) -> tuple[bytes, list[int], list[int]]:
    """A file with LCE's operators and the exact ones only; its inputs and outputs as tensors of the whole file."""
    exact = [op for op in flatbuffer.operators if op.name.startswith("Lce") or op.name in _EXACT]
    written = {tensor for op in exact for tensor in op.outputs}
    computed = set(flatbuffer.producers) | set(flatbuffer.inputs)
    inputs = sorted({tensor for op in exact for tensor in op.inputs if tensor in computed and tensor not in written})
    left = [tensor for op in flatbuffer.operators if op not in exact for tensor in op.inputs if tensor in written]
    outputs = sorted({*left, *(tensor for tensor in flatbuffer.outputs if tensor in written)})
    graph = flatbuffer.subgraph
    saved = graph.operators, graph.inputs
    graph.operators, graph.inputs = [graph.operators[op.index] for op in exact], inputs
    try:
        return flatbuffer.with_outputs(outputs), inputs, outputs
    finally:
        graph.operators, graph.inputs = saved


def flips_explain(flatbuffer: Flatbuffer, x: np.ndarray) -> bool:
    """Whether the first place where the two engines go apart is a sign that the rounding of a real value turned."""
    looked_at = [
        (op, op.inputs[0] if op.name == "LceQuantize" else op.outputs[0])
        for op in flatbuffer.operators
        if op.name == "LceQuantize" or not (op.name.startswith("Lce") or op.name in _EXACT)
    ]
    content = flatbuffer.with_outputs([tensor for _, tensor in looked_at])
    expected = _all(lce.any_interpreter(content).predict(x))
    found = _all(larq_rep_runtime.Interpreter(content).predict(x))
    rounded = False
    for (op, _), a, b in zip(looked_at, expected, found, strict=True):
        apart = _apart(b, a)
        if not apart <= _ROUNDING:
            return False
        if op.name != "LceQuantize":
            rounded = rounded or apart > 0
        elif ((a < 0) != (b < 0)).any():
            return rounded
    return False


def _all(outputs: np.ndarray | list[np.ndarray]) -> list[np.ndarray]:
    return outputs if isinstance(outputs, list) else [outputs]


def _apart(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / (np.abs(expected).max() or 1))
