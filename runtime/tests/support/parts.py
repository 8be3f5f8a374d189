"""The delegate's part of a network alone, and where two engines go apart in the whole of it."""

from __future__ import annotations

import graphs
import numpy as np

from larq_rep.converters import lce
from larq_rep.converters.flatbuffer import Flatbuffer

# What rounds the same way in every engine: single products and sums. Convolutions and means do not.
EXACT = {"ADD", "SUB", "MUL", "PRELU", "RELU", "RELU6", "RELU_N1_TO_1", "TILE", "CONCATENATION"}


def exact_part(content: bytes) -> tuple[bytes, list[int], list[int]]:
    """The file with LCE's operators and those of `EXACT` only, its inputs and its outputs as tensors of the whole."""
    flatbuffer = Flatbuffer(content)
    kept = [op for op in flatbuffer.operators if op.name.startswith("Lce") or op.name in EXACT]
    written = {t for op in kept for t in op.outputs}
    computed = set(flatbuffer.producers) | set(flatbuffer.inputs)
    inputs = sorted({t for op in kept for t in op.inputs if t in computed and t not in written})
    left = [t for op in flatbuffer.operators if op not in kept for t in op.inputs if t in written]
    outputs = sorted({*left, *(t for t in flatbuffer.outputs if t in written)})
    flatbuffer.subgraph.operators = [flatbuffer.subgraph.operators[op.index] for op in kept]
    flatbuffer.subgraph.inputs = inputs
    flatbuffer.__dict__.pop("operators", None)
    return flatbuffer.with_outputs(outputs), inputs, outputs


def first_flip(content: bytes, one, other, x: np.ndarray) -> str | None:
    """Which rounding turns which sign first, where two engines go apart; None where all signs are the same.

    `one` and `other` take a file and an input and return all outputs.

    # Raises
        AssertionError: If something else than rounding turns a sign.
    """
    flatbuffer = Flatbuffer(content)
    looked_at = [
        (op, op.inputs[0] if op.name == "LceQuantize" else op.outputs[0])
        for op in flatbuffer.operators
        if op.name == "LceQuantize" or not (op.name.startswith("Lce") or op.name in EXACT)
    ]
    values = flatbuffer.with_outputs([tensor for _, tensor in looked_at])
    origin = None
    for (op, _), a, b in zip(looked_at, one(values, x), other(values, x), strict=True):
        largest = np.abs(a).max()
        apart = np.abs(a - b).max() / largest
        assert apart < 1e-5, f"operator {op.index} ({op.name}): values differ by {apart:.1e} of the largest"
        if op.name != "LceQuantize":
            if apart and origin is None:
                origin = f"operator {op.index} ({op.name}) rounds differently, by {apart:.1e} of the largest"
            continue
        flips = (a < 0) != (b < 0)
        if flips.any():
            assert origin, f"operator {op.index}: {flips.sum()} signs differ though nothing before rounds differently"
            distance = np.abs(np.where(flips, a, 0)).max() / largest
            return (
                f"{origin}; operator {op.index} (LceQuantize) is the first to see other signs, {flips.sum()} of "
                f"{flips.size}, of values that are at most {distance:.1e} of the largest and differ by {apart:.1e}"
            )
    return None


def by_lce(content: bytes, x: np.ndarray | list[np.ndarray]) -> list[np.ndarray]:
    """All outputs of LCE's interpreter."""
    return lce.any_interpreter(content).interpreter.predict(x if isinstance(x, list) else [x])


def check_against_lce(content: bytes, x: np.ndarray) -> str | None:
    """Asserts that the delegate agrees with LCE's interpreter.

    Its part alone gives the same bits on LCE's own values; the whole agrees to rounding, or a sign is turned by the
    rounding of an operator that is TFLite's. Returns the explanation of that.
    """
    flatbuffer = Flatbuffer(content)
    part, inputs, outputs = exact_part(content)
    inner = [t for t in inputs if t not in flatbuffer.inputs]
    values = by_lce(flatbuffer.with_outputs([*inner, *outputs]), x)
    given = dict(zip(inner, values, strict=False))
    found = graphs.run(part, [given.get(t, x) for t in inputs])
    for tensor, a, b in zip(outputs, found, values[len(inner) :], strict=True):
        np.testing.assert_array_equal(a, b, f"tensor {tensor} {flatbuffer.name(tensor)!r}")
    (whole,), (expected,) = graphs.run(content, x), by_lce(content, x)
    if np.abs(whole - expected).max() <= 1e-5 * np.abs(expected).max():
        return None
    explained = first_flip(content, by_lce, graphs.run, x)
    assert explained, "the outputs differ though all signs are the same"
    return explained
