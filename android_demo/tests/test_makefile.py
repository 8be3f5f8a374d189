"""The Makefile's words, and what `make clean` leaves. tests/test_apk.py has what it builds."""

import shutil
import subprocess
from pathlib import Path

DEMO = Path(__file__).resolve().parents[1]


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["make", "-s", "-C", folder, *arguments], capture_output=True, text=True)


def test_help_explains_each_target():
    lines = dict(line.split(" - ", 1) for line in make(DEMO, "help").stdout.splitlines() if " - " in line)
    assert set(lines) >= {
        "apk",
        "aar",
        "native",
        "assets",
        "small-test",
        "test",
        "screens",
        "packages",
        "clean",
        "help",
    }
    assert all(lines.values())


def test_a_missing_tool_is_named_with_the_line_that_installs_it():
    result = make(DEMO, "--eval", "x: ; $(call need,no-such-tool)", "x")
    assert result.returncode != 0
    assert "no-such-tool is missing. Debian has it: apt-get install -y aapt apksigner" in result.stderr


def test_clean_leaves_the_key_and_nothing_else(tmp_path):
    for name in ("Makefile", "native.mk"):
        shutil.copy(DEMO / name, tmp_path)
    (tmp_path / "build" / "dex").mkdir(parents=True)
    (tmp_path / "build" / "debug.p12").write_bytes(b"key")
    (tmp_path / "build" / "dex" / "classes.dex").write_bytes(b"dex")
    assert make(tmp_path, "clean").returncode == 0
    assert [path.name for path in (tmp_path / "build").iterdir()] == ["debug.p12"]
    shutil.rmtree(tmp_path / "build")
    assert make(tmp_path, "clean").returncode == 0
