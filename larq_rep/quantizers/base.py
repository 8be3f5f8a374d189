"""Asks quantizers for their properties, and holds base classes of quantizers with variables.

A quantizer's class answers; a table answers for Larq's classes. A user's quantizers answer as ours do, with the
attributes and methods that `larq_rep.quantizers` lists; otherwise an error names the remedy. A class speaks only for
its own `call`: one that overrides the `call` of another must answer again.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import larq as lq
import tensorflow as tf

from larq_rep._keras import BaseQuantizer

# The offset, and for each plane its factor and its signs.
Planes = tuple[Any, list[tuple[Any, tf.Tensor]]]


class _Answers(NamedTuple):
    """The answers for a quantizer of Larq. The functions take the quantizer and its input."""

    value: Callable[[Any, tf.Tensor], tf.Tensor] = lambda quantizer, x: x
    window: Callable[[Any, tf.Tensor], Any] = lambda quantizer, x: quantizer.clip_value
    zero_is_positive: bool = True
    planes: Callable[[Any, tf.Tensor], Planes] | None = None


def _dorefa_planes(quantizer: Any, x: tf.Tensor) -> Planes:
    """The bits of the rounded number, the highest first.

    Each compares the number with the middle that the higher bits leave. These are multiples of 1/2, so their sums are
    exact in whatever order TensorFlow adds them. Rounding before would not do: engines round a number next to a middle
    to either side, which the signs would follow, though no number in front of them is near 0.
    """
    steps = 2**quantizer.precision - 1
    reached: Any = 0.0
    planes = []
    for bit in reversed(range(quantizer.precision)):
        middle = reached + (2**bit - 0.5)
        # A half is rounded to the even number: up, but down for the lowest bit.
        sign = tf.where(x * steps < middle, 1.0, -1.0) if bit else lq.math.sign(middle - x * steps)
        sign = tf.cast(sign, x.dtype)
        planes.append((-(2**bit) / (2 * steps), sign))
        reached += 2**bit / 2 * (1 - sign)
    return 0.5, planes


def _ternary_planes(quantizer: Any, x: tf.Tensor) -> Planes:
    threshold = abs(quantizer.threshold_value)
    return 0.0, [(0.5, lq.math.sign(x - threshold)), (-0.5, lq.math.sign(-x - threshold))]


_LARQ: dict[type, _Answers] = {
    lq.quantizers.SteSign: _Answers(),
    lq.quantizers.MagnitudeAwareSign: _Answers(),
    lq.quantizers.SteHeaviside: _Answers(zero_is_positive=False),
    lq.quantizers.ApproxSign: _Answers(window=lambda quantizer, x: 1.0),
    lq.quantizers.SwishSign: _Answers(window=lambda quantizer, x: None),
    # It rounds halves to even, so a value of 0 is rounded down.
    lq.quantizers.DoReFa: _Answers(
        value=lambda quantizer, x: 2 * (x if quantizer.mode == "activations" else quantizer.weight_preprocess(x)) - 1,
        window=lambda quantizer, x: 1.0 if quantizer.mode == "activations" else None,
        zero_is_positive=False,
        planes=_dorefa_planes,
    ),
    lq.quantizers.SteTern: _Answers(planes=_ternary_planes),
}


# The kinds of learned coefficients, each with one number per channel.
COEFFICIENTS = ("shift of the sign", "shift in", "slope", "shift out")


def precision_of(quantizer: Any) -> int:
    """The number of bits of a quantizer's results.

    # Raises
        ValueError: If it does not say.
    """
    if (precision := getattr(quantizer, "precision", None)) is None:
        raise ValueError(
            f"{_called(quantizer)} does not say how many bits its results have. Give its class an attribute "
            "`precision`, or a function the decorator `lq.utils.set_precision`: 1 if it binarizes, 32 if it does not "
            "quantize."
        )
    return precision


def binarizes(quantizer: Any) -> bool:
    """Whether a quantizer has precision 1 and is not `lq.quantizers.NoOp`, which marks values already binary."""
    return getattr(quantizer, "precision", None) == 1 and not isinstance(quantizer, lq.quantizers.NoOp)


def value_of(quantizer: Any) -> Callable[[tf.Tensor], tf.Tensor]:
    """The function from a quantizer's input to the value whose sign it takes.

    # Raises
        ValueError: If it does not binarize, or does not say.
    """
    if not binarizes(quantizer):
        raise ValueError(f"{_called(quantizer)} takes no sign: a quantizer of precision 1 was expected.")
    return _answer(quantizer, "value", "what it takes the sign of", "a method `value(x)` that returns it")


def window_of(quantizer: Any) -> Callable[[tf.Tensor], Any]:
    """The function of the input that returns how far from 0 the value may be for gradients to pass, or None.

    # Raises
        ValueError: If it does not say.
    """
    remedy = "a method `window(x)` that returns how far from 0 the value of x may be, or None if it may be anything"
    return _answer(quantizer, "window", "where its gradient vanishes", remedy)


def saturates(quantizer: Any, x: tf.Tensor, value: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """Marks where no gradient passes: by default where the value is not within the window."""
    own = _find(quantizer, "saturated")
    return tf.abs(value) >= window if own is None else own(x)


def zero_is_positive(quantizer: Any) -> bool:
    """Whether the sign of 0 is +1, as in Larq; in PyTorch it is 0, so results differ there."""
    return _find(quantizer, "zero_is_positive") is not False


def planes_of(quantizer: Any) -> Callable[[tf.Tensor], Planes] | None:
    """The function from an input to the signs that its quantized form is a sum of, or None if there is none.

    It returns `(offset, [(c_1, n_1), ..., (c_K, n_K)])` with `q(x) = offset + c_1 n_1 + ... + c_K n_K` at inference, in
    ties, too. The signs have the shape of x, and the other numbers are constants at inference. A convolution of each
    plane then gives that of q(x). In `lq.layers` the padding is zero: either the offset is 0, and the signs are padded
    with 0, or `offset + c_1 + ... + c_K` is 0 up to rounding, and they are padded with +1.
    """
    # Larq's DoReFa does something else to weights, and the threshold of its SteTern may be one for weights.
    if getattr(quantizer, "mode", None) == "weights" or getattr(quantizer, "ternary_weight_networks", False):
        return None
    return _find(quantizer, "planes")


def bases_of(quantizer: Any) -> Callable[[tf.Tensor], list[tuple[Any, tf.Tensor]]] | None:
    """The function from a kernel to the binary kernels that its quantized form is a sum of, or None if there is none.

    It returns `[(a_1, B_1), ..., (a_M, B_M)]` with `q(w) = a_1 B_1 + ... + a_M B_M`. The B are +1 and -1 in the shape
    of w, each a is a number or one per output channel, and a constant at inference.
    """
    return _find(quantizer, "bases")


def scales_channels(quantizer: Any) -> bool:
    """Whether a binary kernel has one scale for each output channel, with which it can be packed."""
    return _find(quantizer, "scales_channels") is not False


def coefficients_of(module: Any) -> Mapping[str, tf.Variable]:
    """The learned shifts and slopes of a layer or quantizer, by their kind, one of `COEFFICIENTS`.

    # Raises
        ValueError: If a quantizer has weights but does not say what they are, or a kind is not one of these.
    """
    if not isinstance(module, lq.quantizers.Quantizer):
        found = getattr(module, "coefficients", None)
        # Other modules may use this name for something else.
        found = found if isinstance(found, Mapping) else {}
    elif learned := [weight.name for weight in module.weights if weight.trainable]:
        remedy = '`coefficients = {}`, or a property `coefficients` that returns {"shift of the sign": weight}'
        found = _answer(module, "coefficients", f"which of its weights ({', '.join(learned)}) are shifts", remedy)
    else:
        found = {}
    if unknown := found.keys() - set(COEFFICIENTS):
        raise ValueError(
            f"{_called(module)} has coefficients of the kinds {sorted(unknown)}. Expected {', '.join(COEFFICIENTS)}."
        )
    return found


def schedule_of(quantizer: lq.quantizers.Quantizer) -> Callable[[], tf.keras.callbacks.Callback] | None:
    """The class of the callback that changes parameters of a quantizer during training, if there is one.

    # Raises
        ValueError: If a quantizer has variables that no gradient changes, but does not say what changes them.
    """
    if hasattr(quantizer, "schedule"):
        return quantizer.schedule
    numbers = [name for name, kept in vars(quantizer).items() if isinstance(kept, tf.Variable) and not kept.trainable]
    if numbers:
        raise ValueError(
            f"{_called(quantizer)} does not say what changes {', '.join(numbers)}, which no gradient does, during "
            "training. Give its class an attribute `schedule`: a class of callbacks, or None if nothing does."
        )
    return None


def _find(quantizer: Any, name: str) -> Any:
    """The answer of the class that has the quantizer's `call`, or of a class derived from it; None without one."""
    for cls in type(quantizer).__mro__:
        if name in vars(cls):
            return getattr(quantizer, name)
        if cls in _LARQ:
            answer = getattr(_LARQ[cls], name, None)
            return partial(answer, quantizer) if callable(answer) else answer
        if "call" in vars(cls) or "__call__" in vars(cls):
            break
    return None


