"""RepTran on small models of a user; the networks of the zoo are tested with the zoo."""

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from larq_rep import ReptranError, cost, reptran
from larq_rep.layers import PrecisionGate, RepConv2D, RepDense, Repeat, RepQuantConv2D, RepQuantDense, RPReLU
from larq_rep.quantizers import LowBitSign, QuantSign

keras = tf.keras.layers
BINARY = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "use_bias": False, "padding": "same"}


@lq.utils.register_keras_custom_object
class ChannelGain(keras.Layer):
    """What a user may have: a weight for each channel."""

    def build(self, input_shape):
        self.gain = self.add_weight("gain", (input_shape[-1],), initializer="ones")

    def call(self, inputs):
        return inputs * self.gain


@lq.utils.register_keras_custom_object
class Mixer(keras.Layer):
    """And what RepTran cannot know: a matrix."""

    def build(self, input_shape):
        self.matrix = self.add_weight("matrix", (input_shape[-1], 16))

    def call(self, inputs):
        return inputs @ self.matrix


class NoConfig(keras.Layer):
    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, inputs):
        return 2 * inputs


def stem(x, filters=16):
    x = keras.Conv2D(filters, 3, padding="same", use_bias=False, name="stem")(x)
    return keras.BatchNormalization(name="stem_bn")(x)


def binary(x, filters, name, **kwargs):
    x = lq.layers.QuantConv2D(filters, 3, name=name, **{**BINARY, **kwargs})(x)
    return keras.BatchNormalization(name=f"{name}_bn")(x)


def small(middle=lambda x: binary(x, 16, "conv"), head=True):
    """Stem, something in the middle, classifier."""
    image = tf.keras.Input((8, 8, 3), name="image")
    x = middle(stem(image))
    if head:
        x = keras.GlobalAveragePooling2D(name="pool")(x)
        x = keras.Dense(5, name="fc")(x)
    return tf.keras.Model(image, x, name="small")


def images(count=2):
    return np.random.default_rng(0).standard_normal((count, 8, 8, 3)).astype("float32")


def shapes(model):
    return {f"{layer.name}/{i}": tuple(w.shape) for layer in model.layers for i, w in enumerate(layer.weights)}


def many(x):
    """Every rule of the table at once."""
    x = ChannelGain(name="gain")(x)
    y = binary(x, 32, "down", strides=2)
    shortcut = keras.AveragePooling2D(2)(x)
    shortcut = keras.Conv2D(32, 1, use_bias=False, name="bypass")(shortcut)
    y = RPReLU(name="rprelu")(y + keras.BatchNormalization(name="bypass_bn")(shortcut))
    half = y[..., :16]
    padded = tf.pad(y[..., -8:], [[0, 0], [0, 0], [0, 0], [4, 4]])
    a, b = tf.split(padded, 2, axis=-1)
    a, c = tf.split(a, [2, 6], axis=-1)
    y = keras.Concatenate()([half, tf.concat([b, c, a], -1)])
    y = keras.PReLU("ones", shared_axes=[1, 2], name="prelu")(y * np.arange(1.0, 33.0, dtype="float32"))
    y = keras.GroupNormalization(4, name="group_norm")(y)
    scale = keras.Dense(4, activation="tanh", name="squeeze")(keras.GlobalAveragePooling2D()(y))
    scale = keras.Reshape((1, 1, 32))(keras.Dense(32, activation="sigmoid", name="excite")(scale))
    return keras.Dropout(0.1)(keras.Multiply()([y, scale]) * tf.reduce_mean(y, axis=-1, keepdims=True))


