#!/usr/bin/env python3
"""Makes what the app carries, in build/assets: networks, the desktop's outputs for them, their list, and licences.

`make -C android_demo assets` calls it. Two runs on a machine give the same bytes. Exit code 0, or 2 if something is
missing or wrong, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import math
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import larq_rep_runtime
import numpy as np
from larq_rep_runtime.messages import captured_stderr
from larq_rep_runtime.metadata import read_metadata

from larq_rep_cli import terminal

ROOT = Path(__file__).resolve().parents[2]
ANDROID = ROOT / "android_demo"
DEMO = ROOT / "build" / "demo"
# What networks are made from: if any of it is newer than a file, that is made again.
SOURCES = tuple(ROOT / name for name in ("examples/demo.py", "larq_rep", "larq_rep_cli", "zoo", "converters"))
TFLITE = ANDROID / "build" / "maven" / "build" / "tensorflow-lite.aar"

INPUTS = 8  # Of 40 changed bytes of binary weights, one input of the trained networks shows 26 to 32, and 8 show all.
MOST_VALUES = 20_000  # In a reference: 200 kB.


class Network(NamedTuple):
    """A network of the app: its name, what it was trained for, and what the app says about it."""

    name: str
    trained: bool
    data: str
    note: str


BUNDLED = (
    Network("ResNet20", True, "digits", "Trained on handwritten digits of 16 x 16 pixels."),
    Network("RepResNet20", True, "digits", "Trained on handwritten digits of 16 x 16 pixels."),
    Network("RepReActNetA", False, "imagenet", "Untrained; its batch normalisations are set on photographs."),
)
OF_LARQ_ZOO = Network(
    "QuickNetSmall", False, "imagenet", "Of larq_zoo, untrained; its batch normalisations are set on photographs."
)

_EXAMPLES = """examples:
  assets.py                          build/assets; build/demo is made first if it is not up to date (10 minutes)
  assets.py --no-larq-zoo            the same without the network of larq_zoo
  assets.py reference mine.tflite    mine.reference.json: what the app compares with
