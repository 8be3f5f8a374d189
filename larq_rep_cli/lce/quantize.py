"""The command `lce quantize`."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import click

from larq_rep_cli import calibrating, files, options, tables, terminal
from larq_rep_cli.errors import refusing


@click.command(
    epilog=options.examples(
        "lce quantize rep.tflite -o rep8.tflite --calibrate imagenet/train",
        "lce quantize digits.tflite -o digits8.tflite --calibrate digits --input-type int8 --output-type int8",
        "lce quantize other.tflite -o other8.tflite --calibrate photos --mean 0.5 --std 0.5 --json",
    )
)
@click.argument("file", type=options.PATH)
@options.output_option("The .tflite file to write.")
@options.calibration_options(of_file=True)
@options.force_option
@options.json_option
def quantize(
    file: Path,
    output: Path,
    calibrate: str | None,
    calibration_images: int | None,
    calibration: str | None,
    input_type: str,
    output_type: str,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    resize: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Computes what is not binary in FILE with 8-bit integers, where that is faster.

    FILE is any float .tflite file, of lce convert, of LCE's own converter or of TFLite's; lce convert --int8 does the
    same for a model. The ranges of the integers are measured on the images of --calibrate, about 100 of those that
    the network was trained on: not those that its accuracy is measured on.

    Images are prepared as FILE says; otherwise they are scaled to 0..1, or to 0..255 for a first layer that scales.
    --mean, --std and --resize change it. The preparation is printed, and the new file says it, as its ranges hold for
    such images.

    Ends with one line: file, size, convolutions and dense layers in int8, seconds.
    """
    files.check_suffix(output, "--output", ".tflite")
    content = files.read_file(file)
    files.check_output(output, force)
    chosen = calibrating.Calibration(calibrate, calibration_images, calibration, mean, std, resize)
    start = time.perf_counter()
    terminal.quiet_tensorflow()
    from larq_rep import converters
    from larq_rep.converters import metadata
    from larq_rep.converters.flatbuffer import InvalidFlatbufferError
    from larq_rep.converters.inputs import IncomparableError
    from larq_rep.converters.int8 import QuantizationError
    from larq_rep.converters.lce import RefusedError

    with refusing(InvalidFlatbufferError, IncomparableError, QuantizationError, RefusedError, prefix=f"{file}: "):
        images, prepare = calibrating.of_file(chosen, str(file), content)
        with terminal.working(f"quantizing {file}") as bars:
            result, found = converters.quantize(
                content,
                images,
                calibration=chosen.method,
                inference_input_type=input_type,
                inference_output_type=output_type,
                progress=lambda x: bars.track(x, description="measuring ranges"),
            )
    if prepare is not None:
        mirrored = metadata.is_mirrored(metadata.read(content))
        result = metadata.attach(result, {"input": {**prepare.to_dict(), "mirrored": mirrored}})
        found = replace(found, size_after=len(result))
    with files.replacing(output) as unfinished:
        unfinished.write_bytes(result)
    seconds = time.perf_counter() - start
    if as_json:
        terminal.print_json({"source": str(file), "file": str(output), **found.to_dict(), "seconds": seconds})
        return
    for line in calibrating.summary(found):
        terminal.note(line)
    click.echo(f"{output}: {tables.megabytes(found.size_after)}, {calibrating.counted(found)} in int8, {seconds:.1f} s")