def test_every_rule_gives_the_shapes_of_the_paper():
    rep = reptran(small(many), beta=2)
    assert shapes(rep) == {
        "stem/0": (3, 3, 3, 16),
        **{f"stem_bn/{i}": (16,) for i in range(4)},
        "gain/0": (32,),
        "down/0": (3, 3, 32, 16),
        **{f"down_bn/{i}": (64,) for i in range(4)},
        "bypass/0": (1, 1, 32, 16),
        **{f"bypass_bn/{i}": (64,) for i in range(4)},
        "rprelu/0": (64,),
        "rprelu/1": (1, 1, 64),
        "rprelu/2": (64,),
        "prelu/0": (1, 1, 64),
        "group_norm/0": (64,),
        "group_norm/1": (64,),
        "squeeze/0": (64, 2),
        "squeeze/1": (2,),
        "excite/0": (8, 16),
        "excite/1": (16,),
        "fc/0": (64, 5),
        "fc/1": (5,),
    }
    kinds = {name: type(rep.get_layer(name)) for name in ("down", "bypass", "squeeze", "stem_repeat", "fc")}
    assert kinds == {
        "down": RepQuantConv2D,
        "bypass": RepConv2D,
        "squeeze": RepDense,
        "stem_repeat": Repeat,
        "fc": keras.Dense,
    }


@pytest.mark.parametrize("beta", [1, 2, 4])
def test_binary_weights_and_operations_stay(beta):
    base, rep = small(many), reptran(small(many), beta)
    before, after = cost.count(base), cost.count(rep)
    assert (after.binary_params, after.bops) == (before.binary_params, before.bops)
    assert rep.output_shape == base.output_shape
    rep.compile(tf.keras.optimizers.SGD(10.0), "mse")
    old = [weight.numpy() for weight in rep.trainable_weights]
    assert np.isfinite(rep.train_on_batch(images(4), np.zeros((4, 5))))
    assert [w.name for w, o in zip(rep.trainable_weights, old, strict=True) if (w.numpy() == o).all()] == []


def test_repeated_channels_have_equal_statistics():
    rep = reptran(small(many), 4)
    rep.compile("sgd", "mse")
    rep.train_on_batch(images(4), np.zeros((4, 5)))
    for name in ("down_bn", "bypass_bn"):
        layer = rep.get_layer(name)
        for statistic in (layer.moving_mean, layer.moving_variance):
            blocks = statistic.numpy().reshape(16, -1)
            assert blocks.std() > 0
            np.testing.assert_array_equal(blocks, np.broadcast_to(blocks[0], blocks.shape))


@pytest.mark.parametrize("file", ["rep.h5", "rep.keras"])
def test_saved(file, tmp_path):
    rep = reptran(small(lambda x: binary(ChannelGain(name="gain")(x), 16, "conv")))
    rep.save(tmp_path / file)
    loaded = tf.keras.models.load_model(tmp_path / file)
    np.testing.assert_array_equal(loaded(images()), rep(images()))


def test_beta_1_computes_the_same_with_the_same_weights():
    base = small(many)
    rng = np.random.default_rng(1)
    base.set_weights([rng.uniform(0.5, 1, w.shape) for w in base.get_weights()])
    for options in ({}, {"stem": "before_bn"}, {"bn": "before"}, {"last_layer": 3}):
        same = reptran(base, beta=1, **options)
        np.testing.assert_array_equal(same(images()), base(images()))
        assert [layer.name for layer in same.layers] == [layer.name for layer in base.layers]


def test_the_model_stays_as_it_is():
    base = small()
    before, output = base.to_json(), base.get_layer("conv").output
    reptran(base, 2)
    assert base.to_json() == before
    # A layer that had been called again would have two outputs.
    assert base.get_layer("conv").output is output


