"""Which weights of a checkpoint are taken, what may stand beside them, and what other files are called."""

import argparse
import codecs
import collections
import datetime
import enum
import fractions
import gzip
import io
import pathlib
import pickle
import re
import sys
import tarfile
import types
import zipfile
from unittest import mock

import numpy as np
import pytest
import torch_files
from torch_files import Storage, Tensor, legacy_file, state_dict, tensor, zip_file

from larq_rep.zoo import checkpoint
from larq_rep.zoo.checkpoint import CheckpointError, read_state_dict


def weights(value=1.0, prefix=""):
    """Two tensors of this value."""
    key = f"{prefix}{value}"
    return state_dict(
        {
            f"{prefix}conv1.weight": tensor(np.full((2, 3, 3, 3), value, "f4"), f"{key}a"),
            f"{prefix}bn1.running_mean": tensor(np.full(2, value, "f4"), f"{key}b"),
        }
    )


def optimizer():
    moments = {
        i: {"step": tensor(np.float32(3), f"s{i}"), "exp_avg": tensor(np.ones(2, "f4"), f"e{i}")} for i in (0, 1)
    }
    return {"state": moments, "param_groups": [{"lr": 1e-3, "params": [0, 1]}]}


def save(folder, content, name="checkpoint.pth.tar", write=zip_file):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else write(content))
    return path


def value(path, **options):
    """The one value of the weights that were read."""
    arrays = read_state_dict(path, **options)
    assert list(arrays) == ["conv1.weight", "bn1.running_mean"]
    return float(arrays["conv1.weight"].reshape(-1)[0])


def refused(path, *words, **options):
    """A refusal that has these words, in one piece."""
    with pytest.raises(CheckpointError) as error:
        checkpoint.read(path, **options)
    message = str(error.value)
    assert message.startswith(str(path)) and "Inert" not in message and len(message.splitlines()) <= 25
    for word in words:
        assert word in message
    return message


# The dictionary (field review, C5).

NAMES = [
    "ema",
    "state_dict_ema",
    "model_ema",
    "weights",
    "params",
    "network",
    "student",
    "net_g",
    "best_model",
    "state",
]


@pytest.mark.parametrize("name", [*NAMES, "state", "my.net", "Über"])
def test_weights_may_be_under_any_name(tmp_path, name):
    content = {"epoch": 3, name: weights(), "optimizer": optimizer(), "best_acc": tensor(np.float32(71), "best")}
    path = save(tmp_path, content)
    assert value(path) == 1
    assert checkpoint.read(path).notes == [f"The weights are those under {name!r}."]


@pytest.mark.parametrize("path", ["a.b", "checkpoint.model.state_dict", "1.2.3.4.5.6.7.8"])
def test_weights_may_be_nested(tmp_path, path):
    content = weights()
    for name in reversed(path.split(".")):
        content = {name: content, "epoch": 3, "meters": {"top1": tensor(np.float32(3), "m")}}
    assert value(save(tmp_path, content)) == 1
    assert value(save(tmp_path, content), key=path) == 1
    assert value(save(tmp_path, content), key=path.partition(".")[0]) == 1


@pytest.mark.parametrize("average", ["ema", "state_dict_ema", "model_ema", "ema_model", "swa_state_dict", "modelEMA"])
@pytest.mark.parametrize("trained", ["state_dict", "student"])
def test_averaged_weights_are_named(tmp_path, average, trained):
    path = save(tmp_path, {average: weights(2.0), trained: weights(1.0), "optimizer": optimizer()})
    assert value(path) == 1 and value(path, key=average) == 2
    notes = checkpoint.read(path).notes
    assert f"Averaged weights stand beside under {average!r}: key={average!r} (lce import: --key {average})." in notes


def test_averaged_weights_within(tmp_path):
    path = save(tmp_path, {"checkpoint": {"model": weights(1.0), "ema": {"shadow": weights(2.0)}}})
    assert value(path) == 1 and value(path, key="checkpoint.ema") == 2 and value(path, key="checkpoint") == 1
    assert "--key checkpoint.ema.shadow" in " ".join(checkpoint.read(path).notes)


def test_names_of_no_averages(tmp_path):
    path = save(tmp_path, {"schema": weights(1.0), "swap": weights(2.0)})
    refused(path, "--key schema", "--key swap")


