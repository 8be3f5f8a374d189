"""Real networks that the papers compare binary ones with: AlexNet and MobileNetV1.

The real ResNets are forms of `ResNet18` and `ResNet34`.
"""

import tensorflow as tf

from larq_rep.zoo.build import Common, Shape, Weights, build
from larq_rep.zoo.common import classifier, dense, uniform_fan_in
from larq_rep.zoo.papers import ALEXNET, MOBILENET
from larq_rep.zoo.records import Result, Variant, register

_keras = tf.keras.layers


def _alexnet(image, num_classes):
    def conv(x, filters, kernel_size, name, strides=1, padding="same"):
        initializer = uniform_fan_in()
        x = _keras.Conv2D(filters, kernel_size, strides, padding, kernel_initializer=initializer, name=f"conv{name}")(x)
        return _keras.ReLU(name=f"relu{name}")(x)

    def pool(x, number):
        return _keras.MaxPool2D(3, strides=2, name=f"pool{number}")(x)

    # "same" would pad with 3 and 4, for a map of 56 x 56 pixels instead of 55 x 55.
    x = pool(conv(_keras.ZeroPadding2D(2, name="pad")(image), 96, 11, 1, strides=4, padding="valid"), 1)
    x = pool(conv(x, 256, 5, 2), 2)
    x = conv(conv(conv(x, 384, 3, 3), 384, 3, 4), 256, 3, 5)
    if num_classes is None:
        return x
    x = _keras.Flatten(name="flatten")(pool(x, 5))
    for number in (6, 7):
        x = dense(_keras.Dropout(0.5, name=f"drop{number}")(x), 4096, f"fc{number}")
        x = _keras.ReLU(name=f"relu{number}")(x)
    return dense(x, num_classes, "fc8")


@register(
    family="references",
    paper=ALEXNET,
    dataset="imagenet",
    source="code",
    variants=(Variant(results=(Result(56.6, 80.2, "BinaryDenseNet, Table 6"),)),),
)
def AlexNet(
    *,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """AlexNet with real weights and activations, the reference of binary AlexNets: without groups and normalisation.

    62378344 trainable parameters (249.5 MB of 10^6 bytes); at 224 x 224: 1135256096 FLOPs. The layers are those of the
    code of XNOR-Net: convolutions of 96, 256, 384, 384 and 256 filters, two hidden layers of 4096 with dropout. Our
    choice: PyTorch's initial values for kernels.

    # Arguments
        input_shape: `(height, width, channels)`, by default `(224, 224, 3)`; at least 63 x 63.
        input_tensor: A Keras tensor to begin with instead of an input of its own.
        weights: `None` for initial values, or a file; see `larq_rep.zoo.load_weights`.
        include_top: Whether the dense layers are included. Without them the network ends with its last feature map.
        num_classes: Number of logits, by default 1000.

    # References
        - [ImageNet Classification with Deep Convolutional Neural Networks](https://doi.org/10.1145/3065386)
        - [XNOR-Net: ImageNet Classification Using Binary Convolutional Neural
          Networks](https://arxiv.org/abs/1603.05279), its code
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build("AlexNet", _alexnet, common)


def _mobilenet(image, num_classes, alpha):
    base = tf.keras.applications.MobileNet(alpha=alpha, include_top=False, weights=None, input_tensor=image)
    return classifier(base.output, num_classes, "fc")


@register(
    family="references",
    paper=MOBILENET,
    dataset="imagenet",
    source="paper",
    variants=(
        Variant({"alpha": 1.0}),
        Variant({"alpha": 0.5}, results=(Result(63.7, None, "ReActNet, section 5"),)),
    ),
)
def MobileNetV1(
    *,
    alpha: float = 1.0,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """`tf.keras.applications.MobileNet`, whose layout ReActNet-A has, with the zoo's classifier.

    4231976 trainable parameters and at 224 x 224 568740352 FLOPs; 1331592 and 149497088 with `alpha=0.5`. Layers are
    those of Keras: its padding, its batch normalisations, its initial values.

    # Arguments
        alpha: Factor of the channels of all layers.
        input_shape: `(height, width, channels)`, by default `(224, 224, 3)`; at least 32 x 32.
        input_tensor: A Keras tensor to begin with instead of an input of its own.
        weights: `None` for initial values, or a file; see `larq_rep.zoo.load_weights`.
        include_top: Whether the classifier is included. Without it the network ends with its last feature map.
        num_classes: Number of logits, by default 1000.

    # References
        - [MobileNets: Efficient Convolutional Neural Networks for Mobile Vision
          Applications](https://arxiv.org/abs/1704.04861)
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build("MobileNetV1", _mobilenet, common, alpha=alpha)
