"""Small networks of the parts of ABC-Net, CBCN, Group-Net and BENN learn the digits of scikit-learn."""

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from larq_rep.data import digits
from larq_rep.layers import BatchNormalization, CirculantConv2D, SoftGate, Vote, WeightedSum
from larq_rep.quantizers import BasisWeights, DoReFaSign, ShiftedSigns
from larq_rep.training import bagging, boosting, members, transfer

pytestmark = pytest.mark.slow
keras = tf.keras.layers
WIDTH = 32


def norm(x, name=None):
    return BatchNormalization(momentum=0.9, name=name)(x)


def stem(image, name="stem"):
    return norm(keras.Conv2D(WIDTH, 3, padding="same", use_bias=False, name=name)(image), f"{name}_bn")


def pooled(x):
    return keras.MaxPool2D()(x)


def head(x, name="logits"):
    return keras.Dense(10, name=name)(keras.Flatten()(pooled(x)))


def fit(model, epochs, learning_rate=3e-3, weights=None):
    images, labels = digits("train")
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    schedule = tf.keras.optimizers.schedules.CosineDecay(learning_rate, epochs * -(-len(labels) // 64))
    model.compile(tf.keras.optimizers.Adam(schedule), loss)
    model.fit(images, labels, batch_size=64, epochs=epochs, sample_weight=weights, verbose=0)


def accuracy(model):
    images, labels = digits("test")
    return np.mean(model.predict(images, verbose=0).argmax(-1) == labels)


@pytest.fixture(autouse=True)
def seeded():
    tf.keras.utils.set_random_seed(0)


def test_abc_net_from_a_real_network():
    def network(quantized):
        x = image = tf.keras.Input((8, 8, 1))
        x = pooled(stem(x))
        for number in (1, 2):
            y = lq.layers.QuantConv2D(
                WIDTH,
                3,
                padding="same",
                use_bias=False,
                input_quantizer=ShiftedSigns(3) if quantized else None,
                kernel_quantizer=BasisWeights(3) if quantized else None,
                name=f"conv{number}",
            )(norm(x, f"bn{number}") if quantized else keras.ReLU()(norm(x, f"bn{number}")))
            x = keras.Add()([x, y])
        return tf.keras.Model(image, head(x))

    def shifts_and_scales(model):
        return [w.numpy() for w in model.trainable_weights if "shifted_signs" in w.name]

    real, quantized = network(False), network(True)
    fit(real, 15)
    transfer(real, quantized, (r".*/shifted_signs/.*",))
    before = shifts_and_scales(quantized)
    fit(quantized, 20)
    assert len(before) == 4
    assert all(np.all(new != old) for old, new in zip(before, shifts_and_scales(quantized), strict=True))
    assert accuracy(quantized) > 0.9


def test_cbcn():
    x = image = tf.keras.Input((8, 8, 1))
    x = pooled(stem(x))
    for _ in (1, 2):
        y = CirculantConv2D(WIDTH, 3, padding="same", use_bias=False, input_quantizer="approx_sign")(x)
        x = keras.PReLU(shared_axes=[1, 2])(keras.Add()([norm(y), x]))
    model = tf.keras.Model(image, head(x))
    fit(model, 25)
    assert accuracy(model) > 0.9


def test_group_net():
    def half(x):
        y = lq.layers.QuantConv2D(
            WIDTH,
            3,
            padding="same",
            pad_values=1.0,
            use_bias=False,
            input_quantizer="approx_sign",
            kernel_quantizer=DoReFaSign(),
        )(x)
        return keras.Add()([norm(keras.ReLU()(y)), x])

    x = image = tf.keras.Input((8, 8, 1))
    x = pooled(stem(x))
    first = [half(x) for _ in range(2)]
    x = WeightedSum(name="first")(first)
    gate = SoftGate(name="gate")
    second = [half(gate([branch, x])) for branch in first]
    model = tf.keras.Model(image, head(WeightedSum(name="second")(second)))
    before = [model.get_layer(name).get_weights()[0] for name in ("first", "gate", "second")]
    fit(model, 25)
    after = [model.get_layer(name).get_weights()[0] for name in ("first", "gate", "second")]
    assert all(np.all(new != old) for old, new in zip(before, after, strict=True))
    assert accuracy(model) > 0.9


@pytest.mark.parametrize("method", ["bagging", "indep", "seq"])
def test_ensemble(method):
    image = tf.keras.Input((8, 8, 1))
    logits = []
    for number in (1, 2, 3):
        x = pooled(stem(image, f"member{number}_stem"))
        y = lq.layers.QuantConv2D(
            WIDTH, 3, padding="same", use_bias=False, input_quantizer="ste_sign", kernel_quantizer="xnor_sign"
        )(x)
        logits.append(head(norm(y), f"member{number}_logits"))
    model = tf.keras.Model(image, Vote(name="vote")(logits))

    def train(member, weights):
        fit(member, 15, weights=weights)

    if method == "bagging":
        bagging(model, train, 1437)
    else:
        boosting(model, train, *digits("train"), start=method)
        assert np.all(model.get_layer("vote").get_weights()[0] > 0)
    assert accuracy(model) > max(0.9, np.mean([accuracy(member) for member in members(model)]))
