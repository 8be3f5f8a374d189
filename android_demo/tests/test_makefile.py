"""The Makefile's words, and what `make clean` leaves. tests/test_apk.py has what it builds."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[1]
JDK = "openjdk-17-jdk-headless"
# The package of Debian that has a command, where the two have not the same name.
PACKAGE = {"javac": JDK, "java": JDK, "keytool": JDK, "a JDK": JDK, "aapt2": "aapt", "mvn": "maven", "ld.lld": "lld",
           "llvm-nm": "llvm", "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu"}  # fmt: skip


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


def needed() -> set[str]:
    """The commands that the Makefiles ask for."""
    texts = [(DEMO / name).read_text() for name in ("Makefile", "native.mk")]
    return set(re.findall(r"\$\(call need,([a-z][\w.-]*)\)", "".join(texts)))


def test_the_packages_have_all_that_the_build_and_the_tests_need():
    """A test that lacks its tool is skipped, so a package that is not listed would be missed by nobody."""
    packages = make(DEMO, "--eval", "x: ; @: $(info $(PACKAGES))", "x").stdout.split()
    reasons = [found for path in (DEMO / "tests").glob("*.py")
               for found in re.findall(r"reason=\"needs Debian's (.*)\"", path.read_text())]  # fmt: skip
    tools = needed() | {tool for reason in reasons for tool in re.split(", | and ", reason)}
    assert len(tools) > 12
    assert {PACKAGE.get(tool, tool) for tool in tools} <= set(packages)


@pytest.mark.parametrize(
    "target, tool",
    [
        ("build/native/x86_64/larq_rep_jni.o", "javac"),
        ("build/native/x86_64/stubs/libc.so", "ld.lld"),
        ("build/native/x86_64/plugin.o", "clang"),
        ("build/shim/x86_64/libc.S", "llvm-nm"),
        ("build/shim/arm64-v8a/libshim.so", "aarch64-linux-gnu-gcc"),
        ("build/maven/build.fetched", "mvn"),
    ],
)
def test_each_step_names_its_missing_tool(tmp_path, target, tool):
    (tmp_path / "bin").mkdir()
    for name in ("sh", "sed", "awk", "find", "sort"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    for name in needed() - {tool}:
        (tmp_path / "bin" / name).symlink_to(shutil.which("true"))
    command = [shutil.which("make"), "-n", "-B", "-C", DEMO, "-o", "build/larq-rep-benchmark.apk", target]
    result = subprocess.run(command, capture_output=True, text=True, env={"PATH": str(tmp_path / "bin")})
    assert result.returncode != 0 and f"{tool} is missing. Debian has it: apt-get install" in result.stderr


@pytest.mark.parametrize("name", ["junit", "robolectric"])
def test_paths_with_blanks_arrive_whole(tmp_path, name):
    folder = tmp_path / "a b" / "c  d"
    (folder / "build" / "maven" / "robolectric" / "e.aar.unpacked").mkdir(parents=True)
    for jar in ("e.jar", "e.aar.unpacked/classes.jar"):
        (folder / "build" / "maven" / "robolectric" / jar).touch()
    for file in ("Makefile", "native.mk"):
        shutil.copy(DEMO / file, folder)
    made = ("junit.jar", "robolectric.jar", "base.apk", "maven/robolectric-android.fetched")
    old = [word for product in made for word in ("-o", f"build/{product}")]
    result = make(folder, *old, f"build/{name}.args")
    assert result.returncode == 0, result.stderr
    words = shlex.split((folder / "build" / f"{name}.args").read_text())
    paths = words[words.index("-cp") + 1].split(":")
    assert len(paths) > 5 and all(path.startswith(f"{folder}/") and "//" not in path for path in paths)
    if name == "robolectric":
        assert f"-Drobolectric.dependency.dir={folder}/build/maven/robolectric-android" in words
        assert f"{folder}/build/maven/robolectric/e.aar.unpacked/classes.jar" in paths
        config = (folder / "build/robolectric-config/com/android/tools/test_config.properties").read_text()
        assert f"android_resource_apk={folder}/build/base.apk\n" in config and config.count("=") == 4


def test_make_test_of_the_root_finds_tests_in_each_of_its_folders():
    (folders,) = re.findall(r"^testpaths = \[(.*)\]$", (DEMO.parent / "pyproject.toml").read_text(), re.MULTILINE)
    folders = [DEMO.parent / folder for folder in shlex.split(folders.replace(",", " "))]
    assert DEMO / "tests" in folders
    assert [folder for folder in folders if not any(folder.rglob("test_*.py"))] == []


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
