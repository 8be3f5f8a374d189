"""The library itself: what it exports, how long it lives, and what it says to bad options and files."""

import ctypes
import gc
import os
import re
import resource
import subprocess
import sys
import threading
from pathlib import Path

import graphs
import larq_rep_runtime
import numpy as np
import pytest
import tensorflow as tf
from flatbuffers import flexbuffers
from larq_rep_runtime import DelegateError, Interpreter, available_implementations, delegate_path

from larq_rep.converters import lce

ERRORS = ctypes.CFUNCTYPE(None, ctypes.c_char_p)


def create(options, errors=None):
    """A delegate as TFLite's plugin interface makes it, as an address or None."""
    library = ctypes.CDLL(delegate_path())
    library.tflite_plugin_create_delegate.restype = ctypes.c_void_p
    library.tflite_plugin_destroy_delegate.argtypes = [ctypes.c_void_p]
    strings = ctypes.c_char_p * max(len(options), 1)
    keys, values = strings(*map(str.encode, options)), strings(*map(str.encode, options.values()))
    return library, library.tflite_plugin_create_delegate(keys, values, ctypes.c_size_t(len(options)), errors)


def symbols(*arguments):
    listing = subprocess.run(["nm", "-D", *arguments, delegate_path()], capture_output=True, text=True, check=True)
    return [line.split()[-1] for line in listing.stdout.splitlines()]


def test_exports_what_tflite_and_litert_look_for():
    plugin = {"tflite_plugin_create_delegate", "tflite_plugin_destroy_delegate"}
    accelerator = {"LiteRtAcceleratorImpl", "larq_rep_litert_asked", "larq_rep_litert_install"}
    assert set(symbols("--defined-only")) == plugin | accelerator


def test_imports_nothing_but_libc_libm_and_pthread():
    weak = {"__cxa_finalize", "__gmon_start__", "_ITM_deregisterTMCloneTable", "_ITM_registerTMCloneTable"}
    needed = {symbol for symbol in symbols("--undefined-only") if symbol.partition("@")[0] not in weak}
    assert needed and all("@GLIBC_" in symbol for symbol in needed), needed
    names = {symbol.partition("@")[0] for symbol in needed}
    # No network, no way to end the process, and no file but what Linux tells of the cache.
    assert not names & {"openat", "fopen", "fopen64", "socket", "connect", "abort", "exit", "_exit", "system"}
    paths = re.findall(rb"/(?:sys|proc|dev|etc|tmp|var|home|data)/[ -~]*", Path(delegate_path()).read_bytes())
    assert paths == [b"/sys/devices/system/cpu/cpu0/cache/index%d/%s"]


