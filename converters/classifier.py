"""Image classifiers: Keras models or .tflite files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tensorflow as tf

from larq_rep import record
from larq_rep.converters import lce, metadata
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.images import Preparation

# A first layer that scales levels 0..255 to about 1 has a smaller factor, or a larger offset or variance, than these.
_FACTOR = 0.1
_OFFSET = 2.0


class ClassifierError(ValueError):
    """A model or file does not map images to a number for each class."""


@dataclass(frozen=True)
class Classifier:
    """A model or file that gives a number for each class of an image.

    # Attributes
        network: Its name; `None` if it has none.
        shape: Height, width and channels of its images.
        classes: Number of classes.
        predict: Maps any number of prepared images to a number for each class.
        batch: Number of images that `predict` takes at a time; `None` for any number.
        range: Smallest and largest value of an integer input.
        takes_levels: Whether its first layer scales the levels 0 to 255.
        model: The Keras model, if it is one.
        about: The metadata of a file, see `larq_rep.converters.metadata`.
    """

    network: str | None
    shape: tuple[int, int, int]
    classes: int
    predict: Callable[[np.ndarray], np.ndarray]
    batch: int | None
    range: tuple[float, float] | None = None
    takes_levels: bool = False
    model: tf.keras.Model | None = None
    about: dict[str, Any] = field(default_factory=dict)

    def scores(self, images: np.ndarray) -> np.ndarray:
        """A number for each class, `(images, classes)`, of prepared images, at most `batch` of them."""
        # The last image is repeated to fill a fixed batch.
        missing = self.batch - len(images) if self.batch else 0
        given = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)])
        return np.asarray(self.predict(given)).reshape(len(given), -1)[: len(images)]


def _sizes(
    source: str, inputs: list[tuple[int | None, ...]], outputs: list[tuple[int | None, ...]]
) -> tuple[tuple[int, int, int], int, int | None]:
    """Shape of an image, number of classes, and the batch if that is fixed.

    # Raises
        ClassifierError: If it is not a classifier of images.
    """

    def refuse(expected: str) -> ClassifierError:
        maps = " to ".join(" and ".join(map(str, shapes)) or "nothing" for shapes in (inputs, outputs))
        return ClassifierError(f"{source} maps {maps}. Expected {expected}.")

    if len(inputs) != 1 or len(inputs[0]) != 4 or inputs[0][3] not in (1, 3):
        raise refuse("one input of images: (batch, height, width, channels) with 1 channel (grey) or 3 (RGB)")
    batch, height, width, channels = inputs[0]
    if height is None or width is None or channels is None:
        raise refuse("images of a fixed size: build the network with one")
    scores = outputs[0] if len(outputs) == 1 else ()
    # Some classifiers end with a map of one pixel, and some files of one image leave out the batch.
    sizes = [size for size in (scores if batch == 1 and len(scores) == 1 else scores[1:]) if size != 1]
    if len(sizes) != 1 or sizes[0] is None:
        raise refuse("one output: a number for each of at least two classes")
    return (height, width, channels), sizes[0], batch


def of_model(source: str, model: tf.keras.Model) -> Classifier:
    """The classifier of a Keras model.

    # Arguments
        source: Its name, for messages.
        model: The model.

    # Raises
        ClassifierError: If it is not a classifier of images.
    """
    inputs, outputs = model.inputs or [], model.outputs or []
    shape, classes, batch = _sizes(source, [tuple(x.shape) for x in inputs], [tuple(y.shape) for y in outputs])
    dtype = inputs[0].dtype.as_numpy_dtype
    of_zoo = getattr(model, "record", None)
    return Classifier(
        network=of_zoo.network if of_zoo else model.name,
        shape=shape,
        classes=classes,
        predict=lambda images: tf.nest.flatten(model.predict_on_batch(images.astype(dtype)))[0],
        batch=batch,
        range=(0.0, 255.0) if np.dtype(dtype).kind in "iu" else None,
        takes_levels=takes_levels(model),
        model=model,
    )


def takes_levels(model: tf.keras.Model) -> bool:
    """Whether the model begins with layers that scale the levels 0 to 255 to about 1."""
    layers = tf.keras.layers
    for layer in _layers(model):
        if isinstance(layer, layers.Rescaling):
            factor, offset = np.max(layer.scale), 0.0
        elif isinstance(layer, layers.Normalization):
            factor, offset = 1.0, np.max(getattr(layer, "mean", 0))
        else:
            factor, offset = _arithmetic(layer)
        if factor < _FACTOR or offset > _OFFSET:
            return True
        if layer.weights and not isinstance(layer, layers.Normalization):
            return False
    return False


def _levels(model: tf.keras.Model) -> Preparation | None:
    """The preparation of images for a model that begins with layers that scale levels; `None` for another model."""
    shapes = [tuple(x.shape[1:]) for x in model.inputs or []]
    if len(shapes) != 1 or len(shapes[0]) != 3 or None in shapes[0] or shapes[0][2] not in (1, 3):
        return None
    height, width, channels = shapes[0]
    return Preparation(size=(height, width), channels=channels, range=(0, 255)) if takes_levels(model) else None


def _layers(model: tf.keras.Model) -> Iterator[tf.keras.layers.Layer]:
    """The layers of a model and of the models in it, in their order."""
    for layer in model.layers:
        if isinstance(layer, tf.keras.Model):
            yield from _layers(layer)
        else:
            yield layer


def _arithmetic(layer: tf.keras.layers.Layer) -> tuple[float, float]:
    """Factor and offset of a layer that Keras makes of `x / 255`, `x * a` or `x - a`."""
    name = getattr(getattr(layer, "function", None), "__name__", "")
    if name not in ("truediv", "multiply", "subtract"):
        return 1.0, 0.0
    node = layer.inbound_nodes[0]
    given = tf.nest.flatten((node.call_args, node.call_kwargs))
    value = next((float(np.max(x)) for x in given if isinstance(x, int | float | np.ndarray | np.number)), 0.0)
    if not value:
        return 1.0, 0.0
    return {"truediv": (1 / value, 0.0), "multiply": (value, 0.0), "subtract": (1.0, value)}[name]


def known_images(
    model: tf.keras.Model, preparation: Preparation | None, classes: Sequence[str] | None
) -> tuple[Preparation | None, Sequence[str] | None]:
    """What the file says of its images: what the caller says, or else the model's record or first layers.

    # Raises
        ValueError: If `preparation` or `classes` do not fit the model.
    """
    if preparation is not None and [tuple(x.shape[1:]) for x in model.inputs] != [
        (*preparation.size, preparation.channels)
    ]:
        shape = (*preparation.size, preparation.channels)
        raise ValueError(f"preparation: it is for images of {shape}, but {model.name} takes {model.input_shape}.")
    if classes is not None:
        if isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
            raise ValueError(f"classes: expected a list of names, found {classes!r:.80}.")
        classes = list(map(str, classes))
    if classes and [y.shape[-1] for y in model.outputs] != [len(classes)]:
        raise ValueError(f"classes: there are {len(classes)} names, but {model.name} gives {model.output_shape}.")
    by_record = record.known_images(model)
    return preparation or by_record[0] or _levels(model), by_record[1] if classes is None else classes or None


def of_file(source: str, content: bytes) -> Classifier:
    """The classifier of a .tflite file.

    # Arguments
        source: Its name, for messages.
        content: Its bytes.

    # Raises
        ClassifierError: If it is not a classifier of images.
        InvalidFlatbufferError, RefusedError: If it cannot be read, or LCE's interpreter does not take it.
    """
    flatbuffer = Flatbuffer(content)
    shape, classes, batch = _sizes(
        source, [flatbuffer.shape(i) for i in flatbuffer.inputs], [flatbuffer.shape(i) for i in flatbuffer.outputs]
    )
    engine = lce.any_interpreter(content)
    about = metadata.read(content)
    dtype = np.dtype(engine.input_types[0])
    if dtype.kind not in "fiu":
        raise ClassifierError(f"{source} takes images of the type {dtype}. Expected numbers.")
    classifier = Classifier(
        network=about.get("network"),
        shape=shape,
        classes=classes,
        predict=lambda images: engine.interpreter.predict([metadata.as_taken(about, images).astype(dtype)])[0],
        batch=batch,
        takes_levels=scales_levels(flatbuffer),
        about=about,
    )
    return classifier if dtype.kind == "f" else _quantized(classifier, engine, dtype)


def _quantized(classifier: Classifier, engine: Any, dtype: np.dtype) -> Classifier:
    """The classifier of a file that takes integers: it quantizes images as the file says."""
    limits = np.iinfo(dtype)
    scale, zero = engine.input_scales[0], engine.input_zero_points[0]
    if not scale:  # The integers are the levels of an image, in int8 from -128.
        scale, zero = 1.0, -128 if dtype == np.int8 else 0

    def predict(images: np.ndarray) -> np.ndarray:
        return classifier.predict(np.clip(np.round(images / scale) + zero, limits.min, limits.max))

    return replace(classifier, predict=predict, range=((limits.min - zero) * scale, (limits.max - zero) * scale))


def scales_levels(flatbuffer: Flatbuffer) -> bool:
    """Whether the first operator scales levels 0 to 255 to about 1."""
    for op in flatbuffer.consumers.get(flatbuffer.inputs[0], []):
        for constant in (c for tensor in op.inputs if (c := flatbuffer.constant(tensor)) is not None):
            if (op.name == "MUL" and constant.max() < _FACTOR) or (op.name == "SUB" and constant.max() > _OFFSET):
                return True
    return False