@pytest.mark.parametrize(
    "content",
    [
        {"net_g": weights(1.0), "net_d": weights(2.0)},
        {"ema": weights(1.0), "swa": weights(2.0)},
        {"teacher": weights(1.0), "student": weights(2.0)},
        {"nets": {"model": weights(1.0), "net": weights(2.0)}},
        {f"net{i}": weights(float(i)) for i in range(40)},
    ],
)
def test_several_networks_are_a_choice(tmp_path, content):
    path = save(tmp_path, content)
    names = list(content)[:8] if "nets" not in content else ["nets.model", "nets.net"]
    message = refused(path, *(f"key={name!r} (lce import: --key {name})" for name in names))
    assert message.count("conv1.weight") == 0
    assert value(path, key=names[1]) == 2 if len(content) < 40 else 1


@pytest.mark.parametrize(
    "content, key",
    [
        ({"models": [weights()], "epoch": 3}, "models.0"),
        ({"model": (3, weights())}, "model.1"),
        ({"a": [[{"epoch": 3}], ({"state_dict": weights()}, optimizer())]}, "a.1.0.state_dict"),
        (collections.defaultdict(list, {"net_g": collections.defaultdict(list, weights())}), "net_g"),
        ({"net_g": weights(), "optimizer": {"exp_avg": weights(2.0), "fp32": [weights(2.0)]}}, "net_g"),
        ({"net_g": weights(), "exp_avg": weights(2.0), "momentum_buffer": weights(2.0)}, "net_g"),
    ],
)
def test_weights_in_lists_and_beside_an_optimizer(tmp_path, content, key):
    path = save(tmp_path, content)
    assert value(path) == value(path, key=key) == 1
    assert checkpoint.read(path).notes == [f"The weights are those under {key!r}."]
    refused(save(tmp_path, {"nets": [weights(1.0), weights(2.0)]}, "two.pth"), "--key nets.0", "--key nets.1")


def test_key_names_what_is_there(tmp_path):
    path = save(tmp_path, {"epoch": 3, "a": {"b.c": weights(1.0)}, "loss": torch_files.Call(datetime.date, 2020, 1, 2)})
    assert value(path, key="a.b.c") == value(path, key="a") == 1
    refused(path, "nothing under 'b'", "'epoch', 'a', 'loss'", "--key a.b.c", key="b")
    refused(path, "its 'epoch' is 3, expected a dictionary of tensors", key="epoch")
    refused(path, "its 'loss' is an object of 'datetime.date'", key="loss")
    refused(path, "nothing under ''", key="")
    twice = save(tmp_path, {"a": {"b": weights(1.0)}, "a.b": weights(2.0)}, "twice.pth")
    refused(twice, "several meanings", "['a', 'b']", "['a.b']", key="a.b")
    flat = save(tmp_path, weights(), "flat.pth")
    refused(flat, "nothing under 'ema'", "Leave the key out", key="ema")
    refused(save(tmp_path, {"optimizer": optimizer()}, "o.pth"), "no dictionary of tensors", key="optimizer")


def test_one_dictionary_under_two_names(tmp_path):
    both = weights()
    assert value(save(tmp_path, {"best": both, "last": both})) == 1


def test_random_states_and_meters_are_no_weights(tmp_path):
    noise = {"torch": tensor(np.zeros(8, "u1"), "r"), "cuda": tensor(np.zeros(8, "u1"), "c")}
    assert value(save(tmp_path, {"rng": noise, "weights": weights()})) == 1


@pytest.mark.parametrize("name", ["class_weights", "loss_weight", "ema_running_mean"])
@pytest.mark.parametrize("place", ["state_dict", "net_g", "net.g"])
def test_tensors_beside_the_weights_are_no_weights(tmp_path, name, place):
    assert value(save(tmp_path, {name: tensor(np.ones(3, "f4"), "beside"), place: weights()})) == 1


def test_entries_that_are_no_tensors(tmp_path):
    path = save(tmp_path, {**weights(), "epoch": 3, "fc._extra_state": None})
    refused(path, "'epoch': 3, expected a tensor", "ignore=['epoch'] (lce import: --ignore epoch)")
    read = checkpoint.read(path, ignore=["epoch", "*_extra_state"])
    assert list(read.arrays) == ["conv1.weight", "bn1.running_mean"]
    assert read.ignored == {"epoch": "epoch", "fc._extra_state": "*_extra_state"}


# Objects beside the weights (C6).


