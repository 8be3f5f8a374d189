"""One flatbuffer against one Keras model, value by value: the steps of `larq_rep.converters.verify`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from larq_rep.converters import executor, lce, matching, quantized
from larq_rep.converters.audit import meant_binary
from larq_rep.converters.flatbuffer import Flatbuffer, Operator
from larq_rep.converters.graph import FrozenGraph, Sign, Site, constant_value, resolve
from larq_rep.converters.inputs import IncomparableError, taken

# Allowed difference in front of a sign and at an output, as a share of the magnitude that `_magnitude` explains.
# Correct conversions of the zoo were seen to stay below 1e-6.
TOLERANCE = 4e-6
# The same at an output, as a share of its largest value; correct conversions were seen to stay below 1e-5.
OUTPUT_TOLERANCE = 5e-5
# The same between an operator of LCE and its definition, whose order of operations is known.
OPERATOR_TOLERANCE = 2e-6
_LARGEST = float(np.finfo(np.float32).max)
_SATURATING = {"Softmax": "SOFTMAX", "Sigmoid": "LOGISTIC", "Tanh": "TANH"}
_CLIPS = ("ClipByValue", "Maximum", "Minimum", "Relu", "Relu6")


@dataclass(frozen=True)
class Difference:
    """A place where file and model differ.

    # Attributes
        stage: `"weights"`, `"operator"`, `"sign"`, `"quantization"`, `"threshold"`, `"output"`, `"structure"` or
            `"delegate"`.
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
class Engine:
    """What was proved for an engine that runs the file.

    # Attributes
        version: Version of the engine.
        implementation: Its kernel or instruction set.
        images: Images on which it was compared.
        operators: Operators whose results were compared bit by bit: those of LCE and, for the delegate, the exact ones
            around them that it takes over.
        bit_equal: Whether all of these gave the same bits: LCE's interpreter as the operators' definition in numpy
            (real-valued results equal to rounding), the delegate as LCE's interpreter.
        output_error: Largest difference of an output, as a share of its largest value: LCE's interpreter against the
            model, the delegate against LCE's interpreter.
        turned: Images on which the rounding of a real-valued operator, which is TFLite's, turned a sign or an integer
            of 8 bits, so that the outputs say nothing (for LCE, whose values the model is given, always 0).
    """

    version: str
    implementation: str
    images: int = 0
    operators: int = 0
    bit_equal: bool = True
    output_error: float = 0.0
    turned: int = 0


@dataclass
class Verification:
    """The outcome of `verify`.

    # Attributes
        convolutions: Binary convolutions compared.
        images: Images (or whatever the model takes) on which everything was compared.
        activations: Binary activations compared, over all these images.
        flips: How many of them differ in sign between the forced Keras run and LCE, all of them within rounding
            of zero if the file is right.
        sign_error: Largest difference in front of a sign, as a share of the magnitude of the sums behind it.
        output_error: Largest difference of an output, as a share of its largest value.
        predict_error: The same of an ordinary run of the model, in which the flipped activations have the model's
            signs: what `model.predict` differs by, although the file is right.
        engines: What was proved for each engine, by its name: `"lce"`, LCE's interpreter, and `"delegate"`, whose
            reference is LCE's interpreter.
        differences: What is wrong, in the order of execution; empty if the file is right.
        notes: What could not be compared, and what looks wrong and is not.
    """

    convolutions: int = 0
    images: int = 0
    activations: int = 0
    flips: int = 0
    sign_error: float = 0.0
    output_error: float = 0.0
    predict_error: float = 0.0
    engines: dict[str, Engine] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.differences

    def to_dict(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}


