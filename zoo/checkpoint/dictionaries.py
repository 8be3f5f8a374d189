"""Finds the weights among the dictionaries of a checkpoint."""

from __future__ import annotations

import glob
import re
import shlex
from collections.abc import Iterator
from typing import Any, NamedTuple

from larq_rep.zoo.checkpoint.tensors import RESAVE, CheckpointError, Tensor, short
from larq_rep.zoo.checkpoint.unpickle import Global, Inert

# Where training scripts put the weights.
STATE_DICT_KEYS = {
    "state_dict": "ReActNet, AdamBNN, Rep_AdamBNN, Bi-Real-Net, RBNN, ReCU, after PyTorch's ImageNet example",
    "model": "torchvision's training scripts",
    "net": "training scripts for CIFAR that descend from pytorch-cifar",
    "net_state_dict": "PyTorch's tutorial on checkpoints, where the network is called net",
    "model_state_dict": "the same tutorial, where it is called model",
}

_WEIGHT = re.compile(r".*[._](weights?|gamma|running_mean)")
_AVERAGED = re.compile(r"(^|[^a-z]|model|net|dict|weights?|params?)(ema|swa|avg|averaged?|polyak|shadow)([^a-z]|$)")
_AVERAGED_FIRST = re.compile(r"(^|[^a-z])(ema|swa|averaged?)(model|net|state|weights?|params?|dict)")
# State of optimizers that have the names of the weights.
_OPTIMIZER = re.compile(r"(.*_)?optim(izer)?s?(_.*)?|(max_)?exp_avgs?(_sqs?)?|momentum(_buffers?)?|grads?")
_LISTED = 8
_LONG = 120  # Longer names are not offered.
_CLASS = "Objects of a program and whole models cannot be read"


class Dictionary(NamedTuple):
    """A dictionary with weights.

    # Attributes
        path: The keys that lead to it.
        content: It.
        likely: Whether keys such as `fc.weight` are in it, and not just tensors.
    """

    path: tuple[str, ...]
    content: dict[Any, Any]
    likely: bool

    @property
    def key(self) -> str:
        return ".".join(self.path)

    @property
    def averaged(self) -> bool:
        """Whether its name is one that scripts give to averages of the weights over the training."""
        text = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", self.key).lower()
        return bool(_AVERAGED.search(text) or _AVERAGED_FIRST.search(text))


def find(content: Any, key: str | None) -> tuple[dict[Any, Any], list[str]]:
    """The dictionary with the weights, and what should be said of its choice.

    # Arguments
        content: What the file holds.
        key: Name of the dictionary, `a.b` for `b` in `a`; by default the only one with weights or, of several, that
            under one of `STATE_DICT_KEYS`, or that which is not averaged.

    # Raises
        CheckpointError: If there is none, or several and nothing tells which is meant: with the choices.
    """
    if not isinstance(content, dict):
        raise CheckpointError(f"it holds {_what(content)}, expected a dictionary of tensors. {_remedy(content)}")
    if not content:
        raise CheckpointError("it has no tensor, expected weights. Check that it is the right file")
    everywhere = list(_search(content, (), set()))
    start, where = (content, ()) if key is None else _named(content, key, everywhere)
    if key is not None and any(isinstance(value, Tensor) for value in start.values()):
        return start, []
    found = everywhere if key is None else list(_search(start, where, set()))
    found = [x for x in found if x.likely] or found
    if not found:
        raise _no_weights(start, where)
    chosen = found[0] if len(found) == 1 else _plain(found)
    return chosen.content, _notes(chosen, found)


def option(key: str) -> str:
    """How to choose a dictionary."""
    return f"key={key!r} (lce import: --key {shlex.quote(key)})" if key.isprintable() else f"key={key!r}"


def ignoring(patterns: list[str]) -> str:
    """How to leave keys out."""
    patterns = ["".join(x if x.isprintable() else "?" for x in pattern) for pattern in patterns]
    return f"ignore={patterns!r} (lce import: {' '.join(f'--ignore {shlex.quote(x)}' for x in patterns)})"


def _search(found: Any, path: tuple[str, ...], seen: set[int]) -> Iterator[Dictionary]:
    """The dictionaries of tensors, each once; the moments of an optimizer are none."""
    content = _numbered(found)
    if not isinstance(content, dict) or id(found) in seen or ("param_groups" in content and "state" in content):
        return
    seen.add(id(found))
    inner: list[Dictionary] = []
    for key, value in content.items():
        if isinstance(key, (str, int)) and not _OPTIMIZER.fullmatch(str(key).lower()):
            inner += _search(value, (*path, str(key)), seen)
    tensors = [key for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)]
    # Beside other dictionaries `class_weight` is no weight of a network, whose names have points.
    likely = any(_WEIGHT.fullmatch(key) and ("." in key or not inner) for key in tensors)
    if tensors and (likely or len(tensors) == len(content)):
        yield Dictionary(path, content, likely)
    yield from inner


