"""How the images of a run, a file or a model are prepared, and what its classes are called."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from larq_rep_cli import runs
from larq_rep_cli.errors import InputError, refusing

if TYPE_CHECKING:
    import tensorflow as tf

    from larq_rep.converters.classifier import Classifier
    from larq_rep.images import Preparation
    from larq_rep.training import Config


class Changes(NamedTuple):
    """The values of `options.image_options`."""

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize: int | None = None
    labels: Path | None = None


class Source(NamedTuple):
    """What may know the images of a network.

    # Attributes
        name: The model or file, for messages.
        shape: Height, width and channels of its images.
        classes: Number of its classes, if it has classes.
        about: The metadata of a .tflite file.
        config: The configuration of a run.
        model: A Keras model.
        takes_levels: Whether its first layer scales levels 0 to 255.
        range: Smallest and largest value of an integer input.
    """

    name: str
    shape: tuple[int, int, int]
    classes: int | None = None
    about: Mapping[str, Any] = {}
    config: Config | None = None
    model: tf.keras.Model | None = None
    takes_levels: bool = False
    range: tuple[float, float] | None = None


def of_classifier(name: str, classifier: Classifier) -> Source:
    """The source of a classifier, which may be a run, a model or a file."""
    return Source(
        name,
        classifier.shape,
        classifier.classes,
        classifier.about,
        run_config(name),
        classifier.model,
        classifier.takes_levels,
        classifier.range,
    )


def of_network(
    name: str, network: tf.keras.Model, config: Config | None, about: Mapping[str, Any] | None = None
) -> Source:
    """The source of a Keras model of images, the network of a run perhaps, or of its file with the metadata `about`."""
    from larq_rep.converters import classifier

    outputs = network.output_shape
    classes = outputs[1] if isinstance(outputs, tuple) and len(outputs) == 2 else None
    levels = classifier.takes_levels(network)
    return Source(name, network.input_shape[1:], classes, about or {}, config, network, levels)


def of_run(source: str, model: tf.keras.Model) -> dict[str, Any]:
    """What a run says of the images and classes of its network, as arguments of `larq_rep.converters.convert`."""
    if (config := run_config(source)) is None:
        return {}
    names = _names(config)
    return {
        "preparation": config.recipe.augmentation.at(model.input_shape[1:3], model.input_shape[3]),
        # Others than the run's own would be wrong.
        "classes": names if len(names) == model.output_shape[-1] else (),
    }


def _names(config: Config) -> tuple[str, ...]:
    from larq_rep.training.run import class_names

    with refusing(FileNotFoundError):
        return class_names(config)


def run_config(source: str) -> Config | None:
    """The configuration of a run; `None` for another source."""
    from larq_rep import zoo
    from larq_rep.training import Config

    return Config.read(source) if source not in zoo.list_models() and runs.is_run(source) else None


def preparation(
    source: Source, changes: Changes, network: str | None = None, keywords: tuple[tuple[str, Any], ...] = ()
) -> tuple[Preparation, str]:
    """The preparation of the images, and where it comes from.

    It is that of the network that was asked for, or else what the file, the run, or the record of the model says, in
    this order; otherwise it is assumed. `changes` apply to it.

    # Raises
        InputError: If it is damaged, there is no such network or form, or the changes do not fit it.
    """
    found, basis = _by_network(source, network, keywords) or _said(source) or _by_name(source) or _assumed(source)
    changed = {name: value for name in ("mean", "std", "resize") if (value := getattr(changes, name)) is not None}
    for name in {"mean", "std"} & set(changed):
        changed[name] *= found.channels if len(changed[name]) == 1 else 1
    if not changed:
        return found, basis
    from larq_rep.images import Preparation

    if type(found) is not Preparation and len(changed) < 3:
        raise InputError(f"{source.name} is {found.text} in its own way: give all of --mean, --std and --resize.")
    options = " and ".join(f"--{name}" for name in changed)
    kept = {name: getattr(found, name) for name in ("size", "channels", "resize", "range", "mean", "std")}
    if {"mean", "std"} & set(changed):
        kept |= _in_unit_range(found)
    with refusing(ValueError, prefix=f"{options}: "):
        return Preparation(**{**kept, **changed}), f"with {options}, otherwise {basis}"


def _in_unit_range(found: Preparation) -> dict[str, Any]:
    """Mean and standard deviation for pixels in 0..1, as the options mean them."""
    low, high = found.range
    mean = found.mean and tuple((value - low) / (high - low) for value in found.mean)
    std = found.std and tuple(value / (high - low) for value in found.std)
    return {"range": (0.0, 1.0), "mean": mean, "std": std}


def class_names(source: Source, changes: Changes) -> tuple[tuple[str, ...] | None, bool]:
    """The names of the classes, if they are known, and whether they are those that the network was trained on.

    A file may have the names of the data set that its network was made for, though it was trained further on another.

    # Raises
        InputError: If the file of `--labels` cannot be read, or it or the file itself has another number of names.
    """
    from larq_rep.converters import metadata

    count = source.classes or 0
    if changes.labels is not None:
        with refusing(OSError, ValueError, prefix=f"--labels {changes.labels} cannot be read: "):
            text = changes.labels.read_text(encoding="utf-8-sig").rstrip()
            names = tuple(line.strip() for line in text.split("\n")) if text else ()
        if len(names) != count:
            raise InputError(f"--labels: {changes.labels} has {len(names)} names, {source.name} {count} classes.")
        return names, True
    said = metadata.classes(dict(source.about), count)
    if said is None and count and source.about.get("classes"):
        raise InputError(
            f"{source.name} has damaged metadata: classes should be {count} names. Convert the file again or give "
            "--labels."
        )
    if said is None and source.config is not None:
        said = _names(source.config)
        return said if said and len(said) == count else None, True
    record = getattr(source.model, "record", None)
    if record is not None and len(record.classes) == count > 0:  # of a run
        return record.classes, True
    return said, False


def _by_network(
    source: Source, network: str | None, keywords: tuple[tuple[str, Any], ...]
) -> tuple[Preparation, str] | None:
    """The preparation of the network that `--network` and `--set` name."""
    if network is None and not keywords:
        return None
    from larq_rep.zoo.preprocess import preparation, preparation_of

    with refusing(ValueError, ImportError):
        if network is None and (record := getattr(source.model, "record", None)) is not None:
            return _of_zoo(source, record.network, preparation_of(source.model, dict(keywords), assume=True))
        name = network or source.about.get("network")
        if name is None:
            raise InputError(f"{source.name} does not say which network it is, so --set needs --network NAME.")
        return _of_zoo(source, name, preparation(name, dict(keywords), source.shape, source.classes, True))


def _said(source: Source) -> tuple[Preparation, str] | None:
    """What the file, the run or the record of the model says."""
    from larq_rep.converters import metadata
    from larq_rep.zoo.preprocess import preparation_of

    with refusing(ValueError, prefix=f"{source.name} has damaged metadata: "):
        if (found := metadata.preparation(dict(source.about), source.shape)) is not None:
            return found, f"as {source.name} says"
    if source.config is not None:
        basis = f"as the recipe {source.config.recipe.name} of the run prepares them"
        return source.config.recipe.augmentation.at(source.shape[:2], source.shape[2]), basis
    record = getattr(source.model, "record", None)
    if record is None or source.takes_levels:
        return None
    if record.preparation is not None:
        return record.preparation, f"as the run that trained {source.name} prepared them"
    with refusing(ValueError, ImportError):
        return _of_zoo(source, record.network, preparation_of(source.model, {}, assume=True))


def _by_name(source: Source) -> tuple[Preparation, str] | None:
    """That of the network of the zoo whose name a file has, which says no more."""
    from larq_rep import zoo
    from larq_rep.zoo.preprocess import preparation

    name = source.about.get("network")
    if name not in zoo.list_models() or source.takes_levels:
        return None
    with refusing(ValueError, ImportError):
        found, basis = _of_zoo(source, name, preparation(name, {}, source.shape, source.classes, True))
    return found, basis if basis.startswith("assumed") else f"assumed to be {basis}, the name in {source.name}"


def _of_zoo(source: Source, name: str, found: Preparation) -> tuple[Preparation, str]:
    if found.others:
        basis = (
            f"assumed to be those of {name} in its first published form, as {source.name} does not say which it is "
            f"(--set chooses one; other images have {', '.join(found.others)})"
        )
        return found, basis
    return found, f"those of {name}"


def _assumed(source: Source) -> tuple[Preparation, str]:
    """The preparation of images that is known only from the model's input."""
    from larq_rep.zoo.by_range import by_range

    low, high = (0.0, 255.0) if source.takes_levels else source.range or (0.0, 1.0)
    if source.takes_levels:
        reason = "from its first layer, which scales them"
    elif source.range:
        reason = f"from the range of its input, {low:.3g} to {high:.3g}"
    else:
        reason = f"as {source.name} does not say more (--mean, --std, --resize)"
    return by_range(source.shape, low, high), f"assumed, {reason}"
