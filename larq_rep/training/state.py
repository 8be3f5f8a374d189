"""Holds the state of a run while it trains, and of its current phase."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tensorflow as tf

from larq_rep.training import checkpoints, workers
from larq_rep.training import folder as folders
from larq_rep.training.datasets import Source
from larq_rep.training.folder import Config, phase_folder
from larq_rep.training.recipe import Phase, Recipe


@dataclass(frozen=True)
class Run:
    """The values that all phases of a run share.

    # Attributes
        folder: The folder of the run.
        config: The configuration of the run.
        source: The data.
        strategy: The devices it trains on.
        callbacks: The user's callbacks.
        report: Called with each line that a person should read.
    """

    folder: Path
    config: Config
    source: Source
    strategy: tf.distribute.Strategy
    callbacks: Sequence[tf.keras.callbacks.Callback]
    report: Callable[[str], None]

    @property
    def recipe(self) -> Recipe:
        return self.config.recipe

    @property
    def chief(self) -> bool:
        """Returns whether this process is the one that writes."""
        return workers.is_chief(self.config.strategy)


@dataclass
class State:
    """The progress of a phase.

    # Attributes
        number: Number of the phase; the first has number 0.
        network: The network with the weights of `epoch`.
        optimizer: The optimizer with the values of `epoch`.
        epoch: The last epoch that has a whole checkpoint; 0 if none has.
        is_older: Whether a newer checkpoint is damaged.
        rows: The metrics of the run up to `epoch`.
    """

    run: Run
    number: int
    network: tf.keras.Model
    optimizer: tf.keras.optimizers.Optimizer
    epoch: int = 0
    is_older: bool = False
    rows: list[dict[str, float]] = field(default_factory=list)

    @property
    def phase(self) -> Phase:
        return self.run.recipe.phases[self.number]

    @property
    def path(self) -> Path:
        """The folder of the phase."""
        return phase_folder(self.run.folder, self.run.recipe, self.number)

    @property
    def begun(self) -> int:
        """The number of epochs in the phases before."""
        return sum(phase.epochs for phase in self.run.recipe.phases[: self.number])

    @property
    def is_over(self) -> bool:
        """Returns whether the last epoch is done, or a callback has ended the phase."""
        return self.epoch in (self.phase.epochs, folders.stopped_at(self.path))

    def accuracies(self) -> list[float]:
        """The accuracies of this phase's epochs so far, on the test images."""
        return [row["val_accuracy"] for row in self.rows if row["phase"] == self.number + 1]

    def checkpoint(self) -> tf.train.Checkpoint:
        return tf.train.Checkpoint(network=self.network, optimizer=self.optimizer)

    def restore(self, epoch: int) -> None:
        """Gives network and optimizer the values of the checkpoint of an epoch."""
        kept = checkpoints.prefix(self.path / "checkpoints", epoch)
        self.checkpoint().restore(kept).assert_existing_objects_matched()