class Colour(enum.Enum):
    RED = 1


class AttributeDict(dict):
    """Like Lightning's."""


class Loss:
    def __init__(self):
        self.weight = tensor(np.ones(3, "f4"), "loss")
        self.history, self.names = [1.0], {"a", "b"}


class Reducing:
    """Writes items, pairs and a state, as a class may."""

    def __reduce__(self):
        return Reducing, (), {"state": 1}, iter([1, 2]), iter([("a", 1)])

    def extend(self, items):
        pass

    append = extend

    def __setitem__(self, key, item):
        pass


class Keywords:
    def __getnewargs_ex__(self):
        return (1,), {"a": 2}

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)


BESIDE = {
    "loss": Loss(),
    "path": pathlib.PurePosixPath("/data/images"),
    "date": datetime.datetime(2024, 5, 6),
    "arguments": argparse.Namespace(lr=0.1, data=pathlib.PurePosixPath("/data")),
    "hyper_parameters": AttributeDict(lr=0.1, deep=AttributeDict(a=[1])),
    "accuracy": np.float64(71.5),
    "curve": np.arange(3),
    "kind": Colour.RED,
    "items": Reducing(),
    "keywords": Keywords(),
    "set": {1, (2, 3)},
    "frozen": frozenset({"a"}),
    "bytes": b"\xff" * 300,
    "array": bytearray(b"abc"),
    "huge": 2**3000,
    "tuples": {(1, 2): 3, None: 4, 1.5: 5, Colour.RED: 6, 2**70: 7, b"x": 8},
    "class": collections.OrderedDict,
    "function": np.mean,
    "fraction": fractions.Fraction(1, 3),
    "counter": collections.Counter("abca"),
    "queue": collections.deque([1, 2], 3),
    "complex": 1 + 2j,
    "defaults": collections.defaultdict(list, a=[1]),
    "exception": ValueError("x"),
    "sizes": torch_files.size(3, 4),
}


def dumped(content, write, protocol):
    if write is legacy_file:
        parts = torch_files.legacy_parts(content)
        parts[3] = torch_files.dump(content, legacy=True, protocol=protocol)[0]
        return b"".join(parts)
    members = torch_files.members(content) | {"archive/data.pkl": torch_files.dump(content, protocol=protocol)[0]}
    return torch_files.zipped(members)


@pytest.mark.parametrize("write", [zip_file, legacy_file])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_any_object_may_stand_beside_the_weights(tmp_path, write, protocol):
    """In front of them and behind, in each protocol."""
    modules = set(sys.modules)
    for name, thing in {**BESIDE, "all": list(BESIDE.values())}.items():
        for content in ({"state_dict": weights(), name: thing}, {name: thing, "net": weights()}):
            assert value(save(tmp_path, dumped(content, write, protocol))) == 1, name
    assert set(sys.modules) == modules


def test_a_whole_model_beside_the_weights(tmp_path):
    """In the older format its class has a persistent id, with its source."""
    pickled, _ = torch_files.dump({"state_dict": weights(), "model": Loss()}, legacy=True)
    name = f"c{__name__}\nLoss\n".encode()
    assert name in pickled
    module = b"(X\x06\x00\x00\x00module" + name + b"X\x01\x00\x00\x00aX\x01\x00\x00\x00btQ"
    parts = torch_files.legacy_parts({"state_dict": weights(), "model": Loss()})
    parts[3] = pickled.replace(name, module)
    assert value(save(tmp_path, b"".join(parts))) == 1


@pytest.mark.parametrize("kind", ["QInt8", "QUInt8", "Unheard"])
def test_tensors_of_other_types_beside_the_weights(tmp_path, kind):
    torch_files._torch.__dict__[f"{kind}Storage"] = type(f"{kind}Storage", (), {"__module__": "torch"})
    odd = Tensor(Storage(kind, bytes(4), "odd"), (4,))
    assert value(save(tmp_path, {"state_dict": weights(), "odd": odd})) == 1
    message = refused(
        save(tmp_path, {"state_dict": {**weights(), "fc.weight": odd}}), f"torch.{kind}Storage", "fc.weight"
    )
    assert "model.state_dict()" in message


