"""The app's classes without Android against something independent: numpy, and the Python runtime on the desktop.

One Java machine answers all cases: CoreMain.java, a line of JSON for each.
"""

import larq_rep  # noqa: F401  (before TensorFlow: it chooses Keras 2)

# isort: split
import base64
import contextlib
import csv
import io
import json
import os
import re
import shlex
import subprocess
import threading
import zipfile
from pathlib import Path

import graphs
import numpy as np
import originals
import pytest
import run_on_device
from larq_rep_runtime import Interpreter, images, metadata, preparation, run
from larq_rep_runtime.library import DelegateError
from PIL import Image

from larq_rep.converters.metadata import attach

DEMO = Path(__file__).resolve().parents[1]
REPOSITORY = DEMO.parent
PACKAGE = "com.larqrep.benchmark.core"
TYPES = {
    "FLOAT32": np.float32,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}


@pytest.fixture(scope="session")
def class_path(built):
    """The options of `java` for the core classes and their tests."""
    return f"@{built('junit.args')}"


@contextlib.contextmanager
def machine(class_path, *options, **environment):
    """A Java machine with CoreMain, as a function: `java("statistics", ms=[1])`."""
    command = ["java", *options, class_path, f"{PACKAGE}.CoreMain"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **environment}
    )

    def ask(what, **values):
        process.stdin.write(json.dumps({"do": what, **values}).encode() + b"\n")
        process.stdin.flush()
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        line = process.stdout.readline()
        while line and not line.startswith(b"{"):  # The shim's log.
            line = process.stdout.readline()
        watchdog.cancel()
        assert line, f"The machine has ended by itself, or after a minute without an answer: {process.wait()}"
        answer = json.loads(line)
        assert "crash" not in answer, answer["crash"]
        return answer

    yield ask
    process.stdin.close()
    assert process.wait() == 0


@pytest.fixture(scope="module")
def java(class_path):
    with machine(class_path) as ask:
        yield ask


@contextlib.contextmanager
def native_machine(class_path, built):
    """A machine in which TFLite's library for Android and ours run, on the stand-in for bionic."""
    shim = built("shim/x86_64/libc.so").parent
    path = f"{shim}:{shim / 'app'}"
    with machine(class_path, f"-Djava.library.path={shim / 'app'}", LD_LIBRARY_PATH=path) as ask:
        yield ask


@pytest.fixture(scope="module")
def engine(class_path, built):
    with native_machine(class_path, built) as ask:
        yield ask


def encode(array, dtype=np.float32):
    return base64.b64encode(np.asarray(array, dtype).tobytes()).decode()


def decode(answer, dtype):
    return np.frombuffer(base64.b64decode(answer["bytes"]), dtype)


