"""Writes what is wrong with a checkpoint in a few lines, what to do first."""

from __future__ import annotations

import fnmatch
import glob
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from larq_rep.zoo.checkpoint.dictionaries import ignoring
from larq_rep.zoo.checkpoint.tensors import short

LINES = 25
_TOGETHER = 3  # So many keys without a place become one line.
_LEFT = "left over"
_PATTERNS = 6
_BY_KIND = {
    "wrong type": "Take the checkpoint from before its weights were made integers: their scale is not known.",
    "not finite": "Take a checkpoint from before the training diverged.",
}
_OTHER_ARGUMENTS = (
    "Give the arguments that it was trained with (lce import: --set NAME=VALUE), or take a checkpoint of the whole "
    "network."
)


class Problem(NamedTuple):
    """What is wrong with a key, or a weight of the network.

    # Attributes
        kind: `missing`, `left over`, `wrong shape`, ...
        key: The key or weight.
        text: What is said of it.
    """

    kind: str
    key: str
    text: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {shown(self.key)}{self.text}"


class Head(NamedTuple):
    """A dense layer of the network.

    # Attributes
        key: Its key.
        classes: Its outputs.
        found: The shape of its weights in the file, `(0,)` if there are none.
        below: Whether the file has anything of this key.
    """

    key: str
    classes: int
    found: tuple[int, ...]
    below: bool


def shown(key: str) -> str:
    """A key as it is, if it is short and has no line of its own."""
    return key if key.isprintable() and len(key) <= 120 else short(key)


def groups(keys: Iterable[str]) -> dict[str, list[str]]:
    """Keys by the first part of their names, as the pattern that they have."""
    found: dict[str, list[str]] = {}
    for key in keys:
        name, point, _ = key.partition(".")
        found.setdefault(f"{shown(name)}.*" if point else shown(key), []).append(key)
    return found


def refusal(
    first: str,
    another: Sequence[str],
    problems: Collection[Problem],
    used: Collection[str],
    ignored: Mapping[str, str],
    heads: Sequence[Head],
) -> str:
    """The message of an error: its first line, what to do, and what is wrong, in at most `LINES` lines.

    # Arguments
        first: The first line.
        another: The line that names the network whose keys these are, if it is another.
        problems: What is wrong.
        used: The keys that the network has.
        ignored: The keys that were left out on demand, with their patterns.
        heads: The dense layers.
    """
    # What is left over of another network is not to be left out.
    remedies = [*another, *_remedies(problems, used, ignored, heads, not another)]
    room = LINES - 1 - len(remedies)
    known = {key.partition(".")[0] for key in used}
    left = [problem for problem in problems if problem.kind == _LEFT]
    names = {key: name for name, keys in groups(problem.key for problem in left).items() for key in keys}
    lines = {_LEFT: _together(left, names, known)}
    for problem in sorted(problems):
        if problem.kind != _LEFT:
            lines.setdefault(problem.kind, []).append(str(problem))
    if sum(map(len, lines.values())) > room:
        inside = {key: f"*.{shown(key.rpartition('.')[2])}" for key in names if key.partition(".")[0] in known}
        lines[_LEFT] = _together(left, names | inside, ())
    shares = _shares([len(each) for each in lines.values()], room)
    listed = []
    for share, (kind, each) in zip(shares, lines.items(), strict=True):
        listed += each if len(each) <= share else [*each[: share - 1], f"{kind}: ... and {len(each) - share + 1} more"]
    return "\n".join([first, *remedies, *(f"  {line}" for line in listed)])


def _together(left: Sequence[Problem], names: dict[str, str], known: Collection[str]) -> list[str]:
    """A line for each key, or one for several of the same name whose first part the network does not have."""
    by_name: dict[str, list[Problem]] = {}
    for problem in sorted(left):
        together = problem.key.partition(".")[0] not in known
        by_name.setdefault(names[problem.key] if together else problem.key, []).append(problem)
    lines: list[str] = []
    for name, each in by_name.items():
        if len(each) < _TOGETHER:
            lines += map(str, each)
        else:
            lines.append(f"{_LEFT}: {name}: {len(each)} keys, such as {shown(each[0].key)}{each[0].text}")
    return lines


def _shares(wanted: list[int], room: int) -> list[int]:
    """Lines for each kind: the short lists whole, the rest shared among the long ones."""
    shares = [0] * len(wanted)
    order = sorted(range(len(wanted)), key=lambda place: wanted[place])
    for done, place in enumerate(order):
        shares[place] = min(wanted[place], max(1, room // (len(order) - done)))
        room -= shares[place]
    return shares


def _remedies(
    problems: Collection[Problem],
    used: Collection[str],
    ignored: Mapping[str, str],
    heads: Sequence[Head],
    leave_out: bool,
) -> list[str]:
    """What to do, where the problems tell."""
    kinds: dict[str, list[str]] = {}
    for problem in problems:
        kinds.setdefault(problem.kind, []).append(problem.key)
    lines: list[str] = []
    if "ignored" in kinds:
        taking = list(dict.fromkeys(ignored[key] for key in kinds["ignored"]))
        lines.append(f"The network needs keys that {ignoring(taking[:_PATTERNS])} takes. Mend the pattern.")
    lost = set(kinds.get("missing", []))
    without = [head for head in heads if lost and lost <= {f"{head.key}.weight", f"{head.key}.bias"}]
    for head in without:
        what = f"Its classifier {head.key!r} is not one layer" if head.below else f"It has no classifier {head.key!r}"
        lines.append(f"{what}. Build the network without: include_top=False (lce import: --set include_top=False).")
    for head in heads:
        if len(head.found) == 2 and (classes := head.found[0]) != head.classes:
            option = f"num_classes={classes} (lce import: --num-classes {classes})"
            lines.append(f"It has {classes} classes, the network {head.classes}: {option}.")
    lines += [remedy for kind, remedy in _BY_KIND.items() if kinds.keys() == {kind}]
    left = [key for key in kinds.get(_LEFT, []) if key.partition(".")[0] not in [head.key for head in without]]
    patterns = _patterns(left, used) if leave_out and (kinds.keys() == {_LEFT} or without) else []
    if patterns:
        lines.append(f"Leave out what the network does not need: {ignoring(patterns)}.")
    if not lines and leave_out and kinds.keys() <= {"missing", "wrong shape"}:
        lines.append(_OTHER_ARGUMENTS)
    return lines


def _patterns(keys: Iterable[str], used: Collection[str]) -> list[str]:
    """Shell patterns that take these keys and none that the network has."""
    patterns: dict[str, None] = {}
    for key in sorted(key for key in keys if len(key) <= 120):
        if len(patterns) == _PATTERNS:
            break
        if any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns):
            continue
        first, last = glob.escape(key.partition(".")[0]), glob.escape(key.rpartition(".")[2])
        wide = [f"{first}.*", f"*.{last}"] if "." in key else []
        fitting = [pattern for pattern in wide if not fnmatch.filter(used, pattern)]
        patterns[(fitting or [glob.escape(key)])[0]] = None
    return list(patterns)
