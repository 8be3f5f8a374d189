"""assets.py: the input generator, references, and when the assets are made again."""

import json
import math
import os
import shutil
import stat
import zipfile

import assets as script
import numpy as np
import pytest

DIGITS = {
    "input": {"size": [16, 16], "channels": 1, "range": [0.0, 1.0]},
    "classes": [str(digit) for digit in range(10)],
}


def lowbias32(i):
    """The hash in Python's integers, which do not wrap by themselves."""
    h = i * 0x9E3779B9 % 2**32
    for shift, factor in ((16, 0x21F0AAAD), (15, 0x735A2D97)):
        h = (h ^ h >> shift) * factor % 2**32
    return h ^ h >> 15


@pytest.mark.parametrize(
    "dtype, of_hash",
    [
        (np.float32, lambda h: (h // 2**8) / 2**22 - 2),
        (np.uint8, lambda h: h // 2**24),
        (np.int8, lambda h: (h // 2**24 + 128) % 256 - 128),
        (np.bool_, lambda h: h >= 2**31),
    ],
)
@pytest.mark.parametrize("number", [0, 7])
def test_generated_values(dtype, of_hash, number):
    shape = (1, 5, 7, 3)
    count = math.prod(shape)
    x = script.generated(shape, np.dtype(dtype), number)
    assert (x.dtype, x.shape) == (dtype, shape)
    # Exact, though computed in float64 here.
    assert x.reshape(-1).tolist() == [of_hash(lowbias32(number * count + i)) for i in range(count)]


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_wide_integers_are_8_bits(dtype):
    expected = [lowbias32(i) // 2**24 for i in range(40)]
    assert script.generated((40,), np.dtype(dtype)).tolist() == expected


def test_generated_inputs_are_spread_evenly_and_differ():
    inputs = [script.generated((1, 64, 64, 3), np.dtype(np.float32), number) for number in range(8)]
    for x in inputs:
        counts, _ = np.histogram(x, bins=16, range=(-2, 2))
        assert counts.sum() == x.size and abs(counts / x.size - 1 / 16).max() < 0.01
    correlations = np.corrcoef([x.reshape(-1) for x in inputs]) - np.eye(8)
    assert abs(correlations).max() < 0.05


def test_index_wraps_at_32_bits():
    number = 2**32 // 5
    assert script.generated((5,), np.dtype(np.uint8), number).tolist() == [
        lowbias32((number * 5 + i) % 2**32) // 2**24 for i in range(5)
    ]


def test_there_are_no_values_of_other_types():
    with pytest.raises(script.AssetsError, match="float16"):
        script.generated((2,), np.dtype(np.float16))


def runs_of(reference):
    """For each input the numbers of each output."""
    return [[output["values"] for output in reference["outputs"]], *reference["further"]]


class Interpreter:
    """Adds two inputs; the other output is their number of values, as often as `copies` says."""

    copies = 1
    bias = np.float32(0.1)

    def __init__(self, content):
        assert content == b"the file"
        self.inputs = [{"shape": np.array([2, 3]), "dtype": np.float32}, {"shape": np.array([3]), "dtype": np.int8}]
        self.outputs = [{"name": "sum"}, {"name": "count"}]

    def invoke(self, arrays):
        x, y = arrays
        return [x + y.astype(np.float32) + self.bias, np.full(self.copies, x.size, np.int32)]


@pytest.fixture
def interpreter(monkeypatch):
    monkeypatch.setattr(script.larq_rep_runtime, "Interpreter", Interpreter)
    return Interpreter


def test_reference(interpreter):
    result = json.loads(script.as_json(script.reference(b"the file")))
    assert (result["schema"], result["inputs"]) == (1, "lowbias32")
    assert [(y["name"], y["shape"]) for y in result["outputs"]] == [("sum", [2, 3]), ("count", [1])]
    assert len(runs_of(result)) == script.INPUTS
    for number, (total, count) in enumerate(runs_of(result)):
        x = np.float32([(lowbias32(6 * number + i) >> 8) / 2**22 - 2 for i in range(6)])
        y = np.uint8([lowbias32(3 * number + i) >> 24 for i in range(3)]).astype(np.int8).astype(np.float32)
        # The shortest decimals are the same float32.
        assert np.float32(total).tolist() == (x.reshape(2, 3) + y + np.float32(0.1)).reshape(-1).tolist()
        assert count == [6]


@pytest.mark.parametrize("copies, runs", [(100, 8), (5_000, 3), (30_000, 1)])
def test_large_outputs_have_fewer_inputs(interpreter, monkeypatch, copies, runs):
    monkeypatch.setattr(interpreter, "copies", copies)
    assert len(runs_of(script.reference(b"the file"))) == runs


def test_outputs_that_are_not_finite_are_refused(interpreter, monkeypatch):
    monkeypatch.setattr(interpreter, "bias", np.float32(np.nan))
    with pytest.raises(script.AssetsError, match="not finite"):
        script.reference(b"the file")


class Project:
    """A copy of the project's layout with small files in place of networks, and a demo that makes them."""

    def __init__(self, root, monkeypatch):
        self.root, self.out, self.calls = root, root / "assets", []
        self.demo = root / "build" / "demo"
        self.about = DIGITS
        for name in ("LICENSE", "android_demo/runtime/NOTICE", "zoo/source.py"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(name)
        with zipfile.ZipFile(root / "tensorflow-lite.aar", "w") as aar:
            aar.writestr("LICENSE", "TFLite's")
        self.write_demo()
        os.utime(root / "zoo" / "source.py", (1e9, 1e9))
        monkeypatch.setattr(script, "ROOT", root)
        monkeypatch.setattr(script, "ANDROID", root / "android_demo")
        monkeypatch.setattr(script, "DEMO", self.demo)
        monkeypatch.setattr(script, "SOURCES", (root / "examples" / "demo.py", root / "zoo"))
        monkeypatch.setattr(script, "TFLITE", root / "tensorflow-lite.aar")
        monkeypatch.setattr(script, "assets_of", self.assets_of)
        monkeypatch.setattr(script, "read_metadata", lambda content: self.about)
        monkeypatch.setattr(script.importlib.util, "find_spec", lambda name: None)
        self.run_demo()

    def write_demo(self, end=""):
        """The demo writes the networks of its own words."""
        names = [network.name for network in script.BUNDLED]
        (self.root / "examples").mkdir(exist_ok=True)
        (self.root / "examples" / "demo.py").write_text(
            f"import pathlib\nfolder = pathlib.Path({str(self.demo)!r})\nfolder.mkdir(parents=True, exist_ok=True)\n"
            f"for name in {names}:\n    (folder / f'{{name}}.tflite').write_text('weights of ' + name)\n"
            f"print('training')\n{end}"
        )
        os.utime(self.root / "examples" / "demo.py", (1e9, 1e9))

    def run_demo(self):
        self.demo.mkdir(parents=True)
        for network in script.BUNDLED:
            (self.demo / f"{network.name}.tflite").write_text(f"weights of {network.name}")

    def assets_of(self, network, content):
        self.calls.append(network.name)
        return {f"{network.name}.tflite": content}, {"name": network.name, "bytes": len(content)}

    def build(self, *options):
        self.calls.clear()
        return script.main(["--out", str(self.out), *options])

    def files(self):
        return {p.relative_to(self.out).as_posix(): p.read_bytes() for p in self.out.rglob("*") if p.is_file()}


@pytest.fixture
def project(tmp_path, monkeypatch):
    return Project(tmp_path, monkeypatch)


NAMES = [network.name for network in script.BUNDLED]


def test_assets_are_made_once(project, capsys):
    assert project.build() == 0
    assert project.calls == NAMES
    files = project.files()
    assert files["ResNet20.tflite"] == b"weights of ResNet20"
    assert [entry["name"] for entry in json.loads(files["networks.json"])["networks"]] == NAMES
    assert {name: text for name, text in files.items() if name.startswith("licenses/")} == {
        "licenses/larq-rep.txt": b"LICENSE",
        "licenses/notice.txt": b"android_demo/runtime/NOTICE",
        "licenses/tensorflow-lite.txt": b"TFLite's",
    }
    times = {path: path.stat().st_mtime_ns for path in project.out.rglob("*")}
    captured = capsys.readouterr()
    assert "QuickNetSmall is left out: larq_zoo is not installed" in captured.err
    assert "8 files" not in captured.out and "7 files" in captured.out
    assert project.build("--no-larq-zoo") == 0
    assert project.calls == []
    assert {path: path.stat().st_mtime_ns for path in project.out.rglob("*")} == times
    assert capsys.readouterr() == ("", "")
    shutil.rmtree(project.out)
    assert project.build() == 0
    assert project.files() == files


@pytest.mark.parametrize("change", ["network", "licence", "edited", "removed", "added", "unfinished"])
def test_assets_are_made_again_after_a_change(project, change):
    assert project.build() == 0
    before = project.files()
    file = project.out / "RepResNet20.tflite"
    if change == "network":
        (project.demo / "RepResNet20.tflite").write_text("better weights")
        before["RepResNet20.tflite"] = b"better weights"
    elif change == "licence":
        (project.root / "LICENSE").write_text("another")
        before["licenses/larq-rep.txt"] = b"another"
    elif change == "edited":
        file.write_text("a planted fault")
    elif change == "removed":
        file.unlink()
    elif change == "added":
        (project.out / "Old.tflite").write_text("of an older version")
    else:
        (project.root / "assets.stamp").write_text("{}")
    assert project.build() == 0
    assert project.calls == NAMES
    after = project.files()
    after.pop("networks.json"), before.pop("networks.json")
    assert after == before


@pytest.mark.parametrize("stale", ["older", "missing"])
def test_the_demo_runs_if_its_files_are_not_up_to_date(project, capfd, stale):
    file = project.demo / "ResNet20.tflite"
    if stale == "older":
        file.write_text("old weights")
        os.utime(file, (1e9 - 1, 1e9 - 1))
    else:
        file.unlink()
    assert project.build() == 0
    assert project.files()["ResNet20.tflite"] == b"weights of ResNet20"
    captured = capfd.readouterr()
    expected = "source.py is newer than" if stale == "older" else "ResNet20.tflite is missing"
    assert expected in captured.err or "demo.py is newer than" in captured.err
    assert "training" in captured.err and "training" not in captured.out


def test_a_demo_that_fails_ends_with_2(project, capsys):
    (project.demo / "ResNet20.tflite").unlink()
    project.write_demo(end="raise SystemExit(1)\n")
    assert project.build() == 2
    assert "examples/demo.py ended with exit code 1" in capsys.readouterr().err
    assert not project.out.exists()


def test_what_is_missing_or_wrong_ends_with_2(project, capsys):
    project.about = {**DIGITS, "classes": ["cat"]}
    assert project.build() == 2
    assert "metadata of ResNet20 say" in capsys.readouterr().err
    project.about = DIGITS
    (project.root / "tensorflow-lite.aar").write_text("half a file")
    assert project.build() == 2
    assert "tensorflow-lite.aar is damaged" in capsys.readouterr().err
    (project.root / "tensorflow-lite.aar").unlink()
    assert project.build() == 2
    assert "`make -C android_demo assets` fetches it" in capsys.readouterr().err


def test_a_folder_of_others_is_left_alone(project, capsys):
    project.out.mkdir()
    (project.out / "thesis.tex").write_text("three years")
    assert project.build() == 2
    assert "was not made by this script" in capsys.readouterr().err
    assert project.files() == {"thesis.tex": b"three years"}


def test_a_network_of_larq_zoo_is_taken_where_it_is_installed(project, capsys):
    python = project.root / ".venv-zoo" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\ntest "$1" = -c || echo weights > "$3"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    assert project.build() == 0
    assert project.calls == [*NAMES, "QuickNetSmall"]
    assert project.files()["QuickNetSmall.tflite"] == b"weights\n"
    assert project.build("--no-larq-zoo") == 0
    assert project.calls == NAMES
    assert "QuickNetSmall.tflite" not in project.files()
    (project.root / "android_demo" / "build" / "larq_zoo" / "QuickNetSmall.tflite").unlink()
    python.write_text('#!/bin/sh\ntest "$1" = -c || { echo no memory >&2; exit 1; }\n')
    assert project.build() == 2
    assert "--no-larq-zoo leaves it out. no memory" in capsys.readouterr().err


def test_references_of_files_that_are_none(tmp_path, capsys):
    assert script.main(["reference", str(tmp_path / "none.tflite")]) == 2
    assert "none.tflite" in capsys.readouterr().err
    file = tmp_path / "text.tflite"
    file.write_text("a text")
    assert script.main(["reference", str(file)]) == 2
    assert "text.tflite is no .tflite file: bytes 4 to 8 should be TFL3" in capsys.readouterr().err


def test_a_reference_is_written_beside_its_file(interpreter, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script.terminal, "quiet_tensorflow", lambda: None)
    monkeypatch.setattr(script, "reference", lambda content: {"outputs": [content.hex()], "further": []})
    file = tmp_path / "a b.tflite"
    file.write_bytes(b"....TFL3")
    assert script.main(["reference", str(file)]) == 0
    target = tmp_path / "a b.reference.json"
    assert json.loads(target.read_text())["outputs"] == [b"....TFL3".hex()]
    assert str(target) in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a b.reference.json", "a b.tflite"]


@pytest.mark.parametrize("name", ["ResNet20", "RepResNet20"])
def test_changed_weights_are_seen(built, name):
    """One byte of the largest binary filter, at three places: the outputs differ by the app's rule."""
    content = built(f"assets/{name}.tflite").read_bytes()
    expected = json.loads(built(f"assets/{name}.reference.json").read_text())
    from larq_rep.converters.flatbuffer import Flatbuffer  # Imports TensorFlow, in the right order.

    assert script.reference(content) == expected
    flatbuffer = Flatbuffer(content)
    filters = [flatbuffer.constant(op.inputs[1]).tobytes() for op in flatbuffer.operators if op.name == "LceBconv2d"]
    largest = max(filters, key=len)
    assert content.count(largest) == 1
    for place in (0, len(largest) // 2, len(largest) - 1):
        changed = bytearray(content)
        changed[content.index(largest) + place] ^= 0xFF
        runs = np.array(runs_of(script.reference(bytes(changed))))[:, 0]
        right = np.array(runs_of(expected))[:, 0]
        shares = abs(runs - right).max(axis=1) / np.ptp(right, axis=1)
        assert (shares > 1e-3).any()


def test_built_assets(built):
    folder = built("assets")
    networks = json.loads((folder / "networks.json").read_text())["networks"]
    assert [network["name"] for network in networks][:3] == NAMES
    for network in networks:
        content = (folder / network["file"]).read_bytes()
        assert content[4:8] == b"TFL3" and len(content) == network["bytes"]
        assert 0 < network["binary_macs"] < network["macs"]
        runs = runs_of(json.loads((folder / network["reference"]).read_text()))
        assert len(runs) == script.INPUTS
        # An output that depends on its input, and has a clear largest number.
        assert len({json.dumps(run) for run in runs}) == len(runs)
        for (scores,) in runs:
            second, first = sorted(scores)[-2:]
            assert first - second > 1e-4 * (first - min(scores))
        if "labels" in network:
            assert (folder / network["labels"]).read_text().splitlines() == DIGITS["classes"]
    # The convolutions of Rep-ReActNet-A have the published number of binary operations.
    rep = next(network for network in networks if network["name"] == "RepReActNetA")
    assert rep["binary_macs"] == 4_816_896_000
