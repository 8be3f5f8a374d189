"""SYQ's ResNet-18: 1-bit weights with a scale for each position of the window, activations of two bits."""

import tensorflow as tf

from larq_rep.quantizers import PositionScaled, Uniform
from larq_rep.zoo.build import Common, Shape, Weights, build
from larq_rep.zoo.dorefa import LEVELS, resnet18
from larq_rep.zoo.methods import Method
from larq_rep.zoo.papers import SYQ
from larq_rep.zoo.records import Result, Variant, register

_SCALED = "Their weights have a scale for each position of the window: Larq Compute Engine has one for each channel."


def _syq(image, num_classes):
    return resnet18(image, num_classes, lambda name: Uniform(2, name=name), Method(kernel_quantizer=PositionScaled))


@register(
    family="syq",
    paper=SYQ,
    dataset="imagenet",
    source="inferred",
    multiple=32,
    preprocessing=LEVELS,
    left_float={r"layer\d_\d_conv\d": _SCALED},
    left_behind=(r".*/position_scaled/scale:0",),
    first_phase="real weights",
    variants=(Variant(results=(Result(55.4, None, "ReActNet, Table 1"),)),),
)
def SYQResNet18(
    *,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """SYQ's ResNet-18 of 1-bit weights and 2-bit activations.

    11692028 trainable parameters, 11161600 of them binary and 148 scales. At 224 x 224 one binary convolution for each
    bit of the activations would have 3416784896 BOPs, and the rest has 118525952 FLOPs. But only the 1x1 convolutions
    are bitpacked: the scales of the nine positions of a 3x3 window cannot follow the sum over the window.

    The authors' code has only an AlexNet. Inferred: the layers are those of `DoReFaResNet18`. The training begins with
    a trained network of real weights, and the scales with the mean magnitudes of its kernels: see
    `larq_rep.quantizers.PositionScaled`.

    # Arguments
        input_shape: `(height, width, channels)`, by default `(224, 224, 3)`; height and width are multiples of 32.
        input_tensor: A Keras tensor to begin with instead of an input of its own.
        weights: `None` for initial values, or a file; see `larq_rep.zoo.load_weights`.
        include_top: Whether the classifier is included. Without it the network ends with its last feature map.
        num_classes: Number of logits, by default 1000.

    # References
        - [SYQ: Learning Symmetric Quantization For Efficient Deep Neural Networks](https://arxiv.org/abs/1807.00301)
    """
    return build("SYQResNet18", _syq, Common(input_shape, input_tensor, weights, include_top, num_classes))
