"""The program `lqr`: trains networks, evaluates them and draws the results.

Each module is a command.
"""

from __future__ import annotations

import click

from larq_rep_cli.program import Group


@click.group(cls=Group, package=__name__, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="larq-rep")
def main() -> None:
    """Trains binary networks by the published recipes and evaluates them.

    The exit code is 0 on success, 1 if a training lost its workers, 2 if the input cannot be used or a training was
    interrupted, 3 if a command fails through its own fault, and 130 if another command was interrupted.
    """
