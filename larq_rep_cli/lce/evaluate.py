"""The command `lce evaluate`: the accuracy of a model on a folder of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from larq_rep_cli import class_folders, files, models, options, preparing, terminal
from larq_rep_cli.errors import InputError, refusing

if TYPE_CHECKING:
    import numpy as np

    from larq_rep.accuracy import Accuracy
    from larq_rep.converters.classifier import Classifier
    from larq_rep.images import Preparation


@click.command(
    epilog=options.examples(
        "lce evaluate rep_reactnet.h5 --images imagenet/val",
        "lce evaluate runs/mine --images mine/test",
        "lce evaluate rep.tflite --images imagenet/val --limit 1000 --json",
        "lce evaluate RepReActNetA --weights model_best.pth.tar --images imagenet/val",
        "lce evaluate my_own.tflite --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5 --labels classes.txt --images mine/test",
        "lce evaluate other.tflite --network ReActNetA --images imagenet/val",
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
@options.image_options
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
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    resize: int | None,
    labels: Path | None,
    **options: Any,
) -> None:
    """Classifies a folder of class folders with SOURCE and prints top-1 and top-5 accuracy.

    SOURCE is a .tflite file, a Keras file, a run of lqr train or a network of `lce zoo list`. Images become grey for a
    network of one channel and RGB for one of three, and are quantized if a file takes integers.

    They are resized, cropped and normalised as the .tflite file, the recipe of the run, or the network of the zoo says.
    If published forms of that network differ and nothing says which it is, the first one is assumed; --set chooses one.
    The images of other models are scaled to 0..1, or as their input requires: to a quantized range, or for a first
    layer that scales. --mean, --std and --resize change it. The preparation is printed.

    The folders are the classes that --labels, the run or SOURCE names. Otherwise they are the classes in alphabetical
    order, as for ImageNet's numbers; if all names are numbers, they are the class numbers and some may be missing.
    """
    terminal.quiet_tensorflow()
    classifier = _classifier(source, keywords, options)
    changes = preparing.Changes(mean, std, resize, labels)
    of = preparing.of_classifier(source, classifier)
    prepare, basis = preparing.preparation(of, changes, network, keywords)
    names, certain = preparing.class_names(of, changes)
    paths, truth = class_folders.labelled(images, source, classifier.classes, names, certain)
    if limit and limit < len(paths):
        kept = [i * len(paths) // limit for i in range(limit)]
        paths, truth = [paths[i] for i in kept], [truth[i] for i in kept]
    terminal.note(f"Images: {basis}: {prepare.text}.")
    found = _accuracy(classifier, prepare, paths, truth, batch_size)
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
    from larq_rep.images import MODES, open_upright

    batch_size = classifier.batch or batch_size
    steps = range(0, len(paths), batch_size)

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for first in terminal.track(steps, "classifying", len(steps)):
            part = slice(first, first + batch_size)
            with refusing(ValueError):
                images = prepare([open_upright(path, MODES[prepare.channels]) for path in paths[part]])
            yield classifier.scores(images), np.array(labels[part])

    return accuracy.measure(batches())


def _classifier(source: str, keywords: tuple[tuple[str, Any], ...], options: dict[str, Any]) -> Classifier:
    from larq_rep import zoo
    from larq_rep.converters import classifier, lce
    from larq_rep.converters.flatbuffer import InvalidFlatbufferError

    in_zoo = source in zoo.list_models()
    flat = not in_zoo and _is_flatbuffer(Path(source))
    if flat and any(value is not None for value in options.values()):
        raise InputError(
            f"{source} is a file and comes with its weights and sizes: leave out --weights, --beta, --input-size and "
            "--num-classes, which are for models."
        )
    if in_zoo and options["weights"] is None:
        terminal.note(f"{source} without --weights is untrained: its accuracy is chance.")
    if flat:
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
