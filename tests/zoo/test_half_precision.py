"""Networks under Keras' global policies of half precision."""

import numpy as np
import pytest
import tensorflow as tf

from larq_rep import zoo

# One of each way to make logits, and the quantizers with variables.
_NETWORKS = {
    "VGGSmall": dict(method="irnet", width=4),
    "ResNet20": dict(method="rbnn", width=2),
    "ResNet18": dict(method="bnn", binary_classifier=True),
    "AresBNet10": {},
    "BinaryDenseNet13": {},
}
# The rest, slow to build.
_MORE = {
    "BiRealNet18": {},
    "BiRealNet50": {},
    "BinaryConnectVGG": dict(width=4),
    "INQResNet18": dict(width=4),
    "SYQResNet18": {},
    "TTQResNet18": dict(width=4),
    "ReActNetA": {},
    "PresBNet10": {},
    "MeliusNet22": {},
    "ResNetE18": {},
    "RepResNet20": dict(method="recu", width=2),
    "DoReFaResNet18": {},
    "HWGQResNet18": {},
    "LQNetResNet18": {},
    "SiBNNResNet18": {},
    "TBNResNet18": {},
    "ABCNet18": dict(weight_bases=2, input_bases=2),
    "BENN18": dict(members=2),
    "CBCNResNet18": {},
    "GroupNet18": dict(bases=2, scales=True),
}


@pytest.fixture(params=["mixed_float16", "mixed_bfloat16"])
def policy(request):
    tf.keras.mixed_precision.set_global_policy(request.param)
    yield request.param
    tf.keras.mixed_precision.set_global_policy(None)  # "float32" would no longer follow floatx


@pytest.mark.parametrize(
    "name", [*_NETWORKS, *(pytest.param(name, marks=pytest.mark.slow) for name in _MORE)], scope="function"
)
def test_logits_stay_float32(policy, name):
    variant = zoo.get_network(name).variants[0]
    size = 32 if variant.dataset != "imagenet" else 64
    options = {**variant.arguments, **{**_NETWORKS, **_MORE}[name]}
    model = zoo.get_model(name, **options, input_shape=(size, size, 3), num_classes=10)
    assert [output.dtype for output in model.outputs] == [tf.float32]
    # The codes of INQ are integers.
    assert {weight.dtype for weight in model.weights if weight.dtype.is_floating} == {tf.float32}
    # All but the logits is computed in half precision.
    half = tf.keras.mixed_precision.Policy(policy).compute_dtype
    assert {layer.compute_dtype for layer in model.layers[1:-3]} == {half}
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    assert loss(np.zeros(2), model(np.zeros((2, size, size, 3), np.float32))).dtype == tf.float32
