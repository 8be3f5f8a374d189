"""Compares the values in front of each sign in file and model, and checks that the file's bit is their sign."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from larq_rep.converters import matching
from larq_rep.converters.sign_patterns import BinaryActivation
from larq_rep.converters.verification.forced import ForcedModel
from larq_rep.converters.verification.image import Image
from larq_rep.converters.verification.result import Verification
from larq_rep.converters.verification.rounding import (
    OUTPUT_TOLERANCE,
    TOLERANCE,
    Rounding,
    at,
    file_front,
    front_tensors,
    relative_error,
    rescaled,
)
from larq_rep.converters.verification.upstream import Upstream
from larq_rep.converters.verification.weights import Convolutions

# From so many places on, no factors for the channels bring wrong values near to the right ones.
_PLACES = 16


class SignComparison:
    """Compares signs image by image, and counts those that turned.

    # Arguments
        model: The model, whose signs are paired with the file.
        convolutions: Its binary convolutions.
        rounding: How far both may differ.
        upstream: The layers between two comparisons.
        result: Gets differences and counts.
    """

    def __init__(
        self,
        model: ForcedModel,
        convolutions: Convolutions,
        rounding: Rounding,
        upstream: Upstream,
        result: Verification,
    ):
        self._model, self._convolutions = model, convolutions
        self._rounding, self._upstream, self._result = rounding, upstream, result
        # Layers whose sums of exactly 0 LCE's correction of zero padding turned negative, and how many of them.
        self._turned_at_border: dict[str, int] = {}
        # The values in front of each sign, in file and model, on the images before, up to `_PLACES` of them.
        self._before: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}

    def compare(self, image: Image) -> None:
        for name, tensor in self._model.bits.items():
            self._compare(image, self._model.signs[name], tensor, image.forced.fronts[name])

    def _compare(self, image: Image, sign: BinaryActivation, tensor: int, expected: np.ndarray) -> None:
        flatbuffer = self._model.flatbuffer
        producer = flatbuffer.producers[tensor]
        sources = front_tensors(flatbuffer, tensor) or [producer.inputs[0]]
        magnitude = self._rounding.magnitude(sign.compared, image.peaks) + float(np.abs(expected).max())
        magnitude += sum(map(image.noise, sources)) / TOLERANCE
        found = file_front(flatbuffer, sign, tensor, image.values)
        negative = matching.unpack(image.values[tensor], expected.shape[-1]) < 0
        flipped = sign.negative(expected) != negative
        self._result.activations += flipped.size
        self._result.flips += int(flipped.sum())
        if exact := int(np.sum(flipped & (expected == 0))):
            self._note_border(sign, exact)
        before = self._before.setdefault(sign.output.name, [])
        error, where = self._apart(found, expected, flipped, magnitude, before)
        if not error <= TOLERANCE and found is not None:
            moved = sum(map(image.moved, sources))
            error, where = self._apart(found, expected, flipped, magnitude, before, moved)
        if found is not None and sum(x[..., 0].size for x, _ in before) < _PLACES:
            before.append((found, expected))
        self._result.sign_error = max(self._result.sign_error, error)
        wrong = not error <= TOLERANCE
        if not wrong and found is not None and np.any(tie := flipped & (expected == 0) & (found == 0)):
            wrong, where = True, tuple(int(i) for i in np.argwhere(tie)[0])
        if wrong:
            value = "-1" if found is None and negative[where] else "+1" if found is None else at(found, where)
            message = (
                f"in front of its sign the model has {at(expected, where)}, the file {value} at "
                f"{tuple(int(i) for i in where[1:])}, computed since the last comparison by "
                f"{self._upstream.layers(sign.compared)}"
            )
            self._result.differ("sign", self._layers(sign), producer.index, message, image.index)

    def _apart(
        self,
        found: np.ndarray | None,
        expected: np.ndarray,
        flipped: np.ndarray,
        magnitude: float,
        before: Sequence[tuple[np.ndarray, np.ndarray]],
        moved: float | np.ndarray = 0.0,
    ) -> tuple[float, tuple[int, ...]]:
        """How far the values in front of a sign are apart, or those whose sign turned from 0, and where."""
        error, where = 0.0, tuple[int, ...]()
        if found is not None:
            error, where = relative_error(found, expected, magnitude, moved)
            if not error <= TOLERANCE:
                # One factor for all images: any would fit a single place.
                fitted, factors = rescaled(*map(np.concatenate, zip(*before, (found, expected), strict=True)))
                fitted = fitted[-len(found) :]
                error, where = min((error, where), relative_error(fitted, expected, magnitude, moved * factors))
                moved = moved * factors
        if error <= TOLERANCE and flipped.any():
            turned = relative_error(np.zeros_like(expected), np.where(flipped, expected, 0), magnitude, moved)
            error, where = max((error, where), turned)
        return error, where

    def _layers(self, sign: BinaryActivation) -> str:
        graph = self._model.graph
        layers = [site.layer for site in self._convolutions.sites if graph.sign_of(site.x) is sign]
        return ", ".join(layers) or graph.layer_of(sign.output.op)

    def _note_border(self, sign: BinaryActivation, turned: int) -> None:
        """Remembers sums of exactly 0 that turned, if a zero-padded convolution computes them."""
        for node in self._upstream.nodes(sign.compared):
            op = self._convolutions.operators.get(node.name)
            if op is not None and op.options["padding"] == 0 and op.options["pad_values"] == 0:
                layer = self._convolutions.layers[op.index]
                self._turned_at_border[layer] = self._turned_at_border.get(layer, 0) + turned
                return

    def explain(self) -> None:
        """Notes why `model.predict` differs from a file that is right."""
        result = self._result
        if not result.ok or not result.predict_error > OUTPUT_TOLERANCE:
            return
        differs = f"model.predict differs from the file by up to {result.predict_error:.1%} of the largest output, and"
        if not result.flips:
            result.notes.append(
                f"{differs} the file is right: LCE computes with integers of 8 bits, weights too, where the model "
                "rounds real numbers. With the file's own integers they agree."
            )
            return
        count = sum(self._turned_at_border.values())
        reason = "0 up to rounding in front of their sign, which the file rounds to the other side"
        if count == result.flips:
            reason = (
                "sums of exactly 0 at the zero-padded border of "
                f"{', '.join(self._turned_at_border)}, which LCE's correction of the padding rounds to a number below "
                "0 (training moves sums away from 0; pad_values=1 needs no correction)"
            )
        elif count:
            reason += (
                f" ({count} of them sums of exactly 0 at the zero-padded border of "
                f"{', '.join(self._turned_at_border)}, rounded by LCE's correction of the padding)"
            )
        result.notes.append(
            f"{differs} the file is right: {result.flips} of {result.activations:,} activations are {reason}. Each "
            "changes all that follows; with the file's own signs the outputs agree."
        )
