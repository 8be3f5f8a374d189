"""The program `lce`, in this process where that does, with one small network."""

import json
import os
import subprocess
import sys
import zipfile

import h5py
import larq as lq
import larq_rep_runtime
import numpy as np
import pytest
import tensorflow as tf
import venvs
from commands import refused, run
from PIL import Image

import larq_rep
from larq_rep import cost, data, zoo
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.converters.latency import MODES
from larq_rep_cli import files, terminal
from larq_rep_cli.lce import benchmark

# Of few layers, so that each command takes little time.
NETWORK = ["RepVGGSmall", "--set", "width=4", "--input-size", "16x16x1"]
CONVOLUTIONS = 5


def network(seed=0):
    tf.keras.utils.set_random_seed(seed)
    return zoo.RepVGGSmall(width=4, input_shape=(16, 16, 1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lce")


@pytest.fixture(scope="module")
def converted(folder):
    """The network's file, and what `lce convert` printed; converted by another process than the tests'."""
    path = folder / "rep.tflite"
    command = [sys.executable, "-c", "from larq_rep_cli.lce import main; main()", "convert", *NETWORK, "-o", path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return path, done.stdout, done.stderr


@pytest.fixture(scope="module")
def keras_file(folder):
    path = folder / "rep.h5"
    network().save(path)
    return path


def edited(path, source, operator, constant, change):
    """Writes the file again with a constant of its first operator of that name changed."""
    flatbuffer = Flatbuffer(source.read_bytes())
    tensor = next(op for op in flatbuffer.operators if op.name == operator).inputs[constant]
    flatbuffer.set_constant(tensor, change(flatbuffer.constant(tensor).copy()))
    path.write_bytes(flatbuffer.pack())
    return path


# Start-up and terminal


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom larq_rep_cli.lce import main\nmain(['--help'], standalone_mode=False)\n"
        "print(sorted({'larq_rep', 'tensorflow', 'numpy', 'matplotlib', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "benchmark" in done.stdout


@pytest.mark.parametrize(
    "command", ["convert", "quantize", "fold", "verify", "inspect", "benchmark", "zoo list", "zoo show"]
)
def test_help_has_examples(command):
    assert f"  lce {command} " in run(*command.split(), "--help").stdout.split("Examples:")[1]


def test_modes_are_those_of_the_library():
    assert benchmark._MODES == MODES


def test_convert_ends_with_one_line_and_is_quiet(converted):
    path, out, err = converted
    size = path.stat().st_size / 1e6
    assert out.startswith(f"{path}: {size:.2f} MB, {CONVOLUTIONS} of {CONVOLUTIONS} binary convolutions bitpacked, ")
    assert len(out.splitlines()) == 1
    # Nothing of TensorFlow, larq or LCE's converter, only that there are no trained weights.
    assert len(err.splitlines()) == 1
    assert "untrained" in err and "seed 0" in err


# lce convert


def test_convert_a_keras_file_with_json_and_force(keras_file, tmp_path):
    path = tmp_path / "rep.tflite"
    path.write_text("old")
    result = run("convert", keras_file, "-o", path, "--json", "--force", "--float-weights", "float16")
    report = json.loads(result.stdout)
    assert result.exit_code == 0
    assert report["bitpacked"] == report["binary"] == CONVOLUTIONS
    assert report["size"] == path.stat().st_size == len(path.read_bytes())
    assert report["float_weights"] == "float16"
    assert [p.name for p in tmp_path.iterdir()] == ["rep.tflite"]


def test_weights_of_few_levels(tmp_path):
    i = tf.keras.Input((8, 8, 32))
    x = lq.layers.QuantConv2D(32, 3, kernel_quantizer="magnitude_aware_sign", name="signs")(tf.keras.layers.ReLU()(i))
    tf.keras.Model(i, tf.keras.layers.Conv2D(8, 3)(x)).save(tmp_path / "model.h5")
    exact, other = tmp_path / "exact.tflite", tmp_path / "float32.tflite"
    result = run("convert", tmp_path / "model.h5", "-o", exact)
    said = "exact: int8 holds the weights of 1 operator without loss, in 9,600 bytes instead of 36,864."
    assert result.exit_code == 0 and said in " ".join(result.stderr.split())
    report = json.loads(run("convert", tmp_path / "model.h5", "-o", other, "--no-exact-int8", "--json").stdout)
    assert (report["exact"], report["exact_bytes_before"], report["exact_bytes"]) == (0, 0, 0)
    assert other.stat().st_size - exact.stat().st_size == pytest.approx(36_864 - 9_600, abs=400)
    assert run("verify", tmp_path / "model.h5", exact, "--random", 1).exit_code == 0
    for path, bits in ((exact, 8), (other, 32)):
        layers = json.loads(run("inspect", path, "--json").stdout)["real_operators"]
        assert [(layer["weight_bits"], layer["needed_bits"]) for layer in layers] == [(bits, 1), (32, 32)]
        rows = [row.split("│")[1:-1] for row in run("inspect", path).stdout.splitlines() if "CONV_2D" in row]
        assert [[cell.strip() for cell in row[3:5]] for row in rows if len(row) > 5] == [[str(bits), "1"], ["32", "32"]]


def test_convert_takes_weights_of_a_named_network(tmp_path):
    weights, path = tmp_path / "w.h5", tmp_path / "rep.tflite"
    network(seed=7).save_weights(weights)
    assert run("convert", *NETWORK, "--weights", weights, "-o", path).exit_code == 0
    assert run("verify", *NETWORK[:1], path, *NETWORK[1:], "--random", 1, "--seed", 7).exit_code == 0


def test_fold_does_to_a_file_what_convert_does(converted, tmp_path):
    unfolded, folded = tmp_path / "unfolded.tflite", tmp_path / "folded.tflite"
    assert run("convert", *NETWORK, "--no-fold", "-o", unfolded).exit_code == 0
    result = run("fold", unfolded, "-o", folded)
    assert result.exit_code == 0
    operators = [
        [(op.name, op.inputs, op.outputs) for op in Flatbuffer(path.read_bytes()).operators]
        for path in (unfolded, folded, converted[0])
    ]
    assert operators[1] == operators[2]
    counts = [sum(name == "MUL" for name, *_ in operators[i]) for i in (0, 1)]
    # Behind each tile; before training all copies of a channel have the same factor. That of the stem clips, too.
    assert counts == [CONVOLUTIONS + 1, 1]
    assert [cell.strip() for cell in next(x for x in result.stdout.splitlines() if "MUL" in x).split("│")[1:-1]] == [
        "MUL",
        *map(str, counts),
    ]
    assert result.stdout.splitlines()[-1].startswith(f"{folded}: {folded.stat().st_size / 1e6:.2f} MB, ")

    assert "--force" in refused("fold", unfolded, "-o", folded)
    assert "expected the name of a .tflite file" in refused("fold", unfolded, "-o", tmp_path / "folded")
    report = json.loads(run("fold", folded, "-o", folded, "--force", "--json").stdout)
    assert report["folded_away"] == 0
    assert report["size_before"] == report["size_after"] == folded.stat().st_size
    assert report["operators_before"] == report["operators_after"]


def test_fold_refuses_other_files(sources, tmp_path):
    assert "should be b'TFL3'" in refused("fold", sources["text"], "-o", tmp_path / "m.tflite")
    assert "no file" in refused("fold", tmp_path / "missing.tflite", "-o", tmp_path / "m.tflite")
    assert not list(tmp_path.iterdir())


def test_an_existing_file_stays(tmp_path):
    path = tmp_path / "rep.tflite"
    path.write_text("old")
    assert "--force" in refused("convert", *NETWORK, "-o", path)
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    "output, message", [("nowhere/rep.tflite", "no folder"), ("rep.h5", "expected the name of a .tflite file")]
)
def test_the_output_is_checked_before_the_work(tmp_path, output, message):
    assert message in refused("convert", "no such model", "-o", tmp_path / output)


def test_a_conversion_that_would_stay_float_is_refused(tmp_path):
    """LCE has no binary depthwise convolution. The model comes as a SavedModel."""
    image = tf.keras.Input((12, 12, 32))
    layer = lq.layers.QuantDepthwiseConv2D(
        3, input_quantizer="ste_sign", depthwise_quantizer="ste_sign", name="float_one"
    )
    tf.keras.Model(image, layer(image)).save(tmp_path / "saved")
    path = tmp_path / "m.tflite"
    message = refused("convert", tmp_path / "saved", "-o", path)
    assert "silent-float: float_one" in message and "--allow-float" in message
    assert not path.exists()
    result = run("convert", tmp_path / "saved", "-o", path, "--allow-float")
    assert "0 of 1 binary convolutions" in result.stdout
    assert "silent-float: float_one" in result.stderr


class Unregistered(tf.keras.layers.Layer):
    pass


@pytest.fixture(scope="module")
def sources(folder):
    """Files that are no models, by a name for the test."""
    paths = {name: folder / f"bad_{name}" for name in ("text", "folder", "weights", "keras3", "unknown")}
    paths["text"].write_text("Hello.")
    paths["folder"].mkdir()
    with h5py.File(paths["weights"], "w") as file:
        file.attrs["layer_names"] = ["conv"]
    with zipfile.ZipFile(paths["keras3"], "w") as archive:
        archive.writestr("metadata.json", '{"keras_version": "3.4.1"}')
    paths["unknown"] = paths["unknown"].with_suffix(".h5")
    tf.keras.Sequential([tf.keras.Input((3,)), Unregistered()]).save(paths["unknown"])
    return paths


@pytest.mark.parametrize(
    "source, message",
    [
        ("text", "not a Keras file"),
        ("folder", "no saved_model.pb"),
        ("weights", "--weights"),
        ("keras3", "Keras 3.4.1"),
        ("unknown", "register_keras_custom_object"),
    ],
)
def test_files_that_are_no_models(sources, source, message, tmp_path):
    error = refused("convert", sources[source], "-o", tmp_path / "m.tflite")
    assert message in error and str(sources[source]) in error


@pytest.mark.parametrize(
    "args, message",
    [
        (["RepResnet2O"], "Did you mean RepResNet20"),
        (["missing.h5"], "no file or folder missing.h5"),
        (["qqqqqqqq"], "lce zoo list"),
        (["ResNet20", "--beta", "2"], "ResNet20 has no argument 'beta'"),
        (["RepResNet20", "--beta", "3"], "beta"),
        (["ResNet20", "--input-size", "12x"], "HxW"),
        (["ResNet20", "--input-size", "13"], "multiples of 4"),
        (["ResNet20", "--weights", "missing.h5"], "missing.h5"),
    ],
)
def test_models_that_do_not_exist(args, message, tmp_path):
    assert message in refused("convert", *args, "-o", tmp_path / "m.tflite")


def test_options_of_named_networks_do_not_go_with_a_file(keras_file, tmp_path):
    assert "leave out" in refused("convert", keras_file, "--set", "width=8", "-o", tmp_path / "m.tflite")


@pytest.fixture(scope="module")
def free_file(folder):
    """A grey network whose image size is free."""
    image = tf.keras.Input((None, None, 1))
    pooled = tf.keras.layers.GlobalAveragePooling2D()(tf.keras.layers.Conv2D(2, 3)(image))
    tf.keras.Model(image, pooled).save(folder / "free.h5")
    return folder / "free.h5"


@pytest.mark.parametrize("size, shape", [("12", (1, 12, 12, 1)), ("10x14", (1, 10, 14, 1)), ("8x9x1", (1, 8, 9, 1))])
def test_input_size_of_a_file_with_a_free_one(size, shape, free_file, tmp_path):
    path = tmp_path / "m.tflite"
    assert run("convert", free_file, "--input-size", size, "-o", path).exit_code == 0
    flatbuffer = Flatbuffer(path.read_bytes())
    assert flatbuffer.shape(flatbuffer.inputs[0]) == shape
    if size == "12":
        assert run("verify", free_file, path, "--input-size", size, "--runtime", "lce").exit_code == 0


def test_input_size_that_does_not_fit_a_file(free_file, keras_file, folder, tmp_path):
    command = ("-o", tmp_path / "m.tflite", "--input-size")
    assert "--input-size" in refused("convert", free_file, "-o", tmp_path / "m.tflite")
    assert "found (1, 8, 8, 3). Only free sizes" in refused("convert", free_file, *command, "8x8x3")
    assert "takes (None, 16, 16, 1)" in refused("convert", keras_file, *command, "8")
    rows = tf.keras.Input((None, 4))
    tf.keras.Model(rows, tf.keras.layers.Conv1D(2, 1)(rows)).save(folder / "rows.h5")
    assert "convert(model, example=" in refused("convert", folder / "rows.h5", *command, "8")
    assert run("convert", keras_file, *command, "16").exit_code == 0
    assert "--input-size" in refused("verify", free_file, tmp_path / "m.tflite")


def test_mistyped_command():
    assert "Did you mean convert?" in refused("convrt")


# lce verify


def test_verify_agrees_across_processes_and_tells_seeds_apart(converted):
    path, *_ = converted
    assert run("verify", NETWORK[0], path, *NETWORK[1:]).exit_code == 0
    other = run("verify", NETWORK[0], path, *NETWORK[1:], "--seed", 1)
    assert other.exit_code == 1
    assert other.stdout.startswith("weights: ")


def test_verify_with_digits(converted):
    path, *_ = converted
    result = run("verify", NETWORK[0], path, *NETWORK[1:], "--digits", "--proof-images", 1, "--json")
    report = json.loads(result.stdout)
    images, labels = data.digits("test", 16)
    expected = np.mean(network().predict(images, verbose=0).argmax(axis=1) == labels)
    assert result.exit_code == 0
    assert report["ok"] and report["images"] == 1 and report["convolutions"] == CONVOLUTIONS
    assert report["images_compared"] == 360
    assert report["accuracy"]["keras"] == expected


def test_verify_finds_a_flipped_weight(converted, tmp_path):
    def flip(filters):
        filters.flat[0] ^= 1
        return filters

    broken = edited(tmp_path / "broken.tflite", converted[0], "LceBconv2d", 1, flip)
    result = run("verify", NETWORK[0], broken, *NETWORK[1:], "--random", 1)
    assert result.exit_code == 1
    assert result.stdout.startswith("weights: conv1: ")
    report = run("verify", NETWORK[0], broken, *NETWORK[1:], "--random", 1, "--json")
    assert report.exit_code == 1
    assert json.loads(report.stdout)["differences"][0]["layer"] == "conv1"


def test_verify_names_the_images_with_other_answers(converted, tmp_path):
    """A file that always answers 0, and a folder with images of two classes."""
    rng = np.random.default_rng(0)
    for name in ("cat/a.png", "cat/b.png", "dog/c.png"):
        file = tmp_path / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(file)
    images, *_ = data.image_folder(tmp_path / "images", 16, 1)
    answers = network().predict(images, verbose=0).argmax(axis=1)
    names = ["cat/a.png", "cat/b.png", "dog/c.png"]
    constant = edited(tmp_path / "zero.tflite", converted[0], "FULLY_CONNECTED", 1, lambda weights: 0 * weights)
    result = run("verify", NETWORK[0], constant, *NETWORK[1:], "--images", tmp_path / "images", "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == 1
    assert report["accuracy"]["tflite"] == 2 / 3
    assert report["disagreements"] == [
        {"image": name, "keras": answer, "tflite": 0}
        for name, answer in zip(names, answers.tolist(), strict=True)
        if answer != 0
    ]
    assert report["disagreements"]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--digits", "--random", "1"], "exclude each other"),
        (["--images", "EMPTY"], "no images"),
        (["--images", "nowhere"], "not a folder"),
        (["--digits", "--input-size", "16"], "one channel"),
        (["--input-size", "24x24x1"], "another network"),
    ],
)
def test_verify_refuses(converted, tmp_path, options, message):
    options = [str(tmp_path) if option == "EMPTY" else option for option in options]
    assert message in refused("verify", NETWORK[0], converted[0], *NETWORK[1:], *options)


@pytest.mark.parametrize("command", [["inspect"], ["benchmark"], ["verify", *NETWORK]])
def test_damaged_and_missing_files(command, sources, tmp_path):
    assert "bad_text" in refused(*command, sources["text"])
    assert "no file" in refused(*command, tmp_path / "missing.tflite")
    assert "is a folder" in refused(*command, tmp_path)


# lce inspect, benchmark, zoo


def test_inspect(converted):
    path, *_ = converted
    report = json.loads(run("inspect", path, "--json").stdout)
    assert report["operators"]["LceBconv2d"] == CONVOLUTIONS
    counted = cost.count(network())
    assert (report["binary_macs"], report["real_macs"]) == (counted.bops, counted.flops)
    assert report["size"] == path.stat().st_size
    table = run("inspect", path).stdout
    assert f"{counted.bops:,} binary" in table and "LceBconv2d" in table
    assert "\x1b" not in table


def test_inspect_says_what_an_older_version_may_have_done(converted, tmp_path):
    """A relu in front of a map that is added, as LCE's own converter writes it, and version 0.1.0."""
    from larq_compute_engine import convert_keras_model

    normal, mean = (tf.keras.initializers.RandomNormal(mean, 2, seed=mean) for mean in (0, 2))
    signs = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "use_bias": False}
    x = image = tf.keras.Input((4, 4, 32))
    x = lq.layers.QuantConv2D(32, 3, activation="relu", kernel_initializer=normal, **signs)(x)
    x = tf.keras.layers.BatchNormalization(gamma_initializer=normal, moving_mean_initializer=mean)(x)
    x = tf.keras.layers.Lambda(lambda x: x + tf.reshape(tf.linspace(-3.0, 3.0, 4), (2, 2, 1)))(x)
    model = tf.keras.Model(image, lq.layers.QuantConv2D(4, 1, **signs)(x))
    path = tmp_path / "lce.tflite"
    path.write_bytes(convert_keras_model(model))
    report = json.loads(run("inspect", path, "--json").stdout)
    assert [finding["rule"] for finding in report["findings"]] == ["double-clamp", "unknown-constants"]
    assert report["metadata"] == {}
    printed = run("inspect", path).stdout
    assert "double-clamp: operator 1 (LceBconv2d): " in printed and "unknown-constants: file: " in printed
    assert "Converted by" not in printed

    about = json.loads(run("inspect", converted[0], "--json").stdout)
    assert about["metadata"]["version"] == larq_rep.__version__ and about["findings"] == []
    assert f"Converted by larq-rep {larq_rep.__version__}." in run("inspect", converted[0]).stdout


