"""Compares the delegate of `larq_rep_runtime` with LCE's interpreter, and CompiledModel with LiteRT's interpreter."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from larq_rep.converters import float_weights, integer_executor, lce, quantized
from larq_rep.converters.flatbuffer import Flatbuffer, Operator
from larq_rep.converters.runtime import needed_runtime
from larq_rep.converters.verification.amplification import Amplification, is_exact
from larq_rep.converters.verification.result import Difference, Engine

if TYPE_CHECKING:
    import larq_rep_runtime

# Allowed between engines with different builds of TFLite's real-valued operators, as a share of the largest value.
_ROUNDING = 1e-5


class DelegateComparison:
    """Compares the delegate, fused and with the fastest implementation as users run it, with LCE's interpreter.

    LCE's operators and the exact ones around them must give the same bits for the same values, namely LCE's own, and
    once more with QUANTIZE and DEQUANTIZE beside them, which become part of the delegate's passes. The outputs of the
    whole file must agree up to rounding, unless the rounding of a real-valued operator, which is not the delegate's,
    turns a sign or changes an 8-bit integer to the next one.

    # Arguments
        content: The bytes of the `.tflite` file.

    # Raises
        DelegateError: If the delegate was not built or does not run the file.
        RuntimeMissingError: If `larq_rep_runtime` is not installed.
    """

    def __init__(self, content: bytes):
        expanded = content if float_weights.storage(content) == "float32" else float_weights.expand(content)[0]
        self.flatbuffer = Flatbuffer(expanded)
        part, self.inputs, self.outputs = exact_part(self.flatbuffer)
        interpreter = needed_runtime().Interpreter
        self.part, self.whole = interpreter(part), interpreter(content)
        self.borders = _IntegerBorders(self.flatbuffer)
        self.engine = Engine(
            importlib.metadata.version("larq-rep-runtime"),
            self.whole.implementation,
            operators=sum(1 for op in self.flatbuffer.operators if is_exact(self.flatbuffer, op)),
        )
        self.found: list[tuple[Operator | None, str, int]] = []  # operator, message and run of each difference
        # The tensors of the file whose values in LCE's interpreter it needs.
        watched = {*self.inputs, *self.outputs, *self.flatbuffer.outputs, *self.borders.inputs}
        self.watched = sorted(watched - {*self.flatbuffer.inputs})

    def compare_image(
        self, index: int, inputs: Sequence[np.ndarray], values: Mapping[int, np.ndarray] | None = None
    ) -> None:
        """Compares one run.

        # Arguments
            index: Number of the run.
            inputs: The inputs as the file takes them.
            values: Values of the `watched` tensors in LCE's interpreter, if it has already run this very file.
        """
        self.engine.images += 1
        if values is None:
            values = dict(zip(self.watched, self._by_lce.interpreter.predict(list(inputs)), strict=True))
        known = {**values, **dict(zip(self.flatbuffer.inputs, inputs, strict=True))}
        taken = [known[tensor] for tensor in self.inputs]
        found = dict(zip(self.outputs, self.part.invoke(taken), strict=True))
        wrong = [t for t in self.outputs if not _same(found[t], known[t])]
        if wrong:
            self.engine.bit_equal = False
            tensor = min(wrong, key=lambda t: self.flatbuffer.producers[t].index)
            count = int((found[tensor] != known[tensor]).sum())
            op, where = self._located(inputs, taken)
            message = (
                f"the delegate gives another result than LCE's interpreter on image {index}, in {count} values of "
                f"operator {self.flatbuffer.producers[tensor].index}; {where}"
            )
            self.found.append((op or self.flatbuffer.producers[tensor], message, index))
            return
        wrong = self.borders.differing(known)
        if wrong:
            self.engine.bit_equal = False
            first = min((self.flatbuffer.producers[tensor] for tensor in wrong), key=lambda op: op.index)
            message = (
                f"the delegate gives another result than the definition on image {index} in operator {first.index} "
                f"({first.name}), where QUANTIZE or DEQUANTIZE is part of its pass"
            )
            self.found.append((first, message, index))
            return
        expected = [known[tensor] for tensor in self.flatbuffer.outputs]
        outputs = self.whole.invoke(list(inputs))
        error = max(map(_apart, outputs, expected))
        if not error <= _ROUNDING:
            moved = self._amplification.moved(inputs)
            explained = [moved.get(tensor, 0.0) for tensor in self.flatbuffer.outputs]
            error = max(map(_apart, outputs, expected, explained))
        if error <= _ROUNDING:
            self.engine.output_error = max(self.engine.output_error, error)
        elif self._flips_explain(inputs):
            self.engine.turned += 1
        else:  # also for NaN
            self.engine.output_error = max(self.engine.output_error, error)
            message = f"on image {index} the delegate's output differs by {error:.2g} of the largest"
            self.found.append((None, message, index))

    def differences(self, layers: Mapping[int, str]) -> list[Difference]:
        """The differences found, with the Keras layers of operators where they are known."""
        return [
            Difference("delegate", "file", -1, message, index)
            if op is None
            else Difference(
                "delegate", layers.get(op.index) or self.flatbuffer.name(op.outputs[0]), op.index, message, index
            )
            for op, message, index in self.found
        ]

    @functools.cached_property
    def _amplification(self) -> Amplification:
        return Amplification(self.flatbuffer)

    @functools.cached_property
    def _by_lce(self) -> lce.Interpreter:
        return lce.any_interpreter(self.flatbuffer.with_outputs(self.watched))

    def _located(self, inputs: Sequence[np.ndarray], taken: list[np.ndarray]) -> tuple[Operator | None, str]:
        """The first operator that differs when nothing is fused, and the same in words."""
        by_lce, delegated, tensors = self._unfused
        expected, found = by_lce.interpreter.predict(list(inputs)), delegated.invoke(taken)
        for tensor, a, b in zip(tensors, expected, found, strict=True):
            if not _same(a, b):
                op = self.flatbuffer.producers[tensor]
                return op, f"operator {op.index} ({op.name}) is the first, fused or not"
        return None, "only where it is fused with its neighbours"

    @functools.cached_property
    def _unfused(self) -> tuple[lce.Interpreter, larq_rep_runtime.Interpreter, list[int]]:
        """LCE's interpreter and the delegate, unfused, with the outputs of all exact operators."""
        tensors = [
            t
            for op in self.flatbuffer.operators
            if is_exact(self.flatbuffer, op) and op.name != "FILL"
            for t in op.outputs
        ]
        part, *_ = exact_part(self.flatbuffer, tensors)
        by_lce = lce.any_interpreter(self.flatbuffer.with_outputs(tensors))
        return by_lce, needed_runtime().Interpreter(part, fuse=False), tensors

    def _flips_explain(self, inputs: Sequence[np.ndarray]) -> bool:
        """Whether the engines first differ in a sign that the rounding of a real value turned, or in an integer.

        An 8-bit integer may be the next one; any other (an index, a comparison) may have any value if a real value was
        rounded before.
        """
        by_lce, delegated, looked_at, tensors = self._opened
        expected, found = by_lce.interpreter.predict(list(inputs)), delegated.invoke(list(inputs))
        moved, rounded = self._amplification.moved(inputs), False
        for op, tensor, a, b in zip(looked_at, tensors, expected, found, strict=True):
            if a.dtype.kind != "f":
                if np.array_equal(a, b):
                    continue
                if quantized.quantization(self.flatbuffer, tensor) is None:
                    return rounded
                producer = self.flatbuffer.producers[tensor]
                return not is_exact(self.flatbuffer, producer) and int(np.abs(a.astype(int) - b).max()) == 1
            if op.name != "LceQuantize" and not (np.isfinite(a).all() and np.isfinite(b).all()):
                return True  # Each engine treats NaN in a real-valued operator as it likes.
            apart = _apart(b, a)
            if not (apart <= _ROUNDING or _apart(b, a, moved.get(tensor, 0.0)) <= _ROUNDING):
                return False
            if op.name != "LceQuantize":
                rounded = rounded or apart > 0
            elif ((a < 0) != (b < 0)).any():
                return rounded
        return False

    @functools.cached_property
    def _opened(self) -> tuple[lce.Interpreter, larq_rep_runtime.Interpreter, list[Operator], list[int]]:
        """Both engines, with the results of real-valued operators and the values in front of each sign as outputs."""
        looked_at = [
            op for op in self.flatbuffer.operators if op.name == "LceQuantize" or not is_exact(self.flatbuffer, op)
        ]
        tensors = [op.inputs[0] if op.name == "LceQuantize" else op.outputs[0] for op in looked_at]
        content = self.flatbuffer.with_outputs(tensors)
        return lce.any_interpreter(content), needed_runtime().Interpreter(content), looked_at, tensors


