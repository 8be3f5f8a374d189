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
    assert result.stdout.count("passed") == 3


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("aarch64-linux-gnu-gcc") is None or shutil.which("qemu-aarch64-static") is None,
    reason="needs Debian's gcc-aarch64-linux-gnu and qemu-user-static",
)
def test_on_64_bit_arm():
    result = make("test-arm")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("cases of neon,portable") == 2 and "failed" not in result.stdout
