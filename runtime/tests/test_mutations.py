"""Damaged .tflite files in stock TFLite with the delegate: a message or a result, never the end of the process."""

import json
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import graphs
import numpy as np
import originals
import pytest
from larq_rep_runtime import delegate_path

HERE = Path(__file__).resolve().parent
# A longer run: LARQ_REP_MUTATION_SECONDS=3600 LARQ_REP_MUTATION_SEED=7 pytest -s runtime/tests/test_mutations.py
SECONDS = float(os.environ.get("LARQ_REP_MUTATION_SECONDS", "30"))
SEED = int(os.environ.get("LARQ_REP_MUTATION_SEED", "0"))


def work(library, folder, first, count, seconds, **environment):
    """Runs damaged files in a process.

    Returns those that came to their end, the number of the one that ended the process or None, and what it said.
    """
    sources = [HERE / "support", HERE.parents[1] / "tests" / "support", HERE.parent]
    path = os.pathsep.join([*map(str, sources), *sys.path])
    result = subprocess.run(
        [sys.executable, HERE / "support" / "mutations.py", library, folder, str(first), str(count), str(seconds)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )
    cases, number = {}, None
    for line in result.stdout.splitlines():
        if match := re.fullmatch(r"(\d+) (.*)", line):
            number = int(match[1])
            if match[2]:
                cases[number] = json.loads(match[2])
    if result.returncode == 0:
        return cases, None, ""
    if (
        result.returncode > 0
        and "ERROR: AddressSanitizer" not in result.stderr
        and "runtime error" not in result.stderr
    ):
        raise AssertionError(f"after case {number}: {result.stderr[-3000:]}")
    return cases, number, f"status {result.returncode}: {result.stderr}"


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


def campaign(library, folder, seed, seconds, is_ours, **environment):
    """Runs damaged files for some time: their outcomes, those that crash by the delegate, and by the runtime alone.

    `is_ours` takes the number of a crash and what was said.
    """
    end, first = time.monotonic() + seconds, seed * 1_000_000
    cases, faults, of_runtime = {}, [], []
    while time.monotonic() < end:
        left = max(end - time.monotonic(), 0.1)
        more, killed, said = work(library, folder, first, 1_000_000, left, **environment)
        cases |= more
        if killed is None:
            break
        first = killed + 1
        if is_ours(killed, said):
            faults.append((killed, said))
        else:
            of_runtime.append(killed)
    return cases, faults, of_runtime


def test_originals_run(folder):
    """The sound files are what they should be: otherwise their damage would say nothing."""
    for file in folder.glob("*.tflite"):
        engine = graphs.interpreter(file.read_bytes())
        shape = engine.get_input_details()[0]
        graphs.run(file.read_bytes(), np.zeros(shape["shape"], shape["dtype"]))


def test_corpus(tmp_path):
    """One damaged file for each way in which the delegate refused one: it still does, and says which operator it is."""
    with zipfile.ZipFile(HERE.parent / "fuzz" / "corpus" / "files.zip") as archive:
        archive.extractall(tmp_path)
    cases, killed, said = work(delegate_path(), tmp_path, -1, 0, 60)
    assert killed is None, said[-3000:]
    assert len(cases) == len(list(tmp_path.glob("*.tflite"))) > 20
    for number, case in cases.items():
        assert re.search(r"larq-rep: operator \d+ ", case["message"]), (number, case["message"])


@pytest.mark.slow
def test_damaged_files(folder, nothing):
    def is_ours(number, said):
        return work(nothing, folder, number, 1, 60)[1] is None

    cases, faults, of_runtime = campaign(delegate_path(), folder, SEED, SECONDS, is_ours)
    refused = [case["message"] for case in cases.values() if case["message"]]
    by_us = [message for message in refused if "larq-rep" in message]
    apart = [number for number, case in cases.items() if case["apart"]]
    both = sum(case["apart"] is not None for case in cases.values())
    kinds = {re.sub(r"'[^']*'|-?\d+", "", message[: message.find(".")]) for message in by_us}
    print(
        f"{len(cases)} files: {len(refused)} refused, {len(by_us)} of them by the delegate in {len(kinds)} ways; "
        f"{both} run fused and not; the runtime alone crashes on {len(of_runtime)}"
    )
    assert not faults and not apart
    assert len(by_us) > 20 and both > 20


@pytest.mark.slow
def test_damaged_files_under_sanitizers(folder):
    flags = "-fsanitize=address,undefined"
    library = "build/asan-library/liblarq_rep_delegate.so"
    options = [f"CFLAGS=-g -O1 -fno-omit-frame-pointer -fno-sanitize-recover=all {flags}", f"LDFLAGS={flags}"]
    make = ["make", "-s", "-C", HERE.parent, "BUILD=build/asan-library", *options, library]
    subprocess.run(make, check=True)
    # The sanitizer has to be there before the C++ library whose exceptions it follows.
    names = ("libasan.so", "libstdc++.so")
    paths = [subprocess.run(["cc", f"-print-file-name={name}"], capture_output=True, text=True) for name in names]
    preload = " ".join(str(Path(path.stdout.strip()).resolve()) for path in paths)

    def is_ours(number, said):
        # The runtime is not compiled for it, and has no lines: what it can show is a crash in its own functions.
        top = re.findall(r"^ *#[0-3] .*", said, re.MULTILINE)[:4]
        return not top or any(re.search(r"\bsrc/\w+\.[ch]:\d+", line) for line in top)

    cases, faults, of_runtime = campaign(
        HERE.parent / library, folder, SEED, SECONDS, is_ours,
        LD_PRELOAD=preload, ASAN_OPTIONS="detect_leaks=0:allocator_may_return_null=1",
    )  # fmt: skip
    print(f"{len(cases)} files; the runtime alone crashes on {len(of_runtime)}")
    assert not faults, faults[0][1][-9000:]
    assert len(cases) > 20
