"""Defines recipes and their phases, changes them as `--set` asks, and converts them to and from JSON."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args, get_origin, get_type_hints

from larq_rep.training import schedules
from larq_rep.training.augmentation import Augmentation
from larq_rep.training.schedules import Cosine, Exponential, Linear, Steps, WarmupSteps

_SCHEDULES = {cls.__name__: cls for cls in (Cosine, Exponential, Linear, Steps, WarmupSteps)}
_CHOICES: dict[str, tuple[str | None, ...]] = {
    "weights": ("binary", "real"),
    "activations": ("binary", "real", "tanh"),
    "optimizer": ("adam", "bop", "radam", "sgd"),
    "loss": ("cross_entropy", "distribution", "squared_hinge"),
    "decayed": ("all", "conv_and_shifts", "conv_and_fc"),
    "initializer": (None, "uniform_fan_in"),
    "start": ("last", "best"),
    "best": ("earlier", "later", "last"),
}


@dataclass(frozen=True)
class Phase:
    """One training of a recipe, from its own start to its own last epoch.

    # Attributes
        weights: `"binary"`, or `"real"`: latent weights that are used as they are.
        activations: `"binary"`: as they are, also if they have several bits; or with real weights and in place of signs
            `"real"`: nothing, or `"tanh"`.
        epochs: Number of epochs.
        batch_size: Images a step, over all replicas.
        drop_last: Whether an epoch leaves out the images that do not fill a batch; they differ in each epoch.
        optimizer: `"adam"`, `"radam"`, `"sgd"`, or `"bop"`: `larq.optimizers.Bop` flips the binary weights, which have
            no latent ones, and Keras' Adam trains the others.
        learning_rate: The rate that the schedule scales.
        schedule: Learning rate of each epoch.
        momentum, nesterov: Of SGD.
        gamma: Bop's adaptivity rate in the first epoch, and the one to which it falls linearly.
        threshold: How large the mean gradient has to be for Bop to flip a weight.
        weight_decay: This factor times the weights is added to their gradient.
        decayed: Which weights decay: `"all"`, `"conv_and_shifts"` or `"conv_and_fc"`, see
            `larq_rep.training.optimizers.decayed_weights`.
        loss: `"cross_entropy"`, `"squared_hinge"` or `"distribution"`: the cross-entropy plus the mean of
            `larq_rep.losses.distribution_loss` over all activations that are binarized.
        label_smoothing: Label smoothing of the cross-entropy in training.
        teacher: The model whose logits the authors distilled; `None` if the labels were learned.
        temperature: Temperature of that distillation.
        initializer: `"uniform_fan_in"` if the latent weights start with PyTorch's values for real convolutions,
            `None` for the network's own.
        start: The epoch of the previous phase, `"last"` or `"best"`, whose weights this one starts with.
        left_behind: Regular expressions for names of weights that one of the two phases does not have.
        best: Which of several epochs with the highest accuracy is the best one, the `"earlier"` or the `"later"`; or
            `"last"`, if it is the last one in any case, because only its weights are all quantized.

    # Raises
        ValueError: If a value is not one of these. It is raised now, not days later when the phase begins.
    """

    weights: str = "binary"
    activations: str = "binary"
    epochs: int = 1
    batch_size: int = 128
    drop_last: bool = False
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    schedule: schedules.Schedule = dataclasses.field(default_factory=Cosine)
    momentum: float = 0.9
    nesterov: bool = False
    gamma: tuple[float, float] = (1e-4, 1e-6)
    threshold: float = 1e-8
    weight_decay: float = 0.0
    decayed: str = "all"
    loss: str = "cross_entropy"
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
        """Returns whether an epoch of this accuracy is the best one, given the `earlier` accuracies."""
        highest = max(earlier, default=-math.inf)
        return self.best == "last" or accuracy > highest or (self.best == "later" and accuracy == highest)

    def check(self) -> None:
        """Finds errors before training that would otherwise appear during it.

        # Raises
            ValueError: If a value is outside its range, two do not go together, or the schedule does not suit the
                epochs.
        """
        for name, lowest, highest in (
            ("learning_rate", 0, math.inf),
            ("threshold", 0, math.inf),
            ("weight_decay", 0, math.inf),
            ("label_smoothing", 0, 1),
            ("temperature", 1e-6, math.inf),
        ):
            if not lowest <= getattr(self, name) <= highest:
                raise ValueError(f"Phase: {name} should be {lowest} to {highest}, found {getattr(self, name)}.")
        if not all(0 < gamma <= 1 for gamma in self.gamma):
            raise ValueError(f"Phase: gamma should be two numbers more than 0 and up to 1, found {self.gamma}.")
        for name, value, other, only in (
            ("optimizer", "bop", "weights", "binary"),
            ("optimizer", "bop", "weight_decay", 0),
            ("activations", "real", "weights", "real"),
            ("activations", "tanh", "weights", "real"),
            ("loss", "squared_hinge", "label_smoothing", 0),
            ("loss", "squared_hinge", "teacher", None),
            ("loss", "distribution", "teacher", None),
        ):
            if getattr(self, name) == value and getattr(self, other) != only:
                raise ValueError(f"Phase: {name}={value!r} needs {other}={only!r}, found {getattr(self, other)!r}.")
        for epoch in (0, self.epochs - 1):
            self.schedule(self.learning_rate, epoch, self.epochs)
        for pattern in self.left_behind:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"Phase: {pattern!r} of left_behind is not a regular expression: {error}.") from error


@dataclass(frozen=True)
class Recipe:
    """A published way to train networks.

    # Attributes
        name: Its name here.
        networks: The networks that were trained this way, for people to read.
        dataset: The data set that it was made for; others with images of about that size also work.
        source: Where it comes from: `"code"`, `"paper"` or `"inferred"`.
        spec: Where it is written down: the address of the code or of the paper.
        augmentation: What happens to the images.
        phases: The trainings, one after the other.
        note: What is unusual or unknown.
        other_statistics: Maps the name of another data set to the `mean` and `std` with which the authors normalise it.
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
        """The recipe for the data set of this name, with the statistics that the authors normalise it with."""
        if data not in self.other_statistics:
            return self
        augmentation = replace(self.augmentation, **dict[str, Any](self.other_statistics[data]))
        return replace(self, augmentation=augmentation, other_statistics={})


def changed(recipe: Recipe, key: str, value: Any) -> Recipe | None:
    """The recipe with another value, or `None` if nothing in it has that name.

    `key` is the name of an attribute of `Phase`, of its schedule or of `Augmentation`. A phase's value changes in
    all phases, or only in one if its number stands in front, as in `"2.epochs"`.

    # Raises
        ValueError: If there is no phase of that number, or the value has the wrong type.
    """
    number, dot, name = key.rpartition(".")
    if dot and (not number.isdigit() or not 1 <= int(number) <= len(recipe.phases)):
        raise ValueError(
            f"{key}: recipe {recipe.name} has {len(recipe.phases)} phase(s), found {number!r} before the dot. "
            f"Expected 1{f' to {len(recipe.phases)}' if len(recipe.phases) > 1 else ''}."
        )
    if not dot and name in _names(recipe.augmentation):
        if name in ("mean", "std"):
            # The chosen value applies to all data sets.
            recipe = replace(recipe, other_statistics={})
            if value is None or (isinstance(value, str) and value.lower() == "none"):
                # Never only one of the two.
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
    """Returns whether a value is of an annotated type. An int may stand for a float; a bool for neither."""
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
    """Makes the recipe that `to_json` wrote."""
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
