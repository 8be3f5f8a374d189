"""Whole networks of the zoo: by LCE's interpreter, and by stock TFLite with the delegate in all its ways."""

import graphs
import numpy as np
import pytest
import support
from larq_compute_engine import convert_keras_model
from larq_rep_runtime import Interpreter, available_implementations

import larq_rep.zoo
from larq_rep.converters import convert, lce
from larq_rep.converters.delegate import compare_delegate
from larq_rep.converters.flatbuffer import Flatbuffer


def check(content, shape):
    x = np.random.default_rng(1).normal(size=(1, *shape)).astype(np.float32)
    reference = graphs.run(content, x, implementation="portable", fuse=0)[0]
    for implementation in available_implementations():
        for threads in (1, 2, 4):
            # The threads are the delegate's only: those of TFLite's own operators change how these round.
            found = graphs.run(content, x, implementation=implementation, num_threads=threads)[0]
            np.testing.assert_array_equal(found, reference, f"{implementation}, {threads} threads")
    # The real-valued convolutions of both are of different builds of TFLite, and round differently.
    by_lce = lce.any_interpreter(content).interpreter.predict([x])[0]
    np.testing.assert_allclose(reference, by_lce, rtol=0, atol=1e-5 * np.abs(by_lce).max())
    images = np.concatenate([x, -x, 2 * x])
    single = Interpreter(content, implementation="portable")
    expected = np.concatenate([single.predict(image[None]) for image in images])
    np.testing.assert_array_equal(Interpreter(content).predict(images), expected)


def test_bit_outputs():
    model = support.randomize(support.bit_output_model())
    content, _ = convert(model)
    check(content, model.input_shape[1:])


def test_network():
    content, _ = convert(support.randomize(larq_rep.zoo.ResNet20()))
    check(content, (32, 32, 3))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["RepReActNetA", "ReActNetA", "BinaryDenseNet28", "BiRealNet18", "RepBiRealNet18"])
def test_large_network(name):
    model = support.randomize(larq_rep.zoo.get_model(name, input_shape=(96, 96, 3)))
    content, _ = convert(model)
    check(content, (96, 96, 3))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ReActNetA", "RepReActNetA"])
def test_initial_weights(name):
    """All signs of a filter are alike, and LCE's converter writes filters as FILL."""
    model = larq_rep.zoo.get_model(name, input_shape=(96, 96, 3))
    content = convert_keras_model(model)
    assert "FILL" in {op.name for op in Flatbuffer(content).operators}
    assert compare_delegate(content, np.random.default_rng(1).normal(size=(1, 96, 96, 3)).astype(np.float32)) == []
