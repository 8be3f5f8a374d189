import types

import larq as lq
import larq_compute_engine as lce
import numpy as np
import pytest
import tensorflow as tf
from matplotlib.figure import Figure

from larq_rep.converters import latency as module
from larq_rep.converters.latency import Result, benchmark, plot

layers = tf.keras.layers


@pytest.fixture(scope="module")
def dense():
    x = layers.Input((6,))
    return tf.keras.Model(x, layers.Dense(3)(x))


@pytest.fixture(scope="module")
def files(dense):
    x = layers.Input((4, 4, 64))
    quantizers = {"input_quantizer": "approx_sign", "kernel_quantizer": "ste_sign"}
    y = lq.layers.QuantConv2D(32, 1, groups=2, **quantizers)(x)
    return {
        "dense": lce.convert_keras_model(dense),
        "grouped": lce.convert_keras_model(tf.keras.Model(x, y)),
    }


@pytest.fixture
def engines(monkeypatch):
    """A clock that only inferences move on: by the next milliseconds of their mode, else by one."""
    state = types.SimpleNamespace(now=0.0, log=[], inputs=[], milliseconds={})

    class Engine:
        def __init__(self, content, num_threads, use_indirect_bgemm=False, use_xnnpack=False):
            self.mode = "indirect" if use_indirect_bgemm else "default"
            self.mode = self.mode + "+xnnpack" if use_xnnpack else self.mode
            self.interpreter = self

        def predict(self, inputs):
            state.log.append(self.mode)
            state.inputs.append(inputs)
            durations = state.milliseconds.get(self.mode, [])
            state.now += (durations.pop(0) if durations else 1) / 1000

    monkeypatch.setattr(module, "Interpreter", Engine)
    monkeypatch.setattr(module, "time", types.SimpleNamespace(perf_counter=lambda: state.now))
    return state


def test_every_round_runs_every_mode_once(files, engines):
    rounds = []
    benchmark(
        {"dense": files["dense"]},
        modes=("default", "indirect", "indirect+xnnpack"),
        warmup_runs=2,
        num_runs=3,
        progress=lambda done, total: rounds.append((done, total)),
    )
    assert engines.log == ["default", "indirect", "indirect+xnnpack"] * 5
    assert rounds == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


def test_statistics(files, engines):
    # A warm-up of 1000 ms does not count. Of 0, 10, ..., 100 the percentiles are 10, 50 and 90.
    engines.milliseconds["default"] = [1000, 70, 20, 0, 100, 50, 30, 80, 10, 60, 90, 40]
    engines.milliseconds["indirect"] = [1000] + [25] * 11
    default, indirect = benchmark(
        {"dense": files["dense"]}, modes=("default", "indirect"), warmup_runs=1, num_runs=11, num_threads=2
    )
    assert (default.file, default.mode, default.num_threads, default.runs) == ("dense", "default", 2, 11)
    assert (default.p10_ms, default.median_ms, default.p90_ms) == pytest.approx((10, 50, 90))
    assert (indirect.p10_ms, indirect.median_ms, indirect.p90_ms) == pytest.approx((25, 25, 25))
    assert (default.ratio, indirect.ratio) == (1, pytest.approx(0.5))
    assert default.reason == ""


def test_inputs_are_the_same_for_every_mode(files, engines):
    benchmark({"dense": files["dense"]}, modes=("default", "indirect"), warmup_runs=0, num_runs=1)
    (default,), (indirect,) = engines.inputs
    assert (default.shape, default.dtype) == ((1, 6), np.float32)
    np.testing.assert_array_equal(default, indirect)
    assert np.ptp(default) > 0


def test_modes_that_do_not_apply_have_a_reason(files, engines):
    engines.milliseconds["indirect"] = [8]
    default, tflite, xnnpack, indirect = benchmark(
        {"grouped": files["grouped"]},
        modes=("default", "tflite", "xnnpack", "indirect"),
        warmup_runs=0,
        num_runs=1,
    )
    for result in (default, xnnpack):
        assert result.reason == "grouped binary convolutions are not supported with this kernel"
    assert tflite.reason == "stock TFLite has no LceQuantize, LceBconv2d"
    for result in (default, xnnpack, tflite):
        assert (result.runs, result.median_ms, result.p10_ms, result.p90_ms, result.ratio) == (0, *[None] * 4)
    # The ratio refers to the first result that has numbers.
    assert (indirect.median_ms, indirect.ratio) == (pytest.approx(8), 1)


