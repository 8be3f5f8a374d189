"""One flatbuffer against one Keras model, value by value: the steps of `larq_rep.converters.verify`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from larq_rep.converters import executor, lce, matching
from larq_rep.converters.audit import meant_binary
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.converters.graph import FrozenGraph, Sign, Site, constant_value, resolve

# Allowed difference in front of a sign and at an output, as a share of the magnitude that `_magnitude` explains.
# Correct conversions of the zoo were seen to stay below 1e-6.
TOLERANCE = 4e-6
# The same at an output, as a share of its largest value; correct conversions were seen to stay below 1e-5.
OUTPUT_TOLERANCE = 5e-5
# The same between an operator of LCE and its definition, whose order of operations is known.
OPERATOR_TOLERANCE = 2e-6
_SATURATING = {"Softmax": "SOFTMAX", "Sigmoid": "LOGISTIC", "Tanh": "TANH"}
_CLIPS = ("ClipByValue", "Maximum", "Minimum", "Relu", "Relu6")


class IncomparableError(ValueError):
    """A file and a model, or images, that do not belong together."""


@dataclass(frozen=True)
class Difference:
    """A place where file and model differ.

    # Attributes
        stage: `"weights"`, `"operator"`, `"sign"`, `"threshold"`, `"output"` or `"structure"`.
        layer: Keras layer.
        operator: Index of the operator in the file; -1 for the outputs.
        message: What was expected and found, and where.
        image: Index of the image that shows it, if it takes one.
    """

    stage: str
    layer: str
    operator: int
    message: str
    image: int | None = None

    def __str__(self) -> str:
        return f"{self.stage}: {self.layer}: {self.message}"


@dataclass
class Verification:
    """The outcome of `verify`.

    # Attributes
        convolutions: Binary convolutions compared.
        images: Images on which everything was compared.
        activations: Binary activations compared, over all these images.
        flips: How many of them differ in sign between the forced Keras run and LCE, all of them within rounding
            of zero if the file is right.
        sign_error: Largest difference in front of a sign, as a share of the magnitude of the sums behind it.
        output_error: Largest difference of an output, as a share of its largest value.
        differences: What is wrong, in the order of execution; empty if the file is right.
        notes: What could not be compared.
    """

    convolutions: int = 0
    images: int = 0
    activations: int = 0
    flips: int = 0
    sign_error: float = 0.0
    output_error: float = 0.0
    differences: list[Difference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.differences

    def to_dict(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}


class Comparison:
    """One file against one model; the methods of `verify`'s steps share what they know of both."""

    def __init__(self, graph: FrozenGraph, model: tf.keras.Model, flatbuffer: Flatbuffer):
        self.graph, self.flatbuffer = graph, flatbuffer
        self.result = Verification()
        sites, kernels = meant_binary(model, graph)
        keep = [i for i, site in enumerate(sites) if site.kind == "convolution"]
        self.sites: list[Site] = [sites[i] for i in keep]
        self.kernels: list[np.ndarray] = [kernels[i] for i in keep]
        self.match = matching.match(self.kernels, flatbuffer)
        self.bits: dict[str, int] = {}  # name of a sign's output -> packed tensor of the file
        self.signs = {sign.output.name: sign for sign in graph.signs}
        self.lce_operators = [op for op in flatbuffer.operators if op.name.startswith("Lce")]
        # popcounts and model values by operator, for the thresholds
        self.samples: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
        self.layers = {op.index: self.sites[i].layer for i, op in self.match.pairs.items()}
        self.operators = {self.sites[i].node.name: op for i, op in self.match.pairs.items()}
        # Where the value in front of a sign also goes on as a shortcut, it has been compared there.
        compared = {resolve(sign.compared).op for sign in graph.signs}
        self.compared = {op.name for op in compared} | {_unshifted(op).name for op in compared}
        self.weighted = {layer.name for layer in model.submodules if getattr(layer, "weights", None)}
        # Tensors whose rounding is larger than what comes out behind them, and what they are multiplied with.
        self.large = [(x, 1.0) for node in graph.nodes if node.type in _CLIPS for x in node.inputs[:1]]
        norms = [node for node in graph.nodes if node.type.startswith("FusedBatchNorm")]
        constants = iter(graph.run([x for node in norms for x in (node.inputs[1], node.inputs[4])]))
        for node in norms:
            gamma, variance = next(constants), next(constants)
            if resolve(node.inputs[0]).op.name not in self.operators and variance.size:
                gain = np.abs(gamma) / np.sqrt(variance + node.get_attr("epsilon"))
                self.large.append((node.inputs[0], float(gain.max(initial=0.0))))
        self.sums: dict[str, tuple[float, set[int]]] = {}
        # Sums of thousands of ±s round by more than is allowed below; sums of ±1 are exact, and s comes after.
        self.exact = [
            (site, signs, scale)
            for site, kernel in zip(self.sites, self.kernels, strict=True)
            if graph.sign_of(site.x) is not None and (scale := _scale(kernel)) is not None
            for signs in [np.where(kernel < 0, -1, 1).astype(kernel.dtype)]
        ]
        self.plain = {site.kernel: signs for site, signs, _ in self.exact}
        # What an output activation saturates is compared in front of it, too.
        self.outputs = list(zip(graph.outputs, flatbuffer.outputs, strict=False))
        for output, tensor in tuple(self.outputs):
            node, producer = resolve(output).op, flatbuffer.producers.get(tensor)
            if producer is not None and _SATURATING.get(node.type) == producer.name:
                self.outputs.append((node.inputs[0], producer.inputs[0]))
        watched = {t for op in self.lce_operators for t in (op.inputs[0], *op.outputs)}
        self.watched = sorted(watched | {tensor for _, tensor in self.outputs})
        self.interpreter = lce.any_interpreter(flatbuffer.with_outputs(self.watched))

    def check_interfaces(self, images: np.ndarray) -> None:
        def shapes(tensors: list[int]) -> list[tuple[int, ...]]:
            return [self.flatbuffer.shape(t)[1:] for t in tensors]

        for what, theirs, ours in (
            ("input", shapes(self.flatbuffer.inputs), [tuple(x.shape[1:]) for x in self.graph.inputs]),
            ("output", shapes(self.flatbuffer.outputs), [tuple(y.shape[1:]) for y in self.graph.outputs]),
        ):
            if theirs != ours:
                raise IncomparableError(
                    f"The file has {what} shapes {theirs}, the model {ours}: it was made from another network."
                )
        if len(self.graph.inputs) != 1:
            raise IncomparableError(f"Expected a model of one input, found {len(self.graph.inputs)}.")
        if self.graph.inputs[0].shape[0] != 1 or self.graph.inputs[0].dtype != tf.float32:
            raise IncomparableError(
                "Expected a model of float32 images with a free batch size or that of 1, found "
                f"{self.graph.inputs[0].dtype.name} and {self.graph.inputs[0].shape[0]}."
            )
        if images.ndim != 4 or images.shape[1:] != tuple(self.graph.inputs[0].shape[1:]) or not len(images):
            raise IncomparableError(
                f"Expected images of shape (N, {', '.join(map(str, self.graph.inputs[0].shape[1:]))}), found "
                f"{images.shape}."
            )

    # Weights

    def compare_weights(self) -> None:
        self.result.convolutions = len(self.match.pairs)
        left_over = list(self.match.left_over)
        for i in self.match.unmatched:
            site = self.sites[i]
            found = matching.nearest(self.kernels[i], left_over, self.flatbuffer)
            if found is None and matching.stayed_float(self.kernels[i], self.flatbuffer):
                self.result.notes.append(f"{site.layer}: stayed float; its outputs were compared, not its weights")
                continue
            if found is None:
                self._differ("weights", site.layer, 0, "the file holds no convolution with these weights")
                continue
            op, where = found
            left_over.remove(op)
            h, w, c, o = where[0]
            self._differ(
                "weights",
                site.layer,
                op.index,
                f"{len(where)} of {self.kernels[i].size} binary weights differ from operator {op.index}, the first at "
                f"row {h}, column {w}, input channel {c}, output channel {o}",
            )
        for op in left_over:
            self._differ("weights", "-", op.index, "the file holds a binary convolution that the model does not have")

    # Which packed tensor belongs to which sign

    def assign_signs(self, image: np.ndarray) -> None:
        """Finds the packed tensor of every sign: through the convolution it feeds, else by what it carries."""
        choices: dict[str, list[int]] = {}
        for i, site in enumerate(self.sites):
            sign = self.graph.sign_of(site.x)
            if i not in self.match.pairs:
                continue
            if sign is None:
                self.result.notes.append(f"{site.layer}: its sign has an unknown form and was not forced")
                continue
            self.bits.setdefault(sign.output.name, self.match.pairs[i].inputs[0])
            choices.setdefault(sign.output.name, []).extend(op.inputs[0] for op in self.match.alternatives[i])
        free = [op.outputs[0] for op in self.lce_operators if self.flatbuffer.dtype(op.outputs[0]) == "int32"]
        for sign in self.graph.signs:
            name = sign.output.name
            if name not in self.bits:
                fitting = [t for t in free if self._unpacked_shape(t, sign) == tuple(sign.output.shape)]
                unused = [t for t in fitting if t not in self.bits.values()]
                if not fitting:
                    self.result.notes.append(f"{self.graph.layer_of(sign.output.op)}: this sign stayed float")
                    continue
                self.bits[name] = (unused or fitting)[0]
                choices[name] = fitting
        # Layers with equal weights can be told apart only by their data: mend the first bad pairing until none is.
        values = self._interpret(image)
        for _ in range(len(self.bits)):
            before = self._forced(image, values)
            for name in self.bits:
                wrong = {t: self._disagreement(name, t, before, values) for t in {self.bits[name], *choices[name]}}
                best = min(wrong, key=lambda t: wrong[t])
                if wrong[best] < wrong[self.bits[name]]:
                    self.bits[name] = best
                    break
            else:
                return

    def _unpacked_shape(self, tensor: int, sign: Sign) -> tuple[int, ...]:
        *rest, words = self.flatbuffer.shape(tensor)
        channels = sign.output.shape[-1]
        return (*rest, channels if words == -(-channels // 32) else -1)

    def _disagreement(
        self, name: str, tensor: int, before: dict[str, np.ndarray], values: dict[int, np.ndarray]
    ) -> int:
        wanted = before[name] < 0
        if self._unpacked_shape(tensor, self.signs[name]) != wanted.shape:
            return wanted.size + 1
        return int(np.sum(wanted != (matching.unpack(values[tensor], wanted.shape[-1]) < 0)))

    # What flows through both

    def _interpret(self, image: np.ndarray) -> dict[int, np.ndarray]:
        values = self.interpreter.interpreter.predict([np.ascontiguousarray(image, np.float32)])
        return dict(zip(self.watched, values, strict=True))

    def _forced(self, image: np.ndarray, values: dict[int, np.ndarray]) -> dict[str, np.ndarray]:
        """The model's values in front of each sign, and its outputs, with LCE's bits for every sign."""
        feeds: dict[tf.Tensor, np.ndarray] = {self.graph.inputs[0]: image}
        for name, tensor in self.bits.items():
            output = self.signs[name].output
            feeds[output] = matching.unpack(values[tensor], output.shape[-1]).astype(output.dtype.as_numpy_dtype)
        signs = [self.signs[name] for name in self.bits]
        sums = self.graph.run([site.node.outputs[0] for site, _, _ in self.exact], {**feeds, **self.plain})
        for (site, _, scale), y in zip(self.exact, sums, strict=True):
            feeds[site.node.outputs[0]] = y * scale
        shifted = [s.threshold for s in signs if s.threshold is not None]
        wanted = [
            *(s.compared for s in signs),
            *(output for output, _ in self.outputs),
            *shifted,
            *(x for x, _ in self.large),
        ]
        fetched = dict(zip((x.name for x in wanted), self.graph.run(wanted, feeds), strict=True))
        result = {}
        for sign in signs:
            threshold = np.float32(0) if sign.threshold is None else fetched[sign.threshold.name]
            value = fetched[sign.compared.name] - threshold
            result[sign.output.name] = -value if sign.negated else value
        for output, _ in self.outputs:
            result[output.name] = fetched[output.name]
        self.peaks = [gain * float(np.abs(fetched[x.name]).max()) for x, gain in self.large]
        return result

    def compare_image(self, index: int, image: np.ndarray) -> None:
        values = self._interpret(image)
        self.result.images += 1
        popcounts = self._compare_operators(index, values)
        if any(d.stage == "weights" for d in self.result.differences):
            return  # nothing would agree behind other weights, and these are reported
        forced = self._forced(image, values)
        for name, tensor in self.bits.items():
            self._compare_sign(index, self.signs[name], tensor, forced[name], values, popcounts)
        for output, tensor in self.outputs:
            error, where = _error(values[tensor], forced[output.name])
            self.result.output_error = max(self.result.output_error, error)
            if not error <= OUTPUT_TOLERANCE:
                self._differ(
                    "output",
                    self.graph.layer_of(resolve(output).op),
                    -1,
                    f"model {_at(forced[output.name], where)}, file {_at(values[tensor], where)} at {where[1:]}, made "
                    f"since the last sign by {self._upstream(output)}",
                    index,
                )

    def _compare_operators(self, index: int, values: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
        """Every LCE operator against numpy; returns the popcounts by packed output, for the thresholds."""
        popcounts: dict[int, np.ndarray] = {}
        for op in self.lce_operators:
            source, result = values[op.inputs[0]], values[op.outputs[0]]
            if op.name == "LceBconv2d":
                expected = executor.bconv2d(self.flatbuffer, op, source)
                if result.dtype == np.int32:
                    popcounts[op.outputs[0]] = executor.accumulators(self.flatbuffer, op, source)[0]
            elif op.name == "LceQuantize" and source.dtype == np.float32:
                expected = executor.quantize(source)
            elif op.name == "LceBMaxPool2d":
                expected = executor.max_pool(source, op.options)
                if op.inputs[0] in popcounts:
                    # The value falls with the popcount, so its maximum is at the smallest one.
                    popcounts[op.outputs[0]] = executor.pool(popcounts[op.inputs[0]], op.options, np.minimum)
            else:
                continue
            if result.dtype == np.float32:
                error, where = _error(result, expected)
                wrong = not error <= OPERATOR_TOLERANCE
            else:
                different = np.argwhere(result != expected)
                wrong, where = len(different) > 0, tuple(different[0]) if len(different) else ()
            if wrong:
                self._differ(
                    "operator",
                    self.layers.get(op.index, op.name),
                    op.index,
                    f"{op.name} gives {_at(result, where)} where its definition gives {_at(expected, where)}, at "
                    f"{tuple(int(i) for i in where[1:])}",
                    index,
                )
        return popcounts

    def _compare_sign(
        self,
        index: int,
        sign: Sign,
        tensor: int,
        expected: np.ndarray,
        values: dict[int, np.ndarray],
        popcounts: dict[int, np.ndarray],
    ) -> None:
        producer = self.flatbuffer.producers[tensor]
        magnitude = self._magnitude(sign.compared) + float(np.abs(expected).max())
        where: tuple[int, ...]
        found: Any
        if producer.name == "LceQuantize" and values[producer.inputs[0]].dtype == np.float32:
            found = values[producer.inputs[0]]
            found = -found if sign.negated else found
            error, where = _error(found, expected, magnitude)
            if not error <= TOLERANCE:
                error, where = min((error, where), _error(_rescaled(found, expected), expected, magnitude))
            self.result.sign_error = max(self.result.sign_error, error)
            wrong = not error <= TOLERANCE
        else:
            found, wrong, where = None, False, ()
            if tensor in popcounts:
                self.samples.setdefault(tensor, []).append((popcounts[tensor], expected))
        negative = matching.unpack(values[tensor], expected.shape[-1]) < 0
        flipped = ((expected < 0) | ((expected == 0) & (not sign.positive_at_zero))) != negative
        self.result.activations += flipped.size
        self.result.flips += int(flipped.sum())
        if not wrong and found is not None and np.any(tie := flipped & (expected == 0) & (found == 0)):
            wrong, where = True, tuple(int(i) for i in np.argwhere(tie)[0])
        if not wrong and flipped.any():
            size = np.where(flipped, np.abs(expected), 0)
            where = tuple(int(i) for i in np.unravel_index(int(np.argmax(size)), size.shape))
            wrong = bool(size[where] > TOLERANCE * magnitude)
        if wrong:
            value = "-1" if found is None and negative[where] else "+1" if found is None else _at(found, where)
            self._differ(
                "sign",
                ", ".join(site.layer for site in self.sites if self.graph.sign_of(site.x) is sign)
                or self.graph.layer_of(sign.output.op),
                producer.index,
                f"in front of its sign the model has {_at(expected, where)}, the file {value} at "
                f"{tuple(int(i) for i in where[1:])}, computed since the last comparison by "
                f"{self._upstream(sign.compared)}",
                index,
            )

    # Integer thresholds

    def compare_thresholds(self) -> None:
        """The integer threshold of each channel against the zero of the model's value over the popcount."""
        for tensor, samples in self.samples.items():
            op = self.flatbuffer.producers[tensor]
            while op.name == "LceBMaxPool2d":
                op = self.flatbuffer.producers[op.inputs[0]]
            threshold = self.flatbuffer.constant(op.inputs[4])
            assert threshold is not None
            channels = len(threshold)
            acc = np.concatenate([a.reshape(-1, channels) for a, _ in samples]).astype(np.float64)
            value = np.concatenate([v.reshape(-1, channels) for _, v in samples]).astype(np.float64)
            count = int(np.prod(matching.filter_signs(self.flatbuffer, op).shape[:3]))
            tolerance = TOLERANCE * np.abs(value).max()
            unseen = 0
            for channel in range(channels):
                line = _line(acc[:, channel], value[:, channel], tolerance)
                if line is None:
                    unseen += 1
                    continue
                slope, offset = line
                last = int(np.clip(threshold[channel], -1, count))  # the largest popcount that gives +1
                if (last >= 0 and slope * last + offset < -tolerance) or (
                    last < count and slope * (last + 1) + offset > tolerance
                ):
                    self._differ(
                        "threshold",
                        self.layers.get(op.index, op.name),
                        op.index,
                        f"channel {channel} should turn negative above a popcount of {-offset / slope:.2f}, the file's "
                        f"threshold is {threshold[channel]}",
                    )
                    break
            if unseen:
                self.result.notes.append(
                    f"{self.layers.get(op.index, op.name)}: the thresholds of {unseen} of {channels} channels were "
                    "compared on the images' own values only"
                )

    def _magnitude(self, tensor: tf.Tensor) -> float:
        """A measure of the float32 rounding behind a tensor, beside the largest value of the tensor itself.

        A sum may have been larger before it was clipped, or before a batch norm took its mean away. And LCE
        computes a binary convolution of K terms with multiplier m as m * popcount + (K * m + bias), so its rounding
        is that of K * m even where the result is small; a fifth of K * m bounds what was seen. What multiplies it
        before data is added scales it too.
        """
        if tensor.name not in self.sums:
            largest = 0.0
            behind = {node.name for node in self._behind(tensor, set())}
            for name in behind.intersection(self.operators):
                op = self.operators[name]
                if (multiplier := self.flatbuffer.constant(op.inputs[2])) is not None:
                    count = np.prod(matching.filter_signs(self.flatbuffer, op).shape[:3])
                    largest = max(largest, float(count * np.abs(multiplier).max() * self._gain(op.outputs[0])))
            self.sums[tensor.name] = 0.2 * largest, {i for i, (x, _) in enumerate(self.large) if x.op.name in behind}
        binary, large = self.sums[tensor.name]
        return binary + max((self.peaks[i] for i in large), default=0.0)

    def _gain(self, tensor: int) -> float:
        """Factor of the multiplications by constants that follow a tensor of the file."""
        readers = self.flatbuffer.consumers.get(tensor, [])
        if len(readers) != 1 or readers[0].name not in ("TILE", "MUL", "CONCATENATION"):
            return 1.0
        factor = 1.0
        if readers[0].name == "MUL":
            constants = [c for t in readers[0].inputs if (c := self.flatbuffer.constant(t)) is not None]
            if not constants:
                return 1.0
            factor = float(np.abs(constants[0]).max())
        return factor * self._gain(readers[0].outputs[0])

    def _behind(self, tensor: tf.Tensor, stop: set[str]) -> list[tf.Operation]:
        """The nodes that a tensor is computed by, back to the last signs and to the nodes named in `stop`."""
        signs = {self.signs[name].output.op.name for name in self.bits}
        found: dict[str, tf.Operation] = {}
        stack = [tensor.op]
        while stack:
            node = stack.pop()
            if node.name in found or node.name in signs or node.name not in self.graph.data_dependent:
                continue
            if node.name in stop and found:
                continue
            found[node.name] = node
            stack += [x.op for x in node.inputs]
        return list(found.values())

    def _upstream(self, tensor: tf.Tensor) -> str:
        """The layers with weights between the last compared values and a tensor."""
        own = {resolve(tensor).op.name, _unshifted(resolve(tensor).op).name}
        paths = {self.graph.layer_of(node): None for node in self._behind(tensor, self.compared - own)}
        names: dict[str, None] = {}
        for path in reversed(paths):
            parts = path.split("/")
            own_weights = [i for i, part in enumerate(parts) if part in self.weighted]
            if own_weights:
                names.setdefault("/".join(parts[: own_weights[0] + 1]))
        return ", ".join(names) or "layers without weights"

    def _differ(self, stage: str, layer: str, operator: int, message: str, image: int | None = None) -> None:
        if not any(d.stage == stage and d.layer == layer and d.operator == operator for d in self.result.differences):
            self.result.differences.append(Difference(stage, layer, operator, message, image))


def _scale(kernel: np.ndarray) -> np.ndarray | None:
    """The magnitude of each output channel's weights, if they have one."""
    magnitude = np.abs(kernel)
    scale = magnitude[0, 0, 0]
    return scale if np.all(np.abs(magnitude - scale) <= 1e-6 * scale) else None


def _unshifted(op: tf.Operation) -> tf.Operation:
    """The operation before a learned shift, or the operation itself."""
    if op.type in ("AddV2", "Add", "BiasAdd", "Sub"):
        sources = [x for x in op.inputs if constant_value(x) is None]
        if len(sources) == 1:
            return resolve(sources[0]).op
    return op


def _error(found: np.ndarray, expected: np.ndarray, magnitude: float | None = None) -> tuple[float, tuple[int, ...]]:
    """Largest difference as a share of a magnitude (the largest expected one), and where; NaN if not finite."""
    difference = np.abs(found.astype(np.float64) - expected)
    where = np.unravel_index(int(np.argmax(np.nan_to_num(difference, nan=np.inf))), difference.shape)
    magnitude = float(np.abs(expected).max()) if magnitude is None else magnitude
    return float(difference[where] / magnitude if magnitude > 0 else difference[where]), tuple(int(i) for i in where)


def _rescaled(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Values in front of a sign, each channel times the positive factor that brings it nearest to the expected ones.

    Folding leaves out what changes no sign: positive factors of a channel, and clipping to [-1, 1]. A wrong factor of
    what also goes elsewhere shows there.
    """
    axes = tuple(range(found.ndim - 1))
    clipped = bool(np.abs(expected).max() <= 1)
    found64 = found.astype(np.float64)
    counted = np.where(np.abs(expected) < 1, found64, 0) if clipped else found64
    squares = (counted**2).sum(axis=axes)
    factors = (counted * expected).sum(axis=axes) / np.where(squares > 0, squares, 1)
    # Where all values of a channel are clipped, any large factor shows that they are on the right side.
    factors = np.where(factors > 0, factors, np.where(squares > 0, 0, 1e6))
    return np.clip(found64 * factors, -1, 1) if clipped else found64 * factors


def _at(values: np.ndarray, where: tuple[int, ...]) -> str:
    return f"{values[where]:.7g}"


def _line(x: np.ndarray, y: np.ndarray, tolerance: float) -> tuple[float, float] | None:
    """Slope and offset of y over x if the points lie on one line, and there are two of them."""
    low, high = x.argmin(), x.argmax()
    if x[low] == x[high]:
        return None
    slope = (y[high] - y[low]) / (x[high] - x[low])
    offset = y[low] - slope * x[low]
    return (slope, offset) if np.abs(slope * x + offset - y).max() <= tolerance else None
