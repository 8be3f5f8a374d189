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
from typing import Any, cast

import larq_rep_runtime
import numpy as np
import tensorflow as tf
from larq_rep_runtime.metadata import read_metadata

from larq_rep.converters import float_weights, lce, metadata
from larq_rep.converters.audit import audit_model
from larq_rep.converters.comparison import Comparison, Difference, IncomparableError, Verification
from larq_rep.converters.convert import ConversionError, convert, without_mirror
from larq_rep.converters.delegate import compare_delegate
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.converters.graph import FrozenGraph

RUNTIMES = ("lce", "delegate")


def verify(
    model: tf.keras.Model,
    content: bytes,
    images: np.ndarray,
    *,
    runtime: str = "lce",
    progress: Callable[[Iterable[int]], Iterable[int]] = lambda x: x,
) -> Verification:
    """Compares a flatbuffer with the Keras model that it was made from, operator by operator.

    # Arguments
        model: The Keras model, of one input.
        content: The bytes of the `.tflite` file.
        images: Float array (N, height, width, channels), preprocessed as for the model. For a file that takes
            mirrored images they are mirrored.
        runtime: `"delegate"` to run the file with the delegate of `larq_rep_runtime` on stock TFLite, too, and compare
            it with LCE's interpreter on each image.
        progress: Wraps the loop over images, to show a bar.

    # Raises
        DelegateError: If the delegate is asked for and is missing or does not run the file.
        ConversionError: If the model could not be converted at all.
        InvalidFlatbufferError: If the file is not a TFLite file.
        IncomparableError: If file and model differ in their inputs or outputs, or the images do not fit.
        RefusedError: If LCE's interpreter does not run the file.
    """
    about = read_metadata(content)
    if about.get("mirrored_input"):
        try:
            model, images = without_mirror(model), metadata.as_taken(about, images)
        except ValueError as error:
            raise IncomparableError("The file takes mirrored images, but the model has no Mirror layer.") from error
    if runtime not in RUNTIMES:
        raise ValueError(f"verify: runtime should be one of {', '.join(map(repr, RUNTIMES))}, found {runtime!r}.")
    if runtime == "delegate":
        larq_rep_runtime.delegate_path()  # Before the work, where it is missing.
    findings = audit_model(model)
    if findings:
        raise ConversionError(findings)
    file = content
    stored: list[Difference] = []
    if float_weights.storage(content) != "float32":
        for fold in (True, False):
            reference, _ = convert(model, allow_float=True, fold=fold)
            stored = compare_storage(content, reference, images[:1])
            if not any(difference.stage == "structure" for difference in stored):
                break
        content = reference
    comparison = Comparison(FrozenGraph(model), model, Flatbuffer(content))
    comparison.check_interfaces(images)
    comparison.result.differences += stored
    if any(difference.stage == "structure" for difference in stored):
        return comparison.result
    comparison.compare_weights()
    if not comparison.result.differences:
        comparison.assign_signs(images[:1])
    for index in progress(range(len(images))):
        comparison.compare_image(index, images[index : index + 1])
    comparison.compare_thresholds()
    if runtime == "delegate":
        comparison.result.differences += compare_delegate(file, images)
    # An output or a later sign differs because an earlier one does: the first is what matters.
    comparison.result.differences.sort(key=lambda d: (d.operator < 0, d.operator))
    return comparison.result


def compare_storage(content: bytes, reference: bytes, image: np.ndarray) -> list[Difference]:
    """Differences between a file with float16 or int8 weights and the float32 file of the same model.

    Apart from rounding a weight to its storage, whose bound the float32 file gives, nothing may differ: then the
    one is proved by the proof of the other. The file is run too, on one image, and must give what the same file
    with unpacked weights gives.
    """
    expanded, _ = float_weights.expand(content)
    storage = cast(float_weights.StorageType, float_weights.storage(content))
    _, bounds = float_weights.expand(float_weights.compress(reference, storage)[0])
    found, expected = Flatbuffer(expanded), Flatbuffer(reference)

    def outline(file: Flatbuffer) -> list[Any]:
        operators = [(op.name, op.inputs, op.outputs, _plain(op.options)) for op in file.operators]
        tensors = sorted({t for op in file.operators for t in (*op.inputs, *op.outputs) if t >= 0})
        return [file.inputs, file.outputs, operators, [(t, file.shape(t), file.dtype(t)) for t in tensors]]

    if outline(found) != outline(expected):
        message = "its operators are not those of a fresh conversion of the model: convert it again with this version"
        return [Difference("structure", "file", 0, message)]
    differences = []
    for op in expected.operators:
        for tensor in op.inputs:
            ours, theirs = expected.constant(tensor), found.constant(tensor)
            if ours is None and theirs is None:
                continue
            error = np.inf if ours is None or theirs is None else np.abs(theirs.astype(np.float64) - ours)
            bound = bounds.get(tensor, 0.0)
            if not np.all(error <= bound):  # false for NaN too
                message = (
                    f"a constant of {op.name} differs by {np.max(error):.3g} where its storage allows "
                    f"{np.max(bound):.3g}"
                )
                differences.append(Difference("weights", expected.name(tensor).split(";")[0], op.index, message))
    if not differences and image.shape[1:] == found.shape(found.inputs[0])[1:]:
        ours, theirs = (lce.any_interpreter(file).interpreter.predict([image]) for file in (content, expanded))
        if not all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True)):
            message = "it does not compute what it computes with its weights unpacked"
            differences.append(Difference("output", "file", -1, message))
    return differences


def _plain(options: Any) -> Any:
    """Options of an operator as values that can be compared."""
    if options is None or isinstance(options, dict):
        return options
    return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in vars(options).items()}
