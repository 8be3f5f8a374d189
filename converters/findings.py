"""Findings about a file alone, which LCE's converter does not report.

Constants of a wrong shape make a file that does not load; zero padding on a map smaller than the filter gives wrong
sums. `audit` has the findings about the model that a file comes from.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from larq_rep.converters import lce
from larq_rep.converters.flatbuffer import Flatbuffer, Operator

RULES = {
    "keras-3": "the model is one of Keras 3; Larq and LCE need tf-keras",
    "not-built": "the model has no known input shape yet",
    "mixed-precision": "a layer computes in another type than float32",
    "graph-only": "layers of a SavedModel whose classes are not known, so that only their graph was audited",
    "dynamic-size": "an input has a free height, width or channel count",
    "symmetric-pad": "explicit padding before a strided convolution, which LCE 0.16 converts wrongly",
    "not-finite": "weights that are NaN or infinite, or that overflow",
    "converter-failed": "LCE's converter gave up",
    "silent-float": "a binary layer that stayed float",
    "levels-float": "a layer whose input has few levels, but whose weights LCE does not pack, so that it stayed float",
    "binary-weight-float": "two-valued weights not stored as bits, as their layer's input is real or LCE packs none",
    "ternary-weight-float": "weights of three values, which LCE does not pack",
    "misread-sign": "sign(sign(x) + c) where c makes it something other than a sign, though LCE takes it for one",
    "foreign-operator": "a TensorFlow operator that no TFLite runtime has",
    "constant-shape": "a multiplier, bias or threshold that is not one number for each output channel",
    "small-map": "zero padding on a map smaller than the filter, which LCE computes wrongly",
    "does-not-load": "LCE's interpreter refuses the file",
    "double-clamp": "packed output behind an activation, which the delegate of larq-rep-runtime 0.1.0 computes wrongly",
    "unknown-constants": "packed output whose thresholds an older version may have made of a wrong constant",
    "kept-float32": "weights that cannot be stored in float16 or int8",
}

_FLOAT = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
# Operators of Keras layers that TFLite does not have, and what computes the same.
_INSTEAD = {
    ("Erf", "Erfc", "Erfinv"): "express it otherwise; for gelu: tf.nn.gelu(x, approximate=True)",
    ("Softsign",): "write x / (1 + tf.abs(x))",
    ("MaxPool3D", "AvgPool3D"): "pool height and width with a 2-D layer, then the third axis behind a Reshape",
    ("DenseBincount", "Bincount"): "use tf.one_hot, or encode before the model",
    ("Lookup", "String", "RegexReplace", "AsString", "Ragged", "Hash"): (
        "do it before the model, and give the model numbers"
    ),
    ("Sparse",): "use dense tensors; a locally connected layer has implementation=1 for that",
    ("Random", "Multinomial"): "the file would have to draw random numbers: leave it out in inference",
    ("PyFunc", "EagerPyFunc"): "write it with TensorFlow's operators instead of Python code",
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing.

    # Attributes
        rule: A key of `RULES`.
        where: Keras layer, or operator of the file.
        message: What was found, what was expected and what to do.
        error: Whether the file must not be used.
    """

    rule: str
    where: str
    message: str
    error: bool = True

    def __str__(self) -> str:
        return f"{self.rule}: {self.where}: {self.message}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def audit_flatbuffer(flatbuffer: Flatbuffer, content: bytes, layers: dict[int, str] | None = None) -> list[Finding]:
    """Findings about a file alone.

    # Arguments
        flatbuffer: The parsed file.
        content: Its bytes.
        layers: Names of Keras layers by operator index, where they are known.
    """
    findings = []
    foreign: dict[str, dict[str, None]] = {}
    for op in flatbuffer.operators:
        where = (layers or {}).get(op.index, f"operator {op.index} ({op.name})")
        if op.custom and not op.name.startswith("Lce"):
            foreign.setdefault(where, {})[op.name] = None
        if op.name == "LceBconv2d":
            findings += _audit_bconv(flatbuffer, op, where)
        source = flatbuffer.producers.get(op.inputs[0]) if op.inputs else None
        if layers is None and op.name in _FLOAT and source is not None and source.name == "LceDequantize":
            message = "a float operator reads -1 and +1 that are unpacked for it: meant to be binary?"
            findings.append(Finding("silent-float", where, message, error=False))
    for where, names in foreign.items():
        operators = [name for name in names if name != "Placeholder" or len(foreign) == 1]  # a lookup table's
        if not operators:
            continue
        message = (
            f"{', '.join(operators)} is not an operator of TFLite or LCE, so the file cannot run: "
            f"{_instead_of(operators)}"
        )
        findings.append(Finding("foreign-operator", where, message))
    return findings if any(finding.error for finding in findings) else findings + _audit_loading(content)


def _audit_bconv(flatbuffer: Flatbuffer, op: Operator, where: str) -> list[Finding]:
    findings = []
    filters, height, width, _ = flatbuffer.shape(op.inputs[1])
    for what, tensor in zip(("multiplier", "bias", "threshold"), op.inputs[2:5], strict=False):
        if tensor >= 0 and flatbuffer.shape(tensor) != (filters,):
            findings.append(
                Finding(
                    "constant-shape",
                    where,
                    f"its {what} should have shape ({filters},), found {flatbuffer.shape(tensor)}: constants added "
                    "to or multiplied with a binary convolution must be vectors of one number for each channel",
                )
            )
    options = op.options
    if options["padding"] == 0 and options["pad_values"] == 0:
        if flatbuffer.dtype(op.outputs[0]) == "int8":
            message = (
                "LCE has no kernel for zero padding with int8 output: give the layer pad_values=1 (or 'valid' padding "
                "behind a pad before the sign), or remove the fake quantization behind it, so that its output "
                "stays float"
            )
            findings.append(Finding("does-not-load", where, message))
        _, rows, columns, _ = flatbuffer.shape(op.inputs[0])
        needs = (
            (height - 1) * options["dilation_height_factor"] + 1,
            (width - 1) * options["dilation_width_factor"] + 1,
        )
        if rows < needs[0] or columns < needs[1]:
            findings.append(
                Finding(
                    "small-map",
                    where,
                    f"zero padding needs a map of at least {needs[0]}x{needs[1]}, found {rows}x{columns}: LCE would "
                    "compute wrong sums; use a larger input or pad_values=1",
                )
            )
    return findings


def _audit_loading(content: bytes) -> list[Finding]:
    problems = {}
    for kernel, indirect in (("default", False), ("indirect", True)):
        try:
            lce.interpreter(content, use_indirect_bgemm=indirect)
        except lce.RefusedError as error:
            problems[kernel] = str(error)
    if not problems:
        return []
    message = "; ".join(f"{kernel} kernel: {problem}" for kernel, problem in problems.items())
    if len(problems) == 1:
        message += " (the other kernel runs it)"
    return [Finding("does-not-load", "file", message, error=len(problems) == 2)]


def _instead_of(operators: list[str]) -> str:
    """Advice about TensorFlow operators that no TFLite runtime has."""
    for names, remedy in _INSTEAD.items():
        if any(name in operator for operator in operators for name in names):
            return remedy
    return "express it otherwise"
