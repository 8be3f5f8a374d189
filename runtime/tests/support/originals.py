"""The sound files that are damaged for the tests: small ones, with everything that the delegate takes."""

from __future__ import annotations

import graphs
import numpy as np
import support

import larq_rep.zoo
from larq_rep.converters import convert


def block() -> bytes:
    """A repeated convolution with scale, shift, shortcut and PReLU, and a second one on its packed signs."""
    rng = np.random.default_rng(0)
    graph = graphs.Graph()
    x = graph.input((1, 5, 5, 32))
    y = graph.tile(graph.bconv(graph.quantize(x), rng, 32, 16), 2)
    y = graph.elementwise("MUL", y, graph.constant(rng.normal(size=32).astype(np.float32)))
    y = graph.elementwise("ADD", y, graph.constant(rng.normal(size=32).astype(np.float32)))
    y = graph.prelu(graph.elementwise("ADD", y, x), rng.normal(size=32))
    z = graph.bconv(graph.quantize(y), rng, 32, 20, kernel=(1, 1), strides=(2, 2), padding=1, activation=1)
    return graph.content(z, y)


def packed() -> bytes:
    """Signs as results, their maximum, int8, grouped weights, and back to numbers."""
    rng = np.random.default_rng(1)
    graph = graphs.Graph()
    x = graph.input((1, 6, 4, 64), np.int8, (0.5, 3))
    bits = graph.bconv(graph.quantize(x), rng, 64, 64, padding=0, pad_values=1, groups=2, output="bits")
    pool = dict(filter_height=2, filter_width=2, padding=1, stride_height=2, stride_width=2)
    bits = graph.add("LceBMaxPool2d", [bits], (1, 3, 2, 2), np.int32, pool)
    y = graph.bconv(bits, rng, 64, 24, kernel=(2, 2), padding=1, output="int8")
    wide = graph.add("LceDequantize", [bits], (1, 3, 2, 64), np.float32)
    return graph.content(y, wide, graph.quantize(y))


def dense() -> bytes:
    """Concatenations and a pooling, as of BinaryDenseNet and of the blocks that double the channels."""
    rng = np.random.default_rng(2)
    graph = graphs.Graph()
    x = graph.input((1, 6, 6, 32))
    pooled = graph.average_pool(x)
    one = graph.elementwise("SUB", graph.bconv(graph.quantize(pooled), rng, 32, 16), graph.constant(np.float32([3])))
    two = graph.add("RELU", [graph.bconv(graph.quantize(pooled), rng, 32, 32, dilations=(2, 1))], (1, 3, 3, 32))
    y = graph.concatenate([pooled, one, two])
    z = graph.bconv(graph.quantize(y), rng, 80, 80)
    return graph.content(graph.elementwise("MUL", y, z, activation=3))


def chain() -> bytes:
    """A TRANSPOSE before, far taps, and two repetitions and more operators behind than a pass holds."""
    rng = np.random.default_rng(3)
    graph = graphs.Graph()
    x = graph.transpose(graph.input((1, 6, 32, 5)), (0, 3, 1, 2))
    y = graph.bconv(graph.quantize(graph.elementwise("ADD", x, graph.constant(np.float32([0.5])))), rng, 32, 8,
                    dilations=(16_000, 2))  # fmt: skip
    y = graph.tile(graph.tile(y, 2), 2)
    for i in range(30):
        y = graph.elementwise(("ADD", "MUL", "SUB")[i % 3], y, graph.constant(rng.normal(size=32).astype(np.float32)))
    return graph.content(graph.elementwise("ADD", y, x), graph.quantize(y))


def network() -> bytes:
    """A whole network of the zoo, made narrow."""
    content, _ = convert(support.randomize(larq_rep.zoo.ResNet20(input_shape=(16, 16, 3), width=4)))
    return content


ALL = {"block": block, "packed": packed, "dense": dense, "chain": chain, "network": network}
