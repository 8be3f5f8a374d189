"""Networks of larq_zoo as LCE itself converts them; run where larq_zoo is installed."""

import importlib

import larq_compute_engine
import numpy as np
import pytest
import support
import tensorflow as tf

from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.converters.verification.delegate import compare_delegate

pytest.importorskip("larq_zoo")

# The smallest image of which zero padding sees a map that LCE computes rightly.
SIZES = {
    "QuickNetSmall": 96,
    "QuickNet": 96,
    "BinaryResNetE18": 96,
    "BiRealNet": 96,
    "BinaryDenseNet28": 96,
    "BinaryDenseNet37Dilated": 96,
    "RealToBinaryNet": 96,
    "MeliusNet22": 96,
    "BinaryAlexNet": 224,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_network(name):
    module = "sota" if name.startswith("QuickNet") else "literature"
    network = getattr(importlib.import_module(f"larq_zoo.{module}"), name)
    tf.keras.utils.set_random_seed(0)
    shape = (SIZES[name], SIZES[name], 3)
    model = support.randomize(network(input_shape=shape, weights=None, num_classes=10))
    content = larq_compute_engine.convert_keras_model(model)
    assert sum(op.name == "LceBconv2d" for op in Flatbuffer(content).operators) > 4
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    assert compare_delegate(content, x) == []
