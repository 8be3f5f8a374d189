"""The command `lce-run`: runs a file and prints its answer and its latency."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import shlex
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from larq_rep_runtime import machine
from larq_rep_runtime.folders import accuracy, note
from larq_rep_runtime.images import Preparation, as_input
from larq_rep_runtime.interpreter import ENGINES, PACKAGES, Interpreter
from larq_rep_runtime.library import DelegateError
from larq_rep_runtime.messages import captured_stderr
from larq_rep_runtime.preparation import class_names, preparation
from larq_rep_runtime.profile import profile, random_inputs

_EXAMPLES = """examples:
  lce-run network.tflite --random
  lce-run network.tflite --image cat.jpg --top 3
  lce-run network.tflite --image cat.jpg --labels names.txt
  lce-run network.tflite --images imagenet/val --limit 1000
  lce-run others.tflite --images mine/test --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --resize 256
  lce-run network.tflite --random --num_threads 4 --profile
  lce-run network.tflite --random --engine compiled --json
"""

# The sources that an option has an effect with, if not with all.
_SOURCES = {
    **dict.fromkeys(("mean", "std", "resize"), ("image", "images")),
    **dict.fromkeys(("warmup_runs", "num_runs", "top", "profile"), ("random", "image")),
    "limit": ("images",),
}
# The least value of an option, and its default.
_NUMBERS = {"num_threads": (1, 1), "warmup_runs": (0, 5), "num_runs": (1, 50), "top": (0, 5), "limit": (1, None)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "lce-run",
        description="Runs a .tflite file of Larq Compute Engine on stock TFLite or LiteRT.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="the .tflite file")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--image", metavar="PATH", help="an image, prepared as the file says")
    source.add_argument(
        "--images",
        metavar="FOLDER",
        help="top-1 and top-5 accuracy on a folder that holds a folder of images for each class: named as the class, "
        "with its number, or in alphabetical order",
    )
    source.add_argument("--random", action="store_true", help="normally distributed noise (the default)")
    # Without defaults, to see what was given.
    parser.add_argument(
        "--mean",
        type=_numbers,
        metavar="R,G,B",
        help="mean of the channels of pixels in 0..1, in place of the file's; one number is for all channels",
    )
    parser.add_argument("--std", type=_numbers, metavar="R,G,B", help="the same for the standard deviation")
    parser.add_argument(
        "--resize", type=int, metavar="N", help="shorter side before the central crop, in place of the file's"
    )
    parser.add_argument("--labels", metavar="FILE", help="names of the classes, one a line, in place of the file's")
    parser.add_argument("--limit", type=int, metavar="N", help="at most N of the images, evenly from all classes")
    parser.add_argument("--num_threads", type=int, metavar="N", help="threads [1]")
    parser.add_argument("--warmup_runs", type=int, metavar="N", help="runs before the timed ones [5]")
    parser.add_argument("--num_runs", type=int, metavar="N", help="timed runs [50]")
    parser.add_argument("--top", type=int, metavar="N", help="largest outputs to print [5]")
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="interpreter",
        help="interpreter of whichever TFLite is installed [the default], or CompiledModel of LiteRT 2.2 or newer",
    )
    parser.add_argument("--implementation", metavar="NAME", help="instruction set to use instead of the best one")
    parser.add_argument("--no_fuse", action="store_true", help="leave the neighbours of LCE's operators to TFLite")
    parser.add_argument("--profile", action="store_true", help="time of every step of the delegate")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _numbers(text: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers with commas between them, found {text!r}") from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides an engine's startup messages, which TensorFlow writes before it reads any variable.

    After an unexpected exception it prints them, because they may explain it.
    """
    try:
        with captured_stderr() as lines, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (DelegateError, OSError, ValueError):
        raise
    except Exception:
        for line in lines:
            print(line, file=sys.stderr)
        raise


