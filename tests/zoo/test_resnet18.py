import larq_rep.zoo as zoo  # before TensorFlow

# isort: split
import numpy as np
import pytest
import tensorflow as tf
from support import built, first_quick, images, randomize

from larq_rep.cost import count
from larq_rep.zoo.resnet18 import ResNet18, ResNet34

keras = tf.keras.layers
IMAGENET = {
    "bops": 1676279808,
    "flops": 137793536,
    "ops": 163985408,
    "binary_params": 10985472,
}
# Trainable parameters: as it is; Rep with beta = 2 and solutions 1, 2 and 3 of the last layer, beta = 4 and 8.
# The dead bn3 of two authors' models is not built.
DEAD = 2000
PARAMETERS = {
    ("irnet", "imagenet"): (11692536 - DEAD, 12215160 - DEAD, 11702136 - DEAD, 11445624 - DEAD, 13260408 - DEAD, None),
    ("irnet_1w32a", "imagenet"): (11692536 - DEAD, *[None] * 5),
    ("irnet_1w32a", "cifar10"): (11174986, *[None] * 5),
    ("rbnn", "imagenet"): (11700216 - DEAD, 12219000 - DEAD, 11705976 - DEAD, 11449464 - DEAD, 13262328 - DEAD, None),
    ("recu", "imagenet"): (11694376, 12215080, 11702056, 11445544, 13259368, None),
    ("irnet", "cifar10"): (11174986, 11190730, 11184586, 11181514, 11222218, 11285194),
    ("rbnn", "cifar10"): (11184458, 11195466, 11189322, 11186250, 11224586, 11286378),
    ("recu", "cifar10"): (11005002, 11017034, 11010890, 11007818, 11043978, 11099306),
}
REP = [(2, 1), (2, 2), (2, 3), (4, 1), (8, 1)]
# BOPs, FLOPs, OPs and BN FLOPs, and the OPs of the Rep network with beta = 2.
CIFAR = {
    "irnet": (547356672, 8066048, 16618496, 1229824, 16623616),
    "rbnn": (553648128, 1774592, 10425344, 1229824, 10430464),
    "recu": (547356672, 1774592, 10327040, 1115136, 10332160),
}
STEM, CONVS, SHORTCUTS, CLASSIFIER = 9408, 10985472, 172032, 513000
PUBLISHED = [
    *[
        ("ResNet18", {"method": method, "dataset": dataset}, {"trainable_params": weights[0]})
        for (method, dataset), weights in PARAMETERS.items()
    ],
    *[
        (
            "RepResNet18",
            {"method": method, "dataset": dataset, "beta": beta, "last_layer": last},
            {"trainable_params": weights},
        )
        for (method, dataset), (_, *rep) in PARAMETERS.items()
        for (beta, last), weights in zip(REP, rep, strict=True)
        if weights
    ],
    *[("ResNet18", {"method": m}, {**IMAGENET, "bn_flops": 4968448}) for m in ("irnet", "rbnn", "recu")],
    *[("RepResNet18", {"method": m}, {"bops": 1676279808, "ops": 164497408}) for m in ("irnet", "rbnn", "recu")],
    *[
        (
            "ResNet18",
            {"method": method, "dataset": "cifar10"},
            dict(zip(("bops", "flops", "ops", "bn_flops"), costs, strict=False)),
        )
        for method, costs in CIFAR.items()
    ],
    *[
        ("RepResNet18", {"method": method, "dataset": "cifar10"}, {"bops": costs[0], "ops": costs[-1]})
        for method, costs in CIFAR.items()
    ],
    # XNOR-Net normalises the inputs of the convolutions: those of the first one of a stage have half the channels.
    *[
        (
            "ResNet18",
            {"method": "xnor", "scale": scale},
            {**IMAGENET, "trainable_params": STEM + CONVS + SHORTCUTS + CLASSIFIER + 2 * 4352},
        )
        for scale in (False, True)
    ],
    # A scale for each filter of the sixteen convolutions.
    (
        "ResNet18",
        {"method": "xnor_trained"},
        {**IMAGENET, "trainable_params": STEM + CONVS + SHORTCUTS + CLASSIFIER + 2 * 4352 + 4 * 960},
    ),
    (
        "ResNet18",
        {"method": "bnn"},
        {
            "bops": 1695547392,
            "flops": 118525952,
            "ops": 145018880,
            "binary_params": STEM + CONVS + SHORTCUTS,
            "trainable_params": STEM + CONVS + SHORTCUTS + CLASSIFIER + 10624,
        },
    ),
    (
        "ResNet18",
        {"method": "bnn", "binary_classifier": True},
        {
            "bops": 1696059392,
            "flops": 118013952,
            "ops": 144514880,
            "binary_params": STEM + CONVS + SHORTCUTS + 512000,
            "trainable_params": STEM + CONVS + SHORTCUTS + CLASSIFIER + 10624 + 2000,
        },
    ),
    # IR-Net's with real activations: the operations of the real network, the weights of the binary one.
    (
        "ResNet18",
        {"method": "irnet_1w32a"},
        {"bops": 0, "flops": 1676279808 + 137793536, "ops": 1676279808 + 137793536, "binary_params": 10985472},
    ),
    ("ResNet18", {"method": "irnet_1w32a", "dataset": "cifar10"}, {"bops": 0, "flops": 547356672 + 8066048}),
    # torchvision's resnet18 has as many, and the same without its bn2.
    ("ResNet18", {"method": "real"}, {"trainable_params": 11689512, "bops": 0, "flops": 1814073344}),
    ("ResNet18", {"method": "real", "dataset": "cifar100"}, {"trainable_params": 11220132, "bops": 0}),
    # torchvision's resnet34 has as many. IR-Net's networks have the normalisation before the classifier as well.
    ("ResNet34", {"method": "real"}, {"trainable_params": 21797672, "bops": 0, "flops": 3525967872 + 137793536}),
    (
        "ResNet34",
        {},
        {
            "bops": 3525967872,
            "flops": 137793536,
            "ops": 192886784,
            "binary_params": 21086208,
            "trainable_params": 21797672 + 2 * 512,
        },
    ),
    (
        "ResNet34",
        {"method": "irnet_1w32a"},
        {"bops": 0, "flops": 3525967872 + 137793536, "binary_params": 21086208},
    ),
    # Those of RepBiRealNet34 with the same stem, and the normalisation.
    ("RepResNet34", {}, {"trainable_params": 22326696 + 2 * 1024, "bops": 3525967872, "ops": 193398784}),
]


