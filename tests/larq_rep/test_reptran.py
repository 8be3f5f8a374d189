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


class Excitation(keras.Layer):
    """A matrix from channels to channels, which would get beta squared times the weights."""

    def build(self, input_shape):
        self.dense = keras.Dense(input_shape[-1])

    def call(self, inputs):
        return inputs * self.dense(inputs)


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


def test_a_last_layer_behind_maps_in_pytorchs_order_takes_the_first_channels():
    image = tf.keras.Input((8, 8, 3))
    x = keras.Flatten()(keras.Permute((3, 1, 2))(binary(stem(image), 16, "conv")))
    rep = reptran(tf.keras.Model(image, keras.Dense(5, name="fc")(x)), 2, last_layer=2)
    maps = tf.keras.Model(rep.input, rep.get_layer("conv_bn").output)(images()).numpy()
    kernel, bias = rep.get_layer("fc").get_weights()
    taken = maps[..., :16].transpose(0, 3, 1, 2).reshape(2, -1)
    np.testing.assert_allclose(rep(images()), taken @ kernel + bias, rtol=1e-4, atol=1e-5)


def tokens(x):
    """Channels come first and go back."""
    x = tf.reshape(tf.transpose(x, (0, 3, 1, 2)), (-1, 16, 64))
    return tf.reshape(tf.transpose(x, (0, 2, 1)), (-1, 8, 8, 16))


def layered_tokens(x):
    x = keras.Reshape((16, -1))(keras.Permute((3, 1, 2))(x))
    return keras.Reshape((8, 8, 16))(keras.Permute((2, 1))(x))


@pytest.mark.parametrize("identity", [tokens, layered_tokens])
def test_reshapes_keep_the_channels_wherever_they_are(identity):
    """Each of these gives what it takes, also when repeated."""
    image = tf.keras.Input((8, 8, 3))
    x = stem(image)
    base = tf.keras.Model(image, binary(identity(x), 16, "conv"))
    rep = reptran(base, 2)
    after = tf.keras.Model(rep.input, [rep.get_layer("stem_repeat").output, rep.get_layer("conv").input])
    repeated, taken = after(images())
    np.testing.assert_allclose(taken, repeated, atol=1e-6)


def test_channels_become_an_axis_of_their_own():
    """As in efficient channel attention."""

    def middle(x):
        weights = keras.Reshape((16, 1), name="column")(keras.GlobalAveragePooling2D()(x))
        weights = keras.AveragePooling1D(3, 1, "same")(weights)
        return binary(x * keras.Reshape((1, 1, 16))(weights), 16, "conv")

    assert reptran(small(middle), 2).get_layer("column").output_shape == (None, 32, 1)


def numbers_in_arrays(x):
    x = tf.pad(x, np.array([[0, 0], [1, 1], [1, 1], [2, 6]]))
    x = tf.pad(x, tf.constant([[0, 0], [0, 0], [0, 0], [4, 4]]))
    x = tf.split(x, tf.constant([20, 12]), axis=-1)[0]
    return binary(tf.reshape(x, tf.constant([-1, 10, 10, 20])), 16, "conv")


def numbers_of_tensors(x):
    y = tf.reshape(x, [tf.shape(x)[0], 64, 16])[:, None]
    y = tf.image.resize(y / tf.reduce_max(tf.abs(y)), tf.shape(x)[1:3])
    y = tf.where(y > 0, y, np.arange(16, dtype="float32"))
    return binary(y, 16, "conv")


@pytest.mark.parametrize("middle, channels", [(numbers_in_arrays, 40), (numbers_of_tensors, 32)])
def test_numbers_of_channels_in_tensors(middle, channels):
    rep = reptran(small(middle), 2)
    assert rep.get_layer("conv").kernel.shape == (3, 3, channels, 8)
    np.testing.assert_array_equal(reptran(rep, 1).output_shape, rep.output_shape)