def test_grouped_convolutions_do_fail_in_the_default_mode(files):
    """What `benchmark` takes for granted about LCE's interpreter."""
    with pytest.raises(RuntimeError):
        lce.testing.Interpreter(files["grouped"])


def test_a_file_that_no_interpreter_loads(files, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("AllocateTensors failed\n")

    monkeypatch.setattr(module, "Interpreter", refuse)
    (result,) = benchmark({"dense": files["dense"]}, modes=("default",), num_runs=1)
    assert result.reason == "the interpreter does not load this file: AllocateTensors failed"


def test_all_engines_from_paths(files, dense, tmp_path):
    path = tmp_path / "dense.tflite"
    path.write_bytes(files["dense"])
    results = benchmark([path], modes=module.MODES, keras_models={"dense": dense}, warmup_runs=1, num_runs=3)
    assert [(r.file, r.mode, r.num_threads) for r in results] == [
        *[(str(path), mode, 1) for mode in module.MODES],
        ("dense", "keras", None),
    ]
    for result in results:
        if result.mode == "compiled" and not result.runs:
            assert "LiteRT, which is not installed" in result.reason
            continue
        assert result.runs == 3
        assert 0 < result.p10_ms <= result.median_ms <= result.p90_ms
        assert result.ratio == pytest.approx(result.median_ms / results[0].median_ms)


def test_integer_inputs(tmp_path):
    x = layers.Input((6,), dtype=tf.int32)
    y = layers.Lambda(lambda v: tf.cast(v, tf.float32) * 0.5)(x)
    model = tf.keras.Model(x, y)
    results = benchmark({"int": lce.convert_keras_model(model)}, keras_models={"int": model}, warmup_runs=0, num_runs=1)
    assert [r.runs for r in results] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modes": ("default", "gpu")}, "modes should be of default, .*tflite, delegate, compiled, found 'gpu'"),
        ({"modes": ("indirect:avx2",)}, "modes should be of .* found 'indirect:avx2'"),
        ({"modes": ("delegate:mmx",)}, "runs the implementations .*portable of the delegate, found 'mmx'"),
        ({"modes": ("delegate:",)}, "of the delegate, found ''"),
        ({"num_runs": 0}, "num_runs should be at least 1 .* found 0 and 5"),
        ({"warmup_runs": -1}, "warmup_runs at least 0, found 50 and -1"),
    ],
)
def test_errors(files, options, message):
    with pytest.raises(ValueError, match=message):
        benchmark(files, **options)


RESULTS = [
    Result("net", "indirect", 1, 10, 4.0, 3.5, 5.0, 1.0),
    Result("net", "default", 1, reason="grouped binary convolutions are not supported with this kernel"),
    Result("net", "keras", None, 10, 8.0, 7.0, 9.0, 2.0),
]


def test_plot_shows_medians_percentiles_and_reasons(tmp_path, monkeypatch):
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k)))
    plot(RESULTS, tmp_path / "latency.png")
    assert (tmp_path / "latency.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert [path.name for path in tmp_path.iterdir()] == ["latency.png"]
    (axes,) = figures[0].axes
    assert [bar.get_width() for bar in axes.patches] == [4.0, 8.0]
    errors = [container.errorbar.lines[2][0].get_segments()[0][:, 0] for container in axes.containers[1::2]]
    np.testing.assert_allclose(errors, [[3.5, 5.0], [7.0, 9.0]])
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "net  indirect",
        "net  default",
        "net  keras",
    ]
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["4 ms  (1.00x)", RESULTS[1].reason, "8 ms  (2.00x)"]


def test_plot_keeps_the_old_picture_if_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "latency.png"
    path.write_bytes(b"old")

    def fail(self, target, **_):
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        plot(RESULTS, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
