r"""VGG-small for CIFAR-10 with binary convolutions, and Rep-VGG-small: no shortcuts.

Each binary layer computes, with 2x2 max pooling \\(P\\) in the layers 1, 3 and 5 and nothing in the others,

\\[y = \text{HT}(\text{BN}(P(W * \text{sign}(x))))\\]

with \\(\text{HT}(x) = \min(\max(x, -1), 1)\\).
"""

from dataclasses import replace
from functools import partial

import tensorflow as tf
from typing_extensions import Unpack

from larq_rep.quantizers import EDESign, LibraSign
from larq_rep.zoo.build import Common, CommonArguments, Shape, Weights, build, build_rep
from larq_rep.zoo.common import logits_dtype
from larq_rep.zoo.methods import METHODS
from larq_rep.zoo.papers import IR_NET, RBNN, RECU
from larq_rep.zoo.records import Result, Variant, choose, register, register_rep
from larq_rep.zoo.weights import RBNN_WEIGHTS, RECU_WEIGHTS

_METHODS = {
    "irnet": replace(
        METHODS["irnet"],
        # IR-Net trains VGG-small with an estimator that starts at this sharpness.
        input_quantizer=partial(EDESign, t=0.1),
        kernel_quantizer=partial(LibraSign, t=0.1),
    ),
    "rbnn": METHODS["rbnn"],
    "recu": METHODS["recu"],
}


def _he_normal_fan_out():
    return tf.keras.initializers.VarianceScaling(2.0, mode="fan_out", distribution="untruncated_normal")


def _vgg_small(image, num_classes, method, width):
    if not isinstance(width, int) or width < 1:
        raise ValueError(f"VGGSmall: width must be a positive number of channels, found {width!r}.")
    form = replace(_METHODS[choose("VGGSmall", "method", method, _METHODS)], kernel_initializer=_he_normal_fan_out)
    x = form.real_conv(image, width, 3, "conv0")
    x = form.activation(form.norm(x, "bn0"))
    for number, times in enumerate((1, 2, 2, 4, 4), start=1):
        x = form.conv(x, times * width, 3, f"conv{number}")
        if number % 2:
            x = tf.keras.layers.MaxPool2D(2, name=f"pool{number}")(x)
        x = form.activation(form.norm(x, f"bn{number}"))
    if num_classes is None:
        return x
    initializer = tf.keras.initializers.RandomNormal(stddev=0.01)
    x = tf.keras.layers.Flatten(name="flatten")(x)
    return tf.keras.layers.Dense(num_classes, kernel_initializer=initializer, dtype=logits_dtype(), name="fc")(x)


@register(
    family="vgg",
    paper=IR_NET,
    dataset="cifar10",
    source="code",
    multiple=8,
    variants=(
        Variant(
            {"method": "irnet"},
            results=(Result(90.4, None, "RepBNN, Tables 5 and 7"),),
            rep_results=(Result(86.95, None, "RepBNN, Table 5"), Result(86.9, None, "RepBNN, Table 7")),
        ),
        Variant(
            {"method": "rbnn"},
            paper=RBNN,
            weights=RBNN_WEIGHTS,
            results=(Result(91.3, None, "RepBNN, Table 7"),),
            rep_results=(Result(92.3, None, "RepBNN, Table 7"),),
        ),
        Variant(
            {"method": "recu"},
            paper=RECU,
            weights=RECU_WEIGHTS,
            results=(Result(92.22, None, "RepBNN, Table 5"), Result(92.2, None, "RepBNN, Table 7")),
            rep_results=(Result(92.41, None, "RepBNN, Table 5"), Result(92.4, None, "RepBNN, Table 7")),
        ),
    ),
)
def VGGSmall(
    *,
    method: str = "irnet",
    width: int = 128,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """VGG-small, five binary convolutions after a real one.

    4660106 trainable parameters, 4571136 of them binary; at 32 x 32: 603979776 BOPs, 3620864 FLOPs,
    13058048 OPs. The methods differ only in their quantizers, which have 1664 (ReCU) or 3328 (RBNN) parameters.

    Structure, names and initial values follow the authors' code. Our choices: the features are flattened in
    (height, width, channels) order, which only permutes the rows of the classifier's kernel, and
    sign(0) = +1 (there 0).

    # Arguments
        method: `"irnet"`, `"rbnn"` or `"recu"`.
        width: Channels of the first two convolutions; the others have two and four times as many.
        input_shape: `(height, width, channels)`, by default `(32, 32, 3)`; height and width are multiples of 8.
        input_tensor: A Keras tensor to begin with instead of an input of its own.
        weights: `None` for initial values, a file, or the name of published ones, `"cifar10"`; see
            `larq_rep.zoo.load_weights`.
        include_top: Whether the classifier is included. Without it the network ends with its last feature map.
        num_classes: Number of logits, by default 10.

    # References
        - [Forward and Backward Information Retention for Accurate Binary Neural
          Networks](https://arxiv.org/abs/1909.10788)
        - [Rotated Binary Neural Network](https://arxiv.org/abs/2009.13055)
        - [ReCU: Reviving the Dead Weights in Binary Neural Networks](https://arxiv.org/abs/2103.12369)
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build("VGGSmall", _vgg_small, common, method=method, width=width)


class VGGSmallArguments(CommonArguments, total=False):
    method: str
    width: int


@register_rep(VGGSmall)
def RepVGGSmall(
    *,
    beta: int = 2,
    last_layer: int = 1,
    stem: str = "before_bn",
    bn: str = "after",
    **arguments: Unpack[VGGSmallArguments],
) -> tf.keras.Model:
    """`VGGSmall` after RepTran: every binary convolution is a RepConv.

    All feature maps have beta times the channels; binary weights and BOPs are the same.
    4745610 / 4916618 / 5258634 trainable parameters with beta = 2 / 4 / 8; 13139968 OPs at 32 x 32 with
    beta = 2. The stem is repeated before its batch normalisation, as the paper says (no code is public).

    # Arguments
        beta, last_layer, stem, bn: As in `larq_rep.reptran`.
        **arguments: Arguments of `VGGSmall`.

    # References
        - [RepBNN: towards a precise Binary Neural Network with Enhanced Feature Map via
          Repeating](https://arxiv.org/abs/2207.09049)
    """
    return build_rep("RepVGGSmall", beta, last_layer, stem, bn, **arguments)
