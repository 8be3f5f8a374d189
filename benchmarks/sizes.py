"""Compares the bytes of files from LCE's converter and from this one with the memory that Larq's summary counts.

The networks are those of larq_zoo, if it is installed, and some of this zoo, with random weights.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from larq_rep import zoo  # isort: skip  (before TensorFlow)
import larq as lq
import larq_compute_engine as lce
import tensorflow as tf
from larq.models import ModelProfile

from larq_rep.converters import convert
from runtime import trained_like

OURS = (
    *("BinaryNet", "ReActNetA", "RepReActNetA", "BiRealNet18", "BinaryDenseNet28", "PresBNet18", "DoReFaResNet18"),
    *("BWNResNet18", "TWNResNet18"),
)


def theirs() -> dict[str, type]:
    """The networks of larq_zoo, by their names."""
    if importlib.util.find_spec("larq_zoo") is None:
        return {}
    from larq_zoo import literature, sota

    modules = (literature, sota)
    return {name: getattr(module, name) for module in modules for name in dir(module) if name[0].isupper()}


def binary_net() -> tf.keras.Model:
    """The network for CIFAR-10 of Larq's tutorial, with three binary dense layers."""
    options = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "use_bias": False}
    x = image = tf.keras.Input((32, 32, 3))
    for number, filters in enumerate((128, 128, 256, 256, 512, 512)):
        first = {"input_quantizer": None} if number == 0 else {"padding": "same"}
        x = lq.layers.QuantConv2D(filters, 3, **{**options, **first})(x)
        if number % 2:
            x = tf.keras.layers.MaxPool2D()(x)
        x = tf.keras.layers.BatchNormalization(scale=False)(x)
    x = tf.keras.layers.Flatten()(x)
    for units in (1024, 1024, 10):
        x = tf.keras.layers.BatchNormalization(scale=False)(lq.layers.QuantDense(units, **options)(x))
    return tf.keras.Model(image, tf.keras.layers.Softmax()(x), name="binary_net")


def built(name: str) -> tf.keras.Model:
    models = {**theirs(), "BinaryNet": lambda **_: binary_net()}
    return trained_like(models[name](weights=None) if name in models else zoo.get_model(name))


def row(name: str) -> str:
    """A line of the table: bytes of both files, what the summary counts, and bitpacked of all binary layers."""
    model = built(name)
    ours, report = convert(model, allow_float=True)
    # It may end the whole process.
    lce_alone = subprocess.run([sys.executable, __file__, "--lce", name], stdout=subprocess.PIPE, text=True)
    of_lce = lce_alone.stdout.strip() or "crashes"
    memory = int(ModelProfile(model).memory) // 8
    where = " (larq_zoo)" if name in theirs() else ""
    packed = f"{report.bitpacked}/{report.binary}"
    return f"| {name}{where} | {of_lce} | {len(ours):,} | {memory:,} | {len(ours) / memory:.2f} | {packed} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", help="names of networks, of larq_zoo first")
    parser.add_argument("--lce", action="store_true", help="print the bytes of LCE's file alone")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    names = arguments.networks or [*theirs(), *OURS]
    if arguments.lce:
        for name in names:
            print(f"{len(lce.convert_keras_model(built(name))):,}")
        return
    print("| network | `convert_keras_model` | `larq_rep` | `summary` | share of it | bitpacked |")
    print("|---|---|---|---|---|---|")
    for name in names:
        # TensorFlow would keep the graphs of all networks.
        tf.keras.backend.clear_session()
        print(row(name), flush=True)


if __name__ == "__main__":
    main()
