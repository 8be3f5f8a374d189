"""The program `lce`: conversion to Larq Compute Engine, its proof, and what there is to know of files and networks."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from larq_rep_cli import common, tables
from larq_rep_cli.evaluate import evaluate
from larq_rep_cli.weights import import_
from larq_rep_cli.zoo import zoo

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from larq_rep.converters.flatbuffer import Flatbuffer
    from larq_rep.converters.verification import Verification

_MODES = ("default", "indirect", "xnnpack", "indirect+xnnpack", "tflite", "delegate")
_BATCH = 32
_PATH = click.Path(path_type=Path)


@click.group(
    cls=common.Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=common.examples(
        "lce convert RepReActNetA -o rep.tflite",
        "lce verify RepReActNetA rep.tflite --random 2",
        "lce inspect rep.tflite",
        "lce benchmark rep.tflite",
        "lce zoo show RepReActNetA",
    ),
)
@click.version_option(package_name="larq-rep")
def main() -> None:
    """Converts binary networks to Larq Compute Engine (LCE), proves the result and measures it.

    The exit code is 0 on success, 1 if verify finds a difference, 2 if the input cannot be used, 3 if a command fails
    by a fault of its own, and 130 after Ctrl-C.
    """


for command in (import_, evaluate, zoo):
    main.add_command(command)


# lce convert


@main.command(
    epilog=common.examples(
        "lce convert model.h5 -o model.tflite",
        "lce convert RepReActNetA --weights w.h5 -o rep.tflite",
        "lce convert RepResNet20 --beta 4 --input-size 32 -o rep.tflite --float-weights int8",
    )
)
@click.argument("source")
@click.option("-o", "--output", type=_PATH, required=True, help="The .tflite file to write.")
@common.model_options
@common.seed_option
@click.option(
    "--float-weights",
    type=click.Choice(("float32", "float16", "int8")),
    default="float32",
    show_default=True,
    help="Storage of the weights that are not binary.",
)
@click.option("--allow-float", is_flag=True, help="Accept binary convolutions that cannot be bitpacked.")
@click.option(
    "--mirrored-input",
    is_flag=True,
    help="Leave out the Mirror layer of an imported network: the file takes images that are mirrored already.",
)
@click.option("--no-fold", is_flag=True, help="Keep the operators of LCE's converter, as before lce fold.")
@common.force_option
@common.json_option
def convert(
    source: str,
    output: Path,
    seed: int,
    float_weights: str,
    allow_float: bool,
    mirrored_input: bool,
    no_fold: bool,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Converts SOURCE to a bitpacked .tflite file.

    SOURCE is a Keras file (.h5, .keras), a SavedModel folder, a run of lqr train (the weights of its best epoch) or
    a network of `lce zoo list`. A network without
    --weights is untrained, with initial values that --seed determines; verify finds the same ones.

    Ends with one line: file, size, bitpacked convolutions, seconds.
    """
    write_tflite(
        source,
        lambda: _load(source, seed, options),
        output,
        float_weights=float_weights,
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
    float_weights: str = "float32",
    allow_float: bool = False,
    mirrored_input: bool = False,
    fold: bool = True,
    force: bool,
    as_json: bool,
) -> None:
    """Converts the model that `load` returns and prints the result."""
    if output.suffix != ".tflite":
        raise common.InputError(f"--output {output}: expected the name of a .tflite file.")
    common.check_output(output, force)
    start = time.perf_counter()
    model = load()
    from larq_rep.converters.conversion import ConversionError
    from larq_rep.converters.conversion import convert as convert_model

    try:
        with common.working(f"converting {source}"):
            content, report = convert_model(
                model,
                allow_float=allow_float,
                float_weights=float_weights,
                mirrored_input=mirrored_input,
                fold=fold,
            )
    except ConversionError as error:
        lines = [f"{source} cannot be converted faithfully:", *(f"  {finding}" for finding in error.findings)]
        if all(finding.rule == "silent-float" for finding in error.findings):
            lines.append("Change these layers, or give --allow-float to have them computed in float.")
        raise common.InputError("\n".join(lines)) from error
    except ValueError as error:
        raise common.InputError(f"{source}: {error}") from error
    with common.replacing(output) as unfinished:
        unfinished.write_bytes(content)
    for finding in report.findings:
        common.note(str(finding))
    if mirrored_input:
        common.note(f"{output} takes images that are mirrored, top to bottom and left to right.")
    seconds = time.perf_counter() - start
    if as_json:
        common.print_json({**report.to_dict(), "source": source, "file": str(output), "seconds": seconds})
        return
    if float_weights != "float32":
        common.note(
            f"{float_weights} weights: {tables.megabytes(report.size_float32)} became "
            f"{tables.megabytes(report.size)}, outputs on random inputs change by up to "
            f"{report.logit_change:.2g} of the largest."
        )
    click.echo(
        f"{output}: {tables.megabytes(report.size)}, {report.bitpacked} of {report.binary} binary convolutions "
        f"bitpacked, {seconds:.1f} s"
    )


