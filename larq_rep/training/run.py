"""Runs a training by a recipe, in a folder that always holds everything needed to resume it."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import tensorflow as tf

import larq_rep
from larq_rep.images import MODES, folders_in, images_in
from larq_rep.training import datasets, mending, workers
from larq_rep.training import folder as folders
from larq_rep.training.fit import fit
from larq_rep.training.folder import Config, RunError, phase_folder
from larq_rep.training.phases import (
    noting_initial_values,
    transfer,
    with_binary_weights,
    with_real_weights,
    with_synchronized_norms,
)
from larq_rep.training.recipe import Phase, Recipe
from larq_rep.training.schedules import check_schedules
from larq_rep.training.state import Run


def train(
    build: Callable[[Config], tf.keras.Model],
    folder: str | os.PathLike[str],
    config: Config,
    *,
    teacher: Callable[[], tf.keras.Model] | None = None,
    resume: bool = False,
    force: bool = False,
    wait: float | None = None,
    callbacks: Sequence[tf.keras.callbacks.Callback] = (),
    report: Callable[[str], None] = print,
) -> tf.keras.Model:
    """Trains a network by a recipe, and keeps everything needed to resume it in a folder.

    The folder gets `config.json`, `metrics.csv` (one row an epoch), `curves.png`, `tensorboard/` and for each phase
    a folder with the weights of its best and last epoch, `best.h5` and `last.h5`, and its last two checkpoints.
    Files appear complete or not at all: a process that is killed loses at most its current epoch.

    A resumed run ends with the same weights as an uninterrupted one: the data and everything random in an epoch
    follow from `seed` and the epoch's number. On one kind of machine and with `deterministic` the bits are the same.

    # Arguments
        build: Makes the network, with the number of classes in the given configuration, and with initial values
            or with weights to train further; the initial values of a recipe only replace initial ones. Called once a
            phase, after the seed is set; a later phase begins with the weights of the one before.
        folder: Where the run is kept: a new or empty folder, or with `resume` the folder of a run.
        config: What the run depends on.
        teacher: Makes the model whose logits are learned in the phases that have a `teacher`.
        resume: Whether to go on with the run in the folder. Several workers also do so if it is a run of the same
            configuration, so a lost worker is restarted with its original command.
        force: Whether to remove the run that is in the folder, once everything else is known to be in order.
        wait: How many seconds to wait for the other workers; `None` for ever.
        callbacks: More callbacks for `fit`. If one of them ends a phase before its last epoch with
            `model.stop_training`, the next phase follows; this is recorded, and a resumed run does the same.
        report: Called with each line that a person should read.

    # Returns
        The network of the last phase with the weights of its last epoch.

    # Raises
        RunError: If the folder is in use or cannot be written to, there is not enough space for the run, a teacher
            is missing, or the loss becomes infinite or not a number.
        ValueError, FileNotFoundError: If the network does not suit the recipe, or the data are not there.
        WorkerLost: If one of several workers is lost, or does not come (`WorkerMissing`). TensorFlow may also abort
            the process.
    """
    folder = Path(folder)
    _check(config.recipe, teacher)
    strategy = workers.make_strategy(config.strategy, wait, report)
    chief = workers.is_chief(config.strategy)
    if resume and not folders.holds(folder, config):
        Config.read(folder)  # raises if that is not a run
        raise RunError(f"{folder} holds a run with other values. Begin a new one in another folder.")
    resume = resume or (config.strategy == "multiworker" and chief and folders.holds(folder, config))
    with (
        workers.noticing_lost_workers(config.strategy),
        folders.reserved(folder, resume, force) if chief else contextlib.nullcontext(),
    ):
        if config.deterministic:
            tf.config.experimental.enable_op_determinism()
        source = datasets.load(config.data, config.data_dir)
        for phase in config.recipe.phases:
            datasets.steps_per_epoch(source, phase.batch_size, phase.drop_last)  # raises if there are none
        datasets.check_files(source, report)
        if not resume or config.num_classes is None:
            config = dataclasses.replace(config, num_classes=source.num_classes, channels=source.channels)
        workers.check_alike(strategy, config, source)
        run = Run(folder, config, source, strategy, callbacks, report)
        return _noted(_phases(run, build, teacher, resume), config)


def _check(recipe: Recipe, teacher: Callable[[], tf.keras.Model] | None) -> None:
    for phase in recipe.phases:
        phase.check()
        if phase.teacher and teacher is None:
            raise RunError(
                f"Recipe {recipe.name} learns the logits of a teacher, as published of {phase.teacher}. Give a Keras "
                "model as teacher (--teacher FILE), or learn the labels (--set teacher=none)."
            )


def _phases(
    run: Run,
    build: Callable[[Config], tf.keras.Model],
    teacher: Callable[[], tf.keras.Model] | None,
    resume: bool,
) -> tf.keras.Model:
    folder, recipe = run.folder, run.recipe
    previous = None
    for number, phase in enumerate(recipe.phases):
        tf.keras.utils.set_random_seed(run.config.seed)
        with run.strategy.scope(), _random_generators():
            network = _network(build, phase, run.config)
            if previous is not None:
                transfer(previous, network, phase.left_behind)
            taught = teacher() if phase.teacher and teacher else None
        if number == 0:
            _write_config(run, resume)
        fit(run, number, network, taught)
        if number + 1 < len(recipe.phases) and not folders.a_later_has_begun(folder, recipe, number):
            file = phase_folder(folder, recipe, number) / f"{recipe.phases[number + 1].start}.h5"
            mending.load_weights(network, file, f"Put it back from a copy of the run, or `lqr resume {folder}`.")
        previous = network
    return previous


def _write_config(run: Run, resume: bool) -> None:
    if run.chief and not resume:
        folders.clear(run.folder)
        run.config.write(run.folder)
    elif run.chief and not folders.is_readable(run.folder):
        run.config.write(run.folder)
        run.report(f"{run.folder / 'config.json'} was damaged. It is written anew from the checkpoint.")
    workers.check_folder_shared(run.strategy, run.folder)


def load(
    build: Callable[[Config], tf.keras.Model], folder: str | os.PathLike[str], weights: str = "best"
) -> tf.keras.Model:
    """The network of a run's last phase, with the weights of its `"best"` or `"last"` epoch.

    # Raises
        RunError: If the run has not reached that epoch.
    """
    config = Config.read(folder)
    recipe = config.recipe
    path = phase_folder(folder, recipe, len(recipe.phases) - 1) / f"{weights}.h5"
    if not path.is_file():
        raise RunError(
            f"{folder}: there is no {path.relative_to(folder)} yet: the run has not finished an epoch of its last "
            "phase. `lqr resume` goes on with it."
        )
    network = build(config)
    other = "last" if weights == "best" else "best"
    mending.load_weights(
        network,
        path,
        f"Use the weights of the {other} epoch (--weights {other}), put the file back from a copy of the run, or try "
        f"`lqr resume {folder}`, which makes it anew if there is a checkpoint of that epoch.",
    )
    return _noted(network, config)


def class_names(config: Config) -> tuple[str, ...]:
    """The names of the classes of a run: of its data set, or of its folder if that is still there; or else none.

    # Raises
        FileNotFoundError: If anything in the folder is a broken link.
    """
    if data := larq_rep.datasets.find(config.data):
        return larq_rep.datasets.names_of(data) or ()
    train = Path(config.data, "train")
    return tuple(child.name for child in folders_in(train) if images_in(child)) if train.is_dir() else ()


def _noted(network: tf.keras.Model, config: Config) -> tf.keras.Model:
    """The network, whose record says how the run prepared its images, so that its files say so too."""
    record, shape = getattr(network, "record", None), network.input_shape
    if record is not None and len(shape) == 4 and shape[3] in MODES:
        names = class_names(config)
        network.record = dataclasses.replace(
            record,
            preparation=config.recipe.augmentation.at(shape[1:3], shape[3]),
            classes=names if len(names) == network.output_shape[-1] else (),
        )
    return network


def _network(build: Callable[[Config], tf.keras.Model], phase: Phase, config: Config) -> tf.keras.Model:
    # Layers without a name of their own are numbered; the numbers restart in each phase.
    tf.keras.backend.reset_uids()
    with noting_initial_values() as is_initial:
        network = build(config)
    for each in config.recipe.phases:
        if each.weights == "binary":
            check_schedules(network, each.epochs)
    if phase.weights == "real":
        # A network that comes with weights to train further keeps them.
        kernels = {layer.name: getattr(layer, "kernel", None) for layer in network.layers}
        given = [name for name, kernel in kernels.items() if kernel is not None and not is_initial(kernel)]
        network = with_real_weights(network, phase.initializer, given, phase.left_behind, phase.activations)
    if phase.optimizer == "bop":
        network = with_binary_weights(network)
    if config.sync_batch_norm:
        network = with_synchronized_norms(network)
    return network


@contextlib.contextmanager
def _random_generators() -> Iterator[None]:
    """Gives layers such as dropout random generators whose state can be set."""
    backend = tf.keras.backend.experimental
    enabled = backend.is_tf_random_generator_enabled()
    backend.enable_tf_random_generator()
    try:
        yield
    finally:
        if not enabled:
            backend.disable_tf_random_generator()
