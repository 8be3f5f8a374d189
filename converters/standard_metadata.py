"""What TFLite's own Metadata schema can say of a file, for Android's and other tools.

It knows the normalisation of pixels 0 to 255, colours and size of the image, names of tensors and classes; it knows no
resize, crop or mirror, which `larq_rep.converters.metadata` has.

# References
    - [TensorFlow Lite Metadata](https://ai.google.dev/edge/litert/models/metadata)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np

from larq_rep import __version__
from larq_rep.converters import metadata
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.images import Preparation

NAME = b"TFLITE_METADATA"
LABELS = "labels.txt"
_IDENTIFIER = b"M001"
# All that is written here is in the first version of the schema.
_MIN_PARSER_VERSION = "1.0.0"
# Values of the schema's enums and unions.
_FEATURE, _IMAGE, _NORMALIZATION, _AXIS_LABELS = np.uint8(1), np.uint8(2), np.uint8(1), np.int8(2)
_COLOURS = {3: np.int8(1), 1: np.int8(2)}

# A table: its values by the number of their field in the schema.
_Table = dict[int, Any]


def add(flatbuffer: Flatbuffer, network: str, preparation: Preparation | None, classes: Sequence[str] | None) -> None:
    """Adds a buffer `TFLITE_METADATA`, and the names of the classes as an associated file.

    # Arguments
        flatbuffer: The file.
        network: Its name.
        preparation: How its images are prepared, if that is known.
        classes: The names of its classes, if they are known.
    """
    inputs, outputs = ([_tensor(flatbuffer, i) for i in indices] for indices in (flatbuffer.inputs, flatbuffer.outputs))
    if preparation is not None:
        inputs[0] |= _image(preparation)
    if classes is not None:
        outputs[0] |= _scores()
        flatbuffer.files[LABELS] = "".join(f"{' '.join(name.splitlines())}\n" for name in classes).encode()
    subgraph = {2: inputs, 3: outputs}
    model = {0: network, 1: f"Converted by larq-rep {__version__}.", 3: [subgraph], 7: _MIN_PARSER_VERSION}
    builder = flatbuffers.Builder(1024)
    builder.Finish(_written(builder, model), file_identifier=_IDENTIFIER)
    metadata.add(flatbuffer, NAME, bytes(builder.Output()))


def _tensor(flatbuffer: Flatbuffer, index: int) -> _Table:
    return {0: flatbuffer.name(index)}


def _image(preparation: Preparation) -> _Table:
    """The fields of an image: with levels p, `(p - mean) / std` is what the network takes."""
    low, high = preparation.range
    channels = preparation.channels
    level = 255 / (high - low)
    means, stds = preparation.mean or (0.0,) * channels, preparation.std or (1.0,) * channels
    normalization = {0: [level * (mean - low) for mean in means], 1: [level * std for std in stds]}
    height, width = preparation.size
    colours = "grey" if channels == 1 else "RGB"
    return {
        1: f"An image, {colours}: {preparation.text}.",
        3: {0: _IMAGE, 1: {0: _COLOURS[channels], 1: {0: np.uint32(width), 1: np.uint32(height)}}},
        4: [{0: _NORMALIZATION, 1: normalization}],
    }


def _scores() -> _Table:
    labels = {0: LABELS, 1: "The names of the classes, one a line.", 2: _AXIS_LABELS}
    return {1: "A number for each class.", 3: {0: _FEATURE, 1: {}}, 6: [labels]}


def _written(builder: flatbuffers.Builder, value: Any) -> int:
    """The position of a text, a list of numbers or tables, or a table."""
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, list):
        if all(isinstance(item, float) for item in value):
            return builder.CreateNumpyVector(np.array(value, np.float32))
        items = [_written(builder, item) for item in value]
        builder.StartVector(4, len(items), 4)
        for item in reversed(items):
            builder.PrependUOffsetTRelative(item)
        return builder.EndVector()
    # Tables cannot be nested in flatbuffers: what they refer to is written first.
    parts = {field: part if isinstance(part, np.integer) else _written(builder, part) for field, part in value.items()}
    builder.StartObject(max(parts, default=-1) + 1)
    for field, part in parts.items():
        if isinstance(part, np.uint8):
            builder.PrependUint8Slot(field, int(part), 0)
        elif isinstance(part, np.int8):
            builder.PrependInt8Slot(field, int(part), 0)
        elif isinstance(part, np.uint32):
            builder.PrependUint32Slot(field, int(part), 0)
        else:
            builder.PrependUOffsetTRelativeSlot(field, part, 0)
    return builder.EndObject()
