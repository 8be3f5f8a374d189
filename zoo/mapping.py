"""Loads a state dict into the weights of a Keras model: every key gets a place, or nothing is loaded."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from larq_rep.layers import Mirror
from larq_rep.quantizers.base import binarizes, precision_of, value_of, zero_is_positive
from larq_rep.zoo.checkpoint.tensors import CheckpointError
from larq_rep.zoo.keys import counted
from larq_rep.zoo.refusals import Head, Problem, refusal

_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
# MXNet's names for a normalisation's parameters, which PyTorch calls weight and bias.
_MXNET = {"gamma": "weight", "beta": "bias"}


class Row(NamedTuple):
    """The source of one weight of the model.

    # Attributes
        weight: Its name, `<layer>/<weight>`.
        shape: Its shape.
        keys: The keys of the file that it is made of.
        found: Their shapes.
        how: What was done with them.
    """

    weight: str
    shape: tuple[int, ...]
    keys: tuple[str, ...]
    found: tuple[tuple[int, ...], ...]
    how: str


@dataclass
class ImportReport:
    """The result of an import.

    # Attributes
        network: Name of the network.
        rows: Where each weight comes from.
        unused: The keys that have no place in the network, with the reason.
        zeros: Binary convolutions with latent weights that have the sign of exactly 0, and how many. The sign is +1
            here and 0 in PyTorch, where such a weight counts for nothing.
        close: Binary convolutions with latent weights so close to 0 that PyTorch, which computes in float32, may give
            them another sign than float64 gives them here, and how many.
        arguments: Arguments of the network's constructor, as `larq_rep.zoo.import_checkpoint` recognised or got them.
        notes: Which dictionary of the file was read, which stand beside, and what was taken off the keys.
    """

    network: str
    rows: list[Row] = field(default_factory=list)
    unused: dict[str, str] = field(default_factory=dict)
    zeros: dict[str, int] = field(default_factory=dict)
    close: dict[str, int] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "rows": [row._asdict() for row in self.rows]}


class Importer:
    """A state dict whose arrays are taken one by one; the methods are named after the layers.

    Nothing is assigned before `finish`, or at all if there is a problem. `ignored`: the pattern of each key left out.
    """

    def __init__(
        self, model: tf.keras.Model, arrays: Mapping[str, np.ndarray], ignored: Mapping[str, str] | None = None
    ):
        self.model = model
        self._problems: list[Problem] = []
        self._ignored = {_pytorch_key(key): pattern for key, pattern in (ignored or {}).items()}
        self._heads: list[Head] = []
        self._arrays: dict[str, np.ndarray] = {}
        names: dict[str, str] = {}
        for key, array in arrays.items():
            name = _pytorch_key(key)
            if name in names and not counted(name):
                self._problems.append(Problem("twice", names[name], f" and {key}"))
            names[name], self._arrays[name] = key, array
        self._layers = {layer.name: layer for layer in model.layers}
        self._values: dict[int, tuple[tf.Variable, np.ndarray]] = {}
        self._used: set[str] = set()
        self._rows: list[Row] = []

    def __contains__(self, key: str) -> bool:
        """Whether there are arrays of this key or below it."""
        return any(name == key or name.startswith(f"{key}.") for name in self._arrays)

    def modules(self) -> list[str]:
        """The keys without their last part, in the order of the file."""
        return list(dict.fromkeys(key.rpartition(".")[0] for key in self._arrays))

    def has(self, layer: str) -> bool:
        """Whether the model has a layer of this name."""
        return layer in self._layers

    def blocks(self) -> Iterator[tuple[str, str]]:
        """The blocks of a ResNet as the layers are called, `layer1_0`, and as the keys are, `layer1.0`."""
        found = (re.match(r"(layer\d+_\d+|layers_\d+)(?=_)", name) for name in self._layers)
        for name in dict.fromkeys(match[0] for match in found if match):
            yield name, name.replace("_", ".")

    def layer(self, name: str) -> Any:
        if name not in self._layers:
            raise self._other(f"no layer {name!r}")
        return self._layers[name]

    def _other(self, lack: str) -> CheckpointError:
        return CheckpointError(
            f"it cannot be imported: this {self.model.name} has {lack} and is not the network of its authors. "
            "Build it with the arguments that they used."
        )

    def _weight(self, layer: str, name: str) -> tf.Variable:
        owner = self.layer(layer)
        if name == "bias" and getattr(owner, "input_quantizer", None) is not None:
            owner = owner.input_quantizer
        if getattr(owner, name, None) is None:
            raise self._other(f"no {name} in layer {layer!r}, {type(owner).__name__}")
        return getattr(owner, name)

    def conv(self, layer: str, key: str, half: int | None = None) -> None:
        """Kernel of a convolution, and the weights of its quantizer by their names.

        `half` (0 or 1) says which half of the file's output channels is taken.
        """
        conv = self.layer(layer)
        height, width, inputs, outputs = conv.kernel.shape
        shape = (outputs, inputs, height, width) if half is None else (2 * outputs, inputs, height, width)
        name = f"{key}.weights" if f"{key}.weights" in self._arrays else f"{key}.weight"
        count = int(np.prod(shape))
        usual = (count, 1) if name.endswith("s") else shape
        found = self._arrays[name].shape if name in self._arrays else usual
        column = int(np.prod(found)) == count and sum(size > 1 for size in found) <= 1
        expected = {name: found if column or found == shape else usual}
        binary = getattr(conv, "kernel_quantizer", None) is not None

        def convert(kernel: np.ndarray) -> np.ndarray:
            kernel = kernel.reshape(shape)
            if half is not None:
                kernel = kernel[half * outputs :][:outputs]
            return kernel.transpose(2, 3, 1, 0)[::-1, ::-1]

        how = "OIHW to HWIO" + (", mirrored" if max(height, width) > 1 else "")
        how = how if half is None else f"{how}, half {half + 1} of 2"
        self._take(layer, conv.kernel, expected, convert, how, signs=binary)
        for weight in getattr(getattr(conv, "kernel_quantizer", None), "weights", []):
            name = f"{key}.{_name(weight)}"
            if weight.shape.rank == 1:
                self.vector(layer, weight, name)
            else:
                self._take(layer, weight, {name: tuple(weight.shape)}, lambda array: array, "as it is")

    def norm(self, layer: str, *keys: str) -> None:
        """Batch normalisation, or the part of it that a group normalisation has; several keys are concatenated."""
        for weight in self.layer(layer).weights:
            self.vector(layer, _name(weight), *(f"{key}.{_NORM[_name(weight)]}" for key in keys))

    def rprelu(self, layer: str, shift_in: str, slope: str, shift_out: str) -> None:
        self.vector(layer, "shift_in", f"{shift_in}.bias")
        self.vector(layer, "alpha", f"{slope}.weight")
        self.vector(layer, "shift_out", f"{shift_out}.bias")

    def biased_prelu(self, layer: str, shifts: Sequence[str], slopes: Sequence[str]) -> None:
        self.vector(layer, "bias", *(f"{key}.bias" for key in shifts))
        self.vector(layer, "alpha", *(f"{key}.weight" for key in slopes))

    def shift(self, layer: str, key: str, half: int | None = None) -> None:
        """Shift of an `RSign`, the layer itself or the input quantizer of one."""
        self.vector(layer, "bias", f"{key}.bias", half=half)

    def dense(self, layer: str, key: str, image: tuple[int, int] | None = None) -> None:
        """Dense layer. Behind a flattened feature map of the size `image` its inputs are in a different order."""
        dense = self.layer(layer)
        inputs, outputs = dense.kernel.shape
        self._heads.append(Head(key, outputs, self._arrays.get(f"{key}.weight", np.zeros(0)).shape, key in self))

        def convert(kernel: np.ndarray) -> np.ndarray:
            if image is not None:
                kernel = kernel.reshape(outputs, -1, *image)[:, :, ::-1, ::-1].transpose(0, 2, 3, 1)
            return kernel.reshape(outputs, inputs).T

        how = "transposed" if image is None else "CHW to HWC, mirrored, transposed"
        self._take(layer, dense.kernel, {f"{key}.weight": (outputs, inputs)}, convert, how)
        self.vector(layer, "bias", f"{key}.bias")

    def classifier(self, *names: str, norm: bool = False) -> dict[str, str]:
        """The last layer, which has one of these names; returns the keys that are left over if the model has none."""
        layer = next((name for name in names if self.has(name)), None)
        if layer is None:
            return {rf"({'|'.join([*names, *['bn2'] * norm])})\..*": "the model has no classifier (include_top=False)"}
        self.dense(layer, next((name for name in names if name in self), layer))
        if norm:
            self.norm("bn2", "bn2")
        return {}

    def vector(self, layer: str, weight: str | tf.Variable, *keys: str, half: int | None = None) -> None:
        """A weight of one number a channel, whatever other axes of size 1 it has in the file.

        The name `bias` means the bias of the input quantizer if the layer has one. Several keys are concatenated.
        """
        if isinstance(weight, str):
            weight = self._weight(layer, weight)
        channels = int(np.prod(weight.shape))
        times = 2 if half is not None else 1
        expected = dict.fromkeys(keys, (channels * times // len(keys),))

        def convert(*parts: np.ndarray) -> np.ndarray:
            whole = np.concatenate([part.reshape(-1) for part in parts])
            return whole if half is None else whole[half * channels :][:channels]

        how = "as it is" if len(keys) == 1 else "concatenated"
        self._take(layer, weight, expected, convert, how if half is None else f"half {half + 1} of 2")

    def _take(
        self,
        layer: str,
        weight: tf.Variable,
        expected: Mapping[str, tuple[int, ...]],
        convert: Callable[..., np.ndarray],
        how: str,
        signs: bool = False,
    ) -> None:
        """Notes the arrays that a weight is made of, of the expected shapes, which may have more axes of size 1.

        With `signs` they may also be integers that are +1 and -1.
        """
        name = f"{layer}/{_name(weight)}"
        self._used.update(expected)
        problems = [self._problem(key, shape, name, signs) for key, shape in expected.items()]
        self._problems += filter(None, problems)
        arrays = [self._arrays[key] for key in expected if key in self._arrays]
        self._rows.append(Row(name, tuple(weight.shape), tuple(expected), tuple(a.shape for a in arrays), how))
        if not any(problems):
            arrays = [array.astype(np.float32) if array.dtype == np.int8 else array for array in arrays]
            self._values[id(weight)] = (weight, convert(*arrays).reshape(weight.shape))

    def _problem(self, key: str, shape: tuple[int, ...], name: str, signs: bool) -> Problem | None:
        """What is wrong with the array that a weight of this name is made of."""
        array = self._arrays.get(key)
        if array is None:
            if key in self._ignored:
                return Problem("ignored", key, f" by {self._ignored[key]!r}, but {name} needs it")
            return Problem("missing", key, f" {shape}, for {name}")
        if not _fits(array.shape, shape):
            return Problem("wrong shape", key, f" {array.shape}, expected {shape} for {name}")
        if array.dtype == np.int8 and signs:
            other = array[np.abs(array) != 1]
            text = f" int8 with {other.flat[0]}, expected numbers with a fraction, or +1 and -1" if other.size else ""
            return Problem("wrong type", key, text) if text else None
        if array.dtype.kind != "f":
            return Problem("wrong type", key, f" {array.dtype}, expected numbers with a fraction")
        return None if np.isfinite(array).all() else Problem("not finite", key, " has NaN or infinite numbers")

    def finish(self, unused: Mapping[str, str], another: Callable[[], list[str]] = list) -> ImportReport:
        """Assigns all weights.

        # Arguments
            unused: Regular expressions of the keys that have no place in the network, with the reason.
            another: Returns what to say if the keys are those of another network.

        # Raises
            CheckpointError: With every key that is missing, left over or does not fit, and every weight of the
                model that nothing was taken for.
        """
        left = {key: f"ignored by {pattern!r}" for key, pattern in self._ignored.items()}
        for key in self._arrays.keys() - self._used:
            reason = next((reason for pattern, reason in unused.items() if re.fullmatch(pattern, key)), None)
            if reason is None:
                self._problems.append(Problem("left over", key, f" {self._arrays[key].shape}"))
            else:
                left[key] = reason
        signs = self._signs()
        if not self._problems:
            known = set(self._values)
            flags = {id(w) for layer in self.model.layers if isinstance(layer, Mirror) for w in layer.weights}
            self._problems += [
                Problem("without a key", weight.name, f" {tuple(weight.shape)} of the model")
                for weight in self.model.weights
                if id(weight) not in known and id(weight) not in flags
            ]
        if self._problems:
            first = f"it does not fit {self.model.name}, nothing was loaded:"
            raise CheckpointError(refusal(first, another(), self._problems, self._used, self._ignored, self._heads))
        for weight, value in self._values.values():
            weight.assign(value)
        report = ImportReport(self.model.name, self._rows, dict(sorted(left.items())))
        for layer, signed in signs:
            # As the variable holds it: a file of float64 has more digits.
            zeros, close = _undecided(signed, layer.kernel.numpy())
            report.zeros |= {layer.name: zeros} if zeros else {}
            report.close |= {layer.name: close} if close else {}
        return report

    def _signs(self) -> list[tuple[tf.keras.layers.Layer, Callable[[tf.Tensor], tf.Tensor]]]:
        """The layers that take a sign of their kernel (0 for 0 in PyTorch), and the function that it is taken of."""
        found = []
        for layer in self.model.layers:
            quantizer = getattr(layer, "kernel_quantizer", None)
            try:
                if quantizer is not None and precision_of(quantizer) and binarizes(quantizer):
                    found += [(layer, value_of(quantizer))] if zero_is_positive(quantizer) else []
            except ValueError as error:
                text = f"kernel quantizer of {layer.name}"
                self._problems.append(Problem("unknown sign", text, f": {error}"))
        return found


def _pytorch_key(key: str) -> str:
    """A key without the prefix of `DataParallel`, with PyTorch's names instead of MXNet's."""
    module, point, name = key.removeprefix("module.").rpartition(".")
    if not point:
        # Names of whole exported networks, such as densenet0_batchnorm1_running_mean.
        match = re.fullmatch(r"(\w+)_(weight|bias|gamma|beta|running_mean|running_var)", name)
        module, name = match.groups() if match else ("", name)
    return f"{module}.{_MXNET.get(name, name)}" if module else name


def _name(weight: tf.Variable) -> str:
    return weight.name.split("/")[-1].removesuffix(":0")


def _fits(found: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    if len(expected) == 1:
        return [size for size in found if size != 1] == [size for size in expected if size != 1]
    return found == expected


def _undecided(signed: Callable[[tf.Tensor], tf.Tensor], kernel: np.ndarray) -> tuple[int, int]:
    """Numbers of latent weights with the sign of exactly 0, and of others with the sign of a number within rounding."""
    latent = tf.constant(kernel, tf.float64)
    value = signed(latent)
    # In a channel of equal weights, each is 0 / 0 when divided by their deviation.
    values = np.nan_to_num(value.numpy())
    zeros = int(np.count_nonzero(values == 0))
    if value is latent:
        # The sign of the number itself, which no rounding changes.
        return zeros, 0
    close = np.count_nonzero(np.abs(values) <= 1e-6 * np.abs(values).mean(axis=tuple(range(values.ndim - 1))))
    return zeros, int(close) - zeros
