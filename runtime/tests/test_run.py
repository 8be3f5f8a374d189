"""The command lce-run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import graphs
import numpy as np
import pytest
from larq_rep_runtime import DelegateError, run
from larq_rep_runtime.profile import random_inputs
from PIL import Image


@pytest.fixture
def file(tmp_path):
    rng = np.random.default_rng(0)
    graph = graphs.Graph()
    y = graph.bconv(graph.quantize(graph.input((1, 6, 6, 3))), rng, 3, 32, kernel=(6, 6), padding=1)
    path = tmp_path / "network.tflite"
    path.write_bytes(graph.content(y))
    return path


def test_json_with_profile(file, capfd):
    arguments = ["--random", "--json", "--profile", "--num_runs", "7", "--warmup_runs", "1", "--top", "3"]
    assert run.main([str(file), *arguments]) == 0
    printed = json.loads(capfd.readouterr().out)
    x = np.random.default_rng(0).normal(size=(1, 6, 6, 3)).astype(np.float32)
    expected = graphs.run(file.read_bytes(), x)[0].reshape(-1)
    assert [entry["index"] for entry in printed["top"]] == list(np.argsort(-expected)[:3])
    assert printed["p10_ms"] <= printed["median_ms"] <= printed["p90_ms"]
    (partition,) = printed["profile"]
    assert partition["invocations"] == 7
    assert [step["name"] for step in partition["steps"]] == ["LceQuantize", "LceBconv2d"]
    machine = printed["machine"]
    assert machine["implementation"] == printed["implementation"] and machine["num_threads"] == 1
    assert machine["cores"] == os.cpu_count() and machine["versions"][machine["runtime"]]
    # 32 filters of 6x6 taps with a word each, of 32 bits or, for AVX2, of 64.
    assert partition["packed_bytes"] == 32 * 36 * (8 if printed["implementation"] == "avx2" else 4)


def test_text_of_an_image(file, tmp_path, capfd):
    Image.new("RGB", (30, 20), (255, 0, 0)).save(tmp_path / "red.png")
    assert run.main([str(file), "--image", str(tmp_path / "red.png"), "--num_runs", "2", "--profile"]) == 0
    printed = capfd.readouterr().out.splitlines()
    assert "LceBconv2d" in "".join(printed) and "network.tflite" in printed[-1] and "of 2 runs" in printed[-1]


def test_names_the_implementation_that_runs(file, monkeypatch, capfd):
    monkeypatch.setenv("LARQ_REP_IMPLEMENTATION", "portable")
    assert run.main([str(file), "--num_runs", "1"]) == 0
    assert capfd.readouterr().out.endswith("portable\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--num_threads", "0"], "--num_threads should be at least 1, found 0"),
        (["--num_threads", "1000"], "num_threads should be at most 64, found 1000"),
        (["--num_runs", "0"], "--num_runs should be at least 1"),
        (["--implementation", "mmx"], "'mmx' is not among the implementations"),
        (["--image", "no.png"], "no.png cannot be read"),
        (["--image", ""], "cannot be read as an image"),
        (["--images", "nowhere"], "nowhere is not a folder"),
        (["--labels", "none.txt"], "none.txt"),
        (["--mean", "0.5"], "--mean has no effect with --random, only with --image and --images"),
        (["--random", "--std", "0.5"], "--std has no effect with --random"),
        (["--resize", "256"], "--resize has no effect with --random"),
        (["--image", "x.png", "--limit", "3"], "--limit has no effect with --image, only with --images"),
        (["--images", "x", "--limit", "0"], "--limit should be at least 1"),
        (["--images", "x", "--warmup_runs", "0"], "--warmup_runs has no effect with --images"),
        (["--images", "x", "--num_runs", "5"], "--num_runs has no effect with --images"),
        (["--images", "x", "--top", "5"], "--top has no effect with --images"),
        (["--images", "x", "--profile"], "--profile has no effect with --images"),
    ],
)
def test_says_what_is_wrong(file, arguments, words, capfd):
    assert run.main([str(file), *arguments]) == 2
    assert words in capfd.readouterr().err


def test_failure_of_tflite_is_no_traceback(tmp_path, capfd):
    """An index out of range, which only the run finds."""
    graph = graphs.Graph()
    values = graph.constant(np.arange(3, dtype=np.float32))
    options = (graphs.schema.BuiltinOptions.GatherOptions, graphs.schema.GatherOptionsT())
    y = graph.add("GATHER", [values, graph.input((1,), np.int32)], (1,), options=options)
    (tmp_path / "gather.tflite").write_bytes(graph.content(y))
    assert run.main([str(tmp_path / "gather.tflite")]) == 2
    assert "lce-run: TFLite does not run inputs" in capfd.readouterr().err


def test_needs_no_tensorflow(tmp_path):
    """Where LiteRT is installed, here one that refuses every file; also for help and wrong input."""
    (tmp_path / "ai_edge_litert").mkdir()
    (tmp_path / "ai_edge_litert" / "__init__.py").touch()
    engine = "def load_delegate(*arguments): pass\ndef Interpreter(**arguments): raise ValueError('refused')\n"
    (tmp_path / "ai_edge_litert" / "interpreter.py").write_text(engine)
    (tmp_path / "network.tflite").touch()
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from larq_rep_runtime import run
ends = []
for arguments in (["--help"], ["no.tflite"], ["network.tflite", "--num_runs", "0"], ["network.tflite", "--json"]):
    try:
        ends.append(run.main(arguments))
    except SystemExit as end:
        ends.append(end.code)
assert ends == [0, 2, 2, 2], ends
assert "tensorflow" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith("lce-run: TFLite does not run network.tflite: refused\n")


def test_no_such_file(capfd):
    assert run.main(["no.tflite"]) == 2
    assert "no.tflite" in capfd.readouterr().err


def numbers(dtype, quantization):
    """A file of three inputs, none of which shares its first axis with another, and three outputs."""
    graph = graphs.Graph()
    images = graph.input((4, 2, 2, 3))
    line = graph.input((7,))
    volume = graph.input((2, 3, 1, 2, 2), dtype, quantization)
    outputs = [graph.add("RELU", [x], graph.shape(x)) for x in (images, line)]
    outputs.append(graph.add("RELU", [volume], graph.shape(volume), dtype, quantization=quantization))
    return graph.content(*outputs)


@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.uint8])
def test_several_inputs_and_outputs_of_any_shape(dtype, tmp_path, capfd):
    (tmp_path / "numbers.tflite").write_bytes(numbers(dtype, None if dtype == np.float32 else (0.5, 3)))
    arguments = [str(tmp_path / "numbers.tflite"), "--num_runs", "2", "--top", "3"]
    assert run.main([*arguments, "--json"]) == 0
    printed = json.loads(capfd.readouterr().out)
    rng = np.random.default_rng(0)
    images, line = rng.normal(size=(4, 2, 2, 3)).astype("f4"), rng.normal(size=7).astype("f4")
    # Of four images the first one's.
    for found, values in zip(printed["outputs"], (images[0], line), strict=False):
        positive = np.maximum(values.reshape(-1), 0)
        assert [entry["index"] for entry in found["top"]] == list(np.argsort(-positive, kind="stable")[:3])
        assert [entry["value"] for entry in found["top"]] == list(map(float, np.sort(positive)[:-4:-1]))
    assert [output["shape"] for output in printed["outputs"]] == [[4, 2, 2, 3], [7], [2, 3, 1, 2, 2]]
    assert printed["top"] == printed["outputs"][0]["top"] and len(printed["outputs"][2]["top"]) == 3
    assert run.main([*arguments, "--profile"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert sum("of shape" in line for line in lines) == 3 and "numbers.tflite" in lines[-1]


def test_no_random_text():
    detail = {"name": "words", "dtype": np.bytes_, "shape": np.array([1])}
    with pytest.raises(DelegateError, match="no random values of the type of input 'words'"):
        random_inputs([detail])


def test_a_fault_of_ours_shows_its_traceback_and_asks_for_a_report(file, monkeypatch, capfd):
    def fault(*arguments, **options):
        print("a word of the engine", file=sys.stderr)
        raise KeyError("nobody expects it")

    monkeypatch.setattr(run, "Interpreter", fault)
    assert run.main([str(file), "--num_runs", "2"]) == 3
    lines = capfd.readouterr().err.splitlines()
    assert "a word of the engine" in lines and "KeyError: 'nobody expects it'" in lines
    assert "Please report it" in lines[-1] and f"command: lce-run {file} --num_runs 2" in lines[-1]


def test_ctrl_c_is_no_fault(file, monkeypatch, capfd):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "random_inputs", interrupt)
    assert run.main([str(file)]) == 130
    assert capfd.readouterr().err == "lce-run: interrupted.\n"


# What people have in their shells, all at once or nothing of it.
VARIABLES = {
    "TF_CPP_MIN_LOG_LEVEL": "0",
    "PYTHONWARNINGS": "error",
    "NO_COLOR": "1",
    "LANG": "C",
    "LC_ALL": "C",
    "CUDA_VISIBLE_DEVICES": "-1",
}


@pytest.mark.parametrize("variables", [{}, VARIABLES], ids=["no variable", "all variables"])
def test_engine_does_not_greet(variables, file):
    """The engine of this environment is TensorFlow."""
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environment.update(variables, PYTHONPATH=str(Path(run.__file__).parents[1]))
    command = [sys.executable, "-m", "larq_rep_runtime.run", file, "--num_runs", "2", "--profile"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "LceBconv2d" in done.stdout and "network.tflite" in done.stdout.splitlines()[-1]


def test_reader_that_reads_no_further():
    code = "import sys; from larq_rep_runtime import run; run.run = vars; sys.exit(run.main(['FILE', '--json']))"
    environment = {**os.environ, "PYTHONPATH": str(Path(run.__file__).parents[1])}
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, env=environment)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")
