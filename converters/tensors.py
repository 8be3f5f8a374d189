"""Looks up tensors of a frozen graph through operators that do not change their values."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

PADS = ("Pad", "PadV2", "MirrorPad")
_LAYOUT = ("ExpandDims", "Reshape", "Squeeze", "Transpose")
_BEFORE_CONVOLUTION = (*PADS, "SpaceToBatchND")  # the latter is how TensorFlow dilates
_PASS_THROUGH = ("Identity", "IdentityN", "StopGradient", "PreventGradient", "Snapshot", "EnsureShape")


def resolve(tensor: tf.Tensor) -> tf.Tensor:
    """The tensor behind identities."""
    while tensor.op.type in _PASS_THROUGH:
        tensor = tensor.op.inputs[tensor.value_index]
    return tensor


def constant_value(tensor: tf.Tensor) -> np.ndarray | None:
    return tf.get_static_value(resolve(tensor))


def unpadded(tensor: tf.Tensor) -> tf.Tensor:
    """The tensor before padding and identities."""
    tensor = resolve(tensor)
    while tensor.op.type in _BEFORE_CONVOLUTION:
        tensor = resolve(tensor.op.inputs[0])
    return tensor


def laid_out(tensor: tf.Tensor) -> tf.Tensor:
    """The tensor before padding, identities, and operators that only rearrange its values."""
    tensor = unpadded(tensor)
    while tensor.op.type in _LAYOUT:
        tensor = unpadded(tensor.op.inputs[0])
    return tensor
