"""The networks of the literature, untrained: constructors in the manner of larq_zoo."""

from larq_rep.zoo.bireal import (
    BiRealNet18,
    BiRealNet34,
    BiRealNet50,
    ReActNet10,
    ReActNet18,
    ReActNet34,
    RepBiRealNet18,
    RepBiRealNet34,
    RepReActNet18,
)
from larq_rep.zoo.larq_zoo import (
    BinaryAlexNet,
    DoReFaNet,
    QuickNet,
    QuickNetLarge,
    QuickNetSmall,
    RealToBinaryNet,
    XNORNet,
)
from larq_rep.zoo.reactnet import ReActNetA, ReActNetB, ReActNetC, RepReActNetA, RepReActNetB, RepReActNetC
from larq_rep.zoo.registry import get_model, get_network, list_models
from larq_rep.zoo.resnet18 import RepResNet18, ResNet18
from larq_rep.zoo.resnet20 import RepResNet20, ResNet20
from larq_rep.zoo.vgg import RepVGGSmall, VGGSmall
