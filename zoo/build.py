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
from larq_rep.zoo.checkpoint import CheckpointError, Contents
from larq_rep.zoo.checkpoint.tensors import naming
from larq_rep.zoo.families import load_state_dict
from larq_rep.zoo.importing import decide
from larq_rep.zoo.records import DATASETS, Network, choose, get_network
from larq_rep.zoo.weights import is_checkpoint, is_mirrored, load_weights, weights_file
from larq_rep.zoo.wrapped import read_weights

Shape = tuple[int, int, int]
Weights = str | os.PathLike[str]


class Default(str):
    """The default of an argument that a checkpoint may leave open; equal to what a caller may say on purpose."""


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
    said = {key: value for key, value in options.items() if not isinstance(value, Default)}
    options = {key: str(value) if isinstance(value, Default) else value for key, value in options.items()}
    file = _find_weights(network, common.weights, options)
    checkpoint = _checkpoint(name, common.weights, file, said)
    image = _image_input(name, common, DATASETS[key].input_shape, multiple)
    classes = (common.num_classes or DATASETS[key].num_classes) if common.include_top else None
    with quiet_larq():
        outputs = layers(_mirrored(image, file), classes, **options)
    model = RecordedModel(tf.keras.utils.get_source_inputs(image), outputs, name=name)
    size = {"input_shape": tuple(image.shape[1:]), "include_top": common.include_top, "num_classes": classes}
    model.record = Record(name, {**options, **size})
    return _finished(model, file, checkpoint)


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
    own = {"beta": beta, "last_layer": last_layer, "stem": stem, "bn": bn}
    file = _find_weights(network, weights, arguments)
    checkpoint = _checkpoint(name, weights, file, arguments | own)
    with quiet_larq():
        model = network.base.constructor(**arguments)
        record = Record(name, {**own, **model.record.arguments})
        if file is not None:
            image = tf.keras.Input(model.input_shape[1:], name="image") if input_tensor is None else input_tensor
            input_tensor = _mirrored(image, file)
        model = reptran(model, beta, last_layer=last_layer, stem=stem, bn=bn, input_tensor=input_tensor, name=name)
    model.record = record
    return _finished(model, file, checkpoint)


@contextlib.contextmanager
def quiet_larq() -> Iterator[None]:
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


class _Checkpoint(NamedTuple):
    """The weights of a file, and what to ask if they fit."""

    contents: Contents
    question: str


def _checkpoint(name: str, weights: Weights | None, file: Path | None, said: Mapping[str, Any]) -> _Checkpoint | None:
    """A checkpoint that a caller gave as a file, if it did.

    Published weights, which `weights` calls by their name, are those of the network and not of a phase before it.

    # Arguments
        name: Name of the network.
        weights, file: The argument, and the file that it is or names.
        said: The arguments that the caller gave.

    # Raises
        CheckpointError: If several forms or phases of the network have its keys and shapes.
    """
    if weights is None or file is None or Path(weights) != file or not is_checkpoint(file):
        return None
    contents = read_weights(file)
    with naming(file):
        decision = decide(contents.arrays, name, said)
        # The arguments of the caller need not be those of the file, whose keys can then not be compared.
        if decision.question and decision.recognised:
            raise CheckpointError(decision.question)
        return _Checkpoint(contents, decision.question)


def _finished(model: tf.keras.Model, file: Path | None, checkpoint: _Checkpoint | None) -> tf.keras.Model:
    """The network with its weights, and quantizers that know whether their kernels are mirrored."""
    if any(isinstance(layer, Mirror) for layer in model.layers):
        for layer in model.layers:
            quantizer: Any = getattr(layer, "kernel_quantizer", None)
            if hasattr(quantizer, "mirrored"):
                quantizer.mirrored = True
    if file is None:
        return model
    if checkpoint is None:
        load_weights(model, file)
        return model
    with naming(file):
        load_state_dict(model, checkpoint.contents.arrays, checkpoint.contents.ignored)
        if checkpoint.question:
            raise CheckpointError(checkpoint.question)
    return model
