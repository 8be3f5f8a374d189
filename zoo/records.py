"""The record of every network: its published forms, where they come from, and how to find them by name."""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from larq_rep.checks import did_you_mean
from larq_rep.datasets import IMAGENET_STATISTICS
from larq_rep.datasets import PUBLISHED as DATASETS
from larq_rep.datasets import Statistics as Preprocessing
from larq_rep.zoo.papers import REPBNN, Paper

if TYPE_CHECKING:
    import tensorflow as tf

_Constructor = TypeVar("_Constructor", bound="Callable[..., tf.keras.Model]")


class Result(NamedTuple):
    """A published accuracy in percent, and the table or file that prints it."""

    top1: float
    top5: float | None
    source: str


class Published(NamedTuple):
    """Weights that their authors offer behind a link which needs a browser.

    # Attributes
        page: Where the link is.
        sha256: Hash of the file, if it is known. Until then only its keys and shapes are compared.
    """

    page: str
    sha256: str | None = None


@dataclass(frozen=True)
class Variant:
    """One published form of a network.

    # Attributes
        arguments: Arguments of the constructor that build it.
        dataset: Key of `DATASETS`.
        results: Published accuracies.
        rep_results: Published accuracies of its Rep network with `beta=2`, if there is one.
        paper: Where it was published.
        preprocessing: How its images are normalised.
        source: Where its structure comes from: `"code"` (the authors'), `"paper"`, `"inferred"` or `"larq_zoo"`.
        left_float: Regular expressions of the names of convolutions that have binary weights and stay float
            in a flatbuffer, with the reason.
        weights: Published weights. The argument `weights` calls them by the name of the data set.
        first_phase: What its network has in a first phase of the authors' training, `"real weights"`; empty if they
            train it in one phase.
    """

    arguments: Mapping[str, Any] = field(default_factory=dict)
    dataset: str = ""
    results: tuple[Result, ...] = ()
    rep_results: tuple[Result, ...] = ()
    paper: Paper | None = None
    preprocessing: Preprocessing | None = None
    source: str = ""
    left_float: Mapping[str, str] = field(default_factory=dict)
    weights: Published | None = None
    first_phase: str = ""

    @property
    def label(self) -> str:
        """Its arguments as one would write them."""
        return ", ".join(f"{key}={value!r}" for key, value in self.arguments.items())


@dataclass(frozen=True)
class Network:
    """The record of a constructor: its family and the published forms of its networks.

    # Attributes
        name, family: Name and family of the network.
        constructor: The function that builds it.
        variants: The published forms, the first one with the defaults of the constructor.
        multiple: Height and width of the image must be multiples of this.
        cifar_multiple: The same for the forms for CIFAR, if they differ.
        left_behind: Regular expressions for names of weights that its first training phase, with real weights, does
            without, as in `larq_rep.training.with_real_weights`.
        base: For a Rep network, the network that is repeated.
    """

    name: str
    family: str
    constructor: Callable[..., tf.keras.Model]
    variants: tuple[Variant, ...]
    multiple: int = 1
    cifar_multiple: int | None = None
    left_behind: tuple[str, ...] = ()
    base: Network | None = None

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """The arguments of its constructor by name; a Rep network also takes those of its base."""
        own = inspect.signature(self.constructor).parameters.values()
        named = {parameter.name: parameter for parameter in own if parameter.kind is not parameter.VAR_KEYWORD}
        return named | (self.base.parameters if self.base else {})

    def check(self, arguments: Iterable[str]) -> None:
        """Refuses arguments that its constructor does not take.

        # Raises
            TypeError: With the first unknown name, and all known ones.
        """
        for argument in arguments:
            if argument not in self.parameters:
                expected = ", ".join(self.parameters)
                raise TypeError(f"{self.name} has no argument {argument!r}. Expected: {expected}.")

    def forms(self, arguments: Mapping[str, Any], partly: bool = False) -> list[Variant]:
        """The published forms that these arguments of the constructor build; they may differ in what follows the
        constructor.

        Arguments in which no form differs do not count. If others are not given, they have their defaults, or with
        `partly` any value.
        """
        parameters = self.parameters
        defaults = {key: parameters[key].default for form in self.variants for key in form.arguments}
        wanted = {key: arguments.get(key, default) for key, default in defaults.items()}
        wanted = {key: value for key, value in wanted.items() if key in arguments or not partly}
        return [
            form
            for form in self.variants
            if all(form.arguments.get(key, defaults[key]) == value for key, value in wanted.items())
        ]

    def first_phase(self, arguments: Mapping[str, Any]) -> str:
        """What a first phase of the training has that these arguments of the constructor do not build, see `Variant`.

        Arguments of no published form have the phases of the other forms.
        """
        network = self.base or self
        forms = network.forms(arguments) or network.variants
        return next((form.first_phase for form in forms if form.first_phase), "")


_NETWORKS: dict[str, Network] = {}


