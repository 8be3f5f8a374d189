"""The networks of the authors' PyTorch code: state dicts in the layout of their files, and what PyTorch computes.

A second source, apart from this project's networks and importers: written from the specifications, in numpy or
PyTorch, in float64, on NCHW images, with PyTorch's own padding and alignment. `primitives.backend` chooses the
arithmetic, `primitives.sign_of_zero` the sign of 0.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from . import bmxnet, cifar, presbnet, reactnet


class Network(NamedTuple):
    """`state_dict(seed=0, zeros=False, **options)`, `forward(state, images)`, and the full size (C, H, W)."""

    state_dict: Callable[..., dict[str, np.ndarray]]
    forward: Callable[..., np.ndarray]
    input_shape: tuple[int, int, int]


CIFAR, IMAGENET = (3, 32, 32), (3, 224, 224)


def _reactnets():
    state, forward = reactnet.mobilenet_state, reactnet.mobilenet_forward
    yield "reactnet_a_step1", Network(state, partial(forward, binary=False), IMAGENET)
    yield "reactnet_a_step2", Network(partial(state, flat=True), forward, IMAGENET)
    yield "adambnn_step1", Network(state, partial(forward, binary=False), IMAGENET)
    yield "adambnn", Network(state, forward, IMAGENET)
    yield "rep_adambnn_step1", Network(partial(state, beta=2), partial(forward, binary=False), IMAGENET)
    yield "rep_adambnn", Network(partial(state, beta=2), forward, IMAGENET)
    for layers in (18, 34):
        state, forward = partial(reactnet.resnet_state, layers), reactnet.resnet_forward
        yield f"react_resnet{layers}_step1", Network(state, partial(forward, binary=False), IMAGENET)
        yield f"react_resnet{layers}", Network(state, forward, IMAGENET)
        state, forward = partial(state, react=False, flat=True), partial(forward, react=False)
        yield f"bireal{layers}", Network(state, forward, IMAGENET)
    yield "bireal50", Network(reactnet.bireal50_state, reactnet.bireal50_forward, IMAGENET)


def _cifar():
    irnet, rbnn, recu, real = cifar.IRNet, cifar.RBNN, cifar.ReCU, cifar.Real
    each, two, option_a = cifar.each_convolution, cifar.two_convolutions, cifar.option_a
    narrow, wide = ([16, 32, 64], 3), ([64, 128, 256, 512], 2)

    def resnet20(method, block, **options):
        state = partial(cifar.resnet_state, method, *narrow, **options)
        return Network(state, partial(cifar.resnet20_forward, block), CIFAR)

    def resnet18_cifar(method, path, **options):
        state = partial(cifar.resnet_state, method, *wide, **options)
        return Network(state, partial(cifar.resnet18_cifar_forward, two(method, path)), CIFAR)

    def resnet18(method, **options):
        options |= dict(head="fc", classes=1000, shortcut=("downsample", False), stem=7)
        block = each(method, cifar.real_conv_shortcut("downsample"))
        state = partial(cifar.resnet_state, method, *wide, **options)
        return Network(state, partial(cifar.resnet18_forward, block), IMAGENET)

    for name, method in {"irnet": irnet, "rbnn": rbnn, "recu": recu}.items():
        yield f"{name}_vgg", Network(partial(cifar.vgg_state, method), partial(cifar.vgg_forward, method), CIFAR)
    yield "irnet_resnet20", resnet20(irnet, each(irnet, option_a))
    yield (
        "irnet_resnet18_cifar",
        resnet18_cifar(irnet, cifar.real_conv_shortcut("shortcut"), shortcut=("shortcut", False)),
    )
    yield "irnet_resnet18", resnet18(irnet, dead=True)
    yield "rbnn_resnet20", resnet20(rbnn, two(rbnn, option_a))
    yield "rbnn_resnet20_bireal", resnet20(rbnn, each(rbnn, option_a))
    yield "rbnn_resnet18_cifar", resnet18_cifar(rbnn, cifar.rbnn_shortcut, shortcut=("shortcut", True))
    yield "rbnn_resnet18", resnet18(rbnn, dead=True)
    yield "recu_resnet20", resnet20(recu, each(recu, cifar.recu_shortcut))
    yield "recu_resnet18_cifar", resnet18_cifar(recu, cifar.recu_shortcut)
    yield "recu_resnet18", resnet18(recu)
    yield "fracbnn", Network(cifar.fracbnn_state, partial(cifar.fracbnn_forward, cifar.gated_conv), CIFAR)
    yield (
        "fracbnn_1bit",
        Network(partial(cifar.fracbnn_state, gated=False), partial(cifar.fracbnn_forward, cifar.one_bit_conv), CIFAR),
    )
    state = partial(cifar.resnet_state, real, *narrow, module=True)
    yield "resnet20", Network(state, cifar.real_forward, CIFAR)


def _presbnets():
    for layers in (10, 18, 34):
        state = partial(presbnet.presb_state, layers)
        yield f"presb{layers}", Network(state, presbnet.presb_forward, CIFAR)
        yield f"presb{layers}_cifar10", Network(partial(state, 10), presbnet.presb_forward, CIFAR)
        state = partial(presbnet.aresb_state, layers)
        yield f"aresb{layers}", Network(state, presbnet.aresb_forward, CIFAR)
        yield f"aresb{layers}_cifar10", Network(partial(state, 10), presbnet.aresb_forward, CIFAR)
        state, forward = partial(state, 1000, imagenet=True), partial(presbnet.aresb_forward, imagenet=True)
        yield f"aresb{layers}_imagenet", Network(state, forward, IMAGENET)
    state = partial(reactnet.resnet_state, 18, cifar=True, classes=100)
    yield "react_resnet18_cifar100", Network(state, partial(reactnet.resnet_forward, cifar=True), CIFAR)


def _bmxnets():
    yield "binarydensenet28", Network(partial(bmxnet.densenet_state, 28), bmxnet.densenet_forward, IMAGENET)
    yield "meliusnet22", Network(partial(bmxnet.meliusnet_state, 22), bmxnet.meliusnet_forward, IMAGENET)
    for version in (1, 2):
        state, forward = partial(bmxnet.resnete_state, version), partial(bmxnet.resnete_forward, version)
        yield f"resnete18_v{version}", Network(state, forward, IMAGENET)


NETWORKS: dict[str, Network] = {
    **dict(_reactnets()),
    **dict(_cifar()),
    **dict(_presbnets()),
    **dict(_bmxnets()),
}

# The keys that ReCU's first release wrote; its forward is not reproduced.
OLD_RECU_STATES: dict[str, Callable[..., dict[str, np.ndarray]]] = {
    "recu_resnet20": partial(cifar.resnet_state, cifar.ReCU, [16, 32, 64], 3, prelu=True),
    "recu_resnet18_cifar": partial(cifar.resnet_state, cifar.ReCU, [64, 128, 256, 512], 2, shortcut=("shortcut", True)),
}


def images(name: str, batch: int = 1, size: int | None = None, seed: int = 0) -> np.ndarray:
    """Random images for a network: colours of 0 to 255 divided by 255 for FracBNN, else normalised ones."""
    channels, height, width = NETWORKS[name].input_shape
    shape = batch, channels, size or height, size or width
    rng = np.random.default_rng(seed)
    return rng.integers(256, size=shape) / 255 if name.startswith("fracbnn") else rng.standard_normal(shape)