def _source(arguments: argparse.Namespace) -> str:
    """Which option says what the file runs on: `random`, `image` or `images`. Fills in the defaults of the others.

    # Raises
        DelegateError: If a number is too small, or an option has no effect.
    """
    source = next((name for name in ("image", "images") if getattr(arguments, name) is not None), "random")
    for name, sources in _SOURCES.items():
        value = getattr(arguments, name)
        if source not in sources and value is not None and value is not False:
            effective = " and ".join(f"--{other}" for other in sources)
            raise DelegateError(f"--{name} has no effect with --{source}, only with {effective}: leave it out.")
    for name, (least, default) in _NUMBERS.items():
        value = getattr(arguments, name)
        if value is None:
            setattr(arguments, name, default)
        elif value < least:
            raise DelegateError(f"--{name} should be at least {least}, found {value}.")
    return source


def _preparation(arguments: argparse.Namespace, interpreter: Interpreter) -> Preparation:
    """The preparation of images. Says so if it is assumed."""
    if len(interpreter.inputs) != 1:
        raise DelegateError(f"Images need a model of one input, this one has {len(interpreter.inputs)}.")
    options = {name: getattr(arguments, name) for name in ("mean", "std", "resize")}
    prepare = preparation(interpreter.metadata, interpreter.inputs[0], **options)
    if prepare.assumed:
        note(
            f"lce-run: {arguments.file} does not say how images are prepared. {prepare.assumed.capitalize()}: "
            f"{prepare.text}. Change it with --mean, --std and --resize."
        )
    return prepare


def _largest(values: np.ndarray, count: int, names: list[str] | None) -> list[dict[str, Any]]:
    """The `count` largest numbers with their places and names; empty if the values are not numbers."""
    if values.dtype.kind not in "fiub":
        return []
    values = values.reshape(-1).astype(np.float64)
    named = names if names is not None and len(names) == len(values) else None
    # Stable, so that equal numbers keep their order.
    places = np.argsort(-values, kind="stable")[:count]
    return [{"index": int(i), "value": float(values[i]), **({"class": named[i]} if named else {})} for i in places]


