"""Takes Android's libraries of one ABI out of an APK or AARs, and writes the assembly of a libc.so for them.

shim.py ABI FOLDER ARCHIVE...: FOLDER/app/*.so, and FOLDER/libc.S with one jump for each function that they import. The
jumps pass every register and the stack on, so that functions with any arguments, and dlsym, see their true caller.
"""

import subprocess
import sys
import zipfile
from pathlib import Path

# A jump through slot number {i}, and a call of shim_fill(names, slots, files).
_CODE = {
    "x86_64": (
        "  jmp *(slots + {i} * 8)(%rip)",
        "  lea names(%rip), %rdi\n  lea slots(%rip), %rsi\n  lea files(%rip), %rdx\n  jmp shim_fill@PLT",
    ),
    "arm64-v8a": (
        "  adrp x16, slots + {i} * 8\n  ldr x16, [x16, :lo12:slots + {i} * 8]\n  br x16",
        "  adrp x0, names\n  add x0, x0, :lo12:names\n  adrp x1, slots\n  add x1, x1, :lo12:slots\n"
        "  adrp x2, files\n  add x2, x2, :lo12:files\n  b shim_fill",
    ),
}
FILE_BYTES = 152  # of bionic's FILE; __sF has stdin, stdout and stderr
_DATA = ("__sF", "stderr")


def extract(abi: str, folder: Path, archives: list[Path]) -> list[Path]:
    """The libraries of one ABI, written into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.so"):
        old.unlink()
    for path in archives:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.startswith((f"lib/{abi}/", f"jni/{abi}/")):
                    (folder / Path(name).name).write_bytes(archive.read(name))
    return sorted(folder.glob("*.so"))


def imports(libraries: list[Path]) -> list[str]:
    """What the libraries take from Android: not what they take from one another."""

    def symbols(option: str) -> set[str]:
        printed = subprocess.run(
            ["llvm-nm", "-D", option, *libraries], check=True, capture_output=True, text=True
        ).stdout
        fields = [line.split() for line in printed.splitlines() if line and not line.endswith(":")]
        return {field[-1].split("@")[0] for field in fields if field[-2] not in "wv"}

    return sorted(symbols("--undefined-only") - symbols("--defined-only"))


def assembly(abi: str, names: list[str]) -> str:
    jump, start = _CODE[abi]
    functions = [name for name in names if name not in _DATA]
    lines = [".text"]
    for i, name in enumerate(functions):
        lines += [f".globl {name}", f".type {name},%function", f"{name}:", jump.format(i=i)]
    lines += ["start:", start, '.section .init_array,"aw",%init_array', ".quad start"]
    lines += [".section .rodata", "names:", *(f'.asciz "{name}"' for name in functions), ".byte 0"]
    lines += [".data", ".balign 8", ".globl stderr", ".type stderr,%object", ".size stderr,8", "stderr:"]
    lines += [f".quad files + {2 * FILE_BYTES}", ".globl __sF", ".type __sF,%object", f".size __sF,{3 * FILE_BYTES}"]
    lines += ["__sF:", "files:", f".skip {3 * FILE_BYTES}", f"slots: .skip {8 * len(functions)}"]
    return "\n".join([*lines, '.section .note.GNU-stack,"",%progbits', ""])


def main(abi: str, folder: str, *archives: str) -> None:
    libraries = extract(abi, Path(folder) / "app", [Path(archive) for archive in archives])
    if not any(path.name == "liblarq_rep_jni.so" for path in libraries):
        raise SystemExit(f"shim.py: no liblarq_rep_jni.so for {abi} in {', '.join(archives)}. Build it with make.")
    (Path(folder) / "libc.S").write_text(assembly(abi, imports(libraries)))


if __name__ == "__main__":
    main(*sys.argv[1:])
