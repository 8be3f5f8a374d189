"""Inputs of a model and of its file: arrays of any number, shape and type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from larq_rep.converters import quantized
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.converters.graph import FrozenGraph

# One array, or as many as the model has inputs, in their order or by name.
Inputs: TypeAlias = np.ndarray | Sequence[np.ndarray] | Mapping[str, np.ndarray]

# Operators of a file that pass numbers on without looking at them.
_HANDED_ON = ("CAST", "RESHAPE", "EXPAND_DIMS", "SQUEEZE", "TRANSPOSE", "STRIDED_SLICE", "SLICE")


class IncomparableError(ValueError):
    """A file and a model, or inputs, that do not belong together."""


def batches(inputs: Inputs, model: tf.keras.Model, graph: FrozenGraph) -> list[list[np.ndarray]]:
    """The arrays of each run of a model: for each input as many entries as its batch has.

    # Arguments
        inputs: One array, a list in the order of the model's inputs, or a dictionary by their names. The first axis
            counts the images, or whatever the model takes; its length is a multiple of the model's batch size.
        model: The model.
        graph: The same model as a graph, whose batch size is fixed.

    # Raises
        IncomparableError: If number, names, shapes or types are not the model's.
    """
    names = list(model.input_names)
    arrays = [np.asarray(array) for array in in_order(inputs, model)]
    typed = [_typed(array, x, name) for array, x, name in zip(arrays, graph.inputs, names, strict=True)]
    counts = {}
    for array, x, name in zip(typed, graph.inputs, names, strict=True):
        batch, *rest = x.shape.as_list()
        if array.ndim != len(rest) + 1 or list(array.shape[1:]) != rest or not len(array) or len(array) % batch:
            first = "N" if batch == 1 else f"a multiple of {batch}"
            wanted = ", ".join([first, *map(str, rest)])
            raise IncomparableError(f"Expected {_what(names, name)} of shape ({wanted}), found {array.shape}.")
        counts[name] = len(array) // batch
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{count} for {name!r}" for name, count in counts.items())
        raise IncomparableError(f"Expected the same number of entries for each input, found {found}.")
    return [
        [a[i * x.shape[0] : (i + 1) * x.shape[0]] for a, x in zip(typed, graph.inputs, strict=True)]
        for i in range(next(iter(counts.values())))
    ]


def in_order(inputs: Inputs, model: tf.keras.Model) -> list[np.ndarray]:
    """The arrays in the order of the model's inputs.

    # Raises
        IncomparableError: If there are others than the model has inputs.
    """
    names = list(model.input_names)
    if isinstance(inputs, Mapping):
        # A model may be built with a dictionary, whose keys TensorFlow sorts; Keras then also takes those.
        keys = sorted(model.input) if isinstance(model.input, dict) else names
        for known in (names, keys):
            if set(inputs) == set(known):
                return [inputs[name] for name in known]
        raise IncomparableError(f"Expected inputs named {', '.join(names)}, found {', '.join(map(str, inputs))}.")
    arrays = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
    if len(arrays) != len(names):
        raise IncomparableError(
            f"Expected arrays for {len(names)} inputs ({', '.join(names)}), in a list or by name, found {len(arrays)}."
        )
    return arrays


def _typed(array: np.ndarray, x: tf.Tensor, name: str) -> np.ndarray:
    """The array in the type of an input: any number may become a real one, an integer another one that holds it."""
    dtype = np.dtype(x.dtype.as_numpy_dtype)
    if array.dtype == dtype or (dtype.kind == "f" and array.dtype.kind in "fiub"):
        return np.ascontiguousarray(array, dtype)
    if dtype.kind in "iu" and array.dtype.kind in "iub":
        info = np.iinfo(dtype)
        if not array.size or (info.min <= int(array.min()) and int(array.max()) <= info.max):
            return np.ascontiguousarray(array, dtype)
    raise IncomparableError(f"Expected {dtype} for the input {name!r}, found {array.dtype}: convert it with astype.")


def _what(names: list[str], name: str) -> str:
    return "images" if len(names) == 1 else f"the input {name!r}"


def taken(arrays: Sequence[np.ndarray], flatbuffer: Flatbuffer) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The arrays as a file takes them, and as the model must take them to compute the same.

    They differ only if the file's input is quantized and the model's is real: the file takes the nearest integers, and
    the model the numbers that these stand for.
    """
    for_file, for_model = [], []
    for array, tensor in zip(arrays, flatbuffer.inputs, strict=True):
        stands = quantized.quantization(flatbuffer, tensor)
        if array.dtype.kind == "f" and stands is not None:
            info, (step, zero) = np.iinfo(flatbuffer.dtype(tensor)), stands
            stored = np.clip(np.round(array / np.float32(step)) + zero, info.min, info.max).astype(info.dtype)
            for_file.append(stored)
            for_model.append(quantized.real(flatbuffer, tensor, stored))
        else:
            for_file.append(array)
            for_model.append(array)
    return for_file, for_model


def random_inputs(
    flatbuffer: Flatbuffer, count: int = 1, seed: int = 0, dtypes: Sequence[np.dtype] | None = None
) -> list[np.ndarray]:
    """Arrays that fit the inputs of a file: those of `random_array`, and indices below the size of their table.

    # Arguments
        flatbuffer: The file.
        count: How many batches.
        seed: Seed of the numbers.
        dtypes: Types to use instead of the file's: those of the model that a quantized file was made from.
    """
    rng = np.random.default_rng(seed)
    arrays = []
    types = dtypes or [np.dtype(flatbuffer.dtype(tensor)) for tensor in flatbuffer.inputs]
    for tensor, dtype in zip(flatbuffer.inputs, types, strict=True):
        shape = flatbuffer.shape(tensor)
        shape = (count * shape[0], *shape[1:]) if shape else ()
        arrays.append(random_array(shape, dtype, rng, _rows(flatbuffer, tensor)))
    return arrays


def random_array(
    shape: tuple[int, ...], dtype: np.dtype, rng: np.random.Generator, below: int | None = None
) -> np.ndarray:
    """Normally distributed numbers, or integers over the whole range of a type.

    Integers of 32 and 64 bits are mostly indices, so they are 0 and 1 if nothing is known about them.

    # Arguments
        shape, dtype: Of the array.
        rng: The generator.
        below: A bound for indices.
    """
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    low, high = 0, 2
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        if below:
            high = min(below, int(info.max) + 1)
        elif dtype.itemsize <= 2:
            low, high = int(info.min), int(info.max) + 1
    return rng.integers(low, high, shape).astype(dtype)


def _rows(flatbuffer: Flatbuffer, tensor: int) -> int | None:
    """Number of rows of the smallest table in which a tensor's numbers are looked up; None if there is no table."""
    found = []
    for op in flatbuffer.consumers.get(tensor, []):
        if op.name == "GATHER" and op.inputs[1] == tensor:
            found.append(flatbuffer.shape(op.inputs[0])[op.options.axis])
        elif op.name == "EMBEDDING_LOOKUP" and op.inputs[0] == tensor:
            found.append(flatbuffer.shape(op.inputs[1])[0])
        elif op.name in _HANDED_ON and op.inputs[0] == tensor:
            rows = _rows(flatbuffer, op.outputs[0])
            found += [rows] if rows else []
    return min(found, default=None)
