"""Small networks with quantized weights learn digits."""

import dataclasses

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from larq_rep import training, zoo
from larq_rep.layers import BatchNormalization
from larq_rep.quantizers import PositionScaled, PowerOfTwo, ScaledBinary, TernaryWeight, TrainedTernary, Uniform
from larq_rep.training import schedules_for, transfer, with_real_weights
from larq_rep.training.datasets import load

keras = tf.keras.layers

# The quantizers of weights and of activations, and what the weights of the first are called if the training begins
# with real weights.
QUANTIZERS = {
    "binary_connect": (lambda: ScaledBinary(scale="one"), None, None),
    "bwn": (lambda: ScaledBinary(gradient="xnor"), None, None),
    "inq": (lambda: PowerOfTwo(2), None, r".*/(codes|largest):0"),
    "syq": (PositionScaled, lambda: Uniform(2), r".*/scale:0"),
    "ttq": (TrainedTernary, None, r".*/(positive|negative):0"),
    "twn": (TernaryWeight, None, None),
}


def network(kernel_quantizer, input_quantizer):
    tf.keras.utils.set_random_seed(0)
    x = image = tf.keras.Input((8, 8, 1))
    for number, (filters, strides) in enumerate(((32, 1), (32, 1), (64, 2), (64, 1))):
        conv = lq.layers.QuantConv2D(
            filters,
            3,
            strides=strides,
            padding="same",
            use_bias=False,
            kernel_quantizer=(number and kernel_quantizer()) or None,
            kernel_constraint="weight_clip" if number else None,
            name=f"conv{number}",
        )
        x = BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"bn{number}")(conv(x))
        x = input_quantizer()(x) if input_quantizer else keras.ReLU()(x)
    return tf.keras.Model(image, keras.Dense(10, name="fc")(keras.GlobalAveragePooling2D()(x)))


def trained(model, digits, epochs):
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf.keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    train, test = (split.map(lambda x, y: (tf.cast(x, tf.float32) / 255, y)) for split in (digits.train, digits.test))
    batches = train.cache().shuffle(1437, seed=0).batch(32)
    model.fit(batches, epochs=epochs, verbose=0, callbacks=schedules_for(model))
    return model.evaluate(test.batch(360), verbose=0)[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", QUANTIZERS)
def test_digits(name):
    kernel_quantizer, input_quantizer, left_behind = QUANTIZERS[name]
    digits = load("digits")
    model = network(kernel_quantizer, input_quantizer)
    if left_behind:
        real = with_real_weights(model, left_behind=[left_behind])
        assert trained(real, digits, 10) > 0.95
        transfer(real, model, [left_behind])
    assert trained(model, digits, 10 if left_behind else 20) > 0.9
    with lq.context.quantized_scope(True):
        kernel = model.get_layer("conv1").kernel.numpy()
    values = {"binary_connect": 2, "bwn": 2 * 32, "syq": 2 * 9}.get(name, 3)
    assert len(set(kernel.ravel().tolist())) == values


@pytest.mark.slow
def test_run_of_inq(tmp_path):
    """As `lqr train` does it: in the last of ten epochs of the second phase, all weights are powers of two."""
    recipe = training.get_recipe("inq")
    phases = [dataclasses.replace(p, epochs=n, batch_size=128) for p, n in zip(recipe.phases, (1, 10), strict=True)]
    recipe = dataclasses.replace(recipe, phases=tuple(phases))
    config = training.Config("INQResNet18", data="digits", recipe=recipe, deterministic=False)

    def build(config):
        return zoo.INQResNet18(width=4, input_shape=(32, 32, 1), num_classes=10)

    model = training.train(build, tmp_path / "run", config, report=lambda line: None)
    kept = training.load(build, tmp_path / "run", "last")
    for found, expected in zip(kept.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
    layers = [layer for layer in kept.layers if getattr(layer, "kernel_quantizer", None)]
    assert len(layers) == 16 + 3 + 2
    for layer in layers:
        with lq.context.quantized_scope(True):
            levels = np.unique(np.abs(layer.kernel.numpy()))
        assert len(levels) <= 2 and all(np.log2(level) % 1 == 0 for level in levels if level)
