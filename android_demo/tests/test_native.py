"""The native libraries: the rules of Android's loader, which no loader here enforces, and the second build by CMake."""

import json
import os
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[1]
ABIS = {"arm64-v8a": "aarch64", "x86_64": "x86_64"}
LIBRARIES = ("liblarq_rep_delegate.so", "liblarq_rep_jni.so")
PAGE, SMALL_PAGE = 0x4000, 0x1000
LOAD, DYNAMIC, TLS, GNU_STACK, GNU_RELRO = 1, 2, 7, 0x6474E551, 0x6474E552
EXECUTABLE, WRITABLE = 1, 2
NEEDED, STRTAB, SONAME, RPATH, TEXTREL, RUNPATH, FLAGS, RELR = 1, 5, 14, 15, 22, 29, 30, 36
ANDROID_RELR = 0x6FFFE000
DF_TEXTREL = 4

needs_llvm = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("clang", "ld.lld", "llvm-nm", "llvm-strip")),
    reason="needs Debian's clang, lld and llvm",
)


def listed(kind: str = "") -> set[str]:
    """The names in native/symbols.txt, of all libraries or of one."""
    lines = [line.split() for line in (DEMO / "native" / "symbols.txt").read_text().splitlines() if line[0] != "#"]
    return {fields[2] for fields in lines if fields[0].startswith(kind)}


def symbols(library: Path, option: str) -> set[str]:
    """The dynamic symbols with their versions; llvm-nm writes NAME@VERSION, or NAME@@VERSION."""
    printed = subprocess.run(["llvm-nm", "-D", option, library], check=True, capture_output=True, text=True).stdout
    return {line.split()[-1] for line in printed.splitlines()}


def segments(content: bytes) -> list[tuple[int, ...]]:
    """Type, flags, offset, address, size in the file, size in memory, alignment."""
    start, size, count = (*struct.unpack_from("<Q", content, 32), *struct.unpack_from("<HH", content, 54))
    headers = [struct.unpack_from("<IIQQQQQQ", content, start + i * size) for i in range(count)]
    return [(kind, flags, at, to, stored, used, align) for kind, flags, at, to, _, stored, used, align in headers]


def dynamic(content: bytes) -> list[tuple[int, int]]:
    at, size = next((at, stored) for kind, _, at, _, stored, _, _ in segments(content) if kind == DYNAMIC)
    return list(struct.iter_unpack("<QQ", content[at : at + size]))


def dynamic_strings(content: bytes, tag: int) -> list[str]:
    entries = dynamic(content)
    table = next(value for key, value in entries if key == STRTAB)
    table = next(
        table - to + at for kind, _, at, to, _, used, _ in segments(content) if kind == LOAD and to <= table < to + used
    )
    return [
        content[table + value : content.index(b"\0", table + value)].decode() for key, value in entries if key == tag
    ]


