"""Imports a checkpoint of a network's authors as a network of the zoo."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from larq_rep.datasets import Dataset
from larq_rep.layers import Mirror
from larq_rep.zoo.checkpoint import MAX_BYTES, CheckpointError
from larq_rep.zoo.checkpoint.tensors import naming
from larq_rep.zoo.families import load_state_dict, recognise
from larq_rep.zoo.keys import Keys
from larq_rep.zoo.mapping import ImportReport
from larq_rep.zoo.registry import DATASETS, choose, get_model, get_network
from larq_rep.zoo.wrapped import read_weights


def import_checkpoint(
    file: str | os.PathLike[str],
    network: str | None = None,
    *,
    input_shape: tuple[int, int, int] | None = None,
    step: int = 2,
    key: str | None = None,
    ignore: Sequence[str] = (),
    max_bytes: int = MAX_BYTES,
    **arguments: Any,
) -> tuple[tf.keras.Model, ImportReport]:
    """Builds the network that a checkpoint of its authors belongs to, with the weights of the file.

    Every key of the file gets its place in the network or is known to be unused; otherwise nothing is returned and the
    error lists all keys that do not fit. Nothing in the file is executed. The outputs are those of the authors' code,
    except that the sign of exactly 0 is +1.

    !!! example
        ```python
        model, report = larq_rep.zoo.import_checkpoint("model_best.pth.tar")
        model, report = larq_rep.zoo.import_checkpoint("rbnn.pth", "ResNet20", method="rbnn_bireal")
        report.zeros  # {"layer1_0_conv1": 2, ...}
        model.save("rbnn.h5")
        ```

    # Arguments
        file: A file that `larq_rep.zoo.checkpoint.read_state_dict` reads: a checkpoint of PyTorch (`.pth`, `.pth.tar`,
            ...), `.safetensors`, or `.params` of MXNet.
        network: Name of the network; by default the one that keys and shapes belong to.
        input_shape: `(height, width, channels)` of the images, by default those of the data set.
        step: Phase of a training in two phases: after phase 1 the weights are real.
        key: Name of the dictionary of the weights in the file, `a.b` for `b` in `a`, if it has several.
        ignore: Shell patterns of keys to leave out, as the file has them or without a prefix that all share.
        max_bytes: Largest file, and most bytes of all arrays together.
        **arguments: Arguments of the network's constructor (`num_classes`, `dataset`, `beta`, `method`, ...), in
            addition to or instead of those that keys and shapes tell.

    # Returns
        The network behind a `larq_rep.layers.Mirror`, since its kernels are stored mirrored; and where each weight
        comes from, which keys are unused, and how many latent weights have a sign that may differ in PyTorch, as
        a `larq_rep.zoo.mapping.ImportReport`.

    # Raises
        CheckpointError: If the file cannot be read, its keys do not tell the network and it is not named, or with
            every key that is missing, left over, has another shape or is not finite. It is a `ValueError`.
        ValueError: If there is no such network, or an argument does not suit it.
        TypeError: If the network has no such argument.
        ImportError: If the network is one of larq_zoo, which is not installed.
    """
    if step not in (1, 2):
        raise ValueError(f"import_checkpoint: step must be 1 or 2, found {step!r}.")
    for name in ("input_tensor", "weights"):
        if name in arguments:
            raise TypeError(
                f"import_checkpoint: found {name}, but the weights are those of the file, and the size is input_shape."
            )
    contents = read_weights(file, key=key, ignore=ignore, max_bytes=max_bytes)
    arrays = contents.arrays
    with naming(file):
        network, arguments = _choose(arrays, network, arguments)
    image = tf.keras.Input(input_shape or _dataset(network, arguments).input_shape, name="image")
    model = get_model(network, input_tensor=Mirror(name="mirror")(image), **arguments)
    if step == 1:
        from larq_rep.training.phases import with_real_weights  # Training is not loaded with the zoo.

        model = with_real_weights(model)
    with naming(file):
        report = load_state_dict(model, arrays, contents.ignored)
    report.arguments, report.notes = arguments, contents.notes
    return model, report


def identify(arrays: Mapping[str, np.ndarray]) -> tuple[str, dict[str, Any]]:
    """The constructor of a network of the zoo, and its arguments, that a state dict belongs to.

    # Arguments
        arrays: What `read_state_dict` returns.

    # Raises
        CheckpointError: If its keys are those of no network here, or of several.
    """
    keys = Keys(arrays)
    network, arguments = recognise(keys)
    if keys.classes not in (None, _dataset(network, arguments).num_classes):
        arguments["num_classes"] = keys.classes
    return network, arguments


def _choose(
    arrays: Mapping[str, np.ndarray], network: str | None, given: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """The network to build and its arguments: as given, and as the keys tell where that leaves them open."""
    try:
        guess, known = identify(arrays)
    except CheckpointError:
        if network is None:
            raise
        return network, dict(given)
    return network or guess, {**(known if network in (None, guess) else {}), **given}


def _dataset(network: str, arguments: Mapping[str, Any]) -> Dataset:
    default = get_network(network).variants[0].dataset
    return DATASETS[choose(network, "dataset", arguments.get("dataset", default), DATASETS)]
