"""Pictures of networks and of their training, after the figures of ReActNet and RepBNN.

Every function returns a `matplotlib.figure.Figure`, which `write` puts into a file:

```python
plots.write(plots.coefficients(model), "coefficients.png")
```
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import larq as lq
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter
from matplotlib.transforms import Bbox

from larq_rep.layers import BiasedPReLU, Repeat, RPReLU
from larq_rep.layers.repeat import RepLayer
from larq_rep.quantizers import ReCUInputSign, RSign, StandardizedSign
from larq_rep.reptran.graph import CONV, DEPTHWISE, is_norm, nodes, operation

# Okabe and Ito's colours, which the colour-blind tell apart.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_AXES = {
    "loss": "loss",
    "accuracy": "accuracy",
    "lr": "learning rate",
    "flip_ratio": "flipped signs of weights",
    "saturated": "saturated activations",
}


class Sign(NamedTuple):
    """A place where a network binarizes activations.

    # Attributes
        name: Name of the layer that has the quantizer as `input_quantizer` or `activation`, or is it; with the
            names of the models it is nested in before it (`model/layer`) and `:1`, `:2` behind it for further
            calls of the same layer.
        quantizer: The quantizer.
        inputs: What is binarized, a tensor of the model's graph.
    """

    name: str
    quantizer: lq.quantizers.Quantizer
    inputs: Any


def signs(model: tf.keras.Model) -> list[Sign]:
    """Finds where a network binarizes activations, from input to output.

    These are the quantizers of precision 1 but `lq.quantizers.NoOp`, which only marks what is binary already.
    `tf.keras.Model(model.inputs, [sign.inputs for sign in signs(model)])` computes all that is binarized.

    # Arguments
        model: A functional model, or a sequential one that knows its input shape.

    # Raises
        ValueError: If the model has no graph of layers.
    """
    found: list[Sign] = []
    calls: dict[str, int] = {}
    for node in _nodes(model):
        layer = node.layer
        number = calls[layer.name] = calls.get(layer.name, -1) + 1
        name = f"{layer.name}:{number}" if number else layer.name
        if isinstance(layer, tf.keras.Model):
            nested = signs(layer)
            if nested:
                inner = tf.keras.Model(layer.inputs, [sign.inputs for sign in nested])
                tensors = tf.nest.flatten(inner(node.keras_inputs))
                found += [Sign(f"{name}/{s.name}", s.quantizer, x) for s, x in zip(nested, tensors, strict=True)]
            continue
        quantizer = _input_quantizer(layer)
        if quantizer is not None and node.keras_inputs:
            found.append(Sign(name, quantizer, node.keras_inputs[0]))
    return found


def _nodes(model: tf.keras.Model) -> Iterator[Any]:
    if getattr(model, "_nodes_by_depth", None) is None:
        raise ValueError(
            f"Model '{model.name}' ({type(model).__name__}) has no graph of layers to look for its tensors in. "
            "Give a functional model, or a sequential one that knows its input shape."
        )
    return nodes(model)


def _input_quantizer(layer: tf.keras.layers.Layer) -> lq.quantizers.Quantizer | None:
    """What binarizes the input of a layer."""
    if isinstance(layer, lq.quantizers.Quantizer):
        quantizer = layer
    elif isinstance(layer, tf.keras.layers.Activation):
        quantizer = layer.activation
    else:
        quantizer = getattr(layer, "input_quantizer", None)
    binary = getattr(quantizer, "precision", None) == 1 and not isinstance(quantizer, lq.quantizers.NoOp)
    return quantizer if binary else None


def shifted(quantizer: lq.quantizers.Quantizer, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    r"""What a quantizer takes the sign of, and how far from 0 its gradient vanishes.

    | quantizer | value | window |
    |---|---|---|
    | `RSign`, `LeakyRSign` | \\(x + b\\) | 1 |
    | `StandardizedSign` | \\((x - m) / \sigma\\) | \\(\sqrt 2 / \max(t, 1)\\) |
    | `ReCUInputSign` | \\(x / \sqrt{v + 10^{-5}}\\) | 1 |
    | `lq.quantizers.DoReFa(1)` | \\(2 x - 1\\) | 1 |
    | others | \\(x\\) | their `clip_value`, else 1 |

    The window is 1 also where the gradient vanishes nowhere (`LeakySign`, `EDESign`, `clip_value=None`).

    # Arguments
        quantizer: A quantizer of precision 1.
        x: Its input, `(batch, ...)`.

    # Returns
        The value, of the shape of `x`, and the window, a scalar, both `float32`.
    """
    x = tf.cast(x, tf.float32)
    axes = list(range(1, x.shape.rank))
    window: Any = getattr(quantizer, "clip_value", None) or 1.0
    if isinstance(quantizer, RSign):
        x += tf.cast(quantizer.bias, tf.float32)
    elif isinstance(quantizer, (StandardizedSign, ReCUInputSign)):
        freedom = tf.cast(tf.reduce_prod(tf.shape(x)[1:]) - 1, tf.float32)
        centred = x - tf.reduce_mean(x, axes, keepdims=True)
        variance = tf.reduce_sum(centred**2, axes, keepdims=True) / freedom
        if isinstance(quantizer, ReCUInputSign):
            x *= tf.math.rsqrt(variance + 1e-5)
        else:
            x, window = centred * tf.math.rsqrt(variance), 2**0.5 / tf.maximum(quantizer.t, 1)
    elif isinstance(quantizer, lq.quantizers.DoReFa):
        x = 2 * x - 1
    return x, tf.cast(window, tf.float32)


def named_layers(model: tf.keras.Model, prefix: str = "") -> Iterator[tuple[str, tf.keras.layers.Layer]]:
    """The layers of a model from input to output with their names, those of nested models as `model/layer`."""
    for layer in model.layers:
        if isinstance(layer, tf.keras.Model):
            yield from named_layers(layer, f"{prefix}{layer.name}/")
        else:
            yield prefix + layer.name, layer


def coefficients(model: tf.keras.Model) -> Figure:
    """Draws the shifts of the signs and the coefficients of the PReLUs as colour bars, as ReActNet's Figure 8.

    There is a row for each kind: shift of the sign (`RSign`, `LeakyRSign`), shift in (`RPReLU`, and the bias of
    `BiasedPReLU`), slope (those and Keras' `PReLU`), and shift out. A bar is a layer, its channels from top to
    bottom; the layers go from input to output. Blue is positive, red negative, on one scale for each row; above
    the row are the extremes and where they are.

    # Arguments
        model: A model that is built.

    # Raises
        ValueError: If the model has none of these layers.

    # References
        - [ReActNet: Towards Precise Binary Neural Network with Generalized Activation
          Functions](https://arxiv.org/abs/2003.03488), Figure 8
    """
    kinds: dict[str, dict[str, np.ndarray]] = {"shift of the sign": {}, "shift in": {}, "slope": {}, "shift out": {}}
    for name, layer in named_layers(model):
        quantizer = _input_quantizer(layer)
        if isinstance(quantizer, RSign):
            kinds["shift of the sign"][name] = quantizer.bias
        if isinstance(layer, (RPReLU, BiasedPReLU)):
            kinds["shift in"][name] = layer.shift_in if isinstance(layer, RPReLU) else layer.bias
        if isinstance(layer, (RPReLU, BiasedPReLU, tf.keras.layers.PReLU)):
            kinds["slope"][name] = layer.alpha
        if isinstance(layer, RPReLU):
            kinds["shift out"][name] = layer.shift_out
    kinds = {kind: {name: np.ravel(w) for name, w in rows.items()} for kind, rows in kinds.items() if rows}
    if not kinds:
        raise ValueError(
            f"coefficients: model '{model.name}' has no learned shifts or slopes to draw: no RSign, LeakyRSign, "
            "RPReLU, BiasedPReLU or PReLU."
        )

    rows = list(kinds.items())
    longest = max(len(bars) for _, bars in rows)
    # Rows of the same layers share their names, below the last of them.
    named = [i + 1 == len(rows) or list(bars) != list(rows[i + 1][1]) for i, (_, bars) in enumerate(rows)]
    label = 0.065 * max(len(name) for _, bars in rows for name in bars)
    heights = [1.5 + label * names for names in named]
    figure = Figure((max(6.0, 2.5 + 0.3 * longest), sum(heights) + 0.4), layout="constrained")
    figure.suptitle(f"Learned coefficients of {model.name}, from input to output")
    for axes, names, (kind, bars) in zip(figure.subplots(len(rows), squeeze=False)[:, 0], named, rows, strict=True):
        largest = max(float(np.max(np.abs(values))) for values in bars.values()) or 1.0
        for x, values in enumerate(bars.values()):
            image = axes.imshow(
                values[:, None],
                cmap="RdBu",
                vmin=-largest,
                vmax=largest,
                extent=(x - 0.45, x + 0.45, 0, 1),
                # An average of several channels would hide the extreme ones.
                interpolation="nearest",
                aspect="auto",
            )
        low, high = min(bars, key=lambda name: bars[name].min()), max(bars, key=lambda name: bars[name].max())
        axes.set_title(f"from {bars[low].min():.3g} ({low}) to {bars[high].max():.3g} ({high})", size=8, loc="left")
        axes.set_xlim(-0.6, longest - 0.4)
        axes.set_xticks(range(len(bars)), list(bars) if names else [""] * len(bars), rotation=90, size=7)
        axes.set_yticks([])
        axes.set_ylabel(kind)
        axes.spines[:].set_visible(False)
        figure.colorbar(image, ax=axes, pad=0.01, fraction=0.02, aspect=12)
    return figure


def activations(
    model: tf.keras.Model, images: np.ndarray, layers: str | Sequence[str] | None = None, sign: bool = True
) -> Figure:
    """Draws histograms of what the signs of a network get and of what they give, as ReActNet's Figure 9.

    Before the sign stands the value it is taken of: with `RSign` the shifted one (see `shifted`). Dashed lines
    mark the window beyond which no gradient passes, or 1 where it passes everywhere. The title has the share
    of +1 after the sign.

    # Arguments
        model: A functional model.
        images: Input of the model, `(N, height, width, channels)`.
        layers: Names of the layers that have the signs, see `Sign`; by default the first, middle and last one.
        sign: Whether to draw the values after the sign, too.

    # Raises
        ValueError: If the model has no sign, or none of a given name.

    # References
        - [ReActNet: Towards Precise Binary Neural Network with Generalized Activation
          Functions](https://arxiv.org/abs/2003.03488), Figure 9
    """
    known = {found.name: found for found in signs(model)}
    if not known:
        raise ValueError(
            f"activations: model '{model.name}' binarizes no activations: no layer is, or has as input_quantizer, a "
            "quantizer of precision 1."
        )
    if layers is None:
        names = list(known)
        layers = list(dict.fromkeys([names[0], names[len(names) // 2], names[-1]]))
    chosen = [
        _choose("activations", "layers", name, known) for name in ([layers] if isinstance(layers, str) else layers)
    ]
    extractor = tf.keras.Model(model.inputs, [found.inputs for found in chosen])
    tensors = tf.nest.flatten(extractor(images, training=False))

    across = min(len(chosen), 4)
    down = -(-len(chosen) // across)
    parts = 2 if sign else 1
    figure = Figure((max(3.0 * across, 4.0), 0.4 + (3.6 if sign else 2.4) * down), layout="constrained")
    figure.suptitle(f"Binary activations of {model.name}")
    grid = figure.subplots(parts * down, across, squeeze=False)
    for axes in grid.ravel():
        axes.set_visible(False)
    for number, (found, x) in enumerate(zip(chosen, tensors, strict=True)):
        values, window = (tensor.numpy() for tensor in shifted(found.quantizer, x))
        binary = found.quantizer(x).numpy()
        column = grid[parts * (number // across) :, number % across]
        axes = column[0]
        axes.set_visible(True)
        axes.hist(values.ravel(), 64, weights=np.full(values.size, 1 / values.size), color=_COLORS[0])
        for edge in (-window, window):
            axes.axvline(edge, color="black", linestyle="--", linewidth=0.8)
        axes.set_title(f"{found.name}\n+1: {np.mean(binary > 0):.1%}", size=9)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
        axes.set_xlabel("before the sign", size=8)
        if sign:
            levels, counts = np.unique(binary, return_counts=True)
            axes = column[1]
            axes.set_visible(True)
            axes.bar(levels, counts / binary.size, 0.5, color=_COLORS[1])
            axes.set_xlim(-1.5, 1.5)
            axes.set_xticks([-1, 0, 1] if 0 in levels else [-1, 1])
            axes.set_ylim(0, 1)
            axes.yaxis.set_major_formatter(PercentFormatter(1))
            axes.set_xlabel("after the sign", size=8)
    for axes in grid.ravel():
        axes.tick_params(labelsize=7)
    return figure


def _choose(function: str, argument: str, name: str, known: Mapping[str, Any]) -> Any:
    if name not in known:
        raise ValueError(f"{function}: {argument}={name!r} should be of {', '.join(known)}.")
    return known[name]


def feature_maps(
    model: tf.keras.Model, images: np.ndarray, layer: str | None = None, channels: int | Sequence[int] = 8
) -> Figure:
    r"""Draws how equal copies of RepConv's feature maps become different ones, as RepBNN's Figure 7.

    Left is what the convolution gives for the first image, before it is repeated; then its \\(\beta^2\\) copies
    side by side, behind the batch normalisation and behind the addition of the shortcut. A row is a channel of
    the convolution. Each row of a part has one scale from its darkest to its brightest value, so copies that
    look alike are alike. A part that the network does not have is left out, and the title says so.

    # Arguments
        model: A functional model. Layers of nested models are not looked at.
        images: Input of the model, `(N, height, width, channels)`.
        layer: Name of a Rep convolution or a `Repeat`; by default the middle one of the convolutions with both
            a batch normalisation and a shortcut, or of all.
        channels: Which channels of the convolution, or how many of the first.

    # Raises
        ValueError: If nothing is repeated in the network, or there is no such layer or channel.

    # References
        - [RepBNN: towards a precise Binary Neural Network with Enhanced Feature Map via
          Repeating](https://arxiv.org/abs/2207.09049), Figure 7
    """
    known = {
        node.layer.name: node for node in _nodes(model) if _copies(node.layer) > 1 and len(node.output_shapes) == 4
    }
    if not known:
        raise ValueError(
            f"feature_maps: model '{model.name}' repeats no feature maps: it has no RepQuantConv2D, RepConv2D or "
            "Repeat. Give a Rep network with beta > 1, such as reptran(model, beta=2)."
        )
    if layer is None:
        # Networks with their normalisation before the repetition have nothing but Repeat layers.
        convolutions = [name for name, node in known.items() if isinstance(node.layer, RepLayer)] or list(known)
        complete = [name for name in convolutions if None not in _behind(model, known[name])] or convolutions
        layer = complete[len(complete) // 2]
    node = _choose("feature_maps", "layer", layer, known)
    copies = _copies(node.layer)
    filters = node.output_shapes[-1] // copies
    chosen = list(range(min(channels, filters))) if isinstance(channels, int) else list(channels)
    if not chosen or not all(0 <= channel < filters for channel in chosen):
        raise ValueError(
            f"feature_maps: channels={channels!r} should be of the {filters} channels of '{layer}', 0 to {filters - 1}."
        )
    norm, added = _behind(model, node)
    tensors = {
        "convolution" if isinstance(node.layer, RepLayer) else "before the repeat": node.outputs[..., :filters],
        "after the batch normalisation": norm,
        "after the shortcut": added,
    }
    missing = [
        reason
        for reason, tensor in (("no batch normalisation follows", norm), ("no shortcut is added", added))
        if tensor is None
    ]
    tensors = {title: tensor for title, tensor in tensors.items() if tensor is not None}
    extractor = tf.keras.Model(model.inputs, list(tensors.values()))
    maps = [x.numpy()[0] for x in tf.nest.flatten(extractor(images[:1], training=False))]

    columns = [x.shape[-1] // filters for x in maps]
    # Many copies need the whole width.
    stacked = copies > 4
    across, down = (copies, len(chosen) * len(maps)) if stacked else (sum(columns), len(chosen))
    size = max(min(0.6, 22 / across), 0.2)
    parts = len(maps) if stacked else 1
    figure = Figure((2.2 + size * across, 0.6 + size * down + 0.55 * parts), layout="constrained")
    lines = [
        f"{layer} of {model.name}: {copies} copies of each channel",
        *([f"({'; '.join(missing)})"] if missing else []),
    ]
    figure.suptitle("\n".join(lines), size=10)
    if stacked:
        grid = figure.subplots(len(maps), 1, squeeze=False).ravel()
    else:
        grid = figure.subplots(1, len(maps), squeeze=False, width_ratios=columns).ravel()
    for axes, title, x, times in zip(grid, tensors, maps, columns, strict=True):
        height, width = x.shape[:2]
        gap = -(-max(height, width) // 16)
        axes.imshow(_mosaic(x, chosen, times, gap), cmap="gray", vmin=0, vmax=1)
        axes.set_yticks((np.arange(len(chosen)) * (height + gap)) + (height - 1) / 2, chosen)
        axes.set_xticks((np.arange(times) * (width + gap)) + (width - 1) / 2, np.arange(times) + 1)
        axes.tick_params(labelsize=7, length=0)
        axes.set_title(title, size=8, loc="left")
        axes.set_xlabel("copy", size=8, loc="left")
        axes.set_anchor("W")
        axes.spines[:].set_visible(False)
        axes.set_ylabel("channel", size=8)
    return figure


def _copies(layer: tf.keras.layers.Layer) -> int:
    if isinstance(layer, Repeat):
        return layer.times
    return layer.beta**2 if isinstance(layer, RepLayer) else 1


def _behind(model: tf.keras.Model, node: Any) -> tuple[Any, Any]:
    """The outputs of the batch normalisation and of the addition that follow a call, or None."""
    users: dict[int, list[Any]] = {}
    for user in nodes(model):
        for tensor in user.keras_inputs:
            users.setdefault(id(tensor), []).append(user)
    norm, channels = None, node.output_shapes[-1]
    while len(following := users.get(id(node.outputs), [])) == 1:
        node = following[0]
        if operation(node.layer) in ("Add", "add") and len(node.keras_inputs) > 1:
            return norm, node.outputs
        if is_norm(node.layer):
            if norm is not None:
                break
            norm = node.outputs
        elif (
            len(node.keras_inputs) != 1
            or tf.nest.is_nested(node.outputs)
            or node.output_shapes[-1] != channels
            or isinstance(node.layer, (*CONV, *DEPTHWISE, lq.quantizers.Quantizer))
        ):
            break
    return norm, None


def _mosaic(maps: np.ndarray, channels: Sequence[int], copies: int, gap: int) -> np.ndarray:
    """Rows of channels and columns of copies, each row from 0 to 1, with NaN between."""
    height, width, _ = maps.shape
    tiles = maps.reshape(height, width, copies, -1)[..., list(channels)].transpose(3, 2, 0, 1)
    low, high = (pick(tiles, axis=(1, 2, 3), keepdims=True) for pick in (np.min, np.max))
    tiles = (tiles - low) / np.where(high > low, high - low, 1)
    tiles = np.pad(tiles, ((0, 0), (0, 0), (0, gap), (0, gap)), constant_values=np.nan)
    mosaic = tiles.transpose(0, 2, 1, 3).reshape(len(channels) * (height + gap), copies * (width + gap))
    return mosaic[:-gap, :-gap]


class Point(NamedTuple):
    """A network in `accuracy_against_ops`.

    # Attributes
        name: Its label.
        ops: Operations for one image, FLOPs + BOPs / 64.
        accuracy: Top-1 accuracy in percent.
        family: What has one colour.
        base: Name of the point that a line comes from.
    """

    name: str
    ops: float
    accuracy: float
    family: str = ""
    base: str | None = None


def accuracy_against_ops(points: Iterable[Point]) -> Figure:
    """Draws the accuracies of networks over their operations, as RepBNN's Figure 1.

    An arrow leads from a base network to its Rep network. The operations have a logarithmic scale.

    # Arguments
        points: The networks; names differ.

    # Raises
        ValueError: If there are no points, two have one name, a base is not among them, or a number is not one
            that can be drawn.

    # References
        - [RepBNN: towards a precise Binary Neural Network with Enhanced Feature Map via
          Repeating](https://arxiv.org/abs/2207.09049), Figure 1
    """
    known: dict[str, Point] = {}
    for point in points:
        if point.name in known:
            raise ValueError(f"accuracy_against_ops: two points are named {point.name!r}. Give each a name of its own.")
        if not (point.ops > 0 and np.isfinite(float(point.ops)) and np.isfinite(point.accuracy)):
            raise ValueError(
                f"accuracy_against_ops: {point.name!r} should have ops > 0 and an accuracy, found ops={point.ops} and "
                f"accuracy={point.accuracy}."
            )
        known[point.name] = point._replace(ops=float(point.ops))
    if not known:
        raise ValueError("accuracy_against_ops: there are no points to draw.")

    figure = Figure((9, max(6, 0.2 * len(known))), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    families = list(dict.fromkeys(point.family for point in known.values()))
    for number, family in enumerate(families):
        members = [point for point in known.values() if point.family == family]
        axes.scatter(
            [point.ops for point in members],
            [point.accuracy for point in members],
            s=36,
            color=_COLORS[number % len(_COLORS)],
            marker="osD^v"[number // len(_COLORS) % 5],
            label=family,
            zorder=3,
        )
        for point in members:
            if point.base is not None:
                base = _choose("accuracy_against_ops", f"base of {point.name!r}", point.base, known)
                axes.annotate(
                    "",
                    (point.ops, point.accuracy),
                    (base.ops, base.accuracy),
                    arrowprops=dict(arrowstyle="->", color=_COLORS[number % len(_COLORS)], shrinkA=4, shrinkB=4),
                ).set_in_layout(False)
    ops = [point.ops for point in known.values()]
    # Room for the labels; and at least one mark of 1, 2 or 5.
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
    """Writes the names beside the points, where they cover neither each other nor a point."""
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
        text = axes.annotate(point.name, at, (0, 0), textcoords="offset points", size=8, zorder=4)
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
    """Draws the curves of one or several trainings: of each epoch loss, accuracy and what else there is.

    Training is dashed, validation solid. Learning rate (`lr`) and the means of `BinaryStatistics` (`flip_ratio`,
    `saturated`) have their own parts if a run has them. A vertical line stands between two phases.

    # Arguments
        runs: By name what `fit` returned, or the rows of a table of metrics: for each epoch numbers, or strings as
            of `csv.DictReader`, by the names `loss`, `accuracy`, `val_loss`, `val_accuracy` and `lr`, with `epoch`
            and `phase`. Epochs may go on counting from phase to phase, or begin anew in each. Cells may be empty.
            Rows alone are one run without a name.

    # Raises
        ValueError: If there is no epoch, or nothing of that to draw.
    """
    named = runs if isinstance(runs, Mapping) else {"": runs}
    tables = {name: _table(name, run) for name, run in named.items()}
    metrics = [m for m in _AXES if any({m, f"val_{m}"} & set(columns) for _, columns, _ in tables.values())]
    if not metrics:
        raise ValueError(f"history: nothing to draw, no run has an epoch with one of {', '.join(_AXES)}.")
    across = len(metrics) if len(metrics) < 4 else -(-len(metrics) // 2)
    down = -(-len(metrics) // across)
    figure = Figure((5 * across, 4 * down), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False).ravel()
    for axes in grid[len(metrics) :]:
        axes.remove()
    for axes, metric in zip(grid, metrics, strict=False):
        for number, (name, (epochs, columns, phases)) in enumerate(tables.items()):
            color = _COLORS[number % len(_COLORS)]
            # No line leads from phase to phase.
            breaks = [start for start, _ in phases[1:]]
            for key, style, part in ((metric, ".--", "training"), (f"val_{metric}", ".-", "validation")):
                if key in columns:
                    curve = np.insert(epochs, breaks, np.nan), np.insert(columns[key], breaks, np.nan)
                    style = style if metric in ("loss", "accuracy") else ".-"
                    axes.plot(*curve, style, color=color, label=", ".join(filter(None, (name, part))))
            for start in breaks:
                axes.axvline(epochs[start] - 0.5, color=color if len(tables) > 1 else "gray", linestyle=":")
            if breaks and len(tables) == 1:
                for start, phase in phases:
                    place = dict(xycoords=("data", "axes fraction"), textcoords="offset points")
                    axes.annotate(phase, (epochs[start] - 0.5, 1), (3, 2), size=8, **place)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
        axes.set_ylabel(_AXES[metric])
        axes.grid(alpha=0.3)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 2 * across))
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
    """The name of a phase; 1, 1.0 and "1" are the same one."""
    try:
        return f"phase {float(value):g}"
    except ValueError:
        return str(value)


def plot_history(histories: Mapping[str, tf.keras.callbacks.History], path: str | os.PathLike[str]) -> None:
    """Writes what `history` draws: loss and accuracy of each epoch, training dashed and validation solid.

    # Arguments
        histories: What `train` returned, by name.
        path: Where to write the PNG file. It appears there complete or not at all.
    """
    write(history(histories), path)


def write(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure as a PNG file, which appears complete or not at all.

    # Arguments
        figure: A figure.
        path: Where to write. A file that is there is replaced.

    # Raises
        OSError: If it cannot be written; what was there stays.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path} cannot be written: there is no folder {path.parent}. Make it first.")
    if path.is_dir():
        raise IsADirectoryError(f"{path} cannot be written: it is a folder. Give the name of a file in it.")
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        figure.savefig(unfinished, format="png", dpi=120)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