"""


class AssetsError(Exception):
    """The assets cannot be made; the message says why and what to do."""


def generated(shape: Sequence[int], dtype: np.dtype, number: int = 0) -> np.ndarray:
    """The same input as the app's `InputGenerator` makes it, from integers alone.

    Value i of n has the bits of the 32-bit hash of `number * n + i`, by shifts and multiplications. Real values are its
    upper 24 bits over 2^22, less 2, which is exact and in [-2, 2); other types have its upper 8 bits, or 1.

    # Raises
        AssetsError: If there are no values of this type.
    """
    count = math.prod(shape)
    h = np.arange(number * count, (number + 1) * count, dtype=np.uint64).astype(np.uint32) * np.uint32(0x9E3779B9)
    for shift, factor in ((16, 0x21F0AAAD), (15, 0x735A2D97)):
        h = (h ^ h >> np.uint32(shift)) * np.uint32(factor)
    h ^= h >> np.uint32(15)
    if dtype == np.float32:
        values = (h >> np.uint32(8)).astype(np.float32) * np.float32(2**-22) - np.float32(2)
    elif dtype == np.bool_:
        values = (h >> np.uint32(31)).astype(np.bool_)
    elif dtype in (np.int8, np.uint8, np.int32, np.int64):
        values = (h >> np.uint32(24)).astype(np.uint8).astype(dtype)
    else:
        raise AssetsError(f"There are no values for an input of {dtype}. Expected float32, integers or bool.")
    return values.reshape(shape)


def reference(content: bytes) -> dict[str, Any]:
    """The outputs of a file for generated inputs, as the app's `Reference` reads them.

    # Raises
        AssetsError: If there are no values for an input or output.
        DelegateError: If the file does not run.
    """
    with captured_stderr():  # TFLite says that it runs.
        interpreter = larq_rep_runtime.Interpreter(content)
    runs: list[list[list[float]]] = []
    while len(runs) < INPUTS:
        inputs = [generated(x["shape"], np.dtype(x["dtype"]), len(runs)) for x in interpreter.inputs]
        outputs = interpreter.invoke(inputs)
        if any(not np.isfinite(y).all() for y in outputs):
            raise AssetsError(
                "An output is not finite, so nothing can be compared with it. Check the network's weights."
            )
        runs.append([_plain(y) for y in outputs])
        if (len(runs) + 1) * sum(y.size for y in outputs) > MOST_VALUES:
            break
    return {
        "schema": 1,
        "inputs": "lowbias32",
        "runtime": f"larq-rep-runtime {metadata.version('larq-rep-runtime')}",
        "outputs": [
            {"name": detail["name"], "shape": list(y.shape), "values": first}
            for detail, y, first in zip(interpreter.outputs, outputs, runs[0], strict=True)
        ],
        # For inputs 1, 2, ...: the numbers of each output.
        "further": runs[1:],
    }


def _plain(values: np.ndarray) -> list[float]:
    """Numbers for JSON; real ones as short as float32 allows."""
    flat = values.reshape(-1)
    return [float(str(x)) for x in flat] if values.dtype.kind == "f" else [int(x) for x in flat]


def as_json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def reference_file(file: Path) -> Path:
    """Where the app and run_on_device.py look for the reference of a file."""
    return file.with_name(file.name.removesuffix(".tflite") + ".reference.json")


def write(file: Path, content: bytes) -> None:
    """Writes a file in one step, unless it has these bytes."""
    if file.is_file() and file.read_bytes() == content:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)


def why_stale(files: Iterable[Path], sources: Iterable[Path]) -> str | None:
    """Why files have to be made again; `None` if they are newer than the Python files in all sources."""
    paths = [path for source in sources for path in [*source.rglob("*.py"), source] if path.suffix == ".py"]
    newest, change = max((path.stat().st_mtime, path) for path in paths)
    for file in files:
        if not file.is_file():
            return f"{file} is missing"
        if file.stat().st_mtime < newest:
            return f"{change} is newer than {file}"
    return None


def demo_networks() -> dict[str, bytes]:
    """The files of `examples/demo.py`, which runs first if they are not up to date.

    # Raises
        AssetsError: If the demo fails.
    """
    files = {network.name: DEMO / f"{network.name}.tflite" for network in BUNDLED}
    if reason := why_stale(files.values(), SOURCES):
        terminal.note(f"{reason}: examples/demo.py trains the networks, in some ten minutes.")
        command = [sys.executable, str(ROOT / "examples" / "demo.py")]
        # Its table is no result of this command.
        if code := subprocess.run(command, cwd=ROOT, stdout=2).returncode:
            raise AssetsError(f"examples/demo.py ended with exit code {code}. Its output above says why.")
        if reason := why_stale(files.values(), SOURCES):
            raise AssetsError(f"examples/demo.py has run, but {reason}. Are the clocks of this machine right?")
    return {name: file.read_bytes() for name, file in files.items()}


def larq_zoo_network() -> dict[str, bytes]:
    """The network of larq_zoo, converted where larq_zoo is installed; empty if it is not.

    # Raises
        AssetsError: If it cannot be converted.
    """
    name = OF_LARQ_ZOO.name
    python = next(filter(_has_larq_zoo, (sys.executable, str(ROOT / ".venv-zoo" / "bin" / "python"))), None)
    if python is None:
        terminal.note(f"{name} is left out: larq_zoo is not installed (in the root: make .venv-zoo/installed).")
        return {}
    file = ANDROID / "build" / "larq_zoo" / f"{name}.tflite"
    if why_stale([file], [*SOURCES, Path(__file__)]):
        file.parent.mkdir(parents=True, exist_ok=True)
        with terminal.working(f"converting {name} of larq_zoo"):
            done = subprocess.run([python, __file__, "larq-zoo", str(file)], cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise AssetsError(f"{name} of larq_zoo cannot be converted; --no-larq-zoo leaves it out. {done.stderr}")
        os.utime(file)  # It may have the same bytes as before.
    return {name: file.read_bytes()}


def convert_larq_zoo(file: Path) -> None:
    """Converts the network of larq_zoo, in a Python that has it.

    Without statistics of its batch normalisations one class would have all the probability, whatever the input.
    """
    terminal.quiet_tensorflow()
    import tensorflow as tf

    from larq_rep import training, zoo
    from larq_rep.converters import convert
    from larq_rep.data import sample_photographs

    tf.keras.utils.set_random_seed(1)
    model = zoo.get_model(OF_LARQ_ZOO.name)
    training.calibrate_batch_norm(model, sample_photographs(224))
    write(file, convert(model)[0])


def _has_larq_zoo(python: str) -> bool:
    if python == sys.executable:
        return importlib.util.find_spec("larq_zoo") is not None
    # A child, because packages of another Python are not this one's.
    find = "import importlib.util, sys; sys.exit(importlib.util.find_spec('larq_zoo') is None)"
    return os.access(python, os.X_OK) and subprocess.run([python, "-c", find]).returncode == 0


def licences() -> dict[str, bytes]:
    """The texts that the app shows, by their names in the assets.

    # Raises
        AssetsError: If one is missing.
    """
    try:
        with zipfile.ZipFile(TFLITE) as aar:
            tflite = aar.read("LICENSE")
    except FileNotFoundError:
        raise AssetsError(f"There is no {TFLITE}: `make -C android_demo assets` fetches it.") from None
    except (zipfile.BadZipFile, KeyError) as error:
        raise AssetsError(
            f"{TFLITE} is damaged: {error}. Remove it; `make -C android_demo assets` fetches it."
        ) from error
    return {
        "licenses/larq-rep.txt": (ROOT / "LICENSE").read_bytes(),
        "licenses/notice.txt": (ANDROID / "runtime" / "NOTICE").read_bytes(),
        "licenses/tensorflow-lite.txt": tflite,
    }


def assets_of(network: Network, content: bytes) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The files of a network by their names, and its entry in networks.json."""
    terminal.quiet_tensorflow()
    from larq_rep.converters import describe

    about = describe(content)
    file, labels = f"{network.name}.tflite", f"{network.name}.labels.txt"
    compared = reference_file(Path(file)).name
    files = {file: content, compared: as_json(reference(content))}
    entry = {
        **network._asdict(),
        "file": file,
        "reference": compared,
        "bytes": len(content),
        "macs": about.binary_macs + about.real_macs,
        "binary_macs": about.binary_macs,
        "input": {"shape": list(about.inputs[0].shape), "type": about.inputs[0].dtype},
    }
    if names := about.metadata.get("classes"):
        files[labels] = "".join(f"{name}\n" for name in names).encode()
        entry["labels"] = labels
    return files, entry


