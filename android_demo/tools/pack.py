"""Packs an APK: aapt2's entries in their order, then further files, each aligned so that Android can map it.

    python pack.py OUT.apk BASE.apk classes.dex=FILE lib/x86_64/libx.so=FILE ...

Libraries begin at multiples of 16384 bytes (a page of new devices; 4096 would do for the others), networks at
multiples of 64, all else at multiples of 4. The padding stands in the extra field 0xd935, which apksigner reads to keep
the alignment. All dates are 1980-01-01: the same input gives the same bytes.
"""

import argparse
import struct
import zipfile
from pathlib import Path

ALIGNMENT_FIELD = 0xD935
HEADER_BYTES = 30  # of a local file header, before the name and the extra field
ALIGNMENT = {".so": 16384, ".tflite": 64}
STORED = (".so", ".tflite", "resources.arsc")


def add(archive: zipfile.ZipFile, name: str, data: bytes, stored: bool) -> None:
    """Adds an entry whose data begins at a multiple of its kind's alignment."""
    entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_STORED if stored or name.endswith(STORED) else zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    alignment = ALIGNMENT.get(Path(name).suffix, 4)
    # The field's header, its size and the alignment take 6 bytes.
    start = archive.start_dir + HEADER_BYTES + len(name.encode()) + 6
    padding = -start % alignment
    entry.extra = struct.pack("<HHH", ALIGNMENT_FIELD, 2 + padding, alignment) + bytes(padding)
    archive.writestr(entry, data)


def pack(out: Path, base: Path, files: dict[str, Path]) -> None:
    """Writes `out` from the entries of `base` and the `files` by entry name."""
    unfinished = out.with_name(out.name + ".unfinished")
    with zipfile.ZipFile(base) as source, zipfile.ZipFile(unfinished, "w") as archive:
        for entry in source.infolist():
            add(archive, entry.filename, source.read(entry), entry.compress_type == zipfile.ZIP_STORED)
        for name, path in files.items():
            add(archive, name, path.read_bytes(), stored=False)
    unfinished.replace(out)


def entry_and_file(argument: str) -> tuple[str, Path]:
    name, separator, path = argument.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{argument} should be ENTRY=FILE, as classes.dex=build/dex/classes.dex")
    return name, Path(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("base", type=Path, help="the APK that aapt2 wrote")
    parser.add_argument("files", nargs="*", type=entry_and_file, metavar="ENTRY=FILE")
    arguments = parser.parse_args()
    try:
        pack(arguments.out, arguments.base, dict(arguments.files))
    except (OSError, zipfile.BadZipFile) as error:
        raise SystemExit(
            f"pack.py: cannot pack {arguments.out}: {error}. `make -C android_demo` builds its parts."
        ) from error


if __name__ == "__main__":
    main()
