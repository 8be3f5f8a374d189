"""A reader of pickles that calls nothing.

A pickle is a program: Python's own reader imports and calls whatever the file names. This one knows the thirty
opcodes that `torch.save` writes and builds dictionaries, lists, tuples, numbers, strings and descriptions of tensors.
Names of functions and classes are looked up in a table of this module, and never imported.

A `pickle.Unpickler` whose `find_class` has this table would be shorter but is not a substitute: a file of nine bytes
makes it take gigabytes (its memo is an array as long as the largest index that the file names), the number of opcodes
and their set have no limit in it, and it sets attributes of what `find_class` returns.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from larq_rep.zoo.checkpoint.tensors import (
    DAMAGED,
    DTYPES,
    RESAVE,
    CheckpointError,
    Storage,
    Tensor,
    is_size,
    make_tensor,
    short,
)

# Far above real files: a ResNet-50 with the state of Adam has a pickle of 64 kB with some 21 thousand opcodes.
MAX_PICKLE = 16 * 2**20
_MAX_OPCODES = 1_000_000
_MAX_DEPTH = 32

# Objects beside the weights in real files: accuracies, arguments, states of optimizers and schedules. A call of
# one of these gives an `Inert`, whatever its arguments.
_INERT = {
    "_codecs encode",
    "argparse Namespace",
    "collections Counter",
    "collections defaultdict",
    "numpy dtype",
    "numpy ndarray",
    "torch Size",
    "torch device",
    "torch.serialization _get_layout",
    *(f"numpy.{core}.multiarray {name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *(f"__builtin__ {name}" for name in ("bytes", "dict", "int", "list", "set")),
    *(f"torch {name}" for name in ("float64", "float32", "float16", "bfloat16")),
    *(f"torch {name}" for name in ("int64", "int32", "int16", "int8", "uint8", "bool")),
}
_ORDERED_DICT = "collections OrderedDict"
_REBUILD_TENSOR = ("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor")
_REBUILD_PARAMETER = "torch._utils _rebuild_parameter"
_GLOBALS = {*_INERT, *DTYPES, *_REBUILD_TENSOR, _ORDERED_DICT, _REBUILD_PARAMETER}

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_CONTAINERS: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
# Python 2 wrote strings as BINSTRING and SHORT_BINSTRING.
_NUMBERS = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT")
_STRINGS = ("BINUNICODE", "BINSTRING", "SHORT_BINSTRING")
_OPCODES = {
    *_CONSTANTS,
    *_CONTAINERS,
    *_TUPLES,
    *_NUMBERS,
    *_STRINGS,
    *("PROTO", "STOP", "MARK", "TUPLE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "APPEND", "APPENDS"),
    *("SETITEM", "SETITEMS", "GLOBAL", "REDUCE", "NEWOBJ", "BUILD", "BINPERSID"),
}
_BY_CODE = {opcode.code: opcode for opcode in pickletools.opcodes}


@dataclass(frozen=True)
class Global:
    """The name of a function or class, and nothing more."""

    name: str


@dataclass(frozen=True)
class Inert:
    """An object that is skipped."""

    name: str


def unpickle(stream: io.BytesIO) -> tuple[Any, dict[str, Storage]]:
    """Reads one pickle of protocol 2 and leaves the stream at its end.

    # Returns
        Its value, and the storages that it names, by key.

    # Raises
        CheckpointError: If it is broken, too long or too deep, or has anything that state dicts do not have.
    """
    stack: list[Any] = []
    below: list[list[Any]] = []
    memo: dict[int, Any] = {}
    storages: dict[str, Storage] = {}

    def since_mark() -> list[Any]:
        nonlocal stack
        items, stack = stack, below.pop()
        return items

    position = stream.tell()
    try:
        for _ in range(_MAX_OPCODES):
            position = stream.tell()
            name, argument = _next_opcode(stream)
            if name == "STOP":
                if below or len(stack) != 1:
                    raise CheckpointError(f"a pickle ends with {len(stack)} values, expected 1. {DAMAGED}")
                _check_depth(stack[0])
                return stack[0], storages
            elif name == "PROTO":
                if argument != 2:
                    raise CheckpointError(f"its pickle has protocol {argument}, expected 2, the default. {RESAVE}")
            elif name in _NUMBERS or name in _STRINGS:
                stack.append(argument)
            elif name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            elif name in _CONTAINERS:
                stack.append(_CONTAINERS[name]())
            elif name == "MARK":
                below.append(stack)
                stack = []
            elif name == "TUPLE":
                items = since_mark()
                stack.append(tuple(items))
            elif name in _TUPLES:
                items = [stack.pop() for _ in range(_TUPLES[name])]
                stack.append(tuple(reversed(items)))
            elif name in ("BINPUT", "LONG_BINPUT"):
                memo[argument] = stack[-1]
            elif name in ("BINGET", "LONG_BINGET"):
                stack.append(memo[argument])
            elif name in ("APPEND", "APPENDS"):
                items = since_mark() if name == "APPENDS" else [stack.pop()]
                _expect(stack[-1], list, "a list")
                stack[-1].extend(items)
            elif name in ("SETITEM", "SETITEMS"):
                items = since_mark() if name == "SETITEMS" else [stack.pop(), stack.pop()][::-1]
                _set_items(stack[-1], items)
            elif name == "GLOBAL":
                stack.append(_lookup(argument))
            elif name in ("REDUCE", "NEWOBJ"):
                arguments = stack.pop()
                stack.append(_instead_of_a_call(stack.pop(), arguments))
            elif name == "BUILD":
                # Attributes, such as the layers' versions that a state dict carries: left out.
                stack.pop()
                _expect(stack[-1], (dict, Inert), "a dictionary or an object that is skipped")
            else:  # BINPERSID
                storage = _make_storage(stack.pop())
                if storages.setdefault(storage.key, storage) != storage:
                    raise CheckpointError(f"storage {short(storage.key)} has two types or sizes. {DAMAGED}")
                stack.append(storage)
    except CheckpointError:
        raise
    except (IndexError, KeyError, ValueError) as error:
        # An empty stack, a memo that was never filled, an argument that is cut off.
        raise CheckpointError(f"its pickle is broken at byte {position:,} ({error!r}). {DAMAGED}") from error
    raise CheckpointError(f"its pickle has over {_MAX_OPCODES:,} opcodes. {RESAVE}")


def _next_opcode(stream: io.BytesIO) -> tuple[str, Any]:
    position = stream.tell()
    code = stream.read(1)
    if not code:
        raise CheckpointError(f"its pickle stops at byte {position:,}, expected more. {DAMAGED}")
    opcode = _BY_CODE.get(code.decode("latin-1"))
    name = opcode.name if opcode else f"0x{code.hex()}"
    if opcode is None or name not in _OPCODES:
        raise CheckpointError(
            f"its pickle has opcode {name} at byte {position:,}, expected those that torch.save writes. Nothing was "
            f"executed. {RESAVE}"
        )
    if name == "GLOBAL":
        # Not with pickletools, which takes backslashes in names for escapes.
        return name, " ".join(stream.readline().decode("ascii").removesuffix("\n") for _ in range(2))
    return name, opcode.arg.reader(stream) if opcode.arg else None


def _expect(value: Any, kind: Any, what: str) -> None:
    if not isinstance(value, kind):
        raise CheckpointError(f"its pickle has {short(value)} where {what} should be. {DAMAGED}")


def _set_items(target: Any, items: list[Any]) -> None:
    _expect(target, (dict, Inert), "a dictionary")
    if len(items) % 2:
        raise CheckpointError(f"its pickle has a key without a value. {DAMAGED}")
    for key, value in zip(items[::2], items[1::2], strict=True):
        # Longer numbers are refused: any number of them can share one hash, and make a dictionary slow.
        if not isinstance(key, str) and not (isinstance(key, int) and abs(key) < 2**63):
            raise CheckpointError(f"it has a dictionary with key {short(key)}, expected a string or a number. {RESAVE}")
        if isinstance(target, dict):
            target[key] = value


def _lookup(name: str) -> Global:
    if name not in _GLOBALS:
        raise CheckpointError(
            f"it asks for {short(name.replace(' ', '.'))}, expected only tensors and plain data. Nothing was executed. "
            f"A file that holds a whole model, or other objects of a program, cannot be read. {RESAVE}"
        )
    return Global(name)


def _instead_of_a_call(function: Any, arguments: Any) -> Any:
    _expect(function, Global, "a known name")
    _expect(arguments, tuple, "a tuple of arguments")
    name = function.name
    if name in _INERT:
        return Inert(name)
    if name == _ORDERED_DICT:
        # Python 3 fills it afterwards; Python 2 gives one list of pairs.
        pairs = arguments[0] if arguments else []
        _expect(pairs, list, "a list of pairs")
        items: dict[Any, Any] = {}
        for pair in pairs:
            _expect(pair, list, "a pair")
            _set_items(items, pair)
        return items
    if name in _REBUILD_TENSOR and len(arguments) >= 4:
        return make_tensor(*arguments[:4])
    if name == _REBUILD_PARAMETER and arguments:
        _expect(arguments[0], Tensor, "a tensor")
        return arguments[0]
    raise CheckpointError(f"its pickle calls {short(name)} with {short(arguments)}. Nothing was executed. {DAMAGED}")


def _make_storage(pid: Any) -> Storage:
    # ("storage", type, key, device, numel); until PyTorch 1.5 followed by None, or by a place in another storage.
    match pid:
        case ("storage", Global(kind), str(key), _, numel) | ("storage", Global(kind), str(key), _, numel, None):
            if kind in DTYPES and is_size(numel):
                return Storage(kind, key, numel)
        case ("module", *_):
            raise CheckpointError(f"it holds a whole model, expected its weights. {RESAVE}")
    raise CheckpointError(f"its pickle has {short(pid)}, expected type, key and size of a storage. {RESAVE}")


def _check_depth(content: Any) -> None:
    level, seen = [content], set()
    for _ in range(_MAX_DEPTH):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, (dict, list, tuple)) and id(value) not in seen:
                seen.add(id(value))
                inner.extend(value.values() if isinstance(value, dict) else value)
        if not inner:
            return
        level = inner
    raise CheckpointError(f"its pickle is nested over {_MAX_DEPTH} deep. {RESAVE}")