def test_java_tests(class_path):
    names = [path.stem for path in (DEMO / "app/src/test/java/com/larqrep/benchmark/core").glob("*Test.java")]
    command = ["java", class_path, "org.junit.runner.JUnitCore", *(f"{PACKAGE}.{name}" for name in names)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
    print(re.search(r"OK \(\d+ tests\)", result.stdout)[0])


def test_statistics(java):
    rng = np.random.default_rng(0)
    for count in [1, 2, 3, 9, 10, 11, 50, 1001, *rng.integers(1, 400, 40).tolist()]:
        ms = rng.lognormal(1, rng.uniform(0, 3), count)
        ms = np.round(ms) if count % 3 == 0 else ms
        found = java("statistics", ms=ms.tolist())
        assert [found[name] for name in ("p10", "median", "p90")] == np.percentile(ms, (10, 50, 90)).tolist()
        assert found["min"] == ms.min()
    assert "at least one run" in java("statistics", ms=[])["error"]


def hashes(count, number=0):
    h = (np.arange(count, dtype=np.uint32) + np.uint32(number * count)) * np.uint32(0x9E3779B9)
    h = (h ^ h >> 16) * np.uint32(0x21F0AAAD)
    h = (h ^ h >> 15) * np.uint32(0x735A2D97)
    return h ^ h >> 15


def generated(shape, number=0):
    return ((hashes(np.prod(shape), number) >> 8) * 2.0**-22 - 2).astype(np.float32).reshape(shape)


def test_generator(java):
    count = 100_000
    h = hashes(count)
    expected = {
        "FLOAT32": generated(count),
        "INT8": (h >> 24).astype(np.uint8).view(np.int8),
        "UINT8": (h >> 24).astype(np.uint8),
        "INT32": (h >> 24).astype(np.int32),
        "INT64": (h >> 24).astype(np.int64),
        "BOOL": (h >> 31).astype(np.bool_),
    }
    assert -2 <= expected["FLOAT32"].min() < -1.99 and 1.99 < expected["FLOAT32"].max() < 2
    for name, dtype in TYPES.items():
        found = decode(java("generate", type=name, count=count), dtype)
        np.testing.assert_array_equal(found[:count], expected[name])
        assert not found[count:].any()
    for number in (1, 7, 50_000):  # The last one begins again after 2^32.
        found = decode(java("generate", type="FLOAT32", count=count, number=number), np.float32)[:count]
        np.testing.assert_array_equal(found, generated(count, number))
    assert "STRING" in java("generate", type="STRING", count=1)["error"]
    assert "INT16" in java("generate", type="INT16", count=1)["error"]


# Options

VALUES = ("1", "4", "0", "-1", "+7", "007", "65", "five", "1.5", "", "a b", "-", "-x", "--json", "ResNet20", "é", "1e3")


def lce_run(words):
    """What lce-run makes of options: a dictionary, or None if it refuses them."""
    try:
        arguments = run._parser().parse_args(["FILE", *words])
        run._source(arguments)
    except (SystemExit, DelegateError):
        return None
    names = ("num_threads", "warmup_runs", "num_runs", "top", "implementation", "no_fuse")
    return {name: getattr(arguments, name) for name in names}


def test_options_of_lce_run(java, capsys):
    rng = np.random.default_rng(1)
    names = ["num_threads", "warmup_runs", "num_runs", "top", "implementation", "no_fuse", "random", "json", "what"]
    accepted = 0
    for _ in range(3000):
        words = []
        for _ in range(rng.integers(0, 4)):
            name, value = rng.choice(names), str(rng.choice(VALUES))
            form = rng.integers(0, 8)
            if form == 0 or (name in ("no_fuse", "random", "json") and form < 7):
                words.append(f"--{name}")
            else:
                words += [f"--{name}={value}"] if form % 2 else [f"--{name}", value]
        expected, found = lce_run(words), java("options", arguments=shlex.join(words))
        if expected and (expected["num_threads"] > 64 or expected["implementation"] == ""):
            assert "error" in found, words  # lce-run refuses these with the file.
        elif expected is None:
            assert "error" in found, words
        else:
            assert {name: found.get(name) for name in expected} == expected, words
            accepted += 1
    assert 500 < accepted < 2500
    capsys.readouterr()


def test_message_of_a_small_number_is_lce_runs(java):
    for words in (["--num_runs", "0"], ["--num_threads=-3"], ["--warmup_runs", "-1"], ["--top=-7"]):
        with pytest.raises(DelegateError) as error:
            run._source(run._parser().parse_args(["FILE", *words]))
        assert java("options", arguments=" ".join(words))["error"] == str(error.value)


# Preparation


def said(answer):
    """Its text as lce-run says it."""
    return f"{answer['assumed']}: {answer['text']}" if answer["assumed"] else answer["text"]


def random_metadata(rng, shape):
    """Metadata that fit an input, some of the fields left out."""
    (height, width, channels) = shape[1:]
    about = {
        "size": [height, width],
        "channels": channels,
        "range": [[0, 1], [-1, 1], [0, 255], [-0.25, 3.5]][rng.integers(4)],
        "resize": [min(height, width), float(min(height, width)) + 0.5, min(height, width) * 2 + 1][rng.integers(3)],
        "crop": [height, width],
        "mirrored": bool(rng.integers(2)),
    }
    about = {name: value for name, value in about.items() if rng.random() < 0.7}
    if rng.random() < 0.6:
        about["mean"] = np.round(rng.uniform(-1, 1, channels), 3).tolist()
        about["std"] = np.round(rng.uniform(0.05, 2, channels), 3).tolist()
    return {"network": "X", **({"input": about} if rng.random() < 0.7 else {"mirrored_input": bool(rng.integers(2))})}


def prepared(java, about, shape, type_name, quantization, pixels):
    """An image that Java and Python have prepared for a file: both results, and what both say."""
    detail = {"shape": np.array(shape), "dtype": TYPES[type_name], "quantization": quantization}
    png = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(png, "PNG")
    prepare = preparation.preparation(about, detail)
    expected = images.as_input(prepare(png)[None].repeat(shape[0], axis=0), detail)
    rgb = np.broadcast_to(pixels, (*pixels.shape[:2], 3)).astype(np.int64)
    argb = (0xFF << 24 | rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]).astype(np.uint32)
    answer = java(
        "prepare", metadata=about, pixels=encode(argb, np.uint32), width=pixels.shape[1], height=pixels.shape[0],
        input={"shape": shape, "type": type_name, "scale": quantization[0], "zero_point": quantization[1]},
    )  # fmt: skip
    text = f"{prepare.assumed}: {prepare.text}" if prepare.assumed else prepare.text
    return decode(answer, TYPES[type_name]).reshape(shape), expected, said(answer), text


QUANTIZATIONS = {
    "FLOAT32": [(0.0, 0)],
    "INT8": [(0.0, 0), (1 / 255, -128), (2 / 255, 0), (1.0, -128), (0.0187, -14), (0.004, 3)],
    "UINT8": [(0.0, 0), (1 / 255, 0), (2 / 255, 127), (1.0, 0), (0.0187, 114)],
    "INT32": [(0.0, 0), (1e-4, 12)],
}


