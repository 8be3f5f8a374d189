"""IR-Net's networks with real activations: with 1-bit weights, ResNet-20 and ResNet-18, and with real ones, ResNet-20.

Source: specs/cifar-bnns.md, sections 2.1 and 3, for kernels, stem and tail, which are those of the binary networks; the
blocks are those of the real ResNet-20 there (section 3.6).
"""

from functools import partial

from . import primitives as p
from .cifar import (
    IRNet,
    Real,
    asked,
    option_a,
    real_conv_shortcut,
    resnet18_cifar_forward,
    resnet18_forward,
    resnet20_forward,
    resnet_state,
    two_convolutions,
)
from .network import CIFAR, IMAGENET, Network


class RealActivations(IRNet):
    @staticmethod
    def conv(x, tensors, stride=1, padding=1):
        return p.conv2d(x, IRNet.kernel(tensors), stride, padding)


class RealWeights(Real):
    """Unlike the other real ResNet-20 with a batch norm before the classifier."""


def networks():
    """The records of these networks by name."""
    for name, method in (("irnet_1w32a", RealActivations), ("irnet_real", RealWeights)):
        yield (
            f"{name}_resnet20",
            Network(
                partial(resnet_state, method, [16, 32, 64], 3),
                partial(resnet20_forward, two_convolutions(method, option_a, p.relu)),
                CIFAR,
                "ResNet20",
                269850,
                {"method": name},
                asked=asked("irnet", "irnet_1w32a", "irnet_real"),
                said={"method": name},
                entries=121,
                macs=40551040 - 640,
                small=True,
                fast=True,
            ),
        )
    wide = [64, 128, 256, 512], 2
    common = partial(Network, constructor="ResNet18", asked=asked("irnet", "irnet_1w32a"))
    common = partial(common, said={"method": "irnet_1w32a"})

    def forward(whole, shortcut):
        return partial(whole, two_convolutions(RealActivations, real_conv_shortcut(shortcut), p.relu))

    yield (
        "irnet_1w32a_resnet18_cifar",
        common(
            partial(resnet_state, RealActivations, *wide, shortcut=("shortcut", False)),
            forward(resnet18_cifar_forward, "shortcut"),
            CIFAR,
            parameters=11174986,
            arguments={"method": "irnet_1w32a", "dataset": "cifar10"},
            entries=127,
        ),
    )
    options = dict(head="fc", classes=1000, shortcut=("downsample", False), stem=7, dead=True)
    yield (
        "irnet_1w32a_resnet18",
        common(
            partial(resnet_state, RealActivations, *wide, **options),
            forward(resnet18_forward, "downsample"),
            IMAGENET,
            parameters=11692536,
            arguments={"method": "irnet_1w32a", "dataset": "imagenet"},
            unused=r"bn3\..*",
            entries=132,
        ),
    )