def memory():
    """Bytes in use, not the most that ever were."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_create_and_destroy_ten_thousand_times():
    def cycle(count):
        for _ in range(count):
            library, delegate = create({"num_threads": "2"})
            assert delegate
            library.tflite_plugin_destroy_delegate(delegate)

    cycle(200)
    before = memory()
    cycle(10_000)
    assert memory() - before < 2_000_000


def test_destroys_nothing():
    library, _ = create({})
    library.tflite_plugin_destroy_delegate(None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"implementation": "mmx"}, ["'mmx'", "portable"]),
        ({"num_threads": "many"}, ["num_threads", "'many'", "64"]),
        ({"num_threads": "-1"}, ["num_threads", "'-1'"]),
        ({"num_threads": "2x"}, ["'2x'"]),
        ({"cache_kb": "1M"}, ["cache_kb", "'1M'"]),
        ({"profile": "yes"}, ["profile", "'yes'"]),
        ({"threads": "2"}, ["'threads'", "num_threads", "implementation"]),
        ({"x" * 5000: "y" * 5000}, ["xxx"]),
    ],
)
def test_refuses_bad_options(options, words):
    messages = []
    report = ERRORS(lambda text: messages.append(text.decode()))
    _, delegate = create(options, report)
    assert delegate is None and len(messages) == 1
    assert all(word in messages[0] for word in words), messages
    assert create(options)[1] is None  # nobody to tell it
    with pytest.raises(ValueError, match="larq-rep"):
        tf.lite.experimental.load_delegate(delegate_path(), options)


@pytest.mark.skipif("amx" in available_implementations(), reason="this processor has AMX")
def test_says_why_there_is_no_amx():
    messages = []
    _, delegate = create({"implementation": "amx"}, ERRORS(lambda text: messages.append(text.decode())))
    assert delegate is None and "'amx'" in messages[0]
    if "avx512" in available_implementations():
        assert "no AMX int8" in messages[0] or "no GFNI" in messages[0] or "Linux refuses AMX" in messages[0]


def test_options_from_the_environment(monkeypatch):
    code = "import larq_rep_runtime as r, sys; r.Interpreter(sys.stdin.buffer.read())"
    graph = graphs.Graph()
    content = graph.content(graph.quantize(graph.input((1, 2, 2, 32))))
    path = os.pathsep.join([str(Path(larq_rep_runtime.__file__).parents[1]), *sys.path])
    environment = {**os.environ, "LARQ_REP_IMPLEMENTATION": "mmx", "PYTHONPATH": path}
    result = subprocess.run([sys.executable, "-c", code], input=content, capture_output=True, env=environment)
    assert result.returncode != 0 and b"'mmx' is not among the implementations" in result.stderr


def convolution(**changes):
    """A file with one binary convolution, whose options are changed; None takes one away."""
    graph = graphs.Graph()
    rng = np.random.default_rng(0)
    y = graph.bconv(graph.quantize(graph.input((1, 6, 6, 64))), rng, 64, 32)
    op = graph.graph.operators[1]
    options = flexbuffers.Loads(bytes(op.customOptions))
    for key, value in changes.items():
        options[key] = value
    op.customOptions = np.frombuffer(
        flexbuffers.Dumps({key: value for key, value in options.items() if value is not None}), np.uint8
    )
    return graph, y


def refused(content, capfd):
    capfd.readouterr()
    with pytest.raises((RuntimeError, ValueError)) as error:
        graphs.interpreter(content)
    return str(error.value) + capfd.readouterr().err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stride_height": None}, ["operator 1 (LceBconv2d)", "'stride_height'"]),
        ({"stride_width": 0}, ["operator 1 (LceBconv2d)", "'stride_width'", "found 0"]),
        ({"padding": 7}, ["'padding'", "0 to 1", "found 7"]),
        ({"fused_activation_function": -1}, ["'fused_activation_function'", "found -1"]),
        ({"dilation_height_factor": 2**40}, ["'dilation_height_factor'", str(2**40)]),
        ({"channels_in": 65}, ["LceBconv2d", "tensor1", "ceil(channels_in / 32) words"]),
        ({"channels_in": "many"}, ["'channels_in'"]),
        (
            {"fused_activation_function": 1},
            ["operator 1 (LceBconv2d)", "no fused activation with zero padding, found 1"],
        ),
    ],
)
def test_names_the_operator_and_its_bad_option(changes, words, capfd):
    graph, y = convolution(**changes)
    message = refused(graph.content(y), capfd)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("position", "value", "word"),
    [
        (2, np.ones((1, 32), np.float32), "rank 1"),
        (2, np.ones(31, np.float32), "a value for each output channel, found 31"),
        (3, np.ones(32, np.int32), "type 1 (float32), found 2"),
        (3, -1, "a multiplier and a bias"),
        (1, np.zeros((32, 3, 3, 3), np.int32), "filter words that divide"),
        (1, np.zeros((31, 3, 3, 2), np.int32), "the filter's output channels"),
        (1, np.zeros((32, 3, 6), np.int32), "a filter of rank 4"),
    ],
)
def test_names_the_operator_and_its_bad_tensor(position, value, word, capfd):
    graph, y = convolution()
    graph.graph.operators[1].inputs[position] = value if np.ndim(value) == 0 else graph.constant(value)
    message = refused(graph.content(y), capfd)
    assert "operator 1 (LceBconv2d)" in message and "tensor" in message and word in message, message


@pytest.mark.parametrize(("position", "count"), [(0, "one input"), (1, "5 inputs")])
def test_an_input_too_many(position, count, capfd):
    graph, y = convolution()
    graph.graph.operators[position].inputs.append(0)
    message = refused(graph.content(y), capfd)
    assert f"operator {position} (Lce" in message and f"expected {count} and one output" in message, message


def test_a_constant_of_more_bytes_than_its_shape_says():
    graph, y = convolution()
    alone = graph.constant(np.float32([3]))
    content = graph.content(graph.elementwise("SUB", y, alone))
    graph.model.buffers[graph.graph.tensors[alone].buffer].data = np.arange(12, dtype=np.float32).view(np.uint8)
    longer = graph.content(*graph.graph.outputs)
    x = np.random.default_rng(0).normal(size=(1, 6, 6, 64)).astype(np.float32)
    # The first of the numbers is 0 now, so that the difference is 3.
    np.testing.assert_allclose(graphs.run(longer, x)[0], graphs.run(content, x)[0] + 3, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(graphs.run(longer, x)[0], graphs.run(longer, x, fuse=0)[0])


@pytest.mark.parametrize("taken", [0, 1])
def test_operators_out_of_order(taken, capfd):
    graph = graphs.Graph()
    x = graph.input((1, 6, 6, 64))
    y = graph.elementwise("ADD", graph.bconv(graph.quantize(x), np.random.default_rng(0), 64, 64), x)
    z = graph.elementwise("MUL", y, x)
    graph.graph.operators[taken].inputs[0 if taken == 0 else 4] = y
    message = refused(graph.content(z), capfd)
    assert f"operator {taken} reads tensor {y} 'tensor{y}' before operator 2 writes it" in message, message


@pytest.mark.parametrize(("tensor", "words"), [("constant", "is a constant"), ("other", "a later one writes too")])
def test_tensors_written_twice(tensor, words, capfd):
    graph = graphs.Graph()
    x = graph.input((1, 6, 6, 64))
    y = graph.bconv(graph.quantize(x), np.random.default_rng(0), 64, 64)
    written = graph.constant(np.zeros((1, 6, 6, 64), np.float32)) if tensor == "constant" else y
    graph.elementwise("MUL", x, x)
    graph.graph.operators[-1].outputs = [written]
    message = refused(graph.content(y), capfd)
    assert f"writes tensor {written} 'tensor{written}', which {words}" in message, message


def test_a_window_larger_than_the_image(capfd):
    graph = graphs.Graph()
    x = graph.input((1, 2, 9, 32))
    y = graph.bconv(graph.quantize(x), np.random.default_rng(0), 32, 8, padding=1)
    message = refused(graph.content(y), capfd)
    assert "LceBconv2d" in message


def test_two_interpreters_share_one_delegate():
    rng = np.random.default_rng(0)
    contents, inputs, expected = [], [], []
    for channels in (64, 96):
        graph = graphs.Graph()
        y = graph.bconv(graph.quantize(graph.input((1, 20, 20, channels))), rng, channels, 32)
        contents.append(graph.content(y))
        inputs.append(rng.normal(size=(1, 20, 20, channels)).astype(np.float32))
        expected.append(graphs.run(contents[-1], inputs[-1], implementation="portable")[0])
    delegate = tf.lite.experimental.load_delegate(delegate_path(), {"num_threads": "3"})
    engines = []
    for content in contents:
        engine = tf.lite.Interpreter(model_content=content, experimental_delegates=[delegate])
        engine.allocate_tensors()
        engines.append(engine)
    wrong = []

    def work(engine, x, y):
        for _ in range(100):
            engine.set_tensor(engine.get_input_details()[0]["index"], x)
            engine.invoke()
            if not np.array_equal(engine.get_tensor(engine.get_output_details()[0]["index"]), y):
                wrong.append(1)

    workers = [
        threading.Thread(target=work, args=arguments) for arguments in zip(engines, inputs, expected, strict=True)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_interpreters_leave_no_memory_behind():
    graph, y = convolution()
    content = graph.content(y)
    x = np.zeros((1, 6, 6, 64), np.float32)

    def cycle(count):
        for _ in range(count):
            graphs.run(content, x, 2)
        gc.collect()
        return memory()

    before = cycle(100)
    assert cycle(1000) - before < 10_000_000


def test_in_a_forked_process(tmp_path):
    """The child has no workers: it starts its own, and does not wait for those of its parent."""
    rng = np.random.default_rng(0)
    graph = graphs.Graph()
    file = tmp_path / "file.tflite"
    file.write_bytes(graph.content(graph.bconv(graph.quantize(graph.input((1, 40, 40, 64))), rng, 64, 64)))
    code = f"""