def test_preparation(java):
    """The same pixels to the last bit, because all steps are in the same order."""
    rng = np.random.default_rng(2)
    types = set()
    for case in range(300):
        shape = [int(rng.choice([1, 1, 3])), *rng.integers(1, 40, 2).tolist(), int(rng.choice([1, 3]))]
        size = rng.integers(1, [20, 90, 250][case % 3], 2)
        pixels = rng.integers(0, 256, (*size, int(rng.choice([1, 3]))), np.uint8)
        type_name = str(rng.choice(list(QUANTIZATIONS)))
        quantization = QUANTIZATIONS[type_name][rng.integers(len(QUANTIZATIONS[type_name]))]
        quantization = (float(np.float32(quantization[0])), quantization[1])
        about = random_metadata(rng, shape)
        found, expected, *texts = prepared(java, about, shape, type_name, quantization, pixels)
        np.testing.assert_array_equal(found, expected, err_msg=f"{about} {shape} {type_name} {size}")
        assert texts[0] == texts[1], about
        types.add((type_name, "input" in about))
    assert len(types) == 8


def test_preparation_of_photographs(java):
    from sklearn.datasets import load_sample_images

    about = {"input": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "resize": 256}}
    for photograph in load_sample_images().images:
        found, expected, *_ = prepared(java, about, [1, 224, 224, 3], "FLOAT32", (0.0, 0), photograph)
        np.testing.assert_array_equal(found, expected)
        found, expected, *_ = prepared(java, {}, [1, 16, 16, 1], "FLOAT32", (0.0, 0), photograph)
        np.testing.assert_array_equal(found, expected)


def test_imagenets_preparation_is_assumed_by_an_inputs_range(java):
    """The range of a quantized input decides; it says which."""
    image = np.zeros((4, 4, 3), np.uint8)
    for scale, zero_point, meant in ((0.0187, -14, "0.485"), (1 / 255, -128, "0..1"), (2 / 255, 0, "-1..1")):
        quantization = (float(np.float32(scale)), zero_point)
        _, _, found, expected = prepared(java, {}, [1, 4, 4, 3], "INT8", quantization, image)
        assert found == expected and meant in found and found.startswith("assumed, from the range of its input, ")


WRONG = [
    {"input": 3},
    {"input": [1]},
    {"mirrored_input": "yes"},
    {"input": {"size": [8, 7]}},
    {"input": {"size": "8x8"}},
    {"input": {"crop": [8]}},
    {"input": {"channels": 1}},
    {"input": {"channels": "RGB"}},
    {"input": {"range": [1, 0]}},
    {"input": {"range": [1, 1]}},
    {"input": {"range": [0, 1, 2]}},
    {"input": {"range": [0, 10_000_000]}},
    {"input": {"range": [False, True]}},
    {"input": {"mean": [0.5]}},
    {"input": {"mean": [0.5, 0.5, None]}},
    {"input": {"std": [0.5, 0.5, 0]}},
    {"input": {"std": [0.5, -1, 0.5]}},
    {"input": {"resize": 7}},
    {"input": {"resize": "8"}},
    {"input": {"resize": True}},
    {"input": {"mirrored": 1}},
    {"input": {"mean": [0.5, 0.25, "a long text that does not belong here, and goes on and on and on"]}},
]


@pytest.mark.parametrize("about", WRONG, ids=json.dumps)
def test_wrong_metadata(java, about):
    """Python's message, but for options that the app does not have and JSON's blanks."""
    with pytest.raises(DelegateError) as error:
        detail = {"shape": np.array([1, 8, 8, 3]), "dtype": np.float32, "quantization": (0.0, 0)}
        preparation.preparation(about, detail)
    found = java("prepare", metadata=about, input={"shape": [1, 8, 8, 3], "type": "FLOAT32"})["error"]
    expected = re.sub(r" or give --\w+", "", str(error.value))
    assert plain(found) == plain(expected)


def plain(message):
    """Without blanks, and without a value, which a long one cuts where its blanks decide."""
    return re.sub(r"\s|=.*\.\.\.,", "", message)


@pytest.mark.parametrize("name", ["mean", "std"])
def test_mean_and_std_go_together(java, name):
    about = {"input": {name: [0.5, 0.5, 0.5]}}
    answer = java("prepare", metadata=about, input={"shape": [1, 8, 8, 3], "type": "FLOAT32"})
    assert "only one of input.mean and input.std" in answer["error"]


@pytest.mark.parametrize(
    "shape, type_name", [([1, 8, 8, 2], "FLOAT32"), ([8], "INT8"), ([], "FLOAT32"), ([1, 8, 8, 3], "BOOL")]
)
def test_input_that_takes_no_images(java, shape, type_name):
    detail = {"shape": np.array(shape), "dtype": TYPES[type_name], "quantization": (0.0, 0)}
    with pytest.raises(DelegateError) as error:
        preparation.preparation({}, detail)
    answer = java("prepare", metadata={}, input={"shape": shape, "type": type_name})
    assert answer["error"] == str(error.value)


# Files


@pytest.fixture(scope="module")
def files():
    """Files with all that the delegate takes and with metadata: the converter's, or some made up."""
    contents = {name: make() for name, make in originals.ALL.items()}
    return {
        name: content if metadata.read_metadata(content) else attach(content, {"network": name, "classes": ["ä", "b"]})
        for name, content in contents.items()
    }


def ask_file(java, content, **names):
    return java("file", content=base64.b64encode(content).decode(), **names)


