"""The AAR: what is in it, and that a project which has nothing else of ours runs on it."""

import larq_rep  # noqa: F401  (before TensorFlow, which graphs imports: it chooses Keras 2)

# isort: split
import io
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import graphs
import numpy as np
import pytest

DEMO = Path(__file__).resolve().parents[1]
ABIS = ("arm64-v8a", "x86_64")
LIBRARIES = ("liblarq_rep_delegate.so", "liblarq_rep_jni.so")
ANDROID = "{http://schemas.android.com/apk/res/android}"

FOREIGN = """
import com.larqrep.runtime.LarqRepDelegate;
import java.io.File;
import org.tensorflow.lite.Interpreter;

class Foreign {
  public static void main(String[] arguments) {
    File model = new File(arguments[0]);
    float[][][][] input = new float[1][1][1][64];
    for (int i = 0; i < 64; i++) input[0][0][0][i] = i % 3 - 1;
    float[][][][] output = new float[1][1][1][8];
    LarqRepDelegate delegate = new LarqRepDelegate();
    Interpreter interpreter = new Interpreter(model, new Interpreter.Options().addDelegate(delegate));
    interpreter.run(input, output);
    interpreter.close();
    delegate.close();
    for (float value : output[0][0][0]) System.out.println(value);
  }
}
"""

needs_java = pytest.mark.skipif(shutil.which("javac") is None, reason="needs Debian's openjdk-17-jdk-headless")


@pytest.fixture(scope="module")
def aar(built):
    return built("larq-rep-runtime.aar")


def test_structure(aar, built):
    with zipfile.ZipFile(aar) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [
            "AndroidManifest.xml",
            "classes.jar",
            "R.txt",
            "proguard.txt",
            *(f"jni/{abi}/{name}" for abi in ABIS for name in LIBRARIES),
            "LICENSE",
            "NOTICE",
        ]
        assert all(info.date_time == (1980, 1, 1, 0, 0, 0) for info in archive.infolist())
        entries = {name: archive.read(name) for name in archive.namelist()}
    manifest = ElementTree.fromstring(entries["AndroidManifest.xml"])
    assert manifest.get("package") == "com.larqrep.runtime"
    assert [uses.get(ANDROID + "minSdkVersion") for uses in manifest.findall("uses-sdk")] == ["24"]
    assert entries["R.txt"] == b"" and b"Apache License" in entries["LICENSE"]
    assert b"TensorFlow" in entries["NOTICE"] and b"GCC Runtime Library Exception" in entries["NOTICE"]
    for abi in ABIS:
        for name in LIBRARIES:
            assert entries[f"jni/{abi}/{name}"] == built(f"native/{abi}/{name}").read_bytes()
    with zipfile.ZipFile(io.BytesIO(entries["classes.jar"])) as classes:
        assert classes.namelist() == [f"com/larqrep/runtime/LarqRepDelegate{inner}.class" for inner in ("$Options", "")]
        # Java 8, which every version of Android's tools takes.
        assert all(classes.read(name)[:8] == b"\xca\xfe\xba\xbe\0\0\0\x34" for name in classes.namelist())


def test_two_packs_are_equal(aar, tmp_path):
    command = [sys.executable, DEMO / "tools" / "aar.py", tmp_path / "again.aar", "--min-sdk", "24"]
    folders = ["--classes", DEMO / "build" / "runtime" / "classes", "--libraries", DEMO / "build" / "native"]
    subprocess.run([*command, *folders], check=True)
    assert (tmp_path / "again.aar").read_bytes() == aar.read_bytes()


def test_packer_without_libraries_says_what_to_do(aar, tmp_path):
    command = [sys.executable, DEMO / "tools" / "aar.py", tmp_path / "a.aar", "--min-sdk", "24", "--classes"]
    result = subprocess.run(
        [*command, aar.parent / "runtime" / "classes", "--libraries", tmp_path], capture_output=True
    )
    assert result.returncode == 1 and b"Run make aar" in result.stderr and not (tmp_path / "a.aar").exists()


def test_version_is_that_of_the_python_package():
    version = re.search(r'version="(.*?)"', (DEMO.parent / "setup.py").read_text())[1]
    source = DEMO / "runtime" / "src" / "main" / "java" / "com" / "larqrep" / "runtime" / "LarqRepDelegate.java"
    assert f'String VERSION = "{version}";' in source.read_text()


@pytest.fixture(scope="module")
def foreign(aar, built, tmp_path_factory):
    """A folder with a compiled class, and the command that runs it; the AARs are all that it knows."""
    folder = tmp_path_factory.mktemp("foreign")
    jars = []
    for path in (aar, built("maven/build/tensorflow-lite-api.aar"), built("maven/build/tensorflow-lite.aar")):
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder / path.stem)
        jars.append(folder / path.stem / "classes.jar")
        for library in (folder / path.stem).glob("jni/x86_64/*.so"):
            shutil.copy2(library, folder)
    (folder / "Foreign.java").write_text(FOREIGN)
    classpath = ":".join(map(str, [folder, *jars]))
    command = ["javac", "--release", "8", "-Xlint:all,-options", "-Werror", "-cp", classpath, "-d", folder]
    result = subprocess.run([*command, folder / "Foreign.java"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    graph = graphs.Graph()
    y = graph.bconv(graph.quantize(graph.input((1, 1, 1, 64))), np.random.default_rng(0), 64, 8, kernel=(1, 1))
    (folder / "network.tflite").write_bytes(graph.content(y))
    return folder, ["java", "-cp", classpath, "Foreign", folder / "network.tflite"]


@needs_java
def test_foreign_project_runs(foreign, built):
    folder, (java, *arguments) = foreign
    built("shim/x86_64/libc.so")
    shim = DEMO / "build" / "shim" / "x86_64"
    environment = {**os.environ, "LD_LIBRARY_PATH": f"{shim}:{folder}"}
    command = [java, f"-Djava.library.path={folder}", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    # The weights as graphs draws them; a set bit is -1, and the sign of zero is 1.
    rng = np.random.default_rng(0)
    weights = 1 - 2 * rng.integers(0, 2, (8, 1, 1, 64)).reshape(8, 64)
    multiplier, bias = rng.normal(0, 1, 8).astype(np.float32), rng.normal(0, 5, 8).astype(np.float32)
    sums = (weights @ np.where(np.arange(64) % 3 == 0, -1, 1)).astype(np.float32)
    np.testing.assert_allclose(np.array(result.stdout.split(), np.float32), sums * multiplier + bias, rtol=1e-6)


@needs_java
def test_missing_library_is_explained(foreign):
    _, (java, *arguments) = foreign
    result = subprocess.run([java, "-Djava.library.path=/nowhere", *arguments], capture_output=True, text=True)
    assert result.returncode == 1
    assert "cannot load liblarq_rep_delegate.so" in result.stderr and "arm64-v8a or x86_64" in result.stderr
    assert "no larq_rep_delegate in java.library.path" in result.stderr
