"""What every layer and every quantizer has to pass."""

import json

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from layer_cases import CASES, INPUT_SHAPE, SCHEDULED, USES, class_of

from larq_rep import layers, quantizers
from larq_rep.quantizers.base import MovingQuantizer

TWO_BITS = (
    quantizers.LearnedLevels,
    quantizers.QuantSign,
    quantizers.ResidualSigns,
    quantizers.TernaryInput,
    quantizers.TernaryWeight,
    quantizers.Thermometer,
    quantizers.TrainedTernary,
    quantizers.Uniform,
)


def test_no_layer_and_no_quantizer_is_left_out():
    assert {name.split("-")[0] for name in CASES} == {*layers.__all__, *quantizers.__all__}


def found(model, cls):
    """The object in a model."""
    for layer in model.layers:
        for name in ("input_quantizer", "kernel_quantizer", "kernel_constraint"):
            if type(getattr(layer, name, None)) is cls:
                return getattr(layer, name)
        if type(layer) is cls:
            return layer
    raise AssertionError(f"no {cls.__name__}")


def random_weights(model):
    rng = np.random.default_rng(0)
    values = [rng.uniform(-0.5, 0.5, w.shape) for w in model.weights]
    model.set_weights([abs(v) if "variance" in w.name else v for v, w in zip(values, model.weights, strict=True)])
    return model


def build(name):
    case = CASES[name]
    cls, image = class_of(name), tf.keras.Input(INPUT_SHAPE)
    thing = cls(**case.arguments)
    if cls.__name__ in SCHEDULED:
        getattr(thing, SCHEDULED[cls.__name__]).assign(0.97)
    return random_weights(tf.keras.Model(image, USES[case.use](thing, image)))


@pytest.fixture(scope="module", params=CASES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name):
    """A small model with random weights, for those tests that leave it as it is."""
    return build(name)


def images(seed=1):
    return np.random.default_rng(seed).uniform(-0.9, 0.9, (3, *INPUT_SHAPE)).astype("float32")


def as_json(layer):
    """The config as JSON, in which a shape is a list: Keras 2.16 restores one that was a tuple as that."""
    return json.loads(json.dumps(tf.keras.utils.serialize_keras_object(layer)["config"]))


def spelt(thing):
    """The name of a class, from an object, its config or its alias."""
    if isinstance(thing, dict):
        thing = thing["class_name"]
    return (thing if isinstance(thing, str) else type(thing).__name__).replace("_", "").lower()


def assert_same(copy, model, name):
    cls = class_of(name)
    if number := SCHEDULED.get(cls.__name__):
        assert float(getattr(found(copy, cls), number)) == pytest.approx(CASES[name].arguments[number])
    assert [type(layer) for layer in copy.layers] == [type(layer) for layer in model.layers]
    assert as_json(found(copy, cls)) == as_json(found(model, cls))
    for layer, expected in zip(copy.layers, model.layers, strict=True):
        assert json.dumps(layer.get_config()) == json.dumps(expected.get_config())
    for weight, expected in zip(copy.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)
    np.testing.assert_allclose(copy(images()), model(images()), atol=1e-6)


def test_config_has_the_arguments_and_makes_the_same(name, model):
    case, cls = CASES[name], class_of(name)
    config = as_json(found(model, cls))
    assert as_json(cls.from_config(found(model, cls).get_config())) == config
    for argument, value in case.arguments.items():
        kept = config[argument]
        if isinstance(kept, dict):  # an initializer, a regularizer or a quantizer
            assert spelt(kept) == spelt(value)
        else:
            assert kept in (value, [value, value], [*value] if isinstance(value, tuple) else None)


def test_names_by_which_it_is_found(name):
    case, cls = CASES[name], class_of(name)
    registered = tf.keras.utils.get_registered_name(cls)
    assert tf.keras.utils.get_registered_object(registered) is cls
    if cls is quantizers.CentredClip:
        assert type(tf.keras.constraints.get(case.alias)) is cls
    elif case.alias:
        quantizer = lq.quantizers.get(case.alias)
        assert type(quantizer) is cls
        assert quantizer.precision == (5 if cls is quantizers.PowerOfTwo else 2 if cls in TWO_BITS else 1)
    else:
        assert cls.__name__ not in quantizers.__all__


def test_weights(name, model):
    """Also of a frozen model, which trains none of them."""
    case, before = CASES[name], [w.name for w in model.weights]
    assert [tuple(w.shape) for w in model.trainable_weights] == case.trained
    assert [tuple(w.shape) for w in model.non_trainable_weights] == case.state
    model.trainable = False
    try:
        assert model.trainable_weights == []
        assert sorted(w.name for w in model.non_trainable_weights) == sorted(before)
    finally:
        model.trainable = True


