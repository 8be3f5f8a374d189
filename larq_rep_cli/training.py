"""Runs a training for `lqr train` and `lqr resume`, shows its progress and reports how it ended."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from larq_rep_cli import models, runs, supervision, terminal
from larq_rep_cli.errors import Terminated, refusing

if TYPE_CHECKING:
    import tensorflow as tf
    from rich.progress import Progress

    from larq_rep.training import Config, Recipe


def run(folder: Path, config: Config, wait: float | None, *, resume: bool = False, force: bool = False) -> None:
    from larq_rep import training
    from larq_rep.training.mending import best_epoch

    start, teacher = time.perf_counter(), config.teacher
    with terminal.progress() as bars, refusing(ValueError, FileNotFoundError, OSError, ImportError):
        callback = _progress(bars, config.recipe)
        try:
            training.train(
                runs.network,
                folder,
                config,
                teacher=(lambda: models.load_model(teacher)) if teacher else None,
                resume=resume,
                force=force,
                wait=wait,
                callbacks=[callback],
                report=terminal.note,
            )
        except KeyboardInterrupt:
            raise runs.interrupted(folder) from None
        except Terminated:
            runs.interrupted(folder, "Ended by SIGTERM").show()
            raise
        except training.WorkerMissing as error:
            terminal.note(str(error))
            raise SystemExit(1) from None
        except training.WorkerLost as error:
            terminal.note(str(error))
            raise SystemExit(supervision.WORKER_LOST) from None
    rows = [row for row in training.read_metrics(folder) if row["phase"] == len(config.recipe.phases)]
    best = rows[best_epoch(config.recipe.phases[-1], [row["val_accuracy"] for row in rows]) - 1]
    terminal.console().print(
        f"{folder}: accuracy {rows[-1]['val_accuracy']:.2%} on the test images, best {best['val_accuracy']:.2%} in "
        f"epoch {best['epoch']:.0f} of {len(rows)}, {time.perf_counter() - start:.0f} s"
    )


def _progress(bars: Progress, recipe: Recipe) -> tf.keras.callbacks.Callback:
    """Bars of epochs and steps on a terminal; elsewhere a line for each epoch."""
    import tensorflow as tf

    class Bars(tf.keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            # Otherwise Keras waits for the device in each step, to pass numbers instead of tensors.
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
                terminal.note(f"epoch {epoch + 1} of {self.params['epochs']}: {said}")

        def on_train_end(self, logs=None):
            bars.remove_task(self.epochs)
            bars.remove_task(self.steps)

    return Bars()
