"""What the tests of the app share: its build, and a word for those who run the tests without it.

`make -C android_demo test` (and small-test) builds first and sets ANDROID_DEMO_TESTS; then a missing product is a
failure. Elsewhere, as in `make test`, tests of the built app are skipped, even if an old build is there: they take
minutes.
"""

import larq_rep  # noqa: F401  (before TensorFlow and Larq: it chooses Keras 2)

# isort: split
import os
from collections.abc import Callable
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def built() -> Callable[[str], Path]:
    """Gives the path of a product below build/, as `built("larq-rep-benchmark.apk")`."""

    def path(name: str) -> Path:
        if not os.environ.get("ANDROID_DEMO_TESTS"):
            pytest.skip("tests of the built app are run by `make test-android`")
        product = DEMO / "build" / name
        assert product.exists(), f"{product} is missing. `make -C android_demo test` builds it before the tests."
        return product

    return path
