import larq_rep.zoo as zoo  # before TensorFlow

# isort: split
import pytest
import tensorflow as tf
from support import built, first_quick

from larq_rep.cost import count
from larq_rep.zoo import BinaryDenseNet21

BINARY = {"downsampling": "binary"}
CIFAR10 = {"dataset": "cifar10"}

# Parameters, binary ones; size in MiB; millions of real and of binary multiply-accumulates of convolutions.
PUBLISHED = [
    ("BinaryDenseNet28", {}, 5131496, 4202496, 4.045, 201.9, 3587),
    ("BinaryDenseNet37Dilated", {}, 8702248, 7593984, 5.133, 452.0, 7774),
    ("BinaryDenseNet13", {}, 4367400, 3613696, 3.306, 118.0, 1855),
    ("BinaryDenseNet21", BINARY, 4960808, 4203520, 3.390, 118.0, 2469),
    ("BinaryDenseNet21", {}, 2793256, 2064384, 3.027, 360.9, 1478),
    ("BinaryDenseNet21", {**CIFAR10, **BINARY}, 4798986, 4775936, 673.0 / 1024, 3.5, 1061),
    ("BinaryDenseNet21", CIFAR10, 2746442, 2433024, 1.486, 112.6, 658),
    ("BinaryDenseNet37Ablation", BINARY, 5262888, 4498432, 3.452, 118.0, 2776),
    ("BinaryDenseNet37Ablation", {}, 3092776, 2359296, 3.079, 360.9, 1785),
    ("BinaryDenseNet37", {}, 8702248, 7593984, 5.133, 199.1, 4507),
    ("BinaryDenseNet45", {}, 13889512, 12349440, 7.347, 243.3, 6431),
]

# Real ones and a 64th (the logs) or a 32nd (Figure 4) of the binary ones, in millions.
COMBINED = {
    "BinaryDenseNet28": (258.0, 314.0),
    "BinaryDenseNet37": (269.5, 339.9),
    "BinaryDenseNet37Dilated": (573.5, 694.9),
    "BinaryDenseNet45": (343.8, 444.3),
}

# Channels behind each stage, and, between them, behind each transition.
CHANNELS = [
    ("BinaryDenseNet28", {}, [448, 160, 544, 192, 576, 256, 576]),
    ("BinaryDenseNet37Dilated", {}, [448, 128, 640, 192, 960, 256, 640]),
    ("BinaryDenseNet13", {}, [320, 320, 576, 416, 672, 480, 736]),
    ("BinaryDenseNet21", BINARY, [320, 320, 576, 416, 672, 480, 736]),
    ("BinaryDenseNet21", {}, [320, 160, 416, 192, 448, 224, 480]),
    ("BinaryDenseNet21", {**CIFAR10, **BINARY}, [384, 384, 640, 448, 704, 512, 768]),
    ("BinaryDenseNet21", CIFAR10, [384, 192, 448, 224, 480, 256, 512]),
    ("BinaryDenseNet37Ablation", BINARY, [320, 320, 576, 416, 672, 480, 736]),
    ("BinaryDenseNet37Ablation", {}, [320, 160, 416, 192, 448, 224, 480]),
    ("BinaryDenseNet37", {}, [448, 128, 640, 192, 960, 256, 640]),
    ("BinaryDenseNet45", {}, [448, 160, 928, 288, 1184, 288, 800]),
]


@pytest.mark.parametrize(
    "name, arguments, params, binary, size, real_macs, binary_macs", first_quick(PUBLISHED, 7), ids=str
)
def test_counts(name, arguments, params, binary, size, real_macs, binary_macs):
    cost = count(built(name, **arguments))
    assert (cost.trainable_params, cost.binary_params) == (params, binary)
    assert cost.trainable_bits / 8 / 2**20 == pytest.approx(size, abs=0.0005)
    assert round(cost.conv_flops / 1e6, 1) == real_macs
    assert round(cost.bops / 1e6) == binary_macs
    if name in COMBINED:
        combined = [round((cost.conv_flops + cost.bops / word) / 1e6, 1) for word in (64, 32)]
        assert tuple(combined) == COMBINED[name]
    assert not cost.uncounted


@pytest.mark.parametrize("name, arguments, channels", first_quick(CHANNELS, 7), ids=str)
def test_channels(name, arguments, channels):
    model = built(name, **arguments)
    found = []
    for stage in range(1, 5):
        last = [layer for layer in model.layers if layer.name.startswith(f"stage{stage}_")][-1]
        found.append(last.output.shape[-1])
        if stage < 4:
            found.append(model.get_layer(f"transition{stage}_conv").filters)
    assert found == channels
    assert model.layers[-1].input.shape[-1] == channels[-1]


@pytest.mark.parametrize(
    "name, arguments, order",
    [
        ("BinaryDenseNet28", {}, ["bn", "pool", "relu", "conv"]),
        ("BinaryDenseNet21", {}, ["bn", "relu", "conv", "pool"]),
        ("BinaryDenseNet21", {"downsampling": "binary"}, ["bn", "conv", "pool"]),
        ("BinaryDenseNet21", {"downsampling": "binary", "padding": "bmxnet"}, ["bn", "conv", "conv_popcount", "pool"]),
    ],
    ids=str,
)
def test_order_in_transitions(name, arguments, order):
    model = built(name, **arguments)
    names = [layer.name for layer in model.layers if layer.name.startswith("transition2_")]
    assert names == [f"transition2_{layer}" for layer in order]
    pool = tf.keras.layers.MaxPool2D if name == "BinaryDenseNet28" else tf.keras.layers.AveragePooling2D
    assert isinstance(model.get_layer("transition2_pool"), pool)


def test_dilated_keeps_the_maps_of_stage_2():
    model = built("BinaryDenseNet37Dilated")
    maps = [model.get_layer(f"stage{stage}_layer1_concat").output.shape[1] for stage in range(1, 5)]
    assert maps == [56, 28, 28, 28]
    rates = [model.get_layer(f"stage{stage}_layer6_conv").dilation_rate[0] for stage in range(1, 5)]
    assert rates == [1, 1, 2, 4]


def test_quantizers():
    for network, clip_value in (("BinaryDenseNet28", 1.3), ("BinaryDenseNet21", 1.0)):
        conv = built(network).get_layer("stage4_layer2_conv")
        assert conv.input_quantizer.clip_value == clip_value
        assert conv.kernel_quantizer.clip_value is None


def test_same_weights_for_both_paddings():
    weights = [
        [(w.name, w.shape) for w in BinaryDenseNet21(**CIFAR10, padding=padding).weights]
        for padding in ("zero", "bmxnet")
    ]
    assert weights[0] == weights[1]


def test_rep_has_the_same_binary_weights():
    base, rep = (count(built(f"{prefix}BinaryDenseNet28")) for prefix in ("", "Rep"))
    assert (rep.binary_params, rep.bops) == (base.binary_params, base.bops)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"downsampling": "low"}, "BinaryDenseNet21: downsampling must be one of 'real', 'binary', found 'low'"),
        ({"dataset": "cifar100"}, "BinaryDenseNet21: dataset must be one of 'imagenet', 'cifar10'"),
        ({"padding": "same"}, "BinaryDenseNet21: padding must be one of 'zero', 'bmxnet'"),
    ],
    ids=str,
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        zoo.get_model("BinaryDenseNet21", **arguments)
