"""Trains on several devices and in several processes."""

import contextlib
import errno
import json
import os
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from larq_rep.layers.batch_norm import repeated
from larq_rep.training.datasets import Source
from larq_rep.training.folder import Config, RunError, in_common
from larq_rep.training.trainee import Trainee

STRATEGIES = ("mirrored", "multiworker")
# Seconds of waiting until the missing workers are first reported, and between the reports after that.
_FIRST_SAID, _SAID_EVERY = 5.0, 30.0
_NAMED = 8


class WorkerLost(RuntimeError):
    """Another worker has ended or cannot be reached. In a new process the run can go on as soon as it is back."""


class WorkerMissing(WorkerLost):
    """Another worker did not come in time."""


class ReplicatedTrainee(Trainee):
    """A trainee on several replicas. On each of them, loss and metrics are those of the whole batch.

    The image weights that `deal` gives are for the metrics, and say how often each image is present. In the loss
    all images of a batch weigh the same.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # Metrics are summed over the replicas when they are read. By default Keras would then also add their results.
        self.distribute_reduction_method = "first"
        # Replaces Keras' own metric of that name, in which a repeated image would count twice.
        self._mean_loss = tf.keras.metrics.Mean(name="loss")

    def train_step(self, data):
        _, _, weights = tf.keras.utils.unpack_x_y_sample_weight(data)
        with repeated(tf.cast(tf.round(1 / weights[0]), tf.int64)):
            return super().train_step(data)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        loss = super().compute_loss(x, y, y_pred)
        replica = tf.distribute.get_replica_context()
        images, broken = tf.reduce_sum(tf.cast(sample_weight, loss.dtype)), ~tf.math.is_finite(loss)
        replicas = replica.num_replicas_in_sync  # Keras divides by this number.
        self._mean_loss.update_state(replicas * loss, images)
        all_images, broken = tf.unstack(replica.all_reduce("SUM", tf.stack([images, tf.cast(broken, loss.dtype)])))
        # A replica's mean is weighted by its images, because the last batch of an epoch is not shared evenly.
        loss *= replicas * images / all_images
        # All replicas must stop in the same step: one that went on would wait for the gradients of the others.
        return tf.where(broken > 0, np.nan, loss)


def make_strategy(
    name: str | None, wait: float | None = None, report: Callable[[str], None] = print
) -> tf.distribute.Strategy:
    """Makes the named strategy; for `"multiworker"` it first waits for all workers, see `await_workers`."""
    if name is None:
        return tf.distribute.get_strategy()
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    if name == "multiworker":
        await_workers(wait, report)
        with noticing_lost_workers(name):
            return tf.distribute.MultiWorkerMirroredStrategy()
    raise RunError(f"strategy {name!r}: expected {' or '.join(STRATEGIES)}.")


def _check_tf_config() -> None:
    """Raises on values that TensorFlow would ignore, or wait an hour for."""
    found = os.environ.get("TF_CONFIG")
    try:
        values = json.loads(found or "")
        kind, number = values["task"]["type"], int(values["task"]["index"])
        if kind in ("chief", "worker") and 0 <= number < len(values["cluster"][kind]):
            for other, address in _addresses(values["cluster"]).items():
                _host_and_port(other, address)
            return
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, RunError):
            raise
    raise RunError(
        "strategy multiworker: the environment variable TF_CONFIG "
        + ("is not set" if found is None else f"does not say which worker of which cluster this is: {found}")
        + '. Each worker needs it, for example {"cluster": {"worker": ["host1:12345", "host2:12345"]}, "task": '
        '{"type": "worker", "index": 0}}; see https://www.tensorflow.org/guide/distributed_training.'
    )


def _addresses(cluster: dict[str, list[str]]) -> dict[str, str]:
    """The addresses of the processes that train, such as `{"worker 0": "host:12345"}`."""
    kinds = ("chief", "worker")
    return {f"{kind} {i}": address for kind in kinds for i, address in enumerate(cluster.get(kind) or [])}


def _host_and_port(worker: str, address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise RunError(f"TF_CONFIG: {worker} has the address {address!r}. Expected HOST:PORT, such as host1:12345.")
    return host.strip("[]"), int(port)


def await_workers(wait: float | None, report: Callable[[str], None]) -> None:
    """Returns as soon as all workers of TF_CONFIG are there. TensorFlow would wait for them silently.

    Until then each listens on its port, which TensorFlow then takes over.

    # Arguments
        wait: How many seconds to wait; `None` for ever.
        report: Called every half minute with the missing workers.

    # Raises
        RunError: If TF_CONFIG is missing or invalid, or this worker cannot listen on its port.
        WorkerMissing: If a worker does not come in time.
    """
    _check_tf_config()
    values = json.loads(os.environ["TF_CONFIG"])
    missing = _addresses(values["cluster"])
    own = f"{values['task']['type']} {int(values['task']['index'])}"
    with _listening(own, missing.pop(own)):
        begun, since = time.monotonic(), time.strftime("%H:%M:%S")
        said = None
        while missing := {other: address for other, address in missing.items() if not _answers(other, address)}:
            waited = time.monotonic() - begun
            named = ", ".join(f"{other} ({address})" for other, address in list(missing.items())[:_NAMED])
            if len(missing) > _NAMED:
                named += f" and {len(missing) - _NAMED} more"
            if wait is not None and waited >= wait:
                raise WorkerMissing(
                    f"Waited {waited:.0f} s in vain for {named}. Start the same command there, with the TF_CONFIG of "
                    "that worker, and look whether its port can be reached from here."
                )
            if waited >= (_FIRST_SAID if said is None else said + _SAID_EVERY):
                said = waited
                report(f"Waiting for {named}, since {since} ({waited:.0f} s).")
            time.sleep(1)
        if said is not None:
            report("All workers are there.")


@contextlib.contextmanager
def _listening(worker: str, address: str) -> Iterator[None]:
    port = _host_and_port(worker, address)[1]
    with socket.socket() as listener:
        # As in TensorFlow, a port whose last connections are still closing counts as free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", port))
            listener.listen(128)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise RunError(
                    f"This is {worker}, {address}, but port {port} of this machine is in use: by another program, or "
                    f"by a worker that was not ended. End it, or give {worker} another port in the TF_CONFIG of all "
                    "workers."
                ) from error
            raise RunError(
                f"This is {worker}, {address}, but port {port} of this machine cannot be listened at: {error}. Give "
                f"{worker} another port in the TF_CONFIG of all workers."
            ) from error
        yield


def _answers(worker: str, address: str) -> bool:
    try:
        socket.create_connection(_host_and_port(worker, address), timeout=2).close()
    except OSError:
        return False
    return True


def is_chief(strategy: str | None) -> bool:
    """Returns whether this process is the one that writes the run."""
    if strategy != "multiworker":
        return True
    _check_tf_config()
    values = json.loads(os.environ["TF_CONFIG"])
    chief = "chief" if values["cluster"].get("chief") else "worker"
    return (values["task"]["type"], int(values["task"]["index"])) == (chief, 0)


# The errors that TensorFlow raises if a worker disappears or comes back, or while one cannot be reached.
LOST = (
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
    except LOST as error:
        if strategy != "multiworker":
            raise
        lines = [line for line in error.message.splitlines() if "abort" in line] or error.message.splitlines()[:1]
        raise WorkerLost("\n".join(["Another worker was lost, or cannot be reached.", *lines[:1]])) from error


def gather(strategy: tf.distribute.Strategy, number: int) -> list[int]:
    """Collects each replica's number. It returns on none of them before all have called it."""

    def gathered():
        return tf.distribute.get_replica_context().all_gather(tf.constant([number], tf.int64), axis=0)

    if strategy.num_replicas_in_sync == 1:
        return [number]
    return strategy.experimental_local_results(strategy.run(gathered))[0].numpy().tolist()


