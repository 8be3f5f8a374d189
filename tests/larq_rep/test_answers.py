"""What is asked of quantizers: each answer against the numbers, and the refusal of those that do not answer."""

import functools
import inspect

import larq as lq
import layer_cases
import numpy as np
import pytest
import tensorflow as tf
from layer_cases import class_of

from larq_rep import cost, plots, quantizers
from larq_rep.layers import BiasedPReLU, RPReLU
from larq_rep.quantizers.base import (
    coefficients_of,
    precision_of,
    schedule_of,
    value_of,
    window_of,
    zero_is_positive,
)
from larq_rep.quantizers.callbacks import QuantizerSchedule
from larq_rep.signs import saturated, shifted, signs
from larq_rep.training.optimizers import decayed_weights
from larq_rep.training.phases import rebuilt, with_real_weights
from larq_rep.training.schedules import EDESchedule, schedules_for
from larq_rep.training.statistics import BinaryStatistics

Quantizer = lq.quantizers.Quantizer

# Every quantizer of one bit, ours and Larq's. Those that are not here are made as in `layer_cases`.
CASES = {
    "LeakyRSign": lambda: quantizers.LeakyRSign(shift_initializer="random_normal"),
    "LeakyRSign-0": lambda: quantizers.LeakyRSign(slope=0.0, shift_initializer="ones"),
    "LeakySign-0": lambda: quantizers.LeakySign(slope=0.0),
    "QuantSign": lambda: quantizers.QuantSign(bits=1),
    "RSign": lambda: quantizers.RSign(shift_initializer="random_normal"),
    "ReCUSign": lambda: quantizers.ReCUSign(tau=0.7),
    "RotatedSign": lambda: quantizers.RotatedSign(t=1.5, rotate_initializer=tf.keras.initializers.Constant(0.5)),
    "StandardizedSign": quantizers.StandardizedSign,
    "StandardizedSign-4": lambda: quantizers.StandardizedSign(t=4.0),
    "Uniform": lambda: quantizers.Uniform(1),
    "SteSign": lambda: lq.quantizers.SteSign(clip_value=1.3),
    "SteSign-None": lambda: lq.quantizers.SteSign(clip_value=None),
    "ApproxSign": lq.quantizers.ApproxSign,
    "SteHeaviside": lq.quantizers.SteHeaviside,
    "SwishSign": lambda: lq.quantizers.SwishSign(beta=2.0),
    "MagnitudeAwareSign": lambda: lq.quantizers.MagnitudeAwareSign(clip_value=0.7),
    "DoReFa": lambda: lq.quantizers.DoReFa(1),
    "DoReFa-weights": lambda: lq.quantizers.DoReFa(1, mode="weights"),
}
# Those that take no sign.
OTHERS = {
    "NoOp": lambda: lq.quantizers.NoOp(precision=1),
    "SteTern": lq.quantizers.SteTern,
    "DoReFa-2": lambda: lq.quantizers.DoReFa(2),
    "LearnedLevels": quantizers.LearnedLevels,
    "PowerOfTwo": quantizers.PowerOfTwo,
    "QuantSign-2": quantizers.QuantSign,
    "ResidualSigns": quantizers.ResidualSigns,
    "TernaryInput": quantizers.TernaryInput,
    "TernaryWeight": quantizers.TernaryWeight,
    "Thermometer": quantizers.Thermometer,
    "TrainedTernary": quantizers.TrainedTernary,
}

CASES |= {
    name: functools.partial(class_of(name), **layer_cases.CASES[name].arguments)
    for name in quantizers.__all__
    if name not in {*CASES, *OTHERS, "CentredClip", "CirculantKernel"}
}
CASES |= {
    f"ScaledBinary-{gradient}": functools.partial(quantizers.ScaledBinary, gradient=gradient)
    for gradient in ("clipped", "polynomial", "exact", "sibnn")
}
CASES["ScaledBinary-centre"] = lambda: quantizers.ScaledBinary(centre=True, gradient="clipped")


