"""Images as the published weights of a network expect them."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from larq_rep.zoo.registry import DATASETS, Preprocessing, get_network


def preprocess_input(network: str | tf.keras.Model, images: np.ndarray | Sequence[Any], **arguments: Any) -> np.ndarray:
    """Images as a network of the zoo takes them: those of its training, in evaluation.

    For ImageNet an image is resized until its shorter side is 256 / 224 of the network's size, and cropped in the
    middle; for CIFAR it is resized to the network's size, if it differs, and cropped. Then its pixels are scaled to
    0..1 and normalised with mean and standard deviation of the network's recipe. The networks of larq_zoo have a
    way of their own, with which larq_zoo does it.

    !!! example
        ```python
        logits = model.predict(larq_rep.zoo.preprocess_input(model, [PIL.Image.open("cat.jpg")]))
        ```

    # Arguments
        network: Name of a network of the zoo, or one that was built (or loaded), which also tells the size.
        images: `uint8` pixels, `(N, height, width, 3)`, or a sequence of images `(height, width, 3)` of any sizes, or
            of PIL.
        **arguments: Arguments of the network's constructor that say which of its published forms is meant, such as
            `method="fracbnn"`, and `input_shape` and `num_classes`.

    # Returns
        `float32` images `(N, height, width, 3)`.

    # Raises
        ValueError: If there is no such network, its forms are prepared differently and `arguments` do not say which
            is meant, or the images are no `uint8` images with three channels.
    """
    preparation, dataset, size = _preparation(network, arguments)
    name = network if isinstance(network, str) else network.name
    return np.stack([_prepare(_pixels(image), preparation, dataset, size, name) for image in images])


def _preparation(
    network: str | tf.keras.Model, arguments: dict[str, Any]
) -> tuple[Preprocessing, str, tuple[int, int]]:
    """How images are normalised, for which data set, and the size they get."""
    shape = arguments.pop("input_shape", None)
    classes = arguments.pop("num_classes", None)
    if isinstance(network, str):
        name = network
    else:
        name, shape = network.name, network.input_shape[1:]
        outputs = network.output_shape
        classes = outputs[-1] if isinstance(outputs, tuple) and len(outputs) == 2 else None
    record = get_network(name)
    forms = record.forms(arguments)
    if not arguments and classes is not None:
        forms = [form for form in record.variants if DATASETS[form.dataset].num_classes == classes] or forms
    forms = forms or [form for form in record.variants if form.dataset == arguments.get("dataset", form.dataset)]
    found = dict.fromkeys((form.preprocessing, form.dataset) for form in forms)
    if len({preparation for preparation, _ in found}) > 1:
        choices = "; ".join(form.label or f"dataset={form.dataset!r}" for form in forms)
        raise ValueError(
            f"preprocess_input: the forms of {name} are prepared differently. Say which it is, as to its constructor: "
            f"{choices}."
        )
    preparation, dataset = next(iter(found))
    assert preparation is not None
    height, width, _ = shape or DATASETS[dataset].input_shape
    return preparation, dataset, (height, width)


def _pixels(image: Any) -> np.ndarray:
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] != 3:
        raise ValueError(
            "preprocess_input: expected uint8 images (height, width, 3) with pixels from 0 to 255, found "
            f"{pixels.dtype} {pixels.shape}. Convert it, with PIL by image.convert('RGB')."
        )
    return pixels


def _prepare(
    pixels: np.ndarray, preparation: Preprocessing, dataset: str, size: tuple[int, int], name: str
) -> np.ndarray:
    if get_network(name).family == "larq_zoo":
        data = importlib.import_module("larq_zoo.training.data")
        return data.preprocess_image_tensor(tf.constant(pixels), image_size=size[0]).numpy()
    # Training is not loaded with the zoo.
    from larq_rep.training.augmentation import Augmentation, evaluation_image

    resize = 256 if dataset == "imagenet" else None
    augmentation = Augmentation(mean=preparation.mean, std=preparation.std, test_resize=resize)
    return evaluation_image(tf.constant(pixels), augmentation, size).numpy()
