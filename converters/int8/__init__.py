"""Quantizes what is real in a converted file to int8, after training, with ranges from images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from larq_rep.converters import float_weights, integer_ends, lce, metadata, quantized
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.converters.inputs import Inputs, file_batches, in_batches
from larq_rep.converters.int8 import islands
from larq_rep.converters.int8.islands import Kept
from larq_rep.converters.int8.ranges import CALIBRATIONS, Histogram, Scale, collect
from larq_rep.converters.int8.rewriting import Rewriting, scale_groups

__all__ = ["CALIBRATIONS", "Kept", "Quantization", "QuantizationError", "is_quantized", "quantize"]

# Share of the mean square of an output that the rounding of the input may add. Correctly scaled inputs were seen to add
# a five-thousandth at most; a trained network lost half of its accuracy at a thirtieth.
_NOISE = 1e-3


class QuantizationError(ValueError):
    """A file that cannot be quantized, or images that do not serve."""


@dataclass(frozen=True)
class Quantization:
    """What `quantize` did.

    # Attributes
        calibration: How ranges were chosen from the values on the images.
        images: Number of images (or whatever the file takes).
        operators: Number of convolutions and dense layers in int8.
        kept: The convolutions and dense layers that stay float.
        islands: Number of sets of connected operators in int8.
        size_before: Bytes of the file.
        size_after: Bytes of the quantized file.
        change: Largest change of an output on these images, divided by the largest output.
        mean_change: Mean absolute change of the outputs, divided by the mean absolute output.
        agreement: Share of the images whose largest output is the same; `None` if the file has not one output of at
            least two numbers.
    """

    calibration: str
    images: int
    operators: int
    kept: list[Kept]
    islands: int
    size_before: int
    size_after: int
    change: float
    mean_change: float
    agreement: float | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def quantize(
    content: bytes,
    images: Inputs | Iterable[Inputs],
    *,
    calibration: str = "mse",
    inference_input_type: tf.DType = tf.float32,
    inference_output_type: tf.DType = tf.float32,
    progress: Callable[[Iterable[int]], Iterable[int]] = lambda x: x,
) -> tuple[bytes, Quantization]:
    """Quantizes the real-valued operators of a file to int8 where that saves time.

    The real-valued convolutions and dense layers, and pools and the like between them, compute in 8 bits as TFLite's
    quantization specification says: real = scale (q - zero), with int8 activations, symmetric int8 weights of one scale
    for each output channel (one for a dense layer), int32 biases. Binary convolutions, signs and residual streams stay
    as they are. Which operators are worth it says `larq_rep.converters.int8.islands`.

    The file runs on LCE's interpreter, and on TFLite and LiteRT with the delegate of `larq_rep_runtime`.

    # Arguments
        content: The bytes of a float `.tflite` file, with or without operators of LCE.
        images: Images (or whatever the file takes) on which ranges are measured, prepared as for the file: an array
            whose first axis counts them, for several inputs a list or a dictionary by their names, or an iterable of
            such batches. About 100, not those on which accuracy is measured.
        calibration: How a range follows from the values: `"mse"` (least mean squared error), `"percentile"` (all but a
            ten-thousandth at each end) or `"minmax"` (all).
        inference_input_type: `tf.float32`, or `tf.int8` or `tf.uint8` for inputs as integers.
        inference_output_type: The same for the outputs.
        progress: Wraps the loop over the images, to show a bar.

    # Returns
        The bytes of the quantized file, and a `Quantization`.

    # Raises
        QuantizationError: If there are no images, a value is not finite, or the file is quantized already.
        ValueError: For another type, or if no input or output is a real number that could become an integer.
        IncomparableError: If the images do not fit the file.
        InvalidFlatbufferError: If `content` is not a TFLite model.
        RefusedError: If LCE's interpreter does not run the file.
    """
    about = metadata.read(content)
    flatbuffer = Flatbuffer(content)
    runs = [
        [metadata.as_taken(about, x) for x in arrays]
        for arrays in in_batches(images, len(flatbuffer.inputs), lambda batch: file_batches(batch, flatbuffer))
    ]
    if float_weights.storage(content) == "float16":
        raise QuantizationError("int8: the weights of this file are float16. Quantize the float32 file instead.")
    expanded, _ = float_weights.expand(content)
    types = inference_input_type, inference_output_type
    result, report = quantized_file(expanded, runs, calibration, *types, progress)
    result, _ = float_weights.compress(result)
    return result, replace(report, size_before=len(content), size_after=len(result))


def quantized_file(
    content: bytes,
    runs: Sequence[Sequence[np.ndarray]],
    calibration: str,
    input_type: tf.DType,
    output_type: tf.DType,
    progress: Callable[[Iterable[int]], Iterable[int]],
) -> tuple[bytes, Quantization]:
    """`quantize` for a file whose constants are float32, with the inputs of each of its runs."""
    if calibration not in CALIBRATIONS:
        raise QuantizationError(f"calibration should be one of {', '.join(CALIBRATIONS)}, found {calibration!r}.")
    integer_ends.check_types(input_type, output_type)
    if not runs:
        raise QuantizationError("int8: there are no images to measure ranges on. Give some, about 100.")
    flatbuffer = Flatbuffer(content)
    if is_quantized(flatbuffer):
        raise QuantizationError("int8: this file computes with integers already. Quantize the float file instead.")
    integers = {
        tensor
        for tensors, dtype in ((flatbuffer.inputs, input_type), (flatbuffer.outputs, output_type))
        for tensor in tensors
        if dtype != tf.float32 and flatbuffer.dtype(tensor) == "float32"
    }

    def measured(chosen: set[int]) -> tuple[dict[int, Histogram], dict[int, Scale]]:
        groups = scale_groups(flatbuffer, chosen)
        try:
            histograms = collect(content, sorted({*groups, *integers}), runs, progress)
        except ValueError as error:
            raise QuantizationError(str(error)) from error
        return histograms, _scales(flatbuffer, histograms, groups, calibration)

    chosen, kept = islands.choose(flatbuffer)
    histograms, scales = measured(chosen)
    if noisy := _noisy(flatbuffer, chosen, histograms, scales):
        chosen, kept = islands.choose(flatbuffer, noisy)
        _, scales = measured(chosen)
    count = sum(len(arrays[0]) for arrays in runs)
    report = {
        "operators": sum(flatbuffer.operators[index].name in islands.PRODUCTS for index in chosen),
        "islands": islands.count(flatbuffer, chosen),
    }
    Rewriting(flatbuffer, chosen, scales, integers)
    flatbuffer.drop_unused_buffers()
    # Of every input, the smallest and the largest number: other images may tell nothing about the ranges.
    ends = [(min(x.min() for x in each), max(x.max() for x in each)) for each in zip(*runs, strict=True)]
    about = {"calibration": calibration, "images": count, "inputs": [[float(x) for x in each] for each in ends]}
    metadata.add_values(flatbuffer, {"int8": about})
    integer_ends.set_types(flatbuffer, input_type, output_type)
    result = flatbuffer.pack()
    change, mean_change, agreement = _changes(content, result, runs)
    return result, Quantization(
        calibration=calibration,
        images=count,
        kept=kept,
        size_before=len(content),
        size_after=len(result),
        change=change,
        mean_change=mean_change,
        agreement=agreement,
        **report,
    )


def is_quantized(flatbuffer: Flatbuffer) -> bool:
    """Whether a file computes with integers that stand for real numbers."""
    written = {t for op in flatbuffer.operators for t in op.outputs}
    return any(quantized.quantization(flatbuffer, t) is not None for t in {*written, *flatbuffer.inputs})


def _scales(
    flatbuffer: Flatbuffer, histograms: Mapping[int, Histogram], groups: Mapping[int, int], calibration: str
) -> dict[int, Scale]:
    """The scale of each tensor; tensors that share one have the widest."""
    found = {}
    for tensor, histogram in histograms.items():
        producer = flatbuffer.producers.get(tensor)
        if producer is not None and producer.name in islands.FIXED_SCALE:
            _, step, zero = islands.FIXED_SCALE[producer.name]
            found[tensor] = Scale(np.float32(step), zero, (histogram.low, histogram.high))
        else:
            found[tensor] = histogram.scale(calibration)
    shared = {}
    for tensor, group in groups.items():
        widest = max((found[t] for t in groups if groups[t] == group), key=lambda scale: float(scale.scale))
        shared[tensor] = replace(widest, seen=found[tensor].seen)
    return found | shared


def _noisy(
    flatbuffer: Flatbuffer, chosen: set[int], histograms: Mapping[int, Histogram], scales: Mapping[int, Scale]
) -> set[int]:
    """The convolutions and dense layers whose output would drown in the rounding of their input.

    A step s of the input adds s^2 / 12 times the sum of the squares of a channel's weights. Large weights of channels
    with small values, as folding makes them, have it grow beyond a thousandth of the output's mean square.
    """
    found = set()
    for index in chosen:
        op = flatbuffer.operators[index]
        if op.name not in islands.PRODUCTS:
            continue
        weights = flatbuffer.constant(op.inputs[1])
        assert weights is not None
        (source,) = islands.data_inputs(flatbuffer, op)
        squares = np.square(weights, dtype=np.float64).sum() / weights.shape[float_weights.OUTPUT_CHANNELS[op.name]]
        noise = float(scales[source].scale) ** 2 / 12 * squares
        output = histograms[op.outputs[0]]
        if noise > _NOISE * output.squares / output.count > 0:
            found.add(index)
    return found


def _changes(
    reference: bytes, content: bytes, runs: Sequence[Sequence[np.ndarray]]
) -> tuple[float, float, float | None]:
    """Largest and mean change of the outputs, and the share of runs whose largest output is the same."""
    engines = [lce.interpreter(file, use_indirect_bgemm=True) for file in (reference, content)]
    flatbuffer = Flatbuffer(content)
    largest = apart = total = absolute = 0.0
    same: list[bool] = []
    for arrays in runs:
        given = [quantized.integers(flatbuffer, t, x) for t, x in zip(flatbuffer.inputs, arrays, strict=True)]
        before = engines[0].interpreter.predict(list(arrays))
        after = engines[1].interpreter.predict(given)
        for tensor, a, b in zip(flatbuffer.outputs, before, after, strict=True):
            real = quantized.real(flatbuffer, tensor, b)
            difference = np.abs(real.astype(np.float64) - a)
            largest, apart = max(largest, float(np.abs(a).max())), max(apart, float(difference.max()))
            total, absolute = total + float(difference.sum()), absolute + float(np.abs(a).sum())
            if len(before) == 1 and a.shape[-1] > 1:
                same += list((a.argmax(-1) == real.argmax(-1)).ravel())
    return (
        apart / largest if largest else apart,
        total / absolute if absolute else total,
        (float(np.mean(same)) if same else None),
    )
