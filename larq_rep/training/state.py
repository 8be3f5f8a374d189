"""A run while it trains, and how far one of its phases has come."""

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
    """What all phases of a run share.

    # Attributes
        folder: Where it is kept.
        config: What it depends on.
        source: The data.
        strategy: On which devices it trains.
        callbacks: Those of the user.
        report: Is told what a person should know, a line at a time.
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
        """Whether this process is the one that writes."""
        return workers.is_chief(self.config.strategy)


@dataclass
class State:
    """How far a phase has come.

    # Attributes
        number: Of the phase; the first has number 0.
        network: With the weights of `epoch`.
        optimizer: Likewise.
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
        """The number of epochs of the phases before."""
        return sum(phase.epochs for phase in self.run.recipe.phases[: self.number])

    @property
    def is_over(self) -> bool:
        """Whether the last epoch is done, or a callback has ended the phase."""
        return self.epoch in (self.phase.epochs, folders.stopped_at(self.path))

    def accuracies(self) -> list[float]:
        """Those of the epochs of this phase so far, on the test images."""
        return [row["val_accuracy"] for row in self.rows if row["phase"] == self.number + 1]

    def checkpoint(self) -> tf.train.Checkpoint:
        return tf.train.Checkpoint(network=self.network, optimizer=self.optimizer)

    def restore(self, epoch: int) -> None:
        """Gives network and optimizer the values of the checkpoint of an epoch."""
        kept = checkpoints.prefix(self.path / "checkpoints", epoch)
        self.checkpoint().restore(kept).assert_existing_objects_matched()
