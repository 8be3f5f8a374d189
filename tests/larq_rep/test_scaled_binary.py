import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from support import with_gradients

from larq_rep.converters import convert, verify
from larq_rep.quantizers import DoReFaSign, ScaledBinary, ScaledSign, XNORSign

KERNEL = (3, 3, 4, 5)


def kernel_and_upstream():
    rng = np.random.default_rng(0)
    w, dy = rng.uniform(-1.5, 1.5, KERNEL), rng.normal(size=KERNEL)
    w[0, 0, :, 0] = 0.0, 1.0, -1.0, -0.0
    return w, dy


def sign(w):
    return np.where(w >= 0, 1.0, -1.0)


AXES = {"filter": (0, 1, 2), "layer": (0, 1, 2, 3)}
GRADIENTS = {
    "identity": lambda g, w, s, n, mean: g,
    "clipped": lambda g, w, s, n, mean: g * (abs(w) <= 1),
    "polynomial": lambda g, w, s, n, mean: g * np.maximum(0, 2 - 2 * abs(w)),
    "xnor": lambda g, w, s, n, mean: g * n * (1 - 1 / 4) * (s * (abs(w) < 1) + 1 / n),
    "exact": lambda g, w, s, n, mean: g * s * (abs(w) < 1) + sign(w) * mean(g * sign(w)),
    "sibnn": lambda g, w, s, n, mean: g * (abs(w) <= 1) * (1 - 1 / n) + sign(w) * mean(g * sign(w)),
}


@pytest.mark.parametrize("per", AXES)
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_mean_matches_formula(gradient, per):
    w, dy = kernel_and_upstream()
    y, dw, _ = with_gradients(ScaledBinary("mean", per, gradient, dtype="float64"), w, dy)
    scale = abs(w).mean(AXES[per])
    expected = GRADIENTS[gradient](dy, w, scale, w.size / scale.size, lambda x: x.mean(AXES[per]))
    np.testing.assert_allclose(y, scale * sign(w), rtol=1e-12)
    np.testing.assert_allclose(dw, expected, rtol=1e-12)


def test_exact_gradient_is_that_of_the_formula_within_the_signs():
    """Where no weight changes its sign, q is sign(w) times a mean: the derivative, less the first term, is exact."""
    w, dy = kernel_and_upstream()
    w = np.where(abs(w) < 0.1, 0.5, w)
    _, dw, _ = with_gradients(ScaledBinary(gradient="exact", dtype="float64"), w, dy)
    through_scale = dw - dy * abs(w).mean((0, 1, 2)) * (abs(w) < 1)
    for index in [(0, 1, 2, 3), (2, 2, 0, 4)]:
        results = []
        for step in (1e-4, -1e-4):
            moved = w.copy()
            moved[index] += step
            results.append((abs(moved).mean((0, 1, 2)) * sign(moved) * dy).sum())
        np.testing.assert_allclose(through_scale[index], (results[0] - results[1]) / 2e-4, rtol=1e-6)


@pytest.mark.parametrize("per", AXES)
@pytest.mark.parametrize("gradient", ["identity", "clipped", "polynomial"])
def test_trained_scale_has_the_gradient_of_the_product(gradient, per):
    w, dy = kernel_and_upstream()
    scale = np.array([0.5, -0.2, 1.0, 2.0, 0.1]) if per == "filter" else np.array(0.7)
    quantizer = ScaledBinary(
        "trained", per, gradient, alpha_initializer=tf.keras.initializers.Constant(scale), dtype="float64"
    )
    y, dw, (dalpha,) = with_gradients(quantizer, w, dy)
    np.testing.assert_allclose(y, scale * sign(w), rtol=1e-12)
    np.testing.assert_allclose(dw, GRADIENTS[gradient](scale * dy, w, None, None, None), rtol=1e-12)
    np.testing.assert_allclose(dalpha, (dy * sign(w)).sum(AXES[per]), rtol=1e-12)


def test_scale_of_one_and_first_trained_scale():
    w, dy = kernel_and_upstream()
    y, dw, _ = with_gradients(ScaledBinary("one", gradient="clipped", dtype="float64"), w, dy)
    np.testing.assert_array_equal(y, sign(w))
    np.testing.assert_array_equal(dw, dy * (abs(w) <= 1))
    np.testing.assert_array_equal(ScaledBinary("trained", dtype="float64")(w), sign(w))


@pytest.mark.parametrize("per", AXES)
def test_moving_scale_follows_the_kernel_in_training_only(per):
    w, dy = kernel_and_upstream()
    quantizer = ScaledBinary("ema", per, dtype="float64")
    alpha = np.full(() if per == "layer" else 5, 0.6745 * np.sqrt(2 / (3 * 3 * 5)))
    y, dw, trained = with_gradients(quantizer, w, dy)
    np.testing.assert_allclose(y, alpha * sign(w), rtol=1e-12)
    np.testing.assert_array_equal(dw, dy)
    assert trained == [] and quantizer.trainable_weights == []
    for training in (True, tf.constant(True), False, tf.constant(False)):
        np.testing.assert_allclose(quantizer(w, training=training), alpha * sign(w), rtol=1e-12)
        if training:
            alpha = 0.9 * alpha + 0.1 * abs(w).mean(AXES[per])
        np.testing.assert_allclose(quantizer.alpha, alpha, rtol=1e-12)
    quantizer.trainable = False
    quantizer(w, training=True)
    np.testing.assert_allclose(quantizer.alpha, alpha, rtol=1e-12)


