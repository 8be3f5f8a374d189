"""Draws the curves of trainings, and compares networks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tensorflow as tf

from larq_rep.plots.file import COLORS, choose, drawable, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

_AXES = {
    "loss": "loss",
    "accuracy": "accuracy",
    "lr": "learning rate",
    "flip_ratio": "flipped signs of weights",
    "saturated": "saturated activations",
}


class Point(NamedTuple):
    """A network in `accuracy_against_ops`.

    # Attributes
        name: Its label.
        ops: Operations for one image, FLOPs + BOPs / 64.
        accuracy: Top-1 accuracy in percent.
        family: Points of one family have one colour.
        base: Name of the point from which an arrow leads to this one.
    """

    name: str
    ops: float
    accuracy: float
    family: str = ""
    base: str | None = None


def accuracy_against_ops(points: Iterable[Point]) -> Figure:
    """Draws the accuracies of networks over their operations, like RepBNN's Figure 1.

    An arrow leads from a base network to its Rep network. The operations have a logarithmic scale.

    # Arguments
        points: The networks, with different names.

    # Raises
        ValueError: If there are no points, two have the same name, a base is not among them, or a number cannot be
            drawn.

    # References
        - [RepBNN: towards a precise Binary Neural Network with Enhanced Feature Map via
          Repeating](https://arxiv.org/abs/2207.09049), Figure 1
    """
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

    known: dict[str, Point] = {}
    for point in points:
        if point.name in known:
            raise ValueError(f"accuracy_against_ops: two points are named {point.name!r}. Give each its own name.")
        if not (point.ops > 0 and np.isfinite(float(point.ops)) and np.isfinite(point.accuracy)):
            raise ValueError(
                f"accuracy_against_ops: {point.name!r} should have ops > 0 and an accuracy, found ops={point.ops} and "
                f"accuracy={point.accuracy}."
            )
        known[point.name] = point._replace(ops=float(point.ops))
    if not known:
        raise ValueError("accuracy_against_ops: there are no points to draw.")

    figure = new_figure(9, max(6, 0.2 * len(known)))
    axes = figure.subplots()
    axes.set_xscale("log")
    families = list(dict.fromkeys(point.family for point in known.values()))
    for number, family in enumerate(families):
        members = [point for point in known.values() if point.family == family]
        axes.scatter(
            [point.ops for point in members],
            [point.accuracy for point in members],
            s=36,
            color=COLORS[number % len(COLORS)],
            marker="osD^v"[number // len(COLORS) % 5],
            label=drawable(family),
            zorder=3,
        )
        for point in members:
            if point.base is not None:
                base = choose("accuracy_against_ops", f"base of {point.name!r}", point.base, known)
                axes.annotate(
                    "",
                    (point.ops, point.accuracy),
                    (base.ops, base.accuracy),
                    arrowprops=dict(arrowstyle="->", color=COLORS[number % len(COLORS)], shrinkA=4, shrinkB=4),
                ).set_in_layout(False)
    ops = [point.ops for point in known.values()]
    # Leaves room for the labels, and for at least one mark of 1, 2 or 5.
    axes.set_xlim(min(ops) / 1.6, max(ops) * 1.6)
    axes.margins(y=0.12)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.set_xlabel("OPs (FLOPs + BOPs / 64)")
    axes.set_ylabel("top-1 accuracy, %")
    axes.grid(alpha=0.3)
    if len(families) > 1:
        figure.legend(loc="outside right upper")
    _label(axes, known.values())
    return figure


def _label(axes, points: Iterable[Point]) -> None:
    """Writes the names beside the points, so that they cover neither each other nor a point."""
    from matplotlib.transforms import Bbox

    axes.figure.draw_without_rendering()
    pixels = axes.figure.dpi / 72  # of a typographic point
    inside = axes.get_window_extent()
    centres = {point.name: axes.transData.transform((point.ops, point.accuracy)) for point in points}
    taken = [Bbox.from_extents(*(centre - 4 * pixels), *(centre + 4 * pixels)) for centre in centres.values()]

    def trouble(box: Bbox) -> int:
        sticks_out = not (inside.contains(*box.min) and inside.contains(*box.max))
        return box.count_overlaps(taken) + 100 * sticks_out

    for point in points:
        at = point.ops, point.accuracy
        text = axes.annotate(drawable(point.name), at, (0, 0), textcoords="offset points", size=8, zorder=4)
        text.set_in_layout(False)
        box = text.get_window_extent()
        width, height = box.width / pixels, box.height / pixels
        # The nearest place first: right, left, above, below, and the corners.
        offsets = [
            (-width / 2 + x * (width / 2 + distance), -height / 3 + y * (height / 2 + distance))
            for distance in (6, 12, *range(20, 200, 10))
            for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
        ]
        boxes = [box.translated(x * pixels, y * pixels) for x, y in offsets]
        troubles = [trouble(box) for box in boxes]
        best = int(np.argmin(troubles))
        text.xyann = offsets[best]
        taken.append(boxes[best])
        if best >= 8:
            near = np.clip(centres[point.name], boxes[best].min, boxes[best].max) - centres[point.name]
            line = dict(arrowstyle="-", color="gray", linewidth=0.5, shrinkA=0, shrinkB=0)
            axes.annotate("", at, tuple(near / pixels), textcoords="offset points", arrowprops=line).set_in_layout(
                False
            )


def history(runs: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Figure:
    """Draws the curves of one or several trainings: loss, accuracy and other metrics of each epoch.

    Training is dashed, validation solid. Learning rate (`lr`) and the means of `BinaryStatistics` (`flip_ratio`,
    `saturated`) have their own parts if a run has them. A vertical line stands between two phases.

    # Arguments
        runs: Maps names to the results of `fit`, or to the rows of a table of metrics: for each epoch numbers, or
            strings from `csv.DictReader`, under the names `loss`, `accuracy`, `val_loss`, `val_accuracy` and `lr`, with
            `epoch` and `phase`. Epochs may count on from phase to phase, or restart in each. Cells may be empty.
            Rows without a mapping are one run without a name.

    # Raises
        ValueError: If there are no epochs, or none of these metrics.
    """
    from matplotlib.ticker import MaxNLocator

    named = runs if isinstance(runs, Mapping) else {"": runs}
    tables = {name: _table(name, run) for name, run in named.items()}
    metrics = [m for m in _AXES if any({m, f"val_{m}"} & set(columns) for _, columns, _ in tables.values())]
    if not metrics:
        raise ValueError(f"history: nothing to draw, no run has an epoch with one of {', '.join(_AXES)}.")
    across = len(metrics) if len(metrics) < 4 else -(-len(metrics) // 2)
    down = -(-len(metrics) // across)
    # The legend above the curves has a row for each run.
    figure = new_figure(5 * across, 4 * down + 0.2 * len(tables))
    grid = figure.subplots(down, across, squeeze=False).ravel()
    for axes in grid[len(metrics) :]:
        axes.remove()
    for axes, metric in zip(grid, metrics, strict=False):
        for number, (name, (epochs, columns, phases)) in enumerate(tables.items()):
            color = COLORS[number % len(COLORS)]
            # No line leads from phase to phase.
            breaks = [start for start, _ in phases[1:]]
            for key, style, part in ((metric, ".--", "training"), (f"val_{metric}", ".-", "validation")):
                if key in columns:
                    curve = np.insert(epochs, breaks, np.nan), np.insert(columns[key], breaks, np.nan)
                    style = style if metric in ("loss", "accuracy") else ".-"
                    axes.plot(*curve, style, color=color, label=drawable(", ".join(filter(None, (name, part)))))
            for start in breaks:
                axes.axvline(epochs[start] - 0.5, color=color if len(tables) > 1 else "gray", linestyle=":")
            if breaks and len(tables) == 1:
                for start, phase in phases:
                    place = dict(xycoords=("data", "axes fraction"), textcoords="offset points")
                    axes.annotate(phase, (epochs[start] - 0.5, 1), (3, 2), size=8, **place).set_in_layout(False)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
        axes.set_ylabel(_AXES[metric])
        axes.grid(alpha=0.3)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2)
    return figure


def _table(name: str, run: Any) -> tuple[np.ndarray, dict[str, np.ndarray], list[tuple[int, str]]]:
    """The epochs of a run, counted from 1 through all phases, its columns, and the first row of each phase."""
    if isinstance(run, tf.keras.callbacks.History):
        columns = {key: np.asarray(values, float) for key, values in run.history.items()}
        return np.arange(1.0, len(run.epoch) + 1), columns, []
    epochs: list[float] = []
    phases: list[tuple[int, str]] = []
    offset = 0.0
    columns = {}
    for number, row in enumerate(run):
        epoch, phase = float(row.get("epoch", number)), _phase(row.get("phase", ""))
        if not phases or phase != phases[-1][1]:
            offset = (epochs[-1] if epochs else 0) + 1 - epoch
            phases.append((number, phase))
        epochs.append(epoch + offset)
    for key in [key for metric in _AXES for key in (metric, f"val_{metric}")]:
        cells = [row.get(key) for row in run]
        try:
            values = np.array([np.nan if cell in (None, "") else float(cell) for cell in cells])
        except ValueError as error:
            raise ValueError(f"history: column '{key}' of run '{name}' should hold numbers: {error}.") from error
        if not np.all(np.isnan(values)):
            columns[key] = values
    return np.array(epochs), columns, phases


def _phase(value: Any) -> str:
    """The name of a phase; 1, 1.0 and "1" mean the same phase."""
    try:
        return f"phase {float(value):g}"
    except ValueError:
        return str(value)
