import larq_rep.zoo as zoo  # before TensorFlow

# isort: split
import numpy as np
import pytest
import tensorflow as tf
from support import first_quick, others_slow, randomize

from larq_rep.cost import count
from larq_rep.layers import RPReLU
from larq_rep.zoo import reactnet
from larq_rep.zoo.reactnet import ReActNetA, ReActNetB, ReActNetC

A = {"binary_params": 28253184, "bops": 4816896000, "conv_flops": 10838016}
BC = {"binary_params": 27554816, "bops": 4688445440}
ABLATION = {**A, "flops": 11862016, "ops": 87126016}
PLAIN = {"sign": "sign", "activation": None}
# What RepTran adds with beta = 2: as much as to ReActNet-A, without the RSigns of the five real convolutions.
ADDED = 30432072 - 29343592 - (32 + 64 + 128 + 256 + 512)
B = {**BC, "trainable_params": 28818824, "flops": 43974656, "ops": 117231616}
C = {**BC, "trainable_params": 29342600, "flops": 140312576, "ops": 213569536}

# ReActNet, Tables 1 and 2, and RepBNN, Table 1, with the exact integers behind the printed figures.
PUBLISHED = [
    ("ReActNetA", {}, {**ABLATION, "trainable_params": 29343592, "non_trainable_params": 21888, "bn_flops": 10085376}),
    ("ReActNetA", {**PLAIN, "downsampling": "conv"}, {**ABLATION, "trainable_params": 29300936}),
    ("ReActNetA", PLAIN, {**ABLATION, "trainable_params": 29300936}),
    ("ReActNetA", {**PLAIN, "activation": "prelu"}, {**ABLATION, "trainable_params": 29311848}),
    ("ReActNetA", {"activation": None}, {**ABLATION, "trainable_params": 29310856}),
    ("ReActNetA", {"sign": "sign"}, {**ABLATION, "trainable_params": 29333672}),
    ("ReActNetB", {}, B),
    ("ReActNetB", {"downsampling": "concat"}, B),
    ("ReActNetC", {}, C),
    ("ReActNetC", {"downsampling": "concat"}, C),
    ("RepReActNetA", {"beta": 1}, {**ABLATION, "trainable_params": 29343592}),
    ("RepReActNetA", {}, {**A, "trainable_params": 30432072, "non_trainable_params": 43712, "ops": 88150016}),
    ("RepReActNetA", {"beta": 4}, {**A, "trainable_params": 32609032, "ops": 90198016}),
    ("RepReActNetA", {"beta": 8}, {**A, "trainable_params": 36962952, "ops": 94294016}),
    ("RepReActNetA", {"stem": "before_bn"}, {**A, "trainable_params": 30432136}),
    ("RepReActNetA", {"beta": 8, "stem": "before_bn"}, {**A, "trainable_params": 36963400}),
    ("RepReActNetB", {}, {**BC, "trainable_params": 28818824 + ADDED, "ops": 117231616 + 1024000}),
    ("RepReActNetC", {}, {**BC, "trainable_params": 29342600 + ADDED, "ops": 213569536 + 1024000}),
]


@pytest.mark.parametrize("name, arguments, expected", first_quick(PUBLISHED, 2), ids=str)
def test_counts(name, arguments, expected):
    cost = count(zoo.get_model(name, **arguments))
    assert {key: getattr(cost, key) for key in expected} == expected
    assert not cost.uncounted


def test_the_authors_state_dict_has_as_many_tensors():
    model = ReActNetA(input_shape=(32, 32, 3))
    assert (len(model.trainable_weights), len(model.non_trainable_weights)) == (202, 64)


def test_every_row_of_table_2_has_its_accuracies():
    accuracies = {result.top1 for variant in zoo.get_network("ReActNetA").variants for result in variant.results}
    assert accuracies >= {58.2, 59.6, 61.1, 62.5, 65.5, 66.1, 67.4, 69.4}


OPTIONS = {"input_shape": (64, 32, 3), "include_top": False}


def copy_weights(source, target):
    """Copies the weights of the layers that both networks have."""
    names = {layer.name for layer in target.layers}
    for layer in source.layers:
        if layer.weights and layer.name in names:
            target.get_layer(layer.name).set_weights(layer.get_weights())


def outputs(model, *layers):
    """What comes out of some layers for a random image."""
    image = np.random.default_rng(1).standard_normal((2, *model.input_shape[1:])).astype("float32")
    taps = tf.keras.Model(model.input, {name: model.get_layer(name).output for name in layers})(image)
    return [taps[name].numpy() for name in layers]


