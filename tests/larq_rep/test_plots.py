import itertools

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from larq.quantizers import NoOp, SteHeaviside, SteSign
from matplotlib.figure import Figure
from support import few_blocks, images, others_slow, randomize, shallow_resnet20

from larq_rep import plots, signs, zoo
from larq_rep.converters import latency
from larq_rep.layers import BiasedPReLU, RepQuantConv2D, RPReLU
from larq_rep.plots import Point
from larq_rep.quantizers import LeakyRSign, QuantSign, RSign

keras = tf.keras.layers


@pytest.fixture(scope="module", params=others_slow(["RepResNet20", "PresBNet10", "RepReActNetA"], 2))
def network(request):
    size, signs = {"RepResNet20": (16, 8), "RepReActNetA": (32, 26), "PresBNet10": (16, 16)}[request.param]
    with few_blocks():
        return randomize(getattr(zoo, request.param)(input_shape=(size, size, 3), num_classes=10)), signs


def _panels(figure):
    """The axes that show something and are no colour bars."""
    return [axes for axes in figure.axes if axes.get_visible() and axes.get_label() != "<colorbar>"]


def test_signs_of_networks(network):
    model, count = network
    found = signs.signs(model)
    assert len(found) == count
    assert all(sign.quantizer.precision == 1 and not isinstance(sign.quantizer, NoOp) for sign in found)
    names = [layer.name for layer in model.layers]
    positions = [names.index(sign.name) for sign in found]
    assert positions == sorted(positions)


def test_signs_of_gated_fracbnn():
    # Two bits for each of 8 convolutions, which themselves only mark them.
    model = shallow_resnet20(method="fracbnn_gated", width=4, input_shape=(8, 8, 3))
    names = [sign.name for sign in signs.signs(model)]
    assert len(names) == 16
    assert sum(name.endswith("_low") for name in names) == sum(name.endswith("_high") for name in names) == 8


def test_signs_are_computed_by_the_model_they_are_in():
    inner = tf.keras.Input((3,))
    nested = tf.keras.Sequential([keras.Rescaling(3.0, input_shape=(3,)), SteSign(name="sign")], name="nested")
    inputs = tf.keras.Input((3,))
    two_bits = QuantSign(bits=2)(inputs + 1)
    model = tf.keras.Model(inputs, nested(keras.Activation(SteHeaviside(), name="step")(two_bits)))
    found = signs.signs(model)
    assert [sign.name for sign in found] == ["step", "nested/sign"]
    x = np.array([[-3, -1, 2]], np.float32)
    values = tf.keras.Model(model.inputs, [sign.inputs for sign in found])(x)
    np.testing.assert_allclose(values[0], [[-1, 1 / 3, 1]], atol=1e-6)
    np.testing.assert_allclose(values[1], [[0, 3, 3]], atol=1e-6)
    assert [s.name for s in signs.signs(tf.keras.Model(inner, nested(inner)))] == ["nested/sign"]


def _learned(rng):
    inputs = tf.keras.Input((4, 4, 6))
    x = lq.layers.QuantConv2D(5, 1, input_quantizer=RSign(), name="conv")(inputs)
    x = RPReLU(name="rprelu")(x)
    x = BiasedPReLU(name="biased")(LeakyRSign(name="sign")(x))
    x = keras.PReLU(shared_axes=[1, 2], name="prelu")(x)
    model = tf.keras.Model(inputs, x, name="learned")
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    return model


