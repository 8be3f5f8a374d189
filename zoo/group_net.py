r"""Group-Net: ResNets whose blocks are several binary branches side by side, the bases, whose results are added.

Branch \\(k\\) of a block computes, with binary convolutions \\(*\\),

\\[y_k = \text{BN}(\text{ReLU}(W_1 * \text{sign}(x_k))) + S(x_k) \qquad
z_k = \text{BN}(\text{ReLU}(W_2 * \text{sign}(y_k))) + y_k\\]

and the block gives their mean, or \\(\sum_k c_k z_k\\) with learned \\(c\\). \\(x_k\\) is a mixture, in a learned
proportion, of \\(z_k\\) and the mean (or sum) of the block before, or the latter alone. \\(S\\) is the identity, or a
strided 1x1 convolution and a batch normalisation where a stage begins, the same for all branches.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import larq as lq
import tensorflow as tf

from larq_rep.layers import BatchNormalization, SoftGate, WeightedSum
from larq_rep.quantizers import DoReFaSign
from larq_rep.zoo.build import Common, Shape, Weights, build
from larq_rep.zoo.common import batch_norm, classifier, uniform_fan_in
from larq_rep.zoo.methods import crop, relu
from larq_rep.zoo.papers import GROUP_NET
from larq_rep.zoo.records import Result, Variant, choose, register

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


def _binary_conv(x, filters, name, strides=1):
    """3x3 convolution of the +1 and -1 of a sign layer, padded with +1."""
    return lq.layers.QuantConv2D(
        filters,
        3,
        strides=strides,
        padding="same",
        pad_values=1.0,
        # The sign is a layer of its own, because the convolutions of several branches may share it.
        input_quantizer=lq.quantizers.NoOp(precision=1),
        kernel_quantizer=DoReFaSign(),
        kernel_initializer=uniform_fan_in(),
        use_bias=False,
        name=name,
    )(x)


def _half_branch(x, signs, shortcut, filters, strides, name, number):
    y = relu(_binary_conv(signs, filters, f"{name}_conv{number}", strides))
    y = batch_norm(y, f"{name}_bn{number}")
    return tf.keras.layers.Add(name=f"{name}_add{number}")([y, shortcut])


def _downsampling(filters: int, name: str, shortcut: str) -> Callable[[tf.Tensor, str], tf.Tensor]:
    """The shortcut of the blocks with stride 2; all its calls share the layers."""
    binary = shortcut == "binary"
    conv = lq.layers.QuantConv2D(
        filters,
        1,
        strides=2,
        input_quantizer=lq.quantizers.NoOp(precision=1) if binary else None,
        kernel_quantizer=DoReFaSign() if binary else None,
        kernel_initializer=uniform_fan_in(),
        use_bias=False,
        name=f"{name}_downsample_0",
    )
    norm = BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_downsample_1")

    def downsampled(x, part):
        x = crop(x, part)
        return norm(conv(lq.quantizers.ApproxSign(name=f"{part}_downsample_sign")(x) if binary else x))

    return downsampled


def _block(inputs, bases, filters, strides, name, shortcut):
    """The results of all branches, from an input for each or one for all."""
    names = [f"{name}_branch{number}" for number in range(1, bases + 1)]
    parts = names if len(inputs) > 1 else [name]
    signs = [lq.quantizers.ApproxSign(name=f"{part}_sign1")(x) for x, part in zip(inputs, parts, strict=True)]
    around = inputs
    if strides == 2:
        downsampled = _downsampling(filters, name, shortcut)
        around = [downsampled(x, part) for x, part in zip(inputs, parts, strict=True)]
    results = []
    for number, branch in enumerate(names):
        own = number if len(inputs) > 1 else 0
        y = _half_branch(inputs[own], signs[own], around[own], filters, strides, branch, 1)
        sign = lq.quantizers.ApproxSign(name=f"{branch}_sign2")(y)
        results.append(_half_branch(y, sign, y, filters, 1, branch, 2))
    return results


def _group_net(image, num_classes, depth, bases, gates, scales, shortcut):
    name = f"GroupNet{depth}"
    choose(name, "shortcut", shortcut, ("binary", "real"))
    if not isinstance(bases, int) or isinstance(bases, bool) or bases < 1:
        raise ValueError(f"{name}: bases must be a positive number of branches, found {bases!r}.")
    stem = tf.keras.layers.Conv2D(
        64,
        7,
        strides=2,
        padding="same",
        use_bias=scales,
        kernel_initializer=uniform_fan_in(),
        name="conv1",
    )
    x = tf.keras.layers.MaxPool2D(3, 2, padding="same", name="maxpool")(stem(image))
    x = batch_norm(x, "bn1")
    branches: list[tf.Tensor] = []
    for stage, blocks in enumerate(_BLOCKS[depth], start=1):
        for number in range(blocks):
            filters, strides = 64 * 2 ** (stage - 1), 2 if stage > 1 and number == 0 else 1
            block = f"layer{stage}_{number}"
            inputs = [x]
            if gates and branches:
                gate = SoftGate(name=f"{block}_gate")
                inputs = [gate([branch, x]) for branch in branches]
            branches = _block(inputs, bases, filters, strides, block, shortcut)
            if scales:
                x = WeightedSum(name=f"{block}_sum")(branches)
            else:
                x = tf.keras.layers.Average(name=f"{block}_mean")(branches)
    return classifier(x, num_classes, "fc")


_RECORD: dict[str, Any] = dict(
    family="group_net", paper=GROUP_NET, dataset="imagenet", source="code", multiple=8, first_phase="real weights"
)


@register(
    **_RECORD,
    variants=(
        Variant({"bases": 4}, results=(Result(64.2, None, "ReActNet, Table 1"),)),
        Variant(
            {"bases": 4, "shortcut": "real"},
            source="inferred",
            results=(Result(66.3, None, "ReActNet, Table 1, real shortcuts"),),
        ),
        Variant({"bases": 5}),
        Variant({"bases": 5, "scales": True}),
        Variant({"bases": 5, "scales": True, "gates": False}),
    ),
)
def GroupNet18(
    *,
    bases: int = 4,
    gates: bool = True,
    scales: bool = False,
    shortcut: str = "binary",
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """Group-Net on ResNet-18, which its first paper calls Structured Binary Neural Network.

    With four bases 44668975 trainable parameters, 44113920 of them binary; at 224 x 224: 6782189568 BOPs, 118525952
    FLOPs, 224497664 OPs. With five bases 55662127, 55099392 and 250990592. The authors' code has five bases and three
    forms: gates, gates with scales, and scales alone. A real shortcut costs 75866112 OPs more with four bases and
    gates, of which each branch has its own input; that only its 1x1 convolution differs is our reading.

    The stem has no activation: a 7x7 convolution with stride 2 (with a bias if there are scales), max pooling, and then
    the batch normalisation. Maps are padded with +1 behind the sign. The gradient of a sign is 2 - 2|x|. A weight is
    its sign times the mean magnitude of the whole kernel.

    In the authors' code without scales, the first branch hands on the sum of all branches in place of its own result,
    because the sum is computed in its place; we do not. Our choices: TensorFlow's alignment of `"same"` padding in
    strided convolutions and the max pooling, and sign(0) = +1 (there 0).

    # Arguments
        bases: Number of branches.
        gates: Whether each branch takes a mixture of its own result and of all, in a learned proportion; otherwise all
            take the latter.
        scales: Whether results are added with learned factors; otherwise their mean is taken.
        shortcut: The 1x1 convolutions in shortcuts are `"binary"` or `"real"`.
        input_shape: `(height, width, channels)`, by default `(224, 224, 3)`; height and width are multiples of 8.
        input_tensor: A Keras tensor to begin with instead of an input of its own.
        weights: `None` for initial values, or a file; see `larq_rep.zoo.load_weights`.
        include_top: Whether the classifier is included. Without it the network ends with its last feature map.
        num_classes: Number of logits, by default 1000.

    # References
        - [Structured Binary Neural Networks for Accurate Image Classification and Semantic
          Segmentation](https://arxiv.org/abs/1811.10413)
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    network = partial(_group_net, depth=18)
    return build("GroupNet18", network, common, bases=bases, gates=gates, scales=scales, shortcut=shortcut)


@register(**_RECORD, variants=(Variant({"bases": 4}), Variant({"bases": 5})))
def GroupNet34(
    *,
    bases: int = 4,
    gates: bool = True,
    scales: bool = False,
    shortcut: str = "binary",
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """Group-Net on ResNet-34.

    With four bases 85101623 trainable parameters, 84516864 of them binary; at 224 x 224: 14180941824 BOPs, 118525952
    FLOPs, 340103168 OPs. With five bases 106202935, 105603072 and 395497472. Otherwise as `GroupNet18`.

    # Arguments
        bases, gates, scales, shortcut: As in `GroupNet18`.
        input_shape, input_tensor, weights, include_top, num_classes: As in `GroupNet18`.
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    network = partial(_group_net, depth=34)
    return build("GroupNet34", network, common, bases=bases, gates=gates, scales=scales, shortcut=shortcut)
