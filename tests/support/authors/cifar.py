"""VGG-small, ResNet-20 and the two ResNet-18 of IR-Net, RBNN and ReCU, FracBNN's ResNet-20 and the real ResNet-20.

Source: specs/cifar-bnns.md, sections 1 to 3. IR-Net's two ResNet-18 end with a log-softmax, which is left out here:
every forward returns logits.
"""

import numpy as np

from . import primitives as p
from .tensors import Tensors, Writer

VGG = [(128, 3), (128, 128), (256, 128), (256, 256), (512, 256), (512, 512)]


# Binary convolutions: `name`'s tensors written, and the convolution of x with them.


class IRNet:
    @staticmethod
    def write(w, name, *shape):
        w.binary_conv(name, *shape)

    @staticmethod
    def conv(x, tensors, stride=1, padding=1):
        z = standardised(tensors["weight"])
        scale = 2.0 ** np.rint(np.log2(np.abs(z).mean(axis=(1, 2, 3), keepdims=True)))
        return p.conv2d(p.sign(x), scale * p.sign(z), stride, padding)


class RBNN:
    @staticmethod
    def write(w, name, *shape):
        w.binary_conv(name, *shape)
        filters, n = shape[0], int(np.prod(shape[1:]))
        w.add(f"{name}.alpha", w.normal((filters, 1, 1)))
        rotate = w.normal((filters, 1, 1, 1), mean=np.pi / 2, deviation=0.7)
        if w.zeros:
            # No rotation, so the zeros of the first filter stay.
            rotate[0] = 0
        w.add(f"{name}.rotate", rotate)
        a = max(divisor for divisor in range(1, int(n**0.5) + 1) if n % divisor == 0)
        w.orthogonal(f"{name}.R1", a)
        w.orthogonal(f"{name}.R2", n // a)

    @staticmethod
    def conv(x, tensors, stride=1, padding=1):
        z = standardised(tensors["weight"])
        r1, r2 = tensors["R1"], tensors["R2"]
        rotated = (r1.T @ z.reshape(len(z), len(r1), len(r2)) @ r2).reshape(z.shape)
        u = z + np.abs(np.sin(tensors["rotate"])) * (rotated - z)
        # The deviation of the sample does not change a sign.
        x = x - x.mean(axis=(1, 2, 3), keepdims=True)
        return tensors["alpha"] * p.conv2d(p.sign(x), p.sign(u), stride, padding)


class ReCU:
    @staticmethod
    def write(w, name, *shape):
        w.binary_conv(name, *shape)
        w.add(f"{name}.alpha", w.normal((shape[0], 1, 1)))
        w.add(f"{name}.tau", w.rng.uniform(0.85, 0.99, 1))

    @staticmethod
    def conv(x, tensors, stride=1, padding=1):
        weight = tensors["weight"]
        centred = weight - weight.mean(axis=(1, 2, 3), keepdims=True)
        variance = centred.var(axis=(1, 2, 3), ddof=1, keepdims=True)
        scaled = centred * 2 * 2**0.5 / np.sqrt(variance + 1e-5)
        bound = -np.abs(scaled).mean() * np.log(2 - 2 * tensors["tau"])
        clipped = np.clip(scaled, -bound, bound)
        return tensors["alpha"] * p.conv2d(p.sign(x), p.sign(clipped), stride, padding)


def standardised(weight):
    mean = weight.mean(axis=(1, 2, 3), keepdims=True)
    return (weight - mean) / weight.std(axis=(1, 2, 3), ddof=1, keepdims=True)


# Shortcuts where the width doubles.


def subsample(x):
    """Option A: every second pixel, and zeros in front of and behind the channels."""
    return pad_channels(x[:, :, ::2, ::2])


def pool_and_pad(x):
    return pad_channels(p.avg_pool2d(x))


def pad_channels(x):
    half = x.shape[1] // 2
    return np.pad(x, [(0, 0), (half, half), (0, 0), (0, 0)])


# VGG-small.


def vgg_state(method, seed=0, zeros=False, module=False):
    w = Writer(seed, zeros)
    for i, (outputs, inputs) in enumerate(VGG):
        if i == 0:
            w.conv("conv0", outputs, inputs, 3, 3)
        else:
            method.write(w, f"conv{i}", outputs, inputs, 3, 3)
        w.norm(f"bn{i}", outputs, pairs=9 * inputs if i else 1)
    w.linear("fc", 10, 512 * 16)
    return w.done(module)


def vgg_forward(method, state, images):
    net = Tensors(state)
    x = p.hardtanh(p.batch_norm(p.conv2d(images, net["conv0.weight"], padding=1), net.at("bn0")))
    for i in range(1, 6):
        x = method.conv(x, net.at(f"conv{i}"))
        if i in (1, 3, 5):
            x = p.max_pool2d(x, 2, 2)
        x = p.hardtanh(p.batch_norm(x, net.at(f"bn{i}")))
    return p.linear(x.reshape(len(x), -1), net.at("fc"))


# The ResNets. All have the keys of `resnet_state`; the parts of a block differ.


def resnet_state(
    method, widths, blocks, head="linear", classes=10, shortcut=None, stem=3, seed=0, zeros=False, module=False,
    dead=False, prelu=False,
):  # fmt: skip
    """`shortcut` names the convolution where the width doubles: (its key, whether it is binary).

    `dead` adds the batch norm of the logits that is never used, `prelu` the slopes of ReCU's first release.
    """
    w = Writer(seed, zeros)
    w.conv("conv1", widths[0], 3, stem, stem)
    w.norm("bn1", widths[0])
    inputs = widths[0]
    for stage, outputs in enumerate(widths, start=1):
        for j in range(blocks):
            block = f"layer{stage}.{j}"
            for i, depth in enumerate((inputs, outputs), start=1):
                method.write(w, f"{block}.conv{i}", outputs, depth, 3, 3)
                w.norm(f"{block}.bn{i}", outputs, pairs=1 if method is Real else 9 * depth)
            if prelu:
                w.prelu(f"{block}.prelu", outputs)
            if shortcut and inputs != outputs:
                name, binary = shortcut
                write = method.write if binary else Writer.conv
                write(w, f"{block}.{name}.0", outputs, inputs, 1, 1)
                w.norm(f"{block}.{name}.1", outputs, pairs=inputs if binary else 1)
            inputs = outputs
    if method is not Real:
        w.norm("bn2", widths[-1])
    if dead:
        w.norm("bn3", classes)
    w.linear(head, classes, widths[-1])
    return w.done(module)


def two_convolutions(method, shortcut):
    """One residual for two convolutions."""

    def block(x, tensors, stride):
        y = p.hardtanh(p.batch_norm(method.conv(x, tensors.at("conv1"), stride), tensors.at("bn1")))
        y = p.batch_norm(method.conv(y, tensors.at("conv2")), tensors.at("bn2"))
        return p.hardtanh(y + (x if stride == 1 else shortcut(x, tensors)))

    return block


def each_convolution(method, shortcut):
    """One residual for each convolution, as in Bi-Real-Net."""

    def block(x, tensors, stride):
        y = p.batch_norm(method.conv(x, tensors.at("conv1"), stride), tensors.at("bn1"))
        y = p.hardtanh(y + (x if stride == 1 else shortcut(x, tensors)))
        return p.hardtanh(p.batch_norm(method.conv(y, tensors.at("conv2")), tensors.at("bn2")) + y)

    return block


def option_a(x, tensors):
    return subsample(x)


def recu_shortcut(x, tensors):
    return pool_and_pad(x)


def real_conv_shortcut(name):
    def shortcut(x, tensors):
        return p.batch_norm(p.conv2d(x, tensors[f"{name}.0.weight"], 2), tensors.at(f"{name}.1"))

    return shortcut


def rbnn_shortcut(x, tensors):
    return p.batch_norm(RBNN.conv(x, tensors.at("shortcut.0"), 2, 0), tensors.at("shortcut.1"))


def stages(x, net, block):
    stage = 1
    while children := net.children(f"layer{stage}"):
        for j, tensors in enumerate(children):
            x = block(x, tensors, 2 if stage > 1 and j == 0 else 1)
        stage += 1
    return x


def resnet20_forward(block, state, images):
    net = Tensors(state)
    x = p.hardtanh(p.batch_norm(p.conv2d(images, net["conv1.weight"], padding=1), net.at("bn1")))
    x = p.global_average(stages(x, net, block))
    return p.linear(p.batch_norm(x, net.at("bn2")), net.at("linear"))


def resnet18_cifar_forward(block, state, images):
    net = Tensors(state)
    x = p.batch_norm(p.conv2d(images, net["conv1.weight"], padding=1), net.at("bn1"))
    x = p.global_average(stages(x, net, block))
    return p.linear(p.batch_norm(x, net.at("bn2")), net.at("linear"))


def resnet18_forward(block, state, images):
    net = Tensors(state)
    x = p.hardtanh(p.batch_norm(p.conv2d(images, net["conv1.weight"], 2, 3), net.at("bn1")))
    x = p.global_average(stages(p.max_pool2d(x, 3, 2, 1), net, block))
    return p.linear(p.batch_norm(x, net.at("bn2")), net.at("fc"))


# The real ResNet-20 (akamaster).


class Real:
    @staticmethod
    def write(w, name, *shape):
        w.conv(name, *shape)


def real_block(x, tensors, stride):
    y = p.relu(p.batch_norm(p.conv2d(x, tensors["conv1.weight"], stride, 1), tensors.at("bn1")))
    y = p.batch_norm(p.conv2d(y, tensors["conv2.weight"], 1, 1), tensors.at("bn2"))
    return p.relu(y + (x if stride == 1 else subsample(x)))


def real_forward(state, images):
    net = Tensors(state)
    x = p.relu(p.batch_norm(p.conv2d(images, net["conv1.weight"], padding=1), net.at("bn1")))
    return p.linear(p.global_average(stages(x, net, real_block)), net.at("linear"))


# FracBNN.


def fracbnn_state(seed=0, zeros=False, gated=True, module=False, batch=1):
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


def fracbnn_rprelu(x, tensors):
    x = p.prelu(x + tensors["shift_x.bias"], tensors.at("prelu"))
    return x + tensors["shift_y.bias"]


def fracbnn_block(conv):
    def block(x, tensors, stride):
        y = p.batch_norm(conv(x, tensors.at("conv1"), stride), tensors.at("bn1"))
        shortcut = x if stride == 1 else np.concatenate([p.avg_pool2d(x)] * 2, axis=1)
        y = p.batch_norm(fracbnn_rprelu(y, tensors.at("rprelu1")) + shortcut, tensors.at("bn3"))
        out = p.batch_norm(conv(y, tensors.at("conv2")), tensors.at("bn2"))
        return p.batch_norm(fracbnn_rprelu(out, tensors.at("rprelu2")) + y, tensors.at("bn4"))

    return block


def fracbnn_forward(conv, state, images):
    net = Tensors(state)
    x = p.batch_norm(binary_weight_conv(thermometer(images), net.at("conv1")), net.at("bn1"))
    return p.linear(p.global_average(stages(x, net, fracbnn_block(conv))), net.at("linear"))
