"""Checkpoints of PyTorch: what is read from honest ones, and what hostile and broken ones cannot do."""

import argparse
import collections
import contextlib
import copy
import io
import os
import pickle
import random
import re
import resource
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch_files
from torch_files import Storage, Tensor, legacy_file, state_dict, tensor, zip_file

from larq_rep.zoo.checkpoint import READERS, STATE_DICT_KEYS, CheckpointError, read_state_dict

FORMATS = [pytest.param(zip_file, id="zip"), pytest.param(legacy_file, id="legacy")]
both = pytest.mark.parametrize("write", FORMATS)
RNG = np.random.default_rng(0)
ARRAYS = {
    "module.feature.0.conv1.weight": RNG.standard_normal((4, 3, 3, 3)).astype("f4"),
    "module.feature.1.binary_3x3.weights": RNG.standard_normal((36, 1)).astype("f4"),
    "module.bn1.running_var": RNG.uniform(1, 2, 4).astype("f4"),
    "module.bn1.num_batches_tracked": np.array(7, "i8"),
}


def weights(arrays=ARRAYS, first=0):
    return state_dict({name: tensor(array, str(first + i)) for i, (name, array) in enumerate(arrays.items())})


def checkpoint():
    """What the training script of ReActNet saves, with Adam's state and one step of it."""
    ones = {name: np.ones_like(array) for name, array in ARRAYS.items()}
    moments = {i: {"step": 1, "exp_avg": x} for i, x in enumerate(weights(ones, 10).values())}
    groups = [{"lr": 5e-4, "betas": (0.9, 0.999), "weight_decay": 0, "amsgrad": False, "params": [0, 1, 2, 3]}]
    best = Tensor(Storage("Float", np.float32(65.5).tobytes(), "20", "cuda:0"), ())
    optimizer = {"state": moments, "param_groups": groups}
    return {"epoch": 255, "state_dict": weights(), "best_top1_acc": best, "optimizer": optimizer}


def save(folder, content, name="checkpoint.pth.tar"):
    path = folder / name
    path.write_bytes(content)
    return path


def refuse(folder, content, message, **kwargs):
    """The file is refused with this message and its name, and nothing else appears in its folder."""
    path = save(folder, content)
    with pytest.raises(CheckpointError, match=message) as error:
        read_state_dict(path, **kwargs)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 1000
    assert os.listdir(folder) == [path.name]


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name, strict=True)
        assert found[name].flags.c_contiguous
        assert found[name].flags.writeable


# What is read


@both
def test_weights_of_a_training_script(tmp_path, write):
    assert_same(read_state_dict(save(tmp_path, write(checkpoint()))), ARRAYS)


@both
@pytest.mark.parametrize("key", [*STATE_DICT_KEYS, None])
def test_where_the_state_dict_is(tmp_path, write, key):
    content = {key: weights(), "acc": 91.2, "epoch": 3} if key else weights()
    assert_same(read_state_dict(str(save(tmp_path, write(content)))), ARRAYS)


@both
def test_plain_data_beside_the_weights_is_read_over(tmp_path, write):
    beside = {
        "best_acc": np.float64(92.5),
        "epochs": np.int64(3),
        "arguments": argparse.Namespace(lr=0.1, data="/data", gpus=None, milestones=[1, 2]),
        "milestones": collections.Counter({30: 1, 60: 1}),
        "curves": collections.defaultdict(list, {"loss": [1.0, 0.5]}),
        "history": np.arange(3.0),
        "seen": {1, 2},
        "size": torch_files.size(3, 32, 32),
        "device": torch_files.device("cuda", 0),
        "numbers": (True, None, -1, 2**40, -(2**70), 1e-3, "é", b"bytes", [1, (2,)], {1: {"2": 3}}),
    }
    assert_same(read_state_dict(save(tmp_path, write({"state_dict": weights(), **beside}))), ARRAYS)


@both
@pytest.mark.parametrize("kind", torch_files.STORAGES)
def test_types(tmp_path, write, kind):
    array = np.array([[0, 1, 2], [100, 5, 1]]).astype(kind)
    assert_same(read_state_dict(save(tmp_path, write({"w": tensor(array, "0")}))), {"w": array})


@both
def test_bfloat16_becomes_float32(tmp_path, write):
    # 1 sign, 8 exponent and 7 mantissa bits: 1, -2.5, 3.140625, infinity, the smallest normal number.
    bits = np.array([0x3F80, 0xC020, 0x4049, 0x7F80, 0x0080], "u2")
    storage = Storage("BFloat16", bits.tobytes(), "0")
    found = read_state_dict(
        save(tmp_path, write({"w": Tensor(storage, (5,)), "scalar": Tensor(storage, (), offset=1)}))
    )
    expected = np.array([1, -2.5, 3.140625, np.inf, 2.0**-126], "f4")
    assert_same(found, {"w": expected, "scalar": np.array(-2.5, "f4")})


