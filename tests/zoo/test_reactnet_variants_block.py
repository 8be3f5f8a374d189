"""ReActNet-B and -C and the ablations of ReActNet-A against float64 numpy forwards of their formulas."""

import numpy as np
import pytest
from forward import Float64, assert_close, average_pool, batch_norm, conv, rprelu, rsign, sign, tile, weights

from larq_rep.zoo.reactnet import ReActNetA, ReActNetB, ReActNetC, RepReActNetA, RepReActNetB, RepReActNetC

# The forms that the authors' forwards lack; test_import.py compares all others with those.
pytestmark = pytest.mark.slow

# The stride of a block and whether it doubles the channels.
BLOCKS = {1: (1, True), 2: (2, True), 3: (1, False), 12: (2, True), 13: (1, False)}


def binary_conv(net, layer, x, stride=1):
    """The signs of the filters; the mean of |W| of each scales its output channel."""
    w = weights(net.model, layer)["kernel"]
    return tile(conv(x, sign(w), stride) * np.abs(w).mean(axis=(0, 1, 2)), net.beta**2)


def real_conv(net, layer, x):
    """Each group of input channels has its part of the filters, in order."""
    kernels = np.split(weights(net.model, layer)["kernel"], net.groups, axis=-1)
    inputs = np.split(x, net.groups, axis=-1)
    u = [conv(part, kernel) for part, kernel in zip(inputs, kernels, strict=True)]
    return tile(np.concatenate(u, axis=-1), net.beta**2)


def signs(net, layer, x):
    return rsign(net.model, layer.replace("sign", "rsign"), x) if net.sign == "rsign" else sign(x)


def activation(net, layer, x):
    if net.activation == "rprelu":
        return rprelu(net.model, layer.replace("activation", "rprelu"), x)
    if net.activation == "prelu":
        slope = weights(net.model, layer.replace("activation", "prelu"))["alpha"].reshape(-1)
        return np.where(x > 0, x, slope * x)
    return x


def block(net, number, x):
    name = f"block{number}"
    stride, doubles = BLOCKS[number]
    u = batch_norm(
        net.model, f"{name}_bn1", binary_conv(net, f"{name}_conv3x3", signs(net, f"{name}_sign1", x), stride)
    )
    if stride == 2:
        x = average_pool(x)
    a = activation(net, f"{name}_activation1", x + u)

    if doubles and net.real:
        convolve, v = real_conv, a
    else:
        convolve, v = binary_conv, signs(net, f"{name}_sign2", a)
    if doubles and net.downsampling == "concat":
        halves = [
            batch_norm(net.model, f"{name}_down{i}_bn", convolve(net, f"{name}_down{i}_conv", v)) + a for i in (1, 2)
        ]
        w = np.concatenate(halves, axis=-1)
    else:
        w = batch_norm(net.model, f"{name}_bn2", convolve(net, f"{name}_conv1x1", v))
        if not doubles:
            w = w + a
    return activation(net, f"{name}_activation2", w)


BASELINE = {"sign": "sign", "activation": None}
NETWORKS = {
    "b-conv": (ReActNetB, {}),
    "b-concat": (ReActNetB, {"downsampling": "concat"}),
    "c-conv": (ReActNetC, {}),
    "c-concat": (ReActNetC, {"downsampling": "concat"}),
    "b-conv-rep": (RepReActNetB, {"beta": 2}),
    "c-conv-rep": (RepReActNetC, {"beta": 2}),
    "c-concat-rep": (RepReActNetC, {"beta": 2, "downsampling": "concat"}),
    # Table 2 of the ReActNet paper.
    "baseline": (ReActNetA, {**BASELINE, "downsampling": "conv"}),
    "proposed-baseline": (ReActNetA, BASELINE),
    "prelu": (ReActNetA, {"sign": "sign", "activation": "prelu"}),
    "rsign": (ReActNetA, {"activation": None}),
    "rprelu": (ReActNetA, {"sign": "sign"}),
    "prelu-conv-rep": (RepReActNetA, {"beta": 2, "sign": "sign", "activation": "prelu", "downsampling": "conv"}),
}


@pytest.fixture(scope="module", params=NETWORKS)
def net(request):
    constructor, kwargs = NETWORKS[request.param]
    kind = kwargs.get("sign", "rsign")
    # What takes the input of each block, and the output of the last.
    entry = {number: f"block{number}_{kind}1" for number in (1, 2, 3, 4, 12, 13)} | {14: "pool"}
    # Not square: rows and columns must not be mixed up.
    net = Float64(constructor, [*entry.values(), "fc"], (64, 32, 3), **kwargs)
    net.entry = entry
    net.beta, net.sign, net.activation = kwargs.get("beta", 1), kind, kwargs.get("activation", "rprelu")
    net.real = constructor not in (ReActNetA, RepReActNetA)
    net.downsampling = kwargs.get("downsampling", "conv" if net.real else "concat")
    net.groups = 4 if constructor in (ReActNetB, RepReActNetB) else 1
    return net


def test_stem(net):
    u = conv(net.image, weights(net.model, "stem_conv")["kernel"], 2)
    expected = tile(batch_norm(net.model, "stem_bn", u), net.beta)
    assert expected.shape == (2, 32, 16, 32 * net.beta)
    assert_close(net.before[net.entry[1]], expected)


@pytest.mark.parametrize("number", BLOCKS)
def test_block(net, number):
    expected = block(net, number, net.before[net.entry[number]])
    assert_close(net.before[net.entry[number + 1]], expected)


def test_head(net):
    w = weights(net.model, "fc")
    assert_close(net.after["fc"], net.before["pool"].mean(axis=(1, 2)) @ w["kernel"] + w["bias"])
