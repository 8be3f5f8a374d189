"""Runs tests/blocks.c: tensors between pages that cannot be touched, every implementation against single bits."""

import shutil
import subprocess
from pathlib import Path

import pytest
from larq_rep_runtime import available_implementations

RUNTIME = Path(__file__).resolve().parents[1]


def make(*targets):
    return subprocess.run(["make", "-s", "-C", RUNTIME, *targets], capture_output=True, text=True)


def run(name, cases, threads, seed):
    """What the program says before the number of threads."""
    built = make(f"build/native/{name}")
    assert built.returncode == 0, built.stderr
    program = RUNTIME / "build" / "native" / name
    result = subprocess.run([program, str(cases), str(threads), str(seed)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith(f"{threads} threads: passed\n")
    return result.stdout


@pytest.mark.parametrize(("cases", "threads", "seed"), [(250, 1, 1), (60, 4, 2)])
def test_blocks(cases, threads, seed):
    assert run("blocks", cases, threads, seed).startswith(f"{cases} cases of ")


@pytest.mark.skipif(
    "avx512" not in available_implementations() or "gfni" not in Path("/proc/cpuinfo").read_text(),
    reason="AMX's other instructions need AVX-512 and GFNI",
)
def test_amx_with_emulated_tiles():
    # They are slow, so that the measurement at load prefers AVX-512.
    assert run("tile_blocks", 100, 2, 1).startswith("100 cases of avx512,amx,")


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
    assert result.stdout.count("passed") == 8


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("clang-14") is None, reason="needs Debian's clang-14 and libclang-rt-14-dev")
def test_fuzzing():
    result = make("fuzz", "FUZZ_SECONDS=20")
    assert result.returncode == 0, result.stderr[-3000:]
