"""A reader of pickles that calls nothing.

A pickle is a program: Python's own reader imports and calls whatever the file names. This one knows the opcodes of the
protocols 2 to 5 and builds dictionaries, lists, tuples, numbers, strings and descriptions of tensors. What a call of
any other function or class would give is skipped: an `Inert` stands in its place, whatever is done with it. Names are
never imported.

A `pickle.Unpickler` with its own `find_class` would be shorter but is not a substitute: a file of nine bytes makes it
take gigabytes (its memo is an array as long as the largest index that the file names), the number of opcodes and their
set have no limit in it, and it sets attributes of what `find_class` returns.
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

_ORDERED_DICT = "collections OrderedDict"
_DEFAULT_DICT = "collections defaultdict"
_REBUILD_TENSOR = ("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor")
_REBUILD_PARAMETER = ("torch._utils _rebuild_parameter", "torch._utils _rebuild_parameter_with_state")
_REBUILD_SUBCLASS = "torch._tensor _rebuild_from_type_v2"

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_CONTAINERS: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": lambda: Inert("builtins set"),
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_NUMBERS = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT")
# Python 2 wrote strings as BINSTRING and SHORT_BINSTRING.
_STRINGS = ("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING")
_SKIPPED = ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "LONG4")
_PUT, _GET = ("BINPUT", "LONG_BINPUT", "MEMOIZE"), ("BINGET", "LONG_BINGET")
# Those that take everything since the last mark, or one item.
_APPEND, _SET = ("APPENDS", "APPEND", "ADDITEMS"), ("SETITEMS", "SETITEM")
_OPCODES = {
    *_CONSTANTS,
    *_CONTAINERS,
    *_TUPLES,
    *_NUMBERS,
    *_STRINGS,
    *_SKIPPED,
    *_PUT,
    *_GET,
    *_APPEND,
    *_SET,
    *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "TUPLE", "FROZENSET", "GLOBAL", "STACK_GLOBAL", "REDUCE"),
    *("NEWOBJ", "NEWOBJ_EX", "BUILD", "BINPERSID"),
}
_BY_CODE = {opcode.code: opcode for opcode in pickletools.opcodes}


@dataclass(frozen=True)
class Global:
    """The name of a function or class, and nothing more."""

    name: str

    def __repr__(self) -> str:
        return f"the name {_dotted(self.name)}"


@dataclass(frozen=True, eq=False)
class Inert:
    """An object that is skipped."""

    name: str

    def __repr__(self) -> str:
        return f"an object of {_dotted(self.name)}"


def _dotted(name: str) -> str:
    return short(name.replace(" ", "."))


def unpickle(stream: io.BytesIO) -> tuple[Any, dict[str, Storage]]:
    """Reads one pickle and leaves the stream at its end.

    # Returns
        Its value, and the storages that it names, by key.

    # Raises
        CheckpointError: If it is broken, too long or too deep, or has an opcode that the protocols 2 to 5 do not have.
    """
    machine = _Machine()
    position = stream.tell()
    try:
        for _ in range(_MAX_OPCODES):
            position = stream.tell()
            name, argument = _next_opcode(stream)
            if name == "STOP":
                return machine.result(), machine.storages
            machine.step(name, argument)
    except CheckpointError:
        raise
    except (IndexError, KeyError, ValueError) as error:
        # An empty stack, a memo that was never filled, an argument that is cut off.
        raise CheckpointError(f"its pickle is broken at byte {position:,} ({error!r}). {DAMAGED}") from error
    raise CheckpointError(f"its pickle has over {_MAX_OPCODES:,} opcodes. {RESAVE}")


class _Machine:
    """The stack of a pickle, which begins anew at each mark, its memo and its storages."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def result(self) -> Any:
        if self.below or len(self.stack) != 1:
            raise CheckpointError(f"a pickle ends with {len(self.stack)} values, expected 1. {DAMAGED}")
        _check_depth(self.stack[0])
        return self.stack[0]

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def last(self, count: int) -> list[Any]:
        return [self.stack.pop() for _ in range(count)][::-1]

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _NUMBERS or name in _STRINGS:
            stack.append(argument)
        elif name in _SKIPPED:
            stack.append(Inert("builtins int" if name == "LONG4" else "builtins bytes"))
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _CONTAINERS:
            stack.append(_CONTAINERS[name]())
        elif name == "MARK":
            self.below.append(stack)
            self.stack = []
        elif name in ("POP_MARK", "FROZENSET", "TUPLE"):
            items = self.since_mark()
            if name != "POP_MARK":
                self.stack.append(tuple(items) if name == "TUPLE" else Inert("builtins frozenset"))
        elif name == "POP":
            # With nothing above the last mark it takes the mark.
            self.since_mark() if self.below and not stack else stack.pop()
        elif name in _TUPLES:
            stack.append(tuple(self.last(_TUPLES[name])))
        elif name in _PUT:
            self.memo[len(self.memo) if argument is None else argument] = stack[-1]
        elif name in _GET:
            stack.append(self.memo[argument])
        elif name in _APPEND:
            items = self.last(1) if name == "APPEND" else self.since_mark()
            _expect(self.stack[-1], (list, Inert), "a list")
            if isinstance(self.stack[-1], list):
                self.stack[-1].extend(items)
        elif name in _SET:
            items = self.last(2) if name == "SETITEM" else self.since_mark()
            _set_items(self.stack[-1], items)
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            stack.append(Global(argument if name == "GLOBAL" else _joined(*self.last(2))))
        elif name not in ("PROTO", "FRAME"):
            self._call(name)

    def _call(self, name: str) -> None:
        stack = self.stack
        if name == "BUILD":
            # Attributes, such as the layers' versions that a state dict carries: left out.
            stack.pop()
            _expect(stack[-1], (dict, Inert), "a dictionary or an object that is skipped")
        elif name == "BINPERSID":
            stack.append(self._persistent(stack.pop()))
        else:  # REDUCE, NEWOBJ, NEWOBJ_EX
            function, arguments = self.last(3)[:2] if name == "NEWOBJ_EX" else self.last(2)
            stack.append(_instead_of_a_call(function, arguments))

    def _persistent(self, pid: Any) -> Any:
        # ("storage", type, key, device, numel); until PyTorch 1.5 followed by None, or by a place in another storage.
        match pid:
            case ("storage", Global(kind), str(key), _, numel) | ("storage", Global(kind), str(key), _, numel, None):
                if is_size(numel):
                    storage = Storage(kind, key, numel)
                    if self.storages.setdefault(key, storage) != storage:
                        raise CheckpointError(f"storage {short(key)} has two types or sizes. {DAMAGED}")
                    return storage if kind in DTYPES else Inert(kind)
            case ("module", Global() as module, *_):
                return module
            case ("storage", *_):
                pass
            case _:
                return Inert("persistent_id")
        raise CheckpointError(f"its pickle has {short(pid)}, expected type, key and size of a storage. {RESAVE}")


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
        return name, " ".join(stream.readline().decode().removesuffix("\n") for _ in range(2))
    argument: Any = opcode.arg.reader(stream) if opcode.arg else None
    if name == "PROTO" and not 2 <= argument <= 5:
        raise CheckpointError(f"its pickle has protocol {argument}, expected 2 to 5. {RESAVE}")
    return name, argument


