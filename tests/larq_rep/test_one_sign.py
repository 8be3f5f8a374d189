"""A weight near the threshold of its quantizer has one sign, that of float64, whatever computes the model."""

import larq as lq
import larq_compute_engine as lce
import numpy as np
import pytest
import tensorflow as tf
from support import first_quick, others_slow

from larq_rep.converters import convert, verify
from larq_rep.converters.flatbuffer import Flatbuffer
from larq_rep.converters.graph import FrozenGraph
from larq_rep.converters.lce import interpreter
from larq_rep.quantizers import LibraSign, ReCUSign, RotatedSign
from larq_rep.zoo.mapping import Importer

CHANNELS, FILTERS = 32, 16
SIZE = 9 * CHANNELS


# What each takes the sign of, in numpy: a kernel HWIO in float64, then the quantizer's weights.


def centred(w):
    return w - w.mean((0, 1, 2))


def standardized(w):
    return centred(w) / w.std((0, 1, 2), ddof=1)


def recu(w, alpha):
    return centred(w) * 2 * np.sqrt(2) / np.sqrt(w.var((0, 1, 2), ddof=1) + 1e-5)


def rotated(w, alpha, rotate, r1, r2):
    z = standardized(w)
    matrices = z.transpose(3, 2, 0, 1).reshape(-1, len(r1), len(r2))
    r = (r1.T @ matrices @ r2).reshape(w.shape[3], w.shape[2], *w.shape[:2]).transpose(2, 3, 1, 0)
    return z + np.abs(np.sin(rotate)) * (r - z)


def mirrored(w, *weights):
    return rotated(w[::-1, ::-1], *weights)[::-1, ::-1]


ROTATE = tf.keras.initializers.Constant(0.7)
CASES = {
    "LibraSign": (LibraSign, standardized),
    "ReCUSign": (ReCUSign, recu),
    "RotatedSign": (lambda: RotatedSign(rotate_initializer=ROTATE), rotated),
    "RotatedSign-mirrored": (lambda: RotatedSign(rotate_initializer=ROTATE, mirrored=True), mirrored),
}


class Near:
    """A model of one binary convolution with forty weights at the threshold.

    # Attributes
        model: The model.
        where: The position of each of these weights in the kernel, rows of h, w, in, out.
    """

    def __init__(self, name):
        tf.keras.utils.set_random_seed(0)
        quantizer, self.formula = CASES[name]
        conv = lq.layers.QuantConv2D(
            FILTERS,
            3,
            use_bias=False,
            input_quantizer="ste_sign",
            kernel_quantizer=quantizer(),
            kernel_initializer=tf.keras.initializers.RandomNormal(0.1, 1),
        )
        self.model = tf.keras.Sequential([tf.keras.Input((3, 3, CHANNELS)), conv])
        self.bring_near()

    def bring_near(self):
        """Moves the forty weights of the smallest values to the threshold, by steps of Newton's method."""
        kernel = self.model.get_weights()[0]
        u = self.value(kernel)
        self.where = np.argwhere(np.abs(u) <= np.sort(np.abs(u), axis=None)[39])
        for _ in range(4):
            for at in map(tuple, self.where):
                moved = kernel.astype(np.float64)
                moved[at] += 1e-4
                slope = (self.value(moved)[at] - self.value(kernel)[at]) / 1e-4
                kernel[at] -= self.value(kernel)[at] / slope
        self.model.layers[0].kernel.assign(kernel)

    def value(self, kernel):
        weights = [weight.astype(np.float64) for weight in self.model.get_weights()[1:]]
        return self.formula(kernel.astype(np.float64), *weights)

    def positive(self, outputs):
        """Whether the weights are +1, as shown by `outputs`, a function from images to the model's results."""
        images = np.full((len(self.where) + 1, 3, 3, CHANNELS), -1, np.float32)
        for image, (h, w, c, _) in zip(images, self.where, strict=False):
            image[h, w, c] = 1
        found = np.asarray(outputs(images)).reshape(len(images), FILTERS)
        # The difference to the result of the last image, all of -1, is twice the weight.
        found = (found - found[-1])[np.arange(len(self.where)), self.where[:, 3]]
        scales = self.model.get_weights()[1:2] or [np.ones(FILTERS)]
        return found * scales[0][self.where[:, 3]] > 0

    def check(self, outputs):
        """Compares their signs with those that numpy computes in float64 from the weights in float32."""
        expected = self.value(self.model.get_weights()[0])[tuple(self.where.T)]
        assert np.median(np.abs(expected)) < 1e-8 and np.all(expected != 0)
        np.testing.assert_array_equal(self.positive(outputs), expected > 0)


def by_file(content):
    engine = interpreter(content)
    return lambda images: [engine.predict(image[None]) for image in images]


