"""The command `lqr recipes`."""

from __future__ import annotations

import click

from larq_rep_cli import options, tables, terminal
from larq_rep_cli.errors import refusing


@click.command(epilog=options.examples("lqr recipes", "lqr recipes adambnn", "lqr recipes --json"))
@click.argument("name", required=False)
@options.json_option
def recipes(name: str | None, as_json: bool) -> None:
    """Lists the published recipes, or all values of the recipe NAME."""
    terminal.quiet_tensorflow()
    from larq_rep import training
    from larq_rep.training.recipe import to_json

    with refusing(ValueError):
        chosen = [training.get_recipe(name)] if name else list(training.RECIPES.values())
    if as_json or name:
        values = [to_json(recipe) for recipe in chosen]
        terminal.print_json(values[0] if name else values)
        return
    rows = [
        [
            recipe.name,
            recipe.networks,
            recipe.dataset,
            " + ".join(str(phase.epochs) for phase in recipe.phases),
            recipe.phases[0].batch_size,
            recipe.phases[0].optimizer,
            f"{recipe.phases[0].learning_rate:g}",
            "yes" if recipe.phases[0].teacher else "no",
            recipe.source,
        ]
        for recipe in chosen
    ]
    columns = ["recipe", "networks", "data", "epochs", "batch", "optimizer", "rate", "teacher", "source"]
    terminal.console().print(tables.table("Recipes; `lqr recipes NAME` shows all values of one", columns, rows))
