"""The command `lqr train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from larq_rep_cli import light, options, runs, supervision, terminal, training
from larq_rep_cli.errors import InputError, refusing

if TYPE_CHECKING:
    from larq_rep.training import Recipe


@click.command(
    epilog=options.examples(
        "lqr train RepResNet20 --recipe irnet --data digits --out runs/digits --set epochs=35 --set batch_size=32",
        "lqr train RepReActNetA --recipe adambnn --data imagenet2012 --data-dir D --teacher resnet34.keras "
        "--out runs/rep",
        "lqr train ResNet20 --set method=recu --set width=8 --recipe recu --data cifar10 --out runs/recu",
        "lqr train BiRealNet18 --recipe bop-bireal --data imagenet2012 --data-dir D --out runs/bop",
        "lce convert runs/digits -o rep.tflite",
    )
)
@click.argument("name")
@click.option("--recipe", required=True, help="How to train: a name of `lqr recipes`.")
@click.option(
    "--data",
    required=True,
    help=f"{', '.join(light.datasets.names())}, or a folder with the folders train and test, each with one folder of "
    "images for each class.",
)
@options.data_dir_option
@click.option("--out", type=options.PATH, required=True, help="A new folder for the run.")
@options.seed_option
@click.option(
    "--set",
    "changes",
    type=options.Keyword(),
    multiple=True,
    metavar="KEY=VALUE",
    help="Another value of the recipe (2.epochs=5: of its second phase only) or, if it has no such value, of the "
    "network's constructor (network.padding=bmxnet: always of the constructor); may be repeated.",
)
@click.option("--beta", type=click.IntRange(min=1), help="Repeat factor.  [default: as published]")
@click.option(
    "--input-size",
    type=options.InputSize(),
    help="Size of the images: N or HxW.  [default: as published; 16 for digits]",
)
@click.option("--teacher", help="Keras file or run whose logits are learned if the recipe has a teacher.")
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
@options.restarts_option
@options.wait_option
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
    input_size: tuple[int, ...] | None,
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
    To continue a run that was stopped, by Ctrl-C, SIGTERM (exit code 143) or otherwise, use lqr resume. Images of a
    folder are checked before the start: a damaged one is refused by name. Ends with one line: folder, accuracies,
    seconds.

    To train on several machines, start the same command on each, with the same folder on a disk that they share and
    TF_CONFIG as TensorFlow documents it. The batch size is the global one. Waiting workers say who is missing. If one
    is lost, start the same command there again: all continue from the last checkpoint. Exit code 1 means that workers
    were lost and no restart was left, or that one did not come within --wait.
    """
    if strategy == "multiworker":
        supervision.supervise(out, restarts)
    terminal.quiet_tensorflow(devices=strategy is None)
    from larq_rep.training import Config

    chosen, arguments = _chosen(name, recipe, changes, {"beta": beta, "input_size": input_size and [*input_size[:2]]})
    config = Config(
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
    training.run(out, config, wait, force=force)


def _chosen(
    name: str, recipe: str, changes: tuple[tuple[str, Any], ...], given: dict[str, Any]
) -> tuple[Recipe, dict[str, Any]]:
    """The recipe and the arguments of the network, both with the changes of `--set`."""
    from larq_rep import zoo
    from larq_rep.training import get_recipe
    from larq_rep.training.recipe import changed

    if name not in zoo.list_models():
        hint = light.did_you_mean(name, zoo.list_models()) or "`lce zoo list` names all."
        raise InputError(f"There is no network named {name!r}. {hint}")
    arguments = {key: value for key, value in given.items() if value is not None}
    with refusing(ValueError):
        chosen = get_recipe(recipe)
        for key, value in changes:
            argument = key.removeprefix("network.")
            new = changed(chosen, key, value) if argument == key else None
            if new is None:
                _check_argument(name, argument)
                if not isinstance(value, (str, int, float, list, tuple, type(None))):
                    raise InputError(f"{key}: a {type(value).__name__} cannot be a value of a network: {value!r}.")
                arguments[argument] = value
            else:
                chosen = new
    if "beta" in arguments:
        _check_argument(name, "beta")
    return chosen, arguments


def _check_argument(name: str, key: str) -> None:
    from larq_rep import zoo

    known = [*zoo.get_network(name).parameters]
    known = [each for each in known if each not in ("input_shape", "input_tensor", "include_top", "weights")]
    if key not in known:
        raise InputError(
            f"Neither the recipe nor {name} has a value {key!r}. The network has: {', '.join(known)}; `lqr recipes "
            "--json` shows the values of recipes."
        )
