"""Builds the parts that all networks share: the image, the weights, and the record on the model."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf
from typing_extensions import TypedDict

from larq_rep.layers import Mirror
from larq_rep.record import Record, RecordedModel
from larq_rep.reptran import reptran
from larq_rep.zoo.records import DATASETS, Network, choose, get_network
from larq_rep.zoo.weights import is_mirrored, load_weights, weights_file

Shape = tuple[int, int, int]
Weights = str | os.PathLike[str]


class Common(NamedTuple):
    """The arguments that all constructors have, see `larq_rep.zoo`."""

    input_shape: Shape | None
    input_tensor: tf.Tensor | None
    weights: Weights | None
    include_top: bool
    num_classes: int | None


class CommonArguments(TypedDict, total=False):
    """The same as keywords, for constructors of Rep networks."""

    input_shape: Shape | None
    input_tensor: tf.Tensor | None
    weights: Weights | None
    include_top: bool
    num_classes: int | None


def build(name: str, layers: Callable[..., tf.Tensor], common: Common, **options: Any) -> tf.keras.Model:
    """Builds a network.

    # Arguments
        name: Name of the network.
        layers: Maps an image of shape `(N, height, width, channels)`, the number of classes and `options` to logits or,
            if the number is `None`, to the last feature map.
        common: The arguments that all networks take. The defaults of its size and classes are those of
            `options["dataset"]`, if there is such an option, or of the data set of the network's record.
        **options: Further arguments of this network.
    """
    network = get_network(name)
    key = choose(name, "dataset", options.get("dataset", network.variants[0].dataset), DATASETS)
    multiple = network.multiple if key == "imagenet" else network.cifar_multiple or network.multiple
    file = _find_weights(network, common.weights, options)
    image = _image_input(name, common, DATASETS[key].input_shape, multiple)
    classes = (common.num_classes or DATASETS[key].num_classes) if common.include_top else None
    with _quiet_larq():
        outputs = layers(_mirrored(image, file), classes, **options)
    model = RecordedModel(tf.keras.utils.get_source_inputs(image), outputs, name=name)
    size = {"input_shape": tuple(image.shape[1:]), "include_top": common.include_top, "num_classes": classes}
    model.record = Record(name, {**options, **size})
    return _finished(model, file)


def build_rep(
    name: str,
    beta: int,
    last_layer: int,
    stem: str,
    bn: str,
    *,
    input_tensor: tf.Tensor | None = None,
    weights: Weights | None = None,
    **arguments: Any,
) -> tf.keras.Model:
    """Builds a Rep network.

    # Arguments
        name: Name of the Rep network.
        beta, last_layer, stem, bn: As in `larq_rep.reptran`.
        input_tensor, weights: As in the constructors.
        **arguments: All other arguments of its base's constructor.

    # Raises
        TypeError: If the constructor of its base does not take one of `arguments`.
    """
    network = get_network(name)
    network.check(arguments)
    assert network.base is not None
    if input_tensor is not None:
        arguments = {"input_shape": tuple(input_tensor.shape[1:]), **arguments}
    file = _find_weights(network, weights, arguments)
    with _quiet_larq():
        model = network.base.constructor(**arguments)
        own = {"beta": beta, "last_layer": last_layer, "stem": stem, "bn": bn}
        record = Record(name, {**own, **model.record.arguments})
        if file is not None:
            image = tf.keras.Input(model.input_shape[1:], name="image") if input_tensor is None else input_tensor
            input_tensor = _mirrored(image, file)
        model = reptran(model, beta, last_layer=last_layer, stem=stem, bn=bn, input_tensor=input_tensor, name=name)
    model.record = record
    return _finished(model, file)


@contextlib.contextmanager
def _quiet_larq() -> Iterator[None]:
    """Larq warns of binary kernels without a clip; most networks of the literature have none on purpose."""
    logger = logging.getLogger("larq.layers_base")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _image_input(name: str, common: Common, default: Shape, multiple: int) -> tf.Tensor:
    input_shape, input_tensor = common.input_shape, common.input_tensor
    if input_tensor is None:
        shape = tuple(default if input_shape is None else input_shape)
    else:
        shape = tuple(input_tensor.shape[1:])
        if input_shape is not None and tuple(input_shape) != shape:
            raise ValueError(
                f"{name}: input_shape is {tuple(input_shape)} but input_tensor has {shape}. Leave out one of them."
            )
    if len(shape) != 3 or not all(isinstance(size, int) and size > 0 for size in shape):
        raise ValueError(f"{name}: expected an input of (height, width, channels) with all sizes known, found {shape}.")
    if shape[0] % multiple or shape[1] % multiple:
        raise ValueError(
            f"{name}: height and width of the input must be multiples of {multiple}, so that shortcuts and "
            f"strided convolutions meet at the same size; found {shape[0]} x {shape[1]}."
        )
    return tf.keras.Input(shape, name="image") if input_tensor is None else input_tensor


def _find_weights(network: Network, weights: Weights | None, options: Mapping[str, Any]) -> Path | None:
    """The file of the argument `weights` of a network."""
    if weights is None:
        return None
    published = {}
    for form in network.forms(options):
        if form.weights:
            chosen = [str(value) for key, value in form.arguments.items() if key != "dataset"]
            published[form.dataset] = ("-".join([network.name, *chosen, form.dataset]), form.weights)
    return weights_file(network.name, weights, published)


def _mirrored(image: tf.Tensor, weights: Path | None) -> tf.Tensor:
    return Mirror(name="mirror")(image) if weights is not None and is_mirrored(weights) else image


def _finished(model: tf.keras.Model, weights: Path | None) -> tf.keras.Model:
    """The network with its weights, and quantizers that know whether their kernels are mirrored."""
    if any(isinstance(layer, Mirror) for layer in model.layers):
        for layer in model.layers:
            quantizer: Any = getattr(layer, "kernel_quantizer", None)
            if hasattr(quantizer, "mirrored"):
                quantizer.mirrored = True
    if weights is not None:
        load_weights(model, weights)
    return model