def test_centred_kernel():
    w, dy = kernel_and_upstream()
    for per, axes in AXES.items():
        centred = w - w.mean(axes, keepdims=True)
        y, dw, _ = with_gradients(ScaledBinary(per=per, gradient="clipped", centre=True, dtype="float64"), w, dy)
        np.testing.assert_allclose(y, abs(centred).mean(axes) * sign(centred), rtol=1e-12)
        g = dy * (abs(centred) <= 1)
        np.testing.assert_allclose(dw, g - g.mean(axes, keepdims=True), rtol=1e-12, atol=1e-15)


def test_centred_signs_are_those_of_float64():
    """The weights are so near to their mean that float32 does not tell on which side they are."""
    w = (1 + np.random.default_rng(1).integers(-2, 3, (3, 3, 64, 8)) * 2.0**-23).astype("float32")
    expected = sign(w.astype("float64") - w.astype("float64").mean((0, 1, 2)))
    quantizer = ScaledBinary(centre=True)
    for call in (quantizer, tf.function(quantizer)):
        np.testing.assert_array_equal(sign(call(w).numpy()), expected)


def test_older_names_are_forms_of_it():
    w, dy = kernel_and_upstream()
    for cls, arguments in ((ScaledSign, {"gradient": "clipped"}), (XNORSign, {"gradient": "xnor"}), (DoReFaSign, {})):
        per = "layer" if cls is DoReFaSign else "filter"
        found = with_gradients(cls(), w.astype("float32"), dy.astype("float32"))
        expected = with_gradients(ScaledBinary(per=per, **arguments), w.astype("float32"), dy.astype("float32"))
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])
        assert set(cls().get_config()) == {"name", "trainable", "dtype"}


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"scale": "median"}, "'q' needs scale to be one of mean, one, ema, trained, but got 'median'"),
        ({"per": "channel"}, "needs per to be one of filter, layer, but got 'channel'"),
        ({"gradient": "ste"}, "needs gradient to be one of identity, clipped, polynomial, xnor, exact, sibnn"),
        ({"scale": "one", "gradient": "xnor"}, 'gradient="xnor", which needs scale="mean", not "one"'),
        ({"scale": "ema", "gradient": "exact"}, 'gradient="exact", which needs scale="mean", not "ema"'),
        ({"scale": "trained", "gradient": "sibnn"}, 'gradient="sibnn", which needs scale="mean", not "trained"'),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ScaledBinary(**arguments, name="q")


FORMS = {
    "mean": {},
    "layer": {"per": "layer"},
    "one": {"scale": "one"},
    "ema": {"scale": "ema"},
    "trained": {"scale": "trained", "alpha_initializer": tf.keras.initializers.RandomNormal(seed=0)},
    "centre": {"centre": True},
}


def conv_model(**arguments):
    tf.keras.utils.set_random_seed(0)
    conv = lq.layers.QuantConv2D(
        8, 3, padding="same", pad_values=1, input_quantizer="ste_sign", kernel_quantizer=ScaledBinary(**arguments)
    )
    return tf.keras.Sequential([tf.keras.Input((6, 6, 16)), conv, tf.keras.layers.MaxPool2D(2)])


def images():
    return np.random.default_rng(2).normal(size=(3, 6, 6, 16)).astype("float32")


@pytest.mark.parametrize("form", FORMS)
def test_converts_to_binary_convolution(form):
    model = conv_model(**FORMS[form])
    model.compile("sgd", "mse")
    model.train_on_batch(images(), np.ones((3, 3, 3, 8)))
    content, report = convert(model)
    assert report.bitpacked == report.binary == 1
    result = verify(model, content, images())
    assert result.ok, result.differences


def test_moving_scale_moves_once_in_a_step():
    model = conv_model(scale="ema")
    model.compile(tf.keras.optimizers.SGD(0.0), "mse")
    (conv, _), alpha = model.layers, model.layers[0].kernel_quantizer.alpha
    before, magnitude = alpha.numpy(), np.abs(conv.get_weights()[0]).mean((0, 1, 2))
    model.train_on_batch(images(), np.ones((3, 3, 3, 8)))
    np.testing.assert_allclose(alpha, 0.9 * before + 0.1 * magnitude, rtol=1e-5)
    after = alpha.numpy()
    model.evaluate(images(), np.ones((3, 3, 3, 8)), verbose=0)
    model.predict(images(), verbose=0)
    np.testing.assert_array_equal(alpha, after)


@pytest.mark.parametrize("form", ["ema", "trained", "centre"])
def test_half_precision(form):
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = conv_model(**FORMS[form])
    finally:
        tf.keras.mixed_precision.set_global_policy(None)  # "float32" would no longer follow floatx
    quantizer = model.layers[0].kernel_quantizer
    assert all(weight.dtype == tf.float32 for weight in model.weights)
    model.compile("sgd", "mse")
    before = [weight.numpy() for weight in quantizer.weights]
    for _ in range(10):  # In the first ones, Keras seeks a scale of the loss that does not overflow.
        model.train_on_batch(images(), np.ones((3, 3, 3, 8)))
    assert all(np.any(old != new) for old, new in zip(before, quantizer.weights, strict=True))
    full = conv_model(**FORMS[form])
    full.set_weights(model.get_weights())
    np.testing.assert_allclose(model(images()), full(images()), rtol=5e-3, atol=0.05)


@pytest.mark.parametrize("cls", [ScaledSign, XNORSign, DoReFaSign])
@pytest.mark.parametrize("argument", [{"scale": "mean"}, {"per": "layer"}, {"gradient": "exact"}, {"centre": True}])
def test_forms_take_no_other_form(cls, argument):
    """Their config does not keep it, so that a saved model would be another one."""
    with pytest.raises(TypeError, match=f"{cls.__name__} takes no {next(iter(argument))}: ScaledBinary does"):
        cls(**argument)