@pytest.mark.parametrize("name, arguments, expected", first_quick(PUBLISHED, 4), ids=str)
def test_published_counts(name, arguments, expected):
    cost = count(built(name, **arguments))
    assert {attribute: getattr(cost, attribute) for attribute in expected} == expected
    assert not cost.uncounted


def output_shape(model, layer):
    return model.get_layer(layer).output.shape[1:]


@pytest.mark.parametrize("method", ["irnet", "bnn", "xnor", "real"])
def test_shapes_for_imagenet(method):
    model = built("ResNet18", method=method)
    assert model.output_shape == (None, 1000)
    assert output_shape(model, "conv1") == (112, 112, 64)
    assert output_shape(model, "maxpool") == (56, 56, 64)
    sizes = [output_shape(model, f"layer{stage}_1_conv2") for stage in (1, 2, 3, 4)]
    assert sizes == [(56, 56, 64), (28, 28, 128), (14, 14, 256), (7, 7, 512)]


def test_shapes_for_cifar():
    model = built("ResNet18", method="rbnn", dataset="cifar10")
    assert model.output_shape == (None, 10)
    sizes = [output_shape(model, f"layer{stage}_1_conv2") for stage in (1, 2, 3, 4)]
    assert sizes == [(32, 32, 64), (16, 16, 128), (8, 8, 256), (4, 4, 512)]
    assert built("ResNet18", method="real", dataset="cifar100").output_shape == (None, 100)


@pytest.mark.parametrize(
    "arguments, shortcuts",
    [
        ({}, 16),
        ({"method": "real"}, 8),
        ({"method": "bnn"}, 8),
        ({"method": "irnet_1w32a"}, 8),
        ({"method": "xnor"}, 8),
        ({"dataset": "cifar10"}, 8),
        ({"method": "recu", "dataset": "cifar10"}, 8),
    ],
    ids=str,
)
def test_number_of_shortcuts(arguments, shortcuts):
    model = built("ResNet18", **arguments)
    assert len([layer for layer in model.layers if isinstance(layer, keras.Add)]) == shortcuts


