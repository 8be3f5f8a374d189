"""BinaryDenseNet, ResNetE and MeliusNet of BMXNet (MXNet's Gluon).

Source: specs/binarydensenet-and-survey.md, A1 to A3 and item 23 of part B. It does not print the names of the
parameters, so the names here only describe them, in the order of the graph; their last parts (`weight`, `bias`,
`gamma`, `beta`, `running_mean`, `running_var`) are Gluon's. The outputs of binary convolutions are popcounts: the
statistics of the norms are near to those that random signs give, as else all their outputs had one sign.
"""

from functools import partial

import numpy as np
import pytest

from . import primitives as p
from .network import IMAGENET, Network
from .tensors import Tensors, Writer

CLASSES = 1000
# Layers of each stage, and the width after each of the first three.
DENSENETS = {28: ([6, 6, 6, 5], [160, 192, 256])}
MELIUSNETS = {22: ([4, 5, 4, 4], [160, 224, 256])}
GROWTH = 64
IMAGE_EPSILON = 2e-5


class GluonWriter(Writer):
    """Knows of every channel of the graph about which mean and variance it has."""

    def __init__(self, seed, zeros):
        super().__init__(seed, zeros)
        self.mean = self.variance = np.zeros(0)

    def start(self, channels):
        """Channels of normal values."""
        self.mean, self.variance = np.zeros(channels), np.ones(channels)

    def add_popcount(self, channels, pairs):
        """Popcounts are added to the last channels."""
        self.mean[-channels:] += pairs / 2
        self.variance[-channels:] += pairs / 4

    def append_popcount(self, channels, pairs):
        self.mean, self.variance = (np.append(v, np.zeros(channels)) for v in (self.mean, self.variance))
        self.add_popcount(channels, pairs)

    def norm(self, name, channels=None, fixed_gamma=False):
        channels = channels or len(self.mean)
        assert channels == len(self.mean), name
        self.add(f"{name}.gamma", np.ones(channels) if fixed_gamma else self.normal(channels, 0.7, 0.7))
        self.add(f"{name}.beta", self.normal(channels))
        deviation = np.sqrt(self.variance)
        self.add(f"{name}.running_mean", self.mean + deviation * self.normal(channels, deviation=0.5))
        self.add(f"{name}.running_var", self.variance * self.rng.uniform(0.5, 2, channels))


def norm(x, tensors, epsilon=p.EPSILON):
    return p.batch_norm(x, tensors, "gamma", "beta", epsilon)


def binary_conv(x, tensors, stride=1):
    """The number of pairs that agree; the border is -1."""
    weight = p.sign(tensors["weight"])
    x = np.pad(p.sign(x), [(0, 0), (0, 0), (1, 1), (1, 1)], constant_values=-1)
    return (p.conv2d(x, weight, stride) + np.prod(weight.shape[1:])) / 2


def write_stem(w):
    w.conv("stem.conv", 64, 3, 7, 7)
    w.start(64)
    w.norm("stem.bn")


def stem(x, net):
    x = norm(p.conv2d(x, net["stem.conv.weight"], 2, 3), net.at("stem.bn"))
    return p.max_pool2d(p.relu(x), 3, 2, 1)


def write_transition(w, name, channels):
    w.norm(f"{name}.bn")
    w.conv(f"{name}.conv", channels, len(w.mean), 1, 1)
    w.start(channels)


def transition(x, tensors):
    x = p.relu(p.max_pool2d(norm(x, tensors.at("bn")), 2, 2))
    return p.conv2d(x, tensors["conv.weight"])


def write_head(w):
    w.norm("final.bn")
    w.linear("output", CLASSES, len(w.mean))


def head(x, net):
    return p.linear(p.global_average(p.relu(norm(x, net.at("final.bn")))), net.at("output"))


def write_dense_layer(w, name):
    channels = len(w.mean)
    w.norm(f"{name}.bn")
    w.binary_conv(f"{name}.conv", GROWTH, channels, 3, 3)
    w.append_popcount(GROWTH, 9 * channels)


def dense_layer(x, tensors):
    return np.concatenate([x, binary_conv(norm(x, tensors.at("bn")), tensors.at("conv"))], axis=1)


# BinaryDenseNet with the newer transition.


def densenet_state(layers, seed=0, zeros=False):
    w = GluonWriter(seed, zeros)
    write_stem(w)
    stages, widths = DENSENETS[layers]
    for stage, count in enumerate(stages, start=1):
        for i in range(count):
            write_dense_layer(w, f"stage{stage}.{i}")
        if stage < 4:
            write_transition(w, f"transition{stage}", widths[stage - 1])
    write_head(w)
    return w.done(module=False)


def densenet_forward(state, images):
    net = Tensors(state)
    x = stem(images, net)
    for stage in range(1, 5):
        for layer in net.children(f"stage{stage}"):
            x = dense_layer(x, layer)
        if stage < 4:
            x = transition(x, net.at(f"transition{stage}"))
    return head(x, net)


# MeliusNet: a dense layer, then one that improves what it made.

GROUPED_STEM = [(32, 3, 2, 1), (32, 8, 1, 4), (64, 4, 1, 8)]


