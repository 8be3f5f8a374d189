"""Every row of the tables of the four papers: what it prints, and the network here, or why there is none.

The papers are BinaryDenseNet, ReActNet, RepBNN and PresB-Net. `larq_rep.zoo.catalog` writes these rows to docs/zoo.md.
"""

import ast
from typing import Any, NamedTuple


class Row(NamedTuple):
    """A row of a table, or a network that a paper's text names.

    # Attributes
        table: The paper and the table, as the sources of results name them.
        row: What the table calls it.
        printed: The numbers that it prints; top-1 and top-5 accuracies are in percent.
        network: The call that builds it; two with " or " between if the table does not say which; empty if there is
            none.
        note: How to get there, what is not known, or why there is no network.
    """

    table: str
    row: str
    printed: str
    network: str = ""
    note: str = ""


def calls(networks: str) -> list[tuple[str, dict[str, Any]]]:
    """The constructors and the arguments of the calls that a row names."""
    trees = [ast.parse(network, mode="eval").body for network in networks.split(" or ") if network]
    return [
        (tree.func.id, {keyword.arg or "": ast.literal_eval(keyword.value) for keyword in tree.keywords})
        for tree in trees
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name)
    ]


def _table(table: str, *rows: tuple[str, ...]) -> tuple[Row, ...]:
    return tuple(Row(table, *row) for row in rows)


_FIRST = "first phase of recipe presbnet-paper"
_CROSS_ENTROPY = "trained without a teacher: --set teacher=none"
_AS_ADAMBNN = "recipe adambnn"
_NOT_NAMED = "no number is printed"
_REAL = "a real network of other authors; the paper does not tell its version, width or stem"
_DETECTOR = "a detector: the zoo has classifiers"
_TRAINING = "a way to train, without a network of its own"
_TBN = "TBNResNet{0}() or TBNResNet{0}(shortcut='ternary')"
_COST = "the row is about one convolution"

