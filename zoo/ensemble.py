"""Ensembles of binary networks, whose members vote, and BENN."""

from functools import partial
from typing import Any

import tensorflow as tf

from larq_rep.layers import Vote
from larq_rep.record import recorded
from larq_rep.zoo.build import Common, Shape, Weights, build, quiet_larq
from larq_rep.zoo.common import logits_dtype
from larq_rep.zoo.papers import BENN
from larq_rep.zoo.records import Result, Variant, get_model, register


def _joined(member: tf.keras.Model, image: tf.Tensor, members: int, vote: str, name: str) -> tf.Tensor:
    """The vote of networks like `member`, each with initial values of its own, on one image."""
    if not isinstance(members, int) or isinstance(members, bool) or members < 1:
        raise ValueError(f"{name}: members must be a positive number of networks, found {members!r}.")

    def renamed(layer, prefix):
        return type(layer).from_config({**layer.get_config(), "name": prefix + layer.name})

    outputs = [
        tf.keras.models.clone_model(member, image, partial(renamed, prefix=f"member{number}_")).output
        for number in range(1, members + 1)
    ]
    if len(member.output_shape) > 2:
        return tf.keras.layers.Concatenate(name="concat")(outputs)
    return Vote(vote, dtype=logits_dtype(), name="vote")(outputs)


def Ensemble(network: str, members: int = 6, *, vote: str = "soft", **arguments: Any) -> tf.keras.Model:
    """An ensemble of any network of the zoo: one model of several networks, each with weights of its own.

    ```python
    model = zoo.Ensemble("BiRealNet18", 3, input_shape=(64, 64, 3), num_classes=10)
    ```

    The layers of the members have the network's names behind `member1_`, `member2_` and so on. The layer `vote`
    (`larq_rep.layers.Vote`) adds their logits; `larq_rep.training.bagging` and `boosting` train members one after the
    other. A flatbuffer of it holds all members.

    # Arguments
        network: Name of the network.
        members: Number of members.
        vote: `"soft"` adds logits, `"majority"` counts the votes for a class.
        **arguments: Arguments of the network's constructor, except `weights` and `input_tensor`.

    # Returns
        A functional model with the record of the network.

    # Raises
        TypeError: If the network does not take one of `arguments`.
        ValueError: If there is no such network, or another argument does not suit.
    """
    if taken := {"weights", "input_tensor"} & arguments.keys():
        raise TypeError(f"Ensemble takes no {' and no '.join(sorted(taken))}: its members have initial values.")
    member = get_model(network, **arguments)
    with quiet_larq():
        output = _joined(member, member.input, members, vote, "Ensemble")
    return recorded(tf.keras.Model(member.input, output, name=f"{members}x{network}"), member.record)


def _benn(image, num_classes, members, vote):
    size = {"input_shape": tuple(image.shape[1:]), "include_top": num_classes is not None, "num_classes": num_classes}
    return _joined(get_model("ResNet18", method="xnor", **size), image, members, vote, "BENN18")


@register(
    family="ensemble",
    paper=BENN,
    dataset="imagenet",
    source="inferred",
    multiple=8,
    variants=(
        Variant({"members": 6}, results=(Result(61.1, None, "ReActNet, Table 1"),)),
        Variant(
            {"members": 3},
            results=(
                Result(54.3, None, "README of the code, bagging"),
                Result(55.8, None, "README of the code, boosting"),
            ),
        ),
    ),
)
def BENN18(
    *,
    members: int = 6,
    vote: str = "soft",
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
) -> tf.keras.Model:
    """BENN, an ensemble of six 1-bit ResNet-18: `ResNet18(method="xnor")`, trained one after the other.

    70131696 trainable parameters, 65912832 of them binary; at 224 x 224: 10057678848 BOPs, 983912448 OPs.

    The authors' code has no ResNet for ImageNet. Its networks have no scale K of the activations, as those here, and
    the exact gradient of a weight's sign times its scale, unlike those here, which have that of XNOR-Net's code. The
    training is that of `larq_rep.training.bagging` or `boosting`; of the accuracies only those of three members say
    which.

    # Arguments
        members: Number of members.
        vote: `"soft"` adds their logits, `"majority"` counts their votes.
        input_shape: `(height, width, channels)`, by default `(224, 224, 3)`; height and width are multiples of 8.
        input_tensor: A Keras tensor to begin with instead of an input of its own.
        weights: `None` for initial values, or a file; see `larq_rep.zoo.load_weights`.
        include_top: Whether the classifiers are included. Without them the network ends with the last feature maps of
            all members, side by side.
        num_classes: Number of logits, by default 1000.

    # References
        - [Binary Ensemble Neural Network: More Bits per Network or More Networks per
          Bit?](https://arxiv.org/abs/1806.07550)
    """
    common = Common(input_shape, input_tensor, weights, include_top, num_classes)
    return build("BENN18", _benn, common, members=members, vote=vote)
