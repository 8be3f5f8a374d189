"""Runs tests/blocks.c: tensors between pages that cannot be touched, every implementation against single bits."""

import shutil
import subprocess
from pathlib import Path

import pytest

RUNTIME = Path(__file__).resolve().parents[1]


def make(*targets):
    return subprocess.run(["make", "-s", "-C", RUNTIME, *targets], capture_output=True, text=True)


@pytest.mark.parametrize(("cases", "threads", "seed"), [(250, 1, 1), (60, 4, 2)])
def test_blocks(cases, threads, seed):
    built = make("build/native/blocks")
    assert built.returncode == 0, built.stderr
    program = RUNTIME / "build" / "native" / "blocks"
    result = subprocess.run([program, str(cases), str(threads), str(seed)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"{cases} cases of ") and result.stdout.endswith("passed\n")


@pytest.mark.slow
def test_under_sanitizers():
    result = make("test-sanitizers")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("passed") == 6


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("clang-14") is None, reason="needs Debian's clang-14 and libclang-rt-14-dev")
def test_fuzzing():
    result = make("fuzz", "FUZZ_SECONDS=20")
    assert result.returncode == 0, result.stderr[-3000:]
