"""Training on several devices and in several processes."""

import contextlib
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from larq_rep.training.folder import Config, RunError, in_common
from larq_rep.training.trainee import Trainee

STRATEGIES = ("mirrored", "multiworker")


class WorkerLost(RuntimeError):
    """Another worker has ended or cannot be reached. In a new process the run can go on as soon as it is back."""


class ReplicatedTrainee(Trainee):
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


def make_strategy(name: str | None) -> tf.distribute.Strategy:
    if name is None:
        return tf.distribute.get_strategy()
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    if name == "multiworker":
        _check_tf_config()
        with noticing_lost_workers(name):
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
def noticing_lost_workers(strategy: str | None) -> Iterator[None]:
    try:
        yield
    except _LOST as error:
        if strategy != "multiworker":
            raise
        lines = [line for line in error.message.splitlines() if "abort" in line] or error.message.splitlines()[:1]
        raise WorkerLost("\n".join(["Another worker was lost, or cannot be reached.", *lines[:1]])) from error


def gather(strategy: tf.distribute.Strategy, number: int) -> list[int]:
    """The number that each replica has. None gets them before all have come so far."""

    def gathered():
        return tf.distribute.get_replica_context().all_gather(tf.constant([number], tf.int64), axis=0)

    if strategy.num_replicas_in_sync == 1:
        return [number]
    return strategy.experimental_local_results(strategy.run(gathered))[0].numpy().tolist()


def check_alike(strategy: tf.distribute.Strategy, config: Config) -> None:
    """Otherwise they would have different weights, or wait for each other for ever."""
    if len(set(gather(strategy, zlib.crc32(in_common(config).encode())))) > 1:
        raise RunError(
            "The workers were not started alike: they have different networks, recipes or options. Start all of them "
            "with the same command; only TF_CONFIG differs."
        )


def check_folder_shared(strategy: tf.distribute.Strategy, folder: Path) -> None:
    gather(strategy, 0)  # Until the chief has written.
    if not all(gather(strategy, (folder / "config.json").is_file())):
        raise RunError(
            f"{folder} is not the same folder for all workers: the run that the chief has begun in it is not there. "
            "Give a folder on a disk that they share."
        )


def check_shares(images: int, batch_size: int, replicas: int) -> None:
    last = images % batch_size or batch_size
    if min(last, batch_size) < replicas:
        raise RunError(
            f"Each of the {replicas} devices needs an image of every batch, but of {images} images in batches of "
            f"{batch_size} {last} are left for the last batch. Choose another batch size (--set "
            f"batch_size={max(batch_size, replicas) + 1})."
        )
