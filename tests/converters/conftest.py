"""Models that several tests of the converters share, built once."""

import pytest
import tensorflow as tf
from support import bit_output_model, randomize, shallow_resnet20


@pytest.fixture(scope="session")
def bits() -> tf.keras.Model:
    return randomize(bit_output_model())


@pytest.fixture(scope="session")
def rep_resnet() -> tf.keras.Model:
    return randomize(shallow_resnet20(rep=True, width=8, input_shape=(16, 16, 1)))
