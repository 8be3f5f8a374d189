"""The Gradle project and the Makefile build the same app: every fact that both state is compared."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GRADLE_FILES = ["settings.gradle", "build.gradle", "app/build.gradle", "runtime/build.gradle"]
CMAKE = "android_demo/runtime/src/main/cpp/CMakeLists.txt"
DELEGATE = "android_demo/runtime/src/main/java/com/larqrep/runtime/LarqRepDelegate.java"
X86_SOURCES = ["isa_popcnt", "isa_avx2", "isa_avx512"]
# Android 14 has the API level 34, Android 15 has 35.
LEVEL_MINUS_ANDROID = 20


def make_variables(folder: Path, *names: str) -> dict[str, str]:
    """The values that make itself gives to variables of a Makefile."""
    lines = "".join(f"$(info {name}=$({name}))" for name in names)
    command = ["make", "-s", "-C", folder, "--eval", f"show-variables: ; @: {lines}", "show-variables"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return dict(re.findall(r"^(\S+)=(.*)$", output, re.MULTILINE))


def x86_flags_of_make(folder: Path, objects: str) -> dict[str, set[str]]:
    """The -m flags of make's commands for the x86 sources, whose objects are in the folder `objects`."""
    # It only prints the commands, so that no compiler is needed.
    command = ["make", "-n", "-B", "-C", folder, "CLANG=clang", *(f"{objects}/{name}.o" for name in X86_SOURCES)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = {name: " ".join(re.findall(rf"^.* -c .*\b{name}\.c$", output, re.MULTILINE)) for name in X86_SOURCES}
    return {name: set(re.findall(r"(?<=\s)-m[a-z0-9=-]+", line)) for name, line in lines.items()}


def only(pattern: str, path: Path) -> str:
    """The one match of a pattern in a file, as words parted by blanks."""
    found = re.findall(pattern, path.read_text(), re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"{path}: expected one match of {pattern}, found {len(found)}"
    return " ".join(re.findall(r"[^\s,']+", found[0]))


def pom_versions(root: Path) -> dict[str, str]:
    """The versions of the artifacts in pom.xml, with its properties put in."""
    text = (root / "android_demo" / "pom.xml").read_text()
    properties = dict(re.findall(r"<([a-z-]+\.version)>(.*?)</", text))
    found = re.findall(r"<artifactId>([^<*]+)</artifactId>\s*<version>(.*?)</version>", text)
    return {name: re.sub(r"\$\{(.*?)\}", lambda match: properties[match[1]], version) for name, version in found}


def sources_of_cmake(root: Path) -> list[str]:
    """The names of the delegate's sources, of the folder and the pattern in CMakeLists.txt."""
    folder = only(r"^set\(SOURCES \$\{CMAKE_CURRENT_SOURCE_DIR\}/(.*?)\)", root / CMAKE)
    pattern = only(r"^file\(GLOB DELEGATE_SOURCES CONFIGURE_DEPENDS \$\{SOURCES\}/(.*?)\)", root / CMAKE)
    return sorted(path.stem for path in ((root / CMAKE).parent / folder).glob(pattern))


def facts(root: Path) -> dict[str, dict[str, object]]:
    """What each file says about what must be equal: fact -> place -> value."""
    demo = root / "android_demo"
    app, runtime, project = demo / "app/build.gradle", demo / "runtime/build.gradle", demo / "build.gradle"
    make = make_variables(
        demo, "APPLICATION", "VERSION", "VERSION_CODE", "MIN_SDK", "TARGET_SDK", "ABIS", "DELEGATE_NAMES"
    )
    pom = pom_versions(root)
    level = int(pom["android-all"].partition("-")[0]) + LEVEL_MINUS_ANDROID
    found: dict[str, dict[str, object]] = {
        "application id": {
            "Makefile": make["APPLICATION"],
            "app/build.gradle, applicationId": only(r"applicationId '(.*?)'", app),
            "app/build.gradle, namespace": only(r"namespace '(.*?)'", app),
        },
        "version": {
            "setup.py": only(r'^    version="(.*?)"', root / "setup.py"),
            "Makefile": make["VERSION"],
            "app/build.gradle": only(r"versionName '(.*?)'", app),
            "LarqRepDelegate.java": only(r'VERSION = "(.*?)"', root / DELEGATE),
        },
        "version code": {"Makefile": make["VERSION_CODE"], "app/build.gradle": only(r"versionCode (\d+)", app)},
        "lowest API level": {
            "Makefile": make["MIN_SDK"],
            "app/build.gradle": only(r"minSdk (\d+)", app),
            "runtime/build.gradle": only(r"minSdk (\d+)", runtime),
        },
        "target API level": {"Makefile": make["TARGET_SDK"], "app/build.gradle": only(r"targetSdk (\d+)", app)},
        "API level to compile against": {
            "pom.xml, android-all": str(level),
            "app/build.gradle": only(r"compileSdk (\d+)", app),
            "runtime/build.gradle": only(r"compileSdk (\d+)", runtime),
        },
        "ABIs": {
            "Makefile": make["ABIS"],
            "app/build.gradle": only(r"abiFilters (.*?)\n", app),
            "runtime/build.gradle": only(r"abiFilters (.*?)\n", runtime),
        },
        "TensorFlow Lite": {
            "pom.xml, tensorflow-lite": pom["tensorflow-lite"],
            "pom.xml, tensorflow-lite-api": pom["tensorflow-lite-api"],
            "build.gradle": only(r"'org.tensorflow:tensorflow-lite:(.*?)'", project),
        },
        "JUnit": {"pom.xml": pom["junit"], "app/build.gradle": only(r"'junit:junit:(.*?)'", app)},
        "Robolectric": {
            "pom.xml": pom["robolectric"],
            "app/build.gradle": only(r"'org.robolectric:robolectric:(.*?)'", app),
        },
        "sources of the delegate": {
            "runtime/Makefile": make_variables(root / "runtime", "NAMES")["NAMES"],
            "native.mk": make["DELEGATE_NAMES"],
            "CMakeLists.txt": " ".join(sources_of_cmake(root)),
        },
    }
    host_flags = x86_flags_of_make(root / "runtime", "build/native")
    android_flags = x86_flags_of_make(demo, "build/native/x86_64")
    for name in X86_SOURCES:
        found[f"x86 flags of {name}.c"] = {
            "runtime/Makefile": host_flags[name],
            "native.mk": android_flags[name],
            "CMakeLists.txt": set(only(rf"{name}\.c PROPERTY COMPILE_OPTIONS(.*?)\)", root / CMAKE).split()),
        }
    return found


def differences(root: Path) -> list[str]:
    return [
        f"{fact}: {places}"
        for fact, places in facts(root).items()
        if any(value != next(iter(places.values())) or not value for value in places.values())
    ]


def copy(root: Path) -> Path:
    """What the two builds read of the repository."""
    shutil.copytree(ROOT / "android_demo", root / "android_demo", ignore=shutil.ignore_patterns("build", "res"))
    shutil.copytree(ROOT / "runtime" / "src", root / "runtime" / "src")
    shutil.copy(ROOT / "runtime" / "Makefile", root / "runtime")
    shutil.copy(ROOT / "setup.py", root)
    return root


def test_both_builds_say_the_same():
    assert differences(ROOT) == []


@pytest.mark.parametrize(
    "file, old, new, fact",
    [
        ("android_demo/app/build.gradle", "applicationId 'com", "applicationId 'org", "application id"),
        ("android_demo/app/build.gradle", "versionName '", "versionName '9", "version"),
        ("setup.py", 'version="', 'version="9', "version"),
        (DELEGATE, 'VERSION = "', 'VERSION = "9', "version"),
        ("android_demo/app/build.gradle", "versionCode ", "versionCode 9", "version code"),
        ("android_demo/runtime/build.gradle", "minSdk 24", "minSdk 23", "lowest API level"),
        ("android_demo/Makefile", "TARGET_SDK := 34", "TARGET_SDK := 35", "target API level"),
        ("android_demo/pom.xml", "<version>14-robolectric", "<version>15-robolectric", "API level to compile against"),
        ("android_demo/runtime/build.gradle", "'arm64-v8a', ", "", "ABIs"),
        ("android_demo/build.gradle", "tensorflow-lite:2.16.1", "tensorflow-lite:2.14.0", "TensorFlow Lite"),
        ("android_demo/pom.xml", "<junit.version>", "<junit.version>9", "JUnit"),
        ("android_demo/app/build.gradle", "robolectric:robolectric:", "robolectric:robolectric:9", "Robolectric"),
        (CMAKE, "${SOURCES}/*.c", "${SOURCES}/is*.c", "sources of the delegate"),
        (CMAKE, "-mavx2 -mpopcnt", "-mavx2", "x86 flags of isa_avx2.c"),
        ("runtime/Makefile", "-mavx512vl ", "", "x86 flags of isa_avx512.c"),
    ],
)
def test_a_planted_difference_is_found(tmp_path, file, old, new, fact):
    path = copy(tmp_path) / file
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))
    assert fact in [line.partition(":")[0] for line in differences(tmp_path)]


