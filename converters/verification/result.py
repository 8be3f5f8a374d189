"""The result of a verification."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Difference:
    """A place where file and model differ.

    # Attributes
        stage: `"levels"`, `"weights"`, `"operator"`, `"sign"`, `"quantization"` (a scale, zero point or bias of
            integers), `"range"` (of integers, which clips), `"threshold"`, `"output"`, `"structure"`, `"delegate"` or
            `"compiled"`.
        layer: Keras layer.
        operator: Index of the operator in the file; -1 for the outputs.
        message: What was expected and found, and where.
        image: Index of the image that shows it, if an image is needed.
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
    """The proof for an engine that runs the file.

    # Attributes
        version: Version of the engine.
        implementation: Its kernel or instruction set.
        images: Images on which it was compared.
        operators: Operators whose results were compared bit by bit: those of LCE and, for the delegate, the exact ones
            around them that it takes over; for LCE's interpreter also those in int8, up to the rounding of kernels.
            0 for LiteRT's CompiledModel, of which only the outputs are compared.
        bit_equal: Whether all of these gave the same bits: LCE's interpreter the same as the operators' definition in
            numpy (real-valued results equal to rounding), the delegate the same as LCE's interpreter, the outputs of
            CompiledModel the same as those of LiteRT's interpreter.
        output_error: Largest difference of an output, as a share of its largest value: LCE's interpreter against the
            model, the delegate against LCE's interpreter, CompiledModel against LiteRT's interpreter.
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
class Int8:
    """What int8 does to a network, beside the same network with float operators, on the images of the proof.

    # Attributes
        operators: Operators in int8, beside QUANTIZE and DEQUANTIZE.
        change: Largest change of an output, divided by the largest output.
        mean_change: Mean absolute change of the outputs, divided by the mean absolute output.
        agreement: Share of the images whose largest output is the same; `None` if there is not one output vector.
        flips: Share of the binary activations whose sign differs.
        signal_to_noise: Mean square of each tensor of integers, divided by that of its distance from the results of
            float operators on the values where its island begins, in dB; without those that are all 0 or exact.
    """

    operators: int
    change: float
    mean_change: float
    agreement: float | None
    flips: float
    signal_to_noise: dict[str, float]


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
        predict_error: The same for an ordinary run of the model, in which the flipped activations have the model's
            signs: how far `model.predict` differs although the file is right.
        engines: What was proved for each engine, by its name: `"lce"`, LCE's interpreter, `"delegate"`, whose reference
            is LCE's interpreter, and `"compiled"`, LiteRT's CompiledModel, whose reference is LiteRT's interpreter.
        int8: What int8 does to the network, if the file was quantized after training.
        differences: What is wrong, in the order of execution; empty if the file is right.
        notes: What could not be compared, and what looks wrong but is not.
    """

    convolutions: int = 0
    images: int = 0
    activations: int = 0
    flips: int = 0
    sign_error: float = 0.0
    output_error: float = 0.0
    predict_error: float = 0.0
    engines: dict[str, Engine] = field(default_factory=dict)
    int8: Int8 | None = None
    differences: list[Difference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.differences

    def to_dict(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}

    def differ(self, stage: str, layer: str, operator: int, message: str, image: int | None = None) -> None:
        """Adds a difference, if it is the first of its stage at its place."""
        if not any(d.stage == stage and d.layer == layer and d.operator == operator for d in self.differences):
            self.differences.append(Difference(stage, layer, operator, message, image))
