"""Passes over convolutions and what follows them: the same bits as TFLite's own operators give one after the other."""

import graphs
import numpy as np
import pytest
from larq_rep_runtime import available_implementations

from larq_rep.converters import lce

IMPLEMENTATIONS = available_implementations()


def constant(graph, rng, shape):
    return graph.constant(np.float32(rng.normal(size=shape)))


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
                graphs.assert_same(one, other, f"{implementation}, fuse={fuse}, {threads} threads")


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


def random_operator(graph, rng, values, packed):
    """Adds an operator to one of the newest values: what comes out, a value or (packed signs, their channels)."""
    x = values[rng.integers(max(0, len(values) - 4), len(values))]
    *size, c = graph.shape(x)
    alike = [v for v in values if graph.shape(v)[:3] == (*size,)]
    kind = rng.integers(15) if c <= 200 else 0
    if kind <= 3:
        found = [p for p in packed if graph.shape(p[0])[:3] == (*size,)]
        if not found or rng.random() < 0.6:
            found = [(graph.quantize(x), c)]
            packed += found
        bits, channels = found[rng.integers(len(found))]
        if rng.random() < 0.2 and min(size[1:]) > 3:
            bits = graph.max_pool_bits(bits)
            packed.append((bits, channels))
        kernel = (3, 3) if min(graph.shape(bits)[1:3]) >= 3 and rng.random() < 0.7 else (1, 1)
        output = "bits" if rng.random() < 0.15 else "float32"
        filters, padding, pad_values = int(rng.choice([16, 32, 40, 64])), int(rng.random() < 0.2), int(rng.integers(2))
        zero_padded = padding == pad_values == 0
        if zero_padded and output == "bits":
            pad_values, zero_padded = 1, False
        strides = (1, 1) if rng.random() < 0.8 else (2, 2)
        options = dict(padding=padding, pad_values=pad_values, activation=0 if zero_padded else int(rng.integers(4)))
        y = graph.bconv(bits, rng, channels, filters, kernel, strides, output=output, **options)
        return (y, filters) if output == "bits" else y
    if kind == 4:
        return graph.tile(x, int(rng.integers(2, 4)))
    if kind == 5:
        return graph.prelu(x, rng.normal(size=c))
    if kind in (6, 7):
        return graph.concatenate([v for v in alike if graph.shape(v)[-1] <= 96][-3:] or [x])
    if kind == 8:
        same = [v for v in alike if graph.shape(v)[-1] == c]
        return graph.elementwise(str(rng.choice(["ADD", "MUL", "SUB"])), x, same[rng.integers(len(same))])
    if kind in (9, 10) and size[1] % 2 == size[2] % 2 == 0:
        return graph.pool("AVERAGE_POOL_2D" if kind == 9 else "MAX_POOL_2D", x)
    if kind == 11:
        return graph.add(str(rng.choice(["RELU", "RELU6", "RELU_N1_TO_1"])), [x], (*size, c))
    shapes = [
        (c,),
        (1,),
        (),
        (1, c),
        (1, 1, c),
        (1, 1, 1, c),
        (1, 1, 1, 1),
        (*size[1:], c),
        (1, *size[1:], 1),
        (1, size[2], 1),
    ]
    operands = [x, constant(graph, rng, shapes[0 if rng.random() < 0.5 else rng.integers(len(shapes))])]
    if rng.random() < 0.2:
        operands.reverse()
    name = str(rng.choice(["ADD", "MUL", "SUB"]))
    return graph.elementwise(name, *operands, activation=int(rng.choice([0, 0, 0, 1, 2, 3])))


def random_integers(graph, rng, values, packed, integers):
    """Adds an operator that reads or writes int8: what comes out. Scales are powers of two, of which all engines
    make the same numbers."""
    kind = rng.integers(7) if integers else 0
    if kind == 1 and packed:
        bits, channels = packed[rng.integers(len(packed))]
        y = graph.bconv(bits, rng, channels, int(rng.choice([16, 32, 40])), (1, 1), padding=1, output="int8")
        graph.graph.tensors[y].quantization.scale = np.float32([2.0 ** rng.integers(-1, 4)])
        return y
    if kind <= 1:  # what is beyond 2^31 levels, TFLite makes anything of
        x = values[rng.integers(max(0, len(values) - 3), len(values))]
        x = graph.elementwise("ADD", x, graph.constant(np.float32([0])), activation=int(rng.choice([2, 3])))
        return graph.to_int8(x, 2.0 ** rng.integers(-6, -3), int(rng.integers(-128, 128)))
    x = integers[rng.integers(max(0, len(integers) - 3), len(integers))]
    if kind == 2:
        return graph.quantize(x), graph.shape(x)[-1]
    if kind == 3 and graph.shape(x)[1] % 2 == graph.shape(x)[2] % 2 == 0:
        return graph.pool("MAX_POOL_2D", x)
    return graph.from_int8(x)


