"""The command `lce-run`: runs a file and tells its answer and its latency."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from larq_rep_runtime.interpreter import Interpreter
from larq_rep_runtime.library import DelegateError
from larq_rep_runtime.profile import profile, random_inputs

# Those of ImageNet, with which the published networks are trained.
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
        help="an image: scaled, cropped, normalised as for ImageNet, and mirrored for a file that takes it so",
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
    """An image as the networks of larq-rep take it.

    It is scaled until it covers the input, cropped in the middle, and normalised with ImageNet's means and
    deviations; grey images stay in [0, 1].

    # Arguments
        path: The file.
        shape: `(1, height, width, channels)` with 1 or 3 channels.

    # Raises
        DelegateError: If the shape is another one, or the image cannot be read.
    """
    if len(shape) != 4 or shape[3] not in (1, 3):
        raise DelegateError(
            f"--image needs an input of shape (1, height, width, 1 or 3), the model has {tuple(shape)}."
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
    pixels = np.asarray(fitted, np.float32)[None] / np.float32(255)
    return pixels[..., None] if shape[3] == 1 else (pixels - np.array(_MEAN, np.float32)) / np.array(_STD, np.float32)


def image_input(path: str, interpreter: Interpreter) -> np.ndarray:
    """An image as the input of a file: mirrored if the file takes it so, and quantized if its input is.

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


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the command prints, as a dictionary."""
    for name, least in (("num_threads", 1), ("warmup_runs", 0), ("num_runs", 1), ("top", 0)):
        if getattr(arguments, name) < least:
            raise DelegateError(f"--{name} should be at least {least}, found {getattr(arguments, name)}.")
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
        outputs = interpreter.predict(x)
        milliseconds.append(1e3 * (time.perf_counter() - start))
    first = (outputs[0] if isinstance(outputs, list) else outputs).reshape(-1)
    # Not -first, which is no larger number for -128 of int8.
    order = np.argsort(-first.astype(np.float64), kind="stable")
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
        "top": [{"index": int(i), "value": float(first[i])} for i in order[: arguments.top]],
    }
    if arguments.profile:
        result["profile"] = profile(
            arguments.file,
            arguments.num_threads,
            num_runs=arguments.num_runs,
            x=x,
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
    for entry in result["top"]:
        print(f"{entry['index']:6d} {entry['value']:12.5g}")
    print(
        f"{result['file']}: {result['bytes'] / 1e6:.2f} MB, median {result['median_ms']:.3f} ms "
        f"(p10 {result['p10_ms']:.3f}, p90 {result['p90_ms']:.3f}) of {result['num_runs']} runs, "
        f"{result['num_threads']} threads, {result['implementation']}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `lce-run`."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        result = run(arguments)
    except (DelegateError, OSError, ValueError) as error:
        print(f"lce-run: {error}", file=sys.stderr)
        return 2
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        _print(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
