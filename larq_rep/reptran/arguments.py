"""The arguments of layers and operations that hold numbers of channels."""

import math
from fractions import Fraction

import numpy as np
import tensorflow as tf

from larq_rep.graph import operation
from larq_rep.reptran.graph import ReptranError


def channel_axis(old: tf.TensorShape, new: tf.TensorShape) -> int:
    """The axis of the channels: that in which the new network differs."""
    sizes = zip(old, new, strict=True)
    axes = [axis for axis, (size, found) in enumerate(sizes) if None not in (size, found) and size != found]
    return axes[0] if axes else old.rank - 1


def target_axis(node, found: tf.TensorShape) -> int | None:
    """Where the channels are after a reshape: in the axis that has the fastest part of them."""
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
    """Sizes with that of one axis multiplied; a tensor of sizes that are known at run time only stays."""
    if isinstance(sizes, tf.Tensor):
        sizes = sizes.numpy()
    if not isinstance(sizes, (list, tuple, np.ndarray)):
        return sizes
    sizes = [int(size) if isinstance(size, (int, np.integer)) else size for size in sizes]
    if isinstance(sizes[axis], int) and sizes[axis] != -1:
        sizes[axis] = int(sizes[axis] * width)
    return sizes


def widen_arguments(node, args, kwargs, found: tf.TensorShape, width: Fraction):
    """The arguments of an operation that hold numbers of channels, for inputs of a width."""
    symbol = getattr(node.layer, "symbol", None)
    if symbol is None:
        return args, kwargs
    shape = node.keras_inputs[0].shape
    args, kwargs = list(args), dict(kwargs)

    def change(position: int, key: str, how) -> None:
        if len(args) > position:
            args[position] = how(args[position])
        elif key in kwargs:
            kwargs[key] = how(kwargs[key])

    def widened_split(sizes):
        if isinstance(sizes, int):
            return sizes
        for number in range(len(sizes)):
            sizes = widened(sizes, number, width)
        return sizes

    def widened_slice(spec):
        items = list(spec) if isinstance(spec, (tuple, list)) else [spec]
        # `None` inserts an axis.
        axes = [position for position, item in enumerate(items) if item is not None]
        if Ellipsis not in items and len(axes) < shape.rank:
            return spec
        piece = items[axes[-1]]
        if isinstance(piece, int):
            raise refusal(node.layer, "it takes a single channel, of which there are several now")
        if isinstance(piece, dict):
            ends = {key: piece[key] and int(piece[key] * width) for key in ("start", "stop")}
            items[axes[-1]] = {**piece, **ends}
        return tuple(items)

    name = operation(node.layer)
    axis = kwargs.get("axis", args[2] if name == "split" and len(args) > 2 else None)
    if name == "reshape":
        target = target_axis(node, found)
        assert target is not None
        change(1, "shape", lambda sizes: widened(sizes, target, width))
    elif channel_axis(shape, found) != shape.rank - 1:
        return args, kwargs
    elif name in ("pad", "pad_v2"):
        change(
            1,
            "paddings",
            lambda rows: [*np.array(rows)[:-1].tolist(), widened(widened(rows[-1], 0, width), 1, width)],
        )
    elif name == "getitem":
        change(1, "slice_spec", widened_slice)
    elif name == "split" and axis in (-1, shape.rank - 1):
        change(1, "num_or_size_splits", widened_split)
    elif name == "gather" and axis in (-1, shape.rank - 1):
        raise refusal(node.layer, "it takes channels by their numbers")
    elif width.denominator == 1 and (
        symbol.startswith(("math.", "__operators__.")) or name in ("where", "clip_by_value", "bias_add")
    ):

        def tiled(value):
            is_array = isinstance(value, (np.ndarray, tf.Tensor)) and len(value.shape) > 0
            if not is_array or value.shape[-1] == 1 or value.shape[-1] != shape[-1]:
                return value
            return np.tile(value, int(width))

        args = [tiled(value) for value in args]
        kwargs = {key: tiled(value) for key, value in kwargs.items()}
    return args, kwargs


def reason_of(error: BaseException) -> str:
    """The first line of what was wrong first: Keras wraps errors in long ones of its own."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")


def refusal(layer: tf.keras.layers.Layer, reason: str) -> ReptranError:
    return ReptranError(f"reptran: {type(layer).__name__} '{layer.name}' cannot be transformed: {reason}.")
