"""Compares the delegate on stock TFLite with LCE's interpreter in all its modes, and with a float MobileNet.

Where ai-edge-litert is installed, it is that TFLite, and its CompiledModel is measured as well.

All engines take turns in one run; figures of engines are medians of one image, and ratios of medians. Two threads are
compared with one by the shortest runs and by medians: other work on the second core slows some runs down. The benchmark
waits for other work to end, and reports what is left of it.

"Start" is what a fresh process does for the first result: the interpreter and the memory of its tensors, then the first
inference; and the memory that stays resident then, without what the process had before.
"""

import argparse
import json
import multiprocessing
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from larq_rep import zoo  # isort: skip  (before TensorFlow)
import larq_rep_runtime
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from larq_rep.converters import convert
from larq_rep.converters.latency import Result, benchmark, measure
from larq_rep.converters.lce import standard_error

NETWORKS = ("RepReActNetA", "ReActNetA", "BiRealNet18", "ResNetE18", "BinaryDenseNet28", "MeliusNet22")
LCE = ("default", "indirect", "xnnpack", "indirect+xnnpack")


def trained_like(model: tf.keras.Model) -> tf.keras.Model:
    """Sets random weights: with initial values the converter could drop some operators and merge equal ones."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.weights])
        elif layer.weights:
            layer.set_weights([rng.normal(0, 0.3, w.shape) for w in layer.weights])
    return model


def mobilenet() -> bytes:
    """A float MobileNetV1 of width 1 from the stock converter; XNNPACK runs it."""
    converter = tf.lite.TFLiteConverter.from_keras_model(tf.keras.applications.MobileNet(weights=None))
    with standard_error():
        return converter.convert()


def busy(seconds: float = 2) -> float:
    """The share of all cores that the system's other processes use while this one sleeps."""

    def used() -> tuple[int, int]:
        times = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return sum(times) - times[3] - times[4], sum(times)

    if not Path("/proc/stat").exists():
        return 0
    before = used()
    time.sleep(seconds)
    working, total = (now - then for now, then in zip(used(), before, strict=True))
    return working / total


def wait_until_quiet(console: Console, patience: float = 60) -> float:
    """The share that others use when it is below 5 %, or when the patience, in seconds, ends."""
    begin = time.monotonic()
    while (others := busy()) > 0.05 and (waited := time.monotonic() - begin) < patience:
        if waited < 3:
            console.print(f"Other processes use {others:.0%} of the processor: waits up to {patience:.0f} s for them.")
    return others