class CompiledComparison:
    """Compares LiteRT's CompiledModel with its interpreter, both with the delegate: all outputs have the same bits.

    # Arguments
        content: The bytes of the `.tflite` file.

    # Raises
        DelegateError: If the delegate was not built, LiteRT is not installed or too old, or one of both does not run
            the file.
        RuntimeMissingError: If `larq_rep_runtime` is not installed.
    """

    def __init__(self, content: bytes):
        runtime = needed_runtime()
        self.compiled, self.interpreter = runtime.Interpreter(content, engine="compiled"), runtime.Interpreter(content)
        version = importlib.import_module("ai_edge_litert").__version__
        self.engine = Engine(version, self.compiled.implementation)
        self.differences: list[Difference] = []

    def compare_image(self, index: int, inputs: Sequence[np.ndarray]) -> None:
        """Compares one run: its number, and the inputs as the file takes them."""
        self.engine.images += 1
        both = self.compiled.invoke(list(inputs)), self.interpreter.invoke(list(inputs))
        for detail, found, expected in zip(self.interpreter.outputs, *both, strict=True):
            if _same(found, expected):
                continue
            self.engine.bit_equal = False
            self.engine.output_error = max(self.engine.output_error, _apart(found, expected))
            message = (
                f"the CompiledModel gives another output than the interpreter on image {index}, in "
                f"{int((found != expected).sum())} of {found.size} values, up to {_apart(found, expected):.2g} of the "
                "largest"
            )
            self.differences.append(Difference("compiled", detail["name"], -1, message, index))


