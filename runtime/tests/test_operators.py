"""LCE's operators in every implementation, against their definition in numpy and against LCE's interpreter."""

import re

import graphs
import numpy as np
import pytest
from larq_rep_runtime import available_implementations

from larq_rep.converters import executor, lce, matching
from larq_rep.converters.flatbuffer import Flatbuffer

IMPLEMENTATIONS = available_implementations()


def random_convolution(rng, output):
    """A random case of everything that LceBconv2d has, as arguments of `Graph.bconv`, and the size of the image."""
    groups = int(rng.choice([1, 1, 1, 2, 3]))
    channels = 32 * groups * int(rng.integers(1, 4)) if groups > 1 else int(rng.choice([1, 3, 16, 33, 64, 100, 160]))
    kernel = tuple(int(k) for k in rng.choice([1, 2, 3, 3, 5, 7], 2))
    dilations = tuple(int(d) for d in rng.choice([1, 1, 1, 2, 3], 2))
    padding, pad_values = ((0, 0), (0, 1), (1, 0), (1, 1))[rng.integers(4)]
    zero_padded = padding == 0 and pad_values == 0
    if zero_padded and output != "float32":
        pad_values, zero_padded = 1, False
    # LCE itself is wrong on maps that are smaller than the window.
    least = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    return dict(
        channels=channels,
        filters=groups * int(rng.choice([1, 5, 16, 17, 32, 48, 70])),
        kernel=kernel,
        strides=tuple(int(s) for s in rng.choice([1, 1, 2, 3], 2)),
        dilations=dilations,
        padding=padding,
        pad_values=pad_values,
        activation=0 if zero_padded else int(rng.integers(4)),
        groups=groups,
        output=output,
    ), [int(n + rng.integers(0, 8)) for n in least]


@pytest.mark.parametrize("output", ["float32", "int8", "bits"])
@pytest.mark.parametrize("seed", range(12))
def test_convolution(seed, output):
    rng = np.random.default_rng([seed, len(output)])
    case, size = random_convolution(rng, output)
    graph = graphs.Graph()
    shape = (int(rng.integers(1, 3)), *size, case["channels"])
    y = graph.bconv(graph.quantize(graph.input(shape)), rng, **case)
    content = graph.content(y)
    x = rng.normal(size=shape).astype(np.float32)

    flatbuffer = Flatbuffer(content)
    expected = executor.bconv2d(flatbuffer, flatbuffer.operators[1], executor.quantize(x))
    # LCE's own grouped convolutions need the indirect kernel.
    by_lce = lce.interpreter(content, use_indirect_bgemm=True).interpreter.predict([x])
    np.testing.assert_array_equal(by_lce[0], expected)
    for implementation in IMPLEMENTATIONS:
        (found,) = graphs.run(content, x, implementation=implementation)
        np.testing.assert_array_equal(found, expected, f"{implementation}: {case}")


@pytest.mark.parametrize("size", [1, 2])
def test_zero_padding_of_maps_smaller_than_the_window(size):
    # LCE's kernels are wrong here, so that the definition itself is the judge: zeros around +1 and -1.
    rng = np.random.default_rng(size)
    graph = graphs.Graph()
    y = graph.bconv(graph.quantize(graph.input((1, size, size, 32))), rng, 32, 20, kernel=(5, 5))
    content = graph.content(y)
    x = rng.normal(size=(1, size, size, 32)).astype(np.float32)
    flatbuffer = Flatbuffer(content)
    op = flatbuffer.operators[1]
    weights = matching.filter_signs(flatbuffer, op).astype(np.float64)
    padded = np.pad(np.where(x < 0, -1.0, 1.0), [(0, 0), (2, 2), (2, 2), (0, 0)])
    sums = np.stack(
        [
            np.stack([np.einsum("hwc,hwco->o", padded[0, i : i + 5, j : j + 5], weights) for j in range(size)])
            for i in range(size)
        ]
    )[None]
    expected = sums * flatbuffer.constant(op.inputs[2]) + flatbuffer.constant(op.inputs[3])
    for implementation in IMPLEMENTATIONS:
        (found,) = graphs.run(content, x, implementation=implementation)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-3)


def test_more_accumulations_than_a_byte_holds():
    # All bits differ: the vector implementations that count in bytes have to empty them in time.
    rng = np.random.default_rng(0)
    graph = graphs.Graph()
    y = graph.bconv(graph.quantize(graph.input((1, 6, 6, 1024))), rng, 1024, 16, padding=1)
    filters = graph.graph.operators[1].inputs[1]
    buffer = graph.model.buffers[graph.graph.tensors[filters].buffer]
    buffer.data = np.zeros_like(buffer.data)
    content = graph.content(y)
    flatbuffer = Flatbuffer(content)
    x = np.full((1, 6, 6, 1024), -1, np.float32)
    expected = executor.bconv2d(flatbuffer, flatbuffer.operators[1], executor.quantize(x))
    for implementation in IMPLEMENTATIONS:
        np.testing.assert_array_equal(graphs.run(content, x, implementation=implementation)[0], expected)


