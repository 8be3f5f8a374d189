"""Damages .tflite files where the delegate reads them, and runs them in a process of its own.

    python mutations.py LIBRARY FOLDER FIRST COUNT SECONDS

runs COUNT mutations, beginning with number FIRST, of the files in FOLDER, but no longer than SECONDS. It prints the
number of each before it starts it, so that the last line names the one that ended the process. If FIRST is negative,
the files themselves are run.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

import larq_rep  # noqa: F401  (before TensorFlow: it chooses Keras 2)

# isort: split
import numpy as np
import tensorflow as tf
from flatbuffers import flexbuffers
from larq_compute_engine.mlir.python import tflite_schema as schema

from larq_rep.converters.flatbuffer import _Builder

SIZES = (-1, 0, 1, 2, 3, 4, 7, 8, 16, 31, 32, 33, 64, 100, 1 << 16, 2**31 - 1)
NUMBERS = (
    -1,
    0,
    1,
    2,
    3,
    4,
    5,
    7,
    31,
    32,
    33,
    64,
    65,
    1 << 10,
    16_000,
    1 << 15,
    (1 << 15) + 1,
    1 << 20,
    1 << 31,
    1 << 40,
)
FLOATS = (0.0, -0.0, -1.0, 1e-40, 1e6, np.nan)  # no infinity: TFLite's ADD makes it finite, XNNPACK's does not
SECONDS_OF_CASE = 20
MAX_ELEMENTS = 1 << 22  # of a file that is run; larger ones are only loaded


def name_of(model, op) -> str:
    code = model.operatorCodes[op.opcodeIndex]
    return (code.customCode or b"").decode("latin-1") if code.builtinCode == schema.BuiltinOperator.CUSTOM else ""


def neighbourhood(model):
    """LCE's operators, and those that share a tensor with one."""
    ops = model.subgraphs[0].operators
    lce = [op for op in ops if name_of(model, op).startswith("Lce")]
    tensors = {int(t) for op in lce for t in (*op.inputs, *op.outputs)}
    return lce, [op for op in ops if tensors & {int(t) for t in (*op.inputs, *op.outputs)}]


