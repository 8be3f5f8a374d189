"""One library on old and new runtimes, installed as users do: in virtual environments made here and kept in build/."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import graphs
import numpy as np
import pytest
import venvs
from venvs import python_with

RUNTIME = Path(__file__).resolve().parents[1]
ENGINES = {
    "tflite-runtime==2.14.0": "numpy<2",
    "tensorflow-cpu==2.18.1": "numpy<2",
    "ai-edge-litert==1.4.0": "numpy",
    "ai-edge-litert==2.1.0": "numpy",
}

_PROGRAM = """
import sys, numpy as np, larq_rep_runtime
folder = sys.argv[1]
interpreter = larq_rep_runtime.Interpreter(folder + "/network.tflite")
np.save(folder + "/y.npy", interpreter.predict(np.load(folder + "/x.npy")))
assert ("tensorflow" in sys.modules) == (sys.argv[2] == "tensorflow-cpu"), "another TFLite was used"
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the old runtimes have wheels for this Python only"),
]


@pytest.fixture(autouse=True)
def alone():
    with venvs.alone():
        yield


def write_network(tmp_path, with_integers=False):
    """Writes a file and an input, and returns the output that is right for it."""
    rng = np.random.default_rng(0)
    graph = graphs.Graph()
    x = graph.input((1, 12, 12, 64))
    y = graph.tile(graph.bconv(graph.quantize(x), rng, 64, 16), 4)
    y = graph.elementwise("ADD", graph.elementwise("MUL", y, graph.constant(rng.normal(size=64).astype("f4"))), x)
    if with_integers:
        pooled = graph.pool("MAX_POOL_2D", graph.to_int8(y, 0.1, -5))  # which stays with the engine
        y = graph.elementwise("ADD", graph.bconv(graph.quantize(pooled), rng, 64, 64), graph.from_int8(pooled))
    content = graph.content(graph.prelu(y, rng.normal(size=64)))
    images = rng.normal(size=(3, 12, 12, 64)).astype(np.float32)
    (tmp_path / "network.tflite").write_bytes(content)
    np.save(tmp_path / "x.npy", images)
    return np.concatenate([graphs.run(content, image[None], implementation="portable")[0] for image in images])


@pytest.fixture
def network(tmp_path):
    return write_network(tmp_path)


@pytest.mark.parametrize("with_integers", [False, True])
@pytest.mark.parametrize("engine", ENGINES)
def test_engine(engine, with_integers, tmp_path):
    expected = write_network(tmp_path, with_integers)
    python = python_with(engine, ENGINES[engine])
    command = [python, "-c", _PROGRAM, tmp_path, engine.split("==")[0]]
    subprocess.run(command, check=True, env={"PYTHONPATH": str(RUNTIME)})
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), expected)


@pytest.mark.parametrize("engine", ENGINES)
def test_delegate_and_interpreters_end_in_any_order(engine, network, tmp_path):
    np.save(tmp_path / "y.npy", network)
    command = [python_with(engine, ENGINES[engine]), RUNTIME / "tests" / "support" / "lifetimes.py", tmp_path]
    done = subprocess.run(command, env={"PYTHONPATH": str(RUNTIME)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("larq-rep profile: ") == int(done.stdout)


def install(tmp_path, environment):
    """Installs the sources, and nothing that was built of them, beside numpy and a runtime only."""
    python = python_with("ai-edge-litert", "numpy")
    left_out = shutil.ignore_patterns("build", "dist", "*.so", "*.egg-info", "__pycache__", "fuzz", "tests")
    shutil.copytree(RUNTIME, tmp_path / "runtime", ignore=left_out)
    options = ["-q", "--force-reinstall", "--no-deps", "--no-cache-dir"]
    command = [python, "-m", "pip", "install", *options, tmp_path / "runtime"]
    subprocess.run(command, check=True, env=environment, cwd=tmp_path)
    return python


def test_installs_and_runs_in_a_clean_environment(network, tmp_path):
    python = install(tmp_path, dict(os.environ))
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    subprocess.run([python, "-c", _PROGRAM, tmp_path, "ai-edge-litert"], check=True, env=clean, cwd=tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), network)
    command = [python.with_name("lce-run"), "network.tflite", "--num_runs", "2"]
    printed = subprocess.run(command, check=True, env=clean, cwd=tmp_path, capture_output=True, text=True).stdout
    assert "network.tflite" in printed.splitlines()[-1]


@pytest.mark.parametrize("tools", [[], ["make", "sh", "mkdir"]], ids=["no make", "no compiler"])
def test_installs_without_a_compiler(tools, network, tmp_path):
    (tmp_path / "bin").mkdir()
    for tool in tools:
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON") and key != "CC"}
    clean["PATH"] = str(tmp_path / "bin")
    python = install(tmp_path, clean)
    for use in ("delegate_path()", "available_implementations()", "Interpreter('network.tflite')"):
        program = f"import larq_rep_runtime as r\ntry: r.{use}\nexcept r.DelegateError as error: print(error)"
        printed = subprocess.run([python, "-c", program], env=clean, cwd=tmp_path, capture_output=True, text=True)
        assert "was not built" in printed.stdout and "C compiler" in printed.stdout, printed
    command = [python.with_name("lce-run"), "network.tflite"]
    failed = subprocess.run(command, env=clean, cwd=tmp_path, capture_output=True, text=True)
    assert failed.returncode == 2 and "was not built" in failed.stderr and "Traceback" not in failed.stderr