class Comparison:
    """One file against one model; the methods of `verify`'s steps share what they know of both.

    # Arguments
        graph, model: The model, twice.
        flatbuffer: The file.
        watch: Tensors of the file that `run` gives the values of besides those that are compared here.
    """

    def __init__(self, graph: FrozenGraph, model: tf.keras.Model, flatbuffer: Flatbuffer, watch: Iterable[int] = ()):
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
        self.stored: dict[str, int] = {}  # name of a fake quantizer's output -> tensor of integers of the file
        self.fake = {node.outputs[0].name: node for node in quantized.fake_quantizers(graph)}
        # Layers whose sums of exactly 0 LCE's correction of zero padding turned negative, and what turned in all.
        self.turned_at_border: dict[str, int] = {}
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
        # Integers that stand for real numbers; those that the model rounds, too, are found by their values.
        self.integers = [
            t
            for t in sorted({*flatbuffer.inputs, *flatbuffer.producers})
            if self.fake and quantized.quantization(flatbuffer, t) is not None
        ]
        computed = {t for op in self.lce_operators for t in (op.inputs[0], *op.outputs)}
        computed |= {tensor for _, tensor in self.outputs} | {*self.integers, *quantized.summed(flatbuffer), *watch}
        self.watched = sorted(computed)
        self.interpreter = lce.any_interpreter(flatbuffer.with_outputs(self.watched))
        grouped = any(op.name == "LceBconv2d" and matching.groups(flatbuffer, op) > 1 for op in self.lce_operators)
        self.engine = Engine(lce.version(), "indirect kernel" if grouped else "default kernel")
        self.result.engines["lce"] = self.engine

    def check_interfaces(self) -> None:
        for what, theirs, ours in (
            ("input", self.flatbuffer.inputs, self.graph.inputs),
            ("output", self.flatbuffer.outputs, self.graph.outputs),
        ):
            found = [self.flatbuffer.shape(t) for t in theirs]
            expected = [tuple(x.shape.as_list()) for x in ours]
            if len(found) != len(expected) or not all(map(_fits, found, expected)):
                raise IncomparableError(
                    f"The file has {what} shapes {found}, the model {expected}: it was made from another network."
                )
        for tensor, x in zip(self.flatbuffer.inputs, self.graph.inputs, strict=True):
            stored = x.dtype.is_floating and quantized.quantization(self.flatbuffer, tensor) is not None
            if self.flatbuffer.dtype(tensor) != x.dtype.name and not stored:
                raise IncomparableError(
                    f"The file takes {self.flatbuffer.dtype(tensor)}, the model {x.dtype.name}: it was made from "
                    "another network."
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

    def assign_signs(self, inputs: Sequence[np.ndarray]) -> None:
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
        values = self.run(inputs)
        _, for_model = taken(inputs, self.flatbuffer)
        self._assign_stored(for_model, values)
        for _ in range(len(self.bits)):
            before = self._forced(for_model, values)
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

    def run(self, inputs: Sequence[np.ndarray]) -> dict[int, np.ndarray]:
        """The values of all watched tensors of the file in LCE's interpreter."""
        values = self.interpreter.interpreter.predict(taken(inputs, self.flatbuffer)[0])
        return dict(zip(self.watched, values, strict=True))

    def _assign_stored(self, inputs: list[np.ndarray], values: dict[int, np.ndarray]) -> None:
        """Finds the integers that each fake quantizer of the model became, one after the other, by their values."""
        for name, node in self.fake.items():
            expected = self._forced(inputs, values, [node.outputs[0]])[name]
            apart = {}
            for t in self.integers:
                if values[t].size == expected.size:
                    found = quantized.real(self.flatbuffer, t, values[t]).reshape(expected.shape)
                    apart[t] = float(np.abs(found - expected).mean())
            if apart:
                self.stored[name] = min(apart, key=lambda t: apart[t])
            else:
                self.result.notes.append(f"{self.graph.layer_of(node)}: its rounding stayed out of the file")

    def _forced(
        self, inputs: list[np.ndarray], values: dict[int, np.ndarray], wanted: Sequence[tf.Tensor] = ()
    ) -> dict[str, np.ndarray]:
        """The model's values in front of each sign, and its outputs, with LCE's bits for every sign.

        Where the model rounds and the file holds the integers, their values go on; what is in front of the rounding is
        returned by the name of its tensor, as are the values of the `wanted` tensors.
        """
        feeds: dict[tf.Tensor, np.ndarray] = dict(zip(self.graph.inputs, inputs, strict=True))
        for name, tensor in self.stored.items():
            output = self.fake[name].outputs[0]
            feeds[output] = quantized.real(self.flatbuffer, tensor, values[tensor]).reshape(output.shape)
        for name, tensor in self.bits.items():
            output = self.signs[name].output
            feeds[output] = matching.unpack(values[tensor], output.shape[-1]).astype(output.dtype.as_numpy_dtype)
        signs = [self.signs[name] for name in self.bits]
        sums = self.graph.run([site.node.outputs[0] for site, _, _ in self.exact], {**feeds, **self.plain})
        for (site, _, scale), y in zip(self.exact, sums, strict=True):
            feeds[site.node.outputs[0]] = y * scale
        shifted = [s.threshold for s in signs if s.threshold is not None]
        fronts = [self.fake[name].inputs[0] for name in self.stored]
        returned = [*fronts, *wanted, *(output for output, _ in self.outputs)]
        fetches = [*(s.compared for s in signs), *returned, *shifted, *(x for x, _ in self.large)]
        fetched = dict(zip((x.name for x in fetches), self.graph.run(fetches, feeds), strict=True))
        result = {x.name: fetched[x.name] for x in returned}
        for sign in signs:
            threshold = np.float32(0) if sign.threshold is None else fetched[sign.threshold.name]
            value = fetched[sign.compared.name] - threshold
            result[sign.output.name] = -value if sign.negated else value
        self.peaks = [gain * float(np.abs(fetched[x.name]).max()) for x, gain in self.large]
        return result

    def compare_image(self, index: int, inputs: Sequence[np.ndarray], values: dict[int, np.ndarray]) -> None:
        self.result.images += 1
        self.engine.images += 1
        self._compare_operators(index, values)
        if any(d.stage == "weights" for d in self.result.differences):
            return  # nothing would agree behind other weights, and these are reported
        _, for_model = taken(inputs, self.flatbuffer)
        forced = self._forced(for_model, values)
        known = {*self.stored.values(), *self.bits.values()}

        def noise(tensor: int) -> float:
            return quantized.noise(self.flatbuffer, tensor, known, values) if self.integers else 0.0

        for name, tensor in self.stored.items():
            self._compare_stored(index, self.fake[name], tensor, forced, values, noise(tensor))
        flips = self.result.flips
        for name, tensor in self.bits.items():
            source = self.flatbuffer.producers[tensor].inputs[0]
            self._compare_sign(index, self.signs[name], tensor, forced[name], values, noise(source))
        for output, tensor in self.outputs:
            found = quantized.real(self.flatbuffer, tensor, values[tensor])
            error, where = _error(found, forced[output.name])
            self.result.output_error = self.engine.output_error = max(self.result.output_error, error)
            rounding = noise(tensor) / (float(np.abs(forced[output.name]).max()) or 1.0) if self.integers else 0.0
            if not error <= OUTPUT_TOLERANCE + rounding:
                self._differ(
                    "output",
                    self.graph.layer_of(resolve(output).op),
                    -1,
                    f"model {_at(forced[output.name], where)}, file {_at(found, where)} at {where[1:]}, made "
                    f"since the last sign by {self._upstream(output)}",
                    index,
                )
        if self.result.flips > flips or self.stored:
            free = self.graph.run(self.graph.outputs, dict(zip(self.graph.inputs, for_model, strict=True)))
            files = [quantized.real(self.flatbuffer, t, values[t]) for t in self.flatbuffer.outputs]
            apart = max(_error(a, b)[0] for a, b in zip(files, free, strict=True))
            self.result.predict_error = max(self.result.predict_error, apart)

    def explain_flips(self) -> None:
        """Says why `model.predict` gives something else than a file that is right."""
        if not self.result.ok or not self.result.predict_error > OUTPUT_TOLERANCE:
            return
        if not self.result.flips:
            self.result.notes.append(
                f"model.predict differs from the file by up to {self.result.predict_error:.1%} of the largest output, "
                "and the file is right: LCE computes with integers of 8 bits, weights too, where the model rounds real "
                "numbers. With the file's own integers they agree."
            )
            return
        count = sum(self.turned_at_border.values())
        reason = "0 up to rounding in front of their sign, which the file rounds to the other side"
        if count == self.result.flips:
            reason = (
                "sums of exactly 0 at the zero-padded border of "
                f"{', '.join(self.turned_at_border)}, which LCE's correction of the padding rounds to a number below 0 "
                "(training moves sums away from 0; pad_values=1 needs no correction)"
            )
        elif count:
            reason += (
                f" ({count} of them sums of exactly 0 at the zero-padded border of {', '.join(self.turned_at_border)}, "
                "rounded by LCE's correction of the padding)"
            )
        self.result.notes.append(
            f"model.predict differs from the file by up to {self.result.predict_error:.1%} of the largest output, and "
            f"the file is right: {self.result.flips} of {self.result.activations:,} activations are {reason}. Each "
            "changes all that follows; with the file's own signs the outputs agree."
        )

    def _compare_stored(
        self,
        index: int,
        node: tf.Operation,
        tensor: int,
        forced: dict[str, np.ndarray],
        values: dict[int, np.ndarray],
        noise: float,
    ) -> None:
        """The integers of the file against what the model is about to round."""
        expected = quantized.in_range(self.flatbuffer, tensor, forced[node.inputs[0].name])
        found = quantized.real(self.flatbuffer, tensor, values[tensor]).reshape(expected.shape)
        error, where = _error(found, expected, 1.0)
        largest = self._magnitude(node.inputs[0]) + float(np.abs(expected).max())
        if tensor in self.flatbuffer.inputs or error <= noise + TOLERANCE * largest:  # false for NaN
            return
        producer = self.flatbuffer.producers[tensor]
        self._differ(
            "quantization",
            self.graph.layer_of(node),
            producer.index,
            f"in front of its rounding the model has {_at(expected, where)}, the file {_at(found, where)} at "
            f"{tuple(int(i) for i in where[1:])}, where rounding explains {noise:.2g}, computed since the last "
            f"comparison by {self._upstream(node.inputs[0])}",
            index,
        )

    def _compare_operators(self, index: int, values: dict[int, np.ndarray]) -> None:
        """Every LCE operator against numpy."""
        compared = 0
        for op in self.lce_operators:
            source, result = values[op.inputs[0]], values[op.outputs[0]]
            if op.name == "LceBconv2d":
                expected = executor.bconv2d(self.flatbuffer, op, source)
            elif op.name == "LceQuantize":
                expected = executor.quantize(_signed(source, quantized.quantization(self.flatbuffer, op.inputs[0])))
            elif op.name == "LceBMaxPool2d":
                expected = executor.max_pool(source, op.options)
            else:
                continue
            compared += 1
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
                self.engine.bit_equal = False
        self.engine.operators = compared

    def _compare_sign(
        self,
        index: int,
        sign: Sign,
        tensor: int,
        expected: np.ndarray,
        values: dict[int, np.ndarray],
        noise: float,
    ) -> None:
        producer = self.flatbuffer.producers[tensor]
        magnitude = self._magnitude(sign.compared) + float(np.abs(expected).max()) + noise / TOLERANCE
        where: tuple[int, ...]
        found: Any
        if producer.name == "LceQuantize" and values[producer.inputs[0]].dtype != np.bool_:
            found = quantized.real(self.flatbuffer, producer.inputs[0], values[producer.inputs[0]])
            found = -found if sign.negated else found
            error, where = _error(found, expected, magnitude)
            if not error <= TOLERANCE:
                error, where = min((error, where), _error(_rescaled(found, expected), expected, magnitude))
            self.result.sign_error = max(self.result.sign_error, error)
            wrong = not error <= TOLERANCE
        else:
            found, wrong, where = None, False, ()
        negative = matching.unpack(values[tensor], expected.shape[-1]) < 0
        flipped = ((expected < 0) | ((expected == 0) & (not sign.positive_at_zero))) != negative
        self.result.activations += flipped.size
        self.result.flips += int(flipped.sum())
        if exact := int(np.sum(flipped & (expected == 0))):
            self._note_border(sign, exact)
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

    def _note_border(self, sign: Sign, turned: int) -> None:
        """Remembers sums of exactly 0 that turned, if a zero-padded convolution computes them."""
        for node in self._behind(sign.compared, self.compared):
            op = self.operators.get(node.name)
            if op is not None and op.options["padding"] == 0 and op.options["pad_values"] == 0:
                layer = self.layers[op.index]
                self.turned_at_border[layer] = self.turned_at_border.get(layer, 0) + turned
                return

    # Integer thresholds

    def compare_thresholds(self, inputs: Sequence[np.ndarray]) -> None:
        """The integer threshold of each channel against the model's own sign on both sides of it.

        Between a convolution of packed output and its sign a model has functions of one channel only, batch
        normalisations and activations that rise or fall, so the sign as a function of the popcount changes once at
        most. The model is run from the convolution on, with the sum of the same popcount everywhere.
        """
        _, for_model = taken(inputs, self.flatbuffer)
        feeds = dict(zip(self.graph.inputs, for_model, strict=True))
        for name, tensor in self.bits.items():
            op = self.flatbuffer.producers[tensor]
            while op.name == "LceBMaxPool2d":
                op = self.flatbuffer.producers[op.inputs[0]]
            threshold = self.flatbuffer.constant(op.inputs[4]) if op.name == "LceBconv2d" else None
            if threshold is None:
                continue
            sign = self.signs[name]
            behind = {node.name for node in self._behind(sign.compared, set())}
            position = next(
                (i for i, o in self.match.pairs.items() if o is op and self.sites[i].node.name in behind), None
            )
            if position is not None:
                self._compare_threshold(sign, position, op, threshold, feeds)

    def _compare_threshold(
        self, sign: Sign, position: int, op: Operator, threshold: np.ndarray, feeds: dict[tf.Tensor, np.ndarray]
    ) -> None:
        site, kernel = self.sites[position], self.kernels[position]
        filters = matching.filter_signs(self.flatbuffer, op)
        count = int(np.prod(filters.shape[:3]))
        # The converter negates the filters of channels with a negative factor.
        scale = np.where(kernel < 0, -1, 1)[0, 0, 0] * filters[0, 0, 0] * np.abs(kernel).mean(axis=(0, 1, 2))

        def signed(popcounts: np.ndarray) -> np.ndarray:
            """The smallest and the largest value in front of the sign, by channel."""
            sums = (scale * (count - 2 * popcounts)).astype(kernel.dtype)
            node = site.node.outputs[0]
            tensors = [sign.compared, *([] if sign.threshold is None else [sign.threshold])]
            value, *shift = self.graph.run(tensors, {**feeds, node: np.broadcast_to(sums, node.shape)})
            value = (value - shift[0] if shift else value).reshape(-1, len(threshold))
            return np.stack([value.min(axis=0), value.max(axis=0)]) * (-1 if sign.negated else 1)

        last = np.clip(threshold.astype(np.int64), -1, count)  # the largest popcount that gives +1
        points = [
            np.clip(p, 0, count)
            for p in (
                last,
                last + 1,
                np.zeros_like(last),
                np.full_like(last, count),
                last // 2,
                (last + count + 1) // 2,
            )
        ]
        values = [signed(p) for p in points]
        tolerance = TOLERANCE * max(float(np.abs(v).max()) for v in values)
        wrong = np.zeros(len(threshold), bool)
        for p, v in zip(points, values, strict=True):
            positive = p <= last
            wrong |= np.where(positive, v.min(axis=0) < -tolerance, v.max(axis=0) > tolerance)
        if not wrong.any():
            return
        low, high = np.full_like(last, -1), np.full_like(last, count + 1)
        while np.any(high - low > 1):
            middle = (low + high) // 2
            positive = signed(np.clip(middle, 0, count)).min(axis=0) >= 0
            low, high = np.where(positive, middle, low), np.where(positive, high, middle)
        channel = int(np.argmax(wrong))
        turns = f"turns negative above a popcount of {low[channel]}" if low[channel] < count else "is never negative"
        self._differ(
            "threshold",
            self.layers.get(op.index, op.name),
            op.index,
            f"channel {channel} of the model {turns if low[channel] >= 0 else 'is always negative'} (of {count}), the "
            f"file's threshold is {threshold[channel]}",
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
        """The nodes that a tensor is computed by, back to what the file's values replace and those named in `stop`."""
        signs = {self.signs[name].output.op.name for name in self.bits}
        stop = stop | {self.fake[name].name for name in self.stored}
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


def _fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    return len(shape) == len(expected) and all(b in (a, None) for a, b in zip(shape, expected, strict=True))


def _signed(values: np.ndarray, stands: tuple[float, int] | None) -> np.ndarray:
    """Numbers of the sign that LceQuantize gives to a tensor's elements."""
    if values.dtype == np.bool_:
        return np.where(values, 1, -1)
    return values if stands is None else values.astype(np.int32) - stands[1]


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
    # An overflow is the largest number for some engines.
    found, expected = (np.clip(x.astype(np.float64), -_LARGEST, _LARGEST) for x in (found, expected))
    difference = np.abs(found - expected)
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
