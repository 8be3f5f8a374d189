"""Packs the library module into an AAR: a zip that apps of any build system can use, the same bytes every time."""

import argparse
import io
import re
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "com.larqrep.runtime"


def pack(entries: dict[str, bytes]) -> bytes:
    """A zip of the entries in their order, dated 1980."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, content)
    return buffer.getvalue()


def folder_entries(folder: Path, pattern: str, prefix: str = "") -> dict[str, bytes]:
    paths = sorted(path for path in folder.glob(pattern) if path.is_file())
    if not paths:
        raise SystemExit(f"aar.py: no {pattern} in {folder}. Run make aar, which builds it.")
    return {prefix + path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def manifest(min_sdk: int) -> bytes:
    """The module's manifest with what Gradle would take from build.gradle: package and lowest API level."""
    source = (ROOT / "runtime" / "src" / "main" / "AndroidManifest.xml").read_text()
    inserted = (
        f'<manifest xmlns:android="http://schemas.android.com/apk/res/android" package="{PACKAGE}">\n'
        f'  <uses-sdk android:minSdkVersion="{min_sdk}" />\n'
        "</manifest>"
    )
    changed, count = re.subn(r"<manifest\s*/>", inserted, source)
    if count != 1:
        raise SystemExit("aar.py: runtime/src/main/AndroidManifest.xml should be an empty <manifest />.")
    return changed.encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--min-sdk", type=int, required=True)
    parser.add_argument("--classes", type=Path, required=True, help="folder of compiled classes")
    parser.add_argument("--libraries", type=Path, required=True, help="folder with ABI/*.so")
    arguments = parser.parse_args()
    entries = {
        "AndroidManifest.xml": manifest(arguments.min_sdk),
        "classes.jar": pack(folder_entries(arguments.classes, "**/*.class")),
        "R.txt": b"",
        "proguard.txt": (ROOT / "runtime" / "consumer-rules.pro").read_bytes(),
        **folder_entries(arguments.libraries, "*/*.so", "jni/"),
        "LICENSE": (ROOT.parent / "LICENSE").read_bytes(),
        "NOTICE": (ROOT / "runtime" / "NOTICE").read_bytes(),
    }
    arguments.output.write_bytes(pack(entries))


if __name__ == "__main__":
    main()