def custom_operators(content):
    """Names of the custom operators of a file by the schema's own reader, once for each use."""
    model = graphs.schema.ModelT.InitFromPackedBuf(content, 0)
    codes = [(code.customCode or b"").decode() for code in model.operatorCodes]
    return [codes[op.opcodeIndex] for graph in model.subgraphs for op in graph.operators if codes[op.opcodeIndex]]


def test_files(java, files):
    for name, content in files.items():
        found, custom = ask_file(java, content), custom_operators(content)
        assert "fault" not in found, name
        assert found["metadata"] == metadata.read_metadata(content) != {}
        assert set(found["custom"]) == set(custom) and found["lce_operators"] == len(custom) > 0
        assert found["bytes"] == len(content)
    assert ask_file(java, originals.block())["metadata"] == {}


def test_networks_of_the_demo(java):
    """Files as the converter writes them, standard metadata and archive behind them included."""
    paths = sorted((REPOSITORY / "build" / "demo").glob("*.tflite"))
    if not paths:
        pytest.skip("build/demo is missing: `make demo` trains its networks")
    for path in paths:
        found, content = java("file", path=str(path)), path.read_bytes()
        assert "fault" not in found
        assert found["metadata"] == metadata.read_metadata(content) != {}
        assert found["lce_operators"] == len(custom_operators(content)) > 0
        shape = preparation_input(content)
        answer = java("prepare", metadata=found["metadata"], input=shape)
        detail = {"shape": np.array(shape["shape"]), "dtype": np.float32, "quantization": (0.0, 0)}
        assert answer["text"] == preparation.preparation(found["metadata"], detail).text and not answer["assumed"]


def preparation_input(content):
    graph = graphs.schema.ModelT.InitFromPackedBuf(content, 0).subgraphs[0]
    return {"shape": list(map(int, graph.tensors[graph.inputs[0]].shape)), "type": "FLOAT32"}