@pytest.mark.parametrize("function", ["_rebuild_parameter_with_state", "_rebuild_from_type_v2"])
def test_tensors_of_subclasses(tmp_path, function):
    """As parameters with attributes are written."""
    inner = tensor(np.full((2, 3, 3, 3), 3.0, "f4"), "x")
    ordered = collections.OrderedDict()
    module = "torch._utils" if function == "_rebuild_parameter_with_state" else "torch._tensor"
    stand_in = type(function, (), {"__module__": module})
    modules = {module: types.SimpleNamespace(**vars(torch_files._utils), **{function: stand_in})}
    arguments = (inner, True, ordered, {"tag": 1})
    if function == "_rebuild_from_type_v2":
        rebuild, parts = inner.__reduce__()
        arguments = (rebuild, torch_files._torch.Size, parts, {"tag": 1})
    content = {**weights(), "conv1.weight": torch_files.Call(stand_in, *arguments)}
    with mock.patch.dict(torch_files._modules, modules):
        assert value(save(tmp_path, content)) == 3


@pytest.mark.parametrize("content", [Loss(), {"state_dict": Loss()}, {"model": AttributeDict(a=1)}])
@pytest.mark.parametrize("protocol", [2, 4])
def test_weights_that_are_an_object_are_refused(tmp_path, content, protocol):
    path = save(tmp_path, dumped(content, zip_file, protocol))
    refused(path, f"an object of '{__name__}.", "nothing was executed", "model.state_dict()")


# Files of other kinds (C7).


def tar(name, content, mode="w"):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def npy(write, *args):
    stream = io.BytesIO()
    write(stream, *args)
    return stream.getvalue()


def torchscript():
    members = torch_files.members(weights()) | {
        "archive/constants.pkl": b"\x80\x02).",
        "archive/code/__torch__.py": b"x",
    }
    return torch_files.zipped(members, zipfile.ZIP_DEFLATED)


