"""The commands `lce zoo ...`: the networks that can be given by name."""

from __future__ import annotations

from typing import Any

import click

from larq_rep_cli import common, light, tables


@click.group(cls=common.Group)
def zoo() -> None:
    """The networks that can be given by name."""


@zoo.command(
    "list",
    epilog=common.examples(
        "lce zoo list", "lce zoo list '*react*'", "lce zoo list --family resnet20 --dataset cifar10 --json"
    ),
)
@click.argument("pattern", default="*")
@click.option("--family", help="Only this family, such as reactnet.")
@click.option("--dataset", type=click.Choice(list(light.datasets.PUBLISHED)), help="Only forms for this data.")
@common.json_option
def list_(pattern: str, family: str | None, dataset: str | None, as_json: bool) -> None:
    """Lists the networks whose names match PATTERN, whatever the case, in all their published forms.

    Parameters, OPs (FLOPs + BOPs / 64) and size (1 bit for a binary weight, 32 for others) are those at the
    published image size; the accuracy is the published one. docs/zoo.md has more.
    """
    common.quiet_tensorflow()
    from larq_rep.zoo import catalog, get_network, list_models

    with common.refusing(ValueError):
        names = list_models(pattern, family=family, dataset=dataset)
    if not names:
        raise common.InputError(f"No network matches {pattern!r}. `lce zoo list` names all; * stands for any letters.")
    costs = catalog.stored_costs()
    forms = [
        (get_network(name), variant, costs[catalog.key(name, variant)])
        for name in names
        for variant in get_network(name).variants
        if dataset in (None, variant.dataset)
    ]
    if as_json:
        records = [
            {"name": n.name, "family": n.family, **catalog.record(variant), **cost} for n, variant, cost in forms
        ]
        common.print_json(records)
        return
    rows = [
        (
            network.name,
            variant.label,
            variant.dataset,
            f"{cost['trainable_params']:,}",
            f"{cost['ops'] / 1e6:,.2f}",
            f"{cost['trainable_bits'] / 2**23:.2f}",
            variant.results[0].top1 if variant.results else "",
        )
        for network, variant, cost in forms
    ]
    columns = ["network", "arguments", "data", "parameters", "M OPs", "MiB", "top-1 %"]
    common.console().print(tables.table(f"{len(names)} networks", columns, rows))


@zoo.command(
    epilog=common.examples("lce zoo show RepReActNetA", "lce zoo show RepResNet20 --beta 4 --no-layers --json")
)
@click.argument("name")
@common.size_options
@click.option("--layers/--no-layers", default=True, help="A line for each layer.  [default: layers]")
@common.json_option
def show(name: str, layers: bool, as_json: bool, **options: Any) -> None:
    """Counts operations, parameters and bits of the network NAME for one image, and tells what was published of it.

    OPs are FLOPs + BOPs / 64. Conventions and sources are in the documentation of larq_rep.cost.
    """
    common.quiet_tensorflow()
    from larq_rep.zoo import list_models

    if name not in list_models():
        hint = common.did_you_mean(name, list_models()) or "`lce zoo list` names all."
        raise common.InputError(f"There is no network named {name!r}. {hint}")
    model = common.load_model(name, **options)
    from larq_rep.cost import count
    from larq_rep.zoo import catalog, get_network

    cost = count(model)
    published = next(iter(get_network(name).forms(dict(options["keywords"]))), None)
    if as_json:
        record = published and catalog.record(published)
        result = {"name": name, "input_shape": model.input_shape[1:], "published": record, **cost.to_dict()}
        common.print_json(result if layers else {key: value for key, value in result.items() if key != "rows"})
        return
    click.echo(f"{name}, input {tables.times(model.input_shape[1:])}")
    if published and published.paper:
        click.echo(f"{published.paper.title}, {published.paper.url}")
        click.echo(f"Structure from {catalog.SOURCES[published.source]}.")
        for accuracy in published.results:
            click.echo(f"Published top-1 accuracy on {published.dataset}: {catalog.accuracy(accuracy)}")
        if published.weights:
            click.echo(f"Published weights (weights={published.dataset!r}): {published.weights.page}")
        for layer, reason in published.left_float.items():
            click.echo(f"Stays float in a flatbuffer: {layer}: {reason}")
    out = common.console()
    if layers:
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
        out.print(tables.table("Layers that compute or have weights", columns, rows))
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
    out.print(tables.table("Totals", ["", name], ((key, tables.number(value)) for key, value in totals.items())))
    if cost.uncounted:
        click.echo(f"Operations of these layers are not counted: {', '.join(cost.uncounted)}")
