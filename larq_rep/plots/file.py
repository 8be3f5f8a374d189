"""Makes and writes figures. matplotlib is imported when the first one is drawn."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from larq_rep.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def choose(function: str, argument: str, name: str, known: Mapping[str, Any]) -> Any:
    if name not in known:
        raise ValueError(f"{function}: {argument}={name!r} should be one of {', '.join(known)}.")
    return known[name]


def new_figure(width: float, height: float) -> Figure:
    """Makes an empty figure of this size in inches."""
    from matplotlib.figure import Figure

    return Figure((width, height), layout="constrained")


def drawable(name: str) -> str:
    """A name of the user's (a file, a run, a layer) as matplotlib can draw it: any bytes, and no formulas between $."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace").replace("$", r"\$")


def write(figure: Figure, path: str | os.PathLike[str], dpi: int = 120) -> None:
    """Writes a figure as a PNG file, which appears complete or not at all.

    # Arguments
        figure: A figure.
        path: Where to write. An existing file is replaced.
        dpi: Pixels per inch.

    # Raises
        OSError: If it cannot be written; an existing file then stays.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path} cannot be written: there is no folder {path.parent}. Make it first.")
    if path.is_dir():
        raise IsADirectoryError(f"{path} cannot be written: it is a folder. Give the name of a file in it.")
    with replacing(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=dpi)
