"""The program `lqr`: training, evaluation and what one sees of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from larq_rep_cli import ablation, common, lce, runs, tables

if TYPE_CHECKING:
    import tensorflow as tf

    from larq_rep.training import Config, Recipe

_PLOTTED_IMAGES = 64


@click.group(cls=common.Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="larq-rep")
def main() -> None:
    """Trains binary networks by the published recipes and evaluates them.

    The exit code is 0 on success, 1 if a training lost its workers, 2 if the input cannot be used or a training was
    interrupted, 3 if a command fails by a fault of its own, and 130 if another command was interrupted.
    """


# lqr train, lqr resume


@main.command(
    epilog=common.examples(
        "lqr train RepResNet20 --recipe irnet --data digits --out runs/digits --set epochs=35 --set batch_size=32",
        "lqr train RepReActNetA --recipe adambnn --data imagenet2012 --data-dir D --teacher resnet34.keras "
        "--out runs/rep",
        "lqr train ResNet20 --set method=recu --set width=8 --recipe recu --data cifar10 --out runs/recu",
        "lce convert runs/digits -o rep.tflite",
    )
)
@click.argument("name")
@click.option("--recipe", required=True, help="How to train: a name of `lqr recipes`.")
@click.option(
    "--data",
    required=True,
    help="digits (of scikit-learn), cifar10, cifar100, imagenet2012, or a folder with folders train and test of one "
    "folder of images a class.",
)
@runs.data_dir_option
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A new folder for the run.")
@common.seed_option
@click.option(
    "--set",
    "changes",
    type=common.Keyword(),
    multiple=True,
    metavar="KEY=VALUE",
    help="Another value of the recipe (2.epochs=5: of its second phase only) or, if it has no such value, of the "
    "network's constructor (network.padding=bmxnet: of that in any case); may be repeated.",
)
@click.option("--beta", type=click.IntRange(min=1), help="Repeat factor.  [default: as published]")
@click.option(
    "--input-size",
    type=common.InputSize(),
    help="Size of the images: N or HxW.  [default: as published; 16 for digits]",
)
@click.option("--teacher", help="Keras file, or run, whose logits are learned where the recipe has a teacher.")
@click.option(
    "--strategy", type=click.Choice(("mirrored", "multiworker")), help="Train on several devices or machines."
)
@click.option("--sync-batch-norm", is_flag=True, help="Batch normalisations take their statistics over all devices.")
@click.option(
    "--deterministic/--no-deterministic",
    default=True,
    show_default=True,
    help="The same weights every time; slower on a GPU.",
)
@runs.restarts_option
@runs.wait_option
@click.option("--force", is_flag=True, help="Remove the run that is in the folder.")
def train(
    name: str,
    recipe: str,
    data: str,
    data_dir: Path | None,
    out: Path,
    seed: int,
    changes: tuple[tuple[str, Any], ...],
    beta: int | None,
    input_size: tuple[int, int, int] | None,
    teacher: str | None,
    strategy: str | None,
    sync_batch_norm: bool,
    deterministic: bool,
    restarts: int,
    wait: float | None,
    force: bool,
) -> None:
    """Trains the network NAME of the zoo by a published recipe.

    The folder --out holds the run: configuration, metrics, curves, TensorBoard's files, weights and checkpoints.
    A run that was stopped, by Ctrl-C, SIGTERM (exit code 143) or otherwise, goes on with lqr resume. Images of a
    folder are looked at before the start: one that is damaged is refused by its name. Ends with one line: folder,
    accuracies, seconds.

    On several machines the same command is started on each, with the same folder on a disk that they share and
    TF_CONFIG as TensorFlow documents it. The batch size is that of all together. Who is missing is said while the
    others wait. If one is lost, start the same command there again: all go on from the last checkpoint. Exit code 1
    means that workers were lost and no restart was left, or that one did not come within --wait.
    """
    if strategy == "multiworker":
        runs.supervise(out, restarts)
    common.quiet_tensorflow(devices=strategy is None)
    from larq_rep import training, zoo
    from larq_rep.training import recipes

    if name not in zoo.list_models():
        hint = common.did_you_mean(name, zoo.list_models()) or "`lce zoo list` names all."
        raise common.InputError(f"There is no network named {name!r}. {hint}")
    arguments: dict[str, Any] = {"beta": beta, "input_size": input_size and list(input_size[:2])}
    arguments = {key: value for key, value in arguments.items() if value is not None}
    with common.refusing(ValueError):
        chosen = training.get_recipe(recipe)
        for key, value in changes:
            argument = key.removeprefix("network.")
            changed = recipes.changed(chosen, key, value) if argument == key else None
            if changed is None:
                _check_argument(name, argument)
                if not isinstance(value, (str, int, float, list, tuple, type(None))):
                    raise common.InputError(f"{key}: a {type(value).__name__} is no value of a network: {value!r}.")
                arguments[argument] = value
            else:
                chosen = changed
    if "beta" in arguments:
        _check_argument(name, "beta")
    config = training.Config(
        name,
        runs.absolute(data),
        chosen,
        arguments,
        data_dir=str(data_dir.resolve()) if data_dir else None,
        seed=seed,
        teacher=runs.absolute(teacher) if teacher else None,
        strategy=strategy,
        sync_batch_norm=sync_batch_norm,
        deterministic=deterministic,
    )
    _train(out, config, wait, force=force)


def _check_argument(name: str, key: str) -> None:
    from larq_rep import zoo

    known = [
        each
        for each in zoo.get_network(name).parameters
        if each not in ("input_shape", "input_tensor", "include_top", "weights")
    ]
    if key not in known:
        raise common.InputError(
            f"Neither the recipe nor {name} has a value {key!r}. The network has: {', '.join(known)}; `lqr recipes "
            "--json` shows those of recipes."
        )


@main.command(epilog=common.examples("lqr resume runs/digits"))
@click.argument("run", type=click.Path(path_type=Path))
@runs.data_dir_option
@click.option("--teacher", help="Where the teacher is now.  [default: where it was]")
@runs.restarts_option
@runs.wait_option
def resume(run: Path, data_dir: Path | None, teacher: str | None, restarts: int, wait: float | None) -> None:
    """Goes on with a run that was stopped, after its last whole epoch.

    What is damaged in its folder is made anew if the checkpoints have it, and said: a checkpoint itself from the one
    before, metrics.csv and config.json, and weights of epochs that have a checkpoint.
    """
    if runs.strategy(run) == "multiworker":
        runs.supervise(run, restarts)
    config = _config(run, devices=False)
    config = replace(
        config,
        data_dir=str(data_dir.resolve()) if data_dir else config.data_dir,
        teacher=runs.absolute(teacher) if teacher else config.teacher,
    )
    _train(run, config, wait, resume=True)


def _config(run: Path, devices: bool = True) -> Config:
    common.quiet_tensorflow(devices=devices)
    from larq_rep import training

    with common.refusing(training.RunError):
        return training.Config.read(run)


def _train(folder: Path, config: Config, wait: float | None, *, resume: bool = False, force: bool = False) -> None:
    from larq_rep import training

    start, teacher = time.perf_counter(), config.teacher
    with common.progress() as bars, common.refusing(ValueError, FileNotFoundError, OSError, ImportError):
        callback = _progress(bars, config.recipe)
        try:
            training.train(
                runs.network,
                folder,
                config,
                teacher=(lambda: common.load_model(teacher)) if teacher else None,
                resume=resume,
                force=force,
                wait=wait,
                callbacks=[callback],
                report=common.note,
            )
        except KeyboardInterrupt:
            raise runs.interrupted(folder) from None
        except common.Terminated:
            runs.interrupted(folder, "Ended by SIGTERM").show()
            raise
        except training.WorkerMissing as error:
            common.note(str(error))
            raise SystemExit(1) from None
        except training.WorkerLost as error:
            common.note(str(error))
            raise SystemExit(runs.WORKER_LOST) from None
    rows = [row for row in training.read_metrics(folder) if row["phase"] == len(config.recipe.phases)]
    # Of equal ones that whose weights are kept; `max` takes the first.
    later = config.recipe.phases[-1].best == "later"
    best = max(reversed(rows) if later else rows, key=lambda row: row["val_accuracy"])
    common.console().print(
        f"{folder}: accuracy {rows[-1]['val_accuracy']:.2%} on the test images, best {best['val_accuracy']:.2%} in "
        f"epoch {best['epoch']:.0f} of {len(rows)}, {time.perf_counter() - start:.0f} s"
    )


def _progress(bars, recipe: Recipe) -> tf.keras.callbacks.Callback:
    """Bars of epochs and steps on a terminal, and a line for each epoch where there is none."""
    import tensorflow as tf

    class Bars(tf.keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            # Else Keras waits for the device in each step, to hand over numbers in place of tensors.
            self._supports_tf_logs = True

        def on_train_begin(self, logs=None):
            self.epochs = bars.add_task("training", total=self.params["epochs"])
            self.steps = bars.add_task("epoch", total=self.params["steps"])

        def on_epoch_begin(self, epoch, logs=None):
            bars.update(self.epochs, completed=epoch)

        def on_train_batch_end(self, batch, logs=None):
            bars.update(self.steps, completed=batch + 1)

        def on_epoch_end(self, epoch, logs=None):
            said = (
                f"loss {logs['loss']:.3f}, accuracy {logs['accuracy']:.1%}, test {logs['val_accuracy']:.1%}, "
                f"{logs.get('images_per_second', float('nan')):.0f} images/s"
            )
            bars.update(self.epochs, completed=epoch + 1, description=said)
            if bars.disable:
                common.note(f"epoch {epoch + 1} of {self.params['epochs']}: {said}")

        def on_train_end(self, logs=None):
            bars.remove_task(self.epochs)
            bars.remove_task(self.steps)

    return Bars()


# lqr recipes


@main.command(name="recipes", epilog=common.examples("lqr recipes", "lqr recipes adambnn", "lqr recipes --json"))
@click.argument("name", required=False)
@common.json_option
def list_recipes(name: str | None, as_json: bool) -> None:
    """Lists the published recipes, or all values of the one called NAME."""
    common.quiet_tensorflow()
    from larq_rep.training import recipes

    with common.refusing(ValueError):
        chosen = [recipes.get_recipe(name)] if name else list(recipes.RECIPES.values())
    if as_json or name:
        values = [recipes.to_json(recipe) for recipe in chosen]
        common.print_json(values[0] if name else values)
        return
    rows = [
        [
            recipe.name,
            recipe.networks,
            recipe.dataset,
            " + ".join(str(phase.epochs) for phase in recipe.phases),
            recipe.phases[0].batch_size,
            recipe.phases[0].optimizer,
            f"{recipe.phases[0].learning_rate:g}",
            "yes" if recipe.phases[0].teacher else "no",
            recipe.source,
        ]
        for recipe in chosen
    ]
    columns = ["recipe", "networks", "data", "epochs", "batch", "optimizer", "rate", "teacher", "source"]
    common.console().print(tables.table("Recipes; `lqr recipes NAME` shows all values of one", columns, rows))


# lqr evaluate, lqr export


@main.command(
    epilog=common.examples(
        "lqr evaluate runs/digits",
        "lqr evaluate runs/rep --data imagenet2012 --data-dir D --weights last --json",
        "lqr evaluate model.keras --data cifar10 --recipe irnet",
    )
)
@click.argument("model")
@click.option("--data", help="As for lqr train.  [default: that of the run, or digits]")
@runs.data_dir_option
@click.option("--recipe", help="Whose preparation of the images to use for a file.  [default: images in 0..1]")
@runs.weights_option
@click.option("--batch-size", type=click.IntRange(min=1), default=128, show_default=True)
@common.json_option
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
    common.quiet_tensorflow()
    from larq_rep import training
    from larq_rep.training import datasets

    with common.refusing(ValueError, FileNotFoundError, ImportError):
        chosen = training.get_recipe(recipe) if recipe else None
        augmentation = datasets.Augmentation()
        if runs.is_run(model):
            config = training.Config.read(model)
            augmentation = config.recipe.augmentation
            data, data_dir = data or config.data, data_dir or (Path(config.data_dir) if config.data_dir else None)
            network = runs.load(model, weights)
        else:
            data = data or "digits"
            network = common.load_model(model)
        if chosen:
            augmentation = chosen.on(data).augmentation
        source = datasets.load(data, data_dir)
        shape, outputs = network.input_shape, network.output_shape
        if len(shape) != 4 or None in shape[1:3] or shape[3] != source.channels or outputs[1:] != (source.num_classes,):
            raise common.InputError(
                f"{model} maps {shape} to {outputs}. For {data} expected a network from (None, height, width, "
                f"{source.channels}) to (None, {source.num_classes})."
            )
        batches = datasets.batches(source, augmentation, shape[1:3], batch_size, training=False)
    with _explained():
        result = {"model": model, "data": data, **_accuracy(network, batches, source.test_size, batch_size)}
    if as_json:
        common.print_json(result)
    else:
        common.console().print(
            f"{model}: accuracy {result['top1']:.2%}, top 5 {result['top5']:.2%}, {result['right']} of "
            f"{result['images']} images"
        )


@contextmanager
def _explained() -> Iterator[None]:
    """Images are read while they are needed; what is wrong with one is told by TensorFlow."""
    import tensorflow as tf

    from larq_rep.training.trainee import explained

    try:
        yield
    except tf.errors.OpError as error:
        raise common.InputError(explained(error)) from error


def _accuracy(network: tf.keras.Model, batches: tf.data.Dataset, images: int, batch_size: int) -> dict[str, Any]:
    import numpy as np

    right = among5 = seen = 0
    for pixels, labels in common.track(batches, "evaluating", -(-images // batch_size)):
        order = np.argsort(-network.predict_on_batch(pixels), axis=1, kind="stable")[:, :5]
        matches = order == labels.numpy()[:, None]
        right, among5, seen = right + int(matches[:, 0].sum()), among5 + int(matches.sum()), seen + len(order)
    return {"images": seen, "right": right, "top1": right / seen, "top5": among5 / seen}


@main.command(epilog=common.examples("lqr export runs/digits -o rep.tflite"))
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The .tflite file to write.")
@runs.weights_option
@common.force_option
@common.json_option
def export(run: Path, output: Path, weights: str, force: bool, as_json: bool) -> None:
    """Converts the network of a run to a bitpacked .tflite file, as lce convert RUN does."""
    _config(run)
    lce.write_tflite(str(run), lambda: runs.load(run, weights), output, force=force, as_json=as_json)


# lqr plot


@main.command(
    epilog=common.examples(
        "lqr plot runs/digits --kind history -o curves.png",
        "lqr plot runs/digits --kind activations -o activations.png",
        "lqr plot runs/digits --kind ops -o ops.png",
    )
)
@click.argument("folders", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--kind",
    type=click.Choice(("history", "coefficients", "activations", "features", "ops")),
    default="history",
    show_default=True,
    help="history: loss, accuracy and learning rate; coefficients: learned shifts and slopes; activations: inputs of "
    "binary convolutions before and after the sign; features: a feature map before and after its repeat; ops: "
    "accuracy against OPs, with the published networks for the data set.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The .png file to write.")
@click.option("--layer", help="Name of the layer to look at, for activations and features.")
@runs.weights_option
@common.force_option
def plot(folders: tuple[Path, ...], kind: str, output: Path, layer: str | None, weights: str, force: bool) -> None:
    """Draws what runs have learned, as the papers' figures show it.

    history and ops take several runs, the other kinds one.
    """
    if output.suffix != ".png":
        raise common.InputError(f"--output {output}: expected the name of a .png file.")
    if layer and kind not in ("activations", "features"):
        raise common.InputError(f"--layer is for activations and features, not for {kind}.")
    if len(folders) > 1 and kind not in ("history", "ops"):
        raise common.InputError(f"--kind {kind} draws one run, found {len(folders)}.")
    common.check_output(output, force)
    configs = {str(folder): _config(folder) for folder in folders}
    from larq_rep import plots, training

    with common.refusing(ValueError, FileNotFoundError, OSError), common.working(f"drawing {kind}"):
        if kind == "history":
            histories = {folder: training.read_metrics(folder) for folder in configs}
            for folder, rows in histories.items():
                if not rows:
                    raise common.InputError(f"{folder} has finished no epoch yet, so there is nothing to draw.")
            figure = plots.history(histories)
        elif kind == "ops":
            figure = plots.accuracy_against_ops(_points(configs, weights))
        else:
            [(folder, config)] = configs.items()
            figure = _figure(kind, config, runs.load(folder, weights), layer)
        plots.write(figure, output)
    click.echo(f"{output}: {kind} of {', '.join(configs)}")


def _figure(kind: str, config: Config, network: tf.keras.Model, layer: str | None):
    from larq_rep import plots
    from larq_rep.training import datasets

    if kind == "coefficients":
        return plots.coefficients(network)
    source = datasets.load(config.data, config.data_dir)
    batches = datasets.batches(
        source, config.recipe.augmentation, network.input_shape[1:3], _PLOTTED_IMAGES, training=False
    )
    with _explained():
        images = next(iter(batches))[0].numpy()
    return (plots.activations if kind == "activations" else plots.feature_maps)(network, images, layer)


def _points(configs: dict[str, Config], weights: str) -> list:
    """The runs, and the published networks for their data."""
    from larq_rep import cost, plots, training, zoo
    from larq_rep.zoo import catalog
    from larq_rep.zoo.registry import DATASETS

    points = []
    for folder, config in configs.items():
        network = runs.load(folder, weights)
        rows = [row["val_accuracy"] for row in training.read_metrics(folder)]
        last = [row for row in training.read_metrics(folder) if row["phase"] == len(config.recipe.phases)]
        accuracy = max(row["val_accuracy"] for row in last) if weights == "best" else rows[-1]
        points.append(plots.Point(folder, float(cost.count(network).ops), 100 * accuracy, "runs"))
    forms = {runs.FORMS.get(config.data) for config in configs.values() if config.data != "digits"} & DATASETS.keys()
    costs = catalog.stored_costs()
    published = {}
    for name in zoo.list_models():
        record = zoo.get_network(name)
        for variant in record.variants:
            key = catalog.key(name, variant)
            if variant.dataset in forms and variant.results and key in costs:
                published[key] = (record.family, costs[key]["ops"], variant.results[0].top1)
    for key, (family, ops, top1) in published.items():
        base = key.removeprefix("Rep")
        points.append(plots.Point(key, ops, top1, family, base if base != key and base in published else None))
    return points


main.add_command(ablation.ablate)


if __name__ == "__main__":
    main()
