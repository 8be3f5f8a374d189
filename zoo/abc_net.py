r"""ABC-Net: a ResNet whose weights and activations are weighted sums of several binary ones.

A block computes, with an approximated convolution \\(*\\),

\\[y = W_1 * A_1(\text{BN}_1(x)) \qquad z = W_2 * A_2(\text{BN}_2(y)) + S(x)\\]
\\[W * A(x) = \sum_{i=1}^M \sum_{j=1}^N a_i b_j \, B_i * A_j(x)\\]

\\(S\\) is the identity, or such a convolution, strided and 1x1, of \\(\text{BN}_1(x)\\) and a batch normalisation.
"""

import larq as lq
import tensorflow as tf

from larq_rep.quantizers import BasisWeights, ShiftedSigns
from larq_rep.zoo.build import Common, Shape, Weights, build
from larq_rep.zoo.common import batch_norm, classifier, he_normal, real_conv
from larq_rep.zoo.methods import crop, relu, stages
from larq_rep.zoo.papers import ABC_NET
from larq_rep.zoo.records import Result, Variant, register


def _abc_net(image, num_classes, weight_bases, input_bases):
    def conv(x, filters, kernel_size, name, strides=1):
        return lq.layers.QuantConv2D(
            filters,
            kernel_size,
            strides=strides,
            padding="same",
            input_quantizer=ShiftedSigns(input_bases),
            kernel_quantizer=BasisWeights(weight_bases),
            kernel_initializer=he_normal(),
            use_bias=False,
            name=name,
        )(x)

    def block(x, filters, strides, name):
        y = batch_norm(x, f"{name}_bn1")
        if strides == 2:
            x = conv(crop(y, name), filters, 1, f"{name}_downsample_0", strides)
            x = batch_norm(x, f"{name}_downsample_1")
        y = conv(y, filters, 3, f"{name}_conv1", strides)
        y = conv(batch_norm(y, f"{name}_bn2"), filters, 3, f"{name}_conv2")
        return tf.keras.layers.Add(name=f"{name}_add2")([y, x])

    x = real_conv(image, 64, 7, "conv1", strides=2)
    x = tf.keras.layers.MaxPool2D(3, 2, padding="same", name="maxpool")(x)
    x = stages(x, block, (64, 128, 256, 512), 2)
    return classifier(relu(batch_norm(x, "bn")), num_classes, "fc")


@register(
    family="abc_net",
    paper=ABC_NET,
    dataset="imagenet",
    source="inferred",
    multiple=8,
    first_phase="real weights",
    variants=(
        Variant({"weight_bases": 5, "input_bases": 5}, results=(Result(65.0, None, "ReActNet, Table 1, (1/1) x 5"),)),
        Variant({"weight_bases": 1, "input_bases": 1}, results=(Result(42.7, 67.6, "BinaryDenseNet, Table 3"),)),
    ),
)
def ABCNet18(
    *,
    weight_bases: int = 5,
    input_bases: int = 5,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """ABC-Net on ResNet-18, with M binary kernels and N binary activations for each convolution.

    Each convolution is M x N binary ones. With five of each 11689702 trainable parameters; at 224 x 224: 42388684800
    BOPs, 118525952 FLOPs, 780849152 OPs; the 11157504 weights of these convolutions take 5 bits each. With one of each
    11689550, 1695547392 BOPs, 145018880 OPs.

    The authors' code is not public. Inferred: the order of a block, batch normalisation, activation, convolution; the
    binary shortcuts; shifts that begin at equal distances; the end, batch normalisation and ReLU. The first and the
    last layer are real.

    # Arguments
        weight_bases: Number M of binary kernels of a convolution.
        input_bases: Number N of binary activations of a convolution.
        input_shape: `(height, width, channels)`, by default `(224, 224, 3)`; height and width are multiples of 8.
        input_tensor: A Keras tensor to begin with instead of an input of its own.
        weights: `None` for initial values, or a file; see `larq_rep.zoo.load_weights`.
        include_top: Whether the classifier is included. Without it the network ends with its last feature map.
        num_classes: Number of logits, by default 1000.

    # References
        - [Towards Accurate Binary Convolutional Neural Network](https://arxiv.org/abs/1711.11294)
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build("ABCNet18", _abc_net, common, weight_bases=weight_bases, input_bases=input_bases)
