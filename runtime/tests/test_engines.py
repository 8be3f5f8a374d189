"""One library on old and new runtimes: each in a virtual environment of its own, made here."""

import subprocess
import sys
from pathlib import Path

import graphs
import numpy as np
import pytest

RUNTIME = Path(__file__).resolve().parents[1]

_PROGRAM = """
import sys, numpy as np, larq_rep_runtime
folder = sys.argv[1]
x = np.load(folder + "/x.npy")
interpreter = larq_rep_runtime.Interpreter(folder + "/network.tflite", num_threads=2)
assert "tensorflow" not in sys.modules or sys.argv[2].startswith("tensorflow")
np.save(folder + "/y.npy", interpreter.predict(x))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the old runtimes have wheels for this Python only")
@pytest.mark.parametrize(
    "engine", ["tflite-runtime==2.14.0", "ai-edge-litert==1.4.0", "ai-edge-litert==2.1.0", "tensorflow==2.18.1"]
)
def test_engine(engine, tmp_path):
    rng = np.random.default_rng(0)
    graph = graphs.Graph()
    x = graph.input((1, 12, 12, 64))
    y = graph.tile(graph.bconv(graph.quantize(x), rng, 64, 16), 4)
    y = graph.elementwise("ADD", graph.elementwise("MUL", y, graph.constant(rng.normal(size=64).astype("f4"))), x)
    content = graph.content(graph.prelu(y, rng.normal(size=64)))
    images = rng.normal(size=(3, 12, 12, 64)).astype(np.float32)
    (tmp_path / "network.tflite").write_bytes(content)
    np.save(tmp_path / "x.npy", images)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    numpy = "numpy<2" if "runtime" in engine or "tensorflow" in engine else "numpy"
    subprocess.run([python, "-m", "pip", "install", "-q", engine, numpy], check=True)
    command = [python, "-c", _PROGRAM, tmp_path, engine]
    subprocess.run(command, check=True, env={"PYTHONPATH": str(RUNTIME)})
    expected = np.concatenate([graphs.run(content, image[None], implementation="portable")[0] for image in images])
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), expected)
