r"""BinaryConnect's network for CIFAR-10: VGG with binary weights in all layers, and real activations.

Each layer but the last computes, with 2x2 max pooling \\(P\\) in the second, fourth and sixth convolution and nothing
in the others,

\\[y = \text{ReLU}(\text{BN}(P(\text{sign}(W) * x)))\\]
"""

import larq as lq
import tensorflow as tf

from larq_rep.datasets import CIFAR10_STATISTICS
from larq_rep.zoo.build import Common, Shape, Weights, build
from larq_rep.zoo.common import batch_norm, logits_dtype
from larq_rep.zoo.methods import REAL_INPUT, relu
from larq_rep.zoo.papers import BINARY_CONNECT
from larq_rep.zoo.records import register


def _binary(kind, units, *kernel_size, inputs, name, dtype=None, **arguments):
    fans = (inputs + units) * (kernel_size[0] ** 2 if kernel_size else 1)
    limit = (1.5 / fans) ** 0.5
    return kind(
        units,
        *kernel_size,
        kernel_quantizer=lq.quantizers.SteSign(clip_value=None, dtype=dtype),
        kernel_constraint=lq.constraints.WeightClip(limit),
        kernel_initializer=tf.keras.initializers.RandomUniform(-limit, limit),
        use_bias=False,
        dtype=dtype,
        name=name,
        **arguments,
    )


def _vgg(image, num_classes, width):
    if not isinstance(width, int) or width < 1:
        raise ValueError(f"BinaryConnectVGG: width must be a positive number of channels, found {width!r}.")
    x = image
    for number, times in enumerate((1, 1, 2, 2, 4, 4), start=1):
        conv = lq.layers.QuantConv2D
        x = _binary(conv, times * width, 3, inputs=x.shape[-1], name=f"conv{number}", padding="same")(x)
        if number % 2 == 0:
            x = tf.keras.layers.MaxPool2D(2, name=f"pool{number}")(x)
        x = relu(batch_norm(x, f"bn{number}", epsilon=1e-4))
    if num_classes is None:
        return x
    x = tf.keras.layers.Flatten(name="flatten")(x)
    for number in (1, 2):
        x = _binary(lq.layers.QuantDense, 8 * width, inputs=x.shape[-1], name=f"fc{number}")(x)
        x = relu(batch_norm(x, f"bn{number + 6}", epsilon=1e-4))
    dtype = logits_dtype()
    x = _binary(lq.layers.QuantDense, num_classes, inputs=x.shape[-1], name="fc3", dtype=dtype)(x)
    return batch_norm(x, "bn9", epsilon=1e-4, dtype=dtype)


@register(
    family="binary_connect",
    paper=BINARY_CONNECT,
    dataset="cifar10",
    source="code",
    multiple=8,
    preprocessing=CIFAR10_STATISTICS,
    left_float={r"conv\d": REAL_INPUT, r"fc\d": REAL_INPUT},
)
def BinaryConnectVGG(
    *,
    width: int = 128,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """BinaryConnect's network: six convolutions and three dense layers with binary weights, real activations.

    14029716 trainable parameters, 14022016 of them binary, 1.701 MiB; at 32 x 32: 616966144 FLOPs, all of which need
    additions only. The paper has 9.90 % errors on CIFAR-10.

    It is the deterministic form: weights are the signs of the latent ones, without a scale, and the gradient is the
    identity. Structure and epsilons follow the authors' code. Our choices: layers before a batch normalisation have no
    bias, and the features are flattened in (height, width, channels) order, which changes no function; sign(0) = +1.

    The authors draw latent weights from -1 to 1, keep them there, and divide the learning rate of each layer by
    `r = sqrt(1.5 / (fan_in + fan_out))`. Here the latent weights go from -r to r, and all layers have one learning
    rate: for Adam that is the same training.

    # Arguments
        width: Channels of the first two convolutions; the next have two and four times, the dense layers eight times as
            many.
        input_shape: `(height, width, channels)`, by default `(32, 32, 3)`; height and width are multiples of 8.
        input_tensor: A Keras tensor to begin with instead of an input of its own.
        weights: `None` for initial values, or a file; see `larq_rep.zoo.load_weights`.
        include_top: Whether the dense layers are included. Without them the network ends with its last feature map.
        num_classes: Number of outputs, by default 10.

    # Raises
        ValueError: If `width` is not a positive integer.

    # References
        - [BinaryConnect: Training Deep Neural Networks with binary weights during
          propagations](https://arxiv.org/abs/1511.00363), and its code
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build("BinaryConnectVGG", _vgg, common, width=width)