def up(value: int, page: int) -> int:
    return -(-value // page) * page


def violations(library: Path) -> list[str]:
    """What Android's loader, or a device with pages of 16 KiB, would refuse in a library."""
    content = library.read_bytes()
    found = []
    allowed = {"libc.so", "libm.so", "liblog.so", *LIBRARIES}
    found += [f"needs {name}" for name in dynamic_strings(content, NEEDED) if name not in allowed]
    if dynamic_strings(content, SONAME) != [library.name]:
        found.append(f"soname {dynamic_strings(content, SONAME)}")
    keys = dict(dynamic(content))
    if TEXTREL in keys or keys.get(FLAGS, 0) & DF_TEXTREL:
        found.append("text relocations")
    found += [name for tag, name in ((RPATH, "rpath"), (RUNPATH, "runpath")) if tag in keys]
    if RELR in keys or ANDROID_RELR in keys:
        found.append("relr")
    if struct.unpack_from("<Q", content, 40)[0] == 0 or struct.unpack_from("<H", content, 60)[0] == 0:
        found.append("no section headers")
    kinds = segments(content)
    stack = [flags for kind, flags, *_ in kinds if kind == GNU_STACK]
    if len(stack) != 1 or stack[0] & EXECUTABLE:
        found.append("executable stack")
    if any(kind == TLS for kind, *_ in kinds):
        found.append("thread-local storage")
    loads = [segment[1:] for segment in kinds if segment[0] == LOAD]
    for flags, at, to, _, _, align in loads:
        if flags & WRITABLE and flags & EXECUTABLE:
            found.append("writable code")
        if align % PAGE or (at - to) % PAGE:
            found.append(f"alignment {align:#x}")
    for kind, _, _, start, _, used, _ in kinds:
        if kind != GNU_RELRO:
            continue
        own = next((load for load in loads if load[2] <= start < load[2] + load[4]), None)
        if own is None or start + used > up(own[2] + own[4], SMALL_PAGE):
            found.append("relro beyond its segment")
        if any(load != own and load[2] < up(start + used, PAGE) and load[2] + load[4] > start for load in loads):
            found.append("relro touches another segment")
    own_exports = set().union(
        *(symbols(path, "--defined-only") for path in library.parent.glob("*.so") if path != library)
    )
    for name in symbols(library, "--undefined-only") - own_exports:
        plain, _, version = name.partition("@")
        if version != "LIBC" or plain not in listed():
            found.append(f"imports {name}")
    return found


@pytest.fixture(params=ABIS)
def abi(request, built):
    built(f"native/{request.param}/{LIBRARIES[0]}")
    return request.param


@needs_llvm
@pytest.mark.parametrize("name", LIBRARIES)
def test_rules_of_the_loader(abi, name):
    library = DEMO / "build" / "native" / abi / name
    assert violations(library) == []
    machine = struct.unpack_from("<H", library.read_bytes(), 18)[0]
    assert machine == {"arm64-v8a": 183, "x86_64": 62}[abi]


def make_variable(folder: Path, name: str) -> list[str]:
    command = [
        "make",
        "-s",
        "--no-print-directory",
        "-C",
        folder,
        "--eval",
        f"show-variable: ; @: $(info $({name}))",
        "show-variable",
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def test_warnings_are_those_of_the_desktop():
    assert set(make_variable(DEMO, "WARNINGS")) == {"-Werror", *make_variable(DEMO.parent / "runtime", "WARNINGS")}


def compiler(abi: str, *flags: str | Path) -> list[str | Path]:
    """Clang for an ABI, with our headers and stubs."""
    headers, stubs = DEMO / "native" / "include", DEMO / "build" / "native" / abi / "stubs"
    return ["clang", f"--target={ABIS[abi]}-linux-android24", "-nostdlibinc", "-isystem", headers, f"-L{stubs}", *flags]


FINE = "#include <stdlib.h>\nvoid *const table[] = {malloc}; void *use(void) { return table[0]; }"


@needs_llvm
@pytest.mark.parametrize(
    ("flags", "source", "expected"),
    [
        ("", FINE, "none"),
        ("-Wl,-soname,other.so", FINE, "soname ['other.so']"),
        ("-Wl,-z,max-page-size=4096", FINE, "alignment 0x1000"),
        ("-Wl,-z,max-page-size=4096", FINE + " int variable = 1;", "relro touches another segment"),
        ("-Wl,-z,common-page-size=16384", FINE, "relro beyond its segment"),
        ("-Wl,-z,execstack", FINE, "executable stack"),
        ("-Wl,-rpath,/lib", FINE, "runpath"),
        ("-Wl,-rpath,/lib -Wl,--disable-new-dtags", FINE, "rpath"),
        ("-Wl,--pack-dyn-relocs=relr", "static int x; int *const table[] = {&x};", "relr"),
        ("-Wl,--omagic", FINE, "writable code"),
        ("-Wl,-z,undefs", "void *aligned_alloc(long, long); void *use(void) { return aligned_alloc(8, 8); }",
         "imports aligned_alloc"),
        ("-Wl,-z,notext", '__asm__(".text\\n.quad malloc");', "text relocations"),
        ("-fno-emulated-tls -ftls-model=initial-exec", "_Thread_local int x; int *use(void) { return &x; }",
         "thread-local storage"),
        ("strip", FINE, "no section headers"),
        ("-lother", "int other(void); int use(void) { return other(); }", "needs libother.so"),
    ],
)  # fmt: skip
def test_planted_violations_are_found(abi, flags, source, expected, tmp_path):
    """With the flags of native.mk all is fine; with one wrong flag, or another source, the check says so."""
    command = compiler(abi, *make_variable(DEMO, "NATIVE_LINK"), "-fPIC", f"-L{tmp_path}")
    (tmp_path / "other.c").write_text("int other(void) { return 1; }")
    (tmp_path / "planted.c").write_text(source)
    subprocess.run(
        [*command, "-Wl,-soname,libother.so", "-o", tmp_path / "libother.so", tmp_path / "other.c"], check=True
    )
    library = tmp_path / "libplanted.so"
    chosen = [flag for flag in flags.split() if flag != "strip"]
    subprocess.run(
        [*command, "-Wl,-soname,libplanted.so", "-o", library, tmp_path / "planted.c", "-lc", *chosen], check=True
    )
    if flags == "strip":
        subprocess.run(["llvm-strip", "--strip-sections", library], check=True)
    assert expected in (violations(library) or ["none"])


@needs_llvm
def test_new_call_of_libc_does_not_link(abi, tmp_path):
    """symbols.txt is the only source of the stubs, and has no more than is used."""
    (tmp_path / "new.c").write_text('char *strdup(const char *); char *use(void) { return strdup(""); }')
    command = compiler(abi, "-nostdlib", "-shared", "-fuse-ld=lld", "-Wl,-z,defs", "-o", tmp_path / "new.so")
    result = subprocess.run([*command, tmp_path / "new.c", "-lc"], capture_output=True, text=True)
    assert result.returncode != 0 and "undefined symbol: strdup" in result.stderr
    paths = [DEMO / "build" / "native" / abi / name for name in LIBRARIES]
    imported = {name.partition("@")[0] for path in paths for name in symbols(path, "--undefined-only")}
    assert listed("libc") <= imported


@needs_llvm
def test_exports(abi, built):
    """The delegate exports what TFLite looks for, the JNI library the native methods of the class: nothing else."""
    folder = DEMO / "build" / "native" / abi
    plugin = {"tflite_plugin_create_delegate", "tflite_plugin_destroy_delegate"}
    assert symbols(folder / LIBRARIES[0], "--defined-only") == plugin
    if shutil.which("javap") is None:
        pytest.skip("needs a JDK for javap")
    name = "com.larqrep.runtime.LarqRepDelegate"
    command = ["javap", "-p", "-cp", built("aar/classes.jar"), name]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    methods = set(re.findall(r"\bnative .*?(\w+)\(", printed))
    assert methods == {"create", "destroy"}
    prefix = "Java_" + name.replace(".", "_")
    assert symbols(folder / LIBRARIES[1], "--defined-only") == {f"{prefix}_{method}" for method in methods}


def cmake(abi: str, folder: Path) -> list[dict[str, str]]:
    """Configures CMakeLists.txt for an ABI with our headers and stubs in place of the NDK's; gives its commands."""
    jdk = Path(shutil.which("javac")).resolve().parents[1] / "include"
    libgcc = subprocess.run(
        ["gcc", "-print-libgcc-file-name"], check=True, capture_output=True, text=True
    ).stdout.strip()
    headers = " ".join(f"-isystem {path}" for path in (DEMO / "native" / "include", jdk, jdk / "linux"))
    stubs = DEMO / "build" / "native" / abi / "stubs"
    settings = {
        "CMAKE_SYSTEM_NAME": "Linux",
        "CMAKE_SYSTEM_PROCESSOR": ABIS[abi],
        "CMAKE_C_COMPILER": "clang",
        "CMAKE_C_COMPILER_TARGET": f"{ABIS[abi]}-linux-android24",
        "CMAKE_C_FLAGS": f"-nostdlibinc {headers} -Wno-unused-command-line-argument",
        "CMAKE_SHARED_LINKER_FLAGS": f"-nostdlib -fuse-ld=lld -L{stubs}",
        "CMAKE_C_STANDARD_LIBRARIES": "-lc" + (f" {libgcc} -Wl,--exclude-libs,ALL" if abi == "x86_64" else ""),
        "CMAKE_TRY_COMPILE_TARGET_TYPE": "STATIC_LIBRARY",
        "CMAKE_EXPORT_COMPILE_COMMANDS": "ON",
        "CMAKE_SKIP_RPATH": "ON",
    }
    source = DEMO / "runtime" / "src" / "main" / "cpp"
    options = [f"-D{name}={value}" for name, value in settings.items()]
    subprocess.run(["cmake", "-S", source, "-B", folder, *options], check=True, capture_output=True)
    return json.loads((folder / "compile_commands.json").read_text())


def machine_code(object_file: Path, folder: Path) -> bytes:
    """The code of an object file without its names and addresses, which differ from build to build."""
    section = folder / "text"
    command = ["llvm-objcopy", "-O", "binary", "--only-section=.text", object_file, section]
    subprocess.run(command, check=True)
    return section.read_bytes()


@needs_llvm
@pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("cmake", "javac", "gcc")), reason="needs Debian's cmake, gcc and a JDK"
)
def test_cmake_builds_the_same_code(built, tmp_path):
    """For x86_64, which has flags of its own for three files; for arm64 there are none."""
    built("native/x86_64/" + LIBRARIES[0])
    assert not [entry for entry in cmake("arm64-v8a", tmp_path / "arm64") if " -m" in entry["command"]]
    folder = tmp_path / "x86_64"
    commands = cmake("x86_64", folder)
    result = subprocess.run(["cmake", "--build", folder, "-j", str(os.cpu_count())], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    made = {path.stem: path for path in (DEMO / "build" / "native" / "x86_64").glob("*.o")}
    assert {Path(entry["file"]).stem for entry in commands} == made.keys()
    for entry in commands:
        output = folder / re.search(r" -o (\S+)", entry["command"])[1]
        name = Path(entry["file"]).stem
        assert machine_code(output, tmp_path) == machine_code(made[name], tmp_path), name
    assert all(violations(folder / name) == [] for name in LIBRARIES)
