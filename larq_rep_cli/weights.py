"""The commands `lce import` and `lce evaluate`: the authors' weights, and how well a model does with them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from larq_rep_cli import common, tables

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from larq_rep.zoo.checkpoint.mapping import ImportReport

_PATH = click.Path(path_type=Path)
_SUFFIXES = (".h5", ".keras")


@click.command(
    "import",
    epilog=common.examples(
        "lce import model_best.pth.tar -o rep_reactnet.h5",
        "lce import rbnn.pth --network ResNet20 --set method=rbnn_bireal -o rbnn.h5",
        "lce import checkpoint.pth.tar --step 1 -o step1.h5 --report",
        "lce convert rep_reactnet.h5 -o rep.tflite",
    ),
)
@click.argument("file", type=_PATH)
@click.option("-o", "--output", type=_PATH, required=True, help="The .h5 or .keras file to write.")
@click.option("--network", help="Name of the network.  [default: the one that the keys of FILE belong to]")
@common.size_options
@click.option(
    "--step",
    type=click.IntRange(1, 2),
    default=2,
    show_default=True,
    help="Phase of a training in two: after the first one the weights are real.",
)
@click.option(
    "--reader",
    type=click.Choice(("ours", "torch")),
    default="ours",
    show_default=True,
    help="What reads FILE: ours needs no PyTorch, torch is its loader of weights.",
)
@click.option("--report", "whole", is_flag=True, help="Print where each weight comes from.")
@common.force_option
@common.json_option
def import_(
    file: Path,
    output: Path,
    network: str | None,
    beta: int | None,
    keywords: tuple[tuple[str, Any], ...],
    input_size: tuple[int, int, int] | None,
    num_classes: int | None,
    step: int,
    reader: str,
    whole: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Imports FILE, a PyTorch checkpoint of a network's authors, as a Keras model.

    Every key of FILE has its place in the network or is known to be unused; else nothing is written and all that do
    not fit are listed. Nothing in FILE is executed. The outputs of the model are those of the authors' code, except
    that the sign of exactly 0 is +1.

    Ends with one line: file, network, weights, size, seconds.
    """
    if output.suffix not in _SUFFIXES or output.name.endswith(".weights.h5"):
        raise common.InputError(f"--output {output}: expected the name of a file in {' or '.join(_SUFFIXES)}.")
    common.check_output(output, force)
    start = time.perf_counter()
    common.quiet_tensorflow()
    import tensorflow as tf

    from larq_rep import zoo
    from larq_rep.layers import Mirror
    from larq_rep.training.phases import with_real_weights
    from larq_rep.zoo.checkpoint import CheckpointError, read_state_dict
    from larq_rep.zoo.checkpoint.families import load_state_dict
    from larq_rep.zoo.checkpoint.identify import identify
    from larq_rep.zoo.registry import DATASETS, choose

    with common.refusing(CheckpointError):
        arrays = read_state_dict(file, reader=reader)
    hint = ""
    try:
        guess, arguments = identify(arrays)
    except CheckpointError as error:
        if network is None:
            raise common.InputError(f"{file}: {error}.") from error
        guess, arguments = network, {}
    if network not in (None, guess):
        arguments, hint = {}, f"Its keys are those of {guess}."
    network = network or guess
    for key, value in keywords:
        if key in ("input_shape", "input_tensor", "weights"):
            raise common.InputError(f"--set {key}={value!r}: the weights are those of FILE, the size is --input-size.")
    given = {"beta": beta, "num_classes": num_classes, **dict(keywords)}
    arguments |= {key: value for key, value in given.items() if value is not None or key in dict(keywords)}
    with common.refusing(ValueError, TypeError, ImportError):
        forms = zoo.get_network(network).variants
        dataset = choose(network, "dataset", arguments.get("dataset", forms[0].dataset), DATASETS)
        shape = input_size or DATASETS[dataset].input_shape
        image = tf.keras.Input(shape, name="image")
        with common.working(f"building {network}"):
            model = zoo.get_model(network, input_tensor=Mirror(name="mirror")(image), **arguments)
            model = with_real_weights(model) if step == 1 else model
    with common.refusing(CheckpointError, prefix=f"{file}: "):
        try:
            report = load_state_dict(model, arrays)
        except CheckpointError as error:
            raise CheckpointError("\n".join(filter(None, [str(error), hint]))) from error
    with common.working(f"writing {output}"), common.replacing(output) as unfinished:
        model.save(unfinished)
    label = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    size, seconds = output.stat().st_size, time.perf_counter() - start
    if as_json:
        result = {"source": str(file), "file": str(output), "arguments": arguments, "size": size, "seconds": seconds}
        common.print_json({**result, **report.to_dict()})
        return
    if whole:
        _print_rows(report)
    for line in _notes(report):
        common.note(line)
    click.echo(
        f"{output}: {network}({label}), {len(report.rows)} weights, {len(report.unused)} keys unused, "
        f"{tables.megabytes(size)}, {seconds:.1f} s"
    )


