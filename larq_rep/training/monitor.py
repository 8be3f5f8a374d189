"""Measures how fast the input pipeline delivers images, and whether the model waits for it."""

import time
from collections.abc import Callable

import tensorflow as tf

from larq_rep._keras import TensorCallback

_SECONDS = 3.0
_BOTTLENECK = 0.8


class PipelineMonitor(TensorCallback):
    """Measures images per second, and says so if the input pipeline and not the model sets the pace.

    The callback adds `images_per_second` to each epoch's logs, measured from the end of the first batch to the end of
    the last but one, so without tracing, validation and a smaller last batch. After the first epoch, it draws from
    the pipeline alone for at most 3 seconds; if that takes 80 % of the time of training or more, it reports one line.
    Put the callback before those that write the logs.

    # Arguments
        dataset: The dataset given to `fit`, of `(images, ...)`.
        batch_size: Images in a global batch, over all replicas.
        report: Called with the line.
    """

    def __init__(self, dataset: tf.data.Dataset, batch_size: int, report: Callable[[str], None] = print):
        super().__init__()
        self.dataset = dataset
        self.batch_size = batch_size
        self.report = report
        self._measured = False

    def on_epoch_begin(self, epoch, logs=None):
        self._ends: dict[int, float] = {-1: time.perf_counter()}

    def on_train_batch_end(self, batch, logs=None):
        # A step begins before earlier ones have ended: we wait only at the two ends of the measurement.
        if batch in self._measured_between():
            tf.nest.map_structure(float, logs or {})
        self._ends[batch] = time.perf_counter()

    def _measured_between(self) -> tuple[int, int]:
        """The batches at whose ends the measurement begins and ends; -1 is the beginning of the epoch."""
        steps = self.params.get("steps") or len(self._ends) - 1
        # With three batches or fewer there is nothing between the first and the last.
        return (0, steps - 2) if steps > 3 else (-1, steps - 1)

    def on_epoch_end(self, epoch, logs=None):
        first, last = self._measured_between()
        if last not in self._ends:  # The epoch ended early.
            return
        trained = self.batch_size * (last - first) / (self._ends[last] - self._ends[first])
        if logs is not None:
            logs["images_per_second"] = trained
        if self._measured:
            return
        self._measured = True
        drawn = _images_per_second(self.dataset)
        if drawn is not None and trained >= _BOTTLENECK * drawn:
            # The pipeline alone can seem slower than training, where batches were prepared ahead.
            alone = f"{drawn:.0f} images/s" if drawn > trained else "no more"
            self.report(
                f"The input pipeline is the bottleneck: {trained:.0f} images/s in training, {alone} from the pipeline "
                "alone. More CPU cores, a faster disk or a cheaper augmentation make training faster."
            )


def _images_per_second(dataset: tf.data.Dataset) -> float | None:
    images = iter(dataset)
    # The first batch waits until everything has been opened and shuffled.
    if next(images, None) is None:
        return None
    count, begin = 0, time.perf_counter()
    seconds = 0.0
    while seconds < _SECONDS and (batch := next(images, None)) is not None:
        count += int(tf.shape(batch[0])[0])
        seconds = time.perf_counter() - begin
    return count / seconds if count else None
