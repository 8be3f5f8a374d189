"""Pairs the packed tensors of the file with the signs of the model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from larq_rep.converters import matching
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.converters.sign_patterns import BinaryActivation
from larq_rep.converters.verification.forced import ForcedModel
from larq_rep.converters.verification.operators import lce_operators
from larq_rep.converters.verification.result import Verification
from larq_rep.converters.verification.rounding import TOLERANCE, file_front, relative_error, rescaled
from larq_rep.converters.verification.weights import Convolutions


def pair_signs(model: ForcedModel, convolutions: Convolutions, result: Verification) -> dict[str, list[int]]:
    """Sets `model.bits`: a sign's tensor is the input of the convolution it feeds, otherwise one that fits in shape.

    # Returns
        All tensors that each sign may have.
    """
    choices: dict[str, list[int]] = {}
    for i, site in enumerate(convolutions.sites):
        sign = model.graph.sign_of(site.x)
        if i not in convolutions.match.pairs:
            continue
        if sign is None:
            result.notes.append(f"{site.layer}: its sign has an unknown form and was not forced")
            continue
        model.bits.setdefault(sign.output.name, convolutions.match.pairs[i].inputs[0])
        choices.setdefault(sign.output.name, []).extend(op.inputs[0] for op in convolutions.match.alternatives[i])
    written = [op.outputs[0] for op in lce_operators(model.flatbuffer)]
    free = [tensor for tensor in written if model.flatbuffer.dtype(tensor) == "int32"]
    for name, sign in model.signs.items():
        if name in model.bits:
            continue
        fitting = [t for t in free if _unpacked_shape(model.flatbuffer, t, sign) == tuple(sign.output.shape)]
        if not fitting:
            result.notes.append(f"{model.graph.layer_of(sign.output.op)}: this sign stayed float")
            continue
        unused = [t for t in fitting if t not in model.bits.values()]
        model.bits[name] = (unused or fitting)[0]
        choices[name] = fitting
    return choices


def mend_pairs(
    model: ForcedModel, choices: dict[str, list[int]], inputs: Sequence[np.ndarray], values: dict[int, np.ndarray]
) -> None:
    """Mends bad pairs until there is none: layers with equal weights can be told apart only by their data.

    What is computed from a bad pair may be mended wrongly, and again when that pair is good.

    # Arguments
        model: The model, whose `bits` are mended.
        choices: The tensors that each sign may have.
        inputs: Inputs of the model.
        values: Tensors of the file for these.
    """

    def disagreement(tensor: int, sign: BinaryActivation, front: np.ndarray) -> tuple[int, float, float]:
        """The number of other bits and, because planes of one map may have the same, how far the fronts are apart.

        Factors of the channels bring any two maps of one place together, so then their values decide as they are.
        """
        found = file_front(model.flatbuffer, sign, tensor, values)
        shape = _unpacked_shape(model.flatbuffer, tensor, sign) if found is None else found.shape
        if shape != front.shape:
            return front.size + 1, 0.0, 0.0
        other = sign.negative(front) != (matching.unpack(values[tensor], front.shape[-1]) < 0)
        # Rounding decides the others.
        bits = int(np.sum(other & (np.abs(front) > TOLERANCE * np.abs(front).max())))
        if found is None:
            return bits, 0.0, 0.0
        apart = relative_error(rescaled(found, front)[0], front)[0]
        return bits, max(apart, TOLERANCE), relative_error(found, front)[0]

    for _ in range(len(model.bits)):
        fronts, better = model.run(inputs, values).fronts, {}
        for name, tensor in model.bits.items():
            candidates = {tensor, *choices[name]}
            if len(candidates) == 1:
                continue
            wrong = {t: disagreement(t, model.signs[name], fronts[name]) for t in candidates}
            best = min(wrong, key=lambda t: wrong[t])
            if wrong[best] < wrong[tensor]:
                better[name] = best
        if not better:
            return
        model.bits |= better


def _unpacked_shape(flatbuffer: Flatbuffer, tensor: int, sign: BinaryActivation) -> tuple[int, ...]:
    *rest, words = flatbuffer.shape(tensor)
    channels = sign.output.shape[-1]
    return (*rest, channels if words == -(-channels // 32) else -1)
