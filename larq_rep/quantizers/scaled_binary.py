"""The sign of weights times a scale, in the forms of many networks."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import larq as lq
import tensorflow as tf

from larq_rep._keras import BaseQuantizer
from larq_rep.quantizers.base import MovingQuantizer, decisive, scale_forward_only

_SCALES = ("mean", "one", "ema", "trained")


def _count(w, axes):
    """How many weights share a scale."""
    return (w.shape if axes is None else w.shape[:-1]).num_elements()


def _clipped(dy, w, scale, axes):
    return tf.where(tf.abs(w) <= 1, dy, tf.zeros_like(dy))


def _polynomial(dy, w, scale, axes):
    return dy * tf.maximum(2 - 2 * tf.abs(w), 0)


def _xnor(dy, w, scale, axes):
    slope = tf.where(tf.abs(w) < 1, 1 + _count(w, axes) * scale, tf.ones_like(w))
    return dy * slope * (1 - 1 / w.shape[-2])


def _through_scale(dy, w, axes):
    sign = lq.math.sign(w)
    return sign * tf.reduce_mean(sign * dy, axis=axes)


def _exact(dy, w, scale, axes):
    return tf.where(tf.abs(w) < 1, scale * dy, tf.zeros_like(dy)) + _through_scale(dy, w, axes)


def _sibnn(dy, w, scale, axes):
    return _clipped(dy, w, scale, axes) * (1 - 1 / _count(w, axes)) + _through_scale(dy, w, axes)


# The gradient with respect to w, from that with respect to the result. "mean" is the scale that the last three need.
_GRADIENTS: dict[str, Callable] = {
    "identity": lambda dy, w, scale, axes: dy,
    "clipped": _clipped,
    "polynomial": _polynomial,
    "xnor": _xnor,
    "exact": _exact,
    "sibnn": _sibnn,
}
_OF_MEAN = ("xnor", "exact", "sibnn")


@lq.utils.register_alias("scaled_binary")
@lq.utils.register_keras_custom_object
class ScaledBinary(MovingQuantizer):
    r"""Kernel quantizer: sign times a scale, one per output channel or one for the whole kernel.

    \\[ q(w) = s \operatorname{sign}(w) \\]

    `scale` says what \\(s\\) is:

    - `"mean"`: \\(\operatorname{mean}\left|w\right|\\), as in BWN, XNOR-Net, DoReFa-Net, HWGQ, TBN, BENN and SiBNN;
    - `"one"`: 1, as in BinaryConnect;
    - `"ema"`: a moving mean of \\(\operatorname{mean}\left|w\right|\\), the weight `alpha`, as in LQ-Nets;
    - `"trained"`: the trained weight `alpha`, as in XNOR-Net++.

    With \\(g\\) the gradient of the loss with respect to \\(q(w)\\), \\(I\\) input channels, and \\(n\\) weights that
    share a scale and over which the means are, the gradient with respect to \\(w\\) is

    - `"identity"`: \\(g\\), as in DoReFa-Net, HWGQ, LQ-Nets and TBN;
    - `"clipped"`: \\(g\, 1_{\left|w\right| \leq 1}\\);
    - `"polynomial"`: \\(g \max\left(0, 2 - 2 \left|w\right|\right)\\), as for the activations of Bi-Real-Net;
    - `"xnor"`: \\(g \left(1 - 1/I\right) \left(1 + n s\, 1_{\left|w\right| < 1}\right)\\), as in BWN and XNOR-Net;
    - `"exact"`: \\(g\, s\, 1_{\left|w\right| < 1} + \operatorname{sign}(w) \operatorname{mean}(g
      \operatorname{sign}(w))\\), as in BENN;
    - `"sibnn"`: \\(g\, (1 - 1/n)\, 1_{\left|w\right| \leq 1} + \operatorname{sign}(w) \operatorname{mean}(g
      \operatorname{sign}(w))\\), as in SiBNN.

    Only the last two have the path through \\(s\\). With a trained scale, \\(s g\\) takes the place of \\(g\\), and the
    gradient of `alpha` is the sum of \\(g \operatorname{sign}(w)\\).

    `"ema"` moves a tenth of the way in each training step, after it has used the number of before. Larq Compute Engine
    evaluates all of this at conversion: a binary kernel and the scales remain.

    # Arguments
        scale: `"mean"`, `"one"`, `"ema"` or `"trained"`.
        per: `"filter"` for one scale per output channel, `"layer"` for one in all.
        gradient: One of this list. The last three need `scale="mean"`.
        centre: Whether the mean of the weights that share a scale is subtracted from them first. Signs are then decided
            in float64, except in training: see `larq_rep.quantizers`.
        alpha_initializer: Initializer of `alpha`. By default a trained scale starts at 1, as XNOR-Net++ does, a moving
            one at \\(0.6745 \sqrt{2 / m}\\), where \\(m\\) is the number of weights of an input channel: the median
            magnitude of weights with He's initial values for fan-out, as in the code of LQ-Nets.
        metrics: An array of metrics to add to the layer. If `None` the metrics set in
            `larq.context.metrics_scope` are used. `flip_ratio` counts flipped signs.

    # Input shape
        A kernel whose last two axes are the input and the output channels, usually HWIO.

    # Output shape
        Same as the input.

    # Raises
        ValueError: if an argument is none of these, or the gradient needs another scale.

    # References
        - [BinaryConnect: Training Deep Neural Networks with binary weights during
            propagations](https://arxiv.org/abs/1511.00363)
        - [XNOR-Net: ImageNet Classification Using Binary Convolutional Neural
            Networks](https://arxiv.org/abs/1603.05279), and its code
        - [LQ-Nets: Learned Quantization for Highly Accurate and Compact Deep Neural
            Networks](https://arxiv.org/abs/1807.10029), its code
        - [XNOR-Net++: Improved Binary Neural Networks](https://arxiv.org/abs/1909.13863), case 1
        - [Binary Ensemble Neural Network: More Bits per Network or More Networks per
            Bit?](https://arxiv.org/abs/1806.07550), its code
        - SiBNN's code, https://github.com/peiswang/SiBNN
    """

    # `alpha` scales.
    coefficients: ClassVar[dict] = {}

    def __init__(
        self,
        scale: str = "mean",
        per: str = "filter",
        gradient: str = "identity",
        centre: bool = False,
        alpha_initializer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        called = f"{type(self).__name__} '{self.name}'"
        for name, given, known in (
            ("scale", scale, _SCALES),
            ("per", per, ("filter", "layer")),
            ("gradient", gradient, (*_GRADIENTS,)),
        ):
            if given not in known:
                raise ValueError(f"{called} needs {name} to be one of {', '.join(known)}, but got {given!r}.")
        if gradient in _OF_MEAN and scale != "mean":
            raise ValueError(f'{called} has gradient="{gradient}", which needs scale="mean", not "{scale}".')
        self.scale, self.per, self.gradient, self.centre = scale, per, gradient, centre
        self.alpha_initializer = tf.keras.initializers.get(alpha_initializer)

    def build(self, input_shape):
        shape = tuple(input_shape[-1:]) if self.per == "filter" else ()
        if self.scale == "trained":
            self.alpha = self.add_weight("alpha", shape, initializer=self.alpha_initializer or "ones")
        elif self.scale == "ema":
            median = 0.6745 * math.sqrt(2 / math.prod([*input_shape[:-2], input_shape[-1]]))
            self.alpha = self._add_moving(
                "alpha", shape, self.alpha_initializer or tf.keras.initializers.Constant(median)
            )
        super().build(input_shape)

    def _centred(self, w):
        return w - tf.reduce_mean(w, axis=self._axes(w))

    def _axes(self, w):
        """The axes of weights that share a scale."""
        return None if self.per == "layer" else list(range(w.shape.rank - 1))

    def call(self, inputs, training=None):
        w = self._centred(decisive(inputs, training)) if self.centre else inputs
        axes = self._axes(w)
        scale = tf.reduce_mean(tf.abs(w), axis=axes) if self.scale == "mean" else None

        @tf.custom_gradient
        def signs(w):
            return lq.math.sign(w), lambda dy: _GRADIENTS[self.gradient](dy, w, scale, axes)

        binary = super().call(tf.cast(signs(w), inputs.dtype))
        if self.scale == "one":
            return binary
        if self.scale == "trained":
            return tf.cast(self.alpha, inputs.dtype) * binary
        outputs = scale_forward_only(binary, tf.cast(self.alpha if scale is None else scale, inputs.dtype))
        if self.scale == "ema":
            self._follow(lambda: tf.reduce_mean(tf.abs(tf.cast(w, self.alpha.dtype)), axis=axes), 0.1, training)
        return outputs

    def value(self, x):
        return self._centred(x) if self.centre else x

    def window(self, x):
        return 1.0 if self.gradient in ("clipped", "polynomial") else None

    def get_config(self):
        return {
            **super().get_config(),
            "scale": self.scale,
            "per": self.per,
            "gradient": self.gradient,
            "centre": self.centre,
            "alpha_initializer": tf.keras.initializers.serialize(self.alpha_initializer),
        }


class ScaledBinaryForm(ScaledBinary):
    """Base class of quantizers that are one form of `ScaledBinary` and have no arguments of their own."""

    form: ClassVar[dict[str, Any]]

    def __init__(self, **kwargs):
        # Its config would not keep them.
        if taken := kwargs.keys() & {"scale", "per", "gradient", "centre", "alpha_initializer"}:
            raise TypeError(f"{type(self).__name__} takes no {', '.join(sorted(taken))}: ScaledBinary does.")
        super().__init__(**self.form, **kwargs)

    def get_config(self):
        return BaseQuantizer.get_config(self)
