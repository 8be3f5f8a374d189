"""Random binary networks, with constants of every shape that broadcasts.

Constants and the factors of batch normalisations have both signs, or are 0; activations stand inside of the layers
and between them. What is added lies off the sums of signs, so that rounding flips hardly any sign.
"""

import larq as lq
import numpy as np
import tensorflow as tf

layers = tf.keras.layers
ACTIVATIONS = {
    None: None,
    "relu": tf.nn.relu,
    "relu6": tf.nn.relu6,
    "hard_tanh": lq.activations.hard_tanh,
    "clip": lambda x: tf.minimum(tf.maximum(x, -1.0), 1.0),
}
ARITHMETIC = {
    "add": lambda x, c: x + c,
    "add left": lambda x, c: c + x,
    "subtract": lambda x, c: x - c,
    "subtract from": lambda x, c: c - x,
    "multiply": lambda x, c: x * c,
    "multiply left": lambda x, c: c * x,
    "divide": lambda x, c: x / c,
    "divide no nan": tf.math.divide_no_nan,
    "multiply no nan": tf.math.multiply_no_nan,
    "affine": lambda x, c: (x + c) * tf.sign(c),
    "normalise": lambda x, c: tf.nn.batch_normalization(x, c, tf.ones_like(c), 2 * c, -tf.sign(c), 0),
}
COMPARISONS = {
    ">=": lambda x, c: tf.where(x >= c, 1.0, -1.0),
    "<": lambda x, c: tf.where(x < c, -1.0, 1.0),
    "<= left": lambda x, c: tf.where(c <= x, 1.0, -1.0),
    ">": lambda x, c: tf.where(x > c, 1.0, -1.0),
}


class WithConstant(layers.Layer):
    """An operator on x and a constant, which is a variable, a number, computed, or made to fit x.

    # Arguments
        operator: A key of `ARITHMETIC` or `COMPARISONS`.
        value: The constant.
        source: `"variable"`, `"constant"`, `"computed"` or `"like"`.
    """

    def __init__(self, operator, value, source="variable", **kwargs):
        super().__init__(**kwargs)
        self.operator, self.value, self.source = operator, np.asarray(value, np.float32), source

    def build(self, _):
        if self.source in ("variable", "computed"):
            start = tf.keras.initializers.Constant(self.value)
            self.c = self.add_weight("c", shape=self.value.shape, initializer=start)

    def call(self, x):
        c = tf.constant(self.value) if self.source in ("constant", "like") else self.c
        if self.source == "computed":
            c = tf.tile(c[None], [tf.shape(x)[0], *[1] * len(c.shape)])[0] * 2 - c
        elif self.source == "like":
            c = tf.raw_ops.OnesLike(x=x) * c
        return {**ARITHMETIC, **COMPARISONS}[self.operator](x, c)


def shapes_that_broadcast(shape, rng):
    """A random shape that broadcasts with (1, height, width, channels), mostly to that."""
    full = [1, *shape[1:]]
    if rng.random() < 0.03:
        full[0] = 2
    if rng.random() < 0.1:
        full = [4 if n == 1 and i and rng.random() < 0.5 else n for i, n in enumerate(full)]
    result = [n if rng.random() < keep else 1 for n, keep in zip(full, (1, 0.4, 0.4, 0.7), strict=True)]
    leading = next((i for i, n in enumerate(result) if n != 1), len(result))
    return tuple(result[rng.integers(0, leading + 1) :])


