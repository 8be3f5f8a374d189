"""The networks of the literature, untrained: constructors in the manner of larq_zoo.

Under a global policy of half precision (`tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")`) weights and
logits stay float32, as Keras' guide wants them, and all between is computed in half precision.
"""

from larq_rep import lazy
from larq_rep.zoo.aresbnet import AresBNet10, AresBNet18, AresBNet34
from larq_rep.zoo.binarydensenet import (
    BinaryDenseNet13,
    BinaryDenseNet21,
    BinaryDenseNet28,
    BinaryDenseNet37,
    BinaryDenseNet37Ablation,
    BinaryDenseNet37Dilated,
    BinaryDenseNet45,
    RepBinaryDenseNet28,
)
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
from larq_rep.zoo.importing import import_checkpoint
from larq_rep.zoo.larq_zoo import (
    BinaryAlexNet,
    DoReFaNet,
    QuickNet,
    QuickNetLarge,
    QuickNetSmall,
    RealToBinaryNet,
    XNORNet,
)
from larq_rep.zoo.meliusnet import MeliusNet22, MeliusNet29, MeliusNet42, MeliusNet59
from larq_rep.zoo.preprocess import preprocess_input
from larq_rep.zoo.presbnet import PresBNet10, PresBNet18, PresBNet34
from larq_rep.zoo.reactnet import ReActNetA, ReActNetB, ReActNetC, RepReActNetA, RepReActNetB, RepReActNetC
from larq_rep.zoo.registry import get_model, get_network, list_models
from larq_rep.zoo.resnet18 import RepResNet18, ResNet18
from larq_rep.zoo.resnet20 import RepResNet20, ResNet20
from larq_rep.zoo.resnet_e import ResNetE18, ResNetE34
from larq_rep.zoo.vgg import RepVGGSmall, VGGSmall
from larq_rep.zoo.weights import load_weights

__all__ = [
    "AresBNet10",
    "AresBNet18",
    "AresBNet34",
    "BiRealNet18",
    "BiRealNet34",
    "BiRealNet50",
    "BinaryAlexNet",
    "BinaryDenseNet13",
    "BinaryDenseNet21",
    "BinaryDenseNet28",
    "BinaryDenseNet37",
    "BinaryDenseNet37Ablation",
    "BinaryDenseNet37Dilated",
    "BinaryDenseNet45",
    "DoReFaNet",
    "MeliusNet22",
    "MeliusNet29",
    "MeliusNet42",
    "MeliusNet59",
    "PresBNet10",
    "PresBNet18",
    "PresBNet34",
    "QuickNet",
    "QuickNetLarge",
    "QuickNetSmall",
    "ReActNet10",
    "ReActNet18",
    "ReActNet34",
    "ReActNetA",
    "ReActNetB",
    "ReActNetC",
    "RealToBinaryNet",
    "RepBiRealNet18",
    "RepBiRealNet34",
    "RepBinaryDenseNet28",
    "RepReActNet18",
    "RepReActNetA",
    "RepReActNetB",
    "RepReActNetC",
    "RepResNet18",
    "RepResNet20",
    "RepVGGSmall",
    "ResNet18",
    "ResNet20",
    "ResNetE18",
    "ResNetE34",
    "VGGSmall",
    "XNORNet",
    "get_model",
    "get_network",
    "import_checkpoint",
    "list_models",
    "load_weights",
    "preprocess_input",
]

__getattr__, __dir__ = lazy.modules(__name__, "catalog")