def register(
    *,
    family: str,
    paper: Paper,
    dataset: str,
    source: str,
    multiple: int = 1,
    cifar_multiple: int | None = None,
    preprocessing: Preprocessing = IMAGENET_STATISTICS,
    variants: tuple[Variant, ...] = (Variant(),),
    left_float: Mapping[str, str] | None = None,
    left_behind: tuple[str, ...] = (),
    first_phase: str = "",
) -> Callable[[_Constructor], _Constructor]:
    """Lists a constructor: a decorator that returns it unchanged.

    # Arguments
        family, multiple, cifar_multiple, variants, left_behind: See `Network`.
        paper, dataset, source, preprocessing, left_float, first_phase: See `Variant`; each of `variants` may have its
            own.
    """
    common = Variant({}, dataset, (), (), paper, preprocessing, source, left_float or {}, None, first_phase)

    def list_(constructor: _Constructor) -> _Constructor:
        name = constructor.__name__
        completed = tuple(_completed(variant, common) for variant in variants)
        _NETWORKS[name] = Network(name, family, constructor, completed, multiple, cifar_multiple, left_behind)
        return constructor

    return list_


def _completed(variant: Variant, common: Variant) -> Variant:
    """The variant, with the values shared by all variants of its network where it has none of its own."""
    missing = {key: value for key, value in vars(common).items() if not getattr(variant, key)}
    return replace(
        variant, **{**missing, "dataset": variant.arguments.get("dataset", variant.dataset or common.dataset)}
    )


def register_rep(
    base: Callable[..., tf.keras.Model], *, source: str = "paper", weights: Published | None = None
) -> Callable[[_Constructor], _Constructor]:
    """Lists the constructor of the Rep network of a network: a decorator that returns it unchanged.

    # Arguments
        base: Constructor of the network.
        source: Where the structure comes from if its accuracies are published; otherwise it is inferred.
        weights: Published weights of the form with default arguments.
    """
    network = _NETWORKS[base.__name__]
    published = tuple(
        replace(
            variant,
            results=variant.rep_results,
            rep_results=(),
            paper=REPBNN,
            source=source if variant.rep_results else "inferred",
            weights=weights if variant is network.variants[0] else None,
        )
        for variant in network.variants
        if variant.rep_results or variant is network.variants[0]
    )

    def list_(constructor: _Constructor) -> _Constructor:
        name = constructor.__name__
        left_behind = network.left_behind
        _NETWORKS[name] = Network(name, network.family, constructor, published, left_behind=left_behind, base=network)
        return constructor

    return list_


def list_models(pattern: str = "*", *, family: str | None = None, dataset: str | None = None) -> list[str]:
    """Names of the networks that match a shell pattern, whatever the case: `list_models("*react*")`.

    # Arguments
        pattern: Shell pattern of the name.
        family: Only the networks of this family, such as `"reactnet"`.
        dataset: Only the networks with a published form for this data set, such as `"cifar10"`.

    # Raises
        ValueError: If there is no such family or data set.
    """
    forms = [(name, network.family, form.dataset) for name, network in _NETWORKS.items() for form in network.variants]
    return matching(forms, pattern, family, dataset)


def matching(forms: Iterable[tuple[str, str, str]], pattern: str, family: str | None, dataset: str | None) -> list[str]:
    """What `list_models` returns, of forms of which the network's name, its family and the data set are given."""
    forms = list(forms)
    if family is not None:
        choose("list_models", "family", family, {found for _, found, _ in forms})
    if dataset is not None:
        choose("list_models", "dataset", dataset, DATASETS)
    return sorted(
        {
            name
            for name, its_family, data in forms
            if fnmatch.fnmatchcase(name.lower(), pattern.lower())
            and family in (None, its_family)
            and dataset in (None, data)
        }
    )


def get_network(name: str) -> Network:
    """The record of a network.

    # Raises
        TypeError: If `name` is not a string.
        ValueError: If there is no such network.
    """
    if not isinstance(name, str):
        raise TypeError(f"zoo: expected the name of a network, found {type(name).__name__}: {name!r:.80}.")
    if name not in _NETWORKS:
        hint = did_you_mean(name, _NETWORKS) or "list_models() names all."
        raise ValueError(f"There is no network named {name!r}. {hint}")
    return _NETWORKS[name]


def get_model(name: str, **kwargs) -> tf.keras.Model:
    """Builds the network with a name from `list_models()`; the other arguments go to its constructor.

    # Raises
        ValueError: If there is no such network.
        TypeError: If it has no argument of that name; the message lists those that it has.
    """
    network = get_network(name)
    network.check(kwargs)
    return network.constructor(**kwargs)


def choose(name: str, argument: str, value, choices):
    """`value`, if it is one of `choices`.

    # Raises
        ValueError: If it is not, with the name of the network and the choices.
    """
    if value not in list(choices):
        listed = ", ".join(repr(choice) for choice in (sorted(choices) if isinstance(choices, set) else choices))
        raise ValueError(f"{name}: {argument} must be one of {listed}, found {value!r}.")
    return value
