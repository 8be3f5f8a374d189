import larq_rep.zoo as zoo  # before TensorFlow

# isort: split
import numpy as np
import pytest
import tensorflow as tf
from forms import without_gradient
from support import built, images, randomize

from larq_rep import reptran
from larq_rep.cost import count

# Kernels, biases, and pixels of the maps of AlexNet's convolutions.
CONVOLUTIONS = [
    (11 * 11 * 3 * 96, 96, 55 * 55),
    (5 * 5 * 96 * 256, 256, 27 * 27),
    (3 * 3 * 256 * 384, 384, 13 * 13),
    (3 * 3 * 384 * 384, 384, 13 * 13),
    (3 * 3 * 384 * 256, 256, 13 * 13),
]
DENSE = [(6 * 6 * 256 * 4096, 4096), (4096 * 4096, 4096), (4096 * 1000, 1000)]


@pytest.mark.parametrize(
    "name, arguments, parameters, flops, size",
    [
        ("AlexNet", {}, 62378344, 1135256096, 237.95),
        ("MobileNetV1", {"alpha": 0.5}, 1331592, 149497088, 5.080),
        ("MobileNetV1", {}, 4231976, 568740352, 16.144),
    ],
)
def test_counts(name, arguments, parameters, flops, size):
    cost = count(built(name, **arguments))
    assert (cost.trainable_params, cost.flops, cost.ops) == (parameters, flops, flops)
    assert cost.binary_params == cost.bops == 0 and not cost.uncounted
    assert cost.trainable_bits / 2**23 == pytest.approx(size, abs=6e-3)


def test_counts_of_alexnet_add_up():
    """D's table prints 249 MB, of 10^6 bytes."""
    assert sum(kernel * pixels for kernel, _, pixels in CONVOLUTIONS) + sum(k for k, _ in DENSE) == 1135256096
    parameters = sum(kernel + bias for kernel, bias, *_ in CONVOLUTIONS + DENSE)
    assert parameters == 62378344 and 249e6 < 4 * parameters < 250e6


def test_mobilenet_has_the_operations_of_the_comparison():
    """ReActNet-A, with 87 million operations, has 41.6 % less by the paper, which is rounded down or cut."""
    half = count(built("MobileNetV1", alpha=0.5)).ops
    assert 0.416 < 1 - 87126016 / half < 0.418


def test_alexnet_is_that_of_its_operations():
    """At 96 x 96, by TensorFlow's operations, with Torch's symmetric padding."""
    model = randomize(zoo.AlexNet(input_shape=(96, 96, 3), num_classes=10))
    x = images(model)
    expected = x
    for number, (stride, side, pooled) in enumerate([(4, 2, 1), (1, 2, 1), (1, 1, 0), (1, 1, 0), (1, 1, 1)], start=1):
        layer = model.get_layer(f"conv{number}")
        expected = tf.pad(expected, [[0, 0], [side, side], [side, side], [0, 0]])
        expected = tf.nn.relu(tf.nn.conv2d(expected, layer.kernel, stride, "VALID") + layer.bias)
        if pooled:
            expected = tf.nn.max_pool2d(expected, 3, 2, "VALID")
    expected = tf.reshape(expected, (len(x), -1))
    for number in (6, 7, 8):
        layer = model.get_layer(f"fc{number}")
        expected = expected @ layer.kernel + layer.bias
        expected = tf.nn.relu(expected) if number < 8 else expected
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_alexnet_drops_inputs_of_its_hidden_layers():
    model = zoo.AlexNet(input_shape=(96, 96, 3), num_classes=10)
    dropped = {layer.name: layer.rate for layer in model.layers if isinstance(layer, tf.keras.layers.Dropout)}
    assert dropped == {"drop6": 0.5, "drop7": 0.5}
    assert model.get_layer("fc6").input is model.get_layer("drop6").output
    assert zoo.AlexNet(input_shape=(96, 96, 3), include_top=False).output_shape == (None, 5, 5, 256)


def test_mobilenet_is_that_of_keras():
    model = randomize(zoo.MobileNetV1(alpha=0.25, input_shape=(64, 32, 3), num_classes=10))
    other = tf.keras.applications.MobileNet(
        (64, 32, 3), alpha=0.25, weights=None, classes=10, classifier_activation=None
    )
    kernel, bias = model.get_weights()[-2:]
    other.set_weights([*model.get_weights()[:-2], kernel[None, None], bias])
    np.testing.assert_allclose(model(images(model)), other(images(model)), rtol=1e-5, atol=1e-6)
    assert zoo.MobileNetV1(input_shape=(64, 32, 3), include_top=False).output_shape == (None, 2, 1, 1024)


@pytest.mark.parametrize(
    "name, size, arguments",
    [
        ("MobileNetV1", 64, {"alpha": 0.25}),
        pytest.param("AlexNet", 96, {}, marks=pytest.mark.slow),
        pytest.param("BiRealNet101", 64, {}, marks=pytest.mark.slow),
    ],
)
def test_rep_forms_of_networks_without_a_constructor_for_them(name, size, arguments):
    model = zoo.get_model(name, input_shape=(size, size, 3), num_classes=10, **arguments)
    same, rep = reptran(model, 1), reptran(model, 2)
    np.testing.assert_allclose(same(images(model)), model(images(model)), rtol=1e-4, atol=1e-4)
    before, after = count(model), count(rep)
    assert (after.bops, after.binary_params) == (before.bops, before.binary_params)
    assert before.trainable_params < after.trainable_params < 1.5 * before.trainable_params
    assert without_gradient(rep, images(rep, 4), 10) == []
