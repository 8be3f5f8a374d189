"""Compares the constants, scales and zero points of a file in int8 with the float file that it was made from."""

from __future__ import annotations

import functools

import numpy as np

from larq_rep.converters import quantized
from larq_rep.converters.flatbuffer import Operator
from larq_rep.converters.float_weights import OUTPUT_CHANNELS
from larq_rep.converters.verification.int8_file import PRODUCTS, Int8File

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
# The smallest share of the values seen in calibration that a method's range covers at each end.
_COVERED = {"minmax": 1.0, "mse": 0.2}
# In steps: the rounding of float32 scales, and of a quotient by them, for numbers of up to 2^8 steps.
_SLACK = 1e-3
# A bias is 2^30 steps at most, and a multiplier 2^-28 at least: their weights may need a larger scale.
_LARGEST_BIAS, _LEAST_MULTIPLIER = 2.0**30, 2.0**-28


class ScaleComparison:
    """Compares all of a file that does not depend on images.

    - Weights are the float ones, rounded to the nearest multiple of max|w| / 127 of their output channel (of all
      weights for a dense layer), or of a scale of which all are multiples; the zero point is 0.
    - Biases are the float ones, rounded to the nearest multiple of the scale of the input times that of the weights.
    - The range of an activation holds 0 as one of its numbers, and lies within the values in calibration, which the
      file records; it covers as many of them as the method demands. Scales are equal where TFLite demands it.
    - All other constants are those of the float file, to the bit.

    # Arguments
        file: The file, whose structure is right.
    """

    def __init__(self, file: Int8File):
        self._file, self._flatbuffer = file, file.flatbuffer

    def compare(self) -> None:
        """Compares all that does not depend on images."""
        in_int8 = {op.index for op in self._file.in_int8}
        for op, float_op in self._file.operators:
            for position, (tensor, meant) in enumerate(zip(op.inputs, float_op.inputs, strict=True)):
                expected, found = self._file.reference.constant(meant), self._flatbuffer.constant(tensor)
                if expected is None:
                    continue
                if found is None or found.shape != expected.shape:
                    self._file.differ("weights", op, f"{op.name} lacks its constant input {position}")
                elif op.index not in in_int8 or expected.dtype != np.float32:
                    # Exact storage loses the sign of a zero.
                    if found.dtype != expected.dtype or (found + 0).tobytes() != (expected + 0).tobytes():
                        message = f"input {position} of {op.name} is not the constant of a fresh conversion"
                        self._file.differ("weights", op, message)
                elif op.name in PRODUCTS and position == 1:
                    self._compare_weights(op, found, expected, self._bias(float_op))
                elif op.name in PRODUCTS and position == PRODUCTS[op.name][1]:
                    self._compare_bias(op, found, expected)
                else:
                    self._compare_operand(op, position, found, expected)
        self._compare_scales()

    def _parameters(self, tensor: int) -> tuple[np.ndarray, np.ndarray]:
        """Scales and zero points of a constant."""
        found = self._flatbuffer.subgraph.tensors[tensor].quantization
        scales = np.zeros(0) if found is None or found.scale is None else np.asarray(found.scale, np.float64)
        zeros = np.zeros(1) if found is None or found.zeroPoint is None else np.asarray(found.zeroPoint)
        return scales, zeros

    def _compare_weights(self, op: Operator, found: np.ndarray, expected: np.ndarray, bias: np.ndarray | None) -> None:
        data, _ = PRODUCTS[op.name]
        axis, dense = OUTPUT_CHANNELS[op.name], op.name == "FULLY_CONNECTED"
        scales, zeros = self._parameters(op.inputs[1])
        count = 1 if dense else expected.shape[axis]
        if found.dtype != np.int8 or len(scales) != count or not np.all(scales > 0):
            message = f"its weights should be int8 with {count} scales, found {found.dtype} with {len(scales)}"
            return self._file.differ("quantization", op, message)
        channel = self._flatbuffer.subgraph.tensors[op.inputs[1]].quantization.quantizedDimension
        if not dense and channel != axis:
            message = f"its weights have scales along axis {channel}, expected {axis}"
            return self._file.differ("quantization", op, message)
        if np.any(zeros):
            message = f"its weights have the zero point {zeros[np.flatnonzero(zeros)[0]]}, expected 0"
            return self._file.differ("quantization", op, message)
        channels = expected.shape[axis]
        values = np.moveaxis(found, axis, 0).reshape(channels, -1).astype(np.float64)
        weights = np.moveaxis(expected, axis, 0).reshape(channels, -1).astype(np.float64)
        quotients = weights / scales[:, None]
        errors = np.abs(values - np.clip(quotients, -127, 127))
        exact = np.all(errors <= _SLACK, axis=None if dense else 1)
        wanted = np.atleast_1d(np.abs(weights).max(axis=None if dense else 1)) / 127
        into, out = (quantized.quantization(self._flatbuffer, t) for t in (op.inputs[data], op.outputs[0]))
        least = np.zeros(count)
        if into is not None and out is not None:
            least += _LEAST_MULTIPLIER * out[0] / into[0]
            if bias is not None:
                needed = np.abs(bias) / (_LARGEST_BIAS * into[0])
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
            self._file.differ("quantization", op, message)
        elif not np.all(errors <= 0.5 + _SLACK):
            first, place = (int(i) for i in np.argwhere(~(errors <= 0.5 + _SLACK))[0])
            message = (
                f"weight {place} of channel {first} is {values[first, place]:.0f} steps, where the float weight is "
                f"{quotients[first, place]:.2f}" + _others(np.any(errors > 0.5 + _SLACK, axis=1))
            )
            self._file.differ("weights", op, message)

    def _bias(self, op: Operator) -> np.ndarray | None:
        """The bias of an operator of the float file."""
        position = PRODUCTS[op.name][1]
        return self._file.reference.constant(op.inputs[position]) if len(op.inputs) > position else None

    def _compare_bias(self, op: Operator, found: np.ndarray, expected: np.ndarray) -> None:
        data, bias = PRODUCTS[op.name]
        weights, _ = self._parameters(op.inputs[1])
        scales, zeros = self._parameters(op.inputs[bias])
        into = quantized.quantization(self._flatbuffer, op.inputs[data])
        if found.dtype != np.int32 or into is None or len(scales) != len(weights):
            return self._file.differ("quantization", op, f"its bias should be int32, found {found.dtype}")
        if np.any(zeros):
            message = f"its bias has the zero point {zeros[np.flatnonzero(zeros)[0]]}, expected 0"
            return self._file.differ("quantization", op, message)
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
            self._file.differ("quantization", op, message)
        elif not np.all(errors <= bound):
            first = int(np.flatnonzero(~(errors <= bound))[0])
            message = (
                f"the bias of channel {first} is {found[first]} steps, where the float bias is "
                f"{(expected / wanted)[first]:.2f}" + _others(errors > bound)
            )
            self._file.differ("quantization", op, message)

    def _compare_operand(self, op: Operator, position: int, found: np.ndarray, expected: np.ndarray) -> None:
        stands = quantized.quantization(self._flatbuffer, op.inputs[position])
        if stands is None or found.dtype != np.int8 or not stands[0] > 0:
            message = f"its constant input {position} should be int8 with a scale, found {found.dtype}"
            return self._file.differ("quantization", op, message)
        quotients = expected.astype(np.float64) / stands[0] + stands[1]
        # The end of a range may be moved by half a step more, so that 0 is a level.
        errors = np.abs(found - quotients)
        if not np.all(errors <= 1 + _SLACK):
            first = tuple(np.argwhere(~(errors <= 1 + _SLACK))[0])
            message = (
                f"its constant input {position} is {found[first]} at {first}, where the float constant is "
                f"{quotients[first]:.2f} steps of its scale"
            )
            self._file.differ("quantization", op, message)

    def _compare_scales(self) -> None:
        """Compares scales and zero points of activations with what operators demand and with the recorded ranges."""
        flatbuffer = self._flatbuffer
        for op in (*self._file.in_int8, *self._file.passes):
            stands = quantized.quantization(flatbuffer, op.outputs[0])
            if op.name in _FIXED and stands != _FIXED[op.name]:
                message = f"its output has scale and zero point {stands}, TFLite demands {_FIXED[op.name]}"
                self._file.differ("quantization", op, message)
            for tensor in op.inputs:
                before = quantized.quantization(flatbuffer, tensor) if flatbuffer.is_computed(tensor) else None
                shared = op.name in _ONE_SCALE or (op.name == "QUANTIZE" and before is not None)
                if shared and before is not None and stands is not None and before != self._shifted(op, tensor):
                    message = (
                        f"{op.name} reads integers of scale and zero point {_text(before)} and writes those of "
                        f"{_text(stands)}; they should be the same"
                    )
                    self._file.differ("quantization", op, message)
        for tensor in self._file.activations:
            if wrong := self._wrong_range(tensor):
                message = f"{flatbuffer.dtype(tensor)} {self._file.label(tensor)}: {wrong}"
                self._file.differ("quantization", self._file.at(tensor), message)

    def _shifted(self, op: Operator, tensor: int) -> tuple[float, int] | None:
        """Scale and zero point of the output as integers of the type of an input."""
        stands = quantized.quantization(self._flatbuffer, op.outputs[0])
        unsigned = [self._flatbuffer.dtype(t) == "uint8" for t in (tensor, op.outputs[0])]
        return None if stands is None else (stands[0], stands[1] + 128 * (unsigned[0] - unsigned[1]))

    @functools.cached_property
    def _sharing(self) -> dict[int, set[int]]:
        """The tensors that share a scale, for each of them."""
        sharing = {t: {t} for t in self._file.activations}
        for op in (*self._file.in_int8, *self._file.passes):
            tensors = [t for t in (*op.inputs, *op.outputs) if t in sharing]
            if op.name in (*_ONE_SCALE, "QUANTIZE"):
                together = set().union(*(sharing[t] for t in tensors))
                sharing.update(dict.fromkeys(together, together))
        return sharing

    def _wrong_range(self, tensor: int) -> str:
        """What is wrong with a tensor's scale and zero point; empty if nothing is."""
        step, low, high = self._file.range(tensor)
        seen = self._file.seen(tensor)
        if not (np.isfinite(step) and step > 0 and low <= 0 <= high):
            return f"0 is none of its numbers, {low:.4g} to {high:.4g} in steps of {step:.4g}"
        if seen is None:
            return "it lacks the smallest and largest value in calibration"
        written = self._file.reference.producers.get(self._file.means[tensor])
        ends = [end for t in self._sharing[tensor] if (end := self._file.seen(t)) is not None]
        least, most = min(end[0] for end in ends), max(end[1] for end in ends)
        if (written is not None and written.name in _FIXED) or (step == 1 and most - least < 1e-30):
            return ""  # A tensor of zeros may have any scale.
        covered = _COVERED.get(self._file.about.get("calibration", ""), 0.0)
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


def _text(stands: tuple[float, int]) -> str:
    return f"{stands[0]:.7g} and {stands[1]}"


def _others(wrong: np.ndarray) -> str:
    """Says how many channels are wrong beside the first."""
    count = int(wrong.sum())
    return f"; {count} of {wrong.size} channels are wrong" if count > 1 else ""
