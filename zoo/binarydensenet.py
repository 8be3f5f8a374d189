r"""BinaryDenseNet: a DenseNet whose layers are binary 3x3 convolutions without bottleneck.

A layer puts \\(g\\) (growth rate) new channels behind the ones it gets, and a transition between two stages,
with a real 1x1 convolution \\(V\\), halves height and width and reduces the channels:

\\[x \leftarrow [x,\; W * \text{sign}(\text{BN}(x))] \qquad
x \leftarrow V * \text{ReLU}(\text{maxpool}(\text{BN}(x)))\\]
"""

from typing import Any

import tensorflow as tf

from larq_rep.zoo import bmxnet
from larq_rep.zoo.common import batch_norm
from larq_rep.zoo.papers import BINARYDENSENET
from larq_rep.zoo.registry import CIFAR10_STATISTICS, Result, Variant, choose, register_network, register_rep

_RECORD: dict[str, Any] = {
    "family": "binarydensenet",
    "paper": BINARYDENSENET,
    "dataset": "imagenet",
    "source": "code",
    "spec": "binarydensenet-and-survey.md, A2",
    "preprocessing": bmxnet.IMAGENET,
}
# Reductions of the ablation networks, with few channels less for binary transitions and half for real ones.
_LOW = (1, 1.4, 1.4)
_HIGH = (2, 2, 2)


def _reduced(channels: int, reduction: float) -> int:
    # `round` takes halves to the even number, as in the authors' code: 208 becomes 192, not 224.
    return 32 * round(int(channels / reduction) / 32)


def _old_transition(x, filters, name, conv):
    """The transition of the ablation networks, behind whose convolution (real if `conv` is `None`) the pool is."""
    x = batch_norm(x, f"{name}_bn")
    if conv is None:
        x = bmxnet.relu(x, f"{name}_relu")
        x = bmxnet.real_conv(x, filters, 1, f"{name}_conv")
    else:
        x = conv(x, filters, 1, f"{name}_conv")
    return tf.keras.layers.AveragePooling2D(2, name=f"{name}_pool")(x)


def _stage(x, number, layers, growth, conv, dilation_rate=1):
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
            filters = _reduced(x.shape[-1], reductions[number - 2])
            x = bmxnet.transition(x, filters, f"transition{number - 1}", pool=dilation_rate == 1)
        x = _stage(x, number, count, 64, conv, dilation_rate)
    return bmxnet.head(x, num_classes)


def _ablation(name, image, num_classes, layers, growth, downsampling, padding, dataset="imagenet"):
    """The networks of Tables 4 and 5 and of CIFAR-10: four equal stages, and an older order in the transitions."""
    choose(name, "downsampling", downsampling, ("real", "binary"))
    choose(name, "dataset", dataset, ("imagenet", "cifar10"))
    conv = bmxnet.binary_conv(name, padding, clip_value=1.0)
    x = bmxnet.stem(image) if dataset == "imagenet" else bmxnet.real_conv(image, growth, 3, "stem_conv")
    for number in range(1, 5):
        if number > 1:
            reduction = (_HIGH if downsampling == "real" else _LOW)[number - 2]
            filters = _reduced(x.shape[-1], reduction)
            x = _old_transition(x, filters, f"transition{number - 1}", conv if downsampling == "binary" else None)
        x = _stage(x, number, layers, growth, conv)
    return bmxnet.head(x, num_classes)


@register_network(
    **_RECORD,
    multiple=32,
    variants=(Variant(results=(Result(60.7, 82.4, "BinaryDenseNet, Table 6"),)), Variant({"padding": "bmxnet"})),
)
def BinaryDenseNet28(image, num_classes, *, padding="zero"):
    """BinaryDenseNet28: stages of 6, 6, 6 and 5 layers with growth rate 64.

    5131496 trainable parameters, 4202496 of them binary, 4.0 MiB; at 224 x 224: 3587383296 BOPs and 201.9 M
    FLOPs in convolutions.

    Initial values and quantizers are those of the authors' code, t_clip is 1.3: the gradient of the sign of an
    activation is 1 up to this magnitude, that of a weight is 1 everywhere. Our choices, here and in the other
    networks of the authors: TensorFlow's alignment of `"same"` padding in strided convolutions and poolings
    (MXNet pads the other side), and by default zeros as padding.

    # Arguments
        padding: `"zero"` (default) pads binary convolutions with 0 and returns their sums, as is usual with
            Larq and best for Larq Compute Engine. `"bmxnet"` pads with -1 and returns how many products are
            +1, as the authors' MXNet layers do.
    """
    return _final("BinaryDenseNet28", image, num_classes, (6, 6, 6, 5), (2.7, 2.7, 2.2), padding)


