"""The command `lqr export`."""

from __future__ import annotations

from pathlib import Path

import click

from larq_rep_cli import options, runs, terminal
from larq_rep_cli.lce.convert import write_tflite


@click.command(epilog=options.examples("lqr export runs/digits -o rep.tflite"))
@click.argument("run", type=options.PATH)
@options.output_option("The .tflite file to write.")
@options.weights_option
@options.force_option
@options.json_option
def export(run: Path, output: Path, weights: str, force: bool, as_json: bool) -> None:
    """Converts the network of a run to a bitpacked .tflite file, as lce convert RUN does.

    Version 0.3 will remove it: use lce convert RUN.
    """
    runs.config(run)
    write_tflite(str(run), lambda: runs.load(run, weights), output, force=force, as_json=as_json)
    best = "" if weights == "best" else ", which takes the weights of the best epoch"
    terminal.note(f"Version 0.3 will remove lqr export: use `lce convert {run} -o {output}`{best}.")