def by_graph(model):
    graph = FrozenGraph(model)
    return lambda images: [graph.run(graph.outputs, {graph.inputs[0]: image[None]}) for image in images]


def by_signature(folder):
    model = tf.saved_model.load(str(folder))  # without Keras
    return lambda images: next(iter(model.signatures["serving_default"](tf.constant(images)).values()))


def in_float64(near):
    conv, quantizer = near.model.layers[0], near.model.layers[0].kernel_quantizer
    config = {**quantizer.get_config(), "dtype": "float64"}
    quantizer = type(quantizer).from_config(config)
    wide = lq.layers.QuantConv2D(
        conv.filters, 3, use_bias=False, input_quantizer="ste_sign", kernel_quantizer=quantizer, dtype="float64"
    )
    wide.input_quantizer = lq.quantizers.SteSign(dtype="float64")
    model = tf.keras.Sequential([tf.keras.Input((3, 3, CHANNELS), dtype="float64"), wide])
    model.set_weights(near.model.get_weights())
    return lambda images: model(images.astype(np.float64))


@pytest.fixture(params=others_slow(list(CASES), 3), scope="module")
def near(request):
    return Near(request.param)


ENGINES = {
    "predict": lambda model: lambda images: model.predict(images, verbose=0),
    "call": lambda model: model,
    "function": tf.function,
    "quantized weights": lambda model: lambda images: _of_weights(model, images),
    "frozen graph": by_graph,
    "function compiled by XLA": lambda model: tf.function(model, jit_compile=True),
    "predict eagerly": lambda model: lambda images: _eagerly(model, images),
    "predict on a batch": lambda model: model.predict_on_batch,
    "call in inference": lambda model: lambda images: model(images, training=False),
    "function of a tensor": lambda model: lambda images: tf.function(model)(images, training=tf.constant(False)),
}


def _eagerly(model, images):
    model.run_eagerly = True
    try:
        return model.predict(images, verbose=0)
    finally:
        model.run_eagerly = False


def _of_weights(model, images):
    with lq.context.quantized_scope(True):
        kernel = model.get_weights()[0]
    return np.einsum("nhwc,hwco->no", images, kernel)


@pytest.mark.parametrize("engine", others_slow(list(ENGINES), 6))
def test_all_engines_take_the_sign_of_float64(near, engine):
    near.check(ENGINES[engine](near.model))


def test_a_float64_model_takes_the_same_sign(near):
    near.check(in_float64(near))


@pytest.mark.parametrize("fold", others_slow([True, False], 1))
def test_the_file_has_the_same_sign(near, fold):
    content, report = convert(near.model, fold=fold)
    assert report.bitpacked == 1
    near.check(by_file(content))
    images = np.random.default_rng(0).normal(size=(2, 3, 3, CHANNELS)).astype(np.float32)
    result = verify(near.model, content, images)
    assert result.ok and result.predict_error < 1e-6, result


def imported(model, weights):
    """Gives a model weights from the tensors of a PyTorch file, and returns the report."""
    conv = model.layers[0]
    tensors = {"conv.weight": weights[0][::-1, ::-1].transpose(3, 2, 0, 1)}
    for name, array in zip([weight.name for weight in conv.weights[1:]], weights[1:], strict=True):
        tensors["conv." + name.split("/")[-1].removesuffix(":0")] = array
    importer = Importer(model, tensors)
    importer.conv(conv.name, "conv")
    return importer.finish({})


def test_an_imported_model_has_the_same_signs(near):
    report = imported(near.model, near.model.get_weights())
    assert list(report.close.values()) >= [40] and not report.zeros
    near.check(near.model)


@pytest.mark.slow
def test_the_file_of_lces_own_converter_has_the_same_sign(near):
    content = lce.convert_keras_model(near.model)
    assert "LceBconv2d" in {op.name for op in Flatbuffer(content).operators}
    near.check(by_file(content))


@pytest.mark.parametrize(
    "name, form",
    first_quick(
        [
            *[("RotatedSign", "model"), ("LibraSign", "model.keras"), ("ReCUSign", "model.h5")],
            *[("RotatedSign", "model.h5"), ("RotatedSign", "model.keras"), ("LibraSign", "model.h5")],
            *[("LibraSign", "model"), ("ReCUSign", "model.keras"), ("ReCUSign", "model")],
        ],
        3,
    ),
)
def test_a_loaded_model_has_the_same_signs(name, form, tmp_path):
    near, path = Near(name), tmp_path / form
    near.model.save(path)
    loaded = tf.keras.models.load_model(path)
    near.check(lambda images: loaded.predict(images, verbose=0))
    near.check(loaded)
    near.check(by_file(convert(path)[0]))
    if form == "model":
        near.check(by_signature(path))