@register_network(**_RECORD, multiple=32, variants=(Variant(results=(Result(62.5, 83.9, "BinaryDenseNet, Table 6"),)),))
def BinaryDenseNet37(image, num_classes, *, padding="zero"):
    """BinaryDenseNet37: stages of 6, 8, 12 and 6 layers with growth rate 64.

    8702248 trainable parameters, 7593984 of them binary, 5.1 MiB; at 224 x 224: 4507 M BOPs and 199.1 M FLOPs
    in convolutions. Otherwise as `BinaryDenseNet28`.

    # Arguments
        padding: As in `BinaryDenseNet28`.
    """
    return _final("BinaryDenseNet37", image, num_classes, (6, 8, 12, 6), (3.3, 3.3, 4), padding)


@register_network(**_RECORD, multiple=8, variants=(Variant(results=(Result(63.7, 84.7, "BinaryDenseNet, Table 6"),)),))
def BinaryDenseNet37Dilated(image, num_classes, *, padding="zero"):
    """BinaryDenseNet37 with dilated convolutions (2 and 4) instead of pooling before the last two stages.

    Parameters as `BinaryDenseNet37`; at 224 x 224: 7774 M BOPs and 452.0 M FLOPs in convolutions. Larq Compute
    Engine needs images of at least 72 x 72 with `padding="zero"`.

    # Arguments
        padding: As in `BinaryDenseNet28`.
    """
    return _final("BinaryDenseNet37Dilated", image, num_classes, (6, 8, 12, 6), (3.3, 3.3, 4), padding, (1, 1, 2, 4))


@register_network(**_RECORD, multiple=32, variants=(Variant(results=(Result(63.7, 84.8, "BinaryDenseNet, Table 6"),)),))
def BinaryDenseNet45(image, num_classes, *, padding="zero"):
    """BinaryDenseNet45: stages of 6, 12, 14 and 8 layers with growth rate 64.

    13889512 trainable parameters, 12349440 of them binary, 7.3 MiB; at 224 x 224: 6431 M BOPs and 243.3 M
    FLOPs in convolutions. Otherwise as `BinaryDenseNet28`.

    # Arguments
        padding: As in `BinaryDenseNet28`.
    """
    return _final("BinaryDenseNet45", image, num_classes, (6, 12, 14, 8), (2.7, 3.3, 4), padding)


@register_network(
    **_RECORD, multiple=32, variants=(Variant(results=(Result(50.2, 73.7, "BinaryDenseNet, Table 5, 8 blocks"),)),)
)
def BinaryDenseNet13(image, num_classes, *, padding="zero"):
    """The "8 blocks, 256" of an ablation: four stages of one layer with growth rate 256, binary transitions.

    4367400 trainable parameters, 3613696 of them binary, 3.3 MiB. Structure as `BinaryDenseNet21` with
    `downsampling="binary"`.

    # Arguments
        padding: As in `BinaryDenseNet28`.
    """
    return _ablation("BinaryDenseNet13", image, num_classes, 1, 256, "binary", padding)


@register_network(
    **_RECORD,
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
def BinaryDenseNet21(image, num_classes, *, dataset="imagenet", downsampling="real", padding="zero"):
    """BinaryDenseNet21, also the "16 blocks, 128" of an ablation: four stages of two layers, growth rate 128.

    2793256 trainable parameters, 2064384 of them binary; 4960808 and 4203520 with binary transitions. For
    CIFAR-10 2746442 and 2433024, or 4798986 and 4775936.

    The paper counts two blocks for a layer; the layers are those of the networks that were trained. Their
    transitions, other than those of BinaryDenseNet28, have an average pooling behind the convolution. t_clip
    is 1.0.

    # Arguments
        dataset: `"imagenet"` or `"cifar10"`, whose stem is one 3x3 convolution to 128 channels.
        downsampling: `"real"` convolutions in the transitions, which halve the channels, or `"binary"` ones,
            with reductions of 1, 1.4 and 1.4.
        padding: As in `BinaryDenseNet28`.
    """
    return _ablation("BinaryDenseNet21", image, num_classes, 2, 128, downsampling, padding, dataset)


@register_network(
    **_RECORD,
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
def BinaryDenseNet37Ablation(image, num_classes, *, downsampling="real", padding="zero"):
    """The "32 blocks, 64" of an ablation: four stages of four layers, growth rate 64.

    3092776 trainable parameters, 2359296 of them binary; 5262888 and 4498432 with binary transitions.
    Structure as `BinaryDenseNet21`.

    # Arguments
        downsampling: As in `BinaryDenseNet21`.
        padding: As in `BinaryDenseNet28`.
    """
    return _ablation("BinaryDenseNet37Ablation", image, num_classes, 4, 64, downsampling, padding)


RepBinaryDenseNet28 = register_rep(BinaryDenseNet28, doc="Not in the paper: RepTran applied by us.")