_BINARY_DENSENET = (
    *_table(
        "BinaryDenseNet, Table 1",
        ("Full-precision", "1x", "ResNet18(method='real')", _COST),
        ("BC", "~2x", "BinaryConnectVGG()", _COST),
        ("BWN", "~2x", "BWNResNet18()", _COST),
        ("TTQ", "~2x", "TTQResNet18(width=96)", _COST),
        ("DoReFa, 4 bits", "~15x", "DoReFaResNet18()", _COST),
        (
            "HORQ",
            "~29x",
            "",
            "its scales are of each patch of the input, so that it is no convolution of one map; the quantizer "
            "ResidualSigns has one scale for each layer",
        ),
        ("TBN", "~40x", "TBNResNet18()", _COST),
        ("XNOR", "~58x", "ResNet18(method='xnor', scale=True)", _COST),
        ("BNN", "~64x", "ResNet18(method='bnn')", _COST),
        ("Bi-Real", "~64x", "BiRealNet18()", _COST),
        ("Ours", "~64x", "ResNetE18()", _COST),
    ),
    *_table(
        "BinaryDenseNet, Table 2",
        (
            "CIFAR-10, binary downsampling, scaling",
            "83.6 / 99.2",
            "ResNetE18(dataset='cifar10', version=2, downsampling='binary', scaling=True)",
        ),
        (
            "CIFAR-10, binary downsampling",
            "87.2 / 99.4; 1.39 MB",
            "ResNetE18(dataset='cifar10', version=2, downsampling='binary')",
        ),
        ("CIFAR-10, scaling", "84.7 / 99.2", "ResNetE18(dataset='cifar10', version=2, scaling=True)"),
        ("CIFAR-10", "87.6 / 99.5; 2.03 MB", "ResNetE18(dataset='cifar10', version=2)"),
        ("ImageNet, binary downsampling, scaling", "52.7 / 76.1", "ResNetE18(downsampling='binary', scaling=True)"),
        ("ImageNet, binary downsampling", "54.5 / 77.8; 3.36 MB", "ResNetE18(downsampling='binary')"),
        ("ImageNet, scaling", "55.6 / 78.4", "ResNetE18(scaling=True)"),
        ("ImageNet", "56.7 / 79.2; 4.0 MB", "ResNetE18()"),
    ),
    *_table(
        "BinaryDenseNet, Table 3",
        ("Our result", "58.1 / 80.6; 4.0 MB", "ResNetE18(clip_value=1.25)"),
        ("Our result, binary downsampling", "54.5 / 77.8; 3.4 MB", "ResNetE18(downsampling='binary')"),
        ("Bi-Real", "56.4 / 79.5", "BiRealNet18()"),
        (
            "TBN",
            "55.6 / 74.2",
            _TBN.format(18),
            "the sizes of the tables are those of real shortcuts; the text says that they are not real",
        ),
        ("XNOR", "51.2 / 73.2", "ResNet18(method='xnor', scale=True)"),
        ("ABC-Net (1/1)", "42.7 / 67.6", "ABCNet18(weight_bases=1, input_bases=1)"),
    ),
    *_table(
        "BinaryDenseNet, Table 4",
        ("16 blocks, binary downsampling", "52.7 / 75.7; 3.39 MB", "BinaryDenseNet21(downsampling='binary')"),
        ("16 blocks, real downsampling", "55.9 / 78.5; 3.03 MB", "BinaryDenseNet21()"),
        ("32 blocks, binary downsampling", "54.3 / 77.3; 3.45 MB", "BinaryDenseNet37Ablation(downsampling='binary')"),
        ("32 blocks, real downsampling", "57.1 / 80.0; 3.08 MB", "BinaryDenseNet37Ablation()"),
    ),
    *_table(
        "BinaryDenseNet, Table 5",
        ("8 blocks", "50.2 / 73.7; 3.31 MB", "BinaryDenseNet13()"),
        ("16 blocks", "52.7 / 75.7; 3.39 MB", "BinaryDenseNet21(downsampling='binary')"),
        ("32 blocks", "55.5 / 78.1; 3.45 MB", "BinaryDenseNet37Ablation(downsampling='binary')"),
    ),
    *_table(
        "BinaryDenseNet, section 4.3",
        ("CIFAR-10, binary downsampling", "87.6; 673 KB", "BinaryDenseNet21(dataset='cifar10', downsampling='binary')"),
        ("CIFAR-10, real downsampling", "90.3; 1.49 MB", "BinaryDenseNet21(dataset='cifar10')"),
    ),
    *_table(
        "BinaryDenseNet, Table 6",
        ("XNOR-ResNet18", "51.2 / 73.2; ~4.0 MB", "ResNet18(method='xnor', scale=True)"),
        ("TBN-ResNet18", "55.6 / 74.2; ~4.0 MB", _TBN.format(18)),
        ("Bi-Real-ResNet18", "56.4 / 79.5; ~4.0 MB", "BiRealNet18()"),
        ("BinaryResNetE18", "58.1 / 80.6; ~4.0 MB", "ResNetE18(clip_value=1.25)"),
        ("BinaryDenseNet28", "60.7 / 82.4; ~4.0 MB", "BinaryDenseNet28()"),
        ("TBN-ResNet34", "58.2 / 81.0; ~5.1 MB", _TBN.format(34)),
        ("Bi-Real-ResNet34", "62.2 / 83.9; ~5.1 MB", "BiRealNet34()"),
        ("BinaryDenseNet37", "62.5 / 83.9; ~5.1 MB", "BinaryDenseNet37()"),
        ("BinaryDenseNet37-dilated", "63.7 / 84.7; ~5.1 MB", "BinaryDenseNet37Dilated()"),
        ("BinaryDenseNet45", "63.7 / 84.8; 7.4 MB", "BinaryDenseNet45()"),
        ("Full-precision ResNet18", "69.3 / 89.2; 46.8 MB", "ResNet18(method='real')"),
        ("Full-precision AlexNet", "56.6 / 80.2; 249 MB", "AlexNet()"),
    ),
    *_table(
        "BinaryDenseNet, Table 7",
        ("ResNetE18", "layers 4, 4, 4, 4; best epoch 115 of 120; clip 1.25", "ResNetE18(clip_value=1.25)"),
        (
            "BDN-28",
            "layers 6, 6, 6, 5; reduction 2.7, 2.7, 2.2; best epoch 117 of 120; clip 1.3",
            "BinaryDenseNet28()",
        ),
        (
            "BDN-37",
            "layers 6, 8, 12, 6; reduction 3.3, 3.3, 4; best epoch 118 of 120; clip 1.3",
            "BinaryDenseNet37()",
        ),
        (
            "BDN-45",
            "layers 6, 12, 14, 8; reduction 2.7, 3.3, 4; best epoch 123 of 130; clip 1.3",
            "BinaryDenseNet45()",
        ),
    ),
    *_table(
        "BinaryDenseNet, Table 8",
        ("BinaryDenseNet37 (SSD 512)", "66.4 mAP", "", _DETECTOR),
        ("BinaryDenseNet45 (SSD 512)", "68.2 mAP", "", _DETECTOR),
        ("SSD 512 FP", "76.8 mAP", "", _DETECTOR),
        ("Faster RCNN FP", "73.2 mAP", "", _DETECTOR),
        ("Yolo FP", "66.4 mAP", "", _DETECTOR),
    ),
    *_table(
        "BinaryDenseNet, Figure 4",
        ("DoReFa (w:1, a:4)", "plotted", "DoReFaResNet18()"),
        ("TBN (w:1, a:1.5)", "plotted", "TBNResNet18()"),
        ("ABC-Net (w:5, a:5)", "plotted", "ABCNet18(weight_bases=5, input_bases=5)"),
        ("XNOR", "plotted", "ResNet18(method='xnor', scale=True)"),
        ("Bi-Real", "plotted", "BiRealNet18()"),
        ("ResNetE18", "plotted", "ResNetE18(clip_value=1.25)"),
        ("BinaryDenseNet28", "plotted", "BinaryDenseNet28()"),
        ("BinaryDenseNet37", "plotted", "BinaryDenseNet37()"),
        ("BinaryDenseNet45", "plotted", "BinaryDenseNet45()"),
    ),
)

