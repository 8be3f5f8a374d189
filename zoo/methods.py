"""The binarization methods of VGG-small, ResNet-20 and ResNet-18, and the parts that these networks share.

The networks differ in the arguments that they pass here: quantizers, activation, initial values, shortcuts. Names of
layers are the authors' with `_` for `.`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import larq as lq
import tensorflow as tf

from larq_rep.quantizers import (
    CentredClip,
    EDESign,
    LibraSign,
    QuantSign,
    ReCUInputSign,
    ReCUSign,
    RotatedSign,
    ScaledBinary,
    StandardizedSign,
    XNORSign,
)
from larq_rep.zoo.common import batch_norm, dense, hard_tanh, he_normal


@dataclass(frozen=True)
class Method:
    """The parts of a method's convolutions and of the layers around them; without quantizers they are real."""

    input_quantizer: Callable[[], Any] | None = None
    kernel_quantizer: Callable[[], Any] | None = None
    kernel_constraint: Callable[[], Any] | None = None
    kernel_initializer: Callable[[], Any] = he_normal
    activation: Callable[[tf.Tensor], tf.Tensor] = hard_tanh
    # Initial gamma of the normalisations of feature maps.
    gamma: float = 1.0
    # Of the statistics of the normalisations.
    momentum: float = 0.9

    def conv_layer(self, filters: int, kernel_size: int, name: str, strides: int = 1) -> tf.keras.layers.Layer:
        """A convolution of the method, padded with 0 after the sign."""
        initializer = self.kernel_initializer()
        arguments = dict(strides=strides, padding="same", use_bias=False, kernel_initializer=initializer, name=name)
        if self.kernel_quantizer is None:
            return tf.keras.layers.Conv2D(filters, kernel_size, **arguments)
        return lq.layers.QuantConv2D(
            filters,
            kernel_size,
            # Each convolution has quantizers of its own, because some have weights.
            input_quantizer=self.input_quantizer and self.input_quantizer(),
            kernel_quantizer=self.kernel_quantizer(),
            kernel_constraint=self.kernel_constraint and self.kernel_constraint(),
            **arguments,
        )

    def conv(self, x: tf.Tensor, filters: int, kernel_size: int, name: str, strides: int = 1) -> tf.Tensor:
        return self.conv_layer(filters, kernel_size, name, strides)(x)

    def real_conv(self, x: tf.Tensor, filters: int, kernel_size: int, name: str, strides: int = 1) -> tf.Tensor:
        return replace(self, kernel_quantizer=None).conv(x, filters, kernel_size, name, strides)

    def norm(self, x: tf.Tensor, name: str, **kwargs) -> tf.Tensor:
        gamma = tf.keras.initializers.Constant(self.gamma)
        return batch_norm(x, name, **{"gamma_initializer": gamma, "momentum": self.momentum, **kwargs})


def relu(x: tf.Tensor) -> tf.Tensor:
    return tf.keras.layers.ReLU()(x)


METHODS = {
    "irnet": Method(EDESign, LibraSign),
    "rbnn": Method(StandardizedSign, RotatedSign),
    "recu": Method(ReCUInputSign, ReCUSign),
    "fracbnn": Method(partial(QuantSign, bits=1), partial(lq.quantizers.SteSign, clip_value=1.3)),
    # The gradients of both signs are the identity; the hard tanh before clips the gradient of the activations.
    "bnn": Method(partial(lq.quantizers.SteSign, clip_value=None), partial(lq.quantizers.SteSign, clip_value=None)),
    "xnor": Method(lq.quantizers.SteSign, XNORSign, CentredClip),
    "xnor_trained": Method(lq.quantizers.SteSign, partial(ScaledBinary, scale="trained")),
    "real": Method(activation=relu),
}

# Why convolutions with binary weights may stay float in a flatbuffer.
REAL_INPUT = "Their input is real: only their weights are binary."

# Replaces the identity where a stage of a ResNet begins: (x, filters, name of the block, method) -> the shortcut of
# half the size and `filters` channels.
Shortcut = Callable[[tf.Tensor, int, str, Method], tf.Tensor]