def test_output_shape(name, model):
    y = model(images())
    assert model.output_shape == (None, *y.shape[1:])
    layer = model.layers[-1]
    if not isinstance(layer.input, list) and "crop" not in CASES[name].arguments:  # which Larq's layer does not know
        shape = (3, *layer.input_shape[1:])
        assert layer.compute_output_shape(shape) == y.shape
        assert tuple(layer.compute_output_shape((None, *shape[1:]))) == (None, *y.shape[1:])
        assert layer(tf.keras.Input((None, None, shape[-1]))).shape[-1] == y.shape[-1]


def test_result_is_independent_of_batch(model):
    np.testing.assert_allclose(model(images())[:1], model(images()[:1]), atol=1e-6)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_saved_model_is_the_same(name, model, suffix, tmp_path):
    """Also a frozen one, whose weights come in another order, where a quantizer has weights of its own."""
    frozen = [False, True] if len(model.weights) > 1 and CASES[name].alias else [False]
    try:
        for i in frozen:
            model.trainable = not i
            model.save(tmp_path / f"model{suffix}")
            assert_same(tf.keras.models.load_model(tmp_path / f"model{suffix}"), model, name)
    finally:
        model.trainable = True


def test_clone_is_the_same(name, model):
    clone = tf.keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert_same(clone, model, name)


def test_training_step_changes_every_trainable_weight(name):
    case, model = CASES[name], build(name)
    model.compile("sgd", "mse")
    trained, state = (
        [w.numpy() for w in weights] for weights in (model.trainable_weights, model.non_trainable_weights)
    )
    model.train_on_batch(images(), np.random.default_rng(2).normal(size=model(images()).shape))
    for old, new in zip(trained, model.trainable_weights, strict=True):
        assert np.all(np.isfinite(new))
        assert np.all(old != new) if case.use == "layer" and old.ndim == 1 else np.any(old != new)
    follows = issubclass(class_of(name), (layers.BatchNormalization, MovingQuantizer))
    for old, new in zip(state, model.non_trainable_weights, strict=True):
        assert np.any(old != new) if follows else np.all(old == new)


# Larq's metric takes results for integers.
FRACTIONS = ("CentredClip", "LearnedLevels", "ResidualSigns", "Thermometer", "Uniform")


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.alias and not n.startswith(FRACTIONS)])
def test_flip_ratio_counts_flipped_signs(name):
    cls = class_of(name)
    arguments = {"bits": 1} if cls is quantizers.QuantSign else {}
    quantizer = cls(**arguments, metrics=["flip_ratio"])
    w = np.array([0.8, 0.6, -0.3, -0.3], "float32").reshape(1, 1, 4, 1)
    # A rotation mixes the weights.
    flips = -1 if cls is quantizers.RotatedSign else np.array([-1, 1, 1, 1], "float32").reshape(1, 1, 4, 1)
    quantizer(tf.constant(w))
    quantizer(tf.constant(w * flips))
    assert float(quantizer.flip_ratio.result()) == (1 if cls is quantizers.RotatedSign else 0.25)


@pytest.mark.parametrize(
    "frozen, names",
    [
        (False, [name for name in CASES if "-" not in name]),
        pytest.param(False, [*CASES], marks=pytest.mark.slow),
        (True, ["ReCUSign", "RotatedSign"]),
    ],
    ids=["one of each class", "all", "frozen"],
)
def test_saved_model_of_tensorflow(frozen, names, tmp_path):
    """All of them at once, side by side."""
    assert frozen or {class_of(name) for name in names} == {class_of(name) for name in CASES}
    image = tf.keras.Input(INPUT_SHAPE)
    outputs = {name: USES[CASES[name].use](class_of(name)(**CASES[name].arguments), image) for name in names}
    model = random_weights(tf.keras.Model(image, outputs))
    model.trainable = not frozen
    model.save(tmp_path / "model")
    loaded = tf.keras.models.load_model(tmp_path / "model")
    found, expected = loaded(images()), model(images())
    assert [type(layer) for layer in loaded.layers] == [type(layer) for layer in model.layers]
    for layer, other in zip(loaded.layers, model.layers, strict=True):
        assert json.dumps(layer.get_config()) == json.dumps(other.get_config())
        for weight, value in zip(layer.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, value)
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-6, err_msg=name)
