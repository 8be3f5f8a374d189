"""The command `lce verify`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from larq_rep_cli import class_folders, files, models, options, preparing, terminal
from larq_rep_cli.errors import InputError, refusing

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from larq_rep.converters.flatbuffer import Flatbuffer
    from larq_rep.converters.verification import Verification


@click.command(
    epilog=options.examples(
        "lce verify model.h5 model.tflite",
        "lce verify RepReActNetA rep.tflite --weights w.h5 --images imagenet/val",
        "lce verify digits.keras digits.tflite --digits --json",
    )
)
@click.argument("model")
@click.argument("file", type=options.PATH)
@click.option("--images", type=options.PATH, help="A folder of images, or with one folder of images for each class.")
@click.option("--digits", is_flag=True, help="The 360 held-out handwritten digits of scikit-learn.")
@click.option("--random", type=click.IntRange(min=1), metavar="N", help="N random inputs of any kind.  [default: 2]")
@click.option(
    "--runtime",
    type=click.Choice(("both", "lce", "delegate", "compiled")),
    default="both",
    show_default=True,
    help="Engines to prove the file for: LCE's interpreter and our delegate on stock TFLite. If the delegate is "
    "missing, both prints a note and delegate is an error. compiled: as delegate, and LiteRT's CompiledModel, which is "
    "compared with LiteRT's interpreter.",
)
@options.count_option(
    "--proof-images",
    default=8,
    text="How many of --images or --digits the proof uses; answers are compared on all of them.",
)
@options.model_options
@options.image_options
@options.seed_option
@options.json_option
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
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    resize: int | None,
    labels: Path | None,
    **options: Any,
) -> None:
    """Proves that FILE computes what MODEL computes, and exits with 1 if it does not.

    MODEL is the source of FILE's conversion, with the same options. All binary weights are compared, and on each
    image every operator and every sign of LCE's interpreter. The delegate must give the same bits as LCE's
    interpreter, which is the reference between it and MODEL. With --images or --digits the answers of MODEL and FILE
    are also compared, and their accuracies if the images have classes.

    With --random MODEL may take several inputs of any shape and type; --images and --digits need one input of images.

    What was quantized to int8 is proved in integers: every scale and constant beside the float ones, every operator
    beside its definition. How far int8 moves the outputs is printed, and --images or --digits say what it costs.

    If MODEL is untrained, its outputs may differ from predict's although FILE is right: a line then says why.

    Images are prepared as FILE says, or else the run's recipe or the network of the zoo; otherwise they are scaled to
    0..1, or to 0..255 for a first layer that scales. --mean, --std and --resize change it. The preparation is printed.
    The class folders are those that --labels, FILE or the run names; if all names are numbers, they are the class
    numbers; otherwise they count in alphabetical order.
    """
    changes = preparing.Changes(mean, std, resize, labels)
    if images is None and any(value is not None for value in changes):
        raise click.UsageError("--mean, --std, --resize and --labels are for --images: give a folder.")
    if (images is not None) + digits + (random is not None) > 1:
        raise click.UsageError("--images, --digits and --random exclude each other: give one of them.")
    content = files.read_file(file)
    network = models.load(model, seed, options)
    from larq_rep.converters.flatbuffer import Flatbuffer, InvalidFlatbufferError

    with refusing(InvalidFlatbufferError, prefix=f"{file}: "):
        flatbuffer = Flatbuffer(content)
    cannot = f"{file} cannot be compared with {model}: "
    _check_binary(network, cannot)
    pictures = None
    proof: np.ndarray | list[np.ndarray]
    if images is not None or digits:
        pictures = _digits(network) if images is None else _pictures(model, network, content, images, changes)
        batch = network.input_shape[0] or 1
        proof = pictures.pixels[: max(proof_images // batch, 1) * batch]
        runs = len(proof) // batch
    else:
        runs = random or 2
        proof = _random_inputs(network, flatbuffer, runs, seed, cannot)
    result = _verified(network, content, proof, runtime, runs, cannot)
    answers = _compare_answers(network, content, pictures) if pictures else {}
    if pictures and pictures.preparation:
        answers["preparation"] = pictures.preparation
    if as_json:
        terminal.print_json({"model": model, "file": str(file), **result.to_dict(), **answers})
    else:
        _print(model, file, result, answers)
    sys.exit(0 if result.ok else 1)


class _Pictures(NamedTuple):
    """Images of a folder or the digits.

    # Attributes
        pixels: Whole batches if the network has a fixed batch size, filled up with the last image.
        labels: Their classes, if they are known.
        names: Their names.
        preparation: How they are prepared, and where that is said.
    """

    pixels: np.ndarray
    labels: np.ndarray | None
    names: list[str]
    preparation: str = ""


def _check_binary(network: tf.keras.Model, cannot: str) -> None:
    from larq_rep import converters
    from larq_rep.converters.audit import audit_model

    if findings := audit_model(network):
        raise InputError(f"{cannot}{converters.ConversionError(findings)}")


def _verified(
    network: tf.keras.Model,
    content: bytes,
    proof: np.ndarray | list[np.ndarray],
    runtime: str,
    runs: int,
    cannot: str,
) -> Verification:
    from larq_rep import converters
    from larq_rep.converters.inputs import IncomparableError
    from larq_rep.converters.lce import RefusedError
    from larq_rep.converters.runtime import delegate_errors

    refused = (IncomparableError, converters.ConversionError, RefusedError, *delegate_errors())
    with refusing(*refused, prefix=cannot):
        return converters.verify(
            network, content, proof, runtime=runtime, progress=lambda x: terminal.track(x, "verifying", runs)
        )


def _random_inputs(
    network: tf.keras.Model, flatbuffer: Flatbuffer, runs: int, seed: int, cannot: str
) -> list[np.ndarray]:
    import numpy as np
    import tensorflow as tf

    from larq_rep.converters.inputs import IncomparableError, random_inputs

    takes = tf.nest.flatten(network.inputs)
    found, expected = [flatbuffer.shape(t)[1:] for t in flatbuffer.inputs], [tuple(x.shape[1:]) for x in takes]
    if found != expected:
        raise InputError(
            f"{cannot}The file has input shapes {found}, the model {expected}: it was made from another network."
        )
    with refusing(IncomparableError, prefix=cannot):
        return random_inputs(flatbuffer, runs, seed, [np.dtype(x.dtype.as_numpy_dtype) for x in takes])


def _image_shape(network: tf.keras.Model) -> tuple[int, int, int]:
    shape = network.input_shape
    if not isinstance(shape, tuple) or len(shape) != 4 or not network.inputs[0].dtype.is_floating:
        inputs = ", ".join(f"{x.dtype.name} {tuple(x.shape)}" for x in network.inputs)
        raise InputError(
            f"{network.name} takes {inputs}. --images and --digits need a network of one input of real-valued images, "
            "(batch, height, width, channels): give --random N, or arrays in Python, larq_rep.converters.verify."
        )
    return shape[1:]


def _digits(network: tf.keras.Model) -> _Pictures:
    from larq_rep import data

    height, width, channels = _image_shape(network)
    if channels != 1:
        raise InputError(
            f"--digits are grey images, but {network.name} takes {channels} channels. Take a model with one channel, "
            "for a network of the zoo --input-size HxWx1."
        )
    pixels, labels = data.digits("test", (height, width))
    return _whole_batches(network, _Pictures(pixels, labels, [str(i) for i in range(len(pixels))]))


def _pictures(
    model: str, network: tf.keras.Model, content: bytes, folder: Path, changes: preparing.Changes
) -> _Pictures:
    """The images of a folder."""
    import numpy as np

    from larq_rep import data
    from larq_rep.converters import metadata

    shape = _image_shape(network)
    source = preparing.of_network(model, network, preparing.run_config(model), metadata.read(content))
    prepare, basis = preparing.preparation(source, changes)
    with refusing(ValueError, NotADirectoryError, prefix="--images: "):
        pixels, labels, names = data.image_folder(folder, shape[:2], shape[2], prepare)
    if labels is not None and source.classes:
        known, certain = preparing.class_names(source, changes)
        number = class_folders.numbers(folder, model, source.classes, known, certain)
        labels = np.array([number[Path(name).parts[0]] for name in names])
    said = f"{basis}: {prepare.text}"
    terminal.note(f"Images: {said}.")
    return _whole_batches(network, _Pictures(pixels, labels, names, said))


def _whole_batches(network: tf.keras.Model, pictures: _Pictures) -> _Pictures:
    """Fills the last batch up with the last image if the network has a fixed batch size."""
    import numpy as np

    missing = -len(pictures.names) % (network.input_shape[0] or 1)
    pixels = np.concatenate([pictures.pixels, np.repeat(pictures.pixels[-1:], missing, axis=0)])
    return pictures._replace(pixels=pixels)


def _compare_answers(network: tf.keras.Model, content: bytes, pictures: _Pictures) -> dict[str, Any]:
    """Accuracies, if there are labels, and the images for which model and file give different answers."""
    import numpy as np

    from larq_rep import accuracy
    from larq_rep.converters import answers

    pixels, labels, names, _ = pictures
    shape = network.output_shape
    if not isinstance(shape, tuple) or len(shape) != 2:
        terminal.note(f"{network.name} has the output shape {shape}: it gives no class of an image to compare.")
        return {}
    if labels is not None and labels.max() >= shape[1]:
        raise InputError(
            f"The images have {labels.max() + 1} classes, but {network.name} knows {shape[1]}. Expected a folder for "
            "each class of the model, in the alphabetical order of its outputs, or --labels with their names."
        )
    both = answers.scores(network, content, pixels, progress=lambda x: terminal.track(x, "comparing answers", len(x)))
    scores = {engine: found[: len(names)] for engine, found in zip(("keras", "tflite"), both, strict=True)}
    ours, theirs = (accuracy.best_classes(found)[:, 0] for found in scores.values())
    disagreements = [
        {"image": names[i], "keras": int(ours[i]), "tflite": int(theirs[i])} for i in np.flatnonzero(ours != theirs)
    ]
    result: dict[str, Any] = {"images_compared": len(names), "disagreements": disagreements}
    if labels is not None:
        result["accuracy"] = {engine: accuracy.measure([(found, labels)]).top1 for engine, found in scores.items()}
    return result


def _print(model: str, file: Path, result: Verification, answers: dict[str, Any]) -> None:
    for line in (*result.notes, *map(str, result.differences)):
        click.echo(line)
    if result.ok:
        click.echo(
            f"{file} computes what {model} computes{', rounded to int8' if result.int8 else ''}: "
            f"{result.convolutions} binary convolutions, "
            f"{result.activations:,} binary activations on {result.images} images, {result.flips} flipped by "
            f"rounding; relative errors up to {result.sign_error:.1e} in front of a sign and "
            f"{result.output_error:.1e} at the output."
        )
    else:
        click.echo(f"{file} does not compute what {model} computes: {len(result.differences)} differences.")
    _print_int8(result)
    _print_answers(answers, result)
    _print_engines(result)


def _print_int8(result: Verification) -> None:
    """Prints what int8 does to the network, if anything is in int8."""
    if (int8 := result.int8) is None:
        return
    agreement = f"{int8.agreement:.1%} of the largest outputs stay, " if int8.agreement is not None else ""
    noise = ""
    if int8.signal_to_noise:
        tensor, ratio = min(int8.signal_to_noise.items(), key=lambda item: item[1])
        noise = f"; signal to noise at least {ratio:.0f} dB, at {tensor.split(';')[0]}"
    click.echo(
        f"int8: {int8.operators} operators; beside float, outputs change by up to {int8.change:.1%} of the largest, "
        f"{int8.mean_change:.1%} in the mean, {agreement}{int8.flips:.2%} of the binary activations flip{noise}."
    )


def _print_answers(answers: dict[str, Any], result: Verification) -> None:
    if accuracy := answers.get("accuracy"):
        click.echo(f"Accuracy: Keras {accuracy['keras']:.2%}, TFLite {accuracy['tflite']:.2%}.")
    if "disagreements" in answers:
        click.echo(f"Different answers: {len(answers['disagreements'])} of {answers['images_compared']} images.")
        for answer in answers["disagreements"]:
            click.echo(f"  {answer['image']}: class {answer['keras']} in Keras, {answer['tflite']} in TFLite")
        if (
            answers["disagreements"]
            and result.ok
            and result.int8 is None
            and not any("model.predict" in note for note in result.notes)
        ):
            click.echo(
                "The proof shows that the file is right: where answers differ, rounding flipped a sign whose value is "
                "next to 0."
            )


def _print_engines(result: Verification) -> None:
    """Prints a line for each engine that says what was proved for it."""
    engine = result.engines["lce"]
    bits = "as they are defined" if engine.bit_equal else "NOT all as they are defined"
    click.echo(
        f"LCE {engine.version} ({engine.implementation}): {engine.operators} operators {bits} (bits equal, real "
        f"numbers up to rounding) on {engine.images} images; outputs within {engine.output_error:.1e} of the model's."
    )
    if "delegate" not in result.engines:
        return
    engine = result.engines["delegate"]
    bits = "with the same bits as LCE's interpreter" if engine.bit_equal else "NOT all with LCE's interpreter's bits"
    turned = f" (not comparable on {engine.turned}, where rounding flipped a value)" if engine.turned else ""
    click.echo(
        f"Delegate {engine.version} ({engine.implementation}, fused): {engine.operators} operators {bits} on "
        f"{engine.images} images; outputs within {engine.output_error:.1e} of its own{turned}."
    )
    if not any(difference.stage == "delegate" for difference in result.differences):
        click.echo("The delegate on stock TFLite computes what LCE's interpreter computes.")
    if "compiled" in result.engines:
        engine = result.engines["compiled"]
        bits = "with the interpreter's bits" if engine.bit_equal else "NOT with the interpreter's bits"
        click.echo(
            f"CompiledModel of LiteRT {engine.version} ({engine.implementation}): outputs {bits} on "
            f"{engine.images} images."
        )