@pytest.fixture
def four_blocks(monkeypatch):
    """Of ReActNet the blocks with each combination of stride and channels."""
    monkeypatch.setattr(reactnet, "_BLOCKS", reactnet._BLOCKS[:4])


@pytest.mark.usefixtures("four_blocks")
@pytest.mark.parametrize(
    "arguments",
    others_slow([{"activation": "prelu"}, {"sign": "sign"}, {"activation": None}, PLAIN], 1),
    ids=str,
)
def test_ablations_are_reactnet_a_without_shifts_and_slopes(arguments):
    ablation, whole = randomize(ReActNetA(**OPTIONS, **arguments)), ReActNetA(**OPTIONS)
    copy_weights(ablation, whole)
    # Initially the shifts are 0, and a PReLU of slope 1 is the identity.
    for layer in whole.layers:
        if isinstance(layer, RPReLU) and "activation" in arguments:
            slope = tf.ones_like(layer.alpha)
            if arguments["activation"] == "prelu":
                slope = ablation.get_layer(layer.name.replace("rprelu", "prelu")).alpha
            layer.alpha.assign(slope)
    np.testing.assert_array_equal(*(outputs(model, model.layers[-1].name) for model in (ablation, whole)))


@pytest.mark.usefixtures("four_blocks")
@pytest.mark.parametrize("constructor", others_slow([ReActNetA, ReActNetC], 1), ids=lambda network: network.__name__)
def test_one_convolution_or_two_differ_by_the_shortcut(constructor):
    two = randomize(constructor(**OPTIONS, downsampling="concat"))
    one = constructor(**OPTIONS, downsampling="conv")
    copy_weights(two, one)
    for ours, theirs in (("conv1x1", "conv"), ("bn2", "bn")):
        halves = [two.get_layer(f"block1_down{i}_{theirs}").get_weights() for i in (1, 2)]
        one.get_layer(f"block1_{ours}").set_weights(
            [np.concatenate(both, axis=-1) for both in zip(*halves, strict=True)]
        )
    (sums,) = outputs(one, "block1_bn2")
    concatenated, a = outputs(two, "block1_concat", "block1_rprelu1")
    np.testing.assert_allclose(concatenated, sums + np.concatenate([a, a], axis=-1), rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("four_blocks")
def test_reactnet_b_is_c_with_a_kernel_of_four_blocks():
    b, c = randomize(ReActNetB(**OPTIONS)), ReActNetC(**OPTIONS)
    for layer in b.layers:
        weights = layer.get_weights()
        if getattr(layer, "groups", 1) == 4:
            _, _, inputs, filters = weights[0].shape
            kernel = np.zeros((1, 1, 4 * inputs, filters), "float32")
            for group in range(4):
                outs = slice(group * filters // 4, (group + 1) * filters // 4)
                kernel[:, :, group * inputs : (group + 1) * inputs, outs] = weights[0][..., outs]
            weights = [kernel]
        c.get_layer(layer.name).set_weights(weights)
    for grouped, dense in zip(*(outputs(m, "block1_rprelu2", "block2_conv1x1") for m in (b, c)), strict=True):
        np.testing.assert_allclose(grouped, dense, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("constructor, real", [(ReActNetB, 4), (ReActNetC, 1)], ids=["B", "C"])
def test_the_real_convolutions_of_b_and_c(constructor, real):
    model = constructor(**OPTIONS)
    for block in (1, 2, 4, 6, 12):
        conv = model.get_layer(f"block{block}_conv1x1")
        assert type(conv) is tf.keras.layers.Conv2D and conv.groups == real
        # Real activations: neither a sign nor, since the channels differ, a shortcut.
        assert conv.input is model.get_layer(f"block{block}_rprelu1").output
        assert model.get_layer(f"block{block}_rprelu2").input is model.get_layer(f"block{block}_bn2").output


@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("ReActNetA", {"sign": "ste"}, "ReActNetA: sign must be one of 'rsign', 'sign', found 'ste'"),
        ("ReActNetA", {"activation": "relu"}, "ReActNetA: activation must be one of 'rprelu', 'prelu', None, found"),
        ("ReActNetA", {"downsampling": "pool"}, "ReActNetA: downsampling must be one of 'concat', 'conv', found"),
        ("ReActNetB", {"downsampling": "pool"}, "ReActNetB: downsampling must be one of"),
        ("ReActNetC", {"downsampling": "pool"}, "ReActNetC: downsampling must be one of"),
    ],
    ids=str,
)
def test_unknown_options(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        zoo.get_model(name, **arguments)
