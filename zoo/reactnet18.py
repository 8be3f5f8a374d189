r"""ReActNet-10, -18 and -34: ReActNet on Bi-Real-Net, whose blocks compute

\\[y = \text{RPReLU}(\text{BN}(W * \text{RSign}(x)) + S(x))\\]

with the shortcuts \\(S\\) of `larq_rep.zoo.bireal`.
"""

from functools import partial

import tensorflow as tf
from typing_extensions import Unpack

from larq_rep.datasets import CIFAR100_STATISTICS
from larq_rep.zoo.bireal import bireal
from larq_rep.zoo.build import Common, CommonArguments, Default, Shape, Weights, build, build_rep
from larq_rep.zoo.papers import PRESB, REACTNET
from larq_rep.zoo.records import Published, Result, Variant, register, register_rep


def _presb(top1, top5, source):
    """The published forms of a ReActNet in the PresB paper."""
    common = {"paper": PRESB, "preprocessing": CIFAR100_STATISTICS, "source": source}
    reason = "The input of the shortcut's convolution is real: only its weights are binary."
    return (
        Variant({"dataset": "cifar100"}, results=(Result(top1, top5, "PresB-Net, Table 3"),), **common),
        Variant(
            {"dataset": "cifar100", "shortcut": "binary"}, left_float={r"layer\d_0_downsample_1": reason}, **common
        ),
    )


@register(
    family="reactnet",
    paper=REACTNET,
    dataset="imagenet",
    source="code",
    multiple=32,
    first_phase="real weights",
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
def ReActNet18(
    *,
    dataset: str = "imagenet",
    shortcut: str = Default("real"),
    sign: str = "rsign",
    activation: str | None = "rprelu",
    width: int = 64,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
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
        input_shape: `(height, width, channels)`, by default that of `dataset`; height and width are multiples of 32 (8
            for CIFAR).
        input_tensor: A Keras tensor to begin with instead of an input of its own.
        weights: `None` for initial values, a file, or the name of published ones, `"imagenet"`; see
            `larq_rep.zoo.load_weights`.
        include_top: Whether the classifier is included. Without it the network ends with its last feature map.
        num_classes: Number of logits, by default the classes of `dataset`.

    # References
        - [ReActNet: Towards Precise Binary Neural Network with Generalized Activation
          Functions](https://arxiv.org/abs/2003.03488)
        - [PresB-Net: parametric binarized neural network with learnable activations and shuffled grouped
          convolution](https://doi.org/10.7717/peerj-cs.842)
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build(
        "ReActNet18",
        partial(bireal, depth=18),
        common,
        dataset=dataset,
        shortcut=shortcut,
        sign=sign,
        activation=activation,
        width=width,
    )


class ReActNet18Arguments(CommonArguments, total=False):
    dataset: str
    shortcut: str
    sign: str
    activation: str | None
    width: int


@register_rep(ReActNet18)
def RepReActNet18(
    *,
    beta: int = 2,
    last_layer: int = 1,
    stem: str = "after_bn",
    bn: str = "after",
    **arguments: Unpack[ReActNet18Arguments],
) -> tf.keras.Model:
    """`ReActNet18` after RepTran: every binary convolution is a RepConv.

    All feature maps have beta times the channels; binary weights and BOPs are the same.
    12240808 trainable parameters and 164497408 OPs at 224 x 224 with beta = 2. Not in the paper.

    # Arguments
        beta, last_layer, stem, bn: As in `larq_rep.reptran`.
        **arguments: Arguments of `ReActNet18`.

    # References
        - [RepBNN: towards a precise Binary Neural Network with Enhanced Feature Map via
          Repeating](https://arxiv.org/abs/2207.09049)
    """
    return build_rep("RepReActNet18", beta, last_layer, stem, bn, **arguments)


@register(
    family="reactnet",
    paper=REACTNET,
    dataset="imagenet",
    source="code",
    multiple=32,
    first_phase="real weights",
    cifar_multiple=8,
    variants=(Variant(), *_presb(70.89, 89.24, "inferred")),
)
def ReActNet34(
    *,
    dataset: str = "imagenet",
    shortcut: str = Default("real"),
    sign: str = "rsign",
    activation: str | None = "rprelu",
    width: int = 64,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """ReActNet on Bi-Real-Net-34: each sign is an RSign, and an RPReLU follows each shortcut.

    21827432 trainable parameters, 21086208 of them binary; at 224 x 224: 3525967872 BOPs, 137793536 FLOPs,
    192886784 OPs. For CIFAR-100 21358052 parameters. The ReActNet authors' code can build it, but they
    trained none. The structure for CIFAR is that of `ReActNet18`.

    # Arguments
        dataset, shortcut, sign, activation, width: As in `ReActNet18`.
        input_shape, input_tensor, weights, include_top, num_classes: As in `ReActNet18`.
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build(
        "ReActNet34",
        partial(bireal, depth=34),
        common,
        dataset=dataset,
        shortcut=shortcut,
        sign=sign,
        activation=activation,
        width=width,
    )


@register(
    family="reactnet",
    paper=PRESB,
    dataset="imagenet",
    source="inferred",
    multiple=32,
    first_phase="real weights",
    cifar_multiple=8,
    variants=(Variant(), *_presb(66.69, 85.83, "inferred")),
)
def ReActNet10(
    *,
    dataset: str = "imagenet",
    shortcut: str = Default("real"),
    sign: str = "rsign",
    activation: str | None = "rprelu",
    width: int = 64,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """`ReActNet18` with two binary convolutions in each of its four stages instead of four.

    5426024 trainable parameters, 4718592 of them binary; for CIFAR-100 4956644 and 11945984 OPs. The PresB-Net
    paper gives only its name and its accuracy, on CIFAR-100; the structure is our inference.

    # Arguments
        dataset, shortcut, sign, activation, width: As in `ReActNet18`.
        input_shape, input_tensor, weights, include_top, num_classes: As in `ReActNet18`.

    # References
        - [PresB-Net: parametric binarized neural network with learnable activations and shuffled grouped
          convolution](https://doi.org/10.7717/peerj-cs.842)
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build(
        "ReActNet10",
        partial(bireal, depth=10),
        common,
        dataset=dataset,
        shortcut=shortcut,
        sign=sign,
        activation=activation,
        width=width,
    )
