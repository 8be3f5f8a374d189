"""Proves that a flatbuffer computes what a Keras model computes.

Comparing the outputs of two engines proves little: an activation within the rounding of its threshold flips
its sign, and in an untrained network one flip changes everything behind it. Here nothing can cascade:

0. **Levels.** A model that convolves quantized maps of several levels becomes one with convolutions of signs. Both
   agree: each quantizer with the sum of its planes, each convolution with the sum of convolutions.
1. **Weights.** Every binary convolution of the model is found in the file with exactly its signs.
2. **Operators.** Every `LceBconv2d`, `LceQuantize` and `LceBMaxPool2d` is computed again in numpy from the
   packed input that LCE gave it. Packed outputs must be equal, floats equal to rounding.
3. **Signs.** The Keras model is run with the output of every sign replaced by the bits that LCE used. The
   values in front of each sign must then agree to rounding, and where the sign of the model's value is not
   LCE's bit, that value must be zero to rounding. A threshold that the file holds as an integer is compared
   with the zero of the model's value as a function of the popcount.
4. **Outputs** of this forced run must agree to rounding.
5. **Delegate.** So far this proves LCE's interpreter. The delegate of `larq_rep_runtime` gets LCE's own values in
   front of LCE's operators and the exact ones around them, and must give the same bits, also for the integers of
   QUANTIZE and DEQUANTIZE beside them; and the outputs of the whole file must agree up to the rounding of the
   real-valued operators, which are TFLite's. On request LiteRT's CompiledModel is compared with its
   interpreter, whose bits it must give.

An ordinary run of an untrained model may still differ by far: sums of exactly 0 are frequent there, and
at a border padded with zeros LCE's correction rounds them to numbers next to 0, of either sign. `predict_error` says
how far, and a note why.

Where the model rounds to 8 bits (fake quantization), the model gets the file's integers, as it gets the bits, and the
values in front of the rounding must agree with them as far as the rounding of weights and results explains.

Weights that a file stores exactly as int8 must be those of a fresh conversion of the model to the bit; unpacked, the
file is proved as above. A file whose weights are rounded to float16 or int8 is compared constant by constant with the
float32 file of the same model, which is then proved as above.

A file that was quantized to int8 after training is compared with the float file of the same model, which is proved as
above: every scale, zero point and constant with the float ones, and every operator in int8 with its definition in
integers (`int8_file.py`, `int8_scales.py` and `int8.py` of this folder).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import tensorflow as tf

from larq_rep.converters import float_weights, loading, metadata
from larq_rep.converters.audit import audit_model
from larq_rep.converters.conversion import ConversionError, convert, without_mirror
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.converters.folding import fold
from larq_rep.converters.graph import FrozenGraph
from larq_rep.converters.inputs import IncomparableError, Inputs, batches, taken
from larq_rep.converters.runtime import delegate_errors, needed_runtime
from larq_rep.converters.verification.comparison import Comparison
from larq_rep.converters.verification.delegate import CompiledComparison, DelegateComparison
from larq_rep.converters.verification.int8 import Int8Comparison, computes_in_int8
from larq_rep.converters.verification.int8_file import Int8File
from larq_rep.converters.verification.int8_scales import ScaleComparison
from larq_rep.converters.verification.outputs import check_interfaces
from larq_rep.converters.verification.result import Difference, Engine, Verification
from larq_rep.converters.verification.storage import compare_storage, compare_unpacked, holds_exactly

__all__ = ["RUNTIMES", "Difference", "Engine", "Verification", "verify"]

RUNTIMES = ("both", "lce", "delegate", "compiled")

_Made = TypeVar("_Made")


def verify(
    model: tf.keras.Model | str | Path,
    content: bytes,
    images: Inputs,
    *,
    runtime: str = "both",
    progress: Callable[[Iterable[int]], Iterable[int]] = lambda x: x,
) -> Verification:
    """Compares a flatbuffer with the Keras model that it was made from, operator by operator.

    # Arguments
        model: The Keras model, or the file, folder or name of one, as `convert` takes it. Free sizes are those of the
            images.
        content: The bytes of the `.tflite` file.
        images: Inputs, prepared as for the model: an array (N, height, width, channels), or of whatever
            shape and type the input has; for several inputs a list in their order or a dictionary by their names.
            N is a multiple of the model's batch size if that is fixed. They are real numbers even for a file whose
            input is quantized, and are mirrored here for a file that takes mirrored images.
        runtime: `"both"` to prove the file for LCE's interpreter and for the delegate of `larq_rep_runtime` on stock
            TFLite, with a note if the delegate is missing or does not run the file; `"lce"` to leave out the
            delegate; `"delegate"` to insist on it; `"compiled"` to compare LiteRT's CompiledModel with its interpreter
            as well. LCE's interpreter always runs, because the delegate is compared with its bits.
        progress: Wraps the loop over images, to show a bar.

    # Raises
        DelegateError: If the delegate is asked for by name and was not built or does not run the file, or LiteRT is not
            installed for `"compiled"`.
        RuntimeMissingError: If it is asked for by name and `larq_rep_runtime` is not installed.
        LoadingError: If the model cannot be loaded.
        ConversionError: If the model could not be converted at all.
        InvalidFlatbufferError: If the file is not a TFLite file.
        IncomparableError: If file and model differ in their inputs or outputs, or the images do not fit.
        RefusedError: If LCE's interpreter does not run the file.
    """
    if runtime not in RUNTIMES:
        raise ValueError(f"verify: runtime should be one of {', '.join(map(repr, RUNTIMES))}, found {runtime!r}.")
    insist, missing = runtime in ("delegate", "compiled"), ""
    if runtime != "lce":  # Before the work, in case the delegate is missing.
        _, missing = _attempt(lambda: needed_runtime().delegate_path(), insist)
    model = loading.load(model)
    if isinstance(model, tf.keras.Model) and loading.is_open(model):
        model = loading.load(model, images)  # They say the sizes.
    given = model
    about = metadata.read(content)
    if metadata.is_mirrored(about):
        try:
            model = without_mirror(model)
        except ValueError as error:
            raise IncomparableError("The file takes mirrored images, but the model has no Mirror layer.") from error
    if findings := audit_model(model):
        raise ConversionError(findings)
    graph = FrozenGraph(model)
    runs = [[metadata.as_taken(about, x) for x in arrays] for arrays in batches(images, given, graph)]
    file = None
    if computes_in_int8(content, graph):
        check_interfaces(graph, Flatbuffer(content))
        reference, file = _int8_file(model, content, graph)
        stored = file.result.differences
    else:
        reference, stored = _float32_file(model, content, runs[0])
    delegate = None
    if runtime != "lce" and not missing:
        delegate, missing = _attempt(lambda: DelegateComparison(content), insist)
    compiled = CompiledComparison(content) if runtime == "compiled" else None
    flatbuffer = Flatbuffer(reference)
    check_interfaces(graph, flatbuffer)
    result = Verification(
        differences=list(stored), notes=[f"The delegate was not compared: {missing}"] if missing else []
    )
    # One run of LCE's interpreter on the file serves both proofs.
    shared = file is not None or reference is content
    watched = delegate.watched if delegate is not None and shared else []
    comparison = Comparison(graph, flatbuffer, result, watched if file is None else ())
    if any(difference.stage == "structure" for difference in stored):
        return result
    integers = None
    if file is not None:
        file.result.engines, file.convolutions = result.engines, comparison.convolutions.layers
        ScaleComparison(file).compare()
        integers = Int8Comparison(file, watched)
        if file.result.differences and integers.is_refused:  # they say why
            result.differences = file.result.differences
            return result
    comparison.pair(runs[0])
    for index in progress(range(len(runs))):
        values = comparison.run(runs[index])
        comparison.compare_image(index, runs[index], values)
        if integers is not None:
            values = integers.compare_image(index, runs[index], values)
        if delegate is not None:
            for_file, _ = taken(runs[index], delegate.flatbuffer)
            delegate.compare_image(index, for_file, values if shared else None)
            if integers is not None:
                integers.compare_delegate(index, for_file)
            if compiled is not None:
                compiled.compare_image(index, for_file)
    comparison.finish(runs[0])
    layers: Mapping[int, str] = comparison.convolutions.layers
    if file is not None and integers is not None:
        result.int8, layers = integers.finish(), file.layers
        result.differences = [*map(file.in_file, result.differences), *file.result.differences]
        result.notes += file.result.notes
    if delegate is not None:
        result.engines["delegate"] = delegate.engine
        result.differences += delegate.differences(layers)
    if compiled is not None:
        result.engines["compiled"] = compiled.engine
        result.differences += compiled.differences
    # An output or a later sign differs because an earlier one does: only the first matters.
    result.differences.sort(key=lambda d: (d.operator < 0, d.operator))
    return result


def _attempt(make: Callable[[], _Made], insist: bool) -> tuple[_Made | None, str]:
    """The result of `make`, or why the delegate is missing or refuses, which is an error if one insists."""
    try:
        return make(), ""
    except delegate_errors() as error:
        if insist:
            raise
        return None, str(error)


def _int8_file(model: tf.keras.Model, content: bytes, graph: FrozenGraph) -> tuple[bytes, Int8File]:
    """A fresh float conversion, folded as the file is, and the file beside it."""
    unfolded, _ = convert(model, allow_float=True, exact_int8=False, fold=False)
    for reference in (fold(unfolded, int8=True)[0], fold(unfolded)[0], unfolded):
        file = Int8File(content, reference, graph)
        if file.operators:
            break
    return reference, file


def _float32_file(
    model: tf.keras.Model, content: bytes, inputs: Sequence[np.ndarray]
) -> tuple[bytes, list[Difference]]:
    """The file with float32 weights, and how its storage differs from what it should be.

    Exact weights are those of a fresh conversion, and the file is proved with them. A file with rounded weights must be
    a fresh conversion but for these, which is proved in its place.
    """
    if float_weights.storage(content) == "float32":
        return content, []
    for folded in (True, False):
        reference, _ = convert(model, allow_float=True, exact_int8=False, fold=folded)
        if holds_exactly(content, reference):
            expanded, _ = float_weights.expand(content)
            return expanded, compare_unpacked(content, expanded, inputs)
        differences = compare_storage(content, reference, inputs)
        if not any(difference.stage == "structure" for difference in differences):
            break
    return reference, differences
