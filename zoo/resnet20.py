r"""ResNet-20 for CIFAR-10 with binary or real convolutions, and Rep-ResNet-20.

With \\(\text{HT}(x) = \min(\max(x, -1), 1)\\) a block with a shortcut around each convolution (Bi-Real style)
and one with a shortcut around both compute

\\[y = \text{HT}(\text{BN}_1(W_1 * \text{sign}(x)) + S(x)) \qquad
z = \text{HT}(\text{BN}_2(W_2 * \text{sign}(y)) + y)\\]
\\[y = \text{HT}(\text{BN}_1(W_1 * \text{sign}(x))) \qquad z = \text{HT}(\text{BN}_2(W_2 * \text{sign}(y)) + S(x))\\]

and a block of FracBNN

\\[y = \text{BN}_3(\text{RPReLU}_1(\text{BN}_1(W_1 * \text{sign}(x))) + S(x)) \qquad
z = \text{BN}_4(\text{RPReLU}_2(\text{BN}_2(W_2 * \text{sign}(y))) + y)\\]

\\(S\\) is the identity, or has no parameters where the number of channels doubles.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import larq as lq
import tensorflow as tf
from typing_extensions import Unpack

from larq_rep.layers import PrecisionGate, RPReLU, ThermometerEncoding
from larq_rep.quantizers import EDESign, LibraSign, LowBitSign, QuantSign
from larq_rep.zoo.build import Common, CommonArguments, Default, Shape, Weights, build, build_rep
from larq_rep.zoo.common import batch_norm, hard_tanh, he_normal, uniform_fan_in
from larq_rep.zoo.methods import (
    METHODS,
    REAL_INPUT,
    Method,
    Shortcut,
    head,
    pooled_shortcut,
    relu,
    residual_block,
    sampled_shortcut,
    stages,
)
from larq_rep.zoo.papers import FRACBNN, IR_NET, RBNN, RECU, REPBNN, RESNET
from larq_rep.zoo.records import Preprocessing, Published, Result, Variant, choose, register, register_rep
from larq_rep.zoo.weights import RBNN_WEIGHTS, RECU_WEIGHTS


class _Form(NamedTuple):
    method: Method
    shortcut: Shortcut
    # A shortcut around each convolution.
    bireal: bool
    # Batch normalisation before the classifier.
    norm: bool
    classifier_initializer: Callable[[], tf.keras.initializers.Initializer] = he_normal
    # Behind the stem, if it is not that of the blocks.
    stem_activation: Callable[[tf.Tensor], tf.Tensor] | None = None


# IR-Net trains ResNet-20 with an estimator that starts at this sharpness.
_IR_NET = replace(
    METHODS["irnet"], input_quantizer=partial(EDESign, t=1e-3), kernel_quantizer=partial(LibraSign, t=1e-3)
)
# Its other ResNet-20s have the stem and the tail of the binary one.
_IR_NET_REAL = partial(_Form, shortcut=sampled_shortcut, bireal=False, norm=True, stem_activation=hard_tanh)
_RBNN = replace(METHODS["rbnn"], gamma=1e-8)
_FRACBNN = replace(METHODS["fracbnn"], kernel_initializer=uniform_fan_in)
# The input is binary already.
_OF_BITS = replace(_FRACBNN, input_quantizer=partial(lq.quantizers.NoOp, precision=1))
_FORMS = {
    "irnet": _Form(_IR_NET, sampled_shortcut, bireal=True, norm=True),
    "irnet_1w32a": _IR_NET_REAL(replace(_IR_NET, input_quantizer=None, activation=relu)),
    "irnet_real": _IR_NET_REAL(METHODS["real"]),
    "rbnn": _Form(_RBNN, sampled_shortcut, bireal=False, norm=True),
    "rbnn_bireal": _Form(_RBNN, sampled_shortcut, bireal=True, norm=True),
    "recu": _Form(METHODS["recu"], pooled_shortcut, bireal=True, norm=True, classifier_initializer=uniform_fan_in),
    "real": _Form(METHODS["real"], sampled_shortcut, bireal=False, norm=False),
    "real_bireal": _Form(METHODS["real"], sampled_shortcut, bireal=True, norm=False),
}
_METHODS = (*_FORMS, "fracbnn", "fracbnn_gated")

# FracBNN takes images in 0..1 as they are.
_NOT_NORMALISED = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def _gated_conv(x, filters, kernel_size, name, strides=1):
    """Convolutions of the high and, where that one is large, of the low bit of the activations."""
    conv = _OF_BITS.conv_layer(filters, kernel_size, name, strides)
    high = conv(QuantSign(bits=1, name=f"{name}_high")(x))
    low = conv(LowBitSign(name=f"{name}_low")(x))
    # Added to the loss in the authors' training.
    regularizer = tf.keras.regularizers.L2(0.5e-5)
    return PrecisionGate(threshold_regularizer=regularizer, name=f"{name}_gate")([high, low])


def _fracbnn_block(x, filters, strides, name, *, conv):
    shortcut = x
    if strides == 2:
        shortcut = tf.keras.layers.AveragePooling2D(2, name=f"{name}_pool")(x)
        shortcut = tf.keras.layers.Concatenate(name=f"{name}_concat")([shortcut, shortcut])
    y = batch_norm(conv(x, filters, 3, f"{name}_conv1", strides), f"{name}_bn1")
    y = tf.keras.layers.Add(name=f"{name}_add1")([RPReLU(name=f"{name}_rprelu1")(y), shortcut])
    y = batch_norm(y, f"{name}_bn3")
    z = batch_norm(conv(y, filters, 3, f"{name}_conv2"), f"{name}_bn2")
    z = tf.keras.layers.Add(name=f"{name}_add2")([RPReLU(name=f"{name}_rprelu2")(z), y])
    return batch_norm(z, f"{name}_bn4")


def _resnet20(image, num_classes, method, width):
    choose("ResNet20", "method", method, _METHODS)
    if not isinstance(width, int) or width < 2 or width % 2:
        raise ValueError(f"ResNet20: width must be a positive even number of channels, found {width!r}.")
    widths = (width, 2 * width, 4 * width)
    if method in _FORMS:
        form = _FORMS[method]
        x = form.method.norm(form.method.real_conv(image, width, 3, "conv1"), "bn1")
        block = partial(residual_block, method=form.method, shortcut=form.shortcut, bireal=form.bireal)
        x = stages((form.stem_activation or form.method.activation)(x), block, widths, 3)
        return head(x, num_classes, "linear", norm=form.norm, kernel_initializer=form.classifier_initializer())
    x = ThermometerEncoding(name="encoder")(image)
    x = batch_norm(_OF_BITS.conv(x, width, 3, "conv1"), "bn1")
    x = stages(x, partial(_fracbnn_block, conv=_FRACBNN.conv if method == "fracbnn" else _gated_conv), widths, 3)
    return head(x, num_classes, "linear", norm=False)


@register(
    family="resnet20",
    paper=IR_NET,
    dataset="cifar10",
    source="code",
    multiple=4,
    variants=(
        Variant(
            {"method": "irnet"},
            results=(Result(86.5, None, "RepBNN, Tables 2 to 5 and 7"),),
            rep_results=(
                Result(87.59, None, "RepBNN, Tables 2 to 5"),
                Result(87.6, None, "RepBNN, Table 7"),
                Result(88.07, None, "RepBNN, Table 3, beta=4"),
                Result(87.07, None, "RepBNN, Table 3, beta=8"),
                Result(87.5, None, "RepBNN, Table 2, last_layer=2"),
                Result(87.5, None, "RepBNN, Table 2, last_layer=3"),
                Result(82.74, None, 'RepBNN, Table 4, bn="before"'),
            ),
        ),
        Variant(
            {"method": "irnet_1w32a"},
            source="inferred",
            left_float={r"layer\d_\d_conv\d": REAL_INPUT},
        ),
        Variant({"method": "irnet_real"}, source="inferred"),
        Variant(
            {"method": "rbnn"},
            paper=RBNN,
            weights=RBNN_WEIGHTS,
            results=(Result(86.5, None, "RepBNN, Table 7"),),
            rep_results=(Result(88.6, None, "RepBNN, Table 7"),),
        ),
        Variant(
            {"method": "rbnn_bireal"},
            paper=RBNN,
            weights=RBNN_WEIGHTS,
            results=(Result(87.8, None, "RepBNN, Table 7"),),
            rep_results=(Result(88.7, None, "RepBNN, Table 7"),),
        ),
        Variant(
            {"method": "recu"},
            paper=RECU,
            weights=RECU_WEIGHTS,
            results=(Result(87.5, None, "RepBNN, Tables 2 to 5 and 7"),),
            rep_results=(
                Result(88.97, None, "RepBNN, Tables 2 to 5"),
                Result(89.0, None, "RepBNN, Table 7"),
                Result(89.59, None, "RepBNN, Table 3, beta=4"),
                Result(88.72, None, "RepBNN, Table 3, beta=8"),
                Result(88.92, None, "RepBNN, Table 2, last_layer=2"),
                Result(88.82, None, "RepBNN, Table 2, last_layer=3"),
                Result(85.3, None, 'RepBNN, Table 4, bn="before"'),
            ),
        ),
        Variant(
            {"method": "fracbnn"},
            paper=FRACBNN,
            preprocessing=_NOT_NORMALISED,
            # The authors' code has only the gated network.
            source="inferred",
            first_phase="real weights",
            results=(Result(87.2, None, "RepBNN, Table 7"),),
            rep_results=(Result(87.6, None, "RepBNN, Table 7"),),
        ),
        Variant(
            {"method": "fracbnn_gated"},
            paper=FRACBNN,
            first_phase="real weights",
            preprocessing=_NOT_NORMALISED,
            results=(Result(89.1, None, "FracBNN"),),
            weights=Published("https://github.com/cornell-zhang/FracBNN"),
        ),
        Variant(
            {"method": "real"},
            paper=RESNET,
            weights=Published("https://github.com/akamaster/pytorch_resnet_cifar10"),
            results=(Result(91.73, None, "RepBNN, Table 6"),),
            rep_results=(Result(90.62, None, "RepBNN, Table 6"),),
        ),
        Variant(
            {"method": "real_bireal"},
            paper=REPBNN,
            source="inferred",
            results=(Result(90.57, None, "RepBNN, Table 6"),),
            rep_results=(Result(90.84, None, "RepBNN, Table 6"),),
        ),
    ),
)
def ResNet20(
    *,
    method: str = Default("irnet"),
    width: int = 16,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """ResNet-20: a stem and three stages of three blocks of two 3x3 convolutions.

    269850 trainable parameters, 267264 of them binary; at 32 x 32: 40108032 BOPs, 443008 FLOPs, 1069696 OPs.
    `"rbnn"`, `"rbnn_bireal"` (271194 parameters) and `"recu"` (270522) have the same operations. `"irnet_1w32a"` has
    the same parameters, but real activations, so 40551040 FLOPs; in `"irnet_real"` the weights are real, too.

    | method | shortcut around | where channels double | activation | stem |
    |---|---|---|---|---|
    | `irnet`, `rbnn_bireal` | each convolution | every second pixel, zeros on both sides | hard tanh | real |
    | `irnet_1w32a`, `irnet_real` | two | the same | ReLU, hard tanh behind the stem | real |
    | `rbnn` | two | the same | hard tanh | real |
    | `recu` | each | 2x2 average, zeros on both sides | hard tanh | real |
    | `fracbnn`, `fracbnn_gated` | each | 2x2 average, twice | RPReLU | binary, on the thermometer code |
    | `real`, `real_bireal` | two, each | as `irnet` | ReLU | real |

    Zeros on both sides: half of the new channels in front, half behind. With `"fracbnn_gated"` the convolutions are
    fractional; `"fracbnn"` is the network with only one bit, for which the authors published no code. The code of
    `"real_bireal"` is not published either; ReLU stands behind the additions as hard tanh does. All but the two of
    FracBNN, `"real"` and `"real_bireal"` have a batch normalisation between pooling and classifier. FracBNN takes
    images in 0..1 that are not normalised.

    IR-Net's code has three networks whose weights have the same shapes: `"irnet"`, `"irnet_1w32a"` with real
    activations, and `"irnet_real"`. That the other two share stem and tail with `"irnet"` is our reading.

    Structure, names and initial values follow the authors' code. Our choices: TensorFlow's alignment of
    `"same"` padding in the two strided convolutions (the authors' PyTorch code pads the other side; mirrored
    images and kernels make the two equal) and sign(0) = +1 (there 0).

    # Arguments
        method: `"irnet"`, `"irnet_1w32a"`, `"irnet_real"`, `"rbnn"`, `"rbnn_bireal"`, `"recu"`, `"fracbnn"`,
            `"fracbnn_gated"`, `"real"` or `"real_bireal"`.
        width: Channels of the first stage, even. The second and third have two and four times as many.
        input_shape: `(height, width, channels)`, by default `(32, 32, 3)`; height and width are multiples of 4.
        input_tensor: A Keras tensor to begin with instead of an input of its own.
        weights: `None` for initial values, a file, or the name of published ones, `"cifar10"`; see
            `larq_rep.zoo.load_weights`.
        include_top: Whether the classifier is included. Without it the network ends with its last feature map.
        num_classes: Number of logits, by default 10.

    # Raises
        ValueError: If `width` or `method` does not suit.

    # References
        - [Forward and Backward Information Retention for Accurate Binary Neural
          Networks](https://arxiv.org/abs/1909.10788)
        - [Rotated Binary Neural Network](https://arxiv.org/abs/2009.13055)
        - [ReCU: Reviving the Dead Weights in Binary Neural Networks](https://arxiv.org/abs/2103.12369)
        - [FracBNN: Accurate and FPGA-Efficient Binary Neural Networks with Fractional
          Activations](https://arxiv.org/abs/2012.12206)
        - [Deep Residual Learning for Image Recognition](https://arxiv.org/abs/1512.03385)
        - [RepBNN: towards a precise Binary Neural Network with Enhanced Feature Map via
          Repeating](https://arxiv.org/abs/2207.09049)
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build("ResNet20", _resnet20, common, method=method, width=width)


class ResNet20Arguments(CommonArguments, total=False):
    method: str
    width: int


@register_rep(ResNet20)
def RepResNet20(
    *,
    beta: int = 2,
    last_layer: int = 1,
    stem: str = "before_bn",
    bn: str = "after",
    **arguments: Unpack[ResNet20Arguments],
) -> tf.keras.Model:
    """`ResNet20` after RepTran: every binary convolution is a RepConv.

    All feature maps have beta times the channels; binary weights and BOPs are the same.
    With IR-Net's quantizers 271994 / 276282 / 284858 trainable parameters and 1070336 / 1071616 / 1074176 OPs
    at 32 x 32 with beta = 2 / 4 / 8. The stem is repeated before its batch normalisation, as the paper says
    (no code is public). Shortcuts add beta times the channels.

    # Arguments
        beta, last_layer, stem, bn: As in `larq_rep.reptran`.
        **arguments: Arguments of `ResNet20`.

    # References
        - [RepBNN: towards a precise Binary Neural Network with Enhanced Feature Map via
          Repeating](https://arxiv.org/abs/2207.09049)
    """
    return build_rep("RepResNet20", beta, last_layer, stem, bn, **arguments)
