"""Checks of LiteRT's CompiledModel against its interpreter: compiled.py CHECK FOLDER, with the files of test_litert.py.

A program of its own, for the environments of other versions of LiteRT.
"""

import gc
import itertools
import json
import os
import resource
import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.compiled_model import CompiledModel
from ai_edge_litert.options import CpuOptions, HardwareAccelerator, Options
from larq_rep_runtime import DelegateError, Interpreter, litert_environment
from larq_rep_runtime.messages import captured_stderr
from larq_rep_runtime.profile import random_inputs

FOLDER = Path(sys.argv[2])
REFUSED = {
    "damaged": "operator 1 (LceBconv2d): its options lack 'stride_height'",
    "unknown": "unresolved custom op: XceBconv2d",
    "input": "no outputs that are inputs",
}


def same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape, (one, other)
        assert one.tobytes() == other.tobytes(), np.abs(one.astype(float) - other).max()


def create(file, environment, threads=1):
    options = Options(HardwareAccelerator.CPU, CpuOptions(num_threads=threads))
    return CompiledModel.from_file(str(FOLDER / file), environment=environment, options=options)


def run(model, *arrays):
    """Outputs as flat float32."""
    inputs, outputs = model.create_input_buffers(0), model.create_output_buffers(0)
    for buffer, array in zip(inputs, arrays, strict=True):
        buffer.write(array)
    model.run_by_index(0, inputs, outputs)
    sizes = [model.get_output_buffer_requirements(i)["buffer_size"] // 4 for i in range(len(outputs))]
    return [buffer.read(size, np.float32) for buffer, size in zip(outputs, sizes, strict=True)]


def networks():
    """The interpreter's bits, with one, two and four threads, and for a batch by resizing."""
    for file in sorted(FOLDER.glob("*.tflite")):
        if file.stem in REFUSED:
            continue
        interpreter = Interpreter(file)
        inputs = random_inputs(interpreter.inputs)
        expected = interpreter.invoke(inputs)
        for threads in (1, 2, 4):
            compiled = Interpreter(file, threads, engine="compiled")
            for one, other in zip(
                compiled.inputs + compiled.outputs, interpreter.inputs + interpreter.outputs, strict=True
            ):
                assert all(np.array_equal(one[key], other[key]) for key in ("name", "index", "shape", "dtype"))
                assert one["quantization"] == other["quantization"]
            same(compiled.invoke(inputs), expected)
        batch = [np.concatenate([array, array[..., ::-1], array]) for array in inputs]
        same(compiled.invoke(batch), interpreter.invoke(batch))
        same(compiled.invoke(inputs), expected)


def profiles(environment, threads=1):
    """What the delegate reports of a model: threads, implementation, number of steps."""
    with captured_stderr() as lines:
        model = create("pooled.tflite", environment, threads)
        run(model, np.load(FOLDER / "x.npy"))
        del model
        gc.collect()
    found = [json.loads(line.split(": ", 1)[1]) for line in lines if line.startswith("larq-rep profile: ")]
    return {(part["threads"], part["implementation"], len(part["steps"])) for part in found}


def options():
    """Threads are the model's where the delegate is not told; each environment has its own options."""
    plain = litert_environment(profile=True, implementation="portable")
    ((_, _, steps),) = profiles(plain)
    assert [profiles(plain, threads) for threads in (0, 2, 4, 100)] == [
        {(threads, "portable", steps)} for threads in (1, 2, 4, 64)
    ]
    told = litert_environment(profile=True, implementation="portable", num_threads=3, fuse=False)
    ((threads, _, unfused),) = profiles(told, 2)
    assert threads == 3 and unfused < steps
    assert profiles(plain, 2) == {(2, "portable", steps)} and not profiles(litert_environment(), 2)
    os.environ["LARQ_REP_NUM_THREADS"] = "5"
    assert profiles(plain, 2) == {(5, "portable", steps)} and profiles(told, 2) == {(3, "portable", unfused)}
    for given, words in (({"implementation": "mmx"}, "'mmx' is not among"), ({"num_threads": 65}, "found '65'")):
        try:
            litert_environment(**given)
        except DelegateError as error:
            assert words in str(error), error
        else:
            raise AssertionError(f"took {given}")


def order():
    """The delegate takes the pooling, as it stands before XNNPACK, which rounds it otherwise."""
    x, expected = np.load(FOLDER / "x.npy"), np.load(FOLDER / "pooled.npy").reshape(-1)
    found, _ = run(create("pooled.tflite", litert_environment()), x)
    by_xnnpack, _ = run(create("pooled.tflite", litert_environment(fuse=False)), x)
    assert np.array_equal(found, expected) and not np.array_equal(by_xnnpack, expected)


def damaged():
    """Fails with the reason, and the environment goes on."""
    environment = litert_environment()
    with captured_stderr() as lines:
        try:
            create("damaged.tflite", environment)
        except RuntimeError:
            pass
        else:
            raise AssertionError("loaded")
    assert any(REFUSED["damaged"] in line for line in lines), lines
    same(run(create("network.tflite", environment), np.load(FOLDER / "x.npy")), [np.load(FOLDER / "y.npy").reshape(-1)])
    for name, reason in REFUSED.items():
        try:
            Interpreter(FOLDER / f"{name}.tflite", engine="compiled")
        except DelegateError as error:
            assert f"{name}.tflite" in str(error) and reason in str(error) and "\n" not in str(error), error
        else:
            raise AssertionError("loaded")


def types():
    """Refuses an input of another type, whose bytes LiteRT would take."""
    interpreter, x = Interpreter(FOLDER / "network.tflite", engine="compiled"), np.load(FOLDER / "x.npy")
    for dtype in (np.int32, np.uint8, np.float64):
        try:
            interpreter.invoke([x.astype(dtype)])
        except DelegateError as error:
            assert f"should be float32, found {np.dtype(dtype)}" in str(error), error
        else:
            raise AssertionError("ran")


def two_models():
    """Models in one environment run in turns, and live as long as they like."""
    environment = litert_environment(num_threads=2)
    x, y = np.load(FOLDER / "x.npy"), np.load(FOLDER / "y.npy").reshape(-1)
    first, second, real = (create(f"{name}.tflite", environment) for name in ("network", "pooled", "real"))
    pooled, other = run(second, x), run(real, x)
    for _ in range(3):
        same(run(first, x), [y])
        same(run(second, x), pooled)
        same(run(real, x), other)
    del second, environment
    gc.collect()
    same(run(first, x), [y])


def cycles():
    """Memory stays flat over cycles of creating, running and destroying."""
    environment, x = litert_environment(num_threads=2), np.load(FOLDER / "x.npy")
    memory = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()  # noqa: E731
    count = int(sys.argv[3])
    for i in itertools.count():
        if i == 200:
            before = memory()
        if i == 200 + count:
            break
        run(create("network.tflite", environment), x)
    assert memory() - before < 2_000_000, memory() - before
    before = memory()
    for _ in range(count // 10):
        litert_environment()
    assert memory() - before < 2_000_000, memory() - before


globals()[sys.argv[1]]()