def random_graph(rng, height, width, with_integers=False):
    """Operators in any order, most of which the delegate claims; what nobody reads and some others are outputs."""
    graph = graphs.Graph()
    channels = int(rng.choice([16, 20, 32, 64, 96]))
    values, packed, integers = [graph.input((1, height, width, channels))], [], []
    for _ in range(int(rng.integers(6, 22))):
        if with_integers and rng.random() < 0.4:
            y = random_integers(graph, rng, values, packed, integers)
        else:
            y = random_operator(graph, rng, values, packed)
        int8 = not isinstance(y, tuple) and graph.graph.tensors[y].type == graphs.schema.TensorType.INT8
        (packed if isinstance(y, tuple) else integers if int8 else values).append(y)
    read = {t for op in graph.graph.operators for t in op.inputs}
    outputs = [v for v in [*values[1:], *integers] if v not in read or rng.random() < 0.1]
    outputs += [p for p, _ in packed if p not in read or rng.random() < 0.2]
    x = rng.normal(size=(1, height, width, channels)).astype(np.float32)
    x[rng.random(x.shape) < 0.2] = 0.0
    x[rng.random(x.shape) < 0.1] = -0.0
    return graph.content(*dict.fromkeys(outputs)), x


def convolution(graph, rng, x, filters, scale, zero):
    """CONV_2D of 1 x 1 in int8."""
    options = graphs.schema.Conv2DOptionsT()
    options.padding, options.strideH, options.strideW = 1, 1, 1
    options.dilationHFactor = options.dilationWFactor = 1
    *size, c = graph.shape(x)
    weights = graph.tensor((filters, 1, 1, c), np.int8, rng.integers(-127, 128, (filters, 1, 1, c)).astype(np.int8))
    bias = graph.constant(rng.integers(-1000, 1000, filters).astype(np.int32))
    for tensor, step in ((weights, 1 / 256), (bias, graph.levels(x)[0] / 256)):
        graph.graph.tensors[tensor].quantization = graphs.schema.QuantizationParametersT()
        graph.graph.tensors[tensor].quantization.scale = np.float32([step])
        graph.graph.tensors[tensor].quantization.zeroPoint = np.int64([0])
    kind = graphs.schema.BuiltinOptions.Conv2DOptions
    return graph.add("CONV_2D", [x, weights, bias], (*size, filters), np.int8, (kind, options), (scale, zero))


@pytest.mark.parametrize("pooled_in", ["int8", "float32"])
def test_a_downsampling_block_whose_shortcut_is_int8(pooled_in, capfd):
    rng = np.random.default_rng(0)
    graph = graphs.Graph()
    x = graph.input((1, 8, 8, 40))
    x = graph.elementwise("ADD", graph.bconv(signs(graph, rng, x), rng, 40, 40), x)
    if pooled_in == "int8":
        pooled = graph.pool("MAX_POOL_2D", graph.to_int8(x, 0.5, -3))
    else:
        pooled = graph.to_int8(graph.average_pool(x), 0.5, -3)
    shortcut = graph.from_int8(convolution(graph, rng, pooled, 72, 0.25, 5))
    y = graph.bconv(graph.quantize(x), rng, 40, 72, strides=(2, 2))
    y = activated(graph, rng, graph.elementwise("ADD", y, shortcut))
    content = graph.content(graph.bconv(graph.quantize(y), rng, 72, 20))
    image = rng.normal(size=(1, 8, 8, 40)).astype(np.float32)
    check(content, image)
    check_batch(content, image)
    # The float map in front of QUANTIZE stays inside, that behind DEQUANTIZE is never made.
    expected = {
        "int8": ["LceBconv2d+ADD+QUANTIZE+LceQuantize"],
        "float32": ["LceBconv2d+ADD+LceQuantize", "AVERAGE_POOL_2D", "QUANTIZE"],
    }
    assert graphs.steps(content, image, capfd) == [
        "ADD+LceQuantize",
        *expected[pooled_in],
        "LceBconv2d",
        "DEQUANTIZE+ADD+ADD+PRELU+ADD+LceQuantize",
        "LceBconv2d",
    ]


