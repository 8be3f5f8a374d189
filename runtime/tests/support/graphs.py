"""Small TFLite files made operator by operator, and ways to run them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import tensorflow as tf
from flatbuffers import flexbuffers
from larq_compute_engine.mlir.python import tflite_schema as schema
from larq_rep_runtime import delegate_path

from larq_rep.converters.flatbuffer import _Builder

TYPES = {
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.int32): schema.TensorType.INT32,
    np.dtype(np.int8): schema.TensorType.INT8,
    np.dtype(np.uint8): schema.TensorType.UINT8,
    np.dtype(np.bool_): schema.TensorType.BOOL,
}


class Graph:
    """Tensors and operators, in the order in which they are added."""

    def __init__(self):
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.buffers = [schema.BufferT()]
        self.model.operatorCodes = []
        self.model.subgraphs = [schema.SubGraphT()]
        self.graph = self.model.subgraphs[0]
        self.graph.tensors, self.graph.operators = [], []
        self.graph.inputs, self.graph.outputs = [], []

    def tensor(self, shape, dtype=np.float32, value=None, quantization=None) -> int:
        tensor = schema.TensorT()
        tensor.shape = [int(d) for d in shape]
        tensor.type = TYPES[np.dtype(dtype)]
        tensor.name = f"tensor{len(self.graph.tensors)}".encode()
        tensor.buffer = 0
        if value is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)
            tensor.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        if quantization:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = np.float32([quantization[0]])
            tensor.quantization.zeroPoint = np.int64([quantization[1]])
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def input(self, shape, dtype=np.float32, quantization=None) -> int:
        self.graph.inputs.append(self.tensor(shape, dtype, None, quantization))
        return self.graph.inputs[-1]

    def constant(self, value) -> int:
        return self.tensor(np.shape(value), np.asarray(value).dtype, value)

    def shape(self, tensor: int) -> tuple[int, ...]:
        return tuple(self.graph.tensors[tensor].shape)

    def add(self, name: str, inputs, shape, dtype=np.float32, options: Any = None, quantization=None) -> int:
        """Adds an operator: an LCE one with a dictionary of options, or a builtin one with (type, object)."""
        code = schema.OperatorCodeT()
        code.version = 1
        custom = name.startswith("Lce")
        builtin = schema.BuiltinOperator.CUSTOM if custom else getattr(schema.BuiltinOperator, name)
        code.builtinCode, code.deprecatedBuiltinCode = builtin, min(builtin, 127)
        code.customCode = name.encode() if custom else None
        self.model.operatorCodes.append(code)
        op = schema.OperatorT()
        op.opcodeIndex = len(self.model.operatorCodes) - 1
        op.inputs = list(inputs)
        output = self.tensor(shape, dtype, None, quantization)
        op.outputs = [output]
        if custom and options is not None:
            raw = options if isinstance(options, bytes) else flexbuffers.Dumps(options)
            op.customOptions = np.frombuffer(raw, np.uint8)
        elif options is not None:
            op.builtinOptionsType, op.builtinOptions = options
        self.graph.operators.append(op)
        return output

    # Operators as the networks use them.

    def quantize(self, x: int, channels: int | None = None) -> int:
        shape = self.shape(x)
        return self.add("LceQuantize", [x], (*shape[:-1], -(-(channels or shape[-1]) // 32)), np.int32)

    def to_int8(self, x: int, scale: float, zero: int) -> int:
        return self.add("QUANTIZE", [x], self.shape(x), np.int8, quantization=(scale, zero))

    def from_int8(self, x: int) -> int:
        return self.add("DEQUANTIZE", [x], self.shape(x))

    def levels(self, x: int) -> tuple[float, int]:
        """Scale and zero point of integers."""
        quantization = self.graph.tensors[x].quantization
        return float(quantization.scale[0]), int(quantization.zeroPoint[0])

    def elementwise(self, name: str, x: int, y: int, activation: int = 0) -> int:
        options = getattr(schema, f"{name.capitalize()}OptionsT")()
        options.fusedActivationFunction = activation
        kind = getattr(schema.BuiltinOptions, f"{name.capitalize()}Options")
        shape = np.broadcast_shapes(self.shape(x), self.shape(y))
        return self.add(name, [x, y], shape, options=(kind, options))

    def prelu(self, x: int, alpha) -> int:
        return self.add("PRELU", [x, self.constant(np.float32(alpha).reshape(1, 1, -1))], self.shape(x))

    def tile(self, x: int, times: int) -> int:
        *lead, channels = self.shape(x)
        multiples = self.constant(np.int32([*(1 for _ in lead), times]))
        options = (schema.BuiltinOptions.TileOptions, schema.TileOptionsT())
        return self.add("TILE", [x, multiples], (*lead, channels * times), options=options)

    def concatenate(self, tensors) -> int:
        options = schema.ConcatenationOptionsT()
        options.axis = 3
        channels = sum(self.shape(t)[-1] for t in tensors)
        shape = (*self.shape(tensors[0])[:-1], channels)
        return self.add("CONCATENATION", tensors, shape, options=(schema.BuiltinOptions.ConcatenationOptions, options))

    def transpose(self, x: int, order) -> int:
        options = (schema.BuiltinOptions.TransposeOptions, schema.TransposeOptionsT())
        shape = [self.shape(x)[axis] for axis in order]
        return self.add("TRANSPOSE", [x, self.constant(np.int32(order))], shape, options=options)

    def pool(self, kind: str, x: int, padding: int = 1) -> int:
        """Windows of 2 x 2; `kind` is AVERAGE_POOL_2D or MAX_POOL_2D."""
        options = schema.Pool2DOptionsT()
        options.padding = padding
        options.strideH = options.strideW = options.filterHeight = options.filterWidth = 2
        n, h, w, c = self.shape(x)
        size = (h // 2, w // 2) if padding else (-(-h // 2), -(-w // 2))
        kind_of_options = schema.BuiltinOptions.Pool2DOptions
        if self.graph.tensors[x].type == schema.TensorType.INT8:
            return self.add(kind, [x], (n, *size, c), np.int8, (kind_of_options, options), self.levels(x))
        return self.add(kind, [x], (n, *size, c), options=(kind_of_options, options))

    def average_pool(self, x: int, padding: int = 1) -> int:
        return self.pool("AVERAGE_POOL_2D", x, padding)

    def max_pool_bits(self, x: int) -> int:
        """LceBMaxPool2d of windows of 2 x 2, stride 1, VALID."""
        n, h, w, words = self.shape(x)
        options = {"filter_height": 2, "filter_width": 2, "padding": 1, "stride_height": 1, "stride_width": 1}
        return self.add("LceBMaxPool2d", [x], (n, h - 1, w - 1, words), np.int32, options)

    def bconv(
        self, x: int, rng, channels: int, filters: int, kernel=(3, 3), strides=(1, 1), dilations=(1, 1), padding=0,
        pad_values=0, activation=0, groups=1, output="float32"
    ) -> int:  # fmt: skip
        """LceBconv2d of the packed signs `x` with random weights; `padding` 0 is SAME, 1 is VALID."""
        n, h, w, words = self.shape(x)
        per_group = channels // groups
        signs = rng.integers(0, 2, (filters, *kernel, per_group))
        bits = np.zeros((filters, *kernel, words // groups * 32), np.uint8)
        bits[..., :per_group] = signs
        weights = np.packbits(bits, -1, "little").view("<i4")
        sizes = [
            -(-size // s) if padding == 0 else -(-(size - (k - 1) * d) // s)
            for size, k, s, d in zip((h, w), kernel, strides, dilations, strict=True)
        ]
        count = kernel[0] * kernel[1] * per_group
        if output == "bits":
            limits = np.int32([-(2**31), 2**31 - 1, -1, 0, count])
            threshold = rng.integers(0, count + 1, filters).astype(np.int32)
            threshold = np.where(rng.random(filters) < 0.2, rng.choice(limits, filters), threshold).astype(np.int32)
            inputs = [x, self.constant(weights), -1, -1, self.constant(threshold)]
        else:
            multiplier = self.constant(rng.normal(0, 1, filters).astype(np.float32))
            bias = self.constant(rng.normal(0, 5, filters).astype(np.float32))
            inputs = [x, self.constant(weights), multiplier, bias, -1]
        options = {
            "channels_in": channels,
            "dilation_height_factor": dilations[0],
            "dilation_width_factor": dilations[1],
            "fused_activation_function": activation,
            "pad_values": pad_values,
            "padding": padding,
            "stride_height": strides[0],
            "stride_width": strides[1],
        }
        shape = (n, *sizes, -(-filters // 32) if output == "bits" else filters)
        dtype = {"bits": np.int32, "int8": np.int8, "float32": np.float32}[output]
        quantization = (float(count) / 40, 3) if output == "int8" else None
        return self.add("LceBconv2d", inputs, shape, dtype, options, quantization)

    def content(self, *outputs: int) -> bytes:
        self.graph.outputs = list(outputs)
        builder = _Builder(1 << 16)
        builder.Finish(self.model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())


def interpreter(content: bytes, threads: int = 1, xnnpack: bool = False, **options):
    """Stock TFLite with the delegate. Without XNNPACK its own operators round as LCE's TFLite does."""
    delegate = tf.lite.experimental.load_delegate(delegate_path(), {k: str(v) for k, v in options.items()})
    resolver = tf.lite.experimental.OpResolverType
    kind = resolver.AUTO if xnnpack else resolver.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    result = tf.lite.Interpreter(
        model_content=content,
        num_threads=threads,
        experimental_delegates=[delegate],
        experimental_op_resolver_type=kind,
    )
    result.allocate_tensors()
    return result


