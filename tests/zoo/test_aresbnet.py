import larq_rep.zoo as zoo  # before TensorFlow

# isort: split
import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from support import first_quick

from larq_rep import reptran
from larq_rep.converters import convert
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.cost import count
from larq_rep.training.optimizers import SGD
from larq_rep.training.phases import with_synchronized_norms
from larq_rep.training.trainee import Trainee
from larq_rep.zoo.aresbnet import AresBNet10, AresBNet18, _block

# For 10, 18 and 34 layers: binary weights, binary operations for CIFAR and ImageNet, and the real parameters for
# 10, 100 and 1000 classes.
DEPTHS = {
    "AresBNet10": (4718592, 245366784, 751435776, (14794, 60964, 530472)),
    "AresBNet18": (10985472, 547356672, 1676279808, (22474, 68644, 538152)),
    "AresBNet34": (21086208, 1151336448, 3525967872, (37322, 83492, 553000)),
}
# First convolution and classifier.
CIFAR_STEM, IMAGENET_STEM = 32 * 32 * 27 * 64, 112 * 112 * 147 * 64


def published():
    for name, (binary, cifar, imagenet, real) in DEPTHS.items():
        for arguments, classes, bops, stem, parameters in (
            ({"dataset": "cifar10"}, 10, cifar, CIFAR_STEM, real[0]),
            ({}, 100, cifar, CIFAR_STEM, real[1]),
            ({"slope": 0.01}, 100, cifar, CIFAR_STEM, real[1]),
            ({"dataset": "imagenet"}, 1000, imagenet, IMAGENET_STEM, real[2]),
        ):
            flops = stem + 512 * classes
            expected = {
                "trainable_params": binary + parameters,
                "binary_params": binary,
                "trainable_bits": binary + 32 * parameters,
                "bops": bops,
                "flops": flops,
                "ops": flops + bops // 64,
            }
            yield name, arguments, expected


PUBLISHED = list(published())


@pytest.mark.parametrize("name, arguments, expected", first_quick(PUBLISHED, 2), ids=str)
def test_counts(name, arguments, expected):
    cost = count(zoo.get_model(name, **arguments))
    assert {key: getattr(cost, key) for key in expected} == expected
    assert not cost.uncounted


def test_totals_are_the_printed_ones():
    table = {(name, *arguments.values()): expected for name, arguments, expected in PUBLISHED}
    sizes = [table[(name, *rest)]["trainable_bits"] / 2**23 for rest in ((), ("imagenet",)) for name in DEPTHS]
    assert [round(size, 3) for size in sizes] == [0.795, 1.571, 2.832, 2.586, 3.362, 4.623]
    assert round(table["AresBNet18",]["flops"] / 1e6, 2) == 1.82
    assert round(table["AresBNet18", "imagenet"]["flops"] / 1e6, 1) == 118.5


@pytest.fixture(scope="module")
def net():
    return AresBNet18()


@pytest.mark.parametrize(
    "name, shape",
    [
        ("conv1", (3, 3, 3, 64)),
        ("layer1_0_conv1_0", (3, 3, 64, 32)),
        ("layer2_0_conv1_1", (3, 3, 64, 64)),
        ("layer2_0_conv2_0", (3, 3, 128, 64)),
        ("layer4_1_conv2_1", (3, 3, 512, 256)),
        ("linear", (512, 100)),
    ],
)
def test_kernel_shapes(net, name, shape):
    assert tuple(net.get_layer(name).kernel.shape) == shape


def test_the_first_block_does_not_shuffle_its_input(net):
    shuffles = [layer.name for layer in net.layers if layer.name.endswith("shuffle1")]
    assert shuffles == [f"layer{stage}_{block}_shuffle1" for stage in (1, 2, 3, 4) for block in (0, 1)][1:]


def test_first_half_is_classified(net):
    """Without the last unit, the classified half is that of its shortcut."""
    ends = tf.keras.Model(net.get_layer("layer4_1_concat2").output, net.get_layer("pool").output)
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 1024)).astype("float32")
    np.testing.assert_allclose(ends(x), x[..., :512].mean(axis=(1, 2)), atol=1e-6)


def test_dropout_for_cifar100_only():
    def dropouts(model):
        return [layer.rate for layer in model.layers if isinstance(layer, tf.keras.layers.Dropout)]

    assert dropouts(AresBNet10()) == [0.5]
    assert dropouts(AresBNet10(dataset="cifar10")) == dropouts(AresBNet10(dataset="imagenet")) == []