def test_coefficients_are_those_of_the_layers():
    model = _learned(np.random.default_rng(0))
    get = model.get_layer
    expected = {
        "shift of the sign": {"conv": get("conv").input_quantizer.bias, "sign": get("sign").bias},
        "shift in": {"rprelu": get("rprelu").shift_in, "biased": get("biased").bias},
        "slope": {name: get(name).alpha for name in ("rprelu", "biased", "prelu")},
        "shift out": {"rprelu": get("rprelu").shift_out},
    }
    panels = _panels(plots.coefficients(model))
    assert [axes.get_ylabel() for axes in panels] == list(expected)
    for axes, bars in zip(panels, expected.values(), strict=True):
        assert [label.get_text() for label in axes.get_xticklabels()] == list(bars)
        values = [w.numpy().ravel() for w in bars.values()]
        largest = max(np.max(np.abs(v)) for v in values)
        for image, value in zip(axes.images, values, strict=True):
            np.testing.assert_array_equal(image.get_array()[:, 0], value)
            assert image.get_clim() == (pytest.approx(-largest), pytest.approx(largest))
        lows, highs = ({name: extreme(v) for name, v in zip(bars, values, strict=True)} for extreme in (np.min, np.max))
        low, high = min(lows, key=lows.get), max(highs, key=highs.get)
        assert axes.get_title("left") == f"from {lows[low]:.3g} ({low}) to {highs[high]:.3g} ({high})"


def test_coefficients_need_something_learned():
    with pytest.raises(ValueError, match="'Real' has no learned shifts or slopes"):
        plots.coefficients(tf.keras.Sequential([keras.Dense(1, input_shape=(1,))], name="Real"))


def test_figures_of_networks(network, tmp_path):
    model, count = network
    if model.name == "RepResNet20":
        with pytest.raises(ValueError, match="no learned shifts"):
            plots.coefficients(model)
    else:
        panels = _panels(plots.coefficients(model))
        rows = 4
        assert len(panels) == rows
        # PresB-Net has a sign in each of two halves.
        assert len(panels[0].images) == count
    figure = plots.activations(model, images(model))
    assert len(_panels(figure)) == 6
    plots.write(figure, tmp_path / "activations.png")
    if model.name == "PresBNet10":
        with pytest.raises(ValueError, match="'PresBNet10' repeats no feature maps"):
            plots.feature_maps(model, images(model))
    else:
        assert len(_panels(plots.feature_maps(model, images(model)))) == 3


@pytest.mark.parametrize("sign", [True, False])
def test_activations_are_the_shifted_ones(sign):
    rng = np.random.default_rng(1)
    inputs = tf.keras.Input((4, 4, 3))
    shifted = lq.layers.QuantConv2D(2, 1, input_quantizer=RSign(), name="shifted")(inputs)
    stepped = SteHeaviside(clip_value=2.0, name="stepped")(inputs)
    model = tf.keras.Model(inputs, [shifted, stepped])
    shift = np.array([0.5, -1, 2], np.float32)
    model.get_layer("shifted").input_quantizer.bias.assign(shift)
    x = rng.normal(size=(3, 4, 4, 3)).astype(np.float32)
    x[0] = [0, 1, 0]  # the sign of 0 is +1, the step of 0 is 0
    figure = plots.activations(model, x, ["stepped", "shifted"], sign=sign)
    panels = _panels(figure)
    expected = [("stepped", x, 2, [0, 1]), ("shifted", x + shift, 1, [-1, 1])]
    for column, (name, values, window, levels) in enumerate(expected):
        axes = panels[column]
        counts, edges = np.histogram(values, 64)
        np.testing.assert_allclose([bar.get_height() for bar in axes.patches], counts / values.size, atol=1e-6)
        np.testing.assert_allclose([bar.get_x() for bar in axes.patches], edges[:-1], atol=1e-5)
        assert [line.get_xdata()[0] for line in axes.lines] == [-window, window]
        share = np.mean(values >= 0 if name == "shifted" else values > 0)
        assert axes.get_title() == f"{name}\n+1: {share:.1%}"
        if sign:
            bars = panels[2 + column].patches
            np.testing.assert_allclose([bar.get_x() + bar.get_width() / 2 for bar in bars], levels)
            np.testing.assert_allclose([bar.get_height() for bar in bars], [1 - share, share], atol=1e-6)
    assert len(panels) == (4 if sign else 2)


