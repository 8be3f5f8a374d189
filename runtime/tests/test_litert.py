"""LiteRT's CompiledModel with the delegate, on stock wheels."""

import os
import subprocess
from pathlib import Path

import graphs
import numpy as np
import pytest
import support
import venvs
from flatbuffers import flexbuffers

import larq_rep.zoo
from larq_rep.converters import convert

RUNTIME = Path(__file__).resolve().parents[1]
WHEELS = {
    "newest": ["ai-edge-litert"],
    "2.2": ["ai-edge-litert==2.2.0"],
    "2.1.6": ["ai-edge-litert==2.1.6", "ml_dtypes"],
}


@pytest.fixture(scope="module", params=["newest", "2.2", pytest.param("2.1.6", marks=pytest.mark.slow)])
def python(request):
    return python_of(request.param, request)


def python_of(wheel, request):
    """The Python of a wheel's environment; the quick suite takes what is there."""
    with venvs.alone():
        return venvs.python_with(*WHEELS[wheel], make="not slow" not in request.config.option.markexpr)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files, an input and the outputs that are right for it, by TFLite's own operators and not by XNNPACK's."""
    folder, rng = tmp_path_factory.mktemp("litert"), np.random.default_rng(0)
    shape = (1, 16, 16, 64)
    x = rng.normal(size=shape).astype(np.float32)
    np.save(folder / "x.npy", x)

    def save(name, graph, *outputs):
        (folder / f"{name}.tflite").write_bytes(graph.content(*outputs))

    graph = graphs.Graph()
    taken = graph.input(shape)
    y = graph.elementwise("ADD", graph.bconv(graph.quantize(taken), rng, 64, 64), taken)
    save("network", graph, y)
    np.save(folder / "y.npy", graphs.run(graph.content(y), x)[0])
    options = flexbuffers.Loads(bytes(graph.graph.operators[1].customOptions))
    del options["stride_height"]
    graph.graph.operators[1].customOptions = np.frombuffer(flexbuffers.Dumps(options), np.uint8)
    save("damaged", graph, y)

    # The delegate takes a pooling between binary convolutions, and XNNPACK the same one if it comes first.
    graph = graphs.Graph()
    y = graph.average_pool(graph.bconv(graph.quantize(graph.input(shape)), rng, 64, 64))
    z = graph.bconv(graph.quantize(y), rng, 64, 64)
    save("pooled", graph, y, z)
    np.save(folder / "pooled.npy", graphs.run(graph.content(y, z), x)[0])

    graph = graphs.Graph()
    taken = graph.input(shape)
    save("real", graph, graph.average_pool(graph.elementwise("ADD", taken, taken)))

    # Two inputs and two outputs of two types, and real-valued operators between the parts of the delegate.
    graph = graphs.Graph()
    one, two = graph.input(shape), graph.input((1, 16, 16, 32), np.int8, (0.05, 3))
    y = graph.transpose(graph.bconv(graph.quantize(one), rng, 64, 32), (0, 2, 1, 3))
    z = graph.bconv(graph.quantize(y), rng, 32, 64, output="int8")
    save("int8", graph, z, graph.bconv(graph.quantize(two), rng, 32, 64))

    (folder / "ResNet20.tflite").write_bytes(convert(support.randomize(larq_rep.zoo.ResNet20()))[0])
    return folder


def check(python, *arguments):
    command = [python, RUNTIME / "tests" / "support" / "compiled.py", *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LARQ_REP_")}
    done = subprocess.run(command, env={**environment, "PYTHONPATH": str(RUNTIME)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("name", ["networks", "options", "order", "damaged", "two_models"])
def test_compiled_model(name, python, folder):
    check(python, name, folder)


@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_creates_and_destroys_with_flat_memory(count, folder, request):
    check(python_of("newest", request), "cycles", folder, count)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["RepReActNetA", "BinaryDenseNet28", "MeliusNet22"])
def test_large_network(name, python, tmp_path):
    model = larq_rep.zoo.get_model(name, input_shape=(96, 96, 3))
    (tmp_path / f"{name}.tflite").write_bytes(convert(support.randomize(model))[0])
    check(python, "networks", tmp_path)
