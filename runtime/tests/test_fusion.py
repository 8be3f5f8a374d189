"""Passes over convolutions and what follows them: the same bits as TFLite's own operators give one after the other."""

import graphs
import numpy as np
import pytest
from larq_rep_runtime import available_implementations

from larq_rep.converters import lce

IMPLEMENTATIONS = available_implementations()


def constant(graph, rng, channels):
    return graph.constant(rng.normal(size=channels).astype(np.float32))


def activated(graph, rng, x):
    """Shift, PReLU and shift, as RPReLU converts."""
    channels = graph.shape(x)[-1]
    x = graph.elementwise("ADD", x, constant(graph, rng, channels))
    return graph.elementwise("ADD", graph.prelu(x, rng.normal(size=channels)), constant(graph, rng, channels))


def signs(graph, rng, x):
    return graph.quantize(graph.elementwise("ADD", x, constant(graph, rng, graph.shape(x)[-1])))


def rep_block(rng, channels, times=4, size=8):
    """A stride-2 block of Rep-ReActNet-A that doubles the channels, with its pooled shortcut."""
    graph = graphs.Graph()
    x = activated(graph, rng, graph.input((1, size, size, channels)))
    y = graph.bconv(signs(graph, rng, x), rng, channels, channels // times, strides=(2, 2))
    y = graph.elementwise("MUL", graph.tile(y, times), constant(graph, rng, channels))
    y = graph.elementwise("ADD", y, constant(graph, rng, channels))
    a = activated(graph, rng, graph.elementwise("ADD", y, graph.average_pool(x)))
    packed = signs(graph, rng, a)
    halves = []
    for _ in range(2):
        half = graph.tile(graph.bconv(packed, rng, channels, channels // times, kernel=(1, 1), padding=1), times)
        half = graph.elementwise("MUL", half, constant(graph, rng, channels))
        halves.append(graph.elementwise("ADD", half, a))
    return graph, activated(graph, rng, graph.concatenate(halves))


def check(content, x, **options):
    """Fused, unfused, by LCE, in all implementations, with one thread and several."""
    expected = lce.interpreter(content, use_indirect_bgemm=True).interpreter.predict(x if isinstance(x, list) else [x])
    for implementation in IMPLEMENTATIONS:
        for fuse, threads in ((0, 1), (1, 1), (1, 2), (1, 4)):
            found = graphs.run(content, x, threads, implementation=implementation, fuse=fuse, **options)
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one, other, f"{implementation}, fuse={fuse}, {threads} threads")


@pytest.mark.parametrize(("channels", "times"), [(64, 4), (128, 4), (64, 2), (32, 2), (48, 3), (100, 4)])
def test_block(channels, times, capfd):
    rng = np.random.default_rng(channels + times)
    graph, y = rep_block(rng, channels, times)
    content = graph.content(y)
    x = rng.normal(size=(1, 8, 8, channels)).astype(np.float32)
    check(content, x)
    found = graphs.steps(content, x, capfd)
    # One pass for each convolution, nothing else than those, the input's and the pooling.
    assert sum(name.startswith("LceBconv2d") for name in found) == 3
    assert sum(name.startswith("AVERAGE") for name in found) == 1, found
    assert sum(name.startswith("TILE") for name in found) == 0
    assert len(found) <= (6 if channels % 32 == 0 else 7), found


def max_pool(graph, x, filters, strides, padding):
    n, h, w, c = graph.shape(x)
    options = graphs.schema.Pool2DOptionsT()
    options.padding, (options.strideH, options.strideW) = padding, strides
    options.filterHeight, options.filterWidth = filters
    sizes = [
        -(-size // s) if padding == 0 else (size - k) // s + 1
        for size, k, s in zip((h, w), filters, strides, strict=True)
    ]
    kind = graphs.schema.BuiltinOptions.Pool2DOptions
    return graph.add("MAX_POOL_2D", [x], (n, *sizes, c), options=(kind, options))


@pytest.mark.parametrize(
    ("filters", "strides", "padding", "channels"),
    [((3, 3), (2, 2), 0, 64), ((3, 3), (2, 2), 1, 40), ((2, 3), (1, 2), 0, 33), ((3, 1), (3, 1), 1, 96)],
)
def test_max_pool_before_a_binary_convolution(filters, strides, padding, channels, capfd):
    rng = np.random.default_rng(channels)
    graph = graphs.Graph()
    x = max_pool(graph, graph.input((1, 9, 10, channels)), filters, strides, padding)
    y = graph.elementwise("ADD", graph.bconv(graph.quantize(x), rng, channels, channels), x)
    content = graph.content(y)
    image = rng.normal(size=(1, 9, 10, channels)).astype(np.float32)
    check(content, image)
    assert graphs.steps(content, image, capfd)[0] == "MAX_POOL_2D"


@pytest.mark.parametrize("filters", [(4, 1), (1, 5)])
def test_a_large_max_pool_stays_with_tflite(filters, capfd):
    rng = np.random.default_rng(0)
    graph = graphs.Graph()
    x = max_pool(graph, graph.input((1, 9, 10, 32)), filters, (1, 1), 0)
    content = graph.content(graph.bconv(graph.quantize(x), rng, 32, 32))
    image = rng.normal(size=(1, 9, 10, 32)).astype(np.float32)
    check(content, image)
    assert graphs.steps(content, image, capfd) == ["LceQuantize", "LceBconv2d"]


def test_block_with_a_larger_batch():
    rng = np.random.default_rng(5)
    graph, y = rep_block(rng, 64)
    content = graph.content(y)
    x = rng.normal(size=(3, 8, 8, 64)).astype(np.float32)
    found = graphs.run(content, x, batch=3)[0]
    one_by_one = np.concatenate([graphs.run(content, image[None])[0] for image in x])
    np.testing.assert_array_equal(found, one_by_one)


def large_graph(rng):
    """Maps so large that the steps take turns by rows, in rings: two blocks and a pooling between them."""
    graph = graphs.Graph()
    x = activated(graph, rng, graph.input((1, 70, 67, 64)))
    for _ in range(2):
        y = graph.tile(graph.bconv(signs(graph, rng, x), rng, 64, 32), 2)
        x = activated(graph, rng, graph.elementwise("ADD", graph.elementwise("MUL", y, constant(graph, rng, 64)), x))
    pooled = graph.average_pool(x, padding=0)
    y = graph.bconv(signs(graph, rng, x), rng, 64, 64, strides=(2, 2))
    y = graph.bconv(signs(graph, rng, graph.elementwise("ADD", y, pooled)), rng, 64, 40, dilations=(2, 1))
    return graph.content(activated(graph, rng, y))


def test_steps_that_take_turns():
    rng = np.random.default_rng(11)
    content = large_graph(rng)
    x = rng.normal(size=(1, 70, 67, 64)).astype(np.float32)
    check(content, x)


@pytest.mark.parametrize("threads", [1, 2])
def test_steps_that_take_turns_over_several_images(threads):
    rng = np.random.default_rng(12)
    content = large_graph(rng)
    x = rng.normal(size=(3, 70, 67, 64)).astype(np.float32)
    one_by_one = np.concatenate([graphs.run(content, image[None], fuse=0)[0] for image in x])
    np.testing.assert_array_equal(graphs.run(content, x, threads, batch=3)[0], one_by_one)


def random_graph(rng):
    """Operators in any order, most of which the delegate claims, on tensors of one size."""
    graph = graphs.Graph()
    channels = int(rng.choice([20, 32, 64, 96, 130]))
    values = [graph.input((1, 5, 6, channels))]
    for _ in range(int(rng.integers(6, 25))):
        x = values[rng.integers(max(0, len(values) - 4), len(values))]
        c = graph.shape(x)[-1]
        kind = rng.integers(12)
        if kind <= 3 or c > 300:
            filters = int(rng.choice([16, 32, 40, 64]))
            y = graph.bconv(graph.quantize(x), rng, c, filters, pad_values=int(rng.integers(2)))
        elif kind == 4:
            y = graph.tile(x, int(rng.integers(2, 4)))
        elif kind == 5:
            y = graph.prelu(x, rng.normal(size=c))
        elif kind == 6:
            others = [v for v in values if graph.shape(v)[-1] <= 200][-3:]
            y = graph.concatenate(list(dict.fromkeys(others))) if others else x
        elif kind == 7:
            same = [v for v in values if graph.shape(v)[-1] == c]
            y = graph.elementwise(str(rng.choice(["ADD", "MUL", "SUB"])), x, same[rng.integers(len(same))])
        else:
            operands = [x, constant(graph, rng, c) if rng.random() < 0.8 else constant(graph, rng, 1)]
            if rng.random() < 0.2:
                operands.reverse()
            name = str(rng.choice(["ADD", "MUL", "SUB"]))
            y = graph.elementwise(name, *operands, activation=int(rng.choice([0, 0, 0, 1, 2, 3])))
        values.append(y)
    made = list(dict.fromkeys(values[1:]))
    read = {t for op in graph.graph.operators for t in op.inputs}
    outputs = [v for v in made if v not in read or rng.random() < 0.1]
    return graph.content(*outputs), rng.normal(size=(1, 5, 6, channels)).astype(np.float32)


@pytest.mark.parametrize("seed", range(60))
def test_random_graph(seed):
    content, x = random_graph(np.random.default_rng(seed))
    check(content, x)


def test_an_operator_without_a_binary_neighbour_stays_with_tflite(capfd):
    rng = np.random.default_rng(0)
    graph = graphs.Graph()
    x = graph.input((1, 4, 4, 32))
    apart = graph.prelu(graph.elementwise("ADD", x, constant(graph, rng, 32)), rng.normal(size=32))
    y = graph.bconv(graph.quantize(x), rng, 32, 32)
    content = graph.content(apart, y)
    found = graphs.steps(content, rng.normal(size=(1, 4, 4, 32)).astype(np.float32), capfd)
    assert found == ["LceQuantize", "LceBconv2d"]


@pytest.mark.parametrize("operator", ["RELU", "RELU6", "RELU_N1_TO_1", "ADD"])
def test_activations_of_numbers_that_are_none(operator):
    # What is no number stays so, as with TFLite's own operators, and zeros keep their signs.
    rng = np.random.default_rng(0)
    graph = graphs.Graph()
    x = graph.input((1, 4, 4, 40))
    bits = graph.quantize(x)
    y = graph.elementwise("ADD", graph.bconv(bits, rng, 40, 40), x)
    if operator == "ADD":
        y = graph.elementwise("ADD", y, constant(graph, rng, 40), activation=2)
    else:
        y = graph.add(operator, [y], graph.shape(y))
    content = graph.content(y, graph.quantize(y))
    values = rng.choice(np.float32([np.nan, -np.nan, -0.0, 0.0, 1.5, -1.5, 1e-40]), (1, 4, 4, 40))
    check(content, values)
    assert np.isnan(graphs.run(content, values)[0]).any()
