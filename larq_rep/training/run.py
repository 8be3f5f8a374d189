"""A run: a training by a recipe, in a folder that always holds all that is needed to go on with it."""

import contextlib
import csv
import dataclasses
import fcntl
import json
import os
import platform
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import larq_rep
from larq_rep import plots
from larq_rep.losses import CrossEntropy, DistributionalLoss
from larq_rep.training import datasets, optimizers, recipes
from larq_rep.training.phases import transfer, with_real_weights, with_synchronized_norms
from larq_rep.training.recipes import Phase, Recipe
from larq_rep.training.schedules import LearningRate, schedules_for
from larq_rep.training.statistics import BinaryStatistics
from larq_rep.training.trainee import Trainee, first_not_finite, is_not_finite

STRATEGIES = ("mirrored", "multiworker")
_PROBE_IMAGES = 32
_CURVES_EVERY_SECONDS = 30.0


class RunError(ValueError):
    """A run cannot begin or go on. The message says what, where and what to do."""


class WorkerLost(RuntimeError):
    """Another worker has ended or cannot be reached. In a new process the run can go on as soon as it is back."""


@dataclass(frozen=True)
class Config:
    """All that a run depends on, as `config.json` in its folder holds it.

    # Attributes
        network: What is trained, in words or the name of a network of the zoo.
        arguments: With which keywords it was built.
        num_classes, channels: Of the data; `train` fills them in.
        data: Name of a data set or path of a folder, see `larq_rep.training.datasets.load`.
        data_dir: Where `tensorflow_datasets` finds it.
        recipe: How it is trained.
        seed: Seed of everything random.
        teacher: Where the teacher came from.
        strategy: `None`, `"mirrored"` or `"multiworker"`, see `tf.distribute`.
        sync_batch_norm: Whether batch normalisations take their statistics over all replicas.
        deterministic: Whether TensorFlow is told to compute the same values every time.
        versions: Of what the run was begun with.
    """

    network: str
    data: str
    recipe: Recipe
    arguments: dict[str, Any] = field(default_factory=dict)
    num_classes: int | None = None
    channels: int | None = None
    data_dir: str | None = None
    seed: int = 0
    teacher: str | None = None
    strategy: str | None = None
    sync_batch_norm: bool = False
    deterministic: bool = True
    versions: dict[str, str] = field(default_factory=lambda: versions())

    def write(self, folder: Path) -> None:
        values = {**dataclasses.asdict(self), "recipe": recipes.to_json(self.recipe)}
        with _replacing(folder / "config.json") as unfinished:
            unfinished.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> "Config":
        """The configuration of a run.

        # Raises
            RunError: If the folder is no run, or its configuration cannot be read.
        """
        path = Path(folder) / "config.json"
        if not path.is_file():
            raise RunError(f"{folder} is no run: there is no config.json in it. `lqr train` makes one.")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**values, "recipe": recipes.from_json(values["recipe"])})
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path} cannot be read: {error!r}. Restore it, or begin a new run.") from error


def versions() -> dict[str, str]:
    """Versions of what a training depends on, and the machine."""
    import larq
    import tf_keras

    return {
        "larq_rep": larq_rep.__version__,
        "larq": getattr(larq, "__version__", "0.14"),
        "tensorflow": tf.__version__,
        "tf_keras": tf_keras.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
    }


def phase_folder(folder: str | os.PathLike[str], recipe: Recipe, number: int) -> Path:
    """Where the weights of a phase are; the first has number 0."""
    return Path(folder) / f"{number + 1}-{recipe.phases[number].weights}"


def read_metrics(folder: str | os.PathLike[str]) -> list[dict[str, float]]:
    """The rows of `metrics.csv`, one an epoch; empty before the first one."""
    path = Path(folder) / "metrics.csv"
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        rows = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    return [{**row, "phase": int(row["phase"]), "epoch": int(row["epoch"])} for row in rows]


