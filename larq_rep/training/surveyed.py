"""Training recipes of the networks that the four papers compare with: 1-bit weights, several bits, several branches."""

from dataclasses import replace
from typing import Any

from larq_rep.datasets import CIFAR10_STATISTICS, CIFAR100_STATISTICS, IMAGENET_STATISTICS
from larq_rep.training.augmentation import Augmentation
from larq_rep.training.recipe import Phase, Recipe
from larq_rep.training.schedules import Cosine, Exponential, Linear, Steps

_RESIZED = Augmentation(crop="resized", flip=True, test_resize=256, **IMAGENET_STATISTICS._asdict())

_SEVERAL_BITS = (
    Recipe(
        "dorefa",
        "DoReFaResNet18",
        "imagenet2012",
        "inferred",
        "https://github.com/tensorpack/tensorpack/tree/master/examples/DoReFa-Net",
        replace(_RESIZED, jitter=(0.4, 0.4, 0.4, 0.0), lighting=0.1, mean=(0.0, 0.0, 0.0), std=(256 / 255,) * 3),
        (Phase(epochs=100, batch_size=256, optimizer="adam", learning_rate=1e-4, schedule=Steps((56, 64), 0.2)),),
        "The code has the network and its weights, but no training of it. The rates are those of its AlexNet; images, "
        "epochs and batch size are our choices.",
    ),
    Recipe(
        "hwgq",
        "HWGQResNet18",
        "imagenet2012",
        "code",
        "https://github.com/zhaoweicai/hwgq",
        replace(
            _RESIZED,
            scale=(0.57, 0.77),
            ratio=(1.0, 1.0),
            mean=(123 / 255, 117 / 255, 104 / 255),
            std=(1 / 255, 1 / 255, 1 / 255),
        ),
        (Phase(epochs=64, batch_size=256, weight_decay=5e-5, schedule=Linear(ahead=False)),),
        "320,000 steps are 63.9 epochs; the rate of the authors falls with each step. They crop 224 x 224 of 256 x 256 "
        "pixels: here that is a square of as large a part of images between square and 4:3.",
    ),
    Recipe(
        "lq-nets",
        "LQNetResNet18, LQNetResNet34",
        "imagenet2012",
        "code",
        "https://github.com/microsoft/LQ-Nets",
        replace(_RESIZED, jitter=(0.4, 0.4, 0.4, 0.0), lighting=0.1),
        (
            Phase(
                epochs=110,
                batch_size=256,
                nesterov=True,
                weight_decay=5e-5,
                schedule=Steps((30, 60, 85, 95, 105), 0.1),
            ),
        ),
        "An epoch of the authors is 5,000 steps, 1,280,000 images.",
    ),
    Recipe(
        "sibnn",
        "SiBNNResNet18",
        "imagenet2012",
        "code",
        "https://github.com/peiswang/SiBNN",
        _RESIZED,
        (
            Phase(
                epochs=100,
                batch_size=256,
                optimizer="adam",
                learning_rate=1e-3,
                weight_decay=1e-5,
                schedule=Cosine(),
            ),
        ),
    ),
    Recipe(
        "tbn",
        "TBNResNet18, TBNResNet34",
        "imagenet2012",
        "code",
        "https://github.com/dnvtmf/TBN",
        _RESIZED,
        (Phase(epochs=90, batch_size=256, weight_decay=1e-4, schedule=Steps((30, 60), 0.1)),),
        "The defaults of PyTorch's example for ImageNet, on which the authors' script is based.",
    ),
)

_PLUMERAI = "https://github.com/plumerai/rethinking-bnn-optimization"


def _bop(name: str, networks: str, source: str, epochs: int, note: str) -> Recipe:
    phase = Phase(
        epochs=epochs,
        batch_size=1024,
        optimizer="bop",
        learning_rate=2.5e-3,
        schedule=Linear(ahead=False, final=5e-6),
        gamma=(1e-4, 1e-6),
        threshold=1e-8,
    )
    note = f"Both rates fall in each epoch, in the code in each step. {note}"
    return Recipe(name, networks, "imagenet2012", source, _PLUMERAI, _RESIZED, (phase,), note)


_BOP = (
    _bop("bop-bireal", "BiRealNet18 (56.6 %)", "code", 300, "The images are prepared as usual, our choice."),
    _bop(
        "bop-xnor",
        "XNORNet (45.9 %) and BinaryAlexNet (41.1 %) of larq_zoo, ResNet18(method='xnor')",
        "inferred",
        150,
        "The number of epochs, half of that of Bi-Real-Net-18, and the preparation of the images are our choices.",
    ),
)

