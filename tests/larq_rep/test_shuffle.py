import numpy as np
import pytest
import tensorflow as tf

from larq_rep.converters import convert
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.converters.lce import interpreter
from larq_rep.layers import ChannelShuffle, GroupNormShuffle

SHAPE = (4, 5, 12)


def images(seed=1):
    return np.random.default_rng(seed).normal(2.0, 3.0, (3, *SHAPE)).astype("float32")


def test_defaults():
    assert ChannelShuffle().groups == 2
    assert {"groups": 2, "shuffle": True, "epsilon": 1e-5}.items() <= GroupNormShuffle().get_config().items()


@pytest.mark.parametrize(
    "groups, order", [(1, [0, 1, 2, 3, 4, 5]), (2, [0, 3, 1, 4, 2, 5]), (3, [0, 2, 4, 1, 3, 5]), (6, range(6))]
)
def test_channel_shuffle_takes_from_each_group_in_turn(groups, order):
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 6))
    np.testing.assert_array_equal(ChannelShuffle(groups, dtype="float64")(x), x[..., list(order)])


def test_group_norm_is_that_of_keras():
    """Values and gradients, of images with other means and variances."""
    rng = np.random.default_rng(0)
    x = tf.constant(
        rng.normal(size=(3, 4, 5, 12)) * [[[[2.0]]], [[[20.0]]], [[[0.1]]]] + [[[[0.0]]], [[[9.0]]], [[[-1.0]]]]
    )
    dy, gamma, beta = rng.normal(size=x.shape), rng.normal(size=12), rng.normal(size=12)
    results = []
    for layer in (
        GroupNormShuffle(3, shuffle=False, dtype="float64"),
        tf.keras.layers.GroupNormalization(3, epsilon=1e-5, dtype="float64"),
    ):
        layer.build(x.shape)
        layer.set_weights([gamma, beta])
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            loss = tf.reduce_sum(y * dy)
        results.append([y, *tape.gradient(loss, [x, layer.gamma, layer.beta])])
    for found, expected in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_group_norm_normalises_each_half_of_each_image():
    x = images().astype("float64")
    y = GroupNormShuffle(2, shuffle=False, epsilon=1e-12, dtype="float64")(x).numpy().reshape(3, 20, 2, 6)
    np.testing.assert_allclose(y.mean(axis=(1, 3)), 0, atol=1e-12)
    np.testing.assert_allclose(y.var(axis=(1, 3)), 1, rtol=1e-9)


def test_group_norm_then_shuffle():
    x = images()
    np.testing.assert_array_equal(GroupNormShuffle(3)(x), ChannelShuffle(3)(GroupNormShuffle(3, shuffle=False)(x)))


@pytest.mark.parametrize("make", [ChannelShuffle, GroupNormShuffle])
def test_wrong_arguments_name_the_layer(make):
    with pytest.raises(ValueError, match=f"{make.__name__} 'culprit' needs an integer groups >= 1, but got 0"):
        make(0, name="culprit")
    for channels in (None, 7):
        with pytest.raises(ValueError, match=rf"{make.__name__} 'culprit' needs .* multiple of groups=2.*{channels}\)"):
            make(name="culprit")(tf.keras.Input((4, 4, channels)))


@pytest.mark.parametrize(
    "make, operators",
    [
        (ChannelShuffle, {"RESHAPE": 2, "TRANSPOSE": 1}),
        (
            lambda: GroupNormShuffle(shuffle=False),
            # On whole images MEAN, SQUARED_DIFFERENCE, MEAN, MUL and ADD; all others on one number per channel.
            {"MEAN": 4, "SQUARED_DIFFERENCE": 2, "RESHAPE": 4, "RSQRT": 1, "MUL": 3, "ADD": 3, "SUB": 1},
        ),
    ],
)
def test_conversion(make, operators):
    image = tf.keras.Input((6, 6, 64))
    model = tf.keras.Model(image, make()(image))
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    content, _ = convert(model)
    flatbuffer = Flatbuffer(content)
    names = [op.name for op in flatbuffer.operators]
    assert {name: names.count(name) for name in names} == operators
    assert all(len(flatbuffer.shape(t)) <= 4 for op in flatbuffer.operators for t in (*op.inputs, *op.outputs))
    x = rng.normal(3.0, 5.0, (1, 6, 6, 64)).astype("float32")
    # Rounding in another order.
    tolerance = 0 if make is ChannelShuffle else 1e-5
    np.testing.assert_allclose(interpreter(content).interpreter.predict([x])[0], model(x), rtol=0, atol=tolerance)
