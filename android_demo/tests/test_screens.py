"""The app's screens and what lies behind them, on this machine: Robolectric plays Android.

The tests are in Java (app/src/test/java); here are their files and what they are compared with. They draw each screen
into build/screens.
"""

import larq_rep  # noqa: F401  (before TensorFlow: it chooses Keras 2)

# isort: split
import json
import os
import re
import subprocess
from pathlib import Path

import assets
import graphs
import larq_rep_runtime
import numpy as np
import pytest
from larq_rep_runtime.images import as_input
from larq_rep_runtime.preparation import preparation
from PIL import Image, ImageDraw

DEMO = Path(__file__).resolve().parents[1]
PACKAGE = "com.larqrep.benchmark"
TESTS = DEMO / "app" / "src" / "test" / "java" / "com" / "larqrep" / "benchmark"
# They load the native libraries, which a process does once, or are no tests.
APART = {"NativeTest", "ScreenTest"}
SCREENS = ("benchmark", "benchmark-running", "benchmark-failed", "result-agrees", "result-differs", "compare",
           "compare-running", "compare-finished", "try-empty", "try-digit", "try-picture", "device")  # fmt: skip
KINDS = ("light-portrait", "light-landscape", "dark-portrait", "dark-landscape", "large-letters")
# Where the stored rows and columns of a picture begin, by its EXIF orientation.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def scene(width, height):
    """A picture of smooth colours, some edges and noise."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:height, :width]
    channels = (x * 255 / width, y * 255 / height, 127 + 120 * np.sin(x / 17 + y / 29))
    image = Image.fromarray(np.clip(np.stack(channels, -1) + rng.normal(0, 6, (height, width, 3)), 0, 255).astype("u1"))
    draw = ImageDraw.Draw(image)
    draw.ellipse((width // 5, height // 4, width // 2, height // 2), (230, 40, 40))
    draw.rectangle((width // 2, height // 2, width - 20, height - 9), (20, 60, 210))
    return image


def save_turned(image, path, orientation):
    """Saves a picture lying, with the EXIF orientation that turns it back."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = image.transpose(TURNS[orientation]) if orientation in TURNS else image
    stored.save(path, quality=95, subsampling=0, exif=exif)


def make_pictures(folder):
    """Pictures, and what the Python runtime makes of them."""
    scene(333, 251).save(folder / "upright.png")
    save_turned(scene(300, 400), folder / "turned.jpg", 6)
    transparent = scene(120, 200).convert("RGBA")
    transparent.putalpha(Image.linear_gradient("L").resize(transparent.size))
    transparent.save(folder / "transparent.png")
    for orientation in range(1, 9):
        save_turned(scene(48, 32), folder / f"orientation{orientation}.jpg", orientation)
    scene(90, 60).resize((9000, 6000)).save(folder / "large.jpg")
    imagenet = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "resize": 256}
    cases = [
        ("upright.png", (224, 224, 3), {"input": imagenet}),
        ("turned.jpg", (224, 224, 3), {"input": imagenet}),
        ("transparent.png", (64, 48, 3), {"input": {"range": [-1, 1], "mirrored": True}}),
        ("turned.jpg", (28, 28, 1), {}),
    ]
    lines = []
    for i, (file, shape, metadata) in enumerate(cases):
        detail = {"shape": np.array((1, *shape)), "dtype": np.float32, "quantization": (0.0, 0)}
        prepared = preparation(metadata, detail)
        prepared(str(folder / file)).astype("<f4").tofile(folder / f"expected{i}.f32")
        level = (prepared.range[1] - prepared.range[0]) / 255 / min(prepared.std or (1,))
        height, width, channels = shape
        lines.append({"file": file, "expected": f"expected{i}.f32", "height": height, "width": width,
                      "channels": channels, "metadata": metadata, "level": level})  # fmt: skip
    (folder / "pictures.txt").write_text("\n".join(map(json.dumps, lines)))


