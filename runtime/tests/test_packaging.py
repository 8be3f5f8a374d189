"""How the package is built: the tag of its wheel, and what make does."""

import os
import re
import runpy
import shutil
import subprocess
import sys
import types
from pathlib import Path

import graphs
import numpy as np
import pytest
import setuptools
from larq_rep_runtime import delegate_path

RUNTIME = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("library", "python", "given", "expected"),
    [
        (b"..GLIBC_2.4\0GLIBC_2.17\0GLIBC_2.3.4..", "linux_x86_64", None, "manylinux_2_17_x86_64"),
        (b"GLIBC_2.28", "linux_armv7l", None, "manylinux_2_28_armv7l"),
        (b"GLIBC_2.17", "linux_x86_64", "aarch64", "manylinux_2_17_aarch64"),
        (b"musl", "linux_x86_64", None, "linux_x86_64"),
        (None, "linux_x86_64", None, "linux_x86_64"),
        (b"", "macosx_14_0_arm64", None, "macosx_14_0_arm64"),
    ],
)
def test_tag_of_the_wheel(library, python, given, expected, tmp_path, monkeypatch):
    """The platform is that of the Python that builds, whatever the kernel is, with the glibc that the library needs."""

    class Command:
        def get_tag(self):
            return "cp311", "cp311", python

    module, arguments = types.ModuleType("setuptools.command.bdist_wheel"), {}
    module.bdist_wheel = Command
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(setuptools, "setup", lambda **given: arguments.update(given))
    monkeypatch.setenv("LARQ_REP_LIBRARY", str(tmp_path / "library.so"))
    if given:
        monkeypatch.setenv("LARQ_REP_PLATFORM", given)
    if library is not None:
        (tmp_path / "library.so").write_bytes(library)
    runpy.run_path(str(RUNTIME / "setup.py"))
    assert arguments["cmdclass"]["bdist_wheel"]().get_tag() == ("py3", "none", expected)


def test_floor_starts(tmp_path):
    graph = graphs.Graph()
    y = graph.bconv(graph.quantize(graph.input((1, 28, 28, 128))), np.random.default_rng(0), 128, 128)
    (tmp_path / "network.tflite").write_bytes(graph.content(y))
    command = [sys.executable, RUNTIME.parent / "benchmarks" / "floor.py", tmp_path / "network.tflite"]
    environment = {**os.environ, "PYTHONPATH": str(RUNTIME)}
    printed = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    assert "network.tflite" in printed and "estimated" in printed
    found = re.search(r"([\d.]+) GMAC at (\d+) GMAC/s.*: ([\d.]+) ms", printed)
    gmac, speed, milliseconds = map(float, found.groups())
    assert gmac == round(28 * 28 * 9 * 128 * 128 / 1e9, 2)
    assert milliseconds == pytest.approx(28 * 28 * 9 * 128 * 128 / speed / 1e6, abs=0.011)


@pytest.fixture
def checkout(tmp_path):
    """The two Makefiles and the sources, as if they were installed already."""
    (tmp_path / "runtime").mkdir()
    for name in ("Makefile", "setup.py", "runtime/Makefile", "runtime/setup.py"):
        shutil.copy2(RUNTIME.parent / name, tmp_path / name)
    shutil.copytree(RUNTIME / "src", tmp_path / "runtime" / "src")
    (tmp_path / "runtime" / "larq_rep_runtime").mkdir()
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "installed").touch()
    return tmp_path


def make(folder, *arguments):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(["make", "-C", folder, *arguments], capture_output=True, text=True, env=environment)


def test_install_builds_what_has_changed_and_clean_leaves_nothing(checkout):
    library = checkout / "runtime" / "larq_rep_runtime" / "liblarq_rep_delegate.so"
    fast = "CFLAGS=-O0"
    assert make(checkout, "install", fast).returncode == 0
    first = library.stat().st_mtime_ns
    assert make(checkout, "install", fast).returncode == 0 and library.stat().st_mtime_ns == first
    source = checkout / "runtime" / "src" / "cpu.c"
    # A warning, which must not keep a user from a library.
    source.write_text(source.read_text() + "\nstatic int unused;\n")
    built = make(checkout, "install", fast)
    assert "unused" in built.stderr and library.stat().st_mtime_ns > first
    strict = make(checkout / "runtime", "WERROR=-Werror", "BUILD=build/strict", "build/strict/cpu.o")
    assert strict.returncode != 0
    # What does not compile keeps nobody from the rest.
    source.write_text("no C")
    assert make(checkout, "install", fast).returncode == 0
    assert make(checkout, "clean").returncode == 0
    assert not library.exists() and not (checkout / "runtime" / "build").exists()


def headers(library):
    """What the library's file asks of the loader."""
    command = ["readelf", "--wide", "--dynamic", "--program-headers", library]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def built():
    """The library as it is built for this machine, whatever the test environment sets, and its undefined symbols."""
    environment = {name: value for name, value in os.environ.items() if name not in ("CFLAGS", "LDFLAGS", "CC")}
    library = Path(delegate_path())
    if environment != os.environ:
        library = RUNTIME / "build" / "hardened" / library.name
        command = ["make", "-s", "-C", RUNTIME, "BUILD=build/hardened", f"build/hardened/{library.name}"]
        subprocess.run(command, check=True, capture_output=True, env=environment)
    listing = subprocess.run(["nm", "-D", "--undefined-only", library], check=True, capture_output=True, text=True)
    return library, {line.split()[-1].partition("@")[0] for line in listing.stdout.splitlines()}


def test_library_is_hardened(built):
    library, symbols = built
    found = headers(library)
    assert "GNU_RELRO" in found and "BIND_NOW" in found and "NODELETE" in found and "TEXTREL" not in found
    (stack,) = re.findall(r"GNU_STACK.*", found)
    assert " RW " in stack and "RWE" not in stack
    assert not re.findall(r"LOAD.* RWE ", found)
    assert "__stack_chk_fail" in symbols
    assert {"__snprintf_chk", "__fprintf_chk"} <= symbols


@pytest.mark.parametrize(
    ("flags", "fortified"),
    [("-O3", True), ("-O0", False), ("-O2 -D_FORTIFY_SOURCE=1", False), ("-O1 -fsanitize=address", False)],
)
def test_fortifies_where_it_can(flags, fortified):
    """Only with optimisation, not with the sanitizers' own checks, and not twice."""
    printed = make(RUNTIME, "-n", "-B", "BUILD=build/none", "build/none/plugin.o", f"CFLAGS={flags}").stdout
    assert ("-D_FORTIFY_SOURCE=2" in printed) == fortified and "-fstack-protector-strong" in printed