def test_delegate(converted):
    path = converted[0]
    result = run("verify", *NETWORK, path, "--random", 1, "--runtime", "delegate")
    assert result.stdout.endswith("The delegate on stock TFLite computes what LCE's interpreter computes.\n")

    options = ("--mode", "default", "--num_runs", 2, "--warmup_runs", 0)
    wanted = ("--runtime", "delegate", "--implementation", "portable", "--profile")
    result = json.loads(run("benchmark", path, *options, *wanted, "--json").stdout)
    assert [r["mode"] for r in result["results"]] == ["default", "delegate:portable"]
    assert all(r["median_ms"] > 0 for r in result["results"])
    steps = [step["name"] for part in result["profile"] for step in part["steps"]]
    assert sum("LceBconv2d" in name for name in steps) == CONVOLUTIONS
    printed = run("benchmark", path, *options, *wanted).stdout
    assert "Steps of the delegate" in printed and "besides the file" in printed
    assert "this processor runs" in refused("benchmark", path, "--implementation", "avx1024")


def test_compiled(converted, request):
    """A process of its own, because LiteRT, once it is there, is the interpreter, too."""
    packages = next(venvs.installed(request, "ai-edge-litert").parents[1].glob("lib/python*/site-packages"))
    code = "import sys; sys.path.append(sys.argv.pop(1)); from larq_rep_cli.lce import main; main()"

    def lce(*arguments):
        command = [sys.executable, "-c", code, packages, *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    proved = lce("verify", *NETWORK, converted[0], "--random", 1, "--runtime", "compiled")
    assert "outputs with the interpreter's bits on 1 images." in proved.stdout.splitlines()[-1], proved
    options = ("--mode", "delegate", "--runtime", "compiled", "--implementation", "portable", "--num_runs", 2)
    results = json.loads(lce("benchmark", converted[0], *options, "--json").stdout)["results"]
    assert [r["mode"] for r in results] == ["delegate:portable", "compiled:portable"]
    assert all(r["median_ms"] > 0 for r in results)


def test_compiled_without_litert(converted, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.setattr("larq_rep.converters.latency.benchmark", lambda *_, **__: pytest.fail("it measured"))
    for options in (("--runtime", "compiled"), ("--mode", "compiled")):
        assert "needs LiteRT, which is not installed" in refused("benchmark", converted[0], *options)
    options = ("--random", 1, "--runtime", "compiled")
    assert "needs LiteRT, which is not installed" in refused("verify", *NETWORK, converted[0], *options)


@pytest.mark.parametrize("options", [("--profile",), ("--runtime", "delegate"), ("--mode", "delegate")])
def test_delegate_that_was_not_built_costs_no_measuring(converted, missing_delegate, options, monkeypatch):
    monkeypatch.setattr("larq_rep.converters.latency.benchmark", lambda *_, **__: pytest.fail("it measured"))
    assert "was not built" in refused("benchmark", converted[0], *options)


def test_delegate_that_was_not_built_costs_no_proof(converted, missing_delegate, monkeypatch):
    monkeypatch.setattr("larq_rep.converters.verification.check_interfaces", lambda *_: pytest.fail("it compared"))
    assert "was not built" in refused("verify", *NETWORK, converted[0], "--random", 1, "--runtime", "delegate")


@pytest.fixture
def missing_delegate(monkeypatch, tmp_path):
    monkeypatch.setattr("larq_rep_runtime.library.__file__", str(tmp_path / "library.py"))
    larq_rep_runtime.available_implementations.cache_clear()
    yield
    larq_rep_runtime.available_implementations.cache_clear()


def test_benchmark(converted, tmp_path):
    path, *_ = converted
    plot = tmp_path / "bars.png"
    options = ["--mode", "indirect", "--mode", "tflite", "--num_runs", 2, "--warmup-runs", 0, "--plot", plot]
    result = run("benchmark", path, *options, "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == 0
    assert [(r["file"], r["mode"], r["runs"]) for r in report["results"]] == [
        (str(path), "indirect", 2),
        (str(path), "tflite", 0),
    ]
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "--force" in refused("benchmark", path, *options)
    assert "LceBconv2d" in refused("benchmark", path, "--mode", "tflite", "--num_runs", 1)


def test_zoo_list():
    records = json.loads(run("zoo", "list", "RESNET20", "--json").stdout)
    assert {(r["name"], r["dataset"], r["num_classes"]) for r in records} == {("ResNet20", "cifar10", 10)}
    assert len({json.dumps(r["arguments"]) for r in records}) == len(records) > 5
    first = records[0]
    assert (first["trainable_params"], first["ops"], first["paper"]["arxiv"]) == (269850, 1069696, "1909.10788")
    assert first["results"][0]["top1"] == 86.5
    table = run("zoo", "list", "*", "--family", "reactnet").stdout
    assert "RepReActNetA" in table and "29,343,592" in table and "ResNet20" not in table
    assert "No network" in refused("zoo", "list", "nothing")
    assert "family must be one of" in refused("zoo", "list", "--family", "nothing")
    everything = {r["name"] for r in json.loads(run("zoo", "list", "--json").stdout)}
    assert everything == set(zoo.list_models())


def test_zoo_show():
    """Integers of IR-Net's ResNet-20: 40.1 M binary and 0.44 M real multiply-accumulates, 0.27 M parameters."""
    report = json.loads(run("zoo", "show", "ResNet20", "--json").stdout)
    assert (report["bops"], report["flops"], report["trainable_params"]) == (40108032, 443008, 269850)
    assert len(report["rows"]) > CONVOLUTIONS
    table = run("zoo", "show", "ResNet20").stdout
    assert "40,108,032" in table and "layer3_2_conv2" in table
    assert "layer3_2_conv2" not in run("zoo", "show", "ResNet20", "--no-layers").stdout
    assert "Did you mean ResNet20" in refused("zoo", "show", "resnet2")


def test_arguments_of_the_constructor():
    report = json.loads(run("zoo", "show", "ResNet20", "--set", "method=recu", "--no-layers", "--json").stdout)
    assert report["trainable_params"] == 270522
    assert "method must be one of 'irnet'" in refused("zoo", "show", "ResNet20", "--set", "method=none")
    assert "ResNet20 has no argument 'depth'. It has: method, width" in refused(
        "zoo", "show", "ResNet20", "--set", "depth=3"
    )
    assert "Expected KEY=VALUE" in refused("zoo", "show", "ResNet20", "--set", "recu")


# What the programs share


def test_replacing_leaves_the_old_file_if_the_work_fails(tmp_path):
    path = tmp_path / "file.h5"
    path.write_text("old")
    with pytest.raises(KeyError), files.replacing(path) as unfinished:
        unfinished.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with files.replacing(path) as unfinished:
        assert unfinished.suffix == ".h5"
        unfinished.write_text("new")
    assert path.read_text() == "new"


def test_json_is_strict(capsys):
    terminal.print_json({"error": float("nan"), "largest": float("inf")})
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {"error": None, "largest": None}
