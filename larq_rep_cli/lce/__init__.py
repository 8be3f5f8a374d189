"""The program `lce`: converts to Larq Compute Engine, proves the result, and describes files and networks.

Each module is a command.
"""

from __future__ import annotations

import click

from larq_rep_cli.options import examples
from larq_rep_cli.program import Group


@click.group(
    cls=Group,
    package=__name__,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "lce convert RepReActNetA -o rep.tflite",
        "lce verify RepReActNetA rep.tflite --random 2",
        "lce inspect rep.tflite",
        "lce benchmark rep.tflite",
        "lce zoo show RepReActNetA",
    ),
)
@click.version_option(package_name="larq-rep")
def main() -> None:
    """Converts binary networks to Larq Compute Engine (LCE), proves the result and measures it.

    The exit code is 0 on success, 1 if verify finds a difference, 2 if the input cannot be used, 3 if a command fails
    through its own fault, and 130 after Ctrl-C.
    """
