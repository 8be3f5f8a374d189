import larq_rep.zoo as zoo  # before TensorFlow

# isort: split
import json
from fractions import Fraction

import larq as lq
import pytest
import tensorflow as tf
from support import few_blocks, first_quick, shallow_resnet20

from larq_rep.cost import count
from larq_rep.layers import RepConv2D, Repeat, RepQuantConv2D, RPReLU
from larq_rep.quantizers import ResidualSigns, RSign, ScaledSign, TernaryInput, Thermometer, Uniform, ZeroOneSign

layers = tf.keras.layers
BINARY = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}


def sequential(shape, *stack):
    return tf.keras.Sequential([tf.keras.Input(shape), *stack])


# RepBNN, Tables 1 and 2 (with the exact integers behind the printed figures), ReActNet, Table 1.
# name, arguments, BOPs, conv FLOPs, dense FLOPs, OPs, BN, trainable weights
PAPER = [
    ("ReActNetA", {}, 4816896000, 10838016, 1024000, 87126016, 10085376, 29343592),
    ("RepReActNetA", {}, 4816896000, 10838016, 2048000, 88150016, 12606720, 30432072),
    ("RepReActNetA", {"beta": 4}, 4816896000, 10838016, 4096000, 90198016, 21431424, 32609032),
    ("RepReActNetA", {"beta": 8}, 4816896000, 10838016, 8192000, 94294016, 40971840, 36962952),
    ("RepReActNetA", {"last_layer": 2}, 4816896000, 10838016, 1024000, 87126016, 12606720, 29408072),
    ("RepReActNetA", {"last_layer": 3}, 4816896000, 10838016, 512000, 86614016, 12606720, 28896072),
    ("ResNet20", {}, 40108032, 442368, 640, 1069696, 376960, 269850),
    ("RepResNet20", {}, 40108032, 442368, 1280, 1070336, 471200, 271994),
    ("RepResNet20", {"beta": 4}, 40108032, 442368, 2560, 1071616, 801040, 276282),
    ("RepResNet20", {"beta": 8}, 40108032, 442368, 5120, 1074176, 1531400, 284858),
    ("RepResNet20", {"last_layer": 2}, 40108032, 442368, 640, 1069696, 471200, 271226),
    ("RepResNet20", {"last_layer": 3}, 40108032, 442368, 320, 1069376, 471200, 270842),
]


@pytest.mark.parametrize("name, kwargs, bops, conv, dense, ops, bn, weights", first_quick(PAPER, 2), ids=str)
def test_papers(name, kwargs, bops, conv, dense, ops, bn, weights):
    cost = count(zoo.get_model(name, **kwargs))
    assert (cost.bops, cost.conv_flops, cost.dense_flops) == (bops, conv, dense)
    assert (cost.ops, cost.bn_flops, cost.ops_with_bn) == (ops, bn, ops + bn)
    assert isinstance(cost.ops, int)
    assert cost.trainable_params == weights
    assert cost.binary_params == (267264 if "ResNet20" in name else 28253184)
    assert cost.uncounted == ()


IMAGE = (8, 12, 6)