@pytest.mark.parametrize("channels", [1, 31, 32, 40, 100, 128, 300])
def test_quantize_of_float(channels):
    rng = np.random.default_rng(channels)
    graph = graphs.Graph()
    content = graph.content(graph.quantize(graph.input((2, 3, 5, channels))))
    x = rng.normal(size=(2, 3, 5, channels)).astype(np.float32)
    x[rng.random(x.shape) < 0.2] = 0.0
    x[rng.random(x.shape) < 0.2] = -0.0
    x[rng.random(x.shape) < 0.1] = -np.inf
    for implementation in IMPLEMENTATIONS:
        for threads in (1, 3):
            (found,) = graphs.run(content, x, threads, implementation=implementation)
            np.testing.assert_array_equal(found, executor.quantize(x))


@pytest.mark.parametrize("channels", [7, 64, 75])
@pytest.mark.parametrize("dtype", [np.int8, np.bool_])
def test_quantize_and_dequantize_of_int8_and_bool(channels, dtype):
    rng = np.random.default_rng(channels)
    quantization = (0.25, -3) if dtype == np.int8 else None
    shape = (1, 4, 3, channels)
    graph = graphs.Graph()
    packed = graph.quantize(graph.input(shape, dtype, quantization))
    wide = graph.add("LceDequantize", [packed], shape, dtype, quantization=quantization)
    content = graph.content(packed, wide)
    x = rng.integers(-128 if dtype == np.int8 else 0, 128 if dtype == np.int8 else 2, shape).astype(dtype)
    negative = x < -3 if dtype == np.int8 else ~x
    found, back = graphs.run(content, x)
    np.testing.assert_array_equal(found, executor.quantize(np.where(negative, -1.0, 1.0)))
    # -1 and +1 are four steps of 0.25 from the zero point.
    np.testing.assert_array_equal(back, np.where(negative, -7, 1).astype(np.int8) if dtype == np.int8 else x)
    by_lce = lce.interpreter(content).interpreter.predict([x])
    for one, other in zip(by_lce, (found, back), strict=True):
        np.testing.assert_array_equal(one, other)


def test_dequantize_to_float():
    rng = np.random.default_rng(0)
    graph = graphs.Graph()
    x = rng.normal(size=(2, 5, 5, 70)).astype(np.float32)
    packed = graph.quantize(graph.input(x.shape))
    content = graph.content(graph.add("LceDequantize", [packed], x.shape))
    np.testing.assert_array_equal(graphs.run(content, x)[0], np.where(x < 0, -1, 1).astype(np.float32))


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize(("window", "strides"), [((2, 2), (2, 2)), ((3, 2), (1, 2)), ((3, 3), (2, 1))])
def test_max_pool(window, strides, padding):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2, 7, 9, 45)).astype(np.float32)
    options = {
        "filter_height": window[0],
        "filter_width": window[1],
        "padding": padding,
        "stride_height": strides[0],
        "stride_width": strides[1],
    }
    expected = executor.max_pool(executor.quantize(x), options)
    graph = graphs.Graph()
    packed = graph.quantize(graph.input(x.shape))
    content = graph.content(graph.add("LceBMaxPool2d", [packed], expected.shape, np.int32, options))
    for threads in (1, 2):
        np.testing.assert_array_equal(graphs.run(content, x, threads)[0], expected)
    np.testing.assert_array_equal(lce.interpreter(content).interpreter.predict([x])[0], expected)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_resized_batch_and_image(implementation):
    rng = np.random.default_rng(0)
    graph = graphs.Graph()
    x = graph.input((1, 6, 6, 64))
    y = graph.bconv(graph.quantize(x), rng, 64, 40, strides=(2, 2))
    content = graph.content(graph.elementwise("ADD", y, graph.constant(rng.normal(size=40).astype(np.float32))))
    image = rng.normal(size=(3, 11, 8, 64)).astype(np.float32)
    flatbuffer = Flatbuffer(content)
    op = flatbuffer.operators[1]
    expected = executor.bconv2d(flatbuffer, op, executor.quantize(image)) + flatbuffer.constant(
        flatbuffer.operators[2].inputs[1]
    )
    (found,) = graphs.run(content, image, batch=3, implementation=implementation)
    np.testing.assert_array_equal(found, expected)