def _joined(module: Any, name: Any) -> str:
    _expect(module, str, "the name of a module")
    _expect(name, str, "the name of a class")
    return f"{module} {name}"


def _expect(value: Any, kind: Any, what: str) -> None:
    if not isinstance(value, kind):
        raise CheckpointError(f"its pickle has {short(value)} where {what} should be. {DAMAGED}")


def _set_items(target: Any, items: list[Any]) -> None:
    _expect(target, (dict, Inert), "a dictionary")
    if len(items) % 2:
        raise CheckpointError(f"its pickle has a key without a value. {DAMAGED}")
    if isinstance(target, Inert):
        return
    for key, value in zip(items[::2], items[1::2], strict=True):
        # No other key is hashed: any number of long numbers or tuples can share one hash, and make a dictionary slow.
        plain = isinstance(key, (str, Inert)) or (isinstance(key, int) and abs(key) < 2**63)
        target[key if plain else Inert(f"builtins {type(key).__name__}")] = value


def _instead_of_a_call(function: Any, arguments: Any) -> Any:
    _expect(function, (Global, Inert), "a function or class")
    _expect(arguments, (tuple, Inert), "a tuple of arguments")
    name = function.name
    if isinstance(function, Inert) or isinstance(arguments, Inert):
        return Inert(name)
    if name == _DEFAULT_DICT:
        return {}
    if name == _ORDERED_DICT:
        # Python 3 fills it afterwards; Python 2 gives one list of pairs.
        pairs = arguments[0] if arguments else []
        _expect(pairs, list, "a list of pairs")
        items: dict[Any, Any] = {}
        for pair in pairs:
            _expect(pair, list, "a pair")
            _set_items(items, pair)
        return items
    if name == _REBUILD_SUBCLASS:
        match arguments:
            case (Global(inner), _, tuple() as parts, *_) if inner in (*_REBUILD_TENSOR, *_REBUILD_PARAMETER):
                return _instead_of_a_call(arguments[0], parts)
    if name in (*_REBUILD_TENSOR, *_REBUILD_PARAMETER):
        # Of numbers that have no type in numpy, or of a class of the program.
        if arguments and isinstance(arguments[0], Inert):
            return arguments[0]
        if name in _REBUILD_TENSOR and len(arguments) >= 4:
            return make_tensor(*arguments[:4])
        if name in _REBUILD_PARAMETER and arguments:
            _expect(arguments[0], Tensor, "a tensor")
            return arguments[0]
        raise CheckpointError(
            f"its pickle calls {short(name)} with {short(arguments)}. Nothing was executed. {DAMAGED}"
        )
    return Inert(name)


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
