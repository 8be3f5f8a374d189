"""Training on several devices and in several processes."""

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
# Seconds of waiting until it is said for whom, and until it is said again.
_FIRST_SAID, _SAID_EVERY = 5.0, 30.0
_NAMED = 8


class WorkerLost(RuntimeError):
    """Another worker has ended or cannot be reached. In a new process the run can go on as soon as it is back."""


class WorkerMissing(WorkerLost):
    """Another worker did not come in the time that was given it."""


class ReplicatedTrainee(Trainee):
    """A trainee of several replicas, whose loss and metrics are those of the whole batch in each of them.

    The weights of images that `deal` gives are for the metrics, and say how often each image is there. In the loss
    those of a batch are alike.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # Metrics are summed up over the replicas when they are read. By default Keras then adds their results, too.
        self.distribute_reduction_method = "first"
        # Takes the place of Keras' own metric of that name, to which an image that is there twice counts twice.
        self._mean_loss = tf.keras.metrics.Mean(name="loss")

    def train_step(self, data):
        _, _, weights = tf.keras.utils.unpack_x_y_sample_weight(data)
        with repeated(tf.cast(tf.round(1 / weights[0]), tf.int64)):
            return super().train_step(data)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        loss = super().compute_loss(x, y, y_pred)
        replica = tf.distribute.get_replica_context()
        images, broken = tf.reduce_sum(tf.cast(sample_weight, loss.dtype)), ~tf.math.is_finite(loss)
        replicas = replica.num_replicas_in_sync  # Over which Keras divides.
        self._mean_loss.update_state(replicas * loss, images)
        all_images, broken = tf.unstack(replica.all_reduce("SUM", tf.stack([images, tf.cast(broken, loss.dtype)])))
        # The mean of a replica has the weight of its images: the last batch of an epoch is not shared out evenly.
        loss *= replicas * images / all_images
        # All replicas stop in the same step: one that went on would wait for the gradients of the others.
        return tf.where(broken > 0, np.nan, loss)


def make_strategy(
    name: str | None, wait: float | None = None, report: Callable[[str], None] = print
) -> tf.distribute.Strategy:
    """The strategy of a name; if that is `"multiworker"` as soon as all workers are there, see `await_workers`."""
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
    """Refuses what TensorFlow would ignore, or wait for for an hour."""
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
        + ("is not set" if found is None else f"does not say which worker of which this is: {found}")
        + '. Each worker needs it, for example {"cluster": {"worker": ["host1:12345", "host2:12345"]}, "task": '
        '{"type": "worker", "index": 0}}; see https://www.tensorflow.org/guide/distributed_training.'
    )


def _addresses(cluster: dict[str, list[str]]) -> dict[str, str]:
    """Those of the processes that train, such as `{"worker 0": "host:12345"}`."""
    kinds = ("chief", "worker")
    return {f"{kind} {i}": address for kind in kinds for i, address in enumerate(cluster.get(kind) or [])}


def _host_and_port(worker: str, address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise RunError(f"TF_CONFIG: {worker} has the address {address!r}. Expected HOST:PORT, such as host1:12345.")
    return host.strip("[]"), int(port)


def await_workers(wait: float | None, report: Callable[[str], None]) -> None:
    """Returns as soon as all workers of TF_CONFIG are there. TensorFlow would wait for them without a word.

    Until then each listens at its port, which TensorFlow takes over.

    # Arguments
        wait: For how many seconds; `None` for ever.
        report: Is told every half a minute who is missing.

    # Raises
        RunError: If TF_CONFIG is none, or the port of this worker cannot be listened at.
        WorkerMissing: If one does not come in time.
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
        # As TensorFlow does: a port whose last connections are still being closed is free.
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
    """Whether this process is the one of a run that writes."""
    if strategy != "multiworker":
        return True
    _check_tf_config()
    values = json.loads(os.environ["TF_CONFIG"])
    chief = "chief" if values["cluster"].get("chief") else "worker"
    return (values["task"]["type"], int(values["task"]["index"])) == (chief, 0)


# What TensorFlow raises if a worker disappears or comes back, or while one cannot be reached.
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
    """The number that each replica has. None gets them before all have come so far."""

    def gathered():
        return tf.distribute.get_replica_context().all_gather(tf.constant([number], tf.int64), axis=0)

    if strategy.num_replicas_in_sync == 1:
        return [number]
    return strategy.experimental_local_results(strategy.run(gathered))[0].numpy().tolist()


def check_alike(strategy: tf.distribute.Strategy, config: Config, source: Source) -> None:
    """Otherwise they would have different weights, or wait for each other for ever."""
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
    gather(strategy, 0)  # Until the chief has written.
    if not all(gather(strategy, (folder / "config.json").is_file())):
        raise RunError(
            f"{folder} is not the same folder for all workers: the run that the chief has begun in it is not there. "
            "Give a folder on a disk that they share."
        )


def deal(dataset: tf.data.Dataset, strategy: tf.distribute.Strategy) -> tf.distribute.DistributedDataset:
    """Shares out the batches of a dataset of images and labels, and gives each image its weight.

    By itself TensorFlow deals 9 images to 4 replicas as 3, 3, 3 and none, of which some operations make no result or
    a wrong one. Here they are 2, 2, 2, 3. Fewer images than replicas are each there so often that they suffice, with
    a weight that makes it one again: mean, variance and every other mean of the batch stay what they were.
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