def check_digits(content: bytes, name: str) -> None:
    """Checks that a file says how a drawn digit is prepared and what its classes are called.

    # Raises
        AssetsError: If it does not.
    """
    about = read_metadata(content)
    said = about.get("input") or {}
    found = said.get("size"), said.get("channels"), said.get("range"), about.get("classes")
    expected = [16, 16], 1, [0.0, 1.0], [str(digit) for digit in range(10)]
    if found != expected:
        raise AssetsError(
            f"The metadata of {name} say size, channels, range and classes {found}, expected {expected}. "
            "Run examples/demo.py again."
        )


def _digest(*contents: bytes) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in contents)).hexdigest()


def _runtime() -> list[bytes]:
    """What the references depend on beside the networks: this script, the delegate, and the engine."""
    folder = Path(larq_rep_runtime.__file__).parent
    engines = [f"{d.name} {d.version}" for d in metadata.distributions() if d.name in ("ai-edge-litert", "tensorflow")]
    files = [Path(__file__), *sorted(folder.glob("*.py")), Path(larq_rep_runtime.delegate_path())]
    return [*(file.read_bytes() for file in files), " ".join(sorted(engines)).encode()]


def build(out: Path, larq_zoo: bool) -> None:
    """Makes the assets, unless they are what the same networks, texts and runtime gave before.

    # Arguments
        out: The folder, which has nothing else in it.
        larq_zoo: Whether to take the network of larq_zoo, where that is installed.

    # Raises
        AssetsError: If anything is missing, or the folder is not one of this script.
    """
    stamp = out.with_name(f"{out.name}.stamp")
    if out.is_symlink() or (out.exists() and not stamp.is_file() and (not out.is_dir() or any(out.iterdir()))):
        raise AssetsError(f"{out} was not made by this script, so it is not replaced: move it away.")
    contents = demo_networks()
    for network in BUNDLED:
        if network.data == "digits":
            check_digits(contents[network.name], network.name)
    if larq_zoo:
        contents |= larq_zoo_network()
    texts = licences()
    made_of = {"runtime": _digest(*_runtime()), **{name: _digest(x) for name, x in {**contents, **texts}.items()}}
    if _is_unchanged(out, stamp, made_of):
        return
    networks = [network for network in (*BUNDLED, OF_LARQ_ZOO) if network.name in contents]
    files, entries = dict(texts), []
    with terminal.progress() as bars:
        for network in bars.track(networks, description="the desktop's outputs"):
            own, entry = assets_of(network, contents[network.name])
            files |= own
            entries.append(entry)
    files["networks.json"] = as_json({"schema": 1, "networks": entries})
    # While the stamp is of nothing, the folder is ours but not finished.
    write(stamp, as_json({}))
    for name, content in files.items():
        write(out / name, content)
    for path in _files(out):
        if path.relative_to(out).as_posix() not in files:
            path.unlink()
    write(stamp, as_json({"made_of": made_of, "files": {name: _digest(content) for name, content in files.items()}}))
    size = sum(map(len, files.values()))
    print(f"{out}: {', '.join(network.name for network in networks)}; {len(files)} files, {size / 1e6:.2f} MB")


