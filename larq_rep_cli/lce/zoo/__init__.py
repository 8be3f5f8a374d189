"""The commands `lce zoo ...`: the networks that can be given by name."""

from __future__ import annotations

import click

from larq_rep_cli.program import Group


@click.group(cls=Group, package=__name__)
def zoo() -> None:
    """The networks that can be given by name."""
