"""Latency of converted models on this machine: LCE's interpreter, stock TFLite and Keras side by side."""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from larq_compute_engine.tflite.python.interpreter import Interpreter

from larq_rep.converters.description import describe
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.converters.inputs import random_array, random_inputs
from larq_rep.converters.runtime import needed_runtime

# Options of LCE's interpreter in each of its modes.
_LCE_OPTIONS: dict[str, dict[str, bool]] = {
    "default": {},
    "indirect": {"use_indirect_bgemm": True},
    "xnnpack": {"use_xnnpack": True},
    "indirect+xnnpack": {"use_indirect_bgemm": True, "use_xnnpack": True},
}
# Engines of `larq_rep_runtime.Interpreter`.
_ENGINES = {"delegate": "interpreter", "compiled": "compiled"}
MODES = (*_LCE_OPTIONS, "tflite", *_ENGINES)

_Run = Callable[[], object]


@dataclass(frozen=True)
class Result:
    """Latency of one model in one mode.

    # Attributes
        file: Name of the file or of the Keras model.
        mode: One of `MODES`, or `"keras"`.
        num_threads: Threads of the interpreter; `None` for Keras, which has TensorFlow's own pool.
        runs: Number of timed runs; 0 if the mode does not apply to this file.
        median_ms: Median of the runs in milliseconds.
        p10_ms: Tenth percentile: one run in ten was faster.
        p90_ms: Ninetieth percentile: one run in ten was slower.
        ratio: Median over the median of the first result that has one.
        reason: Why there are no numbers, or empty.
    """

    file: str
    mode: str
    num_threads: int | None
    runs: int = 0
    median_ms: float | None = None
    p10_ms: float | None = None
    p90_ms: float | None = None
    ratio: float | None = None
    reason: str = ""


