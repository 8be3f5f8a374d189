"""ReCU's ResNet-18 and -34 that are trained in two stages.

The keys and the order of a block are those of the code of ReCU's second stage; what a binary convolution computes is
in specs/cifar-bnns.md, section 2.3. The first stage has real convolutions in their place.
"""

from functools import partial

from . import primitives as p
from .cifar import ReCU
from .network import IMAGENET, SECOND, Network
from .reactnet import rprelu
from .tensors import Tensors, Writer

BLOCKS = {18: [4, 4, 4, 4], 34: [6, 8, 12, 6]}


def resnet_state(layers, classes=1000, seed=0, zeros=False, scales=True, module=False):
    """`scales` tells whether the convolutions have the parameters of a binary one, as in the second stage."""
    w = Writer(seed, zeros)
    w.conv("conv", 64, 3, 7, 7)
    w.norm("bn", 64)
    inputs = 64
    for stage, blocks in enumerate(BLOCKS[layers], start=1):
        outputs = 32 * 2**stage
        for j in range(blocks):
            block = f"layer{stage}.{j}"
            w.bias(f"{block}.move0", inputs)
            (ReCU.write if scales else Writer.binary_conv)(w, f"{block}.conv", outputs, inputs, 3, 3)
            w.norm(f"{block}.bn", outputs, pairs=9 * inputs)
            w.bias(f"{block}.move1", outputs)
            w.prelu(f"{block}.nonlinear", outputs)
            w.bias(f"{block}.move2", outputs)
            if inputs != outputs:
                w.conv(f"{block}.downsample.1", outputs, inputs, 1, 1)
                w.norm(f"{block}.downsample.2", outputs)
            inputs = outputs
    w.linear("fc", classes, 512)
    return w.done(module)


def real_conv(x, tensors, stride):
    return p.conv2d(p.sign(x), tensors["weight"], stride, 1)


def resnet_forward(state, images, conv=ReCU.conv):
    net = Tensors(state)
    x = p.batch_norm(p.conv2d(images, net["conv.weight"], 2, 3), net.at("bn"))
    x = p.max_pool2d(x, 3, 2, 1)
    for stage in range(1, 5):
        for j, block in enumerate(net.children(f"layer{stage}")):
            stride = 2 if stage > 1 and j == 0 else 1
            y = conv(x + block["move0.bias"], block.at("conv"), stride)
            y = p.batch_norm(y, block.at("bn"))
            if stride == 2:
                x = p.conv2d(p.avg_pool2d(x), block["downsample.1.weight"])
                x = p.batch_norm(x, block.at("downsample.2"))
            x = rprelu(y + x, block, "move1", "nonlinear", "move2")
    return p.linear(p.global_average(x), net.at("fc"))


def networks():
    """The records of these networks by name."""
    for layers, parameters, bops in ((18, 11704424, 1676279808), (34, 21827432, 3525967872)):
        network = partial(Network, input_shape=IMAGENET, constructor=f"ReCUResNet{layers}")
        # ReActNet's parameters, and one scale for each filter of a binary convolution.
        filters = sum(64 * 2**stage * blocks for stage, blocks in enumerate(BLOCKS[layers]))
        small = {"small": layers == 18, "fast": layers == 18, "macs": bops + 137793536 - 512000}
        yield (
            f"recu_two_stage{layers}",
            network(partial(resnet_state, layers), resnet_forward, parameters=parameters + filters, **small, **SECOND),
        )
        first = partial(resnet_state, layers, scales=False), partial(resnet_forward, conv=real_conv)
        yield f"recu_two_stage{layers}_step1", network(*first, parameters=parameters, said={"step": 1})
