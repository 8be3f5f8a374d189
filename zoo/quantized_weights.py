r"""ResNet-18 with real activations and quantized weights: binary, ternary, or powers of two.

It is the real ResNet-18 with other weights. A block computes, with a quantizer \\(q\\) of the weights,

\\[y = \text{ReLU}(\text{BN}_1(q(W_1) * x)) \qquad z = \text{ReLU}(\text{BN}_2(q(W_2) * y) + S(x))\\]

\\(S\\) is the identity or, where a stage halves height and width, \\(\text{BN}(q(W_S) * x)\\) with a strided 1x1
convolution.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import larq as lq
import tensorflow as tf

from larq_rep.quantizers import CentredClip, PowerOfTwo, TernaryWeight, TrainedTernary, XNORSign
from larq_rep.zoo.build import Common, Shape, Weights, build
from larq_rep.zoo.common import he_normal, logits_dtype, uniform_fan_in
from larq_rep.zoo.methods import REAL_INPUT, Method, conv_shortcut, head, relu, residual_block, stages
from larq_rep.zoo.papers import INQ, TTQ, TWN, XNOR_NET
from larq_rep.zoo.records import Result, Variant, register

_SHORTCUT = partial(conv_shortcut, binary=True)
_RECORD: dict[str, Any] = {
    "family": "quantized_weights",
    "dataset": "imagenet",
    "source": "inferred",
    "multiple": 8,
}


def _method(kernel_quantizer: Callable[[], Any], **values: Any) -> Method:
    initializer = partial(he_normal, "fan_out")
    return Method(None, kernel_quantizer, kernel_initializer=initializer, activation=relu, **values)


def _resnet18(name: str, image: tf.Tensor, num_classes: int | None, width: int, method: Method) -> tf.Tensor:
    """All but the first convolution and the classifier have quantized weights."""
    x = _features(name, image, width, method, method.real_conv)
    return head(x, num_classes, "fc", norm=False)


def _features(name: str, image: tf.Tensor, width: int, method: Method, stem: Callable[..., tf.Tensor]) -> tf.Tensor:
    if not isinstance(width, int) or width < 1:
        raise ValueError(f"{name}: width must be a positive number of channels, found {width!r}.")
    x = relu(method.norm(stem(image, width, 7, "conv1", strides=2), "bn1"))
    x = tf.keras.layers.MaxPool2D(3, strides=2, padding="same", name="maxpool")(x)
    block = partial(residual_block, method=method, shortcut=_SHORTCUT, bireal=False)
    return stages(x, block, [width * times for times in (1, 2, 4, 8)], 2)


@register(
    **_RECORD,
    paper=XNOR_NET,
    left_float={r"layer\d_\d_(conv\d|downsample_0)": REAL_INPUT},
    variants=(Variant(results=(Result(60.8, None, "ReActNet, Table 1"),)),),
)
def BWNResNet18(
    *,
    width: int = 64,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """Binary-Weight-Network ResNet-18: the weights of XNOR-Net with real activations.

    11689512 trainable parameters, 11157504 of them binary, 3.360 MiB; at 224 x 224: 1814073344 FLOPs, which need
    additions only where the weights are binary.

    The scale of a filter is its mean magnitude; latent weights are centred and clipped, and have the gradient of
    XNOR-Net's code: see `larq_rep.quantizers.XNORSign` and `CentredClip`. That code has only an AlexNet. Inferred: the
    first convolution and the classifier are real, the convolutions of the shortcuts binary.

    # Arguments
        width: Channels of the first stage; the others have two, four and eight times as many.
        input_shape: `(height, width, channels)`, by default `(224, 224, 3)`; height and width are multiples of 8.
        input_tensor: A Keras tensor to begin with instead of an input of its own.
        weights: `None` for initial values, or a file; see `larq_rep.zoo.load_weights`.
        include_top: Whether the classifier is included. Without it the network ends with its last feature map.
        num_classes: Number of logits, by default 1000.

    # Raises
        ValueError: If `width` is not a positive integer.

    # References
        - [XNOR-Net: ImageNet Classification Using Binary Convolutional Neural
          Networks](https://arxiv.org/abs/1603.05279)
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    method = _method(XNORSign, kernel_constraint=CentredClip)
    return build("BWNResNet18", partial(_resnet18, "BWNResNet18", method=method), common, width=width)


@register(
    **_RECORD,
    paper=TWN,
    variants=(
        Variant({"width": 64}, results=(Result(61.8, None, "ReActNet, Table 1"),)),
        Variant({"width": 96}, results=(Result(65.3, 86.2, "TWN"),)),
    ),
)
def TWNResNet18(
    *,
    width: int = 64,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """Ternary Weight Network ResNet-18: weights of three values, real activations.

    11689512 trainable parameters, 11157504 of them ternary, 4.690 MiB with 2 bits each; at 224 x 224: 1814073344
    FLOPs. ResNet-18B, with `width=96`, has 25901896, 25104384, 9.028 MiB and 3992770560.

    A file holds a ternary weight in 32 bits, or without loss in 8 (`float_weights="int8"`). The paper's real networks
    have 65.4 % and 67.6 %. Inferred: the first convolution and the classifier are real, the convolutions of the
    shortcuts ternary.

    # Arguments
        width: Channels of the first stage, 64 or 96 in the paper; the others have two, four and eight times as many.
        input_shape, input_tensor, weights, include_top, num_classes: As in `BWNResNet18`.

    # Raises
        ValueError: If `width` is not a positive integer.

    # References
        - [Ternary Weight Networks](https://arxiv.org/abs/1605.04711)
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    method = _method(TernaryWeight)
    return build("TWNResNet18", partial(_resnet18, "TWNResNet18", method=method), common, width=width)


@register(
    **_RECORD,
    paper=TTQ,
    left_behind=(r".*/trained_ternary/(positive|negative):0",),
    first_phase="real weights",
    variants=(Variant({"width": 96}, results=(Result(66.6, None, "ReActNet, Table 1"),)),),
)
def TTQResNet18(
    *,
    width: int = 96,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """Trained Ternary Quantization ResNet-18: ternary weights with two learned scales, real activations.

    25901934 trainable parameters, 25104384 of them ternary, 9.028 MiB with 2 bits each; at 224 x 224: 3992770560
    FLOPs.

    The published accuracy is that of ResNet-18B, with 1.5 times the channels of ResNet-18, which tables that cite it do
    not say; so 96 channels are the default. The training begins with a trained real network. In an int8 file
    (`float_weights="int8"`) the smaller of the two magnitudes of a filter is rounded to 1/127 of the larger. Inferred:
    the first convolution and the classifier are real, the convolutions of the shortcuts ternary.

    # Arguments
        width: Channels of the first stage; the others have two, four and eight times as many.
        input_shape, input_tensor, weights, include_top, num_classes: As in `BWNResNet18`.

    # Raises
        ValueError: If `width` is not a positive integer.

    # References
        - [Trained Ternary Quantization](https://arxiv.org/abs/1612.01064)
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    method = _method(TrainedTernary)
    return build("TTQResNet18", partial(_resnet18, "TTQResNet18", method=method), common, width=width)


def _inq(image, num_classes, bits, width):
    method = _method(partial(PowerOfTwo, bits=bits))
    x = _features("INQResNet18", image, width, method, method.conv)
    if num_classes is None:
        return x
    x = tf.keras.layers.GlobalAveragePooling2D(name="pool")(x)
    bound, dtype = x.shape[-1] ** -0.5, logits_dtype()
    return lq.layers.QuantDense(
        num_classes,
        kernel_quantizer=PowerOfTwo(bits, dtype=dtype),
        kernel_initializer=uniform_fan_in(),
        bias_initializer=tf.keras.initializers.RandomUniform(-bound, bound),
        dtype=dtype,
        name="fc",
    )(x)


@register(
    **_RECORD,
    paper=INQ,
    left_behind=(r".*/power_of_two/(codes|largest):0",),
    first_phase="real weights",
    variants=(
        Variant({"bits": 2}, results=(Result(66.0, None, "ReActNet, Table 1"),)),
        Variant({"bits": 5}),
    ),
)
def INQResNet18(
    *,
    bits: int = 2,
    width: int = 64,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """Incremental Network Quantization ResNet-18: all weights are powers of two or 0, activations are real.

    11689512 trainable parameters, of which 11678912 are quantized, those of the first convolution and the classifier
    too; at 224 x 224: 1814073344 FLOPs.

    The training begins with a trained real network and freezes its weights in rounds, see
    `larq_rep.quantizers.PowerOfTwo`: what this constructor builds is a real network until then, and of a training the
    weights of the last epoch count, `load(..., weights="last")`. With 2 bits a file holds the weights without loss in 8
    (`float_weights="int8"`). Inferred: biases and batch normalisations stay real.

    # Arguments
        bits: Bits of a weight, 2 to 5: 0 and plus or minus `2 ** (bits - 2)` powers of two.
        width: Channels of the first stage; the others have two, four and eight times as many.
        input_shape, input_tensor, weights, include_top, num_classes: As in `BWNResNet18`.

    # Raises
        ValueError: If `width` is not a positive integer, or `bits` is not 2 to 5.

    # References
        - [Incremental Network Quantization: Towards Lossless CNNs with Low-Precision
          Weights](https://arxiv.org/abs/1702.03044)
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build("INQResNet18", _inq, common, bits=bits, width=width)
