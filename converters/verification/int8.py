"""Compares a file with operators in int8 with the float file that it was made from.

1. **Structure.** Without the QUANTIZE and DEQUANTIZE of activations, the file has the operators, options and tensors of
   the float file, and its constants to the bit, apart from those of operators in int8.
2. **Constants and scales.** Weights, biases and other operands of operators in int8 are the float constants, rounded
   to the nearest multiple of the scale that these demand; scales and zero points of activations follow from the ranges
   that the file records, and are equal where TFLite demands it.
3. **Operators.** Every operator in int8, QUANTIZE and DEQUANTIZE is computed again in integers from the inputs that
   LCE's interpreter gave it, and every operator of LCE in bits.
4. **Ranges.** The float operators of each island are run on the values at its border. The share of these results
   outside of a tensor's range shows a range that clips.

With 1 to 3 right, the distance from the float results of an island is that of rounding and clipping alone; it is
measured, for each tensor, as a signal-to-noise ratio.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import tensorflow as tf

from larq_rep.converters import float_weights, integer_executor, lce, metadata, quantized
from larq_rep.converters.flatbuffer import Flatbuffer, Operator
from larq_rep.converters.float_weights import OUTPUT_CHANNELS
from larq_rep.converters.graph import FrozenGraph
from larq_rep.converters.inputs import taken
from larq_rep.converters.int8 import is_quantized
from larq_rep.converters.verification.operators import compare_operators, lce_operators
from larq_rep.converters.verification.result import Difference, Int8, Verification
from larq_rep.converters.verification.rounding import at
from larq_rep.converters.verification.storage import plain

_PASSES = ("QUANTIZE", "DEQUANTIZE")
# TFLite demands that these have one scale for all their inputs and outputs.
_ONE_SCALE = {
    "MAX_POOL_2D",
    "AVERAGE_POOL_2D",
    "RESHAPE",
    "SQUEEZE",
    "PAD",
    "PADV2",
    "TRANSPOSE",
    "STRIDED_SLICE",
    "CONCATENATION",
    "DEPTH_TO_SPACE",
    "SPACE_TO_DEPTH",
}
# Scale and zero point that it demands of the output.
_FIXED = {"LOGISTIC": (1 / 256, -128), "SOFTMAX": (1 / 256, -128), "TANH": (1 / 128, 0)}
# Positions of data and bias; the weights are input 1.
_PRODUCTS = {"CONV_2D": (0, 2), "DEPTHWISE_CONV_2D": (0, 2), "FULLY_CONNECTED": (0, 2), "TRANSPOSE_CONV": (2, 3)}
# The smallest share of the values seen in calibration that a method's range covers at each end.
_COVERED = {"minmax": 1.0, "mse": 0.2}
# In steps: the rounding of float32 scales, and of a quotient by them, for numbers of up to 2^8 steps.
_SLACK = 1e-3
# A bias is 2^30 steps at most, and a multiplier 2^-28 at least: their weights may need a larger scale.
_LARGEST_BIAS, _LEAST_MULTIPLIER = 2.0**30, 2.0**-28
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
    """Compares a file with operators in int8 with the float file of the same model.

    # Arguments
        content: The bytes of the file.
        reference: The bytes of the float file.
        graph: The model, for the names of layers.

    # Attributes
        flatbuffer: The file, with float32 weights where only their storage is smaller.
        result: Differences and notes, and the proof for the engine `"lce"`.
        reference: The bytes of the float file.
        watch: Further tensors of the file whose values `compare_image` returns.
        convolutions: The layers of the binary convolutions, by the index of the operator in the float file.
        operators: The operators of the file, by their index in the float file; empty if they do not match.
    """

    def __init__(self, content: bytes, reference: bytes, graph: FrozenGraph):
        self.reference, self.watch, self.convolutions = reference, list[int](), dict[int, str]()
        self.flatbuffer = Flatbuffer(float_weights.expand(content)[0])
        self.result = Verification()
        self._reference, self._graph = Flatbuffer(reference), graph
        said = metadata.read(content).get("int8")
        self._about = said if isinstance(said, dict) else {}
        self._passes = [op for op in self.flatbuffer.operators if op.name in _PASSES and self._computed(op.inputs[0])]
        passes = {op.index for op in self._passes}
        found = [op for op in self.flatbuffer.operators if op.index not in passes]
        # The tensor of the float file that each computed tensor of the file stands for.
        self._means = dict(zip(self.flatbuffer.inputs, self._reference.inputs, strict=False))
        for op, expected in zip(found, self._reference.operators, strict=False):
            self._means |= zip(op.outputs, expected.outputs, strict=False)
        for op in self._passes:  # in execution order
            self._means[op.outputs[0]] = self._means.get(op.inputs[0], -1)
        self.operators: dict[int, Operator] = {}
        if self._outline_agrees(found):
            self.operators = dict(enumerate(found))
            self._float = {op.index: self._reference.operators[i] for i, op in self.operators.items()}
            self._in_int8 = [op for op in found if integer_executor.is_integer(self.flatbuffer, op)]
            self._ranges = {t: _Range() for t in self._activations()}
            self._effect = _Effect()
            self._unlike = False

    # Structure

    def _computed(self, tensor: int) -> bool:
        return tensor in self.flatbuffer.producers or tensor in self.flatbuffer.inputs

    def _activations(self) -> list[int]:
        """The tensors of integers, in the order in which they are computed."""
        written = [t for op in self.flatbuffer.operators for t in op.outputs]
        return [t for t in (*self.flatbuffer.inputs, *written) if quantized.quantization(self.flatbuffer, t)]

    def _outline_agrees(self, found: list[Operator]) -> bool:
        """Whether operators and tensors are those of the float file; says where they are not."""
        ours, theirs = self.flatbuffer, self._reference
        whole = "its operators are not those of a fresh conversion of the model: convert it again with this version"
        if [(op.name, len(op.outputs)) for op in found] != [(op.name, len(op.outputs)) for op in theirs.operators]:
            self.result.differ("structure", "file", 0, whole)
        elif [self._means.get(t) for t in ours.outputs] != theirs.outputs:
            self.result.differ("structure", "file", -1, "its outputs are not those of a fresh conversion of the model")
        else:
            for op, expected in zip(found, theirs.operators, strict=True):
                if wrong := self._wrong_outline(op, expected):
                    message = f"{op.name} {wrong} in a fresh conversion of the model"
                    self.result.differ("structure", self._layer(expected), op.index, message)
        return not self.result.differences

    def _wrong_outline(self, op: Operator, expected: Operator) -> str:
        ours, theirs = self.flatbuffer, self._reference
        if plain(op.options) != plain(expected.options):
            return f"has the options {plain(op.options)}, but {plain(expected.options)}"
        for tensor, meant in zip(op.outputs, expected.outputs, strict=True):
            if ours.shape(tensor) != theirs.shape(meant):
                return f"writes shape {ours.shape(tensor)}, but {theirs.shape(meant)}"
            kinds = ours.dtype(tensor), theirs.dtype(meant)
            if kinds[0] != kinds[1] and (kinds != ("int8", "float32") or op.custom):
                return f"writes {kinds[0]}, but {kinds[1]}"
        if len(op.inputs) != len(expected.inputs):
            return f"has {len(op.inputs)} inputs, but {len(expected.inputs)}"
        for position, (tensor, meant) in enumerate(zip(op.inputs, expected.inputs, strict=True)):
            if theirs.constant(meant) is not None or meant < 0:
                if (ours.constant(tensor) is None) != (meant < 0):
                    return f"computes its input {position}, which is constant"
            elif self._means.get(tensor) != meant:
                return f"reads {ours.name(tensor)!r} as its input {position}, but {theirs.name(meant)!r}"
        return ""

    def in_file(self, difference: Difference) -> Difference:
        """A difference of the float file, at the same operator of this one."""
        op = self.operators.get(difference.operator)
        return difference if op is None else replace(difference, operator=op.index)

    def _layer(self, op: Operator) -> str:
        """The Keras layer of an operator of the float file, or the name of its output."""
        if (known := self.convolutions.get(op.index)) is not None:
            return known
        # Where a normalization was fused with it, a convolution has the name of that, but its weights have its own.
        weights = op.inputs[1:2] if op.name in _PRODUCTS else ()
        names = [self._reference.name(t) for t in (*weights, *op.outputs)]
        for name in names:
            for part in name.split(";"):
                if part in self._nodes:
                    return self._graph.layer_of(self._nodes[part])
        return names[-1].split(";")[0]

    @functools.cached_property
    def _nodes(self) -> dict[str, tf.Operation]:
        return {node.name: node for node in self._graph.nodes}

    @functools.cached_property
    def layers(self) -> dict[int, str]:
        """The layers of the file's operators, by their index."""
        found = {op.index: self._layer(self._reference.operators[i]) for i, op in self.operators.items()}
        return found | {op.index: self._layer_at(self._means[op.outputs[0]]) for op in self._passes}

    def _layer_at(self, tensor: int) -> str:
        op = self._reference.producers.get(tensor)
        return self._reference.name(tensor) if op is None else self._layer(op)

    def _differ(self, stage: str, op: Operator, message: str, image: int | None = None) -> None:
        self.result.differ(stage, self.layers[op.index], op.index, message, image)

    # Constants and scales

    def compare_constants(self) -> None:
        """Compares all that does not depend on images."""
        in_int8 = {op.index for op in self._in_int8}
        for op in self.operators.values():
            for position, tensor in enumerate(op.inputs):
                expected = self._reference.constant(self._float[op.index].inputs[position])
                found = self.flatbuffer.constant(tensor)
                if expected is None:
                    continue
                if found is None or found.shape != expected.shape:
                    self._differ("weights", op, f"{op.name} lacks its constant input {position}")
                elif op.index not in in_int8 or expected.dtype != np.float32:
                    # Exact storage loses the sign of a zero.
                    if found.dtype != expected.dtype or (found + 0).tobytes() != (expected + 0).tobytes():
                        message = f"input {position} of {op.name} is not the constant of a fresh conversion"
                        self._differ("weights", op, message)
                elif op.name in _PRODUCTS and position == 1:
                    self._compare_weights(op, found, expected)
                elif op.name in _PRODUCTS and position == _PRODUCTS[op.name][1]:
                    self._compare_bias(op, found, expected)
                else:
                    self._compare_operand(op, position, found, expected)
        self._compare_scales()

    def _parameters(self, tensor: int) -> tuple[np.ndarray, np.ndarray]:
        """Scales and zero points of a constant."""
        found = self.flatbuffer.subgraph.tensors[tensor].quantization
        scales = np.zeros(0) if found is None or found.scale is None else np.asarray(found.scale, np.float64)
        zeros = np.zeros(1) if found is None or found.zeroPoint is None else np.asarray(found.zeroPoint)
        return scales, zeros

    def _compare_weights(self, op: Operator, found: np.ndarray, expected: np.ndarray) -> None:
        data, bias = _PRODUCTS[op.name]
        axis, dense = OUTPUT_CHANNELS[op.name], op.name == "FULLY_CONNECTED"
        scales, zeros = self._parameters(op.inputs[1])
        count = 1 if dense else expected.shape[axis]
        if found.dtype != np.int8 or len(scales) != count or not np.all(scales > 0):
            message = f"its weights should be int8 with {count} scales, found {found.dtype} with {len(scales)}"
            return self._differ("quantization", op, message)
        channel = self.flatbuffer.subgraph.tensors[op.inputs[1]].quantization.quantizedDimension
        if not dense and channel != axis:
            return self._differ("quantization", op, f"its weights have scales along axis {channel}, expected {axis}")
        if np.any(zeros):
            message = f"its weights have the zero point {zeros[np.flatnonzero(zeros)[0]]}, expected 0"
            return self._differ("quantization", op, message)
        channels = expected.shape[axis]
        values = np.moveaxis(found, axis, 0).reshape(channels, -1).astype(np.float64)
        weights = np.moveaxis(expected, axis, 0).reshape(channels, -1).astype(np.float64)
        quotients = weights / scales[:, None]
        errors = np.abs(values - np.clip(quotients, -127, 127))
        exact = np.all(errors <= _SLACK, axis=None if dense else 1)
        wanted = np.atleast_1d(np.abs(weights).max(axis=None if dense else 1)) / 127
        into, out = (quantized.quantization(self.flatbuffer, t) for t in (op.inputs[data], op.outputs[0]))
        least = np.zeros(count)
        if into is not None and out is not None:
            least += _LEAST_MULTIPLIER * out[0] / into[0]
            constant = self._reference.constant(self._float[op.index].inputs[bias]) if len(op.inputs) > bias else None
            if constant is not None:
                needed = np.abs(constant) / (_LARGEST_BIAS * into[0])
                least = np.maximum(least, needed.max() if dense else needed)
        # Channels of zeros may have any scale.
        wanted = np.where(wanted > 0, np.maximum(wanted, least), scales)
        wrong = ~exact & ~np.isclose(scales, wanted, rtol=1e-5, atol=0)
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            message = (
                f"the scale of channel {first} of its weights is {scales[first]:.7g}, where the float weights demand "
                f"{wanted[first]:.7g}" + _others(wrong)
            )
            self._differ("quantization", op, message)
        elif not np.all(errors <= 0.5 + _SLACK):
            first, place = (int(i) for i in np.argwhere(~(errors <= 0.5 + _SLACK))[0])
            message = (
                f"weight {place} of channel {first} is {values[first, place]:.0f} steps, where the float weight is "
                f"{quotients[first, place]:.2f}" + _others(np.any(errors > 0.5 + _SLACK, axis=1))
            )
            self._differ("weights", op, message)

    def _compare_bias(self, op: Operator, found: np.ndarray, expected: np.ndarray) -> None:
        data, bias = _PRODUCTS[op.name]
        weights, _ = self._parameters(op.inputs[1])
        scales, zeros = self._parameters(op.inputs[bias])
        into = quantized.quantization(self.flatbuffer, op.inputs[data])
        if found.dtype != np.int32 or into is None or len(scales) != len(weights):
            return self._differ("quantization", op, f"its bias should be int32, found {found.dtype}")
        if np.any(zeros):
            message = f"its bias has the zero point {zeros[np.flatnonzero(zeros)[0]]}, expected 0"
            return self._differ("quantization", op, message)
        wanted = into[0] * weights
        wrong = ~np.isclose(scales, wanted, rtol=1e-5, atol=0)
        errors = np.abs(found - expected / wanted)
        # A scale is float32: of a large bias its rounding alone is many steps.
        bound = 0.5 + _SLACK + 2.0**-22 * np.abs(expected / wanted)
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            message = (
                f"the scale of its bias for channel {first} is {scales[first]:.7g}, where those of input and weights "
                f"give {wanted[first]:.7g}" + _others(wrong)
            )
            self._differ("quantization", op, message)
        elif not np.all(errors <= bound):
            first = int(np.flatnonzero(~(errors <= bound))[0])
            message = (
                f"the bias of channel {first} is {found[first]} steps, where the float bias is "
                f"{(expected / wanted)[first]:.2f}" + _others(errors > bound)
            )
            self._differ("quantization", op, message)

    def _compare_operand(self, op: Operator, position: int, found: np.ndarray, expected: np.ndarray) -> None:
        stands = quantized.quantization(self.flatbuffer, op.inputs[position])
        if stands is None or found.dtype != np.int8 or not stands[0] > 0:
            message = f"its constant input {position} should be int8 with a scale, found {found.dtype}"
            return self._differ("quantization", op, message)
        quotients = expected.astype(np.float64) / stands[0] + stands[1]
        # The end of a range may be moved by half a step more, so that 0 is a level.
        errors = np.abs(found - quotients)
        if not np.all(errors <= 1 + _SLACK):
            first = tuple(np.argwhere(~(errors <= 1 + _SLACK))[0])
            message = (
                f"its constant input {position} is {found[first]} at {first}, where the float constant is "
                f"{quotients[first]:.2f} steps of its scale"
            )
            self._differ("quantization", op, message)

    def _compare_scales(self) -> None:
        """Compares scales and zero points of activations with what operators demand and with the recorded ranges."""
        flatbuffer = self.flatbuffer
        for op in (*self._in_int8, *self._passes):
            own = flatbuffer.producers.get(op.outputs[0])
            stands = quantized.quantization(flatbuffer, op.outputs[0])
            if op.name in _FIXED and stands != _FIXED[op.name]:
                message = f"its output has scale and zero point {stands}, TFLite demands {_FIXED[op.name]}"
                self._differ("quantization", op, message)
            for tensor in op.inputs:
                before = quantized.quantization(flatbuffer, tensor) if self._computed(tensor) else None
                shared = op.name in _ONE_SCALE or (op.name == "QUANTIZE" and before is not None)
                if shared and before is not None and stands is not None and before != self._shifted(op, tensor):
                    message = (
                        f"{op.name} reads integers of scale and zero point {_text(before)} and writes those of "
                        f"{_text(stands)}; they should be the same"
                    )
                    self._differ("quantization", own or op, message)
        for tensor in self._ranges:
            if wrong := self._wrong_range(tensor):
                self._differ(
                    "quantization", self._at(tensor), f"{flatbuffer.dtype(tensor)} {self._named(tensor)}: {wrong}"
                )

    def _shifted(self, op: Operator, tensor: int) -> tuple[float, int] | None:
        """Scale and zero point of the output as integers of the type of an input."""
        stands = quantized.quantization(self.flatbuffer, op.outputs[0])
        unsigned = [self.flatbuffer.dtype(t) == "uint8" for t in (tensor, op.outputs[0])]
        return None if stands is None else (stands[0], stands[1] + 128 * (unsigned[0] - unsigned[1]))

    def _at(self, tensor: int) -> Operator:
        """The operator that writes a tensor, or the first that reads it."""
        return self.flatbuffer.producers.get(tensor) or self.flatbuffer.consumers[tensor][0]

    def _named(self, tensor: int) -> str:
        """A tensor by its name in the float file."""
        return self._reference.name(self._means[tensor]).split(";")[0]

    def _seen(self, tensor: int) -> tuple[float, float] | None:
        """The smallest and largest value in calibration, which the file records."""
        found = self.flatbuffer.subgraph.tensors[tensor].quantization
        if any(end is None or len(end) != 1 or not np.isfinite(end[0]) for end in (found.min, found.max)):
            return None
        return min(float(found.min[0]), 0.0), max(float(found.max[0]), 0.0)

    def _range(self, tensor: int) -> tuple[float, float, float]:
        """The step of a tensor, and the real numbers of its smallest and largest integer."""
        scale, zero = quantized.quantization(self.flatbuffer, tensor) or (0.0, 0)
        info = np.iinfo(self.flatbuffer.dtype(tensor))
        return scale, scale * (info.min - zero), scale * (info.max - zero)

    @functools.cached_property
    def _sharing(self) -> dict[int, set[int]]:
        """The tensors that share a scale, for each of them."""
        sharing = {t: {t} for t in self._ranges}
        for op in (*self._in_int8, *self._passes):
            tensors = [t for t in (*op.inputs, *op.outputs) if t in sharing]
            if op.name in (*_ONE_SCALE, "QUANTIZE"):
                together = set().union(*(sharing[t] for t in tensors))
                sharing.update(dict.fromkeys(together, together))
        return sharing

    def _wrong_range(self, tensor: int) -> str:
        """What is wrong with a tensor's scale and zero point; empty if nothing is."""
        step, low, high = self._range(tensor)
        seen = self._seen(tensor)
        if not (np.isfinite(step) and step > 0 and low <= 0 <= high):
            return f"0 is none of its numbers, {low:.4g} to {high:.4g} in steps of {step:.4g}"
        if seen is None:
            return "it lacks the smallest and largest value in calibration"
        op = self.flatbuffer.producers.get(tensor)
        ends = [end for t in self._sharing[tensor] if (end := self._seen(t)) is not None]
        least, most = min(end[0] for end in ends), max(end[1] for end in ends)
        if (op is not None and op.name in _FIXED) or (step == 1 and most - least < 1e-30):
            return ""  # A tensor of zeros may have any scale.
        covered = _COVERED.get(self._about.get("calibration", ""), 0.0)
        moved = step * (0.5 + _SLACK)  # so that 0 is one of its numbers
        if low < least - moved or high > most + moved:
            return (
                f"its numbers go from {low:.5g} to {high:.5g} in steps of {step:.4g}, beyond the values in "
                f"calibration, {least:.5g} to {most:.5g}"
            )
        if low > covered * seen[0] + moved or high < covered * seen[1] - moved:
            return (
                f"its numbers go only from {low:.5g} to {high:.5g} in steps of {step:.4g}, where the values in "
                f"calibration were {seen[0]:.5g} to {seen[1]:.5g}"
            )
        return ""

    # On images

    @functools.cached_property
    def _watched(self) -> list[int]:
        operators = [*self._in_int8, *self._passes, *lce_operators(self.flatbuffer)]
        tensors = {t for op in operators for t in (*op.inputs, *op.outputs)}
        border = {t for op in self._passes for t in op.inputs}
        wanted = {*tensors, *border, *self.flatbuffer.outputs, *self.watch} & self.flatbuffer.producers.keys()
        return sorted(wanted)

    @functools.cached_property
    def _interpreter(self) -> lce.Interpreter:
        return lce.any_interpreter(self.flatbuffer.with_outputs(self._watched))

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
        chosen = [self._float[op.index] for op in self._in_int8]
        results = sorted({t for op in chosen for t in op.outputs})
        content, inputs = self._reference.cut(chosen, results)
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
        flatbuffer = self.flatbuffer
        for_file, _ = taken(inputs, flatbuffer)
        values = dict(zip(self._watched, self._interpreter.interpreter.predict(for_file), strict=True))
        known = values | dict(zip(flatbuffer.inputs, for_file, strict=True))
        compare_operators(flatbuffer, self.layers, index, known, self.result)
        compared = 0
        for op in (*self._in_int8, *self._passes):
            compared += self._compare_operator(op, index, known)
        self.result.engines["lce"].operators += compared
        self._measure_ranges(inputs, known)
        self._measure_effect(known, reference)
        return values

    def _compare_operator(self, op: Operator, index: int, values: Mapping[int, np.ndarray]) -> bool:
        definition = integer_executor.defined(self.flatbuffer, op, values)
        if definition is None:
            self._differ("operator", op, f"{op.name} in int8 has no definition here: it cannot be compared")
            return False
        found = values[op.outputs[0]]
        errors = np.abs(found.astype(np.float64) - definition.values)
        if not np.all(errors <= definition.bound):
            where = tuple(int(i) for i in np.argwhere(~(errors <= definition.bound))[0])
            bound = np.broadcast_to(definition.bound, errors.shape)
            message = (
                f"{op.name} gives {at(found, where)} where its definition gives {at(definition.values, where)} before "
                f"rounding, at {where[1:]}; rounding explains {at(bound, where)}"
            )
            self._differ("operator", op, message, index)
            self.result.engines["lce"].bit_equal = False
        return True

    def _measure_ranges(self, inputs: Sequence[np.ndarray], values: Mapping[int, np.ndarray]) -> None:
        """Compares the values of each tensor of integers with those of float operators on the island's inputs."""
        real = dict(zip(self._reference.inputs, inputs, strict=True))
        for op in self.operators.values():
            real |= {self._means[t]: values[t] for t in op.outputs if t in values and values[t].dtype == np.float32}
        if self._in_int8:
            interpreter, taken_from, results = self._islands
            computed = interpreter.interpreter.predict([real[t] for t in taken_from])
            real |= dict(zip(results, computed, strict=True))
        for tensor, about in self._ranges.items():
            expected = real[self._means[tensor]].astype(np.float64)
            step, low, high = self._range(tensor)
            seen = self._seen(tensor) or (low, high)
            about.size, about.count = expected.size, about.count + expected.size
            about.outside += _outside(expected, low, high)
            about.unseen += _outside(expected, *seen)
            about.signal += float(np.square(expected).sum())
            about.noise += float(np.square(quantized.real(self.flatbuffer, tensor, values[tensor]) - expected).sum())
            known = np.clip(expected, *seen)
            about.cut += float(np.square(known - np.clip(known, low, high)).sum())
            about.rounding += step**2 / 12 * int(np.count_nonzero(expected))
        self._unlike = self._unlike or self._is_unlike(inputs)

    def _is_unlike(self, inputs: Sequence[np.ndarray]) -> bool:
        """Whether an input of the network is outside of what was seen in calibration."""
        for array, ends in zip(inputs, self._about.get("inputs") or [], strict=False):
            if _outside(array, *ends) > _UNLIKE * array.size:
                return True
        return False

    def _measure_effect(self, values: Mapping[int, np.ndarray], reference: Mapping[int, np.ndarray]) -> None:
        effect = self._effect
        for ours, theirs in zip(self.flatbuffer.outputs, self._reference.outputs, strict=True):
            found, expected = quantized.real(self.flatbuffer, ours, values[ours]), reference[theirs]
            if expected.dtype.kind != "f":
                continue
            change = np.abs(found.astype(np.float64) - expected)
            effect.largest = max(effect.largest, float(np.abs(expected).max()))
            effect.change = max(effect.change, float(change.max()))
            effect.total += float(np.abs(expected).sum())
            effect.changes += float(change.sum())
            if len(self.flatbuffer.outputs) == 1 and expected.ndim == 2 and expected.shape[1] > 1:
                effect.same += (found.argmax(axis=1) == expected.argmax(axis=1)).tolist()
        for index, op in self.operators.items():
            ours, theirs = op.outputs[0], self._reference.operators[index].outputs[0]
            if op.name in ("LceQuantize", "LceBconv2d") and self.flatbuffer.dtype(ours) == "int32":
                different = (values[ours] ^ reference[theirs]).view(np.uint8)
                effect.flips += int(np.unpackbits(different).sum())
                effect.bits += self._channels(op) * math.prod(values[ours].shape[:-1])

    def _channels(self, op: Operator) -> int:
        """The number of bits that an operator packs for each place."""
        return (
            self.flatbuffer.shape(op.inputs[0])[-1]
            if op.name == "LceQuantize"
            else self.flatbuffer.shape(op.inputs[1])[0]
        )

    def finish(self) -> Int8:
        """Compares the ranges with the values on all images, and returns what int8 does to the network."""
        clipped = [t for t, about in self._ranges.items() if self._clips(about)]
        if clipped and self._unlike:
            names = ", ".join(self._named(t) for t in clipped)
            self.result.notes.append(
                f"int8: the range of {names} clips many values, but the network's inputs lie outside "
                "of those in calibration: these images are not like those"
            )
        elif clipped:
            for tensor in clipped:
                about, (_, low, high) = self._ranges[tensor], self._range(tensor)
                message = (
                    f"{self._named(tensor)}: {about.outside / about.count:.2%} of the values are outside of its range, "
                    f"{low:.5g} to {high:.5g}: calibrate with images like these"
                )
                self._differ("range", self._at(tensor), message)
        effect = self._effect
        noisy = {t: about for t, about in self._ranges.items() if about.signal > 0 and about.noise > 0}
        return Int8(
            operators=len(self._in_int8),
            change=effect.change / (effect.largest or 1.0),
            mean_change=effect.changes / (effect.total or 1.0),
            agreement=float(np.mean(effect.same)) if effect.same else None,
            flips=effect.flips / effect.bits if effect.bits else 0.0,
            signal_to_noise={
                self._reference.name(self._means[t]): float(10 * np.log10(about.signal / about.noise))
                for t, about in noisy.items()
            },
        )

    def _clips(self, about: _Range) -> bool:
        """Whether more values are outside of a range than the method of calibration and chance explain."""
        seen = self._about.get("images", np.inf) * about.size

        def are_many(found: int, share: float) -> bool:
            # Of n numbers, the next is the largest or smallest with a probability of 2 / (n + 1).
            expected = (share + 2 / (seen + 1)) * about.count
            return found > expected + 3 * expected**0.5 + 1

        by_error = self._about.get("calibration") == "mse" and about.cut > 4 * about.rounding
        few = are_many(about.unseen, _FEW) or (by_error and are_many(about.outside, _FEW))
        return few or are_many(about.outside, _CLIPPED)


def _outside(values: np.ndarray, low: float, high: float) -> int:
    """How many values are outside of a range, by more than rounding or another image explains."""
    margin = _OUTSIDE * (high - low)
    return int(np.count_nonzero((values < low - margin) | (values > high + margin)))


def _text(stands: tuple[float, int]) -> str:
    return f"{stands[0]:.7g} and {stands[1]}"


def _others(wrong: np.ndarray) -> str:
    """Says how many channels are wrong beside the first."""
    count = int(wrong.sum())
    return f"; {count} of {wrong.size} channels are wrong" if count > 1 else ""
