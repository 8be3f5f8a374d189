"""Finds multiplications of channels that the graph can do without: the counterpart of `folding.offsets`.

Every float tensor `t` of the file may hold `t / s` instead, with a scale `s` for each channel (the last axis).

| operator | scale of the output |
|---|---|
| `MUL` by a constant `c`, left out | `c * s` |
| `ADD` of two tensors | their scale, if it is the same |
| `ADD`, `SUB` of a constant `c` | `s`, with `c / s` instead |
| `PRELU`, `LEAKY_RELU`, `RELU` and max-pooling | `s`, if it is positive |
| average pooling, `MEAN` over rows and columns, `TILE`, `CONCATENATION`, ... | its channels' scales, in the new order |
| `LceQuantize` | none: a positive scale changes no sign |
| `CONV_2D`, `DEPTHWISE_CONV_2D`, `FULLY_CONNECTED` | their weights take the scale of the input, for int8 an even one |
| `LceBconv2d`, `CONV_2D`, `DEPTHWISE_CONV_2D`, `FULLY_CONNECTED` | anything: multiplier or weights, and bias |
| the others | none, and their input must have none |

A multiplication of a sum of convolutions, as a map of several bits has (`converters.planes`), goes into all of them.

A multiplication behind a `TILE`, as a Rep network has for each convolution, goes into the convolution if all copies of
a channel are multiplied by the same number (as before training), and is removed if only signs see it. It stays where
weights of few levels would lose these, which take a quarter of the bytes (`float_weights`). Otherwise it must
stay before a shortcut addition: the convolution has one multiplier for all copies, and scaling the shortcut instead
also takes a multiplication.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from larq_compute_engine.mlir.python import tflite_schema as schema

from larq_rep.converters.flatbuffer import Operator
from larq_rep.converters.float_weights import exactly
from larq_rep.converters.folding.channels import CONVOLUTIONS, ChannelGraph, close

_RELU = schema.ActivationFunctionType.RELU
_CLIP = schema.ActivationFunctionType.RELU_N1_TO_1
# Beyond these, constants divided by a factor would leave float32's range sooner or later.
_SMALLEST_FACTOR, _LARGEST_FACTOR = 2.0**-16, 2.0**16
# Without their factors, channels that differ by more, and the weights by as much, would lose over two of int8's bits.
_INT8_SPREAD = 4.0


@dataclass
class Scaling:
    """The multiplications to leave out, and the scales that result.

    # Attributes
        left_out: Indices of the multiplications that are left out.
        convolutions: The scale that the output of a convolution is given, by the index of the operator.
        scales: The scale of each tensor that has one.
    """

    left_out: frozenset[int] = frozenset()
    convolutions: dict[int, np.ndarray] = field(default_factory=dict)
    scales: dict[int, np.ndarray] = field(default_factory=dict)


def best_scaling(graph: ChannelGraph, int8: bool = False) -> Scaling:
    """Leaves out every multiplication that it can, for `int8` not those that a real-valued convolution's input needs.

    There one scale holds for all channels of the input, and for all weights of an output channel.
    """
    best = Scaling()
    largest_spread = _INT8_SPREAD if int8 else np.inf
    for op in graph.flatbuffer.operators:
        vector = graph.vectors.get(op.index)
        if op.name != "MUL" or vector is None or not graph.plain(op):
            continue
        size = np.abs(vector[1])
        if size.min() < _SMALLEST_FACTOR or size.max() > _LARGEST_FACTOR:
            continue
        left_out = best.left_out | {op.index}
        tried = [best.convolutions]
        if (sources := _sources(graph, op)) and not sources.keys() & best.convolutions.keys():
            tried.append(best.convolutions | {index: 1 / factor for index, factor in sources.items()})
        for convolutions in tried:
            scales = _propagate(graph, left_out, convolutions, largest_spread)
            scaling = None if scales is None else Scaling(left_out, convolutions, scales)
            if scaling is not None and not _loses_levels(graph, scaling):
                best = scaling
                break
    return best


def scaled_weights(graph: ChannelGraph, scaling: Scaling, op: Operator) -> np.ndarray | None:
    """The new weights of a real-valued convolution or dense layer, if they change."""
    before, after = scaling.scales.get(op.inputs[0]), scaling.convolutions.get(op.index)
    weights = graph.flatbuffer.constant(op.inputs[1])
    if weights is None or (before is None and after is None):
        return None
    weights, depthwise = weights.astype(np.float64), op.name == "DEPTHWISE_CONV_2D"
    if before is not None:
        weights *= np.repeat(before, weights.shape[-1] // len(before)) if depthwise else before
    if after is not None:
        weights /= after if depthwise else after.reshape(-1, *[1] * (weights.ndim - 1))
    return weights.astype(np.float32)


def _loses_levels(graph: ChannelGraph, scaling: Scaling) -> bool:
    """Whether weights of few levels, which int8 holds without loss, would get others."""
    for op in graph.flatbuffer.operators:
        weights = scaled_weights(graph, scaling, op) if op.name in CONVOLUTIONS else None
        if weights is not None and exactly(weights, op.name) is None:
            old = graph.flatbuffer.constant(op.inputs[1])
            if old is not None and exactly(old, op.name) is not None:
                return True
    return False


def needless_clip(graph: ChannelGraph, op: Operator) -> bool:
    """Whether an operator clips to [-1, 1] values that only signs see."""
    clips = op.name == "RELU_N1_TO_1" or getattr(op.options, "fusedActivationFunction", 0) == _CLIP
    readers = graph.flatbuffer.consumers.get(op.outputs[0], [])
    outside = op.outputs[0] in graph.flatbuffer.outputs or not graph.is_float(op.outputs[0])
    return clips and not outside and bool(readers) and all(reader.name == "LceQuantize" for reader in readers)


def _sources(graph: ChannelGraph, op: Operator) -> dict[int, np.ndarray]:
    """The convolutions whose outputs a multiplication rearranges or adds up, and a factor for each channel of theirs.

    If copies of a channel are multiplied by different numbers, it is the factor of one of them. There are none if the
    multiplication has other sources, too.
    """
    vector = graph.vectors[op.index]
    found: dict[int, np.ndarray] = {}
    pending = [(op.inputs[vector[0]], vector[1])]
    while pending:
        tensor, factor = pending.pop()
        producer = graph.flatbuffer.producers.get(tensor)
        if producer is None:
            return {}
        channels = graph.maps[producer.index][0]
        if graph.bias(producer) is not None:
            if not _scalable(graph, producer, factor):
                return {}
            found[producer.index] = factor
        elif graph.adds_constant(producer):
            pending.append((producer.inputs[graph.vectors[producer.index][0]], factor))
        elif _adds_up(graph, producer):
            pending += [(t, factor) for t in producer.inputs]
        elif channels is not None and len(producer.outputs) == 1 and (channels >= 0).all():
            pulled = np.ones(graph.width(producer.inputs[0]))
            pulled[channels] = factor
            pending.append((producer.inputs[0], pulled))
        else:
            return {}
    return found


def _adds_up(graph: ChannelGraph, op: Operator) -> bool:
    """Whether an operator adds tensors that nothing else reads, as the convolutions of a map of several bits."""
    return (
        op.name == "ADD"
        and graph.plain(op)
        and graph.same_width(op)
        and all(graph.is_data(t) and len(graph.flatbuffer.consumers[t]) == 1 for t in op.inputs)
    )


def _scalable(graph: ChannelGraph, op: Operator, factor: np.ndarray) -> bool:
    if op.name == "LceBconv2d":
        multiplier = graph.flatbuffer.constant(op.inputs[2])
        return graph.plain(op) and multiplier is not None and multiplier.shape == factor.shape
    activation = op.options.fusedActivationFunction
    return _has_weights(graph, op) and (activation == 0 or (activation == _RELU and bool((factor > 0).all())))


def _has_weights(graph: ChannelGraph, op: Operator) -> bool:
    """Whether the weights of a real-valued convolution can be changed."""
    weights = graph.flatbuffer.constant(op.inputs[1])
    return weights is not None and weights.dtype == np.float32 and graph.bias(op) is not None


def _propagate(
    graph: ChannelGraph, left_out: frozenset[int], convolutions: dict[int, np.ndarray], largest_spread: float
) -> dict[int, np.ndarray] | None:
    """The scale of each tensor, or `None` if there is one where there must be none."""
    scales: dict[int, np.ndarray] = {}
    outputs = set(graph.flatbuffer.outputs)
    for op in graph.flatbuffer.operators:
        data = [t for t in op.inputs if t in scales]
        if op.index in convolutions:
            scales[op.outputs[0]] = convolutions[op.index]
        if op.index in left_out:
            vector = graph.vectors[op.index]
            scales[op.outputs[0]] = vector[1] * scales.get(op.inputs[vector[0]], 1.0)
        elif data:
            positive = all((scales[t] > 0).all() for t in data)
            if op.name in CONVOLUTIONS:
                # Otherwise it is grouped, or flattens its input.
                fits = op.name == "DEPTHWISE_CONV_2D" or (
                    graph.flatbuffer.shape(op.inputs[1])[-1] == graph.width(op.inputs[0])
                )
                if not fits or not _has_weights(graph, op) or data != [op.inputs[0]]:
                    return None
                size = np.abs(scales[op.inputs[0]])
                if size.max() > largest_spread * size.min():
                    return None
            elif op.name == "LceQuantize":
                if not positive:
                    return None
            else:
                result = _scale_of_output(graph, op, scales, positive)
                if result is None:
                    return None
                scales.update(result)
        for tensor in op.outputs:
            if tensor in scales and close(scales[tensor], 1):
                del scales[tensor]
            elif tensor in scales and tensor in outputs:
                return None
    return scales


def _scale_of_output(
    graph: ChannelGraph, op: Operator, scales: dict[int, np.ndarray], positive: bool
) -> dict[int, np.ndarray] | None:
    activation = getattr(op.options, "fusedActivationFunction", 0)
    if activation not in (0, _RELU) or (activation == _RELU and not positive):
        return None
    channels = [c for c in graph.maps[op.index] if c is not None]
    output = op.outputs[0]
    if graph.vectors.get(op.index) is not None:
        return {output: scales[op.inputs[graph.vectors[op.index][0]]]}
    if op.name in ("ADD", "SUB"):
        first, second = (scales.get(t) for t in op.inputs)
        if graph.same_width(op) and first is not None and second is not None:
            return {output: first} if close(first, second) else None
    elif op.name in ("PRELU", "LEAKY_RELU", "RELU"):
        if positive and op.inputs[0] in scales:
            return {output: scales[op.inputs[0]]}
    elif op.name == "CONCATENATION":
        if op.options.axis in (-1, len(graph.flatbuffer.shape(output)) - 1):
            return {output: np.concatenate([scales.get(t, np.ones(graph.width(t))) for t in op.inputs])}
    elif len(channels) == len(op.outputs) and (positive or op.name != "MAX_POOL_2D"):
        scale = scales[op.inputs[1] if op.name == "SPLIT" else op.inputs[0]]
        return {t: np.where(c < 0, 1, scale[c]) for t, c in zip(op.outputs, channels, strict=True)}
    return None