def _classes(module):
    return {
        name
        for name in module.__all__
        if inspect.isclass(cls := getattr(module, name)) and issubclass(cls, Quantizer) and cls is not Quantizer
    }


def test_every_quantizer_is_a_case():
    known = {name.split("-")[0] for name in {**CASES, **OTHERS}}
    aliases = {"DoReFaQuantizer", "NoOpQuantizer"}
    # Its results have another shape: see test_circulant.py.
    elsewhere = {"CirculantKernel"}
    assert _classes(quantizers) | _classes(lq.quantizers) == known | aliases | elsewhere


@pytest.fixture(params=CASES)
def case(request):
    tf.keras.utils.set_random_seed(3)
    x = np.random.default_rng(0).normal(0.1, 1.2, (2, 2, 3, 4)).astype(np.float32)
    quantizer = CASES[request.param]()
    return quantizer, tf.constant(x), quantizer(x).numpy()


def test_the_sign_of_the_value_is_that_of_the_output(case):
    quantizer, x, y = case
    value = value_of(quantizer)(x).numpy()
    assert value.shape == y.shape and np.all(value != 0)
    np.testing.assert_array_equal(value > 0, y > 0)
    assert 0.1 < np.mean(y > 0) < 0.9
    np.testing.assert_allclose(shifted(quantizer, x)[0], value)


def test_no_gradient_passes_beyond_the_window(case):
    quantizer, x, y = case
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        outputs = tf.unstack(tf.reshape(quantizer(x), [-1]))
    passes = np.reshape([np.any(tape.gradient(output, x)) for output in outputs], y.shape)
    value, window = value_of(quantizer)(x).numpy(), window_of(quantizer)(x)
    if window is None:
        assert passes.all() and shifted(quantizer, x)[1] == 1
        return
    assert not passes[np.abs(value) > window].any()
    np.testing.assert_array_equal(passes, ~saturated(quantizer, x).numpy())
    assert 0 < np.mean(passes) < 1 and np.any(np.abs(value) > window)
    np.testing.assert_allclose(shifted(quantizer, x)[1], window, rtol=1e-6)


STANDARDIZED = ("BasisWeights", "ScaledBinary-centre", "StandardizedSign", "LibraSign", "ReCUSign", "RotatedSign")


@pytest.mark.parametrize(
    "name", [name for name in CASES if not name.startswith((*STANDARDIZED, "LeakyRSign", "RSign"))]
)
def test_the_sign_of_a_zero(name):
    quantizer = CASES[name]()
    x = np.random.default_rng(0).normal(size=(2, 2, 3, 4)).astype(np.float32)
    x[0, 0, 0, 0] = {"LowBitSign": 2 / 3, "DoReFa": 0.5, "ShiftedSigns": 0.5, "Uniform": 0.5}.get(name, 0)
    y = quantizer(x)
    assert value_of(quantizer)(tf.constant(x))[0, 0, 0, 0] == 0
    assert (y[0, 0, 0, 0] > 0) == zero_is_positive(quantizer)


def test_the_low_bit_has_a_shift():
    x = tf.constant([[-2.0, -0.5, 0.25, 0.75]])
    value, _ = shifted(quantizers.LowBitSign(), x)
    np.testing.assert_allclose(value, [[-4 / 3, 1 / 6, 0.25 - 2 / 3, 0.75 - 2 / 3]], rtol=1e-6)


@pytest.mark.parametrize("name", OTHERS)
def test_what_takes_no_sign(name):
    with pytest.raises(ValueError, match="takes no sign: a quantizer of precision 1 was expected"):
        shifted(OTHERS[name](), tf.zeros((1, 2)))


