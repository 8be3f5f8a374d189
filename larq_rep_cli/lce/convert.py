"""The command `lce convert`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from larq_rep_cli import calibrating, files, models, options, preparing, tables, terminal
from larq_rep_cli.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

    from larq_rep.converters.conversion import Report


@click.command(
    epilog=options.examples(
        "lce convert model.h5 -o model.tflite",
        "lce convert RepReActNetA --weights w.h5 -o rep.tflite",
        "lce convert RepResNet20 --beta 4 --input-size 32 -o rep.tflite --float-weights int8",
        "lce convert runs/digits -o digits.tflite --int8",
        "lce convert RepReActNetA --weights w.h5 -o rep.tflite --int8 --calibrate imagenet/train --input-type uint8",
        "lce convert my.h5 -o my.tflite --int8 --calibrate photos --mean 0.5 --std 0.5 --calibration-images 300",
    )
)
@click.argument("source")
@options.output_option("The .tflite file to write.")
@options.model_options
@options.seed_option
@click.option(
    "--float-weights",
    type=click.Choice(("float32", "float16", "int8")),
    default="float32",
    show_default=True,
    help="Storage of the weights that are not binary.",
)
@click.option(
    "--no-exact-int8",
    is_flag=True,
    help="Keep float32 for weights of few levels (binary with a real input, ternary), which int8 holds without loss.",
)
@click.option(
    "--int8",
    is_flag=True,
    help="Compute what is not binary with 8-bit integers, where that is faster; --calibrate says on which images "
    "their ranges are measured.",
)
@options.calibration_options()
@click.option("--allow-float", is_flag=True, help="Accept binary convolutions that cannot be bitpacked.")
@click.option(
    "--mirrored-input",
    is_flag=True,
    help="Leave out the Mirror layer of an imported network: the file takes images that are already mirrored.",
)
@click.option("--no-fold", is_flag=True, help="Keep the operators of LCE's converter, as before lce fold.")
@options.force_option
@options.json_option
def convert(
    source: str,
    output: Path,
    seed: int,
    float_weights: str,
    no_exact_int8: bool,
    int8: bool,
    calibrate: str | None,
    calibration_images: int | None,
    calibration: str | None,
    input_type: str,
    output_type: str,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    resize: int | None,
    allow_float: bool,
    mirrored_input: bool,
    no_fold: bool,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Converts SOURCE to a bitpacked .tflite file.

    SOURCE is a Keras file (.h5, .keras), a SavedModel folder, a run of lqr train (the weights of its best epoch) or
    a network of `lce zoo list`. A network without --weights is untrained, with initial values that --seed determines;
    verify builds the same ones.

    The file says how images are prepared and what its classes are called, as far as the run, or the network of the zoo,
    tells.

    With --int8 the images of --calibrate are prepared like that, too. Otherwise they are scaled to 0..1, or to 0..255
    for a first layer that scales; --mean, --std and --resize change it. This is printed, and the file says it, as its
    ranges hold for such images. A network of other inputs than images takes --calibrate random, or
    arrays in Python. A network that was trained with fake quantization needs no --int8, and may have --input-type
    int8 where that rounds its input.

    Ends with one line: file, size, bitpacked convolutions, seconds.
    """
    chosen = calibrating.Calibration(calibrate, calibration_images, calibration, mean, std, resize)
    if not int8:
        chosen.check_unused()
    elif float_weights != "float32":
        raise click.UsageError(
            f"--int8 stores the weights that it takes in 8 bits, and --float-weights {float_weights} is for files that "
            "compute in float: leave one of both out."
        )
    write_tflite(
        source,
        lambda: models.load(source, seed, options),
        output,
        calibration=chosen if int8 else None,
        seed=seed,
        inference_input_type=input_type,
        inference_output_type=output_type,
        float_weights=float_weights,
        exact_int8=not no_exact_int8,
        allow_float=allow_float,
        mirrored_input=mirrored_input,
        fold=not no_fold,
        force=force,
        as_json=as_json,
    )


def write_tflite(
    source: str,
    load: Callable[[], tf.keras.Model],
    output: Path,
    *,
    calibration: calibrating.Calibration | None = None,
    seed: int = 0,
    float_weights: str = "float32",
    mirrored_input: bool = False,
    force: bool,
    as_json: bool,
    **how: Any,
) -> None:
    """Converts the model that `load` returns and prints the result."""
    files.check_suffix(output, "--output", ".tflite")
    files.check_output(output, force)
    start = time.perf_counter()
    model = load()
    options = {**how, **preparing.of_run(source, model), "float_weights": float_weights}
    content, report = _converted(source, model, calibration, seed, mirrored_input=mirrored_input, **options)
    with files.replacing(output) as unfinished:
        unfinished.write_bytes(content)
    for finding in report.findings:
        terminal.note(str(finding))
    if mirrored_input:
        terminal.note(f"{output} takes mirrored images, top to bottom and left to right.")
    seconds = time.perf_counter() - start
    if as_json:
        terminal.print_json({**report.to_dict(), "source": source, "file": str(output), "seconds": seconds})
        return
    if report.int8 is not None:
        for line in calibrating.summary(report.int8):
            terminal.note(line)
    if report.exact:
        terminal.note(
            f"exact: int8 holds the weights of {report.exact} operator{'s' * (report.exact > 1)} without loss, in "
            f"{report.exact_bytes:,} bytes instead of {report.exact_bytes_before:,}."
        )
    if float_weights != "float32":
        terminal.note(
            f"{float_weights} weights: {tables.megabytes(report.size_float32)} became "
            f"{tables.megabytes(report.size)}, outputs on random inputs change by up to "
            f"{report.logit_change:.2g} of the largest."
        )
    click.echo(
        f"{output}: {tables.megabytes(report.size)}, {report.bitpacked} of {report.binary} binary convolutions "
        f"bitpacked, {seconds:.1f} s"
    )


def _converted(
    source: str, model: tf.keras.Model, calibration: calibrating.Calibration | None, seed: int, **how: Any
) -> tuple[bytes, Report]:
    from larq_rep import converters

    try:
        if calibration is not None:
            how["int8"], prepare = calibrating.of_model(calibration, source, model, seed)
            how["calibration"] = calibration.method
            if prepare is not None:
                how["preparation"] = prepare
        with terminal.working(f"converting {source}") as bars:
            return converters.convert(model, progress=lambda x: bars.track(x, description="measuring ranges"), **how)
    except converters.ConversionError as error:
        lines = [f"{source} cannot be converted faithfully:", *(f"  {finding}" for finding in error.findings)]
        if all(finding.rule == "silent-float" for finding in error.findings):
            lines.append("Change these layers, or give --allow-float to have them computed in float.")
        raise InputError("\n".join(lines)) from error
    except ValueError as error:
        raise InputError(f"{source}: {error}") from error
