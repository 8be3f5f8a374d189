"""Small networks of the parts of ABC-Net, CBCN, Group-Net and BENN learn the digits of scikit-learn."""

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from larq_rep.data import digits
from larq_rep.layers import CirculantConv2D, SoftGate, Vote, WeightedSum
from larq_rep.quantizers import BasisWeights, DoReFaSign, ShiftedSigns
from larq_rep.training import bagging, boosting, members, transfer

pytestmark = pytest.mark.slow
keras = tf.keras.layers
WIDTH = 32


def stem(image, name="stem"):
    return keras.BatchNormalization(name=f"{name}_bn")(keras.Conv2D(WIDTH, 3, padding="same", name=name)(image))


def head(x, name="logits"):
    return keras.Dense(10, name=name)(keras.GlobalAveragePooling2D()(x))


def fit(model, epochs, learning_rate=3e-3, weights=None):
    images, labels = digits("train")
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf.keras.optimizers.Adam(learning_rate), loss)
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
        x = stem(x)
        for number in (1, 2):
            x = keras.BatchNormalization(name=f"bn{number}")(x)
            y = lq.layers.QuantConv2D(
                WIDTH,
                3,
                padding="same",
                use_bias=False,
                input_quantizer=ShiftedSigns(3) if quantized else tf.nn.relu,
                kernel_quantizer=BasisWeights(3) if quantized else None,
                name=f"conv{number}",
            )(x)
            x = keras.Add()([x, y])
        return tf.keras.Model(image, head(x))

    real, quantized = network(False), network(True)
    fit(real, 15)
    transfer(real, quantized, (r".*/shifted_signs/.*",))
    before = [conv.input_quantizer.get_weights() for conv in quantized.layers if hasattr(conv, "input_quantizer")]
    fit(quantized, 15, 1e-3)
    after = [conv.input_quantizer.get_weights() for conv in quantized.layers if hasattr(conv, "input_quantizer")]
    assert all(np.all(new != old) for a, b in zip(before, after, strict=True) for old, new in zip(a, b, strict=True))
    assert accuracy(quantized) > 0.9


def test_cbcn():
    x = image = tf.keras.Input((8, 8, 1))
    x = stem(x)
    for _ in (1, 2):
        y = CirculantConv2D(WIDTH, 3, padding="same", use_bias=False, input_quantizer="approx_sign")(x)
        x = keras.PReLU(shared_axes=[1, 2])(keras.Add()([keras.BatchNormalization()(y), x]))
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
        return keras.Add()([keras.BatchNormalization()(keras.ReLU()(y)), x])

    x = image = tf.keras.Input((8, 8, 1))
    x = stem(x)
    first = [half(half(x)) for _ in range(2)]
    x = WeightedSum(name="first")(first)
    gate = SoftGate(name="gate")
    second = [half(half(gate([branch, x]))) for branch in first]
    model = tf.keras.Model(image, head(WeightedSum(name="second")(second)))
    before = [model.get_layer(name).get_weights()[0] for name in ("first", "gate", "second")]
    fit(model, 25)
    after = [model.get_layer(name).get_weights()[0] for name in ("first", "gate", "second")]
    assert all(np.all(new != old) for old, new in zip(before, after, strict=True))
    assert accuracy(model) > 0.9


@pytest.mark.parametrize("method", ["bagging", "indep", "seq"])
def test_ensemble(method):
    """No member alone is better than all together by more than chance."""
    image = tf.keras.Input((8, 8, 1))
    logits = []
    for number in (1, 2, 3):
        x = stem(image, f"member{number}_stem")
        y = lq.layers.QuantConv2D(
            WIDTH, 3, padding="same", use_bias=False, input_quantizer="ste_sign", kernel_quantizer="xnor_sign"
        )(x)
        logits.append(head(keras.Add()([keras.BatchNormalization()(y), x]), f"member{number}_logits"))
    model = tf.keras.Model(image, Vote(name="vote")(logits))

    def train(member, weights):
        fit(member, 15, weights=weights)

    if method == "bagging":
        bagging(model, train, 1437)
    else:
        boosting(model, train, *digits("train"), start=method)
        assert np.all(model.get_layer("vote").get_weights()[0] > 0)
    assert accuracy(model) > max(0.9, np.mean([accuracy(member) for member in members(model)]))
