"""Training recipes of the networks that the four papers compare with: 1-bit weights, several bits, several branches."""

from larq_rep.training.recipe import Recipe

SURVEYED: tuple[Recipe, ...] = ()
