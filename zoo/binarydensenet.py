r"""BinaryDenseNet: a DenseNet whose layers are binary 3x3 convolutions without bottlenecks.

A layer appends \\(g\\) (growth rate) new channels to its input, and a transition between two stages,
with a real 1x1 convolution \\(V\\), halves height and width and reduces the channels:

\\[x \leftarrow [x,\; W * \text{sign}(\text{BN}(x))] \qquad
x \leftarrow V * \text{ReLU}(\text{maxpool}(\text{BN}(x)))\\]
"""

from functools import partial
from typing import Any

import tensorflow as tf
from typing_extensions import Unpack

from larq_rep.zoo import bmxnet
from larq_rep.zoo.build import Common, CommonArguments, Shape, Weights, build, build_rep
from larq_rep.zoo.papers import BINARYDENSENET
from larq_rep.zoo.records import Result, Variant, register, register_rep

RECORD: dict[str, Any] = {
    "family": "binarydensenet",
    "paper": BINARYDENSENET,
    "dataset": "imagenet",
    "source": "code",
    "preprocessing": bmxnet.IMAGENET,
}


def reduced(channels: int, reduction: float) -> int:
    # `round` rounds halves to the even number, as in the authors' code: 208 becomes 192, not 224.
    return 32 * round(int(channels / reduction) / 32)


def stage(x, number, layers, growth, conv, dilation_rate=1):
    for layer in range(1, layers + 1):
        name = f"stage{number}_layer{layer}"
        new = bmxnet.normalized_conv(x, growth, name, conv, dilation_rate=dilation_rate)
        x = tf.keras.layers.Concatenate(name=f"{name}_concat")([x, new])
    return x


def _final(name, image, num_classes, layers, reductions, padding, dilation_rates=(1, 1, 1, 1)):
    """The networks of Table 6."""
    conv = bmxnet.binary_conv(name, padding, clip_value=1.3)
    x = bmxnet.stem(image)
    for number, (count, dilation_rate) in enumerate(zip(layers, dilation_rates, strict=True), start=1):
        if number > 1:
            filters = reduced(x.shape[-1], reductions[number - 2])
            x = bmxnet.transition(x, filters, f"transition{number - 1}", pool=dilation_rate == 1)
        x = stage(x, number, count, 64, conv, dilation_rate)
    return bmxnet.head(x, num_classes)


@register(
    **RECORD,
    multiple=32,
    variants=(Variant(results=(Result(60.7, 82.4, "BinaryDenseNet, Table 6"),)), Variant({"padding": "bmxnet"})),
)
def BinaryDenseNet28(
    *,
    padding: str = "zero",
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """BinaryDenseNet28: stages of 6, 6, 6 and 5 layers with growth rate 64.

    5131496 trainable parameters, 4202496 of them binary, 4.0 MiB; at 224 x 224: 3587383296 BOPs and 201.9 M
    FLOPs in convolutions.

    Initial values and quantizers are those of the authors' code. t_clip is 1.3: the gradient of the sign of an
    activation is 1 up to this magnitude; the gradient of the sign of a weight is 1 everywhere. Our choices, here and in
    the other networks of the authors: TensorFlow's alignment of `"same"` padding in strided convolutions and poolings
    (MXNet pads the other side), and by default zeros as padding.

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
        - [BinaryDenseNet: Developing an Architecture for Binary Neural Networks](https://arxiv.org/abs/1906.08637)
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build(
        "BinaryDenseNet28",
        partial(_final, "BinaryDenseNet28", layers=(6, 6, 6, 5), reductions=(2.7, 2.7, 2.2)),
        common,
        padding=padding,
    )


@register(**RECORD, multiple=32, variants=(Variant(results=(Result(62.5, 83.9, "BinaryDenseNet, Table 6"),)),))
def BinaryDenseNet37(
    *,
    padding: str = "zero",
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """BinaryDenseNet37: stages of 6, 8, 12 and 6 layers with growth rate 64.

    8702248 trainable parameters, 7593984 of them binary, 5.1 MiB; at 224 x 224: 4507 M BOPs and 199.1 M FLOPs
    in convolutions. Otherwise as `BinaryDenseNet28`.

    # Arguments
        padding: As in `BinaryDenseNet28`.
        input_shape, input_tensor, weights, include_top, num_classes: As in `BinaryDenseNet28`.
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build(
        "BinaryDenseNet37",
        partial(_final, "BinaryDenseNet37", layers=(6, 8, 12, 6), reductions=(3.3, 3.3, 4)),
        common,
        padding=padding,
    )


@register(**RECORD, multiple=8, variants=(Variant(results=(Result(63.7, 84.7, "BinaryDenseNet, Table 6"),)),))
def BinaryDenseNet37Dilated(
    *,
    padding: str = "zero",
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """BinaryDenseNet37 with dilated convolutions (2 and 4) instead of pooling before the last two stages.

    Parameters as `BinaryDenseNet37`; at 224 x 224: 7774 M BOPs and 452.0 M FLOPs in convolutions. Larq Compute
    Engine needs images of at least 72 x 72 with `padding="zero"`.

    # Arguments
        padding: As in `BinaryDenseNet28`.
        input_shape, input_tensor, weights, include_top, num_classes: As in `BinaryDenseNet28`.
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build(
        "BinaryDenseNet37Dilated",
        partial(
            _final,
            "BinaryDenseNet37Dilated",
            layers=(6, 8, 12, 6),
            reductions=(3.3, 3.3, 4),
            dilation_rates=(1, 1, 2, 4),
        ),
        common,
        padding=padding,
    )


@register(**RECORD, multiple=32, variants=(Variant(results=(Result(63.7, 84.8, "BinaryDenseNet, Table 6"),)),))
def BinaryDenseNet45(
    *,
    padding: str = "zero",
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """BinaryDenseNet45: stages of 6, 12, 14 and 8 layers with growth rate 64.

    13889512 trainable parameters, 12349440 of them binary, 7.3 MiB; at 224 x 224: 6431 M BOPs and 243.3 M
    FLOPs in convolutions. Otherwise as `BinaryDenseNet28`.

    # Arguments
        padding: As in `BinaryDenseNet28`.
        input_shape, input_tensor, weights, include_top, num_classes: As in `BinaryDenseNet28`.
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build(
        "BinaryDenseNet45",
        partial(_final, "BinaryDenseNet45", layers=(6, 12, 14, 8), reductions=(2.7, 3.3, 4)),
        common,
        padding=padding,
    )


class BinaryDenseNet28Arguments(CommonArguments, total=False):
    padding: str


@register_rep(BinaryDenseNet28)
def RepBinaryDenseNet28(
    *,
    beta: int = 2,
    last_layer: int = 1,
    stem: str = "after_bn",
    bn: str = "after",
    **arguments: Unpack[BinaryDenseNet28Arguments],
) -> tf.keras.Model:
    """`BinaryDenseNet28` after RepTran: every binary convolution is a RepConv.

    All feature maps have beta times the channels; binary weights and BOPs are the same.
    Not in the paper: we applied RepTran.

    # Arguments
        beta, last_layer, stem, bn: As in `larq_rep.reptran`.
        **arguments: Arguments of `BinaryDenseNet28`.

    # References
        - [RepBNN: towards a precise Binary Neural Network with Enhanced Feature Map via
          Repeating](https://arxiv.org/abs/2207.09049)
    """
    return build_rep("RepBinaryDenseNet28", beta, last_layer, stem, bn, **arguments)
