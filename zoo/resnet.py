r"""ResNet-20 for CIFAR-10 with binary convolutions, and Rep-ResNet-20.

Each binary convolution has a shortcut of its own (Bi-Real style). A block computes

\\[y = \text{HT}(\text{BN}_1(W_1 * \text{sign}(x)) + S(x))\\]
\\[z = \text{HT}(\text{BN}_2(W_2 * \text{sign}(y)) + y)\\]

with \\(\text{HT}(x) = \min(\max(x, -1), 1)\\). \\(S\\) is the identity; where the number of channels doubles
it takes every second pixel and pads the channels with zeros, half of them in front, half behind (option A).
"""

import tensorflow as tf

from larq_rep.layers import Repeat, RepQuantConv2D
from larq_rep.quantizers import EDESign, LibraSign
from larq_rep.zoo.registry import finish, image_input, last_features, register_model

# IR-Net trains ResNet-20 with an estimator that starts at this sharpness.
_T_MIN = 1e-3


def _batch_norm(x, name):
    return tf.keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)


def _hard_tanh(x):
    # Not Activation("hard_tanh"): Keras cannot load a whole model with that from an .h5 file.
    return tf.clip_by_value(x, -1.0, 1.0)


def _he_normal():
    return tf.keras.initializers.VarianceScaling(2.0, mode="fan_in", distribution="untruncated_normal")


def _unit(x, shortcut, filters, strides, beta, block, number):
    """Binary convolution with shortcut; pads with 0 after the sign."""
    y = RepQuantConv2D(
        filters,
        3,
        strides=strides,
        padding="same",
        input_quantizer=EDESign(t=_T_MIN),
        kernel_quantizer=LibraSign(t=_T_MIN),
        kernel_initializer=_he_normal(),
        use_bias=False,
        beta=beta,
        name=f"{block}_conv{number}",
    )(x)
    y = _batch_norm(y, f"{block}_bn{number}")
    y = tf.keras.layers.Add(name=f"{block}_add{number}")([y, shortcut])
    return _hard_tanh(y)


def _block(x, filters, strides, beta, name):
    shortcut = x
    if strides == 2:
        # Pooling of single pixels picks [0::2, 0::2].
        shortcut = tf.keras.layers.AveragePooling2D(1, strides=2, name=f"{name}_sample")(shortcut)
        side = (beta * filters - x.shape[-1]) // 2
        shortcut = tf.pad(shortcut, [[0, 0], [0, 0], [0, 0], [side, side]])
    y = _unit(x, shortcut, filters, strides, beta, name, 1)
    return _unit(y, y, filters, 1, beta, name, 2)


def _resnet20(
    name, *, beta, last_layer, width, input_shape, input_tensor, weights, include_top, num_classes
) -> tf.keras.Model:
    if not isinstance(width, int) or width < 2 or width % 2:
        raise ValueError(f"{name}: width must be a positive even number of channels, found {width!r}.")
    inputs = image_input(name, input_shape, input_tensor, default=(32, 32, 3), multiple=4)
    x = tf.keras.layers.Conv2D(width, 3, padding="same", use_bias=False, kernel_initializer=_he_normal(), name="conv1")(
        inputs
    )
    if beta != 1:
        x = Repeat(beta, name="conv1_repeat")(x)
    x = _batch_norm(x, "bn1")
    x = _hard_tanh(x)
    for stage in (1, 2, 3):
        for block in range(3):
            strides = 2 if stage > 1 and block == 0 else 1
            x = _block(x, width * 2 ** (stage - 1), strides, beta, f"layer{stage}_{block}")
    if include_top:
        x = last_features(x, name, beta, last_layer)
        bound = x.shape[-1] ** -0.5
        x = _batch_norm(x, "bn2")
        x = tf.keras.layers.Dense(
            num_classes,
            kernel_initializer=_he_normal(),
            bias_initializer=tf.keras.initializers.RandomUniform(-bound, bound),
            name="linear",
        )(x)
    return finish(name, inputs, x, weights)