def _is_unchanged(out: Path, stamp: Path, made_of: dict[str, str]) -> bool:
    """Whether the folder still has the files, and no others, that were made of the same."""
    try:
        before = json.loads(stamp.read_text("utf-8"))
        found = {path.relative_to(out).as_posix(): _digest(path.read_bytes()) for path in _files(out)}
    except (OSError, ValueError):
        return False
    return before == {"made_of": made_of, "files": found}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if not path.is_dir())


def write_references(files: Sequence[Path]) -> None:
    """Writes the reference of each file beside it.

    # Raises
        AssetsError: If a file is none of TFLite, or does not run.
    """
    for file in files:
        content = file.read_bytes()
        if content[4:8] != b"TFL3":
            raise AssetsError(f"{file} is no .tflite file: bytes 4 to 8 should be TFL3, found {content[4:8]!r}.")
        with terminal.working(f"running {file}"):
            terminal.quiet_tensorflow()
            result = reference(content)
        target = reference_file(file)
        write(target, as_json(result))
        print(f"{target}: {len(result['outputs'])} outputs for each of {1 + len(result['further'])} inputs")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "assets.py",
        description="Makes the networks, references and licences of the app.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=ANDROID / "build" / "assets", metavar="DIR", help="[build/assets]")
    parser.add_argument("--no-larq-zoo", action="store_true", help="leave out the network of larq_zoo")
    commands = parser.add_subparsers(dest="command", metavar="")
    own = commands.add_parser("reference", help="write the references of other files: NAME.reference.json")
    own.add_argument("files", nargs="+", type=Path, metavar="FILE")
    zoo = commands.add_parser("larq-zoo", help="convert the network of larq_zoo, in a Python that has it")
    zoo.add_argument("file", type=Path, metavar="FILE")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point.

    # Returns
        0; 2 if something is missing or wrong; 130 after Ctrl-C.
    """
    arguments = _parser().parse_args(argv)
    try:
        if arguments.command == "reference":
            write_references(arguments.files)
        elif arguments.command == "larq-zoo":
            convert_larq_zoo(arguments.file)
        else:
            build(arguments.out, not arguments.no_larq_zoo)
    except (AssetsError, larq_rep_runtime.DelegateError, OSError) as error:
        print(f"assets.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("assets.py: interrupted.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
