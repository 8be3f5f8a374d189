"""The old name of `larq_rep.training.published` (the table) and `larq_rep.training.recipe` (its records), until 0.3."""

import warnings

from larq_rep.training.published import RECIPES, get_recipe
from larq_rep.training.recipe import Phase, Recipe, changed, from_json, to_json

__all__ = ["RECIPES", "Phase", "Recipe", "changed", "from_json", "get_recipe", "to_json"]

warnings.warn(
    "larq_rep.training.recipes is now larq_rep.training.published (RECIPES, get_recipe) and larq_rep.training.recipe "
    "(the rest). This name will be removed in 0.3.",
    DeprecationWarning,
    stacklevel=2,
)
