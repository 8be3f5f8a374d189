"""The command `lce fold`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from larq_rep_cli import files, light, options, tables, terminal
from larq_rep_cli.errors import refusing


@click.command(
    epilog=options.examples("lce fold lce.tflite -o folded.tflite", "lce fold lce.tflite -o f.tflite --json")
)
@click.argument("file", type=options.PATH)
@options.output_option("The .tflite file to write.")
@options.force_option
@options.json_option
@light.without_tensorflow()
def fold(file: Path, output: Path, force: bool, as_json: bool) -> None:
    """Folds constants of FILE, any .tflite file of LCE, into its convolutions.

    Additions to and multiplications of each channel go into biases and thresholds where the result stays the same up
    to float rounding. lce convert does this automatically.
    """
    files.check_suffix(output, "--output", ".tflite")
    content = files.read_file(file)
    files.check_output(output, force)
    from larq_rep.converters.flatbuffer import InvalidFlatbufferError
    from larq_rep.converters.folding import fold

    with refusing(InvalidFlatbufferError, prefix=f"{file}: "):
        content, report = fold(content)
    with files.replacing(output) as unfinished:
        unfinished.write_bytes(content)
    if as_json:
        terminal.print_json({"source": str(file), "file": str(output), **report.to_dict()})
        return
    names = dict.fromkeys([*report.operators_before, *report.operators_after])
    rows: list[tuple[Any, ...]] = [
        (name, report.operators_before.get(name, 0), report.operators_after.get(name, 0)) for name in names
    ]
    rows.append(("bytes", f"{report.size_before:,}", f"{report.size_after:,}"))
    terminal.console().print(tables.table("Operators", ["operator", "before", "after"], rows))
    click.echo(f"{output}: {tables.megabytes(report.size_after)}, {report.folded_away} operators folded away")
