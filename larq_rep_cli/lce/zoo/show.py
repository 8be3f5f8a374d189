"""The command `lce zoo show`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from larq_rep_cli import models, options, tables, terminal
from larq_rep_cli.errors import InputError
from larq_rep_cli.light import did_you_mean

if TYPE_CHECKING:
    from larq_rep.cost import Cost
    from larq_rep.zoo.registry import Variant


@click.command(
    epilog=options.examples("lce zoo show RepReActNetA", "lce zoo show RepResNet20 --beta 4 --no-layers --json")
)
@click.argument("name")
@options.size_options
@click.option("--layers/--no-layers", default=True, help="A line for each layer.  [default: layers]")
@options.json_option
def show(name: str, layers: bool, as_json: bool, **options: Any) -> None:
    """Counts operations, parameters and bits of the network NAME for one image, and shows its published results.

    OPs are FLOPs + BOPs / 64. For conventions and sources see the documentation of larq_rep.cost.
    """
    terminal.quiet_tensorflow()
    from larq_rep.zoo import list_models

    if name not in list_models():
        hint = did_you_mean(name, list_models()) or "`lce zoo list` names all."
        raise InputError(f"There is no network named {name!r}. {hint}")
    model = models.load_model(name, **options)
    from larq_rep.cost import count
    from larq_rep.zoo import catalog, get_network

    cost = count(model)
    published = next(iter(get_network(name).forms(dict(options["keywords"]))), None)
    if as_json:
        record = published and catalog.record(published)
        result = {"name": name, "input_shape": model.input_shape[1:], "published": record, **cost.to_dict()}
        terminal.print_json(result if layers else {key: value for key, value in result.items() if key != "rows"})
        return
    _print_published(name, model.input_shape[1:], published)
    if layers:
        _print_layers(cost)
    _print_totals(name, cost)


def _print_published(name: str, shape: tuple[int, ...], published: Variant | None) -> None:
    from larq_rep.zoo import catalog

    click.echo(f"{name}, input {tables.times(shape)}")
    if published and published.paper:
        click.echo(f"{published.paper.title}, {published.paper.url}")
        click.echo(f"Structure from {catalog.SOURCES[published.source]}.")
        for accuracy in published.results:
            click.echo(f"Published top-1 accuracy on {published.dataset}: {catalog.accuracy(accuracy)}")
        if published.weights:
            click.echo(f"Published weights (weights={published.dataset!r}): {published.weights.page}")
        for layer, reason in published.left_float.items():
            click.echo(f"Stays float in a flatbuffer: {layer}: {reason}")


def _print_layers(cost: Cost) -> None:
    columns = [
        "layer",
        "class",
        "BOPs",
        "conv FLOPs",
        "dense FLOPs",
        "BN FLOPs",
        "parameters",
        "of them binary",
        "bits",
    ]
    rows = (
        (row.name, row.layer, *map(tables.number, numbers))
        for row in cost.rows
        if any(
            numbers := (
                row.bops,
                row.conv_flops,
                row.dense_flops,
                row.bn_flops,
                row.trainable_params + row.non_trainable_params,
                row.binary_params,
                row.bits,
            )
        )
    )
    terminal.console().print(tables.table("Layers that compute or have weights", columns, rows))


def _print_totals(name: str, cost: Cost) -> None:
    totals = {
        "BOPs": cost.bops,
        "FLOPs of convolutions": cost.conv_flops,
        "FLOPs of dense layers": cost.dense_flops,
        "FLOPs of batch normalisations": cost.bn_flops,
        "OPs": cost.ops,
        "OPs with batch normalisations": cost.ops_with_bn,
        "parameters": cost.trainable_params,
        "of them binary": cost.binary_params,
        "statistics": cost.non_trainable_params,
        "bits of the parameters": cost.trainable_bits,
        "bits with statistics": cost.bits,
    }
    terminal.console().print(
        tables.table("Totals", ["", name], ((key, tables.number(value)) for key, value in totals.items()))
    )
    if cost.uncounted:
        click.echo(f"Operations of these layers are not counted: {', '.join(cost.uncounted)}")
