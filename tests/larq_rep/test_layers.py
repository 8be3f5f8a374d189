import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from larq_compute_engine import convert_keras_model
from larq_compute_engine.mlir.python import tflite_schema
from larq_compute_engine.tflite.python.interpreter import Interpreter

from larq_rep.layers import RepConv2D, Repeat, RepQuantConv2D, RPReLU
from larq_rep.quantizers import RSign, ScaledSign


def test_rprelu_matches_formula():
    rng = np.random.default_rng(3)
    x, dy = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(2, 3, 4, 5))
    b1, a, b2 = rng.normal(size=(3, 5))
    b1[0] = x[..., 0] = 0.0  # the corner, where PyTorch takes the lower branch
    layer = RPReLU(dtype="float64")
    layer.build(x.shape)
    layer.set_weights([b1, a.reshape(1, 1, 5), b2])

    x = tf.constant(x)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y = layer(x)
        loss = tf.reduce_sum(y * dy)
    u = x.numpy() + b1
    dx = np.where(u > 0, dy, a * dy)
    np.testing.assert_allclose(y, np.where(u > 0, u, a * u) + b2, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(tape.gradient(loss, x), dx, rtol=1e-12)
    d_b1, d_a, d_b2 = tape.gradient(loss, [layer.shift_in, layer.alpha, layer.shift_out])
    np.testing.assert_allclose(d_b1, dx.sum((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(tf.squeeze(d_a), np.where(u > 0, 0, dy * u).sum((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(d_b2, dy.sum((0, 1, 2)), rtol=1e-12)


def test_rprelu_starts_as_prelu_with_slope_a_quarter():
    layer = RPReLU()
    y = layer(tf.reshape([-4.0, 0.0, 2.0, -1.0], (1, 1, 2, 2)))
    np.testing.assert_array_equal(tf.reshape(y, -1), [-1.0, 0.0, 2.0, -0.25])
    assert [w.shape for w in layer.get_weights()] == [(2,), (1, 1, 2), (2,)]


def test_rprelu_refuses_unknown_channels():
    with pytest.raises(ValueError, match=r"RPReLU 'act' has weights per channel.*is unknown"):
        RPReLU(name="act")(tf.keras.Input((4, 4, None)))


def test_repeat_is_tile_and_not_interleaved():
    np.testing.assert_array_equal(Repeat(3)(np.array([[[[1.0, 2.0]]]])), [[[[1, 2, 1, 2, 1, 2]]]])


@pytest.mark.parametrize("beta", [1, 2, 4])
def test_rep_conv_matches_matrix_product(beta):
    rng = np.random.default_rng(4)
    x, kernel, bias = (
        rng.normal(size=(2, 4, 4, 6)),
        rng.normal(size=(6, 8 // beta)),
        rng.normal(size=8 // beta),
    )
    layer = RepConv2D(8, 1, strides=2, beta=beta, activation="relu", dtype="float64")
    layer.build(x.shape)
    layer.set_weights([kernel.reshape(1, 1, 6, 8 // beta), bias])
    y = np.maximum(x[:, ::2, ::2] @ kernel + bias, 0)
    np.testing.assert_allclose(layer(x), np.concatenate([y] * beta**2, axis=-1), rtol=1e-12)


@pytest.mark.parametrize("beta", [1, 2])
def test_rep_quant_conv_is_zero_padded_convolution_of_signs(beta):
    rng = np.random.default_rng(5)
    x, kernel = rng.normal(size=(2, 5, 5, 6)), rng.normal(size=(3, 3, 6, 4 // beta))
    layer = RepQuantConv2D(
        4,
        3,
        padding="same",
        use_bias=False,
        input_quantizer=RSign(dtype="float64"),
        kernel_quantizer=ScaledSign(dtype="float64"),
        beta=beta,
        dtype="float64",
    )
    layer(x)
    shift = rng.normal(size=6)
    layer.set_weights([kernel, shift])

    padded = np.pad(np.sign(x + shift), [(0, 0), (1, 1), (1, 1), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    binary = np.sign(kernel) * np.abs(kernel).mean((0, 1, 2))
    expected = np.einsum("nhwcij,ijco->nhwo", windows, binary)
    np.testing.assert_allclose(layer(x), np.concatenate([expected] * beta**2, axis=-1), atol=1e-12)


@pytest.mark.parametrize("beta", [1, 2, 4])
def test_summary_counts_the_small_kernel_and_operations_do_not_depend_on_beta(beta):
    """A 3x3 convolution from 16 to 32 channels on 10x10 pixels, with beta times the input channels."""
    inputs = tf.keras.Input((10, 10, 16 * beta))
    layer = RepQuantConv2D(32, 3, padding="same", input_quantizer=RSign(), kernel_quantizer=ScaledSign(), beta=beta)
    model = tf.keras.Model(inputs, layer(inputs))
    profile = lq.models.ModelProfile(model)
    assert profile.weight_count(1) == 3 * 3 * 16 * 32
    assert profile.weight_count(32) == 32 // beta + 16 * beta  # bias and shift
    assert profile.op_count("mac", 1) == profile.op_count("mac") == 10 * 10 * 3 * 3 * 16 * 32
    assert model.output_shape == (None, 10, 10, 32 * beta)


def test_rep_conv_config_has_the_original_filters():
    config = RepQuantConv2D(32, 3, beta=4).get_config()
    assert (config["filters"], config["beta"]) == (32, 4)


def test_grouped_rep_conv_convolves_each_group():
    rng = np.random.default_rng(6)
    x, kernel = rng.normal(size=(1, 2, 2, 6)), rng.normal(size=(1, 1, 3, 4))
    layer = RepConv2D(8, 1, groups=2, use_bias=False, dtype="float64")
    layer.build(x.shape)
    layer.set_weights([kernel])
    y = np.concatenate([x[..., :3] @ kernel[0, 0, :, :2], x[..., 3:] @ kernel[0, 0, :, 2:]], axis=-1)
    np.testing.assert_allclose(layer(x), np.concatenate([y] * 4, axis=-1), rtol=1e-12)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda **kw: RepQuantConv2D(9, 3, **kw), "filters=9, beta=2, groups=1"),
        (lambda **kw: RepConv2D(8, 3, beta=16, **kw), "filters=8, beta=16, groups=1"),
        (lambda **kw: RepConv2D(6, 3, groups=2, **kw), "filters=6, beta=2, groups=2"),
        (lambda **kw: RepConv2D(8, 3, beta=0, **kw), "beta >= 1, but got beta=0"),
        (lambda **kw: RepConv2D(8, 3, beta=2.0, **kw), "beta >= 1, but got beta=2.0"),
        (lambda **kw: Repeat(0, **kw), "times >= 1, but got times=0"),
        (lambda **kw: RepQuantConv2D(8, 3, data_format="channels_first", **kw), "channels_last"),
    ],
)
def test_wrong_arguments_name_the_layer(make, message):
    with pytest.raises(ValueError, match=f"'culprit' .*{message}"):
        make(name="culprit")


def operators(flatbuffer: bytes) -> list[str]:
    model = tflite_schema.ModelT.InitFromObj(tflite_schema.Model.GetRootAsModel(flatbuffer, 0))
    names = {value: name for name, value in vars(tflite_schema.BuiltinOperator).items()}
    codes = [
        code.customCode.decode() if code.customCode else names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        for code in model.operatorCodes
    ]
    return [codes[operator.opcodeIndex] for operator in model.subgraphs[0].operators]


def converted(model):
    """The operators of the flatbuffer, and its largest difference from Keras over the largest output."""
    flatbuffer = convert_keras_model(model)
    x = np.random.default_rng(7).normal(size=(1, *model.input_shape[1:])).astype("float32")
    expected = model(x).numpy()
    found = Interpreter(flatbuffer, use_indirect_bgemm=True).predict(x)
    return operators(flatbuffer), np.abs(found - expected).max() / np.abs(expected).max()


def randomised(model):
    # Untouched batch norms and shifts would let the converter drop their operators.
    rng = np.random.default_rng(8)
    model.set_weights([rng.uniform(0.1, 1.0, w.shape) * np.sign(w - 1e-3 * (w == 0)) for w in model.get_weights()])
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.moving_variance.assign(rng.uniform(0.5, 2.0, layer.moving_variance.shape))
    return model


@pytest.mark.parametrize(
    "input_quantizer, kernel_quantizer, quantize",
    [("r_sign", "scaled_sign", ["ADD", "LceQuantize"]), ("ede_sign", "libra_sign", ["LceQuantize"])],
)
def test_rep_block_converts_to_binary_convolution(input_quantizer, kernel_quantizer, quantize):
    x = tf.keras.Input((6, 6, 32))
    y = RepQuantConv2D(
        16,
        3,
        padding="same",
        use_bias=False,
        input_quantizer=input_quantizer,
        kernel_quantizer=kernel_quantizer,
    )(x)
    y = tf.keras.layers.BatchNormalization()(y)
    y = RPReLU()(tf.keras.layers.add([x, y]))
    found, difference = converted(randomised(tf.keras.Model(x, y)))
    # RPReLU's first shift merges with the batch norm's offset or stays an ADD of its own.
    rest = [op for op in found if op != "ADD"]
    assert rest == [*[op for op in quantize if op != "ADD"], "LceBconv2d", "TILE", "MUL", "PRELU"]
    assert ("ADD" in found[: found.index("LceQuantize")]) == ("ADD" in quantize)
    assert difference < 1e-5


def test_shared_rsign_layer_converts_to_binary_convolutions():
    x = tf.keras.Input((6, 6, 32))
    binary = RSign()(x)
    y = [
        lq.layers.QuantConv2D(
            32,
            1,
            use_bias=False,
            input_quantizer=lq.quantizers.NoOp(precision=1),
            kernel_quantizer="scaled_sign",
        )(binary)
        for _ in range(2)
    ]
    model = randomised(tf.keras.Model(x, tf.keras.layers.concatenate(y)))
    found, difference = converted(model)
    assert found == ["ADD", "LceQuantize", "LceBconv2d", "LceBconv2d", "CONCATENATION"]
    assert difference < 1e-5
