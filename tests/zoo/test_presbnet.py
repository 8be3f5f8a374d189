import larq_rep.zoo as zoo  # before TensorFlow

# isort: split
import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from support import first_quick

from larq_rep.converters import convert
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.cost import count
from larq_rep.layers import BiasedPReLU, GroupNormShuffle, RPReLU
from larq_rep.zoo.presbnet import PresBNet10, PresBNet18

# The 1x1 convolutions of the shortcuts: binary weights, real input.
SHORTCUTS = 688128
SHORTCUT_MACS = 16 * 16 * 128 * 256 + 8 * 8 * 256 * 512 + 4 * 4 * 512 * 1024
# Real convolution and dense layer, on 32 x 32 pixels and on 224 x 224.
STEM_MACS, STEM_MACS_224 = 32 * 32 * 27 * 128, 112 * 112 * 147 * 128
# For 10, 18 and 34 layers: binary 3x3 weights, their operations on 32 x 32 pixels, and the real parameters for 10
# and 100 classes.
DEPTHS = {
    "PresBNet10": (4718592, 245366784, {10: 51210, 100: 143460}),
    "PresBNet18": (10985472, 547356672, {10: 85770, 100: 178020}),
    "PresBNet34": (21086208, 1151336448, {10: 152586, 100: 244836}),
}
# Channels of all units of the 18 layers: two units in each of two blocks in four stages.
UNITS = 4 * (64 + 128 + 256 + 512)
TOTAL18 = 11851620
# Table 5: what each row has more or less than the network, in parameters per channel of a unit.
ABLATIONS = [
    ({"act1": "prelu", "act2": "prelu"}, -2),  # both biases
    ({"act2": "prelu"}, -1),
    ({"norm1": None}, -2),  # gamma and beta
    ({"norm2": None}, -2),
    ({"act1": "rprelu", "act2": "rprelu"}, 2),  # a second bias each
    ({"act1": "relu", "act2": "relu"}, -4),  # biases and slopes
]


def published():
    for name, (binary, bops, real) in DEPTHS.items():
        for dataset, classes in (("cifar100", 100), ("cifar10", 10)):
            flops = STEM_MACS + 1024 * classes + SHORTCUT_MACS
            yield (
                name,
                {} if classes == 100 else {"dataset": dataset},
                {
                    "trainable_params": binary + SHORTCUTS + real[classes],
                    "binary_params": binary + SHORTCUTS,
                    "trainable_bits": binary + SHORTCUTS + 32 * real[classes],
                    "bops": bops,
                    "flops": flops,
                    "ops": flops + bops // 64,
                },
            )
    yield (
        "PresBNet18",
        {"dataset": "imagenet"},
        {
            "trainable_params": 10985472 + SHORTCUTS + 1115880,
            "binary_params": 10985472 + SHORTCUTS,
            "bops": 1676279808,
            "flops": STEM_MACS_224 + 1024 * 1000 + 49 * SHORTCUT_MACS // 16,
        },
    )
    for arguments, more in ABLATIONS:
        yield "PresBNet18", arguments, {"trainable_params": TOTAL18 + more * UNITS, "bops": 547356672}


PUBLISHED = list(published())


@pytest.mark.parametrize("name, arguments, expected", first_quick(PUBLISHED, 2), ids=str)
def test_counts(name, arguments, expected):
    cost = count(zoo.get_model(name, **arguments))
    assert {key: getattr(cost, key) for key in expected} == expected
    assert not cost.uncounted


def test_totals_are_the_printed_ones():
    """As they stand in the tables of the specification, without the arithmetic above."""
    table = {(name, *arguments.values()): expected for name, arguments, expected in PUBLISHED}
    assert [table[name,]["trainable_params"] for name in DEPTHS] == [5550180, 11851620, 22019172]
    assert [round(table[name,]["flops"] / 1e6, 1) for name in DEPTHS] == [28.8] * 3
    assert [round(table[name,]["ops"] / 1e6, 1) for name in DEPTHS] == [32.6, 37.4, 46.8]
    kibibytes = [table[key]["trainable_bits"] / 2**13 for key in (("PresBNet18", "cifar10"), ("PresBNet18",))]
    assert [round(size) for size in kibibytes] == [1760, 2120]
    assert round(table["PresBNet18", "imagenet"]["flops"] / 1e6, 1) == 314.1  # 237.1 + 77.1