def test_one_activation_for_the_whole_network():
    image = tf.keras.Input((8, 8, 3))
    relu = keras.ReLU(name="relu")
    x = relu(binary(relu(stem(image)), 16, "conv"))
    base = tf.keras.Model(image, keras.Dense(5, name="fc")(relu(keras.GlobalAveragePooling2D()(x))))
    rep = reptran(base, 2, last_layer=2)
    assert rep.get_layer("conv").kernel.shape == (3, 3, 32, 8)
    assert rep.get_layer("conv_bn").gamma.shape == 32
    assert rep.get_layer("fc").kernel.shape == (16, 5)


def test_two_images_through_the_same_layers():
    convs = [keras.Conv2D(16, 3, name=name) for name in ("stem1", "stem2")]
    conv = lq.layers.QuantConv2D(16, 3, name="conv", **BINARY)
    inputs = [tf.keras.Input((8, 8, 3), name=name) for name in "ab"]
    a, b = (conv(convs[1](convs[0](image))) for image in inputs)
    rep = reptran(tf.keras.Model(inputs, keras.Dense(5)(keras.GlobalAveragePooling2D()(a - b))), 2)
    assert rep.get_layer("stem2").kernel.shape == (3, 3, 16, 16)
    assert rep.get_layer("conv").kernel.shape == (3, 3, 32, 8)
    np.testing.assert_array_equal(rep([images(), images()])[0], rep([images(1), images(1)])[0])


def test_a_convolution_that_several_layers_take_is_repeated_once():
    def middle(x):
        y = lq.layers.QuantConv2D(16, 3, name="conv", **BINARY)(x)
        return y * tf.sigmoid(y) + x

    rep = reptran(small(middle), 2, bn="before")
    assert len(rep.get_layer("conv_repeat").inbound_nodes) == 1


def test_a_repetition_gets_a_name_of_its_own():
    rep = reptran(small(lambda x: binary(keras.ReLU(name="stem_repeat")(x), 16, "conv")), 2)
    assert isinstance(rep.get_layer("stem_repeat"), keras.ReLU)
    assert isinstance(rep.get_layer("stem_repeat_"), Repeat)


@pytest.mark.parametrize("policy", ["float16", "mixed_float16", "float64"])
def test_repetitions_keep_the_dtype(policy):
    tf.keras.mixed_precision.set_global_policy(policy)
    try:
        base = small()
    finally:
        tf.keras.mixed_precision.set_global_policy(None)
    rep = reptran(base, 2)
    assert rep.get_layer("stem_repeat").output.dtype == base.get_layer("stem").output.dtype
    assert rep.output.dtype == base.output.dtype


def binary_depthwise(x):
    return lq.layers.QuantDepthwiseConv2D(
        3, padding="same", input_quantizer="ste_sign", depthwise_quantizer="ste_sign", name="depthwise"
    )(x)


def padded_signs(x):
    x = keras.ZeroPadding2D()(lq.quantizers.SteSign()(x))
    return binary(x, 16, "padded", input_quantizer=None, padding="valid")


@pytest.mark.parametrize("middle", [binary_depthwise, padded_signs])
def test_the_first_layer_is_before_everything_binary(middle):
    rep = reptran(small(lambda x: binary(middle(x), 16, "conv")), 2)
    assert rep.get_layer("stem_repeat").output.shape[-1] == 32


def test_dictionaries_of_inputs_and_outputs():
    image, mask = tf.keras.Input((8, 8, 3), name="image"), tf.keras.Input((8, 8, 1), name="mask")
    x = keras.GlobalAveragePooling2D()(binary(stem(image * mask), 16, "conv"))
    heads = {name: keras.Dense(size, name=name)(x) for name, size in (("class", 5), ("box", 4))}
    base = tf.keras.Model({"image": image, "mask": mask}, heads)
    given = {"image": images(), "mask": np.ones((2, 8, 8, 1), "float32")}
    for beta in (1, 2):
        result = reptran(base, beta)(given)
        assert {name: tuple(value.shape) for name, value in result.items()} == {"class": (2, 5), "box": (2, 4)}


