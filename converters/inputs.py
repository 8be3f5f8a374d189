"""Inputs of a model and of its file: arrays of any number, shape and type."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias, cast

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
    arrays = [np.asarray(array) for array in in_order(inputs, model)]
    shapes = [tuple(x.shape.as_list()) for x in graph.inputs]
    return _runs(arrays, list(model.input_names), shapes, [np.dtype(x.dtype.as_numpy_dtype) for x in graph.inputs])


def file_batches(inputs: Inputs, flatbuffer: Flatbuffer) -> list[list[np.ndarray]]:
    """The arrays of each run of a file, as `batches` has them for a model.

    # Raises
        IncomparableError: If number, names, shapes or types are not the file's.
    """
    tensors = flatbuffer.inputs
    names = [flatbuffer.name(tensor) for tensor in tensors]
    arrays = [np.asarray(array) for array in _ordered(inputs, names, names)]
    dtypes = [np.dtype(flatbuffer.dtype(tensor)) for tensor in tensors]
    return _runs(arrays, names, [flatbuffer.shape(tensor) for tensor in tensors], dtypes)


def in_batches(
    inputs: Inputs | Iterable[Inputs], count: int, runs: Callable[[Inputs], list[list[np.ndarray]]]
) -> list[list[np.ndarray]]:
    """The arrays of each run, from inputs in one piece or in batches.

    # Arguments
        inputs: An array, a dictionary, for several inputs a list of as many arrays; or an iterable of these.
        count: The number of inputs.
        runs: The arrays of each run, from inputs in one piece.
    """
    several = isinstance(inputs, Sequence) and len(inputs) == count > 1
    if several and isinstance(inputs[0], Sequence | Mapping):  # type: ignore[index]
        several = False  # It has as many batches as there are inputs.
    if isinstance(inputs, np.ndarray | tf.Tensor | Mapping) or several:
        return runs(cast(Inputs, inputs))
    found = []
    for batch in inputs:
        single = isinstance(batch, np.ndarray | tf.Tensor)
        if isinstance(batch, tuple | list) and len(batch) == 2 and count == 1:
            raise IncomparableError(
                "Expected batches of images alone, found pairs: leave out the labels with "
                "dataset.map(lambda images, labels: images)."
            )
        found += runs(np.asarray(batch) if single else batch)
    return found


def _runs(
    arrays: list[np.ndarray], names: list[str], shapes: list[tuple[int, ...]], dtypes: list[np.dtype]
) -> list[list[np.ndarray]]:
    typed = [_typed(array, dtype, name) for array, dtype, name in zip(arrays, dtypes, names, strict=True)]
    counts = {}
    for array, shape, name in zip(typed, shapes, names, strict=True):
        batch, *rest = shape
        if array.ndim != len(rest) + 1 or list(array.shape[1:]) != rest or not len(array) or len(array) % batch:
            first = "N" if batch == 1 else f"a multiple of {batch}"
            wanted = ", ".join([first, *map(str, rest)])
            raise IncomparableError(f"Expected {_what(names, name)} of shape ({wanted}), found {array.shape}.")
        counts[name] = len(array) // batch
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{count} for {name!r}" for name, count in counts.items())
        raise IncomparableError(f"Expected the same number of entries for each input, found {found}.")
    return [
        [a[i * shape[0] : (i + 1) * shape[0]] for a, shape in zip(typed, shapes, strict=True)]
        for i in range(next(iter(counts.values())))
    ]


def in_order(inputs: Inputs, model: tf.keras.Model) -> list[np.ndarray]:
    """The arrays in the order of the model's inputs.

    # Raises
        IncomparableError: If there are others than the model has inputs.
    """
    names = list(model.input_names)
    # A model may be built with a dictionary, whose keys TensorFlow sorts; Keras then also takes those.
    return _ordered(inputs, names, sorted(model.input) if isinstance(model.input, dict) else names)


def _ordered(inputs: Inputs, names: list[str], keys: list[str]) -> list[np.ndarray]:
    if isinstance(inputs, Mapping):
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


def _typed(array: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
    """The array in the type of an input: any number may become a real one, an integer another one that holds it."""
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
        stored = quantized.integers(flatbuffer, tensor, array)
        for_file.append(stored)
        for_model.append(array if stored is array else quantized.real(flatbuffer, tensor, stored))
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
