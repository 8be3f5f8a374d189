"""A run: a training by a recipe, in a folder that always holds all that is needed to go on with it."""

import contextlib
import dataclasses
import math
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from larq_rep import plots
from larq_rep.files import replacing
from larq_rep.losses import CrossEntropy, DistributionalLoss
from larq_rep.training import checkpoints, datasets, mending, optimizers, workers
from larq_rep.training import folder as folders
from larq_rep.training.folder import Config, RunError, phase_folder, read_metrics
from larq_rep.training.phases import noting_initial_values, transfer, with_real_weights, with_synchronized_norms
from larq_rep.training.recipe import Phase, Recipe
from larq_rep.training.schedules import LearningRate, schedules_for
from larq_rep.training.statistics import BinaryStatistics
from larq_rep.training.trainee import Trainee, explained, first_not_finite, is_not_finite

_PROBE_IMAGES = 32
_CURVES_EVERY_SECONDS = 30.0


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
    """Trains a network as a recipe says, and keeps in a folder all that is needed to go on if it is stopped.

    The folder gets `config.json`, `metrics.csv` (one row an epoch), `curves.png`, `tensorboard/` and for each phase
    a folder with the weights of its best and last epoch, `best.h5` and `last.h5`, and its last two checkpoints.
    Files appear complete or not at all: a process that is killed loses at most the epoch that it was in.

    A run that is resumed ends with the weights that it would have had without the interruption: the data and all
    that is random in an epoch follow from `seed` and its number. On one kind of machine and with
    `deterministic` these are the same bits.

    # Arguments
        build: Makes the network, of as many classes as the configuration it is given says, with its initial values
            or with weights to train further; the initial values of a recipe only replace initial ones. Called once a
            phase, after the seed is set; a later phase begins with the weights of the one before.
        folder: Where the run is kept: a new or empty folder, or with `resume` that of a run.
        config: What the run depends on.
        teacher: Makes the model whose logits are learned in the phases that have a `teacher`.
        resume: Whether to go on with the run in the folder. Several workers also do so if it is a run of the same
            configuration: one that was lost is started again as it was at first.
        force: Whether to remove the run that is in the folder, once all else is known to be in order.
        wait: For how many seconds to wait for the other ones of several workers; `None` for ever.
        callbacks: More callbacks for `fit`. If one of them ends a phase before its last epoch, by
            `model.stop_training`, the next phase follows; that is recorded, and a run that is resumed keeps to it.
        report: Is told what a person should know, a line at a time.

    # Returns
        The network of the last phase with the weights of its last epoch.

    # Raises
        RunError: If the folder is in use or cannot be written to, there is not enough space for the run, a teacher
            is missing, or the loss becomes infinite or no number.
        ValueError, FileNotFoundError: If the network does not suit the recipe, or the data are not there.
        WorkerLost: If one of several workers is lost, or does not come (`WorkerMissing`). TensorFlow may also abort
            the process.
    """
    folder, recipe = Path(folder), config.recipe
    for phase in recipe.phases:
        phase.check()
        if phase.teacher and teacher is None:
            raise RunError(
                f"Recipe {recipe.name} learns the logits of a teacher, as published of {phase.teacher}. Give a Keras "
                "model as teacher (--teacher FILE), or learn the labels (--set teacher=none)."
            )
    strategy = workers.make_strategy(config.strategy, wait, report)
    chief = workers.is_chief(config.strategy)
    if resume and not folders.holds(folder, config):
        Config.read(folder)  # explains itself if that is no run
        raise RunError(f"{folder} holds a run with other values. Begin a new one in another folder.")
    resume = resume or (config.strategy == "multiworker" and chief and folders.holds(folder, config))
    with (
        workers.noticing_lost_workers(config.strategy),
        folders.reserved(folder, resume, force) if chief else contextlib.nullcontext(),
    ):
        if config.deterministic:
            tf.config.experimental.enable_op_determinism()
        source = datasets.load(config.data, config.data_dir)
        for phase in recipe.phases:
            datasets.steps_per_epoch(source, phase.batch_size, phase.drop_last)  # raises if that is none
        datasets.check_files(source, report)
        if not resume or config.num_classes is None:
            config = dataclasses.replace(config, num_classes=source.num_classes, channels=source.channels)
        workers.check_alike(strategy, config, source)
        previous, begun = None, 0
        for number, phase in enumerate(recipe.phases):
            tf.keras.utils.set_random_seed(config.seed)
            with strategy.scope(), _random_generators():
                network = _network(build, phase, config)
                if previous is not None:
                    transfer(previous, network, phase.left_behind)
                taught = teacher() if phase.teacher and teacher else None
            if number == 0:
                if chief and not resume:
                    folders.clear(folder)
                    config.write(folder)
                elif chief and not folders.is_readable(folder):
                    config.write(folder)
                    report(f"{folder / 'config.json'} was damaged. It is written anew from the checkpoint.")
                workers.check_folder_shared(strategy, folder)
            _fit(network, taught, number, begun, folder, config, source, strategy, callbacks, report)
            begun += phase.epochs
            if number + 1 < len(recipe.phases) and not _a_later_has_begun(folder, recipe, number):
                file = phase_folder(folder, recipe, number) / f"{recipe.phases[number + 1].start}.h5"
                mending.load_weights(network, file, f"Put it back from a copy of the run, or `lqr resume {folder}`.")
            previous = network
    return network


