"""Compares a flatbuffer with a Keras model, value by value; LCE's interpreter runs once for each image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from larq_rep.converters import lce, matching, quantized
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.converters.graph import FrozenGraph
from larq_rep.converters.inputs import taken
from larq_rep.converters.verification.amplification import Amplification
from larq_rep.converters.verification.forced import ForcedModel
from larq_rep.converters.verification.image import Image
from larq_rep.converters.verification.integers import compare_integers, integers, pair_integers
from larq_rep.converters.verification.lowering import LoweringComparison
from larq_rep.converters.verification.operators import compare_operators, lce_operators
from larq_rep.converters.verification.outputs import compare_outputs, compare_prediction, compared_outputs
from larq_rep.converters.verification.pairing import mend_pairs, pair_signs
from larq_rep.converters.verification.result import Engine, Verification
from larq_rep.converters.verification.rounding import Rounding, front_tensors, in_front_of_sign
from larq_rep.converters.verification.signs import SignComparison
from larq_rep.converters.verification.thresholds import compare_thresholds
from larq_rep.converters.verification.upstream import Upstream
from larq_rep.converters.verification.weights import Convolutions, compare_weights


class Comparison:
    """Compares a file with a model of the same inputs and outputs.

    # Arguments
        graph: The model.
        flatbuffer: The file.
        result: Gets the differences that are found.
        watch: Further tensors of the file whose values `run` returns.

    # Raises
        RefusedError: If LCE's interpreter does not run the file.
    """

    def __init__(self, graph: FrozenGraph, flatbuffer: Flatbuffer, result: Verification, watch: Iterable[int] = ()):
        self._flatbuffer, self._result = flatbuffer, result
        self.convolutions = Convolutions.of(graph, flatbuffer)
        self._model = ForcedModel(graph, flatbuffer, self.convolutions)
        self._rounding = Rounding(self._model, self.convolutions)
        self._amplification = Amplification(flatbuffer)
        self._upstream = Upstream(self._model)
        self._signs = SignComparison(self._model, self.convolutions, self._rounding, self._upstream, result)
        self._lowering = LoweringComparison(graph, result)
        self._outputs = compared_outputs(graph, flatbuffer)
        self._integers = integers(self._model)
        operators = lce_operators(flatbuffer)
        watched = {t for op in operators for t in (op.inputs[0], *op.outputs)}
        fronts = {t for op in operators for t in front_tensors(flatbuffer, op.outputs[0])}
        fronts |= {in_front_of_sign(flatbuffer, t) for t in fronts}
        watched |= {t for t in fronts if flatbuffer.constant(t) is None}
        watched |= {tensor for _, tensor in self._outputs} | {*self._integers, *quantized.summed(flatbuffer), *watch}
        self._watched = sorted(watched)
        self._interpreter = lce.any_interpreter(flatbuffer.with_outputs(self._watched))
        grouped = any(op.name == "LceBconv2d" and matching.groups(flatbuffer, op) > 1 for op in operators)
        result.engines["lce"] = Engine(lce.version(), "indirect kernel" if grouped else "default kernel")

    def run(self, inputs: Sequence[np.ndarray]) -> dict[int, np.ndarray]:
        """The values of all watched tensors of the file in LCE's interpreter."""
        values = self._interpreter.interpreter.predict(taken(inputs, self._flatbuffer)[0])
        return dict(zip(self._watched, values, strict=True))

    def pair(self, inputs: Sequence[np.ndarray]) -> None:
        """Compares weights and, where they are right, finds the tensors of the file for the model's signs."""
        compare_weights(self.convolutions, self._flatbuffer, self._result)
        if self._result.differences:
            return
        choices = pair_signs(self._model, self.convolutions, self._result)
        values, (_, for_model) = self.run(inputs), taken(inputs, self._flatbuffer)
        pair_integers(self._model, self._integers, for_model, values, self._result)
        mend_pairs(self._model, choices, for_model, values)

    def compare_image(self, index: int, inputs: Sequence[np.ndarray], values: dict[int, np.ndarray]) -> None:
        """Compares the values that `run` returned for an image."""
        model, result = self._model, self._result
        result.images += 1
        result.engines["lce"].images += 1
        compare_operators(self._flatbuffer, self.convolutions.layers, index, values, result)
        if any(d.stage == "weights" for d in result.differences):
            return  # nothing would agree behind different weights, which are already reported
        for_file, for_model = taken(inputs, self._flatbuffer)
        self._lowering.compare_image(index, for_model)
        rounded = [model.fake[name].inputs[0] for name in model.stored]
        outputs = [output for output, _ in self._outputs]
        forced = model.run(for_model, values, [*rounded, *outputs, *(x for x, _ in self._rounding.large)])
        known = {*model.stored.values(), *model.bits.values()}

        def noise(tensor: int) -> float:
            return quantized.noise(self._flatbuffer, tensor, known, values) if self._integers else 0.0

        def moved(tensor: int) -> np.ndarray | float:
            return self._amplification.moved(for_file).get(tensor, 0.0)

        image = Image(index, values, forced, self._rounding.peaks(forced.values), noise, moved)
        flips = result.flips
        compare_integers(model, image, self._rounding, self._upstream, result)
        self._signs.compare(image)
        compare_outputs(self._outputs, model, image, self._upstream, result)
        if result.flips > flips or model.stored:
            compare_prediction(model, image, for_model, result)

    def finish(self, inputs: Sequence[np.ndarray]) -> None:
        """Compares thresholds, and explains differences from `model.predict` that are right."""
        self._lowering.compare_layers()
        self._lowering.compare_convolutions()
        compare_thresholds(self._model, self.convolutions, taken(inputs, self._flatbuffer)[1], self._result)
        self._signs.explain()