def train(
    build: Callable[[Config], tf.keras.Model],
    folder: str | os.PathLike[str],
    config: Config,
    *,
    teacher: Callable[[], tf.keras.Model] | None = None,
    resume: bool = False,
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
        build: Makes the network with its initial values, of as many classes as the configuration it is given
            says. Called once a phase, after the seed is set.
        folder: Where the run is kept: a new or empty folder, or with `resume` that of a run.
        config: What the run depends on.
        teacher: Makes the model whose logits are learned in the phases that have a `teacher`.
        resume: Whether to go on with the run in the folder. Several workers also do so if it is a run of the same
            configuration: one that was lost is started again as it was at first.
        callbacks: More callbacks for `fit`.
        report: Is told what a person should know, a line at a time.

    # Returns
        The network of the last phase with the weights of its last epoch.

    # Raises
        RunError: If the folder is in use or cannot be written to, there is not enough space for the run, a teacher
            is missing, or the loss becomes infinite or no number.
        ValueError, FileNotFoundError: If the network does not suit the recipe, or the data are not there.
        WorkerLost: If one of several workers is lost. TensorFlow may also abort the process.
    """
    folder, recipe = Path(folder), config.recipe
    for phase in recipe.phases:
        if phase.teacher and teacher is None:
            raise RunError(
                f"Recipe {recipe.name} learns the logits of a teacher, as published of {phase.teacher}. Give a Keras "
                "model as teacher (--teacher FILE), or learn the labels (--set teacher=none)."
            )
    strategy, chief = _strategy(config.strategy), is_chief(config.strategy)
    resume = resume or (config.strategy == "multiworker" and chief and _holds(folder, config))
    with _noticing_lost_workers(config.strategy), _reserved(folder, resume) if chief else contextlib.nullcontext():
        if config.deterministic:
            tf.config.experimental.enable_op_determinism()
        source = datasets.load(config.data, config.data_dir)
        if not resume or config.num_classes is None:
            config = dataclasses.replace(config, num_classes=source.num_classes, channels=source.channels)
        if chief and not resume:
            config.write(folder)
        _check_workers(strategy, folder, config)
        previous, begun = None, 0
        for number, phase in enumerate(recipe.phases):
            tf.keras.utils.set_random_seed(config.seed)
            with strategy.scope(), _random_generators():
                network = _network(build, phase, config)
                if previous is not None:
                    transfer(previous, network, phase.left_behind)
                taught = teacher() if phase.teacher and teacher else None
            _fit(network, taught, number, begun, folder, config, source, strategy, callbacks, report)
            begun += phase.epochs
            if number + 1 < len(recipe.phases):
                start = recipe.phases[number + 1].start
                network.load_weights(phase_folder(folder, recipe, number) / f"{start}.h5")
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
    network.load_weights(path)
    return network


def _network(build: Callable[[Config], tf.keras.Model], phase: Phase, config: Config) -> tf.keras.Model:
    # Layers without a name of their own are numbered; each phase begins anew.
    tf.keras.backend.reset_uids()
    network = build(config)
    if phase.weights == "real":
        network = with_real_weights(network, phase.initializer)
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
    if phase.optimizer in ("adam", "radam"):
        return (optimizers.Adam if phase.optimizer == "adam" else optimizers.RAdam)(phase.learning_rate, **penalty)
    raise RunError(f"optimizer={phase.optimizer}: expected sgd, adam or radam.")


def _fit(network, teacher, number, begun, folder, config, source, strategy, callbacks, report) -> None:
    """Trains a phase, which `begun` epochs precede, from its last checkpoint on if there is one."""
    recipe, phase = config.recipe, config.recipe.phases[number]
    size, path, chief = network.input_shape[1:3], phase_folder(folder, recipe, number), is_chief(config.strategy)
    with strategy.scope():
        kind = Trainee if strategy.num_replicas_in_sync == 1 else _ReplicatedTrainee
        trainee = kind(network.inputs, network.outputs, teacher, name=network.name)
        loss = DistributionalLoss(phase.temperature) if teacher else CrossEntropy(phase.label_smoothing)
        optimizer = _optimizer(phase, network)
        trainee.compile(
            optimizer, loss, metrics=["accuracy", tf.keras.metrics.SparseTopKCategoricalAccuracy(5, name="top5")]
        )
        optimizer.build(network.trainable_variables)
        checkpoint = tf.train.Checkpoint(network=network, optimizer=optimizer)
        epoch = 0
        if latest := tf.train.latest_checkpoint(path / "checkpoints"):
            checkpoint.restore(latest).assert_existing_objects_matched()
            epoch = int(latest.rpartition("-")[2])
    if len(set(epochs := _gather(strategy, epoch))) > 1:
        raise RunError(
            f"The workers found different epochs in {path}: {', '.join(map(str, epochs))}. Give all of them the same "
            "folder, on a disk that they share."
        )
    if epoch == phase.epochs:
        return
    _check_shares(source.train_size, phase.batch_size, strategy.num_replicas_in_sync)
    if chief and not epoch:
        _check_space(folder, network, optimizer)
    if epoch:
        report(f"Phase {number + 1} of {len(recipe.phases)}: going on after epoch {epoch} of {phase.epochs}.")

    def batches(**arguments) -> tf.data.Dataset:
        return datasets.batches(source, recipe.augmentation, size, phase.batch_size, seed=config.seed, **arguments)

    def training_batches(epoch: int) -> tf.data.Dataset:
        return batches(training=True, first_epoch=begun + epoch, epochs=begun + phase.epochs)

    steps = datasets.steps_per_epoch(source, phase.batch_size)
    images, validation = training_batches(epoch), batches(training=False)
    probe = next(iter(validation.unbatch().batch(_PROBE_IMAGES)))[0]
    board = folder / "tensorboard" / path.name if chief else None
    always = [
        LearningRate(phase.schedule, phase.learning_rate),
        *schedules_for(network),
        datasets.PipelineMonitor(images, phase.batch_size, report),
        BinaryStatistics(probe, board),
        *([tf.keras.callbacks.TensorBoard(board, write_graph=False, profile_batch=0)] if board else []),
        _Draws(_generators(network), config.seed, begun),
        _Keeper(network, checkpoint, number, folder, recipe, chief, epoch, strategy),
    ]
    try:
        trainee.fit(
            images,
            initial_epoch=epoch,
            epochs=phase.epochs,
            steps_per_epoch=steps,
            validation_data=validation,
            callbacks=[*always, *callbacks],
            verbose=0,
        )
    except tf.errors.InvalidArgumentError as error:
        if not is_not_finite(error):
            raise
        at, step = divmod(int(optimizer.iterations), steps)
        batch = next(iter(training_batches(at).skip(step)))[0]
        before = f"Weights of the epochs before are in {path}. " if at else ""
        raise RunError(
            f"The loss is not finite in phase {number + 1} ({phase.weights} weights), epoch {at + 1} of "
            f"{phase.epochs}, step {step + 1} of {steps}. The first that is not finite: "
            f"{first_not_finite(network, batch)}. {before}Begin a new run with a lower learning rate (--set "
            f"learning_rate={phase.learning_rate / 10:g})."
        ) from error


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
        self, network, checkpoint, number: int, folder: Path, recipe: Recipe, chief: bool, epoch: int, strategy
    ):
        super().__init__()
        self._strategy = strategy
        self._network = network
        self._number = number
        self._chief = chief
        self._folder = folder
        # Variables that are averaged over workers have to be read by all of them: the others write, too.
        self._temporary = None if chief else tempfile.TemporaryDirectory()
        self._path = phase_folder(self._temporary.name if self._temporary else folder, recipe, number)
        self._path.mkdir(parents=True, exist_ok=True)
        self._manager = tf.train.CheckpointManager(
            checkpoint, str(self._path / "checkpoints"), max_to_keep=2, checkpoint_name="epoch"
        )
        # A process that was killed may have written the metrics of an epoch whose checkpoint is missing.
        self._rows = [row for row in read_metrics(folder) if (row["phase"], row["epoch"]) <= (number + 1, epoch)]
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
        self._rows.append(row)
        with _replacing(self._path / "last.h5") as unfinished:
            self._network.save_weights(unfinished, save_format="h5")
        if not earlier or row["val_accuracy"] > max(earlier):
            with _replacing(self._path / "best.h5") as unfinished:
                shutil.copyfile(self._path / "last.h5", unfinished)
        if self._chief:
            write_metrics(self._rows, self._folder)
            # Drawing takes as long as a short epoch.
            if epoch + 1 == self.params["epochs"] or time.monotonic() - self._drawn > _CURVES_EVERY_SECONDS:
                plots.write(plots.history(self._rows), self._folder / "curves.png")
                self._drawn = time.monotonic()
        self._manager.save(checkpoint_number=epoch + 1)
        # All workers read what the chief has written: none may go on before.
        _gather(self._strategy, epoch)

    def on_train_end(self, logs=None):
        if self._temporary:
            self._temporary.cleanup()


def write_metrics(rows: Sequence[dict[str, float]], folder: Path) -> None:
    """Writes `metrics.csv`."""
    with (
        _replacing(folder / "metrics.csv") as unfinished,
        open(unfinished, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, dict.fromkeys(key for row in rows for key in row))
        writer.writeheader()
        writer.writerows(rows)


class _ReplicatedTrainee(Trainee):
    """A trainee of several replicas, whose loss and metrics are those of the whole batch in each of them."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # Metrics are summed up over the replicas when they are read. By default Keras then adds their results, too.
        self.distribute_reduction_method = "first"

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        loss = super().compute_loss(x, y, y_pred, sample_weight)
        replica = tf.distribute.get_replica_context()
        images, broken = tf.cast(tf.shape(y_pred)[0], loss.dtype), tf.cast(~tf.math.is_finite(loss), loss.dtype)
        all_images, broken = tf.unstack(replica.all_reduce("SUM", tf.stack([images, broken])))
        # The mean of a replica has the weight of its images: the last batch of an epoch is not shared out evenly.
        loss *= replica.num_replicas_in_sync * images / all_images
        # All replicas stop in the same step: one that went on would wait for the gradients of the others.
        return tf.where(broken > 0, np.nan, loss)


def _strategy(name: str | None) -> tf.distribute.Strategy:
    if name is None:
        return tf.distribute.get_strategy()
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    if name == "multiworker":
        _check_tf_config()
        with _noticing_lost_workers(name):
            return tf.distribute.MultiWorkerMirroredStrategy()
    raise RunError(f"strategy {name!r}: expected {' or '.join(STRATEGIES)}.")


def _check_tf_config() -> None:
    """Refuses what TensorFlow would ignore, or wait for for an hour."""
    found = os.environ.get("TF_CONFIG")
    try:
        values = json.loads(found or "")
        kind, number = values["task"]["type"], int(values["task"]["index"])
        if kind in ("chief", "worker") and 0 <= number < len(values["cluster"][kind]):
            return
    except (ValueError, KeyError, TypeError):
        pass
    raise RunError(
        "strategy multiworker: the environment variable TF_CONFIG "
        + ("is not set" if found is None else f"does not say which worker of which this is: {found}")
        + '. Each worker needs it, for example {"cluster": {"worker": ["host1:12345", "host2:12345"]}, "task": '
        '{"type": "worker", "index": 0}}; see https://www.tensorflow.org/guide/distributed_training.'
    )


def is_chief(strategy: str | None) -> bool:
    """Whether this process is the one of a run that writes."""
    if strategy != "multiworker":
        return True
    _check_tf_config()
    values = json.loads(os.environ["TF_CONFIG"])
    chief = "chief" if values["cluster"].get("chief") else "worker"
    return (values["task"]["type"], int(values["task"]["index"])) == (chief, 0)


# What TensorFlow raises if a worker disappears or comes back, or while one cannot be reached.
_LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
    tf.errors.UnknownError,
)