def make_networks(folder, bundled):
    """A file cut off, one with half floats, one without operators of LCE, and one with a byte of a weight changed."""
    content = (bundled / "ResNet20.tflite").read_bytes()
    (folder / "cut.tflite").write_bytes(content[: len(content) // 2])
    graph = graphs.Graph()
    x = graph.input((1, 4))
    y = graph.add("RELU", [x], (1, 4))
    (folder / "no_lce.tflite").write_bytes(graph.content(y))
    reference = assets.as_json(assets.reference(graph.content(y)))
    assets.reference_file(folder / "no_lce.tflite").write_bytes(reference)
    graph.graph.tensors[x].type = graphs.schema.TensorType.FLOAT16
    (folder / "float16.tflite").write_bytes(graph.content(y))
    (folder / "fault.tflite").write_bytes(with_fault(content))
    (folder / "fault.reference.json").write_bytes((bundled / "ResNet20.reference.json").read_bytes())


def with_fault(content):
    """A network with a byte of a weight changed, so that outputs for the generated input differ by a hundredth."""
    model = graphs.schema.ModelT.InitFromPackedBuf(content, 0)
    expected = outputs(content)
    for tensor in model.subgraphs[0].tensors:
        weights = model.buffers[tensor.buffer].data
        if weights is None or len(weights) < 64 or tensor.type != graphs.schema.TensorType.FLOAT32:
            continue
        place = content.index(bytes(weights)) + len(weights) // 8 * 4 + 3  # The byte with the exponent.
        faulty = content[:place] + bytes([content[place] ^ 0x80]) + content[place + 1 :]
        if np.abs(outputs(faulty) - expected).max() > 0.01 * np.ptp(expected):
            return faulty
    raise AssertionError("No weight matters.")


def outputs(content):
    interpreter = larq_rep_runtime.Interpreter(content)
    (detail,) = interpreter.inputs
    return interpreter.predict(assets.generated(detail["shape"], np.dtype(detail["dtype"])))


@pytest.fixture(scope="module")
def fixtures(built, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fixtures")
    make_pictures(folder)
    make_networks(folder, built("assets"))
    interpreter = larq_rep_runtime.Interpreter(built("assets") / "RepReActNetA.tflite")
    (detail,) = interpreter.inputs
    x = preparation(interpreter.metadata, detail)(str(folder / "upright.png"))[None]
    (folder / "class.txt").write_text(str(int(interpreter.predict(as_input(x, detail)).argmax())))
    return folder


@pytest.fixture(scope="module")
def junit(built, fixtures):
    """Runs test classes in a Java machine, and returns what it prints."""
    arguments = built("robolectric.args")
    (DEMO / "build" / "screens").mkdir(exist_ok=True)

    def run(classes, properties=(), environment=None):
        command = ["java", "-Xmx2g", f"@{arguments}", *properties, f"-Dlarqrep.fixtures={fixtures}"]
        command += [f"-Dlarqrep.screens={DEMO / 'build' / 'screens'}", "org.junit.runner.JUnitCore"]
        return subprocess.run(
            [*command, *(f"{PACKAGE}.{name}" for name in classes)],
            capture_output=True, text=True, env={**os.environ, **(environment or {})}, cwd=DEMO,
        )  # fmt: skip

    return run


def count_of_tests(classes):
    return sum(len(re.findall(r"^  @Test\b", (TESTS / f"{name}.java").read_text(), re.MULTILINE)) for name in classes)


def assert_all_passed(result, classes):
    count = count_of_tests(classes)
    assert count and f"OK ({count} tests)" in result.stdout, result.stdout[-20000:] + result.stderr[-4000:]
    assert result.returncode == 0


def test_screens(junit):
    """All controls, rotation, errors, am start, pictures; and a picture of each screen."""
    for picture in (folder := DEMO / "build" / "screens").glob("*.png"):
        picture.unlink()
    classes = sorted({path.stem for path in TESTS.glob("*Test.java")} - APART)
    assert_all_passed(junit(classes), classes)
    assert {path.stem for path in folder.glob("*.png")} == {f"{name}-{kind}" for name in SCREENS for kind in KINDS}
    for path in folder.glob("*.png"):
        with Image.open(path) as image:
            assert image.size == ((1462, 822) if "landscape" in path.name else (822, 1462))
            grey = np.asarray(image.convert("L"))
        # Some letters on much background, which is dark or light as the name says.
        assert (np.median(grey) < 64) == ("dark" in path.name) and grey.std() > 10, path


@pytest.fixture(scope="module")
def reports(junit, built, fixtures):
    """What the app wrote with Android's libraries, once all of its tests have passed."""
    shim = built("shim/x86_64/libc.so").parent
    libraries = shim / "app"
    properties = [f"-Djava.library.path={libraries}", f"-Dlarqrep.libraries={libraries}"]
    result = junit(["NativeTest"], properties, {"LD_LIBRARY_PATH": f"{shim}:{libraries}"})
    assert_all_passed(result, ["NativeTest"])
    return {
        path.name.removesuffix(".report.json"): json.loads(path.read_text()) for path in fixtures.glob("*.report.json")
    }


def test_reports_hold_what_numpy_computes(reports, built):
    """Statistics of the runs, and outputs that are the Python runtime's."""
    bundled = json.loads((built("assets") / "networks.json").read_text())["networks"]
    for network in bundled:
        report = reports[network["name"]]
        runs = report["runs_ms"]
        assert len(runs) == report["num_runs"] == 5
        found = [report[name] for name in ("median_ms", "p10_ms", "p90_ms", "min_ms")]
        assert np.allclose(found, [*np.percentile(runs, [50, 10, 90]), min(runs)], rtol=1e-12)
        content = (built("assets") / network["file"]).read_bytes()
        expected = outputs(content)[0]
        assert report["bytes"] == len(content)
        assert report["top"][0]["index"] == expected.argmax()
        assert report["top"][0]["value"] == pytest.approx(expected.max(), rel=1e-4)
    assert len(reports["compare"]["compare"]) >= 2