class _IntegerBorders:
    """The exact part with QUANTIZE and DEQUANTIZE beside its operators, run by the delegate and by definition.

    Alone they are not exact: kernels round halves to either side, and LCE's interpreter rounds scale times zero point.
    So what is expected is what LCE's interpreter makes, without them, of the real numbers that the integers stand for.

    # Arguments
        flatbuffer: The file.
    """

    def __init__(self, flatbuffer: Flatbuffer):
        self.flatbuffer = flatbuffer
        exact = [op for op in flatbuffer.operators if is_exact(flatbuffer, op)]
        written, read = {t for op in exact for t in op.outputs}, {t for op in exact for t in op.inputs}
        computed = {*flatbuffer.producers, *flatbuffer.inputs}
        self.operators = [
            op
            for op in flatbuffer.operators
            if (op.name == "QUANTIZE" and op.inputs[0] in written and flatbuffer.dtype(op.inputs[0]) == "float32")
            or (op.name == "DEQUANTIZE" and op.outputs[0] in read and op.inputs[0] in computed)
        ]
        # What is needed of LCE's run of the whole file.
        self.inputs: list[int] = []
        if not self.operators:
            return
        content, self._real, self._results = exact_part(flatbuffer)
        self._by_lce = lce.any_interpreter(content)
        together = sorted([*exact, *self.operators], key=lambda op: op.index)
        content, self._taken, self._given = _part(flatbuffer, together)
        self._delegated = needed_runtime().Interpreter(content)
        integers = {op.inputs[0] for op in self.operators if op.name == "DEQUANTIZE"}
        self.inputs = sorted({*self._taken, *self._real, *integers})

    def differing(self, known: Mapping[int, np.ndarray]) -> list[int]:
        """The tensors of which the delegate gives other values.

        # Arguments
            known: Values of the `inputs` in LCE's interpreter.
        """
        if not self.operators:
            return []
        values = dict(known)
        for op in self.operators:
            if op.name == "DEQUANTIZE":
                values[op.outputs[0]] = self._defined(op, known).values
        by_lce = self._by_lce.interpreter.predict([values[t] for t in self._real])
        values |= zip(self._results, by_lce, strict=True)
        found = self._delegated.invoke([known[t] for t in self._taken])
        return [t for t, value in zip(self._given, found, strict=True) if not self._right(t, value, values)]

    def _right(self, tensor: int, found: np.ndarray, values: Mapping[int, np.ndarray]) -> bool:
        op = self.flatbuffer.producers[tensor]
        if op.name != "QUANTIZE":
            return _same(found, values[tensor])
        definition = self._defined(op, values)
        return not (np.abs(found - definition.values) > definition.bound).any()  # NaN may be any integer

    def _defined(self, op: Operator, values: Mapping[int, np.ndarray]) -> integer_executor.Definition:
        definition = integer_executor.defined(self.flatbuffer, op, values)
        assert definition is not None, op.name
        return definition


