"""Measures conversion against LCE's own route, time and memory, the gain of folding, and the latency of every engine.

All comparisons are ratios within one run: the two routes and all engines take turns.
"""

import argparse
import json
import multiprocessing
import os
import platform
import re
import statistics
import time
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import larq_rep  # isort: skip  (before TensorFlow)
import larq_compute_engine as lce
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from larq_rep.converters import convert, fold
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.converters.latency import benchmark
from larq_rep.converters.lce import interpreter, standard_error
from runtime import trained_like

ENGINES = ("default", "indirect", "xnnpack", "indirect+xnnpack")
NETWORKS = ("ReActNetA", "RepReActNetA")


def by_lce(model: tf.keras.Model) -> bytes:
    with standard_error():
        return lce.convert_keras_model(model)


ROUTES = {
    "larq_rep": lambda model: convert(model, fold=False)[0],
    "folded": lambda model: convert(model)[0],
    "lce": by_lce,
}


def operators(content: bytes) -> Counter:
    return Counter(op.name for op in Flatbuffer(content).operators)


def peak_mib(network: str, route: str) -> float:
    """Resident memory of this process at its highest, after it built and converted a network."""
    ROUTES[route](trained_like(larq_rep.zoo.get_model(network)))
    # ru_maxrss would also count the process that started this one.
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def memory(network: str) -> dict[str, float]:
    """MiB of each route in a process of its own."""
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, fresh, max_tasks_per_child=1) as pool:
        return {f"{route}_mib": pool.submit(peak_mib, network, route).result() for route in ("folded", "lce")}


def conversion(model: tf.keras.Model, repeats: int) -> tuple[bytes, dict]:
    """Seconds of all routes, which take turns, and whether the unfolded files have equal operators and outputs."""
    seconds: dict[str, list[float]] = {name: [] for name in ROUTES}
    files = {}
    for _ in range(repeats):
        for name, route in ROUTES.items():
            start = time.perf_counter()
            files[name] = route(model)
            seconds[name].append(time.perf_counter() - start)
    x = np.random.default_rng(0).standard_normal((1, *model.input_shape[1:])).astype(np.float32)
    ours, theirs = (interpreter(files[name]).predict(x) for name in ("larq_rep", "lce"))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return files["larq_rep"], {
        "network": model.name,
        "repeats": repeats,
        "larq_rep_s": medians["larq_rep"],
        "folded_s": medians["folded"],
        "lce_s": medians["lce"],
        "share": medians["folded"] / medians["lce"],
        "same_operators": operators(files["larq_rep"]) == operators(files["lce"]),
        "outputs_bit_equal": bool(np.array_equal(ours, theirs)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="conversions of each route")
    parser.add_argument("--num_runs", type=int, default=20, help="inferences of each engine")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")

    networks = {name: trained_like(larq_rep.zoo.get_model(name)) for name in NETWORKS}
    files, conversions, foldings = {}, [], []
    for name, model in networks.items():
        unfolded, row = conversion(model, arguments.repeats)
        conversions.append(row | memory(name))
        files[f"{name} unfolded"] = unfolded
        files[name], report = fold(unfolded)
        foldings.append({"network": name, **report.to_dict()})
    results = benchmark(files, modes=ENGINES, keras_models=networks, num_runs=arguments.num_runs)
    if arguments.json:
        latency = [vars(result) for result in results]
        print(json.dumps({"conversion": conversions, "folding": foldings, "latency": latency}, indent=2))
        return
    console = Console()
    console.print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, TensorFlow {tf.__version__}")
    table = Table(
        *("network", "unfolded s", "folded s", "LCE s", "share", "folded MiB", "LCE MiB", "same operators"),
        "bit-equal",
        title="Conversion",
    )
    for row in conversions:
        table.add_row(
            row["network"],
            f"{row['larq_rep_s']:.1f}",
            f"{row['folded_s']:.1f}",
            f"{row['lce_s']:.1f}",
            f"{row['share']:.2f}",
            f"{row['folded_mib']:.0f}",
            f"{row['lce_mib']:.0f}",
            str(row["same_operators"]),
            str(row["outputs_bit_equal"]),
        )
    console.print(table)
    table = Table("network", "ADD", "MUL", "operators", "engine", "of the unfolded median", title="Folding")
    medians = {(result.file, result.mode): result.median_ms for result in results}
    for row in foldings:
        before, after = row["operators_before"], row["operators_after"]
        for mode in ENGINES:
            table.add_row(
                row["network"],
                *(f"{before.get(name, 0)} -> {after.get(name, 0)}" for name in ("ADD", "MUL")),
                f"{sum(before.values())} -> {sum(after.values())}",
                mode,
                f"{medians[row['network'], mode] / medians[row['network'] + ' unfolded', mode]:.3f}",
            )
    console.print(table)
    table = Table("file", "engine", "median ms", "p10", "p90", "ratio", title="Latency, one image, one thread")
    for result in results:
        table.add_row(
            result.file,
            result.mode,
            *(f"{value:.1f}" for value in (result.median_ms, result.p10_ms, result.p90_ms)),
            f"{result.ratio:.2f}",
        )
    console.print(table)


if __name__ == "__main__":
    main()
