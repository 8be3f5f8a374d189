"""What every published form of every network has to pass."""

import re

import numpy as np
import tensorflow as tf
from support import images, randomize

from larq_rep import zoo
from larq_rep.converters import convert, verify
from larq_rep.quantizers.base import bases_of, planes_of

# Large enough for maps of 3 x 3 before the pooling: on smaller ones Larq Compute Engine pads wrongly.
SIZES = {"imagenet": 96, "cifar10": 32, "cifar100": 32}


def forms(family=None, not_family=None):
    """Names and records of all published forms."""
    networks = [zoo.get_network(name) for name in zoo.list_models(family=family)]
    return [(n.name, variant) for n in networks if n.family != not_family for variant in n.variants]


def without_gradient(model, x, classes):
    """Takes a training step on random images; the names of the weights that had no gradient."""
    labels = np.arange(len(x)) % classes
    with tf.GradientTape() as tape:
        outputs = model(x, training=True)
        # Also of probabilities: all that matters is that the gradient reaches the weights.
        loss = tf.reduce_mean(tf.keras.losses.sparse_categorical_crossentropy(labels, outputs, from_logits=True))
    weights = model.trainable_weights
    gradients = tape.gradient(loss, weights)
    assert np.isfinite(loss)
    tf.keras.optimizers.legacy.SGD(0.1).apply_gradients(zip(gradients, weights, strict=True))
    assert all(np.isfinite(weight).all() for weight in weights)
    return [w.name for w, g in zip(weights, gradients, strict=True) if g is None or not np.any(g)]


def build(name, variant, size=None, **narrower):
    """A network with random weights, by default for small images, in its published form but for what is given."""
    size = size or SIZES[variant.dataset]
    tf.keras.utils.set_random_seed(0)
    arguments = {**variant.arguments, **narrower}
    model = zoo.get_model(name, **arguments, input_shape=(size, size, 3), num_classes=10)
    assert model.output_shape == (None, 10)
    # Without normalisations, values would overflow after a training step of large random weights.
    norms = [layer for layer in model.layers if isinstance(layer, tf.keras.layers.BatchNormalization)]
    return randomize(model) if norms else model


def check_training_and_saving(model, file):
    """Takes a training step, saves the model and loads it again."""
    assert without_gradient(model, images(model, 4), 10) == []
    x = images(model, 2, seed=1)
    model.save(file)
    loaded = tf.keras.models.load_model(file, compile=False)
    np.testing.assert_array_equal(loaded(x), model(x))


def bitpacked_convolutions(layer):
    """The number of bitpacked convolutions that a convolution with binary weights becomes; 0 for other layers."""
    kernel = getattr(layer, "kernel_quantizer", None)
    bases = kernel.precision if bases_of(kernel) else int(getattr(kernel, "precision", 32) == 1)
    before = layer.input_quantizer if bases else None
    if bases and not planes_of(before):
        # A map that several layers read has its quantizer before them.
        before = layer.inbound_nodes[0].inbound_layers
    is_dense = isinstance(layer, tf.keras.layers.Dense)
    return 0 if is_dense else bases * (before.precision if planes_of(before) else 1)


def check_conversion(model, variant):
    """Converts and verifies a model, the delegate included.

    All binary convolutions have to be bitpacked but those that the record names, each as many times as its input and
    its kernel are sums of binary ones.
    """
    content, report = convert(model)
    binary = [x for x in model.layers if bitpacked_convolutions(x)]
    floating = [x.name for x in binary if any(re.fullmatch(pattern, x.name) for pattern in variant.left_float)]
    assert len(floating) >= len(variant.left_float)
    calls = sum(len(x.inbound_nodes) * bitpacked_convolutions(x) for x in binary if x.name not in floating)
    assert report.bitpacked == report.binary == calls
    result = verify(model, content, images(model, 2, seed=1), runtime="delegate")
    assert result.ok, result.differences
