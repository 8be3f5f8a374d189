"""Explains why a part of a model does not convert, and what to write instead."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from larq_rep.converters import matching
from larq_rep.converters.control_flow import BRANCHES, LOOPS
from larq_rep.converters.graph import FrozenGraph, Site
from larq_rep.converters.tensors import inputs_first, laid_out, resolve

_PLACES = (
    "LCE packs ordinary 2-D convolutions only; write it as QuantConv2D, with the third axis among the channels (by a "
    "Reshape before the sign), or leave it real-valued"
)
# Kinds of layers that LCE does not pack.
_OTHER_CONVOLUTIONS = {
    "depthwise convolution": (
        "LCE packs ordinary 2-D convolutions only, and groups of a multiple of 32 channels; write it as QuantConv2D, "
        "with groups=channels // 32 if it should stay small"
    ),
    "1-D depthwise convolution": (
        "LCE packs ordinary convolutions only, and groups of a multiple of 32 channels; write it as QuantConv1D, with "
        "groups=channels // 32 if it should stay small"
    ),
    "3-D convolution": _PLACES,
    "transposed 3-D convolution": _PLACES,
}


def why_float(site: Site, kernel: np.ndarray, graph: FrozenGraph, log: str) -> str:
    """Why LCE did not pack a binary convolution, and what to do."""
    if advice := other_convolution(site.kind):
        return advice
    by_layer = getattr(graph.layer_at(site.layer), "data_format", "")  # Keras transposes maps for some of its layers
    if site.kind != "dense layer" and (by_layer == "channels_first" or site.node.get_attr("data_format") == b"NCHW"):
        return (
            "it computes with data_format='channels_first', and LCE packs channels_last only; build the model with "
            "channels_last, where the weights have the same shapes"
        )
    rewritings = graph.phases, graph.convolved, graph.lowering
    known = next((reason for r in rewritings if (reason := r.reasons.get(site.node.name))), "")
    return known or why_kernel(site, kernel) or _why_input(site, graph, log)


def other_convolution(kind: str) -> str:
    """Advice about a layer of a kind that LCE does not pack; empty for others."""
    return _OTHER_CONVOLUTIONS.get(kind, "")


def why_kernel(site: Site, kernel: np.ndarray) -> str:
    """What is wrong with the binary weights of a convolution, or nothing."""
    kernel = inputs_first(site.node, kernel)
    if reason := why_weights(kernel):
        transposed = site.kind == "transposed convolution"
        if transposed and matching.two_valued(kernel.swapaxes(2, 3)) and not matching.two_valued(kernel):
            return (
                "its weights have a scale for each input channel (the last axis of a transposed kernel), and LCE needs "
                "one for each output channel; use kernel_quantizer='ste_sign' and a batch normalization behind"
            )
        return reason
    if kernel.size == kernel.shape[-1] and site.kind == "dense layer":
        return "it has one input, so that it multiplies it with any number; use kernel_quantizer='ste_sign', or None"
    in_channels, per_group = site.x.shape[-1], kernel.shape[-2]
    if in_channels != per_group and per_group % 32:
        return f"its groups have {per_group} input channels, and LCE needs a multiple of 32"
    return ""


def why_weights(kernel: np.ndarray) -> str:
    """What is wrong with binary weights whose last axis is that of the output channels, or nothing."""
    magnitude = np.abs(kernel.reshape(-1, kernel.shape[-1]))
    if zeros := int(np.sum(magnitude == 0)):
        dead = int(np.sum(magnitude.max(axis=0) == 0))
        if dead:
            return f"{dead} output channels have only zero weights, so their scale is 0; train or drop them"
        if not (kernel < 0).any():
            return (
                f"its weights are 0 and +s, where LCE needs -s or +s ({zeros} weights are exactly 0; ste_heaviside and "
                "DoReFa's activations give that); use kernel_quantizer='ste_sign' or another with -1 and +1"
            )
        return (
            f"{zeros} weights are exactly 0, where LCE needs -s or +s (tf.sign(0) is 0 too); use a quantizer with "
            "sign(0) = +1, such as larq's ste_sign"
        )
    if (smallest := magnitude.min()) <= 1.2e-7:
        return (
            f"its smallest scale is {smallest:.1e}, and LCE needs more than 1.2e-07; move the scale to the batch norm"
        )
    if np.any(np.abs(magnitude / magnitude[0] - 1) > 0.005):
        return (
            "the weights of an output channel differ in magnitude; LCE needs one scale for each output channel "
            "(none for input channels) within 0.5 %"
        )
    return ""


def _why_input(site: Site, graph: FrozenGraph, log: str) -> str:
    node = resolve(site.x).op
    between = [node.type for node in operators_between(site, graph)]
    if between and between[0] in ("Pad", "PadV2", "MirrorPad"):
        return (
            "explicit padding stands between the sign and the convolution; use padding='same' with pad_values, or "
            "pad before the sign"
        )
    if between:
        return f"{' and '.join(between)} stands between the sign and the {site.kind}; put it before the sign"
    if site.kind != "dense layer" and site.node.get_attr("padding") == b"EXPLICIT":
        return "it pads explicitly; use padding='same' with pad_values, or pad before the sign"
    if graph.sign_of(site.x) is None:
        values = [f"{value:g}" for value in np.unique(graph.on_noise([laid_out(site.x)])[0])]
        if values != ["-1", "1"]:
            return (
                f"its input has the values {' and '.join(values)}; they are not -1 and +1, with which LCE computes "
                "(ste_heaviside gives 0 and 1): use input_quantizer='zero_one_sign' or DoReFa(1), whose 0 and 1 become "
                "signs, or 'ste_sign' or another that gives -1 and +1, and train with it; a batch normalization behind "
                "takes up the difference"
            )
        return (
            f"its input is -1 and +1, but made by {node.type} in a form LCE does not recognise; use a quantizer of "
            "larq or larq_rep with both, such as 'ste_sign', or tf.where(x >= 0, 1.0, -1.0)"
        )
    return "the converter gave no reason" + (f"; it printed: {log.strip()}" if log.strip() else "")


def operators_between(site: Site, graph: FrozenGraph) -> list[tf.Operation]:
    """Operators between the sign and the convolution, the one nearest to the convolution first."""
    outputs = {sign.output.op.name for sign in graph.signs}
    found: list[tf.Operation] = []
    node = resolve(site.x).op
    if node.type == "SpaceToBatchND":  # TensorFlow's way of dilating
        node = resolve(node.inputs[0]).op
    while node.name not in outputs and node.name in graph.data_dependent and len(found) < 8:
        found.append(node)
        sources = [resolve(x).op for x in node.inputs if x.op.name in graph.data_dependent]
        if not sources:
            return []
        node = sources[0]
    return found if node.name in outputs else []


def why_control_flow(graph: FrozenGraph) -> dict[str, str]:
    """Layers with loops and branches that depend on the input, which the file cannot hold, and what to do."""
    found = {}
    for node in graph.nodes:
        if node.name not in graph.data_dependent:
            continue
        path = graph.layer_of(node)
        if node.type in LOOPS:
            found[path] = _why_loop(graph.layer_at(path))
        elif node.type in BRANCHES:
            found[path] = (
                "it branches on what it computes (tf.cond, or an if of AutoGraph), and a file of LCE has one graph; "
                "compute both and choose with tf.where"
            )
    return found


def _why_loop(layer: Any) -> str:
    layer = getattr(layer, "layer", layer)  # Bidirectional
    about = "it goes through its steps in a loop, and a file of LCE has one graph without loops; "
    if isinstance(layer, tf.keras.layers.ConvLSTM1D | tf.keras.layers.ConvLSTM2D | tf.keras.layers.ConvLSTM3D):
        return about + (
            "Keras cannot unroll it: call its cell, layer.cell(x[:, i], states), once for each step in a layer of your "
            "own"
        )
    if isinstance(layer, tf.keras.layers.RNN):
        return about + "give it unroll=True and a fixed number of steps (the weights stay the same)"
    return about + "write it as a for loop of Python over a fixed number of steps (range, not tf.range)"