def test_integers_as_the_shortcut_of_a_binary_convolution(capfd):
    rng = np.random.default_rng(0)
    graph = graphs.Graph()
    x = graph.input((1, 6, 8, 72), np.int8, (0.25, -7))
    real = graph.from_int8(x)
    sums = [graph.bconv(graph.quantize(x), rng, 72, 72) for _ in range(2)]
    sums = [graph.elementwise("ADD", y, real) for y in sums]
    wide = graph.bconv(graph.quantize(graph.concatenate(sums)), rng, 144, 72)
    content = graph.content(wide, graph.elementwise("SUB", wide, real))
    image = rng.integers(-128, 128, (1, 6, 8, 72)).astype(np.int8)
    check(content, image)
    found = graphs.steps(content, image, capfd)
    assert found[:2] == ["LceQuantize+LceQuantize+DEQUANTIZE", "LceBconv2d+ADD+CONCATENATION"], found
    # Only sums take integers in passing: a difference needs them written as floats first.
    assert [name for name in found if not name.startswith("Lce")] == ["SUB", "SUB"], found


def test_a_transition_in_int8_between_dense_blocks(capfd):
    rng = np.random.default_rng(0)
    graph = graphs.Graph()
    x = graph.input((1, 8, 8, 32))
    x = graph.concatenate([x, graph.bconv(graph.quantize(x), rng, 32, 24)])
    x = graph.elementwise("MUL", x, constant(graph, rng, 56))
    x = graph.elementwise("ADD", x, constant(graph, rng, 56), activation=1)
    x = convolution(graph, rng, graph.pool("MAX_POOL_2D", graph.to_int8(x, 0.5, -128)), 40, 0.25, 5)
    y = graph.bconv(graph.quantize(x), rng, 40, 24)
    y = graph.concatenate([graph.from_int8(x), y])
    content = graph.content(graph.bconv(graph.quantize(y), rng, 64, 20))
    image = rng.normal(size=(1, 8, 8, 32)).astype(np.float32)
    check(content, image)
    check_batch(content, image)
    found = graphs.steps(content, image, capfd)
    # The second name is that of the other slice, which goes the same way.
    assert found[1:3] == ["LceBconv2d+CONCATENATION+MUL+ADD+QUANTIZE", "CONCATENATION+CONCATENATION"], found
    assert found[3:5] == ["LceQuantize+DEQUANTIZE+CONCATENATION", "LceBconv2d+CONCATENATION"], found


@pytest.mark.parametrize("channels", [31, 32, 33, 128, 300])
@pytest.mark.parametrize("levels", [(0.0473, -7), (1 / 256, -128), (3.1e4, 127)])
def test_integers_round_as_xnnpack_rounds(levels, channels, capfd):
    """x / scale is x times the inverse in float32, rounded half to even; real is scale times (integer - zero point)."""
    scale, zero = np.float32(levels[0]), levels[1]
    rng = np.random.default_rng(channels)
    halves = rng.integers(-140, 140, (1, 8, 5, channels)) + rng.choice([0.5, 0.3], (1, 8, 5, channels))
    x = (halves * scale).astype(np.float32)
    x = np.where(rng.random(x.shape) < 0.3, np.nextafter(x, np.float32(np.inf)), x)
    special = rng.choice(np.float32([np.inf, -np.inf, 0, -0.0, 1e9, -1e9]), x.shape)
    x = np.where(rng.random(x.shape) < 0.05, special, x)

    def made(binary):
        graph = graphs.Graph()
        value = graph.input(x.shape)
        if binary:  # zeros are added
            y = graph.bconv(graph.quantize(value), rng, channels, channels, kernel=(1, 1), padding=1)
            for i in (2, 3):
                graph.graph.operators[1].inputs[i] = graph.constant(np.zeros(channels, np.float32))
            value = graph.elementwise("ADD", y, value)
        q = graph.to_int8(value, *levels)
        return graph.content(q, graph.from_int8(q))

    with np.errstate(all="ignore"):
        q = np.clip(np.rint(x * (np.float32(1) / scale)), -128 - zero, 127 - zero).astype(int) + zero
    expected = q.astype(np.int8), (q - zero).astype(np.float32) * scale
    assert graphs.steps(made(True), x, capfd)[1:] == ["LceBconv2d+ADD+QUANTIZE", "DEQUANTIZE"]
    engine = graphs.tf.lite.Interpreter(model_content=made(False))
    engine.allocate_tensors()
    engine.set_tensor(engine.get_input_details()[0]["index"], x)
    engine.invoke()
    by_xnnpack = [engine.get_tensor(detail["index"]) for detail in engine.get_output_details()]
    for found in (by_xnnpack, *(graphs.run(made(True), x, 2, implementation=name) for name in IMPLEMENTATIONS)):
        for one, other in zip(found, expected, strict=True):
            graphs.assert_same(one, other)