def test_activations_of_unknown_or_no_layers():
    inputs = tf.keras.Input((4, 4, 3))
    model = tf.keras.Model(inputs, SteSign(name="first")(inputs), name="net")
    with pytest.raises(ValueError, match="activations: layers='second' should be one of first"):
        plots.activations(model, images(model), "second")
    model = tf.keras.Model(inputs, keras.ReLU()(inputs), name="net")
    with pytest.raises(ValueError, match="'net' binarizes no activations"):
        plots.activations(model, images(model))


def _rep(beta=2, shortcut=True, norm=True):
    """One RepConv of 3 filters, with different scales for its copies."""
    inputs = tf.keras.Input((4, 5, 2))
    conv = RepQuantConv2D(3 * beta, 3, beta=beta, padding="same", input_quantizer="ste_sign", name="rep")
    x = conv(inputs)
    if norm:
        x = keras.BatchNormalization(name="norm")(x)
    if shortcut:
        other = keras.Conv2D(x.shape[-1], 1, name="other")(inputs)
        x = keras.Add(name="add")([RPReLU(name="between")(x), other])
    return randomize(tf.keras.Model(inputs, keras.ReLU()(x), name="net"))


def _tiles(axes, height=4, width=5, gap=1):
    """The small pictures of a panel, by row and column."""
    mosaic = np.ma.filled(axes.images[0].get_array(), np.nan)
    rows, columns = (mosaic.shape[0] + gap) // (height + gap), (mosaic.shape[1] + gap) // (width + gap)
    assert mosaic.shape == (rows * (height + gap) - gap, columns * (width + gap) - gap)
    return [
        [mosaic[r * (height + gap) :, c * (width + gap) :][:height, :width] for c in range(columns)]
        for r in range(rows)
    ]


def test_feature_maps_are_those_of_the_layers():
    model = _rep()
    x = images(model, 2)
    figure = plots.feature_maps(model, x, channels=[2, 0])
    panels = _panels(figure)
    assert [axes.get_title("left") for axes in panels] == [
        "convolution",
        "after the batch normalisation",
        "after the shortcut",
    ]
    repeated, normed, added = (
        tf.keras.Model(model.inputs, model.get_layer(name).output)(x).numpy()[0] for name in ("rep", "norm", "add")
    )
    for axes, maps, copies in zip(panels, (repeated, normed, added), (1, 4, 4), strict=True):
        tiles = _tiles(axes)
        for row, channel in zip(tiles, [2, 0], strict=True):
            # Copy k of channel c is number 3 k + c.
            values = np.stack([maps[..., 3 * copy + channel] for copy in range(copies)])
            expected = (values - values.min()) / (values.max() - values.min())
            np.testing.assert_allclose(row, expected, atol=1e-5)
        assert [label.get_text() for label in axes.get_yticklabels()] == ["2", "0"]


def test_equal_copies_look_alike():
    model = _rep()
    norm = model.get_layer("norm")
    norm.set_weights([np.full(12, value) for value in (1.5, 0.1, 0.3, 2.0)])
    panels = _panels(plots.feature_maps(model, images(model), "rep"))
    for first, *others in _tiles(panels[1]):
        for other in others:
            np.testing.assert_allclose(other, first, atol=1e-6)
    first, second, *_ = _tiles(panels[2])[0]
    assert np.max(np.abs(first - second)) > 0.05


@pytest.mark.parametrize(
    "options, panels, said",
    [
        (dict(shortcut=False), 2, "(no shortcut is added)"),
        (dict(norm=False), 2, "(no batch normalisation follows)"),
        (dict(shortcut=False, norm=False), 1, "(no batch normalisation follows; no shortcut is added)"),
        (dict(beta=3), 3, "9 copies"),
    ],
)
def test_feature_maps_say_what_is_missing(options, panels, said):
    model = _rep(**options)
    figure = plots.feature_maps(model, images(model))
    assert len(_panels(figure)) == panels
    assert said in figure.get_suptitle()


