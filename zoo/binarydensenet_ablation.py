"""BinaryDenseNet's ablation: four equal stages, and older transitions with an average pooling at the end.

The paper's Tables 4 and 5 compare these networks; one of them is also its network for CIFAR-10.
"""

from functools import partial

import tensorflow as tf

from larq_rep.datasets import CIFAR10_STATISTICS
from larq_rep.zoo import bmxnet
from larq_rep.zoo.binarydensenet import RECORD, reduced, stage
from larq_rep.zoo.build import Common, Shape, Weights, build
from larq_rep.zoo.common import batch_norm
from larq_rep.zoo.records import Result, Variant, choose, register

# Reductions of the ablation networks, which leave slightly fewer channels in binary transitions and half in real ones.
_LOW = (1, 1.4, 1.4)
_HIGH = (2, 2, 2)


def _old_transition(x, filters, name, conv):
    """The transition of the ablation networks: a convolution (real if `conv` is `None`), then the pooling."""
    x = batch_norm(x, f"{name}_bn")
    if conv is None:
        x = bmxnet.relu(x, f"{name}_relu")
        x = bmxnet.real_conv(x, filters, 1, f"{name}_conv")
    else:
        x = conv(x, filters, 1, f"{name}_conv")
    return tf.keras.layers.AveragePooling2D(2, name=f"{name}_pool")(x)


def _ablation(name, image, num_classes, layers, growth, downsampling, padding, dataset="imagenet"):
    """The networks of Tables 4 and 5 and of CIFAR-10: four equal stages, and an older order in the transitions."""
    choose(name, "downsampling", downsampling, ("real", "binary"))
    choose(name, "dataset", dataset, ("imagenet", "cifar10"))
    conv = bmxnet.binary_conv(name, padding, clip_value=1.0)
    x = bmxnet.stem(image) if dataset == "imagenet" else bmxnet.real_conv(image, growth, 3, "stem_conv")
    for number in range(1, 5):
        if number > 1:
            reduction = (_HIGH if downsampling == "real" else _LOW)[number - 2]
            filters = reduced(x.shape[-1], reduction)
            x = _old_transition(x, filters, f"transition{number - 1}", conv if downsampling == "binary" else None)
        x = stage(x, number, layers, growth, conv)
    return bmxnet.head(x, num_classes)


@register(
    **RECORD, multiple=32, variants=(Variant(results=(Result(50.2, 73.7, "BinaryDenseNet, Table 5, 8 blocks"),)),)
)
def BinaryDenseNet13(
    *,
    padding: str = "zero",
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """The "8 blocks, 256" of an ablation: four stages of one layer with growth rate 256, binary transitions.

    4367400 trainable parameters, 3613696 of them binary, 3.3 MiB. Structure as `BinaryDenseNet21` with
    `downsampling="binary"`.

    # Arguments
        padding: As in `BinaryDenseNet28`.
        input_shape, input_tensor, weights, include_top, num_classes: As in `BinaryDenseNet28`.
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build(
        "BinaryDenseNet13",
        partial(_ablation, "BinaryDenseNet13", layers=1, growth=256, downsampling="binary"),
        common,
        padding=padding,
    )


@register(
    **RECORD,
    multiple=32,
    cifar_multiple=8,
    variants=(
        Variant(results=(Result(55.9, 78.5, "BinaryDenseNet, Table 4, 16 blocks"),)),
        Variant(
            {"downsampling": "binary"},
            results=(
                Result(52.7, 75.7, "BinaryDenseNet, Table 4, 16 blocks"),
                Result(52.7, 75.7, "BinaryDenseNet, Table 5, 16 blocks"),
            ),
        ),
        Variant(
            {"dataset": "cifar10"},
            preprocessing=CIFAR10_STATISTICS,
            results=(Result(90.3, None, "BinaryDenseNet, section 4.3"),),
        ),
        Variant(
            {"dataset": "cifar10", "downsampling": "binary"},
            preprocessing=CIFAR10_STATISTICS,
            results=(Result(87.6, None, "BinaryDenseNet, section 4.3"),),
        ),
    ),
)
def BinaryDenseNet21(
    *,
    dataset: str = "imagenet",
    downsampling: str = "real",
    padding: str = "zero",
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """BinaryDenseNet21, also the "16 blocks, 128" of an ablation: four stages of two layers, growth rate 128.

    2793256 trainable parameters, 2064384 of them binary; 4960808 and 4203520 with binary transitions. For
    CIFAR-10 2746442 and 2433024, or 4798986 and 4775936.

    The paper counts two blocks for a layer; the layers are those of the networks that were trained. Unlike the
    transitions of BinaryDenseNet28, theirs have an average pooling behind the convolution. t_clip is 1.0.

    # Arguments
        dataset: `"imagenet"` or `"cifar10"`, whose stem is one 3x3 convolution to 128 channels.
        downsampling: `"real"` convolutions in the transitions, which halve the channels, or `"binary"` ones,
            with reductions of 1, 1.4 and 1.4.
        padding: As in `BinaryDenseNet28`.
        input_shape, input_tensor, weights, include_top, num_classes: As in `BinaryDenseNet28`.
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build(
        "BinaryDenseNet21",
        partial(_ablation, "BinaryDenseNet21", layers=2, growth=128),
        common,
        dataset=dataset,
        downsampling=downsampling,
        padding=padding,
    )


@register(
    **RECORD,
    multiple=32,
    variants=(
        Variant(results=(Result(57.1, 80.0, "BinaryDenseNet, Table 4, 32 blocks"),)),
        Variant(
            {"downsampling": "binary"},
            results=(
                Result(54.3, 77.3, "BinaryDenseNet, Table 4, 32 blocks"),
                Result(55.5, 78.1, "BinaryDenseNet, Table 5, 32 blocks"),
            ),
        ),
    ),
)
def BinaryDenseNet37Ablation(
    *,
    downsampling: str = "real",
    padding: str = "zero",
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """The "32 blocks, 64" of an ablation: four stages of four layers, growth rate 64.

    3092776 trainable parameters, 2359296 of them binary; 5262888 and 4498432 with binary transitions.
    Structure as `BinaryDenseNet21`.

    # Arguments
        downsampling: As in `BinaryDenseNet21`.
        padding: As in `BinaryDenseNet28`.
        input_shape, input_tensor, weights, include_top, num_classes: As in `BinaryDenseNet28`.
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build(
        "BinaryDenseNet37Ablation",
        partial(_ablation, "BinaryDenseNet37Ablation", layers=4, growth=64),
        common,
        downsampling=downsampling,
        padding=padding,
    )
