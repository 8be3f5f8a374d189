"""The package's own Interpreter: its options, its batches, what it says of a file."""

import gc
import json
import subprocess
import sys
import warnings

import graphs
import larq_rep_runtime
import numpy as np
import pytest
from larq_compute_engine.mlir.python import tflite_schema as schema
from larq_rep_runtime import DelegateError, Interpreter, available_implementations
from larq_rep_runtime.library import available_implementations as listing
from larq_rep_runtime.messages import captured_stderr
from larq_rep_runtime.metadata import read_metadata

from larq_rep.converters import metadata


def network(*reshape, batch=1):
    """A binary convolution, and a reshape of its output to the given shape."""
    rng = np.random.default_rng(0)
    graph = graphs.Graph()
    y = graph.bconv(graph.quantize(graph.input((batch, 3, 3, 32))), rng, 32, 32)
    if reshape:
        options = schema.ReshapeOptionsT()
        options.newShape = list(reshape)
        shape = graph.constant(np.int32(reshape))
        found = [288 * batch // -np.prod(reshape) if d == -1 else d for d in reshape]
        y = graph.add("RESHAPE", [y, shape], found, options=(schema.BuiltinOptions.ReshapeOptions, options))
    return graph.content(y)


IMAGES = np.random.default_rng(1).normal(size=(6, 3, 3, 32)).astype(np.float32)


@pytest.mark.parametrize(("reshape", "batch"), [((1, 288), 1), ((1, -1), 1), ((2, 288), 2), ((-1, 288), 1)])
def test_a_batch_of_any_size(reshape, batch):
    expected = Interpreter(network()).predict(IMAGES).reshape(-1, 288)
    interpreter = Interpreter(network(*reshape, batch=batch))
    for size in (2, 4, 2, 6):
        np.testing.assert_array_equal(interpreter.predict(IMAGES[:size]), expected[:size])


def test_goes_on_after_a_batch_that_does_not_fit():
    interpreter = Interpreter(network(2, 288, batch=2))
    expected = interpreter.predict(IMAGES[:2])
    with pytest.raises(DelegateError, match=r"inputs of the shape \(3, 3, 3, 32\)"):
        interpreter.predict(IMAGES[:3])
    np.testing.assert_array_equal(interpreter.predict(IMAGES[:2]), expected)


def profiled(**options):
    with captured_stderr() as lines:
        interpreter = Interpreter(network(), **options)
        interpreter.predict(IMAGES[:1])
        implementation = interpreter.implementation
        del interpreter
        gc.collect()
    found = [json.loads(line.split(": ", 1)[1]) for line in lines if line.startswith("larq-rep profile: ")]
    assert all(part["implementation"] == implementation for part in found)
    return found


def test_options_and_environment(monkeypatch):
    """The environment counts where the program gives nothing; an option beats it."""
    assert profiled() == [] and profiled(profile=True, num_threads=2)[0]["threads"] == 2
    values = {"PROFILE": "1", "FUSE": "0", "NUM_THREADS": "3", "IMPLEMENTATION": "portable"}
    for name, value in values.items():
        monkeypatch.setenv(f"LARQ_REP_{name}", value)
    found = profiled()
    assert [(part["implementation"], part["threads"]) for part in found] == [("portable", 3)] * len(found) and found
    best = available_implementations()[0]
    assert profiled(implementation=best)[0]["implementation"] == best
    assert profiled(profile=False) == []


def test_fuse_of_the_environment(monkeypatch):
    rng = np.random.default_rng(0)
    graph = graphs.Graph()
    x = graph.input((1, 4, 4, 32))
    content = graph.content(graph.elementwise("ADD", graph.bconv(graph.quantize(x), rng, 32, 32), x))

    def steps(**options):
        return [
            step["name"] for part in larq_rep_runtime.profile(content, num_runs=1, **options) for step in part["steps"]
        ]

    assert any("ADD" in name.upper() for name in steps())
    monkeypatch.setenv("LARQ_REP_FUSE", "0")
    assert not any("ADD" in name.upper() for name in steps())
    assert any("ADD" in name.upper() for name in steps(fuse=True))


def test_implementations_do_not_depend_on_the_environment(monkeypatch):
    expected = listing.__wrapped__()
    monkeypatch.setenv("LARQ_REP_IMPLEMENTATION", "mmx")
    assert listing.__wrapped__() == expected and expected[-1] == "portable"
    with pytest.raises(DelegateError, match=r"(?s)environment.*'mmx' is not among the implementations"):
        Interpreter(network(), implementation="portable")


@pytest.mark.parametrize("num_threads", [0, 65])
def test_refuses_threads(num_threads):
    with pytest.raises(DelegateError, match=f"num_threads should be .*found {num_threads}"):
        Interpreter(network(), num_threads)


def test_does_not_warn():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Interpreter(network())
    assert not caught, [str(warning.message) for warning in caught]


def test_metadata():
    values = {"mirrored_input": True, "name": "größer"}
    content = metadata.attach(network(), values)
    assert read_metadata(content) == Interpreter(content).metadata == values
    assert read_metadata(network()) == {} == Interpreter(network()).metadata


def test_metadata_of_damaged_files():
    """Any file gives a dictionary, no exception."""
    content, rng = metadata.attach(network(), {"mirrored_input": True}), np.random.default_rng(0)
    for length in range(0, len(content), 7):
        assert isinstance(read_metadata(content[:length]), dict)
    for _ in range(3000):
        damaged = bytearray(content)
        for position in rng.integers(0, len(content), 8):
            damaged[position] = rng.integers(256)
        assert isinstance(read_metadata(bytes(damaged)), dict)


def test_reads_metadata_without_tensorflow(tmp_path):
    (tmp_path / "network.tflite").write_bytes(metadata.attach(network(), {"mirrored_input": True}))
    code = (
        "import sys; from larq_rep_runtime.metadata import read_metadata as read\n"
        "print(read(open(sys.argv[1], 'rb').read()), 'tensorflow' in sys.modules, 'flatbuffers' in sys.modules)"
    )
    command = [sys.executable, "-c", code, tmp_path / "network.tflite"]
    environment = {"PYTHONPATH": str(graphs.__file__.rsplit("/tests/", 1)[0])}
    printed = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    assert printed == "{'mirrored_input': True} False False\n"