def test_file_that_is_cut_off(java, files):
    """Refused wherever its flatbuffer is cut, but in padding at the end; an archive behind it is not TFLite's."""
    for content in files.values():
        archive = content.find(b"PK\3\4")
        end = (archive if archive > 0 else len(content)) - 64
        for length in {*range(0, end, max(end // 150, 1)), 3, 4, 7, 8, 9, 12, 20, end}:
            fault = ask_file(java, content[:length], file="cut.tflite")["fault"]
            assert "cut.tflite" in fault and ("damaged or cut off" in fault or "is not a .tflite file" in fault)


def damaged(rng, content):
    """A file with one to three bytes or words changed at random."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        place = rng.integers(0, len(content))
        if rng.random() < 0.5:
            content[place] = rng.integers(256)
        else:
            word = rng.choice([0, 1, -1, 4, 255, 2**31 - 1, -(2**31), len(content)])
            content[place : place + 4] = int(word).to_bytes(4, "little", signed=True)
    return bytes(content)


def test_damaged_files(java, files):
    """A sentence or an answer: never another error, and metadata only where Python finds them."""
    rng = np.random.default_rng(3)
    refused = answered = 0
    for case in range(4000):
        content = damaged(rng, list(files.values())[case % len(files)])
        found, expected = ask_file(java, content), metadata.read_metadata(content)
        if found["metadata"] != expected:
            # Java's reader of JSON forgives more, Python's takes other encodings and pieces outside of the file.
            assert found["metadata"] == {} or expected == {}, case
        refused, answered = refused + ("fault" in found), answered + ("fault" not in found)
    assert refused > 300 and answered > 300


@pytest.mark.parametrize(
    "name, inputs, allowed",
    [
        ("ADD", [0, -1], False),
        ("ADD", [-1, 0], False),
        ("FULLY_CONNECTED", [0, 0, -1], True),
        ("FULLY_CONNECTED", [-1, 0, 0], False),
        ("LceQuantize", [-1], False),
        ("LceBconv2d", [0, 0, -1, -1, -1], True),
        ("ADD", [0, 2], False),
    ],
)
def test_inputs_that_are_left_out(java, name, inputs, allowed):
    """TFLite's operators read what is left out, but for a bias and the like, and the process ends."""
    graph = graphs.Graph()
    graph.input((1, 4))
    found = ask_file(java, graph.content(graph.add(name, inputs, (1, 4))))
    assert ("fault" not in found) == allowed


def test_outputs_that_are_left_out(java):
    graph = graphs.Graph()
    y = graph.add("RELU", [graph.input((1, 4))], (1, 4))
    graph.graph.operators[0].outputs = [-1]
    assert "damaged" in ask_file(java, graph.content(y))["fault"]


@pytest.mark.parametrize("type_name", ["FLOAT16", "STRING"])
@pytest.mark.parametrize("kind", ["input", "output"])
def test_type_that_the_app_does_not_take(java, type_name, kind):
    graph = graphs.Graph()
    x = graph.input((1, 4))
    y = graph.add("RELU", [x], (1, 4))
    tensor = graph.graph.tensors[x if kind == "input" else y]
    tensor.type = getattr(graphs.schema.TensorType, type_name)
    fault = ask_file(java, graph.content(y), file="half.tflite")["fault"]
    assert f"The {kind} {tensor.name.decode()} of half.tflite is {type_name.lower()}, expected float32" in fault


def test_file_without_operators_of_lce(java):
    graph = graphs.Graph()
    y = graph.add("RELU", [graph.input((1, 4))], (1, 4))
    found = ask_file(java, graph.content(y))
    assert "fault" not in found and found["custom"] == [] and found["lce_operators"] == 0


# Agreement


def agree(java, outputs, reference):
    return java("agree", outputs=[encode(y) for y in outputs], reference=[encode(y) for y in reference])


def test_agreement(java):
    rng = np.random.default_rng(4)
    verdicts = []
    for _ in range(500):
        reference = [
            rng.normal(size=rng.integers(2, 40)).astype(np.float32) * 10.0 ** rng.integers(-3, 4) for _ in "ab"
        ]
        error = 10.0 ** rng.uniform(-5, -1)
        outputs = [(y + np.ptp(y) * error * rng.uniform(-1, 1, y.shape)).astype(np.float32) for y in reference]
        found = agree(java, outputs, reference)
        differences = [np.abs(x.astype(np.float64) - y).max() for x, y in zip(outputs, reference, strict=True)]
        ranges = [np.ptp(y.astype(np.float64)) for y in reference]
        top1 = outputs[0].argmax() == reference[0].argmax()
        right = all(d <= 1e-3 * r for d, r in zip(differences, ranges, strict=True)) and top1
        worst = np.argmax(np.array(differences) / ranges)
        assert found["verdict"] == ("agrees" if right else "differs") and found["top1"] == top1
        assert (found["max_difference"], found["range"]) == (differences[worst], ranges[worst])
        verdicts.append(right)
    assert 100 < sum(verdicts) < 400


CASES = [
    # outputs, reference, top1, verdict
    ([[1, 2]], [[1, 2]], True, "agrees"),
    ([[1, np.nan]], [[1, 2]], False, "differs"),
    ([[1, 2]], [[1, np.nan]], False, "differs"),
    ([[np.nan, 2]], [[np.nan, 2]], False, "differs"),
    ([[np.inf, 2]], [[np.inf, 2]], True, "differs"),
    ([[np.inf, 2]], [[5, 2]], True, "differs"),
    ([[5, -np.inf]], [[5, 2]], True, "differs"),
    ([[1, 2, 3]], [[1, 2]], False, "differs"),
    ([[1, 2], [3]], [[1, 2]], False, "differs"),
    ([[1, 2], [3]], [[1, 2], [np.nan]], True, "differs"),
    ([[]], [[]], False, "differs"),
    ([], [], False, "differs"),
    # Of equal numbers any may be the largest, in either of both.
    ([[2, 2.0001, 0]], [[2, 2, 0]], True, "agrees"),
    ([[2, 2, 0]], [[2, 2.0001, 0]], False, "differs"),
    ([[0, 0, 0]], [[0, 0, 0]], True, "agrees"),
    ([[0, 1e-9, 0]], [[0, 0, 0]], True, "differs"),
    # A single number has no range.
    ([[100.05]], [[100]], True, "agrees"),
    ([[100.2]], [[100]], True, "differs"),
]


@pytest.mark.parametrize("outputs, reference, top1, verdict", CASES)
def test_agreement_of_odd_outputs(java, outputs, reference, top1, verdict):
    found = agree(java, outputs, reference)
    assert (found["top1"], found["verdict"]) == (top1, verdict)
    assert found["max_difference"] is None or found["max_difference"] >= 0


def test_no_reference(java):
    found = java("agree", outputs=[encode([1, 2])])
    nothing = {"top1": None, "max_difference": None, "range": None, "median_difference": None}
    assert found == {**nothing, "inputs": 0, "verdict": "no reference"}


def test_agreement_of_several_inputs(java):
    """All inputs have to agree, and in the median by a hundredth of that."""
    rng = np.random.default_rng(4)
    reference = [rng.normal(size=(1, 10)).astype(np.float32) for _ in range(8)]

    def compared(shares):
        values = {}
        for i, (y, share) in enumerate(zip(reference, shares, strict=False)):
            x = y.copy()
            x[0, y.argmin()] -= share * np.ptp(y)
            values |= {f"outputs{i}": [encode(x)], f"reference{i}": [encode(y)]}
        return java("agree with all", **values)

    for shares, verdict in [
        ([0] * 8, "agrees"),
        ([9e-6] * 8, "agrees"),
        ([1.2e-5] * 8, "differs"),
        ([9e-4] * 4 + [0] * 4, "agrees"),  # Rounding has turned a sign.
        ([0] * 3 + [9e-4] * 5, "differs"),
        ([0] * 7 + [1.1e-3], "differs"),
        ([9e-4], "agrees"),  # With one input there is no median.
        ([1.1e-3], "differs"),
    ]:
        found = compared(shares)
        assert (found["verdict"], found["inputs"], found["top1"]) == (verdict, len(shares), True), shares
        assert found["max_difference"] / found["range"] == pytest.approx(max(shares), rel=1e-2, abs=1e-7)
        assert found["median_difference"] == pytest.approx(sorted(shares)[(len(shares) - 1) // 2], rel=1e-2, abs=1e-7)


# Reports


def benchmark(java, outputs, reference=None, implementations=("neon",), content=None, arguments="", **values):
    """A benchmark of a network that gives these outputs, a list for each implementation."""
    output_tensors = [
        {"name": f"y{i}", "shape": list(np.shape(y)), "type": "FLOAT32"} for i, y in enumerate(outputs[0])
    ]
    return java(
        "benchmark", implementations=list(implementations), arguments=arguments,
        content=base64.b64encode(content or b"").decode(),
        inputs=[{"name": "x", "shape": [1, 2, 2, 1], "type": "FLOAT32"}], output_tensors=output_tensors,
        **{f"outputs{i}": [encode(y) for y in each] for i, each in enumerate(outputs)},
        **({"reference": [encode(y) for y in reference]} if reference else {}), **values,
    )  # fmt: skip


def test_json_of_a_benchmark(java):
    rng = np.random.default_rng(5)
    names = [f'class {i}, "ü"' for i in range(12)]
    content = attach(originals.block(), {"classes": names})
    y, z = rng.normal(size=(1, 12)).astype(np.float32), rng.normal(size=(1, 3, 2)).astype(np.float32)
    y[0, [3, 5]], y[0, 7] = 9, np.nan
    answer = benchmark(
        java, [[y, z]], [np.nan_to_num(y), z], content=content, network="Block", file="block.tflite",
        arguments="--num_runs=7 --warmup_runs 2 --num_threads=4 --no_fuse --top=20",
    )  # fmt: skip
    found = answer["json"]
    for key, value in {
        "schema": 1, "status": "ok", "network": "Block", "file": "block.tflite", "bytes": len(content),
        "implementation": "neon", "num_threads": 4, "fuse": False, "warmup_runs": 2, "num_runs": 7, "load_ms": 12.5,
        "lce_operators": len(custom_operators(content)), "app_version": "0.2.0", "tflite_version": "2.16.1",
        "thermal": {"before": 1, "after": 2}, "device": {"model": 'a phone, "new"'},
    }.items():  # fmt: skip
        assert found[key] == value, key
    assert len(found["runs_ms"]) == 7 and min(found["runs_ms"]) > 0 and found["first_ms"] > 0
    expected = [*np.percentile(found["runs_ms"], (10, 50, 90)), min(found["runs_ms"])]
    assert [found[f"{name}_ms"] for name in ("p10", "median", "p90", "min")] == expected
    assert found["native_ms"] == 0.5 * (1 + 2 + 4)  # Half a millisecond more each run: the median of the timed ones.
    assert found["agreement"]["verdict"] == "differs" and found["agreement"]["max_difference"] is None
    # The largest outputs as lce-run has them, but that JSON has no NaN.
    assert found["top"] == found["outputs"][0]["top"]
    for output, values in zip(found["outputs"], (y, z), strict=True):
        right = run._largest(values[0], 20, names)
        assert output["top"] == [
            {**entry, "value": None} if entry["value"] != entry["value"] else entry for entry in right
        ]
        assert output["shape"] == list(values.shape)
    assert [entry["index"] for entry in found["top"]][:2] == [3, 5]
    rows = [line for line in answer["csv"].splitlines() if not line.startswith("#")]
    assert [(int(row["run"]), float(row["ms"])) for row in csv.DictReader(rows)] == list(
        enumerate(found["runs_ms"], start=1)
    )
    assert "# network: Block" in answer["csv"] and "# num_threads: 4" in answer["csv"] and "a phone" in answer["csv"]


def test_json_has_the_keys_of_lce_run(java, tmp_path, capsys):
    (tmp_path / "block.tflite").write_bytes(originals.block())
    assert run.main([str(tmp_path / "block.tflite"), "--json", "--num_runs=2"]) == 0
    expected = json.loads(capsys.readouterr().out)
    found = benchmark(java, [[np.zeros((1, 10))]], content=originals.block())["json"]
    # The app has one engine, and keys of its own for the phone.
    assert expected.keys() - {"engine", "machine"} <= found.keys() and "device" in found
    assert expected["outputs"][0].keys() == found["outputs"][0].keys()
    assert expected["top"][0].keys() == found["top"][0].keys()
    assert found["agreement"]["verdict"] == "no reference"


def test_classes_that_fit_no_output(java):
    content = attach(originals.block(), {"classes": ["a", "b", "c"]})
    error = benchmark(java, [[np.zeros((1, 10)), np.zeros((1, 5))]], content=content)["error"]
    expected = "should name 10 or 5 classes, one for each number of an output, found 3 names."
    assert expected in error
    # A map of scores has names for its last axis.
    assert "class" not in benchmark(java, [[np.zeros((1, 4, 3))]], content=content)["json"]["top"][0]
    wrong = attach(originals.block(), {"classes": [1, 2]})
    assert "expected a list of names" in benchmark(java, [[np.zeros((1, 2))]], content=wrong)["error"]


def test_comparison(java):
    right = np.float32([[1, 2, 3]])
    almost = np.nextafter(right, np.float32(9))
    for outputs, equal, verdict in (
        ([right, right], [True, True], "agrees"),
        ([almost, right], [False, True], "differs"),
        ([right + 1, right + 1], [True, True], "differs"),
    ):
        answer = benchmark(java, [[y] for y in outputs], [right], ("neon", "portable"), network="a, b")
        found = answer["json"]
        assert (found["status"], found["verdict"]) == ("ok", verdict)
        assert found["device"] and found["tflite_version"] == "2.16.1"
        assert [row["equals_portable"] for row in found["compare"]] == equal
        rows = list(csv.DictReader(line for line in answer["csv"].splitlines() if not line.startswith("#")))
        for row, result in zip(rows, found["compare"], strict=True):
            assert (row["network"], row["implementation"]) == ("a, b", result["implementation"])
            assert float(row["median_ms"]) == np.median(result["runs_ms"]) and result["thermal"]["after"] == 2
            assert row["verdict"] == result["agreement"]["verdict"]
            assert row["equals_portable"] == str(result["equals_portable"]).lower()
    alone = benchmark(java, [[right], [right]], None, ("neon", "avx2"))["json"]
    assert alone["verdict"] == "no reference" and alone["compare"][0]["equals_portable"] is None


def test_reference(java):
    rng = np.random.default_rng(6)
    outputs = [rng.normal(size=n).astype(np.float32) for n in (10, 3)]
    entries = [{"name": "y", "shape": [1, len(y)], "values": y.tolist()} for y in outputs]
    good = {"schema": 1, "inputs": "lowbias32", "outputs": entries, "runtime": "larq-rep-runtime 0.2.0"}
    (found,) = java("reference", json=json.dumps(good))["outputs"]
    for x, y in zip(found, outputs, strict=True):
        np.testing.assert_array_equal(np.float32(x), y)
    more = {**good, "further": [[[1, 2], [3]], [[4, 5], [6]]]}
    assert java("reference", json=json.dumps(more))["outputs"][1:] == more["further"]
    for text in ("", "[]", "{", json.dumps({**good, "schema": 2}), json.dumps({**good, "inputs": "other"}),
                 json.dumps({**good, "further": [[[1]]]}), json.dumps({**good, "further": 1}),
                 json.dumps({**good, "outputs": 3}), json.dumps({**good, "outputs": [{"values": ["x"]}]})):  # fmt: skip
        assert "r.json" in java("reference", json=text)["error"]


def test_catalog(java):
    networks = [
        {"name": name, "file": f"{name}.tflite", "reference": "r.json", "bytes": 1, "macs": 2, "binary_macs": 1,
         "trained": True, "data": None, "note": "n"}
        for name in ("ResNet20", "RepResNet20")
    ]  # fmt: skip
    text = json.dumps({"schema": 1, "networks": networks})
    assert java("catalog", json=text) == {"file": "ResNet20.tflite", "count": 2}
    assert java("catalog", json=text, name="represnet20")["file"] == "RepResNet20.tflite"
    assert "Did you mean ResNet20?" in java("catalog", json=text, name="ResNet02")["error"]
    assert "Did you mean" not in java("catalog", json=text, name="/sdcard/x.tflite")["error"]
    for damaged in ("", "{}", '{"schema":1,"networks":[]}', '{"schema":1,"networks":[{"name":"a"}]}'):
        assert "Build the app again" in java("catalog", json=damaged)["error"]


def test_lines_of_the_log(java):
    rng = np.random.default_rng(7)
    letters = ["a", "ß", "€", "😀", " ", '"']
    for length in (0, 1, 3900, 3980, 3990, 3991, 3992, 3993, 3994, 4000, 12_345, 60_000, 500_000):
        for name in ("r.json", "größe 😀.json", "n" * 200):
            text = "".join(rng.choice(letters[: rng.integers(1, 7)], length))
            lines = java("lines", name=name, text=text)["lines"]
            parts = [line.encode() for line in lines]
            assert max(map(len, parts)) < 4000
            # No more lines than are needed: a letter has at most 4 bytes, a number at most 3 digits.
            assert all(len(part) > 4000 - 10 for part in parts[:-1])
            matches = [re.fullmatch(rf"{re.escape(name)} (\d+)/(\d+) (.*)", line, re.DOTALL) for line in lines]
            assert "".join(match[3] for match in matches) == text
            assert [(int(match[1]), int(match[2])) for match in matches] == [
                (i + 1, len(lines)) for i in range(len(lines))
            ]


# The engine


def measured(engine, content, reference=None, implementations=(None, "portable"), arguments="--num_runs=2"):
    values = {"reference": [encode(y) for y in reference]} if reference else {}
    content = base64.b64encode(content).decode()
    return engine("benchmark", content=content, implementations=implementations, arguments=arguments, **values)


def outputs_of(content):
    interpreter = Interpreter(content)
    return interpreter.invoke([generated(detail["shape"]) for detail in interpreter.inputs])


def with_a_fault(content):
    """The file with one other byte: the largest number of its largest float32 weights has the other sign."""
    model = graphs.schema.ModelT.InitFromPackedBuf(content, 0)
    tensors = [tensor for tensor in model.subgraphs[0].tensors if tensor.type == graphs.schema.TensorType.FLOAT32]
    data = [model.buffers[tensor.buffer].data for tensor in tensors]
    weights = max((bytes(one) for one in data if one is not None), key=len)
    place = content.index(weights) + 4 * int(np.abs(np.frombuffer(weights, np.float32)).argmax()) + 3
    return content[:place] + bytes([content[place] ^ 0x80]) + content[place + 1 :]


@pytest.mark.parametrize("threads", [1, 4])
def test_engine(engine, files, threads):
    """The desktop's outputs, equal bit for bit by both implementations; one byte of a weight makes it differ."""
    content = files["network"]
    reference = outputs_of(content)
    found = measured(engine, content, reference, arguments=f"--num_runs=3 --num_threads={threads}")["json"]
    assert found["verdict"] == "agrees" and all(row["equals_portable"] for row in found["compare"])
    best, portable = found["compare"]
    assert portable["implementation"] == "portable" != best["implementation"]
    assert best["num_threads"] == threads and best["load_ms"] > 0 and 0 < best["native_ms"] <= best["median_ms"]
    right = np.argsort(-reference[0][0])[:5]
    assert [entry["index"] for entry in best["top"]] == right.tolist()
    faulty = measured(engine, with_a_fault(content), reference)["json"]
    assert faulty["verdict"] == "differs" and all(row["equals_portable"] for row in faulty["compare"])


def packed(model):
    graph = graphs.Graph()
    graph.model, graph.graph = model, model.subgraphs[0]
    return graph.content(*graph.graph.outputs)


def test_damaged_files_in_the_engine(class_path, built, files):
    """Refused in words or run: no file ends the process, and none takes a minute."""
    rng = np.random.default_rng(8)
    cases = []
    for content in files.values():
        model = graphs.schema.ModelT.InitFromPackedBuf(content, 0)
        for operator in model.subgraphs[0].operators:
            inputs = list(operator.inputs)
            for i in range(len(inputs)):
                operator.inputs = [*inputs[:i], -1, *inputs[i + 1 :]]
                cases.append(packed(model))
            operator.inputs = inputs
    cases += [damaged(rng, list(files.values())[i % len(files)]) for i in range(1000)]
    refused = 0
    with native_machine(class_path, built) as ask:
        for case in cases:
            refused += "error" in measured(ask, case, implementations=[None], arguments="--num_runs=1 --warmup_runs=0")
    assert 300 < refused < len(cases)


@pytest.mark.parametrize("name", ["ResNet20", "RepResNet20", "RepReActNetA"])
def test_a_bit_of_a_binary_weight_differs_in_json_and_in_the_exit_code(
    engine, built, name, tmp_path, monkeypatch, capsys
):
    """One bit of the first, a middle and the last layer of each bundled network, against the reference in the APK."""
    from larq_rep.converters.flatbuffer import Flatbuffer  # Imports TensorFlow, in the right order.

    with zipfile.ZipFile(built("larq-rep-benchmark.apk")) as apk:
        content, text = (apk.read(f"assets/{name}.{ending}") for ending in ("tflite", "reference.json"))
    flatbuffer = Flatbuffer(content)
    filters = [flatbuffer.constant(op.inputs[1]).tobytes() for op in flatbuffer.operators if op.name == "LceBconv2d"]
    starts = [content.index(weights) for weights in filters]
    half = len(filters) // 2
    places = [starts[0], starts[half] + len(filters[half]) // 2, starts[-1] + len(filters[-1]) - 1]
    file = tmp_path / f"{name}.tflite"
    for place, verdict, code in [(None, "agrees", 0), *((place, "differs", 1) for place in places)]:
        changed = bytearray(content)
        if place is not None:
            changed[place] ^= 1 << place % 8
        file.write_bytes(changed)
        request = {"path": str(file), "reference_json": text.decode(), "network": name, "arguments": "--num_runs=1"}
        found = engine("benchmark", implementations=[None], **request)["json"]
        assert found["agreement"]["verdict"] == verdict and found["agreement"]["inputs"] == 8, place
        monkeypatch.setattr(run_on_device, "run", lambda arguments, found=found: found)
        assert run_on_device.main([]) == code
        assert name in capsys.readouterr().out


def test_engine_without_operators_of_lce(engine):
    graph = graphs.Graph()
    y = graph.add("RELU", [graph.input((1, 4))], (1, 4))
    found = measured(engine, graph.content(y), [np.maximum(generated((1, 4)), 0)])["json"]
    assert found["verdict"] == "agrees" and found["compare"][0]["lce_operators"] == 0


def test_engine_says_what_is_wrong(engine):
    block = originals.block()
    error = measured(engine, block, implementations=["sse9"])["error"]
    assert error.startswith("The delegate refuses the options: ") and "'sse9'" in error and "portable" in error
    graph = graphs.Graph()
    y = graph.add("LceUnknown", [graph.input((1, 4))], (1, 4), options={})
    assert "n.tflite needs the operator LceUnknown, which neither" in measured(engine, graph.content(y))["error"]
    assert "n.tflite is damaged or cut off" in measured(engine, block[:-1000])["error"]
    graph = graphs.Graph()
    y = graph.add("RELU", [graph.input((1, 4))], (1, 4))
    graph.model.version = 2
    assert measured(engine, graph.content(y))["error"].startswith("TFLite does not run n.tflite: ")
