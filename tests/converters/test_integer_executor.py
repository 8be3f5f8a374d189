"""The numpy operators of 8 bits against the kernels of LCE's interpreter and TFLite's reference kernels."""

import numpy as np
import pytest
import tensorflow as tf

from larq_rep.converters import integer_executor, lce
from larq_rep.converters.flatbuffer import Flatbuffer

keras = tf.keras.layers


def of(function):
    return keras.Lambda(tf.autograph.experimental.do_not_convert(lambda x: function(x)))


def hard_swish(x):
    return x * tf.nn.relu6(x + 3) / 6


NETWORKS = {
    "convolution": [
        keras.Conv2D(8, 3, padding="same", activation="relu"),
        keras.Conv2D(4, 3, strides=2, activation=tf.nn.relu6),
        keras.Conv2D(5, 1, use_bias=False),
    ],
    "dilation and groups": [
        keras.Conv2D(8, 3, padding="same", dilation_rate=2),
        keras.Conv2D(4, (3, 2), groups=2, padding="same", strides=(2, 1)),
    ],
    "depthwise": [
        keras.DepthwiseConv2D(3, padding="same", activation="relu"),
        keras.DepthwiseConv2D((3, 2), strides=2, depth_multiplier=2),
        keras.DepthwiseConv2D(2, dilation_rate=2, padding="same"),
    ],
    "dense": [keras.Flatten(), keras.Dense(20, activation="relu"), keras.Dense(7), keras.Softmax()],
    "transposed": [
        keras.Conv2DTranspose(8, 3, strides=2, padding="same"),
        keras.Conv2DTranspose(4, (3, 2), strides=(1, 2), padding="valid"),
        keras.Conv2DTranspose(4, 2, strides=3, padding="valid"),
    ],
    "pools": [
        keras.MaxPool2D(3, 2, "same"),
        keras.AvgPool2D(3, 1, "same"),
        of(lambda x: tf.concat([x, 0.1 + 0.5 * x], -1)),
        keras.AvgPool2D(2, 2),
        keras.GlobalAveragePooling2D(),
    ],
    "activations": [
        keras.LeakyReLU(0.2),
        keras.Conv2D(8, 1),
        keras.PReLU(shared_axes=[1, 2]),
        of(lambda x: hard_swish(2 * x - 1)),
        keras.Conv2D(8, 1),
        of(tf.sigmoid),
        keras.Conv2D(8, 1),
        of(tf.tanh),
    ],
    "clipped": [
        of(lambda x: tf.nn.relu(x + 0.3)),
        of(lambda x: tf.nn.relu6(9 * x - 1)),
        of(lambda x: tf.clip_by_value(x - 0.9, -1, 1)),
    ],
    "clipped alone": [
        of(lambda x: tf.transpose(9 * x)),
        of(lambda x: tf.concat([tf.nn.relu(x), tf.nn.relu6(x), tf.clip_by_value(x, -1, 1)], 0)),
    ],
    "binary operators": [
        of(lambda x: tf.concat([x * x[:, :1, :1], x + x[:, :1] - 0.3, x - x[..., :1]], -1)),
        of(lambda x: tf.pad(x, [[0, 0], [1, 2], [0, 1], [0, 0]])),
        of(lambda x: tf.pad(x, [[0, 0], [1, 1], [0, 0], [0, 0]], constant_values=0.5)),
        of(lambda x: tf.transpose(x, [0, 2, 3, 1])),
        of(lambda x: tf.reduce_mean(x, [1], keepdims=True)),
    ],
    "rearranged": [
        of(lambda x: tf.concat([x[:, 1::2, :6:2], x[:, ::-2, -3:]], -1)),
        of(lambda x: tf.nn.depth_to_space(x, 2)),
        of(lambda x: tf.nn.space_to_depth(x, 2)),
        of(lambda x: x[:, 0]),
    ],
}


def quantized(layers, rng) -> bytes:
    """A file of 8 bits by TensorFlow's own converter."""
    x = image = tf.keras.Input((8, 8, 6), batch_size=1)
    for layer in layers:
        x = layer(x)
    model = tf.keras.Model(image, x)
    for weight in model.weights:
        weight.assign(rng.normal(0.1, 0.5, weight.shape))
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([images(rng)] for _ in range(8))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return converter.convert()


def images(rng, largest=1.0):
    return rng.uniform(-largest, 0.8 * largest, (1, 8, 8, 6)).astype(np.float32)


def by_reference(content, x):
    kernels = tf.lite.experimental.OpResolverType.BUILTIN_REF
    interpreter = tf.lite.Interpreter(model_content=content, experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return [interpreter.get_tensor(output["index"]) for output in interpreter.get_output_details()]


def by_lce(content, x):
    return lce.interpreter(content).interpreter.predict([x])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layers", NETWORKS.values(), ids=NETWORKS)
def test_kernels_compute_what_is_defined(layers):
    rng = np.random.default_rng(3)
    flatbuffer = Flatbuffer(quantized(layers, rng))
    tensors = sorted(flatbuffer.producers)
    content, x = flatbuffer.with_outputs(tensors), images(rng, 1.2)  # some values are clipped
    engines = [by_lce, by_reference]
    if any(op.name == "DEPTH_TO_SPACE" for op in flatbuffer.operators):
        engines.pop()  # which lack it
    for engine in engines:
        values = dict(zip(tensors, engine(content, x), strict=True)) | {flatbuffer.inputs[0]: x}
        for op in flatbuffer.operators:
            assert integer_executor.is_integer(flatbuffer, op)
            definition = integer_executor.defined(flatbuffer, op, values)
            assert definition is not None, op.name
            found = values[op.outputs[0]]
            assert found.shape == definition.values.shape and len(np.unique(found)) > 3
            errors = np.abs(found.astype(np.float64) - definition.values)
            assert np.all(errors <= definition.bound), (engine, op.name, errors.max(), definition.bound)
            assert np.max(definition.bound) <= 1.0001, op.name