import os, signal
import numpy as np
from larq_rep_runtime import Interpreter
x = np.random.default_rng(0).normal(size=(1, 40, 40, 64)).astype(np.float32)
interpreter = Interpreter({str(file)!r}, num_threads=2)
expected = interpreter.predict(x)
child = os.fork()
signal.alarm(20)
same = (interpreter.predict(x) == expected).all()
del interpreter
if child == 0:
    os._exit(0 if same else 3)
assert same and os.waitpid(child, 0)[1] == 0
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


def test_a_tile_of_no_channels():
    graph = graphs.Graph()
    y = graph.tile(graph.input((1, 4, 4, 0)), 4)
    graphs.interpreter(graph.content(y))


def test_a_filter_that_is_filled_with_one_value():
    """As LCE's converter writes filters whose weights are all alike."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 6, 6, 64)).astype(np.float32)
    outputs = []
    for filled in (False, True):
        graph = graphs.Graph()
        bits = graph.quantize(graph.input((1, 6, 6, 64)))
        if filled:
            dims, word = graph.constant(np.int32([32, 3, 3, 2])), graph.constant(np.int32(0x0F0F))
            filter_ = graph.add("FILL", [dims, word], (32, 3, 3, 2), np.int32)
        else:
            filter_ = graph.constant(np.full((32, 3, 3, 2), 0x0F0F, np.int32))
        y = graph.bconv(bits, np.random.default_rng(1), 64, 32)
        graph.graph.operators[-1].inputs[1] = filter_
        content = graph.content(y)
        outputs += [graphs.run(content, x, fuse=fuse)[0] for fuse in (0, 1)]
        outputs.append(lce.any_interpreter(content).predict(x))
    for output in outputs[1:]:
        np.testing.assert_array_equal(output, outputs[0])


def test_interpreter_of_the_package(tmp_path):
    rng = np.random.default_rng(0)
    graph = graphs.Graph()
    y = graph.bconv(graph.quantize(graph.input((1, 6, 6, 64))), rng, 64, 32)
    content = graph.content(y)
    x = rng.normal(size=(4, 6, 6, 64)).astype(np.float32)
    expected = np.concatenate([graphs.run(content, image[None])[0] for image in x])
    file = tmp_path / "file.tflite"
    file.write_bytes(content)
    for model in (file, str(file), content):
        np.testing.assert_array_equal(Interpreter(model, num_threads=2).predict(x), expected)
    interpreter = Interpreter(content)
    with pytest.raises(ValueError, match=r"'tensor0' should have the shape \('N', 6, 6, 64\).*found \(1, 6, 6, 32\)"):
        interpreter.predict(x[:1, ..., :32])
    with pytest.raises(ValueError, match="should be float32, found float64"):
        interpreter.predict(x.astype(np.float64))
    with pytest.raises(ValueError, match="1 inputs, found 2"):
        interpreter.predict([x, x])
    with pytest.raises(DelegateError, match="'mmx' is not among the implementations of this processor: .*portable"):
        Interpreter(content, implementation="mmx")
    with pytest.raises(DelegateError, match="num_threads should be at least 1, found 0"):
        Interpreter(content, num_threads=0)
    with pytest.raises(DelegateError, match="TFLite does not run the given bytes"):
        Interpreter(b"nothing")
    with pytest.raises(FileNotFoundError):
        Interpreter(tmp_path / "no.tflite")


def test_says_that_the_library_was_not_built(monkeypatch, tmp_path):
    monkeypatch.setattr(larq_rep_runtime.library, "__file__", str(tmp_path / "library.py"))
    with pytest.raises(DelegateError, match="was not built.*C compiler"):
        delegate_path()


def test_portable_is_always_there():
    assert available_implementations()[-1] == "portable"


@pytest.mark.parametrize("quantization", [None, (0.0, 3), (-0.1, -7)])
def test_the_sign_of_int8_needs_no_scale(quantization):
    """As LCE: numbers below the zero point, which is 0 where the file gives none, are negative."""
    graph = graphs.Graph()
    bits = graph.quantize(graph.input((1, 2, 4, 32), np.int8, quantization))
    content = graph.content(graph.add("LceDequantize", [bits], (1, 2, 4, 32)))
    x = np.arange(-128, 128, dtype=np.int8).reshape(1, 2, 4, 32)
    zero_point = quantization[1] if quantization else 0
    np.testing.assert_array_equal(graphs.run(content, x)[0], np.where(x < zero_point, -1, 1))
    np.testing.assert_array_equal(lce.any_interpreter(content).predict(x), np.where(x < zero_point, -1, 1))


@pytest.mark.parametrize("name", ["LceDequantize", "LceBconv2d"])
def test_int8_results_need_a_scale(name, capfd):
    """LCE's LceBconv2d refuses the file, too; its LceDequantize divides by the scale."""
    graph = graphs.Graph()
    bits = graph.quantize(graph.input((1, 4, 4, 32)))
    if name == "LceDequantize":
        y = graph.add(name, [bits], (1, 4, 4, 32), np.int8)
    else:
        y = graph.bconv(bits, np.random.default_rng(0), 32, 32, pad_values=1, output="int8")
        graph.graph.tensors[y].quantization = None
    message = refused(graph.content(y), capfd)
    assert f"operator 1 ({name})" in message and "expected a positive scale, found 0" in message, message
