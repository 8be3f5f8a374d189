r"""ReActNet-A, -B and -C and their Rep networks: MobileNetV1 with binary convolutions, one shortcut around each.

A block of ReActNet-A with \\(C\\) input and \\(D\\) output channels computes, with binary convolutions \\(*\\),

\\[a = \text{RPReLU}_1(\text{BN}_1(W_1 * \text{RSign}_1(x)) + S(x))\\]
\\[y = \text{RPReLU}_2(\text{BN}_2(W_2 * \text{RSign}_2(a)) + a)\\]

with a 3x3 and a 1x1 convolution. \\(S\\) is the identity, or 2x2 average pooling if the block has stride 2.
Where \\(D = 2C\\) the second line has two convolutions and two normalisations of \\(C\\) channels each, on
the same \\(\text{RSign}_2(a)\\) and with the same shortcut, and their sums are concatenated. ReActNet-B and -C
have a real 1x1 convolution of \\(a\\) there.
"""

from functools import partial
from typing import Any

import larq as lq
import tensorflow as tf
from typing_extensions import Unpack

from larq_rep.layers import RPReLU
from larq_rep.quantizers import RSign, ScaledSign
from larq_rep.zoo.build import Common, CommonArguments, Shape, Weights, build, build_rep
from larq_rep.zoo.common import batch_norm, classifier, real_conv
from larq_rep.zoo.papers import REACTNET
from larq_rep.zoo.records import Published, Result, Variant, choose, register, register_rep

# Layers by their keywords, which are also part of their names.
SIGNS = {"rsign": RSign, "sign": lq.quantizers.ApproxSign}
ACTIVATIONS: dict[str | None, Any] = {
    "rprelu": RPReLU,
    "prelu": partial(tf.keras.layers.PReLU, alpha_initializer=tf.keras.initializers.Constant(0.25), shared_axes=[1, 2]),
    None: None,
}

# Output channels and stride of each block.
_BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))


def binary_conv(x, filters, kernel_size, name, strides=1):
    """Convolution of the +1 and -1 of a sign layer, padded with 0."""
    return lq.layers.QuantConv2D(
        filters,
        kernel_size,
        strides=strides,
        padding="valid" if kernel_size == 1 else "same",
        # The sign is a layer of its own, because two convolutions may share it; this marks the input as binary.
        input_quantizer=lq.quantizers.NoOp(precision=1),
        kernel_quantizer=ScaledSign(),
        kernel_initializer=tf.keras.initializers.RandomUniform(0.0, 1e-3),
        use_bias=False,
        name=name,
    )(x)


def activate(x, activation, name):
    return x if activation is None else ACTIVATIONS[activation](name=name)(x)


def _block(x, filters, strides, name, sign, activation, downsampling, real_groups):
    channels = x.shape[-1]
    doubles = filters != channels
    shortcut = x if strides == 1 else tf.keras.layers.AveragePooling2D(2, name=f"{name}_pool")(x)
    y = SIGNS[sign](name=f"{name}_{sign}1")(x)
    y = binary_conv(y, channels, 3, f"{name}_conv3x3", strides)
    y = batch_norm(y, f"{name}_bn1")
    y = tf.keras.layers.Add(name=f"{name}_add1")([y, shortcut])
    a = activate(y, activation, f"{name}_{activation}1")

    if doubles and real_groups:
        conv = partial(real_conv, a, groups=real_groups)
    else:
        conv = partial(binary_conv, SIGNS[sign](name=f"{name}_{sign}2")(a))
    if doubles and downsampling == "concat":
        branches = []
        for branch in (f"{name}_down1", f"{name}_down2"):
            y = conv(channels, 1, f"{branch}_conv")
            y = batch_norm(y, f"{branch}_bn")
            branches.append(tf.keras.layers.Add(name=f"{branch}_add")([y, a]))
        y = tf.keras.layers.Concatenate(name=f"{name}_concat")(branches)
    else:
        y = conv(filters, 1, f"{name}_conv1x1")
        y = batch_norm(y, f"{name}_bn2")
        if not doubles:
            y = tf.keras.layers.Add(name=f"{name}_add2")([y, a])
    return activate(y, activation, f"{name}_{activation}2")


def _reactnet(image, num_classes, network, downsampling, sign="rsign", activation="rprelu", real_groups=None):
    """ReActNet; with `real_groups` its downsampling 1x1 convolutions are real ones with that many groups."""
    choose(network, "sign", sign, SIGNS)
    choose(network, "activation", activation, ACTIVATIONS)
    choose(network, "downsampling", downsampling, ("concat", "conv"))
    x = real_conv(image, 32, 3, "stem_conv", strides=2)
    x = batch_norm(x, "stem_bn")
    for number, (filters, strides) in enumerate(_BLOCKS, start=1):
        x = _block(x, filters, strides, f"block{number}", sign, activation, downsampling, real_groups)
    return classifier(x, num_classes, "fc")


