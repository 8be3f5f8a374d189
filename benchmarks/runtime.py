"""Compares the delegate on stock TFLite with LCE's interpreter in all its modes, and with a float MobileNet.

Where ai-edge-litert is installed, it is that TFLite, and its CompiledModel is measured as well.

All engines take turns in one run; figures are medians of one image, and ratios of medians.
"""

import argparse
import json
import os
import platform
import warnings
from collections.abc import Callable

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


def medians(results: list[Result]) -> dict[str, float]:
    return {result.mode: result.median_ms for result in results if result.median_ms is not None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=NETWORKS, help="names of networks of the zoo")
    parser.add_argument("--num_runs", type=int, default=30, help="inferences of each engine")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")

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
        with standard_error():
            modes = (*LCE, *delegates, "compiled")
            found = medians(benchmark({name: content}, modes=modes, num_runs=arguments.num_runs))
            # One and two threads, and the float network, take turns.
            engines = [threaded(content, 1), threaded(content, 2), threaded(float_network, 1)]
            one, two, real = np.median(measure(engines, 5, arguments.num_runs), axis=0)
        fastest = min(found[mode] for mode in LCE if mode in found)
        rows.append(
            {
                "network": name,
                "lce_ms": fastest,
                "lce_mode": min((mode for mode in LCE if mode in found), key=lambda mode: found[mode]),
                **{mode: found[mode] for mode in delegates},
                "compiled": found.get("compiled"),
                **{f"ratio {mode}": fastest / found[mode] for mode in delegates},
                "two_threads": one / two,
                "mobilenet": real / one,
            }
        )
    if arguments.json:
        print(json.dumps({"implementation": best, "rows": rows}, indent=2))
        return
    console = Console(width=180)
    about = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {best}, TensorFlow {tf.__version__}"
    console.print(about)
    columns = ["network", "LCE best, ms", "mode", *[c for mode in delegates for c in (f"{mode}, ms", "times faster")]]
    table = Table(
        *columns, "CompiledModel, ms", "2 threads", "MobileNetV1 / ours", title="One image of 224 x 224, one thread"
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
            f"{row['mobilenet']:.2f}",
        )
    console.print(table)


def threaded(content: bytes, num_threads: int) -> Callable[[], object]:
    interpreter = larq_rep_runtime.Interpreter(content, num_threads)
    x = np.random.default_rng(0).standard_normal((1, 224, 224, 3)).astype(np.float32)
    return lambda: interpreter.predict(x)


if __name__ == "__main__":
    main()
