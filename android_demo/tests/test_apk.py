"""The signed APK: what Android demands of it, what it calls, and that two builds give the same file."""

import os
import re
import shutil
import struct
import subprocess
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

DEMO = Path(__file__).resolve().parents[1]
ROOT = DEMO.parent
ANDROID = "{http://schemas.android.com/apk/res/android}"
ABIS = ["arm64-v8a", "x86_64"]
LIBRARIES = ["liblarq_rep_delegate.so", "liblarq_rep_jni.so", "libtensorflowlite_jni.so"]


def output_of(*command: object, status: int = 0) -> str:
    """What a command prints, errors too, if it ends with the status."""
    words = [str(word) for word in command]
    result = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert result.returncode == status, f"{' '.join(words)}\n{result.stdout}"
    return result.stdout


@pytest.fixture(scope="module")
def apk(built) -> Path:
    return built("larq-rep-benchmark.apk")


@pytest.fixture(scope="module")
def dex(apk, tmp_path_factory) -> str:
    """dexdump's lines of the app's classes."""
    folder = tmp_path_factory.mktemp("dex")
    with zipfile.ZipFile(apk) as archive:
        archive.extract("classes.dex", folder)
    return output_of("dexdump", folder / "classes.dex")


def class_of(dex: str, name: str) -> str:
    """dexdump's lines of one class, `name` with dots; no lines if it is missing."""
    descriptor = f"'L{name.replace('.', '/')};'"
    for part in re.split(r"^Class #\d+", dex, flags=re.MULTILINE):
        if re.search(rf"Class descriptor +: {re.escape(descriptor)}", part):
            return part
    return ""


def test_the_signature_is_valid_from_the_lowest_level_on(apk):
    said = output_of("apksigner", "verify", "--verbose", "--min-sdk-version", 24, apk)
    assert "Verified using v2 scheme (APK Signature Scheme v2): true" in said
    assert "Verified using v3 scheme (APK Signature Scheme v3): true" in said


def test_a_changed_byte_breaks_the_signature(apk, tmp_path):
    content = bytearray(apk.read_bytes())
    with zipfile.ZipFile(apk) as archive:
        content[data_offset(content, archive.getinfo(f"lib/{ABIS[0]}/{LIBRARIES[0]}")) + 100] ^= 1
    (tmp_path / "changed.apk").write_bytes(content)
    assert "DOES NOT VERIFY" in output_of("apksigner", "verify", tmp_path / "changed.apk", status=1)


def data_offset(content: bytes, entry: zipfile.ZipInfo) -> int:
    name_bytes, extra_bytes = struct.unpack_from("<HH", content, entry.header_offset + 26)
    return entry.header_offset + 30 + name_bytes + extra_bytes


def test_entries_are_aligned_and_stored_as_android_maps_them(apk):
    output_of("zipalign", "-c", "-p", 4, apk)
    content = apk.read_bytes()
    seen = {".so": 0, ".tflite": 0}
    with zipfile.ZipFile(apk) as archive:
        assert archive.testzip() is None
        for entry in archive.infolist():
            suffix = Path(entry.filename).suffix
            if suffix not in seen and entry.filename != "resources.arsc":
                continue
            assert entry.compress_type == zipfile.ZIP_STORED, f"{entry.filename} is compressed"
            alignment = {".so": 16384, ".tflite": 64}.get(suffix, 4)
            offset = data_offset(content, entry)
            assert offset % alignment == 0, f"{entry.filename} begins at {offset}, no multiple of {alignment}"
            seen[suffix] = seen.get(suffix, 0) + 1
    assert seen[".so"] == len(ABIS) * len(LIBRARIES) and seen[".tflite"] >= 3


def test_it_has_the_libraries_of_both_abis_and_no_other(apk):
    with zipfile.ZipFile(apk) as archive:
        names = {name for name in archive.namelist() if name.startswith("lib/")}
    assert names == {f"lib/{abi}/{library}" for abi in ABIS for library in LIBRARIES}


