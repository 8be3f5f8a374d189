r"""VGG-small for CIFAR-10 with binary convolutions, and Rep-VGG-small: no shortcuts.

Each binary layer computes, with 2x2 max pooling \\(P\\) in the layers 1, 3 and 5 and nothing in the others,

\\[y = \text{HT}(\text{BN}(P(W * \text{sign}(x))))\\]

with \\(\text{HT}(x) = \min(\max(x, -1), 1)\\).
"""

from dataclasses import replace
from functools import partial

import tensorflow as tf

from larq_rep.quantizers import EDESign, LibraSign
from larq_rep.zoo.common import logits_dtype
from larq_rep.zoo.methods import METHODS
from larq_rep.zoo.papers import IR_NET, RBNN, RECU
from larq_rep.zoo.registry import Result, Variant, choose, register_network, register_rep
from larq_rep.zoo.weights import RBNN_WEIGHTS, RECU_WEIGHTS

_METHODS = {
    "irnet": replace(
        METHODS["irnet"],
        # IR-Net trains VGG-small with an estimator that starts at this sharpness.
        input_quantizer=partial(EDESign, t=0.1),
        kernel_quantizer=partial(LibraSign, t=0.1),
    ),
    "rbnn": METHODS["rbnn"],
    "recu": METHODS["recu"],
}


def _he_normal_fan_out():
    return tf.keras.initializers.VarianceScaling(2.0, mode="fan_out", distribution="untruncated_normal")


@register_network(
    family="vgg",
    paper=IR_NET,
    dataset="cifar10",
    source="code",
    spec="cifar-bnns.md, 3.1",
    multiple=8,
    variants=(
        Variant(
            {"method": "irnet"},
            results=(Result(90.4, None, "RepBNN, Tables 5 and 7"),),
            rep_results=(Result(86.95, None, "RepBNN, Table 5"), Result(86.9, None, "RepBNN, Table 7")),
        ),
        Variant(
            {"method": "rbnn"},
            paper=RBNN,
            weights=RBNN_WEIGHTS,
            results=(Result(91.3, None, "RepBNN, Table 7"),),
            rep_results=(Result(92.3, None, "RepBNN, Table 7"),),
        ),
        Variant(
            {"method": "recu"},
            paper=RECU,
            weights=RECU_WEIGHTS,
            results=(Result(92.22, None, "RepBNN, Table 5"), Result(92.2, None, "RepBNN, Table 7")),
            rep_results=(Result(92.41, None, "RepBNN, Table 5"), Result(92.4, None, "RepBNN, Table 7")),
        ),
    ),
)
def VGGSmall(image, num_classes, *, method="irnet", width=128):
    """VGG-small, five binary convolutions after a real one.

    4660106 trainable parameters, 4571136 of them binary; at 32 x 32: 603979776 BOPs, 3620864 FLOPs,
    13058048 OPs. Only the quantizers differ from method to method, and 1664 (ReCU) or 3328 (RBNN) parameters
    of theirs.

    Structure, names and initial values follow the authors' code. Our choices: the features are flattened in
    (height, width, channels) order, which only permutes the rows of the classifier's kernel, and
    sign(0) = +1 (there 0).

    # Arguments
        method: `"irnet"`, `"rbnn"` or `"recu"`.
        width: Channels of the first two convolutions; the others have two and four times as many.
    """
    if not isinstance(width, int) or width < 1:
        raise ValueError(f"VGGSmall: width must be a positive number of channels, found {width!r}.")
    form = replace(_METHODS[choose("VGGSmall", "method", method, _METHODS)], kernel_initializer=_he_normal_fan_out)
    x = form.real_conv(image, width, 3, "conv0")
    x = form.activation(form.norm(x, "bn0"))
    for number, times in enumerate((1, 2, 2, 4, 4), start=1):
        x = form.conv(x, times * width, 3, f"conv{number}")
        if number % 2:
            x = tf.keras.layers.MaxPool2D(2, name=f"pool{number}")(x)
        x = form.activation(form.norm(x, f"bn{number}"))
    if num_classes is None:
        return x
    initializer = tf.keras.initializers.RandomNormal(stddev=0.01)
    x = tf.keras.layers.Flatten(name="flatten")(x)
    return tf.keras.layers.Dense(num_classes, kernel_initializer=initializer, dtype=logits_dtype(), name="fc")(x)


RepVGGSmall = register_rep(
    VGGSmall,
    stem="before_bn",
    doc="""
    4745610 / 4916618 / 5258634 trainable parameters with beta = 2 / 4 / 8; 13139968 OPs at 32 x 32 with
    beta = 2. The stem is repeated before its batch normalisation, as the paper says (no code is public).
    """,
)