def check_batch(content, x):
    batch = np.concatenate([x, -x, x / 2])
    single = [graphs.run(content, image[None], fuse=0) for image in batch]
    for found, *expected in zip(graphs.run(content, batch, 2, batch=3), *single, strict=True):
        np.testing.assert_array_equal(found, np.concatenate(expected))


@pytest.mark.parametrize("with_integers", [False, True])
@pytest.mark.parametrize("seed", range(60))
def test_random_graph(seed, with_integers):
    content, x = random_graph(np.random.default_rng(seed), 6, 8, with_integers)
    check(content, x, cache_kb=(0, 1, 16)[seed % 3])  # 0: as the system tells
    check_batch(content, x)


@pytest.mark.parametrize(
    ("seed", "with_integers"), [(3, False), (13, False), (14, False), (100, False), (208, True), (219, True)]
)
def test_random_graph_whose_steps_take_turns(seed, with_integers):
    content, x = random_graph(np.random.default_rng(seed), 96, 80, with_integers)
    expected = lce.interpreter(content, use_indirect_bgemm=True).interpreter.predict([x])
    for threads in (1, 2):
        for one, other in zip(graphs.run(content, x, threads), expected, strict=True):
            np.testing.assert_array_equal(one, other, f"{threads} threads")
    check_batch(content, x)


def unpacked(graph, bits, channels):
    return graph.add("LceDequantize", [bits], (*graph.shape(bits)[:-1], channels))


def less(graph, x, y):
    return graph.add("LESS", [x, y], np.broadcast_shapes(graph.shape(x), graph.shape(y)), np.bool_)


def planes_of(graph, rng, x):
    """Packed signs of several kinds, and what stands between them: by `Thermometer`'s and by `Uniform`'s formulas."""
    shape = graph.shape(x)
    first, second, third = (graph.constant(np.float32(t)) for t in np.sort(rng.normal(size=3)))
    high = graph.quantize(graph.elementwise("SUB", second, x))
    negative = graph.add("NEG", [unpacked(graph, high, shape[-1])], shape)
    smaller = graph.add("MINIMUM", [graph.elementwise("SUB", third, x), negative], shape)
    larger = graph.add("MAXIMUM", [graph.elementwise("SUB", first, x), smaller], shape)
    above = less(graph, x, constant(graph, rng, shape[-1]))
    bits = graph.quantize(above)
    level = graph.elementwise("MUL", graph.elementwise("SUB", third, unpacked(graph, bits, shape[-1])), second)
    below = less(graph, x, graph.elementwise("ADD", level, constant(graph, rng, shape[-1])))
    packed = [signs(graph, rng, x), high, graph.quantize(larger), bits, graph.quantize(below)]
    return packed, [negative, smaller, larger, above, level, below]


