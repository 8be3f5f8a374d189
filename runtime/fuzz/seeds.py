"""The fuzzers' seeds in one archive each; the same seeds give the same bytes.

python fuzz/seeds.py unpack fuzz/corpus/partition.zip FOLDER
python fuzz/seeds.py pack fuzz/corpus/partition.zip FOLDER [FOLDER ...]
"""

import hashlib
import sys
import zipfile
from pathlib import Path


def pack(archive: Path, *folders: Path) -> None:
    """Packs all files, each under the SHA-1 of its content, as libFuzzer names them."""
    contents = [file.read_bytes() for folder in folders if folder.is_dir() for file in folder.iterdir()]
    seeds = {hashlib.sha1(content).hexdigest(): content for content in contents}
    if not seeds:
        raise SystemExit(f"{', '.join(map(str, folders))}: no seeds; `make fuzz` unpacks those of {archive} first.")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in sorted(seeds):
            packed.writestr(zipfile.ZipInfo(name), seeds[name], zipfile.ZIP_DEFLATED)
    print(f"{archive}: {len(seeds)} seeds")


def unpack(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder)


if __name__ == "__main__":
    {"pack": pack, "unpack": unpack}[sys.argv[1]](*map(Path, sys.argv[2:]))
