"""Networks of larq_zoo, listed with ours and built by larq_zoo, which is the extra `larq-rep[zoo]`.

`larq_rep.reptran` transforms them like ours.
"""

import importlib
from typing import Any

import tensorflow as tf

from larq_rep.record import Record, recorded
from larq_rep.zoo.build import Common, Shape, Weights
from larq_rep.zoo.papers import BNN, DOREFA, QUICKNET, REAL_TO_BINARY, XNOR_NET
from larq_rep.zoo.records import Result, Variant, register

_RECORD: dict[str, Any] = {"family": "larq_zoo", "dataset": "imagenet", "source": "larq_zoo"}
_IMAGE = "the input of the first convolution of BinaryAlexNet is the image: only its weights are binary"


def _published(top1: float, top5: float) -> tuple[Variant]:
    return (Variant(results=(Result(top1, top5, "larq_zoo 2.4"),)),)


def _build(module: str, name: str, common: Common) -> tf.keras.Model:
    try:
        networks = importlib.import_module(f"larq_zoo.{module}")
    except ImportError as error:
        raise ImportError(
            f"{name} is built by larq_zoo, which cannot be imported: pip install 'larq-rep[zoo]'."
        ) from error
    model = getattr(networks, name)(**common._asdict())
    size = {"input_shape": model.input_shape[1:], "include_top": common.include_top, "num_classes": common.num_classes}
    return recorded(model, Record(name, size))


@register(paper=REAL_TO_BINARY, variants=_published(65.01, 85.72), **_RECORD)
def RealToBinaryNet(
    *,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int = 1000,
) -> tf.keras.Model:
    """`larq_zoo.literature.RealToBinaryNet`, by default untrained; see there.

    # Arguments
        input_shape: `(height, width, channels)`, by default `(224, 224, 3)`.
        input_tensor: A Keras tensor to begin with instead of an input of its own.
        weights: `None` for initial values, `"imagenet"` for those of larq_zoo, or a file.
        include_top: Whether the classifier is included.
        num_classes: Number of classes, whose probabilities are the outputs.

    # Raises
        ImportError: If larq_zoo is not installed.
    """
    return _build("literature", "RealToBinaryNet", Common(input_shape, input_tensor, weights, include_top, num_classes))


@register(paper=DOREFA, variants=_published(53.39, 76.50), **_RECORD)
def DoReFaNet(
    *,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int = 1000,
) -> tf.keras.Model:
    """`larq_zoo.literature.DoReFaNet`, by default untrained; see there.

    # Arguments
        input_shape, input_tensor, weights, include_top, num_classes: As in `RealToBinaryNet`.

    # Raises
        ImportError: If larq_zoo is not installed.
    """
    return _build("literature", "DoReFaNet", Common(input_shape, input_tensor, weights, include_top, num_classes))


@register(paper=XNOR_NET, variants=_published(44.96, 69.18), **_RECORD)
def XNORNet(
    *,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int = 1000,
) -> tf.keras.Model:
    """`larq_zoo.literature.XNORNet`, by default untrained; see there.

    # Arguments
        input_shape, input_tensor, weights, include_top, num_classes: As in `RealToBinaryNet`.

    # Raises
        ImportError: If larq_zoo is not installed.
    """
    return _build("literature", "XNORNet", Common(input_shape, input_tensor, weights, include_top, num_classes))


@register(paper=BNN, variants=_published(36.30, 61.53), left_float={"quant_conv2d": _IMAGE}, **_RECORD)
def BinaryAlexNet(
    *,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int = 1000,
) -> tf.keras.Model:
    """`larq_zoo.literature.BinaryAlexNet`, by default untrained; see there.

    # Arguments
        input_shape, input_tensor, weights, include_top, num_classes: As in `RealToBinaryNet`.

    # Raises
        ImportError: If larq_zoo is not installed.
    """
    return _build("literature", "BinaryAlexNet", Common(input_shape, input_tensor, weights, include_top, num_classes))


@register(paper=QUICKNET, variants=_published(59.4, 81.8), **_RECORD)
def QuickNetSmall(
    *,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int = 1000,
) -> tf.keras.Model:
    """`larq_zoo.sota.QuickNetSmall`, by default untrained; see there.

    # Arguments
        input_shape, input_tensor, weights, include_top, num_classes: As in `RealToBinaryNet`.

    # Raises
        ImportError: If larq_zoo is not installed.
    """
    return _build("sota", "QuickNetSmall", Common(input_shape, input_tensor, weights, include_top, num_classes))


@register(paper=QUICKNET, variants=_published(63.3, 84.6), **_RECORD)
def QuickNet(
    *,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int = 1000,
) -> tf.keras.Model:
    """`larq_zoo.sota.QuickNet`, by default untrained; see there.

    # Arguments
        input_shape, input_tensor, weights, include_top, num_classes: As in `RealToBinaryNet`.

    # Raises
        ImportError: If larq_zoo is not installed.
    """
    return _build("sota", "QuickNet", Common(input_shape, input_tensor, weights, include_top, num_classes))


@register(paper=QUICKNET, variants=_published(66.9, 87.0), **_RECORD)
def QuickNetLarge(
    *,
    input_shape: Shape | None = None,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    include_top: bool = True,
    num_classes: int = 1000,
) -> tf.keras.Model:
    """`larq_zoo.sota.QuickNetLarge`, by default untrained; see there.

    # Arguments
        input_shape, input_tensor, weights, include_top, num_classes: As in `RealToBinaryNet`.

    # Raises
        ImportError: If larq_zoo is not installed.
    """
    return _build("sota", "QuickNetLarge", Common(input_shape, input_tensor, weights, include_top, num_classes))
