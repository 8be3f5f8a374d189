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
@light.without_tensorflow()
def list_(pattern: str, family: str | None, dataset: str | None, as_json: bool) -> None:
    """Lists the networks whose names match PATTERN, ignoring case, in all their published forms.

    Parameters, OPs (FLOPs + BOPs / 64) and size (a weight has the bits of its quantizer, or 32) are for the published
    image size; the accuracy is the published one. docs/zoo.md has more.
    """
    from larq_rep.zoo import records, stored

    every = stored.forms()
    data = [(form["name"], form["family"], form["record"]["dataset"]) for form in every.values()]
    with refusing(ValueError):
        names = records.matching(data, pattern, family, dataset)
    if not names:
        raise InputError(f"No network matches {pattern!r}. `lce zoo list` names all; * stands for any characters.")
    forms = {
        call: form
        for call, form in every.items()
        if form["name"] in names and dataset in (None, form["record"]["dataset"])
    }
    if as_json:
        terminal.print_json(
            [
                {"name": form["name"], "family": form["family"], **form["record"], **form["costs"]}
                for form in forms.values()
            ]
        )
        return
    rows = [
        (
            form["name"],
            call.removeprefix(form["name"])[1:-1],
            form["record"]["dataset"],
            f"{form['costs']['trainable_params']:,}",
            f"{form['costs']['ops'] / 1e6:,.2f}",
            f"{form['costs']['trainable_bits'] / 2**23:.2f}",
            form["record"]["results"][0]["top1"] if form["record"]["results"] else "",
        )
        for call, form in forms.items()
    ]
    columns = ["network", "arguments", "data", "parameters", "M OPs", "MiB", "top-1 %"]
    terminal.console().print(tables.table(f"{len(names)} networks", columns, rows))
