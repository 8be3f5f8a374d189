import larq_rep  # noqa: F401  (before TensorFlow and Larq: it chooses Keras 2)

# isort: split
import gc

import pytest
import support


def pytest_collection_finish():
    """What lives until the end, TensorFlow's modules above all, is not searched for garbage again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


@pytest.fixture(scope="module", autouse=True)
def forget_models():
    yield
    support.forget()
