"""Measures how far file and model differ, and how far they may because both round."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from larq_rep.converters import matching, quantized
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.converters.sign_patterns import BinaryActivation, binary_activation
from larq_rep.converters.tensors import resolve
from larq_rep.converters.verification.forced import ForcedModel
from larq_rep.converters.verification.weights import Convolutions

# Allowed difference in front of a sign and at an output, as a share of the magnitude that `Rounding` explains.
# Correct conversions of the zoo were seen to stay below 1e-6.
TOLERANCE = 4e-6
# The same at an output, as a share of its largest value; correct conversions were seen to stay below 1e-5.
OUTPUT_TOLERANCE = 5e-5
# The same between an operator of LCE and its definition, whose order of operations is known.
OPERATOR_TOLERANCE = 2e-6
_LARGEST = float(np.finfo(np.float32).max)
_CLIPS = ("ClipByValue", "Maximum", "Minimum", "Relu", "Relu6")


class Rounding:
    """A measure of the float32 rounding behind a tensor, beside the largest value of the tensor itself.

    A sum may have been larger before it was clipped, or before a batch norm took its mean away. And LCE
    computes a binary convolution of K terms with multiplier m as m * popcount + (K * m + bias), so it rounds like K * m
    even where the result is small; a fifth of K * m bounds the errors seen. A multiplication before data is added
    scales the rounding too.

    # Arguments
        model: The model; its signs must be paired with the file before `magnitude` is called.
        convolutions: Its binary convolutions.

    # Attributes
        large: Tensors whose rounding is larger than the values behind them, and their factors.
    """

    def __init__(self, model: ForcedModel, convolutions: Convolutions):
        self._model, self._operators = model, convolutions.operators
        graph = model.graph
        self.large = [(x, 1.0) for node in graph.nodes if node.type in _CLIPS for x in node.inputs[:1]]
        norms = [node for node in graph.nodes if node.type.startswith("FusedBatchNorm")]
        constants = iter(graph.run([x for node in norms for x in (node.inputs[1], node.inputs[4])]))
        for node in norms:
            gamma, variance = next(constants), next(constants)
            if resolve(node.inputs[0]).op.name not in self._operators and variance.size:
                gain = np.abs(gamma) / np.sqrt(variance + node.get_attr("epsilon"))
                self.large.append((node.inputs[0], float(gain.max(initial=0.0))))
        self._sums: dict[str, tuple[float, set[int]]] = {}

    def peaks(self, values: dict[str, np.ndarray]) -> list[float]:
        """The largest value of each of `large` on an image, times its factor."""
        return [gain * float(np.abs(values[x.name]).max()) for x, gain in self.large]

    def magnitude(self, tensor: tf.Tensor, peaks: list[float]) -> float:
        """The measure for a tensor of the model.

        # Arguments
            tensor: The tensor.
            peaks: The peaks of the image.
        """
        if tensor.name not in self._sums:
            self._sums[tensor.name] = self._sums_behind(tensor)
        binary, large = self._sums[tensor.name]
        return binary + max((peaks[i] for i in large), default=0.0)

    def _sums_behind(self, tensor: tf.Tensor) -> tuple[float, set[int]]:
        """The share of binary convolutions, which is the same on every image, and the positions in `large`."""
        largest = 0.0
        behind = {node.name for node in self._model.behind(tensor)}
        for name in behind.intersection(self._operators):
            op = self._operators[name]
            if (multiplier := self._model.flatbuffer.constant(op.inputs[2])) is not None:
                count = np.prod(matching.filter_signs(self._model.flatbuffer, op).shape[:3])
                largest = max(largest, float(count * np.abs(multiplier).max() * self._gain(op.outputs[0])))
        return 0.2 * largest, {i for i, (x, _) in enumerate(self.large) if x.op.name in behind}

    def _gain(self, tensor: int) -> float:
        """Factor of the multiplications by constants that follow a tensor of the file."""
        flatbuffer = self._model.flatbuffer
        readers = flatbuffer.consumers.get(tensor, [])
        if len(readers) != 1 or readers[0].name not in ("TILE", "MUL", "CONCATENATION"):
            return 1.0
        factor = 1.0
        if readers[0].name == "MUL":
            constants = [c for t in readers[0].inputs if (c := flatbuffer.constant(t)) is not None]
            if not constants:
                return 1.0
            factor = float(np.abs(constants[0]).max())
        return factor * self._gain(readers[0].outputs[0])


def relative_error(
    found: np.ndarray, expected: np.ndarray, magnitude: float | None = None, explained: float | np.ndarray = 0.0
) -> tuple[float, tuple[int, ...]]:
    """Largest difference as a share of a magnitude (the largest expected one), and where; NaN if not finite.

    What is explained otherwise, a number or one for each channel, is taken off the differences.
    """
    # Some engines turn an overflow into the largest number.
    found, expected = (np.clip(x.astype(np.float64), -_LARGEST, _LARGEST) for x in (found, expected))
    difference = np.maximum(np.abs(found - expected) - explained, 0)
    where = np.unravel_index(int(np.argmax(np.nan_to_num(difference, nan=np.inf))), difference.shape)
    magnitude = float(np.abs(expected).max()) if magnitude is None else magnitude
    return float(difference[where] / magnitude if magnitude > 0 else difference[where]), tuple(int(i) for i in where)


def front_tensors(flatbuffer: Flatbuffer, tensor: int) -> list[int]:
    """The tensors of the file whose sign bits are: of one, or of the first minus the second.

    There are none where a convolution writes bits.
    """
    producer = flatbuffer.producers[tensor]
    if producer.name != "LceQuantize":
        return []
    (source,) = producer.inputs
    if flatbuffer.dtype(source) != "bool":
        return [source]
    comparison = flatbuffer.producers.get(source)
    if comparison is None or comparison.name.removesuffix("_EQUAL") not in ("GREATER", "LESS"):
        return []
    return list(comparison.inputs) if comparison.name.startswith("GREATER") else list(reversed(comparison.inputs))


def in_front_of_sign(flatbuffer: Flatbuffer, tensor: int) -> int:
    """The tensor y if one is sign(y) + c with c between 0 and 1, of which the sign is that of y; else the tensor."""
    producer = flatbuffer.producers.get(tensor)
    if producer is None or producer.name != "ADD":
        return tensor
    for x, c in (producer.inputs, reversed(producer.inputs)):
        sign, value = flatbuffer.producers.get(x), flatbuffer.constant(c)
        if sign is not None and sign.name == "SIGN" and value is not None and np.all((value > 0) & (value < 1)):
            return in_front_of_sign(flatbuffer, sign.inputs[0])
    return tensor


def file_front(
    flatbuffer: Flatbuffer, sign: BinaryActivation, tensor: int, values: dict[int, np.ndarray]
) -> np.ndarray | None:
    """The file's values in front of a sign; `None` where a convolution writes bits.

    Of a sign behind a sign LCE packs the last. The values in front of the first are then in front of both.
    """
    found = []
    first = binary_activation(resolve(sign.compared).op) is None
    for t in front_tensors(flatbuffer, tensor):
        t = in_front_of_sign(flatbuffer, t) if first else t
        constant = flatbuffer.constant(t)
        found.append(quantized.real(flatbuffer, t, values[t] if constant is None else constant))
    if len(found) == 2:
        return found[0] - found[1]
    if found:
        return -found[0] if sign.negated else found[0]
    return None


def rescaled(found: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values in front of a sign, each channel times the positive factor that brings it nearest to the expected ones.

    Returns the factors, too.

    Folding leaves out operations that change no sign: positive factors of a channel, and clipping to [-1, 1]. If a
    value also goes elsewhere, a wrong factor shows there.
    """
    axes = tuple(range(found.ndim - 1))
    clipped = bool(np.abs(expected).max() <= 1)
    found64 = found.astype(np.float64)
    counted = np.where(np.abs(expected) < 1, found64, 0) if clipped else found64
    squares = (counted**2).sum(axis=axes)
    factors = (counted * expected).sum(axis=axes) / np.where(squares > 0, squares, 1)
    # Where all values of a channel are clipped, any large factor shows that they are on the right side.
    factors = np.where(factors > 0, factors, np.where(squares > 0, 0, 1e6))
    return np.clip(found64 * factors, -1, 1) if clipped else found64 * factors, factors


def at(values: np.ndarray, where: tuple[int, ...]) -> str:
    return f"{values[where]:.7g}"
