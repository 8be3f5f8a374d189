import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from support import built, few_blocks

from larq_rep import zoo
from larq_rep.cost import count
from larq_rep.zoo.methods import pooled_shortcut, sampled_shortcut
from larq_rep.zoo.resnet20 import ResNet20

keras = tf.keras.layers
BINARY = {"bops": 40108032, "flops": 443008, "ops": 1069696, "binary_params": 267264, "bn_flops": 376960}
REAL = {"bops": 0, "flops": 40551040, "ops": 40551040, "binary_params": 0, "bn_flops": 376832}
FRACBNN = {"bops": 54263808, "flops": 640, "ops": 848512, "binary_params": 281088, "bn_flops": 720896}
# Trainable parameters: as it is; Rep with beta = 2 and solutions 1, 2 and 3 of the last layer, beta = 4 and 8.
PARAMETERS = {
    "irnet": (269850, 271994, 271226, 270842, 276282, 284858),
    # The same weights, and those of a real network with a batch normalisation more.
    **dict.fromkeys(("irnet_1w32a", "irnet_real"), (269850, 271994, 271226, 270842, 276282, 284858)),
    "rbnn": (271194, 272666, 271898, 271514, 276618, 285026),
    "rbnn_bireal": (271194, 272666, 271898, 271514, 276618, 285026),
    "recu": (270522, 272330, 271562, 271178, 276450, 284942),
    "fracbnn": (286474, 291850, 291210, 290890, 302602, 324106),
    # Each filter has a threshold; the spec has none for beta = 8.
    "fracbnn_gated": (287146, 292186, 291546, 291226, 302770, 324106 + 672 // 8),
    "real": (269722, 271738, 271098, 270778, 275770, 283834),
    "real_bireal": (269722, 271738, 271098, 270778, 275770, 283834),
}
REP = [(2, 1), (2, 2), (2, 3), (4, 1), (8, 1)]
# The OPs of RepBNN's Table 2, and the same for other beta; networks differ only in what is no classifier.
TABLE_2 = {
    (2, 1): 1070336,
    (2, 2): 1069696,
    (2, 3): 1069376,
    (4, 1): 1071616,
    (4, 2): 1069696,
    (4, 3): 1069216,
    (8, 1): 1074176,
    (8, 2): 1069696,
    (8, 3): 1069136,
}
OPS = {
    "irnet": TABLE_2,
    **{
        method: {solution: ops - 1069696 + 40551040 for solution, ops in TABLE_2.items()}
        for method in ("irnet_1w32a", "irnet_real")
    },
    "fracbnn": {solution: ops - 1069696 + 848512 for solution, ops in TABLE_2.items()},
    "fracbnn_gated": {solution: ops - 1069696 + 640 + 94371840 // 64 for solution, ops in TABLE_2.items()},
    "real": {solution: ops - 1069696 + 40551040 for solution, ops in TABLE_2.items()},
    "real_bireal": {solution: ops - 1069696 + 40551040 for solution, ops in TABLE_2.items()},
}
PUBLISHED = [
    ("ResNet20", {}, {"trainable_params": 269850, **BINARY, "non_trainable_params": 1504}),
    *[("ResNet20", {"method": m}, {"trainable_params": PARAMETERS[m][0], **BINARY}) for m in ("rbnn_bireal", "recu")],
    # Behind the statistics the rotations of 7 convolutions of 16 channels, 6 of 32 and 5 of 64.
    (
        "ResNet20",
        {"method": "rbnn"},
        {
            "trainable_params": 271194,
            **BINARY,
            "non_trainable_params": 1504 + 7 * 2 * 12**2 + 6 * (16**2 + 18**2) + 5 * 2 * 24**2,
        },
    ),
    ("ResNet20", {"method": "fracbnn"}, {"trainable_params": 286474, **FRACBNN}),
    # Both convolutions of a fractional one counted.
    (
        "ResNet20",
        {"method": "fracbnn_gated"},
        {"trainable_params": 287146, "binary_params": 281088, "bops": 94371840, "flops": 640},
    ),
    (
        "ResNet20",
        {"method": "irnet_1w32a"},
        {"trainable_params": 269850, **REAL, "binary_params": 267264, "bn_flops": 376960},
    ),
    ("ResNet20", {"method": "irnet_real"}, {"trainable_params": 269850, **REAL, "bn_flops": 376960}),
    ("ResNet20", {"method": "real"}, {"trainable_params": 269722, **REAL}),
    ("ResNet20", {"method": "real_bireal"}, {"trainable_params": 269722, **REAL}),
    *[
        (
            "RepResNet20",
            {"method": method, "beta": beta, "last_layer": last},
            {"trainable_params": weights, "ops": OPS.get(method, OPS["irnet"])[beta, last]},
        )
        for method, (_, *rep) in PARAMETERS.items()
        for (beta, last), weights in zip(REP, rep, strict=True)
    ],
    *[
        ("RepResNet20", {"beta": beta, "last_layer": last}, {"bops": 40108032, "ops": OPS["irnet"][beta, last]})
        for beta, last in [(4, 2), (4, 3), (8, 2), (8, 3)]
    ],
]


# One Rep network for each solution of the last layer, and for each kind of method; `make test-all` counts all.
QUICK_REP = [("irnet", 2, 1), ("irnet", 2, 3), ("irnet", 8, 1), ("fracbnn_gated", 2, 2)]


def is_quick(name, arguments):
    return name == "ResNet20" or tuple(arguments.values()) in QUICK_REP


@pytest.mark.parametrize(
    "name, arguments, expected",
    [pytest.param(*row, id=str(row), marks=[] if is_quick(*row[:2]) else [pytest.mark.slow]) for row in PUBLISHED],
)
def test_published_counts(name, arguments, expected):
    cost = count(built(name, **arguments))
    assert {attribute: getattr(cost, attribute) for attribute in expected} == expected
    assert not cost.uncounted


def adds(model):
    return [layer for layer in model.layers if isinstance(layer, keras.Add)]


@pytest.mark.parametrize("method", PARAMETERS)
def test_shortcuts(method):
    model = built("ResNet20", method=method)
    around_two = method in ("irnet_1w32a", "irnet_real", "rbnn", "real")
    assert len(adds(model)) == (9 if around_two else 18)
    # Where the first convolution of a stage has its shortcut, it doubles the channels.
    name = "layer2_0_add2" if around_two else "layer2_0_add1"
    assert model.get_layer(name).output.shape[1:] == (16, 16, 32)


def compute(function, x):
    image = tf.keras.Input(x.shape[1:])
    return tf.keras.Model(image, function(image))(x).numpy()


@pytest.mark.parametrize("shortcut", [sampled_shortcut, pooled_shortcut])
def test_parameter_free_shortcuts(shortcut):
    x = np.random.default_rng(0).standard_normal((2, 4, 6, 4)).astype("float32")
    expected = np.zeros((2, 2, 3, 8))
    if shortcut is sampled_shortcut:
        expected[..., 2:6] = x[:, 1::2, 1::2]
    else:
        expected[..., 2:6] = x.reshape(2, 2, 2, 3, 2, 4).mean(axis=(2, 4))
    np.testing.assert_allclose(compute(lambda t: shortcut(t, 8, "block", None), x), expected, atol=1e-6)


def test_fracbnn_repeats_the_pooled_channels():
    model = ResNet20(method="fracbnn", width=4, input_shape=(8, 8, 3))
    before, after = (model.get_layer("layer2_0_concat").get_output_at(0), model.get_layer("layer1_2_bn4").output)
    image = np.random.default_rng(0).uniform(size=(1, 8, 8, 3)).astype("float32")
    concat, x = tf.keras.Model(model.input, [before, after])(image)
    pooled = x.numpy().reshape(1, 4, 2, 4, 2, 4).mean(axis=(2, 4))
    np.testing.assert_allclose(concat, np.concatenate([pooled, pooled], axis=-1), atol=1e-6)


def test_fracbnn_has_a_binary_stem_and_no_hard_tanh():
    model = built("ResNet20", method="fracbnn")
    assert tuple(model.get_layer("conv1").kernel.shape) == (3, 3, 96, 16)
    assert len([layer for layer in model.layers if isinstance(layer, lq.layers.QuantConv2D)]) == 19
    assert not [layer for layer in model.layers if "clip_by_value" in layer.name]
    assert "bn2" not in {layer.name for layer in model.layers}


@pytest.mark.parametrize("method, gamma", [("irnet", 1), ("rbnn", 1e-8), ("rbnn_bireal", 1e-8), ("recu", 1)])
def test_initial_gamma(method, gamma):
    model = built("ResNet20", method=method)
    norms = [layer for layer in model.layers if isinstance(layer, keras.BatchNormalization)]
    assert len(norms) == 20
    for norm in norms:
        expected = 1 if norm.name == "bn2" else gamma
        np.testing.assert_allclose(norm.gamma.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "method, conv, linear",
    [("irnet", "normal", "normal"), ("recu", "normal", "uniform"), ("fracbnn", "uniform", "uniform")],
)
def test_initial_weights(method, conv, linear):
    with few_blocks(1, 1, 2):
        model = ResNet20(method=method, width=32)
    for name, inputs, distribution in (("layer3_1_conv1", 9 * 128, conv), ("linear", 128, linear)):
        kernel = model.get_layer(name).kernel.numpy()
        deviation = np.sqrt((2 if distribution == "normal" else 1 / 3) / inputs)
        assert kernel.std() == pytest.approx(deviation, rel=0.1)
        # A uniform distribution ends at sqrt(3) standard deviations.
        assert (np.abs(kernel).max() > 1.8 * deviation) == (distribution == "normal")
    bias = model.get_layer("linear").bias.numpy()
    assert 0 < np.abs(bias).max() <= 128**-0.5


def test_initial_weights_differ():
    models = built("ResNet20"), ResNet20()
    assert not np.array_equal(*(model.get_layer("linear").kernel for model in models))


def test_estimators_start_as_published():
    model = built("ResNet20")
    layers = [layer for layer in model.layers if isinstance(layer, lq.layers.QuantConv2D)]
    assert len(layers) == 18
    quantizers = {id(q): q for layer in layers for q in (layer.input_quantizer, layer.kernel_quantizer)}
    assert len(quantizers) == 36
    assert {float(q.t) for q in quantizers.values()} == {np.float32(1e-3)}


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"width": 5}, "ResNet20: width must be a positive even number of channels, found 5"),
        ({"method": "xnor"}, "ResNet20: method must be one of 'irnet', 'irnet_1w32a', .*found 'xnor'"),
        ({"input_shape": (32, 30, 3)}, "multiples of 4"),
    ],
    ids=str,
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ResNet20(**arguments)


def test_names_of_the_rep_network():
    base, rep = ([layer.name for layer in built(name).layers if layer.weights] for name in ("ResNet20", "RepResNet20"))
    assert base == rep
    assert {"ResNet20", "RepResNet20"} <= set(zoo.list_models("*resnet20"))