_DISTRIBUTION_PHASE: dict[str, Any] = dict(batch_size=256, optimizer="adam", schedule=Steps(()))
_DISTRIBUTION = (
    Recipe(
        "distribution-loss",
        "BinaryAlexNet of larq_zoo (47.9 / 71.9 %)",
        "imagenet2012",
        "inferred",
        "https://github.com/ruizhoud/DistributionLoss",
        _RESIZED,
        (
            Phase(epochs=60, learning_rate=1e-2, loss="distribution", **_DISTRIBUTION_PHASE),
            Phase(epochs=5, learning_rate=1e-2, **_DISTRIBUTION_PHASE),
        ),
        "The loss is that of the code, added for 60 of 65 epochs, with Adam's rate of 1e-2. Our choices: the constant "
        "rate, batches of 256, the weight 1 of the mean over all layers, that Adam's moments begin anew after 60 "
        "epochs, and how images are prepared.",
    ),
)

_XNOR_PLUS_PLUS = (
    Recipe(
        "xnor-plus-plus",
        "ResNet18(method='xnor_trained')",
        "imagenet2012",
        "inferred",
        "https://arxiv.org/abs/1909.13863",
        _RESIZED,
        (
            Phase(
                epochs=60,
                batch_size=256,
                learning_rate=0.1,
                nesterov=True,
                weight_decay=1e-4,
                schedule=Steps((30, 40), 0.1),
            ),
        ),
        "There is no code of XNOR-Net++ or of trained binarization. Optimizer, epochs and steps are those of somebody "
        "else's implementation of XNOR-Net++ (https://github.com/aim-uofa/model-quantization); weight decay, batch "
        "size and images are our choices.",
    ),
)

_PRESB_PHASE: dict[str, Any] = dict(
    epochs=400, batch_size=256, optimizer="adam", learning_rate=5e-4, schedule=Linear(), label_smoothing=0.1
)
_PRESB_SHIFTS = (r".*/leaky_r_sign/bias:0", r".*_rsign/bias:0")
_PRESB = (
    Recipe(
        "presbnet-paper",
        "PresB-Net-10, -18, -34, ReActNet-10, -18, AresB-Net-18 for CIFAR",
        "cifar100",
        "paper",
        "https://doi.org/10.7717/peerj-cs.842",
        Augmentation(crop="pad", flip=True, **CIFAR100_STATISTICS._asdict()),
        (
            Phase(
                weights="real",
                activations="real",
                weight_decay=1e-4,
                decayed="conv_and_shifts",
                initializer="uniform_fan_in",
                left_behind=_PRESB_SHIFTS,
                **_PRESB_PHASE,
            ),
            Phase(start="best", left_behind=_PRESB_SHIFTS, **_PRESB_PHASE),
        ),
        "In the first phase nothing is binarized, as the paper says; its accuracies are those of Table 1. In the "
        "released code (recipe presbnet) the activations are, and the weights decay by 1e-5. Schedule, batch size, "
        "label smoothing, decayed weights and initial values are those of the code.",
    ),
)

_BRANCHES = (
    Recipe(
        "abc-net",
        "ABCNet18",
        "imagenet2012",
        "inferred",
        "https://arxiv.org/abs/1711.11294",
        _RESIZED,
        (
            Phase(weights="real", epochs=90, batch_size=256, weight_decay=1e-4, schedule=Steps((30, 60), 0.1)),
            Phase(epochs=90, batch_size=256, optimizer="adam", learning_rate=1e-3, schedule=Steps((30, 60), 0.1)),
        ),
        "There is no code. As published, it starts from a trained network with real weights; here that has the binary "
        "activations already. All values are our choices.",
    ),
    Recipe(
        "group-net",
        "GroupNet18, GroupNet34",
        "imagenet2012",
        "code",
        "https://github.com/bohanzhuang/Group-Net-image-classification",
        _RESIZED,
        (
            Phase(
                weights="real",
                activations="tanh",
                epochs=40,
                batch_size=256,
                learning_rate=0.05,
                weight_decay=1e-4,
                schedule=Steps((25, 35), 0.1),
            ),
            Phase(epochs=40, batch_size=256, optimizer="adam", learning_rate=5e-4, schedule=Steps((20, 30), 0.1)),
        ),
        "The preparation of the images is our choice.",
    ),
    Recipe(
        "cbcn",
        "CBCNResNet18",
        "imagenet2012",
        "code",
        "https://github.com/liuchunlei0430/CBCN_Pytorch",
        _RESIZED,
        (Phase(epochs=90, batch_size=256, weight_decay=1e-4, schedule=Steps((20, 40, 60, 80), 0.1)),),
        "The authors then fine-tune with the centre loss, which we do not have (61.4 instead of 61.0 %). The "
        "preparation of the images is our choice.",
    ),
    *(
        Recipe(
            f"benn-{kind}",
            f"ResNet18(method='xnor'), each member of BENN18 in {kind}",
            "imagenet2012",
            "code",
            "https://github.com/XinDongol/BENN-PyTorch",
            _RESIZED,
            (
                Phase(
                    epochs=80,
                    batch_size=256,
                    optimizer="adam",
                    learning_rate=1e-3,
                    weight_decay=1e-5,
                    schedule=Steps(at, 0.1),
                ),
            ),
            f"The recipe of one member; larq_rep.training.{kind} says with which images each is trained. Batch size "
            "and preparation of the images are our choices.",
        )
        for kind, at in (("bagging", (30, 60)), ("boosting", (25, 50, 75)))
    ),
)

