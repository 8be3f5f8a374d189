"""The command `lce zoo show`."""

from __future__ import annotations

from typing import Any

import click

from larq_rep_cli import light, models, options, tables, terminal
from larq_rep_cli.errors import InputError


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
    cost, record = _stored(name, any(value not in (None, ()) for value in options.values())) or _counted(name, options)
    if as_json:
        shape, counts = cost.pop("input_shape"), cost if layers else {k: v for k, v in cost.items() if k != "rows"}
        terminal.print_json({"name": name, "input_shape": shape, "published": record, **counts})
        return
    _print_published(name, cost["input_shape"], record)
    if layers:
        _print_layers(cost)
    _print_totals(name, cost)


@light.without_tensorflow()
def _stored(name: str, other: bool) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The cost of a network and the record of its published form, if they are stored, and it is no `other` form.

    # Raises
        InputError: If there is no such network.
    """
    from larq_rep.zoo import stored

    records = {form["name"]: form["record"] for form in reversed(stored.forms().values())}
    if name not in records:
        hint = light.did_you_mean(name, sorted(records)) or "`lce zoo list` names all."
        raise InputError(f"There is no network named {name!r}. {hint}")
    cost = None if other else stored.layers(name)
    return None if cost is None else (cost, records[name])


def _counted(name: str, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The same of a network that is built for it, whose form may not be a published one."""
    model = models.load_model(name, **options)
    from larq_rep.cost import count
    from larq_rep.zoo import catalog, get_network

    published = next(iter(get_network(name).forms(dict(options["keywords"]))), None)
    cost = {"input_shape": model.input_shape[1:], **count(model).to_dict()}
    return cost, None if published is None else catalog.record(published)


@light.without_tensorflow()
def _print_published(name: str, shape: tuple[int, ...], record: dict[str, Any] | None) -> None:
    from larq_rep.zoo import stored

    click.echo(f"{name}, input {tables.times(shape)}")
    if record is None:
        return
    click.echo(f"{record['paper']['title']}, {record['paper']['url']}")
    click.echo(f"Structure from {stored.SOURCES[record['source']]}.")
    for result in record["results"]:
        click.echo(f"Published top-1 accuracy on {record['dataset']}: {stored.accuracy(result)}")
    if record["weights"]:
        click.echo(f"Published weights (weights={record['dataset']!r}): {record['weights']}")
    for layer, reason in record["left_float"].items():
        click.echo(f"Stays float in a flatbuffer: {layer}: {reason}")


def _print_layers(cost: dict[str, Any]) -> None:
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
        (row["name"], row["layer"], *map(tables.number, numbers))
        for row in cost["rows"]
        if any(
            numbers := (
                row["bops"],
                row["conv_flops"],
                row["dense_flops"],
                row["bn_flops"],
                row["trainable_params"] + row["non_trainable_params"],
                row["binary_params"],
                row["bits"],
            )
        )
    )
    terminal.console().print(tables.table("Layers that compute or have weights", columns, rows))


def _print_totals(name: str, cost: dict[str, Any]) -> None:
    totals = {
        "BOPs": cost["bops"],
        "FLOPs of convolutions": cost["conv_flops"],
        "FLOPs of dense layers": cost["dense_flops"],
        "FLOPs of batch normalisations": cost["bn_flops"],
        "OPs": cost["ops"],
        "OPs with batch normalisations": cost["ops_with_bn"],
        "parameters": cost["trainable_params"],
        "of them binary": cost["binary_params"],
        "statistics": cost["non_trainable_params"],
        "bits of the parameters": cost["trainable_bits"],
        "bits with statistics": cost["bits"],
    }
    terminal.console().print(
        tables.table("Totals", ["", name], ((key, tables.number(value)) for key, value in totals.items()))
    )
    if cost["uncounted"]:
        click.echo(f"Operations of these layers are not counted: {', '.join(cost['uncounted'])}")