def _numbered(value: Any) -> Any:
    """A list as a dictionary, by the places in it."""
    return dict(enumerate(value)) if isinstance(value, (list, tuple)) else value


def _named(content: dict[Any, Any], name: str, known: list[Dictionary]) -> tuple[dict[Any, Any], tuple[str, ...]]:
    found = list({id(value): (value, path) for value, path in _resolve(content, name, ())}.values())
    choices = ", ".join(option(x.key) for x in known[:_LISTED] if x.path and len(x.key) <= _LONG)
    there = f"Its dictionaries with weights: {choices}" if choices else "Leave the key out: it has no such dictionary"
    if not found:
        raise CheckpointError(f"it has nothing under {name!r}, found {_listed(content)}. {there}")
    if len(found) > 1:
        paths = " and ".join(repr(list(path)) for _, path in found)
        raise CheckpointError(f"key {name!r} has several meanings, {paths}. Rename one in PyTorch")
    value, path = found[0]
    if not isinstance(value, dict):
        raise CheckpointError(f"its {name!r} is {_what(value)}, expected a dictionary of tensors. {there}")
    return value, path


def _resolve(content: dict[Any, Any], name: str, path: tuple[str, ...]) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """All readings of a name with points, which keys may have too."""
    for key, value in content.items():
        if not isinstance(key, (str, int)):
            continue
        here = (*path, str(key))
        if name == str(key):
            yield value, here
        elif name.startswith(f"{key}.") and isinstance(inner := _numbered(value), dict):
            yield from _resolve(inner, name.removeprefix(f"{key}."), here)


def _plain(found: list[Dictionary]) -> Dictionary:
    """The weights as they were trained, of several dictionaries."""
    trained = [x for x in found if not x.averaged]
    if len(trained) > 1:
        usual = [x for x in trained if len(x.path) == 1 and x.path[0] in STATE_DICT_KEYS]
        trained = [x for x in trained if not x.path] or usual
    if len(trained) == 1:
        return trained[0]
    choices = [f"  {option(x.key)}: {len(x.content)} entries" for x in found if x.path and len(x.key) <= _LONG]
    more = [f"  ... and {len(choices) - _LISTED} more"] if len(choices) > _LISTED else []
    listed = "\n".join([*choices[:_LISTED], *more])
    raise CheckpointError(f"it has {len(found)} dictionaries with weights. Say which:\n{listed}")


def _notes(chosen: Dictionary, found: list[Dictionary]) -> list[str]:
    usual = [(), *((name,) for name in STATE_DICT_KEYS)]
    notes = [] if chosen.path in usual else [f"The weights are those under {short(chosen.key)}."]
    for other in found[:_LISTED]:
        if other is not chosen and other.path and len(other.key) <= _LONG:
            kind = "Averaged weights" if other.averaged else "Other weights"
            notes.append(f"{kind} stand beside under {other.key!r}: {option(other.key)}.")
    return notes


def _no_weights(content: dict[Any, Any], where: tuple[str, ...]) -> CheckpointError:
    place = f"its {'.'.join(where)!r}" if where else "it"
    return CheckpointError(f"{place} has no dictionary of tensors, found {_listed(content)}. {RESAVE}")


def check_tensors(weights: dict[Any, Any]) -> None:
    """Refuses a dictionary that has anything but tensors by name."""
    for key, value in weights.items():
        if isinstance(key, str) and isinstance(value, Tensor):
            continue
        if isinstance(key, str) and not _WEIGHT.fullmatch(key) and len(key) <= _LONG:
            remedy = f"If the network does not need it, leave it out: {ignoring([glob.escape(key)])}"
        else:
            remedy = f"{_CLASS}. {RESAVE}"
        raise CheckpointError(f"it has {short(key)}: {_what(value)}, expected a tensor. {remedy}")


def _what(value: Any) -> str:
    if isinstance(value, (Inert, Global)):
        return f"{value!r} (nothing was executed)"
    if isinstance(value, (Tensor, str, int, float, type(None))):
        return short(value)
    return f"a {type(value).__name__}"


def _remedy(value: Any) -> str:
    return f"{_CLASS}. {RESAVE}" if isinstance(value, (Inert, Global)) else RESAVE


def _listed(content: dict[Any, Any]) -> str:
    more = [f"and {len(content) - _LISTED} more"] if len(content) > _LISTED else []
    return ", ".join([*(_entry(key, value) for key, value in list(content.items())[:_LISTED]), *more])


def _entry(key: Any, value: Any) -> str:
    return f"{short(key)}: {_what(value)}" if isinstance(value, (Inert, Global)) else short(key)
