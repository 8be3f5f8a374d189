"""Converts a network of the zoo with random weights: python benchmarks/network.py NETWORK FILE.tflite"""

import sys
import warnings
from pathlib import Path

from runtime import trained_like  # isort: skip  (before TensorFlow)

from larq_rep import zoo
from larq_rep.converters import convert

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    _, name, file = sys.argv
    Path(file).write_bytes(convert(trained_like(zoo.get_model(name)))[0])
