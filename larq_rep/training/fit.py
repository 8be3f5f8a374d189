"""Trains one phase of a run by its recipe, starting from its last checkpoint."""

import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import tensorflow as tf

from larq_rep._keras import random_generators
from larq_rep.losses import CrossEntropy, DistributionalLoss, SquaredHinge, distribution_loss
from larq_rep.signs import signs
from larq_rep.training import datasets, mending, optimizers, workers
from larq_rep.training import folder as folders
from larq_rep.training.folder import RunError, read_metrics
from larq_rep.training.keeping import Ending, Keeper
from larq_rep.training.recipe import Phase
from larq_rep.training.schedules import Gamma, LearningRate, Linear, schedules_for
from larq_rep.training.state import Run, State
from larq_rep.training.statistics import BinaryStatistics
from larq_rep.training.trainee import Trainee, explained, first_not_finite, is_not_finite, logits_of

_PROBE_IMAGES = 32


def fit(run: Run, number: int, network: tf.keras.Model, teacher: tf.keras.Model | None) -> None:
    """Trains a phase, starting from its last checkpoint if there is one.

    # Arguments
        number: Number of the phase; the first has number 0.
        network: The network at the start of the phase, with the weights of the phase before.
        teacher: The model whose logits it learns.
    """
    trainee, state = _restored(run, number, network, teacher)
    if not _is_needed(state):
        return
    state.rows = mending.known_rows(state)
    if state.epoch:
        mending.mend_weights(state)
    if state.is_over:
        return
    if run.chief:
        folders.check_space(run.folder, network, state.optimizer, len(run.recipe.phases) - number)
    if state.epoch:
        phases, epochs = len(run.recipe.phases), state.phase.epochs
        run.report(f"Phase {number + 1} of {phases}: going on after epoch {state.epoch} of {epochs}.")
    _train(trainee, state)


def _restored(run: Run, number: int, network: tf.keras.Model, teacher: tf.keras.Model | None) -> tuple[Trainee, State]:
    phase = run.recipe.phases[number]
    with run.strategy.scope():
        kind = Trainee if run.strategy.num_replicas_in_sync == 1 else workers.ReplicatedTrainee
        trainee = kind(network.inputs, logits_of(network), teacher, name=network.name)
        optimizer = _optimizer(phase, network)
        top5 = tf.keras.metrics.SparseTopKCategoricalAccuracy(5, name="top5")
        trainee.compile(optimizer, _loss(phase, trainee, teacher), weighted_metrics=["accuracy", top5])
        optimizer.build(network.trainable_variables)
        state = State(run, number, network, optimizer)
        state.epoch, state.is_older = mending.newest_whole(state.path, run.report)
        if state.epoch:
            state.restore(state.epoch)
    if len(set(epochs := workers.gather(run.strategy, state.epoch))) > 1:
        raise RunError(
            f"The workers found different epochs in {state.path}: {', '.join(map(str, epochs))}. Give all of them the "
            "same folder, on a disk that they share."
        )
    return trainee, state


def _loss(phase: Phase, trainee: Trainee, teacher: tf.keras.Model | None) -> tf.keras.losses.Loss:
    if teacher:
        return DistributionalLoss(phase.temperature)
    if phase.loss == "squared_hinge":
        return SquaredHinge()
    if phase.loss == "distribution":
        found = signs(trainee)
        if not found:
            raise ValueError(f"The distribution loss needs binary activations; '{trainee.name}' has none.")
        trainee.add_loss(sum(distribution_loss(sign.inputs) for sign in found) / len(found))
    return CrossEntropy(phase.label_smoothing)


def _optimizer(phase: Phase, network: tf.keras.Model) -> tf.keras.optimizers.Optimizer:
    if phase.optimizer == "bop":
        return optimizers.BopAndAdam(phase.learning_rate, phase.gamma[0], phase.threshold)
    penalty: dict[str, Any] = {
        "l2": phase.weight_decay,
        "decayed": optimizers.decayed_weights(network, phase.decayed),
    }
    if phase.optimizer == "sgd":
        return optimizers.SGD(phase.learning_rate, momentum=phase.momentum, nesterov=phase.nesterov, **penalty)
    return (optimizers.Adam if phase.optimizer == "adam" else optimizers.RAdam)(phase.learning_rate, **penalty)


