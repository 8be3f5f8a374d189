r"""ReActNet-A and Rep-ReActNet-A: MobileNetV1 with binary convolutions, one shortcut around each.

A block with \\(C\\) input and \\(D\\) output channels computes, with binary convolutions \\(*\\),

\\[a = \text{RPReLU}_1(\text{BN}_1(W_1 * \text{RSign}_1(x)) + S(x))\\]
\\[y = \text{RPReLU}_2(\text{BN}_2(W_2 * \text{RSign}_2(a)) + a)\\]

with a 3x3 and a 1x1 convolution. \\(S\\) is the identity, or 2x2 average pooling if the block has stride 2.
Where \\(D = 2C\\) the second line has two convolutions and two normalisations of \\(C\\) channels each, on
the same \\(\text{RSign}_2(a)\\) and with the same shortcut, and their sums are concatenated.
"""

import larq as lq
import tensorflow as tf

from larq_rep.layers import Repeat, RepQuantConv2D, RPReLU
from larq_rep.quantizers import RSign, ScaledSign
from larq_rep.zoo.registry import finish, image_input, last_features, register_model

# Output channels and stride of each block.
_BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))


def _batch_norm(x, name):
    return tf.keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)


def _uniform_fan_in():
    return tf.keras.initializers.VarianceScaling(1 / 3, mode="fan_in", distribution="uniform")


def _binary_conv(x, filters, kernel_size, strides, beta, name):
    """Convolution of the +1 and -1 of an RSign layer, padded with 0."""
    return RepQuantConv2D(
        filters,
        kernel_size,
        strides=strides,
        padding="valid" if kernel_size == 1 else "same",
        # The sign is a layer of its own, because two convolutions may share it: this marks what comes in.
        input_quantizer=lq.quantizers.NoOp(precision=1),
        kernel_quantizer=ScaledSign(),
        kernel_initializer=tf.keras.initializers.RandomUniform(0.0, 1e-3),
        use_bias=False,
        beta=beta,
        name=name,
    )(x)


def _block(x, filters, strides, beta, name):
    channels = x.shape[-1] // beta  # without repetition, as `filters`
    shortcut = x if strides == 1 else tf.keras.layers.AveragePooling2D(2, name=f"{name}_pool")(x)
    y = RSign(name=f"{name}_rsign1")(x)
    y = _binary_conv(y, channels, 3, strides, beta, f"{name}_conv3x3")
    y = _batch_norm(y, f"{name}_bn1")
    y = tf.keras.layers.Add(name=f"{name}_add1")([y, shortcut])
    a = RPReLU(name=f"{name}_rprelu1")(y)

    sign = RSign(name=f"{name}_rsign2")(a)
    if filters == channels:
        y = _binary_conv(sign, channels, 1, 1, beta, f"{name}_conv1x1")
        y = _batch_norm(y, f"{name}_bn2")
        y = tf.keras.layers.Add(name=f"{name}_add2")([y, a])
    else:
        branches = []
        for branch in (f"{name}_down1", f"{name}_down2"):
            y = _binary_conv(sign, channels, 1, 1, beta, f"{branch}_conv")
            y = _batch_norm(y, f"{branch}_bn")
            branches.append(tf.keras.layers.Add(name=f"{branch}_add")([y, a]))
        y = tf.keras.layers.Concatenate(name=f"{name}_concat")(branches)
    return RPReLU(name=f"{name}_rprelu2")(y)


def _reactnet_a(
    name, *, beta, last_layer, input_shape, input_tensor, weights, include_top, num_classes
) -> tf.keras.Model:
    inputs = image_input(name, input_shape, input_tensor, default=(224, 224, 3), multiple=32)
    x = tf.keras.layers.Conv2D(
        32,
        3,
        strides=2,
        padding="same",
        use_bias=False,
        kernel_initializer=_uniform_fan_in(),
        name="stem_conv",
    )(inputs)
    x = _batch_norm(x, "stem_bn")
    if beta != 1:
        x = Repeat(beta, name="stem_repeat")(x)
    for number, (filters, strides) in enumerate(_BLOCKS, start=1):
        x = _block(x, filters, strides, beta, f"block{number}")
    if include_top:
        x = last_features(x, name, beta, last_layer)
        bound = x.shape[-1] ** -0.5
        x = tf.keras.layers.Dense(
            num_classes,
            kernel_initializer=_uniform_fan_in(),
            bias_initializer=tf.keras.initializers.RandomUniform(-bound, bound),
            name="fc",
        )(x)
    return finish(name, inputs, x, weights)


