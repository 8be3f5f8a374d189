"""The record of every network, and what all their constructors have in common: input, features, weights."""

import contextlib
import fnmatch
import functools
import inspect
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from larq_rep.checks import did_you_mean
from larq_rep.datasets import CIFAR10_STATISTICS, CIFAR100_STATISTICS, IMAGENET_STATISTICS  # noqa: F401  (for the families)
from larq_rep.datasets import PUBLISHED as DATASETS
from larq_rep.datasets import Statistics as Preprocessing
from larq_rep.layers import Mirror
from larq_rep.reptran import reptran
from larq_rep.zoo.papers import REPBNN, Paper
from larq_rep.zoo.weights import Published, is_mirrored, load_weights, weights_file


class Result(NamedTuple):
    """A published accuracy in percent, and the table or file that prints it."""

    top1: float
    top5: float | None
    source: str


@dataclass(frozen=True)
class Variant:
    """One published form of a network.

    # Attributes
        arguments: Keywords of the constructor that build it.
        dataset: Key of `DATASETS`.
        results: Published accuracies.
        rep_results: Published accuracies of its Rep network with `beta=2`, if there is one.
        paper: Where it was published.
        preprocessing: How its images are normalised.
        source: Where its structure comes from: `"code"` (the authors'), `"paper"`, `"inferred"` or `"larq_zoo"`.
        spec: Section of the specification that it was built from.
        left_float: Regular expressions of the names of convolutions that have binary weights and stay float
            in a flatbuffer, with the reason.
        weights: Published weights. The name of the data set is that of the argument `weights` for them.
    """

    arguments: Mapping[str, Any] = field(default_factory=dict)
    dataset: str = ""
    results: tuple[Result, ...] = ()
    rep_results: tuple[Result, ...] = ()
    paper: Paper | None = None
    preprocessing: Preprocessing | None = None
    source: str = ""
    spec: str = ""
    left_float: Mapping[str, str] = field(default_factory=dict)
    weights: Published | None = None

    @property
    def label(self) -> str:
        """Its arguments as one would write them."""
        return ", ".join(f"{key}={value!r}" for key, value in self.arguments.items())


@dataclass(frozen=True)
class Network:
    """The record of a constructor: its family and the published forms of what it builds."""

    name: str
    family: str
    constructor: Callable[..., tf.keras.Model]
    variants: tuple[Variant, ...]

    def forms(self, arguments: Mapping[str, Any], partly: bool = False) -> list[Variant]:
        """The published forms that these arguments of the constructor build; they may differ in what follows it.

        Arguments that no form differs in do not count. The others have their defaults where they are not given, or
        with `partly` any value.
        """
        parameters = inspect.signature(self.constructor).parameters
        defaults = {key: parameters[key].default for form in self.variants for key in form.arguments}
        wanted = {key: arguments.get(key, default) for key, default in defaults.items()}
        wanted = {key: value for key, value in wanted.items() if key in arguments or not partly}
        return [
            form
            for form in self.variants
            if all(form.arguments.get(key, defaults[key]) == value for key, value in wanted.items())
        ]


_NETWORKS: dict[str, Network] = {}

_ARGUMENTS = """
        input_shape: `(height, width, channels)`, by default that of the data set, {shape}. Height and width
            must be multiples of {multiple}.
        input_tensor: A Keras tensor to use as image input instead.
        weights: `None` (initial values), a file of weights, or the name of published ones (`"imagenet"`), see
            `larq_rep.zoo.load_weights`. A checkpoint of the authors gives a network with mirrored kernels behind a
            `larq_rep.layers.Mirror`, whose outputs are those of their code.
        include_top: Whether the classifier is included. Without it the network ends with its last feature
            map, before the global pooling.
        num_classes: Number of classes, by default that of the data set. The outputs are logits of shape
            `(N, num_classes)`.

    # Returns
        A Keras model.

    # Raises
        ValueError: If an argument or the input does not suit, or the weights do not fit.
        FileNotFoundError: If there is no file `weights`; for published ones it says where to get it.

    # References
{references}
"""
_OWN_ARGUMENTS = "\n    # Arguments"


