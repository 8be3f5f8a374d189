r"""ResNetE: ResNet with binary convolutions and a shortcut around each.

A block of version 1, which normalises behind the convolution, computes

\\[y = \text{BN}(W * \text{sign}(x)) + S(x)\\]

and one of version 2, which normalises before,

\\[y = W * \text{sign}(\text{BN}(x)) + S\\]

\\(S\\) is \\(x\\). Where a stage halves height and width and doubles the channels, it is a 2x2 average pooling
and a 1x1 convolution, real or binary, of \\(x\\) with a batch normalisation in version 1, of \\(\text{BN}(x)\\) without
another one in version 2.
"""

from functools import partial
from typing import Any

import tensorflow as tf

from larq_rep.datasets import CIFAR10_STATISTICS
from larq_rep.zoo import bmxnet
from larq_rep.zoo.build import Common, Shape, Weights, build
from larq_rep.zoo.common import batch_norm
from larq_rep.zoo.papers import BINARYDENSENET
from larq_rep.zoo.records import Result, Variant, choose, register

_RECORD: dict[str, Any] = {
    "family": "resnet_e",
    "paper": BINARYDENSENET,
    "dataset": "imagenet",
    "source": "code",
    "preprocessing": bmxnet.IMAGENET,
    "multiple": 32,
    "cifar_multiple": 8,
}


def _block(x, filters, version, conv, downsampling, name):
    """One convolution with its shortcut; `downsampling` is the convolution of the shortcut."""
    strides = 1 if x.shape[-1] == filters else 2
    normalized = x if version == 1 else batch_norm(x, f"{name}_bn")
    y = conv(normalized, filters, 3, f"{name}_conv", strides=strides)
    if version == 1:
        y = batch_norm(y, f"{name}_bn")
    if strides == 2:
        x = tf.keras.layers.AveragePooling2D(2, name=f"{name}_down_pool")(normalized)
        x = downsampling(x, filters, 1, f"{name}_down_conv")
        if version == 1:
            x = batch_norm(x, f"{name}_down_bn")
    return tf.keras.layers.Add(name=f"{name}_add")([y, x])


def _resnet_e(name, image, num_classes, blocks, version, downsampling, scaling, dataset, clip_value, padding):
    choose(name, "version", version, (1, 2))
    choose(name, "downsampling", downsampling, ("real", "binary"))
    choose(name, "dataset", dataset, ("imagenet", "cifar10"))
    conv = bmxnet.binary_conv(name, padding, clip_value, scaling)
    x = batch_norm(image, "image_bn", scale=False, epsilon=2e-5)
    x = bmxnet.stem(x) if dataset == "imagenet" else bmxnet.real_conv(x, 64, 3, "stem_conv")
    if version == 1:
        x = batch_norm(x, "initial_bn")
    for stage, count in enumerate(blocks, start=1):
        for block in range(1, count + 1):
            x = _block(
                x,
                64 * 2 ** (stage - 1),
                version,
                conv,
                conv if downsampling == "binary" else bmxnet.real_conv,
                f"stage{stage}_block{block}",
            )
    return bmxnet.head(x, num_classes, norm=version == 2)


def _cifar(top1, top5, **arguments):
    return Variant(
        {"dataset": "cifar10", "version": 2, **arguments},
        preprocessing=CIFAR10_STATISTICS,
        results=(Result(top1, top5, "BinaryDenseNet, Table 2"),),
    )