def _row(top1, source="paper", cross_entropy=None, **arguments):
    """A row of Table 2, or two that differ in the loss only."""
    results = [Result(top1, None, "ReActNet, Table 2, distributional loss")]
    if cross_entropy:
        results.append(Result(cross_entropy, None, "ReActNet, Table 2, cross-entropy"))
    return Variant(arguments, results=tuple(results), source=source)


@register(
    family="reactnet",
    paper=REACTNET,
    dataset="imagenet",
    source="code",
    multiple=32,
    first_phase="real weights",
    variants=(
        Variant(
            results=(
                Result(69.4, 88.6, "RepBNN, Table 8"),
                Result(69.4, None, "ReActNet, Tables 1 and 2"),
                Result(69.5, None, "README of the code"),
                Result(70.5, 89.1, "RepBNN, Table 8, trained as AdamBNN"),
            ),
            rep_results=(
                Result(70.2, 89.1, "RepBNN, Table 8"),
                Result(71.3, 89.8, "RepBNN, Table 8, trained as AdamBNN"),
            ),
            weights=Published("https://github.com/liuzechun/ReActNet or https://github.com/liuzechun/AdamBNN"),
        ),
        _row(59.6, cross_entropy=58.2, sign="sign", activation=None, downsampling="conv", source="inferred"),
        _row(62.5, cross_entropy=61.1, sign="sign", activation=None),
        _row(65.5, sign="sign", activation="prelu"),
        _row(66.1, activation=None),
        _row(67.4, sign="sign"),
    ),
)
def ReActNetA(
    *,
    sign: str = "rsign",
    activation: str | None = "rprelu",
    downsampling: str = "concat",
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """ReActNet-A, a MobileNetV1 with binary convolutions and one shortcut around each, and its ablations.

    29343592 trainable parameters, 28253184 of them binary; at 224 x 224: 4816896000 BOPs, 11862016 FLOPs,
    87126016 OPs. The ablations have the same operations.

    The initial values are those of the authors' code, and so are the kernel quantizer and its gradient. Our
    choices: TensorFlow's alignment of `"same"` padding in strided convolutions (the authors' PyTorch code
    pads the other side; mirrored images and kernels make the two equal) and sign(0) = +1 (there 0). The
    ablations of Table 2 are not in that code; we assume that `activation` stands after both additions of a
    block, and that `downsampling="conv"` keeps the shortcut of the 3x3 convolution.

    # Arguments
        sign: What precedes each binary convolution: `"rsign"` or, without the learned shifts, `"sign"`. The
            gradient is the same.
        activation: What follows each addition: `"rprelu"`, `"prelu"` (one slope a channel, initially 0.25)
            or `None`.
        downsampling: How a block doubles the channels: `"concat"`, two binary 1x1 convolutions with the
            shortcut around each, or `"conv"`, a single one without a shortcut.
        input_shape: `(height, width, channels)`, by default `(224, 224, 3)`; height and width are multiples of 32.
        input_tensor: A Keras tensor to begin with instead of an input of its own.
        weights: `None` for initial values, a file, or the name of published ones, `"imagenet"`; see
            `larq_rep.zoo.load_weights`.
        include_top: Whether the classifier is included. Without it the network ends with its last feature map.
        num_classes: Number of logits, by default 1000.

    # References
        - [ReActNet: Towards Precise Binary Neural Network with Generalized Activation
          Functions](https://arxiv.org/abs/2003.03488)
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build(
        "ReActNetA",
        partial(_reactnet, network="ReActNetA"),
        common,
        sign=sign,
        activation=activation,
        downsampling=downsampling,
    )


class ReActNetAArguments(CommonArguments, total=False):
    sign: str
    activation: str | None
    downsampling: str


@register_rep(ReActNetA, source="code", weights=Published("https://github.com/imfinethanks/Rep_AdamBNN"))
def RepReActNetA(
    *,
    beta: int = 2,
    last_layer: int = 1,
    stem: str = "after_bn",
    bn: str = "after",
    **arguments: Unpack[ReActNetAArguments],
) -> tf.keras.Model:
    """`ReActNetA` after RepTran: every binary convolution is a RepConv.

    All feature maps have beta times the channels; binary weights and BOPs are the same.
    30432072 / 32609032 / 36962952 trainable parameters and 88150016 / 90198016 / 94294016 OPs at 224 x 224
    with beta = 2 / 4 / 8. The stem is repeated after its batch normalisation, as in the authors' code (the
    paper draws it before). 70.2 % is with the training of ReActNet, 71.3 % with the training of AdamBNN.

    # Arguments
        beta, last_layer, stem, bn: As in `larq_rep.reptran`.
        **arguments: Arguments of `ReActNetA`.

    # References
        - [RepBNN: towards a precise Binary Neural Network with Enhanced Feature Map via
          Repeating](https://arxiv.org/abs/2207.09049)
    """
    return build_rep("RepReActNetA", beta, last_layer, stem, bn, **arguments)


@register(
    family="reactnet",
    paper=REACTNET,
    dataset="imagenet",
    source="inferred",
    multiple=32,
    first_phase="real weights",
    variants=(Variant(results=(Result(70.1, None, "ReActNet, Table 1"),)),),
)
def ReActNetB(
    *,
    downsampling: str = "conv",
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """ReActNet-B: ReActNet-A with real 1x1 convolutions of 4 groups in the five blocks that double the channels.

    28818824 trainable parameters, 27554816 of them binary; at 224 x 224: 4688445440 BOPs, 43974656 FLOPs,
    117231616 OPs. (The paper prints 1.63e8 OPs, which its own BOPs and FLOPs contradict.)

    The authors published no code. That these are five blocks, the first included, follows from the printed
    BOPs and FLOPs. Our reading of "real-valued": the inputs are also real, and there is no RSign.

    # Arguments
        downsampling: `"conv"`, one real convolution to the doubled channels, without a shortcut, or
            `"concat"`, two of them with the shortcut around each, as in ReActNet-A. The paper's text and
            counts allow both.
        input_shape, input_tensor, weights, include_top, num_classes: As in `ReActNetA`.
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build("ReActNetB", partial(_reactnet, network="ReActNetB", real_groups=4), common, downsampling=downsampling)


@register(
    family="reactnet",
    paper=REACTNET,
    dataset="imagenet",
    source="inferred",
    multiple=32,
    first_phase="real weights",
    variants=(Variant(results=(Result(71.4, None, "ReActNet, Table 1"),)),),
)
def ReActNetC(
    *,
    downsampling: str = "conv",
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """ReActNet-C: ReActNet-A with real 1x1 convolutions in the five blocks that double the channels.

    29342600 trainable parameters, 27554816 of them binary; at 224 x 224: 4688445440 BOPs, 140312576 FLOPs,
    213569536 OPs.

    The authors published no code; our reading of the paper is that of `ReActNetB`.

    # Arguments
        downsampling: As in `ReActNetB`.
        input_shape, input_tensor, weights, include_top, num_classes: As in `ReActNetA`.
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build("ReActNetC", partial(_reactnet, network="ReActNetC", real_groups=1), common, downsampling=downsampling)


class ReActNetBArguments(CommonArguments, total=False):
    downsampling: str


@register_rep(ReActNetB)
def RepReActNetB(
    *,
    beta: int = 2,
    last_layer: int = 1,
    stem: str = "after_bn",
    bn: str = "after",
    **arguments: Unpack[ReActNetBArguments],
) -> tf.keras.Model:
    """`ReActNetB` after RepTran: every binary convolution is a RepConv.

    All feature maps have beta times the channels; binary weights and BOPs are the same.
    29906312 trainable parameters and 118255616 OPs at 224 x 224 with beta = 2. Not in the paper.

    # Arguments
        beta, last_layer, stem, bn: As in `larq_rep.reptran`.
        **arguments: Arguments of `ReActNetB`.

    # References
        - [RepBNN: towards a precise Binary Neural Network with Enhanced Feature Map via
          Repeating](https://arxiv.org/abs/2207.09049)
    """
    return build_rep("RepReActNetB", beta, last_layer, stem, bn, **arguments)


@register_rep(ReActNetC)
def RepReActNetC(
    *,
    beta: int = 2,
    last_layer: int = 1,
    stem: str = "after_bn",
    bn: str = "after",
    **arguments: Unpack[ReActNetBArguments],
) -> tf.keras.Model:
    """`ReActNetC` after RepTran: every binary convolution is a RepConv.

    All feature maps have beta times the channels; binary weights and BOPs are the same.
    30430088 trainable parameters and 214593536 OPs at 224 x 224 with beta = 2. Not in the paper.

    # Arguments
        beta, last_layer, stem, bn: As in `larq_rep.reptran`.
        **arguments: Arguments of `ReActNetC`.

    # References
        - [RepBNN: towards a precise Binary Neural Network with Enhanced Feature Map via
          Repeating](https://arxiv.org/abs/2207.09049)
    """
    return build_rep("RepReActNetC", beta, last_layer, stem, bn, **arguments)
