"""The command `lqr ablate`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from larq_rep_cli import ablation, files, options, tables, terminal
from larq_rep_cli.errors import InputError, refusing


@click.command(
    epilog=options.examples(
        "lqr ablate --out runs/ablate --write docs/ablation.md",
        "lqr ablate --out runs/short --short",
        "lqr ablate --out runs/ablate --rows 'ReCU*' --seeds 10 --json",
    )
)
@click.option("--out", type=options.PATH, required=True, help="Folder for the runs; finished runs in it count.")
@click.option("--seeds", type=click.IntRange(min=2), default=5, show_default=True, help="Runs of each row.")
@click.option("--epochs", type=click.IntRange(min=2), default=ablation.EPOCHS, show_default=True)
@click.option(
    "--rows", default=("*",), multiple=True, show_default=True, help="Shell pattern of rows' names; may be repeated."
)
@click.option("--jobs", type=click.IntRange(min=1), help="Runs at a time, one core each.  [default: all cores]")
@click.option("--short", is_flag=True, help="2 seeds, 6 epochs, and three rows only.")
@click.option("--write", type=options.PATH, help="Also write the tables to this .md file.")
@options.json_option
def ablate(
    out: Path,
    seeds: int,
    epochs: int,
    rows: tuple[str, ...],
    jobs: int | None,
    short: bool,
    write: Path | None,
    as_json: bool,
) -> None:
    """Compares in miniature what the papers compare: repeats, their place, last layers, activations.

    Trains narrow networks on digits, each with several seeds, and prints mean, deviation and the paired differences
    with their confidence intervals. If it was stopped, call it again to continue where it was.
    """
    if short:
        seeds, epochs, rows = 2, 6, ("IR-Net: ResNet-20", "IR-Net: Rep, beta 2", "IR-Net: Rep, BN*")
    selected = ablation.chosen(*rows)
    if not selected:
        names = "\n".join(f"  {row.name}" for row in ablation.ROWS)
        raise InputError(f"No row matches {' or '.join(rows)}. There are:\n{names}")
    if write:
        files.check_output(write, force=True)
    terminal.quiet_tensorflow()
    from larq_rep import training

    results = {}
    with refusing(ValueError, OSError):
        done = ablation.train_all(selected, seeds, epochs, out, jobs or os.cpu_count() or 1)
        for row, seed, accuracy in terminal.track(done, "training", seeds * len(selected)):
            results[row.name, seed] = accuracy
            terminal.note(f"{row.name}, seed {seed}: {accuracy:.2f} %")
    found = ablation.summary({(row.name, seed): results[row.name, seed] for row in selected for seed in range(seeds)})
    if write:
        command = f"lqr ablate --out {out} --seeds {seeds} --epochs {epochs}" + "".join(
            f" --rows '{pattern}'" for pattern in rows if pattern != "*"
        )
        with files.replacing(write) as unfinished:
            unfinished.write_text(ablation.page(found, training.versions(), command, epochs), encoding="utf-8")
    if as_json:
        terminal.print_json({**found, "epochs": epochs, "versions": training.versions()})
    else:
        _print(found)


def _print(found: dict[str, list[dict[str, Any]]]) -> None:
    columns = ["network", "seeds", "mean", "std"]
    shown = [(row["name"], row["seeds"], f"{row['mean']:.2f}", f"{row['std']:.2f}") for row in found["rows"]]
    terminal.console().print(tables.table("Test accuracy after the last epoch, percent", columns, shown))
    columns = ["claim", "difference", "95 % interval", "paper", "shows"]
    lines = [
        (
            c["claim"],
            f"{c['difference']:+.2f}",
            f"{c['low']:+.2f} to {c['high']:+.2f}",
            f"{c['published']:+.2f}",
            c["shows"],
        )
        for c in found["comparisons"]
    ]
    terminal.console().print(tables.table("Differences of the same seeds", columns, lines))
