"""Resized inputs: what is legal for TFLite gives what a file of that size gives, and the rest is refused."""

import re

import graphs
import numpy as np
import pytest

from larq_rep.converters import executor, lce


def random_operator(graph, rng, values, transposed):
    """Adds an operator to one of the newest values; most of them the delegate claims."""
    x = values[rng.integers(max(0, len(values) - 4), len(values))]
    *size, c = graph.shape(x)
    alike = [v for v in values if graph.shape(v) == (*size, c)]
    y = alike[rng.integers(len(alike))]
    kind = rng.integers(9)
    if kind <= 1 and transposed:
        return graph.transpose(x, [0, *(1 + rng.permutation(3))] if rng.random() < 0.8 else rng.permutation(4))
    if kind == 2:
        return graph.add(str(rng.choice(["RELU", "RELU6"])), [x], (*size, c))
    if kind == 3 and c <= 100:
        return graph.tile(x, 2) if rng.random() < 0.5 else graph.concatenate([x, y])
    if kind == 4 and min(size[1:]) > 3:
        return graph.pool(str(rng.choice(["AVERAGE_POOL_2D", "MAX_POOL_2D"])), x)
    # LCE reads beyond an image whose channels are too few for a convolution.
    if kind == 5 and min(size[1:]) > 3 and not transposed and c <= 32:
        return graph.bconv(graph.quantize(x), rng, c, 24, pad_values=1, activation=int(rng.integers(4)))
    if kind == 6:
        shape = [(1,), (c,), (1, 1, 1), (1, 1, 1, c)][rng.integers(4)]
        operand = graph.constant(np.float32(rng.normal(size=shape)))
        if rng.random() < 0.3:
            return graph.prelu(x, rng.normal(size=c if rng.random() < 0.5 else 1))
    else:
        operand = y
    operands = (x, operand) if rng.random() < 0.5 else (operand, x)
    return graph.elementwise(str(rng.choice(["ADD", "MUL", "SUB"])), *operands)


def random_graph(rng):
    graph = graphs.Graph()
    transposed = rng.random() < 0.7
    shape = (int(rng.integers(1, 3)), 5, 6, int(rng.choice([7, 32, 33] if transposed else [7, 32])))
    values = [graph.input(shape) for _ in range(3)]
    for _ in range(int(rng.integers(2, 9))):
        values.append(random_operator(graph, rng, values, transposed))
    read = {t for op in graph.graph.operators for t in op.inputs}
    last = [v for v in values[3:] if v not in read or rng.random() < 0.2]
    # Signs of all, so that the delegate takes what stands before them.
    bits = [graph.quantize(v) for v in last]
    return graph, [*bits, *(v for v in last if rng.random() < 0.5)]


def resized(shape, rng):
    """Shapes for three inputs: one for all, in which single ones have lengths of 1, or another length."""
    change = rng.random(4) < 0.4
    new = np.where(change, rng.integers(1, 9, 4), shape)
    if new[3] > 8 or rng.random() < 0.6:
        new[3] = shape[3]
    shapes = np.stack([new] * 3)
    odd = rng.random(shapes.shape) < (0.15 if rng.random() < 0.5 else 0)
    shapes[odd] = rng.choice([1, 1, 1, 4], int(odd.sum()))
    return shapes


def outcome(engine, shapes, inputs):
    """The outputs, or what was said against the new shapes."""
    details = engine.get_input_details()
    for detail, shape in zip(details, shapes, strict=True):
        engine.resize_tensor_input(detail["index"], shape)
    try:
        engine.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        return str(error)
    for detail, x in zip(details, inputs, strict=True):
        engine.set_tensor(detail["index"], x)
    engine.invoke()
    return [engine.get_tensor(detail["index"]) for detail in engine.get_output_details()]


