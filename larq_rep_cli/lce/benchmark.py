"""The command `lce benchmark`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from larq_rep_cli import files, models, options, tables, terminal
from larq_rep_cli.errors import InputError, refusing

if TYPE_CHECKING:
    import tensorflow as tf

    from larq_rep.converters.latency import Result

_MODES = ("default", "indirect", "xnnpack", "indirect+xnnpack", "tflite", "delegate", "compiled")


@click.command(
    epilog=options.examples(
        "lce benchmark rep.tflite",
        "lce benchmark a.tflite b.tflite --mode default --mode indirect --num_threads=2 --plot bars.png",
        "lce benchmark rep.tflite --runtime delegate --profile",
        "lce benchmark rep.tflite --mode delegate --mode compiled",
        "lce benchmark rep.tflite --keras RepReActNetA --num_runs=20 --json",
    )
)
@click.argument("paths", metavar="FILES...", type=options.PATH, nargs=-1, required=True)
@click.option(
    "--mode",
    "modes",
    type=click.Choice(_MODES),
    multiple=True,
    help="May be given several times.  [default: default, indirect, xnnpack, and tflite for files of stock TFLite]",
)
@click.option(
    "--runtime",
    type=click.Choice(("lce", "delegate", "compiled")),
    default="lce",
    show_default=True,
    help="delegate: also measure our delegate on stock TFLite; compiled: in LiteRT's CompiledModel.",
)
@click.option("--implementation", metavar="NAME", help="Instruction set of the delegate.  [default: the best]")
@click.option("--profile", is_flag=True, help="Time of every step of the delegate, for the first of FILES.")
@click.option("--keras", "sources", multiple=True, metavar="SOURCE", help="A Keras model to measure as well.")
@options.count_option("--num_threads", "--num-threads", default=1)
@options.count_option("--warmup_runs", "--warmup-runs", default=5, least=0)
@options.count_option("--num_runs", "--num-runs", default=50)
@click.option("--plot", type=options.PATH, help="Draw the result to this .png file.")
@options.force_option
@options.json_option
def benchmark(
    paths: tuple[Path, ...],
    modes: tuple[str, ...],
    runtime: str,
    implementation: str | None,
    profile: bool,
    sources: tuple[str, ...],
    num_threads: int,
    warmup_runs: int,
    num_runs: int,
    plot: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Measures one inference of FILES on this machine; all files and modes take turns.

    The ratio is relative to the first line with a number.

    \b
    default           LCE's interpreter (no grouped binary convolutions)
    indirect          as default, with the indirect kernel (one thread)
    xnnpack           as default, real-valued operators by XNNPACK
    indirect+xnnpack  as indirect, real-valued operators by XNNPACK
    tflite            stock TFLite, for files without LCE operators
    delegate          stock TFLite with larq_rep_runtime's delegate
    compiled          LiteRT's CompiledModel with the delegate (needs ai-edge-litert)
    """
    if plot:
        files.check_suffix(plot, "--plot", ".png")
        files.check_output(plot, force)
    contents = {str(path): files.read_file(path) for path in paths}
    terminal.quiet_tensorflow()
    from larq_rep.converters import timing
    from larq_rep.converters.flatbuffer import InvalidFlatbufferError

    with refusing(InvalidFlatbufferError):
        default = timing.default_modes(contents)
    told = implementation is not None or profile
    asked = runtime if runtime != "lce" else "delegate" if told and "compiled" not in modes else None
    if asked or {"delegate", "compiled"} & set(modes):
        _check_delegate(implementation, "compiled" in (asked, *modes))
    counts = {"num_threads": num_threads, "warmup_runs": warmup_runs, "num_runs": num_runs}
    measured = timing.with_delegate(modes or default, implementation, asked)
    results = _measured(contents, measured, {source: models.load(source, 0, {}) for source in sources}, counts)
    if plot:
        from larq_rep.converters.latency import plot as draw

        with refusing(OSError, prefix=f"{plot} cannot be written: "):
            draw(results, plot)
    steps = _steps(contents[str(paths[0])], implementation, counts) if profile else []
    if as_json:
        found = {"profile": steps} if profile else {}
        terminal.print_json({**counts, "results": [asdict(result) for result in results], **found})
        return
    _print_results(results, counts)
    if profile:
        _print_steps(paths[0], steps)


def _check_delegate(implementation: str | None, compiled: bool) -> None:
    from larq_rep.converters import lce
    from larq_rep.converters.runtime import delegate_errors, needed_runtime

    with refusing(*delegate_errors()):
        known = needed_runtime().available_implementations()
    if implementation is not None and implementation not in known:
        raise InputError(
            f"--implementation {implementation}: this processor runs {', '.join(known)}. Give one of them."
        )
    if compiled:
        with refusing(*delegate_errors()), lce.standard_error():
            needed_runtime().litert_environment()


def _measured(
    contents: dict[str, bytes], modes: list[str], keras: dict[str, tf.keras.Model], counts: dict[str, int]
) -> list[Result]:
    from larq_rep.converters import lce
    from larq_rep.converters.latency import benchmark as measure

    with terminal.progress() as bars, lce.standard_error():
        task = bars.add_task("measuring", total=counts["warmup_runs"] + counts["num_runs"])
        results = measure(
            contents,
            modes=modes,
            keras_models=keras,
            progress=lambda done, total: bars.update(task, completed=done),
            **counts,
        )
    if all(result.median_ms is None for result in results):
        reasons = "\n".join(f"  {result.file}, {result.mode}: {result.reason}" for result in results)
        raise InputError(f"Nothing could be measured:\n{reasons}")
    return results


def _steps(content: bytes, implementation: str | None, counts: dict[str, int]) -> list[dict[str, Any]]:
    from larq_rep.converters import timing
    from larq_rep.converters.runtime import delegate_errors

    with refusing(*delegate_errors()):
        return timing.profile(content, counts["num_threads"], counts["num_runs"], implementation)


def _print_results(results: list[Result], counts: dict[str, int]) -> None:
    rows = [
        (r.file, r.mode, r.reason)
        if r.median_ms is None
        else (r.file, r.mode, f"{r.median_ms:.3f}", f"{r.p10_ms:.3f}", f"{r.p90_ms:.3f}", f"{r.ratio:.2f}")
        for r in results
    ]
    title = "Milliseconds, {num_runs} runs after {warmup_runs}, {num_threads} threads".format_map(counts)
    terminal.console().print(tables.table(title, ["file", "mode", "median", "p10", "p90", "ratio"], rows))


def _print_steps(file: Path, steps: list[dict[str, Any]]) -> None:
    lines = [
        (number, step["operator"], step["name"], f"{step['ms']:.3f}", f"{step['best_ms']:.3f}")
        for number, part in enumerate(steps, start=1)
        for step in part["steps"]
    ]
    columns = ["partition", "last operator", "step", "mean ms", "best ms"]
    terminal.console().print(tables.table(f"Steps of the delegate in {file}", columns, lines))
    memory = sum(part["packed_bytes"] + part["memory_bytes"] for part in steps)
    click.echo(f"Memory of the delegate besides the file: {tables.megabytes(memory)}")
