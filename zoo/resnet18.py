r"""ResNet-18 for ImageNet and CIFAR and ResNet-34 with binary or real convolutions, and their Rep networks.

With \\(\text{HT}(x) = \min(\max(x, -1), 1)\\) the blocks of IR-Net, RBNN and ReCU compute for ImageNet, with a
shortcut around each convolution,

\\[y = \text{HT}(\text{BN}_1(W_1 * \text{sign}(x)) + S(x)) \qquad
z = \text{HT}(\text{BN}_2(W_2 * \text{sign}(y)) + y)\\]

and for CIFAR, with a shortcut around both,

\\[y = \text{HT}(\text{BN}_1(W_1 * \text{sign}(x))) \qquad z = \text{HT}(\text{BN}_2(W_2 * \text{sign}(y)) + S(x))\\]

The blocks of the real network are the same with ReLU and without signs. BNN normalises the sum and XNOR-Net the input
of each convolution:

\\[y = \text{HT}(\text{BN}_1(W_1 * \text{sign}(x))) \qquad z = \text{HT}(\text{BN}_2(W_2 * \text{sign}(y) + S(x)))\\]
\\[y = W_1 * \text{sign}(\text{BN}_1(x)) \qquad z = W_2 * \text{sign}(\text{BN}_2(y)) + S(x)\\]

\\(S\\) is the identity, or a strided 1x1 convolution and a batch normalisation where the number of channels
doubles (ReCU for CIFAR: average pooling, and zeros for the new channels).
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import larq as lq
import tensorflow as tf
from typing_extensions import Unpack

from larq_rep.layers import XNORScale
from larq_rep.quantizers import StandardizedSign
from larq_rep.zoo.build import Common, CommonArguments, Default, Shape, Weights, build, build_rep
from larq_rep.zoo.common import batch_norm, dense, hard_tanh, he_normal, logits_dtype, uniform_fan_in
from larq_rep.zoo.methods import (
    METHODS,
    REAL_INPUT,
    Method,
    Shortcut,
    conv_shortcut,
    head,
    pooled_shortcut,
    relu,
    residual_block,
    skipped,
    stages,
)
from larq_rep.zoo.papers import BNN, IR_NET, PRESB, RBNN, RECU, RESNET, TRAINED_BINARIZATION, XNOR_NET
from larq_rep.zoo.records import Result, Variant, choose, register, register_rep
from larq_rep.zoo.weights import RBNN_WEIGHTS, RECU_WEIGHTS


class _Form(NamedTuple):
    method: Method
    shortcut: Shortcut
    # A shortcut around each convolution.
    bireal: bool = False
    # Batch normalisation before the classifier.
    norm: bool = True
    # Behind the stem.
    stem_activation: Callable[[tf.Tensor], tf.Tensor] | None = hard_tanh


_DEFAULTS = {name: replace(METHODS[name], kernel_initializer=uniform_fan_in) for name in METHODS}
_SHORTCUT = partial(conv_shortcut, kind="shortcut")


def _rbnn_shortcut(x, filters, name, method):
    """A strided binary 1x1 convolution; the sign is taken of the activations minus their overall mean."""
    method = replace(method, input_quantizer=partial(StandardizedSign, crop=skipped(x)))
    return method.norm(method.conv(x, filters, 1, f"{name}_shortcut_0", strides=2), f"{name}_shortcut_1")


def _real_activations(method):
    return replace(method, input_quantizer=None, activation=relu)


_CIFAR = {
    "irnet": _Form(_DEFAULTS["irnet"], _SHORTCUT, stem_activation=None),
    "irnet_1w32a": _Form(_real_activations(_DEFAULTS["irnet"]), _SHORTCUT, stem_activation=None),
    "rbnn": _Form(_DEFAULTS["rbnn"], _rbnn_shortcut, stem_activation=None),
    "recu": _Form(METHODS["recu"], pooled_shortcut, stem_activation=None),
    "real": _Form(_DEFAULTS["real"], _SHORTCUT, norm=False, stem_activation=relu),
}
_FAN_OUT = partial(he_normal, "fan_out")
_IR_NET = replace(METHODS["irnet"], kernel_initializer=_FAN_OUT)
_IMAGENET = {
    "irnet": _Form(_IR_NET, conv_shortcut, bireal=True),
    "irnet_1w32a": _Form(_real_activations(_IR_NET), conv_shortcut),
    "rbnn": _Form(replace(METHODS["rbnn"], gamma=1e-8), conv_shortcut, bireal=True),
    "recu": _Form(replace(METHODS["recu"], gamma=1e-8), conv_shortcut, bireal=True),
    "real": _Form(
        replace(METHODS["real"], kernel_initializer=_FAN_OUT), conv_shortcut, norm=False, stem_activation=relu
    ),
}


def _imagenet_pool(x):
    return tf.keras.layers.MaxPool2D(3, strides=2, padding="same", name="maxpool")(x)


def _bnn_block(x, filters, strides, name):
    method = _DEFAULTS["bnn"]
    shortcut = x if strides == 1 else conv_shortcut(x, filters, name, method, binary=True)
    y = method.activation(method.norm(method.conv(x, filters, 3, f"{name}_conv1", strides), f"{name}_bn1"))
    y = method.conv(y, filters, 3, f"{name}_conv2")
    y = tf.keras.layers.Add(name=f"{name}_add2")([y, shortcut])
    return method.activation(method.norm(y, f"{name}_bn2"))


def _bnn(image, num_classes, binary_classifier):
    method = _DEFAULTS["bnn"]
    # Binary weights on a real image.
    x = replace(method, input_quantizer=None).conv(image, 64, 7, "conv1", strides=2)
    x = method.activation(method.norm(_imagenet_pool(x), "bn1"))
    x = stages(x, _bnn_block, _WIDTHS, 2)
    if num_classes is None:
        return x
    x = tf.keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = method.activation(method.norm(x, "bn2"))
    if not binary_classifier:
        return dense(x, num_classes, "fc")
    bound = x.shape[-1] ** -0.5
    dtype = logits_dtype()
    x = lq.layers.QuantDense(
        num_classes,
        input_quantizer=lq.quantizers.SteSign(clip_value=None, dtype=dtype),
        kernel_quantizer=lq.quantizers.SteSign(clip_value=None, dtype=dtype),
        kernel_initializer=uniform_fan_in(),
        bias_initializer=tf.keras.initializers.RandomUniform(-bound, bound),
        dtype=dtype,
        name="fc",
    )(x)
    return method.norm(x, "bn3", dtype=dtype)


def _xnor_block(x, filters, strides, name, *, method, scale):
    def conv(x, strides, number):
        # The epsilon of XNOR-Net's code.
        x = batch_norm(x, f"{name}_bn{number}", epsilon=1e-4)
        y = method.conv(x, filters, 3, f"{name}_conv{number}", strides)
        if not scale:
            return y
        scales = XNORScale(3, strides=strides, name=f"{name}_scale{number}")(x)
        return tf.keras.layers.Multiply(name=f"{name}_multiply{number}")([y, scales])

    shortcut = x if strides == 1 else conv_shortcut(x, filters, name, method)
    y = conv(conv(x, strides, 1), 1, 2)
    return tf.keras.layers.Add(name=f"{name}_add2")([y, shortcut])


def _xnor(image, num_classes, method, scale):
    x = method.norm(method.real_conv(image, 64, 7, "conv1", strides=2), "bn1")
    x = stages(_imagenet_pool(relu(x)), partial(_xnor_block, method=method, scale=scale), _WIDTHS, 2)
    return head(x, num_classes, "fc", norm=False)


_WIDTHS = (64, 128, 256, 512)
_LEFT_FLOAT = {"conv1": "its input is the real image"}
_REAL_INPUTS = {r"layer\d_\d_conv\d": REAL_INPUT}
_INFERRED: dict[str, Any] = dict(source="inferred")


def _resnet18(image, num_classes, method, dataset, scale, binary_classifier):
    methods = (*_IMAGENET, "bnn", "xnor", "xnor_trained") if dataset == "imagenet" else tuple(_CIFAR)
    choose("ResNet18", f"for {dataset} the method", method, methods)
    if scale and method != "xnor":
        raise ValueError(f"ResNet18: scale is an option of method='xnor' alone, found {method!r}.")
    if binary_classifier and method != "bnn":
        raise ValueError(f"ResNet18: binary_classifier is an option of method='bnn' alone, found {method!r}.")
    if method == "bnn":
        return _bnn(image, num_classes, binary_classifier)
    if method in ("xnor", "xnor_trained"):
        return _xnor(image, num_classes, _DEFAULTS[method], scale)
    form = (_IMAGENET if dataset == "imagenet" else _CIFAR)[method]
    return _residual(image, num_classes, form, dataset, (2, 2, 2, 2))


def _residual(image, num_classes, form, dataset, blocks):
    kernel_size, strides = (7, 2) if dataset == "imagenet" else (3, 1)
    x = form.method.norm(form.method.real_conv(image, 64, kernel_size, "conv1", strides), "bn1")
    if form.stem_activation:
        x = form.stem_activation(x)
    if dataset == "imagenet":
        x = _imagenet_pool(x)
    block = partial(residual_block, method=form.method, shortcut=form.shortcut, bireal=form.bireal)
    x = stages(x, block, _WIDTHS, blocks)
    return head(x, num_classes, "fc" if dataset == "imagenet" else "linear", norm=form.norm)


@register(
    family="resnet18",
    paper=IR_NET,
    dataset="imagenet",
    source="code",
    multiple=8,
    variants=(
        Variant({"method": "irnet"}, results=(Result(58.1, 80.0, "RepBNN, Table 8"),)),
        Variant({"method": "rbnn"}, paper=RBNN, results=(Result(59.9, 81.9, "RepBNN, Table 8"),), weights=RBNN_WEIGHTS),
        Variant(
            {"method": "recu"},
            paper=RECU,
            results=(Result(61.0, 82.6, "RepBNN, Table 8"),),
            rep_results=(Result(62.3, 83.8, "RepBNN, Table 8"),),
            weights=RECU_WEIGHTS,
        ),
        Variant(
            {"method": "bnn"},
            paper=BNN,
            results=(Result(42.2, 67.1, "RepBNN, Table 8"),),
            left_float=_LEFT_FLOAT,
            **_INFERRED,
        ),
        Variant({"method": "bnn", "binary_classifier": True}, paper=BNN, left_float=_LEFT_FLOAT, **_INFERRED),
        Variant(
            {"method": "xnor", "scale": True},
            paper=XNOR_NET,
            results=(Result(51.2, 73.2, "RepBNN, Table 8"),),
            **_INFERRED,
        ),
        Variant({"method": "xnor"}, paper=XNOR_NET, **_INFERRED),
        Variant(
            {"method": "xnor_trained"},
            paper=TRAINED_BINARIZATION,
            results=(Result(54.2, None, "ReActNet, Table 1"),),
            **_INFERRED,
        ),
        Variant({"method": "real"}, paper=RESNET, results=(Result(69.3, 89.2, "PresB-Net, Table 4"),)),
        Variant({"method": "irnet", "dataset": "cifar10"}),
        Variant(
            {"method": "irnet_1w32a"}, results=(Result(66.5, 86.8, "IR-Net"),), left_float=_REAL_INPUTS, **_INFERRED
        ),
        Variant({"method": "irnet_1w32a", "dataset": "cifar10"}, left_float=_REAL_INPUTS, **_INFERRED),
        Variant(
            {"method": "rbnn", "dataset": "cifar10"},
            paper=RBNN,
            results=(Result(92.2, None, "RepBNN, Table 7"),),
            rep_results=(Result(93.1, None, "RepBNN, Table 7"),),
            weights=RBNN_WEIGHTS,
        ),
        Variant(
            {"method": "recu", "dataset": "cifar10"},
            paper=RECU,
            results=(Result(92.8, None, "RepBNN, Table 7"),),
            rep_results=(Result(93.6, None, "RepBNN, Table 7"),),
            weights=RECU_WEIGHTS,
        ),
        Variant(
            {"method": "real", "dataset": "cifar100"},
            paper=PRESB,
            source="inferred",
            results=(Result(75.61, 93.05, "PresB-Net, Table 3"),),
        ),
    ),
)
def ResNet18(
    *,
    method: str = Default("irnet"),
    dataset: str = "imagenet",
    scale: bool = False,
    binary_classifier: bool = False,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """ResNet-18: a stem and four stages of two blocks of two 3x3 convolutions.

    For ImageNet with IR-Net, 11690536 trainable parameters, 10985472 of them binary; at 224 x 224: 1676279808
    BOPs, 137793536 FLOPs, 163985408 OPs. RBNN has 11698216 parameters and ReCU 11694376, with the same
    operations, as has XNOR-Net, if its scale K is not counted. BNN, whose shortcuts are binary too, has
    145018880 OPs, or 144514880 with a binary classifier. For CIFAR-10: 16618496 OPs with IR-Net, 10425344 with RBNN
    (binary shortcut convolutions), 10327040 with ReCU (none).

    The ImageNet stem is a 7x7 convolution with stride 2, hard tanh and max pooling, the CIFAR stem a 3x3 convolution
    without activation; the real networks have ReLU in both. IR-Net, RBNN, ReCU and BNN have a batch normalisation
    between pooling and classifier. The models of the IR-Net and RBNN code for ImageNet hold another one that they never
    use (`bn3`, 2000 parameters); it is not built. The outputs of IR-Net's models are the logarithms of the softmax of
    these logits.

    `"irnet_1w32a"` is IR-Net's network with real activations: 1-bit weights, real inputs, ReLU, and a shortcut around
    each two convolutions; 1814073344 FLOPs for ImageNet. That its stem, its shortcuts and its tail are those of
    `"irnet"` is our reading.

    Their authors published no ResNet-18 for BNN and XNOR-Net. BNN follows the intent of its ImageNet code, where the
    stem also has binary weights; a real classifier, which accounts of its operations assume, is the default. XNOR-Net
    has a real stem with ReLU, real shortcut convolutions and no other ReLU. There is no code of trained binarization
    either: `"xnor_trained"` is our XNOR-Net with a trained scale for each filter in place of the mean magnitude, as in
    the first case of XNOR-Net++; 3840 parameters more. The gradient of its signs is the identity, and nothing
    constrains its latent weights.

    Structure, names and initial values follow the authors' code where it exists. Our choices: TensorFlow's
    alignment of `"same"` padding in strided convolutions and the max pooling (PyTorch code pads the other side;
    mirrored images and kernels make the two equal) and sign(0) = +1 (there 0).

    # Arguments
        method: `"irnet"`, `"irnet_1w32a"`, `"rbnn"`, `"recu"` or `"real"`; for ImageNet also `"bnn"`, `"xnor"` and
            `"xnor_trained"`.
        dataset: `"imagenet"`, `"cifar10"` or `"cifar100"`: stem, blocks, default input and classes.
        scale: Whether XNOR-Net multiplies with the scales K of its inputs, as its paper but not its code does.
        binary_classifier: Whether the classifier of BNN is binary, with a batch normalisation behind it.
        input_shape: `(height, width, channels)`, by default that of `dataset`; height and width are multiples of 8.
        input_tensor: A Keras tensor to begin with instead of an input of its own.
        weights: `None` for initial values, a file, or the name of published ones, `"cifar10"` or `"imagenet"`; see
            `larq_rep.zoo.load_weights`.
        include_top: Whether the classifier is included. Without it the network ends with its last feature map.
        num_classes: Number of logits, by default the classes of `dataset`.

    # Raises
        ValueError: If the method does not suit the data set or an option.

    # References
        - [Forward and Backward Information Retention for Accurate Binary Neural
          Networks](https://arxiv.org/abs/1909.10788)
        - [Rotated Binary Neural Network](https://arxiv.org/abs/2009.13055)
        - [ReCU: Reviving the Dead Weights in Binary Neural Networks](https://arxiv.org/abs/2103.12369)
        - [Binarized Neural Networks: Training Deep Neural Networks with Weights and Activations Constrained to +1 or
          -1](https://arxiv.org/abs/1602.02830)
        - [XNOR-Net: ImageNet Classification Using Binary Convolutional Neural
          Networks](https://arxiv.org/abs/1603.05279)
        - [Accurate and Compact Convolutional Neural Networks with Trained
          Binarization](https://arxiv.org/abs/1909.11366)
        - [Deep Residual Learning for Image Recognition](https://arxiv.org/abs/1512.03385)
        - [PresB-Net: parametric binarized neural network with learnable activations and shuffled grouped
          convolution](https://doi.org/10.7717/peerj-cs.842)
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build(
        "ResNet18", _resnet18, common, method=method, dataset=dataset, scale=scale, binary_classifier=binary_classifier
    )


class ResNet18Arguments(CommonArguments, total=False):
    method: str
    dataset: str
    scale: bool
    binary_classifier: bool


@register_rep(ResNet18)
def RepResNet18(
    *,
    beta: int = 2,
    last_layer: int = 1,
    stem: str = "before_bn",
    bn: str = "after",
    **arguments: Unpack[ResNet18Arguments],
) -> tf.keras.Model:
    """`ResNet18` after RepTran: every binary convolution is a RepConv.

    All feature maps have beta times the channels; binary weights and BOPs are the same. For ImageNet with ReCU 12215080
    / 13259368 trainable parameters with beta = 2 / 4, 164497408 OPs at 224 x 224 with beta = 2. The stem is repeated
    before its batch normalisation, as the paper says (no code is public).

    # Arguments
        beta, last_layer, stem, bn: As in `larq_rep.reptran`.
        **arguments: Arguments of `ResNet18`.

    # References
        - [RepBNN: towards a precise Binary Neural Network with Enhanced Feature Map via
          Repeating](https://arxiv.org/abs/2207.09049)
    """
    return build_rep("RepResNet18", beta, last_layer, stem, bn, **arguments)


def _resnet34(image, num_classes, method):
    choose("ResNet34", "method", method, ("irnet", "irnet_1w32a", "real"))
    return _residual(image, num_classes, _IMAGENET[method], "imagenet", (3, 4, 6, 3))


@register(
    family="resnet18",
    paper=IR_NET,
    dataset="imagenet",
    source="code",
    multiple=8,
    variants=(
        Variant({"method": "irnet"}, results=(Result(62.9, 84.1, "IR-Net"),)),
        Variant(
            {"method": "irnet_1w32a"}, results=(Result(70.4, 89.5, "IR-Net"),), left_float=_REAL_INPUTS, **_INFERRED
        ),
        Variant({"method": "real"}, paper=RESNET),
    ),
)
def ResNet34(
    *,
    method: str = "irnet",
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """ResNet-34 for ImageNet: `ResNet18` with stages of 3, 4, 6 and 3 blocks.

    With IR-Net 21798696 trainable parameters, 21086208 of them binary; at 224 x 224: 3525967872 BOPs, 137793536 FLOPs,
    192886784 OPs. The real network has 21797672 parameters and 3663761408 FLOPs.

    # Arguments
        method: `"irnet"`, `"irnet_1w32a"` or `"real"`, as in `ResNet18`.
        input_shape: `(height, width, channels)`, by default `(224, 224, 3)`; height and width are multiples of 8.
        input_tensor: A Keras tensor to begin with instead of an input of its own.
        weights: `None` for initial values, or a file; see `larq_rep.zoo.load_weights`.
        include_top: Whether the classifier is included. Without it the network ends with its last feature map.
        num_classes: Number of logits, by default 1000.

    # Raises
        ValueError: If there is no such method.

    # References
        - [Forward and Backward Information Retention for Accurate Binary Neural
          Networks](https://arxiv.org/abs/1909.10788)
        - [Deep Residual Learning for Image Recognition](https://arxiv.org/abs/1512.03385)
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build("ResNet34", _resnet34, common, method=method)


class ResNet34Arguments(CommonArguments, total=False):
    method: str


@register_rep(ResNet34)
def RepResNet34(
    *,
    beta: int = 2,
    last_layer: int = 1,
    stem: str = "before_bn",
    bn: str = "after",
    **arguments: Unpack[ResNet34Arguments],
) -> tf.keras.Model:
    """`ResNet34` after RepTran: every binary convolution is a RepConv.

    All feature maps have beta times the channels; binary weights and BOPs are the same. With IR-Net 22328744 trainable
    parameters and 193398784 OPs at 224 x 224 with beta = 2. Not in the paper.

    # Arguments
        beta, last_layer, stem, bn: As in `larq_rep.reptran`.
        **arguments: Arguments of `ResNet34`.

    # References
        - [RepBNN: towards a precise Binary Neural Network with Enhanced Feature Map via
          Repeating](https://arxiv.org/abs/2207.09049)
    """
    return build_rep("RepResNet34", beta, last_layer, stem, bn, **arguments)
