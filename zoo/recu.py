r"""ReCU's ResNet-18 and -34 that are trained in two stages: the blocks of ReActNet with ReCU's binary convolutions,

\\[y = \text{RPReLU}(\text{BN}(\alpha\, (\text{sign}(W - \text{mean}(W)) * \text{sign}(x + b))) + S(x))\\]

with the shortcuts \\(S\\) of `larq_rep.zoo.bireal`.
"""

from functools import partial
from typing import Any

import larq as lq
import tensorflow as tf
from typing_extensions import Unpack

from larq_rep.quantizers import ReCURSign, ReCUSign
from larq_rep.zoo.bireal import one_convolution_blocks
from larq_rep.zoo.build import Common, CommonArguments, Shape, Weights, build, build_rep
from larq_rep.zoo.common import uniform_fan_in
from larq_rep.zoo.papers import RECU
from larq_rep.zoo.records import Result, Variant, register, register_rep

_RECORD: dict[str, Any] = {
    "family": "recu",
    "paper": RECU,
    "dataset": "imagenet",
    "source": "code",
    "multiple": 32,
    "first_phase": "real weights",
    # The first stage has no quantizer that could scale.
    "left_behind": (r".*/re_cu_sign/alpha:0",),
}


def _conv(x, filters, strides, name):
    return lq.layers.QuantConv2D(
        filters,
        3,
        strides=strides,
        padding="same",
        input_quantizer=ReCURSign(),
        kernel_quantizer=ReCUSign(),
        kernel_initializer=uniform_fan_in(),
        use_bias=False,
        name=f"{name}_conv",
    )(x)


_blocks = partial(one_convolution_blocks, conv=_conv, activation="rprelu")


@register(**_RECORD, variants=(Variant(results=(Result(66.4, None, "ReCU, trained in two stages"),)),))
def ReCUResNet18(
    *,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """ReCU's ResNet-18 that is trained in two stages: ReActNet-18 with the binary convolutions of ReCU.

    11708264 trainable parameters, 10985472 of them binary: those of `ReActNet18`, and a scale for each binary filter;
    at 224 x 224: 1676279808 BOPs, 137793536 FLOPs, 163985408 OPs. The network that ReCU's authors train in one stage is
    `ResNet18(method="recu")`.

    The first stage, a network with real weights and without the scales, is `larq_rep.training.with_real_weights` of it;
    the recipe `recu-two-stage` trains both. Initial values are PyTorch's for convolutions, our inference. Our choices:
    TensorFlow's alignment of `"same"` padding in the strided convolutions and the max-pooling (mirrored images and
    kernels make it equal to PyTorch's) and sign(0) = +1 (there 0).

    # Arguments
        input_shape: `(height, width, channels)`, by default `(224, 224, 3)`; height and width are multiples of 32.
        input_tensor: A Keras tensor to begin with instead of an input of its own.
        weights: `None` for initial values, or a file; see `larq_rep.zoo.load_weights`.
        include_top: Whether the classifier is included. Without it the network ends with its last feature map.
        num_classes: Number of logits, by default 1000.

    # References
        - [ReCU: Reviving the Dead Weights in Binary Neural Networks](https://arxiv.org/abs/2103.12369)
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build("ReCUResNet18", partial(_blocks, depth=18), common)


@register(**_RECORD)
def ReCUResNet34(
    *,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """ReCU's ResNet-34 that is trained in two stages: ReActNet-34 with the binary convolutions of ReCU.

    21834984 trainable parameters, 21086208 of them binary; at 224 x 224: 3525967872 BOPs, 137793536 FLOPs,
    192886784 OPs. Otherwise as `ReCUResNet18`.

    # Arguments
        input_shape, input_tensor, weights, include_top, num_classes: As in `ReCUResNet18`.
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build("ReCUResNet34", partial(_blocks, depth=34), common)


@register_rep(ReCUResNet18)
def RepReCUResNet18(
    *,
    beta: int = 2,
    last_layer: int = 1,
    stem: str = "after_bn",
    bn: str = "after",
    **arguments: Unpack[CommonArguments],
) -> tf.keras.Model:
    """`ReCUResNet18` after RepTran: every binary convolution is a RepConv.

    All feature maps have beta times the channels; binary weights and BOPs are the same.
    12242728 trainable parameters and 164497408 OPs at 224 x 224 with beta = 2. Not in the paper.

    # Arguments
        beta, last_layer, stem, bn: As in `larq_rep.reptran`.
        **arguments: Arguments of `ReCUResNet18`.

    # References
        - [RepBNN: towards a precise Binary Neural Network with Enhanced Feature Map via
          Repeating](https://arxiv.org/abs/2207.09049)
    """
    return build_rep("RepReCUResNet18", beta, last_layer, stem, bn, **arguments)


@register_rep(ReCUResNet34)
def RepReCUResNet34(
    *,
    beta: int = 2,
    last_layer: int = 1,
    stem: str = "after_bn",
    bn: str = "after",
    **arguments: Unpack[CommonArguments],
) -> tf.keras.Model:
    """`ReCUResNet34` after RepTran: every binary convolution is a RepConv.

    All feature maps have beta times the channels; binary weights and BOPs are the same.
    22389864 trainable parameters and 193398784 OPs at 224 x 224 with beta = 2. Not in the paper.

    # Arguments
        beta, last_layer, stem, bn: As in `larq_rep.reptran`.
        **arguments: Arguments of `ReCUResNet34`.

    # References
        - [RepBNN: towards a precise Binary Neural Network with Enhanced Feature Map via
          Repeating](https://arxiv.org/abs/2207.09049)
    """
    return build_rep("RepReCUResNet34", beta, last_layer, stem, bn, **arguments)
