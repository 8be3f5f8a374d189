"""64-bit ARM by qemu-user: single blocks, a whole network in an ARM Python with tflite-runtime, and CompiledModel."""

import shutil
import subprocess
from pathlib import Path

import graphs
import numpy as np
import pytest
import support

import larq_rep.zoo
from larq_rep.converters import convert

RUNTIME = Path(__file__).resolve().parents[1]

_PROGRAM = """
import sys, numpy as np, larq_rep_runtime
folder = sys.argv[1]
for name in ("neon", "portable"):
    interpreter = larq_rep_runtime.Interpreter(folder + "/network.tflite", implementation=name, num_threads=2)
    np.save(folder + "/" + name + ".npy", interpreter.predict(np.load(folder + "/x.npy")))
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("aarch64-linux-gnu-gcc") is None or shutil.which("qemu-aarch64-static") is None,
        reason="needs Debian's gcc-aarch64-linux-gnu and qemu-user-static",
    ),
]


def make(*targets):
    result = subprocess.run(["make", "-s", "-C", RUNTIME, *targets], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_blocks():
    printed = make("test-arm")
    assert printed.count("cases of neon,portable") == 3 and "failed" not in printed


def test_network_end_to_end(tmp_path):
    make("aarch64")
    root = RUNTIME / "build" / "arm"
    subprocess.run([RUNTIME / "tests" / "arm.sh", root], check=True)
    package = root / "site" / "larq_rep_runtime"
    shutil.rmtree(package, ignore_errors=True)
    shutil.copytree(RUNTIME / "larq_rep_runtime", package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    shutil.copy2(RUNTIME / "build" / "aarch64" / "liblarq_rep_delegate.so", package)

    content, _ = convert(support.randomize(larq_rep.zoo.RepReActNetA(input_shape=(96, 96, 3))))
    x = np.random.default_rng(1).normal(size=(1, 96, 96, 3)).astype(np.float32)
    (tmp_path / "network.tflite").write_bytes(content)
    np.save(tmp_path / "x.npy", x)
    command = ["qemu-aarch64-static", "-L", root, "-E", f"PYTHONPATH={root / 'site'}", "-E", f"PYTHONHOME={root}/usr"]
    subprocess.run([*command, root / "usr/bin/python3.11", "-c", _PROGRAM, tmp_path], check=True)
    expected = graphs.run(content, x)[0]
    neon, portable = (np.load(tmp_path / f"{name}.npy") for name in ("neon", "portable"))
    np.testing.assert_array_equal(neon, portable)
    # Real-valued convolutions round differently there.
    np.testing.assert_allclose(neon, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_compiled_model(tmp_path):
    """The example on LiteRT 2.1.6. Under qemu 7.2 the newer ones crash, also without the delegate."""
    make("aarch64")
    root = RUNTIME / "build" / "arm"
    subprocess.run([RUNTIME / "tests" / "arm.sh", root], check=True)
    delegate, litert = RUNTIME / "build" / "aarch64", root / "litert" / "ai_edge_litert"
    program = tmp_path / "compiled_model"
    libraries = [f"-L{delegate}", f"-L{litert}", "-l:liblarq_rep_delegate.so", "-l:libLiteRt.so", "-ldl"]
    source = RUNTIME / "examples" / "compiled_model.c"
    allow = "-Wl,--unresolved-symbols=ignore-in-shared-libs"  # The cross compiler may come without libstdc++.
    subprocess.run(["aarch64-linux-gnu-gcc", "-std=c11", "-o", program, source, *libraries, allow], check=True)

    rng, graph, shape = np.random.default_rng(0), graphs.Graph(), (1, 16, 16, 64)
    taken = graph.input(shape)
    content = graph.content(graph.elementwise("ADD", graph.bconv(graph.quantize(taken), rng, 64, 64), taken))
    (tmp_path / "network.tflite").write_bytes(content)
    x = rng.normal(size=shape).astype(np.float32)
    command = ["qemu-aarch64-static", "-L", root, "-E", f"LD_LIBRARY_PATH={delegate}:{litert}", program]
    done = subprocess.run([*command, tmp_path / "network.tflite"], input=x.tobytes(), capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == graphs.run(content, x)[0].tobytes()
