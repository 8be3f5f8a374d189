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


def test_programs():
    """tests/programs.c: straight-line code against the general way, simplified steps against their originals."""
    built = make("build/native/programs")
    assert built.returncode == 0, built.stderr
    result = subprocess.run([RUNTIME / "build" / "native" / "programs", "100"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("100 cases of ") and result.stdout.endswith("passed\n")


@pytest.mark.slow
def test_with_addresses_of_32_bits(tmp_path):
    (tmp_path / "nothing.c").write_text("int main(void) { return 0; }")
    compiled = subprocess.run(["gcc", "-m32", "-o", tmp_path / "nothing", tmp_path / "nothing.c"], capture_output=True)
    if compiled.returncode:
        pytest.skip("needs Debian's gcc-multilib")
    # Without SSE, sums would be rounded twice.
    built = make("BUILD=build/m32", "CC=gcc -m32", "CFLAGS=-O2 -msse2 -mfpmath=sse", "build/m32/blocks")
    assert built.returncode == 0, built.stderr
    result = subprocess.run([RUNTIME / "build" / "m32" / "blocks", "250"], capture_output=True, text=True)
    assert result.returncode == 0 and result.stdout.startswith("250 cases of portable"), result.stderr


@pytest.mark.slow
def test_under_sanitizers():
    result = make("test-sanitizers")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("passed") == 7


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("clang-14") is None, reason="needs Debian's clang-14 and libclang-rt-14-dev")
def test_fuzzing():
    result = make("fuzz", "FUZZ_SECONDS=20")
    assert result.returncode == 0, result.stderr[-3000:]
