"""Virtual environments with other runtimes, installed as users do; kept in build/venvs."""

import contextlib
import fcntl
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

VENVS = Path(__file__).resolve().parents[2] / "build" / "venvs"


@contextlib.contextmanager
def alone():
    """The environments are shared by the workers of pytest-xdist."""
    VENVS.mkdir(parents=True, exist_ok=True)
    with open(VENVS / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def python_with(*packages, make=True):
    """The Python of an environment with these packages, made at the first use; without `make` skips instead."""
    venv = VENVS / re.sub(r"[^\w.]+", "-", "_".join(packages))
    python, complete = venv / "bin" / "python", venv / "complete"
    if not complete.exists():
        if not make:
            pytest.skip(f"{' '.join(packages)} is not in {venv}: `make test-all` installs it there")
        shutil.rmtree(venv, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
        complete.touch()
    return python


def installed(request, *packages):
    """The same for tests of the quick suite, which take what is there; the full suite makes what is missing."""
    with alone():
        return python_with(*packages, make="not slow" not in request.config.option.markexpr)