def _measure(
    arguments: argparse.Namespace, interpreter: Interpreter, x: list[np.ndarray], names: list[str] | None
) -> dict[str, Any]:
    """The latency and the largest outputs for one input."""
    milliseconds = []
    for _ in range(arguments.warmup_runs + arguments.num_runs):
        start = time.perf_counter()
        outputs = interpreter.invoke(x)
        milliseconds.append(1e3 * (time.perf_counter() - start))
    # For a batch of images, only the outputs of the first.
    images = len(x[0]) if x and x[0].ndim == 4 else 1
    answers = []
    for detail, y in zip(interpreter.outputs, outputs, strict=True):
        top = _largest(y[0] if y.shape[:1] == (images,) else y, arguments.top, names)
        answers.append({"name": detail["name"], "shape": list(y.shape), "top": top})
    p10, median, p90 = np.percentile(milliseconds[arguments.warmup_runs :], (10, 50, 90))
    result: dict[str, Any] = {
        "num_runs": arguments.num_runs,
        "median_ms": float(median),
        "p10_ms": float(p10),
        "p90_ms": float(p90),
        "top": answers[0]["top"] if answers else [],
        "outputs": answers,
    }
    if arguments.profile:
        with _quiet():
            result["profile"] = profile(
                arguments.file,
                arguments.num_threads,
                num_runs=arguments.num_runs,
                x=x if arguments.image is not None else None,
                implementation=arguments.implementation,
                fuse=False if arguments.no_fuse else None,
                engine=arguments.engine,
            )
    return result


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs the command and returns its result as a dictionary."""
    source = _source(arguments)
    with _quiet():
        interpreter = Interpreter(
            arguments.file,
            arguments.num_threads,
            implementation=arguments.implementation,
            fuse=False if arguments.no_fuse else None,
            engine=arguments.engine,
        )
    names = class_names(interpreter, arguments.labels)
    result: dict[str, Any] = {
        "file": arguments.file,
        "bytes": Path(arguments.file).stat().st_size,
        "engine": arguments.engine,
        "implementation": interpreter.implementation,
        "num_threads": arguments.num_threads,
    }
    before = machine.state() if arguments.json else {}
    result |= _results(source, arguments, interpreter, names)
    if arguments.json:
        result["machine"] = _machine(arguments, interpreter, before)
    return result


def _results(
    source: str, arguments: argparse.Namespace, interpreter: Interpreter, names: list[str] | None
) -> dict[str, Any]:
    """What the file says of its input."""
    if source == "random":
        return _measure(arguments, interpreter, random_inputs(interpreter.inputs), names)
    prepare = _preparation(arguments, interpreter)
    said = {"preparation": f"{prepare.assumed}: {prepare.text}" if prepare.assumed else prepare.text}
    if source == "images":
        return {**said, **accuracy(interpreter, prepare, Path(arguments.images), names, arguments.limit)}
    detail = interpreter.inputs[0]
    x = as_input(prepare(arguments.image)[None].repeat(detail["shape"][0], axis=0), detail)
    return {**said, **_measure(arguments, interpreter, [x], names)}


def _machine(arguments: argparse.Namespace, interpreter: Interpreter, before: dict[str, Any]) -> dict[str, Any]:
    """What the latency depends on, besides the file."""
    package = next(name.split(".")[0] for name in PACKAGES if name in sys.modules)
    versions = {package: getattr(sys.modules[package], "__version__", None)}
    with contextlib.suppress(metadata.PackageNotFoundError):
        versions["larq_rep_runtime"] = metadata.version("larq-rep-runtime")
    return {
        **machine.describe(),
        "runtime": package,
        "versions": {name: version for name, version in versions.items() if version},
        "implementation": interpreter.implementation,
        "num_threads": arguments.num_threads,
        **{when: state for when, state in (("before", before), ("after", machine.state())) if state},
    }


def _print(result: dict[str, Any]) -> None:
    if "images" in result:
        top5 = f", top-5 {result['top5']:.2%}" if result["classes"] > 5 else ""
        print(f"{result['file']}: top-1 {result['top1']:.2%}{top5} of {result['images']} images.")
        return
    for partition in result.get("profile", []):
        print(f"{'ms':>9} {'best':>9}  operator")
        for step in partition["steps"]:
            print(f"{step['ms']:9.3f} {step['best_ms']:9.3f}  {step['operator']:4d} {step['name']}")
        memory = partition["packed_bytes"] + partition["memory_bytes"]
        print(f"{sum(step['best_ms'] for step in partition['steps']):19.3f}  ms in the delegate, {memory / 1e6:.1f} MB")
    for output in result["outputs"]:
        if len(result["outputs"]) > 1:
            print(f"{output['name']}, of shape {tuple(output['shape'])}:")
        for entry in output["top"]:
            print(f"{entry['index']:6d} {entry['value']:12.5g}  {entry.get('class', '')}".rstrip())
    print(
        f"{result['file']}: {result['bytes'] / 1e6:.2f} MB, median {result['median_ms']:.3f} ms "
        f"(p10 {result['p10_ms']:.3f}, p90 {result['p90_ms']:.3f}) of {result['num_runs']} runs, "
        f"{result['num_threads']} threads, {result['engine']}, {result['implementation']}"
    )


def _report(argv: Sequence[str]) -> None:
    """Prints the exception that is being handled, and what to do about it."""
    traceback.print_exc()
    versions = [f"Python {platform.python_version()}", f"{platform.system()} {platform.machine()}"]
    for name in ("larq-rep-runtime", "ai-edge-litert", "tflite-runtime", "tensorflow", "numpy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions.append(f"{name} {metadata.version(name)}")
    print(
        "This is a fault of larq-rep-runtime, not of its input. Please report it, with all lines above and "
        f"these: {', '.join(versions)}, command: {shlex.join(['lce-run', *argv])}",
        file=sys.stderr,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `lce-run`.

    # Returns
        0; 2 if a file, an option or the machine is at fault; 3 after a traceback, which is our fault; 130 after Ctrl-C;
        141 if nobody reads the output.
    """
    arguments = _parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # A name may have letters that it cannot encode.
    try:
        result = run(arguments)
        if arguments.json:
            print(json.dumps(result, indent=2))
        else:
            _print(result)
        sys.stdout.flush()
    except BrokenPipeError:
        # Otherwise Python would try to write again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except (DelegateError, OSError, ValueError) as error:
        print(f"lce-run: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lce-run: interrupted.", file=sys.stderr)
        return 130
    except Exception:
        _report(sys.argv[1:] if argv is None else argv)
        return 3
    return 0


def command() -> None:
    """Entry point of `lce-run`: `main`, and the end of the process, which LiteRT would report to standard error."""
    os._exit(main())


if __name__ == "__main__":
    command()