def random_sum(rng, height, width):
    """Sums of binary convolutions of several planes, most of them one by one; others may read a part of a sum."""
    graph = graphs.Graph()
    channels, filters = int(rng.choice([20, 64, 96])), int(rng.choice([16, 32, 40, 64]))
    total = x = graph.input((1, height, width, channels))
    stride = int(rng.integers(1, 3))
    outputs = []
    for _ in range(2):
        packed, others = planes_of(graph, rng, total)
        planes = [(bits, stride) for bits in packed]
        if stride == 2:
            planes.append((graph.quantize(graph.average_pool(total)), 1))
        terms = []
        for _ in range(int(rng.integers(1, 6)) if rng.random() < 0.8 else 10):
            plane, step = planes[rng.integers(len(planes))]
            padding, pad_values = (0, int(rng.integers(2))) if rng.random() < 0.8 else (1, 0)
            kernel = [(3, 3), (1, 1), (2, 3)][rng.integers(3)] if padding == 0 else (1, 1)
            options = dict(kernel=kernel, strides=(step, step), padding=padding, pad_values=pad_values)
            if pad_values and rng.random() < 0.1:
                options["activation"] = int(rng.integers(1, 4))
            if channels == 64 and rng.random() < 0.2:
                options["groups"] = 2
            terms.append(graph.bconv(plane, rng, channels, filters, **options))
        if rng.random() < 0.5:
            terms.insert(int(rng.integers(len(terms))), activated(graph, rng, terms[0]))
        if filters == 32 and rng.random() < 0.3:
            tiled = graph.bconv(packed[0], rng, channels, 16, strides=(stride, stride))
            terms.insert(0, graph.tile(tiled, 2))
        while len(terms) > 1:
            i = 0 if rng.random() < 0.9 else int(rng.integers(len(terms) - 1))
            pair = [terms.pop(i), terms.pop(i)]
            if rng.random() < 0.3:
                pair.reverse()
            terms.insert(i, graph.elementwise("ADD", *pair, activation=int(rng.choice([0] * 9 + [1, 2, 3]))))
            if rng.random() < 0.1:
                outputs.append(terms[i])
        outputs += [other for other in [*packed, *others] if rng.random() < 0.1]
        stride, channels, total = 1, filters, terms[0]
    outputs.append(activated(graph, rng, total))
    return graph.content(*dict.fromkeys(outputs)), rng.normal(size=graph.shape(x)).astype(np.float32)


@pytest.mark.parametrize("seed", range(24))
def test_random_sum_of_convolutions(seed):
    content, x = random_sum(np.random.default_rng(seed), 6, 8)
    check(content, x)
    check_batch(content, x)


def test_random_sum_of_convolutions_that_take_turns():
    content, x = random_sum(np.random.default_rng(0), 96, 80)
    by_turns(content, x)


@pytest.mark.parametrize("late", [0, 1])
def test_a_sum_waits_for_all_its_images(late):
    """The rows of one image are ready some turns after those of the other."""
    rng = np.random.default_rng(late)
    graph = graphs.Graph()
    x = graph.input((1, 96, 80, 64))
    planes = [graph.quantize(x)]
    y = graph.elementwise("ADD", graph.bconv(planes[0], rng, 64, 64), x)
    y = graph.elementwise("ADD", graph.bconv(graph.quantize(y), rng, 64, 64, kernel=(5, 1)), y)
    planes.insert(late, graph.quantize(y))
    terms = [graph.bconv(bits, rng, 64, 64, kernel=(1, 1)) for bits in planes]
    content = graph.content(activated(graph, rng, graph.elementwise("ADD", *terms)))
    by_turns(content, rng.normal(size=(1, 96, 80, 64)).astype(np.float32))


def by_turns(content, x):
    expected = lce.interpreter(content, use_indirect_bgemm=True).interpreter.predict([x])
    for threads in (1, 2):
        for one, other in zip(graphs.run(content, x, threads), expected, strict=True):
            graphs.assert_same(one, other, f"{threads} threads")


@pytest.mark.parametrize("count", [2, 3, 8, 9, 17])
def test_a_sum_of_convolutions_is_one_step(count, capfd):
    """Each step adds up to eight; the next goes on from what it stored."""
    rng = np.random.default_rng(count)
    graph = graphs.Graph()
    x = graph.input((1, 6, 8, 64))
    terms = [graph.bconv(signs(graph, rng, x), rng, 64, 40) for _ in range(count)]
    total = terms[0]
    for term in terms[1:]:
        total = graph.elementwise("ADD", total, term)
    content = graph.content(activated(graph, rng, total))
    image = rng.normal(size=(1, 6, 8, 64)).astype(np.float32)
    check(content, image)
    found = [name for name in graphs.steps(content, image, capfd) if name.startswith("LceBconv2d")]
    assert [name.count("LceBconv2d") for name in found] == [min(8, count - i) for i in range(0, count, 8)], found