def _is_needed(state: State) -> bool:
    """Returns whether the phase must train or has files to mend.

    # Raises
        RunError: If metrics were written after a checkpoint that is missing.
    """
    run, number = state.run, state.number + 1
    try:
        written = [(row["phase"], row["epoch"]) for row in read_metrics(run.folder)]
    except RunError:
        written = []  # The checkpoint has them as well.
    # If a later phase has begun, this one has ended, perhaps by a callback.
    if folders.a_later_has_begun(run.folder, run.recipe, state.number) and (
        state.is_older or all(row <= (number, state.epoch) for row in written if row[0] == number)
    ):
        return False
    # Metrics are written before the checkpoint, so a killed process may have left one extra row.
    if not state.is_over and not state.is_older and any(row > (number, state.epoch + 1) for row in written):
        raise RunError(
            f"{state.path}: a checkpoint is missing. The last one is of epoch {state.epoch}, but metrics.csv has later "
            "ones. Put it back, or begin a new run."
        )
    return True


def _train(trainee: Trainee, state: State) -> None:
    run, phase, strategy = state.run, state.phase, state.run.strategy
    batches = partial(
        datasets.batches,
        run.source,
        run.recipe.augmentation,
        state.network.input_shape[1:3],
        phase.batch_size,
        seed=run.config.seed,
    )

    def training_batches(epoch: int) -> tf.data.Dataset:
        first, last = state.begun + epoch, state.begun + phase.epochs
        return batches(training=True, drop_last=phase.drop_last, first_epoch=first, epochs=last)

    steps = datasets.steps_per_epoch(run.source, phase.batch_size, phase.drop_last)
    images, validation = training_batches(state.epoch), batches(training=False)
    board = run.folder / "tensorboard" / state.path.name if run.chief else None
    boards = [tf.keras.callbacks.TensorBoard(board, write_graph=False, profile_batch=0)] if board else []
    probe = next(iter(validation.unbatch().batch(_PROBE_IMAGES)))[0]
    callbacks = [
        LearningRate(phase.schedule, phase.learning_rate),
        *([Gamma(Linear(ahead=False, final=phase.gamma[1]), phase.gamma[0])] if phase.optimizer == "bop" else []),
        *schedules_for(state.network),
        datasets.PipelineMonitor(images, phase.batch_size, run.report),
        BinaryStatistics(probe, board),
        *boards,
        _Draws(random_generators(state.network), run.config.seed, state.begun),
        Keeper(state),
        *run.callbacks,
        Ending(state),
    ]
    if strategy.num_replicas_in_sync > 1:
        # Iterators of several replicas are not restarted, so the test images repeat.
        images, validation = workers.deal(images, strategy), workers.deal(validation.repeat(), strategy)
    try:
        trainee.fit(
            images,
            initial_epoch=state.epoch,
            epochs=phase.epochs,
            steps_per_epoch=steps,
            validation_data=validation,
            validation_steps=-(-run.source.test_size // phase.batch_size),
            callbacks=callbacks,
            verbose=0,
        )
    except tf.errors.OpError as error:
        _explain(error, state, steps, training_batches)
    except BaseException:
        # An interrupted process may not get to write what they still hold.
        for callback in boards:
            callback.on_train_end()
        raise


def _explain(
    error: tf.errors.OpError, state: State, steps: int, training_batches: Callable[[int], tf.data.Dataset]
) -> NoReturn:
    run, phase = state.run, state.phase
    if not is_not_finite(error):
        if run.config.strategy == "multiworker" and isinstance(error, workers.LOST):
            raise error
        raise RunError(f"{explained(error)} `lqr resume {run.folder}` goes on after the last whole epoch.") from error
    at, step = divmod(int(state.optimizer.iterations.numpy()), steps)
    batch = next(iter(training_batches(at).skip(step)))[0]
    before = f"Weights of the epochs before are in {state.path}. " if at else ""
    raise RunError(
        f"The loss is not finite in phase {state.number + 1} ({phase.weights} weights), epoch {at + 1} of "
        f"{phase.epochs}, step {step + 1} of {steps}. The first value that is not finite: "
        f"{first_not_finite(state.network, batch)}. {before}Begin a new run with a lower learning rate (--set "
        f"learning_rate={phase.learning_rate / 10:g})."
    ) from error


class _Draws(tf.keras.callbacks.Callback):
    """Reseeds the random generators in each epoch. Replicas draw different numbers, each for its own images."""

    def __init__(self, generators: dict[str, tf.random.Generator], seed: int, begun: int):
        super().__init__()
        self._generators, self._seed, self._begun = generators, seed, begun

    def on_epoch_begin(self, epoch, logs=None):
        for name, generator in self._generators.items():
            generator.reset_from_seed(zlib.crc32(f"{self._seed} {self._begun + epoch} {name}".encode()))