def register_network(
    *,
    family: str,
    paper: Paper,
    dataset: str,
    source: str,
    spec: str,
    multiple: int,
    cifar_multiple: int | None = None,
    preprocessing: Preprocessing = IMAGENET_STATISTICS,
    variants: tuple[Variant, ...] = (Variant(),),
    left_float: Mapping[str, str] | None = None,
):
    """Decorator that makes a constructor of a function from an image to logits, and lists it.

    The function `build(image, num_classes, **options)` gets a tensor of shape (N, H, W, C) and returns logits
    or, if `num_classes` is `None`, its last feature map. The constructor has its name and options, and
    besides the arguments that all have: `input_shape`, `input_tensor`, `weights`, `include_top` and
    `num_classes`. An option named `dataset` chooses their defaults; else they are those of `dataset`. Its
    docstring is that of the function, which ends with its options under `# Arguments`, and the common part.

    # Arguments
        multiple: What height and width of the input must be multiples of.
        cifar_multiple: The same for the forms for CIFAR, if they differ.
        family, paper, dataset, source, spec, preprocessing, left_float: See `Variant`; each of `variants` may
            have its own.
        variants: The published forms, the first one with the defaults of the function.
    """

    def decorate(build: Callable[..., tf.Tensor]) -> Callable[..., tf.keras.Model]:
        name = build.__name__
        own = list(inspect.signature(build).parameters.values())[2:]
        arguments = inspect.signature(_common_arguments).parameters.values()

        @functools.wraps(build)
        def constructor(
            *,
            input_shape=None,
            input_tensor=None,
            weights=None,
            include_top=True,
            num_classes=None,
            **options,
        ):
            unknown = set(options) - {parameter.name for parameter in own}
            if unknown:
                expected = ", ".join(inspect.signature(constructor).parameters)
                raise TypeError(f"{name} has no argument {sorted(unknown)[0]!r}. Expected: {expected}.")
            key = choose(name, "dataset", options.get("dataset", dataset), DATASETS)
            defaults = DATASETS[key]
            step = multiple if key == "imagenet" else cifar_multiple or multiple
            file = _find_weights(name, weights, options)
            image = _image_input(name, input_shape, input_tensor, defaults.input_shape, step)
            classes = (num_classes or defaults.num_classes) if include_top else None
            with _quiet_larq():
                outputs = build(_mirrored(image, file), classes, **options)
            model = tf.keras.Model(tf.keras.utils.get_source_inputs(image), outputs, name=name)
            return _finished(model, file)

        del constructor.__wrapped__
        _set_signature(constructor, [*own, *arguments])
        references = "\n".join(
            f"        - [{p.title}]({p.url})" for p in dict.fromkeys([paper, *[v.paper for v in variants if v.paper]])
        )
        text = (build.__doc__ or "").rstrip()
        text += "" if _OWN_ARGUMENTS in text else f"\n{_OWN_ARGUMENTS}"
        constructor.__doc__ = text + _ARGUMENTS.format(
            shape=f"`{DATASETS[dataset].input_shape}`",
            multiple=multiple if cifar_multiple is None else f"{multiple} ({cifar_multiple} for CIFAR)",
            references=references,
        )
        common = Variant({}, dataset, (), (), paper, preprocessing, source, spec, left_float or {})
        _NETWORKS[name] = Network(name, family, constructor, tuple(_completed(v, common) for v in variants))
        return constructor

    return decorate


def _completed(variant: Variant, common: Variant) -> Variant:
    """The variant with the values that all variants of its network share where it has none of its own."""
    missing = {key: value for key, value in vars(common).items() if not getattr(variant, key)}
    return replace(
        variant, **{**missing, "dataset": variant.arguments.get("dataset", variant.dataset or common.dataset)}
    )