_REACTNET = (
    *_table(
        "ReActNet, Table 1",
        ("BWN", "60.8; W/A 1/32", "BWNResNet18()"),
        ("TWN", "61.8; W/A 2/32", "TWNResNet18(width=64)"),
        ("INQ", "66.0; W/A 2/32", "INQResNet18(bits=2)"),
        (
            "TTQ",
            "66.6; W/A 2/32",
            "TTQResNet18(width=96)",
            "measured with maps 1.5 times as wide as those of ResNet-18",
        ),
        ("SYQ", "55.4; W/A 1/2", "SYQResNet18()"),
        ("HWGQ", "59.6; W/A 1/2", "HWGQResNet18()"),
        ("LQ-Nets", "62.6; W/A 1/2", "LQNetResNet18()"),
        ("DoReFa-Net", "59.2; W/A 1/4", "DoReFaResNet18()"),
        ("Ensemble BNN, (1/1) x 6", "61.1", "BENN18(members=6)"),
        ("Circulant CNN, (1/1) x 4", "61.4", "CBCNResNet18()"),
        ("Structured BNN, (1/1) x 4", "64.2", "GroupNet18(bases=4)"),
        ("Structured BNN*, (1/1) x 4", "66.3", "GroupNet18(bases=4, shortcut='real')"),
        ("ABC-Net, (1/1) x 5", "65.0", "ABCNet18(weight_bases=5, input_bases=5)"),
        ("BNNs", "42.2; 1.70e9 BOPs, 1.20e8 FLOPs, 1.47e8 OPs", "ResNet18(method='bnn')"),
        (
            "CI-BCNN",
            "59.9; 1.63e8 OPs",
            "",
            "BiRealNet18 with a rule for each of many pairs of channels; the pairs come from a policy network, and "
            "those for ImageNet are not published",
        ),
        (
            "Binary MobileNet",
            "60.9; 1.54e8 OPs",
            "",
            "its groups were found by evolution and are not published, nor is code",
        ),
        (
            "PCNN",
            "57.3; 1.63e8 OPs",
            "BiRealNet18()",
            "its projections of kernels act in training alone and have no code: recipe bireal is without them",
        ),
        ("XNOR-Net", "51.2; 1.70e9 BOPs, 1.41e8 FLOPs, 1.67e8 OPs", "ResNet18(method='xnor', scale=True)"),
        ("Trained Bin", "54.2", "ResNet18(method='xnor_trained')", "no code; recipe xnor-plus-plus"),
        ("Bi-RealNet-18", "56.4; 1.68e9 BOPs, 1.39e8 FLOPs, 1.63e8 OPs", "BiRealNet18()"),
        ("Bi-RealNet-34", "62.2; 3.53e9 BOPs, 1.39e8 FLOPs, 1.93e8 OPs", "BiRealNet34()"),
        (
            "Bi-RealNet-152",
            "64.5; 1.07e10 BOPs, 4.48e8 FLOPs, 6.15e8 OPs",
            "BiRealNet152()",
            "the printed operations are those of earlier strides and a binary first convolution",
        ),
        (
            "Real-to-Binary Net",
            "65.4; 1.68e9 BOPs, 1.56e8 FLOPs, 1.83e8 OPs",
            "RealToBinaryNet()",
            "built and trained by larq_zoo",
        ),
        ("MeliusNet29", "65.8; 5.47e9 BOPs, 1.29e8 FLOPs, 2.14e8 OPs", "MeliusNet29()"),
        ("MeliusNet42", "69.2; 9.69e9 BOPs, 1.74e8 FLOPs, 3.25e8 OPs", "MeliusNet42()"),
        ("MeliusNet59", "70.7; 1.83e10 BOPs, 2.45e8 FLOPs, 5.32e8 OPs", "MeliusNet59()"),
        ("ReActNet-A", "69.4; 4.82e9 BOPs, 0.12e8 FLOPs, 0.87e8 OPs", "ReActNetA()"),
        ("ReActNet-B", "70.1; 4.69e9 BOPs, 0.44e8 FLOPs, 1.63e8 OPs", "ReActNetB()"),
        ("ReActNet-C", "71.4; 4.69e9 BOPs, 1.40e8 FLOPs, 2.14e8 OPs", "ReActNetC()"),
    ),
    *_table(
        "ReActNet, section 5",
        ("ReAct operations on Bi-RealNet-18", "65.5", "ReActNet18()"),
        ("0.5x MobileNetV1", "5.7 less than ReActNet-A: 63.7", "MobileNetV1(alpha=0.5)"),
    ),
    *_table(
        "ReActNet, Table 2",
        (
            "Baseline network, direct downsampling, cross-entropy",
            "58.2",
            "ReActNetA(sign='sign', activation=None, downsampling='conv')",
            _CROSS_ENTROPY,
        ),
        (
            "Baseline network, direct downsampling",
            "59.6",
            "ReActNetA(sign='sign', activation=None, downsampling='conv')",
        ),
        (
            "Proposed baseline network, cross-entropy",
            "61.1",
            "ReActNetA(sign='sign', activation=None)",
            _CROSS_ENTROPY,
        ),
        ("Proposed baseline network", "62.5", "ReActNetA(sign='sign', activation=None)"),
        ("Proposed baseline network + PReLU", "65.5", "ReActNetA(sign='sign', activation='prelu')"),
        ("Proposed baseline network + RSign", "66.1", "ReActNetA(activation=None)"),
        ("Proposed baseline network + RReLU", "67.4", "ReActNetA(sign='sign')"),
        ("ReActNet-A (RSign and RReLU)", "69.4", "ReActNetA()"),
        (
            "Corresponding real-valued network",
            "72.4",
            "",
            "the paper does not say which activations and convolutions it has; larq_rep.training.with_real_weights("
            "ReActNetA(), activations='real') would be one reading",
        ),
    ),
    *_table(
        "ReActNet, in the text",
        ("EBP", _NOT_NAMED, "", _TRAINING),
        ("Latent weights do not exist (Bop)", _NOT_NAMED, "BiRealNet18()", "recipe bop-bireal"),
        ("Distribution loss (Ding)", _NOT_NAMED, "BinaryAlexNet()", "recipe distribution-loss"),
        ("Compact BNN (Tang)", _NOT_NAMED, "", _TRAINING),
        ("Progressive quantization (Zhuang)", _NOT_NAMED, "", _TRAINING),
        ("WRPN", _NOT_NAMED, "", "any network with more filters and fewer bits"),
        (
            "XNOR-Net++",
            _NOT_NAMED,
            "ResNet18(method='xnor_trained')",
            "with one scale per filter; those per pixel of its other cases are not built",
        ),
        ("Optimisation of BNNs (Alizadeh)", _NOT_NAMED, "", _TRAINING),
    ),
)


