"""The command `lce evaluate`: the accuracy of a model on a folder of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from larq_rep_cli import class_folders, files, light, models, options, runs, terminal
from larq_rep_cli.errors import InputError, refusing

if TYPE_CHECKING:
    import numpy as np

    from larq_rep.accuracy import Accuracy
    from larq_rep.converters.classifier import Classifier
    from larq_rep.training import Config
    from larq_rep.zoo.preprocess import Preparation

_MODES = {1: "L", 3: "RGB"}


@click.command(
    epilog=options.examples(
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
    help="A folder that holds one folder of images for each class.",
)
@click.option("--network", help="Network of the zoo whose images SOURCE takes.  [default: what SOURCE says]")
@options.model_options
@click.option("--limit", type=click.IntRange(min=1), help="At most this many images, evenly from all classes.")
@options.count_option("--batch-size", default=32, text="Images at a time; a model with a fixed batch uses its own.")
@options.json_option
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
    network of one channel and RGB for one of three, and are quantized if a file takes integers.

    They are resized, cropped and normalised as in the evaluation of the run's recipe or of the network of the zoo. If
    published forms of that network differ and nothing says which it is, the first one is assumed; --set chooses one.
    The images of other models are scaled to 0..1, or as their input requires: to a quantized range, or for a first
    layer that scales. The preparation is printed.

    The classes are the folders in alphabetical order, as for ImageNet's numbers, or the classes of the folder that a
    run was trained on; if all names are numbers, they are the class numbers and some may be missing.
    """
    terminal.quiet_tensorflow()
    classifier = _classifier(source, keywords, options)
    config = _config(source)
    prepare, basis = _preparation(source, classifier, config, network, keywords)
    paths, labels = class_folders.labelled(images, source, classifier.classes, _class_names(config))
    if limit and limit < len(paths):
        kept = [i * len(paths) // limit for i in range(limit)]
        paths, labels = [paths[i] for i in kept], [labels[i] for i in kept]
    terminal.note(f"Images: {basis}: {prepare.text}.")
    found = _accuracy(classifier, prepare, paths, labels, batch_size)
    if as_json:
        result: dict[str, Any] = {"source": source, "network": network or classifier.network, "images": found.images}
        result |= {"top1": found.top1, "top5": found.top5, "preparation": f"{basis}: {prepare.text}"}
        terminal.print_json(result)
        return
    top5 = f", top-5 {found.top5:.2%}" if classifier.classes > 5 else ""
    click.echo(f"{source}: top-1 {found.top1:.2%}{top5} of {found.images} images.")


def _accuracy(
    classifier: Classifier, prepare: Preparation, paths: Sequence[Path], labels: Sequence[int], batch_size: int
) -> Accuracy:
    import numpy as np

    from larq_rep import accuracy
    from larq_rep.images import open_upright

    batch_size = classifier.batch or batch_size
    steps = range(0, len(paths), batch_size)

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for first in terminal.track(steps, "classifying", len(steps)):
            part = slice(first, first + batch_size)
            with refusing(ValueError):
                images = prepare([open_upright(path, _MODES[prepare.channels]) for path in paths[part]])
            yield classifier.scores(images), np.array(labels[part])

    return accuracy.measure(batches())


def _config(source: str) -> Config | None:
    """The configuration of a run; `None` for another source."""
    from larq_rep import zoo
    from larq_rep.training import Config

    return Config.read(source) if source not in zoo.list_models() and runs.is_run(source) else None


def _class_names(config: Config | None) -> list[str] | None:
    """The names of the classes of a run, if it was trained on a folder that is still there."""
    from larq_rep.images import images_in

    if config is None or light.datasets.find(config.data) or not Path(config.data, "train").is_dir():
        return None
    return sorted(child.name for child in class_folders.folders_in(Path(config.data, "train")) if images_in(child))


def _classifier(source: str, keywords: tuple[tuple[str, Any], ...], options: dict[str, Any]) -> Classifier:
    from larq_rep import zoo
    from larq_rep.converters import classifier, lce
    from larq_rep.converters.flatbuffer import InvalidFlatbufferError

    in_zoo = source in zoo.list_models()
    if not in_zoo and any(value is not None for value in options.values()):
        raise InputError(
            f"{source} is a file and comes with its weights and sizes: leave out --weights, --beta, --input-size and "
            "--num-classes, which are for networks of the zoo."
        )
    if in_zoo and options["weights"] is None:
        terminal.note(f"{source} without --weights is untrained: its accuracy is chance.")
    if not in_zoo and _is_flatbuffer(Path(source)):
        content = files.read_file(Path(source))
        with (
            refusing(classifier.ClassifierError),
            refusing(InvalidFlatbufferError, lce.RefusedError, prefix=f"{source}: "),
        ):
            return classifier.of_file(source, content)
    model = models.load_model(source, keywords=keywords if in_zoo else (), **options)
    with refusing(classifier.ClassifierError):
        return classifier.of_model(source, model)


def _is_flatbuffer(path: Path) -> bool:
    if path.suffix == ".tflite" or not path.is_file():
        return path.suffix == ".tflite"
    with refusing(OSError, prefix=f"{path} cannot be read: "), path.open("rb") as file:
        return file.read(8)[4:] == b"TFL3"


def _preparation(
    source: str,
    classifier: Classifier,
    config: Config | None,
    network: str | None,
    keywords: tuple[tuple[str, Any], ...],
) -> tuple[Preparation, str]:
    """The preparation of the images, and the reason for it."""
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
        raise InputError(f"{source} does not say which network it is, so --set needs --network NAME.")
    with refusing(ValueError, ImportError):
        if network is None and getattr(classifier.model, "record", None) is not None:
            found = preparation_of(classifier.model, dict(keywords), assume=True)
        else:
            found = preparation(name, dict(keywords), classifier.shape, classifier.classes, assume=True)
    if found.others:
        basis = (
            f"assumed to be those of {name} in its first published form, as {source} does not say which it is (--set "
            f"chooses one; other images have {', '.join(found.others)})"
        )
        return found, basis
    return found, f"those of {name}"


def _assumed(source: str, classifier: Classifier) -> tuple[Preparation, str]:
    """The preparation of images that is known only from the model's input."""
    from larq_rep.zoo.by_range import by_range

    low, high = (0.0, 255.0) if classifier.takes_levels else classifier.range or (0.0, 1.0)
    if classifier.takes_levels:
        reason = "from its first layer, which scales them"
    elif classifier.range:
        reason = f"from the range of its input, {low:.3g} to {high:.3g}"
    else:
        reason = f"as {source} does not say more (--network NAME: those of a network of the zoo)"
    return by_range(classifier.shape, low, high), f"assumed, {reason}"