def add_network(constructor: Callable[..., tf.keras.Model], *, family: str, **record) -> Callable[..., tf.keras.Model]:
    """Lists a constructor that needs no help, with the attributes of its only `Variant`."""
    variant = Variant(**{"preprocessing": IMAGENET_STATISTICS, **record})
    _NETWORKS[constructor.__name__] = Network(constructor.__name__, family, constructor, (variant,))
    return constructor


def _set_signature(constructor: Callable[..., tf.keras.Model], parameters: list[inspect.Parameter]) -> None:
    """For help and completion, and for the commands, which refuse what is no argument."""
    setattr(constructor, "__signature__", inspect.Signature(parameters))  # noqa: B010  (mypy knows no such attribute)


def _common_arguments(*, input_shape=None, input_tensor=None, weights=None, include_top=True, num_classes=None):
    pass


def register_rep(
    base: Callable[..., tf.keras.Model],
    *,
    stem: str = "after_bn",
    source: str = "paper",
    weights: Published | None = None,
    doc: str = "",
) -> Callable[..., tf.keras.Model]:
    """Makes and lists the constructor of the Rep network of a network: `RepX = register_rep(X)`.

    # Arguments
        base: Constructor of the network.
        stem: Where its first layer is repeated by default, see `larq_rep.reptran`.
        source: Where its structure comes from if accuracies of it are published; else it is inferred.
        weights: Published weights of the form with default arguments.
        doc: What is to be said about it besides.
    """
    network = _NETWORKS[base.__name__]
    name = f"Rep{network.name}"

    published_weights = weights

    def constructor(*, beta=2, last_layer=1, stem=stem, bn="after", input_tensor=None, weights=None, **arguments):
        if input_tensor is not None:
            arguments = {"input_shape": tuple(input_tensor.shape[1:]), **arguments}
        file = _find_weights(name, weights, arguments)
        with _quiet_larq():
            model = base(**arguments)
            if file is not None:
                image = tf.keras.Input(model.input_shape[1:], name="image") if input_tensor is None else input_tensor
                input_tensor = _mirrored(image, file)
            model = reptran(model, beta, last_layer=last_layer, stem=stem, bn=bn, input_tensor=input_tensor, name=name)
        return _finished(model, file)

    own = list(inspect.signature(constructor).parameters.values())[:4]
    constructor.__name__ = constructor.__qualname__ = name
    constructor.__module__ = base.__module__
    _set_signature(constructor, [*own, *inspect.signature(base).parameters.values()])
    constructor.__doc__ = f"""`{network.name}` after RepTran: every binary convolution is a RepConv.

    All feature maps have beta times the channels; binary weights and BOPs are the same.
    {doc}
    # Arguments
        beta, last_layer, stem, bn: As in `larq_rep.reptran`.

    All other arguments are those of `{network.name}`.

    # Returns
        A Keras model.

    # References
        - [{REPBNN.title}]({REPBNN.url})
    """
    published = tuple(
        replace(
            variant,
            results=variant.rep_results,
            rep_results=(),
            paper=REPBNN,
            source=source if variant.rep_results else "inferred",
            spec="reactnet-repbnn.md, 8",
            weights=published_weights if variant is network.variants[0] else None,
        )
        for variant in network.variants
        if variant.rep_results or variant is network.variants[0]
    )
    _NETWORKS[name] = Network(name, network.family, constructor, published)
    return constructor


def list_models(pattern: str = "*", *, family: str | None = None, dataset: str | None = None) -> list[str]:
    """Names of the networks that match a shell pattern, whatever the case: `list_models("*react*")`.

    # Arguments
        pattern: Shell pattern of the name.
        family: Only the networks of this family, such as `"reactnet"`.
        dataset: Only the networks with a published form for this data set, such as `"cifar10"`.

    # Raises
        ValueError: If there is no such family or data set.
    """
    if family is not None:
        choose("list_models", "family", family, {network.family for network in _NETWORKS.values()})
    if dataset is not None:
        choose("list_models", "dataset", dataset, DATASETS)
    return sorted(
        name
        for name, network in _NETWORKS.items()
        if fnmatch.fnmatchcase(name.lower(), pattern.lower())
        and family in (None, network.family)
        and (dataset is None or any(variant.dataset == dataset for variant in network.variants))
    )