def _raw_and_rep(table: str, row: str, raw: str, rep: str, network: str) -> tuple[Row, Row]:
    return Row(table, row, raw, network), Row(table, f"Rep-{row}", rep, f"Rep{network}")


_REPBNN = (
    *_table(
        "RepBNN, Table 1",
        (
            "ReActNet-A",
            "FLOPs of FC 0.102e7, Conv 1.084e7, BN 1.009e7; 4.822e9 BOPs, 0.872e8 OPs, with BN 0.973e8",
            "ReActNetA()",
        ),
        (
            "Rep-ReActNet-A",
            "FLOPs of FC 0.205e7, Conv 1.084e7, BN 1.261e7; 4.822e9 BOPs, 0.882e8 OPs, with BN 1.008e8",
            "RepReActNetA()",
        ),
    ),
    *_table(
        "RepBNN, Table 2",
        ("IR-Net", "86.50; 1069696 OPs", "ResNet20(method='irnet')"),
        ("IR-Net, solution 1", "87.59; 1070336 OPs", "RepResNet20(method='irnet')"),
        ("IR-Net, solution 2", "87.50; 1069696 OPs", "RepResNet20(method='irnet', last_layer=2)"),
        ("IR-Net, solution 3", "87.50; 1069376 OPs", "RepResNet20(method='irnet', last_layer=3)"),
        ("ReCU", "87.50; 1069696 OPs", "ResNet20(method='recu')"),
        ("ReCU, solution 1", "88.97; 1070336 OPs", "RepResNet20(method='recu')"),
        ("ReCU, solution 2", "88.92; 1069696 OPs", "RepResNet20(method='recu', last_layer=2)"),
        ("ReCU, solution 3", "88.82; 1069376 OPs", "RepResNet20(method='recu', last_layer=3)"),
    ),
    *_table(
        "RepBNN, Table 3",
        ("IR-Net", "86.50", "ResNet20(method='irnet')"),
        ("IR-Net, beta = 2", "87.59", "RepResNet20(method='irnet')"),
        ("IR-Net, beta = 4", "88.07", "RepResNet20(method='irnet', beta=4)"),
        ("IR-Net, beta = 8", "87.07", "RepResNet20(method='irnet', beta=8)"),
        ("ReCU", "87.50", "ResNet20(method='recu')"),
        ("ReCU, beta = 2", "88.97", "RepResNet20(method='recu')"),
        ("ReCU, beta = 4", "89.59", "RepResNet20(method='recu', beta=4)"),
        ("ReCU, beta = 8", "88.72", "RepResNet20(method='recu', beta=8)"),
    ),
    *_table(
        "RepBNN, Table 4",
        ("IR-Net", "86.50", "ResNet20(method='irnet')"),
        ("IR-Net, BN after repeat", "87.59", "RepResNet20(method='irnet')"),
        ("IR-Net, BN before repeat", "82.74", "RepResNet20(method='irnet', bn='before')"),
        ("ReCU", "87.50", "ResNet20(method='recu')"),
        ("ReCU, BN after repeat", "88.97", "RepResNet20(method='recu')"),
        ("ReCU, BN before repeat", "85.30", "RepResNet20(method='recu', bn='before')"),
    ),
    *_raw_and_rep("RepBNN, Table 5", "IR-Net-VGG", "90.40", "86.95", "VGGSmall(method='irnet')"),
    *_raw_and_rep("RepBNN, Table 5", "ReCU-VGG", "92.22", "92.41", "VGGSmall(method='recu')"),
    *_raw_and_rep("RepBNN, Table 5", "IR-Net-ResNet-20", "86.50", "87.59", "ResNet20(method='irnet')"),
    *_raw_and_rep("RepBNN, Table 5", "ReCU-ResNet-20", "87.50", "88.97", "ResNet20(method='recu')"),
    *_raw_and_rep("RepBNN, Table 6", "ResNet-20", "91.73", "90.62", "ResNet20(method='real')"),
    *_raw_and_rep("RepBNN, Table 6", "ResNet-20 (Bi-Real)", "90.57", "90.84", "ResNet20(method='real_bireal')"),
    *_raw_and_rep("RepBNN, Table 7", "RBNN, VGG-small", "91.3", "92.3", "VGGSmall(method='rbnn')"),
    *_raw_and_rep("RepBNN, Table 7", "IR-Net, VGG-small", "90.4", "86.9", "VGGSmall(method='irnet')"),
    *_raw_and_rep("RepBNN, Table 7", "ReCU, VGG-small", "92.2", "92.4", "VGGSmall(method='recu')"),
    *_raw_and_rep("RepBNN, Table 7", "IR-Net, ResNet-20", "86.5", "87.6", "ResNet20(method='irnet')"),
    *_raw_and_rep("RepBNN, Table 7", "RBNN, ResNet-20", "86.5", "88.6", "ResNet20(method='rbnn')"),
    *_raw_and_rep("RepBNN, Table 7", "FracBNN (1 bit), ResNet-20", "87.2", "87.6", "ResNet20(method='fracbnn')"),
    *_raw_and_rep("RepBNN, Table 7", "RBNN-bireal, ResNet-20", "87.8", "88.7", "ResNet20(method='rbnn_bireal')"),
    *_raw_and_rep("RepBNN, Table 7", "ReCU, ResNet-20", "87.5", "89.0", "ResNet20(method='recu')"),
    *_raw_and_rep("RepBNN, Table 7", "RBNN, ResNet-18", "92.2", "93.1", "ResNet18(method='rbnn', dataset='cifar10')"),
    *_raw_and_rep("RepBNN, Table 7", "ReCU, ResNet-18", "92.8", "93.6", "ResNet18(method='recu', dataset='cifar10')"),
    *_table(
        "RepBNN, Table 8",
        ("BNN", "42.2 / 67.1", "ResNet18(method='bnn')"),
        ("XNOR-Net", "51.2 / 73.2", "ResNet18(method='xnor', scale=True)"),
        ("Bi-Real Net", "56.4 / 79.5", "BiRealNet18()"),
        ("Rep-Bi-Real Net", "57.1 / 79.5", "RepBiRealNet18()"),
        ("IR-Net", "58.1 / 80.0", "ResNet18(method='irnet')"),
        ("RBNN", "59.9 / 81.9", "ResNet18(method='rbnn')"),
        ("ReCU", "61.0 / 82.6", "ResNet18(method='recu')"),
        ("Rep-ReCU", "62.3 / 83.8", "RepResNet18(method='recu')"),
        ("ReActNet", "69.4 / 88.6", "ReActNetA()"),
        ("Rep-ReActNet", "70.2 / 89.1", "RepReActNetA()"),
        ("AdamBNN", "70.5 / 89.1", "ReActNetA()", _AS_ADAMBNN),
        ("Rep-AdamBNN", "71.3 / 89.8", "RepReActNetA()", _AS_ADAMBNN),
    ),
    *_table(
        "RepBNN, in the text",
        ("BENN", _NOT_NAMED, "BENN18(members=6)"),
        ("Group-Net", _NOT_NAMED, "GroupNet18(bases=4)"),
    ),
    *_table(
        "RepBNN, Figure 1",
        ("MeliusNet", "plotted", "MeliusNet29()", "and its other sizes"),
        ("High-capacity expert BNN", "plotted", "", "no number is printed, and its structure was found by a search"),
        ("SLB", "plotted", "", "no number is printed; weights of several bits, found by a search for each of them"),
    ),
)


