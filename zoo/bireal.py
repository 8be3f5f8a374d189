r"""Bi-Real-Net, a ResNet with binary 3x3 convolutions and one shortcut around each, and the parts that ReActNet on it
shares.

A block computes, with binary convolutions \\(*\\),

\\[y = \text{BN}(W * \text{sign}(x)) + S(x)\\]

in Bi-Real-Net, and in ReActNet

\\[y = \text{RPReLU}(\text{BN}(W * \text{RSign}(x)) + S(x)).\\]

\\(S\\) is the identity, or 2x2 average pooling, a real 1x1 convolution and a batch normalisation where a stage
begins with stride 2. Bi-Real-Net-50, -101 and -152 have bottlenecks and a second stream between their middles.
"""

from functools import partial

import larq as lq
import tensorflow as tf
from typing_extensions import Unpack

from larq_rep.quantizers import ScaledSign
from larq_rep.zoo.build import Common, CommonArguments, Shape, Weights, build, build_rep
from larq_rep.zoo.common import batch_norm, classifier, hard_tanh, real_conv
from larq_rep.zoo.papers import BIREAL, BIREAL50
from larq_rep.zoo.reactnet import ACTIVATIONS, SIGNS, activate, binary_conv
from larq_rep.zoo.records import Published, Result, Variant, choose, register, register_rep

# Binary convolutions of each stage.
_BLOCKS = {10: (2, 2, 2, 2), 18: (4, 4, 4, 4), 34: (6, 8, 12, 6)}
_WEIGHTS = Published("https://github.com/liuzechun/Bi-Real-net")


def _stem(image, dataset, width):
    """First convolution, for ImageNet with stride 4 in all; no activation."""
    if dataset != "imagenet":
        return batch_norm(real_conv(image, width, 3, "conv1"), "bn1")
    x = batch_norm(real_conv(image, width, 7, "conv1", strides=2), "bn1")
    return tf.keras.layers.MaxPool2D(3, 2, padding="same", name="maxpool")(x)


def _downsample(x, filters, strides, name, binary=False):
    """Shortcut to other channels, `binary` with binary weights for the real input."""
    if strides == 2:
        x = tf.keras.layers.AveragePooling2D(2, name=f"{name}_0")(x)
    if binary:
        x = lq.layers.QuantConv2D(
            filters,
            1,
            kernel_quantizer=ScaledSign(),
            kernel_initializer=tf.keras.initializers.RandomUniform(0.0, 1e-3),
            use_bias=False,
            name=f"{name}_1",
        )(x)
    else:
        x = real_conv(x, filters, 1, f"{name}_1")
    return batch_norm(x, f"{name}_2")


def bireal(image, num_classes, depth, sign="sign", activation=None, dataset="imagenet", shortcut="real", width=64):
    """Bi-Real-Net-18 or -34 or, with "rsign" and "rprelu", ReActNet on it."""
    name = f"ReActNet{depth}"
    choose(name, "shortcut", shortcut, ("real", "binary"))
    choose(name, "sign", sign, SIGNS)
    choose(name, "activation", activation, ACTIVATIONS)
    if not isinstance(width, int) or width < 1:
        raise ValueError(f"{name}: width must be a positive number of channels, found {width!r}.")

    def conv(x, filters, strides, name):
        return binary_conv(SIGNS[sign](name=f"{name}_{sign}")(x), filters, 3, f"{name}_binary_conv", strides)

    return one_convolution_blocks(image, num_classes, depth, conv, activation, dataset, shortcut, width)


def one_convolution_blocks(image, num_classes, depth, conv, activation, dataset="imagenet", shortcut="real", width=64):
    """A ResNet whose blocks are one binary convolution, `conv(x, filters, strides, name of the block)`."""
    x = _stem(image, dataset, width)
    for stage, blocks in enumerate(_BLOCKS[depth], start=1):
        for block in range(blocks):
            filters, strides = width * 2 ** (stage - 1), 2 if stage > 1 and block == 0 else 1
            name = f"layer{stage}_{block}"
            y = batch_norm(conv(x, filters, strides, name), f"{name}_bn1")
            if strides == 2:
                x = _downsample(x, filters, strides, f"{name}_downsample", shortcut == "binary")
            x = tf.keras.layers.Add(name=f"{name}_add")([y, x])
            x = activate(x, activation, f"{name}_{activation}")
    return classifier(x, num_classes, "fc")