def run(content: bytes, x, threads: int = 1, batch: int | None = None, **options) -> list[np.ndarray]:
    """Outputs of stock TFLite with the delegate; x is the input or a list of the inputs."""
    engine = interpreter(content, threads, **options)
    xs = x if isinstance(x, list) else [x]
    if batch is not None:
        for detail, array in zip(engine.get_input_details(), xs, strict=True):
            engine.resize_tensor_input(detail["index"], array.shape)
        engine.allocate_tensors()
    for detail, array in zip(engine.get_input_details(), xs, strict=True):
        engine.set_tensor(detail["index"], array)
    engine.invoke()
    return [engine.get_tensor(detail["index"]) for detail in engine.get_output_details()]


def assert_same(found, expected, message: str = "") -> None:
    """To the last bit, the signs of zeros among them; what is no number is none in both."""
    assert found.dtype == expected.dtype and found.shape == expected.shape, (found.shape, expected.shape, message)
    if found.dtype == np.float32:
        np.testing.assert_array_equal(np.isnan(found), np.isnan(expected), message)
        found, expected = (np.where(np.isnan(x), np.float32(0), x).view(np.int32) for x in (found, expected))
    np.testing.assert_array_equal(found, expected, message)


def profile(content: bytes, x, capfd, **options) -> list[dict]:
    """The delegate's steps, from its profile."""
    capfd.readouterr()
    run(content, x, profile=1, **options)
    found = []
    for line in capfd.readouterr().err.splitlines():
        if line.startswith("larq-rep profile: "):
            found += json.loads(line.split(": ", 1)[1])["steps"]
    return found


def steps(content: bytes, x, capfd, **options) -> list[str]:
    """Names of the delegate's steps."""
    return [step["name"] for step in profile(content, x, capfd, **options)]
