"""The program `lqr`: training and evaluation."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

import click

from larq_rep_cli import common

_DATA = ("digits",)

data_option = click.option(
    "--data",
    type=click.Choice(_DATA),
    default="digits",
    show_default=True,
    help="digits: the 1797 handwritten digits of scikit-learn, of which 360 are held out.",
)


@click.group(cls=common.Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="larq-rep")
def main() -> None:
    """Trains binary networks and evaluates them."""


@main.command(
    epilog=common.examples(
        "lqr train RepResNet20 --out rep.h5",
        "lqr train ResNet20 --set width=8 --input-size 12 --epochs 5 --out small.keras --plot curve.png",
        "lce convert rep.h5 -o rep.tflite",
    )
)
@click.argument("name")
@data_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Where the model goes: a .h5 or .keras file, or a new SavedModel folder. The metrics of each epoch go "
    "beside it, to a .csv file of the same name.",
)
@click.option("--epochs", type=click.IntRange(min=1), default=40, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True)
@click.option(
    "--learning-rate",
    type=click.FloatRange(min=0, min_open=True),
    default=0.1,
    show_default=True,
    help="Where the cosine to 0 starts.",
)
@click.option(
    "--shift",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Largest random shift of a training image, in pixels.",
)
@common.seed_option
@common.set_option
@click.option("--beta", type=click.IntRange(min=1), help="Repeat factor.  [default: as published]")
@click.option(
    "--input-size",
    type=click.IntRange(min=8),
    default=16,
    show_default=True,
    help="Height and width to which the digits, of 8 x 8 pixels, are interpolated.",
)
@click.option("--plot", type=click.Path(path_type=Path), help="Draw loss and accuracy to this .png file.")
@common.force_option
def train(
    name: str,
    data: str,
    out: Path,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    shift: int,
    seed: int,
    keywords: tuple[tuple[str, Any], ...],
    beta: int | None,
    input_size: int,
    plot: Path | None,
    force: bool,
) -> None:
    """Trains the network NAME of the zoo, with SGD and a cosine as IR-Net was.

    Ends with one line: file, size, accuracy on the held-out images, seconds.
    """
    if out.suffix not in (".h5", ".keras", ""):
        raise common.InputError(
            f"--out {out}: the suffix {out.suffix} is unknown. Expected .h5, .keras, or none for a SavedModel folder."
        )
    metrics = out.with_suffix(".csv")
    for path in (out, metrics, *([plot] if plot else [])):
        common.check_output(path, force)

    common.quiet_tensorflow()
    from larq_rep import training, zoo
    from larq_rep.data import digits

    if name not in zoo.list_models():
        hint = common.did_you_mean(name, zoo.list_models()) or "`lce zoo list` names all."
        raise common.InputError(f"There is no network named {name!r}. {hint}")

    import tensorflow as tf

    start = time.perf_counter()
    model = common.load_model(
        name, keywords=keywords, beta=beta, input_size=(input_size, input_size, 1), num_classes=10, seed=seed
    )
    with common.progress() as bars:
        task = bars.add_task("training", total=epochs)

        def advance(epoch, logs):
            known = f"loss {logs['loss']:.3f}, accuracy {logs['accuracy']:.1%}, held out {logs['val_accuracy']:.1%}"
            bars.update(task, completed=epoch + 1, description=known)

        history = training.train(
            model,
            *digits("train", input_size),
            validation_data=digits("test", input_size),
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            shift=shift,
            seed=seed,
            callbacks=[tf.keras.callbacks.LambdaCallback(on_epoch_end=advance)],
        )

    with common.replacing(out) as unfinished:
        model.save(unfinished)
    with common.replacing(metrics) as unfinished, open(unfinished, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", *history.history])
        writer.writerows(zip(range(1, epochs + 1), *history.history.values(), strict=True))
    if plot:
        with common.refusing(OSError, prefix=f"{plot} cannot be written: "):
            training.plot_history({name: history}, plot)
    size = sum(file.stat().st_size for file in [out, *out.rglob("*")] if file.is_file())
    common.console().print(
        f"{out}: {size / 1e6:.2f} MB, accuracy {history.history['val_accuracy'][-1]:.2%} on the held-out images, "
        f"{time.perf_counter() - start:.0f} s"
    )


@main.command(epilog=common.examples("lqr evaluate rep.h5", "lqr evaluate rep.h5 --json"))
@click.argument("model")
@data_option
@common.json_option
def evaluate(model: str, data: str, as_json: bool) -> None:
    """Prints the accuracy of MODEL, a Keras file or SavedModel folder, on the held-out images."""
    network = common.load_model(model)
    from larq_rep.data import digits

    shape, outputs = network.input_shape, network.output_shape
    if len(shape) != 4 or None in shape[1:3] or shape[3] != 1 or outputs[1:] != (10,):
        raise common.InputError(
            f"{model} maps {shape} to {outputs}. For the digits expected a network from (None, height, width, 1) to "
            "(None, 10): lqr train makes one."
        )
    images, labels = digits("test", shape[1:3])
    with common.working("evaluating"):
        right = int((network.predict(images, verbose=0).argmax(axis=1) == labels).sum())
    if as_json:
        common.print_json({"model": model, "data": data, "images": len(labels), "accuracy": right / len(labels)})
    else:
        common.console().print(f"{model}: accuracy {right / len(labels):.2%}, {right} of {len(labels)} images")