def _answer(quantizer: Any, name: str, question: str, remedy: str) -> Any:
    if (answer := _find(quantizer, name)) is None:
        raise ValueError(
            f"{_called(quantizer)} does not say {question}. Give the class that has its `call` {remedy}; a function "
            "has to become a quantizer first, of a class derived from `lq.quantizers.Quantizer`."
        )
    return answer


def _called(quantizer: Any) -> str:
    name = getattr(quantizer, "name", None) or getattr(quantizer, "__name__", "")
    return f"'{name}' ({type(quantizer).__name__})"


class QuantizerWithVariables(BaseQuantizer):
    """Base class of quantizers with weights, or with a number that a schedule changes.

    That number is a variable, so compiled training steps see it change, but it is not a weight. Files hold only the
    weights: saving the number would make `.keras` files of models whose layers share one quantizer unreadable, because
    each layer restores its own quantizer there.
    """

    precision = 1

    def _add_scheduled(self, name: str, value: float) -> tf.Variable:
        return self.add_weight(name, shape=(), initializer=tf.keras.initializers.Constant(value), trainable=False)

    @property
    def _state(self) -> list[tf.Variable]:
        """The weights that no gradient changes."""
        return []

    @property
    def non_trainable_weights(self):
        return [*([] if self.trainable else self._trainable_weights), *self._state]

    def get_build_config(self):
        # The layer gives the shape of the kernel, and its config may make a wider one (`reptran`).
        return None

    def save_own_variables(self, store):
        for index, weight in enumerate(self.weights):
            store[str(index)] = weight.numpy()

    def load_own_variables(self, store):
        for index, weight in enumerate(self.weights):
            weight.assign(store[str(index)])


