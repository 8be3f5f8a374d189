"""Finds faults that older versions put into a file, or that an older runtime causes, as far as the file shows them."""

from __future__ import annotations

from typing import Any

import numpy as np

from larq_rep.converters import metadata
from larq_rep.converters.findings import Finding
from larq_rep.converters.flatbuffer import Flatbuffer, Operator
from larq_rep.converters.matching import groups

# A fused activation clips the sum of signs to these, and to the sums that can occur.
_RANGES = {1: (0.0, np.inf), 2: (-1.0, 1.0), 3: (0.0, 6.0)}


def audit_old_faults(flatbuffer: Flatbuffer, content: bytes) -> list[Finding]:
    """Findings about the version that made a file, or that runs it.

    - `double-clamp`: a binary convolution that writes bits and holds an activation. The thresholds already include the
      activation, but the delegate of larq-rep-runtime 0.1.0 clips the sums as well. The finding says in how many
      channels some sum gives a wrong bit; the count is exact.
    - `unknown-constants`: a binary convolution that writes bits, in a file that does not say which version converted
      it. A constant behind the convolution that was not one number for each channel has become wrong thresholds, which
      look like any others. Where the output is not bits, the file keeps such a constant in its shape, and
      `audit_flatbuffer` reports it as `constant-shape`.

    # Arguments
        flatbuffer: The parsed file.
        content: Its bytes.
    """
    packed = [
        op
        for op in flatbuffer.operators
        if op.name == "LceBconv2d" and flatbuffer.dtype(op.outputs[0]) == "int32" and op.inputs[4] >= 0
    ]
    findings = [finding for op in packed if (finding := _double_clamp(flatbuffer, op)) is not None]
    if packed and not states_version(metadata.read(content)):
        which = ", ".join(str(op.index) for op in packed)
        message = (
            f"the file does not say which version converted it, and these operators write bits: {which}. If the model "
            "adds a constant to the output of one or multiplies it by one, and that is not a vector of one number for "
            "each channel, then the bits are wrong. The file does not show this; lce verify does, and a conversion by "
            "this version is right"
        )
        findings.append(Finding("unknown-constants", "file", message, error=False))
    return findings


def states_version(about: dict[str, Any]) -> bool:
    """Whether the metadata of a file says which version of this package converted it; 0.1.0 did not say so."""
    return isinstance(about.get("version"), str)


def _double_clamp(flatbuffer: Flatbuffer, op: Operator) -> Finding | None:
    limits = _RANGES.get(op.options["fused_activation_function"])
    thresholds = flatbuffer.constant(op.inputs[4])
    if limits is None or thresholds is None:
        return None
    filters, height, width, _ = flatbuffer.shape(op.inputs[1])
    taps = height * width * op.options["channels_in"] // groups(flatbuffer, op)
    # The bit is set where the count of unequal signs, (taps - sum) / 2, is above the threshold.
    lowest, highest = ((taps - min(max(limit, -taps), taps)) / 2 for limit in reversed(limits))
    wrong = ((thresholds >= 0) & (thresholds < lowest)) | ((thresholds >= highest) & (thresholds < taps))
    if not wrong.any():
        return None
    message = (
        f"it writes bits and holds an activation: the delegate of larq-rep-runtime 0.1.0 gives wrong bits in "
        f"{int(wrong.sum())} of {filters} channels; install a later one, which agrees with LCE's interpreter"
    )
    return Finding("double-clamp", f"operator {op.index} ({op.name})", message, error=False)
