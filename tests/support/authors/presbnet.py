"""PresB-Net and AresB-Net.

Source: specs/presbnet.md, sections 1 and 2. It names the tensors of the blocks. Around them PresB-Net's code has
`feature.0.conv`, `feature.0.bn`, all blocks in one list from `feature.1` on, and `fc`. AresB-Net's names there
(`conv1`, `bn1`, `layer1.0`, `linear`, and `bn2` for ImageNet) are the usual ones of code of this kind, not the
specification's.
"""

from functools import partial

import numpy as np
import pytest

from . import primitives as p
from .network import CIFAR, FIRST, IMAGENET, SECOND, Network
from .tensors import Tensors, Writer

BLOCKS = {10: [1, 1, 1, 1], 18: [2, 2, 2, 2], 34: [3, 4, 6, 3]}
PRESB_UNUSED = r"feature\.\d+\.(bn0\..*|bn_mid\..*|move5_[12]\.bias|prelu5\.weight)"
UNITS = ["Grouped3x3", "Grouped1x1"]


def shuffle(x):
    """The first and the second half of the channels, interleaved."""
    batch, channels, *extent = x.shape
    return x.reshape(batch, 2, channels // 2, *extent).swapaxes(1, 2).reshape(x.shape)


def halves(x):
    return np.split(x, 2, axis=1)


def binary_kernel(kernel):
    return np.abs(kernel).mean(axis=(1, 2, 3), keepdims=True) * p.sign(kernel)


# PresB-Net.


def presb_state(layers, classes=100, seed=0, zeros=False, module=True):
    w = Writer(seed, zeros)
    w.conv("feature.0.conv", 128, 3, 3, 3)
    w.norm("feature.0.bn", 128)
    inputs, number = 128, 0
    for stage, blocks in enumerate(BLOCKS[layers]):
        for _ in range(blocks):
            outputs, number = 128 * 2**stage, number + 1
            _presb_block(w, f"feature.{number}", inputs, outputs)
            inputs = outputs
    w.linear("fc", classes, inputs)
    return w.done(module)


def _presb_block(w, block, inputs, outputs):
    half = outputs // 2
    w.bias(f"{block}.move1_1", inputs)
    for unit, channels in zip(UNITS, (inputs, outputs), strict=True):
        for g in (0, 1):
            w.binary_conv(f"{block}.{unit}.conv_list.{g}", half // 2, channels // 2, 3, 3)
            w.bias(f"{block}.{unit}.leanable.{g}", half // 2)
            w.prelu(f"{block}.{unit}.active.{g}", half // 2)
            w.affine(f"{block}.{unit}.bn.{g}", half // 2)
    for i, name in enumerate(("prelu1", "prelu3"), start=1):
        w.bias(f"{block}.act_bias{i}", half)
        w.prelu(f"{block}.{name}", half)
    w.norm(f"{block}.bn1", half)
    w.norm(f"{block}.bn3", half)
    w.bias(f"{block}.move3_1", outputs)
    # The third set is never used.
    for move, slope in (("move2", "prelu2"), ("move4", "prelu4"), ("move5", "prelu5")):
        w.bias(f"{block}.{move}_1", outputs)
        w.prelu(f"{block}.{slope}", outputs)
        w.bias(f"{block}.{move}_2", outputs)
    w.norm(f"{block}.bn_bottom", outputs)
    # Never used either.
    w.norm(f"{block}.bn0", inputs)
    w.norm(f"{block}.bn_mid", outputs)
    if inputs != outputs:
        w.binary_conv(f"{block}.res_layer.1", outputs, inputs, 1, 1)
        w.norm(f"{block}.res_layer.2", outputs)


def presb_forward(state, images):
    net = Tensors(state)
    stem, *blocks = net.children("feature")
    x = p.batch_norm(p.conv2d(images, stem["conv.weight"], padding=1), stem.at("bn"))
    for block in blocks:
        # The first block of stages 2 to 4 has a shortcut of its own.
        x = presb_block(x, block, stride=2 if "res_layer.1.weight" in block else 1)
    return p.linear(p.global_average(x), net.at("fc"))


def presb_block(x, block, stride):
    shortcut = x
    x = shuffle(x)
    a = grouped_unit(p.sign(x + block["move1_1.bias"]), block.at("Grouped3x3"), stride)
    a = p.batch_norm(p.prelu(a + block["act_bias1.bias"], block.at("prelu1")), block.at("bn1"))
    if stride == 1:
        first, second = halves(x)
    else:
        first = second = p.avg_pool2d(x)
        kernel = binary_kernel(block["res_layer.1.weight"])
        shortcut = p.batch_norm(p.conv2d(p.avg_pool2d(shortcut), kernel), block.at("res_layer.2"))
    y = np.concatenate([a + first, second], axis=1)
    y = p.prelu(y + block["move2_1.bias"], block.at("prelu2")) + block["move2_2.bias"]
    y = shuffle(y)
    b = grouped_unit(p.sign(y + block["move3_1.bias"]), block.at("Grouped1x1"), 1)
    b = p.batch_norm(p.prelu(b + block["act_bias2.bias"], block.at("prelu3")), block.at("bn3"))
    first, second = halves(y)
    z = np.concatenate([b + first, second], axis=1)
    z = p.prelu(z + block["move4_1.bias"], block.at("prelu4")) + block["move4_2.bias"]
    return p.batch_norm(z + shortcut, block.at("bn_bottom"))


def grouped_unit(x, unit, stride):
    out = []
    for g, part in enumerate(halves(x)):
        t = p.conv2d(part, binary_kernel(unit[f"conv_list.{g}.weight"]), stride, 1)
        t = p.prelu(t + unit[f"leanable.{g}.bias"], unit.at(f"active.{g}"))
        out.append(p.group_norm(t, unit.at(f"bn.{g}")))
    return np.concatenate(out, axis=1)


def presb_first_phase(state, images):
    """Real kernels, binary activations."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{__name__}.binary_kernel", lambda kernel: kernel)
        return presb_forward(state, images)


# AresB-Net.


def aresb_state(layers, classes=100, imagenet=False, seed=0, zeros=False, module=True):
    w = Writer(seed, zeros)
    if imagenet:
        w.conv("conv1", 64, 3, 7, 7)
        w.norm("bn1", 64)
        w.norm("bn2", 128)
    else:
        w.conv("conv1", 64, 3, 3, 3)
        w.norm("bn1", 128)
        # Never used.
        w.norm("bn2", 512)
    inputs = 128
    for stage, blocks in enumerate(BLOCKS[layers]):
        planes = 64 * 2**stage
        for j in range(blocks):
            block = f"layer{stage + 1}.{j}"
            w.binary_conv(f"{block}.conv1", planes, inputs // 2, 3, 3)
            w.norm(f"{block}.bn1", planes)
            w.norm(f"{block}.bn2", 2 * planes)
            w.binary_conv(f"{block}.conv2", planes, planes, 3, 3)
            w.norm(f"{block}.bn3", planes)
            inputs = 2 * planes
    w.linear("linear", classes, 512)
    return w.done(module)


def aresb_forward(state, images, imagenet=False):
    net = Tensors(state)
    if imagenet:
        x = p.batch_norm(p.conv2d(images, net["conv1.weight"], 2, 3), net.at("bn1"))
        x = p.max_pool2d(p.leaky_relu(x), 3, 2, 1)
        x = p.batch_norm(np.concatenate([x, x], axis=1), net.at("bn2"))
    else:
        x = p.leaky_relu(p.conv2d(images, net["conv1.weight"], padding=1))
        x = p.batch_norm(np.concatenate([x, x], axis=1), net.at("bn1"))
    for stage in range(1, 5):
        for j, block in enumerate(net.children(f"layer{stage}")):
            # The halves of the very first input are equal, so it is not shuffled.
            x = x if stage == 1 and j == 0 else shuffle(x)
            x = aresb_block(x, block, stride=2 if stage > 1 and j == 0 else 1)
    return p.linear(p.global_average(x[:, :512]), net.at("linear"))


def aresb_block(x, block, stride):
    a = p.batch_norm(p.leaky_relu(grouped_conv(x, block["conv1.weight"], stride)), block.at("bn1"))
    if stride == 1:
        first, second = halves(x)
    else:
        first = second = p.max_pool2d(x, 3, 2, 1)
    y = shuffle(p.batch_norm(np.concatenate([a + first, second], axis=1), block.at("bn2")))
    b = p.batch_norm(p.leaky_relu(grouped_conv(y, block["conv2.weight"], 1)), block.at("bn3"))
    first, second = halves(y)
    return np.concatenate([b + first, second], axis=1)


def grouped_conv(x, kernel, stride):
    # The weights are clipped before their mean is taken.
    return p.conv2d(p.sign(x), binary_kernel(np.clip(kernel, -1, 1)), stride, 1, groups=2)


def networks():
    """The records of these networks by name."""
    for layers, parameters, cifar10, dead, binary in (
        (10, 4718592 + 688128 + 143460, 4718592 + 688128 + 51210, None, 245.37e6),
        (18, 11851620, 10985472 + 688128 + 85770, 25088, 547.36e6),
        (34, 22019172, 21086208 + 688128 + 152586, None, 1151.34e6),
    ):
        presb = partial(Network, forward=presb_forward, input_shape=CIFAR, constructor=f"PresBNet{layers}")
        presb = partial(presb, without_unused=True, unused_parameters=dead, unused=PRESB_UNUSED, **SECOND)
        state, kind = partial(presb_state, layers), {"small": layers == 10, "fast": layers == 10}
        macs = pytest.approx(binary + 25.17e6 + 3538944, abs=1e4)
        yield (
            f"presb{layers}",
            presb(state, arguments={"dataset": "cifar100"}, parameters=parameters, macs=macs, **kind),
        )
        cifar = presb(partial(state, 10), arguments={"dataset": "cifar10"}, parameters=cifar10)
        yield f"presb{layers}_cifar10", cifar
        yield f"presb{layers}_cifar10_step1", cifar._replace(forward=presb_first_phase, small=layers == 10, **FIRST)
    for layers, binary, norms, norms10, norms_imagenet, macs, macs_imagenet in (
        (10, 4718592, 60964, 14794, 530472, None, 751.4e6),
        (18, 10985472, 68644, 22474, 538152, pytest.approx(547.4e6 + 1769472, abs=1e5), 1676.3e6),
        (34, 21086208, 83492, 37322, 553000, None, 3526.0e6),
    ):
        aresb = partial(Network, constructor=f"AresBNet{layers}", without_unused=True)
        cifar = partial(aresb, forward=aresb_forward, input_shape=CIFAR, unused_parameters=1024, unused=r"bn2\..*")
        state, small = partial(aresb_state, layers), layers == 10
        yield (
            f"aresb{layers}",
            cifar(state, arguments={"dataset": "cifar100"}, parameters=binary + norms, macs=macs, fast=small),
        )
        yield (
            f"aresb{layers}_cifar10",
            cifar(partial(state, 10), arguments={"dataset": "cifar10"}, parameters=binary + norms10),
        )
        yield (
            f"aresb{layers}_imagenet",
            aresb(
                partial(state, 1000, imagenet=True),
                partial(aresb_forward, imagenet=True),
                IMAGENET,
                arguments={"dataset": "imagenet"},
                parameters=binary + norms_imagenet,
                unused_parameters=0,
                macs=pytest.approx(macs_imagenet + 118013952, abs=1e5),
                small=small,
                fast=small,
            ),
        )