def change_bytes(data, rng) -> bytes:
    raw = bytearray(data)
    for _ in range(rng.integers(0, 4)):
        if raw:
            raw[rng.integers(len(raw))] = rng.integers(256)
    keep = rng.choice([0, 1, len(raw) // 2, max(len(raw) - 1, 0), len(raw), len(raw), len(raw)])
    return bytes(raw[:keep]) + bytes(int(rng.choice([0, 0, 0, 1, 16])))


def change_options(model, op, rng) -> None:
    """Of an LCE operator: bytes, or well-formed options with other numbers."""
    raw = b"" if op.customOptions is None else bytes(bytearray(op.customOptions))
    try:
        options = flexbuffers.Loads(raw)
    except Exception:  # bytes changed before
        options = None
    if not isinstance(options, dict) or rng.random() < 0.3:
        raw = change_bytes(raw, rng)
    else:
        for key in rng.permutation(list(options))[: rng.integers(1, 3)]:
            if rng.random() < 0.1:
                del options[key]
            else:
                options[key] = rng.choice(NUMBERS).item() if rng.random() < 0.9 else "?"
        raw = flexbuffers.Dumps(options)
    op.customOptions = np.frombuffer(raw, np.uint8) if raw else None


def change_builtin(model, op, rng) -> None:
    if op.builtinOptions is None or rng.random() < 0.1:
        op.builtinOptions, op.builtinOptionsType = None, 0
        return
    fields = [field for field, value in vars(op.builtinOptions).items() if type(value) is int]
    if fields:
        small = int(rng.integers(-1, 8))
        number = small if rng.random() < 0.8 else int(rng.choice([-(2**31), 2**31 - 1, 1 << 15]))
        field = str(rng.choice(fields))
        narrow = "Activation" in field or field == "padding"  # stored in a byte
        setattr(op.builtinOptions, field, small if narrow else number)


def change_code(model, op, rng) -> None:
    op.opcodeIndex = int(rng.integers(len(model.operatorCodes)))


def change_shape(model, tensor, rng) -> None:
    shape = [] if tensor.shape is None else [int(d) for d in tensor.shape]
    action = rng.integers(6)
    if action == 0 and shape:
        shape.pop(rng.integers(len(shape)))
    elif action == 1:
        shape.insert(rng.integers(len(shape) + 1), int(rng.choice(SIZES)))
    elif action == 2:
        shape = [int(d) for d in rng.choice(SIZES, rng.integers(0, 10))]
    elif shape:
        shape[rng.integers(len(shape))] = int(rng.choice(SIZES))
    tensor.shape = shape
    if rng.random() < 0.1:
        tensor.shapeSignature = [-1 if rng.random() < 0.5 else d for d in shape]


def change_type(model, tensor, rng) -> None:
    tensor.type = int(rng.integers(18))


def change_quantization(model, tensor, rng) -> None:
    tensor.quantization = schema.QuantizationParametersT()
    count = int(rng.choice([0, 1, 1, 1, 2]))
    tensor.quantization.scale = rng.choice(np.float32([*FLOATS, 0.1, 1.0]), count)
    tensor.quantization.zeroPoint = rng.choice(np.int64([-(2**40), -300, -128, 0, 3, 127, 2**31]), count)


def change_constant(model, tensor, rng) -> None:
    """Its bytes, its numbers or its buffer; a tensor that was computed gets one."""
    buffer = schema.BufferT()
    old = model.buffers[tensor.buffer].data
    data = b"" if old is None else np.asarray(old, np.uint8).tobytes()
    if tensor.type == schema.TensorType.FLOAT32 and rng.random() < 0.5 and len(data) % 4 == 0:
        values = np.frombuffer(data, np.float32).copy()
        values[rng.random(values.shape) < 0.3] = rng.choice(np.float32(FLOATS))
        data = values.tobytes()
    elif rng.random() < 0.2:
        tensor.buffer = int(rng.integers(len(model.buffers)))
        return
    else:
        data = change_bytes(data, rng)
    buffer.data = np.frombuffer(data, np.uint8)
    tensor.buffer = len(model.buffers)
    model.buffers.append(buffer)


def change_flags(model, tensor, rng) -> None:
    tensor.isVariable = not tensor.isVariable


def change_wiring(model, op, rng) -> None:
    count = len(model.subgraphs[0].tensors)
    inputs, outputs = [int(t) for t in op.inputs], [int(t) for t in op.outputs]
    chosen = int(
        rng.choice([-1, int(rng.integers(count)), int(rng.integers(count)), count if rng.random() < 0.1 else 0])
    )
    changed = inputs if rng.random() < 0.75 else outputs
    action = rng.integers(4)
    if action == 0 and changed:
        changed.pop(rng.integers(len(changed)))
    elif action == 1:
        changed.insert(rng.integers(len(changed) + 1), chosen)
    elif changed:
        changed[rng.integers(len(changed))] = chosen
    op.inputs, op.outputs = inputs, outputs


def change_graph(model, rng) -> None:
    """Inputs, outputs and order of the whole graph."""
    graph = model.subgraphs[0]
    tensor = int(rng.integers(len(graph.tensors)))
    action = rng.integers(5)
    if action == 0:
        graph.outputs = [*graph.outputs, tensor]
    elif action == 1:
        graph.outputs = [tensor]
    elif action == 2:
        # No constant: written to, it may lead TFLite's own operators out of their memory.
        if model.buffers[graph.tensors[tensor].buffer].data is None:
            graph.inputs = [*graph.inputs, tensor]
    elif action == 3:
        i, j = rng.integers(len(graph.operators), size=2)
        graph.operators[i], graph.operators[j] = graph.operators[j], graph.operators[i]
    else:
        graph.operators.insert(int(rng.integers(len(graph.operators) + 1)), rng.choice(graph.operators))
    model.signatureDefs = None


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """The file with one to three changes to what the delegate reads."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(bytearray(content), 0))
    # Few flags: TFLite's own operators crash on most variables, and the process has to start again.
    changes = ((change_shape, 8), (change_type, 4), (change_quantization, 4), (change_constant, 8), (change_flags, 1))
    of_tensors = [change for change, times in changes for _ in range(times)]
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        lce, near = neighbourhood(model)
        kind = rng.integers(10)
        if kind < 2 and lce:
            change_options(model, rng.choice(lce), rng)
        elif kind < 3:
            change_graph(model, rng)
        elif near:
            op = rng.choice(near)
            tensors = [int(t) for t in (*op.inputs, *op.outputs) if 0 <= t < len(model.subgraphs[0].tensors)]
            if kind < 4 or not tensors:
                change_wiring(model, op, rng)
            elif kind < 5:
                (change_code if rng.random() < 0.3 else change_builtin)(model, op, rng)
            else:
                of_tensors[rng.integers(len(of_tensors))](model, model.subgraphs[0].tensors[rng.choice(tensors)], rng)
    builder = _Builder(len(content) + 1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    raw = bytearray(builder.Output())
    if rng.random() < 0.1:
        for _ in range(rng.integers(1, 4)):
            raw[rng.integers(8, len(raw))] = rng.integers(256)
    return bytes(raw)


def outcome(content: bytes, library: str, rng: np.random.Generator, **options: str) -> tuple[str, list[np.ndarray]]:
    """What the runtime said against the file, or nothing, and its outputs."""
    resolver = tf.lite.experimental.OpResolverType
    try:
        engine = tf.lite.Interpreter(
            model_content=content,
            num_threads=2,
            experimental_delegates=[tf.lite.experimental.load_delegate(library, options)],
            experimental_op_resolver_type=resolver.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        engine.allocate_tensors()
        elements = 0
        for detail in engine.get_tensor_details():
            elements += int(np.prod(detail["shape"], dtype=np.float64))
        if elements > MAX_ELEMENTS:
            return "", []
        for detail in engine.get_input_details():
            size = detail["shape"]
            if np.dtype(detail["dtype"]).kind in "fiub":
                engine.set_tensor(detail["index"], rng.normal(0, 3, size).astype(detail["dtype"]))
        engine.invoke()
        return "", [engine.get_tensor(detail["index"]) for detail in engine.get_output_details()]
    except (RuntimeError, ValueError) as error:
        if not str(error).strip():
            raise AssertionError("refused without a message") from error
        return str(error), []


def differ(one: np.ndarray, other: np.ndarray) -> bool:
    if one.dtype.itemsize > 4:  # of an operator that is not the delegate's, given a type that it does not have
        return False
    if one.dtype != np.float32:
        return not np.array_equal(one, other)
    # Some builds of TFLite leave numbers below the normal ones, others make them zero.
    return not np.allclose(one, other, rtol=0, atol=1e-37, equal_nan=True)


def case(number: int, files: list[Path]) -> bytes:
    rng = np.random.default_rng(number)
    return mutate(files[rng.integers(len(files))].read_bytes(), rng)


def main(library: str, folder: str, first: int, count: int, seconds: float) -> None:
    files = sorted(Path(folder).glob("*.tflite"))
    if "asan" not in os.environ.get("LD_PRELOAD", ""):  # whose shadow takes terabytes of addresses
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (3 << 30), -1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    end = time.monotonic() + seconds
    for number in range(len(files)) if first < 0 else range(first, first + count):
        if time.monotonic() > end:
            break
        print(f"\n{number}", end=" ", flush=True)
        content = files[number].read_bytes() if first < 0 else case(number, files)
        before = bytearray(content)
        signal.alarm(SECONDS_OF_CASE)
        message, outputs = outcome(content, library, np.random.default_rng(number))
        apart = None
        # A constant that is an input, too, is overwritten in the file itself.
        if outputs and number % 2 == 0 and before == content:
            # Fused or not, a file that both accept has one meaning.
            refused, alone = outcome(content, library, np.random.default_rng(number), fuse="0")
            if not refused and alone:
                apart = any(map(differ, outputs, alone))
        signal.alarm(0)
        print(json.dumps({"message": message[:400], "apart": apart}), end="", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