@pytest.mark.parametrize("name", others_slow(list(CASES), 3))
def test_a_trained_model_has_the_same_signs(name):
    near = Near(name)
    before = near.model.get_weights()[0]
    images = np.random.default_rng(0).normal(size=(8, 3, 3, CHANNELS)).astype(np.float32)
    near.model.compile(tf.keras.optimizers.SGD(0.1), "mse")
    near.model.fit(images, np.zeros((8, 1, 1, FILTERS)), verbose=0)
    assert np.any(near.model.get_weights()[0] != before)
    near.model.predict(images, verbose=0)
    near.bring_near()
    # The step of training and the function of `predict` were compiled before.
    near.model.optimizer.learning_rate.assign(0)
    near.model.fit(images, np.zeros((8, 1, 1, FILTERS)), verbose=0)
    near.check(lambda images: near.model.predict(images, verbose=0))
    near.check(near.model)
    near.check(by_file(convert(near.model)[0]))


@pytest.mark.parametrize("name", others_slow(list(CASES), 3))
def test_training_computes_in_float32(name):
    near = Near(name)
    image = tf.TensorSpec((1, 3, 3, CHANNELS))

    def wide(training):
        graph = tf.function(lambda x: near.model(x, training=training)).get_concrete_function(image).graph
        return any(y.dtype == tf.float64 for op in graph.get_operations() for y in op.outputs)

    assert wide(False) and wide(None) and not wide(True)


@pytest.mark.parametrize("name", others_slow(list(CASES), 3))
def test_the_gradients_are_those_of_training(name):
    near = Near(name)
    conv = near.model.layers[0]
    kernel = tf.random.stateless_normal(conv.kernel.shape, (0, 1))
    dy = tf.random.stateless_normal(conv.kernel.shape, (0, 2))
    gradients = []
    for training in (False, True):
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            loss = tf.reduce_sum(conv.kernel_quantizer(kernel, training=training) * dy)
        gradients.append(tape.gradient(loss, [kernel, *conv.kernel_quantizer.trainable_weights]))
    assert all(np.any(gradient) for gradient in gradients[0])
    for found, expected in zip(*gradients, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", others_slow(list(CASES), 3))
def test_a_weight_at_the_threshold_is_positive(name):
    """Integers whose mean is 1 in each channel: float64 rounds nothing, so a weight of 1 is exactly 0."""
    near = Near(name)
    kernel, *weights = near.model.get_weights()
    kernel = np.random.default_rng(0).integers(-3, 6, kernel.shape).astype(np.float32)
    kernel[0, 0, 0] += SIZE - kernel.sum((0, 1, 2))
    if len(weights) > 1:
        weights[2:] = [np.eye(len(rotation), dtype=np.float32) for rotation in weights[2:]]
    near.where = np.argwhere(kernel == 1)[:40]
    # A file of float64, whose numbers float32 rounds to these.
    kernel = kernel * np.random.default_rng(1).normal(1, 1e-10, kernel.shape)
    report = imported(near.model, [kernel, *weights])
    kernel = near.model.get_weights()[0]
    assert list(report.zeros.values()) == [np.count_nonzero(kernel == 1)] > [40] and not report.close
    for outputs in (near.model, near.model.predict_on_batch, by_graph(near.model), by_file(convert(near.model)[0])):
        assert near.positive(outputs).all()


def test_the_scale_of_ir_net_is_decided_once():
    """Channels whose mean magnitude is within 1e-8 of a half power of two, where the exponent is rounded up or down."""
    rng = np.random.default_rng(0)

    def magnitude(w):
        return np.abs(standardized(w.astype(np.float64))).mean((0, 1, 2))

    kernel = rng.normal(size=(3, 3, CHANNELS, FILTERS))
    low, high = np.ones(FILTERS), np.full(FILTERS, 4.0)
    for _ in range(60):
        middle = (low + high) / 2
        # The larger the power, the smaller is the mean magnitude for the same deviation.
        large = magnitude(np.sign(kernel) * np.abs(kernel) ** middle) > 2**-0.5
        low, high = np.where(large, middle, low), np.where(large, high, middle)
    kernel = (np.sign(kernel) * np.abs(kernel) ** low).astype(np.float32)
    assert np.all(np.abs(magnitude(kernel) - 2**-0.5) < 1e-8)
    expected = np.where(magnitude(kernel) > 2**-0.5, 1, 0.5)
    assert len(set(expected)) == 2

    model = Near("LibraSign").model
    model.set_weights([kernel])
    images = np.full((2, 3, 3, CHANNELS), -1, np.float32)
    images[1, 0, 0, 0] = 1
    for outputs in (model, model.predict_on_batch, tf.function(model), by_graph(model), by_file(convert(model)[0])):
        found = np.asarray(outputs(images)).reshape(2, FILTERS)
        np.testing.assert_array_equal(np.abs(found[1] - found[0]) / 2, expected)
