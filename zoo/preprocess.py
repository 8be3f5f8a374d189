"""Images as the published weights of a network expect them."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
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
        network: Name of a network of the zoo, or one that was built or loaded. With a name all that `arguments` leave
            out has its default; a network has the size and number of classes that it has.
        images: `uint8` pixels, `(N, height, width, 3)`, or a sequence of images `(height, width, 3)` of any sizes, or
            of PIL.
        **arguments: Arguments of the network's constructor that say which of its published forms is meant, such as
            `method="fracbnn"`, and `input_shape` and `num_classes`.

    # Returns
        `float32` images `(N, height, width, 3)`.

    # Raises
        ValueError: If there is no such network, or form of it, its forms are prepared differently and `arguments` do
            not say which is meant, or the images are no `uint8` images with three channels.
        ImportError: For a network of larq_zoo, if that is not installed.
    """
    if isinstance(network, str):
        prepare = preparation(network, arguments)
    else:
        outputs = network.output_shape
        classes = outputs[-1] if isinstance(outputs, tuple) and len(outputs) == 2 else None
        prepare = preparation(network.name, arguments, network.input_shape[1:], classes)
    return prepare(images)


def preparation(
    name: str, arguments: Mapping[str, Any], shape: tuple[int, ...] | None = None, classes: int | None = None
) -> Callable[[np.ndarray | Sequence[Any]], np.ndarray]:
    """What `preprocess_input` does with the images of a network; `shape` and `classes` are those of one that exists.

    # Raises
        ValueError, ImportError: As `preprocess_input`.
    """
    network = get_network(name)
    known = inspect.signature(network.constructor).parameters
    for key in arguments:
        if key not in known:
            raise ValueError(f"preprocess_input: {name} has no argument {key!r}. Expected: {', '.join(known)}.")
    exists = shape is not None
    shape, classes = shape or arguments.get("input_shape"), classes or arguments.get("num_classes")
    # A Rep network sees the images of its base, all forms of which can be repeated.
    base = get_network(name.removeprefix("Rep")) if name.startswith("Rep") and network.family != "larq_zoo" else network
    forms = base.forms(arguments, partly=exists)
    if not forms:
        chosen = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        choices = "; ".join(dict.fromkeys(form.label for form in base.variants if form.label))
        raise ValueError(f"preprocess_input: {name} has no published form with {chosen}. Its forms: {choices}.")
    if exists:
        forms = [form for form in forms if DATASETS[form.dataset].input_shape == tuple(shape or ())] or forms
        forms = [form for form in forms if DATASETS[form.dataset].num_classes == classes] or forms
    found = dict.fromkeys((form.preprocessing, form.dataset == "imagenet") for form in forms)
    if len(found) > 1:
        choices = "; ".join(dict.fromkeys(form.label or f"dataset={form.dataset!r}" for form in forms))
        raise ValueError(
            f"preprocess_input: the forms of {name} are prepared differently. Say which it is, as to its constructor: "
            f"{choices}."
        )
    normalisation, resizes = next(iter(found))
    assert normalisation is not None
    height, width, _ = shape or DATASETS[forms[0].dataset].input_shape
    if network.family == "larq_zoo":
        one = _larq_zoo(name, (height, width))
    else:
        one = _recipe(normalisation, 256 if resizes else None, (height, width))

    def prepare(images: np.ndarray | Sequence[Any]) -> np.ndarray:
        if len(images) == 0:
            raise ValueError("preprocess_input: expected at least one image.")
        return np.stack([one(tf.constant(_pixels(image))).numpy() for image in images])

    return prepare


def _recipe(
    normalisation: Preprocessing, resize: int | None, size: tuple[int, int]
) -> Callable[[tf.Tensor], tf.Tensor]:
    # Training is not loaded with the zoo.
    from larq_rep.training.augmentation import Augmentation, evaluation_image

    augmentation = Augmentation(mean=normalisation.mean, std=normalisation.std, test_resize=resize)
    return lambda image: evaluation_image(image, augmentation, size)


def _larq_zoo(name: str, size: tuple[int, int]) -> Callable[[tf.Tensor], tf.Tensor]:
    if size[0] != size[1]:
        raise ValueError(f"preprocess_input: larq_zoo prepares square images only, but {name} takes {size}.")
    try:
        data = importlib.import_module("larq_zoo.training.data")
    except ImportError as error:
        raise ImportError(
            f"preprocess_input: the images of {name} are prepared by larq_zoo, which cannot be imported: pip install "
            "'larq-rep[zoo]'."
        ) from error
    return lambda image: data.preprocess_image_tensor(image, image_size=size[0])


def _pixels(image: Any) -> np.ndarray:
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] != 3:
        raise ValueError(
            "preprocess_input: expected uint8 images (height, width, 3) with pixels from 0 to 255, found "
            f"{pixels.dtype} {pixels.shape}. Convert it, with PIL by image.convert('RGB')."
        )
    return pixels
