"""Small networks with the quantized activations of TBN, HWGQ, LQ-Nets, DoReFa-Net and SiBNN learn digits."""

import larq as lq
import pytest
import tensorflow as tf

from larq_rep.layers import BatchNormalization
from larq_rep.quantizers import LearnedLevels, ScaledBinary, TernaryInput, Thermometer, Uniform, ZeroOneSign
from larq_rep.training.datasets import load

keras = tf.keras.layers

QUANTIZERS = {
    "dorefa": (lambda: Uniform(4), lambda: ScaledBinary(per="layer")),
    "hwgq": (Thermometer, ScaledBinary),
    "lq_net": (LearnedLevels, lambda: ScaledBinary(scale="ema")),
    "sibnn": (ZeroOneSign, lambda: ScaledBinary(gradient="sibnn")),
    "tbn": (TernaryInput, ScaledBinary),
}


def network(input_quantizer, kernel_quantizer):
    def norm(x):
        return BatchNormalization(momentum=0.9, epsilon=1e-5)(x)

    image = tf.keras.Input((8, 8, 1))
    x = norm(keras.Conv2D(32, 3, padding="same", use_bias=False)(image))
    for filters, strides in ((32, 1), (64, 2), (64, 1)):
        if input_quantizer is LearnedLevels:
            # Its levels are those of a map without negative values, as in LQ-Nets.
            x = keras.ReLU()(x)
        conv = lq.layers.QuantConv2D(
            filters,
            3,
            strides=strides,
            padding="same",
            use_bias=False,
            input_quantizer=input_quantizer(),
            kernel_quantizer=kernel_quantizer(),
        )
        x = norm(conv(x))
    return tf.keras.Model(image, keras.Dense(10)(keras.GlobalAveragePooling2D()(x)))


@pytest.mark.slow
@pytest.mark.parametrize("name", QUANTIZERS)
def test_digits(name):
    tf.keras.utils.set_random_seed(0)
    digits = load("digits")
    train, test = (split.map(lambda x, y: (tf.cast(x, tf.float32) / 255, y)) for split in (digits.train, digits.test))
    model = network(*QUANTIZERS[name])
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf.keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    model.fit(train.cache().shuffle(1437, seed=0).batch(64), epochs=20, verbose=0)
    _, accuracy = model.evaluate(test.batch(360), verbose=0)
    assert accuracy > 0.9
