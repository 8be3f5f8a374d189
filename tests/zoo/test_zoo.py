import itertools

import numpy as np
import pytest
import tensorflow as tf
from support import others_slow, shallow_resnet20

from larq_rep import cost, zoo

# Small enough to train, and with channels that a mix-up would show.
TINY = {"width": 4, "input_shape": (8, 8, 1)}


def train_one_step(model, input_shape, classes):
    """Takes one optimizer step on random data; returns the names of the trainable weights that stayed."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, *input_shape)).astype("float32")
    model.compile(
        tf.keras.optimizers.SGD(0.1),
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        run_eagerly=True,
    )
    before = [w.numpy() for w in model.trainable_weights]
    assert np.isfinite(model.train_on_batch(x, np.arange(4) % classes))
    after = [w.numpy() for w in model.trainable_weights]
    assert all(np.isfinite(a).all() for a in after)
    return [w.name for w, b, a in zip(model.trainable_weights, before, after, strict=True) if (b == a).all()]


def assert_repeated_statistics(model, beta, norms):
    """A batch normalisation behind a tile sees beta**2 equal blocks of channels."""
    assert norms
    for norm in norms:
        assert (norm.moving_variance.numpy() != 1).all(), f"{norm.name} has seen nothing"
        for statistic in (norm.moving_mean, norm.moving_variance):
            blocks = statistic.numpy().reshape(beta**2, -1)
            np.testing.assert_array_equal(blocks, np.broadcast_to(blocks[0], blocks.shape))


@pytest.fixture(scope="module")
def reactnet():
    return zoo.ReActNetA(input_shape=(32, 32, 3))


@pytest.fixture(scope="module")
def rep_reactnet():
    return zoo.RepReActNetA(input_shape=(32, 32, 3))


@pytest.mark.parametrize(
    "layer, base, rep",
    [
        ("stem_conv", (3, 3, 3, 32), (3, 3, 3, 32)),
        ("block1_conv3x3", (3, 3, 32, 32), (3, 3, 64, 16)),
        ("block1_down1_conv", (1, 1, 32, 32), (1, 1, 64, 16)),
        ("block1_down2_conv", (1, 1, 32, 32), (1, 1, 64, 16)),
        ("block3_conv3x3", (3, 3, 128, 128), (3, 3, 256, 64)),
        ("block3_conv1x1", (1, 1, 128, 128), (1, 1, 256, 64)),
        ("block12_down2_conv", (1, 1, 512, 512), (1, 1, 1024, 256)),
        ("fc", (1024, 1000), (2048, 1000)),
    ],
)
def test_reactnet_kernel_shapes(reactnet, rep_reactnet, layer, base, rep):
    assert tuple(reactnet.get_layer(layer).kernel.shape) == base
    assert tuple(rep_reactnet.get_layer(layer).kernel.shape) == rep


def test_rep_resnet20_kernel_shapes():
    model = zoo.RepResNet20(beta=4)
    kernels = {
        name: tuple(model.get_layer(name).kernel.shape)
        for name in (
            "conv1",
            "layer1_2_conv2",
            "layer2_0_conv1",
            "layer3_0_conv1",
            "layer3_2_conv2",
            "linear",
        )
    }
    assert kernels == {
        "conv1": (3, 3, 3, 16),
        "layer1_2_conv2": (3, 3, 64, 4),
        "layer2_0_conv1": (3, 3, 64, 8),
        "layer3_0_conv1": (3, 3, 128, 16),
        "layer3_2_conv2": (3, 3, 256, 16),
        "linear": (256, 10),
    }


def test_initial_weights(reactnet):
    binary = reactnet.get_layer("block3_conv3x3").get_weights()[0]
    assert binary.min() >= 0
    assert 0.99e-3 < binary.max() < 1e-3
    fc, bias = reactnet.get_layer("fc").get_weights()
    for values in (fc, bias):
        assert 0.95 / 32 < np.abs(values).max() <= 1 / 32
    other = reactnet.get_layer("block3_conv1x1").get_weights()[0]
    assert not np.array_equal(binary[0, 0, 0, :9], other[0, 0, 0, :9])


def test_the_convolutions_of_a_doubling_block_share_their_sign(reactnet):
    sign = reactnet.get_layer("block4_rsign2").output
    assert reactnet.get_layer("block4_down1_conv").input is sign
    assert reactnet.get_layer("block4_down2_conv").input is sign


def assert_same_network(base, rep):
    assert [layer.name for layer in rep.layers if layer.weights] == [
        layer.name for layer in base.layers if layer.weights
    ]
    rep.set_weights(base.get_weights())
    x = np.random.default_rng(0).standard_normal((2, *base.input_shape[1:])).astype("float32")
    np.testing.assert_array_equal(rep(x), base(x))


@pytest.mark.slow
def test_beta_1_is_reactnet(reactnet):
    assert_same_network(reactnet, zoo.RepReActNetA(beta=1, input_shape=(32, 32, 3)))


def test_beta_1_is_resnet20():
    assert_same_network(shallow_resnet20(**TINY), shallow_resnet20(rep=True, beta=1, **TINY))


def test_rep_keeps_the_layer_names(reactnet, rep_reactnet):
    added = {layer.name for layer in rep_reactnet.layers} - {layer.name for layer in reactnet.layers}
    assert {name for name in added if "image" not in name} == {"stem_conv_repeat"}


def test_training_step_reactnet(rep_reactnet):
    # With the initial weights, none of them negative, late activations may all lie where signs have no gradient.
    rng = np.random.default_rng(0)
    for layer in rep_reactnet.layers:
        if hasattr(layer, "kernel_quantizer"):
            layer.kernel.assign(rng.uniform(-1, 1, layer.kernel.shape))
    assert train_one_step(rep_reactnet, (32, 32, 3), 1000) == []
    norms = [
        layer
        for layer in rep_reactnet.layers
        if isinstance(layer, tf.keras.layers.BatchNormalization) and layer.name != "stem_bn"
    ]
    assert len(norms) == 31
    assert_repeated_statistics(rep_reactnet, 2, norms)


@pytest.mark.parametrize("beta", others_slow([4, 1, 2], 1))
def test_training_step_resnet20(beta):
    model = shallow_resnet20(rep=True, beta=beta, **TINY)
    assert train_one_step(model, (8, 8, 1), 10) == []
    if beta > 1:
        blocks = [f"layer{block}_bn{i}" for block, i in itertools.product(("1_0", "1_1", "2_0", "3_0"), (1, 2))]
        assert_repeated_statistics(model, beta, [model.get_layer(name) for name in blocks])


def test_without_top():
    assert zoo.ResNet20(include_top=False, **TINY).output_shape == (None, 2, 2, 16)
    model = zoo.RepResNet20(include_top=False, beta=4, input_shape=(16, 8, 1))
    assert model.output_shape == (None, 4, 2, 256)
    # Without the dense layer and the normalisation before it, and with one colour instead of three.
    assert cost.count(model).trainable_params == 276282 - 257 * 10 - 2 * 256 - 2 * 9 * 16


@pytest.mark.parametrize("constructor", [zoo.VGGSmall, zoo.RepVGGSmall], ids=["base", "rep"])
def test_input_tensor(constructor):
    image = tf.keras.Input((8, 16, 2))
    model = constructor(input_tensor=tf.keras.layers.Rescaling(1 / 255)(image), width=4, num_classes=7)
    assert model.input_shape == (None, 8, 16, 2)
    assert model.output_shape == (None, 7)
    assert model.inputs[0] is image


def assert_same_weights(actual, expected):
    for a, e in zip(actual.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(a, e)


@pytest.mark.parametrize("name", ["VGGSmall", "RepVGGSmall"])
def test_weights_file(name, tmp_path):
    file = str(tmp_path / "weights.h5")
    saved = zoo.get_model(name, **TINY)
    saved.save_weights(file)
    assert_same_weights(zoo.get_model(name, weights=file, **TINY), saved)
    with pytest.raises(ValueError, match=rf"{saved.name}: the weights in '.*weights.h5' do not fit"):
        zoo.get_model(name, weights=file, **{**TINY, "width": 8})


@pytest.mark.slow
def test_weights_file_reactnet(rep_reactnet, tmp_path):
    file = str(tmp_path / "weights.h5")
    rep_reactnet.save_weights(file)
    assert_same_weights(zoo.RepReActNetA(weights=file, input_shape=(32, 32, 3)), rep_reactnet)
    with pytest.raises(ValueError, match=r"ReActNetA: the weights in '.*weights.h5' do not fit"):
        zoo.ReActNetA(weights=file, input_shape=(32, 32, 3))


@pytest.mark.parametrize("file", others_slow(["model.keras", "model.h5", "saved_model"], 1))
def test_saved_model(file, tmp_path):
    model = shallow_resnet20(rep=True, last_layer=2, **TINY)
    model.save(str(tmp_path / file))
    loaded = tf.keras.models.load_model(str(tmp_path / file))
    x = np.random.default_rng(0).standard_normal((2, 8, 8, 1)).astype("float32")
    # A SavedModel may come back with its weights in another order, the outputs tell.
    np.testing.assert_allclose(loaded(x), model(x), rtol=1e-6, atol=1e-6)


def test_missing_weights_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"ResNet20: there is no weights file '.*none\.h5'"):
        zoo.ResNet20(weights=str(tmp_path / "none.h5"), **TINY)


def test_weights_file_that_is_none(tmp_path):
    file = tmp_path / "weights.h5"
    file.write_text("no weights")
    with pytest.raises(ValueError, match="weights.h5' cannot be read as a file of Keras"):
        zoo.ResNet20(weights=str(file), **TINY)


@pytest.mark.parametrize(
    "name, kwargs, message",
    [
        ("ReActNetA", {"input_shape": (225, 224, 3)}, "ReActNetA: .*multiples of 32.*found 225 x 224"),
        ("ReActNetA", {"input_shape": (None, None, 3)}, "ReActNetA: .*all sizes known"),
        ("ReActNetA", {"input_shape": (224, 224)}, "ReActNetA: .*height, width, channels"),
        ("RepResNet20", {"input_shape": (32, 30, 3)}, "ResNet20: .*multiples of 4.*found 32 x 30"),
        ("RepResNet20", {"last_layer": 4, **TINY}, "last_layer must be one of 1, 2, 3, found 4"),
        ("ResNet20", {"width": 5}, "ResNet20: width must be a positive even number"),
        ("RepReActNetA", {"beta": 3}, "block1_conv3x3.*beta=3 does not divide"),
        ("RepVGGSmall", {"beta": 0}, "beta must be an integer of at least 1"),
        ("RepVGGSmall", {"beta": 32, "width": 16}, "conv1.*beta=32"),
        ("RepVGGSmall", {"beta": 2.5}, "beta must be an integer"),
    ],
    ids=str,
)
def test_bad_arguments(name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        zoo.get_model(name, **kwargs)


def test_input_shape_against_input_tensor():
    with pytest.raises(ValueError, match=r"ResNet20: input_shape is \(8, 8, 1\) but input_tensor has \(8, 8, 3\)"):
        zoo.ResNet20(input_shape=(8, 8, 1), input_tensor=tf.keras.Input((8, 8, 3)))


def test_list_models():
    assert set(zoo.list_models("*react*a")) == {"ReActNetA", "RepReActNetA"}
    assert zoo.list_models("rep*20") == ["RepResNet20"]
    assert zoo.list_models("*", family="meliusnet") == [f"MeliusNet{n}" for n in (22, 29, 42, 59)]
    assert {"VGGSmall", "PresBNet18"} <= set(zoo.list_models(dataset="cifar10"))
    assert "ReActNetA" not in zoo.list_models(dataset="cifar10")
    with pytest.raises(ValueError, match="family must be one of .*'reactnet'.*found 'renet'"):
        zoo.list_models(family="renet")
    with pytest.raises(ValueError, match="dataset must be one of 'imagenet', 'cifar10', 'cifar100', found 'mnist'"):
        zoo.list_models(dataset="mnist")


@pytest.mark.parametrize(
    "name, hint", [("Resnet-20", r"Did you mean .*ResNet20"), ("xyz", r"list_models\(\) names all")]
)
def test_unknown_name(name, hint):
    with pytest.raises(ValueError, match=rf"no network named '{name}'\. {hint}"):
        zoo.get_model(name)
