import larq_rep.zoo as zoo  # before TensorFlow

# isort: split
import re

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from support import built, first_quick, images, randomize

from larq_rep.converters import convert
from larq_rep.cost import count
from larq_rep.layers import RPReLU
from larq_rep.zoo import BiRealNet18, BiRealNet50, ReActNet10, ReActNet18

# 18 and 34 layers on ImageNet, Bi-Real-Net and ReActNet alike.
OPS18 = {"binary_params": 10985472, "bops": 1676279808, "flops": 137793536, "ops": 163985408}
OPS34 = {"binary_params": 21086208, "bops": 3525967872, "flops": 137793536, "ops": 192886784}
# One scale for each filter of ReCU's binary convolutions, of which each stage has so many.
SCALES18 = 4 * (64 + 128 + 256 + 512)
SCALES34 = 6 * 64 + 8 * 128 + 12 * 256 + 6 * 512
CIFAR10, CIFAR100 = {"dataset": "cifar10"}, {"dataset": "cifar100"}
BINARY = {"shortcut": "binary"}
# Of the PresB paper: binary 3x3 weights, and the real parameters for 10, 100 and 1000 classes without the 172032
# weights of the 1x1 convolutions in shortcuts. They give the size, with these in 32 bits or in 1.
SHORTCUTS = 172032
PRESB = {
    "ReActNet10": (4718592, {10: 19850, 100: 66020, 1000: 535400}),
    "ReActNet18": (10985472, {10: 31370, 100: 77540, 1000: 546920}),
    "ReActNet34": (21086208, {10: 53642, 100: 99812, 1000: 569192}),
}


def presb_rows():
    for name, (binary, real) in PRESB.items():
        for dataset, classes in (("cifar10", 10), ("cifar100", 100), ("imagenet", 1000)):
            bits = binary + 32 * real[classes]
            params = {"trainable_params": binary + SHORTCUTS + real[classes]}
            yield name, {"dataset": dataset}, {**params, "trainable_bits": bits + 32 * SHORTCUTS}
            yield name, {"dataset": dataset, **BINARY}, {**params, "trainable_bits": bits + SHORTCUTS}


