"""RepTran on networks that are not ours; run by `make test-all` where larq_zoo is installed."""

import importlib

import numpy as np
import pytest
import tensorflow as tf
from forms import build, check_conversion, forms, without_gradient
from support import forget

import larq_rep
from larq_rep import cost, zoo
from larq_rep.losses import CrossEntropy
from larq_rep.training.optimizers import BopAndAdam
from larq_rep.training.phases import with_binary_weights
from larq_rep.training.trainee import Trainee, logits_of
from larq_rep.zoo import catalog

pytest.importorskip("larq_zoo")

# Their strides leave nothing of small images.
ALEXNETS = ("BinaryAlexNet", "XNORNet", "DoReFaNet")


def from_larq_zoo(name):
    for module in ("literature", "sota"):
        networks = importlib.import_module(f"larq_zoo.{module}")
        if hasattr(networks, name):
            tf.keras.utils.set_random_seed(0)
            size = 224 if name in ALEXNETS else 96
            return getattr(networks, name)(input_shape=(size, size, 3), weights=None, num_classes=10)
    raise ValueError(name)


def images(model):
    return np.random.default_rng(0).standard_normal((4, *model.input_shape[1:])).astype("float32")


@pytest.fixture(autouse=True)
def forget_models():
    yield
    forget()


@pytest.mark.parametrize(
    "name, first",
    [
        ("BiRealNet", "conv2d"),
        ("BinaryResNetE18", "conv2d"),
        ("BinaryDenseNet28", "conv2d"),
        ("BinaryDenseNet37Dilated", "conv2d"),
        ("RealToBinaryNet", "r2b_bnn_block_1_conv2d"),
        ("QuickNet", "quant_conv2d_1"),
        ("QuickNetSmall", "quant_conv2d_1"),
        ("QuickNetLarge", "quant_conv2d_1"),
        ("BinaryAlexNet", "quant_conv2d"),
        ("XNORNet", "conv2d"),
        ("DoReFaNet", "conv2d"),
    ],
)
def test_transformed_and_trained(name, first):
    base = from_larq_zoo(name)
    x = images(base)

    same = larq_rep.reptran(base, 1)
    np.testing.assert_array_equal(same(x), base(x))

    rep = larq_rep.reptran(base, 2)
    assert [layer.name for layer in rep.layers if isinstance(layer, larq_rep.layers.Repeat)] == [f"{first}_repeat"]
    assert rep.output_shape == base.output_shape
    before, after = cost.count(base), cost.count(rep)
    # A binary last layer, as in BinaryAlexNet, takes more.
    assert after.binary_params == before.binary_params or name == "BinaryAlexNet"
    # What has no gradient in the network itself has none in the Rep network.
    assert set(without_gradient(rep, x, 10)) <= set(without_gradient(base, x, 10))


def test_melius_net_is_refused_for_the_channel_numbers_in_its_lambdas():
    with pytest.raises(larq_rep.ReptranError, match="Lambda 'section_0_block_0_improve_merge'.*2 times the channels"):
        larq_rep.reptran(from_larq_zoo("MeliusNet22"), 2)


@pytest.mark.parametrize("name, variant", forms("larq_zoo"), ids=lambda value: value if isinstance(value, str) else "")
def test_form(name, variant):
    check_conversion(build(name, variant, size=224), variant)


def test_costs_are_those_of_the_table():
    for name, variant in forms("larq_zoo"):
        counted = catalog.costs(catalog.counted(zoo.get_network(name), variant))
        assert catalog.stored_costs()[catalog.key(name, variant)] == counted, "run `make docs`"


@pytest.mark.parametrize("name", ["BinaryAlexNet", "XNORNet"])
def test_the_networks_that_bop_trains(name):
    """The ones of its recipe: two steps flip weights, and larq_zoo's network gives the same results with them."""
    base = from_larq_zoo(name)
    model = with_binary_weights(base)
    kernels = [layer.kernel for layer in model.layers if getattr(layer, "kernel_quantizer", None) is not None]
    before = [kernel.numpy() for kernel in kernels]
    trainee = Trainee(model.inputs, logits_of(model))
    trainee.compile(BopAndAdam(gamma=0.5), CrossEntropy())
    trainee.fit(images(model), np.arange(4), epochs=2, verbose=0)
    assert kernels
    for kernel, old in zip(kernels, before, strict=True):
        assert set(np.unique(kernel)) == {-1.0, 1.0} and np.any(kernel != old)
    base.set_weights(model.get_weights())
    np.testing.assert_allclose(base(images(base)), model(images(base)), rtol=1e-5, atol=1e-6)
