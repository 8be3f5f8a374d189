"""`import larq_rep` chooses Keras 2 by itself, or says what to do. Each case is a fresh interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import others_slow

import larq_rep


def run(code: str, **environment: str) -> subprocess.CompletedProcess:
    clean = {key: value for key, value in os.environ.items() if key != "TF_USE_LEGACY_KERAS"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env={**clean, **environment}, capture_output=True, text=True, timeout=300)


LOADS = "; import tensorflow as tf; assert tf.keras.Model.__module__.startswith('tf_keras'), tf.keras.Model"


@pytest.mark.slow
@pytest.mark.parametrize("value", ["0", "1"])
def test_keras_2_is_chosen(value):
    """Without the variable, too: see `test_modules_that_are_imported_on_use_are_listed`."""
    done = run("import larq_rep" + LOADS, TF_USE_LEGACY_KERAS=value)
    assert done.returncode == 0, done.stderr


def test_keras_3_beside_keras_2_where_the_user_chose_so():
    done = run("import keras, larq_rep" + LOADS, TF_USE_LEGACY_KERAS="1")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("first", others_slow(["keras", "tensorflow"], 1))
def test_keras_3_imported_first(first):
    done = run(f"import {first}, larq_rep")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(
        "ImportError: larq_rep needs Keras 2, but Keras 3 was imported first: import larq_rep before"
    )


def test_layering():
    """The core imports neither the zoo nor the converters, and the zoo no converter.

    None of them needs what only trainings, data sets and pictures use. Training and plots import it when they use it.
    """
    code = """
import sys
sys.modules.update(dict.fromkeys(["tensorboard", "tensorflow_datasets", "sklearn", "matplotlib"]))  # as if missing

def imported(*names):
    return [name for name in sys.modules if name.startswith(names)]

import larq_rep
assert not imported("larq_rep.zoo", "larq_rep.conv"), imported("larq_rep")
import larq_rep.zoo
assert not imported("larq_rep.conv"), imported("larq_rep")
model = larq_rep.zoo.VGGSmall(width=4, input_shape=(16, 16, 3))
content, report = larq_rep.converters.convert(model)
assert larq_rep.converters.describe(content) and larq_rep.converters.benchmark
from larq_rep import cost, data, losses, plots, training
from larq_rep.training import datasets
training.schedules_for(model)
try:
    plots.history([{"loss": 1.0}])
except ImportError as error:
    assert "matplotlib" in str(error), error
else:
    raise AssertionError("drawn without matplotlib")
"""
    done = run(code)
    assert done.returncode == 0, done.stderr


def test_modules_that_are_imported_on_use_are_listed():
    code = """
import sys, larq_rep
names = ["converters", "data", "losses", "plots", "training", "zoo"]
assert not {f"larq_rep.{name}" for name in names} & {*sys.modules}
assert {*names, *larq_rep.__all__} <= {*dir(larq_rep)}
assert all(hasattr(larq_rep, name) for name in larq_rep.__all__)
for package, name in ((larq_rep.zoo, "catalog"), (larq_rep.converters, "benchmark"), (larq_rep.converters, "latency")):
    assert {name, *package.__all__} <= {*dir(package)} and getattr(package, name).__name__.endswith(name)
    assert not hasattr(package, "nothing")
"""
    done = run(code + LOADS.removeprefix("; "))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("found", ["x", None, 3, [1.0], b"TFL3"])
def test_what_is_no_model_is_a_type_error(found):
    for function in (
        larq_rep.reptran,
        larq_rep.cost.count,
        lambda value: larq_rep.zoo.load_weights(value, "x.h5"),
        *([lambda value: larq_rep.zoo.preprocess_input(value, [])] if not isinstance(found, str) else []),
    ):
        with pytest.raises(TypeError, match="expected a Keras model, found " + type(found).__name__):
            function(found)


def test_a_model_of_keras_3_is_a_type_error():
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    for function in (larq_rep.reptran, larq_rep.cost.count):
        with pytest.raises(TypeError, match="one of Keras 3"):
            function(model)


@pytest.mark.parametrize("found", [None, 3, ["ResNet20"], {}])
def test_what_is_no_name_is_a_type_error(found):
    with pytest.raises(TypeError, match="expected the name of a network, found"):
        larq_rep.zoo.get_model(found)
    if found is not None:
        with pytest.raises(TypeError, match="ResNet20: weights should be the name of a file"):
            larq_rep.zoo.ResNet20(weights=found)


@pytest.mark.parametrize("found", ["rep.tflite", Path("rep.tflite"), None, 3])
def test_what_is_no_content_of_a_file_is_a_type_error(found):
    for function in (larq_rep.converters.describe, larq_rep.converters.fold):
        with pytest.raises(TypeError, match="Expected the bytes of a .tflite file, found"):
            function(found)


def test_checkout_without_an_installation():
    """Where the checkout is the working directory its own folders are found, without the installed copy's help.

    The runtime is a distribution of its own and stays.
    """
    root = Path(larq_rep.__file__).parents[1]
    if not (root / "setup.py").is_file():
        pytest.skip("these tests run on an installed copy")
    code = f"""
import sys
sys.meta_path = [finder for finder in sys.meta_path if not finder.__module__.startswith("__editable___larq_rep_0")]
assert "larq_rep" not in sys.modules
sys.path.insert(0, {str(root)!r})
import larq_rep.zoo, larq_rep.converters.description
assert larq_rep.zoo.__file__ == {str(root / "larq_rep" / "zoo" / "__init__.py")!r}, larq_rep.zoo.__file__
"""
    done = run(code)
    assert done.returncode == 0, done.stderr
