"""ReActNet and what descends from it, AdamBNN, Rep_AdamBNN, and Bi-Real-Net, as their authors' PyTorch code has them.

Source: specs/reactnet-repbnn.md, sections 1 to 3 and 6 to 8.3. A binary convolution's key is `weight` with four
dimensions or `weights` with the shape (N, 1); the forward takes either.
"""

from functools import partial
from itertools import pairwise

import numpy as np

from . import primitives as p
from .network import CIFAR, FIRST, IMAGENET, SECOND, Network
from .tensors import Tensors, Writer

WIDTHS = [32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024]
BLOCKS = {18: [4, 4, 4, 4], 34: [6, 8, 12, 6]}
CLASSES = 1000


def tile(x, times):
    """`Tensor.repeat(1, times, 1, 1)`."""
    return np.tile(x, (1, times, 1, 1))


def real_kernel(tensors, shape):
    return tensors["weights" if "weights" in tensors else "weight"].reshape(shape)


def binary_kernel(tensors, shape):
    """s_o * sign(W), s_o the mean of |W| over all weights of filter o."""
    kernel = real_kernel(tensors, shape)
    return np.abs(kernel).mean(axis=(1, 2, 3), keepdims=True) * p.sign(kernel)


def rsign(x, tensors):
    return p.sign(x + tensors["bias"])


def rprelu(x, block, before, slope, after):
    return p.prelu(x + block.at(before)["bias"], block.at(slope)) + block.at(after)["bias"]


# ReActNet-A, AdamBNN and their Rep network: the widths of MobileNet.


def mobilenet_state(seed=0, zeros=False, flat=False, beta=1, module=True):
    """Step 1 and step 2 differ in the forward alone, unless step 2 has `flat` weights."""
    w = Writer(seed, zeros)
    w.conv("feature.0.conv1", 32, 3, 3, 3)
    w.norm("feature.0.bn1", 32)

    def binary_conv(name, width, size):
        shape = width // beta, width * beta, size, size
        w.binary_conv(name, *shape, key="weights" if flat else "weight", flat=flat)

    for i, (inputs, outputs) in enumerate(pairwise(WIDTHS), start=1):
        block, c, d = f"feature.{i}", inputs * beta, outputs * beta
        w.bias(f"{block}.move11", c)
        binary_conv(f"{block}.binary_3x3", inputs, 3)
        w.norm(f"{block}.bn1", c)
        w.bias(f"{block}.move12", c)
        w.prelu(f"{block}.prelu1", c)
        w.bias(f"{block}.move13", c)
        w.bias(f"{block}.move21", c)
        if inputs == outputs:
            binary_conv(f"{block}.binary_pw", inputs, 1)
            w.norm(f"{block}.bn2", c)
        else:
            binary_conv(f"{block}.binary_pw_down1", inputs, 1)
            binary_conv(f"{block}.binary_pw_down2", inputs, 1)
            w.norm(f"{block}.bn2_1", c)
            w.norm(f"{block}.bn2_2", c)
        w.bias(f"{block}.move22", d)
        w.prelu(f"{block}.prelu2", d)
        w.bias(f"{block}.move23", d)
    w.linear("fc", CLASSES, WIDTHS[-1] * beta)
    return w.done(module)


