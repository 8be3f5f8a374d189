"""The command `lqr evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from larq_rep_cli import models, options, preparing, runs, terminal
from larq_rep_cli.errors import InputError, refusing

if TYPE_CHECKING:
    import tensorflow as tf

    from larq_rep.accuracy import Accuracy
    from larq_rep.training.datasets import Source


@click.command(
    epilog=options.examples(
        "lqr evaluate runs/digits",
        "lqr evaluate runs/rep --data imagenet2012 --data-dir D --weights last --json",
        "lqr evaluate model.keras --data cifar10 --recipe irnet",
    )
)
@click.argument("model")
@click.option("--data", help="As for lqr train.  [default: the run's data, or digits]")
@options.data_dir_option
@click.option(
    "--recipe", help="Recipe that prepares the images for a file.  [default: as MODEL says, else images in 0..1]"
)
@options.weights_option
@options.count_option("--batch-size", default=128)
@options.json_option
def evaluate(
    model: str,
    data: str | None,
    data_dir: Path | None,
    recipe: str | None,
    weights: str,
    batch_size: int,
    as_json: bool,
) -> None:
    """Prints the accuracy of MODEL, a run or a Keras file, on test images."""
    terminal.quiet_tensorflow()
    from larq_rep import training
    from larq_rep.training import datasets

    with refusing(ValueError, FileNotFoundError, ImportError):
        chosen = training.get_recipe(recipe) if recipe else None
        config = None
        if runs.is_run(model):
            config = training.Config.read(model)
            data, data_dir = data or config.data, data_dir or (Path(config.data_dir) if config.data_dir else None)
            network = runs.load(model, weights)
        else:
            data = data or "digits"
            network = models.load_model(model)
        shape = network.input_shape
        grey = isinstance(shape, tuple) and len(shape) == 4 and shape[3] == 1
        source = datasets.load(data, data_dir, 1 if grey else 3)
        _check_shapes(model, network, data, source)
        if chosen:
            preparation = chosen.on(data).augmentation.at(shape[1:3], shape[3])
        else:
            preparation, basis = preparing.preparation(
                preparing.of_network(model, network, config), preparing.Changes()
            )
            terminal.note(f"Images: {basis}: {preparation.text}.")
        batches = datasets.batches(source, preparation, preparation.size, batch_size, training=False)
    found = _accuracy(network, batches, -(-source.test_size // batch_size))
    if as_json:
        counts = {"images": found.images, "right": found.right, "top1": found.top1, "top5": found.top5}
        terminal.print_json({"model": model, "data": data, **counts})
        return
    terminal.console().print(
        f"{model}: accuracy {found.top1:.2%}, top 5 {found.top5:.2%}, {found.right} of {found.images} images"
    )


def _check_shapes(model: str, network: tf.keras.Model, data: str, source: Source) -> None:
    shape, outputs = network.input_shape, network.output_shape
    if len(shape) != 4 or None in shape[1:3] or shape[3] != source.channels or outputs[1:] != (source.num_classes,):
        raise InputError(
            f"{model} maps {shape} to {outputs}. For {data} expected a network from (None, height, width, "
            f"{source.channels}) to (None, {source.num_classes})."
        )


def _accuracy(network: tf.keras.Model, batches: tf.data.Dataset, steps: int) -> Accuracy:
    from larq_rep import accuracy

    with runs.explained():
        return accuracy.measure(
            (network.predict_on_batch(images), labels.numpy())
            for images, labels in terminal.track(batches, "evaluating", steps)
        )