def get_network(name: str) -> Network:
    """The record of a network.

    # Raises
        TypeError: If `name` is no string.
        ValueError: If there is no such network.
    """
    if not isinstance(name, str):
        raise TypeError(f"zoo: expected the name of a network, found {type(name).__name__}: {name!r:.80}.")
    if name not in _NETWORKS:
        hint = did_you_mean(name, _NETWORKS) or "list_models() names all."
        raise ValueError(f"There is no network named {name!r}. {hint}")
    return _NETWORKS[name]


def get_model(name: str, **kwargs) -> tf.keras.Model:
    """Builds the network of a name of `list_models()`; the other arguments go to its constructor.

    # Raises
        ValueError: If there is no such network.
    """
    return get_network(name).constructor(**kwargs)


def choose(name: str, argument: str, value, choices):
    """`value`, if it is one of `choices`.

    # Raises
        ValueError: If not, with the name of the network and the choices.
    """
    if value not in list(choices):
        listed = ", ".join(repr(choice) for choice in (sorted(choices) if isinstance(choices, set) else choices))
        raise ValueError(f"{name}: {argument} must be one of {listed}, found {value!r}.")
    return value


@contextlib.contextmanager
def _quiet_larq() -> Iterator[None]:
    """Larq warns of binary kernels without a clip; most networks of the literature have none on purpose."""
    logger = logging.getLogger("larq.layers_base")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _image_input(name: str, input_shape, input_tensor, default: tuple[int, int, int], multiple: int) -> tf.Tensor:
    if input_tensor is None:
        shape = tuple(default if input_shape is None else input_shape)
    else:
        shape = tuple(input_tensor.shape[1:])
        if input_shape is not None and tuple(input_shape) != shape:
            raise ValueError(
                f"{name}: input_shape is {tuple(input_shape)} but input_tensor has {shape}. Leave out one of them."
            )
    if len(shape) != 3 or not all(isinstance(size, int) and size > 0 for size in shape):
        raise ValueError(f"{name}: expected an input of (height, width, channels) with all sizes known, found {shape}.")
    if shape[0] % multiple or shape[1] % multiple:
        raise ValueError(
            f"{name}: height and width of the input must be multiples of {multiple}, so that shortcuts and "
            f"strided convolutions meet at the same size; found {shape[0]} x {shape[1]}."
        )
    return tf.keras.Input(shape, name="image") if input_tensor is None else input_tensor


def _find_weights(name: str, weights: str | os.PathLike[str] | None, options: Mapping[str, Any]) -> Path | None:
    """The file of the argument `weights` of the network `name`."""
    if weights is None:
        return None
    published = {}
    for form in _NETWORKS[name].forms(options):
        if form.weights:
            chosen = [str(value) for key, value in form.arguments.items() if key != "dataset"]
            published[form.dataset] = ("-".join([name, *chosen, form.dataset]), form.weights)
    return weights_file(name, weights, published)


def _mirrored(image: tf.Tensor, weights: Path | None) -> tf.Tensor:
    return Mirror(name="mirror")(image) if weights is not None and is_mirrored(weights) else image


def _finished(model: tf.keras.Model, weights: Path | None) -> tf.keras.Model:
    """The network with its weights, and quantizers that know whether their kernels are mirrored."""
    if any(isinstance(layer, Mirror) for layer in model.layers):
        for layer in model.layers:
            quantizer: Any = getattr(layer, "kernel_quantizer", None)
            if hasattr(quantizer, "mirrored"):
                quantizer.mirrored = True
    if weights is not None:
        load_weights(model, weights)
    return model