PUBLISHED = [
    ("BiRealNet18", {}, {**OPS18, "trainable_params": 11689512, "non_trainable_params": 9600}),
    (
        "BiRealNet50",
        {},
        {
            # The authors' network has 64 x 16 weights more that it never uses.
            "trainable_params": 25730088 - 1024,
            "non_trainable_params": 53120,
            "binary_params": 20672512,
            "bops": 3596615680,
            "flops": 569638912,
            "ops": 625836032,
        },
    ),
    ("ReActNet18", {}, {**OPS18, "trainable_params": 11704424}),
    ("BiRealNet34", {}, {**OPS34, "trainable_params": 21797672, "non_trainable_params": 17024}),
    ("ReActNet34", {}, {**OPS34, "trainable_params": 21827432}),
    (
        "BiRealNet101",
        {},
        {
            "trainable_params": 44721192,
            "binary_params": 39612416,
            "flops": 569638912,
            "ops": 683839488,
            "bops": 64 * (683839488 - 569638912),
        },
    ),
    (
        "BiRealNet152",
        {},
        {
            "trainable_params": 60364840,
            "binary_params": 55209984,
            "trainable_bits": 55209984 + 32 * (60364840 - 55209984),
            "bops": 11021058048,
            "flops": 569638912,
            "ops": 741842944,
        },
    ),
    *presb_rows(),
    ("RepBiRealNet18", {"beta": 1}, {**OPS18, "trainable_params": 11689512}),
    ("RepBiRealNet18", {}, {**OPS18, "trainable_params": 12210984, "flops": 138305536, "ops": 164497408}),
    ("RepBiRealNet18", {"beta": 4}, {"trainable_params": 13253928, "ops": 165521408}),
    ("RepBiRealNet18", {"beta": 8}, {"trainable_params": 15339816, "ops": 167569408}),
    ("RepBiRealNet18", {"stem": "before_bn"}, {"trainable_params": 12211112, "ops": 164497408}),
    ("RepBiRealNet18", {"beta": 4, "stem": "before_bn"}, {"trainable_params": 13254312, "ops": 165521408}),
    ("RepBiRealNet18", {"beta": 8, "stem": "before_bn"}, {"trainable_params": 15340712, "ops": 167569408}),
    ("RepBiRealNet34", {}, {"trainable_params": 22326568, "ops": 193398784}),
    ("RepBiRealNet34", {"stem": "before_bn"}, {"trainable_params": 22326696, "ops": 193398784}),
    (
        "RepReActNet18",
        {},
        {"binary_params": 10985472, "bops": 1676279808, "trainable_params": 12240808, "ops": 164497408},
    ),
    # The parameters of ReActNet, and the scales. Half of the filters are left where beta is 2.
    ("ReCUResNet18", {}, {**OPS18, "trainable_params": 11704424 + SCALES18}),
    ("ReCUResNet34", {}, {**OPS34, "trainable_params": 21827432 + SCALES34}),
    ("RepReCUResNet18", {}, {"trainable_params": 12240808 + SCALES18 // 2, "ops": 164497408}),
    # ReActNet-34 has more than Bi-Real-Net-34 in its channels, of which there are twice as many.
    (
        "RepReCUResNet34",
        {},
        {"trainable_params": 22326568 + 2 * (21827432 - 21797672) + SCALES34 // 2, "ops": 193398784},
    ),
]


@pytest.mark.parametrize("name, arguments, expected", first_quick(PUBLISHED, 3), ids=str)
def test_counts(name, arguments, expected):
    cost = count(built(name, **arguments))
    assert {key: getattr(cost, key) for key in expected} == expected
    assert not cost.uncounted


@pytest.mark.parametrize(
    "name, parameters, printed",
    first_quick([("ReCUResNet18", 11704424 + SCALES18, 11708264), ("ReCUResNet34", 21827432 + SCALES34, 21834984)], 1),
)
def test_parameters_of_recu(name, parameters, printed):
    model = zoo.get_model(name, input_shape=(32, 32, 3))
    assert sum(np.prod(weight.shape) for weight in model.trainable_weights) == parameters == printed


@pytest.mark.parametrize(
    "name, arguments, printed",
    first_quick(
        [
            ("ReActNet10", CIFAR100, 11.95),
            ("ReActNet10", {}, 149.5),
            ("ReActNet18", {}, 164.0),
            ("ReActNet18", CIFAR100, 16.66),
            ("ReActNet34", CIFAR100, 26.10),
            ("ReActNet34", {}, 192.9),
        ],
        3,
    ),
    ids=str,
)
def test_operations_in_millions(name, arguments, printed):
    ops = count(built(name, **arguments)).ops / 1e6
    assert round(float(ops), 1 if printed > 100 else 2) == printed


@pytest.mark.parametrize(
    "name, trainable, statistics",
    first_quick(
        [
            ("BiRealNet18", 62, 40),
            # Without the convolution that the authors' network never uses.
            ("BiRealNet50", 165 - 1, 106),
            ("ReActNet18", 126, 40),
            ("BiRealNet34", 110, 72),
            # Of its 346 entries 36 are counters.
            ("ReActNet34", 346 - 72 - 36, 72),
        ],
        3,
    ),
)
def test_the_authors_state_dict_has_as_many_tensors(name, trainable, statistics):
    model = built(name)
    assert (len(model.trainable_weights), len(model.non_trainable_weights)) == (trainable, statistics)


def test_rep_bireal_kernel_shapes():
    model = zoo.get_model("RepBiRealNet18", input_shape=(32, 32, 3))
    expected = {
        "layer1_0_binary_conv": (3, 3, 128, 32),
        "layer1_3_binary_conv": (3, 3, 128, 32),
        "layer2_0_binary_conv": (3, 3, 128, 64),
        "layer2_0_downsample_1": (1, 1, 128, 64),
        "layer2_1_binary_conv": (3, 3, 256, 64),
        "layer3_0_binary_conv": (3, 3, 256, 128),
        "layer4_0_binary_conv": (3, 3, 512, 256),
        "layer4_1_binary_conv": (3, 3, 1024, 256),
    }
    assert {name: tuple(model.get_layer(name).kernel.shape) for name in expected} == expected


def test_reactnet_without_shifts_and_slopes_is_bireal():
    bireal = randomize(BiRealNet18(input_shape=(64, 96, 3)))
    reactnet = ReActNet18(input_shape=(64, 96, 3))
    for layer in bireal.layers:
        if layer.weights:
            reactnet.get_layer(layer.name).set_weights(layer.get_weights())
    for layer in reactnet.layers:
        if isinstance(layer, RPReLU):
            layer.alpha.assign(tf.ones_like(layer.alpha))
    np.testing.assert_array_equal(reactnet(images(bireal)), bireal(images(bireal)))


def layer_shapes(model, *names):
    return [model.get_layer(name).output.shape[1:3].as_list() for name in names]


def test_stems():
    ends = [f"layer{stage}_1_add" for stage in (1, 2, 3, 4)]
    assert layer_shapes(built("ReActNet10"), "conv1", *ends) == [[112, 112], [56, 56], [28, 28], [14, 14], [7, 7]]
    assert layer_shapes(built("ReActNet10", **CIFAR100), "conv1", *ends) == [
        [32, 32],
        [32, 32],
        [16, 16],
        [8, 8],
        [4, 4],
    ]


def test_max_pooling_pads_with_less_than_anything():
    model = BiRealNet18(input_shape=(32, 32, 3))
    x = -1 - np.random.default_rng(0).random((1, 16, 16, 64)).astype("float32")
    y = model.get_layer("maxpool")(x)
    assert y.shape == (1, 8, 8, 64)
    assert (y.numpy() <= -1).all()


@pytest.fixture(scope="module")
def bireal50():
    return randomize(BiRealNet50(input_shape=(96, 96, 3)))


@pytest.mark.parametrize(
    "addition, summands",
    [
        # The very first block adds nothing to its first convolution.
        ("layers_0_add2", ("layers_0_bn2", "layers_0_bn1")),
        ("layers_0_add3", ("layers_0_bn3", "layers_0_downsample_2")),
        # An ordinary block.
        ("layers_1_add1", ("layers_1_bn1", "layers_0_add2")),
        ("layers_1_add2", ("layers_1_bn2", "layers_1_add1")),
        ("layers_1_add3", ("layers_1_bn3", "layers_0_add3")),
        # The first blocks of stages 2, 3 and 4.
        *(
            (f"layers_{k}_{addition}", (f"layers_{k}_{convolved}", f"layers_{k}_{shortcut}"))
            for k in (3, 7, 13)
            for addition, convolved, shortcut in (
                ("add1", "bn1", "down_conv1x1"),
                ("add2", "bn2", "pool"),
                ("add3", "bn3", "downsample_2"),
            )
        ),
    ],
)
def test_additions_of_bireal_50(bireal50, addition, summands):
    assert bireal50.get_layer(addition).input == [bireal50.get_layer(name).output for name in summands]


@pytest.mark.parametrize(
    "layer, before",
    [
        ("layers_0_sign2", "layers_0_bn1"),
        ("layers_0_downsample_1", "maxpool"),
        ("layers_1_sign1", "layers_0_add3"),
        ("layers_3_sign1", "layers_2_add3"),
        ("layers_3_down_conv1x1", "layers_2_add2"),
        ("layers_3_sign2", "layers_3_add1"),
        ("layers_3_pool", "layers_3_add1"),
        ("layers_3_sign3", "layers_3_add2"),
        ("layers_3_downsample_0", "layers_2_add3"),
        ("pool", "layers_15_add3"),
    ],
)
def test_streams_of_bireal_50(bireal50, layer, before):
    assert bireal50.get_layer(layer).input is bireal50.get_layer(before).output


def test_strides_of_bireal_50(bireal50):
    strided = {layer.name for layer in bireal50.layers if getattr(layer, "strides", (1, 1)) == (2, 2)}
    assert strided == {"conv1", "maxpool"} | {
        f"layers_{k}_{layer}" for k in (3, 7, 13) for layer in ("conv2", "pool", "downsample_0")
    }


def test_the_first_convolution_of_bireal_50_sees_a_leaky_clip(bireal50):
    ends = [bireal50.get_layer("maxpool").output, bireal50.get_layer("layers_0_conv1").input]
    x, clipped = (y.numpy() for y in tf.keras.Model(bireal50.input, ends)(images(bireal50)))
    assert x.min() < -1 < 1 < x.max()
    expected = np.where(x < -1, 0.1 * x - 0.9, np.where(x > 1, 0.1 * x + 0.9, x))
    np.testing.assert_allclose(clipped, expected, rtol=1e-5, atol=1e-6)


def test_binary_shortcuts_stay_float():
    model = randomize(ReActNet10(**CIFAR100, **BINARY))
    _, report = convert(model)
    assert report.bitpacked == report.binary == 8
    (variant,) = [v for v in zoo.get_network("ReActNet10").variants if v.arguments == {**CIFAR100, **BINARY}]
    (pattern,) = variant.left_float
    quantized = [layer for layer in model.layers if isinstance(layer, lq.layers.QuantConv2D)]
    named = {layer.name for layer in quantized if re.fullmatch(pattern, layer.name)}
    assert named == {layer.name for layer in quantized if layer.input_quantizer is None}
    assert named == {"layer2_0_downsample_1", "layer3_0_downsample_1", "layer4_0_downsample_1"}


def test_unknown_shortcut():
    with pytest.raises(ValueError, match="ReActNet18: shortcut must be one of 'real', 'binary', found 'none'"):
        ReActNet18(shortcut="none")