def test_int8_of_halves_and_beyond_the_range():
    halves = np.arange(-140, 140, dtype=np.float32) + np.float32(0.5)
    near = [np.nextafter(halves, np.float32(end)) for end in (-np.inf, np.inf)]
    values = np.float32([*halves, *near[0], *near[1], 0, -0.0, 1e-30, 3e9, -3e9, np.inf, -np.inf])
    rng = np.random.default_rng(0)
    graph = graphs.Graph()
    bits = graph.quantize(graph.input((1, 1, 3, 32)))
    y = graph.bconv(bits, rng, 32, len(values), kernel=(1, 1), padding=1, output="int8")
    graph.graph.tensors[y].quantization.scale = np.float32([1])
    graph.graph.tensors[y].quantization.zeroPoint = np.int64([0])
    bconv = graph.graph.operators[1]
    bconv.inputs[2] = graph.constant(np.zeros_like(values))
    bconv.inputs[3] = graph.constant(values)
    # Half away from zero, in float64, where the sum is exact.
    expected = np.clip(np.copysign(np.floor(np.abs(values.astype(float)) + 0.5), values), -128, 127).astype(np.int8)
    for implementation in IMPLEMENTATIONS:
        (found,) = graphs.run(graph.content(y), np.ones((1, 1, 3, 32), np.float32), implementation=implementation)
        np.testing.assert_array_equal(found, np.broadcast_to(expected, found.shape), implementation)


@pytest.mark.parametrize("pad_values", [0, 1])
@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((2, 2), dict(dilations=(16_000, 16_000))),
        ((2, 3), dict(dilations=(1 << 15, 1))),
        ((3, 2), dict(dilations=(2, 3), kernel=(2, 4))),
        ((1, 1), dict(dilations=(2, 2), kernel=(2, 2))),  # no tap meets the image
        ((4, 5), dict(strides=(1 << 15, 1 << 15))),
        ((2, 2), dict(kernel=(41, 101))),
    ],
)
def test_taps_that_never_meet_the_image(size, options, pad_values):
    rng = np.random.default_rng(0)
    graph = graphs.Graph()
    y = graph.bconv(graph.quantize(graph.input((1, *size, 64))), rng, 64, 20, pad_values=pad_values, **options)
    bits = graph.bconv(graph.quantize(y), rng, 20, 40, pad_values=1, output="bits", activation=1, **options)
    content = graph.content(y, bits)
    x = rng.normal(size=(1, *size, 64)).astype(np.float32)
    if pad_values == 1:
        expected = lce.interpreter(content).interpreter.predict([x])
    else:  # of which LCE makes something else on maps smaller than the window
        flatbuffer = Flatbuffer(content)
        expected = [definition(flatbuffer, flatbuffer.operators[1], np.where(x < 0, -1, 1), border=0)]
    count = 64 * np.prod(options.get("kernel", (3, 3)))
    for implementation in IMPLEMENTATIONS:
        for fuse in (0, 1):
            found = graphs.run(content, x, implementation=implementation, fuse=fuse)
            if pad_values == 1:
                for one, other in zip(found, expected, strict=True):
                    graphs.assert_same(one, other, implementation)
            else:
                np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-6 * count + 1e-4)


def definition(flatbuffer, op, x, border):
    """A convolution of one image, tap by tap; what lies outside is `border`."""
    options, weights = op.options, matching.filter_signs(flatbuffer, op)
    steps = [(options[f"stride_{a}"], options[f"dilation_{a}_factor"]) for a in ("height", "width")]
    outs = [-(-n // s) for n, (s, _) in zip(x.shape[1:3], steps, strict=True)]
    sums = np.zeros((1, *outs, weights.shape[-1]))
    for i, j in np.ndindex(*outs):
        for ky, kx in np.ndindex(*weights.shape[:2]):
            place = []
            for at, k, axis in ((i, ky, 0), (j, kx, 1)):
                (stride, dilation), size = steps[axis], x.shape[axis + 1]
                total = max((outs[axis] - 1) * stride + (weights.shape[axis] - 1) * dilation + 1 - size, 0)
                place.append(at * stride - total // 2 + k * dilation)
            inside = 0 <= place[0] < x.shape[1] and 0 <= place[1] < x.shape[2]
            pixel = x[0, place[0], place[1]] if inside else np.full(x.shape[-1], border)
            sums[0, i, j] += pixel @ weights[ky, kx]
    return sums * flatbuffer.constant(op.inputs[2]) + flatbuffer.constant(op.inputs[3])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_memory_of_groups_with_one_output(implementation, capfd):
    rng = np.random.default_rng(0)
    graph = graphs.Graph()
    y = graph.bconv(graph.quantize(graph.input((1, 5, 5, 2048))), rng, 2048, 64, groups=64, pad_values=1)
    content = graph.content(y)
    x = rng.normal(size=(1, 5, 5, 2048)).astype(np.float32)
    flatbuffer = Flatbuffer(content)
    expected = executor.bconv2d(flatbuffer, flatbuffer.operators[1], executor.quantize(x))
    capfd.readouterr()
    np.testing.assert_array_equal(graphs.run(content, x, implementation=implementation, profile=1)[0], expected)
    (packed,) = re.findall(r'"packed_bytes": (\d+)', capfd.readouterr().err)
    assert int(packed) <= 8 * 64 * 9 * 4
