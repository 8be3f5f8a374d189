"""Measures what int8 is worth: single operators, whole networks, and the rule that chooses the operators.

    python benchmarks/int8.py [NETWORK ...] [--num_runs 50]

Single operators have integers as inputs and outputs. Of each network there are three files: float, with the operators
in int8 that the rule chooses, and with all convolutions and dense layers in int8. All files and engines take turns;
figures are tenth percentiles, and with one thread the time of its processor, as other programs disturb the rest.
"""

import argparse
import json
import os
import platform
import time
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from larq_rep import zoo  # isort: skip  (before TensorFlow)
import larq_rep_runtime
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from larq_rep.converters import convert, fold, lce, quantize
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.converters.inputs import random_inputs
from larq_rep.converters.int8 import islands
from larq_rep.converters.latency import measure
from larq_rep.converters.lce import standard_error
from larq_rep.training import calibrate_batch_norm
from runtime import trained_like

NETWORKS = ("BinaryDenseNet28", "MeliusNet22", "PresBNet18", "ResNetE18", "RepReActNetA")
IMAGES = 8  # for batch normalisation and ranges: as many as fit into memory in one batch of BinaryDenseNet28

L = tf.keras.layers


def convolution(size: int, channels: int, filters: int, kernel: int = 1, strides: int = 1, groups: int = 1) -> tuple:
    layer = L.Conv2D(filters, kernel, strides, "same", groups=groups, activation="relu" if kernel > 1 else None)
    kind = f"{groups} groups, {kernel}x{kernel}" if groups > 1 else f"{kernel}x{kernel}"
    return f"{kind}/{strides} {size}x{size}x{channels} to {filters}", [(size, size, channels)], layer


SINGLE = [
    convolution(28, 448, 160),  # transitions of BinaryDenseNet28 and MeliusNet22
    convolution(14, 544, 192),
    convolution(7, 576, 256),
    convolution(28, 320, 160),
    convolution(56, 64, 64),
    convolution(14, 1024, 512),
    convolution(28, 64, 64, 3),
    convolution(224, 3, 64, 7, 2),  # stems
    convolution(224, 3, 32, 3, 2),
    convolution(112, 32, 32, 3, groups=4),
    convolution(112, 32, 64, 3, groups=8),
    ("dense 512 to 1000", [(512,)], L.Dense(1000)),
    ("dense 4096 to 4096", [(4096,)], L.Dense(4096)),
    ("depthwise 3x3 56x56x64", [(56, 56, 64)], L.DepthwiseConv2D(3, padding="same")),
    ("max pool 3x3/2 112x112x64", [(112, 112, 64)], L.MaxPool2D(3, 2, "same")),
    ("average pool 2x2/2 56x56x64", [(56, 56, 64)], L.AveragePooling2D()),
    ("mean 7x7x512", [(7, 7, 512)], L.GlobalAveragePooling2D()),
    ("add 56x56x64", [(56, 56, 64)] * 2, L.Add()),
    ("multiply 56x56x64", [(56, 56, 64)] * 2, L.Multiply()),
    ("concatenate 28x28x(128 + 64)", [(28, 28, 128), (28, 28, 64)], L.Concatenate()),
    ("pad 56x56x64", [(56, 56, 64)], L.ZeroPadding2D()),
    ("ReLU alone 56x56x64", [(56, 56, 64)], L.ReLU()),
    ("sigmoid 56x56x64", [(56, 56, 64)], L.Activation("sigmoid")),
]


@contextmanager
def every(names: Collection[str]) -> Iterator[None]:
    """`quantize` takes all operators of these names that it can, whatever they cost."""

    def choose(flatbuffer: Flatbuffer, *_: object) -> tuple[set[int], list]:
        able = {op.index for op in flatbuffer.operators if op.name in names and not islands.obstacle(flatbuffer, op)}
        return able, []

    with mock.patch.object(islands, "choose", choose):
        yield


def stock(content: bytes) -> Callable[[], object]:
    """TFLite with XNNPACK: the inference alone, without copying inputs and outputs."""
    interpreter = tf.lite.Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    details = interpreter.get_input_details()
    for detail, x in zip(details, random_inputs(Flatbuffer(content)), strict=True):
        interpreter.set_tensor(detail["index"], x)
    return interpreter.invoke


def by_lce(content: bytes, **options: bool) -> Callable[[], object]:
    engine = lce.interpreter(content, use_indirect_bgemm=True, **options).interpreter
    x = random_inputs(Flatbuffer(content))
    return lambda: engine.predict(x)


def single(shapes: list[tuple[int, ...]], layer: tf.keras.layers.Layer) -> tuple[bytes, bytes]:
    """A network of one layer as float and with integers from end to end."""
    inputs = [L.Input(shape) for shape in shapes]
    model = tf.keras.Model(inputs, layer(inputs if len(inputs) > 1 else inputs[0]))
    images = [np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32) for shape in shapes]
    content, _ = convert(model)
    integers = {"inference_input_type": tf.int8, "inference_output_type": tf.int8}
    with every(islands.VERSIONS):
        return content, quantize(content, images, **integers)[0]


