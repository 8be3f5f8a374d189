"""Builds the delegate's library with make and puts it beside the Python package.

The wheel holds no Python extension, so that it fits every Python of a platform. Without a compiler the package
installs all the same, and says what is missing when the delegate is asked for. `make wheels` sets
LARQ_REP_LIBRARY and LARQ_REP_PLATFORM to pack a library that has been built for another machine.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

NAME = "liblarq_rep_delegate.so"
HERE = Path(__file__).resolve().parent


class Build(build_py):
    def run(self):
        super().run()
        library = HERE / os.environ.get("LARQ_REP_LIBRARY", f"build/native/{NAME}")
        if "LARQ_REP_LIBRARY" not in os.environ:
            try:
                subprocess.run(["make", f"build/native/{NAME}"], cwd=HERE, check=True, stdout=sys.stderr)
            except (OSError, subprocess.CalledProcessError) as error:
                print(f"The delegate was not built ({error}); it needs make and a C compiler.", file=sys.stderr)
                return
        if self.editable_mode:
            shutil.copy2(library, HERE / "larq_rep_runtime" / NAME)
        else:
            shutil.copy2(library, Path(self.build_lib) / "larq_rep_runtime" / NAME)


def glibc(library: Path) -> tuple[int, int] | None:
    """The version of glibc that a library asks for; None of a library for another C library."""
    needed = re.findall(rb"GLIBC_(\d+)\.(\d+)", library.read_bytes())
    return max(((int(major), int(minor)) for major, minor in needed), default=None)


class Wheel(bdist_wheel):
    def finalize_options(self):
        super().finalize_options()
        self.root_is_pure = False

    def get_tag(self):
        library = HERE / os.environ.get("LARQ_REP_LIBRARY", f"build/native/{NAME}")
        platform = super().get_tag()[2]
        version = glibc(library) if library.exists() else None
        if version is None or not platform.startswith("linux_"):
            return "py3", "none", platform
        # Of this Python, not of the kernel: 32-bit systems run on 64-bit ones.
        machine = os.environ.get("LARQ_REP_PLATFORM", platform.removeprefix("linux_"))
        return "py3", "none", f"manylinux_{version[0]}_{version[1]}_{machine}"


class WithLibrary(Distribution):
    def has_ext_modules(self):
        return True


setup(distclass=WithLibrary, cmdclass={"build_py": Build, "bdist_wheel": Wheel})
