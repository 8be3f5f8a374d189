"""Compares what a file with operators in int8 computes on images.

1. **Operators.** Every operator in int8, QUANTIZE and DEQUANTIZE is computed again in integers from the inputs that
   LCE's interpreter gave it, and every operator of LCE in bits. So are the former from those that TFLite gave them
   beside the delegate.
2. **Ranges.** The float operators of each island are run on the values at its border. The share of these results
   outside of a tensor's range shows a range that clips.

With these and the constants right (`int8_scales.py`), the distance from the float results of an island is that of
rounding and clipping alone; it is measured, for each tensor, as a signal-to-noise ratio.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from larq_rep.converters import integer_executor, lce, metadata, quantized
from larq_rep.converters.flatbuffer import Flatbuffer, Operator
from larq_rep.converters.graph import FrozenGraph
from larq_rep.converters.inputs import taken
from larq_rep.converters.int8 import is_quantized
from larq_rep.converters.runtime import needed_runtime
from larq_rep.converters.verification.int8_file import Int8File
from larq_rep.converters.verification.operators import compare_operators, lce_operators
from larq_rep.converters.verification.result import Int8
from larq_rep.converters.verification.rounding import at

if TYPE_CHECKING:
    import larq_rep_runtime

# Shares of the values that a range may clip: in any case, and where that was not seen in calibration or costs much.
_CLIPPED, _FEW = 0.01, 0.002
# Share of the network's inputs that may lie outside of those in calibration.
_UNLIKE = 0.001
# By how much a value is outside, as a share of the range: more than rounding and the next image explain.
_OUTSIDE = 0.02


def computes_in_int8(content: bytes, graph: FrozenGraph) -> bool:
    """Whether a file was quantized after training: it computes with integers, but its model does not round to any."""
    about = metadata.read(content)
    return "int8" in about or (is_quantized(Flatbuffer(content)) and not quantized.fake_quantizers(graph))


@dataclass
class _Range:
    """Values of a tensor on all images, as the float operators compute them, beside its range.

    # Attributes
        count: How many there are.
        outside, unseen: How many of them are outside of the range, and of the values in calibration.
        size: How many there are on one image.
        signal, noise: Sums of the squares of the values, and of their distances from the int8 ones.
        cut, rounding: The part of the distances that clipping explains and the one that rounding may.
    """

    count: int = 0
    outside: int = 0
    unseen: int = 0
    size: int = 1
    signal: float = 0.0
    noise: float = 0.0
    cut: float = 0.0
    rounding: float = 0.0


@dataclass
class _Effect:
    """What int8 does to the results of the whole network, on all images."""

    largest: float = 0.0
    change: float = 0.0
    total: float = 0.0
    changes: float = 0.0
    same: list[bool] = field(default_factory=list)
    bits: int = 0
    flips: int = 0


class Int8Comparison:
    """Compares what a file computes on images with the definition of its operators and with the float file.

    # Arguments
        file: The file, whose structure is right.
        watch: Further tensors of the file whose values `compare_image` returns.
    """

    def __init__(self, file: Int8File, watch: Iterable[int] = ()):
        self._file, self._flatbuffer = file, file.flatbuffer
        self._integer_operators = sorted([*file.in_int8, *file.passes], key=lambda op: op.index)
        operators = [*self._integer_operators, *lce_operators(file.flatbuffer)]
        watched = {t for op in operators for t in (*op.inputs, *op.outputs)} | {*file.flatbuffer.outputs, *watch}
        self._watched = sorted(watched & file.flatbuffer.producers.keys())
        self._ranges = {t: _Range() for t in file.activations}
        self._effect, self._unlike = _Effect(), False

    @functools.cached_property
    def _interpreter(self) -> lce.Interpreter:
        return lce.any_interpreter(self._flatbuffer.with_outputs(self._watched))

    @property
    def is_refused(self) -> bool:
        """Whether LCE's interpreter does not run the file."""
        try:
            return self._interpreter is None
        except lce.RefusedError:
            return True

    @functools.cached_property
    def _islands(self) -> tuple[lce.Interpreter, list[int], list[int]]:
        """The operators in int8 as the float file has them, with their inputs and their results."""
        in_int8 = {op.index for op in self._file.in_int8}
        chosen = [expected for op, expected in self._file.operators if op.index in in_int8]
        results = sorted({t for op in chosen for t in op.outputs})
        content, inputs = self._file.reference.cut(chosen, results)
        return lce.any_interpreter(content), inputs, results

    def compare_image(
        self, index: int, inputs: Sequence[np.ndarray], reference: Mapping[int, np.ndarray]
    ) -> dict[int, np.ndarray]:
        """Compares one run, and returns the file's values.

        # Arguments
            index: Its number.
            inputs: The inputs as the model takes them.
            reference: Values of the float file: its outputs and all bits.
        """
        flatbuffer = self._flatbuffer
        for_file, _ = taken(inputs, flatbuffer)
        values = dict(zip(self._watched, self._interpreter.interpreter.predict(for_file), strict=True))
        known = values | dict(zip(flatbuffer.inputs, for_file, strict=True))
        compare_operators(flatbuffer, self._file.layers, index, known, self._file.result)
        engine = self._file.result.engines["lce"]
        for op in self._integer_operators:
            definition = integer_executor.defined(flatbuffer, op, known)
            if definition is None:
                message = f"{op.name} in int8 has no definition here: it cannot be compared"
                self._file.differ("operator", op, message)
                continue
            engine.operators += 1
            if wrong := _wrong(op, known[op.outputs[0]], definition):
                self._file.differ("operator", op, wrong, index)
                engine.bit_equal = False
        self._measure_ranges(inputs, known)
        self._measure_effect(known, reference)
        return values

    def compare_delegate(self, index: int, inputs: Sequence[np.ndarray]) -> None:
        """Compares the operators in int8 of TFLite beside the delegate, which rounds in other ways, on one run.

        # Arguments
            index: Its number.
            inputs: The inputs as the file takes them.
        """
        values = dict(zip(self._flatbuffer.inputs, inputs, strict=True))
        values |= zip(self._integers, self._delegated.invoke(list(inputs)), strict=True)
        for op in self._integer_operators:
            definition = integer_executor.defined(self._flatbuffer, op, values)
            if definition is not None and (wrong := _wrong(op, values[op.outputs[0]], definition)):
                self._file.differ("delegate", op, f"beside the delegate {wrong}", index)

    @functools.cached_property
    def _integers(self) -> list[int]:
        """The computed tensors that operators in int8 read and write."""
        around = {t for op in self._integer_operators for t in (*op.inputs, *op.outputs)}
        return sorted(around & self._flatbuffer.producers.keys())

    @functools.cached_property
    def _delegated(self) -> larq_rep_runtime.Interpreter:
        return needed_runtime().Interpreter(self._flatbuffer.with_outputs(self._integers))

    def _measure_ranges(self, inputs: Sequence[np.ndarray], values: Mapping[int, np.ndarray]) -> None:
        """Compares the values of each tensor of integers with those of float operators on the island's inputs."""
        real = dict(zip(self._file.reference.inputs, inputs, strict=True))
        for op, expected_op in self._file.operators:
            for tensor, meant in zip(op.outputs, expected_op.outputs, strict=True):
                if tensor in values and values[tensor].dtype == np.float32:
                    real[meant] = values[tensor]
        if self._file.in_int8:
            interpreter, taken_from, results = self._islands
            computed = interpreter.interpreter.predict([real[t] for t in taken_from])
            real |= dict(zip(results, computed, strict=True))
        for tensor, about in self._ranges.items():
            expected = real[self._file.means[tensor]].astype(np.float64)
            step, low, high = self._file.range(tensor)
            seen = self._file.seen(tensor) or (low, high)
            about.size, about.count = expected.size, about.count + expected.size
            about.outside += _outside(expected, low, high)
            about.unseen += _outside(expected, *seen)
            about.signal += float(np.square(expected).sum())
            found = quantized.real(self._flatbuffer, tensor, values[tensor])
            about.noise += float(np.square(found - expected).sum())
            known = np.clip(expected, *seen)
            about.cut += float(np.square(known - np.clip(known, low, high)).sum())
            about.rounding += step**2 / 12 * int(np.count_nonzero(expected))
        self._unlike = self._unlike or self._is_unlike(inputs)

    def _is_unlike(self, inputs: Sequence[np.ndarray]) -> bool:
        """Whether an input of the network is outside of what was seen in calibration."""
        for array, ends in zip(inputs, self._file.about.get("inputs") or [], strict=False):
            if _outside(array, *ends) > _UNLIKE * array.size:
                return True
        return False

    def _measure_effect(self, values: Mapping[int, np.ndarray], reference: Mapping[int, np.ndarray]) -> None:
        effect = self._effect
        for ours, theirs in zip(self._flatbuffer.outputs, self._file.reference.outputs, strict=True):
            found, expected = quantized.real(self._flatbuffer, ours, values[ours]), reference[theirs]
            if expected.dtype.kind != "f":
                continue
            change = np.abs(found.astype(np.float64) - expected)
            effect.largest = max(effect.largest, float(np.abs(expected).max()))
            effect.change = max(effect.change, float(change.max()))
            effect.total += float(np.abs(expected).sum())
            effect.changes += float(change.sum())
            if len(self._flatbuffer.outputs) == 1 and expected.ndim == 2 and expected.shape[1] > 1:
                effect.same += (found.argmax(axis=1) == expected.argmax(axis=1)).tolist()
        for op, expected_op in self._file.operators:
            ours, theirs = op.outputs[0], expected_op.outputs[0]
            if op.name in ("LceQuantize", "LceBconv2d") and self._flatbuffer.dtype(ours) == "int32":
                different = (values[ours] ^ reference[theirs]).view(np.uint8)
                effect.flips += int(np.unpackbits(different).sum())
                effect.bits += self._channels(op) * math.prod(values[ours].shape[:-1])

    def _channels(self, op: Operator) -> int:
        """The number of bits that an operator packs for each place."""
        if op.name == "LceQuantize":
            return self._flatbuffer.shape(op.inputs[0])[-1]
        return self._flatbuffer.shape(op.inputs[1])[0]

    def finish(self) -> Int8:
        """Compares the ranges with the values on all images, and returns what int8 does to the network."""
        clipped = [t for t, about in self._ranges.items() if self._clips(about)]
        if clipped and self._unlike:
            names = ", ".join(map(self._file.label, clipped))
            self._file.result.notes.append(
                f"int8: the range of {names} clips many values, but the network's inputs lie outside "
                "of those in calibration: these images are not like those"
            )
        elif clipped:
            for tensor in clipped:
                about, (_, low, high) = self._ranges[tensor], self._file.range(tensor)
                message = (
                    f"{self._file.label(tensor)}: {about.outside / about.count:.2%} of the values are outside of its "
                    f"range, {low:.5g} to {high:.5g}: calibrate with images like these"
                )
                self._file.differ("range", self._file.at(tensor), message)
        effect = self._effect
        noisy = {t: about for t, about in self._ranges.items() if about.signal > 0 and about.noise > 0}
        return Int8(
            operators=len(self._file.in_int8),
            change=effect.change / (effect.largest or 1.0),
            mean_change=effect.changes / (effect.total or 1.0),
            agreement=float(np.mean(effect.same)) if effect.same else None,
            flips=effect.flips / effect.bits if effect.bits else 0.0,
            signal_to_noise={
                self._file.name(t): float(10 * np.log10(about.signal / about.noise)) for t, about in noisy.items()
            },
        )

    def _clips(self, about: _Range) -> bool:
        """Whether more values are outside of a range than the method of calibration and chance explain."""
        seen = self._file.about.get("images", np.inf) * about.size

        def are_many(found: int, share: float) -> bool:
            # Of n numbers, the next is the largest or smallest with a probability of 2 / (n + 1).
            expected = (share + 2 / (seen + 1)) * about.count
            return found > expected + 3 * expected**0.5 + 1

        by_error = self._file.about.get("calibration") == "mse" and about.cut > 4 * about.rounding
        few = are_many(about.unseen, _FEW) or (by_error and are_many(about.outside, _FEW))
        return few or are_many(about.outside, _CLIPPED)


def _wrong(op: Operator, found: np.ndarray, definition: integer_executor.Definition) -> str:
    """Where a result is not the definition's; empty if it is."""
    errors = np.abs(found.astype(np.float64) - definition.values)
    bound = np.broadcast_to(definition.bound, errors.shape)
    if np.all(errors <= bound):
        return ""
    where = tuple(int(i) for i in np.argwhere(~(errors <= bound))[0])
    return (
        f"{op.name} gives {at(found, where)} where its definition gives {at(definition.values, where)} before "
        f"rounding, at {where[1:]}; rounding explains {at(bound, where)}"
    )


def _outside(values: np.ndarray, low: float, high: float) -> int:
    """How many values are outside of a range, by more than rounding or another image explains."""
    margin = _OUTSIDE * (high - low)
    return int(np.count_nonzero((values < low - margin) | (values > high + margin)))