@both
def test_any_byte_but_zero_is_true(tmp_path, write):
    content = {"w": Tensor(Storage("Bool", bytes([0, 1, 2, 255]), "0"), (4,))}
    assert_same(read_state_dict(save(tmp_path, write(content))), {"w": np.array([False, True, True, True])})


@both
def test_views(tmp_path, write):
    numbers = np.arange(24, dtype="f4")
    storage = Storage("Float", numbers.tobytes(), "0")
    content = {
        "transposed": Tensor(storage, (4, 6), (1, 4)),
        "sliced": Tensor(storage, (2, 3), (12, 2), offset=5),
        "overlapping": Tensor(storage, (3, 4), (2, 1)),
        "one": Tensor(storage, (1, 2), (2**62, 1), offset=22),
        "parameter": Tensor(storage, (24,), parameter=True),
        "tied": Tensor(storage, (24,)),
        "empty": Tensor(storage, (0, 3)),
    }
    found = read_state_dict(save(tmp_path, write(content)))
    expected = {
        "transposed": numbers.reshape(6, 4).T,
        "sliced": numbers[5:].reshape(-1)[[0, 2, 4, 12, 14, 16]].reshape(2, 3),
        "overlapping": np.array([[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7]], "f4"),
        "one": np.array([[22, 23]], "f4"),
        "parameter": numbers,
        "tied": numbers,
        "empty": np.zeros((0, 3), "f4"),
    }
    assert_same(found, expected)
    found["parameter"][:] = 0
    assert_same({"tied": found["tied"]}, {"tied": numbers})


