r"""DoReFa-Net's ResNet-18 of 1-bit weights and activations of several bits.

With the quantizer \\(Q\\) of the activations a block computes

\\[q = Q(\text{BN}_1(x)) \qquad y = W_2 * Q(\text{BN}_2(W_1 * q)) + S\\]

\\(S\\) is \\(x\\), or the 1x1 convolution \\(W_S * q\\) in the first block of each stage. All these convolutions have
stride 1: a stage that halves height and width begins with a 2x2 average pooling of \\(x\\).
"""

from collections.abc import Callable

import tensorflow as tf

from larq_rep.datasets import Statistics
from larq_rep.quantizers import DoReFaSign, Uniform
from larq_rep.zoo.build import Common, Shape, Weights, build
from larq_rep.zoo.common import batch_norm, dense, early_max_pool, he_normal
from larq_rep.zoo.methods import Method
from larq_rep.zoo.papers import DOREFA
from larq_rep.zoo.records import Result, Variant, register


def _block(x, filters, name, quantizer, method, begins):
    def quantized(x, number):
        return quantizer(name=f"{name}_quantizer{number}")(batch_norm(x, f"{name}_bn{number}"))

    q = quantized(x, 1)
    shortcut = method.conv(q, filters, 1, f"{name}_shortcut") if begins else x
    y = quantized(method.conv(q, filters, 3, f"{name}_conv1"), 2)
    y = method.conv(y, filters, 3, f"{name}_conv2")
    return tf.keras.layers.Add(name=f"{name}_add")([y, shortcut])


def resnet18(
    image: tf.Tensor, num_classes: int | None, quantizer: Callable[..., tf.keras.layers.Layer], method: Method
) -> tf.Tensor:
    """The ResNet-18 of DoReFa-Net's code, for any quantizers.

    # Arguments
        image, num_classes: As in `larq_rep.zoo.build.build`.
        quantizer: Makes the quantizer of the activations of one convolution, with the argument `name`.
        method: The convolutions of quantized maps. Their input is quantized already.
    """
    x = tf.keras.layers.ZeroPadding2D(((3, 2), (3, 2)), name="conv1_pad")(image)
    x = tf.keras.layers.Conv2D(64, 7, strides=2, kernel_initializer=he_normal(), name="conv1")(x)
    x = early_max_pool(x)
    for stage, filters in enumerate((64, 128, 256, 512), start=1):
        for number in range(2):
            name = f"layer{stage}_{number}"
            if stage > 1 and number == 0:
                x = tf.keras.layers.AveragePooling2D(2, name=f"{name}_pool")(x)
            x = _block(x, filters, name, quantizer, method, begins=number == 0)
    x = quantizer(name="quantizer")(batch_norm(x, "bn"))
    if num_classes is None:
        return x
    x = tf.keras.layers.GlobalAveragePooling2D(name="pool")(x)
    # The sum over the 49 pixels of the published size.
    x = tf.keras.layers.Rescaling(49.0, name="scale")(x)
    return dense(x, num_classes, "fc", kernel_initializer=he_normal())


def _dorefa(image, num_classes):
    return resnet18(image, num_classes, lambda name: Uniform(4, name=name), Method(kernel_quantizer=DoReFaSign))


# The code divides pixels of 0 to 255 by 256.
LEVELS = Statistics((0.0, 0.0, 0.0), (256 / 255, 256 / 255, 256 / 255))


@register(
    family="dorefa",
    paper=DOREFA,
    dataset="imagenet",
    source="code",
    multiple=32,
    preprocessing=LEVELS,
    variants=(Variant(results=(Result(59.2, 81.5, "released weights; ReActNet, Table 1"),)),),
)
def DoReFaResNet18(
    *,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """DoReFa-Net's ResNet-18 of 1-bit weights and 4-bit activations.

    11691880 trainable parameters, 11161600 of them binary; at 224 x 224: 6833569792 BOPs, those of four binary
    convolutions for each convolution of 4 bits, 118525952 FLOPs, 225300480 OPs.

    It is the network of the authors' code, with its initial values and paddings: it pads the image by 3 pixels in front
    and 2 behind, the max-pooling begins one pixel before the map, and the first convolution has a bias and no batch
    normalisation or activation. The mean of the last feature map is multiplied by 49. sign(0) is +1.

    # Arguments
        input_shape: `(height, width, channels)`, by default `(224, 224, 3)`; height and width are multiples of 32.
        input_tensor: A Keras tensor to begin with instead of an input of its own.
        weights: `None` for initial values, or a file; see `larq_rep.zoo.load_weights`.
        include_top: Whether the classifier is included. Without it the network ends with its last feature map.
        num_classes: Number of logits, by default 1000.

    # References
        - [DoReFa-Net: Training Low Bitwidth Convolutional Neural Networks with Low Bitwidth
          Gradients](https://arxiv.org/abs/1606.06160)
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build("DoReFaResNet18", _dorefa, common)