def fastest(runs: list[Callable[[], object]], num_runs: int, threads: int = 1) -> np.ndarray:
    """Seconds of each, by turns: the tenth percentile, of one thread the time of the processor."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    return np.percentile(measure(runs, 5, num_runs, clock=clock), 10, axis=0)


def operators(num_runs: int) -> list[dict]:
    engines = {"tflite": stock, "lce": by_lce, "lce_xnnpack": partial(by_lce, use_xnnpack=True)}
    rows = []
    for name, shapes, layer in SINGLE:
        files = single(shapes, layer)
        rows.append({"operator": name})
        for engine, opened in engines.items():
            with standard_error():
                seconds = fastest([opened(file) for file in files], num_runs)
            rows[-1][engine] = [1e6 * s for s in seconds]
    return rows


def passes(num_runs: int) -> tuple[float, float]:
    """Seconds of QUANTIZE and DEQUANTIZE for a value: what they add to another operator."""
    shape = (1, 56, 56, 64)
    inputs = L.Input(shape[1:])
    content, _ = convert(tf.keras.Model(inputs, L.ReLU()(inputs)))
    with every(()), standard_error():
        ends = [{"inference_output_type": tf.int8}, {"inference_input_type": tf.int8}]
        files = [content, *(quantize(content, np.ones(shape, np.float32), **types)[0] for types in ends)]
        alone, *longer = fastest([stock(file) for file in files], num_runs)
    return tuple((seconds - alone) / np.prod(shape) for seconds in longer)


def network(name: str, num_runs: int) -> dict:
    rng = np.random.default_rng(0)
    model = trained_like(zoo.get_model(name))
    images = rng.standard_normal((IMAGES, *model.input_shape[1:])).astype(np.float32)
    calibrate_batch_norm(model, images)
    content, _ = convert(model)
    prepared, _ = fold(convert(model, fold=False, exact_int8=False)[0], int8=True)  # as `convert` does with `int8`
    chosen, report = quantize(prepared, images)
    with every(islands.PRODUCTS):
        files = [content, chosen, quantize(prepared, images)[0]]
    with standard_error():
        one, two = (
            fastest([delegated(file, threads, images[:1]) for file in files], num_runs, threads) for threads in (1, 2)
        )
        lces = fastest([by_lce(file, use_xnnpack=True) for file in files[:2]], num_runs)
    return {
        "network": name,
        "kB": [len(content) // 1000, len(chosen) // 1000],
        "operators": report.operators,
        "kept": [str(each) for each in report.kept],
        **{f"{threads}_ms": [1e3 * s for s in times] for threads, times in (("one", one), ("two", two))},
        "lce_ms": [1e3 * s for s in lces],
        "change": report.change,
        "mean_change": report.mean_change,
    }


def delegated(content: bytes, threads: int, x: np.ndarray) -> Callable[[], object]:
    interpreter = larq_rep_runtime.Interpreter(content, threads)
    return lambda: interpreter.predict(x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=NETWORKS, help="names of networks of the zoo")
    parser.add_argument("--num_runs", type=int, default=50, help="inferences of each file")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    alone = operators(2 * arguments.num_runs)
    quantizing, dequantizing = passes(2 * arguments.num_runs)
    rows = [network(name, arguments.num_runs) for name in arguments.networks]
    if arguments.json:
        print(json.dumps({"operators": alone, "passes_s": [quantizing, dequantizing], "networks": rows}, indent=2))
        return
    console = Console(width=150)
    best = larq_rep_runtime.available_implementations()[0]
    about = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {best}, TensorFlow {tf.__version__}"
    console.print(about)
    table = Table(
        "operator", "float, us", "int8, us", "times faster", "LCE", "LCE + XNNPACK", title="Alone, one thread"
    )
    for row in alone:
        times = [f"{row[engine][0] / row[engine][1]:.2f}" for engine in ("tflite", "lce", "lce_xnnpack")]
        table.add_row(row["operator"], *(f"{us:.1f}" for us in row["tflite"]), *times)
    console.print(table)
    console.print(f"QUANTIZE {1e9 * quantizing:.3f} ns for a value, DEQUANTIZE {1e9 * dequantizing:.3f} ns")
    columns = ("ms", "times faster", "if all in int8")
    title = "One image on TFLite with the delegate and XNNPACK, one and two threads, float -> int8"
    table = Table("network", "kB", *columns, "2 threads, ms", *columns[1:], title=title)
    other = Table("network", *columns[:2], "largest change", "mean change", title="On LCE's interpreter with XNNPACK")
    for row in rows:
        times = {}
        for key in ("one_ms", "two_ms", "lce_ms"):
            real, chosen, *every = row[key]
            times[key] = [f"{real:.2f} -> {chosen:.2f}", *(f"{real / ms:.2f}" for ms in (chosen, *every))]
        table.add_row(row["network"], " -> ".join(map(str, row["kB"])), *times["one_ms"], *times["two_ms"])
        other.add_row(row["network"], *times["lce_ms"], *(f"{row[key]:.1%}" for key in ("change", "mean_change")))
    console.print(table)
    console.print(other)
    for row in rows:
        for kept in row["kept"]:
            console.print(f"{row['network']}: {kept}")


if __name__ == "__main__":
    main()
