"""Reads the weights of a checkpoint and takes off what was put around the names of its network."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Mapping, Sequence

import numpy as np

from larq_rep.zoo.checkpoint import MAX_BYTES, CheckpointError, Contents, matches, read
from larq_rep.zoo.checkpoint.dictionaries import ignoring
from larq_rep.zoo.checkpoint.tensors import naming
from larq_rep.zoo.families import families
from larq_rep.zoo.keys import Keys, counted
from larq_rep.zoo.refusals import groups, shown

# Names that programs give to the network in a wrapper. Others are taken off only if that makes the keys known.
_WRAPPERS = {"module", "_orig_mod", "model", "net", "network", "student", "backbone", "encoder"}
_LISTED = 8
_PARTS = 32  # So many networks side by side, or names in a row, are looked at.


def read_weights(
    file: str | os.PathLike[str], *, key: str | None = None, ignore: Sequence[str] = (), max_bytes: int = MAX_BYTES
) -> Contents:
    """The weights of a checkpoint by the names that they have in the network.

    A prefix that all keys share, such as `model.`, is taken off if no network has the keys with it, and a classifier
    in a `Sequential` gets the name of that.

    # Arguments
        file: The file.
        key: Name of the dictionary of the weights, `a.b` for `b` in `a`.
        ignore: Shell patterns of keys to leave out, as the file has them or without the prefix.
        max_bytes: Largest file, and most bytes of all arrays together.

    # Raises
        CheckpointError: If the file cannot be read, several networks stand side by side in it, or a pattern has no
            key.
        TypeError: If `key` or a pattern is not a string.
    """
    patterns = [ignore] if isinstance(ignore, str) else list(ignore or ())
    if not isinstance(key, str | None) or not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError(f"key should be a name and ignore shell patterns, found key={key!r} and ignore={ignore!r}.")
    contents = read(file, key=key, ignore=patterns, max_bytes=max_bytes)
    with naming(file):
        return _unwrapped(contents, patterns)


def _unwrapped(contents: Contents, patterns: list[str]) -> Contents:
    prefix, known, shared = _prefix(contents.arrays)
    arrays = {key.removeprefix(prefix): array for key, array in contents.arrays.items()}
    names = {key.removeprefix(prefix): pattern for key, pattern in contents.ignored.items()}
    plain = {key.removeprefix("module."): key for key in arrays}
    every = {*contents.arrays, *contents.ignored, *names, *arrays, *plain}
    for pattern in patterns:
        if not fnmatch.filter(every, pattern):
            listed = ", ".join(f"{name} ({len(keys)} keys)" for name, keys in list(groups(every).items())[:_LISTED])
            raise CheckpointError(f"it has no key for ignore={pattern!r}. It has {listed}. Mend the pattern.")
    later = {plain.get(key, key): pattern for key, pattern in matches({*arrays, *plain}, patterns).items()}
    arrays = {key: array for key, array in arrays.items() if key not in later}
    if patterns and not arrays:
        raise CheckpointError(f"nothing is left of it without what {ignoring(patterns)} takes. Ignore less.")
    if not known:
        _refuse_several({f"{prefix}{key}": array for key, array in arrays.items()}, shared)
    notes = [f"All keys begin with {prefix!r}, which was left out."] if prefix else []
    arrays, head = _with_plain_classifier(arrays)
    return Contents(arrays, [*contents.notes, *notes, *head], {**names, **later})


def _prefix(arrays: Mapping[str, np.ndarray]) -> tuple[str, bool, str]:
    """What all keys but counters begin with and no network has, whether some network has the rest, and all of the
    beginning that was looked at."""
    keys = [key for key in arrays if not counted(key)]
    prefix, usual = "", ""
    for _ in range(_PARTS):
        if _known({key.removeprefix(prefix): array for key, array in arrays.items()}):
            return prefix, True, prefix
        first = {key.removeprefix(prefix).partition(".")[:2] for key in keys}
        name, point = first.pop() if len(first) == 1 else ("", "")
        if not point:
            break
        usual = f"{prefix}{name}." if usual == prefix and name in _WRAPPERS else usual
        prefix += f"{name}."
    return usual, False, prefix


def _known(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether a family recognises the keys, or refuses them as its own."""
    for family in families().values():
        try:
            if family.recognises(Keys(arrays)):
                return True
        except CheckpointError:
            return True
    return False


def _refuse_several(arrays: Mapping[str, np.ndarray], prefix: str) -> None:
    """Names the networks that stand side by side, as a student and a teacher do."""
    parts: dict[str, dict[str, np.ndarray]] = {}
    for key, array in arrays.items():
        if not counted(key):
            name, point, rest = key.removeprefix(prefix).partition(".")
            parts.setdefault(f"{prefix}{name}{point}", {})[rest] = array
    if not 1 < len(parts) <= _PARTS:
        return
    networks = [name for name, part in parts.items() if name.endswith(".") and _prefix(part)[1]]
    if not networks:
        return
    lines = []
    for name in networks[:_LISTED]:
        others = [f"{other}*" if other.endswith(".") else other for other in parts if other != name]
        count = sum(key.startswith(name) for key in arrays)
        lines.append(f"\n  for {shown(name)} ({count} keys): {ignoring(others)}")
    raise CheckpointError(f"it has more than the keys of one network. Leave out the others:{''.join(lines)}")


def _with_plain_classifier(arrays: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[str]]:
    """`fc.weight` for `fc.1.weight` if that is the only layer with weights of a `Sequential`, `fc`."""
    for name in ("fc", "linear"):
        below = {key for key in arrays if re.match(rf"(module\.)?{name}\.", key)}
        modules = {key.rpartition(".")[0] for key in below if not counted(key)}
        match = re.fullmatch(rf"((module\.)?{name})\.\d+", next(iter(modules), ""))
        if len(modules) == 1 and match and arrays.get(f"{match[0]}.weight", np.zeros(0)).ndim == 2:
            renamed = {re.sub(rf"^{re.escape(match[0])}\.", f"{match[1]}.", key): x for key, x in arrays.items()}
            return renamed, [f"The classifier is the layer {match[0]!r} of a Sequential."]
    return arrays, []
