r"""HWGQ's ResNet-18 of 1-bit weights and 2-bit activations.

With the quantizer \\(Q\\) of the activations, and \\(N\\) a batch normalisation without factors and shifts, a block
computes

\\[y = \text{BN}(W_2 * Q(N(W_1 * q))) + S \qquad q = Q(N(x))\\]

\\(S\\) is \\(x\\), or \\(\text{BN}(W_S * q)\\) with a strided 1x1 convolution where the number of channels doubles.
"""

from functools import partial

import tensorflow as tf

from larq_rep.datasets import Statistics
from larq_rep.quantizers import ScaledBinary, Thermometer
from larq_rep.zoo.build import Common, Shape, Weights, build
from larq_rep.zoo.common import early_max_pool, he_normal
from larq_rep.zoo.methods import Method, conv_shortcut, head, relu, stages
from larq_rep.zoo.papers import HWGQ
from larq_rep.zoo.records import Result, Variant, register

# Caffe's statistics change more slowly than PyTorch's; its factors and shifts are a layer of their own.
_METHOD = Method(Thermometer, ScaledBinary, momentum=0.95)
_plain_norm = partial(_METHOD.norm, center=False, scale=False)


def _block(x, filters, strides, name):
    # The stem has normalised already.
    normalized = x if name == "layer1_0" else _plain_norm(x, f"{name}_bn0")
    shortcut = x if strides == 1 else conv_shortcut(normalized, filters, name, _METHOD, binary=True)
    y = _plain_norm(_METHOD.conv(normalized, filters, 3, f"{name}_conv1", strides), f"{name}_bn1")
    y = _METHOD.norm(_METHOD.conv(y, filters, 3, f"{name}_conv2"), f"{name}_bn2")
    return tf.keras.layers.Add(name=f"{name}_add")([y, shortcut])


def _hwgq(image, num_classes):
    conv = tf.keras.layers.Conv2D(64, 7, strides=2, padding="same", kernel_initializer=he_normal(), name="conv1")
    x = _plain_norm(early_max_pool(conv(image)), "bn1")
    x = relu(stages(x, _block, (64, 128, 256, 512), 2))
    return head(x, num_classes, "fc", norm=False, kernel_initializer=he_normal())


@register(
    family="hwgq",
    paper=HWGQ,
    dataset="imagenet",
    source="code",
    multiple=32,
    # The code subtracts a mean from pixels of 0 to 255.
    preprocessing=Statistics((123 / 255, 117 / 255, 104 / 255), (1 / 255, 1 / 255, 1 / 255)),
    variants=(Variant(results=(Result(59.6, 82.2, "HWGQ; ReActNet, Table 1"),)),),
)
def HWGQResNet18(
    *,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """HWGQ's ResNet-18 of 1-bit weights and 2-bit activations, half-wave Gaussian quantization.

    11685608 trainable parameters, 11157504 of them binary; at 224 x 224: 3391094784 BOPs, those of two binary
    convolutions for each convolution of 2 bits, 118525952 FLOPs, 171511808 OPs.

    It is the network of the authors' Caffe code, with its initial values and the momentum 0.95 of its statistics.
    Batch normalisations before a quantizer have no factors and shifts. The first convolution has a bias, and the
    max-pooling follows it directly. Only the last feature map passes a ReLU. Our choices: images are RGB, and
    TensorFlow's alignment of `"same"` padding in the strided convolutions. (Mirrored images and kernels make it equal
    to Caffe's, so the max-pooling is mirrored, too.)

    # Arguments
        input_shape: `(height, width, channels)`, by default `(224, 224, 3)`; height and width are multiples of 32.
        input_tensor: A Keras tensor to begin with instead of an input of its own.
        weights: `None` for initial values, or a file; see `larq_rep.zoo.load_weights`.
        include_top: Whether the classifier is included. Without it the network ends with its last feature map.
        num_classes: Number of logits, by default 1000.

    # References
        - [Deep Learning with Low Precision by Half-wave Gaussian Quantization](https://arxiv.org/abs/1702.00953)
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build("HWGQResNet18", _hwgq, common)
