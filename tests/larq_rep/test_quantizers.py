import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from support import with_gradients

from larq_rep.quantizers import EDESign, LibraSign, RotatedSign, RSign, ScaledSign, StandardizedSign


def sign(x):
    return np.where(x >= 0, 1.0, -1.0)


def test_rsign_matches_formula():
    rng = np.random.default_rng(0)
    x, dy = rng.uniform(-2, 2, (2, 3, 5, 4)), rng.normal(size=(2, 3, 5, 4))
    x[0, 0, :, 0] = 0.0, -0.0, 1.0, -1.0, 0.25  # the corners; channel 0 is not shifted
    quantizer = RSign(dtype="float64")
    quantizer.build(x.shape)
    shift = np.array([0.0, 0.5, -0.3, 1.1])
    quantizer.bias.assign(shift)

    y, dx, (dshift,) = with_gradients(quantizer, x, dy)

    u = x + shift
    expected = dy * np.where(np.abs(u) < 1, 2 - 2 * np.abs(u), 0)
    np.testing.assert_array_equal(y, sign(u))
    np.testing.assert_allclose(dx, expected, rtol=1e-12)
    np.testing.assert_allclose(dshift, expected.sum((0, 1, 2)), rtol=1e-12)


def test_rsign_starts_unshifted_and_regularizes_shift():
    quantizer = RSign(shift_regularizer=tf.keras.regularizers.L2(0.5))
    quantizer.build((None, 4, 4, 3))
    np.testing.assert_array_equal(quantizer.bias, np.zeros(3))
    quantizer.bias.assign([1.0, 2.0, 3.0])
    assert float(quantizer.losses[0]) == 7.0


def test_rsign_shared_by_two_convolutions_is_one_shift():
    quantizer = RSign()
    inputs = tf.keras.Input((4, 4, 8))
    convs = [lq.layers.QuantConv2D(2, 1, input_quantizer=quantizer, use_bias=False) for _ in range(2)]
    model = tf.keras.Model(inputs, [conv(inputs) for conv in convs])
    assert len(model.trainable_weights) == 3
    with pytest.raises(ValueError, match=rf"'{quantizer.name}' has shifts for 8 channels.*one of its own"):
        lq.layers.QuantConv2D(2, 1, input_quantizer=quantizer)(tf.keras.Input((4, 4, 16)))


def test_rsign_refuses_unknown_channels():
    with pytest.raises(ValueError, match=r"RSign 'shift' has one shift per channel.*is unknown"):
        RSign(name="shift")(tf.keras.Input((4, 4, None)))


def test_rsign_layer_before_marked_convolutions_counts_as_binary():
    inputs = tf.keras.Input((4, 4, 8))
    binary = RSign()(inputs)
    convs = [
        lq.layers.QuantConv2D(
            6,
            1,
            use_bias=False,
            input_quantizer=lq.quantizers.NoOp(precision=1),
            kernel_quantizer=ScaledSign(),
        )
        for _ in range(2)
    ]
    profile = lq.models.ModelProfile(tf.keras.Model(inputs, [conv(binary) for conv in convs]))
    assert profile.op_count("mac", 1) == profile.op_count("mac") == 2 * 4 * 4 * 8 * 6
    assert profile.weight_count(32) == 8


def test_scaled_sign_matches_formula():
    rng = np.random.default_rng(1)
    w, dy = rng.uniform(-1.5, 1.5, (3, 3, 4, 5)), rng.normal(size=(3, 3, 4, 5))
    w[0, 0, :, 0] = 0.0, 1.0, -1.0, -0.0

    y, dw, _ = with_gradients(ScaledSign(dtype="float64"), w, dy)

    np.testing.assert_allclose(y, np.abs(w).mean((0, 1, 2)) * sign(w), rtol=1e-12)
    np.testing.assert_array_equal(dw, np.where(np.abs(w) <= 1, dy, 0))


@pytest.mark.parametrize("t", [0.1, 1.0, 3.0])
def test_ede_sign_matches_formula(t):
    rng = np.random.default_rng(2)
    x, dy = rng.normal(size=(2, 3, 3, 4)), rng.normal(size=(2, 3, 3, 4))
    x[0, 0, 0] = 0.0

    y, dx, _ = with_gradients(EDESign(t, dtype="float64"), x, dy)

    np.testing.assert_array_equal(y, sign(x))
    np.testing.assert_allclose(dx, dy * max(1 / t, 1) * t / np.cosh(t * x) ** 2, rtol=1e-12, atol=1e-14)