@pytest.mark.parametrize("method, shortcuts", [("irnet", 32), ("irnet_1w32a", 16), ("real", 16)])
def test_blocks_of_resnet34(method, shortcuts):
    model = ResNet34(method=method, input_shape=(32, 32, 3), include_top=False)
    blocks = [f"layer{stage}_{number}" for stage, count in enumerate((3, 4, 6, 3), 1) for number in range(count)]
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.Conv2D) and layer.kernel_size == (3, 3)]
    assert [layer.name for layer in convolutions] == [f"{block}_conv{number}" for block in blocks for number in (1, 2)]
    strided = [layer.name for layer in convolutions if layer.strides == (2, 2)]
    assert strided == ["layer2_0_conv1", "layer3_0_conv1", "layer4_0_conv1"]
    assert len([layer for layer in model.layers if isinstance(layer, keras.Add)]) == shortcuts
    real_inputs = method != "irnet"
    assert all((getattr(layer, "input_quantizer", None) is None) == real_inputs for layer in convolutions)
    assert all((getattr(layer, "kernel_quantizer", None) is None) == (method == "real") for layer in convolutions)


def test_trained_scales_are_all_that_differs_from_xnor():
    """With XNOR-Net's own scales in place of the trained ones the two networks are equal."""
    size = {"input_shape": (32, 32, 3), "num_classes": 10}
    xnor = randomize(ResNet18(method="xnor", **size))
    trained = ResNet18(method="xnor_trained", **size)
    for layer in (layer for layer in xnor.layers if layer.weights):
        quantizer = getattr(trained.get_layer(layer.name), "kernel_quantizer", None)
        scales = [] if quantizer is None else [np.abs(layer.kernel.numpy()).mean(axis=(0, 1, 2))]
        trained.get_layer(layer.name).set_weights([*layer.get_weights(), *scales])
    np.testing.assert_allclose(trained(images(xnor)), xnor(images(xnor)), rtol=1e-5, atol=1e-5)


def test_the_cifar_stem_of_binary_networks_has_no_activation():
    model = built("ResNet18", method="irnet", dataset="cifar10")
    assert model.get_layer("layer1_0_conv1").input is model.get_layer("bn1").output
    model = built("ResNet18", method="real", dataset="cifar100")
    assert isinstance(model.get_layer("layer1_0_conv1").input._keras_history.layer, keras.ReLU)


@pytest.mark.parametrize(
    "arguments, gamma",
    [
        ({"method": "irnet"}, 1),
        ({"method": "rbnn"}, 1e-8),
        ({"method": "recu"}, 1e-8),
        ({"method": "rbnn", "dataset": "cifar10"}, 1),
        ({"method": "recu", "dataset": "cifar10"}, 1),
    ],
    ids=str,
)
def test_initial_gamma(arguments, gamma):
    model = built("ResNet18", **arguments)
    for norm in (layer for layer in model.layers if isinstance(layer, keras.BatchNormalization)):
        np.testing.assert_allclose(norm.gamma.numpy(), 1 if norm.name == "bn2" else gamma, rtol=1e-6)


@pytest.mark.parametrize(
    "arguments, variance",
    # Of a 3x3 convolution from 128 to 256 channels.
    [
        ({"method": "irnet"}, 2 / (9 * 256)),
        ({"method": "recu"}, 2 / (9 * 128)),
        ({"method": "irnet", "dataset": "cifar10"}, 1 / (3 * 9 * 128)),
        ({"method": "recu", "dataset": "cifar10"}, 2 / (9 * 128)),
    ],
    ids=str,
)
def test_initial_weights(arguments, variance):
    kernel = built("ResNet18", **arguments).get_layer("layer3_0_conv1").kernel.numpy()
    assert kernel.std() == pytest.approx(np.sqrt(variance), rel=0.05)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"method": "fracbnn"}, "ResNet18: for imagenet the method must be one of 'irnet', .*found 'fracbnn'"),
        ({"method": "xnor", "dataset": "cifar10"}, "ResNet18: for cifar10 the method must be one of .*found 'xnor'"),
        ({"dataset": "digits"}, "ResNet18: dataset must be one of .*found 'digits'"),
        ({"scale": True}, "scale is an option of method='xnor' alone, found 'irnet'"),
        ({"method": "xnor", "binary_classifier": True}, "binary_classifier is an option of method='bnn' alone"),
    ],
    ids=str,
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ResNet18(**arguments)


def test_resnet34_has_fewer_methods():
    with pytest.raises(ValueError, match="ResNet34: method must be one of 'irnet', 'irnet_1w32a', 'real', found 'bnn'"):
        ResNet34(method="bnn")


def test_listed():
    assert {"ResNet18", "RepResNet18"} <= set(zoo.list_models("*resnet18", family="resnet18"))
    assert {"ResNet34", "RepResNet34"} <= set(zoo.list_models("*resnet34", family="resnet18"))
