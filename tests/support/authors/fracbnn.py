"""FracBNN's ResNet-20, with its gated convolutions of two bits and with binary ones.

Source: specs/cifar-bnns.md, sections 1 to 3.
"""

from functools import partial

import numpy as np
import pytest

from . import primitives as p
from .cifar import stages
from .network import CIFAR, FIRST, SECOND, Network
from .tensors import Tensors, Writer


def state(seed=0, zeros=False, gated=True, module=False, batch=1):
    """With the buffer of the encoder, whose shape depends on the batch that the network was made for."""
    w = Writer(seed, zeros)
    w.add("encoder.placeholder", w.normal((batch, 3, 32, 32, 32)))
    w.binary_conv("conv1", 16, 96, 3, 3)
    w.norm("bn1", 16)
    inputs = 16
    for stage, outputs in enumerate([16, 32, 64], start=1):
        for j in range(3):
            block = f"layer{stage}.{j}"
            for i in (1, 2):
                w.bias(f"{block}.rprelu{i}.shift_x", outputs)
                w.bias(f"{block}.rprelu{i}.shift_y", outputs)
                w.prelu(f"{block}.rprelu{i}.prelu", outputs)
            for i, depth in enumerate((inputs, outputs), start=1):
                w.binary_conv(f"{block}.conv{i}", outputs, depth, 3, 3)
                if gated:
                    # About as many outputs of a convolution are below as above.
                    w.add(f"{block}.conv{i}.threshold", w.normal((1, outputs, 1, 1), deviation=(9 * depth) ** 0.5 / 2))
            for i in range(1, 5):
                w.norm(f"{block}.bn{i}", outputs)
            inputs = outputs
    w.linear("linear", 10, 64)
    return w.done(module)


def thermometer(images):
    """uint8 / 255 to 32 channels of +1 and -1 for each colour."""
    levels = np.rint(np.rint(images * 255) / 8)[:, :, None]
    bits = np.where(np.arange(32).reshape(1, 1, 32, 1, 1) < levels, 1.0, -1.0)
    return bits.reshape(len(images), 96, *images.shape[2:])


def quantise(x, bits):
    delta = 2 / (2**bits - 1)
    return np.rint((np.clip(x, -1, 1) + 1) / delta) * delta - 1


def binary_weight_conv(x, tensors, stride=1):
    return p.conv2d(x, p.sign(tensors["weight"]), stride, 1)


def one_bit_conv(x, tensors, stride=1):
    return binary_weight_conv(p.sign(x), tensors, stride)


def gated_conv(x, tensors, stride=1):
    q = quantise(x, 2)
    msb = 2 / 3 * binary_weight_conv(p.sign(q), tensors, stride)
    return np.where(msb > tensors["threshold"], binary_weight_conv(q, tensors, stride), msb)


def rprelu(x, tensors):
    x = p.prelu(x + tensors["shift_x.bias"], tensors.at("prelu"))
    return x + tensors["shift_y.bias"]


def block(conv):
    def forward(x, tensors, stride):
        y = p.batch_norm(conv(x, tensors.at("conv1"), stride), tensors.at("bn1"))
        shortcut = x if stride == 1 else np.concatenate([p.avg_pool2d(x)] * 2, axis=1)
        y = p.batch_norm(rprelu(y, tensors.at("rprelu1")) + shortcut, tensors.at("bn3"))
        out = p.batch_norm(conv(y, tensors.at("conv2")), tensors.at("bn2"))
        return p.batch_norm(rprelu(out, tensors.at("rprelu2")) + y, tensors.at("bn4"))

    return forward


def forward(conv, state, images):
    net = Tensors(state)
    x = p.batch_norm(binary_weight_conv(thermometer(images), net.at("conv1")), net.at("bn1"))
    return p.linear(p.global_average(stages(x, net, block(conv))), net.at("linear"))


def first_phase(conv, state, images):
    """Real kernels; the activations are binary, or of two bits and gated, all the same."""

    def real_conv(x, tensors, stride=1):
        return p.conv2d(x, tensors["weight"], stride, 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{__name__}.binary_weight_conv", real_conv)
        return forward(conv, state, images)


def networks():
    """The records of these networks by name."""
    common = partial(Network, input_shape=CIFAR, constructor="ResNet20", small=True, fast=True)
    common = partial(common, unused=r"encoder\.placeholder")
    gated = common(state, partial(forward, gated_conv), parameters=287146, macs=94371840, **SECOND)
    gated = gated._replace(arguments={"method": "fracbnn_gated"}, entries=279)
    yield "fracbnn", gated
    one_bit = partial(common, partial(state, gated=False), arguments={"method": "fracbnn"}, parameters=286474)
    yield "fracbnn_1bit", one_bit(partial(forward, one_bit_conv), macs=54263808, **SECOND)
    yield "fracbnn_1bit_step1", one_bit(partial(first_phase, one_bit_conv), **FIRST)
    yield "fracbnn_step1", gated._replace(forward=partial(first_phase, gated_conv), small=False, fast=False, **FIRST)
