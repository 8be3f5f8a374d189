"""LiteRT's CompiledModel with the delegate, on stock wheels."""

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

import graphs
import numpy as np
import pytest
import support
import venvs
from flatbuffers import flexbuffers
from larq_rep_runtime import delegate_path

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
    return venvs.installed(request, *WHEELS[request.param])


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
    (folder / "unknown.tflite").write_bytes(graph.content(y).replace(b"LceBconv2d", b"XceBconv2d"))

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

    graph = graphs.Graph()
    taken = graph.input(shape)
    y = graph.elementwise("ADD", taken, graph.constant(np.float32([1])))
    save("twice", graph, y, y)
    save("input", graph, y, taken)

    (folder / "ResNet20.tflite").write_bytes(convert(support.randomize(larq_rep.zoo.ResNet20()))[0])
    return folder


def check(python, *arguments):
    command = [python, RUNTIME / "tests" / "support" / "compiled.py", *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LARQ_REP_")}
    done = subprocess.run(command, env={**environment, "PYTHONPATH": str(RUNTIME)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("name", ["networks", "options", "order", "damaged", "types", "two_models"])
def test_compiled_model(name, python, folder):
    check(python, name, folder)


@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_creates_and_destroys_with_flat_memory(count, folder, request):
    check(venvs.installed(request, *WHEELS["newest"]), "cycles", folder, count)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["RepReActNetA", "BinaryDenseNet28", "MeliusNet22"])
def test_large_network(name, python, tmp_path):
    model = larq_rep.zoo.get_model(name, input_shape=(96, 96, 3))
    (tmp_path / f"{name}.tflite").write_bytes(convert(support.randomize(model))[0])
    check(python, "networks", tmp_path)


@pytest.mark.parametrize("wheel", ["newest", "2.2", pytest.param("2.1.6", marks=pytest.mark.slow)])
def test_c_program(wheel, folder, tmp_path, request):
    """The example, compiled and linked to the wheel's library."""
    python = venvs.installed(request, *WHEELS[wheel])
    litert = next(python.parents[1].glob("lib/python*/site-packages/ai_edge_litert"))
    places = [
        f"{option}{place}" for place in (litert, Path(delegate_path()).parent) for option in ("-L", "-Wl,-rpath,")
    ]
    libraries = ["-l:liblarq_rep_delegate.so", "-lLiteRt", "-ldl"]
    source, program = RUNTIME / "examples" / "compiled_model.c", tmp_path / "compiled_model"
    subprocess.run(["cc", "-std=c11", "-Wall", "-Werror", "-o", program, source, *places, *libraries], check=True)

    def run(file):
        x = np.load(folder / "x.npy").tobytes()
        return subprocess.run([program, folder / f"{file}.tflite"], input=x, capture_output=True)

    assert run("network").stdout == np.load(folder / "y.npy").tobytes()
    refused = run("damaged")
    assert refused.returncode == 1 and b"larq-rep: operator 1 (LceBconv2d)" in refused.stderr


STANDIN = """
static struct {{ unsigned short header[4]; void *functions[24]; }} definition = {{ {{ {header} }}, {{ {functions} }} }};
void *LiteRtStaticLinkedAcceleratorCpuDef = &definition, *LiteRtStaticLinkedAcceleratorGpuDef = {gpu};
void LiteRtWrapDelegate(void) {{}}
"""


@pytest.mark.parametrize(
    ("header", "functions", "gpu", "words"),
    [
        ("200, 1", "0", "0", ""),
        ("1", "0", "0", ""),
        ("208, 1, 1", "0", "0", ""),
        ("208, 2, 1", "0", "0", "version 2.1.0, in 208 bytes; expected version 1 in at least 200, as in LiteRT 2.2"),
        ("192, 1", "0", "0", "in 192 bytes"),
        ("2", "0", "0", "in 2 bytes"),
        # 2.1.4 and 2.1.5, whose number is that of 2.1.6.
        ("1", "0, 0, 0, 0, 0, &definition", "0", "or the definition of 2.1.6"),
        ("200, 1", "0", "&definition", "has a GPU accelerator"),
        (None, None, None, "has no place for an accelerator"),
    ],
)
def test_installs_only_in_known_runtimes(header, functions, gpu, words, tmp_path, capfd):
    source = "" if header is None else STANDIN.format(header=header, functions=functions, gpu=gpu)
    (tmp_path / "standin.c").write_text(source)
    command = ["cc", "-shared", "-fPIC", "-o", tmp_path / "standin.so", tmp_path / "standin.c"]
    subprocess.run(command, check=True)
    standin = ctypes.CDLL(tmp_path / "standin.so")
    install = ctypes.CDLL(delegate_path()).larq_rep_litert_install
    install.restype = ctypes.c_bool
    assert install(ctypes.c_void_p(standin._handle)) == (not words)
    said = capfd.readouterr().err
    assert (words in said and said.startswith("larq-rep: ")) if words else not said
    if header is not None:
        slot = ctypes.c_void_p.in_dll(standin, "LiteRtStaticLinkedAcceleratorGpuDef").value
        assert (slot is not None) == (not words or gpu != "0")


@pytest.mark.parametrize("header", [(152, 2, 0, 0), (144, 1, 9, 0), (0, 0, 0, 0)])
def test_refuses_unknown_functions(header, capfd):
    """The delegate touches none of them: they are no functions."""
    definition = (ctypes.c_void_p * 25).in_dll(ctypes.CDLL(delegate_path()), "LiteRtAcceleratorImpl")
    create = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 5)(definition[5])
    table = (ctypes.c_uint16 * 300)(*header)
    assert create(ctypes.addressof(table), None, None, None, None) != 0
    size, major, minor, _ = header
    assert f"of version {major}.{minor}.0, in {size} bytes; expected version 1" in capfd.readouterr().err


def test_refuses_a_runtime_that_hides_its_options():
    code = """if True:
        import ctypes
        library = ctypes.CDLL(sys.argv[1])
        definition = (ctypes.c_void_p * 25).in_dll(library, "LiteRtAcceleratorImpl")
        function = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 5)
        table, fails = (ctypes.c_void_p * 50)(400 + (1 << 16)), function(lambda *_: 1)
        table[13] = ctypes.cast(fails, ctypes.c_void_p).value  # get_environment_options
        print(function(definition[5])(ctypes.addressof(table), None, None, None, None))
    """
    command = [sys.executable, "-c", "import sys\n" + code, delegate_path()]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "8\n" and "does not tell the folder of its runtime" in done.stderr


@pytest.mark.parametrize("engine", ["interpreter", "compiled"])
def test_lce_run(engine, folder, request):
    options = ["--engine", engine, "--num_threads", "2", "--num_runs", "2", "--profile", "--json"]
    command = [
        venvs.installed(request, *WHEELS["newest"]),
        "-m",
        "larq_rep_runtime.run",
        folder / "network.tflite",
        *options,
    ]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(RUNTIME)})
    assert done.returncode == 0 and not done.stderr
    result = json.loads(done.stdout)
    assert result["engine"] == engine and [part["threads"] for part in result["profile"]] == [2]
    assert result["outputs"][0]["shape"] == [1, 16, 16, 64]