def _pad_channels(x: tf.Tensor, filters: int) -> tf.Tensor:
    side = (filters - x.shape[-1]) // 2
    return tf.pad(x, [[0, 0], [0, 0], [0, 0], [side, side]])


def skipped(x: tf.Tensor) -> tuple[int, int]:
    """Rows and columns before the first of every second pixel.

    A strided 3x3 convolution has its windows there: with TensorFlow's `"same"` padding the first one of an even
    size is centred on the second pixel. (In PyTorch it is the first of the other end.)
    """
    height, width = ((size + 1) % 2 for size in x.shape[1:3])
    return height, width


def _crop(x: tf.Tensor, name: str) -> tf.Tensor:
    return tf.keras.layers.Cropping2D([(rows, 0) for rows in skipped(x)], name=f"{name}_crop")(x)


def sampled_shortcut(x: tf.Tensor, filters: int, name: str, method: Method) -> tf.Tensor:
    """Every second pixel; the new channels are zeros, half of them in front, half behind (option A)."""
    # Pooling of single pixels picks [0::2, 0::2].
    x = tf.keras.layers.AveragePooling2D(1, strides=2, name=f"{name}_sample")(_crop(x, name))
    return _pad_channels(x, filters)


def pooled_shortcut(x: tf.Tensor, filters: int, name: str, method: Method) -> tf.Tensor:
    """The mean of 2x2 pixels; new channels as in `sampled_shortcut`."""
    return _pad_channels(tf.keras.layers.AveragePooling2D(2, name=f"{name}_pool")(x), filters)


def conv_shortcut(
    x: tf.Tensor, filters: int, name: str, method: Method, binary: bool = False, kind: str = "downsample"
) -> tf.Tensor:
    """A strided 1x1 convolution, real unless `binary`, and a normalisation."""
    conv = method.conv if binary else method.real_conv
    return method.norm(conv(_crop(x, name), filters, 1, f"{name}_{kind}_0", strides=2), f"{name}_{kind}_1")


def residual_block(
    x: tf.Tensor, filters: int, strides: int, name: str, *, method: Method, shortcut: Shortcut, bireal: bool
) -> tf.Tensor:
    """Two convolutions with one shortcut around both or, if `bireal`, one around each."""
    around = x if strides == 1 else shortcut(x, filters, name, method)
    y = method.norm(method.conv(x, filters, 3, f"{name}_conv1", strides), f"{name}_bn1")
    if bireal:
        y = tf.keras.layers.Add(name=f"{name}_add1")([y, around])
    y = method.activation(y)
    z = method.norm(method.conv(y, filters, 3, f"{name}_conv2"), f"{name}_bn2")
    z = tf.keras.layers.Add(name=f"{name}_add2")([z, y if bireal else around])
    return method.activation(z)


def stages(
    x: tf.Tensor,
    block: Callable[[tf.Tensor, int, int, str], tf.Tensor],
    widths: Sequence[int],
    blocks: int | Sequence[int],
) -> tf.Tensor:
    """Stages of `blocks` blocks, or each of its own number; all but the first begin with stride 2."""
    numbers = (blocks,) * len(widths) if isinstance(blocks, int) else blocks
    for stage, (filters, blocks) in enumerate(zip(widths, numbers, strict=True), start=1):
        for number in range(blocks):
            x = block(x, filters, 2 if stage > 1 and number == 0 else 1, f"layer{stage}_{number}")
    return x


def head(x: tf.Tensor, num_classes: int | None, name: str, *, norm: bool, kernel_initializer=None) -> tf.Tensor:
    """Global average pooling, batch normalisation if `norm`, and a dense layer; `x` if there are no classes."""
    if num_classes is None:
        return x
    x = tf.keras.layers.GlobalAveragePooling2D(name="pool")(x)
    if norm:
        x = batch_norm(x, "bn2")
    return dense(x, num_classes, name, kernel_initializer=kernel_initializer)
