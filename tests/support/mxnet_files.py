"""Files of parameters in the layout of MXNet, written without it."""

import struct


def params(arrays, version=0xF993FAC9):
    """A file of `save_parameters`, from the description of the layout in MXNet's sources."""
    kinds = {"float32": 0, "float64": 1, "float16": 2, "uint8": 3, "int32": 4, "int8": 5, "int64": 6}
    parts = [struct.pack("<QQQ", 0x112, 0, len(arrays))]
    for array in arrays.values():
        parts.append(struct.pack("<I", version) + (struct.pack("<i", 0) if version != 0xF993FAC8 else b""))
        parts.append(struct.pack(f"<i{array.ndim}q", array.ndim, *array.shape))
        parts.append(struct.pack("<iii", 1, 0, kinds[str(array.dtype)]) + array.tobytes())
    parts.append(struct.pack("<Q", len(arrays)))
    parts += [struct.pack("<Q", len(name)) + name.encode() for name in arrays]
    return b"".join(parts)