@register(
    family="bireal",
    paper=BIREAL,
    dataset="imagenet",
    source="code",
    multiple=32,
    variants=(
        Variant(
            results=(
                Result(56.4, 79.5, "RepBNN, Table 8; Bi-Real Net, trained with Caffe"),
                Result(57.3, None, "ReActNet, Table 1, trained as PCNN"),
            ),
            rep_results=(Result(57.1, 79.5, "RepBNN, Table 8"),),
            weights=_WEIGHTS,
        ),
    ),
)
def BiRealNet18(
    *,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """Bi-Real-Net-18, a ResNet-18 with a shortcut around each binary convolution and no activation function.

    11689512 trainable parameters, 10985472 of them binary; at 224 x 224: 1676279808 BOPs, 137793536 FLOPs,
    163985408 OPs.

    It is the network of the authors' PyTorch code, with its initial values, kernel quantizer and gradients.
    The Caffe code behind the published accuracy also has biases and lacks the batch normalisation in the
    shortcuts; the authors report the same accuracy for both. Our choices: TensorFlow's alignment of `"same"`
    padding in the strided convolutions and the max-pooling (mirrored images and kernels make it equal to
    PyTorch's) and sign(0) = +1 (there 0).

    PCNN trains this network with projections of its kernels, which are gone after the training; its code is not
    published.

    # Arguments
        input_shape: `(height, width, channels)`, by default `(224, 224, 3)`; height and width are multiples of 32.
        input_tensor: A Keras tensor to begin with instead of an input of its own.
        weights: `None` for initial values, a file, or the name of published ones, `"imagenet"`; see
            `larq_rep.zoo.load_weights`.
        include_top: Whether the classifier is included. Without it the network ends with its last feature map.
        num_classes: Number of logits, by default 1000.

    # References
        - [Bi-Real Net: Enhancing the Performance of 1-bit CNNs With Improved Representational Capability and Advanced
          Training Algorithm](https://arxiv.org/abs/1808.00278)
        - [Projection Convolutional Neural Networks for 1-bit CNNs via Discrete Back
          Propagation](https://arxiv.org/abs/1811.12755)
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build("BiRealNet18", partial(bireal, depth=18), common)


@register(
    family="bireal",
    paper=BIREAL,
    dataset="imagenet",
    source="code",
    multiple=32,
    variants=(Variant(results=(Result(62.2, 83.9, "Bi-Real Net, trained with Caffe"),), weights=_WEIGHTS),),
)
def BiRealNet34(
    *,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """Bi-Real-Net-34, a ResNet-34 with a shortcut around each binary convolution and no activation function.

    21797672 trainable parameters, 21086208 of them binary; at 224 x 224: 3525967872 BOPs, 137793536 FLOPs,
    192886784 OPs. Otherwise as `BiRealNet18`.

    # Arguments
        input_shape, input_tensor, weights, include_top, num_classes: As in `BiRealNet18`.
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build("BiRealNet34", partial(bireal, depth=34), common)


def _bottlenecks(image, num_classes, blocks):
    x = middle = _stem(image, "imagenet", 64)
    layer = 0
    for stage, number in enumerate(blocks):
        for block in range(number):
            width, strides = 64 * 2**stage, 2 if stage > 0 and block == 0 else 1
            name = f"layers_{layer}"
            if layer == 0:
                y = real_conv(0.1 * x + 0.9 * hard_tanh(x), width, 1, f"{name}_conv1")
                middle = batch_norm(y, f"{name}_bn1")
            else:
                y = _binary_unit(x, width, 1, 1, name, 1)
                if block == 0:
                    middle = real_conv(middle, width, 1, f"{name}_down_conv1x1")
                middle = tf.keras.layers.Add(name=f"{name}_add1")([y, middle])

            y = _binary_unit(middle, width, 3, strides, name, 2)
            if strides == 2:
                middle = tf.keras.layers.AveragePooling2D(2, name=f"{name}_pool")(middle)
            middle = tf.keras.layers.Add(name=f"{name}_add2")([y, middle])

            y = _binary_unit(middle, 4 * width, 1, 1, name, 3)
            if block == 0:
                x = _downsample(x, 4 * width, strides, f"{name}_downsample")
            x = tf.keras.layers.Add(name=f"{name}_add3")([y, x])
            layer += 1
    return classifier(x, num_classes, "fc")


@register(
    family="bireal",
    paper=BIREAL50,
    dataset="imagenet",
    source="code",
    multiple=32,
    variants=(Variant(results=(Result(62.6, 83.9, "README of the code"),), weights=_WEIGHTS),),
)
def BiRealNet50(
    *,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """Bi-Real-Net-50, a ResNet-50 with a shortcut around each binary convolution, also the inner ones.

    A bottleneck takes two feature maps, `x` of all channels and `middle` of a quarter of them (the one between the
    second and third convolution of the previous bottleneck), and computes, with binary convolutions,

        a = BN1(conv1x1(sign(x))) + middle
        b = BN2(conv3x3(sign(a))) + a
        y = BN3(conv1x1(sign(b))) + x

    where `b` and `y` are `middle` and `x` of the next. Where a stage begins, the shortcuts have a real 1x1 convolution
    to change the channels (with a batch normalisation only in the shortcut of `x`) and, with stride 2, 2x2 average
    pooling. The first convolution of the first bottleneck is real, `a = BN1(conv1x1(clip(x)))` with
    `clip` of slope 1 in -1..1 and 0.1 beyond.

    25729064 trainable parameters, 20672512 of them binary; at 224 x 224: 3596615680 BOPs, 569638912 FLOPs,
    625836032 OPs. The authors' PyTorch code has 1024 more parameters in a convolution that it never uses.
    Otherwise our choices are those in `BiRealNet18`.

    # Arguments
        input_shape, input_tensor, weights, include_top, num_classes: As in `BiRealNet18`.

    # References
        - [Bi-Real Net: Binarizing Deep Network Towards Real-Network Performance](https://arxiv.org/abs/1811.01335)
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build("BiRealNet50", partial(_bottlenecks, blocks=(3, 4, 6, 3)), common)


@register(family="bireal", paper=BIREAL50, dataset="imagenet", source="inferred", multiple=32)
def BiRealNet101(
    *,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """Bi-Real-Net-101: the bottlenecks of `BiRealNet50`, of which its third stage has 23.

    44721192 trainable parameters, 39612416 of them binary; at 224 x 224: 7308836864 BOPs, 569638912 FLOPs,
    683839488 OPs. The authors' code has 50 layers; the others follow its rules.

    # Arguments
        input_shape, input_tensor, weights, include_top, num_classes: As in `BiRealNet50`.

    # References
        - [Bi-Real Net: Binarizing Deep Network Towards Real-Network Performance](https://arxiv.org/abs/1811.01335)
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build("BiRealNet101", partial(_bottlenecks, blocks=(3, 4, 23, 3)), common)


@register(
    family="bireal",
    paper=BIREAL50,
    dataset="imagenet",
    source="inferred",
    multiple=32,
    variants=(Variant(results=(Result(64.5, None, "ReActNet, Table 1"),)),),
)
def BiRealNet152(
    *,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """Bi-Real-Net-152: the bottlenecks of `BiRealNet50`, 8 in its second stage and 36 in its third.

    60364840 trainable parameters, 55209984 of them binary; at 224 x 224: 11021058048 BOPs, 569638912 FLOPs,
    741842944 OPs. The authors' code has 50 layers; the others follow its rules. ReActNet's paper prints 10.7e9 BOPs,
    4.48e8 FLOPs and 6.15e8 OPs, which are those of a network whose stages begin with a strided 1x1 convolution, and
    whose very first one is binary.

    # Arguments
        input_shape, input_tensor, weights, include_top, num_classes: As in `BiRealNet50`.

    # References
        - [Bi-Real Net: Binarizing Deep Network Towards Real-Network Performance](https://arxiv.org/abs/1811.01335)
        - [ReActNet: Towards Precise Binary Neural Network with Generalized Activation
          Functions](https://arxiv.org/abs/2003.03488), for its accuracy
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build("BiRealNet152", partial(_bottlenecks, blocks=(3, 8, 36, 3)), common)


def _binary_unit(x, filters, kernel_size, strides, name, number):
    y = SIGNS["sign"](name=f"{name}_sign{number}")(x)
    y = binary_conv(y, filters, kernel_size, f"{name}_conv{number}", strides)
    return batch_norm(y, f"{name}_bn{number}")


@register_rep(BiRealNet18)
def RepBiRealNet18(
    *,
    beta: int = 2,
    last_layer: int = 1,
    stem: str = "after_bn",
    bn: str = "after",
    **arguments: Unpack[CommonArguments],
) -> tf.keras.Model:
    """`BiRealNet18` after RepTran: every binary convolution is a RepConv.

    All feature maps have beta times the channels; binary weights and BOPs are the same.
    12210984 / 13253928 / 15339816 trainable parameters and 164497408 / 165521408 / 167569408 OPs at 224 x 224
    with beta = 2 / 4 / 8. The real convolutions of the shortcuts are also repeated. The paper does not say where it
    repeats the stem; we repeat it after the batch normalisation (12211112 / 13254312 / 15340712 parameters with
    `stem="before_bn"`).

    # Arguments
        beta, last_layer, stem, bn: As in `larq_rep.reptran`.
        **arguments: Arguments of `BiRealNet18`.

    # References
        - [RepBNN: towards a precise Binary Neural Network with Enhanced Feature Map via
          Repeating](https://arxiv.org/abs/2207.09049)
    """
    return build_rep("RepBiRealNet18", beta, last_layer, stem, bn, **arguments)


@register_rep(BiRealNet34)
def RepBiRealNet34(
    *,
    beta: int = 2,
    last_layer: int = 1,
    stem: str = "after_bn",
    bn: str = "after",
    **arguments: Unpack[CommonArguments],
) -> tf.keras.Model:
    """`BiRealNet34` after RepTran: every binary convolution is a RepConv.

    All feature maps have beta times the channels; binary weights and BOPs are the same.
    22326568 trainable parameters and 193398784 OPs at 224 x 224 with beta = 2. Not in the paper.

    # Arguments
        beta, last_layer, stem, bn: As in `larq_rep.reptran`.
        **arguments: Arguments of `BiRealNet34`.

    # References
        - [RepBNN: towards a precise Binary Neural Network with Enhanced Feature Map via
          Repeating](https://arxiv.org/abs/2207.09049)
    """
    return build_rep("RepBiRealNet34", beta, last_layer, stem, bn, **arguments)
