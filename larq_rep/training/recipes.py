"""The published training recipes, one record each.

A Rep network is trained by the recipe of the network it comes from: RepBNN took over the settings of the others.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args, get_origin, get_type_hints

from larq_rep.checks import did_you_mean
from larq_rep.datasets import BMXNET_STATISTICS, CIFAR10_STATISTICS, CIFAR100_STATISTICS, IMAGENET_STATISTICS
from larq_rep.training import schedules
from larq_rep.training.augmentation import Augmentation
from larq_rep.training.schedules import Cosine, Linear, Steps, WarmupSteps

_SCHEDULES = {cls.__name__: cls for cls in (Cosine, Linear, Steps, WarmupSteps)}
_CHOICES: dict[str, tuple[str | None, ...]] = {
    "weights": ("binary", "real"),
    "optimizer": ("adam", "radam", "sgd"),
    "decayed": ("all", "conv_and_shifts", "conv_and_fc"),
    "initializer": (None, "uniform_fan_in"),
    "start": ("last", "best"),
    "best": ("earlier", "later"),
}


@dataclass(frozen=True)
class Phase:
    """One training of a recipe, from its own start to its own last epoch.

    # Attributes
        weights: `"binary"`, or `"real"`: binary activations, and latent weights that are used as they are.
        epochs: Number of epochs.
        batch_size: Images a step, over all replicas.
        drop_last: Whether an epoch leaves out the images that do not fill a batch, which are other ones in each.
        optimizer: `"adam"`, `"radam"` or `"sgd"`.
        learning_rate: What the schedule scales.
        schedule: Learning rate of each epoch.
        momentum, nesterov: Of SGD.
        weight_decay: Factor of the weights that is added to their gradient.
        decayed: Which weights: `"all"`, `"conv_and_shifts"` or `"conv_and_fc"`, see
            `larq_rep.training.optimizers.decayed_weights`.
        label_smoothing: Of the cross-entropy in training.
        teacher: What the authors distilled the logits of; `None` if the labels were learned.
        temperature: Of that distillation.
        initializer: `"uniform_fan_in"` if the latent weights start with PyTorch's values for real convolutions,
            `None` for those of the network.
        start: Weights of the phase before with which this one starts, those of its `"last"` or `"best"` epoch.
        left_behind: Regular expressions of names of weights that one of the two phases does not have.
        best: Which of several epochs with the highest accuracy is the best one, the `"earlier"` or the `"later"`.

    # Raises
        ValueError: If a value is none of these. Now, not when the phase begins after days.
    """

    weights: str = "binary"
    epochs: int = 1
    batch_size: int = 128
    drop_last: bool = False
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    schedule: schedules.Schedule = dataclasses.field(default_factory=Cosine)
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    decayed: str = "all"
    label_smoothing: float = 0.0
    teacher: str | None = None
    temperature: float = 1.0
    initializer: str | None = None
    start: str = "last"
    left_behind: tuple[str, ...] = ()
    best: str = "earlier"

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"Phase: {name} should be {' or '.join(map(repr, choices))}, found {getattr(self, name)!r}."
                )
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"Phase: {name} should be 1 or more, found {getattr(self, name)}.")

    def is_best(self, accuracy: float, earlier: Sequence[float]) -> bool:
        """Whether an epoch of this accuracy is the best one after those `earlier`."""
        highest = max(earlier, default=-math.inf)
        return accuracy > highest or (self.best == "later" and accuracy == highest)

    def check(self) -> None:
        """Finds before a training what would be found in it.

        # Raises
            ValueError: If a value is outside its range, or the schedule does not suit the epochs.
        """
        for name, lowest, highest in (
            ("learning_rate", 0, math.inf),
            ("weight_decay", 0, math.inf),
            ("label_smoothing", 0, 1),
            ("temperature", 1e-6, math.inf),
        ):
            if not lowest <= getattr(self, name) <= highest:
                raise ValueError(f"Phase: {name} should be {lowest} to {highest}, found {getattr(self, name)}.")
        for epoch in (0, self.epochs - 1):
            self.schedule(self.learning_rate, epoch, self.epochs)
        for pattern in self.left_behind:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"Phase: {pattern!r} of left_behind is no regular expression: {error}.") from error


@dataclass(frozen=True)
class Recipe:
    """How networks were trained.

    # Attributes
        name: What it is called here.
        networks: The networks that were trained so, for people to read.
        dataset: The data set that it was made for; others of about that size of image do, too.
        source: Where it comes from: `"code"`, `"paper"` or `"inferred"`.
        spec: Section of the specification.
        augmentation: What happens to the images.
        phases: The trainings, one after the other.
        note: What is particular, or not known.
        other_statistics: By the name of another data set the `mean` and `std` that the authors normalise it with.
    """

    name: str
    networks: str
    dataset: str
    source: str
    spec: str
    augmentation: Augmentation
    phases: tuple[Phase, ...]
    note: str = ""
    other_statistics: Mapping[str, Mapping[str, tuple[float, ...]]] = dataclasses.field(default_factory=dict)

    @property
    def epochs(self) -> int:
        return sum(phase.epochs for phase in self.phases)

    def on(self, data: str) -> "Recipe":
        """The recipe for a data set, by its name: with the statistics with which the authors normalise that one."""
        if data not in self.other_statistics:
            return self
        augmentation = replace(self.augmentation, **dict[str, Any](self.other_statistics[data]))
        return replace(self, augmentation=augmentation, other_statistics={})


_CIFAR10 = CIFAR10_STATISTICS._asdict()
_CIFAR100 = CIFAR100_STATISTICS._asdict()

# IR-Net, RBNN, ReCU and the real networks normalise CIFAR-10, too, with the statistics of ImageNet.
_CROP_AND_FLIP = Augmentation(crop="pad", flip=True, **IMAGENET_STATISTICS._asdict())
_RESIZED = Augmentation(crop="resized", flip=True, test_resize=256, **IMAGENET_STATISTICS._asdict())
_REACT_IMAGES = replace(_RESIZED, lighting="truncated")
_BMXNET_IMAGES = replace(_RESIZED, **BMXNET_STATISTICS._asdict())

_RESNET34 = "ResNet-34 of torchvision with its ImageNet V1 weights"
_LAST_BATCH = (
    "The authors leave out the images that do not fill a batch: an epoch has 390 batches, here too. They also test "
    "without them, on 9,984 images; here all are tested on."
)
_OWN_STATISTICS = (
    "CIFAR-10 is normalised with the statistics of ImageNet, CIFAR-100 with its own, here those of PresB-Net's authors."
)
_REACT_BIREAL = "No 34 layers were trained, the authors say; this would be how."


def _two_phases(start: str = "last", real: Mapping[str, Any] | None = None, **common) -> tuple[Phase, Phase]:
    """Real weights first, with a weight decay on convolutions and shifts, then binary ones without any."""
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
        "spec": "reactnet-repbnn.md, 9.2",
        "note": "The second phase takes over all weights, as the paper says; the released script loses the "
        "convolutions' by their names. There is no code for -B and -C.",
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


def _adambnn(name: str, networks: str, note: str = "") -> Recipe:
    phases = _two_phases(
        start="best",
        real={"weight_decay": 5e-6},
        epochs=256,
        batch_size=256,
        learning_rate=1.25e-3,
        schedule=Linear(),
        teacher=_RESNET34,
    )
    return Recipe(name, networks, "imagenet2012", "code", "reactnet-repbnn.md, 9.2", _REACT_IMAGES, phases, note)


def _bireal(name: str, networks: str, learning_rate: float, batch_size: int) -> Recipe:
    phase = Phase(
        epochs=256,
        batch_size=batch_size,
        optimizer="adam",
        learning_rate=learning_rate,
        schedule=Linear(),
        label_smoothing=0.1,
    )
    return Recipe(name, networks, "imagenet2012", "code", "reactnet-repbnn.md, 9.3", _REACT_IMAGES, (phase,))


def _cifar(
    name: str,
    networks: str,
    phases: tuple[Phase, ...] | Phase,
    note: str = "",
    other_statistics: Mapping[str, Mapping[str, tuple[float, ...]]] | None = None,
    **augmentation,
) -> Recipe:
    phases = phases if isinstance(phases, tuple) else (phases,)
    images = replace(_CROP_AND_FLIP, **augmentation)
    spec = "cifar-bnns.md, 6"
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
    return Recipe(name, networks, dataset, source, "presbnet.md, 1.7", images, phases, note)


def _aresbnet(name: str, dataset: str, images: Augmentation, note: str = "", **values) -> Recipe:
    phase = Phase(**{"batch_size": 256, "weight_decay": 1e-5, **values})
    return Recipe(name, "AresB-Net-10, -18, -34", dataset, "code", "presbnet.md, 2.3", images, (phase,), note)


def _bmxnet(
    name: str, networks: str, epochs: int, at: tuple[int, ...], batch_size: int = 256, note: str = "", **record
) -> Recipe:
    phase = Phase(epochs=epochs, batch_size=batch_size, optimizer="adam", learning_rate=1e-3, schedule=Steps(at, 0.1))
    record = {"source": "code", "spec": "binarydensenet-and-survey.md, A2", **record}
    note = f"{note} Images are those of the released script; of these runs they are not recorded."
    return Recipe(
        name, networks, "imagenet2012", augmentation=_BMXNET_IMAGES, phases=(phase,), note=note.strip(), **record
    )


def _bmxnet_cifar(name: str, networks: str, spec: str, note: str) -> Recipe:
    phase = Phase(
        epochs=150,
        batch_size=128,
        optimizer="adam",
        learning_rate=0.01,
        schedule=Steps((75, 100, 125, 150), 0.3),
    )
    note += " The last step of the learning rate, at 150, would begin with the next one."
    return Recipe(name, networks, "cifar10", "code", spec, replace(_CROP_AND_FLIP, **_CIFAR10), (phase,), note)


_STRONGER = "Stronger augmentation, not built here."
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
            note="600,000 iterations a phase are 119.9 epochs. Teacher, images, decayed weights and initial values are "
            "those of the code; the paper leaves them open.",
        ),
        _reactnet("react-bireal", 128, 2.5e-3, 512, networks="ReActNet-18", note=_REACT_BIREAL),
        _reactnet("react-bireal-first", 256, 1e-3, 512, networks="ReActNet-18, first release", note=_REACT_BIREAL),
        _adambnn("adambnn", "ReActNet-A"),
        _adambnn("rep-adambnn", "Rep-ReActNet-A", "That of AdamBNN, unchanged."),
        _bireal("bireal", "Bi-Real-Net-18, -34", 1e-3, 512),
        _bireal("bireal-50", "Bi-Real-Net-50", 5e-4, 256),
        _cifar(
            "irnet",
            "ResNet-20 (method irnet)",
            Phase(epochs=400, drop_last=True, learning_rate=0.1, weight_decay=1e-4),
            _LAST_BATCH,
        ),
        _cifar(
            "irnet-vgg",
            "VGG-small (method irnet)",
            Phase(epochs=300, drop_last=True, learning_rate=0.007, weight_decay=1e-4),
            _LAST_BATCH,
        ),
        Recipe(
            "irnet-imagenet",
            "ResNet-18 (method irnet)",
            "imagenet2012",
            "code",
            "cifar-bnns.md, 6",
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
            "and aspect of the crop, the flip and the decay of all weights are ours.",
        ),
        _cifar(
            "rbnn",
            "ResNet-20, ResNet-18, VGG-small (methods rbnn, rbnn_bireal)",
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
            "cifar-bnns.md, 6",
            _RECU_IMAGENET,
            (Phase(epochs=150, batch_size=512, weight_decay=1e-4),),
        ),
        _cifar(
            "recu",
            "ResNet-20, ResNet-18, VGG-small (method recu)",
            Phase(epochs=600, batch_size=256, weight_decay=5e-4, schedule=Cosine(warmup=5, offset=4, length=-4)),
            _OWN_STATISTICS,
            {"cifar100": _CIFAR100},
        ),
        Recipe(
            "recu-imagenet",
            "ResNet-18 (method recu)",
            "imagenet2012",
            "code",
            "cifar-bnns.md, 6",
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
        _cifar(
            "fracbnn",
            "ResNet-20 (methods fracbnn, fracbnn_gated)",
            (
                Phase(weights="real", weight_decay=1e-5, schedule=Linear(ahead=False), **_FRACBNN_PHASE),
                Phase(start="best", schedule=Steps((100, 150, 200), 0.1), **_FRACBNN_PHASE),
            ),
            "Images are not normalised. The second phase starts from the best epoch, the later of equal ones. They "
            "trained the gated network in a third phase, from the plain one. " + _LAST_BATCH,
            mean=None,
            std=None,
        ),
        _cifar(
            "resnet20",
            "ResNet-20 (methods real, real_bireal)",
            Phase(epochs=200, weight_decay=1e-4, schedule=Steps((100, 150), 0.1)),
            "There is no code for real_bireal.",
        ),
        _presbnet(
            "presbnet",
            "PresB-Net-10, -18, -34 and ReActNet-10, -18, -34 for CIFAR",
            "CIFAR-10 is normalised with the statistics of CIFAR-100, too. The AresB-Net of the PresB-Net paper was "
            "trained alike. A development script for ReActNet has 256 epochs a phase, batches of 512, a rate of 1e-3.",
        ),
        _presbnet(
            "presbnet-imagenet",
            "PresB-Net-18 and ReActNet-18 for ImageNet",
            "There is no code. The paper says 100 epochs, 50 of them with real weights, and a rate of 0.1, which the "
            "code of AresB-Net names, too, but does not use. Its 1e-3 and its batches of 256 are taken. Schedule, "
            "start and label smoothing are those for CIFAR, the normalisation is the usual one.",
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
            "The side of 256 in evaluation is ours.",
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
            "binarydensenet-and-survey.md, A2",
            "How many epochs it was trained is not recorded; 150 are those of ResNetE.",
        ),
        _bmxnet("resnete", "ResNetE-18 (Table 2)", 40, (34, 37), spec="binarydensenet-and-survey.md, A3"),
        _bmxnet(
            "resnete-final",
            "ResNetE-18 (58.1 %, clip_value 1.25)",
            120,
            (100, 110),
            note="The batch size is not recorded; 256 is that of Table 2.",
            spec="binarydensenet-and-survey.md, A3",
        ),
        _bmxnet_cifar(
            "resnete-cifar10",
            "ResNetE-18 for CIFAR-10",
            "binarydensenet-and-survey.md, A3",
            "Table 2 of the paper says 150 epochs.",
        ),
        Recipe(
            "meliusnet",
            "MeliusNet-22, -29, -42, -59; BinaryDenseNet-28, -37 (61.7 %, 63.3 %)",
            "imagenet2012",
            "inferred",
            "binarydensenet-and-survey.md, A2",
            _BMXNET_IMAGES,
            (Phase(epochs=120, batch_size=256, optimizer="radam", learning_rate=2e-3),),
            "RAdam, its rate, the cosine and 120 epochs are recorded of the group's later BinaryDenseNets, MeliusNet "
            "and the rest are ours.",
        ),
    )
}


def get_recipe(name: str) -> Recipe:
    """The recipe of a name.

    # Raises
        ValueError: If there is none.
    """
    if name not in RECIPES:
        hint = did_you_mean(name, RECIPES) or f"There are: {', '.join(RECIPES)}."
        raise ValueError(f"There is no recipe named {name!r}. {hint}")
    return RECIPES[name]


def changed(recipe: Recipe, key: str, value: Any) -> Recipe | None:
    """The recipe with another value, or `None` if nothing in it has that name.

    `key` is the name of an attribute of `Phase`, of its schedule or of `Augmentation`. A phase's value changes in
    all phases, or with the number of one in front, as in `"2.epochs"`, in that.

    # Raises
        ValueError: If there is no phase of that number, or the value is of another type.
    """
    number, dot, name = key.rpartition(".")
    if dot and (not number.isdigit() or not 1 <= int(number) <= len(recipe.phases)):
        raise ValueError(
            f"{key}: recipe {recipe.name} has {len(recipe.phases)} phase(s), found {number!r} before the dot. "
            f"Expected 1{f' to {len(recipe.phases)}' if len(recipe.phases) > 1 else ''}."
        )
    if not dot and name in _names(recipe.augmentation):
        if name in ("mean", "std"):
            # What is chosen is for all data sets.
            recipe = replace(recipe, other_statistics={})
            if isinstance(value, str) and value.lower() == "none":
                # Never one alone.
                return replace(recipe, augmentation=replace(recipe.augmentation, mean=None, std=None))
        return replace(recipe, augmentation=_with(recipe.augmentation, name, value))
    phases = list(recipe.phases)
    known = False
    for index, phase in enumerate(phases):
        if dot and index != int(number) - 1:
            continue
        if name in _names(phase) and name != "schedule":
            phases[index], known = _with(phase, name, value), True
        elif name in _names(phase.schedule):
            phases[index], known = replace(phase, schedule=_with(phase.schedule, name, value)), True
    if dot and not known:
        phase = phases[int(number) - 1]
        has = [*(name for name in _names(phase) if name != "schedule"), *_names(phase.schedule)]
        raise ValueError(
            f"{key}: phase {number} of recipe {recipe.name} has no value {name!r}. It has: {', '.join(has)}."
        )
    return replace(recipe, phases=tuple(phases)) if known else None


def _names(record) -> list[str]:
    return [field.name for field in dataclasses.fields(record)]


def _with(record, name: str, value):
    if isinstance(value, list):
        value = tuple(value)
    if isinstance(value, str) and value.lower() == "none":
        value = None
    kind = get_type_hints(type(record))[name]
    if kind is bool and isinstance(value, str) and value.lower() in ("true", "false"):
        value = value.lower() == "true"
    if not _is(value, kind):
        expected = kind if get_args(kind) else kind.__name__
        raise ValueError(f"{name}: expected {expected}, as in {name}={getattr(record, name)!r}, found {value!r}.")
    return replace(record, **{name: value})


def _is(value: Any, kind: Any) -> bool:
    """Whether a value is of an annotated type. An int does for a float; a bool for neither."""
    kinds = get_args(kind)
    if get_origin(kind) is tuple:
        kinds = kinds[:1] * len(value) if Ellipsis in kinds and isinstance(value, tuple) else kinds
        return isinstance(value, tuple) and len(value) == len(kinds) and all(map(_is, value, kinds))
    if kinds:
        return any(_is(value, kind) for kind in kinds)
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    return isinstance(value, kind)


def to_json(recipe: Recipe) -> dict[str, Any]:
    """The recipe as dictionaries and lists; `from_json` is the inverse."""
    values = dataclasses.asdict(recipe)
    for phase, written in zip(recipe.phases, values["phases"], strict=True):
        written["schedule"] = {"type": type(phase.schedule).__name__, **written["schedule"]}
    return values


def from_json(values: Mapping[str, Any]) -> Recipe:
    """The recipe that `to_json` wrote."""
    phases = []
    for phase in values["phases"]:
        schedule = dict(phase["schedule"])
        made = _SCHEDULES[schedule.pop("type")](**_tuples(schedule))
        phases.append(Phase(**{**_tuples(phase), "schedule": made}))
    augmentation = Augmentation(**_tuples(values["augmentation"]))
    others = {data: _tuples(statistics) for data, statistics in values.get("other_statistics", {}).items()}
    return Recipe(**{**values, "augmentation": augmentation, "phases": tuple(phases), "other_statistics": others})


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
