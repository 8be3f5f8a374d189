"""The ImageNet networks at 224 x 224, untrained and with random weights; run by `make test-all`."""

from collections import Counter

import pytest
import tensorflow as tf
from support import images, randomize

from larq_rep import zoo
from larq_rep.converters import convert, verify
from larq_rep.converters.flatbuffer import Flatbuffer

# Operators that LCE 0.16 makes of the trained networks (bytes of the file: 7.95 and 12.34 million).
REACTNET = {
    "LceBconv2d": 31,
    "LceQuantize": 26,
    "ADD": 109,
    "PRELU": 26,
    "CONCATENATION": 5,
    "AVERAGE_POOL_2D": 4,
    "CONV_2D": 1,
    "MEAN": 1,
    "FULLY_CONNECTED": 1,
}
# Operators and bytes as converted, and the additions that folding leaves: see test_folding.py.
EXPECTED = {
    "ReActNetA": (REACTNET, 7_945_484, 31 + 25),
    "RepReActNetA": ({**REACTNET, "TILE": 32, "MUL": 31, "ADD": 140}, 12_342_384, 31 + 26 + 26),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_imagenet_network(name):
    tf.keras.utils.set_random_seed(0)
    model = zoo.get_model(name)
    content, report = convert(model)
    assert (report.bitpacked, report.binary) == (31, 31)
    untrained = verify(model, content, images(model, 2))
    assert untrained.ok, untrained.differences

    randomize(model)
    content, report = convert(model, fold=False)
    operators, size, additions = EXPECTED[name]
    assert Counter(op.name for op in Flatbuffer(content).operators) == operators
    assert report.size == pytest.approx(size, rel=1e-3)
    content, report = convert(model)
    assert Counter(op.name for op in Flatbuffer(content).operators) == {**operators, "ADD": additions}
    assert report.folded_away == operators["ADD"] - additions
    trained = verify(model, content, images(model, 2))
    assert trained.ok, trained.differences
    # 26 signs of 112 x 112 x 32 down to 7 x 7 x 1024 activations, twice as many in the Rep network.
    assert trained.activations == untrained.activations