@contextlib.contextmanager
def _noticing_lost_workers(strategy: str | None) -> Iterator[None]:
    try:
        yield
    except _LOST as error:
        if strategy != "multiworker":
            raise
        said = error.message.strip().splitlines() or [type(error).__name__]
        raise WorkerLost(f"Another worker was lost, or cannot be reached: {said[-1]}") from error


def _gather(strategy: tf.distribute.Strategy, number: int) -> list[int]:
    """The number that each replica has. None gets them before all have come so far."""

    def gathered():
        return tf.distribute.get_replica_context().all_gather(tf.constant([number], tf.int64), axis=0)

    if strategy.num_replicas_in_sync == 1:
        return [number]
    return strategy.experimental_local_results(strategy.run(gathered))[0].numpy().tolist()


def _check_workers(strategy: tf.distribute.Strategy, folder: Path, config: Config) -> None:
    """Compares what would otherwise lead to different weights, or to workers that wait for each other for ever."""
    if len(set(_gather(strategy, zlib.crc32(_in_common(config).encode())))) > 1:
        raise RunError(
            "The workers were not started alike: they have different networks, recipes or options. Start all of them "
            "with the same command; only TF_CONFIG differs."
        )
    if not all(_gather(strategy, (folder / "config.json").is_file())):
        raise RunError(
            f"{folder} is not the same folder for all workers: the run that the chief has begun in it is not there. "
            "Give a folder on a disk that they share."
        )