def test_operators_of_levels():
    # What is no number, zeros of both signs and equal numbers, as with TFLite's own operators.
    rng = np.random.default_rng(0)
    graph = graphs.Graph()
    x, z = graph.input((1, 4, 4, 40)), graph.input((1, 4, 4, 40))
    y = graph.bconv(graph.quantize(x), rng, 40, 40)
    for i in (2, 3):
        graph.graph.operators[-1].inputs[i] = graph.constant(np.zeros(40, np.float32))
    y = graph.elementwise("ADD", y, x)
    thresholds = graph.constant(rng.choice(np.float32([0.0, -0.0, 1.5, -1.5]), 40))
    outputs = [graph.add("NEG", [y], graph.shape(y))]
    for pair in ([y, z], [z, y]):
        outputs += [graph.add(name, pair, graph.shape(y)) for name in ("MINIMUM", "MAXIMUM")]
    for pair in ([y, z], [z, y], [y, thresholds], [thresholds, y]):
        outputs.append(less(graph, *pair))
        outputs.append(graph.quantize(outputs[-1]))
        # Only its signs are read.
        outputs.append(graph.quantize(less(graph, *pair)))
    outputs.append(unpacked(graph, outputs[-1], 40))
    content = graph.content(*outputs)
    values = np.float32([np.nan, -np.nan, -0.0, 0.0, 1.5, -1.5, 1.25e-38, -1.25e-38, np.inf, -np.inf])
    # TFLite turns an infinity in a sum into the largest number.
    check(content, [rng.choice(values[:-2], (1, 4, 4, 40)), rng.choice(values, (1, 4, 4, 40))])


def test_a_tile_behind_a_concatenation():
    rng = np.random.default_rng(0)
    graph = graphs.Graph()
    bits = graph.quantize(graph.input((1, 8, 8, 64)))
    halves = [graph.bconv(bits, rng, 64, 32, kernel=(1, 1)) for _ in range(2)]
    content = graph.content(graph.tile(graph.concatenate(halves), 2))
    check(content, rng.normal(size=(1, 8, 8, 64)).astype(np.float32))


def dense_block(rng, size, channels, growths, start, end):
    """Each layer reads all channels before it, with its own thresholds; behind a convolution or a pool.

    A batch normalisation and an activation may follow, whose result leaves the partition.
    """
    graph = graphs.Graph()
    x = graph.input((1, size, size, channels))
    x = graph.pool("MAX_POOL_2D", x) if start == "pool" else graph.bconv(graph.quantize(x), rng, channels, channels)
    for growth in growths:
        y = graph.bconv(signs(graph, rng, x), rng, graph.shape(x)[-1], growth)
        x = graph.concatenate([x, graph.elementwise("MUL", y, graph.constant(np.float32(0.1)))])
    outputs = [graph.bconv(signs(graph, rng, x), rng, graph.shape(x)[-1], 32)]
    if end != "signs":
        total = graph.shape(x)[-1]
        y = graph.elementwise("MUL", x, constant(graph, rng, total))
        y = graph.elementwise("ADD", y, constant(graph, rng, total))
        outputs.append(graph.prelu(y, rng.normal(size=total)) if end == "prelu" else y)
    return graph.content(*outputs)


@pytest.mark.parametrize("end", ["signs", "normalisation", "prelu"])
@pytest.mark.parametrize("start", ["convolution", "pool"])
@pytest.mark.parametrize(
    ("size", "channels", "growths"),
    [(8, 64, (64, 64, 32, 96, 64)), (8, 32, (40, 32, 32)), (6, 24, (64, 32)), (72, 64, (64, 64)), (6, 32, 10 * (32,))],
)
def test_dense_blocks_read_no_number_again(size, channels, growths, start, end, capfd):
    rng = np.random.default_rng(size)
    content = dense_block(rng, size, channels, growths, start, end)
    x = rng.normal(size=(1, size, size, channels)).astype(np.float32)
    check(content, x)
    if size < 72:
        check_batch(content, x)
        check(content, x, cache_kb=1)
    if channels % 32 == 0 and all(growth % 32 == 0 for growth in growths):
        # No number is read again for its signs or its normalisation, but the pool's, once.
        found = graphs.profile(content, x, capfd)
        passes = [step for step in found if not step["name"].startswith("LceBconv2d") and step["bytes"]]
        too_long = end != "signs" and len(growths) == 10  # for a program
        assert len(passes) == 1 + (start == "pool") + too_long, passes


