"""The command `lce-run`: runs a file and prints its answer and its latency."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shlex
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from larq_rep_runtime.interpreter import Interpreter
from larq_rep_runtime.library import DelegateError
from larq_rep_runtime.profile import captured_stderr, profile, random_inputs

# Mean and deviation of ImageNet, which the published networks were trained with.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_EXAMPLES = """examples:
  lce-run network.tflite --random
  lce-run network.tflite --image cat.jpg --top 3
  lce-run network.tflite --random --num_threads 4 --profile
  lce-run network.tflite --random --json
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "lce-run",
        description="Runs a .tflite file of Larq Compute Engine on stock TFLite or LiteRT.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="the .tflite file")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--image",
        metavar="PATH",
        help="an image: scaled, cropped, normalised as for ImageNet, and mirrored if the file takes mirrored images",
    )
    source.add_argument("--random", action="store_true", help="normally distributed noise (the default)")
    parser.add_argument("--num_threads", type=int, default=1, metavar="N", help="threads [1]")
    parser.add_argument("--warmup_runs", type=int, default=5, metavar="N", help="runs before the timed ones [5]")
    parser.add_argument("--num_runs", type=int, default=50, metavar="N", help="timed runs [50]")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="largest outputs to print [5]")
    parser.add_argument("--implementation", metavar="NAME", help="instruction set to use instead of the best one")
    parser.add_argument("--no_fuse", action="store_true", help="leave the neighbours of LCE's operators to TFLite")
    parser.add_argument("--profile", action="store_true", help="time of every step of the delegate")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def read_image(path: str, shape: Sequence[int]) -> np.ndarray:
    """Reads an image in the form that larq-rep's networks take.

    It is scaled until it covers the input, cropped in the middle, and normalised with ImageNet's means and
    deviations; grey images stay in [0, 1].

    # Arguments
        path: The file.
        shape: `(N, height, width, channels)` with 1 or 3 channels; the image is repeated N times.

    # Raises
        DelegateError: If the shape differs from that, or the image cannot be read.
    """
    if len(shape) != 4 or shape[3] not in (1, 3):
        raise DelegateError(
            f"--image needs an input of shape (N, height, width, 1 or 3), the model has {tuple(shape)}."
        )
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ModuleNotFoundError:
        raise DelegateError("--image needs Pillow: pip install pillow.") from None
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image).convert("L" if shape[3] == 1 else "RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DelegateError(f"{path} cannot be read as an image: {error}.") from error
    fitted = ImageOps.fit(upright, (shape[2], shape[1]), Image.Resampling.BILINEAR)
    pixels = np.asarray(fitted, np.float32)[None].repeat(shape[0], axis=0) / np.float32(255)
    return pixels[..., None] if shape[3] == 1 else (pixels - np.array(_MEAN, np.float32)) / np.array(_STD, np.float32)


def image_input(path: str, interpreter: Interpreter) -> np.ndarray:
    """An image as the input of a file: mirrored if the file takes mirrored images, quantized if its input is.

    # Raises
        DelegateError: If the file does not take an image, or the image cannot be read.
    """
    if len(interpreter.inputs) != 1:
        raise DelegateError(f"--image needs a model of one input, this one has {len(interpreter.inputs)}.")
    detail = interpreter.inputs[0]
    x, dtype = read_image(path, [int(d) for d in detail["shape"]]), np.dtype(detail["dtype"])
    if interpreter.metadata.get("mirrored_input"):
        x = np.ascontiguousarray(x[:, ::-1, ::-1])
    if dtype.kind == "f":
        return x.astype(dtype)
    scale, zero_point = detail["quantization"]
    if dtype.kind not in "iu" or scale == 0:
        raise DelegateError(f"--image needs an input of real numbers or a quantized one, the model's is plain {dtype}.")
    info = np.iinfo(dtype)
    return np.clip(np.round(x / np.float32(scale)) + zero_point, info.min, info.max).astype(dtype)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides an engine's startup messages, which TensorFlow writes before it reads any variable.

    After an unexpected exception it prints them, because they may explain it.
    """
    try:
        # A program that is started without standard error has nothing to hide.
        captured: AbstractContextManager[list[str]] = captured_stderr() if sys.stderr else nullcontext([])
        with captured as lines, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (DelegateError, OSError, ValueError):
        raise
    except Exception:
        for line in lines:
            print(line, file=sys.stderr)
        raise


def _largest(values: np.ndarray, count: int) -> list[dict[str, Any]]:
    """The `count` largest numbers with their places; empty if the values are not numbers."""
    if values.dtype.kind not in "fiub":
        return []
    values = values.reshape(-1).astype(np.float64)
    # Stable, so that equal numbers keep their order.
    return [{"index": int(i), "value": float(values[i])} for i in np.argsort(-values, kind="stable")[:count]]


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs the command and returns its result as a dictionary."""
    for name, least in (("num_threads", 1), ("warmup_runs", 0), ("num_runs", 1), ("top", 0)):
        if getattr(arguments, name) < least:
            raise DelegateError(f"--{name} should be at least {least}, found {getattr(arguments, name)}.")
    with _quiet():
        interpreter = Interpreter(
            arguments.file,
            arguments.num_threads,
            implementation=arguments.implementation,
            fuse=False if arguments.no_fuse else None,
        )
    x = [image_input(arguments.image, interpreter)] if arguments.image else random_inputs(interpreter.inputs)
    milliseconds = []
    for _ in range(arguments.warmup_runs + arguments.num_runs):
        start = time.perf_counter()
        outputs = interpreter.invoke(x)
        milliseconds.append(1e3 * (time.perf_counter() - start))
    # For a batch of images, only the outputs of the first.
    images = len(x[0]) if x and x[0].ndim == 4 else 1
    answers = []
    for detail, y in zip(interpreter.outputs, outputs, strict=True):
        top = _largest(y[0] if y.shape[:1] == (images,) else y, arguments.top)
        answers.append({"name": detail["name"], "shape": list(y.shape), "top": top})
    p10, median, p90 = np.percentile(milliseconds[arguments.warmup_runs :], (10, 50, 90))
    result: dict[str, Any] = {
        "file": arguments.file,
        "bytes": Path(arguments.file).stat().st_size,
        "implementation": interpreter.implementation,
        "num_threads": arguments.num_threads,
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
                x=x if arguments.image else None,
                implementation=arguments.implementation,
                fuse=False if arguments.no_fuse else None,
            )
    return result


def _print(result: dict[str, Any]) -> None:
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
            print(f"{entry['index']:6d} {entry['value']:12.5g}")
    print(
        f"{result['file']}: {result['bytes'] / 1e6:.2f} MB, median {result['median_ms']:.3f} ms "
        f"(p10 {result['p10_ms']:.3f}, p90 {result['p90_ms']:.3f}) of {result['num_runs']} runs, "
        f"{result['num_threads']} threads, {result['implementation']}"
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
    """Entry point of `lce-run`.

    # Returns
        0; 2 if a file, an option or the machine is at fault; 3 after a traceback, which is our fault; 130 after Ctrl-C;
        141 if nobody reads the output.
    """
    arguments = _parser().parse_args(argv)
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


if __name__ == "__main__":
    sys.exit(main())
