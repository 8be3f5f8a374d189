"""Whole networks of the zoo: by LCE's interpreter, and by stock TFLite with the delegate in all its ways."""

from functools import partial

import graphs
import larq as lq
import numpy as np
import pytest
import support
import tensorflow as tf
from larq_compute_engine import convert_keras_model
from larq_rep_runtime import Interpreter, available_implementations

import larq_rep.quantizers
import larq_rep.zoo
from larq_rep.converters import convert, lce
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.converters.verification.delegate import compare_delegate
from larq_rep.zoo import dorefa, hwgq, lq_net, methods, tbn


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


def random_network(rng):
    """Binary convolutions of every activation and padding, with what stands between them in networks, and all signs.

    Nothing in it but multiplications and additions, which every engine rounds alike.
    """
    activations = [None, "relu", "relu6", lq.activations.hard_tanh]

    def convolve(x, strides=1):
        x = lq.layers.QuantConv2D(
            int(rng.choice([16, 32, 40])),
            int(rng.choice([1, 2, 3])),
            strides=strides,
            use_bias=bool(rng.random() < 0.2),
            activation=activations[rng.integers(4)],
            **[dict(padding="valid"), dict(padding="same", pad_values=1), dict(padding="same")][rng.integers(3)],
            input_quantizer="ste_sign",
            kernel_quantizer=str(rng.choice(["ste_sign", "magnitude_aware_sign"])),
        )(x)
        return tf.keras.layers.BatchNormalization()(x)  # without it, sums of 0 have the sign of a rounding

    inputs = x = tf.keras.Input((16, 16, 32))
    outputs = []
    for strides in (2, 1, 1):
        y = convolve(x, strides)
        if y.shape == x.shape and rng.random() < 0.7:
            y = tf.keras.layers.Add()([x, y])
        if rng.random() < 0.3:
            y = tf.keras.layers.PReLU(shared_axes=[1, 2])(y)
        if rng.random() < 0.3:
            outputs.append(y)
        x = y
    model = tf.keras.Model(inputs, [*outputs, convolve(x)])
    for layer in model.layers:
        for weight in layer.weights:
            values = rng.normal(0, 1, weight.shape)
            if "variance" in weight.name:
                values = rng.uniform(1, 9, weight.shape)
            elif "mean" in weight.name or "beta" in weight.name:
                values *= 4
            weight.assign(values)
    return model


@pytest.mark.parametrize(["seed"], support.first_quick([(seed,) for seed in (*range(8), *range(100, 130))], 8))
def test_random_network(seed):
    rng = np.random.default_rng(seed)
    model = random_network(rng)
    content, _ = convert(model)
    x = rng.normal(size=(1, *model.input_shape[1:])).astype(np.float32)
    expected = lce.any_interpreter(content).interpreter.predict([x])
    for implementation in available_implementations():
        for fuse in (0, 1):
            found = graphs.run(content, x, implementation=implementation, fuse=fuse)
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one, other, f"{implementation}, fuse={fuse}")
    # LCE's file is Keras' network: a different sign would be off by a weight, not by a rounding.
    for one, keras in zip(expected, tf.nest.flatten(model(x)), strict=True):
        wrong = np.abs(one - keras.numpy()) > 1e-3 * np.abs(keras.numpy()).max()
        assert wrong.mean() < 0.01, wrong.mean()


def dorefa_block(x):
    method = methods.Method(kernel_quantizer=larq_rep.quantizers.DoReFaSign)
    quantizer = partial(larq_rep.quantizers.Uniform, 4)
    return dorefa._block(x, 64, "block", quantizer, method, begins=False)


@pytest.mark.parametrize(
    ("block", "bits"),
    [
        (dorefa_block, 4),
        (partial(hwgq._block, filters=64, strides=1, name="block"), 2),
        (partial(lq_net._block, filters=64, name="block", stage=1, number=1), 2),
        (partial(tbn._block, filters=64, strides=1, name="block", shortcut="real"), 2),
    ],
    ids=["dorefa", "hwgq", "lq_net", "tbn"],
)
def test_block_of_several_bits(block, bits, capfd):
    """One step for each of the two convolutions, whatever the number of planes that it adds."""
    image = tf.keras.Input((8, 8, 64))
    content, _ = convert(support.randomize(tf.keras.Model(image, block(image))))
    x = np.random.default_rng(1).normal(size=(1, 8, 8, 64)).astype(np.float32)
    expected = lce.any_interpreter(content).interpreter.predict([x])[0]
    for implementation in available_implementations():
        for fuse in (0, 1):
            found = graphs.run(content, x, implementation=implementation, fuse=fuse)[0]
            np.testing.assert_array_equal(found, expected, f"{implementation}, fuse={fuse}")
    found = [name.count("LceBconv2d") for name in graphs.steps(content, x, capfd) if "LceBconv2d" in name]
    assert found == [bits, bits]


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
