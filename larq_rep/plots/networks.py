"""Draws learned coefficients, activations and feature maps of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import larq as lq
import numpy as np
import tensorflow as tf

from larq_rep.graph import CONV, DEPTHWISE, is_norm, nodes, operation
from larq_rep.layers import Repeat
from larq_rep.layers.repeat import RepLayer
from larq_rep.plots.file import COLORS, choose, drawable, new_figure
from larq_rep.quantizers.base import COEFFICIENTS, coefficients_of
from larq_rep.signs import graph_nodes, named_layers, shifted, signs

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def coefficients(model: tf.keras.Model) -> Figure:
    """Draws the shifts of the signs and the coefficients of the PReLUs as colour bars, like ReActNet's Figure 8.

    There is a row for each kind: shift of the sign (`RSign`, `LeakyRSign`), shift in (`RPReLU`, and the bias of
    `BiasedPReLU`), slope (those two and Keras' `PReLU`), and shift out. A bar is a layer, with its channels from top
    to bottom; the layers go from input to output. Blue is positive, red negative, with one scale for each row; the
    title of a row gives the extremes and their layers.

    # Arguments
        model: A built model.

    # Raises
        ValueError: If the model has none of these layers, or if a custom quantizer has weights but does not say
            which of them are shifts.

    # References
        - [ReActNet: Towards Precise Binary Neural Network with Generalized Activation
          Functions](https://arxiv.org/abs/2003.03488), Figure 8
    """
    kinds: dict[str, dict[str, Any]] = {kind: {} for kind in COEFFICIENTS}
    for name, layer in named_layers(model):
        if isinstance(layer, tf.keras.layers.PReLU):
            kinds["slope"][name] = layer.alpha
        for owner in (layer, getattr(layer, "input_quantizer", None) or getattr(layer, "activation", None)):
            for kind, weight in coefficients_of(owner).items():
                kinds[kind][name] = weight
    kinds = {kind: {name: np.ravel(w) for name, w in rows.items()} for kind, rows in kinds.items() if rows}
    if not kinds:
        raise ValueError(
            f"coefficients: model '{model.name}' has no learned shifts or slopes to draw: no RSign, LeakyRSign, "
            "RPReLU, BiasedPReLU or PReLU."
        )

    rows = list(kinds.items())
    longest = max(len(bars) for _, bars in rows)
    # Rows of the same layers share the layers' names, below the last of these rows.
    named = [i + 1 == len(rows) or list(bars) != list(rows[i + 1][1]) for i, (_, bars) in enumerate(rows)]
    label = 0.065 * max(len(name) for _, bars in rows for name in bars)
    heights = [1.5 + label * names for names in named]
    figure = new_figure(max(6.0, 2.5 + 0.3 * longest), sum(heights) + 0.4)
    figure.suptitle(drawable(f"Learned coefficients of {model.name}, from input to output"))
    for axes, names, (kind, bars) in zip(figure.subplots(len(rows), squeeze=False)[:, 0], named, rows, strict=True):
        largest = max(float(np.max(np.abs(values))) for values in bars.values()) or 1.0
        for x, values in enumerate(bars.values()):
            image = axes.imshow(
                values[:, None],
                cmap="RdBu",
                vmin=-largest,
                vmax=largest,
                extent=(x - 0.45, x + 0.45, 0, 1),
                # Averaging several channels would hide the extreme ones.
                interpolation="nearest",
                aspect="auto",
            )
        low, high = min(bars, key=lambda name: bars[name].min()), max(bars, key=lambda name: bars[name].max())
        ends = f"from {bars[low].min():.3g} ({low}) to {bars[high].max():.3g} ({high})"
        axes.set_title(drawable(ends), size=8, loc="left")
        axes.set_xlim(-0.6, longest - 0.4)
        axes.set_xticks(range(len(bars)), [drawable(bar) if names else "" for bar in bars], rotation=90, size=7)
        axes.set_yticks([])
        axes.set_ylabel(kind)
        axes.spines[:].set_visible(False)
        figure.colorbar(image, ax=axes, pad=0.01, fraction=0.02, aspect=12)
    return figure


def activations(
    model: tf.keras.Model, images: np.ndarray, layers: str | Sequence[str] | None = None, sign: bool = True
) -> Figure:
    """Draws histograms of the values before and after a network's signs, like ReActNet's Figure 9.

    The value before the sign is the one whose sign is taken: with `RSign` the shifted one (see `shifted`). Dashed
    lines mark the window beyond which no gradient passes, or 1 where it passes everywhere. The title gives the share
    of +1 after the sign.

    # Arguments
        model: A functional model.
        images: Input of the model, `(N, height, width, channels)`.
        layers: Names of the layers that have the signs, see `Sign`; by default the first, middle and last one.
        sign: Whether to also draw the values after the sign.

    # Raises
        ValueError: If the model has no sign, or none with a given name.

    # References
        - [ReActNet: Towards Precise Binary Neural Network with Generalized Activation
          Functions](https://arxiv.org/abs/2003.03488), Figure 9
    """
    from matplotlib.ticker import PercentFormatter

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
        choose("activations", "layers", name, known) for name in ([layers] if isinstance(layers, str) else layers)
    ]
    extractor = tf.keras.Model(model.inputs, [found.inputs for found in chosen])
    tensors = tf.nest.flatten(extractor(images, training=False))

    across = min(len(chosen), 4)
    down = -(-len(chosen) // across)
    parts = 2 if sign else 1
    figure = new_figure(max(3.0 * across, 4.0), 0.4 + (3.6 if sign else 2.4) * down)
    figure.suptitle(drawable(f"Binary activations of {model.name}"))
    grid = figure.subplots(parts * down, across, squeeze=False)
    for axes in grid.ravel():
        axes.set_visible(False)
    for number, (found, x) in enumerate(zip(chosen, tensors, strict=True)):
        values, window = (tensor.numpy() for tensor in shifted(found.quantizer, x))
        binary = found.quantizer(x).numpy()
        column = grid[parts * (number // across) :, number % across]
        axes = column[0]
        axes.set_visible(True)
        axes.hist(values.ravel(), 64, weights=np.full(values.size, 1 / values.size), color=COLORS[0])
        for edge in (-window, window):
            axes.axvline(edge, color="black", linestyle="--", linewidth=0.8)
        axes.set_title(drawable(f"{found.name}\n+1: {np.mean(binary > 0):.1%}"), size=9)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
        axes.set_xlabel("before the sign", size=8)
        if sign:
            levels, counts = np.unique(binary, return_counts=True)
            axes = column[1]
            axes.set_visible(True)
            axes.bar(levels, counts / binary.size, 0.5, color=COLORS[1])
            axes.set_xlim(-1.5, 1.5)
            axes.set_xticks([-1, 0, 1] if 0 in levels else [-1, 1])
            axes.set_ylim(0, 1)
            axes.yaxis.set_major_formatter(PercentFormatter(1))
            axes.set_xlabel("after the sign", size=8)
    for axes in grid.ravel():
        axes.tick_params(labelsize=7)
    return figure


def feature_maps(
    model: tf.keras.Model, images: np.ndarray, layer: str | None = None, channels: int | Sequence[int] = 8
) -> Figure:
    r"""Draws how equal copies of RepConv's feature maps become different, like RepBNN's Figure 7.

    On the left is the convolution's output for the first image, before it is repeated; then its \\(\beta^2\\) copies
    side by side, after the batch normalisation and after the addition of the shortcut. A row is a channel of
    the convolution. Each row of a part has one scale from its darkest to its brightest value, so copies that
    look alike are alike. A part that the network does not have is left out, and the title says so.

    # Arguments
        model: A functional model. Layers of nested models are ignored.
        images: Input of the model, `(N, height, width, channels)`.
        layer: Name of a Rep convolution or a `Repeat`; by default the middle one of the convolutions with both
            a batch normalisation and a shortcut, or of all.
        channels: Numbers of the convolution's channels to draw, or how many of the first ones.

    # Raises
        ValueError: If the network repeats nothing, or there is no such layer or channel.

    # References
        - [RepBNN: towards a precise Binary Neural Network with Enhanced Feature Map via
          Repeating](https://arxiv.org/abs/2207.09049), Figure 7
    """
    known = {
        node.layer.name: node for node in graph_nodes(model) if _copies(node.layer) > 1 and len(node.output_shapes) == 4
    }
    if not known:
        raise ValueError(
            f"feature_maps: model '{model.name}' repeats no feature maps: it has no RepQuantConv2D, RepConv2D or "
            "Repeat. Give a Rep network with beta > 1, such as reptran(model, beta=2)."
        )
    if layer is None:
        # Networks with their normalisation before the repetition have only Repeat layers.
        convolutions = [name for name, node in known.items() if isinstance(node.layer, RepLayer)] or list(known)
        complete = [name for name in convolutions if None not in _behind(model, known[name])] or convolutions
        layer = complete[len(complete) // 2]
    node = choose("feature_maps", "layer", layer, known)
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
    lines = [
        f"{layer} of {model.name}: {copies} copies of each channel",
        *([f"({'; '.join(missing)})"] if missing else []),
    ]
    return _mosaics("\n".join(lines), dict(zip(tensors, maps, strict=True)), chosen, filters, copies)


def _mosaics(title: str, maps: Mapping[str, np.ndarray], chosen: Sequence[int], filters: int, copies: int) -> Figure:
    """Draws the maps under their titles, side by side or one above the other."""
    columns = [x.shape[-1] // filters for x in maps.values()]
    # Many copies need the whole width.
    stacked = copies > 4
    across, down = (copies, len(chosen) * len(maps)) if stacked else (sum(columns), len(chosen))
    size = max(min(0.6, 22 / across), 0.2)
    parts = len(maps) if stacked else 1
    figure = new_figure(2.2 + size * across, 0.6 + size * down + 0.55 * parts)
    figure.suptitle(drawable(title), size=10)
    if stacked:
        grid = figure.subplots(len(maps), 1, squeeze=False).ravel()
    else:
        grid = figure.subplots(1, len(maps), squeeze=False, width_ratios=columns).ravel()
    for axes, (name, x), times in zip(grid, maps.items(), columns, strict=True):
        height, width = x.shape[:2]
        gap = -(-max(height, width) // 16)
        axes.imshow(_mosaic(x, chosen, times, gap), cmap="gray", vmin=0, vmax=1)
        axes.set_yticks((np.arange(len(chosen)) * (height + gap)) + (height - 1) / 2, chosen)
        axes.set_xticks((np.arange(times) * (width + gap)) + (width - 1) / 2, np.arange(times) + 1)
        axes.tick_params(labelsize=7, length=0)
        axes.set_title(drawable(name), size=8, loc="left")
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
    """The outputs of the batch normalisation and of the addition that follow a call, each None if there is none."""
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
    """Arranges channels in rows and copies in columns, each row from 0 to 1, with NaN between."""
    height, width, _ = maps.shape
    tiles = maps.reshape(height, width, copies, -1)[..., list(channels)].transpose(3, 2, 0, 1)
    low, high = (pick(tiles, axis=(1, 2, 3), keepdims=True) for pick in (np.min, np.max))
    tiles = (tiles - low) / np.where(high > low, high - low, 1)
    tiles = np.pad(tiles, ((0, 0), (0, 0), (0, gap), (0, gap)), constant_values=np.nan)
    mosaic = tiles.transpose(0, 2, 1, 3).reshape(len(channels) * (height + gap), copies * (width + gap))
    return mosaic[:-gap, :-gap]
