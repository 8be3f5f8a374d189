"""VGG-small, ResNet-20 and the two ResNet-18 of IR-Net, RBNN and ReCU, and the real ResNet-20.

Source: specs/cifar-bnns.md, sections 1 to 3. IR-Net's two ResNet-18 end with a log-softmax, which is left out here:
every forward returns logits.
"""

from functools import partial

import numpy as np

from . import primitives as p
from .network import CIFAR, IMAGENET, Network
from .tensors import Tensors, Writer

VGG = [(128, 3), (128, 128), (256, 128), (256, 256), (512, 256), (512, 512)]


# Binary convolutions: `name`'s tensors written, and the convolution of x with them.


class IRNet:
    @staticmethod
    def write(w, name, *shape):
        w.binary_conv(name, *shape)

    @staticmethod
    def conv(x, tensors, stride=1, padding=1):
        return p.conv2d(p.sign(x), IRNet.kernel(tensors), stride, padding)

    @staticmethod
    def kernel(tensors):
        z = standardised(tensors["weight"])
        return 2.0 ** np.rint(np.log2(np.abs(z).mean(axis=(1, 2, 3), keepdims=True))) * p.sign(z)


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
                w.norm(f"{block}.bn{i}", outputs, pairs=1 if issubclass(method, Real) else 9 * depth)
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


def two_convolutions(method, shortcut, activation=p.hardtanh):
    """One residual for two convolutions."""

    def block(x, tensors, stride):
        y = activation(p.batch_norm(method.conv(x, tensors.at("conv1"), stride), tensors.at("bn1")))
        y = p.batch_norm(method.conv(y, tensors.at("conv2")), tensors.at("bn2"))
        return activation(y + (x if stride == 1 else shortcut(x, tensors)))

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

    @staticmethod
    def conv(x, tensors, stride=1, padding=1):
        return p.conv2d(x, tensors["weight"], stride, padding)


def real_forward(state, images):
    net = Tensors(state)
    x = p.relu(p.batch_norm(p.conv2d(images, net["conv1.weight"], padding=1), net.at("bn1")))
    x = stages(x, net, two_convolutions(Real, option_a, p.relu))
    return p.linear(p.global_average(x), net.at("linear"))


def networks():
    """The records of these networks by name."""
    yield from _vggs()
    yield from _resnets20()
    yield from _resnets18()


def _vggs():
    macs = 603979776 + 3620864 - 81920
    for name, method, parameters, entries, more in (
        ("irnet", IRNet, 4660106, 38, {"macs": macs, "fast": True}),
        ("rbnn", RBNN, 4663434, 58, {}),
        ("recu", ReCU, 4661770, 48, {"small": True, "fast": True}),
    ):
        state, forward = partial(vgg_state, method), partial(vgg_forward, method)
        yield (
            f"{name}_vgg",
            Network(state, forward, CIFAR, "VGGSmall", parameters, {"method": name}, entries=entries, **more),
        )


def asked(*names):
    return tuple(f"--set method={name}" for name in names)


def _resnets20():
    def resnet20(state, block, parameters, method, **more):
        forward = partial(resnet20_forward, block)
        more = {"small": True, "fast": True, **more}
        return Network(state, forward, CIFAR, "ResNet20", parameters, {"method": method}, **more)

    widths = [16, 32, 64], 3
    macs = 40108032 + 442368
    state, irnet = partial(resnet_state, IRNet, *widths), {"asked": asked("irnet", "irnet_1w32a", "irnet_real")}
    network = resnet20(state, each_convolution(IRNet, option_a), 269850, "irnet", entries=121, macs=macs, **irnet)
    yield "irnet_resnet20", network._replace(said={"method": "irnet"})
    state, rbnn = partial(resnet_state, RBNN, *widths), {"entries": 193, "asked": asked("rbnn", "rbnn_bireal")}
    for name, block in (
        ("rbnn", two_convolutions(RBNN, option_a)),
        ("rbnn_bireal", each_convolution(RBNN, option_a)),
    ):
        record = resnet20(state, block, 271194, name, macs=macs, **rbnn)
        yield name.replace("rbnn", "rbnn_resnet20"), record._replace(said={"method": name})
    state = partial(resnet_state, ReCU, *widths)
    yield "recu_resnet20", resnet20(state, each_convolution(ReCU, recu_shortcut), 270522, "recu", entries=157)
    state = partial(resnet_state, Real, *widths, module=True)
    yield (
        "resnet20",
        Network(
            state, real_forward, CIFAR, "ResNet20", 269722, {"method": "real"},
            asked=asked("real", "real_bireal"), said={"method": "real"}, macs=40551040 - 640, small=True, fast=True,
        ),
    )  # fmt: skip


def _resnets18():
    wide = [64, 128, 256, 512], 2
    never = {"unused": r"bn3\..*"}
    small = {"small": True, "fast": True}
    irnet = {"asked": asked("irnet", "irnet_1w32a"), "said": {"method": "irnet"}}
    for name, method, path, shortcut, parameters, entries, macs, more in (
        ("irnet", IRNet, real_conv_shortcut("shortcut"), False, 11174986, 127, 547356672 + 8066048, irnet),
        ("rbnn", RBNN, rbnn_shortcut, True, 11184458, 203, 553648128 + 1774592, small),
        ("recu", ReCU, recu_shortcut, None, 11005002, 141, 547356672 + 1774592, {}),
    ):
        state = partial(
            resnet_state, method, *wide, **({} if shortcut is None else {"shortcut": ("shortcut", shortcut)})
        )
        forward = partial(resnet18_cifar_forward, two_convolutions(method, path))
        arguments = {"method": name, "dataset": "cifar10"}
        record = Network(state, forward, CIFAR, "ResNet18", parameters, arguments, entries=entries, macs=macs - 5120)
        yield f"{name}_resnet18_cifar", record._replace(**more)
    options = dict(head="fc", classes=1000, shortcut=("downsample", False), stem=7)
    for name, method, parameters, entries, dead, more in (
        ("irnet", IRNet, 11692536, 132, {"dead": True}, {**never, **irnet, "fast": True}),
        ("rbnn", RBNN, 11700216, 196, {"dead": True}, never),
        ("recu", ReCU, 11694376, 159, {}, {"macs": 1676279808 + 137793536 - 512000}),
    ):
        state = partial(resnet_state, method, *wide, **options, **dead)
        forward = partial(resnet18_forward, each_convolution(method, real_conv_shortcut("downsample")))
        arguments = {"method": name, "dataset": "imagenet"}
        yield (
            f"{name}_resnet18",
            Network(state, forward, IMAGENET, "ResNet18", parameters, arguments, entries=entries, **more),
        )