def test_what_a_device_is_told(apk):
    version = re.search(r'^    version="(.*)"', (ROOT / "setup.py").read_text(), re.MULTILINE)[1]
    major, minor, patch = map(int, version.split("."))
    said = output_of("aapt2", "dump", "badging", apk)
    code = major * 10000 + minor * 100 + patch
    assert f"package: name='com.larqrep.benchmark' versionCode='{code}' versionName='{version}'" in said
    assert "sdkVersion:'24'" in said and "targetSdkVersion:'34'" in said
    assert "launchable-activity: name='com.larqrep.benchmark.BenchmarkActivity'" in said
    assert re.search(r"^native-code: 'arm64-v8a' 'x86_64'$", said, re.MULTILINE)
    assert "application-debuggable" not in said


def test_it_asks_for_no_permission(apk):
    assert output_of("aapt2", "dump", "permissions", apk).split() == ["package:", "com.larqrep.benchmark"]
    assert "uses-permission" not in output_of("aapt2", "dump", "xmltree", "--file", "AndroidManifest.xml", apk)


def test_each_component_of_the_manifest_has_its_class(dex):
    application = ElementTree.parse(DEMO / "app/src/main/AndroidManifest.xml").getroot().find("application")
    components = [f"com.larqrep.benchmark{node.get(f'{ANDROID}name')}" for node in application]
    assert len([name for name in components if name.endswith("Activity")]) == 5
    assert [name for name in components if not class_of(dex, name)] == []
    assert class_of(dex, "com.larqrep.benchmark.NoSuchActivity") == ""


def test_the_classes_of_tflite_and_of_the_delegate_are_in_it(dex):
    assert class_of(dex, "org.tensorflow.lite.Interpreter")
    assert class_of(dex, "org.tensorflow.lite.Delegate")
    assert "'Lorg/tensorflow/lite/Delegate;'" in class_of(dex, "com.larqrep.runtime.LarqRepDelegate")


@pytest.mark.parametrize("abi", ABIS)
def test_each_native_method_is_exported(apk, dex, abi, tmp_path):
    delegate = class_of(dex, "com.larqrep.runtime.LarqRepDelegate")
    methods = re.findall(r"name +: '(\w+)'\n +type +: '[^']*'\n +access +: \S+ \([^)]*\bNATIVE\b", delegate)
    assert sorted(methods) == ["create", "destroy"]
    with zipfile.ZipFile(apk) as archive:
        library = archive.extract(f"lib/{abi}/liblarq_rep_jni.so", tmp_path)
    symbols = output_of("llvm-nm", "-D", "--defined-only", library)
    exported = re.findall(r" T Java_com_larqrep_runtime_LarqRepDelegate_(\w+)", symbols)
    assert sorted(exported) == sorted(methods)


def test_it_is_under_thirty_megabytes(apk):
    assert apk.stat().st_size < 30e6


# Calls of newer Androids.


# String.join is of level 26; d8 puts its own in place of it.
BACKPORTED = {"String String.join(CharSequence, Iterable)", "String String.join(CharSequence, CharSequence[])"}


def newer_calls(built, *files: Path) -> set[str]:
    """Methods and classes that the files use and Android's public API of level 24 lacks."""
    jars = [built(f"maven/test/{name}.jar") for name in ("animal-sniffer", "asm")]
    signatures = built("maven/test/gummy-bears-api-24.signature")
    checker = DEMO / "tests" / "support" / "ApiCheck.java"
    said = output_of("java", "-cp", ":".join(map(str, jars)), checker, signatures, *files)
    return set(re.findall(r"Undefined reference: (.*)", said))


def test_app_and_library_call_nothing_newer_than_level_24(built, apk, tmp_path):
    assert newer_calls(built, built("app.jar"), built("aar/classes.jar")) <= BACKPORTED
    with zipfile.ZipFile(apk) as archive:
        code = output_of("dexdump", "-d", archive.extract("classes.dex", tmp_path))
    assert "Ljava/lang/String;.format:" in code and "Ljava/lang/String;.join:" not in code


PLANTED = """
package com.larqrep.benchmark;
%s class Planted {
  Object newer(android.content.Context context) { return context.getMainExecutor(); }
  String hidden() { return android.os.SystemProperties.get("ro.build.version.sdk"); }
}
"""


