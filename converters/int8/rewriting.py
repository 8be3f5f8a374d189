"""Writes chosen operators of a float file in int8, as TFLite's quantization specification has them.

Operators keep their order and tensors their indices; constants in int8 and int32, QUANTIZE and DEQUANTIZE are added.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping, Set

import numpy as np
from larq_compute_engine.mlir.python import tflite_schema as schema

from larq_rep.converters.flatbuffer import Flatbuffer, Operator
from larq_rep.converters.float_weights import OUTPUT_CHANNELS, Stored
from larq_rep.converters.int8 import islands
from larq_rep.converters.int8.ranges import Scale

# The sums of a convolution are int32; its bias takes at most a half of them.
_BIAS = 2.0**30
# XNNPACK refuses a convolution whose sums it would divide by more than 2^32.
_LEAST = 2.0**-28


def scale_groups(flatbuffer: Flatbuffer, chosen: Set[int]) -> dict[int, int]:
    """For each tensor in int8 one that stands for all tensors with the same scale."""
    first: dict[int, int] = {}

    def find(tensor: int) -> int:
        while first.setdefault(tensor, tensor) != tensor:
            tensor = first[tensor]
        return tensor

    for index in sorted(chosen):
        op = flatbuffer.operators[index]
        tensors = [*islands.data_inputs(flatbuffer, op), op.outputs[0]]
        for tensor in tensors:
            find(tensor)
        if op.name in islands.SAME_SCALE:
            for tensor in tensors[1:]:
                first[find(tensor)] = find(tensors[0])
    return {tensor: find(tensor) for tensor in first}


def weight_scales(weights: np.ndarray, bias: np.ndarray | None, op: str, into: Scale, out: Scale) -> np.ndarray:
    """A scale for each output channel, or one for a dense layer: max|w| / 127, or an exact one for few levels.

    A channel whose weights are almost nothing beside its bias, or beside a step of the output, gets a larger one.
    """
    axis = OUTPUT_CHANNELS[op]
    dense = op == "FULLY_CONNECTED"
    small = Stored.exact(weights, axis)
    if small is None or small.scales is None or (len(small.scales) > 1 and (dense or small.axis != axis)):
        small = Stored.quantized(weights.reshape(1, -1) if dense else weights, 0 if dense else axis)
    assert small.scales is not None
    scales = small.scales if dense else np.broadcast_to(small.scales, weights.shape[axis]).astype(np.float64)
    least = np.full(scales.shape, _LEAST * float(out.scale) / float(into.scale))
    if bias is not None:
        needed = np.abs(bias.astype(np.float64)) / (_BIAS * float(into.scale))
        least = np.maximum(least, needed.max() if dense else needed)
    return np.maximum(scales, least).astype(np.float32)


class Rewriting:
    """Turns operators of a file into int8.

    # Arguments
        flatbuffer: The file, which is changed.
        chosen: The indices of the operators.
        scales: The scale of each tensor that they read or write.
        integers: Inputs and outputs that only QUANTIZE should read and DEQUANTIZE write.
    """

    def __init__(
        self,
        flatbuffer: Flatbuffer,
        chosen: Set[int],
        scales: Mapping[int, Scale],
        integers: Set[int],
    ):
        self._flatbuffer, self._chosen, self._scales, self._integers = flatbuffer, chosen, scales, integers
        self._operators: list[schema.OperatorT] = []
        # Indices of the int8 and the float32 form of each tensor, as far as there are any.
        self._int8: dict[int, int] = {}
        self._float32: dict[int, int] = {}
        self._run()

    def _run(self) -> None:
        flatbuffer = self._flatbuffer
        operators, inputs, outputs = list(flatbuffer.operators), flatbuffer.inputs, flatbuffer.outputs
        read = {t for index in self._chosen for t in operators[index].inputs}
        constants = {t: flatbuffer.constant(t) for t in read}
        self._reads = collections.Counter(t for op in operators for t in op.inputs) + collections.Counter(outputs)
        for tensor in inputs:
            if tensor in self._integers:
                self._float32[tensor] = self._pass("DEQUANTIZE", self._as_int8(tensor), tensor, "float32")
        for op in operators:
            written = flatbuffer.subgraph.operators[op.index]
            if op.index in self._chosen:
                written.inputs = np.array(self._inputs(op, constants), np.int32)
                written.opcodeIndex = flatbuffer.operator_code(
                    getattr(schema.BuiltinOperator, op.name), islands.VERSIONS[op.name]
                )
                self._set(op.outputs[0], op.outputs[0])
                self._int8[op.outputs[0]] = op.outputs[0]
            elif op.inputs:
                # LceQuantize reads integers too: their signs are those of their numbers.
                form = self._as_int8 if _signs(op) else self._as_float32
                written.inputs = np.array([form(t) if t in self._int8 else t for t in op.inputs], np.int32)
            self._operators.append(written)
        results = [self._output(tensor) for tensor in outputs]
        tensors = flatbuffer.subgraph.tensors
        for old, new in zip(outputs, results, strict=True):
            if old != new and old not in inputs:  # The output keeps its name.
                tensors[old].name, tensors[new].name = tensors[new].name, tensors[old].name
        renamed = dict(zip(outputs, results, strict=True))
        for signature in flatbuffer.model.signatureDefs or []:
            for mapped in signature.outputs:
                mapped.tensorIndex = renamed.get(mapped.tensorIndex, mapped.tensorIndex)
        flatbuffer.subgraph.operators = self._operators
        flatbuffer.subgraph.outputs = np.array(results, np.int32)
        flatbuffer.forget()
        # What several operators shared may be read by none any more.
        used = {*flatbuffer.inputs, *flatbuffer.outputs, *flatbuffer.producers, *flatbuffer.consumers}
        for number, tensor in enumerate(tensors):
            if number not in used:
                tensor.buffer = 0

    def _inputs(self, op: Operator, constants: Mapping[int, np.ndarray | None]) -> list[int]:
        found = [t if constants[t] is not None or t < 0 else self._as_int8(t) for t in op.inputs]
        if op.name in islands.PRODUCTS:
            data, bias_at = (2, 3) if op.name == "TRANSPOSE_CONV" else (0, 2)
            weights = constants[op.inputs[1]]
            bias = constants[op.inputs[bias_at]] if len(op.inputs) > bias_at and op.inputs[bias_at] >= 0 else None
            assert weights is not None
            into, out = self._scales[op.inputs[data]], self._scales[op.outputs[0]]
            steps = weight_scales(weights, bias, op.name, into, out)
            axis = OUTPUT_CHANNELS[op.name]
            along = steps.astype(np.float64).reshape([-1 if i == axis else 1 for i in range(weights.ndim)])
            values = np.clip(np.rint(weights / along), -127, 127).astype(np.int8)
            found[1] = self._constant(op.inputs[1], values, "int8", steps, axis)
            if bias is not None:
                sums = steps.astype(np.float64) * float(into.scale)
                integers = np.rint(bias / sums).astype(np.int32)
                found[bias_at] = self._constant(op.inputs[bias_at], integers, "int32", sums.astype(np.float32))
        return found

    def _constant(
        self,
        like: int,
        values: np.ndarray,
        dtype: str,
        scales: np.ndarray,
        axis: int = 0,
    ) -> int:
        """A constant in integers, which takes the place of the float one where nothing else reads that."""
        flatbuffer = self._flatbuffer
        tensor = flatbuffer.add_constant(values, f"{flatbuffer.name(like)}_{dtype}")
        if self._reads[like] == 1:
            flatbuffer.subgraph.tensors[like] = flatbuffer.subgraph.tensors.pop()
            tensor = like
        found = schema.QuantizationParametersT()
        found.scale = scales.astype(np.float32)
        found.zeroPoint = np.zeros(len(scales), np.int64)
        found.quantizedDimension = axis
        flatbuffer.subgraph.tensors[tensor].quantization = found
        return tensor

    def _as_int8(self, tensor: int) -> int:
        if tensor not in self._int8:
            self._int8[tensor] = self._pass("QUANTIZE", tensor, tensor, "int8")
        return self._int8[tensor]

    def _as_float32(self, tensor: int) -> int:
        if tensor not in self._float32:
            # A float tensor that QUANTIZE has read is there as it was.
            stays = self._flatbuffer.dtype(tensor) == "float32"
            self._float32[tensor] = tensor if stays else self._pass("DEQUANTIZE", self._int8[tensor], tensor, "float32")
        return self._float32[tensor]

    def _output(self, tensor: int) -> int:
        result = self._as_float32(tensor) if tensor in self._int8 else tensor
        if tensor in self._integers and result == tensor:
            return self._pass("DEQUANTIZE", self._as_int8(tensor), tensor, "float32")
        return result

    def _pass(self, name: str, source: int, like: int, dtype: str) -> int:
        """A QUANTIZE or DEQUANTIZE operator, which writes a new tensor."""
        flatbuffer = self._flatbuffer
        result = flatbuffer.add_tensor(like, f"_{dtype}")
        if dtype == "float32":
            flatbuffer.subgraph.tensors[result].type = schema.TensorType.FLOAT32
            flatbuffer.subgraph.tensors[result].quantization = None
        else:
            self._set(result, like)
        operator = schema.OperatorT()
        # The first versions that read float32 and int8.
        version = {"QUANTIZE": 1, "DEQUANTIZE": 2}[name]
        operator.opcodeIndex = flatbuffer.operator_code(getattr(schema.BuiltinOperator, name), version)
        operator.inputs, operator.outputs = np.array([source], np.int32), np.array([result], np.int32)
        options = "QuantizeOptions" if name == "QUANTIZE" else "DequantizeOptions"
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
        operator.builtinOptions = getattr(schema, f"{options}T")()
        self._operators.append(operator)
        return result

    def _set(self, tensor: int, like: int) -> None:
        """Makes a tensor int8, with the scale of another one."""
        scale, target = self._scales[like], self._flatbuffer.subgraph.tensors[tensor]
        target.type = schema.TensorType.INT8
        found = schema.QuantizationParametersT()
        found.scale, found.zeroPoint = np.array([scale.scale], np.float32), np.array([scale.zero], np.int64)
        found.min, found.max = (np.array([end], np.float32) for end in scale.seen)
        target.quantization = found


def _signs(op: Operator) -> bool:
    return op.name == "LceQuantize"