@register_model
def ReActNetA(
    *, input_shape=None, input_tensor=None, weights=None, include_top=True, num_classes=1000
) -> tf.keras.Model:
    """Instantiates ReActNet-A.

    29343592 trainable parameters, 28253184 of them binary; at 224 x 224: 4816896000 BOPs, 11862016 FLOPs,
    87126016 OPs. Top-1 accuracy on ImageNet: 69.4 % (paper).

    The initial values are those of the authors' code, and so are the kernel quantizer and its gradient. Our
    choices: TensorFlow's alignment of `"same"` padding in strided convolutions (the authors' PyTorch code
    pads the other side; mirrored images and kernels make the two equal) and sign(0) = +1 (there 0).

    # Arguments
        input_shape: `(height, width, channels)`, default `(224, 224, 3)`. Height and width must be multiples
            of 32.
        input_tensor: A Keras tensor to use as image input instead.
        weights: `None` (initial values) or path of a file written by `save_weights` of the same network.
        include_top: Whether the classifier is included. Without it the network ends with its last feature map
            of shape `(N, height / 32, width / 32, 1024)`, before the global pooling.
        num_classes: Number of classes. The outputs are logits of shape `(N, num_classes)`.

    # Returns
        A Keras model.

    # Raises
        ValueError: If the input does not suit, or the weights do not fit.
        FileNotFoundError: If there is no file `weights`.

    # References
        - [ReActNet: Towards Precise Binary Neural Network with Generalized Activation
          Functions](https://arxiv.org/abs/2003.03488)
    """
    return _reactnet_a(
        "reactnet_a",
        beta=1,
        last_layer=1,
        input_shape=input_shape,
        input_tensor=input_tensor,
        weights=weights,
        include_top=include_top,
        num_classes=num_classes,
    )


@register_model
def RepReActNetA(
    *,
    beta=2,
    last_layer=1,
    input_shape=None,
    input_tensor=None,
    weights=None,
    include_top=True,
    num_classes=1000,
) -> tf.keras.Model:
    r"""Instantiates Rep-ReActNet-A, ReActNet-A with every binary convolution as RepConv.

    All feature maps have \\(\beta\\) times the channels of ReActNet-A; binary weights and BOPs are the same.
    30432072 / 32609032 / 36962952 trainable parameters and 88150016 / 90198016 / 94294016 OPs at 224 x 224
    with \\(\beta\\) = 2 / 4 / 8. Top-1 accuracy on ImageNet with \\(\beta\\) = 2: 70.2 %, and 71.34 % with
    the training of AdamBNN (paper).

    The stem is repeated after its batch normalisation, as in the authors' code (the paper draws it before).
    Our choices are those of `ReActNetA` and the channels of `last_layer`. `beta=1` is ReActNet-A.

    # Arguments
        beta: Repeat factor, must divide 32.
        last_layer: What the classifier takes: 1 (default, used in all networks of the paper) all channels,
            2 the first `1 / beta`, 3 the first `1 / beta**2` of them.
        input_shape, input_tensor, weights, include_top, num_classes: As in `ReActNetA`. The last feature map
            has `beta * 1024` channels.

    # Returns
        A Keras model.

    # Raises
        ValueError: If `beta` does not divide the filters of a convolution, `last_layer` is none of the three,
            the input does not suit or the weights do not fit.
        FileNotFoundError: If there is no file `weights`.

    # References
        - [RepBNN: towards a precise Binary Neural Network with Enhanced Feature Map via
          Repeating](https://arxiv.org/abs/2207.09049)
        - [ReActNet: Towards Precise Binary Neural Network with Generalized Activation
          Functions](https://arxiv.org/abs/2003.03488)
    """
    return _reactnet_a(
        "rep_reactnet_a",
        beta=beta,
        last_layer=last_layer,
        input_shape=input_shape,
        input_tensor=input_tensor,
        weights=weights,
        include_top=include_top,
        num_classes=num_classes,
    )
