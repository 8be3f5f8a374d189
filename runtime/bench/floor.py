"""Where the time of a network goes: binary sums, and the elementwise part over the least it could take.

    python bench/floor.py network.tflite [--implementation NAME]

The floor is the bytes of the tensors that the delegate's steps read and write over the bandwidth of copying that
much memory. The time of the sums is taken from the speed of tests of the same kernels (`build/native/convolutions`).
"""

import argparse
import gc
import json
import re
import subprocess
import time
from pathlib import Path

import numpy as np
from larq_rep_runtime import Interpreter, available_implementations
from larq_rep_runtime.run import _PROFILE, _captured_stderr

_RUNTIME = Path(__file__).resolve().parents[1]


def copy_bandwidth(size: int) -> float:
    """Bytes read and written a second, copying `size` bytes at a time; the best of many."""
    source, target = np.ones(size // 4, np.float32), np.ones(size // 4, np.float32)
    best = np.inf
    for _ in range(50):
        start = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - start)
    return 2 * source.nbytes / best


def sum_speed(implementation: str) -> float:
    """MAC a second of the kernels on a 3x3 convolution of 14x14x256."""
    program = _RUNTIME / "build" / "native" / "convolutions"
    subprocess.run(["make", "-s", "-C", _RUNTIME, "build/native/convolutions"], check=True)
    printed = subprocess.run([program, implementation], capture_output=True, text=True, check=True).stdout
    return 1e9 * float(re.search(r"3x3 14x14x256\s+(\d+) GMAC/s", printed)[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--implementation", default=available_implementations()[0])
    arguments = parser.parse_args()
    with _captured_stderr() as lines:
        interpreter = Interpreter(arguments.file, implementation=arguments.implementation, profile=True)
        x = [np.zeros(detail["shape"], detail["dtype"]) for detail in interpreter.inputs]
        for _ in range(100):
            interpreter.predict(x)
        del interpreter
        gc.collect()
    partitions = [json.loads(line[len(_PROFILE) :]) for line in lines if line.startswith(_PROFILE)]
    steps = [step for partition in partitions for step in partition["steps"]]
    total = sum(step["best_ms"] for step in steps)
    macs, moved = sum(step["macs"] for step in steps), sum(step["bytes"] for step in steps)
    speed = sum_speed(arguments.implementation)
    bandwidth = copy_bandwidth(4 << 20)
    sums, floor = 1e3 * macs / speed, 1e3 * moved / bandwidth
    print(f"{arguments.file}, {arguments.implementation}: {total:.2f} ms in the delegate (best of each step)")
    print(f"binary sums:  {macs / 1e9:.2f} GMAC at {speed / 1e9:.0f} GMAC/s: {sums:.2f} ms")
    print(f"elementwise:  {total - sums:.2f} ms, {moved / 1e6:.1f} MB moved")
    print(f"its floor:    {floor:.2f} ms at {bandwidth / 1e9:.1f} GB/s; over the floor {(total - sums) / floor:.2f}")


if __name__ == "__main__":
    main()
