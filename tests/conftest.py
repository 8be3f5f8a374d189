import larq_rep  # noqa: F401  (before TensorFlow and Larq: it chooses Keras 2)

# isort: split
import pytest
import support


@pytest.fixture(scope="module", autouse=True)
def forget_models():
    yield
    support.forget()