def load(
    build: Callable[[Config], tf.keras.Model], folder: str | os.PathLike[str], weights: str = "best"
) -> tf.keras.Model:
    """The network of a run's last phase, with the weights of its `"best"` or `"last"` epoch.

    # Raises
        RunError: If the run has not come so far.
    """
    config = Config.read(folder)
    recipe = config.recipe
    path = phase_folder(folder, recipe, len(recipe.phases) - 1) / f"{weights}.h5"
    if not path.is_file():
        raise RunError(
            f"{folder}: there is no {path.relative_to(folder)} yet, the run has finished no epoch of its last phase. "
            "`lqr resume` goes on with it."
        )
    network = build(config)
    other = "last" if weights == "best" else "best"
    mending.load_weights(
        network,
        path,
        f"Use the weights of the {other} epoch (--weights {other}), put the file back from a copy of the run, or try "
        f"`lqr resume {folder}`, which makes it anew if a checkpoint is of that epoch.",
    )
    return network


def _network(build: Callable[[Config], tf.keras.Model], phase: Phase, config: Config) -> tf.keras.Model:
    # Layers without a name of their own are numbered; each phase begins anew.
    tf.keras.backend.reset_uids()
    with noting_initial_values() as is_initial:
        network = build(config)
    if phase.weights == "real":
        # A network that comes with weights, to be trained further, keeps them.
        kernels = {layer.name: getattr(layer, "kernel", None) for layer in network.layers}
        given = [name for name, kernel in kernels.items() if kernel is not None and not is_initial(kernel)]
        network = with_real_weights(network, phase.initializer, given)
    if config.sync_batch_norm:
        network = with_synchronized_norms(network)
    return network


@contextlib.contextmanager
def _random_generators() -> Iterator[None]:
    """Gives layers such as dropout random generators that can be set."""
    backend = tf.keras.backend.experimental
    enabled = backend.is_tf_random_generator_enabled()
    backend.enable_tf_random_generator()
    try:
        yield
    finally:
        if not enabled:
            backend.disable_tf_random_generator()


def _generators(network: tf.keras.Model) -> dict[str, tf.random.Generator]:
    # Keras has no public name for them.
    random = {layer.name: getattr(layer, "_random_generator", None) for layer in network.submodules}
    return {name: generator._generator for name, generator in random.items() if generator is not None}


def _optimizer(phase: Phase, network: tf.keras.Model) -> tf.keras.optimizers.Optimizer:
    penalty: dict[str, Any] = {
        "l2": phase.weight_decay,
        "decayed": optimizers.decayed_weights(network, phase.decayed),
    }
    if phase.optimizer == "sgd":
        return optimizers.SGD(phase.learning_rate, momentum=phase.momentum, nesterov=phase.nesterov, **penalty)
    return (optimizers.Adam if phase.optimizer == "adam" else optimizers.RAdam)(phase.learning_rate, **penalty)


