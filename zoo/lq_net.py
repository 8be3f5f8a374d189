r"""LQ-Nets: pre-activation ResNets of 1-bit weights and 2-bit activations whose levels are learned.

With the quantizer \\(Q\\) of the activations a block computes

\\[y = \text{BN}_2(W_2 * Q(\text{ReLU}(\text{BN}_1(W_1 * q)))) + S\\]

\\(q\\) is \\(Q(\text{ReLU}(\text{BN}(x)))\\) and \\(S\\) is \\(x\\). Where a stage begins, the stage before has
normalised and quantized \\(x\\): \\(q = x\\), and \\(S = \text{BN}(W_S * x)\\) with a strided 1x1 convolution. The very
first block has \\(q = Q(x)\\).
"""

from functools import partial

import tensorflow as tf

from larq_rep.quantizers import LearnedLevels, ScaledBinary
from larq_rep.zoo.build import Common, Shape, Weights, build
from larq_rep.zoo.common import batch_norm, he_normal
from larq_rep.zoo.methods import Method, head, relu
from larq_rep.zoo.papers import LQ_NETS
from larq_rep.zoo.records import Result, Variant, register

_FAN_OUT = partial(he_normal, "fan_out")
_METHOD = Method(kernel_quantizer=partial(ScaledBinary, scale="ema"), kernel_initializer=_FAN_OUT)


def _quantized(x, name):
    return LearnedLevels(name=name)(x)


def _block(x, filters, name, stage, number):
    begins = stage > 1 and number == 0
    strides = 2 if begins else 1
    shortcut, q = x, x
    if begins:
        # Its windows begin where those of the 3x3 convolution do, at the first pixel.
        shortcut = batch_norm(_METHOD.conv(x, filters, 1, f"{name}_shortcut", strides), f"{name}_shortcut_bn")
    else:
        if number > 0:
            q = relu(batch_norm(x, f"{name}_bn0"))
        q = _quantized(q, f"{name}_quantizer1")
    y = relu(batch_norm(_METHOD.conv(q, filters, 3, f"{name}_conv1", strides), f"{name}_bn1"))
    y = _METHOD.conv(_quantized(y, f"{name}_quantizer2"), filters, 3, f"{name}_conv2")
    return tf.keras.layers.Add(name=f"{name}_add")([batch_norm(y, f"{name}_bn2"), shortcut])


def _lq_net(image, num_classes, blocks):
    x = relu(batch_norm(_METHOD.real_conv(image, 64, 7, "conv1", strides=2), "bn1"))
    x = tf.keras.layers.MaxPool2D(3, 2, padding="same", name="maxpool")(x)
    for stage, count in enumerate(blocks, start=1):
        for number in range(count):
            x = _block(x, 64 * 2 ** (stage - 1), f"layer{stage}_{number}", stage, number)
        x = relu(batch_norm(x, f"layer{stage}_bn"))
        if stage < len(blocks):
            x = _quantized(x, f"layer{stage}_quantizer")
    return head(x, num_classes, "fc", norm=False)


@register(
    family="lq_net",
    paper=LQ_NETS,
    dataset="imagenet",
    source="code",
    multiple=32,
    variants=(Variant(results=(Result(62.6, 84.3, "README of the code; ReActNet, Table 1"),)),),
)
def LQNetResNet18(
    *,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """LQ-Nets' pre-activation ResNet-18 of 1-bit weights and 2-bit activations with learned levels.

    11693352 trainable parameters, 11157504 of them binary; at 224 x 224: 3391094784 BOPs, those of two binary
    convolutions for each convolution of 2 bits, 118525952 FLOPs, 171511808 OPs. No gradient changes the 4736 scales of
    binary filters and the 32 levels: they follow the weights and the activations in training.

    It is the network of the authors' code with its initial values and paddings, those of TensorFlow.

    # Arguments
        input_shape: `(height, width, channels)`, by default `(224, 224, 3)`; height and width are multiples of 32.
        input_tensor: A Keras tensor to begin with instead of an input of its own.
        weights: `None` for initial values, or a file; see `larq_rep.zoo.load_weights`.
        include_top: Whether the classifier is included. Without it the network ends with its last feature map.
        num_classes: Number of logits, by default 1000.

    # References
        - [LQ-Nets: Learned Quantization for Highly Accurate and Compact Deep Neural
          Networks](https://arxiv.org/abs/1807.10029)
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build("LQNetResNet18", partial(_lq_net, blocks=(2, 2, 2, 2)), common)


@register(
    family="lq_net",
    paper=LQ_NETS,
    dataset="imagenet",
    source="code",
    multiple=32,
    variants=(Variant(results=(Result(66.6, 86.9, "README of the code"),)),),
)
def LQNetResNet34(
    *,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """LQ-Nets' pre-activation ResNet-34 of 1-bit weights and 2-bit activations with learned levels.

    21805224 trainable parameters, 21258240 of them binary; at 224 x 224: 7090470912 BOPs, 118525952 FLOPs, 229314560
    OPs. Otherwise as `LQNetResNet18`.

    # Arguments
        input_shape, input_tensor, weights, include_top, num_classes: As in `LQNetResNet18`.
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build("LQNetResNet34", partial(_lq_net, blocks=(3, 4, 6, 3)), common)