def test_file_of_python_2(tmp_path):
    # There an OrderedDict is a call with a list of pairs, and a string has one byte for each character.
    def text(string):
        return b"U" + bytes([len(string)]) + string.encode()

    array = np.array([1, 2, 3], "f4")
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("19") + text("cuda:0") + b"\x8a\x01\x03NtQ"
    rebuilt = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00(K\x03t(K\x01t\x89NtR"
    ordered = b"ccollections\nOrderedDict\n]"
    metadata = b"}" + text("_metadata") + ordered + b"\x85Rs"
    pickled = b"\x80\x02" + ordered + b"]" + text("lin.weight") + rebuilt + b"ea"
    pickled = pickled.replace(b"]" + text("lin.weight"), b"](" + text("lin.weight")) + b"\x85R" + metadata + b"b."
    parts = torch_files.legacy_parts({})
    keys = b"\x80\x02](" + text("19") + b"e."
    content = b"".join([*parts[:3], pickled, keys, struct.pack("<q", 3), array.tobytes()])
    assert_same(read_state_dict(save(tmp_path, content)), {"lin.weight": array})


# What is refused

OTHER_CONTENTS = {
    "neither": ({"epoch": 1, "loss": [0.5]}, "has no dictionary of tensors, found 'epoch', 'loss'"),
    "two": ({"net": weights(), "model": weights(first=9)}, r"(?s)2 dictionaries.*lce import: --key net.*--key model"),
    "empty": ({"state_dict": {}}, "no dictionary of tensors, found 'state_dict'"),
    "nothing": ({}, "has no tensor"),
    "list": ([weights()], "holds a list"),
    "tensor": (tensor(np.ones(2), "0"), r"holds a tensor of shape \(2,\), expected a dictionary"),
    "number": ({"model": {"w": tensor(np.ones(2), "0"), "k": 3}}, "has no dictionary of tensors, found 'model'"),
    "number among weights": (
        {"model": {"a.weight": tensor(np.ones(2), "0"), "k": 3}},
        r"has 'k': 3, expected a tensor.*lce import: --ignore k\)",
    ),
    "number as name": ({3: tensor(np.ones(2), "0")}, "found 3"),
}


@both
@pytest.mark.parametrize("content", OTHER_CONTENTS)
def test_content_without_a_state_dict(tmp_path, write, content):
    content, message = OTHER_CONTENTS[content]
    refuse(tmp_path, write(content), message)


class Evil:
    """Its pickle calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def calls(marker):
    """Pickles that make a file when Python reads them, and what the reader should say of each."""
    command = f"touch '{marker}'"
    program = f"open({str(marker)!r}, 'w').close()"
    system = b"cposix\nsystem\n"
    argument = b"X" + struct.pack("<I", len(command)) + command.encode()
    return {
        "system": (pickle.dumps(Evil(os.system, command), 2), "'posix.system'.*nothing was executed"),
        "eval": (pickle.dumps(Evil(eval, program), 2), "'__builtin__.eval'.*nothing was executed"),
        "exec": (pickle.dumps(Evil(exec, program), 2), "'__builtin__.exec'.*nothing was executed"),
        "open": (pickle.dumps(Evil(open, str(marker), "w"), 2), r"'io.open'.*nothing was executed"),
        "Popen": (pickle.dumps(Evil(subprocess.check_call, ["touch", str(marker)]), 2), "'commands.check_call'"),
        "getattr": (
            b"\x80\x02c__builtin__\ngetattr\n(c__builtin__\n__import__\nU\x02os\x85RU\x06systemtR"
            + argument
            + b"\x85R.",
            "'__builtin__.getattr'",
        ),
        "nested": (pickle.dumps({"state_dict": Evil(os.system, command)}, 2), "'posix.system'"),
        "INST": (b"\x80\x02(" + argument + b"iposix\nsystem\n.", "opcode INST.*Nothing was executed"),
        "OBJ": (b"\x80\x02(" + system + argument + b"o.", "opcode OBJ.*Nothing was executed"),
        "STACK_GLOBAL": (
            b"\x80\x02X\x05\x00\x00\x00posixX\x06\x00\x00\x00system\x93" + argument + b"\x85R.",
            "'posix.system'",
        ),
        "popped": (b"\x80\x02" + system + argument + b"\x85R0}.", "has no tensor"),
        "protocol 0": (pickle.dumps(Evil(os.system, command), 0), "opcode PUT.*Nothing was executed"),
        **{
            f"protocol {n}": (pickle.dumps(Evil(os.system, command), n), "'posix.system'.*nothing was executed")
            for n in (3, 4, 5)
        },
    }


def containers(pickled):
    """A pickle in each place where a file has one."""
    parts = {i: torch_files.legacy_parts({} if i == 3 else weights()) for i in range(1, 5)}
    members = torch_files.members(weights())
    return {
        "zip": torch_files.zipped({**members, "archive/data.pkl": pickled}),
        **{f"legacy {i}": b"".join([*part[:i], pickled, *part[i + 1 :]]) for i, part in parts.items()},
    }


# What is said where a legacy file has its version, its system and its list of storages.
ENVELOPE = "protocol version is|byte order is not|list of storages is not"


@pytest.mark.parametrize("name", calls(""))
def test_nothing_is_called(tmp_path, name):
    marker = tmp_path / "called"
    pickled, message = calls(marker)[name]
    for place, content in containers(pickled).items():
        refuse(tmp_path, content, message if place in ("zip", "legacy 3") else f"{message}|{ENVELOPE}")
    refuse(tmp_path, pickled, "pickle, but not one of torch.save|a text that begins")
    # The other way round: Python's own reader does make the file.
    result = pickle.loads(pickled)
    if isinstance(result, io.IOBase):
        result.close()
    assert marker.exists()


def test_nothing_is_imported(tmp_path, monkeypatch):
    library = tmp_path / "library"
    library.mkdir()
    (library / "hostile_module.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()\nthing = 1\n")
    monkeypatch.syspath_prepend(str(library))
    pickled = b"\x80\x02chostile_module\nthing\n."
    for content in containers(pickled).values():
        with pytest.raises(CheckpointError, match=rf"'hostile_module\.thing'.*nothing was executed|{ENVELOPE}"):
            read_state_dict(save(tmp_path, content))
    assert not (tmp_path / "imported").exists()
    assert pickle.loads(pickled) == 1
    assert (tmp_path / "imported").exists()


def test_no_object_gets_attributes(tmp_path):
    """BUILD sets attributes, and on a class those of every object of it."""
    tensors = torch_files.dump(weights())[0]
    state = b"}X\x01\x00\x00\x00aK\x01s"
    for target in (
        b"ccollections\nOrderedDict\n",
        b"ctorch\nFloatStorage\n",
        b"cargparse\nNamespace\n",
        b"K\x01",
        b"]",
    ):
        pickled = b"\x80\x02" + target + state + b"b0" + tensors[2:]
        refuse(tmp_path, containers(pickled)["zip"], "where a dictionary or an object that is skipped should be")
    assert not hasattr(argparse.Namespace, "a")


BROKEN = {
    "call of a number": (b"K\x01)R", "has 1 where a function or class"),
    "call of a storage type": (b"ctorch\nFloatStorage\n)R", "holds an object of 'torch.FloatStorage'"),
    "call with a list": (b"ccollections\nOrderedDict\n]R", r"has \[\] where a tuple"),
    "pairs that are none": (b"ccollections\nOrderedDict\nK\x05\x85R", "has 5 where a list of pairs"),
    "parameter of a number": (b"ctorch._utils\n_rebuild_parameter\nK\x01\x85R", "has 1 where a tensor"),
    "parameter of nothing": (b"ctorch._utils\n_rebuild_parameter\n)R", r"_rebuild_parameter' with \(\)"),
    "tensor of numbers": (b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x02))tR", "has 1 where its storage"),
    "tensor of little": (b"ctorch._utils\n_rebuild_tensor_v2\nK\x01\x85R", r"_rebuild_tensor_v2' with \(1,\)"),
    "empty stack": (b"R", "broken at byte 2"),
    "no mark": (b"t", "broken at byte 2"),
    "empty memo": (b"h\x05", "broken at byte 2"),
    "cut-off number": (b"J\x01", "broken at byte 2|ends with 2 values"),
    "string of 4 GB": (b"X\xff\xff\xff\xffabc", "broken at byte 2"),
    "string of no text": (b"X\x01\x00\x00\x00\xff", "broken at byte 2"),
    "key without value": (b"}(K\x01u", "key without a value"),
    "entry of a list": (b"]K\x01K\x02s", r"has \[\] where a dictionary"),
    "list as a key": (b"}]K\x01s", "no dictionary of tensors, found an object of 'builtins.list'"),
    "key of 70 bits": (b"}\x8a\x09" + b"\xff" * 8 + b"\x01K\x01s", "found an object of 'builtins.int'"),
    "element of a dictionary": (b"}K\x01a", r"has \{\} where a list"),
    "two values": (b"}}", "ends with 2 values"),
    "open mark": (b"(}", "ends with 1 values"),
    "object of the reader": (b"csys\nmodules\n", "holds the name 'sys.modules'"),
    "dotted name": (b"ccollections\nOrderedDict.__init__\n", "holds the name"),
    "name with a space": (b"ctorch._utils _rebuild_tensor_v2\nx\n", "holds the name"),
    "PROTO 6": (b"\x80\x06}", "protocol 6, expected 2 to 5"),
    "name of numbers": (b"K\x01K\x02\x93", "has 1 where the name of a module"),
    "memo of nothing": (b"\x94", "broken at byte 2"),
    "mark popped twice": (b"(11", "broken at byte 2"),
    "EXT1": (b"\x82\x01", "opcode EXT1"),
    "no opcode": (b"\xfe", "opcode 0xfe"),
    "whole model": (b"(X\x06\x00\x00\x00moduleK\x01K\x02K\x03tQ", "holds an object of 'persistent_id'"),
    "class of a model": (b"cmodels.reactnet\nReActNet\n)\x81", "'models.reactnet.ReActNet'.*state_dict"),
    "storage of nothing": (b"K\x01Q", "holds an object of 'persistent_id'"),
    "storage of nothing known": (b"(X\x07\x00\x00\x00storageK\x01X\x01\x00\x00\x000NK\x02tQ", "expected type, key and"),
    "nested lists": (b"]" * 100_000 + b"a" * 99_999, "nested over 32 deep"),
    "nested tuples": (b")" + b"\x85" * 100_000, "nested over 32 deep"),
    "nested dictionaries": (b"}" + b"K\x01}" * 90_000 + b"s" * 90_000, "nested over 32 deep"),
    "nested shape": (
        b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x00)" + b"\x85" * 100_000 + b")tR",
        "where its storage",
    ),
    "nested marks": (b"(" * 100_000 + b"}", "ends with 1 values"),
    "a million opcodes": (b"}" + b"N0" * 500_000, "over 1,000,000 opcodes"),
    "another million": (b"]" + b"(Ne" * 400_000, "over 1,000,000 opcodes"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_pickles(tmp_path, name):
    middle, message = BROKEN[name]
    found = containers(b"\x80\x02" + middle + b".")
    for place in ("zip", "legacy 3"):
        refuse(tmp_path, found[place], message.replace("byte 2", "byte [0-9]+"))


def test_list_of_itself(tmp_path):
    loop: list = []
    loop.append(loop)
    found = read_state_dict(save(tmp_path, zip_file({"state_dict": weights(), "loop": loop})))
    assert_same(found, ARRAYS)


FLOATS = Storage("Float", bytes(40), "0")  # 10 numbers
CLAIMS = {
    "too long": (Tensor(FLOATS, (11,)), "ends at number 11 of its storage, which has 10"),
    "too far": (Tensor(FLOATS, (5,), offset=6), "ends at number 11"),
    "too wide": (Tensor(FLOATS, (2, 2), (9, 1)), "ends at number 11"),
    "empty too far": (Tensor(FLOATS, (0,), offset=11), "ends at number 11"),
    "terabytes": (Tensor(FLOATS, (10**12,), (0,)), "repeats its storage of 10 numbers"),
    "exabytes": (Tensor(FLOATS, (10**6, 10**6, 10**6), (0, 0, 0)), "repeats its storage"),
    "product over 64 bits": (Tensor(FLOATS, (2**62, 4), (1, 1)), "ends at number"),
    "size over 64 bits": (Tensor(FLOATS, (2**64,), (0,)), "expected numbers from 0"),
    "stride over 64 bits": (Tensor(FLOATS, (1,), (2**64,)), "expected numbers from 0"),
    "negative size": (Tensor(FLOATS, (-1,), (1,)), "expected numbers from 0"),
    "negative stride": (Tensor(FLOATS, (2,), (-1,), offset=5), "expected numbers from 0"),
    "negative offset": (Tensor(FLOATS, (2,), offset=-1), "expected numbers from 0"),
    "no number": (Tensor(FLOATS, ("2",), (1,)), "expected numbers from 0"),
    "fractions": (Tensor(FLOATS, (2.0,), (1,)), "expected numbers from 0"),
    "stride missing": (Tensor(FLOATS, (2, 2), (1,)), "a stride for each"),
    "40 axes": (Tensor(FLOATS, (1,) * 40), "at most 32 axes"),
    "empty with a huge axis": (Tensor(FLOATS, (0, 2**62)), "tensors need"),
    "empty with huge axes": (Tensor(FLOATS, (2**62, 0, 2**62), (1, 1, 1)), "tensors need"),
}


@both
@pytest.mark.parametrize("name", CLAIMS)
def test_tensor_that_claims_more_than_its_storage(tmp_path, write, name):
    claim, message = CLAIMS[name]
    refuse(tmp_path, write({"w": claim}), message)


def test_random_views(tmp_path):
    """A view is read if each of its numbers lies in the storage and there are no more of them than there."""
    chance = random.Random(0)
    numbers = np.arange(12, dtype="f4")
    outcomes = collections.Counter()
    for _ in range(600):
        rank = chance.randrange(4)
        shape = [chance.choice([0, 1, 2, 2, 3, 3, 4]) for _ in range(rank)]
        strides = [chance.choice([0, 1, 2, 3, 4, 6]) for _ in range(rank)]
        offset = chance.choice([0, 0, 1, 5, 11, 12, 13])
        places = offset + sum(i * stride for i, stride in zip(np.indices(shape), strides, strict=True))
        places = np.broadcast_to(places, shape)
        inside = offset <= 12 and places.size <= 12 and (places < 12).all()
        view = Tensor(Storage("Float", numbers.tobytes(), "0"), shape, strides, offset)
        path = save(tmp_path, legacy_file({"w": view}))
        outcomes[bool(inside)] += 1
        if inside:
            assert_same(read_state_dict(path), {"w": numbers[places]})
        else:
            with pytest.raises(CheckpointError, match="a tensor with offset"):
                read_state_dict(path)
    assert min(outcomes.values()) > 150


@both
@pytest.mark.parametrize("numel", [9, 11, 2**40, 2**62])
def test_storage_that_claims_another_size(tmp_path, write, numel):
    storage = copy.copy(FLOATS)
    storage.numel = numel
    content = write({"w": Tensor(storage, (9,))})
    if write is legacy_file:
        for claimed in (numel, 10):  # in its pickle alone, or where it stands too
            changed = content[:-48] + struct.pack("<q", claimed) + content[-40:]
            if (numel, claimed) != (9, 9):  # bytes behind the last storage are not looked at
                refuse(tmp_path, changed, rf"should have {numel:,} numbers in {4 * numel:,} bytes")
    else:
        refuse(tmp_path, content, rf"should have {4 * numel:,} bytes, found 40")


@both
def test_negative_storage(tmp_path, write):
    storage = copy.copy(FLOATS)
    storage.numel = -10
    refuse(tmp_path, write({"w": Tensor(storage, (1,))}), "expected type, key and size of a storage")


@both
def test_one_storage_of_two_types(tmp_path, write):
    content = {"a": Tensor(FLOATS, (10,)), "b": Tensor(Storage("Int", bytes(40), "0"), (10,))}
    refuse(tmp_path, write(content), "storage '0' has two types")


@both
def test_sizes_are_capped(tmp_path, write):
    path = save(tmp_path, write({str(i): Tensor(FLOATS, (10,)) for i in range(1000)}))
    size = path.stat().st_size
    assert size > 40_000
    assert len(read_state_dict(path, max_bytes=size)) == 1000
    with pytest.raises(CheckpointError, match=rf"has {size:,} bytes, expected at most max_bytes={size - 1:,}"):
        read_state_dict(path, max_bytes=size - 1)
    large = {str(i): Tensor(Storage("Float", bytes(40_000), "0"), (10_000,)) for i in range(3)}
    refuse(tmp_path, write(large), "tensors need 120,000 bytes, expected at most max_bytes=100,000", max_bytes=100_000)


def test_pickle_is_capped(tmp_path):
    text = b"\x80\x02X" + struct.pack("<I", 17 * 2**20) + b"a" * (17 * 2**20) + b"."
    refuse(tmp_path, containers(text)["zip"], "pickle has 17,825,800 bytes, expected at most 16,777,216")
    refuse(tmp_path, containers(text)["legacy 3"], "pickle is broken")


@both
def test_every_truncation(tmp_path, write):
    content = write({"w": tensor(np.ones((2, 2), "f4"), "0")})
    path = tmp_path / "checkpoint.pth.tar"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            read_state_dict(path)
    path.write_bytes(content)
    assert_same(read_state_dict(path), {"w": np.ones((2, 2), "f4")})


# Zip archives


def changed_members(**changes):
    parts = torch_files.members(weights())
    return {**parts, **{f"archive/{name}": content for name, content in changes.items()}}


ARCHIVES = {
    "bomb": (
        torch_files.zipped({"archive/data.pkl": bytes(10**7)}, zipfile.ZIP_DEFLATED),
        "'archive/data.pkl' is compressed",
    ),
    "up": (torch_files.zipped(changed_members(**{"../../../etc/passwd": b""})), "path that may lead out"),
    "absolute": (torch_files.zipped({**changed_members(), "/etc/passwd": b""}), "'/etc/passwd' has a path"),
    "backslash": (torch_files.zipped(changed_members(**{"..\\x": b""})), "path that may lead out"),
    "drive": (torch_files.zipped({**changed_members(), "C:x": b""}), "path that may lead out"),
    "two pickles": (torch_files.zipped({**changed_members(), "b/data.pkl": b"N."}), "2 members NAME/data.pkl"),
    "no pickle": (
        torch_files.zipped({"model_best.pth.tar": b"x"}),
        "zip archive.*Unpack it first, and give 'model_best",
    ),
    "something else": (torch_files.zipped({"a.txt": b"x"}), "0 members NAME/data.pkl.*unpack that first"),
    "big-endian": (torch_files.zipped(changed_members(byteorder=b"bigbig")), "byte order"),
    "wrong byte order": (torch_files.zipped(changed_members(byteorder=b"big")), "byteorder' should have 6 bytes"),
    "TorchScript": (torch_files.zipped(changed_members(**{"constants.pkl": b")."})), "TorchScript"),
    "storage missing": (
        torch_files.zipped({k: v for k, v in changed_members().items() if k != "archive/data/2"}),
        "member 'archive/data/2' should have 16 bytes, but is missing",
    ),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives(tmp_path, name):
    content, message = ARCHIVES[name]
    refuse(tmp_path, content, message)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_member_that_is_there_twice(tmp_path):
    parts = [*changed_members().items(), ("archive/data/0", bytes(432))]
    refuse(tmp_path, torch_files.zipped(parts), "'archive/data/0' is there twice")


def test_encrypted_member(tmp_path):
    content = bytearray(torch_files.zipped(changed_members()))
    place = content.index(b"PK\x01\x02")
    content[place + 8] |= 1
    refuse(tmp_path, bytes(content), "'archive/data.pkl' is encrypted")


def test_members_that_lie_upon_each_other(tmp_path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data/0", bytes(10_000))
        for number in range(1, 50):
            info = copy.copy(archive.filelist[0])
            info.filename = f"archive/data/{number}"
            archive.filelist.append(info)
    refuse(tmp_path, stream.getvalue(), "members claim 500,000 bytes, but the file has")


def test_endless_directory(tmp_path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data/0", b"")
        for number in range(1, 70_000):
            info = copy.copy(archive.filelist[0])
            info.filename = f"archive/data/{number}"
            archive.filelist.append(info)
    refuse(tmp_path, stream.getvalue(), "a part of it claims [0-9,]+ bytes, expected at most 4,194,304")


@pytest.mark.parametrize("place", ["data.pkl", "data/0"])
def test_damaged_member(tmp_path, place):
    parts = torch_files.members(weights())
    content = torch_files.zipped(parts)
    part = parts[f"archive/{place}"]
    start = content.index(part)
    middle = start + len(part) // 2
    changed = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    refuse(tmp_path, changed, "is damaged: Bad CRC-32")


# Files of other kinds

NO_CHECKPOINTS = {
    "empty": (b"", "it is empty"),
    "web page": (b"\n<!DOCTYPE html><html><head><title>Google Drive", "it is a web page"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n", "git lfs pull"),
    "text": (b"Too many users have viewed this file recently.", "it is a text that begins 'Too many"),
    "tar": (bytes(257) + b"ustar\x0000" + bytes(500), "it is a tar archive.*torch.load"),
    "gzip": (b"\x1f\x8b\x08" + bytes(50), "compressed archive"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(50), "file of Keras.*model.load_weights"),
    "empty zip": (b"PK\x05\x06" + bytes(18), "empty or divided zip"),
    "pickle": (pickle.dumps({"a": 1}, 2), "pickle, but not one of torch.save"),
    "zeros": (bytes(100), "begins with the bytes 00 00"),
    "beginning of a zip": (b"PK\x03\x04" + bytes(100), "not a complete zip archive"),
    "beginning of a legacy file": (pickle.dumps(torch_files.LEGACY_MAGIC, 2), "pickle stops at byte 15"),
    "another version": (legacy_file({}, version=1002), "protocol version is 1002, expected 1001"),
    "big-endian": (legacy_file({}, system={"little_endian": False}), "not little-endian"),
    "strange system": (legacy_file({}, system=[1]), "not little-endian"),
}


@pytest.mark.parametrize("name", NO_CHECKPOINTS)
def test_no_checkpoints(tmp_path, name):
    content, message = NO_CHECKPOINTS[name]
    refuse(tmp_path, content, message)


@pytest.mark.parametrize(
    "keys", [b"\x80\x02]K\x01a.", b"\x80\x02]]a.", b"\x80\x02}.", b"\x80\x02].", b"\x80\x02]X\x01\x00\x00\x00xa."]
)
def test_list_of_other_storages(tmp_path, keys):
    parts = torch_files.legacy_parts({"w": tensor(np.ones(2), "0")})
    refuse(tmp_path, b"".join([*parts[:4], keys, *parts[5:]]), "list of storages is not that of its tensors")


def test_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, message in {"missing": "no such file", "": "is a folder", "pipe": "a pipe", "\0": "not the name"}.items():
        with pytest.raises(CheckpointError, match=message):
            read_state_dict(os.path.join(tmp_path, name))


def test_the_argument_reader_has_no_effect(tmp_path):
    """Until 0.3; there was a choice between this reader and PyTorch's."""
    arrays = {"w": np.arange(6, dtype=np.float32)}
    path = save(tmp_path, torch_files.zip_file({"w": tensor(arrays["w"], "0")}))
    for reader in READERS:
        with pytest.warns(DeprecationWarning, match="reader has no effect"):
            assert_same(read_state_dict(path, reader=reader), arrays)


def test_unknown_reader(tmp_path):
    with pytest.raises(ValueError, match="'ours', 'torch', found 'pickle'"):
        read_state_dict(tmp_path, reader="pickle")


def test_safetensors(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    arrays = {f"w.{kind}": np.array([[0, 1, 2], [100, 5, 1]]).astype(kind) for kind in torch_files.STORAGES}
    arrays |= {"scalar": np.array(2.5, "f4"), "empty": np.zeros((0, 3), "f4")}
    path = save(tmp_path, numpy.save(arrays), "model.safetensors")
    found = read_state_dict(path)
    assert_same({name: found[name] for name in arrays}, arrays)
    assert set(found) == set(arrays)
    with pytest.raises(CheckpointError, match="expected at most max_bytes=200"):
        read_state_dict(path, max_bytes=200)


def safetensors_file(header, content):
    return struct.pack("<Q", len(header)) + header.encode() + content


def test_safetensors_of_bfloat16(tmp_path):
    pytest.importorskip("safetensors")
    header = '{"w":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    path = save(tmp_path, safetensors_file(header, struct.pack("<HH", 0x3F80, 0xC020)), "model.safetensors")
    assert_same(read_state_dict(path), {"w": np.array([1, -2.5], "f4")})


SAFETENSORS = {
    "nothing": ("{}", b"", "has no tensor"),
    "no header": ("[", b"", "library refuses it"),
    "too far": ('{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', b"1234", "library refuses it"),
    "claim": ('{"w":{"dtype":"F32","shape":[99],"data_offsets":[0,4]}}', b"1234", "library refuses it"),
    "complex": ('{"w":{"dtype":"C64","shape":[1],"data_offsets":[0,8]}}', bytes(8), "type C64, expected one of F64"),
    "axes": (f'{{"w":{{"dtype":"U8","shape":{[1] * 40},"data_offsets":[0,1]}}}}', b"1", "at most 32 axes"),
    "huge": ('{"w":{"dtype":"U8","shape":[0,4611686018427387904],"data_offsets":[0,0]}}', b"", "tensors need|refuses"),
}


@pytest.mark.parametrize("name", SAFETENSORS)
def test_broken_safetensors(tmp_path, name):
    pytest.importorskip("safetensors")
    header, content, message = SAFETENSORS[name]
    path = save(tmp_path, safetensors_file(header, content), "model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        read_state_dict(path)


def test_safetensors_without_its_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    path = save(tmp_path, safetensors_file("{}", b""), "model.safetensors")
    with pytest.raises(CheckpointError, match="pip install safetensors"):
        read_state_dict(path)


# Any bytes at all

# Opcodes and arguments that a pickle is made of, for random programs.
TOKENS = [
    *(bytes([code]) for code in b")(}]NtR\x81b.eausQ\x85\x86\x87\x88\x89"),
    *(
        b"K\x00",
        b"K\x01",
        b"K\x04",
        b"M\x10\x00",
        b"J\xff\xff\xff\xff",
        b"\x8a\x08" + b"\xff" * 7 + b"\x7f",
        b"\x8a\x00",
    ),
    *(b"q\x00", b"q\x01", b"h\x00", b"h\x01", b"r\xff\xff\xff\xff", b"j\xff\xff\xff\xff", b"G\x7f\xf0" + bytes(6)),
    *(b"X\x07\x00\x00\x00storage", b"X\x01\x00\x00\x000", b"U\x06module", b"X\x0a\x00\x00\x00state_dict"),
    *(b"ccollections\nOrderedDict\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_parameter\n"),
    *(b"ctorch\nFloatStorage\n", b"ctorch\nSize\n", b"ctorch\nfloat32\n", b"cos\nsystem\n", b"\x80\x02"),
    b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ",
    b"ctorch._utils\n_rebuild_tensor_v2\n(h\x00K\x00K\x04\x85K\x01\x85tR",
]
NUMBERS = [b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", bytes(4), b"\0\0\0\x80", b"\xff" * 8, b"\xff" * 7 + b"\x7f"]


def mutated(chance, content):
    content = bytearray(content)
    for _ in range(chance.choice([1, 1, 1, 2, 4, 16])):
        start = chance.randrange(len(content) + 1)
        length = min(chance.choice([1, 1, 2, 4, 8, 64]), len(content) - start)
        other = chance.randrange(len(content) + 1)
        replacement = chance.choice(
            [
                bytes(chance.randrange(256) for _ in range(length)),
                bytes([content[start] ^ 1 << chance.randrange(8)]) + content[start + 1 : start + length]
                if length
                else b"",
                chance.choice(NUMBERS),
                chance.choice(TOKENS),
                content[other : other + length],
                b"",
            ]
        )
        content[start : start + chance.choice([length, len(replacement)])] = replacement
    return bytes(content[: chance.choice([None, None, None, chance.randrange(len(content) + 1)])])


HEADROOM = 2**27


@contextlib.contextmanager
def limited_memory():
    """Lets the process have 128 MiB more than it has; a MemoryError is no CheckpointError."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + HEADROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def random_file(chance, bases):
    base, parts, members = chance.choice(bases)
    kind = chance.randrange(4)
    if kind == 0:
        return mutated(chance, base)
    if kind == 1:  # a broken part in a sound archive
        name = chance.choice(["archive/data.pkl"] * 4 + list(members))
        return torch_files.zipped({**members, name: mutated(chance, members[name])})
    if kind == 2:
        part = chance.randrange(1, len(parts))
        return b"".join([*parts[:part], mutated(chance, parts[part]), *parts[part + 1 :]])
    program = b"\x80\x02" + b"".join(chance.choices(TOKENS, k=chance.randrange(1, 40))) + b"."
    if chance.random() < 0.5:
        return torch_files.zipped({**members, "archive/data.pkl": program})
    return b"".join([*parts[:3], program, *parts[4:]])


@pytest.mark.filterwarnings("error")
def test_any_bytes(tmp_path):
    chance = random.Random(0)
    small = {"w": tensor(np.arange(4, dtype="f4").reshape(2, 2), "0"), "n": tensor(np.array(3), "1")}
    contents = [checkpoint(), small, {"state_dict": state_dict(small), "args": argparse.Namespace(lr=0.1)}]
    bases = [
        (w(x), torch_files.legacy_parts(x), torch_files.members(x)) for x in contents for w in (zip_file, legacy_file)
    ]
    path = tmp_path / "checkpoint.pth.tar"
    modules = set(sys.modules)
    outcomes = collections.Counter()
    messages = set()
    with limited_memory():
        for _ in range(2500):
            path.write_bytes(random_file(chance, bases))
            try:
                arrays = read_state_dict(path, max_bytes=10**6)
            except CheckpointError as error:
                outcomes["refused"] += 1
                messages.add(re.sub(r"[^a-z ]+", "", str(error).split(": ", 1)[1])[:40])
            else:
                outcomes["read"] += 1
                assert arrays and all(type(x) is np.ndarray for x in arrays.values())
                assert sum(x.nbytes for x in arrays.values()) <= 10**6
    assert os.listdir(tmp_path) == [path.name]
    assert set(sys.modules) == modules
    # Otherwise the mutations are too wild, or too tame, to say anything.
    assert outcomes["read"] > 200 and outcomes["refused"] > 1500 and len(messages) > 50


def test_claims_take_no_memory(tmp_path):
    """Each of these claims gigabytes in a file of less than 400 kB."""
    claims = [write({"w": CLAIMS[name][0]}) for write in (zip_file, legacy_file) for name in CLAIMS]
    claims += [
        x for name in ("string of 4 GB", "nested lists", "nested tuples") for x in containers(BROKEN[name][0]).values()
    ]
    claims.append(ARCHIVES["bomb"][0])
    path = tmp_path / "checkpoint.pth.tar"
    with limited_memory():
        with pytest.raises(MemoryError):  # the limit holds
            bytearray(2 * HEADROOM)
        for content in claims:
            path.write_bytes(content)
            with pytest.raises(CheckpointError):
                read_state_dict(path)