# lce fold


@main.command(epilog=common.examples("lce fold lce.tflite -o folded.tflite", "lce fold lce.tflite -o f.tflite --json"))
@click.argument("file", type=_PATH)
@click.option("-o", "--output", type=_PATH, required=True, help="The .tflite file to write.")
@common.force_option
@common.json_option
def fold(file: Path, output: Path, force: bool, as_json: bool) -> None:
    """Folds constants of FILE, any .tflite file of LCE, into its convolutions.

    What it adds to or multiplies with each channel goes into biases and thresholds where the result stays the same up
    to float rounding. lce convert does so by itself.
    """
    if output.suffix != ".tflite":
        raise common.InputError(f"--output {output}: expected the name of a .tflite file.")
    content = common.read_file(file)
    common.check_output(output, force)
    common.quiet_tensorflow()
    from larq_rep.converters import fold as fold_constants
    from larq_rep.converters.flatbuffer import InvalidFlatbufferError

    with common.refusing(InvalidFlatbufferError, prefix=f"{file}: "):
        content, report = fold_constants(content)
    with common.replacing(output) as unfinished:
        unfinished.write_bytes(content)
    if as_json:
        common.print_json({"source": str(file), "file": str(output), **report.to_dict()})
        return
    names = dict.fromkeys([*report.operators_before, *report.operators_after])
    rows: list[tuple[Any, ...]] = [
        (name, report.operators_before.get(name, 0), report.operators_after.get(name, 0)) for name in names
    ]
    rows.append(("bytes", f"{report.size_before:,}", f"{report.size_after:,}"))
    common.console().print(tables.table("Operators", ["operator", "before", "after"], rows))
    click.echo(f"{output}: {tables.megabytes(report.size_after)}, {report.folded_away} operators folded away")


# lce verify


