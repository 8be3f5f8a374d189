"""Folding: constants of each channel go into the convolutions of a converted model.

`offsets` and `scales` find what can be left out, `rewriting` does it.
"""

from larq_rep.converters.folding.rewriting import FoldingReport, fold

__all__ = ["FoldingReport", "fold"]