@register(
    **_RECORD,
    variants=(
        Variant(results=(Result(56.7, 79.2, "BinaryDenseNet, Table 2"),)),
        Variant({"clip_value": 1.25}, results=(Result(58.1, 80.6, "BinaryDenseNet, Table 3"),)),
        Variant({"downsampling": "binary"}, results=(Result(54.5, 77.8, "BinaryDenseNet, Table 2"),)),
        Variant({"scaling": True}, results=(Result(55.6, 78.4, "BinaryDenseNet, Table 2"),)),
        Variant({"downsampling": "binary", "scaling": True}, results=(Result(52.7, 76.1, "BinaryDenseNet, Table 2"),)),
        _cifar(87.6, 99.5),
        _cifar(87.2, 99.4, downsampling="binary"),
        _cifar(84.7, 99.2, scaling=True),
        _cifar(83.6, 99.2, downsampling="binary", scaling=True),
        Variant({"padding": "bmxnet"}),
        Variant({"dataset": "cifar10", "version": 2, "padding": "bmxnet"}, preprocessing=CIFAR10_STATISTICS),
    ),
)
def ResNetE18(
    *,
    version: int = 1,
    downsampling: str = "real",
    scaling: bool = False,
    dataset: str = "imagenet",
    clip_value: float = 1.0,
    padding: str = "zero",
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """ResNetE18: four stages of four binary convolutions with a shortcut each.

    11689643 trainable parameters, 10985472 of them binary, 4.0 MiB; at 224 x 224: 1676 M BOPs and 137.3 M
    FLOPs in convolutions. (The authors count 3 more parameters, the scales of the normalisation of the image,
    which they keep at 1.)

    The published accuracies on ImageNet are those of version 1, those on CIFAR-10 of version 2. Initial values
    and quantizers are those of the authors' code; the gradient of the sign of a weight is 1 everywhere. Our
    choices: TensorFlow's alignment of `"same"` padding in strided convolutions and poolings (MXNet pads the
    other side), and by default zeros as padding.

    # Arguments
        version: 1 has batch normalisations behind the binary convolutions, 2 before them.
        downsampling: Whether the 1x1 convolutions in the shortcuts are `"real"` or `"binary"`.
        scaling: Whether binary convolutions have the scales of XNOR-Net: the mean magnitudes of each filter
            and of the input under each window.
        dataset: `"imagenet"` or `"cifar10"`, whose stem is one 3x3 convolution.
        clip_value: Magnitude of the activation up to which the gradient passes its sign, t_clip.
        padding: `"zero"` (default) pads binary convolutions with 0 and returns their sums. `"bmxnet"` pads
            with -1 and, without `scaling`, returns how many products are +1, as the authors' MXNet layers do.
            With version 2 this is in the sum of the shortcuts.
        input_shape: `(height, width, channels)`, by default that of `dataset`; height and width are multiples of 32 (8
            for CIFAR).
        input_tensor: A Keras tensor to begin with instead of an input of its own.
        weights: `None` for initial values, or a file; see `larq_rep.zoo.load_weights`.
        include_top: Whether the classifier is included. Without it the network ends with its last feature map.
        num_classes: Number of logits, by default the classes of `dataset`.

    # References
        - [BinaryDenseNet: Developing an Architecture for Binary Neural Networks](https://arxiv.org/abs/1906.08637)
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build(
        "ResNetE18",
        partial(_resnet_e, "ResNetE18", blocks=(4, 4, 4, 4)),
        common,
        version=version,
        downsampling=downsampling,
        scaling=scaling,
        dataset=dataset,
        clip_value=clip_value,
        padding=padding,
    )


@register(**_RECORD)
def ResNetE34(
    *,
    version: int = 1,
    downsampling: str = "real",
    scaling: bool = False,
    dataset: str = "imagenet",
    clip_value: float = 1.0,
    padding: str = "zero",
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """ResNetE34: four stages of 6, 8, 12 and 6 binary convolutions with a shortcut each.

    The authors have it in their code and print no accuracy.

    # Arguments
        version, downsampling, scaling, dataset, clip_value, padding: As in `ResNetE18`.
        input_shape, input_tensor, weights, include_top, num_classes: As in `ResNetE18`.
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build(
        "ResNetE34",
        partial(_resnet_e, "ResNetE34", blocks=(6, 8, 12, 6)),
        common,
        version=version,
        downsampling=downsampling,
        scaling=scaling,
        dataset=dataset,
        clip_value=clip_value,
        padding=padding,
    )
