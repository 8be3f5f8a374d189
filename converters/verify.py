"""Proof that a flatbuffer computes what a Keras model computes.

Comparing the outputs of two engines proves little: an activation within the rounding of its threshold flips
its sign, and in an untrained network one flip changes everything behind it. Here nothing can cascade:

1. **Weights.** Every binary convolution of the model is found in the file with exactly its signs.
2. **Operators.** Every `LceBconv2d`, `LceQuantize` and `LceBMaxPool2d` is computed again in numpy from the
   packed input that LCE gave it. Packed outputs must be equal, floats equal to rounding.
3. **Signs.** The Keras model is run with the output of every sign replaced by the bits that LCE used. The
   values in front of each sign must then agree to rounding, and where the sign of the model's value is not
   LCE's bit, that value must be zero to rounding. A threshold that the file holds as an integer is compared
   with the zero of the model's value as a function of the popcount.
4. **Outputs** of this forced run must agree to rounding.

A file whose real weights are stored as float16 or int8 is compared constant by constant with the float32 file
of the same model, which is then proved as above.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from larq_rep.converters import float_weights
from larq_rep.converters.audit import audit_model
from larq_rep.converters.comparison import Comparison, Difference, Verification
from larq_rep.converters.convert import ConversionError, convert
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.converters.graph import FrozenGraph


def verify(
    model: tf.keras.Model,
    content: bytes,
    images: np.ndarray,
    *,
    progress: Callable[[Iterable[int]], Iterable[int]] = lambda x: x,
) -> Verification:
    """Compares a flatbuffer with the Keras model that it was made from, operator by operator.

    # Arguments
        model: The Keras model, of one input.
        content: The bytes of the `.tflite` file.
        images: Float array (N, height, width, channels), preprocessed as for the model.
        progress: Wraps the loop over images, to show a bar.

    # Raises
        ConversionError: If the model could not be converted at all.
        InvalidFlatbufferError: If the file is not a TFLite file.
        IncomparableError: If file and model differ in their inputs or outputs, or the images do not fit.
        RefusedError: If LCE's interpreter does not run the file.
    """
    findings = audit_model(model)
    if findings:
        raise ConversionError(findings)
    stored: list[Difference] = []
    if float_weights.storage(content) != "float32":
        reference, _ = convert(model, allow_float=True)
        stored = compare_storage(content, reference)
        content = reference
    comparison = Comparison(FrozenGraph(model), model, Flatbuffer(content))
    comparison.check_interfaces(images)
    comparison.result.differences += stored
    comparison.compare_weights()
    if not comparison.result.differences:
        comparison.assign_signs(images[:1])
    for index in progress(range(len(images))):
        comparison.compare_image(index, images[index : index + 1])
    comparison.compare_thresholds()
    # An output or a later sign differs because an earlier one does: the first is what matters.
    comparison.result.differences.sort(key=lambda d: (d.operator < 0, d.operator))
    return comparison.result


def compare_storage(content: bytes, reference: bytes) -> list[Difference]:
    """Differences between a file with float16 or int8 weights and the float32 file of the same model.

    Apart from rounding a weight to its storage, which has a known bound, nothing may differ. So the one is
    proved by the proof of the other.
    """
    expanded, bounds = float_weights.expand(content)
    found, expected = Flatbuffer(expanded), Flatbuffer(reference)

    def outline(file: Flatbuffer) -> list[tuple[Any, ...]]:
        return [(op.name, op.inputs, op.outputs, str(op.options) if op.custom else None) for op in file.operators]

    if outline(found) != outline(expected):
        return [
            Difference(
                "structure",
                "file",
                0,
                "its operators are not those of a fresh conversion of the model: convert it again with this version",
            )
        ]
    differences = []
    for op in expected.operators:
        for tensor in op.inputs:
            ours, theirs = expected.constant(tensor), found.constant(tensor)
            if ours is None or theirs is None:
                continue
            error = np.abs(theirs.astype(np.float64) - ours)
            bound = np.broadcast_to(bounds.get(tensor, 0.0), error.shape)
            if np.any(error > bound):
                worst = int(np.argmax(error - bound))
                differences.append(
                    Difference(
                        "weights",
                        expected.name(tensor).split(";")[0],
                        op.index,
                        f"a constant of {op.name} differs by {error.flat[worst]:.3g} where its storage allows "
                        f"{bound.flat[worst]:.3g}",
                    )
                )
    return differences
