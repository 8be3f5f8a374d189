"""Writes the files of a run after each epoch."""

import math
import os
import shutil
import tempfile
import time

import tensorflow as tf

from larq_rep import plots
from larq_rep.files import replacing
from larq_rep.training import checkpoints, workers
from larq_rep.training import folder as folders
from larq_rep.training.folder import RunError, phase_folder
from larq_rep.training.state import State

_CURVES_EVERY_SECONDS = 30.0


class Keeper(tf.keras.callbacks.Callback):
    """Writes metrics, weights and last a checkpoint after each epoch; only with its checkpoint does an epoch count."""

    def __init__(self, state: State):
        super().__init__()
        self._state, run = state, state.run
        # All workers have to read variables that are averaged over workers, so the others write as well.
        self._temporary = None if run.chief else tempfile.TemporaryDirectory()
        folder = self._temporary.name if self._temporary else run.folder
        self._path = phase_folder(folder, run.recipe, state.number)
        self._path.mkdir(parents=True, exist_ok=True)
        self._place = place = self._path / "checkpoints"
        # TensorFlow's list of checkpoints, which decides what it removes, may be lost or wrong: write it anew.
        older = [checkpoints.prefix(place, kept) for kept in reversed(checkpoints.epochs(place)) if kept <= state.epoch]
        if paths := [path for path in older if os.path.exists(f"{path}.index")]:
            times = [os.path.getmtime(f"{path}.index") for path in paths]
            tf.compat.v1.train.update_checkpoint_state(
                str(place),
                paths[-1],
                paths,
                all_model_checkpoint_timestamps=times,
                last_preserved_timestamp=min(times) - 1,  # TensorFlow removes only younger ones.
            )
        self._manager = tf.train.CheckpointManager(
            state.checkpoint(), str(place), max_to_keep=2, checkpoint_name=checkpoints.NAME
        )
        self._drawn = time.monotonic()

    def on_epoch_begin(self, epoch, logs=None):
        self._begun = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        state, run = self._state, self._state.run
        row = {
            "phase": state.number + 1,
            "epoch": epoch + 1,
            "seconds": round(time.monotonic() - self._begun, 3),
            **{key: float(value) for key, value in (logs or {}).items()},
        }
        earlier = state.accuracies()
        if not math.isfinite(row["val_loss"]):
            raise RunError(
                f"After epoch {epoch + 1} of phase {state.number + 1} the loss of the test images is "
                f"{row['val_loss']}: its last step broke the weights. Begin a new run with a lower learning rate "
                "(--set learning_rate=...)."
            )
        state.rows.append(row)
        with replacing(self._path / "last.h5") as unfinished:
            state.network.save_weights(unfinished, save_format="h5")
        if state.phase.is_best(row["val_accuracy"], earlier):
            with replacing(self._path / "best.h5") as unfinished:
                shutil.copyfile(self._path / "last.h5", unfinished)
        if run.chief:
            folders.write_metrics(state.rows, run.folder)
            # Drawing takes as long as a short epoch.
            if time.monotonic() - self._drawn > _CURVES_EVERY_SECONDS:
                self._draw()
        self._place.mkdir(exist_ok=True)
        checkpoints.write_state(checkpoints.prefix(self._place, epoch + 1), run.config.values(), state.rows)
        self._manager.save(checkpoint_number=epoch + 1)
        checkpoints.remove_states(self._place)
        # All workers read the chief's files, so none may go on before they are written.
        workers.gather(run.strategy, epoch)

    def on_train_end(self, logs=None):
        if self._state.run.chief:
            self._draw()
        if self._temporary:
            self._temporary.cleanup()

    def _draw(self):
        plots.write(plots.history(self._state.rows), self._state.run.folder / "curves.png")
        self._drawn = time.monotonic()


class Ending(tf.keras.callbacks.Callback):
    """Records that a callback ended the phase before its last epoch. It has to come after all other callbacks."""

    def __init__(self, state: State):
        super().__init__()
        self._run, self._path = state.run, state.path
        # A run that resumes from an earlier epoch ends where it ended before.
        self._recorded = folders.stopped_at(state.path)

    def on_epoch_end(self, epoch, logs=None):
        ends = self.model.stop_training or epoch + 1 == self._recorded
        # A worker that went on would wait for the others.
        if not any(workers.gather(self._run.strategy, int(ends))):
            return
        self.model.stop_training = True
        if epoch + 1 < self.params["epochs"]:
            if self._run.chief:
                folders.write_stopped(self._path, epoch + 1)
            self._run.report(
                f"{self._path.name}: ended by a callback after epoch {epoch + 1} of {self.params['epochs']}."
            )