@pytest.mark.parametrize("layers", [2, 5, 12])
def test_signs_of_numbers_that_stand_twice_in_a_map(layers):
    """One program stores both, and has room for the signs of few layers."""
    rng = np.random.default_rng(0)
    graph = graphs.Graph()
    bits = graph.quantize(graph.input((1, 8, 8, 32)))
    y, z = graph.bconv(bits, rng, 32, 32), graph.bconv(bits, rng, 32, 32)
    twice = graph.concatenate([graph.concatenate([y, z]), y])
    content = graph.content(*[graph.bconv(signs(graph, rng, twice), rng, 96, 32) for _ in range(layers)])
    check(content, rng.normal(size=(1, 8, 8, 32)).astype(np.float32))


@pytest.mark.parametrize("is_output", [False, True])
def test_a_concatenation_made_in_slices_only(is_output):
    rng = np.random.default_rng(0)
    graph = graphs.Graph()
    x = graph.input((1, 8, 8, 16))
    whole = graph.concatenate([graph.pool(kind, x) for kind in ("AVERAGE_POOL_2D", "MAX_POOL_2D")])
    y = graph.bconv(graph.quantize(whole), rng, 32, 32)
    content = graph.content(y, whole) if is_output else graph.content(y)
    x = rng.normal(size=(1, 8, 8, 16)).astype(np.float32)
    check(content, x)
    check_batch(content, x)


@pytest.mark.parametrize("pad_values", [0, 1])
def test_packed_signs_that_are_an_output_and_read_with_padding(pad_values):
    # The image is so large that the steps take turns.
    rng = np.random.default_rng(0)
    graph = graphs.Graph()
    x = graph.input((1, 112, 112, 32))
    y = graph.elementwise("ADD", graph.bconv(graph.quantize(x), rng, 32, 32, pad_values=pad_values), x)
    bits = graph.quantize(y)
    z = graph.elementwise("ADD", graph.bconv(bits, rng, 32, 32, pad_values=pad_values), y)
    check(graph.content(z, bits), rng.normal(size=(1, 112, 112, 32)).astype(np.float32))


def test_shapes_that_only_have_as_many_pixels_are_refused():
    rng = np.random.default_rng(0)
    graph = graphs.Graph()
    x, shortcut = graph.input((1, 4, 4, 64)), graph.input((1, 4, 4, 64))
    engine = graphs.interpreter(
        graph.content(graph.elementwise("ADD", graph.bconv(graph.quantize(x), rng, 64, 64), shortcut))
    )
    for detail, shape in zip(engine.get_input_details(), [(1, 2, 8, 64), (1, 8, 2, 64)], strict=True):
        engine.resize_tensor_input(detail["index"], shape)
    with pytest.raises(RuntimeError, match="shapes of the operands do not go together"):
        engine.allocate_tensors()


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


@pytest.mark.parametrize("kind", ["AVERAGE_POOL_2D", "MAX_POOL_2D"])
@pytest.mark.parametrize("padding", [0, 1])
def test_pooling_of_zeros_and_of_numbers_that_are_none(kind, padding):
    rng = np.random.default_rng(0)
    graph = graphs.Graph()
    x = graph.pool(kind, graph.input((1, 9, 10, 40)), padding)
    y = graph.elementwise("ADD", graph.bconv(graph.quantize(x), rng, 40, 40), x)
    values = rng.choice(np.float32([np.nan, -0.0, -0.0, -0.0, 0.0, 1.5, -1.5]), (1, 9, 10, 40))
    # The pooled tensor itself is what a sum of others would hide.
    check(graph.content(x, y), values)
    zeros = np.where(rng.random(values.shape) < 0.8, np.float32(-0.0), np.float32(0.0))
    check(graph.content(x, y), zeros)