def check_alike(strategy: tf.distribute.Strategy, config: Config, source: Source) -> None:
    """Checks that all workers were started with the same configuration and have the same images.

    Otherwise they would have different weights, or wait for each other for ever.
    """
    if len(set(gather(strategy, zlib.crc32(in_common(config).encode())))) > 1:
        raise RunError(
            "The workers were not started alike: they have different networks, recipes or options. Start all of them "
            "with the same command; only TF_CONFIG differs."
        )
    images = "\n".join([str(source.train_size), str(source.test_size), *source.files])
    if len(set(gather(strategy, zlib.crc32(images.encode(errors="surrogateescape"))))) > 1:
        raise RunError(
            f"The workers found different images in {source.name}: {source.train_size} to train on and "
            f"{source.test_size} to test on here. Give all of them the same."
        )


def check_folder_shared(strategy: tf.distribute.Strategy, folder: Path) -> None:
    gather(strategy, 0)  # Waits until the chief has written.
    if not all(gather(strategy, (folder / "config.json").is_file())):
        raise RunError(
            f"{folder} is not the same folder for all workers: the run that the chief has begun in it is not there. "
            "Give a folder on a disk that they share."
        )


def deal(dataset: tf.data.Dataset, strategy: tf.distribute.Strategy) -> tf.distribute.DistributedDataset:
    """Shares the batches of a dataset of images and labels between replicas, and gives each image its weight.

    TensorFlow's own distribution deals 9 images to 4 replicas as 3, 3, 3 and none, for which some operations give no
    result or a wrong one. Here they are 2, 2, 2, 3. If there are fewer images than replicas, each image is repeated
    until there are enough, and its weights add up to one: mean, variance and every other mean of the batch stay the
    same.
    """

    def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        replicas = context.num_replicas_in_sync
        here = replicas // context.num_input_pipelines

        def shares(images: tf.Tensor, labels: tf.Tensor) -> tf.data.Dataset:
            times = -(-replicas // tf.shape(labels)[0])
            dealt = times * tf.shape(labels)[0]
            weights = tf.fill([dealt], tf.cast(1 / times, tf.float32))
            batch = tf.repeat(images, times, 0), tf.repeat(labels, times, 0), weights
            first = context.input_pipeline_id * here
            bounds = tf.range(first, first + here + 1) * dealt // replicas
            return tf.data.Dataset.range(here).map(
                lambda i: tuple(values[bounds[i] : bounds[i + 1]] for values in batch)
            )

        return dataset.flat_map(shares).prefetch(here)

    return strategy.distribute_datasets_from_function(of_worker)
