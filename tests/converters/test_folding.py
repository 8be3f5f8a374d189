"""Folding against the file as it was, in LCE's interpreter.

Inputs and weights are small multiples of powers of two, so every sum is exact in float32: what folding moves
elsewhere must give the same outputs to the last bit.
"""

import collections
import tracemalloc

import larq as lq
import larq_compute_engine as lce
import larq_rep_runtime
import numpy as np
import pytest
import tensorflow as tf
from support import first_quick, images, randomize

from larq_rep import zoo
from larq_rep.converters import convert, float_weights, fold, verify
from larq_rep.converters.flatbuffer import Flatbuffer, InvalidFlatbufferError
from larq_rep.converters.lce import any_interpreter, interpreter

layers = tf.keras.layers
MODES = ({}, {"use_indirect_bgemm": True}, {"use_xnnpack": True}, {"use_reference_bconv": True})


class Shift(layers.Layer):
    """x + c with one c for each channel, or for each channel before a tile (`copies`)."""

    def __init__(self, copies=1, values=(-1, 1), **kwargs):
        super().__init__(**kwargs)
        self.copies, self.values = copies, values

    def build(self, shape):
        rng = np.random.default_rng(int(self.name.split("_")[-1]))
        numbers = rng.choice(np.arange(self.values[0], self.values[1] + 0.25, 0.25), shape[-1] // self.copies)
        self.c = tf.constant(np.tile(numbers, self.copies), tf.float32)

    def call(self, x):
        return x + self.c


class Scale(Shift):
    """x * c with powers of two, all positive if `values` are."""

    def build(self, shape):
        rng = np.random.default_rng(int(self.name.split("_")[-1]))
        numbers = np.where(rng.random(shape[-1] // self.copies) < 0.5, *self.values)
        self.c = tf.constant(np.tile(numbers, self.copies), tf.float32)

    def call(self, x):
        return x * self.c


class Network:
    """Layers with exact weights."""

    def __init__(self, seed=0):
        self.rng = np.random.default_rng(seed)
        self.layers = 0
        self.image = layers.Input((8, 8, 4), name="image")

    def number(self, low, high, shape):
        return self.rng.integers(low, high + 1, shape).astype(np.float32)

    def apply(self, cls, x, *args, **kwargs):
        self.layers += 1
        return cls(*args, name=f"{cls.__name__.lower()}_{self.layers}", **kwargs)(x)

    def shift(self, x, **kwargs):
        return self.apply(Shift, x, **kwargs)

    def scale(self, x, values=(0.5, 2.0), **kwargs):
        return self.apply(Scale, x, values=values, **kwargs)

    def stem(self, filters=8, **kwargs):
        return self.real(self.image, filters, **kwargs)

    def real(self, x, filters, kernel=1, **kwargs):
        convolution = layers.Conv2D(filters, kernel, padding="same", **kwargs)
        y = convolution(x)
        convolution.set_weights([self.number(-2, 2, w.shape) / 4 for w in convolution.get_weights()])
        return y

    def binary(self, x, filters=8, kernel=3, strides=1, pad_values=0.0):
        """A binary convolution, a scale and a shift, which LCE's converter makes one operator."""
        convolution = lq.layers.QuantConv2D(
            filters,
            kernel,
            strides,
            padding="same" if kernel > 1 else "valid",
            pad_values=pad_values,
            input_quantizer="ste_sign",
            kernel_quantizer="ste_sign",
            use_bias=False,
        )
        y = convolution(x)
        convolution.set_weights([self.rng.standard_normal(w.shape) for w in convolution.get_weights()])
        # What a batch norm becomes, which itself would round.
        return self.shift(self.scale(y, values=(-0.125, 0.25)))

    def prelu(self, x):
        layer = layers.PReLU(shared_axes=[1, 2])
        y = layer(x)
        layer.set_weights([self.rng.choice([0.25, 0.5], w.shape) for w in layer.get_weights()])
        return y

    def dense(self, x, units=3):
        layer = layers.Dense(units)
        y = layer(x)
        layer.set_weights([self.number(-2, 2, w.shape) / 4 for w in layer.get_weights()])
        return y

    def finish(self, x):
        return tf.keras.Model(self.image, self.dense(layers.Flatten()(x)))


def tile(x, copies=2):
    return layers.Lambda(lambda x: tf.tile(x, [1, 1, 1, copies]))(x)


def minus_mean(x):
    return layers.Lambda(lambda x: x - tf.reduce_mean(x, [1, 2], keepdims=True))(x)


def constants(content):
    """How many operators add a constant, and how many multiply with one."""
    flatbuffer = Flatbuffer(content)
    counts = collections.Counter()
    for op in flatbuffer.operators:
        if op.name in ("ADD", "SUB", "MUL") and any(flatbuffer.constant(t) is not None for t in op.inputs):
            counts["MUL" if op.name == "MUL" else "ADD"] += 1
    return counts["ADD"], counts["MUL"]


def whole_images(model, count=3):
    rng = np.random.default_rng(1)
    return rng.integers(-4, 5, (count, *model.input_shape[1:])).astype(np.float32)


def assert_same_outputs(model, before, after, modes=MODES):
    x = whole_images(model)
    expected = interpreter(before, use_indirect_bgemm=True).predict(x)
    assert np.ptp(expected) > 0
    for options in modes:
        np.testing.assert_array_equal(interpreter(after, **options).predict(x), expected, err_msg=str(options))


# Each rule by itself: the network, and the additions and multiplications of constants before and after.


def behind_a_shortcut(n):
    x = n.prelu(n.stem())
    return n.prelu(n.shift(layers.add([n.binary(x), x])))


def behind_average_pooling(n):
    return n.prelu(n.shift(layers.AvgPool2D(2)(n.binary(n.stem()))))


def behind_average_pooling_with_padding(n):
    return n.prelu(n.shift(layers.AvgPool2D(2, 1, padding="same")(n.binary(n.stem()))))


def behind_max_pooling(n):
    return n.prelu(n.shift(layers.MaxPool2D(3, 2, padding="same")(n.binary(n.stem()))))


def behind_a_concatenation(n):
    x = n.prelu(n.stem())
    return n.prelu(n.shift(layers.concatenate([n.binary(x), n.binary(x)])))


def behind_a_concatenation_with_what_takes_none(n):
    x = n.prelu(n.stem())
    return n.prelu(n.shift(layers.concatenate([n.binary(x), x])))


def behind_a_tile_of_equal_shifts(n):
    return n.prelu(n.shift(tile(n.binary(n.stem())), copies=2))


def behind_a_tile_of_different_shifts(n):
    return n.prelu(n.shift(tile(n.binary(n.stem()))))


def behind_a_scale(n):
    x = n.prelu(n.stem())
    return n.prelu(n.shift(n.scale(layers.add([n.binary(x), x]), values=(-0.5, 2.0))))


def behind_a_subtraction(n):
    x, y = n.prelu(n.stem()), n.binary(n.stem())
    return n.prelu(n.shift(layers.subtract([x, n.shift(layers.MaxPool2D(1)(y))])))


def behind_a_sum_with_its_own_pooling(n):
    x = n.binary(n.stem())
    return n.prelu(n.shift(layers.add([x, layers.MaxPool2D(3, 1, padding="same")(x)])))


def behind_a_difference_from_its_own_mean(n):
    return n.prelu(n.shift(minus_mean(n.stem())))


def where_a_difference_from_the_mean_sees_it_too(n):
    x = n.stem()
    y = n.prelu(minus_mean(x))
    return n.prelu(layers.add([n.binary(n.shift(x)), y]))


def in_front_of_the_first_sign(n):
    x = n.prelu(n.stem())
    stem = n.real(x, 8)
    return n.prelu(layers.add([n.binary(n.shift(stem)), stem]))


def shortcut_and_sign(n):
    x = n.shift(n.prelu(n.stem()))
    return n.prelu(layers.add([n.binary(n.shift(x)), x]))


def through_the_mean(n):
    return layers.GlobalAvgPool2D()(n.shift(n.prelu(n.stem())))


def into_a_real_convolution(n):
    return n.real(n.shift(n.prelu(n.stem())), 8, activation="relu")


def into_a_padded_convolution(n):
    return n.real(n.shift(n.prelu(n.stem())), 8, kernel=3)


def between_two_prelus(n):
    return n.prelu(n.shift(n.prelu(n.stem())))


def of_two_one_stays_for_two_readers(n):
    x = n.shift(layers.MaxPool2D(1)(n.shift(n.prelu(n.stem()))))
    return layers.add([n.prelu(x), n.prelu(layers.MaxPool2D(3, 1, padding="same")(x))])


def before_it_is_copied(n):
    x = n.shift(n.prelu(n.stem()))
    y = layers.concatenate([x, n.prelu(x)])
    return n.prelu(y)


def before_it_is_copied_behind_others(n):
    x = n.prelu(n.shift(layers.AvgPool2D(1)(n.binary(n.stem(), 32))))
    x = n.shift(n.prelu(n.real(x, 8)))
    return n.prelu(layers.concatenate([x, n.prelu(x)]))


def in_front_of_a_mean_of_channels(n):
    x = n.shift(n.prelu(n.stem()))
    return layers.Lambda(lambda x: tf.reduce_mean(x, axis=-1, keepdims=True))(x)


def positive_scale_before_a_sign(n):
    x = n.prelu(n.stem())
    return n.prelu(layers.add([n.binary(n.shift(n.scale(x))), x]))


def negative_scale_before_a_sign(n):
    x = n.prelu(n.stem())
    return n.prelu(layers.add([n.binary(n.shift(n.scale(x, values=(-1.0, 2.0)))), x]))


def scale_of_equal_copies(n):
    x = tile(n.stem())
    return n.prelu(layers.add([n.scale(tile(n.binary(x)), values=(-0.5, 2.0), copies=2), x]))


def scale_of_different_copies(n):
    x = tile(n.stem())
    return n.prelu(layers.add([n.scale(tile(n.binary(x))), x]))


def scale_of_different_copies_before_a_sign(n):
    x = tile(n.binary(n.stem()))
    return n.prelu(n.binary(n.shift(n.scale(x))))


def scale_of_one_branch(n):
    x = n.prelu(n.stem())
    return n.prelu(layers.add([n.scale(x), n.binary(x)]))


def scale_of_both_branches(n):
    x = layers.MaxPool2D(1)(n.prelu(n.stem()))
    return layers.GlobalAvgPool2D()(n.prelu(n.scale(layers.add([n.binary(x), x]))))


def scale_of_a_sum_of_convolutions(n):
    x = n.prelu(n.stem())
    return n.prelu(n.scale(layers.add([n.binary(x), n.binary(x), n.binary(x)]), values=(-0.5, 2.0)))


def scale_of_a_sum_that_others_read(n):
    x = n.prelu(n.stem())
    total = layers.add([n.binary(x), n.binary(x)])
    return n.prelu(layers.add([n.scale(total), total]))


def scale_into_the_dense_layer(n):
    return layers.ReLU()(n.shift(n.scale(n.prelu(n.stem()))))


def negative_scale_before_a_relu(n):
    return layers.ReLU()(n.shift(n.scale(n.prelu(n.stem()), values=(-1.0, 2.0))))


def negative_scale_before_max_pooling(n):
    return layers.MaxPool2D(2)(n.scale(n.prelu(n.stem()), values=(-1.0, 2.0)))


def negative_scale_before_average_pooling(n):
    return layers.AvgPool2D(2)(n.scale(n.prelu(n.stem()), values=(-1.0, 2.0)))


def scale_of_both_branches_and_of_one(n):
    x = n.scale(n.prelu(n.stem()))
    return layers.GlobalAvgPool2D()(layers.add([x, n.scale(x)]))


def clip_before_a_sign(n):
    x = layers.MaxPool2D(2)(n.binary(n.stem()))
    x = layers.Lambda(lambda x: tf.clip_by_value(x, -1, 1))(n.shift(x))
    return n.prelu(n.binary(x))


def clip_that_a_shortcut_sees(n):
    x = layers.MaxPool2D(2)(n.binary(n.stem()))
    x = layers.Lambda(lambda x: tf.clip_by_value(x, -1, 1))(n.shift(x))
    return n.prelu(layers.add([n.binary(x), x]))


RULES = {
    behind_a_shortcut: ((1, 0), (0, 0)),
    behind_average_pooling: ((1, 0), (0, 0)),
    behind_average_pooling_with_padding: ((1, 0), (0, 0)),
    behind_max_pooling: ((1, 0), (0, 0)),
    behind_a_concatenation: ((1, 0), (0, 0)),
    behind_a_concatenation_with_what_takes_none: ((1, 0), (1, 0)),
    behind_a_tile_of_equal_shifts: ((1, 0), (0, 0)),
    behind_a_tile_of_different_shifts: ((1, 0), (1, 0)),
    behind_a_scale: ((1, 1), (0, 1)),
    behind_a_subtraction: ((2, 0), (0, 0)),
    behind_a_sum_with_its_own_pooling: ((1, 0), (0, 0)),
    behind_a_difference_from_its_own_mean: ((1, 0), (1, 0)),
    where_a_difference_from_the_mean_sees_it_too: ((1, 0), (0, 0)),
    in_front_of_the_first_sign: ((1, 0), (0, 0)),
    shortcut_and_sign: ((2, 0), (1, 0)),
    through_the_mean: ((1, 0), (0, 0)),
    into_a_real_convolution: ((1, 0), (0, 0)),
    into_a_padded_convolution: ((1, 0), (1, 0)),
    between_two_prelus: ((1, 0), (1, 0)),
    of_two_one_stays_for_two_readers: ((2, 0), (1, 0)),  # with both constants
    before_it_is_copied: ((1, 0), (1, 0)),
    before_it_is_copied_behind_others: ((2, 0), (1, 0)),
    in_front_of_a_mean_of_channels: ((1, 0), (1, 0)),
    positive_scale_before_a_sign: ((1, 1), (1, 0)),
    negative_scale_before_a_sign: ((1, 1), (1, 1)),
    scale_of_equal_copies: ((0, 1), (0, 0)),
    scale_of_different_copies: ((0, 1), (0, 1)),
    scale_of_different_copies_before_a_sign: ((1, 1), (1, 0)),
    scale_of_one_branch: ((0, 1), (0, 1)),
    scale_of_both_branches: ((0, 1), (0, 0)),
    scale_of_a_sum_of_convolutions: ((0, 1), (0, 0)),
    scale_of_a_sum_that_others_read: ((0, 1), (0, 1)),
    scale_into_the_dense_layer: ((1, 1), (1, 0)),
    negative_scale_before_a_relu: ((1, 1), (1, 1)),
    negative_scale_before_max_pooling: ((0, 1), (0, 1)),
    negative_scale_before_average_pooling: ((0, 1), (0, 0)),
    scale_of_both_branches_and_of_one: ((0, 2), (0, 1)),
    clip_before_a_sign: ((1, 0), (0, 0)),
    clip_that_a_shortcut_sees: ((1, 0), (1, 0)),  # the addition clips, too
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule(rule):
    network = Network()
    model = network.finish(rule(network))
    before, _ = convert(model, fold=False, exact_int8=False)
    after, report = fold(before)
    assert (constants(before), constants(after)) == RULES[rule]
    assert_same_outputs(model, before, after)
    assert fold(after)[0] == after
    if RULES[rule][0] == RULES[rule][1]:
        assert after == before
    assert report.operators_after == dict(collections.Counter(op.name for op in Flatbuffer(after).operators))
    result = verify(model, after, whole_images(model))
    assert result.ok, [str(difference) for difference in result.differences]


def random_model(seed):
    """Blocks of all these layers in random order."""
    n = Network(seed)
    x = n.stem()
    for _ in range(n.rng.integers(4, 9)):
        choice = n.rng.integers(12)
        if choice == 0:
            x = n.shift(x)
        elif choice == 1:
            x = n.prelu(n.shift(x))
        elif choice == 2:
            x = n.scale(x, values=[(0.5, 2.0), (-1.0, 2.0)][n.rng.integers(2)])
        elif choice == 3:
            x = layers.add([n.binary(n.shift(x), x.shape[-1]), x])
        elif choice == 4 and x.shape[-1] < 32:
            x = layers.concatenate([x, n.binary(x)])
        elif choice == 5 and x.shape[-1] < 32:
            x = n.shift(n.scale(tile(n.binary(x, x.shape[-1]))), copies=int(n.rng.integers(1, 3)))
        elif choice == 6 and x.shape[1] > 4:
            shortcut = layers.AvgPool2D(2)(x)
            x = layers.add([n.binary(x, x.shape[-1], strides=2), n.shift(shortcut)])
        elif choice == 7 and x.shape[1] > 4:
            x = layers.MaxPool2D(2)(x)
        elif choice == 8:
            x = n.binary(n.shift(n.scale(x)), pad_values=1.0)
        elif choice == 9:
            x = layers.add([x, layers.MaxPool2D(3, 1, padding="same")(x)])
        elif choice == 10:
            x = n.shift(layers.MaxPool2D(1)(n.shift(n.prelu(x))))
            x = layers.add([n.prelu(x), n.prelu(layers.MaxPool2D(3, 1, padding="same")(x))])
        else:
            x = layers.subtract([n.binary(x, x.shape[-1], kernel=1), n.shift(x)])
    return n.finish(n.prelu(x) if n.rng.random() < 0.5 else x)


@pytest.mark.parametrize(["seed"], first_quick([(seed,) for seed in range(16)], 8))
def test_random_networks_compute_the_same(seed):
    model = random_model(seed)
    before, _ = convert(model, fold=False)
    after, _ = fold(before)
    assert_same_outputs(model, before, after, MODES[:2])
    assert sum(constants(after)) <= sum(constants(before))
    assert fold(after)[0] == after


def test_nested_sums_take_no_more_memory():
    n = Network()
    x = n.stem()
    for _ in range(17):
        x = layers.add([x, layers.MaxPool2D(3, 1, padding="same")(x)])
    content, _ = convert(n.finish(n.prelu(n.shift(x))), fold=False)
    tracemalloc.start()
    fold(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**24  # two terms for each would be 2**17, of 8 channels and 16 bytes


@pytest.mark.parametrize("change", [lambda c: c + 0.5, lambda c: -c])
def test_verify_sees_a_wrong_constant_where_a_factor_was_left_out(change):
    network = Network()
    model = network.finish(positive_scale_before_a_sign(network))
    flatbuffer = Flatbuffer(convert(model)[0])
    sign = [op for op in flatbuffer.operators if op.name == "LceQuantize"][-1]
    tensor = flatbuffer.producers[sign.inputs[0]].inputs[1]
    value = flatbuffer.constant(tensor).copy()
    channel = int(np.abs(value).argmax())
    value[channel] = change(value[channel])
    flatbuffer.set_constant(tensor, value)
    result = verify(model, flatbuffer.pack(), whole_images(model))
    assert not result.ok
    assert result.differences[0].stage == "sign"


def test_files_of_lce_itself_fold():
    network = Network()
    model = network.finish(behind_a_shortcut(network))
    before = lce.convert_keras_model(model)
    after, _ = fold(before)
    assert (constants(before), constants(after)) == RULES[behind_a_shortcut]
    assert_same_outputs(model, before, after)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_files_with_smaller_weights_fold(dtype):
    network = Network()
    x = network.shift(behind_a_shortcut(network))
    model = network.finish(layers.GlobalAvgPool2D()(x))
    before, _ = float_weights.compress(convert(model, fold=False)[0], dtype, minimum_size=1)
    after, _ = fold(before)
    assert constants(before) == (2, 0)
    assert constants(after) == (0, 0)
    assert float_weights.storage(after) == dtype
    x = whole_images(model)
    expected = any_interpreter(before).predict(x)
    np.testing.assert_allclose(any_interpreter(after).predict(x), expected, atol=2e-6 * np.ptp(expected))
    small, _ = convert(model, float_weights=dtype)
    assert fold(small)[0] == small
    assert verify(model, small, x).ok


def test_integer_operators_are_left_alone():
    """The first convolution and the dense layer in int8, a float network between them."""
    n = Network()

    def fake(x):
        return layers.Lambda(lambda x: tf.quantization.fake_quant_with_min_max_args(x, -8, 7.9375))(x)

    x = fake(n.real(fake(n.image), 8))
    x = n.prelu(n.shift(layers.add([n.binary(x), x])))
    x = fake(layers.GlobalAvgPool2D()(n.shift(x)))
    model = tf.keras.Model(n.image, n.dense(x))
    before, _ = convert(model, fold=False)
    after, _ = fold(before)
    kinds = {Flatbuffer(after).dtype(op.outputs[0]) for op in Flatbuffer(after).operators}
    assert "int8" in kinds
    # The addition in front of the integers stays, but behind the mean.
    assert (constants(before), constants(after)) == ((2, 0), (1, 0))
    assert [Flatbuffer(after).shape(op.outputs[0]) for op in Flatbuffer(after).operators if op.name == "ADD"] == [
        (1, 8, 8, 8),
        (1, 8),
    ]
    assert_same_outputs(model, before, after)


@pytest.mark.parametrize("sign", [-1, 1])
def test_filters_of_one_value_are_stored(sign):
    n = Network()
    x = n.stem(1024, strides=4)
    convolution = lq.layers.QuantConv2D(1024, 1, input_quantizer="ste_sign", kernel_quantizer="ste_sign")
    x = convolution(x)
    convolution.set_weights([np.full((1, 1, 1024, 1024), sign, np.float32), n.number(-2, 2, 1024) / 4])
    model = n.finish(n.prelu(x))
    before, _ = convert(model, fold=False)
    after, _ = convert(model)
    assert "FILL" in [op.name for op in Flatbuffer(before).operators]
    assert "FILL" not in [op.name for op in Flatbuffer(after).operators]
    assert_same_outputs(model, before, after)
    assert fold(after)[0] == after
    x = whole_images(model, 1)
    delegated = larq_rep_runtime.Interpreter(after).predict(x)
    np.testing.assert_array_equal(delegated, interpreter(before, use_indirect_bgemm=True).predict(x))


def test_outputs_of_the_network_stay():
    network = Network()
    x = network.prelu(network.stem())
    y = network.shift(layers.add([network.binary(x), x]))
    z = network.prelu(network.shift(y))
    model = tf.keras.Model(network.image, [y, z])
    before, _ = convert(model, fold=False)
    after, _ = fold(before)
    assert Flatbuffer(after).name(Flatbuffer(after).outputs[0]) == Flatbuffer(before).name(
        Flatbuffer(before).outputs[0]
    )
    image = [whole_images(model)[:1]]
    pairs = zip(*(interpreter(c).interpreter.predict(image) for c in (before, after)), strict=True)
    for expected, found in pairs:
        np.testing.assert_array_equal(found, expected)


@pytest.fixture(scope="module")
def reactnet():
    return randomize(zoo.ReActNetA(input_shape=(96, 96, 3)))


def assert_counts(before, after, adds, muls, shortcuts):
    counts = collections.Counter(op.name for op in Flatbuffer(before).operators)
    assert (counts["ADD"], counts["MUL"]) == (adds, muls)
    found = collections.Counter(op.name for op in Flatbuffer(after).operators)
    assert found["LceQuantize"] == found["PRELU"] == 26
    # One addition for each shortcut and one before each sign, but the stem takes the first. Behind a tile the
    # copies of a channel have constants of their own, so there is one before each PReLU, and one before the first sign.
    assert found["ADD"] == shortcuts + 25 + (27 if muls else 0)
    assert found["MUL"] == muls
    assert {k: v for k, v in found.items() if k != "ADD"} == {k: v for k, v in counts.items() if k != "ADD"}


def assert_logits_agree(model, before, after):
    """Any sign may flip by rounding, and then all behind it differs; on most images none does."""
    x = images(model, 5)
    expected, logits = (interpreter(c, use_indirect_bgemm=True).predict(x) for c in (before, after))
    assert np.median(np.abs(logits - expected).max(axis=1)) < 5e-6 * np.ptp(expected)


@pytest.mark.slow
def test_reactnet(reactnet):
    before, _ = convert(reactnet, fold=False)
    after, report = fold(before)
    assert_counts(before, after, adds=109, muls=0, shortcuts=31)
    assert report.folded_away == 53
    assert_logits_agree(reactnet, before, after)


@pytest.mark.slow
def test_verify_proves_the_folded_reactnet(reactnet):
    after, report = convert(reactnet)
    assert report.folded_away == 53
    result = verify(reactnet, after, images(reactnet))
    assert result.ok, [str(difference) for difference in result.differences]


@pytest.mark.slow
def test_rep_reactnet():
    model = randomize(zoo.RepReActNetA(input_shape=(96, 96, 3)))
    before, _ = convert(model, fold=False)
    after, _ = convert(model)
    assert_counts(before, after, adds=140, muls=31, shortcuts=31)
    assert_logits_agree(model, before, after)
    result = verify(model, after, images(model))
    assert result.ok, [str(difference) for difference in result.differences]


# One network of each family of the zoo that a plain installation builds, as small as its padding allows.
FAMILIES = {
    "AresBNet10": 64,
    "BiRealNet18": 96,
    "BWNResNet18": 96,
    "BinaryConnectVGG": 32,
    "BinaryDenseNet28": 96,
    "RepBinaryDenseNet28": 96,
    "MeliusNet22": 96,
    "PresBNet10": 64,
    "ReActNet10": 96,
    "RepReActNet18": 96,
    "ReActNetB": 96,
    "RepReActNetC": 96,
    "RepResNet18": 96,
    "RepResNet20": 16,
    "RepVGGSmall": 32,
    "ResNetE18": 96,
    "SYQResNet18": 96,
    "VGGSmall": 32,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_families_of_the_zoo(name):
    size = FAMILIES[name]
    model = randomize(getattr(zoo, name)(input_shape=(size, size, 3)))
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization) and layer.scale:
            # As trained ones mostly are: then signs ignore them.
            layer.gamma.assign(np.abs(layer.gamma) + 0.05)
    before, _ = convert(model, fold=False)
    after, _ = convert(model)
    assert sum(constants(after)) <= sum(constants(before))
    assert fold(after)[0] == after
    assert_logits_agree(model, before, after)
    result = verify(model, after, images(model, 1))
    assert result.ok, [str(difference) for difference in result.differences]


def test_errors():
    with pytest.raises(InvalidFlatbufferError, match="should be b'TFL3'"):
        fold(b"not a model")
    network = Network()
    content, _ = convert(network.finish(behind_a_shortcut(network)), fold=False)
    with pytest.raises(InvalidFlatbufferError):
        fold(content[:200])


def test_damaged_files_give_no_other_error():
    network = Network()
    content, _ = convert(network.finish(behind_a_tile_of_equal_shifts(network)), fold=False)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = np.frombuffer(content, np.uint8).copy()
        damaged[rng.integers(8, len(damaged), 8)] = rng.integers(0, 256, 8)
        try:
            fold(damaged.tobytes())
        except InvalidFlatbufferError:
            refused += 1
    assert refused > 30


def read_own_output(name):
    def damage(flatbuffer):
        op = next(op for op in flatbuffer.operators if op.name == name)
        flatbuffer.subgraph.operators[op.index].inputs[0] = op.outputs[0]

    return damage


def write_twice(flatbuffer):
    first, second = flatbuffer.subgraph.operators[:2]
    second.outputs = first.outputs


def huge_amount(name):
    def damage(flatbuffer):
        op = next(op for op in flatbuffer.operators if op.name == name)
        amounts = flatbuffer.constant(op.inputs[1]).copy()
        amounts[-1] = 2**31 - 1
        flatbuffer.set_constant(op.inputs[1], amounts)

    return damage


@pytest.mark.parametrize(
    "damage, message",
    [
        (read_own_output("ADD"), "before it is written"),
        (read_own_output("MAX_POOL_2D"), "before it is written"),
        (write_twice, "a second time"),
        (huge_amount("TILE"), None),
        (huge_amount("PAD"), None),
    ],
)
def test_damage_that_would_take_for_ever_or_all_memory(damage, message):
    n = Network()
    x = tile(layers.MaxPool2D(2)(n.stem()))
    x = layers.Lambda(lambda x: tf.pad(x, [[0, 0], [0, 0], [0, 0], [1, 1]]))(x)
    flatbuffer = Flatbuffer(convert(n.finish(n.prelu(n.shift(n.prelu(n.scale(n.shift(x)))))), fold=False)[0])
    damage(flatbuffer)
    if message is None:
        fold(flatbuffer.pack())
    else:
        with pytest.raises(InvalidFlatbufferError, match=message):
            fold(flatbuffer.pack())
