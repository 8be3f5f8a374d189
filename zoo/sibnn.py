r"""SiBNN: ResNet-18 of Bi-Real-Net's blocks whose activations are binarized to 0 and 1, most of them to 0.

A block computes, with a shift \\(b\\) and a scale \\(s\\) for each channel,

\\[y = \text{BN}_2(W * 1[(\text{BN}_1(x) - b)\, s > 0]) + S\\]

\\(S\\) is \\(x\\), or a real 1x1 convolution, a batch normalisation and 2x2 average pooling of \\(x\\) where a stage
begins with stride 2.
"""

import larq as lq
import tensorflow as tf

from larq_rep.layers import ShiftedScale
from larq_rep.quantizers import ScaledBinary, ZeroOneSign
from larq_rep.zoo.build import Common, Shape, Weights, build
from larq_rep.zoo.common import batch_norm, real_conv, uniform_fan_in
from larq_rep.zoo.methods import Method, head, relu, stages
from larq_rep.zoo.papers import SIBNN
from larq_rep.zoo.records import Result, Variant, register

_METHOD = Method(
    input_quantizer=ZeroOneSign,
    kernel_quantizer=lambda: ScaledBinary(gradient="sibnn"),
    kernel_constraint=lambda: lq.constraints.WeightClip(1.0),
    kernel_initializer=uniform_fan_in,
)


def _block(x, filters, strides, name):
    y = ShiftedScale(name=f"{name}_shifted_scale")(batch_norm(x, f"{name}_bn1"))
    y = batch_norm(_METHOD.conv(y, filters, 3, f"{name}_conv", strides), f"{name}_bn2")
    if strides == 2:
        x = batch_norm(real_conv(x, filters, 1, f"{name}_down_conv"), f"{name}_down_bn")
        x = tf.keras.layers.AveragePooling2D(2, name=f"{name}_down_pool")(x)
    return tf.keras.layers.Add(name=f"{name}_add")([y, x])


def _sibnn(image, num_classes):
    x = batch_norm(real_conv(image, 64, 7, "conv1", strides=2), "bn1")
    x = tf.keras.layers.MaxPool2D(3, 2, padding="same", name="maxpool")(x)
    return head(relu(stages(x, _block, (64, 128, 256, 512), 4)), num_classes, "fc", norm=False)


@register(
    family="sibnn",
    paper=SIBNN,
    dataset="imagenet",
    source="code",
    multiple=32,
    variants=(Variant(results=(Result(62.17, 83.68, "README of the code"),)),),
)
def SiBNNResNet18(
    *,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """SiBNN's ResNet-18, a Bi-Real-Net whose binary activations are 0 and 1.

    11703080 trainable parameters, 10985472 of them binary; at 224 x 224: 1676279808 BOPs, 195596288 FLOPs, 221788160
    OPs. The 1x1 convolutions of the shortcuts stand before their pooling.

    It is the network of the authors' code. Our choices: the initial values, which are PyTorch's defaults, and
    TensorFlow's alignment of `"same"` padding in the strided convolutions and the max-pooling (mirrored images and
    kernels make it equal to PyTorch's).

    # Arguments
        input_shape: `(height, width, channels)`, by default `(224, 224, 3)`; height and width are multiples of 32.
        input_tensor: A Keras tensor to begin with instead of an input of its own.
        weights: `None` for initial values, or a file; see `larq_rep.zoo.load_weights`.
        include_top: Whether the classifier is included. Without it the network ends with its last feature map.
        num_classes: Number of logits, by default 1000.

    # References
        - [Sparsity-Inducing Binarized Neural Networks](https://doi.org/10.1609/aaai.v34i07.6900)
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build("SiBNNResNet18", _sibnn, common)