HTML = b"<!DOCTYPE html><html><head><title>Sign in</title>"
MEMBERS = torch_files.members(weights())
KINDS = {
    "TorchScript": ("net.pt", torchscript(), "TorchScript program", "torch.jit.load(file).state_dict()"),
    "npy": ("w.npy", npy(np.save, np.ones(3)), "one array of NumPy", "checkpoint"),
    "npz": ("w.npz", npy(np.savez, np.ones(3)), "NumPy's arrays (.npz)", "safetensors.numpy.save_file"),
    "onnx": ("net.onnx", b"\x08\x07\x12\x07pytorch\x1a\x052.1.0", "ONNX graph", "exported from"),
    "onnx renamed": ("net.pth", b"\x08\x08\x12\x07pytorch\x1a\x052.1.0", "ONNX graph", "exported from"),
    "BOM": ("a.pth", codecs.BOM_UTF8 + HTML, "web page", "browser"),
    "UTF-16": ("a.pth", codecs.BOM_UTF16_LE + HTML.decode().encode("utf-16-le"), "web page", "browser"),
    "safetensors that is HTML": ("a.safetensors", b"\n\n " + HTML, "web page", "browser"),
    "gzip of HTML": ("a.pth", gzip.compress(HTML * 50), "web page, compressed", "browser"),
    "script": ("a.pth", b"<script>location='login'</script>", "web page", "browser"),
    "tar.gz": ("a.tar.gz", tar("net.pth", zip_file(weights()), "w:gz"), "compressed archive", "tar xf"),
    "tar": ("a.pth.tar", tar("net.pth", zip_file(weights())), "tar archive", "tar xf"),
    "gzip": ("a.pth.gz", gzip.compress(zip_file(weights())), "checkpoint compressed with gzip", "gunzip"),
    "zip": ("a.zip", torch_files.zipped({"a/net.pth": b"x", "r.txt": b""}), "zip archive", "give 'a/net.pth'"),
    "packed again": ("a.pth", torch_files.zipped(MEMBERS, zipfile.ZIP_DEFLATED), "compressed", "do not unpack it"),
    "packed flat": (
        "a.zip",
        torch_files.zipped({name.removeprefix("archive/"): part for name, part in MEMBERS.items()}),
        "unpacked and packed again",
        "do not unpack it",
    ),
    "data.pkl": ("data.pkl", MEMBERS["archive/data.pkl"], "data.pkl of an unpacked checkpoint", "as it was downloaded"),
    "another pickle": ("a.pkl", pickle.dumps({"a": 1}, 4), "a pickle, but not one of torch.save", "torch.save"),
    "keras": ("net.keras", torch_files.zipped({"config.json": b"{}", "model.weights.h5": b""}), "Keras", "lce convert"),
    "h5": ("net.h5", b"\x89HDF\r\n\x1a\n" + bytes(50), "Keras", "lce convert"),
    "tflite": ("net.tflite", b"\x1c\0\0\0TFL3" + bytes(50), ".tflite file", "lce-run"),
    "pb": ("frozen.pb", b"\n\x13\n\x05input\x12\x0bPlaceholder", "graph of TensorFlow", "model.save"),
    "index": ("model.ckpt.index", bytes(50), "checkpoint of TensorFlow", "model.save"),
    "data": ("model.ckpt.data-00000-of-00001", bytes(50), "checkpoint of TensorFlow", "model.save"),
    "checkpoint": ("checkpoint", b'model_checkpoint_path: "model.ckpt"\n', "checkpoint of TensorFlow", "model.save"),
    "LFS": ("a.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "Git LFS", "lfs pull"),
    "PDF": ("a.pth", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "a PDF document", "right file"),
    "PNG": ("a.pth", b"\x89PNG\r\n\x1a\n" + bytes(50), "an image", "right file"),
    "gzip of something": ("a.bin.gz", gzip.compress(b"\xff" * 50), "compressed archive", "gunzip -c"),
    "text": ("a.pth", "Zu viele Anfragen für diese Datei".encode(), "text that begins 'Zu viele", "link"),
    "empty": ("a.safetensors", b"", "it is empty", "compare the sizes"),
}


@pytest.mark.parametrize("name", KINDS)
def test_files_of_other_kinds_get_their_name(tmp_path, name):
    file, content, *words = KINDS[name]
    message = refused(save(tmp_path, content, file), *words)
    assert name == "empty" or "damaged" not in message


def test_files_are_known_by_their_content(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    arrays = {"conv1.weight": np.ones((2, 3, 3, 3), "f4"), "bn1.running_mean": np.ones(2, "f4")}
    path = save(tmp_path, safetensors.save(arrays), "named.pth")
    assert {key: array.tolist() for key, array in read_state_dict(path).items()} == {
        key: array.tolist() for key, array in arrays.items()
    }
    for write in (zip_file, legacy_file):
        assert value(save(tmp_path, weights(), "named.safetensors", write)) == 1


ADDRESSES = [
    "https://example.org/a.pth",
    "s3://bucket/a.pth",
    "hf://a/b",
    "www.example.org/a.pth",
    "ftp://a/b//c?d=1&e",
]


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_addresses(address, kind):
    address = address if kind is str else address.replace("b//c", "b/c")
    with pytest.raises(CheckpointError, match=rf"^{re.escape(address)}: it is an address, expected a file. Download"):
        read_state_dict(kind(address))


def test_addresses_of_files():
    with pytest.raises(CheckpointError, match=r"^file:///nowhere/x\.pth: it is an address"):
        read_state_dict("file:///nowhere/x.pth")


MEMBERS_OF_FOLDERS = ("data.pkl", "version", "byteorder", "data", "data/0", ".data/serialization_id")
UNPACKED = [".", "archive", *(f"archive/{name}" for name in MEMBERS_OF_FOLDERS)]


@pytest.mark.parametrize("place", UNPACKED)
def test_unpacked_checkpoints(tmp_path, place):
    zipfile.ZipFile(save(tmp_path, {"a.weight": tensor(np.ones(9), "0")})).extractall(tmp_path / "out")
    refused(tmp_path / "out" / place, "unpacked", "Give the file as it was downloaded", "do not unpack it")


def test_folders_and_names_without_a_file(tmp_path):
    refused(tmp_path, "it is a folder, expected a file. Give the name of the checkpoint in it")
    save(tmp_path, b"", "model.ckpt.index")
    refused(tmp_path / "model.ckpt", "checkpoint of TensorFlow", "model.save")
    save(tmp_path, b"\x08\x01", "saved_model.pb")
    refused(tmp_path, "SavedModel", "lce convert")
    refused(tmp_path / "saved_model.pb", "SavedModel", "its folder to `lce convert`")


def test_large_files_have_a_remedy_that_exists(tmp_path):
    with (tmp_path / "large.pth").open("wb") as file:
        file.truncate(5 * 10**9)
    words = ("5,000,000,000 bytes", "model.state_dict()", "larq_rep.zoo.import_checkpoint(file, max_bytes=...)")
    refused(tmp_path / "large.pth", *words)