def resident() -> float:
    """MB of this process that are in memory."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1000


def start(file: str, lce: bool, queue) -> None:
    """Puts ms until the interpreter is ready, ms of the first inference, and MB that stay."""
    x = np.zeros((1, 224, 224, 3), np.float32)
    if lce:
        from larq_compute_engine.tflite.python.interpreter import Interpreter

        make, options = Interpreter, {"num_threads": 1, "use_indirect_bgemm": True}
    else:
        make, options = larq_rep_runtime.Interpreter, {"num_threads": 1}
        larq_rep_runtime.available_implementations()  # loads the library
    with standard_error():
        before, times = resident(), [time.perf_counter()]
        interpreter = make(Path(file).read_bytes(), **options)
        times.append(time.perf_counter())
        interpreter.predict([x] if lce else x)
        times.append(time.perf_counter())
    queue.put((1e3 * (times[1] - times[0]), 1e3 * (times[2] - times[1]), resident() - before))


def starts(content: bytes) -> dict[str, list[float]]:
    """Of three fresh processes for each engine, by turns: the shortest times and the least memory."""
    context = multiprocessing.get_context("spawn")
    found: dict[str, list[tuple[float, ...]]] = {"lce": [], "delegate": []}
    with tempfile.NamedTemporaryFile(suffix=".tflite") as file:
        Path(file.name).write_bytes(content)
        for _ in range(3):
            for engine, results in found.items():
                queue = context.Queue()
                process = context.Process(target=start, args=(file.name, engine == "lce", queue))
                process.start()
                results.append(queue.get())
                process.join()
    return {engine: [min(values) for values in zip(*results, strict=True)] for engine, results in found.items()}


def medians(results: list[Result]) -> dict[str, float]:
    return {result.mode: result.median_ms for result in results if result.median_ms is not None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=NETWORKS, help="names of networks of the zoo")
    parser.add_argument("--num_runs", type=int, default=30, help="inferences of each engine")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")

    console = Console(width=180, stderr=arguments.json)
    best, *others = larq_rep_runtime.available_implementations()
    delegates = ("delegate", *[f"delegate:{name}" for name in others if name in ("avx2",)])
    rows = []
    float_network = mobilenet()
    for name in arguments.networks:
        try:
            content, _ = convert(trained_like(zoo.get_model(name)))
        except ImportError:
            rows.append({"network": name, "reason": "larq_zoo is not installed"})
            continue
        left = wait_until_quiet(console)
        with standard_error():
            modes = (*LCE, *delegates, "compiled")
            found = medians(benchmark({name: content}, modes=modes, num_runs=arguments.num_runs))
            # One and two threads, and the float network, take turns.
            engines = [threaded(content, 1), threaded(content, 2), threaded(float_network, 1)]
            times = measure(engines, 5, arguments.num_runs)
        one, two, real = np.median(times, axis=0)
        shortest = times.min(axis=0)
        fastest = min(found[mode] for mode in LCE if mode in found)
        rows.append(
            {
                "network": name,
                "lce_ms": fastest,
                "lce_mode": min((mode for mode in LCE if mode in found), key=lambda mode: found[mode]),
                **{mode: found[mode] for mode in delegates},
                "compiled": found.get("compiled"),
                **{f"ratio {mode}": fastest / found[mode] for mode in delegates},
                "two_threads": shortest[0] / shortest[1],
                "two_threads_median": one / two,
                "start": starts(content),
                "busy": left,
                "mobilenet": real / one,
            }
        )
    if arguments.json:
        print(json.dumps({"implementation": best, "rows": rows}, indent=2))
        return
    about = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {best}, TensorFlow {tf.__version__}"
    console.print(about)
    columns = ["network", "LCE best, ms", "mode", *[c for mode in delegates for c in (f"{mode}, ms", "times faster")]]
    table = Table(
        *columns,
        "CompiledModel, ms",
        "2 threads",
        "medians",
        "MobileNetV1 / ours",
        "busy",
        title="One image of 224 x 224, one thread",
    )
    for row in rows:
        if "reason" in row:
            table.add_row(row["network"], row["reason"])
            continue
        cells = [c for mode in delegates for c in (f"{row[mode]:.2f}", f"{row[f'ratio {mode}']:.2f}")]
        table.add_row(
            row["network"],
            f"{row['lce_ms']:.1f}",
            row["lce_mode"],
            *cells,
            f"{row['compiled']:.2f}" if row["compiled"] else "-",
            f"{row['two_threads']:.2f}",
            f"{row['two_threads_median']:.2f}",
            f"{row['mobilenet']:.2f}",
            f"{row['busy']:.0%}",
        )
    console.print(table)
    table = Table("network", "engine", "ready, ms", "first inference, ms", "resident, MB", title="Start, one thread")
    for row in rows:
        for engine, values in row.get("start", {}).items():
            table.add_row(row["network"], engine, *(f"{value:.1f}" for value in values))
    console.print(table)


def threaded(content: bytes, num_threads: int) -> Callable[[], object]:
    interpreter = larq_rep_runtime.Interpreter(content, num_threads)
    x = np.random.default_rng(0).standard_normal((1, 224, 224, 3)).astype(np.float32)
    return lambda: interpreter.predict(x)


if __name__ == "__main__":
    main()