def test_a_rep_network_of_copied_channels_computes_what_the_formula_says():
    """Against numpy in float64: tile, convolution on all channels, tile, normalisation for each copy."""
    tf.keras.backend.set_floatx("float64")
    try:
        image = tf.keras.Input((4, 4, 2))
        x = keras.Conv2D(4, 1, use_bias=False, name="stem")(image)
        x = keras.Conv2D(6, 1, use_bias=False, name="conv")(x)
        x = keras.BatchNormalization(name="bn")(x)
        base = tf.keras.Model(image, keras.Dense(3, name="fc")(keras.GlobalAveragePooling2D()(x)))
        rep = reptran(base, 2)
    finally:
        tf.keras.backend.set_floatx("float32")
    rng = np.random.default_rng(0)
    rep.set_weights([rng.uniform(0.5, 2, w.shape) for w in rep.get_weights()])
    x = rng.standard_normal((2, 4, 4, 2))
    y = np.tile(x @ rep.get_layer("stem").get_weights()[0][0, 0], 2)
    y = np.tile(y @ rep.get_layer("conv").get_weights()[0][0, 0], 4)
    gamma, beta, mean, variance = rep.get_layer("bn").get_weights()
    y = (y - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    kernel, bias = rep.get_layer("fc").get_weights()
    np.testing.assert_allclose(rep(x), y.mean((1, 2)) @ kernel + bias, rtol=1e-12)


@pytest.mark.parametrize(
    "last_layer, features", [(1, slice(0, 32)), (2, slice(0, 16)), (3, slice(0, 8))], ids=["all", "1/beta", "1/beta^2"]
)
def test_last_layer_takes_the_first_channels(last_layer, features):
    rep = reptran(small(), 2, last_layer=last_layer)
    pooled = tf.keras.Model(rep.input, rep.get_layer("pool").output)(images()).numpy()
    kernel, bias = rep.get_layer("fc").get_weights()
    np.testing.assert_allclose(rep(images()), pooled[:, features] @ kernel + bias, rtol=1e-5, atol=1e-6)


def vgg_head(x):
    x = keras.Flatten(name="flatten")(binary(x, 16, "conv"))
    x = lq.layers.QuantDense(
        12, input_quantizer="ste_sign", kernel_quantizer="ste_sign", use_bias=False, name="hidden1"
    )(x)
    x = keras.Dense(8, name="hidden2")(keras.BatchNormalization(name="hidden1_bn")(x))
    return keras.Reshape((1, 1, 8))(x)


def test_hidden_dense_layers_of_a_vgg_head():
    rep = reptran(small(vgg_head), 2)
    assert isinstance(rep.get_layer("hidden1"), RepQuantDense)
    assert rep.get_layer("hidden1").kernel.shape == (2 * 16 * 64, 6)
    assert rep.get_layer("hidden1_bn").gamma.shape == 24
    assert rep.get_layer("hidden2").kernel.shape == (24, 4)
    assert rep.get_layer("fc").kernel.shape == (16, 5)


@pytest.mark.parametrize("last_layer, features", [(1, 32 * 64), (2, 16 * 64), (3, 8 * 64)])
def test_last_layer_behind_a_flattened_map_takes_channels_before_it(last_layer, features):
    image = tf.keras.Input((8, 8, 3))
    x = keras.Flatten()(binary(stem(image), 16, "conv"))
    rep = reptran(tf.keras.Model(image, keras.Dense(5, name="fc")(x)), 2, last_layer=last_layer)
    assert rep.get_layer("fc").kernel.shape == (features, 5)
    flat = next(layer for layer in rep.layers if isinstance(layer, keras.Flatten))
    assert flat.input.shape[1:] == (8, 8, features // 64)


def test_the_first_layer_is_repeated_before_its_normalisation():
    after, before = reptran(small()), reptran(small(), stem="before_bn")
    assert after.get_layer("stem_bn").gamma.shape == 16
    assert before.get_layer("stem_bn").gamma.shape == 32
    assert before.get_layer("stem_repeat").input is before.get_layer("stem").output
    assert after.get_layer("stem_repeat").input is after.get_layer("stem_bn").output


def test_the_repetition_stands_behind_pooling_and_activation():
    def middle(x):
        return binary(keras.MaxPooling2D(name="max")(keras.ReLU()(x)), 16, "conv")

    assert reptran(small(middle)).get_layer("stem_repeat").input.shape[1:] == (4, 4, 16)
    assert reptran(small(middle), stem="before_bn").get_layer("stem_bn").input.shape[1:] == (8, 8, 32)


def test_normalisation_before_the_repetition():
    """Table 4: it has the parameters of one copy."""

    def middle(x):
        y = lq.layers.QuantConv2D(16, 3, name="conv", **BINARY)(x)
        y = keras.BatchNormalization(name="conv_bn")(keras.MaxPooling2D(1)(y))
        return keras.Conv2D(16, 3, padding="same", name="real")(y + x)

    rep = reptran(small(middle), 2, bn="before")
    assert rep.get_layer("conv_bn").gamma.shape == 8
    assert rep.get_layer("conv_repeat").input is rep.get_layer("conv_bn").output
    assert rep.get_layer("conv_repeat").output.shape[-1] == 32
    assert rep.get_layer("real").kernel.shape == (3, 3, 32, 8)
    assert rep.get_layer("real_repeat").output.shape[-1] == 32
    assert cost.count(rep).binary_params == cost.count(small(middle)).binary_params


@pytest.mark.parametrize("bn", ["after", "before"])
def test_thresholds_of_a_gate_belong_to_the_convolution(bn):
    def middle(x):
        conv = lq.layers.QuantConv2D(16, 3, name="conv", **{**BINARY, "input_quantizer": None})
        y = PrecisionGate(name="gate")([conv(QuantSign(bits=1)(x)), conv(LowBitSign()(x))])
        return keras.BatchNormalization(name="bn")(y)

    rep = reptran(small(middle), 2, bn=bn)
    assert rep.get_layer("gate").threshold.shape == 8
    assert rep.get_layer("bn").gamma.shape == (32 if bn == "after" else 8)
    assert rep.get_layer("conv_repeat").input is rep.get_layer("gate" if bn == "after" else "bn").output


def test_nested_models_are_transformed_inside():
    inside = tf.keras.Input((8, 8, 16))
    block = tf.keras.Model(inside, binary(inside, 16, "conv") + inside, name="block")
    sequence = tf.keras.Sequential([tf.keras.Input((8, 8, 16)), keras.PReLU(shared_axes=[1, 2])], name="sequence")
    base = small(lambda x: sequence(block(x)))
    rep = reptran(base, 2)
    assert rep.get_layer("block").get_layer("conv").kernel.shape == (3, 3, 32, 8)
    assert rep.get_layer("block").input_shape == (None, 8, 8, 32)
    assert rep.get_layer("sequence").weights[0].shape == (1, 1, 32)
    same = reptran(base, 1)
    np.testing.assert_array_equal(same(images()), base(images()))


def test_a_nested_backbone_has_the_first_layer_inside():
    base = small(head=False)
    image = tf.keras.Input((8, 8, 3))
    whole = tf.keras.Model(image, keras.Dense(5)(keras.GlobalAveragePooling2D()(base(image))))
    rep = reptran(whole, 2, last_layer=2)
    assert rep.get_layer("small").output_shape == (None, 8, 8, 32)
    assert rep.layers[-1].kernel.shape == (16, 5)


def test_quantizers_with_weights_get_wider_or_fewer():
    rep = reptran(small(lambda x: binary(x, 16, "conv", input_quantizer="r_sign", kernel_quantizer="rotated_sign")), 2)
    conv = rep.get_layer("conv")
    assert conv.input_quantizer.bias.shape == 32
    assert conv.kernel_quantizer.alpha.shape == 8


def test_shared_layers_stay_shared():
    shared = lq.layers.QuantConv2D(16, 3, name="shared", **BINARY)
    rep = reptran(small(lambda x: shared(shared(x)) + x), 2)
    assert len(rep.get_layer("shared").inbound_nodes) == 2


def test_without_classifier_the_features_are_repeated():
    assert reptran(small(head=False), 4).output_shape == (None, 8, 8, 64)


def test_binary_first_layer():
    image = tf.keras.Input((8, 8, 96))
    x = binary(binary(image, 16, "first"), 16, "second")
    rep = reptran(tf.keras.Model(image, keras.Dense(5)(keras.Flatten()(x))), 2)
    assert type(rep.get_layer("first")) is lq.layers.QuantConv2D
    assert rep.get_layer("first_repeat").times == 2
    assert rep.get_layer("second").kernel.shape == (3, 3, 32, 8)


def test_a_stem_of_several_real_convolutions_stays():
    def middle(x):
        return binary(keras.Conv2D(16, 3, padding="same", name="stem2")(x), 16, "conv")

    rep = reptran(small(middle), 2)
    assert rep.get_layer("stem2").kernel.shape == (3, 3, 16, 16)
    assert rep.get_layer("stem2_repeat").output.shape[-1] == 32
    # What counts as the first layer can be named.
    named = reptran(small(middle), 2, first="stem")
    assert named.get_layer("stem2").kernel.shape == (3, 3, 32, 8)


def test_named_last_layer():
    def middle(x):
        return keras.Conv2D(7, 3, name="head")(binary(x, 16, "conv"))

    rep = reptran(small(middle, head=False), 2, last="head", last_layer=3)
    assert rep.get_layer("head").kernel.shape == (3, 3, 8, 7)
    assert rep.output_shape == (None, 6, 6, 7)


def test_several_outputs():
    image = tf.keras.Input((8, 8, 3))
    x = keras.GlobalAveragePooling2D()(binary(stem(image), 16, "conv"))
    rep = reptran(tf.keras.Model(image, [keras.Dense(5, name="a")(x), keras.Dense(3, name="b")(x)]), 2, last_layer=2)
    assert [tuple(rep.get_layer(name).kernel.shape) for name in "ab"] == [(16, 5), (16, 3)]


def functional(x):
    return keras.Lambda(lambda t: t[..., :16] + 0.0, name="takes_16")(x)


@pytest.mark.parametrize(
    "middle, message",
    [
        (
            lambda x: keras.Conv2DTranspose(16, 3, name="up")(x),
            "Conv2DTranspose 'up'.*exactly these classes.*QuantConv2D",
        ),
        (lambda x: keras.SeparableConv2D(16, 3, name="sep")(x), "SeparableConv2D 'sep'"),
        (lambda x: Mixer(name="mixer")(x), r"Mixer 'mixer'.*output has the shape \(None, 8, 8, 16\); expected 2 times"),
        (functional, r"Lambda 'takes_16'.*output has the shape"),
        (lambda x: NoConfig(object(), name="bare")(x), "NoConfig 'bare'.*get_config"),
        (lambda x: tf.gather(x, [3, 1, 2], axis=-1), "TFOpLambda 'tf.*gather.*takes channels by their numbers"),
        (lambda x: x[..., 3, None], "SlicingOpLambda.*takes a single channel"),
        (lambda x: RepQuantConv2D(16, 3, beta=2, name="rep", **BINARY)(x), "'rep'.*Rep layer already, with beta=2"),
        (lambda x: binary(x, 15, "odd"), "QuantConv2D 'odd'.*beta=2 does not divide its 15 outputs"),
    ],
    ids=["transposed", "separable", "matrix", "lambda", "no_config", "gather", "one_channel", "rep", "odd"],
)
def test_refused(middle, message):
    with pytest.raises(ReptranError, match=message):
        reptran(small(middle), 2)


def test_a_path_around_the_first_layer_is_refused():
    image = tf.keras.Input((8, 8, 3))
    x = binary(stem(image), 16, "conv")
    y = keras.Conv2D(16, 3, padding="same", name="side")(image)
    model = tf.keras.Model(image, keras.Add(name="sum")([x, y]))
    with pytest.raises(ReptranError, match="Add 'sum'.*inputs have 1 and 2 times their channels.*first="):
        reptran(model, 2)
    assert reptran(model, 2, first=["stem", "side"]).output_shape[-1] == 32


@pytest.mark.parametrize(
    "options, message",
    [
        ({"beta": 0}, "beta must be an integer of at least 1, found 0"),
        ({"beta": 2.0}, "beta must be an integer"),
        ({"last_layer": 4}, "last_layer must be one of 1, 2, 3, found 4"),
        ({"stem": "bn"}, "stem must be one of 'after_bn', 'before_bn', found 'bn'"),
        ({"bn": "behind"}, "bn must be one of"),
        ({"first": "nothing"}, "first='nothing', but 'small' has no layer of that name"),
        ({"last": ["fc", "fc2"]}, "last='fc2'"),
    ],
    ids=str,
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        reptran(small(), **options)


def test_models_without_a_graph_or_convolution():
    class Subclassed(tf.keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ReptranError, match="has no graph of layers"):
        reptran(Subclassed())
    x = tf.keras.Input((4,))
    with pytest.raises(ReptranError, match="no convolution and no dense layer"):
        reptran(tf.keras.Model(x, keras.ReLU()(x)))
    with pytest.raises(ValueError, match="last_layer=2, but 'small' has no last layer"):
        reptran(small(head=False), last_layer=2)
