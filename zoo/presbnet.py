r"""PresB-Net: shuffled grouped binary convolutions with learnable activations and two normalisations.

A unit \\(U\\) makes half of the channels. With binary convolutions \\(*\\) on the two groups (halves) of the
channels and PReLUs behind a bias, it computes

\\[U(x) = \text{BN}(\text{PReLU}(\text{LN}(\text{PReLU}([W_1 * \text{RSign}(x_1), W_2 * \text{RSign}(x_2)]))))\\]

where LN normalises each group of each image. A block shuffles the channels before each unit and adds the unit to their
first half; the other half stays. The block has its own shortcut around it:

\\[y = \text{shuffle}(\text{RPReLU}(\text{shuffle}(x) + [U_1(\text{shuffle}(x)), 0]))\\]
\\[z = \text{BN}(\text{RPReLU}(y + [U_2(y), 0]) + S(x))\\]

Where the number of channels doubles, the first line has the pooled \\(\text{shuffle}(x)\\) twice instead.
"""

from functools import partial
from typing import Any

import larq as lq
import tensorflow as tf

from larq_rep.datasets import CIFAR100_STATISTICS, IMAGENET_STATISTICS
from larq_rep.layers import BiasedPReLU, ChannelShuffle, GroupNormShuffle, RPReLU
from larq_rep.quantizers import LeakyRSign, ScaledSign
from larq_rep.zoo.build import Common, Shape, Weights, build
from larq_rep.zoo.common import batch_norm, classifier, real_conv, uniform_fan_in
from larq_rep.zoo.papers import PRESB
from larq_rep.zoo.records import Published, Result, Variant, choose, register

_LEFT_FLOAT = {
    r"layer\d_0_res_layer_1": "The input of the shortcut's convolution is real: only its weights are binary."
}

_RECORD: dict[str, Any] = {
    "family": "presbnet",
    "paper": PRESB,
    "dataset": "cifar100",
    "source": "code",
    "multiple": 32,
    "cifar_multiple": 8,
    "preprocessing": CIFAR100_STATISTICS,
    "left_float": _LEFT_FLOAT,
    "first_phase": "real weights",
}
_WEIGHTS = Published("https://github.com/SHINJUNGWOO/PresB-Net")
# Blocks of each stage.
_BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}

_ACTIVATIONS: dict[str, Any] = {
    "biased_prelu": BiasedPReLU,
    "rprelu": RPReLU,
    "prelu": lambda name: tf.keras.layers.PReLU(
        alpha_initializer=tf.keras.initializers.Constant(0.25), shared_axes=[1, 2], name=name
    ),
    "relu": lambda name: tf.keras.layers.ReLU(name=name),
}


def _binary_conv(x, filters, kernel_size, name, strides=1, input_quantizer=None):
    return lq.layers.QuantConv2D(
        filters,
        kernel_size,
        strides=strides,
        padding="same",
        input_quantizer=input_quantizer,
        kernel_quantizer=ScaledSign(),
        kernel_initializer=uniform_fan_in(),
        use_bias=False,
        name=name,
    )(x)