def test_ir_net_matches_official_modules():
    """Inputs and results of the IR-Net authors' convolution, run in PyTorch."""
    w = np.array([[0.10, -0.20, 0.40, 0.50], [2, -1, 0, 0.5], [0, 0, 0, 1]])
    conv = lq.layers.QuantConv2D(
        3,
        1,
        use_bias=False,
        input_quantizer=EDESign(t=0.1, dtype="float64"),
        kernel_quantizer=LibraSign(t=0.1, dtype="float64"),
        kernel_initializer=tf.keras.initializers.Constant(w.T),
        dtype="float64",
    )
    x = tf.constant([0.3, -0.7, 0.05, 2.0], tf.float64, shape=(1, 1, 1, 4))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = conv(x)
        loss = tf.reduce_sum(y)
    dw, dx = tape.gradient(loss, [conv.trainable_weights[0], x])

    np.testing.assert_array_equal(tf.squeeze(y), [2, 1, 0])
    with lq.context.quantized_scope(True):
        kernel = conv.get_weights()[0].squeeze().T
    np.testing.assert_array_equal(kernel, [[-1, -1, 1, 1], [0.5, -0.5, -0.5, 0.5], [-1, -1, -1, 1]])
    expected = [
        [2.409514, -1.362716, -0.099044, -0.947754],
        [-0.181438, -0.277046, 0.286824, 0.171660],
        [1.330005, -2.660011, 1.330005, 0],
    ]
    np.testing.assert_allclose(tf.transpose(tf.squeeze(dw)), expected, atol=1e-6)
    np.testing.assert_allclose(tf.squeeze(dx), [-1.498651, -2.487790, -0.499988, 2.402607], atol=1e-6)


def test_compiled_training_step_follows_assigned_t():
    """Two epochs of gradient descent with the loss y, done by hand, with a callback that sets t."""
    schedule = [0.5, 3.0]
    quantizer = EDESign()
    dense = lq.layers.QuantDense(1, use_bias=False, kernel_quantizer=quantizer)
    model = tf.keras.Sequential([tf.keras.Input((3,)), dense])
    model.compile(tf.keras.optimizers.SGD(0.1), loss=lambda y_true, y: y)
    w = dense.get_weights()[0][:, 0].astype("float64")
    x = np.array([[0.4, -1.0, 0.7]])

    set_t = tf.keras.callbacks.LambdaCallback(on_epoch_begin=lambda e, logs: quantizer.t.assign(schedule[e]))
    model.fit(x, np.zeros(1), epochs=2, verbose=0, callbacks=[set_t])

    for t in schedule:
        w -= 0.1 * x[0] * max(1 / t, 1) * t / np.cosh(t * w) ** 2
    np.testing.assert_allclose(dense.get_weights()[0][:, 0], w, rtol=1e-5)


@pytest.mark.parametrize("cls", [EDESign, LibraSign, RotatedSign, StandardizedSign])
def test_t_must_be_positive(cls):
    with pytest.raises(ValueError, match=f"{cls.__name__} 'q' needs t > 0, but got t=0"):
        cls(t=0, name="q")


def test_one_libra_sign_for_all_layers_can_be_saved(tmp_path):
    quantizer = LibraSign(t=0.3)
    model = tf.keras.Sequential(
        [tf.keras.Input((6, 6, 3))]
        + [lq.layers.QuantConv2D(filters, 3, kernel_quantizer=quantizer) for filters in (4, 5)]
    )
    model.save(tmp_path / "model.keras")
    x = np.random.default_rng(3).normal(size=(1, 6, 6, 3)).astype("float32")
    np.testing.assert_array_equal(tf.keras.models.load_model(tmp_path / "model.keras")(x), model(x))


@pytest.mark.parametrize("quantizer", [ScaledSign(), LibraSign()], ids=["scaled", "libra"])
def test_quantized_scope_shows_two_values_per_channel(quantizer):
    conv = lq.layers.QuantConv2D(4, 3, use_bias=False, kernel_quantizer=quantizer)
    conv.build((None, 8, 8, 5))
    latent = conv.get_weights()[0]
    with lq.context.quantized_scope(True):
        binary = conv.get_weights()[0]
    assert len(np.unique(latent)) == latent.size
    for channel in np.moveaxis(binary, -1, 0):
        low, high = np.unique(channel)
        assert low == -high
