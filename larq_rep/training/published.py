"""The published training recipes, one record each.

A Rep network is trained by the recipe of its original network: RepBNN took over the settings of the others.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from larq_rep.checks import did_you_mean
from larq_rep.datasets import BMXNET_STATISTICS, CIFAR10_STATISTICS, CIFAR100_STATISTICS, IMAGENET_STATISTICS
from larq_rep.training.augmentation import Augmentation
from larq_rep.training.recipe import Phase, Recipe
from larq_rep.training.schedules import Cosine, Linear, Steps, WarmupSteps
from larq_rep.training.surveyed import SURVEYED

_CIFAR10 = CIFAR10_STATISTICS._asdict()
_CIFAR100 = CIFAR100_STATISTICS._asdict()

# IR-Net, RBNN, ReCU and the real networks normalise CIFAR-10 with the statistics of ImageNet as well.
_CROP_AND_FLIP = Augmentation(crop="pad", flip=True, **IMAGENET_STATISTICS._asdict())
_RESIZED = Augmentation(crop="resized", flip=True, test_resize=256, **IMAGENET_STATISTICS._asdict())
_REACT_IMAGES = replace(_RESIZED, lighting="truncated")
_BMXNET_IMAGES = replace(_RESIZED, **BMXNET_STATISTICS._asdict())

_ARESBNET = "https://github.com/analog75/AresB-Net"
_BMXNET_CODE = "https://github.com/hpi-xnor/BMXNet-v2"
_IR_NET = "https://github.com/htqin/IR-Net"
_PRESBNET = "https://github.com/SHINJUNGWOO/PresB-Net"
_RBNN = "https://github.com/lmbxmu/RBNN"
_RECU = "https://github.com/z-hXu/ReCU"

_RESNET34 = "ResNet-34 of torchvision with its ImageNet V1 weights"
_LAST_BATCH = (
    "The authors drop the images that do not fill a batch, as we do: an epoch has 390 batches. They also drop them in "
    "testing (9,984 images); here all 10,000 count."
)
_OWN_STATISTICS = (
    "CIFAR-10 is normalised with the statistics of ImageNet, CIFAR-100 with its own (as given by PresB-Net's authors)."
)
_REACT_BIREAL = "The authors trained no 34-layer network; this is how they would have."


def _two_phases(start: str = "last", real: Mapping[str, Any] | None = None, **common) -> tuple[Phase, Phase]:
    """First real weights, with weight decay on convolutions and shifts, then binary weights without it."""
    first: dict[str, Any] = {
        "weights": "real",
        "decayed": "conv_and_shifts",
        "initializer": "uniform_fan_in",
        "optimizer": "adam",
        **common,
        **(real or {}),
    }
    return Phase(**first), Phase(**{"optimizer": "adam", "start": start, **common})


def _reactnet(name: str, epochs: int, learning_rate: float, batch_size: int = 256, **record) -> Recipe:
    record = {
        "networks": "ReActNet-A, -B, -C",
        "source": "code",
        "spec": "https://github.com/liuzechun/ReActNet",
        "note": "The second phase takes over all weights, as the paper says; the released script loses the "
        "convolutions' weights because their names differ. There is no code for -B and -C.",
        **record,
    }
    phases = _two_phases(
        real={"weight_decay": 1e-5},
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        schedule=Linear(),
        teacher=_RESNET34,
    )
    return Recipe(name, dataset="imagenet2012", augmentation=_REACT_IMAGES, phases=phases, **record)


def _adambnn(name: str, networks: str, spec: str, note: str = "") -> Recipe:
    phases = _two_phases(
        start="best",
        real={"weight_decay": 5e-6},
        epochs=256,
        batch_size=256,
        learning_rate=1.25e-3,
        schedule=Linear(),
        teacher=_RESNET34,
    )
    return Recipe(name, networks, "imagenet2012", "code", spec, _REACT_IMAGES, phases, note)


def _bireal(name: str, networks: str, learning_rate: float, batch_size: int) -> Recipe:
    phase = Phase(
        epochs=256,
        batch_size=batch_size,
        optimizer="adam",
        learning_rate=learning_rate,
        schedule=Linear(),
        label_smoothing=0.1,
    )
    spec = "https://github.com/liuzechun/Bi-Real-net"
    return Recipe(name, networks, "imagenet2012", "code", spec, _REACT_IMAGES, (phase,))


def _cifar(
    name: str,
    networks: str,
    spec: str,
    phases: tuple[Phase, ...] | Phase,
    note: str = "",
    other_statistics: Mapping[str, Mapping[str, tuple[float, ...]]] | None = None,
    **augmentation,
) -> Recipe:
    phases = phases if isinstance(phases, tuple) else (phases,)
    images = replace(_CROP_AND_FLIP, **augmentation)
    return Recipe(name, networks, "cifar10", "code", spec, images, phases, note, other_statistics or {})


def _presbnet(
    name: str, networks: str, note: str, dataset: str = "cifar100", augmentation: Augmentation | None = None, **values
) -> Recipe:
    common = {
        "epochs": 400,
        "batch_size": 256,
        "learning_rate": 5e-4,
        "schedule": Linear(),
        "label_smoothing": 0.1,
        "start": "best",
        **values,
    }
    source = "inferred" if dataset == "imagenet2012" else "code"
    phases = _two_phases(real={"weight_decay": 1e-5}, **common)
    images = augmentation or replace(_CROP_AND_FLIP, **_CIFAR100)
    return Recipe(name, networks, dataset, source, _PRESBNET, images, phases, note)


def _aresbnet(name: str, dataset: str, images: Augmentation, note: str = "", **values) -> Recipe:
    phase = Phase(**{"batch_size": 256, "weight_decay": 1e-5, **values})
    return Recipe(name, "AresB-Net-10, -18, -34", dataset, "code", _ARESBNET, images, (phase,), note)


def _bmxnet(
    name: str, networks: str, epochs: int, at: tuple[int, ...], batch_size: int = 256, note: str = "", **record
) -> Recipe:
    phase = Phase(epochs=epochs, batch_size=batch_size, optimizer="adam", learning_rate=1e-3, schedule=Steps(at, 0.1))
    record = {"source": "code", "spec": _BMXNET_CODE, **record}
    note = f"{note} The augmentation is from the released script; these runs do not record theirs."
    return Recipe(
        name, networks, "imagenet2012", augmentation=_BMXNET_IMAGES, phases=(phase,), note=note.strip(), **record
    )


def _bmxnet_cifar(name: str, networks: str, note: str) -> Recipe:
    phase = Phase(
        epochs=150,
        batch_size=128,
        optimizer="adam",
        learning_rate=0.01,
        schedule=Steps((75, 100, 125, 150), 0.3),
    )
    note += " The last step of the learning rate, at epoch 150, has no effect: training ends before it."
    images = replace(_CROP_AND_FLIP, **_CIFAR10)
    return Recipe(name, networks, "cifar10", "code", _BMXNET_CODE, images, (phase,), note)


_STRONGER = "The authors' stronger augmentation is not implemented here."
_TWO_GPUS = f"64 or 128 images on each of 2 GPUs: command lines and logs disagree. {_STRONGER}"
_FRACBNN_PHASE: dict[str, Any] = {
    "epochs": 250,
    "batch_size": 128,
    "drop_last": True,
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "best": "later",
}
_RECU_IMAGENET = replace(_RESIZED, scale=(0.08, 1.25))
_RECU_STAGE: dict[str, Any] = {
    "epochs": 256,
    "batch_size": 512,
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "schedule": Cosine(warmup=5, offset=4, length=-4),
    "teacher": _RESNET34,
    # The scales of binary weights.
    "left_behind": (r".*/re_cu_sign/alpha:0",),
}

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        _reactnet("reactnet", 128, 1.25e-3),
        _reactnet("reactnet-first", 256, 5e-4, networks="ReActNet-A, first release"),
        _reactnet(
            "reactnet-paper",
            120,
            5e-4,
            source="paper",
            spec="https://arxiv.org/abs/2003.03488",
            note="600,000 iterations a phase are 119.9 epochs. Teacher, augmentation, decayed weights and initial "
            "values follow the code; the paper does not give them.",
        ),
        _reactnet("react-bireal", 128, 2.5e-3, 512, networks="ReActNet-18", note=_REACT_BIREAL),
        _reactnet("react-bireal-first", 256, 1e-3, 512, networks="ReActNet-18, first release", note=_REACT_BIREAL),
        _adambnn("adambnn", "ReActNet-A", "https://github.com/liuzechun/AdamBNN"),
        _adambnn(
            "rep-adambnn",
            "Rep-ReActNet-A",
            "https://github.com/imfinethanks/Rep_AdamBNN",
            "The recipe of AdamBNN, unchanged.",
        ),
        _bireal("bireal", "Bi-Real-Net-18, -34", 1e-3, 512),
        _bireal("bireal-50", "Bi-Real-Net-50", 5e-4, 256),
        _cifar(
            "irnet",
            "ResNet-20 (methods irnet, irnet_1w32a, irnet_real)",
            _IR_NET,
            Phase(epochs=400, drop_last=True, learning_rate=0.1, weight_decay=1e-4),
            f"{_LAST_BATCH} It is the recipe of the binary network; that the other two are trained by it is inferred.",
        ),
        _cifar(
            "irnet-vgg",
            "VGG-small (method irnet)",
            _IR_NET,
            Phase(epochs=300, drop_last=True, learning_rate=0.007, weight_decay=1e-4),
            _LAST_BATCH,
        ),
        Recipe(
            "irnet-imagenet",
            "ResNet-18 (methods irnet, irnet_1w32a)",
            "imagenet2012",
            "code",
            _IR_NET,
            replace(_RESIZED, jitter=(0.2, 0.2, 0.2, 0.1)),
            (
                Phase(
                    epochs=100,
                    batch_size=2048,
                    learning_rate=0.8,
                    nesterov=True,
                    weight_decay=1e-5,
                    schedule=WarmupSteps(warmup=0.04, start=0.25, at=(0.3, 0.6, 0.9), factor=0.1),
                ),
            ),
            "62,500 steps of 32 GPUs with 64 images each, written as 100 epochs. The trainer is not published: area "
            "and aspect of the crop, the flip and the decay of all weights are our choices.",
        ),
        _cifar(
            "rbnn",
            "ResNet-20, ResNet-18, VGG-small (methods rbnn, rbnn_bireal)",
            _RBNN,
            Phase(
                epochs=1000,
                batch_size=256,
                weight_decay=1e-4,
                schedule=Cosine(warmup=5, offset=8, length=-4),
            ),
            _OWN_STATISTICS,
            {"cifar100": _CIFAR100},
        ),
        Recipe(
            "rbnn-imagenet",
            "ResNet-18 (method rbnn)",
            "imagenet2012",
            "code",
            _RBNN,
            _RECU_IMAGENET,
            (Phase(epochs=150, batch_size=512, weight_decay=1e-4),),
        ),
        _cifar(
            "recu",
            "ResNet-20, ResNet-18, VGG-small (method recu)",
            _RECU,
            Phase(epochs=600, batch_size=256, weight_decay=5e-4, schedule=Cosine(warmup=5, offset=4, length=-4)),
            _OWN_STATISTICS,
            {"cifar100": _CIFAR100},
        ),
        Recipe(
            "recu-imagenet",
            "ResNet-18 (method recu)",
            "imagenet2012",
            "code",
            _RECU,
            replace(_RECU_IMAGENET, lighting="truncated"),
            (
                Phase(
                    epochs=200,
                    batch_size=512,
                    weight_decay=1e-4,
                    decayed="conv_and_fc",
                    schedule=Cosine(warmup=5, offset=4, length=-4),
                ),
            ),
        ),
        Recipe(
            "recu-two-stage",
            "ReCUResNet18, ReCUResNet34",
            "imagenet2012",
            "inferred",
            _RECU,
            replace(_RECU_IMAGENET, lighting="truncated"),
            (
                Phase(weights="real", initializer="uniform_fan_in", **_RECU_STAGE),
                Phase(**_RECU_STAGE),
            ),
            "The authors' script is that of the second stage; it takes the file of the first. It names a linear and a "
            "cosine schedule, of which the last one, the cosine, counts. Inferred: the first stage, which has binary "
            "activations and real weights as in ReActNet, is trained like the second, which starts with its last "
            "epoch. The images are those of the training in one stage.",
        ),
        _cifar(
            "fracbnn",
            "ResNet-20 (methods fracbnn, fracbnn_gated)",
            "https://github.com/cornell-zhang/FracBNN",
            (
                Phase(weights="real", weight_decay=1e-5, schedule=Linear(ahead=False), **_FRACBNN_PHASE),
                Phase(start="best", schedule=Steps((100, 150, 200), 0.1), **_FRACBNN_PHASE),
            ),
            "Images are not normalised. The second phase starts from the best epoch, the later of equal ones. The "
            "authors trained the gated network in a third phase, starting from the plain one. " + _LAST_BATCH,
            mean=None,
            std=None,
        ),
        _cifar(
            "resnet20",
            "ResNet-20 (methods real, real_bireal)",
            "https://github.com/akamaster/pytorch_resnet_cifar10",
            Phase(epochs=200, weight_decay=1e-4, schedule=Steps((100, 150), 0.1)),
            "There is no code for real_bireal.",
        ),
        _presbnet(
            "presbnet",
            "PresB-Net-10, -18, -34 and ReActNet-10, -18, -34 for CIFAR",
            "CIFAR-10 is also normalised with the statistics of CIFAR-100. The AresB-Net of the PresB-Net paper was "
            "trained the same way. A development script for ReActNet has 256 epochs a phase, batches of 512 and a rate "
            "of 1e-3.",
        ),
        _presbnet(
            "presbnet-imagenet",
            "PresB-Net-18 and ReActNet-18 for ImageNet",
            "There is no code. The paper says 100 epochs, 50 of them with real weights, and a rate of 0.1. The code of "
            "AresB-Net also names this rate but does not use it; we take its 1e-3 and its batches of 256. Schedule, "
            "start and label smoothing are as for CIFAR, the normalisation is the usual one.",
            "imagenet2012",
            replace(_RESIZED, scale=(0.446, 0.875)),
            epochs=50,
            learning_rate=1e-3,
        ),
        _aresbnet(
            "aresbnet",
            "cifar100",
            replace(_CROP_AND_FLIP, erasing=True, **_CIFAR10),
            epochs=360,
            schedule=Steps((160, 200, 260, 320), 0.2),
        ),
        _aresbnet(
            "aresbnet-cifar10",
            "cifar10",
            replace(_CROP_AND_FLIP, erasing=True, **_CIFAR10),
            epochs=200,
            schedule=Steps((80, 100, 130, 160), 0.2),
        ),
        _aresbnet(
            "aresbnet-imagenet",
            "imagenet2012",
            replace(_RESIZED, scale=(0.466, 0.875)),
            "The side of 256 in evaluation is our choice.",
            epochs=100,
            optimizer="adam",
            learning_rate=1e-3,
            schedule=Steps((40, 50, 65, 80), 0.1),
        ),
        _bmxnet(
            "binarydensenet",
            "BinaryDenseNet-28, -37",
            120,
            (100, 110),
            note="The batch size is not recorded; 256 is that of ResNetE.",
        ),
        _bmxnet(
            "binarydensenet-45",
            "BinaryDenseNet-45",
            130,
            (100, 110),
            note="The batch size is not recorded; 256 is that of ResNetE.",
        ),
        _bmxnet(
            "binarydensenet-ablation",
            "BinaryDenseNet13, 21, 37Ablation, binary downsampling",
            60,
            (30, 40, 50),
            128,
            _TWO_GPUS,
        ),
        _bmxnet(
            "binarydensenet-ablation-32", "BinaryDenseNet37Ablation, real downsampling", 50, (40, 45), 128, _TWO_GPUS
        ),
        _bmxnet(
            "binarydensenet-ablation-16",
            "BinaryDenseNet21, real downsampling",
            40,
            (34, 37),
            128,
            f"32 images on each of 4 GPUs. {_STRONGER}",
        ),
        _bmxnet_cifar(
            "binarydensenet-cifar10",
            "BinaryDenseNet21 for CIFAR-10",
            "The number of epochs is not recorded; 150 is that of ResNetE.",
        ),
        _bmxnet("resnete", "ResNetE-18 (Table 2)", 40, (34, 37)),
        _bmxnet(
            "resnete-final",
            "ResNetE-18 (58.1 %, clip_value 1.25)",
            120,
            (100, 110),
            note="The batch size is not recorded; 256 is that of Table 2.",
        ),
        _bmxnet_cifar(
            "resnete-cifar10",
            "ResNetE-18 for CIFAR-10",
            "Table 2 of the paper says 150 epochs.",
        ),
        Recipe(
            "meliusnet",
            "MeliusNet-22, -29, -42, -59; BinaryDenseNet-28, -37 (61.7 %, 63.3 %)",
            "imagenet2012",
            "inferred",
            _BMXNET_CODE,
            _BMXNET_IMAGES,
            (Phase(epochs=120, batch_size=256, optimizer="radam", learning_rate=2e-3),),
            "RAdam, its rate, the cosine and 120 epochs are recorded for the group's later BinaryDenseNets; using them "
            "for MeliusNet, and the other values, are our choices.",
        ),
        *SURVEYED,
    )
}


def get_recipe(name: str) -> Recipe:
    """The recipe with this name.

    # Raises
        ValueError: If there is none.
    """
    if name not in RECIPES:
        hint = did_you_mean(name, RECIPES) or f"There are: {', '.join(RECIPES)}."
        raise ValueError(f"There is no recipe named {name!r}. {hint}")
    return RECIPES[name]