def benchmark(
    files: Mapping[str, bytes] | Iterable[str | os.PathLike[str]],
    *,
    modes: Sequence[str] = ("default", "indirect", "xnnpack"),
    keras_models: Mapping[str, tf.keras.Model] | None = None,
    num_threads: int = 1,
    warmup_runs: int = 5,
    num_runs: int = 50,
    progress: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """Measures the latency of one inference for several files and modes in one go.

    Every round runs each pair of file and mode once, so that a machine that slows down slows all of them and
    their ratios hold. A run hands over the input, computes, and fetches the outputs.

    | mode | engine |
    |---|---|
    | `"default"` | LCE's interpreter, BGEMM kernel of the binary convolutions (no groups) |
    | `"indirect"` | LCE's interpreter, indirect BGEMM kernel (one thread, groups) |
    | `"xnnpack"` | as default, real-valued operators by XNNPACK |
    | `"indirect+xnnpack"` | as indirect, real-valued operators by XNNPACK |
    | `"tflite"` | stock `tf.lite.Interpreter`, for files without LCE operators |
    | `"delegate"` | stock TFLite with the delegate of `larq_rep_runtime`; `"delegate:avx2"` forces an implementation |
    | `"compiled"`, `"compiled:avx2"` | the same with LiteRT's CompiledModel |
    | `"keras"` | a `tf.function` of each model in `keras_models` |

    Numbers from one kind of processor say nothing about another: LCE's kernels are made for 64-bit ARM.

    # Arguments
        files: Contents by name, or paths.
        modes: Modes to measure each file in: any of `MODES`, or `"delegate:"` or `"compiled:"` and one of
            `larq_rep_runtime.available_implementations()`.
        keras_models: Keras models by name, measured besides the files at the batch size 1 (or their own).
        num_threads: Threads of the interpreters. Keras keeps TensorFlow's threads.
        warmup_runs: Rounds before the timed ones.
        num_runs: Timed rounds.
        progress: Called after each round with the rounds done and their total.

    # Returns
        A result for each pair of file and mode, then one for each Keras model. Where a mode does not apply,
        the result has a `reason` and no numbers.

    # Raises
        ValueError: For an unknown mode, an implementation that this processor does not run, or too few runs.
        DelegateError: If a mode asks for the delegate and its library is missing.
        RuntimeMissingError: If a mode asks for the delegate and `larq_rep_runtime` is not installed.
        InvalidFlatbufferError: If a file is not a TFLite model.
    """
    engines = {mode: mode.partition(":") for mode in modes if mode.partition(":")[0] in _ENGINES}
    if unknown := [mode for mode in modes if mode not in MODES and mode not in engines]:
        raise ValueError(f"modes should be of {', '.join(MODES)}, found {', '.join(map(repr, unknown))}.")
    forced = {implementation for _, colon, implementation in engines.values() if colon}
    known = needed_runtime().available_implementations() if engines else ()
    if unknown := sorted(forced.difference(known)):
        raise ValueError(
            f"This processor runs the implementations {', '.join(known)} of the delegate, "
            f"found {', '.join(map(repr, unknown))}."
        )
    if num_runs < 1 or warmup_runs < 0:
        raise ValueError(
            f"num_runs should be at least 1 and warmup_runs at least 0, found {num_runs} and {warmup_runs}."
        )
    contents = files if isinstance(files, Mapping) else {str(path): Path(path).read_bytes() for path in files}
    opened: list[tuple[str, str, int | None, _Run | str]] = [
        (name, mode, num_threads, _open(content, mode, num_threads))
        for name, content in contents.items()
        for mode in modes
    ]
    opened += [(name, "keras", None, _open_keras(model)) for name, model in (keras_models or {}).items()]

    runs = [run for *_, run in opened if not isinstance(run, str)]
    seconds = iter(measure(runs, warmup_runs, num_runs, progress).T)
    results: list[Result] = []
    first: float | None = None
    for name, mode, threads, run in opened:
        if isinstance(run, str):
            results.append(Result(name, mode, threads, reason=run))
            continue
        p10, median, p90 = (float(p) for p in 1000 * np.percentile(next(seconds), (10, 50, 90)))
        first = median if first is None else first
        results.append(Result(name, mode, threads, num_runs, median, p10, p90, median / first))
    return results


def measure(
    runs: Sequence[Callable[[], object]],
    warmup_runs: int,
    num_runs: int,
    progress: Callable[[int, int], None] | None = None,
    clock: Callable[[], float] | None = None,
) -> np.ndarray:
    """Seconds of `num_runs` calls of each function, taking turns, of shape (num_runs, len(runs)).

    They are those of `clock`, by default of the time that passes.
    """
    clock = clock or time.perf_counter
    seconds = np.zeros((warmup_runs + num_runs, len(runs)))
    for i, row in enumerate(seconds):
        for j, run in enumerate(runs):
            start = clock()
            run()
            row[j] = clock() - start
        if progress:
            progress(i + 1, len(seconds))
    return seconds[warmup_runs:]


def _open(content: bytes, mode: str, num_threads: int) -> _Run | str:
    """A function that runs the model once, or why there is none."""
    description = describe(content)
    inputs = random_inputs(Flatbuffer(content))
    lce = [name for name in description.operators if name.startswith("Lce")]
    if mode == "tflite" and lce:
        return f"stock TFLite has no {', '.join(lce)}"
    if mode in ("default", "xnnpack") and any(c.groups > 1 for c in description.binary_convolutions):
        # The interpreter says so on the standard error stream only.
        return "grouped binary convolutions are not supported with this kernel"
    try:
        if mode == "tflite":
            return _open_tflite(content, inputs, num_threads)
        name, _, implementation = mode.partition(":")
        if name in _ENGINES:
            delegated = needed_runtime().Interpreter(
                content, num_threads, implementation=implementation or None, engine=_ENGINES[name]
            )
            return lambda: delegated.invoke(inputs)
        interpreter = Interpreter(content, num_threads, **_LCE_OPTIONS[mode])
    except (RuntimeError, ValueError) as error:
        return f"the interpreter does not load this file: {str(error).strip()}"
    # `Interpreter.predict` splits the batch and joins it again; what it wraps does one inference.
    return lambda: interpreter.interpreter.predict(inputs)


def _open_tflite(content: bytes, inputs: list[np.ndarray], num_threads: int) -> _Run:
    interpreter = tf.lite.Interpreter(model_content=content, num_threads=num_threads)
    interpreter.allocate_tensors()
    takes = [detail["index"] for detail in interpreter.get_input_details()]
    gives = [detail["index"] for detail in interpreter.get_output_details()]

    def run() -> object:
        for index, value in zip(takes, inputs, strict=True):
            interpreter.set_tensor(index, value)
        interpreter.invoke()
        return [interpreter.get_tensor(index) for index in gives]

    return run


def _open_keras(model: tf.keras.Model) -> _Run:
    rng = np.random.default_rng(0)
    takes = tf.nest.flatten(model.inputs)
    arrays = [random_array((x.shape[0] or 1, *x.shape[1:]), np.dtype(x.dtype.as_numpy_dtype), rng) for x in takes]
    inputs = [tf.constant(array) for array in arrays]
    function = tf.function(model)
    packed = tf.nest.pack_sequence_as(model.input, inputs)
    return lambda: [y.numpy() for y in tf.nest.flatten(function(packed, training=False))]


def plot(results: Sequence[Result], path: str | os.PathLike[str]) -> None:
    """Draws results as horizontal bars: the medians, with a line from the tenth to the ninetieth percentile.

    # Arguments
        results: What `benchmark` returned.
        path: Where to write the PNG file. It appears there complete or not at all.
    """
    from matplotlib.figure import Figure

    from larq_rep import plots
    from larq_rep.plots.file import drawable

    figure = Figure(figsize=(9, 1.2 + 0.45 * len(results)), layout="constrained")
    axes = figure.subplots()
    modes = list(dict.fromkeys(result.mode for result in results))
    widest = max((result.p90_ms or 0.0 for result in results), default=0.0) or 1.0
    for y, result in enumerate(results):
        if result.median_ms is None or result.p10_ms is None or result.p90_ms is None:
            reason = textwrap.shorten(result.reason, 80, placeholder=" …")
            axes.text(0.01 * widest, y, drawable(reason), va="center", size=8, style="italic", color="gray")
            continue
        # The percentiles of few runs may coincide with the median up to rounding.
        spread = [[max(result.median_ms - result.p10_ms, 0)], [max(result.p90_ms - result.median_ms, 0)]]
        color = f"C{modes.index(result.mode) % 10}"
        axes.barh(y, result.median_ms, xerr=spread, color=color, capsize=3, ecolor="black")
        label = f"{result.median_ms:.3g} ms"
        if result.ratio is not None:
            label += f"  ({result.ratio:.2f}x)"
        axes.text(result.p90_ms + 0.01 * widest, y, label, va="center", size=9)
    axes.set_yticks(range(len(results)), [drawable(f"{result.file}  {result.mode}") for result in results])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.3 * widest)
    axes.set_xlabel("latency of one inference, ms (median, 10th to 90th percentile)")
    axes.spines[["top", "right"]].set_visible(False)
    plots.write(figure, path, dpi=150)
