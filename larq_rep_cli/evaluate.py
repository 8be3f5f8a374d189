"""The command `lce evaluate`: how well a model does on a folder of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from larq_rep_cli import common, runs

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from larq_rep.converters.flatbuffer import Flatbuffer
    from larq_rep.training import Config
    from larq_rep.zoo.preprocess import Preparation

_MODES = {1: "L", 3: "RGB"}
# A first layer of the user's that brings levels 0..255 to about 1 has a factor below, an offset or variance above.
_FACTOR = 0.1
_OFFSET = 2.0


@dataclass(frozen=True)
class _Classifier:
    """What is evaluated.

    # Attributes
        network: Its name; `None` if it has none.
        shape: Height, width and channels of its images.
        classes: How many it knows.
        predict: From prepared images, any number of them, to a number for each class.
        batch: Images that `predict` wants at a time; `None` for any number.
        range: Least and greatest value of an input of integers.
        takes_levels: Whether its first layer scales the levels 0 to 255.
        model: The model, if it is one of Keras.
    """

    network: str | None
    shape: tuple[int, int, int]
    classes: int
    predict: Callable[[np.ndarray], np.ndarray]
    batch: int | None
    range: tuple[float, float] | None = None
    takes_levels: bool = False
    model: tf.keras.Model | None = None


@click.command(
    epilog=common.examples(
        "lce evaluate rep_reactnet.h5 --images imagenet/val",
        "lce evaluate runs/mine --images mine/test",
        "lce evaluate rep.tflite --images imagenet/val --limit 1000 --json",
        "lce evaluate RepReActNetA --weights model_best.pth.tar --images imagenet/val",
        "lce evaluate fracbnn.tflite --set method=fracbnn_gated --images cifar10/test",
        "lce evaluate my_own.tflite --network ReActNetA --images imagenet/val",
    )
)
@click.argument("source")
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    required=True,
    help="A folder of one folder of images for each class.",
)
@click.option("--network", help="Network of the zoo whose images SOURCE takes.  [default: what SOURCE says]")
@common.model_options
@click.option("--limit", type=click.IntRange(min=1), help="So many images at most, evenly from all classes.")
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Images at a time; a model of a fixed batch has its own.",
)
@common.json_option
def evaluate(
    source: str,
    images: Path,
    network: str | None,
    limit: int | None,
    batch_size: int,
    as_json: bool,
    keywords: tuple[tuple[str, Any], ...],
    **options: Any,
) -> None:
    """Classifies a folder of class folders with SOURCE and prints top-1 and top-5 accuracy.

    SOURCE is a .tflite file, a Keras file, a run of lqr train or a network of `lce zoo list`. Images become grey for a
    network of one channel and RGB for one of three, and are quantized where a file takes integers.

    They are resized, cropped and normalised as the recipe of a run or of a network of the zoo does in evaluation. Where
    published forms of that network differ and nothing says which it is, the first one is assumed; --set says which.
    The images of other models are scaled to 0..1, or to what their input tells: a quantized range, or a first layer
    that scales. What is done is printed.

    The classes are the folders in alphabetical order, as of ImageNet's numbers, or those of the folder that a run was
    trained on; if all names are numbers, they are the classes themselves and some may be missing.
    """
    common.quiet_tensorflow()
    classifier = _classifier(source, keywords, options)
    config = _config(source)
    prepare, basis = _preparation(source, classifier, config, network, keywords)
    files, labels = _labelled(images, source, classifier.classes, _class_names(config))
    if limit and limit < len(files):
        kept = [i * len(files) // limit for i in range(limit)]
        files, labels = [files[i] for i in kept], [labels[i] for i in kept]
    common.note(f"Images: {basis}: {prepare.text}.")
    hits = _hits(classifier, prepare, files, labels, batch_size)
    accuracy = {k: hit / len(files) for k, hit in hits.items()}
    if as_json:
        result: dict[str, Any] = {"source": source, "network": network or classifier.network, "images": len(files)}
        result |= {"top1": accuracy[1], "top5": accuracy[5], "preparation": f"{basis}: {prepare.text}"}
        common.print_json(result)
        return
    top5 = f", top-5 {accuracy[5]:.2%}" if classifier.classes > 5 else ""
    click.echo(f"{source}: top-1 {accuracy[1]:.2%}{top5} of {len(files)} images.")


def _hits(
    classifier: _Classifier, prepare: Preparation, files: Sequence[Path], labels: Sequence[int], batch_size: int
) -> dict[int, int]:
    """How many images have their class among the first so many."""
    import numpy as np

    from larq_rep.data import open_upright

    hits = {1: 0, 5: 0}
    batch_size = classifier.batch or batch_size
    steps = range(0, len(files), batch_size)
    for first in common.track(steps, "classifying", len(steps)):
        part = files[first : first + batch_size]
        with common.refusing(ValueError):
            images = prepare([open_upright(file, _MODES[prepare.channels]) for file in part])
        # A model of a fixed batch gets the last image several times.
        missing = classifier.batch - len(part) if classifier.batch else 0
        images = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)])
        scores = np.asarray(classifier.predict(images), np.float64).reshape(len(images), -1)[: len(part)]
        best = np.argsort(-scores, axis=1, kind="stable")
        truth = np.array(labels[first : first + batch_size])[:, None]
        for k in hits:
            hits[k] += int((best[:, :k] == truth).any(axis=1).sum())
    return hits


# Images and their classes


def _config(source: str) -> Config | None:
    """The configuration of a run; `None` for another source."""
    from larq_rep import zoo
    from larq_rep.training import Config

    return Config.read(source) if source not in zoo.list_models() and runs.is_run(source) else None


def _class_names(config: Config | None) -> list[str] | None:
    """The names of the classes of a run, if it was trained on a folder that is still there."""
    from larq_rep.data import images_in

    if config is None or config.data in runs.FORMS or not Path(config.data, "train").is_dir():
        return None
    return sorted(child.name for child in _folders_in(Path(config.data, "train")) if images_in(child))


def _folders_in(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def _labelled(folder: Path, source: str, classes: int, names: list[str] | None) -> tuple[list[Path], list[int]]:
    """Image files and their classes."""
    from larq_rep.data import images_in

    if not folder.is_dir():
        raise common.InputError(f"--images: {folder} is not a folder. Expected a folder of one folder for each class.")
    folders = _folders_in(folder)
    found = {child: images_in(child) for child in folders}
    numbered = all(child.name.isdecimal() for child in folders)
    if numbered and not names and len({int(child.name) for child in folders}) < len(folders):
        raise common.InputError(
            f"--images: {folder} has two folders with the same number. Expected one for each class."
        )
    if not any(found.values()):
        raise common.InputError(f"--images: {folder} has no folders with images. Expected one for each class.")
    if names:
        strange = [child.name for child in folders if child.name not in names and found[child]]
        if strange:
            raise common.InputError(
                f"--images: {folder} has the folder {strange[0]!r} ({len(strange)} such), but {source} was trained on "
                f"the classes {_some(names)}."
            )
        number = {child: names.index(child.name) for child in folders if child.name in names}
    else:
        number = _numbers(folder, folders, source, classes)
    labelled = [(file, number[child]) for child in folders for file in found[child]]
    files, labels = zip(*labelled, strict=True)
    return list(files), list(labels)


def _numbers(folder: Path, folders: list[Path], source: str, classes: int) -> dict[Path, int]:
    """The class of each folder, by its name if all are numbers of classes, else by its place."""
    numbered = all(child.name.isdecimal() for child in folders)
    if numbered and max(int(child.name) for child in folders) < classes:
        return {child: int(child.name) for child in folders}
    if len(folders) != classes:
        count = max(int(child.name) for child in folders) + 1 if numbered else len(folders)
        raise common.InputError(
            f"{folder} has {count} classes, but {source} knows {classes}. Expected a folder for each class, or folders "
            "whose names are the numbers of classes, from 0."
        )
    if numbered:
        common.note(
            f"The folders of {folder} are no numbers of classes from 0, so they are taken in alphabetical order: "
            f"{_some([child.name for child in folders])}."
        )
    return {child: place for place, child in enumerate(folders)}


def _some(names: list[str]) -> str:
    return ", ".join([*names[:8], *["..."] * (len(names) > 8)])


# What is evaluated


def _classifier(source: str, keywords: tuple[tuple[str, Any], ...], options: dict[str, Any]) -> _Classifier:
    from larq_rep import zoo

    in_zoo = source in zoo.list_models()
    if not in_zoo and any(value is not None for value in options.values()):
        raise common.InputError(
            f"{source} is a file and comes with its weights and sizes: leave out --weights, --beta, --input-size and "
            "--num-classes, which are for networks of the zoo."
        )
    if in_zoo and options["weights"] is None:
        common.note(f"{source} without --weights is untrained: its accuracy is that of chance.")
    if not in_zoo and _is_flatbuffer(Path(source)):
        return _of_file(source)
    return _of_model(source, common.load_model(source, keywords=keywords if in_zoo else (), **options))


def _is_flatbuffer(path: Path) -> bool:
    if path.suffix == ".tflite" or not path.is_file():
        return path.suffix == ".tflite"
    with common.refusing(OSError, prefix=f"{path} cannot be read: "), path.open("rb") as file:
        return file.read(8)[4:] == b"TFL3"


def _sizes(
    source: str, inputs: list[tuple[int | None, ...]], outputs: list[tuple[int | None, ...]]
) -> tuple[tuple[int, int, int], int, int | None]:
    """Shape of an image, number of classes, and the batch if that is fixed.

    # Raises
        InputError: If it is no classifier of images.
    """

    def refuse(expected: str) -> common.InputError:
        maps = " to ".join(" and ".join(map(str, shapes)) or "nothing" for shapes in (inputs, outputs))
        return common.InputError(f"{source} maps {maps}. Expected {expected}.")

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


def _of_model(source: str, model: tf.keras.Model) -> _Classifier:
    import numpy as np
    import tensorflow as tf

    inputs, outputs = model.inputs or [], model.outputs or []
    shape, classes, batch = _sizes(source, [tuple(x.shape) for x in inputs], [tuple(y.shape) for y in outputs])
    dtype = inputs[0].dtype.as_numpy_dtype
    layers = tf.keras.layers
    record = getattr(model, "record", None)
    return _Classifier(
        network=record.network if record else model.name,
        shape=shape,
        classes=classes,
        predict=lambda images: tf.nest.flatten(model.predict_on_batch(images.astype(dtype)))[0],
        batch=batch,
        range=(0.0, 255.0) if np.dtype(dtype).kind in "iu" else None,
        takes_levels=any(
            (isinstance(layer, layers.Rescaling) and np.max(layer.scale) < _FACTOR)
            or (isinstance(layer, layers.Normalization) and np.max(getattr(layer, "mean", 0)) > _OFFSET)
            for layer in model.submodules
        ),
        model=model,
    )


def _of_file(source: str) -> _Classifier:
    import numpy as np
    from larq_rep_runtime.metadata import read_metadata

    from larq_rep.converters import lce, metadata
    from larq_rep.converters.flatbuffer import Flatbuffer, InvalidFlatbufferError

    content = common.read_file(Path(source))
    with common.refusing(InvalidFlatbufferError, lce.RefusedError, prefix=f"{source}: "):
        flatbuffer = Flatbuffer(content)
        shape, classes, batch = _sizes(
            source, [flatbuffer.shape(i) for i in flatbuffer.inputs], [flatbuffer.shape(i) for i in flatbuffer.outputs]
        )
        engine = lce.any_interpreter(content)
    about = read_metadata(content)
    dtype = np.dtype(engine.input_types[0])
    if dtype.kind not in "fiu":
        raise common.InputError(f"{source} takes images of the type {dtype}. Expected numbers.")
    classifier = _Classifier(
        network=about.get("network"),
        shape=shape,
        classes=classes,
        predict=lambda images: engine.interpreter.predict([metadata.as_taken(about, images).astype(dtype)])[0],
        batch=batch,
        takes_levels=_scales_levels(flatbuffer),
    )
    return classifier if dtype.kind == "f" else _quantized(classifier, engine, dtype)


def _quantized(classifier: _Classifier, engine: Any, dtype: np.dtype) -> _Classifier:
    """A file that takes integers: images are quantized as it says."""
    import numpy as np

    limits = np.iinfo(dtype)
    scale, zero = engine.input_scales[0], engine.input_zero_points[0]
    if not scale:  # The integers are the levels of an image, in int8 from -128.
        scale, zero = 1.0, -128 if dtype == np.int8 else 0

    def predict(images: np.ndarray) -> np.ndarray:
        return classifier.predict(np.clip(np.round(images / scale) + zero, limits.min, limits.max))

    return replace(classifier, predict=predict, range=((limits.min - zero) * scale, (limits.max - zero) * scale))


def _scales_levels(flatbuffer: Flatbuffer) -> bool:
    """Whether the first operator brings levels 0 to 255 to about 1."""
    for op in flatbuffer.consumers.get(flatbuffer.inputs[0], []):
        for constant in (c for tensor in op.inputs if (c := flatbuffer.constant(tensor)) is not None):
            if (op.name == "MUL" and constant.max() < _FACTOR) or (op.name == "SUB" and constant.max() > _OFFSET):
                return True
    return False


# How its images are prepared


def _preparation(
    source: str,
    classifier: _Classifier,
    config: Config | None,
    network: str | None,
    keywords: tuple[tuple[str, Any], ...],
) -> tuple[Preparation, str]:
    """What is done to the images, and how that is known."""
    from larq_rep import zoo
    from larq_rep.zoo.preprocess import by_recipe, preparation, preparation_of

    asked = network is not None or bool(keywords)
    if config is not None and not asked:
        basis = f"as the recipe {config.recipe.name} of the run prepares them"
        return by_recipe(config.recipe.augmentation, classifier.shape), basis
    name = network or classifier.network
    if not asked and name not in zoo.list_models():
        return _assumed(source, classifier)
    if name is None:
        raise common.InputError(f"{source} does not say which network it is, so --set needs --network NAME.")
    with common.refusing(ValueError, ImportError):
        if network is None and getattr(classifier.model, "record", None) is not None:
            found = preparation_of(classifier.model, dict(keywords), assume=True)
        else:
            found = preparation(name, dict(keywords), classifier.shape, classifier.classes, assume=True)
    if found.others:
        basis = (
            f"assumed to be those of {name} in its first published form, as {source} does not say which it is (--set "
            f"says so; other images have {', '.join(found.others)})"
        )
        return found, basis
    return found, f"those of {name}"


def _assumed(source: str, classifier: _Classifier) -> tuple[Preparation, str]:
    """What is done to images of which only the model's input tells something."""
    import tensorflow as tf

    from larq_rep.data import IMAGENET_MEAN, IMAGENET_STD
    from larq_rep.training.augmentation import Augmentation
    from larq_rep.zoo.preprocess import by_recipe

    plain = by_recipe(Augmentation(), classifier.shape)
    ways = {
        (0.0, 1.0): plain,
        (-1.0, 1.0): replace(
            plain, one=lambda image: 2 * plain.one(image) - 1, text=plain.text.replace("in 0..1", "in -1..1")
        ),
        (0.0, 255.0): replace(
            # The levels are whole ones, which a division and a product in float32 need not leave.
            plain,
            one=lambda image: tf.round(255 * plain.one(image)),
            text=plain.text.replace("in 0..1", "in 0..255"),
        ),
    }
    if classifier.shape[2] == 3:
        ways[-2.1, 2.6] = by_recipe(Augmentation(mean=IMAGENET_MEAN, std=IMAGENET_STD), classifier.shape)
    low, high = (0.0, 255.0) if classifier.takes_levels else classifier.range or (0.0, 1.0)
    nearest = min(ways, key=lambda way: abs(low - way[0]) + abs(high - way[1]))
    if classifier.takes_levels:
        reason = "from its first layer, which scales them"
    elif classifier.range:
        reason = f"from the range of its input, {low:.3g} to {high:.3g}"
    else:
        reason = f"as {source} does not say more (--network NAME: those of a network of the zoo)"
    return ways[nearest], f"assumed, {reason}"
