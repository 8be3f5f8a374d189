"""The libraries out of the signed APK, run on this machine: in a JVM on x86-64, and on emulated 64-bit ARM.

Bionic is replaced by glibc's functions (host/shim.c); TFLite's library, its Java API and ours are what a phone loads.
"""

import json
import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import assets
import larq_rep_runtime
import numpy as np
import pytest

DEMO = Path(__file__).resolve().parents[1]
ABIS = ("x86_64", "arm64-v8a")
CYCLES = 40_000  # a string that is not given back costs 140 bytes
FLAT_KIB = 1024  # what a JVM or an emulator adds by itself is below


@pytest.fixture(scope="module")
def networks(built, tmp_path_factory):
    """A folder with the app's networks and an input for each, and the outputs of the desktop's runtime."""
    folder = tmp_path_factory.mktemp("networks")
    expected = {}
    for path in sorted(built("assets").glob("*.tflite")):
        shutil.copy2(path, folder)
        interpreter = larq_rep_runtime.Interpreter(path)
        (described,) = interpreter.inputs
        x = assets.generated(described["shape"], np.dtype(described["dtype"]))
        x.tofile(folder / f"{path.name}.input")
        expected[path.name] = interpreter.predict(x).ravel()
    assert {"ResNet20.tflite", "RepResNet20.tflite", "RepReActNetA.tflite"} <= expected.keys()
    return folder, expected


def assert_agrees(found, expected):
    """The rule of the app's verdict, on numbers that are not all the same."""
    assert found.shape == expected.shape and np.ptp(expected) > 0
    assert np.argmax(found) == np.argmax(expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3 * np.ptp(expected))


@pytest.fixture(scope="module")
def shim(built):
    def folder(abi):
        if abi == "arm64-v8a" and shutil.which("qemu-aarch64-static") is None:
            pytest.skip("needs Debian's qemu-user-static")
        return built(f"shim/{abi}/run").parent

    return folder


@pytest.mark.parametrize("abi", ABIS)
def test_libraries_are_those_of_the_apk(abi, shim, built):
    with zipfile.ZipFile(built("larq-rep-benchmark.apk")) as apk:
        inside = {name: apk.read(name) for name in apk.namelist() if name.startswith(f"lib/{abi}/")}
    assert len(inside) == 3
    for name, content in inside.items():
        assert (shim(abi) / "app" / Path(name).name).read_bytes() == content


@pytest.mark.parametrize("abi", ABIS)
def test_shim_has_no_more_than_is_imported(abi, shim):
    imported = set(re.findall(r'\.asciz "(\w+)"', (shim(abi) / "libc.S").read_text()))
    stand_ins = set(re.findall(r"\bshim_(\w+)\(", (DEMO / "host" / "shim.c").read_text()))
    assert stand_ins - {"fill"} <= imported


# ---- In Java ----


