r"""Bi-Real-Net and ReActNet on it: a ResNet with binary 3x3 convolutions and one shortcut around each.

A block computes, with binary convolutions \\(*\\),

\\[y = \text{BN}(W * \text{sign}(x)) + S(x)\\]

in Bi-Real-Net, and in ReActNet

\\[y = \text{RPReLU}(\text{BN}(W * \text{RSign}(x)) + S(x)).\\]

\\(S\\) is the identity, or 2x2 average pooling, a real 1x1 convolution and a batch normalisation where a stage
begins with stride 2. Bi-Real-Net-50 has bottlenecks and a second stream between their middles.
"""

import larq as lq
import tensorflow as tf

from larq_rep.quantizers import ScaledSign
from larq_rep.zoo.common import batch_norm, classifier, hard_tanh, real_conv
from larq_rep.zoo.papers import BIREAL, BIREAL50, PRESB, REACTNET
from larq_rep.zoo.reactnet import ACTIVATIONS, SIGNS, activate, binary_conv
from larq_rep.zoo.registry import CIFAR100_STATISTICS, Result, Variant, choose, register_network, register_rep
from larq_rep.zoo.weights import Published

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


def _bireal(image, num_classes, depth, sign="sign", activation=None, dataset="imagenet", shortcut="real", width=64):
    """Bi-Real-Net-18 or -34 or, with "rsign" and "rprelu", ReActNet on it."""
    name = f"ReActNet{depth}"
    choose(name, "shortcut", shortcut, ("real", "binary"))
    choose(name, "sign", sign, SIGNS)
    choose(name, "activation", activation, ACTIVATIONS)
    if not isinstance(width, int) or width < 1:
        raise ValueError(f"{name}: width must be a positive number of channels, found {width!r}.")
    x = _stem(image, dataset, width)
    for stage, blocks in enumerate(_BLOCKS[depth], start=1):
        for block in range(blocks):
            filters, strides = width * 2 ** (stage - 1), 2 if stage > 1 and block == 0 else 1
            name = f"layer{stage}_{block}"
            y = SIGNS[sign](name=f"{name}_{sign}")(x)
            y = binary_conv(y, filters, 3, f"{name}_binary_conv", strides)
            y = batch_norm(y, f"{name}_bn1")
            if strides == 2:
                x = _downsample(x, filters, strides, f"{name}_downsample", shortcut == "binary")
            x = tf.keras.layers.Add(name=f"{name}_add")([y, x])
            x = activate(x, activation, f"{name}_{activation}")
    return classifier(x, num_classes, "fc")


@register_network(
    family="bireal",
    paper=BIREAL,
    dataset="imagenet",
    source="code",
    spec="reactnet-repbnn.md, 7.1",
    multiple=32,
    variants=(
        Variant(
            results=(Result(56.4, 79.5, "RepBNN, Table 8; Bi-Real Net, trained with Caffe"),),
            rep_results=(Result(57.1, 79.5, "RepBNN, Table 8"),),
            weights=_WEIGHTS,
        ),
    ),
)
def BiRealNet18(image, num_classes):
    """Bi-Real-Net-18, a ResNet-18 with a shortcut around each binary convolution and no activation function.

    11689512 trainable parameters, 10985472 of them binary; at 224 x 224: 1676279808 BOPs, 137793536 FLOPs,
    163985408 OPs.

    It is the network of the authors' PyTorch code, with its initial values, kernel quantizer and gradients.
    The Caffe code behind the published accuracy also has biases and lacks the batch normalisation in the
    shortcuts; the authors report the same accuracy for both. Our choices: TensorFlow's alignment of `"same"`
    padding in the strided convolutions and the max-pooling (mirrored images and kernels make it equal to
    PyTorch's) and sign(0) = +1 (there 0).
    """
    return _bireal(image, num_classes, 18)


