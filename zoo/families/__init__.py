"""The layouts of checkpoints as the networks' authors wrote them, a module for each family.

A family is a module of this folder, which has

- `NETWORKS`, the names of the networks whose layers it knows; a Rep network has the layers of its base,
- `recognises(keys)`, which returns the network and the arguments of its constructor that the keys and shapes of a
  file belong to, with a `Choice` for an argument that they leave open, or `None` if they are none of this family's,
- `port(weights)`, which names the key of every layer and returns regular expressions of the keys that have no place
  in the network, with the reason.
"""

from __future__ import annotations

import importlib
import itertools
import pkgutil
from collections.abc import Mapping
from functools import cache
from typing import Any, Protocol, cast

import numpy as np
import tensorflow as tf

from larq_rep.layers import Mirror
from larq_rep.zoo.checkpoint import CheckpointError
from larq_rep.zoo.keys import COUNTERS, NAME_IT, Choice, Keys
from larq_rep.zoo.mapping import Importer, ImportReport


class Family(Protocol):
    NETWORKS: tuple[str, ...]

    def recognises(self, keys: Keys) -> tuple[str, dict[str, Any]] | None: ...

    def port(self, weights: Importer) -> dict[str, str]: ...


@cache
def families() -> dict[str, Family]:
    """The families by the names of their modules."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    return {name: cast(Family, importlib.import_module(f"{__name__}.{name}")) for name in names}


def recognise(keys: Keys) -> tuple[str, dict[str, Any]]:
    """The network that keys belong to, and the arguments of its constructor, as the one family that knows them says.

    # Raises
        CheckpointError: If no family knows them, or several do, or one refuses them.
    """
    found, refusals = [], []
    for family in families().values():
        try:
            found.append(family.recognises(keys))
        except CheckpointError as error:
            refusals.append(error)
    known = [match for match in found if match]
    if len(known) > 1:
        names = " and ".join(name for name, _ in known)
        raise CheckpointError(f"its keys are those of several networks, {names}. {NAME_IT}.")
    if known:
        return known[0]
    if refusals:
        raise refusals[0]
    listed = ", ".join(list(keys)[:6])
    raise CheckpointError(f"its keys, such as {listed}, are those of no network here. {NAME_IT}.")


def load_state_dict(
    model: tf.keras.Model, arrays: Mapping[str, np.ndarray], ignored: Mapping[str, str] | None = None
) -> ImportReport:
    """Gives a network of the zoo the weights of a state dict: all of them, or none.

    # Arguments
        model: The network, whose first layer is a `larq_rep.layers.Mirror` named `mirror`: the kernels it gets are
            mirrored. Its weights may be its latent weights (`larq_rep.training.with_real_weights`), as in a first
            training phase.
        arrays: What `read_state_dict` returns.
        ignored: Keys that were left out on demand, with the pattern that each has.

    # Returns
        What became of each key.

    # Raises
        CheckpointError: If this network has no published layout, or with every key that is missing, left over, has
            another shape or is not finite, and the network that the keys belong to if it is another.
    """
    try:
        family = _family(model)
        weights = Importer(model, arrays, ignored)
        unused = family.port(weights)
    except CheckpointError as error:
        raise CheckpointError("\n".join([str(error), *_of_another(model, arrays)])) from error
    return weights.finish(COUNTERS | unused, lambda: _of_another(model, arrays))


def _family(model: tf.keras.Model) -> Family:
    base = model.name.removeprefix("Rep")
    family = next((family for family in families().values() if base in family.NETWORKS), None)
    if family is None:
        known = [name for family in families().values() for name in family.NETWORKS]
        raise CheckpointError(
            f"it cannot be imported: no checkpoint of {model.name} has a known layout. Networks with one: "
            f"{', '.join(known)} and their Rep networks."
        )
    if not any(isinstance(layer, Mirror) and layer.input is model.input for layer in model.layers):
        raise CheckpointError(
            f"it cannot be imported: this {model.name} does not begin with a Mirror layer, and the kernels are "
            "mirrored. Build it with input_tensor=larq_rep.layers.Mirror(name='mirror')(image)."
        )
    return family


def _of_another(model: tf.keras.Model, arrays: Mapping[str, np.ndarray]) -> list[str]:
    """A line that names the network or form whose keys these are, if it is not the one that they were meant for."""
    try:
        name, known = recognise(Keys(arrays))
    except CheckpointError:
        return []
    if name != model.name:
        return [f"Its keys are those of {name}. If it is that: network={name!r} (lce import: --network {name})."]
    built = model.record.arguments if getattr(model, "record", None) else {}
    # The data set of small images is a guess by the number of classes.
    values = {key: list(x.values) if isinstance(x, Choice) else [x] for key, x in known.items() if key != "dataset"}
    other = {key: each for key, each in values.items() if built.get(key, each[0]) not in each}
    if not other:
        return []
    forms = [dict(zip(other, each, strict=True)) for each in itertools.product(*other.values())]
    words = " or ".join(", ".join(f"{key}={value!r}" for key, value in form.items()) for form in forms)
    options = " or ".join(" ".join(f"--set {key}={value}" for key, value in form.items()) for form in forms)
    return [f"Its keys are those of {name} with {words}. If it is that: {words} (lce import: {options})."]