def compare_delegate(content: bytes, images: np.ndarray) -> list[Difference]:
    """Where the delegate differs from LCE's interpreter, for a file without a model.

    # Arguments
        content: The bytes of a `.tflite` file of one input and a batch of one.
        images: Array (N, ...) of the input's type.
    """
    comparison = DelegateComparison(content)
    for index, image in enumerate(images):
        comparison.compare_image(index, [image[None]])
    return comparison.differences({})


def exact_part(flatbuffer: Flatbuffer, outputs: Sequence[int] | None = None) -> tuple[bytes, list[int], list[int]]:
    """A file with LCE's operators and the exact ones only; its inputs and outputs as tensors of the whole file.

    # Arguments
        flatbuffer: The file.
        outputs: Tensors to return; by default those that the left-out operators read, and the file's own outputs.
    """
    return _part(flatbuffer, [op for op in flatbuffer.operators if is_exact(flatbuffer, op)], outputs)


def _part(
    flatbuffer: Flatbuffer, operators: Sequence[Operator], outputs: Sequence[int] | None = None
) -> tuple[bytes, list[int], list[int]]:
    """The same with other operators."""
    if outputs is None:
        kept, written = {op.index for op in operators}, {tensor for op in operators for tensor in op.outputs}
        left = [t for op in flatbuffer.operators if op.index not in kept for t in op.inputs if t in written]
        outputs = sorted({*left, *(tensor for tensor in flatbuffer.outputs if tensor in written)})
    content, inputs = flatbuffer.cut(operators, outputs)
    return content, inputs, list(outputs)


def _same(found: np.ndarray, expected: np.ndarray) -> bool:
    return np.array_equal(found, expected, equal_nan=found.dtype.kind == "f")


def _apart(found: np.ndarray, expected: np.ndarray, explained: float | np.ndarray = 0.0) -> float:
    """Largest difference as a share of the largest value, less what is explained; NaN and infinity equal themselves."""
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    different = ~((found == expected) | (np.isnan(found) & np.isnan(expected)))
    if not different.any():
        return 0.0
    difference = np.maximum(np.abs(found - expected) - explained, 0)[different]
    return float(difference.max() / (np.nanmax(np.abs(expected)) or 1))
