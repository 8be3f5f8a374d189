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
5. **Delegate.** What is proved so is LCE's interpreter. The delegate of `larq_rep_runtime` gets LCE's own values in
   front of LCE's operators and the exact ones around them, and must give the same bits; and the outputs of the whole
   file must agree up to the rounding of the real-valued operators, which are TFLite's.

An ordinary run of an untrained model may still give something else by far: sums of exactly 0 are frequent there, and
at a border padded with zeros LCE's correction rounds them to numbers next to 0, of either sign. `predict_error` says
how far, and a note why.

Where the model rounds to 8 bits (fake quantization), the file's integers are handed to the model as the bits are, and
what is in front of the rounding must agree with them to what the rounding of weights and results explains.

A file whose real weights are stored as float16 or int8 is compared constant by constant with the float32 file
of the same model, which is then proved as above.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import larq_rep_runtime
import numpy as np
import tensorflow as tf
from larq_rep_runtime.metadata import read_metadata

from larq_rep.converters import float_weights, lce, metadata
from larq_rep.converters.audit import audit_model
from larq_rep.converters.comparison import Comparison, Difference, Verification
from larq_rep.converters.convert import ConversionError, convert, without_mirror
from larq_rep.converters.delegate import DelegateComparison
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.converters.graph import FrozenGraph
from larq_rep.converters.inputs import IncomparableError, Inputs, batches, taken

RUNTIMES = ("both", "lce", "delegate")


def verify(
    model: tf.keras.Model,
    content: bytes,
    images: Inputs,
    *,
    runtime: str = "both",
    progress: Callable[[Iterable[int]], Iterable[int]] = lambda x: x,
) -> Verification:
    """Compares a flatbuffer with the Keras model that it was made from, operator by operator.

    # Arguments
        model: The Keras model.
        content: The bytes of the `.tflite` file.
        images: What the model takes, prepared as for the model: an array (N, height, width, channels), or of whatever
            shape and type its input has; for several inputs a list in their order or a dictionary by their names.
            N is a multiple of the model's batch size if that is fixed. For a file whose input is quantized they are
            real numbers all the same, and for one that takes mirrored images they are mirrored here.
        runtime: `"both"` to prove the file for LCE's interpreter and for the delegate of `larq_rep_runtime` on stock
            TFLite, with a note if the delegate is missing or does not run the file; `"lce"` to leave out the
            delegate; `"delegate"` to insist on it. LCE's interpreter always runs, for the bits that the delegate is
            compared with are its own.
        progress: Wraps the loop over images, to show a bar.

    # Raises
        DelegateError: If the delegate is asked for by name and is missing or does not run the file.
        ConversionError: If the model could not be converted at all.
        InvalidFlatbufferError: If the file is not a TFLite file.
        IncomparableError: If file and model differ in their inputs or outputs, or the images do not fit.
        RefusedError: If LCE's interpreter does not run the file.
    """
    if runtime not in RUNTIMES:
        raise ValueError(f"verify: runtime should be one of {', '.join(map(repr, RUNTIMES))}, found {runtime!r}.")
    about, given = read_metadata(content), model
    if about.get("mirrored_input"):
        try:
            model = without_mirror(model)
        except ValueError as error:
            raise IncomparableError("The file takes mirrored images, but the model has no Mirror layer.") from error
    missing = ""
    if runtime != "lce":
        try:
            larq_rep_runtime.delegate_path()  # Before the work, where it is missing.
        except larq_rep_runtime.DelegateError as error:
            if runtime == "delegate":
                raise
            missing = str(error)
    findings = audit_model(model)
    if findings:
        raise ConversionError(findings)
    graph = FrozenGraph(model)
    runs = [[metadata.as_taken(about, x) for x in arrays] for arrays in batches(images, given, graph)]
    file = content
    stored: list[Difference] = []
    if float_weights.storage(content) != "float32":
        for fold in (True, False):
            reference, _ = convert(model, allow_float=True, fold=fold)
            stored = compare_storage(content, reference, runs[0])
            if not any(difference.stage == "structure" for difference in stored):
                break
        content = reference
    delegate = None
    if runtime != "lce" and not missing:
        try:
            delegate = DelegateComparison(file)
        except larq_rep_runtime.DelegateError as error:
            if runtime == "delegate":
                raise
            missing = str(error)
    own_interpreter = delegate is not None and file is not content
    watch = delegate.watched if delegate is not None and not own_interpreter else ()
    comparison = Comparison(graph, model, Flatbuffer(content), watch)
    comparison.check_interfaces()
    result = comparison.result
    if missing:
        result.notes.append(f"The delegate was not compared: {missing}")
    result.differences += stored
    if any(difference.stage == "structure" for difference in stored):
        return result
    comparison.compare_weights()
    if not result.differences:
        comparison.assign_signs(runs[0])
    for index in progress(range(len(runs))):
        values = comparison.run(runs[index])
        comparison.compare_image(index, runs[index], values)
        if delegate is not None:
            delegate.compare_image(
                index, taken(runs[index], delegate.flatbuffer)[0], None if own_interpreter else values
            )
    comparison.compare_thresholds(runs[0])
    comparison.explain_flips()
    if delegate is not None:
        result.engines["delegate"] = delegate.engine
        result.differences += delegate.differences(comparison.layers)
    # An output or a later sign differs because an earlier one does: the first is what matters.
    result.differences.sort(key=lambda d: (d.operator < 0, d.operator))
    return result


def compare_storage(content: bytes, reference: bytes, inputs: Sequence[np.ndarray]) -> list[Difference]:
    """Differences between a file with float16 or int8 weights and the float32 file of the same model.

    Apart from rounding a weight to its storage, whose bound the float32 file gives, nothing may differ: then the
    one is proved by the proof of the other. The file is run too, on one run's inputs, and must give what the same file
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
    if not differences and [x.shape for x in inputs] == [found.shape(t) for t in found.inputs]:
        ours, theirs = (lce.any_interpreter(f).interpreter.predict(list(inputs)) for f in (content, expanded))
        if not all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True)):
            message = "it does not compute what it computes with its weights unpacked"
            differences.append(Difference("output", "file", -1, message))
    return differences


def _plain(options: Any) -> Any:
    """Options of an operator as values that can be compared."""
    if options is None or isinstance(options, dict):
        return options
    return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in vars(options).items()}
