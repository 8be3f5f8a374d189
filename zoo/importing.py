"""Imports a checkpoint of a network's authors as a network of the zoo."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from larq_rep.datasets import Dataset
from larq_rep.layers import Mirror
from larq_rep.zoo.checkpoint import MAX_BYTES, CheckpointError
from larq_rep.zoo.checkpoint.tensors import naming
from larq_rep.zoo.families import load_state_dict, recognise
from larq_rep.zoo.keys import Choice, Keys
from larq_rep.zoo.mapping import ImportReport
from larq_rep.zoo.registry import DATASETS, choose, get_model, get_network
from larq_rep.zoo.wrapped import read_weights


def import_checkpoint(
    file: str | os.PathLike[str],
    network: str | None = None,
    step: int | None = None,
    key: str | None = None,
    ignore: Sequence[str] = (),
    *,
    input_shape: tuple[int, int, int] | None = None,
    max_bytes: int = MAX_BYTES,
    **arguments: Any,
) -> tuple[tf.keras.Model, ImportReport]:
    """Builds the network that a checkpoint of its authors belongs to, with the weights of the file.

    Every key of the file gets its place in the network or is known to be unused; otherwise nothing is returned and the
    error lists all keys that do not fit. Nothing in the file is executed. The outputs are those of the authors' code,
    except that the sign of exactly 0 is +1.

    !!! example
        ```python
        model, report = larq_rep.zoo.import_checkpoint("recu.pth")
        model, report = larq_rep.zoo.import_checkpoint("model_best.pth.tar", step=2)
        model, report = larq_rep.zoo.import_checkpoint("rbnn.pth", method="rbnn_bireal")
        report.zeros  # {"layer1_0_conv1": 2, ...}
        model.save("rbnn.h5")
        ```

    # Arguments
        file: A file that `larq_rep.zoo.checkpoint.read_state_dict` reads: a checkpoint of PyTorch (`.pth`, `.pth.tar`,
            ...), `.safetensors`, or `.params` of MXNet.
        network: Name of the network; by default the one that keys and shapes belong to.
        step: Phase of a training in two phases, after which the file was written: 1, after which the weights are real,
            or 2. To be given if both have the same keys and shapes.
        key: Name of the dictionary of the weights in the file, `a.b` for `b` in `a`, if it has several.
        ignore: Shell patterns of keys to leave out, as the file has them or without a prefix that all share.
        input_shape: `(height, width, channels)` of the images, by default those of the data set.
        max_bytes: Largest file, and most bytes of all arrays together.
        **arguments: Arguments of the network's constructor (`num_classes`, `dataset`, `beta`, `method`, ...), in
            addition to or instead of those that keys and shapes tell. To be given if several have the same keys and
            shapes.

    # Returns
        The network behind a `larq_rep.layers.Mirror`, since its kernels are stored mirrored; and where each weight
        comes from, which keys are unused, and how many latent weights have a sign that may differ in PyTorch, as
        a `larq_rep.zoo.mapping.ImportReport`.

    # Raises
        CheckpointError: If the file cannot be read; if keys and shapes leave open the network, its form or the phase
            and these are not given, with the choices; if the network does not have this phase or the file contradicts
            it; or with every key that is missing, left over, has another shape or is not finite. It is a `ValueError`.
        ValueError: If there is no such network, or an argument does not suit it.
        TypeError: If the network has no such argument, or a name or pattern is not a string.
        ImportError: If the network is one of larq_zoo, which is not installed.
    """
    if step not in (None, 1, 2):
        raise ValueError(f"import_checkpoint: step must be 1 or 2, found {step!r}.")
    for name in ("input_tensor", "weights"):
        if name in arguments:
            raise TypeError(
                f"import_checkpoint: found {name}, but the weights are those of the file, and the size is input_shape."
            )
    if network is not None:
        get_network(network)
    contents = read_weights(file, key=key, ignore=ignore, max_bytes=max_bytes)
    arrays = contents.arrays
    with naming(file):
        name, arguments, step, question, _ = decide(arrays, network, arguments, step)
    image = tf.keras.Input(input_shape or _dataset(name, arguments).input_shape, name="image")
    model = get_model(name, input_tensor=Mirror(name="mirror")(image), **arguments)
    if step == 1:
        from larq_rep.training.phases import with_real_weights  # Training is not loaded with the zoo.

        model = with_real_weights(model, left_behind=get_network(name).left_behind)
    with naming(file):
        report = load_state_dict(model, arrays, contents.ignored)
        if question:
            raise CheckpointError(question)
    report.arguments, report.notes = arguments, contents.notes
    return model, report


def identify(arrays: Mapping[str, np.ndarray]) -> tuple[str, dict[str, Any]]:
    """The constructor of a network of the zoo, and its arguments, that a state dict belongs to.

    # Arguments
        arrays: What `read_state_dict` returns.

    # Returns
        The name of the network and the arguments; one that keys and shapes leave open is a `larq_rep.zoo.keys.Choice`.

    # Raises
        CheckpointError: If its keys are those of no network here, or of several.
    """
    keys = Keys(arrays)
    network, arguments = recognise(keys)
    if keys.classes not in (None, _dataset(network, arguments).num_classes):
        arguments["num_classes"] = keys.classes
    return network, arguments


class Decision(NamedTuple):
    """What is known of a checkpoint.

    # Attributes
        network: Name of its network.
        arguments: Those of the constructor.
        step: The phase after which it was written, if the network is trained in two.
        question: What to say if several forms or phases have these keys and shapes; empty if it is all known.
        recognised: Whether the keys are those of this network.
    """

    network: str
    arguments: dict[str, Any]
    step: int | None
    question: str
    recognised: bool


def decide(
    arrays: Mapping[str, np.ndarray], network: str | None, given: Mapping[str, Any], step: int | None = None
) -> Decision:
    """What a checkpoint is: as given, and as keys and shapes tell what is left open.

    # Arguments
        arrays: What `read_state_dict` returns.
        network: Name of the network, if it is given.
        given: The arguments of its constructor that are given.
        step: The phase, if it is given.

    # Returns
        The decision. Its question is to be asked if all keys have a place.

    # Raises
        CheckpointError: If the keys do not tell the network and it is not given; or if the network does not have this
            phase or they contradict it.
        TypeError: If the network does not have one of the arguments.
    """
    name, arguments, recognised = _merged(arrays, network, given)
    record = get_network(name)
    record.check(given)
    choices = {key: value for key, value in arguments.items() if isinstance(value, Choice)}
    arguments |= {key: next(iter(choice.values)) for key, choice in choices.items()}
    steps = _steps(name, bool(record.first_phase(arguments)), Keys(arrays).step, step)
    options = [option for phase in steps for option in _options(phase if len(steps) > 1 else None, phase, choices)]
    question = _question(name, options) if len(options) > 1 else ""
    return Decision(name, arguments, steps[-1], question, recognised)


def _merged(
    arrays: Mapping[str, np.ndarray], network: str | None, given: Mapping[str, Any]
) -> tuple[str, dict[str, Any], bool]:
    """The network, its arguments, and whether the keys are its own; those of its base or Rep network tell a part."""
    try:
        guess, known = identify(arrays)
    except CheckpointError:
        if network is None:
            raise
        return network, dict(given), False
    network = network or guess
    if network.removeprefix("Rep") != guess.removeprefix("Rep"):
        return network, dict(given), False
    if network != guess:
        known.pop("beta", None)
    for key, value in given.items():
        choice = known.get(key)
        known[key] = choice.also.get(str(value), value) if isinstance(choice, Choice) else value
    return network, known, network == guess or given.get("beta") == 1


def _steps(network: str, two_phases: bool, told: tuple[int, str] | None, step: int | None) -> Sequence[int | None]:
    """The phases that a checkpoint may be of."""
    if not two_phases:
        if step is not None:
            raise CheckpointError(f"{network} is trained in one phase. There is no step {step}: leave it out.")
        return [None]
    if told and step not in (None, told[0]):
        raise CheckpointError(
            f"it is not of step {step}: {told[1]}, as only the code of step {told[0]} stores them. Leave the step out."
        )
    return [told[0]] if told else [step] if step else [1, 2]


_AFTER = {1: "after the first phase, real weights", 2: "after the second phase, binary weights"}


def _options(
    asked: int | None, step: int | None, choices: Mapping[str, Choice]
) -> Iterator[tuple[dict[str, Any], str]]:
    """What one can say of the phase, if it is asked for, and of the open arguments; and what it means."""
    # In a first phase all kernels are real.
    left: dict[str, Mapping[Any, str]]
    left = {key: choice.values for key, choice in choices.items() if not (step == 1 and choice.of_kernels)}
    if asked:
        left = {"step": {asked: _AFTER[asked]}, **left}
    for values in itertools.product(*left.values()):
        said = dict(zip(left, values, strict=True))
        yield said, ", ".join(left[key][value] for key, value in said.items())


def _question(network: str, options: Sequence[tuple[dict[str, Any], str]]) -> str:
    """What to add, on the command line and in Python."""
    added = [
        " ".join(f"--step {value}" if key == "step" else f"--set {key}={value}" for key, value in said.items())
        for said, _ in options
    ]
    width = max(map(len, added))
    lines = "\n".join(f"  {text:{width}}  {words}" for text, (_, words) in zip(added, options, strict=True))
    python = [", ".join(f"{key}={value!r}" for key, value in said.items()) for said, _ in options]
    return (
        f"its keys and shapes are those of {len(options)} forms of {network}, and do not tell which. Add one of these "
        f"to lce import:\n{lines}\nIn Python: larq_rep.zoo.import_checkpoint(file, ...) with "
        f"{' or with '.join(python)}."
    )


def _dataset(network: str, arguments: Mapping[str, Any]) -> Dataset:
    default = get_network(network).variants[0].dataset
    return DATASETS[choose(network, "dataset", arguments.get("dataset", default), DATASETS)]