class Network:
    """Layers in random order; `outputs` and `steps` say what came of it."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        size = self.rng.integers(1, 8, 2) if self.rng.random() < 0.3 else self.rng.integers(4, 8, 2)
        self.image = layers.Input((int(size[0]), int(size[1]), int(self.choice(1, 3, 31, 32, 33, 64))))
        self.outputs, self.steps, self.saved = [], [], []
        x = self.image
        for _ in range(self.choice(1, 2, 2, 3)):
            x = self.binary(x)
            for _ in range(self.choice(0, 1, 1, 2, 3)):
                x = self.step(x)
        self.outputs.append(self.binary(x) if self.rng.random() < 0.5 else x)
        self.model = tf.keras.Model(self.image, self.outputs, name=f"random_{seed}")

    def choice(self, *options):
        return options[self.rng.integers(len(options))]

    def apply(self, what, layer, x):
        y = layer(x)
        self.steps.append(f"{what} {tuple(y.shape[1:])}")
        return y

    def numbers(self, shape, factors=False):
        values = (
            self.rng.uniform(0.25, 2, shape)
            if factors
            else self.rng.integers(0, 5, shape) + self.rng.uniform(0.2, 0.8, shape)
        )
        sign = self.choice(1, -1, 0)  # 0: of both signs
        return values * (self.rng.choice([-1, 1], shape) if sign == 0 else sign)

    def constant(self, x, operators):
        operator = self.choice(*operators)
        data = tuple(n or 1 for n in x.shape)
        shape = shapes_that_broadcast(data, self.rng) if len(data) == 4 else self.choice((), data[-1:], (1, data[-1]))
        factors = operator.startswith(("mul", "div", "norm"))
        value = self.numbers(shape, factors)
        if operator.startswith("mul") and self.rng.random() < 0.3:
            value = value * self.rng.integers(0, 2, shape)
        if self.rng.random() < 0.25 and data == np.broadcast_shapes(data, shape):
            # One number a channel, at each position.
            value = np.broadcast_to(self.numbers(self.choice((), (1,), data[-1:]), factors), data[self.choice(0, 1) :])
        source = self.choice("variable", "variable", "constant", "computed", "like")
        return self.apply(f"{operator} {source} {np.shape(value)}", WithConstant(operator, value, source), x)

    def binary(self, x):
        if len(x.shape) != 4:
            x = self.apply("reshape", layers.Reshape((1, 1, int(np.prod(x.shape[1:])))), x)
        quantizer = "ste_sign"
        if self.rng.random() < 0.25:
            x, quantizer = self.constant(x, COMPARISONS), None
        _, height, width, channels = x.shape
        kernel = [int(self.rng.integers(1, 4)) for _ in range(2)]
        padding, pad_values = self.choice(("valid", 0), ("same", 1), ("same", 0))
        if padding == "valid" or pad_values == 0:  # LCE pads wrongly on smaller maps
            kernel = [min(k, n) for k, n in zip(kernel, (height, width), strict=True)]
        dilation = 2 if min(height, width) > 4 and self.rng.random() < 0.2 else 1
        activation = self.choice(None, None, *ACTIVATIONS)
        filters = self.choice(1, 2, 31, 32, 33, 64)
        layer = lq.layers.QuantConv2D(
            filters,
            kernel,
            strides=self.choice(1, 1, 2) if dilation == 1 else 1,
            dilation_rate=dilation,
            padding=padding,
            pad_values=pad_values,
            groups=2 if channels == 64 and filters % 2 == 0 and self.rng.random() < 0.5 else 1,
            input_quantizer=quantizer,
            kernel_quantizer="ste_sign",
            activation=ACTIVATIONS[activation],
            use_bias=self.rng.random() < 0.3,
        )
        y = self.apply(f"binary {kernel} {padding} {pad_values} {activation} {layer.groups} {dilation}", layer, x)
        kernel, *bias = layer.get_weights()
        layer.set_weights([self.rng.standard_normal(kernel.shape), *(self.numbers(b.shape) for b in bias)])
        return y

    def norm(self, x):
        norm = layers.BatchNormalization(axis=-1 if self.rng.random() < 0.7 else self.choice(1, [1, len(x.shape) - 1]))
        y = self.apply("norm", norm, x)
        shape = norm.gamma.shape
        gamma = self.numbers(shape, factors=True) * (self.rng.random(shape) < 0.9)
        norm.set_weights([gamma, self.numbers(shape), self.numbers(shape), self.rng.uniform(0.5, 2, shape)])
        return y

    def step(self, x):
        kind = self.choice(
            *["constant"] * 6, *["norm"] * 3, "activation", "activation", "pool", "shape", "save", "other"
        )
        if kind == "constant":
            # What LCE makes of the others hides the shape from what follows.
            return self.constant(x, [name for name in ARITHMETIC if not name.endswith("nan")])
        if kind == "norm":
            return self.norm(x)
        if kind == "activation":
            name = self.choice("relu", "relu6", "hard_tanh", "clip", "prelu")
            if name == "prelu":
                layer = layers.PReLU(shared_axes=list(range(1, len(x.shape) - 1)) if self.rng.random() < 0.7 else None)
                y = self.apply(name, layer, x)
                layer.set_weights([self.numbers(w.shape, factors=True) for w in layer.get_weights()])
                return y
            return self.apply(name, layers.Lambda(ACTIVATIONS[name]), x)
        if kind == "save":
            self.saved.append(x)
            if self.rng.random() < 0.3:
                self.outputs.append(x)
            return x
        if kind == "pool" and len(x.shape) == 4 and min(x.shape[1:3]) > 1:
            return self.apply(kind, self.choice(layers.MaxPool2D, layers.AveragePooling2D)(2, self.choice(1, 2)), x)
        if kind == "shape" and len(x.shape) == 4:
            _, height, width, channels = x.shape
            return self.choice(
                lambda: self.apply("swap", layers.Reshape((width, height, channels)), x),
                lambda: self.apply("transpose", layers.Permute((2, 1, 3)), x),
                lambda: self.apply("rows", layers.Reshape((height * width, channels)), x),
                lambda: self.apply("flatten", layers.Flatten(), x),
                lambda: self.apply("keep", layers.Reshape((height, width, channels)), x),
                lambda: (
                    self.apply("lone", layers.Lambda(lambda x: tf.reshape(x, x.shape[1:])[None]), x)
                    if x.shape[0] == 1
                    else x
                ),
                lambda: (
                    self.apply("depth to space", layers.Lambda(lambda x: tf.nn.depth_to_space(x, 2)), x)
                    if channels % 4 == 0
                    else x
                ),
            )()
        if kind == "other":
            alike = [y for y in self.saved if y.shape[1:] == x.shape[1:]]
            if alike:
                y = self.choice(*alike)
                return self.apply("shortcut", layers.Add(), [x, self.constant(y, ("add", "multiply", "subtract from"))])
            function = self.choice(tf.stop_gradient, tf.identity, tf.negative, lambda x: x + x)
            return self.apply("function", layers.Lambda(function), x)
        return x