@pytest.mark.parametrize(
    ("version", "missing", "words"),
    [
        ("2.3.0", "ai_edge_litert", "LiteRT, which is not installed: pip install 'ai-edge-litert>=2.2'"),
        ("2.1.0", "ml_dtypes", "The CompiledModel of LiteRT 2.1.0 takes no delegate; 2.1.6, 2.2 and 2.3 do"),
        ("2.1.6", "ml_dtypes", "LiteRT 2.1.6 needs ml_dtypes, which is not installed: pip install ml_dtypes."),
        ("9.0.0", None, "LiteRT 9.0.0 does not take the delegate into its environment; 2.1.6, 2.2 and 2.3 do"),
    ],
)
def test_refuses_other_versions(version, missing, words, tmp_path):
    """A new one when its environment has not taken the delegate."""
    package, code = tmp_path / "ai_edge_litert", "import larq_rep_runtime; larq_rep_runtime.litert_environment()"
    package.mkdir()
    if missing is not None:
        code = f"import sys; sys.modules[{missing!r}] = None; " + code
    (package / "__init__.py").write_text(f"__version__ = '{version}'")
    (package / "compiled_model.py").write_text("import ml_dtypes")
    (package / "environment.py").write_text("class Environment:\n    create = staticmethod(lambda runtime_path: None)")
    path = os.pathsep.join([str(tmp_path), str(RUNTIME), *sys.path])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": path})
    assert words in done.stderr
