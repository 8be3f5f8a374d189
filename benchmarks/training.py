"""Compares training steps with the plain Keras and Larq form of the same network: images per second, peak memory.

The plain form is what a user of Larq writes without this package: RPReLU as `PReLU` between two layers that add a
bias, RSign as such a layer and `ApproxSign`, `MagnitudeAwareSign` for the kernels and `tf.tile` for the repeats.
Larq lacks IR-Net's estimators, so the plain ResNet-20 also has these quantizers: it computes less.

The two forms take turns within one run. Peak memory is measured in a process that only does two steps of one form.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import larq_rep  # isort: skip  (before TensorFlow)
import larq as lq
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from larq_rep.layers import Repeat, RepQuantConv2D, RPReLU
from larq_rep.quantizers import RSign

# Image size, batch size and optimizer of each network.
NETWORKS = {
    "ReActNetA": (128, 8, tf.keras.optimizers.Adam),
    "RepReActNetA": (128, 8, tf.keras.optimizers.Adam),
    "RepResNet20": (32, 128, partial(tf.keras.optimizers.SGD, momentum=0.9)),
}
FORMS = ("larq_rep", "plain")


class Bias(tf.keras.layers.Layer):
    def build(self, input_shape):
        self.bias = self.add_weight("bias", (input_shape[-1],), initializer="zeros")

    def call(self, inputs):
        return inputs + self.bias


def plain_layer(layer: tf.keras.layers.Layer) -> tf.keras.layers.Layer:
    def chain(*layers):
        return tf.keras.Sequential(layers, name=layer.name)

    def tile(times):
        return tf.keras.layers.Lambda(lambda x: tf.tile(x, [1, 1, 1, times]))

    if isinstance(layer, RPReLU):
        prelu = tf.keras.layers.PReLU(alpha_initializer=tf.keras.initializers.Constant(0.25), shared_axes=[1, 2])
        return chain(Bias(), prelu, Bias())
    if isinstance(layer, RSign):
        return chain(Bias(), lq.quantizers.ApproxSign())
    if isinstance(layer, Repeat):
        return chain(tile(layer.times))
    if isinstance(layer, lq.layers.QuantConv2D):
        input_quantizer: lq.quantizers.Quantizer = lq.quantizers.ApproxSign()
        if isinstance(layer.input_quantizer, lq.quantizers.NoOp):
            input_quantizer = lq.quantizers.NoOp(precision=1)
        conv = lq.layers.QuantConv2D(
            layer.filters,
            layer.kernel_size,
            strides=layer.strides,
            padding=layer.padding,
            use_bias=layer.use_bias,
            input_quantizer=input_quantizer,
            kernel_quantizer=lq.quantizers.MagnitudeAwareSign(),
        )
        return chain(conv, tile(layer.beta**2)) if isinstance(layer, RepQuantConv2D) else chain(conv)
    return type(layer).from_config(layer.get_config())


def network(name: str, form: str) -> tf.keras.Model:
    """A compiled network with the same weights in both forms."""
    size, _, optimizer = NETWORKS[name]
    tf.keras.utils.set_random_seed(0)
    model = getattr(larq_rep.zoo, name)(input_shape=(size, size, 3))
    if form == "plain":
        weights = model.get_weights()
        model = tf.keras.models.clone_model(model, clone_function=plain_layer)
        model.set_weights(weights)
    model.compile(optimizer(1e-4), tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def batch(model: tf.keras.Model, name: str) -> tuple[tf.Tensor, tf.Tensor]:
    size, count, _ = NETWORKS[name]
    rng = np.random.default_rng(0)
    images = rng.standard_normal((count, size, size, 3), dtype=np.float32)
    return tf.constant(images), tf.constant(rng.integers(model.output_shape[-1], size=count))


def peak_mb(name: str, form: str) -> float:
    """Peak memory of this process after two steps."""
    model = network(name, form)
    images, labels = batch(model, name)
    for _ in range(2):
        model.train_on_batch(images, labels)
    if sys.platform == "linux":
        # Not getrusage: on Linux it includes the parent process's memory.
        (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts in bytes


def peaks(name: str) -> dict[str, float]:
    """Peak memory of each form, measured side by side in separate processes."""
    command = [sys.executable, __file__, "--peak", name]
    processes = {form: subprocess.Popen([*command, form], stdout=subprocess.PIPE, text=True) for form in FORMS}
    outputs = {form: process.communicate()[0] for form, process in processes.items()}
    for form, process in processes.items():
        if process.returncode:
            raise RuntimeError(f"{' '.join([*command, form])} failed with exit code {process.returncode}.")
    return {form: float(output.split()[-1]) for form, output in outputs.items()}


def step_seconds(name: str, repeats: int) -> dict[str, float]:
    """Median time of a training step of each form; the forms take turns."""
    models = {form: network(name, form) for form in FORMS}
    images, labels = batch(models["plain"], name)
    seconds: dict[str, list[float]] = {form: [] for form in FORMS}
    for _ in range(repeats + 2):
        for form, model in models.items():
            start = time.perf_counter()
            model.train_on_batch(images, labels)
            seconds[form].append(time.perf_counter() - start)
    # The first step traces, the second warms up.
    return {form: statistics.median(values[2:]) for form, values in seconds.items()}


def bench(repeats: int = 7) -> list[dict]:
    """Speed and peak memory of both forms of each network."""
    rows = []
    for name, (size, count, _) in NETWORKS.items():
        seconds, megabytes = step_seconds(name, repeats), peaks(name)
        tf.keras.backend.clear_session()
        rows.append(
            {"network": name, "image": size, "batch": count, "repeats": repeats}
            | {f"{form}_images_s": count / seconds[form] for form in FORMS}
            | {f"{form}_peak_mb": megabytes[form] for form in FORMS}
            | {
                "speed": seconds["plain"] / seconds["larq_rep"],
                "memory": megabytes["larq_rep"] / megabytes["plain"],
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7, help="timed training steps of each form")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--peak", nargs=2, metavar=("NETWORK", "FORM"), help="print the peak memory of one form")
    arguments = parser.parse_args()
    if arguments.peak:
        print(peak_mb(*arguments.peak))
        return
    rows = bench(arguments.repeats)
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    table = Table(
        *("network", "batch x px", "images/s", "plain", "ratio", "MB", "plain", "ratio"),
        title="Training step against the plain Keras and Larq form: speed, peak memory",
    )
    for row in rows:
        table.add_row(
            row["network"],
            f"{row['batch']} x {row['image']}",
            *(f"{row[key]:.1f}" for key in ("larq_rep_images_s", "plain_images_s")),
            f"{row['speed']:.2f}",
            *(f"{row[key]:.0f}" for key in ("larq_rep_peak_mb", "plain_peak_mb")),
            f"{row['memory']:.2f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