# What one layer multiplies, counted by hand: output pixels x taps x input channels x filters.
LAYERS = [
    (layers.Conv2D(10, 3, padding="same"), IMAGE, (0, 96 * 9 * 60, 0)),
    (layers.Conv2D(10, (3, 5), strides=2), IMAGE, (0, 3 * 4 * 15 * 60, 0)),
    (layers.Conv2D(8, 3, groups=2, padding="same"), IMAGE, (0, 96 * 9 * 3 * 8, 0)),
    (layers.Conv2D(10, 3, dilation_rate=2), IMAGE, (0, 4 * 8 * 9 * 60, 0)),
    (layers.Conv1D(5, 3, strides=2, padding="same"), (9, 4), (0, 5 * 3 * 20, 0)),
    (layers.Conv3D(2, 2), (3, 4, 5, 6), (0, 2 * 3 * 4 * 8 * 12, 0)),
    (layers.DepthwiseConv1D(3, padding="same"), (9, 4), (0, 9 * 3 * 4, 0)),
    (layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"), IMAGE, (0, 96 * 9 * 12, 0)),
    (layers.SeparableConv1D(5, 3, padding="same"), (9, 4), (0, 9 * (3 * 4 + 4 * 5), 0)),
    (layers.SeparableConv2D(10, 3, strides=2, padding="same"), IMAGE, (0, 24 * (9 * 6 + 6 * 10), 0)),
    (layers.Conv2DTranspose(10, 3, strides=2, padding="same"), IMAGE, (0, 96 * 9 * 60, 0)),
    (layers.Dense(7), (6,), (0, 0, 42)),
    (layers.Dense(7), (5, 6), (0, 0, 5 * 42)),
    (RepConv2D(8, 3, beta=2, padding="same"), IMAGE, (0, 96 * 9 * 6 * 4, 0)),
    (RepQuantConv2D(8, 3, beta=2, padding="same", **BINARY), IMAGE, (96 * 9 * 6 * 4, 0, 0)),
    (lq.layers.QuantConv2D(10, 3, padding="same", pad_values=1.0, **BINARY), IMAGE, (96 * 9 * 60, 0, 0)),
    (lq.layers.QuantConv2D(8, 1, groups=2, **BINARY), IMAGE, (96 * 3 * 8, 0, 0)),
    (lq.layers.QuantConv2D(10, 1, kernel_quantizer="ste_sign"), IMAGE, (0, 96 * 60, 0)),
    (lq.layers.QuantConv2D(10, 1, input_quantizer="ste_sign"), IMAGE, (0, 96 * 60, 0)),
    (
        lq.layers.QuantConv2D(10, 1, input_quantizer="ste_sign", kernel_quantizer="ste_tern"),
        IMAGE,
        (0, 96 * 60, 0),
    ),
    (
        lq.layers.QuantConv2D(10, 1, input_quantizer=lq.quantizers.NoOp(precision=1), kernel_quantizer="ste_sign"),
        IMAGE,
        (96 * 60, 0, 0),
    ),
    (lq.layers.QuantConv1D(5, 3, **BINARY), (9, 4), (7 * 3 * 20, 0, 0)),
    (
        lq.layers.QuantDepthwiseConv2D(3, input_quantizer="ste_sign", depthwise_quantizer="ste_sign"),
        IMAGE,
        (6 * 10 * 9 * 6, 0, 0),
    ),
    (
        # The pointwise half multiplies the sums of the depthwise half, which are not binary.
        lq.layers.QuantSeparableConv2D(
            10, 1, input_quantizer="ste_sign", depthwise_quantizer="ste_sign", pointwise_quantizer="ste_sign"
        ),
        IMAGE,
        (96 * 6, 96 * 60, 0),
    ),
    (lq.layers.QuantConv2DTranspose(10, 2, strides=2, **BINARY), IMAGE, (96 * 4 * 60, 0, 0)),
    (lq.layers.QuantDense(7, **BINARY), (6,), (42, 0, 0)),
]


@pytest.mark.parametrize("layer, shape, expected", LAYERS, ids=lambda v: getattr(v, "name", ""))
def test_layer(layer, shape, expected):
    cost = count(sequential(shape, layer))
    assert (cost.bops, cost.conv_flops, cost.dense_flops) == expected
    assert cost.bn_flops == 0
    assert cost.uncounted == ()


def binary_kernel(**kwargs):
    return lq.layers.QuantConv2D(10, 1, kernel_quantizer=ScaledSign(), **kwargs)


@pytest.mark.parametrize(
    "before, binary",
    [
        ([RSign()], True),
        ([lq.quantizers.SteSign()], True),
        ([layers.Activation(lq.quantizers.SteSign())], True),
        ([lq.quantizers.NoOp(precision=1)], True),
        ([lq.quantizers.SteTern(ternary_weight_networks=True)], False),
        ([RSign(), layers.ZeroPadding2D(0)], False),
        ([RSign(), layers.Activation("relu")], False),
    ],
)
def test_sign_in_a_layer_of_its_own(before, binary):
    cost = count(sequential(IMAGE, *before, binary_kernel()))
    assert (cost.bops, cost.conv_flops) == ((5760, 0) if binary else (0, 5760))


def test_convolutions_that_share_a_sign():
    image = tf.keras.Input(IMAGE)
    sign = RSign()(image)
    cost = count(tf.keras.Model(image, [binary_kernel()(sign), binary_kernel()(sign)]))
    assert (cost.bops, cost.conv_flops) == (2 * 5760, 0)


def test_input_quantizer_that_is_not_binary_undoes_a_sign():
    quantizer = lq.quantizers.SteTern(ternary_weight_networks=True)
    cost = count(sequential(IMAGE, RSign(), binary_kernel(input_quantizer=quantizer)))
    assert (cost.bops, cost.conv_flops) == (0, 5760)


def test_layer_called_twice_counts_twice_but_its_weights_once():
    conv = layers.Conv2D(6, 1, name="conv")
    cost = count(sequential(IMAGE, conv, layers.ReLU(), conv))
    (row,) = [row for row in cost.rows if row.name == "conv"]
    assert (row.calls, row.conv_flops, row.trainable_params) == (2, 2 * 96 * 36, 42)
    assert cost.trainable_params == 42


def test_call_outside_of_the_model_does_not_count():
    conv = layers.Conv2D(6, 1)
    model = sequential(IMAGE, conv)
    conv(tf.keras.Input((100, 100, 6)))
    assert count(model).conv_flops == 96 * 36


def test_nested_models():
    inner = tf.keras.Sequential([tf.keras.Input(IMAGE), binary_kernel(name="conv")], name="inner")
    image = tf.keras.Input(IMAGE)
    cost = count(tf.keras.Model(image, [inner(RSign()(image)), inner(image)]))
    # Once behind a sign, once not.
    assert (cost.bops, cost.conv_flops) == (5760, 5760)
    (row,) = [row for row in cost.rows if row.name == "inner/conv"]
    assert (row.calls, row.binary_params, row.trainable_params) == (2, 60, 70)


def test_batch_normalisation_shares_what_is_repeated():
    plain = count(sequential((4, 4, 3), layers.Conv2D(4, 1), layers.BatchNormalization()))
    assert plain.bn_flops == 2 * 64

    stack = [layers.Conv2D(4, 1), layers.BatchNormalization(), Repeat(2), layers.BatchNormalization()]
    stack += [RepQuantConv2D(8, 1, beta=2), layers.BatchNormalization()]
    # 64 and 128 elements without repetition, all of them with the factor of the network.
    assert count(sequential((4, 4, 3), *stack)).bn_flops == 2 * (64 + 64 + 128) * Fraction(5, 4)


def test_batch_normalisation_with_several_betas():
    stack = [RepConv2D(8, 1, beta=2), layers.BatchNormalization()]
    stack += [RepConv2D(8, 1, beta=4), layers.BatchNormalization()]
    stack += [layers.Conv2D(8, 1), layers.BatchNormalization()]
    expected = 2 * 128 * (Fraction(5, 4) + Fraction(17, 8) + 1)
    assert count(sequential((4, 4, 3), *stack)).bn_flops == expected


TWO_BITS = lq.quantizers.DoReFa(k_bit=2, mode="activations")


def several_bits(quantizer, **arguments):
    return {"input_quantizer": quantizer, "kernel_quantizer": "ste_sign", **arguments}


@pytest.mark.parametrize(
    "stack, bops, flops",
    [
        ([lq.layers.QuantConv2D(10, 1, **several_bits(TWO_BITS))], 2, 0),
        ([lq.layers.QuantConv2D(10, 1, **several_bits(Uniform(4)))], 4, 0),
        ([Uniform(4), binary_kernel()], 4, 0),
        ([layers.Activation(Thermometer()), binary_kernel()], 2, 0),
        ([lq.layers.QuantConv2D(10, 1, **several_bits(TernaryInput()))], 2, 0),
        ([lq.layers.QuantConv2D(10, 1, **several_bits("ste_tern"))], 2, 0),
        ([lq.layers.QuantConv2D(10, 1, **several_bits(ZeroOneSign()))], 1, 0),
        ([Uniform(4), layers.ReLU(), binary_kernel()], 0, 1),
        # A kernel of several bits is no sum of binary ones.
        ([lq.layers.QuantConv2D(10, 1, **several_bits(TWO_BITS, kernel_quantizer="ste_tern"))], 0, 1),
        ([lq.layers.QuantConv2D(10, 1, **several_bits(Uniform(4), kernel_quantizer=None))], 0, 1),
        # Weights of several bits as DoReFa-Net has them are no activations.
        ([lq.quantizers.DoReFa(k_bit=2, mode="weights"), binary_kernel()], 0, 1),
    ],
)
def test_activations_of_several_bits(stack, bops, flops):
    cost = count(sequential(IMAGE, *stack))
    assert (cost.bops, cost.conv_flops) == (bops * 5760, flops * 5760)


class TwoBases(lq.quantizers.NoOp):
    def __init__(self):
        super().__init__(precision=2)

    def call(self, inputs):
        return lq.math.sign(inputs) + 0.5 * lq.math.sign(inputs - 1)

    def bases(self, w):
        return [(1.0, lq.math.sign(w)), (0.5, lq.math.sign(w - 1))]


@pytest.mark.parametrize("quantizer, planes", [("ste_sign", 1), (Uniform(4), 4), (None, 0)])
def test_kernels_that_are_sums(quantizer, planes):
    conv = lq.layers.QuantConv2D(10, 1, input_quantizer=quantizer, kernel_quantizer=TwoBases(), use_bias=False)
    cost = count(sequential(IMAGE, conv))
    assert (cost.bops, cost.conv_flops) == (2 * planes * 5760, 0 if planes else 5760)
    assert (cost.binary_params, cost.bits) == (60, 2 * 60)


@pytest.mark.parametrize(
    "quantizer, operations, times",
    [
        pytest.param("ste_sign", 2, 64, id="BNN, XNOR, Bi-Real"),
        pytest.param(ResidualSigns(2), 4, 32, id="HORQ"),
        # The table has 3: it does not compute two convolutions of signs, as which a ternary map is deployed.
        pytest.param(TernaryInput(), 4, 32, id="TBN"),
        pytest.param(Uniform(4), 8, 16, id="DoReFa {0, 1} x 4"),
        pytest.param(None, 0, 1, id="BC, BWN, TTQ"),
    ],
)
def test_binary_operations_of_one_convolution(quantizer, operations, times):
    """BinaryDenseNet, Table 1: an XNOR and a count for each multiplication, of n filters, m positions, k inputs.

    Without the operations for scales, which are not counted, the speed-up is so many times, 128 of them at a time.
    """
    conv = lq.layers.QuantConv2D(128, 3, input_quantizer=quantizer, kernel_quantizer="ste_sign", padding="same")
    cost = count(sequential((28, 28, 128), conv))
    n, m, k = 128, 28 * 28, 1152
    assert 2 * cost.bops == operations * n * m * k
    assert cost.conv_flops == (0 if operations else n * m * k)
    assert n * m * k / (cost.conv_flops + 2 * cost.bops / 128) == times


def test_ops_are_exact():
    cost = count(sequential((1, 1, 5), lq.layers.QuantConv2D(2, 1, **BINARY)))
    assert cost.ops == Fraction(10, 64)
    assert cost.to_dict()["ops"] == 10 / 64


def test_parameters_and_size():
    model = sequential(
        (4, 4, 3),
        lq.layers.QuantConv2D(8, 1, **BINARY),  # 24 binary, 8 biases
        layers.BatchNormalization(),  # 16 and 16 statistics
        lq.layers.QuantConv2D(8, 1, kernel_quantizer="ste_tern", use_bias=False),  # 64 of 2 bits
        RPReLU(),  # 24
    )
    cost = count(model)
    assert (cost.trainable_params, cost.non_trainable_params) == (24 + 8 + 16 + 64 + 24, 16)
    assert (cost.binary_params, cost.real_params) == (24, 8 + 16 + 64 + 24 + 16)
    assert cost.trainable_bits == 24 + 2 * 64 + 32 * (8 + 16 + 24)
    assert cost.bits == cost.trainable_bits + 32 * 16


@pytest.mark.parametrize("name", ["ResNet20", "RepResNet20"])
def test_agrees_with_larq(name):
    with few_blocks():
        model = zoo.get_model(name, input_shape=(8, 12, 3))
    cost, larq = count(model), lq.models.ModelProfile(model)
    assert cost.bops == larq.op_count("mac", 1)
    assert cost.flops == larq.op_count("mac", 32)
    assert cost.binary_params == larq.weight_count(1)


@lq.utils.register_keras_custom_object
class Mixing(layers.Layer):
    def build(self, input_shape):
        self.matrix = self.add_weight("matrix", (input_shape[-1], 5))

    def call(self, inputs):
        return inputs @ self.matrix


@pytest.mark.parametrize(
    "layer, shape",
    [
        (Mixing(name="it"), (6,)),
        (layers.LSTM(3, name="it"), (5, 6)),
        (layers.LocallyConnected1D(3, 2, name="it"), (5, 6)),
        (layers.TimeDistributed(layers.Dense(3), name="it"), (5, 6)),
    ],
)
def test_unknown_layers_are_named(layer, shape):
    cost = count(sequential(shape, layer))
    assert cost.uncounted == ("it",)
    assert cost.flops == 0
    assert cost.trainable_params == sum(tf.size(w).numpy() for w in layer.trainable_weights) > 0


@pytest.mark.parametrize(
    "multiply",
    [
        lambda x: tf.matmul(x, x, transpose_b=True),
        lambda x: tf.einsum("nij,nkj->nik", x, x),
        lambda x: layers.Dot(2)([x, x]),
        lambda x: layers.Attention()([x, x]),
        lambda x: layers.AdditiveAttention(use_scale=False)([x, x]),
    ],
    ids=["matmul", "einsum", "Dot", "Attention", "AdditiveAttention"],
)
def test_multiplications_without_weights_are_named(multiply):
    sequence = tf.keras.Input((5, 6))
    model = tf.keras.Model(sequence, multiply(sequence))
    assert count(model).uncounted == (model.layers[-1].name,)


@pytest.mark.parametrize("layer", [layers.PReLU(), layers.LayerNormalization(), RSign(), RPReLU()])
def test_elementwise_layers_are_not(layer):
    assert count(sequential(IMAGE, layer)).uncounted == ()


def test_to_dict_is_json():
    cost = count(shallow_resnet20(rep=True, width=4, input_shape=(8, 8, 1)))
    loaded = json.loads(json.dumps(cost.to_dict()))
    assert loaded["bops"] == sum(row["bops"] for row in loaded["rows"]) > 0
    assert loaded["ops"] == loaded["flops"] + loaded["bops"] / 64
    assert [row["name"] for row in loaded["rows"]] == [row.name for row in cost.rows]
    assert "linear" in [row["name"] for row in loaded["rows"]]


@pytest.mark.parametrize(
    "model, message",
    [
        (
            sequential((None, None, 3), layers.Conv2D(2, 1, name="it")),
            "Cannot count layer 'it': a size is not",
        ),
        (tf.keras.Sequential([layers.Dense(2)], name="it"), r"Cannot count model 'it' \(Sequential\)"),
        (type("Own", (tf.keras.Model,), {})(name="it"), r"Cannot count model 'it' \(Own\)"),
    ],
    ids=["size", "unbuilt", "subclass"],
)
def test_errors(model, message):
    with pytest.raises(ValueError, match=message):
        count(model)
