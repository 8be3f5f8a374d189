"""RepTran, RepBNN's transformation of a network, as one function."""

from collections.abc import Sequence
from fractions import Fraction

import tensorflow as tf

from larq_rep.checks import require_model
from larq_rep.record import recorded
from larq_rep.reptran.graph import Graph, ReptranError
from larq_rep.reptran.transform import Transformer, count_weights

__all__ = ["ReptranError", "reptran"]


def reptran(
    model: tf.keras.Model,
    beta: int = 2,
    *,
    last_layer: int = 1,
    stem: str = "after_bn",
    bn: str = "after",
    first: str | Sequence[str] | None = None,
    last: str | Sequence[str] | None = None,
    input_tensor: tf.Tensor | None = None,
    name: str | None = None,
) -> tf.keras.Model:
    r"""Transforms a network into its Rep network, in which every feature map has beta times the channels.

    It follows the rules of RepBNN, section 3.3:

    | original | becomes |
    |---|---|
    | first layer | itself, with its output repeated \\(\beta\\) times |
    | binary or real convolution `(kh, kw, C, D)` | `RepQuantConv2D`, `RepConv2D`: kernel `(kh, kw, beta C, D / beta)` |
    | hidden dense layer `(C, D)` | `RepQuantDense`, `RepDense`: kernel `(beta C, D / beta)` |
    | batch normalisation, PReLU, RSign, any layer with weights per channel | itself, with beta times the weights |
    | layer with `belongs_to_convolution = True`, such as `PrecisionGate` | itself, before the repetition |
    | shortcut, pooling, concatenation, shuffle, activation | itself |
    | slice or padding of channels | the same with \\(\beta\\) times the numbers |
    | last layer `(C, N)` | `(beta C, N)`, or less by `last_layer` |

    A convolution has the same number of weights and operations for every \\(\beta\\). The layers keep their names; the
    only new layers are the repetitions (`<first>_repeat`, and `<convolution>_repeat` where it does not follow
    directly). Weights have initial values, because their shapes differ; only a `Normalization` of the image keeps
    the values it was adapted to. With `beta=1` the network computes the same and has the weights of the original.

    Any functional (or sequential) model of Keras and Larq layers can be transformed, even with nested
    models. Other kinds of layers are built again from their config on the repeated channels; if that does
    not give \\(\beta\\) times the channels, or gives more than \\(\beta\\) times the weights, an error is raised.

    ```python
    model = larq_rep.reptran(larq_zoo.literature.BiRealNet(weights=None), beta=2)
    ```

    # Arguments
        model: A model with a graph of layers. It is not changed.
        beta: The repeating factor, an integer of at least 1 that divides the filters of every convolution.
        last_layer: The input of the last layer: 1 (the paper's choice) all \\(\beta C\\) channels, 2 the first
            \\(C\\), 3 the first \\(C / \beta\\), one unrepeated block. The paper does not say which
            channels.
        stem: Where the first layer is repeated: `"after_bn"` (default, as in the authors' code) after the
            batch normalisation that follows it, `"before_bn"` (as in the paper) directly after it.
        bn: Where the batch normalisation of a convolution stands: `"after"` its repetition (default), or
            `"before"` it, the ablation of Table 4.
        first: Name(s) of the first layer(s), which are repeated instead of transformed. By default the
            last real convolution on every path from the image to a binary convolution, or the
            first convolution if there is none. Layers before it are not changed.
        last: Name(s) of the last layer(s), which keep their number of outputs. By default the dense layer, or
            convolution of a 1x1 map, from which each output comes. A network without one (`include_top=False`)
            has no last layer, and its outputs have \\(\beta\\) times the channels.
        input_tensor: A Keras tensor that becomes the input of the new network, if it has one input.
        name: Name of the new model, by default `rep_` and the old name.

    # Returns
        A functional Keras model with inputs and outputs of the same structure. It keeps the `record` of a zoo network.

    # Raises
        TypeError: If `model` is not a Keras model.
        ReptranError: If a layer cannot be transformed, with its name and the reason. It is a `ValueError`.
        ValueError: If an argument is not one of the above, or there is no layer of that name.

    # References
        - [RepBNN: towards a precise Binary Neural Network with Enhanced Feature Map via
          Repeating](https://arxiv.org/abs/2207.09049), sections 3 and 4.3, Table 4
    """
    require_model("reptran", model)
    for argument, value, choices in (
        ("last_layer", last_layer, (1, 2, 3)),
        ("stem", stem, ("after_bn", "before_bn")),
        ("bn", bn, ("after", "before")),
    ):
        if value not in choices:
            raise ValueError(f"reptran: {argument} must be one of {', '.join(map(repr, choices))}, found {value!r}.")
    if not isinstance(beta, int) or isinstance(beta, bool) or beta < 1:
        raise ValueError(f"reptran: beta must be an integer of at least 1, found {beta!r}.")
    graph = Graph(model)
    firsts = graph.named(first, "first") if first is not None else graph.find_first()
    lasts = graph.named(last, "last") if last is not None else graph.find_last()
    if input_tensor is not None:
        _check_input_tensor(model, input_tensor)
    if beta != 1 and (both := {call.layer.name for call in firsts} & {call.layer.name for call in lasts}):
        raise ReptranError(
            f"reptran: layer {min(both)!r} is both the first and the last layer, so there is nothing to transform "
            "between. (Layers within others, such as TimeDistributed, are not seen.)"
        )
    if last_layer != 1 and not lasts:
        raise ValueError(f"reptran: last_layer={last_layer}, but {model.name!r} has no last layer. Name it with last=.")
    transformer = Transformer(
        beta,
        firsts={id(call.layer) for call in firsts},
        lasts={id(call.layer) for call in lasts},
        repeated={graph.end_of_stem(call, stem).outputs[0]: f"{call.layer.name}_repeat" for call in firsts},
        cuts={graph.start_of_head(call).outputs[0]: beta ** (last_layer - 1) for call in lasts},
        unrepeated=graph.owned(),
        bn_before=bn == "before",
        names={call.layer.name for call in graph.calls},
    )
    result, _ = transformer.visit(model, [Fraction(1)] * len(model.inputs), name or f"rep_{model.name}", input_tensor)
    for old, new in transformer.layers.values():
        # A normalisation of the image has values from `adapt`, not initial values.
        adapted = isinstance(old, tf.keras.layers.Normalization) and count_weights(old) == count_weights(new)
        if beta == 1 or adapted:
            new.set_weights(old.get_weights())
    return recorded(result, getattr(model, "record", None))


def _check_input_tensor(model: tf.keras.Model, tensor) -> None:
    if len(model.inputs) != 1:
        raise ValueError(
            f"reptran: input_tensor is for models with one input, but {model.name!r} has {len(model.inputs)}."
        )
    if not hasattr(tensor, "node"):
        raise ValueError(f"reptran: input_tensor must be a Keras tensor, found {type(tensor).__name__}.")
    if not model.inputs[0].shape.is_compatible_with(tensor.shape):
        expected, found = tuple(model.inputs[0].shape), tuple(tensor.shape)
        raise ValueError(f"reptran: input_tensor must have the shape {expected} of the model's input, found {found}.")
