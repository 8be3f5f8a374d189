"""The command `lce zoo list`."""

from __future__ import annotations

import click

from larq_rep_cli import light, options, tables, terminal
from larq_rep_cli.errors import InputError, refusing


@click.command(
    "list",
    epilog=options.examples(
        "lce zoo list", "lce zoo list '*react*'", "lce zoo list --family resnet20 --dataset cifar10 --json"
    ),
)
@click.argument("pattern", default="*")
@click.option("--family", help="Only this family, such as reactnet.")
@click.option("--dataset", type=click.Choice(list(light.datasets.PUBLISHED)), help="Only forms for this data.")
@options.json_option
def list_(pattern: str, family: str | None, dataset: str | None, as_json: bool) -> None:
    """Lists the networks whose names match PATTERN, ignoring case, in all their published forms.

    Parameters, OPs (FLOPs + BOPs / 64) and size (a weight has the bits of its quantizer, or 32) are for the published
    image size; the accuracy is the published one. docs/zoo.md has more.
    """
    terminal.quiet_tensorflow()
    from larq_rep.zoo import catalog, get_network, list_models

    with refusing(ValueError):
        names = list_models(pattern, family=family, dataset=dataset)
    if not names:
        raise InputError(f"No network matches {pattern!r}. `lce zoo list` names all; * stands for any characters.")
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
        terminal.print_json(records)
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
    terminal.console().print(tables.table(f"{len(names)} networks", columns, rows))