@register_model
def ResNet20(
    *, width=16, input_shape=None, input_tensor=None, weights=None, include_top=True, num_classes=10
) -> tf.keras.Model:
    """Instantiates ResNet-20 with the quantizers of IR-Net.

    269850 trainable parameters, 267264 of them binary; at 32 x 32: 40108032 BOPs, 443008 FLOPs, 1069696 OPs.
    Top-1 accuracy on CIFAR-10: 86.5 % (paper).

    Structure, names and initial values follow the authors' code. Our choices: TensorFlow's alignment of
    `"same"` padding in the two strided convolutions (the authors' PyTorch code pads the other side) and
    sign(0) = +1 (there 0). The estimator starts at t = 0.001, k = 1000; its schedule belongs to the training.

    # Arguments
        width: Channels of the first stage, even. The second and third have two and four times as many.
        input_shape: `(height, width, channels)`, default `(32, 32, 3)`. Height and width must be multiples
            of 4.
        input_tensor: A Keras tensor to use as image input instead.
        weights: `None` (initial values) or path of a file written by `save_weights` of the same network.
        include_top: Whether the classifier is included. Without it the network ends with its last feature map
            of shape `(N, height / 4, width / 4, 4 * channels of the first stage)`, before the global pooling.
        num_classes: Number of classes. The outputs are logits of shape `(N, num_classes)`.

    # Returns
        A Keras model.

    # Raises
        ValueError: If `width` or the input does not suit, or the weights do not fit.
        FileNotFoundError: If there is no file `weights`.

    # References
        - [Forward and Backward Information Retention for Accurate Binary Neural
          Networks](https://arxiv.org/abs/1909.10788)
    """
    return _resnet20(
        "resnet20",
        beta=1,
        last_layer=1,
        width=width,
        input_shape=input_shape,
        input_tensor=input_tensor,
        weights=weights,
        include_top=include_top,
        num_classes=num_classes,
    )


@register_model
def RepResNet20(
    *,
    beta=2,
    last_layer=1,
    width=16,
    input_shape=None,
    input_tensor=None,
    weights=None,
    include_top=True,
    num_classes=10,
) -> tf.keras.Model:
    r"""Instantiates Rep-ResNet-20, `ResNet20` with every binary convolution as RepConv.

    All feature maps have \\(\beta\\) times the channels of ResNet-20; binary weights and BOPs are the same.
    271994 / 276282 / 284858 trainable parameters and 1070336 / 1071616 / 1074176 OPs at 32 x 32 with
    \\(\beta\\) = 2 / 4 / 8. Top-1 accuracy on CIFAR-10: 87.59 / 88.07 / 87.07 % (paper).

    The stem is repeated before its batch normalisation, as the paper says (no code of it is public). The
    shortcut pads \\(\beta\\) times the channels on each side. Our choices are those of `ResNet20` and the
    channels of `last_layer`. `beta=1` is ResNet-20.

    # Arguments
        beta: Repeat factor, must divide `width`.
        last_layer: What the classifier takes: 1 (default, used in all networks of the paper) all channels,
            2 the first `1 / beta`, 3 the first `1 / beta**2` of them.
        width, input_shape, input_tensor, weights, include_top, num_classes: As in `ResNet20`. The last
            feature map has `beta` times the channels.

    # Returns
        A Keras model.

    # Raises
        ValueError: If `beta` does not divide the filters of a convolution, `last_layer` is none of the three,
            `width` or the input does not suit or the weights do not fit.
        FileNotFoundError: If there is no file `weights`.

    # References
        - [RepBNN: towards a precise Binary Neural Network with Enhanced Feature Map via
          Repeating](https://arxiv.org/abs/2207.09049)
        - [Forward and Backward Information Retention for Accurate Binary Neural
          Networks](https://arxiv.org/abs/1909.10788)
    """
    return _resnet20(
        "rep_resnet20",
        beta=beta,
        last_layer=last_layer,
        width=width,
        input_shape=input_shape,
        input_tensor=input_tensor,
        weights=weights,
        include_top=include_top,
        num_classes=num_classes,
    )