def meliusnet_state(layers, seed=0, zeros=False):
    w = GluonWriter(seed, zeros)
    for i, (outputs, depth, _, _) in enumerate(GROUPED_STEM):
        w.conv(f"stem.{i}.conv", outputs, depth, 3, 3)
        w.start(outputs)
        w.norm(f"stem.{i}.bn")
    stages, widths = MELIUSNETS[layers]
    for stage, count in enumerate(stages, start=1):
        for i in range(count):
            write_dense_layer(w, f"stage{stage}.{i}.dense")
            channels = len(w.mean)
            w.norm(f"stage{stage}.{i}.improvement.bn")
            w.binary_conv(f"stage{stage}.{i}.improvement.conv", GROWTH, channels, 3, 3)
            w.add_popcount(GROWTH, 9 * channels)
        if stage < 4:
            write_transition(w, f"transition{stage}", widths[stage - 1])
    write_head(w)
    return w.done(module=False)


def meliusnet_forward(state, images):
    net = Tensors(state)
    x = images
    for part, (_, _, stride, groups) in zip(net.children("stem"), GROUPED_STEM, strict=True):
        x = p.relu(norm(p.conv2d(x, part["conv.weight"], stride, 1, groups), part.at("bn")))
    x = p.max_pool2d(x, 3, 2, 1)
    for stage in range(1, 5):
        for block in net.children(f"stage{stage}"):
            x = dense_layer(x, block.at("dense"))
            better = binary_conv(norm(x, block.at("improvement.bn")), block.at("improvement.conv"))
            x = np.concatenate([x[:, :-GROWTH], x[:, -GROWTH:] + better], axis=1)
        if stage < 4:
            x = transition(x, net.at(f"transition{stage}"))
    return head(x, net)


# ResNetE-18 for ImageNet with real downsampling; version 1 has its norms behind the convolutions, version 2 in front.


def resnete_state(version, seed=0, zeros=False):
    w = GluonWriter(seed, zeros)
    w.start(3)
    w.norm("image.bn", fixed_gamma=True)
    write_stem(w)
    if version == 1:
        w.norm("start.bn")
    inputs = 64
    for stage in range(1, 5):
        outputs = 64 * 2 ** (stage - 1)
        for i in range(4):
            name = f"stage{stage}.{i}"
            if version == 2:
                w.norm(f"{name}.bn")
            w.binary_conv(f"{name}.conv", outputs, inputs, 3, 3)
            if version == 1:
                w.start(outputs)
                w.add_popcount(outputs, 9 * inputs)
                w.norm(f"{name}.bn")
            if inputs != outputs:
                w.conv(f"{name}.downsample.conv", outputs, inputs, 1, 1)
                w.start(outputs)
                if version == 1:
                    w.norm(f"{name}.downsample.bn")
            if version == 2:
                w.add_popcount(outputs, 9 * inputs)
            inputs = outputs
    if version == 2:
        write_head(w)
    else:
        w.linear("output", CLASSES, 512)
    return w.done(module=False)


def resnete_forward(version, state, images):
    net = Tensors(state)
    x = stem(norm(images, net.at("image.bn"), IMAGE_EPSILON), net)
    if version == 1:
        x = norm(x, net.at("start.bn"))
    for stage in range(1, 5):
        for i, block in enumerate(net.children(f"stage{stage}")):
            stride = 2 if stage > 1 and i == 0 else 1
            b = norm(x, block.at("bn")) if version == 2 else x
            y = binary_conv(b, block.at("conv"), stride)
            if version == 1:
                y = norm(y, block.at("bn"))
            if stride == 2:
                x = p.conv2d(p.avg_pool2d(b), block["downsample.conv.weight"])
                if version == 1:
                    x = norm(x, block.at("downsample.bn"))
            x = y + x
    if version == 2:
        return head(x, net)
    return p.linear(p.global_average(p.relu(x)), net.at("output"))


def networks():
    """The records of these networks by name."""
    gluon = partial(Network, input_shape=IMAGENET, untold="no network")
    padding = {"padding": "bmxnet"}
    yield (
        "binarydensenet28",
        gluon(
            partial(densenet_state, 28),
            densenet_forward,
            constructor="BinaryDenseNet28",
            arguments=padding,
            parameters=5131496,
            macs=pytest.approx(201.9e6 + 3.587e9, abs=6e5),
            fast=True,
        ),
    )
    yield (
        "meliusnet22",
        gluon(
            partial(meliusnet_state, 22),
            meliusnet_forward,
            constructor="MeliusNet22",
            arguments=padding,
            parameters=6944584,
            fast=True,
        ),
    )
    resnet_e = partial(gluon, constructor="ResNetE18", macs=1676279808 + 137793536 - 512000)
    state, forward = partial(resnete_state, 1), partial(resnete_forward, 1)
    yield "resnete18_v1", resnet_e(state, forward, arguments=padding, parameters=11689646)
    state, forward = partial(resnete_state, 2), partial(resnete_forward, 2)
    # Without the norms behind the start, the blocks and the downsampling; with those in front of blocks, and the last.
    parameters = 11689646 - 128 - 7680 - 1792 + 6784 + 1024
    yield (
        "resnete18_v2",
        resnet_e(state, forward, arguments={**padding, "version": 2}, parameters=parameters, small=True),
    )
