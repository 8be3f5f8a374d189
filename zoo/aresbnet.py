r"""AresB-Net: shuffled grouped binary convolutions whose shortcuts are concatenations.

A block computes, with binary convolutions \\(*\\) of two groups each and the halves \\(x_1, x_2\\) of the
shuffled channels,

\\[y = \text{shuffle}(\text{BN}_2([\text{BN}_1(\text{LeakyReLU}(W_1 * \text{sign}(x))) + x_1, x_2]))\\]
\\[z = [\text{BN}_3(\text{LeakyReLU}(W_2 * \text{sign}(y))) + y_1, y_2]\\]

Where the number of channels doubles, the max-pooled \\(x\\) replaces both \\(x_1\\) and \\(x_2\\). Only
the first half of the last feature map is classified.
"""

from functools import partial
from typing import Any

import larq as lq
import tensorflow as tf

from larq_rep.datasets import CIFAR10_STATISTICS, CIFAR100_STATISTICS
from larq_rep.layers import ChannelShuffle
from larq_rep.quantizers import AresSign, LeakySign
from larq_rep.zoo.build import Common, Shape, Weights, build
from larq_rep.zoo.common import batch_norm, dense, real_conv, uniform_fan_in
from larq_rep.zoo.papers import ARESB, PRESB
from larq_rep.zoo.records import Published, Result, Variant, register

_RECORD: dict[str, Any] = {
    "family": "aresbnet",
    "paper": ARESB,
    "dataset": "cifar100",
    "source": "code",
    "multiple": 32,
    "cifar_multiple": 8,
}
_WEIGHTS = Published("https://github.com/analog75/AresB-Net")
# Blocks of each stage.
_BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


def _unit(x, filters, strides, slope, name, conv, norm):
    """Binary convolutions of the two halves of `x`; `filters` channels in all."""
    # Signs behind the split, because Larq Compute Engine does not pack a convolution of a part of a sign.
    groups = [
        lq.layers.QuantConv2D(
            filters // 2,
            3,
            strides=strides,
            padding="same",
            input_quantizer=LeakySign(slope),
            kernel_quantizer=AresSign(),
            kernel_constraint=lq.constraints.WeightClip(1),
            kernel_initializer=uniform_fan_in(),
            use_bias=False,
            name=f"{name}_{conv}_{group}",
        )(half)
        for group, half in enumerate(tf.split(x, 2, axis=-1))
    ]
    y = tf.keras.layers.Concatenate(name=f"{name}_{conv}")(groups)
    y = tf.keras.layers.LeakyReLU(0.01, name=f"{name}_{conv}_leaky_relu")(y)
    return batch_norm(y, f"{name}_{norm}")


def _block(x, filters, strides, shuffle, slope, name):
    if shuffle:
        x = ChannelShuffle(name=f"{name}_shuffle1")(x)
    a = _unit(x, filters, strides, slope, name, "conv1", "bn1")
    if strides == 2:
        first = second = tf.keras.layers.MaxPool2D(3, 2, padding="same", name=f"{name}_maxpool")(x)
    else:
        first, second = tf.split(x, 2, axis=-1)
    first = tf.keras.layers.Add(name=f"{name}_add1")([a, first])
    y = tf.keras.layers.Concatenate(name=f"{name}_concat1")([first, second])
    y = batch_norm(y, f"{name}_bn2")
    y = ChannelShuffle(name=f"{name}_shuffle2")(y)

    b = _unit(y, filters, 1, slope, name, "conv2", "bn3")
    first, second = tf.split(y, 2, axis=-1)
    first = tf.keras.layers.Add(name=f"{name}_add2")([b, first])
    return tf.keras.layers.Concatenate(name=f"{name}_concat2")([first, second])


def _aresbnet(image, num_classes, depth, dataset, slope):
    kernel_size, strides = (7, 2) if dataset == "imagenet" else (3, 1)
    x = real_conv(image, 64, kernel_size, "conv1", strides)
    if dataset == "imagenet":
        x = batch_norm(x, "bn0")
    x = tf.keras.layers.LeakyReLU(0.01, name="leaky_relu")(x)
    if dataset == "imagenet":
        x = tf.keras.layers.MaxPool2D(3, 2, padding="same", name="maxpool")(x)
    x = tf.keras.layers.Concatenate(name="concat")([x, x])
    x = batch_norm(x, "bn1")
    for stage, blocks in enumerate(_BLOCKS[depth], start=1):
        for block in range(blocks):
            strides = 2 if stage > 1 and block == 0 else 1
            # The two halves of the first feature map are equal.
            shuffle = stage > 1 or block > 0
            x = _block(x, 32 * 2**stage, strides, shuffle, slope, f"layer{stage}_{block}")
    x, _ = tf.split(x, 2, axis=-1)
    if num_classes is None:
        return x
    x = tf.keras.layers.GlobalAveragePooling2D(name="pool")(x)
    if dataset == "cifar100":
        x = tf.keras.layers.Dropout(0.5, name="dropout")(x)
    return dense(x, num_classes, "linear")