def test_newer_and_hidden_methods_are_found_but_in_the_class_that_asks_for_the_level(built, tmp_path):
    android = built("maven/build/android-all.jar")
    found = {}
    for annotation in ("", "@android.annotation.TargetApi(34)"):
        (tmp_path / "Planted.java").write_text(PLANTED % annotation)
        output_of("javac", "--release", 8, "-Xlint:none", "-cp", android, "-d", tmp_path, tmp_path / "Planted.java")
        found[annotation] = newer_calls(built, tmp_path / "com/larqrep/benchmark/Planted.class")
    hidden, newer = sorted(found.pop(""), key=lambda reference: "getMainExecutor" in reference)
    assert "Context.getMainExecutor()" in newer and "SystemProperties" in hidden
    assert found == {"@android.annotation.TargetApi(34)": set()}


# Two builds.


@pytest.fixture(scope="module")
def copy(apk, tmp_path_factory) -> Path:
    """A copy of the sources at another place, with the fetched artifacts and the networks, and without the products."""
    root = tmp_path_factory.mktemp("copy")
    for name in ["setup.py", "LICENSE", "runtime/Makefile", "runtime/src"]:
        source, target = ROOT / name, root / name
        target.parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy2(source, target)
    shutil.copytree(DEMO, root / "android_demo", ignore=shutil.ignore_patterns("build", "__pycache__"))
    (root / ".venv").symlink_to(ROOT / ".venv")
    build = root / "android_demo" / "build"
    build.mkdir()
    (build / "maven").symlink_to(DEMO / "build" / "maven")
    shutil.copytree(DEMO / "build" / "assets", build / "assets")
    output_of("make", "-j2", "-C", root / "android_demo", "build/larq-rep-benchmark-unsigned.apk")
    return root / "android_demo"


def test_two_builds_give_the_same_unsigned_file(built, copy):
    first = built("larq-rep-benchmark-unsigned.apk").read_bytes()
    assert (copy / "build/larq-rep-benchmark-unsigned.apk").read_bytes() == first
    assert (copy / "build/larq-rep-runtime.aar").read_bytes() == built("larq-rep-runtime.aar").read_bytes()


def commands_after_change_of(copy: Path, source: str) -> str:
    """What make would run if a source were newer."""
    return output_of("make", "-n", "-C", copy, "-W", source, "build/larq-rep-benchmark-unsigned.apk")


def test_a_changed_source_rebuilds_what_depends_on_it_and_an_unchanged_one_nothing(copy):
    output_of("make", "-q", "-C", copy, "build/larq-rep-benchmark-unsigned.apk")
    java = commands_after_change_of(copy, "app/src/main/java/com/larqrep/benchmark/BenchmarkActivity.java")
    assert "javac" in java and "D8" in java and "pack.py" in java and "clang" not in java and "aapt2" not in java
    c_source = commands_after_change_of(copy, "../runtime/src/plugin.c")
    assert len(re.findall(r"^clang .* -c -o ", c_source, re.MULTILINE)) == len(ABIS)
    assert "aar.py" in c_source and "pack.py" in c_source
    resource = commands_after_change_of(copy, "app/src/main/res/values/strings.xml")
    assert "aapt2 compile" in resource and "javac" in resource and "clang" not in resource
    network = commands_after_change_of(copy, "build/assets/networks.json")
    assert "aapt2 link" in network and "javac" not in network
    assert "mvn" not in java + c_source + resource + network


@pytest.mark.parametrize(
    "source, command",
    [
        ("app/src/main/java/com/larqrep/benchmark/DrawView.java", "javac"),
        ("app/src/main/res/values-w600dp/dimens.xml", "aapt2 compile"),
        ("../runtime/src/plugin.c", "liblarq_rep_delegate.so"),
        ("runtime/src/main/java/com/larqrep/runtime/LarqRepDelegate.java", "build/runtime/classes"),
    ],
)
def test_what_is_made_of_a_source_that_is_removed_is_made_again(copy, source, command):
    path = copy / source
    content, times = path.read_bytes(), path.parent.stat()
    path.unlink()
    try:
        assert command in output_of("make", "-n", "-C", copy, "build/larq-rep-benchmark-unsigned.apk")
    finally:
        path.write_bytes(content)
        os.utime(path, ns=(0, 0))
        os.utime(path.parent, ns=(times.st_atime_ns, times.st_mtime_ns))
