"""Compares the methods by which `int8` chooses ranges: accuracy and change of the outputs on images held out.

    lqr train ResNet20 --data digits --input-size 16 --recipe recu --out runs/digits
    python benchmarks/calibration.py runs/digits [RUN ...]

Ranges come from 100 of the digits trained on; accuracy from the 360 held out. Each network is measured as the rule has
it, and with all its convolutions and dense layers in int8.
"""

import argparse
import contextlib
import os
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from larq_rep.zoo import runs  # isort: skip  (before TensorFlow)
import numpy as np
from int8 import every
from rich.console import Console
from rich.table import Table

from larq_rep.converters import convert, lce, quantize
from larq_rep.converters.int8 import CALIBRATIONS, islands
from larq_rep.data import digits

CALIBRATION_IMAGES = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="runs of lqr train on digits")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    table = Table("run", "in int8", "operators", "kB", "calibration", "accuracy", "same answers", "mean change")
    for run in arguments.runs:
        model = runs.load(run, "last")
        size = model.input_shape[1:3]
        images, labels = digits("test", size)
        trained = digits("train", size)[0]
        taken = np.random.default_rng(0).permutation(len(trained))[:CALIBRATION_IMAGES]
        content, _ = convert(model)
        expected = lce.interpreter(content, use_indirect_bgemm=True).predict(images)
        right = (expected.argmax(1) == labels).mean()
        table.add_row(run, "nothing", "", f"{len(content) / 1000:.1f}", "", f"{right:.2%}", "", "", end_section=True)
        for which, forced in (("by the rule", None), ("all", every(islands.PRODUCTS))):
            with forced or contextlib.nullcontext():
                for method in CALIBRATIONS:
                    file, report = quantize(content, trained[taken], calibration=method)
                    outputs = lce.interpreter(file, use_indirect_bgemm=True).predict(images)
                    answers = outputs.argmax(1)
                    table.add_row(
                        run,
                        which,
                        str(report.operators),
                        f"{len(file) / 1000:.1f}",
                        method,
                        f"{(answers == labels).mean():.2%}",
                        f"{(answers == expected.argmax(1)).mean():.2%}",
                        f"{np.abs(outputs - expected).mean() / np.abs(expected).mean():.2%}",
                        end_section=method == CALIBRATIONS[-1],
                    )
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
