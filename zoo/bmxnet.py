"""Building blocks of the BMXNet authors' networks: BinaryDenseNet, ResNetE and MeliusNet."""

from collections.abc import Callable
from functools import partial

import larq as lq
import tensorflow as tf

from larq_rep.datasets import BMXNET_STATISTICS as IMAGENET  # noqa: F401  (for the families)
from larq_rep.layers import PopCount, XNORScale
from larq_rep.zoo.common import batch_norm, he_normal, logits_dtype
from larq_rep.zoo.records import choose

# A binary convolution: (x, filters, kernel_size, name, strides=1, dilation_rate=1) -> y
BinaryConv = Callable[..., tf.Tensor]


def binary_conv(network: str, padding: str, clip_value: float, scaling: bool = False) -> BinaryConv:
    """The binary convolution of a network.

    # Arguments
        network: Its name, for error messages.
        padding: `"zero"` or `"bmxnet"`, which pads with -1 and returns popcounts.
        clip_value: Magnitude of the activation up to which the gradient passes its sign.
        scaling: Whether the output is multiplied by XNOR-Net's scales, K and alpha, and is not a popcount.
    """
    choose(network, "padding", padding, ("zero", "bmxnet"))
    return partial(_binary_conv, minus_one=padding == "bmxnet", clip_value=clip_value, scaling=scaling)


def _binary_conv(x, filters, kernel_size, name, *, strides=1, dilation_rate=1, minus_one, clip_value, scaling):
    source = x
    if minus_one and kernel_size > 1:
        # Padded before the sign: larq_compute_engine does not pack a sign that is padded with -1.
        amounts = [_same_padding(size, kernel_size, strides, dilation_rate) for size in x.shape[1:3]]
        x = tf.pad(x, [[0, 0], *amounts, [0, 0]], constant_values=-1.0)
    sign = lq.quantizers.MagnitudeAwareSign if scaling else lq.quantizers.SteSign
    y = lq.layers.QuantConv2D(
        filters,
        kernel_size,
        strides=strides,
        dilation_rate=dilation_rate,
        padding="valid" if minus_one or kernel_size == 1 else "same",
        input_quantizer=lq.quantizers.SteSign(clip_value=clip_value),
        kernel_quantizer=sign(clip_value=None),
        kernel_initializer=he_normal(),
        use_bias=False,
        name=name,
    )(x)
    if scaling:
        scale = XNORScale(kernel_size, strides=strides, name=f"{name}_scale")(source)
        return tf.keras.layers.Multiply(name=f"{name}_scaled")([y, scale])
    return PopCount(kernel_size, name=f"{name}_popcount")([y, source]) if minus_one else y


def _same_padding(size: int, kernel_size: int, strides: int, dilation_rate: int) -> list[int]:
    """The amounts that TensorFlow's `"same"` pads in front and behind."""
    total = max((-(-size // strides) - 1) * strides + (kernel_size - 1) * dilation_rate + 1 - size, 0)
    return [total // 2, total - total // 2]


def real_conv(
    x: tf.Tensor, filters: int, kernel_size: int, name: str, *, strides: int = 1, groups: int = 1
) -> tf.Tensor:
    """A real convolution without bias."""
    return tf.keras.layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding="same",
        groups=groups,
        use_bias=False,
        kernel_initializer=he_normal(),
        name=name,
    )(x)


def relu(x: tf.Tensor, name: str) -> tf.Tensor:
    return tf.keras.layers.ReLU(name=name)(x)


def stem(x: tf.Tensor) -> tf.Tensor:
    """The stem of ResNet for ImageNet: a quarter of the height and width."""
    x = real_conv(x, 64, 7, "stem_conv", strides=2)
    x = batch_norm(x, "stem_bn")
    x = relu(x, "stem_relu")
    return tf.keras.layers.MaxPool2D(3, strides=2, padding="same", name="stem_pool")(x)


def normalized_conv(x: tf.Tensor, filters: int, name: str, conv: BinaryConv, *, dilation_rate: int = 1) -> tf.Tensor:
    """A binary 3x3 convolution behind a batch normalisation."""
    x = batch_norm(x, f"{name}_bn")
    return conv(x, filters, 3, f"{name}_conv", dilation_rate=dilation_rate)


def transition(x: tf.Tensor, filters: int, name: str, *, pool: bool = True) -> tf.Tensor:
    """The real convolution to `filters` channels between two stages, behind a max-pooling."""
    x = batch_norm(x, f"{name}_bn")
    if pool:
        x = tf.keras.layers.MaxPool2D(2, name=f"{name}_pool")(x)
    x = relu(x, f"{name}_relu")
    return real_conv(x, filters, 1, f"{name}_conv")


def head(x: tf.Tensor, num_classes: int | None, *, norm: bool = True) -> tf.Tensor:
    """ReLU and classifier, behind a batch normalisation if `norm`."""
    if norm:
        x = batch_norm(x, "final_bn")
    x = relu(x, "final_relu")
    if num_classes is None:
        return x
    x = tf.keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return tf.keras.layers.Dense(num_classes, kernel_initializer=he_normal(), dtype=logits_dtype(), name="output")(x)
