"""Constructors of the networks of the literature, untrained, in the style of larq_zoo.

All constructors take these arguments besides their own:

- `input_shape`: `(height, width, channels)` of an image, by default that of the published network's data set.
- `input_tensor`: A Keras tensor to begin with instead of an input of its own.
- `weights`: `None` for initial values; a file of weights; or the name of published ones, such as `"imagenet"`, see
  `load_weights`. A checkpoint of the authors gives a network with mirrored kernels behind a `larq_rep.layers.Mirror`,
  whose outputs are those of their code.
- `include_top`: Whether the classifier is included. Without it the network ends with its last feature map, before the
  global pooling.
- `num_classes`: Number of classes, by default that of the data set. The outputs are logits of shape
  `(N, num_classes)`.

They return a functional Keras model with the attribute `record`, which says what was built (`larq_rep.record.Record`)
and is kept in the files that the model is saved to. They raise a `TypeError` for an unknown argument, a `ValueError` if
an argument or the input does not suit or weights do not fit, and a `FileNotFoundError` if there is no file `weights`;
for published weights it says where to get them.

Under a global policy of half precision (`tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")`) weights and
logits stay float32, as Keras' guide recommends, and everything between is computed in half precision.
"""

from larq_rep import lazy
from larq_rep.zoo.abc_net import ABCNet18
from larq_rep.zoo.aresbnet import AresBNet10, AresBNet18, AresBNet34
from larq_rep.zoo.binary_connect import BinaryConnectVGG
from larq_rep.zoo.binarydensenet import (
    BinaryDenseNet28,
    BinaryDenseNet37,
    BinaryDenseNet37Dilated,
    BinaryDenseNet45,
    RepBinaryDenseNet28,
)
from larq_rep.zoo.binarydensenet_ablation import BinaryDenseNet13, BinaryDenseNet21, BinaryDenseNet37Ablation
from larq_rep.zoo.bireal import (
    BiRealNet18,
    BiRealNet34,
    BiRealNet50,
    BiRealNet101,
    BiRealNet152,
    RepBiRealNet18,
    RepBiRealNet34,
)
from larq_rep.zoo.cbcn import CBCNResNet18
from larq_rep.zoo.dorefa import DoReFaResNet18
from larq_rep.zoo.ensemble import BENN18, Ensemble
from larq_rep.zoo.group_net import GroupNet18, GroupNet34
from larq_rep.zoo.hwgq import HWGQResNet18
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
from larq_rep.zoo.lq_net import LQNetResNet18, LQNetResNet34
from larq_rep.zoo.meliusnet import MeliusNet22, MeliusNet29, MeliusNet42, MeliusNet59
from larq_rep.zoo.predictions import decode_predictions
from larq_rep.zoo.preprocess import preprocess_input
from larq_rep.zoo.presbnet import PresBNet10, PresBNet18, PresBNet34
from larq_rep.zoo.quantized_weights import BWNResNet18, INQResNet18, TTQResNet18, TWNResNet18
from larq_rep.zoo.reactnet import ReActNetA, ReActNetB, ReActNetC, RepReActNetA, RepReActNetB, RepReActNetC
from larq_rep.zoo.reactnet18 import ReActNet10, ReActNet18, ReActNet34, RepReActNet18
from larq_rep.zoo.records import get_model, get_network, list_models
from larq_rep.zoo.recu import ReCUResNet18, ReCUResNet34, RepReCUResNet18, RepReCUResNet34
from larq_rep.zoo.references import AlexNet, MobileNetV1
from larq_rep.zoo.resnet18 import RepResNet18, RepResNet34, ResNet18, ResNet34
from larq_rep.zoo.resnet20 import RepResNet20, ResNet20
from larq_rep.zoo.resnet_e import ResNetE18, ResNetE34
from larq_rep.zoo.sibnn import SiBNNResNet18
from larq_rep.zoo.syq import SYQResNet18
from larq_rep.zoo.tbn import TBNResNet18, TBNResNet34
from larq_rep.zoo.vgg import RepVGGSmall, VGGSmall
from larq_rep.zoo.weights import load_weights

__all__ = [
    "BENN18",
    "ABCNet18",
    "AlexNet",
    "AresBNet10",
    "AresBNet18",
    "AresBNet34",
    "BWNResNet18",
    "BiRealNet18",
    "BiRealNet34",
    "BiRealNet50",
    "BiRealNet101",
    "BiRealNet152",
    "BinaryAlexNet",
    "BinaryConnectVGG",
    "BinaryDenseNet13",
    "BinaryDenseNet21",
    "BinaryDenseNet28",
    "BinaryDenseNet37",
    "BinaryDenseNet37Ablation",
    "BinaryDenseNet37Dilated",
    "BinaryDenseNet45",
    "CBCNResNet18",
    "DoReFaNet",
    "DoReFaResNet18",
    "Ensemble",
    "GroupNet18",
    "GroupNet34",
    "HWGQResNet18",
    "INQResNet18",
    "LQNetResNet18",
    "LQNetResNet34",
    "MeliusNet22",
    "MeliusNet29",
    "MeliusNet42",
    "MeliusNet59",
    "MobileNetV1",
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
    "ReCUResNet18",
    "ReCUResNet34",
    "RealToBinaryNet",
    "RepBiRealNet18",
    "RepBiRealNet34",
    "RepBinaryDenseNet28",
    "RepReActNet18",
    "RepReActNetA",
    "RepReActNetB",
    "RepReActNetC",
    "RepReCUResNet18",
    "RepReCUResNet34",
    "RepResNet18",
    "RepResNet20",
    "RepResNet34",
    "RepVGGSmall",
    "ResNet18",
    "ResNet20",
    "ResNet34",
    "ResNetE18",
    "ResNetE34",
    "SYQResNet18",
    "SiBNNResNet18",
    "TBNResNet18",
    "TBNResNet34",
    "TTQResNet18",
    "TWNResNet18",
    "VGGSmall",
    "XNORNet",
    "decode_predictions",
    "get_model",
    "get_network",
    "import_checkpoint",
    "list_models",
    "load_weights",
    "preprocess_input",
]

__getattr__, __dir__ = lazy.modules(__name__, "catalog")