def _unit(x, filters, strides, name, group_name, number, activations, norms):
    """Binary convolutions of the two halves of `x`; `filters` channels in all."""
    # Signs behind the split, because Larq Compute Engine does not pack a convolution of a part of a sign.
    groups = [
        _binary_conv(half, filters // 2, 3, f"{name}_{group_name}_conv_list_{group}", strides, LeakyRSign())
        for group, half in enumerate(tf.split(x, 2, axis=-1))
    ]
    # What follows is per channel or, in the normalisation, per group: the same as on each half.
    y = tf.keras.layers.Concatenate(name=f"{name}_{group_name}_concat")(groups)
    y = _ACTIVATIONS[activations[0]](name=f"{name}_{group_name}_active")(y)
    if norms[0]:
        y = GroupNormShuffle(2, shuffle=False, name=f"{name}_{group_name}_bn")(y)
    y = _ACTIVATIONS[activations[1]](name=f"{name}_prelu{number}")(y)
    return batch_norm(y, f"{name}_bn{number}") if norms[1] else y


def _block(x, filters, name, activations, norms):
    half = filters // 2
    shortcut = x
    y = ChannelShuffle(name=f"{name}_shuffle1")(x)
    if filters == x.shape[-1]:
        a = _unit(y, half, 1, name, "Grouped3x3", 1, activations, norms)
        first, second = tf.split(y, 2, axis=-1)
    else:
        a = _unit(y, half, 2, name, "Grouped3x3", 1, activations, norms)
        first = second = tf.keras.layers.AveragePooling2D(2, name=f"{name}_pool")(y)
        shortcut = tf.keras.layers.AveragePooling2D(2, name=f"{name}_res_layer_0")(shortcut)
        shortcut = batch_norm(_binary_conv(shortcut, filters, 1, f"{name}_res_layer_1"), f"{name}_res_layer_2")
    first = tf.keras.layers.Add(name=f"{name}_add1")([a, first])
    y = tf.keras.layers.Concatenate(name=f"{name}_concat1")([first, second])
    y = RPReLU(name=f"{name}_rprelu2")(y)

    y = ChannelShuffle(name=f"{name}_shuffle2")(y)
    b = _unit(y, half, 1, name, "Grouped1x1", 3, activations, norms)
    first, second = tf.split(y, 2, axis=-1)
    first = tf.keras.layers.Add(name=f"{name}_add2")([b, first])
    y = tf.keras.layers.Concatenate(name=f"{name}_concat2")([first, second])
    y = RPReLU(name=f"{name}_rprelu4")(y)
    y = tf.keras.layers.Add(name=f"{name}_add3")([y, shortcut])
    return batch_norm(y, f"{name}_bn_bottom")


def _presbnet(image, num_classes, depth, dataset, width, act1, norm1, act2, norm2, stem_activation):
    name = f"PresBNet{depth}"
    activations = choose(name, "act1", act1, _ACTIVATIONS), choose(name, "act2", act2, _ACTIVATIONS)
    norms = choose(name, "norm1", norm1, ("layer", None)), choose(name, "norm2", norm2, ("batch", None))
    choose(name, "stem_activation", stem_activation, (None, "leaky_relu"))
    if not isinstance(width, int) or width < 4 or width % 4:
        raise ValueError(f"{name}: width must be a positive multiple of 4, found {width!r}.")

    kernel_size, strides = (7, 2) if dataset == "imagenet" else (3, 1)
    x = real_conv(image, width, kernel_size, "conv1", strides)
    if stem_activation:
        x = tf.keras.layers.LeakyReLU(0.01, name="leaky_relu")(x)
    x = batch_norm(x, "bn1")
    if dataset == "imagenet":
        x = tf.keras.layers.MaxPool2D(3, 2, padding="same", name="maxpool")(x)
    for stage, blocks in enumerate(_BLOCKS[depth], start=1):
        for block in range(blocks):
            x = _block(x, width * 2 ** (stage - 1), f"layer{stage}_{block}", activations, norms)
    return classifier(x, num_classes, "fc")


def _cifar(top1_10, best_10, top1_100, best_100, top5_100):
    """The published forms for CIFAR-100 and CIFAR-10."""
    return (
        Variant(
            results=(
                Result(top1_100, top5_100, "PresB-Net, Table 2"),
                Result(best_100, None, "PresB-Net, Table 2, best epoch"),
            ),
            weights=_WEIGHTS,
        ),
        Variant(
            {"dataset": "cifar10"},
            results=(
                Result(top1_10, None, "PresB-Net, Table 2"),
                Result(best_10, None, "PresB-Net, Table 2, best epoch"),
            ),
            weights=_WEIGHTS,
        ),
    )


def _ablation(top1, **arguments):
    return Variant(arguments, results=(Result(top1, None, "PresB-Net, Table 5"),), source="paper")


@register(
    **_RECORD,
    variants=(
        *_cifar(93.36, 93.57, 73.84, 73.87, 90.55),
        Variant(
            {"dataset": "imagenet"},
            results=(Result(63.03, 83.70, "PresB-Net, Table 2"),),
            preprocessing=IMAGENET_STATISTICS,
            source="inferred",
        ),
        _ablation(72.61, act1="prelu", act2="prelu"),
        _ablation(72.67, act2="prelu"),
        _ablation(72.03, norm1=None),
        _ablation(72.02, norm2=None),
        _ablation(73.10, act1="rprelu", act2="rprelu"),
        _ablation(71.36, act1="relu", act2="relu"),
    ),
)
def PresBNet18(
    *,
    dataset: str = "cifar100",
    width: int = 128,
    act1: str = "biased_prelu",
    norm1: str | None = "layer",
    act2: str = "biased_prelu",
    norm2: str | None = "batch",
    stem_activation: str | None = None,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """PresB-Net-18: two binary convolutions in groups, with learnable activations, in each of eight blocks.

    11851620 trainable parameters for CIFAR-100, 11673600 of them binary (688128 in the 1x1 convolutions of the
    shortcuts, whose input is real: they stay float in a flatbuffer); 547356672 BOPs, 28807168 FLOPs, 37359616
    OPs. 11759370 parameters for CIFAR-10, 12789480 for ImageNet.

    For CIFAR it is the network of the authors' code, whose biases and slopes are per channel (in the paper per
    group), with the initial values of its first training phase; the parameters that it never uses are left
    out. For ImageNet there is no code: stem and pooling are our inference, after AresB-Net's. The ablations
    are those of the paper's Table 5 with plain PReLUs where it says that the biases were left out. Our choices:
    TensorFlow's alignment of `"same"` padding where strides are 2 (mirrored images and kernels make it equal
    to PyTorch's) and sign(0) = +1 (there 0).

    # Arguments
        dataset: `"cifar100"`, `"cifar10"` or `"imagenet"`; the last one has a stem with 7x7 kernel, stride 2
            and max-pooling.
        width: Channels of the first stage, a multiple of 4. Each of the others has twice as many as the one
            before.
        act1, act2: Activation behind the convolutions of a unit, and before its batch normalisation:
            `"biased_prelu"`, `"prelu"`, `"rprelu"` or `"relu"`.
        norm1: `"layer"`, or `None` for no normalisation of the groups.
        norm2: `"batch"`, or `None` for no batch normalisation at the end of a unit.
        stem_activation: `"leaky_relu"` (slope 0.01) for one between first convolution and normalisation, as in
            an early version of the authors' code.
        input_shape: `(height, width, channels)`, by default that of `dataset`; height and width are multiples of 32 (8
            for CIFAR).
        input_tensor: A Keras tensor to begin with instead of an input of its own.
        weights: `None` for initial values, a file, or the name of published ones, `"cifar10"` or `"cifar100"`; see
            `larq_rep.zoo.load_weights`.
        include_top: Whether the classifier is included. Without it the network ends with its last feature map.
        num_classes: Number of logits, by default the classes of `dataset`.

    # References
        - [PresB-Net: parametric binarized neural network with learnable activations and shuffled grouped
          convolution](https://doi.org/10.7717/peerj-cs.842)
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build(
        "PresBNet18",
        partial(_presbnet, depth=18),
        common,
        dataset=dataset,
        width=width,
        act1=act1,
        norm1=norm1,
        act2=act2,
        norm2=norm2,
        stem_activation=stem_activation,
    )


@register(
    **_RECORD,
    variants=_cifar(91.76, 91.81, 67.03, 67.03, 85.83),
)
def PresBNet10(
    *,
    dataset: str = "cifar100",
    width: int = 128,
    act1: str = "biased_prelu",
    norm1: str | None = "layer",
    act2: str = "biased_prelu",
    norm2: str | None = "batch",
    stem_activation: str | None = None,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """PresB-Net-10: `PresBNet18` with four blocks.

    5550180 trainable parameters for CIFAR-100, 5406720 of them binary; 245366784 BOPs, 28807168 FLOPs,
    32641024 OPs.

    # Arguments
        dataset, width, act1, norm1, act2, norm2, stem_activation: As in `PresBNet18`.
        input_shape, input_tensor, weights, include_top, num_classes: As in `PresBNet18`.
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build(
        "PresBNet10",
        partial(_presbnet, depth=10),
        common,
        dataset=dataset,
        width=width,
        act1=act1,
        norm1=norm1,
        act2=act2,
        norm2=norm2,
        stem_activation=stem_activation,
    )


@register(
    **_RECORD,
    variants=_cifar(93.64, 93.87, 73.56, 73.93, 90.39),
)
def PresBNet34(
    *,
    dataset: str = "cifar100",
    width: int = 128,
    act1: str = "biased_prelu",
    norm1: str | None = "layer",
    act2: str = "biased_prelu",
    norm2: str | None = "batch",
    stem_activation: str | None = None,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """PresB-Net-34: `PresBNet18` with sixteen blocks.

    22019172 trainable parameters for CIFAR-100, 21774336 of them binary; 1151336448 BOPs, 28807168 FLOPs,
    46796800 OPs.

    # Arguments
        dataset, width, act1, norm1, act2, norm2, stem_activation: As in `PresBNet18`.
        input_shape, input_tensor, weights, include_top, num_classes: As in `PresBNet18`.
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build(
        "PresBNet34",
        partial(_presbnet, depth=34),
        common,
        dataset=dataset,
        width=width,
        act1=act1,
        norm1=norm1,
        act2=act2,
        norm2=norm2,
        stem_activation=stem_activation,
    )