def _variants(cifar10, cifar100, imagenet, retrained, top5, imagenet_top5=()):
    """The published forms, by accuracy; `retrained` and `top5` are those of the PresB paper for CIFAR-100."""
    code = "README of the code"
    return (
        Variant(results=(Result(cifar100, None, code),), preprocessing=CIFAR10_STATISTICS, weights=_WEIGHTS),
        Variant(
            {"dataset": "cifar10"},
            results=(Result(cifar10, None, code),),
            preprocessing=CIFAR10_STATISTICS,
            weights=_WEIGHTS,
        ),
        Variant({"dataset": "imagenet"}, results=(Result(imagenet, None, code), *imagenet_top5), weights=_WEIGHTS),
        Variant(
            {"slope": 0.01},
            results=(Result(retrained, top5, "PresB-Net, Table 3"),),
            paper=PRESB,
            preprocessing=CIFAR100_STATISTICS,
        ),
    )


@register(
    **_RECORD,
    variants=_variants(91.80, 73.01, 54.81, 70.91, 90.04, (Result(54.8, 78.2, "PresB-Net, Table 4"),)),
)
def AresBNet18(
    *,
    dataset: str = "cifar100",
    slope: float = 0.0,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """AresB-Net-18: two binary convolutions in groups, with concatenated shortcuts, in each of eight blocks.

    11054116 trainable parameters for CIFAR-100, 10985472 of them binary; 547356672 BOPs, 1820672 FLOPs,
    10373120 OPs. 11007946 parameters for CIFAR-10, 11523624 for ImageNet.

    It is the network of the authors' code, without the parameters that it never uses and with PyTorch's initial
    values. Latent weights are clipped to [-1, 1] in training, as there. Our choice: TensorFlow's alignment of
    `"same"` padding where strides are 2 (mirrored images and kernels make it equal to PyTorch's).

    # Arguments
        dataset: `"cifar100"`, with dropout before the classifier, `"cifar10"`, or `"imagenet"` with another
            stem: 7x7 kernel, stride 2, one more batch normalisation and max-pooling.
        slope: Gradient of the activations' signs where they are not between -1 and 1. The PresB-Net authors
            trained AresB-Net with 0.01.
        input_shape: `(height, width, channels)`, by default that of `dataset`; height and width are multiples of 32 (8
            for CIFAR).
        input_tensor: A Keras tensor to begin with instead of an input of its own.
        weights: `None` for initial values, a file, or the name of published ones, `"cifar10"`, `"cifar100"` or
            `"imagenet"`; see `larq_rep.zoo.load_weights`.
        include_top: Whether the classifier is included. Without it the network ends with its last feature map.
        num_classes: Number of logits, by default the classes of `dataset`.

    # References
        - [AresB-Net: accurate residual binarized neural networks using shortcut concatenation and shuffled grouped
          convolution](https://doi.org/10.7717/peerj-cs.454)
        - [PresB-Net: parametric binarized neural network with learnable activations and shuffled grouped
          convolution](https://doi.org/10.7717/peerj-cs.842)
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build("AresBNet18", partial(_aresbnet, depth=18), common, dataset=dataset, slope=slope)


@register(
    **_RECORD,
    variants=_variants(90.74, 69.45, 48.51, 65.41, 88.22),
)
def AresBNet10(
    *,
    dataset: str = "cifar100",
    slope: float = 0.0,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """AresB-Net-10: `AresBNet18` with four blocks.

    4779556 trainable parameters for CIFAR-100, 4718592 of them binary; 245366784 BOPs, 1820672 FLOPs, 5654528 OPs.

    # Arguments
        dataset, slope: As in `AresBNet18`.
        input_shape, input_tensor, weights, include_top, num_classes: As in `AresBNet18`.
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build("AresBNet10", partial(_aresbnet, depth=10), common, dataset=dataset, slope=slope)


@register(
    **_RECORD,
    variants=_variants(92.71, 74.73, 58.46, 71.63, 88.85),
)
def AresBNet34(
    *,
    dataset: str = "cifar100",
    slope: float = 0.0,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """AresB-Net-34: `AresBNet18` with sixteen blocks.

    21169700 trainable parameters for CIFAR-100, 21086208 of them binary; 1151336448 BOPs, 1820672 FLOPs,
    19810304 OPs.

    # Arguments
        dataset, slope: As in `AresBNet18`.
        input_shape, input_tensor, weights, include_top, num_classes: As in `AresBNet18`.
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build("AresBNet34", partial(_aresbnet, depth=34), common, dataset=dataset, slope=slope)
