"""The layers of BMXNet's binary networks as float64 numpy forwards on NHWC arrays, and a network to compare with them.

Unlike in `forward`, factors of batch normalisations also are negative, so that maxima before and after one differ.
"""

import math

import numpy as np
import tensorflow as tf
from forward import sign, tile, weights


def same_padded(x, extent, stride, value):
    """Pads H and W of NHWC as TensorFlow's "SAME" does: the odd one at the bottom and right."""
    pads = [(0, 0)]
    for size in x.shape[1:3]:
        total = max((math.ceil(size / stride) - 1) * stride + extent - size, 0)
        pads.append((total // 2, total - total // 2))
    return np.pad(x, [*pads, (0, 0)], constant_values=value)


def windows(x, size, stride=1, dilation=1, value=0.0):
    """For each position of a kernel the pixels that it meets."""
    height, width = (math.ceil(n / stride) for n in x.shape[1:3])
    x = same_padded(x, (size - 1) * dilation + 1, stride, value)
    for i in range(size):
        for j in range(size):
            top, left = i * dilation, j * dilation
            rows = slice(top, top + (height - 1) * stride + 1, stride)
            columns = slice(left, left + (width - 1) * stride + 1, stride)
            yield i, j, x[:, rows, columns]


def conv(x, kernel, stride=1, dilation=1, value=0.0):
    return sum(pixels @ kernel[i, j] for i, j, pixels in windows(x, kernel.shape[0], stride, dilation, value))


def grouped_conv(x, kernel, groups):
    """Group i takes the i-th part of the channels and makes the i-th part of the filters."""
    parts = zip(np.split(x, groups, axis=-1), np.split(kernel, groups, axis=-1), strict=True)
    return np.concatenate([conv(part, filters) for part, filters in parts], axis=-1)


def max_pool(x, size, stride):
    out = -np.inf
    for _, _, pixels in windows(x, size, stride, value=-np.inf):
        out = np.maximum(out, pixels)
    return out


def relu(x):
    return np.maximum(x, 0)


def batch_norm(net, layer, x, epsilon=1e-5):
    w = weights(net.model, layer)
    return (x - w["moving_mean"]) / np.sqrt(w["moving_variance"] + epsilon) * w.get("gamma", 1) + w["beta"]


def real_conv(net, layer, x, stride=1):
    """Stem (never repeated) or, in a Rep network, a convolution that is repeated beta^2 times."""
    return conv(x, weights(net.model, layer)["kernel"], stride)


def binary_conv(net, layer, x, stride=1, dilation=1):
    kernel = weights(net.model, layer)["kernel"]
    if not net.scaling:
        out = conv(sign(x), sign(kernel), stride, dilation, net.border)
        if net.border == -1:
            # The number of pairs that agree.
            out = (out + math.prod(kernel.shape[:3])) / 2
        return tile(out, net.beta**2)
    size = kernel.shape[0]
    magnitudes = np.abs(x).mean(axis=-1, keepdims=True)
    box = conv(magnitudes, np.full((size, size, 1, 1), 1 / size**2), stride)
    alpha = np.abs(kernel).mean(axis=(0, 1, 2))
    return box * alpha * conv(sign(x), sign(kernel), stride, dilation, net.border)


def dense(net, layer, x):
    w = weights(net.model, layer)
    return x @ w["kernel"] + w["bias"]


def imagenet_stem(net, x):
    x = relu(batch_norm(net, "stem_bn", real_conv(net, "stem_conv", x, 2)))
    return tile(max_pool(x, 3, 2), net.beta)


def dense_layer(net, name, x, dilation=1):
    y = binary_conv(net, f"{name}_conv", batch_norm(net, f"{name}_bn", x), dilation=dilation)
    return np.concatenate([x, y], axis=-1)


def transition(net, name, x, pooling=True):
    x = batch_norm(net, f"{name}_bn", x)
    if pooling:
        x = max_pool(x, 2, 2)
    return tile(real_conv(net, f"{name}_conv", relu(x)), net.beta**2)


def dense_head(net, x):
    features = relu(batch_norm(net, "final_bn", x)).mean(axis=(1, 2))
    return dense(net, "output", features)


class Network:
    """A network in float64 with random parameters, an image, and what some layers make of it.

    The statistics are near to those of the image, as else popcounts, which are all positive, had one sign only.
    """

    def __init__(
        self, constructor, layers, *, image_shape=(64, 32, 3), padding="zero", beta=1, scaling=False, **kwargs
    ):
        self.beta, self.scaling, self.border = beta, scaling, {"zero": 0, "bmxnet": -1}[padding]
        if scaling:
            kwargs["scaling"] = True
        tf.keras.backend.set_floatx("float64")
        try:
            self.model = constructor(input_shape=image_shape, padding=padding, **kwargs)
        finally:
            tf.keras.backend.set_floatx("float32")
        rng = np.random.default_rng(1)
        norms = [layer for layer in self.model.layers if isinstance(layer, tf.keras.layers.BatchNormalization)]
        for w in self.model.trainable_weights:
            values = 0.5 * rng.standard_normal(w.shape)
            w.assign(values + 0.5 * np.sign(values) if "gamma" in w.name else values)
        self.image = rng.standard_normal((2, *image_shape))
        for norm in norms:
            norm.momentum = 0.0
        self.model(self.image, training=True)
        for norm in norms:
            mean, variance = norm.moving_mean.numpy(), norm.moving_variance.numpy()
            norm.moving_mean.assign(mean + 0.3 * np.sqrt(variance) * rng.standard_normal(mean.shape))
            norm.moving_variance.assign((variance + 0.1) * rng.uniform(0.5, 2, mean.shape))
        outputs = {layer: self.model.get_layer(layer).output for layer in (*layers, "output")}
        values = tf.keras.Model(self.model.input, outputs)(self.image, training=False)
        self.after = {layer: value.numpy() for layer, value in values.items()}