def _check_shares(images: int, batch_size: int, replicas: int) -> None:
    last = images % batch_size or batch_size
    if min(last, batch_size) < replicas:
        raise RunError(
            f"Each of the {replicas} devices needs an image of every batch, but of {images} images in batches of "
            f"{batch_size} {last} are left for the last batch. Choose another batch size (--set "
            f"batch_size={max(batch_size, replicas) + 1})."
        )


def _in_common(config: Config) -> str:
    """What is the same for all workers of a run, and whenever they are started; paths may differ."""
    values = dataclasses.asdict(dataclasses.replace(config, data_dir=None, teacher=None, versions={}))
    return json.dumps({**values, "recipe": recipes.to_json(config.recipe)}, sort_keys=True)


def _holds(folder: Path, config: Config) -> bool:
    """Whether the folder holds a run of this configuration."""
    if not (folder / "config.json").is_file():
        return False
    begun = Config.read(folder)
    config = dataclasses.replace(config, num_classes=begun.num_classes, channels=begun.channels)
    return _in_common(config) == _in_common(begun)


@contextlib.contextmanager
def _reserved(folder: Path, resume: bool) -> Iterator[None]:
    """Prepares the folder, and keeps other processes from using it. A run that cannot begin leaves nothing."""
    # A process that was killed may have left nothing but its lock.
    if not resume and folder.exists() and (not folder.is_dir() or {path.name for path in folder.iterdir()} - {".lock"}):
        raise RunError(
            f"{folder} exists already. `lqr resume {folder}` goes on with a run; for a new one give another folder."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".lock", "w", encoding="utf-8")  # noqa: SIM115  (as long as the run)
    except OSError as error:
        raise RunError(f"{folder} cannot be written to: {error}. Give another folder.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(f"{folder} is in use by another process. Wait for it, or stop it.") from error
        try:
            yield
        except Exception:
            if not resume and not (folder / "metrics.csv").exists():
                shutil.rmtree(folder)
            raise


def _check_space(folder: Path, network: tf.keras.Model, optimizer: tf.keras.optimizers.Optimizer) -> None:
    def size(variables):
        return sum(variable.shape.num_elements() * variable.dtype.size for variable in variables)

    # Two checkpoints and the next; weights of the last and best epoch, and the next; curves and metrics.
    needed = 3 * size([*network.variables, *optimizer.variables]) + 3 * size(network.variables) + 5e6
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise RunError(
            f"{folder}: a run of this network needs {needed / 1e6:.0f} MB, but only {free / 1e6:.0f} MB are free. Make "
            "room, or give a folder on another disk."
        )


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    unfinished = path.with_name(f".{path.stem}.unfinished{path.suffix}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
