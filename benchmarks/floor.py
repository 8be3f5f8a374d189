"""Splits the time of a network into binary sums and the elementwise part, and compares the latter with its floor.

    python benchmarks/floor.py [network.tflite] [--implementation NAME]

Without a file it measures RepReActNetA with random weights.

The floor is the bytes of the tensors that the delegate's steps read and write, divided by the bandwidth of copying that
much memory. The elementwise part is an estimate: the measured total minus the network's binary sums at the speed of
the same kernels on one shape, 3x3 on 14x14x256 (`build/native/convolutions`).
"""

import argparse
import re
import subprocess
import time
from pathlib import Path

from runtime import trained_like  # isort: skip  (before TensorFlow)
import numpy as np
from larq_rep_runtime import available_implementations, profile

from larq_rep import zoo
from larq_rep.converters import convert

_RUNTIME = Path(__file__).resolve().parents[1] / "runtime"


def copy_bandwidth(size: int) -> float:
    """Bytes read and written per second while copying `size` bytes at a time; the best of many copies."""
    source, target = np.ones(size // 4, np.float32), np.ones(size // 4, np.float32)
    best = np.inf
    for _ in range(50):
        start = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - start)
    return 2 * source.nbytes / best


def sum_speed(implementation: str) -> float:
    """MACs per second of the kernels on a 3x3 convolution of 14x14x256."""
    program = _RUNTIME / "build" / "native" / "convolutions"
    subprocess.run(["make", "-s", "--no-print-directory", "-C", _RUNTIME, "build/native/convolutions"], check=True)
    printed = subprocess.run([program, implementation], capture_output=True, text=True, check=True).stdout
    return 1e9 * float(re.search(r"3x3 14x14x256\s+(\d+) GMAC/s", printed)[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--implementation", default=available_implementations()[0])
    arguments = parser.parse_args()
    name = arguments.file or "RepReActNetA with random weights"
    content = arguments.file.read_bytes() if arguments.file else convert(trained_like(zoo.RepReActNetA()))[0]
    partitions = profile(content, num_runs=100, implementation=arguments.implementation)
    steps = [step for partition in partitions for step in partition["steps"]]
    total = sum(step["best_ms"] for step in steps)
    macs, moved = sum(step["macs"] for step in steps), sum(step["bytes"] for step in steps)
    speed = sum_speed(arguments.implementation)
    bandwidth = copy_bandwidth(4 << 20)
    sums, floor = 1e3 * macs / speed, 1e3 * moved / bandwidth
    print(f"{name}, {arguments.implementation}: {total:.2f} ms in the delegate (best of each step)")
    print(f"binary sums, estimated:  {macs / 1e9:.2f} GMAC at {speed / 1e9:.0f} GMAC/s of one shape: {sums:.2f} ms")
    print(f"elementwise, the rest:   {total - sums:.2f} ms, {moved / 1e6:.1f} MB moved")
    print(
        f"its floor:               {floor:.2f} ms at {bandwidth / 1e9:.1f} GB/s; "
        f"over the floor about {(total - sums) / floor:.2f}"
    )


if __name__ == "__main__":
    main()