@pytest.fixture(scope="module")
def net():
    return PresBNet18()


def parameters(model, kind):
    return sum(w.shape.num_elements() for y in model.layers if isinstance(y, kind) for w in y.trainable_weights)


def test_real_parameters_by_kind(net):
    assert parameters(net, tf.keras.layers.Dense) == 102500
    assert parameters(net, tf.keras.layers.BatchNormalization) == 19200
    assert parameters(net, GroupNormShuffle) == 7680
    layers = [y for y in net.layers if isinstance(y, (BiasedPReLU, RPReLU))]
    slopes = sum(y.alpha.shape.num_elements() for y in layers)
    signs = [y.input_quantizer for y in net.layers if isinstance(y, lq.layers.QuantConv2D) and y.input_quantizer]
    assert slopes == 15360
    assert parameters(net, (BiasedPReLU, RPReLU)) - slopes + sum(q.bias.shape[0] for q in signs) == 29824


def test_binary_weights_of_each_stage(net):
    def stage(number):
        return sum(
            y.kernel.shape.num_elements()
            for y in net.layers
            if y.name.startswith(f"layer{number}") and "conv" in y.name and isinstance(y, lq.layers.QuantConv2D)
        )

    assert [stage(number) for number in (1, 2, 3, 4)] == [147456, 516096, 2064384, 8257536]


@pytest.mark.parametrize(
    "name, shape",
    [
        ("conv1", (3, 3, 3, 128)),
        ("layer1_0_Grouped3x3_conv_list_0", (3, 3, 64, 32)),
        ("layer1_1_Grouped1x1_conv_list_1", (3, 3, 64, 32)),
        ("layer2_0_Grouped3x3_conv_list_1", (3, 3, 64, 64)),
        ("layer2_0_Grouped1x1_conv_list_0", (3, 3, 128, 64)),
        ("layer2_0_res_layer_1", (1, 1, 128, 256)),
        ("layer4_0_res_layer_1", (1, 1, 512, 1024)),
        ("layer4_1_Grouped1x1_conv_list_0", (3, 3, 512, 256)),
    ],
)
def test_kernel_shapes(net, name, shape):
    assert tuple(net.get_layer(name).kernel.shape) == shape


def test_a_unit_reaches_half_of_the_channels_of_a_basic_block(net):
    """Another first half changes the even channels behind the shuffle, and no odd one."""
    block = tf.keras.Model(net.get_layer("layer1_0_concat1").input, net.get_layer("layer1_0_shuffle2").output)
    rng = np.random.default_rng(0)
    changed, same = (rng.normal(size=(1, 32, 32, 64)).astype("float32") for _ in range(2))
    difference = block([changed, same]).numpy() != block([same, same]).numpy()
    assert difference[..., 0::2].all() and not difference[..., 1::2].any()


def test_stem_activation():
    with_it = PresBNet10(stem_activation="leaky_relu")
    assert with_it.get_layer("leaky_relu").input is with_it.get_layer("conv1").output
    assert with_it.get_layer("bn1").input is with_it.get_layer("leaky_relu").output
    assert count(with_it).trainable_params == 5550180


def test_without_top():
    assert PresBNet10(include_top=False).output_shape == (None, 4, 4, 1024)
    assert PresBNet10(include_top=False, dataset="imagenet").output_shape == (None, 7, 7, 1024)


@pytest.mark.parametrize(
    "option, value",
    [("act1", "swish"), ("act2", None), ("norm1", "batch"), ("norm2", "layer"), ("stem_activation", "relu")],
)
def test_wrong_options(option, value):
    with pytest.raises(ValueError, match=f"PresBNet10: {option} must be one of .*, found {value!r}"):
        PresBNet10(**{option: value})


@pytest.mark.slow  # The smaller network is converted with the other forms.
def test_only_the_shortcuts_stay_float(net):
    content, report = convert(net, allow_float=True)
    names = [op.name for op in Flatbuffer(content).operators]
    assert names.count("LceBconv2d") == report.bitpacked == 32
    assert names.count("CONV_2D") == 4  # and the first convolution
    assert not [name for name in names if name.startswith("Flex")]
