"""Files in the layouts of `torch.save`, written without PyTorch.

The pickles are those of Python's own pickler, which PyTorch uses too: stand-ins take the places of PyTorch's functions
and classes while it runs.
"""

import io
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from unittest import mock

import numpy as np

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {"f8": "Double", "f4": "Float", "f2": "Half", "i8": "Long", "i4": "Int", "i2": "Short"}
STORAGES |= {"i1": "Char", "u1": "Byte", "b1": "Bool"}


def _module(name, *names):
    """A module with classes and functions that only have a name."""
    module = types.ModuleType(name)
    for attribute in names:
        setattr(module, attribute, type(attribute, (), {"__module__": name}))
    return module


_kinds = [f"{kind}Storage" for kind in (*STORAGES.values(), "BFloat16")]
_torch = _module("torch", *_kinds, "Size", "device")
_utils = _module("torch._utils", "_rebuild_tensor_v2", "_rebuild_parameter")
_modules = {"torch": _torch, "torch._utils": _utils}


class Storage:
    def __init__(self, kind, content, key, location="cpu"):
        self.kind, self.content, self.key, self.location = kind, content, key, location
        size = {"Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Short": 2}.get(kind, 1)
        self.numel = len(content) // size


class Call:
    """Is pickled as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Tensor:
    """A tensor of a file: all of `storage`, or what offset, shape and strides say."""

    def __init__(self, storage, shape, strides=None, offset=0, parameter=False):
        if strides is None:
            strides = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
        self.call = storage, offset, tuple(shape), tuple(strides), False, OrderedDict()
        self.parameter = parameter

    def __reduce__(self):
        if self.parameter:
            return _utils._rebuild_parameter, (Call(_utils._rebuild_tensor_v2, *self.call), True, OrderedDict())
        return _utils._rebuild_tensor_v2, self.call


def tensor(array, key, **kwargs):
    """The tensor of an array, in a storage of its own."""
    array = np.asarray(array)
    return Tensor(Storage(STORAGES[array.dtype.str[1:]], array.tobytes(), key), array.shape, **kwargs)


def size(*shape):
    return Call(_torch.Size, shape)


def device(*where):
    return Call(_torch.device, *where)


def state_dict(tensors):
    """As `Module.state_dict()` returns it: ordered, with the layers' versions as an attribute."""
    ordered = OrderedDict(tensors)
    ordered._metadata = OrderedDict({"": {"version": 1}, "fc": {"version": 1}})
    return ordered


def dump(content, legacy=False, protocol=2):
    """The pickle of something, and the storages in it."""
    storages = {}

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if not isinstance(value, Storage):
                return None
            storages[value.key] = value
            kind = getattr(_torch, f"{value.kind}Storage")
            pid = ("storage", kind, value.key, value.location, value.numel)
            return (*pid, None) if legacy else pid

    stream = io.BytesIO()
    with mock.patch.dict(sys.modules, _modules):
        Pickler(stream, protocol).dump(content)
    return stream.getvalue(), storages


class _Forward(io.RawIOBase):
    """A stream that cannot go back, so that the sizes of members stand behind them as in PyTorch's files."""

    def __init__(self):
        self.content = bytearray()

    def writable(self):
        return True

    def write(self, part):
        self.content += part
        return len(part)


def members(content):
    """Names and contents of the members of a file of PyTorch 1.6 or newer."""
    pickled, storages = dump(content)
    return {
        "archive/data.pkl": pickled,
        "archive/byteorder": b"little",
        **{f"archive/data/{key}": storage.content for key, storage in storages.items()},
        "archive/version": b"3\n",
        "archive/.data/serialization_id": b"0123456789" * 4,
    }


def zipped(parts, compression=zipfile.ZIP_STORED):
    """A zip archive of (name, content) with contents at multiples of 64 bytes, as PyTorch lays them."""
    stream = _Forward()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in parts.items() if isinstance(parts, dict) else parts:
            info = zipfile.ZipInfo(name)
            info.compress_type = compression
            padding = -(len(stream.content) + 30 + len(name) + 4) % 64
            info.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
            archive.writestr(info, content)
    return bytes(stream.content)


def zip_file(content):
    return zipped(members(content))


SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


def legacy_parts(content, system=None, version=1001):
    """The parts of a file of PyTorch before 1.6: five pickles, then a number and the bytes of each storage."""
    pickled, storages = dump(content, legacy=True)
    keys = sorted(storages)
    return [
        *(pickle.dumps(part, 2) for part in (LEGACY_MAGIC, version, system or SYSTEM)),
        pickled,
        pickle.dumps(keys, 2),
        *(struct.pack("<q", storages[key].numel) + storages[key].content for key in keys),
    ]


def legacy_file(content, **kwargs):
    return b"".join(legacy_parts(content, **kwargs))


def checkpoint(arrays, legacy=False):
    """The file that a training script of ReActNet writes."""
    tensors = {key: tensor(array, str(i)) for i, (key, array) in enumerate(arrays.items())}
    content = {
        "epoch": 127,
        "state_dict": state_dict(tensors),
        "optimizer": {"state": {}, "param_groups": []},
    }
    return (legacy_file if legacy else zip_file)(content)
