import larq_rep.zoo as zoo  # before TensorFlow

# isort: split
import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from support import built

from larq_rep.cost import count
from larq_rep.zoo.vgg import VGGSmall

OPERATIONS = {"bops": 603979776, "flops": 3620864, "ops": 13058048, "binary_params": 4571136, "bn_flops": 573440}
# Trainable parameters: as it is; Rep with beta = 2 and solutions 1, 2 and 3 of the last layer, beta = 4 and 8.
PARAMETERS = {
    "irnet": (4660106, 4745610, 4663690, 4622730, 4916618, 5258634),
    "rbnn": (4663434, 4747274, 4665354, 4624394, 4917450, 5259050),
    "recu": (4661770, 4746442, 4664522, 4623562, 4917034, 5258842),
}
REP = [(2, 1), (2, 2), (2, 3), (4, 1), (8, 1)]
PUBLISHED = [
    *[("VGGSmall", {"method": m}, {"trainable_params": p[0], **OPERATIONS}) for m, p in PARAMETERS.items()],
    *[
        ("RepVGGSmall", {"method": method, "beta": beta, "last_layer": last}, {"trainable_params": weights})
        for method, (_, *rep) in PARAMETERS.items()
        for (beta, last), weights in zip(REP, rep, strict=True)
    ],
    *[("RepVGGSmall", {"method": m}, {"bops": 603979776, "ops": 13139968}) for m in PARAMETERS],
]


# Of the Rep networks one for each solution of the last layer, and one of eight copies; `make test-all` counts all.
QUICK_REP = [("irnet", 2, 1), ("recu", 2, 2), ("irnet", 2, 3), ("rbnn", 8, 1)]


def is_quick(name, arguments):
    return name == "VGGSmall" or tuple(arguments.values()) in QUICK_REP


@pytest.mark.parametrize(
    "name, arguments, expected",
    [pytest.param(*row, id=str(row), marks=[] if is_quick(*row[:2]) else [pytest.mark.slow]) for row in PUBLISHED],
)
def test_published_counts(name, arguments, expected):
    cost = count(built(name, **arguments))
    assert {attribute: getattr(cost, attribute) for attribute in expected} == expected
    assert not cost.uncounted


def test_shapes():
    model = built("VGGSmall")
    shapes = {
        "bn0": (32, 32, 128),
        "conv1": (32, 32, 128),
        "bn1": (16, 16, 128),
        "bn2": (16, 16, 256),
        "bn3": (8, 8, 256),
        "bn4": (8, 8, 512),
        "bn5": (4, 4, 512),
    }
    assert {name: model.get_layer(name).output.shape[1:] for name in shapes} == shapes
    assert tuple(model.get_layer("fc").kernel.shape) == (8192, 10)
    assert VGGSmall(include_top=False).output_shape == (None, 4, 4, 512)


def test_the_classifier_takes_clipped_features():
    model = VGGSmall(input_shape=(8, 8, 3))
    # A wide last normalisation, so that there is something to clip.
    model.get_layer("bn5").gamma.assign(np.full(512, 10.0))
    features = tf.keras.Model(model.input, model.get_layer("flatten").output)
    image = np.random.default_rng(0).standard_normal((2, 8, 8, 3)).astype("float32")
    assert np.abs(features(image)).max() == 1


@pytest.mark.parametrize("method", PARAMETERS)
def test_initial_weights(method):
    model = built("VGGSmall", method=method)
    for name, filters in (("conv0", 128), ("conv2", 256), ("conv5", 512)):
        kernel = model.get_layer(name).kernel.numpy()
        assert kernel.std() == pytest.approx(np.sqrt(2 / (9 * filters)), rel=0.05)
        assert np.abs(kernel).max() > 2.5 * kernel.std()
    fc = model.get_layer("fc")
    assert fc.kernel.numpy().std() == pytest.approx(0.01, rel=0.05)
    assert not fc.bias.numpy().any()
    assert (model.get_layer("bn3").gamma.numpy() == 1).all()


def test_estimators_start_as_published():
    layers = [layer for layer in built("VGGSmall").layers if isinstance(layer, lq.layers.QuantConv2D)]
    starts = {float(q.t) for layer in layers for q in (layer.input_quantizer, layer.kernel_quantizer)}
    assert len(layers) == 5
    assert starts == {np.float32(0.1)}


def test_bad_method():
    with pytest.raises(ValueError, match="VGGSmall: method must be one of 'irnet', 'rbnn', 'recu', found 'real'"):
        VGGSmall(method="real")
    assert {"VGGSmall", "RepVGGSmall"} <= set(zoo.list_models("*vgg*"))