def mobilenet_forward(state, images, binary=True):
    net = Tensors(state)
    kernel_of = binary_kernel if binary else real_kernel
    x = p.conv2d(images, net["feature.0.conv1.weight"], 2, 1)
    x = p.batch_norm(x, net.at("feature.0.bn1"))
    # Rep networks repeat the stem's channels; the width of the first shift tells how often.
    beta = net["feature.1.move11.bias"].shape[1] // x.shape[1]
    x = tile(x, beta)

    def conv(v, block, name, width, size, stride):
        kernel = kernel_of(block.at(name), (width // beta, width * beta, size, size))
        return tile(p.conv2d(v, kernel, stride, size // 2), beta**2)

    for i, (inputs, outputs) in enumerate(pairwise(WIDTHS), start=1):
        block = net.at(f"feature.{i}")
        # The first block doubles the width at full resolution.
        stride = 2 if inputs != outputs and i > 1 else 1
        u = conv(rsign(x, block.at("move11")), block, "binary_3x3", inputs, 3, stride)
        u = p.batch_norm(u, block.at("bn1"))
        shortcut = x if stride == 1 else p.avg_pool2d(x)
        a = rprelu(shortcut + u, block, "move12", "prelu1", "move13")
        v = rsign(a, block.at("move21"))
        if inputs == outputs:
            x = p.batch_norm(conv(v, block, "binary_pw", inputs, 1, 1), block.at("bn2")) + a
        else:
            first = p.batch_norm(conv(v, block, "binary_pw_down1", inputs, 1, 1), block.at("bn2_1")) + a
            second = p.batch_norm(conv(v, block, "binary_pw_down2", inputs, 1, 1), block.at("bn2_2")) + a
            x = np.concatenate([first, second], axis=1)
        x = rprelu(x, block, "move22", "prelu2", "move23")
    return p.linear(p.global_average(x), net.at("fc"))


# ReActNet on Bi-Real-18 and 34, and Bi-Real-18 and 34: one residual for each binary convolution.


def resnet_state(layers, seed=0, zeros=False, flat=False, react=True, cifar=False, classes=CLASSES, module=True):
    w = Writer(seed, zeros)
    size = 3 if cifar else 7
    w.conv("conv1", 64, 3, size, size)
    w.norm("bn1", 64)
    inputs = 64
    for stage, blocks in enumerate(BLOCKS[layers]):
        outputs = 64 * 2**stage
        for j in range(blocks):
            block = f"layer{stage + 1}.{j}"
            if react:
                w.bias(f"{block}.move0", inputs)
            key = "weights" if flat else "weight"
            w.binary_conv(f"{block}.binary_conv", outputs, inputs, 3, 3, key=key, flat=flat)
            w.norm(f"{block}.bn1", outputs)
            if react:
                w.bias(f"{block}.move1", outputs)
                w.prelu(f"{block}.prelu", outputs)
                w.bias(f"{block}.move2", outputs)
            if inputs != outputs:
                w.conv(f"{block}.downsample.1", outputs, inputs, 1, 1)
                w.norm(f"{block}.downsample.2", outputs)
            inputs = outputs
    w.linear("fc", classes, 512)
    return w.done(module)


def resnet_forward(state, images, binary=True, react=True, binary_shortcut=False, cifar=False):
    net = Tensors(state)
    kernel_of = binary_kernel if binary else real_kernel
    x = p.conv2d(images, net["conv1.weight"], 1 if cifar else 2, 1 if cifar else 3)
    x = p.batch_norm(x, net.at("bn1"))
    if not cifar:
        x = p.max_pool2d(x, 3, 2, 1)
    for stage in range(4):
        for j, block in enumerate(net.children(f"layer{stage + 1}")):
            inputs, outputs, stride = x.shape[1], 64 * 2**stage, 2 if stage and not j else 1
            u = rsign(x, block.at("move0")) if react else p.sign(x)
            u = p.conv2d(u, kernel_of(block.at("binary_conv"), (outputs, inputs, 3, 3)), stride, 1)
            u = p.batch_norm(u, block.at("bn1"))
            if stride == 2:
                shape = outputs, inputs, 1, 1
                kernel = (binary_kernel if binary_shortcut else real_kernel)(block.at("downsample.1"), shape)
                x = p.batch_norm(p.conv2d(p.avg_pool2d(x), kernel), block.at("downsample.2"))
            x = u + x
            if react:
                x = rprelu(x, block, "move1", "prelu", "move2")
    return p.linear(p.global_average(x), net.at("fc"))


# Bi-Real-50: bottlenecks with two streams.


def bireal50_state(seed=0, zeros=False, module=True):
    w = Writer(seed, zeros)
    w.conv("conv1", 64, 3, 7, 7)
    w.norm("bn1", 64)
    inputs, k = 64, 0
    for stage, blocks in enumerate([3, 4, 6, 3]):
        outputs = 256 * 2**stage
        middle = outputs // 4
        for j in range(blocks):
            block = f"layers.{k}"
            first = w.conv if k == 0 else w.binary_conv
            first(f"{block}.conv1", middle, inputs, 1, 1)
            w.norm(f"{block}.bn1", middle)
            w.binary_conv(f"{block}.conv2", middle, middle, 3, 3)
            w.norm(f"{block}.bn2", middle)
            w.binary_conv(f"{block}.conv3", outputs, middle, 1, 1)
            w.norm(f"{block}.bn3", outputs)
            if j == 0:
                # That of the very first block, (64, 16, 1, 1), is never used.
                w.conv(f"{block}.down_conv1x1", middle, inputs // 4, 1, 1)
                w.conv(f"{block}.downsample.1", outputs, inputs, 1, 1)
                w.norm(f"{block}.downsample.2", outputs)
            inputs = outputs
            k += 1
    w.linear("fc", CLASSES, 2048)
    return w.done(module)


def leaky_clip(x):
    return np.where(x < -1, 0.1 * x - 0.9, np.where(x > 1, 0.1 * x + 0.9, x))


def bireal50_forward(state, images):
    net = Tensors(state)
    x = p.batch_norm(p.conv2d(images, net["conv1.weight"], 2, 3), net.at("bn1"))
    x = p.max_pool2d(x, 3, 2, 1)
    middle = main = x

    def binary(v, block, i, stride=1):
        tensors = block.at(f"conv{i}")
        kernel = binary_kernel(tensors, tensors["weight"].shape)
        return p.batch_norm(p.conv2d(p.sign(v), kernel, stride, kernel.shape[-1] // 2), block.at(f"bn{i}"))

    for k, block in enumerate(net.children("layers")):
        strided = k in (3, 7, 13)
        if k == 0:
            out1 = p.batch_norm(p.conv2d(leaky_clip(main), block["conv1.weight"]), block.at("bn1"))
        elif strided:
            out1 = binary(main, block, 1) + p.conv2d(middle, block["down_conv1x1.weight"])
        else:
            out1 = binary(main, block, 1) + middle
        out2 = binary(out1, block, 2, 2 if strided else 1) + (p.avg_pool2d(out1) if strided else out1)
        if strided or k == 0:
            main = p.avg_pool2d(main) if strided else main
            main = p.batch_norm(p.conv2d(main, block["downsample.1.weight"]), block.at("downsample.2"))
        middle, main = out2, binary(out2, block, 3) + main
    return p.linear(p.global_average(main), net.at("fc"))


def networks():
    """The records of these networks by name."""
    real = partial(mobilenet_forward, binary=False)
    a = partial(Network, input_shape=IMAGENET, constructor="ReActNetA", parameters=29343592, entries=298)
    macs = 4816896000 + 10838016
    yield "reactnet_a_step1", a(mobilenet_state, real, **FIRST)
    yield "reactnet_a_step2", a(partial(mobilenet_state, flat=True), mobilenet_forward, small=True, fast=True)
    yield "adambnn_step1", a(mobilenet_state, real, **FIRST)
    yield "adambnn", a(mobilenet_state, mobilenet_forward, macs=macs, **SECOND)
    rep = partial(a, partial(mobilenet_state, beta=2), constructor="RepReActNetA", arguments={"beta": 2})
    rep = partial(rep, parameters=30432072)
    yield "rep_adambnn_step1", rep(real, **FIRST)
    yield "rep_adambnn", rep(mobilenet_forward, macs=macs, small=True, fast=True, **SECOND)
    yield from _resnets()
    yield (
        "bireal50",
        Network(
            bireal50_state,
            bireal50_forward,
            IMAGENET,
            "BiRealNet50",
            25730088,
            entries=324,
            unused=r"layers\.0\.down_conv1x1\.weight",
            macs=3596615680 + 569638912 - 2048000,
            fast=True,
        ),
    )
    cifar = partial(
        Network,
        partial(resnet_state, 18, cifar=True, classes=100),
        input_shape=CIFAR,
        constructor="ReActNet18",
        parameters=10985472 + 172032 + 77540,
        arguments={"dataset": "cifar100"},
        asked=("--step 1", "--step 2 --set shortcut=real", "--step 2 --set shortcut=binary"),
    )
    yield (
        "react_resnet18_cifar100",
        cifar(partial(resnet_forward, cifar=True), said={"step": 2, "shortcut": "real"}),
    )
    yield (
        "react_resnet18_cifar100_binary_shortcut",
        cifar(partial(resnet_forward, cifar=True, binary_shortcut=True), said={"step": 2, "shortcut": "binary"}),
    )
    yield "react_resnet18_cifar100_step1", cifar(partial(resnet_forward, cifar=True, binary=False), said={"step": 1})


def _resnets():
    for layers, entries, parameters, bireal_entries, bireal_parameters, macs in (
        (18, 186, 11704424, 122, 11689512, 1676279808 + 137793536 - 512000),
        (34, 346, 21827432, 218, 21797672, 3525967872 + 137793536 - 512000),
    ):
        state = partial(resnet_state, layers)
        react = partial(Network, state, input_shape=IMAGENET, constructor=f"ReActNet{layers}", parameters=parameters)
        react = partial(react, arguments={"dataset": "imagenet"}, entries=entries)
        yield f"react_resnet{layers}_step1", react(partial(resnet_forward, binary=False), small=layers == 18, **FIRST)
        yield f"react_resnet{layers}", react(resnet_forward, macs=macs, fast=layers == 18, **SECOND)
        yield (
            f"bireal{layers}",
            Network(
                partial(state, react=False, flat=True),
                partial(resnet_forward, react=False),
                IMAGENET,
                f"BiRealNet{layers}",
                bireal_parameters,
                entries=bireal_entries,
                macs=macs if layers == 18 else None,
                small=layers == 18,
                fast=layers == 18,
            ),
        )
