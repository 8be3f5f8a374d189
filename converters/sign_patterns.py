"""Binary activations of a frozen graph, in the spellings that LCE's converter recognises."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from larq_rep.converters.tensors import constant_value, resolve

_COMPARISONS = {  # operator -> (whether it holds above the threshold, whether it holds at it), its mirror image
    "GreaterEqual": (True, True, "LessEqual"),
    "Greater": (True, False, "Less"),
    "LessEqual": (False, True, "GreaterEqual"),
    "Less": (False, False, "Greater"),
}


@dataclass(frozen=True)
class BinaryActivation:
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

    def negative(self, front: np.ndarray) -> np.ndarray:
        """Where the output is -1, for the values in front of it: `compared` less the threshold, with the other sign if
        the output is negated.
        """
        return (front < 0) | ((front == 0) & (not self.positive_at_zero))


def binary_activation(node: tf.Operation) -> BinaryActivation | None:
    """The binary activation that a node computes, if any."""
    pattern = double_sign(node)
    if pattern is not None:
        return BinaryActivation(node.outputs[0], pattern[0]) if 0 < pattern[1] < 1 else None
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
    return BinaryActivation(
        node.outputs[0],
        compared,
        None if value is not None and not np.any(value) else threshold,
        negated=above != (branches[0] == 1),
        positive_at_zero=at == (branches[0] == 1),
    )


def _plus_minus_one(tensor: tf.Tensor) -> int | None:
    """1 or -1 if all elements of a tensor are known to have that value."""
    op = resolve(tensor).op
    if op.type == "OnesLike":
        return 1
    if op.type == "Neg":
        inner = _plus_minus_one(op.inputs[0])
        return None if inner is None else -inner
    value = constant_value(tensor)
    return int(value.flat[0]) if value is not None and value.size and np.all(value == value.flat[0]) else None


def double_sign(node: tf.Operation) -> tuple[tf.Tensor, float] | None:
    """x and c of sign(sign(x) + c), larq's sign."""
    inner = resolve(node.inputs[0]).op if node.type == "Sign" else None
    if inner is not None and inner.type in ("AddV2", "Add"):
        for x, c in (inner.inputs, reversed(inner.inputs)):
            source, value = resolve(x).op, constant_value(c)
            if source.type == "Sign" and value is not None and value.size == 1:
                return source.inputs[0], float(value.reshape(()))
    return None
