"""Networks of larq_zoo, listed with ours and built by larq_zoo, which is the extra `larq-rep[zoo]`.

`larq_rep.reptran` transforms them like ours.
"""

import importlib
from collections.abc import Mapping

from larq_rep.zoo.papers import BNN, DOREFA, QUICKNET, REAL_TO_BINARY, XNOR_NET, Paper
from larq_rep.zoo.registry import Result, add_network

_TWO_BITS = "the activations of DoReFaNet have 2 bits"
_IMAGE = "the input of the first convolution of BinaryAlexNet is the image: only its weights are binary"


def _add(name: str, module: str, paper: Paper, top1: float, top5: float, left_float: Mapping[str, str] | None = None):
    def constructor(*, input_shape=None, input_tensor=None, weights=None, include_top=True, num_classes=1000):
        try:
            networks = importlib.import_module(f"larq_zoo.{module}")
        except ImportError as error:
            raise ImportError(
                f"{name} is built by larq_zoo, which cannot be imported: pip install 'larq-rep[zoo]'."
            ) from error
        return getattr(networks, name)(
            input_shape=input_shape,
            input_tensor=input_tensor,
            weights=weights,
            include_top=include_top,
            num_classes=num_classes,
        )

    constructor.__name__ = constructor.__qualname__ = name
    constructor.__doc__ = f"""`larq_zoo.{module}.{name}`, by default untrained; see there.

    # Raises
        ImportError: If larq_zoo is not installed.

    # References
        - {paper.title}, https://arxiv.org/abs/{paper.arxiv}
    """
    return add_network(
        constructor,
        family="larq_zoo",
        paper=paper,
        dataset="imagenet",
        source="larq_zoo",
        spec="binarydensenet-and-survey.md, Part B",
        results=(Result(top1, top5, "larq_zoo 2.4"),),
        left_float=left_float or {},
    )


RealToBinaryNet = _add("RealToBinaryNet", "literature", REAL_TO_BINARY, 65.01, 85.72)
DoReFaNet = _add("DoReFaNet", "literature", DOREFA, 53.39, 76.50, {".*": _TWO_BITS})
XNORNet = _add("XNORNet", "literature", XNOR_NET, 44.96, 69.18)
BinaryAlexNet = _add("BinaryAlexNet", "literature", BNN, 36.30, 61.53, {"quant_conv2d": _IMAGE})
QuickNetSmall = _add("QuickNetSmall", "sota", QUICKNET, 59.4, 81.8)
QuickNet = _add("QuickNet", "sota", QUICKNET, 63.3, 84.6)
QuickNetLarge = _add("QuickNetLarge", "sota", QUICKNET, 66.9, 87.0)
