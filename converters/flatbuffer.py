"""Read and edit a TFLite flatbuffer with the operators of Larq Compute Engine (LCE)."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from flatbuffers import flexbuffers
from larq_compute_engine.mlir.python import tflite_schema as schema

from larq_rep.converters import associated

_FILE_IDENTIFIER = b"TFL3"
_DTYPES = {
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.FLOAT16: np.float16,
    schema.TensorType.INT32: np.int32,
    schema.TensorType.UINT8: np.uint8,
    schema.TensorType.INT64: np.int64,
    schema.TensorType.BOOL: np.bool_,
    schema.TensorType.INT16: np.int16,
    schema.TensorType.INT8: np.int8,
    schema.TensorType.FLOAT64: np.float64,
}


_BCONV_OPTIONS = {
    "channels_in",
    "dilation_height_factor",
    "dilation_width_factor",
    "fused_activation_function",
    "pad_values",
    "padding",
    "stride_height",
    "stride_width",
}


def _names(enum: type) -> dict[int, str]:
    return {value: name for name, value in vars(enum).items() if isinstance(value, int)}


_BUILTIN_NAMES = _names(schema.BuiltinOperator)
_TYPE_NAMES = _names(schema.TensorType)


class _Builder(flatbuffers.Builder):
    """Aligns bytes to 16, as TFLite's schema demands of constants; Python's generated code does not."""

    def StartVector(self, elemSize, numElems, alignment):
        return super().StartVector(elemSize, numElems, 16 if elemSize == 1 else alignment)


class InvalidFlatbufferError(ValueError):
    """The bytes are not a TFLite flatbuffer that this package can read."""


@dataclass(frozen=True)
class Operator:
    """One operator of the graph.

    # Attributes
        index: Position in the execution order.
        name: TFLite's name (`"CONV_2D"`), or the custom code (`"LceBconv2d"`).
        custom: Whether it is a custom operator.
        inputs: Tensor indices; -1 for an absent optional input.
        outputs: Tensor indices.
        options: For LCE operators the decoded map of integers, otherwise TFLite's options object.
    """

    index: int
    name: str
    custom: bool
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any


class Flatbuffer:
    """A model of one subgraph, parsed from its bytes.

    # Arguments
        content: The bytes of a `.tflite` file.

    # Attributes
        model: The objects of TFLite's schema.
        size: Bytes of the file.
        files: Files that it carries, which `pack` appends again.

    # Raises
        TypeError: If `content` is not bytes.
        InvalidFlatbufferError: If the bytes are not a TFLite model with exactly one subgraph.
    """

    def __init__(self, content: bytes):
        if not isinstance(content, bytes | bytearray | memoryview):
            raise TypeError(
                f"Expected the bytes of a .tflite file, found {type(content).__name__}. Read a file with "
                "pathlib.Path(NAME).read_bytes()."
            )
        if len(content) < 8 or content[4:8] != _FILE_IDENTIFIER:
            raise InvalidFlatbufferError(
                f"Not a TFLite file: bytes 4 to 8 should be {_FILE_IDENTIFIER!r}, found {bytes(content[4:8])!r}."
            )
        try:
            self.model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(bytearray(content), 0))
        except Exception as error:  # the generated reader raises whatever the damaged offset leads to
            raise InvalidFlatbufferError(f"The TFLite file is damaged: {error!r}.") from error
        if len(self.model.subgraphs or []) != 1:
            raise InvalidFlatbufferError(
                f"Expected a TFLite model of one subgraph, found {len(self.model.subgraphs or [])} "
                "(control flow is not supported)."
            )
        self.size = len(content)
        self.files = associated.read(bytes(content))
        try:
            self._check()
        except InvalidFlatbufferError:
            raise
        except Exception as error:  # whatever a wrong index or size leads to
            raise InvalidFlatbufferError(f"The TFLite file is damaged: {error!r}.") from error

    def _check(self) -> None:
        """Checks everything once, so that no damage surfaces later."""
        tensors = range(len(self.subgraph.tensors or []))
        used = [t for op in self.operators for t in (*op.inputs, *op.outputs) if t != -1]
        for tensor in (*used, *self.inputs, *self.outputs):
            if tensor not in tensors:
                raise InvalidFlatbufferError(f"The TFLite file is damaged: there is no tensor {tensor}.")
        for tensor in tensors:
            self.name(tensor)
            if any(size < 0 for size in self.shape(tensor)):
                raise InvalidFlatbufferError(f"The TFLite file is damaged: tensor {tensor} has a negative size.")
        written: set[int] = set()
        for op in self.operators:
            # Otherwise walks along the graph would go in circles.
            if early := [t for t in op.inputs if t in self.producers and t not in written]:
                raise InvalidFlatbufferError(
                    f"The TFLite file is damaged: operator {op.index} ({op.name}) reads tensor {early[0]} "
                    "before it is written."
                )
            if not written.isdisjoint(op.outputs):
                raise InvalidFlatbufferError(
                    f"The TFLite file is damaged: operator {op.index} ({op.name}) writes a tensor a second time."
                )
            written.update(set(op.outputs) - {-1})
        for tensor in tensors:
            self.constant(tensor)
        for op in self.operators:
            if op.name == "LceBconv2d":
                missing = _BCONV_OPTIONS - set(op.options)
                if missing or len(op.inputs) < 5 or self.constant(op.inputs[1]) is None:
                    raise InvalidFlatbufferError(
                        f"The TFLite file is damaged: operator {op.index} (LceBconv2d) lacks weights or options."
                    )

    @property
    def subgraph(self) -> schema.SubGraphT:
        return self.model.subgraphs[0]

    @property
    def inputs(self) -> list[int]:
        return [int(i) for i in self.subgraph.inputs]

    @property
    def outputs(self) -> list[int]:
        return [int(i) for i in self.subgraph.outputs]

    @functools.cached_property
    def operators(self) -> list[Operator]:
        return [self._operator(index, op) for index, op in enumerate(self.subgraph.operators or [])]

    def _operator(self, index: int, op: schema.OperatorT) -> Operator:
        code = self.model.operatorCodes[op.opcodeIndex]
        # Old files hold the code in a byte, newer ones in an int beside it.
        builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
        custom = builtin == schema.BuiltinOperator.CUSTOM
        options = op.builtinOptions
        if custom:
            raw = b"" if op.customOptions is None else bytes(bytearray(op.customOptions))
            name = (code.customCode or b"").decode("utf-8", "replace")
            options = flexbuffers.Loads(raw) if raw and name.startswith("Lce") else {}
        else:
            name = _BUILTIN_NAMES.get(builtin, f"BUILTIN_{builtin}")
        inputs = () if op.inputs is None else tuple(int(i) for i in op.inputs)
        outputs = () if op.outputs is None else tuple(int(i) for i in op.outputs)
        return Operator(index, name, custom, inputs, outputs, options)

    @functools.cached_property
    def producers(self) -> dict[int, Operator]:
        """The operator that writes each tensor."""
        return {tensor: op for op in self.operators for tensor in op.outputs}

    @functools.cached_property
    def consumers(self) -> dict[int, list[Operator]]:
        """The operators that read each tensor."""
        readers: dict[int, list[Operator]] = {}
        for op in self.operators:
            for tensor in op.inputs:
                readers.setdefault(tensor, []).append(op)
        return readers

    def name(self, tensor: int) -> str:
        return (self.subgraph.tensors[tensor].name or b"").decode("utf-8", "replace")

    def shape(self, tensor: int) -> tuple[int, ...]:
        shape = self.subgraph.tensors[tensor].shape
        return () if shape is None else tuple(int(d) for d in shape)

    def dtype(self, tensor: int) -> str:
        """Name of the element type in lower case, for instance `"float32"`."""
        return _TYPE_NAMES.get(self.subgraph.tensors[tensor].type, "unknown").lower()

    def constant(self, tensor: int) -> np.ndarray | None:
        """Value of a constant tensor; `None` for an absent tensor (-1) and for one that is computed.

        The converter writes a large constant of one value, the filter of an untrained binary layer for
        instance, as a FILL operator: that counts as a constant too.
        """
        if tensor < 0 or tensor in self.inputs:
            return None
        if (producer := self.producers.get(tensor)) is not None:
            value = self.constant(producer.inputs[1]) if producer.name == "FILL" else None
            return None if value is None else np.full(self.shape(tensor), value)
        data = self.model.buffers[self.subgraph.tensors[tensor].buffer].data
        if data is None or len(data) == 0:
            return None
        dtype = _DTYPES.get(self.subgraph.tensors[tensor].type)
        if dtype is None:
            return None
        value = np.frombuffer(np.asarray(data, np.uint8), dtype).reshape(self.shape(tensor))
        if not value.flags.aligned:  # in the files of others; numpy would add such numbers up in another order
            value = value.copy()
        value.flags.writeable = False
        return value

    def is_computed(self, tensor: int) -> bool:
        """Whether a tensor is an input or written by an operator."""
        return tensor in self.producers or tensor in self.inputs

    def constant_bytes(self, tensor: int) -> int:
        """Bytes that a constant tensor takes in the file; 0 for one that is computed."""
        value = None if tensor in self.producers else self.constant(tensor)
        return 0 if value is None else value.nbytes

    def set_constant(self, tensor: int, value: np.ndarray) -> None:
        """Replaces a constant's value; shape and element type stay."""
        expected = (self.shape(tensor), np.dtype(_DTYPES[self.subgraph.tensors[tensor].type]))
        if (value.shape, value.dtype) != expected:
            raise ValueError(
                f"Tensor {tensor} {self.name(tensor)!r} has shape and type {expected}, "
                f"found {(value.shape, value.dtype)}."
            )
        # Equal constants may share a buffer, so the new value gets its own.
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(value.tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        self.subgraph.tensors[tensor].buffer = len(self.model.buffers) - 1

    def set_options(self, op: Operator, options: dict[str, int]) -> None:
        """Replaces the options of an LCE operator."""
        self.subgraph.operators[op.index].customOptions = np.frombuffer(flexbuffers.Dumps(options), np.uint8)
        self.__dict__.pop("operators", None)

    def forget(self) -> None:
        """Has `operators`, `producers` and `consumers` found again, after `subgraph.operators` changed."""
        for name in ("operators", "producers", "consumers"):
            self.__dict__.pop(name, None)

    def with_outputs(self, tensors: list[int]) -> bytes:
        """The same model with other tensors as its outputs, to look at the values inside."""
        saved = self.subgraph.outputs, self.model.signatureDefs
        self.subgraph.outputs = np.asarray(tensors, np.int32)
        self.model.signatureDefs = None
        try:
            return self.pack()
        finally:
            self.subgraph.outputs, self.model.signatureDefs = saved

    def cut(self, operators: Sequence[Operator], outputs: Sequence[int]) -> tuple[bytes, list[int]]:
        """A model of some of the operators, and its inputs: what they read and do not write."""
        written = {tensor for op in operators for tensor in op.outputs}
        computed = {*self.producers, *self.inputs} - written
        inputs = sorted({tensor for op in operators for tensor in op.inputs} & computed)
        saved = self.subgraph.operators, self.subgraph.inputs
        self.subgraph.operators, self.subgraph.inputs = [saved[0][op.index] for op in operators], inputs
        try:
            return self.with_outputs(list(outputs)), inputs
        finally:
            self.subgraph.operators, self.subgraph.inputs = saved

    def pack(self) -> bytes:
        """The bytes of a `.tflite` file."""
        builder = _Builder(self.size + 1024)
        builder.Finish(self.model.Pack(builder), file_identifier=_FILE_IDENTIFIER)
        return associated.append(bytes(builder.Output()), self.files)

    def add_tensor(self, like: int, suffix: str) -> int:
        """Appends a tensor of the type and shape of another one, and returns its index."""
        tensor = copy.copy(self.subgraph.tensors[like])
        tensor.name = (self.name(like) + suffix).encode()
        tensor.buffer = 0  # TFLite's empty buffer
        self.subgraph.tensors.append(tensor)
        return len(self.subgraph.tensors) - 1

    def add_constant(self, value: np.ndarray, name: str) -> int:
        """Appends a constant tensor and returns its index."""
        tensor = schema.TensorT()
        tensor.name = name.encode()
        tensor.type = next(number for number, dtype in _DTYPES.items() if dtype == value.dtype)
        tensor.shape = np.asarray(value.shape, np.int32)
        self.subgraph.tensors.append(tensor)
        self.set_constant(len(self.subgraph.tensors) - 1, value)
        return len(self.subgraph.tensors) - 1

    def operator_code(self, builtin: int, version: int) -> int:
        """Index of an operator's code in the file, with at least this version; appended if the file lacks it."""
        for index, code in enumerate(self.model.operatorCodes):
            if max(code.builtinCode, code.deprecatedBuiltinCode) == builtin and code.version >= version:
                return index
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = builtin
        code.version = version
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1

    def drop_unused(self) -> None:
        """Removes the operators whose results nothing reads, then tensors and data that nothing refers to."""
        needed = set(self.outputs)
        operators = []
        for op in reversed(self.subgraph.operators):
            if needed.intersection(map(int, op.outputs)):
                needed.update(() if op.inputs is None else map(int, op.inputs))
                operators.append(op)
        self.subgraph.operators = operators[::-1]
        needed |= {*self.inputs, *(int(t) for op in operators for t in op.outputs)}
        kept = sorted(needed - {-1})
        index = {old: new for new, old in enumerate(kept)} | {-1: -1}
        self.subgraph.tensors = [self.subgraph.tensors[t] for t in kept]
        for holder in (self.subgraph, *operators):
            if holder.inputs is not None:
                holder.inputs = np.array([index[int(t)] for t in holder.inputs], np.int32)
            holder.outputs = np.array([index[int(t)] for t in holder.outputs], np.int32)
        for signature in self.model.signatureDefs or []:
            for mapped in (*signature.inputs, *signature.outputs):
                mapped.tensorIndex = index[mapped.tensorIndex]
        self.forget()
        self.drop_unused_buffers()

    def drop_unused_buffers(self) -> None:
        """Empties the buffers that no tensor reads any more, so that `pack` leaves their data out."""
        used = {tensor.buffer for tensor in self.subgraph.tensors}
        used |= {metadata.buffer for metadata in self.model.metadata or []}
        used |= {int(index) for index in ([] if self.model.metadataBuffer is None else self.model.metadataBuffer)}
        for index, buffer in enumerate(self.model.buffers):
            if index not in used:
                buffer.data = None
