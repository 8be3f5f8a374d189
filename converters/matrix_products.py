"""Recognises the operators that multiply a map with one matrix at each of its places."""

from __future__ import annotations

import string
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

MATRIX_PRODUCTS = ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum")
_TRANSPOSED = "it sums over other axes of its input than the last; transpose it in front of the sign"
_PLACES = (
    "its weights are others at each place, and LCE packs those that are the same; write it as QuantConv2D, "
    "QuantConv1D or QuantDense, or leave the weights real"
)


@dataclass(frozen=True)
class MatrixProduct:
    """A product of the last axes of a map with a matrix.

    # Attributes
        data: The map.
        kernel: The weights.
        summed: How many axes of the map are summed over, the last ones.
        order: The axes of the weights: those that are summed over, in the order of the map, then those of the result.
        reason: Why it is no product with one matrix, otherwise; the rest has no meaning then.
    """

    data: tf.Tensor
    kernel: tf.Tensor
    summed: int = 1
    order: tuple[int, ...] = ()
    reason: str = ""

    def matrix(self, weights: np.ndarray) -> np.ndarray:
        """The weights as a matrix of inputs and units."""
        ordered = weights.transpose(self.order)
        features = self.data.shape[self.data.shape.rank - self.summed :].num_elements()
        return ordered.reshape(features, -1)


def matrix_product(node: tf.Operation, data_dependent: set[str]) -> MatrixProduct | None:
    """The product that a node computes, if one of its two operands is constant.

    # Arguments
        node: One of `MATRIX_PRODUCTS`.
        data_dependent: Names of the nodes that depend on the inputs.
    """
    constant = [x.op.name not in data_dependent for x in node.inputs]
    if sorted(constant) != [False, True]:
        return None
    data, kernel = node.inputs[constant.index(False)], node.inputs[constant.index(True)]
    if data.shape.rank is None or kernel.shape.rank is None:
        return None
    if node.type == "Einsum":
        return _einsum(node, data, kernel)
    if constant[0]:
        return MatrixProduct(data, kernel, reason=_TRANSPOSED)
    first, second = ("transpose_a", "transpose_b") if node.type == "MatMul" else ("adj_x", "adj_y")
    if node.get_attr(first):
        return MatrixProduct(data, kernel, reason=_TRANSPOSED)
    *batch, _, _ = kernel.shape.as_list()
    if any(size != 1 for size in batch):
        return MatrixProduct(data, kernel, reason=_PLACES)
    *others, i, j = range(kernel.shape.rank)
    return MatrixProduct(data, kernel, 1, (*others, *((j, i) if node.get_attr(second) else (i, j))))


def _einsum(node: tf.Operation, data: tf.Tensor, kernel: tf.Tensor) -> MatrixProduct | None:
    terms, result = node.get_attr("equation").decode().split("->")
    of_data, of_kernel = terms.split(",")
    if node.inputs[0] is kernel:
        of_data, of_kernel = of_kernel, of_data
    if "..." in of_kernel:
        if kernel.shape.rank != len(of_kernel) - 3:
            return MatrixProduct(data, kernel, reason=_PLACES)
        of_kernel = of_kernel.replace("...", "")
    unused = [c for c in string.ascii_letters if c not in terms + result]
    ellipsis = "".join(unused[: data.shape.rank - len(of_data.replace("...", ""))])
    of_data, result = of_data.replace("...", ellipsis), result.replace("...", ellipsis)
    summed = [c for c in of_data if c in of_kernel]
    kept = [c for c in of_data if c not in of_kernel]
    units = [c for c in result if c in of_kernel]
    if set(summed) & set(units):
        return MatrixProduct(data, kernel, reason=_PLACES)
    whole = set(of_kernel) == {*summed, *units} and all(len(set(x)) == len(x) for x in (of_data, of_kernel))
    if not summed or not whole or of_data != "".join([*kept, *summed]) or result != "".join([*kept, *units]):
        return MatrixProduct(data, kernel, reason=_TRANSPOSED)
    return MatrixProduct(data, kernel, len(summed), tuple(of_kernel.index(c) for c in [*summed, *units]))