class MovingQuantizer(QuantizerWithVariables):
    """Base class of quantizers with a weight that follows the data in training, and is a constant at inference.

    As in batch normalisation, each replica of a strategy follows its own part of a batch, and files hold the mean. If
    the quantizer is frozen (`trainable=False`), the weight stays.
    """

    schedule = None
    _moving: tf.Variable | None = None

    def _add_moving(self, name: str, shape: tuple, initializer: Any) -> tf.Variable:
        self._moving = self.add_weight(
            name,
            shape=shape,
            initializer=initializer,
            trainable=False,
            experimental_autocast=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.MEAN,
        )
        return self._moving

    @property
    def _state(self):
        return [] if self._moving is None else [self._moving]

    def _follow(self, value: Callable[[], tf.Tensor], share: float, training: Any) -> None:
        """In training, moves the weight by a share of its distance to `value()`."""
        if not self.trainable or (not tf.is_tensor(training) and not training):
            return
        moving = self._moving
        assert moving is not None

        def update():
            step = share * tf.cast(training, moving.dtype)
            return moving.assign_sub(step * (moving - tf.cast(value(), moving.dtype)))

        self.add_update(update)


class SteepenedQuantizer(QuantizerWithVariables):
    """Base class of quantizers with `t`, the steepness of an estimator, which grows during training."""

    def __init__(self, t: float, **kwargs):
        super().__init__(**kwargs)
        if t <= 0:
            raise ValueError(f"{type(self).__name__} '{self.name}' needs t > 0, but got t={t}.")
        self.initial_t = t
        self.t = self._add_scheduled("t", t)

    def get_config(self):
        return {**super().get_config(), "t": self.initial_t}


def sample_moments(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns each sample of a batch minus its mean, and its (unbiased) variance."""
    axes = list(range(1, x.shape.rank))
    freedom = tf.cast(tf.reduce_prod(tf.shape(x)[1:]) - 1, x.dtype)
    centred = x - tf.reduce_mean(x, axes, keepdims=True)
    return centred, tf.reduce_sum(centred**2, axes, keepdims=True) / freedom


def decisive(kernel: tf.Tensor, training: Any) -> tf.Tensor:
    """The latent weights, for a quantizer that computes before it takes their signs: in float64 unless in training.

    In float32 the rounding of a weight next to the threshold depends on the order of additions, which differs between
    an eager call, a compiled one and a converter.

    # Arguments
        kernel: The latent weights.
        training: What Keras tells `call`. A tensor, which cannot be read here, counts as no.
    """
    return kernel if not tf.is_tensor(training) and training else tf.cast(kernel, tf.float64)


@tf.custom_gradient
def scale_forward_only(x: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """The product, with the gradient of `x` alone."""
    return scale * x, lambda dy: (dy, None)


def straight_through(x: tf.Tensor, quantize: Callable, passes: Callable) -> tf.Tensor:
    """Quantizes `x`, and lets gradients through where `passes(x)` is true."""

    @tf.custom_gradient
    def quantized(x):
        return quantize(x), lambda dy: tf.where(passes(x), dy, tf.zeros_like(dy))

    return quantized(x)


@tf.custom_gradient
def standardized(kernel: tf.Tensor) -> tf.Tensor:
    """Standardises weights: minus the mean, over the (unbiased) deviation, of their output channel (the last axis)."""
    axes = list(range(kernel.shape.rank - 1))
    centred = kernel - tf.reduce_mean(kernel, axis=axes)
    freedom = kernel.shape[:-1].num_elements() - 1
    deviation = tf.sqrt(tf.reduce_sum(centred**2, axis=axes) / freedom)
    z = centred / deviation

    # Takes fewer passes than the gradients of the operations above one after the other.
    def grad(dz):
        along = tf.reduce_sum(dz * z, axis=axes) / freedom
        return (dz - tf.reduce_mean(dz, axis=axes) - along * z) / deviation

    return z, grad
