"""Inputs and outputs of integers, for a file that turns real numbers into integers behind its inputs."""

from __future__ import annotations

import copy

import numpy as np
import tensorflow as tf
from larq_compute_engine.mlir.python import tflite_schema as schema

from larq_rep.converters.flatbuffer import Flatbuffer, Operator

TYPES = (tf.float32, tf.int8, tf.uint8)
_REMEDY = (
    "Calibrate it (int8=images, --int8), or leave {name} out; a network of raw images takes bytes if it begins with "
    "tf.keras.Input(shape, dtype='uint8') and Rescaling."
)


def check_types(input_type: tf.DType, output_type: tf.DType) -> None:
    """Raises a ValueError for a type that inputs or outputs cannot have."""
    for name, dtype in (("inference_input_type", input_type), ("inference_output_type", output_type)):
        if dtype not in TYPES:
            raise ValueError(f"{name} should be tf.float32, tf.int8 or tf.uint8, found {dtype!r}.")


def set_types(flatbuffer: Flatbuffer, input_type: tf.DType, output_type: tf.DType) -> None:
    """Gives a file inputs and outputs of another type in the place of real ones.

    An input x of integers q stands for `scale * (q - zero point)`, with the scale and zero point of the QUANTIZE
    operator that reads x, an output for that of the DEQUANTIZE operator that writes it. uint8 has the same scale, and
    128 more as its zero point. Inputs and outputs that are no real numbers stay as they are.

    # Arguments
        flatbuffer: The file.
        input_type, output_type: `tf.float32` (unchanged), `tf.int8` or `tf.uint8`.

    # Raises
        ValueError: If an input or output is not rounded to int8 at its place, or if none is a real number.
    """
    for name, dtype, change in (
        ("inference_input_type", tf.as_dtype(input_type), _change_inputs),
        ("inference_output_type", tf.as_dtype(output_type), _change_outputs),
    ):
        if dtype == tf.float32:
            continue
        before = [*flatbuffer.inputs, *flatbuffer.outputs]
        ends = flatbuffer.inputs if change is _change_inputs else flatbuffer.outputs
        types = [flatbuffer.dtype(tensor) for tensor in ends]
        real = [place for place, found in enumerate(types) if found == "float32"]
        if not real and set(types) != {dtype.name}:
            raise ValueError(f"{name} tf.{dtype.name}: the model itself has {', '.join(types)}: leave it out.")
        try:
            change(flatbuffer, dtype, real)
        except ValueError as error:
            raise ValueError(f"{name} tf.{dtype.name}: {error} {_REMEDY.format(name=name)}") from error
        _keep_names(flatbuffer, before)
        flatbuffer.drop_unused()


def _keep_names(flatbuffer: Flatbuffer, before: list[int]) -> None:
    """Gives new inputs and outputs the names of those before, and their places in signatures."""
    tensors = flatbuffer.subgraph.tensors
    new = {old: now for old, now in zip(before, [*flatbuffer.inputs, *flatbuffer.outputs], strict=True) if old != now}
    for old, now in new.items():
        tensors[old].name, tensors[now].name = tensors[now].name, tensors[old].name
    for signature in flatbuffer.model.signatureDefs or []:
        for mapped in (*signature.inputs, *signature.outputs):
            mapped.tensorIndex = new.get(mapped.tensorIndex, mapped.tensorIndex)


def _change_inputs(flatbuffer: Flatbuffer, dtype: tf.DType, places: list[int]) -> None:
    inputs = flatbuffer.inputs
    removed = set()
    for place in places:
        tensor = inputs[place]
        readers = flatbuffer.consumers.get(tensor, [])
        if [_rounds(flatbuffer, op) for op in readers] != [True]:
            found = ", ".join(op.name for op in readers) or "nothing"
            raise ValueError(
                f"the input {flatbuffer.name(tensor)!r} is read by {found}, where fake quantization, and only that, "
                "should round it to 8 bits."
            )
        (op,) = readers
        if dtype == tf.int8:
            inputs[place] = op.outputs[0]
            removed.add(op.index)
        else:
            _become_uint8(flatbuffer, tensor, like=op.outputs[0])
    subgraph = flatbuffer.subgraph
    subgraph.inputs = np.array(inputs, np.int32)
    subgraph.operators = [op for index, op in enumerate(subgraph.operators) if index not in removed]


def _change_outputs(flatbuffer: Flatbuffer, dtype: tf.DType, places: list[int]) -> None:
    outputs = flatbuffer.outputs
    for place in places:
        op = flatbuffer.producers.get(outputs[place])
        if op is None or op.name != "DEQUANTIZE" or flatbuffer.dtype(op.inputs[0]) != "int8":
            raise ValueError(
                f"the output {flatbuffer.name(outputs[place])!r} is written by {op.name if op else 'nothing'}, where "
                "fake quantization should round it to 8 bits last."
            )
        outputs[place] = op.inputs[0] if dtype == tf.int8 else _as_uint8(flatbuffer, op.inputs[0])
    flatbuffer.subgraph.outputs = np.array(outputs, np.int32)


def _rounds(flatbuffer: Flatbuffer, op: Operator) -> bool:
    return op.name == "QUANTIZE" and flatbuffer.dtype(op.outputs[0]) == "int8"


def _become_uint8(flatbuffer: Flatbuffer, tensor: int, like: int) -> None:
    """Gives a tensor the type uint8, and what it stands for from a tensor of int8."""
    found, int8 = flatbuffer.subgraph.tensors[tensor], flatbuffer.subgraph.tensors[like].quantization
    found.type, found.quantization = schema.TensorType.UINT8, copy.copy(int8)
    found.quantization.zeroPoint = np.asarray(int8.zeroPoint) + 128


def _as_uint8(flatbuffer: Flatbuffer, tensor: int) -> int:
    """A new tensor of uint8, which a QUANTIZE operator at the end writes."""
    result = flatbuffer.add_tensor(tensor, "_uint8")
    _become_uint8(flatbuffer, result, like=tensor)
    operator = schema.OperatorT()
    operator.opcodeIndex = flatbuffer.operator_code(schema.BuiltinOperator.QUANTIZE, 1)
    operator.inputs, operator.outputs = np.array([tensor], np.int32), np.array([result], np.int32)
    operator.builtinOptionsType = schema.BuiltinOptions.QuantizeOptions
    operator.builtinOptions = schema.QuantizeOptionsT()
    flatbuffer.subgraph.operators.append(operator)
    return result