@register_network(
    family="bireal",
    paper=BIREAL,
    dataset="imagenet",
    source="code",
    spec="reactnet-repbnn.md, 7.1",
    multiple=32,
    variants=(Variant(results=(Result(62.2, 83.9, "Bi-Real Net, trained with Caffe"),), weights=_WEIGHTS),),
)
def BiRealNet34(image, num_classes):
    """Bi-Real-Net-34, a ResNet-34 with a shortcut around each binary convolution and no activation function.

    21797672 trainable parameters, 21086208 of them binary; at 224 x 224: 3525967872 BOPs, 137793536 FLOPs,
    192886784 OPs. Otherwise as `BiRealNet18`.
    """
    return _bireal(image, num_classes, 34)


@register_network(
    family="bireal",
    paper=BIREAL50,
    dataset="imagenet",
    source="code",
    spec="reactnet-repbnn.md, 7.2",
    multiple=32,
    variants=(Variant(results=(Result(62.6, 83.9, "README of the code"),), weights=_WEIGHTS),),
)
def BiRealNet50(image, num_classes):
    """Bi-Real-Net-50, a ResNet-50 with a shortcut around each binary convolution, also the inner ones.

    A bottleneck takes two feature maps, `x` of all channels and `middle` of a quarter of them (that between
    the second and third convolution of the bottleneck before), and computes, with binary convolutions,

        a = BN1(conv1x1(sign(x))) + middle
        b = BN2(conv3x3(sign(a))) + a
        y = BN3(conv1x1(sign(b))) + x

    where `b` and `y` are those of the next. Where a stage begins, the shortcuts have a real 1x1 convolution
    to change the channels (with a batch normalisation in that of `x` only) and, with stride 2, 2x2 average
    pooling. The first convolution of the first bottleneck is real, `a = BN1(conv1x1(clip(x)))` with
    `clip` of slope 1 in -1..1 and 0.1 beyond.

    25729064 trainable parameters, 20672512 of them binary; at 224 x 224: 3596615680 BOPs, 569638912 FLOPs,
    625836032 OPs. The authors' PyTorch code has 1024 parameters more in a convolution that it never uses.
    Otherwise our choices are those in `BiRealNet18`.
    """
    x = middle = _stem(image, "imagenet", 64)
    layer = 0
    for stage, blocks in enumerate((3, 4, 6, 3)):
        for block in range(blocks):
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


def _binary_unit(x, filters, kernel_size, strides, name, number):
    y = SIGNS["sign"](name=f"{name}_sign{number}")(x)
    y = binary_conv(y, filters, kernel_size, f"{name}_conv{number}", strides)
    return batch_norm(y, f"{name}_bn{number}")


RepBiRealNet18 = register_rep(
    BiRealNet18,
    doc="""
    12210984 / 13253928 / 15339816 trainable parameters and 164497408 / 165521408 / 167569408 OPs at 224 x 224
    with beta = 2 / 4 / 8. The real convolutions of the shortcuts are repeated, too. The paper does not say
    where it repeats the stem, we do after the batch normalisation (12211112 / 13254312 / 15340712 parameters
    with `stem="before_bn"`).
    """,
)
RepBiRealNet34 = register_rep(
    BiRealNet34,
    doc="""
    22326568 trainable parameters and 193398784 OPs at 224 x 224 with beta = 2. Not in the paper.
    """,
)


def _presb(top1, top5, source):
    """The published forms of a ReActNet in the PresB paper."""
    common = {"paper": PRESB, "preprocessing": CIFAR100_STATISTICS, "source": source, "spec": "presbnet.md, 3"}
    reason = "The input of the shortcut's convolution is real: only its weights are binary."
    return (
        Variant({"dataset": "cifar100"}, results=(Result(top1, top5, "PresB-Net, Table 3"),), **common),
        Variant(
            {"dataset": "cifar100", "shortcut": "binary"}, left_float={r"layer\d_0_downsample_1": reason}, **common
        ),
    )


