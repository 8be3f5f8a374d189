"""Prepares images as the published weights of a network expect them."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from larq_rep.checks import require_model
from larq_rep.images import Evaluation, Preparation
from larq_rep.zoo.records import DATASETS, Network, Variant, get_network


def preprocess_input(
    model: str | tf.keras.Model | None = None,
    images: np.ndarray | Sequence[Any] = (),
    *,
    network: str | Network | None = None,
    **arguments: Any,
) -> np.ndarray:
    """Prepares images for a network of the zoo, as its training does in evaluation.

    For ImageNet an image is resized until its shorter side is 256 / 224 of the network's size, and cropped in the
    middle; for CIFAR it is resized to the network's size, if it differs, and cropped. Then its pixels are scaled to
    0..1 and normalised with mean and standard deviation of the network's recipe. For the networks of larq_zoo, larq_zoo
    does it in its own way. Grey images, of a network of one channel, stay in 0..1.

    !!! example
        ```python
        logits = model.predict(larq_rep.zoo.preprocess_input(model, [PIL.Image.open("cat.jpg")]))
        ```

    # Arguments
        model: A network that was built or loaded, whose `record` says which it is, or the name of one.
        images: `uint8` pixels, `(N, height, width, 3)`, or a sequence of images `(height, width, 3)` or PIL images, of
            any sizes; with one channel for a network of one channel.
        network: Name of the network that `model` is, if it has lost its record.
        **arguments: Arguments of the network's constructor that say which of its published forms is meant, such as
            `method="fracbnn"`, where neither a record nor the size and the number of classes of `model` do. For a name
            also `input_shape`; all that are left out have their defaults.

    # Returns
        `float32` images `(N, height, width, channels)`.

    # Raises
        TypeError: If `model` is neither a name nor a model.
        ValueError: If `model` has no record and `network` is not given, there is no such network, or form of it, its
            forms are prepared differently and `arguments` do not say which is meant, or the images are not `uint8`
            images with the network's channels.
        ImportError: For a network of larq_zoo, if that is not installed.
    """
    if model is None:
        # The first argument was called `network` in 0.1.0.
        model, network = network, None
    if isinstance(model, str | Network):
        return preparation(model, arguments)(images)
    require_model("preprocess_input, without the name of a network", model)
    return preparation_of(model, arguments, network)(images)


def preparation_of(
    model: tf.keras.Model, arguments: Mapping[str, Any], network: str | Network | None = None, assume: bool = False
) -> Preparation:
    """The preparation that `preprocess_input` uses for the images of a model.

    # Arguments
        model, arguments, network: As `preprocess_input`.
        assume: As `preparation`.

    # Raises
        ValueError, ImportError: As `preprocess_input`.
    """
    if network is None:
        if (record := getattr(model, "record", None)) is None:
            raise ValueError(
                f"preprocess_input: {model.name} has no record that says which network of the zoo it is. Keras makes "
                "none for a new model of old layers, and files of 0.1.0 have none. Name the network and its arguments: "
                "network='ResNet20', method='recu'."
            )
        if record.preparation is not None and not arguments:
            return record.preparation
        network, known = get_network(record.network), record.arguments
        if not _base(network).forms(known):  # An unpublished form is prepared like the others for its data set.
            known = {key: value for key, value in known.items() if key == "dataset"}
        arguments = {**known, **arguments}
    outputs = model.output_shape
    classes = outputs[-1] if isinstance(outputs, tuple) and len(outputs) == 2 else None
    return preparation(network, arguments, model.input_shape[1:], classes, assume)


def preparation(
    network: str | Network,
    arguments: Mapping[str, Any],
    shape: tuple[int, ...] | None = None,
    classes: int | None = None,
    assume: bool = False,
) -> Preparation:
    """The preparation that `preprocess_input` uses for the images of a network.

    # Arguments
        network, arguments: As `preprocess_input`.
        shape, classes: Those of an existing network.
        assume: Take the first published form where forms differ and nothing says which it is.

    # Raises
        ValueError, ImportError: As `preprocess_input`.
    """
    network = get_network(network) if isinstance(network, str) else network
    for key in arguments:
        if key not in network.parameters:
            expected = ", ".join(network.parameters)
            raise ValueError(f"preprocess_input: {network.name} has no argument {key!r}. Expected: {expected}.")
    forms = _forms(network, arguments, shape, classes)
    height, width, channels = shape or arguments.get("input_shape") or DATASETS[forms[0].dataset].input_shape
    forms, *rest = _ways(forms, channels)
    others = tuple(_label(form) for way in rest for form in way)
    if others and not assume:
        choices = "; ".join(dict.fromkeys([*map(_label, forms), *others]))
        raise ValueError(
            f"preprocess_input: the forms of {network.name} are prepared differently. Say which it is, as to its "
            f"constructor: {choices}."
        )
    if network.family == "larq_zoo" and channels == 3:
        return _larq_zoo(network.name, (height, width), others)
    normalisation, test_resize = forms[0].preprocessing, DATASETS[forms[0].dataset].test_resize
    assert normalisation is not None
    evaluation = Evaluation(**normalisation._asdict(), test_resize=test_resize)
    return replace(evaluation.at((height, width), channels), others=others)


def known(model: tf.keras.Model) -> Preparation | None:
    """The preparation of a model that carries a record; `None` where the record does not tell it.

    That is so if published forms differ and none is recorded, or if layers in front of the network scale the images;
    and for the networks of larq_zoo, whose way is not one that `Preparation` can say.
    """
    record = getattr(model, "record", None)
    scales = (tf.keras.layers.Rescaling, tf.keras.layers.Normalization)
    if record is None or any(isinstance(layer, scales) for layer in model.layers):
        return None
    try:
        found = preparation_of(model, {})
    except (ValueError, ImportError):
        return None
    return None if isinstance(found, _ByLarqZoo) else found


@dataclass(frozen=True, kw_only=True)
class _ByLarqZoo(Preparation):
    """The preparation of larq_zoo: first the crop of 224/256 of the shorter side, then a bicubic resize."""

    way: Callable[[tf.Tensor], tf.Tensor]

    @property
    def text(self) -> str:
        return "prepared by larq_zoo"

    def one(self, image: tf.Tensor) -> tf.Tensor:
        return self.way(image)


def _base(network: Network) -> Network:
    """A Rep network sees the images of its base, all forms of which can be repeated."""
    return network.base or network


def _forms(
    network: Network, arguments: Mapping[str, Any], shape: tuple[int, ...] | None, classes: int | None
) -> list[Variant]:
    """The published forms that a network may have, as far as arguments and the size of an existing one tell."""
    variants = _base(network).variants
    forms = _base(network).forms(arguments, partly=shape is not None)
    if not forms:
        chosen = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        choices = "; ".join(dict.fromkeys(form.label for form in variants if form.label))
        raise ValueError(f"preprocess_input: {network.name} has no published form with {chosen}. Its forms: {choices}.")
    if shape is not None:
        forms = [form for form in forms if DATASETS[form.dataset].input_shape == tuple(shape)] or forms
        forms = [form for form in forms if DATASETS[form.dataset].num_classes == classes] or forms
    return forms


def _ways(forms: Sequence[Variant], channels: int) -> list[list[Variant]]:
    """The forms, grouped by their preparation."""
    found: dict[Any, list[Variant]] = {}
    for form in forms:
        # Grey images are not normalised.
        way = (form.preprocessing if channels == 3 else None, DATASETS[form.dataset].test_resize)
        found.setdefault(way, []).append(form)
    return list(found.values())


def _label(form: Variant) -> str:
    return form.label or f"dataset={form.dataset!r}"


def _larq_zoo(name: str, size: tuple[int, int], others: tuple[str, ...]) -> Preparation:
    if size[0] != size[1]:
        raise ValueError(f"preprocess_input: larq_zoo prepares square images only, but {name} takes {size}.")
    try:
        data = importlib.import_module("larq_zoo.training.data")
    except ImportError as error:
        raise ImportError(
            f"preprocess_input: the images of {name} are prepared by larq_zoo, which cannot be imported: pip install "
            "'larq-rep[zoo]'."
        ) from error
    way = functools.partial(data.preprocess_image_tensor, image_size=size[0])
    return _ByLarqZoo(size=size, channels=3, others=others, way=way)