def test_coefficients():
    shapes = {
        quantizers.RSign: {"shift of the sign": (4,)},
        quantizers.LeakyRSign: {"shift of the sign": (4,)},
        quantizers.ReCUSign: {},
        quantizers.RotatedSign: {},
        quantizers.ScaledSign: {},
        functools.partial(quantizers.ScaledBinary, "trained"): {},
        functools.partial(quantizers.ResidualSigns, scale="trained"): {},
        RPReLU: {"shift in": (4,), "slope": (1, 1, 4), "shift out": (4,)},
        BiasedPReLU: {"shift in": (4,), "slope": (1, 1, 4)},
        tf.keras.layers.Dense: {},
    }
    for cls, expected in shapes.items():
        layer = cls(4) if cls is tf.keras.layers.Dense else cls()
        layer.build((2, 2, 3, 4))
        assert {kind: tuple(weight.shape) for kind, weight in coefficients_of(layer).items()} == expected


# Quantizers of a user.


class Silent(Quantizer):
    """Binarizes and says nothing else."""

    precision = 1

    def call(self, inputs):
        return lq.math.sign(inputs - 0.5)


@lq.utils.register_keras_custom_object
class Speaking(Silent):
    """A weight, a number that a schedule changes, and all answers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.number = tf.Variable(0.0, trainable=False)

    class Schedule(QuantizerSchedule):
        attribute = "number"
        quantizers = "Speaking"

        def value(self, quantizer, epoch, epochs):
            return epoch + 1

    schedule = Schedule

    def build(self, input_shape):
        self.shift = self.add_weight("shift", (input_shape[-1],), initializer=tf.keras.initializers.Constant(0.5))
        super().build(input_shape)

    def call(self, inputs):
        return lq.math.sign(inputs - self.shift)

    def value(self, x):
        return x - self.shift

    def window(self, x):
        return 2.0

    @property
    def coefficients(self):
        return {"shift of the sign": self.shift}


class Weighted(Silent):
    def build(self, input_shape):
        self.scale = self.add_weight("scale", (input_shape[-1],))
        super().build(input_shape)


class Numbered(Silent):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.number = tf.Variable(0.0, trainable=False)


class Renamed(lq.quantizers.SteSign):
    """Only the class is another."""


class Changed(lq.quantizers.SteSign):
    def call(self, inputs):
        return super().call(inputs - 0.5)


class ChangedOfOurs(quantizers.RSign):
    def call(self, inputs):
        return super().call(-inputs)


class ChangedEDE(quantizers.EDESign):
    def __call__(self, inputs):
        return super().__call__(inputs - 0.5)


@lq.utils.set_precision(1)
def function(x):
    return lq.math.sign(x - 0.5)


def undeclared(x):
    return lq.math.sign(x)


REFUSED = [Silent(), Changed(), ChangedOfOurs(), ChangedEDE(), function]


def network(quantizer=None, **arguments):
    """A convolution with an input quantizer, its layer named `conv`."""
    arguments = {"input_quantizer": quantizer, **arguments}
    layer = lq.layers.QuantConv2D(4, 1, use_bias=False, name="conv", **arguments)
    return tf.keras.Sequential([tf.keras.Input((2, 2, 4)), layer], name="own")


def images():
    return np.random.default_rng(0).normal(size=(3, 2, 2, 4)).astype(np.float32)


def saturation(model):
    statistics = BinaryStatistics(images())
    statistics.set_model(model)
    statistics.on_train_begin()
    logs = {}
    statistics.on_epoch_end(0, logs)
    return logs["saturated"]


@pytest.mark.parametrize("quantizer", REFUSED, ids=lambda q: getattr(q, "__name__", type(q).__name__))
def test_unknown_values_are_refused(quantizer):
    remedy = r"does not say .*Give the class that has its `call` a method `value\(x\)`"
    with pytest.raises(ValueError, match=remedy):
        shifted(quantizer, tf.zeros((1, 4)))
    model = network(quantizer)
    assert [sign.name for sign in signs(model)] == ["conv"]
    with pytest.raises(ValueError, match=remedy):
        saturation(model)
    with pytest.raises(ValueError, match=remedy):
        plots.activations(model, images())


def test_a_quantizer_of_its_own_answers_everywhere():
    quantizer = Speaking()
    model = network(quantizer)
    value, window = shifted(quantizer, images())
    np.testing.assert_allclose(value, images() - 0.5)
    assert window == 2
    assert saturation(model) == pytest.approx(np.mean(np.abs(images() - 0.5) >= 2))
    plots.activations(model, images())
    plots.coefficients(model)
    assert [weight.name for weight in decayed_weights(model, "conv_and_shifts")][-1].endswith("shift:0")
    assert [type(schedule) for schedule in schedules_for(model)] == [Speaking.Schedule]
    model.compile("sgd", "mse")
    model.fit(images(), images(), epochs=3, verbose=0, callbacks=schedules_for(model))
    assert quantizer.number == 3
    copy = rebuilt(model, lambda layer, config: config)
    assert copy.get_layer("conv").input_quantizer.number == 3
    assert cost.count(model).bops == 0 < cost.count(network(Speaking(), kernel_quantizer="ste_sign")).bops


def test_a_value_without_a_window_is_refused():
    class Half(Silent):
        def value(self, x):
            return x - 0.5

        call = Silent.call

    with pytest.raises(ValueError, match=r"does not say where its gradient vanishes. Give .* a method `window\(x\)`"):
        shifted(Half(), tf.zeros((1, 4)))


def test_a_class_with_the_call_of_another_answers_as_that():
    np.testing.assert_array_equal(shifted(Renamed(clip_value=1.5), images())[0], images())
    assert shifted(Renamed(clip_value=1.5), images())[1] == 1.5

    class Inherited(quantizers.RSign):
        pass

    quantizer = Inherited(shift_initializer="ones")
    quantizer(images())
    np.testing.assert_allclose(shifted(quantizer, images())[0], images() + 1)
    assert list(coefficients_of(quantizer)) == ["shift of the sign"]


@pytest.mark.parametrize("quantizer", [Weighted(), ChangedOfOurs()], ids=lambda q: type(q).__name__)
def test_unknown_weights_are_refused(quantizer):
    model = network(quantizer)
    message = r"does not say which of its weights \(.*\) are shifts.*`coefficients = \{\}`, or a property"
    with pytest.raises(ValueError, match=message):
        decayed_weights(model, "conv_and_shifts")
    with pytest.raises(ValueError, match=message):
        plots.coefficients(model)
    assert len(decayed_weights(model, "all")) == 2


def test_unknown_kinds_of_coefficients_are_refused():
    class Misspelled(Speaking):
        call = Speaking.call
        coefficients = property(lambda self: {"shift": self.shift})

    with pytest.raises(ValueError, match=r"kinds \['shift'\]. Expected shift of the sign, shift in"):
        decayed_weights(network(Misspelled()), "conv_and_shifts")


def test_unknown_schedules_are_refused():
    with pytest.raises(ValueError, match=r"does not say what changes number.*an attribute `schedule`"):
        schedules_for(network(Numbered()))

    class Constant(Numbered):
        schedule = None

    assert (
        schedules_for(network(Constant())) == schedules_for(network(Silent())) == schedules_for(network(function)) == []
    )
    assert schedule_of(ChangedEDE()) is EDESchedule
    assert [type(schedule) for schedule in schedules_for(network(ChangedEDE()))] == [EDESchedule]


def test_unknown_precisions_are_refused():
    class Unsaid(Quantizer):
        def call(self, inputs):
            return lq.math.sign(inputs)

    message = "does not say how many bits its results have.*`precision`.*`lq.utils.set_precision`"
    for quantizer in (undeclared, Unsaid()):
        with pytest.raises(ValueError, match=message):
            precision_of(quantizer)
        for model in (network(quantizer), network(kernel_quantizer=quantizer)):
            with pytest.raises(ValueError, match=f"Cannot count layer 'conv': its quantizer .*{message}"):
                cost.count(model)
            with pytest.raises(ValueError, match=message):
                saturation(model)
    assert cost.count(network(function, kernel_quantizer=function)).bops == 4 * 4 * 4


def test_a_function_is_no_weight_of_a_first_phase():
    model = with_real_weights(network(kernel_quantizer=function))
    assert model.get_layer("conv").kernel_quantizer is None