def test_without_top():
    assert AresBNet10(include_top=False).output_shape == (None, 4, 4, 512)
    assert AresBNet10(include_top=False, dataset="imagenet").output_shape == (None, 7, 7, 512)


def test_slope_is_that_of_all_signs():
    for slope in (0.0, 0.01):
        signs = [y.input_quantizer for y in AresBNet10(slope=slope).layers if hasattr(y, "input_quantizer")]
        assert {sign.slope for sign in signs} == {slope}
        assert len(signs) == 16


@pytest.mark.slow  # The smaller network is converted with the other forms.
def test_only_the_first_convolution_stays_float(net):
    content, report = convert(net)
    names = [op.name for op in Flatbuffer(content).operators]
    assert names.count("LceBconv2d") == report.bitpacked == report.binary == 32
    assert names.count("CONV_2D") == names.count("FULLY_CONNECTED") == 1
    assert not [name for name in names if name.startswith("Flex")]


def _small(net, **changes):
    """The binary convolutions of the network, on two channels of one pixel, in a training of one step."""
    config = net.get_layer("layer1_0_conv1_0").get_config()
    conv = lq.layers.QuantConv2D.from_config({**config, "filters": 1, "kernel_size": 1, **changes})
    image = tf.keras.Input((1, 1, 2))
    trainee = Trainee(image, tf.keras.layers.Flatten()(conv(image)))
    # The mean over the two images, of what makes 0.3 and -0.2 of the gradients of the two binary weights.
    trainee.compile(SGD(0.1, momentum=0.0), lambda factor, y: tf.reduce_sum(factor * y, axis=-1))
    return conv, trainee


_PIXELS, _FACTORS = np.array([[1.0, 1.0], [1.0, -1.0]]).reshape(2, 1, 1, 2), np.array([[0.1], [0.5]])


@pytest.mark.parametrize("first", [1.7, 1.0])
def test_latent_weights_are_clipped_before_a_step(net, first):
    """w = [1.7, 0.5] becomes [1, 0.5], with s = 0.75 and the gradient [0.275, -0.1]."""
    conv, trainee = _small(net)
    conv.kernel.assign(np.array([first, 0.5]).reshape(1, 1, 2, 1))
    trainee.fit(_PIXELS, _FACTORS, batch_size=2, verbose=0)
    np.testing.assert_allclose(conv.get_weights()[0].ravel(), [0.9725, 0.51], rtol=1e-6)


def test_latent_weights_come_back(net):
    """And none leaves [-1, 1], however large the step."""
    conv, trainee = _small(net)
    for factor, expected in ((-100.0, 1.0), (100.0, -1.0), (-100.0, 1.0)):
        trainee.fit(np.ones((2, 1, 1, 2)), np.full((2, 1), factor), batch_size=2, verbose=0)
        np.testing.assert_array_equal(conv.get_weights()[0].ravel(), [expected] * 2)


def test_constraints_act_only_on_the_weights_before_all_steps(net, monkeypatch):
    """A run that goes on must have the weights that it was stopped with."""
    conv, trainee = _small(net)
    seen = []
    monkeypatch.setattr(tf.keras.Model, "fit", lambda self, *args: seen.append(conv.get_weights()[0].max()))
    for steps in (0, 1):
        conv.kernel.assign(np.full((1, 1, 2, 1), 5.0))
        trainee.optimizer.iterations.assign(steps)
        trainee.fit(_PIXELS, _FACTORS)
    assert seen == [1.0, 5.0]


def _clipped(model):
    """The latent weights of a network by the range in which they are kept."""
    layers = [layer for layer in model.layers if getattr(layer, "kernel_quantizer", None) is not None]
    return {layer.name: getattr(layer.kernel_constraint, "clip_value", None) for layer in layers}


def test_all_binary_convolutions_are_clipped_whatever_becomes_of_the_network(net, tmp_path):
    expected = _clipped(net)
    assert len(expected) == 32 and set(expected.values()) == {1}
    assert net.get_layer("conv1").kernel_constraint is None
    small = AresBNet10(dataset="imagenet", input_shape=(32, 32, 3))
    assert _clipped(small).keys() < expected.keys()
    image = tf.keras.Input((8, 8, 16))
    block = tf.keras.Model(image, _block(image, 8, 1, True, 0.0, "layer1_0"))
    block.save(tmp_path / "block.h5")
    for again in (
        reptran(small, 2),
        tf.keras.models.clone_model(small),
        with_synchronized_norms(small),
        tf.keras.models.load_model(tmp_path / "block.h5"),
    ):
        found = _clipped(again)
        assert found and set(found.values()) == {1}