def _fit(network, teacher, number, begun, folder, config, source, strategy, callbacks, report) -> None:
    """Trains a phase, which `begun` epochs precede, from its last checkpoint on if there is one."""
    recipe, phase = config.recipe, config.recipe.phases[number]
    size, path = network.input_shape[1:3], phase_folder(folder, recipe, number)
    chief = workers.is_chief(config.strategy)
    with strategy.scope():
        kind = Trainee if strategy.num_replicas_in_sync == 1 else workers.ReplicatedTrainee
        trainee = kind(network.inputs, network.outputs, teacher, name=network.name)
        loss = DistributionalLoss(phase.temperature) if teacher else CrossEntropy(phase.label_smoothing)
        optimizer = _optimizer(phase, network)
        trainee.compile(
            optimizer,
            loss,
            weighted_metrics=["accuracy", tf.keras.metrics.SparseTopKCategoricalAccuracy(5, name="top5")],
        )
        optimizer.build(network.trainable_variables)
        epoch, is_older = mending.newest_whole(path, report)

        def restore(epoch: int) -> None:
            kept = tf.train.Checkpoint(network=network, optimizer=optimizer)
            kept.restore(checkpoints.prefix(path / "checkpoints", epoch)).assert_existing_objects_matched()

        if epoch:
            restore(epoch)
    if len(set(epochs := workers.gather(strategy, epoch))) > 1:
        raise RunError(
            f"The workers found different epochs in {path}: {', '.join(map(str, epochs))}. Give all of them the same "
            "folder, on a disk that they share."
        )
    try:
        written = [(row["phase"], row["epoch"]) for row in read_metrics(folder)]
    except RunError:
        written = []  # They are in the checkpoint, too.
    # Then this phase has ended, perhaps by a callback, and is not needed any more.
    if _a_later_has_begun(folder, recipe, number) and (
        is_older or all(row <= (number + 1, epoch) for row in written if row[0] == number + 1)
    ):
        return
    over = epoch in (phase.epochs, folders.stopped_at(path))
    # Metrics are written before the checkpoint, so a process that was killed may have left one row more.
    if not over and not is_older and any(row > (number + 1, epoch + 1) for row in written):
        raise RunError(
            f"{path}: a checkpoint is missing. The last one is of epoch {epoch}, but metrics.csv has later ones. Put "
            "it back, or begin a new run."
        )
    steps = datasets.steps_per_epoch(source, phase.batch_size, phase.drop_last)
    rows = mending.known_rows(folder, config, number, epoch, chief, report)
    if epoch:
        best = mending.best_epoch(phase, [row["val_accuracy"] for row in rows if row["phase"] == number + 1])
        mending.mend_weights(path, network, epoch, best, restore, strategy, chief, report)
    if over:
        return
    if chief:
        folders.check_space(folder, network, optimizer, len(recipe.phases) - number)
    if epoch:
        report(f"Phase {number + 1} of {len(recipe.phases)}: going on after epoch {epoch} of {phase.epochs}.")

    def batches(**arguments) -> tf.data.Dataset:
        return datasets.batches(source, recipe.augmentation, size, phase.batch_size, seed=config.seed, **arguments)

    def training_batches(epoch: int) -> tf.data.Dataset:
        return batches(training=True, drop_last=phase.drop_last, first_epoch=begun + epoch, epochs=begun + phase.epochs)

    images, validation = training_batches(epoch), batches(training=False)
    probe = next(iter(validation.unbatch().batch(_PROBE_IMAGES)))[0]
    board = folder / "tensorboard" / path.name if chief else None
    boards = [tf.keras.callbacks.TensorBoard(board, write_graph=False, profile_batch=0)] if board else []
    always = [
        LearningRate(phase.schedule, phase.learning_rate),
        *schedules_for(network),
        datasets.PipelineMonitor(images, phase.batch_size, report),
        BinaryStatistics(probe, board),
        *boards,
        _Draws(_generators(network), config.seed, begun),
        _Keeper(network, optimizer, number, folder, config, chief, epoch, rows, strategy),
    ]
    ending = _Ending(path, chief, strategy, report)
    validation_steps = -(-source.test_size // phase.batch_size)
    if strategy.num_replicas_in_sync > 1:
        # Iterators of several replicas are not begun anew.
        images, validation = workers.deal(images, strategy), workers.deal(validation.repeat(), strategy)
    try:
        trainee.fit(
            images,
            initial_epoch=epoch,
            epochs=phase.epochs,
            steps_per_epoch=steps,
            validation_data=validation,
            validation_steps=validation_steps,
            callbacks=[*always, *callbacks, ending],
            verbose=0,
        )
    except tf.errors.OpError as error:
        if not is_not_finite(error):
            if config.strategy == "multiworker" and isinstance(error, workers.LOST):
                raise
            raise RunError(f"{explained(error)} `lqr resume {folder}` goes on after the last whole epoch.") from error
        at, step = divmod(int(optimizer.iterations.numpy()), steps)
        batch = next(iter(training_batches(at).skip(step)))[0]
        before = f"Weights of the epochs before are in {path}. " if at else ""
        raise RunError(
            f"The loss is not finite in phase {number + 1} ({phase.weights} weights), epoch {at + 1} of "
            f"{phase.epochs}, step {step + 1} of {steps}. The first that is not finite: "
            f"{first_not_finite(network, batch)}. {before}Begin a new run with a lower learning rate (--set "
            f"learning_rate={phase.learning_rate / 10:g})."
        ) from error
    except BaseException:
        # A process that is interrupted may not come to write what they hold back.
        for callback in boards:
            callback.on_train_end()
        raise


def _a_later_has_begun(folder: Path, recipe: Recipe, number: int) -> bool:
    later = range(number + 1, len(recipe.phases))
    return any(checkpoints.epochs(phase_folder(folder, recipe, other) / "checkpoints") for other in later)


class _Draws(tf.keras.callbacks.Callback):
    """Begins the random numbers of an epoch anew. Replicas have different ones, as many as images were theirs."""

    def __init__(self, generators: dict[str, tf.random.Generator], seed: int, begun: int):
        super().__init__()
        self._generators, self._seed, self._begun = generators, seed, begun

    def on_epoch_begin(self, epoch, logs=None):
        for name, generator in self._generators.items():
            generator.reset_from_seed(zlib.crc32(f"{self._seed} {self._begun + epoch} {name}".encode()))


class _Keeper(tf.keras.callbacks.Callback):
    """Writes metrics, weights and a checkpoint after each epoch, the checkpoint last: with it the epoch counts."""

    def __init__(
        self, network, optimizer, number: int, folder: Path, config: Config, chief: bool, epoch: int, rows, strategy
    ):
        super().__init__()
        self._strategy = strategy
        self._network = network
        self._number = number
        self._phase = config.recipe.phases[number]
        self._chief = chief
        self._folder = folder
        self._config = config
        self._rows = rows
        # Variables that are averaged over workers have to be read by all of them: the others write, too.
        self._temporary = None if chief else tempfile.TemporaryDirectory()
        self._path = phase_folder(self._temporary.name if self._temporary else folder, config.recipe, number)
        self._path.mkdir(parents=True, exist_ok=True)
        self._place = place = self._path / "checkpoints"
        # Whatever became of TensorFlow's list of checkpoints, which says what is removed.
        older = [checkpoints.prefix(place, kept) for kept in reversed(checkpoints.epochs(place)) if kept <= epoch]
        if paths := [path for path in older if os.path.exists(f"{path}.index")]:
            times = [os.path.getmtime(f"{path}.index") for path in paths]
            tf.compat.v1.train.update_checkpoint_state(
                str(place),
                paths[-1],
                paths,
                all_model_checkpoint_timestamps=times,
                last_preserved_timestamp=min(times) - 1,  # It removes those that are younger.
            )
        self._manager = tf.train.CheckpointManager(
            tf.train.Checkpoint(network=network, optimizer=optimizer),
            str(place),
            max_to_keep=2,
            checkpoint_name=checkpoints.NAME,
        )
        self._drawn = time.monotonic()

    def on_epoch_begin(self, epoch, logs=None):
        self._begun = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        row = {
            "phase": self._number + 1,
            "epoch": epoch + 1,
            "seconds": round(time.monotonic() - self._begun, 3),
            **{key: float(value) for key, value in (logs or {}).items()},
        }
        earlier = [row["val_accuracy"] for row in self._rows if row["phase"] == self._number + 1]
        if not math.isfinite(row["val_loss"]):
            raise RunError(
                f"After epoch {epoch + 1} of phase {self._number + 1} the loss of the test images is "
                f"{row['val_loss']}: its last step broke the weights. Begin a new run with a lower learning rate "
                "(--set learning_rate=...)."
            )
        self._rows.append(row)
        with replacing(self._path / "last.h5") as unfinished:
            self._network.save_weights(unfinished, save_format="h5")
        if self._phase.is_best(row["val_accuracy"], earlier):
            with replacing(self._path / "best.h5") as unfinished:
                shutil.copyfile(self._path / "last.h5", unfinished)
        if self._chief:
            folders.write_metrics(self._rows, self._folder)
            # Drawing takes as long as a short epoch.
            if time.monotonic() - self._drawn > _CURVES_EVERY_SECONDS:
                self._draw()
        self._place.mkdir(exist_ok=True)
        checkpoints.write_state(checkpoints.prefix(self._place, epoch + 1), self._config.values(), self._rows)
        self._manager.save(checkpoint_number=epoch + 1)
        checkpoints.remove_states(self._place)
        # All workers read what the chief has written: none may go on before.
        workers.gather(self._strategy, epoch)

    def on_train_end(self, logs=None):
        if self._chief:
            self._draw()
        if self._temporary:
            self._temporary.cleanup()

    def _draw(self):
        plots.write(plots.history(self._rows), self._folder / "curves.png")
        self._drawn = time.monotonic()


class _Ending(tf.keras.callbacks.Callback):
    """Records that a callback has ended the phase before its last epoch. It has to come after all others."""

    def __init__(self, path: Path, chief: bool, strategy: tf.distribute.Strategy, report: Callable[[str], None]):
        super().__init__()
        self._path, self._chief, self._strategy, self._report = path, chief, strategy, report
        # Of a run that goes on from an epoch before: it ends where it did.
        self._recorded = folders.stopped_at(path)

    def on_epoch_end(self, epoch, logs=None):
        ends = self.model.stop_training or epoch + 1 == self._recorded
        # A worker that went on would wait for the others.
        if not any(workers.gather(self._strategy, int(ends))):
            return
        self.model.stop_training = True
        if epoch + 1 < self.params["epochs"]:
            if self._chief:
                folders.write_stopped(self._path, epoch + 1)
            self._report(f"{self._path.name}: ended by a callback after epoch {epoch + 1} of {self.params['epochs']}.")