@register_network(
    family="reactnet",
    paper=REACTNET,
    dataset="imagenet",
    source="code",
    spec="reactnet-repbnn.md, 6",
    multiple=32,
    cifar_multiple=8,
    variants=(
        Variant(
            results=(
                Result(65.5, None, "ReActNet, section 5"),
                Result(65.9, None, "README of the code"),
                Result(60.4, 82.2, "PresB-Net, Table 4, trained anew for 100 epochs"),
            ),
            weights=Published("https://github.com/liuzechun/ReActNet"),
        ),
        *_presb(70.81, 89.00, "code"),
    ),
)
def ReActNet18(image, num_classes, *, dataset="imagenet", shortcut="real", sign="rsign", activation="rprelu", width=64):
    """ReActNet on Bi-Real-Net-18: each sign is an RSign, and an RPReLU follows each shortcut.

    11704424 trainable parameters, 10985472 of them binary; at 224 x 224: 1676279808 BOPs, 137793536 FLOPs,
    163985408 OPs. For CIFAR-100 11235044 parameters and 16664576 OPs.

    `dataset="imagenet"` is the network of the ReActNet authors' code; for CIFAR it is the one that the
    PresB-Net authors compare with, as their development code has it. (That code leaves most of its 3x3
    convolutions real by mistake; here all are binary.) Our other choices are those in `BiRealNet18`.

    # Arguments
        dataset: `"imagenet"`, or `"cifar10"` or `"cifar100"` with a stem that keeps the image's size: one 3x3
            convolution instead of 7x7 with stride 2 and max-pooling.
        shortcut: `"real"`, or `"binary"` for binary weights in the 1x1 convolutions of the shortcuts, whose
            input stays real, as in the PresB-Net authors' development code.
        sign, activation: As in `ReActNetA`.
        width: Channels of the first stage. Each of the others has twice as many as the one before.
    """
    return _bireal(image, num_classes, 18, sign, activation, dataset, shortcut, width)


RepReActNet18 = register_rep(
    ReActNet18,
    doc="""
    12240808 trainable parameters and 164497408 OPs at 224 x 224 with beta = 2. Not in the paper.
    """,
)


@register_network(
    family="reactnet",
    paper=REACTNET,
    dataset="imagenet",
    source="code",
    spec="reactnet-repbnn.md, 6",
    multiple=32,
    cifar_multiple=8,
    variants=(Variant(), *_presb(70.89, 89.24, "inferred")),
)
def ReActNet34(image, num_classes, *, dataset="imagenet", shortcut="real", sign="rsign", activation="rprelu", width=64):
    """ReActNet on Bi-Real-Net-34: each sign is an RSign, and an RPReLU follows each shortcut.

    21827432 trainable parameters, 21086208 of them binary; at 224 x 224: 3525967872 BOPs, 137793536 FLOPs,
    192886784 OPs. For CIFAR-100 21358052 parameters. The ReActNet authors' code can build it, but they
    trained none. The structure for CIFAR is that of `ReActNet18`.

    # Arguments
        dataset, shortcut, sign, activation, width: As in `ReActNet18`.
    """
    return _bireal(image, num_classes, 34, sign, activation, dataset, shortcut, width)


@register_network(
    family="reactnet",
    paper=PRESB,
    dataset="imagenet",
    source="inferred",
    spec="presbnet.md, 3",
    multiple=32,
    cifar_multiple=8,
    variants=(Variant(), *_presb(66.69, 85.83, "inferred")),
)
def ReActNet10(image, num_classes, *, dataset="imagenet", shortcut="real", sign="rsign", activation="rprelu", width=64):
    """`ReActNet18` with two binary convolutions in each of its four stages instead of four.

    5426024 trainable parameters, 4718592 of them binary; for CIFAR-100 4956644 and 11945984 OPs. The PresB-Net
    paper gives only its name and its accuracy, on CIFAR-100; the structure is our inference.

    # Arguments
        dataset, shortcut, sign, activation, width: As in `ReActNet18`.
    """
    return _bireal(image, num_classes, 10, sign, activation, dataset, shortcut, width)
