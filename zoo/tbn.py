r"""TBN: pre-activation ResNets of ternary inputs and binary weights.

With the ternary quantizer \\(T\\) of the activations a block computes

\\[y = W_2 * T(\text{BN}_2(W_1 * T(\text{BN}_1(x)))) + S\\]

where all convolutions have a bias. \\(S\\) is \\(x\\); where a stage begins with stride 2 it is a 1x1 convolution of
the 2x2 average-pooled \\(x\\) behind a batch normalisation, a real one and a ReLU or one like the others.
"""

from functools import partial
from typing import Any

import larq as lq
import tensorflow as tf

from larq_rep.quantizers import ScaledBinary, TernaryInput
from larq_rep.zoo.build import Common, Shape, Weights, build
from larq_rep.zoo.common import batch_norm, he_normal
from larq_rep.zoo.methods import head, relu
from larq_rep.zoo.papers import TBN
from larq_rep.zoo.records import Result, Variant, choose, register


def _real_conv(x, filters, kernel_size, name, strides=1):
    initializer = he_normal("fan_out")
    return tf.keras.layers.Conv2D(
        filters, kernel_size, strides=strides, padding="same", kernel_initializer=initializer, name=name
    )(x)


def _ternary_conv(x, filters, kernel_size, name, strides=1):
    return lq.layers.QuantConv2D(
        filters,
        kernel_size,
        strides=strides,
        padding="same",
        input_quantizer=TernaryInput(),
        kernel_quantizer=ScaledBinary(),
        kernel_initializer=he_normal("fan_out"),
        name=name,
    )(x)


def _block(x, filters, strides, name, shortcut):
    y = _ternary_conv(batch_norm(x, f"{name}_bn1"), filters, 3, f"{name}_conv1", strides)
    y = _ternary_conv(batch_norm(y, f"{name}_bn2"), filters, 3, f"{name}_conv2")
    if strides == 2:
        x = tf.keras.layers.AveragePooling2D(2, name=f"{name}_down_pool")(x)
        x = batch_norm(x, f"{name}_down_bn")
        conv = _real_conv if shortcut == "real" else _ternary_conv
        x = conv(relu(x) if shortcut == "real" else x, filters, 1, f"{name}_down_conv")
    return tf.keras.layers.Add(name=f"{name}_add")([y, x])


def _tbn(image, num_classes, name, blocks, shortcut):
    choose(name, "shortcut", shortcut, ("real", "ternary"))
    x = _real_conv(image, 64, 7, "conv1", strides=2)
    x = tf.keras.layers.MaxPool2D(3, 2, padding="same", name="maxpool")(x)
    for stage, count in enumerate(blocks, start=1):
        for number in range(count):
            strides = 2 if stage > 1 and number == 0 else 1
            x = _block(x, 64 * 2 ** (stage - 1), strides, f"layer{stage}_{number}", shortcut)
    return head(relu(batch_norm(x, "bn")), num_classes, "fc", norm=False)


_RECORD: dict[str, Any] = {"family": "tbn", "paper": TBN, "dataset": "imagenet", "multiple": 32}
# BinaryDenseNet says that TBN's downsampling is not real, and prints the size of a network where it is.
_UNDECIDED = "whose text says that the shortcut is not real, but whose size is that of a real one"


def _variants(*results: Result) -> tuple[Variant, Variant]:
    return Variant(results=results, source="code"), Variant({"shortcut": "ternary"}, results=results, source="paper")


@register(
    **_RECORD,
    source="code",
    variants=_variants(Result(55.6, 74.2, f"BinaryDenseNet, Tables 3 and 6, {_UNDECIDED}")),
)
def TBNResNet18(
    *,
    shortcut: str = "real",
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """TBN's ResNet-18 of ternary inputs and binary weights.

    11693416 trainable parameters, 10985472 of them binary; at 224 x 224: 3352559616 BOPs, those of two binary
    convolutions for each convolution of a ternary map, 137793536 FLOPs, 190177280 OPs. With `shortcut="ternary"`
    11157504 binary parameters, 3391094784 BOPs, 118525952 FLOPs, 171511808 OPs.

    It is the network of the authors' code with its initial values. The threshold is 0.4 times the mean magnitude, as in
    the paper (the code's default is 0.5), and the output is not scaled by it, as in the code's later TBNv2. Our choice:
    TensorFlow's alignment of `"same"` padding in the strided convolutions and the max-pooling (mirrored images and
    kernels make it equal to PyTorch's).

    # Arguments
        shortcut: Whether the 1x1 convolutions in the shortcuts are `"real"`, as in the code, or `"ternary"`, as the
            paper of BinaryDenseNet says.
        input_shape: `(height, width, channels)`, by default `(224, 224, 3)`; height and width are multiples of 32.
        input_tensor: A Keras tensor to begin with instead of an input of its own.
        weights: `None` for initial values, or a file; see `larq_rep.zoo.load_weights`.
        include_top: Whether the classifier is included. Without it the network ends with its last feature map.
        num_classes: Number of logits, by default 1000.

    # References
        - [TBN: Convolutional Neural Network with Ternary Inputs and Binary
          Weights](https://doi.org/10.1007/978-3-030-01216-8_20)
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    layers = partial(_tbn, name="TBNResNet18", blocks=(2, 2, 2, 2))
    return build("TBNResNet18", layers, common, shortcut=shortcut)


@register(
    **_RECORD,
    source="code",
    variants=_variants(Result(58.2, 81.0, f"BinaryDenseNet, Table 6, {_UNDECIDED}")),
)
def TBNResNet34(
    *,
    shortcut: str = "real",
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """TBN's ResNet-34 of ternary inputs and binary weights.

    21805288 trainable parameters, 21086208 of them binary; at 224 x 224: 7051935744 BOPs, 137793536 FLOPs, 247980032
    OPs. With `shortcut="ternary"` 21258240 binary parameters, 7090470912 BOPs, 118525952 FLOPs, 229314560 OPs.
    Otherwise as `TBNResNet18`.

    # Arguments
        shortcut, input_shape, input_tensor, weights, include_top, num_classes: As in `TBNResNet18`.
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    layers = partial(_tbn, name="TBNResNet34", blocks=(3, 4, 6, 3))
    return build("TBNResNet34", layers, common, shortcut=shortcut)
