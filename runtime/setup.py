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
from setuptools.command.build_py import build_py
from wheel.bdist_wheel import bdist_wheel

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
                print(f"The delegate was not built ({error}): it needs make and a C compiler.", file=sys.stderr)
                return
        if self.editable_mode:
            shutil.copy2(library, HERE / "larq_rep_runtime" / NAME)
        else:
            shutil.copy2(library, Path(self.build_lib) / "larq_rep_runtime" / NAME)


def glibc(library: Path) -> tuple[int, int]:
    """The version of glibc that a library asks for."""
    needed = re.findall(rb"GLIBC_(\d+)\.(\d+)", library.read_bytes())
    return max((int(major), int(minor)) for major, minor in needed)


class Wheel(bdist_wheel):
    def finalize_options(self):
        super().finalize_options()
        self.root_is_pure = False

    def get_tag(self):
        library = HERE / os.environ.get("LARQ_REP_LIBRARY", f"build/native/{NAME}")
        if not library.exists() or not sys.platform.startswith("linux"):
            return "py3", "none", super().get_tag()[2]
        major, minor = glibc(library)
        machine = os.environ.get("LARQ_REP_PLATFORM", os.uname().machine)
        return "py3", "none", f"manylinux_{major}_{minor}_{machine}"


class WithLibrary(Distribution):
    def has_ext_modules(self):
        return True


setup(distclass=WithLibrary, cmdclass={"build_py": Build, "bdist_wheel": Wheel})
