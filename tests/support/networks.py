"""Small random networks that draw what a user can choose: shapes, paddings, activations, signs of factors, outputs."""

import larq as lq
import numpy as np
import tensorflow as tf

keras = tf.keras.layers

ACTIVATIONS = [None, "relu", "relu6", "hard_tanh", "tanh", "sigmoid", "elu", "softplus"]
KERNELS = ["ste_sign", "magnitude_aware_sign"]


def at_least_0(x):
    return tf.where(x >= 0, 1.0, -1.0)


def above_a_quarter(x):
    return tf.where(x > 0.25, 1.0, -1.0)


SIGNS = ["ste_sign", "approx_sign", at_least_0, above_a_quarter]
PADDINGS = [("valid", 0.0), ("same", 1.0), ("same", 0.0)]


def random_network(seed: int) -> tf.keras.Model:
    """Two or three binary convolutions in a row, of random form, with statistics as after training."""
    rng = np.random.default_rng(seed)

    def choose(options):
        return options[rng.integers(len(options))]

    one = rng.random() < 0.2  # a dense layer in LCE's form: 1x1 on a 1x1 map
    size = 1 if one else int(rng.integers(7, 12))
    x = image = tf.keras.Input((size, size, choose([1, 3, 32, 40, 64])))
    outputs = []
    for _ in range(rng.integers(2, 4)):
        padding, pad_values = ("valid", 0.0) if one else choose(PADDINGS)
        kernel = 1 if one else choose([1, 2, 3])
        wide = min(x.shape[1:3]) > 5
        y = lq.layers.QuantConv2D(
            choose([8, 32, 33]),
            kernel,
            strides=choose([1, 1, 2]) if wide else 1,
            dilation_rate=1,
            padding=padding,
            pad_values=pad_values,
            activation=choose(ACTIVATIONS),
            input_quantizer=choose(SIGNS),
            kernel_quantizer=choose(KERNELS),
            use_bias=bool(rng.random() < 0.3),
        )(x)
        pools = rng.random() < 0.25 and y.shape[1] > 5
        before = rng.random() < 0.5
        if pools and before:
            y = keras.MaxPool2D()(y)
        y = keras.BatchNormalization(scale=bool(rng.random() < 0.9), center=bool(rng.random() < 0.9))(y)
        if pools and not before:
            y = keras.MaxPool2D()(y)
        if y.shape == x.shape and rng.random() < 0.5:
            y = keras.Add()([x, y])
        if rng.random() < 0.3:
            outputs.append(keras.GlobalAveragePooling2D()(y))
        x = y
    outputs.append(keras.Dense(4)(keras.Flatten()(x)))
    model = tf.keras.Model(image, outputs if len(outputs) > 1 else outputs[0], name=f"random{seed}")
    for layer in model.layers:
        if isinstance(layer, keras.BatchNormalization):
            n = layer.moving_mean.shape[0]
            gamma = rng.normal(0, 1, n) * (rng.random(n) > 0.1)  # of both signs, some 0
            beta = rng.normal(0, 0.5, n) * (rng.random(n) > 0.1)
            factors = [gamma] * layer.scale + [beta] * layer.center
            mean = rng.normal(0, choose([0.1, 2, 40]), n) * (rng.random(n) > 0.1)
            layer.set_weights([*factors, mean, rng.uniform(0.5, 20, n)])
        elif layer.weights:
            layer.set_weights([rng.normal(0, 0.3, w.shape) for w in layer.weights])
    return model
