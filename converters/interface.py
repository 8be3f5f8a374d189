"""Names of a model's inputs and outputs, and how a file carries them.

LCE's converter numbers outputs (`Identity_1`), and by way of a SavedModel it may permute them. A file of this package
has inputs and outputs in the order of `model.inputs` and `model.outputs`, with the model's names both for its tensors
and in a TFLite signature.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from larq_compute_engine.mlir.python import tflite_schema as schema

from larq_rep.converters.flatbuffer import Flatbuffer

SIGNATURE = "serving_default"


@dataclass(frozen=True)
class Interface:
    """Names of a model's inputs and outputs, each unique, in the order of `model.inputs` and `model.outputs`.

    A tensor in a dictionary is named after its key, followed by the path below it if it is nested: `{"boxes": [x, y]}`
    gives `boxes_0` and `boxes_1`. A tensor in a list or tuple has the name that Keras gives it, the name of its layer.
    A name that is already taken gets a number.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @classmethod
    def of(cls, model: tf.keras.Model) -> Interface:
        return cls(_names(model.input, model.input_names), _names(model.output, model.output_names))


def attach(flatbuffer: Flatbuffer, interface: Interface) -> None:
    """Gives a file these names, and the signature `serving_default`.

    With it `interpreter.get_signature_runner()` of TFLite and LiteRT takes and returns tensors by name.
    """
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = SIGNATURE.encode(), 0
    # Outputs first: one that is also an input keeps the name of the input.
    signature.outputs = _maps(flatbuffer, flatbuffer.outputs, interface.outputs)
    signature.inputs = _maps(flatbuffer, flatbuffer.inputs, interface.inputs)
    flatbuffer.model.signatureDefs = [signature]


def _maps(flatbuffer: Flatbuffer, tensors: list[int], names: tuple[str, ...]) -> list[schema.TensorMapT]:
    result = []
    # Backwards: a tensor that occurs twice gets the first of its names.
    for tensor, name in reversed(list(zip(tensors, names, strict=True))):
        flatbuffer.subgraph.tensors[tensor].name = name.encode()
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name.encode(), tensor
        result.append(entry)
    return result[::-1]


def _names(structure: Any, names_of_layers: list[str]) -> tuple[str, ...]:
    taken: dict[str, None] = {}
    for path, layer in zip(_paths(structure), names_of_layers, strict=True):
        wanted = "_".join(path) or layer
        name, count = wanted, 0
        while name in taken:
            count += 1
            name = f"{wanted}_{count}"
        taken[name] = None
    return tuple(taken)


def _paths(structure: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path to each tensor in the order of `tf.nest`: keys, and below a key also positions."""
    if isinstance(structure, Mapping):
        for key in sorted(structure):
            yield from _paths(structure[key], (*path, str(key)))
    elif isinstance(structure, list | tuple):
        fields = getattr(structure, "_fields", range(len(structure)))
        for field, part in zip(fields, structure, strict=True):
            yield from _paths(part, (*path, str(field)) if path or isinstance(field, str) else ())
    else:
        yield path
