"""The command `lqr plot`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from larq_rep_cli import files, light, options, runs, terminal
from larq_rep_cli.errors import InputError, refusing

if TYPE_CHECKING:
    import tensorflow as tf
    from matplotlib.figure import Figure

    from larq_rep.plots import Point
    from larq_rep.training import Config

_PLOTTED_IMAGES = 64


@click.command(
    epilog=options.examples(
        "lqr plot runs/digits --kind history -o curves.png",
        "lqr plot runs/digits --kind activations -o activations.png",
        "lqr plot runs/digits --kind ops -o ops.png",
    )
)
@click.argument("folders", metavar="RUN...", nargs=-1, required=True, type=options.PATH)
@click.option(
    "--kind",
    type=click.Choice(("history", "coefficients", "activations", "features", "ops")),
    default="history",
    show_default=True,
    help="history: loss, accuracy and learning rate; coefficients: learned shifts and slopes; activations: inputs of "
    "binary convolutions before and after the sign; features: a feature map before and after its repeat; ops: "
    "accuracy against OPs, with the published networks for the data set.",
)
@options.output_option("The .png file to write.")
@click.option("--layer", help="Name of the layer to draw, for activations and features.")
@options.weights_option
@options.force_option
def plot(folders: tuple[Path, ...], kind: str, output: Path, layer: str | None, weights: str, force: bool) -> None:
    """Draws what runs have learned, like the papers' figures.

    history and ops take several runs, the other kinds one.
    """
    files.check_suffix(output, "--output", ".png")
    if layer and kind not in ("activations", "features"):
        raise InputError(f"--layer is for activations and features, not for {kind}.")
    if len(folders) > 1 and kind not in ("history", "ops"):
        raise InputError(f"--kind {kind} draws one run, found {len(folders)}.")
    files.check_output(output, force)
    configs = {str(folder): runs.config(folder) for folder in folders}
    from larq_rep import plots

    with refusing(ValueError, FileNotFoundError, OSError), terminal.working(f"drawing {kind}"):
        if kind == "history":
            figure = _history(configs)
        elif kind == "ops":
            figure = plots.accuracy_against_ops([*_runs(configs, weights), *_published(configs)])
        else:
            [(folder, config)] = configs.items()
            figure = _figure(kind, config, runs.load(folder, weights), layer)
        plots.write(figure, output)
    click.echo(f"{output}: {kind} of {', '.join(configs)}")


def _history(folders: Iterable[str]) -> Figure:
    from larq_rep import plots, training

    histories = {folder: training.read_metrics(folder) for folder in folders}
    for folder, rows in histories.items():
        if not rows:
            raise InputError(f"{folder} has finished no epoch yet, so there is nothing to draw.")
    return plots.history(histories)


def _figure(kind: str, config: Config, network: tf.keras.Model, layer: str | None) -> Figure:
    from larq_rep import plots
    from larq_rep.training import datasets

    if kind == "coefficients":
        return plots.coefficients(network)
    source = datasets.load(config.data, config.data_dir)
    batches = datasets.batches(
        source, config.recipe.augmentation, network.input_shape[1:3], _PLOTTED_IMAGES, training=False
    )
    with runs.explained():
        images = next(iter(batches))[0].numpy()
    return (plots.activations if kind == "activations" else plots.feature_maps)(network, images, layer)


def _runs(configs: dict[str, Config], weights: str) -> list[Point]:
    from larq_rep import cost, plots, training

    points = []
    for folder, config in configs.items():
        network = runs.load(folder, weights)
        rows = [row["val_accuracy"] for row in training.read_metrics(folder)]
        last = [row for row in training.read_metrics(folder) if row["phase"] == len(config.recipe.phases)]
        accuracy = max(row["val_accuracy"] for row in last) if weights == "best" else rows[-1]
        points.append(plots.Point(folder, float(cost.count(network).ops), 100 * accuracy, "runs"))
    return points


def _published(configs: dict[str, Config]) -> list[Point]:
    """The published networks for the data of the runs."""
    from larq_rep import plots, zoo
    from larq_rep.zoo import catalog
    from larq_rep.zoo.registry import DATASETS

    found = [light.datasets.find(config.data) for config in configs.values()]
    forms = {data.name for data in found if data} & DATASETS.keys()
    costs = catalog.stored_costs()
    published = {}
    for name in zoo.list_models():
        record = zoo.get_network(name)
        for variant in record.variants:
            key = catalog.key(name, variant)
            if variant.dataset in forms and variant.results and key in costs:
                published[key] = (record.family, costs[key]["ops"], variant.results[0].top1)
    bases = {key: key.removeprefix("Rep") for key in published}
    return [
        plots.Point(key, ops, top1, family, bases[key] if bases[key] != key and bases[key] in published else None)
        for key, (family, ops, top1) in published.items()
    ]
