"""The command `lce import`: imports the authors' weights."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from larq_rep_cli import files, options, tables, terminal
from larq_rep_cli.errors import InputError, refusing

if TYPE_CHECKING:
    from larq_rep.zoo.mapping import ImportReport

_SUFFIXES = (".h5", ".keras")


@click.command(
    "import",
    epilog=options.examples(
        "lce import recu.pth -o recu.h5",
        "lce import model_best.pth.tar --step 2 -o rep_reactnet.h5",
        "lce import rbnn.pth --set method=rbnn_bireal -o rbnn.h5",
        "lce import checkpoint.pth.tar --step 1 -o step1.h5 --report",
        "lce convert rep_reactnet.h5 -o rep.tflite",
    ),
)
@click.argument("file", type=click.Path())  # Not a Path, which takes a slash from an address.
@options.output_option("The .h5 or .keras file to write.")
@click.option("--network", help="Name of the network.  [default: the one that the keys of FILE belong to]")
@options.size_options
@click.option(
    "--step",
    type=click.IntRange(1, 2),
    help="Phase of a two-phase training that FILE is from: after the first one the weights are real. Asked for if keys "
    "and shapes of both are the same.",
)
@click.option(
    "--key", metavar="NAME", help="Dictionary of FILE that has the weights; a.b for b in a.  [default: the only one]"
)
@click.option(
    "--ignore",
    multiple=True,
    metavar="PATTERN",
    help="Leave out the keys of FILE with this shell pattern, such as 'teacher.*'; may be repeated.",
)
@click.option(
    "--reader",
    type=click.Choice(("ours", "torch")),
    hidden=True,
    expose_value=False,
    deprecated="It has no effect and goes with 0.3: there is one reader.",
)
@click.option("--report", "whole", is_flag=True, help="Print where each weight comes from.")
@options.force_option
@options.json_option
def import_(
    file: str,
    output: Path,
    network: str | None,
    beta: int | None,
    keywords: tuple[tuple[str, Any], ...],
    input_size: tuple[int, ...] | None,
    num_classes: int | None,
    step: int | None,
    key: str | None,
    ignore: tuple[str, ...],
    whole: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Imports FILE, a PyTorch checkpoint of a network's authors, as a Keras model.

    Every key of FILE must have a place in the network or be known to be unused; otherwise nothing is written and every
    key that does not fit is listed. If FILE fits several networks or phases, the options to choose one of them are
    listed (--step, --set). Nothing in FILE is executed. The model gives the same outputs as the authors' code,
    except that the sign of exactly 0 is +1.

    Ends with one line: file, network, weights, size, seconds.
    """
    if output.suffix not in _SUFFIXES or output.name.endswith(".weights.h5"):
        raise InputError(f"--output {output}: expected the name of a file in {' or '.join(_SUFFIXES)}.")
    files.check_output(output, force)
    start = time.perf_counter()
    given = dict(keywords)
    for name in {"input_shape", "input_tensor", "weights"} & set(given):
        raise InputError(f"--set {name}={given[name]!r}: the weights come from FILE, the size from --input-size.")
    given = {key: value for key, value in (("beta", beta), ("num_classes", num_classes)) if value is not None} | given
    shape = options.of_zoo(input_size) if input_size else None
    terminal.quiet_tensorflow()
    from larq_rep import zoo

    with refusing(ValueError, TypeError, ImportError), terminal.working(f"importing {file}"):
        model, report = zoo.import_checkpoint(
            file, network, input_shape=shape, step=step, key=key, ignore=ignore, **given
        )
    with terminal.working(f"writing {output}"), files.replacing(output) as unfinished:
        model.save(unfinished)
    _print(report, file, output, time.perf_counter() - start, whole, as_json)


def _print(report: ImportReport, file: str, output: Path, seconds: float, whole: bool, as_json: bool) -> None:
    size = output.stat().st_size
    if as_json:
        about = {"source": file, "file": str(output), "size": size, "seconds": seconds}
        terminal.print_json({**about, **report.to_dict()})
        return
    if whole:
        _print_rows(report)
    for line in _notes(report):
        terminal.note(line)
    label = ", ".join(f"{key}={value!r}" for key, value in report.arguments.items())
    click.echo(
        f"{output}: {report.network}({label}), {len(report.rows)} weights, {len(report.unused)} keys unused, "
        f"{tables.megabytes(size)}, {seconds:.1f} s"
    )


def _print_rows(report: ImportReport) -> None:
    rows: list[tuple[Any, ...]] = [
        (row.weight, tables.times(row.shape), key, tables.times(shape) or "()", row.how)
        for row in report.rows
        for key, shape in zip(row.keys, row.found, strict=True)
    ]
    rows += [("", "", key, "", f"unused: {reason}") for key, reason in report.unused.items()]
    columns = ["weight", "shape", "key", "shape in the file", "how"]
    terminal.console().print(tables.table(f"{report.network}: {len(report.rows)} weights", columns, rows))


def _notes(report: ImportReport) -> list[str]:
    lines = list(report.notes)
    if report.zeros:
        lines.append(
            f"Latent weights that are exactly 0, whose sign is +1 here, but which PyTorch leaves out: "
            f"{sum(report.zeros.values())} ({_counts(report.zeros)})."
        )
    if report.close:
        lines.append(
            f"Weights so close to 0 that float32's rounding may give them another sign in PyTorch than float64 here: "
            f"{sum(report.close.values())} ({_counts(report.close)})."
        )
    return lines


def _counts(counts: dict[str, int]) -> str:
    listed = [f"{layer}: {count}" for layer, count in list(counts.items())[:4]]
    return ", ".join([*listed, *["..."] * (len(counts) > 4)])
