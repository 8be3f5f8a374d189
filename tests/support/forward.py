"""Pieces of float64 numpy forwards, on NHWC arrays, and a network in float64 to compare them with."""

import math

import numpy as np
import tensorflow as tf


def same_padded(x, kernel, stride):
    """Pads H and W of NHWC with zeros as TensorFlow's "SAME" does: the odd one at the bottom and right."""
    pads = [(0, 0)]
    for size in x.shape[1:3]:
        total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
        pads.append((total // 2, total - total // 2))
    return np.pad(x, [*pads, (0, 0)])


def conv(x, kernel, stride=1):
    size = kernel.shape[0]
    if size == 1 and stride == 2:
        # The pixels on which the windows of a 3x3 convolution are centred.
        x = x[:, (x.shape[1] + 1) % 2 :, (x.shape[2] + 1) % 2 :]
    height, width = (math.ceil(n / stride) for n in x.shape[1:3])
    x = same_padded(x, size, stride)
    out = np.zeros((x.shape[0], height, width, kernel.shape[-1]))
    for i in range(size):
        for j in range(size):
            rows = slice(i, i + (height - 1) * stride + 1, stride)
            columns = slice(j, j + (width - 1) * stride + 1, stride)
            out += x[:, rows, columns] @ kernel[i, j]
    return out


def average_pool(x):
    """2 x 2 with stride 2, on even sizes."""
    return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4


def max_pool(x):
    """3 x 3 with stride 2, on even sizes: the "SAME" of TensorFlow pads the bottom and the right only.

    Not with zeros: without a ReLU before, those could be the maximum.
    """
    _, height, width, _ = x.shape
    x = np.pad(x, [(0, 0), (0, 1), (0, 1), (0, 0)], constant_values=-np.inf)
    return np.max([x[:, i : i + height : 2, j : j + width : 2] for i in range(3) for j in range(3)], axis=0)


def shuffle(x):
    """Channels of the first half come to even places, those of the second half to odd ones."""
    out = np.empty_like(x)
    out[..., 0::2], out[..., 1::2] = halves(x)
    return out


def halves(x):
    half = x.shape[-1] // 2
    return x[..., :half], x[..., half:]


def sign(x):
    return np.where(x >= 0, 1.0, -1.0)


def tile(x, times):
    return np.concatenate([x] * times, axis=-1)


def weights(model, layer):
    return {w.name.split("/")[-1].removesuffix(":0"): w.numpy() for w in model.get_layer(layer).weights}


def batch_norm(model, layer, x):
    w = weights(model, layer)
    return (x - w["moving_mean"]) / np.sqrt(w["moving_variance"] + 1e-5) * w["gamma"] + w["beta"]


def rsign(model, layer, x):
    return sign(x + weights(model, layer)["bias"])


def rprelu(model, layer, x):
    shift_in, slope, shift_out = model.get_layer(layer).get_weights()
    u = x + shift_in
    return np.where(u > 0, u, slope.reshape(-1) * u) + shift_out


def hard_tanh(x):
    return np.clip(x, -1, 1)


def assert_close(actual, expected):
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= 1e-9 * np.abs(expected).max()


def _tapped(model, layers, image):
    """What goes in and what comes out of some layers."""
    ends = {layer: (model.get_layer(layer).input, model.get_layer(layer).output) for layer in layers}
    values = tf.keras.Model(model.input, ends)(image, training=False)
    # A layer that adds has a list of inputs.
    values = tf.nest.map_structure(lambda value: value.numpy(), values)
    return ({layer: values[layer][i] for layer in layers} for i in (0, 1))


class Float64:
    """A network in float64 with random parameters, an image, and what goes in and out of some layers."""

    def __init__(self, constructor, layers, image_shape, **kwargs):
        tf.keras.backend.set_floatx("float64")
        try:
            self.model = constructor(input_shape=image_shape, **kwargs)
        finally:
            tf.keras.backend.set_floatx("float32")
        rng = np.random.default_rng(1)
        for w in self.model.weights:
            values = 0.5 * rng.standard_normal(w.shape)
            w.assign(np.abs(values) + 0.5 if "gamma" in w.name or "moving_variance" in w.name else values)
        self.image = rng.standard_normal((2, *image_shape))
        self.before, self.after = _tapped(self.model, layers, self.image)


class Calibrated:
    """Like `Float64`, but with statistics near those of the inputs of the batch normalisations.

    A hard tanh lets most values through then, and those show what is done before it.
    """

    def __init__(self, constructor, layers, image, **kwargs):
        tf.keras.backend.set_floatx("float64")
        try:
            self.model = model = constructor(input_shape=image.shape[1:], **kwargs)
        finally:
            tf.keras.backend.set_floatx("float32")
        self.image = image
        rng = np.random.default_rng(1)
        for w in model.weights:
            w.assign(random_values(rng, w.name.split("/")[-1], w.shape).astype(w.dtype.as_numpy_dtype))
        norms = [layer for layer in model.layers if isinstance(layer, tf.keras.layers.BatchNormalization)]
        for layer in norms:
            layer.momentum = 0.0
        model(image, training=True)
        for layer in norms:
            mean, variance = layer.moving_mean.numpy(), layer.moving_variance.numpy()
            layer.moving_mean.assign(mean + 0.3 * np.sqrt(variance) * rng.standard_normal(mean.shape))
            layer.moving_variance.assign(0.01 + variance * rng.uniform(0.5, 1.5, mean.shape))
        self.before, self.after = _tapped(model, layers, image)


def random_values(rng, name, shape):
    values = rng.standard_normal(shape)
    if "kernel" in name:
        # Filters with unequal means; every third has tails that make mean|z| a third of a normal filter's or less.
        values = np.sign(values) * np.abs(values) ** (1 + 2 * (np.arange(shape[-1]) % 3)) / np.sqrt(np.prod(shape[:-1]))
        return values + 0.5 * values.std() * rng.standard_normal(shape[-1])
    if "gamma" in name:
        return rng.uniform(0.3, 0.8, shape)
    if "rotate" in name:
        return 3 * values
    if "R1" in name or "R2" in name:
        return values / np.sqrt(shape[0])
    return 0.5 * values
