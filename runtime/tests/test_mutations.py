"""Damaged .tflite files in stock TFLite with the delegate: a message or a result, never the end of the process."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import originals
import pytest
from larq_rep_runtime import delegate_path

HERE = Path(__file__).resolve().parent
CORPUS = HERE.parent / "fuzz" / "corpus" / "files"


def work(library, folder, first, count, seconds):
    """Cases that came to their end, and the number of the one that ended the process, if one did, with its signal."""
    path = os.pathsep.join(
        [str(HERE / "support"), str(HERE.parents[1] / "tests" / "support"), str(HERE.parent), *sys.path]
    )
    result = subprocess.run(
        [sys.executable, HERE / "support" / "mutations.py", library, folder, str(first), str(count), str(seconds)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    cases = {}
    number = None
    for line in result.stdout.splitlines():
        if match := re.fullmatch(r"(\d+) (.*)", line):
            number = int(match[1])
            if match[2]:
                cases[number] = json.loads(match[2])
    if result.returncode > 0:
        raise AssertionError(f"after case {number}: {result.stderr[-3000:]}")
    killed = None if result.returncode == 0 else (number, signal.Signals(-result.returncode).name)
    return cases, killed


@pytest.fixture(scope="session")
def nothing(tmp_path_factory):
    """A delegate that takes LCE's operators and does nothing."""
    library = tmp_path_factory.mktemp("nothing") / "nothing.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-fvisibility=hidden", "-o", library, HERE / "nothing.c"], check=True)
    return library


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    for name, make in originals.ALL.items():
        (folder / f"{name}.tflite").write_bytes(make())
    return folder


def campaign(folder, nothing, seed, seconds):
    """Runs damaged files for some time: their outcomes, and the numbers of those that only the runtime crashes on."""
    end, first = time.monotonic() + seconds, seed * 1_000_000
    cases, faults, of_runtime = {}, [], []
    while time.monotonic() < end:
        more, killed = work(delegate_path(), folder, first, 1_000_000, max(end - time.monotonic(), 0.1))
        cases |= more
        if killed is None:
            break
        first = killed[0] + 1
        (of_runtime if work(nothing, folder, killed[0], 1, 60)[1] else faults).append(killed)
    return cases, faults, of_runtime


def test_originals_run(folder):
    """The sound files are what they should be: otherwise their damage would say nothing."""
    import graphs
    import numpy as np

    for file in folder.glob("*.tflite"):
        engine = graphs.interpreter(file.read_bytes())
        shape = engine.get_input_details()[0]
        graphs.run(file.read_bytes(), np.zeros(shape["shape"], shape["dtype"]))


@pytest.mark.slow
def test_damaged_files(folder, nothing, pytestconfig):
    seconds = float(os.environ.get("LARQ_REP_MUTATION_SECONDS", "30"))
    seed = int(os.environ.get("LARQ_REP_MUTATION_SEED", "0"))
    cases, faults, of_runtime = campaign(folder, nothing, seed, seconds)
    refused = [case["message"] for case in cases.values() if case["message"]]
    by_us = [message for message in refused if "larq-rep" in message]
    apart = [number for number, case in cases.items() if case["apart"]]
    both = sum(case["apart"] is not None for case in cases.values())
    kinds = {re.sub(r"'[^']*'|-?\d+", "", message[: message.find(".")]) for message in by_us}
    print(
        f"{len(cases)} files: {len(refused)} refused, {len(by_us)} of them by the delegate in {len(kinds)} ways, "
        f"{both} run fused and not; the runtime alone crashes on {len(of_runtime)}; crashes {faults}; apart {apart}"
    )
    assert not faults and not apart
    assert len(by_us) > 20 and both > 20
