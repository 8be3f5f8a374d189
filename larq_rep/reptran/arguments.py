"""Adapts arguments of layers and operations that hold numbers of channels."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from larq_rep.graph import operation
from larq_rep.reptran.graph import ReptranError


def channel_axis(old: tf.TensorShape, new: tf.TensorShape) -> int:
    """The axis of the channels: the one in which the new network differs."""
    sizes = zip(old, new, strict=True)
    axes = [axis for axis, (size, found) in enumerate(sizes) if None not in (size, found) and size != found]
    return axes[0] if axes else old.rank - 1


def target_axis(node, found: tf.TensorShape) -> int | None:
    """The axis of the channels after a reshape: the one with their fastest-varying part."""
    if operation(node.layer) not in ("Reshape", "reshape"):
        return None
    before, after = node.keras_inputs[0].shape, node.outputs.shape
    behind = before[channel_axis(before, found) + 1 :]
    if None in behind or after.rank is None:
        raise refusal(node.layer, "its channels are not in the last axis, and the sizes of the axes behind are unknown")
    inner, stride = math.prod(behind), 1
    for axis in reversed(range(after.rank)):
        if after[axis] is None or stride * after[axis] > inner:
            return axis
        stride *= after[axis]
    return after.rank - 1


def widened(sizes, axis: int, width: Fraction):
    """Multiplies the size of one axis; a tensor of sizes known only at run time is not changed."""
    if isinstance(sizes, tf.Tensor):
        sizes = sizes.numpy()
    if not isinstance(sizes, (list, tuple, np.ndarray)):
        return sizes
    sizes = [int(size) if isinstance(size, (int, np.integer)) else size for size in sizes]
    if isinstance(sizes[axis], int) and sizes[axis] != -1:
        sizes[axis] = int(sizes[axis] * width)
    return sizes


class _Call(NamedTuple):
    """A call of an operation whose input now has another number of channels."""

    layer: tf.keras.layers.Layer
    shape: tf.TensorShape  # The input's shape in the original.
    target: int | None  # The axis of the channels of a reshape's output.
    width: Fraction


def _shape(call: _Call, sizes):
    assert call.target is not None
    return widened(sizes, call.target, call.width)


def _paddings(call: _Call, rows):
    return [*np.array(rows)[:-1].tolist(), widened(widened(rows[-1], 0, call.width), 1, call.width)]


def _slice_spec(call: _Call, spec):
    items = list(spec) if isinstance(spec, (tuple, list)) else [spec]
    # `None` inserts an axis.
    axes = [position for position, item in enumerate(items) if item is not None]
    if Ellipsis not in items and len(axes) < call.shape.rank:
        return spec
    piece = items[axes[-1]]
    if isinstance(piece, int):
        raise refusal(call.layer, "it takes a single channel, which is now repeated")
    if isinstance(piece, dict):
        ends = {key: piece[key] and int(piece[key] * call.width) for key in ("start", "stop")}
        items[axes[-1]] = {**piece, **ends}
    return tuple(items)


def _split_sizes(call: _Call, sizes):
    if isinstance(sizes, int):
        return sizes
    for number in range(len(sizes)):
        sizes = widened(sizes, number, call.width)
    return sizes


def _indices(call: _Call, indices):
    raise refusal(call.layer, "it takes channels by their numbers")


# For each operation the position and name of the argument with numbers of channels, and the function that changes it.
_ARGUMENTS: dict[str, tuple[int, str, Callable[[_Call, Any], Any]]] = {
    "gather": (1, "indices", _indices),
    "getitem": (1, "slice_spec", _slice_spec),
    "pad": (1, "paddings", _paddings),
    "pad_v2": (1, "paddings", _paddings),
    "reshape": (1, "shape", _shape),
    "split": (1, "num_or_size_splits", _split_sizes),
}
# Operations per channel, whose constants are repeated.
_ELEMENTWISE = ("where", "clip_by_value", "bias_add")


def _tiled(call: _Call, value):
    is_array = isinstance(value, (np.ndarray, tf.Tensor)) and len(value.shape) > 0
    if not is_array or value.shape[-1] == 1 or value.shape[-1] != call.shape[-1]:
        return value
    return np.tile(value, int(call.width))


def widen_arguments(node, args, kwargs, found: tf.TensorShape, width: Fraction):
    """Changes the arguments of an operation that hold numbers of channels, for inputs of this width."""
    symbol = getattr(node.layer, "symbol", None)
    if symbol is None:
        return args, kwargs
    name, shape = operation(node.layer), node.keras_inputs[0].shape
    call, last = _Call(node.layer, shape, target_axis(node, found), width), shape.rank - 1
    args, kwargs = list(args), dict(kwargs)
    axis = kwargs.get("axis", args[2] if name == "split" and len(args) > 2 else None)
    if name != "reshape" and channel_axis(shape, found) != last:
        return args, kwargs
    if name in ("gather", "split") and axis not in (-1, last):
        return args, kwargs
    if name in _ARGUMENTS:
        position, key, change = _ARGUMENTS[name]
        if len(args) > position:
            args[position] = change(call, args[position])
        elif key in kwargs:
            kwargs[key] = change(call, kwargs[key])
    elif width.denominator == 1 and (symbol.startswith(("math.", "__operators__.")) or name in _ELEMENTWISE):
        args = [_tiled(call, value) for value in args]
        kwargs = {key: _tiled(call, value) for key, value in kwargs.items()}
    return args, kwargs


def reason_of(error: BaseException) -> str:
    """The first line of the original error: Keras wraps errors in its own long ones."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")


def refusal(layer: tf.keras.layers.Layer, reason: str) -> ReptranError:
    return ReptranError(f"reptran: {type(layer).__name__} '{layer.name}' cannot be transformed: {reason}.")