# Groovy's own parser; it knows nothing of Gradle. It prints the message of each file that it does not understand.
PARSE = """
import org.codehaus.groovy.control.*
args.each {
  def unit = new CompilationUnit()
  unit.addSource(new File(it))
  try { unit.compile(Phases.CONVERSION) } catch (CompilationFailedException error) { println error.message }
}
"""


def test_the_gradle_files_are_groovy(built, tmp_path):
    broken = tmp_path / "broken.gradle"
    text = (ROOT / "android_demo" / "app" / "build.gradle").read_text()
    broken.write_text(text.replace("dependencies {", "dependencies"))
    files = [ROOT / "android_demo" / name for name in GRADLE_FILES]
    command = ["java", "-cp", built("maven/test/groovy.jar"), "groovy.ui.GroovyMain", "-e", PARSE, *files, broken]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    assert re.findall(r"(\w+\.gradle): \d+:", result.stdout) == ["broken.gradle"], result.stdout


def test_the_assets_are_those_of_the_makefile_and_their_absence_is_said():
    text = (ROOT / "android_demo" / "app" / "build.gradle").read_text()
    assert "rootProject.file('build/assets')" in text and "make -C android_demo assets" in text
    assert make_variables(ROOT / "android_demo", "ASSETS")["ASSETS"] == "build/assets/networks.json"
