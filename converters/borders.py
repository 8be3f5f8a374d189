r"""Convolutions of signs with zeros around them, which LCE packs only for the amounts of `padding="same"`.

Elsewhere +1 pads the signs. What that adds depends on the weights alone, and is taken off the places at the border:
with \\(w\\) the sum of the weights of a tap over the inputs, it is \\(\sum w\\) over the taps outside of the map. All
places in the middle of an edge have the same, so that few numbers are stored.

Factors and shifts of the channels behind such a convolution, as of a batch normalization, are applied before, where LCE
takes them up.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from larq_rep.converters.graph_copy import GraphCopy
from larq_rep.converters.planes import same_padding
from larq_rep.converters.tensors import PASS_THROUGH

# Their results have the same numbers in the same order as their inputs.
SHAPES = ("ExpandDims", "Reshape", "Squeeze")
_AFFINE = ("Add", "AddV2", "BiasAdd", "Sub", "Mul", "RealDiv", "FusedBatchNormV3")


@dataclass(frozen=True)
class Windows:
    """The windows of a convolution along an axis of a map.

    # Attributes
        size: Places of the map.
        first: Where the first window begins, negative if in front of the map.
        taps: Taps of a window.
        count: Number of windows.
        needed: How many of them count; the others may give anything.
        stride: Distance of windows.
        dilation: Distance of taps.
    """

    size: int
    first: int
    taps: int
    count: int
    needed: int
    stride: int = 1
    dilation: int = 1

    @property
    def length(self) -> int:
        """Places from the first to the last tap of a window."""
        return (self.taps - 1) * self.dilation + 1

    @property
    def padding(self) -> tuple[int, int]:
        """Places in front of the map and behind it that windows read."""
        end = self.first + (self.count - 1) * self.stride + self.length
        return max(-self.first, 0), max(end - self.size, 0)

    @property
    def same(self) -> bool:
        """Whether LCE pads as much for `padding="same"`, and computes it rightly on so small a map."""
        wanted = same_padding([self.size], [self.length], [self.stride])[0]
        return self.padding == tuple(wanted) and self.first <= 0 and self.size >= self.length

    @property
    def padded(self) -> Windows:
        """The same windows of the map with zeros around it."""
        before, after = self.padding
        return dataclasses.replace(self, size=before + self.size + after, first=before + self.first)

    def inside(self) -> np.ndarray:
        """Whether the map has what each tap of each window reads; (count, taps)."""
        windows = self.first + np.arange(self.count) * self.stride
        places = windows[:, np.newaxis] + np.arange(self.taps) * self.dilation
        return ((places >= 0) & (places < self.size)) | (np.arange(self.count) >= self.needed)[:, np.newaxis]

    def parts(self) -> list[tuple[int, int, bool]]:
        """Windows over the border and those between: begin, end, and whether all of them are inside."""
        whole = self.inside().all(axis=1)
        # Without any between, there are two parts still: nothing that is added to a whole result may be a map.
        begin = end = min(1, self.count - 1)
        if whole.any():
            begin = int(whole.argmax())
            end = self.count if whole[begin:].all() else begin + int(whole[begin:].argmin())
        parts = [(0, begin, False), (begin, end, True), (end, self.count, False)]
        return [part for part in parts if part[0] < part[1]]


class BorderedCopy(GraphCopy):
    """A copy of a graph with convolutions of signs that have zeros around them."""

    def _taken_up(self, tensor: tf.Tensor) -> tuple[tf.Tensor, np.ndarray, np.ndarray]:
        """The result of the operators behind a convolution that multiply channels or add to them, and both numbers."""
        channels = tensor.shape[-1]
        factor, shift = np.ones(channels), np.zeros(channels)
        while len(readers := tensor.consumers()) == 1:
            (reader,) = readers
            if reader.type in (*SHAPES, *PASS_THROUGH) and len(reader.outputs) == 1:
                if not reader.outputs[0].shape.rank or reader.outputs[0].shape[-1] != channels:
                    break
            elif (numbers := self._affine(reader, tensor)) is not None:
                factor, shift = factor * numbers[0], shift * numbers[0] + numbers[1]
            else:
                break
            tensor = reader.outputs[0]
        return tensor, factor, shift

    def _affine(self, node: tf.Operation, x: tf.Tensor) -> tuple[np.ndarray, np.ndarray] | None:
        """What a node multiplies channels with, and adds to them; `None` if it does anything else."""
        constants = [y for y in node.inputs if y is not x]
        if node.type not in _AFFINE or len(constants) != len(node.inputs) - 1:
            return None
        if any(y.op.name in self.data_dependent for y in constants) or node.outputs[0].shape != x.shape:
            return None
        if node.type == "FusedBatchNormV3" and (
            node.get_attr("data_format") != b"NHWC" or node.get_attr("is_training")
        ):
            return None
        if node.type == "BiasAdd" and node.get_attr("data_format") != b"NHWC":
            return None
        values = [np.asarray(value, np.float64) for value in self._session.run(constants)]
        channels = x.shape[-1]
        if any(v.size not in (1, channels) or v.shape[-1:] not in ((), (v.size,)) for v in values):
            return None
        numbers = [np.broadcast_to(value.reshape(-1), channels) for value in values]
        if not np.isfinite(numbers).all() or (node.type == "RealDiv" and not numbers[0].all()):
            return None
        one, zero = np.ones(channels), np.zeros(channels)
        first = node.inputs[0] is x
        match node.type:
            case "Mul":
                return numbers[0], zero
            case "RealDiv":
                return (1 / numbers[0], zero) if first else None
            case "Sub":
                return (one, -numbers[0]) if first else (-one, numbers[0])
            case "FusedBatchNormV3":
                gamma, beta, mean, variance = numbers
                scale = gamma / np.sqrt(variance + node.get_attr("epsilon"))
                return scale, beta - mean * scale
        return one, numbers[0]

    def _scaled(self, name: str, factor: np.ndarray, shift: np.ndarray) -> str:
        """Channels times factors, plus shifts, so that LCE takes them up."""
        y = name
        if np.any(factor != 1):
            y = self._add("Mul", f"{name}/multiplied", y, self._constant(f"{name}/factor", factor.astype(np.float32)))
        if np.any(shift != 0):
            y = self._add("AddV2", f"{name}/added", y, self._constant(f"{name}/shift", shift.astype(np.float32)))
        return y

    def _convolution(
        self,
        name: str,
        x: str,
        padding: Sequence[Sequence[int]],
        windows: Sequence[Windows],
        kernel: str,
        weights: np.ndarray,
        factor: np.ndarray,
        shift: np.ndarray,
    ) -> str:
        """A convolution of signs with zeros where its windows leave the map, scaled and shifted.

        # Arguments
            name: Its name.
            x: The map, with +1 around it.
            padding: How many, before and after, in rows and in columns; at least as many as the windows read.
            windows: Rows and columns of its windows.
            kernel: The filter.
            weights: Its values.
            factor: What each channel is multiplied with.
            shift: What is added to each channel then.
        """
        strides, dilations = [w.stride for w in windows], [w.dilation for w in windows]
        y = self._scaled(self._conv2d(name, x, kernel, strides, dilations), factor, shift)
        insides = [w.inside().astype(np.float64) for w in windows]
        of_taps = weights.sum(axis=2, dtype=np.float64)
        starts = [(before + w.first) // w.stride for (before, _), w in zip(padding, windows, strict=True)]
        sizes = [
            (w.size + sum(amounts) - w.length) // w.stride + 1 for amounts, w in zip(padding, windows, strict=True)
        ]
        rows = []
        for top, bottom, row_inside in windows[0].parts():
            columns = []
            for left, right, column_inside in windows[1].parts():
                part, size = y, [bottom - top, right - left]
                where = f"{name}/rows_{top}_columns_{left}"
                if size != sizes:
                    part = self._slice(where, y, [0, starts[0] + top, starts[1] + left, 0], [-1, *size, -1])
                if not (row_inside and column_inside):
                    # All places between are alike.
                    inside = [
                        taken[begin : begin + 1] if alike else taken[begin:end]
                        for taken, begin, end, alike in zip(
                            insides, (top, left), (bottom, right), (row_inside, column_inside), strict=True
                        )
                    ]
                    excess = (of_taps.sum(axis=(0, 1)) - np.einsum("ja,kb,abc->jkc", *inside, of_taps)) * factor
                    # LCE takes numbers up in this shape only.
                    excess = excess.reshape(-1) if excess.size == len(factor) else excess[np.newaxis]
                    amount = self._constant(f"{where}/excess", excess.astype(np.float32))
                    part = self._add("Sub", f"{where}/corrected", part, amount)
                columns.append(part)
            rows.append(self._joined(f"{name}/rows_{top}", columns, 2))
        return self._joined(f"{name}/whole", rows, 1)

    def _conv2d(
        self,
        name: str,
        x: str,
        kernel: str,
        strides: Sequence[int] = (1, 1),
        dilations: Sequence[int] = (1, 1),
        padding: bytes = b"VALID",
    ) -> str:
        self._add("Conv2D", name, x, kernel)
        attributes = self.definition.node[-1].attr
        attributes["data_format"].s, attributes["padding"].s = b"NHWC", padding
        attributes["strides"].list.i[:], attributes["dilations"].list.i[:] = [1, *strides, 1], [1, *dilations, 1]
        return name

    def _padded(self, name: str, x: str, padding: Sequence[Sequence[int]], value: float) -> str:
        """A map with a number around it: rows before and after, and columns."""
        amounts = self._constant(f"{name}/amounts", np.array([[0, 0], *padding, [0, 0]], np.int32))
        self._add("PadV2", name, x, amounts, self._constant(f"{name}/value", np.float32(value)))
        self.definition.node[-1].attr["Tpaddings"].type = tf.int32.as_datatype_enum
        return name

    def _joined(self, name: str, parts: Sequence[str], axis: int) -> str:
        if len(parts) == 1:
            return parts[0]
        self._add("ConcatV2", name, *parts, self._constant(f"{name}/axis", np.int32(axis)))
        self.definition.node[-1].attr["N"].i = len(parts)
        self.definition.node[-1].attr["Tidx"].type = tf.int32.as_datatype_enum
        return name

    def _slice(self, name: str, x: str, begin: Sequence[int], size: Sequence[int]) -> str:
        begins = self._constant(f"{name}/begin", np.array(begin, np.int32))
        self._add("Slice", name, x, begins, self._constant(f"{name}/size", np.array(size, np.int32)))
        self.definition.node[-1].attr["Index"].type = tf.int32.as_datatype_enum
        return name
