"""Folding: constants of each channel go into the convolutions of a converted model.

`offsets` and `scales` find operations that can be left out; `rewriting` leaves them out.
"""

from larq_rep.converters.folding.rewriting import FoldingReport, fold, fold_in_place

__all__ = ["FoldingReport", "fold", "fold_in_place"]
