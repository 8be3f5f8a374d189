r"""MeliusNet: BinaryDenseNet whose new channels are improved by a second convolution.

A block is a layer of BinaryDenseNet, which appends 64 new channels, and an improvement layer,
which adds to these:

\\[x \leftarrow [x,\; W_1 * \text{sign}(\text{BN}_1(x))] \qquad
x_{-64:} \leftarrow x_{-64:} + W_2 * \text{sign}(\text{BN}_2(x))\\]
"""

from functools import partial
from typing import Any

import tensorflow as tf

from larq_rep.zoo import bmxnet
from larq_rep.zoo.build import Common, Shape, Weights, build
from larq_rep.zoo.common import batch_norm
from larq_rep.zoo.papers import MELIUSNET
from larq_rep.zoo.records import Result, Variant, register

_RECORD: dict[str, Any] = {
    "family": "meliusnet",
    "paper": MELIUSNET,
    "dataset": "imagenet",
    "source": "code",
    "preprocessing": bmxnet.IMAGENET,
    "multiple": 32,
}
_GROWTH = 64


def _grouped_stem(x):
    """Three small convolutions, two of them grouped, instead of one 7x7 convolution."""
    for number, (filters, strides, groups) in enumerate(((32, 2, 1), (32, 1, 4), (64, 1, 8)), start=1):
        x = bmxnet.real_conv(x, filters, 3, f"stem_conv{number}", strides=strides, groups=groups)
        x = batch_norm(x, f"stem_bn{number}")
        x = bmxnet.relu(x, f"stem_relu{number}")
    return tf.keras.layers.MaxPool2D(3, strides=2, padding="same", name="stem_pool")(x)


def _block(x, name, conv):
    """A dense layer and an improvement layer; the latter adds to the channels that are new."""
    new = bmxnet.normalized_conv(x, _GROWTH, f"{name}_dense", conv)
    y = tf.keras.layers.Concatenate(name=f"{name}_dense_concat")([x, new])
    y = bmxnet.normalized_conv(y, _GROWTH, f"{name}_improvement", conv)
    new = tf.keras.layers.Add(name=f"{name}_improvement_add")([new, y])
    return tf.keras.layers.Concatenate(name=f"{name}_improvement_concat")([x, new])


def _meliusnet(name, image, num_classes, blocks, transitions, padding):
    conv = bmxnet.binary_conv(name, padding, clip_value=1.3)
    x = _grouped_stem(image)
    for stage, count in enumerate(blocks, start=1):
        if stage > 1:
            x = bmxnet.transition(x, transitions[stage - 2], f"transition{stage - 1}")
        for block in range(1, count + 1):
            x = _block(x, f"stage{stage}_block{block}", conv)
    return bmxnet.head(x, num_classes)


@register(**_RECORD, variants=(Variant(), Variant({"padding": "bmxnet"})))
def MeliusNet22(
    *,
    padding: str = "zero",
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """MeliusNet22: stages of 4, 5, 4 and 4 blocks.

    6944584 trainable parameters, 3.9 MiB; 208.1 M OPs in convolutions at 224 x 224.

    Our choices: TensorFlow's alignment of `"same"` padding in strided convolutions and poolings (MXNet pads the
    other side), by default zeros as padding, and t_clip = 1.3, as in BinaryDenseNet: the gradient of the sign of an
    activation is 1 up to this magnitude; the gradient of the sign of a weight is 1 everywhere.

    # Arguments
        padding: `"zero"` (default) pads binary convolutions with 0 and returns their sums, as is usual with
            Larq and best for Larq Compute Engine. `"bmxnet"` pads with -1 and returns how many products are
            +1, as the authors' MXNet layers do.
        input_shape: `(height, width, channels)`, by default `(224, 224, 3)`; height and width are multiples of 32.
        input_tensor: A Keras tensor to begin with instead of an input of its own.
        weights: `None` for initial values, or a file; see `larq_rep.zoo.load_weights`.
        include_top: Whether the classifier is included. Without it the network ends with its last feature map.
        num_classes: Number of logits, by default 1000.

    # References
        - [MeliusNet: Can Binary Neural Networks Achieve MobileNet-level Accuracy?](https://arxiv.org/abs/2001.05936)
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build(
        "MeliusNet22",
        partial(_meliusnet, "MeliusNet22", blocks=(4, 5, 4, 4), transitions=(160, 224, 256)),
        common,
        padding=padding,
    )


@register(**_RECORD, variants=(Variant(results=(Result(65.8, None, "ReActNet, Table 1"),)),))
def MeliusNet29(
    *,
    padding: str = "zero",
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """MeliusNet29: stages of 4, 6, 8 and 6 blocks.

    11328328 trainable parameters, 5.1 MiB; 214.3 M OPs in convolutions at 224 x 224. Otherwise as
    `MeliusNet22`.

    # Arguments
        padding: As in `MeliusNet22`.
        input_shape, input_tensor, weights, include_top, num_classes: As in `MeliusNet22`.
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build(
        "MeliusNet29",
        partial(_meliusnet, "MeliusNet29", blocks=(4, 6, 8, 6), transitions=(128, 192, 256)),
        common,
        padding=padding,
    )


@register(**_RECORD, variants=(Variant(results=(Result(69.2, None, "ReActNet, Table 1"),)),))
def MeliusNet42(
    *,
    padding: str = "zero",
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """MeliusNet42: stages of 5, 8, 14 and 10 blocks.

    26825544 trainable parameters, 10.1 MiB; 325.5 M OPs in convolutions at 224 x 224. Otherwise as
    `MeliusNet22`.

    # Arguments
        padding: As in `MeliusNet22`.
        input_shape, input_tensor, weights, include_top, num_classes: As in `MeliusNet22`.
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build(
        "MeliusNet42",
        partial(_meliusnet, "MeliusNet42", blocks=(5, 8, 14, 10), transitions=(160, 256, 416)),
        common,
        padding=padding,
    )


@register(**_RECORD, variants=(Variant(results=(Result(70.7, None, "ReActNet, Table 1"),)),))
def MeliusNet59(
    *,
    padding: str = "zero",
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """MeliusNet59: stages of 6, 12, 24 and 12 blocks.

    55555336 trainable parameters, 17.4 MiB; 532.0 M OPs in convolutions at 224 x 224. Otherwise as
    `MeliusNet22`.

    # Arguments
        padding: As in `MeliusNet22`.
        input_shape, input_tensor, weights, include_top, num_classes: As in `MeliusNet22`.
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build(
        "MeliusNet59",
        partial(_meliusnet, "MeliusNet59", blocks=(6, 12, 24, 12), transitions=(192, 320, 544)),
        common,
        padding=padding,
    )
