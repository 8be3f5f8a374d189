"""Training recipes of the networks that the four papers compare with: 1-bit weights, several bits, several branches."""

from dataclasses import replace

from larq_rep.datasets import IMAGENET_STATISTICS
from larq_rep.training.augmentation import Augmentation
from larq_rep.training.recipe import Phase, Recipe
from larq_rep.training.schedules import Cosine, Linear, Steps

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

SURVEYED: tuple[Recipe, ...] = (*_SEVERAL_BITS,)
