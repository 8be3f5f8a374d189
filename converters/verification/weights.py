"""Finds the operators of the file that hold the binary weights of each convolution, and compares the weights."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from larq_rep.converters import matching
from larq_rep.converters.audit import meant_binary
from larq_rep.converters.flatbuffer import Flatbuffer, Operator
from larq_rep.converters.graph import FrozenGraph, Site
from larq_rep.converters.verification.result import Verification


@dataclass(frozen=True)
class Convolutions:
    """The binary convolutions of a model, and the operators of a file that hold their weights.

    # Attributes
        sites: The convolutions, in execution order.
        kernels: Their kernels.
        match: Their operators, by position.
    """

    sites: list[Site]
    kernels: list[np.ndarray]
    match: matching.Match

    @classmethod
    def of(cls, graph: FrozenGraph, flatbuffer: Flatbuffer) -> Convolutions:
        sites, kernels = meant_binary(graph)
        keep = [i for i, site in enumerate(sites) if site.kind == "convolution"]
        kernels = [kernels[i] for i in keep]
        return cls([sites[i] for i in keep], kernels, matching.match(kernels, flatbuffer))

    @functools.cached_property
    def layers(self) -> dict[int, str]:
        """The Keras layer of each operator, by its index."""
        return {op.index: self.sites[i].layer for i, op in self.match.pairs.items()}

    @functools.cached_property
    def operators(self) -> dict[str, Operator]:
        """The operator of each convolution, by the name of its node."""
        return {self.sites[i].node.name: op for i, op in self.match.pairs.items()}


def compare_weights(convolutions: Convolutions, flatbuffer: Flatbuffer, result: Verification) -> None:
    """Reports the convolutions whose weights the file lacks, and the operators with weights that the model lacks."""
    result.convolutions = len(convolutions.match.pairs)
    left_over = list(convolutions.match.left_over)
    for i in convolutions.match.unmatched:
        layer, kernel = convolutions.sites[i].layer, convolutions.kernels[i]
        found = matching.nearest(kernel, left_over, flatbuffer)
        if found is None and matching.stayed_float(kernel, flatbuffer):
            result.notes.append(f"{layer}: stayed float; its outputs were compared, not its weights")
            continue
        if found is None:
            result.differ("weights", layer, 0, "the file holds no convolution with these weights")
            continue
        op, where = found
        left_over.remove(op)
        h, w, c, o = where[0]
        message = (
            f"{len(where)} of {kernel.size} binary weights differ from operator {op.index}, the first at "
            f"row {h}, column {w}, input channel {c}, output channel {o}"
        )
        result.differ("weights", layer, op.index, message)
    for op in left_over:
        result.differ("weights", "-", op.index, "the file holds a binary convolution that the model does not have")
