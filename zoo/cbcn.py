r"""CBCN: Bi-Real-Net with four times the channels, whose filters are turns of latent ones.

A block computes, with a binary circulant convolution \\(*\\),

\\[y = \text{PReLU}(\text{BN}(W * \text{sign}(x)) + S(x))\\]

\\(S\\) is the identity, or a real 1x1 convolution, a batch normalisation and 2x2 average pooling, in this order, where
a stage begins with stride 2.
"""

import larq as lq
import tensorflow as tf

from larq_rep.layers import CirculantConv2D
from larq_rep.zoo.build import Common, Shape, Weights, build
from larq_rep.zoo.common import batch_norm, classifier, he_normal, real_conv
from larq_rep.zoo.methods import stages
from larq_rep.zoo.papers import CBCN
from larq_rep.zoo.reactnet import activate
from larq_rep.zoo.records import Result, Variant, register

_WIDTHS = (256, 512, 1024, 2048)


def _block(x, filters, strides, name):
    y = CirculantConv2D(
        filters,
        3,
        strides=strides,
        padding="same",
        input_quantizer=lq.quantizers.ApproxSign(),
        kernel_initializer=he_normal(),
        use_bias=False,
        name=f"{name}_conv",
    )(x)
    y = batch_norm(y, f"{name}_bn")
    if strides == 2:
        x = batch_norm(real_conv(x, filters, 1, f"{name}_downsample_0"), f"{name}_downsample_1")
        x = tf.keras.layers.AveragePooling2D(2, name=f"{name}_downsample_2")(x)
    x = tf.keras.layers.Add(name=f"{name}_add")([y, x])
    return activate(x, "prelu", f"{name}_prelu")


def _cbcn(image, num_classes):
    x = batch_norm(real_conv(image, _WIDTHS[0], 7, "conv1", strides=2), "bn1")
    x = activate(x, "prelu", "prelu")
    x = tf.keras.layers.MaxPool2D(3, 2, padding="same", name="maxpool")(x)
    return classifier(stages(x, _block, _WIDTHS, 4), num_classes, "fc")


@register(
    family="cbcn",
    paper=CBCN,
    dataset="imagenet",
    source="code",
    multiple=32,
    variants=(
        Variant(
            results=(
                Result(61.4, None, "ReActNet, Table 1"),
                Result(61.4, None, "README of the code, after fine-tuning with the centre loss"),
                Result(61.0, None, "README of the code"),
            )
        ),
    ),
)
def CBCNResNet18(
    *,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """CBCN, the circulant binary ResNet-18 with one convolution in a block and maps of 256 to 2048 channels.

    48835048 trainable parameters, 43941888 of them binary, each of which is in four filters; at 224 x 224: 26820476928
    BOPs, 1707229184 FLOPs, 2126299136 OPs, more than the real ResNet-18 has. A flatbuffer stores 175767552 binary
    weights.

    Our choices: TensorFlow's alignment of `"same"` padding in the strided convolutions and the max pooling, and
    sign(0) = +1 (there 0).

    # Arguments
        input_shape: `(height, width, channels)`, by default `(224, 224, 3)`; height and width are multiples of 32.
        input_tensor: A Keras tensor to begin with instead of an input of its own.
        weights: `None` for initial values, or a file; see `larq_rep.zoo.load_weights`.
        include_top: Whether the classifier is included. Without it the network ends with its last feature map.
        num_classes: Number of logits, by default 1000.

    # References
        - [Circulant Binary Convolutional Networks: Enhancing the Performance of 1-bit DCNNs with Circulant Back
          Propagation](https://arxiv.org/abs/1910.10853)
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build("CBCNResNet18", _cbcn, common)