def _print_rows(report: ImportReport) -> None:
    rows: list[tuple[Any, ...]] = [
        (row.weight, tables.times(row.shape), key, tables.times(shape) or "()", row.how)
        for row in report.rows
        for key, shape in zip(row.keys, row.found, strict=True)
    ]
    rows += [("", "", key, "", f"unused: {reason}") for key, reason in report.unused.items()]
    columns = ["weight", "shape", "key", "shape in the file", "how"]
    common.console().print(tables.table(f"{report.network}: {len(report.rows)} weights", columns, rows))


def _notes(report: ImportReport) -> list[str]:
    lines = []
    if report.zeros:
        lines.append(
            f"Latent weights that are exactly 0, whose sign is +1 here while PyTorch leaves them out: "
            f"{sum(report.zeros.values())} ({_counts(report.zeros)})."
        )
    if report.close:
        lines.append(
            f"Weights so close to 0 that rounding decides their sign, which may be another in PyTorch: "
            f"{sum(report.close.values())} ({_counts(report.close)})."
        )
    return lines


def _counts(counts: dict[str, int]) -> str:
    listed = [f"{layer}: {count}" for layer, count in list(counts.items())[:4]]
    return ", ".join([*listed, *["..."] * (len(counts) > 4)])


@click.command(
    epilog=common.examples(
        "lce evaluate rep_reactnet.h5 --images imagenet/val",
        "lce evaluate rep.tflite --images imagenet/val --limit 1000 --json",
        "lce evaluate RepReActNetA --weights model_best.pth.tar --images imagenet/val",
        "lce evaluate fracbnn.h5 --set method=fracbnn_gated --images cifar10/test",
    )
)
@click.argument("source")
@click.option("--images", type=_PATH, required=True, help="A folder of one folder of images for each class.")
@click.option("--network", help="Network whose preparation of images is meant.  [default: that of the file]")
@common.model_options
@click.option("--limit", type=click.IntRange(min=1), help="So many images at most, evenly from all classes.")
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True)
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

    SOURCE is a .tflite file, a Keras file, a run of lqr train or a network of `lce zoo list`. Images are resized,
    cropped and normalised as the recipe of its network does in evaluation (larq_rep.zoo.preprocess_input). --set says
    which form of the network it is, where forms differ in that.

    The classes are the folders in alphabetical order, as of ImageNet's numbers; if all names are numbers, they are the
    classes themselves and some may be missing.
    """
    files, labels, classes = _labelled(images)
    if limit and limit < len(files):
        kept = [i * len(files) // limit for i in range(limit)]
        files, labels = [files[i] for i in kept], [labels[i] for i in kept]
    common.quiet_tensorflow()
    predict, name, shape, outputs = _predictor(source, network, keywords, options)
    import numpy as np

    from larq_rep.data import open_upright
    from larq_rep.zoo.preprocess import preparation

    with common.refusing(ValueError, ImportError):
        prepare = preparation(name, dict(keywords), shape, outputs)
    if max(labels) >= outputs or (classes is not None and classes != outputs):
        raise common.InputError(
            f"{images} has {classes or max(labels) + 1} classes, but {source} knows {outputs}. Expected a folder for "
            "each class, or folders whose names are the numbers of classes, from 0."
        )
    hits = {1: 0, 5: 0}
    steps = range(0, len(files), batch_size)
    for first in common.track(steps, "classifying", len(steps)):
        with common.refusing(ValueError):
            batch = prepare([open_upright(file) for file in files[first : first + batch_size]])
        truth = np.array(labels[first : first + batch_size])[:, None]
        best = np.argsort(-predict(batch), axis=1, kind="stable")
        for k in hits:
            hits[k] += int((best[:, :k] == truth).any(axis=1).sum())
    accuracy = {k: hit / len(files) for k, hit in hits.items()}
    if as_json:
        common.print_json(
            {"source": source, "network": name, "images": len(files), "top1": accuracy[1], "top5": accuracy[5]}
        )
        return
    top5 = f", top-5 {accuracy[5]:.2%}" if outputs > 5 else ""
    click.echo(f"{source}: top-1 {accuracy[1]:.2%}{top5} of {len(files)} images.")


def _labelled(folder: Path) -> tuple[list[Path], list[int], int | None]:
    """Image files and their classes, and the number of classes unless the folders are named by their numbers."""
    from larq_rep.data import images_in

    if not folder.is_dir():
        raise common.InputError(f"--images: {folder} is not a folder. Expected a folder of one folder for each class.")
    folders = sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    numbered = all(child.name.isdecimal() for child in folders)
    if numbered and len({int(child.name) for child in folders}) < len(folders):
        raise common.InputError(
            f"--images: {folder} has two folders with the same number. Expected one for each class."
        )
    number = {child: int(child.name) if numbered else index for index, child in enumerate(folders)}
    found = [(file, number[child]) for child in folders for file in images_in(child)]
    if not found:
        raise common.InputError(f"--images: {folder} has no folders with images. Expected one for each class.")
    files, labels = zip(*found, strict=True)
    return list(files), list(labels), None if numbered else len(folders)


def _predictor(
    source: str, network: str | None, keywords: tuple[tuple[str, Any], ...], options: dict[str, Any]
) -> tuple[Callable[[np.ndarray], np.ndarray], str, tuple[int, ...], int]:
    """A function from images to logits, the network whose images it takes, their shape, and the number of classes."""
    import numpy as np

    from larq_rep import zoo

    in_zoo = source in zoo.list_models()
    if not in_zoo and any(value is not None for value in options.values()):
        raise common.InputError(
            f"{source} is a file and comes with its weights and sizes: leave out --weights, --beta, --input-size and "
            "--num-classes, which are for networks of the zoo."
        )
    if in_zoo and options["weights"] is None:
        common.note(f"{source} without --weights is untrained: its accuracy is that of chance.")
    if source.endswith(".tflite"):
        from larq_rep_runtime.metadata import read_metadata

        from larq_rep.converters import lce, metadata
        from larq_rep.converters.flatbuffer import Flatbuffer, InvalidFlatbufferError

        content = common.read_file(Path(source))
        with common.refusing(InvalidFlatbufferError, lce.RefusedError, prefix=f"{source}: "):
            flatbuffer = Flatbuffer(content)
            interpreter = lce.any_interpreter(content)
        about = read_metadata(content)
        name = network or about.get("network")
        shape, out = flatbuffer.shape(flatbuffer.inputs[0])[1:], flatbuffer.shape(flatbuffer.outputs[0])

        def predict(images: np.ndarray) -> np.ndarray:
            return np.asarray(interpreter.predict(metadata.as_taken(about, images)))
    else:
        model = common.load_model(source, keywords=keywords if in_zoo else (), **options)
        name, shape, out = network or model.name, model.input_shape[1:], model.output_shape
        predict = model.predict_on_batch
    if name not in zoo.list_models():
        found = f"comes from {name!r}, which is no network of the zoo" if name else "does not say which network it is"
        raise common.InputError(
            f"{source} {found}, so it is not known how its images are prepared. Give a name of `lce zoo list`: "
            "--network NAME."
        )
    if len(shape) != 3 or shape[2] != 3 or None in shape or len(out) != 2:
        raise common.InputError(
            f"{source} maps {tuple(shape)} to {tuple(out)}. Expected RGB images of a fixed size, and a number for each "
            "class."
        )
    return predict, name, tuple(shape), out[1]
