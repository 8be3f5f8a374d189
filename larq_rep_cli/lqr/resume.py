"""The command `lqr resume`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from larq_rep_cli import options, runs, supervision, training


@click.command(epilog=options.examples("lqr resume runs/digits"))
@click.argument("run", type=options.PATH)
@options.data_dir_option
@click.option("--teacher", help="Where the teacher is now.  [default: where it was]")
@options.restarts_option
@options.wait_option
def resume(run: Path, data_dir: Path | None, teacher: str | None, restarts: int, wait: float | None) -> None:
    """Continues a run that was stopped, after its last whole epoch.

    Damaged files in its folder are named and restored from the checkpoints where possible: a checkpoint itself from the
    one before, metrics.csv and config.json, and weights of epochs that have a checkpoint.
    """
    if runs.strategy(run) == "multiworker":
        supervision.supervise(run, restarts)
    config = runs.config(run, devices=False)
    config = replace(
        config,
        data_dir=str(data_dir.resolve()) if data_dir else config.data_dir,
        teacher=runs.absolute(teacher) if teacher else config.teacher,
    )
    training.run(run, config, wait, resume=True)