def test_a_normalisation_of_the_image_keeps_what_it_was_adapted_to():
    normalization = keras.Normalization(name="normalization")
    normalization.adapt(images(8) * 3 + 5)
    image = tf.keras.Input((8, 8, 3))
    base = tf.keras.Model(image, keras.Dense(5)(keras.Flatten()(binary(stem(normalization(image)), 16, "conv"))))
    first = tf.keras.Model((rep := reptran(base, 2)).input, rep.get_layer("normalization").output)
    np.testing.assert_array_equal(first(images()), normalization(images()))


def test_input_tensor():
    image = tf.keras.Input((None, None, 3))
    x = keras.GlobalAveragePooling2D()(binary(stem(image), 16, "conv"))
    any_size = tf.keras.Model(image, keras.Dense(5)(x))
    large = tf.keras.Input((16, 16, 3))
    assert reptran(any_size, 2, input_tensor=keras.AveragePooling2D()(large)).input_shape == (None, 16, 16, 3)
    with pytest.raises(
        ValueError, match=r"input_tensor must have the shape \(None, 8, 8, 3\) .* found \(None, 16, 16, 3\)"
    ):
        reptran(small(), 2, input_tensor=large)
    with pytest.raises(ValueError, match="input_tensor must be a Keras tensor, found EagerTensor"):
        reptran(small(), 2, input_tensor=tf.ones((1, 8, 8, 3)))
    two = tf.keras.Model([a := tf.keras.Input((8,)), b := tf.keras.Input((8,))], keras.Dense(4)(a + b), name="two")
    with pytest.raises(ValueError, match="models with one input, but 'two' has 2"):
        reptran(two, 1, input_tensor=large)


class Scaled:
    def __call__(self, x):
        return 2 * x


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
        (lambda x: Excitation(name="se")(x), "'se'.*it now has 1056 weights instead of 272.*mixes channels"),
        (lambda x: tf.stack(tf.unstack(x, axis=-1), -1), "unstack.*it now has 32 outputs instead of 16"),
        (
            lambda x: keras.PReLU(name="moved")(keras.Permute((3, 1, 2))(x)),
            "'moved'.*it has weights, and the channels of its input are not in the last axis",
        ),
        (lambda x: keras.Activation(Scaled(), name="scaled")(x), "Activation 'scaled'.*no config to be built again"),
        (functional, r"Lambda 'takes_16'.*output has the shape"),
        (lambda x: NoConfig(object(), name="bare")(x), "NoConfig 'bare'.*get_config"),
        (lambda x: tf.gather(x, [3, 1, 2], axis=-1), "TFOpLambda 'tf.*gather.*takes channels by their numbers"),
        (lambda x: x[..., 3, None], "SlicingOpLambda.*takes a single channel"),
        (lambda x: RepQuantConv2D(16, 3, beta=2, name="rep", **BINARY)(x), "'rep'.*Rep layer already, with beta=2"),
        (lambda x: binary(x, 15, "odd"), "QuantConv2D 'odd'.*beta=2 does not divide its 15 outputs"),
    ],
    ids=[
        "transposed",
        "separable",
        "matrix",
        "squares",
        "unstack",
        "moved",
        "callable",
        "lambda",
        "no_config",
        "gather",
        "one_channel",
        "rep",
        "odd",
    ],
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


def test_a_single_dense_layer():
    image = tf.keras.Input((8, 8, 3))
    model = tf.keras.Model(image, keras.Dense(4, name="only")(keras.Flatten()(image)))
    with pytest.raises(ReptranError, match="'only' is both the first and the last layer"):
        reptran(model, 2)
    np.testing.assert_array_equal(reptran(model, 1)(images()), model(images()))


def test_losses_of_a_model_are_refused():
    model = small()
    model.add_loss(tf.reduce_mean(model.output))
    with pytest.raises(ReptranError, match="AddLoss.*not carried over"):
        reptran(model, 2)


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
