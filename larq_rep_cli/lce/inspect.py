"""The command `lce inspect`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from larq_rep_cli import files, light, options, tables, terminal
from larq_rep_cli.errors import refusing

if TYPE_CHECKING:
    from larq_rep.converters.description import BinaryConvolution, Description, Island, RealOperator


@click.command(epilog=options.examples("lce inspect rep.tflite", "lce inspect rep.tflite --json"))
@click.argument("file", type=options.PATH)
@options.json_option
@light.without_tensorflow()
def inspect(file: Path, as_json: bool) -> None:
    """Shows the contents of a .tflite FILE: operators, constants, binary convolutions, multiply-accumulates.

    For real-valued layers it shows how many bits a weight has in the file, and how many its levels need; for what
    computes with integers of 8 bits, where these begin and end.

    Ends with the faults of the file, whatever version of LCE or larq-rep made it: a multiplier, bias or threshold of a
    wrong shape, an operator that the delegate of larq-rep-runtime 0.1.0 computes wrongly, and packed outputs that an
    older version may have made wrong, which only lce verify can tell.
    """
    content = files.read_file(file)
    from larq_rep.converters.description import describe_parsed
    from larq_rep.converters.faults import audit_old_faults
    from larq_rep.converters.findings import audit_flatbuffer
    from larq_rep.converters.flatbuffer import Flatbuffer, InvalidFlatbufferError

    with refusing(InvalidFlatbufferError, prefix=f"{file}: "):
        flatbuffer = Flatbuffer(content)
        about = describe_parsed(flatbuffer, content)
        findings = [*audit_flatbuffer(flatbuffer, content), *audit_old_faults(flatbuffer, content)]
    if as_json:
        terminal.print_json({"file": str(file), **about.to_dict(), "findings": [f.to_dict() for f in findings]})
        return
    _print(file, about)
    for finding in findings:
        click.echo(str(finding))


def _print(file: Path, about: Description) -> None:
    from larq_rep.converters.faults import states_version

    click.echo(f"{file}: {tables.megabytes(about.size)}")
    for what, tensors in (("input", about.inputs), ("output", about.outputs)):
        for tensor in tensors:
            click.echo(f"{what} {tensor.name}: {tables.times(tensor.shape)} {tensor.dtype}")
    if states_version(about.metadata):
        click.echo(f"Converted by larq-rep {about.metadata['version']}.")
    _print_images(about)
    out = terminal.console()
    out.print(tables.table("Operators", ["operator", "count"], about.operators.items()))
    rest = about.size - sum(about.constants.values())
    sizes = [
        (name, f"{size:,}", f"{size / about.size:.1%}") for name, size in [*about.constants.items(), ("graph", rest)]
    ]
    out.print(tables.table("Bytes", ["constants", "bytes", "share"], sizes))
    if about.binary_convolutions:
        _print_binary(about.binary_convolutions)
    if about.real_operators:
        _print_real(about.real_operators)
    if about.islands:
        _print_islands(about.islands)
    click.echo(f"Multiply-accumulates: {about.binary_macs:,} binary, {about.real_macs:,} real")


def _print_images(about: Description) -> None:
    from larq_rep.converters import metadata

    said = about.metadata
    if metadata.is_mirrored(said):
        click.echo("It takes mirrored images, top to bottom and left to right.")
    try:
        preparation = metadata.preparation(said, about.inputs[0].shape[1:])
    except ValueError as error:
        click.echo(f"What it says of its images is damaged: {error}")
        return
    if preparation is not None:
        click.echo(f"Images: {preparation.text}.")
    if names := metadata.classes(said, about.outputs[0].shape[-1] if about.outputs[0].shape else 0):
        click.echo(f"Classes: {len(names)}, {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}.")


def _print_binary(convolutions: Sequence[BinaryConvolution]) -> None:
    columns = ["operator", "kernel", "stride", "dilation", "padding", "groups", "input", "output", "as", "then", "MACs"]
    rows = (
        (
            c.index,
            tables.times(c.kernel),
            tables.times(c.strides),
            tables.times(c.dilations),
            c.padding,
            c.groups,
            tables.times(c.input_shape),
            tables.times(c.output_shape),
            c.output,
            c.activation,
            f"{c.macs:,}",
        )
        for c in convolutions
    )
    terminal.console().print(tables.table("Binary convolutions (LceBconv2d), 1 bit a weight", columns, rows))


def _print_real(operators: Sequence[RealOperator]) -> None:
    columns = ["operator", "name", "weights", "bits", "needed", "input", "output", "as", "MACs"]
    rows = (
        (
            op.index,
            op.name,
            tables.times(op.weights_shape),
            op.weight_bits or "-",
            op.needed_bits or "-",
            tables.times(op.input_shape),
            tables.times(op.output_shape),
            op.output,
            f"{op.macs:,}",
        )
        for op in operators
    )
    terminal.console().print(tables.table("Real-valued convolutions and dense layers", columns, rows))


def _print_islands(islands: Sequence[Island]) -> None:
    rows = ((", ".join(island.entered), ", ".join(island.operators), ", ".join(island.left)) for island in islands)
    terminal.console().print(tables.table("Computed with integers", ["from", "operators", "to"], rows))