_EXAMPLE: dict[str, Any] = dict(epochs=90, batch_size=256, weight_decay=1e-4, schedule=Steps((30, 60), 0.1))
_OF_A_REAL_NETWORK = (
    "The authors begin with a trained real network. That it is trained as in PyTorch's example for ImageNet is our "
    "choice"
)


def _from_real(
    name: str, networks: str, spec: str, left_behind: str, note: str, images: Augmentation = _RESIZED, **values: Any
) -> Recipe:
    phases = Phase(weights="real", left_behind=(left_behind,), **_EXAMPLE), Phase(left_behind=(left_behind,), **values)
    note = f"{_OF_A_REAL_NETWORK}{note}"
    return Recipe(name, networks, "imagenet2012", "inferred", spec, images, phases, note)


_QUANTIZED_WEIGHTS = (
    Recipe(
        "binaryconnect",
        "BinaryConnectVGG",
        "cifar10",
        "code",
        "https://github.com/MatthieuCourbariaux/BinaryConnect",
        Augmentation(**CIFAR10_STATISTICS._asdict()),
        (
            Phase(
                epochs=500,
                batch_size=50,
                optimizer="adam",
                learning_rate=3e-3,
                schedule=Exponential(2e-6),
                loss="squared_hinge",
            ),
        ),
        "The authors normalise the contrast of each image and whiten all (ZCA), and train on 45,000 of the 50,000; "
        "there are other means and deviations instead. Their rates for each layer are in the latent weights' ranges.",
    ),
    Recipe(
        "bwn",
        "BWNResNet18",
        "imagenet2012",
        "inferred",
        "https://github.com/allenai/XNOR-Net",
        _RESIZED,
        (Phase(**_EXAMPLE),),
        "The code has no ResNet. Images and training are those of PyTorch's example for ImageNet, our choice.",
    ),
    Recipe(
        "twn",
        "TWNResNet18",
        "imagenet2012",
        "paper",
        "https://arxiv.org/abs/1605.04711",
        _RESIZED,
        (Phase(epochs=60, batch_size=256, weight_decay=1e-4, schedule=Steps((30, 40, 50), 0.1)),),
        "60 epochs, and how images are prepared, are our choices.",
    ),
    _from_real(
        "ttq",
        "TTQResNet18",
        "https://github.com/czhu95/ternarynet",
        r".*/trained_ternary/(positive|negative):0",
        ". The second phase has the rates of the authors' AlexNet; 72 epochs are our choice, and Adam's epsilon is the "
        "usual one.",
        epochs=72,
        batch_size=256,
        optimizer="adam",
        learning_rate=1e-4,
        schedule=Steps((56, 64), 0.2),
    ),
    _from_real(
        "inq",
        "INQResNet18",
        "https://arxiv.org/abs/1702.03044",
        r".*/power_of_two/(codes|largest):0",
        ", as are the numbers of the second phase: 80 epochs at one rate, which the rounds share, 8 for each of the "
        "ten of 2 bits. All weights are quantized in the last round only, so the last epoch counts as the best one.",
        epochs=80,
        best="last",
        batch_size=256,
        learning_rate=1e-3,
        weight_decay=1e-4,
        schedule=Steps(()),
    ),
    _from_real(
        "syq",
        "SYQResNet18",
        "https://github.com/julianfaraone/SYQ",
        r".*/position_scaled/scale:0",
        ", and it has quantized activations here. The second phase is that of their AlexNet; four of its 240 epochs of "
        "10,000 steps are one of ImageNet.",
        replace(_RESIZED, mean=(0.0, 0.0, 0.0), std=(256 / 255,) * 3),
        epochs=60,
        batch_size=32,
        optimizer="adam",
        learning_rate=1e-4,
        schedule=Steps((28, 42), 0.2),
    ),
)

SURVEYED: tuple[Recipe, ...] = (
    *_SEVERAL_BITS,
    *_BOP,
    *_DISTRIBUTION,
    *_XNOR_PLUS_PLUS,
    *_PRESB,
    *_BRANCHES,
    *_QUANTIZED_WEIGHTS,
)