@main.command(
    epilog=common.examples(
        "lce verify model.h5 model.tflite",
        "lce verify RepReActNetA rep.tflite --weights w.h5 --images imagenet/val",
        "lce verify digits.keras digits.tflite --digits --json",
    )
)
@click.argument("model")
@click.argument("file", type=_PATH)
@click.option("--images", type=_PATH, help="A folder of images, or of one folder of images for each class.")
@click.option("--digits", is_flag=True, help="The 360 held-out handwritten digits of scikit-learn.")
@click.option("--random", type=click.IntRange(min=1), metavar="N", help="N random inputs of any kind.  [default: 2]")
@click.option(
    "--runtime",
    type=click.Choice(("both", "lce", "delegate")),
    default="both",
    show_default=True,
    help="Engines to prove the file for: LCE's interpreter and our delegate on stock TFLite. A missing delegate is "
    "a note with both, an error if asked for by name.",
)
@click.option(
    "--proof-images",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="How many of --images or --digits the proof takes; answers are compared on all of them.",
)
@common.model_options
@common.seed_option
@common.json_option
def verify(
    model: str,
    file: Path,
    images: Path | None,
    digits: bool,
    random: int | None,
    runtime: str,
    proof_images: int,
    seed: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Proves that FILE computes what MODEL computes, and exits with 1 if it does not.

    MODEL is what FILE was converted from, with the same options. All binary weights are compared, and on each
    image every operator and every sign of LCE's interpreter. The delegate has to give the same bits as LCE's
    interpreter, which is the reference between it and MODEL. With --images or --digits the answers of both are
    compared, too, and their accuracies if the images have classes.

    MODEL may take several inputs of any shape and type with --random; --images and --digits need one input of images.

    Of an untrained MODEL the outputs may differ from those of predict although FILE is right: a line then says why.

    Images are cropped and resized to the input of the model, scaled to [0, 1] and, if they are RGB, normalised
    with the mean and standard deviation of ImageNet.
    """
    if (images is not None) + digits + (random is not None) > 1:
        raise click.UsageError("--images, --digits and --random exclude each other: give one of them.")
    content = common.read_file(file)
    network = _load(model, seed, options)
    import numpy as np

    from larq_rep.converters import lce
    from larq_rep.converters.audit import audit_model
    from larq_rep.converters.conversion import ConversionError
    from larq_rep.converters.flatbuffer import Flatbuffer, InvalidFlatbufferError
    from larq_rep.converters.inputs import IncomparableError
    from larq_rep.converters.runtime import delegate_errors
    from larq_rep.converters.verification import verify as verify_file

    with common.refusing(InvalidFlatbufferError, prefix=f"{file}: "):
        flatbuffer = Flatbuffer(content)
    if findings := audit_model(network):
        raise common.InputError(f"{file} cannot be compared with {model}: {ConversionError(findings)}")
    proof: np.ndarray | list[np.ndarray]
    if images is not None or digits:
        data, labels, names = _images(network, images)
        batch = network.input_shape[0] or 1
        # Whole batches, of a network that has a batch size of its own; the last image fills up.
        data = np.concatenate([data, np.repeat(data[-1:], -len(names) % batch, axis=0)])
        proof = data[: max(proof_images // batch, 1) * batch]
        runs = len(proof) // batch
    else:
        names, runs = [], random or 2
        with common.refusing(IncomparableError, prefix=f"{file} cannot be compared with {model}: "):
            proof = _random_inputs(network, flatbuffer, runs, seed)
    with common.refusing(
        IncomparableError,
        ConversionError,
        lce.RefusedError,
        *delegate_errors(),
        prefix=f"{file} cannot be compared with {model}: ",
    ):
        result = verify_file(
            network, content, proof, runtime=runtime, progress=lambda x: common.track(x, "verifying", runs)
        )
    answers = _compare_answers(network, content, data, labels, names) if names else {}
    if as_json:
        common.print_json({"model": model, "file": str(file), **result.to_dict(), **answers})
    else:
        for line in (*result.notes, *map(str, result.differences)):
            click.echo(line)
        if result.ok:
            click.echo(
                f"{file} computes what {model} computes: {result.convolutions} binary convolutions, "
                f"{result.activations:,} binary activations on {result.images} images, {result.flips} flipped by "
                f"rounding; relative errors up to {result.sign_error:.1e} in front of a sign and "
                f"{result.output_error:.1e} at the output."
            )
        else:
            click.echo(f"{file} does not compute what {model} computes: {len(result.differences)} differences.")
        _print_answers(answers, result)
        _print_engines(result)
    sys.exit(0 if result.ok else 1)


def _random_inputs(network: tf.keras.Model, flatbuffer: Flatbuffer, runs: int, seed: int) -> list[np.ndarray]:
    import numpy as np
    import tensorflow as tf

    from larq_rep.converters.inputs import IncomparableError, random_inputs

    takes = tf.nest.flatten(network.inputs)
    found, expected = [flatbuffer.shape(t)[1:] for t in flatbuffer.inputs], [tuple(x.shape[1:]) for x in takes]
    if found != expected:
        raise IncomparableError(
            f"The file has input shapes {found}, the model {expected}: it was made from another network."
        )
    return random_inputs(flatbuffer, runs, seed, [np.dtype(x.dtype.as_numpy_dtype) for x in takes])


def _images(network: tf.keras.Model, folder: Path | None) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Images of a folder or else the digits, their labels if they have some, and their names."""
    from larq_rep import data

    shape = network.input_shape
    if not isinstance(shape, tuple) or len(shape) != 4 or not network.inputs[0].dtype.is_floating:
        inputs = ", ".join(f"{x.dtype.name} {tuple(x.shape)}" for x in network.inputs)
        raise common.InputError(
            f"{network.name} takes {inputs}. --images and --digits need a network of one input of real-valued images, "
            "(batch, height, width, channels): give --random N, or arrays in Python, larq_rep.converters.verify."
        )
    if folder is None:
        if shape[3] != 1:
            raise common.InputError(
                f"--digits are grey images, but {network.name} takes {shape[3]} channels. Take a model with one "
                "channel, for a network of the zoo --input-size HxWx1."
            )
        found, labels = data.digits("test", shape[1:3])
        return found, labels, [str(i) for i in range(len(found))]
    with common.refusing(ValueError, NotADirectoryError, prefix="--images: "):
        return data.image_folder(folder, shape[1:3], shape[3])


def _compare_answers(
    network: tf.keras.Model, content: bytes, images: np.ndarray, labels: np.ndarray | None, names: list[str]
) -> dict[str, Any]:
    """Accuracies, if there are labels, and the images to which model and file give different answers."""
    import numpy as np

    from larq_rep.converters import lce, metadata
    from larq_rep.converters.flatbuffer import Flatbuffer
    from larq_rep.converters.inputs import taken

    shape = network.output_shape
    if not isinstance(shape, tuple) or len(shape) != 2:
        common.note(f"{network.name} has the output shape {shape}: it gives no class for an image to be compared.")
        return {}
    if labels is not None and labels.max() >= shape[1]:
        raise common.InputError(
            f"The images have {labels.max() + 1} classes, but {network.name} knows {shape[1]}. Expected a folder for "
            "each class of the model, in the alphabetical order of its outputs."
        )
    interpreter, flatbuffer, about = lce.any_interpreter(content), Flatbuffer(content), metadata.read(content)
    batch = network.input_shape[0] or 1
    step = batch if batch > 1 else _BATCH
    keras, tflite = [], []
    for start in common.track(range(0, len(images), step), "comparing answers", -(-len(images) // step)):
        part = images[start : start + step]
        keras.append(network.predict_on_batch(part).argmax(axis=1))
        given, _ = taken([metadata.as_taken(about, part)], flatbuffer)
        for i in range(0, len(part), batch):
            (answer,) = interpreter.interpreter.predict([given[0][i : i + batch]])
            tflite.append(answer.argmax(axis=1))
    ours, theirs = (np.concatenate(answers)[: len(names)] for answers in (keras, tflite))
    disagreements = [
        {"image": names[i], "keras": int(ours[i]), "tflite": int(theirs[i])} for i in np.flatnonzero(ours != theirs)
    ]
    answers: dict[str, Any] = {"images_compared": len(names), "disagreements": disagreements}
    if labels is not None:
        answers["accuracy"] = {"keras": float(np.mean(ours == labels)), "tflite": float(np.mean(theirs == labels))}
    return answers


def _print_answers(answers: dict[str, Any], result: Verification) -> None:
    if accuracy := answers.get("accuracy"):
        click.echo(f"Accuracy: Keras {accuracy['keras']:.2%}, TFLite {accuracy['tflite']:.2%}.")
    if answers:
        click.echo(f"Different answers: {len(answers['disagreements'])} of {answers['images_compared']} images.")
        for answer in answers["disagreements"]:
            click.echo(f"  {answer['image']}: class {answer['keras']} in Keras, {answer['tflite']} in TFLite")
        if answers["disagreements"] and result.ok and not any("model.predict" in note for note in result.notes):
            click.echo(
                "The file is right by its proof: where answers differ, rounding turned a sign whose value lies next "
                "to 0."
            )


def _print_engines(result: Verification) -> None:
    """A line for each engine: what was proved for it."""
    engine = result.engines["lce"]
    bits = "as they are defined" if engine.bit_equal else "NOT all as they are defined"
    click.echo(
        f"LCE {engine.version} ({engine.implementation}): {engine.operators} operators {bits} (bits equal, real "
        f"numbers up to rounding) on {engine.images} images; outputs within {engine.output_error:.1e} of the model's."
    )
    if "delegate" not in result.engines:
        return
    engine = result.engines["delegate"]
    bits = "of the same bits as LCE's interpreter" if engine.bit_equal else "NOT all of the bits of LCE's interpreter"
    turned = f" (not comparable on {engine.turned}, where rounding turned a value)" if engine.turned else ""
    click.echo(
        f"Delegate {engine.version} ({engine.implementation}, fused): {engine.operators} operators {bits} on "
        f"{engine.images} images; outputs within {engine.output_error:.1e} of its own{turned}."
    )
    if not any(difference.stage == "delegate" for difference in result.differences):
        click.echo("The delegate on stock TFLite computes what LCE's interpreter computes.")


# lce inspect


@main.command(epilog=common.examples("lce inspect rep.tflite", "lce inspect rep.tflite --json"))
@click.argument("file", type=_PATH)
@common.json_option
def inspect(file: Path, as_json: bool) -> None:
    """Shows what a .tflite FILE holds: operators, constants, binary convolutions, multiply-accumulates.

    Ends with what is wrong with it, for any version of LCE or larq-rep that may have made it: a multiplier, bias or
    threshold of a wrong shape, an operator that the delegate of larq-rep-runtime 0.1.0 computes wrongly, and packed
    outputs of which only lce verify can say whether an older version made them right.
    """
    content = common.read_file(file)
    common.quiet_tensorflow()
    from larq_rep.converters.audit import audit_flatbuffer
    from larq_rep.converters.description import describe
    from larq_rep.converters.faults import audit_old_faults, states_version
    from larq_rep.converters.flatbuffer import Flatbuffer, InvalidFlatbufferError

    with common.refusing(InvalidFlatbufferError, prefix=f"{file}: "):
        about = describe(content)
        findings = [*audit_flatbuffer(Flatbuffer(content), content), *audit_old_faults(content)]
    if as_json:
        common.print_json({"file": str(file), **about.to_dict(), "findings": [f.to_dict() for f in findings]})
        return
    out = common.console()
    click.echo(f"{file}: {tables.megabytes(about.size)}")
    for what, tensors in (("input", about.inputs), ("output", about.outputs)):
        for tensor in tensors:
            click.echo(f"{what} {tensor.name}: {tables.times(tensor.shape)} {tensor.dtype}")
    if states_version(about.metadata):
        click.echo(f"Converted by larq-rep {about.metadata['version']}.")
    if about.metadata.get("mirrored_input"):
        click.echo("It takes images that are mirrored, top to bottom and left to right.")
    out.print(tables.table("Operators", ["operator", "count"], about.operators.items()))
    rest = about.size - sum(about.constants.values())
    sizes = [(name, f"{size:,}", f"{size / about.size:.1%}") for name, size in about.constants.items()]
    out.print(
        tables.table(
            "Bytes", ["constants", "bytes", "share"], [*sizes, ("graph", f"{rest:,}", f"{rest / about.size:.1%}")]
        )
    )
    if about.binary_convolutions:
        columns = [
            "operator",
            "kernel",
            "stride",
            "dilation",
            "padding",
            "groups",
            "input",
            "output",
            "as",
            "then",
            "MACs",
        ]
        rows = (
            (
                *(
                    c.index,
                    tables.times(c.kernel),
                    tables.times(c.strides),
                    tables.times(c.dilations),
                    c.padding,
                    c.groups,
                ),
                *(tables.times(c.input_shape), tables.times(c.output_shape), c.output, c.activation, f"{c.macs:,}"),
            )
            for c in about.binary_convolutions
        )
        out.print(tables.table("Binary convolutions (LceBconv2d)", columns, rows))
    if about.real_operators:
        real = (
            (
                op.index,
                op.name,
                tables.times(op.weights_shape),
                tables.times(op.input_shape),
                tables.times(op.output_shape),
                f"{op.macs:,}",
            )
            for op in about.real_operators
        )
        columns = ["operator", "name", "weights", "input", "output", "MACs"]
        out.print(tables.table("Real-valued convolutions and dense layers", columns, real))
    click.echo(f"Multiply-accumulates: {about.binary_macs:,} binary, {about.real_macs:,} real")
    for finding in findings:
        click.echo(str(finding))


# lce benchmark


@main.command(
    epilog=common.examples(
        "lce benchmark rep.tflite",
        "lce benchmark a.tflite b.tflite --mode default --mode indirect --num_threads=2 --plot bars.png",
        "lce benchmark rep.tflite --runtime delegate --profile",
        "lce benchmark rep.tflite --keras RepReActNetA --num_runs=20 --json",
    )
)
@click.argument("files", type=_PATH, nargs=-1, required=True)
@click.option(
    "--mode",
    "modes",
    type=click.Choice(_MODES),
    multiple=True,
    help="May be given several times.  [default: default, indirect, xnnpack, and tflite for files of stock TFLite]",
)
@click.option(
    "--runtime",
    type=click.Choice(("lce", "delegate")),
    default="lce",
    show_default=True,
    help="delegate: measure our delegate on stock TFLite, too.",
)
@click.option("--implementation", metavar="NAME", help="Instruction set of the delegate.  [default: the best]")
@click.option("--profile", is_flag=True, help="The delegate's time of every step, for the first of FILES.")
@click.option("--keras", "sources", multiple=True, metavar="SOURCE", help="A Keras model to measure besides.")
@click.option("--num_threads", "--num-threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--warmup_runs", "--warmup-runs", type=click.IntRange(min=0), default=5, show_default=True)
@click.option("--num_runs", "--num-runs", type=click.IntRange(min=1), default=50, show_default=True)
@click.option("--plot", type=_PATH, help="Draw the result to this .png file.")
@common.force_option
@common.json_option
def benchmark(
    files: tuple[Path, ...],
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
    """Measures one inference of FILES on this machine, all files and modes in turns.

    The ratio is that to the first line with a number.

    \b
    default           LCE's interpreter (no grouped binary convolutions)
    indirect          the same with the indirect kernel (one thread)
    xnnpack           as default, real-valued operators by XNNPACK
    indirect+xnnpack  as indirect, real-valued operators by XNNPACK
    tflite            stock TFLite, for files without LCE operators
    delegate          stock TFLite with larq_rep_runtime's delegate
    """
    if plot:
        if plot.suffix != ".png":
            raise common.InputError(f"--plot {plot}: expected the name of a .png file.")
        common.check_output(plot, force)
    contents = {str(path): common.read_file(path) for path in files}
    common.quiet_tensorflow()
    from larq_rep.converters import lce
    from larq_rep.converters.description import describe
    from larq_rep.converters.flatbuffer import Flatbuffer, InvalidFlatbufferError
    from larq_rep.converters.inputs import random_inputs
    from larq_rep.converters.latency import benchmark as measure
    from larq_rep.converters.latency import plot as draw

    stock = False
    for name, content in contents.items():
        with common.refusing(InvalidFlatbufferError, prefix=f"{name}: "):
            stock |= not any(operator.startswith("Lce") for operator in describe(content).operators)
    from larq_rep.converters.runtime import delegate_errors, needed_runtime

    if runtime == "delegate" or "delegate" in modes or implementation is not None or profile:
        with common.refusing(*delegate_errors()):
            known = needed_runtime().available_implementations()
        if implementation is not None and implementation not in known:
            raise common.InputError(
                f"--implementation {implementation}: this processor runs {', '.join(known)}. Give one of them."
            )
    ours = f"delegate:{implementation}" if implementation else "delegate"
    measured = [*(modes or ("default", "indirect", "xnnpack", *(["tflite"] if stock else [])))]
    measured = [ours if mode == "delegate" else mode for mode in measured]
    if (runtime == "delegate" or implementation or profile) and ours not in measured:
        measured.append(ours)
    models = {source: _load(source, 0, {}) for source in sources}
    with common.progress() as bars, lce.standard_error():
        task = bars.add_task("measuring", total=warmup_runs + num_runs)
        results = measure(
            contents,
            modes=measured,
            keras_models=models,
            num_threads=num_threads,
            warmup_runs=warmup_runs,
            num_runs=num_runs,
            progress=lambda done, total: bars.update(task, completed=done),
        )
    if all(result.median_ms is None for result in results):
        reasons = "\n".join(f"  {result.file}, {result.mode}: {result.reason}" for result in results)
        raise common.InputError(f"Nothing could be measured:\n{reasons}")
    if plot:
        with common.refusing(OSError, prefix=f"{plot} cannot be written: "):
            draw(results, plot)
    steps = []
    if profile:
        with common.refusing(*delegate_errors()):
            first = contents[str(files[0])]
            x = random_inputs(Flatbuffer(first))
            steps = needed_runtime().profile(first, num_threads, num_runs=num_runs, x=x, implementation=implementation)
    if as_json:
        settings = {"num_threads": num_threads, "warmup_runs": warmup_runs, "num_runs": num_runs}
        found = {"profile": steps} if profile else {}
        common.print_json({**settings, "results": [asdict(result) for result in results], **found})
        return
    rows = [
        (r.file, r.mode, r.reason)
        if r.median_ms is None
        else (r.file, r.mode, f"{r.median_ms:.3f}", f"{r.p10_ms:.3f}", f"{r.p90_ms:.3f}", f"{r.ratio:.2f}")
        for r in results
    ]
    title = f"Milliseconds, {num_runs} runs after {warmup_runs}, {num_threads} threads"
    common.console().print(tables.table(title, ["file", "mode", "median", "p10", "p90", "ratio"], rows))
    if profile:
        lines = [
            (number, step["operator"], step["name"], f"{step['ms']:.3f}", f"{step['best_ms']:.3f}")
            for number, part in enumerate(steps, start=1)
            for step in part["steps"]
        ]
        columns = ["partition", "last operator", "step", "mean ms", "best ms"]
        common.console().print(tables.table(f"Steps of the delegate in {files[0]}", columns, lines))
        memory = sum(part["packed_bytes"] + part["memory_bytes"] for part in steps)
        click.echo(f"Memory of the delegate besides the file: {tables.megabytes(memory)}")


def _load(source: str, seed: int, options: dict[str, Any]) -> tf.keras.Model:
    model = common.load_model(source, seed=seed, **options)
    from larq_rep.zoo import list_models

    if source in list_models() and options.get("weights") is None:
        common.note(f"{source} without --weights is untrained: it has the initial values of seed {seed}.")
    return model


if __name__ == "__main__":
    main()
