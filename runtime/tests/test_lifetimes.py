"""What lives how long: delegates, interpreters, threads, memory; and how long loading takes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import graphs
import numpy as np
import pytest

RUNTIME = Path(__file__).resolve().parents[1]


def program(name, *arguments, timeout=300):
    """Builds a program of tests/ and runs it; what it prints."""
    built = subprocess.run(["make", "-s", "-C", RUNTIME, f"build/native/{name}"], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    command = [RUNTIME / "build" / "native" / name, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]
    return result.stdout


def profiles(text):
    return [json.loads(line.split(": ", 1)[1]) for line in text.splitlines() if line.startswith("larq-rep profile: ")]


def test_delegate_and_interpreters_end_in_any_order(tmp_path):
    rng = np.random.default_rng(0)
    graph = graphs.Graph()
    x = graph.input((1, 8, 8, 64))
    y = graph.elementwise("ADD", graph.bconv(graph.quantize(x), rng, 64, 64), x)
    content = graph.content(graph.bconv(graph.quantize(y), rng, 64, 32))
    images = rng.normal(size=(3, 8, 8, 64)).astype(np.float32)
    (tmp_path / "network.tflite").write_bytes(content)
    np.save(tmp_path / "x.npy", images)
    np.save(tmp_path / "y.npy", np.concatenate([graphs.run(content, image[None])[0] for image in images]))
    # Memory is overwritten when it is freed.
    overwritten = {"MALLOC_PERTURB_": "165", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
    command = [sys.executable, RUNTIME / "tests" / "support" / "lifetimes.py", tmp_path]
    environment = {**os.environ, "PYTHONPATH": str(RUNTIME), **overwritten}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    found = profiles(done.stderr)
    assert len(found) == int(done.stdout) and all(profile["threads"] == 2 for profile in found)


@pytest.mark.parametrize("options", [[], ["num_threads=2", "fuse=1"]], ids=["one thread", "two threads"])
def test_every_allocation_fails_once(options):
    printed = program("faults", *options)
    allocations, failures = (int(part.split()[0]) for part in printed.split(":")[0].split(","))
    assert allocations > 50 and failures > allocations and printed.endswith("passed\n")


def test_forked_processes_start_workers_of_their_own():
    assert program("forks", 12) == "12 rounds: passed\n"


def test_claims_what_it_is_defined_to():
    assert program("claims", 3000, 5) == "3000 graphs: passed\n"


def test_claiming_takes_time_in_proportion_to_the_graph():
    milliseconds = {}
    for length in (10_000, 100_000):
        words = program("claims", "chain", length).split()
        assert int(words[0]) == length
        milliseconds[length] = float(words[4])
    # 19 and 150 ms on a busy machine.
    assert milliseconds[10_000] < 1000 and milliseconds[100_000] < 10_000