_PRESBNET = (
    *_table(
        "PresB-Net, Table 1",
        ("ResNet-18", "75.61 / 93.05", "ResNet18(method='real', dataset='cifar100')"),
        ("AresB-Net-18", "71.98 / 90.29", "AresBNet18(slope=0.01)", _FIRST),
        ("ReActNet-18", "70.76 / 88.44", "ReActNet18(dataset='cifar100')", _FIRST),
        ("PresB-Net-10", "67.4 / 85.9", "PresBNet10()", _FIRST),
        ("PresB-Net-18", "72.3 / 89.8", "PresBNet18()", _FIRST),
        ("PresB-Net-34", "73.3 / 89.3", "PresBNet34()", _FIRST),
    ),
    *_table(
        "PresB-Net, Table 2",
        ("CIFAR-10, PresB-Net-10", "91.76 (best epoch 91.81)", "PresBNet10(dataset='cifar10')"),
        ("CIFAR-10, PresB-Net-18", "93.36 (best epoch 93.57)", "PresBNet18(dataset='cifar10')"),
        ("CIFAR-10, PresB-Net-34", "93.64 (best epoch 93.87)", "PresBNet34(dataset='cifar10')"),
        ("CIFAR-100, PresB-Net-10", "67.03 / 85.83 (best epoch 67.03)", "PresBNet10()"),
        ("CIFAR-100, PresB-Net-18", "73.84 / 90.55 (best epoch 73.87)", "PresBNet18()"),
        ("CIFAR-100, PresB-Net-34", "73.56 / 90.39 (best epoch 73.93)", "PresBNet34()"),
        ("ImageNet, PresB-Net-18", "63.03 / 83.70 (best epoch 63.03)", "PresBNet18(dataset='imagenet')"),
    ),
    *_table(
        "PresB-Net, Table 3",
        ("ShuffleNet", "62.51 / 82.60", "", _REAL),
        ("MobileNet", "59.63 / 79.88", "", f"{_REAL}; MobileNetV1 is that for ImageNet"),
        ("ResNet-18", "75.61 / 93.05", "ResNet18(method='real', dataset='cifar100')"),
        ("ReActNet-10", "66.69 / 85.83", "ReActNet10(dataset='cifar100')"),
        ("ReActNet-18", "70.81 / 89.00", "ReActNet18(dataset='cifar100')"),
        ("ReActNet-34", "70.89 / 89.24", "ReActNet34(dataset='cifar100')"),
        ("AresB-Net-10", "65.41 / 88.22", "AresBNet10(slope=0.01)"),
        ("AresB-Net-18", "70.91 / 90.04", "AresBNet18(slope=0.01)"),
        ("AresB-Net-34", "71.63 / 88.85", "AresBNet34(slope=0.01)"),
    ),
    *_table(
        "PresB-Net, Table 4",
        ("ResNet-18", "69.3 / 89.2", "ResNet18(method='real')"),
        ("ReActNet-18", "60.4 / 82.2", "ReActNet18()"),
        ("AresB-Net-18", "54.8 / 78.2", "AresBNet18(dataset='imagenet')"),
        ("PresB-Net-18", "63.0 / 83.7", "PresBNet18(dataset='imagenet')"),
    ),
    *_table(
        "PresB-Net, Table 5",
        ("PresB-Net-18", "73.84", "PresBNet18()"),
        ("No Bias for LN and BN", "72.61", "PresBNet18(act1='prelu', act2='prelu')"),
        ("Bias only for LN", "72.67", "PresBNet18(act2='prelu')"),
        ("w/o LN", "72.03", "PresBNet18(norm1=None)"),
        ("w/o BN", "72.02", "PresBNet18(norm2=None)"),
        ("w/ RPReLU", "73.10", "PresBNet18(act1='rprelu', act2='rprelu')"),
        ("w/ ReLU", "71.36", "PresBNet18(act1='relu', act2='relu')"),
    ),
    *_table(
        "PresB-Net, in the text",
        ("SiBNN", _NOT_NAMED, "SiBNNResNet18()"),
        ("BD-Net", _NOT_NAMED, "", "no code"),
        ("MoBiNet", _NOT_NAMED, "", "no code"),
        (
            "ReBNet",
            _NOT_NAMED,
            "",
            "small networks for CIFAR-10, SVHN and MNIST; its quantizer is ResidualSigns with trained scales",
        ),
        ("BNN - BN = ?", _NOT_NAMED, "", "ReActNet-A without normalisations, which it trains by clipped gradients"),
        (
            "Hybrid network (Chakraborty)",
            _NOT_NAMED,
            "",
            "layers of several precisions, which an analysis of a trained network chooses",
        ),
        ("Unbalanced activation distribution (Kim 2021)", _NOT_NAMED, "", _TRAINING),
    ),
)

SURVEY: tuple[Row, ...] = (*_BINARY_DENSENET, *_REACTNET, *_REPBNN, *_PRESBNET)