def test_feature_maps_stop_at_the_next_convolution():
    # RBNN's blocks have a shortcut around both convolutions.
    model = shallow_resnet20(rep=True, method="rbnn", width=4, input_shape=(8, 8, 3))
    titles = [plots.feature_maps(model, images(model), f"layer1_0_conv{i}").get_suptitle() for i in (1, 2)]
    assert ["no shortcut" in title for title in titles] == [True, False]


def test_feature_maps_of_a_wrong_layer_or_channel():
    model = _rep()
    with pytest.raises(ValueError, match="feature_maps: layer='norm' should be one of rep"):
        plots.feature_maps(model, images(model), "norm")
    with pytest.raises(ValueError, match=r"channels=\[3\] should be of the 3 channels of 'rep', 0 to 2"):
        plots.feature_maps(model, images(model), channels=[3])


def test_accuracy_against_ops():
    points = [
        Point("ReActNetA", 87126016, 69.4, "reactnet"),
        Point("RepReActNetA", 88150016, 71.3, "reactnet", "ReActNetA"),
        Point("BiRealNet18", 163e6, 56.4, "bireal"),
    ]
    figure = plots.accuracy_against_ops(points)
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    offsets = [collection.get_offsets().tolist() for collection in axes.collections]
    assert offsets == [[[87126016, 69.4], [88150016, 71.3]], [[163e6, 56.4]]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["reactnet", "bireal"]
    arrows = [text for text in axes.texts if text.arrowprops and text.arrowprops["arrowstyle"] == "->"]
    assert [(arrow.xy, arrow.xyann) for arrow in arrows] == [((88150016.0, 71.3), (87126016.0, 69.4))]


def test_labels_of_crowded_points_do_not_overlap():
    rng = np.random.default_rng(2)
    # One far away, so that the others are near together.
    points = [Point(f"Network{i}", 1e7 * rng.uniform(1, 1.05), rng.uniform(80, 80.5)) for i in range(20)]
    points.append(Point("Other", 1e8, 90.0))
    figure = plots.accuracy_against_ops(points)
    figure.draw_without_rendering()
    labels = [text for text in figure.axes[0].texts if text.get_text()]
    boxes = [label.get_window_extent() for label in labels]
    assert sorted(label.get_text() for label in labels) == sorted(point.name for point in points)
    assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]


@pytest.mark.parametrize(
    "points, message",
    [
        ([], "no points"),
        ([Point("a", 1, 1), Point("a", 2, 2)], "two points are named 'a'"),
        ([Point("a", 0, 1)], "'a' should have ops > 0"),
        ([Point("a", 1, float("nan"))], "found ops=1 and accuracy=nan"),
        ([Point("a", 1, 1, base="b")], "base of 'a'='b' should be one of a"),
    ],
)
def test_points_that_cannot_be_drawn(points, message):
    with pytest.raises(ValueError, match=message):
        plots.accuracy_against_ops(points)


def _curves(axes):
    return [(line.get_linestyle(), np.array(line.get_xydata())) for line in axes.lines if line.get_marker() == "."]