def check_resizes(seed, times):
    """Several resizes of one interpreter, each against a file whose inputs have that size, in LCE's interpreter."""
    rng = np.random.default_rng(seed)
    graph, outputs = random_graph(rng)
    shape = graph.shape(0)
    engines = [
        graphs.interpreter(graph.content(*outputs), threads=2),
        graphs.interpreter(graph.content(*outputs), fuse=0),
    ]
    legal = 0
    for _ in range(times):
        shapes = resized(shape, rng)
        inputs = [rng.normal(size=s).astype(np.float32) for s in shapes]
        for tensor, s in zip(graph.graph.inputs, shapes, strict=True):
            graph.graph.tensors[tensor].shape = [int(d) for d in s]
        try:
            expected = lce.interpreter(graph.content(*outputs)).interpreter.predict(inputs)
        except lce.RefusedError as error:
            expected = str(error)
        for engine in engines:
            found = outcome(engine, shapes, inputs)
            if isinstance(expected, str):
                assert isinstance(found, str), f"{shapes.tolist()} should be refused: {expected}"
                continue
            if isinstance(found, str):
                # LCE and TFLite take a window larger than the image, and make an image of no pixels of it.
                assert re.search(r"does not fit|of shape \([^)]*\b0\b", found), f"{shapes.tolist()} refused: {found}"
                continue
            legal += 1
            for one, other in zip(found, expected, strict=True):
                graphs.assert_same(one, other, str(shapes.tolist()))
    return legal


@pytest.mark.parametrize("seed", range(10))
def test_random_resizes(seed):
    assert check_resizes(seed, 8) > 0


@pytest.mark.slow
def test_many_random_resizes():
    assert sum(check_resizes(seed, 12) for seed in range(1000, 1200)) > 2000


def test_other_channels_behind_a_transpose():
    rng = np.random.default_rng(0)
    graph = graphs.Graph()
    y = graph.transpose(graph.input((1, 4, 5, 32)), (0, 3, 1, 2))
    y = graph.quantize(graph.elementwise("ADD", y, graph.constant(np.float32([0.25]))))
    x = rng.normal(size=(1, 6, 70, 32)).astype(np.float32)
    (found,) = outcome(graphs.interpreter(graph.content(y)), [x.shape], [x])
    np.testing.assert_array_equal(found, executor.quantize(x.transpose(0, 3, 1, 2) + np.float32(0.25)))


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ([(1, 4, 6, 32), (1, 5, 6, 32)], ["ADD", "(1, 4, 6, 32)", "(1, 5, 6, 32)", "do not go together"]),
        ([(1, 5, 6, 64), (1, 5, 6, 64)], ["ADD", "(1, 5, 6, 64)", "(32)", "do not go together"]),
        ([(1, 2, 6, 32), (1, 2, 6, 32)], ["LceBconv2d", "(1, 2, 6, 1)", "window of 3 x 3", "does not fit"]),
        ([(4096, 512, 512, 32), (1, 1, 1, 32)], ["(4096, 512, 512, 32)", "fewer than 2^29 numbers"]),
    ],
)
def test_what_is_said_against_a_resize(shapes, words):
    rng = np.random.default_rng(0)
    graph = graphs.Graph()
    y = graph.elementwise("ADD", graph.input((1, 5, 6, 32)), graph.constant(rng.normal(size=32).astype(np.float32)))
    y = graph.elementwise("ADD", y, graph.input((1, 5, 6, 32)))
    engine = graphs.interpreter(graph.content(graph.bconv(graph.quantize(y), rng, 32, 8, padding=1)))
    said = outcome(engine, shapes, [])
    assert isinstance(said, str) and all(word in said for word in ["larq-rep: operator", "tensor", *words]), said
    # What is legal still works after it.
    x = rng.normal(size=(1, 7, 4, 32)).astype(np.float32)
    assert outcome(engine, [x.shape, (1, 1, 1, 32)], [x, x[:, :1, :1]])[0].shape == (1, 5, 2, 8)
