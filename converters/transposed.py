r"""Turns transposed convolutions of signs into convolutions of them, one for each phase of the stride.

With stride \\(s\\), a kernel \\(W\\) and \\(p\\) places cut off in front, a transposed convolution gives

\\[ y_i = \sum_n W_{i + p - s n}\, x_n. \\]

All places of one phase, \\(i = s j + r\\), read the same taps, \\(q, q + s, \ldots\\) with
\\(q = (r + p) \bmod s\\). So a phase is a convolution of the map with these taps, the last of them first, and the
phases interleave. They may have different numbers of taps; if the stride is larger than the kernel, those without any
are 0.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import graph_pb2

from larq_rep.converters.borders import SHAPES, BorderedCopy, Windows
from larq_rep.converters.marks import BASES, mark_of
from larq_rep.converters.planes import same_padding
from larq_rep.converters.products import Convolved, Replaced, StaysError, behind, name_of, packable, packed
from larq_rep.converters.tensors import Weights, inputs_first, operands


def split(definition: graph_pb2.GraphDef, inputs: Sequence[str], weights: Weights) -> Convolved:
    """Rewrites each transposed convolution that multiplies signs, or a marked map, and binary weights.

    # Arguments
        definition: The frozen graph.
        inputs: Names of its input nodes.
        weights: Its large weights.
    """
    result = Convolved(definition, definition)
    if any(node.op == "Conv2DBackpropInput" for node in definition.node):
        _Splitting(definition, inputs, weights, result).rewrite()
    return result


class _Splitting(BorderedCopy):
    def __init__(self, definition: graph_pb2.GraphDef, inputs: Sequence[str], weights: Weights, result: Convolved):
        super().__init__(definition, inputs, weights)
        self._result = result
        result.definition = self.definition

    def rewrite(self) -> None:
        for node in self.graph.get_operations():
            if node.type == "Conv2DBackpropInput" and node.name in self.data_dependent:
                try:
                    self._split(node)
                except StaysError as reason:
                    if str(reason):
                        self._result.reasons[node.name] = str(reason)

    def _split(self, node: tf.Operation) -> None:
        data, kernel = operands(node)
        y = node.outputs[0]
        source = behind(data)[-1]
        if source.op.type == "SpaceToBatchND":
            raise StaysError("it dilates its taps, and LCE packs transposed convolutions with dilation_rate=1")
        if not packed(source) or kernel.op.name in self.data_dependent:
            raise StaysError
        if node.get_attr("data_format") != b"NHWC" or node.get_attr("padding") == b"EXPLICIT":
            raise StaysError
        if not (data.shape.is_fully_defined() and y.shape.is_fully_defined()):
            raise StaysError("the shape of its input or of its result is not known")
        if mark_of(behind(kernel)[-1].op) == BASES:
            raise StaysError("its kernel is a sum of binary ones (`bases`); use one of two values")
        # The last axes are those of the inputs and the outputs, as elsewhere.
        weights = inputs_first(node, self._session.run(kernel))
        if not packable(weights):
            raise StaysError
        strides = node.get_attr("strides")[1:3]
        axes = [
            _phases(data.shape[axis], weights.shape[axis - 1], stride, y.shape[axis], node.get_attr("padding"))
            for axis, stride in zip((1, 2), strides, strict=True)
        ]
        last, *taken_up = self._taken_up(y)
        if None in itertools.chain(*axes):
            # Phases without taps are 0, and would need the same.
            last, taken_up = y, [np.ones(y.shape[3]), np.zeros(y.shape[3])]
        x, marked = name_of(data), bool(mark_of(source.op))
        if not marked and data.op.type in SHAPES:
            x = self._signed_again(x)
        common = [np.max([w.padding for _, w in filter(None, phases)], axis=0).tolist() for phases in axes]
        around = x
        if np.any(common) and not marked:
            around = self._signed_again(self._padded(f"{node.name}/padding", x, common, 1))
        names: list[list[str]] = [[] for _ in axes[0]]
        for (i, rows), (j, columns) in itertools.product(*map(enumerate, axes)):
            name = f"{node.name}/phase_{i}_{j}"
            if rows is None or columns is None:
                names[i].append("")
                continue
            windows, own = [rows[1], columns[1]], weights[rows[0], columns[0]][::-1, ::-1]
            kernel = self._constant(f"{name}/kernel", own)
            padding = [w.padding for w in windows]
            if not np.any(padding):
                result = self._convolution(name, x, padding, windows, kernel, own, *taken_up)
            elif marked:
                # `planes` finds out what stands for 0.
                padded = self._padded(f"{name}/zeros_around", x, padding, 0)
                windows = [w.padded for w in windows]
                result = self._convolution(name, padded, [(0, 0), (0, 0)], windows, kernel, own, *taken_up)
            elif all(w.same for w in windows):
                result = self._scaled(self._conv2d(name, x, kernel, padding=b"SAME"), *taken_up)
            else:
                result = self._convolution(name, around, common, windows, kernel, own, *taken_up)
            names[i].append(result)
        result = self._interleaved(node.name, names, y.shape.as_list())
        amounts = self._constant(f"{node.name}/shape", np.array(last.shape.as_list(), np.int32))
        replaced = self._nodes[last.op.name]
        replaced.op, replaced.input[:] = "Reshape", [result, amounts]
        replaced.attr.clear()
        replaced.attr["T"].type = tf.float32.as_datatype_enum
        replaced.attr["Tshape"].type = tf.int32.as_datatype_enum
        self._result.results[last.op.name] = Replaced(node.name, data.name, data.name)

    def _interleaved(self, name: str, phases: list[list[str]], shape: list[int]) -> str:
        """The numbers of a map, of which each phase has a part, in their order."""
        batch, height, width, channels = shape
        if "" in itertools.chain(*phases):
            some = next(filter(None, itertools.chain(*phases)))
            # No product with 0, which might be -0, and its sign another.
            zeros = self._add("Sub", f"{name}/zeros", some, some)
            phases = [[phase or zeros for phase in row] for row in phases]
        rows, columns = len(phases), len(phases[0])
        # One map behind another along the channels, then the rows of channels along the columns: what is next to each
        # other in memory is so in the map, too.
        joined = [self._joined(f"{name}/row_{i}", row, 3) for i, row in enumerate(phases)]
        result = self._joined(f"{name}/rows", joined, 2)
        whole = [batch, -(-height // rows) * rows, -(-width // columns) * columns, channels]
        if whole == shape:
            return result
        result = self._add("Reshape", f"{name}/map", result, self._constant(f"{name}/whole", np.array(whole, np.int32)))
        self.definition.node[-1].attr["Tshape"].type = tf.int32.as_datatype_enum
        return self._slice(f"{name}/cut", result, [0, 0, 0, 0], shape)


def _phases(size: int, taps: int, stride: int, results: int, padding: bytes) -> list[tuple[slice, Windows] | None]:
    """The taps of each phase along an axis, and their windows; `None` for a phase without any."""
    cut = same_padding([results], [taps], [stride])[0][0] if padding == b"SAME" else 0
    found: list[tuple[slice, Windows] | None] = []
    for phase in range(stride):
        first, start = divmod(phase + cut, stride)
        own, count = len(range(start, taps, stride)), -(-results // stride)
        windows = Windows(size, first - own + 1, own, count, len(range(phase, results, stride)))
        found.append((slice(start, None, stride), windows) if own else None)
    return found