@pytest.fixture(scope="module")
def java(networks, shim, built):
    """What HostRun saw, in one JVM. The heap has its full size from the beginning, so that what grows is native."""
    if shutil.which("java") is None:
        pytest.skip("needs Debian's openjdk-17-jdk-headless")
    folder, expected = networks
    native = shim("x86_64")
    jars = [built(name) for name in ("shim/HostRun.jar", "aar/classes.jar")]
    jars += [built(f"tflite/{name}/classes.jar") for name in ("tensorflow-lite-api", "tensorflow-lite")]
    command = [
        "java",
        "-Xcheck:jni",
        "-Xms64m",
        "-Xmx64m",
        "-XX:+AlwaysPreTouch",
        "-XX:+UseSerialGC",
        "-cp",
        ":".join(map(str, jars)),
    ]
    command += [f"-Djava.library.path={native / 'app'}", "HostRun", folder / "run.json", str(CYCLES)]
    environment = {**os.environ, "LD_LIBRARY_PATH": f"{native}:{native / 'app'}"}
    paths = [folder / name for name in expected]
    result = subprocess.run([*command, *paths], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    return json.loads((folder / "run.json").read_text()), result.stdout + result.stderr


def test_java_agrees_with_the_desktop(java, networks):
    """Each network with the best implementation and the portable one, on 1, 2 and 4 threads, twice each."""
    seen, _ = java
    for name, expected in networks[1].items():
        runs = {key: np.float32(values) for key, values in seen.items() if key.startswith(f"{name} run")}
        assert len(runs) == 1 + 2 * 3 * 2
        for found in runs.values():
            assert_agrees(found, expected)
        assert len({found.tobytes() for found in runs.values()}) == 1


def test_java_leaves_the_rest_to_xnnpack(java):
    seen, printed = java
    assert seen["tflite"] == "2.16.1"
    assert "delegate (LarqRepDelegate)" in printed and "delegate (TfLiteXNNPackDelegate)" in printed


def test_java_loads_nothing_without_the_delegate(java, networks):
    for name in networks[1]:
        assert "Encountered unresolved custom op: LceQuantize" in java[0][f"{name} without delegate"]


def test_java_gets_the_delegates_messages(java):
    seen, _ = java
    names = ",".join(seen["implementations"])
    assert tuple(seen["implementations"]) == larq_rep_runtime.available_implementations()
    processor = f"is not among the implementations of this processor: {names}."
    threads = "larq-rep: option 'num_threads' should be 0 (the interpreter's number) to 64, found"
    assert seen["refused"] == [
        f"{threads} '65'.",
        f"{threads} '-1'.",
        f"larq-rep: option 'implementation': 'sse' {processor}",
        f"larq-rep: option 'implementation': 'ü' {processor}",
        "larq-rep: an option has no value: implementation.",
        "larq-rep: this delegate is closed. Create another one for a new interpreter.",
    ]


def test_java_finds_no_fault_in_our_jni(java):
    """-Xcheck:jni prints a warning, and from where the native method was called; TFLite's own methods cause some."""
    warned = re.findall(r"WARNING in native method.*\n((?:\s+at .*\n)+)", java[1])
    assert warned and not [stack for stack in warned if "LarqRepDelegate" in stack.splitlines()[0]]


def test_java_memory_is_flat(java):
    assert java[0]["growth_kib"] < FLAT_KIB


# ---- In C, on both ----


@pytest.fixture(scope="module")
def run(shim):
    """Runs host/run.c on an ABI."""

    def call(abi, *arguments):
        folder = shim(abi)
        path = f"LD_LIBRARY_PATH={folder}:{folder / 'app'}"
        start = {
            "x86_64": ["env", path],
            "arm64-v8a": ["qemu-aarch64-static", "-L", "/usr/aarch64-linux-gnu", "-E", path],
        }
        return subprocess.run([*start[abi], folder / "run", *arguments], capture_output=True, text=True)

    return call


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("abi", ABIS)
def test_c_agrees_with_the_desktop(abi, threads, run, networks, tmp_path):
    folder, expected = networks
    for name, values in expected.items():
        output = tmp_path / "output"
        result = run(abi, folder / name, folder / f"{name}.input", output, f"num_threads={threads}")
        assert result.returncode == 0, result.stderr
        assert_agrees(np.fromfile(output, np.float32), values)


def test_neon_equals_portable(run, networks, tmp_path):
    """Bit for bit; without the large networks, whose portable kernels take the emulator half a minute."""
    folder, expected = networks
    for name in [name for name in expected if "ResNet20" in name]:
        outputs = []
        for implementation in ("neon", "portable"):
            options = (f"implementation={implementation}", "num_threads=2")
            result = run("arm64-v8a", folder / name, folder / f"{name}.input", tmp_path / implementation, *options)
            assert result.returncode == 0, result.stderr
            outputs.append((tmp_path / implementation).read_bytes())
        assert outputs[0] == outputs[1]


@pytest.mark.parametrize("abi", ABIS)
def test_c_errors(abi, run, networks, tmp_path):
    folder, _ = networks
    given = (folder / "ResNet20.tflite", folder / "ResNet20.tflite.input", tmp_path / "output")
    alone = run(abi, *given, "delegate=none")
    assert alone.returncode == 1 and "Encountered unresolved custom op: LceQuantize" in alone.stderr
    wrong = run(abi, *given, "fuse=2")
    assert wrong.returncode == 1
    assert "java/lang/IllegalArgumentException: larq-rep: option 'fuse' should be 0 or 1, found '2'." in wrong.stderr
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize("abi", ABIS)
def test_jni_gives_everything_back(abi, run):
    """10,000 delegates, and as many refused ones: no reference to a Java object and no memory is left."""
    result = run(abi, "cycles", "10000")
    assert result.returncode == 0, result.stderr
    growth, references = map(int, re.fullmatch(r"(-?\d+) KiB more\n(\d+) references left\n", result.stdout).groups())
    assert growth < FLAT_KIB and references == 0


# ---- The kernels, by the compiler that builds for Android ----


@pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("clang", "aarch64-linux-gnu-gcc", "qemu-aarch64-static")),
    reason="needs Debian's clang, gcc-aarch64-linux-gnu and qemu-user-static",
)
def test_blocks_by_clang(built):
    """Random blocks of all implementations against loops over single bits."""
    built("native/arm64-v8a/liblarq_rep_delegate.so")
    folder = DEMO / "build" / "blocks"
    clang = "CC=clang --target=aarch64-linux-gnu"
    make = ["make", "-s", "-j2", "-C", DEMO.parent / "runtime", f"BUILD={folder}", clang, "LDFLAGS=-static"]
    result = subprocess.run([*make, folder / "blocks"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    printed = subprocess.run(["qemu-aarch64-static", folder / "blocks", "40", "1"], capture_output=True, text=True)
    assert printed.returncode == 0 and "40 cases of neon,portable" in printed.stdout, printed
