"""The packer of APKs: order, alignment, compression and dates of the entries."""

import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pack
import pytest


def write_base(path: Path) -> None:
    """An APK as aapt2 leaves it: the network stored, the resource table stored, all at any place."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("AndroidManifest.xml", b"manifest" * 50)
        archive.writestr("assets/n.tflite", bytes(range(256)) * 5, zipfile.ZIP_STORED)
        archive.writestr("res/é.png", b"png", zipfile.ZIP_STORED)
        archive.writestr("resources.arsc", b"table" * 30)


@pytest.fixture
def packed(tmp_path):
    write_base(tmp_path / "base.apk")
    (tmp_path / "classes.dex").write_bytes(b"dex\n" * 1000)
    (tmp_path / "lib.so").write_bytes(b"\x7fELF" * 3000)
    files = {
        "classes.dex": tmp_path / "classes.dex",
        "lib/x86_64/liba.so": tmp_path / "lib.so",
        "lib/x86_64/libb.so": tmp_path / "lib.so",
    }
    pack.pack(tmp_path / "out.apk", tmp_path / "base.apk", files)
    return tmp_path / "out.apk"


def data_offset(path: Path, entry: zipfile.ZipInfo) -> int:
    """Where an entry's data begins, by its local header, which may differ from the directory's."""
    header = path.read_bytes()[entry.header_offset : entry.header_offset + 30]
    name_bytes, extra_bytes = struct.unpack("<HH", header[26:30])
    return entry.header_offset + 30 + name_bytes + extra_bytes


def test_entries_keep_their_order_and_content(packed):
    with zipfile.ZipFile(packed) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [
            "AndroidManifest.xml",
            "assets/n.tflite",
            "res/é.png",
            "resources.arsc",
            "classes.dex",
            "lib/x86_64/liba.so",
            "lib/x86_64/libb.so",
        ]
        assert archive.read("classes.dex") == b"dex\n" * 1000
        assert archive.read("assets/n.tflite") == bytes(range(256)) * 5


def test_each_kind_has_its_alignment_and_says_it(packed):
    wanted = {".so": 16384, ".tflite": 64}
    with zipfile.ZipFile(packed) as archive:
        for entry in archive.infolist():
            alignment = wanted.get(Path(entry.filename).suffix, 4)
            assert data_offset(packed, entry) % alignment == 0, entry.filename
            kind, size, said = struct.unpack("<HHH", entry.extra[:6])
            assert (kind, size, said) == (0xD935, len(entry.extra) - 4, alignment), entry.filename
            assert len(entry.extra) < 6 + alignment, f"{entry.filename} has more padding than it needs"


def test_what_is_mapped_is_stored_and_the_rest_as_in_the_base(packed):
    with zipfile.ZipFile(packed) as archive:
        stored = {entry.filename for entry in archive.infolist() if entry.compress_type == zipfile.ZIP_STORED}
    assert stored == {"assets/n.tflite", "res/é.png", "resources.arsc", "lib/x86_64/liba.so", "lib/x86_64/libb.so"}


def test_the_same_input_gives_the_same_bytes(packed, tmp_path):
    with zipfile.ZipFile(packed) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        rest = dict.fromkeys(archive.namelist()[5:], tmp_path / "lib.so")
    # A later base, with other dates of its entries, changes nothing.
    write_base(tmp_path / "base.apk")
    pack.pack(tmp_path / "again.apk", tmp_path / "base.apk", {"classes.dex": tmp_path / "classes.dex", **rest})
    assert (tmp_path / "again.apk").read_bytes() == packed.read_bytes()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["classes.dex"], "classes.dex should be ENTRY=FILE"),
        (["classes.dex=nowhere.dex"], "nowhere.dex"),
    ],
)
def test_a_wrong_argument_leaves_no_apk(tmp_path, arguments, message):
    write_base(tmp_path / "base.apk")
    command = [sys.executable, pack.__file__, tmp_path / "out.apk", tmp_path / "base.apk", *arguments]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode != 0
    assert message in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "out.apk").exists()