# As numbers of a run, read again as floats, as strings of a CSV file; counting anew in each phase or not.
@pytest.mark.parametrize("kind, first", [(float, 1), (str, 1), (str, 4)])
def test_history_of_two_phases(kind, first):
    loss, accuracy = [3.0, 2.0, 1.5, 2.5, 1.0], [0.1, 0.2, 0.3, 0.1, 0.5]
    epochs = [1, 2, 3, first, first + 1]
    rows = [
        dict(
            phase=1 + (i > 2), epoch=epochs[i], loss=loss[i], accuracy=accuracy[i], val_accuracy=accuracy[i] / 2, lr=0.1
        )
        for i in range(5)
    ]
    rows = [{key: kind(value) for key, value in row.items()} for row in rows]
    if kind is float:
        rows[4]["phase"] = 2  # what a run adds to the rows that it has read
    for row in rows[3:]:
        row["flip_ratio"] = kind(0.25)
    figure = plots.history(rows)
    panels = {axes.get_ylabel(): axes for axes in _panels(figure)}
    assert list(panels) == ["loss", "accuracy", "learning rate", "flipped signs of weights"]
    x = [1, 2, 3, np.nan, 4, 5]

    def broken(values):
        return np.column_stack([x, [*values[:3], np.nan, *values[3:]]])

    expected = {
        "loss": [("--", loss)],
        "accuracy": [("--", accuracy), ("-", np.array(accuracy) / 2)],
        "learning rate": [("-", [0.1] * 5)],
        "flipped signs of weights": [("-", [np.nan] * 3 + [0.25] * 2)],
    }
    for axes, curves in zip(panels.values(), expected.values(), strict=True):
        for (style, points), (expected_style, values) in zip(_curves(axes), curves, strict=True):
            assert style == expected_style
            np.testing.assert_allclose(points, broken(values))
        assert [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"] == [3.5]
        assert [text.get_text() for text in axes.texts] == ["phase 1", "phase 2"]


def _history():
    history = tf.keras.callbacks.History()
    history.epoch = [0, 1]
    history.history = {"loss": [2.0, 1.0], "accuracy": [0.5, 0.75], "val_loss": [2.5, 2.0], "val_accuracy": [0.25, 0.5]}
    return history


def test_history_of_keras_and_of_rows():
    rows = [dict(epoch=1, loss=4.0, accuracy="")]
    figure = plots.history({"a": _history(), "b": rows})
    loss, accuracy = _panels(figure)
    expected = [("--", [[1, 2], [2, 1]]), ("-", [[1, 2.5], [2, 2]]), ("--", [[1, 4]])]
    for (style, points), (expected_style, values) in zip(_curves(loss), expected, strict=True):
        assert style == expected_style
        np.testing.assert_array_equal(points, values)
    assert len(_curves(accuracy)) == 2
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["a, training", "a, validation", "b, training"]


def test_history_that_cannot_be_drawn():
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.history([])
    with pytest.raises(ValueError, match="column 'loss' of run 'a' should hold numbers"):
        plots.history({"a": [dict(epoch=1, loss="much")]})


@pytest.mark.parametrize("name", ["gr\udcc3\udcbcn", "a$b$c", r"$\frac$", "Zürich 数"])
def test_names_are_drawn_whatever_is_in_them(name, tmp_path):
    """Bytes of a file's name that are no UTF-8, and what would be a formula."""
    figures = [plots.history({name: _history()}), plots.accuracy_against_ops([Point(name, 1e6, 50.0, name)])]
    for figure in figures:
        plots.write(figure, tmp_path / "figure.png")
    latency.plot(
        [latency.Result(name, name, 1, 3, 4.0, 3.5, 5.0, 1.0), latency.Result("b", name, 1, reason=name)],
        tmp_path / "bars.png",
    )


def test_history_is_written_as_a_png(tmp_path):
    plots.write(plots.history({"a": _history()}), str(tmp_path / "curves.png"))
    assert [file.name for file in tmp_path.iterdir()] == ["curves.png"]
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_write_completely_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "picture.png"
    path.write_text("old")

    def fails(self, file, **kwargs):
        file.write_text("half")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Figure, "savefig", fails)
        with pytest.raises(OSError, match="disk full"):
            plots.write(Figure(), path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    plots.write(Figure(), path)
    assert path.read_bytes().startswith(b"\x89PNG") and list(tmp_path.iterdir()) == [path]


def test_write_says_what_is_in_the_way(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder .*missing"):
        plots.write(Figure(), tmp_path / "missing" / "picture.png")
    with pytest.raises(IsADirectoryError, match="it is a folder"):
        plots.write(Figure(), tmp_path)
